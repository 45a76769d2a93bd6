import gzip
import os
import struct
import sys

import numpy as np
import pytest

from bitops.datasets import load_digits, load_mnist, read_idx

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_mnist(folder, *, zipped=False):
    """A miniature data set; returns its four arrays."""
    rng = np.random.default_rng(2)
    arrays = (
        rng.integers(256, size=(60, 4, 5), dtype=np.uint8),
        np.arange(60, dtype=np.uint8) % 10,
        rng.integers(256, size=(10, 4, 5), dtype=np.uint8),
        np.arange(10, dtype=np.uint8),
    )
    for name, array in zip(NAMES, arrays, strict=True):
        data = idx_bytes(array)
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return arrays


def test_digits_split_is_fixed_and_complete():
    pytest.importorskip("sklearn")
    data = load_digits()
    sizes = len(data.y_train), len(data.y_validation), len(data.y_test)
    assert sizes == (1284, 257, 256)
    assert data.x_train.dtype == np.uint8
    assert data.x_train.shape == (1284, 64)
    assert data.x_train.max() == 16
    for labels in (data.y_train, data.y_validation, data.y_test):
        # every class is there, none at less than half its fair share
        assert np.bincount(labels, minlength=10).min() > len(labels) / 20
    np.testing.assert_array_equal(load_digits().x_test, data.x_test)
    assert "1284 + 257 + 256" in repr(data)


def test_digits_without_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"bitops\[demo\]"):
        load_digits()


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_files(tmp_path, zipped):
    images, labels, test_images, test_labels = write_mnist(tmp_path, zipped=zipped)
    data = load_mnist(tmp_path)
    np.testing.assert_array_equal(data.x_train, images[:50].reshape(50, 20))
    np.testing.assert_array_equal(data.x_validation, images[50:].reshape(10, 20))
    np.testing.assert_array_equal(data.x_test.reshape(-1, *data.image_shape), test_images)
    np.testing.assert_array_equal(np.r_[data.y_train, data.y_validation], labels)
    np.testing.assert_array_equal(data.y_test, test_labels)
    assert data.classes == 10
    assert data.y_train.dtype == np.int64


def test_mnist_with_a_missing_file(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(FileNotFoundError, match=r"\[load_mnist\] t10k-images-idx3-ubyte"):
        load_mnist(tmp_path)


def test_mnist_whose_images_and_labels_differ(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(idx_bytes(np.zeros(59, dtype=np.uint8)))
    with pytest.raises(ValueError, match="equally many"):
        load_mnist(tmp_path)
    write_mnist(tmp_path)
    (tmp_path / NAMES[2]).write_bytes(idx_bytes(np.zeros((10, 5, 4), dtype=np.uint8)))
    with pytest.raises(ValueError, match="one size"):
        load_mnist(tmp_path)


GOOD = idx_bytes(np.zeros((3, 2, 2), dtype=np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:10],
        GOOD[:-1],
        GOOD + b"\0",
        b"\1" + GOOD[1:],
        bytes([0, 0, 13, 3]) + GOOD[4:],  # float32 elements
        bytes([0, 0, 8, 1]) + GOOD[4:],
        GOOD[:4] + b"\xff" * 12 + GOOD[16:],  # 2**96 bytes announced
        b"a text file that is long enough for a header",
    ],
)
def test_damaged_idx_is_refused(tmp_path, data):
    for name, content in (("plain", data), ("zipped.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"^\[read_idx\]"):
            read_idx(tmp_path / name, ndim=3)


def test_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8)))
    path = tmp_path / "file.gz"
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_idx(path, ndim=1), np.arange(200))
    broken = bytearray(whole)
    broken[30] ^= 0xFF
    for content in (whole[:-9], whole[:20], b"", b"not gzip at all", bytes(broken)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^\[read_idx\]"):
            read_idx(path, ndim=1)


def test_real_mnist():
    folder = os.environ.get("BITOPS_MNIST")
    if not folder:
        pytest.skip("set BITOPS_MNIST to a folder with the four MNIST files")
    data = load_mnist(folder)
    assert data.x_train.shape == (50000, 784)
    assert data.x_validation.shape == (10000, 784)
    assert data.x_test.shape == (10000, 784)
    # class counts of the published test set
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(data.y_test), counts)
