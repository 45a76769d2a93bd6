"""Trainings that start from the network of another one, and on all images."""

import json
import shlex

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops import zoo
from bitops.cli import main as cli
from bitops.data import load_dataset, load_digits
from bitops.data.datasets import Dataset
from bitops.io import load, save
from bitops.layers import BatchNorm, BinaryDense, Dropout, Sequential, Sign
from bitops.layers.states import flatten
from bitops.models import mlp
from bitops.recipes import Job, find
from bitops.recipes import training as recipe_training
from bitops.recipes.augmented import Moved
from bitops.recipes.base import inputs
from bitops.recipes.preprocess import makes_inputs, preprocess
from bitops.recipes.training import epoch_seconds, train
from bitops.training import Checkpoint, start_from
from commands import failure, usage_error, write_digits

SMALL = ("--quick", "--epochs", "2", "--width", "32")


def problem(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, 20), dtype=np.float32)
    return x, (x[:, 0] > 0).astype(int)


def make(seed=0, hidden=16):
    return mlp(20, hidden, 1, 2, seed=seed)


def trained(path, validation=True, epochs=5):
    """Train; return the model, which has the weights of the best epoch, and its history."""
    x, y = problem()
    model = make()
    options = {"validation": problem(1)} if validation else {}
    checkpoint = Checkpoint(path)
    history = model.fit(
        x, y, epochs=epochs, batch_size=50, verbose=0, callbacks=checkpoint, **options
    )
    return model, history


def assert_same_state(model, other):
    for a, b in zip(flatten(model.state()), flatten(other.state()), strict=True):
        assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("validation", [True, False])
def test_a_model_starts_from_the_kept_epoch(tmp_path, validation):
    path = tmp_path / "run.ckpt"
    other, history = trained(path, validation)
    assert not validation or history.best.number < 5
    model = make(seed=1)
    start_from(model, path)
    assert_same_state(model, other)
    x, _ = problem(2)
    assert_array_equal(model(x), other(x))


def test_layers_must_be_the_same(tmp_path):
    path = tmp_path / "run.ckpt"
    trained(path)
    others = [
        make(hidden=17),
        Sequential(*make().layers, Dropout(0.5)),
        Sequential(BinaryDense(20, 16), BatchNorm(16), Sign()),
    ]
    for model in others:
        before = [array.copy() for array in flatten(model.state())]
        with pytest.raises(ValueError, match=r"^\[start_from\] .* of the same network: layer "):
            start_from(model, path)
        for a, b in zip(flatten(model.state()), before, strict=True):
            assert_array_equal(a, b)


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_files_that_are_no_checkpoint(tmp_path, damage):
    path = tmp_path / "run.ckpt"
    trained(path)
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[-10] ^= 1
    path.write_bytes({"cut": content[:-10], "changed": content, "other": b"{}"}[damage])
    with pytest.raises(ValueError, match=r"^\[start_from\] .* must be a checkpoint"):
        start_from(make(), path)
    with pytest.raises(FileNotFoundError):
        start_from(make(), tmp_path / "nowhere")


def test_images_of_validation_join_those_to_train_on():
    data = load_digits()
    everything = data.without_validation()
    assert len(everything.y_train) == len(data.y_train) + len(data.y_validation)
    assert_array_equal(everything.x_train[-len(data.x_validation) :], data.x_validation)
    assert_array_equal(everything.y_train[: len(data.y_train)], data.y_train)
    assert len(everything.x_validation) == len(everything.y_validation) == 0
    assert everything.x_test is data.x_test


@pytest.mark.parametrize("name", ["bnn-theano", "ternary", "ebp", "dorefa"])
def test_recipes_train_on_all_images(name):
    recipe = find(name)
    kind = "digits" if "digits" in recipe.settings else next(iter(recipe.settings))
    setting = recipe.setting(kind)
    data = load_digits()
    if name == "dorefa":  # whose network needs larger images
        grown = {
            p: np.kron(data.images(getattr(data, p))[..., 0], np.ones((1, 4, 4))) for p in PARTS
        }
        rows = {p: x.reshape(len(x), -1).astype(np.uint8) for p, x in grown.items()}
        data = type(data)(**{**vars(data), **rows, "image_shape": (32, 32)})
    data = preprocess(data.without_validation(), setting.preprocessing)
    plan = setting.resolve(epochs=2, width=16, dropout=0.0, lr=0.02 if name == "ebp" else None)
    job = Job(data, plan)
    done = train(setting, job)
    assert done.best.number == 2 and done.best.validation_error is None
    assert epoch_seconds(setting, job) > 0


