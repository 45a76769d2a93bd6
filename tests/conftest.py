"""Fixtures and edge sizes shared by all tests; BITOPS_TEST_SEED changes the fixed seed."""

import ctypes
import mmap
import os
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import bitops as bo

ISAS = ("generic", "avx2", "avx512", "amx", "neon")
SEED = int(os.environ.get("BITOPS_TEST_SEED", "20160316"))

# Numbers of rows and columns: 0, 1, those next to each register tile and vector, and primes.
EDGE_ROWS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 47, 48, 49, 61, 63, 64, 65, 70)
# Numbers of bits: those next to bytes, words, vectors of 128 to 512 bits and a few of them; primes.
# fmt: off
EDGE_BITS = (
    0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 61, 63, 64, 65, 97, 127, 128, 129, 191, 192, 193,
    211, 255, 256, 257, 300, 383, 384, 385, 511, 512, 513, 575, 576, 577, 640, 769, 1009,
    1023, 1024, 1025, 1535, 1536, 1537, 2047, 2048, 2049, 4095, 4096, 4097, 4160,
)
# fmt: on

# For tests that limit or measure memory. tests/sanitize/run loads the sanitizer in this way.
no_sanitizer = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer keeps memory of its own"
)

# Derandomized: a run of the suite is the same everywhere, and leaves no database behind.
settings.register_profile(
    "bitops",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    # The fixture `isa` only selects kernels, so that it may span the examples of one test.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("bitops")


def pytest_report_header(config: pytest.Config) -> str:
    return f"bitops: ISAs {', '.join(bo.isa.available())}; random seed {SEED} (BITOPS_TEST_SEED)"


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Let Ctrl-C raise, even if a shell that runs the tests in the background ignores it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `isa` with each of them, unless it names its own.

    With amx, whose kernels are those of avx512 but for numbers times weights, only those of modules
    that say MULTIPLIES_NUMBERS.
    """
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "isa" in metafunc.fixturenames and "isa" not in named:
        has_numbers = getattr(metafunc.module, "MULTIPLIES_NUMBERS", False)
        names = [name for name in ISAS if has_numbers or name != "amx"]
        metafunc.parametrize("isa", names, indirect=True)


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with the kernels of one ISA; skipped only where the CPU lacks it."""
    name: str = request.param
    if name not in bo.isa.available():
        pytest.skip(f"this CPU has no {name}")
    with bo.isa.use(name):
        assert bo.isa.active() == name
        yield name
        assert bo.isa.active() == name


@pytest.fixture
def rng() -> np.random.Generator:
    """Generator with a fixed seed, which pytest shows with the output of a failed test."""
    print(f"rng seed: {SEED}")
    return np.random.default_rng(SEED)


@pytest.fixture(params=(1, 2))
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test with one and with two threads."""
    before = bo.get_num_threads()
    bo.set_num_threads(request.param)
    yield request.param
    bo.set_num_threads(before)


def random_signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random +-1 values in int8."""
    return rng.integers(0, 2, shape, np.int8) * np.int8(2) - np.int8(1)


def random_shapes(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    """Sizes (m, n, k): m and n in 0..70; k in 0..300 or next to multiples of 64, 128 and 512."""
    shapes = []
    for i in range(count):
        m, n = (
            int(rng.choice(EDGE_ROWS)) if rng.random() < 0.4 else int(rng.integers(0, 71))
            for _ in range(2)
        )
        if i % 2:
            k = int(rng.integers(0, 301))
        else:
            step, most = ((64, 34), (128, 20), (512, 9))[i // 2 % 3]
            k = step * int(rng.integers(1, most)) + int(rng.integers(-3, 4))
        shapes.append((m, n, k))
    return shapes


def forbid(address, nbytes):
    """Make whole pages of memory fault; return whether the system allows it."""
    pages = ctypes.c_void_p(address), ctypes.c_size_t(nbytes)
    if sys.platform == "win32":
        no_access, before = 1, ctypes.c_ulong()
        protect = ctypes.WinDLL("kernel32").VirtualProtect
        return protect(*pages, no_access, ctypes.byref(before)) != 0
    no_access = 0
    return ctypes.CDLL(None).mprotect(*pages, no_access) == 0


class Fenced:
    """Memory between two pages that must not be touched."""

    def __init__(self, nbytes):
        page = mmap.PAGESIZE
        pages = -(-nbytes // page)
        memory = mmap.mmap(-1, (pages + 2) * page)
        inside = np.frombuffer(memory, np.uint8)
        address = inside.ctypes.data
        for fence in (address, address + (pages + 1) * page):
            if not forbid(fence, page):
                pytest.skip("no page can be forbidden here")
        self.inside = inside[page:-page]

    def place(self, array, end):
        """Copy the array against the end (or the beginning) of the memory."""
        array = np.ascontiguousarray(array)
        start = self.inside.size - array.nbytes if end else 0
        view = self.inside[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view


@pytest.fixture(scope="session")
def fenced():
    """One fenced memory for each operand of a product."""
    return [Fenced(200_000) for _ in range(6)]
