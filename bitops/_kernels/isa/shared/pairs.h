/* pairs.h: mismatches of given pairs of rows, which may lie anywhere.
 *
 * Time goes into waiting for rows, so those of later pairs are asked for beforehand, and a pair
 * ends once it is too far apart. This is included within the target region of an ISA, below
 *
 *   uint64_t popcount64(uint64_t x)
 */
#ifndef BITOPS_PAIRS_H
#define BITOPS_PAIRS_H

#include "operations.h"
#include "isa/shared/target.h"

enum { PAIRS_AHEAD = 12, PAIRS_WORDS = 8 }; /* words between two looks at the count: a line */

BITOPS_INLINE const uint64_t *pair_row(const uint64_t *rows, size_t ld, uint64_t row) {
    return rows + (size_t)row * ld;
}

/* The mismatches of two rows, or a number above `most` if they have more. */
BITOPS_INLINE uint64_t pair_mismatches(const uint64_t *a, const uint64_t *b, size_t k_words,
                                       uint64_t most) {
    uint64_t count = 0;
    size_t p = 0;
    for (; p + PAIRS_WORDS <= k_words && count <= most; p += PAIRS_WORDS) {
        BITOPS_UNROLL
        for (size_t q = p; q < p + PAIRS_WORDS; q++)
            count += popcount64(a[q] ^ b[q]);
    }
    for (; p < k_words && count <= most; p++)
        count += popcount64(a[p] ^ b[p]);
    return count;
}

BITOPS_INLINE void count_pairs(const uint64_t *a, size_t lda, const uint64_t *b, size_t ldb,
                               size_t k_words, const uint64_t *pairs, size_t n, int32_t most,
                               int32_t *count_out) {
    for (size_t i = 0; i < n; i++) {
        if (i + PAIRS_AHEAD < n) {
            const uint64_t later = pairs[i + PAIRS_AHEAD];
            BITOPS_PREFETCH(pair_row(a, lda, later >> 32));
            BITOPS_PREFETCH(pair_row(b, ldb, later & UINT32_MAX));
        }
        count_out[i] = (int32_t)pair_mismatches(pair_row(a, lda, pairs[i] >> 32),
                                                pair_row(b, ldb, pairs[i] & UINT32_MAX), k_words,
                                                (uint64_t)most);
    }
}

#endif
