"""docs/api.md lists every public name, with the arguments that it has."""

import importlib
import inspect
import re
from enum import Enum
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "api.md"

# Each has a section of the page. A name that one of them takes from another is listed there only.
MODULES = (
    "bitops",
    "bitops.isa",
    "bitops.layers",
    "bitops.search",
    "bitops.quantizers",
    "bitops.models",
    "bitops.io",
    "bitops.convert",
    "bitops.training",
    "bitops.data",
    "bitops.estimators",
    "bitops.distributed",
    "bitops.zoo",
)
# Classes whose methods are listed too.
WITH_METHODS = {
    "bitops": ("BitArray",),
    "bitops.estimators": ("BinaryNetClassifier", "BitNeighbors"),
    "bitops.layers": ("Layer", "TrainingLayer", "Parameter", "Sequential", "Packed"),
    "bitops.search": ("BitIndex",),
    "bitops.training": ("Callback",),
}
# Classes that programs are given and do not call: their arguments are not listed.
NOT_CALLED = {
    "BitArray",
    "Card",
    "ConversionError",
    "Epoch",
    "GradientReport",
    "History",
    "Report",
    "Run",
    "Summary",
}

Rows = dict[str, str]  # by name: the name as it is called


def public_names(module) -> list[str]:
    """What a module offers: its `__all__`, or what it defines."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not _is_from_another(module, name)]
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__
    ]


def _is_from_another(module, name: str) -> bool:
    home = getattr(getattr(module, name), "__module__", None)
    return home in MODULES and home != module.__name__


def public_methods(cls: type, public: set[type]) -> list[str]:
    """What a class adds to its public bases, inherited from private ones or its own."""
    known = {name for base in cls.__mro__[1:] if base in public for name in dir(base)}
    bases = [base for base in cls.__mro__ if base is cls or base not in public | {object}]
    bases = [base for base in bases if not base.__module__.startswith("sklearn")]
    found = dict.fromkeys(name for base in bases for name in vars(base))
    added = re.compile(r"_|set_\w+_request")  # the latter by scikit-learn
    return [name for name in found if not added.match(name) and name not in known]


def as_called(name: str, thing) -> str:
    """A name with its arguments; what is not called stands alone."""
    is_class = inspect.isclass(thing)
    if name in NOT_CALLED or not (is_class or inspect.isroutine(thing)):
        return name
    if is_class and (issubclass(thing, Enum) or getattr(thing, "_is_protocol", False)):
        return name
    parameters = list(inspect.signature(thing).parameters.values())
    if "." in name and not is_class and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    texts = []
    for i, parameter in enumerate(parameters):
        is_first = not any(p.kind is p.KEYWORD_ONLY for p in parameters[:i])
        if parameter.kind is parameter.KEYWORD_ONLY and is_first:
            if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
                texts.append("*")
        texts.append(_parameter(parameter))
    return f"{name}({', '.join(texts)})"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = parameter.default
    if default is parameter.empty:
        return f"{stars}{parameter.name}"
    value = default.__name__ if callable(default) else repr(default)
    if repr(default) == "<factory>":  # of a dataclass: made anew for each object
        value = "..."
    return f"{parameter.name}={value}"


def expected_rows(module_name: str) -> Rows:
    """What the section of a module must list."""
    module = importlib.import_module(module_name)
    things = {name: getattr(module, name) for name in public_names(module)}
    rows = {name: as_called(name, thing) for name, thing in things.items()}
    public = {thing for thing in things.values() if inspect.isclass(thing)}
    for cls in WITH_METHODS.get(module_name, ()):
        for method in public_methods(things[cls], public):
            dotted = f"{cls}.{method}"
            rows[dotted] = as_called(dotted, getattr(things[cls], method))
    return rows


def listed_rows(text: str) -> dict[str, Rows]:
    """What a page lists, section by section."""
    sections: dict[str, Rows] = {}
    for line in text.splitlines():
        if heading := re.match(r"## `([\w.]+)`$", line):
            rows = sections.setdefault(heading[1], {})
        elif row := re.match(r"\| `([^`]+)` \| \S", line):
            name = row[1].partition("(")[0]
            assert name not in rows, f"{name} is listed twice"
            rows[name] = row[1]
    return sections


def differences(listed: Rows, expected: Rows) -> list[str]:
    """What is wrong with a section, in words."""
    wrong = [f"missing: {expected[name]}" for name in expected if name not in listed]
    wrong += [f"no such name: {listed[name]}" for name in listed if name not in expected]
    wrong += [
        f"listed as {listed[name]}, is {expected[name]}"
        for name in listed
        if name in expected and listed[name] != expected[name]
    ]
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_the_page_lists_what_there_is(module):
    assert differences(listed_rows(PAGE.read_text())[module], expected_rows(module)) == []


def test_the_page_has_no_other_sections():
    assert list(listed_rows(PAGE.read_text())) == list(MODULES)


TEXT = """
## `bitops.losses`

