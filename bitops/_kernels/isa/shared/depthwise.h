/* depthwise.h: counts, for each bit of a run, the taps where it differs from its weight, and stores
 * these counts.
 *
 * A vector of bits is counted in planes: bit i of plane p is bit p of count i. Two taps and plane 0
 * go through a full adder, and its carry through half adders into the planes above:
 *
 *   tap 0, tap 1, plane 0 -> carry + plane 1 -> carry + plane 2 -> carry + plane 3
 *   tap 2, tap 3, plane 0 -> ...
 *
 * The planes are then spread to one byte for each count. This is included within the target region
 * of an ISA, below its vector of bits and what spreads `levels` planes of them:
 *
 *   typedef ... bit_vector;
 *   void spread_planes(const bit_vector *planes, int levels, uint8_t *count_out)
 *
 * Overflow: the planes hold the number of taps, at most BITOPS_COUNT_TAPS, which fits a byte. */
#ifndef BITOPS_DEPTHWISE_H
#define BITOPS_DEPTHWISE_H

#include "bitops.h"
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
    bit_vector planes[COUNT_LEVELS];
    memset(planes, 0, sizeof planes);
    size_t t = 0;
    for (; t + 2 <= n_taps; t += 2, w += 2 * ldw) {
        const bit_vector a = differing_bits(taps[t] + byte, w);
        const bit_vector b = differing_bits(taps[t + 1] + byte, w + ldw);
        const bit_vector either = a ^ b;
        add_carry(planes, 1, levels, (a & b) | (either & planes[0]));
        planes[0] ^= either;
    }
    if (t < n_taps)
        add_carry(planes, 0, levels, differing_bits(taps[t] + byte, w));
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
    if (n_taps < 1 << 4)
        count_vectors(taps, w, ldw, n_taps, n_words, 4, count_out);
    else if (n_taps < 1 << 6)
        count_vectors(taps, w, ldw, n_taps, n_words, 6, count_out);
    else
        count_vectors(taps, w, ldw, n_taps, n_words, COUNT_LEVELS, count_out);
}

/* ---- stores -------------------------------------------------------------------------------- */

/* Rows from the first on that have no offsets and lie side by side in c. */
BITOPS_INLINE size_t plain_rows(size_t rows, size_t n, size_t row, const bitops_store *store) {
    size_t plain = 0;
    if (store->ldc == n)
        while (plain < rows && !store_offset(store, row + plain))
            plain++;
    return plain;
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
                                       size_t col, const bitops_store *store,
                                       bitops_pack_bool8_fn *pack_bool8) {
    uint8_t limit[BITOPS_COUNTS], above[BITOPS_COUNTS];
    const int32_t *last = NULL;
    for (size_t i = 0; i < rows; i++, count += n) {
        const int32_t *offset = store_offset(store, row + i);
        if (i == 0 || offset != last)
            fill_limits(n, offset ? offset + col : NULL, store->threshold + col, store, limit);
        last = offset;
        for (size_t j = 0; j < n; j++)
            above[j] = count[j] < limit[j];
        uint64_t *words = (uint64_t *)store->c + (row + i) * store->ldc + col / BITOPS_WORD_BITS;
        int nan;
        pack_bool8(above, n, words, &nan);
        if (store->flip)
            for (size_t j = 0; j < bitops_words(n); j++)
                words[j] ^= store->flip[col / BITOPS_WORD_BITS + j];
    }
}

BITOPS_INLINE void store_counts(const uint8_t *count, size_t rows, size_t n, size_t row, size_t col,
                                const bitops_store *store, bitops_pack_bool8_fn *pack_bool8) {
    BITOPS_ASSUME(n <= BITOPS_COUNTS);
    if (store->kind == BITOPS_STORE_SIGN) {
        store_counted_signs(count, rows, n, row, col, store, pack_bool8);
        return;
    }
    while (rows) {
        const size_t plain = store->kind == BITOPS_STORE_DOT ? plain_rows(rows, n, row, store) : 0;
        int32_t *c = (int32_t *)store->c + row * store->ldc + col;
        for (size_t j = 0; j < plain * n; j++)
            c[j] = bitops_dot(store->k, count[j]);
        if (!plain) {
            int32_t wide[BITOPS_COUNTS];
            for (size_t j = 0; j < n; j++)
                wide[j] = count[j];
            store_block(wide, n, 1, n, row, col, store);
        }
        const size_t done = plain ? plain : 1;
        count += done * n;
        row += done;
        rows -= done;
    }
}

#endif
