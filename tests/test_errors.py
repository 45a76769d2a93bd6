"""Bad calls: the type of the exception, and a message `[function] rule, value got`."""

import re
import subprocess
import sys

import numpy as np
import pytest

import bitops as bo
from conftest import no_sanitizer

A = np.ones((3, 70))  # 3 rows
W = np.ones((5, 70))  # 5 filters of the same k
NAN = np.where(np.arange(70) == 69, np.nan, np.ones((5, 70)))
PACKED = bo.pack(A)
COLUMNS = bo.pack(A, axis=0)
OCTETS = np.array([1, 255], np.uint8)
from_packbits = bo.BitArray.from_packbits
PANELS = bo.prepack(W)
X = np.ones((2, 6, 5, 8))  # 2 images of 6 x 5 with 8 channels
F = np.ones((4, 3, 3, 8))  # 4 filters
NAN_IMAGE = np.where(np.arange(8) == 7, np.nan, X)

NOT_REAL = {
    "complex": np.ones((5, 70), np.complex64),
    "object": np.ones((5, 70), object),
    "str": np.full((5, 70), "1"),
    "bytes": np.full((5, 70), b"1"),
    "datetime": np.zeros((5, 70), "datetime64[s]"),
    "timedelta": np.zeros((5, 70), "timedelta64[s]"),
    "record": np.zeros((5, 70), [("x", "f4")]),
    "void": np.zeros((5, 70), "V4"),
    "None": None,
    "text": "abc",
    "dict": {},
    "set": {1, 2},
}


def out(*shape, dtype=np.int32):
    return np.zeros(shape, dtype)


def read_only(*shape):
    array = out(*shape)
    array.flags.writeable = False
    return array


def bad_windows(call):
    """Settings that no convolution takes; `call` takes them by name."""
    return (
        ("stride 0", lambda: call(stride=0), ValueError, "stride.*at least 1.*0"),
        ("stride negative", lambda: call(stride=(1, -2)), ValueError, "stride.*at least 1.*-2"),
        ("stride a float", lambda: call(stride=1.0), TypeError, "stride.*integer.*1.0"),
        ("stride a bool", lambda: call(stride=True), TypeError, "stride.*integer.*True"),
        ("three strides", lambda: call(stride=(1, 1, 1)), TypeError, "stride.*pair"),
        ("dilation 0", lambda: call(dilation=0), ValueError, "dilation.*at least 1.*0"),
        ("padding negative", lambda: call(padding=-1), ValueError, "padding.*at least 0.*-1"),
        ("padding unknown", lambda: call(padding="full"), ValueError, "same.*valid.*full"),
        ("padding of three", lambda: call(padding=(1, 2, 3)), TypeError, "padding.*pair"),
        ("padding mixed", lambda: call(padding=((1, 2), 3)), TypeError, "padding"),
        ("kernel too large", lambda: call(dilation=3), ValueError, "kernel.*fit.*height 7.* 6"),
        ("padding overflow", lambda: call(padding=2**31), ValueError, "padding.*at most"),
        ("image overflow", lambda: call(padding=2**31 - 1), ValueError, "padded.*at most"),
        ("kernel overflow", lambda: call(dilation=2**31 - 1), ValueError, "kernel.*at most"),
        ("result overflow", lambda: call(padding=2**30 - 9), ValueError, "result.*elements"),
    )


