"""Networks as functions: order of layers, and that each trains and freezes to the same outputs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import bitops as bo
from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BinaryDense,
    Conv2D,
    Dense,
    PackedBatchNorm,
    PackedConv2D,
    PackedDense,
    Residual,
    Sequential,
)
from bitops.models import (
    alexnet,
    binary_densenet28,
    binarynet,
    birealnet18,
    lenet5,
    meliusnet22,
    mlp,
    nin,
    quicknet,
    reactnet_a,
    real_to_binary,
    resnet18,
    resnet_e18,
)
from bitops.training.losses import squared_hinge
from bitops.training.optim import Adam


@pytest.fixture(autouse=True)
def bits_on_one_thread():
    """As `fit` does: pools of threads for bits and for floats would wait for each other."""
    before = bo.get_num_threads()
    bo.set_num_threads(1)
    yield
    bo.set_num_threads(before)


class Net(NamedTuple):
    """A net small enough for tests, and what it takes."""

    make: Callable[..., Sequential]
    shape: tuple[int, ...]
    real: bool  # whether images are float32 and floats remain up to the scores


def small(function, shape, **options) -> Net:
    return Net(lambda **more: function(shape, classes=4, **options, **more), shape, True)


NETS = {
    "mlp": Net(lambda seed: mlp(30, 20, 2, 4, seed=seed), (30,), False),
    "binarynet": Net(
        lambda seed: binarynet((11, 8, 3), 4, width=1 / 16, seed=seed), (11, 8, 3), False
    ),
    "alexnet": small(alexnet, (67, 70, 3), width=1 / 32),
    "lenet5": small(lenet5, (17, 20, 1), width=1 / 8),
    "nin": small(nin, (11, 12, 3), width=1 / 24),
    "resnet18": small(resnet18, (37, 33, 3), width=3 / 64),
}
XNOR_NETS = [name for name, net in NETS.items() if net.real]
IMAGENET_NETS = {
    "birealnet18": small(birealnet18, (32, 64, 3), width=1 / 16),
    "resnet_e18": small(resnet_e18, (32, 64, 3), width=1 / 16),
    "real_to_binary": small(real_to_binary, (64, 32, 3), width=1 / 8),
    "binary_densenet28": small(binary_densenet28, (32, 32, 3), width=1 / 8),
    "meliusnet22": small(meliusnet22, (32, 32, 3), width=1 / 4),
    "quicknet, small": small(quicknet, (40, 39, 3), size="small", width=1 / 8),
    "quicknet": small(quicknet, (32, 32, 3), width=1 / 16),
    "quicknet, large": small(quicknet, (32, 32, 3), size="large", width=1 / 16),
    "reactnet_a": small(reactnet_a, (32, 64, 3), width=1 / 8),
}
NETS |= IMAGENET_NETS
CASES = [(name, {}) for name in ("mlp", "binarynet", *IMAGENET_NETS)] + [
    (name, {"scale_weights": scale_weights, "scale_input": scale_input})
    for name in XNOR_NETS
    for scale_weights in (False, True)
    for scale_input in (False, True)
]


def examples(net, rng, count):
    if net.real:
        return rng.standard_normal((count, *net.shape), dtype=np.float32)
    return rng.integers(0, 256, (count, *net.shape), np.uint8)


def walk(layer):
    """The layers of a model, those of branches included."""
    for part in layer.flat_layers() if hasattr(layer, "flat_layers") else [layer]:
        yield part
        for branch in part.branches().values():
            for inner in branch:
                yield from walk(inner)


def disturb(model, rng):
    """Give every vector of parameters, all gamma and beta among them, values of both signs."""
    for parameter in model.parameters():
        if len(parameter.shape) == 1:
            parameter.assign(rng.standard_normal(parameter.shape, dtype=np.float32))


def train_steps(model, x, y, count, lr=1e-3):
    optimizer = Adam(model.parameters(), lr=lr)
    for _ in range(count):
        scores = model.forward(x, training=True)
        model.backward(squared_hinge(scores, y)[1])
        optimizer.step()
    return scores


@pytest.mark.parametrize(("name", "options"), CASES)
def test_net_trains_and_freezes(name, options, rng):
    net = NETS[name]
    model = net.make(seed=0, **options)
    x, y = examples(net, rng, 12), rng.integers(0, 4, 12)
    disturb(model, rng)
    scores = train_steps(model, x, y, 3)
    assert scores.shape == (12, 4)
    for parameter in model.parameters():
        assert np.isfinite(parameter.value).all()
        assert np.isfinite(parameter.grad).all()
    # the gradient has come all the way down
    assert np.abs(model.parameters()[0].grad).max() > 0

    packed = model.freeze()
    expected, given = model.outputs(x), packed.outputs(x)
    assert np.ptp(expected, axis=0).max() > 0  # the scores depend on the image
    if net.real:
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    else:
        np.testing.assert_array_equal(given, expected)
    np.testing.assert_array_equal(packed.predict(x, batch_size=5), model.predict(x))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (binarynet, {"width": 1 / 4}),
        (alexnet, {"width": 1 / 8}),
        (lenet5, {}),
        (nin, {"width": 1 / 4}),
        (resnet18, {"width": 1 / 4}),
    ],
)
def test_net_learns_four_images(make, options, rng):
    size = {alexnet: (67, 67, 3), lenet5: (16, 16, 1)}.get(make, (16, 16, 3))
    model = make(size, classes=4, seed=0, **options)
    y = np.arange(20) % 4
    images = rng.standard_normal((4, *size))
    x = (images[y] + 0.3 * rng.standard_normal((20, *size))).astype(np.float32)
    scores = train_steps(model, x, y, 25, lr=1e-2)
    assert np.mean(scores.argmax(axis=1) == y) >= 0.9


@pytest.mark.parametrize("name", NETS)
def test_same_seed_same_weights(name):
    net = NETS[name]
    models = [net.make(seed=np.random.SeedSequence(3)), net.make(seed=3), net.make(seed=4)]
    first, again, other = ([p.value for p in model.parameters()] for model in models)
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    shapes = {}
    for value in first:
        if value.ndim > 1:
            shapes.setdefault(value.shape, []).append(value)
    for values in shapes.values():  # layers of one shape start differently
        assert all(not np.array_equal(values[0], value) for value in values[1:])


def names(layers):
    return " ".join(layer.name for layer in layers)


def test_mlp_has_the_stated_order():
    names = [layer.name for layer in mlp(9, 8, 2, 3, dropout=0.5, input_dropout=0.2).layers]
    hidden = ["BinaryDense", "BatchNorm", "Sign", "Dropout"]
    assert names == ["Dropout", *hidden, *hidden, "BinaryDense", "BatchNorm"]
    linear = mlp(9, 8, 0, 3)
    assert linear.input_shape == (9,)
    assert [layer.name for layer in linear.layers] == ["BinaryDense", "BatchNorm"]
    assert linear(np.ones((2, 9))).shape == (2, 3)
    with pytest.raises(ValueError, match=r"\[mlp\] depth"):
        mlp(9, 8, -1, 3)
    a, b = mlp(9, 8, 1, 3, seed=4), mlp(9, 8, 1, 3, seed=4)
    np.testing.assert_array_equal(a.layers[0].weight.value, b.layers[0].weight.value)


def test_binarynet_has_the_published_size():
    model = binarynet()
    stage = "BinaryConv2D BatchNorm Sign BinaryConv2D MaxPool2D BatchNorm Sign "
    assert names(model.layers) == (
        3 * stage + "Flatten " + 2 * "BinaryDense BatchNorm Sign " + "BinaryDense BatchNorm"
    )
    weights = [layer.weight.shape for layer in model.layers if hasattr(layer, "weight")]
    assert weights == [
        *((128, 3, 3, 3), (128, 3, 3, 128), (256, 3, 3, 128), (256, 3, 3, 256)),
        *((512, 3, 3, 256), (512, 3, 3, 512), (1024, 8192), (1024, 1024), (10, 1024)),
    ]
    # everything between the first products and the scores is bits
    packed = model.freeze()
    products = [x for x in packed.layers if isinstance(x, PackedConv2D | PackedDense)]
    assert len(products) == 9
    assert all(layer.threshold is not None for layer in products[:-1])
    assert not any(isinstance(layer, PackedBatchNorm) for layer in packed.layers)


@pytest.mark.parametrize("scale_input", [False, True])
def test_alexnet_has_the_published_size(scale_input):
    model = alexnet(scale_input=scale_input, width=1 / 16, classes=7)
    sign = "" if scale_input else "Sign "
    block = f"BatchNorm {sign}BinaryConv2D "
    assert names(model.layers) == (
        f"Conv2D BatchNorm ReLU MaxPool2D {block}MaxPool2D {3 * block}MaxPool2D {2 * block}"
        "BatchNorm ReLU Conv2D Flatten"
    )
    weights = [layer.weight.shape for layer in model.layers if hasattr(layer, "weight")]
    assert weights == [
        *((6, 11, 11, 3), (16, 5, 5, 6), (24, 3, 3, 16), (24, 3, 3, 24), (16, 3, 3, 24)),
        *((256, 6, 6, 16), (256, 1, 1, 256), (7, 1, 1, 256)),
    ]


def test_lenet5_has_the_published_size():
    model = lenet5()
    assert names(model.layers) == (
        "Conv2D BatchNorm ReLU MaxPool2D BatchNorm Sign BinaryConv2D ReLU MaxPool2D BatchNorm Sign "
        "Flatten BinaryDense ReLU Dense"
    )
    weights = [layer.weight.shape for layer in model.layers if hasattr(layer, "weight")]
    assert weights == [(20, 5, 5, 1), (50, 5, 5, 20), (500, 800), (10, 500)]


def test_nin_has_the_published_size():
    model = nin(dropout=0.5)
    block, dropping = (
        "BatchNorm Sign BinaryConv2D ReLU ",
        "BatchNorm Sign Dropout BinaryConv2D ReLU ",
    )
    assert names(model.layers) == (
        f"Conv2D BatchNorm ReLU {2 * block}MaxPool2D {dropping}{2 * block}AvgPool2D "
        f"{dropping}{block}BatchNorm Conv2D ReLU GlobalAvgPool2D"
    )
    weights = [layer.weight.shape for layer in model.layers if hasattr(layer, "weight")]
    assert weights == [
        *((192, 5, 5, 3), (160, 1, 1, 192), (96, 1, 1, 160), (192, 5, 5, 96), (192, 1, 1, 192)),
        *((192, 1, 1, 192), (192, 3, 3, 192), (192, 1, 1, 192), (10, 1, 1, 192)),
    ]


def test_nin_with_dropout_trains(rng):
    model = nin((12, 12, 3), 4, width=1 / 24, dropout=0.5, seed=0)
    x = rng.standard_normal((6, 12, 12, 3), dtype=np.float32)
    train_steps(model, x, np.arange(6) % 4, 2)
    np.testing.assert_allclose(model.freeze().outputs(x), model.outputs(x), rtol=1e-5, atol=1e-5)


def test_resnet18_has_the_published_size():
    model = resnet18(width=1 / 32, classes=5)
    blocks = [layer for layer in model.layers if isinstance(layer, Residual)]
    assert names(model.layers) == (
        "Conv2D BatchNorm ReLU MaxPool2D "
        + 8 * "Residual "
        + "BatchNorm ReLU GlobalAvgPool2D Dense"
    )
    for place, block in enumerate(blocks):
        assert names(block.body.layers) == " ".join(2 * ["BatchNorm Sign BinaryConv2D"])
        widens = place in (2, 4, 6)
        assert (block.shortcut is not None) == widens
    layers = list(walk(model))
    assert sum(isinstance(layer, BinaryConv2D) for layer in layers) == 16
    assert [layer.weight.shape for layer in layers if isinstance(layer, Conv2D)] == [
        *((2, 7, 7, 3), (4, 1, 1, 2), (8, 1, 1, 4), (16, 1, 1, 8)),
    ]
    assert [layer.weight.shape for layer in layers if isinstance(layer, Dense)] == [(5, 16)]


@pytest.mark.parametrize("name", XNOR_NETS)
def test_options_reach_every_binary_layer(name):
    for scale_weights in (False, True):
        for scale_input in (False, True):
            options = {"scale_weights": scale_weights, "scale_input": scale_input}
            layers = list(walk(NETS[name].make(**options)))
            convolutions = [layer for layer in layers if isinstance(layer, BinaryConv2D)]
            assert convolutions
            assert {layer.scale_input for layer in convolutions} == {scale_input}
            binary = convolutions + [x for x in layers if isinstance(x, BinaryDense)]
            assert {layer.alpha is not None for layer in binary} == {scale_weights}
            assert any(isinstance(layer, BatchNorm) for layer in layers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: binarynet((32, 32)), r"\[binarynet\] image_shape must be"),
        (lambda: alexnet((224, 224)), r"\[alexnet\] image_shape must be"),
        (lambda: lenet5((28, 28)), r"\[lenet5\] image_shape must be"),
        (lambda: nin((32, 32)), r"\[nin\] image_shape must be"),
        (lambda: resnet18((32,)), r"\[resnet18\] image_shape must be"),
        (lambda: binarynet((7, 32, 3), width=1 / 32), "must fit"),
        (lambda: lenet5((8, 8, 1)), "must fit"),
        (lambda: alexnet((60, 60, 3), width=1 / 32), "must fit"),
        (lambda: alexnet(width=0), r"\[alexnet\] width must be positive"),
        (lambda: nin(width=float("inf")), r"\[nin\] width must be positive"),
        (lambda: nin(dropout=0.5, scale_input=True), r"\[nin\] dropout must be 0 with scale_input"),
        (lambda: resnet18(width=0), r"\[resnet18\] width must be positive"),
        (lambda: binarynet(width=-1), r"\[binarynet\] width must be positive"),
        (lambda: lenet5(width=0), r"\[lenet5\] width must be positive"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
