"""Patches in blocks against the reference, and their adjoint against its definition."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops import _core
from bitops.ops.geometry import make_window
from bitops.ops.patches import (
    add_patches,
    patch_blocks,
    position_blocks,
    seeing_taps,
    tap_slices,
)
from bitops.reference.windows import mean_of_taps, window_values

IMAGES = ((5, 6), (1, 12), (7, 3))
KERNELS = (1, 2, (3, 2), (1, 4), (5, 6))
PADDINGS = (0, 1, ((0, 2), (3, 0)), (0, 4), "same")
STRIDES = (1, (2, 3), 4)
WINDOWS = list(itertools.product(IMAGES, KERNELS, STRIDES, PADDINGS, (1, (1, 2), (3, 1))))


def windows():
    for image, kernel, stride, padding, dilation in WINDOWS:
        try:
            yield make_window("patches", image, kernel, stride, padding, dilation)
        except ValueError as error:  # the kernel is larger than the image
            assert "fit the padded image" in str(error)


def assemble(x, window, **settings):
    """The rows of all blocks at their positions, each position once."""
    rows_of_all = np.full((len(x), *window.output, window.taps * x.shape[3]), 99, x.dtype)
    count = np.zeros(rows_of_all.shape[:3], int)
    for block, rows in patch_blocks(x, window, **settings):
        assert rows.dtype == x.dtype
        assert rows.flags.c_contiguous
        target = rows_of_all[block].reshape(rows.shape)
        assert np.shares_memory(target, rows_of_all) or not target.size
        target[...] = rows
        count[block] += 1
    assert (count == 1).all()
    return rows_of_all


@pytest.mark.parametrize("max_bytes", (1, 300, 2000, 1 << 20))
@pytest.mark.parametrize("channels, dtype", ((1, np.uint8), (3, np.float32), (8, np.float64)))
def test_equals_reference(rng, channels, dtype, max_bytes):
    for window in windows():
        x = rng.integers(0, 256, (3, *window.image, channels)).astype(dtype)
        before = x.copy()
        got = assemble(x, window, outside=7, max_bytes=max_bytes)
        assert_array_equal(got, window_values(x, window, 7).reshape(got.shape))
        assert_array_equal(x, before)


def test_blocks_stay_below_their_limit(rng):
    x = rng.standard_normal((4, 9, 11, 5)).astype(np.float32)
    window = make_window("patches", (9, 11), 3, padding=1)
    width = 9 * 5 * 4
    for max_bytes, blocks in ((1, 4 * 9 * 11), (width * 12, 4 * 9), (width * 200, 2), (1 << 30, 1)):
        sizes = [rows.nbytes for _, rows in patch_blocks(x, window, max_bytes=max_bytes)]
        assert len(sizes) == blocks
        assert max(sizes) <= max(max_bytes, width)
    # a row of the output in parts, the last smaller
    assert [b[2].stop - b[2].start for b in position_blocks(1, window, 4, max_bytes=16)][:3] == [
        4,
        4,
        3,
    ]


def test_views_of_the_images(rng):
    x = rng.standard_normal((2, 4, 5, 6))
    for kernel in ((1, 1), (4, 5)):
        ((_, rows),) = patch_blocks(x, make_window("patches", (4, 5), kernel))
        assert np.shares_memory(rows, x)
        assert_array_equal(rows.ravel(), x.ravel())
    for kernel, settings in (((1, 1), {"stride": 2}), ((4, 5), {"padding": 1})):
        window = make_window("patches", (4, 5), kernel, **settings)
        assert not any(np.shares_memory(rows, x) for _, rows in patch_blocks(x, window))


@pytest.mark.parametrize("kernel", (1, 2, (4, 5)))
def test_layouts(rng, kernel):
    x = rng.standard_normal((2, 4, 5, 6))
    window = make_window("patches", (4, 5), kernel, padding=(0, 1))
    frozen = x.copy()
    frozen.flags.writeable = False
    for view in (
        x[..., 1:4],
        x[..., ::-2],
        x[::-1],
        np.asfortranarray(x),
        frozen,
    ):
        got = assemble(view, window)
        assert_array_equal(got, window_values(view, window, 0).reshape(got.shape))


@pytest.mark.parametrize("shape", ((0, 5, 5, 3), (2, 5, 5, 0)))
def test_empty(shape):
    window = make_window("patches", (5, 5), 3)
    got = assemble(np.ones(shape, np.float32), window)
    assert got.shape == (shape[0], 3, 3, 9 * shape[3])


def test_taps_far_apart_take_no_more_memory():
    """The image between them, 2**58 positions here, is not made."""
    far = 2**29
    window = make_window("patches", (1, 1), 1, stride=far, padding=far)
    got = assemble(np.ones((1, 1, 1, 2)), window, outside=-1)
    assert got.shape == (1, 3, 3, 2)
    assert (got[0, :, :, 0] == [[-1, -1, -1], [-1, 1, -1], [-1, -1, -1]]).all()
    window = make_window("patches", (1, 1), 3, padding=far, dilation=far)
    got = assemble(np.ones((1, 1, 1, 2)), window, outside=-1)
    assert got.reshape(9, 2)[:, 1].tolist() == [-1, -1, -1, -1, 1, -1, -1, -1, -1]


@pytest.mark.parametrize("max_bytes", (1, 500, 1 << 20))
def test_add_patches_is_the_adjoint(rng, max_bytes):
    """<patches(x), y> = <x, add_patches(y)> for all x and y, in exact integers."""
    for window in windows():
        x = rng.integers(-9, 10, (2, *window.image, 3)).astype(float)
        y = rng.integers(-9, 10, (2, *window.output, *window.kernel, 3)).astype(float)
        image = rng.integers(-9, 10, x.shape).astype(float)
        start = image.copy()
        for block in position_blocks(2, window, 8 * window.taps * 3, max_bytes=max_bytes):
            add_patches(np.ascontiguousarray(y[block]), window, image, block)
        assert ((image - start) * x).sum() == (window_values(x, window, 0) * y).sum()
        whole = start.copy()
        add_patches(y, window, whole)
        assert_array_equal(whole, image)


def test_add_patches_by_hand():
    window = make_window("patches", (2, 3), 2, padding=((0, 0), (1, 0)))
    out = np.zeros((1, 2, 3, 1))
    # The left taps of the first of three windows lie outside.
    add_patches(np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]), window, out)
    assert out[0, ..., 0].tolist() == [[2 + 5, 6 + 9, 10], [4 + 7, 8 + 11, 12]]


def test_means_begin_with_zero(isa, threads, rng):
    """Few and many channels, one position apart and more: all taps are added row by row."""
    for turn, window in enumerate(windows()):
        channels = (1, 3, 15, 16, 17, 40)[turn % 6]
        x = rng.standard_normal((2, *window.image, channels)).astype(np.float32)
        want = mean_of_taps(window_values(x, window, 0))
        got = np.full(want.shape, np.nan, np.float32)
        _core.mean_windows(x, window, got)
        assert_array_equal(got.view(np.int32), want.view(np.int32))
    for channels in (1, 16):
        zeros = np.full((1, 2, 2, channels), -0.0, np.float32)
        mean = zeros.copy()
        _core.mean_windows(zeros, make_window("patches", (2, 2), 1), mean)
        assert not np.signbit(mean).any()


def test_means_of_windows_far_larger_than_the_image():
    for channels in (2, 20):
        x = np.ones((1, 3, 2, channels), np.float32)
        window = make_window("patches", (3, 2), 2**30 + 1, padding="same")
        mean = np.empty((1, *window.output, channels), np.float32)
        _core.mean_windows(x, window, mean)
        assert_array_equal(mean, np.full_like(mean, np.float32(6) / np.float32(window.taps)))


def test_means_of_images_have_the_order_of_numpy(isa, threads, rng):
    for shape in (
        (1, 49, 2),
        (3, 100, 3),
        (2, 3136, 65),
        (1, 9000, 2),
        (2, 70, 600),
        (1, 20000, 7),
    ):
        x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-60, 60, shape)).astype(np.float32)
        means = np.empty((shape[0], shape[2]), np.float32)
        _core.mean_images(x[:, None], means)
        sums = np.add.reduce(x, axis=1, dtype=np.float64)
        assert_array_equal(means, (sums / shape[1]).astype(np.float32))


def test_seeing_taps():
    """All taps that see the image are among them, and few more if the window is large."""
    sizes = itertools.product((1, 2, 5), (1, 2, 5, 9), (1, 2, 3), (1, 2, 3), (0, 1, 4), (0, 3))
    for size, kernel, stride, dilation, before, after in sizes:
        if (kernel - 1) * dilation >= size + before + after:
            continue
        padding = ((before, after), (0, 0))
        window = make_window("test", (size, 1), (kernel, 1), (stride, 1), padding, (dilation, 1))
        positions = slice(0, window.output[0])
        seen = [tap_slices(window, 0, tap, positions)[0] for tap in range(kernel)]
        found = [tap for tap, part in enumerate(seen) if part.stop > part.start]
        assert set(found) <= set(seeing_taps(window, 0)) <= set(range(kernel))
    large = make_window("test", (3, 1), 2**30 + 1, padding="same")
    assert len(seeing_taps(large, 0)) == 5
