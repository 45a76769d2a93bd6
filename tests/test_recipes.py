"""Recipes: each learns a small problem and freezes to the same outputs; and their commands."""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from bitops import io
from bitops.cli import main as cli
from bitops.cli.results import describe_plan
from bitops.data.datasets import Dataset
from bitops.layers import BatchNorm, BinaryDense, PackedDense, Sequential
from bitops.models import mlp
from bitops.recipes import RECIPES, Job, Plan, find
from bitops.recipes.base import Files, describe, inputs
from bitops.recipes.preprocess import STEPS, preprocess
from bitops.recipes.training import train
from bitops.training.augment import ZCA, gcn, lcn
from bitops.training.log import read_log
from bitops.training.schedules import CosineDecay, goes_by_step
from commands import failure, usage_error, write_idx

CASES = [(recipe.name, kind) for recipe in RECIPES for kind in recipe.settings]
SHAPES = {"mnist": (16, 16), "cifar10": (8, 8, 3), "svhn": (8, 8, 3)}

LARGER = {
    ("dorefa", "mnist"): (24, 24),
    ("dorefa", "cifar10"): (24, 24, 3),
    ("dorefa", "svhn"): (24, 24, 3),
}


def blobs(shape=(16, 16), count=100, classes=4, seed=0, noise=30) -> Dataset:
    """Images of 3 x 3 bright or dark tiles, one pattern a class, with noise."""
    rng = np.random.default_rng(seed)
    height, width, *channels = shape
    tiles = rng.integers(2, size=(classes, 3, 3, *channels)) * 140 + 30
    patterns = tiles.repeat(-(-height // 3), axis=1)[:, :height]
    patterns = patterns.repeat(-(-width // 3), axis=2)[:, :, :width]
    parts = []
    for part in (count, 40, 40):
        y = rng.permutation(np.arange(part) % classes)
        x = (patterns[y] + rng.integers(-noise, noise + 1, size=(part, *shape))).astype(np.uint8)
        parts += [x if channels else x.reshape(part, -1), y]
    return Dataset("blobs", shape, classes, *parts)


def small_plan(setting, **changes) -> Plan:
    """A plan for a hundred images; learning rates stay those of the recipe."""
    width = {48: 16, 500: 150, 64: 16, 128: 16, 192: 48}.get(setting.plan.width, 64)
    narrow = {"width": width, "epochs": 6, "batch_size": 20, "dropout": 0.0}
    return replace(setting.plan, **narrow | changes)


def train_small(name, kind, seed=3, **changes):
    setting = find(name).setting(kind)
    plan = small_plan(setting, **changes)
    shape = LARGER.get((name, kind), SHAPES[kind])
    # whitening makes noise as strong as patterns unless it is below the bias
    noise = 5 if setting.preprocessing == "whitened" else 30
    data = preprocess(blobs(shape, noise=noise), setting.preprocessing_of(plan))
    return train(setting, Job(data, plan, seed)), data


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_recipe_learns_and_freezes(name, kind):
    # random signs of few whitened channels say little; few bitwise units start well and stay there
    wider = {
        ("bnn-torch", "cifar10"): 48,
        ("bitwise", "mnist"): 128,
        ("xnor", "cifar10"): 96,
        ("xnor-convnet", "cifar10"): 32,
    }
    changes = {"width": wider[name, kind]} if (name, kind) in wider else {}
    trained, data = train_small(name, kind, **changes)
    for history in trained.histories:
        losses = [epoch.loss for epoch in history.epochs]
        assert losses[-1] < 0.8 * losses[0]
    model = trained.model
    x = inputs(model, data, data.x_test)
    if kind == "mnist":
        assert model.error_rate(x, data.y_test) < 0.5  # chance is 0.75
    packed = model.freeze()
    np.testing.assert_array_equal(packed.outputs(x), model.outputs(x))


@pytest.mark.parametrize(
    ("name", "kind", "width"), [("bnn-theano", "mnist", 48), ("xnor", "cifar10", 96)]
)
def test_recipe_with_dropout(name, kind, width):
    trained, data = train_small(name, kind, dropout=0.3, epochs=8, width=width)
    losses = [epoch.loss for epoch in trained.histories[-1].epochs]
    assert losses[-1] < 0.9 * losses[0]
    packed, x = trained.model.freeze(), inputs(trained.model, data, data.x_test)
    np.testing.assert_array_equal(packed.outputs(x), trained.model.outputs(x))


def test_recipes_are_those_of_the_papers():
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)
    assert "mnist" in {kind for _, kind in CASES}
    for recipe in RECIPES:
        assert find(recipe.name) is recipe
        assert "mnist" in recipe.settings or "cifar10" in recipe.settings
        for setting in recipe.settings.values():
            assert setting.preprocessing in STEPS
            assert setting.resolve(quick=True).epochs < setting.plan.epochs


def test_same_seed_same_weights():
    first, _ = train_small("bnn-theano", "mnist", epochs=2, dropout=0.2)
    again, _ = train_small("bnn-theano", "mnist", epochs=2, dropout=0.2)
    other, _ = train_small("bnn-theano", "mnist", epochs=2, dropout=0.2, seed=4)
    weights = [t.model.parameters()[0].value for t in (first, again, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_plans():
    setting = find("bnn-theano").setting("mnist")
    assert setting.resolve() == Plan(4096, 1000, 100, 3e-3, 0.5)
    assert setting.resolve(width=64, lr=None) == Plan(64, 1000, 100, 3e-3, 0.5)
    quick = setting.resolve(quick=True, dropout=0.1)
    assert (quick.width, quick.dropout) == (2048, 0.1)
    # dropped inputs are grey, the 0 of scaled pixels; without dropout bytes do
    assert setting.preprocessing_of(setting.plan) == "unit"
    assert setting.preprocessing_of(setting.resolve(dropout=0.0)) == "pixels"
    with pytest.raises(ValueError, match=r"^\[bwn\] the data must be MNIST, CIFAR-10, got SVHN"):
        find("bwn").setting("svhn")


def test_report_names_the_numbers_of_the_source():
    setting = find("bnn-theano").setting("mnist")
    assert setting.report(setting.plan) == "the source reports 0.96 % with these settings"
    assert setting.report(setting.resolve(width=128, epochs=1)) == (
        "the source reports 0.96 % with width 4,096, 1,000 epochs"
    )
    other = setting.resolve(batch_size=7, lr=1.0, dropout=0.0, depth=1, gradients="int8")
    assert setting.report(other).endswith(
        " with batch 100, learning rate 0.003, dropout 0.5, depth 3, exact gradients"
    )
    moved = setting.resolve(flip=True, shift=2)
    assert setting.report(moved).endswith(" with images as they are, images in place")
    # of this one neither sizes nor batches are known
    setting = find("ebp").setting("mnist")
    assert setting.report(setting.resolve(quick=True)) == "the source reports 2.12 %"
    setting = find("bwn").setting("mnist")
    assert setting.report(setting.plan) == ""


def test_schedules_stretch_to_the_run():
    bnn = find("bnn-theano").setting("mnist").stages[0].schedule(3e-3)
    assert bnn(0, 10) == 3e-3
    assert bnn(5, 10) == pytest.approx(3e-5)
    xnor = find("xnor").setting("mnist").stages[0].schedule(1e-2)
    assert [xnor(epoch, 60) for epoch in (0, 14, 15, 30, 59)] == pytest.approx(
        [1e-2, 1e-2, 1e-3, 1e-4, 1e-5]
    )
    assert [xnor(epoch, 8) for epoch in range(8)] == pytest.approx(
        [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    )


def test_rates_of_the_torch_program():
    """sqrt(n / 1.5) for gamma on MNIST; on CIFAR-10 powers of two, and every parameter clipped."""
    norms, weights = {}, {}
    for kind in ("mnist", "cifar10"):
        setting = find("bnn-torch").setting(kind)
        plan = small_plan(setting, width=24)
        model = setting.stages[0].build(Job(blobs(SHAPES[kind]), plan))
        setting.stages[0].optimizer(model, plan.lr)
        weights[kind], norms[kind] = model.layers[0].weight, model.layers[1]
    assert weights["mnist"].lr_scale == pytest.approx(((256 + 24) / 1.5) ** 0.5)
    assert norms["mnist"].gamma.lr_scale == 4
    assert norms["mnist"].beta.lr_scale == 1
    assert (weights["mnist"].clip_value, norms["mnist"].gamma.clip_value) == (1.0, None)
    assert weights["cifar10"].lr_scale == 16  # sqrt(9 (3 + 24) / 1.5) is 12.7
    assert norms["cifar10"].gamma.lr_scale == 1
    assert norms["cifar10"].beta.clip_value == 1.0


def test_nets_in_words():
    words = {}
    for name, kind, shape in (
        ("bnn-theano", "mnist", (28, 28)),
        ("bnn-theano", "cifar10", (32, 32, 3)),
        ("xnor", "mnist", (28, 28)),
        ("bwn", "mnist", (28, 28)),
        ("dorefa", "svhn", (32, 32, 3)),
        ("xnor-convnet", "cifar10", (32, 32, 3)),
        ("bwn", "cifar10", (32, 32, 3)),
        ("speedrun", "cifar10", (32, 32, 3)),
    ):
        setting = find(name).setting(kind)
        plan = replace(setting.plan, width=setting.plan.width // 2)
        model = setting.stages[0].build(Job(blobs(shape, 4, classes=10), plan))
        words[name, kind] = describe(model)
    lenet = "10C5-P2-25C5-P2-250-10"
    convnet = "64C3-64C3-P2-128C3-128C3-P2-256C3-256C3-P2-512-512-10"
    assert list(words.values()) == [
        "784-2048-2048-2048-10",
        convnet,
        lenet,
        lenet,
        "24C5-P2-32C3-32C3-P2-64C3-64C3-64C3-256C3-10",
        convnet,
        convnet,
        "64C4-64C3-128C3-128C3-128C3-256C3-256C3-256C3-256C3-10",
    ]


def test_pixels_and_scaled_pixels_train_the_same(rng):
    """Behind a BatchNorm neither scale nor offset of the input matters, nor in the gradients."""
    x, y = rng.integers(0, 256, (50, 60), np.uint8), rng.integers(0, 3, 50)
    scaled = x * np.float32(2 / 255) - 1
    grads = []
    for images in (x, scaled):
        model = Sequential(BinaryDense(60, 8, seed=1), BatchNorm(8), BinaryDense(8, 3, seed=2))
        scores = model.forward(images, training=True)
        model.backward(np.eye(3, dtype=np.float32)[y] - scores / 10)
        grads.append(model.parameters()[0].grad.copy())
    np.testing.assert_allclose(grads[0], grads[1], rtol=1e-2, atol=2e-3 * np.abs(grads[0]).max())


# ---- preprocessing ---------------------------------------------------------------------------


def test_pixels_stay():
    data = blobs()
    assert preprocess(data, "pixels") is data


def test_unit():
    data = blobs()
    scaled = preprocess(data, "unit")
    np.testing.assert_allclose(scaled.x_test, data.x_test / 127.5 - 1, atol=1e-6)
    assert scaled.x_train.dtype == np.float32
    np.testing.assert_array_equal(scaled.y_train, data.y_train)


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 3)])
def test_standard(shape):
    data = blobs(shape)
    x = preprocess(data, "standard")
    assert x.x_train.dtype == np.float32
    assert x.x_train.shape == data.x_train.shape
    values = x.x_train.reshape(-1, shape[2] if len(shape) == 3 else 1)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-4)
    # test images by the statistics of the training images
    raw = data.x_train.reshape(values.shape).astype(np.float64)
    test = data.x_test.reshape(-1, values.shape[1])
    expected = (test - raw.mean(axis=0)) / raw.std(axis=0)
    np.testing.assert_allclose(x.x_test.reshape(test.shape), expected, atol=1e-4)


def test_bipolar_and_fraction():
    data = blobs()
    np.testing.assert_array_equal(
        preprocess(data, "zero_one").x_test, data.x_test.astype(np.float32) / np.float32(255)
    )
    np.testing.assert_array_equal(preprocess(data, "bipolar").x_test > 0, data.x_test >= 128)
    np.testing.assert_array_equal(np.abs(preprocess(data, "bipolar").x_train), 1)
    np.testing.assert_array_equal(preprocess(data, "fraction").x_test, data.x_test / 256)


def test_whitened_and_contrast():
    data = blobs((8, 8, 3))
    x = preprocess(data, "whitened")
    zca = ZCA().fit(gcn(data.x_train))
    np.testing.assert_array_equal(x.x_test, zca.apply(gcn(data.x_test)))
    contrast = preprocess(data, "contrast").x_test
    np.testing.assert_allclose(contrast.std(axis=(1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_array_equal(preprocess(data, "local_contrast").x_test, lcn(contrast))


def test_unknown_preprocessing():
    with pytest.raises(ValueError, match=r"one of pixels, unit, .* got 'sepia'"):
        preprocess(blobs(), "sepia")


# ---- commands --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder of MNIST's four files with few and small images."""
    data, path = blobs(count=120), tmp_path / "tiles"
    path.mkdir()
    x, y = np.concatenate([data.x_train, data.x_validation]), np.r_[data.y_train, data.y_validation]
    for part, images, labels in (("train", x, y), ("t10k", data.x_test, data.y_test)):
        write_idx(path / f"{part}-images-idx3-ubyte", images.reshape(-1, 16, 16))
        write_idx(path / f"{part}-labels-idx1-ubyte", labels)
    return path


SMALL = ("--epochs", "3", "--width", "32", "--batch", "20", "--dropout", "0", "--quiet")


def lines_of(text):
    """Lines of an output by their first word."""
    return dict(line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != " ")


@pytest.mark.parametrize("name", ["bnn-theano", "xnor"])
def test_train_and_eval(capsys, folder, tmp_path, name):
    path = tmp_path / "net.safetensors"
    width = ("--width", "100") if name == "xnor" else ()
    argv = ("train", name, "--data", str(folder), *SMALL, *width, "--save", str(path))
    assert cli.main(argv) == 0
    lines = lines_of(capsys.readouterr().out)
    assert lines["recipe"].startswith(f"{name}: ")
    assert "134 training, 26 validation and 40 test images of 16 x 16" in lines["data"]
    assert lines["settings"].startswith("3 epochs, batch 20, learning rate 0.0")
    assert "seed 0" in lines["settings"]
    net = {"bnn-theano": "256-32-32-32-4", "xnor": "4C5-P2-10C5-P2-100-4"}[name]
    assert lines["net"] == net
    assert "bit for bit, on all 40 test images" in lines["packed"]
    assert re.fullmatch(r"epoch [123], validation error \d+\.\d\d%", lines["best"])
    error = re.match(r"error (\S+%)", lines["test"])[1]
    assert f"error {error};" in lines["packed"]
    setting = find(name).settings["mnist"]
    assert (
        f"the source reports {setting.published} % with width {setting.plan.width:,}, "
        in (lines["test"])
    )

    packed = io.load(path)
    assert packed.notes["recipe"] == name
    assert cli.main(["eval", str(path), "--data", str(folder)]) == 0
    lines = lines_of(capsys.readouterr().out)
    assert lines["error"].startswith(f"{error} (")
    assert "images a second" in lines["speed"]
    assert f"recipe {name}" in lines["model"]


def test_log_checkpoint_and_resume(capsys, folder, tmp_path):
    """A training in two pieces gives the file of one in a single piece."""
    files = [tmp_path / name for name in ("whole", "parts", "run.ckpt", "run.csv")]
    whole, parts, checkpoint, log = files
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL, "--dropout", "0.1"]
    assert cli.main([*argv, "--save", str(whole)]) == 0

    def interrupt(self, run):
        if run.epoch == 2 and run.batch == 3:
            raise KeyboardInterrupt

    keep = ["--checkpoint", str(checkpoint), "--log", str(log)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitops.training.log.Log.on_batch", interrupt)
        assert cli.main([*argv, *keep]) == 130
    assert "go on with --resume" in capsys.readouterr().err
    assert len(log.read_text().splitlines()) == 2
    assert cli.main([*argv, *keep, "--resume", "--save", str(parts)]) == 0
    assert whole.read_bytes() == parts.read_bytes()
    assert len(log.read_text().splitlines()) == 4


@pytest.mark.parametrize("name", [name for name, kind in CASES if kind == "cifar10"])
def test_images_recipes_resume(tmp_path, name):
    """In the middle of an epoch, with what the recipe does to the images of each step."""
    setting = find(name).setting("cifar10")
    plan = small_plan(setting, width=8, epochs=2, batch_size=10, dropout=setting.plan.dropout)
    data = blobs(LARGER.get((name, "cifar10"), SHAPES["cifar10"]), count=40)
    job = Job(preprocess(data, setting.preprocessing_of(plan)), plan, 3)
    whole = train(setting, job).model
    files = Files(tmp_path / "run.ckpt", tmp_path / "run.csv")

    def interrupt(self, run):
        if run.epoch == 2 and run.batch == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitops.training.log.Log.on_batch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(setting, replace(job, files=files))
    resumed = train(setting, replace(job, files=replace(files, resume=True))).model
    for got, expected in zip(resumed.parameters(), whole.parameters(), strict=True):
        np.testing.assert_array_equal(got.value, expected.value)
    x = inputs(whole, job.data, job.data.x_test)  # running statistics count too
    np.testing.assert_array_equal(resumed.outputs(x), whole.outputs(x))
    assert [row["epoch"] for row in read_log(files.log)] == [1, 2]


def test_resume_of_another_training(capsys, folder, tmp_path):
    checkpoint = str(tmp_path / "run.ckpt")
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL, "--checkpoint", checkpoint]
    assert cli.main(argv) == 0
    capsys.readouterr()
    message = failure(capsys, *argv, "--resume", "--width", "40")
    assert "resume must be a checkpoint of this training" in message


def test_files_of_stages(tmp_path):
    files = Files(tmp_path / "run.ckpt", tmp_path / "run.csv", True)
    assert files.of_stage(1, 1) is files
    assert files.of_stage(2, 3) == Files(tmp_path / "run.2.ckpt", tmp_path / "run.2.csv", True)
    assert Files().of_stage(2, 3) == Files()


def test_recipe_of_two_stages(capsys, folder, tmp_path):
    argv = ["train", "ternary", "--data", str(folder), *SMALL]
    argv += ["--checkpoint", str(tmp_path / "run.ckpt"), "--log", str(tmp_path / "run.csv")]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "stage    1 of 2: float32 weights, tanh\nnet      256-32-32-32-4\n" in out
    assert "stage    2 of 2: ternary weights, signs\nnet      256-32-32-32-4\n" in out
    written = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert written == ["run.1.ckpt", "run.1.csv", "run.2.ckpt", "run.2.csv"]
    # resuming a finished training trains nothing, and says the same
    assert cli.main([*argv, "--resume"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [x for x in lines if x[:4] in ("best", "test")] == [
        x for x in out.splitlines() if x[:4] in ("best", "test")
    ]


def test_expectation_backpropagation(capsys, folder, tmp_path):
    argv = ("train", "ebp", "--data", str(folder), *SMALL)
    log = tmp_path / "run.csv"
    assert cli.main([*argv, "--log", str(log), "--checkpoint", str(tmp_path / "run.ckpt")]) == 0
    lines = lines_of(capsys.readouterr().out)
    assert read_log(log)[0]["flips/0.BinaryDense"] > 0
    assert re.fullmatch(
        r"test error \d+\.\d\d% by the means of the weights \(EBP-P\)", lines["means"]
    )
    assert lines["net"] == "256-32-32-4"
    for options, reason in (
        (("--dropout", "0.6"), "must be at most 0.5"),
        (("--flip",), "cannot move images"),
        (("--gradients", "int6"), "multiplies no gradients"),
        (("--round-activations",), "multiplies no real activations"),
        (("--half-state",), "without Adam"),
        (("--recalibrate", "9"), "has no BatchNorm"),
        (("--schedule", "constant"), "stays the same"),
    ):
        message = usage_error(capsys, *argv, *options)
        assert f"argument {options[0]}: not allowed with ebp: " in message and reason in message


def test_moved_images_of_the_command(capsys, folder, tmp_path):
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL, "--flip", "--shift", "2"]
    argv += ["--checkpoint", str(tmp_path / "run.ckpt")]
    assert cli.main(argv) == 0
    settings = lines_of(capsys.readouterr().out)["settings"]
    assert settings.endswith(", half of the images mirrored, shifted by up to 2 pixels")
    # another shift would be another training
    argv[argv.index("2", argv.index("--shift"))] = "3"
    assert "augment" in failure(capsys, *argv, "--resume")


def test_schedule_of_the_command(capsys, folder, tmp_path):
    log = tmp_path / "run.csv"
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL, "--epochs", "4", "--lr", "0.01"]
    argv += ["--schedule", "cosine_decay", "--checkpoint", str(tmp_path / "run.ckpt")]
    assert cli.main([*argv, "--log", str(log)]) == 0
    lines = lines_of(capsys.readouterr().out)
    assert "learning rate 0.01, dropout 0, seed 0, schedule cosine_decay" in lines["settings"]
    assert "a schedule of its own" in lines["test"]
    rates = [CosineDecay(0.01)(epoch, 4) for epoch in range(4)]
    assert [row["learning_rate"] for row in read_log(log)] == rates
    argv[argv.index("cosine_decay")] = "constant"
    assert "schedule" in failure(capsys, *argv, "--resume")


def test_packed_network_that_differs(capsys, folder, monkeypatch, tmp_path):
    freeze, path = Sequential.freeze, tmp_path / "net.safetensors"

    def wrong(model):
        packed = freeze(model)
        *hidden, last = packed.layers
        bias = last.bias.copy()
        bias[0] = np.nextafter(bias[0], np.float32(np.inf))  # one unit in the last place
        packed.layers = [*hidden, PackedDense(last.weight, alpha=last.alpha, bias=bias)]
        return packed

    monkeypatch.setattr(Sequential, "freeze", wrong)
    argv = ("train", "bnn-theano", "--data", str(folder), *SMALL, "--save", str(path))
    assert "FAILED: packed and trained network differ on" in failure(capsys, *argv)
    assert not path.exists()


def test_recipes_are_listed(capsys):
    assert cli.main(["recipes"]) == 0
    out = capsys.readouterr().out
    for recipe in RECIPES:
        (line,) = (line for line in out.splitlines() if line.startswith(f"{recipe.name} "))
        assert recipe.paper in line
        assert next(iter(recipe.settings.values())).published in line


def test_wrong_usage(capsys, folder):
    message = usage_error(capsys, "train", "bnn-thano", "--data", str(folder))
    assert "recipe must be one of bnn-theano, " in message
    assert message.endswith("got 'bnn-thano'")
    data = ("bnn-theano", "--data", str(folder))
    for option, value, rule in (
        ("--dropout", "1", "must be in [0, 1), got 1"),
        ("--dropout", "nan", "must be in [0, 1), got nan"),
        ("--epochs", "0", "must be above 0, got 0"),
        ("--seed", "-1", "must not be negative, got -1"),
        ("--save", "no/such/place", "no such directory"),
        ("--log", "run.txt", "must end in .csv or .jsonl"),
    ):
        assert rule in usage_error(capsys, "train", *data, option, value)
    assert "--resume needs --checkpoint" in usage_error(capsys, "train", *data, "--resume")
    assert "--data" in usage_error(capsys, "train", "bnn-theano")


def test_bad_data(capsys, folder, tmp_path):
    message = failure(capsys, "train", "xnor", "--data", str(tmp_path / "nowhere"))
    assert "there is no file or folder" in message and "nowhere" in message
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    message = failure(capsys, "train", "xnor", "--data", str(folder))
    assert f"{images} must have" in message
    (folder / "t10k-labels-idx1-ubyte").unlink()
    images.unlink()
    message = failure(capsys, "train", "xnor", "--data", str(folder))
    assert "train-images-idx3-ubyte" in message


def test_eval_of_other_files(capsys, folder, tmp_path):
    data = ("--data", str(folder))
    path = tmp_path / "net.safetensors"
    assert "No such file" in failure(capsys, "eval", str(path), *data)
    path.write_bytes(b"no model")
    assert "must be a packed bitops model" in failure(capsys, "eval", str(path), *data)
    mlp(256, 8, 1, 3, seed=0).freeze().save(path)
    assert "tiles must have 3 classes, as many as the model has scores, got 4" in failure(
        capsys, "eval", str(path), *data
    )
    mlp(99, 8, 1, 4, seed=0).freeze().save(path)
    assert "99 features" in failure(capsys, "eval", str(path), *data)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "sha256" in failure(capsys, "eval", str(path), *data)


def test_eval_of_a_model_without_notes(capsys, folder, tmp_path):
    path = tmp_path / "net.safetensors"
    model = mlp(256, 8, 1, 4, seed=0)
    model.freeze().save(path)
    assert cli.main(["eval", str(path), "--data", str(folder)]) == 0
    lines = lines_of(capsys.readouterr().out)
    error = model.error_rate(blobs(count=120).x_test, blobs(count=120).y_test)
    assert lines["error"].startswith(f"{error:.2%} ")
    assert lines["model"].endswith("recipe -")


@pytest.mark.parametrize(("kind", "shape"), (("mnist", (16, 16)), ("cifar10", (8, 8, 3))))
def test_moved_images(kind, shape):
    """The images of a step are mirrored and shifted, also where the network takes them as rows."""
    setting, data = find("bnn-theano").setting(kind), blobs(shape, noise=0)
    job = Job(data, setting.resolve(flip=True, shift=3))
    augment = setting.stages[0].augmentation(job)
    x = data.x_train if kind == "cifar10" else data.x_train.reshape(len(data.x_train), -1)
    before = x.copy()
    y = augment(x, np.random.default_rng(0))
    assert y.shape == x.shape and y.dtype == x.dtype
    np.testing.assert_array_equal(x, before)
    images, moved = data.images(x), data.images(y)
    sides = (0, 0), (3, 3), (3, 3), (0, 0)
    found = set()
    for mirrored in (False, True):
        padded = np.pad(images[:, :, ::-1] if mirrored else images, sides, mode="edge")
        for i, j in np.ndindex(7, 7):
            same = (padded[:, i : i + shape[0], j : j + shape[1]] == moved).all(axis=(1, 2, 3))
            found |= {(int(n), mirrored) for n in np.flatnonzero(same)}
    assert {n for n, _ in found} == set(range(len(x)))
    assert {mirrored for _, mirrored in found} == {False, True}
    # no flip without its option, and no shift
    only = replace(job, plan=setting.resolve(shift=3))
    assert not setting.stages[0].augmentation(only).flip
    assert setting.stages[0].augmentation(replace(job, plan=setting.plan)) is None


def test_windows_come_before_whole_images():
    setting, data = find("xnor").setting("cifar10"), blobs((12, 12, 3), noise=0)
    job = Job(data, setting.resolve(shift=2, crop=9))
    augment = setting.stages[0].augmentation(job)
    assert goes_by_step(augment)
    rng = np.random.default_rng(0)
    sizes = [augment(data.x_train, rng, step, 10).shape[1:3] for step in range(10)]
    assert sizes == 7 * [(9, 9)] + 3 * [(12, 12)]
    windows = augment(data.x_train, rng, 0, 10)
    for image, window in zip(data.x_train, windows, strict=True):
        found = np.lib.stride_tricks.sliding_window_view(image, (9, 9), axis=(0, 1))
        assert (found.transpose(0, 1, 3, 4, 2) == window).all(axis=(2, 3, 4)).any()
    # without windows, what is done does not depend on how many epochs there are
    other = replace(job, plan=setting.resolve(shift=2))
    plain = setting.stages[0].augmentation(other)
    assert not goes_by_step(plain)
    # as checkpoints have called it since before there were windows
    assert repr(plain) == "Moved(flip=False, shift=2, image_shape=(12, 12, 3))"
    assert "crop=9" in repr(augment)


def test_windows_train():
    trained, data = train_small("xnor", "cifar10", width=96, crop=6)
    epochs = trained.histories[0].epochs
    assert epochs[-1].loss < epochs[0].loss
    packed = trained.model.freeze()
    np.testing.assert_array_equal(packed.outputs(data.x_test), trained.model.outputs(data.x_test))


def test_windows_that_are_refused():
    for name, kind, crop, reason in (
        ("bnn-theano", "cifar10", 8, "takes images of one size"),
        ("xnor", "mnist", 8, "takes images of one size"),
        ("speedrun", "cifar10", 8, "moves images itself"),
        ("xnor", "cifar10", 12, "the images have 12 x 12 pixels"),
    ):
        setting = find(name).setting(kind)
        why = setting.refused(setting.resolve(crop=crop), (12, 12, 3))
        assert list(why) == ["crop"] and reason in why["crop"]
    setting = find("ebp").setting("mnist")
    assert "cannot move images" in setting.refused(setting.resolve(crop=8), (16, 16, 1))["crop"]


def test_every_number_of_a_plan_is_said():
    plan = find("xnor").setting("cifar10").plan
    others = {"schedule": "constant", "gradients": "int6", "lr": 0.5, "dropout": 0.25}
    for field in fields(Plan):
        if field.name in ("width", "depth"):  # of the network, which has a line of its own
            continue
        value = getattr(plan, field.name)
        other = others[field.name] if field.name in others else type(value)(value + 1)
        changed = replace(plan, **{field.name: other})
        words, before = (describe_plan(p, 0, teacher=Path("net")) for p in (changed, plan))
        assert words != before and changed.words(field.name) in words, field.name


def test_moved_images_train():
    trained, _ = train_small("bnn-theano", "cifar10", flip=True, shift=1)
    epochs = trained.histories[0].epochs
    assert epochs[-1].loss < epochs[0].loss


@pytest.mark.parametrize("name", ("speedrun", "ebp"))
def test_images_that_cannot_be_moved(name):
    kind = "cifar10" if name == "speedrun" else "mnist"
    with pytest.raises(ValueError, match=r"^\[train\] shift cannot be 1: .* images"):
        train_small(name, kind, shift=1)


@pytest.mark.parametrize(("kind", "size"), (("mnist", 16), ("cifar10", 8)))
def test_images_that_would_be_moved_away(kind, size):
    words = rf"^\[train\] shift cannot be {size}: the images have {size} x {size} pixels"
    with pytest.raises(ValueError, match=words):
        train_small("bnn-theano", kind, shift=size)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_gradients_are_rounded_where_that_changes_anything(name, kind):
    if name == "ebp":
        return
    if not any(stage.rounds for stage in find(name).setting(kind).stages):
        with pytest.raises(ValueError, match=r"gradients cannot be 'int6': this recipe multiplies"):
            train_small(name, kind, epochs=1, gradients="int6")
        return
    exact, rounded = (
        train_small(name, kind, epochs=1, gradients=gradients)[0].model.parameters()
        for gradients in ("float32", "int6")
    )
    assert any(not np.array_equal(a.value, b.value) for a, b in zip(exact, rounded, strict=True))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_activations_are_rounded_where_that_changes_anything(name, kind):
    if name not in ("binaryconnect", "bwn"):
        with pytest.raises(ValueError, match=r"round_activations cannot be True: this recipe"):
            train_small(name, kind, epochs=1, round_activations=True)
        return
    with pytest.raises(ValueError, match=r"round_activations cannot be True: gradients are not"):
        train_small(name, kind, epochs=1, round_activations=True)
    exact, rounded = (
        train_small(name, kind, epochs=1, gradients="int8", round_activations=rounds)[0].model
        for rounds in (False, True)
    )
    layers = [layer for layer in rounded.flat_layers() if hasattr(layer, "rounding")]
    assert layers
    assert all(layer.rounds_activations is True for layer in layers)
    assert not any(getattr(layer, "rounds_activations", False) for layer in exact.flat_layers())
    pairs = zip(exact.parameters(), rounded.parameters(), strict=True)
    assert any(not np.array_equal(a.value, b.value) for a, b in pairs)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_half_of_the_state(name, kind):
    if not any(stage.halves for stage in find(name).setting(kind).stages):
        with pytest.raises(ValueError, match=r"half_state cannot be True: this recipe is trained"):
            train_small(name, kind, epochs=1, half_state=True)
        return
    whole, half = (
        train_small(name, kind, epochs=1, half_state=halves)[0].model.parameters()
        for halves in (False, True)
    )
    different = [np.abs(a.value - b.value) for a, b in zip(whole, half, strict=True)]
    assert any(difference.any() for difference in different)
    clipped = [p for p in half if p.may_be_short]
    assert bool(clipped) == (name in ("bnn-theano", "binaryconnect", "speedrun", "bitwise", "demo"))
    for parameter in clipped:
        units = parameter.value * np.float32(32767 / parameter.clip_value)
        np.testing.assert_allclose(units, np.rint(units), atol=4e-3)


@pytest.mark.parametrize(("gradients", "bits"), (("int8", 8), ("int6", 6)))
def test_rounded_gradients(gradients, bits):
    trained, _ = train_small("bnn-theano", "mnist", gradients=gradients)
    layers = [layer for layer in trained.model.layers if isinstance(layer, BinaryDense)]
    assert len(layers) == 4
    assert all(layer.rounding.bits == bits for layer in layers)
    epochs = trained.histories[0].epochs
    assert epochs[-1].loss < epochs[0].loss
