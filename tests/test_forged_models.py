"""Damaged, foreign and forged model files are refused by an error that names the file."""

import numpy as np
import pytest
import safetensors.numpy

from bitops.io import load
from bitops.layers import (
    Packed,
    PackedConv2D,
    PackedDense,
    PackedPlanesDense,
    PackedReLU,
    PackedResidual,
)
from bitops.layers.model_files import MAX_DEPTH
from forgery import graph_of, rewrite


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coefficients", [1]),
        ("coefficients", [1, 0]),
        ("coefficients", [1, 2.0]),
        ("coefficients", 3),
        ("coefficients", None),
        ("coefficients", [1, 10**20]),
        ("input_bits", "2"),
    ],
)
def test_forged_planes_are_refused(path, name, value):
    Packed(PackedPlanesDense(np.ones((2, 3, 4)), (1, 2), input_bits=2)).save(path)
    graph = graph_of(path)
    graph[0]["settings"][name] = value
    rewrite(path, graph=graph)
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


def test_truncated_files_are_refused(path):
    Packed(PackedResidual(PackedDense(np.ones((5, 5))))).save(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"^\[load\] .*model\.safetensors"):
            load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


def test_damaged_files_are_refused(path):
    """Any changed byte is noticed, unless it is white space of the header."""
    model = Packed(PackedDense(np.ones((3, 70)), 0, [True, False, True]))
    model.save(path)
    whole = path.read_bytes()
    x = np.ones((1, 70), np.uint8)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            survivor = load(path)
        except ValueError as error:
            assert str(error).startswith("[load]")
        else:
            assert whole[position : position + 1] == b" "
            assert survivor(x) == model(x)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + b"\0" * 100, b"\xff" * 64, b"{}" * 50]
)
def test_foreign_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


def test_foreign_safetensors_are_refused(path):
    safetensors.numpy.save_file({"w": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match="metadata bitops must be JSON, got ''"):
        load(path)
    Packed(PackedDense(np.ones((3, 5)))).save(path)
    for version in (5, 0, True, "1", None, [2]):
        rewrite(path, version=version)
        with pytest.raises(ValueError, match="version must be 1 to 4, got "):
            load(path)
    rewrite(path, format="other", version=2)
    with pytest.raises(ValueError, match=r"format must be bitops\.packed"):
        load(path)
    Packed(PackedDense(np.ones((3, 5)))).save(path)
    rewrite(path, sha256="0" * 64)
    with pytest.raises(ValueError, match="sha256"):
        load(path)


SPEC = {
    "type": "PackedDense",
    "fields": {"weight": [3, 70], "threshold": [3], "flip": [3]},
    "settings": {"input_bits": None},
}
WORDS = np.zeros((3, 2), np.uint64)
TENSORS = [
    {"0.weight": WORDS.view(np.int64)},
    {"0.weight": WORDS.view(np.float64)},
    {"0.weight": WORDS[:2]},
    {"0.weight": WORDS.reshape(-1)},
    {"0.weight": WORDS + np.uint64(1 << 6)},  # a padding bit in each word 1
    {"0.weight": None},
    {"0.threshold": np.zeros(3, np.int64)},
    {"0.threshold": np.full(3, np.nan, np.float32)},
    {"0.threshold": np.zeros((3, 1), np.int32)},
    {"0.flip": np.array([8], np.uint64)},
    {"0.flip": np.zeros(3, np.bool_)},
    {"1.weight": WORDS},
]


def fields(**change):
    return {"graph": [{**SPEC, "fields": {**SPEC["fields"], **change}}]}


@pytest.mark.parametrize(
    "change",
    [
        {"document": "not JSON"},
        {"document": "[" * 100000 + "]" * 100000},
        {"document": "[]"},
        {"document": "{}"},
        {"graph": {}},
        {"graph": []},
        {"graph": "PackedDense"},
        {"graph": [None]},
        {"graph": [{**SPEC, "type": "Sign"}]},
        {"graph": [{**SPEC, "type": ["PackedDense"]}]},
        {"graph": [{**SPEC, "type": "PackedSign"}]},
        {"graph": [{**SPEC, "type": "PackedResidual"}]},
        {"graph": [{**SPEC, "extra": 1}]},
        {"graph": [{**SPEC, "fields": "weight"}]},
        {"graph": [{**SPEC, "fields": ["weight", "threshold", "flip"]}]},
        {"graph": [{**SPEC, "fields": {"weight": [3, 70], "threshold": [3]}}]},
        {"graph": [{**SPEC, "fields": {"threshold": [3], "flip": [3]}}]},
        {"graph": [{**SPEC, "fields": {}}]},
        {"graph": [{**SPEC, "settings": {"stride": 1}}]},
        {"graph": [{**SPEC, "settings": None}]},
        fields(weight=[3, 71.0]),
        fields(weight=[3, True]),
        fields(weight=[3, -70]),
        fields(weight=[3, None]),
        fields(weight=[3, 10**30]),
        fields(weight=[3, 64]),
        fields(weight=[4, 70]),
        fields(weight=[3, 7, 10]),
        fields(weight=[210]),
        fields(weight=70),
        fields(flip=[2]),
        fields(minimum=[3]),
        {"graph": [SPEC, SPEC]},
        {"input_shape": 70},
        {"input_shape": []},
        {"input_shape": [70.0]},
        {"input_shape": [0]},
        {"input_shape": [71]},
        *({"tensors": tensors} for tensors in TENSORS),
    ],
)
def test_forged_files_are_refused(path, change):
    Packed(PackedDense(np.ones((3, 70)), 0, [True, False, True])).save(path)
    rewrite(path)
    load(path)
    rewrite(path, **change)
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


SPEC_1 = {
    "type": "PackedDense",
    "in_features": 70,
    "out_features": 3,
    "fields": ["weight", "threshold", "flip"],
}


@pytest.mark.parametrize(
    "change",
    [
        {"graph": {}},
        {"graph": []},
        {"graph": [None]},
        {"graph": [SPEC]},
        {"graph": [{**SPEC_1, "type": "Sign"}]},
        {"graph": [{**SPEC_1, "type": ["PackedDense"]}]},
        {"graph": [{**SPEC_1, "type": "FloatDense", "fields": ["weight"]}]},
        {"graph": [{**SPEC_1, "extra": 1}]},
        {"graph": [{**SPEC_1, "fields": "weight"}]},
        {"graph": [{**SPEC_1, "fields": None}]},
        {"graph": [{**SPEC_1, "fields": [["weight"]]}]},
        {"graph": [{**SPEC_1, "fields": ["threshold", "weight", "flip"]}]},
        {"graph": [{**SPEC_1, "fields": ["weight", "threshold"]}]},
        {"graph": [{**SPEC_1, "fields": ["threshold", "flip"]}]},
        {"graph": [{**SPEC_1, "fields": []}]},
        {"graph": [{**SPEC_1, "in_features": 71.0}]},
        {"graph": [{**SPEC_1, "in_features": True}]},
        {"graph": [{**SPEC_1, "in_features": -70}]},
        {"graph": [{**SPEC_1, "in_features": None}]},
        {"graph": [{**SPEC_1, "in_features": 10**30}]},
        {"graph": [{**SPEC_1, "in_features": 64}]},
        {"graph": [{**SPEC_1, "out_features": 4}]},
        {"graph": [SPEC_1, SPEC_1]},
        *({"tensors": tensors} for tensors in TENSORS),
    ],
)
def test_forged_files_of_the_first_version_are_refused(path, change):
    Packed(PackedDense(np.ones((3, 70)), 0, [True, False, True])).save(path)
    rewrite(path, version=1, graph=[SPEC_1])
    load(path)
    rewrite(path, version=1, **{"graph": [SPEC_1], **change})
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stride", [0, 1]),
        ("stride", [1, 2**31]),
        ("stride", [1.5, 1]),
        ("stride", "2"),
        ("stride", None),
        ("padding", [[-1, 0], [0, 0]]),
        ("padding", "full"),
        ("padding", {}),
        ("padding", [[10**30, 0], [0, 0]]),
        ("dilation", [0, 0]),
        ("dilation", True),
        ("groups", 0),
        ("groups", 3),
        ("groups", 2.0),
        ("groups", 10**30),
        ("pad_value", 2),
        ("pad_value", True),
        ("pad_value", 1.0),
        ("scale_input", 1),
        ("scale_input", "yes"),
        ("scale_input", True),  # with thresholds
        ("input_bits", 0),
        ("input_bits", 9),
        ("input_bits", 1.0),
        ("input_bits", True),
    ],
)
def test_forged_settings_are_refused(path, name, value):
    Packed(PackedResidual(PackedConv2D(np.ones((4, 3, 3, 2)), 0, groups=2, padding=1))).save(path)
    graph = graph_of(path)
    rewrite(path, graph=graph)
    load(path)
    graph[0]["body"][0]["settings"][name] = value
    rewrite(path, graph=graph)
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


