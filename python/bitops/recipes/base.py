"""What a recipe consists of: numbers, stages, nets, preprocessing, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data.datasets import Dataset
from ..layers import Packed, Sequential
from ..training.callbacks import Callback, History, Loss
from ..training.checkpoint import Checkpoint
from ..training.log import Log
from ..training.loop import fit
from ..training.losses import squared_hinge
from ..training.optim import Optimizer
from ..training.schedules import Schedule

DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "svhn": "SVHN"}


@dataclass(frozen=True)
class Plan:
    """The numbers of one training, which the options of the command override."""

    width: int  # units of a hidden layer, or channels of the first convolution
    epochs: int  # of each stage
    batch: int
    lr: float  # of the first epoch
    dropout: float = 0.0  # behind hidden layers
    byte_gradients: bool = False  # backward products of binary layers with gradients of 8 bits


@dataclass(frozen=True)
class Files:
    """Files that a training writes, and whether it goes on from its checkpoint.

    Of several stages each has files of its own: run.csv becomes run.1.csv, run.2.csv.
    """

    checkpoint: Path | None = None
    log: Path | None = None
    resume: bool = False

    def of_stage(self, number: int, stages: int) -> Files:
        if stages == 1:
            return self

        def own(path: Path | None) -> Path | None:
            return path and path.with_suffix(f".{number}{path.suffix}")

        return Files(own(self.checkpoint), own(self.log), self.resume)


def describe(model: Sequential) -> str:
    """The layers in words: 784-1024-10, or 20C5-P2-50C5-P2-500-10."""
    words = []
    for layer in model.flat_layers():
        windows = getattr(getattr(layer, "operation", layer), "windows", None)
        if windows is not None:
            size = windows.kernel_size[0]
            words.append(
                f"P{size}" if layer.out_features is None else f"{layer.out_features}C{size}"
            )
        elif hasattr(layer, "weight"):
            words.append(str(layer.out_features))
    inputs = model.input_shape
    return "-".join([*map(str, inputs if inputs and len(inputs) == 1 else ()), *words])


class Training(Protocol):
    """What makes a trained network: a `Stage`, or a trainer of its own."""

    @property
    def name(self) -> str:
        """For the output."""

    def train(
        self,
        data: Dataset,
        plan: Plan,
        seed: int,
        previous: Sequential | None,
        files: Files,
        verbose: int,
        say: Callable[[str], object],
    ) -> tuple[Sequential, History]:
        """The network, with the weights of its best epoch, and how that went."""


@dataclass(frozen=True)
class Stage:
    """One training of one network by its gradients; most recipes have a single stage.

    Parameters
    ----------
    build : callable (data, plan, seed, previous) -> Sequential
        Makes the network; `previous` is that of the stage before, None in the first.
    optimizer : callable (model, lr) -> Optimizer
    schedule : callable (lr) -> Schedule
        For a run of any length.
    loss : callable (scores, labels) -> (value, gradient)
    name : str
        For the output, where there are several.
    """

    build: Callable[[Dataset, Plan, int, Sequential | None], Sequential]
    optimizer: Callable[[Sequential, float], Optimizer]
    schedule: Callable[[float], Schedule]
    loss: Loss = squared_hinge
    name: str = "training"

    def train(
        self,
        data: Dataset,
        plan: Plan,
        seed: int,
        previous: Sequential | None,
        files: Files,
        verbose: int,
        say: Callable[[str], object],
    ) -> tuple[Sequential, History]:
        model = self.build(data, plan, seed, previous)
        say(f"net      {describe(model)}")
        if plan.byte_gradients:
            model.round_gradients(seed)
        history = fit(
            model,
            inputs(model, data, data.x_train),
            data.y_train,
            epochs=plan.epochs,
            batch_size=plan.batch,
            validation=(inputs(model, data, data.x_validation), data.y_validation),
            schedule=self.schedule(plan.lr),
            optimizer=self.optimizer(model, plan.lr),
            loss=self.loss,
            seed=seed,
            verbose=verbose,
            **file_options(files),
        )
        return model, history


def inputs(model: Sequential | Packed, data: Dataset, x: np.ndarray) -> np.ndarray:
    """Images of a data set as a model takes them: as images, or as rows."""
    if model.input_shape is not None and len(model.input_shape) == 3:
        return data.images(x)
    return x.reshape(len(x), -1)


def file_options(files: Files) -> dict[str, Any]:
    """Arguments of `fit` for the files."""
    callbacks: list[Callback] = []
    if files.log is not None:
        callbacks.append(Log(files.log))
    if files.checkpoint is not None:
        callbacks.append(Checkpoint(files.checkpoint))
    # a stage that the interrupted training had not reached has no checkpoint yet
    resumes = files.resume and files.checkpoint is not None and files.checkpoint.exists()
    return {"callbacks": callbacks, "resume": files.checkpoint if resumes else None}


@dataclass(frozen=True)
class Setting:
    """A recipe on one data set.

    Parameters
    ----------
    plan : Plan
        As published.
    quick : mapping
        What a short training on a laptop changes in it.
    stages : tuple of Stage or other Training
    preprocessing : str
        Name of one of `preprocess.STEPS`.
    published : str
        Test error in percent that the source reports; "" where it has none.
    input_dropout : float
        Dropout of the inputs, as a multiple of that of hidden layers.
    """

    plan: Plan
    stages: tuple[Training, ...]
    quick: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: str = "pixels"
    published: str = ""
    input_dropout: float = 0.0

    def resolve(self, quick: bool = False, **given: Any) -> Plan:
        """The published numbers, or those of a short training, changed to those given."""
        chosen = dict(self.quick) if quick else {}
        chosen |= {name: value for name, value in given.items() if value is not None}
        return replace(self.plan, **chosen)

    def preprocessing_of(self, plan: Plan) -> str:
        """A dropped input is 0, which is grey where pixels are in [-1, 1], as in the programs."""
        if self.input_dropout and plan.dropout and self.preprocessing == "pixels":
            return "unit"
        return self.preprocessing


@dataclass(frozen=True)
class Recipe:
    """A published way to train a network.

    Parameters
    ----------
    name : str
        As the command takes it.
    title : str
        What it is, in a few words.
    paper, code : str
        Where it comes from; code is "" where none was released.
    settings : mapping of str to Setting
        By the kind of data set: "mnist", "cifar10", "svhn".
    tested : str
        With which weights and activations the test error is measured.
    notes : str
        Where it differs from its source.
    """

    name: str
    title: str
    paper: str
    code: str
    settings: Mapping[str, Setting]
    tested: str = "binary weights and activations"
    notes: str = ""

    def setting(self, kind: str) -> Setting:
        """The setting for a data set, or an error that lists those there are."""
        if kind not in self.settings:
            known = ", ".join(DATASETS[k] for k in self.settings)
            raise ValueError(f"[{self.name}] the data must be {known}, got {DATASETS[kind]}")
        return self.settings[kind]
