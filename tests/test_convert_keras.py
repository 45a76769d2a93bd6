"""Networks from files of Keras and Larq: the scores of the source, training on, refusals."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bitops.convert import ConversionError, from_keras
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    BinaryDepthwiseConv2D,
    Concat,
    QuantizedDense,
    Residual,
)

h5py = pytest.importorskip("h5py", reason="needs h5py")

from random_keras import Network, convolve, entry_of, quantize, random_network  # noqa: E402


def third_party(name):
    folder = os.environ.get("BITOPS_MODELS")
    if not folder:
        pytest.skip("set BITOPS_MODELS to a folder with networks of third parties")
    return Path(folder, "gtsrb_larq", name)


@pytest.mark.parametrize("name", ["xnor_48", "xnor_bn_30"])
def test_gtsrb_of_larq(name):
    golden = np.load(third_party("golden.npz"))
    net = from_keras(third_party(f"{name}.h5")).freeze()
    wanted = golden[f"scores_{name}"]
    for x in (golden[f"x_{name}"], golden[f"x_{name}"].astype(np.float32)):
        scores = net(x)
        np.testing.assert_array_equal(scores.argmax(axis=1), wanted.argmax(axis=1))
        np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("decade", range(30))
def test_random_networks(decade, tmp_path):
    compared = 0
    for seed in range(10 * decade, 10 * decade + 10):
        net, x = random_network(seed)
        net.write_h5(tmp_path / "net.h5")
        net.write_keras(tmp_path / "net.keras")
        models = [from_keras(tmp_path / name) for name in ("net.h5", "net.keras")]
        scores = [np.asarray(model.freeze()(x)) for model in models]
        np.testing.assert_array_equal(*scores)
        assert scores[0].shape == net.y.shape
        if net.is_close:
            continue
        np.testing.assert_allclose(scores[0], net.y, rtol=0, atol=1e-5 * np.abs(net.y).max())
        compared += 1
    assert compared >= 5


@pytest.fixture
def net(rng):
    return Network(rng, rng.integers(0, 256, (4, 6, 6, 3)).astype(np.float32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.h5"


def converted(net, path):
    net.write_h5(path)
    return from_keras(path)


def kernel(net, *shape, kind="QuantConv2D", **settings):
    w = net.real(*shape)
    net.add(kind, {"use_bias": False, **settings}, ("kernel", w))
    return w


def test_latent_weights_are_kept_and_training_goes_on(rng, path):
    net = Network(rng, rng.normal(0, 1, (60, 20)).astype(np.float32))
    quantizers = {"kernel_quantizer": entry_of("ste_sign")}
    w = kernel(net, 20, 16, kind="QuantDense", **quantizers)
    net.y = np.zeros((60, 16))
    net.norm()
    quantizers["input_quantizer"] = entry_of("ste_sign")
    kernel(net, 16, 3, kind="QuantDense", **quantizers)
    net.y = np.zeros((60, 3))
    net.norm()
    model = converted(net, path)
    np.testing.assert_array_equal(model.layers[0].weight.value, w.T)
    x = rng.normal(0, 1, (60, 20)).astype(np.float32)
    labels = x[:, :3].argmax(axis=1)
    first, *_, last = model.fit(x, labels, epochs=12, batch_size=20, seed=0).epochs
    assert last.loss < first.loss


def test_what_quantizers_become(rng, path):
    net = Network(rng, rng.normal(0, 1, (3, 20)).astype(np.float32))
    for name in ("ste_sign", "magnitude_aware_sign", "ste_tern"):
        kernel(net, 20, 20, kind="QuantDense", kernel_quantizer=entry_of(name))
    plain, scaled, ternary = converted(net, path).layers
    assert isinstance(plain, BinaryDense) and plain.alpha is None
    assert isinstance(scaled, BinaryDense) and scaled.alpha is not None
    assert isinstance(ternary, QuantizedDense)


def test_names_of_quantizers_as_text(net, path):
    kernel(net, 3, 3, 3, 4, kernel_quantizer="ste_sign", input_quantizer="approx_sign")
    assert isinstance(converted(net, path).layers[1], BinaryConv2D)


def test_ternary_weights_with_the_threshold_of_larq(rng, path):
    """0.7 of the mean magnitude of all weights, and no scale."""
    net = Network(rng, rng.normal(0, 1, (3, 20)).astype(np.float32))
    quantizer = {"class_name": "SteTern", "config": {"ternary_weight_networks": True}}
    w = kernel(net, 20, 5, kind="QuantDense", kernel_quantizer=quantizer)
    (layer,) = converted(net, path).layers
    wanted = np.sign(w) * (np.abs(w) > 0.7 * np.abs(w).mean())
    np.testing.assert_array_equal(layer.values(), wanted.T)


def test_statistics_become_those_of_batch_norm(net, path):
    net.norm()
    (layer,) = converted(net, path).layers
    assert isinstance(layer, BatchNorm)
    np.testing.assert_allclose(layer.forward(net.real(2, 6, 6, 3)).shape, (2, 6, 6, 3))
    assert layer.momentum == pytest.approx(0.01)


def test_branches(net, path):
    start = net.last
    kernel(net, 3, 3, 3, 3, padding="same", kernel_quantizer=entry_of("ste_sign"))
    net.add("Add", {}, inputs=(start, net.last))
    start = net.last
    kernel(net, 3, 3, 3, 5, padding="same", kernel_quantizer=entry_of("ste_sign"))
    net.add("Concatenate", {"axis": 3}, inputs=(net.last, start))
    model = converted(net, path)
    assert [type(layer) for layer in model.layers] == [Residual, Concat]
    assert model.output_shape((6, 6, 3)) == (6, 6, 8)


@pytest.mark.parametrize("quantizer", ["ste_sign", None])
def test_separable_convolutions(quantizer, rng, path):
    """Nothing lies between the two: the second takes the sums of the first."""
    x = rng.normal(0, 1, (4, 6, 6, 3)).astype(np.float32)
    net = Network(rng, x)
    depthwise, points, bias = net.real(3, 3, 3, 2), net.real(1, 1, 6, 5), net.real(5)
    names = "input_quantizer", "depthwise_quantizer", "pointwise_quantizer"
    arrays = ("depthwise_kernel", depthwise), ("pointwise_kernel", points), ("bias", bias)
    settings = {name: entry_of(quantizer) for name in names}
    settings |= {"strides": [2, 2], "padding": "same", "use_bias": True}
    net.add("QuantSeparableConv2D", settings, *arrays)
    model = converted(net, path)
    if quantizer:
        assert [type(layer) for layer in model.layers[1:]] == [BinaryDepthwiseConv2D, BinaryConv2D]
    rows = quantize(quantizer, depthwise).reshape(3, 3, 1, 6)
    sums = convolve(quantize(quantizer, x), rows, 2, "same", 0, 3)
    wanted = convolve(sums, quantize(quantizer, points), 1, "valid", 0, 1) + bias
    scores = model.freeze()(x)
    np.testing.assert_array_equal(scores, model(x))
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("scale", [[2.0, 0.5, -1.0], 0.25])
def test_layers_that_prepare_images(net, rng, path, scale):
    net.add("Rescaling", {"scale": scale, "offset": -1})
    net.add("Normalization", {"mean": [0.1, 0.2, 0.3], "variance": [1.0, 4.0, 0.25]})
    net.add("Activation", {"activation": "silu"})
    net.add("Reshape", {"target_shape": [-1]})
    x = rng.normal(0, 1, (5, *net.shape)).astype(np.float32)
    z = ((x * scale - 1) - [0.1, 0.2, 0.3]) / np.sqrt([1, 4, 0.25])
    wanted = (z / (1 + np.exp(-z))).reshape(5, -1)
    np.testing.assert_allclose(converted(net, path).freeze()(x), wanted, rtol=0, atol=1e-5)


def test_normalization_that_was_adapted(net, rng, path):
    mean, variance = rng.normal(0, 1, 3), rng.uniform(0.5, 2, 3)
    counted = ("mean", mean), ("variance", variance), ("count", np.int64(7))
    net.add("Normalization", {"mean": None, "variance": None}, *counted)
    x = rng.normal(0, 1, (5, *net.shape)).astype(np.float32)
    wanted = (x - mean) / np.sqrt(variance)
    np.testing.assert_allclose(converted(net, path).freeze()(x), wanted, rtol=0, atol=1e-5)


def test_means_of_branches(net, rng, path):
    net.add("ReLU", {}, inputs=("start",))
    net.add("Average", {}, inputs=("start", "re_lu"))
    x = rng.normal(0, 1, (5, *net.shape)).astype(np.float32)
    wanted = (x + np.maximum(x, 0)) / 2
    np.testing.assert_allclose(converted(net, path).freeze()(x), wanted, rtol=0, atol=1e-6)


# Refusals


def test_layers_that_are_not_known_are_named(net, path):
    net.add("Lambda", {"function": "print"})
    with pytest.raises(ConversionError, match=r"Lambda layer 'lambda': layers of this class"):
        converted(net, path)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("Activation", {"activation": "gelu"}, "activation 'gelu' is not supported"),
        ("MaxPooling2D", {"data_format": "channels_first"}, "data_format must be"),
        ("MaxPooling2D", {"pool_size": [0, 2]}, "positive integers"),
        ("AveragePooling2D", {"pool_size": [4, 4], "padding": "same"}, "does not count"),
        ("Dropout", {"rate": 2.0}, "rate must be in"),
        ("Normalization", {"invert": True}, "invert is not supported"),
        ("Rescaling", {"scale": [1, 2]}, "one for each feature"),
        ("Reshape", {"target_shape": [3, -1]}, "or all become a row"),
        ("ZeroPadding2D", {"padding": "x"}, "padding must be integers"),
        ("Concatenate", {}, "at least two inputs"),
        ("BatchNormalization", {}, "arrays must have"),
        ("QuantConv2D", {}, "arrays must have"),
    ],
)
def test_settings_that_are_not_supported(net, path, kind, settings, message):
    net.add(kind, settings)
    with pytest.raises(ConversionError, match=message) as caught:
        converted(net, path)
    assert kind in str(caught.value)


def test_quantizers_that_are_not_supported(net, path):
    kernel(net, 3, 3, 3, 4, kernel_quantizer={"class_name": "NoOp", "config": {}})
    with pytest.raises(ConversionError, match="quantizer of weights"):
        converted(net, path)


def test_weights_that_do_not_fit(net, path):
    kernel(net, 3, 3, 5, 4)
    with pytest.raises(ConversionError, match="must take 5 features"):
        converted(net, path)


def test_damaged_files(net, path, tmp_path):
    kernel(net, 3, 3, 3, 4)
    net.write_h5(path)
    data = path.read_bytes()
    for content in (b"", b"text", data[:100], data[:-100], b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ConversionError):
            from_keras(path)
    with pytest.raises(OSError, match="No such file"):
        from_keras(tmp_path / "missing.h5")


def test_weights_alone_are_refused(path):
    with h5py.File(path, "w") as file:
        file["kernel"] = np.ones(3)
    with pytest.raises(ConversionError, match="a whole model"):
        from_keras(path)


def test_links_to_other_files_are_refused(net, path, tmp_path):
    kernel(net, 3, 3, 3, 4)
    net.write_h5(path)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["kernel"] = np.ones((3, 3, 3, 4), np.float32)
    name = "quant_conv2d"
    for link in (h5py.ExternalLink(str(other), "/kernel"), h5py.SoftLink("/model_weights")):
        with h5py.File(path, "a") as file:
            group = file[f"model_weights/{name}/{name}"]
            del group["kernel:0"]
            group["kernel:0"] = link
        with pytest.raises(ConversionError, match="itself"):
            from_keras(path)


def test_external_storage_is_refused(net, path, tmp_path):
    kernel(net, 3, 3, 3, 4)
    net.write_h5(path)
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(432))
    with h5py.File(path, "a") as file:
        group = file["model_weights/quant_conv2d/quant_conv2d"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", (3, 3, 3, 4), "f4", external=[(str(raw), 0, 432)])
    with pytest.raises(ConversionError, match="in the file itself"):
        from_keras(path)


def test_arrays_that_unpack_to_far_more_are_refused(net, path):
    kernel(net, 3, 3, 3, 4)
    net.write_h5(path)
    with h5py.File(path, "a") as file:
        group = file["model_weights/quant_conv2d/quant_conv2d"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", (1 << 14, 1 << 14), "f4", chunks=True, compression="gzip")
    with pytest.raises(ConversionError, match="far larger than the file"):
        from_keras(path)


@pytest.mark.parametrize("place", ["layers", "layers/quant_conv2d", "layers/quant_conv2d/vars"])
def test_arrays_in_the_place_of_groups_are_refused(net, tmp_path, place):
    """Their elements, more than any file holds, must not be searched for names."""
    kernel(net, 3, 3, 3, 4)
    path = tmp_path / "net.keras"
    net.write_keras(path)
    with zipfile.ZipFile(path) as archive:
        config, weights = archive.read("config.json"), io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        del file[place]
        file.create_dataset(place, (1 << 40,), "u1", chunks=(1 << 20,))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights.getvalue())
    with pytest.raises(ConversionError, match=f"/{place} must be a group"):
        from_keras(path)


def test_zip_bombs_are_refused(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * 2**28)
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ConversionError, match="unpacks to far more"):
        from_keras(path)


@pytest.mark.parametrize(
    "config",
    [
        [],
        {},
        {"class_name": "Sequential", "config": {}},
        {"class_name": "Sequential", "config": {"layers": [3]}},
        {"class_name": "Sequential", "config": {"layers": [{"config": {}}]}},
        {"class_name": "Mine", "config": {"layers": [{"class_name": "Dense", "config": {}}]}},
        {"class_name": "Functional", "config": {"layers": [{"class_name": "A", "config": {}}] * 2}},
        {
            "class_name": "Functional",
            "config": {
                "layers": [{"class_name": "ReLU", "config": {}, "inbound_nodes": [[[]]]}],
                "output_layers": [["a", 0, 0]],
            },
        },
    ],
)
def test_descriptions_that_keras_does_not_write(path, config):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights")
    with pytest.raises(ConversionError):
        from_keras(path)


def test_cycles_are_refused(net, path):
    net.add("ReLU", {}, inputs=("re_lu_1",))
    net.add("ReLU", {}, inputs=("re_lu",))
    net.add("Add", {}, inputs=("re_lu", "re_lu_1"))
    with pytest.raises(ConversionError, match="must come before it"):
        converted(net, path)


def test_deep_nesting_is_refused(path):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "[" * 30_000
        file.create_group("model_weights")
    with pytest.raises(ConversionError, match="not JSON"):
        from_keras(path)


def test_both_writers_of_the_tests_agree(net, tmp_path):
    """A file of Keras 3 is a zip file whose weights are HDF5."""
    kernel(net, 3, 3, 3, 4)
    net.write_keras(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            assert file["layers/quant_conv2d/vars/0"].shape == (3, 3, 3, 4)


def test_from_running():
    rng = np.random.default_rng(0)
    gamma, beta, mean = rng.normal(size=(3, 5))
    variance, x = rng.uniform(0.5, 2, 5), rng.normal(size=(7, 5))
    layer = BatchNorm.from_running(gamma, beta, mean, variance, 1e-3)
    wanted = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(layer.forward(x), wanted, rtol=1e-4, atol=1e-5)
    for bad in (mean[:3], [np.nan] * 5):
        with pytest.raises(ValueError, match="mean must be finite"):
            BatchNorm.from_running(gamma, beta, bad, variance)
    with pytest.raises(ValueError, match="must be positive"):
        BatchNorm.from_running(gamma, beta, mean, -variance)
