"""make_window: every way to give its settings, its sizes by a literal count, and its errors."""

import numpy as np
import pytest

from bitops.ops.geometry import MAX_ELEMENTS, MAX_SIZE, check_result, make_window


def window(image=(7, 9), kernel_size=3, **settings):
    return make_window("conv2d", image, kernel_size, **settings)


def positions(size, kernel, stride, before, after, dilation):
    """First taps of all windows that lie inside the padded image, one after the other."""
    first, found = -before, []
    while first + (kernel - 1) * dilation < size + after:
        found.append(first)
        first += stride
    return found


class Index:
    """Not an integer, though Python would use it as an index."""

    def __index__(self):
        return 2


@pytest.mark.parametrize("value", [Index(), True, np.True_, np.array(2), np.array([2]), 2.0])
@pytest.mark.parametrize("name", ["kernel_size", "stride", "padding", "dilation"])
def test_only_integers_are_integers(name, value):
    for setting in (value, (1, value), [value, 1]):
        with pytest.raises(TypeError, match=rf"\[conv2d\] {name} must be an integer or a pair"):
            window(**{name: setting})


def test_numbers_stand_for_both_directions():
    assert window() == window(kernel_size=(3, 3), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    assert window(stride=2).stride == (2, 2)
    assert window(dilation=2).dilation == (2, 2)
    assert window(kernel_size=[3, 2]).kernel == (3, 2)
    assert window(kernel_size=np.int64(3)).kernel == (3, 3)
    assert window(kernel_size=(np.uint8(3), 2)).taps == 6


@pytest.mark.parametrize(
    "padding, sides",
    (
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        (np.int32(2), ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((0, 1), (2, 3)), ((0, 1), (2, 3))),
        ([[0, 1], [2, 3]], ((0, 1), (2, 3))),
        (((0, 1), [2, 3]), ((0, 1), (2, 3))),
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 1), (1, 1))),
    ),
)
def test_padding(padding, sides):
    found = window(padding=padding)
    assert found.padding == sides
    assert found.is_padded == (sides != ((0, 0), (0, 0)))


@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 5))
@pytest.mark.parametrize("dilation", range(1, 4))
def test_output_counts_the_windows_inside(kernel, stride, dilation):
    for size in range(1, 13):
        for before in range(3):
            for after in range(3):
                found = positions(size, kernel, stride, before, after, dilation)
                settings = {
                    "stride": (stride, 1),
                    "padding": ((before, after), (0, 0)),
                    "dilation": (dilation, 1),
                }
                if found:
                    output = window((size, 1), (kernel, 1), **settings).output
                    assert output == (len(found), 1)
                else:
                    with pytest.raises(ValueError, match="fit the padded image"):
                        window((size, 1), (kernel, 1), **settings)


@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 5))
@pytest.mark.parametrize("dilation", range(1, 4))
def test_same(kernel, stride, dilation):
    """The least padding with ceil(size / stride) windows, and no more than one more at the end."""
    for size in range(1, 13):
        found = window((1, size), (1, kernel), stride=stride, padding="same", dilation=dilation)
        before, after = found.padding[1]
        wanted = -(-size // stride)
        assert found.padding[0] == (0, 0)
        assert found.output == (1, wanted)
        assert after - before in (0, 1)
        if before + after:
            assert len(positions(size, kernel, stride, 0, before + after - 1, dilation)) < wanted


def test_sides_and_directions_do_not_mix():
    found = window((10, 20), (3, 5), stride=(1, 2), padding=((1, 0), (3, 4)), dilation=(4, 1))
    assert found.image == (10, 20)
    assert found.kernel == (3, 5)
    assert found.stride == (1, 2)
    assert found.dilation == (4, 1)
    assert found.padding == ((1, 0), (3, 4))
    assert found.output == (11 - 9 + 1, (27 - 5) // 2 + 1)
    assert found.taps == 15


def test_empty_images():
    assert window((0, 4), 3, padding=2).output == (2, 6)
    with pytest.raises(ValueError, match=r"height 3 .* in 0"):
        window((0, 4))


@pytest.mark.parametrize("name", ("kernel_size", "stride", "padding", "dilation"))
@pytest.mark.parametrize(
    "value", (1.0, "1", None, True, (1,), (1, 2, 3), (1, 2.0), (1, True), np.ones(2), 1j)
)
def test_types(name, value):
    if name == "padding" and isinstance(value, str):
        error, rule = ValueError, "'same', 'valid' or numbers"
    else:
        error, rule = TypeError, "an integer or a pair of them"
    with pytest.raises(error, match=rf"^\[conv2d\] {name} must be .*{rule}"):
        window(**{name: value})


@pytest.mark.parametrize("name", ("kernel_size", "stride", "padding", "dilation"))
@pytest.mark.parametrize("value", (-1, (1, -1), (-3, 1)))
def test_too_small(name, value):
    least = 0 if name == "padding" else 1
    with pytest.raises(ValueError, match=rf"^\[conv2d\] {name} must be at least {least}, got"):
        window(**{name: value})


@pytest.mark.parametrize("name", ("kernel_size", "stride", "dilation"))
@pytest.mark.parametrize("value", (0, (1, 0)))
def test_zero(name, value):
    with pytest.raises(ValueError, match=rf"^\[conv2d\] {name} must be at least 1, got"):
        window(**{name: value})


@pytest.mark.parametrize(
    "padding, error",
    (
        (((1, 2), 3), TypeError),
        (((1, 2), (3,)), TypeError),
        (((1, 2), (3, 4), (5, 6)), TypeError),
        (((1, 2), (3, None)), TypeError),
        (((1, 2), (3, -1)), ValueError),
        ("full", ValueError),
        ("SAME", ValueError),
        ("", ValueError),
    ),
)
def test_padding_errors(padding, error):
    with pytest.raises(error, match=r"^\[conv2d\] padding must be"):
        window(padding=padding)


def test_kernel_larger_than_the_padded_image():
    with pytest.raises(ValueError, match=r"^\[conv2d\] .* height 8 .* in 7"):
        window(kernel_size=(8, 1))
    with pytest.raises(ValueError, match=r"^\[conv2d\] .* width 11 .* in 10"):
        window(kernel_size=6, dilation=(1, 2), padding=((0, 0), (1, 0)))
    assert window(kernel_size=(8, 10), padding=((1, 0), (0, 1))).output == (1, 1)


@pytest.mark.parametrize(
    "settings",
    (
        {"kernel_size": (MAX_SIZE + 1, 1)},
        {"stride": MAX_SIZE + 1},
        {"padding": 2**40},
        {"dilation": 2**63},
    ),
)
def test_settings_beyond_their_type(settings):
    with pytest.raises(ValueError, match=rf"^\[conv2d\] \w+ must be at most {MAX_SIZE}, got"):
        window(**settings)


def test_sums_of_settings_beyond_their_type():
    with pytest.raises(ValueError, match=rf"^\[conv2d\] the padded height .* {MAX_SIZE}, got"):
        window(padding=(MAX_SIZE, 0))
    with pytest.raises(ValueError, match=rf"^\[conv2d\] the padded width .* {MAX_SIZE}, got"):
        window(padding=(0, 2**30), kernel_size=(1, 3), dilation=2**30)
    huge = window((1, MAX_SIZE), (1, 2), dilation=MAX_SIZE - 1)
    assert huge.output == (1, 1)


def test_check_result():
    check_result("conv2d", (MAX_ELEMENTS, 1))
    with pytest.raises(ValueError, match=r"^\[conv2d\] the result .* got shape \(2, \d+, 3\)"):
        check_result("conv2d", (2, MAX_ELEMENTS, 3))
