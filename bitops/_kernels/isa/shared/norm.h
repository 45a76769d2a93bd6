/* norm.h: passes of batch normalisation over rows, loops that compilers vectorise with the
 * instructions of the file that includes this. operations.h states the steps. */
#ifndef BITOPS_NORM_H
#define BITOPS_NORM_H

#include "operations.h"
#include "isa/shared/target.h"

#include <math.h>
#include <string.h>

/* Constants `relu`, `powers`, `squares` and `masked` leave loops without branches. */

BITOPS_INLINE float norm_input(float x, const int relu) {
    return relu && x < 0 ? 0 : x; /* NaN is not below 0 */
}

/* AP2(z) by its bits: z rounds up to a power of two from sqrt(1/2) times it on. NaN stays. */
BITOPS_INLINE float norm_power(float z) {
    uint32_t bits;
    memcpy(&bits, &z, sizeof bits);
    const uint32_t nan = -(uint32_t)((bits & 0x7fffffffu) > 0x7f800000u);
    const uint32_t power = (bits + (0x00800000u - 0x003504f4u)) & 0xff800000u;
    bits = (bits & nan) | (power & ~nan);
    memcpy(&z, &bits, sizeof z);
    return z;
}

BITOPS_INLINE float norm_xhat(const float t, float mean, float inv_std, const int powers) {
    const float xhat = (t - mean) * inv_std;
    return powers ? norm_power(xhat) : xhat;
}

BITOPS_INLINE float norm_term(float x, const float *mean, size_t j, const int relu,
                              const int powers, const int squares) {
    const float t = norm_input(x, relu);
    if (!squares)
        return t;
    const float c = t - mean[j];
    return c * (powers ? norm_power(c) : c);
}

BITOPS_INLINE void norm_sum_rows(const float *restrict x, size_t ld, size_t rows, size_t n,
                                 const float *restrict mean, const int relu, const int powers,
                                 const int squares, float *restrict sum_out) {
    for (size_t j = 0; j < n; j++)
        sum_out[j] = norm_term(x[j], mean, j, relu, powers, squares);
    for (size_t i = 1; i < rows; i++) {
        x += ld;
        for (size_t j = 0; j < n; j++)
            sum_out[j] += norm_term(x[j], mean, j, relu, powers, squares);
    }
}

BITOPS_INLINE void norm_sum_columns(const bitops_norm *norm, const float *x, size_t ld, size_t rows,
                                    size_t column, size_t n, const int relu, float *sum_out) {
    if (norm->mean == NULL)
        norm_sum_rows(x, ld, rows, n, NULL, relu, 0, 0, sum_out);
    else if (norm->powers)
        norm_sum_rows(x, ld, rows, n, norm->mean + column, relu, 1, 1, sum_out);
    else
        norm_sum_rows(x, ld, rows, n, norm->mean + column, relu, 0, 1, sum_out);
}

BITOPS_INLINE void norm_row(const bitops_norm *norm, const float *restrict x, size_t column,
                            size_t n, const int relu, float *restrict y) {
    const float *restrict mean = norm->mean + column, *restrict inv_std = norm->inv_std + column;
    const float *restrict gamma = norm->gamma + column, *restrict beta = norm->beta + column;
    for (size_t j = 0; j < n; j++)
        y[j] = (norm_input(x[j], relu) - mean[j]) * inv_std[j] * gamma[j] + beta[j];
}

/* 1 where x > 0, and 0 elsewhere, by its bits: a choice between numbers would become a branch. NaN
 * may be either, since what it is multiplied by is NaN then. */
BITOPS_INLINE float norm_slope(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t one = 0x3f800000u & -(uint32_t)(bits > 0);
    float slope;
    memcpy(&slope, &one, sizeof slope);
    return slope;
}

/* `passes` holds 1 and -1. */
BITOPS_INLINE float norm_passed(float dy, const float *passes, size_t j, const int masked) {
    return masked ? dy * (passes[j] * 0.5f + 0.5f) : dy;
}

