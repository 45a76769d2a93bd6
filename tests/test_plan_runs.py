"""Plans of packed models at work: copies, threads, ISAs, errors, memory, batches."""

import copy
import pickle
import threading

import numpy as np
import pytest
from plans import BYTES, REAL, assert_plan, assert_same, layer_by_layer, planned, trained

import bitops as bo
from bitops import models
from bitops.layers import (
    FloatDense,
    Layer,
    Packed,
    PackedBatchNorm,
    PackedConv2D,
    PackedDense,
    PackedFlatten,
    PackedMaxPool2D,
    PackedReLU,
    PackedResidual,
    PackedSign,
    batches,
)
from bitops.layers.inputs import as_float
from bitops.ops.plan import Program, SpareMemory, Value


class PackedGain(Layer):
    """A layer without steps."""

    def __init__(self, gain):
        self.gain = np.float32(gain)

    def forward(self, x):
        return as_float(x) * self.gain


def test_layers_without_steps_run_between_plans(rng):
    k = 64
    layers = [
        PackedDense(rng.normal(size=(k, k)), np.float32(0)),
        PackedDense(rng.normal(size=(k, k)), alpha=1.5),
        PackedGain(-2),
        PackedSign(),
        PackedDense(rng.normal(size=(k, k))),
    ]
    assert_plan(Packed(layers), BYTES(rng, 3, k), [2, 5])
    inner = PackedResidual([PackedSign(), PackedGain(2)])
    assert_plan(
        Packed(
            layers[:2],
        ),
        BYTES(rng, 3, k),
        [2],
    )
    assert_plan(Packed([*layers, inner, PackedSign()]), BYTES(rng, 3, k))


class Louder(PackedDense):
    def forward(self, x):
        return super().forward(x) + 1


def test_a_forward_of_ones_own_is_called(rng):
    w = rng.normal(size=(5, 9))
    x = BYTES(rng, 4, 9)
    np.testing.assert_array_equal(Packed(Louder(w))(x), Packed(PackedDense(w))(x) + 1)
    layer = PackedDense(w)
    layer.forward = lambda x: "own"
    assert Packed(layer)(x) == "own"


def test_changed_models_are_compiled_anew(rng):
    w, x = rng.normal(size=(2, 9, 9)), BYTES(rng, 4, 9)
    model = Packed(PackedDense(w[0], np.float32(3)), PackedDense(w[1]))
    assert_plan(model, x, [2])
    model.layers[1] = PackedDense(w[0], bias=1.0)
    assert_plan(model, x)
    model.layers.append(PackedReLU())
    assert_plan(model, x)
    del model.layers[1:]
    assert_plan(model, x)
    before = model(x)
    model.layers[0].threshold = np.full(9, 1000, np.float32)
    assert_plan(model, x)
    assert model(x) != before
    model = Packed(PackedResidual(PackedDense(w[0])))
    real = REAL(rng, 4, 9)
    assert_plan(model, real, [1])
    model.layers[0].body.layers.append(PackedReLU())
    assert_plan(model, real)


def test_copies_make_plans_of_their_own(rng):
    model = Packed(PackedDense(rng.normal(size=(5, 9)), np.float32(3)))
    x = BYTES(rng, 4, 9)
    expected = model(x)
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert planned(other) == [] and planned(model) == [1]
        assert_plan(other, x, [1])
    other = copy.copy(model)
    other.layers = [*model.layers, PackedDense(np.ones((2, 5)))]
    for _ in range(2):
        assert model(x) == expected
        assert_plan(other, x)


def test_the_isa_may_change(rng):
    model = trained(models.mlp(70, 65, 2, seed=0), rng).freeze()
    x = BYTES(rng, 3, 70)
    expected = model(x)
    for name in (*bo.isa.available(), *bo.isa.available()):
        with bo.isa.use(name):
            assert_same(model(x), expected)
    assert_same(model(x), expected)


@pytest.mark.parametrize("n", [1, 40])
def test_threads_share_a_model(n, rng):
    model = trained(models.binarynet((16, 16, 3), width=0.3, seed=0), rng).freeze()
    inputs = [BYTES(rng, n, 16, 16, 3) for _ in range(4)]
    expected = [layer_by_layer(model.layers, x) for x in inputs]
    wrong = []

    def run(i):
        for _ in range(20):
            if model(inputs[i]).tobytes() != expected[i].tobytes():
                wrong.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nan_is_refused_as_without_plans(rng):
    w = rng.normal(size=(5, 9))
    x = REAL(rng, 4, 9)
    x[2, 3] = np.nan
    for model in (
        Packed(PackedBatchNorm(np.ones(9), np.ones(9)), PackedSign(), PackedDense(w)),
        Packed(PackedDense(w, np.float32(1)), PackedDense(np.ones((2, 5)))),
    ):
        with pytest.raises(ValueError, match="must not hold NaN"):
            layer_by_layer(model.layers, x)
        with pytest.raises(ValueError, match="must not hold NaN"):
            model(x)
    assert_plan(Packed(PackedBatchNorm(np.ones(9), np.ones(9)), PackedReLU()), x)


