"""Comparison of trained and packed networks, score by score."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops.layers import BatchNorm, BinaryDense, Dense, Sequential, Sign
from bitops.training.compare import compare, scores_of


@pytest.fixture
def network():
    return Sequential(BinaryDense(20, 30, seed=0), BatchNorm(30), Sign(), Dense(30, 4, seed=1))


@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, 2500])
def test_scores_come_in_order_and_are_told_of(network, rows):
    x = np.random.default_rng(rows).standard_normal((rows, 20), dtype=np.float32)
    told = []
    scores = scores_of(network, x, told.append)
    assert_array_equal(scores, network.outputs(x))
    assert sum(told) == rows and max(told, default=0) <= 1000
    different, labels = compare(network, network.freeze(), x)
    assert different == 0
    assert_array_equal(labels, network.predict(x))


def test_rows_that_differ_are_counted():
    """A score of one class changes by one unit in its last place, or a zero its sign."""
    layer = Dense(2, 2, bias=False)
    layer.weight.assign(np.eye(2, dtype=np.float32))
    network = Sequential(layer)
    x = np.array([[1, 0], [0, 1], [3, 1]], np.float32)
    packed = network.freeze()
    assert compare(network, packed, x)[0] == 0

    class Changed:
        def __init__(self, change):
            self.change = change

        def outputs(self, x):
            scores = packed.outputs(x).copy()
            self.change(scores)
            return scores

    def one_unit(scores):
        scores[2, 0] = np.nextafter(scores[2, 0], np.float32(9))

    def zero(scores):
        scores[:2][scores[:2] == 0] *= -1

    for change, count in ((one_unit, 1), (zero, 2), (lambda scores: None, 0)):
        assert compare(network, Changed(change), x)[0] == count
    wider = Sequential(Dense(2, 3)).freeze()
    assert compare(network, wider, x)[0] == len(x)
