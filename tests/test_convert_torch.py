"""Networks from PyTorch: the scores of the source, state dicts, and refusals that name the call."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

from bitops import layers as L
from bitops.convert import ConversionError, check, from_torch
from bitops.layers import PackedConv2D, PackedDense, PackedMultiThreshold, PackedPlanesConv2D

torch = pytest.importorskip("torch", reason="needs PyTorch")

import torch.nn.functional as F  # noqa: E402
from random_torch import (  # noqa: E402
    IMAGES,
    SEQUENCES,
    SIGNS,
    WEIGHTS,
    Conv,
    Linear,
    Rows,
    Sign,
    random_network,
)
from torch import nn  # noqa: E402
from torch_modules import (  # noqa: E402
    Of,
    assert_same_scores,
    converted,
    own_layout,
    run,
    start_norms,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def x(rng):
    return rng.normal(0, 2, (9, 3, 8, 7)).astype(np.float32)


@pytest.fixture
def rows(rng):
    return rng.normal(0, 2, (30, 20)).astype(np.float32)


# Random networks


@pytest.mark.parametrize(
    ("kinds", "decade"), [*((IMAGES, i) for i in range(33)), *((SEQUENCES, i) for i in range(6))]
)
def test_random_networks(kinds, decade):
    for seed in range(10 * decade, 10 * decade + 10):
        module, x = random_network(seed, kinds)
        assert_same_scores(converted(module, x), module, x)


@pytest.mark.parametrize("form", SIGNS)
def test_signs_become_bits_in_every_form(form, rows):
    """With its value at 0: codes of two bits where it is 0 there, and a sum may be 0."""
    module = nn.Sequential(Sign(form), Linear("signs", 20, 40, bias=False), Sign(form))
    module.append(Linear("signs", 40, 4, bias=False))
    rows[:, ::3] = 0
    packed = converted(module, rows)
    at_zero = float(SIGNS[form](torch.zeros(1)))
    kinds = [type(layer) for layer in packed.layers]
    assert (PackedMultiThreshold in kinds) == (at_zero == 0)
    assert sum(kind is PackedDense for kind in kinds) == 2
    assert (packed(rows).dtype == np.int32) == (at_zero != 0)
    assert_same_scores(packed, module, rows)


@pytest.mark.parametrize("form", WEIGHTS)
def test_weights_are_packed_in_every_form(form, x):
    module = nn.Sequential(Sign("where"), Conv(form, 3, 8, 3, bias=False), Rows("flatten"))
    module.append(Linear("signs", 240, 5))
    packed = converted(module, x)
    kinds = {"ternary": PackedPlanesConv2D, "real": L.FloatConv2D}
    assert any(type(layer) is kinds.get(form, PackedConv2D) for layer in packed.layers)
    assert_same_scores(packed, module, x)


# What users write


def test_shapes_may_decide(x):
    """As BinaryNet's program does, whose first layer takes numbers, and which assigns to data."""

    class BinarizeConv2d(nn.Conv2d):
        def forward(self, x):
            if x.size(1) != 3:
                x.data = torch.where(x.data >= 0, 1.0, -1.0)
            if not hasattr(self.weight, "org"):
                self.weight.org = self.weight.data.clone()
            self.weight.data = torch.where(self.weight.org >= 0, 1.0, -1.0)
            y = F.conv2d(x, self.weight, None, self.stride, self.padding)
            y += self.bias.view(1, -1, 1, 1).expand_as(y)
            return y

    module = nn.Sequential(BinarizeConv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Hardtanh(inplace=True))
    module += nn.Sequential(BinarizeConv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4), Rows("mean"))
    before = module[0].weight.detach().clone()
    packed = converted(module, x)
    assert torch.equal(module[0].weight, before) and module.training  # a copy was run
    assert sum(type(layer) is PackedConv2D for layer in packed.layers) == 2
    assert_same_scores(packed, module, x)


