"""Packed networks as ONNX files: the same outputs in other programs, and back again."""

import functools
import importlib.util

import numpy as np
import pytest

import bitops as bo
from bitops import layers as L
from bitops.cli import main as cli
from bitops.convert import ConversionError, from_onnx, to_onnx
from bitops.io import register
from bitops.quantizers import DoReFaWeight, Ternary
from commands import failure

onnx = pytest.importorskip("onnx", reason="needs onnx")

import random_onnx  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from test_models import CASES, NETS, disturb, examples  # noqa: E402

QONNX = "qonnx.custom_op.general"
QONNX_OPS = [
    type(op.__name__, (op,), {"op_domain": QONNX})
    for op in (random_onnx.BipolarQuant, random_onnx.Quant, random_onnx.MultiThreshold)
]
needs_onnxruntime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime"
)
FORMS = pytest.mark.parametrize("qonnx", [False, True], ids=["plain", "qonnx"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.onnx"


def by_reference(path, x):
    (y,) = ReferenceEvaluator(str(path), new_ops=QONNX_OPS).run(None, {"input": x})
    return y


def by_onnxruntime(path, x):
    import onnxruntime

    (y,) = onnxruntime.InferenceSession(str(path)).run(None, {"input": x})
    return y


def numbers(y):
    return bo.unpack(y, dtype=np.float32) if isinstance(y, bo.BitArray) else np.asarray(y)


def assert_same(got, wanted):
    wanted = numbers(wanted)
    assert numbers(got).shape == wanted.shape
    if wanted.dtype.kind in "iu":
        np.testing.assert_array_equal(numbers(got), wanted)
    else:
        atol = 1e-6 * np.abs(wanted).max()
        np.testing.assert_allclose(numbers(got), wanted, rtol=0, atol=atol)


def check(packed, x, path, *, qonnx=False, run=by_reference, back=True):
    """Compare a network with its file, and with the network that its file becomes."""
    to_onnx(packed, path, qonnx=qonnx)
    wanted = packed(x)
    values = x.astype(np.float32) if isinstance(x, np.ndarray) else bo.unpack(x, dtype=np.float32)
    assert_same(run(path, values), wanted)
    if back:
        again = from_onnx(path)
        y = again(x if isinstance(x, np.ndarray) else values)
        assert_same(y, wanted)
        assert numbers(y).dtype == numbers(wanted).dtype
        assert again.input_shape == packed.input_shape


# Random networks


@functools.cache
def random_packed(seed):
    net, x = random_onnx.random_network(seed)
    packed = from_onnx(net.model().SerializeToString())
    return packed, np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x


@pytest.mark.parametrize("decade", range(30))
def test_random_networks(decade, path):
    for seed in range(10 * decade, 10 * decade + 10):
        check(*random_packed(seed), path)


@pytest.mark.parametrize("decade", range(8))
def test_random_networks_of_qonnx(decade, path):
    for seed in range(10 * decade, 10 * decade + 10):
        check(*random_packed(seed), path, qonnx=True)


@needs_onnxruntime
@pytest.mark.parametrize("decade", range(30))
def test_random_networks_in_onnxruntime(decade, path):
    for seed in range(10 * decade, 10 * decade + 10):
        check(*random_packed(seed), path, run=by_onnxruntime, back=False)


# The networks of bitops.models


def frozen(name, options, rng):
    net = NETS[name]
    model = net.make(seed=3, **options)
    model.forward(examples(net, rng, 8), training=True)
    disturb(model, rng)
    return model.freeze(), examples(net, rng, 5)


@FORMS
@pytest.mark.parametrize(("name", "options"), CASES)
def test_models(name, options, qonnx, path, rng):
    packed, x = frozen(name, options, rng)
    check(packed, x, path, qonnx=qonnx)


@needs_onnxruntime
@pytest.mark.parametrize(("name", "options"), CASES)
def test_models_in_onnxruntime(name, options, path, rng):
    packed, x = frozen(name, options, rng)
    check(packed, x, path, run=by_onnxruntime, back=False)


# Layers


def weights(rng, *shape):
    return rng.choice([-1, 1], shape)


@FORMS
@pytest.mark.parametrize("quantizer", [Ternary(), DoReFaWeight(2)], ids=repr)
@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("clip_value", [1.0, 2.7])
def test_quantized_activations(quantizer, bits, clip_value, qonnx, path, rng):
    model = L.Sequential(
        L.Conv2D(2, 5, 3, padding=1, seed=0),
        L.BatchNorm(5),
        L.Quantize(bo.quantizers.DoReFaActivation(bits, clip_value)),
        L.QuantizedConv2D(5, 6, 3, quantizer, padding=1, seed=1),
        L.BatchNorm(6),
        L.MaxPool2D(2),
        L.Quantize(bo.quantizers.DoReFaActivation(bits, clip_value)),
        L.Flatten(),
        L.QuantizedDense(54, 3, quantizer, seed=2),
        input_shape=(6, 7, 2),
    )
    model.forward(rng.normal(0, 3, (9, 6, 7, 2)), training=True)
    check(model.freeze(), rng.normal(0, 3, (4, 6, 7, 2)).astype(np.float32), path, qonnx=qonnx)


@FORMS
@pytest.mark.parametrize("pad_value", [0, 1, -1])
def test_convolutions_of_bits(pad_value, qonnx, path, rng):
    """Stride, dilation, groups, uneven padding, flips and constant channels."""
    limits = np.array([-np.inf, np.inf, 0, 3, -2, 1.5], np.float32)
    packed = L.Packed(
        L.PackedConv2D(
            weights(rng, 6, 3, 2, 4),
            limits,
            np.arange(6) % 2 == 1,
            stride=(1, 2),
            dilation=(2, 1),
            padding=((2, 1), (0, 1)),
            pad_value=pad_value,
            groups=2,
        ),
        L.PackedMaxPool2D(2, 1, minimum=np.arange(6) % 3 == 0),
        L.PackedMaxPool2D(2, 1, 1),
        L.PackedConv2D(weights(rng, 3, 3, 3, 6), stride=2, padding="same"),
        input_shape=(7, 9, 8),
    )
    check(packed, bo.pack(weights(rng, 3, 7, 9, 8)), path, qonnx=qonnx)


@FORMS
@pytest.mark.parametrize("pad_value", [0, 1, -1])
@pytest.mark.parametrize("scales", [{}, {"alpha": 0.3, "bias": 2.0}])
def test_convolutions_that_scale_their_input(scales, pad_value, qonnx, path, rng):
    packed = L.Packed(
        L.PackedConv2D(
            weights(rng, 6, 3, 2, 2),
            stride=(1, 2),
            dilation=(2, 1),
            padding=((2, 1), (0, 1)),
            pad_value=pad_value,
            groups=2,
            scale_input=True,
            **scales,
        ),
        L.PackedGlobalAvgPool2D(),
        input_shape=(7, 9, 4),
    )
    check(packed, rng.normal(size=(3, 7, 9, 4)).astype(np.float32), path, qonnx=qonnx)
    assert from_onnx(path).layers[0].scale_input


@FORMS
def test_elementwise_layers(qonnx, path, rng):
    c = 4
    vector = functools.partial(rng.normal, size=c)
    packed = L.Packed(
        L.FloatConv2D(rng.normal(size=(c, 2, 2, 2)), vector(), padding=1),
        L.PackedPReLU(vector()),
        L.PackedMaxPool2D(2, minimum=vector() > 0),
        L.PackedClip(-1, None),
        L.PackedBatchNorm(vector(), vector()),
        L.PackedResidual(
            [L.PackedSign(), L.PackedConv2D(weights(rng, c, 1, 1, c)), L.PackedTanh()]
        ),
        L.PackedAvgPool2D(2, 1, 1),
        L.PackedConcat([L.PackedSign(), L.PackedConv2D(weights(rng, 3, 1, 1, c))]),
        L.PackedConv2D(weights(rng, c, 1, 1, 3 + c), scale_input=True),
        L.PackedPad2D(((1, 0), (2, 1)), 0.5),
        L.PackedRPReLU(vector(), vector(), vector()),
        L.PackedMultiply(
            L.PackedPadFeatures(c, after=2),
            [L.PackedGlobalAvgPool2D(), L.FloatDense(rng.normal(size=(6, c))), L.PackedSigmoid()],
        ),
        L.PackedMultiply(
            [L.PackedSign(), L.FloatConv2D(rng.normal(size=(c, 1, 1, 6)))],
            [L.FloatConv2D(rng.normal(size=(c, 1, 1, 6))), L.PackedTanh()],
        ),
        L.PackedConcat(L.PackedClip()),
        L.FloatConv2D(rng.normal(size=(c, 1, 1, 2 * c))),
        L.PackedReLU(),
        L.PackedGlobalAvgPool2D(),
        L.FloatDense(rng.normal(size=(5, c)), rng.normal(size=5)),
        L.PackedSoftmax(),
        input_shape=(6, 5, 2),
    )
    check(packed, rng.normal(size=(3, 6, 5, 2)).astype(np.float32), path, qonnx=qonnx)


@FORMS
def test_sequences(qonnx, path, rng):
    """They go out; files of sequences do not come in."""
    packed = L.Packed(
        L.PackedAsImages(),
        L.FloatConv2D(rng.normal(size=(6, 1, 3, 4)), padding="same"),
        L.PackedSign(rng.normal(size=6)),
        L.PackedConv2D(weights(rng, 6, 1, 3, 6), rng.integers(-3, 3, 6), padding=((0, 0), (2, 0))),
        L.PackedMaxPool2D((1, 2)),
        L.PackedAsSequences(),
        L.PackedResidual(
            [L.PackedAsImages(), L.PackedConv2D(weights(rng, 6, 1, 1, 6)), L.PackedAsSequences()]
        ),
        L.PackedFlatten(),
        L.FloatDense(rng.normal(size=(3, 24))),
        input_shape=(9, 4),
    )
    x = rng.normal(size=(5, 9, 4)).astype(np.float32)
    check(packed, x, path, qonnx=qonnx, back=False)
    ends = L.Packed(*packed.layers[:6], input_shape=(9, 4))
    check(ends, x, path, qonnx=qonnx, back=False)


@FORMS
def test_bits_that_stand_for_zero_and_one(qonnx, path, rng):
    """Read as such by one layer, and as +-1 by the next."""
    packed = L.Packed(
        L.PackedSign(),
        L.PackedPad2D(1, -1),
        L.PackedMaxPool2D(2, 1),
        L.PackedConv2D(weights(rng, 4, 2, 2, 3), 0, input_bits=1, padding=1),
        L.PackedLevels(0.5),
        L.PackedSign(np.full(4, 0.25)),
        L.PackedFlatten(),
        L.FloatDense(rng.normal(size=(2, 6 * 6 * 4))),
        input_shape=(4, 4, 3),
    )
    check(packed, rng.normal(size=(3, 4, 4, 3)).astype(np.float32), path, qonnx=qonnx)


@FORMS
def test_integer_thresholds_of_levels(qonnx, path, rng):
    packed = L.Packed(
        L.PackedDense(weights(rng, 9, 30)),
        L.PackedMultiThreshold(np.sort(rng.integers(-9, 9, (9, 5)), axis=1)),
        L.PackedDense(weights(rng, 4, 9), input_bits=3),
    )
    check(packed, bo.pack(weights(rng, 20, 30)), path, qonnx=qonnx, back=False)
    assert from_onnx(path)(numbers(bo.pack(weights(rng, 20, 30)))).dtype == np.int32


def test_flattened_images_keep_their_order(path, rng):
    packed = L.Packed(L.PackedFlatten(), L.PackedDense(weights(rng, 5, 24)), input_shape=(2, 4, 3))
    check(packed, rng.integers(0, 256, (6, 2, 4, 3), np.uint8), path)


def test_bits_at_the_end_are_plus_and_minus_one(path, rng):
    packed = L.Packed(L.PackedConv2D(weights(rng, 5, 2, 2, 3), 1), input_shape=(4, 4, 3))
    check(packed, rng.integers(0, 256, (2, 4, 4, 3), np.uint8), path)


@pytest.mark.parametrize("padding", [1, "same"])
def test_images_of_any_size(padding, path, rng):
    packed = L.Packed(
        L.PackedConv2D(weights(rng, 5, 3, 3, 2), 0, padding=padding),
        L.PackedGlobalAvgPool2D(),
        L.PackedDense(weights(rng, 3, 5)),
    )
    to_onnx(packed, path)
    for size in (3, 6):
        x = rng.integers(0, 256, (2, size, 5, 2), np.uint8)
        assert_same(by_reference(path, x.astype(np.float32)), packed(x))


# The file


def test_the_file_can_be_read(path, rng):
    """Names of layers and shapes for viewers, weights of a byte each, notes, and an open batch."""
    packed = L.Packed(
        L.PackedConv2D(weights(rng, 5, 2, 2, 3), 0),
        L.PackedResidual([L.PackedConv2D(weights(rng, 5, 1, 1, 5), 0)]),
        input_shape=(4, 4, 3),
        notes={"pixels": "0 to 255"},
    )
    to_onnx(packed, path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) and all(names)
    assert "1.PackedResidual.body.0.PackedConv2D.Conv" in names
    described = {info.name for info in model.graph.value_info}
    assert {name for node in model.graph.node for name in node.output} - {"output"} <= described
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert stored["0.PackedConv2D.weight"].data_type == onnx.TensorProto.INT8
    assert {entry.key: entry.value for entry in model.metadata_props} == packed.notes
    (given,) = model.graph.input
    sizes = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert sizes == ["n", 4, 4, 3]


def test_the_same_network_gives_the_same_bytes(path, rng):
    packed, _ = frozen("binarynet", {}, rng)
    to_onnx(packed, path)
    first = path.read_bytes()
    to_onnx(packed, path)
    assert path.read_bytes() == first


def test_qonnx_names_its_operators(path, rng):
    packed, _ = frozen("mlp", {}, rng)
    to_onnx(packed, path, qonnx=True)
    used = {(node.domain, node.op_type) for node in onnx.load(path).graph.node}
    assert {(QONNX, "BipolarQuant"), (QONNX, "MultiThreshold")} <= used
    assert ("", "Where") not in used


def test_the_command_writes_it(path, tmp_path, rng, capsys):
    packed, x = frozen("mlp", {}, rng)
    packed.save(tmp_path / "mlp.safetensors")
    assert cli.main(["export", str(tmp_path / "mlp.safetensors"), "-o", str(path)]) == 0
    assert f"net.onnx, {path.stat().st_size:,} bytes" in capsys.readouterr().out
    assert_same(by_reference(path, x.astype(np.float32)), packed(x))
    before = path.read_bytes()
    argv = ["export", str(tmp_path / "mlp.safetensors"), "-o", str(path), "--qonnx"]
    assert cli.main(argv) == 0 and path.read_bytes() != before
    assert "are for C" in failure(capsys, *argv, "--name", "a")


# Refusals


def test_layers_of_other_programs_are_refused_before_anything_is_written(path, rng):
    @register
    class PackedCube(L.Layer):
        def forward(self, x):
            return L.as_float(x) ** 3

    path.write_bytes(b"before")
    inner = L.PackedResidual([PackedCube()])
    for layer, name in ((PackedCube(), "1.PackedCube"), (inner, "1.body.0.PackedCube")):
        packed = L.Packed(L.PackedDense(weights(rng, 4, 4)), layer)
        with pytest.raises(ConversionError, match=rf"\[to_onnx\] layer {name} has no form in ONNX"):
            to_onnx(packed, path)
    assert path.read_bytes() == b"before"
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]


def test_sums_that_float32_cannot_hold_are_refused(path, rng):
    packed = L.Packed(L.PackedDense(weights(rng, 1, 2**17), input_bits=8))
    with pytest.raises(ConversionError, match=r"0\.PackedDense: its sums may exceed 2\^24"):
        to_onnx(packed, path)
    assert not path.exists()


def test_same_padding_with_a_stride_needs_the_size(path, rng):
    packed = L.Packed(L.PackedConv2D(weights(rng, 5, 3, 3, 2), 0, padding="same", stride=2))
    with pytest.raises(ConversionError, match="needs the input_shape"):
        to_onnx(packed, path)


def test_only_packed_networks_are_written(path):
    with pytest.raises(TypeError, match=r"\[to_onnx\] packed must be a Packed, got Sequential"):
        to_onnx(L.Sequential(L.BinaryDense(3, 4)), path)
    with pytest.raises(ConversionError, match="must take images"):
        to_onnx(L.Packed(L.PackedReLU(), input_shape=(2, 3, 4, 5)), path)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Round",)], "must follow a Clip"),
        ([("ReduceSum", np.array([1]))], "only the results of comparisons"),
        ([("Unsqueeze", np.array([-1])), ("GreaterOrEqual", [0, 1])], "must be counted"),
        ([("Unsqueeze", np.array([-1])), ("Less", [0, 1])], "must be compared by x >= t"),
    ],
)
def test_nodes_of_activations_that_are_no_such(nodes, message, rng):
    """Round, ReduceSum and comparisons with several thresholds elsewhere."""
    net = random_onnx.Network(rng, (20,))
    for op, *constants in nodes:
        net.then(op, *(np.float32(c) if isinstance(c, list) else c for c in constants))
    with pytest.raises(ConversionError, match=message):
        from_onnx(net.model().SerializeToString())


