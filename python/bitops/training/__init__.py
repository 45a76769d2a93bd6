"""Training: the loop, callbacks, losses, optimizers, schedules and further methods.

Imports layers and what they stand on, never recipes or the command line.
"""

from .augment import ZCA, gcn, lcn, random_crop, random_flip
from .callbacks import Annealing, Callback, EarlyStopping, Epoch, History, Run
from .checkpoint import Checkpoint
from .ebp import EBP
from .log import Log, read_log
from .loop import fit
from .losses import cross_entropy, hinge, squared_hinge
from .optim import SGD, Adam, AdaMax, Bop, Optimizer, ShiftAdaMax
from .schedules import (
    CosineDecay,
    ExponentialDecay,
    Halving,
    Schedule,
    StepDecay,
    Stretched,
    Warmup,
)
from .stages import to_bitwise, to_ternary

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
    "EarlyStopping",
    "Epoch",
    "ExponentialDecay",
    "Halving",
    "History",
    "Log",
    "Optimizer",
    "Run",
    "Schedule",
    "ShiftAdaMax",
    "StepDecay",
    "Stretched",
    "Warmup",
    "cross_entropy",
    "fit",
    "gcn",
    "hinge",
    "lcn",
    "random_crop",
    "random_flip",
    "read_log",
    "squared_hinge",
    "to_bitwise",
    "to_ternary",
]
