import math
import signal

import numpy as np
import pytest
from scipy.stats import norm

from bitops.config import get_num_threads, set_num_threads
from bitops.training.callbacks import Callback
from bitops.training.checkpoint import Checkpoint
from bitops.training.ebp import EBP


def problem(rng, n=400, k=21):
    """Two classes, decided by a vote."""
    x = rng.choice([-1.0, 1.0], size=(n, k)).astype(np.float32)
    return x, (x[:, :7].sum(axis=1) > 0).astype(int)


def literal_update(h, b, x, y, input_variance=0.0):
    """One example by the published equations, element by element, in float64."""
    v, var, kept = np.asarray(x, float), None, []
    for weights, biases in zip(h, b, strict=True):
        m, k = weights.shape
        mu, sigma2 = np.zeros(m), np.zeros(m)
        for i in range(m):
            for j in range(k):
                mean = math.tanh(weights[i, j])
                mu[i] += mean * v[j]
                if var is None:
                    sigma2[i] += (1 - (1 - input_variance) * mean**2) * v[j] ** 2
                else:
                    sigma2[i] += var[j] + (1 - mean**2) * (1 - var[j])
            mu[i] = (mu[i] + biases[i]) / math.sqrt(k + 1)
            sigma2[i] = (sigma2[i] + 1) / (k + 1)
        kept.append((v, mu, np.sqrt(sigma2), k))
        p = norm.cdf(mu / np.sqrt(sigma2))
        v, var = 2 * p - 1, 4 * (p - p**2)
    loss = -norm.logcdf(y * kept[-1][1] / kept[-1][2]).sum()
    delta, new_h, new_b = np.asarray(y, float), [], []
    for place in range(len(h) - 1, -1, -1):
        v, mu, sigma, k = kept[place]
        g = 2 * norm.pdf(0, mu, sigma) / math.sqrt(k + 1)
        if place == len(h) - 1:
            g /= norm.cdf(0, -y * mu, sigma)
        new_h.insert(0, h[place] + 0.5 * np.outer(delta * g, v))
        new_b.insert(0, b[place] + 0.5 * delta * g)
        delta = np.tanh(h[place]).T @ (delta * g)
    return loss, new_h, new_b


@pytest.mark.parametrize(("keep", "input_variance"), [(1.0, 0.0), (0.8, 0.64)])
def test_update_is_the_published_one(keep, input_variance):
    rng = np.random.default_rng(0)
    model = EBP([6, 5, 4, 3], seed=1, spread=2.0, keep=keep)
    for b in model.b:
        b += rng.normal(size=b.shape).astype(np.float32)
    h, b = [a.astype(float) for a in model.h], [a.astype(float) for a in model.b]
    x = rng.normal(size=(1, 6))
    loss, new_h, new_b = literal_update(h, b, x[0], np.array([-1, 1, -1]), input_variance)
    assert model.update(x, [1]) == pytest.approx(loss, rel=1e-4)
    for got, expected in zip([*model.h, *model.b], [*new_h, *new_b], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_inputs_are_noisy_in_training_alone():
    x = np.random.default_rng(0).normal(size=(4, 6))
    noisy, exact = (EBP([6, 5, 3], seed=1, spread=9.0, keep=keep) for keep in (0.8, 1.0))
    np.testing.assert_array_equal(noisy.forward(x), exact.forward(x))
    np.testing.assert_array_equal(exact.forward(x, training=True), exact.forward(x))
    assert (noisy.forward(x, training=True) != exact.forward(x)).all()


def test_batch_is_the_sum_of_its_examples():
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(3, 6)), np.array([0, 1, 1])
    whole = EBP([6, 5, 2], lr=0.5, seed=0)
    start = [a.copy() for a in whole.h]
    whole.update(x, labels)
    steps = []
    for i in range(3):
        single = EBP([6, 5, 2], lr=0.5, seed=0)
        single.update(x[i : i + 1], labels[i : i + 1])
        steps.append([a - s for a, s in zip(single.h, start, strict=True)])
    for place, got in enumerate(whole.h):
        total = sum(step[place] for step in steps)
        np.testing.assert_allclose(got - start[place], total, rtol=1e-4, atol=1e-5)


