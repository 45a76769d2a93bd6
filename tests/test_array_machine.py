"""A BitArray beside a NumPy array of +-1: any sequence of operations keeps the two equal."""

import copy
import pickle

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref

SIZES = st.sampled_from((0, 1, 2, 3, 5, 63, 64, 65, 130))
MAX_SIZE = 4000


def values(seed, shape):
    return np.random.default_rng(seed).integers(0, 2, shape, np.int8) * np.int8(2) - np.int8(1)


def is_small(shape):
    return np.prod(shape) <= MAX_SIZE


class Arrays(RuleBasedStateMachine):
    """`b` and the values `x` that it must have."""

    @initialize(
        seed=st.integers(0, 1000),
        shape=st.lists(SIZES, min_size=1, max_size=4)
        .map(tuple)
        .filter(lambda s: np.prod(s) < 4000),
        data=st.data(),
    )
    def start(self, seed, shape, data):
        self.x = values(seed, shape)
        self.b = bo.pack(self.x, data.draw(st.integers(-len(shape), len(shape) - 1)))

    @property
    def others(self):
        """Shape of the axes that are not packed."""
        return tuple(size for i, size in enumerate(self.x.shape) if i != self.b.axis)

    def full_index(self, others):
        """An index of the axes that are not packed, with ':' for the one that is."""
        return (*others[: self.b.axis], slice(None), *others[self.b.axis :])

    @rule(data=st.data())
    def index(self, data):
        index = data.draw(hnp.basic_indices(self.others, allow_newaxis=False, allow_ellipsis=False))
        index = index if isinstance(index, tuple) else (index,)
        index += (slice(None),) * (len(self.others) - len(index))
        self.b, self.x = self.b[self.full_index(index)], self.x[self.full_index(index)]

    @precondition(lambda self: self.x.ndim < 5)
    @rule(data=st.data())
    def new_axis(self, data):
        place = data.draw(st.integers(0, self.x.ndim))
        index = (slice(None),) * place + (None,)
        self.b, self.x = self.b[index], self.x[index]

    @precondition(lambda self: self.others and 0 not in self.others)
    @rule(data=st.data())
    def take(self, data):
        """Positions along one axis, repeated and in any order."""
        place = data.draw(st.sampled_from([i for i in range(self.x.ndim) if i != self.b.axis]))
        size = self.x.shape[place]
        most = min(4, max(1, MAX_SIZE * size // max(self.x.size, 1)))
        positions = data.draw(st.lists(st.integers(-size, size - 1), max_size=most))
        index = (slice(None),) * place + (np.array(positions, np.intp),)
        self.b, self.x = self.b[index], self.x[index]

    @precondition(lambda self: self.others)
    @rule(data=st.data())
    def mask(self, data):
        place = data.draw(st.sampled_from([i for i in range(self.x.ndim) if i != self.b.axis]))
        size = self.x.shape[place]
        chosen = values(data.draw(st.integers(0, 99)), size) > 0
        index = (slice(None),) * place + (chosen,)
        self.b, self.x = self.b[index], self.x[index]

    @rule()
    def transpose(self):
        self.b, self.x = self.b.T, self.x.T

    @precondition(lambda self: self.b.axis == self.x.ndim - 1)
    @rule(data=st.data())
    def reshape(self, data):
        *lead, k = self.x.shape
        rows = int(np.prod(lead))
        divisors = [d for d in range(1, rows + 1) if rows % d == 0] or [1]
        first = data.draw(st.sampled_from(divisors))
        shape = data.draw(st.sampled_from(((rows, k), (1, rows, k), (first, rows // first, k))))
        self.b, self.x = self.b.reshape(shape), self.x.reshape(shape)

    @rule(data=st.data())
    def repack(self, data):
        self.b = bo.pack(self.b, data.draw(st.integers(-self.x.ndim, self.x.ndim - 1)))

    @rule()
    def unpack_and_pack(self):
        self.b = bo.pack(bo.unpack(self.b, np.float32), self.b.axis)

    @rule(how=st.sampled_from((bo.BitArray.copy, copy.copy, copy.deepcopy)))
    def copy(self, how):
        self.b = how(self.b)

    @rule(protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
    def pickle(self, protocol):
        self.b = pickle.loads(pickle.dumps(self.b, protocol))

    @rule()
    def adopt(self):
        """The words alone, as those of an array packed along its last axis."""
        self.x = np.moveaxis(self.x, self.b.axis, -1)
        self.b = bo.BitArray.from_words(self.b.words, self.x.shape)

    @precondition(lambda self: self.x.size)
    @rule(seed=st.integers(0, 1000))
    def assign(self, seed):
        """New bits through the words of a copy, which are shared with the array."""
        self.b, self.x = self.b.copy(), values(seed, self.x.shape)
        self.b.words[...] = bo.pack(self.x, self.b.axis).words

    @rule(seed=st.integers(0, 1000), operation=st.sampled_from((np.bitwise_and, np.bitwise_or)))
    def logic(self, seed, operation):
        """AND and OR of words are the minimum and the maximum."""
        other = values(seed, self.x.shape)
        words = operation(self.b.words, bo.pack(other, self.b.axis).words)
        combine = np.minimum if operation is np.bitwise_and else np.maximum
        x = np.moveaxis(combine(self.x, other), self.b.axis, -1)
        self.b, self.x = bo.BitArray.from_words(words, x.shape), x

    @precondition(lambda self: self.others and self.x.size <= MAX_SIZE // 2)
    @rule()
    def concatenate(self):
        """Words one after the other."""
        x = np.moveaxis(self.x, self.b.axis, -1)
        words = np.concatenate([self.b.words, self.b.words], axis=0)
        self.x = np.concatenate([x, x], axis=0)
        self.b = bo.BitArray.from_words(words, self.x.shape)

    @rule(data=st.data())
    def count(self, data):
        axis = data.draw(st.one_of(st.none(), st.integers(-self.x.ndim, self.x.ndim - 1)))
        assert_array_equal(bo.popcount(self.b, axis), (self.x > 0).sum(axis))

    @precondition(lambda self: self.x.ndim >= 2)
    @rule(seed=st.integers(0, 1000))
    def multiply(self, seed):
        other = values(seed, (self.x.shape[-1], 3))
        assert_array_equal(self.b @ other, self.x.astype(np.int32) @ other)

    @precondition(lambda self: self.x.ndim == 2)
    @rule()
    def distances(self):
        rows = bo.pack(self.b, 1)
        assert_array_equal(bo.hamming(rows, rows), ref.hamming(self.x, self.x))

    @invariant()
    def same_values(self):
        assert self.b.shape == self.x.shape and self.b.size == self.x.size
        assert len(self.b) == len(self.x) and self.b.ndim == self.x.ndim
        assert_array_equal(bo.unpack(self.b), self.x, strict=True)
        assert_array_equal(np.asarray(self.b, dtype=bool), self.x > 0)
        assert self.b == bo.pack(self.x)

    @invariant()
    def words_are_those_of_the_reference(self):
        """Padding bits included, which are 0."""
        assert_array_equal(self.b.words, ref.pack(self.x, self.b.axis), strict=True)


Arrays.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestArrays = Arrays.TestCase
