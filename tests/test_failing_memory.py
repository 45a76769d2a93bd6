"""Every block of memory, and every thread, that the native module asks for is refused in turn."""

import gc
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

import bitops as bo
from bitops import _core, layers
from bitops.io import load, save
from bitops.training.optim import Adam
from conftest import no_sanitizer

MULTIPLIES_NUMBERS = True

FOREVER = 2**30


@pytest.fixture(autouse=True, scope="module")
def few_objects_to_look_at():
    """Leave what other tests have made out of the collections here, of which there are many."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@contextmanager
def refused(kind, first, count=1):
    """Let requests of a kind fail, counted from 1."""
    _core.fail(kind, first, count)
    try:
        yield
    finally:
        _core.fail(kind, 0, 0)


def draw(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


X, W = draw(70, 300), draw(90, 300)
BYTES = np.random.default_rng(1).integers(0, 256, (70, 300), np.uint8)
IMAGES, FILTERS, SINGLE = draw(2, 9, 9, 70), draw(70, 3, 3, 70), draw(70, 3, 3, 1)
BYTE_IMAGES = np.random.default_rng(2).integers(0, 256, (2, 9, 9, 70), np.uint8)
HALF = FILTERS[..., :35]
ROUND = {"padding": 1}


def on_bits(function, *arrays, **options):
    """Prepare a call on packed operands."""
    return lambda: _call(function, [bo.pack(array) for array in arrays], options)


def on_numbers(function, *arrays, **options):
    return lambda: _call(function, list(arrays), options)


def on_panels(function, x, w, *rest, **options):
    """Prepare a call with fresh prepacked weights, which derive more memory as they are used."""
    return lambda: _call(function, [x, bo.prepack(w), *rest], options)


def _call(function, arguments, options):
    return lambda: function(*arguments, **options)


def step():
    """Prepare a training step of binary layers, the first of which has not packed its weights."""
    make = lambda: layers.Sequential(  # noqa: E731
        layers.BinaryConv2D(70, 24, 3, padding=1, seed=0), layers.Sign(), layers.Flatten(),
        layers.BinaryDense(9 * 9 * 24, 30, seed=1),
    )  # fmt: skip

    def run():
        net = make()
        y = net.forward(IMAGES, training=True)
        net.backward(np.ones_like(y))
        Adam(net.parameters(), 0.01).step()
        return [y, *(p.value for p in net.parameters())]

    return run


def net():
    chain = [layers.BinaryDense(300, 90, seed=1), layers.BatchNorm(90), layers.Sign()]
    return layers.Sequential([*chain, layers.BinaryDense(90, 10, seed=2)])


def loaded():
    """Prepare the load of a model file, in the working directory."""
    save(net().freeze(), "net.st")
    return lambda: load("net.st").predict(X)


# By public function: what prepares a call. The call is made again and again.
CASES = {
    "pack": on_numbers(bo.pack, X, axis=0),
    "pack, bits": on_bits(lambda b: bo.pack(b, 0), X),
    "pack_above": on_numbers(bo.pack_above, X, np.float32(0)),
    "unpack": on_bits(bo.unpack, X),
    "popcount": on_bits(bo.popcount, X, axis=0),
    "majority": on_bits(bo.majority, X),
    "prepack": on_numbers(lambda w: bo.gemm(X, bo.prepack(w)), W),
    "gemm": on_bits(bo.gemm, X, W),
    "gemm, scaled": on_panels(bo.gemm, X, W, alpha=draw(90), bias=draw(90)),
    "gemm, k is cut": on_numbers(bo.gemm, np.ones((40, 17000)), np.ones((40, 17000))),
    "gemm, batch": on_numbers(bo.gemm, draw(3, 20, 65), draw(3, 9, 65)),
    "gemm_sign": on_bits(bo.gemm_sign, X, W, threshold=3),
    "matmul": on_numbers(bo.matmul, X, W.T),
    "hamming": on_bits(bo.hamming, X, W),
    "hamming_topk": on_bits(bo.hamming_topk, X, W, count=5),
    "hamming_topk, panels": on_panels(bo.hamming_topk, X, W, 5),
    "im2col": on_bits(bo.im2col, IMAGES, kernel_size=3),
    "conv2d": on_panels(bo.conv2d, IMAGES, FILTERS, **ROUND),
    "conv2d, groups": on_panels(bo.conv2d, IMAGES, HALF, groups=2, **ROUND),
    "conv2d, depthwise": on_panels(bo.conv2d, IMAGES, SINGLE, groups=70, **ROUND),
    "conv2d_sign": on_numbers(bo.conv2d_sign, IMAGES, FILTERS, 0, **ROUND),
    "weight_gemm": on_numbers(bo.weight_gemm, X, W),
    "bitplane_gemm": on_numbers(bo.bitplane_gemm, BYTES, W),
    "bitplane_gemm, bits": on_panels(bo.bitplane_gemm, BYTES & 3, W, bits=2),
    "weight_conv2d": on_numbers(bo.weight_conv2d, IMAGES, FILTERS, **ROUND),
    "bitplane_conv2d": on_numbers(bo.bitplane_conv2d, BYTE_IMAGES, FILTERS, **ROUND),
    "bitplane_conv2d, groups": on_panels(
        bo.bitplane_conv2d, BYTE_IMAGES & 1, HALF, bits=1, groups=2, **ROUND
    ),
    "binarize_weights": on_numbers(bo.binarize_weights, FILTERS),
    "k_map": on_numbers(bo.k_map, IMAGES, 3),
    "max_pool2d": on_bits(bo.max_pool2d, IMAGES, kernel_size=2),
    "avg_pool2d": on_numbers(bo.avg_pool2d, IMAGES, 2),
    "global_avg_pool2d": on_numbers(bo.global_avg_pool2d, IMAGES),
    "a training step": step,
    "freeze": on_numbers(lambda: net().freeze().predict(X)),
    "load": loaded,
}
# These ask for none: they pass over arrays once.
WITHOUT = {"pack_above", "unpack", "popcount", "majority", "im2col", "k_map",
           "avg_pool2d", "global_avg_pool2d", "binarize_weights"}  # fmt: skip


def content(result):
    """Return the bytes of a result, of all its arrays."""
    if isinstance(result, (tuple, list)):
        return [content(item) for item in result]
    return result.words.tobytes() if isinstance(result, bo.BitArray) else result.tobytes()


def count_blocks():
    gc.collect()
    return _core.live_blocks()


@pytest.mark.parametrize("name", CASES)
def test_each_block_is_refused_in_turn(isa, threads, name, tmp_path, monkeypatch):
    """MemoryError, nothing lost, and the same call of the same objects is right the next time."""
    monkeypatch.chdir(tmp_path)
    operands = content([X, W, BYTES, IMAGES, FILTERS, BYTE_IMAGES])
    want, before = content(CASES[name]()()), count_blocks()
    failed = 0
    while True:
        number = failed + 1
        for count in (1, FOREVER):
            call = CASES[name]()
            with refused(_core.MEMORY, number, count):
                try:
                    result = call()
                except MemoryError as error:
                    assert "bytes of memory" in str(error)
                    result = None
                made = _core.requests(_core.MEMORY)
            assert (result is None) == (made >= number), "a refused block is no matter of luck"
            assert content(call() if result is None else result) == want
            del call, result
            assert count_blocks() == before
        if made < number:
            break
        failed = number
    assert (failed == 0) == (name in WITHOUT)
    assert content([X, W, BYTES, IMAGES, FILTERS, BYTE_IMAGES]) == operands


def test_every_public_function_is_among_the_cases():
    names = {name for name in bo.__all__ if callable(getattr(bo, name)) and name[0].islower()}
    others = {"get_include", "get_num_threads", "set_num_threads", "show_config"}
    assert {name.split(",")[0] for name in CASES} >= names - others


def test_out_is_as_it_was_if_the_workspace_is_refused(isa):
    """The memory is found before the work begins."""
    out = np.full((70, 90), 7, np.int32)
    with refused(_core.MEMORY, 1), pytest.raises(MemoryError):
        bo.gemm(X, W, out=out)
    assert (out == 7).all()
    assert bo.gemm(X, W, out=out) is out and (out == bo.gemm(bo.pack(X), bo.pack(W))).all()


def test_a_training_that_runs_out_of_memory_can_go_on():
    """Limits of threads are back, and the layers can be trained again."""
    threads, x, y = bo.get_num_threads(), X, np.arange(70) % 10
    model = net()
    for number in (1, 3, 9):
        with refused(_core.MEMORY, number, FOREVER), pytest.raises(MemoryError):
            model.fit(x, y, epochs=2, batch_size=35, verbose=0)
        assert bo.get_num_threads() == threads
    history = model.fit(x, y, epochs=2, batch_size=35, verbose=0)
    assert len(history.epochs) == 2 and np.isfinite(history.epochs[-1].loss)


def test_threads_that_fail_at_once(isa):
    """Refusals of several threads: each call raises or is right."""
    a, w = bo.pack(X), bo.pack(W)
    want, before, wrong = bo.gemm(a, w), count_blocks(), []

    def work():
        for _ in range(50):
            try:
                if not (bo.gemm(a, w) == want).all():
                    wrong.append("a result")
            except MemoryError:
                pass

    with refused(_core.MEMORY, 20, 60):
        workers = [threading.Thread(target=work) for _ in range(4)]
        [worker.start() for worker in workers]
        [worker.join() for worker in workers]
        assert _core.requests(_core.MEMORY) == 200
    assert not wrong and count_blocks() == before


@pytest.mark.parametrize("kind", [-1, 2, 1 << 20])
def test_kinds_that_do_not_exist(kind):
    for call in (lambda: _core.fail(kind, 1), lambda: _core.requests(kind)):
        with pytest.raises(ValueError, match=r"\[_core\] kind must be MEMORY or THREAD"):
            call()


# ---- results that no memory can hold -----------------------------------------------------------


def many(rows):
    """So many rows of one word, all of them the same memory; no function may copy them."""
    return np.broadcast_to(np.ones(1, bool), (rows, 1))


@no_sanitizer
@pytest.mark.parametrize(
    "call",
    [
        lambda b: bo.gemm(b, b),
        lambda b: bo.gemm(b, bo.prepack(b)),
        lambda b: bo.gemm_sign(b, b, 0),
        lambda b: bo.hamming(b, b),
        lambda b: bo.hamming(b, b, dtype=np.uint16),
        lambda b: bo.matmul(b, b.T),
        lambda b: bo.hamming_topk(b, b, b.shape[0]),
        lambda b: bo.weight_gemm(bo.unpack(b, np.float32), b),
        lambda b: bo.bitplane_gemm(np.ones(b.shape, np.uint8), b),
        lambda b: bo.conv2d(b[:1].reshape(1, 1, 1, 1), b[:1].reshape(1, 1, 1, 1), padding=2**29),
        lambda b: bo.im2col(b[:1].reshape(1, 1, 1, 1), 1, padding=2**29),
        lambda b: bo.k_map(np.ones((1, 1, 1, 1)), 1, padding=2**29),
        lambda b: bo.weight_conv2d(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), padding=2**29),
        lambda b: bo.avg_pool2d(np.ones((1, 1, 1, 1)), 1, stride=1, padding=2**29),
        lambda b: bo.pack(many(2**50)),
        lambda b: bo.pack(many(2**50), 0),
    ],
)
def test_results_that_cannot_be_made(call):
    """NumPy's MemoryError or a limit in words, and the next call is right.

    They need 128 TiB and more, which no process has, however freely the system promises memory.
    """
    blocks = count_blocks()
    with pytest.raises((MemoryError, ValueError)):
        call(bo.BitArray.from_words(np.zeros((2**25, 1), np.uint64), (2**25, 1)))
    assert count_blocks() == blocks
    assert bo.gemm(np.ones((2, 3)), np.ones((2, 3))).tolist() == [[3, 3], [3, 3]]


# ---- threads -----------------------------------------------------------------------------------

UNIX = pytest.mark.skipif(
    sys.platform == "win32" or not _core.has_openmp(), reason="needs POSIX threads"
)
START = """
import os, resource, threading, time
import numpy as np, bitops as bo
from bitops import _core
x = np.random.default_rng(0).standard_normal((600, 700)).astype(np.float32)
def run():
    return [y.tobytes() for y in (bo.pack(x).words, bo.gemm(x, x), bo.pack(x, 0).words)]
