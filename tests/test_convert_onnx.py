"""Networks from ONNX files: the scores of the source, and refusals that name the node."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

import bitops as bo
from bitops.convert import ConversionError, check, from_onnx
from bitops.layers import PackedConv2D, PackedDense, PackedMultiThreshold, PackedPlanesDense

onnx = pytest.importorskip("onnx", reason="needs onnx")

from onnx import helper, numpy_helper  # noqa: E402
from random_onnx import Network, random_network  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT


def own_layout(x):
    """Images NCHW as the packed network takes them."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x


def converted(net):
    return from_onnx(net.model().SerializeToString())


def assert_same_scores(packed, net, x):
    wanted = net.run(x)
    scores = np.asarray(packed(own_layout(x)))
    assert scores.shape == wanted.shape
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    if scores.dtype.kind == "i":
        np.testing.assert_array_equal(scores, wanted)


@pytest.fixture
def net(rng):
    return Network(rng, (20,))


# Networks of third parties


def third_party(*parts):
    folder = os.environ.get("BITOPS_MODELS")
    if not folder:
        pytest.skip("set BITOPS_MODELS to a folder with networks of third parties")
    return Path(folder, *parts)


def assert_golden(packed, x, scores):
    given = packed(x)
    np.testing.assert_array_equal(given.argmax(axis=1), scores.argmax(axis=1))
    np.testing.assert_allclose(given, scores, rtol=0, atol=1e-5 * np.abs(scores).max())


@pytest.mark.parametrize("name", ["TFC_1W1A", "TFC_1W2A", "TFC_2W2A"])
def test_tfc_of_brevitas(name):
    golden = np.load(third_party("tfc", "golden.npz"))
    packed = from_onnx(third_party("tfc", f"{name}.onnx"))
    assert_golden(packed, golden["x"], golden[f"scores_{name}"])


def test_tfc_of_finn():
    golden = np.load(third_party("finn_tfc", "golden.npz"))
    packed = from_onnx(third_party("finn_tfc", "model.onnx"))
    np.testing.assert_array_equal(packed.predict(golden["x"]), golden["classes"].ravel())
    assert "TopK" in packed.notes["remarks"]


def test_gtsrb_of_tf2onnx():
    golden = np.load(third_party("gtsrb_onnx", "golden.npz"))
    packed = from_onnx(third_party("gtsrb_onnx", "gtsrb_30.onnx.gz"))
    for x in (golden["x"], golden["x"].astype(np.float32)):
        assert_golden(packed, x, golden["scores_gtsrb_30"])


# Random networks


@pytest.mark.parametrize("decade", range(30))
def test_random_networks(decade, tmp_path):
    for seed in range(10 * decade, 10 * decade + 10):
        net, x = random_network(seed)
        packed = converted(net)
        assert_same_scores(packed, net, x)
    packed.save(tmp_path / "net.safetensors")
    again = bo.io.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(
        np.asarray(again(own_layout(x))), np.asarray(packed(own_layout(x)))
    )
    assert again.notes == packed.notes


# What becomes of the parts


def test_signs_become_packed_layers_with_integer_scores(net, rng):
    net.then("MatMul", net.signs(20, 33))
    net.then("BipolarQuant", np.float32(1), domain="onnx.brevitas")
    net.then("MatMul", net.signs(33, 4))
    packed = converted(net)
    assert [type(layer) for layer in packed.layers] == [PackedDense, PackedDense]
    x = rng.integers(0, 256, (7, 20)).astype(np.float32)
    assert packed(x).dtype == np.int32
    assert_same_scores(packed, net, x)


def test_a_scale_of_each_filter_is_recognised(net, rng):
    w = net.signs(6, 20) * rng.uniform(0.1, 3, (6, 1)).astype(np.float32)
    net.then("Sign")
    net.then("Gemm", w, transB=1)
    packed = converted(net)
    assert any(isinstance(layer, PackedDense) for layer in packed.layers)
    assert_same_scores(packed, net, rng.normal(0, 1, (9, 20)).astype(np.float32))


@pytest.mark.parametrize("levels", [[-1, 0, 1], [-3, -1, 1, 3], [-2, -1, 0, 1, 2], [-0.5, 0, 0.5]])
def test_few_levels_become_planes(net, rng, levels):
    w = rng.choice(np.float32(levels), (6, 20))
    net.then("BipolarQuant", np.float32(1), domain="onnx.brevitas")
    net.then("Gemm", w, transB=1)
    packed = converted(net)
    assert any(isinstance(layer, PackedPlanesDense) for layer in packed.layers)
    assert_same_scores(packed, net, rng.normal(0, 1, (9, 20)).astype(np.float32))


