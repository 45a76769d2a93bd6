"""Layers of one's own: the activations of ReActNet, trained, packed, saved and loaded.

Binary networks lose much where an activation is too large or too small for its sign to tell
anything. ReActNet learns where each channel is to be cut: `RSign` shifts before the sign, and
`RPReLU` shifts before and behind a PReLU whose slopes are learned too.

Neither is a layer of bitops. This file defines both with public names only:

- `forward` and `backward`, with `Parameter` for what is learned,
- `role` and `to_packed`, so that `freeze` knows what becomes of them,
- for `RPReLU`, which no packed layer of bitops computes, a packed layer that `register` makes known
  to model files.

Reference: Liu et al., "ReActNet: towards precise binary neural network with generalized activation
functions", 2020, equations 3 to 6.
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


class RSign(TrainingLayer):
    """Sign with a learned threshold for each channel: y = +1 if x >= shift else -1.

    Backward: that of `ApproxSign` for x - shift.
    """

    # Bits come out, and each rises with the number that goes in: `freeze` can fold this layer, and
    # what stands between a binary product and it, into the thresholds of the product.
    role = Role.SIGN

    TRANSIENT = ("_z",)  # what pickles and copies leave out

    def __init__(self, channels: int):
        self.in_features = self.out_features = channels
        self.shift = Parameter(np.zeros(channels))
        self.quantizer = ApproxSign()

    def shifted(self, x) -> np.ndarray:
        return as_float(x) - self.shift.value

    def forward(self, x, *, training: bool = False) -> BitArray:
        z = self.shifted(x)
        if training:
            self._z = z
        return pack(z)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        dx = self.quantizer.backward(self._z, grad)
        self.shift.grad[...] = -column_sums(dx)
        return dx

    def parameters(self) -> list[Parameter]:
        return [self.shift]

    def to_packed(self) -> PackedSign:
        # x >= shift and x - shift >= 0 are not the same in float32. `fold` finds the threshold at
        # which the very expression of `forward` changes its sign.
        return PackedSign(*fold(self.shifted, self.shift.size))

    def output_bits(self, input_bits: int | None) -> int:
        return 1


def rprelu(x: np.ndarray, shift: np.ndarray, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """What `RPReLU` and its packed twin both compute, so that they agree bit for bit."""
    z = x - shift
    return np.where(z > 0, z, slope * z) + offset


class RPReLU(TrainingLayer):
    """PReLU with learned shifts: y = z + offset if z > 0 else slope z + offset, z = x - shift.

    Backward: dx = dy (1 if z > 0 else slope), dshift = -sum dx, doffset = sum dy and
    dslope = sum dy z over z <= 0.
    """

    TRANSIENT = ("_z",)

    def __init__(self, channels: int):
        self.in_features = self.out_features = channels
        self.shift = Parameter(np.zeros(channels))
        self.slope = Parameter(np.full(channels, 0.25))
        self.offset = Parameter(np.zeros(channels))

    @property
    def role(self) -> Role:
        # With a slope below 0 the layer neither rises nor falls throughout, and stands alone.
        return Role.STEP if (self.slope.value >= 0).all() else Role.ALONE

    def forward(self, x, *, training: bool = False) -> np.ndarray:
        x = as_float(x)
        if training:
            self._z = x - self.shift.value
        return rprelu(x, self.shift.value, self.slope.value, self.offset.value)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        z = self._z
        dx = grad * np.where(z > 0, np.float32(1), self.slope.value)
        self.shift.grad[...] = -column_sums(dx)
        self.slope.grad[...] = column_sums(grad * np.minimum(z, 0))
        self.offset.grad[...] = column_sums(grad)
        return dx

    def parameters(self) -> list[Parameter]:
        return [self.shift, self.slope, self.offset]

    def to_packed(self) -> PackedRPReLU:
        return PackedRPReLU(self.shift.value, self.slope.value, self.offset.value)


@register
class PackedRPReLU(Layer):
    """Twin of `RPReLU` for inference."""

    ARRAYS = tuple(ArraySpec(name, "float32", 1) for name in ("shift", "slope", "offset"))

    def __init__(self, shift, slope, offset):
        # copies, as the parameters go on changing; and checks, as files may come from strangers
        arrays = [np.array(array, np.float32) for array in (shift, slope, offset)]
        if any(a.shape != arrays[0].shape or a.ndim != 1 for a in arrays):
            raise ValueError(f"[PackedRPReLU] arrays must have one shape, got {arrays!r}")
        self.shift, self.slope, self.offset = arrays
        self.in_features = self.out_features = self.shift.size

    def forward(self, x) -> np.ndarray:
        return rprelu(as_float(x), self.shift, self.slope, self.offset)

    def cost(self, input_bits: int | None) -> Cost:
        return Cost(3 * self.shift.size, 12 * self.shift.size, float_macs=self.shift.size)


def block(channels: int, seed: int) -> list[TrainingLayer]:
    """A block of ReActNet: a binary convolution with a shortcut around it, then RPReLU."""
    convolution = BinaryConv2D(channels, channels, 3, padding=1, seed=seed)
    body = Sequential(RSign(channels), convolution, BatchNorm(channels))
    return [Residual(body), RPReLU(channels)]


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
    for layer in (RSign(6), RPReLU(6)):
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
        path = Path(folder) / "reactnet.safetensors"
        model.freeze().save(path)
        packed = load(path)
    print(packed.summary())
    np.testing.assert_array_equal(packed(x), model(x))  # bit for bit
    error = np.mean(packed.predict(x) != y)
    print(f"error {error:.1%}")
    assert error < 0.1

    # Between a binary product and an RSign, RPReLU becomes a part of the thresholds.
    chain = Sequential(RSign(1), BinaryConv2D(1, 16, 3, seed=4), RPReLU(16), RSign(16))
    for parameter in chain.parameters()[2:]:
        parameter.assign(np.abs(rng.normal(size=16)))
    folded = chain.freeze()
    assert [layer.name for layer in folded.layers] == ["PackedSign", "PackedConv2D"]
    assert folded(x) == chain(x)


if __name__ == "__main__":
    main()
