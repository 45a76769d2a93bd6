/* avx2.c: panels and products of bits; AVX2, BMI2, POPCNT.
 *
 * There is no vector popcount, so mismatches are looked up. Two 4-bit counters share a byte while
 * they are small (nibble_counts).
 *   Many rows: four Russians. For 5 bits of k and 128 columns, a table holds the mismatches with
 * all 32 patterns; each row loads the entry that its own 5 bits select, and adds it. Few rows: a
 * nibble of each of two rows selects one of 256 tables of 16 bytes, in which pshufb looks up the
 * same nibble of 32 columns, for both rows at once.
 *
 *   intrinsic                        instruction     Skylake and later   Zen 3, 4
 *   _mm256_add_epi8 (memory)         vpaddb          two loads a cycle   two loads a cycle
 *   _mm256_add_epi8                  vpaddb          latency 1, p015     1, four per cycle
 *   _mm256_srli_epi16                vpsrlw          latency 1, p01      1, two per cycle
 *   _mm256_shuffle_epi8              vpshufb         latency 1, p5       1, two per cycle
 *   _mm256_broadcastsi128 (memory)   vbroadcasti128  load ports only     load ports only
 * Bottleneck of tables: instructions, about 110 for 64 bits of a row and 128 columns, and loads
 * from lines of one cache set; of shuffles: vector operations, 3 of 9 being shuffles.
 *
 * Panel of 128 columns: for each word of k and each half of 64 columns, the 16 nibbles of the word,
 * least significant first, as one ymm each:
 *
 *   byte         0          1          ...   31
 *   low nibble   column 0   column 1         column 31
 *   high nibble  column 32  column 33        column 63
 *
 * Overflow: 4-bit sums are at most 15 (three groups of 5 bits, three nibbles for 12); 8-bit
 * counters grow by at most 64 a word and are emptied into 16-bit counters every 3 words (192 <=
 * 255); those hold 64 * 1023 = 65472 <= 65535, so k_words <= 1023. The driver cuts k into much
 * shorter slices. Tails: k is made of whole words; panels of missing columns are 0. */
#include "operations.h"
#include "isa/shared/avx2.h"
#include "isa/shared/avx2_pairs.h"
#include "isa/shared/avx2_store.h"
#include "isa/shared/avx2_tables.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,prfchw")

enum {
    MR = 4,
    MAX_WORDS = 1023,
    MANY_ROWS = 48, /* from here on tables pay: measured, see README.md */
    SHORT_WORDS = 8,
    QUARTER = 32, /* columns of a panel, whose counts are 16-bit lanes of two vectors */
};

/* ---- panels -------------------------------------------------------------------------------- */

/* Two loads and an interleaving: left alone, gcc builds a vector of two numbers through memory,
 * which stalls. */
BITOPS_INLINE __m128i load_two(const uint64_t *low, const uint64_t *high) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)low),
                              _mm_loadl_epi64((const __m128i *)high));
}

/* bytes[y] has byte y of each of 32 words that lie `stride` apart: an 8 x 32 transpose in three
 * rounds of interleaving. */
BITOPS_INLINE void transpose_bytes(const uint64_t *words, size_t stride, __m256i bytes_u8x32[8]) {
    const __m256i pairs_u8x32 =
        _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 0, 8, 1, 9, 2, 10, 3,
                         11, 4, 12, 5, 13, 6, 14, 7, 15);
    __m256i x_u8x32[8], y_u8x32[8];
    for (size_t i = 0; i < 8; i++) { /* columns 2i, 2i+1 in the lower half, 16 columns on above */
        const uint64_t *low = words + 2 * i * stride, *high = low + 16 * stride;
        x_u8x32[i] = _mm256_set_m128i(load_two(high, high + stride), load_two(low, low + stride));
        x_u8x32[i] = _mm256_shuffle_epi8(x_u8x32[i], pairs_u8x32);
    }
    for (int i = 0; i < 4; i++) {
        y_u8x32[i] =
            _mm256_unpacklo_epi16(x_u8x32[2 * i], x_u8x32[2 * i + 1]); /* 4 columns, bytes 0-3 */
        y_u8x32[4 + i] = _mm256_unpackhi_epi16(x_u8x32[2 * i], x_u8x32[2 * i + 1]); /* bytes 4-7 */
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) { /* 8 columns; bytes i + 2j and i + 2j + 1 */
            x_u8x32[i + 2 * j] = j ? _mm256_unpackhi_epi32(y_u8x32[i], y_u8x32[i + 1])
                                   : _mm256_unpacklo_epi32(y_u8x32[i], y_u8x32[i + 1]);
            x_u8x32[i + 2 * j + 1] = j ? _mm256_unpackhi_epi32(y_u8x32[i + 2], y_u8x32[i + 3])
                                       : _mm256_unpacklo_epi32(y_u8x32[i + 2], y_u8x32[i + 3]);
        }
    for (int i = 0; i < 8; i += 2) {
        bytes_u8x32[i] = _mm256_unpacklo_epi64(x_u8x32[i], x_u8x32[i + 1]);
        bytes_u8x32[i + 1] = _mm256_unpackhi_epi64(x_u8x32[i], x_u8x32[i + 1]);
    }
}

