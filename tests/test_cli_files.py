"""Files that commands read and write: tried first, replaced only if asked, shown as they are."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from bitops.cli import arguments
from bitops.cli import main as cli
from bitops.data import load_mnist
from bitops.layers import Packed, PackedDense
from bitops.models import mlp
from bitops.recipes.plan import GRADIENTS
from bitops.recipes.preprocess import STEPS
from bitops.training.log import read_log
from bitops.training.options import SCHEDULES
from commands import failure, usage_error, write_idx

SMALL = ("--epochs", "3", "--width", "32", "--batch", "20", "--dropout", "0", "--quiet")


@pytest.fixture
def folder(tmp_path):
    """A folder of MNIST's four files, of 4 x 4 pixels in two brightnesses."""
    path = tmp_path / "tiles"
    path.mkdir()
    for part, count in (("train", 120), ("t10k", 40)):
        labels = np.arange(count) % 4
        images = (
            np.random.default_rng(count).integers(0, 60, (count, 4, 4)) + 60 * labels[:, None, None]
        )
        write_idx(path / f"{part}-images-idx3-ubyte", images.clip(0, 255))
        write_idx(path / f"{part}-labels-idx1-ubyte", labels)
    return path


def test_existing_files_are_not_replaced_unasked(capsys, folder, tmp_path):
    checkpoint, log = tmp_path / "run.ckpt", tmp_path / "run.csv"
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL]
    keep = ["--checkpoint", str(checkpoint), "--log", str(log)]
    assert cli.main([*argv, *keep]) == 0
    capsys.readouterr()
    before = checkpoint.read_bytes(), log.read_bytes()
    message = usage_error(capsys, *argv, "--checkpoint", str(checkpoint))
    assert "--checkpoint: go on with --resume or replace it with --overwrite, " in message
    for option in ("--log", "--save"):
        message = usage_error(capsys, *argv, option, str(log))
        assert f"{option}: replace it with --overwrite, " in message and message.endswith("exists")
    message = usage_error(capsys, *argv, *keep, "--resume", "--overwrite")
    assert "not allowed with argument --resume" in message
    # a checkpoint that is not there yet, by a slip, beside a log that is
    slip = ["--checkpoint", str(tmp_path / "rum.ckpt"), "--log", str(log)]
    message = usage_error(capsys, *argv, *slip, "--resume")
    assert "--log: there is no checkpoint" in message and "replace it with --overwrite" in message
    assert (checkpoint.read_bytes(), log.read_bytes()) == before
    assert cli.main([*argv, *keep, "--overwrite", "--seed", "3"]) == 0
    assert checkpoint.read_bytes() != before[0] and len(read_log(log)) == 3
    empty = tmp_path / "empty.ckpt"
    empty.touch()  # as mktemp makes them
    assert cli.main([*argv, "--checkpoint", str(empty)]) == 0


def test_files_of_stages_are_not_replaced_unasked(capsys, folder, tmp_path):
    argv = ["train", "ternary", "--data", str(folder), *SMALL, "--log", str(tmp_path / "run.csv")]
    (tmp_path / "run.2.csv").write_text("mine")
    assert "run.2.csv exists" in usage_error(capsys, *argv)
    assert (tmp_path / "run.2.csv").read_text() == "mine"


def test_a_training_that_is_refused_changes_nothing(capsys, folder, tmp_path):
    run = tmp_path / "run"
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL, "--run", str(run)]
    assert cli.main(argv) == 0

    def content():
        return {path.name: path.read_bytes() for path in run.iterdir()}

    before = content()
    assert b'"test_error": 0.' in before["run.json"]
    capsys.readouterr()
    for refuse, change, message in (
        (failure, ["--resume", "--seed", "5"], "seed is 0 there and 5 here"),
        (failure, ["--resume", "--width", "40"], "layer 0 is"),
        (failure, ["--resume", "--epochs", "2"], "epochs must be at least 3, got 2"),
        (usage_error, [], "--run: go on with --resume or replace it with --overwrite"),
    ):
        assert message in refuse(capsys, *argv, *change)
        assert content() == before
    argv[1] = "ebp"
    message = usage_error(capsys, *argv, "--overwrite", "--shift", "1")
    assert "argument --shift: not allowed with ebp: this recipe cannot move images" in message
    assert content() == before
    argv[1] = "bnn-theano"
    for name in ("checkpoint.safetensors", "log.csv"):  # until the model alone is there
        (run / name).unlink()
        before = content()
        assert "there is no checkpoint" in usage_error(capsys, *argv, "--resume")
        assert "--run: replace it with --overwrite, " in usage_error(capsys, *argv)
        assert content() == before


def test_names_that_the_output_lacks(folder, tmp_path):
    """They are escaped, and end no training."""
    named = folder.rename(tmp_path / "b\u00e4ren")
    argv = ["train", "bnn-theano", "--data", str(named), *SMALL, "--run", str(tmp_path / "\u00e4")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "bitops", *argv]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert rb"data     b\xe4ren: " in done.stdout and rb"\xe4" in done.stdout.splitlines()[-1]


