"""Pickles of classes of others, and pickles whose parts do not fit each other."""

import copy
import copyreg
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import layers as L
from pickled import FLIPS, LAYERS, ROWS, WAYS, real, same, signs, use


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


class Shift(L.TrainingLayer):
    """Keeps what backward needs, and an array that training changes besides its parameter."""

    TRANSIENT = ("_x",)

    def __init__(self):
        self.shift = L.Parameter(np.zeros(70))
        self.seen = np.zeros(70, np.float32)
        self.name_given = "mine"
        self._x = None

    def forward(self, x, *, training=False):
        if training:
            self._x = x
            self.seen += 1
        return x + self.shift.value

    def backward(self, grad):
        self.shift.grad[...] = L.column_sums(grad)
        return grad

    def parameters(self):
        return [self.shift]


class Unnamed(Shift):
    """Does not say what it keeps: its pickles are larger, and right."""

    def forward(self, x, *, training=False):
        self.kept = x
        return super().forward(x, training=training)


class Slotted(L.TrainingLayer):
    """Has its attributes beside those of its dictionary."""

    __slots__ = ("_seen", "gain")
    TRANSIENT = "_seen"  # a name alone

    def __init__(self):
        self.gain, self.power = np.full(70, 2, np.float32), 3
        self._seen = None

    def forward(self, x, *, training=False):
        if training:
            self._seen = x
        return x * self.gain**self.power

    def backward(self, grad):
        return grad * self.gain**self.power


class Louder(L.PackedDense):
    """Not registered: what a file could not hold stays."""

    volume = 1

    def forward(self, x):
        return super().forward(x) * self.volume


class OwnState(L.Layer):
    """Says itself how it is pickled."""

    ARRAYS = (bo.io.ArraySpec("scale", "float32", 1),)

    def __init__(self, scale):
        self.scale, self.calls = np.array(scale, np.float32), 0

    def forward(self, x):
        self.calls += 1
        return x * self.scale

    def __getstate__(self):
        return vars(self)


def test_own_training_layers(way):
    for kind in (Shift, Unnamed):
        layer = kind()
        for _ in range(2):
            back = way(layer)
            assert same(use(back, ROWS), use(layer, ROWS))
            assert_array_equal(back.seen, layer.seen)
        assert way(layer).name_given == "mine" and way(layer)._x is None
    assert same(way(layer).kept, ROWS)


def test_own_layers_with_slots(way):
    layer = Slotted()
    use(layer, ROWS)
    back = way(layer)
    assert back._seen is None and same(use(back, ROWS), use(layer, ROWS))
    assert same(use(copy.copy(layer), ROWS), use(layer, ROWS))


def test_own_packed_layers(way, monkeypatch):
    layer = Louder(signs(9, 70), real(9), FLIPS[:9])
    for _ in range(2):
        layer.volume = 3
        assert way(layer).volume == 3
        layer.volume = 1
    layer = Louder(signs(9, 70), alpha=real(9))
    layer.volume = 3
    assert_array_equal(way(layer)(bo.pack(ROWS)), layer(bo.pack(ROWS)))
    monkeypatch.setattr("bitops.layers.registry._KINDS", {})
    bo.io.register(OwnState)
    layer = OwnState(real(70))
    layer(ROWS)
    assert way(layer).calls == 1


def test_registered_layers_that_a_file_could_not_hold(monkeypatch):
    monkeypatch.setattr("bitops.layers.registry._KINDS", {})

    class Gain(L.Layer):
        def __init__(self, power=1):
            self.power = power

        def config(self):
            return {"exponent": self.power}

        def forward(self, x):
            return x

    bo.io.register(Gain)
    with pytest.raises(TypeError, match=r"^\[pickle\] config must return power, the parameters"):
        copy.deepcopy(Gain())


# ---- states that do not fit ----------------------------------------------------------------


def new(cls):
    return object.__new__(cls)


def forged(thing, **changes):
    """A pickle of an object with other attributes, or arguments; the latter also by place: _0."""
    reduce = copyreg.dispatch_table.get(type(thing))
    function, arguments, *rest = reduce(thing) if reduce else thing.__reduce_ex__(4)
    if rest:
        function, rest = new, [{**rest[0], **changes}]
    elif isinstance(arguments[-1], dict):
        arguments = (*arguments[:-1], {**arguments[-1], **changes})
    else:
        places = {int(place[1:]): value for place, value in changes.items()}
        arguments = tuple(places.get(i, value) for i, value in enumerate(arguments))

    class Forged:
        def __reduce__(self):
            return (function, arguments, *rest)

    return pickle.dumps(Forged())


