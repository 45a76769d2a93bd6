"""A training that was interrupted and resumed gives the bits of one that was not."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Dropout,
    Flatten,
    Quantize,
    QuantizedDense,
    QuantizeGradient,
    Residual,
    Sequential,
    ShiftBatchNorm,
    Sign,
)
from bitops.ops.array import pack
from bitops.quantizers import (
    AnnealedSign,
    ByteGradient,
    ClippedGradient,
    DoReFaActivation,
    ProgressiveSign,
    StochasticSign,
    Ternary,
)
from bitops.training.augment import random_crop, random_flip
from bitops.training.callbacks import Annealing, Callback, EarlyStopping
from bitops.training.checkpoint import Checkpoint
from bitops.training.log import Log
from bitops.training.losses import cross_entropy
from bitops.training.optim import SGD, Adam, AdaMax, Bop, ShiftAdaMax
from bitops.training.schedules import CosineDecay
from forgery import write
from trainings import OPTIONS, At, assert_same, data, dense, press, read, stop


class Crash(Exception):
    pass


def crash(run):
    raise Crash


class AtEpoch(Callback):
    """Does something at the end of an epoch."""

    def __init__(self, epoch, do):
        self.epoch, self.do = epoch, do

    def on_epoch(self, run):
        if run.epoch == self.epoch:
            self.do(run)


def without_times(history):
    return [(e.number, e.learning_rate, e.loss, e.train_error, e.validation_error) for e in history]


def check_resumed(path, make, optimizer=Adam, interrupt=press, step=7, written=None, **options):
    """A training that ends at a step and is resumed equals one that runs through, bit for bit."""
    x, y = options.pop("data", None) or data()
    options = {**OPTIONS, **options}
    ends_epoch = interrupt is crash and step % 5 == 0  # between its last step and its checkpoint
    end = AtEpoch(step // 5, crash) if ends_epoch else At(step, interrupt)

    def fit(model, **more):
        kind = optimizer(model.parameters())
        history = model.fit(x, y, optimizer=kind, **{**options, **more})
        return kind, history

    model = make()
    kind, history = fit(model)
    broken = make()
    error = {press: KeyboardInterrupt, crash: Crash}[interrupt]
    callbacks = [*options.get("callbacks", []), written or Checkpoint(path), end]
    with pytest.raises(error):
        fit(broken, callbacks=callbacks)
    resumed = make(seed=9)  # its weights and generators come from the file
    other_kind, other_history = fit(resumed, resume=path)
    assert_same(model, resumed)
    assert_array_equal(model.outputs(x), resumed.outputs(x))
    for name, array in kind.state().items():
        assert_array_equal(array, other_kind.state()[name])
    assert without_times(other_history.epochs) == without_times(history.epochs)
    assert other_history.best is other_history.epochs[history.best.number - 1]


def moderate_bop(parameters):
    return Bop(parameters, threshold=1e-6, adaptivity=1e-2)


def short_adam(parameters):
    return Adam(parameters, moment_bits=16, weight_bits=16)


OPTIMIZERS = [Adam, short_adam, SGD, AdaMax, ShiftAdaMax, moderate_bop]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_equals_uninterrupted(tmp_path, optimizer):
    check_resumed(tmp_path / "c", dense, optimizer)


@pytest.mark.parametrize("step", [1, 4, 5, 6, 19, 20])
@pytest.mark.parametrize("validated", [False, True])
def test_resumed_from_any_step(tmp_path, step, validated):
    """First, last and middle ones of an epoch, and the very last."""
    x, y = data()
    options = {"validation": (x[:30], y[:30]), "schedule": CosineDecay(0.02)} if validated else {}
    check_resumed(tmp_path / "c", dense, step=step, **options)


@pytest.mark.parametrize(
    ("every", "step"), [({}, 13), ({"every": 2}, 18), ({"steps": 4}, 11), ({"steps": 5}, 10)]
)
def test_resumed_after_a_crash(tmp_path, every, step):
    """From the last checkpoint before it; what came between is done again.

    In the last case that is after the last step of an epoch, which was not yet validated.
    """
    path = tmp_path / "c"
    check_resumed(path, dense, interrupt=crash, step=step, written=Checkpoint(path, **every))


class Halve(Callback):
    """Changes the training, as schedules of one's own do."""

    def on_epoch(self, run):
        run.optimizer.lr /= 2


