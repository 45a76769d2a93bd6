"""A binary convolution and its error
==================================

Approximate a real convolution by a binary one, as XNOR-Net does, and measure the error.

Filters become their signs B and a scale alpha each, images their signs and the map K of mean
magnitudes: images * filters is close to (sign(images) * B) K alpha.
"""

import numpy as np

import bitops as bo


def convolve(images: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with zeros outside, in plain NumPy: images NHWC, filters OHWI."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    taps = ((y, x) for y in range(3) for x in range(3))
    return sum(padded[:, y : y + height, x : x + width] @ filters[:, y, x].T for y, x in taps)


def signs(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, np.float32(1), np.float32(-1))


def main() -> None:
    rng = np.random.default_rng(0)
    # Images that get brighter from left to right, and filters of different sizes: K and alpha have
    # something to tell.
    brightness = np.linspace(0.2, 3, 16)[:, np.newaxis]
    images = np.float32(rng.standard_normal((4, 16, 16, 64)) * brightness)
    filters = np.float32(rng.standard_normal((32, 3, 3, 64)) * rng.uniform(0.5, 2, (32, 1, 1, 1)))
    exact = convolve(images, filters)

    B, alpha = bo.binarize_weights(filters)
    K = bo.k_map(images, 3, padding=1)
    binary = bo.conv2d(images, B, padding=1)  # int32; images are packed by sign in the call
    with_alpha = bo.conv2d(images, B, padding=1, alpha=alpha)
    with_both = bo.conv2d(images, B, padding=1, alpha=alpha, k_map=K)

    # The same by hand. What lies outside of the image adds nothing.
    assert np.array_equal(binary, convolve(signs(images), signs(filters)))
    assert np.allclose(alpha, np.abs(filters).mean(axis=(1, 2, 3)))
    magnitudes = np.abs(images).mean(axis=3, keepdims=True)
    assert np.allclose(K, convolve(magnitudes, np.full((1, 3, 3, 1), 1 / 9))[..., 0], rtol=1e-5)
    assert np.allclose(with_both, binary * K[..., np.newaxis] * alpha, rtol=1e-5)

    # How much of the exact result each leaves unexplained, with the best single factor before it.
    errors = {}
    for name, y in (("signs", binary), ("alpha", with_alpha), ("alpha and K", with_both)):
        factor = np.vdot(y, exact) / np.vdot(y, y)
        errors[name] = float(np.linalg.norm(exact - factor * y) / np.linalg.norm(exact))
        print(f"{name:<12} relative error {errors[name]:.3f}")
    assert errors["alpha and K"] < errors["alpha"] < errors["signs"]
    print(f"{filters.nbytes:,} bytes of filters became {B.nbytes + alpha.nbytes:,}")


if __name__ == "__main__":
    main()
