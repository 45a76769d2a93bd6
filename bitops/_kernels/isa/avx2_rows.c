/* avx2_rows.c: products with rows of w as they lie, and pairs of rows; AVX2, BMI2, POPCNT.
 *
 * For few rows of a or few columns, for which panels cost more than the product. Short rows are
 * counted for 8 columns at a time, a lane of 64 bits for each, by shuffles; others one by one, long
 * ones by carry-save: bits are added to sums of weights 1, 2 and 4, and only carries are counted.
 *
 *   intrinsic              instruction   Skylake and later   Zen 3, 4
 *   _mm256_shuffle_epi8    vpshufb       p5 (p15)            2 a cycle
 *   _mm256_sad_epu8        vpsadbw       p5                  2 a cycle
 *   popcount_bytes         6 operations  2 of them on p5     2 shuffles a cycle
 * Bottleneck: vector operations, 10 for each word of 8 columns and 4 for their sums; reading w from
 * the third-level cache on. Tails: words one by one; columns in the store, missing ones repeat the
 * last. Overflow: bytes grow by at most 8 a vector and are summed after 31 of them. */
#include "operations.h"
#include "isa/shared/avx2.h"
#include "isa/shared/avx2_store.h"
#include "isa/shared/kinds.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt")

/* ---- short rows ---------------------------------------------------------------------------- */

enum {
    SHORT_WORDS = 8,
    ORDERED_WORDS = 1 << 10, /* whose nibbles are ordered at a time: 16 KiB */
};

/* One word of 8 columns: of those with even numbers in the first vector, of the others in the
 * second. */
typedef struct lane_words {
    __m256i u64x4[2];
} lane_words;

/* Words of a line each of columns 0, 2, 4 and 6 after the first one. */
BITOPS_INLINE __m256i load_lanes(const uint64_t *const *lines, size_t p) {
    const __m128i low_u64x2 = _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)(lines[0] + p)),
                                                 _mm_loadl_epi64((const __m128i *)(lines[2] + p)));
    const __m128i high_u64x2 = _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)(lines[4] + p)),
                                                  _mm_loadl_epi64((const __m128i *)(lines[6] + p)));
    return _mm256_set_m128i(high_u64x2, low_u64x2);
}

/* Words p and p + 1 of them; h says which vectors they are. */
BITOPS_INLINE void load_lane_pairs(const uint64_t *const *lines, size_t p, int h, lane_words *out) {
    const __m256i even_u64x4 =
        _mm256_loadu2_m128i((const __m128i *)(lines[4] + p), (const __m128i *)(lines[0] + p));
    const __m256i odd_u64x4 =
        _mm256_loadu2_m128i((const __m128i *)(lines[6] + p), (const __m128i *)(lines[2] + p));
    out[0].u64x4[h] = _mm256_unpacklo_epi64(even_u64x4, odd_u64x4);
    out[1].u64x4[h] = _mm256_unpackhi_epi64(even_u64x4, odd_u64x4);
}

/* All words of n <= 8 columns, of which the last stands for missing ones. */
BITOPS_INLINE void load_columns(const size_t words, const uint64_t *w, size_t ldw, size_t n,
                                size_t k_words, lane_words *out) {
    const size_t end = words ? words : k_words;
    if (words == 1 && n == LANES && ldw == 1) {
        const __m256i low_u64x4 = _mm256_permute4x64_epi64(load(w), 0xd8); /* columns 0 2 1 3 */
        const __m256i high_u64x4 = _mm256_permute4x64_epi64(load(w + YMM_WORDS), 0xd8);
        out->u64x4[0] = _mm256_permute2x128_si256(low_u64x4, high_u64x4, 0x20);
        out->u64x4[1] = _mm256_permute2x128_si256(low_u64x4, high_u64x4, 0x31);
        return;
    }
    const uint64_t *lines[LANES];
    for (size_t l = 0; l < LANES; l++)
        lines[l] = w + (l < n ? l : n - 1) * ldw;
    for (size_t p = 0; p + 2 <= end; p += 2)
        for (int h = 0; h < 2; h++)
            load_lane_pairs(lines + h, p, h, out + p);
    for (int h = 0; end % 2 && h < 2; h++)
        out[end - 1].u64x4[h] = load_lanes(lines + h, end - 1);
}

/* The mismatches of 8 columns from counts of even and odd ones, in bytes. */
BITOPS_INLINE __m256i join_lanes(__m256i even_u8x32, __m256i odd_u8x32) {
    return _mm256_or_si256(sum_bytes(even_u8x32), _mm256_slli_epi64(sum_bytes(odd_u8x32), 32));
}

