"""Measurements behind `bitops bench`, `bitops demo` and the programs in bench/.

All measurements follow the same rules:

- Set-up stays outside the timer.
- The two sides of a ratio are timed in turns within one run, so that a drifting clock or other load
  on the machine affects both.
- Every timed result is checked against float32 BLAS.
- No figure is stored without a description of the machine.
"""

from .bounds import port_bound, read_speed
from .gemm_table import GEMM_SHAPES, GemmOperands, GemmResult, measure_gemm
from .inference import FloatNet, InferenceResult, float_conv2d, measure_inference
from .timing import (
    BLOCK_SECONDS,
    MIN_ROUNDS,
    NO_BLAS_LIMIT,
    Timing,
    WrongResult,
    can_limit_blas,
    interleave,
    machine_stamp,
    random_signs,
    thread_counts,
    threads,
)

__all__ = [
    "BLOCK_SECONDS",
    "GEMM_SHAPES",
    "MIN_ROUNDS",
    "NO_BLAS_LIMIT",
    "FloatNet",
    "GemmOperands",
    "GemmResult",
    "InferenceResult",
    "Timing",
    "WrongResult",
    "can_limit_blas",
    "float_conv2d",
    "interleave",
    "machine_stamp",
    "measure_gemm",
    "measure_inference",
    "port_bound",
    "random_signs",
    "read_speed",
    "thread_counts",
    "threads",
]
