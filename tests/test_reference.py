"""The oracle itself, on numbers worked by hand."""

import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.signal import correlate

import bitops as bo
from bitops import reference as ref
from conftest import random_signs

# Two rows of a and three rows of w, k = 4. Dot products counted by eye:
# a0.w0 = +1+1-1-1 = 0, a0.w1 = 4 (same row), a0.w2 = -4 (opposite), and so on.
A = np.array([[1, -1, 1, -1], [1, 1, 1, 1]])
W = np.array([[1, -1, -1, 1], [1, -1, 1, -1], [-1, 1, -1, 1]])
DOT = np.array([[0, 4, -4], [0, 0, 0]], np.int32)


def test_sign_is_never_zero():
    x = [3.5, 0.0, -0.0, -1e-300, 1e-300, np.inf, -np.inf]
    got = ref.sign(x)
    assert got.dtype == np.int8
    assert got.tolist() == [1, 1, 1, -1, 1, 1, -1]
    assert ref.sign([True, False]).tolist() == [1, -1]
    with pytest.raises(ValueError, match="NaN"):
        ref.sign([1.0, np.nan])


def test_pack_bit_order():
    # Bits 0, 2 and 63 of the first word, bit 0 (element 64) of the second.
    x = -np.ones(66)
    x[[0, 2, 63, 64]] = 1
    words = ref.pack(x)
    assert words.dtype == np.uint64
    assert words.tolist() == [2**63 + 5, 1]
    assert_array_equal(ref.unpack(words, 66), x)


def test_pack_pads_with_zeros():
    assert ref.pack(np.ones(3)).tolist() == [7]
    assert ref.pack(np.ones((2, 65))).tolist() == [[2**64 - 1, 1]] * 2
    assert ref.pack(np.ones((5, 0))).shape == (5, 0)
    assert ref.pack(np.ones((0, 5))).shape == (0, 1)


def test_pack_axis():
    x = np.array([[1, -1], [-1, -1], [1, 1]])
    assert ref.pack(x).tolist() == [[1], [0], [3]]
    assert ref.pack(x, axis=0).tolist() == [[0b101], [0b100]]
    assert_array_equal(ref.unpack(ref.pack(x, axis=0), 3, axis=0), x)
    assert ref.unpack(ref.pack(x), 2, dtype=np.bool_).tolist() == (x > 0).tolist()
    assert ref.unpack(ref.pack(np.ones((4, 0))), 0).shape == (4, 0)


def test_pack_above():
    x = [[1.0, 2.0, 3.0], [0.0, 5.0, -1.0]]
    got = ref.pack_above(x, [1, 1.5, 4])
    assert got.dtype == np.int8
    assert got.tolist() == [[-1, 1, -1], [-1, 1, -1]]
    assert ref.pack_above(x, 1, flip=[True, False, True]).tolist() == [[1, 1, -1], [1, 1, 1]]
    # 2**24 + 1 is no float32 and rounds to 2**24.
    assert ref.pack_above(np.int32([2**24 + 1]), np.float32(2**24)).tolist() == [-1]
    assert ref.pack_above(np.int32([2**24 + 1]), np.float64(2**24)).tolist() == [1]


def test_popcount():
    assert ref.popcount(A) == 6
    assert isinstance(ref.popcount(A), int)
    assert ref.popcount(A, axis=0).tolist() == [2, 1, 2, 1]
    assert ref.popcount(A, axis=1).tolist() == [2, 4]
    assert ref.popcount(A, axis=1).dtype == np.int64


def test_hamming_topk():
    # Distances of the one row: 1, 0, 1, 2.
    rows = [[1, -1, 1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1]]
    distances, indices = ref.hamming_topk([[1, 1, 1]], rows, 3)
    assert distances.tolist() == [[0, 1, 1]]
    assert indices.tolist() == [[1, 0, 2]]
    assert (distances.dtype, indices.dtype) == (np.int32, np.int64)


def test_gemm():
    got = ref.gemm(A, W)
    assert got.dtype == np.int32
    assert_array_equal(got, DOT)
    assert_array_equal(ref.gemm(np.ones((2, 0)), np.ones((3, 0))), np.zeros((2, 3)))


