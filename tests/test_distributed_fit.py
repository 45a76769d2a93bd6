"""Training on workers: the bits of one process, for any number of workers, some of them lost."""

import os
import pickle
import signal
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Dense,
    MaxPool2D,
    QuantizedDense,
    Residual,
    Sequential,
    ShiftBatchNorm,
    Sign,
)
from bitops.layers.states import flatten
from bitops.quantizers import Ternary
from bitops.training import Callback, Checkpoint, cross_entropy
from bitops.training.gradients import PairwiseSum

dask = pytest.importorskip("dask", reason="the extra dask is not installed")
da = pytest.importorskip("dask.array", reason="the extra dask is not installed")
pytest.importorskip("distributed", reason="the extra dask is not installed")

from bitops import distributed  # noqa: E402
from bitops.distributed import shards  # noqa: E402
from bitops.distributed.compression import Code  # noqa: E402
from clusters import (  # noqa: E402
    cluster_of,
    kill_once,
    needs_signals,
    no_errors_of_warnings,
    scale,
)

pytestmark = no_errors_of_warnings

RNG = np.random.default_rng(12)
X = RNG.integers(0, 256, (110, 36), dtype=np.uint8)
Y = RNG.integers(0, 4, 110)
OPTIONS = {"epochs": 2, "batch_size": 50, "verbose": 0, "loss": cross_entropy}


@pytest.fixture(scope="module")
def client():
    with cluster_of(2) as client:
        yield client


def plain(seed=0, **options):
    return Sequential(
        BinaryDense(36, 32, seed=seed, **options),
        BatchNorm(32),
        Sign(),
        BinaryDense(32, 4, seed=1, **options),
        BatchNorm(4),
    )


def shifted():
    return Sequential(
        Dense(36, 16, seed=1), ShiftBatchNorm(16), Sign(), QuantizedDense(16, 4, Ternary(), seed=2)
    )


def images():
    body = BinaryConv2D(8, 8, 3, padding=1, seed=2), BatchNorm(8)
    return Sequential(
        BinaryConv2D(1, 8, 3, padding=1, seed=1),
        BatchNorm(8),
        Sign(),
        Residual(Sequential(*body)),
        MaxPool2D(6),
        _Flat(),
        Dense(8, 4, seed=3),
    )


class _Flat(Sign):
    """A layer of a class that only this file has: images of one pixel become rows."""

    def forward(self, x, *, training=False):
        return x.reshape(len(x), -1)

    def backward(self, grad):
        return grad.reshape(len(grad), 1, 1, -1)

    def output_shape(self, shape):
        return shape[-1:]


def drawn(seed=0):
    return plain(seed, stochastic=True)


def frozen():
    model = plain()
    model.layers[0].trainable = model.layers[1].trainable = False
    return model


def bits(model):
    return [array.tobytes() for array in flatten(model.state())]


def both(make, client, x=X, **options):
    """The states, and the losses of the epochs, of a training here and on workers."""
    results = []
    for workers in (None, client):
        model = make()
        given = OPTIONS | options
        if workers is None:
            given["accumulate"] = given.pop("shards", 8)
            history = model.fit(x, Y, **given)
        else:
            history = distributed.fit(model, x, Y, client=workers, **given)
        losses = [(e.loss, e.train_error, e.validation_loss) for e in history.epochs]
        results.append((bits(model), losses))
    return results


# ---- without a cluster --------------------------------------------------------------------------


@pytest.mark.parametrize("count", (1, 2, 3, 5, 6, 7, 8, 13))
def test_sums_of_aligned_blocks_have_the_same_bits(count):
    parts = RNG.standard_normal((count, 50)).astype(np.float32)
    whole = PairwiseSum()
    for part in parts:
        whole.add([part.copy()])
    (total,) = whole.total()
    assert_allclose(total, parts.sum(axis=0, dtype=np.float64), rtol=1e-4, atol=1e-6)
    for size in (1, 2, 4):
        sums = []
        for start in range(0, count, size):
            block = PairwiseSum()
            for part in parts[start : start + size]:
                block.add([part.copy()])
            sums += [block.total()[0]]
        while len(sums) > 1:
            pairs = [sums[i : i + 2] for i in range(0, len(sums), 2)]
            sums = [pair[0] + pair[1] if pair[1:] else pair[0] for pair in pairs]
        assert_array_equal(sums[0], total)


