"""The beginning of `differential.py`: random calls of all functions, against the reference."""

import types

import pytest

import bitops as bo
from bitops import layers, reference
from differential import NAMES, OUTCOMES, Program, poisoned
from fuzz.calls import FUNCTIONS
from fuzz.packed_layers import KINDS

CALLS = 6000
# Names that compute nothing, and the class whose methods are those of tests/fuzz/bit_arrays.py.
OTHERS = {"BitArray", "Prepacked", "get_num_threads", "set_num_threads", "show_config"}


def test_every_function_is_called():
    """A public function without a generator of calls, and without a reference, fails here."""
    public = {name for name in bo.__all__ if callable(getattr(bo, name))}
    assert public == {*FUNCTIONS, *OTHERS}
    modules = [name for name in bo.__all__ if isinstance(getattr(bo, name), types.ModuleType)]
    assert modules == ["isa"]
    assert {*reference.__all__} - {"sign"} <= {*FUNCTIONS}


def test_every_packed_layer_is_run():
    chains = {"Packed", "PackedResidual"}
    names = {name for name in layers.__all__ if name.startswith(("Packed", "Float"))}
    assert names - chains == {*KINDS}


@pytest.fixture
def program():
    """All ISAs, one and two threads."""
    isa, threads = bo.isa.active(), bo.get_num_threads()
    yield Program(0, bo.isa.available(), (1, 2))
    bo.isa.use(isa)
    bo.set_num_threads(threads)


def test_random_calls(program):
    with poisoned():
        for number in range(CALLS):
            try:
                program.make(number, program.data(number))
            except BaseException:
                print(f"again: python tests/differential.py --call {number}")
                raise
    print(program.table())
    for name in NAMES:  # none is always refused
        assert all(program.counts[name][outcome] for outcome in OUTCOMES[:2]), name
