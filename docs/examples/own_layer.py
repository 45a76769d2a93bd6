"""Write layers of your own
========================

Layers of one's own: a sign at the running mean, and a clip with learned limits.

Binary networks lose much where nearly all numbers of a channel have one sign. `CenteredSign`
compares each number with the running mean of its channel, so that about half of the bits are +1.
`LearnedClip` limits each channel at a number that it learns, and leaks below 0.

Neither is a layer of bitops. This file defines both with public names only:

- `forward` and `backward`, with `Parameter` for what is learned,
- `state` and `restore`, for what training changes besides: the running means,
- `role` and `to_packed`, so that `freeze` knows what becomes of them,
- for `LearnedClip`, which no packed layer of bitops computes, a packed layer that `register` makes
  known to model files.

Reference: Choi et al., "PACT: parameterized clipping activation for quantized neural networks",
2018, equation 1, has the learned limit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from bitops import BitArray, pack
from bitops.io import ArraySpec, load, register
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    Conv2D,
    Cost,
    Dense,
    GlobalAvgPool2D,
    Layer,
    PackedSign,
    Parameter,
    Residual,
    Role,
    Sequential,
    TrainingLayer,
    as_float,
    check_gradients,
    column_sums,
    fold,
)
from bitops.quantizers import ApproxSign


class CenteredSign(TrainingLayer):
    """Sign of the difference from the mean: y = +1 if x >= mean else -1, one mean a channel.

    Training takes the mean of the batch, and evaluation a running mean.
    Backward, with g that of `ApproxSign` for x - mean: dx = g - mean(g).
    """

    # Bits come out, and each rises with the number that goes in: `freeze` can fold this layer, and
    # what stands between a binary product and it, into the thresholds of the product.
    role = Role.SIGN

    SAVED = ("_z",)  # dropped after backward, left out of pickles and copies

    def __init__(self, channels: int):
        self.in_features = self.out_features = channels
        self.mean = np.zeros(channels, np.float32)
        self.quantizer = ApproxSign()

    def centered(self, x) -> np.ndarray:
        return as_float(x) - self.mean

    def forward(self, x, *, training: bool = False) -> BitArray:
        if not training:
            return pack(self.centered(x))
        x = as_float(x)
        mean = channel_means(x)
        self.mean += np.float32(0.1) * (mean - self.mean)
        self._z = x - mean
        return pack(self._z)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        dx = self.quantizer.backward(self._z, grad)
        return dx - channel_means(dx)

    def state(self) -> list:
        return [self.mean.copy()]

    def restore(self, state) -> None:
        (self.mean[...],) = state

    def to_packed(self) -> PackedSign:
        # x >= mean and x - mean >= 0 are not the same in float32. `fold` finds the threshold at
        # which the very expression of `forward` changes its sign.
        return PackedSign(*fold(self.centered, self.mean.size))

    def output_bits(self, input_bits: int | None) -> int:
        return 1


def channel_means(x: np.ndarray) -> np.ndarray:
    return (column_sums(x) / (x.size // x.shape[-1])).astype(np.float32)


def learned_clip(x: np.ndarray, top: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """What `LearnedClip` and its packed twin both compute, so that they agree bit for bit."""
    return np.where(x < 0, slope * x, np.minimum(x, top))


class LearnedClip(TrainingLayer):
    """Clip and leak: y = min(x, top) if x >= 0 else slope x, with a top and a slope a channel.

    Backward: dx = dy (slope if x < 0, 1 up to the top, 0 above), dtop = sum dy over x > top and
    dslope = sum dy x over x < 0.
    """

    SAVED = ("_x",)

    def __init__(self, channels: int):
        self.in_features = self.out_features = channels
        self.top = Parameter(np.full(channels, 3.0))
        self.slope = Parameter(np.full(channels, 0.25))

    @property
    def role(self) -> Role:
        # With a limit or a slope below 0 the layer neither rises nor falls throughout, and stands
        # alone.
        rises = (self.top.value >= 0).all() and (self.slope.value >= 0).all()
        return Role.STEP if rises else Role.ALONE

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_float(x)
        if training:
            self._x = x
        return learned_clip(x, self.top.value, self.slope.value)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        x = self._x
        falls, clips = x < 0, (x >= 0) & (x > self.top.value)
        self.top.grad[...] = column_sums(grad * clips)
        self.slope.grad[...] = column_sums(grad * np.minimum(x, 0))
        return grad * np.where(falls, self.slope.value, ~clips)

    def parameters(self) -> list[Parameter]:
        return [self.top, self.slope]

    def to_packed(self) -> PackedLearnedClip:
        return PackedLearnedClip(self.top.value, self.slope.value)


@register
class PackedLearnedClip(Layer):
    """Twin of `LearnedClip` for inference."""

    ARRAYS = tuple(ArraySpec(name, "float32", 1) for name in ("top", "slope"))

    def __init__(self, top, slope):
        # copies, as the parameters go on changing; and checks, as files may come from strangers
        arrays = [np.array(array, np.float32) for array in (top, slope)]
        if any(a.shape != arrays[0].shape or a.ndim != 1 for a in arrays):
            raise ValueError(f"[PackedLearnedClip] arrays must have one shape, got {arrays!r}")
        self.top, self.slope = arrays
        self.in_features = self.out_features = self.top.size

    def forward(self, x) -> np.ndarray:
        return learned_clip(as_float(x), self.top, self.slope)

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(2 * self.top.size, 8 * self.top.size, float_macs=self.top.size)


def block(channels: int, seed: int) -> list[TrainingLayer]:
    """A binary convolution with a shortcut around it, then the learned clip."""
    convolution = BinaryConv2D(channels, channels, 3, padding=1, seed=seed)
    body = Sequential(CenteredSign(channels), convolution, BatchNorm(channels))
    return [Residual(body), LearnedClip(channels)]


def stripes(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (rows, 8, 8, 1) of stripes in noise, and their directions 0 to 3."""
    rng = np.random.default_rng(seed)
    directions = np.array([[1, 0], [0, 1], [1, 1], [1, -1]]) * np.pi / 2
    labels = rng.integers(4, size=rows)
    down, right = directions[labels].T[..., np.newaxis, np.newaxis]
    y, x = np.mgrid[:8, :8]
    images = np.sin(down * y + right * x) + rng.normal(0, 0.7, (rows, 8, 8))
    return images[..., np.newaxis].astype(np.float32), labels