def test_xnor_net_scales_its_input(x):
    """The activations of XNOR-Net, which also give the mean magnitudes of windows."""

    def forward(self, x):
        magnitude = x.abs().mean(1, keepdim=True)
        k = F.conv2d(magnitude, torch.full((1, 1, 3, 3), 1 / 9), padding=1)
        return self.last((self.conv(SIGNS["where"](x)) * k).flatten(1))

    conv = Conv("xnor", 3, 8, 3, padding=1, bias=False)
    module = Of(forward, conv=conv, last=nn.Linear(8 * 8 * 7, 4))
    assert_same_scores(converted(module, x), module, x)


def test_weights_that_the_training_loop_binarizes(rows):
    module = nn.Sequential(nn.Linear(20, 16), Sign("where"), nn.Linear(16, 4, bias=False))
    packed = converted(module, rows, binary=lambda name, part: name == "2")
    assert type(packed.layers[-1]) is PackedDense and packed(rows).dtype == np.int32
    wanted = nn.Sequential(module[0], Sign("where"), Linear("signs", 16, 4, bias=False))
    wanted[2].weight.data = module[2].weight.data
    assert_same_scores(packed, wanted, rows)
    scaled = converted(
        module,
        rows,
        binary=lambda name, part: WEIGHTS["xnor"](part.weight) if name == "2" else None,
    )
    wanted[2].form = "xnor"
    assert_same_scores(scaled, wanted, rows)


def test_a_shared_module_is_used_twice(rows):
    module = nn.Sequential(Sign("where"), Linear("signs", 20, 20))
    module = nn.Sequential(module, module, nn.Linear(20, 3))
    assert_same_scores(converted(module, rows), module, rows)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1),
        lambda self, x: F.avg_pool2d(x, x.size()[2:]).squeeze(),
        lambda self, x: F.adaptive_max_pool2d(x, (1, 1)).view(-1, x.size(1)),
        lambda self, x: F.max_pool2d(x, 2, ceil_mode=True).flatten(start_dim=1),
        lambda self, x: nn.ZeroPad2d((1, 0, 2, 1))(x).flatten(1),
        lambda self, x: torch.cat([x, -x], dim=1).mean((-1, -2)),
        lambda self, x: F.relu6(x).add(x, alpha=0.5).flatten(1),
        lambda self, x: (2 - x).clamp(min=0).sub(1).div(3).contiguous().flatten(1),
        lambda self, x: (x + torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)).flatten(1),
        lambda self, x: (x * torch.tanh(x)).flatten(1),
        lambda self, x: (torch.sigmoid(x) - nn.Sigmoid()(x + 1) * F.sigmoid(x)).flatten(1),
        lambda self, x: torch.flatten(input=torch.cat([x, 1 - x], axis=1), start_dim=1),
        lambda self, x: torch.mean(torch.maximum(x, torch.tensor(0.5)), dim=(2, 3)),
        lambda self, x: torch.batch_norm(
            x, self.ones, None, self.ones / 2, self.ones * 3, False, 0.1, 1e-3, False
        ).flatten(1),
        lambda self, x: (F.hardsigmoid(x) * 3 - torch.tanh(x)).flatten(1),
        lambda self, x: F.conv2d(x, self.w, padding="same", dilation=2).flatten(1),
        lambda self, x: (x.flatten(1) @ self.v).log_softmax(1),
        lambda self, x: torch.addmm(torch.ones(5), x.flatten(1), self.v),
        lambda self, x: F.dropout(x, training=self.training).detach().clone().flatten(1),
        lambda self, x: x.unsqueeze(-1).squeeze(-1).transpose(2, 3).flatten(1),
        lambda self, x: F.silu(x).flatten(2).mean(-1) + F.hardswish(x).amax((2, 3)),
        lambda self, x: (x * x.mean((2, 3))[:, :, None, None]).sum((2, 3)),
        lambda self, x: (x * F.adaptive_avg_pool2d(x, 1).expand_as(x)).flatten(1),
        lambda self, x: x[..., ::2, ::3].sign().flatten(1),
        lambda self, x: shuffled(torch.cat([x, x.relu()], 1), 3).flatten(1),
        lambda self, x: F.conv2d(F.channel_shuffle(F.conv2d(x, self.w6), 2), self.w3).flatten(1),
        lambda self, x: torch.cat([F.max_pool2d(x, (8, 7)), x.mean((2, 3), True)], 1).flatten(1),
    ],
)
def test_functions(function, x, rng):
    module = Of(function, last=nn.Identity())
    module.w = torch.from_numpy(rng.normal(0, 1, (2, 3, 3, 3)).astype(np.float32))
    module.v = torch.from_numpy(rng.normal(0, 1, (3 * 8 * 7, 5)).astype(np.float32))
    module.w6, module.w3 = torch.randn(6, 3, 1, 1), torch.randn(4, 6, 2, 2)
    module.ones = torch.ones(3)
    features = run(module, x).shape[1]
    whole = nn.Sequential(module, nn.Linear(features, 4))
    if "log_softmax" in function.__code__.co_names:
        whole = module
    report = check(converted(whole, x), whole, own_layout(x))
    assert report.ok, str(report)


