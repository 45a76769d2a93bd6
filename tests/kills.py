"""Trainings that are killed at random moments, resumed, and compared with one that is not.

    python tests/kills.py [--kills 200] [--seed N]

Children of this process train a small network, with a checkpoint every second step, a log, and a
model file after every epoch, and get SIGKILL. After each kill whatever files there are must be
whole; the next child resumes from them, and is killed too, until one comes to its end. Then model,
checkpoint and log must be, but for the times in them, bit for bit those of the training that was
not interrupted, and nothing else may be in the folder. Prints counts; ends with status 1 at the
first difference. Needs os.fork.
"""

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import bitops as bo
from bitops import io
from bitops.files.tensors import open_tensors
from bitops.models import mlp
from bitops.recipes.base import Files, file_options
from bitops.training.callbacks import Callback
from bitops.training.checkpoint import Checkpoint
from bitops.training.log import read_log
from bitops.training.run import Run

LEFT = re.compile(r"\.(run\.ckpt|run\.csv|net)\.[0-9a-f]{16}\.tmp")
NAMES = {"run.ckpt", "run.csv", "net"}
EPOCHS = 5


class Save(Callback):
    """Writes a model file after every epoch."""

    def __init__(self, path: Path):
        self.path = path

    def on_epoch(self, run: Run) -> None:
        io.save(run.model.freeze(), self.path)  # type: ignore[attr-defined]


def train(folder: Path) -> None:
    """Train as `bitops train --resume` does: from the checkpoint, if there is one."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(256, size=(160, 200), dtype=np.uint8), rng.integers(4, size=160)
    model = mlp(200, 128, 2, 4, seed=0, dropout=0.1)
    files = Files(folder / "run.ckpt", folder / "run.csv", resume=True)
    options = file_options(files)
    for callback in options["callbacks"]:
        if isinstance(callback, Checkpoint):
            callback.steps = 2
    options["callbacks"].append(Save(folder / "net"))
    model.fit(
        *(x, y), epochs=EPOCHS, batch_size=20, validation=(x[:40], y[:40]), verbose=0, **options
    )
    io.save(model.freeze(), folder / "net")


def start(folder: Path) -> int:
    """Fork a child that trains, and return its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        train(folder)
        status = 0
    except BaseException as error:
        print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def result(folder: Path) -> tuple[object, ...]:
    """Everything that a training has written, but for times and sums of them."""
    with open_tensors(folder / "run.ckpt", "bitops.checkpoint") as file:
        tensors = {name: array.tobytes() for name, array in file.read().items()}
        description = file.description
    del description["sha256"], description["position"]["seconds"]
    for epoch in description["history"]:
        del epoch["seconds"]
    rows = [{**row, "seconds": None} for row in read_log(folder / "run.csv")]
    return tensors, description, rows, (folder / "net").read_bytes()


def check(folder: Path, counts: Counter) -> None:
    """Whatever the moment of a kill was: files are whole, and only known ones are there."""
    names = set(os.listdir(folder))
    left = {name for name in names if LEFT.fullmatch(name)}
    assert names - left <= NAMES, names
    counts["left a partial file"] += bool(left)
    counts["came before the first checkpoint"] += "run.ckpt" not in names
    if "run.ckpt" in names:
        with open_tensors(folder / "run.ckpt", "bitops.checkpoint") as file:
            file.read()
    if "net" in names:
        io.load(folder / "net")
    if "run.csv" in names:
        epochs = [row["epoch"] for row in read_log(folder / "run.csv")]
        assert epochs == list(range(1, len(epochs) + 1)), epochs
        text = (folder / "run.csv").read_bytes()
        assert not text or text.endswith(b"\n"), "half a row"


def stress(kills: int, seed: int) -> Counter:
    """Kill trainings until there were enough kills."""
    rng, counts = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        whole.mkdir()
        began = time.perf_counter()
        assert os.waitpid(start(whole), 0)[1] == 0, "the training fails by itself"
        length, wanted = time.perf_counter() - began, result(whole)
        while counts["kills"] < kills:
            folder = Path(place) / f"{counts['trainings']}"
            folder.mkdir()
            while True:
                child = start(folder)
                time.sleep(0.8 * length * rng.random() * rng.random())  # early ones too
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                if not os.WIFSIGNALED(status):
                    assert status == 0, "a resumed training fails"
                    break
                counts["kills"] += 1
                check(folder, counts)
            counts["trainings"] += 1
            assert set(os.listdir(folder)) == NAMES, os.listdir(folder)
            assert result(folder) == wanted, "a resumed training differs"
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    bo.set_num_threads(1)  # forked children may not use threads of their parent
    began = time.perf_counter()
    counts = stress(args.kills, args.seed)
    print(
        f"{counts['kills']} kills of {counts['trainings']} trainings in "
        f"{time.perf_counter() - began:.0f} s, {counts['left a partial file']} left a partial "
        f"file, {counts['came before the first checkpoint']} came before the first checkpoint; "
        "all files whole, all results equal, nothing left behind"
    )


if __name__ == "__main__":
    main()
