"""The C kernels without Python: tests/emulated/kernels_test.c, compiled and run on this machine."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bitops as bo

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "bitops" / "_kernels"
PROGRAM = ROOT / "tests" / "emulated" / "kernels_test.c"
# -O1 compiles in a third of the time of -O3; setup.py says why no fused multiply-add.
FLAGS = ("-std=c11", "-O1", "-ffp-contract=off", "-fno-math-errno")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled program."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if sys.platform == "win32" or not shutil.which(compiler[0]):
        pytest.skip(f"needs mmap and a C compiler, {compiler[0]} is not here")
    path = tmp_path_factory.mktemp("kernels") / "kernels_test"
    sources = (PROGRAM, *sorted(KERNELS.glob("*.c")))
    command = [*compiler, *FLAGS, f"-I{KERNELS}", *map(str, sources), "-lm", "-o", str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return str(path)


def test_every_isa_equals_generic(program):
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    equal = {line.split(":")[0] for line in result.stdout.splitlines() if "equal generic" in line}
    assert equal == set(bo.isa.available())


def test_it_says_which_isa_was_chosen(program):
    for name in bo.isa.available()[1:]:
        result = subprocess.run([program, name], capture_output=True, text=True)
        assert result.returncode == 1
        assert result.stdout == f"dispatch chose {bo.isa.available()[0]}, not {name}\n"