def test_far_wrong_sums_take_the_limit_of_the_ratio():
    """N / Phi(y mu / sigma) tends to -y mu / sigma^2 where Phi underflows."""
    model = EBP([400, 1], seed=0)
    model.h[0][...] = 9  # certain weights: sigma^2 is about 1 / 401
    x = np.ones((1, 400))
    before = model.b[0].copy()
    mu, sigma2 = 400 / math.sqrt(401), 1 / 401
    model.update(x * -1, [0])  # class 0 wants +1
    step = 0.5 * 2 * (mu / sigma2) / math.sqrt(401)
    np.testing.assert_allclose(model.b[0] - before, step, rtol=0.02)


def test_first_weights():
    model = EBP([300, 200, 10], spread=3.0, seed=2)
    assert [h.shape for h in model.h] == [(200, 300), (10, 200)]
    assert model.h[0].var() == pytest.approx(3 / 300, rel=0.02)
    assert not any(b.any() for b in model.b)
    np.testing.assert_array_equal(model.h[0], EBP([300, 200, 10], spread=3.0, seed=2).h[0])


def test_learns_and_becomes_a_packed_network():
    x, labels = problem(np.random.default_rng(3))
    model = EBP([21, 100, 2], seed=0)
    history = model.fit(x, labels, epochs=8, validation=(x, labels), verbose=0)
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert model.error_rate(x, labels) == history.best.validation_error < 0.05
    network = model.network
    assert network.error_rate(x, labels) < 0.15
    packed = network.freeze()
    np.testing.assert_array_equal(packed(x), network(x))
    w1, w2 = (np.where(h >= 0, 1, -1) for h in model.h)
    hidden = np.where(x @ w1.T + model.b[0] >= 0, 1, -1)
    np.testing.assert_allclose(packed(x), hidden @ w2.T + model.b[1], rtol=1e-5)