bo.set_num_threads(1)
want = run()
"""


def run_python(code):
    variables = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "32", "OMP_STACKSIZE": "8m"}
    argv = [sys.executable, "-c", START + code]
    environment = {**os.environ, **variables}
    return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=300)


@UNIX
def test_each_thread_is_refused_in_turn():
    """Half of those that could be made are used, with the same results."""
    result = run_python("""
for n in range(2, 20):
    for refused in range(1, n):
        bo.set_num_threads(n)
        _core.fail(_core.THREAD, refused, 1)
        found, asked = run(), _core.requests(_core.THREAD)
        _core.fail(_core.THREAD, 0, 0)
        assert found == want
        assert (bo.get_num_threads(), asked) == (1 + (refused - 1) // 2, refused), (n, asked)
        bo.set_num_threads(2)  # a smaller team: all but one thread are to be made anew
        assert run() == want
    bo.set_num_threads(n)
    assert run() == want and bo.get_num_threads() == n
bo.set_num_threads(20)
_core.fail(_core.MEMORY, 1, 2**30)
bo.pack(x)
_core.fail(_core.MEMORY, 0, 0)
assert run() == want and bo.get_num_threads() == 20, "threads need no memory of ours"
print("right")
""")
    assert result.stdout == "right\n", result.stderr


LIMIT = """
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (60 << 20),) * 2)
"""
LATE = {
    "a thread that calls for the first time": """
