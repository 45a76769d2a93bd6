"""Targets: the readers of data sets, on any bytes and on damaged files of the right form."""

from __future__ import annotations

import functools
import gzip
import io
import struct
import tempfile
from pathlib import Path

import numpy as np

from bitops.data.datasets import CIFAR_RECORD, load_mnist, read_idx
from bitops.data.datasets import _read_batch as read_batch
from bitops.data.datasets import _read_svhn as read_svhn
from fuzz.reader import EDGES, Reader, allowed


def _damaged(reader: Reader, content: bytes) -> bytes:
    """Content with up to three damages."""
    for _ in range(reader.below(4)):
        place = reader.below(min(len(content), 1 << 16)) if content else 0
        edit = reader.below(4)
        if edit == 0:
            content = content[:place]
        elif edit == 1:
            content = content[:place] + reader.take(reader.below(9)) + content[place:]
        else:
            patch = reader.take(1 + reader.below(8))
            content = content[:place] + patch + content[place + len(patch) :]
    return content


def run_idx(data: bytes) -> None:
    """`read_idx`, plain and zipped; what it accepts is what the bytes say."""
    reader = Reader(data)
    zipped, raw, ndim = reader.below(2), reader.below(2), reader.choice((1, 3, 0, 2, 255))
    if raw:
        content = reader.rest()
    else:
        sizes = [
            reader.choice(EDGES) % 2**32 if reader.chance(4) else reader.below(4)
            for _ in range(ndim if ndim < 4 else 3)
        ]
        header = bytes([0, 0, 8, ndim]) + struct.pack(f">{len(sizes)}I", *sizes)
        content = _damaged(reader, header + reader.rest())
    if zipped and not raw:
        content = _damaged(reader, gzip.compress(content))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.gz" if zipped else "x")
        path.write_bytes(content)
        with allowed():
            x = read_idx(path, ndim)
            assert x.dtype == np.uint8 and x.ndim == ndim


def run_mnist(data: bytes) -> None:
    """The four files of `load_mnist`, each with sizes of its own."""
    reader = Reader(data)
    with tempfile.TemporaryDirectory() as folder:
        for part in ("train", "t10k"):
            count, height, width = (reader.below(8) for _ in range(3))
            labels = count if reader.chance(2) else reader.below(8)
            images = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, height, width)
            names = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
            (Path(folder) / names[0]).write_bytes(images + reader.take(count * height * width))
            one = bytes([0, 0, 8, 1]) + struct.pack(">I", labels)
            (Path(folder) / names[1]).write_bytes(one + reader.take(labels))
        with allowed():
            found = load_mnist(folder)
            assert len(found.x_train) == len(found.y_train) > 0
            assert len(found.x_test) == len(found.y_test) > 0
            assert found.x_train.max(initial=0) <= 255 and found.classes <= 256


def run_cifar(data: bytes) -> None:
    """One file of the binary version of CIFAR-10."""
    reader = Reader(data)
    records = b"".join(
        bytes([reader.below(12)]) + reader.take(4).ljust(CIFAR_RECORD - 1, b"\7")
        for _ in range(reader.below(3))
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data_batch_1.bin"
        path.write_bytes(_damaged(reader, records))
        with allowed():
            x, y = read_batch(path)
            assert x.shape == (len(y), 32, 32, 3) and y.max() <= 9


@functools.cache
def _svhn() -> tuple[bytes, bytes]:
    """Files of two images, plain and compressed."""
    from scipy.io import savemat

    arrays = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[10], [1]], np.uint8)}
    files = []
    for compressed in (False, True):
        file = io.BytesIO()
        savemat(file, arrays, do_compression=compressed)
        files.append(file.getvalue())
    return files[0], files[1]


def run_svhn(data: bytes) -> None:
    """A MATLAB file of SVHN, damaged."""
    reader = Reader(data)
    content = _svhn()[reader.below(2)]
    content = reader.rest() if reader.chance(8) else _damaged(reader, content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train_32x32.mat"
        path.write_bytes(content)
        with allowed():
            x, y = read_svhn(path)
            assert x.shape == (len(y), 32, 32, 3) and 0 <= y.min() <= y.max() <= 9
