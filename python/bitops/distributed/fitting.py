"""Training on several workers: each computes gradients of shards of a step, one process updates."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import dask
import dask.array
import numpy as np
from distributed import Client, Future
from distributed.comm import CommClosedError

from ..layers.base import all_layers, place_in_mro
from ..layers.container import Sequential
from ..layers.states import describe_generators
from ..ops.checks import as_generator, check_integer
from ..training.callbacks import Callback
from ..training.gradients import parts_of
from ..training.loop import fit as train
from ..training.options import as_callbacks
from ..training.run import History, Run
from ..training.streams import Batch
from ..training.targets import as_sample_weight, check_any_weight
from . import shards as tasks
from .compression import KINDS, Code, Kind
from .graphs import current_client, with_large_graphs
from .shards import Answer, Shard, trained

__all__ = ["fit"]

# What a step raises whose data are lost; before Python 3.11 there are two kinds of TimeoutError.
LOST = (CancelledError, CommClosedError, TimeoutError, asyncio.TimeoutError)
TRIES = 5  # for one step
WAIT = 60  # seconds for a worker to come
POLL = 0.1  # seconds from one look to the next


def fit(
    model: Sequential,
    x: Any,
    y: Any = None,
    *,
    client: Client | None = None,
    shards: int = 8,
    gradients: Kind = "float32",
    **options: Any,
) -> History:
    """Train a model in place, with gradients that the workers of a cluster compute.

    Parameters
    ----------
    model : Sequential
    x, y
        As in `bitops.training.fit`; or dask.arrays. Then the rows of each step are fetched from
        where they lie, in the same order, and options are those of batches.
    client : distributed.Client, optional
        By default the current one.
    shards : int, default 8
        Parts of nearly equal size in which the rows of a step are shared out. Results depend on
        it, but not on the workers; more workers than shards have nothing to do.
    gradients : {"float32", "int8", "sign"}, default "float32"
        What of its gradients a shard sends. What bytes and signs leave out is added to the next
        gradients of the same shard.
    **options
        Those of `bitops.training.fit` but `accumulate`, whose place `shards` takes.

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError, FloatingPointError, KeyboardInterrupt
        As in `bitops.training.fit`.
    RuntimeError
        If no worker comes in a minute, or if a step fails again and again because they are lost.
    distributed.KilledWorker
        If a step kills one worker after the other.

    Notes
    -----
    The shards are the parts of `accumulate`: the result is that of
    ``model.fit(x, y, accumulate=shards)``, and has the same bits for any number of workers. For
    this, float32 sums have one order (that of `bitops.training.gradients.PairwiseSum`); batch
    normalisation takes the statistics of each shard, and averages them in the order of the
    shards; and BLAS must give the same bits on all, so that workers need like CPUs, one NumPy and
    equal numbers of BLAS threads, of which Dask's nannies allow one. Random generators of layers
    are set anew for each step and shard: here, results differ from those of ``accumulate``.

    In each step workers get the signs of binary weights, one bit each, where the layer needs no
    more, and float32 of all else; the sum of the gradients comes back. Optimizer, validation,
    augmentation and callbacks run in this process, which has the only whole model. If workers are
    lost, others do their part of the step; if what they hold is lost, the step is done again.

    With "int8" and "sign" the sum travels as int16 and int8. What is left out is kept by the
    workers, for an epoch: it is dropped at the start of the next one, and that of a shard if its
    worker is lost. So a training that resumes from a checkpoint at the end of an epoch is exact;
    from one in an epoch it is not.

    Checkpoints are those of ``accumulate``: a training may go on with or without a cluster, but
    one of "int8" or "sign" gradients with the same ones only.

    Examples
    --------
    >>> client = distributed.Client("scheduler:8786")  # doctest: +SKIP
    >>> fit(model, x, y, shards=8, epochs=20)  # doctest: +SKIP
    """
    where = "distributed.fit"
    if not isinstance(model, Sequential):
        raise TypeError(f"[{where}] model must be a Sequential, got {model!r:.80}")
    shards = check_integer(where, "shards", shards, 1)
    if gradients not in KINDS:
        raise ValueError(
            f"[{where}] gradients must be one of {', '.join(KINDS)}, got {gradients!r}"
        )
    most = KINDS[gradients]
    if most is not None and shards > most:
        raise ValueError(
            f"[{where}] shards must be at most {most} with {gradients} gradients, got {shards}"
        )
    if "accumulate" in options:
        raise ValueError(
            f"[{where}] accumulate must be left out, as shards takes its place, "
            f"got {options['accumulate']!r:.80}"
        )
    _check_layers(model)
    sharded = _Sharded(_as_client(client), shards, gradients)
    callbacks = [sharded, *as_callbacks(options.pop("callbacks", ()))]
    if isinstance(x, dask.array.Array):
        x, y = _Rows.of(sharded.client, x, y, options), None
    return train(model, x, y, accumulate=shards, callbacks=callbacks, **options)


def _as_client(client: Any) -> Client:
    if client is None:
        client = current_client()
        if client is None:
            raise ValueError(
                "[distributed.fit] client must be given, or a distributed.Client be current, got "
                "None"
            )
    if not isinstance(client, Client) or client.asynchronous:
        raise TypeError(
            f"[distributed.fit] client must be a synchronous distributed.Client, got {client!r:.80}"
        )
    return client


def _check_layers(model: Sequential) -> None:
    """Refuse a layer whose state would change in a worker only."""
    for layer in all_layers(model.flat_layers()):
        kind = type(layer)
        if layer.branches() or place_in_mro(kind, "state") >= place_in_mro(kind, "observe"):
            continue
        parameters = layer.parameters()  # type: ignore[attr-defined]
        if len(layer.state()) != len(parameters):  # type: ignore[attr-defined]
            raise TypeError(
                f"[distributed.fit] a layer whose state holds more than its parameters must define "
                f"observed and observe, got {layer!r:.80}"
            )


class _Sharded(Callback):
    """Lets workers compute the gradients of a training."""

    def __init__(self, client: Client, shards: int, kind: Kind) -> None:
        self.client = client
        self._shards, self._kind = shards, kind
        self._addresses: list[str] = []
        self._start()

    def _start(self) -> None:
        """Begin without scales, and with nothing left out."""
        self._code = Code(self._kind)
        self._blocks: list[range] = []
        self._feedback: list[Future | None] = []

    def settings(self) -> dict[str, str]:
        return {} if self._kind == "float32" else {"gradients": self._kind}

    def on_start(self, run: Run) -> None:
        run.add_gradients = self.add_gradients

    def on_epoch(self, run: Run) -> None:
        self._start()

    def on_end(self, run: Run) -> None:
        self._start()

    def add_gradients(self, run: Run, batch: Batch) -> tuple[float, float]:
        """Write the gradients of a step; return its loss and the sum of its errors."""
        parts = [Shard(i, *part) for i, part in enumerate(parts_of(batch, self._shards))]
        answer = self._ask(run, parts)
        value = sum(part.share * loss for part, loss in zip(parts, answer.losses, strict=True))
        if not tasks.is_finite(answer):
            return float(next(v for v in answer.losses if not np.isfinite(v))), 0.0
        for observed in answer.observed:
            for layer, arrays in zip(all_layers(run.model.flat_layers()), observed, strict=True):
                layer.observe(*arrays)  # type: ignore[attr-defined]
        sums = self._code.decode(answer.sums)
        for parameter, total in zip(trained(run.model), sums, strict=True):
            parameter.grad[...] = total
        self._code = self._code.next(answer.levels)
        return value, sum(answer.errors)

    def _ask(self, run: Run, parts: list[Shard]) -> Answer:
        """Let workers compute a step, again if what they need is lost."""
        for _ in range(TRIES):
            try:
                if not self._blocks:
                    self._share_out()
                return self._computed(run, parts)
            except LOST as error:
                cause = error
                self._forget_lost()
        raise RuntimeError(
            f"[distributed.fit] workers must stay for a step, got {TRIES} failures of step "
            f"{run.step}"
        ) from cause

    def _share_out(self) -> None:
        """Divide the shards into blocks, at least one for each thread of the workers.

        A block starts at a multiple of its size, a power of two, so that its sum is one of those of
        which the total is made.
        """
        self._find_workers()
        threads = len(self._addresses)
        wanted = threads if threads & (threads - 1) == 0 else 2 * threads
        size = 1
        while size * wanted < self._shards:
            size *= 2
        starts = range(0, self._shards, size)
        self._blocks = [range(start, min(start + size, self._shards)) for start in starts]
        self._feedback = [None] * len(self._blocks)

    def _find_workers(self) -> None:
        """Look up the workers, each as often as it has threads; wait for one to come."""
        end = time.monotonic() + WAIT
        while not (threads := self.client.nthreads()):
            if time.monotonic() > end:
                raise RuntimeError(
                    f"[distributed.fit] the client must have a worker, got none in {WAIT} s"
                )
            time.sleep(POLL)
        self._addresses = [name for name in sorted(threads) for _ in range(threads[name])]

    def _forget_lost(self) -> None:
        """Find the workers that are left, and drop what others have kept."""
        self._find_workers()
        kept = [f if f is not None and f.status == "finished" else None for f in self._feedback]
        self._feedback = kept

    def _computed(self, run: Run, parts: list[Shard]) -> Answer:
        """Compute a step: a task for each block of shards, and a tree of sums."""
        errors = run.targets.errors
        step = tasks.step_of(run.model, run.loss, errors, self._code, _seed_of(run))
        sent = self.client.scatter(step, broadcast=True, hash=False)
        answers: list[Future[Any]] = []
        kept: list[Future[Any] | None] = []
        with with_large_graphs():
            for i, (block, feedback) in enumerate(zip(self._blocks, self._feedback, strict=True)):
                home = {
                    "workers": self._addresses[i * len(self._addresses) // len(self._blocks)],
                    "allow_other_workers": True,
                    "pure": False,
                }
                own = parts[block.start : block.stop]
                if self._kind == "float32":
                    answers.append(self.client.submit(tasks.compute_answer, sent, own, **home))
                    continue
                computed = self.client.submit(tasks.compute_shards, sent, own, feedback, **home)
                answers.append(self.client.submit(tasks.answer_of, computed, pure=False))
                kept.append(self.client.submit(tasks.feedback_of, computed, pure=False))
            while len(answers) > 1:
                pairs = [answers[i : i + 2] for i in range(0, len(answers), 2)]
                answers = [
                    self.client.submit(tasks.merge, *pair, pure=False) if pair[1:] else pair[0]
                    for pair in pairs
                ]
        answer = answers[0].result()
        self._feedback = kept or self._feedback
        return answer


def _seed_of(run: Run) -> list[int]:
    """Return words for the random numbers of a step: they are the same in a training resumed."""
    states = describe_generators(run.model.generators())
    if not states:
        return []
    digest = hashlib.sha256(json.dumps([states, run.seed]).encode()).digest()
    return [int.from_bytes(digest[:8], "little"), run.step]


class _Rows:
    """Batches of the rows of dask.arrays, in the order in which `fit` takes rows."""

    def __init__(self, client: Client, x: dask.array.Array, arrays: Any, size: int, rng: Any):
        self._client, self._x, self._arrays = client, x, arrays
        self._size, self._rng = size, rng

    @classmethod
    def of(cls, client: Client, x: dask.array.Array, y: Any, options: dict[str, Any]) -> _Rows:
        """Check arrays, and the options that concern them."""
        where = "distributed.fit"
        if np.isnan(x.shape[0]):
            raise ValueError(f"[{where}] x must have chunks of known sizes, got {x.shape}")
        arrays = [np.asarray(client.compute(y).result() if dask.is_dask_collection(y) else y)]
        if arrays[0].ndim < 1 or len(arrays[0]) != len(x):
            raise ValueError(
                f"[{where}] y must have the {len(x)} rows of x, got shape {arrays[0].shape}"
            )
        if options.get("sample_weight") is not None:
            weight = options.pop("sample_weight")
            arrays.append(as_sample_weight(where, "sample_weight", weight, len(x)))
            check_any_weight(where, arrays[1])
        size = check_integer("fit", "batch_size", options.get("batch_size", 100), 1)
        rng = copy.deepcopy(as_generator("fit", options.get("seed", 0)))
        return cls(client, x, arrays, min(size, len(x)), rng)

    def __len__(self) -> int:
        return len(self._x) // self._size

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        order = self._rng.permutation(len(self._x))
        for start in range(0, len(self) * self._size, self._size):
            rows = order[start : start + self._size]
            sorted_rows = np.sort(rows)
            found = self._client.compute(self._x[sorted_rows]).result()
            yield found[np.searchsorted(sorted_rows, rows)], *(a[rows] for a in self._arrays)
