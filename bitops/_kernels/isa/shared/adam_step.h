/* adam_step.h: the arithmetic of one step of Adam, a loop that compilers vectorise with the
 * instructions of the file that includes this.
 *
 * The order of the steps and of their roundings is part of the contract (operations.h). A NaN stays
 * a NaN, since both comparisons of the clip are false for it. */
#ifndef BITOPS_ADAM_STEP_H
#define BITOPS_ADAM_STEP_H

#include "operations.h"
#include "isa/shared/target.h"

#include <math.h>

BITOPS_INLINE void adam_arrays(const float *restrict g, float *restrict w, float *restrict m,
                               float *restrict v, size_t n, const bitops_adam_args *args) {
    /* Copies, since a store to an array could change *args, as far as the compiler knows. */
    const float beta1_rest = args->beta1_rest, beta2_rest = args->beta2_rest;
    const float eps = args->eps, rate = args->rate, keep = args->keep;
    const float high = args->clip, low = -args->clip;
    for (size_t i = 0; i < n; i++) {
        const float mean = m[i] + beta1_rest * (g[i] - m[i]);
        const float square = v[i] + beta2_rest * (g[i] * g[i] - v[i]);
        const float step = rate * (mean / (sqrtf(square) + eps));
        const float next = w[i] * keep - step;
        const float raised = next < low ? low : next;
        m[i] = mean;
        v[i] = square;
        w[i] = raised > high ? high : raised;
    }
}

BITOPS_INLINE void adam_update(const bitops_adam_args *args, size_t first, size_t n) {
    adam_arrays(args->g + first, args->w + first, args->m + first, args->v + first, n, args);
}

#endif
