/* nearest.h: keeps the nearest columns of a row while distances arrive: in a heap (heap.h), or,
 * where many are kept, in a list from which they are selected now and then.
 *
 * A list of ldc words has a limit in the upper half of word 0, as a heap has, the number of its
 * keys in word 1, and then keys in the order of their arrival, that is of their indices. Once it is
 * full, the `keep` smallest stay, in the same order, and the largest distance among them becomes
 * the limit. A key costs a store and its share of a selection, which has no branch that depends on
 * keys; a heap costs a level for every doubling of its size, each a branch that goes either way. */
#ifndef BITOPS_NEAREST_H
#define BITOPS_NEAREST_H

#include "operations.h"
#include "isa/shared/heap.h"
#include "isa/shared/target.h"

#include <stddef.h>
#include <stdint.h>

enum { LIST_HEAD = 2, SELECT_BINS = 1024 };

/* Words of a list: half of them are dropped by a selection. */
static inline size_t list_words(size_t keep) {
    return LIST_HEAD + 2 * keep;
}

static inline void list_clear(uint64_t *list) {
    list[0] = HEAP_NONE;
    list[1] = 0;
}

/* The smallest distance, from *low to *high, that at least *rank keys do not exceed; *rank becomes
 * how many keys with this distance are among the *rank smallest. */
static inline uint32_t select_distance(const uint64_t *keys, size_t n, uint32_t low, uint32_t high,
                                       size_t *rank) {
    for (;;) {
        uint32_t bins[SELECT_BINS] = {0};
        const uint32_t range = high - low;
        int shift = 0;
        while (range >> shift >= SELECT_BINS)
            shift++;
        for (size_t i = 0; i < n; i++) {
            const uint32_t above = (uint32_t)(keys[i] >> 32) - low;
            if (above <= range)
                bins[above >> shift]++;
        }
        uint32_t bin = 0;
        for (; bins[bin] < *rank; bin++)
            *rank -= bins[bin];
        low += bin << shift;
        if (shift == 0)
            return low;
        high = low + ((uint32_t)1 << shift) - 1;
    }
}

/* Leaves the `keep` smallest keys of a list that has more. */
static inline void list_select(uint64_t *list, size_t keep) {
    uint64_t *const keys = list + LIST_HEAD;
    const size_t n = list[1];
    uint32_t low = UINT32_MAX, high = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t distance = (uint32_t)(keys[i] >> 32);
        low = distance < low ? distance : low;
        high = distance > high ? distance : high;
    }
    size_t equal = keep, kept = 0;
    const uint32_t limit = select_distance(keys, n, low, high, &equal);
    for (size_t i = 0; i < n; i++) {
        const uint64_t key = keys[i];
        const uint32_t distance = (uint32_t)(key >> 32);
        const size_t tie = distance == limit && equal > 0;
        keys[kept] = key;
        kept += (distance < limit) | tie;
        equal -= tie;
    }
    list[0] = (uint64_t)limit << 32;
    list[1] = keep;
}

/* ---- ranks: 32 bits that order rows as a metric does ---------------------------------------- */

#define RANK_MOST (UINT32_MAX - 1) /* below the limit of an empty heap */

/* A Jaccard distance is a fraction h / |a | w| with a denominator of at most k. Two different ones
 * differ by at least 1 / k^2, so that with k <= BITOPS_RANKED_BITS their ranks differ too. */
BITOPS_INLINE uint32_t nearest_rank(int32_t mismatches, size_t row, size_t col,
                                    const bitops_store *store) {
    if (store->metric == BITOPS_STORE_HAMMING)
        return (uint32_t)mismatches;
    const uint32_t h = (uint32_t)mismatches;
    const uint32_t sum = (uint32_t)store->a_counts[row] + (uint32_t)store->w_counts[col];
    const uint32_t common = (sum - h) / 2;
    if (store->metric == BITOPS_STORE_INTERSECTION)
        return RANK_MOST - common;
    return common + h ? (uint32_t)((uint64_t)h * RANK_MOST / (common + h)) : 0;
}

/* The mismatches that ranks below the limit have, or up to it if inclusive: with L for
 * limit / RANK_MOST, JACCARD        2 h / (s + h) < L      means   h < L / (2 - L) s INTERSECTION
 * (s - h) / 2 > common   means   h < s - 2 common for s = |a| + |w|. Roundings of float32 are less
 * than what is added. */
BITOPS_INLINE bitops_bound nearest_bound(uint32_t limit, int32_t a_count,
                                         const bitops_store *store) {
    const double above = (double)limit + store->inclusive;
    const double slack = 0.0625 + ((double)a_count + store->k) / (1 << 21);
    if (store->metric == BITOPS_STORE_INTERSECTION) {
        const double common = RANK_MOST - above;
        return (bitops_bound){1, (float)(a_count - 2 * common + slack)};
    }
    const double factor = above / (2.0 * RANK_MOST - above);
    return (bitops_bound){(float)factor, (float)(factor * a_count + slack)};
}

/* ---- heaps and lists ------------------------------------------------------------------------ */

/* Takes a key whose distance is below the limit of its row of c. */
BITOPS_INLINE void nearest_push(uint64_t *nearest, const bitops_store *store, uint64_t key) {
    if (!store->keep) {
        heap_replace_root(nearest, store->ldc, key);
        return;
    }
    nearest[LIST_HEAD + nearest[1]++] = key;
    if (LIST_HEAD + nearest[1] == store->ldc)
        list_select(nearest, store->keep);
}

/* Takes a column if it is allowed and nearer than one that its row of c keeps. */
BITOPS_INLINE void nearest_offer(uint64_t *nearest, int32_t mismatches, size_t row, size_t col,
                                 const bitops_store *store) {
    if (store->allowed && !(store->allowed[col / BITOPS_WORD_BITS] >> col % BITOPS_WORD_BITS & 1))
        return;
    const uint64_t key =
        heap_key(nearest_rank(mismatches, row, col, store), store->ids ? store->ids[col] : col);
    if (key >= nearest[0])
        return;
    nearest_push(nearest, store, key);
    if (store->bounds)
        store->bounds[row] = nearest_bound(heap_limit(nearest), store->a_counts[row], store);
}

/* Takes those of up to 32 columns from col on that hits selects, unless one before them has lowered
 * the limit of their row. */
BITOPS_INLINE void nearest_offer_hits(const int32_t *mismatches, uint32_t hits, size_t row,
                                      size_t col, const bitops_store *store) {
    uint64_t *nearest = (uint64_t *)store->c + row * store->ldc;
    for (; hits; hits &= hits - 1) {
        const unsigned j = (unsigned)__builtin_ctz(hits);
        nearest_offer(nearest, mismatches[j], row, col + j, store);
    }
}

#endif
