"""The package that is imported is a whole one."""

import re
import subprocess
import sys
from pathlib import Path

import bitops
from bitops import _core

ROOT = Path(__file__).parents[1]
PACKAGE = Path(bitops.__file__).parent


def test_imported_package_is_not_the_native_folder():
    """The folder bitops/ of C sources must never win, whatever stands first on sys.path."""
    assert not (ROOT / "bitops" / "__init__.py").exists()
    assert Path(_core.__file__).parent == PACKAGE
    code = "import bitops; print(bitops.__file__)"
    argv = [sys.executable, "-c", code]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(result.stdout.strip()).parent == PACKAGE


def test_package_content():
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_core.pyi").is_file()
    assert not [p.name for p in PACKAGE.rglob("*") if p.suffix in {".c", ".h", ".inc", ".pyx"}]


def test_version_is_that_of_the_metadata():
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.*)"$', text, flags=re.M).group(1) == bitops.__version__


def test_inference_does_not_load_training_code():
    unwanted = (
        "bitops.train bitops.callbacks bitops.checkpoint bitops.optim bitops.losses bitops.demo "
        "sklearn tqdm threadpoolctl matplotlib"
    )
    code = (
        "import sys, bitops, bitops.io, bitops.layers;"
        f"print(sorted(set('{unwanted}'.split()) & set(sys.modules)))"
    )
    argv = [sys.executable, "-c", code]
    result = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
