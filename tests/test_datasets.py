import gzip
import io
import os
import struct
import sys
import tarfile
import tracemalloc

import numpy as np
import pytest
from test_svhn import write_svhn

from bitops.data.datasets import (
    load_cifar10,
    load_dataset,
    load_digits,
    load_mnist,
    load_svhn,
    read_idx,
)

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


def test_digits_without_scikit_learn_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install scikit-learn"):
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


def test_rows_become_images(tmp_path):
    images, *_ = write_mnist(tmp_path)
    data = load_mnist(tmp_path)
    np.testing.assert_array_equal(data.images(data.x_train)[..., 0], images[:50])
    assert data.images(data.x_train[:0]).shape == (0, 4, 5, 1)


def test_mnist_with_a_missing_file(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(FileNotFoundError, match=r"\[load_mnist\] t10k-images-idx3-ubyte"):
        load_mnist(tmp_path)


def test_mnist_whose_images_and_labels_differ(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(idx_bytes(np.zeros(59, dtype=np.uint8)))
    with pytest.raises(ValueError, match="as many images as labels"):
        load_mnist(tmp_path)
    write_mnist(tmp_path)
    (tmp_path / NAMES[2]).write_bytes(idx_bytes(np.zeros((10, 5, 4), dtype=np.uint8)))
    with pytest.raises(ValueError, match="the same size"):
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


CLASSES = ("apple", "bear", "cup")


def jpeg_bytes(pixels, **options):
    image = pytest.importorskip("PIL.Image").fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, **{"format": "JPEG", "quality": 95, **options})
    return stream.getvalue()


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def jpeg_files(part, count):
    """Plain images whose colour tells the class (red) and the place in it (green)."""
    files = {}
    for label, name in reversed(list(enumerate(CLASSES))):  # the order of names is not the file's
        for i in range(count):
            pixels = np.full((32, 32, 3), (80 * label, 10 * i, 100), np.uint8)
            files[f"{part}/{name}/{i:04}.jpg"] = jpeg_bytes(pixels)
    return files


def write_jpegs(folder, train=None, test=None):
    write_tar(folder / "train.tar", jpeg_files("train", 20) if train is None else train)
    write_tar(folder / "test.tar", jpeg_files("test", 2) if test is None else test)


def test_cifar_of_jpeg_copies(tmp_path):
    write_jpegs(tmp_path)
    data = load_cifar10(tmp_path)
    assert data.name == "CIFAR-10 (JPEG copies)"
    assert "54 + 6 + 6 images, (32, 32, 3), 3 classes" in repr(data)
    for x, y, places in (
        (data.x_train, data.y_train, range(18)),
        (data.x_validation, data.y_validation, range(18, 20)),
        (data.x_test, data.y_test, range(2)),
    ):
        assert x.dtype == np.uint8
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, np.repeat(range(3), len(places)))
        expected = [(80 * label, 10 * i, 100) for label in range(3) for i in places]
        assert np.abs(x - np.array(expected)[:, None, None]).max() <= 4  # JPEG is not exact
        assert data.images(x).shape == x.shape


def test_jpeg_pixels_are_those_that_pillow_gives(tmp_path, rng):
    image = pytest.importorskip("PIL.Image")
    pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
    data = jpeg_bytes(pixels, quality=75)
    write_jpegs(tmp_path, {"a/0.jpg": data}, {"a/0.jpg": data})
    np.testing.assert_array_equal(
        load_cifar10(tmp_path).x_test[0], image.open(io.BytesIO(data)).convert("RGB")
    )


def write_batches(folder, rng, records=20):
    """The binary version with 100 training and 20 test images; returns both parts as records."""
    parts = []
    for name, count in (("train", 5 * records), ("test", records)):
        part = rng.integers(256, size=(count, 3073), dtype=np.uint8)
        part[:, 0] = rng.permutation(np.arange(count) % 10)
        parts.append(part)
        for i in range(5 if name == "train" else 0):
            batch = part[i * records : (i + 1) * records]
            (folder / f"data_batch_{i + 1}.bin").write_bytes(batch.tobytes())
    (folder / "test_batch.bin").write_bytes(parts[1].tobytes())
    return parts


