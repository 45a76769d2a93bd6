"""What is cheap to check of the documentation site, without building it (see CONTRIBUTING.md)."""

import importlib
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from test_api_table import MODULES, expected_rows

import bitops

DOCS = Path(__file__).parents[1] / "docs"
DRAWINGS = DOCS / "drawings"


def load(monkeypatch, folder: Path, name: str):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__(name)


@pytest.fixture
def site_pages(monkeypatch):
    return load(monkeypatch, DOCS, "site_pages")


@pytest.fixture
def draw(monkeypatch):
    return load(monkeypatch, DRAWINGS, "draw")


@pytest.fixture
def written(site_pages, tmp_path):
    """The names that have pages, and the folder of these; it takes all extras to import them."""
    for module in MODULES:
        pytest.importorskip(module, exc_type=ImportError)
    return site_pages.write(DOCS / "api.md", tmp_path), tmp_path


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_entry(site_pages, module):
    pytest.importorskip(module, exc_type=ImportError)
    names = site_pages.public_names(read("api.md"))
    rows = [name.partition(".") for name in expected_rows(module)]
    missing = [f"{module}.{owner}" for owner, _, _ in rows if f"{module}.{owner}" not in names]
    assert missing == []
    assert [m for owner, _, m in rows if m and m not in names[f"{module}.{owner}"]] == []


def test_every_module_of_public_names_has_pages(site_pages):
    modules = {f"bitops.{name}" for name in bitops._LAZY}
    assert modules <= {*MODULES, *site_pages.WHOLE}
    for module in site_pages.WHOLE:
        for name in importlib.import_module(module).__all__:
            thing = getattr(importlib.import_module(module), name)
            assert not callable(thing) or thing.__doc__, f"{module}.{name} would not be listed"


def test_pages_document_what_they_are_named_after(site_pages, written):
    names, folder = written
    assert len(names) > 200
    files = site_pages.file_names(names)
    assert len({file.lower() for file in files.values()}) == len(names)
    for name in names:
        text = (folder / f"{files[name]}.rst").read_text(encoding="utf-8")
        module, _, last = name.rpartition(".")
        assert f".. currentmodule:: {module}\n" in text
        assert re.search(rf"^\.\. auto\w+:: {last}$", text, flags=re.M)
    assert ":members: from_words," in (folder / "bitops.BitArray.rst").read_text()
    assert "bitops.gemm\n" in (folder / "bitops.rst").read_text()


def test_pages_of_names_that_are_gone_are_removed(site_pages, written):
    _, folder = written
    gone = folder / "bitops.gone.rst"
    gone.write_text("gone")
    site_pages.write(DOCS / "api.md", folder)
    assert not gone.exists() and (folder / "bitops.gemm.rst").exists()


def test_every_page_is_in_the_site(site_pages):
    listed = site_pages.guide_pages(read("index.md"))
    listed += [part.removeprefix("API <").removesuffix(">") for part in site_pages.PARTS]
    for page in ("results.rst", "project.rst"):
        listed += re.findall(r"^   ([\w./-]+)$", read(page), flags=re.M)
    pages = [page.stem for page in DOCS.glob("*.md") if page.stem != "index"]
    assert sorted(set(pages) - set(listed)) == []
    assert len(listed) == len(set(listed))
    others = [DOCS / f"{name}.md" for name in listed if name.startswith("..")]
    assert others and all(page.exists() for page in others)


def test_every_command_is_on_the_page_of_the_command_line(site_pages):
    text = site_pages.commands()
    for command in ("train", "predict", "import", "index", "zoo"):
        assert f"\nbitops {command}\n-----" in text and f"   usage: bitops {command} " in text


def test_every_example_has_a_title():
    for path in (DOCS / "examples").glob("*.py"):
        title, line = path.read_text(encoding="utf-8").removeprefix('"""').splitlines()[:2]
        assert line == "=" * len(title), f"{path.name}: the gallery wants a title"


def test_links_lead_to_pages_of_the_site(site_pages):
    source = ["[a](examples/convolution.py), [numpy.md](numpy.md), [x.md](../x.md#a-b), [it](y.md)"]
    site_pages.edit("docs/search", source)
    assert source == ["[a](gallery/convolution.rst), [](numpy.md), [](../x.md#a-b), [it](y.md)"]


def test_tables_of_names_lead_to_their_pages(site_pages):
    source = ["# Names\n\n## `bitops`\n\n| `pack(x, axis=-1)` | Packs. |\n| `isa` | A module. |\n"]
    site_pages.edit("docs/api", source)
    assert "| {py:obj}`pack(x, axis=-1) <bitops.pack>` | Packs. |" in source[0]
    assert "generated/bitops\n" in source[0] and "generated/bitops.reference\n" in source[0]


def test_drawings_are_those_of_the_script(draw):
    files = draw.files()
    assert {path.name: path.read_text() for path in DRAWINGS.glob("*.svg")} == files
    shown = re.findall(r"\]\(drawings/([\w-]+\.svg)\)", read("how-it-works.md"))
    assert sorted([*shown, "thumbnail.svg"]) == sorted(files)


def test_drawings_are_well_formed_and_nothing_leaves_them(draw):
    for name, text in draw.files().items():
        root = ElementTree.fromstring(text)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        assert root.find("{*}title").text, name
        for shape in root.iter("{http://www.w3.org/2000/svg}rect"):
            x, y = float(shape.get("x", 0)), float(shape.get("y", 0))
            assert 0 <= x and x + float(shape.get("width")) <= width, name
            assert 0 <= y and y + float(shape.get("height")) <= height, name
        for words in root.iter("{http://www.w3.org/2000/svg}text"):
            size = 7.5 if "note" in words.get("class", "") else 8.5  # no letter is wider
            length = size * len(words.text)
            shift = {"start": 0, "middle": length / 2, "end": length}[words.get("text-anchor")]
            x, y = float(words.get("x")) - shift, float(words.get("y"))
            assert 0 <= x and x + length <= width and 0 < y < height, (name, words.text)
