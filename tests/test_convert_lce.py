"""Networks from files of Larq Compute Engine: the scores of its interpreter, refusals, damage."""

import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bitops import layers as L
from bitops.cli import main as cli
from bitops.convert import ConversionError, check, from_lce
from commands import failure
from conftest import SEED

pytest.importorskip("flatbuffers", reason="needs flatbuffers")

from lce_writer import FLOAT32, INT8, INT32, VALID, Writer, binary_conv

FILES = sorted((Path(__file__).parent / "lce_files").glob("*.tflite"))
SMALL = [path for path in FILES if path.stat().st_size < 5000]
CHANGED = 3000


def golden(path):
    with np.load(path.with_suffix(".npz")) as arrays:
        return arrays["x"], arrays["scores"]


def file_of(name):
    return next(path for path in FILES if path.stem == name)


# The scores of the interpreter, which are stored beside the files


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scores_of_the_interpreter(path):
    x, scores = golden(path)
    net = from_lce(path)
    report = check(net, scores, x)
    assert report.ok, report
    remarks = net.notes.pop("remarks", "")
    assert remarks.count("larger than the image") == (3 if path.stem == "wide_windows" else 0)
    assert net.notes == {"source": f"LCE file {path.name}"} and net.input_shape == x.shape[1:]


def test_bits_are_equal():
    x, scores = golden(file_of("bits_out"))
    assert set(np.unique(scores)) == {-1, 1}
    np.testing.assert_array_equal(np.asarray(from_lce(file_of("bits_out"))(x)), scores)


def kinds(layers):
    """All layers, those of branches too."""
    for layer in layers:
        yield layer
        for branch in layer.branches().values():
            yield from kinds(branch)


@pytest.mark.parametrize(
    ("name", "binary", "real"), [("quicknet", 6, 6), ("bitpacked", 4, 0), ("rows", 2, 1)]
)
def test_binary_layers_are_packed(name, binary, real):
    """+-1 weights are packed, also where BatchNorm was folded into them."""
    layers = list(kinds(from_lce(file_of(name)).layers))
    assert sum(isinstance(layer, L.PackedConv2D | L.PackedDense) for layer in layers) == binary
    assert sum(isinstance(layer, L.FloatConv2D | L.FloatDense) for layer in layers) == real


def test_a_logistic_is_a_sigmoid():
    layers = list(kinds(from_lce(file_of("gates")).layers))
    assert sum(isinstance(layer, L.PackedSigmoid) for layer in layers) == 1
    assert not any(isinstance(layer, L.PackedTanh) for layer in layers)


def test_bytes_are_read_as_well():
    path = file_of("groups")
    x, _ = golden(path)
    net = from_lce(path.read_bytes())
    np.testing.assert_array_equal(net(x), from_lce(str(path))(x))
    assert net.notes == {"source": "LCE file bytes"}


def test_import_writes_the_model(tmp_path, capsys):
    path = file_of("quicknet")
    x, scores = golden(path)
    np.savez(tmp_path / "x.npz", x=x, scores=scores)
    model = tmp_path / "net.safetensors"
    assert (
        cli.main(["import", str(path), "--check", str(tmp_path / "x.npz"), "-o", str(model)]) == 0
    )
    out = capsys.readouterr().out
    assert "equal: 6 of 6 labels" in out and "source: LCE file quicknet.tflite" in out
    np.testing.assert_array_equal(L.Packed.load(model)(x), from_lce(path)(x))


PACKAGE = "larq_compute_engine"


