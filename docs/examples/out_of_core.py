"""Train on a file longer than memory
==================================

Training on a file that is longer than memory, with a checkpoint in the middle.

The images lie in a .npy file. A reader maps it, and gives blocks of neighbouring rows in a new
order in each pass, so that the disk reads a block at once. `fit` draws them ahead in a thread.
"""

import tempfile
from pathlib import Path

import numpy as np

from bitops.models import mlp
from bitops.training import Callback, Checkpoint

PIXELS, CLASSES, ROWS, BATCH = 256, 10, 20_000, 100


class Reader:
    """Batches of rows and labels from two .npy files, shuffled; at least one pass long."""

    def __init__(self, folder: Path, rows: int, seed: int = 0):
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy")
        self.rows, self.rng = rows, np.random.default_rng(seed)

    def __len__(self):
        return len(self.labels) // self.rows

    def __iter__(self):
        for block in self.rng.permutation(len(self)):
            part = slice(block * self.rows, (block + 1) * self.rows)
            yield np.asarray(self.images[part]), self.labels[part]


def write_images(folder: Path):
    """Write noisy copies of one pattern for each class, block by block."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(2, size=(CLASSES, PIXELS), dtype=np.uint8) * 255
    labels = rng.integers(CLASSES, size=ROWS)
    np.save(folder / "labels.npy", labels)
    shape, dtype = (ROWS, PIXELS), np.uint8
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", dtype, shape)
    for start in range(0, ROWS, 1000):
        block = patterns[labels[start : start + 1000]]
        noise = rng.random(block.shape) < 0.35
        images[start : start + 1000] = np.where(noise, 255 - block, block)


class StopInTheMiddle(Callback):
    def on_batch(self, run):
        run.stop = run.step == 300


def train(folder: Path, **options):
    model = mlp(PIXELS, hidden=64, depth=1, classes=CLASSES, seed=0)
    history = model.fit(Reader(folder, BATCH), epochs=2, verbose=0, **options)
    return model, history


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        model, history = train(folder)
        print(history)

        # the same in two sittings: the reader is drawn again up to where the first one ended
        train(folder, callbacks=[StopInTheMiddle(), Checkpoint(folder / "half.safetensors")])
        again, _ = train(folder, resume=folder / "half.safetensors")

        reader = Reader(folder, 1000)
        errors = [model.error_rate(images, labels) for images, labels in reader]
        print(f"error on all {ROWS:,} rows: {np.mean(errors):.2%}")
        assert np.mean(errors) < 0.02
        images, _ = next(iter(reader))
        assert np.array_equal(again.outputs(images), model.outputs(images))
        del reader, images  # Windows deletes no file that is mapped


if __name__ == "__main__":
    main()
