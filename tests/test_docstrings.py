"""The examples of all docstrings are run."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil

import pytest
from test_api_table import MODULES as PUBLIC
from test_api_table import public_names

import bitops
from bitops.layers import registry

LEFT_OUT = ["__main__", "_core"]
if importlib.util.find_spec("torch") is None:
    LEFT_OUT.append("torch_ops")
if importlib.util.find_spec("distributed") is None:
    LEFT_OUT.append("distributed")
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(bitops.__path__, "bitops.")
    if not module.name.endswith(tuple(LEFT_OUT))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, monkeypatch):
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))  # an example registers a class
    result = doctest.testmod(importlib.import_module(name), verbose=False)
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(name) for name in MODULES]
    assert sum(len(test.examples) for m in modules for test in finder.find(m)) > 30


@pytest.mark.parametrize("module", PUBLIC)
def test_every_function_and_class_has_an_example(module):
    """Those that need files of a user or a trained network show calls that are not run."""
    home = pytest.importorskip(module, exc_type=ImportError)
    things = {name: getattr(home, name) for name in public_names(home)}
    called = {n: t for n, t in things.items() if inspect.isclass(t) or inspect.isroutine(t)}
    assert [n for n, thing in called.items() if ">>> " not in (inspect.getdoc(thing) or "")] == []
