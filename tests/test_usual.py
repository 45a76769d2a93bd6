"""The usual call: native functions answer it at once, and leave everything else to Python."""

import itertools
import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import _core
from bitops import reference as ref
from conftest import EDGE_BITS, random_signs
from products import assert_same_bits, scales

NO_SCALES = (None, None, None)
SETTINGS = (1, 0, 1, 1, 0)  # stride, padding, dilation, groups, pad_value


def gemm(a, w, out=None, factors=NO_SCALES, kind=_core.DOT, w_axis=1):
    return _core.usual_product(kind, a, w, factors, out, w_axis)


def conv2d(x, w, out=None, settings=SETTINGS, factors=NO_SCALES):
    return _core.usual_convolution(_core.DOT, "conv2d", x, w, settings, factors, out)


@pytest.fixture
def operands(rng):
    return bo.pack(random_signs(rng, 3, 70)), bo.pack(random_signs(rng, 5, 70))


@pytest.mark.parametrize("m, n", ((1, 1), (1, 64), (3, 9), (17, 33), (40, 5)))
def test_products(isa, threads, rng, m, n):
    """Answered natively, as in the reference, with operands of every length."""
    for k in [k for k in (*EDGE_BITS, 513) if k]:
        a, w = random_signs(rng, m, k), random_signs(rng, n, k)
        factors = scales(rng, m, n)
        threshold, flip = rng.integers(-3, 4, n).astype(np.int32), rng.random(n) < 0.5
        pa, pw = bo.pack(a), bo.pack(w)
        for weights in (pw, bo.prepack(pw)):
            assert_array_equal(gemm(pa, weights), ref.gemm(a, w), strict=True)
            for name in factors:
                one = {key: factors[key] if key == name else None for key in factors}
                got = gemm(pa, weights, None, (one["alpha"], one["k_map"], one["bias"]))
                assert_same_bits(got, ref.gemm(a, w, **{name: factors[name]}))
            for kind, dtype in ((_core.HAMMING, np.int32), (_core.HAMMING16, np.uint16)):
                got = gemm(pa, weights, None, (), kind)
                assert_array_equal(got, ref.hamming(a, w).astype(dtype), strict=True)
            for flips in (None, bo.pack(flip)):
                got = gemm(pa, weights, None, (threshold, flips), _core.SIGN)
                plain = None if flips is None else flip
                want = bo.pack(ref.gemm_sign(a, w, threshold, flip=plain))
                assert type(got) is bo.BitArray and got == want
                assert not got.words[:, -1].astype(object).max() >> ((n - 1) % 64 + 1)
            distances, indices = _core.usual_topk(pa, weights, n)
            want = ref.hamming(a, w)
            order = np.argsort(want, axis=1, kind="stable")
            assert_array_equal(indices, order, strict=True)
            assert_array_equal(distances, np.take_along_axis(want, order, 1), strict=True)
        columns = bo.pack(w.T, axis=0)
        assert_array_equal(gemm(pa, columns, w_axis=0), ref.gemm(a, w), strict=True)
        assert_array_equal(gemm(pa, pw.T, w_axis=0), ref.gemm(a, w), strict=True)


def test_out_and_leading_axes(isa, rng):
    a, w = random_signs(rng, 2, 3, 4, 70), random_signs(rng, 5, 70)
    pa, pw = bo.pack(a), bo.pack(w)
    out = np.empty((2, 3, 4, 5), np.int32)
    assert gemm(pa, pw, out) is out
    assert_array_equal(out, ref.gemm(a, w))
    k_map = rng.standard_normal((2, 3, 4)).astype(np.float32)
    assert_same_bits(gemm(pa, pw, None, (None, k_map, None)), ref.gemm(a, w, k_map=k_map))
    assert gemm(pa, pw, None, (None, k_map[0], None)) is None
    got = gemm(pa, pw, None, (np.zeros(5, np.int32), None), _core.SIGN)
    assert got.shape == (2, 3, 4, 5) and got == bo.gemm_sign(a, w, 0)


