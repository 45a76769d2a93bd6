"""Copies modules of PyTorch for evaluation, and runs them."""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np

from .errors import ConversionError

EXAMPLES = 2


def import_torch() -> Any:
    """Return the module torch, or say how to install it."""
    try:
        import torch
    except ImportError:
        raise ImportError("[from_torch] this needs PyTorch: pip install torch") from None
    return torch


def is_module(source: Any) -> bool:
    """Return whether something is a torch.nn.Module, without importing torch for it."""
    torch = sys.modules.get("torch")  # who has a module has imported it
    return torch is not None and isinstance(source, torch.nn.Module)


def prepared(module: Any, input_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return a copy of a module for evaluation on the CPU, and random examples in its layout."""
    torch = import_torch()
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ConversionError(
                f"[from_torch] the TorchScript {name!r} cannot be followed: give the module it was "
                f"made of, or export it by torch.onnx.export and use from_onnx"
            )
    own = _own_copy(module)
    x = np.random.default_rng(0).standard_normal((EXAMPLES, *input_shape))
    return own, _as_input(own, x)


def run_module(module: Any, x: np.ndarray) -> np.ndarray:
    """Return what a module gives in evaluation for examples as this package has them."""
    own = _own_copy(module)
    with import_torch().no_grad():
        return own(_as_input(own, x)).numpy()


def _own_copy(module: Any) -> Any:
    """Return a copy of a module for evaluation on the CPU, in single or double precision."""
    torch = import_torch()
    module = getattr(module, "_orig_mod", module)  # torch.compile wraps it
    try:
        own = copy.deepcopy(module).cpu().eval()
    except Exception as error:  # whatever its parts say
        raise ConversionError(f"[from_torch] the module cannot be copied: {error}") from None
    return own.float() if _kind_of(own) in (torch.float16, torch.bfloat16) else own


def _kind_of(module: Any) -> Any:
    """Return the dtype of the first parameter, or float32."""
    kinds = (p.dtype for p in module.parameters() if p.dtype.is_floating_point)
    return next(kinds, import_torch().float32)


def _as_input(module: Any, x: np.ndarray) -> Any:
    """Return images (n, h, w, c), sequences (n, length, c) or rows as a module takes them."""
    if x.ndim > 2:
        x = np.moveaxis(x, -1, 1)
    torch = import_torch()
    given = torch.from_numpy(np.ascontiguousarray(x)).to(_kind_of(module))
    return given.clone(memory_format=torch.contiguous_format)  # strides of one channel too
