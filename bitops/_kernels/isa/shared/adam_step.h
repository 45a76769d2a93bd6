/* adam_step.h: the arithmetic of one step of Adam, loops that compilers vectorise with the
 * instructions of the file that includes this.
 *
 * The order of the steps and of their roundings is part of the contract (operations.h). A NaN stays
 * a NaN, since both comparisons of the clip are false for it. */
#ifndef BITOPS_ADAM_STEP_H
#define BITOPS_ADAM_STEP_H

#include "operations.h"
#include "isa/shared/hash.h"
#include "isa/shared/target.h"

#include <math.h>
#include <string.h>

BITOPS_INLINE float adam_weight(float w, float mean, float square, float eps, float rate,
                                float keep, float clip) {
    const float step = rate * (mean / (sqrtf(square) + eps));
    const float next = w * keep - step;
    const float raised = next < -clip ? -clip : next;
    return raised > clip ? clip : raised;
}

/* Numbers of args are copied, since a store to an array could change them, as far as the compiler
 * knows. */
BITOPS_INLINE void adam_float32(const float *restrict g, float *restrict w, float *restrict m,
                                float *restrict v, size_t n, const bitops_adam_args *args) {
    const float beta1_rest = args->beta1_rest, beta2_rest = args->beta2_rest;
    const float eps = args->eps, rate = args->rate, keep = args->keep, clip = args->clip;
    for (size_t i = 0; i < n; i++) {
        const float mean = m[i] + beta1_rest * (g[i] - m[i]);
        const float square = v[i] + beta2_rest * (g[i] * g[i] - v[i]);
        m[i] = mean;
        v[i] = square;
        w[i] = adam_weight(w[i], mean, square, eps, rate, keep, clip);
    }
}

BITOPS_INLINE float from_bfloat16(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Rounded away from 0 with the probability of what is cut off; `random` has 16 bits. */
BITOPS_INLINE uint16_t to_bfloat16(float x, uint32_t random) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + random) >> 16);
}

BITOPS_INLINE void adam_bfloat16(const float *restrict g, float *restrict w, uint16_t *restrict m,
                                 uint16_t *restrict v, size_t first, size_t n,
                                 const bitops_adam_args *args) {
    const float beta1_rest = args->beta1_rest, beta2_rest = args->beta2_rest;
    const float eps = args->eps, rate = args->rate, keep = args->keep, clip = args->clip;
    uint32_t seed = args->seed + (uint32_t)first * NEXT_PLACE;
    for (size_t i = 0; i < n; i++, seed += NEXT_PLACE) {
        const float mean_before = from_bfloat16(m[i]), square_before = from_bfloat16(v[i]);
        const float mean = mean_before + beta1_rest * (g[i] - mean_before);
        const float square = square_before + beta2_rest * (g[i] * g[i] - square_before);
        const uint32_t random = hash32(seed);
        m[i] = to_bfloat16(mean, random & 0xffff);
        v[i] = to_bfloat16(square, random >> 16);
        w[i] = adam_weight(w[i], mean, square, eps, rate, keep, clip);
    }
}

BITOPS_INLINE void adam_update(const bitops_adam_args *args, const float *g, size_t first,
                               size_t n) {
    if (args->bfloat16)
        adam_bfloat16(g, args->w + first, (uint16_t *)args->m + first, (uint16_t *)args->v + first,
                      first, n, args);
    else
        adam_float32(g, args->w + first, (float *)args->m + first, (float *)args->v + first, n,
                     args);
}

#endif
