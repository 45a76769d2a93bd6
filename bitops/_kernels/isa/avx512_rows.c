/* avx512_rows.c: products with rows of w as they lie in memory; AVX-512 F, BW, VL, VPOPCNTDQ.
 *
 * For few rows of a, for which ordering w into panels costs more than the product. Words of one row
 * of w fill a vector, so counts are summed across lanes, for eight or sixteen columns at a time.
 *   Dense rows: where rows of 1, 2, 4 or 8 words follow each other without gaps, a vector holds 8,
 * 4, 2 or 1 of them, and w is read as one stream: xor, vpopcntq, and the sums of 16 columns.
 *   Other rows: eight rows of w at a time with one row of a, or four with two, by carry-save as in
 * avx512.c, in 64-bit lanes.
 *
 *   vector operations for 16 columns and one row of a, and those of them on port 5
 *   1 word: 5, 3     2 words: 13, 8     4 words: 33, 20     8 words: 69, 42
 * Bottleneck: reading w. Tails: masked loads, masked stores. Overflow: lanes count at most one per
 * bit of k, and k < 2^31. */
#include "operations.h"
#include "isa/shared/avx512.h"
#include "isa/shared/avx512_store.h"
#include "isa/shared/avx512_tally.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vpopcntdq,prfchw")

/* ---- dense rows ---------------------------------------------------------------------------- */

/* The sums of the lanes 2 i and 2 i + 1 of v, in the lanes of their 128 bits: those of v0 below. */
BITOPS_INLINE __m512i add_pairs(__m512i v0_u64x8, __m512i v1_u64x8) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(v0_u64x8, v1_u64x8),
                            _mm512_unpackhi_epi64(v0_u64x8, v1_u64x8));
}

/* The lower halves of the lanes of v0, then those of v1. */
BITOPS_INLINE __m512i narrow(__m512i v0_u64x8, __m512i v1_u64x8) {
    const __m512i even_u32x16 =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return _mm512_permutex2var_epi32(v0_u64x8, even_u32x16, v1_u64x8);
}

/* The sum of the elements that `first` selects from v0 and v1, and those `next` places on. */
BITOPS_INLINE __m512i add_selected(__m512i v0_u32x16, __m512i v1_u32x16, __m512i first_u32x16,
                                   int next) {
    const __m512i second_u32x16 = _mm512_add_epi32(first_u32x16, _mm512_set1_epi32(next));
    return _mm512_add_epi32(_mm512_permutex2var_epi32(v0_u32x16, first_u32x16, v1_u32x16),
                            _mm512_permutex2var_epi32(v0_u32x16, second_u32x16, v1_u32x16));
}

/* The counts of 16 columns of `words` words each, from those of the words, which fill 2 * words
 * vectors. */
BITOPS_INLINE __m512i dense_sums(const int words, const __m512i *v_u64x8) {
    const __m512i even_u32x16 =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    if (words == 1)
        return narrow(v_u64x8[0], v_u64x8[1]);
    if (words == 2)
        return add_selected(narrow(v_u64x8[0], v_u64x8[1]), narrow(v_u64x8[2], v_u64x8[3]),
                            even_u32x16, 1);
    if (words == 4) {
        /* Columns of the pairs of a vector: 0 2 0 2 1 3 1 3, then 4 6 4 6 5 7 5 7. */
        const __m512i order_u32x16 =
            _mm512_set_epi32(29, 25, 28, 24, 21, 17, 20, 16, 13, 9, 12, 8, 5, 1, 4, 0);
        return add_selected(
            narrow(add_pairs(v_u64x8[0], v_u64x8[1]), add_pairs(v_u64x8[2], v_u64x8[3])),
            narrow(add_pairs(v_u64x8[4], v_u64x8[5]), add_pairs(v_u64x8[6], v_u64x8[7])),
            order_u32x16, 2);
    }
    /* Columns: 0 1 four times, then 2 3 four times; each 256 bits become 128. */
    __m512i halves_u32x16[2];
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m512i *own = v_u64x8 + 8 * i;
        const __m512i low_u32x16 = narrow(add_pairs(own[0], own[1]), add_pairs(own[2], own[3]));
        const __m512i high_u32x16 = narrow(add_pairs(own[4], own[5]), add_pairs(own[6], own[7]));
        halves_u32x16[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(low_u32x16, high_u32x16, 0x88),
                                            _mm512_shuffle_i32x4(low_u32x16, high_u32x16, 0xdd));
    }
    const __m512i order_u32x16 =
        _mm512_set_epi32(29, 28, 25, 24, 21, 20, 17, 16, 13, 12, 9, 8, 5, 4, 1, 0);
    return add_selected(halves_u32x16[0], halves_u32x16[1], order_u32x16, 2);
}