@pytest.fixture
def interpreter(monkeypatch):
    """A module in place of the interpreter's; its class is to be set."""
    for name in (PACKAGE, f"{PACKAGE}.tflite", f"{PACKAGE}.tflite.python"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = types.ModuleType(f"{PACKAGE}.tflite.python.interpreter")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_interpreter_runs_the_source(interpreter):
    """It gets the bytes of the file, and float32 examples."""
    path = file_of("quicknet")
    x, scores = golden(path)
    calls = []

    class Interpreter:
        def __init__(self, content):
            calls.append(content)

        def predict(self, x):
            calls.append(x)
            return scores

    interpreter.Interpreter = Interpreter
    report = check(from_lce(path), path, x.astype(np.float64))
    assert report.ok and report.compared_with == "larq-compute-engine on quicknet.tflite"
    assert calls[0] == path.read_bytes() and calls[1].dtype == np.float32


def test_an_interpreter_that_cannot_run(interpreter):
    def fail(content):
        raise RuntimeError("Expected 2304 bytes but got 0")

    interpreter.Interpreter = fail
    path = file_of("rows")
    with pytest.raises(ConversionError, match=r"but got 0; its version 0\.16 needs NumPy 1"):
        check(from_lce(path), path, golden(path)[0])


def test_what_the_interpreter_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    path = file_of("rows")
    with pytest.raises(ImportError, match="needs larq-compute-engine and tensorflow"):
        check(from_lce(path), path, golden(path)[0])


def test_what_the_reader_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match="pip install flatbuffers"):
        from_lce(file_of("rows"))


# What the converter of Larq Compute Engine does not write, but its interpreter takes