def test_each_file_has_its_own_path(capsys, folder, tmp_path):
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL]
    path, link = str(tmp_path / "run.csv"), tmp_path / "link"
    link.symlink_to(path)
    for options in (
        ("--save", path, "--checkpoint", path),
        ("--checkpoint", path, "--log", path),
        ("--save", str(link), "--log", path),
    ):
        assert "must be a file of its own" in usage_error(capsys, *argv, *options)
    argv[1] = "ternary"
    options = ("--save", str(tmp_path / "run.2.csv"), "--log", path)
    assert "--log: must be a file of its own" in usage_error(capsys, *argv, *options)


def test_ended_before_the_first_checkpoint(capsys, folder, tmp_path):
    """The log has a row, and the training starts anew."""
    checkpoint, log = tmp_path / "run.ckpt", tmp_path / "run.csv"
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL]
    keep = ["--checkpoint", str(checkpoint), "--log", str(log)]

    def crash(self, run):
        raise OSError("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitops.training.checkpoint.Checkpoint.on_epoch", crash)
        assert cli.main([*argv, *keep]) == 1
    assert len(read_log(log)) == 1 and not checkpoint.exists()
    assert cli.main([*argv, *keep, "--resume"]) == 0
    assert [row["epoch"] for row in read_log(log)] == [1, 2, 3]


def test_output_is_tried_before_the_training(capsys, folder, tmp_path):
    argv = ["train", "bnn-theano", "--data", str(folder), *SMALL]
    (tmp_path / "folder.csv").mkdir()
    for option in ("--save", "--checkpoint", "--log"):
        assert "no such directory" in usage_error(capsys, *argv, option, "no/such/place.csv")
        message = usage_error(capsys, *argv, option, str(tmp_path / "folder.csv"))
        assert "Is a directory" in message
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", refuse_new_files(os.open))
            message = usage_error(capsys, *argv, option, str(tmp_path / "new.csv"))
        assert "Read-only file system" in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.csv", "tiles"]


def refuse_new_files(opens):
    def refuse(path, flags, *rest, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opens(path, flags, *rest, **options)

    return refuse


@pytest.mark.parametrize(
    "note",
    [
        "\x1b]0;PWNED\x07\x1b[31m\nerror    0.00%\r",
        "\ud800",
        "\u202e" + "x" * 10**6,
        "\u2028error 0",
    ],
)
def test_notes_of_a_stranger_forge_no_output(capsys, folder, tmp_path, note):
    path = tmp_path / "net.safetensors"
    packed = mlp(16, 8, 1, 4, seed=0).freeze()
    packed.notes = {"recipe": note}
    packed.save(path)
    assert cli.main(["eval", str(path), "--data", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "data", "error", "speed"]
    assert all(line.isprintable() and len(line) < 500 for line in lines)
    packed.notes = {"preprocessing": note}
    packed.save(path)
    message = failure(capsys, "eval", str(path), "--data", str(folder))
    assert "the note preprocessing of a model must be one of" in message
    assert message.isprintable() and len(message) < 500


def test_choices_are_those_of_the_recipes():
    assert tuple(STEPS) == arguments.PREPROCESSING
    assert ("float32", *GRADIENTS) == arguments.GRADIENTS
    assert set(SCHEDULES) - set(arguments.SCHEDULES) == {"halving"}


def test_preprocessing_of_eval(capsys, folder, tmp_path):
    data, path = load_mnist(folder), tmp_path / "net.safetensors"
    weights = np.random.default_rng(0).choice([-1, 1], (4, 16))
    bias = -np.median(data.x_train.reshape(-1, 16) / 255 @ weights.T, axis=0)
    packed = Packed(PackedDense(weights, alpha=np.ones(4), bias=bias), input_shape=(16,))
    packed.save(path)
    x = data.x_test.reshape(-1, 16)
    raw = packed.error_rate(x, data.y_test)
    scaled = packed.error_rate(x / np.float32(255), data.y_test)
    assert raw != scaled  # else the test says nothing
    argv = ["eval", str(path), "--data", str(folder)]
    for options, note, error, is_warned in (
        ([], None, raw, True),
        (["--preprocessing", "zero_one"], None, scaled, False),
        ([], "zero_one", scaled, False),
        (["--preprocessing", "pixels"], "zero_one", raw, False),
    ):
        packed.notes = {} if note is None else {"preprocessing": note}
        packed.save(path)
        assert cli.main([*argv, *options]) == 0
        streams = capsys.readouterr()
        assert f"error    {error:.2%}" in streams.out
        assert ("the file names no preprocessing; raw pixels" in streams.err) == is_warned
    assert "invalid choice: 'sepia'" in usage_error(capsys, *argv, "--preprocessing", "sepia")


def test_eval_of_a_model_that_ends_in_bits(capsys, folder, tmp_path):
    path = tmp_path / "net.safetensors"
    Packed(PackedDense(np.ones((4, 16)), np.zeros(4, int))).save(path)
    message = failure(capsys, "eval", str(path), "--data", str(folder))
    assert "[eval] the model must be one for tiles: " in message and "ends in bits" in message