def test_gemm_scales():
    # Row 0: 0, 4, -4; alpha 1, 2, 3: 0, 8, -12; k_map 0.5: 0, 4, -6; bias 1, 1, -1: 1, 5, -7.
    got = ref.gemm(A, W, alpha=[1, 2, 3], k_map=[0.5, 7], bias=[1, 1, -1])
    assert got.dtype == np.float32
    assert got.tolist() == [[1, 5, -7], [1, 1, -1]]
    assert ref.gemm(A, W, k_map=2).tolist() == (2.0 * DOT).tolist()


def test_gemm_rounds_every_step_to_float32():
    # dot = 3. In float32 3 * (1 + 2**-23) = 3 + 3 * 2**-23 lies between neighbours that are 2**-22
    # apart, and rounds to the even one, 3 + 2**-21; minus 3 that is 2**-21. A fused
    # multiply-add would give the exact 3 * 2**-23.
    a = np.ones((1, 3))
    alpha = np.float32(1) + np.float32(2.0**-23)
    got = ref.gemm(a, a, alpha=alpha, bias=-3)
    assert got.item() == 2.0**-21
    # (3 * 1e-30) * 1e-20 underflows to 0 in float32, although alpha * bias's 1e20 would save it.
    assert ref.gemm(a, a, alpha=1e-30, k_map=1e-20).item() == 0


def test_gemm_sign():
    got = ref.gemm_sign(A, W, 0)
    assert got.dtype == np.int8
    assert got.tolist() == [[-1, 1, -1], [-1, -1, -1]]
    assert ref.gemm_sign(A, W, [-1, 4, -5]).tolist() == [[1, -1, 1], [1, -1, 1]]
    assert ref.gemm_sign(A, W, 0, flip=[True, False, True]).tolist() == [[1, 1, 1], [1, -1, 1]]


def test_hamming():
    got = ref.hamming(A, W)
    assert got.dtype == np.int32
    assert got.tolist() == [[2, 0, 4], [2, 2, 2]]
    assert ref.hamming(A, W, dtype=np.uint16).dtype == np.uint16


def test_matmul():
    got = ref.matmul(A, W.T)
    assert got.dtype == np.int32
    assert_array_equal(got, DOT)
    assert ref.matmul(A, [1, 1, 1, 1]).tolist() == [0, 4]
    assert ref.matmul([2.0, -3.0], [0.5, 0.0]) == 0
    assert ref.matmul(np.ones((5, 1, 2, 3)), np.ones((4, 3, 6))).shape == (5, 4, 2, 6)


def test_binarize_weights():
    values, alpha = ref.binarize_weights(np.array([[[1.0, -2.0], [0.0, 5.0]], [[-0.5] * 2] * 2]))
    assert values.tolist() == [[[1, -1], [1, 1]], [[-1, -1], [-1, -1]]]
    assert alpha.dtype == np.float32
    assert alpha.tolist() == [2.0, 0.5]


# ---- convolution and pooling ---------------------------------------------------------------------

# Image of 2 x 3 positions and one channel; the kernel of 2 x 2 sees two windows.
IMAGE = np.array([[1, -1, 1], [-1, -1, 1]]).reshape(1, 2, 3, 1)
KERNEL = np.array([[1, 1], [-1, 1]]).reshape(1, 2, 2, 1)


def test_im2col():
    got = ref.im2col(IMAGE, 2)
    assert got.dtype == np.int8
    assert got.tolist() == [[[[1, -1, -1, -1], [-1, 1, -1, 1]]]]
    # Two channels: those of a tap are neighbours.
    both = np.concatenate([IMAGE, -IMAGE], axis=3)
    assert ref.im2col(both, (1, 2))[0, 0, 0].tolist() == [1, -1, -1, 1]
    # One position above: the upper taps of the upper windows lie outside.
    for value in (-1, 1):
        rows = ref.im2col(IMAGE, 2, padding=((1, 0), (0, 0)), pad_value=value)
        assert rows[0, 0].tolist() == [[value, value, 1, -1], [value, value, -1, 1]]


def test_conv2d():
    # 1*1 - 1*1 + 1*1 - 1*1 = 0; -1 + 1 + 1 + 1 = 2.
    got = ref.conv2d(IMAGE, KERNEL)
    assert got.dtype == np.int32
    assert got.tolist() == [[[[0], [2]]]]
    # The upper taps 1, 1 lie outside: -1 - 1 = -2 and 1 + 1 = 2 inside, and 0, 2 or -2 outside.
    above = {"padding": ((1, 0), (0, 0))}
    assert ref.conv2d(IMAGE, KERNEL, **above)[0, 0, :, 0].tolist() == [-2, 2]
    assert ref.conv2d(IMAGE, KERNEL, **above, pad_value=1)[0, 0, :, 0].tolist() == [0, 4]
    assert ref.conv2d(IMAGE, KERNEL, **above, pad_value=-1)[0, 0, :, 0].tolist() == [-4, 0]


