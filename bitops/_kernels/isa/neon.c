/* neon.c: panels and products of bits; AArch64 Advanced SIMD as every AArch64 has it (no dot
 * product, no SHA3, no SVE).
 *
 * There are two ways to count the mismatches of a row with 128 columns.
 *   Many rows: four Russians. For 5 bits of k, a table holds the mismatches with all 32 patterns,
 * two 4-bit counters to a byte; each row loads the entry that its own 5 bits select, and adds it.
 *   Few rows: a byte of the row and one of each of 16 columns go through eor, cnt and add.
 *
 *   intrinsic            instruction   per 64 bits of a row and 128 columns
 *   many rows
 *   vld1q_u8             ldr q         13 groups x 4 vectors = 52, and the counters of the row
 *   vaddq_u8             add           9 x 4 within threes of groups, 5 x 4 to the counters
 *   vsraq_n_u8           usra          4 x 4: shifts high nibbles down and adds them
 *   few rows
 *   vld1q_dup_u8         ld1r          8, one for each byte
 *   veorq_u8             eor           8 x 8
 *   vcntq_u8             cnt           8 x 8
 *   vaddq_u8             add           8 x 8
 * Bottleneck: of tables, the number of instructions (about 180 for 8192 multiply-accumulates); of
 * few rows, the vector pipes (200). Carry-save saves nothing here: the only logic operation on
 * three inputs is a select, so a full adder with its XORs costs what it spares, see README.md. The
 * counts are those of the compiled code; nothing was timed.
 *
 * Panel of 128 columns: for each word of k, its 8 bytes, least significant first, 128 bytes each:
 * byte j belongs to column j. So counters, and their sums, are in the order of columns.
 *
 * Overflow: 4-bit sums are at most 15 (three groups of 5 bits). 8-bit counters grow by at most 64 a
 * word and are emptied every 3 words (192 <= 255); those of few rows by at most 8 a byte and are
 * emptied every 31 bytes (248). 16-bit counters hold 64 * 1023 = 65472 <= 65535, so k_words <=
 * 1023. The driver cuts k into much shorter slices. Tails: k is made of whole words; panels of
 * missing columns are 0. */
#include "operations.h"
#include "isa/shared/neon.h"
#include "isa/shared/store.h"
#include "isa/shared/tables.h"
#include "isa/shared/target.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>

enum {
    MR = 2,
    NR = 128,
    LANES = 16,
    PANEL_BYTES = NR * 8, /* of one word of k */
    MAX_WORDS = 1023,
    MANY_ROWS = 48, /* from here on tables pay: counted, see README.md */
    SHORT_WORDS = 8,
    TABLES_BYTES = GROUPS * TABLE_STRIDE,
};

/* ---- panels -------------------------------------------------------------------------------- */

/* Byte i of v[y] becomes byte y of v[i]. A round of zips moves one bit of the number of a vector to
 * the number of a byte; four rounds exchange the two numbers. */
BITOPS_INLINE void transpose_bytes(uint8x16_t v_u8x16[LANES]) {
    BITOPS_UNROLL
    for (int round = 0; round < 4; round++) {
        uint8x16_t zipped_u8x16[LANES];
        BITOPS_UNROLL
        for (int i = 0; i < LANES / 2; i++) {
            zipped_u8x16[2 * i] = vzip1q_u8(v_u8x16[i], v_u8x16[i + LANES / 2]);
            zipped_u8x16[2 * i + 1] = vzip2q_u8(v_u8x16[i], v_u8x16[i + LANES / 2]);
        }
        BITOPS_UNROLL
        for (int i = 0; i < LANES; i++)
            v_u8x16[i] = zipped_u8x16[i];
    }
}

/* Writes one or two words of n <= 16 rows of w to 16 columns of a panel. */
BITOPS_INLINE void prepack_columns(const uint64_t *w, size_t ldw, size_t n, size_t words,
                                   uint8_t *panel_out) {
    uint8x16_t v_u8x16[LANES];
    for (size_t j = 0; j < LANES; j++) {
        const uint64_t *row = w + j * ldw;
        if (j >= n)
            v_u8x16[j] = vdupq_n_u8(0);
        else if (words == 2)
            v_u8x16[j] = vld1q_u8((const uint8_t *)row);
        else
            v_u8x16[j] = vcombine_u8(vcreate_u8(*row), vcreate_u8(0));
    }
    transpose_bytes(v_u8x16);
    for (size_t y = 0; y < 8 * words; y++)
        vst1q_u8(panel_out + y * NR, v_u8x16[y]);
}

