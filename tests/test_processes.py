"""Child processes, signals during a call, memory that runs out or leaks.

Each case runs in an interpreter of its own; time limits are a guard against deadlock.
"""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bitops.training.process import SETTINGS
from conftest import no_sanitizer

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
needs_proc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not os.path.exists("/proc/self/statm"),
    reason="needs /proc of Linux",
)

GUARD = 120  # seconds; a hang is a failure

IMPORTS = """
import multiprocessing, os, signal, sys, tracemalloc
import numpy as np
import bitops as bo
from calls import answers, refused_calls, resident, small_calls, words

rng = np.random.default_rng(7)
"""


def check(folder, code, *arguments):
    """Run the code as a script, which children can import, and return what it prints."""
    script = folder / "script.py"
    script.write_text(IMPORTS + code)
    result = subprocess.run(
        [sys.executable, "-W", "error", str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=GUARD,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


CHILDREN = """
import threading, warnings

def child(want):
    got = answers(small_calls())
    assert got == want, [name for name in want if got[name] != want[name]]
    before = bo.get_num_threads()
    bo.set_num_threads(3)
    return before, bo.get_num_threads()

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    method, busy = sys.argv[1], sys.argv[2] == "busy"
    bo.set_num_threads(2)
    want = answers(small_calls())
    done = threading.Event()

    def keep_busy():
        bo.set_num_threads(2)
        a = words(rng, 500, 2048)
        while not done.is_set():
            bo.gemm(a, a)

    if busy:
        threading.Thread(target=keep_busy).start()
    context = multiprocessing.get_context(method)
    try:
        with context.Pool(2) as pool:
            print(*pool.map(child, [want] * 4))
    finally:
        done.set()
    assert answers(small_calls()) == want
"""


@pytest.mark.parametrize("busy", ("idle", "busy"))
@pytest.mark.parametrize(
    "method",
    (pytest.param("fork", marks=needs_fork), "spawn", pytest.param("forkserver", marks=needs_fork)),
)
def test_children(tmp_path, method, busy):
    """After calls with two threads, also beside one, children work and give the same results."""
    threads = check(tmp_path, CHILDREN, method, busy).strip()
    if method == "fork":
        assert threads == " ".join(["(1, 1)"] * 4)


@needs_fork
def test_grandchildren(tmp_path):
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
bo.set_num_threads(2)
want = answers(small_calls())
for _ in range(3):
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status)
    if answers(small_calls()) != want:
        os._exit(3)
os._exit(0)
"""
    check(tmp_path, code)


# Calls that take minutes in portable C, on zeros, which take no memory.
INTERRUPT = """
import threading
from bitops import layers
name, threads = sys.argv[1], int(sys.argv[2])
bo.set_num_threads(threads)
bo.isa.use("generic")

def zeros(rows, bits):
    return bo.BitArray.from_words(np.zeros((rows, bits // 64), np.uint64), (rows, bits))

a, long = zeros(20_000, 16384), zeros(8000, 65536)
images = bo.BitArray.from_words(np.zeros((64, 56, 56, 32), np.uint64), (64, 56, 56, 2048))

def filters(groups):
    shape = 2048, 3, 3, 2048 // groups
    return bo.BitArray.from_words(np.zeros((*shape[:3], shape[3] // 64), np.uint64), shape)

threshold = np.zeros(2048, np.int32)
many = [bo.BitArray.from_words(np.zeros((*shape, 300, 256), np.uint64), (*shape, 300, 16384))
        for shape in ((40, 1), (1, 60))]
panels = bo.prepack(a)
calls = {
    "gemm": lambda: bo.hamming(a, a, dtype=np.uint16),
    "gemm, prepacked": lambda: bo.hamming(a, panels, dtype=np.uint16),
    "gemm, long rows": lambda: bo.gemm(long, long),
    "gemm, batch": lambda: bo.hamming(many[0], many[1], dtype=np.uint16),
    "hamming_topk": lambda: bo.hamming_topk(a, a, 5),
    "hamming_topk, prepacked": lambda: bo.hamming_topk(a, panels, 5),
    "hamming_topk, long rows": lambda: bo.hamming_topk(long, long, 5),
    "conv2d": lambda: bo.conv2d_sign(images, filters(1), threshold, padding=1),
    "conv2d, groups": lambda: bo.conv2d_sign(images, filters(4), threshold, padding=1, groups=4),
    "weight_gemm": lambda: bo.weight_gemm(np.zeros((4000, 16384), np.float32), a),
    "bitplane_gemm": lambda: bo.bitplane_gemm(np.zeros((8000, 16384), np.uint8), a),
    "bitplane_gemm, 2 bits":
        lambda: bo.bitplane_gemm(np.zeros((8000, 16384), np.uint8), a, bits=2),
    "depthwise, large kernel": lambda: bo.conv2d(
        bo.pack(np.zeros((1, 1500, 1500, 2), np.bool_)), np.zeros((2, 700, 700, 1), np.bool_),
        groups=2),
    "depthwise, many filters": lambda: bo.conv2d(
        bo.pack(np.zeros((1, 200, 200, 64), np.bool_)), np.zeros((64 * 2000, 3, 3, 1), np.bool_),
        groups=64),
}
models = {
    "plan, bytes": lambda: (
        np.zeros((8000, 16384), np.uint8), layers.PackedDense(a, np.float32(0))),
    "plan, images": lambda: (images, layers.PackedConv2D(filters(1), threshold, padding=1)),
}
if name in models:
    x, layer = models[name]()
    model = layers.Packed(layer, layers.PackedFlatten())
    model(x[:1, :3, :3] if x.ndim == 4 else x[:1])  # orders the weights
    calls[name] = lambda: model(x)
# What runs in the background of a shell begins with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform == "win32":  # where os.kill would end the process
    ready = threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,))
else:
    ready = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
ready.start()
try:
    calls[name]()
except KeyboardInterrupt:
    ready.join()
    few = answers(small_calls())
    bo.set_num_threads(1)
    assert answers(small_calls()) == few
    print("interrupted")
"""

INTERRUPTIBLE = (
    "gemm",
    "gemm, prepacked",
    "gemm, long rows",
    "gemm, batch",
    "hamming_topk",
    "hamming_topk, prepacked",
    "hamming_topk, long rows",
    "conv2d",
    "conv2d, groups",
    "weight_gemm",
    "bitplane_gemm",
    "bitplane_gemm, 2 bits",
    "depthwise, large kernel",
    "depthwise, many filters",
    "plan, bytes",
    "plan, images",
)


@pytest.mark.parametrize("name", INTERRUPTIBLE)
def test_keyboard_interrupt(tmp_path, name):
    """Ctrl-C ends a call that would take minutes, and the next calls are right."""
    threads = 1 + INTERRUPTIBLE.index(name) % 2
    assert check(tmp_path, INTERRUPT, name, threads) == "interrupted\n"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_handlers_run_during_a_call(tmp_path):
    """A handler that does not raise runs in the middle of a call and leaves its result alone."""
    code = """
bo.set_num_threads(2)
seen = []
signal.signal(signal.SIGALRM, lambda number, frame: seen.append(len(bo.gemm(small, small))))
small, a = words(rng, 3, 256), words(rng, 1000, 16384)
with bo.isa.use("generic"):
    while len(seen) < 2:
        want = bo.hamming(a, a)
        seen.clear()
        signal.setitimer(signal.ITIMER_REAL, 0.15, 0.15)
        got = bo.hamming(a, a)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert (got == want).all()
        a = words(rng, 2 * len(a), 16384)
"""
    check(tmp_path, code)


OUT_OF_MEMORY = """
import resource
a, w = words(rng, 600, 2048), words(rng, 5000, 2048)
u = rng.integers(0, 2, (600, 2048), np.uint8)
long = words(rng, 600, 1 << 16)
images = bo.pack(rng.standard_normal((2, 28, 28, 512), np.float32))
filters = bo.pack(rng.standard_normal((2048, 3, 3, 512), np.float32))
product, maps = np.empty((600, 5000), np.int32), np.empty((2, 26, 26, 2048), np.int32)
square = np.empty((600, 600), np.int32)
calls = {
    "prepack": lambda: bo.prepack(w),
    "gemm": lambda: bo.gemm(a, w, out=product),
    "gemm, long rows": lambda: bo.gemm(long, long, out=square),
    "hamming_topk": lambda: bo.hamming_topk(long, long, 2),
    "conv2d": lambda: bo.conv2d(images, filters, out=maps),
    "bitplane_gemm": lambda: bo.bitplane_gemm(u, w, bits=1, out=product),
}
wants = {name: np.array(call()) if name != "prepack" else None for name, call in calls.items()}
limits = resource.getrlimit(resource.RLIMIT_AS)
for name, call in calls.items():
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    # 600 KiB suffice for what Python needs, not for panels or blocks of sums.
    resource.setrlimit(resource.RLIMIT_AS, (size + 600_000, limits[1]))
    before = resident()
    for _ in range(100):
        try:
            call()
        except MemoryError:
            continue
        sys.exit(name + ": no MemoryError")
    grown = resident() - before
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert grown < 500_000, (name, grown)
    assert wants[name] is None or (np.array(call()) == wants[name]).all(), name
"""


@needs_proc
@no_sanitizer
@pytest.mark.parametrize("isa", ("generic", None), ids=("generic", "best"))
def test_memory_error(tmp_path, monkeypatch, isa):
    """Where scratch memory is refused: MemoryError, no leak, and the next call is right."""
    # Free memory goes back to the system, so that none of it is left for the calls.
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    if isa:
        monkeypatch.setenv("BITOPS_ISA", isa)
    check(tmp_path, "bo.set_num_threads(1)\n" + OUT_OF_MEMORY)


@needs_proc
@no_sanitizer
def test_calls_do_not_grow_memory(tmp_path):
    code = """
bo.set_num_threads(1)
for name, call in small_calls(3).items():
    for _ in range(300):
        call()
    # The allocator and the runtime keep a block now and then, once; a leak is in each round.
    grown = []
    for _ in range(3):
        before = resident()
        for _ in range(4000 if "conv" not in name else 1000):
            call()
        grown.append(resident() - before)
    assert min(grown) < 100_000, (name, grown)
    tracemalloc.start()
    call()
    grown = []
    for _ in range(3):
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            call()
        grown.append(tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    assert min(grown) < 6_000, (name, grown)
"""
    check(tmp_path, code)


@needs_proc
@no_sanitizer
def test_refused_calls_do_not_grow_memory(tmp_path):
    """Arguments found wrong after others were converted, results that do not fit."""
    code = """
for i, call in enumerate(refused_calls()):
    for times in (300, 3000):
        before = resident()
        for _ in range(times):
            try:
                call()
            except (TypeError, ValueError):
                continue
            sys.exit(f"call {i} did not fail")
    assert resident() - before < 400_000, (i, resident() - before)
"""
    check(tmp_path, code)


# A block above 32 MiB, and what of the memory is the heap, which grows where blocks are kept.
KEPT = """
import threading
from bitops.layers import BinaryDense, Sequential
from bitops.training import Callback, fit

def lies_in_heap():
    block = np.empty(40 << 20, np.uint8)
    for line in open("/proc/self/maps"):
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= block.ctypes.data < last:
            return "[heap]" in line

class Look(Callback):
    def __init__(self):
        self.seen = []

    def on_epoch(self, run):
        self.seen.append(lies_in_heap())

def train(callback, epochs=1):
    model = Sequential(BinaryDense(64, 2, seed=0))
    x = np.ones((4, 64), np.float32)
    fit(model, x, [0, 1, 0, 1], epochs=epochs, verbose=0, callbacks=[callback])

class Nest(Look):
    def on_epoch(self, run):
        train(Look())
        super().on_epoch(run)

class Fork(Look):
    def on_epoch(self, run):
        child = os.fork()
        if child == 0:
            os._exit(lies_in_heap())
        self.seen.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1)

look, nest, fork, thread = Look(), Nest(), Fork(), Look()
before = lies_in_heap()
train(look, epochs=2)
train(nest)
train(fork)
other = threading.Thread(target=train, args=(thread,))
other.start()
other.join()
print(before, *look.seen, *nest.seen, lies_in_heap())
print(*fork.seen, *thread.seen)
"""


@needs_proc
@no_sanitizer
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(
    ("name", "setting", "kept"),
    [
        (None, None, True),
        ("MALLOC_TRIM_THRESHOLD_", "33554432", False),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=33554432", False),
        ("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=2048", True),
    ],
)
def test_freed_memory_is_kept_during_a_training(tmp_path, monkeypatch, name, setting, kept):
    for other in (*SETTINGS, "GLIBC_TUNABLES"):
        monkeypatch.delenv(other, raising=False)
    if name:
        monkeypatch.setenv(name, setting)
    here, elsewhere = check(tmp_path, KEPT).splitlines()
    assert here.split() == [str(x) for x in (False, kept, kept, kept, False)]
    assert elsewhere.split() == ["False", "False"]
