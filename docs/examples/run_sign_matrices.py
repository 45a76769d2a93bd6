"""Run sign matrices and BatchNorm
===============================

Run a network that another program trained: +-1 matrices and BatchNorm statistics.

The network is 784 -> 512 -> 512 -> 10, each layer a product with +-1 weights and a BatchNorm, with
signs between the layers. It is packed, and compared with the same network in plain NumPy.
"""

from itertools import pairwise

import numpy as np

import bitops as bo
from bitops.layers import Packed, PackedDense, fold

SIZES = (784, 512, 512, 10)


class Norm:
    """The BatchNorm of one layer as the other program evaluates it, in float32."""

    def __init__(self, features: int, fan_in: int, rng: np.random.Generator):
        self.gamma = np.float32(rng.normal(1, 0.5, features))  # negative ones among them
        self.beta = np.float32(rng.normal(0, 0.3, features))
        self.mean = np.float32(rng.normal(0, fan_in**0.5 / 4, features))
        self.variance = np.float32(rng.uniform(0.5, 2, features) * fan_in)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.gamma * (x - self.mean) / np.sqrt(self.variance + np.float32(1e-5)) + self.beta


def run_in_numpy(x: np.ndarray, weights: list[np.ndarray], norms: list[Norm]) -> np.ndarray:
    """Scores of the network: bits are +1 where a number is >= 0."""
    for w, norm in zip(weights[:-1], norms[:-1], strict=True):
        x = np.where(norm(np.float32(x @ w.T)) >= 0, 1, -1)
    return norms[-1](np.float32(x @ weights[-1].T))


def main() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.choice([-1, 1], (n, k)) for k, n in pairwise(SIZES)]  # a row for each unit
    norms = [Norm(n, k, rng) for k, n in pairwise(SIZES)]
    images = rng.choice([-1, 1], (200, SIZES[0]))

    # Hidden layers: BatchNorm and sign become an integer threshold and a flip for each unit. `fold`
    # asks the very expression that the other program evaluates, so that rounding changes no bit.
    layers = []
    for w, norm in zip(weights[:-1], norms[:-1], strict=True):
        units, k = w.shape
        threshold, flip = fold(norm, units, k)
        layers.append(PackedDense(w, threshold, flip))
        print(f"{units} units: {np.count_nonzero(flip)} with a negative gamma")
    # The last layer gives its products, and its BatchNorm makes scores of them.
    layers.append(PackedDense(weights[-1]))
    net = Packed(layers, input_shape=(SIZES[0],))

    products = net(bo.pack(images))
    assert products.dtype == np.int32
    scores = norms[-1](np.float32(products))
    expected = run_in_numpy(images, weights, norms)
    assert np.array_equal(scores, expected)  # every score, bit for bit
    print(f"all {scores.size:,} scores are equal")

    # The last BatchNorm can be a part of the network too: as a scale and a bias, which round
    # otherwise than the expression above.
    last = norms[-1]
    alpha = last.gamma / np.sqrt(last.variance + np.float32(1e-5))
    bias = last.beta - last.mean * alpha
    whole = Packed([*layers[:-1], PackedDense(weights[-1], alpha=alpha, bias=bias)])
    assert np.allclose(whole(bo.pack(images)), expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(whole.predict(bo.pack(images)), expected.argmax(axis=1))

    floats = sum(4 * w.size for w in weights)
    print(f"{floats:,} bytes of float32 weights became {whole.nbytes:,}")


if __name__ == "__main__":
    main()
