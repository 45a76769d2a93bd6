"""Search, prediction and training on many machines, by Dask: the extra `dask`.

`partitions` searches codes where they lie, `prediction` runs a model on arrays and files, and
`fitting` trains one model on several workers. They use the scheduler that the program already has,
and import the rest of the package except the command line.
"""

try:
    import dask.array  # noqa: F401 - looked for here, so that one message says what is missing
    import distributed  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"[distributed] dask with its arrays and distributed must be installed, got: {error}"
    ) from error

from .fitting import fit
from .partitions import topk, within
from .prediction import predict

__all__ = ["fit", "predict", "topk", "within"]