/* Writes the 16 nibbles of one word of 64 columns to half a panel. */
BITOPS_INLINE void order_word(const uint64_t *words, size_t stride, uint64_t *panel_out) {
    const __m256i nibble_u8x32 = _mm256_set1_epi8(15);
    __m256i first_u8x32[8], second_u8x32[8], *out = (__m256i *)panel_out;
    transpose_bytes(words, stride, first_u8x32);
    transpose_bytes(words + 32 * stride, stride, second_u8x32);
    for (int i = 0; i < 8; i++) {
        const __m256i low_u8x32 =
            _mm256_slli_epi16(_mm256_and_si256(second_u8x32[i], nibble_u8x32), 4);
        const __m256i high_u8x32 =
            _mm256_and_si256(_mm256_srli_epi16(first_u8x32[i], 4), nibble_u8x32);
        _mm256_storeu_si256(
            out + 2 * i,
            _mm256_or_si256(low_u8x32, _mm256_and_si256(first_u8x32[i], nibble_u8x32)));
        _mm256_storeu_si256(
            out + 2 * i + 1,
            _mm256_or_si256(high_u8x32, _mm256_andnot_si256(nibble_u8x32, second_u8x32[i])));
    }
}

/* Copies fewer than 8 words, not by a call of memcpy for each row. */
BITOPS_INLINE void copy_part(const uint64_t *line, size_t words, uint64_t *out) {
    for (size_t part = 4; part; part /= 2)
        if (words & part) {
            memcpy(out, line, part * sizeof *out);
            line += part;
            out += part;
        }
}

void bitops_prepack_avx2(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                         uint64_t *panel_out) {
    BITOPS_ASSUME(n <= NR);
    if (n == NR && k_words <= 4) { /* rows share lines */
        for (size_t half = 0; half < NR; half += HALF)
            for (size_t p = 0; p < k_words; p++)
                order_word(w + half * ldw + p, ldw, panel_out + p * NR + half);
        return;
    }
    /* Each cache line of w is read once, however many lines its rows make fall into one set, and
     * asked for: so many short pieces are no stream for the prefetcher. */
    enum { LINE = 8 };
    for (size_t half = 0; half < NR; half += HALF)
        for (size_t p = 0; p < k_words; p += LINE) {
            const size_t words = k_words - p < LINE ? k_words - p : LINE;
            uint64_t lines[HALF * LINE];
            for (size_t j = 0; j < HALF; j++) {
                const uint64_t *line = w + (half + j) * ldw + p;
                if (half + j >= n) {
                    memset(lines + j * LINE, 0, LINE * sizeof *lines);
                    continue;
                }
                _mm_prefetch((const char *)(line + 2 * LINE), _MM_HINT_T0);
                if (words == LINE)
                    memcpy(lines + j * LINE, line, LINE * sizeof *lines);
                else
                    copy_part(line, words, lines + j * LINE);
            }
            for (size_t i = 0; i < words; i++)
                order_word(lines + i, LINE, panel_out + (p + i) * NR + half);
        }
}

/* ---- results ------------------------------------------------------------------------------- */

/* The counts of 32 columns, 8 at a time, from 16-bit lanes: of even columns, of odd columns. */
BITOPS_INLINE void widen_counts(__m256i even_u16x16, __m256i odd_u16x16, __m256i out_i32x8[4]) {
    const __m256i low_u16x16 =
        _mm256_unpacklo_epi16(even_u16x16, odd_u16x16); /* columns 0-7, 16-23 */
    const __m256i high_u16x16 =
        _mm256_unpackhi_epi16(even_u16x16, odd_u16x16); /* columns 8-15, 24-31 */
    out_i32x8[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(low_u16x16));
    out_i32x8[1] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(high_u16x16));
    out_i32x8[2] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(low_u16x16, 1));
    out_i32x8[3] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(high_u16x16, 1));
}

