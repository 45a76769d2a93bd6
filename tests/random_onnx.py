"""Random binarized networks as ONNX models, and what they compute by onnx's own reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

# How networks of other programs write activations of few values.
FORMS = "tf", "sign", "where", "arithmetic", "bipolar", "multi", "quant", "codes"


class BipolarQuant(OpRun):
    op_domain = "onnx.brevitas"

    def _run(self, x, scale):
        return (np.where(x >= 0, np.float32(1), np.float32(-1)) * scale,)


class Quant(OpRun):
    op_domain = "onnx.brevitas"

    def _run(self, x, scale, zero, bits, signed=1, narrow=0, rounding_mode="ROUND"):
        low = -(2 ** (int(bits) - 1)) + narrow if signed else 0
        high = 2 ** (int(bits) - 1) - 1 if signed else 2 ** int(bits) - 1 - narrow
        integers = np.rint(np.clip(x / scale + zero, low, high))
        return (((integers - zero) * scale).astype(np.float32),)


class Trunc(OpRun):
    op_domain = "onnx.brevitas"

    def _run(self, x, scale, zero, in_bits, out_bits, rounding_mode="FLOOR"):
        integers = np.rint(x / scale + zero) / np.float32(2 ** (in_bits - out_bits))
        integers = {"FLOOR": np.floor, "ROUND": np.rint}[rounding_mode](integers)
        return (((integers - zero) * scale).astype(np.float32),)


class MultiThreshold(OpRun):
    op_domain = "finn.custom_op.general"

    def _run(self, x, threshold, out_scale=1.0, out_bias=0.0, out_dtype="", data_layout="NCHW"):
        shape = [1] * x.ndim
        shape[data_layout.index("C")] = -1
        count = sum(x >= level.reshape(shape) for level in threshold.T)
        return ((out_scale * count + out_bias).astype(np.float32),)


class Network:
    """An ONNX graph in the making; each method adds nodes behind the last one."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], opset: int = 17):
        self.rng, self.shape, self.opset = rng, shape, opset
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.last = "input"
        self.channels = shape[0]
        self.halvings = 0

    def constant(self, value: Any) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                op, [*inputs], [name], domain=domain, name=f"n{len(self.nodes)}", **attributes
            )
        )
        self.last = name
        return name

    def then(self, op: str, *constants: Any, domain: str = "", **attributes: Any) -> str:
        values = [self.constant(value) for value in constants]
        return self.add(op, self.last, *values, domain=domain, **attributes)

    def signs(self, *shape: int) -> np.ndarray:
        return self.rng.choice(np.float32([-1, 1]), shape)

    def model(self) -> onnx.ModelProto:
        of = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "g",
            [of("input", onnx.TensorProto.FLOAT, ["n", *self.shape])],
            [of(self.last, onnx.TensorProto.FLOAT, ["n", "k"])],
            self.weights,
        )
        domains = {node.domain for node in self.nodes} | {""}
        opsets = [helper.make_opsetid(d, 1 if d else self.opset) for d in sorted(domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def run(self, x: np.ndarray) -> np.ndarray:
        operators = [BipolarQuant, MultiThreshold, Quant, Trunc]
        (y,) = ReferenceEvaluator(self.model(), new_ops=operators).run(None, {"input": x})
        return y

    # Pieces of networks

    def binarize(self) -> None:
        rng = self.rng
        form = rng.choice(
            ["tf", "sign", "where", "arithmetic", "bipolar", "multi", "quant", "codes"]
        )
        if form == "tf":
            self.then("Sign")
            self.then("Add", np.float32(0.1))
            self.then("Sign")
        elif form == "sign":
            self.then("Sign")
        elif form == "where":
            above = self.then("GreaterOrEqual", np.float32(0))
            self.add("Where", above, self.constant(np.float32(1)), self.constant(np.float32(-1)))
        elif form == "arithmetic":
            self.then("Greater", np.float32(rng.normal()))
            self.add("Cast", self.last, to=onnx.TensorProto.FLOAT)
            self.then("Mul", np.float32(2))
            self.then("Sub", np.float32(1))
        elif form == "bipolar":
            self.then("BipolarQuant", np.float32(rng.choice([1, 0.5, 0.3])), domain="onnx.brevitas")
        elif form == "multi":
            levels = int(rng.integers(1, 4))
            rows = int(rng.choice([1, self.channels]))
            threshold = np.sort(rng.normal(0, 3, (rows, levels)).astype(np.float32), axis=1)
            self.then("MultiThreshold", threshold, domain="finn.custom_op.general")
        else:
            scale, zero = np.float32(rng.choice([1, 0.25, 0.7])), np.float32(0)
            bits = np.float32(rng.integers(2, 4))
            signed = int(form == "quant")
            narrow = int(rng.integers(0, 2)) if signed else 0
            self.then(
                "Quant", scale, zero, bits, domain="onnx.brevitas", signed=signed, narrow=narrow
            )

    def few_weights(self, *shape: int) -> np.ndarray:
        kind = self.rng.integers(0, 5)
        if kind == 0:  # ternary
            w = self.rng.integers(-1, 2, shape).astype(np.float32)
            w.reshape(shape[0], -1)[:, 0] = 1
            return w
        w = self.signs(*shape)
        if kind == 1:  # with a scale a filter
            w = w * self.rng.uniform(0.1, 2, (shape[0], *[1] * (len(shape) - 1))).astype(np.float32)
        return w

    def conv(self, channels: int) -> None:
        rng = self.rng
        size, groups = int(rng.integers(1, 4)), int(rng.choice([1, 1, 2]))
        if self.channels % groups or channels % groups:
            groups = 1
        pad = int(rng.integers(0, 2)) if size > 1 else 0
        if pad and rng.integers(0, 2):
            pads = np.array([0, 0, pad, pad] * 2, np.int64)
            self.then("Pad", pads, np.float32(rng.choice([0, 1, -1])))
            pad = 0
        w = self.few_weights(channels, self.channels // groups, size, size)
        constants = (
            [w] if rng.integers(0, 2) else [w, rng.normal(0, 2, channels).astype(np.float32)]
        )
        stride = 1 + int(self.halvings < 1 and rng.integers(0, 2))
        self.halvings += stride > 1
        self.then("Conv", *constants, group=groups, pads=[pad] * 4, strides=[stride] * 2)
        self.channels = channels

    def norm(self) -> None:
        rng, c = self.rng, self.channels
        gamma = rng.normal(0, 1, c)
        gamma[rng.integers(0, c)] = 0
        values = gamma, rng.normal(0, 1, c), rng.normal(0, 4, c), rng.uniform(0.5, 30, c)
        self.then("BatchNormalization", *(value.astype(np.float32) for value in values))

    def pool(self) -> None:
        self.then_pool("MaxPool") if self.rng.integers(0, 3) else self.then_pool("AveragePool")

    def then_pool(self, op: str) -> None:
        self.add(op, self.last, kernel_shape=[2, 2], strides=[1, 1])

    def residual(self) -> None:
        start, channels = self.last, self.channels
        self.binarize()
        self.then("Conv", self.few_weights(channels, channels, 3, 3), pads=[1] * 4)
        self.norm()
        self.add("Add", self.last, start)

    def beside(self) -> None:
        """Features of two branches, or of a branch and the input, in any order."""
        start, channels, more = self.last, self.channels, int(self.rng.integers(1, 5))
        self.binarize()
        self.then("Conv", self.few_weights(more, channels, 3, 3), pads=[1] * 4)
        parts = [start, self.last]
        self.rng.shuffle(parts)
        self.add("Concat", *parts, axis=1)
        self.channels = channels + more

    def dense(self, features: int) -> None:
        w = self.few_weights(features, self.channels)
        if self.rng.integers(0, 2):
            self.then("MatMul", w.T)
        else:
            self.then("Gemm", w, self.rng.normal(0, 1, features).astype(np.float32), transB=1)
        self.channels = features


def random_network(seed: int) -> tuple[Network, np.ndarray]:
    """Make a network and a batch of its inputs, images NCHW or rows."""
    rng = np.random.default_rng(seed)
    is_image = bool(rng.integers(0, 4))
    shape = (int(rng.integers(1, 5)), 17, 16) if is_image else (int(rng.integers(5, 40)),)
    net = Network(rng, shape)
    x = rng.integers(0, 256, (6, *shape)).astype(np.float32)
    if rng.integers(0, 2):
        net.then("Div", np.float32(255))
        net.then("Sub", np.float32(0.5))
    if is_image:
        _image_part(net)
    for _ in range(int(rng.integers(0, 3))):
        net.dense(int(rng.integers(3, 20)))
        net.norm()
        if rng.integers(0, 3) == 0:
            net.then(str(rng.choice(["Relu", "Tanh", "LeakyRelu"])))
        net.binarize()
    net.dense(5)
    if rng.integers(0, 2):
        net.then("Mul", np.float32(0.25))
    if rng.integers(0, 3) == 0:
        net.then("Softmax", axis=-1)
    return net, x


def _image_part(net: Network) -> None:
    rng = net.rng
    for _ in range(int(rng.integers(1, 4))):
        net.conv(int(rng.integers(2, 9)))
        if rng.integers(0, 3) == 0:
            net.pool()
        net.norm()
        if rng.integers(0, 4) == 0:
            net.residual()
        if rng.integers(0, 4) == 0:
            net.beside()
            net.norm()
        net.binarize()
    if rng.integers(0, 3) == 0:
        net.add("GlobalAveragePool", net.last)
        net.then("Flatten")
    else:
        net.then("Flatten")
        net.channels = int(np.prod(net.run(np.zeros((1, *net.shape), np.float32)).shape[1:]))
