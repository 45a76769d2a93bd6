"""Expectation backpropagation: a distribution over binary weights instead of gradients."""

from __future__ import annotations

from collections.abc import Callable

from ..data.datasets import Dataset
from ..layers import Sequential
from ..training.callbacks import History
from ..training.ebp import EBP
from .base import Files, Plan, Recipe, Setting, file_options

# Variance of the first h, times the inputs of a layer. With 1 the means of the weights grow into a
# good network while their signs do not: on 3,000 images of MNIST, 2 x 150 units, 12 epochs, errors
# were 10 % by the means and 48 % by the signs; with 200 they were 8 % and 10 %.
SPREAD = 200.0


class Expectation:
    """Training by `bitops.training.ebp.EBP`; the network is the likeliest one (EBP-D)."""

    name = "training"

    def train(
        self,
        data: Dataset,
        plan: Plan,
        seed: int,
        previous: Sequential | None,
        files: Files,
        verbose: int,
        say: Callable[[str], object],
    ) -> tuple[Sequential, History]:
        if plan.dropout:
            raise ValueError(f"[ebp] dropout must be 0, got {plan.dropout}")
        if plan.byte_gradients:
            raise ValueError("[ebp] there are no gradients to round, got byte_gradients=True")
        sizes = data.x_train[0].size, plan.width, plan.width, data.classes
        say(f"net      {'-'.join(map(str, sizes))}")
        distribution = EBP(sizes, lr=plan.lr, spread=SPREAD, seed=seed)
        history = distribution.fit(
            data.x_train.reshape(len(data.x_train), -1),
            data.y_train,
            epochs=plan.epochs,
            batch_size=plan.batch,
            validation=(data.x_validation.reshape(len(data.x_validation), -1), data.y_validation),
            seed=seed,
            verbose=verbose,
            **file_options(files),
        )
        error = distribution.error_rate(data.x_test.reshape(len(data.x_test), -1), data.y_test)
        say(f"means    test error {error:.2%} by the means of the weights (EBP-P)")
        return distribution.network, history


EBP_D = Recipe(
    "ebp",
    "expectation backpropagation: binary weights as a distribution",
    "Soudry et al., Expectation backpropagation, 2014; Cheng et al., 2015",
    "ExpectationBackpropagation/EBP_Matlab_Code",
    {
        "mnist": Setting(
            Plan(width=1200, epochs=100, batch=50, lr=0.5),
            (Expectation(),),
            quick={"width": 500, "epochs": 20},
            preprocessing="standard",
            published="2.12",
        ),
    },
    tested="binary weights and activations, the likeliest ones; validation by the means",
    notes="sizes, batches and the spread of the start are ours; no dropout of inputs; the learning "
    "rate is the size of updates",
)
