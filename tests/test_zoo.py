"""The networks that come with the package: their files, their cards, and what they reach."""

import hashlib
import os
from dataclasses import fields
from functools import lru_cache

import numpy as np
import pytest

from bitops import io, zoo
from bitops.cli import main as cli
from bitops.data import load_dataset
from bitops.layers import Packed
from bitops.recipes import find
from bitops.recipes.base import inputs
from bitops.zoo.cards import FOLDER, SAMPLES
from commands import usage_error

MOST_BYTES = 5_000_000  # of all files together
DATA = {"mnist": "BITOPS_MNIST", "cifar10": "BITOPS_CIFAR10"}

each = pytest.mark.parametrize("name", zoo.names())


def test_names():
    assert list(zoo.names()) == sorted(zoo.names())
    lenets = {"mnist-bwn-lenet5", "mnist-xnor-lenet5"}
    assert set(zoo.names()) >= {"mnist-mlp", "cifar10-convnet", "cifar10-speedrun"} | lenets


def test_folder_holds_networks_and_cards_alone():
    files = {path.name for path in FOLDER.iterdir() if path.suffix not in {".py", ".pyc", ""}}
    expected = {f"{name}{ending}" for name in zoo.names() for ending in (".json", ".safetensors")}
    assert files == expected | {SAMPLES}
    assert sum((FOLDER / name).stat().st_size for name in files) <= MOST_BYTES


@each
def test_file_is_that_of_the_card(name):
    card, packed = zoo.card(name), zoo.load(name)
    data = (FOLDER / f"{name}.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == card.sha256
    assert card.name == name
    assert card.packed_bytes == packed.nbytes
    assert packed.notes["preprocessing"] == "pixels"
    recipe = find(packed.notes["recipe"])
    assert card.command.startswith(f"bitops train {recipe.name} ")
    assert "--seed" in card.command
    assert card.weights == recipe.tested
    assert card.title.isascii()


@each
def test_predictions_are_those_of_the_card(name):
    card, packed, images = zoo.card(name), zoo.load(name), zoo.samples(name)
    assert isinstance(packed, Packed)
    assert images.dtype == np.uint8
    assert images.shape[1:] == packed.input_shape
    assert len(set(map(bytes, images))) == len(images) == len(card.predictions)
    assert tuple(packed.predict(images)) == card.predictions
    # images are one of each class, in order
    right = np.mean(np.array(card.predictions) == np.arange(len(images)))
    assert right >= 1 - 3 * card.test_error - 0.1


@lru_cache(maxsize=1)
def data_of(kind):
    folder = os.environ.get(DATA[kind])
    if not folder:
        pytest.skip(f"set {DATA[kind]} to a folder with the data set")
    found, data = load_dataset(folder)
    assert found == kind
    return data


@pytest.mark.parametrize("name", sorted(zoo.names(), key=lambda name: zoo.card(name).samples))
def test_error_is_that_of_the_card(name):
    card = zoo.card(name)
    data = data_of(card.samples)
    if card.data not in ("MNIST", data.name):
        pytest.skip(f"the figure is for {card.data}")
    packed = zoo.load(name)
    x = inputs(packed, data, data.x_test)
    assert len(x) == card.test_images
    # float32 layers round as the BLAS at hand does, which may tip an image
    tipped = 0 if card.weights.startswith("binary") else 2
    wrong = round(packed.error_rate(x, data.y_test) * len(x))
    assert abs(wrong - round(card.test_error * len(x))) <= tipped
    assert all((data.images(x) == image).all(axis=(1, 2, 3)).any() for image in sample_images(name))


def sample_images(name):
    images = zoo.samples(name)
    return images.reshape(len(images), 28, 28, 1) if images.ndim == 2 else images


@pytest.mark.parametrize("function", [zoo.load, zoo.card, zoo.samples])
@pytest.mark.parametrize("name", ["mnist", "../zoo/mnist-mlp", None])
def test_unknown_name(function, name):
    with pytest.raises(ValueError, match=r"name must be one of .*mnist-mlp.*, got"):
        function(name)


def test_command_lists_the_zoo(capsys):
    assert cli.main(["zoo"]) == 0
    out = capsys.readouterr().out
    for name in zoo.names():
        (line,) = (line for line in out.splitlines() if line.startswith(f"{name} "))
        assert f"{zoo.card(name).test_error:.2%}" in line


def test_command_shows_a_card_and_writes_the_network(capsys, tmp_path):
    path = tmp_path / "net.safetensors"
    assert cli.main(["zoo", "mnist-mlp", "--save", str(path)]) == 0
    out = capsys.readouterr().out
    card = zoo.card("mnist-mlp")
    assert card.command in out
    assert all(field.name.split("_")[0] in out for field in fields(card) if field.name == "sha256")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card.sha256
    assert io.load(path).notes["recipe"] == "bnn-theano"


def test_wrong_usage(capsys):
    assert "NAME must be one of" in usage_error(capsys, "zoo", "mnist")
    assert "--save needs" in usage_error(capsys, "zoo", "--save", "net.safetensors")
