"""Write packed models with every type of layer, and what each layer gives for some inputs.

    cd tests; python -m old_files.make_models FOLDER NAME ...

The sets in models/ were made by this program with the code of the commits that README.md names:
`every_dense images flat planes residual_3` for version 3, `images_2 residual_2` for version 2 and
`dense` for version 1. They are never made anew; a new format gets a new set.
"""

import sys
from pathlib import Path

import numpy as np
import safetensors.numpy

from bitops import BitArray, layers, pack, unpack
from bitops.layers import Packed
from old_files.integers import Integers


def dense():
    """What the first format knew."""
    r = Integers(1)
    model = Packed(
        layers.PackedBatchNorm(r.odd(4, 9, 70), r.odd(8, 99, 70)),
        layers.PackedSign(r.odd(8, 99, 70), r.flips(70)),
        layers.PackedDense(r.signs(65, 70), r.draw(-9, 9, 65), r.flips(65)),
        layers.PackedDense(r.signs(64, 65), r.odd(4, 40, 64)),
        layers.PackedDense(r.signs(9, 64), alpha=r.odd(8, 9, 9)),
        layers.PackedSign(),
        layers.PackedDense(r.signs(8, 9)),
        layers.PackedSign(r.draw(-2, 2, 8)),
        layers.PackedDense(r.signs(5, 8), alpha=r.odd(8, 9, 5), bias=r.odd(4, 9, 5)),
    )
    return model, {"bits": r.signs(2, 70), "float32": r.odd(4, 40, 2, 70)}


def every_dense():
    r = Integers(2)
    model = Packed(
        layers.PackedDense(r.signs(65, 70), r.draw(-9, 9, 65), r.flips(65)),
        layers.PackedDense(r.signs(64, 65), r.odd(4, 40, 64)),
        layers.PackedDense(r.signs(33, 64), alpha=r.odd(8, 9, 33)),
        layers.PackedSign(r.odd(8, 99, 33), r.flips(33)),
        layers.PackedDense(r.signs(9, 33), alpha=r.odd(8, 9, 9), bias=r.odd(4, 9, 9)),
        layers.PackedSign(),
        layers.PackedDense(r.signs(8, 9)),
        layers.PackedSign(r.draw(-2, 2, 8)),
        layers.PackedDense(r.signs(8, 8), r.draw(-2, 2, 8), r.flips(8), input_bits=1),
        layers.PackedDense(r.signs(7, 8), bias=r.odd(4, 9, 7), input_bits=1),
        layers.PackedBatchNorm(r.odd(4, 9, 7), r.odd(8, 9, 7)),
        layers.PackedReLU(),
        layers.PackedQuantize(3, 0.75),
        layers.PackedDense(r.signs(9, 7), r.draw(-3, 3, 9), input_bits=3),
        layers.PackedPlanesDense(r.signs(2, 9, 9), [1, 1], r.draw(-2, 2, 9), r.flips(9)),
        layers.PackedPlanesDense(r.signs(2, 8, 9), [1, 1], alpha=r.odd(8, 9, 8)),
        layers.PackedQuantize(2),
        layers.PackedPlanesDense(r.signs(3, 6, 8), [1, 2, 4], bias=r.odd(2, 9, 6), input_bits=2),
        # so large that tanh is -1 or +1 in every library
        layers.PackedBatchNorm(r.odd(1, 9, 6) * 64, np.zeros(6)),
        layers.PackedTanh(),
        layers.PackedDense(r.signs(5, 6)),
        layers.PackedQuantize(4, 5.0),
        layers.PackedLevels(0.25),
        layers.PackedBatchNorm(r.odd(4, 9, 5), r.odd(64, 9, 5)),
        layers.FloatDense(r.odd(2, 9, 6, 5), r.odd(2, 9, 6)),
        layers.FloatDense(r.odd(2, 9, 4, 6)),
        layers.PackedSign(),
        layers.PackedLevels(1 / 3),
    )
    inputs = {
        "bits": r.signs(2, 70),
        "uint8": r.draw(0, 256, 2, 70).astype(np.uint8),
        "float32": r.odd(4, 40, 2, 70),
    }
    return model, inputs


