"""Trainings of recipes with a teacher: what it is taken to say, and what is learned from it."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bitops.cli import main as cli
from bitops.data import load_digits
from bitops.io import save
from bitops.layers import (
    BinaryDense,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    Packed,
    Sequential,
    Sigmoid,
    Sign,
    Softmax,
)
from bitops.recipes import Job, find
from bitops.recipes import training as recipe_training
from bitops.recipes.preprocess import preprocess
from bitops.recipes.teacher import Lessons, check_teacher, teach
from bitops.recipes.training import epoch_seconds, train
from bitops.training import Distillation, cross_entropy
from commands import failure, usage_error, write_digits

PARTS = ("train", "validation", "test")


def float_teacher(data, preprocessing="standard", *, scale=1.0, epochs=5):
    """Train a small float network."""
    x = preprocess(data, preprocessing).x_train
    model = Sequential(Dense(64, 10, seed=0))
    model.fit(x, data.y_train, epochs=epochs, loss="cross_entropy", schedule=0.01, verbose=0)
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


@pytest.mark.parametrize("count", [0, 1, 2, 99, 100])
def test_few_validation_images_do_not_set_the_scale_alone(data, teacher, count):
    few = replace(
        data, x_validation=data.x_validation[:count], y_validation=data.y_validation[:count]
    )
    lessons = teach(teacher, few)
    assert lessons.validation.shape == (count, 10)
    if count < 100:
        scores, labels = lessons.without_validation().train, few.without_validation().y_train
    else:
        scores, labels = lessons.validation, few.y_validation
    best = cross_entropy(scores, labels)[0]
    for factor in (0.5, 2.0):  # farther, as the labels are taken to be a little uncertain
        assert cross_entropy(scores * np.float32(factor), labels)[0] > best


@pytest.mark.parametrize("last", [Softmax, Sigmoid])
def test_probabilities_are_taken_as_the_scores_before_them(data, last):
    whole = Sequential(Dense(64, 10, seed=0), last())
    x = preprocess(data, "standard").x_train
    Sequential(whole.layers[0]).fit(
        x, data.y_train, epochs=5, loss="cross_entropy", schedule=0.01, verbose=0
    )
    notes = {"preprocessing": "standard"}
    packed, own = whole.freeze(), Sequential(whole.layers[0]).freeze()
    packed.notes = own.notes = notes
    assert_array_equal(teach(packed, data).train, teach(own, data).train)


def shown_labels(data):
    """A data set whose images, 1 x 10 pixels, show nothing but the labels."""
    eye = np.eye(10, dtype=np.uint8) * 9
    rows = {f"x_{part}": eye[getattr(data, f"y_{part}")] for part in PARTS}
    return replace(data, image_shape=(1, 10), **rows)


def diagonal(values):
    layer = Dense(10, 10, bias=False)
    layer.weight.assign(np.diag(np.full(10, values, np.float32)))
    return Sequential(layer).freeze()


@pytest.mark.parametrize("value", [1e-35, 3.0, 1e35])
def test_scores_without_an_error_stay_finite(data, value):
    lessons = teach(diagonal(value), shown_labels(data))
    assert np.isfinite(lessons.train).all() and np.isfinite(lessons.validation).all()
    assert_array_equal(lessons.train.argmax(axis=1), data.y_train)
    gap = np.ptp(lessons.train, axis=1)
    assert_allclose(gap, np.log(10 * (len(data.y_validation) + 2)), atol=0.2)


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_teacher_that_knows_nothing_is_refused(data, value):
    wrong = np.mean(data.y_validation != 0) if value == 0 else 1.0
    error = f"{wrong:.2%}"
    with pytest.raises(ValueError, match=rf"^\[teach\] the teacher must know .*, got .* {error}"):
        teach(diagonal(value), shown_labels(data))


def test_scores_that_are_not_finite_are_refused(data):
    layer = Dense(64, 10)
    layer.weight.assign(np.full((10, 64), 3e38, np.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        with pytest.raises(
            ValueError, match=r"^\[teach\] the scores of the teacher must be finite"
        ):
            teach(Sequential(layer).freeze(), data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sequential(Dense(63, 10)), r"\[teach\] the teacher must be a network for digits"),
        (lambda: Sequential(Dense(64, 9)), r"\[teach\] digits must have 9 classes"),
        (
            lambda: Sequential(BinaryDense(64, 10), Sign()),
            r"\[teach\] the teacher must end in 10 scores of an image, got bits",
        ),
        (
            lambda: Sequential(Conv2D(1, 10, 3), input_shape=(8, 8, 1)),
            r"\[teach\] the teacher must end in 10 scores of an image, got \(6, 6, 10\)",
        ),
        (
            lambda: Sequential(Conv2D(1, 10, 3), GlobalAvgPool2D(), input_shape=(32, 32, 1)),
            r"\[teach\] the teacher must take images of \(8, 8, 1\), got one for \(32, 32, 1\)",
        ),
    ],
)
def test_other_networks_are_refused(data, make, words):
    for call in (check_teacher, teach):
        with pytest.raises(ValueError, match=words):
            call(make().freeze(), data)


def test_pictures_must_be_read_alike(data, teacher):
    notes = {"resize": "stretch", "image_shape": "8x8x1"}
    packed = Packed(teacher.layers, notes={**teacher.notes, **notes})
    for resize in (None, "stretch"):
        check_teacher(packed, data, resize)
    with pytest.raises(ValueError, match=r"pictures read with 'crop', got 'stretch'"):
        check_teacher(packed, data, "crop")
    packed.notes["image_shape"] = "4x16x1"
    with pytest.raises(ValueError, match=r"must take images of \(8, 8, 1\), got .*\(4, 16, 1\)"):
        check_teacher(packed, data)


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
    assert stage.targets_and_loss(job, model)["loss"] is stage.loss
    lessons = teach(teacher, data)
    taught = stage.targets_and_loss(replace(job, lessons=lessons), model)
    assert taught["loss"] == Distillation(2.5)
    assert taught["y"][1] is lessons.train and taught["validation"][1][1] is lessons.validation


def test_ebp_has_no_teacher(data, teacher):
    setting = find("ebp").setting("mnist")
    prepared = preprocess(data, setting.preprocessing)
    job = Job(prepared, setting.resolve(epochs=1, width=16), lessons=teach(teacher, data))
    with pytest.raises(ValueError, match=r"^\[train\] lessons must be None"):
        train(setting, job)


def test_lessons_are_kept_in_a_file(data, teacher, tmp_path):
    path, lessons = tmp_path / "lessons.safetensors", teach(teacher, data)
    lessons.save(path)
    again = Lessons.load(path, data)
    assert_array_equal(again.train, lessons.train)
    assert_array_equal(again.validation, lessons.validation)
    everything = data.without_validation()
    with pytest.raises(ValueError, match=r"^\[teach\] .* must hold the scores .* for digits: scor"):
        Lessons.load(path, everything)
    lessons.without_validation().save(path)
    assert Lessons.load(path, everything).validation.shape == (0, 10)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    for damaged in (content, content[:-9], b"{}"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^\[teach\] .* must hold the scores"):
            Lessons.load(path, everything)


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


@pytest.mark.filterwarnings("ignore:.*resume goes on to epoch 3")
def test_a_run_goes_on_without_its_teacher(files, tmp_path, capsys):
    """Its scores are kept, whatever the file or another machine would say by now."""
    path, call, option = files
    assert cli.main([*call, *option]) == 0
    run = tmp_path / "run"
    shutil.copytree(run, tmp_path / "copy")
    longer = [*call, "--resume", "--epochs", "3"]
    assert cli.main(longer) == 0
    path.unlink()
    copy = [*longer, "--run", str(tmp_path / "copy")]  # the last one counts
    capsys.readouterr()
    assert cli.main(copy) == 0
    assert f"teacher  {path}: training error" in capsys.readouterr().out
    models = [(folder / "model.safetensors").read_bytes() for folder in (run, tmp_path / "copy")]
    assert models[0] == models[1]
    (run / "lessons.safetensors").unlink()
    words = usage_error(capsys, *longer)
    assert words.endswith(f"argument --teacher: must be a packed model, got {path}")


def test_scores_that_are_kept_must_be_those_of_the_images(files, tmp_path, capsys):
    _, call, option = files
    assert cli.main([*call, *option]) == 0
    capsys.readouterr()
    resume = [*call, "--resume"]
    words = failure(capsys, *resume, "--all-images")
    assert (
        "must hold the scores of a teacher" in words and "another choice of --all-images" in words
    )
    path = tmp_path / "run" / "lessons.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    words = failure(capsys, *resume)
    assert "must hold the scores of a teacher" in words and "may be deleted" in words
    path.unlink()
    assert cli.main(resume) == 0
    assert path.exists()


def test_without_a_checkpoint_the_teacher_is_asked_again(files, tmp_path, data, capsys):
    """The run ended before it wrote one; its teacher has learned since."""
    path, call, option = files
    assert cli.main([*call, *option]) == 0
    run = tmp_path / "run"
    kept = (run / "lessons.safetensors").read_bytes()
    for name in ("checkpoint.safetensors", "model.safetensors", "log.csv"):
        (run / name).unlink()
    save(float_teacher(data, epochs=6), path)
    assert cli.main([*call, "--resume"]) == 0
    assert (run / "lessons.safetensors").read_bytes() != kept


def test_scores_that_cannot_be_written_refuse_the_training(files, tmp_path, capsys, monkeypatch):
    _, call, option = files
    assert cli.main([*call, *option]) == 0
    kept = (tmp_path / "run" / "lessons.safetensors").read_bytes()
    monkeypatch.setattr(Lessons, "save", raise_full_disk)
    assert "No space" in failure(capsys, *call, "--resume")
    assert (tmp_path / "run" / "lessons.safetensors").read_bytes() == kept


def raise_full_disk(self, path):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_networks_that_are_read_are_not_replaced(files, tmp_path, capsys):
    _, call, option = files
    assert cli.main([*call, *option]) == 0
    run = tmp_path / "run"
    model = run / "model.safetensors"
    before = model.read_bytes()
    numbered = tmp_path / "net.1.safetensors"
    shutil.copy(model, numbered)
    capsys.readouterr()
    base = [*call[:-2], "--overwrite"]
    stages = ["train", "ternary", *base[2:], "--checkpoint", str(tmp_path / "net.safetensors")]
    cases = [
        ([*base, "--save", str(model)], model),
        ([*base, "--checkpoint", str(model)], model),
        ([*base, "--run", str(run)], model),
        (stages, numbered),
    ]
    for argv, path in cases:
        for option in ("teacher", "start"):
            words = usage_error(capsys, *argv, f"--{option}", str(path))
            assert words.endswith(f"argument --{option}: must not be replaced, got {path}")
    assert model.read_bytes() == before


def test_a_run_that_takes_the_place_of_a_taught_one_keeps_no_scores(files, tmp_path):
    _, call, option = files
    assert cli.main([*call, *option]) == 0
    path = tmp_path / "run" / "lessons.safetensors"
    assert path.exists()
    assert cli.main([*call, "--overwrite"]) == 0
    assert not path.exists()


def test_a_file_that_names_no_preprocessing_is_warned_of(files, capsys):
    path, call, option = files
    layer = Dense(64, 10, seed=0)
    data = load_digits()
    Sequential(layer).fit(
        data.x_train.astype(np.float32), data.y_train, loss="cross_entropy", verbose=0, epochs=5
    )
    save(Sequential(layer).freeze(), path)
    assert cli.main([*call, *option]) == 0
    assert "warning: the file names no preprocessing; raw pixels" in capsys.readouterr().err


def test_hours_are_measured_with_the_teacher(data, teacher, monkeypatch):
    """A trial learns as many lessons as it has images."""
    seen = []
    own = recipe_training.train

    def spied(setting, job):
        seen.append((len(job.data.y_train), len(job.data.y_validation), job.lessons))
        return own(setting, job)

    monkeypatch.setattr(recipe_training, "train", spied)
    setting = find("float").setting("mnist")
    job = Job(preprocess(data, setting.preprocessing), setting.resolve(epochs=1, width=16))
    assert epoch_seconds(setting, replace(job, lessons=teach(teacher, data))) > 0
    assert len(seen) >= 1
    for rows, checked, lessons in seen:
        assert (len(lessons.train), len(lessons.validation)) == (rows, checked) and checked


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
    for extreme in ("1e-40", "1e8"):
        words = failure(capsys, *call, *option, "--temperature", extreme)
        assert "[Distillation] temperature must be in 0.001..1000, got" in words
    ebp = ["train", "ebp", *call[2:], *option]
    assert usage_error(capsys, *ebp).endswith("argument --teacher: not allowed with ebp")
    save(Sequential(Dense(64, 3)).freeze(), path)
    assert "[teach] " in failure(capsys, *call, *option)
    path.write_bytes(b"{}")
    assert str(path) in failure(capsys, *call, *option)
    assert not (tmp_path / "run").exists()
