"""What all parts need of Dask: computing a few tasks, and a client."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import dask
from distributed import Client, default_client

__all__ = ["compute", "current_client", "with_large_graphs"]


def current_client() -> Client | None:
    """Return the client that computes by default; None if another scheduler does."""
    if dask.config.get("scheduler", "dask.distributed") not in ("dask.distributed", "distributed"):
        return None
    try:
        return default_client()
    except ValueError:
        return None


def with_large_graphs() -> AbstractContextManager:
    """Let graphs hold what they must: queries and models are sent with them, on purpose."""
    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"})


def compute(tasks: Sequence[Any]) -> tuple[Any, ...]:
    """Compute tasks by the current scheduler."""
    with with_large_graphs():
        return dask.compute(*tasks)
