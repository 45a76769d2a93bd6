"""Memory outside arrays is not touched, and a process survives odd threads and settings."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import _core, layers
from bitops import reference as ref
from bitops.ops.geometry import make_window
from conftest import no_sanitizer

WORDS = np.zeros((4, 1), np.uint64)
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX threads")


# ---- what _core is given -----------------------------------------------------------------------


@pytest.mark.parametrize("index", [1 << 30, -1, -1000, 4, 1 << 62, -(1 << 63)])
@pytest.mark.parametrize("side", [0, 1])
def test_blocks_outside_the_operands_are_refused(index, side):
    indices = [np.array([0]), np.array([0])]
    indices[side] = np.array([index])
    with pytest.raises(ValueError, match=r"\[_core\] [aw]_index must be in 0\.\.3"):
        _core.gemm(WORDS, WORDS, 64, (1, 1, *indices), np.zeros((1, 1), np.int32))


def test_sizes_whose_product_wraps_are_refused():
    many = np.zeros(2, np.int64)
    with pytest.raises(ValueError, match=r"\[_core\]"):
        _core.gemm(WORDS, WORDS, 64, (2**63 + 1, 1, many, many), np.zeros((2, 1), np.int32))
    with pytest.raises(ValueError, match="sizes must fit memory"):
        _core.pack(_core.F64, np.zeros(0, np.uint8), 2**32, 2**32, np.zeros((0, 0), np.uint64))


@pytest.mark.parametrize("n", [0, 1, 3, 5, 64])
def test_thresholds_are_as_many_as_columns(n):
    with pytest.raises(ValueError, match=r"\[_core\]"):
        _core.gemm_sign(
            WORDS, WORDS, 64, None, np.zeros(n, np.int32), None, np.zeros((4, 1), np.uint64)
        )


WINDOW = make_window("test", (4, 4), 2)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": (2**63 + 1, 2)},
        {"kernel": (2**32, 2**32)},
        {"kernel": (0, 2)},
        {"kernel": (5, 2)},
        {"output": (4, 3)},
        {"output": (2**62, 4)},
        {"image": (5, 4)},
        {"padding": ((2**63, 0), (0, 0))},
        {"padding": ((1, 0), (0, 0))},
        {"stride": (0, 1)},
        {"dilation": (2**31, 1)},
    ],
)
def test_windows_that_contradict_themselves_are_refused(change):
    images, rows = np.zeros((1, 4, 4, 1), np.uint64), np.zeros((9, 1), np.uint64)
    _core.im2col(images, WINDOW, 1, False, rows)
    with pytest.raises(ValueError, match=r"\[_core\]"):
        _core.im2col(images, WINDOW._replace(**change), 1, False, rows)
    with pytest.raises(ValueError, match=r"\[_core\]"):
        _core.Convolution(WINDOW._replace(**change), 1, 1, 1, rows[:1], None, False).dot(
            images, np.zeros((9, 1), np.int32)
        )


@pytest.mark.parametrize("shape", [(1, 0, 3), (2, 3, 0), (1, 0, 0), (0, 3, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_images_without_pixels_see_the_padding_alone(shape, groups):
    """Not what the heap held before."""
    _poison()
    images = np.zeros((*shape, 4), np.uint8)
    filters = np.ones((4, 3, 3, 4 // groups))
    for call in (bo.bitplane_conv2d, bo.weight_conv2d):
        got = call(images, filters, padding=2, groups=groups)
        want = getattr(ref, call.__name__)(images, filters, padding=2, groups=groups)
        assert got.shape == want.shape and not got.any()


@pytest.mark.parametrize("make", [layers.Conv2D, layers.BinaryConv2D])
def test_layers_on_images_without_pixels(make):
    layer = make(2, 4, 3, padding=2, bias=False, seed=0)
    _poison()
    y = layer.forward(np.zeros((1, 0, 3, 2), np.float32), training=True)
    assert y.shape == (1, 2, 5, 4) and not y.any()
    layer.weight.grad[...] = 7
    layer.backward(np.ones_like(y))
    assert not layer.weight.grad.any()


def test_panels_of_a_depthwise_convolution_are_refused():
    """Its weights have another layout."""
    with pytest.raises(ValueError, match=r"\[_core\] w must not be Panels"):
        _core.Convolution(WINDOW, 1, 2, 2, _core.Panels(WORDS[:2], 2), None, False)


@pytest.mark.parametrize("bits", [0, -1, 9, 64, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("scaled", [False, True])
def test_numbers_have_1_to_8_bits(bits, scaled):
    x, out = np.ones((3, 64), np.uint8), np.zeros((3, 4), np.float32 if scaled else np.int32)
    with pytest.raises(ValueError, match=r"\[_core\] bits must be in 1\.\.8"):
        if scaled:
            _core.bitplane_gemm_scaled(x, WORDS, None, bits, np.ones(4, np.float32), None, out)
        else:
            _core.bitplane_gemm(x, WORDS, None, bits, out)


def _poison():
    """Leave freed memory that holds no zeros."""
    for _ in range(3):
        _ = [np.full(n, 123, np.uint8) for n in range(60, 2000, 4)]


# ---- settings of convolutions ------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"stride": True}, {"stride": 1.0}, {"stride": (1, True)}, {"stride": (2.0, 2 + 0j)},
     {"groups": True}, {"groups": 1.0}, {"padding": (1.0, 1)}, {"dilation": (1, np.True_)}],
)  # fmt: skip
def test_a_cached_setting_excuses_no_other(change):
    """True, 1.0 and 1 are one key of a dict."""
    x, filters = bo.pack(np.ones((1, 5, 5, 2))), bo.prepack(np.ones((2, 1, 1, 2)))
    for _ in range(2):
        bo.conv2d(x, filters, stride=(1, 1), padding=(1, 1), dilation=(1, 1))
        bo.conv2d(x, filters, stride=1, padding=1)
        with pytest.raises(TypeError, match=rf"\[conv2d\] {next(iter(change))} must be an integer"):
            bo.conv2d(x, filters, **change)


@pytest.mark.parametrize("change", [{"stride": (1.0, True)}, {"padding": (0, False)}])
def test_a_cached_setting_of_a_pool_excuses_no_other(change):
    x = np.ones((1, 4, 4, 2))
    for call in (bo.max_pool2d, bo.avg_pool2d):
        call(x, 1, stride=(1, 1), padding=(0, 0))
        with pytest.raises(TypeError, match="must be an integer"):
            call(x, 1, **change)


def test_groups_without_filters():
    x = np.ones((2, 4, 5, 3))
    for filters in (np.ones((0, 2, 2, 1)), np.ones((0, 1, 3, 1))):
        want = ref.conv2d(x, filters, groups=3)
        for w in (filters, bo.prepack(filters)):
            assert_array_equal(bo.conv2d(x, w, groups=3), want, strict=True)
            assert bo.conv2d_sign(x, w, np.zeros(0, int), groups=3).shape == want.shape


@pytest.mark.parametrize("kernel", [(1, 9), (7, 4), (30, 31)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_large_kernels_over_padding(isa, rng, kernel, groups):
    """Offsets of positions outside are sums over rectangles of taps."""
    x = rng.choice([-1, 1], (2, 9, 8, 4))
    w = rng.choice([-1, 1], (8, *kernel, 4 // groups))
    padding = ((kernel[0] // 2, kernel[0] - 1), (kernel[1] - 1, kernel[1] // 2))
    for stride, dilation in ((1, 1), ((2, 3), 1), (1, (1, 2) if kernel[1] < 9 else 1)):
        settings = {
            "padding": padding if dilation == 1 else 40,
            "stride": stride,
            "dilation": dilation,
            "groups": groups,
        }
        assert_array_equal(bo.conv2d(x, w, **settings), ref.conv2d(x, w, **settings))


def test_offsets_of_a_large_kernel_are_made_at_once():
    """In time proportional to the taps, and without the interpreter's lock."""
    x, w = bo.pack(np.ones((1, 200, 200, 1))), bo.pack(np.ones((8, 200, 200, 1)))
    start = time.process_time()
    y = bo.conv2d(x, w, padding=3)
    assert y[0, 3, 3, 0] == 40_000 and y[0, 0, 0, 0] == 197 * 197
    # the sums over all pairs of taps and cases would take a minute
    assert time.process_time() - start < 20


