/* heap.h: keeps the nearest neighbours of a row in a heap while distances arrive.
 *
 * A key is distance << 32 | index, so keys sort like neighbours: the nearest first, equal distances
 * by index. A heap holds the `count` smallest keys so far, with the largest of them at its root. It
 * starts full of HEAP_NONE, which is larger than every key. */
#ifndef BITOPS_HEAP_H
#define BITOPS_HEAP_H

#include "isa/shared/target.h"

#include <stddef.h>
#include <stdint.h>

#define HEAP_NONE UINT64_MAX

BITOPS_INLINE uint64_t heap_key(uint32_t distance, size_t index) {
    return (uint64_t)distance << 32 | index;
}

/* Distances below this limit enter the heap. An equal one does not: indices arrive in increasing
 * order, so the index in the heap is the smaller one. */
BITOPS_INLINE uint32_t heap_limit(const uint64_t *heap) {
    return (uint32_t)(heap[0] >> 32);
}

/* Puts key where element i was, whose children are heaps, and restores the heap below. */
BITOPS_INLINE void heap_sift(uint64_t *heap, size_t count, size_t i, uint64_t key) {
    for (size_t child = 2 * i + 1; child < count; child = 2 * i + 1) {
        child += child + 1 < count && heap[child + 1] > heap[child];
        if (heap[child] <= key)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = key;
}

BITOPS_INLINE void heap_replace_root(uint64_t *heap, size_t count, uint64_t key) {
    heap_sift(heap, count, 0, key);
}

/* Orders any keys as a heap. */
BITOPS_INLINE void heap_make(uint64_t *heap, size_t count) {
    for (size_t i = count / 2; i-- > 0;)
        heap_sift(heap, count, i, heap[i]);
}

BITOPS_INLINE void heap_push(uint64_t *heap, size_t count, uint64_t key) {
    if (key < heap[0])
        heap_replace_root(heap, count, key);
}

/* Sorts the keys of a heap in increasing order. */
static inline void heap_sort(uint64_t *heap, size_t count) {
    for (size_t last = count; last-- > 1;) {
        const uint64_t key = heap[last];
        heap[last] = heap[0];
        heap_replace_root(heap, last, key);
    }
}

#endif
