"""Faces of scikit-learn for search on bits and for binarized networks: the extra `sklearn`.

Both estimators work in pipelines, grid searches and joblib, and may be cloned and pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, csr_matrix
from scipy.special import softmax

try:
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        TransformerMixin,
    )
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"[estimators] scikit-learn 1.6 or newer must be installed, got: {error}"
    ) from error

from . import search
from .layers import BatchNorm, BinaryDense, Dense, Sequential, Sign
from .models import seed_stream
from .ops.array import BitArray, pack
from .ops.checks import as_seed_sequence, check_integer, check_rate
from .search.metrics import Rows
from .training.callbacks import Callback
from .training.loop import fit as train
from .training.optim import Adam

__all__ = ["BinaryNetClassifier", "BitNeighbors"]


MODES = ("distance", "connectivity")


class BitNeighbors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Exact nearest neighbors of rows of bits.

    Parameters
    ----------
    n_neighbors : int, default 5
    radius : float, default 1.0
        Of `radius_neighbors`.
    metric : {"hamming", "jaccard", "dice", "intersection"}, default "hamming"
        As in `bitops.search.pairwise`. Hamming distances count elements: they are no shares.
    mode : {"distance", "connectivity"}, default "distance"
        What `transform` stores: distances, or ones.
    threshold : float, default 0.0
        A number above it is a bit 1, as in ``sklearn.preprocessing.Binarizer``: signs, and numbers
        0 and 1, are taken as they are meant.

    Attributes
    ----------
    n_features_in_ : int
    n_samples_fit_ : int
    bits_ : BitArray of shape (rows of fit, features)
        The rows that are searched.

    Notes
    -----
    All methods also take a BitArray, whose bits are used as they are. Of rows at the same distance,
    the one that came first is nearer.

    Examples
    --------
    >>> neighbors = BitNeighbors(n_neighbors=2).fit([[0, 0, 1], [1, 1, 1], [0, 1, 1]])
    >>> neighbors.kneighbors([[0, 0, 0]])
    (array([[1, 2]], dtype=int32), array([[0, 2]]))
    """

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        radius: float = 1.0,
        metric: str = "hamming",
        mode: str = "distance",
        threshold: float = 0.0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.metric = metric
        self.mode = mode
        self.threshold = threshold

    def fit(self, X: Rows, y: Any = None) -> BitNeighbors:
        """Take the rows to search.

        Parameters
        ----------
        X : array_like or BitArray of shape (n, k)
        y : ignored

        Returns
        -------
        self
        """
        check_integer("BitNeighbors", "n_neighbors", self.n_neighbors, 1)
        if self.mode not in MODES:
            raise ValueError(f"[BitNeighbors] mode must be one of {MODES}, got {self.mode!r:.80}")
        if self.mode == "distance" and self.metric == "intersection":
            raise ValueError(
                "[BitNeighbors] mode must be 'connectivity' for 'intersection', whose counts are "
                "no distances, got 'distance'"
            )
        bits = self._bits(X, reset=True)
        search.topk(bits[:0], bits[:0], 1, self.metric)  # refuses an unknown metric
        self.bits_ = bits
        self.n_samples_fit_ = self._n_features_out = bits.shape[0]
        return self

    def kneighbors(
        self,
        X: Rows | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Find the nearest neighbors of rows.

        Parameters
        ----------
        X : array_like or BitArray of shape (m, k), optional
            By default the rows that have been fitted, none of which is its own neighbor.
        n_neighbors : int, optional
            By default that of the estimator.
        return_distance : bool, default True

        Returns
        -------
        distances : ndarray of shape (m, n_neighbors), of the dtype of `bitops.search.pairwise`
            Unless `return_distance` is False.
        indices : ndarray of shape (m, n_neighbors), int64
        """
        check_is_fitted(self)
        count = self.n_neighbors if n_neighbors is None else n_neighbors
        most = self.n_samples_fit_ - (X is None)
        count = check_integer("BitNeighbors", "n_neighbors", count, 1)
        if count > most:
            raise ValueError(
                f"[BitNeighbors] n_neighbors must be at most {most}, as n_samples_fit_ is "
                f"{self.n_samples_fit_}, got {count}"
            )
        if X is None:
            distances, indices = search.topk(self.bits_, self.bits_, count + 1, self.metric)
            distances, indices = _without_themselves(distances, indices)
        else:
            distances, indices = search.topk(self._bits(X), self.bits_, count, self.metric)
        return (distances, indices) if return_distance else indices

    def kneighbors_graph(
        self, X: Rows | None = None, n_neighbors: int | None = None, mode: str = "connectivity"
    ) -> csr_matrix:
        """Make the graph of nearest neighbors.

        Parameters
        ----------
        X, n_neighbors
            As in `kneighbors`.
        mode : {"distance", "connectivity"}, default "connectivity"
            What is stored: distances (zeros too), or ones.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (m, rows of fit), float64
            Each row from the nearest neighbor to the farthest.
        """
        if mode not in MODES:
            raise ValueError(f"[BitNeighbors] mode must be one of {MODES}, got {mode!r:.80}")
        distances, indices = self.kneighbors(X, n_neighbors)
        m, count = indices.shape
        data = distances.astype(np.float64) if mode == "distance" else np.ones(indices.shape)
        ends = np.arange(0, m * count + 1, count)
        shape = (m, self.n_samples_fit_)
        return csr_matrix((data.ravel(), indices.ravel(), ends), shape=shape)

    def radius_neighbors(
        self,
        X: Rows | None = None,
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:
        """Find all neighbors within a range.

        Parameters
        ----------
        X : array_like or BitArray of shape (m, k), optional
            As in `kneighbors`.
        radius : float, optional
            By default that of the estimator. The range includes it.
        return_distance : bool, default True
        sort_results : bool, default False
            Whether to put the nearest neighbors of each row first, rather than the first rows.

        Returns
        -------
        distances : ndarray of shape (m,) of ndarrays
            Unless `return_distance` is False.
        indices : ndarray of shape (m,) of ndarrays, int64
        """
        check_is_fitted(self)
        queries = self.bits_ if X is None else self._bits(X)
        limit = self.radius if radius is None else radius
        found = search.within(queries, self.bits_, limit, self.metric)
        pieces = [
            _piece(found, row, row if X is None else -1, sort_results, self.metric)
            for row in range(found.shape[0])
        ]
        distances, indices = (_objects([piece[part] for piece in pieces]) for part in (0, 1))
        return (distances, indices) if return_distance else indices

    def transform(self, X: Rows) -> csr_matrix:
        """Make the graph of nearest neighbors, as ``sklearn.neighbors.KNeighborsTransformer`` does.

        With mode "distance" it has one neighbor more than `n_neighbors`, since a row that has been
        fitted is its own. Estimators with ``metric="precomputed"`` take it.

        Parameters
        ----------
        X : array_like or BitArray of shape (m, k)

        Returns
        -------
        scipy.sparse.csr_matrix of shape (m, rows of fit), float64
        """
        check_is_fitted(self)
        count = self.n_neighbors + (self.mode == "distance")
        return self.kneighbors_graph(X, count, self.mode)

    def _bits(self, X: Rows, *, reset: bool = False) -> BitArray:
        """Return rows as bits, and check or set the number of columns."""
        if not isinstance(X, BitArray):
            array = validate_data(self, X, reset=reset)
            return pack(array if array.dtype.kind == "b" else array > self.threshold)
        if X.ndim != 2:
            raise ValueError(f"[BitNeighbors] X must be a matrix, got shape {X.shape}")
        if reset:
            self.n_features_in_ = X.shape[1]
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"[BitNeighbors] X must have {self.n_features_in_} features, got {X.shape[1]}"
            )
        return pack(X)


def _without_themselves(
    distances: NDArray[Any], indices: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Leave row i out of its own neighbors; where equal rows came before it, the last one."""
    kept = indices != np.arange(len(indices))[:, np.newaxis]
    kept[kept.all(axis=1), -1] = False
    shape = len(indices), indices.shape[1] - 1
    return distances[kept].reshape(shape), indices[kept].reshape(shape)


def _piece(
    found: csr_array, row: int, itself: int, is_sorted: bool, metric: str
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return distances and indices of one row of a result, without the row itself."""
    part = slice(found.indptr[row], found.indptr[row + 1])
    distances, indices = found.data[part], found.indices[part].astype(np.int64)
    kept = indices != itself
    distances, indices = distances[kept], indices[kept]
    if is_sorted:
        order = np.argsort(-distances if metric == "intersection" else distances, kind="stable")
        distances, indices = distances[order], indices[order]
    return distances, indices


def _objects(pieces: list[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays of several lengths as an array of objects."""
    objects = np.empty(len(pieces), object)
    objects[:] = pieces
    return objects


class BinaryNetClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose weights and hidden activations are +1 and -1.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default (256,)
        Units of each hidden layer.
    epochs : int, default 30
        Passes of `fit` over the rows.
    batch_size : int, default 32
    learning_rate : float, default 0.01
        Of Adam: in `fit` that of the first epoch, in `partial_fit` that of all.
    binary_input : bool, default False
        Whether the first layer takes bits, 1 where a feature is above 0, with binary weights. By
        default it takes numbers, with real weights; all further layers are binary.
    seed : int, default 0
        Of weights and of the order of rows.
    callbacks : Callback or sequence of Callback, default ()
        Of `bitops.training`, called during the training.
    verbose : int, default 0
        1 prints a line an epoch.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted.
    n_features_in_ : int
    network_ : Sequential
        The network that is trained.
    packed_ : Packed
        What it has been frozen to, and what predicts: ``packed_.save(path)`` writes it.
    history_ : History
        Of the last training.

    Notes
    -----
    The layers are [Dense or BinaryDense -> BatchNorm -> Sign] for each hidden layer, then
    BinaryDense -> BatchNorm. The loss is cross-entropy. Features of different scales should be
    scaled first, say by a StandardScaler.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> classifier = BinaryNetClassifier(epochs=10).fit((x - x.mean(axis=0)) / x.std(axis=0), y)
    >>> classifier.packed_.nbytes < 20_000
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (256,),
        *,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        binary_input: bool = False,
        seed: int = 0,
        callbacks: Callback | Sequence[Callback] = (),
        verbose: int = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.binary_input = binary_input
        self.seed = seed
        self.callbacks = callbacks
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> BinaryNetClassifier:
        """Train a new network.

        Parameters
        ----------
        X : array_like of shape (n, features)
        y : array_like of shape (n,)
            Labels of at least two classes.

        Returns
        -------
        self
        """
        array, labels = self._rows_and_labels(X, y, True)
        check_integer("BinaryNetClassifier", "epochs", self.epochs, 1)
        self._start(labels, array.shape[1])
        self._train(array, labels, self.epochs, schedule="cosine_decay")
        return self

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None
    ) -> BinaryNetClassifier:
        """Train for one epoch on some rows; the first call needs all classes.

        Parameters
        ----------
        X : array_like of shape (n, features)
            At least two rows.
        y : array_like of shape (n,)
        classes : array_like, optional
            All labels that will ever be there.

        Returns
        -------
        self
        """
        is_first = not hasattr(self, "network_")
        if is_first and classes is None:
            raise ValueError(
                "[BinaryNetClassifier] classes must be given to the first call of partial_fit, "
                "got None"
            )
        array, labels = self._rows_and_labels(X, y, is_first)
        if is_first:
            self._start(np.asarray(classes), array.shape[1])
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"[BinaryNetClassifier] classes must stay {self.classes_}, got {classes!r:.80}"
            )
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise ValueError(
                f"[BinaryNetClassifier] y must hold labels of classes_, got {unknown[0]!r}"
            )
        self._train(array, labels, 1, schedule=self.learning_rate)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the scores of rows: for two classes that of the second less that of the first.

        Parameters
        ----------
        X : array_like of shape (n, features)

        Returns
        -------
        ndarray of shape (n, classes), or (n,) for two classes
        """
        scores = self._scores(X)
        return scores if scores.shape[1] > 2 else scores[:, 1] - scores[:, 0]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label of each row: that of the largest score, the first of equal ones.

        Parameters
        ----------
        X : array_like of shape (n, features)
        """
        best = self._scores(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class for each row: the softmax of the scores.

        Parameters
        ----------
        X : array_like of shape (n, features)

        Returns
        -------
        ndarray of shape (n, classes)
        """
        return softmax(self._scores(X).astype(np.float64), axis=1)

    def _scores(self, X: ArrayLike) -> NDArray[np.float32]:
        check_is_fitted(self)
        array = validate_data(self, X, dtype=np.float32, reset=False)
        return np.asarray(self.packed_.outputs(self._input(array)))

    def _input(self, array: NDArray[np.float32]) -> NDArray[np.float32] | BitArray:
        return pack(array > 0) if self.binary_input else array

    def _rows_and_labels(
        self, X: ArrayLike, y: ArrayLike, reset: bool
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        array, labels = validate_data(self, X, y, dtype=np.float32, reset=reset)
        check_classification_targets(labels)
        if len(array) < 2:  # batch normalisation learns nothing from one row
            raise ValueError("[BinaryNetClassifier] X must have two rows, got n_samples=1")
        return array, labels

    def _start(self, labels: NDArray[Any], features: int) -> None:
        """Make a network for labels and features."""
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(
                f"[BinaryNetClassifier] y must hold two classes, got one class: {self.classes_}"
            )
        check_rate("BinaryNetClassifier", "learning_rate", self.learning_rate)
        weights, order = as_seed_sequence("BinaryNetClassifier", self.seed).spawn(2)
        seeds = seed_stream(weights)
        layers: list[Any] = []
        units = features
        for number, hidden in enumerate(self.hidden_layer_sizes):
            is_real = number == 0 and not self.binary_input
            layers += [
                (Dense if is_real else BinaryDense)(units, hidden, seed=next(seeds)),
                BatchNorm(hidden),
                Sign(),
            ]
            units = hidden
        layers += [
            BinaryDense(units, len(self.classes_), seed=next(seeds)),
            BatchNorm(len(self.classes_)),
        ]
        self.network_ = Sequential(layers, input_shape=(features,))
        self._optimizer = Adam(self.network_.parameters(), self.learning_rate)
        self._order = np.random.default_rng(order)

    def _train(self, X: NDArray[np.float32], labels: NDArray[Any], epochs: int, **options) -> None:
        self.history_ = train(
            self.network_,
            self._input(X),
            np.searchsorted(self.classes_, labels),
            epochs=epochs,
            batch_size=self.batch_size,
            optimizer=self._optimizer,
            loss="cross_entropy",
            seed=self._order,
            callbacks=self.callbacks,
            verbose=self.verbose,
            **options,
        )
        self.packed_ = self.network_.freeze()
