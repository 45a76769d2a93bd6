"""The number of threads, the GIL, and calls from many threads at once."""

import concurrent.futures
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import threadpoolctl
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import reference as ref
from calls import answers, small_calls
from conftest import random_signs


@pytest.fixture(autouse=True)
def restore_threads():
    before = bo.get_num_threads()
    yield
    bo.set_num_threads(before)


def has_openmp():
    """Whether the extension brought an OpenMP runtime (a build without one has one thread)."""
    code = (
        "import threadpoolctl, bitops;"
        "print(any(p['user_api'] == 'openmp' for p in threadpoolctl.threadpool_info()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return result.stdout.strip() == "True"


needs_openmp = pytest.mark.skipif(not has_openmp(), reason="built without OpenMP")


class TestNumber:
    def test_set_and_get(self):
        assert isinstance(bo.get_num_threads(), int)
        assert bo.get_num_threads() >= 1
        bo.set_num_threads(1)
        assert bo.get_num_threads() == 1

    @needs_openmp
    @pytest.mark.parametrize("n", (2, 3, np.int64(2), np.uint8(2)))
    def test_more_than_one(self, n):
        bo.set_num_threads(n)
        assert bo.get_num_threads() == n

    @pytest.mark.parametrize("n", (0, -1, -(2**31), -(2**70), np.int64(0)))
    def test_too_few(self, n):
        before = bo.get_num_threads()
        with pytest.raises(ValueError, match=r"^\[set_num_threads\] .*got"):
            bo.set_num_threads(n)
        assert bo.get_num_threads() == before

    @pytest.mark.parametrize("n", (1.0, "2", None, [1], 2.5, np.float64(1), 1j), ids=repr)
    def test_not_an_integer(self, n):
        before = bo.get_num_threads()
        with pytest.raises(TypeError, match=r"^\[set_num_threads\] .*got"):
            bo.set_num_threads(n)
        assert bo.get_num_threads() == before

    @pytest.mark.parametrize("n", (2**31, 2**63, 2**70))
    def test_far_too_many(self, n):
        """Refused or cut to what there is, never wrapped round."""
        try:
            bo.set_num_threads(n)
        except ValueError as error:
            assert str(error).startswith("[set_num_threads] ")
        assert bo.get_num_threads() >= 1


def test_same_results_with_any_number(isa, rng):
    """Also with more threads than rows, and in all functions that share work out."""
    x = rng.standard_normal((130, 2500)).astype(np.float32)
    w = random_signs(rng, 301, 2500)
    alpha = rng.standard_normal(301).astype(np.float32)
    want = None
    for n in (1, 2, 3, 7, 200):
        bo.set_num_threads(n)
        a, panels = bo.pack(x), bo.prepack(w)
        got = (
            a.words,
            bo.unpack(a),
            bo.popcount(a, -1),
            bo.popcount(a, 0),
            bo.gemm(a, w),
            bo.gemm(a, panels, alpha=alpha, k_map=alpha[:130]),
            bo.gemm(a[:1], panels),
            bo.gemm_sign(a, panels, 5).words,
            bo.hamming(a, w),
            bo.matmul(x, w.T),
            bo.pack(x, axis=0).words,
        )
        want = want or got
        for i, (one, other) in enumerate(zip(want, got, strict=True)):
            assert one.tobytes() == other.tobytes(), f"result {i}, {n} threads"
    assert_array_equal(want[4], ref.gemm(x, w))


def test_nan_is_found_by_any_thread(isa, threads):
    x = np.ones((4000, 300), np.float32)
    for row in (0, 1999, 3999):
        x[row, 299] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            bo.pack(x)
        x[row, 299] = 1
    assert bo.popcount(bo.pack(x)) == x.size


def slow_call(function, seconds):
    """Repeat function's argument size until one call takes the given time."""
    size = 64
    while True:
        call = function(size)
        start = time.perf_counter()
        call()
        if time.perf_counter() - start > seconds:
            return call
        size *= 2


def gemm_of(size):
    a = bo.BitArray.from_words(np.zeros((size, 64), np.uint64), (size, 4096))
    out = np.empty((size, size), np.int32)
    return lambda: bo.gemm(a, a, out=out)


def pack_of(size):
    x = np.ones((size, 4096), np.float32)
    return lambda: bo.pack(x)


@pytest.mark.parametrize("function", (gemm_of, pack_of))
def test_the_gil_is_released(function):
    """While one thread is inside a call, another one keeps running Python code."""
    bo.set_num_threads(1)
    with bo.isa.use("generic"):
        call = slow_call(function, 0.05)
        spans = []

        def work():
            for _ in range(3):
                start = time.perf_counter()
                call()
                spans.append((start, time.perf_counter()))

        worker = threading.Thread(target=work)
        worker.start()
        ticks = []
        while worker.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.001)
        worker.join()
    # With the GIL held no tick could fall into the middle of a call.
    inside = [
        sum(start + (end - start) / 5 < tick < end - (end - start) / 5 for tick in ticks)
        for start, end in spans
    ]
    assert max(inside) >= 3, inside


