"""Ranges, self-joins, scores of real queries, halves and moves of bits, at sizes of real use.

    python bench/ranges.py [--isa avx2] [--rows 1000000] [--queries 1000] [--only scores ...]

Seconds are the best of three. Pairs are checked against a full comparison by NumPy on a part of the
rows, ids and scores against NumPy's. The rival of the two-stage search is the recipe that
sentence-transformers publish: faiss's binary index, then products with the unpacked candidates.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitops as bo
import common
from bitops import search
from bitops.search import full_product
from bitops.search.limits import Limits
from bitops.search.metrics import METRICS
from common import bit_rows

Words = NDArray[np.uint64]

MOVED_BYTES, MOVED_BITS = 1 << 28, (64, 512, 1024, 1 << 24)
CHECKED_ROWS = 3000
CHECKED_QUERIES, CHECKED_PART = 5, 20_000  # whose scores are compared, rows at a time
FINGERPRINTS, CHECKED_SETS = 30_000, 1000
SCANNED_ROWS = 4096  # of a full comparison, whose time grows with the rows


def best(call: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """Return the shortest time of a call, and what it returned."""
    shortest, result = np.inf, None
    for _ in range(times):
        del result
        start = time.perf_counter()
        result = call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest, result


def show(name: str, figure: str, note: str = "") -> None:
    print(f"{bo.isa.active():8} {name:52} {figure:>18}  {note}", flush=True)


def check(name: str, right: Any) -> None:
    if not np.all(right):
        sys.exit(f"ranges: {name}: wrong result")


def near_rows(rng: np.random.Generator, rows: int, k: int, most: int) -> Words:
    """Random rows, of which a fifth are others with up to `most` bits inverted."""
    words = rng.integers(0, 2**64, (rows, k // 64), np.uint64)
    copies = rng.choice(rows, rows // 5, replace=False)
    words[copies] = words[rng.integers(0, rows, len(copies))]
    for _ in range(most):
        bits = rng.integers(0, k, len(copies), np.uint64)
        words[copies, bits // 64] ^= np.uint64(1) << bits % 64
    return words


def check_pairs(name: str, words: Words, radius: int) -> None:
    """Compare the pairs of the first rows with those that NumPy finds."""
    few = words[:CHECKED_ROWS]
    counts = sum(np.bitwise_count(column[:, None] ^ column).astype(np.int32) for column in few.T)
    i, j = np.nonzero(np.triu(counts <= radius, 1))
    found = search.pairs_within(bit_rows(few), radius, "hamming")
    check(name, all(map(np.array_equal, found, (i, j, counts[i, j]))))


def self_join(rng: np.random.Generator, rows: int, k: int, radius: int) -> None:
    words = near_rows(rng, rows, k, radius)
    bits, name = bit_rows(words), f"self-join {rows} x {k} bits within {radius}"
    seconds, (i, _, _) = best(lambda: search.pairs_within(bits, radius, "hamming"))
    check_pairs(name, words, radius)
    show(name, f"{seconds:.2f} s", f"{len(i)} pairs")
    part, found = words[:SCANNED_ROWS], []
    limits = Limits(METRICS["hamming"], radius, k, None)
    first, _ = full_product.choose_product(words, words, limits)
    seconds, _ = best(
        lambda: full_product.scan(part, words, limits, False, first, lambda *own: found.append(own))
    )
    seconds *= (rows - 1) / 2 / len(part)
    show(f"the same, all pairs (folds of {first} words first)", f"{seconds:.1f} s", "from a part")


def join_sets(rng: np.random.Generator, metric: str, radius: float) -> None:
    """Pairs of fingerprints, and of the first of them those that NumPy finds."""
    words = common.fingerprints(rng, FINGERPRINTS, 2048, True)
    seconds, (i, _, _) = best(lambda: search.pairs_within(bit_rows(words), radius, metric))
    few = words[:CHECKED_SETS]
    common_bits = np.bitwise_count(few[:, None] & few).sum(axis=-1, dtype=np.int64)
    counts = np.diag(common_bits)
    sums = counts[:, None] + counts
    parts = sums - common_bits if metric == "jaccard" else sums
    values = (sums - 2 * common_bits) / parts
    pairs = np.nonzero(np.triu(values <= radius, 1))
    found = search.pairs_within(bit_rows(few), radius, metric)
    check(metric, all(map(np.array_equal, found, (*pairs, values[pairs]))))
    show(
        f"{len(words)} x 2048 bits within {radius}, {metric}", f"{seconds:.2f} s", f"{len(i)} pairs"
    )


def ranges(rng: np.random.Generator, options: argparse.Namespace) -> None:
    """Self-joins, and the comparison of all pairs of which they are a part."""
    join_sets(rng, "jaccard", 0.3)
    join_sets(rng, "dice", 0.2)
    self_join(rng, options.rows, 64, 4)
    self_join(rng, options.rows, 1024, 40)


def published_recipe(index: Any, queries: Any, count: int, factor: int) -> NDArray[np.int64]:
    """Search and rescore as sentence_transformers.quantization.semantic_search_faiss does."""
    _, ids = index.search(np.packbits(queries > 0, axis=1), count * factor)
    rows = np.array([[index.reconstruct(int(i)) for i in own] for own in ids])
    numbers = np.unpackbits(rows, axis=-1).astype(int)
    scores = np.einsum("ij,ikj->ik", queries, numbers)
    order = np.argsort(-scores, kind="stable")[:, :count]
    return np.take_along_axis(ids, order, axis=1)


def two_stages(queries: Any, bits: bo.BitArray, count: int, factor: int) -> NDArray[np.int64]:
    _, ids = search.topk(queries > 0, bits, count * factor, "hamming")
    scores = search.rescore(queries, bits, ids, values=(0, 1))
    order = np.argsort(-scores, kind="stable")[:, :count]
    return np.take_along_axis(ids, order, axis=1)


def rounded(queries: NDArray[np.float32], query_bits: int | None) -> NDArray[np.float64]:
    """Return the queries as `score_topk` sees them."""
    values = queries.astype(np.float64)
    if query_bits is None:
        return values
    scale = np.abs(values).max(axis=1, keepdims=True) / (2 ** (query_bits - 1) - 1)
    return np.rint(values / scale) * scale


def largest_scores(queries: NDArray[np.float64], words: Words, count: int) -> NDArray[np.float64]:
    """Return the largest products with rows of bits by NumPy, best first, rows part by part."""
    found = np.full((len(queries), count), -np.inf)
    for start in range(0, len(words), CHECKED_PART):
        part = words[start : start + CHECKED_PART].view(np.uint8)
        signs = 2.0 * np.unpackbits(part, axis=1, bitorder="little") - 1
        found = np.sort(np.hstack([found, queries @ signs.T]), axis=1)[:, -count:]
    return found[:, ::-1]


def scores(rng: np.random.Generator, options: argparse.Namespace) -> None:
    """Real queries: rescored, and multiplied with all rows."""
    k, rows = 1024, options.rows
    words = rng.integers(0, 2**64, (rows, k // 64), np.uint64)
    bits = bit_rows(words)
    queries = rng.standard_normal((options.queries, k), dtype=np.float32)
    name = f"{len(queries)} queries x {rows} x {k} bits, 100 rescored to 10"
    seconds, ids = best(lambda: two_stages(queries, bits, 10, 10))
    note = "faiss is not installed"
    try:
        import faiss
    except ImportError:
        pass
    else:
        faiss.omp_set_num_threads(1)
        index = faiss.IndexBinaryFlat(k)
        index.add(bits.to_packbits())
        slow, same = best(lambda: published_recipe(index, queries, 10, 10), 1)
        # The two stages end ties of distances and of rounded sums in different ways.
        share = float((np.sort(ids) == np.sort(same)).mean())
        note = f"published recipe {slow:.2f} s: {slow / seconds:.1f} x, {share:.2%} equal ids"
    show(name, f"{seconds:.2f} s", note)
    queries = queries[:100]
    for query_bits in (4, 8, None):
        name = f"score_topk, {query_bits or 'float32'} queries, 100 x {rows} x {k}"
        seconds, (found, _) = best(
            lambda b=query_bits: search.score_topk(queries, bits, 10, query_bits=b), 2
        )
        few = rounded(queries[:CHECKED_QUERIES], query_bits)
        check(name, np.isclose(found[: len(few)], largest_scores(few, words, 10), rtol=1e-5))
        show(name, f"{len(queries) * rows * k / seconds / 1e9:.0f} GMAC/s")


def packing(rng: np.random.Generator, options: argparse.Namespace) -> None:
    """Halves, beside float32."""
    del options
    x = rng.standard_normal((1 << 13, 1 << 13), dtype=np.float32)
    dtypes = [np.dtype(np.float32), np.dtype(np.float16)]
    try:
        import ml_dtypes

        dtypes.append(np.dtype(ml_dtypes.bfloat16))
    except ImportError:
        pass
    for dtype in dtypes:
        values = x.astype(dtype)
        seconds, bits = best(partial(bo.pack, values))
        check(f"pack {dtype}", bo.pack(values.astype(np.float32)) == bits)
        show(f"pack {dtype}", f"{values.nbytes / seconds / 1e9:.1f} GB/s")


def moves(rng: np.random.Generator, options: argparse.Namespace) -> None:
    """Logic and moves of 256 MiB to new arrays: share of a plain read and write of these bytes."""
    del options
    words = rng.integers(0, 2**64, MOVED_BYTES // 8, np.uint64)
    shares = [move_rows(rng, words.reshape(-1, k // 64), k) for k in MOVED_BITS]
    show("bits of a row", "  ".join(f"{k:>8}" for k in MOVED_BITS))
    for name in shares[0]:
        show(name, "  ".join(f"{of_rows[name]:8.0%}" for of_rows in shares))


def move_rows(rng: np.random.Generator, rows: Words, k: int) -> dict[str, float]:
    """Return the share for each move of these rows; NumPy moves the same bytes by turns with us."""
    a, b = bit_rows(rows), bit_rows(rows[::-1].copy())
    order, in_order = rng.permutation(len(rows)), np.arange(len(rows))
    part = np.unpackbits(rows[:9].view(np.uint8), axis=1, bitorder="little").astype(bool)

    def bits(x: NDArray[np.bool_]) -> Callable[[bo.BitArray], bool]:
        return lambda got: got[: len(x)] == bo.pack(x)

    def words(x: Words) -> Callable[[bo.BitArray], bool]:
        return lambda got: np.array_equal(got.words[: len(x)], x)

    def most(axis: int) -> Callable[[bo.BitArray], bool]:
        return lambda got: got == bo.pack(2 * bo.popcount(a, axis) >= a.shape[axis])

    x, y = rows[:9], b.words[:9]
    copy = (rows.copy,)
    two = (b.words.max, rows.copy)
    cases = {
        "a & b": (two, lambda: a & b, words(x & y)),
        "a | b": (two, lambda: a | b, words(x | y)),
        "a ^ b": (two, lambda: a ^ b, words(x ^ y)),
        "~a": (copy, lambda: ~a, words(~x)),
        "roll by 13": (copy, lambda: np.roll(a, 13, 1), bits(np.roll(part, 13, 1))),
        "roll by a third": (copy, lambda: np.roll(a, k // 3, 1), bits(np.roll(part, k // 3, 1))),
        "roll of rows": (copy, lambda: np.roll(a, 5, 0), words(np.roll(rows, 5, 0)[:9])),
        "flip": (copy, lambda: np.flip(a, 1), bits(part[:, ::-1])),
        "take, in order": (copy, lambda: np.take(a, in_order, 0), words(x)),
        "take, at random": (copy, lambda: np.take(a, order, 0), words(rows[order[:9]])),
        "majority of columns": ((rows.max,), lambda: bo.majority(a, 0), most(0)),
        "majority of rows": ((rows.max,), lambda: bo.majority(a, 1), most(1)),
    }
    shares = {}
    for name, (plain, call, is_right) in cases.items():
        check(f"{name}, {k} bits", is_right(call()))
        turns = [turn((*plain, call)) for _ in range(4)]
        fastest = np.min(turns, axis=0)
        shares[name] = float(fastest[:-1].sum() / fastest[-1])
    return shares


def turn(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """Return the seconds of each call; what it returns is freed within."""
    return [best(call, 1)[0] for call in calls]


PARTS = {part.__name__: part for part in (ranges, scores, packing, moves)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", choices=bo.isa.available())
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    if options.isa:
        bo.isa.use(options.isa)
    bo.set_num_threads(1)
    print(common.stamp())
    for name in options.only:
        PARTS[name](np.random.default_rng(0), options)


if __name__ == "__main__":
    main()
