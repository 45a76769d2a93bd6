/* avx512_tally.h: the steps of carry-save popcount (see avx512.c), for the files of AVX-512. */
#ifndef BITOPS_AVX512_TALLY_H
#define BITOPS_AVX512_TALLY_H

#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vpopcntdq,prfchw")

/* Truth tables of vpternlog: bit 4 a + 2 b + c is the result for (a, b, c). CARRY takes x1, ones
 * and next: where next differs from ones, one of x1 and x2 is set and the majority is ones; where
 * it does not, x1 and x2 are equal and the majority is x1. */
enum {
    XOR3 = 0x96,  /* a ^ b ^ c */
    CARRY = 0xd4, /* b != c ? b : a */
};

BITOPS_INLINE __m512i xor3(__m512i a_b512, __m512i b_b512, __m512i c_b512) {
    return _mm512_ternarylogic_epi32(a_b512, b_b512, c_b512, XOR3);
}

/* The counters of one vector of outputs, in 32-bit lanes (panels), or those of one output, in
 * 64-bit lanes (plain rows). */
typedef struct tally {
    __m512i ones_b512, count_b512;
} tally;

BITOPS_INLINE tally tally_zero(void) {
    return (tally){_mm512_setzero_si512(), _mm512_setzero_si512()};
}

BITOPS_INLINE __m512i tally_total(tally t) {
    return _mm512_add_epi32(_mm512_add_epi32(t.count_b512, t.count_b512),
                            _mm512_popcnt_epi32(t.ones_b512));
}

/* Adds the bits of a1 ^ w1 and a2 ^ w2, given a12 = a1 ^ a2 and w12 = w1 ^ w2. Returns the carry,
 * which the caller counts. */
BITOPS_INLINE __m512i tally_add(tally *t, __m512i a1_b512, __m512i a12_b512, __m512i w1_b512,
                                __m512i w12_b512) {
    const __m512i next_b512 = xor3(t->ones_b512, w12_b512, a12_b512);
    const __m512i x1_b512 = _mm512_xor_si512(w1_b512, a1_b512);
    const __m512i carry_b512 = _mm512_ternarylogic_epi32(x1_b512, t->ones_b512, next_b512, CARRY);
    t->ones_b512 = next_b512;
    return carry_b512;
}

BITOPS_TARGET_END

#endif

#endif
