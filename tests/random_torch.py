"""Random binarized networks as modules of PyTorch, written in the ways that people write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# Signs


class InPlaceSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        out = x.new(x.size())
        out[x >= 0] = 1
        out[x < 0] = -1
        return out


class PlainSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()


def reactnet_sign(x):
    """The sign of ReActNet, whose gradient is that of a piecewise polynomial."""
    first, second, third = x < -1, x < 0, x < 1
    one = (-1) * first.type(torch.float32) + (x * x + 2 * x) * (1 - first.type(torch.float32))
    two = one * second.type(torch.float32) + (-x * x + 2 * x) * (1 - second.type(torch.float32))
    three = two * third.type(torch.float32) + 1 * (1 - third.type(torch.float32))
    return torch.sign(x).detach() - three.detach() + three


def repaired_sign(x):
    out = torch.sign(x)
    out[out == 0] = 1
    return out


def sign_through_data(x):
    """The sign of BinaryNet's program, which assigns to the data of its input."""
    x = x.clone()
    x.data = x.data.sign().add(0.01).sign()
    return x


SIGNS = {
    "in place": InPlaceSign.apply,
    "plain": PlainSign.apply,
    "torch": torch.sign,
    "method": lambda x: x.sign(),
    "where": lambda x: torch.where(x >= 0, 1.0, -1.0),
    "ones": lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)),
    "arithmetic": lambda x: (x >= 0).float() * 2 - 1,
    "type": lambda x: torch.gt(x, 0).type_as(x).mul(2).sub(1),
    "tanh": lambda x: torch.where(F.hardtanh(x) < 0, -1.0, 1.0),
    "clip": lambda x: torch.clamp(x, -1, 1) + (x.sign() - torch.clamp(x, -1, 1)).detach(),
    "straight through": lambda x: x + (torch.where(x >= 0, 1.0, -1.0) - x).detach(),
    "masked": lambda x: torch.ones_like(x).masked_fill(x < 0, -1),
    "in place sign": lambda x: x.clone().sign_(),
    "data": sign_through_data,
    "repaired": repaired_sign,
    "reactnet": reactnet_sign,
}


# Weights


def signs_of(w):
    return torch.where(w >= 0, torch.ones_like(w), -torch.ones_like(w))


def xnor(w):
    """Signs times the mean magnitude of each filter."""
    axes = tuple(range(1, w.ndim))
    return signs_of(w) * w.abs().mean(axes, keepdim=True)


def ir_net(w):
    """The weights of IR-Net: centred, and scaled by a power of two."""
    flat = w.view(w.size(0), -1)
    if flat.size(1) < 2:  # these have no deviation
        return signs_of(w)
    flat = flat - flat.mean(-1, keepdim=True)
    flat = flat / flat.std(-1, keepdim=True).clamp(min=1e-3)
    power = torch.pow(2.0, flat.abs().mean(-1, keepdim=True).log2().round())
    return (signs_of(flat) * power).view_as(w)


def reactnet(w):
    """The weights of ReActNet, whose forward leaves rounding behind."""
    scale = torch.mean(w.abs(), dim=tuple(range(1, w.ndim)), keepdim=True).detach()
    binary, clipped = scale * signs_of(w), torch.clamp(w, -1.0, 1.0)
    return binary.detach() - clipped.detach() + clipped


def ternary(w):
    return (w.abs() > 0.4).float() * torch.sign(w)


WEIGHTS = {
    "signs": signs_of,
    "xnor": xnor,
    "ir-net": ir_net,
    "reactnet": reactnet,
    "ternary": ternary,
    "real": lambda w: w,
}


# Layers


class Sign(nn.Module):
    def __init__(self, form: str):
        super().__init__()
        self.form = form

    def forward(self, x):
        return SIGNS[self.form](x)


