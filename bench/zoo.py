"""Puts a trained network into the zoo, with its card.

    bitops train xnor --data DIR --epochs 12 --seed 0 --save net.safetensors
    python bench/zoo.py mnist-xnor-lenet5 net.safetensors --data DIR --minutes 5.5 \\
        --title "XNOR-Net of LeNet-5" --net 20C5-P2-50C5-P2-500-10 \\
        --command "bitops train xnor --epochs 12 --seed 0"

What the recipe does with the pixels becomes the first layer, so that the network takes uint8. Its
test error, its speed on one thread, and what it says about a few images are measured here. Files go
to python/bitops/zoo, or to the folder of --out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bitops import io
from bitops.benchmark import interleave, machine_stamp, threads
from bitops.data import load_dataset
from bitops.data.datasets import Dataset
from bitops.layers import Packed, PackedBatchNorm
from bitops.recipes import find
from bitops.recipes.base import inputs
from bitops.recipes.preprocess import preprocess
from bitops.zoo import Card
from bitops.zoo.cards import FOLDER, SAMPLES

SAMPLE_COUNT = 10
BATCH = 100


def with_pixels(packed: Packed, data: Dataset) -> Packed:
    """Return the network behind a layer that does what its recipe does with each pixel."""
    step = packed.notes["preprocessing"]
    notes = {**packed.notes, "preprocessing": "pixels"}
    layers = list(packed.layers)
    if step != "pixels":
        shape = data.x_test.shape[1:]
        ends = np.stack([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)])
        black, white = inputs(packed, data, preprocess(replace(data, x_test=ends), step).x_test)
        alpha, bias = (white - black) / np.float32(255), black
        if (alpha != alpha[:1, :1]).any() or (bias != bias[:1, :1]).any():
            raise ValueError(f"{step} must change all pixels of a channel alike")
        layers.insert(0, PackedBatchNorm(alpha[0, 0], bias[0, 0]))
    changed = Packed(layers, input_shape=packed.input_shape)
    changed.notes = notes
    return changed


def measure_speed(packed: Packed, x: np.ndarray) -> int:
    """Images a second, rounded to two digits."""
    batch = x[:BATCH]
    with threads(1):
        timing = interleave({"packed": lambda: packed.forward(batch)}, seconds=2.0)["packed"]
    rate = len(batch) / timing.median
    return int(round(rate, 1 - int(np.floor(np.log10(rate)))))


def write_samples(folder: Path, kind: str, data: Dataset) -> np.ndarray:
    """Keep the first test image of each class with those of other data sets."""
    chosen = [int(np.flatnonzero(data.y_test == label)[0]) for label in range(SAMPLE_COUNT)]
    images = data.images(data.x_test[chosen])
    path = folder / SAMPLES
    arrays = load_file(path) if path.exists() else {}
    save_file({**arrays, kind: images}, path)
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--title", required=True)
    parser.add_argument("--net", required=True, help="as the training prints it")
    parser.add_argument("--command", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    kind, data = load_dataset(args.data)
    trained = io.load(args.model)
    packed = with_pixels(trained, data)
    x = inputs(packed, data, data.x_test)
    images = write_samples(args.out, kind, data)
    path = args.out / f"{args.name}.safetensors"
    io.save(packed, path)
    card = Card(
        name=args.name,
        title=args.title,
        net=args.net,
        command=args.command,
        minutes=args.minutes,
        data="MNIST" if kind == "mnist" else data.name,
        weights=find(packed.notes["recipe"]).tested,
        test_error=packed.error_rate(x, data.y_test),
        test_images=len(x),
        packed_bytes=packed.nbytes,
        images_per_second=measure_speed(packed, x),
        machine=machine_stamp()["cpu"],
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        samples=kind,
        predictions=tuple(packed.predict(inputs(packed, data, images)).tolist()),
    )
    text = json.dumps(asdict(card), indent=2, ensure_ascii=True)
    (args.out / f"{args.name}.json").write_text(f"{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
