"""Options of trainings: names, defaults, and what is refused before any step is done."""

import numpy as np
import pytest

from bitops import pack
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Dense,
    Dropout,
    GlobalAvgPool2D,
    Parameter,
    QuantizedDense,
    Sequential,
    check_gradients,
    freeze,
)
from bitops.models import mlp
from bitops.quantizers import ByteGradient, DoReFaGradient, StochasticSign, Ternary
from bitops.training import (
    SGD,
    ZCA,
    Adam,
    AdaMax,
    Bop,
    Callback,
    Checkpoint,
    CosineDecay,
    EarlyStopping,
    ExponentialDecay,
    Halving,
    ShiftAdaMax,
    StepDecay,
    Stretched,
    Warmup,
    cross_entropy,
    hinge,
    squared_hinge,
    to_ternary,
)
from bitops.training.augment import random_crop, random_flip
from trainings import assert_same

X = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
Y = np.arange(60) % 3


def make():
    return mlp(8, 16, 1, 3, seed=0)


def fit(model=None, **options):
    """Train a small network for one epoch of three steps."""
    model = make() if model is None else model
    options = {"x": X, "y": Y, "epochs": 1, "batch_size": 20, "verbose": 0, **options}
    model.fit(options.pop("x"), options.pop("y"), **options)
    return model


class Looks(Callback):
    """Keeps the run and the rates of its steps."""

    def __init__(self):
        self.rates = []

    def on_batch(self, run):
        self.run = run
        self.rates.append(run.optimizer.lr)


def look(**options):
    seen = Looks()
    fit(callbacks=seen, **options)
    return seen


# ---- what is refused -----------------------------------------------------------------------------

RAGGED = [[1.0] * 8, [1.0]] * 30
HUGE = np.where(X > 1, 1e300, X.astype(np.float64))
MASKED = np.ma.masked_array(X, X > 0)

