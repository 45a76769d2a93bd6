"""Threads that use the same objects at the same moment, with and without a GIL.

    python tests/races.py [--seconds 5] [--threads 8] [scenario ...]

A scenario makes new objects, whose caches are empty, and says what each thread does with them. All
threads start together, again and again with new objects for so many seconds; what each of them
gets must be what it gets alone. tests/test_free_threading.py runs every scenario a few times, and
`tests/sanitize/run races` runs them under ThreadSanitizer. Ends with status 1 at a difference.
"""

import argparse
import copy
import pickle
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import bitops as bo
from bitops import layers, models, zoo
from bitops.layers import BatchNorm, BinaryConv2D, BinaryDense, Flatten, MaxPool2D, Packed, Sign
from bitops.search import BitIndex

Job = Callable[[], object]  # what a thread does; returns what is to be compared, or None

RNG = np.random.default_rng(20)
X = RNG.standard_normal((24, 300)).astype(np.float32)
BYTES = RNG.integers(0, 256, (24, 300), np.uint8)
W = RNG.standard_normal((70, 300)).astype(np.float32)
IMAGES = RNG.standard_normal((4, 9, 9, 8)).astype(np.float32)
FILTERS = RNG.standard_normal((12, 3, 3, 8)).astype(np.float32)
LABELS = np.arange(len(X)) % 3
ROUNDS = 50  # of a job that changes something while others read it


def plain(result: object) -> object:
    """Return a result as what can be compared."""
    if isinstance(result, tuple | list):
        return [plain(part) for part in result]
    if isinstance(result, bo.BitArray):
        return result.words.tobytes()
    return result.tobytes() if isinstance(result, np.ndarray) else result


def all_of(jobs: list[Job], threads: int) -> list[Job]:
    """Give each thread all the jobs, and each another one to begin with."""

    def one_after_the_other(first: int) -> Job:
        return lambda: [plain(job()) for job in jobs[first:] + jobs[:first]]

    return [one_after_the_other(i % len(jobs)) for i in range(threads)]


def one_beside_others(change: Job, job: Job, threads: int) -> list[Job]:
    """Let one thread change what the others use."""

    def use() -> None:
        for _ in range(ROUNDS):
            job()

    return [change, *[use] * (threads - 1)]


def convolutional(**options: bool) -> layers.Sequential:
    return layers.Sequential(
        BinaryConv2D(8, 16, 3, padding=1, seed=1, **options),
        MaxPool2D(2),
        BatchNorm(16),
        Sign(),
        BinaryConv2D(16, 16, 3, padding=1, seed=2, **options),
        BatchNorm(16),
        Sign(),
        Flatten(),
        BinaryDense(16 * 16, 3, seed=3, **options),
        input_shape=(9, 9, 8),
    )


def perceptron(seed: int = 0) -> layers.Sequential:
    return models.mlp(300, hidden=40, depth=2, classes=3, seed=seed)


# ---- scenarios: the number of threads -> a job for each ------------------------------------------


def bit_arrays(threads: int) -> list[Job]:
    a, b = bo.pack(X), bo.pack(W)
    jobs: list[Job] = [
        lambda: a[3:, None],
        lambda: a.reshape(4, 6, 300),
        lambda: bo.unpack(a),
        lambda: bo.popcount(a, 0),
        lambda: a ^ a[::-1],
        lambda: bo.gemm(a, b),
        lambda: bo.pack(X, axis=0),
        lambda: pickle.loads(pickle.dumps(a)),
        lambda: copy.copy(a),
    ]
    return all_of(jobs, threads)


def prepacked_matrix(threads: int) -> list[Job]:
    """Panels for other products are made at their first use."""
    w, a = bo.prepack(W), bo.pack(X)
    alpha = np.arange(70, dtype=np.float32)
    jobs: list[Job] = [
        lambda: bo.gemm(a, w),
        lambda: bo.gemm(a, w, alpha=alpha),
        lambda: bo.gemm_sign(a, w, 5),
        lambda: bo.hamming(a, w),
        lambda: bo.hamming_topk(a, w, 3),
        lambda: bo.weight_gemm(X, w),
        lambda: bo.bitplane_gemm(BYTES, w),
        lambda: (w.nbytes, repr(w)),
        lambda: pickle.loads(pickle.dumps(w)).bits,
    ]
    return all_of(jobs, threads)