WORDS = bo.pack(ROWS).words  # (40, 2)
HUGE = 2**62
BAD_BITS = {
    "fewer words": ({"_0": WORDS[:, :1]}, ValueError, r"^\[from_words\] words of shape"),
    "more rows": ({"_1": (41, 70)}, ValueError, r"^\[from_words\] words of shape"),
    "a huge shape": ({"_1": (HUGE, 70)}, ValueError, r"^\[from_words\] words of shape"),
    "negative": ({"_1": (-40, 70)}, ValueError, r"^\[from_words\] shape must"),
    "more bits": ({"_1": (40, 129)}, ValueError, r"^\[from_words\] words of shape"),
    "another axis": ({"_2": 0}, ValueError, r"^\[from_words\] words of shape"),
    "no such axis": ({"_2": 2}, ValueError, r"^\[BitArray\] axis must be in"),
    "an axis of text": ({"_2": "1"}, TypeError, r"^\[BitArray\] axis must be an integer"),
    "a shape of text": ({"_1": "ab"}, TypeError, r"^\[BitArray\] shape must be integers"),
    "no axes": ({"_1": ()}, ValueError, r"^\[BitArray\] axis must be in"),
    "padding": ({"_0": WORDS | np.uint64(HUGE)}, ValueError, r"^\[from_words\] padding bits"),
    "bytes": ({"_0": WORDS.view(np.uint8)}, TypeError, r"^\[from_words\] words must be"),
    "a list": ({"_0": WORDS.tolist()}, TypeError, r"^\[from_words\] words must be"),
}


@pytest.mark.parametrize("name", BAD_BITS)
def test_bit_arrays_that_do_not_fit(name):
    changes, error, message = BAD_BITS[name]
    bits = bo.pack(ROWS)
    assert pickle.loads(forged(bits)) == bits
    with pytest.raises(error, match=message):
        pickle.loads(forged(bits, **changes))


def test_bits_whose_words_are_not_aligned():
    memory = np.zeros(WORDS.nbytes + 1, np.uint8)
    words = memory[1:].view(np.uint64).reshape(WORDS.shape)
    words[...] = WORDS
    bits = pickle.loads(forged(bo.pack(ROWS), _0=words))
    assert bits.words.flags.aligned and bits == bo.pack(ROWS)


def test_prepacked_weights_that_do_not_fit():
    weights = bo.prepack(ROWS)
    assert pickle.loads(forged(weights)).bits == weights.bits
    for bad in (bo.pack(ROWS, 0), bo.pack(real(2, 3, 70)), bo.pack(ROWS[0]), np.float32(1)):
        with pytest.raises(ValueError, match=r"^\[prepack\] w must"):
            pickle.loads(forged(weights, _0=bad))
    for bad in (weights, "text", None):
        with pytest.raises(TypeError, match=r"^\[prepack\] w must"):
            pickle.loads(forged(weights, _0=bad))


BAD_LAYERS = (
    ({"w": bo.pack(signs(8, 70))}, r"threshold must have shape"),
    ({"w": bo.pack(signs(9, 70), 0)}, r"w must have shape .* packed along the last axis"),
    ({"w": bo.pack(signs(9, 7, 10))}, r"w must have shape"),
    ({"threshold": np.zeros(8, np.int32)}, r"threshold must have shape"),
    ({"threshold": np.full(9, np.nan, np.float32)}, r"threshold must not be NaN"),
    ({"flip": bo.pack(signs(10))}, r"flip must have shape"),
    ({"flip": np.ones(9)}, r"flip must be bool"),
    ({"alpha": np.ones(9)}, r"give either threshold or alpha"),
    ({"input_bits": 9}, r"input_bits must be in"),
)


