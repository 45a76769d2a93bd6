/* quantize.h: numbers to bytes, rounded at random, loops that compilers vectorise with the
 * instructions of the file that includes this. operations.h states the steps. */
#ifndef BITOPS_QUANTIZE_H
#define BITOPS_QUANTIZE_H

#include "operations.h"
#include "isa/shared/hash.h"
#include "isa/shared/target.h"

#include <string.h>

/* Magnitudes in the order of their bits; those of NaN are the largest. */
BITOPS_INLINE float peak(const float *x, size_t n) {
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= INT32_MAX;
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, sizeof largest);
    return largest;
}

/* With 16 random bits, zero + random is exact and 0 always gives zero. */
BITOPS_INLINE void quantize_row(const float *restrict x, size_t n, float scale, uint32_t seed,
                                int zero, uint8_t *restrict out) {
    for (size_t i = 0; i < n; i++, seed += NEXT_PLACE) {
        const int32_t random = (int32_t)(hash32(seed) >> 16);
        const float offset = (float)zero + (float)random * 0x1p-16f;
        out[i] = (uint8_t)(int32_t)(x[i] * scale + offset); /* not negative, so rounded down */
    }
}

/* The kernels of an ISA. */
#define DEFINE_QUANTIZE(isa)                                                                       \
    float bitops_peak_f32_##isa(const float *x, size_t n) {                                        \
        return peak(x, n);                                                                         \
    }                                                                                              \
    void bitops_quantize_f32_##isa(const float *x, size_t n, float scale, uint32_t seed, int zero, \
                                   uint8_t *codes_out) {                                           \
        quantize_row(x, n, scale, seed, zero, codes_out);                                          \
    }

#endif
