"""State dicts from PyTorch, in memory and in the files of strangers."""

import os
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from bitops import layers as L
from bitops.convert import ConversionError, from_torch
from commands import failure

torch = pytest.importorskip("torch", reason="needs PyTorch")

from random_torch import Conv, Conv1, Linear, Rows, Sign  # noqa: E402
from torch import nn  # noqa: E402
from torch_modules import Of, assert_same_scores, own_layout, run, start_norms  # noqa: E402


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def x(rng):
    return rng.normal(0, 2, (9, 3, 8, 7)).astype(np.float32)


def source(rng):
    features = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        Sign("where"),
        Conv("signs", 6, 8, 3, stride=2),
        nn.PReLU(),
        nn.BatchNorm2d(8, affine=False),
        Sign("where"),
        Rows("flatten"),
        nn.BatchNorm1d(8 * 3 * 3),
        Sign("where"),
        Linear("signs", 8 * 3 * 3, 5),
    )
    return start_norms(features, rng)


def layers():
    return [
        ("0", L.Conv2D(3, 6, 3, padding=1, bias=False)),
        ("1", L.BatchNorm(6)),
        L.Sign(),
        ("3", L.BinaryConv2D(6, 8, 3, stride=2, bias=True)),
        ("4", L.PReLU(8)),
        ("5", L.BatchNorm(8)),
        L.Sign(),
        L.Flatten(),
        ("8", L.BatchNorm(72)),
        L.Sign(),
        ("10", L.BinaryDense(72, 5, bias=True)),
    ]


def fill(state, given=None):
    return from_torch(state, given or layers(), input_shape=(8, 7, 3))


@pytest.mark.parametrize("form", ["dict", "pt", "old pt", "checkpoint", "parallel", "safetensors"])
def test_layers_get_the_arrays_of_a_state_dict(form, rng, x, tmp_path):
    module = source(rng)
    state = module.state_dict()
    path = tmp_path / "state.pt"
    if form == "pt":
        torch.save(state, path)
        state = path
    elif form == "old pt":
        torch.save(state, path, _use_new_zipfile_serialization=False)
        state = str(path)
    elif form == "checkpoint":
        torch.save({"state_dict": state, "epoch": 3, "optimizer": {}}, path)
        state = path
    elif form == "parallel":
        state = {f"module.{name}": value for name, value in state.items()}
    elif form == "safetensors":
        path = tmp_path / "state.safetensors"
        safetensors.numpy.save_file({k: v.numpy() for k, v in state.items()}, path)
        state = path
    net = fill(state)
    assert_same_scores(net.freeze(), module, x)
    latent = module[3].weight.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(net.layers[3].weight.value, latent)  # to be trained on


def test_sequences_get_the_arrays_of_a_state_dict(rng):
    module = nn.Sequential(
        nn.Conv1d(3, 6, 5),
        nn.BatchNorm1d(6),
        Sign("where"),
        Conv1("signs", 6, 4, 3, bias=False),
        nn.BatchNorm1d(4),
        Sign("where"),
        nn.Flatten(),
        Linear("signs", 4 * 6, 5, bias=False),
    )
    start_norms(module, rng)
    given = [
        ("0", L.Conv1D(3, 6, 5)),
        ("1", L.BatchNorm(6)),
        L.Sign(),
        ("3", L.BinaryConv1D(6, 4, 3)),
        ("4", L.BatchNorm(4)),
        L.Sign(),
        L.Flatten(),
        ("7", L.BinaryDense(24, 5)),
    ]
    x = rng.normal(0, 1, (9, 3, 12)).astype(np.float32)
    net = from_torch(module.state_dict(), given, input_shape=(12, 3))
    assert_same_scores(net.freeze(), module, x)
    latent = module[3].weight.detach().numpy().transpose(0, 2, 1)[:, np.newaxis]
    np.testing.assert_array_equal(net.layers[3].weight.value, latent)


def test_blocks_get_a_name_for_each_of_their_layers(rng):
    body = nn.Sequential(Sign("where"), Conv("signs", 4, 4, 3, padding=1), nn.BatchNorm2d(4))
    module = start_norms(Of(lambda self, x: self.body(x) + x, body=body), rng)
    block = L.Residual(
        L.Sequential(L.Sign(), L.BinaryConv2D(4, 4, 3, padding=1, bias=True), L.BatchNorm(4))
    )
    net = from_torch(module.state_dict(), [(["body.1", "body.2"], block)], input_shape=(8, 7, 4))
    x = rng.normal(0, 1, (3, 4, 8, 7)).astype(np.float32)
    wanted = run(module, x).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(net(own_layout(x)), wanted, rtol=0, atol=1e-5)
    with pytest.raises(ConversionError, match="a name for each layer with parameters: 2"):
        from_torch(module.state_dict(), [("body.1", block)], input_shape=(8, 7, 4))


