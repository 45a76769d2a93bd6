"""Choosing kernels: bo.isa, BITOPS_ISA and the list of kernels."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import _core
from bitops import reference as ref
from conftest import ISAS, random_signs

AVAILABLE = bo.isa.available()
BEST_FIRST = ("amx", "avx512", "avx2", "neon", "generic")


def run_python(code, **environment):
    """Run code in a fresh interpreter with BITOPS_ISA unset, or as given."""
    env = {name: value for name, value in os.environ.items() if name != "BITOPS_ISA"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestAvailable:
    def test_names(self):
        assert isinstance(AVAILABLE, tuple)
        assert len(set(AVAILABLE)) == len(AVAILABLE)
        assert set(AVAILABLE) <= set(ISAS)
        assert AVAILABLE == tuple(name for name in BEST_FIRST if name in AVAILABLE)
        assert AVAILABLE[-1] == "generic"

    def test_it_agrees_with_the_kernel(self):
        """What Linux says the CPU has, and the operating system saves, is what we find."""
        try:
            with open("/proc/cpuinfo") as file:
                flags = set(next(line for line in file if line.startswith("flags")).split())
        except (OSError, StopIteration):
            pytest.skip("no flags in /proc/cpuinfo")
        avx512 = {f"avx512{name}" for name in ("f", "bw", "vl", "vbmi", "_vnni", "_vpopcntdq")}
        assert ("avx2" in AVAILABLE) == ("avx2" in flags)
        assert ("avx512" in AVAILABLE) == (avx512 <= flags)
        if "amx" in AVAILABLE:  # which a process has to ask for, and may be refused
            assert avx512 | {"amx_tile", "amx_int8", "gfni"} <= flags

    def test_the_best_is_the_default(self):
        result = run_python("import bitops as bo; print(bo.isa.active(), *bo.isa.available())")
        assert result.stdout.split() == [AVAILABLE[0], *AVAILABLE]


class TestUse:
    def test_context_manager(self, isa):
        outer = bo.isa.active()
        for name in AVAILABLE:
            with bo.isa.use(name):
                assert bo.isa.active() == name
                with bo.isa.use("generic"):
                    assert bo.isa.active() == "generic"
                assert bo.isa.active() == name
            assert bo.isa.active() == outer

    def test_it_restores_after_an_error(self):
        before = bo.isa.active()
        with pytest.raises(KeyError), bo.isa.use("generic"):
            raise KeyError
        assert bo.isa.active() == before

    def test_it_switches_at_once(self):
        before = bo.isa.active()
        try:
            for name in AVAILABLE:
                bo.isa.use(name)
                assert bo.isa.active() == name
        finally:
            bo.isa.use(before)
        assert bo.isa.active() == before

    @pytest.mark.parametrize("name", ("sse9", "", "AVX2 ", "generic\0", "\u00e9"))
    def test_unknown_name(self, name):
        before = bo.isa.active()
        with pytest.raises(ValueError, match=r"^\[isa\.use\] .*got") as info:
            bo.isa.use(name)
        assert all(known in str(info.value) for known in AVAILABLE)
        assert bo.isa.active() == before

    def test_known_but_not_on_this_machine(self):
        for name in set(ISAS) - set(AVAILABLE):
            with pytest.raises(ValueError, match=name):
                bo.isa.use(name)

    @pytest.mark.parametrize("name", (None, 3, b"generic", ["generic"]), ids=repr)
    def test_not_a_name(self, name):
        with pytest.raises(TypeError, match=r"^\[isa\.use\] "):
            bo.isa.use(name)


class TestEnvironment:
    @pytest.mark.parametrize("name", AVAILABLE)
    def test_it_forces_a_row(self, name):
        code = (
            "import bitops as bo, numpy as np;"
            "x = np.arange(30 * 70).reshape(30, 70) % 7 - 3;"
            "print(bo.isa.active(), bo.gemm(x, x).tolist())"
        )
        result = run_python(code, BITOPS_ISA=name)
        assert result.stderr == ""
        x = np.arange(30 * 70).reshape(30, 70) % 7 - 3
        assert result.stdout == f"{name} {ref.gemm(x, x).tolist()}\n"

    @pytest.mark.parametrize("name", ("sse9", "AVX2", "generic "))
    def test_unknown_name_fails_the_import(self, name):
        result = run_python("import bitops", BITOPS_ISA=name)
        assert result.returncode == 1
        message = result.stderr.strip().splitlines()[-1]
        assert "BITOPS_ISA" in message
        assert repr(name) in message
        assert all(known in message for known in AVAILABLE)

    def test_no_silent_fallback(self):
        for name in set(ISAS) - set(AVAILABLE):
            result = run_python("import bitops", BITOPS_ISA=name)
            assert result.returncode == 1
            assert name in result.stderr

    def test_empty_is_unset(self):
        result = run_python("import bitops as bo; print(bo.isa.active())", BITOPS_ISA="")
        assert result.stdout.strip() == AVAILABLE[0]


class TestKernels:
    def test_every_row_is_complete(self):
        """Every ISA of this machine has every operation of generic, once; it may have more."""
        kernels = list(_core.kernels())
        assert len(set(kernels)) == len(kernels)
        rows = {name: {op for op, isa in kernels if isa == name} for name in AVAILABLE}
        assert rows["generic"]
        if "amx" in AVAILABLE:
            assert rows["amx"] == rows["avx512"] | {"tiles_u8", "tile_rows"}
        for name in AVAILABLE:
            assert rows[name] >= rows["generic"]
        assert {isa for _, isa in kernels} <= set(ISAS)

    def test_the_forced_kernels_run(self, rng):
        """Equal results prove nothing about who computed them, but time does.

        The vector kernels are several times quicker than portable C. Were `use` to change only
        the name, all rows would take equally long.
        """
        vector = [name for name in AVAILABLE if name != "generic"]
        if not vector:
            pytest.skip("this CPU has only generic")
        a, w = bo.pack(random_signs(rng, 128, 4096)), bo.pack(random_signs(rng, 256, 4096))
        seconds = dict.fromkeys(AVAILABLE, np.inf)
        threads = bo.get_num_threads()
        bo.set_num_threads(1)
        try:
            for name in AVAILABLE * 5:
                with bo.isa.use(name):
                    start = time.perf_counter()
                    got = bo.gemm(a, w)
                    seconds[name] = min(seconds[name], time.perf_counter() - start)
                assert_array_equal(got[::37], ref.gemm(np.asarray(a)[::37], np.asarray(w)))
        finally:
            bo.set_num_threads(threads)
        for name in vector:
            assert seconds[name] < seconds["generic"] / 1.5, seconds


class TestShowConfig:
    def test_modes(self, capsys):
        config = bo.show_config("dicts")
        assert isinstance(config, dict)
        assert capsys.readouterr().out == ""
        assert bo.show_config() is None
        printed = capsys.readouterr().out
        assert bo.isa.active() in printed
        assert "openmp" in printed.lower()

    def test_bad_mode(self):
        with pytest.raises(ValueError, match=r"^\[show_config\] .*got"):
            bo.show_config("yaml")