def test_errors_in_blas_end_a_plan(rng):
    """BLAS is called through NumPy, whose warnings a program may turn into errors."""
    w = rng.normal(size=(4, 9)).astype(np.float32)
    model = Packed(PackedReLU(), FloatDense(w), PackedReLU(), PackedSign())
    x = np.full((20, 9), np.float32(3e38))
    before = model(x[:7] * 0)
    with np.errstate(over="raise", invalid="raise"):
        with pytest.raises(FloatingPointError):
            layer_by_layer(model.layers, x)
        with pytest.raises(FloatingPointError):
            model(x)
    assert_same(model(x[:7] * 0), before)


def test_nan_in_a_pool_stays(rng):
    x = np.repeat(REAL(rng, 2, 7, 7, 3), 2, axis=0)
    x[1, 3, 3, 1], x[0, 0, 0, 0], x[3] = np.nan, -np.inf, -0.0
    for pool in (PackedMaxPool2D(2), PackedMaxPool2D(3, 2, 1), PackedMaxPool2D(3, 1)):
        assert_plan(Packed(PackedReLU(), pool), x, [2])
        assert_plan(Packed(pool), x)


def test_inputs_that_do_not_fit_are_refused_as_without_plans(rng):
    dense = Packed(
        PackedDense(rng.normal(size=(5, 9)), np.float32(1)), PackedDense(np.ones((2, 5)))
    )
    codes = Packed(PackedDense(rng.normal(size=(5, 9)), input_bits=2))
    conv = Packed(PackedConv2D(rng.normal(size=(5, 3, 3, 2))))
    for model, x in (
        (dense, BYTES(rng, 4, 8)),
        (dense, BYTES(rng, 9)),
        (codes, np.full((2, 9), 4, np.uint8)),
        (codes, REAL(rng, 2, 9)),
        (conv, BYTES(rng, 2, 2, 3, 2)),
        (conv, BYTES(rng, 5, 5, 2)),
    ):
        with pytest.raises((ValueError, TypeError)) as expected:
            layer_by_layer(model.layers, x)
        with pytest.raises(type(expected.value)) as got:
            model(x)
        assert str(got.value) == str(expected.value)


def test_inputs_are_neither_changed_nor_kept(rng):
    model = Packed(PackedFlatten(), PackedReLU(), PackedFlatten())
    x = REAL(rng, 2, 3, 4, 5)
    before = x.copy()
    y = model(x)
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)
    x.setflags(write=False)
    assert_same(model(x), y)


def test_values_share_memory_when_they_are_not_needed_at_a_time():
    """A chain needs room for two activations, and a residual block for one more."""
    scale = np.ones(16, np.float32)
    program = Program(Value("float32", (1, 16)))
    x = program.affine(program.input, scale, None)
    for _ in range(10):
        x = program.affine(x, scale, None)
    assert program.compile(x, SpareMemory()).arena_bytes == 2 * 64
    for _ in range(3):
        x = program.add(program.affine(program.affine(x, scale, None), scale, None), x)
    assert program.compile(x, SpareMemory()).arena_bytes == 3 * 64


def test_plans_kept_are_limited(rng):
    model = Packed(PackedDense(rng.normal(size=(5, 9)), np.float32(1)))
    for n in range(1, 150):
        assert_plan(model, BYTES(rng, n, 9))
    assert len(model._plans._kept.runs) <= 64


def test_batches_run_in_plans(rng, monkeypatch):
    """`predict` runs layers with large activations on few rows, the others on all."""
    monkeypatch.setattr(batches, "BYTES", 8 * 8 * 64 * 4 * 10)  # ten images
    model = trained(models.binarynet((8, 8, 3), width=0.5, seed=0), rng).freeze()
    x = BYTES(rng, 31, 8, 8, 3)
    expected = layer_by_layer(model.layers, x)
    assert_same(model.outputs(x), expected)
    keys = [key for key, run in model._plans._kept.runs.items() if run is not None]
    assert {key[3][0] for key in keys} == {7, 8, 31}
    assert_same(model.outputs(x, batch_size=20), expected)
    assert model.outputs(x[:0]).shape == (0, 10)