def words(rng, *shape):
    """Words of bits, and the +-1 that they stand for: 1 is -1, the first channel the lowest bit."""
    bits = rng.integers(0, 2, shape)
    padded = np.zeros((*shape[:-1], -(-shape[-1] // 32) * 32), np.uint8)
    padded[..., : shape[-1]] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<i4"), 1 - 2 * bits


@pytest.mark.parametrize("channels", [1, 8, 31, 32, 33, 64, 70])
def test_polarity_of_words(rng, channels):
    file = Writer((1, 1, 1, channels))
    packed, w = words(rng, 5, 1, 1, channels)
    x = file.quantized()
    ones, zeros = (file.constant(np.full(5, value, np.float32)) for value in (1, 0))
    options = binary_conv(channels, padding=VALID)
    file.then("LceBconv2d", (x, file.constant(packed), ones, zeros, -1), (1, 1, 1, 5), **options)
    given = rng.standard_normal((3, 1, 1, channels)).astype(np.float32)
    given[0, 0, 0, 0] = -0.0  # is +1
    signs = np.where(given >= 0, 1, -1).reshape(3, channels)
    np.testing.assert_array_equal(
        from_lce(file.content())(given).reshape(3, 5), signs @ w.reshape(5, channels).T
    )


def test_thresholds_beyond_all_sums(rng):
    """More different bits than the threshold give -1."""
    file = Writer((1, 1, 1, 8))
    packed, w = words(rng, 7, 1, 1, 8)
    thresholds = np.array([-(2**31), -1, 0, 3, 7, 8, 2**31 - 1], np.int32)
    x = file.quantized()
    inputs = (x, file.constant(packed), -1, -1, file.constant(thresholds))
    x = file.then("LceBconv2d", inputs, (1, 1, 1, 1), **binary_conv(8), kind=INT32)
    file.then("LceDequantize", (x,), (1, 1, 1, 7))
    given = np.concatenate([rng.choice([-1, 1], (40, 8)), w[:, 0, 0], -w[:, 0, 0]])
    different = (8 - given @ w[:, 0, 0].T) // 2
    wanted = np.where(different > thresholds, -1, 1)
    made = from_lce(file.content())(given.reshape(-1, 1, 1, 8).astype(np.float32))
    np.testing.assert_array_equal(np.asarray(made).reshape(wanted.shape), wanted)


def same_products(signs, w, stride, dilation, pad_value):
    """The products of SAME padding, pixel by pixel."""
    (height, width), (kh, kw) = signs.shape[1:3], w.shape[1:3]
    out_height, out_width = -(-height // stride), -(-width // stride)
    top = max((out_height - 1) * stride + (kh - 1) * dilation + 1 - height, 0) // 2
    left = max((out_width - 1) * stride + (kw - 1) * dilation + 1 - width, 0) // 2
    y = np.zeros((len(signs), out_height, out_width, len(w)))
    for i, j, u, v in np.ndindex(out_height, out_width, kh, kw):
        row, column = i * stride - top + u * dilation, j * stride - left + v * dilation
        inside = 0 <= row < height and 0 <= column < width
        pixel = signs[:, row, column] if inside else np.full_like(signs[:, 0, 0], pad_value)
        y[:, i, j] += pixel @ w[:, u, v].T
    return y


@pytest.mark.parametrize("image", [(1, 1), (2, 3), (3, 2), (4, 5)])
@pytest.mark.parametrize("pad_value", [0, 1])
def test_padding_of_windows_of_all_sizes(rng, image, pad_value):
    """Also where they are even, dilated, or larger than the image, and of an odd number of bits."""
    for kernel, stride, dilation in np.ndindex(5, 2, 2):
        kernel, stride, dilation = kernel + 1, stride + 1, dilation + 1
        file = Writer((1, *image, 7))
        packed, w = words(rng, 3, kernel, kernel, 7)
        ones, zeros = (file.constant(np.full(3, value, np.float32)) for value in (1, 0))
        inputs = (file.quantized(), file.constant(packed), ones, zeros, -1)
        steps = {"stride_height": stride, "stride_width": stride}
        dilations = {"dilation_height_factor": dilation, "dilation_width_factor": dilation}
        options = binary_conv(7, pad_values=pad_value, **steps, **dilations)
        signs = rng.choice([-1, 1], (2, *image, 7))
        wanted = same_products(signs, w, stride, dilation, pad_value)
        file.then("LceBconv2d", inputs, (1, *wanted.shape[1:]), **options)
        net = from_lce(file.content())
        np.testing.assert_array_equal(net(signs.astype(np.float32)), wanted)
        is_wide = (kernel - 1) * dilation + 1 > min(image)
        assert ("remarks" in net.notes) == (is_wide and pad_value == 0)


def test_the_sign_of_a_padded_sum_of_zero():
    """It is +1, as in the reference kernel. The usual one gives -1.2e-7 at the left, and so -1."""
    file = Writer((1, 1, 3, 2))
    packed = file.constant(np.array([0, 1, 2], np.int32).reshape(1, 1, 3, 1))  # ++, -+, +-
    scale, bias = (file.constant(np.float32([value])) for value in (0.7, 0))
    inputs = (file.quantized(), packed, scale, bias, -1)
    x = file.then("LceBconv2d", inputs, (1, 1, 3, 1), **binary_conv(2, pad_values=0))
    x = file.then("LceQuantize", (x,), (1, 1, 3, 1), kind=INT32)
    file.then("LceDequantize", (x,), (1, 1, 3, 1))
    signs = from_lce(file.content())(np.float32([[[[1, -1], [1, -1], [1, 1]]]]))
    np.testing.assert_array_equal(np.asarray(signs).ravel(), [1, -1, 1])


def test_activations_come_before_the_multiplier(rng):
    file = Writer((1, 1, 1, 16))
    packed, w = words(rng, 6, 1, 1, 16)
    multiplier = rng.uniform(-2, 2, 6).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    inputs = (file.quantized(), file.constant(packed), file.constant(multiplier))
    options = binary_conv(16, fused_activation_function=1, padding=VALID)
    file.then("LceBconv2d", (*inputs, file.constant(bias), -1), (1, 1, 1, 6), **options)
    given = rng.standard_normal((20, 1, 1, 16)).astype(np.float32)
    dot = np.where(given >= 0, 1, -1).reshape(20, 16) @ w[:, 0, 0].T
    made = from_lce(file.content())(given).reshape(20, 6)
    np.testing.assert_allclose(made, np.maximum(dot, 0) * multiplier + bias, rtol=1e-5, atol=1e-5)


# Refusals


def bconv(**changes):
    """A file of one binary convolution with some of its options changed; None leaves one out."""
    file = Writer()
    options = binary_conv(8) | changes
    kind = options.pop("kind", FLOAT32)
    filters = options.pop("filters", (4, 3, 3, 1))
    x = file.quantized() if options.pop("bits", True) else 0
    w = file.constant(np.zeros(filters, np.int32))
    floats = [file.constant(np.ones(options.pop("length", 4), np.float32)) for _ in range(2)]
    options = {name: value for name, value in options.items() if value is not None}
    x = file.then("LceBconv2d", (x, w, *floats, -1), (1, 4, 4, 4), **options, kind=kind)
    file.then("RELU", (x,), (1, 4, 4, 4))
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": False}, "its input must be bits"),
        ({"channels_in": 9}, "must have 9 channels .* got 8"),
        ({"channels_in": None}, "its option channels_in must be an integer >= 1, got None"),
        ({"filters": (4, 3, 3, 2)}, "filters of 2 words do not fit 8 channels"),
        ({"filters": (4, 3, 1)}, "weights must have four axes"),
        ({"kind": INT8}, "8-bit numbers are not supported"),
        ({"kind": INT32}, "its input 4 is missing"),
        ({"length": 5}, "does not fit 4 features"),
        ({"pad_values": 2}, "padded with 0 or 1, got 8 and 2"),
        ({"padding": 7}, "must be SAME or VALID"),
        ({"stride_width": 0}, "stride_width must be an integer >= 1, got 0"),
        ({"dilation_height_factor": 2**31 - 1}, "is too large"),
        ({"fused_activation_function": 5}, "activation 5 is not supported"),
        ({"filters": (4, 9, 9, 1), "padding": VALID}, "window is larger than the image"),
    ],
)
def test_refused_convolutions(changes, message):
    with pytest.raises(ConversionError, match=rf"LceBconv2d node 't\d+': .*{message}"):
        from_lce(bconv(**changes).content())


def one(op, *constants, options=(), shape=(1, 4, 4, 8), **given):
    file = Writer(**given)
    inputs = [0, *(file.constant(value) for value in constants)]
    file.then(op, inputs, shape, options)
    return file


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (one("LceSomething"), "LceSomething node 't1': the operator is not supported"),
        (one("ELU"), "ELU node 't1': the operator is not supported"),
        (one("ATAN2"), "operator 156 node 't1': the operator is not supported"),
        (one("LceDequantize"), "its input must be bits"),
        (one("CONV_2D", np.ones((2, 1, 1, 8), np.float32)), "its option stride_height must be"),
        (one("ADD", options=(9,)), "its input 1 is missing"),
        (one("ADD", np.float32(1), options=(9,)), "its activation 9 is not supported"),
        (one("MUL", np.float32([1, 2, 3])), "does not fit 8 features"),
        (one("MUL", np.float32("nan")), "constant 't1' must be finite"),
        (one("AVERAGE_POOL_2D", options=(0, 2, 2, 3, 3, 0)), "padding that does not count"),
        (one("FULLY_CONNECTED", np.ones((2, 8), np.float32), options=(0, 0)), "take 8 features"),
        (one("RELU", type=INT8), "must be float32, got 't0' of int8; .* quantized to 8 bits"),
        (one("RELU", shape=(1, 2, 3), version=2), "must be of version 3"),
        (one("RELU", shape=(1, 4, 4)).content((1, 0)), "one output, got 1 and 2"),
        (one("PAD", np.int32([0, 1])), "its paddings must be pairs"),
        (one("PAD", np.int32([[0, 0], [0, 2**30], [0, 0], [0, 0]])), "is too large"),
        (Writer((1, 2**20, 2**20, 3)).content((0,)), "1 to 10000 operators"),
        (one("RELU", shape=(1, 2, 3)).content((7,)), "has 2 tensors, but names 7"),
    ],
)
def test_refusals(file, message):
    with pytest.raises(ConversionError, match=message):
        from_lce(file if isinstance(file, bytes) else file.content())


