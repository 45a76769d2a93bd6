import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops.files import digest
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
from bitops.models import mlp
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
from bitops.training.losses import cross_entropy, hinge, squared_hinge
from bitops.training.optim import SGD, Adam, AdaMax, Bop, ShiftAdaMax
from bitops.training.schedules import CosineDecay
from forgery import read, write


class At(Callback):
    """Does something at one step."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_batch(self, run):
        if run.step == self.step:
            self.do(run)


class Crash(Exception):
    pass


def crash(run):
    raise Crash


def press(*_):
    signal.raise_signal(signal.SIGINT)


def stop(run):
    run.stop = True


def data(n=100, features=40, classes=4):
    rng = np.random.default_rng(3)
    patterns = rng.integers(2, size=(classes, features))
    y = rng.integers(classes, size=n)
    return ((patterns[y] ^ (rng.random((n, features)) < 0.3)) * 255).astype(np.uint8), y


def dense(seed=0, rate=0.2):
    return mlp(40, 24, 2, 4, seed=seed, dropout=rate, input_dropout=rate)


def arrays(state):
    """The arrays in nested lists."""
    return (
        [array for part in state for array in arrays(part)] if isinstance(state, list) else [state]
    )


def assert_same(model, other):
    for a, b in zip(arrays(model.state()), arrays(other.state()), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def without_times(history):
    return [(e.number, e.learning_rate, e.loss, e.train_error, e.validation_error) for e in history]


OPTIONS = {"epochs": 4, "batch_size": 20, "verbose": 0}  # 5 steps an epoch, or 4 with validation


def check_resumed(path, make, optimizer=Adam, interrupt=press, step=7, written=None, **options):
    """A training that ends at a step and is resumed equals one that runs through, bit for bit."""
    x, y = options.pop("data", None) or data()
    options = {**OPTIONS, **options}

    def fit(model, **more):
        kind = optimizer(model.parameters())
        history = model.fit(x, y, optimizer=kind, **{**options, **more})
        return kind, history

    model = make()
    kind, history = fit(model)
    broken = make()
    error = {press: KeyboardInterrupt, crash: Crash}[interrupt]
    callbacks = [*options.get("callbacks", []), written or Checkpoint(path), At(step, interrupt)]
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


@pytest.mark.parametrize("optimizer", [Adam, SGD, AdaMax, ShiftAdaMax, moderate_bop])
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


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint in the middle of the second epoch."""
    path = tmp_path / "c.safetensors"
    x, y = data()
    dense().fit(x, y, callbacks=[Checkpoint(path), At(7, stop)], **OPTIONS)
    return path


def test_content(checkpoint):
    description, tensors = read(checkpoint)
    assert description["format"] == "bitops.checkpoint"
    assert description["position"]["epoch"] == 2
    assert description["position"]["batch"] == 2
    assert len(description["generators"]) == 4  # the rows, and three layers of Dropout
    assert sorted(tensors["order"]) == list(range(100))
    assert len([name for name in tensors if name.startswith("signs.")]) == 3
    assert not [name for name in tensors if name.startswith("best.")]
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


