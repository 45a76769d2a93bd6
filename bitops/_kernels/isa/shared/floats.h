/* floats.h: passes over rows of float32, or of sums that become float32, loops that compilers
 * vectorise with the instructions of the file that includes this. */
#ifndef BITOPS_FLOATS_H
#define BITOPS_FLOATS_H

#include "operations.h"
#include "isa/shared/target.h"

#include <string.h>

/* A constant `relu` leaves a loop without branches. x and y are the same row, or do not overlap. */
BITOPS_INLINE void affine_row(const float *x, size_t n, const float *restrict alpha,
                              const float *restrict bias, const int relu, float *y) {
    BITOPS_INDEPENDENT
    for (size_t j = 0; j < n; j++) {
        float t = x[j];
        if (alpha)
            t *= alpha[j];
        if (bias)
            t += bias[j];
        y[j] = relu && t <= 0 ? 0 : t;
    }
}

/* In place, since sums and numbers are different types of the same size. */
BITOPS_INLINE void scale_row(char *row, size_t n, const int32_t *restrict surplus,
                             const float *restrict alpha, const float *restrict bias) {
    BITOPS_INDEPENDENT
    for (size_t j = 0; j < n; j++) {
        int32_t sum;
        memcpy(&sum, row + j * sizeof sum, sizeof sum);
        float t = (float)(surplus ? sum - surplus[j] : sum);
        if (alpha)
            t *= alpha[j];
        if (bias)
            t += bias[j];
        memcpy(row + j * sizeof t, &t, sizeof t);
    }
}

BITOPS_INLINE void affine_rows(const float *x, size_t rows, size_t n, const float *alpha,
                               const float *bias, int relu, float *y) {
    for (size_t i = 0; i < rows; i++, x += n, y += n) {
        if (relu)
            affine_row(x, n, alpha, bias, 1, y);
        else
            affine_row(x, n, alpha, bias, 0, y);
    }
}

BITOPS_INLINE void take_larger(const float *restrict x, size_t n, float *restrict y) {
    for (size_t j = 0; j < n; j++)
        y[j] = (y[j] > x[j]) | (y[j] != y[j]) ? y[j] : x[j];
}

/* The kernels of an ISA. */
#define DEFINE_FLOATS(isa)                                                                         \
    void bitops_affine_f32_##isa(const float *x, size_t rows, size_t n, const float *alpha,        \
                                 const float *bias, int relu, float *y) {                          \
        affine_rows(x, rows, n, alpha, bias, relu, y);                                             \
    }                                                                                              \
    void bitops_scale_i32_##isa(void *row, size_t n, const int32_t *surplus, const float *alpha,   \
                                const float *bias) {                                               \
        scale_row(row, n, surplus, alpha, bias);                                                   \
    }                                                                                              \
    void bitops_larger_f32_##isa(const float *x, size_t n, float *y) {                             \
        take_larger(x, n, y);                                                                      \
    }

#endif