def prepacked_filters(threads: int) -> list[Job]:
    """Each size of images and each setting adds a value to those of the filters."""
    w, x = bo.prepack(FILTERS), bo.pack(IMAGES)

    def convolve(size: int, padding: int) -> Job:
        return lambda: bo.conv2d(x[:, :size], w, padding=padding)

    jobs = [convolve(size, padding) for size in (4, 6, 9) for padding in (0, 1, 2)]
    jobs += [lambda: bo.conv2d_sign(x, w, 3), lambda: bo.weight_conv2d(IMAGES, w)]
    jobs += [lambda: bo.max_pool2d(x, 2), lambda: bo.avg_pool2d(IMAGES, 3, padding=1)]
    return all_of(jobs, threads)


def many_sizes(threads: int) -> list[Job]:
    """More sizes than the filters, and a model, keep values for: they drop all, and begin anew."""
    w, model = bo.prepack(FILTERS), Packed(layers.PackedDense(W, np.zeros(70, np.int32)))
    x = bo.pack(np.ones((1, 3, 90, 8)))

    def use(first: int) -> Job:
        widths = [3 + (first + i) % 88 for i in range(88)]
        return lambda: [
            [plain(bo.conv2d(x[:, :, :n], w, padding=p)) for n in widths for p in ((1, 1), (2, 2))],
            [plain(model(np.repeat(X, 4, axis=0)[:n])) for n in widths],
        ]

    return [use(i * 11) for i in range(threads)]


def other_isas(threads: int) -> list[Job]:
    """One thread changes the ISA of all. Results are the same with each."""
    w, filters, x = bo.prepack(W), bo.prepack(FILTERS), bo.pack(IMAGES)
    model = perceptron().freeze()

    def change() -> None:
        before = bo.isa.active()
        for i in range(ROUNDS):
            bo.isa.use(bo.isa.available()[i % len(bo.isa.available())])
            time.sleep(1e-4)
        bo.isa.use(before)

    jobs: list[Job] = [
        lambda: bo.gemm(X, w),
        lambda: bo.weight_gemm(X, w),
        lambda: bo.conv2d(x, filters, padding=1),
        lambda: model(X),
    ]
    return [change, *all_of(jobs, threads - 1)]


def packed_model(threads: int) -> list[Job]:
    """Its plans are made at the first input of each size and type."""
    model = convolutional().freeze()

    def run(n: int) -> Job:
        return lambda: model(IMAGES[:n])

    jobs = [run(n) for n in (1, 2, 3, 4)]
    jobs += [
        lambda: model(bo.pack(IMAGES)),
        lambda: model((IMAGES > 0).astype(np.uint8)),
        lambda: model.predict(IMAGES),
        lambda: pickle.loads(pickle.dumps(model))(IMAGES),
        lambda: copy.deepcopy(model)(IMAGES),
        lambda: repr(model.summary()),
    ]
    return all_of(jobs, threads)


def own_edits(threads: int) -> list[Job]:
    """Each thread edits a model of its own, whose plans must be those of its own edits."""

    def edit() -> list[object]:
        model = Packed(layers.PackedDense(W, alpha=np.ones(70, np.float32)))
        got: list[object] = []
        for i in range(ROUNDS):
            model.layers[0].alpha = np.full(70, i, np.float32)
            got.append(plain(model(X[:1])))
        return got

    return [edit] * threads


def edits_of_a_shared_model(threads: int) -> list[Job]:
    """One thread edits the model, and at once sees that. The others get what was or what is."""
    model = Packed(layers.PackedDense(W, alpha=np.ones(70, np.float32)))
    once = model(X)
    where = np.flatnonzero(once)[0]

    def change() -> None:
        for i in range(1, ROUNDS):
            if i % 2:
                model.layers[0].alpha = np.full(70, i, np.float32)
            else:
                model.layers = [layers.PackedDense(W, alpha=np.full(70, i, np.float32))]
            assert np.array_equal(model(X), i * once)

    def use() -> None:
        for _ in range(ROUNDS):
            got = model(X)
            factor = np.rint(got.flat[where] / once.flat[where])
            assert factor in range(ROUNDS) and np.array_equal(got, factor * once)

    return [change, *[use] * (threads - 1)]


def evaluation(threads: int) -> list[Job]:
    """Latent weights are quantized, and centred, when they are first used."""
    model = convolutional(center=True)
    for parameter in model.parameters():  # with means that count
        parameter.assign(parameter.value / 4 + 0.2)
    few = layers.QuantizedDense(300, 5, bo.quantizers.DoReFaWeight(2), seed=1)
    jobs: list[Job] = [lambda: model(IMAGES), lambda: model.predict_proba(IMAGES), lambda: few(X)]
    return all_of(jobs, threads)