/* store_lanes for n <= 32 columns; kind is a constant at every call but the last one. */
BITOPS_INLINE void store_vectors(const bitops_store_kind kind, const __m256i *counts_i32x8,
                                 size_t n, size_t row, size_t col, const bitops_store *store) {
    const int32_t *own = store_offset(store, row), *offset = own ? own + col : NULL;
    size_t j = 0;
    for (; j + LANES <= n; j += LANES)
        store_lanes(kind, *counts_i32x8++, LANES, row, col + j, offset ? offset + j : NULL, store);
    if (j < n)
        store_lanes(kind, *counts_i32x8, n - j, row, col + j, offset ? offset + j : NULL, store);
}

/* TOPK without bounds of n <= 32 columns, from 16-bit lanes as store_split has them. */
BITOPS_INLINE void store_topk_split(__m256i even_u16x16, __m256i odd_u16x16, size_t n, size_t row,
                                    size_t col, const bitops_store *store) {
    const uint32_t limit = heap_limit((const uint64_t *)store->c + row * store->ldc);
    const __m256i most_u16x16 =
        _mm256_set1_epi16((int16_t)(limit > UINT16_MAX ? UINT16_MAX : limit - 1));
    const __m256i even_b256 =
        _mm256_cmpeq_epi16(_mm256_min_epu16(even_u16x16, most_u16x16), even_u16x16);
    const __m256i odd_b256 =
        _mm256_cmpeq_epi16(_mm256_min_epu16(odd_u16x16, most_u16x16), odd_u16x16);
    const __m256i near_b256 = _mm256_blendv_epi8(even_b256, odd_b256, _mm256_set1_epi16(-256));
    uint32_t hits = (uint32_t)_mm256_movemask_epi8(near_b256) & (uint32_t)((1ull << n) - 1);
    if (store->allowed)
        hits &= (uint32_t)(store->allowed[col / BITOPS_WORD_BITS] >> col % BITOPS_WORD_BITS);
    if (!hits || !limit)
        return;
    __m256i counts_i32x8[4];
    widen_counts(even_u16x16, odd_u16x16, counts_i32x8);
    nearest_offer_hits((const int32_t *)counts_i32x8, hits, row, col, store);
}

/* Stores the counts of n <= 32 columns. */
BITOPS_NOINLINE void store_split(__m256i even_u16x16, __m256i odd_u16x16, size_t n, size_t row,
                                 size_t col, const bitops_store *store) {
    if (store->kind == BITOPS_STORE_TOPK && !store->bounds) {
        store_topk_split(even_u16x16, odd_u16x16, n, row, col, store);
        return;
    }
    __m256i counts_i32x8[4];
    widen_counts(even_u16x16, odd_u16x16, counts_i32x8);
    switch (store->kind) {
    case BITOPS_STORE_DOT:
        store_vectors(BITOPS_STORE_DOT, counts_i32x8, n, row, col, store);
        break;
    case BITOPS_STORE_SCALED:
        store_vectors(BITOPS_STORE_SCALED, counts_i32x8, n, row, col, store);
        break;
    case BITOPS_STORE_HAMMING:
        store_vectors(BITOPS_STORE_HAMMING, counts_i32x8, n, row, col, store);
        break;
    case BITOPS_STORE_HAMMING16:
        store_vectors(BITOPS_STORE_HAMMING16, counts_i32x8, n, row, col, store);
        break;
    case BITOPS_STORE_SIGN:
        store_vectors(BITOPS_STORE_SIGN, counts_i32x8, n, row, col, store);
        break;
    default:
        store_block((const int32_t *)counts_i32x8, 4 * LANES, 1, n, row, col, store);
    }
}

/* Prefetches the cache lines of one row of results, which will be written. */
BITOPS_INLINE void prefetch_results(size_t row, size_t col, size_t n, const bitops_store *store) {
    const size_t size = store_number_size(store->kind);
    const char *c = (const char *)store->c + (row * store->ldc + col) * size;
    for (size_t byte = 0; byte < n * size; byte += 64)
        __builtin_prefetch(c + byte, 1, 3);
}

