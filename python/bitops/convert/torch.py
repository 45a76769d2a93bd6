"""Networks from modules of PyTorch, or from their state dicts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from .. import layers as L
from ..layers.base import TrainingLayer
from ..layers.container import check_shape
from ..ops.warn import warn_caller
from .errors import ConversionError
from .lowering import freeze, network
from .steps import Map, Step
from .tensors import Tensor
from .torch_module import is_module, prepared
from .torch_ops import LOG_SOFTMAX
from .torch_record import Recorder, start_of
from .torch_state import Named, fill, read_state

Binary = Callable[[str, Any], Any]


def from_torch(
    module_or_state_dict: Any,
    layers: Sequence[TrainingLayer | Named] | None = None,
    *,
    input_shape: Sequence[int],
    binary: Binary | None = None,
    sign_of_zero: int = 0,
) -> L.Sequential:
    """Make a network of a module of PyTorch, or of a state dict and layers that it fills.

    Parameters
    ----------
    module_or_state_dict : torch.nn.Module, mapping or path
        A module; or its state dict, or the path of one: a file of safetensors, or of torch.save.
    layers : list, optional
        For a state dict, the layers of the network in their order. A layer with parameters is
        given as (name, layer), the name being that of its module in the state dict, such as
        ("features.0", BinaryConv2D(64, 128, 3)). A block of several such layers is given with a
        list of their names.
    input_shape : tuple of int
        Shape of one example as the network will take it: (h, w, c) of images, (length, c) of
        sequences, or (features,).
    binary : callable, optional
        For a module, `binary(name, part)` is called for each part of it that has a weight. If it
        returns True, the signs of the weight take its place, +1 at 0; if it returns a tensor, this
        one does. For networks whose training loop binarizes the weights.
    sign_of_zero : int
        For a module, what its torch.sign is taken to give at 0: 0, as it does, or 1.

    Returns
    -------
    Sequential
        It takes images (n, h, w, c), though the module takes (n, c, h, w), sequences (n, length,
        c), though the module takes (n, c, length), or rows; `freeze()` packs it. One made of a
        module has the weights as they are multiplied, so that it can be run, not trained on. One of
        a state dict has the latent weights.

    Raises
    ------
    ConversionError
        If the file is damaged, or if the network cannot be represented: the message names the
        first function or entry that cannot, the module, and why. It is a ValueError.
    ImportError
        If a module or a file of torch.save is given, and PyTorch is not installed:
        `pip install torch`.
    OSError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        Of what a user should know, such as a sign that is 0 at 0.

    Notes
    -----
    A copy of the module, on the CPU and in evaluation, runs once on random examples, and what it
    computes of them is recorded, function by function. So it does not matter how layers are called
    and how signs and their pseudo-gradients are written. A module that decides by values cannot be
    recorded. Weights are seen as they are multiplied: +-1, or +-1 times a scale for each filter,
    are packed, those of a few levels become planes, and others stay float32.

    torch.sign is 0 at 0. Where that may happen, its outputs are codes of two bits;
    `sign_of_zero=1` keeps them at one bit, which differs where a sum is exactly 0. A log_softmax at
    the end is left out. BatchNorm layers of a state dict get PyTorch's eps of 1e-5, unless theirs
    is not the default.

    Nothing but tensors is loaded from a file: `torch.load(path, weights_only=True)`.

    Examples
    --------
    >>> model = from_torch(module, input_shape=(3, 32, 32))  # doctest: +SKIP
    >>> packed = model.freeze()  # doctest: +SKIP
    """
    shape = _checked_shape(input_shape)
    if is_module(module_or_state_dict):
        if layers is not None:
            raise TypeError("[from_torch] layers are for a state dict, got a module")
        if sign_of_zero not in (0, 1):
            raise ValueError(f"[from_torch] sign_of_zero must be 0 or 1, got {sign_of_zero!r}")
        net, remarks = _from_module(module_or_state_dict, shape, binary, sign_of_zero)
        for remark in remarks:
            warn_caller(f"[from_torch] {remark}")
        return net
    if not isinstance(module_or_state_dict, str | os.PathLike | Mapping):
        raise TypeError(
            f"[from_torch] the network must be a torch.nn.Module, a state dict or the path of one, "
            f"got {type(module_or_state_dict).__name__}"
        )
    if binary is not None or sign_of_zero:
        raise TypeError("[from_torch] binary and sign_of_zero are for a module, got a state dict")
    if layers is None:
        raise TypeError(
            "[from_torch] a state dict holds arrays but not what is computed of them: give the "
            "layers that it fills, or the module itself"
        )
    return fill(read_state(module_or_state_dict), layers, shape)


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    shape = check_shape("from_torch", input_shape)
    if shape is None or not 1 <= len(shape) <= 3:
        raise ValueError(
            f"[from_torch] input_shape must be (h, w, c) of images, (length, c) of sequences or "
            f"(features,), got {shape}"
        )
    return shape


def _from_module(
    module: Any, shape: tuple[int, ...], binary: Binary | None, sign_of_zero: int
) -> tuple[L.Sequential, list[str]]:
    own, x = prepared(module, shape)
    if binary is not None:
        _binarize(own, binary)
    recorder = Recorder(type(own).__name__, sign_of_zero)
    start = start_of(shape)
    output = _without_log_softmax(recorder.run(own, start, x), recorder.remarks)
    net = network(output, start, recorder.remarks, "from_torch")
    freeze(net, "from_torch")
    return net, list(dict.fromkeys(recorder.remarks))


def _binarize(module: Any, binary: Binary) -> None:
    """Replace the weights of the parts that are said to be binary."""
    for name, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if weight is None:
            continue
        chosen = binary(name, part)
        if chosen is None or chosen is False:
            continue
        if chosen is True:
            chosen = (weight.detach() >= 0).to(weight.dtype) * 2 - 1
        if getattr(chosen, "shape", None) != weight.shape:
            raise ValueError(
                f"[from_torch] binary must return a bool or a weight of shape "
                f"{tuple(weight.shape)} for {name!r}, got {chosen!r:.80}"
            )
        weight.data = chosen.detach().to(weight.dtype)


def _without_log_softmax(output: Tensor, remarks: list[str]) -> Tensor:
    """Leave out what does not change which score is largest."""
    step, before = output.trace.step, output.trace.before
    if _is_log_softmax(step) and before is not None:
        remarks.append(f"{step.source} is left out: the scores are those before it")
        output = replace(output, trace=before)
    for trace in output.trace.line():
        if _is_log_softmax(trace.step):
            raise ConversionError(
                f"[from_torch] {trace.step.source}: it is supported only at the end"
            )
    return output


def _is_log_softmax(step: Step | None) -> TypeGuard[Map]:
    return isinstance(step, Map) and step.kind == LOG_SOFTMAX
