/* avx512_short.c: products of short rows; AVX-512 F, BW, VL, VPOPCNTDQ.
 *
 * Where k is short, a tile of avx512.c spends its time on the store: it writes two vectors of each
 * of four rows, then the next four rows. Here a row of a stays in registers, broadcast, while the
 * panels pass, so that its outputs are written from the first column to the last. Panels and rows
 * are those of avx512.c, and so are the steps: for word p,
 *     next  = ones ^ a12 ^ w12            carry = ones != next ? ones : a1 ^ w1
 * but `ones` starts as 0, so the first word needs no xor of its own:
 *     next  = a12 ^ w12                   carry = (a1 ^ w1) & ~next
 * A single word has no use for carries: its halves are a1 ^ w1 and a2 ^ w1 ^ w12.
 *
 *   vector operations for 16 outputs: 5 for one word, 11 for two, 21 for four, 41 for eight
 * Bottleneck: the two vector ports, or the store. Tails: columns are masked in the store. Overflow:
 * counters count at most 512. */
#include "operations.h"
#include "isa/shared/avx512.h"
#include "isa/shared/avx512_store.h"
#include "isa/shared/avx512_tally.h"
#include "isa/shared/kinds.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vpopcntdq,prfchw")

enum { NR = 32 };

enum { XOR_ANDNOT = 0x14 }; /* truth table of vpternlog: (a ^ b) & ~c */

BITOPS_INLINE __m512i broadcast_half(const uint64_t *word, size_t half) {
    int32_t v;
    memcpy(&v, (const char *)word + 4 * half, sizeof v);
    return _mm512_set1_epi32(v);
}

/* The words of one row of a, broadcast: a1 and a12, but a2 in place of a12 for a single word. */
typedef struct short_row {
    __m512i a1_u32x16[BITOPS_SHORT_WORDS], a12_u32x16[BITOPS_SHORT_WORDS];
} short_row;

BITOPS_INLINE short_row load_row(const int words, const uint64_t *a) {
    short_row row;
    BITOPS_UNROLL
    for (int p = 0; p < words; p++) {
        row.a1_u32x16[p] = broadcast_half(a + p, 0);
        row.a12_u32x16[p] = broadcast_half(a + p, 1);
    }
    if (words == 1)
        row.a12_u32x16[0] = _mm512_xor_si512(row.a1_u32x16[0], row.a12_u32x16[0]);
    return row;
}

/* The mismatches of a row with 16 columns, which are half a panel. */
BITOPS_INLINE __m512i short_mismatches(const int words, const short_row *row,
                                       const uint64_t *panel) {
    const __m512i w1_u32x16 = _mm512_loadu_si512(panel);
    const __m512i w12_u32x16 = _mm512_loadu_si512(panel + ZMM_WORDS);
    if (words == 1) {
        const __m512i x1_b512 = _mm512_xor_si512(row->a1_u32x16[0], w1_u32x16);
        const __m512i x2_b512 = xor3(row->a12_u32x16[0], w1_u32x16, w12_u32x16);
        return _mm512_add_epi32(_mm512_popcnt_epi32(x1_b512), _mm512_popcnt_epi32(x2_b512));
    }
    __m512i ones_b512 = _mm512_xor_si512(row->a12_u32x16[0], w12_u32x16);
    __m512i count_i32x16 = _mm512_popcnt_epi32(
        _mm512_ternarylogic_epi32(row->a1_u32x16[0], w1_u32x16, ones_b512, XOR_ANDNOT));
    BITOPS_UNROLL
    for (int p = 1; p < words; p++) {
        const __m512i x1_b512 =
            _mm512_xor_si512(row->a1_u32x16[p], _mm512_loadu_si512(panel + p * NR));
        const __m512i next_b512 =
            xor3(ones_b512, row->a12_u32x16[p], _mm512_loadu_si512(panel + p * NR + ZMM_WORDS));
        const __m512i carry_b512 = _mm512_ternarylogic_epi32(x1_b512, ones_b512, next_b512, CARRY);
        count_i32x16 = _mm512_add_epi32(count_i32x16, _mm512_popcnt_epi32(carry_b512));
        ones_b512 = next_b512;
    }
    return _mm512_add_epi32(_mm512_add_epi32(count_i32x16, count_i32x16),
                            _mm512_popcnt_epi32(ones_b512));
}

/* What all rows of a call share. Lines of c are asked for `ahead` bytes before they are written:
 * those of rows below, or of the same row if it is the only one. */
typedef struct short_task {
    const uint64_t *panels;
    size_t n, row, col;
    const bitops_store *store;
    size_t ahead;
} short_task;

enum { AHEAD = 1024 }; /* bytes, at least */

/* store_lanes, and for the kinds that may read counts a test whether they do. */
BITOPS_INLINE void store_short(const bitops_store_kind kind, __m512i mismatches_i32x16,
                               __mmask16 mask, size_t row, size_t col, const int32_t *offset,
                               const bitops_store *store) {
    if (kind == BITOPS_STORE_TOPK || kind == BITOPS_STORE_INTERSECTION)
        store_any_lanes(kind, mismatches_i32x16, mask, row, col, offset, store);
    else
        store_lanes(kind, mismatches_i32x16, mask, row, col, offset, store);
}

BITOPS_INLINE size_t bytes_ahead(size_t m, const bitops_store *store) {
    const size_t row = store->ldc * store_number_size(store->kind);
    return m == 1 || row == 0 ? AHEAD : (AHEAD + row - 1) / row * row;
}