def test_unusual_operands(isa, operands):
    a, w = operands
    wide = bo.pack(np.ones((5, 6, 70)))
    for x, y in (
        (a, np.asarray(w)),
        (np.asarray(a)[0], w),
        (np.asarray(a).tolist(), w),
        (np.asarray(a).T.copy().T, w),
        (np.asarray(a).astype(np.uint8), w),
        (np.full((3, 70), np.nan), w),
        (np.ones((1 << 12, 70)), w),  # more numbers than are packed on the way
        (bo.prepack(a), w),
        (a, bo.prepack(np.ones((5, 1, 1, 70)))),
        (a, wide),  # a batch
        (a, wide[:, 1]),  # strided
        (a[::-1], w),
        (a[0], w),
        (a, w[0]),
        (bo.pack(np.asarray(a), 0), w),
        (a, bo.pack(np.asarray(w), 0)),
        (a, bo.pack(np.ones((5, 71)))),
        (a[:0], w),
        (a, w[:0]),
        (bo.pack(np.ones((3, 0))), bo.pack(np.ones((5, 0)))),
        (None, None),
        (bo.BitArray.__new__(bo.BitArray), w),
        (a, bo.Prepacked.__new__(bo.Prepacked)),
    ):
        assert gemm(x, y) is None
        assert _core.usual_topk(x, y, 1) is None
    for count in (0, 6, True, 1.0, np.int64(1), None):
        assert _core.usual_topk(a, w, count) is None
    assert gemm(a, w, w_axis=0) is None
    assert (
        gemm(
            bo.pack(np.ones((1, 65_536))), bo.pack(np.ones((1, 65_536))), None, (), _core.HAMMING16
        )
        is None
    )


def test_unusual_results(isa, rng, operands):
    a, w = operands
    frozen = np.empty((3, 5), np.int32)
    frozen.flags.writeable = False
    raw = np.empty(3 * 5 * 4 + 1, np.uint8)
    memory = a.words.view(np.int32).reshape(-1)  # of 12 numbers, 9 for the result
    for out in (
        np.empty((3, 5), np.uint32),
        np.empty((3, 5), ">i4"),
        np.empty((5, 3), np.int32),
        np.empty(15, np.int32),
        np.empty((5, 3), np.int32).T,
        np.empty((3, 6), np.int32)[:, :5],
        np.empty((3, 5), np.int32).view(np.matrix),
        raw[1:].view(np.int32).reshape(3, 5),
        frozen,
        [[0] * 5] * 3,
        a,
        0,
    ):
        assert gemm(a, w, out) is None
    assert gemm(a, w[:3], memory[:9].reshape(3, 3)) is None
    assert gemm(w[:3], a, memory[3:].reshape(3, 3)) is None
    large = gemm(bo.pack(np.ones((128, 1))), bo.pack(np.ones((128, 1))))  # 64 KiB
    assert np.array_equal(large, np.ones((128, 128)))
    assert large.ctypes.data % 64 == 0
    assert large.flags.c_contiguous and large.flags.writeable
    assert gemm(bo.pack(np.ones((127, 1))), bo.pack(np.ones((128, 1)))) is not None


def test_unusual_factors(isa, operands):
    a, w = operands
    good = np.ones(5, np.float32)
    for bad in (
        *(
            True,
            "1",
            1 << 60,
            np.int64(1 << 60),
            [1.0] * 5,
            good[:4],
            good[None],
            good.astype(">f4"),
        ),
        *(good[:4].astype(np.float64), np.ones(10)[::2], good.astype(np.float16), np.float16(1)),
        *(np.ones(10, np.float32)[::2], np.ma.masked_array(good), np.ones(2, np.float32)),
    ):
        for factors in ((bad, None, None), (good, None, bad), (good, bad, None)):
            assert gemm(a, w, None, factors) is None
    out = np.ones((3, 5), np.float32)
    assert gemm(a, w, out, (out[1], None, None)) is None
    assert gemm(a, w, out, (good, None, None)) is out
    limit = np.zeros(5, np.int32)
    for factors in (
        *((False, None), (0.0, None), (1 << 60, None), (limit[:4], None), (limit[None], None)),
        *((np.zeros(4, np.int64), None), (limit.astype(np.int16), None), (np.uint64(1), None)),
        *((limit, limit[:4] > 0), (limit, False), (limit, bo.pack(limit[:4])), (limit, w)),
    ):
        assert gemm(a, w, None, factors, _core.SIGN) is None