@pytest.mark.parametrize("kind", ("int8", "sign"))
def test_what_codes_leave_out_is_sent_later(kind):
    """Two shards: what has been decoded and what is left out make up all gradients."""
    shape, steps = (6, 20), 30
    gradients = RNG.standard_normal((steps, 2, *shape)).astype(np.float32)
    code, left, sent = Code(kind), [None, None], np.zeros(shape)
    for step in gradients:
        sums, levels = PairwiseSum(), []
        for i, g in enumerate(step):
            coded, left[i], level = code.encode([g], left[i])
            sums.add(coded)
            levels.append(level)
        (total,) = sums.total()
        if code.scales is not None:
            assert total.dtype == {"int8": np.int16, "sign": np.int8}[kind]
            assert len(np.unique(total)) <= {"int8": 509, "sign": 3}[kind]
        (decoded,) = code.decode([total])
        sent += decoded
        code = code.next(levels)
    rest = left[0][0] + left[1][0]
    assert_allclose(sent + rest, gradients.sum(axis=(0, 1), dtype=np.float64), atol=1e-3)
    assert np.abs(rest).max() < {"int8": 0.2, "sign": 12}[kind]


def test_vectors_and_zeros_are_sent_as_they_are():
    vector, zeros = np.float32([1, -2]), np.zeros((3, 4), np.float32)
    for kind in ("int8", "sign"):
        code = Code(kind, (1.0, 0.0))
        coded, left, _ = code.encode([vector, zeros], None)
        first, second = code.decode(coded)
        assert_array_equal(first, vector)
        assert_array_equal(second, zeros)
        assert not np.any(left[0]) and not np.any(left[1])


@pytest.mark.parametrize("make", (plain, partial(plain, scale_weights=True)))
def test_only_what_is_needed_travels(make):
    """Signs of binary weights, unless the layer scales them; and no gradients."""
    model = make()
    step = shards.step_of(model, cross_entropy, None, Code(), [])
    for outline, parameter in zip(step.outlines, model.parameters(), strict=True):
        is_small = parameter.binary and make is plain
        whole = 8 * parameter.shape[0] if is_small else 4 * parameter.size
        assert whole <= len(pickle.dumps(outline.value)) < whole + 400
    network = pickle.loads(pickle.dumps(step)).network()
    assert_array_equal(network.layers[0].bits.words, model.layers[0].bits.words)
    assert step.network().layers[0].weight is not step.network().layers[0].weight


# ---- on workers ---------------------------------------------------------------------------------


