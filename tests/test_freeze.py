"""The packed model equals the training graph in evaluation, bit for bit."""

import subprocess
import sys

import numpy as np
import pytest

from bitops.array import BitArray, pack, unpack
from bitops.layers import (
    BatchNorm,
    BinaryDense,
    Dropout,
    Packed,
    PackedBatchNorm,
    PackedDense,
    PackedSign,
    Sequential,
    Sign,
    TrainingLayer,
)
from bitops.layers.freeze import fold


def disturb(model, rng, scale=1.0):
    """Give every BatchNorm all the awkward channels: gamma < 0, gamma = 0, far and exact shifts."""
    for layer in model.flat_layers():
        if isinstance(layer, BinaryDense) and layer.bias is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape) * scale)
        if not isinstance(layer, BatchNorm):
            continue
        n = layer.gamma.size
        gamma = rng.choice([1.0, -1.0, 0.3, -2.5, 0.0, -0.0, 1e-3], size=n)
        beta = rng.choice([0.0, -0.0, 0.5, -0.5, 1e4, -1e4, rng.normal()], size=n)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
        # whole means put z - mean = 0, and thus sign(0), among the products that occur
        layer.running_mean[...] = np.round(rng.normal(size=n) * scale)
        layer.running_inv_std[...] = rng.choice([100.0, 1.0, 0.1, 1 / scale], size=n)


def deep_model(k, hidden, *, bias, seed):
    return Sequential(
        Dropout(0.2, seed=seed),
        BinaryDense(k, hidden, bias=bias, seed=seed),
        BatchNorm(hidden),
        Sign(),
        Dropout(0.5, seed=seed),
        Sequential(BinaryDense(hidden, hidden, bias=bias, seed=seed + 1), BatchNorm(hidden)),
        Sign(),
        BinaryDense(hidden, 10, bias=bias, seed=seed + 2),
        BatchNorm(10),
    )


def assert_same(model, x):
    packed = model.freeze()
    expected, got = model(x), packed(x)
    if isinstance(expected, BitArray):
        assert got == expected
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("k", [1, 64, 100])
@pytest.mark.parametrize("seed", range(4))
def test_packed_equals_training_graph(k, bias, seed):
    rng = np.random.default_rng(seed)
    model = deep_model(k, 130, bias=bias, seed=seed)
    disturb(model, rng, scale=10.0)
    real = rng.normal(size=(40, k)).astype(np.float32) * 20
    whole = np.round(real)  # ties with the whole means
    image = rng.integers(256, size=(40, k), dtype=np.uint8)
    for x in (real, whole, image, pack(real), image.astype(np.int64)):
        assert_same(model, x)
        assert_same(Sequential(model.flat_layers()[:4]), x)  # bits of the first layer
        assert_same(Sequential(model.flat_layers()[:7]), x)
        assert_same(Sequential(model.flat_layers()[:-1]), x)


def test_packed_equals_training_graph_after_training_steps():
    rng = np.random.default_rng(0)
    model = deep_model(64, 100, bias=True, seed=0)
    x = rng.integers(17, size=(300, 64), dtype=np.uint8)
    model.fit(x, rng.integers(10, size=300), epochs=2, batch_size=50, verbose=0)
    assert_same(model, x)


@pytest.mark.parametrize("k", [66001])
def test_packed_equals_training_graph_where_float32_rounds_integers(k):
    rng = np.random.default_rng(1)
    model = Sequential(BinaryDense(k, 6, seed=0), BatchNorm(6), Sign())
    model.layers[0].weight.assign(np.ones((6, k)))
    x = np.full((60, k), 255, dtype=np.uint8)
    for row in range(60):  # sums just around 2**24
        x[row, : rng.integers(300)] = rng.integers(256)
    sums = x.sum(axis=1, dtype=np.int64)
    model.layers[1].running_mean[...] = np.sort(sums)[::10]
    assert_same(model, x)


def test_groups_of_every_shape():
    rng = np.random.default_rng(2)

    norm = BatchNorm
    chains = [
        [Sign()],
        [norm(30), Sign()],
        [norm(30), norm(30), Sign(), BinaryDense(30, 5)],
        [norm(30)],
        [Sign(), norm(30)],
        [Sign(), Sign(), BinaryDense(30, 5), Sign(), BinaryDense(5, 4)],
        [norm(30), BinaryDense(30, 5), norm(5), norm(5)],
        [Sign(), BinaryDense(30, 5), BinaryDense(5, 6), norm(6), norm(6), Sign()],
        [BinaryDense(30, 5, bias=True)],
        [BinaryDense(30, 5, bias=True), norm(5), norm(5)],
        [Dropout(0.5), norm(30), Dropout(0.5), Sign(), Dropout(0.5)],
    ]
    x = np.round(rng.normal(size=(50, 30)) * 3).astype(np.float32)
    for chain in chains:
        model = Sequential(chain)
        disturb(model, rng, scale=3.0)
        packed = model.freeze()
        np.testing.assert_array_equal(np.asarray(packed(x)), np.asarray(model(x)))