def test_time_of_windows_and_whole_images(monkeypatch):
    """They are measured in nearly the shares that a training has of them."""
    monkeypatch.setattr(recipe_training, "LEAST_SECONDS", 0.0)
    shapes = []
    augment = Moved.__call__

    def spied(self, x, *args):
        shapes.append(augment(self, x, *args).shape[1:3])
        return augment(self, x, *args)

    monkeypatch.setattr(Moved, "__call__", spied)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 8, 8, 3)).astype(np.float32), np.arange(90) % 3
    data = Dataset("noise", (8, 8, 3), 3, x, y, x[:9], y[:9], x[:9], y[:9])
    setting = find("xnor").setting("cifar10")
    job = Job(data, setting.resolve(width=16, batch_size=30, crop=6, dropout=0.0))
    assert epoch_seconds(setting, job) > 0
    measured = shapes[3:]  # without the first epoch
    assert len(measured) == 27
    assert measured.count((6, 6)) / len(measured) == pytest.approx(0.7, abs=0.05)


PARTS = ("x_train", "x_validation", "x_test")


def test_the_first_stage_starts_there(tmp_path):
    """The second one of two starts from the first, as ever."""
    setting = find("ternary").setting("mnist")
    data = preprocess(load_digits(), setting.preprocessing)
    job = Job(data, setting.resolve(epochs=1, width=16, dropout=0.0))
    path = tmp_path / "run.ckpt"
    model = setting.stages[0].build(job)
    model.fit(data.x_train, data.y_train, epochs=1, verbose=0, callbacks=Checkpoint(path))
    fresh = train(setting, job)
    started = train(setting, Job(data, job.plan, start=path))
    first = [done.histories[0].epochs[0].loss for done in (fresh, started)]
    assert first[1] < first[0]
    ebp = find("ebp").setting("mnist")
    with pytest.raises(ValueError, match="starts from no checkpoint"):
        train(ebp, Job(data, ebp.resolve(epochs=1), start=path))


@pytest.fixture
def digits(tmp_path):
    return write_digits(tmp_path)


@pytest.mark.filterwarnings("ignore:.*resume goes on to epoch 3")
def test_commands(digits, tmp_path, capsys):
    first, second = str(tmp_path / "first"), tmp_path / "second"
    call = ["train", "bnn-theano", "--data", digits, *SMALL]
    assert cli.main([*call, "--run", first]) == 0
    start = f"{first}/checkpoint.safetensors"
    capsys.readouterr()
    again = [*call, "--run", str(second), "--start", start, "--all-images"]
    assert cli.main(again) == 0
    out = capsys.readouterr().out
    assert "training and" in out and " validation and" not in out
    assert f"from the network in {start}" in out
    assert "best     epoch 2, the last one, without validation images" in out
    record = json.loads((second / "run.json").read_text())
    assert record["best_epoch"] == 2 and record["validation_error"] is None
    assert record["start"] == start and start in record["settings"]
    call_again = [*call, "--run", str(second), "--all-images", "--resume"]
    assert cli.main(call_again) == 0  # it need not be said again
    assert json.loads((second / "run.json").read_text()) == record
    capsys.readouterr()
    words = usage_error(capsys, *call_again, "--start", digits)
    assert words.endswith(f"argument --start: the run began with {start}, got {digits}")
    words = usage_error(capsys, *call, "--run", first, "--resume", "--start", start)
    assert words.endswith(f"argument --start: the run began with random weights, got {start}")
    longer = [*call, "--run", str(second), "--all-images", "--resume", "--epochs", "3"]
    for _ in range(2):
        assert cli.main(longer) == 0
    record = json.loads((second / "run.json").read_text())
    assert record["command"].split("\n") == [shlex.join(["bitops", *c]) for c in (again, longer)]
    assert record["settings"].startswith("3 epochs") and record["best_epoch"] == 3
    for command in ("report", "plot"):
        assert cli.main([command, str(second)]) == 0
    report = (second / "report.html").read_text()
    assert "kept: epoch 3, the last one, without validation images" in report
    assert all(shlex.join(["bitops", *command]) in report for command in (again, longer))


def test_a_run_without_a_checkpoint_starts_there_again(digits, tmp_path, capsys):
    """It was interrupted before it wrote one."""
    first, second = tmp_path / "first", tmp_path / "second"
    call = ["train", "bnn-theano", "--data", digits, *SMALL]
    assert cli.main([*call, "--run", str(first)]) == 0
    start = ["--start", str(first / "checkpoint.safetensors")]
    assert cli.main([*call, "--run", str(second), *start]) == 0
    model = (second / "model.safetensors").read_bytes()
    for name in ("checkpoint.safetensors", "model.safetensors", "log.csv"):
        (second / name).unlink()
    resume = [*call, "--run", str(second), "--resume"]
    assert cli.main(resume) == 0
    assert (second / "model.safetensors").read_bytes() == model
    assert (first / "model.safetensors").read_bytes() != model
    for path in (*second.glob("[clm]*"), first / "checkpoint.safetensors"):
        path.unlink()
    capsys.readouterr()
    assert "argument --start: must be a checkpoint or a packed model, got " in usage_error(
        capsys, *resume
    )


