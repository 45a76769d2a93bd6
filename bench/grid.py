"""The grid of sweep.py: products, searches, packing and convolutions from tiny to large.

A case is a kind, a size, the work in it, and a function that makes operands and returns `Calls`.
Bits are random and of one seed. What a call must give is counted by NumPy, without our kernels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import bitops as bo
from bitops import reference
from bitops.benchmark import WrongResult, float_conv2d, random_signs
from bitops.ops.geometry import make_window
from peers import faiss_hammings, numkong_hammings

ROWS = (1, 2, 4, 8, 16, 17, 32, 100, 1000, 4096)
COLUMNS = (10, 64, 256, 1000, 4096, 100_000, 1_000_000)
BITS = (64, 128, 256, 768, 1024, 4096, 100_000)
QUERIES = (1, 100)
NEAREST = 10
IMAGES = (1, 8)
SIDES = (4, 8, 14)
CHANNELS = ((3, 32), (16, 16), (32, 32), (48, 48), (64, 64), (128, 128), (256, 256))

MAX_MACS = 2**34
MAX_BYTES = 2**30
RIVALS = ("numpy", "faiss", "numkong")


class Calls(NamedTuple):
    """What is timed in turns: calls of ours and of rivals, operands and buffers bound."""

    ours: dict[str, Callable[[], Any]]
    rivals: dict[str, Callable[[], Any]]
    check: Callable[[str, Any], None]


class Case(NamedTuple):
    """A point of the grid; `make` receives the rivals that are installed."""

    kind: str
    size: str
    work: int  # multiply-accumulates, or elements to pack
    make: Callable[[dict[str, Any]], Calls]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.size}"


def random_bits(seed: int, n: int, k: int) -> bo.BitArray:
    """Draw rows of bits, zero beyond k."""
    words = np.random.default_rng(seed).integers(0, 2**64, (n, -(-k // 64)), np.uint64)
    if k % 64:
        words[:, -1] &= np.uint64((1 << k % 64) - 1)
    return bo.BitArray.from_words(words, (n, k))


def to_signs(bits: bo.BitArray) -> np.ndarray:
    """The +1 and -1 of bits, float32, by NumPy."""
    flags = np.unpackbits(bits.words.view(np.uint8), axis=1, bitorder="little", count=bits.shape[1])
    return flags * np.float32(2) - np.float32(1)


def count_mismatches(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Count the differing bits of all pairs of rows of words, in blocks that fit the cache."""
    counts = np.zeros((len(a), len(w)), np.int32)
    step = max(1, 2**18 // max(a.shape))
    for start in range(0, len(w), step):
        rows = slice(start, start + step)
        for left, right in zip(a.T, w[rows].T, strict=True):
            counts[:, rows] += np.bitwise_count(left[:, None] ^ right)
    return counts


def take(result: np.ndarray, expected: np.ndarray) -> bool:
    """Tell whether a result is as expected, and overwrite it, in blocks that fit the cache.

    No result of an earlier call in the same buffer may pass for that of a later one.
    """
    step = max(1, 2**18 // result[0].size)
    good = True
    for start in range(0, len(result), step):
        rows = slice(start, start + step)
        good = good and np.array_equal(result[rows], expected[rows])
        result[rows] = 99_999
    return good


def fail(case: str, name: str) -> None:
    raise WrongResult(f"[sweep] {name} gave a wrong result for {case}")


def products(m: int, n: int, k: int, peers: dict[str, Any]) -> Calls:
    """Make gemm and hamming, of rows and of prepacked weights, and the rivals of both."""
    a, w = random_bits(0, m, k), random_bits(1, n, k)
    panels = bo.prepack(w)
    out = np.empty((m, n), np.int32)  # of all but numkong
    ours = {
        "gemm rows": lambda: bo.gemm(a, w, out=out),
        "gemm prepacked": lambda: bo.gemm(a, panels, out=out),
        "hamming rows": lambda: bo.hamming(a, w, out=out),
        "hamming prepacked": lambda: bo.hamming(a, panels, out=out),
    }
    rivals: dict[str, Callable[[], Any]] = {}
    if 4 * ((m + n) * k + m * n) < MAX_BYTES:
        left, right, real = to_signs(a), to_signs(w).T, out.view(np.float32)
        rivals["numpy"] = lambda: np.matmul(left, right, out=real)
    a_bytes, w_bytes = (bits.words.view(np.uint8) for bits in (a, w))
    if "faiss" in peers:
        rivals["faiss"] = faiss_hammings(peers["faiss"], a_bytes, w_bytes, out)
    if "numkong" in peers:
        rivals["numkong"] = numkong_hammings(peers["numkong"], a_bytes, w_bytes)
    mismatches = count_mismatches(a.words, w.words)
    dot = k - 2 * mismatches

    def check(name: str, result: Any) -> None:
        expected = dot if name.startswith(("gemm", "numpy")) else mismatches
        if not take(np.asarray(result), expected):
            fail(f"(m, n, k) = {(m, n, k)}", name)

    return Calls(ours, rivals, check)


def search(m: int, n: int, k: int, peers: dict[str, Any]) -> Calls:
    """Make the search for the nearest of n rows, and faiss's."""
    a, w = random_bits(0, m, k), random_bits(1, n, k)
    panels = bo.prepack(w)
    ours = {
        "topk rows": lambda: bo.hamming_topk(a, w, NEAREST),
        "topk prepacked": lambda: bo.hamming_topk(a, panels, NEAREST),
    }
    rivals: dict[str, Callable[[], Any]] = {}
    if "faiss" in peers:
        index = peers["faiss"].IndexBinaryFlat(k)
        index.add(w.words.view(np.uint8))
        queries = a.words.view(np.uint8)
        rivals["faiss"] = lambda: index.search(queries, NEAREST)
    mismatches = count_mismatches(a.words, w.words)
    nearest = np.sort(np.partition(mismatches, NEAREST - 1)[:, :NEAREST])

    def check(name: str, result: Any) -> None:
        distances, indices = result
        found = np.take_along_axis(mismatches, indices, axis=1)
        if not (np.array_equal(distances, nearest) and np.array_equal(found, nearest)):
            fail(f"the nearest of (m, n, k) = {(m, n, k)}", name)

    return Calls(ours, rivals, check)


def packing(m: int, k: int, peers: dict[str, Any]) -> Calls:
    """Make the packing of float32 rows, and NumPy's: a comparison and packbits."""
    x = np.random.default_rng(0).standard_normal((m, k), np.float32)
    expected = np.packbits(x >= 0, axis=1, bitorder="little")

    def check(name: str, result: Any) -> None:
        found = result
        if isinstance(result, bo.BitArray):
            found = result.words.view(np.uint8)[:, : expected.shape[1]]
        if not np.array_equal(found, expected):
            fail(f"rows of {(m, k)}", name)

    return Calls(
        {"pack": lambda: bo.pack(x)},
        {"numpy": lambda: np.packbits(x >= 0, axis=1, bitorder="little")},
        check,
    )


def convolution(n: int, side: int, c: int, o: int, peers: dict[str, Any]) -> Calls:
    """Make a 3 x 3 convolution, padding 1, and NumPy's patches times filters in float32."""
    rng = np.random.default_rng(0)
    x, w = random_signs(rng, (n, side, side, c)), random_signs(rng, (o, 3, 3, c))
    images, filters = bo.pack(x), bo.pack(w)
    panels = bo.prepack(filters)
    out = np.empty((n, side, side, o), np.int32)
    window = make_window("sweep", (side, side), 3, padding=1)
    matrix, real = np.ascontiguousarray(w.reshape(o, -1).T), out.view(np.float32)
    expected = reference.conv2d(x, w, padding=1)

    def check(name: str, result: Any) -> None:
        if not take(result, expected):
            fail(f"{n} images of {(side, side, c)} and {o} filters", name)

    return Calls(
        {
            "conv2d rows": lambda: bo.conv2d(images, filters, padding=1, out=out),
            "conv2d prepacked": lambda: bo.conv2d(images, panels, padding=1, out=out),
        },
        {"numpy": lambda: float_conv2d(x, matrix, window, out=real)},
        check,
    )


def fits(m: int, n: int, k: int) -> bool:
    """Tell whether bits and results of a product are within the limits of the grid."""
    return m * n * k < MAX_MACS and (m + n) * k // 8 + 4 * m * n < MAX_BYTES


def all_cases() -> Iterator[Case]:
    """Yield every point of the grid."""
    for m, n, k in itertools.product(ROWS, COLUMNS, BITS):
        if fits(m, n, k):
            yield Case("product", f"{m}x{n}x{k}", m * n * k, partial(products, m, n, k))
    for m, n, k in itertools.product(QUERIES, COLUMNS, BITS):
        # faiss's index takes whole words
        if fits(m, n, k) and n >= 1000 and k % 64 == 0:
            yield Case("topk", f"{m}x{n}x{k}", m * n * k, partial(search, m, n, k))
    for n, side, (c, o) in itertools.product(IMAGES, SIDES, CHANNELS):
        size, work = f"{n}x{side}x{side}x{c}->{o}", n * side * side * 9 * c * o
        yield Case("conv2d", size, work, partial(convolution, n, side, c, o))
    for m, k in itertools.product(ROWS, BITS):
        if 4 * m * k < MAX_BYTES:
            yield Case("pack", f"{m}x{k}", m * k, partial(packing, m, k))