def test_dropout_alone_has_nothing_to_pack():
    with pytest.raises(ValueError, match=r"\[Packed\] at least one layer"):
        Sequential(Dropout(0.5)).freeze()


def test_layers_without_packed_form_are_refused():
    class Other(TrainingLayer):
        pass

    with pytest.raises(TypeError, match=r"\[freeze\] no packed form"):
        Sequential(Other()).freeze()


def test_frozen_model_stands_alone():
    model = deep_model(20, 30, bias=True, seed=0)
    x = np.random.default_rng(3).integers(256, size=(10, 20), dtype=np.uint8)
    packed = model.freeze()
    before = packed(x)
    for parameter in model.parameters():
        parameter.assign(-parameter.value + 0.5)
    np.testing.assert_array_equal(packed(x), before)
    with pytest.raises(ValueError, match="read-only"):
        packed.layers[0].threshold[0] = 3


# fold


@pytest.mark.parametrize("k", [1, 2, 63, 1000])
def test_fold_decides_every_integer_like_the_expression(k):
    rng = np.random.default_rng(k)
    n = 400
    scale = rng.normal(size=n).astype(np.float32) * np.float32(10.0) ** rng.integers(-4, 3, size=n)
    scale[:20] = 0
    shift = -scale * rng.integers(-k - 3, k + 4, size=n).astype(np.float32)
    shift[::5] += rng.normal(size=len(shift[::5])).astype(np.float32)

    def expression(z):
        y = z * scale
        y += shift
        return y

    threshold, flip = fold(expression, n, k)
    assert threshold.dtype == np.int32
    assert np.abs(threshold).max() <= k
    z = np.arange(-k, k + 1, dtype=np.int32)[:, np.newaxis]
    expected = expression(z.astype(np.float32)) >= 0
    np.testing.assert_array_equal((z > threshold) ^ flip, expected)
    # the cases that this test is about do occur
    constant = expected.all(axis=0) | ~expected.any(axis=0)
    assert constant.any() and flip.any() and not constant.all()


def test_fold_decides_every_float_like_the_expression():
    rng = np.random.default_rng(4)
    n = 300
    scale = rng.normal(size=n).astype(np.float32) * np.float32(10.0) ** rng.integers(-3, 4, size=n)
    scale[:10] = 0
    shift = rng.normal(size=n).astype(np.float32) * np.float32(10.0) ** rng.integers(-3, 4, size=n)
    shift[::7] = 0

    def expression(z):
        return z * scale + shift

    threshold, flip = fold(expression, n)
    assert threshold.dtype == np.float32
    largest = np.finfo(np.float32).max
    around = [threshold, np.nextafter(threshold, -largest), np.nextafter(threshold, largest)]
    fixed = [np.full(n, v, np.float32) for v in (0, -0.0, 1, -1, 1e30, -1e30, largest, -largest)]
    z = np.stack(around + fixed)
    with np.errstate(over="ignore"):
        expected = expression(z) >= 0
    np.testing.assert_array_equal((z > threshold) ^ flip, expected)


# models made by hand


def test_packed_by_hand_equals_numpy():
    rng = np.random.default_rng(5)
    w1, w2 = rng.choice([-1, 1], size=(33, 70)), rng.choice([-1, 1], size=(4, 33))
    threshold, flip = rng.integers(-8, 8, size=33), rng.random(33) < 0.5
    alpha, bias = rng.normal(size=(2, 4)).astype(np.float32)
    model = Packed([PackedDense(w1, threshold, flip), PackedDense(w2, alpha=alpha, bias=bias)])
    image = rng.integers(4, size=(9, 70), dtype=np.uint8)
    x = rng.choice([-1, 1], size=(9, 70))
    for given, values in ((pack(x), x), (image, image), (x.astype(np.float32), x)):
        hidden = np.where((values.astype(np.int64) @ w1.T > threshold) ^ flip, 1, -1)
        expected = (hidden @ w2.T).astype(np.float32) * alpha + bias
        np.testing.assert_array_equal(model(given), expected)
    assert model.in_features == 70 and model.out_features == 4


