"""`bitops import`: a packed model from a file of ONNX, Keras, Larq or its Compute Engine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.arrays import read_npz
from ..files.text import printable
from .arguments import add_preprocessing_option, output_file

if TYPE_CHECKING:
    from ..convert import Report
    from ..layers import Packed

__all__ = ["add_parser", "run"]

_ONNX = ".onnx", ".onnx.gz"
_KERAS = ".h5", ".hdf5", ".keras"
_LCE = (".tflite",)
_TORCH = ".pt", ".pth", ".safetensors"
_ENDINGS = _ONNX + _KERAS + _LCE


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "import",
        help="make a packed model of a file of ONNX, Keras, Larq or Larq Compute Engine",
        description="Make a packed model of a network that was trained elsewhere, and show it. "
        f"The ending of the file tells what it is: {', '.join(_ENDINGS)}.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the network")
    parser.add_argument(
        "-o",
        "--output",
        type=output_file,
        metavar="MODEL",
        help="write the packed model, a safetensors file",
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="NPZ",
        help="compare with the source first: a file of x, and of the scores of the source (without "
        "them, onnxruntime runs an ONNX file)",
    )
    add_preprocessing_option(
        parser, "note in the model what `eval` and `predict` are to make of pixels for it"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, check and write; print what was made."""
    name = args.file.name.lower()
    if name.endswith(_TORCH):
        raise ValueError(
            f"[import] {args.file.name} holds arrays but not what is computed of them: in Python, "
            f"bitops.convert.from_torch takes the module, or this file and the layers that it "
            f"fills; or export the module by torch.onnx.export, and import that file"
        )
    if not name.endswith(_ENDINGS):
        raise ValueError(
            f"[import] the file must end in one of {', '.join(_ENDINGS)}, got {args.file}"
        )
    packed = _converted(args.file, name)
    if args.preprocessing is not None:
        packed.notes["preprocessing"] = args.preprocessing
    print(packed.summary())
    for key, note in packed.notes.items():
        print(f"{key}: {printable(note, encoding=sys.stdout.encoding)}")
    if args.check is not None:
        report = _compared(packed, args.file, args.check)
        print(report)
        if not report.ok:
            print("the model differs from its source and is not written", file=sys.stderr)
            return 1
    if args.output is not None:
        packed.save(args.output)
        print(f"wrote {printable(args.output)}, {args.output.stat().st_size:,} bytes")
    return 0


def _converted(path: Path, name: str) -> Packed:
    from .. import convert

    if name.endswith(_ONNX):
        return convert.from_onnx(path)
    if name.endswith(_LCE):
        return convert.from_lce(path)
    packed = convert.from_keras(path).freeze()
    packed.notes["source"] = f"Keras file {path.name}"
    return packed


def _compared(packed: Packed, path: Path, examples: Path) -> Report:
    from ..convert import check

    arrays = read_npz("import", examples)
    if "x" not in arrays:
        raise ValueError(f"[import] {examples} must hold an array x of examples")
    if "scores" in arrays:
        return check(packed, arrays["scores"], arrays["x"])
    found = f"array scores not found in {examples}; the file has: {', '.join(sorted(arrays))}"
    if path.name.lower().endswith(_KERAS):
        raise ValueError(f"[import] a file of Keras is compared with stored scores: {found}")
    try:
        return check(packed, path, arrays["x"])
    except ImportError as error:
        raise ImportError(f"[import] {found}. Without it: {error}") from None
