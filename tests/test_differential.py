"""The beginning of `differential.py`: random calls of all functions, against the reference."""

import functools
import types

import numpy as np
import pytest

import bitops as bo
from bitops import layers, reference
from differential import NAMES, OUTCOMES, Program, poisoned
from fuzz.calls import FUNCTIONS
from fuzz.packed_layers import KINDS

CALLS = 8000
# Names that compute nothing; Prepacked is what prepack returns.
OTHERS = {"Prepacked", "get_include", "get_num_threads", "set_num_threads", "show_config"}


def test_every_function_is_called():
    """A public function without a generator of calls, and without a reference, fails here."""
    public = {name for name in bo.__all__ if callable(getattr(bo, name))}
    assert public - OTHERS == {*FUNCTIONS, "BitArray"}
    modules = [name for name in bo.__all__ if isinstance(getattr(bo, name), types.ModuleType)]
    assert modules == ["isa"]
    assert {*reference.__all__} - {"sign"} <= {*FUNCTIONS}


def test_every_packed_layer_is_run():
    chains = {"Packed", "PackedConcat", "PackedMultiply", "PackedResidual"}
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


def wrong_element(call, *operands, **named):
    result = call(*operands, **named)
    result[..., -1:] += 1
    return result


def unset_element(call, *operands, out=None, **named):
    result = call(*operands, **named)
    made = np.empty(result.shape, result.dtype) if out is None else out
    made[..., :-1] = result[..., :-1]
    return made


def beside_out(call, *operands, **named):
    result = call(*operands, **named)
    if named.get("out") is not None and result.base is not None:
        result.base[-1] ^= 1
    return result


def changed_operand(call, a, w, **named):
    result = call(a, w, **named)
    if isinstance(a, np.ndarray) and a.flags.writeable:
        a[...] = 1
    return result


def other_dtype(call, *operands, out=None, **named):
    result = call(*operands, out=out, **named)
    return result if out is not None else result.astype(np.float64)


def answered(call, *operands, **named):
    try:
        return call(*operands, **named)
    except (TypeError, ValueError):
        return None


def refused(call, *operands, **named):
    if np.ndim(operands[0]) == 3:
        raise ValueError("[gemm] a must be a matrix")
    return call(*operands, **named)


@pytest.mark.parametrize(
    "fault",
    (wrong_element, unset_element, beside_out, changed_operand, other_dtype, answered, refused),
)
def test_faults_are_found(fault, program, monkeypatch):
    """What is looked for is found, in a few hundred calls of one function."""
    monkeypatch.setattr(bo, "gemm", functools.partial(fault, bo.gemm))
    with poisoned(), pytest.raises((AssertionError, ValueError, TypeError)):
        for number in range(0, 300 * len(NAMES), len(NAMES)):
            program.make(number, program.data(number))
