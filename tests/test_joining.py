"""np.concatenate, stack, take, roll and flip of BitArrays, against NumPy on bools."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from bitops.ops import joining
from conftest import EDGE_BITS

SHAPES = ((65,), (3, 70), (9, 64), (130, 2), (2, 9, 65), (3, 0), (0, 70), (1, 1, 1))


def assert_bits(b, wanted, axis=None):
    assert isinstance(b, bo.BitArray) and b.shape == wanted.shape
    assert_array_equal(b.words, ref.pack(wanted, b.axis), strict=True)
    assert axis is None or b.axis == axis


def draw(rng, shape):
    """Bools, and the same packed along each axis."""
    x = rng.random(shape) < 0.5
    return [(x, bo.pack(x, axis)) for axis in range(x.ndim)]


@pytest.mark.parametrize("shape", SHAPES)
def test_concatenate(rng, threads, shape):
    for axis in range(-len(shape), len(shape)):
        for size in (0, 1, 63, 64, 65):
            other = list(shape)
            other[axis] = size
            for (x, a), (y, b) in zip(draw(rng, shape), draw(rng, other)[::-1], strict=True):
                wanted = np.concatenate([x, y, x], axis)
                assert_bits(np.concatenate([a, b, a], axis), wanted, a.axis)
    x, a = draw(rng, shape)[0]
    assert_bits(np.concatenate([a, a], axis=None), np.concatenate([x, x], axis=None))
    assert_bits(np.concatenate((a,)), x)


def test_parts_of_many_lengths(rng):
    for _ in range(20):
        lengths = rng.choice(EDGE_BITS[:30], 6)
        parts = [rng.random((3, k)) < 0.5 for k in lengths]
        joined = np.concatenate([bo.pack(part) for part in parts], axis=1)
        assert_bits(joined, np.concatenate(parts, axis=1), 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_stack(rng, shape):
    for axis in range(-len(shape) - 1, len(shape) + 1):
        for (x, a), (y, b) in zip(draw(rng, shape), draw(rng, shape)[::-1], strict=True):
            assert_bits(np.stack([a, b, a], axis), np.stack([x, y, x], axis))
            assert_bits(np.stack([a], axis), np.stack([x], axis))


@pytest.mark.parametrize("shape", SHAPES)
def test_take(rng, shape):
    for x, b in draw(rng, shape):
        for axis in (None, *range(-x.ndim, x.ndim)):
            n = x.size if axis is None else shape[axis]
            for places in ([], [0, -1, 0], [[0], [-1]], np.arange(n) if n < 150 else [5]):
                if n or not np.size(places):
                    places = np.asarray(places, int)
                    assert_bits(np.take(b, places, axis), np.take(x, places, axis))
            if n and axis is not None and x.ndim > 1:
                assert_bits(np.take(b, n - 1, axis), np.take(x, n - 1, axis))
            if n:
                assert_bits(
                    np.take(b, [-1, n], axis, mode="clip"), np.take(x, [-1, n], axis, mode="clip")
                )
            if x.size:
                with pytest.raises(IndexError):
                    np.take(b, [n], axis)


def test_take_many_rows(rng, threads, monkeypatch):
    monkeypatch.setattr(joining, "MANY_WORDS", 1)
    for k in (449, 512, 700, 1024):
        x = rng.random((300, k)) < 0.5
        b = bo.pack(x)
        for places in (rng.integers(-300, 300, (70, 9)), rng.permutation(300)[::2], [0], []):
            places = np.asarray(places, np.int32)
            assert_bits(np.take(b, places, 0), x[places], places.ndim)
        for places in ([3, 300], [-301]):
            with pytest.raises(IndexError, match="out of bounds for axis 0 with size 300"):
                np.take(b, places, 0)
        with pytest.raises(TypeError, match="Cannot cast"):
            np.take(b, [1.0], 0)
        assert_bits(np.take(b, np.uint64([2, 1]), 0), x[[2, 1]])


@pytest.mark.parametrize("shape", SHAPES)
def test_lists_as_numpy_takes_them(rng, shape):
    """Empty ones, and several axes."""
    for x, b in draw(rng, shape):
        every = tuple(range(x.ndim))
        for axis in (None, *range(-x.ndim, x.ndim)):
            assert_bits(np.take(b, [], axis), np.take(x, [], axis))
            assert np.size(b, axis) == np.size(x, axis)
        assert_bits(np.take(b, [[]], 0), np.take(x, [[]], 0))
        assert np.size(b, every) == x.size and np.size(b, every[1:]) * shape[0] == x.size
        assert_bits(np.flip(b, list(every)), np.flip(x, every), b.axis)
        assert not np.array_equal(b, [[1], [1, 2]])


@pytest.mark.parametrize("shape", SHAPES)
def test_roll(rng, threads, shape):
    for x, b in draw(rng, shape):
        for shift in (0, 1, -1, 63, 64, 65, -130, 10**6):
            for axis in (None, *range(-x.ndim, x.ndim)):
                assert_bits(np.roll(b, shift, axis), np.roll(x, shift, axis), b.axis)
        both = tuple(range(x.ndim))
        assert_bits(np.roll(b, 3, both), np.roll(x, 3, both))
        assert_bits(np.roll(b, both, both), np.roll(x, both, both))


@pytest.mark.parametrize("shape", SHAPES)
def test_flip(rng, threads, shape):
    for x, b in draw(rng, shape):
        for axis in (None, *range(-x.ndim, x.ndim), tuple(range(x.ndim)), ()):
            assert_bits(np.flip(b, axis), np.flip(x, axis), b.axis)


def test_every_length_and_shift(rng):
    for k in EDGE_BITS[:40]:
        x = rng.random((2, k)) < 0.5
        b = bo.pack(x)
        assert_bits(np.flip(b, 1), x[:, ::-1])
        for shift in range(-3, min(k, 131)):
            assert_bits(np.roll(b, shift, 1), np.roll(x, shift, 1))


def test_rows_that_threads_share(rng, threads):
    x = rng.random((700, 4001)) < 0.5
    b = bo.pack(x)
    assert_bits(np.roll(b, 77, 1), np.roll(x, 77, 1))
    assert_bits(np.flip(b[::-1]), np.flip(x[::-1]))
    assert_bits(np.concatenate([b, b[::-1]], 1), np.concatenate([x, x[::-1]], 1))
    places = rng.integers(0, 4001, 300)
    assert_bits(np.take(b, places, 1), x[:, places])


@pytest.mark.parametrize("end", (True, False), ids=("end", "begin"))
def test_no_word_beside_the_rows_is_touched(rng, fenced, end):
    for k in (1, 63, 64, 65, 127, 128, 129, 193):
        x = rng.random((3, k)) < 0.5
        b = bo.BitArray.from_words(fenced[0].place(ref.pack(x), end), x.shape)
        assert_bits(np.flip(b), np.flip(x))
        for shift in range(k):
            assert_bits(np.roll(b, shift, 1), np.roll(x, shift, 1))
        assert_bits(np.concatenate([b, b, b], 1), np.concatenate([x, x, x], 1))


B = bo.pack(np.ones((2, 70)))


@pytest.mark.parametrize(
    "call, error, rule",
    [
        (lambda: np.concatenate([B, B[:, None]]), ValueError, r"\[concatenate\] shapes.*\(2, 1,"),
        (lambda: np.concatenate([B, B[:1]], 1), ValueError, r"\[concatenate\] shapes.*\(1, 70\)"),
        (lambda: np.concatenate([B, B], 2), ValueError, r"\[concatenate\] axis.*2"),
        (lambda: np.stack([B, B[:1]]), ValueError, r"\[stack\] shapes.*\(1, 70\)"),
        (lambda: np.concatenate([B, B], 0, B), TypeError, r"takes no out, got BitArray of shape"),
        (lambda: np.stack([B], dtype=int), TypeError, r"np\.stack .* takes no dtype, got type"),
        (lambda: np.take(B, [0], 0, np.zeros((1, 2))), TypeError, r"no out, got ndarray of shape"),
        (lambda: np.stack([B], 4), ValueError, r"\[stack\] axis.*4"),
        (lambda: np.take(B, [0], 3), ValueError, r"\[take\] axis.*3"),
        (lambda: np.take(B, 0), IndexError, r"\[BitArray\] one element.*np\.asarray"),
        (lambda: np.roll(B, 1, 2), ValueError, r"\[roll\] axis.*2"),
        (lambda: np.flip(B, (0, 0)), ValueError, r"\[flip\] axes.*\(0, 0\)"),
        (lambda: np.flip(B, -3), ValueError, r"\[flip\] axis.*-3"),
        (lambda: np.size(B, 5), ValueError, r"\[size\] axis.*5"),
        (lambda: np.size(B, [0, -2]), ValueError, r"\[size\] axes.*\[0, -2\]"),
        (lambda: np.concatenate(b for b in [B, B]), TypeError, r"\[concatenate\] .* sequence"),
        (lambda: np.roll(B, None, 1), TypeError, r"\[roll\] shift .* got None"),
        (lambda: np.roll(B, [0, np.nan]), TypeError, r"\[roll\] shift .* got \[0, nan\]"),
        (lambda: np.roll(B, B, 1), TypeError, r"\[roll\] shift must not be packed"),
        (lambda: np.take(B, B, 0), TypeError, r"\[take\] indices must not be packed"),
        (lambda: np.take(B, np.ma.zeros(2, int), 0), TypeError, r"\[take\] indices .* masked"),
        (lambda: B[B], TypeError, r"\[BitArray\] an index .* packed.* np\.asarray\(b, bool\)"),
        (lambda: B[B[0], :], TypeError, r"\[BitArray\] an index must not be packed"),
        (lambda: B[np.ma.zeros(2, int)], TypeError, r"\[BitArray\] an index must not be masked"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, rule):
    with pytest.raises(error, match=rule):
        call()


@pytest.mark.parametrize("k", (190, 2**20))
def test_moves_past_the_caches(rng, k):
    """Results of 128 MiB and more are written by streams; parts of them are not."""
    words = rng.integers(0, 2**64, (2**27 // 8 // -(-k // 64) + 3, -(-k // 64)), np.uint64)
    words[:, -1] &= np.uint64(2**64 - 1) >> np.uint64(-k % 64)
    b = bo.BitArray.from_words(words, (len(words), k))
    some = [0, 1, len(words) // 2, len(words) - 2, len(words) - 1]
    for shift in (-13, k // 2 + 5):
        assert np.roll(b, shift, 1)[some] == np.roll(b[some], shift, 1)
    flipped = np.flip(b, 1)
    assert flipped[some] == np.flip(b[some], 1)
    assert (b * flipped)[some] == b[some] * flipped[some]
    order = rng.permutation(len(words))
    assert np.take(b, order, 0)[some] == b[order[some]]


@pytest.mark.parametrize("k", (128, 192, 6400, 40_000 * 64))
def test_rolls_of_whole_words(rng, k):
    """By less than a word, to both sides; several rows are shifted as one."""
    x = rng.random((3, k)) < 0.5
    for shift in (1, 63, 64, 65, -1, -63, -64, -70):
        assert np.roll(bo.pack(x), shift, 1) == bo.pack(np.roll(x, shift, 1))
