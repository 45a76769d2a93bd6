import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops.layers import (
    BatchNorm,
    BinaryDense,
    Dropout,
    Packed,
    PackedDense,
    PackedSign,
    Parameter,
    Sequential,
    Sign,
)
from bitops.layers.operation import Linear
from bitops.ops.array import BitArray, pack, unpack
from helpers import assert_state_goes_back, numeric_gradient, signs

# BinaryDense


@pytest.mark.parametrize("k", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("bias", [False, True])
def test_dense_forward_equals_the_product_of_signs(k, bias):
    rng = np.random.default_rng(k)
    layer = BinaryDense(k, 7, bias=bias, seed=0)
    b = np.zeros(7, dtype=np.float32)
    if bias:
        b = rng.normal(size=7).astype(np.float32)
        layer.bias.assign(b)
    w = signs(layer.weight.value)
    real = rng.normal(size=(5, k)).astype(np.float32)
    image = rng.integers(256, size=(5, k), dtype=np.uint8)
    for training in (False, True):
        for x, exact in ((pack(real), signs(real) @ w.T), (image, image.astype(int) @ w.T)):
            y = layer.forward(x, training=training)
            assert y.dtype == np.float32
            np.testing.assert_array_equal(y, exact.astype(np.float32) + b)
        y = layer.forward(real, training=training)
        np.testing.assert_allclose(y, real @ w.T.astype(np.float32) + b, atol=1e-4)


def test_dense_takes_leading_axes():
    layer = BinaryDense(70, 3, seed=0)
    x = np.random.default_rng(0).integers(256, size=(2, 4, 70), dtype=np.uint8)
    y = layer(x)
    assert y.shape == (2, 4, 3)
    np.testing.assert_array_equal(y.reshape(8, 3), layer(x.reshape(8, 70)))
    layer.forward(x, training=True)
    layer.backward(np.ones_like(y))
    np.testing.assert_array_equal(
        layer.weight.grad, np.tile(x.sum(axis=(0, 1), dtype=np.float32), (3, 1))
    )


@pytest.mark.parametrize("k", [65793, 65794, 66001])  # 255 * k crosses 2**24 after the first
def test_uint8_products_are_exact_beyond_float32(k):
    rng = np.random.default_rng(k)
    x = np.full((2, k), 255, dtype=np.uint8)
    x[1] = rng.integers(256, size=k)
    w = np.ones((2, k), dtype=np.int64)
    w[1] = rng.choice([-1, 1], size=k)
    z = Linear.of("test", k, 2).multiply(x, pack(w))
    assert z.dtype == np.int32
    np.testing.assert_array_equal(z, x.astype(np.int64) @ w.T)


def test_dense_backward_is_the_gradient_of_the_linear_map():
    rng = np.random.default_rng(3)
    layer = BinaryDense(9, 4, bias=True, seed=1)
    x = rng.normal(size=(6, 9)).astype(np.float32)
    weights = rng.normal(size=(6, 4)).astype(np.float32)
    layer.forward(x, training=True)
    dx = layer.backward(weights)

    def loss(x):
        return float(np.sum(weights.astype(np.float64) * layer(x)))

    np.testing.assert_allclose(dx, numeric_gradient(loss, x), atol=2e-3)
    # with respect to the binary weight, whatever the latent one is
    np.testing.assert_allclose(layer.weight.grad, weights.T @ x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.bias.grad, weights.sum(axis=0), rtol=1e-5)


def test_dense_backward_through_bits():
    rng = np.random.default_rng(4)
    layer = BinaryDense(130, 4, seed=1)
    x = rng.normal(size=(6, 130))
    dy = rng.normal(size=(6, 4)).astype(np.float32)
    layer.forward(pack(x), training=True)
    dx = layer.backward(dy)
    np.testing.assert_allclose(dx, dy @ signs(layer.weight.value), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad, dy.T @ signs(x), rtol=1e-4, atol=1e-5)


def test_dense_gives_image_data_no_gradient():
    layer = BinaryDense(8, 4, seed=0)
    x = np.arange(16, dtype=np.uint8).reshape(2, 8)
    layer.forward(x, training=True)
    assert layer.backward(np.ones((2, 4), dtype=np.float32)) is None
    np.testing.assert_array_equal(layer.weight.grad, np.tile(x.sum(axis=0), (4, 1)))


def test_dense_sees_every_change_of_its_weights():
    layer = BinaryDense(65, 3, seed=0)
    x = pack(np.ones((1, 65)))
    layer.weight.assign(np.ones((3, 65)))
    np.testing.assert_array_equal(layer(x), [[65, 65, 65]])
    layer.weight.writable()[1] = -1
    np.testing.assert_array_equal(layer(x), [[65, -65, 65]])
    layer.weight.assign(np.full((3, 65), -0.0))  # the sign of -0.0 is +1
    np.testing.assert_array_equal(layer(x), [[65, 65, 65]])


def test_dense_starts_uniform_and_by_seed():
    a, b, c = (BinaryDense(100, 50, seed=s).weight.value for s in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert -1 <= a.min() < -0.99 and 0.99 < a.max() <= 1
    assert abs(a.mean()) < 0.03
    layer = BinaryDense(100, 50)
    assert layer.weight.clip_value == 1
    assert layer.weight.lr_scale == pytest.approx(10)  # sqrt(150 / 1.5)


# BatchNorm


def test_batch_norm_normalises_in_training():
    x = np.random.default_rng(5).normal(3, 20, size=(50, 4)).astype(np.float32)
    y = BatchNorm(4).forward(x, training=True)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 3), (2, 5, 3)])