# ---- threads -----------------------------------------------------------------------------------

EVERY_FUNCTION = """
import sys, threading
import numpy as np, bitops as bo
rng = np.random.default_rng(0)
x = rng.standard_normal((600, 700)).astype(np.float32)
bytes_ = rng.integers(0, 256, (100, 700), np.uint8)
images = rng.standard_normal((2, 20, 20, 64)).astype(np.float32)
filters = rng.standard_normal((64, 3, 3, 64)).astype(np.float32)
single = filters[..., :1]
long = rng.standard_normal((1024, 10000)).astype(np.float32)
def run():
    bits, panels = bo.pack(x), bo.prepack(x)
    few = [bo.pack(long[:, :k]) for k in (4096, 8192, 10000)]
    results = [
        bo.pack(x, 0), bo.pack(bits, 0), bo.gemm(bits, panels), bo.gemm_sign(bits, bits, 0),
        bo.hamming_topk(bits, bits, 10)[0], bo.weight_gemm(x, bits), bo.bitplane_gemm(bytes_, bits),
        bo.conv2d(images, filters, padding=1), bo.conv2d(images, single, groups=64, padding=1),
        bo.k_map(images, 3), *bo.binarize_weights(filters), bo.unpack(bits), bo.popcount(bits, 0),
        bo.popcount(bits, 1), bo.im2col(images, 3), bo.pack_above(x, np.float32(0)),
        bo.weight_conv2d(images, filters), bo.max_pool2d(images, 2), bo.avg_pool2d(images, 2),
        *(bo.gemm(b[:rows], b) for b in few for rows in (1, 4, 8, 24, 32)),
        *(bo.search.score_topk(x[:70], bits, 5, query_bits=b)[0] for b in (None, 4, 8)),
        bo.search.topk(bits, bits, 9, metric="jaccard")[0]]
    return [np.asarray(result).tobytes() for result in results]
"""