def test_packed_dense_without_thresholds_gives_integers():
    rng = np.random.default_rng(6)
    w = rng.normal(size=(5, 66))
    for given in (w, pack(w), w.tolist()):
        layer = PackedDense(given)
        x = rng.integers(256, size=(3, 66), dtype=np.uint8)
        expected = x.astype(int) @ np.where(w >= 0, 1, -1).T
        assert layer(x).dtype == np.int32
        np.testing.assert_array_equal(layer(x), expected)
        assert layer(pack(x)).dtype == np.int32
        assert layer(x / 2).dtype == np.float32
        np.testing.assert_array_equal(layer(x / 2), expected / 2)


@pytest.mark.parametrize("t", [-3.5, -3.0, 0.0, 0.25, 2**40, -(2**40), np.inf, -np.inf])
def test_float_thresholds_compare_with_integers(t):
    w = np.eye(5) * 2 - 1
    x = pack(np.random.default_rng(7).normal(size=(30, 5)))
    dot = unpack(x).astype(int) @ w.T
    assert PackedDense(w, np.float32(t))(x) == pack(dot > t)
    if abs(t) == 2**40:  # beyond int32, clipped
        assert PackedDense(w, int(t))(x) == pack(dot > t)


def test_packed_sign_and_batch_norm_by_hand():
    x = np.array([[1, 2, 3], [-1, -2, -3]], dtype=np.float32)
    bits = PackedSign([0.5, 2.0, 5.0], [False, True, True])(x)
    np.testing.assert_array_equal(unpack(bits), [[1, 1, 1], [-1, 1, 1]])
    np.testing.assert_array_equal(unpack(PackedSign()(x)), [[1, 1, 1], [-1, -1, -1]])
    y = PackedBatchNorm([1, 2, 0.5], [0, 0, 1])(pack(x))
    np.testing.assert_array_equal(y, [[1, 2, 1.5], [-1, -2, 0.5]])


def test_layers_keep_copies_of_what_they_are_given():
    threshold, flip = np.zeros(3, np.int32), np.array([True, False, True])
    layer = PackedDense(np.ones((3, 4)), threshold, flip)
    flip[...] = False
    threshold[...] = 99
    assert layer.flip.tolist() == [True, False, True]
    assert layer.threshold.tolist() == [0, 0, 0]


W = np.ones((3, 4))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: PackedDense(np.ones(4)), ValueError),
        (lambda: PackedDense(np.ones((2, 3, 4))), ValueError),
        (lambda: PackedDense(np.ones((0, 4))), ValueError),
        (lambda: PackedDense(np.ones((4, 0))), ValueError),
        (lambda: PackedDense(np.full((3, 4), np.nan)), ValueError),
        (lambda: PackedDense(np.ones((3, 4), complex)), TypeError),
        (lambda: PackedDense(pack(np.ones((64, 64)), axis=0)), ValueError),
        (lambda: PackedDense(W, [1, 2]), ValueError),
        (lambda: PackedDense(W, [[1, 2, 3]]), ValueError),
        (lambda: PackedDense(W, [1, 2, np.nan]), ValueError),
        (lambda: PackedDense(W, ["a", "b", "c"]), TypeError),
        (lambda: PackedDense(W, [1, 2, 3], [0, 1, 0]), TypeError),
        (lambda: PackedDense(W, [1, 2, 3], [True, False]), ValueError),
        (lambda: PackedDense(W, flip=[True, False, True]), ValueError),
        (lambda: PackedDense(W, 0, alpha=1.0), ValueError),
        (lambda: PackedDense(W, 0, bias=1.0), ValueError),
        (lambda: PackedDense(W, alpha=[1.0, 2.0]), ValueError),
        (lambda: PackedDense(W, bias=[1j, 2, 3]), TypeError),
        (lambda: PackedSign(flip=[True]), ValueError),
        (lambda: PackedSign(threshold=1), ValueError),
        (lambda: PackedBatchNorm([1.0], None), ValueError),
        (lambda: PackedBatchNorm([1.0], [1.0, 2.0]), ValueError),
        (lambda: PackedBatchNorm(1.0, 2.0), ValueError),
        (lambda: Packed([PackedDense(W), PackedDense(np.ones((2, 4)))]), ValueError),
    ],
)
def test_bad_packed_layers(make, error):
    with pytest.raises(error, match=r"^\[\w+\] "):
        make()


def test_inference_never_loads_training_code():
    code = (
        "import sys, numpy as np\n"
        "from bitops.io import load\n"
        "from bitops.layers import Packed, PackedDense\n"
        "Packed([PackedDense(np.ones((2, 3)), 0)])(np.ones((1, 3), np.uint8))\n"
        "names = ('losses', 'optim', 'train', 'datasets', 'models')\n"
        "print([n for n in names if 'bitops.' + n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
