"""Logic on BitArrays and their majority, against NumPy on bools; padding bits stay 0."""

import itertools
import operator

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from bitops.ops import logic, majority
from conftest import EDGE_BITS, random_signs

# By name: the operator, the ufunc, and what they do with bools.
LOGIC = {
    "product": (operator.mul, np.multiply, lambda x, y: x == y),
    "and": (operator.and_, np.bitwise_and, np.logical_and),
    "or": (operator.or_, np.bitwise_or, np.logical_or),
    "xor": (operator.xor, np.bitwise_xor, np.not_equal),
}
SHAPES = (
    ((3, 70), (3, 70)),
    ((3, 70), (70,)),
    ((3, 1), (3, 70)),
    ((1, 130), (3, 1)),
    ((2, 1, 65), (4, 1)),
    ((1,), (2, 64)),
    ((2, 3, 4), (3, 4)),
    ((0, 3), (1, 3)),
    ((3, 0), (3, 1)),
)


def assert_bits(b, wanted, axis=None):
    assert isinstance(b, bo.BitArray) and b.shape == wanted.shape
    assert_array_equal(b.words, ref.pack(wanted, b.axis), strict=True)
    assert axis is None or b.axis == axis


@pytest.mark.parametrize("large", (False, True))
@pytest.mark.parametrize("name", LOGIC)
def test_two_operands(rng, monkeypatch, name, large):
    if large:
        monkeypatch.setattr(logic, "LARGE_WORDS", 1)
    apply, ufunc, plain = LOGIC[name]
    for k in EDGE_BITS:
        x, y = rng.random((2, 3, k)) < 0.5
        a, b = bo.pack(x), bo.pack(y)
        assert_bits(apply(a, b), plain(x, y), axis=1)
        assert_bits(ufunc(a, b), plain(x, y), axis=1)
        assert_bits(~a, ~x, axis=1)
        assert_bits(a, x)
        assert_bits(b, y)


@pytest.mark.parametrize("name", LOGIC)
def test_broadcasting_and_packed_axes(rng, name):
    apply, _, plain = LOGIC[name]
    for left, right in SHAPES:
        x, y = rng.random(left) < 0.5, rng.random(right) < 0.5
        for i, j in itertools.product(range(x.ndim), range(y.ndim)):
            assert_bits(apply(bo.pack(x, i), bo.pack(y, j)), plain(x, y))
            assert_bits(apply(bo.pack(y, j), bo.pack(x, i)), plain(y, x))


def test_products_of_values(rng):
    x, y = random_signs(rng, 5, 70), random_signs(rng, 5, 70)
    a, b = bo.pack(x), bo.pack(y)
    assert_array_equal(np.asarray(a * b), x * y)
    assert_array_equal(np.asarray(-a), -x)
    assert a ^ b == -(a * b) and ~a == -a


def test_which_axis_the_result_is_packed_along():
    wide, tall = bo.pack(np.ones((3, 70))), bo.pack(np.ones((3, 1)), 0)
    assert (wide * tall).axis == (tall * wide).axis == 1
    other = bo.pack(np.ones((3, 70)), 0)
    assert (wide * other).axis == 1 and (other * wide).axis == 0


