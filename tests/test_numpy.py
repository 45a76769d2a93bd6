"""What NumPy makes of a BitArray: the right value, or an error that says what to write."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops.layers import BinaryDense, PackedDense, PackedReLU, Parameter, Sequential
from bitops.training import fit

ONES = bo.pack(np.ones((1, 200)))  # whose product with itself, 200, int8 cannot hold
BITS = bo.pack(np.array([[1, -1, 1], [-1, -1, 1]]))


@pytest.mark.parametrize(
    "call",
    [
        lambda b: np.dot(b, b.T),
        lambda b: np.dot(np.ones((1, 200), np.int8), b.T),
        lambda b: np.inner(b, b),
        lambda b: np.vdot(b, b),
        lambda b: np.tensordot(b, b, axes=((1,), (1,))),
        lambda b: np.einsum("ik,jk", b, b),
        lambda b: np.einsum("ik,jk", b, np.asarray(b), optimize=True),
        lambda b: np.linalg.multi_dot([b, b.T]),
        lambda b: np.linalg.matrix_power(b, 2),
        lambda b: np.correlate(b[0], b[0]),
        lambda b: np.convolve(b[0], b[0]),
        lambda b: np.kron(b, b),
        lambda b: np.outer(b, b),
        lambda b: np.trace(b),
        lambda b: np.cumsum(b),
        lambda b: np.prod(b),
    ],
)
def test_products_and_sums_are_refused(call):
    with pytest.raises(
        TypeError, match=r"bits; use @ or bitops\.matmul .* np\.asarray\(b, dtype\)"
    ):
        call(ONES)
    assert (ONES @ ONES.T).tolist() == [[200]]


@pytest.mark.parametrize(
    "call",
    [
        lambda b: np.where(b, 1, 0),
        np.nonzero,
        np.count_nonzero,
        np.packbits,
        np.any,
        np.argmax,
        np.sort,
        np.unique,
        np.median,
        lambda b: np.vstack([b, b]),
        lambda b: np.repeat(b, 2),
        lambda b: np.transpose(b),
        lambda b: np.delete(b, 0, axis=0),
        lambda b: np.save("never.npy", b),
    ],
)
def test_functions_that_would_read_values_are_refused(call):
    with pytest.raises(TypeError, match=r"^\[BitArray\] np\.\w+ does not take packed bits"):
        call(BITS)


@pytest.mark.parametrize(
    "call",
    [
        lambda b: b + b,
        lambda b: np.ones(3) * b,
        lambda b: np.add(b, 1),
        lambda b: np.sign(b),
        lambda b: np.matmul(b, b.T),
        lambda b: np.equal(b, b),
        lambda b: np.bitwise_xor.reduce(b),
        lambda b: b * 2,
        lambda b: b & np.asarray(b),
        lambda b: b ^ None,
        lambda b: np.bitwise_or(b, b, out=np.zeros((2, 3), np.int8)),
    ],
)
def test_arithmetic_is_refused(call):
    with pytest.raises(TypeError):
        call(BITS)


@pytest.mark.parametrize(
    "call, rule",
    [
        (lambda b: np.ones(3) * b, r"np\.multiply takes BitArrays alone, got ndarray; pack\(x\)"),
        (lambda b: b | [1, 1, 1], r"\| takes two BitArrays, got list; pack\(x\)"),
        (lambda b: np.add(b, b), r"np\.add does not take packed bits; use @ .*np\.asarray"),
        (lambda b: np.add.reduce(b), r"np\.add\.reduce does not take packed bits; use @"),
        (lambda b: np.invert(b, where=True), r"np\.invert of packed bits takes no where"),
        (lambda b: np.stack([b, np.asarray(b)]), r"np\.stack takes BitArrays alone, got ndarray"),
        (lambda b: np.concatenate([b], dtype=int), r"np\.concatenate .* takes no dtype"),
    ],
)
def test_errors_say_what_to_write(call, rule):
    with pytest.raises(TypeError, match=rf"^\[BitArray\] {rule}"):
        call(BITS)


def test_arrays_of_numbers_beside_operators():
    x = np.array([[1.0, -1.0], [1.0, 1.0]])
    assert_array_equal(x @ BITS, x @ np.asarray(BITS))
    assert_array_equal(np.bitwise_count(BITS).sum(axis=-1), bo.popcount(BITS, -1))
    with pytest.raises(TypeError, match=r"np\.matmul"):
        x @= bo.pack(np.ones((2, 2)))


def test_what_numpy_may_ask():
    assert np.shape(BITS) == (2, 3) and np.ndim(BITS) == 2
    assert np.size(BITS) == 6 and np.size(BITS, 1) == 3
    copy = np.copy(BITS)
    assert isinstance(copy, bo.BitArray) and copy == BITS
    assert not np.shares_memory(copy.words, BITS.words)
    assert np.array_equal(BITS, bo.pack(np.asarray(BITS), axis=0))
    assert np.array_equal(BITS, np.asarray(BITS))
    assert not np.array_equal(BITS, np.asarray(BITS)[:1])
    assert_array_equal(np.asarray(BITS), [[1, -1, 1], [-1, -1, 1]])


@pytest.mark.parametrize("other", [np.asarray(BITS), np.float32(1), [[1, -1, 1]], 1, 1.0, (1,)])
def test_comparison_with_numbers_is_refused(other):
    for compare in (lambda: BITS == other, lambda: other == BITS, lambda: BITS != other):
        with pytest.raises(TypeError, match=r"== compares two BitArrays"):
            compare()


def test_comparison_with_other_things_is_false():
    assert BITS != None  # noqa: E711
    assert not BITS == "bits"


@pytest.mark.parametrize("call", [bo.pack, bo.prepack, bo.popcount, lambda x: bo.gemm(x, x)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_unsigned_numbers_have_no_sign(call, dtype):
    with pytest.raises(TypeError, match=r"must not be unsigned.* bool .*from_words.*bitplane_gemm"):
        call(np.array([[0, 255], [1, 0]], dtype))


@pytest.mark.parametrize(
    "call",
    [
        lambda u: bo.hamming(u, u),
        lambda u: bo.hamming_topk(u, u, 1),
        lambda u: bo.gemm_sign(u, u, 0),
        lambda u: bo.matmul(u, u.T),
        lambda u: bo.weight_gemm(np.ones((2, 2)), u),
        lambda u: bo.im2col(u[None, ..., None], 1),
        lambda u: bo.conv2d(u[None, ..., None], np.ones((1, 1, 1, 1))),
        lambda u: bo.binarize_weights(u),
    ],
)
def test_no_operand_is_packed_by_the_sign_of_unsigned_numbers(call):
    with pytest.raises(TypeError, match="must not be unsigned"):
        call(np.array([[0, 255], [1, 0]], np.uint8))


def masked(values):
    mask = np.zeros(values.shape, bool)
    mask.flat[0] = True
    return np.ma.masked_array(values, mask)


ROWS, COLUMN = np.ones((3, 5)), np.ones(3)
FILTERS = np.ones((3, 1, 1, 5))
TAKE_ARRAYS = {
    "pack": lambda: bo.pack(masked(ROWS)),
    "pack_above": lambda: bo.pack_above(ROWS, 0, flip=masked(np.ones(5, bool))),
    "gemm_sign": lambda: bo.gemm_sign(ROWS, ROWS, masked(np.ones(3, int))),
    "conv2d_sign": lambda: bo.conv2d_sign(FILTERS, FILTERS, 0, flip=masked(COLUMN > 0)),
    "weight_gemm": lambda: bo.weight_gemm(masked(ROWS), ROWS),
    "weight_conv2d": lambda: bo.weight_conv2d(masked(FILTERS), FILTERS),
    "bitplane_gemm": lambda: bo.bitplane_gemm(masked(ROWS.astype(np.uint8)), ROWS),
    "PackedDense": lambda: PackedDense(ROWS, alpha=masked(COLUMN)),
    "PackedReLU": lambda: PackedReLU()(masked(ROWS)),
    "outputs": lambda: Sequential(BinaryDense(5, 3)).outputs(masked(ROWS)),
    "Parameter": lambda: Parameter(ROWS).assign(masked(ROWS)),
    "fit": lambda: fit(Sequential(BinaryDense(5, 3)), ROWS, masked(np.ones(3, int))),
}


@pytest.mark.parametrize("name", TAKE_ARRAYS)
def test_masked_arrays_are_refused(name):
    """Their masks would be lost without a word."""
    with pytest.raises(TypeError, match=rf"^\[{name}\] \w+ must not be masked, got"):
        TAKE_ARRAYS[name]()


@pytest.mark.parametrize("x", [["ab", "cd"], [None, 1], object()])
def test_objects_are_refused_by_their_own_name(x):
    with pytest.raises(TypeError, match="must hold real numbers, got"):
        bo.pack(x)


# ---- indices -----------------------------------------------------------------------------------

PARTS = (..., slice(None), None, 1, [0, 1], np.array([True, False]), slice(None, None, -1))


def test_indices_with_dots_are_those_of_numpy(rng):
    """Also where '...' stands for no axis, and parts index arrays all the same."""
    x = rng.choice([-1, 1], (2, 2, 2, 70))
    compared = 0
    for axis in (0, 1, 3):
        values = np.moveaxis(x, 3, axis)
        b = bo.pack(values, axis)
        for index in itertools.product(PARTS, repeat=4):
            if sum(part is ... for part in index) != 1:
                continue
            try:
                got = b[index]
            except IndexError:
                continue
            assert_array_equal(np.asarray(got), values[index])
            compared += 1
    assert compared > 500


@pytest.mark.parametrize("index", [True, np.True_, np.array(False), (0, True), (..., True)])
def test_a_bool_is_no_index(index):
    with pytest.raises(IndexError, match="an index must not be one bool"):
        BITS[index]


def test_iteration():
    assert [row == BITS[i] for i, row in enumerate(BITS)] == [True, True]
    with pytest.raises(TypeError, match="the packed axis cannot be iterated over"):
        iter(bo.pack(np.ones((3, 2)), 0))


# ---- words -------------------------------------------------------------------------------------


def test_words_cannot_shrink():
    given = np.ones((4, 2), np.uint64)
    for b in (bo.pack(np.ones((4, 128))), bo.BitArray.from_words(given, (4, 128))):
        with pytest.raises(ValueError, match="resize"):
            b.words.resize((1, 2), refcheck=False)
        b.words.shape = (8,)
        b.words.dtype = np.uint8
        given.shape = (8,)
        assert b.words.shape == (4, 2) and b.words.dtype == np.uint64
        assert bo.gemm(b, b).shape == (4, 4)
        b.words[0, 0] = 0  # the words are shared all the same
        assert b.words[0, 0] == 0
        given.shape = (4, 2)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_words_of_a_subclass():
    b = bo.BitArray.from_words(np.matrix([[1], [2]], dtype=np.uint64), (2, 3))
    assert type(b.words) is np.ndarray and b[0].shape == (3,)


def test_prepacked_weights_have_words_of_their_own(isa):
    w = bo.pack(np.ones((8, 64)))
    panels, a = bo.prepack(w), np.ones((2, 64))
    w.words[...] = 0
    for call in (bo.gemm, bo.weight_gemm, bo.hamming):
        want = 0 if call is bo.hamming else 64
        assert (call(a, panels) == want).all()
    with bo.isa.use("generic"):
        assert (bo.gemm(a, panels) == 64).all()
