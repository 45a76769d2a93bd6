"""The files of checkpoints: their content, which ones are refused, and how they are written."""

import json
import os
import re

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from numpy.testing import assert_array_equal

from bitops.files.tensors import digest
from bitops.models import mlp
from bitops.ops.array import pack
from bitops.training.augment import random_flip
from bitops.training.callbacks import Callback
from bitops.training.checkpoint import Checkpoint
from bitops.training.losses import hinge, squared_hinge
from bitops.training.optim import SGD, Adam
from bitops.training.schedules import CosineDecay, PerStep
from bitops.training.words import values_of
from trainings import OPTIONS, At, arrays, data, dense, read, stop


def write(path, description, tensors):
    description["sha256"] = digest(description, tensors)
    safetensors.numpy.save_file(tensors, path, {"bitops": json.dumps(description)})


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
        ({"accumulate": 2}, "accumulate is none there and 2 here"),
        ({"sample_weight": np.ones(100)}, "sample_weight is none there and float32 of shape"),
        ({"class_weight": "balanced"}, "sample_weight is none there and float32 of shape"),
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
        ({"x": pack(data()[0] > 99)}, r"x is uint8 .* there and bits of shape \(100, 40\)"),
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


def weighted(c):
    def loss(scores, labels):
        value, gradient = squared_hinge(scores, labels)
        return c * value, c * gradient

    return loss


class Falling:
    """Has no words of its own; what it counts is its own affair."""

    def __init__(self, start):
        self.start, self._calls = start, 0

    def __call__(self, epoch, epochs):
        self._calls += 1
        return self.start / (1 + epoch)


def with_default(c):
    return lambda scores, labels, c=c: squared_hinge(scores, labels)


def scaled(model):
    model.parameters()[0].lr_scale *= 2


def unclipped(model):
    model.parameters()[0].clip_value = None


def decaying(*places):
    def make(model):
        parameters = model.parameters()
        return SGD(parameters, l2=0.1, decayed=[parameters[i] for i in places])

    return make


# what stays the same has the same words, and what differs is named
DETAILS = {
    "closure": ({"loss": lambda: weighted(1.0)}, {"loss": lambda: weighted(2.0)}, "loss are c=1.0"),
    "default": ({"loss": lambda: with_default(1)}, {"loss": lambda: with_default(2)}, "loss are c"),
    "array": (
        {"loss": lambda: weighted(np.ones(()))},
        {"loss": lambda: weighted(np.zeros(()))},
        "values of loss are c=float64 of shape",
    ),
    "object": (
        {"schedule": lambda: Falling(0.1)},
        {"schedule": lambda: Falling(0.2)},
        "values of schedule are start=0.1 there and start=0.2 here",
    ),
    "inside": (
        {"schedule": lambda: PerStep(Falling(0.1))},
        {"schedule": lambda: PerStep(Falling(0.2))},
        r"schedule are schedule=.*Falling object>\(start=0.1\) there",
    ),
    "decayed": (
        {"optimizer": decaying(0)},
        {"optimizer": decaying(1)},
        "decayed parameters are 0 there and 1 here",
    ),
    "rate": ({}, {"change": scaled}, r"parameter 0 is lr_scale=\d.* there and lr_scale="),
    "clip": ({}, {"change": unclipped}, "clip_value=1.0 there and .* clip_value=None here"),
    "rounding": (
        {"change": lambda model: model.round_gradients(0, 8)},
        {},
        "gradient bits is 8 there and none here",
    ),
    "activations": (
        {"change": lambda model: model.round_gradients(0, 8)},
        {"change": lambda model: model.round_gradients(0, 8, activations=np.True_)},
        "gradient bits is 8 there and 8 and activations here",
    ),
}


@pytest.mark.parametrize("name", DETAILS)
def test_trainings_that_differ_in_a_detail(tmp_path, name):
    there, here, message = DETAILS[name]
    path = tmp_path / "c"

    def train(change=None, optimizer=None, callbacks=(), resume=None, **made):
        model, options = dense(), {option: make() for option, make in made.items()}
        if change is not None:
            change(model)
        if optimizer is not None:
            options["optimizer"] = optimizer(model)
        model.fit(*data(), callbacks=callbacks, resume=resume, **OPTIONS, **options)

    train(**there, callbacks=[Checkpoint(path), At(2, stop)])
    train(**there, resume=path)
    with pytest.raises(ValueError, match=message):
        train(**here, resume=path)