def test_cifar_in_its_binary_version(tmp_path, rng):
    train, test = write_batches(tmp_path, rng)
    (tmp_path / "train.tar").write_bytes(b"the original comes first")
    data = load_cifar10(tmp_path)
    assert data.name == "CIFAR-10"
    planes = test[:, 1:].reshape(-1, 3, 32, 32)
    for channel in range(3):
        np.testing.assert_array_equal(data.x_test[..., channel], planes[:, channel])
    np.testing.assert_array_equal(data.y_test, test[:, 0])
    # ten images a class: the last one of each is for validation
    last = sorted(np.flatnonzero(train[:, 0] == label)[-1] for label in range(10))
    np.testing.assert_array_equal(data.y_validation, train[last, 0])
    np.testing.assert_array_equal(
        data.x_validation[..., 2].reshape(-1, 1024), train[last, 1 + 2048 :]
    )
    np.testing.assert_array_equal(data.y_train, np.delete(train[:, 0], last))


def test_cifar_with_a_missing_file(tmp_path, rng):
    with pytest.raises(FileNotFoundError, match=r"\[load_cifar10\] data_batch_1.bin .* train.tar"):
        load_cifar10(tmp_path)
    write_batches(tmp_path, rng)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_4.bin must be in"):
        load_cifar10(tmp_path)
    jpegs = tmp_path / "jpegs"
    jpegs.mkdir()
    write_tar(jpegs / "train.tar", jpeg_files("train", 1))
    with pytest.raises(FileNotFoundError, match=r"test.tar must be in"):
        load_cifar10(jpegs)


def test_cifar_without_pillow_names_it(tmp_path, monkeypatch):
    write_tar(tmp_path / "train.tar", {"train/a/0.jpg": b""})
    write_tar(tmp_path / "test.tar", {"test/a/0.jpg": b""})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install pillow"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 3072, 3073 * 20 - 1, 3073 * 10_001])
def test_cifar_batch_of_a_wrong_size(tmp_path, rng, size):
    write_batches(tmp_path, rng)
    with open(tmp_path / "data_batch_3.bin", "wb") as file:
        file.truncate(size)
    with pytest.raises(ValueError, match=rf"data_batch_3.bin must hold .* got {size:,} bytes"):
        load_cifar10(tmp_path)


def test_cifar_batch_with_a_wrong_label(tmp_path, rng):
    _, test = write_batches(tmp_path, rng)
    test[3, 0] = 10
    (tmp_path / "test_batch.bin").write_bytes(test.tobytes())
    with pytest.raises(ValueError, match=r"test_batch.bin must be 0..9, got 10"):
        load_cifar10(tmp_path)


def test_classes_must_be_complete(tmp_path):
    files = jpeg_files("train", 3)
    write_jpegs(tmp_path, dict(list(files.items())[:-1]))
    with pytest.raises(ValueError, match=r"equally often, got \{'apple': 2, 'bear': 3, 'cup': 3\}"):
        load_cifar10(tmp_path)
    write_jpegs(tmp_path, dict(list(files.items())[:-3]))
    with pytest.raises(ValueError, match=r"the same classes"):
        load_cifar10(tmp_path)


def test_damaged_tar_is_refused(tmp_path):
    write_jpegs(tmp_path)
    whole = (tmp_path / "train.tar").read_bytes()
    broken = bytearray(whole)
    broken[512 * 40 : 512 * 60] = bytes(512 * 20)
    for content in (
        b"",
        b"not a tar file" * 100,
        gzip.compress(whole),
        whole[:700],
        whole[:20_000],
        bytes(broken),
    ):
        (tmp_path / "train.tar").write_bytes(content)
        with pytest.raises(ValueError, match=r"^\[load_cifar10\] ") as error:
            load_cifar10(tmp_path)
        assert str(tmp_path) in str(error.value)


