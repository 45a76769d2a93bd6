"""Recipes with +-1 weights in every layer, and the float baseline of the same networks.

All train with the squared hinge loss and keep the epoch of the smallest validation error.
"""

from __future__ import annotations

from functools import partial

from ..data.datasets import Dataset
from ..layers import BatchNorm, Conv2D, Dense, ReLU, Sequential, ShiftBatchNorm, Sign
from ..layers.base import TrainingLayer
from ..quantizers import StochasticSign, ap2
from ..training.optim import Adam, Optimizer, ShiftAdaMax
from ..training.schedules import ExponentialDecay, Halving, Schedule, Stretched
from .base import Plan, Recipe, Setting, Stage
from .nets import Blocks, convnet_of, mlp_of

BINARYNET = Blocks()


def adam(model: Sequential, lr: float) -> Optimizer:
    """Adam; binary layers bring the scale of their rate and the clip of their weights."""
    return Adam(model.parameters(), lr)


def exponential(final_share: float):
    """A rate that falls to a share of the first one by the end of the run."""

    def schedule(lr: float) -> Schedule:
        return ExponentialDecay(lr, lr * final_share)

    return schedule


def mlp(blocks: Blocks, input_dropout: float = 0.0):
    """Builder of the network for MNIST; the dropout of the input is a multiple of the plan's."""

    def build(data: Dataset, plan: Plan, seed: int, previous: Sequential | None) -> Sequential:
        return mlp_of(blocks, data, plan, seed, input_dropout=input_dropout * plan.dropout)

    return build


def convnet(blocks: Blocks, hidden: int):
    """Builder of the network for CIFAR-10 and SVHN; units of dense layers per first channel."""

    def build(data: Dataset, plan: Plan, seed: int, previous: Sequential | None) -> Sequential:
        return convnet_of(blocks, data, plan, seed, hidden=hidden * plan.width)

    return build


def relu(seed) -> TrainingLayer:
    return ReLU()


