/* neon.h: counts of bits, for the files of AArch64.
 *
 * Overflow: a 16-bit counter grows by at most 2 * 32 a step of 8 words and is emptied every 1023
 * steps (65472 <= 65535). */
#ifndef BITOPS_NEON_H
#define BITOPS_NEON_H

#include "isa/shared/target.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

/* Counts the bits of the bytes of a ^ w, or of a alone if not `both`, which is a constant. */
BITOPS_INLINE uint8x16_t count_vector(const int both, const uint64_t *a, const uint64_t *w) {
    const uint8x16_t v_u8x16 = vld1q_u8((const uint8_t *)a);
    return vcntq_u8(both ? veorq_u8(v_u8x16, vld1q_u8((const uint8_t *)w)) : v_u8x16);
}

enum { STEP_WORDS = 8, STEPS = 1023 };

/* Counts the 1 bits of a ^ w, or of a alone. */
BITOPS_INLINE uint64_t count_words(const int both, const uint64_t *a, const uint64_t *w,
                                   size_t n_words) {
    uint64x2_t sum_u64x2 = vdupq_n_u64(0);
    size_t p = 0;
    while (p + STEP_WORDS <= n_words) {
        const size_t steps = (n_words - p) / STEP_WORDS;
        const size_t end = p + (steps < STEPS ? steps : STEPS) * STEP_WORDS;
        uint16x8_t counts_u16x8 = vdupq_n_u16(0);
        for (; p < end; p += STEP_WORDS) {
            uint8x16_t c_u8x16[4];
            BITOPS_UNROLL
            for (int i = 0; i < 4; i++)
                c_u8x16[i] = count_vector(both, a + p + 2 * i, w + p + 2 * i);
            counts_u16x8 = vpadalq_u8(counts_u16x8, vaddq_u8(vaddq_u8(c_u8x16[0], c_u8x16[1]),
                                                             vaddq_u8(c_u8x16[2], c_u8x16[3])));
        }
        sum_u64x2 = vpadalq_u32(sum_u64x2, vpaddlq_u16(counts_u16x8));
    }
    for (; p + 2 <= n_words; p += 2)
        sum_u64x2 =
            vpadalq_u32(sum_u64x2, vpaddlq_u16(vpaddlq_u8(count_vector(both, a + p, w + p))));
    const uint64_t last = p < n_words ? (both ? a[p] ^ w[p] : a[p]) : 0;
    return vaddvq_u64(sum_u64x2) + vaddv_u8(vcnt_u8(vcreate_u8(last)));
}

#endif

#endif
