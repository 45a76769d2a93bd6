/* avx512_sieve.c: pairs of rows that may be near, by tables of capped mismatches (sieve.h); AVX-512
 * F, BW.
 *
 *   vector operations for 128 columns: 1 a group (load and addition in one), 2 for the test; with
 * counters of bytes 4 for 5 or 7 groups, and 5 for the test
 * Bottleneck: instructions, 3 a group. */
#include "operations.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl")

enum { SIEVE_BYTES = 64 };

typedef uint8_t sieve_u8 __attribute__((vector_size(SIEVE_BYTES)));
typedef uint16_t sieve_u16 __attribute__((vector_size(SIEVE_BYTES)));

#define SIEVE_KEEP BITOPS_IN_REGISTER

BITOPS_INLINE sieve_u8 sieve_min(sieve_u8 a, sieve_u8 b) {
    return (sieve_u8)_mm512_min_epu8((__m512i)a, (__m512i)b);
}

BITOPS_INLINE sieve_u8 sieve_add(sieve_u8 a, sieve_u8 b) {
    return (sieve_u8)_mm512_adds_epu8((__m512i)a, (__m512i)b);
}

BITOPS_INLINE int sieve_lacks(sieve_u8 v) {
    const __m512i top_u32x16 = _mm512_set1_epi32((int)0x88888888);
    return _mm512_cmpneq_epi32_mask(_mm512_and_si512((__m512i)v, top_u32x16), top_u32x16) != 0;
}

BITOPS_INLINE int sieve_any(sieve_u8 v, uint8_t most) {
    return _mm512_cmple_epu8_mask((__m512i)v, _mm512_set1_epi8((char)most)) != 0;
}

BITOPS_INLINE uint64_t sieve_mask(const uint8_t *bytes, uint8_t most) {
    return _mm512_cmple_epu8_mask(_mm512_loadu_si512(bytes), _mm512_set1_epi8((char)most));
}

#include "isa/shared/sieve.h"

void bitops_sieve_avx512(const uint64_t *a, size_t lda, size_t m, const uint64_t *b, size_t n,
                         size_t words, int32_t most, size_t row, size_t col, bitops_found *found,
                         uint64_t *scratch) {
    sieve(a, lda, m, b, n, words, most, row, col, found, scratch);
}

BITOPS_TARGET_END

#endif
