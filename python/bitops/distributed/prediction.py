"""Predictions for arrays in chunks and for files: lazy, with one model for each worker."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array
import dask.bag
import numpy as np

from ..files import notes
from ..files.examples import Examples, find_files
from ..files.pictures import RESIZE
from ..layers import Packed, Sequential
from ..layers.inputs import check_size
from ..ops.array import BitArray
from ..recipes.preprocess import image_step
from .graphs import current_client, with_large_graphs

__all__ = ["predict"]

BATCH = 256  # examples of files that pass the model at once

Method = Literal["predict", "predict_proba", "outputs"]
METHODS = {"predict": np.int64, "predict_proba": np.float32, "outputs": np.float32}


def predict(
    model: Packed | Sequential,
    x: Any,
    *,
    method: Method = "predict",
    batch_size: int | None = None,
    resize: str | None = None,
) -> Any:
    """Predict the rows of a dask.array, or the examples in a bag of files.

    Parameters
    ----------
    model : Packed or Sequential
    x : dask.array of shape (n, ...), as the model takes rows; or dask.bag of paths
        The files are pictures, or arrays of examples (.npy, .npz), as `bitops predict` reads them.
    method : {"predict", "predict_proba", "outputs"}, default "predict"
        What of the model is called: classes, probabilities or scores.
    batch_size : int, optional
        Rows that pass the model at once. By default as in `Packed.outputs` for rows, and 256 for
        files.
    resize : {"stretch", "crop"}, optional
        How pictures of another size are brought to that of the model. By default as its notes say;
        without a note they are refused.

    Returns
    -------
    dask.array of shape (n,), int64, or (n, ...), float32; or dask.bag of (path, ndarray)
        Lazy. Of a bag, each path with the results of its examples, one for a picture.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or `x` is an array whose shape the model does not take. What
        a file or a chunk raises is raised when it is computed.

    Notes
    -----
    Chunks and partitions are predicted where they are. If a `distributed.Client` is current, it
    gets the model now, under a name made of its content, and each worker fetches it once, from the
    scheduler or from another worker; a later call with an equal model finds it there as long as
    an earlier result is alive. The result must then be computed by this client. Otherwise the model
    is part of the graph.

    Examples
    --------
    >>> import dask.array
    >>> from bitops.layers import BinaryDense
    >>> model = Sequential(BinaryDense(64, 3, seed=1))
    >>> x = dask.array.ones((10, 64), dtype=np.float32, chunks=(4, 64))
    >>> predict(model, x).compute().shape
    (10,)
    """
    where = "distributed.predict"
    if not isinstance(model, Packed | Sequential):
        raise TypeError(f"[{where}] model must be a Packed or a Sequential, got {model!r:.80}")
    if method not in METHODS:
        raise ValueError(f"[{where}] method must be one of {', '.join(METHODS)}, got {method!r}")
    if batch_size is not None:
        batch_size = check_size(where, "batch_size", batch_size)
    if isinstance(x, dask.array.Array):
        if resize is not None:
            raise ValueError(f"[{where}] resize must be None for arrays, got {resize!r:.80}")
        return _of_array(model, x, method, batch_size)
    if not isinstance(x, dask.bag.Bag):
        raise TypeError(f"[{where}] x must be a dask.array or a dask.bag, got {type(x).__name__}")
    if resize not in (None, *RESIZE):
        raise ValueError(f"[{where}] resize must be one of {', '.join(RESIZE)}, got {resize!r:.80}")
    options = {"method": method, "batch_size": batch_size or BATCH, "resize": resize}
    return x.map_partitions(_files, _sent(model), **options)


def _of_array(
    model: Packed | Sequential, x: dask.array.Array, method: Method, batch_size: int | None
) -> dask.array.Array:
    where = "distributed.predict"
    if x.ndim < 2:
        raise ValueError(f"[{where}] x must have shape (n, features), got {x.shape}")
    try:
        outputs = model.output_shape(x.shape[1:])
    except ValueError as error:
        raise ValueError(
            f"[{where}] x must have the shape that the model takes, got {x.shape}: {error}"
        ) from None
    if method == "predict":
        outputs = outputs[:-1]
    if None in outputs:
        raise ValueError(f"[{where}] the model must tell the shape of its outputs, got {outputs}")
    dtype = METHODS[method]
    rows = x.rechunk({axis: -1 for axis in range(1, x.ndim)})
    return dask.array.map_blocks(
        partial(_rows, method=method, batch_size=batch_size),
        rows,
        _sent(model),
        chunks=(x.chunks[0], *((size,) for size in outputs)),
        drop_axis=range(1 + len(outputs), x.ndim),
        new_axis=range(x.ndim, 1 + len(outputs)),
        meta=np.empty((0,) * (1 + len(outputs)), dtype),
        name=f"predict-{dask.base.tokenize(model, rows, method, batch_size)}",
    )


def _sent(model: Packed | Sequential) -> Any:
    """Return the model as a node of graphs, of which a client gets the content at once."""
    key = f"bitops-model-{dask.base.tokenize(model)}"
    client = current_client()
    if client is None:
        return dask.delayed(model, name=key, traverse=False)
    with with_large_graphs():
        return client.submit(_itself, model, key=key)


# ---- what runs on workers ---------------------------------------------------------------------


def _itself(model: Packed | Sequential) -> Packed | Sequential:
    return model


def _rows(
    x: np.ndarray | BitArray,
    model: Packed | Sequential,
    *,
    method: Method,
    batch_size: int | None,
) -> np.ndarray:
    """Call the model on rows."""
    found = getattr(model, method)(x, batch_size=batch_size)
    if isinstance(found, BitArray):
        raise TypeError(
            "[distributed.predict] the model must end in scores, got one that ends in bits"
        )
    return np.asarray(found, METHODS[method])


def _files(
    paths: Iterable[str | Path],
    model: Packed | Sequential,
    *,
    method: Method,
    batch_size: int,
    resize: str | None,
) -> list[tuple[str | Path, np.ndarray]]:
    """Return each path with the results of its examples."""
    given = {path: Path(path) for path in paths}
    for path in given.values():
        if path.is_dir():
            raise ValueError(f"[distributed.predict] a path must be that of a file, got {path}")
    parts: dict[Path, list[np.ndarray]] = {path: [] for path in find_files(given.values())}
    for batch in _examples(model, resize).batches(parts, batch_size):
        found = _rows(batch.x, model, method=method, batch_size=batch_size)
        for path, result in zip(batch.files, np.split(found, len(found)), strict=True):
            parts[path].append(result)
    for path, results in parts.items():
        if not results:
            raise ValueError(f"[distributed.predict] {path} must hold examples, got none")
    return [(name, np.concatenate(parts[path])) for name, path in given.items()]


def _examples(model: Packed | Sequential, resize: str | None) -> Examples:
    if isinstance(model, Sequential):  # it has no notes
        return Examples(model.input_shape, lambda x: x, resize)
    steps = image_step(model), resize or notes.resizing(model), notes.image_shape(model)
    return Examples(model.input_shape, *steps)