def test_zero_is_a_third_value_of_sign(rng):
    """With an even number of terms a sum of bits may be 0, and its Sign with it."""
    for k, is_three_way in ((20, True), (21, False)):
        net = Network(rng, (k,))
        net.then("BipolarQuant", np.float32(1), domain="onnx.brevitas")
        net.then("MatMul", net.signs(k, 50))
        net.then("Sign")
        net.then("MatMul", net.signs(50, 3))
        packed = converted(net)
        kinds = [type(layer) for layer in packed.layers]
        assert (PackedMultiThreshold in kinds) == is_three_way
        x = rng.normal(0, 1, (50, k)).astype(np.float32)
        assert_same_scores(packed, net, x)
        assert ("remarks" in packed.notes) == is_three_way


@pytest.mark.parametrize("value", [0, 1, -1])
def test_padding_of_bits(rng, value):
    net = Network(rng, (4, 6, 6))
    net.then("BipolarQuant", np.float32(1), domain="onnx.brevitas")
    net.then("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(value))
    net.then("Conv", net.signs(8, 4, 3, 3))
    net.then("Flatten")
    net.then("MatMul", net.signs(288, 3))
    packed = converted(net)
    (layer,) = (layer for layer in packed.layers if isinstance(layer, PackedConv2D))
    assert layer.operation.pad_value == value
    assert_same_scores(packed, net, rng.normal(0, 1, (3, 4, 6, 6)).astype(np.float32))


def test_flattened_images_keep_the_order_of_the_source(rng):
    net = Network(rng, (3, 4, 5))
    net.then("Reshape", np.array([0, -1]))
    net.then("MatMul", net.signs(60, 7))
    net.then("Add", rng.normal(0, 1, 7).astype(np.float32))
    assert_same_scores(converted(net), net, rng.integers(0, 99, (2, 3, 4, 5)).astype(np.float32))


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
def test_opsets(rng, opset):
    net = Network(rng, (2, 8, 8), opset)
    net.then("Conv", net.signs(4, 2, 3, 3))
    limits = np.float32([-1, 1])
    if opset < 11:
        net.then("Clip", min=-1.0, max=1.0)
    else:
        net.then("Clip", *limits)
    net.then("Sign")
    if opset < 13:
        net.then("Unsqueeze", axes=[4])
        net.then("Squeeze", axes=[4])
    else:
        net.then("Unsqueeze", np.array([4]))
        net.then("Squeeze", np.array([4]))
    net.then("Flatten")
    net.then("MatMul", net.signs(144, 5))
    assert_same_scores(converted(net), net, rng.normal(0, 5, (3, 2, 8, 8)).astype(np.float32))


def test_shapes_that_the_graph_computes(rng):
    """As exporters write x.view(len(x), -1)."""
    net = Network(rng, (2, 4, 4))
    shape = net.add("Shape", "input")
    batch = net.add("Gather", shape, net.constant(np.int64(0)), axis=0)
    first = net.add("Unsqueeze", batch, net.constant(np.array([0])))
    target = net.add("Concat", first, net.constant(np.array([-1])), axis=0)
    net.add("Reshape", "input", target)
    net.then("MatMul", net.signs(32, 5))
    assert_same_scores(converted(net), net, rng.normal(0, 1, (3, 2, 4, 4)).astype(np.float32))


def test_constants_of_the_shape_of_a_batch(rng):
    """As exporters write torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))."""
    net = Network(rng, (2, 3, 3))
    above = net.add("GreaterOrEqual", "input", net.constant(np.float32(0)))
    shape = net.add("Shape", "input")
    ones = net.add("Expand", net.constant(np.float32(1)), shape)
    net.add("Where", above, ones, net.add("Neg", ones))
    net.then("Flatten")
    net.then("MatMul", net.signs(18, 3))
    assert_same_scores(converted(net), net, rng.normal(0, 1, (4, 2, 3, 3)).astype(np.float32))


def test_ones_of_the_shape_of_weights(rng):
    """As exporters write weights binarized by torch.where(w >= 0, ones_like(w), -ones_like(w))."""
    net = Network(rng, (20,))
    w = net.constant(rng.normal(0, 1, (20, 6)).astype(np.float32))
    ones = net.add("Expand", net.constant(np.float32(1)), net.add("Shape", w))
    above = net.add("GreaterOrEqual", w, net.constant(np.float32(0)))
    net.add("MatMul", "input", net.add("Where", above, ones, net.add("Neg", ones)))
    packed = converted(net)
    assert [type(layer) for layer in packed.layers] == [PackedDense]
    assert_same_scores(packed, net, rng.normal(0, 1, (7, 20)).astype(np.float32))


def test_infinities_on_the_way_to_weights(net):
    """As in IR-Net's scales, 2 ** log2(mean magnitude), of a filter that is 0."""
    scale = net.constant(np.float32([0, 1, 2]))
    log = net.add("Log", scale)
    net.add("MatMul", "input", net.add("Mul", net.constant(net.signs(20, 3)), net.add("Exp", log)))
    packed = converted(net)
    with np.errstate(divide="ignore"):
        assert_same_scores(packed, net, np.eye(20, dtype=np.float32))


def test_constants_of_a_fixed_batch(rng):
    """As exporters write torch.ones_like(x) if the size of the batch is fixed."""
    net = Network(rng, (2, 3, 3))
    ones = np.ones((4, 2, 3, 3), np.float32)
    above = net.add("GreaterOrEqual", "input", net.constant(np.float32(0)))
    net.add("Where", above, net.constant(ones), net.constant(-ones))
    net.then("Flatten")
    net.then("MatMul", net.signs(18, 3))
    assert_same_scores(converted(net), net, rng.normal(0, 1, (4, 2, 3, 3)).astype(np.float32))


@pytest.mark.parametrize("is_swapped", [False, True])
def test_a_zero_that_is_replaced(net, rng, is_swapped):
    """As exporters write sign = x.sign(); sign[sign == 0] = 1, which takes one bit."""
    net.then("MatMul", net.signs(20, 6))
    sign = net.then("Sign")
    operands = [sign, net.constant(np.float32(0))]
    is_zero = net.add("Equal", *operands[:: -1 if is_swapped else 1])
    net.add("Where", is_zero, net.constant(np.float32(1)), sign)
    net.then("MatMul", net.signs(6, 4))
    packed = converted(net)
    assert [type(layer) for layer in packed.layers] == [PackedDense, PackedDense]
    x = rng.integers(-2, 3, (40, 20)).astype(np.float32)
    assert "remarks" not in packed.notes and packed(x).dtype == np.int32
    assert_same_scores(packed, net, x)


def test_comparisons_that_choose_in_turn(rng):
    """As exporters write where(x > 2, 1, where(x < -1, -1, 0)), and a choice of two choices."""
    net = Network(rng, (20,))
    above, below, middle = (
        net.add(op, "input", net.constant(np.float32(limit)))
        for op, limit in (("Greater", 2), ("Less", -1), ("GreaterOrEqual", 0))
    )
    one, zero, minus = (net.constant(np.float32(value)) for value in (1, 0, -1))
    inner = net.add("Where", below, minus, zero)
    net.add("Where", middle, net.add("Where", above, one, zero), inner)
    net.then("MatMul", net.signs(20, 4))
    x = rng.integers(-3, 5, (40, 20)).astype(np.float32)
    assert_same_scores(converted(net), net, x)


def test_gzipped_files_and_paths(net, rng, tmp_path):
    net.then("MatMul", net.signs(20, 3))
    data = net.model().SerializeToString()
    for name, content in (("a.onnx", data), ("a.onnx.gz", gzip.compress(data))):
        path = tmp_path / name
        path.write_bytes(content)
        packed = from_onnx(path)
        assert_same_scores(packed, net, rng.normal(0, 1, (3, 20)).astype(np.float32))
        assert packed.notes["source"] == f"ONNX file {name}"
        assert packed.input_shape == (20,)


def test_branches_side_by_side_keep_the_order_of_the_source(rng):
    for swapped in (False, True):
        net = Network(rng, (3, 5, 5))
        net.then("Conv", net.signs(4, 3, 1, 1))
        net.then("Sign")
        parts = ["input", net.last]
        net.add("Concat", *parts[:: -1 if swapped else 1], axis=1)
        net.then("Conv", rng.normal(0, 1, (2, 7, 3, 3)).astype(np.float32))
        net.then("Flatten")
        net.then("MatMul", net.signs(18, 4))
        x = rng.normal(0, 3, (2, 3, 5, 5)).astype(np.float32)
        assert_same_scores(converted(net), net, x)


@pytest.mark.parametrize("groups", [2, 3, 4, 12])
@pytest.mark.parametrize("swapped", [False, True])
def test_groups_behind_branches_side_by_side(rng, groups, swapped):
    """Groups whose channels lie side by side move; others need weights of 0."""
    net = Network(rng, (4, 7, 7))
    net.norm()
    start = net.last
    net.then("Sign")
    net.then("Conv", net.signs(8, 4, 3, 3), pads=[1] * 4)
    net.add("Concat", *[start, net.last][:: -1 if swapped else 1], axis=1)
    net.channels = 12
    net.norm()
    net.then("GreaterOrEqual", np.float32(0))
    net.add("Where", net.last, net.constant(np.float32(1)), net.constant(np.float32(-1)))
    bias = rng.normal(0, 2, 2 * groups).astype(np.float32)
    net.then("Conv", net.signs(2 * groups, 12 // groups, 3, 3), bias, group=groups)
    net.then("Flatten")
    net.then("MatMul", net.signs(50 * groups, 4))
    x = rng.normal(0, 3, (5, 4, 7, 7)).astype(np.float32)
    assert_same_scores(converted(net), net, x)


@pytest.mark.parametrize("end", ["Flatten", "GlobalAveragePool", "ReduceMean", "sequence"])
@pytest.mark.parametrize("stride", [1, 2])
def test_sequences(rng, end, stride):
    net = Network(rng, (5, 24))
    net.then("Conv", rng.normal(0, 1, (6, 5, 3)).astype(np.float32), pads=[1, 0])
    net.channels = 6
    net.norm()
    net.add("MaxPool", net.last, kernel_shape=[2], strides=[2])
    net.then("GreaterOrEqual", np.float32(0))
    net.add("Where", net.last, net.constant(np.float32(1)), net.constant(np.float32(-1)))
    net.then("Conv", net.signs(4, 3, 3), pads=[1, 1], strides=[stride], dilations=[1], group=2)
    net.channels = 4
    net.norm()
    if end == "ReduceMean":
        net.add(end, net.last, axes=[2], keepdims=0)
    elif end != "sequence":
        net.add(end, net.last)
        net.add("Flatten", net.last)
    if end == "Flatten":
        net.then("MatMul", net.signs((11 + stride - 1) // stride * 4, 3))
    x = rng.normal(0, 3, (4, 5, 24)).astype(np.float32)
    got = converted(net)(np.ascontiguousarray(x.transpose(0, 2, 1)))
    expected = net.run(x)
    if end == "sequence":
        expected = expected.transpose(0, 2, 1)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [2, 4])
def test_channels_that_are_shuffled(rng, groups):
    """Grouped convolutions with a shuffle between, as ShuffleNet has them, and a strided slice."""
    net = Network(rng, (3, 8, 6))
    net.then("Conv", rng.normal(0, 1, (8, 3, 1, 1)).astype(np.float32))
    for _ in range(2):
        net.then("BipolarQuant", np.float32(1), domain="onnx.brevitas")
        net.then("Conv", net.signs(8, 8 // groups, 3, 3), group=groups, pads=[1] * 4)
        net.then("Reshape", np.array([0, groups, 8 // groups, 8, 6]))
        net.add("Transpose", net.last, perm=[0, 2, 1, 3, 4])
        net.then("Reshape", np.array([-1, 8, 8, 6]))
    net.then("Slice", *(np.array(values) for values in ([0, 0], [99, 99], [2, 3], [2, 3])))
    net.add("Flatten", net.last)
    net.then("Gemm", net.signs(5, 64), transB=1)
    assert_same_scores(converted(net), net, rng.normal(0, 1, (9, 3, 8, 6)).astype(np.float32))


def test_pixels_that_are_reduced(rng):
    """Sums, largest numbers, gates that were expanded, and means of pixels in one row."""
    net = Network(rng, (6, 5, 4))
    net.then("HardSwish")
    x = net.then("Conv", rng.normal(0, 1, (6, 6, 1, 1)).astype(np.float32))
    gate = net.add("ReduceMax", x, axes=[2, 3], keepdims=1)
    wide = net.add("Expand", gate, net.constant(np.array([1, 6, 5, 4])))
    y = net.add("Mul", x, wide)
    row = net.add("Reshape", y, net.constant(np.array([0, 6, 20])))
    mean = net.add("ReduceMean", row, axes=[2], keepdims=0)
    total = net.add("ReduceSum", y, net.constant(np.array([2, 3])), keepdims=0)
    net.add("Concat", mean, total, axis=1)
    assert_same_scores(converted(net), net, rng.normal(0, 1, (9, 6, 5, 4)).astype(np.float32))


def test_numbers_that_are_rounded_before_they_are_limited(rng):
    net = Network(rng, (20,))
    net.then("Mul", np.float32(1 / 0.3))
    net.then("Round")
    net.then("Clip", np.float32(-2), np.float32(1))
    net.then("Mul", np.float32(0.3))
    net.then("Gemm", net.signs(5, 20), transB=1)
    packed = converted(net)
    assert any(layer.name == "PackedMultiThreshold" for layer in packed.layers)
    assert_same_scores(packed, net, rng.normal(0, 1, (30, 20)).astype(np.float32))


@pytest.mark.parametrize("mode", ["FLOOR", "ROUND"])
@pytest.mark.parametrize("scale", [1, 0.25, 0.7])
def test_truncated_means(rng, mode, scale):
    """As Brevitas writes TruncAvgPool2d: codes, their sums, and the upper bits of these."""
    net = Network(rng, (3, 8, 8))
    net.then("Conv", net.signs(6, 3, 3, 3))
    net.channels = 6
    net.norm()
    numbers = [np.float32(number) for number in (scale, 0, 4, 6)]
    options = {"domain": "onnx.brevitas", "signed": 0}
    net.then("Quant", *numbers[:3], **options)
    net.add("AveragePool", net.last, kernel_shape=[2, 2], strides=[2, 2])
    net.then("Mul", np.float32(4))
    last = numbers[0], numbers[1], numbers[3], numbers[2]
    net.then("Trunc", *last, domain="onnx.brevitas", rounding_mode=mode)
    net.then("Conv", net.signs(5, 6, 3, 3))
    net.then("Flatten")
    x = rng.integers(0, 256, (20, 3, 8, 8)).astype(np.float32)
    assert_same_scores(converted(net), net, x)


# Refusals


def test_the_first_node_that_cannot_be_represented_is_named(net):
    net.then("MatMul", net.signs(20, 3))
    net.then("Erf")
    with pytest.raises(ConversionError, match=r"Erf node 'n1': the operator is not supported"):
        converted(net)


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "message"),
    [
        ("BatchNormalization", [np.ones(3, np.float32)] * 4, {}, "must have 20 elements"),
        ("Add", [np.ones((2, 20), np.float32).cumsum(axis=0)], {}, "may differ by channel"),
        ("Equal", [np.float32(0)], {}, "must be few values"),
        ("Div", [np.float32(0)], {}, "divides by zero"),
        ("MatMul", [np.ones((7, 3), np.float32)], {}, "take 7 features, got 20"),
        ("Softmax", [], {"axis": 0}, "must be that of the features"),
        ("Reshape", [np.array([2, -1])], {}, "first axis must stay"),
        ("Reshape", [np.array([-1, 4])], {}, "cannot become"),
        ("Cast", [], {"to": onnx.TensorProto.INT32}, "behind a comparison"),
        ("Mul", [np.float32(np.inf)], {}, "must be finite"),
    ],
)
def test_nodes_that_do_not_fit(net, op, constants, attributes, message):
    net.then(op, *constants, **attributes)
    with pytest.raises(ConversionError, match=message) as caught:
        converted(net)
    assert f"{op} node 'n0'" in str(caught.value)


def test_axes_that_do_not_exist_are_refused(net):
    net.then("Transpose", perm=[0, 2, 1])
    with pytest.raises(ConversionError, match="'n0': it names an axis that its input does not"):
        converted(net)


def test_names_that_are_no_text_are_refused(net):
    net.then("BipolarQuant", np.float32(1), domain="onnx.brevitas")
    data = net.model().SerializeToString().replace(b"brevitas", b"brevit\xf4s", 1)
    with pytest.raises(ConversionError, match="'utf-8' codec can't decode"):
        from_onnx(data)


def test_damaged_files(net, tmp_path):
    net.then("MatMul", net.signs(20, 3))
    data = net.model().SerializeToString()
    for content in (b"", b"no model", data[:50], data[:-1], gzip.compress(data)[:-9]):
        with pytest.raises(ConversionError):
            from_onnx(content)
    with pytest.raises(OSError, match="No such file"):
        from_onnx(tmp_path / "missing.onnx")
    with pytest.raises(IsADirectoryError):
        from_onnx(tmp_path)


def test_a_gzipped_file_that_unpacks_to_far_more_is_refused():
    bomb = gzip.compress(bytes(2**28))
    with pytest.raises(ConversionError, match="unpacks to more than"):
        from_onnx(bomb)


def with_external_data(net, folder, **entries):
    """Write a model whose weights lie in a file beside it, with other entries than those."""
    net.then("MatMul", net.signs(20, 3))
    model = net.model()
    tensor = model.graph.initializer[0]
    (folder / "net.data").write_bytes(b"..." + tensor.raw_data)
    settings = {"location": "net.data", "offset": 3, "length": 240, **entries}
    onnx.external_data_helper.set_external_data(tensor, **settings)
    tensor.ClearField("raw_data")
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def test_data_beside_the_model(net, rng, tmp_path):
    packed = from_onnx(with_external_data(net, tmp_path))
    assert_same_scores(packed, net, rng.normal(0, 1, (9, 20)).astype(np.float32))
    with pytest.raises(ConversionError, match="give the path of the model"):
        from_onnx((tmp_path / "net.onnx").read_bytes())


def test_check_reads_data_beside_the_model(net, rng, tmp_path):
    pytest.importorskip("onnxruntime")
    path = with_external_data(net, tmp_path)
    assert check(from_onnx(path), path, rng.normal(0, 1, (9, 20)).astype(np.float32)).ok


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../net.data"}, "must be in a file beside the model, got '../net.data'"),
        ({"location": "/etc/passwd"}, "beside the model"),
        ({"location": ".."}, "beside the model"),
        ({"location": "missing"}, "cannot be read from 'missing'"),
        ({"location": "link"}, "must be that of a regular file"),
        ({"location": "folder"}, "cannot be read"),
        ({"offset": 4}, "must be a part of its own of 'net.data'"),
        ({"length": 2**60}, "a part of its own"),
        ({"length": 12}, "tensor"),
    ],
)
def test_data_elsewhere_is_refused(net, tmp_path, entries, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net.data")
    with pytest.raises(ConversionError, match=message):
        from_onnx(with_external_data(net, tmp_path, **entries))


def test_data_that_many_tensors_claim_is_refused(net, tmp_path):
    """They would take far more memory than the files do."""
    path = with_external_data(net, tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match="a part of its own"):
        from_onnx(path)


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_giant_constants_are_refused(net, op):
    big = np.array([2**20, 2**20], np.int64)
    if op == "ConstantOfShape":
        made = net.add(op, net.constant(big))
    elif op == "Range":
        limits = (np.float32(0), np.float32(1e12), np.float32(1))
        made = net.add(op, *map(net.constant, limits))
    else:
        made = net.add(op, net.constant(np.ones((1, 1), np.float32)), net.constant(big))
    net.add("Add", "input", made)
    with pytest.raises(ConversionError, match="more than 16777216 elements"):
        converted(net)


def test_cycles_and_missing_inputs_are_refused(net):
    net.add("Add", "input", "t1")
    net.add("Add", "t0", "input")
    with pytest.raises(ConversionError):
        converted(net)


def test_models_without_one_input(net):
    net.then("MatMul", net.signs(20, 3))
    model = net.model()
    extra = helper.make_tensor_value_info("more", FLOAT, ["n", 20])
    model.graph.input.append(extra)
    with pytest.raises(ConversionError, match="must have one input, got input, more"):
        from_onnx(model.SerializeToString())


def test_the_size_of_the_batch_must_stay_open(net):
    shape = net.add("Shape", "input")
    double = net.add("Mul", shape, net.constant(np.array([2, 1])))
    net.add("Reshape", "input", double)
    with pytest.raises(ConversionError, match="size of the batch"):
        converted(net)


def test_old_opsets_are_refused(net):
    net.then("Relu")
    model = net.model()
    model.opset_import[0].version = 8
    with pytest.raises(ConversionError, match="9 or newer, got 8"):
        from_onnx(model.SerializeToString())


def test_weights_that_are_not_finite_are_refused(net):
    w = net.signs(20, 3)
    w[2, 1] = np.nan
    net.then("MatMul", w)
    with pytest.raises(ConversionError, match="'n0': its weights must be finite"):
        converted(net)


def test_numpy_helper_reads_what_was_written(net):
    """The tests' own networks hold the weights that they claim to."""
    w = net.signs(20, 3)
    net.then("MatMul", w)
    np.testing.assert_array_equal(numpy_helper.to_array(net.model().graph.initializer[0]), w)