def shuffled(x, groups):
    n, channels, height, width = x.shape
    split = x.view(n, groups, channels // groups, height, width)
    return split.transpose(1, 2).reshape(n, channels, height, width)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: F.conv1d(x, self.w, padding="same", dilation=2).flatten(1),
        lambda self, x: F.conv1d(x, self.w, stride=2, padding=(2,)).mean(2),
        lambda self, x: F.adaptive_avg_pool1d(x, 4).flatten(1),
        lambda self, x: F.adaptive_max_pool1d(x, 1).squeeze(-1),
        lambda self, x: F.avg_pool1d(x, 3, 2, padding=1).transpose(1, 2).flatten(1),
        lambda self, x: F.max_pool1d(F.pad(x, (2, 0), value=1), 3, 1, ceil_mode=True).flatten(1),
        lambda self, x: F.prelu(x, torch.arange(3) / 4).mean(dim=-1, keepdim=True).flatten(1),
        lambda self, x: torch.cat([x, x.relu()], 1).flatten(1),
    ],
)
def test_functions_of_sequences(function, rng):
    x = rng.normal(0, 2, (9, 3, 12)).astype(np.float32)
    module = Of(function)
    module.w = torch.from_numpy(rng.normal(0, 1, (2, 3, 3)).astype(np.float32))
    whole = nn.Sequential(module, nn.Linear(run(module, x).shape[1], 4))
    report = check(converted(whole, x), whole, own_layout(x))
    assert report.ok, str(report)


def test_log_softmax_at_the_end_is_left_out(rows):
    module = nn.Sequential(nn.Linear(20, 4), nn.LogSoftmax(dim=1))
    with pytest.warns(UserWarning, match=r"log_softmax in LogSoftmax '1' is left out"):
        net = from_torch(module, input_shape=(20,))
    np.testing.assert_array_equal(net.freeze().predict(rows), run(module, rows).argmax(axis=1))
    module.append(nn.Linear(4, 4))
    with pytest.raises(ConversionError, match="log_softmax in LogSoftmax '1'"):
        from_torch(module, input_shape=(20,))


