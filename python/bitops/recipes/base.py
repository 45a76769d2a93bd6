"""Parts of a recipe: its numbers, stages, settings for each data set, and its sources."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ..data.datasets import Dataset
from ..files import notes
from ..layers import Layer, Packed, Sequential
from ..layers.model_files import is_model_file
from ..training.callbacks import Callback
from ..training.checkpoint import Checkpoint, start_from
from ..training.log import Log, read_log
from ..training.loop import fit
from ..training.losses import Distillation, squared_hinge
from ..training.optim import Optimizer
from ..training.packed_start import start_from_packed
from ..training.run import Augment, History, Loss
from ..training.schedules import Schedule
from .augmented import Moved
from .plan import GRADIENTS, Plan
from .preprocess import makes_inputs

if TYPE_CHECKING:
    from .teacher import Lessons

__all__ = [
    "DATASETS",
    "Files",
    "Job",
    "Recipe",
    "Setting",
    "Stage",
    "Training",
    "describe",
    "file_options",
    "inputs",
    "validation_of",
]

DATASETS = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR-10", "svhn": "SVHN"}
# Whose setting serves images of one's own, from the one that suits best.
GREY, COLOR = ("mnist", "cifar10", "svhn"), ("cifar10", "svhn", "mnist")

CHECKPOINT_STEPS = 1000  # an epoch of a large network takes many minutes
HALF_STATE = {"moment_bits": 16, "weight_bits": 16}  # of an Adam
STATISTICS_ROWS = 2000  # by which a packed network gets its statistics back


@dataclass(frozen=True)
class Files:
    """Files that a training writes, and whether it goes on from its checkpoint.

    Each of several stages has files of its own: run.csv becomes run.1.csv, run.2.csv. With
    `overwrite` it replaces files of other trainings.
    """

    checkpoint: Path | None = None
    log: Path | None = None
    resume: bool = False
    overwrite: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.resume and self.checkpoint is not None and self.checkpoint.exists()

    @property
    def begins_again(self) -> bool:
        """Whether it is to go on from a training that ended before its first checkpoint."""
        if not self.resume or self.goes_on or self.log is None or not self.log.exists():
            return False
        return len(read_log(self.log)) < 2

    def of_stages(self, stages: int) -> list[Files]:
        """Return the files of each stage."""
        return [self.of_stage(number, stages) for number in range(1, stages + 1)]

    def of_stage(self, number: int, stages: int) -> Files:
        """Return the files of one stage, numbered if there are several."""
        if stages == 1:
            return self

        def own(path: Path | None) -> Path | None:
            return path and path.with_suffix(f".{number}{path.suffix}")

        return replace(self, checkpoint=own(self.checkpoint), log=own(self.log))


def say_nothing(line: str) -> None:
    """Leave a line out."""


@dataclass(frozen=True)
class Job:
    """What a stage is to train: data, numbers, and what is to be said and written.

    Parameters
    ----------
    data : Dataset
        With its images as `preprocess` made them.
    plan : Plan
    seed : int
        Of start weights, dropout and the order of the images.
    previous : Sequential, optional
        The network of the stage before; the first stage has none.
    start : path, optional
        A checkpoint of the same network, or its packed form, from which the first stage starts.
    lessons : Lessons, optional
        Scores of a teacher for the images, which every stage learns besides their labels.
    files : Files
    verbose : int
        As for `fit`.
    say : callable (str)
        Is given lines about each stage and its network.
    callbacks : tuple of Callback
        Called in every stage.
    """

    data: Dataset
    plan: Plan
    seed: int = 0
    previous: Sequential | None = None
    start: Path | None = None
    lessons: Lessons | None = None
    files: Files = Files()
    verbose: int = 0
    say: Callable[[str], object] = say_nothing
    callbacks: tuple[Callback, ...] = ()


class Training(Protocol):
    """What makes a trained network: a `Stage`, or a trainer of its own."""

    @property
    def name(self) -> str:
        """What the output calls it."""

    @property
    def rounds(self) -> bool:
        """Whether gradients are multiplied by bits, and may be rounded for that."""

    @property
    def takes_numbers(self) -> bool:
        """Whether real activations are multiplied by bits, and may be rounded for that."""

    @property
    def halves(self) -> bool:
        """Whether moments, and clipped binary weights, may be kept in 16 bits."""

    @property
    def takes_start(self) -> bool:
        """Whether it can start from another training, by its checkpoint or packed network."""

    @property
    def takes_teacher(self) -> bool:
        """Whether it can learn the scores of a teacher."""

    def check_start(self, job: Job) -> None:
        """Raise an error if what a job starts from is not of its network."""

    def refused(self, plan: Plan) -> dict[str, str]:
        """Return the numbers of a plan that it cannot follow, each with the reason."""

    def train(self, job: Job) -> tuple[Sequential, History]:
        """Return the network, with the weights of its best epoch, and how that went."""


@dataclass(frozen=True)
class Stage:
    """One training of one network by its gradients; most recipes have a single stage.

    Parameters
    ----------
    build : callable (job) -> Sequential
        Makes the network.
    optimizer : callable (model, lr, **state) -> Optimizer
        `state` is empty, or has the bits of moments and weights of an `Adam`.
    schedule : callable (lr) -> Schedule
        For a run of any length; a plan may name another.
    loss : callable (scores, labels) -> (value, gradient)
        That of a job without a teacher.
    augment : callable (x, rng) -> x, optional
        Changes the images of each step.
    name : str
        What the output calls it, where there are several.
    rounds : bool
        Whether gradients are multiplied by bits, and may be rounded for that.
    takes_numbers : bool
        Whether real activations are multiplied by bits, and may be rounded for that.
    halves : bool
        Whether the optimizer is an `Adam`, which can keep moments and clipped binary weights in 16
        bits.
    any_size : bool
        Whether the network takes images of any height and width, and so windows of them.
    """

    build: Callable[[Job], Sequential]
    optimizer: Callable[..., Optimizer]
    schedule: Callable[[float], Schedule]
    loss: Loss = squared_hinge
    augment: Augment | None = None
    name: str = "training"
    rounds: bool = True
    takes_numbers: bool = False
    halves: bool = True
    any_size: bool = False

    takes_start: ClassVar[bool] = True
    takes_teacher: ClassVar[bool] = True

    def check_start(self, job: Job) -> None:
        if job.start is not None:
            self.start(job, None)

    def start(self, job: Job, x: np.ndarray | None) -> Sequential:
        """Make the network as the training begins with it; a checkpoint to go on from is not read.

        Without images, which need not have been prepared then, it only finds out whether it can.
        """
        model = self.build(job)
        if job.start is None or job.files.goes_on:
            return model
        if not is_model_file(job.start):
            start_from(model, job.start)
            return model
        if x is None:
            rows = np.zeros((2, *(model.input_shape or ())), np.float32)
        else:
            order = np.random.default_rng(job.seed).permutation(len(x))
            rows = inputs(model, job.data, x[order[:STATISTICS_ROWS]])
        start_from_packed(model, Packed.load(job.start), rows)
        return model

    def train(self, job: Job) -> tuple[Sequential, History]:
        data, plan = job.data, job.plan
        model = self.start(job, data.x_train)
        job.say(f"net      {describe(model)}")
        if plan.gradients != "float32" and self.rounds:
            activations = plan.round_activations and self.takes_numbers
            model.round_gradients(job.seed, GRADIENTS[plan.gradients], activations=activations)
        state = HALF_STATE if plan.half_state and self.halves else {}
        history = fit(
            model,
            inputs(model, data, data.x_train),
            **self.targets_and_loss(job, model),
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            schedule=plan.schedule or self.schedule(plan.lr),
            optimizer=self.optimizer(model, plan.lr, **state),
            augment=self.augmentation(job),
            seed=job.seed,
            verbose=job.verbose,
            recalibrate=plan.recalibrate,
            **file_options(job.files, job.callbacks),
        )
        return model, history

    def targets_and_loss(self, job: Job, model: Sequential) -> dict[str, Any]:
        """Return the arguments of `fit` that say what is learned: y, validation and loss."""
        data, lessons, validation = job.data, job.lessons, validation_of(model, job.data)
        if lessons is None:
            return {"y": data.y_train, "validation": validation, "loss": self.loss}
        return {
            "y": (data.y_train, lessons.train),
            "validation": validation and (validation[0], (validation[1], lessons.validation)),
            "loss": Distillation(job.plan.temperature),
        }

    def refused(self, plan: Plan) -> dict[str, str]:
        if self.augment is not None:
            return dict.fromkeys(moves(plan), "the recipe moves images itself")
        if plan.crop and not self.any_size:
            return {"crop": "the network takes images of one size"}
        return {}

    def augmentation(self, job: Job) -> Augment | None:
        """Return that of the stage, or the one that the plan asks for."""
        plan = job.plan
        if not moves(plan):
            return self.augment
        shape = job.data.images(job.data.x_train[:1]).shape[1:]
        return Moved(plan.flip, plan.shift, shape, plan.crop)


def moves(plan: Plan) -> list[str]:
    """Return the numbers of a plan that move images."""
    return [name for name in ("flip", "shift", "crop") if getattr(plan, name)]


def describe(model: Sequential) -> str:
    """Put the layers into words: 784-1024-10, or 20C5-P2-50C5-P2-500-10."""
    words = []
    for layer in _main_line(model.flat_layers()):
        windows = getattr(getattr(layer, "operation", layer), "windows", None)
        if windows is not None:
            size = windows.kernel_size[0]
            words.append(
                f"P{size}" if layer.out_features is None else f"{layer.out_features}C{size}"
            )
        elif hasattr(layer, "weight"):
            words.append(str(layer.out_features))
    shape = model.input_shape
    return "-".join([*map(str, shape if shape and len(shape) == 1 else ()), *words])


def _main_line(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield layers in order, and those of the bodies of blocks, without shortcuts."""
    for layer in layers:
        yield layer
        yield from _main_line(layer.branches().get("body", ()))


