"""Target: each public function with arguments that mostly fit.

Results must be those of the reference, whatever the layout of operands and of `out`. Operands must
stay as they are. Bad arguments must be refused with TypeError, ValueError or MemoryError.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

import bitops as bo
from bitops import reference
from fuzz.operands import LONG, SIZES, array, bits, hostile, plain
from fuzz.reader import EDGES, Reader, allowed

Drawn = tuple[list[Any], dict[str, Any]]  # positional and named arguments

INTEGERS = ("i4", "i1", "i8", "u8", "i2", "u1")
IMAGES = ("f4", "u1", "i4", "f8", "f2", "i8")


def _sizes(reader: Reader) -> tuple[int, int, int]:
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
    lead = reader.choice(((), (2,), (1,), (0,)))
    return [bits(reader, (*lead, m, k)), bits(reader, (n, k))], {}


def _gemm(reader: Reader) -> Drawn:
    m, n, k = _sizes(reader)
    operands = [bits(reader, (m, k)), bits(reader, (n, k))]
    return operands, _scales(reader, n, (m,))


def _thresholds(reader: Reader, n: int) -> tuple[Any, dict[str, Any]]:
    threshold = array(reader, (n,), INTEGERS)
    flip = {"flip": array(reader, (n,), ("?",))} if reader.chance(2) else {}
    return reader.choice((threshold, 0, 3, *EDGES)), flip


def _gemm_sign(reader: Reader) -> Drawn:
    operands, _ = _product(reader)
    threshold, flip = _thresholds(reader, np.shape(plain(operands[1]))[0])
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
    m, n, k = _sizes(reader)
    return [array(reader, (m, k), IMAGES), bits(reader, (n, k))], _scales(reader, n)


def _bitplane_gemm(reader: Reader) -> Drawn:
    m, n, k = _sizes(reader)
    count = 1 + reader.below(8)
    x = (
        array(reader, (m, k), ("u1",))
        if count == 8
        else array(reader, (m, k), ("u1",)) >> 8 - count
    )
    return [x, bits(reader, (n, k))], {"bits": count, **_scales(reader, n)}


def _window(reader: Reader) -> dict[str, Any]:
    """Draw settings of a convolution."""
    pairs = (1, 2, (1, 2), [2, 1], (3, 1), 2**31 - 1)
    paddings = (0, 1, (0, 2), ((1, 0), (0, 1)), "same", "valid", 2**31, [[1, 1], [0, 0]])
    found: dict[str, Any] = {}
    if reader.chance(2):
        found["padding"] = reader.choice(paddings)
    for name in ("stride", "dilation"):
        if reader.chance(3):
            found[name] = reader.choice(pairs)
    return found


def _image(reader: Reader) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Draw shapes of images and filters, and settings."""
    n, height, width = reader.choice((1, 2, 0)), 1 + reader.below(5), 1 + reader.below(5)
    share, groups, per = reader.choice((1, 2, 3, 65)), reader.choice((1, 1, 2, 3)), reader.below(3)
    kernel = 1 + reader.below(3), 1 + reader.below(3)
    settings = _window(reader)
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
    (x, _), settings = _im2col(reader)
    return [array(reader, plain(x).shape, IMAGES), reader.choice((1, 2, (2, 3)))], settings


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


def _one(reader: Reader) -> Drawn:
    return [bits(reader, (*_sizes(reader)[: 1 + reader.below(2)], reader.choice(LONG)))], {}


def _along(reader: Reader) -> Drawn:
    return _one(reader)[0], {"axis": reader.choice((0, -1, 1, -2, 2))}


def _counted(reader: Reader) -> Drawn:
    return _one(reader) if reader.chance(2) else _along(reader)


def _unpack(reader: Reader) -> Drawn:
    (x,), _ = _one(reader)
    return [x], {"dtype": reader.choice(("i1", "f4", "?", "f8", "i8"))}


def _above(reader: Reader) -> Drawn:
    m, _, k = _sizes(reader)
    flip = {"flip": array(reader, (k,), ("?",))} if reader.chance(2) else {}
    return [array(reader, (m, k)), array(reader, reader.choice(((k,), ())))], flip


def _weights(reader: Reader) -> Drawn:
    return [array(reader, (*_sizes(reader)[:2], reader.choice(LONG)))], {}


def _threads(reader: Reader) -> Drawn:
    return [reader.choice((1, 2, *EDGES))], {}


