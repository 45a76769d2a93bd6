"""Search on rows of bits: distances, nearest rows and ranges, by four metrics.

`metrics` defines them. `pairs` compares all rows or rows side by side, `nearest` finds the nearest
ones, and `ranges` all within a range: by `multi_index` or `full_product`, whichever costs less, and
what `limits` tells beforehand. `rescoring` multiplies real queries with all rows, or with those
that were found. `index` searches rows that have ids and may lie in files; `ids` checks such
numbers. These modules import only `ops`, `files` and the native module.
"""

from .index import BitIndex
from .nearest import topk
from .pairs import paired, pairwise
from .ranges import pairs_within, within
from .rescoring import rescore, score_topk

__all__ = [
    "BitIndex",
    "paired",
    "pairs_within",
    "pairwise",
    "rescore",
    "score_topk",
    "topk",
    "within",
]
