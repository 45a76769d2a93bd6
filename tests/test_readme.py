"""What README.md and the pages of docs/ show is what the package does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"python", "sh", "text"}  # only blocks of the first are run
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    # One namespace a page, in order: a reader types the blocks into one session.
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "page"}
    for i, source in enumerate(blocks(page, "python"), 1):
        exec(compile(source, f"{page.name}, block {i}", "exec"), namespace)


def test_there_are_blocks_to_run():
    counts = {name: len(blocks(page, "python")) for name, page in zip(IDS, PAGES, strict=True)}
    assert counts["README.md"] >= 3
    pages = ("numpy", "layers", "training", "bring-your-network", "model-files", "limits")
    assert all(counts[f"docs/{name}.md"] for name in pages)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_block_has_a_language(page):
    """One without, or with another, would be neither run nor named as not to be run."""
    fences = re.findall(r"^ *(?:```|~~~)(.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_lines_are_short(page):
    """But for the rows of tables, which cannot be wrapped, and addresses."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [x for x in lines if len(x) > 100 and not x.startswith("|") and "](" not in x] == []


@pytest.mark.parametrize("page", PAGES[1:], ids=IDS[1:])
def test_links_of_the_docs_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([\w-]+\.md)\)", index)
    assert sorted(named) == sorted(p.name for p in PAGES if p.name not in ("README.md", "index.md"))


def test_the_two_commands():
    """Each alone installs and runs, on one line; .ci/run looks for the second."""
    commands = [
        line for block in blocks(README, "sh") for line in block.splitlines() if " -m venv " in line
    ]
    first = "python3 -m venv .venv && .venv/bin/pip install"
    assert commands == [
        f"{first} '.[demo]' && .venv/bin/bitops demo",
        f"{first} '.[test]' && .venv/bin/python -m pytest",
    ]
