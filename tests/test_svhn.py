"""The files of SVHN, as the tools write them that are in use for MATLAB 5 and 7.3."""

import struct
import sys
import tracemalloc
import zlib
from dataclasses import fields

import numpy as np
import pytest
from scipy.io import savemat

from bitops.data.datasets import load_svhn
from bitops.data.matlab import read_arrays


def write_svhn(folder, train=100, test=20):
    """A miniature of SVHN; returns its images and labels as they are in the files."""
    rng = np.random.default_rng(4)
    parts = {}
    for part, count in (("train", train), ("test", test)):
        x = rng.integers(256, size=(32, 32, 3, count), dtype=np.uint8)
        y = (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]
        savemat(folder / f"{part}_32x32.mat", {"X": x, "y": y}, do_compression=True)
        parts[part] = x, y
    return parts


def test_svhn_files(tmp_path):
    parts = write_svhn(tmp_path)
    data = load_svhn(tmp_path)
    x, y = parts["train"]
    images = x.transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(data.x_train, images[:90])
    np.testing.assert_array_equal(data.x_validation, images[90:])
    np.testing.assert_array_equal(np.r_[data.y_train, data.y_validation], y[:, 0] % 10)
    assert data.y_train[9] == 0  # the digit 0 is 10 in the file
    np.testing.assert_array_equal(data.x_test, parts["test"][0].transpose(3, 0, 1, 2))
    assert (data.classes, data.image_shape, data.x_train.dtype) == (10, (32, 32, 3), np.uint8)


def test_svhn_with_a_missing_file(tmp_path):
    write_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"\[load_svhn\] test_32x32.mat must be in"):
        load_svhn(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.ones((3, 1))}, r"X in .* got none"),
        ({"X": np.zeros((32, 32, 3, 3)), "y": np.ones((3, 1))}, "X in .* got float64 of shape"),
        ({"X": np.zeros((32, 30, 3, 3), np.uint8), "y": np.ones((3, 1))}, "X in "),
        ({"X": np.zeros((32, 32, 3, 3), np.uint8)}, "y in .* got none"),
        ({"X": np.zeros((32, 32, 3, 3), np.uint8), "y": np.ones((4, 1))}, "y in .* got"),
        ({"X": np.zeros((32, 32, 3, 3), np.uint8), "y": np.zeros((3, 1))}, "y in .* got 0"),
        ({"X": np.zeros((32, 32, 3, 1), np.uint8), "y": np.array([[np.nan]])}, "y in .* got nan"),
        ({"X": np.zeros((32, 32, 3, 1), np.uint8), "y": np.array([[1.5]])}, "y in .* got 1.5"),
    ],
)
def test_svhn_with_other_arrays(tmp_path, arrays, message):
    write_svhn(tmp_path)
    savemat(tmp_path / "train_32x32.mat", arrays)
    with pytest.raises(ValueError, match=rf"^\[load_svhn\] {message}"):
        load_svhn(tmp_path)


def test_svhn_of_another_class_or_type(tmp_path):
    """Of these, char and sparse arrays make scipy's loadmat crash."""
    write_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    savemat(path, {"X": np.zeros((32, 32, 3, 3), np.uint8), "y": np.ones((3, 1))})
    whole = path.read_bytes()
    load_svhn(tmp_path)
    head = 128 + 8
    places = {"class": head + 8, "flags": head + 9, "stored": head + 16 + 24 + 8}
    assert whole[places["class"]] == 9 and whole[places["stored"]] == 2
    for name, place in places.items():
        for byte in set(range(256)) - {whole[place]}:
            if (name == "flags" and not byte & 8) or (name == "stored" and byte == 1):
                continue  # another flag than that of complex numbers; int8
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            with pytest.raises(ValueError, match=r"^\[load_svhn\]"):
                load_svhn(tmp_path)


def test_matlab_arrays(tmp_path, rng):
    """As SciPy reads them, whatever their type, byte order and packing."""
    arrays = {
        "a": rng.integers(0, 256, (3, 4, 2), dtype=np.uint8),
        "b": np.array([[1.5, -2.0, np.inf]]),
        "c": rng.integers(-9, 9, (5, 1)),
        "d": np.zeros((0, 3), np.float32),
    }
    for compressed in (False, True):
        savemat(tmp_path / "x.mat", {**arrays, "text": "abc"}, do_compression=compressed)
        data = (tmp_path / "x.mat").read_bytes()
        found = read_arrays(data, tuple(arrays))
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
        with pytest.raises(ValueError, match="text must be an array of real numbers"):
            read_arrays(data, ("text",))
    with pytest.raises(ValueError, match=r"the header must be that of MATLAB 5 or 7\.3"):
        read_arrays(data[:124] + b"\0\3IM" + data[128:], ("a",))


def element(kind, content, order="<"):
    """An element of a MATLAB 5 file, padded to 8 bytes; small ones share the 8 of their head."""
    if len(content) <= 4:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    padding = bytes(-len(content) % 8)
    return struct.pack(f"{order}II", kind, len(content)) + content + padding


