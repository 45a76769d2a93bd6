/* depthwise.h: counts, for each bit of a run, the taps where it differs from its weight, and stores
 * these counts.
 *
 * A vector of bits is counted in planes: bit i of plane p is bit p of count i. Four taps go through
 * full adders, whose carries are again three numbers with plane 1, and half adders carry the rest
 * into the planes above:
 *
 *   plane 0, tap 0, tap 1 -> sum, carry a      sum, tap 2, tap 3 -> plane 0, carry b
 *   plane 1, carry a, carry b -> plane 1, carry c + plane 2 -> carry + plane 3
 *
 * Where the number of taps is a constant, as it is for 3 x 3, adders of planes that are still 0
 * vanish. The planes are then spread to one byte for each count. This is included within the target
 * region of an ISA, below its vector of bits, the majority of three, what spreads `levels` planes,
 * and what compares 64 counts:
 *
 *   typedef ... bit_vector;
 *   bit_vector majority(bit_vector a, bit_vector b, bit_vector c)
 *   void spread_planes(const bit_vector *planes, int levels, uint8_t *count_out)
 *   uint64_t counts_below(const uint8_t *count, const uint8_t *limit)
 *
 * Overflow: the planes hold the number of taps, at most BITOPS_COUNT_TAPS, which fits a byte. */
#ifndef BITOPS_DEPTHWISE_H
#define BITOPS_DEPTHWISE_H

#include "operations.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#include <string.h>

enum { COUNT_LEVELS = 8, VECTOR_WORDS = sizeof(bit_vector) / sizeof(uint64_t) };
_Static_assert(BITOPS_COUNT_BLOCK % VECTOR_WORDS == 0, "vectors must not pass the end of a block");

/* ---- counts -------------------------------------------------------------------------------- */

BITOPS_INLINE bit_vector differing_bits(const uint8_t *tap, const uint64_t *w) {
    bit_vector a, b;
    memcpy(&a, tap, sizeof a); /* taps begin at any byte */
    memcpy(&b, w, sizeof b);
    return a ^ b;
}

/* Adds a carry into the planes from `level` on. */
BITOPS_INLINE void add_carry(bit_vector *planes, int level, int levels, bit_vector carry) {
    BITOPS_UNROLL
    for (; level < levels; level++) {
        const bit_vector plane = planes[level];
        planes[level] = plane ^ carry;
        carry &= plane;
    }
}

/* Counts one vector, which begins at a byte of each tap, with a constant number of planes. */
BITOPS_INLINE void count_run_vector(const uint8_t *const *taps, size_t byte, const uint64_t *w,
                                    size_t ldw, size_t n_taps, int levels, uint8_t *count_out) {
    bit_vector planes[COUNT_LEVELS] = {0};
    size_t t = 0;
    if (n_taps & 1)
        planes[0] = differing_bits(taps[t++] + byte, w);
    if (n_taps & 2) {
        const bit_vector a = differing_bits(taps[t] + byte, w + t * ldw);
        const bit_vector b = differing_bits(taps[t + 1] + byte, w + (t + 1) * ldw);
        const bit_vector plane = planes[0];
        planes[0] = plane ^ a ^ b;
        planes[1] = majority(plane, a, b);
        t += 2;
    }
    for (; t < n_taps; t += 4) {
        bit_vector x[4];
        BITOPS_UNROLL
        for (size_t i = 0; i < 4; i++)
            x[i] = differing_bits(taps[t + i] + byte, w + (t + i) * ldw);
        const bit_vector sum = planes[0] ^ x[0] ^ x[1], plane = planes[1];
        const bit_vector carry_a = majority(planes[0], x[0], x[1]);
        const bit_vector carry_b = majority(sum, x[2], x[3]);
        planes[0] = sum ^ x[2] ^ x[3];
        planes[1] = plane ^ carry_a ^ carry_b;
        add_carry(planes, 2, levels, majority(plane, carry_a, carry_b));
    }
    spread_planes(planes, levels, count_out);
}

BITOPS_INLINE void count_vectors(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                                 size_t n_taps, size_t n_words, int levels, uint8_t *count_out) {
    for (size_t i = 0; i < n_words; i += VECTOR_WORDS)
        count_run_vector(taps, i * sizeof *w, w + i, ldw, n_taps, levels,
                         count_out + i * BITOPS_WORD_BITS);
}