| function | what it does |
| --- | --- |
| `mean(x, axis=None)` | Takes the mean. |
| `hinge(scores, *, margin=1.0)` | Computes the hinge loss. |
"""
ROWS = {"mean": "mean(x, axis=None)", "hinge": "hinge(scores, *, margin=1.0)"}


def test_rows_are_found():
    assert listed_rows(TEXT) == {"bitops.losses": ROWS}


def test_a_missing_row_is_found():
    assert differences(ROWS, {**ROWS, "more": "more(x)"}) == ["missing: more(x)"]


def test_an_extra_row_is_found():
    less = {"mean": ROWS["mean"]}
    assert differences(ROWS, less) == ["no such name: hinge(scores, *, margin=1.0)"]


def test_a_row_that_is_listed_twice_is_found():
    with pytest.raises(AssertionError, match="mean is listed twice"):
        listed_rows(f"{TEXT}| `mean(x)` | Takes the mean again. |\n")


@pytest.mark.parametrize(
    "changed",
    (
        "hinge(score, *, margin=1.0)",  # a name
        "hinge(scores, margin=1.0)",  # its kind
        "hinge(scores, *, margin=2.0)",  # a default
        "hinge(scores, *, margin)",
        "hinge(scores)",
        "hinge",
    ),
)
def test_a_changed_argument_is_found(changed):
    expected = {**ROWS, "hinge": changed}
    assert differences(ROWS, expected) == [f"listed as {ROWS['hinge']}, is {changed}"]


def test_how_calls_are_written():
    def function(a, b=None, *rest, c, d=1e-4, e="x", **more): ...

    def keywords(a, *, b=int, c=function): ...

    class Thing:
        here = 1

        def __init__(self, size, *, seed=None): ...
        def method(self, x): ...

        @classmethod
        def of(cls, x): ...

        @property
        def part(self): ...

    for name, thing, text in (
        ("function", function, "function(a, b=None, *rest, c, d=0.0001, e='x', **more)"),
        ("keywords", keywords, "keywords(a, *, b=int, c=function)"),
        ("Thing", Thing, "Thing(size, *, seed=None)"),
        ("Thing.method", Thing.method, "Thing.method(x)"),
        ("Thing.of", Thing.of, "Thing.of(x)"),
        ("Thing.part", Thing.part, "Thing.part"),
        ("Thing.here", Thing.here, "Thing.here"),
    ):
        assert as_called(name, thing) == text


def test_methods_are_those_that_a_class_adds():
    class Base:
        def base(self): ...

    class Private(Base):
        def shared(self): ...

    class Shown(Private):
        def own(self): ...
        def base(self): ...
        def _hidden(self): ...

    assert sorted(public_methods(Shown, {Base, Shown})) == ["own", "shared"]
    assert sorted(public_methods(Shown, {Shown})) == ["base", "own", "shared"]
