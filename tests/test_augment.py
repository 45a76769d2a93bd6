import numpy as np
import pytest

from bitops.training.augment import ZCA, gcn, lcn, random_crop, random_flip


def images(rng, n=40, dtype=np.uint8):
    return rng.integers(0, 256, (n, 6, 5, 3)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flip_mirrors_some_images(rng, dtype):
    x = images(rng, dtype=dtype)
    before = x.copy()
    y = random_flip(x, seed=1)
    assert y.dtype == dtype and not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)
    same = (y == x).all(axis=(1, 2, 3))
    mirrored = (y == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 10 < same.sum() < 30
    np.testing.assert_array_equal(random_flip(x, seed=1), y)
    assert (random_flip(x, seed=2) != y).any()
    generator = np.random.default_rng(1)
    np.testing.assert_array_equal(random_flip(x, generator), y)
    assert (random_flip(x, generator) != y).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_crop_shifts_every_image(rng, dtype, padding):
    x = images(rng, n=200, dtype=dtype)
    before = x.copy()
    y = random_crop(x, padding, seed=3, fill=7)
    assert y.dtype == dtype and y.shape == x.shape and not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)
    sides = (0, 0), (padding, padding), (padding, padding), (0, 0)
    padded = np.pad(x, sides, constant_values=7)
    found = np.zeros((2 * padding + 1, 2 * padding + 1), int)
    for whole, part in zip(padded, y, strict=True):
        shifts = [
            (i, j)
            for i, j in np.ndindex(found.shape)
            if (whole[i : i + 6, j : j + 5] == part).all()
        ]
        assert len(shifts) == 1
        found[shifts[0]] += 1
    assert found.min() > 0  # every shift comes up
    np.testing.assert_array_equal(random_crop(x, padding, seed=3, fill=7), y)


def test_crop_cuts_windows(rng):
    x = images(rng, n=100)
    y = random_crop(x, 1, seed=3, size=4, fill=7)
    assert y.shape == (100, 4, 4, x.shape[3])
    assert y.dtype == x.dtype
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=7)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), axis=(1, 2))
    same = (windows == y.transpose(0, 3, 1, 2)[:, None, None]).all(axis=(3, 4, 5))
    assert same.any(axis=(1, 2)).all()
    assert same.any(axis=0).all()  # every place comes up


@pytest.mark.parametrize("padding", (0, 2, 9))
def test_crop_repeats_the_edge(rng, padding):
    x = images(rng, n=50)
    y = random_crop(x, padding, seed=3, fill="edge")
    sides = (0, 0), (padding, padding), (padding, padding), (0, 0)
    padded = np.pad(x, sides, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, x.shape[1:3], axis=(1, 2))
    same = (windows == y.transpose(0, 3, 1, 2)[:, None, None]).all(axis=(3, 4, 5))
    assert same.any(axis=(1, 2)).all()
    # the same places as with a number, so that only what comes in differs
    inside = random_crop(np.ones_like(x), padding, seed=3, fill=0) == 1
    np.testing.assert_array_equal(y[inside], random_crop(x, padding, seed=3)[inside])


def test_no_images():
    empty = np.zeros((0, 4, 4, 3), np.uint8)
    assert random_flip(empty).shape == random_crop(empty).shape == gcn(empty).shape == empty.shape


def literal_lcn(x, size, sigma, min_divisor):
    """One image of one channel by the formula, window by window, in float64."""
    middle = size // 2
    offsets = np.arange(size) - middle
    g = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    g /= g.sum()

    def blurred(values):
        padded = np.pad(values, middle)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
        return (windows * g).sum(axis=(2, 3))

    v = x - blurred(x)
    d = np.sqrt(blurred(v**2))
    return v / np.maximum(np.maximum(d, d.mean()), min_divisor)


@pytest.mark.parametrize(("size", "sigma"), [(7, 2.0), (3, 0.5), (1, 2.0)])
def test_lcn_is_the_formula(rng, size, sigma):
    x = rng.integers(0, 256, (3, 9, 11, 2), np.uint8)
    y = lcn(x, size, sigma=sigma)
    assert y.dtype == np.float32
    for image, got in zip(x.astype(float), y, strict=True):
        for channel in range(2):
            expected = literal_lcn(image[..., channel], size, sigma, 1e-4)
            np.testing.assert_allclose(got[..., channel], expected, atol=1e-5)


def test_lcn_of_a_flat_image_divides_by_the_smallest_divisor():
    np.testing.assert_array_equal(lcn(np.zeros((1, 5, 5, 1))), np.zeros((1, 5, 5, 1)))
    x = np.zeros((1, 9, 9, 1), np.float32)
    x[0, 4, 4] = 1e-3
    expected = literal_lcn(x[0, ..., 0].astype(float), 7, 2.0, 10.0)
    np.testing.assert_allclose(lcn(x, min_divisor=10.0)[0, ..., 0], expected, rtol=1e-4, atol=1e-12)
    assert lcn(np.zeros((0, 4, 4, 3), np.uint8)).shape == (0, 4, 4, 3)