@pytest.mark.parametrize(
    "branches",
    [
        {"body": None},
        {"body": []},
        {"body": {}},
        {"body": SPEC},
        {"body": [{"type": "PackedFlatten", "fields": {}, "settings": {"axis": 1}}]},
        {"body": [{"type": "PackedFlatten", "fields": {"weight": [3]}, "settings": {}}]},
        {"shortcut": []},
        {"shortcut": "identity"},
        {"shortcut": [SPEC]},
    ],
)
def test_forged_branches_are_refused(path, branches):
    flatten = {"type": "PackedFlatten", "fields": {}, "settings": {}}
    block = {"type": "PackedResidual", "body": [flatten], "shortcut": None}
    Packed(PackedReLU()).save(path)
    rewrite(path, graph=[block])
    load(path)
    rewrite(path, graph=[{**block, **branches}])
    with pytest.raises(ValueError, match=r"^\[load\]"):
        load(path)


def test_deep_nesting_is_refused(path):
    graph = [{"type": "PackedReLU", "fields": {}, "settings": {}}]
    for _ in range(MAX_DEPTH + 1):
        graph = [{"type": "PackedResidual", "body": graph, "shortcut": None}]
    Packed(PackedReLU()).save(path)
    rewrite(path, graph=graph)
    with pytest.raises(ValueError, match=r"^\[load\] .*nested at most"):
        load(path)


def test_layers_that_do_not_fit_are_refused(path):
    Packed(PackedDense(np.ones((3, 70))), PackedDense(np.ones((2, 3)))).save(path)
    shapes = ([3, 70], [2, 4])
    graph = [{**SPEC, "fields": {"weight": shape}} for shape in shapes]
    rewrite(path, graph=graph)
    with pytest.raises(ValueError, match=r"^\[load\] .*layer 1 must take the 3 features"):
        load(path)