def inputs(model: Sequential | Packed, data: Dataset, x: np.ndarray) -> np.ndarray:
    """Return images of a data set as a model takes them: as images, or as rows."""
    if model.input_shape is not None and len(model.input_shape) == 3:
        return data.images(x)
    return x.reshape(len(x), math.prod(x.shape[1:]))


def validation_of(model: Sequential, data: Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Return validation images as a model takes them, and their labels; None if there are none."""
    if not len(data.y_validation):
        return None
    return inputs(model, data, data.x_validation), data.y_validation


def file_options(files: Files, others: Sequence[Callback] = ()) -> dict[str, Any]:
    """Return the arguments of `fit` for the files, and for other callbacks."""
    callbacks = list(others)
    # a stage that the interrupted training had not reached has no checkpoint yet
    resumes = files.goes_on
    if files.log is not None:
        callbacks.append(Log(files.log, overwrite=files.overwrite or files.begins_again))
    if files.checkpoint is not None:
        callbacks.append(
            Checkpoint(files.checkpoint, steps=CHECKPOINT_STEPS, overwrite=files.overwrite)
        )
    return {"callbacks": callbacks, "resume": files.checkpoint if resumes else None}


@dataclass(frozen=True)
class Setting:
    """A recipe on one data set.

    Parameters
    ----------
    plan : Plan
        As published.
    stages : tuple of Stage or other Training
    quick : mapping
        What a short training on a laptop changes in the plan.
    preprocessing : str
        Name of one of `preprocess.STEPS`.
    published : str
        Test error in percent that the source reports; "" where it has none.
    ours : tuple of str
        Numbers of the plan that are not known from the source.
    input_dropout : float
        Dropout of the inputs, as a multiple of that of hidden layers.
    """

    plan: Plan
    stages: tuple[Training, ...]
    quick: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: str = "pixels"
    published: str = ""
    ours: tuple[str, ...] = ()
    input_dropout: float = 0.0

    def resolve(self, quick: bool = False, **given: Any) -> Plan:
        """Return the published numbers, or those of a short training, changed to those given."""
        chosen = dict(self.quick) if quick else {}
        chosen |= {name: value for name, value in given.items() if value is not None}
        return replace(self.plan, **chosen)

    @property
    def takes_start(self) -> bool:
        """Whether the first stage can start from another training."""
        return self.stages[0].takes_start

    @property
    def takes_teacher(self) -> bool:
        """Whether every stage can learn the scores of a teacher."""
        return all(stage.takes_teacher for stage in self.stages)

    def check_start(self, job: Job) -> None:
        """Raise an error if what a job starts from is not of the first stage's network.

        Thresholds of a packed network also hold only for images that were prepared alike.
        """
        files = job.files.of_stage(1, len(self.stages))
        self.stages[0].check_start(replace(job, files=files))
        if job.start is None or files.goes_on or not is_model_file(job.start):
            return
        packed, preprocessing = Packed.load(job.start), self.preprocessing_of(job.plan)
        if not makes_inputs(preprocessing, packed):
            own = notes.preprocessing(packed)
            raise ValueError(
                f"[train] start must be a network of images prepared as {preprocessing!r}, "
                f"got one of {own!r:.80}"
            )

    def refused(self, plan: Plan, image_shape: tuple[int, ...]) -> dict[str, str]:
        """Return the numbers of a plan that cannot be followed, each with the reason.

        Those are the numbers that one of the stages refuses, that change nothing in any of them, or
        that leave nothing of the images.
        """
        found = {name: why for stage in self.stages for name, why in stage.refused(plan).items()}
        if plan.gradients != "float32" and not any(stage.rounds for stage in self.stages):
            found.setdefault("gradients", "this recipe multiplies no gradients by bits")
        if plan.round_activations and not any(stage.takes_numbers for stage in self.stages):
            found.setdefault(
                "round_activations", "this recipe multiplies no real activations by bits"
            )
        elif plan.round_activations and plan.gradients == "float32":
            found.setdefault("round_activations", "gradients are not rounded")
        if plan.half_state and not any(stage.halves for stage in self.stages):
            found.setdefault("half_state", "this recipe is trained without Adam")
        for name in ("shift", "crop"):
            if getattr(plan, name) and getattr(plan, name) >= min(image_shape[:2]):
                size = " x ".join(map(str, image_shape[:2]))
                found.setdefault(name, f"the images have {size} pixels")
        return found

    def preprocessing_of(self, plan: Plan) -> str:
        """Name the preprocessing of a plan.

        A dropped input is 0. That is grey where pixels are in [-1, 1], as in the programs.
        """
        if self.input_dropout and plan.dropout and self.preprocessing == "pixels":
            return "unit"
        return self.preprocessing

    def report(
        self,
        plan: Plan,
        *,
        started: bool = False,
        taught: bool = False,
        all_images: bool = False,
    ) -> str:
        """Tell what the source reports, and with which numbers where a plan has others.

        Trainings that start from another one, have a teacher or take all images have settings of
        their own, too; whether a source sets images aside is not known of each.
        """
        if not self.published:
            return ""
        differ = [
            field.name
            for field in fields(Plan)
            if field.name not in (*self.ours, "temperature")  # no source has a teacher
            and getattr(plan, field.name) != getattr(self.plan, field.name)
        ]
        words = ["random start weights"] * started + ["labels alone"] * taught
        words += [self.plan.words(name) for name in differ]
        numbers = ", ".join(words)
        if not (numbers or all_images or self.ours):
            numbers = "these settings"
        return f"the source reports {self.published} %{numbers and f' with {numbers}'}"


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
        Its sources; code is "" where none was released.
    settings : mapping of str to Setting
        By the kind of data set: "mnist", "cifar10", "svhn".
    tested : str
        Kind of weights and activations of the network that is tested.
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
        """Return the setting for a data set, or raise an error that lists those there are."""
        if kind not in self.settings:
            known = ", ".join(DATASETS[k] for k in self.settings)
            raise ValueError(f"[{self.name}] the data must be {known}, got {DATASETS[kind]}")
        return self.settings[kind]

    def own_kind(self, data: Dataset) -> str:
        """Return the data set whose setting serves images of one's own, by their channels."""
        return next(
            kind for kind in (GREY if data.image_shape[2] == 1 else COLOR) if kind in self.settings
        )
