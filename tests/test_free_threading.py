"""Interpreters without a GIL: importing bitops leaves it off, and threads may share objects."""

import os
import subprocess
import sys
import sysconfig

import pytest

import races
from bitops import _core

FREE_THREADED = sysconfig.get_config_var("Py_GIL_DISABLED") == 1


def run_program(code):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    program = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.skipif(not FREE_THREADED, reason="this interpreter always has a GIL")
def test_no_module_of_ours_switches_the_gil_on():
    """CPython would warn, which is an error here, and say yes."""
    code = """if True:
        import importlib, pkgutil, sys
        import bitops
        for module in pkgutil.walk_packages(bitops.__path__, "bitops."):
            if module.name.endswith("__main__"):
                continue
            try:
                importlib.import_module(module.name)
            except ImportError as error:  # an extra that is not installed
                missing = error.__cause__ or error
                if not missing.name or missing.name.startswith("bitops"):
                    raise
        print(sys._is_gil_enabled(), len([name for name in sys.modules if "bitops." in name]))
    """
    enabled, count = run_program(code)
    assert enabled == "False" and int(count) > 100


def test_threads_import_modules_at_the_same_time():
    """Each begins with another one, and they import each other."""
    code = """if True:
        import sys, threading
        sys.setswitchinterval(1e-6)
        start, got = threading.Barrier(8), []

        def work(number):
            start.wait()
            import bitops
            names = sorted(bitops._LAZY)
            for i in range(len(names)):
                name = names[(i + 2 * number) % len(names)]
                if name != "estimators":  # which needs an extra
                    assert getattr(bitops, name).__name__ == "bitops." + name
            got.append(bitops.gemm([[1, -1]], [[1, 1]]).item())

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(got)
    """
    assert "".join(run_program(code)) == str([0] * 8).replace(" ", "")


def test_threads_import_a_package_and_a_module_in_it():
    """One is slow to load `bitops.data`, while the other needs `bitops.data.datasets`."""
    code = """if True:
        import importlib.machinery, sys, threading, time
        import bitops
        bitops.training  # so that the other thread gets there soon
        loading = threading.Event()

        class SlowLoader(importlib.machinery.SourceFileLoader):
            def create_module(self, spec):
                loading.set()
                time.sleep(0.5)

        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "bitops.data":
                    spec = importlib.machinery.PathFinder.find_spec(name, path)
                    spec.loader = SlowLoader(name, spec.origin)
                    return spec

        sys.meta_path.insert(0, Finder)
        assert "bitops.data" not in sys.modules
        slow = threading.Thread(target=lambda: print(bitops.data.__name__))
        slow.start()
        assert loading.wait(60)
        print(bitops.recipes.__name__)
        slow.join()
    """
    assert sorted(run_program(code)) == ["bitops.data", "bitops.recipes"]


@pytest.mark.skipif(
    not FREE_THREADED or sys.version_info >= (3, 14),
    reason="only CPython 3.13t counts no reference at all; later versions those outside of calls",
)
def test_threads_do_not_contend_for_counters_of_functions():
    """Each call looks up a function of the native module."""
    before = sys.getrefcount(_core.usual_product)
    held = [_core.usual_product] * 1000
    assert sys.getrefcount(held[0]) == before


@pytest.mark.parametrize("name", races.SCENARIOS)
def test_threads_share_objects(name):
    """What each of them gets is what it would get alone."""
    assert races.run(name, threads=6, least=2) >= 2
