"""Helpers of the tests of layers: signs, gradients by finite differences, equality on threads."""

import numpy as np
from numpy.testing import assert_array_equal

import bitops as bo


def signs(x):
    """+1 or -1 for every number of an array; +1 for 0."""
    return np.where(np.asarray(x) >= 0, 1, -1)


def numeric_gradient(loss, x, step=1e-2):
    """Central differences of a scalar function, one element at a time."""
    grad = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        grad[index] = (loss(up) - loss(down)) / (2 * step)
    return grad


def assert_gradients(layer, x, rng, atol=3e-3):
    """dx and the gradients of all parameters against finite differences."""
    dy = rng.normal(size=layer(x).shape).astype(np.float32)
    layer.forward(x, training=True)
    dx = layer.backward(dy)

    def loss(x):
        return float(np.sum(dy.astype(np.float64) * layer(x)))

    np.testing.assert_allclose(dx, numeric_gradient(loss, x), atol=atol)
    for parameter in layer.parameters():
        start = parameter.value.copy()

        def loss_of(value, parameter=parameter):
            parameter.assign(value)
            return loss(x)

        expected = numeric_gradient(loss_of, start)
        parameter.assign(start)
        np.testing.assert_allclose(parameter.grad, expected, atol=atol)


def assert_state_goes_back(layer, x, rng):
    """`restore` undoes what training has changed since `state`."""
    layer.forward(x, training=True)
    state, before = layer.state(), layer(x)
    for parameter in layer.parameters():
        parameter.assign(rng.normal(size=parameter.shape))
    layer.forward(3 * x, training=True)
    assert not np.array_equal(layer(x), before)
    layer.restore(state)
    np.testing.assert_array_equal(layer(x), before)


def real_images(rng, *shape):
    """Normal float32 numbers."""
    return rng.normal(size=shape).astype(np.float32)


def assert_same_on_threads(results, threads):
    """Check that arrays have the same values on one thread and on several."""
    before = bo.get_num_threads()
    try:
        bo.set_num_threads(1)
        one = results()
        bo.set_num_threads(threads)
        for mine, other in zip(results(), one, strict=True):
            assert_array_equal(mine, other)
    finally:
        bo.set_num_threads(before)