ready, go, found = threading.Event(), threading.Event(), []
def work():
    ready.set(); go.wait(); found.append(bo.pack(x).words.tobytes())
worker = threading.Thread(target=work)
worker.start(); ready.wait()
bo.set_num_threads(16)
bo.pack(x)
LIMIT
bo.set_num_threads(16)  # a team is tried, even if the last one was late
go.set(); worker.join()
print(found == want[:1], bo.get_num_threads() < 16)
""",
    "a number that is set again": """
bo.set_num_threads(16); bo.pack(x)
bo.set_num_threads(2); bo.pack(x)
while len(os.listdir("/proc/self/task")) > 2:  # the others end, and give back their stacks
    time.sleep(0.01)
LIMIT
bo.set_num_threads(16)
print(bo.pack(x).words.tobytes() == want[0], bo.get_num_threads() < 16)
""",
    "a larger number": """
bo.set_num_threads(4); bo.pack(x)
LIMIT
bo.set_num_threads(24)
print(bo.pack(x).words.tobytes() == want[0], bo.get_num_threads() < 24)
""",
}


@UNIX
@no_sanitizer
@pytest.mark.parametrize("name", LATE)
def test_threads_that_cannot_be_made_any_more(name):
    """OpenMP makes threads for each thread that calls, and ends those that it does not need."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")
    result = run_python(LATE[name].replace("LIMIT", LIMIT))
    assert (result.returncode, result.stdout) == (0, "True True\n"), result.stderr