def bad_convolutions(call):
    """Operands and settings that no binary convolution takes; call(x, w, **settings)."""
    return (
        *bad_windows(lambda **settings: call(X, F, **settings)),
        ("x of 3 axes", lambda: call(X[0], F), ValueError, r"x.*\(n, h, w, c\).*\(6, 5, 8\)"),
        ("w of 3 axes", lambda: call(X, F[0]), ValueError, r"w.*\(o, kh, kw, i\).*\(3, 3, 8\)"),
        ("kernel of 0", lambda: call(X, F[:, :0]), ValueError, "kh and kw must be at least 1"),
        ("a prepacked matrix", lambda: call(X, PANELS), ValueError, r"w.*got \(5, 70\)"),
        ("x prepacked", lambda: call(bo.prepack(F), F), TypeError, "x.*Prepacked"),
        ("x packed along w", lambda: call(bo.pack(X, 2), F), ValueError, "axis 3.*axis 2"),
        ("w packed along o", lambda: call(X, bo.pack(F, 0)), ValueError, "axis 3.*axis 0"),
        ("other channels", lambda: call(X, F[..., :7]), ValueError, "8 channels, got 7"),
        ("groups 3", lambda: call(X, F, groups=3), ValueError, "divisible by groups.*8, 4 and 3"),
        ("groups of filters", lambda: call(X, F[:3, ..., :4], groups=2), ValueError, "divisible"),
        ("groups and channels", lambda: call(X, F, groups=2), ValueError, "4 channels, got 8"),
        ("groups 0", lambda: call(X, F, groups=0), ValueError, "groups.*at least 1.*0"),
        ("groups a float", lambda: call(X, F, groups=1.0), TypeError, "groups.*integer.*1.0"),
        ("pad_value", lambda: call(X, F, pad_value=2), ValueError, "pad_value.*2"),
        ("pad_value of a text", lambda: call(X, F, pad_value="0"), ValueError, "pad_value.*'0'"),
        ("NaN in x", lambda: call(NAN_IMAGE, F), ValueError, "x.*NaN"),
        ("NaN in w", lambda: call(X, F * np.nan), ValueError, "w.*NaN"),
        ("x complex", lambda: call(X.astype(complex), F), TypeError, "x.*complex"),
        ("w of text", lambda: call(X, F.astype(str)), TypeError, "w.*<U"),
    )


