"""Objects of every class, with what each does, for tests of pickles and copies.

`use` puts an object to use and returns what comes out, so that caches fill and results can be
compared. Children import this module too.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

import bitops as bo
from bitops import layers as L
from bitops import quantizers as q
from bitops.layers import operation, planes, weights
from bitops.models import mlp
from bitops.training import EBP


def signs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), shape)


def real(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


ROWS, IMAGES = real(40, 70), real(6, 9, 8, 6)
FLIPS = signs(70) > 0


def network(**options: Any) -> L.Sequential:
    """A chain with whatever draws, averages or rounds."""
    return L.Sequential(
        L.BinaryConv2D(6, 8, 3, stochastic=True, seed=1),
        L.MaxPool2D(2),
        L.BatchNorm(8),
        L.Sign(),
        L.Residual(
            L.Sequential(L.BinaryConv2D(8, 8, 3, padding=1, seed=2), L.BatchNorm(8)),
        ),
        L.Sign(quantizer=q.StochasticSign(seed=3)),
        L.Flatten(),
        L.Dropout(0.25, seed=4),
        L.QuantizedDense(72, 5, q.TwnTernary(), seed=5),
        L.QuantizeGradient(6, seed=6),
        L.BatchNorm(5),
        input_shape=(9, 8, 6),
    )


# By name: what makes a layer, and an input for it.
LAYERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "AsImages": (L.AsImages, bo.pack(IMAGES[:, 0])),
    "AsSequences": (L.AsSequences, IMAGES[:, :1]),
    "AvgPool1D": (lambda: L.AvgPool1D(2), IMAGES[:, 0]),
    "AvgPool2D": (lambda: L.AvgPool2D(2, padding=1), IMAGES),
    "BatchNorm": (lambda: L.BatchNorm(70), ROWS),
    "BinaryConv1D": (lambda: L.BinaryConv1D(6, 5, 3, bias=True, seed=0), bo.pack(IMAGES[:, 0])),
    "BinaryConv2D": (lambda: L.BinaryConv2D(6, 5, 3, padding=1, bias=True, seed=0), IMAGES),
    "BinaryConv2D, groups": (lambda: L.BinaryConv2D(6, 6, 3, groups=6, seed=0), bo.pack(IMAGES)),
    "BinaryConv2D, scale_input": (
        lambda: L.BinaryConv2D(6, 4, 3, scale_weights=True, scale_input=True, seed=0),
        IMAGES,
    ),
    "BinaryConv2D, center": (lambda: L.BinaryConv2D(6, 5, 3, center=True, seed=0), IMAGES),
    "BinaryDense": (lambda: L.BinaryDense(70, 9, bias=True, seed=0), bo.pack(ROWS)),
    "BinaryDense, center": (lambda: L.BinaryDense(70, 9, center=True, seed=0), ROWS),
    "BinaryDense, stochastic": (lambda: L.BinaryDense(70, 9, stochastic=True, seed=0), ROWS),
    "BinaryDense, real": (lambda: L.BinaryDense(70, 9, real_evaluation=True, seed=0), ROWS),
    "BinaryDense, scaled": (
        lambda: L.BinaryDense(70, 9, scale_weights=True, gradient="chain", seed=0),
        ROWS,
    ),
    "BinaryDepthwiseConv2D": (
        lambda: L.BinaryDepthwiseConv2D(6, 3, multiplier=2, seed=0),
        bo.pack(IMAGES),
    ),
    "BinarySeparableConv2D": (
        lambda: L.BinarySeparableConv2D(6, 5, 3, padding=1, bias=True, seed=0),
        bo.pack(IMAGES),
    ),
    "BlurPool2D": (lambda: L.BlurPool2D(6), IMAGES),
    "Clip": (L.Clip, ROWS),
    "Concat": (lambda: L.Concat(L.BinaryDense(70, 9, seed=0), L.Sign()), ROWS),
    "Conv1D": (lambda: L.Conv1D(6, 5, 3, padding=1, seed=0), IMAGES[:, 0]),
    "Conv2D": (lambda: L.Conv2D(6, 5, 3, padding="same", seed=0), IMAGES),
    "Dense": (lambda: L.Dense(70, 9, seed=0), ROWS),
    "Dropout": (lambda: L.Dropout(0.5, seed=0), ROWS),
    "Flatten": (L.Flatten, bo.pack(IMAGES)),
    "FloatConv2D": (lambda: L.FloatConv2D(real(4, 2, 2, 3), real(4), groups=2), IMAGES),
    "FloatDense": (lambda: L.FloatDense(real(9, 70), real(9)), ROWS),
    "GlobalAvgPool1D": (L.GlobalAvgPool1D, IMAGES[:, 0]),
    "GlobalAvgPool2D": (L.GlobalAvgPool2D, IMAGES),
    "MaxPool1D": (lambda: L.MaxPool1D(2), IMAGES[:, 0]),
    "MaxPool2D": (lambda: L.MaxPool2D(2), IMAGES),
    "Multiply": (
        lambda: L.Multiply(
            L.Conv2D(6, 5, 3, seed=0),
            L.Sequential(L.GlobalAvgPool2D(), L.Dense(6, 5, seed=1), L.Sigmoid()),
        ),
        IMAGES,
    ),
    "MultiThreshold": (lambda: L.MultiThreshold(np.float32([[-1, 0, 1]])), ROWS),
    "PReLU": (lambda: L.PReLU(70), ROWS),
    "Packed": (lambda: network().freeze(), IMAGES),
    "PackedAsImages": (L.PackedAsImages, bo.pack(IMAGES[:, 0])),
    "PackedAsSequences": (L.PackedAsSequences, IMAGES[:, :1]),
    "PackedAvgPool2D": (lambda: L.PackedAvgPool2D(2), IMAGES),
    "PackedBatchNorm": (lambda: L.PackedBatchNorm(real(70), real(70)), ROWS),
    "PackedClip": (lambda: L.PackedClip(low=0.5), ROWS),
    "PackedConcat": (lambda: L.PackedConcat(L.PackedDense(signs(9, 70)), L.PackedSign()), ROWS),
    "PackedConv2D": (
        lambda: L.PackedConv2D(signs(5, 3, 3, 6), np.arange(5), FLIPS[:5], padding=1),
        bo.pack(IMAGES),
    ),
    "PackedConv2D, groups": (
        lambda: L.PackedConv2D(signs(6, 3, 3, 1), alpha=real(6), groups=6, padding=1),
        bo.pack(IMAGES),
    ),
    "PackedConv2D, scale_input": (
        lambda: L.PackedConv2D(signs(5, 3, 3, 6), alpha=real(5), scale_input=True),
        IMAGES,
    ),
    "PackedDense": (lambda: L.PackedDense(signs(9, 70), real(9), FLIPS[:9]), bo.pack(ROWS)),
    "PackedDense, codes": (
        lambda: L.PackedDense(signs(9, 70), real(9), FLIPS[:9], input_bits=1),
        bo.pack(ROWS),
    ),
    "PackedDense, numbers": (lambda: L.PackedDense(signs(9, 70), alpha=real(9)), ROWS),
    "PackedFlatten": (L.PackedFlatten, bo.pack(IMAGES)),
    "PackedGlobalAvgPool2D": (L.PackedGlobalAvgPool2D, IMAGES),
    "PackedLevels": (lambda: L.PackedLevels(0.3), ROWS),
    "PackedMaxPool2D": (lambda: L.PackedMaxPool2D(2, minimum=FLIPS[:6]), bo.pack(IMAGES)),
    "PackedMultiply": (lambda: L.PackedMultiply(L.PackedSign(), L.PackedSigmoid()), ROWS),
    "PackedMultiThreshold": (lambda: L.PackedMultiThreshold(np.sort(real(70, 3))), ROWS),
    "PackedPReLU": (lambda: L.PackedPReLU(real(70)), ROWS),
    "PackedPadFeatures": (lambda: L.PackedPadFeatures(70, 1, 2), ROWS),
    "PackedPad2D": (lambda: L.PackedPad2D(1, -1), bo.pack(IMAGES)),
    "PackedPlanesConv2D": (
        lambda: L.PackedPlanesConv2D(signs(2, 5, 3, 3, 6), (1, 2), bias=real(5), padding=1),
        IMAGES,
    ),
    "PackedPlanesDense": (
        lambda: L.PackedPlanesDense(signs(2, 9, 70), (1, 1), real(9), FLIPS[:9]),
        bo.pack(ROWS),
    ),
    "PackedQuantize": (lambda: L.PackedQuantize(3, 1.5), ROWS),
    "PackedRPReLU": (lambda: L.PackedRPReLU(real(70), real(70), real(70)), ROWS),
    "PackedReLU": (L.PackedReLU, ROWS),
    "PackedResidual": (
        lambda: L.PackedResidual(
            [L.PackedSign(), L.PackedConv2D(signs(6, 3, 3, 6), padding=1)],
            L.PackedBatchNorm(real(6), real(6)),
        ),
        IMAGES,
    ),
    "PackedSigmoid": (L.PackedSigmoid, ROWS),
    "PackedSign": (lambda: L.PackedSign(real(70), FLIPS), ROWS),
    "PackedSoftmax": (L.PackedSoftmax, ROWS),
    "PackedTanh": (L.PackedTanh, ROWS),
    "PadFeatures": (lambda: L.PadFeatures(70, after=3), ROWS),
    "Pad2D": (lambda: L.Pad2D(2, 1.5), IMAGES),
    "Quantize": (lambda: L.Quantize(q.DoReFaActivation(2)), ROWS),
    "QuantizeGradient": (lambda: L.QuantizeGradient(4, seed=0), ROWS),
    "QuantizedConv1D": (
        lambda: L.QuantizedConv1D(6, 5, 3, q.Ternary(), seed=0),
        bo.pack(IMAGES[:, 0]),
    ),
    "QuantizedConv2D": (lambda: L.QuantizedConv2D(6, 5, 3, q.DoReFaWeight(2), seed=0), IMAGES),
    "QuantizedDense": (lambda: L.QuantizedDense(70, 9, q.Ternary(), bias=True, seed=0), ROWS),
    "RPReLU": (lambda: L.RPReLU(70), ROWS),
    "RSign": (lambda: L.RSign(70), ROWS),
    "ReLU": (L.ReLU, ROWS),
    "Residual": (lambda: L.Residual(L.BinaryDense(70, 70, seed=0)), ROWS),
    "Residual, shortcut": (
        lambda: L.Residual(L.BinaryDense(70, 9, seed=0), L.Dense(70, 9, seed=1)),
        ROWS,
    ),
    "Scale": (lambda: L.Scale(70, 0.5), ROWS),
    "Sequential": (network, IMAGES),
    "ShiftBatchNorm": (lambda: L.ShiftBatchNorm(70), ROWS),
    "Sigmoid": (L.Sigmoid, ROWS),
    "Sign": (L.Sign, ROWS),
    "Sign, annealed": (lambda: L.Sign(quantizer=q.AnnealedSign(progress=0.5)), ROWS),
    "Sign, stochastic": (
        lambda: L.Sign(quantizer=q.ClippedGradient(q.StochasticSign(seed=0), 0.1)),
        ROWS,
    ),
    "Softmax": (L.Softmax, ROWS),
    "Tanh": (L.Tanh, ROWS),
    "TanhDense": (lambda: L.TanhDense(70, 9, seed=0), ROWS),
}


def use(layer: Any, x: Any) -> list:
    """A step of training, if the layer can be trained, and an evaluation."""
    found = [layer.forward(x)]
    if isinstance(layer, L.TrainingLayer):
        y = layer.forward(x, training=True)
        grad = real(*y.shape, seed=2)
        found += [y, layer.backward(grad), *(p.grad.copy() for p in layer.parameters())]
        for parameter in layer.parameters():
            parameter.assign(parameter.value - np.float32(0.1) * parameter.grad)
        found.append(layer.forward(x))
    return found


# Objects that are not layers: what makes each, and what it does.
VALUES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "BitArray": (lambda: bo.pack(ROWS), lambda b: b.words),
    "BitArray, other axis": (lambda: bo.pack(IMAGES, 1), lambda b: b.words),
    "BitArray, strided": (lambda: bo.pack(ROWS)[::-2], lambda b: b.words),
    "BitArray, transposed": (lambda: bo.pack(ROWS).T, lambda b: b.words),
    "BitArray, empty": (lambda: bo.pack(ROWS[:0]), lambda b: b.words),
    "Prepacked": (
        lambda: bo.prepack(ROWS),
        lambda w: [w.bits, w.shape, bo.gemm(ROWS, w), bo.hamming_topk(ROWS, w, 3)],
    ),
    "Prepacked, filters": (
        lambda: bo.prepack(signs(4, 3, 3, 6)),
        lambda w: [w.bits, bo.conv2d(IMAGES, w, padding=1), bo.weight_conv2d(IMAGES, w)],
    ),
    "Prepacked, groups": (
        lambda: bo.prepack(signs(4, 3, 3, 3)),
        lambda w: [w.bits, bo.conv2d(IMAGES, w, padding=1, groups=2)],
    ),
    "Planes": (
        lambda: planes.planes_of(q.DoReFaWeight(3), real(9, 70)),
        lambda p: [p.bits, p.coefficients, p.alpha, p.values(), p.transposed],
    ),
    "PackedWeights": (
        lambda: weights.PackedWeights(bo.pack(signs(2, 9, 70)), (1, 2)),
        lambda w: [w.bits, w.settings, w.sums, w.shape],
    ),
    "Codes": (
        lambda: L.Quantize(q.DoReFaActivation(3))(ROWS),
        lambda codes: [codes.numbers, codes.bits, codes.step],
    ),
    "Parameter": (
        lambda: L.Parameter(ROWS, clip_value=1, lr_scale=2, binary=True),
        lambda p: [p.value, p.grad, p.signs(), p.clip_value, p.lr_scale, p.binary, p.version],
    ),
    "Linear": (lambda: operation.Linear.of("here", 3, 4), lambda o: [o, o.options, o.fans]),
    "Convolution": (
        lambda: operation.Convolution.of("here", 6, 4, 3, 1, "same", 1, 2, -1),
        lambda o: [o, o.options, o.settings, o.fans],
    ),
    "Summary": (lambda: network().freeze().summary(), str),
    "EBP": (
        lambda: EBP((70, 8, 3), seed=0),
        lambda e: [e.update(ROWS, np.arange(40) % 3), e.h, e.b, e.predict(ROWS), e.forward(ROWS)],
    ),
    "mlp": (lambda: mlp(70, 16, 1, 3, seed=0), lambda model: use(model, ROWS)),
}


def same(a: Any, b: Any) -> bool:
    """Whether two results have the same types and bits."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, bo.BitArray):
        return isinstance(b, bo.BitArray) and a.axis == b.axis and bool(a == b)
    if isinstance(a, L.Codes):
        return same([a.numbers, a.bits, a.step], [b.numbers, b.bits, b.step])
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def through(protocol: int) -> Callable[[Any], Any]:
    return lambda thing: pickle.loads(pickle.dumps(thing, protocol))


def out_of_band(thing: Any) -> Any:
    """Through protocol 5 with the large buffers apart, and read-only, as in shared memory."""
    buffers: list = []
    data = pickle.dumps(thing, 5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


# All ways to another object that is equal and shares nothing.
WAYS = {f"protocol {n}": through(n) for n in range(pickle.HIGHEST_PROTOCOL + 1)}
WAYS |= {"out of band": out_of_band, "deepcopy": copy.deepcopy}
