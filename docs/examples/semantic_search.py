"""Search sentences by their subject
=================================

Search sentences by what they are about: embeddings as bits, rescored with real vectors.

The sentences are those that describe the functions of NumPy, SciPy and Python's own modules, so
there is nothing to download. Their embeddings are made by latent semantic analysis: weighted counts
of words and pairs of words, projected to 256 numbers. Those of a neural network, as
`SentenceTransformer.encode` returns them, are searched in the same way.
"""

import inspect
import itertools
import math
import os.path
import statistics
from types import ModuleType

import numpy as np
import scipy.linalg
import scipy.ndimage
import scipy.signal
import scipy.spatial.distance
import scipy.special
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from bitops.search import BitIndex

MODULES = (
    *(np, np.linalg, np.fft, np.random, math, itertools, os.path, statistics, str, list, dict),
    *(scipy.linalg, scipy.ndimage, scipy.signal, scipy.spatial.distance, scipy.special),
)
QUESTIONS = {
    "sort an array along an axis": "numpy.sort",
    "solve a linear system of equations": "numpy.linalg.solve",
    "greatest common divisor of integers": "numpy.gcd",
    "median filter of a two-dimensional array": "scipy.signal.medfilt2d",
    "Jaccard dissimilarity between boolean vectors": "scipy.spatial.distance.jaccard",
}


def descriptions() -> dict[str, str]:
    """The beginning of the docstring of every function, by its name."""
    found = {}
    for module in MODULES:
        home = module.__name__ if isinstance(module, ModuleType) else module.__qualname__
        for name, thing in vars(module).items():
            if name.startswith("_") or not (callable(thing) or inspect.isroutine(thing)):
                continue
            text = " ".join((inspect.getdoc(thing) or "").split()[:60])
            if len(text) > 40:
                found[f"{home}.{name}"] = f"{name.replace('_', ' ')}: {text}"
    return found


def main() -> None:
    names, sentences = zip(*descriptions().items(), strict=True)
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), stop_words="english")
    projection = TruncatedSVD(256, random_state=0)
    embed = make_pipeline(words, projection, Normalizer())
    # A rotation changes no product, and lets all bits tell about as much.
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((256, 256)))[0]
    vectors = (embed.fit_transform(sentences) @ rotation).astype(np.float32)
    index = BitIndex(vectors)  # of their signs
    print(f"{len(index):,} sentences; vectors {vectors.nbytes:,} bytes, bits {len(index) * 32:,}")

    queries = (embed.transform(QUESTIONS) @ rotation).astype(np.float32)
    scores, ids = index.search(queries, 3, rescore=vectors, oversample=16)
    for question, row_ids, row_scores in zip(QUESTIONS, ids, scores, strict=True):
        print(f"\n{question}")
        for row, score in zip(row_ids, row_scores, strict=True):
            print(f"  {score:.2f} {names[row]}")
        assert QUESTIONS[question] in [names[row] for row in row_ids]

    # Almost what an exact search on the real vectors finds.
    some = np.random.default_rng(0).choice(len(vectors), 200, replace=False)
    exact = np.argsort(-(vectors[some] @ vectors.T), axis=1, kind="stable")[:, :10]
    print()
    for oversample in (1, 4, 16):
        _, ids = index.search(vectors[some], 10, rescore=vectors, oversample=oversample)
        recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, ids, strict=True)])
        print(f"recall of the 10 nearest with {10 * oversample:>3} candidates: {recall:.3f}")
    assert recall > 0.95


if __name__ == "__main__":
    main()