/* Those of a row a with 8 columns. */
BITOPS_INLINE __m256i lane_mismatches(const size_t words, const uint64_t *a, const lane_words *w,
                                      size_t k_words) {
    __m256i bytes_u8x32[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t p = 0; p < (words ? words : k_words); p++)
        for (int h = 0; h < 2; h++) {
            const __m256i a_u64x4 = _mm256_set1_epi64x((int64_t)a[p]);
            bytes_u8x32[h] = _mm256_add_epi8(
                bytes_u8x32[h], popcount_bytes(_mm256_xor_si256(a_u64x4, w[p].u64x4[h])));
        }
    return join_lanes(bytes_u8x32[0], bytes_u8x32[1]);
}

/* Those of one word with 8 columns of one word that follow each other. */
BITOPS_INLINE __m256i word_mismatches(uint64_t a, const uint64_t *w) {
    const __m256i a_u64x4 = _mm256_set1_epi64x((int64_t)a);
    const __m256i low_u64x4 = sum_bytes(popcount_bytes(_mm256_xor_si256(a_u64x4, load(w))));
    const __m256i high_u64x4 =
        sum_bytes(popcount_bytes(_mm256_xor_si256(a_u64x4, load(w + YMM_WORDS))));
    const __m256 both_u32x8 = /* columns 0 1 4 5 2 3 6 7 */
        _mm256_shuffle_ps(_mm256_castsi256_ps(low_u64x4), _mm256_castsi256_ps(high_u64x4), 0x88);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(both_u32x8), 0xd8);
}

/* The last columns of a single row, fewer than 8. */
BITOPS_NOINLINE void last_columns(const uint64_t *a, const uint64_t *w, size_t ldw, size_t n,
                                  size_t k_words, size_t row, size_t col,
                                  const bitops_store *store) {
    lane_words lanes[SHORT_WORDS];
    load_columns(0, w, ldw, n, k_words, lanes);
    store_lanes(store->kind, lane_mismatches(0, a, lanes, k_words), n, row, col, NULL, store);
}

/* Here and below, words and kind are constants at every call, where no words stand for any number.
 */
BITOPS_INLINE void single_row(const bitops_store_kind kind, const size_t words, const uint64_t *a,
                              const uint64_t *w, size_t ldw, size_t n, size_t k_words, size_t row,
                              size_t col, const bitops_store *store) {
    const bitops_store own = *store; /* stores to c cannot change it */
    const int dense = words == 1 && ldw == 1;
    size_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        lane_words lanes[SHORT_WORDS];
        if (!dense)
            load_columns(words, w + j * ldw, ldw, LANES, k_words, lanes);
        store_lanes(kind,
                    dense ? word_mismatches(*a, w + j) : lane_mismatches(words, a, lanes, k_words),
                    LANES, row, col + j, NULL, &own);
    }
    if (j < n)
        last_columns(a, w + j * ldw, ldw, n - j, k_words, row, col + j, store);
}

BITOPS_INLINE void single_row_of(const size_t words, const uint64_t *a, const uint64_t *w,
                                 size_t ldw, size_t n, size_t k_words, size_t row, size_t col,
                                 const bitops_store *store) {
    switch (store->kind) {
        BITOPS_STORE_CASES(single_row, words, a, w, ldw, n, k_words, row, col, store);
        BITOPS_CASE(BITOPS_STORE_WITHIN, single_row, words, a, w, ldw, n, k_words, row, col, store);
    default: /* store_block looks up which it is */
        single_row(BITOPS_STORE_INTERSECTION, words, a, w, ldw, n, k_words, row, col, store);
    }
}

/* The exception: beside so many words, a switch for each 8 columns is little. */
BITOPS_INLINE void single_row_any(const size_t words, const uint64_t *a, const uint64_t *w,
                                  size_t ldw, size_t n, size_t k_words, size_t row, size_t col,
                                  const bitops_store *store) {
    single_row(store->kind, words, a, w, ldw, n, k_words, row, col, store);
}