def test_same_training_same_bytes(checkpoint, tmp_path):
    """But for the times."""
    contents = []
    for name in ("a", "b"):
        x, y = data()
        path = tmp_path / name
        dense().fit(x, y, callbacks=[Checkpoint(path), At(3, stop)], **OPTIONS)
        description, tensors = read(path)
        del description["position"]["seconds"]
        contents.append(digest(description, tensors))
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 5}, "epochs is 4 there and 5 here"),
        ({"batch_size": 25}, "batch_size is 20 there and 25 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"seed": np.random.default_rng(0)}, "seed is 0 there and .*PCG64"),
        ({"loss": hinge}, "loss is squared_hinge there and hinge here"),
        ({"schedule": CosineDecay(0.1)}, r"schedule is Expon.* there and CosineDecay\(start=0.1"),
        ({"augment": random_flip}, "augment is None there and random_flip here"),
        (
            {"model": dense(rate=0.3)},
            r"layer 0 is Dropout\(rate=0.2\) there and Dropout\(rate=0.3\)",
        ),
        (
            {"model": mlp(40, 32, 2, 4)},
            r"layer 0 is Drop.*; layer 1 is .*BinaryDense\(40, 24\) there",
        ),
        (
            {"model": mlp(40, 24, 1, 4, dropout=0.2, input_dropout=0.2)},
            r"layer 7 is Sign\(.*\) there and none here; .*; and 2 more$",
        ),
        (
            {"x": data()[0] ^ 1},
            r"x is uint8 of shape \(100, 40\), sha256 \w+ there and uint8 .* here$",
        ),
        ({"x": data()[0].astype(np.float32)}, r"x is uint8 .* there and float32 of shape"),
        ({"x": pack(data()[0])}, r"x is uint8 .* there and bits of shape \(100, 40\)"),
        ({"y": data()[1][::-1]}, r"y is int64 .* there and int64 .* here$"),
        ({"validation": data()}, "validation x is None there and uint8 .*; validation y is None"),
    ],
)
def test_other_trainings_are_refused(checkpoint, change, message):
    x, y = data()
    options = {**OPTIONS, "x": x, "y": y, "model": dense(), "resume": checkpoint, **change}
    model = options.pop("model")
    before = arrays(model.state())
    with pytest.raises(ValueError, match=r"^\[fit\] resume must be a checkpoint of this") as error:
        model.fit(**options)
    assert re.search(message, str(error.value).replace("\n", " "))
    assert str(checkpoint) in str(error.value)
    for a, b in zip(before, arrays(model.state()), strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (SGD, r"optimizer is Adam .* there and SGD {.*'momentum': 0.9} here"),
        (lambda p: Adam(p, beta1=0.8), r"'beta1': 0.9.* there and .*'beta1': 0.8.* here"),
    ],
)
def test_other_optimizers_are_refused(checkpoint, optimizer, message):
    x, y = data()
    model = dense()
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, optimizer=optimizer(model.parameters()), resume=checkpoint, **OPTIONS)


def resume(path):
    x, y = data()
    dense().fit(x, y, resume=path, **OPTIONS)


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_truncated_files_are_refused(checkpoint, keep):
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"^\[fit\] resume must be a checkpoint .*c\.safetensors: "
    ):
        resume(checkpoint)


def test_changed_bits_are_refused(checkpoint):
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 4
    checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match="sha256 must be that of the content"):
        resume(checkpoint)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        resume(tmp_path / "missing")
    mlp(40, 24, 2, 4).freeze().save(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"format must be bitops\.checkpoint, got .*bitops\.packed"
    ):
        resume(tmp_path / "model")


def spoil_version(description, tensors):
    description["version"] = 2


def spoil_missing(description, tensors):
    del tensors["model.3"]


def spoil_shape(description, tensors):
    tensors["optimizer.m.1"] = np.zeros(3, np.float32)


def spoil_extra(description, tensors):
    tensors["model.99"] = np.zeros(3, np.float32)


def spoil_generators(description, tensors):
    del description["generators"][1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_version, "version must be 1, got 2"),
        (spoil_missing, r"model\.3 must be float32 of shape .*, got none"),
        (spoil_shape, r"optimizer\.m\.1 must be float32 of shape .*, got float32 of shape \(3,\)"),
        (spoil_extra, r"tensors must be those of the model and the optimizer, got model\.99"),
        (spoil_generators, "random generators are .* there and .* here"),
    ],
)
def test_content_that_does_not_fit_is_refused(checkpoint, spoil, message):
    description, tensors = read(checkpoint)
    spoil(description, tensors)
    write(checkpoint, description, tensors)
    with pytest.raises(ValueError, match=message):
        resume(checkpoint)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("history", 0, "number"), 2, "epoch 1 must be in its place, got 2"),
        (("history", 0, "loss"), "low", "loss must be of type float, got 'low'"),
        (("history", 0, "more"), 1.0, "more"),
        (("history",), [None], ""),
        (("history",), 7, ""),
        (("best",), 0, r"best must be in 1\.\.1, got 0"),
        (("best",), 2, r"best must be in 1\.\.1, got 2"),
        (("position",), {}, ""),
        (("position", "epoch"), 0, "epoch must be at least 1, got 0"),
        (("position", "epoch"), 3, r"epoch must be in 0\.\.2, got 3"),
        (("position", "batch"), -1, r"batch must be in 0\.\.\d+, got -1"),
        (("position", "wrong"), 1.0, "wrong must be of type int, got 1.0"),
        (("position", "seconds"), 10**400, ""),
        (("generators", 0, "state"), {"state": "text", "inc": 1}, ""),
        (("generators", 0, "state"), None, ""),
        (("settings",), None, ""),
    ],
)
def test_forged_descriptions_are_refused(checkpoint, place, value, message):
    description, tensors = read(checkpoint)
    part = description
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    write(checkpoint, description, tensors)
    assert_refused(checkpoint, message)


