from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

BOOL8: int
I8: int
I16: int
I32: int
I64: int
F16: int
BF16: int
F32: int
F64: int
LARGE: int
LARGEST: int
LINE_BYTES: int
PACK_CODES: dict[np.dtype[Any], int]
DOT: int
HAMMING: int
HAMMING16: int
INTERSECTION: int
JACCARD: int
DICE: int
RANKED_BITS: int
MAJORITY_ROWS: int
AND: int
OR: int
XOR: int
XNOR: int
NOT: int
SIGN: int
MEMORY: int
_C_API: object
THREAD: int

_Words = NDArray[np.uint64]
_Batch = tuple[Any, ...] | None

def isa_names() -> list[str]: ...
def isa_runs(name: str) -> bool: ...
def isa_active() -> str: ...
def isa_use(name: str) -> None: ...
def kernels() -> list[tuple[str, str]]: ...
def compiler() -> str: ...
def port_bound(steps: int) -> int | None: ...
def has_openmp() -> bool: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def limit_to_one_thread(limit: bool) -> None: ...
def keep_freed(keep: bool) -> None: ...
def fail(kind: int, first: int, count: int = 1) -> None: ...
def requests(kind: int) -> int: ...
def live_blocks() -> int: ...
def empty_lines(shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> NDArray[Any]: ...
def pack(dtype: int, x: NDArray[np.uint8], rows: int, n: int, words_out: _Words) -> bool: ...
def compare(
    dtype: int,
    x: NDArray[np.uint8],
    rows: int,
    threshold: NDArray[np.float32],
    flip: _Words | None,
    words_out: _Words,
) -> bool: ...
def unpack(dtype: int, words: _Words, n: int, x_out: NDArray[np.uint8]) -> None: ...
def transpose(words: _Words, words_out: _Words) -> None: ...
def peak(x: NDArray[np.float32], alpha: NDArray[np.float32] | None = None) -> float: ...
def quantize(
    x: NDArray[np.float32],
    scale: float,
    seed: int,
    zero: int,
    codes_out: NDArray[np.uint8],
    alpha: NDArray[np.float32] | None = None,
) -> None: ...
def byte_gemm(
    x: NDArray[np.uint8], x_zero: int, y: NDArray[np.uint8], sums: NDArray[np.int32]
) -> None: ...
def mean_magnitude(x: NDArray[np.float32], mean_out: NDArray[np.float32]) -> None: ...
def sum_magnitude(x: NDArray[np.float32], sum_out: NDArray[np.float64]) -> None: ...
def popcount_columns(words: _Words, count_out: NDArray[np.int64]) -> None: ...
def popcount(words: _Words, count_out: NDArray[np.int64]) -> None: ...
def mirror_bytes(octets: NDArray[np.uint8], octets_out: NDArray[np.uint8]) -> None: ...
def copy_bits(words: _Words, first: int, n: int, words_out: _Words, to: int) -> None: ...
def take_rows(words: _Words, indices: NDArray[np.int64], words_out: _Words) -> bool: ...
def roll_bits(words: _Words, n: int, cut: int, words_out: _Words) -> None: ...
def flip_bits(words: _Words, n: int, words_out: _Words) -> None: ...
def combine(logic: int, a: _Words, b: _Words, n: int, words_out: _Words) -> None: ...
def majority_columns(words: _Words, least: int, words_out: _Words) -> None: ...
def majority_rows(words: _Words, least: int, words_out: _Words) -> None: ...

PLAN_INPUT: int
PLAN_OUTPUT: int

class LookupPanels:
    n: int
    k_words: int
    def __init__(self, w: _Words) -> None: ...

class FloatPanels:
    n: int
    k: int
    def __init__(self, w: NDArray[np.float32]) -> None: ...

def float_panels(w: NDArray[np.float32]) -> FloatPanels | None: ...
def float_conv(
    x: NDArray[np.float32], window: Any, panels: FloatPanels, y_out: NDArray[np.float32]
) -> None: ...

class SpareMemory: ...
class OtherIsa(ValueError): ...

class Plan:
    arena_bytes: int
    is_current: bool
    def __init__(
        self, x_bytes: int, y_bytes: int, arena_bytes: int, spare: SpareMemory
    ) -> None: ...
    def gemm(
        self,
        x: int,
        y: int,
        m: int,
        w: Panels,
        rows: _Words,
        k: int,
        alpha: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        threshold: NDArray[np.int32] | None,
        flip: _Words | None,
    ) -> None: ...
    def conv(
        self,
        x: int,
        y: int,
        images: int,
        convolution: Convolution,
        alpha: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        threshold: NDArray[np.int32] | None,
        flip: _Words | None,
    ) -> None: ...
    def scaled_conv(
        self,
        x: int,
        k_map: int,
        y: int,
        images: int,
        convolution: Convolution,
        alpha: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
    ) -> None: ...
    def mixed(
        self,
        x: int,
        y: int,
        dtype: int,
        bits: int,
        rows: int,
        k: int,
        w: _Words,
        panels: Panels | None,
        lookup: LookupPanels,
        alpha: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        threshold: NDArray[np.float32] | None,
        flip: _Words | None,
        images: tuple[Any, ...] | None = None,
    ) -> None: ...
    def floats_product(
        self,
        x: int,
        y: int,
        multiply: Any,
        block_ends: NDArray[np.int64],
        k: int,
        n: int,
        alpha: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        relu: bool,
        images: tuple[Any, ...] | None = None,
    ) -> None: ...
    def float_conv(
        self,
        x: int,
        y: int,
        images: int,
        window: Any,
        channels: int,
        panels: FloatPanels,
        alpha: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        relu: bool,
    ) -> None: ...
    def compare(
        self,
        x: int,
        y: int,
        dtype: int,
        rows: int,
        n: int,
        threshold: NDArray[np.float32] | None,
        flip: _Words | None,
    ) -> None: ...
    def affine(
        self,
        x: int,
        y: int,
        dtype: int,
        rows: int,
        n: int,
        alpha: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        relu: bool,
    ) -> None: ...
    def add(self, x: int, other: int, y: int, n: int) -> None: ...
    def unpack(self, x: int, y: int, rows: int, n: int) -> None: ...
    def pool_bits(
        self, x: int, y: int, images: int, window: Any, channels: int, minimum: _Words | None
    ) -> None: ...
    def pool_floats(self, x: int, y: int, images: int, window: Any, channels: int) -> None: ...
    def flatten(self, x: int, y: int, images: int, window: Any, channels: int) -> None: ...
    def run(self, x: NDArray[Any], y_out: NDArray[Any]) -> bool: ...

class Panels:
    n: int
    k_words: int
    groups: int
    nbytes: int
    isa_name: str
    def __init__(self, w: _Words, groups: int = 1) -> None: ...

def gemm(
    a: _Words, w: _Words | Panels, k: int, batch: _Batch, c_out: NDArray[np.int32]
) -> None: ...
def gemm_scaled(
    a: _Words,
    w: _Words | Panels,
    k: int,
    batch: _Batch,
    alpha: NDArray[np.float32] | None,
    k_map: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    c_out: NDArray[np.float32],
) -> None: ...
def gemm_sign(
    a: _Words,
    w: _Words | Panels,
    k: int,
    batch: _Batch,
    threshold: NDArray[np.int32],
    flip: _Words | None,
    c_out: _Words,
) -> None: ...
def hamming(
    a: _Words, w: _Words | Panels, k: int, batch: _Batch, c_out: NDArray[np.int32]
) -> None: ...
def hamming16(
    a: _Words, w: _Words | Panels, k: int, batch: _Batch, c_out: NDArray[np.uint16]
) -> None: ...
def metric(
    kind: int,
    a: _Words,
    w: _Words | Panels,
    k: int,
    batch: _Batch,
    a_counts: NDArray[np.int32] | None,
    w_counts: NDArray[np.int32] | None,
    c_out: NDArray[Any],
) -> None: ...
def topk(
    kind: int,
    a: _Words,
    w: _Words | Panels,
    k: int,
    a_counts: NDArray[np.int32] | None,
    w_counts: NDArray[np.int32] | None,
    allowed: _Words | None,
    values_out: NDArray[Any],
    indices_out: NDArray[np.int64],
    lines: Lines | None = None,
) -> None: ...
def score_topk(
    x: NDArray[np.float32],
    w: _Words,
    alpha: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    scores_out: NDArray[np.float32],
    indices_out: NDArray[np.int64],
) -> None: ...
def score_topk_codes(
    x: NDArray[np.uint8],
    zero: int,
    w: _Words,
    bits: int,
    alpha: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    scores_out: NDArray[np.float32],
    indices_out: NDArray[np.int64],
) -> None: ...
def rescore(
    x: NDArray[np.float32],
    w: _Words,
    indices: NDArray[np.int64],
    sums_out: NDArray[np.float32],
) -> None: ...

class Found:
    def __len__(self) -> int: ...
    def copy(self, pairs_out: NDArray[np.uint64], distances_out: NDArray[np.int32]) -> None: ...

SCAN_WORDS: int

def scan(
    a: _Words,
    b: _Words,
    radius: int,
    upper: bool,
    first: int,
    rows: int,
    first_words: int,
    bounds: NDArray[np.float32] | None = None,
    b_counts: NDArray[np.int32] | None = None,
) -> Found: ...
def join(
    a: _Words,
    b: _Words,
    radius: int,
    upper: bool,
    chunks: NDArray[np.uint32],
    choices: NDArray[np.uint32],
    most_compared: int,
    compared_out: NDArray[np.uint64],
) -> Found: ...
def lines_pay(k: int, a_counts: NDArray[np.int32]) -> bool: ...

class Lines:
    def __init__(self, w: _Words) -> None: ...

class Bits:
    _words: _Words
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def axis(self) -> int: ...
    @property
    def words(self) -> _Words: ...
    @property
    def ndim(self) -> int: ...
    @classmethod
    def _make(cls, words: _Words, shape: tuple[int, ...], axis: int) -> Self: ...
    def _usual_item(self, index: Any) -> Self | None: ...
    def _usual_reshape(self, shape: tuple[Any, ...]) -> Self | None: ...

class Weights:
    @property
    def bits(self) -> Any: ...
    def __init__(self, bits: Bits) -> None: ...
    def derived(self, key: Any, make: Callable[..., Any], *arguments: Any) -> Any: ...

def set_bits_class(cls: type[Bits]) -> None: ...
def usual_product(
    kind: int, a: Any, w: Any, factors: tuple[Any, ...], out: Any, w_axis: int = 1
) -> Any: ...
def usual_topk(a: Any, w: Any, count: Any) -> Any: ...
def usual_mixed(bits: int, x: Any, w: Any, alpha: Any, bias: Any, out: Any) -> Any: ...
def is_plain(settings: Any) -> bool: ...
def usual_convolution(
    kind: int,
    where: str,
    x: Any,
    w: Any,
    settings: tuple[Any, ...],
    factors: tuple[Any, ...],
    out: Any,
) -> Any: ...
def usual_pack(x: Any, axis: Any) -> Any: ...
def usual_above(x: Any, threshold: Any, flip: Any) -> Any: ...
def usual_popcount(x: Any, axis: Any) -> Any: ...
def usual_words(cls: type[Bits], words: Any, shape: Any) -> Any: ...
def im2col(
    x: _Words, window: tuple[Any, ...], channels: int, outside: bool, rows_out: _Words
) -> None: ...
def max_windows(
    x: NDArray[Any], bits: bool, window: tuple[Any, ...], max_out: NDArray[Any] | None
) -> NDArray[Any] | None: ...
def max_places(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    window: tuple[Any, ...],
    places_out: NDArray[np.uint8],
) -> None: ...
def max_gradient(
    places: NDArray[np.uint8],
    dy: NDArray[np.float32],
    window: tuple[Any, ...],
    dx_out: NDArray[np.float32],
) -> None: ...
def mean_gradient(
    dy: NDArray[np.float32], window: tuple[Any, ...], dx_out: NDArray[np.float32]
) -> None: ...
def mean_windows(
    x: NDArray[np.float32], window: tuple[Any, ...], mean_out: NDArray[np.float32]
) -> None: ...
def mean_images(x: NDArray[np.float32], mean_out: NDArray[np.float32]) -> None: ...
def sum_taps(w: _Words, channels: int, sum_out: NDArray[np.int32]) -> None: ...
def is_depthwise(channels: int, groups: int, filters: int) -> bool: ...

class Convolution:
    def __init__(
        self,
        window: tuple[Any, ...],
        channels: int,
        groups: int,
        filters: int,
        w: _Words | Panels,
        tap_sums: NDArray[np.int32] | None,
        outside: bool,
    ) -> None: ...
    def dot(self, x: _Words, c_out: NDArray[np.int32]) -> None: ...
    def scaled(
        self,
        x: _Words,
        alpha: NDArray[np.float32] | None,
        k_map: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        c_out: NDArray[np.float32],
    ) -> None: ...
    def sign(
        self, x: _Words, threshold: NDArray[np.int32], flip: _Words | None, c_out: _Words
    ) -> None: ...

def weight_gemm(
    x: NDArray[np.float32],
    w: _Words,
    alpha: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    c_out: NDArray[np.float32],
    turned: bool = False,
) -> None: ...
def weights_to_images(
    x: NDArray[np.float32], w: _Words, window: tuple[Any, ...], images_out: NDArray[np.float32]
) -> None: ...
def bitplanes_to_images(
    x: NDArray[np.uint8],
    w: _Words,
    window: tuple[Any, ...],
    alpha: NDArray[np.float32],
    bias: NDArray[np.float32],
    images_out: NDArray[np.float32],
    zero: int = 0,
) -> None: ...
def conv_codes(
    x: NDArray[np.uint8],
    w: _Words,
    window: tuple[Any, ...],
    bits: int,
    alpha: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    c_out: NDArray[np.float32],
    zero: int,
    outside: int,
    most: int,
) -> bool: ...
def bitplane_gemm(
    x: NDArray[np.uint8],
    w: _Words,
    panels: Panels | None,
    bits: int,
    c_out: NDArray[np.int32],
    turned: bool = False,
    zero: int = 0,
    most: int = 0,
) -> None: ...
def bitplane_gemm_scaled(
    x: NDArray[np.uint8],
    w: _Words,
    panels: Panels | None,
    bits: int,
    alpha: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    c_out: NDArray[np.float32],
    turned: bool = False,
    zero: int = 0,
    most: int = 0,
) -> None: ...
def adam(
    g: NDArray[np.float32],
    rate: float,
    beta1_rest: float,
    beta2_rest: float,
    eps: float,
    keep: float,
    clip: float,
    seed: int,
    w: NDArray[np.float32] | NDArray[np.int16],
    m: NDArray[np.float32] | NDArray[np.uint16],
    v: NDArray[np.float32] | NDArray[np.uint16],
    words_out: NDArray[np.uint64] | None = None,
) -> bool: ...
def adam_product(
    x: NDArray[np.float32] | NDArray[np.uint8],
    bits: NDArray[np.uint64],
    zero: int,
    alpha: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    rate: float,
    beta1_rest: float,
    beta2_rest: float,
    eps: float,
    keep: float,
    clip: float,
    seed: int,
    w: NDArray[np.float32] | NDArray[np.int16],
    m: NDArray[np.float32] | NDArray[np.uint16],
    v: NDArray[np.float32] | NDArray[np.uint16],
    words_out: NDArray[np.uint64] | None = None,
) -> bool: ...
def norm_sums(
    x: NDArray[np.float32],
    relu: bool,
    sum_out: NDArray[np.float64],
    mean: NDArray[np.float32] | None = None,
    powers: bool = False,
) -> None: ...
def norm_narrow(x: NDArray[np.float32], x16_out: NDArray[np.int16]) -> bool: ...
def norm_products(
    x: NDArray[np.float32] | NDArray[np.int16],
    dy: NDArray[np.float32],
    norm: NDArray[np.float32],
    relu: bool,
    sums_out: NDArray[np.float64],
    within: _Words | None = None,
    powers: bool = False,
) -> None: ...
def norm_values(
    x: NDArray[np.float32], norm: NDArray[np.float32], relu: bool, y_out: NDArray[np.float32]
) -> None: ...
def norm_signs(
    x: NDArray[np.float32],
    limit: float,
    signs_out: _Words,
    within_out: _Words,
    norm: NDArray[np.float32] | None = None,
    relu: bool = False,
) -> bool: ...
def norm_positives(
    x: NDArray[np.float32],
    y_out: NDArray[np.float32],
    positive_out: _Words,
    norm: NDArray[np.float32] | None = None,
    relu: bool = False,
) -> None: ...
def norm_gradient(
    x: NDArray[np.float32] | NDArray[np.int16],
    dy: NDArray[np.float32],
    norm: NDArray[np.float32],
    relu: bool,
    dx_out: NDArray[np.float32],
    within: _Words | None = None,
    powers: bool = False,
) -> None: ...
def keep_within(x: NDArray[np.float32], within: _Words, y_out: NDArray[np.float32]) -> None: ...
def prelu_values(
    x: NDArray[np.float32],
    shift: NDArray[np.float32] | None,
    slope: NDArray[np.float32],
    offset: NDArray[np.float32] | None,
    y_out: NDArray[np.float32],
) -> None: ...
def prelu_gradient(
    x: NDArray[np.float32],
    dy: NDArray[np.float32],
    shift: NDArray[np.float32],
    slope: NDArray[np.float32] | None,
    dx_out: NDArray[np.float32],
    sums_out: NDArray[np.float64],
) -> None: ...
