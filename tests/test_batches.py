"""Batches of inference, which are cut by the bytes of the largest activation."""

import tracemalloc

import numpy as np
import pytest

from bitops import pack
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Quantize,
    Residual,
    Sequential,
    Sign,
    batches,
)
from bitops.models import mlp, resnet18
from bitops.quantizers import DoReFaActivation
from bitops.training import EBP

RNG = np.random.default_rng(0)


def convnet():
    """It ends in a small float32 product, in which BLAS rounds by the number of rows."""
    return Sequential(
        BinaryConv2D(3, 16, 3, padding=1, seed=0),
        MaxPool2D(2),
        BatchNorm(16),
        Sign(),
        BinaryConv2D(16, 64, 3, padding=1, seed=1),
        BatchNorm(64),
        Sign(),
        Sequential(Flatten(), BinaryDense(256 * 64, 64, seed=2), BatchNorm(64)),
        Dense(64, 10, seed=3),
    )


def rows_seen(model, monkeypatch):
    """The numbers of rows that each kind of layer was given."""
    seen = {}

    def watch(layer):
        forward, name = layer.forward, layer.name

        def watching(x, **options):
            seen.setdefault(name, []).append(len(x))
            return forward(x, **options)

        monkeypatch.setattr(layer, "forward", watching)

    for layer in model.flat_layers():
        watch(layer)
    return seen


@pytest.mark.parametrize("kind", ["trained", "packed"])
def test_images_pass_large_layers_some_at_a_time(kind, monkeypatch):
    model = convnet() if kind == "trained" else convnet().freeze()
    x = RNG.integers(256, size=(150, 32, 32, 3), dtype=np.uint8)
    whole = model.forward(x)
    seen = rows_seen(model, monkeypatch)
    np.testing.assert_array_equal(model.outputs(x), whole)
    first = next(iter(seen.values()))
    most = batches.BYTES // (4 * 16 * 16 * 64)  # of the second convolution
    assert max(first) <= most and min(first) >= most // 2 and sum(first) % 150 == 0
    last = "Dense" if kind == "trained" else "FloatDense"
    assert seen[last] == [150]


def test_the_bits_of_any_number_of_rows_are_those_of_all_at_once():
    model = convnet()
    packed = model.freeze()
    for n in (0, 1, 2, 65, 129):
        x = RNG.integers(256, size=(n, 32, 32, 3), dtype=np.uint8)
        np.testing.assert_array_equal(model.outputs(x), model(x))
        np.testing.assert_array_equal(packed.outputs(x), packed(x))
        np.testing.assert_array_equal(packed.predict(x), model(x).argmax(axis=1))


@pytest.mark.parametrize("channels", [3, 64, 65, 128])
@pytest.mark.parametrize("kind", ["bits", "numbers"])
def test_no_images_flatten_to_no_rows(channels, kind):
    x = np.zeros((0, 4, 5, channels), np.float32)
    x = pack(x) if kind == "bits" else x
    model = Sequential(Flatten(), BinaryDense(20 * channels, 3, seed=0))
    for network in (model, model.freeze()):
        assert network.outputs(x).shape == (0, 3)
        assert network.predict(x).shape == (0,)


def test_rows_pass_together_as_before(monkeypatch):
    """No activation of 1000 rows is large here."""
    model = mlp(64, 256, 2, 10, seed=0)
    seen = rows_seen(model, monkeypatch)
    model.predict(RNG.standard_normal((2500, 64)).astype(np.float32))
    assert all(set(rows) == {1000, 500} for rows in seen.values())
    seen.clear()
    model.outputs(pack(RNG.standard_normal((70, 64))), batch_size=32)
    assert all(set(rows) == {32, 6} for rows in seen.values())


def test_bits_codes_and_branches_are_joined(monkeypatch):
    monkeypatch.setattr(batches, "BYTES", 4 * 8 * 8 * 16 * 5)  # five images of 16 channels
    bits = Sequential(BinaryConv2D(3, 16, 1, seed=0), Sign())
    codes = Sequential(Conv2D(3, 16, 1, seed=0), Quantize(DoReFaActivation(2)))
    branch = Sequential(
        Residual(Sequential(Conv2D(3, 16, 1, seed=0), Conv2D(16, 3, 1, seed=1))), GlobalAvgPool2D()
    )
    x = RNG.standard_normal((23, 8, 8, 3)).astype(np.float32)
    assert bits.outputs(x) == bits(x)
    np.testing.assert_array_equal(codes.outputs(x), codes(x).values())
    seen = rows_seen(branch, monkeypatch)
    np.testing.assert_allclose(branch.outputs(x), branch(x), rtol=1e-5)
    # pieces pass the block, inside which activations are large; the last call is `branch(x)`
    assert seen["Residual"] == [4, 5, 4, 5, 5, 23] and seen["GlobalAvgPool2D"] == [23, 23]


def test_a_forward_of_ones_own_is_called_as_a_whole(monkeypatch):
    class Doubled(Sequential):
        def forward(self, x, *, training=False):
            return 2 * super().forward(x, training=training)

    monkeypatch.setattr(batches, "BYTES", 4 * 8 * 8 * 16 * 5)
    model = Doubled(BinaryConv2D(3, 16, 1, seed=0), GlobalAvgPool2D())
    x = RNG.integers(256, size=(23, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(model.outputs(x), model(x))
    seen = rows_seen(model, monkeypatch)
    model.predict(x)
    assert max(seen["BinaryConv2D"]) == 5
    trainer = EBP([192, 8, 3], seed=0)
    np.testing.assert_array_equal(
        trainer.outputs(x.reshape(23, -1)), trainer.forward(x.reshape(23, -1))
    )


@pytest.mark.parametrize("kind", ["trained", "packed"])
def test_memory_is_bounded(kind):
    model = resnet18((64, 64, 3), 10, width=0.25, seed=0)
    network = model if kind == "trained" else model.freeze()
    x, peaks = np.broadcast_to(np.uint8(7), (1000, 64, 64, 3)), {}
    for size in (None, 1000):
        tracemalloc.start()
        network.error_rate(x, np.zeros(1000, int), batch_size=size)
        peaks[size] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[None] < 5 * batches.BYTES < peaks[1000]


def test_errors_of_shapes_are_those_of_the_layers():
    model = convnet()
    for call in (model.outputs, model.predict):
        with pytest.raises(ValueError, match=r"^\[BinaryConv2D\] x must have 3 features"):
            call(np.zeros((200, 32, 32, 4), np.float32))
    wrong = np.zeros((200, 30, 30, 3), np.float32)
    with pytest.raises(ValueError, match=r"^\[BinaryDense\] x must have 16384 features"):
        model.outputs(wrong)