void bitops_prepack_neon(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                         uint64_t *panel_out) {
    BITOPS_ASSUME(n <= NR);
    for (size_t j = 0; j < NR; j += LANES) {
        const size_t rows = n < j ? 0 : n - j < LANES ? n - j : LANES;
        for (size_t p = 0; p < k_words; p += 2)
            prepack_columns(rows ? w + j * ldw + p : w, ldw, rows, k_words - p < 2 ? 1 : 2,
                            (uint8_t *)panel_out + p * PANEL_BYTES + j);
    }
}

/* ---- few rows ------------------------------------------------------------------------------ */

enum { VECS = NR / LANES, FLUSH_BYTES = 31 };

BITOPS_INLINE uint8x16_t add_mismatches(uint8x16_t counts_u8x16, uint8x16_t a_u8x16,
                                        uint8x16_t w_u8x16) {
    return vaddq_u8(counts_u8x16, vcntq_u8(veorq_u8(a_u8x16, w_u8x16)));
}

BITOPS_INLINE void clear_counts(uint8x16_t counts_u8x16[VECS]) {
    BITOPS_UNROLL
    for (int v = 0; v < VECS; v++)
        counts_u8x16[v] = vdupq_n_u8(0);
}

BITOPS_INLINE void widen_counts(const uint8x16_t counts_u8x16[VECS],
                                uint16x8_t totals_u16x8[2 * VECS]) {
    BITOPS_UNROLL
    for (int v = 0; v < VECS; v++) {
        totals_u16x8[2 * v] = vaddw_u8(totals_u16x8[2 * v], vget_low_u8(counts_u8x16[v]));
        totals_u16x8[2 * v + 1] = vaddw_high_u8(totals_u16x8[2 * v + 1], counts_u8x16[v]);
    }
}

/* Adds n <= FLUSH_BYTES bytes of k of one row, or of two if b is not NULL, to the totals. Whether b
 * is NULL is known at every call. There is no loop over rows, for which clang would keep the
 * counters in memory. */
BITOPS_INLINE void count_bytes(const uint8_t *a, const uint8_t *b, size_t n, const uint8_t *panel,
                               uint16x8_t (*totals_u16x8)[2 * VECS]) {
    uint8x16_t a_counts_u8x16[VECS], b_counts_u8x16[VECS];
    clear_counts(a_counts_u8x16);
    clear_counts(b_counts_u8x16);
    for (size_t y = 0; y < n; y++, panel += NR) {
        const uint8x16_t a_bits_u8x16 = vld1q_dup_u8(a + y);
        const uint8x16_t b_bits_u8x16 = b ? vld1q_dup_u8(b + y) : a_bits_u8x16;
        BITOPS_UNROLL
        for (int v = 0; v < VECS; v++) {
            const uint8x16_t columns_u8x16 = vld1q_u8(panel + v * LANES);
            a_counts_u8x16[v] = add_mismatches(a_counts_u8x16[v], a_bits_u8x16, columns_u8x16);
            if (b)
                b_counts_u8x16[v] = add_mismatches(b_counts_u8x16[v], b_bits_u8x16, columns_u8x16);
        }
    }
    widen_counts(a_counts_u8x16, totals_u16x8[0]);
    if (b)
        widen_counts(b_counts_u8x16, totals_u16x8[1]);
}

/* Writes 8 n counts of 16 bits, which are in the order of columns. */
BITOPS_INLINE void write_counts(const uint16x8_t *counts, int n, int32_t *out) {
    for (int i = 0; i < n; i++) {
        vst1q_s32(out + 8 * i, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(counts[i]))));
        vst1q_s32(out + 8 * i + 4, vreinterpretq_s32_u32(vmovl_high_u16(counts[i])));
    }
}

