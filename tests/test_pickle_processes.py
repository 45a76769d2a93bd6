"""Pickles between processes: other ISAs, every way to start a child, joblib and cloudpickle."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import bitops as bo

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
GUARD = 300  # seconds; a hang is a failure


def run(script, *arguments, **environment):
    """Run a script, which children can import, in an interpreter of its own."""
    paths = [str(Path(__file__).parent), *sys.path]
    settings = {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "error", str(script), *map(str, arguments)],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=GUARD,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def check(folder, code, *arguments, **environment):
    script = folder / "script.py"
    script.write_text(code)
    return run(script, *arguments, **environment)


# ---- other ISAs ----------------------------------------------------------------------------

WRITE = """
import pickle, sys
import bitops as bo
from pickled import LAYERS, VALUES, use

assert bo.isa.active() == sys.argv[1]
things = {}
for name, (make, x) in LAYERS.items():
    layer = make()
    use(layer, x)  # with caches of this ISA
    things[name] = pickle.dumps(layer), use(layer, x)
for name, (make, what) in VALUES.items():
    value = make()
    things[f"value {name}"] = pickle.dumps(value), what(value)
with open(sys.argv[2], "wb") as file:
    pickle.dump(things, file)
"""

READ = """
import pickle, sys
import bitops as bo
from pickled import LAYERS, VALUES, same, use

assert bo.isa.active() == sys.argv[1]
with open(sys.argv[2], "rb") as file:
    things = pickle.load(file)
for name, (data, results) in things.items():
    thing = pickle.loads(data)
    made = VALUES[name[6:]][1](thing) if name[:6] == "value " else use(thing, LAYERS[name][1])
    assert same(made, results), name
print(len(things))
"""


@pytest.fixture(scope="module")
def pickles(tmp_path_factory):
    """The file that each ISA writes, by its name."""
    folder = tmp_path_factory.mktemp("pickles")
    files = {isa: folder / isa for isa in bo.isa.available()}
    for isa, path in files.items():
        check(folder, WRITE, isa, path, BITOPS_ISA=isa)
    return files


@pytest.mark.parametrize("writer", bo.isa.available())
@pytest.mark.parametrize("reader", bo.isa.available())
def test_what_one_isa_pickles_another_reads(pickles, tmp_path, writer, reader):
    assert int(check(tmp_path, READ, reader, pickles[writer], BITOPS_ISA=reader)) > 60


def test_all_isas_pickle_the_same_bytes(pickles):
    """So that nothing in a pickle can be of one machine."""
    read = [pickle.loads(path.read_bytes()) for path in pickles.values()]
    for name in read[0]:
        assert len({things[name][0] for things in read}) == 1, name


def test_a_packed_model_needs_no_training_code(tmp_path):
    code = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    packed = pickle.load(file)
packed.predict([[0.0] * 70])
assert "bitops.training" not in sys.modules
print(packed.in_features, "bitops.layers" in sys.modules)
"""
    path = tmp_path / "packed"
    path.write_bytes(pickle.dumps(bo.models.mlp(70, 16, 1, 3, seed=0).freeze()))
    assert check(tmp_path, code, path) == "70 True\n"


# ---- children ------------------------------------------------------------------------------

DATA = """
import copy, multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import bitops as bo
from pickled import IMAGES, network, real, same

x = real(60, 9, 8, 6)
y = np.arange(60) % 5
parts = np.array_split(x, 4)

def trained(model):
    model.fit(x, y, epochs=2, batch_size=20, seed=1, verbose=0)
    return model

def used():
    bo.set_num_threads(2)
    model = trained(network())
    model.predict(x)
    packed = model.freeze()
    return model, packed, packed.predict(x)
"""

CHILDREN = (
    DATA
    + """
def child(queue, packed):
    queue.put(packed.predict(x))

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    context = multiprocessing.get_context(sys.argv[1])
    model, packed, want = used()
    with context.Pool(2) as pool:
        for predict in (packed.predict, model.predict):
            assert same(np.concatenate(pool.map(predict, parts)), want)
        back = pool.map(trained, [model, copy.deepcopy(model)])
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert same(np.concatenate(list(executor.map(packed.predict, parts))), want)
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, packed))
    process.start()
    assert same(queue.get(timeout=200), want)
    process.join()
    before = model.state()
    trained(model)
    assert not same(model.state(), before)
    for other in back:
        assert same(other.state(), model.state())
    print("the same")
"""
)