/* ---- few rows: shuffles -------------------------------------------------------------------- */

enum { PAIRS = MR / 2 };

/* Adds the mismatches of nibbles [begin, end) of one word, at most 3, so that their sums are at
 * most 12. n_pairs is a constant at every call. */
BITOPS_INLINE void shuffle_nibbles(const int n_pairs, unsigned begin, unsigned end,
                                   const uint8_t *tables, uint64_t (*pairs)[2],
                                   const __m256i *panel, nibble_counts (*counts)[2]) {
    const __m256i nibble_u8x32 = _mm256_set1_epi8(15);
    __m256i sums_u8x32[PAIRS][2];
    for (unsigned b = begin; b < end; b++) {
        const __m256i w_u8x32 = _mm256_loadu_si256(panel + b);
        const __m256i columns_u8x32[2] = {
            _mm256_and_si256(w_u8x32, nibble_u8x32),
            _mm256_and_si256(_mm256_srli_epi16(w_u8x32, 4), nibble_u8x32)};
        for (int i = 0; i < n_pairs; i++) {
            const __m256i table_u8x32 = pair_table(tables, pairs[i][b % 2], b / 2);
            for (int h = 0; h < 2; h++) {
                const __m256i found_u8x32 = _mm256_shuffle_epi8(table_u8x32, columns_u8x32[h]);
                sums_u8x32[i][h] =
                    b == begin ? found_u8x32 : _mm256_add_epi8(sums_u8x32[i][h], found_u8x32);
            }
        }
    }
    for (int i = 0; i < n_pairs; i++)
        for (int h = 0; h < 2; h++)
            add_nibbles(&counts[i][h], sums_u8x32[i][h]);
}

/* Adds words [p, p + n_words), at most FLUSH_WORDS, of the rows and 64 columns to the totals. */
BITOPS_INLINE void shuffle_words(const int n_pairs, const uint64_t *const *rows, size_t p,
                                 size_t n_words, const uint64_t *panel,
                                 __m256i (*totals_u16x16)[2][4]) {
    nibble_counts counts[PAIRS][2];
    const uint8_t *tables = &pair_tables[0][0];
    BITOPS_IN_POINTER(tables);
    for (int i = 0; i < n_pairs; i++)
        for (int h = 0; h < 2; h++)
            counts[i][h].low_u8x32 = counts[i][h].high_u16x16 = _mm256_setzero_si256();
    for (size_t end = p + n_words; p < end; p++) {
        const __m256i *columns = (const __m256i *)(panel + p * NR);
        for (int i = 0; i < 16; i += 2) /* halves of a panel are no stream for the prefetcher */
            _mm_prefetch((const char *)(columns + i) + 4096, _MM_HINT_T0);
        uint64_t pairs[PAIRS][2];
        for (int i = 0; i < n_pairs; i++)
            pair_nibbles(rows[2 * i][p], rows[2 * i + 1][p], pairs[i]);
        shuffle_nibbles(n_pairs, 0, 3, tables, pairs, columns, counts);
        shuffle_nibbles(n_pairs, 3, 6, tables, pairs, columns, counts);
        shuffle_nibbles(n_pairs, 6, 9, tables, pairs, columns, counts);
        shuffle_nibbles(n_pairs, 9, 12, tables, pairs, columns, counts);
        shuffle_nibbles(n_pairs, 12, 14, tables, pairs, columns, counts);
        shuffle_nibbles(n_pairs, 14, 16, tables, pairs, columns, counts);
    }
    for (int i = 0; i < n_pairs; i++)
        for (int h = 0; h < 2; h++) {
            __m256i split_u16x16[4];
            split_counts(counts[i][h], split_u16x16);
            for (int j = 0; j < 4; j++)
                totals_u16x16[i][h][j] = _mm256_add_epi16(totals_u16x16[i][h][j], split_u16x16[j]);
        }
}