@pytest.mark.parametrize("dtype", (np.int8, np.int64, np.float16, np.float32, np.float64, bool))
def test_few_numbers_are_packed_on_the_way(isa, rng, operands, dtype):
    a, w = operands
    numbers = np.asarray(a) > 0 if dtype is bool else np.asarray(a).astype(dtype)
    assert_array_equal(gemm(numbers, w), gemm(a, w), strict=True)
    assert_array_equal(gemm(numbers, bo.prepack(w)), gemm(a, w), strict=True)
    assert_array_equal(_core.usual_topk(numbers, w, 2)[0], _core.usual_topk(a, w, 2)[0])
    x, f = bo.pack(random_signs(rng, 1, 4, 4, 70)), bo.prepack(random_signs(rng, 2, 3, 3, 70))
    numbers = np.asarray(x) > 0 if dtype is bool else np.asarray(x).astype(dtype)
    want = bo.conv2d(x, f)  # from now on it is a usual call
    assert_array_equal(conv2d(numbers, f), want, strict=True)
    assert_array_equal(bo.conv2d(numbers, f), want, strict=True)
    # the result may lie where the numbers did
    square = random_signs(rng, 5, 5).astype(np.float32)
    alpha, w = np.float32(0.5), bo.pack(random_signs(rng, 5, 5))
    want = ref.gemm(square, np.asarray(w), alpha=np.full(5, alpha))
    assert gemm(square, w, square, (alpha, None, None)) is square
    assert_same_bits(square, want)


NUMBERS = (
    2,
    -7,
    0,
    0.1,
    -1e300,
    np.inf,
    1e-42,
    1 << 53,
    np.float32(0.3),
    np.float64(1 / 3),
    np.int64(5),
)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of infinity, by the reference
@pytest.mark.parametrize("number", NUMBERS)
def test_scales_that_are_converted(isa, operands, number):
    """One number for all, and float64, become what the Python functions make of them."""
    a, w = operands
    alone, numbers = np.asarray(number), np.full(5, number, np.float64)
    with np.errstate(all="ignore"):
        wanted = np.full(5, alone.astype(np.float32))
    want = ref.gemm(np.asarray(a), np.asarray(w), alpha=wanted, bias=wanted)
    assert_same_bits(gemm(a, w, None, (number, None, number)), want)
    assert_same_bits(gemm(a, w, None, (numbers, None, numbers)), want)
    assert_same_bits(bo.gemm(a, w, alpha=number, bias=numbers), want)
    assert_same_bits(bo.gemm(a, w, alpha=[number] * 5, bias=alone), want)  # not the usual call
    rows = np.full(3, wanted[0])
    got = gemm(a, w, None, (None, number, None))
    assert_same_bits(got, ref.gemm(np.asarray(a), np.asarray(w), k_map=rows))


@pytest.mark.parametrize(
    "number", (0, 3, -4, 2**31 - 1, -(2**31), 2**40, -(2**40), np.int32(2), np.int64(-2))
)
def test_thresholds_that_are_converted(isa, operands, number):
    a, w = operands
    flip = np.array([True, False, True, True, False])
    numbers = np.full(5, number, np.int64) - np.arange(5)
    for threshold in (number, numbers):
        for flips in (None, flip, bo.pack(flip)):
            plain = None if flips is None else flip
            limits = np.broadcast_to(threshold, 5)
            want = bo.pack(ref.gemm_sign(np.asarray(a), np.asarray(w), limits, flip=plain))
            assert gemm(a, w, None, (threshold, flips), _core.SIGN) == want
            assert bo.gemm_sign(a, w, limits.tolist(), flip=flips) == want  # not the usual call


