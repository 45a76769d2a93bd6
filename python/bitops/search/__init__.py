"""Search on rows of bits: distances, nearest rows and ranges, by four metrics.

`metrics` defines them. `pairs` compares all rows or rows side by side, `nearest` finds the nearest
ones. These modules import only `ops` and the native module.
"""

from .nearest import topk
from .pairs import paired, pairwise

__all__ = ["paired", "pairwise", "topk"]
