"""Search and train on several processes
=====================================

Dask spreads the work; the results are those of one process.

The cluster is on this machine. With workers on other machines, `Client("tcp://scheduler:8786")`
takes its place, and the folder must be on a file system that all of them share; the page
"Many machines, with Dask" tells how codes on separate disks are searched.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import dask.array
import numpy as np
from distributed import Client, LocalCluster

import bitops as bo
from bitops import distributed
from bitops.layers import BatchNorm, BinaryDense, Sequential, Sign
from bitops.search import BitIndex


def save_part(path: str, seed: int) -> BitIndex:
    """Make codes where they shall lie: each task writes a folder that all workers can open."""
    rng = np.random.default_rng(seed)
    index = BitIndex(rng.standard_normal((20_000, 128), dtype=np.float32))
    index.save(path)
    return index


def search(folder: str) -> None:
    """Search codes that four tasks have written."""
    paths = [str(Path(folder, f"part-{i}")) for i in range(4)]
    parts = dask.compute(*[dask.delayed(save_part)(path, i) for i, path in enumerate(paths)])

    queries = bo.pack(np.random.default_rng(9).standard_normal((10, 128)))
    distances, ids = distributed.topk(queries, paths, 5)
    near = distributed.within(queries, paths, 40)

    rows = bo.BitArray.from_words(
        np.concatenate([part.rows(part.ids).words for part in parts]), (80_000, 128)
    )
    expected = bo.hamming_topk(queries, rows, 5)
    assert np.array_equal(distances, expected[0]) and np.array_equal(ids, expected[1])
    assert near.nnz == np.count_nonzero(bo.hamming(queries, rows) <= 40)
    print(f"found {ids.size} nearest rows and {near.nnz} within 40 bits, in {len(paths)} folders")


def make() -> Sequential:
    return Sequential(
        BinaryDense(64, 128, seed=1),
        BatchNorm(128),
        Sign(),
        BinaryDense(128, 10, seed=2),
        BatchNorm(10),
    )


def train() -> None:
    """Train on the workers, and in this process; predict on the workers."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2000, 64), dtype=np.uint8)
    y = x.reshape(2000, 8, 8)[:, 0].argmax(axis=1)  # the brightest pixel of the first line
    options = {"epochs": 2, "batch_size": 200, "verbose": 0}

    model, alone = make(), make()
    history = distributed.fit(model, x, y, shards=4, **options)
    alone.fit(x, y, accumulate=4, **options)
    assert np.array_equal(model.layers[0].weight.value, alone.layers[0].weight.value)
    print(f"trained: error {history.epochs[-1].train_error:.1%}, weights equal to the bit")

    chunks = dask.array.from_array(x, chunks=(500, 64))
    labels = distributed.predict(model.freeze(), chunks)
    assert np.array_equal(labels.compute(), model.freeze().predict(x))


def main() -> None:
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="ERROR"
    )
    with cluster, Client(cluster), TemporaryDirectory() as folder:
        search(folder)
        train()


if __name__ == "__main__":
    main()