BITOPS_INLINE __m512i load_repeated(const int words, const uint64_t *a) {
    if (words == 1)
        return _mm512_set1_epi64((int64_t)a[0]);
    if (words == 2)
        return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)a));
    if (words == 4)
        return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)a));
    return _mm512_loadu_si512(a);
}

/* The mismatches of 16 columns with the words of a, repeated. */
BITOPS_INLINE __m512i dense_mismatches(const int words, __m512i a_u64x8, const uint64_t *w) {
    __m512i v_u64x8[2 * ZMM_WORDS];
    BITOPS_UNROLL
    for (int i = 0; i < 2 * words; i++)
        v_u64x8[i] =
            _mm512_popcnt_epi64(_mm512_xor_si512(a_u64x8, _mm512_loadu_si512(w + i * ZMM_WORDS)));
    return dense_sums(words, v_u64x8);
}

/* One row of a times the n columns of dense rows, a multiple of 16; words and kind are constants at
 * every call. */
BITOPS_INLINE void dense_row(const int words, const bitops_store_kind kind, const uint64_t *a,
                             const uint64_t *w, size_t n, size_t row, size_t col,
                             const bitops_store *store) {
    enum { TOGETHER = 4 }; /* vectors of short rows, whose loop would take as long as they do */
    const __m512i a_u64x8 = load_repeated(words, a);
    const bitops_store own = *store; /* stores to c cannot change it */
    size_t j = 0;
    for (; words <= 2 && !own.w_counts && j + TOGETHER * LANES <= n; j += TOGETHER * LANES) {
        BITOPS_UNROLL
        for (size_t own_j = j; own_j < j + TOGETHER * LANES; own_j += LANES, w += LANES * words)
            store_lanes(kind, dense_mismatches(words, a_u64x8, w), 0xffff, row, col + own_j, NULL,
                        &own);
    }
    for (; j < n; j += LANES, w += LANES * words)
        store_any_lanes(kind, dense_mismatches(words, a_u64x8, w), 0xffff, row, col + j, NULL,
                        &own);
}

BITOPS_INLINE void dense_rows(const int words, const uint64_t *a, size_t lda, size_t m,
                              const uint64_t *w, size_t n, size_t row, size_t col,
                              const bitops_store *store) {
    for (size_t i = 0; i < m; i++, a += lda) {
        if (store->kind == BITOPS_STORE_HAMMING)
            dense_row(words, BITOPS_STORE_HAMMING, a, w, n, row + i, col, store);
        else if (store->kind == BITOPS_STORE_DOT)
            dense_row(words, BITOPS_STORE_DOT, a, w, n, row + i, col, store);
        else if (store->kind == BITOPS_STORE_TOPK)
            dense_row(words, BITOPS_STORE_TOPK, a, w, n, row + i, col, store);
        else
            dense_row(words, store->kind, a, w, n, row + i, col, store);
    }
}

/* How many columns were done: whole vectors of them, if rows are dense. */
BITOPS_INLINE size_t multiply_dense(const uint64_t *a, size_t lda, size_t m, const uint64_t *w,
                                    size_t ldw, size_t n, size_t k_words, size_t row, size_t col,
                                    const bitops_store *store) {
    const size_t whole = n / LANES * LANES;
    if (ldw != k_words)
        return 0;
    switch (k_words) {
    case 1:
        dense_rows(1, a, lda, m, w, whole, row, col, store);
        return whole;
    case 2:
        dense_rows(2, a, lda, m, w, whole, row, col, store);
        return whole;
    case 4:
        dense_rows(4, a, lda, m, w, whole, row, col, store);
        return whole;
    case 8:
        dense_rows(8, a, lda, m, w, whole, row, col, store);
        return whole;
    default:
        return 0;
    }
}

/* ---- other rows ---------------------------------------------------------------------------- */

enum {
    GROUP = 8,        /* outputs made together: their sums fill one vector */
    LONG_WORDS = 512, /* rows of 4 KiB, and how far ahead to prefetch in them */
    LONG_AHEAD = 64,
    MOST_ROWS = 16,   /* of a, whose sums are kept while parts of w pass: */
    PART_WORDS = 256, /* 2 KiB of each of 16 rows */
};