def images():
    r = Integers(3)
    model = Packed(
        layers.PackedConv2D(r.signs(4, 3, 2, 3), r.draw(-9, 9, 4), r.flips(4), padding="same"),
        layers.PackedMaxPool2D(2, padding=((0, 1), (0, 0)), minimum=r.flips(4)),
        layers.PackedConv2D(r.signs(4, 3, 3, 4), r.odd(4, 40, 4), padding=1, pad_value=-1),
        layers.PackedConv2D(
            r.signs(4, 3, 3, 4), alpha=r.odd(8, 9, 4), bias=r.odd(4, 9, 4), padding=1, pad_value=1
        ),
        layers.PackedConv2D(
            r.signs(6, 3, 3, 2),
            alpha=r.odd(8, 9, 6),
            bias=r.odd(4, 9, 6),
            scale_input=True,
            padding=2,
            dilation=(1, 2),
            groups=2,
        ),
        layers.PackedMaxPool2D((3, 1), 1, (1, 0)),
        layers.PackedSign(r.odd(8, 9, 6)),
        layers.PackedConv2D(
            r.signs(6, 3, 3, 1),
            alpha=r.odd(8, 9, 6),
            stride=(2, 1),
            padding=((1, 0), (0, 1)),
            groups=6,
        ),
        layers.PackedReLU(),
        layers.PackedQuantize(2, 2.0),
        layers.PackedConv2D(
            r.signs(4, 2, 2, 6),
            r.draw(-3, 3, 4),
            r.flips(4),
            padding=((0, 1), (1, 0)),
            input_bits=2,
        ),
        layers.PackedConv2D(
            r.signs(4, 2, 2, 2), bias=r.odd(4, 9, 4), padding=1, groups=2, input_bits=1
        ),
        layers.PackedAvgPool2D(2, 1),
        layers.PackedBatchNorm(r.odd(4, 9, 4), r.odd(64, 9, 4)),
        layers.FloatConv2D(
            r.odd(2, 9, 4, 1, 2, 2), r.odd(2, 9, 4), stride=(1, 2), padding=(0, 1), groups=2
        ),
        layers.FloatConv2D(r.odd(2, 9, 4, 2, 2, 4), dilation=(2, 1)),
        layers.PackedGlobalAvgPool2D(),
        input_shape=(7, 8, 3),
        notes={"inputs": "as they are"},
    )
    inputs = {
        "bits": r.signs(1, 7, 8, 3),
        "uint8": r.draw(0, 256, 1, 7, 8, 3).astype(np.uint8),
        "float32": r.odd(4, 40, 1, 7, 8, 3),
    }
    return model, inputs


def images_2():
    """What the second format knew of images."""
    r = Integers(4)
    model = Packed(
        layers.PackedConv2D(r.signs(4, 3, 2, 3), r.draw(-9, 9, 4), r.flips(4), padding="same"),
        layers.PackedMaxPool2D(2, padding=((0, 1), (0, 0)), minimum=r.flips(4)),
        layers.PackedConv2D(
            r.signs(6, 3, 3, 4), alpha=r.odd(8, 9, 6), bias=r.odd(4, 9, 6), padding=1, pad_value=-1
        ),
        layers.PackedConv2D(
            r.signs(8, 3, 3, 3), alpha=r.odd(8, 9, 8), scale_input=True, padding=1, groups=2
        ),
        layers.PackedReLU(),
        layers.PackedBatchNorm(r.odd(4, 9, 8), r.odd(8, 9, 8)),
        layers.PackedSign(),
        layers.PackedConv2D(r.signs(4, 2, 2, 8), stride=2, dilation=(1, 2)),
        layers.PackedAvgPool2D((1, 2), 1, (0, 1)),
        layers.PackedBatchNorm(r.odd(4, 9, 4), r.odd(64, 9, 4)),
        layers.FloatConv2D(r.odd(2, 9, 4, 1, 2, 2), r.odd(2, 9, 4), groups=2),
        layers.PackedFlatten(),
        input_shape=(7, 8, 3),
    )
    return model, {"bits": r.signs(1, 7, 8, 3), "float32": r.odd(4, 40, 1, 7, 8, 3)}


def flat():
    """Smallest values of every kind of number, and a product over a whole image."""
    r = Integers(5)
    model = Packed(
        layers.PackedMaxPool2D(2, 1, minimum=r.flips(5)),
        layers.PackedFlatten(),
        layers.PackedDense(r.signs(6, 45)),
    )
    inputs = {
        "bits": r.signs(2, 4, 4, 5),
        "uint8": r.draw(0, 256, 2, 4, 4, 5).astype(np.uint8),
        "float32": r.odd(4, 40, 2, 4, 4, 5),
    }
    return model, inputs