def test_state_dicts_that_do_not_fit(rng):
    module = source(rng)
    state = module.state_dict()
    missing = {name: value for name, value in state.items() if name != "3.weight"}
    with pytest.raises(ConversionError, match=r"must hold '3\.weight' of shape .*got 3\.bias"):
        fill(missing)
    with pytest.raises(ConversionError, match=r"must hold '1\.running_mean'"):
        fill({name: value for name, value in state.items() if not name.startswith("1.")})
    with pytest.raises(ConversionError, match=r"must belong to a layer, got 11\.bias, 11\.weight"):
        fill({**state, "11.weight": torch.ones(3), "11.bias": torch.ones(3)})
    with pytest.raises(ConversionError, match=r"'10\.weight' must have the shape \(5, 72\), got"):
        fill({**state, "10.weight": torch.ones(5, 73)})
    with pytest.raises(ConversionError, match=r"'10\.bias' must be finite"):
        fill({**state, "10.bias": torch.full((5,), torch.nan)})
    with pytest.raises(ConversionError, match=r"'5': .* var \+ eps must be positive"):
        fill({**state, "5.running_var": torch.full((8,), -1.0)})
    with pytest.raises(ConversionError, match="must be a tensor of numbers"):
        fill({**state, "5.extra": "text"})
    with pytest.raises(ConversionError, match="a name for each layer with parameters: 1, got none"):
        fill(state, [L.BatchNorm(3)])
    with pytest.raises(ConversionError, match="class ShiftBatchNorm cannot be filled"):
        fill(state, [("0", L.ShiftBatchNorm(3))])
    with pytest.raises(ConversionError, match="do not fit each other"):
        fill(state, [("0", L.Conv2D(4, 6, 3))])
    with pytest.raises(TypeError, match="give the layers that it fills"):
        from_torch(state, input_shape=(8, 7, 3))
    with pytest.raises(TypeError, match="layers are for a state dict"):
        from_torch(module, layers(), input_shape=(8, 7, 3))


def test_nothing_is_assigned_if_an_array_does_not_fit(rng):
    given = layers()
    before = given[0][1].weight.value.copy()
    with pytest.raises(ConversionError):
        fill({**source(rng).state_dict(), "10.weight": torch.ones(5, 73)}, given)
    np.testing.assert_array_equal(given[0][1].weight.value, before)


# Files of strangers


class Hostile:
    """Pickled, it is a call that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"mkdir {self.path}",)


@pytest.mark.parametrize("is_new", [True, False])
def test_pickles_that_call_are_refused_and_not_run(is_new, tmp_path):
    made = tmp_path / "made"
    path = tmp_path / "state.pt"
    torch.save({"0.weight": Hostile(made)}, path, _use_new_zipfile_serialization=is_new)
    with pytest.raises(ConversionError, match="must hold a state dict, that is tensors alone"):
        fill(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # so the pickle would have run


def test_whole_modules_are_refused(rng, tmp_path):
    torch.save(nn.Linear(3, 3), tmp_path / "module.pt")
    with pytest.raises(ConversionError, match="nothing else is loaded"):
        fill(tmp_path / "module.pt")
    torch.save([torch.ones(3)], tmp_path / "list.pt")
    with pytest.raises(ConversionError, match="must hold a state dict, got <class 'list'>"):
        fill(tmp_path / "list.pt")


def test_damaged_files(rng, tmp_path):
    path = tmp_path / "state.pt"
    torch.save(source(rng).state_dict(), path)
    data = path.read_bytes()
    for content in (b"", b"no state", data[:100], data[: len(data) // 2], data[:-9]):
        path.write_bytes(content)
        with pytest.raises(ConversionError):
            fill(path)
    for content in (b"", b"no state", (2**60).to_bytes(8, "little") + b"{}"):
        (tmp_path / "state.safetensors").write_bytes(content)
        with pytest.raises(ConversionError, match="must be safetensors"):
            fill(tmp_path / "state.safetensors")
    with pytest.raises(OSError, match="No such file"):
        fill(tmp_path / "missing.pt")


@pytest.mark.parametrize("value", [[[1], [2, 3]], [[]] * 3, "text", torch.ones(3).to_sparse()])
def test_entries_that_are_no_dense_tensors(rng, tmp_path, value):
    path = tmp_path / "state.pt"
    torch.save(source(rng).state_dict() | {"0.weight": value}, path)
    with pytest.raises(ConversionError, match=r"\[from_torch\] "):
        fill(path)


def test_zip_files_that_python_cannot_read(rng, tmp_path):
    """PyTorch reads them by other means, so that nothing would bound what they unpack to."""
    path = tmp_path / "state.pt"
    torch.save(source(rng).state_dict(), path)
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")  # of the first entry in the directory
    data[place + 6] = 99  # the version that is needed
    path.write_bytes(data)
    with pytest.raises(ConversionError, match="zip file is damaged: zip file version"):
        fill(path)


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path):
    path = tmp_path / "state.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state/data.pkl", b"")
        archive.writestr("state/data/0", bytes(2**28))
    with pytest.raises(ConversionError, match="unpacks to far more than it takes"):
        fill(path)


def test_import_says_what_a_state_dict_lacks(rng, tmp_path, capsys):
    path = tmp_path / "state.pt"
    torch.save(source(rng).state_dict(), path)
    assert "holds arrays but not what is computed of them" in failure(capsys, "import", str(path))
