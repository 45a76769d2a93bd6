/* avx2.h: loads and sums of bits, for the files of AVX2. */
#ifndef BITOPS_AVX2_H
#define BITOPS_AVX2_H

#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdint.h>

BITOPS_TARGET_BEGIN("avx2")

enum { YMM_WORDS = 4 };

BITOPS_INLINE uint64_t rotate_right(uint64_t word, unsigned bits) {
    return word >> (bits & 63) | word << (-bits & 63);
}

BITOPS_INLINE __m256i load(const void *x) {
    return _mm256_loadu_si256((const __m256i *)x);
}

/* Bytes of the result count the bits of bytes below 16. */
BITOPS_INLINE __m256i count_nibbles(__m256i v_u8x32) {
    const __m256i counts_u8x32 = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0,
                                                  1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    return _mm256_shuffle_epi8(counts_u8x32, v_u8x32);
}

/* Bytes of the result count the bits of the bytes of v. */
BITOPS_INLINE __m256i popcount_bytes(__m256i v_u8x32) {
    const __m256i nibble_u8x32 = _mm256_set1_epi8(15);
    return _mm256_add_epi8(
        count_nibbles(_mm256_and_si256(v_u8x32, nibble_u8x32)),
        count_nibbles(_mm256_and_si256(_mm256_srli_epi16(v_u8x32, 4), nibble_u8x32)));
}

/* Sums of eight bytes each, in four 64-bit lanes. */
BITOPS_INLINE __m256i sum_bytes(__m256i v_u8x32) {
    return _mm256_sad_epu8(v_u8x32, _mm256_setzero_si256());
}

BITOPS_INLINE uint64_t sum_lanes(__m256i v_u64x4) {
    const __m128i pair_u64x2 =
        _mm_add_epi64(_mm256_castsi256_si128(v_u64x4), _mm256_extracti128_si256(v_u64x4, 1));
    return (uint64_t)_mm_extract_epi64(pair_u64x2, 0) + (uint64_t)_mm_extract_epi64(pair_u64x2, 1);
}

BITOPS_TARGET_END

#endif

#endif
