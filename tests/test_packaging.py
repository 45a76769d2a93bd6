"""The package that is imported is a whole one."""

import ast
import importlib.metadata
import importlib.util
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import bitops
from bitops import _core, io
from bitops.models import mlp

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
    assert (PACKAGE / "_core.pxd").is_file()
    sources = {".c", ".h", ".inc", ".pyx", ".pxi"}
    found = [path.name for path in PACKAGE.rglob("*") if path.suffix in sources]
    assert found == ["bitops_api.h"]


def test_version_is_that_of_the_metadata():
    """It stands in bitops.config, whatever the distribution is called."""
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", bitops.__version__)
    (name,) = set(importlib.metadata.packages_distributions()["bitops"])
    assert importlib.metadata.version(name) == bitops.__version__
    text = (ROOT / "pyproject.toml").read_text()
    assert "\nversion = { attr =" in text and bitops.__version__ not in text


def test_nobody_is_sent_to_the_package_index_for_bitops():
    """Another project has this name there: pages install a folder or a file."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/**/*.md")]
    found = re.compile(r"pip install\s+(-\S+\s+)*['\"]?bitops\b")
    files = [*pages, *PACKAGE.rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    assert pages and [file.name for file in files if found.search(file.read_text("utf-8"))] == []
    for text in ("pip install bitops", "pip install -U 'bitops[onnx]'"):
        assert found.search(text)


def test_inference_does_not_load_training_code():
    rooms = ("bitops.training", "bitops.recipes", "bitops.data", "bitops.cli", "bitops.models")
    foreign = ("sklearn", "tqdm", "threadpoolctl", "matplotlib")
    code = (
        "import sys, bitops, bitops.io, bitops.layers;"
        f"print([name for name in sys.modules if name.startswith({rooms + foreign})])"
    )
    argv = [sys.executable, "-c", code]
    result = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_training_names_what_it_offers_and_loads_little():
    foreign = ("sklearn", "matplotlib", "PIL", "scipy")
    code = (
        "import sys, bitops.training as t;"
        "missing = [name for name in t.__all__ if not hasattr(t, name)];"
        f"print(len(t.__all__), missing, [n for n in sys.modules if n.startswith({foreign})])"
    )
    argv = [sys.executable, "-c", code]
    result = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[1-9]\d+ \[\] \[\]", result.stdout.strip())


def test_import_opens_no_connection():
    """Of the package with every module of it, training code too."""
    code = (
        "import importlib, pkgutil, re, socket, sys\n"
        "def refuse(event, arguments):\n"
        "    if event == 'socket.gethostname' and sys.platform == 'win32':\n"
        "        return\n"  # NumPy asks for the processor there, and with it comes the name
        "    if event.startswith('socket.') and event != 'socket.__new__':\n"
        "        raise RuntimeError(event)\n"
        "sys.addaudithook(refuse)\n"
        "try:\n"
        "    socket.getaddrinfo('localhost', 80)\n"
        "except RuntimeError:\n"
        "    print('refused')\n"
        "import bitops\n"
        "names = [m.name for m in pkgutil.walk_packages(bitops.__path__, 'bitops.')]\n"
        "for name in names:\n"
        # PyTorch and Dask may not be there; the latter asks for its host
        "    if not re.search(r'\\b(__main__|torch_ops|distributed)\\b', name):\n"
        "        importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    argv = [sys.executable, "-c", code]
    result = subprocess.run(argv, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    refused, count = result.stdout.split()
    assert refused == "refused" and int(count) > 20


def _unsafe(tree):
    """Names in a module by which a file could run code: imports, calls, arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            yield from (n for n in names if n.split(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            yield from {name} & {"eval", "exec", "__import__"}
            function = ast.unparse(node.func)
            if function in {"np.load", "yaml.load"}:
                yield function
            if function == "torch.load" and not _loads_weights_only(node):
                yield function
            yield from (k.arg for k in node.keywords if k.arg == "allow_pickle")


def _loads_weights_only(call):
    """Whether a call of torch.load says so by a constant: it runs nothing of the file then."""
    values = [k.value for k in call.keywords if k.arg == "weights_only"]
    return any(isinstance(value, ast.Constant) and value.value is True for value in values)


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_MODULES |= {"urllib", "http", "requests", "socket", "ftplib"}


def test_no_module_reads_pickles_or_the_network():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if names := list(_unsafe(ast.parse(path.read_text()))):
            found[path.name] = names
    assert not found
    source = "import pickle\nnp.load(f, allow_pickle=True)\neval(x)"
    assert set(_unsafe(ast.parse(source))) == {"pickle", "np.load", "allow_pickle", "eval"}
    for settings in ("", ", weights_only=False", ", weights_only=1", ", weights_only=w", ", **w"):
        assert list(_unsafe(ast.parse(f"torch.load(f{settings})"))) == ["torch.load"]
    assert not list(_unsafe(ast.parse("torch.load(f, map_location='cpu', weights_only=True)")))


class Planted:
    """What would leave a file behind if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ("pickle", "npy", "npz"))
def test_pickled_payloads_are_refused(tmp_path, suffix):
    sign = tmp_path / "executed"
    path = tmp_path / f"model.{suffix}"
    objects = np.array([Planted(sign)], object)
    if suffix == "pickle":
        path.write_bytes(pickle.dumps(Planted(sign)))
    elif suffix == "npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, weight=objects)
    with pytest.raises(ValueError, match=r"^\[load\] .* must be a packed bitops model"):
        io.load(path)
    x, y = np.zeros((8, 4), np.uint8), np.arange(8) % 2
    with pytest.raises(ValueError, match=r"^\[fit\] resume must be a checkpoint"):
        mlp(4, 8, 1, 2, seed=0).fit(x, y, epochs=1, verbose=0, resume=path)
    assert not sign.exists()
    pickle.loads(pickle.dumps(Planted(sign)))
    assert sign.exists()  # the payload is a live one


def test_tested_versions_of_python_have_wheels():
    text = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', text)
    wheels = re.findall(r"cp3(\d+)-\*", text)
    assert named
    assert set(named) <= set(wheels)
    assert re.search(r'^requires-python = ">=3\.(\d+)"$', text, flags=re.M).group(1) == wheels[0]


LAZY = ["benchmark", "convert", "data", "distributed", "estimators", "io", "layers", "models"]
LAZY += ["quantizers", "recipes", "reference", "search", "training", "zoo"]


def test_lazy_modules_load_at_their_first_use():
    has_dask = importlib.util.find_spec("distributed") is not None
    lazy = [name for name in LAZY if name != "distributed" or has_dask]
    code = (
        f"import sys, bitops as bo; lazy = {lazy}\n"
        "assert not [name for name in lazy if 'bitops.' + name in sys.modules]\n"
        "assert set(lazy) <= set(dir(bo))\n"
        "for name in lazy:\n"
        "    assert getattr(bo, name) is sys.modules['bitops.' + name]\n"
        "assert bo.layers.folding.freeze is bo.layers.freeze\n"
        "try:\n"
        "    bo.nonsense\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    argv = [sys.executable, "-c", code]
    result = subprocess.run(argv, capture_output=True, text=True)
    assert result.stdout.strip() == "module 'bitops' has no attribute 'nonsense'", result.stderr


def test_type_checkers_know_the_lazy_modules():
    tree = ast.parse(Path(bitops.__file__).read_text())
    (hidden,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(hidden.test) == "TYPE_CHECKING"
    assert [alias.asname for node in hidden.body for alias in node.names] == LAZY


def test_the_import_loads_functions_only():
    """Neither layers nor SciPy, and of the standard library nothing slow."""
    code = "import sys, numpy; before = set(sys.modules); import bitops; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(result.stdout.split())
    own = {name.split(".")[1] for name in loaded if name.startswith("bitops.")}
    assert own == {"_core", "config", "isa", "ops"}, result.stderr
    assert not loaded & {"scipy", "safetensors", "concurrent.futures", "multiprocessing"}


def test_an_import_from_a_zip_file_says_what_is_missing(tmp_path):
    """An extension module cannot come from a zip file; Python would speak of a circular import."""
    with zipfile.ZipFile(tmp_path / "bitops.zip", "w") as archive:
        for path in PACKAGE.rglob("*.py"):
            archive.write(path, Path("bitops") / path.relative_to(PACKAGE))
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'bitops.zip')!r}); import bitops"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"ImportError: \[bitops\] the extension module .*, got: No module named", last)