def test_double_precision_and_training_mode(rows):
    module = start_norms(
        nn.Sequential(nn.Linear(20, 9), nn.BatchNorm1d(9), Sign("ones"), nn.Linear(9, 3)),
        np.random.default_rng(1),
    ).double()
    module.train()
    packed = converted(module, rows)
    assert module.training
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(rows).double()).numpy()
    np.testing.assert_allclose(packed(rows), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert check(packed, module, rows).compared_with == "PyTorch on Sequential"


def test_what_is_taken_for_granted_is_said(rows):
    first, second = Sign("straight through"), Sign("torch")
    module = nn.Sequential(first, Linear("reactnet", 20, 4, bias=False), second, nn.Linear(4, 3))
    with pytest.warns(UserWarning) as caught:
        from_torch(module, input_shape=(20,))
    said = [str(warning.message) for warning in caught]
    assert any("add in Sign '0': it is taken to give exactly -1, 1" in text for text in said)
    assert any("Linear '1': its weights are taken to be +- a scale" in text for text in said)
    assert any("is 0 at 0: its outputs take two bits" in text for text in said)


def test_sign_of_zero_can_be_chosen(rows):
    module = nn.Sequential(Sign("torch"), Linear("signs", 20, 4, bias=False))
    rows[:, :5] = 0
    packed = converted(module, rows, sign_of_zero=1)
    assert [type(layer) for layer in packed.layers][-1:] == [PackedDense]
    assert not any(type(layer) is PackedMultiThreshold for layer in packed.layers)
    module[0].form = "where"
    assert_same_scores(packed, module, rows)


def test_brevitas(x):
    """Its layers compute their weights and activations in the forward, so they need no file."""
    qnn = pytest.importorskip("brevitas.nn", reason="needs Brevitas")
    quant = pytest.importorskip("brevitas.quant")
    bits = quant.SignedBinaryActPerTensorConst
    module = nn.Sequential(
        qnn.QuantConv2d(3, 8, 3, padding=1, weight_bit_width=4, bias=False),
        nn.BatchNorm2d(8),
        qnn.QuantIdentity(bits),
        qnn.QuantConv2d(8, 8, 3, weight_quant=quant.SignedBinaryWeightPerTensorConst),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(bit_width=2),
        nn.Flatten(),
        qnn.QuantLinear(8 * 6 * 5, 5, bias=True, weight_bit_width=2),
    )
    module(torch.from_numpy(x))  # which finds the scale of QuantReLU
    packed = converted(module, x)
    assert any(type(layer) is PackedConv2D for layer in packed.layers)
    assert_same_scores(packed, module, x)


def test_constants_that_become_values_are_refused():
    def forward(self, x):
        made = torch.ones(2, 20)
        made[x < 0] = -1
        return made

    with pytest.raises(ConversionError, match="setitem in Of: constants become what depends on"):
        from_torch(Of(forward), input_shape=(20,))


# Refusals


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda self, x: torch.erf(x), r"erf in Of: the function is not supported"),
        (lambda self, x: x if (x > 0).all() else -x, "all in Of: the function is not supported"),
        (lambda self, x: x if x[0, 0] > 0 else -x, "getitem in Of"),
        (
            lambda self, x: x if torch.is_nonzero(x > 0) else -x,
            r"decides by values.*torch.onnx.export",
        ),
        (lambda self, x: torch.from_numpy(np.sign(x.numpy())), r"numpy in Of: the module decides"),
        (lambda self, x: x[:, ::2], r"getitem in Of: only every n-th row and column"),
        (lambda self, x: x[:, 3], r"getitem in Of: only slices, and None"),
        (lambda self, x: torch.ones_like(x), "does not depend on the input"),
        (lambda self, x: torch.ones(3), "does not depend on the input"),
        (lambda self, x: torch.rand(2, 20), "forward in Of: what it computes cannot be followed"),
        (lambda self, x: (x, x), "must return a tensor"),
        (lambda self, x: self.missing(x), "forward in Of: it fails on examples of shape .20,."),
        (lambda self, x: F.batch_norm(x, None, None, training=True), "by the batch itself"),
        (lambda self, x: F.dropout(x), "drops features in evaluation"),
        (lambda self, x: torch.max(x, 1)[0], "max in Of: it is supported only between tensors"),
        (lambda self, x: x.max(dim=1).values, "max in Of: its arguments are not supported"),
        (lambda self, x: x.half(), "half precision is not supported"),
        (lambda self, x: x.int(), "only behind a comparison"),
        (lambda self, x: x.view(len(x) * 2, -1), "first axis must stay"),
        (lambda self, x: x @ x.t(), "matmul in Of: its second operand must be constant"),
        (lambda self, x: torch.mul(x, 2, out=torch.empty(2, 20)), "out= is not supported"),
        (lambda self, x: F.linear(x, torch.ones(3, 7)), "fails|take 7 features"),
        (lambda self, x: x.sum(1, keepdim=True), "sum in Of: only the results of comparisons"),
    ],
)
def test_calls_that_do_not_fit(function, message):
    with pytest.raises(ConversionError, match=message):
        from_torch(Of(function), input_shape=(20,))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "mode must be 'constant'"),
        (lambda x: F.avg_pool2d(x, 3, padding=1, count_include_pad=False), "does not count"),
        (lambda x: F.max_pool2d(x, 2, dilation=2), "dilations of pools"),
        (lambda x: F.adaptive_avg_pool2d(x, 3), "must be divisible"),
        (lambda x: x.mean(), "axes must be those of the image"),
        (lambda x: F.interpolate(x, scale_factor=2), "not supported"),
        (lambda x: torch.cat([x, x], dim=2), "axis must be that of the features"),
        (lambda x: x.chunk(3, dim=1)[0], "chunk in"),
        (lambda x: x[:, :, 1::2], "getitem in Of: only every n-th row"),
        (lambda x: x.repeat(1, 2, 1, 1).view(-1, 2, 3, 8, 7), "repeat in Of"),
        (lambda x: torch.cat([x, x], 1).view(-1, 2, 3, 8, 7), "output must be scores"),
        (lambda x: torch.cat([x, x], 1).view(-1, 2, 3, 8, 7).flatten(1), "cannot become"),
        (lambda x: x.flatten(2), "output must be scores"),
        (lambda x: x.mean((2, 3), True).expand(-1, -1, 2, 2), "output must be scores"),
        (lambda x: x.mean((2, 3), True).expand(-1, -1, 2, 2).flatten(1), "must be known"),
        (lambda x: x.mean((2, 3), True).expand_as(x).mean((2, 3)), "must be those of the image"),
        (lambda x: x.mean(2), "axes must be those of the image"),
    ],
)
def test_calls_on_images_that_do_not_fit(function, message):
    with pytest.raises(ConversionError, match=message):
        from_torch(Of(lambda self, x: function(x)), input_shape=(8, 7, 3))


