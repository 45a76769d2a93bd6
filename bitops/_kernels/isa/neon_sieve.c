/* neon_sieve.c: pairs of rows that may be near, by tables of capped mismatches (sieve.h); NEON.
 *
 *   vector operations for 128 columns: 8 a group, half of them loads; with counters of bytes 16 for
 * 5 or 7 groups
 * Bottleneck: vector operations. */
#include "operations.h"
#include "isa/shared/target.h"

#if defined(__aarch64__)

#include <arm_neon.h>

enum { SIEVE_BYTES = 16 };

typedef uint8x16_t sieve_u8;
typedef uint16x8_t sieve_u16;

#define SIEVE_KEEP(vector) (void)0

BITOPS_INLINE sieve_u8 sieve_min(sieve_u8 a, sieve_u8 b) {
    return vminq_u8(a, b);
}

BITOPS_INLINE sieve_u8 sieve_add(sieve_u8 a, sieve_u8 b) {
    return vqaddq_u8(a, b);
}

BITOPS_INLINE int sieve_lacks(sieve_u8 v) {
    return vminvq_u8(vtstq_u8(v, vdupq_n_u8(0x80)) & vtstq_u8(v, vdupq_n_u8(0x08))) == 0;
}

BITOPS_INLINE int sieve_any(sieve_u8 v, uint8_t most) {
    return vminvq_u8(v) <= most;
}

BITOPS_INLINE uint64_t sieve_mask(const uint8_t *bytes, uint8_t most) {
    uint64_t mask = 0;
    for (unsigned i = 0; i < 64; i++)
        mask |= (uint64_t)(bytes[i] <= most) << i;
    return mask;
}

#include "isa/shared/sieve.h"

void bitops_sieve_neon(const uint64_t *a, size_t lda, size_t m, const uint64_t *b, size_t n,
                       size_t words, int32_t most, size_t row, size_t col, bitops_found *found,
                       uint64_t *scratch) {
    sieve(a, lda, m, b, n, words, most, row, col, found, scratch);
}

#endif
