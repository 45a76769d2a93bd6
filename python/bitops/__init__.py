"""Packed-bit GEMM and binarized neural networks for NumPy."""

import importlib as _importlib
import threading as _threading
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
    # Two threads that import a package and a module in it at the same time may each hold what the
    # other waits for, and CPython may then raise in one of them (gh-83065). No module of ours asks
    # for another by `__getattr__` while it is imported, so that this lock is always the first.
    _IMPORTING = _threading.RLock()

    def __getattr__(name: str) -> _ModuleType:
        """Import a module such as `bitops.layers` at its first use (PEP 562)."""
        if name in _LAZY:
            with _IMPORTING:
                return _importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the names of this module, including the lazy modules."""
    return sorted({*globals(), *_LAZY})