/* rows is a constant, 1 or 2, at every call. */
BITOPS_INLINE void tile(const int rows, const uint64_t *a, size_t lda, const uint64_t *panel,
                        size_t n, size_t k_words, size_t row, size_t col,
                        const bitops_store *store) {
    const uint8_t *first = (const uint8_t *)a, *second = (const uint8_t *)(a + lda);
    const uint8_t *columns = (const uint8_t *)panel;
    const size_t bytes = k_words * sizeof *a;
    uint16x8_t totals_u16x8[MR][2 * VECS];
    int32_t mismatches[MR * NR];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < 2 * VECS; v++)
            totals_u16x8[i][v] = vdupq_n_u16(0);
    for (size_t y = 0; y < bytes; y += FLUSH_BYTES)
        count_bytes(first + y, rows == 2 ? second + y : NULL,
                    bytes - y < FLUSH_BYTES ? bytes - y : FLUSH_BYTES, columns + y * NR,
                    totals_u16x8);
    for (int i = 0; i < rows; i++)
        write_counts(totals_u16x8[i], 2 * VECS, mismatches + i * NR);
    store_block(mismatches, NR, (size_t)rows, n, row, col, store);
}

/* ---- many rows: four Russians -------------------------------------------------------------- */

/* See tables.h. The 64 bytes of an entry are four vectors of 32 columns, whose byte j counts column
 * j in its low nibble and column j + 16 in its high nibble. */
enum {
    QUARTERS = 4, /* of a panel, 32 columns each */
    QUARTER = NR / QUARTERS,
};

/* A byte of sums holds two counts, | b | a |, one in each nibble. A and B are their totals:
 *
 *   all_u8x16  += sums        = 16 B + A, modulo 256
 *   high_u8x16 += sums >> 4   = B
 *
 * so that low_counts finds A = all - 16 high, exact while both are at most 255. */
typedef struct nibble_counts {
    uint8x16_t all_u8x16, high_u8x16;
} nibble_counts;

BITOPS_INLINE void add_nibbles(nibble_counts *counts, uint8x16_t sums_u8x16) {
    counts->all_u8x16 = vaddq_u8(counts->all_u8x16, sums_u8x16);
    counts->high_u8x16 = vsraq_n_u8(counts->high_u8x16, sums_u8x16, 4);
}

/* The counts of the low nibbles. */
BITOPS_INLINE uint8x16_t low_counts(nibble_counts counts) {
    return vsubq_u8(counts.all_u8x16, vshlq_n_u8(counts.high_u8x16, 4));
}

/* Adds the counters to 16-bit ones of 32 columns. */
BITOPS_INLINE void add_counts(nibble_counts counts, uint16x8_t totals_u16x8[4]) {
    const uint8x16_t low_u8x16 = low_counts(counts);
    totals_u16x8[0] = vaddw_u8(totals_u16x8[0], vget_low_u8(low_u8x16));
    totals_u16x8[1] = vaddw_high_u8(totals_u16x8[1], low_u8x16);
    totals_u16x8[2] = vaddw_u8(totals_u16x8[2], vget_low_u8(counts.high_u8x16));
    totals_u16x8[3] = vaddw_high_u8(totals_u16x8[3], counts.high_u8x16);
}

/* The counters of a row, in the caller's scratch. */
typedef struct row_counts {
    nibble_counts bytes[QUARTERS];
    uint16x8_t totals_u16x8[4 * QUARTERS];
} row_counts;

_Static_assert(sizeof(row_counts) == 48 * sizeof(uint64_t), "row_words of kernels.inc");

/* The 16 nibbles of a word of 32 columns; a byte holds those of columns j (low) and j + 16 (high).
 */
BITOPS_INLINE void pair_nibbles(const uint8_t *panel, uint8x16_t nibbles_u8x16[16]) {
    BITOPS_UNROLL
    for (int y = 0; y < 8; y++, panel += NR) {
        const uint8x16_t first_u8x16 = vld1q_u8(panel), second_u8x16 = vld1q_u8(panel + LANES);
        nibbles_u8x16[2 * y] = vsliq_n_u8(first_u8x16, second_u8x16, 4);
        nibbles_u8x16[2 * y + 1] = vsriq_n_u8(second_u8x16, first_u8x16, 4);
    }
}

/* Makes the table of bits [first, first + bits). Flipping a bit of the row adds +1 or -1 to each
 * nibble. Adding bytes does that in spite of the borrows between nibbles, because every result lies
 * in 0..5. */