def test_batch_norm_gradients_match_finite_differences(shape):
    rng = np.random.default_rng(6)
    x = rng.normal(1, 2, size=shape).astype(np.float32)
    weights = rng.normal(size=shape)
    gamma, beta = np.array([1.5, -0.7, 0.0]), np.array([0.1, 0.0, -2.0])

    def loss(x, gamma=gamma, beta=beta):
        layer = BatchNorm(3)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
        return float(np.sum(weights * layer.forward(x, training=True)))

    layer = BatchNorm(3)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    layer.forward(x, training=True)
    dx = layer.backward(weights.astype(np.float32))
    np.testing.assert_allclose(dx, numeric_gradient(loss, x), atol=2e-3)
    by_gamma = numeric_gradient(lambda g: loss(x, gamma=g), gamma)
    by_beta = numeric_gradient(lambda b: loss(x, beta=b), beta)
    np.testing.assert_allclose(layer.gamma.grad, by_gamma, atol=2e-3)
    np.testing.assert_allclose(layer.beta.grad, by_beta, atol=2e-3)


def test_batch_norm_evaluation_is_scale_and_shift():
    layer = BatchNorm(2, eps=0.25)
    layer.gamma.assign([2, -1])
    layer.beta.assign([0.5, 1])
    layer.running_mean[...] = [10, -4]
    layer.running_inv_std[...] = [0.5, 2]
    scale, shift = layer.affine()
    np.testing.assert_array_equal(scale, [1, -2])
    np.testing.assert_array_equal(shift, [-9.5, -7])
    np.testing.assert_array_equal(layer(np.array([[12, 3]], dtype=np.int64)), [[2.5, -13]])


def test_batch_norm_running_statistics():
    layer = BatchNorm(1, eps=1e-4, momentum=0.25)
    means, inv_stds = [], []
    for t in range(6):
        x = np.array([[t - 1.0], [t + 1.0]], dtype=np.float32) * (t + 1)
        means.append(x.mean())
        inv_stds.append(1 / np.sqrt(x.var() + 1e-4))
        layer.forward(x, training=True)
        if t < 4:  # a plain average while 1/t exceeds the momentum
            np.testing.assert_allclose(layer.running_mean, np.mean(means), rtol=1e-5)
            np.testing.assert_allclose(layer.running_inv_std, np.mean(inv_stds), rtol=1e-5)
    mean = np.mean(means[:4])
    for late in means[4:]:
        mean += 0.25 * (late - mean)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-5)