def test_words_of_sets_and_of_what_holds_itself():
    """Sets have another order in another process, and a cycle has no end."""
    names = frozenset("abcdefgh")
    words = values_of(lambda scores, labels, c=names: squared_hinge(scores, labels))
    assert words == f"c={{{', '.join(map(repr, 'abcdefgh'))}}}"

    class Ring:
        pass

    ring = Ring()
    ring.size, ring.itself, ring.many = 3, ring, [ring] * 1000
    assert values_of(ring).startswith("size=3, itself=<")


def test_an_optimizer_that_goes_on_loses_no_other_training(tmp_path):
    """The rate that a resumed one brings is not that of every checkpoint."""

    def train(rate, epochs, **options):
        model = dense()
        optimizer = SGD(model.parameters(), lr=rate)
        options = {**OPTIONS, "epochs": epochs, **options}
        model.fit(*data(), optimizer=optimizer, **options)

    train(0.1, 4, callbacks=[Checkpoint(tmp_path / "a"), At(7, stop)])
    train(0.2, 2, callbacks=Checkpoint(tmp_path / "b"))
    with pytest.raises(FileExistsError, match=r"lr=0\.2 there and lr=0\.1 here"):
        train(0.1, 4, resume=tmp_path / "a", callbacks=Checkpoint(tmp_path / "b"))


def test_rates_that_are_arrays(tmp_path):
    model = dense()
    options = {**OPTIONS, "schedule": lambda epoch, epochs: np.array(0.1)}
    model.fit(*data(), callbacks=Checkpoint(tmp_path / "c"), **options)
    dense().fit(*data(), resume=tmp_path / "c", **{**options, "epochs": 5})


def test_files_without_details_are_compared_by_the_rest(checkpoint):
    """Those of earlier versions, which wrote numbers as they came."""
    description, tensors = read(checkpoint)
    settings = description["settings"]
    later = ("values ", "parameter ", "optimized ", "decayed ", "gradient ")
    description["settings"] = {k: v for k, v in settings.items() if not k.startswith(later)}
    words = (
        settings["optimizer"].replace("'l2': 0.0", "'l2': 0").replace("0.9,", "np.float64(0.9),")
    )
    assert words != settings["optimizer"]
    description["settings"]["optimizer"] = words
    write(checkpoint, description, tensors)
    resume(checkpoint)
    model = dense()
    model.round_gradients(0, 6)
    with pytest.raises(ValueError, match="gradient bits is 8 or none there and 6 here"):
        model.fit(*data(), resume=checkpoint, **OPTIONS)


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
    with pytest.raises(ValueError, match="sha256 must match the content"):
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
        (("changed",), 7, ""),
        (("changed", "more"), 1, "changed must have the keys"),
        (("changed", "parameters"), [], ""),
        (("changed", "parameters"), 7, ""),
        (("changed", "parameters", 0, "trainable"), 1, "trainable must be True or False"),
        (("changed", "parameters", 0, "lr_scale"), -1.0, "lr_scale must be >= 0"),
        (("changed", "optimizer"), {}, "weight_decay"),
        (("changed", "optimizer", "eps"), "1", "eps must be"),
        (("changed", "optimizer", "eps"), True, "eps must be a number, got True"),
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
    callbacks = [At(6, spoil), Checkpoint(path, steps=3, overwrite=True)]
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
            dense().fit(x, y, callbacks=[Checkpoint(checkpoint, overwrite=True)], **OPTIONS)
    assert checkpoint.read_bytes() == content
    assert os.listdir(checkpoint.parent) == [checkpoint.name]


@pytest.mark.parametrize("change", [{"every": 0}, {"steps": 0}, {"steps": -1}])
def test_bad_settings(change):
    with pytest.raises(ValueError, match=r"^\[Checkpoint\] \w+ must be at least 1, got "):
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
            from bitops.training.settings import settings_of

            texts.extend(settings_of(run).values())

    options = {**OPTIONS, "epochs": 1, "loss": Loss(), "schedule": lambda epoch, epochs: 1e-3}
    dense().fit(x, y, callbacks=[Keep()], **options)
    assert len(texts) > 10
    assert not [text for text in texts if "0x" in text]