def scaled_convolution(rng, *, mean=1 / 4, term=0.0, limit=0.0):
    """The graph that `to_onnx` writes for a convolution that scales its input, or almost."""
    net = random_onnx.Network(rng, (3, 5, 5))
    above = net.add("GreaterOrEqual", "input", net.constant(np.float32(limit)))
    net.add("Where", above, net.constant(np.float32(1)), net.constant(np.float32(-1)))
    net.then("Conv", net.signs(4, 3, 2, 2))
    z = net.then("Add", np.float32(term))
    net.add("Abs", "input")
    net.add("ReduceMean", net.last, axes=[1], keepdims=1)
    scales = net.then("Conv", np.full((1, 1, 2, 2), mean, np.float32))
    net.add("Mul", scales, z)
    return net


@pytest.mark.parametrize("change", [{"mean": 0.3}, {"term": 1.0}, {"limit": 0.5}])
def test_products_that_are_no_scaled_convolutions(change, rng):
    model = scaled_convolution(rng).model().SerializeToString()
    assert from_onnx(model).layers[0].scale_input
    model = scaled_convolution(rng, **change).model().SerializeToString()
    with pytest.raises(ConversionError, match="product with mean magnitudes is supported only"):
        from_onnx(model)


def test_magnitudes_elsewhere_are_refused(rng):
    net = random_onnx.Network(rng, (20,))
    net.then("Abs")
    with pytest.raises(ConversionError, match="Abs node 'n0': it is supported only in the input"):
        from_onnx(net.model().SerializeToString())
