"""State dicts of PyTorch, and layers that get their arrays by name."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from .. import layers as L
from ..files.reading import open_regular, read_regular
from ..files.unpacking import most_unpacked
from ..layers.base import TrainingLayer, activations
from ..layers.product import FloatProduct, LatentProduct
from .errors import ConversionError
from .torch_module import import_torch

# The names of the modules whose arrays a layer gets: one for each layer with parameters in it.
Named = tuple[str | Sequence[str], TrainingLayer]
State = dict[str, np.ndarray]

# What training programs call a state dict that they save beside other things.
_CALLED = "state_dict", "model_state_dict", "model", "net"
_IGNORED = "num_batches_tracked"
_EPS = 1e-5  # PyTorch's default; the state dict does not tell it


def read_state(source: str | os.PathLike | Mapping[str, Any]) -> State:
    """Return the arrays of a state dict: a mapping, or a file of safetensors or of torch.save.

    Raises
    ------
    ConversionError
        If it is damaged, or holds anything but tensors.
    """
    state = source if isinstance(source, Mapping) else _read_file(Path(source))
    for name in _CALLED:
        if isinstance(state.get(name), Mapping):
            state = state[name]
    arrays = {str(name): _array(str(name), value) for name, value in state.items()}
    if arrays and all(name.startswith("module.") for name in arrays):  # as DataParallel has them
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def _array(name: str, value: Any) -> np.ndarray:
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float().numpy() if value.is_floating_point() else value.numpy()
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # a sparse tensor, or lists of several lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise ConversionError(
            f"[from_torch] the entry {name!r} must be a tensor of numbers, got {type(value)}"
        )
    return array


def _read_file(path: Path) -> Mapping[str, Any]:
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return safetensors.numpy.load(read_regular(path))
    except OSError:
        raise
    except Exception as error:  # its own errors share no public base; bfloat16 is an AttributeError
        raise ConversionError(
            f"[from_torch] the file must be safetensors of float16 to float64 or integers: {error}"
        ) from None


def _read_torch(path: Path) -> Mapping[str, Any]:
    """Read a file of torch.save, without running what a pickle calls."""
    torch = import_torch()
    with open_regular(path) as file:
        _refuse_bombs(file)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of the unpickler, of zip files, of storages
            raise ConversionError(
                f"[from_torch] the file must hold a state dict, that is tensors alone, as "
                f"torch.save(model.state_dict(), path) writes it; nothing else is loaded, since a "
                f"pickle may run any program: {_first_line(error)}"
            ) from None
    if not isinstance(state, Mapping):
        raise ConversionError(f"[from_torch] the file must hold a state dict, got {type(state)}")
    return state


def _refuse_bombs(file: Any) -> None:
    """Refuse a zip file that unpacks to far more than it takes."""
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.file_size > most_unpacked(entry.compress_size):
                    raise ConversionError(
                        f"[from_torch] {entry.filename} unpacks to far more than it takes"
                    )
    except (zipfile.BadZipFile, NotImplementedError) as error:
        file.seek(0)
        if file.read(2) == b"PK":  # PyTorch reads zip files by other means, and might go on
            raise ConversionError(f"[from_torch] the zip file is damaged: {error}") from None
        # else the form before PyTorch 1.6
    file.seek(0)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# Filling


class _Filling:
    """Finds the arrays of layers in a state dict, and assigns them when all are found."""

    def __init__(self, state: State):
        self._state = state
        self._unused = {name for name in state if not name.endswith(_IGNORED)}
        self._assignments: list[Callable[[], None]] = []

    def finish(self) -> None:
        """Assign the arrays, unless some of the state dict have no layer."""
        if self._unused:
            names = ", ".join(sorted(self._unused)[:8])
            more = len(self._unused) - 8
            raise ConversionError(
                f"[from_torch] all entries must belong to a layer, got {names}"
                + (f" and {more} more" if more > 0 else "")
            )
        for assign in self._assignments:
            assign()

    def find(self, name: str, layer: TrainingLayer, order: np.ndarray | None) -> None:
        """Find the arrays of a layer whose input features come in an order of the source."""
        if isinstance(layer, L.ShiftBatchNorm) or not isinstance(
            layer, LatentProduct | FloatProduct | L.BatchNorm | L.PReLU
        ):
            raise ConversionError(
                f"[from_torch] layers of the class {type(layer).__name__} cannot be filled from a "
                f"state dict, got one for {name!r}"
            )
        if isinstance(layer, L.BatchNorm):
            self._find_norm(name, layer, order)
        elif isinstance(layer, L.PReLU):
            slope = self._take(f"{name}.weight", layer.slope.shape, or_one=True)
            slope = np.broadcast_to(slope, layer.slope.shape)
            self._assign(layer.slope, slope if order is None or slope.size == 1 else slope[order])
        else:
            self._find_product(name, layer, order)

    def _find_product(self, name: str, layer: Any, order: np.ndarray | None) -> None:
        shape = layer.weight.shape
        if len(shape) == 4:
            filters, height, width, channels = shape
            is_sequence = height == 1 and np.ndim(self._state.get(f"{name}.weight", 0)) == 3
            image = (width,) if is_sequence else (height, width)
            w = self._take(f"{name}.weight", (filters, channels, *image))
            w = np.moveaxis(w, 1, -1).reshape(shape)
        else:
            w = self._take(f"{name}.weight", shape)
            w = w if order is None else w[:, order]
        self._assign(layer.weight, w)
        if layer.bias is not None:
            self._assign(layer.bias, self._take(f"{name}.bias", layer.bias.shape))

    def _find_norm(self, name: str, layer: L.BatchNorm, order: np.ndarray | None) -> None:
        shape = layer.gamma.shape
        mean, var = (self._take(f"{name}.running_{what}", shape) for what in ("mean", "var"))
        arrays = [np.ones(shape), np.zeros(shape), mean, var]
        if f"{name}.weight" in self._state or f"{name}.bias" in self._state:  # affine=True
            arrays[:2] = (self._take(f"{name}.{what}", shape) for what in ("weight", "bias"))
        eps = _EPS if layer.eps == L.BatchNorm(1).eps else layer.eps
        gamma, beta, mean, var = (a if order is None else a[order] for a in arrays)
        try:
            made = L.BatchNorm.from_running(gamma, beta, mean, var, eps, momentum=layer.momentum)
        except ValueError as error:
            raise ConversionError(f"[from_torch] {name!r}: {error}") from None

        def assign() -> None:
            layer.eps = made.eps
            layer.restore(made.state())

        self._assignments.append(assign)

    def _take(self, name: str, shape: tuple[int, ...], or_one: bool = False) -> np.ndarray:
        array = self._state.get(name)
        if array is None:
            raise ConversionError(
                f"[from_torch] the state dict must hold {name!r} of shape {shape}, got "
                f"{_nearest(name, self._state)}"
            )
        if array.shape != shape and not (or_one and array.shape == (1,)):
            raise ConversionError(
                f"[from_torch] {name!r} must have the shape {shape}, got {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ConversionError(f"[from_torch] {name!r} must be finite")
        self._unused.discard(name)
        return array

    def _assign(self, parameter: L.Parameter, value: np.ndarray) -> None:
        self._assignments.append(lambda: parameter.assign(np.asarray(value, np.float32)))


def _nearest(name: str, state: State) -> str:
    """Return what a state dict has instead of a name."""
    prefix = name.rpartition(".")[0]
    near = [other for other in state if other.startswith(prefix + ".")] or list(state)
    return ", ".join(near[:8]) + (", ..." if len(near) > 8 else "") if near else "an empty one"


def fill(
    state: State, layers: Sequence[TrainingLayer | Named], input_shape: tuple[int, ...]
) -> L.Sequential:
    """Return a network of layers that have got the arrays of a state dict.

    Raises
    ------
    ConversionError
        If arrays are missing, left over or of other shapes. The layers are unchanged then.
    """
    plain, named = [], []
    for item in layers:
        names, layer = item if isinstance(item, tuple) else ((), item)
        if not isinstance(layer, TrainingLayer):
            raise TypeError(f"[from_torch] layers must be layers for training, got {layer!r}")
        holders = [part for part in _parts(layer) if part.parameters()]
        names = [names] if isinstance(names, str) else list(names)
        if len(names) != len(holders):
            raise ConversionError(
                f"[from_torch] {layer!r} must be given with a name for each layer with parameters: "
                f"{len(holders)}, got {names or 'none'}"
            )
        plain.append(layer)
        named += list(zip(names, holders, strict=True))
    try:
        net = L.Sequential(plain, input_shape=input_shape)
    except (TypeError, ValueError) as error:
        raise ConversionError(f"[from_torch] the layers do not fit each other: {error}") from None
    orders = dict(_orders(net, input_shape))
    filling = _Filling(state)
    for name, layer in named:
        filling.find(name, layer, orders.get(id(layer)))
    filling.finish()
    return net


def _parts(layer: TrainingLayer) -> Iterator[TrainingLayer]:
    """Yield a layer, or those that it consists of."""
    chains = layer.branches()
    if not chains:
        yield layer
    for chain in chains.values():
        for part in chain:
            yield from _parts(part)  # type: ignore[arg-type]


def _orders(net: L.Sequential, input_shape: tuple[int, ...]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield layers behind a Flatten, by id, with the feature of PyTorch that each of theirs is.

    PyTorch flattens images channel by channel, and sequences if they are convolved; here the
    channels of a pixel are together.
    """
    layers, order = net.flat_layers(), None
    are_channels_first = any(isinstance(layer, L.AsImages) for layer in layers)
    axes = (2, 3) if are_channels_first else (3,)
    for layer, shape, _ in activations(layers, input_shape):
        if isinstance(layer, L.Flatten) and len(shape) in axes and None not in shape:
            *image, channels = (int(size or 0) for size in shape)
            places = np.arange(channels * math.prod(image)).reshape(channels, *image)
            order = np.moveaxis(places, 0, -1).ravel()
        elif order is not None and layer.branches():
            raise ConversionError(
                f"[from_torch] a product must come between Flatten and {type(layer).__name__}"
            )
        elif order is not None:
            yield id(layer), order
            if isinstance(layer, LatentProduct | FloatProduct):
                order = None
