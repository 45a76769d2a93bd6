"""Search bits, then rescore with vectors
======================================

Search bits first and rescore with real numbers: recall beside exact search on the real vectors.

Embeddings are 32 times smaller as bits. The nearest bits are not quite the nearest vectors, so
several times as many as wanted are searched, and ordered by products of the real query with the
signs, or with real vectors that stay on the disk. Recall is the share of the ten exact neighbors
that are found. Vectors are normalized; they lie in clusters, as embeddings of texts on a few
subjects do. With a path as its argument, ``recall.png`` for example, the program draws the recall
over the number of candidates (needs matplotlib).
"""

import sys

import numpy as np

from bitops.search import BitIndex

WANTED = 10
OVERSAMPLE = (1, 2, 4, 8, 16, 32)
WAYS = ("distances of bits alone", "rescored with bits", "rescored with vectors")


def clustered(rng: np.random.Generator, n: int, k: int, clusters: int) -> np.ndarray:
    """Unit vectors around the centers of clusters, from which they differ in 24 directions."""
    centers, directions = rng.standard_normal((clusters, k)), rng.standard_normal((24, k))
    vectors = centers[rng.integers(clusters, size=n)]
    vectors = vectors + 0.3 * rng.standard_normal((n, 24)) @ directions
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact neighbors that were found."""
    common = [np.intersect1d(a, b).size for a, b in zip(found, exact, strict=True)]
    return sum(common) / exact.size


def measure(vectors: np.ndarray, queries: np.ndarray) -> dict[str, list[float]]:
    """Recall of each way, for each number of candidates."""
    exact = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :WANTED]
    index = BitIndex(vectors)  # of its signs
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for times in OVERSAMPLE:
        for way, rescore in zip(WAYS, (None, "bits", vectors), strict=True):
            _, ids = index.search(queries, WANTED, rescore=rescore, oversample=times)
            found[way].append(recall(ids, exact))
    return found


def draw(results: dict[str, list[float]], path: str) -> None:
    """Draw recall over candidates."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    candidates = [WANTED * times for times in OVERSAMPLE]
    axes.axhline(1, color="black", linestyle="--", label="exact search on float32")
    for (way, values), marker in zip(results.items(), ".os", strict=True):
        axes.plot(candidates, values, marker=marker, label=way)
    axes.set_xscale("log", base=2)
    axes.set_xticks(candidates, [str(number) for number in candidates])
    axes.set(xlabel="candidates of the first stage", ylabel=f"recall of the {WANTED} nearest")
    axes.set_title("20,000 clustered vectors of 512 numbers, as 512 bits")
    axes.set_ylim(0, 1.05)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    rng = np.random.default_rng(0)
    vectors = clustered(rng, 20_100, 512, 50)
    vectors, queries = vectors[:-100], vectors[-100:]
    results = measure(vectors, queries)
    print(f"{'candidates':<24}", *(f"{WANTED * times:>6}" for times in OVERSAMPLE))
    for way, values in results.items():
        print(f"{way:<24}", *(f"{value:>6.3f}" for value in values))
    alone, with_bits, with_vectors = (values[-1] for values in results.values())
    assert alone < with_bits < with_vectors and with_vectors > 0.95
    if len(sys.argv) > 1:
        draw(results, sys.argv[1])


if __name__ == "__main__":
    main()