def test_same_seed_same_state(capsys):
    x, labels = problem(np.random.default_rng(4), n=60)
    models = [EBP([21, 5, 2], seed=0) for _ in range(2)]
    for model in models:
        model.fit(x, labels, epochs=2, batch_size=7, seed=5)
    for a, b in zip(*(model.h for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    assert capsys.readouterr().out.count("epoch ") == 4


def test_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path):
    x, labels = problem(np.random.default_rng(6), n=120)
    options = {"epochs": 4, "batch_size": 7, "validation": (x, labels), "verbose": 0}
    whole = EBP([21, 15, 2], lr=0.5, seed=0)
    history = whole.fit(x, labels, **options)

    class Press(Callback):
        def on_batch(self, run):
            if (run.epoch, run.batch) == (3, 5):
                signal.raise_signal(signal.SIGINT)

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        EBP([21, 15, 2], lr=0.5, seed=0).fit(
            x, labels, callbacks=[Press(), Checkpoint(path, every=9)], **options
        )
    other = EBP([21, 15, 2], lr=0.25, seed=0)
    with pytest.raises(ValueError, match="schedule"):
        other.fit(x, labels, resume=path, **options)
    resumed = EBP([21, 15, 2], lr=0.5, seed=9)
    again = resumed.fit(x, labels, resume=path, **options)
    for got, expected in zip([*resumed.h, *resumed.b], [*whole.h, *whole.b], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [e.loss for e in again.epochs] == [e.loss for e in history.epochs]


def test_threads_go_to_the_products_of_means():
    """Which are real, so that BLAS computes them; ours rest."""
    seen = []

    class Look(Callback):
        def on_start(self, run):
            seen.append(get_num_threads())

    x, labels = problem(np.random.default_rng(6), n=40)
    before = get_num_threads()
    set_num_threads(2)
    try:
        EBP([21, 5, 2], seed=0).fit(x, labels, epochs=1, verbose=0, callbacks=[Look()])
        assert get_num_threads() >= seen[0] == 1
    finally:
        set_num_threads(before)


def test_steps_need_a_forward_pass_in_training():
    model = EBP([3, 2])
    scores = model.forward(np.ones((1, 3)))
    value, d = model.loss(scores, [0])
    assert value == model.loss(model.forward(np.ones((1, 3)), training=True), [0])[0]
    assert not d.any() and model.loss(scores, [0])[1].any()
    scores = model.forward(np.ones((1, 3)))
    with pytest.raises(RuntimeError, match=r"^\[EBP\] backward needs forward"):
        model.backward(scores)


def test_freeze_packs_the_likeliest_network():
    x, labels = problem(np.random.default_rng(7), n=100)
    model = EBP([21, 10, 2], seed=0)
    model.update(x, labels)
    np.testing.assert_array_equal(model.freeze()(x), model.network(x))
    assert str(model.summary().total) == str(model.network.summary().total)


def test_steps_without_bound_are_refused():
    model = EBP([4, 3, 2], seed=0)
    model.b[1][0] = np.inf
    with pytest.raises(FloatingPointError, match=r"\[EBP\] .*lr = 1"):
        model.update(np.ones((2, 4)), [0, 1])


@pytest.mark.parametrize("lr", [10, 1e4, 1e30])
@pytest.mark.parametrize("keep", [1, 0.8])
@pytest.mark.parametrize("sizes", [[64, 10], [64, 16, 16, 10]])
def test_a_training_that_diverges_ends_in_an_error_alone(lr, keep, sizes):
    """No warning of NumPy comes before it."""
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((400, 64)), rng.integers(10, size=400)
    model = EBP(sizes, lr=lr, spread=200.0, keep=keep, seed=0)
    with pytest.raises(FloatingPointError, match="must be finite"):
        model.fit(x, labels, epochs=200, batch_size=50, verbose=0)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: EBP([3]), ValueError),
        (lambda: EBP([3, 0]), ValueError),
        (lambda: EBP([3, 2.0]), TypeError),
        (lambda: EBP([3, 2], lr=0), ValueError),
        (lambda: EBP([3, 2], spread=math.inf), ValueError),
        (lambda: EBP([3, 2], keep=0.4), ValueError),
        (lambda: EBP([3, 2]).update(np.ones((1, 4)), [0]), ValueError),
        (lambda: EBP([3, 2]).update(np.ones((1, 3), bool), [0]), TypeError),
        (lambda: EBP([3, 2]).update(np.ones((2, 3)), [0]), ValueError),
        (lambda: EBP([3, 2]).update(np.ones((1, 3)), [2]), ValueError),
        (lambda: EBP([3, 2]).fit(np.ones((0, 3)), np.zeros(0, int)), ValueError),
        (lambda: EBP([3, 2]).fit(np.ones((2, 3)), []), TypeError),  # not integers
        (lambda: EBP([3, 2]).fit(np.ones((2, 3)), [0, 1], epochs=0), ValueError),
        (lambda: EBP([3, 2]).fit(np.ones((2, 3)), [0, 1], optimizer="adam"), TypeError),
        (lambda: EBP([3, 2]).fit(np.ones((2, 3)), [0, 1], loss="mse", schedule=1.0), TypeError),
        (lambda: EBP([3, 2]).fit(np.ones((2, 3)), [0, 1], recalibrate=2), ValueError),
        (lambda: EBP([3, 2]).error_rate(np.ones((2, 3)), [0]), ValueError),
    ],
)
def test_bad_input(make, error):
    with pytest.raises(error, match=r"^\[\w+\] "):
        make()
