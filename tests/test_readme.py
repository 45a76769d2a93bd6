"""What README.md and the pages of docs/ show is what the package does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "bench").rglob("*.md")),
]
LANGUAGES = {"python", "sh", "text", "c", "cython"}  # only blocks of the first are run


def each(pages):
    ids = [str(page.relative_to(ROOT)) for page in pages]
    return pytest.mark.parametrize("page", pages, ids=ids)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page: words in small letters, joined by hyphens."""
    headings = re.findall(r"^#+ (.*)$", read(page), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


@each(PAGES)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    # One namespace a page, in order: a reader types the blocks into one session.
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "page"}
    for i, source in enumerate(blocks(page, "python"), 1):
        exec(compile(source, f"{page.name}, block {i}", "exec"), namespace)


def test_there_are_blocks_to_run():
    counts = {page.name: len(blocks(page, "python")) for page in PAGES}
    assert counts["README.md"] >= 3
    names = ("numpy", "layers", "training", "bring-your-network", "model-files", "limits")
    assert all(counts[f"{name}.md"] for name in names)


@each(PAGES + OTHERS)
def test_every_block_has_a_language(page):
    """One without, or with another, would be neither run nor named as not to be run."""
    fences = re.findall(r"^ *(?:```|~~~)(.*)$", read(page), flags=re.M)
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


@each(PAGES + OTHERS)
def test_lines_are_short(page):
    """But for the rows of tables, which cannot be wrapped, and addresses."""
    lines = read(page).splitlines()
    assert [x for x in lines if len(x) > 100 and not x.startswith("|") and "](" not in x] == []


@each(PAGES + OTHERS)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", read(page))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not leads_somewhere(page, link)] == []


def test_links_that_lead_nowhere_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# `a.py`: one, two_three\n", encoding="utf-8")
    assert leads_somewhere(page, "page.md") and leads_somewhere(page, "#apy-one-two_three")
    assert not leads_somewhere(page, "other.md")
    assert not leads_somewhere(page, "page.md#one")


def test_the_index_names_every_page():
    named = re.findall(r"\]\(([\w-]+\.md)\)", read(ROOT / "docs" / "index.md"))
    assert sorted(named) == sorted(p.name for p in PAGES if p.name not in ("README.md", "index.md"))


def test_the_index_names_every_example():
    named = re.findall(r"\]\(examples/(\w+\.py)\)", read(ROOT / "docs" / "index.md"))
    assert sorted(named) == sorted(p.name for p in (ROOT / "docs" / "examples").glob("*.py"))


def test_the_two_commands():
    """Each alone installs and runs, on one line; .ci/run looks for the second."""
    commands = [
        line for block in blocks(README, "sh") for line in block.splitlines() if " -m venv " in line
    ]
    first = "python3 -m venv .venv && .venv/bin/pip install"
    assert commands == [
        f"{first} '.[demo]' && .venv/bin/bitops demo",
        f"{first} '.[test]' && .venv/bin/python -m pytest -n auto",
    ]
