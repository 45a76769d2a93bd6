/* program.c: what a C extension would do with bitops_api.h, as a library that test_c_api.py loads.
 * Each function makes one call or one sequence of calls that belong together. */
#include <Python.h>

#include <bitops_api.h>

static const bitops_api *bo;

/* The number of the table's version; 0 if there is none. */
int open_table(void) {
    bo = bitops_import();
    return bo ? (int)bo->version : 0;
}

const bitops_api *table(void) {
    return bo;
}

static bitops_matrix rows_of(const uint64_t *words, size_t ld, size_t rows, size_t k) {
    const bitops_matrix matrix = {words, ld, rows, k, NULL};
    return matrix;
}

/* The dot products, with plain or with prepacked weights. */
int multiply(const uint64_t *a, size_t lda, size_t m, const uint64_t *w, size_t ldw, size_t n,
             size_t k, int ready, int32_t *c_out, size_t ldc) {
    bitops_matrix x = rows_of(a, lda, m, k), y = rows_of(w, ldw, n, k);
    bitops_panels *panels = NULL;
    if (ready) {
        const int status = bo->prepack(&y, &panels);
        if (status != BITOPS_OK)
            return status;
        y.panels = panels;
    }
    const int status = bo->gemm(&x, &y, c_out, ldc);
    bo->free_panels(panels);
    return status;
}

int multiply_scaled(const uint64_t *a, size_t m, const uint64_t *w, size_t n, size_t k,
                    const float *alpha, const float *k_map, const float *bias, float *c_out) {
    const bitops_matrix x = rows_of(a, bo->words(k), m, k), y = rows_of(w, bo->words(k), n, k);
    const bitops_scales scales = {alpha, k_map, bias};
    return bo->gemm_scaled(&x, &y, &scales, c_out, n);
}

int multiply_sign(const uint64_t *a, size_t m, const uint64_t *w, size_t n, size_t k,
                  const int32_t *threshold, const uint64_t *flip, uint64_t *c_out) {
    const bitops_matrix x = rows_of(a, bo->words(k), m, k), y = rows_of(w, bo->words(k), n, k);
    return bo->gemm_sign(&x, &y, threshold, flip, c_out, bo->words(n));
}

int distances(const uint64_t *a, size_t m, const uint64_t *b, size_t n, size_t k, int32_t *c_out) {
    const bitops_matrix x = rows_of(a, bo->words(k), m, k), y = rows_of(b, bo->words(k), n, k);
    return bo->hamming(&x, &y, c_out, n);
}

int nearest(const uint64_t *a, size_t m, const uint64_t *b, size_t n, size_t k, size_t count,
            int32_t *distances_out, int64_t *indices_out) {
    const bitops_matrix x = rows_of(a, bo->words(k), m, k), y = rows_of(b, bo->words(k), n, k);
    return bo->hamming_topk(&x, &y, count, distances_out, indices_out);
}

/* Numbers of float32 packed, counted and unpacked again. */
int round_trip(const float *x, size_t rows, size_t k, uint64_t *words_out, int64_t *count_out,
               float *x_out) {
    const int status = bo->pack_f32(x, rows, k, words_out);
    if (status != BITOPS_OK)
        return status;
    bo->popcount(words_out, rows, bo->words(k), count_out);
    return bo->unpack_f32(words_out, rows, k, x_out);
}

/* A convolution by each kind of output; those that are NULL are left out. */
int convolve(const bitops_conv2d_shape *shape, const uint64_t *x, size_t images, const uint64_t *w,
             const float *alpha, const int32_t *threshold, const uint64_t *flip, int32_t *dot_out,
             float *scaled_out, uint64_t *sign_out) {
    bitops_conv2d *conv = NULL;
    int status = bo->make_conv2d(shape, w, &conv);
    if (status != BITOPS_OK)
        return status;
    const bitops_scales scales = {alpha, NULL, NULL};
    status = bo->conv2d(conv, x, images, dot_out);
    if (status == BITOPS_OK)
        status = bo->conv2d_scaled(conv, x, images, &scales, scaled_out);
    if (status == BITOPS_OK)
        status = bo->conv2d_sign(conv, x, images, threshold, flip, sign_out);
    bo->free_conv2d(conv);
    return status;
}

/* The status of calls whose arguments are wrong, a bit for each that is not refused. */
int accepted_mistakes(const uint64_t *words, int32_t *c_out) {
    bitops_matrix a = rows_of(words, 1, 1, 64), b = rows_of(words, 1, 1, 63);
    bitops_matrix narrow = rows_of(words, 1, 1, 65), none = rows_of(NULL, 1, 1, 64);
    bitops_conv2d_shape shape = {4, 4, 64, 1, 5, 5, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0};
    bitops_panels *panels = NULL;
    bitops_conv2d *conv = NULL;
    int64_t index;
    int accepted = 0;
    accepted |= (bo->gemm(&a, &b, c_out, 1) == BITOPS_OK) << 0;
    accepted |= (bo->gemm(&a, NULL, c_out, 1) == BITOPS_OK) << 1;
    accepted |= (bo->gemm(&a, &narrow, c_out, 1) == BITOPS_OK) << 2;
    accepted |= (bo->gemm(&none, &a, c_out, 1) == BITOPS_OK) << 3;
    accepted |= (bo->gemm(&a, &a, NULL, 1) == BITOPS_OK) << 4;
    accepted |= (bo->gemm(&a, &a, c_out, 0) == BITOPS_OK) << 5;
    accepted |= (bo->hamming_topk(&a, &a, 2, c_out, &index) == BITOPS_OK) << 6;
    accepted |= (bo->hamming_topk(&a, &a, 0, c_out, &index) == BITOPS_OK) << 7;
    accepted |= (bo->make_conv2d(&shape, words, &conv) == BITOPS_OK) << 8; /* kernel too large */
    shape.kernel_height = shape.kernel_width = 1;
    shape.groups = 3;
    accepted |= (bo->make_conv2d(&shape, words, &conv) == BITOPS_OK) << 9;
    shape.groups = 1;
    shape.pad_value = 2;
    accepted |= (bo->make_conv2d(&shape, words, &conv) == BITOPS_OK) << 10;
    if (bo->prepack(&a, &panels) == BITOPS_OK) { /* panels of other rows */
        b.panels = panels;
        accepted |= (bo->gemm(&b, &b, c_out, 1) == BITOPS_OK) << 11;
        bo->free_panels(panels);
    }
    return accepted;
}