def test_gcn_is_the_formula(rng):
    x = images(rng)
    y = gcn(x)
    assert y.dtype == np.float32
    rows = x.reshape(40, -1) - x.reshape(40, -1).mean(axis=1, keepdims=True)
    expected = 55 * rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(y.reshape(40, -1), expected, atol=1e-4)
    np.testing.assert_allclose(gcn(x, 1.0), y / 55, atol=1e-6)
    np.testing.assert_array_equal(gcn(np.full((1, 2, 2, 1), 9)), np.zeros((1, 2, 2, 1)))
    np.testing.assert_allclose(gcn([[1.0, 3.0]], 1.0, min_norm=2.0), [[-1, 1]])


def correlated(rng, n=500):
    """Images of 3 x 2 x 2 whose 12 features depend on each other, one of them constant."""
    x = rng.normal(size=(n, 12)) @ rng.normal(size=(12, 12)) + rng.normal(size=12)
    x[:, 5] = 4
    return x.reshape(n, 3, 2, 2)


def test_zca_whitens(rng):
    x = correlated(rng)
    y = ZCA(bias=1e-6).fit(x).apply(x)
    assert y.dtype == np.float32 and y.shape == x.shape
    rows = y.reshape(len(y), -1).astype(np.float64)
    expected = np.eye(12)
    expected[5, 5] = 0
    np.testing.assert_allclose(rows.mean(axis=0), np.zeros(12), atol=1e-3)
    np.testing.assert_allclose(rows.T @ rows / len(rows), expected, atol=2e-3)


def test_zca_is_the_formula(rng):
    x = correlated(rng)
    zca = ZCA(bias=0.1).fit(x[:300])
    rows = x[:300].reshape(300, -1)
    covariance = np.cov(rows.T, bias=True) + 0.1 * np.eye(12)
    np.testing.assert_allclose(zca.matrix, zca.matrix.T, atol=1e-6)
    # the only symmetric positive matrix whose square is the inverse
    np.testing.assert_allclose(zca.matrix @ covariance @ zca.matrix, np.eye(12), atol=1e-4)
    assert np.linalg.eigvalsh(zca.matrix).min() > 0
    expected = (x.reshape(500, -1) - rows.mean(axis=0)) @ zca.matrix
    np.testing.assert_allclose(zca.apply(x).reshape(500, -1), expected, atol=1e-4)


def test_zca_in_batches_and_of_bytes(rng, monkeypatch):
    x = rng.integers(0, 256, (50, 4, 3, 1)).astype(np.uint8)
    whole = ZCA().fit(x)
    monkeypatch.setattr("bitops.training.augment._BATCH", 7)
    parts = ZCA().fit(x)
    np.testing.assert_allclose(parts.matrix, whole.matrix, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(parts.apply(x), whole.apply(x.astype(float)), atol=1e-3)
    assert parts.apply(x[:0]).shape == (0, 4, 3, 1)
    assert repr(ZCA()) == "ZCA(bias=0.1)" and repr(parts) == "ZCA(bias=0.1, features=12)"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: random_flip(np.zeros((2, 3, 3))), ValueError),
        (lambda: random_flip(np.zeros((1, 2, 2, 1), bool)), TypeError),
        (lambda: random_crop(np.zeros((2, 3, 3))), ValueError),
        (lambda: random_crop(np.zeros((1, 2, 2, 1)), -1), ValueError),
        (lambda: random_crop(np.zeros((1, 2, 2, 1)), 1.5), TypeError),
        (lambda: random_crop(np.zeros((1, 2, 2, 1)), 1, fill="mirror"), ValueError),
        (lambda: random_crop(np.zeros((1, 2, 2, 1)), 1, fill=None), TypeError),
        (lambda: random_crop(np.zeros((1, 0, 2, 1)), 1, fill="edge"), ValueError),
        (lambda: random_crop(np.zeros((1, 4, 2, 1)), 1, size=5), ValueError),
        (lambda: random_crop(np.zeros((1, 2, 2, 1)), size=0), ValueError),
        (lambda: gcn(np.zeros(3)), ValueError),
        (lambda: lcn(np.zeros((1, 3, 3))), ValueError),
        (lambda: lcn(np.zeros((1, 3, 3, 1)), 4), ValueError),
        (lambda: lcn(np.zeros((1, 3, 3, 1)), 3.0), TypeError),
        (lambda: lcn(np.zeros((1, 3, 3, 1)), sigma=0), ValueError),
        (lambda: lcn(np.zeros((1, 3, 3, 1)), min_divisor=-1), ValueError),
        (lambda: gcn(np.zeros((1, 3)), 0), ValueError),
        (lambda: ZCA(0.0), ValueError),
        (lambda: ZCA().fit(np.zeros(3)), ValueError),
        (lambda: ZCA().fit(np.zeros((0, 3))), ValueError),
        (lambda: ZCA().fit([["a", "b"]]), TypeError),
        (lambda: ZCA().apply(np.zeros((1, 3))), RuntimeError),
        (lambda: ZCA().fit(np.zeros((2, 3))).apply(np.zeros((1, 4))), ValueError),
    ],
)
def test_bad_input(call, error):
    with pytest.raises(error, match=r"^\[(random_flip|random_crop|gcn|lcn|ZCA)\] "):
        call()
