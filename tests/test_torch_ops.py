"""Operators of PyTorch: the same results, the tensors' memory, no graph breaks."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

import bitops as bo  # noqa: E402
from bitops import torch_ops  # noqa: E402

OPS = torch.ops.bitops


def packed(seed, *shape):
    """A BitArray, and its words as a tensor that shares their memory."""
    b = bo.pack(np.random.default_rng(seed).standard_normal(shape))
    return b, torch.from_numpy(b.words.view(np.int64))


def test_pack_and_unpack_equal_bitops():
    x = torch.randn(3, 4, 100, generator=torch.Generator().manual_seed(0))
    words = OPS.pack(x)
    np.testing.assert_array_equal(words.numpy().view(np.uint64), bo.pack(x.numpy()).words)
    np.testing.assert_array_equal(OPS.pack(x.bfloat16()).numpy(), words.numpy())
    assert torch.equal(OPS.unpack(words, 100), torch.where(x >= 0, 1.0, -1.0))


@pytest.mark.parametrize("scales", [{}, {"alpha": True}, {"alpha": True, "bias": True}])
def test_gemm_equals_bitops(scales):
    (a, a_words), (w, w_words) = packed(1, 5, 7, 100), packed(2, 20, 100)
    numbers = {name: torch.randn(20) for name in scales}
    result = OPS.gemm(a_words, w_words, 100, **numbers)
    expected = bo.gemm(a, w, **{name: x.numpy() for name, x in numbers.items()})
    np.testing.assert_array_equal(result.numpy(), expected)
    assert result.numpy().dtype == expected.dtype


def test_hamming_equals_bitops():
    (a, a_words), (b, b_words) = packed(3, 9, 70), packed(4, 20, 70)
    np.testing.assert_array_equal(OPS.hamming(a_words, b_words, 70).numpy(), bo.hamming(a, b))


CONVOLUTIONS = (
    {},
    {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
    {"padding": (1, 1), "pad_value": -1, "groups": 2},
)


@pytest.mark.parametrize("settings", CONVOLUTIONS)
def test_conv2d_equals_bitops(settings):
    groups = settings.get("groups", 1)
    (x, x_words), (w, w_words) = packed(5, 2, 9, 8, 128), packed(6, 6, 3, 3, 128 // groups)
    result = OPS.conv2d(x_words, w_words, 128, **settings)
    np.testing.assert_array_equal(result.numpy(), bo.conv2d(x, w, **settings))
    alpha = torch.randn(6)
    result = OPS.conv2d(x_words, w_words, 128, alpha=alpha, **settings)
    np.testing.assert_array_equal(result.numpy(), bo.conv2d(x, w, alpha=alpha.numpy(), **settings))


def test_operands_are_not_copied(monkeypatch):
    seen = []
    gemm = torch_ops.linalg.gemm
    monkeypatch.setattr(torch_ops.linalg, "gemm", lambda *b, **s: seen.extend(b) or gemm(*b, **s))
    (_, a), (_, w) = packed(7, 5, 128), packed(8, 6, 128)
    OPS.gemm(a, w, 128)
    assert [b.words.ctypes.data for b in seen] == [a.data_ptr(), w.data_ptr()]


def test_results_are_tensors_of_their_own():
    (_, a), (_, w) = packed(9, 5, 128), packed(10, 6, 128)
    first = OPS.gemm(a, w, 128)
    kept = first.clone()
    OPS.gemm(w, a, 128)
    assert torch.equal(first, kept)


SAMPLES = {
    "pack": lambda: (torch.randn(3, 70),),
    "unpack": lambda: (packed(11, 3, 70)[1], 70),
    "gemm": lambda: (packed(11, 3, 70)[1], packed(12, 4, 70)[1], 70),
    "hamming": lambda: (packed(11, 3, 70)[1], packed(12, 4, 70)[1], 70),
    "conv2d": lambda: (packed(13, 2, 6, 5, 64)[1], packed(14, 4, 3, 3, 64)[1], 64),
}


@pytest.mark.parametrize("name", torch_ops.__all__)
@pytest.mark.filterwarnings("ignore")  # PyTorch's own
def test_pytorch_accepts_the_operators(name):
    """Schemas, shapes that are known beforehand, also with dynamic sizes, and no gradients."""
    torch.library.opcheck(getattr(OPS, name).default, SAMPLES[name]())


@pytest.mark.filterwarnings("ignore")
def test_compiled_without_graph_breaks():
    _, w = packed(15, 32, 100)
    alpha = torch.rand(32)

    def layer(x):
        hidden = OPS.gemm(OPS.pack(torch.tanh(x)), w, 100, alpha=alpha)
        return torch.relu(hidden) + 1

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for rows in (4, 9):  # a second size is a dynamic one
        x = torch.randn(rows, 100)
        assert torch.equal(compiled(x), layer(x))


def test_mistakes_are_named():
    _, w = packed(16, 4, 70)
    with pytest.raises(TypeError, match="a must be packed, a tensor of int64"):
        OPS.gemm(torch.randn(3, 2), w, 70)
    with pytest.raises(ValueError, match="words of shape"):
        OPS.gemm(w, w, 200)
    with pytest.raises(ValueError, match="groups must be at least 1, got 0"):
        OPS.conv2d(packed(17, 1, 3, 3, 64)[1], packed(18, 1, 1, 1, 64)[1], 64, groups=0)
