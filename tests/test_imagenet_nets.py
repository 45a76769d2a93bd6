"""Networks for ImageNet in their published sizes, and the tables of docs/models.md."""

import functools
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_models import IMAGENET_NETS, disturb, examples, walk

from bitops.layers import (
    BatchNorm,
    BinaryConv2D,
    BlurPool2D,
    Concat,
    PackedBatchNorm,
    PackedConv2D,
    PackedSign,
    Residual,
    RSign,
)
from bitops.models import (
    binary_densenet28,
    birealnet18,
    meliusnet22,
    quicknet,
    reactnet_a,
    real_to_binary,
    resnet_e18,
)

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
NETS = {
    "birealnet18": birealnet18,
    "resnet_e18": resnet_e18,
    "real_to_binary": real_to_binary,
    "binary_densenet28": binary_densenet28,
    "meliusnet22": meliusnet22,
    "quicknet, small": functools.partial(quicknet, size="small"),
    "quicknet": quicknet,
    "quicknet, large": functools.partial(quicknet, size="large"),
    "reactnet_a": reactnet_a,
}

# What Larq Zoo states in the docstrings of its networks: parameters, and how many numbers a channel
# of a BatchNorm counts there (4 with the running statistics), then MiB with those.
LARQ_ZOO = {
    "birealnet18": (11_699_112, 4, 4.03),
    "resnet_e18": (11_699_368, 4, 4.03),
    "real_to_binary": (11_995_624, 4, None),  # 5.13 MiB with 2 numbers a channel
    "binary_densenet28": (5_150_504, 4, 4.12),
    "meliusnet22": (6_944_584, 2, 3.88),
    "quicknet, small": (12_655_688, 2, 4.00),
    "quicknet": (13_234_088, 2, 4.17),
    "quicknet, large": (23_342_248, 2, 5.40),
}


@functools.cache
def full_size(name):
    """The network, its parameters, those of one bit, and its packed form."""
    model = NETS[name](seed=0)
    parameters = model.parameters()
    binary = sum(p.size for p in parameters if p.binary)
    return model, sum(p.size for p in parameters), binary, model.freeze()


def channels(model, kind):
    return sum(layer.in_features for layer in walk(model) if isinstance(layer, kind))


@pytest.mark.parametrize("name", LARQ_ZOO)
def test_parameters_are_those_of_larq_zoo(name):
    model, parameters, binary, _ = full_size(name)
    published, numbers, mebibytes = LARQ_ZOO[name]
    count = parameters + (numbers - 2) * channels(model, BatchNorm)
    count += 9 * channels(model, BlurPool2D)  # fixed filters, which are counted there
    assert count == published
    if mebibytes is not None:
        size = (binary / 8 + 4 * (count - binary)) / 2**20
        assert size == pytest.approx(mebibytes, abs=0.0051)


def test_parameters_of_reactnet_are_those_of_its_blocks():
    """Counted by hand from the released code: its paper states only operations."""
    model, parameters, binary, _ = full_size("reactnet_a")
    sizes = (32, 64, 128, 128, 256, 256, *6 * (512,), 1024, 1024)
    pairs = list(pairwise(sizes))
    assert binary == sum(9 * i * i + i * o for i, o in pairs)
    # two RSigns of i, a BatchNorm and an RPReLU of i and of o; the first layer; the scores
    floats = sum(7 * i + 5 * o for i, o in pairs) + 27 * 32 + 2 * 32 + 1025 * 1000
    assert parameters - binary == floats
    assert channels(model, RSign) == sum(2 * i for i, _ in pairs)


@pytest.mark.parametrize(
    ("name", "binary", "floats"),
    [
        # Liu et al., "ReActNet", 2020, the table of computational costs
        ("birealnet18", 1.68e9, 1.39e8),
        ("real_to_binary", 1.68e9, None),
        ("reactnet_a", 4.82e9, 0.12e8),
    ],
)
def test_multiply_adds_are_published(name, binary, floats):
    model, *_ = full_size(name)
    rows = model.summary().rows
    assert sum(row.binary_macs for row in rows) == pytest.approx(binary, rel=3e-3)
    if floats is not None:
        products = [row.float_macs for row in rows if re.search(r"Dense|\bConv2D", row.layer)]
        assert sum(products) == pytest.approx(floats, rel=0.02)