def test_batch_norm_with_zero_variance():
    layer = BatchNorm(2)
    x = np.full((4, 2), 7, dtype=np.float32)
    np.testing.assert_array_equal(layer.forward(x, training=True), np.zeros((4, 2)))
    np.testing.assert_allclose(layer.running_inv_std, 100, rtol=1e-6)  # eps^-1/2
    assert np.isfinite(layer.backward(np.ones((4, 2), dtype=np.float32))).all()


# Sign


def test_sign_at_zero_and_beyond():
    layer = Sign()
    x = np.array([[0.0, -0.0, 1e-30, -1e-30, 5, -5]], dtype=np.float32)
    q = layer(x)
    assert isinstance(q, BitArray)
    np.testing.assert_array_equal(unpack(q), [[1, 1, 1, -1, 1, -1]])


@pytest.mark.parametrize("clip_value", [1.0, 0.5, 3.0])
def test_sign_pseudo_gradient(clip_value):
    layer = Sign(clip_value)
    above = np.nextafter(np.float32(clip_value), np.float32(9))
    x = np.array([[0, clip_value, -clip_value, above, -above, -0.0, clip_value / 2]], np.float32)
    layer.forward(x, training=True)
    grad = np.arange(1, 8, dtype=np.float32)[np.newaxis]
    np.testing.assert_array_equal(layer.backward(grad), [[1, 2, 3, 0, 0, 6, 7]])
    np.testing.assert_array_equal(grad, np.arange(1, 8)[np.newaxis])


# Dropout


def test_dropout_passes_everything_in_evaluation():
    layer = Dropout(0.9, seed=0)
    bits = pack(np.random.default_rng(0).normal(size=(3, 70)))
    assert layer(bits) is bits
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(layer(image), image)


def test_dropout_masks_and_scales_in_training():
    layer = Dropout(0.25, seed=7)
    bits = pack(np.random.default_rng(1).normal(size=(200, 100)))
    y = layer.forward(bits, training=True)
    kept = y != 0
    assert 0.73 < kept.mean() < 0.77
    np.testing.assert_allclose(y[kept], unpack(bits)[kept] / 0.75, rtol=1e-6)
    dx = layer.backward(np.full(y.shape, 3, dtype=np.float32))
    np.testing.assert_allclose(dx, np.where(kept, 4, 0), rtol=1e-6)
    again = Dropout(0.25, seed=7).forward(bits, training=True)
    np.testing.assert_array_equal(again, y)


# settings and inputs


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: BinaryDense(0, 3), ValueError),
        (lambda: BinaryDense(3, -1), ValueError),
        (lambda: BinaryDense(2**23 + 1, 1), ValueError),
        (lambda: BinaryDense(3.0, 1), TypeError),
        (lambda: BinaryDense(True, 1), TypeError),
        (lambda: BatchNorm(0), ValueError),
        (lambda: BatchNorm(3, eps=0), ValueError),
        (lambda: BatchNorm(3, momentum=0), ValueError),
        (lambda: BatchNorm(3, momentum=1.5), ValueError),
        (lambda: Sign(0), ValueError),
        (lambda: Sign(float("nan")), ValueError),
        (lambda: Dropout(1), ValueError),
        (lambda: Dropout(-0.1), ValueError),
        (lambda: Sequential(), ValueError),
        (lambda: Sequential([]), ValueError),
        (lambda: Sequential(Sign(), "Sign"), TypeError),
        (lambda: Sequential(BinaryDense(4, 5), BatchNorm(4)), ValueError),
        (lambda: Sequential(BinaryDense(4, 5), Sign(), BinaryDense(4, 5)), ValueError),
        (lambda: Packed([Sign()]), TypeError),
        (lambda: Packed([Packed([PackedSign()])]), TypeError),
        (lambda: Packed([]), ValueError),
    ],
)
def test_impossible_settings(make, error):
    with pytest.raises(error, match=r"^\[\w+\] .*got"):
        make()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 7), np.uint8), ValueError, r"8 features, got shape \(2, 7\)"),
        (pack(np.ones((2, 9))), ValueError, r"8 features, got shape \(2, 9\)"),
        (pack(np.ones((8, 8)), axis=0), ValueError, "packed along its last axis"),
        (np.zeros(8), ValueError, r"shape \(\.\.\., features\), got \(8,\)"),
        (np.zeros((2, 8), complex), TypeError, "got dtype complex128"),
        (np.zeros((2, 8), bool), TypeError, "got dtype bool"),
        (np.full((2, 8), "a"), TypeError, "got dtype <U1"),
        (np.full((2, 8), None), TypeError, "got dtype object"),
    ],
)
def test_bad_inputs(x, error, message):
    for layer in (BinaryDense(8, 2), BatchNorm(8), PackedDense(np.ones((2, 8)))):
        with pytest.raises(error, match=rf"\[{layer.name}\] .*{message}"):
            layer(x)