def run_python(code, **variables):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **variables}
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=300)


@no_sanitizer  # whose frames are larger
@pytest.mark.parametrize("isa", bo.isa.available())
def test_small_stacks_suffice(isa):
    code = EVERY_FUNCTION + (
        "want = run()\n"
        "threading.stack_size(65536)\n"
        "found = []\n"
        "thread = threading.Thread(target=lambda: found.append(run() == want))\n"
        "thread.start(); thread.join()\n"
        "print(found)"
    )
    result = run_python(code, BITOPS_ISA=isa, OMP_STACKSIZE="64k")
    assert result.stdout == "[True]\n", result.stderr


@pytest.mark.parametrize(
    ("value", "most"), [("1000000", 4096), ("2147483648", None), ("5000", 4096), ("0", None),
                        ("-1", None), ("abc", None), (" 3 ", 3), ("2,3", 2)]
)  # fmt: skip
def test_silly_numbers_of_threads(value, most):
    code = EVERY_FUNCTION + "run(); print(bo.get_num_threads())"
    result = run_python(code, OMP_NUM_THREADS=value)
    assert result.returncode == 0, result.stderr
    assert 1 <= int(result.stdout) <= (most or os.cpu_count() or 1)


@UNIX
@no_sanitizer
@pytest.mark.parametrize(
    ("size", "small"),
    [("16k", True), (" 48 K ", True), ("65535B", True), ("65536 b", False), ("64", False),
     ("1k", False), ("0", False), ("-1", False), ("8m", False), ("100g", False),
     ("1000000000000", False), ("99999999999999999999", False), ("abc", False)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["OMP_STACKSIZE", "GOMP_STACKSIZE"])
def test_stacks_of_any_size(name, size, small):
    """Threads whose stacks are too small are not used, nor are those that cannot be made."""
    code = EVERY_FUNCTION + (
        "many = run(), bo.get_num_threads()\n"
        "bo.set_num_threads(1)\n"
        "print(many[0] == run(), many[1])"
    )
    result = run_python(code, **{name: size, "OMP_NUM_THREADS": "3"})
    assert result.returncode == 0, result.stderr
    same, threads = result.stdout.split()
    assert same == "True" and (threads == "1" if small else threads in "123")


@UNIX
@no_sanitizer
def test_threads_that_cannot_be_made_are_done_without():
    code = (
        "import resource, os, numpy, scipy, bitops\n" + EVERY_FUNCTION + "bo.set_num_threads(1)\n"
        "want = run()\n"
        "bo.set_num_threads(64)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20),) * 2)\n"
        "print(run() == want, bo.get_num_threads() < 64)\n"
    )
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")
    result = run_python(code, OMP_NUM_THREADS="64", OMP_STACKSIZE="8m")
    assert result.stdout == "True True\n", result.stderr


# ---- floating-point environments ---------------------------------------------------------------

# fesetround, and flush-to-zero by ldmxcsr, which the C library does not offer
ENVIRONMENTS = """
import ctypes, mmap, platform
def round_down():
    return ctypes.CDLL(None).fesetround({"x86_64": 0x400, "aarch64": 0x800000}[platform.machine()])
def flush():
    code = bytes([0x48, 0x83, 0xEC, 8, 0xC7, 4, 0x24, 0xC0, 0x9F, 0, 0,
                  0x0F, 0xAE, 0x14, 0x24, 0x48, 0x83, 0xC4, 8, 0xC3])
    global memory
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
tiny = (rng.standard_normal((3000, 64)) * 1e-40).astype(np.float32)
tinier = rng.standard_normal((3000, 64)) * 1e-320
weights = bo.pack(rng.standard_normal((50, 64)))
alpha = (rng.standard_normal(50) * 1e-20).astype(np.float32)
def compute():
    return [np.asarray(y).tobytes() for y in (
        bo.pack(tiny), bo.pack(tinier), bo.pack(tiny.T, 0),
        bo.pack_above(tiny, np.float32(0)), bo.pack_above(tiny, tiny[0]),
        bo.weight_gemm(tiny, weights), bo.weight_gemm(x[:, :64], weights, alpha=alpha),
        bo.gemm(tiny, weights, alpha=alpha, bias=alpha))]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's fesetround")
@pytest.mark.parametrize("change", ["round_down", "flush"])
@pytest.mark.parametrize("isa", bo.isa.available())
def test_results_depend_on_no_floating_point_environment(isa, change):
    """Neither with threads made before it changes, nor with those made after."""
    code = EVERY_FUNCTION + ENVIRONMENTS + (
        "bo.set_num_threads(2); want = compute()\n"
        "bo.set_num_threads(1); assert compute() == want\n"
        f"{change}()\n"
        f"if '{change}' == 'flush':\n"
        "    assert np.float32(1e-40) * np.float32(1) == 0\n"
        "for n in (1, 2, 3, 2):\n"
        "    bo.set_num_threads(n)\n"
        "    print([a == b for a, b in zip(compute(), want)].count(False), end=' ')\n"
        f"if '{change}' == 'flush':\n"
        "    assert np.float32(1e-40) * np.float32(1) == 0, 'the own environment is back'\n"
    )  # fmt: skip
    if change == "flush" and isa == "neon":
        pytest.skip("the machine code is that of x86-64")
    result = run_python(code, BITOPS_ISA=isa, OMP_NUM_THREADS="3")
    if result.returncode < 0 or "PermissionError" in result.stderr:
        pytest.skip("memory cannot be executed here")
    assert result.stdout == "0 0 0 0 ", result.stderr


def test_many_threads_at_once_ask_for_threads():
    """The first calls of several threads prove the number of threads together."""
    code = EVERY_FUNCTION + (
        "want, found = None, []\n"
        "threads = [threading.Thread(target=lambda: found.append(run())) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(len(found), all(f == found[0] for f in found))"
    )
    result = run_python(code, OMP_NUM_THREADS="4")
    assert result.stdout == "8 True\n", result.stderr
    assert threading.active_count() >= 1
