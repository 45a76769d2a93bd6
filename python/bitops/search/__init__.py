"""Search on rows of bits: distances, nearest rows and ranges, by four metrics.

`metrics` defines them. `pairs` compares all rows or rows side by side, `nearest` finds the nearest
ones, and `ranges` all within a range, to which `multi_index` is a short cut. `rescoring` multiplies
real queries with what was found. `index` searches rows that have ids and may lie in files. These
modules import only `ops`, `files` and the native module.
"""

from .index import BitIndex
from .nearest import topk
from .pairs import paired, pairwise
from .ranges import pairs_within, within
from .rescoring import rescore

__all__ = ["BitIndex", "paired", "pairs_within", "pairwise", "rescore", "topk", "within"]
