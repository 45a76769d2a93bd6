"""The C kernels without Python: tests/emulated/kernels_test, compiled and run on this machine."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bitops as bo

BUILD = Path(__file__).parent / "emulated" / "build"
# -O1 compiles in a third of the time of -O3.
FLAGS = ("-O1", "-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def compiler():
    """The C compiler; $CC, which the script that compiles reads too."""
    name = shlex.split(os.environ.get("CC", "cc"))[0]
    if sys.platform == "win32":
        pytest.skip("compiled and run by `tests/emulated/run windows`")
    if not all(map(shutil.which, (name, "bash", "xargs"))):
        pytest.skip(f"needs bash, xargs and a C compiler ({name})")
    return name


@pytest.fixture(scope="module")
def overrun(compiler, tmp_path_factory):
    """A program with sanitizers that reads past an array; None if the compiler has none."""
    folder = tmp_path_factory.mktemp("sanitizers")
    source, path = folder / "overrun.c", folder / "overrun"
    source.write_text("int main(int n, char **v) { int a[2] = {0}; return (a + n)[1] + !v; }\n")
    command = [*shlex.split(os.environ.get("CC", "cc")), *SANITIZERS, str(source), "-o", str(path)]
    return None if subprocess.run(command, capture_output=True).returncode else str(path)


@pytest.fixture(scope="module")
def program(overrun, tmp_path_factory):
    """The compiled program, with sanitizers where there are any."""
    path = str(tmp_path_factory.mktemp("kernels") / "kernels_test")
    command = [str(BUILD), path, *FLAGS]
    environment = dict(os.environ)
    if overrun:
        command += SANITIZERS
        others = {"amx", "avx512", "avx2", "neon"} - set(bo.isa.available())
        environment["UNCHECKED"] = " ".join(others)
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return path


def test_sanitizers_find_an_overrun(overrun, compiler):
    """So the tests below also find those of the kernels, and undefined behaviour."""
    if overrun is None:
        pytest.skip(f"{compiler} cannot link AddressSanitizer and UBSan")
    result = subprocess.run([overrun], capture_output=True, text=True)
    assert result.returncode != 0
    assert "runtime error" in result.stderr or "AddressSanitizer" in result.stderr


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