/* One row of a times all columns; words and kind are constants at every call. */
BITOPS_INLINE void short_columns(const int words, const bitops_store_kind kind, const uint64_t *a,
                                 const short_task *task, const bitops_store *store, size_t i) {
    const short_row row = load_row(words, a);
    const int32_t *offset = store_offset(store, task->row + i);
    const uint64_t *panel = task->panels;
    const size_t size = store_number_size(kind);
    const char *later =
        (const char *)store->c + ((task->row + i) * store->ldc + task->col) * size + task->ahead;
    size_t j = 0;
    for (; j + NR <= task->n; j += NR, panel += words * NR) {
        BITOPS_UNROLL
        for (size_t half = 0; half < NR; half += LANES) {
            if (size && half * size % 64 == 0)
                __builtin_prefetch(later + (j + half) * size, 1, 3);
            store_short(kind, short_mismatches(words, &row, panel + half), 0xffff, task->row + i,
                        task->col + j + half, offset, store);
        }
    }
    for (size_t half = 0; j + half < task->n; half += LANES) {
        if (size)
            __builtin_prefetch(later + (j + half) * size, 1, 3);
        store_short(kind, short_mismatches(words, &row, panel + half),
                    low_bits16(task->n - j - half), task->row + i, task->col + j + half, offset,
                    store);
    }
}

/* All rows of a. Up to 16 columns are one vector, with nothing to decide for each row. */
BITOPS_INLINE void short_rows_of(const bitops_store_kind kind, const int words, const uint64_t *a,
                                 size_t lda, size_t m, const short_task *task) {
    const bitops_store store = *task->store; /* stores to c cannot change it */
    if (task->n > LANES) {
        for (size_t i = 0; i < m; i++, a += lda)
            short_columns(words, kind, a, task, &store, i);
        return;
    }
    const __mmask16 mask = low_bits16(task->n);
    const uint64_t *panel = task->panels;
    const size_t end = task->row + m, size = store_number_size(kind);
    for (size_t row = task->row; row < end; row++, a += lda) {
        const short_row words_of_row = load_row(words, a);
        const char *c = (const char *)store.c + (row * store.ldc + task->col) * size;
        if (size)
            __builtin_prefetch(c + task->ahead, 1, 3);
        store_short(kind, short_mismatches(words, &words_of_row, panel), mask, row, task->col,
                    store_offset(&store, row), &store);
    }
}

/* ---- pairs within a range ------------------------------------------------------------------ */

/* One row of a times all columns for WITHIN: hits are so rare that 64 columns share a test. */
BITOPS_INLINE void within_columns(const int words, const uint64_t *a, const short_task *task,
                                  size_t i) {
    enum { VECTORS = 4 };
    const short_row row = load_row(words, a);
    const __m512i most_i32x16 = _mm512_set1_epi32(task->store->most);
    const bitops_store store = *task->store;
    for (size_t j = 0; j < task->n; j += VECTORS * LANES) {
        const uint64_t *panel = task->panels + j * (size_t)words;
        if (j + VECTORS * LANES <= task->n) {
            __m512i least_i32x16 = _mm512_set1_epi32(INT32_MAX);
            BITOPS_UNROLL
            for (size_t v = 0; v < VECTORS; v++) {
                const uint64_t *own = panel + v / 2 * (size_t)words * NR + v % 2 * LANES;
                least_i32x16 = _mm512_min_epi32(least_i32x16, short_mismatches(words, &row, own));
            }
            if (!_mm512_cmple_epi32_mask(least_i32x16, most_i32x16))
                continue;
        }
        for (size_t v = 0; v < VECTORS && j + v * LANES < task->n; v++)
            store_any_lanes(
                BITOPS_STORE_WITHIN,
                short_mismatches(words, &row, panel + v / 2 * (size_t)words * NR + v % 2 * LANES),
                low_bits16(task->n - j - v * LANES), task->row + i, task->col + j + v * LANES, NULL,
                &store);
    }
}

BITOPS_INLINE void short_rows(const int words, const uint64_t *a, size_t lda, size_t m,
                              const short_task *task) {
    switch (task->store->kind) {
        BITOPS_STORE_CASES(short_rows_of, words, a, lda, m, task);
        BITOPS_CASE(BITOPS_STORE_ACCUMULATE, short_rows_of, words, a, lda, m, task);
    case BITOPS_STORE_WITHIN:
        for (size_t i = 0; i < m; i++)
            within_columns(words, a + i * lda, task, i);
        break;
    default: /* the store of metrics looks up which it is */
        short_rows_of(BITOPS_STORE_INTERSECTION, words, a, lda, m, task);
    }
}

void bitops_gemm_short_avx512(const uint64_t *a, size_t lda, size_t m, const uint64_t *panels,
                              size_t n, size_t k_words, size_t row, size_t col,
                              const bitops_store *store) {
    BITOPS_ASSUME(k_words > 0 && k_words <= BITOPS_SHORT_WORDS && col % NR == 0);
    const short_task task = {panels, n, row, col, store, bytes_ahead(m, store)};
    switch (k_words) {
        BITOPS_CASE(1, short_rows, a, lda, m, &task);
        BITOPS_CASE(2, short_rows, a, lda, m, &task);
        BITOPS_CASE(3, short_rows, a, lda, m, &task);
        BITOPS_CASE(4, short_rows, a, lda, m, &task);
        BITOPS_CASE(5, short_rows, a, lda, m, &task);
        BITOPS_CASE(6, short_rows, a, lda, m, &task);
        BITOPS_CASE(7, short_rows, a, lda, m, &task);
        BITOPS_CASE(8, short_rows, a, lda, m, &task);
    }
}

BITOPS_TARGET_END

#endif
