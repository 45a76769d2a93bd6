"""Expectation backpropagation: a distribution over binary weights instead of gradients."""

from __future__ import annotations

from ..layers import Sequential
from ..training.ebp import EBP
from ..training.run import History
from .base import Job, Recipe, Setting, describe, file_options, moves, validation_of
from .plan import Plan

__all__ = ["EBP_D"]

# Variance of the first h, times the inputs of a layer. With 1 the means of the weights grow into a
# good network while their signs do not: on 3,000 images of MNIST, 2 x 150 units, 12 epochs, errors
# were 10 % by the means and 48 % by the signs; with 200 they were 8 % and 10 %.
SPREAD = 200.0


class Expectation:
    """Training by `EBP`; the network is the likeliest one (EBP-D)."""

    name = "training"
    rounds = takes_numbers = halves = takes_start = takes_teacher = False

    def check_start(self, job: Job) -> None:
        if job.start is not None:
            raise ValueError("[train] start must be None: this recipe starts from no checkpoint")

    def refused(self, plan: Plan) -> dict[str, str]:
        found = dict.fromkeys(moves(plan), "this recipe cannot move images")
        if plan.dropout > 0.5:
            found["dropout"] = "that of this recipe must be at most 0.5"
        if plan.schedule:
            found["schedule"] = "the size of its updates stays the same"
        if plan.recalibrate:
            found["recalibrate"] = "this recipe has no BatchNorm to recalibrate"
        return found

    def train(self, job: Job) -> tuple[Sequential, History]:
        self.check_start(job)
        if job.lessons is not None:
            raise ValueError("[train] lessons must be None: this recipe learns from no teacher")
        data, plan = job.data, job.plan
        x_train, x_test = (x.reshape(len(x), -1) for x in (data.x_train, data.x_test))
        sizes = x_train.shape[1], plan.width, plan.width, data.classes
        # what the source calls dropout is noise of the inputs' signs
        keep = 1 - plan.dropout
        trainer = EBP(sizes, lr=plan.lr, spread=SPREAD, keep=keep, seed=job.seed)
        job.say(f"net      {describe(trainer.network)}")
        history = trainer.fit(
            x_train,
            data.y_train,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            validation=validation_of(trainer.network, data),
            seed=job.seed,
            verbose=job.verbose,
            **file_options(job.files, job.callbacks),
        )
        error = trainer.error_rate(x_test, data.y_test)
        job.say(f"means    test error {error:.2%} by the means of the weights (EBP-P)")
        return trainer.network, history


EBP_D = Recipe(
    name="ebp",
    title="expectation backpropagation: binary weights as a distribution",
    paper="Soudry et al., Expectation backpropagation, 2014; Cheng et al., 2015",
    code="ExpectationBackpropagation/EBP_Matlab_Code",
    settings={
        "mnist": Setting(
            plan=Plan(width=1200, epochs=100, batch_size=50, lr=0.5),
            stages=(Expectation(),),
            quick={"width": 500, "epochs": 20},
            preprocessing="standard",
            published="2.12",
            ours=("width", "epochs", "batch_size", "lr"),
        ),
    },
    tested="binary weights and activations, the likeliest ones; validation by the means",
    notes="sizes, batches and the spread of the start weights are ours; a dropout of 0.2 is the "
    "source's option of noisy inputs; the learning rate is the size of the updates",
)