BITOPS_INLINE void make_table(const uint8x16_t nibbles_u8x16[16], const int first, const int bits,
                              uint8_t *table) {
    const uint8x16_t one_u8x16 = vdupq_n_u8(0x11);
    uint8x16_t flip_u8x16[GROUP_BITS], entries_u8x16[8];
    entries_u8x16[0] = vdupq_n_u8(0);
    BITOPS_UNROLL
    for (int i = 0; i < bits; i++) {
        const int8x16_t down_i8x16 = vdupq_n_s8((int8_t)(-((first + i) % 4)));
        const uint8x16_t plane_u8x16 =
            vandq_u8(vshlq_u8(nibbles_u8x16[(first + i) / 4], down_i8x16), one_u8x16);
        entries_u8x16[0] = vaddq_u8(entries_u8x16[0], plane_u8x16);
        flip_u8x16[i] = vsubq_u8(one_u8x16, vaddq_u8(plane_u8x16, plane_u8x16));
    }
    BITOPS_UNROLL
    for (int i = 1; i < 8; i++) { /* the entry with the lowest bit of i cleared, then that bit */
        const int lowest = i & 1 ? 0 : i & 2 ? 1 : 2;
        entries_u8x16[i] = vaddq_u8(entries_u8x16[i & (i - 1)], flip_u8x16[lowest]);
    }
    BITOPS_UNROLL
    for (int high = 0; high < 1 << bits >> 3; high++) {
        BITOPS_UNROLL
        for (int i = 0; i < 8; i++) {
            uint8x16_t entry_u8x16 =
                high & 1 ? vaddq_u8(entries_u8x16[i], flip_u8x16[3]) : entries_u8x16[i];
            if (high & 2)
                entry_u8x16 = vaddq_u8(entry_u8x16, flip_u8x16[4]);
            vst1q_u8(table + (8 * high + i) * ENTRY_BYTES, entry_u8x16);
        }
    }
}

static void make_tables(const uint8_t *panel, const int quarters, uint8_t *tables) {
    for (int q = 0; q < quarters; q++) {
        uint8x16_t nibbles_u8x16[16];
        uint8_t *out = tables + LANES * q;
        pair_nibbles(panel + QUARTER * q, nibbles_u8x16);
        BITOPS_UNROLL
        for (int g = 0; g < GROUPS - 1; g++)
            make_table(nibbles_u8x16, GROUP_BITS * g, GROUP_BITS, out + g * TABLE_STRIDE);
        make_table(nibbles_u8x16, GROUP_BITS * (GROUPS - 1), 4, out + (GROUPS - 1) * TABLE_STRIDE);
    }
}

/* Adds the entries of groups [begin, end), at most 3, so that their sums are at most 15. quarters
 * is a constant at every call. */
BITOPS_INLINE void add_groups(const int quarters, const int begin, const int end,
                              const uint8_t *tables, uint64_t word, nibble_counts *counts) {
    uint8x16_t sums_u8x16[QUARTERS];
    BITOPS_UNROLL
    for (int g = begin; g < end; g++) {
        const uint8_t *entry = tables + (word >> GROUP_BITS * g & 31) * ENTRY_BYTES;
        BITOPS_UNROLL
        for (int q = 0; q < quarters; q++) {
            const uint8x16_t found_u8x16 = vld1q_u8(entry + g * TABLE_STRIDE + q * LANES);
            sums_u8x16[q] = g == begin ? found_u8x16 : vaddq_u8(sums_u8x16[q], found_u8x16);
        }
    }
    BITOPS_UNROLL
    for (int q = 0; q < quarters; q++)
        add_nibbles(&counts[q], sums_u8x16[q]);
}

/* Adds one word of m rows. If `first`, the 8-bit counters start at 0; if `last`, they are emptied.
 */
BITOPS_INLINE void add_column(const int quarters, const int first, const int last,
                              const uint64_t *a, size_t lda, size_t m, const uint8_t *tables,
                              row_counts *rows) {
    for (size_t i = 0; i < m; i++, a += lda, rows++) {
        nibble_counts counts[QUARTERS];
        for (int q = 0; q < quarters; q++) {
            counts[q].all_u8x16 = first ? vdupq_n_u8(0) : rows->bytes[q].all_u8x16;
            counts[q].high_u8x16 = first ? vdupq_n_u8(0) : rows->bytes[q].high_u8x16;
        }
        BITOPS_UNROLL
        for (int g = 0; g < GROUPS; g += 3)
            add_groups(quarters, g, g + 3 < GROUPS ? g + 3 : GROUPS, tables, *a, counts);
        for (int q = 0; q < quarters; q++) {
            if (last)
                add_counts(counts[q], rows->totals_u16x8 + 4 * q);
            else
                rows->bytes[q] = counts[q];
        }
    }
}

