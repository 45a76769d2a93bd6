"""Declarations of bitops_api.h for Cython programs; compile them with bitops.get_include().

bitops_import() returns the table of functions; the header says what they do.
"""
from libc.stdint cimport int32_t, int64_t, int8_t, uint8_t, uint32_t, uint64_t


cdef extern from "bitops_api.h" nogil:
    enum:
        BITOPS_API_VERSION

    ctypedef enum bitops_status:
        BITOPS_OK
        BITOPS_NAN
        BITOPS_NO_MEMORY
        BITOPS_BAD_ARGUMENT

    ctypedef struct bitops_panels:
        pass

    ctypedef struct bitops_matrix:
        const uint64_t *words
        size_t ld
        size_t rows
        size_t k
        const bitops_panels *panels

    ctypedef struct bitops_scales:
        const float *alpha
        const float *k_map
        const float *bias

    ctypedef struct bitops_conv2d_shape:
        size_t height, width, channels
        size_t filters
        size_t kernel_height, kernel_width
        size_t stride_y, stride_x
        size_t dilation_y, dilation_x
        size_t pad_top, pad_bottom, pad_left, pad_right
        size_t groups
        int pad_value

    ctypedef struct bitops_conv2d:
        pass

    ctypedef struct bitops_api:
        uint32_t version
        uint32_t size
        size_t (*words)(size_t k) noexcept nogil
        const char *(*isa)() noexcept nogil
        int (*get_num_threads)() noexcept nogil
        void (*set_num_threads)(int n) noexcept nogil
        int (*pack_bool8)(const uint8_t *x, size_t rows, size_t k, uint64_t *words_out) noexcept nogil
        int (*pack_i8)(const int8_t *x, size_t rows, size_t k, uint64_t *words_out) noexcept nogil
        int (*pack_i32)(const int32_t *x, size_t rows, size_t k, uint64_t *words_out) noexcept nogil
        int (*pack_f32)(const float *x, size_t rows, size_t k, uint64_t *words_out) noexcept nogil
        int (*pack_f64)(const double *x, size_t rows, size_t k, uint64_t *words_out) noexcept nogil
        int (*unpack_i8)(const uint64_t *words, size_t rows, size_t k, int8_t *x_out) noexcept nogil
        int (*unpack_f32)(const uint64_t *words, size_t rows, size_t k, float *x_out) noexcept nogil
        int (*popcount)(const uint64_t *words, size_t rows, size_t n_words,
                        int64_t *count_out) noexcept nogil
        int (*prepack)(const bitops_matrix *w, bitops_panels **panels_out) noexcept nogil
        void (*free_panels)(bitops_panels *panels) noexcept nogil
        int (*gemm)(const bitops_matrix *a, const bitops_matrix *w, int32_t *c_out,
                    size_t ldc) noexcept nogil
        int (*gemm_scaled)(const bitops_matrix *a, const bitops_matrix *w,
                           const bitops_scales *scales, float *c_out, size_t ldc) noexcept nogil
        int (*gemm_sign)(const bitops_matrix *a, const bitops_matrix *w, const int32_t *threshold,
                         const uint64_t *flip, uint64_t *c_out, size_t ldc) noexcept nogil
        int (*hamming)(const bitops_matrix *a, const bitops_matrix *b, int32_t *c_out,
                       size_t ldc) noexcept nogil
        int (*hamming_topk)(const bitops_matrix *a, const bitops_matrix *b, size_t count,
                            int32_t *distances_out, int64_t *indices_out) noexcept nogil
        int (*make_conv2d)(const bitops_conv2d_shape *shape, const uint64_t *w,
                           bitops_conv2d **conv_out) noexcept nogil
        void (*free_conv2d)(bitops_conv2d *conv) noexcept nogil
        void (*conv2d_output)(const bitops_conv2d *conv, size_t *height_out,
                              size_t *width_out) noexcept nogil
        int (*conv2d)(const bitops_conv2d *conv, const uint64_t *x, size_t images,
                      int32_t *c_out) noexcept nogil
        int (*conv2d_scaled)(const bitops_conv2d *conv, const uint64_t *x, size_t images,
                             const bitops_scales *scales, float *c_out) noexcept nogil
        int (*conv2d_sign)(const bitops_conv2d *conv, const uint64_t *x, size_t images,
                           const int32_t *threshold, const uint64_t *flip,
                           uint64_t *c_out) noexcept nogil

    const bitops_api *bitops_import() except NULL with gil