def test_conv2d_scales():
    # 2 * 0.5 * 3 + 1 = 4 and 0 * ... + 1 = 1.
    got = ref.conv2d(IMAGE, KERNEL, alpha=[0.5], k_map=[[[7, 3]]], bias=1)
    assert got.dtype == np.float32
    assert got.ravel().tolist() == [1, 4]


def test_conv2d_sign():
    got = ref.conv2d_sign(IMAGE, KERNEL, [1])
    assert got.dtype == np.int8
    assert got.ravel().tolist() == [-1, 1]
    assert ref.conv2d_sign(IMAGE, KERNEL, 2).ravel().tolist() == [-1, -1]
    assert ref.conv2d_sign(IMAGE, KERNEL, 1, flip=[True]).ravel().tolist() == [1, -1]


def test_weight_conv2d():
    x = np.array([0.5, 2, 4]).reshape(1, 1, 3, 1)
    w = np.array([1, -1]).reshape(1, 1, 2, 1)
    got = ref.weight_conv2d(x, w, padding=((0, 0), (0, 1)), alpha=2, bias=[1])
    assert got.dtype == np.float32
    assert got.ravel().tolist() == [-2, -3, 9]


def test_bitplane_conv2d():
    x = np.array([255, 3, 1], np.uint8).reshape(1, 1, 3, 1)
    w = np.array([[1, -1], [1, 1]]).reshape(2, 1, 2, 1)
    got = ref.bitplane_conv2d(x, w)
    assert got.dtype == np.int32
    assert got.tolist() == [[[[252, 258], [2, 4]]]]
    assert ref.bitplane_conv2d(x, w, alpha=0.5).dtype == np.float32