def test_nan_has_no_sign():
    x = np.array([[1.0, np.nan]], dtype=np.float32)
    layers = Sign(), PackedSign(), PackedSign([0, 0]), PackedDense(np.ones((1, 2)), threshold=0)
    for layer in layers:
        with pytest.raises(ValueError, match="NaN"):
            layer(x)


@pytest.mark.parametrize("layer", [BinaryDense(3, 2), BatchNorm(3), Sign(), Dropout(0.5)])
def test_backward_needs_a_training_forward(layer):
    layer(np.ones((4, 3)))
    with pytest.raises(RuntimeError, match=rf"\[{layer.name}\] backward needs"):
        layer.backward(np.ones((4, 3), dtype=np.float32))


def test_layers_leave_their_inputs_alone():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(6, 5)).astype(np.float32)
    x.flags.writeable = False
    grad = rng.normal(size=(6, 5)).astype(np.float32)
    grad.flags.writeable = False
    for layer in (BinaryDense(5, 5, bias=True), BatchNorm(5), Sign(), Dropout(0.5)):
        layer.forward(x, training=True)
        layer.backward(grad)


def test_parameter_of_bits_is_an_array_only_once_it_changes(rng):
    bits = pack(rng.normal(size=(3, 5, 70)))
    values = unpack(bits, dtype=np.float32)
    parameter = Parameter(np.zeros((3, 5, 70)), binary=True)
    before = parameter.version
    parameter.assign_signs(bits)
    assert parameter.version > before and parameter.shape == values.shape
    assert parameter.signs() is bits and parameter.size == values.size
    assert_array_equal(parameter.value, values)
    for twin in (copy.copy(parameter), pickle.loads(pickle.dumps(parameter))):
        assert_array_equal(twin.value, values)
        assert twin.signs() == bits
    parameter.writable()[0, 0, 0] *= -0.5
    values[0, 0, 0] *= -0.5
    assert_array_equal(parameter.value, values)
    assert parameter.signs() == pack(values) != bits
    parameter.assign_signs(bits)
    parameter.assign(2 * values)
    assert_array_equal(parameter.value, 2 * values)
    for wrong in (bits[:2], pack(values, axis=0)):
        with pytest.raises(ValueError, match=r"\[Parameter\] signs must have shape \(3, 5, 70\)"):
            parameter.assign_signs(wrong)


def test_signs_packed_amid_an_assignment_do_not_stay(monkeypatch):
    """As another thread may pack them then."""
    parameter, copyto, seen = Parameter(np.ones((3, 70)), binary=True), np.copyto, []

    def copy_slowly(out, values, **options):
        seen.append(parameter.signs())
        copyto(out, values, **options)

    monkeypatch.setattr(np, "copyto", copy_slowly)
    parameter.assign(-np.ones((3, 70)))
    assert seen == [pack(np.ones((3, 70)))]
    assert parameter.signs() == pack(-np.ones((3, 70)))


def test_parameter():
    parameter = Parameter([1, 2], lr_scale=3)
    assert parameter.value.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        parameter.value[0] = 5
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        parameter.assign([1, 2, 3])
    version = parameter.version
    parameter.assign(np.array([4, 5]))
    np.testing.assert_array_equal(parameter.value, [4, 5])
    assert parameter.version > version
    assert "lr_scale=3" in repr(parameter)


# Sequential


