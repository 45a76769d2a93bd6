"""Plans of packed models: the same bits as layer by layer, whatever the chain, input and time."""

import numpy as np
import pytest
from plans import BYTES, REAL, assert_plan, assert_same, layer_by_layer, planned, trained

import bitops as bo
from bitops import models
from bitops.benchmark import threads as some_threads
from bitops.layers import (
    Packed,
    PackedAsImages,
    PackedAsSequences,
    PackedAvgPool2D,
    PackedBatchNorm,
    PackedClip,
    PackedConcat,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedGlobalAvgPool2D,
    PackedLevels,
    PackedMaxPool2D,
    PackedMultiply,
    PackedMultiThreshold,
    PackedPad2D,
    PackedPadFeatures,
    PackedPlanesConv2D,
    PackedPlanesDense,
    PackedPReLU,
    PackedQuantize,
    PackedReLU,
    PackedResidual,
    PackedRPReLU,
    PackedSigmoid,
    PackedSign,
)

MULTIPLIES_NUMBERS = True

NETS = {
    "mlp": (lambda: models.mlp(784, 130, 3, seed=0), BYTES, (784,)),
    "mlp of one layer": (lambda: models.mlp(30, depth=0, seed=0), BYTES, (30,)),
    "binarynet": (lambda: models.binarynet((16, 16, 3), width=0.3, seed=0), BYTES, (16, 16, 3)),
    "binarynet of words": (
        lambda: models.binarynet((16, 16, 3), width=0.5, seed=0), BYTES, (16, 16, 3),
    ),
    "alexnet": (
        lambda: models.alexnet((67, 67, 3), 10, width=0.1, seed=0), REAL, (67, 67, 3),
    ),
    "lenet5": (lambda: models.lenet5(seed=0), REAL, (28, 28, 1)),
    "nin": (lambda: models.nin(width=0.2, seed=0), REAL, (32, 32, 3)),
    "resnet18": (
        lambda: models.resnet18((64, 64, 3), 10, width=0.25, seed=0), REAL, (64, 64, 3),
    ),
    "resnet18, scaled input": (
        lambda: models.resnet18((33, 33, 3), 10, width=0.1, scale_input=True, seed=0),
        REAL, (33, 33, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("net", NETS)
def test_networks_of_the_library(net, isa, rng):
    make, draw, shape = NETS[net]
    model = trained(make(), rng).freeze()
    for n in (1, 2, 0, 7):
        assert_plan(model, draw(rng, n, *shape))
    assert planned(model)
    for x in (draw(rng, 2, *shape).astype(np.float64), draw(rng, 4, *shape)[::2]):
        assert_plan(model, x)


def test_a_whole_network_is_one_plan(rng, threads):
    for name in ("mlp", "binarynet"):
        make, draw, shape = NETS[name]
        model = trained(make(), rng).freeze()
        assert_plan(model, draw(rng, 33, *shape), [len(model.layers)])


def random_dense(rng, k):
    """A packed dense layer with outputs of a random kind, its features, and what they are."""
    n = int(rng.choice([1, 7, 16, 17, 63, 64, 65, 130]))
    w = rng.normal(size=(n, k))
    kind = rng.choice(["bits", "flipped", "floats", "alpha", "bias", "products"])
    alpha, bias = rng.normal(size=(2, n)).astype(np.float32)
    if kind in ("bits", "flipped"):
        threshold = rng.integers(-5, 6, size=n)
        if rng.random() < 0.5:
            threshold = threshold + np.float32(0.5)
        flip = rng.random(n) < 0.5 if kind == "flipped" else None
        return PackedDense(w, threshold, flip), n
    scales = {"floats": {"alpha": alpha, "bias": bias}, "alpha": {"alpha": alpha}}
    return PackedDense(w, **scales.get(kind, {"bias": bias} if kind == "bias" else {})), n


def random_chain(rng, k):
    layers = []
    for _ in range(int(rng.integers(1, 6))):
        choice = rng.integers(5)
        if choice < 3:
            layer, k = random_dense(rng, k)
            layers.append(layer)
        elif choice == 3:
            layers.append(PackedBatchNorm(*rng.normal(size=(2, k)).astype(np.float32)))
            layers += [PackedReLU()] * int(rng.integers(2))
        else:
            threshold = rng.integers(-3, 3, size=k)
            layers.append(PackedSign(*([] if rng.random() < 0.3 else [threshold])))
    return layers


@pytest.mark.parametrize("seed", range(40))
def test_random_chains(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.choice([1, 5, 63, 64, 65, 200, 1030]))
    model = Packed(random_chain(rng, k))
    for n in (1, 2, 7, 40):
        x = rng.normal(size=(n, k)).astype(np.float32) * 3
        whole = np.round(x).astype(np.int32)
        for given in (x, whole, bo.pack(x), rng.integers(256, size=(n, k), dtype=np.uint8)):
            assert_plan(model, given)
    assert_plan(model, rng.normal(size=(2, 3, k)).astype(np.float32))


@pytest.mark.parametrize("seed", range(30))
def test_random_images(seed, isa):
    rng = np.random.default_rng(seed)
    channels, filters = int(rng.choice([1, 3, 16, 64, 70])), int(rng.choice([1, 10, 64, 65]))
    height, width = (int(size) for size in rng.integers(5, 12, size=2))
    kernel, stride = (int(size) for size in rng.integers(1, 4, size=2))
    sides = tuple(tuple(int(side) for side in rng.integers(0, 3, size=2)) for _ in range(2))
    dilation = int(rng.integers(1, 3))
    w = rng.normal(size=(filters, kernel, kernel, channels))
    options = {"stride": stride, "padding": sides, "dilation": dilation}
    pool = PackedMaxPool2D(2, 1, ((0, 1), (1, 0)), minimum=rng.random(filters) < 0.5)
    first = PackedConv2D(w, rng.integers(-9, 9, size=filters), **options)
    scores = PackedConv2D(w, alpha=np.linspace(1, 2, filters), **options)
    pools = PackedMaxPool2D(2, 2), PackedMaxPool2D((3, 2), 1, ((1, 2), (0, 0)))
    if min(first.output_shape((height, width, channels))[:2]) < 4:
        pools, pool = (), PackedSign()
    chains = [first, pool, PackedFlatten()], [scores, *pools[:1], PackedReLU(), PackedSign()]
    for layers in (*chains, [scores, PackedBatchNorm([-1] * filters, [2] * filters), *pools]):
        model = Packed(layers)
        for n in (1, 5):
            x = rng.integers(256, size=(n, height, width, channels), dtype=np.uint8)
            real = rng.normal(size=x.shape).astype(np.float32)
            for given in (x, real, bo.pack(real)):
                assert_plan(model, given)


def random_planes(rng, *shape):
    """Planes and their coefficients, two to four."""
    count = int(rng.integers(2, 5))
    coefficients = tuple(int(c) for c in rng.choice([1, 2, 4, 7, 256], size=count))
    return rng.choice([-1.0, 1.0], size=(count, *shape)), coefficients


def random_outputs(rng, n):
    """What becomes of products: numbers, scaled ones, or bits of thresholds of each type."""
    real = rng.normal(size=n).astype(np.float32)
    return (
        {},
        {"alpha": real},
        {"alpha": real, "bias": real[::-1]},
        {"threshold": rng.integers(-9, 9, size=n), "flip": rng.random(n) < 0.5},
        {"threshold": real * 9},
        {"threshold": rng.integers(2**24, 2**30, size=n)},
    )[rng.integers(6)]


@pytest.mark.parametrize("seed", range(25))
def test_weights_of_several_planes(seed, isa):
    rng = np.random.default_rng(seed)
    k, n = int(rng.choice([1, 16, 64, 70])), int(rng.choice([1, 10, 64, 65]))
    bits = 1 + seed % 4
    dense = PackedPlanesDense(*random_planes(rng, n, k), **random_outputs(rng, n))
    of_codes = PackedPlanesDense(
        *random_planes(rng, n, k), **random_outputs(rng, n), input_bits=bits
    )
    for m in (1, 20):
        x = rng.normal(size=(m, k)).astype(np.float32) * 3
        whole = rng.integers(-9, 9, size=x.shape, dtype=np.int32)
        for given in (x, whole, bo.pack(x), rng.integers(256, size=x.shape, dtype=np.uint8)):
            assert_plan(Packed([dense]), given)
        assert_plan(Packed([PackedQuantize(bits, 1.5), of_codes]), whole.astype(np.float32))
    groups = int(rng.choice([g for g in (1, 2, 5) if n % g == 0]))
    w, coefficients = random_planes(rng, n, 3, 2, k)
    conv = PackedPlanesConv2D(
        w, coefficients, **random_outputs(rng, n), padding=1, stride=2, groups=groups
    )
    images = rng.normal(size=(2, 6, 5, k * groups)).astype(np.float32)
    for given in (images, bo.pack(images), rng.integers(256, size=images.shape, dtype=np.uint8)):
        assert_plan(Packed([conv]), given)


@pytest.mark.parametrize("groups", (1, 2, 8))
def test_scaled_input(groups, rng, threads):
    """Real images that the layer binarizes, with the scale of each output position."""
    signs = rng.choice([-1.0, 1.0], size=(24, 3, 3, 16 // groups))
    factors = rng.normal(size=(2, 24)).astype(np.float32)
    settings = {"scale_input": True, "groups": groups, "padding": ((1, 0), (2, 1)), "stride": 2}
    for scales in ({}, {"alpha": factors[0]}, {"alpha": factors[0], "bias": factors[1]}):
        for pad_value in (0, 1):
            layer = PackedConv2D(signs, **scales, **settings, pad_value=pad_value)
            model = Packed([layer, PackedReLU(), PackedSign()])
            for n in (1, 5):
                whole = rng.integers(-9, 9, size=(n, 9, 8, 16), dtype=np.int32)
                real = rng.normal(size=whole.shape).astype(np.float32)
                assert_plan(model, real, [3])
                for given in (
                    real,
                    whole,
                    whole.astype(np.uint8),
                    special_numbers(rng, *real.shape),
                ):
                    assert_plan(Packed([layer]), given)
    with pytest.raises(ValueError, match=r"\[pack\] x must not hold NaN"):
        model(np.full((1, 9, 8, 16), np.nan, np.float32))
    with pytest.raises(TypeError, match="x must be real for scale_input=True"):
        model(bo.pack(real))


def test_many_rows_and_one_filter(threads, rng):
    """More blocks of sums than one, whose last rows are few."""
    model = Packed(PackedConv2D(rng.normal(size=(65, 5, 5, 3)), np.float32(9), padding=2))
    assert_plan(model, BYTES(rng, 3, 61, 47, 3), [1])
    assert_plan(model, REAL(rng, 3, 61, 47, 3), [1])
    model = Packed(PackedDense(rng.normal(size=(300, 66_001)), np.float32(50)))
    assert_plan(model, BYTES(rng, 70, 66_001), [1])


def float_layers(rng, k):
    """Layers that take numbers of k features and give as many."""
    return [
        PackedClip(),
        PackedClip(0.0, None),
        PackedClip(None, 0.0),
        PackedClip(-0.5, 6),
        PackedPReLU(rng.choice([-2.0, -0.0, 0.0, 0.25, 1.0], size=k)),
        PackedRPReLU(*rng.choice([-2.0, -0.0, 0.0, 0.25, 1.0], size=(3, k))),
        PackedBatchNorm(*rng.normal(size=(2, k)).astype(np.float32)),
        PackedReLU(),
        PackedSigmoid(),
        PackedResidual([PackedClip()], [PackedReLU()]),
    ]


def special_numbers(rng, *shape):
    """Numbers among which both zeros and infinities, the limits and their neighbours are."""
    x = rng.normal(size=shape).astype(np.float32) * 3
    special = np.float32([0.0, -0.0, np.inf, -np.inf, 1, -1, 6, -0.5, 0.5, 1.5, 1e-45, 3e38])
    return np.where(rng.random(shape) < 0.4, rng.choice(special, size=shape), x)


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_of_numbers(seed, threads):
    """Activations of networks from elsewhere, branches side by side, and codes."""
    rng = np.random.default_rng(seed)
    k = int(rng.choice([1, 3, 16, 65, 300]))
    layers = [float_layers(rng, k)[i] for i in rng.integers(10, size=rng.integers(1, 5))]
    body = PackedDense(rng.normal(size=(7, k)), input_bits=3)
    step = float(rng.choice([0.25, 1, 3]))
    levels = np.sort(rng.normal(size=(rng.choice([1, k]), rng.integers(1, 9))).astype(np.float32))
    codes = [PackedQuantize(3, step), PackedMultiThreshold(levels[:, :7])][int(rng.integers(2))]
    branches = PackedConcat([codes, body], [PackedClip(-1, 2)])
    chains = [layers, [*layers, codes], [codes, PackedLevels(step), *layers], [*layers, branches]]
    for chain in chains:
        model = Packed(chain)
        for n in (1, 70):
            x = special_numbers(rng, n, k)
            if chain is not layers:  # inf * 0 has no code
                x = np.clip(x, -1e6, 1e6)
            assert_plan(model, x, [len(chain)])
            assert_plan(model, np.clip(x, -1e6, 1e6).astype(np.int32), [len(chain)])
            assert_plan(model, bo.pack(x), [len(chain)])
            assert_plan(model, rng.integers(256, size=(n, k), dtype=np.uint8))
            model = Packed(chain)


def test_codes_of_integer_thresholds(rng, isa):
    """Sums stay integers: thresholds beyond 2^24 are exact."""
    k = 70
    levels = np.sort(rng.integers(-3, 4, size=(k, 5)) + np.array([0, 0, 0, 0, 2**24 + 1]))
    model = Packed(
        [PackedMultiThreshold(levels), PackedDense(rng.normal(size=(9, k)), input_bits=3)]
    )
    x = rng.integers(-4, 5, size=(33, k), dtype=np.int32)
    x[0] = 2**24
    x[1] = 2**24 + 1
    assert_plan(model, x, [2])
    assert_plan(model, x.astype(np.float32))
    with pytest.raises(ValueError, match="NaN"):
        Packed(PackedMultiThreshold(levels.astype(np.float32)))(np.full((2, k), np.nan, np.float32))


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
@pytest.mark.parametrize("count", [2, 6])
def test_blocks_of_codes_on_several_threads(bits, count, isa, rng):
    """Each thread multiplies blocks of its own, in memory of its own."""
    layers = [
        PackedQuantize(bits),
        PackedDense(rng.normal(size=(512, 600)), np.float32(5), input_bits=bits),
        PackedDense(rng.normal(size=(10, 512))),
    ]
    x = rng.random((1500, 600), np.float32)
    with some_threads(1):
        want = layer_by_layer(layers, x)
    with some_threads(count):
        for _ in range(3):
            assert_same(Packed(layers)(x), want)


@pytest.mark.parametrize("channels", [1, 16, 70])
def test_factors_of_channels(channels, rng, threads):
    """A branch of squeeze and excitation gives one row of factors for each image."""
    w = rng.normal(size=(channels, channels))
    gate = [PackedGlobalAvgPool2D(), PackedDense(w, alpha=0.1), PackedSigmoid()]
    for body in ([PackedClip()], [PackedSign()], [PackedPadFeatures(channels)]):
        model = Packed([PackedMultiply(body, gate), PackedSign(np.full(channels, 0.25))])
        for n, side in ((1, 1), (2, 5), (3, 40)):
            assert_plan(model, REAL(rng, n, side, side + 1, channels), [2])
    assert_plan(Packed(PackedMultiply([PackedClip()])), bo.pack(REAL(rng, 3, 4, channels)), [1])


@pytest.mark.parametrize("sides", [0, 1, ((0, 2), (3, 0)), ((1, 0), (0, 0))])
def test_padded_images(sides, rng, threads):
    for channels in (1, 3, 64, 70):
        x = REAL(rng, 2, 5, 4, channels)
        whole = np.round(x * 9).astype(np.int32)
        codes = rng.integers(256, size=x.shape, dtype=np.uint8)
        for value in (0, 1, -1, 0.3, 1e-50, 300, -np.float64(2**40)):
            for given in (x, whole, codes):
                assert_plan(Packed([PackedPad2D(sides, value)]), given, [1])
        for value in (-1, 1):
            assert_plan(Packed([PackedPad2D(sides, value)]), bo.pack(x), [1])
        with pytest.raises(ValueError, match=r"must be \+1 or -1"):
            Packed([PackedPad2D(sides, 0)])(bo.pack(x))


@pytest.mark.parametrize("before, after", [(0, 0), (2, 0), (0, 7), (5, 300)])
def test_padded_features(before, after, rng, threads):
    for k in (1, 3, 64, 200):
        model = Packed([PackedPadFeatures(k, before, after), PackedReLU()])
        for shape in ((1, k), (70, k), (2, 9, 4, k)):
            x = special_numbers(rng, *shape)
            for given in (x, bo.pack(x), rng.integers(256, size=shape, dtype=np.uint8)):
                assert_plan(model, given, [2])
                model = Packed(model.layers)


@pytest.mark.parametrize("channels", [1, 3, 16, 70])
def test_means_of_images(channels, rng, threads):
    w = rng.normal(size=(channels, 3, 3, channels))
    for pool in (PackedAvgPool2D(2, 2), PackedAvgPool2D((3, 2), 1, 1), PackedGlobalAvgPool2D()):
        for first in ([], [PackedConv2D(w, alpha=0.3, padding=1)], [PackedConv2D(w), PackedSign()]):
            chain = [*first, pool, PackedSign()]
            model = Packed(chain)
            is_single = channels == 1 and isinstance(pool, PackedGlobalAvgPool2D)
            for x in (BYTES(rng, 2, 9, 8, channels), special_numbers(rng, 5, 9, 8, channels)):
                if x.dtype == np.float32:
                    x = np.clip(x, -1e6, 1e6)  # NaN has no sign
                assert_plan(model, x, None if is_single else [len(chain)])
        assert_plan(Packed(pool), special_numbers(rng, 4, 9, 8, channels))
        assert_plan(Packed(pool), bo.pack(REAL(rng, 3, 9, 8, channels)))


def test_sequences_are_images_of_height_1(rng, threads):
    w = rng.normal(size=(9, 1, 3, 9))
    model = Packed(
        PackedAsImages(),
        PackedConv2D(w, np.arange(-4, 5), padding=((0, 0), (1, 1))),
        PackedAsSequences(),
        PackedAsImages(),
        PackedMaxPool2D((1, 2)),
        PackedAsSequences(),
    )
    for x in (bo.pack(REAL(rng, 3, 11, 9)), REAL(rng, 2, 8, 9), BYTES(rng, 5, 6, 9)):
        assert_plan(model, x, [6])
    for layers in (model.layers[:1], model.layers[:3], model.layers[:4]):
        assert_plan(Packed(layers), bo.pack(REAL(rng, 3, 11, 9)))