BITOPS_INLINE void norm_product_row(const bitops_norm *norm, const float *restrict x,
                                    const float *restrict dy, const float *restrict passes,
                                    size_t column, size_t n, const int relu, const int powers,
                                    const int masked, float *restrict product_sums,
                                    float *restrict dy_sums) {
    const float *restrict mean = norm->mean + column, *restrict inv_std = norm->inv_std + column;
    for (size_t j = 0; j < n; j++) {
        const float t = norm_input(x[j], relu), xhat = norm_xhat(t, mean[j], inv_std[j], powers);
        const float passed = norm_passed(dy[j], passes, j, masked);
        product_sums[j] += passed * xhat;
        dy_sums[j] += passed;
    }
}

BITOPS_INLINE void norm_gradient_row(const bitops_norm *norm, const float *restrict x,
                                     const float *restrict dy, const float *restrict passes,
                                     size_t column, size_t n, const int relu, const int powers,
                                     const int masked, float *restrict dx) {
    const float *restrict mean = norm->mean + column, *restrict inv_std = norm->inv_std + column;
    const float *restrict by_xhat = norm->by_xhat + column, *restrict less = norm->less + column;
    const float *restrict factor = norm->factor + column;
    for (size_t j = 0; j < n; j++) {
        const float t = norm_input(x[j], relu), xhat = norm_xhat(t, mean[j], inv_std[j], powers);
        const float passed = norm_passed(dy[j], passes, j, masked);
        const float d = (xhat * by_xhat[j] + passed - less[j]) * factor[j];
        dx[j] = relu ? d * norm_slope(x[j]) : d;
    }
}

BITOPS_INLINE void within_row(const float *restrict x, size_t n, float limit,
                              float *restrict within) {
    for (size_t j = 0; j < n; j++)
        within[j] = fabsf(x[j]) <= limit ? 1.0f : -1.0f;
}

/* Calls a function with the constants relu, powers and masked. */
#define NORM_CHOOSE_MASK(function, relu, powers, ...)                                              \
    do {                                                                                           \
        if (passes)                                                                                \
            function(norm, x, dy, passes, column, n, relu, powers, 1, __VA_ARGS__);                \
        else                                                                                       \
            function(norm, x, dy, passes, column, n, relu, powers, 0, __VA_ARGS__);                \
    } while (0)
#define NORM_CHOOSE(function, ...)                                                                 \
    do {                                                                                           \
        if (norm->relu && norm->powers)                                                            \
            NORM_CHOOSE_MASK(function, 1, 1, __VA_ARGS__);                                         \
        else if (norm->relu)                                                                       \
            NORM_CHOOSE_MASK(function, 1, 0, __VA_ARGS__);                                         \
        else if (norm->powers)                                                                     \
            NORM_CHOOSE_MASK(function, 0, 1, __VA_ARGS__);                                         \
        else                                                                                       \
            NORM_CHOOSE_MASK(function, 0, 0, __VA_ARGS__);                                         \
    } while (0)

/* The kernels of an ISA. */
#define DEFINE_NORM(isa)                                                                           \
    void bitops_norm_sums_##isa(const bitops_norm *norm, const float *x, size_t ld, size_t rows,   \
                                size_t column, size_t n, float *sum_out) {                         \
        if (norm->relu)                                                                            \
            norm_sum_columns(norm, x, ld, rows, column, n, 1, sum_out);                            \
        else                                                                                       \
            norm_sum_columns(norm, x, ld, rows, column, n, 0, sum_out);                            \
    }                                                                                              \
    void bitops_norm_values_##isa(const bitops_norm *norm, const float *x, size_t column,          \
                                  size_t n, float *y_out) {                                        \
        if (norm->relu)                                                                            \
            norm_row(norm, x, column, n, 1, y_out);                                                \
        else                                                                                       \
            norm_row(norm, x, column, n, 0, y_out);                                                \
    }                                                                                              \
    void bitops_norm_products_##isa(const bitops_norm *norm, const float *x, const float *dy,      \
                                    const float *passes, size_t column, size_t n,                  \
                                    float *product_sums, float *dy_sums) {                         \
        NORM_CHOOSE(norm_product_row, product_sums, dy_sums);                                      \
    }                                                                                              \
    void bitops_norm_gradient_##isa(const bitops_norm *norm, const float *x, const float *dy,      \
                                    const float *passes, size_t column, size_t n, float *dx_out) { \
        NORM_CHOOSE(norm_gradient_row, dx_out);                                                    \
    }                                                                                              \
    void bitops_within_f32_##isa(const float *x, size_t n, float limit, float *within_out) {       \
        within_row(x, n, limit, within_out);                                                       \
    }

#endif