@pytest.mark.parametrize("changes, message", BAD_LAYERS)
def test_packed_layers_that_do_not_fit(changes, message):
    layer = L.PackedDense(signs(9, 70), real(9), FLIPS[:9])
    assert same(pickle.loads(forged(layer))(bo.pack(ROWS)), layer(bo.pack(ROWS)))
    with pytest.raises((TypeError, ValueError), match=rf"^\[PackedDense\] {message}"):
        pickle.loads(forged(layer, **changes))


@pytest.mark.parametrize("name", ("_value", "grad"))
@pytest.mark.parametrize(
    "array",
    (ROWS[1:], ROWS.astype(np.float64), ROWS.T, np.asfortranarray(ROWS), ROWS.tolist(), None),
    ids=("short", "float64", "transposed", "Fortran", "list", "None"),
)
def test_parameters_that_do_not_fit(name, array):
    parameter = L.Parameter(ROWS)
    assert same(pickle.loads(forged(parameter)).value, ROWS)
    with pytest.raises(ValueError, match=r"^\[Parameter\] (value|gradient) of a pickle must be"):
        pickle.loads(forged(parameter, **{name: array}))


@pytest.mark.parametrize("size", (0, 1, 2799, 2801))
def test_moments_that_do_not_fit(size):
    optimizer = bo.training.SGD([L.Parameter(ROWS)])
    assert pickle.loads(forged(optimizer)).state().keys() == optimizer.state().keys()
    with pytest.raises(ValueError, match=r"^\[SGD\] moments of a pickle must have shape \(2800,\)"):
        pickle.loads(forged(optimizer, _moments=[(np.zeros(size, np.float32),)]))


@pytest.mark.parametrize("size", (1, 60, 80))
def test_products_refuse_an_operation_that_is_not_that_of_the_weights(size):
    """Sizes are compared with the arrays again where memory is touched."""
    from bitops.layers.operation import Convolution, Linear

    dense, conv = L.BinaryDense(70, 9, seed=0), L.BinaryConv2D(6, 5, 3, seed=0)
    for changes, layer, x in (
        ({"operation": Linear("here", size, 9)}, dense, real(4, size)),
        ({"operation": Linear("here", size, size)}, dense, bo.pack(real(4, size))),
        (
            {"operation": Convolution("here", size, 5, conv.operation.windows, 1, 0)},
            conv,
            bo.pack(real(2, 5, 5, size)),
        ),
    ):
        back = pickle.loads(forged(layer, **changes, in_features=size))
        for training in (False, True):
            with pytest.raises((ValueError, TypeError)):
                back.forward(x, training=training)


def places(thing, seen=None):
    """Yield owner and name of every array that an object holds as an attribute, by any path."""
    seen = set() if seen is None else seen
    for name, value in list(vars(thing).items()):
        if isinstance(value, np.ndarray | bo.BitArray | bo.Prepacked):
            yield thing, name
        for inner in value if isinstance(value, list) else [value]:
            is_ours = type(inner).__module__.startswith("bitops.layers")
            if is_ours and hasattr(inner, "__dict__") and id(inner) not in seen:
                seen.add(id(inner))
                yield from places(inner, seen)


def misfits(array):
    """Arrays that stand for another one and do not fit."""
    if isinstance(array, bo.Prepacked):
        return [bo.prepack(w) for w in misfits(array.bits) if w.ndim in (2, 4)]
    if isinstance(array, bo.BitArray):
        shapes = (3,), (3, 5), (2,) * array.ndim, (*array.shape, 2)
        return [bo.pack(np.ones(shape)) for shape in shapes]
    shapes = (0,), (1,), (array.size + 1,), (2,) * array.ndim, array.shape[::-1]
    made = [np.zeros(shape, array.dtype) for shape in shapes if shape != array.shape]
    return [*made, array.astype(np.float64), array.astype(np.int16)]


@pytest.mark.parametrize("name", LAYERS)
def test_forged_arrays_do_no_harm(name):
    """Nothing is read outside them; what is refused is refused in words."""
    make, x = LAYERS[name]
    count = len(list(places(make())))
    for number in range(count):
        owner, attribute = list(places(make()))[number]
        for array in misfits(getattr(owner, attribute)):
            layer = make()
            owner, attribute = list(places(layer))[number]
            setattr(owner, attribute, array)
            try:
                use(pickle.loads(pickle.dumps(layer)), x)
            except (TypeError, ValueError) as error:
                assert str(error)