def test_large_arrays_are_filled_in_blocks(rng):
    for shape in ((3001, 701), (7, 300_001), (5, 1 << 19)):
        words = rng.integers(0, 2**64, (2, shape[0], -(-shape[1] // 64)), np.uint64)
        words[..., -1] &= np.uint64(2 ** (shape[1] % 64) - 1) if shape[1] % 64 else ~np.uint64(0)
        a, b = (bo.BitArray.from_words(part, shape) for part in words)
        xor = bo.BitArray.from_words(words[0] ^ words[1], shape)
        ones = bo.pack(np.ones((1, shape[1])))
        assert a ^ b == xor and a * b == -xor and -a == a ^ ones
        assert a * bo.pack(-np.ones((shape[0], 1))) == -a
        for made in (a * b, -a, a * bo.pack(np.ones((shape[0], 1)))):
            bo.BitArray.from_words(made.words, shape)  # checks the padding bits


def test_strided_and_read_only_operands(rng):
    x, y = rng.random((2, 6, 130)) < 0.5
    words = bo.pack(x).words
    words.flags.writeable = False
    a = bo.BitArray.from_words(words, x.shape)
    assert_bits(a[::2] * bo.pack(y)[::-2], x[::2] == y[::-2])
    assert_bits(~a.T, ~x.T, axis=0)
    assert_bits(-bo.pack(y)[1], ~y[1])


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"^\[BitArray\] shapes .* got \(2, 3\) and \(3, 3\)"):
        bo.pack(np.ones((2, 3))) * bo.pack(np.ones((3, 3)))


class Other:
    def __rmul__(self, b):
        return "theirs"


def test_other_types_may_answer():
    assert bo.pack([1, 1]) * Other() == "theirs"


@pytest.mark.parametrize("n", (0, 1, 2, 3, 4, 5, 8, 63, 64, 65, 300))
def test_majority(isa, rng, threads, n):
    for shape in ((n, 70), (n, 64), (n, 3, 65), (n, 0), (n, 1)):
        for place in range(len(shape)):
            x = np.moveaxis(random_signs(rng, *shape), 0, place)
            for axis in range(x.ndim):
                got = bo.majority(bo.pack(x, axis), place)
                assert_bits(got, ref.majority(x, place) > 0)
            assert bo.majority(x, place - x.ndim) == got


@pytest.mark.parametrize("k", (520, 1024, 4100))
def test_columns_of_rows_of_several_blocks(isa, rng, k):
    """Rows are added 8 at a time, block by block; the last of them are fewer."""
    x = rng.random((200, k)) < 0.5
    for rows in (5, 8, 60, 64, 65, 129, 200):
        counts, b = x[:rows].sum(axis=0), bo.pack(x[:rows])
        assert_array_equal(bo.popcount(b, 0), counts)
        assert bo.majority(b, 0) == bo.pack(2 * counts >= rows)


def test_a_tie_is_won_by_plus_one():
    assert bo.majority([[1, -1, -1, 1], [-1, 1, -1, 1]]) == bo.pack([1, 1, -1, 1])
    assert np.asarray(bo.majority(np.ones((0, 3)))).tolist() == [1, 1, 1]
    assert np.asarray(bo.majority(np.ones((3, 0)), 1)).tolist() == [1, 1, 1]


def test_majority_of_many_rows(isa, rng):
    """Along the packed axis, block by block; the last block and its last word are not full."""
    x = rng.random((1200, 7)) < 0.5
    for rows in (1, 63, 64, 65, 511, 512, 513, 1200):
        for b, axis in ((bo.pack(x[:rows]), 1), (bo.pack(x[:rows].T, 0), 0)):
            assert bo.majority(b, axis) == bo.pack(x[:rows].sum(axis=1) >= 4)


def test_majority_of_long_rows(rng, monkeypatch):
    """Rows that threads share are counted first."""
    monkeypatch.setattr(majority, "MOST_BITS", 100)
    x = rng.random((70, 101)) < 0.5
    assert bo.majority(bo.pack(x), 1) == bo.pack(x.sum(axis=1) >= 51)


@pytest.mark.parametrize("k", (1, 2, 5, 63, 64))
def test_rows_of_one_word(isa, rng, k):
    x = rng.random((300, k)) < 0.5
    b = bo.pack(x)
    assert np.flip(b, 1) == bo.pack(x[:, ::-1])
    for shift in {1, k // 2, k - 1, k, -3}:
        assert np.roll(b, shift, 1) == bo.pack(np.roll(x, shift, 1))


def test_majority_of_many_words(rng):
    """More than one block of counts, by rows and by columns."""
    for shape in ((3, 300_001), (3001, 3, 130), (2, 3, 270_000)):
        words = rng.integers(0, 2**64, (*shape[:-1], -(-shape[-1] // 64)), np.uint64)
        words[..., -1] &= np.uint64(2 ** (shape[-1] % 64) - 1)
        b = bo.BitArray.from_words(words, shape)
        axis = len(shape) - 2
        x, y, z = (b[..., i, :] for i in range(3))
        assert bo.majority(b, axis) == x & y | z & (x | y)
    assert bo.majority(bo.pack(np.ones((2, 9)), 1)).axis == 0


def test_majority_of_parts_of_rows(isa, rng):
    """Words are read where they lie, unless they descend."""
    x = rng.random((150, 4, 1200)) < 0.5
    b = bo.BitArray.from_words(bo.pack(x).words[..., 3:15], (150, 4, 12 * 64))
    x = x[..., 192:960]
    for part in (np.s_[:], np.s_[::2], np.s_[5:8], np.s_[::-1], np.s_[:, ::3], np.s_[:, ::-1]):
        for axis in (0, 1):
            votes = x[part].sum(axis)
            assert_bits(bo.majority(b[part], axis), 2 * votes >= x[part].shape[axis])


def test_counts_of_many_short_rows(isa, rng):
    """Several of which are counted as if they were one."""
    for k in (1, 64, 65, 190, 256, 513, 1000):
        for rows in (1023, 1100, 2049):
            x = rng.random((rows, k)) < 0.5
            assert_array_equal(bo.popcount(bo.pack(x), 0), x.sum(axis=0))
            assert_bits(bo.majority(bo.pack(x)), 2 * x.sum(axis=0) >= rows)