# How arguments are drawn, and what the result must equal.
FUNCTIONS: dict[str, tuple[Callable[[Reader], Drawn], Callable[..., Any] | None]] = {
    "gemm": (_gemm, reference.gemm),
    "gemm_sign": (_gemm_sign, reference.gemm_sign),
    "hamming": (_hamming, reference.hamming),
    "hamming_topk": (_topk, reference.hamming_topk),
    "matmul": (_matmul, reference.matmul),
    "weight_gemm": (_weight_gemm, reference.weight_gemm),
    "bitplane_gemm": (_bitplane_gemm, reference.bitplane_gemm),
    "conv2d": (_conv2d, reference.conv2d),
    "conv2d_sign": (_conv2d_sign, reference.conv2d_sign),
    "weight_conv2d": (_weight_conv2d, reference.weight_conv2d),
    "bitplane_conv2d": (_bitplane_conv2d, reference.bitplane_conv2d),
    "im2col": (_im2col, reference.im2col),
    "k_map": (_k_map, reference.k_map),
    "max_pool2d": (_pool, reference.max_pool2d),
    "avg_pool2d": (_numbers_pool, reference.avg_pool2d),
    "global_avg_pool2d": (_numbers, reference.global_avg_pool2d),
    "pack": (_along, lambda x, axis=-1: reference.sign(x)),
    "pack_above": (_above, reference.pack_above),
    "unpack": (_unpack, lambda x, dtype: x > 0 if dtype == "?" else x),
    "popcount": (_counted, reference.popcount),
    "binarize_weights": (_weights, reference.binarize_weights),
    "prepack": (_one, None),
    "set_num_threads": (_threads, None),
}
WITH_OUT = tuple(
    name for name in FUNCTIONS if "out" in inspect.signature(getattr(bo, name)).parameters
)


def run(data: bytes) -> None:
    reader = Reader(data)
    name = reader.choice(tuple(FUNCTIONS))
    draw, twin = FUNCTIONS[name]
    arguments, named = draw(reader)
    named = dict(named)
    is_hostile = reader.chance(3)
    for _ in range(1 + reader.below(2) if is_hostile else 0):
        place = reader.below(len(arguments) + len(named) + 1)
        if place < len(arguments):
            arguments[place] = hostile(reader)
        else:
            keys = (*named, "out", "bits", "stride", "alpha", "threads")
            named[keys[place - len(arguments)]] = hostile(reader)
    function = getattr(bo, name)
    before = [plain(x) for x in (*arguments, *named.values()) if _has_values(x)]
    threads = bo.get_num_threads()
    result = None
    with allowed(MemoryError):
        result = function(*arguments, **named)
    if name == "set_num_threads":
        assert result is None and bo.get_num_threads() >= 1
        bo.set_num_threads(threads)
        return
    after = [plain(x) for x in (*arguments, *named.values()) if _has_values(x)]
    if "out" not in named:
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new, err_msg="an operand was changed")
    if result is None or is_hostile:
        return
    if twin is not None:
        wanted = twin(*map(plain, arguments), **{key: plain(x) for key, x in named.items()})
        _assert_same(result, wanted)
    if name in WITH_OUT and not isinstance(result, bo.BitArray):  # a pool of bits takes none
        _check_out(reader, function, arguments, named, result)


def _has_values(x: Any) -> bool:
    """Tell whether an operand can be copied."""
    return isinstance(x, bo.BitArray | np.ndarray) and 0 < np.prod(x.shape, dtype=float) < 1e6


def _assert_same(result: Any, wanted: Any) -> None:
    if isinstance(result, tuple):
        for one, other in zip(result, wanted, strict=True):
            _assert_same(one, other)
        return
    if isinstance(result, bo.BitArray):
        assert bo.BitArray.from_words(_last(result).words, _last(result).shape) is not None
        result = bo.unpack(result)
    np.testing.assert_array_equal(result, wanted)


def _last(b: bo.BitArray) -> bo.BitArray:
    """View the words as those of an array packed along its last axis."""
    shape = (*(size for i, size in enumerate(b.shape) if i != b.axis), b.shape[b.axis])
    return bo.BitArray.from_words(b.words, shape)


def _check_out(
    reader: Reader, function: Callable, arguments: list, named: dict[str, Any], result: Any
) -> None:
    """Check that `out`, anywhere in memory and perhaps over an operand, gets the same result."""
    result = np.asarray(result)
    kind = reader.below(5)
    out: np.ndarray = np.full(result.shape, 7, result.dtype)
    if kind == 1:
        out = np.full(result.shape[::-1], 7, result.dtype).T
    elif kind == 2 and result.ndim:
        out = np.full((*result.shape[:-1], 2 * result.shape[-1]), 7, result.dtype)[..., ::2]
    elif kind == 3:
        out = np.frombuffer(bytearray(result.nbytes + 1), np.uint8)[1:].view(result.dtype)
        out = out.reshape(result.shape)
    elif kind == 4:
        operand = arguments[reader.below(len(arguments))]
        memory = operand.words if isinstance(operand, bo.BitArray) else operand
        if not isinstance(memory, np.ndarray) or not memory.flags.c_contiguous:
            return
        if not memory.flags.writeable or memory.nbytes < result.nbytes or memory.dtype.kind == "O":
            return
        memory = np.asarray(memory)
        octets = memory.reshape(-1).view(np.uint8)[: result.nbytes]
        out = octets.view(result.dtype).reshape(result.shape)
    made = function(*arguments, out=out, **named)
    assert made is out or made.shape == ()
    np.testing.assert_array_equal(out, result)