/* rows <= 2 n_pairs rows and n <= HALF columns. */
BITOPS_INLINE void shuffle_tile(const int n_pairs, const uint64_t *a, size_t lda, size_t rows,
                                const uint64_t *panel, size_t n, size_t k_words, size_t row,
                                size_t col, const bitops_store *store) {
    const uint64_t *lines[MR]; /* missing rows repeat the last one and are not stored */
    for (size_t i = 0; i < MR; i++) {
        lines[i] = a + (i < rows ? i : rows - 1) * lda;
        prefetch_results(row + i, col, n, store);
    }
    __m256i totals_u16x16[PAIRS][2][4];
    for (int i = 0; i < n_pairs; i++)
        for (int j = 0; j < 8; j++)
            totals_u16x16[i][j / 4][j % 4] = _mm256_setzero_si256();
    for (size_t p = 0; p < k_words; p += FLUSH_WORDS)
        shuffle_words(n_pairs, lines, p, k_words - p < FLUSH_WORDS ? k_words - p : FLUSH_WORDS,
                      panel, totals_u16x16);
    /* Low nibbles belong to the first row of a pair, high nibbles to the second. */
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j += QUARTER)
            store_split(totals_u16x16[i / 2][j / QUARTER][i % 2 * 2],
                        totals_u16x16[i / 2][j / QUARTER][i % 2 * 2 + 1],
                        n - j < QUARTER ? n - j : QUARTER, row + i, col + j, store);
}

/* m rows and n <= NR columns; one half of the panel after the other, so that it stays in the cache.
 */
static void shuffle_rows(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel, size_t n,
                         size_t k_words, size_t row, size_t col, const bitops_store *store) {
    for (size_t j = 0; j < n; j += HALF) {
        const size_t columns = n - j < HALF ? n - j : HALF;
        size_t i = 0;
        for (; i + 2 < m; i += MR)
            shuffle_tile(PAIRS, a + i * lda, lda, m - i < MR ? m - i : MR, panel + j, columns,
                         k_words, row + i, col + j, store);
        if (i < m)
            shuffle_tile(1, a + i * lda, lda, m - i, panel + j, columns, k_words, row + i, col + j,
                         store);
    }
}

/* ---- many rows: four Russians -------------------------------------------------------------- */

/* See tables.h. Of the 64 bytes of an entry, 32 are for the first 64 columns, 32 for the others. */
enum { PREFETCH_ROWS = 4 }; /* hides the latency of the third-level cache */

/* The counters of a row, in the caller's scratch. */
typedef struct row_counts {
    nibble_counts bytes[2];
    __m256i totals_u16x16[2][4];
} row_counts;

_Static_assert(sizeof(row_counts) == 48 * sizeof(uint64_t), "row_words of kernels.inc");

/* Adds one word of m rows. If `first`, the 8-bit counters start at 0; if `last`, they are emptied.
 */
BITOPS_INLINE void add_column(const int halves, const int first, const int last, const uint64_t *a,
                              size_t lda, size_t m, const uint8_t *tables, row_counts *rows) {
    BITOPS_IN_POINTER(tables);
    for (size_t i = 0; i < m; i++, a += lda, rows++) {
        nibble_counts counts[2];
        for (int h = 0; h < halves; h++) {
            counts[h].low_u8x32 = first ? _mm256_setzero_si256() : rows->bytes[h].low_u8x32;
            counts[h].high_u16x16 = first ? _mm256_setzero_si256() : rows->bytes[h].high_u16x16;
        }
        add_word(halves, tables, *a, counts);
        for (int h = 0; h < halves; h++) {
            __m256i split_u16x16[4];
            if (!last) {
                rows->bytes[h] = counts[h];
                continue;
            }
            split_counts(counts[h], split_u16x16);
            for (int j = 0; j < 4; j++)
                rows->totals_u16x16[h][j] =
                    _mm256_add_epi16(rows->totals_u16x16[h][j], split_u16x16[j]);
        }
    }
}

BITOPS_INLINE void add_columns(const int halves, const uint64_t *a, size_t lda, size_t m,
                               const uint64_t *panel, size_t k_words, row_counts *rows) {
    _Alignas(64) uint8_t tables[GROUPS * TABLE_STRIDE];
    for (size_t p = 0; p < k_words; p++) {
        const int first = p % FLUSH_WORDS == 0;
        const int last = p % FLUSH_WORDS == FLUSH_WORDS - 1 || p + 1 == k_words;
        make_tables(panel + p * NR, tables);
        CALL_WITH_ENDS(add_column, halves, first, last, a + p, lda, m, tables, rows);
    }
}

/* Whether no column of a row is kept, for WITHIN and TOPK, where this is the rule. The columns of a
 * panel that are not there count too. */