BNN_THEANO = Recipe(
    "bnn-theano",
    "binary weights and activations, Adam",
    "Courbariaux, Hubara et al., Binarized Neural Networks, 2016",
    "MatthieuCourbariaux/BinaryNet",
    {
        "mnist": Setting(
            Plan(width=4096, epochs=1000, batch=100, lr=3e-3, dropout=0.5),
            (Stage(mlp(BINARYNET, 0.4), adam, exponential(1e-4)),),
            quick={"width": 2048, "epochs": 40, "dropout": 0.0},
            published="0.96",
            input_dropout=0.4,
        ),
        "cifar10": Setting(
            Plan(width=128, epochs=500, batch=50, lr=1e-3),
            (Stage(convnet(BINARYNET, 8), adam, exponential(3e-4)),),
            quick={"width": 32, "epochs": 6},
            preprocessing="unit",
            published="11.40",
        ),
        "svhn": Setting(
            Plan(width=64, epochs=200, batch=50, lr=1e-3),
            (Stage(convnet(BINARYNET, 16), adam, exponential(1e-3)),),
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
    """As for MNIST: gamma has a rate of its own scale too, only weights are clipped."""
    for layer in model.flat_layers():
        if isinstance(layer, BatchNorm):
            layer.gamma.lr_scale = (layer.gamma.size / 1.5) ** 0.5
    return ShiftAdaMax(model.parameters(), lr)


def shift_adamax_of_powers(model: Sequential, lr: float) -> Optimizer:
    """As for CIFAR-10: scales of rates are powers of two, and every parameter is clipped."""
    for parameter in model.parameters():
        parameter.lr_scale = float(ap2(parameter.lr_scale))
        parameter.clip_value = 1.0
    return ShiftAdaMax(model.parameters(), lr)


def halved(every: int, epochs: int):
    """A rate halved every so many of a number of epochs."""

    def schedule(lr: float) -> Schedule:
        return Stretched(Halving(lr, every), epochs)

    return schedule


BNN_TORCH = Recipe(
    "bnn-torch",
    "shift-based BatchNorm and AdaMax, stochastic activations",
    "Courbariaux, Hubara et al., Binarized Neural Networks, 2016",
    "itayhubara/BinaryNet",
    {
        "mnist": Setting(
            Plan(width=2048, epochs=200, batch=100, lr=2.0**-6),
            (Stage(mlp(SHIFT), shift_adamax, halved(20, 200)),),
            quick={"epochs": 25},
            preprocessing="unit",
            published="1.40",
        ),
        "cifar10": Setting(
            Plan(width=128, epochs=500, batch=200, lr=2.0**-6),
            (Stage(convnet(SHIFT, 8), shift_adamax_of_powers, halved(50, 500)),),
            quick={"width": 32, "epochs": 6},
            preprocessing="whitened",
            published="10.15",
        ),
        "svhn": Setting(
            Plan(width=64, epochs=200, batch=200, lr=2.0**-7),
            (Stage(convnet(SHIFT, 16), shift_adamax, halved(20, 200)),),
            quick={"width": 32, "epochs": 4},
            preprocessing="contrast",
            published="2.53",
        ),
    },
    tested="binary weights and activations (the sign, where training draws at random)",
    notes="no bias before a BatchNorm; the released program runs until it is stopped, here 200 "
    "epochs (500 on CIFAR-10); SVHN as in binaryconnect",
)

CONNECT = Blocks(norm=partial(BatchNorm, momentum=0.15), activation=relu)
CONNECT_CONV = Blocks(activation=relu)

BINARYCONNECT = Recipe(
    "binaryconnect",
    "binary weights, real activations",
    "Courbariaux et al., BinaryConnect, 2015",
    "MatthieuCourbariaux/BinaryConnect",
    {
        "mnist": Setting(
            Plan(width=2048, epochs=250, batch=100, lr=1e-3),
            (Stage(mlp(CONNECT), adam, exponential(3e-3)),),
            quick={"epochs": 20},
            published="1.29",
        ),
        "cifar10": Setting(
            Plan(width=128, epochs=500, batch=50, lr=3e-3),
            (Stage(convnet(CONNECT_CONV, 8), adam, exponential(2e-3 / 3)),),
            quick={"width": 32, "epochs": 6},
            preprocessing="whitened",
            published="9.90",
        ),
        "svhn": Setting(
            Plan(width=64, epochs=200, batch=50, lr=1e-2),
            (Stage(convnet(CONNECT_CONV, 16), adam, exponential(3e-4)),),
            quick={"width": 32, "epochs": 4},
            preprocessing="contrast",
            published="2.30",
        ),
    },
    tested="binary weights, real activations",
    notes="the deterministic variant, whose figures these are; eps of BatchNorm is added to the "
    "variance; SVHN without local contrast normalization and without its extra images",
)

FLOAT = Blocks(dense=partial(Dense, bias=False), conv=partial(Conv2D, bias=False), activation=relu)

FLOAT32 = Recipe(
    "float",
    "no binarization: the network of binaryconnect in float32",
    "Courbariaux, Hubara et al., Binarized Neural Networks, 2016 (no regularization)",
    "MatthieuCourbariaux/BinaryConnect",
    {
        "mnist": Setting(
            Plan(width=2048, epochs=250, batch=100, lr=1e-3),
            (Stage(mlp(FLOAT), adam, exponential(3e-3)),),
            quick={"epochs": 10},
            published="1.3",
        ),
        "cifar10": Setting(
            Plan(width=128, epochs=500, batch=50, lr=3e-3),
            (Stage(convnet(FLOAT, 8), adam, exponential(2e-3 / 3)),),
            quick={"width": 32, "epochs": 6},
            preprocessing="whitened",
            published="10.94",
        ),
        "svhn": Setting(
            Plan(width=64, epochs=200, batch=50, lr=1e-2),
            (Stage(convnet(FLOAT, 16), adam, exponential(3e-4)),),
            quick={"width": 32, "epochs": 4},
            preprocessing="contrast",
            published="2.44",
        ),
    },
    tested="float32 weights and activations",
    notes="start values of He et al., 2015; SVHN as in binaryconnect",
)