def test_giant_images_are_refused():
    file = Writer((1, 2**20, 2**20, 3))
    file.then("RELU", (0,), (1, 4))
    with pytest.raises(ConversionError, match="is too large"):
        from_lce(file.content())


def test_operators_that_wait_for_each_other():
    file = Writer()
    file.operators += [("ADD", (0, 2), (1,), ()), ("RELU", (1,), (2,), ())]
    file.tensor(file.shape), file.tensor(file.shape)
    with pytest.raises(ConversionError, match="ADD node 't1': its input 1 must be constant"):
        from_lce(file.content())


def test_branches_that_double_are_refused():
    """Each pair of sums computes all before it twice, if branches are written out."""
    file = Writer()
    a, b = (file.then("RELU", (0,), file.shape) for _ in range(2))
    for _ in range(40):
        a, b = (file.then("ADD", pair, file.shape) for pair in ((a, b), (b, a)))
    with pytest.raises(ConversionError, match="too many steps"):
        from_lce(file.content())


def test_deep_branches_are_refused():
    file = Writer()
    x = file.then("RELU", (0,), file.shape)
    for _ in range(2000):
        x = file.then("ADD", (x, 0), file.shape)
    with pytest.raises(ConversionError, match="lie too deep"):
        from_lce(file.content())


