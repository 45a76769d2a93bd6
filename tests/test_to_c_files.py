"""What `to_c` and `bitops export` write as C: names, sizes, and what they refuse."""

import shutil
import subprocess

import numpy as np
import pytest
from c_program import COMPILER, FLAGS, needs_compiler, weights

from bitops import layers as L
from bitops.cli import main as cli
from bitops.convert import ConversionError, to_c
from commands import failure


@needs_compiler
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_the_bytes_of_constants_are_those_of_the_object(tmp_path, rng):
    packed = L.Packed(
        L.PackedConv2D(weights(rng, 40, 3, 3, 5), 0, np.arange(40) % 2 == 0, padding=1),
        L.PackedMaxPool2D(2, minimum=np.arange(40) % 3 == 0),
        L.PackedFlatten(),
        L.PackedDense(weights(rng, 6, 360), alpha=0.5, bias=0.25),
        input_shape=(6, 6, 5),
    )
    size = to_c(packed, tmp_path)
    made = tmp_path / "network.o"
    command = [COMPILER, "-std=c99", "-O0", "-c", str(tmp_path / "network.c"), "-o", str(made)]
    subprocess.run(command, check=True)
    symbols = subprocess.run(["nm", "-S", str(made)], capture_output=True, check=True, text=True)
    lines = [line.split() for line in symbols.stdout.splitlines()]
    constants = [int(line[1], 16) for line in lines if len(line) == 4 and line[2] in "rR"]
    assert size.rom == sum(constants)
    assert not [line for line in lines if line[-2] in "bBdDU"]  # no variables, and no libraries
    assert str(size) == f"{size.rom} B of ROM, {size.ram} B of RAM"
    assert str(size) in (tmp_path / "network.h").read_text()
    assert size.ram == 4 * (6 * 6 * 2 + 3 * 3 * 2)  # the flat row takes the place of the first


@needs_compiler
def test_other_names_and_new_folders(tmp_path, rng):
    folder = tmp_path / "firmware"
    packed = L.Packed(L.PackedDense(weights(rng, 3, 40)))
    to_c(packed, folder, name="digits")
    assert sorted(path.name for path in folder.iterdir()) == ["digits.c", "digits.h"]
    command = [COMPILER, *FLAGS, "-c", str(folder / "digits.c"), "-o", str(folder / "digits.o")]
    subprocess.run(command, check=True)
    before = (folder / "digits.c").read_bytes()
    to_c(packed, folder, name="digits")
    assert (folder / "digits.c").read_bytes() == before


def test_the_command_writes_it(tmp_path, rng, capsys):
    model, folder = tmp_path / "net.safetensors", tmp_path / "firmware"
    packed = L.Packed(L.PackedDense(weights(rng, 3, 40)))
    packed.save(model)
    argv = ["export", str(model), "-o", str(folder)]
    assert cli.main([*argv, "--name", "digits", "--takes", "bits"]) == 0
    size = to_c(packed, tmp_path, name="digits", takes="bits")
    assert f"wrote digits.h and digits.c in {folder}: {size}" in capsys.readouterr().out
    for name in ("digits.h", "digits.c"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert "--qonnx needs an output that ends in .onnx" in failure(capsys, *argv, "--qonnx")
    L.Packed(L.PackedSign(), input_shape=(40,)).save(model)
    assert "the last layer must give scores" in failure(capsys, *argv)


# Refusals


class Own(L.PackedReLU):
    """A layer that this package does not know."""


def conv(rng, **options):
    return L.PackedConv2D(weights(rng, 4, 1, 1, 4), 0, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rng: [Own()], r"layer 0\.Own has no form in C"),
        (
            lambda rng: [conv(rng), L.PackedResidual([Own()])],
            r"layer 1\.body\.0\.Own has no form in C",
        ),
        (lambda rng: [conv(rng)], "the last layer must give scores"),
        (lambda rng: [L.PackedFlatten()], "the last layer must give scores"),
        (
            lambda rng: [conv(rng), L.PackedConv2D(weights(rng, 4, 1, 1, 4), scale_input=True)],
            "its input must be numbers, of which it takes the signs, but bits flow",
        ),
        (lambda rng: [conv(rng), L.PackedPad2D(1)], "value must be .1 or -1 for bits, got 0"),
        (
            lambda rng: [conv(rng, padding=1, pad_value=1)],
            "pad_value must be 0 unless its input is bits, got 1",
        ),
        (
            lambda rng: [conv(rng), L.PackedConv2D(weights(rng, 4, 1, 1, 4), input_bits=2)],
            "must be codes of 2 bits, but bits flow",
        ),
        (
            lambda rng: [L.PackedReLU(), L.PackedConv2D(weights(rng, 4, 1, 1, 4), input_bits=2)],
            "must be codes of 2 bits, but other numbers flow",
        ),
    ],
)
def test_what_has_no_form_is_refused_by_name(make, message, tmp_path, rng):
    packed = L.Packed(make(rng), input_shape=(4, 4, 4))
    with pytest.raises(ConversionError, match=message):
        to_c(packed, tmp_path)
    assert not list(tmp_path.iterdir())


def test_arguments(tmp_path, rng):
    packed = L.Packed(L.PackedDense(weights(rng, 3, 40)))
    with pytest.raises(TypeError, match=r"\[to_c\] packed must be a Packed, got list"):
        to_c([], tmp_path)
    for name in ("", "a-b", "9", 3, 'x"\n'):
        with pytest.raises(ValueError, match="name must be letters, digits and _"):
            to_c(packed, tmp_path, name=name)
    with pytest.raises(ValueError, match="takes must be one of uint8, float32, bits, got 'int8'"):
        to_c(packed, tmp_path, takes="int8")
    with pytest.raises(ConversionError, match="size of the input must be known"):
        to_c(L.Packed(conv(rng)), tmp_path)
    with pytest.raises(FileNotFoundError):
        to_c(packed, tmp_path / "no" / "folder")