REFUSED = {
    "batch_size: float": ({"batch_size": 32.0}, TypeError, "batch_size must be an integer"),
    "batch_size: text": ({"batch_size": "20"}, TypeError, "batch_size must be an integer"),
    "batch_size: 0": ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    "epochs: float": ({"epochs": 1.5}, TypeError, "epochs must be an integer"),
    "epochs: whole float": ({"epochs": 2.0}, TypeError, "epochs must be an integer"),
    "epochs: bool": ({"epochs": True}, TypeError, "epochs must be an integer"),
    "epochs: negative": ({"epochs": -1}, ValueError, "epochs must be at least 1"),
    "verbose: text": ({"verbose": "no"}, TypeError, "verbose must be an integer"),
    "blas: number": ({"blas": 1}, TypeError, "blas must be True or False"),
    "prefetch: text": ({"prefetch": "x"}, TypeError, "prefetch must be an integer"),
    "resume: number": ({"resume": 3}, TypeError, "resume must be a path"),
    "seed: negative": ({"seed": -1}, ValueError, "seed must be"),
    "seed: float": ({"seed": 1.5}, TypeError, "seed must be"),
    "seed: text": ({"seed": "a"}, TypeError, "seed must be"),
    "rate: negative": ({"schedule": lambda *_: -1.0}, ValueError, "learning rates must"),
    "rate: NaN": ({"schedule": lambda *_: np.nan}, ValueError, "learning rates must"),
    "rate: infinite": ({"schedule": lambda *_: np.inf}, ValueError, "learning rates must"),
    "rate: None": ({"schedule": lambda *_: None}, TypeError, "learning rates must"),
    "rate: text": ({"schedule": lambda *_: "1e-3"}, TypeError, "learning rates must"),
    "schedule: negative": ({"schedule": -3e-3}, ValueError, "schedule must be >= 0 and finite"),
    "schedule: NaN": ({"schedule": np.nan}, ValueError, "schedule must be >= 0 and finite"),
    "schedule: name": ({"schedule": "cosine"}, ValueError, "schedule must .*'cosine_decay'"),
    "schedule: list": ({"schedule": [1e-3]}, TypeError, "schedule must be a real number"),
    "optimizer: name": ({"optimizer": "Adam"}, ValueError, "optimizer must .* one of 'adam',"),
    "optimizer: class": ({"optimizer": Adam}, TypeError, "optimizer must be an Optimizer"),
    "optimizer: number": ({"optimizer": 3}, TypeError, "optimizer must be an Optimizer"),
    "optimizer: of others": (
        {"optimizer": Adam(make().parameters())},
        ValueError,
        "optimizer must be one of the model's parameters",
    ),
    "loss: name": ({"loss": "mse?"}, ValueError, "loss must .* one of 'binary_cross_entropy',"),
    "loss: None": ({"loss": None}, TypeError, "loss must be a callable or a name"),
    "augment: of nothing": (
        {"augment": lambda x, rng: None},
        TypeError,
        "what augment returns must hold real numbers",
    ),
    "augment: a row": ({"augment": lambda x, rng: x[0]}, ValueError, "augment must keep the 20"),
    "augment: 0-d": ({"augment": lambda x, rng: x.sum()}, ValueError, "augment must keep the 20"),
    "augment: number": ({"augment": 3}, TypeError, "augment must be a callable"),
    "callbacks: None": ({"callbacks": None}, TypeError, "callbacks must be Callback objects"),
    "callbacks: class": ({"callbacks": EarlyStopping}, TypeError, "callbacks must be Callback"),
    "x: empty": ({"x": X[:0], "y": Y[:0]}, ValueError, "x must have shape"),
    "x: one axis": ({"x": X[:, 0]}, ValueError, "x must have shape"),
    "x: width": ({"x": X[:, :4]}, ValueError, "x must have the shape that the model takes"),
    "x: bits of a width": ({"x": pack(X[:, :4])}, ValueError, "x must have the shape that the"),
    "x: bool": ({"x": X > 0}, TypeError, "x must be a BitArray, uint8 or real"),
    "x: complex": ({"x": X.astype(complex)}, TypeError, "x must hold real numbers"),
    "x: objects": ({"x": X.astype(object)}, TypeError, "x must hold real numbers"),
    "x: text": ({"x": X.astype(str)}, TypeError, "x must hold real numbers"),
    "x: ragged": ({"x": RAGGED}, ValueError, "x must be an array"),
    "x: masked": ({"x": MASKED}, TypeError, "x must not be masked"),
    "x: infinite": ({"x": np.where(X > 1, np.inf, X)}, ValueError, "x must be finite"),
    "x: beyond float32": ({"x": HUGE}, ValueError, "x must be finite as float32"),
    "y: column": ({"y": Y[:, None]}, ValueError, "y must have shape"),
    "y: short": ({"y": Y[:9]}, ValueError, "y must have shape"),
    "y: one-hot": ({"y": np.eye(3, dtype=int)[Y]}, ValueError, "y must have shape"),
    "y: float": ({"y": Y * 1.0}, TypeError, "y must be integers"),
    "y: bool": ({"y": Y > 0}, TypeError, "y must be integers"),
    "y: objects": ({"y": Y.astype(object)}, TypeError, "y must hold real numbers"),
    "y: text": ({"y": Y.astype(str)}, TypeError, "y must hold real numbers"),
    "y: ragged": ({"y": [1, [2]] * 30}, ValueError, "y must be an array"),
    "y: masked": ({"y": np.ma.masked_array(Y, Y > 1)}, TypeError, "y must not be masked"),
    "y: from 1": ({"y": Y + 1}, ValueError, r"y must be in 0\.\.2"),
    "y: negative": ({"y": Y - 1}, ValueError, r"y must be in 0\.\.2"),
    "y: beyond int64": ({"y": np.full(60, 2**64 - 1, np.uint64)}, ValueError, "y must be in"),
    "validation: array": ({"validation": X}, TypeError, "validation must be a pair"),
    "validation: x alone": ({"validation": (X,)}, TypeError, "validation must be a pair"),
    "validation: three": ({"validation": (X, Y, Y)}, TypeError, "validation must be a pair"),
    "validation: width": ({"validation": (X[:, :4], Y)}, ValueError, "validation x must have the"),
    "validation: empty": ({"validation": (X[:0], Y[:0])}, ValueError, "validation x must have"),
    "validation: floats": ({"validation": (X, Y * 1.0)}, TypeError, "validation y must be int"),
    "validation: labels": ({"validation": (X, Y + 1)}, ValueError, "validation y must be in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_any_step(case):
    change, error, message = REFUSED[case]
    model, untouched = make(), make()
    with pytest.raises(error, match=rf"^\[fit\] {message}(.|\n)*, got "):
        fit(model, **change)
    assert_same(model, untouched)


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (lambda s: 1.0, TypeError, r"loss must return \(value, gradient\), got a float"),
        (lambda s: None, TypeError, "loss must return"),
        (lambda s: (1.0, s, s), TypeError, "loss must return .*, got a tuple of 3"),
        (lambda s: (np.ones(9), s), TypeError, "the value of loss must be a single number"),
        (lambda s: (np.ones(1), s), TypeError, "the value of loss must be a single number"),
        (lambda s: ("1", s), TypeError, "the value of loss must be a single number"),
        (lambda s: (1.0, s[:, :2]), ValueError, r"the gradient of loss must have the shape"),
        (lambda s: (1.0, s[0]), ValueError, "the gradient of loss must have the shape"),
        (lambda s: (1.0, None), TypeError, "the gradient of loss must hold real numbers"),
    ],
)
def test_what_a_loss_returns(found, error, message):
    for options in ({}, {"accumulate": 2, "sample_weight": np.ones(60)}):
        with pytest.raises(error, match=rf"^\[fit\] {message}"):
            fit(loss=lambda scores, labels, sample_weight=None: found(scores), **options)