BITOPS_INLINE void add_columns(const int quarters, const uint64_t *a, size_t lda, size_t m,
                               const uint64_t *panel, size_t k_words, row_counts *rows) {
    _Alignas(64) uint8_t tables[GROUPS * TABLE_STRIDE];
    for (size_t p = 0; p < k_words; p++) {
        const int first = p % FLUSH_WORDS == 0;
        const int last = p % FLUSH_WORDS == FLUSH_WORDS - 1 || p + 1 == k_words;
        make_tables((const uint8_t *)(panel + p * NR), quarters, tables);
        CALL_WITH_ENDS(add_column, quarters, first, last, a + p, lda, m, tables, rows);
    }
}

static void table_block(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel, size_t n,
                        size_t k_words, size_t row, size_t col, const bitops_store *store,
                        row_counts *rows) {
    for (size_t i = 0; i < m; i++)
        for (int j = 0; j < 4 * QUARTERS; j++)
            rows[i].totals_u16x8[j] = vdupq_n_u16(0);
    if (n <= NR / 2)
        add_columns(QUARTERS / 2, a, lda, m, panel, k_words, rows);
    else
        add_columns(QUARTERS, a, lda, m, panel, k_words, rows);
    for (size_t i = 0; i < m; i++) {
        int32_t mismatches[NR];
        write_counts(rows[i].totals_u16x8, 4 * QUARTERS, mismatches);
        store_block(mismatches, NR, 1, n, row + i, col, store);
    }
}

/* Short rows: the tables of all words lie side by side, in scratch, so that the counters of a row
 * are emptied once for every three words and stored at once. */
BITOPS_INLINE void table_short(const int quarters, const uint64_t *a, size_t lda, size_t m,
                               const uint64_t *panel, size_t n, size_t k_words, size_t row,
                               size_t col, const bitops_store *store, uint8_t *tables) {
    for (size_t p = 0; p < k_words; p++)
        make_tables((const uint8_t *)(panel + p * NR), quarters, tables + p * TABLES_BYTES);
    for (size_t i = 0; i < m; i++, a += lda) {
        uint16x8_t totals_u16x8[4 * QUARTERS];
        int32_t mismatches[NR];
        for (int j = 0; j < 4 * quarters; j++)
            totals_u16x8[j] = vdupq_n_u16(0);
        for (size_t p = 0; p < k_words;) {
            const size_t end = p + FLUSH_WORDS < k_words ? p + FLUSH_WORDS : k_words;
            nibble_counts counts[QUARTERS];
            for (int q = 0; q < quarters; q++)
                counts[q].all_u8x16 = counts[q].high_u8x16 = vdupq_n_u8(0);
            for (; p < end; p++) {
                BITOPS_UNROLL
                for (int g = 0; g < GROUPS; g += 3)
                    add_groups(quarters, g, g + 3 < GROUPS ? g + 3 : GROUPS,
                               tables + p * TABLES_BYTES, a[p], counts);
            }
            for (int q = 0; q < quarters; q++)
                add_counts(counts[q], totals_u16x8 + 4 * q);
        }
        write_counts(totals_u16x8, 4 * quarters, mismatches);
        store_block(mismatches, NR, 1, n, row + i, col, store);
    }
}

/* ---- short rows, a byte for each count ------------------------------------------------------ */

/* Adds one word of m rows, whose counts are kept as they are until the last one. */
BITOPS_INLINE void byte_column(const int quarters, const int first, const int last,
                               const uint64_t *a, size_t lda, size_t m, const uint8_t *tables,
                               size_t n, nibble_counts (*kept)[QUARTERS], uint8_t *c, size_t ldc) {
    for (size_t i = 0; i < m; i++, a += lda, c += ldc) {
        nibble_counts counts[QUARTERS];
        for (int q = 0; q < quarters; q++) {
            counts[q].all_u8x16 = first ? vdupq_n_u8(0) : kept[i][q].all_u8x16;
            counts[q].high_u8x16 = first ? vdupq_n_u8(0) : kept[i][q].high_u8x16;
        }
        BITOPS_UNROLL
        for (int g = 0; g < GROUPS; g += 3)
            add_groups(quarters, g, g + 3 < GROUPS ? g + 3 : GROUPS, tables, *a, counts);
        uint8_t line[NR], *out = n == NR ? c : line;
        for (int q = 0; q < quarters; q++) {
            if (!last) {
                kept[i][q] = counts[q];
                continue;
            }
            vst1q_u8(out + QUARTER * q, low_counts(counts[q]));
            vst1q_u8(out + QUARTER * q + LANES, counts[q].high_u8x16);
        }
        if (last && n < NR)
            memcpy(c, line, n);
    }
}

