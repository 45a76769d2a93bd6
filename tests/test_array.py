"""pack, unpack, popcount and BitArray against the encoding of the reference."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from conftest import EDGE_BITS, random_signs

FLOATS = (np.float16, np.float32, np.float64, np.longdouble)
SIGNED = (np.int8, np.int16, np.int32, np.int64)
UNSIGNED = (np.uint8, np.uint16, np.uint32, np.uint64)
DTYPES = (np.bool_, *SIGNED, *FLOATS)


def samples(rng, dtype, *shape):
    """Random values of both signs with every special value of dtype among them, but no NaN."""
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        pool = [info.min, info.max, 0, 1, info.min + 1, info.max - 1]
        pool += [-1, -2] if dtype.kind == "i" else [2]
    else:
        tiny = np.nextafter(dtype.type(0), dtype.type(1))
        info = np.finfo(dtype)
        pool = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, tiny, -tiny, info.max, info.min, info.eps]
    return rng.choice(np.array(pool, dtype), shape)


def assert_packs(x, axis=-1):
    """Check the words, the bytes and the padding bits of pack(x, axis)."""
    before = x.tobytes()
    b = bo.pack(x, axis)
    assert b.shape == x.shape
    assert b.axis == axis % x.ndim
    assert b.words.dtype == np.uint64
    assert_array_equal(b.words, ref.pack(x, axis), strict=True)
    assert x.tobytes() == before
    return b


@pytest.mark.parametrize("dtype", DTYPES)
def test_pack_equals_packbits(isa, rng, dtype):
    for k in EDGE_BITS:
        x = samples(rng, dtype, 3, k)
        b = assert_packs(x)
        octets = np.packbits(x if dtype is np.bool_ else x >= 0, axis=-1, bitorder="little")
        got = np.ascontiguousarray(b.words, "<u8").view(np.uint8)
        assert_array_equal(got[:, : octets.shape[1]], octets)
        assert not got[:, octets.shape[1] :].any()


@pytest.mark.parametrize("dtype", (np.float32, np.float64, np.int8, np.bool_))
def test_every_length(isa, rng, dtype):
    x = samples(rng, dtype, 1100)
    for k in range(1101):
        assert_packs(x[:k])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_start_offset(isa, rng, dtype):
    x = samples(rng, dtype, 300)
    for start in range(66):
        for k in (1, 17, 64, 130, 233):
            assert_packs(x[start : start + k])


@pytest.mark.parametrize("dtype", DTYPES)
def test_misaligned_bytes(isa, rng, dtype):
    x = samples(rng, dtype, 3, 67)
    for shift in range(1, 9):
        raw = bytes(shift) + x.tobytes()
        moved = np.frombuffer(raw, dtype, offset=shift).reshape(x.shape)
        assert_packs(moved)
        assert_packs(moved, axis=0)


@pytest.mark.parametrize("dtype", (np.float32, np.float64, np.int16, np.bool_, np.float16))
def test_memory_layouts(isa, rng, dtype):
    x = samples(rng, dtype, 70, 9, 131)
    frozen = x.copy()
    frozen.flags.writeable = False
    layouts = {
        "read-only": frozen,
        "strided": x[::3, ::2, ::2],
        "negative": x[::-1, :, ::-1],
        "negative step": x[:, ::-2, ::-3],
        "fortran": np.asfortranarray(x),
        "transposed": x.transpose(2, 0, 1),
        "one column": x[:, :, 5],
        "rows apart": x[:, 4, :],
        "row of one": x[3:4, 2:3],
        "stride zero": np.broadcast_to(x[0], (3, *x.shape[1:])),
        "stride zero along k": np.broadcast_to(x[..., :1], x.shape),
        "overlapping": np.lib.stride_tricks.sliding_window_view(x[0], 65, axis=1),
    }
    for name, view in layouts.items():
        for axis in range(-view.ndim, view.ndim):
            b = assert_packs(view, axis)
            assert_array_equal(bo.unpack(b), ref.sign(view), err_msg=f"{name}, axis {axis}")


@pytest.mark.parametrize("dtype", (">f4", ">f8", ">f2", ">i2", ">i8"))
def test_foreign_byte_order(isa, rng, dtype):
    x = samples(rng, np.dtype(dtype).newbyteorder("="), 5, 70)
    assert_array_equal(bo.pack(x.astype(dtype)).words, ref.pack(x))


@pytest.mark.parametrize(
    "shape", ((0,), (0, 5), (5, 0), (0, 0), (2, 0, 3), (0, 4, 70), (3, 0, 70), (1,), (1, 1))
)
def test_zero_size(isa, shape):
    x = np.ones(shape)
    for axis in range(len(shape)):
        b = assert_packs(x, axis)
        assert_array_equal(np.asarray(b), x)
        assert bo.popcount(b) == x.size
        for other in range(len(shape)):
            assert_array_equal(bo.popcount(b, other), ref.popcount(x, other), strict=True)


def test_any_true_byte(isa):
    """A bool that came from foreign bytes may be any non-zero byte."""
    octets = np.arange(256, dtype=np.uint8)
    assert_array_equal(np.asarray(bo.pack(octets.view(np.bool_))), np.where(octets, 1, -1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("negative", (False, True))
def test_nan_anywhere(isa, dtype, negative):
    nan = np.copysign(dtype(np.nan), dtype(-1 if negative else 1))
    for k in (1, 15, 16, 17, 64, 65, 127, 577):
        x = np.ones((2, k), dtype)
        for i in range(k):
            x[1, i] = nan
            with pytest.raises(ValueError, match=r"^\[pack\] .*NaN"):
                bo.pack(x)
            x[1, i] = -1
        bo.pack(x)


def test_nan_in_every_layout(isa):
    x = np.ones((6, 40, 90), np.float32)
    x[3, 17, 89] = np.nan
    for view in (x, x[::-1], x.T, np.asfortranarray(x), x[1:, 1:, 1:], x[3, 17], x[:, :, 89]):
        for axis in range(view.ndim):
            with pytest.raises(ValueError, match="NaN"):
                bo.pack(view, axis)
    bo.pack(x[:, :17])


def test_nan_payloads(isa):
    """Signalling NaNs and the ends of the payload range, and the infinities next to them."""
    for pattern in (0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF):
        x = np.full(70, pattern, np.uint32).view(np.float32)
        with pytest.raises(ValueError, match="NaN"):
            bo.pack(x)
        # The same bits as an integer are a number.
        assert bo.popcount(bo.pack(x.view(np.int32))) == (70 if pattern < 2**31 else 0)
    for pattern in (0x7FF0000000000001, 0x7FF8000000000000, 0xFFF0000000000001, 2**64 - 1):
        with pytest.raises(ValueError, match="NaN"):
            bo.pack(np.full(70, pattern, np.uint64).view(np.float64))
    for pattern in (0x7C01, 0x7E00, 0xFC01, 0xFFFF):
        with pytest.raises(ValueError, match="NaN"):
            bo.pack(np.full(70, pattern, np.uint16).view(np.float16))


def test_special_values(isa):
    for dtype in FLOATS:
        tiny = np.nextafter(dtype(0), dtype(1))
        x = np.array([0.0, -0.0, np.inf, -np.inf, tiny, -tiny, -1, 1] * 9, dtype)
        assert np.asarray(bo.pack(x)).tolist() == [1, 1, 1, -1, 1, -1, -1, 1] * 9


def test_array_likes(isa):
    for x in (
        [1.0, -2.0, 0.0],
        [[1, -1], [-3, 4]],
        (True, False),
        range(-2, 3),
        memoryview(b"ab").cast("b"),
    ):
        assert_array_equal(bo.pack(x).words, ref.pack(x))

    class Wrapper:
        def __array__(self, dtype=None, copy=None):
            return np.arange(-3, 3)

    assert_array_equal(bo.pack(Wrapper()).words, ref.pack(np.arange(-3, 3)))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_subclasses(isa, rng):
    x = rng.standard_normal((4, 70))
    assert_array_equal(bo.pack(np.matrix(x)).words, ref.pack(x))
    assert_array_equal(bo.pack(x.view(np.recarray)).words, ref.pack(x))
    assert type(bo.pack(np.matrix(x)).words) is np.ndarray


def test_pack_copies(isa):
    x = np.ones((2, 64), np.int64)
    b = bo.pack(x)
    x[:] = -1
    assert not np.shares_memory(b.words, x)
    assert b.words.tolist() == [[2**64 - 1]] * 2


@pytest.mark.parametrize("dtype", (np.bool_, *SIGNED, *FLOATS))
def test_unpack(isa, rng, dtype):
    for k in EDGE_BITS:
        x = random_signs(rng, 3, k)
        got = bo.unpack(bo.pack(x), dtype=dtype)
        want = x > 0 if dtype is np.bool_ else x.astype(dtype)
        assert_array_equal(got, want, strict=True)
        assert got.flags.writeable


def test_unpack_axes(isa, rng):
    x = random_signs(rng, 5, 66, 7)
    for axis in range(3):
        b = bo.pack(x, axis)
        for view, want in ((b, x), (b.T, x.T)):
            for dtype in (np.int8, np.float32, np.float64):
                assert_array_equal(bo.unpack(view, dtype=dtype), want.astype(dtype), strict=True)


def test_unpack_of_strided_words(isa, rng):
    x = random_signs(rng, 8, 6, 133)
    b = bo.pack(x)
    for key in (np.s_[::2], np.s_[::-1, 1::2], np.s_[:, 3], np.s_[3], np.s_[[5, 1, 1]]):
        assert_array_equal(bo.unpack(b[key]), x[key])


@pytest.mark.parametrize("k", (0, 1, 63, 64, 65, 300, 513, 4097))
def test_popcount(isa, rng, k):
    x = random_signs(rng, 3, k, 5)
    for packed in range(3):
        b = bo.pack(x, packed)
        for view, plain in ((b, x), (b.T, x.T), (x, x)):
            total = bo.popcount(view)
            assert type(total) is int
            assert total == ref.popcount(plain)
            for axis in range(-3, 3):
                assert_array_equal(bo.popcount(view, axis), ref.popcount(plain, axis), strict=True)
    assert type(bo.popcount(bo.pack(x), axis=0)) is np.ndarray


def test_popcount_of_a_vector(isa):
    x = -np.ones(700)
    x[[0, 63, 64, 699]] = 1
    assert bo.popcount(x) == 4
    assert bo.popcount(x, 0) == 4
    assert bo.popcount(bo.pack(x), -1) == 4
    assert bo.popcount(np.ones(70001)) == 70001


class TestBitArray:
    def test_attributes(self, rng):
        x = random_signs(rng, 3, 5, 70)
        for axis, words in ((0, (5, 70, 1)), (1, (3, 70, 1)), (2, (3, 5, 2))):
            b = bo.pack(x, axis)
            assert isinstance(b, bo.BitArray)
            assert (b.shape, b.ndim, b.size, b.axis) == ((3, 5, 70), 3, 1050, axis)
            assert b.words.shape == words
            assert b.nbytes == b.words.nbytes
            assert len(b) == 3
            assert bo.pack(x, axis - 3) == b

    def test_it_is_a_value(self, rng):
        b = bo.pack(random_signs(rng, 3, 70))
        for name in ("shape", "ndim", "size", "axis", "words", "nbytes", "T"):
            with pytest.raises(AttributeError):
                setattr(b, name, getattr(b, name))
        with pytest.raises(TypeError):
            b[0] = b[1]
        with pytest.raises(TypeError):
            hash(b)

    def test_transpose(self, rng):
        x = random_signs(rng, 3, 5, 70)
        for axis in range(3):
            b = bo.pack(x, axis)
            assert b.T.shape == (70, 5, 3)
            assert b.T.axis == 2 - axis
            assert np.shares_memory(b.T.words, b.words)
            assert_array_equal(np.asarray(b.T), x.T)
            assert b.T.T == b
        vector = bo.pack(x[0, 0])
        assert vector.T == vector

    KEYS = (
        *(np.s_[1], np.s_[-1], np.s_[1:3], np.s_[::-1], np.s_[::2], np.s_[3:1], np.s_[...]),
        *(np.s_[1, 2], np.s_[:, 2], np.s_[:, -1:], np.s_[..., 1, :], np.s_[:, :, :], np.s_[1, ...]),
        *(np.s_[[0, 2]], np.s_[[]], np.s_[[3, 3, 0], 1], np.s_[np.array([[0, 1], [2, 3]])]),
        *(np.s_[[0, 1, 2], [1, 1, 4]], np.s_[:, [4, 0]], np.s_[np.array([1, 0, 1, 0], bool)]),
        *(np.s_[np.int64(2)], np.s_[()], np.s_[..., :], np.s_[2:, ..., :], np.s_[1, 2, :]),
        *(
            np.s_[np.array([[1, 0, 0, 1, 1]] * 4, bool)],
            np.s_[None],
            np.s_[:, None, 1],
            np.s_[:, ::-2],
        ),
    )

    @pytest.mark.parametrize("key", KEYS, ids=str)
    def test_indexing(self, rng, key):
        x = random_signs(rng, 4, 5, 70)
        got = bo.pack(x)[key]
        assert isinstance(got, bo.BitArray)
        assert got.shape == x[key].shape
        assert got.axis == got.ndim - 1
        assert_array_equal(np.asarray(got), x[key])
        assert got == bo.pack(x[key])

    @pytest.mark.parametrize(
        "axis, key",
        (
            *((0, np.s_[:, 1]), (0, np.s_[:, 1, 2]), (0, np.s_[..., 3]), (0, np.s_[:, [0, 2]])),
            *((1, np.s_[2]), (1, np.s_[2, :, 1:3]), (1, np.s_[..., 1]), (1, np.s_[::-1, :, ::2])),
            *((0, np.s_[:, None]), (2, np.s_[..., None]), (1, np.s_[None, 1, ..., None, 2])),
            *((1, np.s_[[0, 1], :, [1, 2]]), (1, np.s_[1, :, [0, 2]]), (0, np.s_[:])),
            (0, np.s_[:, [0, 1], [1, 2]]),
        ),
        ids=str,
    )
    def test_indexing_beside_the_packed_axis(self, rng, axis, key):
        x = random_signs(rng, 4, 66, 5) if axis == 1 else random_signs(rng, 66, 4, 5)
        b = bo.pack(x, axis)
        assert_array_equal(np.asarray(b[key]), x[key])

    @pytest.mark.parametrize(
        "axis, key",
        (
            *((2, np.s_[:, :, 3]), (2, np.s_[..., 0]), (2, np.s_[0, 0, 0]), (2, np.s_[..., 1:3])),
            *((2, np.s_[..., ::2]), (2, np.s_[..., ::-1]), (2, np.s_[..., [0, 1]]), (0, np.s_[0])),
            *((0, np.s_[1:]), (0, np.s_[[0]]), (1, np.s_[:, 0]), (1, np.s_[0, 1:])),
            *((2, np.s_[4]), (2, np.s_[0, 5]), (2, np.s_[0, 0, :, 0]), (2, np.s_[-5])),
            *((2, np.s_[..., np.ones(70, bool)]), (2, np.s_[np.ones((4, 5, 70), bool)])),
            *((2, np.s_[0, [0, 9]]), (2, np.s_["a"]), (2, np.s_[1.5]), (2, np.s_[..., 0, ...])),
        ),
        ids=str,
    )
    def test_bad_indices(self, rng, axis, key):
        b = bo.pack(random_signs(rng, 4, 5, 70), axis)
        with pytest.raises(IndexError):
            b[key]

    def test_iteration(self, rng):
        x = random_signs(rng, 3, 2, 70)
        rows = list(bo.pack(x))
        assert len(rows) == 3
        for got, want in zip(rows, x, strict=True):
            assert_array_equal(np.asarray(got), want)

    @pytest.mark.parametrize("x", (np.ones(70), np.ones((70, 2))), ids=("vector", "axis 0"))
    def test_no_iteration_over_the_packed_axis(self, x):
        # Python's older protocol would take the IndexError of b[0] for the end of the array.
        with pytest.raises((IndexError, TypeError)):
            list(bo.pack(x, axis=0))

    def test_reshape(self, rng):
        x = random_signs(rng, 4, 6, 70)
        b = bo.pack(x)
        for shape in ((24, 70), (-1, 70), (2, 12, 70), (4, 6, 1, 70), (4, 3, -1, 70), (4, 6, 70)):
            assert_array_equal(np.asarray(b.reshape(shape)), x.reshape(shape))
            assert_array_equal(np.asarray(b.reshape(*shape)), x.reshape(shape))
        assert_array_equal(np.asarray(b[::2, ::-1].reshape(12, 70)), x[::2, ::-1].reshape(12, 70))
        assert_array_equal(np.asarray(b[0, :1].reshape(70)), x[0, 0])
        assert b[:0].reshape(0, 3, 70).shape == (0, 3, 70)

    @pytest.mark.parametrize(
        "shape",
        ((4, 6, 35, 2), (1680,), (24, 71), (5, 70), (-1, -1, 70), (4, 420), (-1,)),
    )
    def test_bad_reshape(self, rng, shape):
        with pytest.raises(ValueError):
            bo.pack(random_signs(rng, 4, 6, 70)).reshape(shape)

    def test_equality(self, rng):
        x = random_signs(rng, 6, 70)
        b = bo.pack(x)
        same = b == bo.pack(x, axis=0)
        assert isinstance(same, np.bool_)
        assert same
        assert not b != b.copy()
        assert b != b[:5]
        assert b != bo.pack(x.T)
        assert bo.pack(np.ones((0, 70))) != bo.pack(np.ones((70, 0)))
        assert bo.pack(np.ones((2, 64))) != bo.pack(np.ones((2, 65)))
        assert bo.pack(-np.ones((2, 65))) != bo.pack(-np.ones((2, 66)))
        for i in (0, 63, 64, 69):
            y = x.copy()
            y[5, i] *= -1
            assert b != bo.pack(y)
            assert b != bo.pack(y, axis=0)
        assert (b == "text") is False
        assert b != None  # noqa: E711

    def test_copy(self, rng):
        for b in (bo.pack(random_signs(rng, 6, 70)), bo.pack(random_signs(rng, 6, 70), 0).T):
            for c in (b.copy(), copy.deepcopy(b)):
                assert c == b
                assert not np.shares_memory(c.words, b.words)
            assert copy.copy(b) == b

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_pickle(self, rng, protocol):
        b = bo.pack(random_signs(rng, 4, 5, 70))
        for value in (
            b,
            b.T,
            b[::2, ::-1],
            b[:0],
            bo.pack(random_signs(rng, 3, 0)),
            bo.pack([1, -1]),
        ):
            back = pickle.loads(pickle.dumps(value, protocol))
            assert back == value
            assert back.axis == value.axis

    def test_asarray(self, rng):
        x = random_signs(rng, 4, 70)
        b = bo.pack(x)
        assert_array_equal(np.asarray(b), x, strict=True)
        assert_array_equal(np.asarray(b, np.float32), x.astype(np.float32), strict=True)
        assert_array_equal(np.array(b, copy=True), x, strict=True)
        with pytest.raises(ValueError):
            np.asarray(b, copy=False)
        assert_array_equal(np.asarray(b, np.bool_), x > 0, strict=True)
        assert_array_equal(np.asarray(b, np.complex64), x.astype(np.complex64), strict=True)
        for dtype in UNSIGNED:  # where -1 would wrap around
            with pytest.raises(TypeError, match=r"dtype must be able to hold -1, got uint"):
                np.asarray(b, dtype)

    def test_repr(self):
        text = repr(bo.pack(np.ones((30, 70)), axis=0))
        assert text.startswith("BitArray(")
        assert "(30, 70)" in text
        assert "axis=0" in text.replace(" ", "")
        assert str(bo.pack(np.ones((3, 0))))


class TestFromWords:
    def test_round_trip(self, isa, rng):
        for shape in ((3, 70), (70,), (2, 3, 128), (4, 0), (0, 65), (1, 1)):
            x = random_signs(rng, *shape)
            b = bo.BitArray.from_words(ref.pack(x), shape)
            assert b == bo.pack(x)
            assert_array_equal(np.asarray(b), x)
            assert b.axis == len(shape) - 1

    def test_strided_and_read_only_words(self, isa, rng):
        x = random_signs(rng, 6, 130)
        words = ref.pack(x)
        words.flags.writeable = False
        wide = np.full((6, 7), 2**64 - 1, np.uint64)
        wide[:, 1:6:2] = words
        for w in (words, np.asfortranarray(words), wide[:, 1:6:2], words[::-1][::-1]):
            b = bo.BitArray.from_words(w, (6, 130))
            assert b == bo.pack(x)
            assert_array_equal(bo.gemm(b, b), ref.gemm(x, x))

    @pytest.mark.parametrize("k", (1, 37, 63, 65, 100, 127))
    def test_padding_bits(self, isa, k):
        k_words = -(-k // 64)
        for row in range(3):
            for bit in range(k, 64 * k_words):
                words = np.zeros((3, k_words), np.uint64)
                words[row, -1] = np.uint64(1) << np.uint64(bit % 64)
                with pytest.raises(ValueError, match=r"^\[.*from_words\] .*padding"):
                    bo.BitArray.from_words(words, (3, k))

    @pytest.mark.parametrize("dtype", (np.int64, np.uint8, np.uint32, np.float64, np.bool_, object))
    def test_dtype(self, dtype):
        with pytest.raises(TypeError, match=r"^\[.*from_words\] "):
            bo.BitArray.from_words(np.zeros((3, 2), dtype), (3, 70))

    @pytest.mark.parametrize(
        "words, shape",
        (
            *(((3, 2), (3, 64)), ((3, 2), (3, 129)), ((3, 2), (2, 70)), ((3, 2), (70,))),
            *(((6,), (3, 128)), ((3, 2), ()), ((), ()), ((), (3,)), ((3, 1), (3, -1))),
            *(((3, 0), (3, 1)), ((3, 1), (3, 0)), ((0, 2), (0, 64)), ((1, 1), (1, 2**70))),
            *(((2, 1), (-2, 64)), ((3, 2), (1, 3, 70))),
        ),
        ids=str,
    )
    def test_shape(self, words, shape):
        with pytest.raises(ValueError, match=r"^\[.*from_words\] "):
            bo.BitArray.from_words(np.zeros(words, np.uint64), shape)

    def test_foreign_byte_order(self, rng):
        """Either the values count, or the type is refused; the bytes are never misread."""
        x = random_signs(rng, 3, 70)
        try:
            b = bo.BitArray.from_words(ref.pack(x).astype(">u8"), x.shape)
        except TypeError:
            return
        assert_array_equal(bo.gemm(b, b), ref.gemm(x, x))


@pytest.mark.parametrize("dtype", (np.int32, np.float32, np.float64, np.int64, np.uint8, np.bool_))
def test_pack_above(isa, threads, rng, dtype):
    for k in EDGE_BITS:
        for rows in (1, 3) if k else (2,):
            x = rng.integers(0, 7, (rows, k)).astype(dtype)
            for threshold in (
                rng.integers(0, 7, k).astype(np.float32) + np.float32(0.5),
                rng.integers(0, 7, k).astype(np.int32),
                np.float32(3),
                3,
            ):
                flip = rng.random(k) < 0.5
                above = x > threshold
                got = bo.pack_above(x, threshold)
                assert bo.BitArray.from_words(got.words, x.shape) == bo.pack(above)
                assert bo.pack_above(x, threshold, flip=flip) == bo.pack(above ^ flip)
                assert bo.pack_above(x, threshold, flip=bo.pack(flip)) == bo.pack(above ^ flip)


def test_pack_above_compares_int32_as_float32(isa):
    """The network that is trained computes in float32, where 2**24 + 1 is 2**24."""
    x = np.int32([[2**24 + 1, 2**24 + 2, -(2**24) - 1, 2**31 - 1]] * 17)
    threshold = np.float32([2**24, 2**24, -(2**24), 2**31 - 128])
    bits = np.asarray(bo.pack_above(x, threshold), bool)
    assert_array_equal(bits, x.astype(np.float32) > threshold)
    assert_array_equal(bits[0], [False, True, False, True])


def test_pack_above_edges(isa):
    inf = np.float32(np.inf)
    x = np.float32([-inf, -0.0, 0.0, 1e-45, inf])
    assert_array_equal(np.asarray(bo.pack_above(x, np.float32(0)), bool), x > 0)
    assert_array_equal(np.asarray(bo.pack_above(x, inf), bool), [False] * 5)
    assert_array_equal(np.asarray(bo.pack_above(x, -inf), bool), [False] + [True] * 4)
    for k in (1, 7, 8, 16, 65, 130):
        for at in {0, k - 1}:
            bad = np.zeros((2, k), np.float32)
            bad[1, at] = np.nan
            with pytest.raises(ValueError, match=r"\[pack_above\] x.*NaN"):
                bo.pack_above(bad, np.float32(0))


class Index:
    """Not an integer, though Python would use it as an index."""

    def __index__(self):
        return 1


@pytest.mark.parametrize("size", [Index(), True, np.True_, np.array(1), 1.0, "1"])
def test_only_integers_are_sizes(size):
    words = np.zeros((1, 1), np.uint64)
    with pytest.raises(TypeError, match=r"\[from_words\] shape must be integers"):
        bo.BitArray.from_words(words, (size, 64))
    with pytest.raises(TypeError, match=r"\[reshape\] shape must be integers"):
        bo.BitArray.from_words(words, (1, 64)).reshape(size, 64)


@pytest.mark.parametrize("dtype", [None, object, str, complex, np.uint8, "nonsense", 3, (int, 2)])
def test_unpack_refuses_other_dtypes(dtype):
    with pytest.raises(TypeError, match=r"^\[unpack\] dtype must be a signed integer, float or bo"):
        bo.unpack(bo.pack([1.0, -1.0]), dtype)


def test_from_words_looks_at_padding_without_an_array(rng):
    words = np.zeros((2**20, 1), np.uint64)
    tracemalloc.start()
    try:
        bo.BitArray.from_words(words, (2**20, 63))
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()
    words[rng.integers(2**20)] = 2**63
    with pytest.raises(ValueError, match="padding bits must be 0"):
        bo.BitArray.from_words(words, (2**20, 63))
