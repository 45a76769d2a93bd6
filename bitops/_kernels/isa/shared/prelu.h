/* prelu.h: activations with a shift and a slope for each column, loops that compilers vectorise
 * with the instructions of the file that includes this. operations.h states the steps. */
#ifndef BITOPS_PRELU_H
#define BITOPS_PRELU_H

#include "operations.h"
#include "isa/shared/target.h"

#include <math.h>
#include <string.h>

/* A sum of two parts, one of which is 0, has no branches; compilers do not turn a choice between z
 * and its product into vectors, since the product may raise flags. The 0 that is added makes +0.0
 * of each -0.0. */
BITOPS_INLINE void prelu_row(const float *x, size_t n, const float *restrict shift,
                             const float *restrict slope, const float *restrict offset, float *y) {
    BITOPS_INDEPENDENT
    for (size_t j = 0; j < n; j++) {
        const float z = shift ? x[j] - shift[j] : x[j];
        const float below = z < 0 ? z : 0.0f, above = z < 0 ? 0.0f : z;
        const float t = above + below * slope[j] + 0.0f;
        y[j] = offset ? t + offset[j] : t;
    }
}

/* Chooses by bits, of numbers that are both at hand, so that there is no branch either. */
BITOPS_INLINE float where_below(float z, float below, float other) {
    uint32_t a, b;
    memcpy(&a, &below, sizeof a);
    memcpy(&b, &other, sizeof b);
    const uint32_t mask = -(uint32_t)(z < 0), bits = (a & mask) | (b & ~mask);
    float chosen;
    memcpy(&chosen, &bits, sizeof chosen);
    return chosen;
}

BITOPS_INLINE void prelu_gradient_row(const bitops_prelu *prelu, const float *restrict x,
                                      const float *restrict dy, size_t column, size_t n,
                                      float *restrict dx, float *restrict dx_sums,
                                      float *restrict slope_sums, float *restrict dy_sums) {
    const float *restrict shift = prelu->shift + column, *restrict slope = prelu->slope + column;
    for (size_t j = 0; j < n; j++) {
        const float z = x[j] - shift[j], product = dy[j] * z;
        dx[j] = dy[j] * where_below(z, slope[j], 1.0f);
        dx_sums[j] += dx[j];
        slope_sums[j] += where_below(z, product, 0.0f);
        dy_sums[j] += dy[j];
    }
}

BITOPS_INLINE void sign_gradient_row(const bitops_prelu *prelu, const float *restrict x,
                                     const float *restrict dy, size_t column, size_t n,
                                     float *restrict dx, float *restrict dx_sums) {
    const float *restrict shift = prelu->shift + column;
    for (size_t j = 0; j < n; j++) {
        const float rest = 1.0f - fabsf(x[j] - shift[j]);
        dx[j] = dy[j] * where_below(rest, 0.0f, rest * 2.0f);
        dx_sums[j] += dx[j];
    }
}

/* The kernels of an ISA. */
#define DEFINE_PRELU(isa)                                                                          \
    void bitops_prelu_values_##isa(const bitops_prelu *prelu, const float *x, size_t column,       \
                                   size_t n, float *y_out) {                                       \
        const float *shift = prelu->shift ? prelu->shift + column : NULL;                          \
        const float *offset = prelu->offset ? prelu->offset + column : NULL;                       \
        prelu_row(x, n, shift, prelu->slope + column, offset, y_out);                              \
    }                                                                                              \
    void bitops_prelu_gradient_##isa(const bitops_prelu *prelu, const float *x, const float *dy,   \
                                     size_t column, size_t n, float *dx_out, float *dx_sums,       \
                                     float *slope_sums, float *dy_sums) {                          \
        if (prelu->slope)                                                                          \
            prelu_gradient_row(prelu, x, dy, column, n, dx_out, dx_sums, slope_sums, dy_sums);     \
        else                                                                                       \
            sign_gradient_row(prelu, x, dy, column, n, dx_out, dx_sums);                           \
    }

#endif
