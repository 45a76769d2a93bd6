"""Trainings of recipes with a teacher: what it is taken to say, and what is learned from it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bitops.cli import main as cli
from bitops.data import load_digits
from bitops.io import save
from bitops.layers import BinaryDense, Dense, Sequential, Sign
from bitops.recipes import Job, find
from bitops.recipes.preprocess import preprocess
from bitops.recipes.teacher import check_teacher, teach
from bitops.recipes.training import epoch_seconds, train
from bitops.training import Distillation, cross_entropy
from commands import failure, usage_error, write_digits

PARTS = ("train", "validation", "test")


def float_teacher(data, preprocessing="standard", *, scale=1.0):
    """Train a small float network."""
    x = preprocess(data, preprocessing).x_train
    model = Sequential(Dense(64, 10, seed=0))
    model.fit(x, data.y_train, epochs=5, loss="cross_entropy", schedule=0.01, verbose=0)
    for parameter in model.parameters():
        parameter.assign(parameter.value * np.float32(scale))
    packed = model.freeze()
    packed.notes = {"preprocessing": preprocessing}
    return packed


@pytest.fixture(scope="module")
def data():
    return load_digits()


@pytest.fixture(scope="module")
def teacher(data):
    return float_teacher(data)


def test_scores_are_those_of_the_teacher_in_order(data, teacher):
    lessons = teach(teacher, data)
    prepared = preprocess(data, "standard")
    for scores, x in (
        (lessons.train, prepared.x_train),
        (lessons.validation, prepared.x_validation),
    ):
        assert scores.dtype == np.float32 and scores.shape == (len(x), 10)
        own = teacher.outputs(x)
        factor = np.float32(scores[0, 0] / own[0, 0])
        assert_allclose(scores, own * factor, rtol=1e-5)
    again = teach(teacher, data, prepared)
    assert_array_equal(again.train, lessons.train)
    everything = lessons.without_validation()
    assert_array_equal(everything.train[: len(lessons.train)], lessons.train)
    assert_array_equal(everything.train[len(lessons.train) :], lessons.validation)
    assert len(everything.train) == len(data.without_validation().y_train)
    assert everything.validation.shape == (0, 10)
    first = lessons.first(7, 3)
    assert_array_equal(first.train, lessons.train[:7])
    assert_array_equal(first.validation, lessons.validation[:3])


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1.0, 50.0])
def test_their_softmax_is_the_best_of_all_scales(data, scale):
    """Whatever scale a loss left them at, they end at the one that validation images ask for."""
    lessons = teach(float_teacher(data, scale=scale), data)
    assert_allclose(lessons.train, teach(float_teacher(data), data).train, rtol=2e-3)
    scores, labels = lessons.validation, data.y_validation
    best = cross_entropy(scores, labels)[0]
    for factor in (0.5, 0.8, 1.25, 2.0):
        assert cross_entropy(scores * np.float32(factor), labels)[0] > best


def test_without_validation_images_the_others_set_the_scale(data, teacher):
    lessons = teach(teacher, data.without_validation())
    assert lessons.validation.shape == (0, 10)
    labels = data.without_validation().y_train
    best = cross_entropy(lessons.train, labels)[0]
    for factor in (0.8, 1.25):
        assert cross_entropy(lessons.train * np.float32(factor), labels)[0] > best


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_scores_without_an_error_and_scores_of_0_stay_finite(data, value):
    """The first teacher knows the answer: images that show nothing but that."""
    eye = np.eye(10, dtype=np.uint8) * 9
    rows = {f"x_{part}": eye[getattr(data, f"y_{part}")] for part in PARTS}
    shown = replace(data, image_shape=(1, 10), **rows)
    layer = Dense(10, 10, bias=False)
    layer.weight.assign(np.eye(10, dtype=np.float32) * np.float32(value))
    lessons = teach(Sequential(layer).freeze(), shown)
    assert np.isfinite(lessons.train).all() and np.isfinite(lessons.validation).all()
    if value:
        assert_array_equal(lessons.train.argmax(axis=1), data.y_train)
        gap = np.ptp(lessons.train, axis=1)
        assert_allclose(gap, np.log(10 * (len(data.y_validation) + 2)), atol=0.2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sequential(Dense(63, 10)), r"\[teach\] the teacher must be a network for digits"),
        (lambda: Sequential(Dense(64, 9)), r"\[teach\] digits must have 9 classes"),
        (
            lambda: Sequential(BinaryDense(64, 10), Sign()),
            r"\[teach\] the teacher must end in scores, got a network that ends in bits",
        ),
    ],
)
def test_other_networks_are_refused(data, make, words):
    for call in (check_teacher, teach):
        with pytest.raises(ValueError, match=words):
            call(make().freeze(), data)


def test_an_unknown_preprocessing_is_refused(data):
    packed = Sequential(Dense(64, 10)).freeze()
    packed.notes = {"preprocessing": "secret"}
    with pytest.raises(ValueError, match=r"\[teach\] the note preprocessing .*, got 'secret'"):
        teach(packed, data)


@pytest.mark.parametrize(("name", "epochs"), [("float", 4), ("bnn-theano", 8), ("ternary", 8)])
def test_networks_learn_what_the_teacher_says(data, teacher, name, epochs):
    """Its word has 0.9 of the weight: of two opinions about each image, it is learned."""
    setting = find(name).setting("mnist")
    # without validation images, whose labels would choose an epoch that has learned them
    prepared = preprocess(data, setting.preprocessing).without_validation()
    plan = setting.resolve(True, epochs=epochs, width=64, dropout=0.0, lr=0.01)
    lessons = teach(teacher, data).without_validation()
    lessons = replace(lessons, train=np.roll(lessons.train, 1, axis=1))
    trained = train(setting, Job(prepared, plan, lessons=lessons))
    labels = trained.model.predict(prepared.x_test)
    assert np.mean(labels == (data.y_test + 1) % 10) > 0.6
    assert np.mean(labels == data.y_test) < 0.2
    assert epoch_seconds(setting, Job(prepared, plan, lessons=lessons)) > 0


def test_the_temperature_of_the_plan_is_that_of_the_loss(data, teacher):
    setting = find("float").setting("mnist")
    plan = setting.resolve(epochs=1, width=16, dropout=0.0, temperature=2.5)
    stage, job = setting.stages[0], Job(data, plan)
    model = stage.build(job)
    assert stage.targets(job, model)["loss"] is stage.loss
    lessons = teach(teacher, data)
    taught = stage.targets(replace(job, lessons=lessons), model)
    assert taught["loss"] == Distillation(2.5)
    assert taught["y"][1] is lessons.train and taught["validation"][1][1] is lessons.validation


def test_ebp_has_no_teacher(data, teacher):
    setting = find("ebp").setting("mnist")
    prepared = preprocess(data, setting.preprocessing)
    job = Job(prepared, setting.resolve(epochs=1, width=16), lessons=teach(teacher, data))
    with pytest.raises(ValueError, match=r"^\[train\] lessons must be None"):
        train(setting, job)


@pytest.fixture
def files(tmp_path, teacher):
    """The data, and the call of a short training that is taught by a file."""
    digits, path = write_digits(tmp_path), tmp_path / "teacher.safetensors"
    save(teacher, path)
    call = ["train", "bnn-theano", "--data", digits, "--quick", "--epochs", "2", "--width", "32"]
    return path, [*call, "--run", str(tmp_path / "run")], ["--teacher", str(path)]


def read(call):
    return json.loads((Path(call[call.index("--run") + 1]) / "run.json").read_text())


@pytest.mark.filterwarnings("ignore:.*resume goes on to epoch 3")
def test_command(files, data, teacher, capsys):
    path, call, option = files
    assert cli.main([*call, *option, "--temperature", "3"]) == 0
    out = capsys.readouterr().out
    prepared = preprocess(data, "standard")
    errors = (
        teacher.error_rate(getattr(prepared, f"x_{part}"), getattr(prepared, f"y_{part}"))
        for part in PARTS[:2]
    )
    words = "training error {:.2%}, validation error {:.2%}".format(*errors)
    assert f"teacher  {path}: {words}" in out
    record = read(call)
    assert record["teacher"] == str(path)
    assert record["settings"].endswith(f"taught by {path} at temperature 3")
    longer = [*call, "--resume", "--epochs", "3"]
    # the teacher need not be named again; a loss of another temperature is another training
    assert "loss is Distillation" in failure(capsys, *longer, "--quiet")
    assert cli.main([*longer, "--temperature", "3"]) == 0
    assert read(call)["teacher"] == str(path)
    capsys.readouterr()
    words = usage_error(capsys, *longer, "--teacher", call[3])
    assert words.endswith(f"argument --teacher: the run began with {path}, got {call[3]}")
    path.unlink()
    words = usage_error(capsys, *longer)
    assert words.endswith(f"argument --teacher: must be a packed model, got {path}")


def test_a_run_without_a_teacher_gets_none(files, capsys):
    _, call, option = files
    assert cli.main(call) == 0
    assert read(call)["teacher"] is None and "temperature" not in read(call)["settings"]
    capsys.readouterr()
    words = usage_error(capsys, *call, "--resume", *option)
    assert "argument --teacher: the run began with no teacher, got" in words


def test_all_images_are_taught(files, capsys):
    path, call, option = files
    assert cli.main([*call, *option, "--all-images"]) == 0
    out = capsys.readouterr().out
    assert f"{path}: training error" in out and "1,541 training and" in out


def test_what_differs_from_the_source_names_it():
    setting = find("bnn-theano").setting("mnist")
    plan = replace(setting.plan, temperature=2.0)
    assert setting.report(plan, taught=True).endswith("the source reports 0.96 % with labels alone")
    assert setting.report(plan).endswith("with these settings")


def test_refused_commands(files, tmp_path, capsys):
    path, call, option = files
    assert "argument --temperature: needs --teacher" in usage_error(
        capsys, *call, "--temperature", "2"
    )
    words = usage_error(capsys, *call, "--teacher", "nowhere")
    assert words.endswith("argument --teacher: must be a packed model, got nowhere")
    assert "above 0" in usage_error(capsys, *call, *option, "--temperature", "0")
    ebp = ["train", "ebp", *call[2:], *option]
    assert usage_error(capsys, *ebp).endswith("argument --teacher: not allowed with ebp")
    save(Sequential(Dense(64, 3)).freeze(), path)
    assert "[teach] " in failure(capsys, *call, *option)
    path.write_bytes(b"{}")
    assert str(path) in failure(capsys, *call, *option)
    assert not (tmp_path / "run").exists()
