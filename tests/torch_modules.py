"""Modules of PyTorch, and their scores beside those of the packed network."""

import warnings

import numpy as np
import torch
from torch import nn

from bitops.convert import from_torch


def own_layout(x):
    """Images NCHW, or sequences NCL, as the network takes them."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def run(module, x):
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)).numpy()


def converted(module, x, **settings):
    """Return the packed network of a module, without the warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return from_torch(module, input_shape=own_layout(x).shape[1:], **settings).freeze()


def assert_same_scores(packed, module, x):
    wanted = run(module, x)
    scores = np.asarray(packed(own_layout(x)))
    assert scores.shape == wanted.shape
    np.testing.assert_array_equal(scores.argmax(axis=1), wanted.argmax(axis=1))
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    if scores.dtype.kind == "i":
        np.testing.assert_array_equal(scores, wanted)


class Of(nn.Module):
    """A module of a function and parts."""

    def __init__(self, function, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def start_norms(module, rng):
    """Give every BatchNorm statistics and parameters, some of them negative."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.copy_(torch.from_numpy(rng.normal(0, 1, part.num_features)))
            part.running_var.copy_(torch.from_numpy(rng.uniform(0.5, 9, part.num_features)))
            if part.affine:
                part.weight.data.normal_()
                part.bias.data.normal_()
    return module