BITOPS_INLINE int none_kept(__m256i (*counts_u16x16)[4], size_t row, const bitops_store *store) {
    uint32_t limit;
    if (store->kind == BITOPS_STORE_WITHIN)
        limit = (uint32_t)store->most + 1;
    else if (store->kind == BITOPS_STORE_TOPK && !store->bounds)
        limit = heap_limit((const uint64_t *)store->c + row * store->ldc);
    else
        return 0;
    __m256i least_u16x16 = counts_u16x16[0][0];
    for (int j = 1; j < 8; j++)
        least_u16x16 = _mm256_min_epu16(least_u16x16, counts_u16x16[j / 4][j % 4]);
    const __m128i least_u16x8 = _mm_min_epu16(_mm256_castsi256_si128(least_u16x16),
                                              _mm256_extracti128_si256(least_u16x16, 1));
    return (uint32_t)_mm_extract_epi16(_mm_minpos_epu16(least_u16x8), 0) >= limit;
}

/* Stores the counts of one row, in registers where its outputs are a full panel of numbers. */
BITOPS_INLINE void store_counts(__m256i (*counts_u16x16)[4], size_t n, size_t row, size_t col,
                                const bitops_store *store) {
    if (none_kept(counts_u16x16, row, store))
        return;
    const int whole = n == NR;
    BITOPS_UNROLL
    for (size_t j = 0; j < NR && j < n; j += QUARTER) {
        const __m256i *own_u16x16 = counts_u16x16[j / HALF] + j / QUARTER % 2 * 2;
        __m256i counts_i32x8[4];
        widen_counts(own_u16x16[0], own_u16x16[1], counts_i32x8);
        if (whole && store->kind == BITOPS_STORE_DOT)
            store_vectors(BITOPS_STORE_DOT, counts_i32x8, QUARTER, row, col + j, store);
        else if (whole && store->kind == BITOPS_STORE_HAMMING)
            store_vectors(BITOPS_STORE_HAMMING, counts_i32x8, QUARTER, row, col + j, store);
        else
            store_split(own_u16x16[0], own_u16x16[1], n - j < QUARTER ? n - j : QUARTER, row,
                        col + j, store);
    }
}

BITOPS_NOINLINE void table_block(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel,
                                 size_t n, size_t k_words, size_t row, size_t col,
                                 const bitops_store *store, row_counts *rows) {
    for (size_t i = 0; i < m; i++)
        for (int j = 0; j < 8; j++)
            rows[i].totals_u16x16[j / 4][j % 4] = _mm256_setzero_si256();
    if (n <= HALF)
        add_columns(1, a, lda, m, panel, k_words, rows);
    else
        add_columns(2, a, lda, m, panel, k_words, rows);
    for (size_t i = 0; i < m; i++) {
        prefetch_results(row + i + PREFETCH_ROWS, col, n, store);
        store_counts(rows[i].totals_u16x16, n, row + i, col, store);
    }
}

/* Short rows: the tables of all words lie side by side, in scratch, so that the counters of a row
 * stay in registers from its first word to its store. */
BITOPS_INLINE void table_short(const int halves, const uint64_t *a, size_t lda, size_t m,
                               const uint64_t *panel, size_t n, size_t k_words, size_t row,
                               size_t col, const bitops_store *store, uint8_t *tables) {
    for (size_t p = 0; p < k_words; p++)
        make_tables(panel + p * NR, tables + p * TABLES_BYTES);
    for (size_t i = 0; i < m; i++, a += lda) {
        __m256i totals_u16x16[2][4];
        prefetch_results(row + i + PREFETCH_ROWS, col, n, store);
        for (int j = 0; j < 8; j++)
            totals_u16x16[j / 4][j % 4] = _mm256_setzero_si256();
        for (size_t p = 0; p < k_words;) {
            const size_t end = p + FLUSH_WORDS < k_words ? p + FLUSH_WORDS : k_words;
            nibble_counts counts[2];
            for (int h = 0; h < halves; h++)
                counts[h].low_u8x32 = counts[h].high_u16x16 = _mm256_setzero_si256();
            for (; p < end; p++) {
                const uint8_t *own = tables + p * TABLES_BYTES;
                BITOPS_IN_POINTER(own);
                add_word(halves, own, a[p], counts);
            }
            for (int h = 0; h < halves; h++) {
                __m256i split_u16x16[4];
                split_counts(counts[h], split_u16x16);
                for (int j = 0; j < 4; j++)
                    totals_u16x16[h][j] = _mm256_add_epi16(totals_u16x16[h][j], split_u16x16[j]);
            }
        }
        store_counts(totals_u16x16, n, row + i, col, store);
    }
}