def matlab_5(order, compressed, x, y):
    """A file of SVHN as MATLAB writes it: doubles that are small integers are stored in a byte."""

    def variable(name, code, array):
        parts = [
            element(6, struct.pack(f"{order}II", code, 0), order),
            element(5, np.array(array.shape, f"{order}i4").tobytes(), order),
            element(1, name, order),
            element(2, array.tobytes(order="F"), order),
        ]
        content = b"".join(parts)
        matrix = struct.pack(f"{order}II", 14, len(content)) + content
        if not compressed:
            return matrix
        packed = zlib.compress(matrix)
        return struct.pack(f"{order}II", 15, len(packed)) + packed  # not padded

    text = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Mon Dec  5 21:18:15 2011"
    version = struct.pack(f"{order}HH", 0x0100, 0x4D49)
    return text.ljust(116) + bytes(8) + version + variable(b"X", 9, x) + variable(b"y", 6, y)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_svhn_as_matlab_5_writes_it(tmp_path, order, compressed):
    parts = write_svhn(tmp_path)
    whole = load_svhn(tmp_path)
    for part, arrays in parts.items():
        path = tmp_path / f"{part}_32x32.mat"
        path.write_bytes(matlab_5(order, compressed, *arrays))
    data = load_svhn(tmp_path)
    for field in fields(data):
        np.testing.assert_array_equal(getattr(data, field.name), getattr(whole, field.name))
    y = read_arrays(path.read_bytes(), ("y",))["y"]
    assert y.dtype == np.float64 and y[9, 0] == 10


def write_matlab_73(path, arrays, *, compressed=False, **attributes):
    """A file of MATLAB 7.3: HDF5 with reversed axes, a class for each, behind a block of text."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            rows = array.T
            options = {"compression": "gzip", "chunks": (1, *rows.shape[1:])} if compressed else {}
            made = file.create_dataset(name, data=rows, **options)
            kind = {"float64": "double", "float32": "single"}.get(array.dtype.name)
            made.attrs["MATLAB_class"] = np.bytes_(kind or array.dtype.name)
            for key, value in attributes.items():
                made.attrs[key] = value
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Dec  5 21:18:15 2011 HDF5"
    with open(path, "r+b") as file:
        file.write(text.ljust(116) + bytes(8) + struct.pack("<HH", 0x0200, 0x4D49))


@pytest.mark.parametrize("compressed", [False, True])
def test_svhn_as_matlab_73_writes_it(tmp_path, compressed):
    parts = write_svhn(tmp_path)
    whole = load_svhn(tmp_path)
    for part, (x, y) in parts.items():
        arrays = {"X": x, "y": y.astype(np.float64)}
        write_matlab_73(tmp_path / f"{part}_32x32.mat", arrays, compressed=compressed)
    data = load_svhn(tmp_path)
    for field in fields(data):
        np.testing.assert_array_equal(getattr(data, field.name), getattr(whole, field.name))


def test_matlab_73_files_that_are_refused(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    write_svhn(tmp_path, train=3, test=3)
    path = tmp_path / "train_32x32.mat"
    good = {"X": np.zeros((32, 32, 3, 3), np.uint8), "y": np.ones((3, 1))}

    def refused(message, kind=ValueError):
        with pytest.raises(kind, match=rf"^\[load_svhn\] .*{message}"):
            load_svhn(tmp_path)

    write_matlab_73(path, {"X": good["X"]})
    refused("got none")
    write_matlab_73(path, good, MATLAB_empty=np.uint8(1))
    refused("X must be an array of real numbers, got class 'uint8'")
    write_matlab_73(path, {**good, "y": np.ones((3, 1), bool)})
    refused("y must be an array of real numbers, got class 'bool'")
    write_matlab_73(path, {**good, "y": np.ones(3)})
    refused("y must have 2 to 4 axes")
    write_matlab_73(path, good)
    with h5py.File(path, "r+") as file:
        del file["y"]
        file["y"] = h5py.ExternalLink("elsewhere.h5", "y")
    refused("must hold 'y' itself")
    write_matlab_73(path, good)
    with h5py.File(path, "r+") as file:
        del file["X"]
        claimed = file.create_dataset("X", (1 << 20, 3, 32, 32), "u1", chunks=(1, 3, 32, 32))
        claimed.attrs["MATLAB_class"] = np.bytes_("uint8")
    refused("far larger than the file")
    write_matlab_73(path, good)
    whole = path.read_bytes()
    for size in (128, 512, 600, len(whole) // 2):
        path.write_bytes(whole[:size])
        refused("must be a complete MATLAB file")
    path.write_bytes(whole[:561] + b"\x7f" + whole[562:])  # h5py raises OverflowError
    refused("its HDF5 part is damaged")
    path.write_bytes(whole)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused("MATLAB 7.3 files need h5py", ImportError)


def test_a_packed_matlab_array_takes_no_more_than_its_head_says(tmp_path):
    packed = zlib.compress(struct.pack("<II", 14, 64) + bytes(64 << 20))
    data = bytes(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="must have 64 bytes"):
            read_arrays(data, ("X",))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_damaged_svhn_is_refused(tmp_path):
    """Cut anywhere, or with another byte in a header, it is an error that names the file."""
    write_svhn(tmp_path, train=3, test=3)
    path = tmp_path / "train_32x32.mat"
    whole = path.read_bytes()
    damaged = [b"", b"text" * 100, *(whole[:size] for size in (1, 100, 127, 129, 200, 9000))]
    damaged += [whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :] for i in (125, 128, 136, 5000)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"^\[load_svhn\] .*train_32x32.mat"):
            load_svhn(tmp_path)