@pytest.mark.parametrize(
    "options", [b"", b"\0", b"\xff" * 40, bytes(range(60)), b"ab\0\x02\x28\x01"]
)
def test_wrong_flexbuffers(options):
    file = Writer()
    file.then("LceBMaxPool2d", (file.quantized(),), (1, 2, 2, 1), options, kind=INT32)
    file.then("LceDequantize", (2,), (1, 2, 2, 8))
    with pytest.raises(ConversionError, match=r"custom operator are damaged|must be an integer"):
        from_lce(file.content())


def test_files_of_other_kinds(tmp_path):
    for content in (b"", b"TFL3", b"\0\0\0\0TFL2" + bytes(40), b"\x89HDF" + bytes(100)):
        with pytest.raises(ConversionError, match="must be a flatbuffer of TFLite, version 3"):
            from_lce(content)
    with pytest.raises(FileNotFoundError):
        from_lce(tmp_path / "missing.tflite")
    with pytest.raises(IsADirectoryError):
        from_lce(tmp_path)


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_cut_files(path):
    content = path.read_bytes()
    for end in range(0, len(content), 1 + len(content) // 200):
        with pytest.raises(ConversionError):
            from_lce(content[:end])


def change(rng, content):
    """A change as accidents and forgers make them: bits, bytes, offsets and lengths."""
    content = bytearray(content)
    place = rng.randrange(len(content) - 4)
    match rng.randrange(5):
        case 0:
            content[place] = rng.choice((0, 1, 127, 128, 255))
        case 1:
            content[place] ^= 1 << rng.randrange(8)
        case 2:
            value = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(len(content))))
            content[place & ~3 : (place & ~3) + 4] = value.to_bytes(4, "little")
        case 3:
            del content[place : place + rng.randrange(1, 9)]
        case 4:
            content[place:place] = rng.randbytes(rng.randrange(1, 9))
    return bytes(content)


def test_changed_files():
    """A network or a ConversionError comes of every file, never anything else."""
    print(f"seed: {SEED}")
    rng = random.Random(f"{SEED} lce")
    contents = [path.read_bytes() for path in SMALL]
    made = 0
    for _ in range(CHANGED):
        content = rng.choice(contents)
        for _ in range(rng.choice((1, 1, 2, 4))):
            content = change(rng, content)
        try:
            made += isinstance(from_lce(content), L.Packed)
        except ConversionError:
            continue
        except BaseException:
            print(f"input: bytes.fromhex({content.hex()!r})")
            raise
    assert 100 < made < CHANGED  # both happened


def test_import_says_what_is_wrong(tmp_path, capsys):
    path = tmp_path / "net.tflite"
    path.write_bytes(one("ELU").content())
    assert "ELU node 't1'" in failure(capsys, "import", str(path))
