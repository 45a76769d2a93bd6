"""Random networks as files of Keras and Larq, and what they compute in plain NumPy."""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any

import h5py
import numpy as np

SIGNS = "ste_sign", "approx_sign", "swish_sign"


def sign(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1.0, -1.0)


def quantize(name: str | None, x: np.ndarray) -> np.ndarray:
    """Inputs, or kernels whose last axis is that of the filters."""
    if name is None:
        return x
    if name in SIGNS:
        return sign(x)
    if name == "magnitude_aware_sign":
        return sign(x) * np.abs(x).mean(axis=tuple(range(x.ndim - 1)), keepdims=True)
    if name == "ste_tern":
        return np.sign(x) * (np.abs(x) > np.float32(0.05))
    if name == "ste_heaviside":
        return (x >= 0).astype(float)
    if name == "dorefa_inputs":
        return np.rint(np.clip(x, 0, 1) * 3) / 3
    assert name == "dorefa_weights"
    t = np.tanh(x)
    return 2 * np.rint((t / (2 * np.abs(t).max()) + 0.5) * 3) / 3 - 1


def entry_of(name: str | None) -> Any:
    """How a file names a quantizer."""
    if name is None:
        return None
    kind = {
        "ste_sign": "SteSign",
        "approx_sign": "ApproxSign",
        "swish_sign": "SwishSign",
        "magnitude_aware_sign": "MagnitudeAwareSign",
        "ste_tern": "SteTern",
        "ste_heaviside": "SteHeaviside",
    }.get(name, "DoReFa")
    config: dict[str, Any] = {"name": name}
    if kind == "DoReFa":
        config |= {"k_bit": 2, "mode": "activations" if name.endswith("inputs") else "weights"}
    return {"class_name": kind, "config": config}


