"""Small trainings and callbacks for tests of the loop, of callbacks and of checkpoints."""

import json
import signal

import numpy as np
import safetensors

from bitops.layers import ReLU
from bitops.models import mlp
from bitops.training.callbacks import Callback


def prototypes(n=240, features=96, classes=4, seed=0):
    """Noisy copies of one random +-1 pattern a class, as uint8 images of 0 and 255."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(2, size=(classes, features))
    y = rng.integers(classes, size=n)
    noise = rng.random((n, features)) < 0.1
    return ((patterns[y] ^ noise) * 255).astype(np.uint8), y


def train_small(**options):
    x, y = prototypes()
    model = mlp(96, 32, 1, 4, seed=0)
    options = {"epochs": 4, "batch_size": 20, "verbose": 0, **options}
    history = model.fit(x[:160], y[:160], validation=(x[160:], y[160:]), **options)
    return model, history


class Calls(Callback):
    """Keeps what it is called for, and does something at one step."""

    def __init__(self, at=None, do=None):
        self.names, self.at, self.do = [], at, do

    def on_start(self, run):
        self.names.append("start")

    def on_batch(self, run):
        self.names.append(run.step)
        if run.step == self.at:
            self.do(run)

    def on_epoch(self, run):
        self.names.append(f"epoch {run.epoch}")

    def on_end(self, run):
        self.names.append("interrupted" if run.interrupted else "end")


class Noise(ReLU):
    """Draws in evaluation too."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x, *, training=False):
        return super().forward(x, training=training) + self.rng.random()

    def generators(self):
        return [self.rng]


class At(Callback):
    """Does something at one step."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_batch(self, run):
        if run.step == self.step:
            self.do(run)


def stop(run):
    run.stop = True


def press(*_):
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def data(n=100, features=40, classes=4):
    rng = np.random.default_rng(3)
    patterns = rng.integers(2, size=(classes, features))
    y = rng.integers(classes, size=n)
    return ((patterns[y] ^ (rng.random((n, features)) < 0.3)) * 255).astype(np.uint8), y


def dense(seed=0, rate=0.2):
    return mlp(40, 24, 2, 4, seed=seed, dropout=rate, input_dropout=rate)


OPTIONS = {"epochs": 4, "batch_size": 20, "verbose": 0}  # 5 steps an epoch, or 4 with validation


def arrays(state):
    """The arrays in nested lists."""
    return (
        [array for part in state for array in arrays(part)] if isinstance(state, list) else [state]
    )


def assert_same(model, other):
    for a, b in zip(arrays(model.state()), arrays(other.state()), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def read(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["bitops"])
        return description, {name: file.get_tensor(name) for name in file.keys()}


def train_logged(*callbacks, seed=0, epochs=3, validated=True, **options):
    """A training on noise of 4 steps an epoch."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(256, size=(60, 20), dtype=np.uint8), rng.integers(3, size=60)
    model = mlp(20, 16, 1, 3, seed=seed)
    options |= {"validation": (x[:20], y[:20])} if validated else {}
    callbacks = list(callbacks)
    return model.fit(x, y, epochs=epochs, batch_size=15, callbacks=callbacks, verbose=0, **options)