def planes():
    r = Integers(6)
    ternary, two_bits, three_bits = (1, 1), (1, 2), (1, 2, 4)
    model = Packed(
        layers.PackedPlanesConv2D(
            r.signs(2, 4, 3, 3, 4), ternary, r.draw(-4, 4, 4), r.flips(4), padding="same"
        ),
        layers.PackedPlanesConv2D(
            r.signs(2, 6, 3, 3, 2),
            ternary,
            alpha=r.odd(8, 9, 6),
            padding=1,
            pad_value=-1,
            groups=2,
        ),
        layers.PackedQuantize(2, 4.0),
        layers.PackedPlanesConv2D(
            r.signs(3, 4, 2, 2, 6),
            three_bits,
            alpha=r.odd(8, 9, 4),
            bias=r.odd(4, 9, 4),
            stride=2,
            dilation=(2, 1),
            input_bits=2,
        ),
        layers.PackedFlatten(),
        layers.PackedSign(),
        layers.PackedPlanesDense(r.signs(2, 4, 24), two_bits, bias=r.odd(4, 9, 4)),
    )
    inputs = {
        "bits": r.signs(1, 6, 6, 4),
        "uint8": r.draw(0, 256, 1, 6, 6, 4).astype(np.uint8),
    }
    return model, inputs


def residual(**options):
    """Blocks with and without a shortcut, in each other and with packed and float32 layers."""
    r = Integers(7)
    model = Packed(
        layers.PackedResidual(
            layers.PackedConv2D(r.signs(4, 3, 3, 4), alpha=r.odd(8, 9, 4), padding=1)
        ),
        layers.PackedResidual(
            [
                layers.PackedSign(),
                layers.PackedConv2D(
                    r.signs(4, 3, 3, 4), r.draw(-3, 3, 4), stride=2, padding=1, **options
                ),
            ],
            [
                layers.PackedAvgPool2D(2, padding=((0, 1), (0, 1))),
                layers.PackedBatchNorm(r.odd(4, 9, 4), r.odd(64, 9, 4)),
                layers.FloatConv2D(r.odd(2, 9, 4, 1, 1, 4)),
            ],
        ),
        layers.PackedResidual(
            layers.PackedResidual(layers.PackedSign()),
            [
                layers.PackedResidual(
                    layers.PackedReLU(), layers.PackedBatchNorm(*r.odd(4, 9, 2, 4))
                )
            ],
        ),
        layers.PackedBatchNorm(r.odd(4, 9, 4), r.odd(512, 9, 4)),
        layers.PackedResidual(
            [layers.PackedSign(), layers.PackedFlatten(), layers.FloatDense(r.odd(2, 9, 4, 36))],
            layers.PackedGlobalAvgPool2D(),
        ),
        layers.PackedSign(),
    )
    return model, {"bits": r.signs(2, 5, 5, 4), "float32": r.odd(4, 40, 2, 5, 5, 4)}


def residual_2():
    return residual()


def residual_3():
    return residual(input_bits=1)


MODELS = {
    make.__name__: make
    for make in (dense, every_dense, images, images_2, flat, planes, residual_2, residual_3)
}


def results(model, inputs):
    """Inputs, and what every layer gives for the first; for the others until there are bits."""
    found = {f"input.{kind}": values for kind, values in inputs.items()}
    for number, (kind, values) in enumerate(inputs.items()):
        x = pack(values) if kind == "bits" else values
        for place, layer in enumerate(model.layers):
            x = layer(x)
            y = unpack(x) if isinstance(x, BitArray) else x
            assert len(np.unique(y)) > 1, f"layer {place} gives one value"
            assert np.isfinite(y).all()
            found[f"{kind}.{place}"] = np.ascontiguousarray(y)
            if number and isinstance(x, BitArray):
                break
    return found


if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    for name in names:
        model, inputs = MODELS[name]()
        place = Path(folder) / name
        place.mkdir(parents=True)  # a set is written once
        model.save(place / "model.safetensors")
        safetensors.numpy.save_file(results(model, inputs), place / "results.safetensors")
