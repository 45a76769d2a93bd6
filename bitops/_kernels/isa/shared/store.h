/* store.h: the output transform of bitops_store, for a block of mismatch counts in memory.
 *
 * It serves the ISAs that have no vector form of their own, and the drivers that sum mismatches in
 * memory. Each loop over columns does one operation, so that compilers vectorise it. */
#ifndef BITOPS_STORE_H
#define BITOPS_STORE_H

#include "operations.h"
#include "isa/shared/nearest.h"
#include "isa/shared/target.h"

/* Bytes of one output, 0 for outputs that are not numbers side by side. */
BITOPS_INLINE size_t store_number_size(bitops_store_kind kind) {
    switch (kind) {
    case BITOPS_STORE_SIGN:
    case BITOPS_STORE_TOPK:
    case BITOPS_STORE_WITHIN:
        return 0;
    case BITOPS_STORE_HAMMING16:
        return sizeof(uint16_t);
    case BITOPS_STORE_HAMMING8:
        return sizeof(uint8_t);
    case BITOPS_STORE_JACCARD:
    case BITOPS_STORE_DICE:
        return sizeof(double);
    default:
        return sizeof(int32_t);
    }
}

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

/* |a & w| from mismatches and |a| + |w|, which may need all 32 bits. */
BITOPS_INLINE int32_t store_common(int32_t mismatches, int32_t a_count, int32_t w_count) {
    return (int32_t)(((uint32_t)a_count + (uint32_t)w_count - (uint32_t)mismatches) >> 1);
}

/* The values of a metric that depends on counts. All but the division is exact. */
BITOPS_INLINE void store_metric_row(const int32_t *mismatches, size_t n, size_t row, size_t col,
                                    const bitops_store *store) {
    const int32_t a_count = store->a_counts[row], *w_counts = store->w_counts + col;
    int32_t *common_out = (int32_t *)store->c + row * store->ldc + col;
    double *c = (double *)store->c + row * store->ldc + col;
    switch (store->kind) {
    case BITOPS_STORE_INTERSECTION:
        for (size_t j = 0; j < n; j++)
            common_out[j] = store_common(mismatches[j], a_count, w_counts[j]);
        break;
    case BITOPS_STORE_JACCARD:
        for (size_t j = 0; j < n; j++) {
            const int32_t either =
                store_common(mismatches[j], a_count, w_counts[j]) + mismatches[j];
            c[j] = (double)mismatches[j] / (double)(either > 1 ? either : 1);
        }
        break;
    default:
        for (size_t j = 0; j < n; j++) {
            const double sum = (double)a_count + (double)w_counts[j];
            c[j] = (double)mismatches[j] / (sum > 1 ? sum : 1);
        }
    }
}

/* Whether mismatches of a row and column are below the bound of the row. */
BITOPS_INLINE int is_below(bitops_bound bound, int32_t mismatches, int32_t w_count) {
    return (float)mismatches < bound.factor * (float)w_count + bound.term;
}

/* Which of n mismatches may be near, without branches: a bit for each of at most 32 if `each`, else
 * whether any is, in a loop that is vectorised without shifts by different counts, too. */
BITOPS_INLINE uint32_t near_columns(const int each, const int32_t *mismatches, size_t n, size_t row,
                                    size_t col, const uint64_t *nearest,
                                    const bitops_store *store) {
    uint32_t hits = 0;
    if (!store->bounds) {
        const uint32_t limit = heap_limit(nearest);
        for (size_t j = 0; j < n; j++)
            hits |= (uint32_t)((uint32_t)mismatches[j] < limit) << (each ? j : 0);
        return hits;
    }
    const bitops_bound bound = store->bounds[row];
    const int32_t *w_counts = store->w_counts + col;
    for (size_t j = 0; j < n; j++)
        hits |= (uint32_t)is_below(bound, mismatches[j], w_counts[j]) << (each ? j : 0);
    return hits;
}

BITOPS_INLINE void store_topk_row(const int32_t *mismatches, size_t n, size_t row, size_t col,
                                  const bitops_store *store) {
    enum { TOGETHER = 32 };
    const uint64_t *nearest = (const uint64_t *)store->c + row * store->ldc;
    for (size_t j = 0; j < n; j += TOGETHER, mismatches += TOGETHER) {
        const size_t columns = n - j < TOGETHER ? n - j : TOGETHER;
        if (near_columns(0, mismatches, columns, row, col + j, nearest, store))
            nearest_offer_hits(mismatches,
                               near_columns(1, mismatches, columns, row, col + j, nearest, store),
                               row, col + j, store);
    }
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
        if (mismatches[j] <= store->most &&
            (!store->bounds ||
             is_below(store->bounds[row], mismatches[j], store->w_counts[col + j]))) {
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
        case BITOPS_STORE_HAMMING8:
            for (size_t j = 0; j < n; j++)
                ((uint8_t *)store->c)[first + j] = (uint8_t)mismatches[j];
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
        case BITOPS_STORE_INTERSECTION:
        case BITOPS_STORE_JACCARD:
        case BITOPS_STORE_DICE:
            store_metric_row(mismatches, n, row + i, col, store);
            break;
        }
    }
}

#endif
