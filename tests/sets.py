"""What the tests of bitops.search share: metrics in plain NumPy, and rows of several kinds."""

import numpy as np

METRICS = ("hamming", "jaccard", "dice", "intersection")


def plain(x, y, metric):
    """The values of all pairs of rows of bool, one product of integers and one division."""
    x, y = x.astype(np.int64), y.astype(np.int64)
    both = x @ y.T
    x_counts, y_counts = x.sum(axis=1)[:, None], y.sum(axis=1)
    differ = x_counts + y_counts - 2 * both
    if metric == "hamming":
        return differ.astype(np.int32)
    if metric == "intersection":
        return both.astype(np.int32)
    size = x_counts + y_counts - both if metric == "jaccard" else x_counts + y_counts
    return differ / np.where(size == 0, 1, size)


def special_rows(rng, k):
    """Random rows of several densities, among them empty, full and equal ones."""
    rows = rng.random((60, k)) < rng.choice([0.02, 0.5, 0.97], size=(60, 1))
    rows[:8], rows[8:12], rows[12:20] = False, True, rows[20]
    return rows
