"""Train on pictures of your own
=============================

Train a published recipe on a folder of pictures of your own, and look at the run.

The pictures here are made of the digits that scikit-learn carries: one folder a class, files of
PNG. Commands are run as they would be typed; `python -m bitops` is `bitops`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = "zero one two three four five six seven eight nine".split()


def write_pictures(folder: Path, count: int) -> None:
    """Write the first digits as pictures of 16 x 16 pixels: folder/seven/0007.png."""
    images, labels = load_digits(return_X_y=True)
    for number, (image, label) in enumerate(zip(images[:count], labels, strict=False)):
        place = folder / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.uint8(255 / 16 * image.reshape(8, 8))
        Image.fromarray(pixels).resize((16, 16)).save(place / f"{number:04}.png")


def bitops(folder: Path, command: str) -> str:
    """Run a command in a folder, print it with its output, and return the output."""
    print(f"$ bitops {command}")
    argv = [sys.executable, "-m", "bitops", *command.split()]
    done = subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "digits", 900)

        # Tenths of each class are set aside for validation and test. RUN gets the log, a
        # checkpoint, the settings, and the packed network.
        output = bitops(
            folder, "train bnn-theano --data digits --quick --width 256 --epochs 6 --run run"
        )
        assert "classes  10: eight, five, four" in output

        # The file of the model knows the names of its classes, and how pictures are resized.
        output = bitops(folder, "predict run/model.safetensors digits/seven/0007.png")
        assert output.startswith("digits/seven/0007.png: seven (")

        output = bitops(folder, "eval run/model.safetensors --data digits")
        error = float(output.split("error")[1].split("%")[0])
        assert error < 15

        # One page with curves, confusions, filters, mistakes; open it in a browser.
        bitops(folder, "report run")
        page = (folder / "run" / "report.html").read_text(encoding="utf-8")
        assert "Confusion matrix" in page and "Wrongly classified images" in page


if __name__ == "__main__":
    main()
