/* scale.h: the scales of a product of numbers with +-1 weights, applied to its sums in place. */
#ifndef BITOPS_SCALE_H
#define BITOPS_SCALE_H

#include "bitops.h"

/* n sums of one row, from column col on, times alpha, plus bias, each step rounded to float32;
 * nothing if both are NULL. The surplus is subtracted first. int32 sums become float32. */
static inline void scale_sums(const bitops_isa *isa, const bitops_mixed_args *args, void *c,
                              size_t col, size_t n) {
    const int32_t *surplus = args->surplus ? args->surplus + col : NULL;
    const float *alpha = args->alpha ? args->alpha + col : NULL;
    const float *bias = args->bias ? args->bias + col : NULL;
    if (alpha || bias) {
        if (args->is_float)
            isa->affine_f32(c, 1, n, alpha, bias, 0, c);
        else
            isa->scale_i32(c, n, surplus, alpha, bias);
    } else if (surplus)
        for (size_t j = 0; j < n; j++)
            ((int32_t *)c)[j] -= surplus[j];
}

#endif