def test_calls_from_several_threads(isa, threads, rng):
    """Different products at once, with shared weights, are not mixed up."""
    w = random_signs(rng, 70, 500)
    panels, pw = bo.prepack(w), bo.pack(w)
    inputs = [random_signs(rng, int(rng.integers(1, 60)), 500) for _ in range(24)]
    wanted = [ref.gemm(a, w) for a in inputs]

    def work(a):
        b = bo.pack(a)
        return bo.gemm(b, panels), bo.gemm(b, pw), bo.hamming(b, pw), bo.gemm_sign(b, panels, 1)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(work, inputs), wanted, strict=True):
                assert_array_equal(got[0], want)
                assert_array_equal(got[1], want)
                assert_array_equal(500 - 2 * got[2], want)
                assert_array_equal(np.asarray(got[3]) > 0, want > 1)


@pytest.mark.parametrize("n", (1, 2))
def test_everything_from_eight_threads(isa, n):
    """Shared operands, models included; the number of threads and the GIL do not matter."""
    bo.set_num_threads(n)
    calls = small_calls()
    want = answers(calls)
    start = threading.Barrier(8)

    def work(i):
        start.wait()
        names = list(calls)[i:] + list(calls)[:i]  # different calls at the same time
        return answers({name: calls[name] for name in names})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for got in pool.map(work, range(8)):
            assert [name for name in want if got[name] != want[name]] == []


def test_setting_the_number_while_others_compute(isa):
    """A call keeps the number of threads with which it began."""
    calls = small_calls()
    want = answers(calls)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        running = [pool.submit(answers, calls) for _ in range(6)]
        while not all(future.done() for future in running):
            for n in (1, 3, 8, 2):
                bo.set_num_threads(n)
                time.sleep(0.001)
    for future in running:
        got = future.result()
        assert [name for name in want if got[name] != want[name]] == []


@needs_openmp
def test_threadpoolctl_sees_and_limits_us(rng):
    assert any(pool["user_api"] == "openmp" for pool in threadpoolctl.threadpool_info())
    a, w = random_signs(rng, 200, 1000), random_signs(rng, 300, 1000)
    want = ref.gemm(a, w)
    bo.set_num_threads(2)
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert bo.get_num_threads() == 1
        assert_array_equal(bo.gemm(a, w), want)
    assert bo.get_num_threads() == 2
    assert_array_equal(bo.gemm(a, w), want)


@needs_openmp
def test_omp_num_threads():
    code = "import bitops as bo; print(bo.get_num_threads())"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert result.stdout.strip() == "1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_after_a_fork():
    """OpenMP's threads do not survive a fork: the child must neither hang nor crash."""
    code = """if True:
        import os, warnings
        import numpy as np
        import bitops as bo

        warnings.simplefilter("ignore", DeprecationWarning)
        bo.set_num_threads(2)
        x = np.ones((300, 3000), np.float32)
        want = bo.gemm(x, x)
        child = os.fork()
        if child == 0:
            os._exit(0 if (bo.gemm(x, x) == want).all() else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (bo.gemm(x, x) == want).all()
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
