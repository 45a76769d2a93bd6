"""Published ways to train binarized networks, as `bitops train` runs them.

Imports training, models, data and what they stand on, never the command line.
"""

from .base import Job, Recipe, Setting, Stage
from .binary import BINARYCONNECT, BNN_THEANO, BNN_TORCH, FLOAT32
from .dorefa import DOREFA
from .ebp import EBP_D
from .plan import Plan
from .retrained import BITWISE, TERNARY
from .speedrun import SPEEDRUN
from .xnor import BWN, XNOR, XNOR_CONVNET

__all__ = ["RECIPES", "Job", "Plan", "Recipe", "Setting", "Stage", "find"]

RECIPES = (
    BNN_THEANO,
    BNN_TORCH,
    BINARYCONNECT,
    BWN,
    XNOR,
    XNOR_CONVNET,
    DOREFA,
    EBP_D,
    BITWISE,
    TERNARY,
    FLOAT32,
    SPEEDRUN,
)


def find(name: str) -> Recipe:
    """Return the recipe of a name, or raise an error that lists the names there are."""
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    known = ", ".join(recipe.name for recipe in RECIPES)
    raise ValueError(f"[find] recipe must be one of {known}, got {name!r:.80}")
