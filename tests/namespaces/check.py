"""Search, predict and train on workers in two networks, and lose one; results are the usual ones.

    python check.py SCHEDULER HOST

A worker at the second address is killed in a training.
"""

import os
import signal
import sys
import time

import dask.array as da
import numpy as np
from distributed import Client, get_worker

import bitops as bo
from bitops import distributed, models
from bitops.layers.states import flatten
from bitops.training import Callback

WORKERS = 3


class Kill(Callback):
    """Ends a worker of a host after a step."""

    def __init__(self, client, host, step):
        pids = client.run(os.getpid)  # the namespaces share processes
        self.pid = next(pid for name, pid in pids.items() if host in name)
        self.step = step

    def on_batch(self, run):
        if run.step == self.step:
            os.kill(self.pid, signal.SIGKILL)

    def on_end(self, run):
        assert (self.step is None) == os.path.exists(f"/proc/{self.pid}")


def where(block):
    return np.full((len(block), 1), int(get_worker().address.split(":")[1].rpartition(".")[2]))


def main(address, host):
    rng = np.random.default_rng(0)
    with Client(address, timeout=60) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        words = rng.integers(0, 2**64, (80_000, 4), dtype=np.uint64)
        codes = da.from_array(words, chunks=(10_000, 4)).persist()
        hosts = np.unique(codes.map_blocks(where, dtype=int, chunks=(10_000, 1)))
        assert len(hosts.compute()) == 2, "both hosts must have partitions"
        bits = bo.BitArray.from_words(words, (80_000, 256))
        queries = bo.pack(rng.standard_normal((20, 256)))
        start = time.perf_counter()
        found = distributed.topk(queries, codes, 10)
        print(f"topk: {time.perf_counter() - start:.3f} s, partitions on both hosts")
        expected = bo.hamming_topk(queries, bits, 10)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))

        x, y = rng.integers(0, 256, (1200, 64), dtype=np.uint8), rng.integers(0, 10, 1200)
        options = {"epochs": 3, "batch_size": 120, "verbose": 0}
        alone = models.mlp(64, 512, 2, 10, seed=1)
        alone.fit(x, y, accumulate=8, **options)
        for step in (None, 7):
            model = models.mlp(64, 512, 2, 10, seed=1)
            history = distributed.fit(
                model, x, y, client=client, callbacks=Kill(client, host, step), **options
            )
            pairs = zip(flatten(model.state()), flatten(alone.state()), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)
            lost = "no worker lost" if step is None else f"a worker at {host} killed at step {step}"
            print(f"fit: {history.seconds:.2f} s for 30 steps, {lost}, weights equal to the bit")
        labels = distributed.predict(model, da.from_array(x, chunks=(100, 64))).compute()
        assert np.array_equal(labels, model.predict(x))
        print("predict: equal")


if __name__ == "__main__":
    main(*sys.argv[1:])