BITOPS_INLINE void count_taps(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                              size_t n_taps, size_t n_words, uint8_t *count_out) {
    BITOPS_ASSUME(n_taps <= BITOPS_COUNT_TAPS);
    if (n_taps == 3 * 3)
        count_vectors(taps, w, ldw, 3 * 3, n_words, 4, count_out);
    else if (n_taps < 1 << 4)
        count_vectors(taps, w, ldw, n_taps, n_words, 4, count_out);
    else if (n_taps < 1 << 6)
        count_vectors(taps, w, ldw, n_taps, n_words, 6, count_out);
    else
        count_vectors(taps, w, ldw, n_taps, n_words, COUNT_LEVELS, count_out);
}

/* ---- stores -------------------------------------------------------------------------------- */

/* Whether numbers of this kind depend on their counts alone, but for offsets. */
BITOPS_INLINE int is_plain(bitops_store_kind kind) {
    return kind == BITOPS_STORE_DOT || kind == BITOPS_STORE_HAMMING ||
           kind == BITOPS_STORE_HAMMING16;
}

/* Rows from the first on that have no offsets; all of them lie side by side in c, or it is one. */
BITOPS_INLINE size_t plain_rows(size_t rows, size_t n, size_t row, const bitops_store *store) {
    const size_t most = store->ldc == n ? rows : 1;
    size_t plain = 0;
    if (is_plain(store->kind))
        while (plain < most && !store_offset(store, row + plain))
            plain++;
    return plain;
}

/* Stores n numbers, and asks for lines `ahead` bytes before they are written. kind is a constant at
 * every call. */
BITOPS_INLINE void store_run(const bitops_store_kind kind, const uint8_t *count, size_t n,
                             int32_t k, char *c_out, size_t ahead) {
    enum { LINE = 64, CHUNK = 256 };
    const size_t size = store_number_size(kind);
    for (size_t j = 0; j < n; j += CHUNK) {
        const size_t end = n - j < CHUNK ? n : j + CHUNK;
        for (size_t byte = j * size; byte < end * size; byte += LINE)
            __builtin_prefetch(c_out + ahead + byte, 1, 3);
        for (size_t i = j; i < end; i++)
            if (kind == BITOPS_STORE_HAMMING16)
                ((uint16_t *)c_out)[i] = count[i];
            else
                ((int32_t *)c_out)[i] =
                    kind == BITOPS_STORE_DOT ? bitops_dot(k, count[i]) : count[i];
    }
}

enum { AHEAD = 1024 }; /* bytes before they are written, lines of rows without gaps are asked for */

/* Stores rows that plain_rows has found, as one run of n numbers in all. */
BITOPS_INLINE void store_plain(const uint8_t *count, size_t n, size_t row, size_t col,
                               const bitops_store *store) {
    const size_t size = store_number_size(store->kind), row_bytes = store->ldc * size;
    const size_t ahead = n < store->ldc ? row_bytes : AHEAD;
    char *c = (char *)store->c + row * row_bytes + col * size;
    if (store->kind == BITOPS_STORE_DOT)
        store_run(BITOPS_STORE_DOT, count, n, store->k, c, ahead);
    else if (store->kind == BITOPS_STORE_HAMMING)
        store_run(BITOPS_STORE_HAMMING, count, n, store->k, c, ahead);
    else
        store_run(BITOPS_STORE_HAMMING16, count, n, store->k, c, ahead);
}

/* Counts a vector at a time and stores its dot products at once, so that those of the next one are
 * made while lines are waited for. */
BITOPS_INLINE void dot_vectors(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                               size_t n_taps, size_t n, int32_t k, int levels, int32_t *dot_out) {
    enum { VECTOR_COUNTS = VECTOR_WORDS * BITOPS_WORD_BITS };
    uint8_t count[VECTOR_COUNTS];
    for (size_t i = 0; i < n; i += VECTOR_COUNTS) {
        count_run_vector(taps, i / 8, w + i / BITOPS_WORD_BITS, ldw, n_taps, levels, count);
        if (n - i >= VECTOR_COUNTS)
            store_run(BITOPS_STORE_DOT, count, VECTOR_COUNTS, k, (char *)(dot_out + i), AHEAD);
        else
            store_run(BITOPS_STORE_DOT, count, n - i, k, (char *)(dot_out + i), AHEAD);
    }
}