CASES = {
    "images": (images, {"x": X.reshape(110, 6, 6, 1)}),
    "latents": (partial(plain, scale_weights=True), {"shards": 3}),
    "centered": (partial(plain, center=True), {"shards": 6}),
    "float and ternary": (shifted, {"x": X / np.float32(255), "shards": 5}),
    "frozen": (frozen, {}),
    "options": (
        plain,
        {
            "validation": (X[:30], Y[:30]),
            "sample_weight": np.linspace(0, 2, 110),
            "augment": lambda x, rng: np.roll(x, rng.integers(3), axis=1),
            "optimizer": "sgd",
            "seed": 3,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_that_of_one_process(case, client):
    make, options = CASES[case]
    here, there = both(make, client, **options)
    assert there == here


def test_random_numbers_depend_on_seed_step_and_shard(client):
    found = []
    for shards_of, seed in ((client, 0), (client, 0), (client, 1)):
        model = drawn()
        distributed.fit(model, X, Y, client=shards_of, seed=seed, **OPTIONS)
        found.append(bits(model))
    assert found[0] == found[1] != found[2]


def test_dask_arrays_are_taken_in_the_order_of_fit(client):
    x, y = da.from_array(X, chunks=(30, 20)), da.from_array(Y, chunks=40)
    weight = np.linspace(0, 2, 110)
    here = plain()
    here.fit(X, Y, accumulate=8, sample_weight=weight, **OPTIONS)
    there = plain()
    distributed.fit(there, x, y, client=client, sample_weight=weight, **OPTIONS)
    assert bits(there) == bits(here)


def test_batches_of_an_iterable(client):
    batches = [(X[a:b], Y[a:b]) for a, b in pairwise((0, 30, 60, 110))]
    here, there = plain(), plain()
    here.fit(batches, accumulate=8, epochs=2, verbose=0)
    distributed.fit(there, batches, client=client, epochs=2, verbose=0)
    assert bits(there) == bits(here)


@pytest.mark.parametrize("kind", ("float32", "int8"))
def test_resume_is_exact(kind, client, tmp_path):
    whole = plain()
    options = {**OPTIONS, "schedule": "constant", "client": client, "gradients": kind}
    distributed.fit(whole, X, Y, **options)
    path = tmp_path / "training"
    first = {**options, "epochs": 1}
    distributed.fit(plain(), X, Y, callbacks=Checkpoint(path), **first)
    again = plain(7)
    distributed.fit(again, X, Y, resume=path, **options)
    assert bits(again) == bits(whole)
    if kind == "float32":  # in one process too
        alone = plain(8)
        alone.fit(X, Y, resume=path, accumulate=8, schedule="constant", **OPTIONS)
        assert bits(alone) == bits(whole)


@pytest.mark.parametrize(
    ("there", "here", "words"),
    (
        ("int8", "sign", "gradients is int8 there and sign here"),
        ("sign", "float32", "gradients is sign there and none here"),
        ("float32", "int8", "gradients is none there and int8 here"),
    ),
)
def test_other_gradients_do_not_go_on(there, here, words, client, tmp_path):
    path = tmp_path / "training"
    options = {"batch_size": 55, "verbose": 0, "client": client, "schedule": "constant"}
    first = {**options, "epochs": 1, "gradients": there}
    distributed.fit(plain(), X, Y, callbacks=Checkpoint(path), **first)
    written, model = path.read_bytes(), plain(7)
    before = bits(model)
    with pytest.raises(ValueError, match=f"resume must be a checkpoint .*: {words}$"):
        distributed.fit(model, X, Y, resume=path, epochs=2, gradients=here, **options)
    with pytest.raises(FileExistsError, match=words):
        other = {**options, "epochs": 1, "gradients": here}
        distributed.fit(model, X, Y, callbacks=Checkpoint(path), **other)
    assert bits(model) == before
    assert path.read_bytes() == written
    if there != "float32":
        alone = {"batch_size": 55, "verbose": 0, "schedule": "constant", "accumulate": 8}
        with pytest.raises(ValueError, match=f"gradients is {there} there and none here"):
            model.fit(X, Y, resume=path, epochs=2, **alone)


class At(Callback):
    """Calls a function after a step."""

    def __init__(self, step, call):
        self.step, self.call = step, call

    def on_batch(self, run):
        if run.step == self.step:
            self.call()


def deadly(path, scores, targets):
    """A loss that ends its worker, once, after the path with the ending .armed was made."""
    if path.with_suffix(".armed").exists():
        kill_once(path)
    return cross_entropy(scores, targets)


@needs_signals
@pytest.mark.parametrize("kind", ("float32", "int8"))
def test_a_worker_lost_in_a_step(kind, client, tmp_path):
    path = tmp_path / "killed"
    model = plain()
    options = {**OPTIONS, "loss": partial(deadly, path), "epochs": 3, "gradients": kind}
    arm = At(2, path.with_suffix(".armed").touch)
    history = distributed.fit(model, X, Y, client=client, callbacks=arm, **options)
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), signal.SIGCONT)
    assert len(history.epochs) == 3
    if kind == "float32":
        alone = plain()
        alone.fit(X, Y, accumulate=8, **{**OPTIONS, "epochs": 3})
        assert bits(alone) == bits(model)


@needs_signals
def test_all_workers_lost_between_steps(client):
    def end_all():
        for pid in client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)

    model, alone = plain(), plain()
    distributed.fit(model, X, Y, client=client, callbacks=At(2, end_all), **OPTIONS)
    alone.fit(X, Y, accumulate=8, **OPTIONS)
    assert bits(alone) == bits(model)