BITOPS_NOINLINE void one_short_row(const uint64_t *a, const uint64_t *w, size_t ldw, size_t n,
                                   size_t k_words, size_t row, size_t col,
                                   const bitops_store *store) {
    switch (k_words) {
        BITOPS_CASE(1, single_row_of, a, w, ldw, n, 1, row, col, store);
        BITOPS_CASE(2, single_row_of, a, w, ldw, n, 2, row, col, store);
        BITOPS_CASE(3, single_row_any, a, w, ldw, n, 3, row, col, store);
        BITOPS_CASE(4, single_row_of, a, w, ldw, n, 4, row, col, store);
        BITOPS_CASE(5, single_row_any, a, w, ldw, n, 5, row, col, store);
        BITOPS_CASE(6, single_row_any, a, w, ldw, n, 6, row, col, store);
        BITOPS_CASE(7, single_row_any, a, w, ldw, n, 7, row, col, store);
        BITOPS_CASE(8, single_row_any, a, w, ldw, n, 8, row, col, store);
    }
}

/* The halves of the bytes of lanes, so that rows of a need not be split for each of them again. */
typedef struct lane_nibbles {
    __m256i low_u8x32[2], high_u8x32[2];
} lane_nibbles;

BITOPS_INLINE __m256i high_nibbles(__m256i v_u8x32) {
    return _mm256_and_si256(_mm256_srli_epi16(v_u8x32, 4), _mm256_set1_epi8(15));
}

/* The same as lane_mismatches, of nibbles. */
BITOPS_INLINE __m256i nibble_mismatches(const size_t words, const __m256i (*a_u8x32)[2],
                                        const lane_nibbles *w, size_t k_words) {
    __m256i bytes_u8x32[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t p = 0; p < (words ? words : k_words); p++)
        for (int h = 0; h < 2; h++) {
            const __m256i low_u8x32 =
                count_nibbles(_mm256_xor_si256(a_u8x32[p][0], w[p].low_u8x32[h]));
            const __m256i high_u8x32 =
                count_nibbles(_mm256_xor_si256(a_u8x32[p][1], w[p].high_u8x32[h]));
            bytes_u8x32[h] =
                _mm256_add_epi8(bytes_u8x32[h], _mm256_add_epi8(low_u8x32, high_u8x32));
        }
    return join_lanes(bytes_u8x32[0], bytes_u8x32[1]);
}

/* Whether the last 8 columns are stored together, though some of them have been before: numbers,
 * which are written twice sooner than a part of a vector once. */
BITOPS_INLINE int is_repeated(bitops_store_kind kind, size_t n) {
    switch (kind) {
    case BITOPS_STORE_DOT:
    case BITOPS_STORE_SCALED:
    case BITOPS_STORE_HAMMING:
    case BITOPS_STORE_HAMMING16:
    case BITOPS_STORE_HAMMING8:
        return n >= LANES;
    default:
        return 0;
    }
}

BITOPS_INLINE void split_columns(const size_t words, const uint64_t *w, size_t ldw, size_t n,
                                 size_t k_words, int repeated, lane_nibbles *out) {
    const size_t end = words ? words : k_words;
    for (size_t j = 0; j < n; j += LANES, out += end) {
        lane_words lanes[SHORT_WORDS];
        const size_t first = repeated && n - j < LANES ? n - LANES : j;
        load_columns(words, w + first * ldw, ldw, n - first < LANES ? n - first : LANES, k_words,
                     lanes);
        for (size_t p = 0; p < end; p++)
            for (int h = 0; h < 2; h++) {
                out[p].low_u8x32[h] = _mm256_and_si256(lanes[p].u64x4[h], _mm256_set1_epi8(15));
                out[p].high_u8x32[h] = high_nibbles(lanes[p].u64x4[h]);
            }
    }
}

/* The nibbles of n columns. */
BITOPS_NOINLINE void order_nibbles(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                                   int repeated, lane_nibbles *out) {
    switch (k_words) {
        BITOPS_CASE(1, split_columns, w, ldw, n, 1, repeated, out);
        BITOPS_CASE(2, split_columns, w, ldw, n, 2, repeated, out);
        BITOPS_CASE(4, split_columns, w, ldw, n, 4, repeated, out);
    default:
        split_columns(0, w, ldw, n, k_words, repeated, out);
    }
}

