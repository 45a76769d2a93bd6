"""Short trainings, each of which was interrupted and left a checkpoint; see README.md."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bitops import pack
from bitops.layers import (
    AvgPool2D,
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Quantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizeGradient,
    ReLU,
    Residual,
    Sequential,
    ShiftBatchNorm,
    Sign,
)
from bitops.quantizers import (
    AnnealedSign,
    ClippedGradient,
    DoReFaActivation,
    DoReFaWeight,
    StochasticSign,
    Ternary,
    TwnTernary,
)
from bitops.training.augment import random_crop
from bitops.training.ebp import EBP
from bitops.training.losses import cross_entropy, hinge, squared_hinge
from bitops.training.optim import SGD, Adam, AdaMax, Bop, ShiftAdaMax
from bitops.training.schedules import CosineDecay, ExponentialDecay, Halving, StepDecay, Warmup
from old_files.integers import Integers

CLASSES = 3
SCALED = {"scale_weights": True}  # binary layers that scale their weights
MAPPED = {"scale_input": True}  # and their input


@dataclass
class Training:
    """A training, and the step after which it was interrupted.

    Attributes
    ----------
    model : callable of a seed
    optimizer : callable of a model, optional
    tolerance : float, optional
        Relative error of the end that another BLAS or libm may make; 0 where neither has a part
        in it, None where the end may be any.
    """

    model: Callable[[int], Sequential]
    data: tuple[Any, np.ndarray]
    step: int
    optimizer: Callable[[Sequential], Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float | None = 0

    def fit(self, model, **more):
        options = {"epochs": 3, "batch_size": 12, "verbose": 0, **self.options, **more}
        if self.optimizer is not None:
            options["optimizer"] = self.optimizer(model)
        return model.fit(*self.data, **options)


def examples(*shape, n=36):
    """Signs, and the classes by whose patterns they were made."""
    r = Integers(n)
    y = np.arange(n) % CLASSES
    patterns = r.signs(CLASSES, *shape)
    noise = np.where(r.draw(0, 10, n, *shape) < 3, -1, 1)
    return (patterns[y] * noise).astype(np.int8), y


def bits(*shape, n=36):
    x, y = examples(*shape, n=n)
    return pack(x), y


def bytes_of(*shape, n=36):
    x, y = examples(*shape, n=n)
    return (x * 90 + 120).astype(np.uint8), y


def mlp(seed, norm=BatchNorm, make_sign=Sign, **options):
    """Two binary layers."""
    return Sequential(
        BinaryDense(12, 6, seed=seed, **options),
        norm(6),
        make_sign(),
        BinaryDense(6, CLASSES, seed=seed, **options),
        norm(CLASSES),
    )


def centred(seed):
    return mlp(seed, center=True, bias=True, **SCALED)


def stochastic(seed):
    def make_sign():
        source = StochasticSign(seed=np.random.default_rng(seed))
        return Sign(quantizer=ClippedGradient(source, 2.0))

    model = Sequential(
        BinaryDense(12, 6, stochastic=True, seed=seed),
        QuantizeGradient(4, seed),
        BatchNorm(6),
        make_sign(),
        BinaryDense(6, CLASSES, stochastic=True, seed=seed + 1),
        BatchNorm(CLASSES),
    )
    model.round_gradients(seed)
    return model


def ternary(seed):
    return Sequential(
        QuantizedDense(12, 6, Ternary(), seed=seed),
        BatchNorm(6),
        Sign(1.5),
        QuantizedDense(6, CLASSES, TwnTernary(), bias=True, clip_value=0.9, seed=seed),
    )


def convnet(seed):
    return Sequential(
        BinaryConv2D(3, 4, 3, padding=1, seed=seed),
        MaxPool2D(2),
        BatchNorm(4),
        Sign(),
        BinaryConv2D(
            4,
            4,
            2,
            stride=2,
            padding=((1, 0), (0, 1)),
            pad_value=-1,
            bias=True,
            seed=seed,
            **SCALED,
        ),
        BatchNorm(4),
        Sign(),
        Flatten(),
        BinaryDense(16, CLASSES, seed=seed),
        BatchNorm(CLASSES),
        input_shape=(6, 6, 3),
    )


def residual(seed):
    body = Sequential(BinaryConv2D(4, 4, 3, padding=1, seed=seed, **SCALED, **MAPPED), BatchNorm(4))
    return Sequential(
        BinaryConv2D(3, 4, 2, stride=2, seed=seed),
        BatchNorm(4),
        Residual(body),
        Residual(Sequential(Sign(), BinaryConv2D(4, 4, 1, seed=seed)), BatchNorm(4)),
        Sign(),
        Flatten(),
        BinaryDense(36, CLASSES, seed=seed),
        BatchNorm(CLASSES),
        input_shape=(6, 6, 3),
    )


def mixed(seed):
    """Float32 layers and codes, for which float32 BLAS has a part in the gradients."""
    return Sequential(
        Conv2D(3, 4, 3, padding=1, seed=seed),
        BatchNorm(4),
        ReLU(),
        AvgPool2D(2),
        Dropout(0.2, np.random.Generator(np.random.SFC64(seed))),
        Quantize(DoReFaActivation(2)),
        QuantizedConv2D(4, 4, 2, DoReFaWeight(2), seed=seed),
        BatchNorm(4),
        Sign(quantizer=AnnealedSign()),
        Flatten(),
        BinaryDense(16, 6, real_evaluation=True, seed=seed),
        BatchNorm(6),
        ReLU(),
        Dense(6, CLASSES, seed=seed),
        input_shape=(6, 6, 3),
    )


def ebp(seed):
    return EBP([12, 6, CLASSES], lr=0.5, seed=seed)


def shifted(x, rng):
    return random_crop(x, 1, rng)


def adam(model):
    return Adam(model.parameters(), beta2=0.99)


def sgd(model):
    decayed = [model.layers[i].gamma for i in (1, 4)]
    return SGD(model.parameters(), momentum=0.5, weight_decay=0.125, decayed=decayed)


def bop(model):
    return Bop(model.parameters(), threshold=1e-6, adaptivity=1e-2)


def adamax(model):
    return AdaMax(model.parameters())


def shift_adamax(model):
    return ShiftAdaMax(model.parameters())


def validated(data):
    """Options of a training that is validated with the first of its rows."""
    x, y = data
    return {"validation": (x[:20], y[:20])}


# the schedule that an optimizer got without one when these were written
DECAY = {"schedule": ExponentialDecay()}

TRAININGS = {
    "adam": Training(mlp, bits(12), 4, None, {**validated(bits(12)), "seed": 3}),
    "adamax": Training(
        centred, bits(12), 5, adamax, {"loss": hinge, "schedule": StepDecay(0.0625, (1,), 0.5)}
    ),
    "bop": Training(mlp, bits(12), 7, bop, {**validated(bits(12)), **DECAY}),
    "convnet": Training(convnet, bits(6, 6, 3), 4, None, {"seed": np.random.SeedSequence(5)}),
    "ebp": Training(ebp, examples(12), 4, None, validated(examples(12)), 1e-3),
    "mixed": Training(
        mixed,
        bytes_of(6, 6, 3),
        4,
        None,
        {
            "augment": shifted,
            "loss": cross_entropy,
            "schedule": Warmup(CosineDecay(0.01), 1),
        },
        None,
    ),
    "residual": Training(residual, bits(6, 6, 3), 5),
    "sgd": Training(mlp, bits(12), 5, sgd, {"schedule": StepDecay(0.25, (1, 2))}),
    "shift_adamax": Training(
        partial(mlp, norm=ShiftBatchNorm),
        bits(12),
        7,
        shift_adamax,
        {"loss": squared_hinge, "schedule": Halving(2.0**-6, 1)},
    ),
    "stochastic": Training(stochastic, bits(12), 5, None, validated(bits(12))),
    "ternary": Training(ternary, bits(12), 7, adam, DECAY),
}


def parameters(layers, prefix):
    """Parameters and running statistics by place and name, those in branches too.

    In the order in which a checkpoint numbers them.
    """
    found = {}
    for place, layer in enumerate(layers):
        where = f"{prefix}.{place}"
        for name in ("weight", "bias", "gamma", "beta"):
            if getattr(layer, name, None) is not None:
                found[f"{where}.{name}"] = getattr(layer, name).value.copy()
        for name in ("running_mean", "running_inv_std", "batches_seen"):
            if hasattr(layer, name):
                found[f"{where}.{name}"] = np.array(getattr(layer, name))
        for name in ("body", "shortcut"):
            branch = getattr(layer, name, None)
            if branch is not None:
                inside = getattr(branch, "layers", [branch])
                found |= parameters(inside, f"{where}.{name}")
    return found


def end_of(model, history, x):
    """What a training leads to: parameters, scores, and the numbers of its epochs."""
    numbers = [[e.learning_rate, e.loss, e.train_error] for e in history.epochs]
    checked = [e.validation_error for e in history.epochs if e.validation_error is not None]
    return {
        **parameters(model.flat_layers(), "end"),
        "end.scores": np.ascontiguousarray(model.outputs(x)),
        "end.epochs": np.array(numbers),
        "end.validation": np.array(checked),
    }