def assignments(threads: int) -> list[Job]:
    """Others may get anything while weights are assigned, but nothing of it stays."""
    layer, done = BinaryDense(300, 70, seed=1), threading.Event()

    def seen() -> list[bytes]:
        return [layer(X).tobytes(), layer.bits.words.tobytes(), layer.weight.value.tobytes()]

    def change() -> object:
        after = []
        for i in range(ROUNDS):
            layer.weight.assign(W if i % 2 else -W)
            after.append(seen())
            if i % 3 == 0:
                layer.weight.shorts()
                after.append(seen())
            if i % 5 == 0:
                layer.weight.assign_signs(bo.pack(W))
                after.append(seen())
        done.set()
        return after

    def use() -> None:
        while not done.is_set():
            layer(X), layer.weight.value, layer.bits

    return [change, *[use] * (threads - 1)]


def trainings(threads: int) -> list[Job]:
    """Models of their own; what they share is the limit of threads."""

    def train(seed: int) -> Job:
        def fit() -> object:
            model = perceptron(seed)
            model.fit(X, LABELS, epochs=2, batch_size=8, seed=seed, verbose=0)
            return [parameter.value.tobytes() for parameter in model.parameters()]

        return fit

    return [train(i) for i in range(min(threads, 4))]


def search(threads: int) -> list[Job]:
    """Each search sees the rows of the moment at which it has begun."""
    rows = bo.pack(W)
    index = BitIndex(rows[:40])

    def change() -> object:
        for i in range(ROUNDS):
            index.add(rows[40:], ids=np.arange(40, 70) + 100 * i)
            index.remove(np.arange(40, 70) + 100 * i)
        return len(index)

    def use() -> None:
        for _ in range(ROUNDS):
            distances, ids = index.search(rows[:5], 60)
            found = (ids >= 0).sum(axis=1)
            assert set(found) <= {40, 60}, found
            assert (distances[:, 0] == 0).all() and (ids[:, 0] == np.arange(5)).all()
            assert index.within(rows[:5], 0).nnz == 5

    return [change, *[use] * (threads - 1)]


def written_bits(threads: int) -> list[Job]:
    """Bits that one thread writes are in any state for the others, but no memory is lost."""
    a, b = bo.pack(X), bo.pack(W)

    def change() -> None:
        for i in range(ROUNDS):
            a.words[...] = bo.pack(X if i % 2 else -X).words

    def use() -> object:
        return bo.gemm(a, b), a.copy(), bo.popcount(a), bo.unpack(a)

    return one_beside_others(change, use, threads)


def bundled_models(threads: int) -> list[Job]:
    jobs: list[Job] = [lambda: zoo.load("mnist-mlp")(zoo.samples("mnist-mlp")[:2]), zoo.names]
    return all_of(jobs, min(threads, 4))


SCENARIOS: dict[str, Callable[[int], list[Job]]] = {
    function.__name__: function
    for function in (
        bit_arrays,
        prepacked_matrix,
        prepacked_filters,
        many_sizes,
        other_isas,
        packed_model,
        own_edits,
        edits_of_a_shared_model,
        evaluation,
        assignments,
        trainings,
        search,
        written_bits,
        bundled_models,
    )
}

RACES = "assignments", "written_bits"  # where a thread writes numbers that others read


# ---- running them ------------------------------------------------------------------------------


def run_once(jobs: list[Job]) -> list[object]:
    """Let each thread do its job, all at the same moment."""
    start = threading.Barrier(len(jobs))

    def work(job: Job) -> object:
        start.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(work, jobs))


def run(name: str, threads: int, seconds: float = 0, least: int = 1) -> int:
    """Run a scenario for so long, and so often at least; returns how often that was."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # with a GIL, let threads take turns everywhere
    try:
        want = [job() for job in SCENARIOS[name](threads)]
        times, end = 0, time.monotonic() + seconds
        while times < least or time.monotonic() < end:
            got = run_once(SCENARIOS[name](threads))
            assert got == want, f"{name}, {threads} threads, round {times}: results differ"
            times += 1
        return times
    finally:
        sys.setswitchinterval(interval)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=5, help="for each scenario")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--ordered", action="store_true", help=f"all but {' and '.join(RACES)}")
    options = parser.parse_args()
    lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, global interpreter lock: {'yes' if lock else 'no'}")
    for name in options.scenarios or SCENARIOS:
        if options.ordered and name in RACES:
            continue
        times = run(name, options.threads, options.seconds)
        print(f"{name:24} {times:6} times, results equal", flush=True)


if __name__ == "__main__":
    main()