@pytest.mark.parametrize(
    ("recipe", "colored", "preprocessing"),
    [("bnn-theano", False, "pixels"), ("ebp", False, "standard"), ("bnn-torch", True, "whitened")],
)
def test_eval_prepares_images_as_a_training_on_all_of_them(
    recipe, colored, preprocessing, digits, tmp_path, capsys
):
    if colored:
        rng = np.random.default_rng(0)
        parts = dict(np.load(digits))
        for name in ("x_train", "x_val", "x_test"):
            tint = rng.uniform(0.5, 1, (len(parts[name]), 1, 1, 3))
            parts[name] = (parts[name][..., None] * tint).astype(np.uint8)
        np.savez(digits, **parts)
    run = tmp_path / "run"
    call = ["train", recipe, "--data", digits, "--epochs", "2", "--width", "16", "--lr", "0.02"]
    assert cli.main([*call, "--quick", "--all-images", "--run", str(run)]) == 0
    record = json.loads((run / "run.json").read_text())
    model = load(run / "model.safetensors")
    assert record["preprocessing"] == model.notes["preprocessing"] == preprocessing
    data = preprocess(load_dataset(digits)[1], preprocessing)
    error = model.error_rate(inputs(model, data, data.x_test), data.y_test)
    assert error == record["test_error"]
    capsys.readouterr()
    assert cli.main(["eval", str(run / "model.safetensors"), "--data", digits]) == 0
    assert f"{error:.2%} (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "with these settings"),
        ({"started": True}, "with random start weights"),
        ({"started": True, "all_images": True}, "with random start weights"),
        ({"all_images": True}, "the source reports 0.96 %"),
    ],
)
def test_what_differs_from_the_source_is_named(changes, words):
    setting = find("bnn-theano").setting("mnist")
    assert setting.report(setting.plan, **changes).endswith(words)


def test_refused_commands(digits, tmp_path, capsys):
    run = tmp_path / "run"
    call = ["train", "bnn-theano", "--data", digits, *SMALL, "--run", str(run)]
    words = usage_error(capsys, *call, "--start", "nowhere")
    assert words.endswith("argument --start: must be a checkpoint or a packed model, got nowhere")
    ebp = ["train", "ebp", "--data", digits, *SMALL, "--start", digits]
    assert usage_error(capsys, *ebp).endswith("argument --start: not allowed with ebp")
    assert not run.exists()
    assert "must be a checkpoint" in failure(capsys, *call, "--start", digits, "--quiet")
    path = tmp_path / "run.ckpt"
    trained(path)
    words = failure(capsys, *call, "--start", str(path))
    assert "[start_from]" in words and "of the same network: layer " in words
    assert not run.exists()


def test_a_training_starts_from_a_packed_model(digits, tmp_path):
    def run(name, *options):
        call = ["train", "bnn-theano", "--data", digits, "--quick", "--width", "64", "--quiet"]
        assert cli.main([*call, "--run", str(tmp_path / name), *options]) == 0
        return json.loads((tmp_path / name / "run.json").read_text())

    trained = run("a", "--epochs", "5", "--lr", "0.02")
    model, short = tmp_path / "a" / "model.safetensors", ("--epochs", "1", "--lr", "1e-4")
    record = run("b", *short, "--start", str(model))
    assert record["start"] == str(model)
    assert f"from the network in {model}" in record["settings"]
    assert record["test_error"] < trained["test_error"] + 0.05
    assert record["test_error"] < run("c", *short)["test_error"] - 0.2


def test_packed_models_of_images_prepared_otherwise_are_refused(digits, tmp_path, capsys):
    call = ["train", "bnn-theano", "--data", digits, *SMALL, "--quiet"]
    assert cli.main([*call, "--run", str(tmp_path / "a")]) == 0
    model = tmp_path / "a" / "model.safetensors"
    assert load(model).notes["preprocessing"] == "pixels"
    again = [*call, "--run", str(tmp_path / "b"), "--start", str(model)]
    words = failure(capsys, *again, "--dropout", "0.1")
    assert "[train] start must be a network of images prepared as 'unit', got one of 'pi" in words
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("name", "same"), [("unit", True), ("pixels", False), ("zero_one", False), ("whitened", False)]
)
def test_pixels_of_the_zoo_are_prepared_by_its_networks(name, same):
    assert makes_inputs(name, zoo.load("cifar10-convnet")) is same


def test_packed_models_that_do_not_fit_are_refused_first(digits, tmp_path, capsys):
    path = tmp_path / "other.safetensors"
    save(make().freeze(), path)
    call = ["train", "bnn-theano", "--data", digits, *SMALL, "--run", str(tmp_path / "run")]
    words = failure(capsys, *call, "--start", str(path))
    assert "[start_from_packed]" in words and "must have as many products" in words
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    for damaged in (content, content[:-100], content + bytes(8)):
        path.write_bytes(damaged)
        words = failure(capsys, *call, "--start", str(path))
        assert "must be a packed bitops model" in words
    assert not (tmp_path / "run").exists()