@pytest.mark.parametrize("threshold", (0, 2, -0.5, 2.0**70, np.inf, -np.inf))
def test_numbers_above_a_threshold(isa, rng, threshold):
    x = rng.standard_normal((3, 70)).astype(np.float32)
    x[0, :4] = np.inf, -np.inf, 0, -0.0
    flip = rng.random(70) < 0.5
    for limits in (threshold, np.full(70, threshold, np.float32)):
        for flips in (None, flip, bo.pack(flip)):
            want = bo.pack((x > threshold) ^ (False if flips is None else flip))
            assert _core.usual_above(x, limits, flips) == want
            assert bo.pack_above(x.tolist(), limits, flip=flips) == want  # not the usual call
    assert _core.usual_above(x[0], threshold, None) == bo.pack(x[0] > threshold)


def test_unusual_thresholds(isa, rng):
    x, limits = rng.standard_normal((3, 70)).astype(np.float32), np.zeros(70, np.float32)
    for numbers in (
        x.T,
        x[:, ::2],
        x[:0],
        x.astype(np.float64),
        x.tolist(),
        np.float32(1),
        x[0, 0],
    ):
        assert _core.usual_above(numbers, 0, None) is None
    for bad in (0.1, (1 << 24) + 1, 1 << 60, np.nan, True, "0", None, np.float32(0), limits[:9]):
        assert _core.usual_above(x, bad, None) is None  # 0.1 lies between two numbers of float32
    limits[7] = np.nan
    assert _core.usual_above(x, limits, None) is None
    for flip in (True, np.zeros(9, bool), np.zeros(70), bo.pack(np.ones(9)), bo.pack(x)):
        assert _core.usual_above(x, 0, flip) is None
    x[1, 2] = np.nan
    assert _core.usual_above(x, 0, None) is None


def test_words_that_were_changed_behind_our_back(isa, operands):
    a, w = operands
    assert gemm(a, w) is not None
    a.words.base.resize((1, 2), refcheck=False)
    assert gemm(a, w) is None and gemm(w, a) is None
    assert _core.usual_topk(w, a, 1) is None
    with pytest.raises(ValueError):
        bo.gemm(a, w)
    x, f = bo.pack(np.ones((1, 4, 4, 70))), bo.prepack(np.ones((2, 3, 3, 70)))
    bo.conv2d(x, f)
    assert conv2d(x, f) is not None
    x.words.base.resize((1, 2, 2, 2), refcheck=False)
    assert conv2d(x, f) is None