/* One of several rows times n columns. */
BITOPS_INLINE void ordered_row(const bitops_store_kind kind, const size_t words, const uint64_t *a,
                               const lane_nibbles *nibbles, size_t n, size_t k_words, size_t row,
                               size_t col, const bitops_store *store) {
    const size_t end = words ? words : k_words;
    __m256i a_u8x32[SHORT_WORDS][2];
    for (size_t p = 0; p < end; p++) {
        const __m256i a_u64x4 = _mm256_set1_epi64x((int64_t)a[p]);
        a_u8x32[p][0] = _mm256_and_si256(a_u64x4, _mm256_set1_epi8(15));
        a_u8x32[p][1] = high_nibbles(a_u64x4);
    }
    size_t j = 0;
    for (; j + LANES <= n; j += LANES, nibbles += end)
        store_lanes(kind, nibble_mismatches(words, a_u8x32, nibbles, k_words), LANES, row, col + j,
                    NULL, store);
    if (j == n)
        return;
    const __m256i last_i32x8 = nibble_mismatches(words, a_u8x32, nibbles, k_words);
    if (is_repeated(kind, n))
        store_lanes(kind, last_i32x8, LANES, row, col + n - LANES, NULL, store);
    else
        store_lanes(kind, last_i32x8, n - j, row, col + j, NULL, store);
}

BITOPS_INLINE void ordered_rows(const bitops_store_kind kind, const size_t words, const uint64_t *a,
                                size_t lda, size_t m, const lane_nibbles *nibbles, size_t n,
                                size_t k_words, size_t row, size_t col, const bitops_store *store) {
    const bitops_store own = *store;
    for (size_t i = 0; i < m; i++)
        ordered_row(kind, words, a + i * lda, nibbles, n, k_words, row + i, col, &own);
}

BITOPS_INLINE void ordered_rows_of(const size_t words, const uint64_t *a, size_t lda, size_t m,
                                   const lane_nibbles *nibbles, size_t n, size_t k_words,
                                   size_t row, size_t col, const bitops_store *store) {
    switch (store->kind) {
        BITOPS_STORE_CASES(ordered_rows, words, a, lda, m, nibbles, n, k_words, row, col, store);
        BITOPS_CASE(BITOPS_STORE_WITHIN, ordered_rows, words, a, lda, m, nibbles, n, k_words, row,
                    col, store);
    default: /* store_block looks up which it is */
        ordered_rows(BITOPS_STORE_INTERSECTION, words, a, lda, m, nibbles, n, k_words, row, col,
                     store);
    }
}

BITOPS_NOINLINE void short_rows(const uint64_t *a, size_t lda, size_t m, const uint64_t *w,
                                size_t ldw, size_t n, size_t k_words, size_t row, size_t col,
                                const bitops_store *store) {
    const size_t most = ORDERED_WORDS / k_words / LANES * LANES;
    for (; n; w += most * ldw, col += most) {
        const size_t columns = n < most ? n : most;
        lane_nibbles nibbles[ORDERED_WORDS / LANES];
        order_nibbles(w, ldw, columns, k_words, is_repeated(store->kind, columns), nibbles);
        switch (k_words) {
            BITOPS_CASE(1, ordered_rows_of, a, lda, m, nibbles, columns, 1, row, col, store);
            BITOPS_CASE(2, ordered_rows_of, a, lda, m, nibbles, columns, 2, row, col, store);
            BITOPS_CASE(3, ordered_rows_of, a, lda, m, nibbles, columns, 3, row, col, store);
            BITOPS_CASE(4, ordered_rows_of, a, lda, m, nibbles, columns, 4, row, col, store);
        default:
            ordered_rows_of(0, a, lda, m, nibbles, columns, k_words, row, col, store);
        }
        n -= columns;
    }
}

/* ---- longer rows ---------------------------------------------------------------------------- */

enum {
    TOGETHER = 8 * YMM_WORDS, /* words that are counted together by carry-save, */
    CARRY_WORDS = 128,        /* which pays from here on: measured, see README.md */
};

BITOPS_INLINE __m256i mismatches_of(const uint64_t *a, const uint64_t *w) {
    return _mm256_xor_si256(load(a), load(w));
}

/* Adds bits of one weight to their sum; returns the carries, of twice that weight. */
BITOPS_INLINE __m256i add_bits(__m256i *sum_b256, __m256i x_b256, __m256i y_b256) {
    const __m256i half_b256 = _mm256_xor_si256(*sum_b256, x_b256);
    const __m256i carry_b256 =
        _mm256_or_si256(_mm256_and_si256(*sum_b256, x_b256), _mm256_and_si256(half_b256, y_b256));
    *sum_b256 = _mm256_xor_si256(half_b256, y_b256);
    return carry_b256;
}

