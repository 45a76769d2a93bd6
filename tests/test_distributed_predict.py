"""Lazy predictions beside those of the model itself."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import models
from bitops.layers import BatchNorm, BinaryDense, Conv2D, Sequential

dask = pytest.importorskip("dask", reason="the extra dask is not installed")
da = pytest.importorskip("dask.array", reason="the extra dask is not installed")
pytest.importorskip("distributed", reason="the extra dask is not installed")

from bitops.distributed import predict  # noqa: E402
from clusters import cluster_of, no_errors_of_warnings  # noqa: E402

pytestmark = no_errors_of_warnings


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(2) as client:
        yield client


@pytest.fixture
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def packed():
    return models.mlp(64, 32, 1, 5, seed=3).freeze()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(5).integers(0, 256, (53, 64), dtype=np.uint8)


def chunked(x):
    return da.from_array(x, chunks=(20, 30))


@pytest.mark.parametrize("method", ("predict", "predict_proba", "outputs"))
def test_arrays(packed, x, method, in_this_thread):
    expected = getattr(packed, method)(x)
    found = predict(packed, chunked(x), method=method)
    assert (found.shape, found.dtype, found.chunks[0]) == (
        expected.shape,
        expected.dtype,
        (20, 20, 13),
    )
    assert_array_equal(found.compute(), expected)
    assert_array_equal(
        predict(packed, chunked(x), method=method, batch_size=7)[11:30], expected[11:30]
    )


def test_images(in_this_thread):
    x = np.random.default_rng(5).standard_normal((9, 6, 6, 3), dtype=np.float32)
    model = Sequential(Conv2D(3, 4, 3, seed=1))  # images come out
    found = predict(model, da.from_array(x, chunks=(4, 3, 6, 3)), method="outputs")
    assert found.shape == (9, 4, 4, 4)
    assert_array_equal(found, model.outputs(x))


def test_a_model_is_sent_once_a_worker(packed, x, cluster):
    rows = da.from_array(np.tile(x, (8, 1)), chunks=(20, 64))
    found, again = predict(packed, rows), predict(copy.deepcopy(packed), rows[:40])
    result, first = dask.compute(found, again)
    assert_array_equal(result, np.tile(packed.predict(x), 8))
    assert_array_equal(first, result[:40])
    models = [key for key in map(str, cluster.who_has()) if key.startswith("bitops-model-")]
    assert len(models) == 1


def write_files(folder, x):
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    paths = []
    for i in range(5):
        image.fromarray(x[i].reshape(8, 8)).save(folder / f"{i}.png")
        paths.append(folder / f"{i}.png")
    np.save(folder / "more.npy", x[5:])
    return [*paths[:3], folder / "more.npy", *map(str, paths[3:])]


@pytest.mark.parametrize("method", ("predict", "outputs"))
def test_files(packed, x, method, tmp_path, in_this_thread):
    bag = pytest.importorskip("dask.bag")
    paths = write_files(tmp_path, x)
    model = models.mlp(64, 32, 1, 5, seed=3)
    shaped = Sequential(*model.layers, input_shape=(64,))
    expected = getattr(packed, method)(x)
    for net in (shaped, shaped.freeze()):
        found = dict(predict(net, bag.from_sequence(paths, npartitions=2), method=method))
        assert list(found) == paths
        parts = [found[p] for p in (*paths[:3], *paths[4:], paths[3])]
        assert_array_equal(np.concatenate(parts), expected)


def test_files_on_workers(x, tmp_path, cluster):
    bag = pytest.importorskip("dask.bag")
    paths = write_files(tmp_path, x)
    model = models.mlp(64, 32, 1, 5, seed=3)
    packed = Sequential(*model.layers, input_shape=(64,)).freeze()
    found = predict(packed, bag.from_sequence(paths, npartitions=3), batch_size=2).compute()
    assert [path for path, _ in found] == paths
    assert_array_equal(found[3][1], packed.predict(x[5:]))


def test_refusals(packed, x, tmp_path, in_this_thread):
    bag = pytest.importorskip("dask.bag")
    for arguments, options, error, message in (
        (("net", chunked(x)), {}, TypeError, "model must be a Packed or a Sequential, got 'net'"),
        ((packed, x), {}, TypeError, "x must be a dask.array or a dask.bag, got ndarray"),
        ((packed, chunked(x)[:, 0]), {}, ValueError, r"x must have shape \(n, features\)"),
        ((packed, chunked(x)[:, :9]), {}, ValueError, "x must have the shape that the model takes"),
        ((packed, chunked(x)), {"method": "fit"}, ValueError, "method must be one of predict,"),
        ((packed, chunked(x)), {"resize": "crop"}, ValueError, "resize must be None for arrays"),
        ((packed, bag.from_sequence([1])), {"resize": 3}, ValueError, "resize must be one of"),
    ):
        with pytest.raises(error, match=rf"^\[distributed\.predict\] {message}"):
            predict(*arguments, **options)
    bits = Sequential(BinaryDense(64, 8, seed=1), BatchNorm(8), bo.layers.Sign()).freeze()
    with pytest.raises(TypeError, match="the model must end in scores, got one that ends in bits"):
        predict(bits, chunked(x)).compute()
    with pytest.raises(ValueError, match="a path must be that of a file"):
        predict(packed, bag.from_sequence([tmp_path])).compute()