/* Lane j of the result is the sum of the eight lanes of v[j]. */
BITOPS_INLINE __m512i sum_lanes(const __m512i v_u64x8[GROUP]) {
    __m512i pairs_u64x8[4], quads_u64x8[2];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++)
        pairs_u64x8[i] =
            _mm512_add_epi64(_mm512_unpacklo_epi64(v_u64x8[2 * i], v_u64x8[2 * i + 1]),
                             _mm512_unpackhi_epi64(v_u64x8[2 * i], v_u64x8[2 * i + 1]));
    /* pairs[i]: (2i, 2i+1) four times, once per 128 bits. */
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++)
        quads_u64x8[i] = _mm512_add_epi64(
            _mm512_shuffle_i64x2(pairs_u64x8[2 * i], pairs_u64x8[2 * i + 1], 0x88),
            _mm512_shuffle_i64x2(pairs_u64x8[2 * i], pairs_u64x8[2 * i + 1], 0xdd));
    /* quads[i]: pairs 2i, 2i, 2i+1, 2i+1. */
    return _mm512_add_epi64(_mm512_shuffle_i64x2(quads_u64x8[0], quads_u64x8[1], 0x88),
                            _mm512_shuffle_i64x2(quads_u64x8[0], quads_u64x8[1], 0xdd));
}

/* Loads a vector of words of a row: all, or those that mask selects. */
BITOPS_INLINE __m512i load_words(const uint64_t *words, const int all, __mmask8 mask) {
    return all ? _mm512_loadu_si512(words) : _mm512_maskz_loadu_epi64(mask, words);
}

/* Adds 2 x 8 words at p of two rows of a and four rows of w to tallies, those of a row of a side by
 * side. If not `all`, only `left` words remain. Prefetches the words of w that lie `ahead`. */
BITOPS_INLINE void pair_step(tally t[GROUP], const uint64_t *const a[2], const uint64_t *const *w,
                             size_t p, const int all, size_t left, size_t ahead) {
    const __mmask8 m1 = low_bits8(left);
    const __mmask8 m2 = low_bits8(left > ZMM_WORDS ? left - ZMM_WORDS : 0);
    __m512i a1_u64x8[2], a12_u64x8[2];
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        a1_u64x8[i] = load_words(a[i] + p, all, m1);
        a12_u64x8[i] = _mm512_xor_si512(a1_u64x8[i], load_words(a[i] + p + ZMM_WORDS, all, m2));
    }
    BITOPS_UNROLL
    for (int j = 0; j < GROUP / 2; j++) {
        const __m512i w1_u64x8 = load_words(w[j] + p, all, m1);
        const __m512i w12_u64x8 =
            _mm512_xor_si512(w1_u64x8, load_words(w[j] + p + ZMM_WORDS, all, m2));
        __builtin_prefetch(w[j] + p + ahead, 0, 3);
        __builtin_prefetch(w[j] + p + ahead + ZMM_WORDS, 0, 3);
        BITOPS_UNROLL
        for (int i = 0; i < 2; i++) {
            tally *const s = &t[i * (GROUP / 2) + j];
            const __m512i carry_u64x8 =
                tally_add(s, a1_u64x8[i], a12_u64x8[i], w1_u64x8, w12_u64x8);
            s->count_b512 = _mm512_add_epi64(s->count_b512, _mm512_popcnt_epi64(carry_u64x8));
        }
    }
}

/* Where the words lie that are wanted soon, from those at hand: in the next rows, or, if rows are
 * long, in the same ones, lest the end of w be far exceeded. */
BITOPS_INLINE size_t words_ahead(int nw, size_t ldw) {
    return ldw < LONG_WORDS ? (size_t)nw * ldw : LONG_AHEAD;
}

/* Adds 8 words at p of one row of a and eight rows of w to counters. */
BITOPS_INLINE void stream_step(__m512i count_u64x8[GROUP], const uint64_t *a,
                               const uint64_t *const *w, size_t p, const int all, size_t left,
                               size_t ahead) {
    const __mmask8 mask = low_bits8(left);
    const __m512i a_u64x8 = load_words(a + p, all, mask);
    BITOPS_UNROLL
    for (int j = 0; j < GROUP; j++) {
        const __m512i x_u64x8 = _mm512_xor_si512(a_u64x8, load_words(w[j] + p, all, mask));
        __builtin_prefetch(w[j] + p + ahead, 0, 3);
        count_u64x8[j] = _mm512_add_epi64(count_u64x8[j], _mm512_popcnt_epi64(x_u64x8));
    }
}

