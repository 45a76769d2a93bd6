"""Model files and checkpoints of earlier versions load and give the same bits; see old_files/."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors import safe_open
from safetensors.numpy import load_file

from bitops import BitArray, pack, unpack
from bitops.io import load
from bitops.training.callbacks import Callback
from old_files.trainings import TRAININGS, end_of, parameters

FOLDER = Path(__file__).parent / "old_files"
MODELS = sorted((FOLDER / "models").glob("version_*/*"))
CHECKPOINTS = sorted((FOLDER / "checkpoints").glob("version_*/*"))


def name_of(folder):
    return f"{folder.parent.name}-{folder.name}"


def read(path):
    """Description and tensors of a file, by safetensors alone."""
    with safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["bitops"])
        return description, {name: file.get_tensor(name) for name in file.keys()}


def assert_same(found, expected, what):
    """Same type and numbers; of zeros the sign may differ, which BLAS is free to choose."""
    assert found.dtype == expected.dtype, what
    assert_array_equal(found, expected, err_msg=what)


@pytest.mark.parametrize("folder", MODELS, ids=name_of)
def test_models_give_what_they_gave(folder):
    model = load(folder / "model.safetensors")
    results = load_file(folder / "results.safetensors")
    inputs = {name[6:]: x for name, x in results.items() if name.startswith("input.")}
    compared = 0
    for kind, values in inputs.items():
        x = pack(values) if kind == "bits" else values
        for place, layer in enumerate(model.layers):
            if f"{kind}.{place}" not in results:
                break
            x = layer(x)
            y = unpack(x) if isinstance(x, BitArray) else x
            assert_same(y, results[f"{kind}.{place}"], f"{kind}.{place} {layer!r}")
            compared += 1
    assert compared == len(results) - len(inputs) >= len(model.layers)
    whole = model(pack(inputs["bits"]))
    last = results[f"bits.{len(model.layers) - 1}"]
    assert_same(unpack(whole) if isinstance(whole, BitArray) else whole, last, "whole model")


@pytest.mark.parametrize("folder", MODELS, ids=name_of)
def test_models_keep_their_content(folder, tmp_path):
    """Saved again, files of the present format are the same; those of others keep their arrays."""
    load(folder / "model.safetensors").save(tmp_path / "model")
    old, tensors = read(folder / "model.safetensors")
    new, again = read(tmp_path / "model")
    assert tensors.keys() == again.keys()
    for name, array in tensors.items():
        assert again[name].dtype == array.dtype
        assert again[name].tobytes() == array.tobytes()
    if old["version"] == new["version"]:
        assert new == old


def kinds_in(graph):
    for spec in graph:
        yield spec["type"]
        for branch in ("body", "shortcut"):
            yield from kinds_in(spec.get(branch) or [])


def test_every_kind_of_layer_is_in_a_file():
    found = set()
    for folder in MODELS:
        found |= set(kinds_in(read(folder / "model.safetensors")[0]["graph"]))
    assert found >= KINDS


KINDS = {
    *("PackedDense", "PackedConv2D", "PackedPlanesDense", "PackedPlanesConv2D", "FloatDense"),
    *("FloatConv2D", "PackedBatchNorm", "PackedSign", "PackedQuantize", "PackedLevels"),
    *("PackedReLU", "PackedTanh", "PackedMaxPool2D", "PackedAvgPool2D", "PackedGlobalAvgPool2D"),
    *("PackedFlatten", "PackedResidual"),
}


def plain(state):
    """The state of a bit generator as JSON has it."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


class Look(Callback):
    """Ends a resumed training before its first step, and compares it with the checkpoint."""

    def __init__(self, path):
        self.description, self.tensors = read(path)

    def on_start(self, run):
        numbered = {
            f"model.{i}": array
            for i, array in enumerate(parameters(run.model.flat_layers(), "").values())
        }
        optimizer = {f"optimizer.{name}": x for name, x in run.optimizer.state().items()}
        signs = {f"signs.{i}": bits.words for i, bits in enumerate(run.signs)}
        found = {**numbered, **optimizer, **signs, "order": run.order}
        assert found.keys() == {name for name in self.tensors if not name.startswith("best.")}
        for name, array in found.items():
            assert_same(array, self.tensors[name], name)
        generators = [run.rng, *run.model.generators()]
        states = [plain(generator.bit_generator.state) for generator in generators]
        assert states == self.description["generators"]
        later = {"validation_loss": None, "metrics": {}}  # results that came after the first files
        written = [{**later, **epoch} for epoch in self.description["history"]]
        assert [asdict(epoch) for epoch in run.history.epochs] == written
        position = self.description["position"]
        assert {name: getattr(run.position, name) for name in position} == position
        assert 0 < run.batch < run.batches
        run.stop = True


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=name_of)
def test_checkpoints_are_restored(folder):
    training = TRAININGS[folder.name]
    path = folder / "checkpoint.safetensors"
    look, model = Look(path), training.model(9)
    history = training.fit(model, resume=path, callbacks=[look])
    # a training that ends leaves the best weights, or the last ones if nothing was validated
    number = look.description["best"]
    kept = "model" if history.best.validation_error is None else "best"
    assert history.best is history.epochs[number - 1]
    for i, (name, array) in enumerate(parameters(model.flat_layers(), kept).items()):
        assert_same(array, look.tensors[f"{kept}.{i}"], name)


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=name_of)
def test_resumed_trainings_end_as_they_did(folder):
    training = TRAININGS[folder.name]
    expected = load_file(folder / "results.safetensors")
    model = training.model(9)
    history = training.fit(model, resume=folder / "checkpoint.safetensors")
    found = end_of(model, history, training.data[0])
    assert found.keys() == expected.keys()
    assert len(found["end.epochs"]) == training.options.get("epochs", 3)
    for name, array in found.items():
        assert (array.shape, array.dtype) == (expected[name].shape, expected[name].dtype)
        if training.tolerance is None:
            assert np.isfinite(array).all(), name
        elif name == "end.epochs":  # learning rates are powers, of libm
            assert_allclose(array, expected[name], rtol=max(training.tolerance, 1e-12))
        else:
            limits = {"rtol": training.tolerance, "atol": training.tolerance}
            assert_allclose(array, expected[name], **limits, err_msg=name)


def test_most_trainings_are_compared_to_the_end():
    exact = [name for name, training in TRAININGS.items() if training.tolerance == 0]
    assert len(exact) >= 9 and {folder.name for folder in CHECKPOINTS} == set(TRAININGS)