/* Stores HAMMING8 of rows whose 8-bit counters need not be emptied. */
BITOPS_INLINE void table_bytes(const int quarters, const uint64_t *a, size_t lda, size_t m,
                               const uint64_t *panel, size_t n, size_t k_words, size_t row,
                               size_t col, const bitops_store *store,
                               nibble_counts (*kept)[QUARTERS]) {
    _Alignas(64) uint8_t tables[TABLES_BYTES];
    uint8_t *c = (uint8_t *)store->c + row * store->ldc + col;
    for (size_t p = 0; p < k_words; p++) {
        const int first = p == 0, last = p + 1 == k_words;
        make_tables((const uint8_t *)(panel + p * NR), quarters, tables);
        CALL_WITH_ENDS(byte_column, quarters, first, last, a + p, lda, m, tables, n, kept, c,
                       store->ldc);
    }
}

void bitops_gemm_panel_neon(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel,
                            size_t n, size_t k_words, size_t row, size_t col,
                            const bitops_store *store, uint64_t *scratch) {
    BITOPS_ASSUME(n <= NR && k_words <= MAX_WORDS && col % NR == 0);
    if (m >= MANY_ROWS && k_words > 0 && k_words <= FLUSH_WORDS &&
        store->kind == BITOPS_STORE_HAMMING8) {
        nibble_counts(*kept)[QUARTERS] = (nibble_counts(*)[QUARTERS])scratch;
        if (n <= NR / 2)
            table_bytes(QUARTERS / 2, a, lda, m, panel, n, k_words, row, col, store, kept);
        else
            table_bytes(QUARTERS, a, lda, m, panel, n, k_words, row, col, store, kept);
        return;
    }
    if (m >= MANY_ROWS && k_words > 0 && k_words <= SHORT_WORDS &&
        k_words * TABLES_BYTES <= m * sizeof(row_counts)) {
        if (n <= NR / 2)
            table_short(QUARTERS / 2, a, lda, m, panel, n, k_words, row, col, store,
                        (uint8_t *)scratch);
        else
            table_short(QUARTERS, a, lda, m, panel, n, k_words, row, col, store,
                        (uint8_t *)scratch);
        return;
    }
    if (m >= MANY_ROWS) {
        table_block(a, lda, m, panel, n, k_words, row, col, store, (row_counts *)scratch);
        return;
    }
    size_t i = 0;
    for (; i + MR <= m; i += MR)
        tile(MR, a + i * lda, lda, panel, n, k_words, row + i, col, store);
    if (i < m)
        tile(1, a + i * lda, lda, panel, n, k_words, row + i, col, store);
}

/* ---- gemm on plain rows -------------------------------------------------------------------- */

void bitops_gemm_rows_neon(const uint64_t *a, size_t lda, size_t m, const uint64_t *w, size_t ldw,
                           size_t n, size_t k_words, size_t row, size_t col,
                           const bitops_store *store) {
    enum { COLUMNS = 32 }; /* stored together, and in the cache until all rows of a are done */
    BITOPS_ASSUME(col % 8 == 0);
    for (size_t j = 0; j < n; j += COLUMNS) {
        const size_t columns = n - j < COLUMNS ? n - j : COLUMNS;
        for (size_t i = 0; i < m; i++) {
            int32_t mismatches[COLUMNS];
            for (size_t l = 0; l < columns; l++)
                mismatches[l] = (int32_t)count_words(1, a + i * lda, w + (j + l) * ldw, k_words);
            store_block(mismatches, COLUMNS, 1, columns, row + i, col + j, store);
        }
    }
}

/* ---- pairs --------------------------------------------------------------------------------- */

BITOPS_INLINE uint64_t popcount64(uint64_t x) {
    return (uint64_t)__builtin_popcountll(x);
}

#include "isa/shared/pairs.h"

void bitops_count_pairs_neon(const uint64_t *a, size_t lda, const uint64_t *b, size_t ldb,
                             size_t k_words, const uint64_t *pairs, size_t n, int32_t most,
                             int32_t *count_out) {
    count_pairs(a, lda, b, ldb, k_words, pairs, n, most, count_out);
}

#endif
