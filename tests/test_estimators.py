"""The faces of scikit-learn: its own checks, and results beside plain NumPy."""

import pickle

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import bitops as bo
from bitops.estimators import BinaryNetClassifier, BitNeighbors
from bitops.io import load
from bitops.training.callbacks import Callback
from sets import METRICS, plain

SMALL = {"hidden_layer_sizes": (32,), "epochs": 3}


CHECKS = parametrize_with_checks(
    [
        BitNeighbors(),
        BitNeighbors(metric="jaccard", mode="connectivity"),
        BinaryNetClassifier(epochs=10),
        BinaryNetClassifier((64,), binary_input=True, epochs=5),
    ]
)


# as a list, since pytest 9 warns of scikit-learn's generator
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return train_test_split(x / 16, y, test_size=300, random_state=0)


# ---- BitNeighbors -------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_neighbors(rng, metric):
    x, y = rng.random((60, 70)) < 0.3, rng.random((9, 70)) < 0.3
    model = BitNeighbors(4, metric=metric, mode="connectivity").fit(x.astype(float))
    values = plain(y, x, metric)
    order = np.argsort(-values if metric == "intersection" else values, axis=1, kind="stable")
    for queries in (y, y.astype(np.uint8), np.where(y, 2.5, -1), bo.pack(y)):
        distances, indices = model.kneighbors(queries)
        assert_array_equal(indices, order[:, :4])
        assert_array_equal(distances, np.take_along_axis(values, order[:, :4], axis=1))
    assert_array_equal(model.kneighbors(y, 2, return_distance=False), order[:, :2])
    graph = model.transform(y).toarray()
    marks = np.zeros(values.shape)
    np.put_along_axis(marks, order[:, :4], 1, axis=1)
    assert_array_equal(graph, marks)


@pytest.mark.parametrize("metric", METRICS)
def test_neighbors_within_a_range(rng, metric):
    x = rng.random((40, 70)) < 0.3
    radius = {"hamming": 26, "intersection": 7}.get(metric, 0.75)
    model = BitNeighbors(radius=radius, metric=metric, mode="connectivity").fit(x)
    values = plain(x, x, metric)
    near = values >= radius if metric == "intersection" else values <= radius
    assert near.sum() > 60
    for queries, wanted in ((x, near), (None, near & ~np.eye(40, dtype=bool))):
        distances, indices = model.radius_neighbors(queries)
        for row in range(40):
            assert_array_equal(indices[row], np.flatnonzero(wanted[row]))
            assert_array_equal(distances[row], values[row, indices[row]])
        distances, indices = model.radius_neighbors(queries, sort_results=True)
        sign = -1 if metric == "intersection" else 1
        assert all((np.diff(sign * row) >= 0).all() for row in distances)
        assert_array_equal([len(row) for row in indices], wanted.sum(axis=1))
    assert model.radius_neighbors(x, 0 if sign > 0 else 70, False).shape == (40,)


def test_no_queries():
    model = BitNeighbors(2).fit(np.ones((6, 9), bool))
    none = bo.pack(np.ones((0, 9), bool))
    for found in (*model.radius_neighbors(none), model.radius_neighbors(none, 3, False)):
        assert found.shape == (0,) and found.dtype == object
    assert [found.shape for found in model.kneighbors(none)] == [(0, 2), (0, 2)]


def test_no_row_is_its_own_neighbor():
    """Also where more equal rows than neighbors came before it."""
    x = np.ones((6, 9), bool)
    x[5] = False
    distances, indices = BitNeighbors(2).fit(x).kneighbors()
    assert_array_equal(indices, [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]])
    assert_array_equal(distances, [[0, 0]] * 5 + [[9, 9]])


def test_graph_as_that_of_scikit_learn(rng):
    """Its Hamming distance is the share of columns."""
    x = (rng.random((50, 64)) < 0.5).astype(float)
    for mode in ("distance", "connectivity"):
        ours = BitNeighbors(3, mode=mode).fit_transform(x)
        theirs = KNeighborsTransformer(n_neighbors=3, mode=mode, metric="hamming").fit_transform(x)
        assert ours.dtype == theirs.dtype and ours.nnz == theirs.nnz
        data = theirs.data * (64 if mode == "distance" else 1)
        np.testing.assert_allclose(ours.data, data)


def test_neighbors_in_a_pipeline(digits):
    x, z, y, w = digits
    model = make_pipeline(
        BitNeighbors(5, threshold=0.4), KNeighborsClassifier(5, metric="precomputed")
    )
    assert model.fit(x, y).score(z, w) > 0.9
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict(z), model.predict(z))


@pytest.mark.parametrize(
    ("text", "call"),
    (
        ("metric must be one of", lambda x: BitNeighbors(metric="cosine").fit(x)),
        ("mode must be one of", lambda x: BitNeighbors(mode="sparse").fit(x)),
        ("mode must be 'connectivity' for", lambda x: BitNeighbors(metric="intersection").fit(x)),
        ("n_neighbors must be at least 1", lambda x: BitNeighbors(0).fit(x)),
        ("n_neighbors must be at most 9", lambda x: BitNeighbors(10).fit(x).kneighbors()),
        ("n_neighbors must be at most 10", lambda x: BitNeighbors(11).fit(x).kneighbors(x)),
        ("mode must be one of", lambda x: BitNeighbors().fit(x).kneighbors_graph(x, mode="x")),
        ("X must have 70 features", lambda x: BitNeighbors().fit(x).transform(bo.pack(x[:, :9]))),
        ("X must be a matrix", lambda x: BitNeighbors().fit(bo.pack(x[0]))),
    ),
)
def test_wrong_neighbors(rng, text, call):
    with pytest.raises(ValueError, match=rf"^\[BitNeighbors\] {text}|\[search.topk\] {text}"):
        call(rng.random((10, 70)) < 0.5)