@pytest.mark.parametrize("end", ["stop", "press"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_checkpoint_holds_what_callbacks_change(tmp_path, end, place):
    """Wherever it stands among them; also for an optimizer that goes on with its present rate."""
    x, y = data()
    path, whole, parts = tmp_path / "c", dense(), dense()
    whole.fit(x, y, optimizer=Adam(whole.parameters()), callbacks=Halve(), **OPTIONS)
    optimizer = Adam(parts.parameters())
    callbacks = [Halve(), AtEpoch(2, {"stop": stop, "press": press}[end])]
    callbacks.insert(place, Checkpoint(path))
    with suppress(KeyboardInterrupt):
        parts.fit(x, y, optimizer=optimizer, callbacks=callbacks, **OPTIONS)
    assert optimizer.lr == Adam(parts.parameters()).lr / 4
    fresh = dense(seed=1)
    for model, kind in ((fresh, Adam(fresh.parameters())), (parts, optimizer)):
        model.fit(x, y, optimizer=kind, resume=path, callbacks=Halve(), **OPTIONS)
        assert_same(whole, model)
    # another rate of an optimizer that is new is another training
    other = SGD(fresh.parameters()), Adam(fresh.parameters(), 0.1)
    for kind, message in zip(
        other, ("optimizer is Adam", "schedule is lr=0.001 there"), strict=True
    ):
        with pytest.raises(ValueError, match=message):
            fresh.fit(x, y, optimizer=kind, resume=path, **OPTIONS)


class Unfreeze(Callback):
    """Trains a layer otherwise, and changes numbers of the optimizer, from the second epoch on."""

    def on_epoch(self, run):
        if run.epoch == 1:
            run.model.layers[0].trainable = True
            run.optimizer.weight_decay = 0.25
            parameter = run.model.parameters()[0]
            parameter.lr_scale, parameter.clip_value = np.float32(0.5), np.float32(0.75)
            if isinstance(run.optimizer, Bop):
                run.optimizer.inner.beta1 = 0.5


@pytest.mark.parametrize("clip", [np.inf, None, 1.0])
def test_earlier_files_do_not_say_what_changed(tmp_path, clip):
    def make(seed=0):
        model = dense(seed)
        model.parameters()[0].clip_value = clip
        return model

    path, (x, y) = tmp_path / "c", data()
    whole, parts, resumed = make(), make(), make(seed=9)
    whole.fit(x, y, **OPTIONS)
    parts.fit(x, y, callbacks=[At(7, stop), Checkpoint(path)], **OPTIONS)
    description, tensors = read(path)
    assert description.pop("changed")["parameters"][0]["lr_scale"] > 1
    write(path, description, tensors)
    resumed.fit(x, y, resume=path, **OPTIONS)
    assert_same(whole, resumed)
    assert resumed.parameters()[0].clip_value == clip


class Remembers(SGD):
    """Keeps a number of each step, as optimizers of one's own may."""

    def step(self):
        self.largest = max(float(np.abs(p.grad).max()) for p in self.parameters)
        super().step()


@pytest.mark.parametrize("optimizer", [Adam, moderate_bop, Remembers])
@pytest.mark.parametrize("step", [3, 5, 6, 12])
def test_what_callbacks_freeze_and_set_goes_on(tmp_path, step, optimizer):
    def make(seed=0):
        model = dense(seed)
        model.layers[0].trainable = False
        return model

    check_resumed(tmp_path / "c", make, optimizer, step=step, callbacks=[Unfreeze()])
    if step > 5:
        made = make()
        kind, first = optimizer(made.parameters()), made.parameters()[0]
        made.fit(*data(), optimizer=kind, **OPTIONS, resume=tmp_path / "c", callbacks=[])
        assert made.layers[0].trainable and kind.weight_decay == 0.25
        assert (first.lr_scale, first.clip_value) == (0.5, 0.75)
        assert not isinstance(kind, Bop) or kind.inner.beta1 == 0.5


def test_a_training_that_is_refused_changes_no_file(tmp_path):
    """Checks of all callbacks come before any of them writes."""
    x, y = data()
    log, path, early = tmp_path / "l.csv", tmp_path / "c", tmp_path / "early"
    dense().fit(x, y, callbacks=[AtEpoch(2, stop), Checkpoint(early)], **OPTIONS)
    dense().fit(x, y, callbacks=[Log(log), Checkpoint(path)], **OPTIONS)
    before = log.read_bytes(), path.read_bytes()

    class Refuse(Callback):
        def on_start(self, run):
            raise RuntimeError

    for last, error in (
        (Checkpoint(path), FileExistsError),
        (EarlyStopping(1, monitor="validation_loss"), ValueError),
        (Refuse(), RuntimeError),
    ):
        with pytest.raises(error):
            dense().fit(x, y, callbacks=[Log(log), last], resume=early, **OPTIONS)
        assert (log.read_bytes(), path.read_bytes()) == before
    with pytest.raises(ValueError, match=r"^\[fit\] callbacks must each write a file of their own"):
        dense().fit(x, y, callbacks=[Log(log), Checkpoint(log)], **OPTIONS)
    assert log.read_bytes() == before[0]


def test_resumed_from_before_the_first_step(tmp_path):
    class Press(Callback):
        on_start = press

    x, y = data()
    path, model, again = tmp_path / "c", dense(), dense(seed=1)
    with pytest.raises(KeyboardInterrupt):
        dense().fit(x, y, callbacks=[Checkpoint(path), Press()], **OPTIONS)
    model.fit(x, y, **OPTIONS)
    again.fit(x, y, resume=path, **OPTIONS)
    assert_same(model, again)


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_resumed_with_any_bit_generator(tmp_path, kind):
    def generator(seed):
        return np.random.Generator(getattr(np.random, kind)(seed))

    def make(seed=0):
        layers = (
            BinaryDense(40, 8, seed=1),
            Dropout(0.3, generator(seed)),
            BinaryDense(8, 4, seed=2),
        )
        return Sequential(*layers, BatchNorm(4))

    path = tmp_path / "c"
    x, y = data()
    models = [make(), make(), make(seed=1)]
    models[0].fit(x, y, seed=generator(5), **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        models[1].fit(
            x, y, seed=generator(5), callbacks=[Checkpoint(path), At(6, press)], **OPTIONS
        )
    models[2].fit(x, y, seed=generator(5), resume=path, **OPTIONS)
    assert_same(models[0], models[2])


def test_resumed_images_with_augmentation_and_residual_block(tmp_path):
    def make(seed=0):
        block = Sequential(
            BinaryConv2D(8, 8, 3, padding=1, seed=seed), BatchNorm(8), Dropout(0.1, seed)
        )
        return Sequential(
            BinaryConv2D(3, 8, 3, padding=1, seed=seed),
            Residual(block),
            Sign(),
            Flatten(),
            BinaryDense(8 * 36, 4, seed=seed),
            BatchNorm(4),
            input_shape=(6, 6, 3),
        )

    def augment(x, rng):
        return random_crop(random_flip(x, rng), 1, rng)

    x = np.random.default_rng(0).integers(256, size=(60, 6, 6, 3), dtype=np.uint8)
    y = np.arange(60) % 4
    images = x, y
    check_resumed(
        tmp_path / "c", make, data=images, augment=augment, validation=images, loss=cross_entropy
    )


class Fading:
    """Takes less from the rows, step by step."""

    by_step = True

    def __call__(self, x, rng, step, steps):
        return x - rng.random(x.shape) * (1 - step / steps)

    def __repr__(self):
        return "Fading()"


@pytest.mark.parametrize("step", [7, 10])
def test_resumed_augmentation_step_by_step(tmp_path, step):
    x, y = data()
    x = x.astype(np.float32)
    check_resumed(tmp_path / "c", dense, step=step, data=(x, y), augment=Fading())


def test_augmentation_is_called_with_the_step(tmp_path):
    seen = []

    def augment(x, rng, step, steps):
        seen.append((step, steps))
        return x

    augment.by_step = True
    dense().fit(*data(), augment=augment, **OPTIONS)
    assert seen == [(step, len(seen)) for step in range(len(seen))]


def stochastic(seed):
    layers = BinaryDense(40, 16, stochastic=True, seed=seed), QuantizeGradient(4, seed)
    source = StochasticSign(seed=np.random.default_rng(seed))
    sign = Sign(quantizer=ClippedGradient(source, 0.1))
    return [*layers, ShiftBatchNorm(16), sign, BinaryDense(16, 4, seed=seed)]


def rounded(seed):
    layer = BinaryDense(40, 70, seed=seed)
    above = BinaryDense(70, 4, seed=seed)
    layer.rounding, above.rounding = ByteGradient(seed), ByteGradient(seed)
    return [layer, BatchNorm(70), Sign(), above]


def centred(seed):
    return [BinaryDense(40, 16, center=True, seed=seed), Sign(), BinaryDense(16, 4, seed=seed)]


def quantized(seed):
    layer = QuantizedDense(40, 16, Ternary(), seed=seed)
    return [layer, BatchNorm(16), Quantize(DoReFaActivation(2)), BinaryDense(16, 4, seed=seed)]


def annealed(seed):
    signs = Sign(quantizer=AnnealedSign()), Sign(quantizer=ProgressiveSign())
    layers = BinaryDense(40, 16, seed=seed), BatchNorm(16), signs[0], BinaryDense(16, 8, seed=seed)
    return [*layers, BatchNorm(8), signs[1], BinaryDense(8, 4, seed=seed)]


@pytest.mark.parametrize("layers", [stochastic, rounded, centred, quantized, annealed])
@pytest.mark.parametrize("step", [7, 8])
def test_resumed_with_every_state_a_layer_has(tmp_path, layers, step):
    """Also where the model is used between two steps."""

    def make(seed=0):
        return Sequential(*layers(seed), BatchNorm(4))

    use = At(8, lambda run: run.model.outputs(data()[0]))
    check_resumed(tmp_path / "c", make, step=step, callbacks=[Annealing(), use])


def test_resumed_on_bits(tmp_path):
    x, y = data()
    check_resumed(tmp_path / "c", dense, data=(pack(x.astype(np.int16) - 128), y))


def test_resumed_twice(tmp_path):
    x, y = data()
    path, model = tmp_path / "c", dense()
    model.fit(x, y, **OPTIONS)
    for i, step in enumerate((3, 11)):
        part = dense(seed=i)
        resume = path if i else None
        with pytest.raises(KeyboardInterrupt):
            callbacks = [Checkpoint(path), At(step, press)]
            part.fit(x, y, callbacks=callbacks, resume=resume, seed=0, **OPTIONS)
    last = dense(seed=5)
    last.fit(x, y, resume=path, **OPTIONS)
    # the first part started from the same weights
    assert_same(model, last)


def test_a_finished_training_gives_its_model_again(tmp_path):
    x, y = data()
    path = tmp_path / "c"
    options = {**OPTIONS, "validation": (x[:30], y[:30]), "epochs": 30}
    callbacks = [Checkpoint(path, every=100), EarlyStopping(2)]
    model, again = dense(), dense(seed=1)
    history = model.fit(x, y, callbacks=callbacks, **options)
    assert len(history.epochs) < 30
    content = path.read_bytes()
    repeated = again.fit(x, y, callbacks=callbacks, resume=path, **options)
    assert_same(model, again)
    assert without_times(repeated.epochs) == without_times(history.epochs)
    assert path.read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent on Windows")
def test_ctrl_c_of_a_process(tmp_path):
    """From outside, at any moment; the checkpoint is whole and of the last complete step."""
    path = tmp_path / "c"
    program = f"""
import numpy as np
from bitops.models import mlp
from bitops.training.checkpoint import Checkpoint
x = np.random.default_rng(0).integers(256, size=(400, 64), dtype=np.uint8)
mlp(64, 64, 1, 4).fit(x, np.arange(400) % 4, epochs=10**6, batch_size=20,
                      callbacks=[Checkpoint({str(path)!r}, every=10**6)])
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline().startswith("epoch   1")
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    description, tensors = read(path)
    position = description["position"]
    steps = 20 * (position["epoch"] - 1) + position["batch"]
    assert tensors["optimizer.steps"] == steps > 20