def test_a_loss_that_must_be_given_weights_may_fail():
    def loss(scores, labels, sample_weight):
        return np.nan, scores

    with pytest.raises(FloatingPointError, match="loss must be finite, got nan at step 1"):
        fit(loss=loss, sample_weight=np.ones(60))


@pytest.mark.parametrize(("lr", "where"), [(1e20, "loss"), (1e15, "validation_loss")])
def test_a_training_that_diverges_ends_in_an_error_alone(lr, where):
    """No warning of NumPy comes before it."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((200, 8)), rng.integers(3, size=200)
    model = Sequential(Dense(8, 3, seed=0))
    optimizer = SGD(model.parameters(), lr=lr, momentum=0.0)
    options = {"batch_size": 200 if where == "validation_loss" else 50}
    with pytest.raises(FloatingPointError, match=rf"^\[fit\] {where} must be finite"):
        model.fit(x, y, validation=(1e9 * x, y), optimizer=optimizer, verbose=0, **options)


def test_image_sizes_are_checked_unless_rows_change_on_their_way():
    """A network with a pool over the whole image takes any size, but not any channels."""
    images = np.random.default_rng(1).integers(256, size=(6, 5, 5, 3), dtype=np.uint8)
    y = np.arange(6) % 2

    def net():
        return Sequential(BinaryConv2D(3, 2, 3, seed=0), GlobalAvgPool2D(), BatchNorm(2))

    fit(net(), x=images, y=y, validation=(images[:, 1:, :], y))
    with pytest.raises(ValueError, match=r"^\[fit\] x must have the shape .* \(6, 2, 5, 3\): "):
        fit(net(), x=images[:, :2], y=y)
    with pytest.raises(ValueError, match=r"^\[fit\] validation x must have the shape"):
        fit(net(), x=images, y=y, validation=(images[..., :2], y))
    fit(net(), x=images[..., :1], y=y, augment=lambda x, rng: x.repeat(3, axis=-1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ExponentialDecay(np.inf), ValueError, r"\[ExponentialDecay\] start"),
        (lambda: ExponentialDecay(1e-3, "0"), TypeError, r"\[ExponentialDecay\] final"),
        (lambda: CosineDecay(np.nan), ValueError, r"\[CosineDecay\] start"),
        (lambda: CosineDecay(1.0, -1.0), ValueError, r"\[CosineDecay\] final"),
        (lambda: StepDecay(10**400, ()), ValueError, r"\[StepDecay\] start"),
        (lambda: StepDecay(1.0, (1.5,)), TypeError, r"\[StepDecay\] boundaries"),
        (lambda: StepDecay(1.0, (1,), np.inf), ValueError, r"\[StepDecay\] factor"),
        (lambda: Halving(1.0, 2.5), TypeError, r"\[Halving\] every"),
        (lambda: Warmup(0.1, 2), TypeError, r"\[Warmup\] schedule"),
        (lambda: Stretched(Halving(), 1.5), TypeError, r"\[Stretched\] epochs"),
        (lambda: Adam([], np.inf), ValueError, r"\[Adam\] lr"),
        (lambda: SGD([], "1e-3"), TypeError, r"\[SGD\] lr"),
        (lambda: SGD([], momentum="0.9"), TypeError, r"\[SGD\] momentum"),
        (lambda: AdaMax([], eps=np.inf), ValueError, r"\[AdaMax\] eps"),
        (lambda: EarlyStopping(2.5), TypeError, r"\[EarlyStopping\] patience"),
        (lambda: Checkpoint("x", every=1.5), TypeError, r"\[Checkpoint\] every"),
        (lambda: Checkpoint("x", steps=True), TypeError, r"\[Checkpoint\] steps"),
        (lambda: ZCA("1"), TypeError, r"\[ZCA\] bias"),
        (lambda: mlp(8, 4, 1.5, 2), TypeError, r"\[mlp\] depth"),
        (lambda: mlp(8, 4, -1, 2), ValueError, r"\[mlp\] depth"),
        (
            lambda: random_crop(np.zeros((1, 2, 2, 1)), 1, fill="a"),
            ValueError,
            r"\[random_crop\] fill",
        ),
        (lambda: to_ternary(make(), keep=(99,)), ValueError, r"\[to_ternary\] keep"),
        (lambda: to_ternary(3), TypeError, r"\[to_ternary\] model"),
        (lambda: freeze(3), TypeError, r"\[freeze\] model"),
        (lambda: check_gradients(3, X), TypeError, r"\[check_gradients\] layer"),
    ],
)
def test_numbers_of_schedules_optimizers_and_callbacks(call, error, message):
    with pytest.raises(error, match=rf"^{message} must .*, got "):
        call()


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf])
def test_scales_of_rates(scale):
    for call in (
        lambda: BinaryDense(8, 3, lr_scale=scale),
        lambda: BinaryConv2D(8, 3, 1, lr_scale=scale),
        lambda: QuantizedDense(8, 3, Ternary(), lr_scale=scale),
        lambda: Parameter(np.ones(3), lr_scale=scale),
    ):
        with pytest.raises(ValueError, match=r"^\[\w+\] lr_scale must be >= 0 and finite, got "):
            call()
    assert BinaryDense(8, 3, lr_scale=0).weight.lr_scale == 0


@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("BinaryDense", lambda seed: BinaryDense(8, 3, seed=seed)),
        ("Dropout", lambda seed: Dropout(0.5, seed)),
        ("ByteGradient", ByteGradient),
        ("DoReFaGradient", lambda seed: DoReFaGradient(4, seed)),
        ("StochasticSign", lambda seed: StochasticSign(seed=seed)),
        ("random_flip", lambda seed: random_flip(np.zeros((1, 2, 2, 1)), seed)),
        ("random_crop", lambda seed: random_crop(np.zeros((1, 2, 2, 1)), 1, seed)),
        ("round_gradients", lambda seed: make().round_gradients(seed)),
        ("seed_stream", lambda seed: mlp(8, 16, 1, 3, seed=seed)),
    ],
)
@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("a", TypeError)])
def test_seeds_of_all_that_draws(where, call, seed, error):
    with pytest.raises(error, match=rf"^\[{where}\] seed must be .*, got {seed!r}"):
        call(seed)


# ---- names and defaults --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", Adam), ("adamax", AdaMax), ("bop", Bop), ("sgd", SGD), ("shift_adamax", ShiftAdaMax)],
)
def test_an_optimizer_by_name_is_one_of_the_class_with_its_own_rate(name, kind):
    by_name, model = fit(optimizer=name), make()
    assert_same(by_name, fit(model, optimizer=kind(model.parameters())))
    seen = look(optimizer=name)
    assert type(seen.run.optimizer) is kind
    assert seen.rates == [kind(make().parameters()).lr] * 3


@pytest.mark.parametrize(
    ("name", "loss"),
    [("cross_entropy", cross_entropy), ("hinge", hinge), ("squared_hinge", squared_hinge)],
)
def test_a_loss_by_name(name, loss):
    assert look(loss=name).run.loss is loss
    assert_same(fit(loss=name), fit(loss=loss))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", lambda rate: StepDecay(rate, ())),
        ("cosine_decay", CosineDecay),
        ("exponential_decay", lambda rate: ExponentialDecay(rate, rate * 1e-4)),
        ("halving", Halving),
    ],
)
def test_a_schedule_by_name_starts_from_the_rate_of_the_optimizer(schedule, expected):
    made = look(schedule=schedule, optimizer="sgd", epochs=2).run.schedule
    assert type(made) is type(expected(1e-2))
    assert made(0, 2) == 1e-2
    assert made(1, 2) == pytest.approx(expected(1e-2)(1, 2))
    assert look(schedule=schedule).run.schedule(0, 2) == 3e-3


def test_the_default_is_adam_with_exponential_decay():
    assert look().run.schedule == look(schedule="exponential_decay").run.schedule
    assert look().run.schedule == ExponentialDecay()
    assert type(look().run.optimizer) is Adam


@pytest.mark.parametrize("rate", [0.02, 1, 0, np.float32(0.5), np.int64(1), np.array(0.5)])
def test_a_number_as_schedule_is_the_rate_of_all_epochs(rate):
    assert look(schedule=rate, epochs=2).rates == [rate] * 6


@pytest.mark.parametrize("kind", [Adam, SGD, Bop])
def test_a_given_optimizer_keeps_its_rate(kind):
    model = make()
    seen = Looks()
    fit(model, optimizer=kind(model.parameters(), lr=0.02), epochs=2, callbacks=[seen])
    assert seen.rates == [0.02] * 6


def test_a_callback_may_change_the_rate_that_is_kept():
    class Halve(Callback):
        def on_epoch(self, run):
            run.optimizer.lr /= 2

    model, seen = make(), Looks()
    options = {"optimizer": Adam(model.parameters(), lr=0.5), "callbacks": [Halve(), seen]}
    fit(model, epochs=3, **options)
    assert seen.rates == [0.5] * 3 + [0.25] * 3 + [0.125] * 3


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_a_rate_that_a_callback_sets_is_checked(rate):
    class Break(Callback):
        def on_epoch(self, run):
            run.optimizer.lr = rate

    for options in ({"optimizer": "sgd"}, {"schedule": lambda epoch, _: rate if epoch else 1e-3}):
        with pytest.raises(ValueError, match=r"^\[fit\] learning rates must be >= 0 and finite"):
            fit(epochs=2, callbacks=Break(), **options)


def test_a_kept_rate_is_resumed_and_another_one_refused(tmp_path):
    path = tmp_path / "kept"

    class Stop(Callback):
        def on_epoch(self, run):
            run.stop = True

    def train(lr, **options):
        model = make()
        return fit(model, optimizer=Adam(model.parameters(), lr=lr), epochs=3, **options)

    train(0.02, callbacks=[Stop(), Checkpoint(path)])
    assert_same(train(0.02, resume=path), train(0.02))
    with pytest.raises(ValueError, match=r"schedule is lr=0\.02 there and lr=0\.03 here"):
        train(0.03, resume=path)


def test_a_single_callback_is_a_list_of_one():
    stop = EarlyStopping(1)
    assert_same(
        fit(callbacks=stop, validation=(X, Y), epochs=5),
        fit(callbacks=(stop,), validation=(X, Y), epochs=5),
    )


def test_numpy_integers_are_integers():
    assert_same(fit(epochs=np.int64(2), batch_size=np.uint8(20)), fit(epochs=2, batch_size=20))


# ---- labels and rows of inference ----------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in REFUSED if case[:2] in ("x:", "y:")])
def test_error_rate_refuses_what_fit_refuses(case):
    change, error, _ = REFUSED[case]
    x, y = change.get("x", X), change.get("y", Y)
    model = make()
    for network in (model, model.freeze()):
        with pytest.raises(error, match=r"^\[\w+\] (.|\n)*, got "):
            network.error_rate(x, y)
    assert 0 <= model.error_rate(X, Y.astype(np.uint64)) <= 1


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.where(X > 1, np.inf, X), ValueError, "x must be finite as float32"),
        (np.where(X > 1, -np.inf, X), ValueError, "x must be finite as float32"),
        (np.where(X > 1, np.nan, X), ValueError, "x must be finite as float32"),
        (HUGE, ValueError, "x must be finite as float32"),
        (X.astype(object), TypeError, "x must hold real numbers"),
        (X.astype(complex), TypeError, "x must hold real numbers"),
        (MASKED, TypeError, "x must not be masked"),
        (RAGGED, ValueError, "x must be an array"),
        (X > 0, TypeError, "x must be a BitArray, uint8 or real"),
        (None, TypeError, "x must hold real numbers"),
        (3, ValueError, "x must have shape"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "outputs"])
def test_rows_of_inference(method, x, error, message):
    model = make()
    for network in (model, model.freeze()):
        with pytest.raises(error, match=rf"^\[{method}\] {message}(.|\n)*, got "):
            getattr(network, method)(x)


def test_the_last_row_is_checked_before_the_first_is_computed():
    model = make()
    x = np.zeros((2001, 8), np.float32)
    x[-1, -1] = np.nan
    model.forward = None  # would raise another error
    with pytest.raises(ValueError, match=r"^\[predict\] x must be finite"):
        model.predict(x)