/* Counts the mismatches of one row of a with eight rows of w, without carries: reading w takes
 * longer. */
BITOPS_INLINE void stream_rows(const uint64_t *a, const uint64_t *const *w, size_t ldw,
                               size_t k_words, __m512i count_out[GROUP]) {
    const size_t ahead = words_ahead(GROUP, ldw);
    for (int j = 0; j < GROUP; j++)
        count_out[j] = _mm512_setzero_si512();
    size_t p = 0;
    for (; p + ZMM_WORDS <= k_words; p += ZMM_WORDS)
        stream_step(count_out, a, w, p, 1, ZMM_WORDS, ahead);
    if (p < k_words)
        stream_step(count_out, a, w, p, 0, k_words - p, ahead);
}

/* The same for two rows of a and four of w, by carry-save. */
BITOPS_INLINE void pair_rows(const uint64_t *a, size_t lda, const uint64_t *const *w, size_t ldw,
                             size_t k_words, __m512i count_out[GROUP]) {
    const uint64_t *const a_rows[2] = {a, a + lda};
    const size_t ahead = words_ahead(GROUP / 2, ldw);
    tally t[GROUP];
    for (int i = 0; i < GROUP; i++)
        t[i] = tally_zero();
    size_t p = 0;
    for (; p + 2 * ZMM_WORDS <= k_words; p += 2 * ZMM_WORDS)
        pair_step(t, a_rows, w, p, 1, 2 * ZMM_WORDS, ahead);
    if (p < k_words)
        pair_step(t, a_rows, w, p, 0, k_words - p, ahead);
    BITOPS_UNROLL
    for (int i = 0; i < GROUP; i++)
        count_out[i] = _mm512_add_epi64(_mm512_add_epi64(t[i].count_b512, t[i].count_b512),
                                        _mm512_popcnt_epi64(t[i].ones_b512));
}

/* The same for na rows of a and nw of w, of at most 16 words, for which carries do not pay. */
BITOPS_INLINE void brief_rows(const int na, const int nw, const uint64_t *a, size_t lda,
                              const uint64_t *const *w, size_t ldw, size_t k_words,
                              __m512i count_out[GROUP]) {
    const __mmask8 m1 = low_bits8(k_words);
    const __mmask8 m2 = low_bits8(k_words > ZMM_WORDS ? k_words - ZMM_WORDS : 0);
    __m512i a1_u64x8[2], a2_u64x8[2];
    for (int i = 0; i < na; i++) {
        a1_u64x8[i] = load_words(a + (size_t)i * lda, 0, m1);
        a2_u64x8[i] = load_words(a + (size_t)i * lda + ZMM_WORDS, 0, m2);
    }
    BITOPS_UNROLL
    for (int j = 0; j < nw; j++) {
        const __m512i w1_u64x8 = load_words(w[j], 0, m1);
        const __m512i w2_u64x8 = load_words(w[j] + ZMM_WORDS, 0, m2);
        __builtin_prefetch(w[j] + (size_t)nw * ldw, 0, 3);
        __builtin_prefetch(w[j] + (size_t)nw * ldw + ZMM_WORDS, 0, 3);
        for (int i = 0; i < na; i++)
            count_out[i * nw + j] =
                _mm512_add_epi64(_mm512_popcnt_epi64(_mm512_xor_si512(a1_u64x8[i], w1_u64x8)),
                                 _mm512_popcnt_epi64(_mm512_xor_si512(a2_u64x8[i], w2_u64x8)));
    }
}

/* Counts the mismatches of na rows of a with nw rows of w, na * nw = 8: eight int32, in the order
 * of the rows of a. Columns from `columns` on repeat the last one. */
BITOPS_INLINE __m256i group_mismatches(const int na, const int nw, const uint64_t *a, size_t lda,
                                       const uint64_t *w, size_t ldw, size_t columns,
                                       size_t k_words) {
    const uint64_t *w_rows[GROUP];
    __m512i sums_u64x8[GROUP];
    for (int j = 0; j < nw; j++)
        w_rows[j] = w + ((size_t)j < columns ? (size_t)j : columns - 1) * ldw;
    if (k_words <= 2 * ZMM_WORDS && (na > 1 || k_words % ZMM_WORDS))
        brief_rows(na, nw, a, lda, w_rows, ldw, k_words, sums_u64x8);
    else if (na == 1)
        stream_rows(a, w_rows, ldw, k_words, sums_u64x8);
    else
        pair_rows(a, lda, w_rows, ldw, k_words, sums_u64x8);
    return _mm512_cvtepi64_epi32(sum_lanes(sums_u64x8));
}

