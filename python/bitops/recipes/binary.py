"""Recipes with +-1 weights in every layer, and the float baseline of the same networks.

All train with the squared hinge loss and keep the epoch of the smallest validation error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..layers import BatchNorm, Conv2D, Dense, Sequential, ShiftBatchNorm, Sign, TrainingLayer
from ..quantizers import StochasticSign, ap2
from ..training.optim import Optimizer, ShiftAdaMax
from .base import Recipe, Setting, Stage
from .builders import adam, exponential, halved, relu
from .nets import Blocks, convnet, mlp
from .plan import Plan

__all__ = ["BINARYCONNECT", "BNN_THEANO", "BNN_TORCH", "FLOAT32"]

BNN = "Courbariaux, Hubara et al., Binarized Neural Networks, 2016"
BINARYNET = Blocks()
INPUT_DROPOUT = 0.4  # as a multiple of the dropout of hidden layers

BNN_THEANO = Recipe(
    name="bnn-theano",
    title="binary weights and activations, Adam",
    paper=BNN,
    code="MatthieuCourbariaux/BinaryNet",
    settings={
        "mnist": Setting(
            plan=Plan(width=4096, epochs=1000, batch_size=100, lr=3e-3, dropout=0.5),
            stages=(
                Stage(
                    partial(mlp, BINARYNET, input_dropout=INPUT_DROPOUT), adam, exponential(1e-4)
                ),
            ),
            quick={"width": 2048, "epochs": 40, "dropout": 0.0},
            published="0.96",
            input_dropout=INPUT_DROPOUT,
        ),
        "cifar10": Setting(
            plan=Plan(width=128, epochs=500, batch_size=50, lr=1e-3),
            stages=(Stage(partial(convnet, BINARYNET, units=8), adam, exponential(3e-4)),),
            quick={"width": 32, "epochs": 6},
            preprocessing="unit",
            published="11.40",
        ),
        "svhn": Setting(
            plan=Plan(width=64, epochs=200, batch_size=50, lr=1e-3),
            stages=(Stage(partial(convnet, BINARYNET, units=16), adam, exponential(1e-3)),),
            quick={"width": 32, "epochs": 4},
            preprocessing="unit",
            published="2.80",
        ),
    },
    notes="no bias before a BatchNorm, which would subtract it; deterministic weights, as in the "
    "released scripts; SVHN without its extra images",
)


def stochastic_sign(seed) -> TrainingLayer:
    return Sign(quantizer=StochasticSign(seed=seed))


SHIFT = Blocks(
    norm=ShiftBatchNorm,
    activation=stochastic_sign,
    last_norm=partial(BatchNorm, eps=1e-5),
)


def shift_adamax(model: Sequential, lr: float) -> Optimizer:
    """Make the optimizer for MNIST: gamma too has a scaled rate, only weights are clipped."""
    for layer in model.flat_layers():
        if isinstance(layer, BatchNorm):
            layer.gamma.lr_scale = (layer.gamma.size / 1.5) ** 0.5
    return ShiftAdaMax(model.parameters(), lr)


def shift_adamax_of_powers(model: Sequential, lr: float) -> Optimizer:
    """Make the optimizer for CIFAR-10: rates scaled by powers of two, all parameters clipped."""
    for parameter in model.parameters():
        parameter.lr_scale = float(ap2(parameter.lr_scale))
        parameter.clip_value = 1.0
    return ShiftAdaMax(model.parameters(), lr)


shifting = partial(Stage, halves=False)

BNN_TORCH = Recipe(
    name="bnn-torch",
    title="shift-based BatchNorm and AdaMax, stochastic activations",
    paper=BNN,
    code="itayhubara/BinaryNet",
    settings={
        "mnist": Setting(
            plan=Plan(width=2048, epochs=200, batch_size=100, lr=2.0**-6),
            stages=(shifting(partial(mlp, SHIFT), shift_adamax, halved(20, 200)),),
            quick={"epochs": 25},
            preprocessing="unit",
            published="1.40",
            ours=("epochs",),
        ),
        "cifar10": Setting(
            plan=Plan(width=128, epochs=500, batch_size=200, lr=2.0**-6),
            stages=(
                shifting(partial(convnet, SHIFT, units=8), shift_adamax_of_powers, halved(50, 500)),
            ),
            quick={"width": 32, "epochs": 6},
            preprocessing="whitened",
            published="10.15",
            ours=("epochs",),
        ),
        "svhn": Setting(
            plan=Plan(width=64, epochs=200, batch_size=200, lr=2.0**-7),
            stages=(shifting(partial(convnet, SHIFT, units=16), shift_adamax, halved(20, 200)),),
            quick={"width": 32, "epochs": 4},
            preprocessing="local_contrast",
            published="2.53",
            ours=("epochs",),
        ),
    },
    tested="binary weights and activations (the sign, where training draws at random)",
    notes="no bias before a BatchNorm; the released program runs until it is stopped, here it runs "
    "for 200 epochs (500 on CIFAR-10); SVHN without its extra images",
)


def connect_settings(
    dense: Blocks,
    conv: Blocks,
    published: Mapping[str, str],
    *,
    quick_epochs: int,
    rounds: bool = True,
) -> dict[str, Setting]:
    """Return the settings of BinaryConnect for networks of some blocks.

    `published` are the figures of the source by data set, `quick_epochs` those of a short training
    on MNIST, and `rounds` is as of `Stage`, and as its `takes_numbers`.
    """
    stage = partial(Stage, rounds=rounds, takes_numbers=rounds)
    return {
        "mnist": Setting(
            plan=Plan(width=2048, epochs=250, batch_size=100, lr=1e-3),
            stages=(stage(partial(mlp, dense), adam, exponential(3e-3)),),
            quick={"epochs": quick_epochs},
            published=published["mnist"],
        ),
        "cifar10": Setting(
            plan=Plan(width=128, epochs=500, batch_size=50, lr=3e-3),
            stages=(stage(partial(convnet, conv, units=8), adam, exponential(2e-3 / 3)),),
            quick={"width": 32, "epochs": 6},
            preprocessing="whitened",
            published=published["cifar10"],
        ),
        "svhn": Setting(
            plan=Plan(width=64, epochs=200, batch_size=50, lr=1e-2),
            stages=(stage(partial(convnet, conv, units=16), adam, exponential(3e-4)),),
            quick={"width": 32, "epochs": 4},
            preprocessing="local_contrast",
            published=published["svhn"],
        ),
    }


BINARYCONNECT = Recipe(
    name="binaryconnect",
    title="binary weights, real activations",
    paper="Courbariaux et al., BinaryConnect, 2015",
    code="MatthieuCourbariaux/BinaryConnect",
    settings=connect_settings(
        Blocks(norm=partial(BatchNorm, momentum=0.15), activation=relu),
        Blocks(activation=relu),
        {"mnist": "1.29", "cifar10": "9.90", "svhn": "2.30"},
        quick_epochs=20,
    ),
    tested="binary weights, real activations",
    notes="the deterministic variant, whose figures these are; eps of BatchNorm is added to the "
    "variance; SVHN without its extra images",
)

FLOAT = Blocks(dense=partial(Dense, bias=False), conv=partial(Conv2D, bias=False), activation=relu)

FLOAT32 = Recipe(
    name="float",
    title="no binarization: the network of binaryconnect in float32",
    paper=f"{BNN} (no regularization)",
    code="MatthieuCourbariaux/BinaryConnect",
    settings=connect_settings(
        FLOAT,
        FLOAT,
        {"mnist": "1.3", "cifar10": "10.94", "svhn": "2.44"},
        quick_epochs=10,
        rounds=False,
    ),
    tested="float32 weights and activations",
    notes="start weights as in He et al., 2015; SVHN as in binaryconnect",
)