/* ---- short rows, a byte for each count ------------------------------------------------------ */

/* The counts of 64 columns in their order. */
BITOPS_INLINE void join_counts(nibble_counts counts, uint8_t *count_out) {
    const __m256i c16_u16x16 =
        _mm256_and_si256(_mm256_srli_epi16(counts.low_u8x32, 4), _mm256_set1_epi16(0xff0));
    _mm256_storeu_si256((__m256i *)count_out, counts.low_u8x32);
    _mm256_storeu_si256((__m256i *)count_out + 1, _mm256_sub_epi16(counts.high_u16x16, c16_u16x16));
}

/* Adds one word of m rows, whose counts are kept as they are until the last one. */
BITOPS_INLINE void byte_column(const int halves, const int first, const int last, const uint64_t *a,
                               size_t lda, size_t m, const uint8_t *tables, size_t n,
                               nibble_counts (*kept)[2], uint8_t *c, size_t ldc) {
    BITOPS_IN_POINTER(tables);
    for (size_t i = 0; i < m; i++, a += lda, c += ldc) {
        nibble_counts counts[2];
        for (int h = 0; h < halves; h++) {
            counts[h].low_u8x32 = first ? _mm256_setzero_si256() : kept[i][h].low_u8x32;
            counts[h].high_u16x16 = first ? _mm256_setzero_si256() : kept[i][h].high_u16x16;
        }
        add_word(halves, tables, *a, counts);
        uint8_t line[NR], *out = n == NR ? c : line;
        for (int h = 0; h < halves; h++) {
            if (last)
                join_counts(counts[h], out + HALF * h);
            else
                kept[i][h] = counts[h];
        }
        if (last && n < NR)
            memcpy(c, line, n);
    }
}

BITOPS_INLINE void table_bytes(const int halves, const uint64_t *a, size_t lda, size_t m,
                               const uint64_t *panel, size_t n, size_t k_words, size_t row,
                               size_t col, const bitops_store *store, nibble_counts (*kept)[2]) {
    _Alignas(64) uint8_t tables[TABLES_BYTES];
    uint8_t *c = (uint8_t *)store->c + row * store->ldc + col;
    for (size_t p = 0; p < k_words; p++) {
        const int first = p == 0, last = p + 1 == k_words;
        make_tables(panel + p * NR, tables);
        CALL_WITH_ENDS(byte_column, halves, first, last, a + p, lda, m, tables, n, kept, c,
                       store->ldc);
    }
}

/* Stores HAMMING8 of rows whose 8-bit counters need not be emptied. A call of its own: few rows,
 * which have panels of their own on the stack, must not find the tables there too. */
BITOPS_NOINLINE void byte_block(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel,
                                size_t n, size_t k_words, size_t row, size_t col,
                                const bitops_store *store, nibble_counts (*kept)[2]) {
    if (n <= HALF)
        table_bytes(1, a, lda, m, panel, n, k_words, row, col, store, kept);
    else
        table_bytes(2, a, lda, m, panel, n, k_words, row, col, store, kept);
}

void bitops_gemm_panel_avx2(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel,
                            size_t n, size_t k_words, size_t row, size_t col,
                            const bitops_store *store, uint64_t *scratch) {
    BITOPS_ASSUME(n <= NR && k_words <= MAX_WORDS && col % NR == 0);
    if (m >= MANY_ROWS && k_words > 0 && k_words <= FLUSH_WORDS &&
        store->kind == BITOPS_STORE_HAMMING8) {
        byte_block(a, lda, m, panel, n, k_words, row, col, store, (nibble_counts(*)[2])scratch);
        return;
    }
    if (m >= MANY_ROWS && k_words > 0 && k_words <= SHORT_WORDS &&
        k_words * TABLES_BYTES <= m * sizeof(row_counts)) {
        if (n <= HALF)
            table_short(1, a, lda, m, panel, n, k_words, row, col, store, (uint8_t *)scratch);
        else
            table_short(2, a, lda, m, panel, n, k_words, row, col, store, (uint8_t *)scratch);
        return;
    }
    if (m >= MANY_ROWS) {
        table_block(a, lda, m, panel, n, k_words, row, col, store, (row_counts *)scratch);
        return;
    }
    shuffle_rows(a, lda, m, panel, n, k_words, row, col, store);
}

BITOPS_TARGET_END

#endif