def main() -> None:
    rng = np.random.default_rng(0)
    for layer in (CenteredSign(6), LearnedClip(6)):
        for parameter in layer.parameters():
            parameter.assign(rng.normal(size=6))
        print(f"{layer}\n{check_gradients(layer, rng.normal(size=(9, 6)))}\n")

    model = Sequential(
        Conv2D(1, 16, 3, padding=1, seed=0), BatchNorm(16), *block(16, 1), *block(16, 2),
        GlobalAvgPool2D(), Dense(16, 4, seed=3), input_shape=(8, 8, 1),
    )  # fmt: skip
    x, y = stripes(1000, seed=0)
    print(model.fit(x, y, epochs=6, batch_size=50, seed=0, verbose=0))

    x, y = stripes(500, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stripes.safetensors"
        model.freeze().save(path)
        packed = load(path)
    print(packed.summary())
    np.testing.assert_array_equal(packed(x), model(x))  # bit for bit
    error = np.mean(packed.predict(x) != y)
    print(f"error {error:.1%}")
    assert error < 0.1

    # Between a binary product and a sign, LearnedClip becomes a part of the thresholds.
    conv = BinaryConv2D(1, 16, 3, seed=4)
    chain = Sequential(CenteredSign(1), conv, LearnedClip(16), CenteredSign(16))
    chain.forward(x, training=True)  # now the running means are others than 0
    folded = chain.freeze()
    assert [layer.name for layer in folded.layers] == ["PackedSign", "PackedConv2D"]
    assert folded(x) == chain(x)


if __name__ == "__main__":
    main()
