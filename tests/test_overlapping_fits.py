"""Limits of threads while trainings overlap, and after the last of them."""

import signal
import threading

import numpy as np
import pytest

import bitops as bo
from bitops.layers import BinaryDense, Dense, Sequential
from bitops.training.callbacks import Callback

threadpoolctl = pytest.importorskip("threadpoolctl")

X = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
Y = np.arange(100) % 2
KINDS = {"binary": BinaryDense, "real": Dense}


def limits():
    """Threads of BLAS and of bitops."""
    pools = threadpoolctl.threadpool_info()
    return {p["num_threads"] for p in pools if p["user_api"] == "blas"}, bo.get_num_threads()


def set_blas(n):
    """In a thread that ends, as threadpoolctl lets the thread that did it keep the control."""

    def call():
        threadpoolctl.threadpool_limits(n, user_api="blas")

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.fixture(autouse=True)
def several_threads():
    """Two threads each, however few CPUs there are; they must be there again at the end."""
    before = limits()
    bo.set_num_threads(2)
    set_blas(2)
    try:
        wanted = limits()
        yield wanted
        assert limits() == wanted
    finally:
        bo.set_num_threads(before[1])
        set_blas(min(before[0]))


class Hold(Callback):
    """Makes sure that trainings overlap."""

    def __init__(self, error=None):
        self.inside, self.go, self.error = threading.Event(), threading.Event(), error

    def on_start(self, run):
        self.inside.set()
        assert self.go.wait(60)
        if self.error is not None:
            raise self.error


class Fit(threading.Thread):
    """A training in a thread of its own, which waits in its callback."""

    def __init__(self, kind, error=None):
        super().__init__()
        self.layer, self.hold, self.raised = KINDS[kind](8, 2, seed=0), Hold(error), None
        self.start()
        assert self.hold.inside.wait(60)

    def run(self):
        try:
            Sequential(self.layer).fit(X, Y, epochs=1, verbose=0, callbacks=[self.hold])
        except BaseException as error:
            self.raised = error

    def end(self):
        self.hold.go.set()
        self.join()


@pytest.mark.parametrize("kinds", [("binary", "binary"), ("real", "real"), ("real",) * 3])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("error", [None, ValueError("stop"), KeyboardInterrupt()])
def test_the_last_of_a_kind_lifts_the_limit(several_threads, kinds, order, error):
    blas, ours = several_threads
    limited = ({1}, ours) if kinds[0] == "binary" else (blas, 1)
    fits = [Fit(kind, error) for kind in kinds]
    for fit in fits[::order]:
        assert limits() == limited
        fit.end()
        assert fit.raised is error
    assert limits() == several_threads


@pytest.mark.parametrize("kinds", [("binary", "real"), ("real", "binary", "real")])
@pytest.mark.parametrize("order", [1, -1])
def test_kinds_overlap(several_threads, kinds, order):
    fits = [Fit(kind) for kind in kinds]
    assert limits() == ({1}, 1)
    left = list(kinds)
    for i in range(len(kinds))[::order]:
        fits[i].end()
        left.remove(kinds[i])
        blas, ours = several_threads
        assert limits() == ({1} if "binary" in left else blas, 1 if "real" in left else ours)


@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", KINDS)
@pytest.mark.parametrize("error", [None, ZeroDivisionError(), KeyboardInterrupt()])
def test_a_training_inside_a_callback(several_threads, outer, inner, error):
    seen = []

    class Nested(Callback):
        def on_batch(self, run):
            hold = Hold(error)
            hold.go.set()
            before = limits()
            try:
                Sequential(KINDS[inner](8, 2, seed=0)).fit(
                    X, Y, epochs=1, verbose=0, callbacks=[hold]
                )
            except BaseException as found:
                assert found is error
            seen.append((before, limits()))

    model = Sequential(KINDS[outer](8, 2, seed=0))
    model.fit(X, Y, epochs=1, batch_size=50, verbose=0, callbacks=[Nested()])
    blas, ours = several_threads
    limited = ({1}, ours) if outer == "binary" else (blas, 1)
    assert seen == [(limited, limited)] * 2
    assert limits() == several_threads


def test_interrupts_of_the_main_thread(several_threads):
    class Press(Callback):
        def on_batch(self, run):
            signal.raise_signal(signal.SIGINT)

    other = Fit("real")
    with pytest.raises(KeyboardInterrupt):
        Sequential(Dense(8, 2)).fit(X, Y, epochs=1, verbose=0, callbacks=[Press()])
    assert limits() == (several_threads[0], 1)
    other.end()
    assert limits() == several_threads


def test_overlapping_trainings_give_the_same_weights():
    alone = Dense(8, 2, seed=0)
    Sequential(alone).fit(X, Y, epochs=1, verbose=0)
    fits = [Fit("real") for _ in range(3)]
    for fit in fits:
        fit.hold.go.set()
    for fit in fits:
        fit.join()
        np.testing.assert_array_equal(fit.layer.weight.value, alone.weight.value)
