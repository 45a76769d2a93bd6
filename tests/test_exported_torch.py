"""Networks that the exporters of PyTorch write as ONNX: the scores of the module.

The newer exporter takes seconds for each network: BITOPS_EXPORTS says how many, 300 for a long run.
"""

import io
import os
import warnings

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("onnxscript", reason="PyTorch's exporters need onnxscript")

from random_torch import IMAGES, SIGNS, random_network  # noqa: E402
from torch_modules import assert_same_scores  # noqa: E402

from bitops.convert import from_onnx  # noqa: E402

# What an assignment to .data does is left out by both, without a word; an autograd Function that
# fills new memory is refused by one, and the other writes what happened to be in that memory.
TRACED = [form for form in SIGNS if form not in ("data", "in place")]
# A clamp with its gradient stopped becomes a file that names missing tensors, and a masked
# assignment becomes NonZero and ScatterND.
EXPORTED = [form for form in TRACED if form not in ("clip", "repaired")]


def exported(module, x, **settings):
    """Return the bytes of the ONNX file of a module."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.from_numpy(x),), file, **settings)
    return file.getvalue()


@pytest.mark.parametrize("decade", range(30))
def test_networks_of_the_exporter_that_traces(decade):
    axes = {"input": {0: "batch"}}
    for seed in range(10 * decade, 10 * decade + 10):
        module, x = random_network(seed, IMAGES, TRACED)
        file = exported(module, x, dynamo=False, input_names=["input"], dynamic_axes=axes)
        assert_same_scores(from_onnx(file), module, x)


@pytest.mark.parametrize("seed", range(int(os.environ.get("BITOPS_EXPORTS", "6"))))
def test_networks_of_the_newer_exporter(seed):
    """With a batch of a fixed size, and with an open one."""
    module, x = random_network(seed, IMAGES, EXPORTED)
    settings = {"dynamic_shapes": ({0: "batch"},)} if seed % 2 else {}
    file = exported(module, x, dynamo=True, verbose=False, **settings)
    assert_same_scores(from_onnx(file), module, x)
