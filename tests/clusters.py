"""Clusters of processes on this machine, for the tests of bitops.distributed."""

import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Nannies live in the process of the tests: a warning of Dask's that is raised in their event loop
# would keep them from starting a lost worker again.
no_errors_of_warnings = pytest.mark.filterwarnings("default")

needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows ends processes otherwise")


@contextmanager
def cluster_of(workers: int) -> Iterator:
    """Yield a client of a cluster with so many worker processes, of one thread each."""
    import dask
    from distributed import Client, LocalCluster

    quiet = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}
    with warnings.catch_warnings(), dask.config.set(quiet):
        # sockets that a killed worker leaves open, and the like, are not ours to close
        warnings.simplefilter("ignore")
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=50,
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            with client.as_current():
                yield client


def scale(client, workers: int, seconds: float = 60) -> None:
    """Let a cluster have so many workers, no more and no fewer.

    `wait_for_workers` also ends when there are too many; and it makes the cluster learn anew which
    there are, so that the news of one that leaves in the meantime ends in a KeyError.
    """
    client.cluster.scale(workers)
    end = time.monotonic() + seconds
    while len(client.nthreads()) != workers:
        assert time.monotonic() < end, f"{len(client.nthreads())} workers, not {workers}"
        time.sleep(0.05)


def kill_once(path: Path) -> None:
    """End this process, but only the first time that anyone comes to this path."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(handle, str(os.getpid()).encode())
    os.close(handle)
    os.kill(os.getpid(), signal.SIGKILL)