/* Adds the mismatches of 8 vectors to sums of weights 1, 2 and 4; returns the carries of 8. */
BITOPS_INLINE __m256i add_mismatches(const uint64_t *a, const uint64_t *w, __m256i sums_b256[3]) {
    __m256i fours_b256[2], twos_b256[2];
    for (int i = 0; i < 4; i++, a += 2 * YMM_WORDS, w += 2 * YMM_WORDS) {
        twos_b256[i % 2] = add_bits(&sums_b256[0], mismatches_of(a, w),
                                    mismatches_of(a + YMM_WORDS, w + YMM_WORDS));
        if (i % 2)
            fours_b256[i / 2] = add_bits(&sums_b256[1], twos_b256[0], twos_b256[1]);
    }
    return add_bits(&sums_b256[2], fours_b256[0], fours_b256[1]);
}

/* The mismatches of the first `words` words, a multiple of TOGETHER, as 64-bit sums. */
BITOPS_INLINE __m256i carry_mismatches(const uint64_t *a, const uint64_t *w, size_t words) {
    __m256i eights_u64x4 = _mm256_setzero_si256(), sums_b256[3];
    for (int i = 0; i < 3; i++)
        sums_b256[i] = _mm256_setzero_si256();
    for (size_t p = 0; p < words;) {
        const size_t left = (words - p) / TOGETHER;
        const size_t end = p + (left < 31 ? left : 31) * TOGETHER;
        __m256i bytes_u8x32 = _mm256_setzero_si256();
        for (; p < end; p += TOGETHER)
            bytes_u8x32 = _mm256_add_epi8(bytes_u8x32,
                                          popcount_bytes(add_mismatches(a + p, w + p, sums_b256)));
        eights_u64x4 = _mm256_add_epi64(eights_u64x4, sum_bytes(bytes_u8x32));
    }
    __m256i bytes_u8x32 = popcount_bytes(sums_b256[2]); /* at most 8 (4 + 2 + 1) at the end */
    for (int i = 1; i >= 0; i--)
        bytes_u8x32 = _mm256_add_epi8(_mm256_add_epi8(bytes_u8x32, bytes_u8x32),
                                      popcount_bytes(sums_b256[i]));
    return _mm256_add_epi64(_mm256_slli_epi64(eights_u64x4, 3), sum_bytes(bytes_u8x32));
}

/* Rows of w are read one after the other, as a single stream for the prefetcher: several at a time
 * lost a quarter of the speed from the third-level cache on. Bytes grow by at most 8 a vector and
 * are summed after 31 of them. */
BITOPS_INLINE int32_t row_mismatches(const uint64_t *a, const uint64_t *w, size_t k_words) {
    __m256i sum_u64x4 = _mm256_setzero_si256();
    size_t p = 0;
    if (k_words >= CARRY_WORDS) {
        p = k_words / TOGETHER * TOGETHER;
        sum_u64x4 = carry_mismatches(a, w, p);
    }
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

static void long_rows(const uint64_t *a, size_t lda, size_t m, const uint64_t *w, size_t ldw,
                      size_t n, size_t k_words, size_t row, size_t col, const bitops_store *store) {
    /* Stored together, and in the second-level cache until all rows of a are done. */
    enum { COLUMNS = 32, COLUMNS_WORDS = 1 << 14 };
    const size_t most = k_words > COLUMNS_WORDS / COLUMNS ? LANES : COLUMNS;
    for (size_t j = 0; j < n; j += most, w += most * ldw) {
        const size_t columns = n - j < most ? n - j : most;
        for (size_t i = 0; i < m; i++) {
            const uint64_t *own = a + i * lda;
            int32_t mismatches[COLUMNS];
            if (k_words == 12)
                block_mismatches(12, own, w, ldw, columns, 12, mismatches);
            else
                block_mismatches(0, own, w, ldw, columns, k_words, mismatches);
            store_block(mismatches, COLUMNS, 1, columns, row + i, col + j, store);
        }
    }
}

void bitops_gemm_rows_avx2(const uint64_t *a, size_t lda, size_t m, const uint64_t *w, size_t ldw,
                           size_t n, size_t k_words, size_t row, size_t col,
                           const bitops_store *store) {
    BITOPS_ASSUME(col % LANES == 0);
    if (k_words == 0 || k_words > SHORT_WORDS)
        long_rows(a, lda, m, w, ldw, n, k_words, row, col, store);
    else if (m == 1)
        one_short_row(a, w, ldw, n, k_words, row, col, store);
    else
        short_rows(a, lda, m, w, ldw, n, k_words, row, col, store);
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
