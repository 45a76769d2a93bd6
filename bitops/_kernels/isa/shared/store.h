/* store.h: the output transform of bitops_store, for a block of mismatch counts in memory.
 *
 * It serves the ISAs that have no vector form of their own, and the drivers that sum mismatches in
 * memory. Each loop over columns does one operation, so that compilers vectorise it. */
#ifndef BITOPS_STORE_H
#define BITOPS_STORE_H

#include "bitops.h"
#include "isa/shared/nearest.h"
#include "isa/shared/target.h"

/* The offsets that are added to the dot products of a row, from column 0 on, or NULL. */
BITOPS_INLINE const int32_t *store_offset(const bitops_store *store, size_t row) {
    const uint32_t offset_row = store->offset ? store->offset_row[row - store->first_row] : 0;
    return offset_row ? store->offset + offset_row * store->ld_offset : NULL;
}

BITOPS_INLINE int32_t store_dot(int32_t mismatches, const int32_t *offset, size_t j,
                                const bitops_store *store) {
    const int32_t dot = bitops_dot(store->k, mismatches);
    return offset ? dot + offset[j] : dot;
}

BITOPS_INLINE void store_dot_row(const int32_t *mismatches, const int32_t *offset, size_t n,
                                 int32_t *c, const bitops_store *store) {
    for (size_t j = 0; j < n; j++)
        c[j] = store_dot(mismatches[j], offset, j, store);
}

BITOPS_INLINE void store_scaled_row(const int32_t *mismatches, const int32_t *offset, size_t n,
                                    size_t row, size_t col, const bitops_store *store) {
    float *c = (float *)store->c + row * store->ldc + col;
    for (size_t j = 0; j < n; j++)
        c[j] = (float)store_dot(mismatches[j], offset, j, store);
    if (store->alpha)
        for (size_t j = 0; j < n; j++)
            c[j] *= store->alpha[col + j];
    if (store->k_map)
        for (size_t j = 0; j < n; j++)
            c[j] *= store->k_map[row];
    if (store->bias)
        for (size_t j = 0; j < n; j++)
            c[j] += store->bias[col + j];
}

BITOPS_INLINE void store_sign_row(const int32_t *mismatches, const int32_t *offset, size_t n,
                                  size_t row, size_t col, const bitops_store *store) {
    /* col is a multiple of 8, so no two calls write the same byte. */
    uint8_t *c = (uint8_t *)((uint64_t *)store->c + row * store->ldc) + col / 8;
    const uint8_t *flip = store->flip ? (const uint8_t *)store->flip + col / 8 : NULL;
    for (size_t byte = 0; byte * 8 < n; byte++) {
        const size_t bits = n - byte * 8 < 8 ? n - byte * 8 : 8;
        unsigned signs = 0;
        for (size_t j = 0; j < bits; j++) {
            const int32_t dot = store_dot(mismatches[byte * 8 + j], offset, byte * 8 + j, store);
            signs |= (unsigned)(dot > store->threshold[col + byte * 8 + j]) << j;
        }
        c[byte] = (uint8_t)(flip ? signs ^ flip[byte] : signs);
    }
}

BITOPS_INLINE void store_topk_row(const int32_t *mismatches, size_t n, size_t row, size_t col,
                                  const bitops_store *store) {
    uint64_t *nearest = (uint64_t *)store->c + row * store->ldc;
    for (size_t j = 0; j < n; j++)
        if ((uint32_t)mismatches[j] < heap_limit(nearest))
            nearest_push(nearest, store, heap_key((uint32_t)mismatches[j], col + j));
}

/* Hits are rare, so the smallest count is found first, in a loop that compilers vectorise. */
BITOPS_INLINE void store_within_row(const int32_t *mismatches, size_t n, size_t row, size_t col,
                                    const bitops_store *store) {
    bitops_found *found = (bitops_found *)store->c;
    int32_t least = INT32_MAX;
    for (size_t j = 0; j < n; j++)
        least = mismatches[j] < least ? mismatches[j] : least;
    if (least > store->most)
        return;
    for (size_t j = 0; j < n; j++)
        if (mismatches[j] <= store->most) {
            found->pairs[found->count] = (uint64_t)row << 32 | (col + j);
            found->distances[found->count++] = mismatches[j];
        }
}

/* Stores rows x n mismatch counts, ld apart, in the block of c at (row, col). store_lanes of
 * avx512.c is the same switch for vectors; a new kind of store needs a case in both. */
BITOPS_INLINE void store_block(const int32_t *mismatches, size_t ld, size_t rows, size_t n,
                               size_t row, size_t col, const bitops_store *store) {
    for (size_t i = 0; i < rows; i++, mismatches += ld) {
        const size_t first = (row + i) * store->ldc + col;
        const int32_t *own = store_offset(store, row + i), *offset = own ? own + col : NULL;
        switch (store->kind) {
        case BITOPS_STORE_DOT:
            store_dot_row(mismatches, offset, n, (int32_t *)store->c + first, store);
            break;
        case BITOPS_STORE_SCALED:
            store_scaled_row(mismatches, offset, n, row + i, col, store);
            break;
        case BITOPS_STORE_HAMMING:
            for (size_t j = 0; j < n; j++)
                ((int32_t *)store->c)[first + j] = mismatches[j];
            break;
        case BITOPS_STORE_HAMMING16:
            for (size_t j = 0; j < n; j++)
                ((uint16_t *)store->c)[first + j] = (uint16_t)mismatches[j];
            break;
        case BITOPS_STORE_SIGN:
            store_sign_row(mismatches, offset, n, row + i, col, store);
            break;
        case BITOPS_STORE_ACCUMULATE:
            for (size_t j = 0; j < n; j++)
                ((int32_t *)store->c)[first + j] += mismatches[j];
            break;
        case BITOPS_STORE_TOPK:
            store_topk_row(mismatches, n, row + i, col, store);
            break;
        case BITOPS_STORE_WITHIN:
            store_within_row(mismatches, n, row + i, col, store);
            break;
        }
    }
}

#endif
