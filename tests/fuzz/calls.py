"""Target: each public function on arrays, with arguments that mostly fit.

Results must be those of the reference, whatever the layout of operands and of `out`. Operands, and
the memory beside `out`, must stay as they are. What fits must be answered; bad arguments must be
refused with TypeError, ValueError or, if they are enormous, MemoryError.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import bitops as bo
from bitops import reference
from fuzz.judge import Memory, Out, assert_same, over_operand, plain_shape, refusal
from fuzz.operands import LONG, SIZES, array, bits, hostile, plain
from fuzz.reader import EDGES, Reader, allowed

Drawn = tuple[list[Any], dict[str, Any]]  # positional and named arguments

INTEGERS = ("i4", "i1", "i8", "u8", "i2", "u1")
IMAGES = ("f4", "u1", "i4", "f8", "f2", "i8", ">f4", "i1", "u2", "g")
THRESHOLDS = (0, 3, -1, *(edge for edge in EDGES if -(2**63) <= edge < 2**64))
# Leading axes of both operands of a product.
LEADS = (((), ()),) * 4 + (((2,), ()), ((), (2,)), ((0,), ()), ((2, 1), (3,)))
# Rows, columns and bits of products that two threads share.
SIDES = (5, 2, 3, 4, 6, 1, 7, 5, 4, 3, 0)
CHANNELS = (1, 2, 3, 65, 5, 8, 64, 0)
FILTERS = (0, 1, 2, 3, 5, 17, 1, 2)
LARGE = ((70, 130, 2100), (257, 65, 1027), (1, 1000, 2050), (130, 70, 1500))
LARGE_MIXED = ((70, 130, 70), (257, 65, 259))


def _sizes(reader: Reader, large: tuple[tuple[int, int, int], ...] = LARGE) -> tuple[int, int, int]:
    """Rows, columns and bits."""
    if reader.chance(200):
        return reader.choice(large)
    return reader.choice(SIZES), reader.choice(SIZES), reader.choice(LONG)


def _scales(reader: Reader, n: int, rows: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Draw some of alpha, bias and, if there are rows, k_map."""
    found = {
        name: array(reader, reader.choice(((n,), ())))
        for name in ("alpha", "bias")
        if reader.chance(3)
    }
    if rows is not None and reader.chance(4):
        found["k_map"] = array(reader, rows)
    return found


def _product(reader: Reader) -> Drawn:
    m, n, k = _sizes(reader)
    left, right = reader.choice(LEADS) if m * n * k < 10**6 else ((), ())
    return [bits(reader, (*left, m, k)), bits(reader, (*right, n, k))], {}


def _gemm(reader: Reader) -> Drawn:
    operands, _ = _product(reader)
    m, n = (x.shape[-2] for x in map(plain_shape, operands))
    return operands, _scales(reader, n, (m,))


def _thresholds(reader: Reader, n: int) -> tuple[Any, dict[str, Any]]:
    threshold = array(reader, (n,), INTEGERS)
    flip = {"flip": array(reader, (n,), ("?",))} if reader.chance(2) else {}
    return threshold if reader.chance(2) else reader.choice(THRESHOLDS), flip


def _gemm_sign(reader: Reader) -> Drawn:
    operands, _ = _product(reader)
    threshold, flip = _thresholds(reader, plain_shape(operands[1]).shape[-2])
    return [*operands, threshold], flip


def _hamming(reader: Reader) -> Drawn:
    operands, _ = _product(reader)
    return operands, {"dtype": np.uint16} if reader.chance(2) else {}


def _topk(reader: Reader) -> Drawn:
    m, n, k = _sizes(reader)
    return [bits(reader, (m, k)), bits(reader, (n, k)), reader.choice((1, n, 2))], {}


def _matmul(reader: Reader) -> Drawn:
    m, n, k = _sizes(reader)
    left = reader.choice(((m, k), (k,), (2, m, k)))
    right = reader.choice(((k, n), (k,), (1, k, n)))
    return [bits(reader, left), bits(reader, right)], {}


