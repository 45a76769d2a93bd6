"""Training: the loop, callbacks, losses, optimizers, schedules and further methods.

Imports layers and what they stand on, never recipes or the command line.
"""

from .augment import ZCA, gcn, lcn, random_crop, random_flip
from .callbacks import Annealing, Callback, EarlyStopping
from .checkpoint import Checkpoint, start_from
from .ebp import EBP
from .log import Log, read_log
from .loop import fit
from .losses import (
    CrossEntropy,
    Distillation,
    Huber,
    binary_cross_entropy,
    cross_entropy,
    hinge,
    mae,
    mse,
    squared_hinge,
)
from .optim import SGD, Adam, AdaMax, Bop, Optimizer, ShiftAdaMax
from .packed_start import start_from_packed
from .run import Epoch, History, Run
from .schedules import (
    CosineDecay,
    ExponentialDecay,
    Halving,
    OneCycle,
    PerStep,
    Schedule,
    StepDecay,
    Stretched,
    Warmup,
)
from .scores import accuracy, confusion_matrix, r2, rmse, top_k_accuracy
from .stages import to_bitwise, to_ternary
from .statistics import recalibrate

__all__ = [
    "EBP",
    "SGD",
    "ZCA",
    "AdaMax",
    "Adam",
    "Annealing",
    "Bop",
    "Callback",
    "Checkpoint",
    "CosineDecay",
    "CrossEntropy",
    "Distillation",
    "EarlyStopping",
    "Epoch",
    "ExponentialDecay",
    "Halving",
    "History",
    "Huber",
    "Log",
    "OneCycle",
    "Optimizer",
    "PerStep",
    "Run",
    "Schedule",
    "ShiftAdaMax",
    "StepDecay",
    "Stretched",
    "Warmup",
    "accuracy",
    "binary_cross_entropy",
    "confusion_matrix",
    "cross_entropy",
    "fit",
    "gcn",
    "hinge",
    "lcn",
    "mae",
    "mse",
    "r2",
    "random_crop",
    "random_flip",
    "read_log",
    "recalibrate",
    "rmse",
    "squared_hinge",
    "start_from",
    "start_from_packed",
    "to_bitwise",
    "to_ternary",
    "top_k_accuracy",
]
