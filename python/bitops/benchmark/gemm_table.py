"""The GEMM measurement behind `bitops bench`: packed products against float32 BLAS."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import isa
from ..ops.array import pack
from ..ops.linalg import gemm
from ..ops.prepack import prepack
from .timing import Timing, WrongResult, interleave, random_signs, threads

__all__ = ["GEMM_SHAPES", "GemmOperands", "GemmResult", "measure_gemm"]

# (m, n, k): three squares, a 3x3 convolution of 256 channels at 14x14, and a dense layer for
# batches of 100 and 1.
GEMM_SHAPES = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (196, 256, 2304),
    (100, 4096, 4096),
    (1, 4096, 4096),
)


@dataclass(frozen=True)
class GemmResult:
    """One row of the GEMM table: float32 BLAS, packed operands, and `a` packed within the call."""

    m: int
    n: int
    k: int
    threads: int
    isa: str
    blas: Timing
    packed: Timing
    with_packing: Timing

    def gmacs(self, timing: Timing) -> float:
        """Return 1e9 multiply-accumulates per second; a binary one counts like a float32 one."""
        return self.m * self.n * self.k / timing.best / 1e9

    def ratio(self, timing: Timing) -> float:
        """Return the speed relative to float32 BLAS, best time against best time."""
        return self.blas.best / timing.best

    def as_dict(self) -> dict[str, Any]:
        """Return all measured and derived figures, for JSON."""
        return asdict(self) | {
            "gmacs": {
                "blas": self.gmacs(self.blas),
                "packed": self.gmacs(self.packed),
                "with_packing": self.gmacs(self.with_packing),
            },
            "ratio": {
                "packed": self.ratio(self.packed),
                "with_packing": self.ratio(self.with_packing),
            },
        }


class GemmOperands:
    """Operands and output buffers of one GEMM, float32 and packed, and a check of its results."""

    def __init__(self, m: int, n: int, k: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.shape = (m, n, k)
        self.a, self.w = random_signs(rng, (m, k)), random_signs(rng, (n, k))
        self.a_bits, self.w_bits = pack(self.a), prepack(pack(self.w))
        self.float_out = np.empty((m, n), np.float32)
        self.out = np.empty((m, n), np.int32)
        # Exact: every partial sum of +-1 is an integer below 2**24, which float32 holds.
        assert k <= 1 << 24
        self.expected = self.a @ self.w.T

    def blas(self) -> np.ndarray:
        """Multiply the +-1 values with float32 BLAS."""
        return np.matmul(self.a, self.w.T, out=self.float_out)

    def packed(self) -> np.ndarray:
        """Multiply operands that are both packed in advance."""
        return gemm(self.a_bits, self.w_bits, out=self.out)

    def with_packing(self) -> np.ndarray:
        """Pack float32 `a` within the call, as a network does, and multiply by packed weights."""
        return gemm(pack(self.a), self.w_bits, out=self.out)

    def check(self, name: str, result: np.ndarray) -> None:
        """Compare with the float32 product, then overwrite the buffer to expose stale results."""
        if not np.array_equal(result, self.expected):
            raise WrongResult(f"[bench] {name} gave a wrong product for (m, n, k) = {self.shape}")
        result.fill(np.iinfo(np.int32).min)


def measure_gemm(operands: GemmOperands, thread_count: int, *, seconds: float) -> GemmResult:
    """Time one shape with one thread count on the running ISA.

    Raises
    ------
    WrongResult
        If any timed product differs from the float32 one.
    """
    calls = {
        "blas": operands.blas,
        "packed": operands.packed,
        "with_packing": operands.with_packing,
    }
    with threads(thread_count):
        timings = interleave(calls, seconds=seconds, check=operands.check)
    return GemmResult(
        *operands.shape,
        thread_count,
        isa.active(),
        timings["blas"],
        timings["packed"],
        timings["with_packing"],
    )