@pytest.mark.parametrize(
    "method",
    (pytest.param("fork", marks=needs_fork), "spawn", pytest.param("forkserver", marks=needs_fork)),
)
def test_children_predict_and_train(tmp_path, method):
    assert check(tmp_path, CHILDREN, method) == "the same\n"


JOBLIB = (
    DATA
    + """
from joblib import Parallel, delayed, dump, hash, load

if __name__ == "__main__":
    model, packed, want = used()
    # arrays of more than 100 bytes reach the workers as read-only maps of files
    with Parallel(n_jobs=2, max_nbytes=100) as parallel:
        for predict in (packed.predict, model.predict):
            assert same(np.concatenate(parallel(delayed(predict)(part) for part in parts)), want)
        back = parallel(delayed(trained)(model) for _ in range(2))
    folder = sys.argv[1]
    for name, thing in (("packed", packed), ("model", model)):
        dump(thing, f"{folder}/{name}")
        for mode in (None, "r", "c"):
            other = load(f"{folder}/{name}", mmap_mode=mode)
            assert same(other.predict(x), want)
    for fresh in (network(), network().freeze()):  # what joblib.Memory looks results up by
        before = hash(fresh)
        fresh.predict(x)
        fresh.summary()
        assert hash(fresh) == before == hash(copy.deepcopy(fresh))
    mapped = load(f"{folder}/model", mmap_mode="r")
    trained(mapped)
    trained(model)
    for other in (mapped, *back):
        assert same(other.state(), model.state())
    print("the same")
"""
)


def test_joblib(tmp_path):
    pytest.importorskip("joblib", reason="joblib is not installed")
    assert check(tmp_path, JOBLIB, tmp_path) == "the same\n"


CLOUDPICKLE = (
    DATA
    + """
import cloudpickle

@bo.io.register
class Halved(bo.layers.Layer):
    '''A class that no other program can import.'''

    ARRAYS = (bo.io.ArraySpec("share", "float32", 1), bo.io.ArraySpec("off", "bool", 1))

    def __init__(self, share, off):
        self.share, self.off = np.array(share, np.float32), np.array(off, np.bool_)

    def forward(self, x):
        return np.where(self.off, 0, np.asarray(x) * self.share)

model, packed, _ = used()
own = bo.layers.Packed(Halved(np.full(6, 0.5), np.arange(6) > 4), *packed.layers)
things = [(own, x, own.outputs(x)), (model, x, model.outputs(x))]
things.append((lambda x: own.predict(x), x, own.predict(x)))
with open(sys.argv[1], "wb") as file:
    cloudpickle.dump(things, file)
"""
)

READ_FUNCTIONS = """
import pickle, sys
from pickled import same

with open(sys.argv[1], "rb") as file:
    (own, x, want), (model, _, outputs), (predict, _, labels) = pickle.load(file)
assert same(own.outputs(x), want) and same(model.outputs(x), outputs) and same(predict(x), labels)
print(type(own.layers[0]).__module__)
"""


def test_cloudpickle(tmp_path):
    """Classes and functions of a script or notebook, which travel with the objects."""
    pytest.importorskip("cloudpickle", reason="cloudpickle is not installed")
    path = tmp_path / "things"
    check(tmp_path, CLOUDPICKLE, path)
    assert check(tmp_path, READ_FUNCTIONS, path) == "__main__\n"


BESIDE = (
    DATA
    + """
import pickle, threading

model = network()
done = threading.Event()
def keep_training():
    while not done.is_set():
        trained(model)
thread = threading.Thread(target=keep_training)
thread.start()
try:
    for _ in range(100):
        twin = pickle.loads(pickle.dumps(model))
        assert np.isfinite(twin.outputs(IMAGES)).all()
finally:
    done.set()
    thread.join()
print("whole")
"""
)


def test_pickles_of_a_model_that_another_thread_trains(tmp_path):
    assert check(tmp_path, BESIDE) == "whole\n"
