"""The C interface: a C library and a Cython module, compiled against the installed header."""

import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import bitops as bo

HERE = Path(__file__).parent / "c_api"
INCLUDE = Path(bo.get_include())
PYTHON_INCLUDE = Path(sysconfig.get_path("include"))
COMPILER = shlex.split(os.environ.get("CC", "cc"))

pytestmark = pytest.mark.skipif(
    sys.platform == "win32"
    or shutil.which(COMPILER[0]) is None
    or not (PYTHON_INCLUDE / "Python.h").exists(),
    reason="needs a C compiler and Python's headers",
)

OK, NAN, BAD_ARGUMENT = 0, 1, 3


class Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("height", "width", "channels", "filters", "kernel_height", "kernel_width"),
            *("stride_y", "stride_x", "dilation_y", "dilation_x"),
            *("pad_top", "pad_bottom", "pad_left", "pad_right", "groups"),
        )
    ] + [("pad_value", ctypes.c_int)]


def compile_library(source, path, *flags):
    command = [*COMPILER, "-shared", "-fPIC", "-O1", "-Wall", *flags, f"-I{INCLUDE}"]
    if sys.platform == "darwin":
        command += ["-undefined", "dynamic_lookup"]
    command += [f"-I{PYTHON_INCLUDE}", str(source), "-o", str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The C library, with the table of functions open."""
    path = tmp_path_factory.mktemp("c_api") / "program.so"
    compile_library(HERE / "program.c", path, "-std=c99", "-Wextra", "-Werror", "-Wno-comment")
    library = ctypes.PyDLL(str(path))
    assert library.open_table() == 1
    return library


def address(array):
    """The argument for an array, or for a size."""
    if array is None:
        return None
    if isinstance(array, int):
        return ctypes.c_size_t(array)
    return array.ctypes.data_as(ctypes.c_void_p)


def call(function, *arguments):
    return function(*map(address, arguments))


def bits(rng, *shape):
    return bo.pack(rng.standard_normal(shape))


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (3, 10, 64), (40, 70, 100), (17, 33, 1000)])
def test_products_equal_gemm(program, m, n, k, ready):
    rng = np.random.default_rng(k)
    a, w = bits(rng, m, k), bits(rng, n, k)
    words = a.words.shape[1]
    c = np.full((m, n + 3), -7, np.int32)  # rows of c lie apart
    status = program.multiply(
        *map(address, (a.words, words, m, w.words, words, n, k)), ready, *map(address, (c, n + 3))
    )
    assert status == OK
    np.testing.assert_array_equal(c[:, :n], bo.gemm(a, w))
    assert (c[:, n:] == -7).all()


def test_rows_may_lie_apart(program):
    rng = np.random.default_rng(1)
    a, w = bits(rng, 5, 100), bits(rng, 20, 100)
    wide = np.zeros((20, 5), np.uint64)
    wide[:, :2] = w.words
    c = np.empty((5, 20), np.int32)
    status = program.multiply(
        *map(address, (a.words, 2, 5, wide, 5, 20, 100)), 0, *map(address, (c, 20))
    )
    assert status == OK
    np.testing.assert_array_equal(c, bo.gemm(a, w))


def test_rows_of_no_bits_have_products_of_0(program):
    c = np.full((2, 3), 9, np.int32)
    operands = map(address, (None, 0, 2, None, 0, 3, 0))
    assert program.multiply(*operands, 0, *map(address, (c, 3))) == OK
    assert (c == 0).all()


def test_scaled_products_equal_gemm(program):
    rng = np.random.default_rng(2)
    a, w = bits(rng, 9, 200), bits(rng, 30, 200)
    alpha, bias, k_map = (rng.standard_normal(n).astype(np.float32) for n in (30, 30, 9))
    for scales in ((alpha, k_map, bias), (None, None, bias), (alpha, None, None)):
        c = np.empty((9, 30), np.float32)
        assert call(program.multiply_scaled, a.words, 9, w.words, 30, 200, *scales, c) == OK
        expected = bo.gemm(a, w, alpha=scales[0], k_map=scales[1], bias=scales[2])
        np.testing.assert_array_equal(c, expected)


def test_signs_of_products_equal_gemm_sign(program):
    rng = np.random.default_rng(3)
    a, w, flip = bits(rng, 9, 200), bits(rng, 70, 200), bits(rng, 70)
    threshold = rng.integers(-20, 20, 70, np.int32)
    for flips in (None, flip):
        c = np.empty((9, 2), np.uint64)
        words = None if flips is None else flips.words
        status = call(program.multiply_sign, a.words, 9, w.words, 70, 200, threshold, words, c)
        assert status == OK
        np.testing.assert_array_equal(c, bo.gemm_sign(a, w, threshold, flip=flips).words)


def test_distances_and_nearest_rows_equal_search(program):
    rng = np.random.default_rng(4)
    a, b = bits(rng, 6, 130), bits(rng, 500, 130)
    c = np.empty((6, 500), np.int32)
    assert call(program.distances, a.words, 6, b.words, 500, 130, c) == OK
    np.testing.assert_array_equal(c, bo.hamming(a, b))
    distances, indices = np.empty((6, 7), np.int32), np.empty((6, 7), np.int64)
    assert call(program.nearest, a.words, 6, b.words, 500, 130, 7, distances, indices) == OK
    expected = bo.hamming_topk(a, b, 7)
    np.testing.assert_array_equal(distances, expected[0])
    np.testing.assert_array_equal(indices, expected[1])


def test_numbers_are_packed_counted_and_unpacked(program):
    x = np.random.default_rng(5).standard_normal((4, 99)).astype(np.float32)
    words, count, back = np.empty((4, 2), np.uint64), np.empty(4, np.int64), np.empty_like(x)
    assert call(program.round_trip, x, 4, 99, words, count, back) == OK
    np.testing.assert_array_equal(words, bo.pack(x).words)
    np.testing.assert_array_equal(count, (x >= 0).sum(axis=1))
    np.testing.assert_array_equal(back, np.where(x >= 0, 1, -1))
    x[2, 3] = np.nan
    assert call(program.round_trip, x, 4, 99, words, count, back) == NAN


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize(
    "channels, filters, groups", [(3, 5, 1), (64, 70, 1), (96, 64, 2), (70, 70, 70), (6, 12, 6)]
)
def test_convolutions_equal_conv2d(program, channels, filters, groups, pad_value):
    rng = np.random.default_rng(channels)
    x, w = bits(rng, 2, 7, 6, channels), bits(rng, filters, 3, 2, channels // groups)
    shape = Shape(7, 6, channels, filters, 3, 2, 2, 1, 1, 2, 1, 0, 2, 1, groups, pad_value)
    settings = {
        "stride": (2, 1),
        "padding": ((1, 0), (2, 1)),
        "dilation": (1, 2),
        "groups": groups,
        "pad_value": pad_value,
    }
    expected = bo.conv2d(x, w, **settings)
    alpha = rng.standard_normal(filters).astype(np.float32)
    threshold = rng.integers(-5, 5, filters, np.int32)
    flip = bits(rng, filters)
    signs = bo.conv2d_sign(x, w, threshold, flip=flip, **settings)
    outputs = np.empty_like(expected), np.empty(expected.shape, np.float32), signs.words.copy()
    outputs[2][:] = 0
    status = program.convolve(
        ctypes.byref(shape),
        *map(address, (x.words, 2, w.words, alpha, threshold, flip.words, *outputs)),
    )
    assert status == OK
    np.testing.assert_array_equal(outputs[0], expected)
    np.testing.assert_array_equal(outputs[1], bo.conv2d(x, w, alpha=alpha, **settings))
    np.testing.assert_array_equal(outputs[2], signs.words)


def test_wrong_arguments_are_refused(program):
    words, c = np.zeros(64, np.uint64), np.empty(4, np.int32)
    assert call(program.accepted_mistakes, words, c) == 0


def test_missing_memory_is_a_status_and_nothing_leaks(program):
    rng = np.random.default_rng(6)
    a, w = bits(rng, 40, 100), bits(rng, 70, 100)
    c = np.empty((40, 70), np.int32)
    arguments = [*map(address, (a.words, 2, 40, w.words, 2, 70, 100)), 1, *map(address, (c, 70))]
    shape = Shape(7, 6, 100, 70, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0)
    x, filters = bits(rng, 1, 7, 6, 100), bits(rng, 70, 3, 2, 100)
    outputs = [np.empty(7 * 7 * 70 * 4, np.uint8) for _ in range(3)]
    threshold = np.zeros(70, np.int32)
    images = (x.words, 1, filters.words, None, threshold, None, *outputs)
    calls = (
        lambda: program.multiply(*arguments),
        lambda: program.convolve(ctypes.byref(shape), *map(address, images)),
    )
    for run in calls:
        blocks = bo._core.live_blocks()
        assert run() == OK
        requests = 0
        try:
            bo._core.fail(bo._core.MEMORY, 1 << 40)  # counts alone
            run()
            requests = bo._core.requests(bo._core.MEMORY)
            for number in range(1, requests + 1):
                bo._core.fail(bo._core.MEMORY, number)
                assert run() == 2
        finally:
            bo._core.fail(bo._core.MEMORY, 0)
        assert requests >= 3
        assert bo._core.live_blocks() == blocks


def test_panels_of_another_isa_stay_right(program):
    rng = np.random.default_rng(7)
    a, w = bits(rng, 20, 100), bits(rng, 30, 100)
    c = np.empty((20, 30), np.int32)
    expected = bo.gemm(a, w)
    for name in bo.isa.available():
        with bo.isa.use(name):
            status = program.multiply(
                *map(address, (a.words, 2, 20, w.words, 2, 30, 100)), 1, *map(address, (c, 30))
            )
        assert status == OK
        np.testing.assert_array_equal(c, expected)


def test_the_header_is_cplusplus_too(tmp_path):
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    source = tmp_path / "program.cpp"
    source.write_text("#include <Python.h>\n#include <bitops_api.h>\nint main() { return 0; }\n")
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", f"-I{PYTHON_INCLUDE}"]
    command = [compiler, "-fsyntax-only", *flags, str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_types_need_no_python(tmp_path):
    source = tmp_path / "types.c"
    source.write_text("#include <bitops_api.h>\nbitops_matrix x;\n")
    compile_library(source, tmp_path / "types.so", "-std=c99", "-Werror")


def test_cython_program_equals_gemm(tmp_path):
    cython = pytest.importorskip("Cython.Compiler.Main", reason="needs Cython")
    source = tmp_path / "c_api_program.pyx"
    shutil.copy(HERE / "program.pyx", source)
    folders = [str(INCLUDE.parent.parent)]  # where bitops/_core.pxd is
    result = cython.compile(str(source), include_path=folders)
    assert result.num_errors == 0
    path = tmp_path / f"c_api_program{sysconfig.get_config_var('EXT_SUFFIX')}"
    compile_library(source.with_suffix(".c"), path)
    spec = importlib.util.spec_from_file_location("c_api_program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(8)
    a, w = bits(rng, 20, 100), bits(rng, 30, 100)
    c = np.empty((20, 30), np.int32)
    module.multiply(a.words, w.words, 100, c)
    np.testing.assert_array_equal(c, bo.gemm(a, w))
    with pytest.raises(ValueError, match="status 3"):
        module.multiply(a.words, w.words, 200, c)