BITOPS_INLINE void dot_taps(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                            size_t n_taps, size_t n, int32_t k, int32_t *dot_out) {
    BITOPS_ASSUME(n_taps <= BITOPS_COUNT_TAPS);
    if (n_taps == 3 * 3)
        dot_vectors(taps, w, ldw, 3 * 3, n, k, 4, dot_out);
    else if (n_taps < 1 << 4)
        dot_vectors(taps, w, ldw, n_taps, n, k, 4, dot_out);
    else if (n_taps < 1 << 6)
        dot_vectors(taps, w, ldw, n_taps, n, k, 6, dot_out);
    else
        dot_vectors(taps, w, ldw, n_taps, n, k, COUNT_LEVELS, dot_out);
}

/* The counts below which a dot product exceeds its threshold. */
BITOPS_INLINE void fill_limits(size_t n, const int32_t *offset, const int32_t *threshold,
                               const bitops_store *store, uint8_t *limit) {
    /* No dot product, with its offset, is as far from 0. */
    const int32_t far = 4 * BITOPS_COUNT_TAPS;
    for (size_t j = 0; j < n; j++) {
        int32_t t = threshold[j];
        t = t > far ? far : t < -far ? -far : t;
        const int32_t above = store->k + (offset ? offset[j] : 0) - t;
        const int32_t half = above > 0 ? (above + 1) / 2 : 0;
        limit[j] = (uint8_t)(half > store->k ? store->k + 1 : half);
    }
}

BITOPS_INLINE void store_counted_signs(const uint8_t *count, size_t rows, size_t n, size_t row,
                                       size_t col, const bitops_store *store) {
    uint8_t limit[BITOPS_COUNTS]; /* 0 past n: no count is below */
    const size_t words = bitops_words(n);
    const uint64_t *flip = store->flip ? store->flip + col / BITOPS_WORD_BITS : NULL;
    const int32_t *last = NULL;
    memset(limit + n, 0, words * BITOPS_WORD_BITS - n);
    for (size_t i = 0; i < rows; i++, count += n) {
        const int32_t *offset = store_offset(store, row + i);
        if (i == 0 || offset != last)
            fill_limits(n, offset ? offset + col : NULL, store->threshold + col, store, limit);
        last = offset;
        uint64_t *out = (uint64_t *)store->c + (row + i) * store->ldc + col / BITOPS_WORD_BITS;
        for (size_t j = 0; j < words; j++) {
            const size_t at = j * BITOPS_WORD_BITS;
            out[j] = counts_below(count + at, limit + at) ^ (flip ? flip[j] : 0);
        }
    }
}

/* The mismatches of a row are those of its counts that it does not have in common. */
BITOPS_INLINE void store_common_counts(const uint8_t *common, size_t n, size_t row, size_t col,
                                       const bitops_store *store) {
    const int32_t a_count = store->a_counts[row], *w_counts = store->w_counts + col;
    int32_t mismatches[BITOPS_COUNTS];
    for (size_t j = 0; j < n; j++)
        mismatches[j] = a_count + w_counts[j] - 2 * common[j];
    store_block(mismatches, n, 1, n, row, col, store);
}

/* One row of any other kind, in pieces that stay in the first-level cache as int32. */
BITOPS_INLINE void store_wide(const uint8_t *count, size_t n, size_t row, size_t col,
                              const bitops_store *store) {
    enum { PIECE = 256 };
    for (size_t j = 0; j < n; j += PIECE) {
        const size_t columns = n - j < PIECE ? n - j : PIECE;
        int32_t mismatches[PIECE];
        for (size_t i = 0; i < columns; i++)
            mismatches[i] = count[j + i];
        store_block(mismatches, PIECE, 1, columns, row, col + j, store);
    }
}

BITOPS_INLINE void store_counts(const uint8_t *count, size_t rows, size_t n, size_t row, size_t col,
                                const bitops_store *store) {
    BITOPS_ASSUME(n <= BITOPS_COUNTS);
    if (store->kind == BITOPS_STORE_SIGN) {
        store_counted_signs(count, rows, n, row, col, store);
        return;
    }
    if (store->kind == BITOPS_STORE_TOPK) {
        for (; rows; rows--, row++, count += n)
            store_common_counts(count, n, row, col, store);
        return;
    }
    while (rows) {
        const size_t plain = plain_rows(rows, n, row, store);
        if (plain)
            store_plain(count, plain * n, row, col, store);
        else
            store_wide(count, n, row, col, store);
        const size_t done = plain ? plain : 1;
        count += done * n;
        row += done;
        rows -= done;
    }
}

#endif