def convolve(
    x: np.ndarray, w: np.ndarray, stride: int, padding: str, outside: float, groups: int
) -> np.ndarray:
    """Convolve x (n, h, w, c) with kernels (kh, kw, c / groups, filters)."""
    kh, kw = w.shape[:2]
    if padding == "same":
        sides = []
        for size, k in zip(x.shape[1:3], (kh, kw), strict=True):
            total = max((-(-size // stride) - 1) * stride + k - size, 0)
            sides.append((total // 2, total - total // 2))
        x = np.pad(x, ((0, 0), *sides, (0, 0)), constant_values=outside)
    view = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(1, 2))
    view = view[:, ::stride, ::stride]  # n, oh, ow, c, kh, kw
    parts = [
        np.einsum("nhwcij,ijco->nhwo", v, f)
        for v, f in zip(np.split(view, groups, 3), np.split(w, groups, 3), strict=True)
    ]
    return np.concatenate(parts, axis=3)


def is_close_call(name: str | None, x: np.ndarray) -> bool:
    """Whether rounding decides the value of a quantizer, such as for 1/3 + 1/3 - 2/3."""
    if name == "dorefa_inputs":
        return bool((np.abs(np.abs(3 * x % 1) - 0.5) < 1e-4).any())
    return name is not None and bool(((x != 0) & (np.abs(x) < 1e-4)).any())


class Network:
    """A chain of layers in the making, with the output of each for a batch."""

    def __init__(self, rng: np.random.Generator, x: np.ndarray):
        self.rng, self.y = rng, x.astype(float)
        self.shape = x.shape[1:]
        self.layers: list[dict[str, Any]] = []
        self.arrays: dict[str, list[tuple[str, np.ndarray]]] = {}
        self.counts: dict[str, int] = {}
        self.last = "start"
        self.is_close = False  # whether rounding may decide

    def add(self, kind: str, config: dict[str, Any], *arrays: tuple[str, np.ndarray], inputs=()):
        base = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
        base = re.sub("([a-z])([A-Z])", r"\1_\2", base).lower()
        number = self.counts.get(base, 0)
        self.counts[base] = number + 1
        name = f"{base}_{number}" if number else base
        names = inputs or (self.last,)
        self.layers.append({"class_name": kind, "config": {"name": name, **config}, "from": names})
        self.arrays[name] = list(arrays)
        self.last = name
        return name

    def real(self, *shape: int) -> np.ndarray:
        return self.rng.normal(0, 1, shape).astype(np.float32)

    def quantized(self, name: str | None) -> np.ndarray:
        self.is_close = self.is_close or is_close_call(name, self.y)
        return quantize(name, self.y)

    def input_quantizer(self) -> str | None:
        return self.rng.choice([*SIGNS, "ste_sign", "ste_heaviside", "dorefa_inputs", None])

    def kernel_quantizer(self) -> str | None:
        few = [*SIGNS, "ste_sign", "magnitude_aware_sign", "ste_tern", "dorefa_weights", None]
        return self.rng.choice(few)

    def conv(self) -> None:
        rng, channels = self.rng, self.y.shape[3]
        size, stride = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        is_small = min(self.y.shape[1:3]) < size
        padding = "same" if is_small else str(rng.choice(["same", "valid"]))
        into, kernel = self.input_quantizer(), self.kernel_quantizer()
        outside = int(rng.choice([0, 1, -1])) if into in SIGNS and kernel is not None else 0
        filters, depthwise = int(rng.integers(1, 5)) * 2, rng.integers(0, 4) == 0
        bias = self.real(channels * 2 if depthwise else filters) if rng.integers(0, 2) else None
        config = {
            "strides": [stride, stride],
            "padding": padding,
            "input_quantizer": entry_of(into),
            "pad_values": float(outside),
            "use_bias": bias is not None,
            "activation": "linear",
        }
        x = self.quantized(into)
        if depthwise:
            kernel = str(rng.choice(SIGNS))
            w = self.real(size, size, channels, 2)
            rows = quantize(kernel, w).reshape(size, size, 1, channels * 2)
            self.y = convolve(x, rows, stride, padding, outside, channels)
            config["depthwise_quantizer"] = entry_of(kernel)
            name, kind = "depthwise_kernel", "QuantDepthwiseConv2D"
        else:
            w = self.real(size, size, channels, filters)
            self.y = convolve(x, quantize(kernel, w), stride, padding, outside, 1)
            config["kernel_quantizer"] = entry_of(kernel)
            name, kind = "kernel", "QuantConv2D"
        arrays = [(name, w)]
        if bias is not None:
            arrays.append(("bias", bias))
            self.y = self.y + bias
        self.add(kind, config, *arrays)

    def norm(self) -> None:
        rng, c = self.rng, self.y.shape[-1]
        scale, center = bool(rng.integers(0, 2)), bool(rng.integers(0, 2))
        gamma, beta, mean = self.real(c), self.real(c), 3 * self.real(c)
        variance = rng.uniform(0.5, 20, c).astype(np.float32)
        arrays = [("gamma", gamma)] * scale + [("beta", beta)] * center
        arrays += [("moving_mean", mean), ("moving_variance", variance)]
        settings = {"axis": [self.y.ndim - 1], "epsilon": 0.001, "scale": scale, "center": center}
        self.add("BatchNormalization", settings, *arrays)
        y = (self.y - mean) / np.sqrt(variance + 0.001)
        self.y = (y * gamma if scale else y) + (beta if center else 0)

    def activation(self) -> None:
        slope = self.real(1, 1, self.y.shape[-1])
        choice = self.rng.integers(0, 4)
        if choice == 0:
            self.add("Activation", {"activation": "relu"})
            self.y = np.maximum(self.y, 0)
        elif choice == 1:
            self.add("LeakyReLU", {"alpha": 0.25})
            self.y = np.where(self.y < 0, self.y * 0.25, self.y)
        elif choice == 2 and self.y.ndim == 4:
            self.add("PReLU", {"shared_axes": [1, 2]}, ("alpha", slope))
            self.y = np.where(self.y < 0, self.y * slope[0, 0], self.y)
        else:
            self.add("Dropout", {"rate": 0.5})

    def pool(self) -> None:
        size = min(2, self.y.shape[1], self.y.shape[2])
        kind = str(self.rng.choice(["MaxPooling2D", "AveragePooling2D"]))
        self.add(kind, {"pool_size": [size, size], "strides": [1, 1], "padding": "valid"})
        view = np.lib.stride_tricks.sliding_window_view(self.y, (size, size), axis=(1, 2))
        self.y = view.max(axis=(4, 5)) if kind.startswith("Max") else view.mean(axis=(4, 5))

    def block(self) -> None:
        """An Add or a Concatenate of what there is and a branch."""
        start, x, channels = self.last, self.y, self.y.shape[3]
        kind = str(self.rng.choice(["Add", "Concatenate"]))
        filters = channels if kind == "Add" else 3
        w = self.real(3, 3, channels, filters)
        settings = {
            "strides": [1, 1],
            "padding": "same",
            "input_quantizer": entry_of("ste_sign"),
            "kernel_quantizer": entry_of("ste_sign"),
            "pad_values": 1.0,
            "use_bias": False,
        }
        self.add("QuantConv2D", settings, ("kernel", w))
        branch = convolve(self.quantized("ste_sign"), sign(w), 1, "same", 1, 1)
        parts = [(start, x), (self.last, branch)]
        if self.rng.integers(0, 2):
            parts.reverse()
        self.add(kind, {"axis": -1}, inputs=tuple(name for name, _ in parts))
        values = [value for _, value in parts]
        self.y = sum(values) if kind == "Add" else np.concatenate(values, axis=-1)

    def dense(self, units: int, activation: str = "linear") -> None:
        into, kernel = self.input_quantizer(), self.kernel_quantizer()
        w, bias = self.real(self.y.shape[1], units), self.real(units)
        settings = {
            "units": units,
            "input_quantizer": entry_of(into),
            "kernel_quantizer": entry_of(kernel),
            "use_bias": True,
            "activation": activation,
        }
        self.add("QuantDense", settings, ("kernel", w), ("bias", bias))
        self.y = self.quantized(into) @ quantize(kernel, w) + bias
        if activation == "softmax":
            e = np.exp(self.y - self.y.max(axis=1, keepdims=True))
            self.y = e / e.sum(axis=1, keepdims=True)

    # Files

    def is_chain(self) -> bool:
        return all(len(layer["from"]) == 1 for layer in self.layers)

    def description(self, version: int) -> dict[str, Any]:
        shape = {"batch_input_shape" if version == 2 else "batch_shape": [None, *self.shape]}
        entries: list[dict[str, Any]] = [
            {"class_name": "InputLayer", "config": {"name": "start", **shape}}
        ]
        entries += [
            {"class_name": layer["class_name"], "config": layer["config"]} for layer in self.layers
        ]
        if self.is_chain():
            return {"class_name": "Sequential", "config": {"name": "net", "layers": entries}}
        for entry, inputs in zip(entries, [(), *(la["from"] for la in self.layers)], strict=True):
            entry["name"] = entry["config"]["name"]
            calls = [[name, 0, 0, {}] for name in inputs]
            if version == 3:
                tensors = [
                    {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}
                    for name in inputs
                ]
                calls = {"args": [tensors], "kwargs": {}}  # type: ignore[assignment]
            entry["inbound_nodes"] = [calls] if inputs else []
        outputs = [self.last, 0, 0]
        config = {"name": "net", "layers": entries, "output_layers": outputs}
        if version == 2:
            config["output_layers"] = [outputs]
        return {"class_name": "Functional", "config": config}

    def write_h5(self, path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps(self.description(2))
            group = file.create_group("model_weights")
            for name, arrays in self.arrays.items():
                own = group.create_group(name)
                names = [f"{name}/{array_name}:0" for array_name, _ in arrays]
                own.attrs["weight_names"] = np.array(names, dtype="S")
                for place, (_, array) in zip(names, arrays, strict=True):
                    own[place] = array

    def write_keras(self, path) -> None:
        weights = io.BytesIO()
        with h5py.File(weights, "w") as file:
            for name, arrays in self.arrays.items():
                own = file.create_group(f"layers/{name}/vars")
                for i, (_, array) in enumerate(arrays):
                    own[str(i)] = array
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.0"}))
            archive.writestr("config.json", json.dumps(self.description(3)))
            archive.writestr("model.weights.h5", weights.getvalue())


def random_network(seed: int) -> tuple[Network, np.ndarray]:
    """Make a network and a batch of its inputs."""
    rng = np.random.default_rng(seed)
    is_image = bool(rng.integers(0, 4))
    shape = (9, 8, int(rng.integers(1, 5))) if is_image else (int(rng.integers(5, 40)),)
    x = rng.integers(0, 256, (5, *shape)).astype(np.float32)
    net = Network(rng, x)
    for _ in range(int(rng.integers(1, 4)) if is_image else 0):
        net.conv()
        if min(net.y.shape[1:3]) < 3:
            break
        for part in (net.pool, net.norm, net.activation, net.block):
            if rng.integers(0, 2):
                part()
    if is_image:
        if rng.integers(0, 3):
            net.add("Flatten", {})
            net.y = net.y.reshape(5, -1)
        else:
            net.add("GlobalAveragePooling2D", {})
            net.y = net.y.mean(axis=(1, 2))
    for _ in range(int(rng.integers(0, 3))):
        net.dense(int(rng.integers(3, 20)))
        net.norm()
    net.dense(4, "softmax" if rng.integers(0, 2) else "linear")
    return net, x
