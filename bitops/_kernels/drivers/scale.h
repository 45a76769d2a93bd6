/* scale.h: the scales of a product of numbers with +-1 weights, applied to its sums in place. */
#ifndef BITOPS_SCALE_H
#define BITOPS_SCALE_H

#include "bitops.h"
#include "drivers/sizes.h"
#include "isa/shared/target.h"

#include <string.h>

/* One pass over the numbers. With NULLs that are constants, the loop has no branch; in place, since
 * sums and outputs are different types of the same size. */
BITOPS_INLINE void scale_row(char *restrict c, const int32_t *restrict surplus,
                             const float *restrict alpha, const float *restrict bias, int is_float,
                             size_t n) {
    for (size_t j = 0; j < n; j++) {
        float x;
        int32_t sum;
        memcpy(&x, c + j * sizeof x, sizeof x);
        memcpy(&sum, c + j * sizeof sum, sizeof sum);
        if (!is_float)
            x = (float)(surplus ? sum - surplus[j] : sum);
        if (alpha)
            x *= alpha[j];
        if (bias)
            x += bias[j];
        memcpy(c + j * sizeof x, &x, sizeof x);
    }
}

BITOPS_INLINE void scale_by(char *c, const int32_t *surplus, const float *alpha, const float *bias,
                            int is_float, size_t n) {
    if (alpha && bias)
        scale_row(c, surplus, alpha, bias, is_float, n);
    else if (alpha)
        scale_row(c, surplus, alpha, NULL, is_float, n);
    else
        scale_row(c, surplus, NULL, bias, is_float, n);
}

/* n sums of one row, from column col on, times alpha, plus bias, each step rounded to float32;
 * nothing if both are NULL. The surplus is subtracted first. int32 sums become float32. */
static inline void scale_sums(const bitops_mixed_args *args, void *c, size_t col, size_t n) {
    const int32_t *surplus = args->surplus ? args->surplus + col : NULL;
    const float *alpha = args->alpha ? args->alpha + col : NULL;
    const float *bias = args->bias ? args->bias + col : NULL;
    if (!alpha && !bias) {
        if (surplus)
            for (size_t j = 0; j < n; j++)
                ((int32_t *)c)[j] -= surplus[j];
    } else if (args->is_float)
        scale_by(c, NULL, alpha, bias, 1, n);
    else if (surplus)
        scale_by(c, surplus, alpha, bias, 0, n);
    else
        scale_by(c, NULL, alpha, bias, 0, n);
}

#endif