# function -> (what is wrong, call, exception, words of the rule)
BAD_CALLS = {
    "im2col": (
        *bad_windows(lambda **settings: bo.im2col(X, 3, **settings)),
        ("kernel of 0", lambda: bo.im2col(X, 0), ValueError, "kernel_size.*at least 1.*0"),
        ("kernel of text", lambda: bo.im2col(X, "3"), TypeError, "kernel_size.*'3'"),
        ("kernel None", lambda: bo.im2col(X, None), TypeError, "kernel_size.*None"),
        ("pad_value 0", lambda: bo.im2col(X, 3, pad_value=0), ValueError, "pad_value.*-1 or 1.*0"),
        ("x of 2 axes", lambda: bo.im2col(A, 3), ValueError, "x must have shape"),
        ("x packed along h", lambda: bo.im2col(bo.pack(X, 1), 3), ValueError, "axis 3.*axis 1"),
    ),
    "conv2d": (
        *bad_convolutions(bo.conv2d),
        (
            "alpha of channels",
            lambda: bo.conv2d(X, F, alpha=np.ones(8)),
            ValueError,
            r"alpha.*\(4,\), got \(8,\)",
        ),
        (
            "k_map of the input",
            lambda: bo.conv2d(X, F, k_map=np.ones((2, 6, 5))),
            ValueError,
            r"k_map.*\(2, 4, 3\), got \(2, 6, 5\)",
        ),
        ("bias complex", lambda: bo.conv2d(X, F, bias=1j), TypeError, "bias.*complex"),
        ("out float", lambda: bo.conv2d(X, F, out=out(2, 4, 3, 4, dtype="f4")), TypeError, "int32"),
        (
            "out of another shape",
            lambda: bo.conv2d(X, F, out=out(2, 6, 5, 4)),
            ValueError,
            r"out.*\(2, 4, 3, 4\), got \(2, 6, 5, 4\)",
        ),
        ("out read-only", lambda: bo.conv2d(X, F, out=read_only(2, 4, 3, 4)), ValueError, "read-o"),
        ("out a list", lambda: bo.conv2d(X, F, out=[0]), TypeError, "out.*ndarray.*list"),
    ),
    "conv2d_sign": (
        *bad_convolutions(lambda x, w, **settings: bo.conv2d_sign(x, w, 0, **settings)),
        ("threshold real", lambda: bo.conv2d_sign(X, F, 0.5), TypeError, "threshold.*float"),
        (
            "thresholds of channels",
            lambda: bo.conv2d_sign(X, F, np.zeros(8, int)),
            ValueError,
            r"threshold.*\(4,\), got \(8,\)",
        ),
        ("flip of ints", lambda: bo.conv2d_sign(X, F, 0, flip=[1, 0, 1, 0]), TypeError, "flip.*b"),
        (
            "flip of channels",
            lambda: bo.conv2d_sign(X, F, 0, flip=np.ones(8, bool)),
            ValueError,
            r"flip.*\(4,\), got \(8,\)",
        ),
    ),
    "pack": (
        ("NaN", lambda: bo.pack(NAN), ValueError, "NaN"),
        ("NaN of float16", lambda: bo.pack(NAN.astype(np.float16)), ValueError, "NaN"),
        ("NaN of longdouble", lambda: bo.pack(NAN.astype(np.longdouble)), ValueError, "NaN"),
        ("NaN in a list", lambda: bo.pack([1.0, float("nan")]), ValueError, "NaN"),
        ("0-d", lambda: bo.pack(1.0), ValueError, "axis"),
        ("axis too large", lambda: bo.pack(A, 2), ValueError, "axis.*2"),
        ("axis too small", lambda: bo.pack(A, -3), ValueError, "axis.*-3"),
        ("axis of a float", lambda: bo.pack(A, 1.0), TypeError, "axis"),
        ("axis None", lambda: bo.pack(A, None), TypeError, "axis"),
        ("axis a tuple", lambda: bo.pack(A, (0, 1)), TypeError, "axis"),
        *((name, lambda x=x: bo.pack(x), TypeError, "x") for name, x in NOT_REAL.items()),
    ),
    "pack_above": (
        ("NaN", lambda: bo.pack_above(NAN, 0), ValueError, "x.*NaN"),
        ("NaN of threshold", lambda: bo.pack_above(A, np.nan), ValueError, "threshold.*NaN"),
        ("0-d", lambda: bo.pack_above(1.0, 0), ValueError, "axis"),
        ("text", lambda: bo.pack_above("abc", 0), TypeError, "x"),
        ("threshold of rows", lambda: bo.pack_above(A, np.zeros(3)), ValueError, r"70.*\(3,\)"),
        ("threshold of text", lambda: bo.pack_above(A, "a"), TypeError, "threshold"),
        ("flip of ints", lambda: bo.pack_above(A, 0, flip=np.ones(70, int)), TypeError, "flip"),
        ("flip of rows", lambda: bo.pack_above(A, 0, flip=[True] * 3), ValueError, r"flip.*\(3,\)"),
    ),
    "unpack": (
        ("uint8", lambda: bo.unpack(PACKED, dtype=np.uint8), TypeError, "dtype.*uint8"),
        ("uint64", lambda: bo.unpack(PACKED, dtype=np.uint64), TypeError, "dtype.*uint64"),
        ("complex", lambda: bo.unpack(PACKED, dtype=complex), TypeError, "dtype.*complex"),
        ("object", lambda: bo.unpack(PACKED, dtype=object), TypeError, "dtype.*object"),
        ("str", lambda: bo.unpack(PACKED, dtype="U1"), TypeError, "dtype"),
        ("an array", lambda: bo.unpack(A), TypeError, "BitArray.*ndarray"),
        ("words", lambda: bo.unpack(PACKED.words), TypeError, "BitArray.*ndarray"),
        ("None", lambda: bo.unpack(None), TypeError, "BitArray.*NoneType"),
    ),
    "popcount": (
        ("axis", lambda: bo.popcount(PACKED, 2), ValueError, "axis.*2"),
        ("axis of an array", lambda: bo.popcount(A, -3), ValueError, "axis.*-3"),
        ("axis of a float", lambda: bo.popcount(PACKED, 0.5), TypeError, "axis"),
        ("NaN", lambda: bo.popcount(NAN), ValueError, "NaN"),
        ("complex", lambda: bo.popcount(NOT_REAL["complex"]), TypeError, "complex"),
    ),
    "majority": (
        ("axis", lambda: bo.majority(PACKED, 2), ValueError, "axis.*2"),
        ("axis of a float", lambda: bo.majority(PACKED, 0.5), TypeError, "axis"),
        ("one axis", lambda: bo.majority(PACKED[0]), ValueError, r"two axes.*\(70,\)"),
        ("NaN", lambda: bo.majority(NAN), ValueError, "b.*NaN"),
        ("complex", lambda: bo.majority(NOT_REAL["complex"]), TypeError, "b.*complex"),
    ),
    "from_packbits": (
        ("a list", lambda: from_packbits([1, 2]), TypeError, "uint8.*int64"),
        ("int16", lambda: from_packbits(OCTETS.astype("i2")), TypeError, "uint8.*int16"),
        ("bits", lambda: from_packbits(PACKED), TypeError, "uint8.*int8"),
        ("masked", lambda: from_packbits(np.ma.array(OCTETS)), TypeError, "Masked"),
        ("a scalar", lambda: from_packbits(np.uint8(1)), ValueError, "axis.*scalar"),
        ("text", lambda: from_packbits("abc"), TypeError, "uint8.*<U3"),
        ("count of a float", lambda: from_packbits(OCTETS, 3.0), TypeError, "count.*3.0"),
        ("count too low", lambda: from_packbits(OCTETS, -17), ValueError, "count.*-16.*-17"),
        ("count too high", lambda: from_packbits(OCTETS, 2**31), ValueError, "count.*at most"),
        ("set bits", lambda: from_packbits(OCTETS, 15), ValueError, "element 14 must be 0"),
        ("set bytes", lambda: from_packbits(OCTETS, 8), ValueError, "element 7 must be 0"),
        ("bitorder", lambda: from_packbits(OCTETS, bitorder="b"), ValueError, "bitorder.*'b'"),
        ("bitorder 1", lambda: from_packbits(OCTETS, bitorder=1), TypeError, "bitorder.*1"),
    ),
    "to_packbits": (
        ("bitorder", lambda: PACKED.to_packbits(bitorder=""), ValueError, "bitorder.*''"),
        ("bitorder None", lambda: PACKED.to_packbits(bitorder=None), TypeError, "bitorder.*None"),
    ),
    "gemm": (
        ("k", lambda: bo.gemm(A, W[:, :69]), ValueError, "k.*70.*69"),
        ("k of the same words", lambda: bo.gemm(A[:, :65], W), ValueError, "k.*65.*70"),
        ("k packed", lambda: bo.gemm(PACKED, bo.pack(W[:, :64])), ValueError, "k.*70.*64"),
        ("k prepacked", lambda: bo.gemm(A[:, :66], PANELS), ValueError, "k.*66.*70"),
        ("k 0", lambda: bo.gemm(A[:, :0], W), ValueError, "k.*0.*70"),
        ("1-D a", lambda: bo.gemm(A[0], W), ValueError, r"a .*\(70,\)"),
        ("1-D w", lambda: bo.gemm(A, W[0]), ValueError, r"w .*\(70,\)"),
        ("0-d a", lambda: bo.gemm(1.0, W), ValueError, "a"),
        ("packed axis of a", lambda: bo.gemm(COLUMNS, COLUMNS), ValueError, "last axis"),
        ("packed axis of w", lambda: bo.gemm(PACKED, bo.pack(W, 0)), ValueError, "last axis"),
        ("a prepacked", lambda: bo.gemm(PANELS, W), TypeError, "a.*Prepacked"),
        ("NaN in a", lambda: bo.gemm(NAN, W), ValueError, "NaN"),
        ("NaN in w", lambda: bo.gemm(A, NAN), ValueError, "NaN"),
        *((f"a: {name}", lambda x=x: bo.gemm(x, W), TypeError, "") for name, x in NOT_REAL.items()),
        *((f"w: {name}", lambda x=x: bo.gemm(A, x), TypeError, "") for name, x in NOT_REAL.items()),
        ("batch", lambda: bo.gemm(np.ones((2, 3, 7)), np.ones((3, 5, 7))), ValueError, "2.*3"),
        ("batch of panels", lambda: bo.gemm(A, [W, W], out=out(3, 5)), ValueError, "out"),
        ("out shape", lambda: bo.gemm(A, W, out=out(5, 3)), ValueError, r"out.*\(3, 5\).*\(5, 3\)"),
        ("out larger", lambda: bo.gemm(A, W, out=out(4, 5)), ValueError, "out"),
        ("out of one row", lambda: bo.gemm(A, W, out=out(5)), ValueError, "out"),
        ("out batch", lambda: bo.gemm(A, W, out=out(1, 3, 5)), ValueError, "out"),
        ("out int64", lambda: bo.gemm(A, W, out=out(3, 5, dtype="i8")), TypeError, "out.*int32"),
        ("out uint32", lambda: bo.gemm(A, W, out=out(3, 5, dtype="u4")), TypeError, "out.*int32"),
        ("out bool", lambda: bo.gemm(A, W, out=out(3, 5, dtype="?")), TypeError, "out.*int32"),
        ("out float", lambda: bo.gemm(A, W, out=out(3, 5, dtype="f4")), TypeError, "out.*int32"),
        (
            "out int32 of a scaled product",
            lambda: bo.gemm(A, W, alpha=2, out=out(3, 5)),
            TypeError,
            "out.*float32.*int32",
        ),
        (
            "out float64",
            lambda: bo.gemm(A, W, bias=2, out=out(3, 5, dtype="f8")),
            TypeError,
            "out.*float32.*float64",
        ),
        ("out read-only", lambda: bo.gemm(A, W, out=read_only(3, 5)), ValueError, "out.*writ"),
        ("out a list", lambda: bo.gemm(A, W, out=[[0] * 5] * 3), TypeError, "out.*list"),
        ("out a BitArray", lambda: bo.gemm(A, W, out=bo.pack(out(3, 5))), TypeError, "out"),
        ("alpha large", lambda: bo.gemm(A, W, alpha=2**70), TypeError, "alpha.*integer of 71 bits"),
        ("a large", lambda: bo.gemm([[2**70]], [[1]]), TypeError, "a must.*integer of 71 bits"),
        ("alpha shape", lambda: bo.gemm(A, W, alpha=np.ones(3)), ValueError, "alpha.*5.*3"),
        ("alpha column", lambda: bo.gemm(A, W, alpha=np.ones((3, 1))), ValueError, "alpha"),
        ("alpha matrix", lambda: bo.gemm(A, W, alpha=np.ones((3, 5))), ValueError, "alpha"),
        ("bias shape", lambda: bo.gemm(A, W, bias=np.ones(6)), ValueError, "bias.*5.*6"),
        ("bias empty", lambda: bo.gemm(A, W, bias=[]), ValueError, "bias"),
        ("k_map shape", lambda: bo.gemm(A, W, k_map=np.ones(5)), ValueError, "k_map.*3.*5"),
        ("k_map batch", lambda: bo.gemm(A, W, k_map=np.ones((2, 3))), ValueError, "k_map"),
        ("k_map column", lambda: bo.gemm(A, W, k_map=np.ones((3, 1))), ValueError, "k_map"),
        ("alpha complex", lambda: bo.gemm(A, W, alpha=1j), TypeError, "alpha.*complex"),
        ("alpha text", lambda: bo.gemm(A, W, alpha="1"), TypeError, "alpha"),
        ("bias object", lambda: bo.gemm(A, W, bias=np.ones(5, object)), TypeError, "bias"),
        ("k_map complex", lambda: bo.gemm(A, W, k_map=np.ones(3, complex)), TypeError, "k_map"),
    ),
    "gemm_sign": (
        ("k", lambda: bo.gemm_sign(A, W[:, :69], 0), ValueError, "k.*70.*69"),
        ("1-D a", lambda: bo.gemm_sign(A[0], W, 0), ValueError, "a"),
        ("NaN", lambda: bo.gemm_sign(A, NAN, 0), ValueError, "NaN"),
        ("threshold float", lambda: bo.gemm_sign(A, W, 0.5), TypeError, "threshold.*float"),
        ("threshold large", lambda: bo.gemm_sign(A, W, 2**64), TypeError, "threshold.*of 65 bits"),
        ("threshold floats", lambda: bo.gemm_sign(A, W, np.ones(5)), TypeError, "threshold.*float"),
        ("threshold complex", lambda: bo.gemm_sign(A, W, 1j), TypeError, "threshold"),
        ("threshold None", lambda: bo.gemm_sign(A, W, None), TypeError, "threshold"),
        ("threshold text", lambda: bo.gemm_sign(A, W, "0"), TypeError, "threshold"),
        (
            "threshold shape",
            lambda: bo.gemm_sign(A, W, np.zeros(3, int)),
            ValueError,
            "threshold.*5.*3",
        ),
        (
            "threshold matrix",
            lambda: bo.gemm_sign(A, W, np.zeros((3, 5), int)),
            ValueError,
            "threshold",
        ),
        (
            "flip shape",
            lambda: bo.gemm_sign(A, W, 0, flip=np.ones(4, bool)),
            ValueError,
            "flip.*5.*4",
        ),
        ("flip ints", lambda: bo.gemm_sign(A, W, 0, flip=np.ones(5, int)), TypeError, "flip.*bool"),
        ("flip floats", lambda: bo.gemm_sign(A, W, 0, flip=np.ones(5)), TypeError, "flip.*bool"),
    ),
    "hamming": (
        ("k", lambda: bo.hamming(A, W[:, :69]), ValueError, "k.*70.*69"),
        ("1-D", lambda: bo.hamming(A, W[0]), ValueError, ""),
        ("NaN", lambda: bo.hamming(NAN, W), ValueError, "NaN"),
        ("dtype", lambda: bo.hamming(A, W, dtype=np.int64), TypeError, "dtype.*int64"),
        ("dtype uint8", lambda: bo.hamming(A, W, dtype=np.uint8), TypeError, "dtype.*uint8"),
        ("dtype float", lambda: bo.hamming(A, W, dtype=float), TypeError, "dtype.*float"),
        (
            "k over uint16",
            lambda: bo.hamming(np.ones((1, 65536)), np.ones((1, 65536)), dtype=np.uint16),
            ValueError,
            "65535.*65536",
        ),
        (
            "out dtype",
            lambda: bo.hamming(A, W, dtype=np.uint16, out=out(3, 5)),
            TypeError,
            "out.*uint16.*int32",
        ),
        ("out shape", lambda: bo.hamming(A, W, out=out(3, 4)), ValueError, "out"),
        ("out read-only", lambda: bo.hamming(A, W, out=read_only(3, 5)), ValueError, "out.*writ"),
    ),
    "matmul": (
        ("k", lambda: bo.matmul(A, W), ValueError, "70.*5"),
        ("k of vectors", lambda: bo.matmul(A[0], W[0, :5]), ValueError, "70.*5"),
        ("0-d", lambda: bo.matmul(A, 2.0), ValueError, ""),
        ("NaN", lambda: bo.matmul(A, NAN.T), ValueError, "NaN"),
        ("complex", lambda: bo.matmul(A, NOT_REAL["complex"].T), TypeError, "complex"),
        ("text", lambda: bo.matmul("abc", A), TypeError, ""),
        ("out shape", lambda: bo.matmul(A, W.T, out=out(5, 3)), ValueError, "out"),
        ("out of a row", lambda: bo.matmul(A, W[0], out=out(3, 1)), ValueError, "out"),
        ("out dtype", lambda: bo.matmul(A, W.T, out=out(3, 5, dtype="i8")), TypeError, "out"),
        ("out read-only", lambda: bo.matmul(A, W.T, out=read_only(3, 5)), ValueError, "out.*writ"),
    ),
    "prepack": (
        ("1-D", lambda: bo.prepack(W[0]), ValueError, r"\(70,\)"),
        ("3-D", lambda: bo.prepack(np.ones((2, 5, 70))), ValueError, r"\(2, 5, 70\)"),
        ("packed axis", lambda: bo.prepack(COLUMNS), ValueError, "last axis"),
        ("NaN", lambda: bo.prepack(NAN), ValueError, "NaN"),
        ("complex", lambda: bo.prepack(NOT_REAL["complex"]), TypeError, "complex"),
        ("twice", lambda: bo.prepack(PANELS), TypeError, "Prepacked"),
    ),
    "binarize_weights": (
        ("NaN", lambda: bo.binarize_weights(NAN), ValueError, "NaN"),
        ("0-d", lambda: bo.binarize_weights(1.0), ValueError, ""),
        ("complex", lambda: bo.binarize_weights(NOT_REAL["complex"]), TypeError, "complex"),
        ("1-D", lambda: bo.binarize_weights(A[0]), ValueError, r"\(70,\)"),
        ("text", lambda: bo.binarize_weights("abc"), TypeError, ""),
    ),
}
CASES = [
    pytest.param(function, call, error, rule, id=f"{function}: {what}")
    for function, cases in BAD_CALLS.items()
    for what, call, error, rule in cases
]


