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

/* The bits of a NaN are set by a mask, since a branch would keep loops from becoming vectors. */
BITOPS_INLINE float from_short(int16_t number) {
    float x = (float)number;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits |= 0x7fc00000u & -(uint32_t)(number == BITOPS_SHORT_NAN);
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What makes rounding to the nearest one that is up with the probability of what is cut off: in
 * (-1/2, 1/2); `random` has 16 bits. */
BITOPS_INLINE float rounding_shift(uint32_t random) {
    return (float)(int32_t)random * 0x1p-16f + (0x1p-17f - 0.5f);
}

/* To the nearest, |x| <= BITOPS_SHORT_MOST or NaN: the sum with 1.5 * 2^23 has the whole number in
 * its lowest bits, and what is chosen for NaN are integers. With a cast, compilers would make a
 * branch of the choice, and no vectors of the loop. */
BITOPS_INLINE int16_t to_short(float x) {
    const float sum = x + 0x1.8p23f;
    int32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    return (int16_t)(sum == sum ? bits - 0x4b400000 : BITOPS_SHORT_NAN);
}

/* Steps on n elements, with the types of w, m and v as constants; returns 1 if one of the weights
 * that are int16 became NaN. Numbers of args are copied, since a store to an array could change
 * them, as far as the compiler knows. */
BITOPS_INLINE int adam_steps(const bitops_adam_args *args, const float *restrict g, size_t first,
                             size_t n, const int short_weights, const int bfloat16) {
    float *restrict w = short_weights ? NULL : (float *)args->w + first;
    float *restrict m = bfloat16 ? NULL : (float *)args->m + first;
    float *restrict v = bfloat16 ? NULL : (float *)args->v + first;
    int16_t *restrict w_short = short_weights ? (int16_t *)args->w + first : NULL;
    uint16_t *restrict m_half = bfloat16 ? (uint16_t *)args->m + first : NULL;
    uint16_t *restrict v_half = bfloat16 ? (uint16_t *)args->v + first : NULL;
    const float beta1_rest = args->beta1_rest, beta2_rest = args->beta2_rest;
    const float eps = args->eps, rate = args->rate, keep = args->keep, clip = args->clip;
    uint32_t seed = args->seed + (uint32_t)first * NEXT_PLACE;
    int any_nan = 0;
    for (size_t i = 0; i < n; i++, seed += NEXT_PLACE) {
        const uint32_t random = short_weights || bfloat16 ? hash32(seed) : 0;
        const float mean_before = bfloat16 ? from_bfloat16(m_half[i]) : m[i];
        const float square_before = bfloat16 ? from_bfloat16(v_half[i]) : v[i];
        const float weight = short_weights ? from_short(w_short[i]) : w[i];
        const float mean = mean_before + beta1_rest * (g[i] - mean_before);
        const float square = square_before + beta2_rest * (g[i] * g[i] - square_before);
        const float next = weight * keep - rate * (mean / (sqrtf(square) + eps));
        const uint32_t third = (random + (random >> 16)) & 0xffff;
        const float moved = short_weights ? next + rounding_shift(third) : next;
        const float raised = moved < -clip ? -clip : moved;
        const float clipped = raised > clip ? clip : raised;
        if (bfloat16) {
            m_half[i] = to_bfloat16(mean, random & 0xffff);
            v_half[i] = to_bfloat16(square, random >> 16);
        } else {
            m[i] = mean;
            v[i] = square;
        }
        if (short_weights) {
            w_short[i] = to_short(clipped);
            any_nan |= w_short[i] == BITOPS_SHORT_NAN;
        } else {
            w[i] = clipped;
        }
    }
    return any_nan;
}

BITOPS_INLINE int adam_update(const bitops_adam_args *args, const float *g, size_t first,
                              size_t n) {
    if (args->short_weights)
        return args->bfloat16 ? adam_steps(args, g, first, n, 1, 1)
                              : adam_steps(args, g, first, n, 1, 0);
    return args->bfloat16 ? adam_steps(args, g, first, n, 0, 1)
                          : adam_steps(args, g, first, n, 0, 0);
}

#endif
