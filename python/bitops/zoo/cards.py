"""The networks of the zoo and their cards, as files of this folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from ..layers import Packed

__all__ = ["FOLDER", "SAMPLES", "Card", "card", "load", "names", "samples"]

FOLDER = Path(__file__).parent
SAMPLES = "samples.safetensors"  # a few test images of each data set, by its name


@dataclass(frozen=True)
class Card:
    """How a network of the zoo was trained, and what it reaches.

    Attributes
    ----------
    name, title : str
    net : str
        Its layers in words, such as 784-1024-10.
    command : str
        That trained it, without the folder of the data.
    minutes : float
        Of one core, for the training.
    data : str
        The data set.
    weights : str
        Kind of weights and activations.
    test_error : float
        Share of the test images that it classifies wrongly.
    test_images : int
    packed_bytes : int
        Of packed weights, thresholds and scales.
    images_per_second : int
        In batches of 100 on one thread of `machine`.
    machine : str
    sha256 : str
        Of the model file.
    samples : str
        The data set of `samples(name)`.
    predictions : tuple of int
        Its labels for them.

    Examples
    --------
    >>> card("mnist-mlp").name
    'mnist-mlp'
    """

    name: str
    title: str
    net: str
    command: str
    minutes: float
    data: str
    weights: str
    test_error: float
    test_images: int
    packed_bytes: int
    images_per_second: int
    machine: str
    sha256: str
    samples: str
    predictions: tuple[int, ...]


def names() -> tuple[str, ...]:
    """List the networks.

    Returns
    -------
    tuple of str
        In alphabetical order.

    Examples
    --------
    >>> "mnist-mlp" in names()
    True
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def load(name: str) -> Packed:
    """Load a network.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    Packed
        It takes uint8 images ``(n, *input_shape)``, those of MNIST as 0 background and 255 ink.

    Raises
    ------
    ValueError
        If there is no network of this name.

    Examples
    --------
    >>> from bitops import zoo
    >>> packed = zoo.load("mnist-mlp")
    >>> images = zoo.samples("mnist-mlp")
    >>> packed.predict(images).tolist() == list(zoo.card("mnist-mlp").predictions)
    True
    """
    return Packed.load(_path("load", name, ".safetensors"))


def card(name: str) -> Card:
    """Read the card of a network.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    Card

    Raises
    ------
    ValueError
        If there is no network of this name.

    Examples
    --------
    >>> print(card("mnist-mlp").command)
    bitops train bnn-theano --width 1024 --epochs 20 --dropout 0 --seed 0
    """
    fields = json.loads(_path("card", name, ".json").read_text(encoding="utf-8"))
    return Card(**{**fields, "predictions": tuple(fields["predictions"])})


def samples(name: str) -> np.ndarray:
    """Return a few test images in the form that a network takes.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    ndarray of shape ``(n, *input_shape)``, uint8

    Raises
    ------
    ValueError
        If there is no network of this name.

    Examples
    --------
    >>> samples("mnist-mlp").dtype
    dtype('uint8')
    """
    packed = load(name)
    images = load_file(FOLDER / SAMPLES)[card(name).samples]
    shape = packed.input_shape
    assert shape is not None  # every network of the zoo knows it
    return images.reshape(len(images), *shape)


def _path(where: str, name: str, ending: str) -> Path:
    known = names()
    if name not in known:
        raise ValueError(f"[{where}] name must be one of {', '.join(known)}, got {name!r:.80}")
    return FOLDER / f"{name}{ending}"