def _weight_gemm(reader: Reader) -> Drawn:
    m, n, k = _sizes(reader, LARGE_MIXED)
    x = array(reader, (*reader.choice(((), (), (2,), (0,))), m, k), IMAGES)
    return [x, bits(reader, (n, k))], _scales(reader, n)


def _bitplane_gemm(reader: Reader) -> Drawn:
    m, n, k = _sizes(reader, LARGE_MIXED)
    count = 1 + reader.below(8)
    x = array(reader, (m, k), ("u1",))
    x = x if count == 8 else x >> 8 - count
    return [x, bits(reader, (n, k))], {"bits": count, **_scales(reader, n)}


def random_window(reader: Reader) -> dict[str, Any]:
    """Draw settings of a convolution."""
    pairs: tuple[Any, ...] = (1, 2, (1, 2), [2, 1], (3, 1), (2, 2))
    paddings: tuple[Any, ...] = (1, (0, 2), ((1, 0), (0, 1)), "same", "valid", [[1, 1], [0, 0]], 2)
    if reader.chance(32):
        pairs, paddings = (*pairs, 2**31 - 1), (*paddings, 2**31)
    found: dict[str, Any] = {}
    if reader.chance(2):
        found["padding"] = reader.choice(paddings)
    for name in ("stride", "dilation"):
        if reader.chance(3):
            found[name] = reader.choice(pairs)
    return found


