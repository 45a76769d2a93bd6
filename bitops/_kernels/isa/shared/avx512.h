/* avx512.h: sizes and masks of vectors, for the files of AVX-512. */
#ifndef BITOPS_AVX512_H
#define BITOPS_AVX512_H

#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { LANES = 16, ZMM_WORDS = 8 }; /* elements of 32 bits, words */

/* Masks of the first n elements, or of all where n is more. */

BITOPS_INLINE uint64_t low_bits64(size_t n) {
    return n >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1;
}

BITOPS_INLINE __mmask16 low_bits16(size_t n) {
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}

BITOPS_INLINE __mmask8 low_bits8(size_t n) {
    return (__mmask8)(n >= 8 ? 0xff : (1u << n) - 1);
}

#endif

#endif