# ---- BinaryNetClassifier ------------------------------------------------------------------------


def test_classifier(digits, tmp_path):
    x, z, y, w = digits
    names = np.array(["zero", "one", "two", "3", "4", "5", "6", "7", "8", "9"])
    model = BinaryNetClassifier((128,), epochs=8).fit(x, names[y])
    assert model.score(z, names[w]) > 0.95
    chances = model.predict_proba(z)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert_array_equal(model.classes_[chances.argmax(axis=1)], model.predict(z))
    assert len(model.history_.epochs) == 8
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.decision_function(z), model.decision_function(z))
    # what predicts is packed, and equal to the training graph
    assert_array_equal(model.network_.outputs(np.float32(z)), model.decision_function(z))
    model.packed_.save(tmp_path / "net")
    assert_array_equal(load(tmp_path / "net").outputs(np.float32(z)), model.decision_function(z))


def test_seeds(digits):
    x, z, y, _ = digits
    one = BinaryNetClassifier(**SMALL, seed=3).fit(x, y)
    assert_array_equal(clone(one).fit(x, y).predict_proba(z), one.predict_proba(z))
    other = clone(one).set_params(seed=4).fit(x, y)
    assert not np.array_equal(other.predict_proba(z), one.predict_proba(z))


def test_bits_as_input(digits):
    """0 and 1, and -1 and 1, are the same bits."""
    x, z, y, w = digits
    bits, test = (x > 0.4).astype(float), (z > 0.4).astype(float)
    model = BinaryNetClassifier((128,), epochs=6, binary_input=True).fit(bits, y)
    assert model.score(test, w) > 0.8
    signs = clone(model).fit(2 * bits - 1, y)
    assert_array_equal(signs.predict_proba(2 * test - 1), model.predict_proba(test))


def test_partial_fit(digits):
    x, z, y, w = digits
    model = BinaryNetClassifier((32,))
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(4):
        order = rng.permutation(len(x))
        for part in np.array_split(order, 3):
            model.partial_fit(x[part], y[part], classes=np.arange(10))
        scores.append(model.score(z, w))
    assert scores[-1] > max(0.9, scores[0])
    after = BinaryNetClassifier((32,), epochs=4).fit(x, y)
    before = after.score(z, w)
    for _ in range(3):
        after.partial_fit(x, y)
    assert after.score(z, w) > before - 0.05
    assert len(after.history_.epochs) == 1


def test_callbacks(digits):
    x, _, y, _ = digits
    epochs = []

    class Seen(Callback):
        def on_epoch(self, run):
            epochs.append(run.epoch)
            run.stop = run.epoch == 2

    BinaryNetClassifier(**SMALL, callbacks=[Seen()]).fit(x, y)
    assert epochs == [1, 2]


def test_grid_search_and_joblib(digits):
    """In other processes too."""
    x, z, y, _ = digits
    model = make_pipeline(StandardScaler(with_std=False), BinaryNetClassifier(epochs=3))
    grid = GridSearchCV(
        model, {"binarynetclassifier__hidden_layer_sizes": [(4,), (64,)]}, cv=2, n_jobs=2
    ).fit(x[:300], y[:300])
    assert grid.best_params_ == {"binarynetclassifier__hidden_layer_sizes": (64,)}
    predict = joblib.delayed(grid.predict)
    parts = joblib.Parallel(n_jobs=2)(predict(part) for part in np.array_split(z, 2))
    assert_array_equal(np.concatenate(parts), grid.predict(z))


@pytest.mark.parametrize(
    ("text", "call"),
    (
        ("y must hold two classes", lambda x, y: BinaryNetClassifier().fit(x, y * 0)),
        ("classes must be given", lambda x, y: BinaryNetClassifier().partial_fit(x, y)),
        ("y must hold labels", lambda x, y: BinaryNetClassifier().partial_fit(x, y, [0, 1])),
        ("X must have two rows", lambda x, y: BinaryNetClassifier().fit(x[:1], y[:1])),
        ("epochs must be at least 1", lambda x, y: BinaryNetClassifier(epochs=0).fit(x, y)),
        ("learning_rate must be", lambda x, y: BinaryNetClassifier(learning_rate=-1).fit(x, y)),
        (
            "classes must stay",
            lambda x, y: BinaryNetClassifier(epochs=1).fit(x, y).partial_fit(x, y, [0, 1, 2, 5]),
        ),
    ),
)
def test_wrong_trainings(rng, text, call):
    with pytest.raises(ValueError, match=rf"^\[BinaryNetClassifier\] {text}"):
        call(rng.random((30, 5)), np.arange(30) % 3)
