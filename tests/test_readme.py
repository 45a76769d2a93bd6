"""What the README shows is what the package does."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.M | re.S)


def test_python_blocks_run(tmp_path, monkeypatch):
    # One namespace, in order: a reader types them into one session.
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    sources = blocks("python")
    assert len(sources) >= 2
    for source in sources:
        exec(compile(source, "README.md", "exec"), namespace)


def test_the_two_commands():
    """Each alone installs and runs, on one line; .ci/run looks for the second."""
    commands = [
        line for block in blocks("sh") for line in block.splitlines() if " -m venv " in line
    ]
    first = "python3 -m venv .venv && .venv/bin/pip install"
    assert commands == [
        f"{first} '.[demo]' && .venv/bin/bitops demo",
        f"{first} '.[test]' && .venv/bin/python -m pytest",
    ]