@pytest.mark.parametrize("function, call, error, rule", CASES)
def test_bad_call(function, call, error, rule):
    with pytest.raises(error) as info:
        call()
    message = str(info.value)
    assert re.fullmatch(rf"\[{function}\] .*got .+", message, re.DOTALL), message
    assert re.search(rule, message, re.DOTALL), message


def test_keyword_only():
    for call in (
        lambda: bo.gemm(A, W, 2.0),
        lambda: bo.gemm_sign(A, W, 0, True),
        lambda: bo.hamming(A, W, np.uint16),
        lambda: bo.matmul(A, W.T, out(3, 5)),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize(
    "call",
    (
        lambda o: bo.gemm(A, NAN, out=o),
        lambda o: bo.gemm(NAN, W, out=np.concatenate([o, o])[:5]),
        lambda o: bo.gemm(A, W[:, :69], out=o),
        lambda o: bo.gemm(A, W[:4], out=o),
        lambda o: bo.gemm(A, W, alpha=np.ones(4), out=o.view(np.float32)),
        lambda o: bo.gemm(A, W, alpha=1j, out=o.view(np.float32)),
        lambda o: bo.gemm(A, W, k_map=np.ones(4), out=o.view(np.float32)),
        lambda o: bo.gemm(A, W, bias=["x"] * 5, out=o.view(np.float32)),
        lambda o: bo.gemm(A, W, out=o.view(np.float32)),
        lambda o: bo.hamming(A, NAN, out=o),
        lambda o: bo.hamming(A, W, dtype=np.int16, out=o),
        lambda o: bo.hamming(np.ones((3, 70000)), np.ones((5, 70000)), dtype="u2", out=o),
        lambda o: bo.matmul(A, NAN.T, out=o),
        lambda o: bo.matmul(A, W, out=o),
    ),
)
def test_nothing_is_written(isa, call):
    """A call that fails leaves out as it was."""
    result = np.full((3, 5), 1234567, np.int32)
    with pytest.raises((ValueError, TypeError)):
        call(result)
    assert (result == 1234567).all()


def test_k_over_int32():
    """A dot product of more than 2**31 - 1 bits has no int32: refused, never wrapped round."""
    k = 2**31
    words = np.broadcast_to(np.uint64(0), (1, k // 64))
    b = bo.BitArray.from_words(words, (1, k))
    for call in (lambda: bo.gemm(b, b), lambda: bo.gemm_sign(b, b, 0), lambda: bo.hamming(b, b)):
        with pytest.raises(ValueError, match=r"^\[\w+\] .*got 2147483648"):
            call()


def test_results_too_large_for_memory():
    """Sizes over any address space raise before anything is computed."""
    rows = bo.BitArray.from_words(np.broadcast_to(np.uint64(0), (2**58, 1)), (2**58, 64))
    with pytest.raises((MemoryError, ValueError)):
        bo.gemm(rows, rows)
    with pytest.raises((MemoryError, ValueError)):
        bo.hamming(rows, rows)


@no_sanitizer
def test_a_result_too_large_is_refused_before_tables_of_its_size():
    """In an address space of 6 GiB, since such tables would take the memory of the machine."""
    pytest.importorskip("resource")
    code = (
        "import numpy as np, bitops as bo, resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"
        "x, f = np.ones((1, 2, 2, 8)), np.ones((1, 1, 1, 8))\n"
        "for w in (f, bo.prepack(f)):\n"
        "    try:\n"
        "        bo.conv2d(x, w, padding=2**30 - 9)\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.count("[conv2d] the result must have at most") == 2, result.stderr


RAGGED = [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize(
    "call",
    (
        lambda: bo.pack(RAGGED),
        lambda: bo.gemm(RAGGED, np.ones((1, 2))),
        lambda: bo.weight_gemm(RAGGED, np.ones((1, 2))),
        lambda: bo.pack_above(np.ones((1, 2)), RAGGED),
        lambda: bo.gemm(np.ones((1, 2)), np.ones((1, 2)), alpha=RAGGED),
        lambda: bo.gemm_sign(np.ones((1, 2)), np.ones((1, 2)), RAGGED),
        lambda: bo.matmul(np.ones((1, 2)), RAGGED),
        lambda: bo.conv2d(RAGGED, np.ones((1, 1, 1, 2))),
        lambda: bo.weight_conv2d(np.ones((1, 1, 1, 2)), RAGGED),
    ),
)
def test_lists_that_are_no_arrays(call):
    with pytest.raises(ValueError, match=r"^\[\w+\] \w+ must be an array, got list: .*shape"):
        call()


@pytest.mark.parametrize("dtype", ("nothing", 3, 1.5, np.ones(2), ["a"], bo.pack([1.0])))
def test_dtypes_that_are_none(dtype):
    with pytest.raises(TypeError, match=r"^\[unpack\] dtype must be a signed integer, float or "):
        bo.unpack(bo.pack([1.0]), dtype)
    with pytest.raises(TypeError, match=r"^\[hamming\] dtype must be a dtype, got"):
        bo.hamming(np.ones((1, 2)), np.ones((1, 2)), dtype=dtype)
