/* avx2_rows.c: products with rows of w as they lie in memory; AVX2, POPCNT.
 *
 * For few rows of a, for which ordering w into panels costs more than the product. Short rows are
 * counted word by word, with the number of words a constant; others a vector at a time, by
 * shuffles.
 *
 *   intrinsic              instruction   Skylake and later   Zen 3, 4
 *   _mm_popcnt_u64         popcnt        1 a cycle           3 or 4 a cycle
 *   popcount_bytes         6 operations  2 of them on p5     2 shuffles a cycle
 * Bottleneck: counting; reading w from the third-level cache on. Tails: words one by one. Overflow:
 * bytes grow by at most 8 a vector and are summed after 31 of them. */
#include "operations.h"
#include "isa/shared/avx2.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt")

/* Rows of w are read one after the other, as a single stream for the prefetcher: several at a time
 * lost a quarter of the speed from the third-level cache on. Bytes grow by at most 8 a vector and
 * are summed after 31 of them. */
BITOPS_INLINE int32_t row_mismatches(const uint64_t *a, const uint64_t *w, size_t k_words) {
    __m256i sum_u64x4 = _mm256_setzero_si256();
    size_t p = 0;
    while (p + YMM_WORDS <= k_words) {
        const size_t vectors = (k_words - p) / YMM_WORDS;
        const size_t end = p + (vectors < 31 ? vectors : 31) * YMM_WORDS;
        __m256i bytes_u8x32 = _mm256_setzero_si256();
        for (; p < end; p += YMM_WORDS)
            bytes_u8x32 = _mm256_add_epi8(
                bytes_u8x32, popcount_bytes(_mm256_xor_si256(load(a + p), load(w + p))));
        sum_u64x4 = _mm256_add_epi64(sum_u64x4, sum_bytes(bytes_u8x32));
    }
    uint64_t count = sum_lanes(sum_u64x4);
    for (; p < k_words; p++)
        count += (uint64_t)_mm_popcnt_u64(a[p] ^ w[p]);
    return (int32_t)count;
}

/* One row of a times up to 32 rows of w, which have `words` words, a constant at every call; 0 if
 * they are longer. */
BITOPS_INLINE void block_mismatches(const size_t words, const uint64_t *a, const uint64_t *w,
                                    size_t ldw, size_t columns, size_t k_words, int32_t *out) {
    for (size_t l = 0; l < columns; l++, w += ldw) {
        uint64_t count = 0;
        BITOPS_UNROLL
        for (size_t p = 0; p < words; p++)
            count += (uint64_t)_mm_popcnt_u64(a[p] ^ w[p]);
        out[l] = words ? (int32_t)count : row_mismatches(a, w, k_words);
    }
}

/* One row of a of a single word times 32 rows of w that follow each other. */
BITOPS_INLINE void word_mismatches(const uint64_t *a, const uint64_t *w, int32_t *out) {
    const __m256i a_u64x4 = _mm256_set1_epi64x((int64_t)*a);
    const __m256i order_u32x8 = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    BITOPS_UNROLL
    for (int l = 0; l < 32; l += 8) {
        const __m256i low_u64x4 = sum_bytes(popcount_bytes(_mm256_xor_si256(a_u64x4, load(w + l))));
        const __m256i high_u64x4 =
            sum_bytes(popcount_bytes(_mm256_xor_si256(a_u64x4, load(w + l + YMM_WORDS))));
        /* columns 0 4 1 5 2 6 3 7 */
        const __m256i both_u32x8 = _mm256_or_si256(low_u64x4, _mm256_slli_epi64(high_u64x4, 32));
        _mm256_storeu_si256((__m256i *)(out + l),
                            _mm256_permutevar8x32_epi32(both_u32x8, order_u32x8));
    }
}

void bitops_gemm_rows_avx2(const uint64_t *a, size_t lda, size_t m, const uint64_t *w, size_t ldw,
                           size_t n, size_t k_words, size_t row, size_t col,
                           const bitops_store *store) {
    enum { COLUMNS = 32 }; /* stored together, and in the cache until all rows of a are done */
    BITOPS_ASSUME(col % 8 == 0);
    for (size_t j = 0; j < n; j += COLUMNS, w += COLUMNS * ldw) {
        const size_t columns = n - j < COLUMNS ? n - j : COLUMNS;
        for (size_t i = 0; i < m; i++) {
            const uint64_t *own = a + i * lda;
            int32_t mismatches[COLUMNS];
            switch (k_words) {
            case 1:
                if (columns == COLUMNS && ldw == 1)
                    word_mismatches(own, w, mismatches);
                else
                    block_mismatches(1, own, w, ldw, columns, 1, mismatches);
                break;
            case 2:
                block_mismatches(2, own, w, ldw, columns, 2, mismatches);
                break;
            case 3:
                block_mismatches(3, own, w, ldw, columns, 3, mismatches);
                break;
            case 4:
                block_mismatches(4, own, w, ldw, columns, 4, mismatches);
                break;
            case 6:
                block_mismatches(6, own, w, ldw, columns, 6, mismatches);
                break;
            case 8:
                block_mismatches(8, own, w, ldw, columns, 8, mismatches);
                break;
            case 12:
                block_mismatches(12, own, w, ldw, columns, 12, mismatches);
                break;
            default:
                block_mismatches(0, own, w, ldw, columns, k_words, mismatches);
            }
            store_block(mismatches, COLUMNS, 1, columns, row + i, col + j, store);
        }
    }
}

/* ---- pairs --------------------------------------------------------------------------------- */

BITOPS_INLINE uint64_t popcount64(uint64_t x) {
    return (uint64_t)_mm_popcnt_u64(x);
}

#include "isa/shared/pairs.h"

void bitops_count_pairs_avx2(const uint64_t *a, size_t lda, const uint64_t *b, size_t ldb,
                             size_t k_words, const uint64_t *pairs, size_t n, int32_t most,
                             int32_t *count_out) {
    count_pairs(a, lda, b, ldb, k_words, pairs, n, most, count_out);
}

BITOPS_TARGET_END

#endif
