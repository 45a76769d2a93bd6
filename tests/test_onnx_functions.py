"""ONNX models with local functions: put in place of their calls, refused where that has no end."""

import numpy as np
import pytest

from bitops.convert import ConversionError, from_onnx

onnx = pytest.importorskip("onnx", reason="needs onnx")

from onnx import helper  # noqa: E402
from random_onnx import Network  # noqa: E402

DOMAIN = "own"


def model_with(rng, functions):
    """A model whose first node is a call of `first`; functions are names and their calls."""
    net = Network(rng, (20,))
    net.then("MatMul", net.signs(20, 3))
    model = net.model()
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    for name, called in functions.items():
        steps = [f"x{i}" for i in range(len(called) + 1)]
        body = [
            helper.make_node(call, [a], [b], domain=DOMAIN if call in functions else "")
            for call, a, b in zip(called, steps, steps[1:], strict=False)
        ]
        made = helper.make_function(DOMAIN, name, [steps[0]], [steps[-1]], body, imports)
        model.functions.append(made)
    node = model.graph.node[0]
    call = helper.make_node("first", [node.input[0]], ["called"], domain=DOMAIN)
    node.input[0] = "called"
    model.graph.node.insert(0, call)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def test_functions_stand_for_their_nodes(rng):
    model = model_with(rng, {"first": ["second", "Relu"], "second": ["Neg", "Neg"]})
    x = rng.integers(-9, 9, (5, 20)).astype(np.float32)
    packed = from_onnx(model.SerializeToString())
    w = onnx.numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(np.asarray(packed(x)), np.maximum(x, 0) @ w)


@pytest.mark.parametrize(
    "functions",
    [
        {"first": ["first"]},
        {"first": ["second"], "second": ["Relu", "third"], "third": ["second"]},
        {"first": ["Relu"], "second": ["second"]},  # not called by the graph
    ],
)
def test_functions_that_call_themselves_are_refused(rng, functions):
    model = model_with(rng, functions)
    with pytest.raises(ConversionError, match=r"^\[from_onnx\] .* must not call themselves"):
        from_onnx(model.SerializeToString())


def test_calls_in_subgraphs_count(rng):
    model = model_with(rng, {"first": ["If"]})
    inner = helper.make_node("first", ["x0"], ["y"], domain=DOMAIN)
    graph = helper.make_graph([inner], "branch", [], [])
    for name in ("then_branch", "else_branch"):
        model.functions[0].node[0].attribute.append(helper.make_attribute(name, graph))
    with pytest.raises(ConversionError, match="must not call themselves"):
        from_onnx(model.SerializeToString())


def test_functions_that_stand_for_far_more_nodes_are_refused(rng):
    names = ["first", *(f"f{i}" for i in range(40))]
    functions = {a: [b, b] for a, b in zip(names, [*names[1:], "Relu"], strict=True)}
    model = model_with(rng, functions)
    with pytest.raises(ConversionError, match="must stand for at most 1,000,000 nodes"):
        from_onnx(model.SerializeToString())
