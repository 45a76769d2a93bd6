"""Compares a converted network with its source, or with stored outputs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files.reading import read_regular
from ..layers import Packed, Sequential
from ..ops.array import BitArray, unpack
from .errors import ConversionError
from .lce_file import read_lce
from .onnx_file import read_onnx
from .torch_module import is_module, run_module

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Report:
    """How far the outputs of a network are from those of its source.

    Attributes
    ----------
    examples : int
    same_labels : int
        Examples whose largest score is that of the same class.
    largest_error : float
        Largest difference of two scores, relative to the largest score of the source.
    compared_with : str
        What made the outputs of the source.

    Examples
    --------
    >>> Report(examples=100, same_labels=100, largest_error=0.0, compared_with="scores").ok
    True
    """

    examples: int
    same_labels: int
    largest_error: float
    compared_with: str

    @property
    def ok(self) -> bool:
        """Whether all labels are the same and no score differs by more than rounding, 1e-5."""
        return self.same_labels == self.examples and self.largest_error <= TOLERANCE

    def __str__(self) -> str:
        verdict = "equal" if self.ok else "DIFFERENT"
        return (
            f"{verdict}: {self.same_labels:,} of {self.examples:,} labels are the same as by "
            f"{self.compared_with}; the scores differ by at most {self.largest_error:.1e} of the "
            f"largest"
        )


def check(model: Packed | Sequential, path: Any, x: Any) -> Report:
    """Compare the scores of a converted network with those of its source.

    Parameters
    ----------
    model : Packed or Sequential
    path : path, torch.nn.Module or ndarray
        The ONNX file, which onnxruntime runs; the `.tflite` file, which the interpreter of
        larq-compute-engine runs; the module, which PyTorch runs in evaluation; or the scores of the
        source, of shape (n, classes). Version 0.16 of larq-compute-engine needs NumPy 1, so its
        scores must come from an environment of its own.
    x : array_like of shape (n, h, w, c) or (n, features)
        Examples, as the converted network takes them.

    Returns
    -------
    Report
        `print` shows it; `ok` says whether it holds.

    Raises
    ------
    ImportError
        If the program that runs the file is not installed; scores that were stored need none.
    ConversionError
        If the file cannot be run, as with operators of QONNX.
    ValueError
        If the scores of the two have different shapes, or there is no example.

    Notes
    -----
    If a module gives logarithms of probabilities, those of the scores are compared with them.

    Examples
    --------
    >>> import numpy as np
    >>> from bitops.layers import Packed, PackedDense
    >>> net = Packed(PackedDense(np.ones((3, 8))))
    >>> x = np.ones((5, 8), np.float32)
    >>> check(net, net(x), x).same_labels
    5
    """
    x = np.asarray(x)
    if not x.ndim or not len(x):
        raise ValueError("[check] x must hold at least one example, got none")
    made = model.outputs(x)
    scores = unpack(made) if isinstance(made, BitArray) else np.asarray(made)
    if isinstance(path, np.ndarray):
        wanted, source = path, "the stored scores"
    elif is_module(path):
        wanted, source = run_module(path, x), f"PyTorch on {type(path).__name__}"
        scores = _as_log_probabilities(scores, wanted)
    elif os.fspath(path).lower().endswith(".tflite"):
        wanted, source = _run_lce(path, x), f"larq-compute-engine on {Path(path).name}"
    else:
        wanted, source = _run_onnx(path, x), f"onnxruntime on {Path(path).name}"
    if wanted.shape != scores.shape:
        raise ValueError(
            f"[check] the scores must have the shape {wanted.shape} of the source, "
            f"got {scores.shape}"
        )
    difference = np.abs(scores.astype(np.float64) - wanted)
    largest = float(np.abs(wanted).max()) or 1.0
    is_same = scores.argmax(axis=-1) == wanted.argmax(axis=-1)
    same = int(is_same.reshape(len(x), -1).all(axis=1).sum())
    error = float(difference.max()) / largest
    return Report(len(x), same, error if np.isfinite(error) else np.inf, source)


def _as_log_probabilities(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the log_softmax of scores if that is what is wanted; `from_torch` leaves it out."""
    from scipy.special import log_softmax, logsumexp  # which takes longer to import than all else

    if wanted.ndim != 2 or not np.allclose(logsumexp(wanted, axis=1), 0, atol=1e-5):
        return scores
    return log_softmax(scores.astype(np.float64), axis=-1)


def _run_onnx(path: str | os.PathLike, x: np.ndarray) -> np.ndarray:
    """Return what onnxruntime makes of examples."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            "[check] this needs onnxruntime: pip install onnxruntime; or give stored scores"
        ) from None
    from .onnx_trace import start_of

    graph, model = read_onnx(path)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own errors share no public base
        raise ConversionError(f"[check] onnxruntime cannot run the file: {error}") from None
    name, start = start_of(graph)
    images = x.astype(np.float32)
    if start.is_image:
        own = "nwc" if start.is_sequence else "nhwc"
        images = np.ascontiguousarray(images.transpose([own.index(axis) for axis in start.axes]))
    if start.batch not in (None, 0, len(images)):
        assert start.batch is not None
        parts = [images[i : i + start.batch] for i in range(0, len(images), start.batch)]
    else:
        parts = [images]
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])


def _run_lce(path: str | os.PathLike, x: np.ndarray) -> np.ndarray:
    """Return what the interpreter of Larq Compute Engine makes of examples."""
    data = read_regular(path)
    try:
        from larq_compute_engine.tflite.python.interpreter import Interpreter
    except ImportError as error:  # it may be there, but not what it needs itself
        raise ImportError(
            f"[check] this needs larq-compute-engine and tensorflow ({error}); or give stored "
            f"scores"
        ) from None
    read_lce(data)  # its interpreter trusts a file, and a damaged one may kill the process
    try:
        return Interpreter(data).predict(x.astype(np.float32))
    except (RuntimeError, ValueError) as error:
        raise ConversionError(
            f"[check] larq-compute-engine cannot run the file: {error}; its version 0.16 needs "
            f"NumPy 1: give scores that an environment of its own has stored"
        ) from None
