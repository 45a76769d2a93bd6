"""How pages of the repository become those of the site.

api.md is the one list of public names, which the tests compare with the package. Here it becomes
a page for each name, with its docstring, and its tables become links to these pages.
"""

import importlib
import inspect
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bitops.cli.main import make_parser

Names = dict[str, list[str]]  # by full name: its members that are listed, as `BitArray.shape`
ROW = re.compile(r"^\| `((\w+(?:\.\w+)*)[^`]*)` \|", flags=re.M)
INDEXED = re.compile(r"^\|.*\]\(([\w-]+)\.md\) \|$", flags=re.M)  # a row of the index
ELSEWHERE = {"start", "how-it-works", "api", "checks", "releasing"}  # in other parts of the site
PARTS = ("start", "guide", "how-it-works", "API <api>", "gallery/index", "results", "project")
# Links that are named by the file that they lead to.
FILE_LINK = re.compile(r"\[[\w./-]+\.(?:md|py)\]\(([\w./-]+\.(?:md|rst)(?:#[\w-]+)?)\)")
# Modules that api.md only mentions; each has one page with all its names.
WHOLE = ("bitops.reference", "bitops.recipes", "bitops.benchmark")
SECTION = re.compile(r"^## `([\w.]+)`$", flags=re.M)


def public_names(text: str) -> Names:
    """What api.md lists: full names, each with the members that have rows of their own."""
    names: Names = {}
    _, *parts = SECTION.split(text)
    for module, section in zip(parts[::2], parts[1::2], strict=True):
        for _, name in ROW.findall(section):
            owner, _, member = name.partition(".")
            members = names.setdefault(f"{module}.{owner}", [])
            if member:
                members.append(member)
    return names


def page(full_name: str, members: list[str]) -> str:
    """The page of one name, as reStructuredText."""
    module, _, name = full_name.rpartition(".")
    thing = getattr(importlib.import_module(module), name)
    if inspect.ismodule(thing):
        return ""  # it has a section of its own
    options = f"\n   :members: {', '.join(members)}\n   :undoc-members:" if members else ""
    if inspect.isclass(thing):
        directive = "autoexception" if issubclass(thing, Exception) else "autoclass"
    else:
        directive = "autofunction" if inspect.isroutine(thing) else "autodata"
    title = f"{name}\n{'=' * len(name)}"
    return f"{title}\n\n.. currentmodule:: {module}\n\n.. {directive}:: {name}{options}\n"


def file_names(names: Iterable[str]) -> dict[str, str]:
    """The file of each name, without .rst; not all file systems tell card from Card."""
    counts = Counter(name.lower() for name in names)
    return {n: f"{n}-object" if counts[n.lower()] > 1 and n.islower() else n for n in names}


def contents(module: str, files: list[str]) -> str:
    """The page of a module: a list of the pages of its names."""
    listed = "\n".join(f"   {file}" for file in files)
    title = f"{module}\n{'=' * len(module)}"
    return f"{title}\n\n.. toctree::\n   :maxdepth: 1\n\n{listed}\n"


def whole_module(module: str) -> str:
    """The page of a module with all its names."""
    return f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n   :members:\n"


def commands() -> str:
    """The page of the command line: what --help says of each command."""
    parser = make_parser()
    helps = {"bitops": parser.format_help()}
    for action in parser._actions:
        if isinstance(action.choices, dict):
            helps |= {f"bitops {name}": sub.format_help() for name, sub in action.choices.items()}
    parts = ["Command line\n============\n\nWhat ``--help`` says of each command."]
    for name, text in helps.items():
        parts.append(f"{name}\n{'-' * len(name)}\n\n.. code-block:: text\n")
        parts.append("\n".join(f"   {line}".rstrip() for line in text.splitlines()))
    return "\n\n".join(parts) + "\n"


def write(table: Path, folder: Path) -> Names:
    """Write the pages, remove those of names that are gone, return the names that have one."""
    names = public_names(table.read_text(encoding="utf-8"))
    texts = {full_name: page(full_name, members) for full_name, members in names.items()}
    names = {full_name: members for full_name, members in names.items() if texts[full_name]}
    files = file_names(names)
    texts = {files[full_name]: texts[full_name] for full_name in names}
    by_module: dict[str, list[str]] = {}
    for full_name in names:
        by_module.setdefault(full_name.rpartition(".")[0], []).append(files[full_name])
    texts |= {module: contents(module, listed) for module, listed in by_module.items()}
    texts |= {module: whole_module(module) for module in WHOLE}
    texts["commands"] = commands()
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.rst"):
        if path.stem not in texts:
            path.unlink()
    for stem, text in texts.items():
        path = folder / f"{stem}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # else nothing to build
            path.write_text(text, encoding="utf-8")
    return names


def guide_pages(index: str) -> list[str]:
    """The pages that the index names and that stand in no other part of the site."""
    return [name for name in INDEXED.findall(index) if name not in ELSEWHERE]


def toctree(entries: Iterable[str]) -> str:
    """What puts pages below one in Markdown: no code host would show it as anything but code."""
    listed = "\n".join(entries)
    return f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def edit(docname: str, source: list[str]) -> None:
    """Give a page its links to others: to names, to examples, and by titles instead of files."""
    text = source[0]
    if docname == "docs/index":
        text += toctree(PARTS)
    if docname == "docs/guide":
        index = Path(__file__).with_name("index.md").read_text(encoding="utf-8")
        pages = [*guide_pages(index), "generated/commands"]
        text += "".join(f"   {name}\n" for name in pages)
    if docname == "docs/api":
        pieces = SECTION.split(text)
        for i in range(1, len(pieces), 2):
            module = pieces[i]
            pieces[i] = f"## `{module}`"
            pieces[i + 1] = ROW.sub(rf"| {{py:obj}}`\1 <{module}.\2>` |", pieces[i + 1])
        text = "".join(pieces)
        for module in WHOLE:
            text = text.replace(f"`{module}`", f"{{py:mod}}`{module}`")
        modules = [*SECTION.findall(source[0]), *WHOLE]
        text += toctree(f"generated/{module}" for module in modules)
    text = re.sub(r"\]\(((?:docs/)?)examples/(\w+)\.py\)", r"](\1gallery/\2.rst)", text)
    source[0] = FILE_LINK.sub(r"[](\1)", text)


class Arguments:
    """The arguments that the gallery runs an example with: a path, if it draws a picture to one."""

    def __call__(self, gallery_conf, script) -> list[str]:
        draws = script["src_file"].endswith("two_stage_search.py")
        return [str(Path(tempfile.gettempdir()) / "recall.png")] if draws else []

    def __repr__(self) -> str:  # compared with that of the last build
        return "Arguments()"


def connect(app, names: Names) -> None:
    """Let `pack` in a docstring lead to bitops.pack, if no other public name ends so."""
    full = [*names, *(f"{name}.{member}" for name, members in names.items() for member in members)]
    ends = {full_name: full_name.split(".")[-1] for full_name in full}
    counts = Counter(ends.values())
    by_end = {end: full_name for full_name, end in ends.items() if counts[end] == 1}

    def resolve(app, env, node, content):
        target = by_end.get(node.get("reftarget", "").split(".")[-1])
        if node.get("reftype") not in ("obj", "class", "func", "meth") or target is None:
            return None
        domain = env.domains["py"]
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)

    app.connect("missing-reference", resolve)