def small_model(seed=0):
    return Sequential(
        [
            Sequential(BinaryDense(20, 16, seed=seed), BatchNorm(16), Sign()),
            BinaryDense(16, 3, bias=True, seed=seed + 1),
            BatchNorm(3),
        ]
    )


def test_sequential_backward_chains_the_layers():
    rng = np.random.default_rng(9)
    model = small_model()
    x = rng.normal(size=(12, 20)).astype(np.float32)
    grad = rng.normal(size=(12, 3)).astype(np.float32)
    model.forward(x, training=True)
    dx = model.backward(grad)
    flat = model.flat_layers()
    names = ["BinaryDense", "BatchNorm", "Sign", "BinaryDense", "BatchNorm"]
    assert [layer.name for layer in flat] == names
    expected = grad
    for layer in reversed(flat):
        expected = layer.backward(expected)
    np.testing.assert_array_equal(dx, expected)
    assert len(model.parameters()) == 7
    model.forward(np.ones((4, 20), dtype=np.uint8), training=True)
    assert model.backward(grad[:4]) is None


def test_sequential_state_goes_back():
    rng = np.random.default_rng(10)
    model = small_model()
    x = rng.normal(size=(12, 20)).astype(np.float32)
    assert_state_goes_back(model, x, rng)


def test_outputs_predict_and_error_rate_in_batches():
    rng = np.random.default_rng(11)
    model = small_model()
    x = rng.integers(256, size=(25, 20), dtype=np.uint8)
    model.forward(x, training=True)
    y = rng.integers(3, size=25)
    whole = model(x)
    for size in (1, 7, 25, 1000):
        np.testing.assert_array_equal(model.outputs(x, batch_size=size), whole)
        labels = model.predict(x, batch_size=size)
        np.testing.assert_array_equal(labels, whole.argmax(axis=1))
        assert model.error_rate(x, y, batch_size=size) == np.mean(labels != y)
    assert model.outputs(x[:0]).shape == (0, 3)
    assert model.predict(x[:0]).shape == (0,)
    bits = model.layers[0].outputs(x, batch_size=4)
    assert bits == model.layers[0](x)


def test_predict_takes_the_first_of_equal_scores():
    model = Packed([PackedDense(np.ones((3, 5)))])
    np.testing.assert_array_equal(model.predict(np.ones((2, 5), np.uint8)), [0, 0])


def test_inference_refuses_what_makes_no_sense():
    model = small_model()
    x = np.ones((4, 20), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\[error_rate\]"):
        model.error_rate(x, [0, 1])
    with pytest.raises(ValueError, match=r"\[error_rate\]"):
        model.error_rate(x[:0], [])
    with pytest.raises(ValueError, match=r"\[outputs\] batch_size"):
        model.outputs(x, batch_size=0)
    with pytest.raises(ValueError, match=r"\[outputs\] x must"):
        model.outputs(3)
    with pytest.raises(TypeError, match=r"\[predict\]"):
        model.layers[0].predict(x)


def test_summary_counts():
    model = small_model()
    total = model.summary().total
    assert total.parameters == 20 * 16 + 2 * 16 + 16 * 3 + 3 + 2 * 3
    assert total.float_bytes == 4 * total.parameters
    assert total.packed_bytes == 8 * (16 + 3) + 4 * (2 * 16 + 3 + 2 * 3)
    assert total.binary_macs == 16 * 3
    assert total.float_macs == 20 * 16 + 16 + 3
    text = str(model.summary())
    assert "packed bytes" in text and "16 bits" in text
    assert len({len(line) for line in text.splitlines()}) == 1
    packed = model.freeze().summary().total
    assert packed.packed_bytes == 8 * (16 + 3) + 4 * 16 + 4 * 3 + 8 * 3
    assert model.freeze().nbytes == packed.packed_bytes


def test_repr_shows_shapes():
    text = repr(small_model())
    assert "BinaryDense(20, 16)" in text
    assert "BinaryDense(16, 3, bias=True)" in text
    assert "PackedDense(20, 16, threshold)" in repr(small_model().freeze())
    assert repr(Dropout(0.5)) == "Dropout(rate=0.5)"
    assert repr(PackedSign([1, 2])) == "PackedSign(features=2)"