class Conv(nn.Conv2d):
    def __init__(self, form: str, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.form = form

    def forward(self, x):
        return self._conv_forward(x, WEIGHTS[self.form](self.weight), self.bias)


class Conv1(nn.Conv1d):
    def __init__(self, form: str, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.form = form

    def forward(self, x):
        return self._conv_forward(x, WEIGHTS[self.form](self.weight), self.bias)


class Linear(nn.Linear):
    def __init__(self, form: str, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.form = form

    def forward(self, x):
        return F.linear(x, WEIGHTS[self.form](self.weight), self.bias)


class Pad(nn.Module):
    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, x):
        return F.pad(x, (1, 1) * (x.ndim - 2), value=self.value)


class Scale(nn.Module):
    """Pixels as fractions that float32 holds."""

    def forward(self, x):
        return x / 256 - 0.5


class Join(nn.Module):
    def __init__(self, kind: str, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.kind, self.body, self.shortcut = kind, body, shortcut

    def forward(self, x):
        if self.kind == "add":
            y = self.body(x)
            y += self.shortcut(x)
            return y
        return torch.cat([self.shortcut(x), self.body(x)], dim=1)


class Rows(nn.Module):
    """Images as rows, in one of the ways."""

    def __init__(self, form: str):
        super().__init__()
        self.form = form

    def forward(self, x):
        if self.form == "view":
            return x.view(x.size(0), -1)
        if self.form == "reshape":
            features = 1
            for size in x.shape[1:]:
                features *= size
            return x.reshape(-1, features)
        if self.form == "mean":
            return x.mean(dim=tuple(range(2, x.ndim)))
        if self.form == "pool":
            pool = F.adaptive_avg_pool2d if x.ndim == 4 else F.adaptive_avg_pool1d
            return pool(x, 1).flatten(1)
        return torch.flatten(x, 1)


class Kinds(NamedTuple):
    """The layers of images, or those of sequences."""

    conv: type[nn.Module]
    norm: type[nn.Module]
    max_pool: type[nn.Module]
    avg_pool: type[nn.Module]


IMAGES = Kinds(Conv, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)
SEQUENCES = Kinds(Conv1, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d)


class _Maker:
    def __init__(self, seed: int, of: Kinds, signs: Sequence[str]):
        self.rng = np.random.default_rng(seed)
        self.of, self.signs = of, signs
        self.channels = self.halvings = 0
        self.is_mixed = False  # whether channels lie in another order than in the source

    def one_of(self, *choices):
        return choices[self.rng.integers(0, len(choices))]

    def sign(self) -> nn.Module:
        return Sign(self.one_of(*self.signs))

    def start(self, layer, exact: bool):
        """Give a layer random parameters; exact ones sum up without rounding in any order."""
        with torch.no_grad():
            for parameter in layer.parameters():
                values = self.rng.normal(0, 0.5, parameter.shape)
                if exact:
                    values = np.rint(values * 32) / 32
                parameter.copy_(torch.from_numpy(values))
        return layer

    def conv(self, form: str, channels: int, **settings) -> nn.Module:
        sizes = self.channels, channels
        bias = bool(self.rng.integers(0, 2))
        layer = self.start(self.of.conv(form, *sizes, bias=bias, **settings), True)
        self.channels, self.is_mixed = channels, False
        return layer

    def norm(self, kind) -> nn.Module:
        c, rng = self.channels, self.rng
        layer = kind(c, affine=bool(rng.integers(0, 4)))
        with torch.no_grad():
            layer.running_mean.copy_(torch.from_numpy(rng.normal(0, 2, c)))
            layer.running_var.copy_(torch.from_numpy(rng.uniform(0.5, 30, c)))
            if layer.affine:
                gamma = rng.normal(0, 1, c)
                gamma[rng.integers(0, c)] = 0
                layer.weight.copy_(torch.from_numpy(gamma))
                layer.bias.copy_(torch.from_numpy(rng.normal(0, 1, c)))
        return layer

    def stride(self) -> int:
        stride = int(self.one_of(1, 1, 2)) if self.halvings < 1 else 1
        self.halvings += stride > 1
        return stride

    def block(self) -> list[nn.Module]:
        """A binary convolution with what may be around it."""
        rng = self.rng
        layers = [self.sign()]
        size, channels = int(rng.integers(1, 4)), int(rng.integers(1, 5)) * 2
        settings = {"kernel_size": size, "stride": self.stride()}
        if size == 3 and rng.integers(0, 2):
            settings["padding"] = 1
        elif size == 3 and rng.integers(0, 2):
            layers.append(Pad(self.one_of(-1.0, 1.0, 0.0)))
        if self.channels % 2 == 0 and rng.integers(0, 4) == 0 and not self.is_mixed:
            settings["groups"] = 2
        layers.append(self.conv(self.one_of(*WEIGHTS), channels, **settings))
        max_pool = self.of.max_pool
        pools = [max_pool(2, stride=1), self.of.avg_pool(2, 1), max_pool(3, 1, padding=1)]
        after = [self.norm(self.of.norm)]
        if rng.integers(0, 3) == 0:
            after.insert(int(rng.integers(0, 2)), self.one_of(*pools))
        if rng.integers(0, 3) == 0:
            extra = nn.Hardtanh(), nn.ReLU(inplace=True), nn.PReLU(self.channels), nn.PReLU()
            after.append(self.one_of(*extra, nn.LeakyReLU(0.1), nn.Identity(), nn.Dropout(0.3)))
        return layers + after

    def join(self) -> nn.Module:
        """A residual block, or features side by side."""
        channels = self.channels
        kind = self.one_of("add", "add", "cat")
        out = channels if kind == "add" else int(self.rng.integers(1, 5))
        body = [self.sign(), self.conv("signs", out, kernel_size=3, padding=1)]
        body.append(self.norm(self.of.norm))
        shortcut: nn.Module = nn.Identity()
        if kind == "add" and self.rng.integers(0, 3) == 0:
            self.channels = channels
            shortcut = nn.Sequential(self.conv("xnor", out, kernel_size=1), self.norm(self.of.norm))
        if kind == "cat":
            self.channels, self.is_mixed = channels + out, True
        return Join(kind, nn.Sequential(*body), shortcut)


def random_network(
    seed: int, of: Kinds = IMAGES, signs: Sequence[str] = tuple(SIGNS)
) -> tuple[nn.Module, np.ndarray]:
    """Make a module and a batch of its inputs, whole numbers: images, sequences or rows."""
    make = _Maker(seed, of, signs)
    rng = make.rng
    is_image = bool(rng.integers(0, 5))
    image = (22, 21) if of is IMAGES else (21,)
    shape = (int(rng.integers(1, 5)), *image) if is_image else (int(rng.integers(5, 40)),)
    x = rng.integers(0, 256, (6, *shape)).astype(np.float32)
    make.channels = shape[0]
    layers: list[nn.Module] = [Scale()] if rng.integers(0, 2) else []
    if is_image:
        layers += _image_part(make)
        with torch.no_grad():
            probe = nn.Sequential(*layers).eval()(torch.from_numpy(x))
        layers.append(Rows(make.one_of("view", "reshape", "mean", "pool", "flatten")))
        make.channels = layers[-1](probe).shape[1]
    for _ in range(int(rng.integers(0, 3))):
        if rng.integers(0, 4):
            layers.append(make.sign())
        features = int(rng.integers(3, 20))
        form, bias = make.one_of(*WEIGHTS), bool(rng.integers(0, 2))
        layers.append(make.start(Linear(form, make.channels, features, bias=bias), True))
        make.channels = features
        layers.append(make.norm(nn.BatchNorm1d))
    form = make.one_of("signs", "real")
    if form == "signs":
        layers.append(make.sign())
    bias = bool(rng.integers(0, 2))
    layers.append(make.start(Linear(form, make.channels, 5, bias=bias), True))
    if rng.integers(0, 4) == 0:
        layers.append(nn.Softmax(dim=1))
    return nn.Sequential(*layers).eval(), x


def _image_part(make: _Maker) -> list[nn.Module]:
    rng = make.rng
    layers: list[nn.Module] = []
    if rng.integers(0, 3):  # the first layer takes numbers
        settings = {"kernel_size": 3, "padding": int(rng.integers(0, 2))}
        layers.append(make.conv(make.one_of("real", "signs", "xnor"), 6, **settings))
        layers.append(make.norm(make.of.norm))
    for _ in range(int(rng.integers(1, 4))):
        layers += make.block()
        if rng.integers(0, 4) == 0:
            layers.append(make.join())
    return layers