def test_a_step_whose_data_are_lost_is_done_again(client, monkeypatch):
    scatter, sent = client.scatter, []

    def lossy(step, **options):
        sent.append(scatter(step, **options))
        if len(sent) == 2:
            client.cancel(sent[-1], force=True)
        return sent[-1]

    monkeypatch.setattr(client, "scatter", lossy)
    here, there = both(plain, client)
    assert there == here
    assert len(sent) > 4


def test_steps_that_are_lost_again_and_again_end_the_training(client, monkeypatch):
    def lost(step, **options):
        raise TimeoutError

    monkeypatch.setattr(client, "scatter", lost)
    with pytest.raises(RuntimeError, match="workers must stay for a step, got 5 failures"):
        distributed.fit(plain(), X, Y, client=client, **OPTIONS)


def broken(scores, targets):
    return np.nan, cross_entropy(scores, targets)[1]


def test_a_loss_that_is_not_finite_ends_the_training(client):
    with pytest.raises(FloatingPointError, match="loss must be finite, got nan at step 1, epoch 1"):
        distributed.fit(plain(), X, Y, client=client, **{**OPTIONS, "loss": broken})


class Counting(Dense):
    """Its state holds more than parameters."""

    def state(self):
        return [*super().state(), np.zeros(3)]


REFUSED = {
    "model": ({"model": "net"}, TypeError, "model must be a Sequential, got 'net'"),
    "shards": ({"shards": 0}, ValueError, "shards must be at least 1, got 0"),
    "kind": ({"gradients": "int4"}, ValueError, "gradients must be one of float32, int8, sign"),
    "many": ({"gradients": "sign", "shards": 128}, ValueError, "shards must be at most 127"),
    "accumulate": ({"accumulate": 2}, ValueError, "accumulate must be left out, as shards takes"),
    "client": ({"client": 3}, TypeError, "client must be a synchronous distributed.Client, got 3"),
    "state": (
        {"model": Sequential(Counting(36, 4, seed=1))},
        TypeError,
        "a layer whose state holds more than its parameters must define observed",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    options, error, message = REFUSED[case]
    options = {"model": plain(), "client": None, **options}
    with pytest.raises(error, match=rf"^\[distributed\.fit\] {message}"):
        distributed.fit(options.pop("model"), X, Y, **options)


def test_a_client_is_needed():
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(ValueError, match="client must be given, or"):
            distributed.fit(plain(), X, Y)


def test_steps_of_fewer_rows_than_shards_are_refused(client):
    with pytest.raises(ValueError, match="accumulate must be at most the 5 rows of a step, got 8"):
        distributed.fit(plain(), X, Y, client=client, batch_size=5)
    x = da.from_array(X)
    with pytest.raises(ValueError, match="y must have the 110 rows of x"):
        distributed.fit(plain(), x, Y[:9], client=client)
    for weight, words in (
        (np.ones(9), r"sample_weight must have shape \(110,\), got \(9,\)"),
        (np.full(110, np.nan), "sample_weight must be finite and >= 0, got nan"),
        (np.full(110, -1), "sample_weight must be finite and >= 0, got -1"),
        (np.zeros(110), "weights must be above 0 for some of the rows, got 0 for all"),
    ):
        with pytest.raises(ValueError, match=words):
            distributed.fit(plain(), x, Y, client=client, sample_weight=weight)
        with pytest.raises(ValueError, match=words):
            distributed.fit(plain(), X, Y, client=client, sample_weight=weight)


def test_one_two_and_four_workers_give_the_same_bits(client):
    """The last one, as it changes the cluster."""
    found, coded = [], {"int8": [], "sign": []}
    for workers in (2, 1, 4):
        scale(client, workers)
        found += both(plain, client)
        for kind, states in coded.items():
            model = plain()
            distributed.fit(model, X, Y, client=client, gradients=kind, **OPTIONS)
            states.append(bits(model))
    assert all(result == found[0] for result in found)
    assert all(state == states[0] for states in coded.values() for state in states)
    assert found[0][0] != coded["int8"][0] != coded["sign"][0]