@pytest.mark.parametrize(
    ("name", "forge", "message"),
    [
        ("order", lambda a: a[1:], "order must hold each of 100 rows once"),
        ("order", lambda a: a + 1, "order must hold each of 100 rows once"),
        ("order", lambda a: a.astype(np.float64), "order must hold each of 100 rows once"),
        ("signs.0", lambda a: a[1:], "words of shape"),
        ("signs.0", lambda a: a | ~np.uint64(0), "padding bits must be 0"),
        ("optimizer.steps", lambda a: -a, "optimizer.steps must count from 0"),
    ],
)
def test_forged_tensors_are_refused(checkpoint, name, forge, message):
    description, tensors = read(checkpoint)
    tensors[name] = np.array(forge(tensors[name]))
    write(checkpoint, description, tensors)
    assert_refused(checkpoint, message)


def assert_refused(checkpoint, message):
    """By an error that names the file, before the model changes."""
    model = dense()
    before = [parameter.value.copy() for parameter in model.parameters()]
    with pytest.raises(ValueError, match=rf"(?s)^\[fit\] resume must be .*{message}"):
        model.fit(*data(), resume=checkpoint, **OPTIONS)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert_array_equal(parameter.value, value)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_last_good_checkpoint_stays(tmp_path):
    """NaN arises in a step, and is in the parameters when the next checkpoint is due."""

    def spoil(run):
        run.model.parameters()[0].writable()[0, 0] = np.nan

    path = tmp_path / "c"
    x, y = data()
    callbacks = [At(7, spoil), Checkpoint(path, steps=3)]
    with pytest.raises(FloatingPointError, match=r"at step 8, epoch 2$"):
        dense().fit(x, y, callbacks=callbacks, **OPTIONS)
    assert read(path)[1]["optimizer.steps"] == 6
    model = dense()
    callbacks = [At(6, spoil), Checkpoint(path, steps=3)]
    with pytest.raises(FloatingPointError, match=r"NaN .* in the parameters .* after step 6$"):
        model.fit(x, y, callbacks=callbacks, **OPTIONS)
    _, tensors = read(path)
    assert tensors["optimizer.steps"] == 5  # that of the first epoch
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_a_failed_write_leaves_the_old_checkpoint(checkpoint, monkeypatch):
    def refuse(*names):
        raise OSError("disk full")

    content = checkpoint.read_bytes()
    x, y = data()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="disk full"):
            dense().fit(x, y, callbacks=[Checkpoint(checkpoint)], **OPTIONS)
    assert checkpoint.read_bytes() == content
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


@pytest.mark.parametrize("change", [{"every": 0}, {"steps": 0}, {"steps": -1}])
def test_bad_settings(change):
    with pytest.raises(ValueError, match=r"^\[Checkpoint\] \w+ must be >= 1, got "):
        Checkpoint("c", **change)


def test_missing_folder_is_found_before_the_work(tmp_path):
    x, y = data()
    steps = []
    callbacks = [Checkpoint(tmp_path / "no" / "c"), At(1, steps.append)]
    with pytest.raises(FileNotFoundError, match="no such directory"):
        dense().fit(x, y, callbacks=callbacks, **OPTIONS)
    assert not steps


def test_defaults_have_names_that_last():
    """No addresses of this process in the settings."""
    x, y = data()
    texts = []

    class Loss:
        def __call__(self, scores, labels):
            return squared_hinge(scores, labels)

    class Keep(Callback):
        def on_end(self, run):
            from bitops.training.checkpoint import settings_of

            texts.extend(settings_of(run).values())

    options = {**OPTIONS, "epochs": 1, "loss": Loss(), "schedule": lambda epoch, epochs: 1e-3}
    dense().fit(x, y, callbacks=[Keep()], **options)
    assert len(texts) > 10
    assert not [text for text in texts if "0x" in text]
