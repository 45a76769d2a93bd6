# cython: language_level=3, freethreading_compatible=True
"""What a Cython program does with bitops._core's declarations; test_c_api.py compiles it."""
from libc.stdint cimport int32_t, uint64_t

from bitops._core cimport BITOPS_OK, bitops_api, bitops_import, bitops_matrix

cdef const bitops_api *bo = bitops_import()


def multiply(const uint64_t[:, ::1] a, const uint64_t[:, ::1] w, size_t k, int32_t[:, ::1] c_out):
    """Write the dot products of all pairs of rows, without the GIL."""
    cdef bitops_matrix x = bitops_matrix(&a[0, 0], a.shape[1], a.shape[0], k, NULL)
    cdef bitops_matrix y = bitops_matrix(&w[0, 0], w.shape[1], w.shape[0], k, NULL)
    cdef int status
    with nogil:
        status = bo.gemm(&x, &y, &c_out[0, 0], c_out.shape[1])
    if status != BITOPS_OK:
        raise ValueError(f"status {status}")