@pytest.mark.parametrize("groups", (1, 2, 4))
@pytest.mark.parametrize("stride", (1, 2, (3, 1)))
@pytest.mark.parametrize("dilation", (1, (2, 3)))
@pytest.mark.parametrize("padding", (((0, 0), (0, 0)), ((2, 1), (0, 3))))
def test_convolution_against_scipy(rng, groups, stride, dilation, padding):
    """Padding by np.pad, strides by slicing, dilation by zeros in the kernel, groups by parts."""
    x = rng.integers(-5, 6, (2, 9, 10, 8)).astype(np.float32)
    w = random_signs(rng, 4, 3, 2, 8 // groups)
    octets = rng.integers(0, 256, x.shape).astype(np.uint8)
    sy, sx = (stride, stride) if isinstance(stride, int) else stride
    dy, dx = (dilation, dilation) if isinstance(dilation, int) else dilation
    spread = np.zeros((4, 2 * dy + 1, dx + 1, 8 // groups))
    spread[:, ::dy, ::dx] = w

    def convolve(values, outside):
        values = np.pad(values.astype(float), ((0, 0), *padding, (0, 0)), constant_values=outside)
        parts = [
            correlate(values[:, :, :, group], kernel[None], mode="valid", method="direct")
            for kernel, group in zip(
                spread, np.repeat(np.arange(8).reshape(groups, -1), 4 // groups, 0), strict=True
            )
        ]
        return np.concatenate(parts, axis=3)[:, ::sy, ::sx]

    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    for outside in (-1, 0, 1):
        got = ref.conv2d(x, w, **settings, pad_value=outside)
        assert_array_equal(got, convolve(ref.sign(x), outside))
    # Small integers: every sum is exact in float32.
    assert_array_equal(ref.weight_conv2d(x, w, **settings), convolve(x, 0))
    assert_array_equal(ref.bitplane_conv2d(octets, w, **settings), convolve(octets, 0))


def test_k_map():
    # A: (1 + 3) / 2, (4 + 4) / 2, (0 + 12) / 2, and half of it below.
    x = np.array([[[1, -3], [-4, 4], [0, 12]], [[-1, 1], [2, 2], [3, -3]]])[None]
    a = [[2, 4, 6], [1, 2, 3]]
    assert ref.k_map(x, 1).tolist() == [a]
    assert ref.k_map(x, (1, 2)).tolist() == [[[3, 5], [1.5, 2.5]]]
    assert ref.k_map(x, 2, stride=(1, 2)).tolist() == [[[2.25]]]
    assert ref.k_map(x, (1, 2), dilation=2).tolist() == [[[4], [2]]]
    # Zeros outside, and the divisor stays 2.
    got = ref.k_map(x, (1, 2), padding=((0, 1), (1, 0)))
    assert got.tolist() == [[[1, 3, 5], [0.5, 1.5, 2.5], [0, 0, 0]]]
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    "ones, lost",
    (
        ((16, 8), True),  # each meets channel 0 alone
        ((1, 8), True),
        ((4, 12), False),  # meet each other first
        ((1, 9), False),
        ((1, 17), False),
        ((2, 6), False),
    ),
)
def test_k_map_order_of_channels(ones, lost):
    """2**24 + 1 is no float32 and rounds to 2**24, but 2**24 + 2 is one."""
    x = np.zeros((1, 1, 1, 32))
    x[..., 0] = 2**24
    x[..., ones] = 1
    assert ref.k_map(x, 1).item() * 32 == 2**24 + (0 if lost else 2)


def test_k_map_and_avg_pool2d_order_of_taps():
    for values, total in (((2**24, 1, 1, 0), 2**24), ((1, 1, 2**24, 0), 2**24 + 2)):
        x = np.array(values).reshape(1, 2, 2, 1)
        assert ref.k_map(x, 2).item() * 4 == total
        assert ref.avg_pool2d(x, 2).item() * 4 == total


def test_max_pool2d():
    x = np.array([[1, 5, -2], [3, -9, -4]]).reshape(1, 2, 3, 1)
    assert ref.max_pool2d(x, 2, stride=1).ravel().tolist() == [5, 5]
    assert ref.max_pool2d(x, (2, 1)).ravel().tolist() == [3, 5, -2]
    assert ref.max_pool2d(x, 2).ravel().tolist() == [5]
    # Of -4 alone, with the rest of its window outside.
    assert ref.max_pool2d(x, 2, padding=((0, 0), (0, 1))).ravel().tolist() == [5, -2]
    assert ref.max_pool2d(x.astype(np.float16), 2).dtype == np.float16
    assert np.isnan(ref.max_pool2d(np.array([1, np.nan, 2, 0]).reshape(1, 2, 2, 1), 2))


def test_avg_pool2d():
    x = np.array([[1, 5, -2], [3, -9, -4]]).reshape(1, 2, 3, 1)
    assert ref.avg_pool2d(x, 2, stride=1).ravel().tolist() == [0, -2.5]
    assert ref.avg_pool2d(x, 2, padding=((0, 0), (0, 1))).ravel().tolist() == [0, -1.5]
    assert ref.avg_pool2d(x, 2).dtype == np.float32


def test_global_avg_pool2d():
    x = np.arange(12).reshape(1, 2, 3, 2)
    assert ref.global_avg_pool2d(x).tolist() == [[5, 6]]
    assert ref.global_avg_pool2d(x).dtype == np.float32


def test_it_has_the_parameters_of_the_package():
    """All but `out`; and `sign` and `unpack` take what a BitArray knows or is."""
    names = set(ref.__all__) - {"sign", "unpack"}
    settings = {"get_include", "set_num_threads", "get_num_threads", "show_config"}
    not_arrays = {"Prepacked", "prepack", *settings}
    functions = {name for name in bo.__all__ if callable(getattr(bo, name))}
    assert names == functions - not_arrays - {"BitArray", "unpack"}
    for name in names:
        public = dict(inspect.signature(getattr(bo, name)).parameters)
        public.pop("out", None)
        wanted = [(p.name, p.kind, p.default) for p in public.values()]
        twin = inspect.signature(getattr(ref, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in twin] == wanted, name


def test_it_needs_no_native_module():
    # An empty package in the place of the real one, whose import would import _core first.
    folder = os.path.dirname(os.path.dirname(ref.__file__))
    code = (
        "import importlib, sys, types;"
        "package = types.ModuleType('bitops');"
        f"package.__path__ = [{folder!r}];"
        "sys.modules['bitops'] = package;"
        "importlib.import_module('bitops.reference');"
        "names = [name for name in sys.modules if name.startswith('bitops')];"
        "others = sorted(name for name in names if not name.startswith('bitops.reference'));"
        "assert len(names) > len(others);"
        "assert 'bitops._core' not in others;"
        "assert others == ['bitops', *('bitops.ops' + x for x in ('', '.checks', '.geometry'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