def test_the_module_that_calls_is_named():
    inner = Of(lambda self, x: torch.erf(x))
    module = nn.Sequential(nn.Linear(20, 20), nn.Sequential(nn.ReLU(), inner))
    with pytest.raises(ConversionError, match=r"erf in Of '1\.1': the function is not supported"):
        from_torch(module, input_shape=(20,))


def test_a_refusal_that_the_module_catches_is_kept():
    def forward(self, x):
        try:
            return torch.erf(x)
        except ValueError:
            return x

    with pytest.raises(ConversionError, match="erf in Of"):
        from_torch(Of(forward), input_shape=(20,))


def test_changes_through_a_view_are_refused():
    def forward(self, x):
        rows = x.flatten(1)
        rows.mul_(2)
        return x.mean((2, 3))

    with pytest.raises(ConversionError, match="mean in Of: its operand was changed in place"):
        from_torch(Of(forward), input_shape=(8, 7, 3))


def test_what_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"needs PyTorch: pip install torch"):
        from_torch("weights.pt", [L.ReLU()], input_shape=(20,))


def test_torchscript_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(nn.ReLU(), torch.zeros(1, 20))
    with pytest.raises(ConversionError, match="TorchScript"):
        from_torch(scripted, input_shape=(20,))
    with pytest.raises(ConversionError, match=r"TorchScript '1' cannot be followed"):
        from_torch(nn.Sequential(nn.Linear(20, 20), scripted), input_shape=(20,))


@pytest.mark.parametrize(
    ("error", "shape"),
    [
        (TypeError, 4),
        (TypeError, ()),
        (TypeError, (1.5,)),
        (ValueError, None),
        (ValueError, (2, 3, 4, 5)),
        (ValueError, (8, 8, 0)),
    ],
)
@pytest.mark.parametrize(("network", "layers"), [(nn.ReLU(), None), ({}, [L.ReLU()])])
def test_shapes_that_are_none(error, shape, network, layers):
    with pytest.raises(error, match=r"^\[from_torch\] input_shape must be"):
        from_torch(network, layers, input_shape=shape)


def test_channels_that_do_not_fit_the_first_layer():
    with pytest.raises(
        ConversionError, match=r"conv2d in Conv2d '0': filters .* do not fit 8 channels"
    ):
        from_torch(nn.Sequential(nn.Conv2d(3, 4, 3)), input_shape=(3, 8, 8))


def test_torch_is_not_imported_with_the_package():
    code = (
        "import sys, bitops.convert, bitops.convert.torch_record; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
