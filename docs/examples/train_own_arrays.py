"""Train on arrays of your own
===========================

Train a binary network on arrays of your own, freeze it, save it, and load it again.

The arrays here are made up: waves of three shapes, shifted and scaled at random, in noise.
"""

import tempfile
from pathlib import Path

import numpy as np

from bitops.layers import BatchNorm, BinaryDense, Packed, Sequential, Sign


def waves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Signals of shape (count, 64), float32, and labels: 0 sine, 1 square, 2 sawtooth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    turns = (np.arange(64) / 32 + rng.uniform(0, 0.25, (count, 1))) % 1
    sine = np.sin(2 * np.pi * turns)
    shapes = np.stack([sine, np.sign(sine), 2 * turns - 1])
    signals = shapes[labels, np.arange(count)] * rng.uniform(0.8, 1.2, (count, 1))
    return np.float32(signals + rng.normal(0, 0.15, signals.shape)), labels


def main() -> None:
    x_train, y_train = waves(2000, seed=0)
    x_validation, y_validation = waves(500, seed=1)
    x_test, y_test = waves(500, seed=2)

    # Labels are integers from 0 on, and the network ends in a score for each of them. The first
    # layer multiplies real numbers with its +-1 weights, the others bits with bits.
    model = Sequential(
        BinaryDense(64, 128, seed=3),
        BatchNorm(128),
        Sign(),
        BinaryDense(128, 128, seed=4),
        BatchNorm(128),
        Sign(),
        BinaryDense(128, 3, seed=5),
        BatchNorm(3),
        input_shape=(64,),
    )
    history = model.fit(
        x_train,
        y_train,
        epochs=4,
        batch_size=100,
        validation=(x_validation, y_validation),  # the best epoch stays in the model
        seed=6,
        verbose=0,
    )
    print(history)

    packed = model.freeze()
    print(packed.summary())

    # The packed network computes what the trained one does, bit for bit, and so does its file.
    assert np.array_equal(packed(x_test), model(x_test))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "waves.safetensors")
        packed.save(path)
        print(f"{path.stat().st_size:,} bytes in the file")
        loaded = Packed.load(path)
    assert np.array_equal(loaded(x_test), packed(x_test))

    predicted = loaded.predict(x_test)
    error = np.mean(predicted != y_test)
    assert error == loaded.error_rate(x_test, y_test)
    print(f"test error {error:.1%}")
    assert error < 0.1


if __name__ == "__main__":
    main()
