#!/usr/bin/env python3
"""Makes networks as Larq Compute Engine writes them, with what its interpreter computes.

    make.py FOLDER                      the files beside this script
    make.py FOLDER --random 0 300       random networks by their numbers, from 0 to 299

Each NAME.tflite gets a NAME.npz of examples x, the scores of the interpreter, and those of Keras.
The scores are those of the interpreter's usual kernel, but for what it cannot do, or gets wrong:
groups, and zero padding of windows that are larger than the image. There they are those of its
reference kernel; networks that this refuses as well are left out.

It needs an environment of its own, Python 3.10 or newer:

    pip install larq-compute-engine==0.16.0 larq==0.13.3 tensorflow-cpu==2.16.1 tf-keras==2.16.0

These versions made the files here.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import larq
import larq_compute_engine as lce
import numpy as np
import tensorflow as tf
import tf_keras as keras
from larq_compute_engine.tflite.python.interpreter import Interpreter

L = keras.layers
MOST_EXAMPLES = 6

Net = Callable[[Any], Any]  # from the input to the output


def binary(x, filters, kernel=3, **settings):
    """A binary convolution, with one padding unless it is said otherwise."""
    usual = {"padding": "same", "pad_values": 1, "use_bias": False, "kernel_quantizer": "ste_sign"}
    settings = usual | settings
    return larq.layers.QuantConv2D(filters, kernel, input_quantizer="ste_sign", **settings)(x)


def dense(x, features, **settings):
    settings = {"use_bias": False, **settings}
    return larq.layers.QuantDense(
        features, input_quantizer="ste_sign", kernel_quantizer="ste_sign", **settings
    )(x)


def norm(x):
    return L.BatchNormalization()(x)


# QuickNet, with few filters: stem, residual blocks of one binary convolution, transitions, head


def quicknet(blur: bool, filters=(16, 32, 48)) -> Net:
    def net(x):
        x = norm(L.Conv2D(8, 3, 2, "same", use_bias=False, activation="relu")(x))
        x = norm(L.DepthwiseConv2D(3, 1, "same", use_bias=False)(x))
        x = norm(L.Conv2D(filters[0], 1, use_bias=False)(x))
        for i, channels in enumerate(filters):
            if i:
                x = transition(x, channels, blur)
            for _ in range(2):
                y = norm(binary(x, channels, activation="relu"))
                x = L.Add()([x, y])
        x = L.GlobalAveragePooling2D()(L.ReLU()(x))
        return L.Softmax()(L.Dense(10)(x))

    return net


def transition(x, channels, blur):
    x = L.ReLU()(x)
    if blur:
        taps = np.array([1, 2, 1]) / 4
        kernel = np.repeat((taps[:, None] * taps)[..., None, None], x.shape[-1], axis=2)
        pool = L.DepthwiseConv2D(
            3, 2, "same", use_bias=False, depthwise_initializer=keras.initializers.Constant(kernel)
        )
        pool.trainable = False
        x = pool(x)
    else:
        x = L.MaxPool2D(3, 2, "same")(x)
    return norm(L.Conv2D(channels, 1, use_bias=False)(x))


# The operators of Larq Compute Engine


def bitpacked(x):
    """Convolutions that give bits by thresholds, and a max-pool of bits."""
    x = norm(binary(x, 40))
    x = norm(binary(x, 70, strides=2))
    x = norm(L.MaxPool2D(2)(binary(x, 24, padding="valid")))
    return L.Flatten()(norm(binary(x, 33, kernel=2, strides=(1, 2), padding="valid")))


def bit_pools(x):
    """Max-pools of bits, also where the window leaves the image."""
    x = L.MaxPool2D(3, 2, "same")(larq.quantizers.SteSign()(norm(x)))
    x = norm(binary(x, 32, kernel=1))
    x = L.MaxPool2D(2, 1)(larq.quantizers.SteSign()(x))
    return L.GlobalAveragePooling2D()(norm(binary(x, 8)))


def zero_padding(x):
    x = norm(binary(x, 34, pad_values=0))
    y = norm(binary(x, 34, kernel=5, pad_values=0))
    x = L.Add()([x, y])
    x = norm(binary(x, 20, strides=2, pad_values=0))
    return L.Dense(5)(L.Flatten()(x))


def wide_windows(x):
    """Zero padding of windows, one of them dilated, that are larger than the image."""
    y = norm(binary(x, 34, kernel=5, pad_values=0))
    x = L.Add()([y, norm(binary(x, 34, dilation_rate=2, pad_values=0))])
    x = norm(binary(x, 20, strides=2, pad_values=0))
    x = norm(binary(x, 12, pad_values=0))
    return L.Dense(5)(L.Flatten()(x))


def fused(x):
    """Activations within the binary convolution, dilation, a bias and scales."""
    x = norm(binary(x, 32, activation="relu", padding="valid"))
    x = norm(binary(x, 32, dilation_rate=2, use_bias=True))
    x = L.ReLU(6.0)(binary(x, 36, padding="valid", kernel=1))
    return L.GlobalAveragePooling2D()(norm(x))


def groups(x):
    x = norm(binary(x, 64, kernel=1))
    x = norm(binary(x, 24, groups=2, padding="valid"))
    return L.GlobalAveragePooling2D()(x)


def dense_block(x):
    """Channels side by side, then a sum with them, and depthwise filters of them."""
    x = L.Concatenate()([x, norm(binary(x, 5))])
    x = L.Add()([x, L.ReLU()(norm(binary(x, x.shape[-1])))])
    x = L.Concatenate()([x, norm(binary(x, 4))])
    return L.Dense(6)(L.GlobalAveragePooling2D()(L.DepthwiseConv2D(2, depth_multiplier=2)(x)))


def gates(x):
    """Factors of the channels that are computed, as in Real-to-Binary, and a hard swish."""
    y = norm(binary(x, 16))
    factors = L.Conv2D(4, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Multiply()([y, L.Conv2D(16, 1, activation="sigmoid")(factors)])
    return L.GlobalAveragePooling2D()(x * L.ReLU(6.0)(x + 3.0) * (1 / 6))


def bits_out(x):
    x = norm(binary(x, 37))
    return larq.quantizers.SteSign()(x)


# Other operators of TFLite


def float_layers(x):
    x = L.ReLU(6.0)(L.Conv2D(8, 3, 2, "same")(L.Rescaling(1 / 2, -0.25)(x)))
    x = L.LeakyReLU(0.1)(L.ZeroPadding2D(((1, 0), (2, 1)))(x))
    a = L.Activation("tanh")(L.Conv2D(6, (1, 3), padding="same", dilation_rate=2)(x))
    b = L.PReLU(shared_axes=(1, 2), alpha_initializer="random_uniform")(L.DepthwiseConv2D(1)(x))
    x = L.AveragePooling2D(2)(L.Concatenate()([a, x, b]))
    x = L.Activation("relu")(L.Dense(9)(L.Flatten()(x)))
    return L.Activation("sigmoid")(L.Dense(4)(x))


def depthwise(x):
    """A depthwise multiplier, a mean that keeps its axes, a convolution of one pixel."""
    x = L.DepthwiseConv2D((3, 2), strides=2, depth_multiplier=3, activation="relu")(x)
    x = larq.quantizers.SteSign()(norm(x))
    x = larq.layers.QuantDepthwiseConv2D(3, depthwise_quantizer="ste_sign", use_bias=False)(x)
    x = L.GlobalAveragePooling2D(keepdims=True)(norm(x))
    return L.Reshape((4,))(L.Conv2D(4, 1)(x))


def rows(x):
    """Dense layers of rows: first real, then of bits with scales."""
    x = norm(L.Dense(40)(x))
    x = norm(dense(x, 33))
    x = larq.layers.QuantDense(
        12,
        input_quantizer="ste_sign",
        kernel_quantizer="magnitude_aware_sign",
        use_bias=True,
    )(x)
    return L.Softmax()(x)


FILES: dict[str, tuple[Net, tuple[int, ...]]] = {
    "bit_pools": (bit_pools, (9, 10, 5)),
    "bitpacked": (bitpacked, (12, 11, 33)),
    "bits_out": (bits_out, (4, 5, 3)),
    "depthwise": (depthwise, (11, 9, 4)),
    "float_layers": (float_layers, (12, 10, 3)),
    "fused": (fused, (8, 9, 8)),
    "groups": (groups, (6, 6, 32)),
    "quicknet": (quicknet(blur=True), (32, 32, 3)),
    "quicknet_maxpool": (quicknet(blur=False, filters=(16, 32)), (24, 24, 3)),
    "rows": (rows, (20,)),
    "zero_padding": (zero_padding, (7, 8, 32)),
    "dense_block": (dense_block, (5, 6, 7)),
    "gates": (gates, (6, 5, 16)),
    "wide_windows": (wide_windows, (4, 3, 32)),
}


def random_net(rng: np.random.Generator, rows_only: bool) -> Net:
    """A network of random layers, one behind the other, some with shortcuts."""
    paddings = "same", "same", "valid"
    forms = "bn", "bn", "bn", "pool bn", "bn pool", "none", "prelu"

    def one(x, channels):
        settings = {
            "kernel": int(rng.choice([1, 2, 3, 5])),
            "strides": int(rng.choice([1, 1, 2])),
            "padding": str(rng.choice(paddings)) if min(x.shape[1:3]) > 4 else "same",
            "pad_values": int(rng.choice([0, 1])),
            "use_bias": bool(rng.random() < 0.3),
            "activation": "relu" if rng.random() < 0.2 else None,
            "kernel_quantizer": str(rng.choice(["ste_sign", "magnitude_aware_sign"])),
        }
        form = str(rng.choice(forms))
        is_zero_padded = settings["padding"] == "same" and not settings["pad_values"]
        is_scaled = settings["kernel_quantizer"] == "magnitude_aware_sign"
        if form == "none" and is_zero_padded and is_scaled:
            # Without a bias, sums may be exactly 0 when their sign is taken. The usual kernel's
            # correction for the padding leaves a rounding error there, positive or negative.
            settings["use_bias"] = True
        x = binary(x, channels, **settings)
        if "pool" in form and min(x.shape[1:3]) > 1:
            pool = L.MaxPool2D(2, padding=str(rng.choice(["same", "valid"])))
            return norm(pool(x)) if form == "pool bn" else pool(norm(x))
        if form == "prelu":
            return L.PReLU(shared_axes=(1, 2), alpha_initializer="random_uniform")(norm(x))
        return x if form == "none" else norm(x)

    def residual(x):
        y = norm(binary(x, x.shape[-1], pad_values=int(rng.choice([0, 1]))))
        return L.Concatenate()([x, y]) if rng.random() < 0.3 else L.Add()([x, y])

    def images(x):
        if rng.random() < 0.5:
            filters = int(rng.integers(4, 40))
            x = norm(L.Conv2D(filters, 3, int(rng.choice([1, 2])), "same", use_bias=False)(x))
        for _ in range(int(rng.integers(1, 4))):
            x = residual(x) if rng.random() < 0.4 else one(x, int(rng.integers(3, 70)))
        x = L.Flatten()(x) if rng.random() < 0.5 else L.GlobalAveragePooling2D()(x)
        return head(x)

    def head(x):
        if rng.random() < 0.5:
            x = norm(dense(x, int(rng.integers(8, 50))))
        x = dense(x, 10) if rng.random() < 0.4 else L.Dense(10)(x)
        return L.Softmax()(x) if rng.random() < 0.5 else x

    return head if rows_only else images


def disturb(model: Any, rng: np.random.Generator) -> None:
    """Give BatchNorms and biases values as a training would, some gammas negative."""
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            n = layer.gamma.shape[0]
            gamma = rng.uniform(0.5, 1.5, n) * rng.choice([-1, 1, 1], n)
            statistics = rng.normal(0, 2, n), rng.uniform(0.5, 30, n)
            layer.set_weights([gamma, rng.normal(0, 0.5, n), *statistics])
        elif getattr(layer, "use_bias", False):
            *weights, bias = layer.get_weights()
            layer.set_weights([*weights, rng.normal(0, 0.3, bias.shape)])


def zero_pads_wide_windows(layer: Any) -> bool:
    """Return whether a layer pads with zeros, for windows that are larger than the image.

    The usual kernel pads with ones and corrects the borders then, by a table that takes windows to
    be within the image (zero_padding_correction.h).
    """
    if not isinstance(layer, larq.layers.QuantConv2D):
        return False
    settings = zip(layer.kernel_size, layer.dilation_rate, layer.input_shape[1:3], strict=True)
    is_wide = any((k - 1) * d + 1 > size for k, d, size in settings)
    return layer.padding == "same" and layer.pad_values == 0 and is_wide


def write(folder: Path, name: str, net: Net, shape: tuple[int, ...], seed: int) -> None:
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    start = keras.Input(shape)
    model = keras.Model(start, net(start))
    disturb(model, rng)
    content = lce.convert_keras_model(model)
    x = rng.normal(0, 1, (MOST_EXAMPLES, *shape)).astype(np.float32)
    by_reference = name == "groups" or any(map(zero_pads_wide_windows, model.layers))
    scores = Interpreter(content, use_reference_bconv=by_reference).predict(x)
    own = model.predict(x, verbose=0)
    difference = np.abs(scores - own).max() / np.abs(own).max()
    (folder / f"{name}.tflite").write_bytes(content)
    np.savez_compressed(folder / f"{name}.npz", x=x, scores=scores, keras=own)
    kernel = "reference" if by_reference else "usual"
    print(f"{name}: {len(content):,} bytes, {kernel} kernel, Keras differs by {difference:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--random", type=int, nargs=2, metavar=("FIRST", "END"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    tf.get_logger().setLevel("ERROR")
    if options.random is None:
        for seed, (name, (net, shape)) in enumerate(FILES.items()):
            write(options.folder, name, net, shape, seed)
    for seed in range(*(options.random or (0,))):
        rng = np.random.default_rng([17, seed])
        rows_only = rng.random() < 0.15
        shape = (int(rng.integers(5, 90)),)
        if not rows_only:
            shape = (*(int(n) for n in rng.integers(5, 15, 2)), int(rng.integers(1, 40)))
        try:
            write(options.folder, f"{seed:03}", random_net(rng, rows_only), shape, seed)
        except (RuntimeError, ValueError) as error:  # its interpreter or Keras lacks a combination
            print(f"{seed:03}: left out: {str(error).splitlines()[-1]}")


if __name__ == "__main__":
    main()
