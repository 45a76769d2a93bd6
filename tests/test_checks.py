"""Checks of arguments that all functions share."""

import numpy as np
import pytest

from bitops.ops.checks import check_integer


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_integers_become_plain(value):
    assert type(check_integer("f", "n", value)) is int
    assert check_integer("f", "n", value, 3, 3) == 3


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, [3]])
def test_other_types_are_refused(value):
    with pytest.raises(TypeError, match=r"\[f\] n must be an integer, got "):
        check_integer("f", "n", value)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (4, None, "at least 4, got 3"),
        (None, 2, "at most 2, got 3"),
        (4, 9, r"in 4\.\.9, got 3"),
        (1, 2, r"in 1\.\.2, got 3"),
    ],
)
def test_limits(low, high, message):
    with pytest.raises(ValueError, match=rf"\[f\] n must be {message}"):
        check_integer("f", "n", 3, low, high)