def test_damaged_jpeg_is_refused(tmp_path):
    good = jpeg_bytes(np.zeros((32, 32, 3), np.uint8))
    for data in (
        b"",
        b"\xff\xd8 no image",
        good[: len(good) // 2],
        jpeg_bytes(np.zeros((32, 31, 3), np.uint8)),
        jpeg_bytes(np.zeros((32, 32), np.uint8)),
        jpeg_bytes(np.zeros((32, 32, 3), np.uint8), format="PNG", quality=None),
    ):
        write_jpegs(tmp_path, {"train/a/0.jpg": good, "train/a/1.jpg": data})
        with pytest.raises(ValueError, match=r"train/a/1.jpg in .*train.tar must be a complete"):
            load_cifar10(tmp_path)


def test_foreign_files_in_the_tar_are_refused(tmp_path):
    good = jpeg_bytes(np.zeros((32, 32, 3), np.uint8))
    for name in ("0.jpg", "train/a/0.png", "train/a/notes.txt"):
        write_jpegs(tmp_path, {"train/a/0.jpg": good, name: good})
        with pytest.raises(ValueError, match=r"train.tar must hold files <class>/<name>.jpg, got"):
            load_cifar10(tmp_path)
    write_jpegs(tmp_path, {"train/a/0.jpg": bytes(1 << 17)})
    with pytest.raises(ValueError, match=r"at most 65,536 bytes, got 131,072"):
        load_cifar10(tmp_path)
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        link = tarfile.TarInfo("train/a/0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(ValueError, match=r"got 'train/a/0.jpg'"):
        load_cifar10(tmp_path)


def test_real_cifar10():
    folder = os.environ.get("BITOPS_CIFAR10")
    if not folder:
        pytest.skip("set BITOPS_CIFAR10 to a folder with CIFAR-10, binary version or JPEG copies")
    data = load_cifar10(folder)
    parts = (data.x_train, data.y_train), (data.x_validation, data.y_validation)
    for (x, y), share in zip((*parts, (data.x_test, data.y_test)), (4500, 500, 1000), strict=True):
        assert x.shape == (10 * share, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(y), np.full(10, share))
    # Mean red, green and blue of the training images; JPEG does not move them this far.
    mean = (data.x_train.mean((0, 1, 2)) * 9 + data.x_validation.mean((0, 1, 2))) / 10
    np.testing.assert_allclose(mean, [125.3, 123.0, 113.9], atol=0.3)


def test_a_zipped_idx_file_is_read_no_further_than_its_header_says(tmp_path):
    """A small file may unzip to gigabytes."""
    path = tmp_path / "file.gz"
    header = GOOD[:16]
    path.write_bytes(gzip.compress(header + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^\[read_idx\] .* must have 12 bytes .*, got more"):
            read_idx(path, ndim=3)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_data_sets_are_told_apart(tmp_path):
    for name, write in (("mnist", write_mnist), ("svhn", write_svhn)):
        folder = tmp_path / name
        folder.mkdir()
        write(folder)
        kind, data = load_dataset(folder)
        assert kind == name
        assert len(data.y_train)
    # one file is enough to know which others are missing
    (tmp_path / "test_batch.bin").touch()
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin must be in"):
        load_dataset(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="must hold the files of MNIST"):
        load_dataset(tmp_path / "empty")
    for place in ("nowhere", "nowhere.npz"):
        with pytest.raises(FileNotFoundError, match=f"there is no file or folder .*{place}"):
            load_dataset(tmp_path / place)


def test_idx_files_of_too_many_items(tmp_path):
    """Labels become int64; they are refused by the header, before anything is unpacked."""
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 10_000_001)))
    with pytest.raises(ValueError, match=r"^\[read_idx\] .* 10,000,000 items, got 10,000,0"):
        read_idx(path, ndim=1)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 10_000_001, 1, 1)
    path.write_bytes(gzip.compress(header))
    with pytest.raises(ValueError, match="at most 10,000,000 items"):
        read_idx(path, ndim=3)


def test_zipped_zeros_take_their_bytes_once(tmp_path):
    path = tmp_path / "images.gz"
    size = 1 << 25
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", size >> 10, 32, 32)
    path.write_bytes(gzip.compress(header + bytes(size)))
    assert path.stat().st_size < size / 1000
    tracemalloc.start()
    read_idx(path, ndim=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * size


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_files_that_are_none_are_not_waited_for(tmp_path):
    names = [*NAMES, "train-images-idx3-ubyte.gz", "data_batch_1.bin", "train.tar"]
    for name in [*names, "train_32x32.mat", "test_32x32.mat"]:
        os.mkfifo(tmp_path / name)
    for load in (load_mnist, load_cifar10, load_svhn, load_dataset):
        with pytest.raises(FileNotFoundError):
            load(tmp_path)
    for name in (NAMES[0], "train-images-idx3-ubyte.gz"):
        with pytest.raises(ValueError, match=r"^\[read_idx\] .* regular file, got a FIFO"):
            read_idx(tmp_path / name, ndim=3)
