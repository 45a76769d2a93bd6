/* avx2_sieve.c: pairs of rows that may be near, by tables of capped mismatches (sieve.h); AVX2.
 *
 *   vector operations for 128 columns: 2 a group (loads and additions in one), 3 for the test; with
 * counters of bytes 8 for 5 or 7 groups, and 15 for the test
 * Bottleneck: loads, two for each group, and instructions. */
#include "operations.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt")

enum { SIEVE_BYTES = 32 };

typedef uint8_t sieve_u8 __attribute__((vector_size(SIEVE_BYTES)));
typedef uint16_t sieve_u16 __attribute__((vector_size(SIEVE_BYTES)));

#define SIEVE_KEEP BITOPS_IN_REGISTER

BITOPS_INLINE sieve_u8 sieve_min(sieve_u8 a, sieve_u8 b) {
    return (sieve_u8)_mm256_min_epu8((__m256i)a, (__m256i)b);
}

BITOPS_INLINE sieve_u8 sieve_add(sieve_u8 a, sieve_u8 b) {
    return (sieve_u8)_mm256_adds_epu8((__m256i)a, (__m256i)b);
}

BITOPS_INLINE int sieve_lacks(sieve_u8 v) {
    return !_mm256_testc_si256((__m256i)v, _mm256_set1_epi8((char)0x88));
}

BITOPS_INLINE unsigned bytes_within(__m256i v_u8x32, uint8_t most) {
    const __m256i most_u8x32 = _mm256_set1_epi8((char)most);
    return (unsigned)_mm256_movemask_epi8(
        _mm256_cmpeq_epi8(_mm256_min_epu8(v_u8x32, most_u8x32), v_u8x32));
}

BITOPS_INLINE int sieve_any(sieve_u8 v, uint8_t most) {
    return bytes_within((__m256i)v, most) != 0;
}

BITOPS_INLINE uint64_t sieve_mask(const uint8_t *bytes, uint8_t most) {
    const __m256i *v_u8x32 = (const __m256i *)bytes;
    return bytes_within(_mm256_loadu_si256(v_u8x32), most) |
           (uint64_t)bytes_within(_mm256_loadu_si256(v_u8x32 + 1), most) << 32;
}

#include "isa/shared/sieve.h"

void bitops_sieve_avx2(const uint64_t *a, size_t lda, size_t m, const uint64_t *b, size_t n,
                       size_t words, int32_t most, size_t row, size_t col, bitops_found *found,
                       uint64_t *scratch) {
    sieve(a, lda, m, b, n, words, most, row, col, found, scratch);
}

BITOPS_TARGET_END

#endif