def rows_of_page():
    """The cells of the first table of the page, by the name of the network."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.fullmatch(r"`(\w+)`(, \w+)?", cells[0])
        if name and len(cells) == 8:
            yield name[1] + (name[2] or ""), cells[1:]


@pytest.mark.parametrize("name", NETS)
def test_the_page_states_sizes(name):
    _, parameters, binary, packed = full_size(name)
    total = packed.summary().total
    assert dict(rows_of_page())[name][:6] == [
        f"{parameters:,}",
        f"{binary:,}",
        f"{parameters - binary:,}",
        f"{total.binary_macs / 1e6:,.0f}",
        f"{total.float_macs / 1e6:,.1f}",
        f"{packed.nbytes / 2**20:.2f}",
    ]
    assert packed.nbytes == total.packed_bytes


def test_the_page_states_published_sizes():
    for name, cells in rows_of_page():
        published = "not stated"
        if name in LARQ_ZOO:
            count, _, mebibytes = LARQ_ZOO[name]
            published = f"{count:,}; {mebibytes or 5.13:.2f}"
        assert cells[6] == published, name


@pytest.mark.parametrize("name", IMAGENET_NETS)
def test_packed_and_training_graph_are_equal_bit_for_bit(name, rng):
    net = IMAGENET_NETS[name]
    model = net.make(seed=1)
    x = examples(net, rng, 6)
    model.forward(x, training=True)
    disturb(model, rng)
    packed = model.freeze()
    scores = model(x)
    assert np.ptp(scores, axis=0).max() > 0
    np.testing.assert_array_equal(packed(x), scores)
    np.testing.assert_array_equal(packed(x[:1]), model(x[:1]))


@pytest.mark.parametrize("name", NETS)
def test_binary_convolutions_take_bits(name):
    """Each has a sign before it, and no BatchNorm between the two is left unfolded."""
    *_, packed = full_size(name)
    products = 0
    for chain in chains(packed):
        for before, layer in zip([None, *chain], chain, strict=False):
            if isinstance(layer, PackedConv2D):
                products += 1
                assert isinstance(before, PackedSign), layer
            if isinstance(layer, PackedSign):
                assert not isinstance(before, PackedBatchNorm)
    model, *_ = full_size(name)
    assert products == sum(isinstance(layer, BinaryConv2D) for layer in walk(model))


def chains(layer):
    """The chains of packed layers in a model, the outermost first."""
    yield layer.layers
    for part in layer.layers:
        for name in part.branches():
            yield from chains(getattr(part, name))


def test_depths_are_published():
    counts = {
        name: sum(isinstance(layer, BinaryConv2D) for layer in walk(net.make()))
        for name, net in IMAGENET_NETS.items()
    }
    assert counts == {
        "birealnet18": 16,
        "resnet_e18": 16,
        "real_to_binary": 16,
        "binary_densenet28": 23,
        "meliusnet22": 34,
        "quicknet, small": 16,
        "quicknet": 16,
        "quicknet, large": 32,
        "reactnet_a": 26,
    }
    blocks = [type(layer) for layer in IMAGENET_NETS["meliusnet22"].make().layers]
    assert blocks.count(Concat) == blocks.count(Residual) == 17


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: birealnet18((224, 224)), r"\[birealnet18\] image_shape must be"),
        (lambda: resnet_e18(width=0), r"\[resnet_e18\] width must be positive"),
        (lambda: real_to_binary(width=-1), r"\[real_to_binary\] width must be positive"),
        (lambda: binary_densenet28((224,)), r"\[binary_densenet28\] image_shape must be"),
        (lambda: meliusnet22(width=1 / 8), r"\[meliusnet22\] width must leave 32 and 64"),
        (lambda: quicknet(size="tiny"), r"\[quicknet\] size must be one of small, medium, large"),
        (lambda: reactnet_a(width=float("nan")), r"\[reactnet_a\] width must be positive"),
        (lambda: birealnet18((16, 15, 3), width=1 / 16), "must"),
        (lambda: reactnet_a((4, 4, 3), width=1 / 16), "must fit"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