def _image(reader: Reader) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Draw shapes of images and filters, and settings."""
    n, (height, width) = reader.choice((1, 2, 1, 2, 0)), (reader.choice(SIDES) for _ in range(2))
    share, groups, per = (
        reader.choice(CHANNELS),
        reader.choice((1, 1, 2, 3)),
        reader.choice(FILTERS),
    )
    kernel = reader.choice((1, 2, 3, 2)), reader.choice((1, 2, 3, 3))
    settings = random_window(reader)
    if reader.chance(200):
        n, height, width, share, groups, per = 2, 12, 9, 130, 1, 80
    if groups > 1:
        settings["groups"] = groups
    return (n, height, width, share * groups), (per * groups, *kernel, share), settings


def _conv2d(reader: Reader) -> Drawn:
    x, w, settings = _image(reader)
    if reader.chance(3):
        settings["pad_value"] = reader.choice((-1, 1, 0))
    scales = _scales(reader, w[0], (1,) if reader.chance(4) else None)
    return [bits(reader, x), bits(reader, w)], {**settings, **scales}


def _conv2d_sign(reader: Reader) -> Drawn:
    x, w, settings = _image(reader)
    threshold, flip = _thresholds(reader, w[0])
    return [bits(reader, x), bits(reader, w), threshold], {**settings, **flip}


def _weight_conv2d(reader: Reader) -> Drawn:
    x, w, settings = _image(reader)
    return [array(reader, x, IMAGES), bits(reader, w)], {**settings, **_scales(reader, w[0])}


def _bitplane_conv2d(reader: Reader) -> Drawn:
    x, w, settings = _image(reader)
    return [array(reader, x, ("u1",)), bits(reader, w)], {**settings, **_scales(reader, w[0])}


def _im2col(reader: Reader) -> Drawn:
    x, w, settings = _image(reader)
    settings.pop("groups", None)
    return [bits(reader, x), w[1:3]], settings


def _k_map(reader: Reader) -> Drawn:
    x, _, settings = _image(reader)
    settings.pop("groups", None)
    return [array(reader, x, IMAGES), reader.choice((1, 2, (2, 3)))], settings


def _pool(reader: Reader) -> Drawn:
    x, w, settings = _image(reader)
    x_drawn = bits(reader, x) if reader.chance(2) else array(reader, x, IMAGES)
    chosen = {name: settings[name] for name in ("stride", "padding") if name in settings}
    return [x_drawn, reader.choice((1, 2, w[1:3]))], chosen


def _numbers_pool(reader: Reader) -> Drawn:
    operands, settings = _pool(reader)
    return [array(reader, np.shape(plain(operands[0])), IMAGES), operands[1]], settings


def _numbers(reader: Reader) -> Drawn:
    return [array(reader, _image(reader)[0], IMAGES)], {}


def _shape(reader: Reader) -> tuple[int, ...]:
    """A shape of one to four axes, of which two or three are usual."""
    m, n, k = _sizes(reader)
    return reader.choice(((m, k), (min(m, 5), n, k), (m, k), (k,), (min(m, 3), min(n, 3), 2, k)))


def _one(reader: Reader) -> Drawn:
    return [bits(reader, _shape(reader))], {}


def _along(reader: Reader) -> Drawn:
    return _one(reader)[0], {"axis": reader.choice((0, -1, 1, -2, 2))}


def _counted(reader: Reader) -> Drawn:
    return _one(reader) if reader.chance(2) else _along(reader)


def _majority(reader: Reader) -> Drawn:
    return _one(reader) if reader.chance(3) else _along(reader)


def _unpack(reader: Reader) -> Drawn:
    (x,), _ = _one(reader)
    return [x], {"dtype": reader.choice(("i1", "f4", "?", "f8", "i8"))}


def _above(reader: Reader) -> Drawn:
    m, _, k = _sizes(reader)
    flip = {"flip": array(reader, (k,), ("?",))} if reader.chance(2) else {}
    return [array(reader, (m, k)), array(reader, reader.choice(((k,), ())))], flip


def _weights(reader: Reader) -> Drawn:
    return [array(reader, _shape(reader))], {}


class Function(NamedTuple):
    """A public function: how arguments are drawn, and what its result must equal."""

    draw: Callable[[Reader], Drawn]
    twin: Callable[..., Any]
    signs: tuple[int, ...] = ()  # which arguments are packed by sign


def _packed(x: Any, axis: int = -1) -> np.ndarray:
    return reference.sign(x)


def _unpacked(x: np.ndarray, dtype: Any) -> np.ndarray:
    return x > 0 if dtype == "?" else x.astype(dtype)


FUNCTIONS: dict[str, Function] = {
    "gemm": Function(_gemm, reference.gemm, (0, 1)),
    "gemm_sign": Function(_gemm_sign, reference.gemm_sign, (0, 1)),
    "hamming": Function(_hamming, reference.hamming, (0, 1)),
    "hamming_topk": Function(_topk, reference.hamming_topk, (0, 1)),
    "matmul": Function(_matmul, reference.matmul, (0, 1)),
    "weight_gemm": Function(_weight_gemm, reference.weight_gemm, (1,)),
    "bitplane_gemm": Function(_bitplane_gemm, reference.bitplane_gemm, (1,)),
    "conv2d": Function(_conv2d, reference.conv2d, (0, 1)),
    "conv2d_sign": Function(_conv2d_sign, reference.conv2d_sign, (0, 1)),
    "weight_conv2d": Function(_weight_conv2d, reference.weight_conv2d, (1,)),
    "bitplane_conv2d": Function(_bitplane_conv2d, reference.bitplane_conv2d, (1,)),
    "im2col": Function(_im2col, reference.im2col, (0,)),
    "k_map": Function(_k_map, reference.k_map),
    "max_pool2d": Function(_pool, reference.max_pool2d),
    "avg_pool2d": Function(_numbers_pool, reference.avg_pool2d),
    "global_avg_pool2d": Function(_numbers, reference.global_avg_pool2d),
    "pack": Function(_along, _packed, (0,)),
    "pack_above": Function(_above, reference.pack_above),
    "unpack": Function(_unpack, _unpacked, (0,)),
    "popcount": Function(_counted, reference.popcount, (0,)),
    "majority": Function(_majority, reference.majority, (0,)),
    "binarize_weights": Function(_weights, reference.binarize_weights, (0,)),
    "prepack": Function(_one, reference.sign, (0,)),
}
WITH_OUT = tuple(
    name for name in FUNCTIONS if "out" in inspect.signature(getattr(bo, name)).parameters
)


class Call(NamedTuple):
    """A call, drawn but not made."""

    name: str
    arguments: list[Any]
    named: dict[str, Any]
    is_odd: bool  # some arguments are those that no one should pass

    def __str__(self) -> str:
        named = [f"{key}={_shown(x)}" for key, x in self.named.items()]
        return f"bo.{self.name}({', '.join([*map(_shown, self.arguments), *named])})"

    def make(self, reader: Reader) -> str:
        """Make it, and check what comes of it; the reader draws an `out` for calls that fit."""
        if self.is_odd:
            return _make_odd(self.name, self.arguments, self.named)
        return _make_fitting(reader, self.name, self.arguments, self.named)


def _shown(x: Any) -> str:
    """An argument, in so few words that all of them can be read."""
    if isinstance(x, np.ndarray) and x.size > 8:
        return f"<{x.dtype} of shape {x.shape} and strides {x.strides}>"
    return f"{x!r:.300}"


def draw(reader: Reader) -> Call:
    """Draw a function, and arguments of which most fit."""
    name = reader.choice(tuple(FUNCTIONS))
    arguments, named = FUNCTIONS[name].draw(reader)
    is_odd = reader.chance(6)
    for _ in range(1 + reader.below(2) if is_odd else 0):
        place = reader.below(len(arguments) + len(named) + 1)
        if place < len(arguments):
            arguments[place] = hostile(reader)
        else:
            keys = (*named, "out", "bits", "stride", "alpha", "threads")
            named[keys[place - len(arguments)]] = hostile(reader)
    return Call(name, arguments, named, is_odd)


def _make_odd(name: str, arguments: list[Any], named: dict[str, Any]) -> str:
    memory = Memory([*arguments, *named.values()])
    answered = False
    with allowed(MemoryError):
        getattr(bo, name)(*arguments, **named)
        answered = True
    if "out" not in named:
        memory.assert_unchanged()
    return "odd, answered" if answered else "odd, refused"


def _make_fitting(reader: Reader, name: str, arguments: list[Any], named: dict[str, Any]) -> str:
    function = FUNCTIONS[name]
    memory = Memory([*arguments, *named.values()])
    reason = refusal(name, function.signs, arguments, named)
    if reason:
        with allowed():
            getattr(bo, name)(*arguments, **named)
            raise AssertionError(f"a call was answered that must be refused: {reason}")
        return "refused"
    wanted = function.twin(*map(plain, arguments), **{key: plain(x) for key, x in named.items()})
    any_zero = name == "max_pool2d"  # 0.0 and -0.0 are equally large
    kind = reader.below(4) if name in WITH_OUT and not _gives_bits(name, arguments) else 0
    if kind == 0:
        assert_same(getattr(bo, name)(*arguments, **named), wanted, any_zero)
        memory.assert_unchanged()
        return "equal"
    wanted = np.asarray(wanted)
    over = over_operand(reader.choice(arguments), wanted) if kind == 1 else None
    if over is not None:
        assert getattr(bo, name)(*arguments, out=over, **named) is over
        assert_same(over, wanted, any_zero)
        return "equal"
    out = Out(reader, wanted)
    assert getattr(bo, name)(*arguments, out=out.array, **named) is out.array
    assert_same(out.array, wanted, any_zero)
    out.assert_others_unchanged()
    memory.assert_unchanged()
    return "equal"


def _gives_bits(name: str, arguments: list[Any]) -> bool:
    return name == "max_pool2d" and isinstance(arguments[0], bo.BitArray)


def run(data: bytes) -> None:
    reader = Reader(data)
    draw(reader).make(reader)