@pytest.mark.parametrize("groups", (1, 2, 6))
@pytest.mark.parametrize("pad_value", (-1, 0, 1))
def test_convolutions(isa, threads, rng, groups, pad_value):
    """From the second call on, which finds what the first has made."""
    x, w = random_signs(rng, 2, 5, 6, 6), random_signs(rng, 12, 3, 2, 6 // groups)
    bits, filters = bo.pack(x), bo.prepack(w)
    settings = (1, ((1, 2), (0, 1)), 1, groups, pad_value)
    names = dict(
        zip(("stride", "padding", "dilation", "groups", "pad_value"), settings, strict=True)
    )
    assert conv2d(bits, filters, None, settings) is None
    want = bo.conv2d(bits, filters, **names)
    assert_array_equal(want, ref.conv2d(x, w, **names))
    out = np.empty_like(want)
    assert conv2d(bits, filters, out, settings) is out
    assert_array_equal(out, want)
    assert_array_equal(conv2d(bits, filters, None, settings), want, strict=True)
    alpha, k_map = (rng.standard_normal(n).astype(np.float32) for n in (12, want.shape[:3]))
    got = conv2d(bits, filters, None, settings, (alpha, k_map, alpha))
    assert_same_bits(got, ref.conv2d(x, w, **names, alpha=alpha, k_map=k_map, bias=alpha))
    threshold, flip = rng.integers(-3, 4, 12).astype(np.int32), rng.random(12) < 0.5
    want = ref.conv2d_sign(x, w, threshold, flip=flip, **names)
    for _ in range(2):
        got = bo.conv2d_sign(bits, filters, threshold, flip=bo.pack(flip), **names)
        assert_array_equal(np.asarray(got), want)
    call = (_core.SIGN, "conv2d_sign", bits, filters, settings, (threshold, bo.pack(flip)), None)
    assert _core.usual_convolution(*call) == got


def test_unusual_convolutions(isa, rng):
    x, filters = bo.pack(random_signs(rng, 2, 5, 5, 70)), bo.prepack(random_signs(rng, 4, 3, 3, 70))
    bo.conv2d(x, filters)
    assert conv2d(x, filters) is not None
    for settings in ((True, 0, 1, 1, 0), (1.0, 0, 1, 1, 0), (1, False, 1, 1, 0), ([1], 0, 1, 1, 0)):
        assert conv2d(x, filters, None, settings) is None
        with pytest.raises(TypeError):
            bo.conv2d(x, filters, stride=settings[0], padding=settings[1])
    for images in (
        *(x[:0], x[..., ::-1, :], x[0], x[:, :4], np.asarray(x).tolist(), bo.prepack(x), None),
        *(bo.pack(np.asarray(x), 0), bo.pack(np.ones((2, 5, 5, 71)))),
    ):
        assert conv2d(images, filters) is None
    assert conv2d(x, filters.bits) is None
    assert conv2d(x, filters, np.empty((2, 3, 3, 4), np.int64)) is None
    memory = x.words.view(np.int32).reshape(-1)
    assert conv2d(x, filters, memory[:72].reshape(2, 3, 3, 4)) is None


def test_weights_are_those_of_the_isa_in_force(rng, operands):
    a, w = operands
    for first, second in itertools.permutations(bo.isa.available(), 2):
        with bo.isa.use(first):
            panels = bo.prepack(w)
            want = gemm(a, panels)
        with bo.isa.use(second):
            assert gemm(a, panels) is None  # they must be made again
            assert_array_equal(bo.gemm(a, panels), want)
            assert_array_equal(gemm(a, panels), want)
        panels.__init__(w[:2])
        with bo.isa.use(second):
            assert bo.gemm(a, panels).shape == (3, 2)


def test_prepacked_in_many_threads(rng, operands):
    """Weights may be used, and made anew, at the same time."""
    a, w = operands
    panels, want, found = bo.prepack(w), ref.gemm(np.asarray(a), np.asarray(w)), []
    images, filters = bo.pack(np.ones((1, 40, 40, 3))), bo.prepack(np.ones((2, 1, 1, 3)))

    def call(offset):
        for i in range(300):
            ok = (bo.gemm(a, panels) == want).all()
            part = images[:, : 1 + (i + offset) % 20, : 1 + i % 19].copy()  # many kept windows
            found.append(bool(ok and (bo.conv2d(part, filters) == 3).all()))

    threads = [threading.Thread(target=call, args=(7 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1200 and all(found)


@pytest.mark.parametrize("dtype", ("?", "i1", "i2", "i4", "i8", "f4", "f8"))
def test_packing(isa, rng, dtype):
    for k in [k for k in (*EDGE_BITS, 513) if k]:
        x = rng.integers(0, 2, (3, k)).astype(dtype)
        if dtype != "?":
            x = 2 * x - x.dtype.type(1)
        for values in (x, x[0], x[:, None]):
            for axis in (-1, values.ndim - 1):
                got = _core.usual_pack(values, axis)
                assert type(got) is bo.BitArray and got.axis == values.ndim - 1
                assert got.shape == values.shape
                assert_array_equal(got.words, ref.pack(values), strict=True)


def test_unusual_values(isa):
    x = np.ones((4, 70), np.float32)
    nan = x.copy()
    nan[3, 69] = np.nan
    frozen = x.copy()
    frozen.flags.writeable = False
    assert _core.usual_pack(frozen, -1) == bo.pack(x)
    for values in (
        *(nan, x[:, ::2], x[::2], x.T, x.astype(">f4"), x.astype(">f2"), x.astype(complex)),
        *(x.astype(np.uint8), x.astype(object), x.tolist(), np.ma.masked_array(x), bo.pack(x)),
        *(x[:0], x[:, :0], np.float32(1), np.array(1, np.float32), x.view(np.matrix), None),
        *(np.frombuffer(b"x" + x.tobytes(), np.float32, offset=1).reshape(x.shape),),
    ):
        assert _core.usual_pack(values, -1) is None
    for axis in (0, -2, 2, True, 1.0, None, np.int64(1)):
        assert _core.usual_pack(x, axis) is None
    large = _core.usual_pack(np.ones((128, 4096), bool), -1)  # 64 KiB of words
    assert large == bo.pack(np.ones((128, 4096))) and large.words.ctypes.data % 64 == 0


def test_adopted_words(isa, rng):
    for k in [k for k in EDGE_BITS if k]:
        x = random_signs(rng, 2, 3, k)
        words = ref.pack(x)
        got = _core.usual_words(bo.BitArray, words, x.shape)
        assert got == bo.pack(x) and np.shares_memory(got.words, words)
        for row in itertools.product(range(2), range(3)) if k % 64 else ():
            bad = words.copy()
            bad[(*row, -1)] |= np.uint64(1 << k % 64)
            assert _core.usual_words(bo.BitArray, bad, x.shape) is None
    words = np.zeros((3, 2), np.uint64)
    for bad, shape in (
        *((words, (3, 64)), (words, (3, 129)), (words, (2, 70)), (words, (70,)), (words, ())),
        *((words, [3, 70]), (words, (3, 70.0)), (words, (np.int64(3), 70)), (words, (3, 2**70))),
        *(
            (words, (-3, 70)),
            (words[:0], (0, 70)),
            (words[:, :0], (3, 0)),
            (words[:, ::-1], (3, 70)),
        ),
        *(
            (words.astype(">u8"), (3, 70)),
            (words.view(np.int64), (3, 70)),
            (words.tolist(), (3, 70)),
        ),
        (words.view(np.matrix), (3, 70)),
    ):
        assert _core.usual_words(bo.BitArray, bad, shape) is None


class Named(bo.BitArray):
    """A subclass with a dictionary, and objects that are made in another way."""

    def __new__(cls, name):
        raise AssertionError("parts and results are made without it")


def test_subclasses(rng):
    x = random_signs(rng, 4, 5, 70)
    b = Named.from_words(ref.pack(x), x.shape)
    b.name = "b"
    for part in (b[0], b[[0, 1]], b.T, b.reshape(20, 70), b.reshape((-1, 70)), b.copy()):
        assert type(part) is Named
        assert not hasattr(part, "name")
    assert_array_equal(bo.gemm(b[0], b[1]), ref.gemm(x[0], x[1]))
    for make in (
        lambda: _core.set_bits_class(int),
        lambda: _core.usual_words(int, np.ones((1, 1), np.uint64), (1, 1)),
    ):
        with pytest.raises(TypeError, match="subclass of Bits"):
            make()


def test_parts_that_are_answered_natively(rng):
    x = random_signs(rng, 4, 5, 70)
    b = bo.pack(x)
    for key in (0, -1, np.s_[1:3], np.s_[::-2], np.s_[1, 2], np.s_[:, 2], np.s_[1:, ::2], ()):
        got = b._usual_item(key)
        assert got == b[key] == bo.pack(x[key]) and got.axis == got.ndim - 1
    for key in (4, True, None, ..., [0], np.int64(0), np.s_[0, 0, 0], np.s_[:, :, :], slice("a")):
        assert b._usual_item(key) is None
    middle = bo.pack(x, axis=1)
    assert_array_equal(np.asarray(middle._usual_item(2)), x[2])
    assert middle._usual_item(np.s_[0, 0]) is None
    for shape in ((20, 70), (-1, 70), (2, 10, 70), (4, 5, 70), (2, -1, 5, 70)):
        for sizes in (shape, (shape,)):
            assert_array_equal(np.asarray(b._usual_reshape(sizes)), x.reshape(shape))
    for shape in ((19, 70), (20, 71), (20, -1), (-1, -1, 70), (-2, 70), (), (20.0, 70), (True, 70)):
        assert b._usual_reshape(shape) is None
    assert middle._usual_reshape((20, 70)) is None
    assert b[:0]._usual_reshape((0, 3, 70)) == b[:0].reshape(0, 3, 70)
