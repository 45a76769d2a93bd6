"""Who imports whom: no cycles, and no arrow from a lower floor of the package to a higher one.

The graph is read from the sources. Imports within functions count, those for annotations alone
(`if TYPE_CHECKING`) do not, and neither does a package that Python loads because a module is in it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bitops

PACKAGE = Path(bitops.__file__).parent

# From the top. Of names without a dot: modules of the package, and folders with all they hold.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("recipes", "estimators", "distributed"),
    ("training", "convert", "zoo", "data", "models", "benchmark", "io", "torch_ops"),
    ("layers",),
    ("quantizers", "search"),
    ("reference", "config"),
    ("ops", "isa", "files"),
    ("_core",),
)

Graph = dict[str, set[str]]


def find_modules(package: Path) -> dict[str, Path]:
    """Files by the dotted names of modules within the package, which itself is ""."""
    found = {}
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):
        *folders, name = path.relative_to(package).with_suffix("").parts
        found[".".join(folders if name == "__init__" else [*folders, name])] = path
    return found


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker looks at."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for branch in node.orelse:
                yield branch
                yield from runtime_nodes(branch)
        else:
            yield node
            yield from runtime_nodes(node)


def imported(package: Path, module: str, path: Path) -> Iterator[str]:
    """Full dotted names that a module imports; a class or function counts as one."""
    home = [package.name, *filter(None, module.split("."))]
    if path.stem != "__init__":
        home.pop()
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            start = [*base, *filter(None, [node.module])]
            yield from (".".join([*start, alias.name]) for alias in node.names)


def import_graph(package: Path) -> Graph:
    """For each module those of the package that it imports."""
    modules = find_modules(package)
    graph: Graph = {module: set() for module in modules}
    for module, path in modules.items():
        for name in imported(package, module, path):
            top, *parts = name.split(".")
            if top != package.name:
                continue
            while ".".join(parts) not in modules:  # the name is one in a module
                parts.pop()
            graph[module].add(".".join(parts))
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """Modules that one imports, directly or not."""
    seen: set[str] = set()
    left = [start]
    while left:
        new = graph[left.pop()] - seen
        seen |= new
        left += new
    return seen


def cycles(graph: Graph) -> set[frozenset[str]]:
    """Groups of modules of which each leads to each."""
    reach = {module: reachable(graph, module) for module in graph}
    return {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }


def floor(module: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if module.split(".")[0] in rooms:
            return number
    raise AssertionError(f"no floor is known for {module}")


def upward(graph: Graph) -> set[tuple[str, str]]:
    """Imports that lead to a higher floor; the package itself, "", stands on none."""
    return {
        (module, target)
        for module, targets in graph.items()
        for target in targets
        if module and target and floor(target) < floor(module)
    }


def named_modules(package: Path) -> set[tuple[str, str]]:
    """Modules that are imported by a string, with those that do so."""
    found = set()
    for module, path in find_modules(package).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {
                "import_module",
                "__import__",
            }:
                name = node.args[0] if node.args else node.keywords[0].value
                constant = isinstance(name, ast.Constant)
                found.add((module, str(name.value) if constant else ast.unparse(name)))
    return found


def test_no_cycles():
    graph = import_graph(PACKAGE)
    # `a @ b` of BitArrays is computed by a function that takes BitArrays, imported by the operator.
    assert cycles(graph)
    graph["ops.array"].remove("ops.linalg")
    assert cycles(graph) == set()


def test_no_import_of_a_higher_floor():
    graph = import_graph(PACKAGE)
    assert len(graph) > 60 and sum(map(len, graph.values())) > 200
    assert upward(graph) == set()


def test_modules_imported_by_name():
    """A convenience, the rooms of the package as its attributes.

    One more is named where its absence is explained, the extension module.
    """
    assert named_modules(PACKAGE) == {("", "name"), ("", "f'{__name__}._core'")}


def test_only_fit_reaches_up_by_an_attribute_of_the_package():
    """`Sequential.fit` takes the trainer so, which layers may not import."""
    found = {
        (module, ast.unparse(node))
        for module, path in find_modules(PACKAGE).items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == PACKAGE.name
    }
    assert found == {("layers.container", "bitops.training")}


# ---- the functions above, on packages that are known ------------------------------------------


@pytest.fixture
def package(tmp_path):
    """A function that writes a package `house` from sources by file name."""

    def write(**sources):
        root = tmp_path / "house"
        for name, source in {"__init__": "", **sources}.items():
            path = root.joinpath(*name.split("__in__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return root

    return write


def test_ways_to_import_are_seen(package):
    root = package(
        __init__="from .files import write\nfrom . import isa",
        files="import os, house.isa",
        isa="",
        config="from . import __version__, isa as other\nfrom house.files import write",
        ops__in____init__="from .array import pack",
        ops__in__array="from .. import files, _core\nfrom ..config import x",
        ops__in__deep__in__er="from ... import isa\nfrom ...ops import array\nfrom .. import pack",
    )
    (root / "_core.pyi").write_text("def gemm(): ...")
    assert import_graph(root) == {
        "": {"files", "isa"},
        "_core": set(),
        "files": {"isa"},
        "isa": set(),
        "config": {"", "isa", "files"},
        "ops": {"ops.array"},
        "ops.array": {"files", "_core", "config"},
        "ops.deep.er": {"isa", "ops.array", "ops"},
    }


def test_annotations_do_not_count(package):
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from .training import fit\nelse:\n    from .files import write\n"
    )
    graph = import_graph(package(layers=source, training="from .layers import x", files=""))
    assert graph["layers"] == {"files"}
    assert cycles(graph) == upward(graph) == set()


def test_cycles_are_found(package):
    root = package(
        layers="def f():\n    from .training import fit",
        training="from .io import load",
        io="import house.layers",
        files="from . import isa",
        isa="class A:\n    def f(self):\n        from .files import write",
        config="from .files import write",
    )
    groups = {frozenset({"layers", "training", "io"}), frozenset({"files", "isa"})}
    assert cycles(import_graph(root)) == groups


def test_imports_of_higher_floors_are_found(package):
    root = package(
        layers__in____init__="",
        layers__in__container="def fit():\n    try:\n        from ..training.loop import fit\n"
        "    finally:\n        pass",
        training__in____init__="",
        training__in__loop="from ..layers.container import x\nfrom ..data import y",
        data="from .training import z",
    )
    assert upward(import_graph(root)) == {("layers.container", "training.loop")}
    with pytest.raises(AssertionError, match="no floor is known for attic"):
        upward(import_graph(package(attic="from .layers import x")))


def test_modules_imported_by_name_are_found(package):
    root = package(
        a="import importlib\ndef f():\n    return importlib.import_module('house.b')",
        b="from importlib import import_module\nimport_module(name='house.c')",
        c="__import__('house' + '.a')",
        d="'import_module'",
    )
    assert named_modules(root) == {("a", "house.b"), ("b", "house.c"), ("c", "'house' + '.a'")}
