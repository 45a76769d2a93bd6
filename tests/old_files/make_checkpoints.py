"""Interrupt the trainings of `trainings.py`, and write checkpoints and what they lead to.

    cd tests; python -m old_files.make_checkpoints FOLDER [NAME ...]

The set in checkpoints/ was made by this program with the code of the commit that README.md names.
It is never made anew; a new format gets a new set.
"""

import sys
from pathlib import Path

import safetensors.numpy
from safetensors import safe_open

from bitops.training.callbacks import Callback
from bitops.training.checkpoint import Checkpoint
from old_files.trainings import TRAININGS, end_of, parameters


class Stop(Callback):
    """Ends the training after a step, amid an epoch, and keeps the parameters."""

    def __init__(self, step):
        self.step = step

    def on_batch(self, run):
        if run.step == self.step:
            assert 0 < run.batch < run.batches
            run.stop = True

    def on_end(self, run):  # after the checkpoint was written, for which weights are centred
        self.found = parameters(run.model.flat_layers(), "end")


def check_order(path, name, found):
    """Check that a checkpoint holds what was found, in this order."""
    with safe_open(path, framework="numpy") as file:
        for i, array in enumerate(found.values()):
            assert file.get_tensor(f"{name}.{i}").tobytes() == array.tobytes()


def make(name, place):
    training = TRAININGS[name]
    x = training.data[0]
    path = place / "checkpoint.safetensors"
    stop, broken = Stop(training.step), training.model(0)
    training.fit(broken, callbacks=[Checkpoint(path, every=1000), stop])
    check_order(path, "model", stop.found)
    if "validation" in training.options:
        check_order(path, "best", parameters(broken.flat_layers(), "end"))
    resumed, whole = training.model(9), training.model(0)
    end = end_of(resumed, training.fit(resumed, resume=path), x)
    without_a_break = end_of(whole, training.fit(whole), x)
    assert all(end[key].tobytes() == without_a_break[key].tobytes() for key in end)
    moved = [key for key in stop.found if (stop.found[key] != end[key]).any()]
    print(name, f"{len(moved)} of {len(stop.found)} arrays still change;", end["end.epochs"][-1])
    safetensors.numpy.save_file(end, place / "results.safetensors")


if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    for name in names or TRAININGS:
        place = Path(folder) / name
        place.mkdir(parents=True)  # a set is written once
        make(name, place)
