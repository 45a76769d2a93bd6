"""Packed-bit GEMM and binarized neural networks for NumPy."""

import importlib as _importlib
import time as _time
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING

try:
    _importlib.import_module(f"{__name__}._core")
except ImportError as error:
    raise ImportError(
        "[bitops] the extension module bitops._core must be importable, which it is neither from "
        f"a zip file nor from sources that are not built, got: {error}"
    ) from error

from . import isa
from .config import __version__, get_include, get_num_threads, set_num_threads, show_config
from .ops.array import BitArray, pack, pack_above, unpack
from .ops.conv import conv2d, conv2d_sign, im2col
from .ops.counts import popcount
from .ops.linalg import gemm, gemm_sign, hamming, hamming_topk, matmul
from .ops.majority import majority
from .ops.mixed_conv import bitplane_conv2d, weight_conv2d
from .ops.mixed_gemm import bitplane_gemm, weight_gemm
from .ops.pool import avg_pool2d, global_avg_pool2d, max_pool2d
from .ops.prepack import Prepacked, prepack
from .ops.scaling import binarize_weights, k_map

__all__ = [
    "BitArray",
    "Prepacked",
    "__version__",
    "avg_pool2d",
    "binarize_weights",
    "bitplane_conv2d",
    "bitplane_gemm",
    "conv2d",
    "conv2d_sign",
    "gemm",
    "gemm_sign",
    "get_include",
    "get_num_threads",
    "global_avg_pool2d",
    "hamming",
    "hamming_topk",
    "im2col",
    "isa",
    "k_map",
    "majority",
    "matmul",
    "max_pool2d",
    "pack",
    "pack_above",
    "popcount",
    "prepack",
    "set_num_threads",
    "show_config",
    "unpack",
    "weight_conv2d",
    "weight_gemm",
]

# Modules that are imported at their first use: programs that only multiply need no layers.
_LAZY = (
    "benchmark",
    "convert",
    "data",
    "distributed",
    "estimators",
    "io",
    "layers",
    "models",
    "quantizers",
    "recipes",
    "reference",
    "search",
    "training",
    "zoo",
)

if TYPE_CHECKING:
    from . import benchmark as benchmark
    from . import convert as convert
    from . import data as data
    from . import distributed as distributed
    from . import estimators as estimators
    from . import io as io
    from . import layers as layers
    from . import models as models
    from . import quantizers as quantizers
    from . import recipes as recipes
    from . import reference as reference
    from . import search as search
    from . import training as training
    from . import zoo as zoo
else:

    def __getattr__(name: str) -> _ModuleType:
        """Import a module such as `bitops.layers` at its first use (PEP 562)."""
        if name in _LAZY:
            return _import(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def _import(name: str) -> _ModuleType:
        """Import a module, also while other threads import modules that need each other.

        Of two threads that import a package and a module in it, each may hold what the other waits
        for. CPython may then raise in one of them (gh-83065), and the other goes on. A lock of our
        own would be no help: whoever waits for it may hold the lock of a module.
        """
        for _ in range(9):
            try:
                return _importlib.import_module(name)
            except RuntimeError as error:
                if type(error).__name__ != "_DeadlockError":
                    raise
            _time.sleep(1e-3)  # for the other thread to go on
        return _importlib.import_module(name)


def __dir__() -> list[str]:
    """List the names of this module, including the lazy modules."""
    return sorted({*globals(), *_LAZY})
