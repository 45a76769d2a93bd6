import math

import numpy as np
import pytest

from bitops.layers import Parameter
from bitops.optim import Adam, ExponentialDecay


def adam_in_float64(w, grads, lr, scale, clip):
    """The published update, straight from its equations."""
    m = v = np.zeros_like(w)
    for t, g in enumerate(grads, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        rate = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - scale * rate * m / (np.sqrt(v) + 1e-8)
        if clip is not None:
            w = np.clip(w, -clip, clip)
    return w


@pytest.mark.parametrize("shape", [(1,), (3, 5), (70000,)])  # the last takes several blocks
@pytest.mark.parametrize(("scale", "clip"), [(1.0, None), (8.5, 1.0)])
def test_steps_match_the_equations(shape, scale, clip):
    rng = np.random.default_rng(1)
    start = rng.uniform(-1, 1, shape)
    grads = [rng.normal(size=shape) for _ in range(4)]
    parameter = Parameter(start, clip_value=clip, lr_scale=scale)
    optimizer = Adam([parameter], lr=0.01)
    for grad in grads:
        parameter.grad[...] = grad
        optimizer.step()
    expected = adam_in_float64(start, grads, 0.01, scale, clip)
    np.testing.assert_allclose(parameter.value, expected, atol=2e-5)
    if clip is not None:
        assert np.abs(parameter.value).max() <= clip


def test_first_step_by_hand():
    parameter = Parameter([0.5, -0.5])
    parameter.grad[...] = [3.0, -0.001]
    Adam([parameter], lr=0.125).step()
    np.testing.assert_allclose(parameter.value, [0.375, -0.375], atol=1e-4)


def test_step_marks_the_parameter_as_changed_and_keeps_the_gradient():
    parameter = Parameter(np.zeros(3))
    parameter.grad[...] = [1, 2, 3]
    version = parameter.version
    Adam([parameter]).step()
    assert parameter.version > version
    np.testing.assert_array_equal(parameter.grad, [1, 2, 3])


def test_adam_finds_a_minimum():
    parameter = Parameter([5.0, -3.0])
    optimizer = Adam([parameter], lr=0.1)
    for _ in range(500):
        parameter.grad[...] = 2 * (parameter.value - np.array([1.0, 2.0], dtype=np.float32))
        optimizer.step()
    np.testing.assert_allclose(parameter.value, [1, 2], atol=1e-3)


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"lr": math.nan}, {"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0}]
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match=r"^\[Adam\]"):
        Adam([], **options)


def test_exponential_decay():
    schedule = ExponentialDecay(1e-2, 1e-4)
    assert schedule(0, 10) == pytest.approx(1e-2)
    assert schedule(5, 10) == pytest.approx(1e-3)
    assert schedule(10, 10) == pytest.approx(1e-4)
    ratios = [schedule(e + 1, 10) / schedule(e, 10) for e in range(10)]
    assert ratios == pytest.approx([ratios[0]] * 10)
    with pytest.raises(ValueError, match=r"\[ExponentialDecay\]"):
        ExponentialDecay(1e-3, 0)
