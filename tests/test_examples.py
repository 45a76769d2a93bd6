"""Every example of the documentation runs, its assertions included."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
EXTRAS = {"serve_network.py": ("starlette", "uvicorn", "httptools", "prometheus_client")}


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path, tmp_path):
    for name in EXTRAS.get(path.name, ()):
        pytest.importorskip(name)
    argv = [sys.executable, "-W", "error", path]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