/* Counts the mismatches of na rows of a with `columns` <= 16 rows of w; na is a constant at every
 * call. */
BITOPS_INLINE void rows_mismatches(const int na, const uint64_t *a, size_t lda, const uint64_t *w,
                                   size_t ldw, size_t columns, size_t k_words,
                                   int32_t mismatches_out[2][LANES]) {
    const int nw = GROUP / na;
    for (size_t j = 0; j < columns; j += (size_t)nw) {
        const __m256i eight_i32x8 =
            group_mismatches(na, nw, a, lda, w + j * ldw, ldw, columns - j, k_words);
        if (na == 1) {
            _mm256_storeu_si256((__m256i *)&mismatches_out[0][j], eight_i32x8);
        } else {
            _mm_storeu_si128((__m128i *)&mismatches_out[0][j], _mm256_castsi256_si128(eight_i32x8));
            _mm_storeu_si128((__m128i *)&mismatches_out[1][j],
                             _mm256_extracti128_si256(eight_i32x8, 1));
        }
    }
}

/* Adds the mismatches of `rows` rows of a with `columns` <= 16 rows of w to sums. */
BITOPS_INLINE void add_mismatches(size_t rows, const uint64_t *a, size_t lda, const uint64_t *w,
                                  size_t ldw, size_t columns, size_t k_words,
                                  int32_t sums[MOST_ROWS][LANES]) {
    for (size_t i = 0; i < rows; i += 2) {
        int32_t mismatches[2][LANES];
        const size_t pair = rows - i < 2 ? 1 : 2;
        if (pair == 2)
            rows_mismatches(2, a + i * lda, lda, w, ldw, columns, k_words, mismatches);
        else
            rows_mismatches(1, a + i * lda, lda, w, ldw, columns, k_words, mismatches);
        for (size_t r = 0; r < pair; r++)
            _mm512_storeu_si512(sums[i + r], _mm512_add_epi32(_mm512_loadu_si512(sums[i + r]),
                                                              _mm512_loadu_si512(mismatches[r])));
    }
}

/* Up to MOST_ROWS rows of a times n columns. */
BITOPS_INLINE void multiply_rows(const uint64_t *a, size_t lda, size_t m, const uint64_t *w,
                                 size_t ldw, size_t n, size_t k_words, size_t row, size_t col,
                                 const bitops_store *store) {
    /* Two rows of a need w once, and more of them parts of it that stay in the cache. */
    const size_t part = m > 2 ? PART_WORDS : k_words;
    for (size_t j = 0; j < n; j += LANES, w += LANES * ldw) {
        const size_t columns = n - j < LANES ? n - j : LANES;
        int32_t sums[MOST_ROWS][LANES];
        memset(sums, 0, m * sizeof *sums);
        for (size_t p = 0; p < k_words; p += part)
            add_mismatches(m, a + p, lda, w + p, ldw, columns,
                           k_words - p < part ? k_words - p : part, sums);
        for (size_t i = 0; i < m; i++)
            store_any_lanes(store->kind, _mm512_loadu_si512(sums[i]), low_bits16(columns), row + i,
                            col + j, NULL, store);
    }
}

void bitops_gemm_rows_avx512(const uint64_t *a, size_t lda, size_t m, const uint64_t *w, size_t ldw,
                             size_t n, size_t k_words, size_t row, size_t col,
                             const bitops_store *store) {
    BITOPS_ASSUME(col % GROUP == 0);
    const size_t dense = multiply_dense(a, lda, m, w, ldw, n, k_words, row, col, store);
    for (size_t i = 0; i < m; i += MOST_ROWS)
        multiply_rows(a + i * lda, lda, m - i < MOST_ROWS ? m - i : MOST_ROWS, w + dense * ldw, ldw,
                      n - dense, k_words, row + i, col + dense, store);
}

/* ---- pairs --------------------------------------------------------------------------------- */

BITOPS_INLINE uint64_t popcount64(uint64_t x) {
    return (uint64_t)_mm_popcnt_u64(x);
}

#include "isa/shared/pairs.h"

void bitops_count_pairs_avx512(const uint64_t *a, size_t lda, const uint64_t *b, size_t ldb,
                               size_t k_words, const uint64_t *pairs, size_t n, int32_t most,
                               int32_t *count_out) {
    count_pairs(a, lda, b, ldb, k_words, pairs, n, most, count_out);
}

BITOPS_TARGET_END

#endif
