/* found.c: lists of pairs of rows, which grow while a search runs, and their distances. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    FIRST_CAPACITY = 1 << 10,
    LOOK_WORDS = 1 << 20, /* of pairs between two looks at the clock: some milliseconds */
};

int bitops_found_reserve(bitops_found *found, size_t more) {
    if (found->capacity - found->count >= more)
        return 1;
    const size_t capacity =
        max_size(found->count + more, max_size(2 * found->capacity, FIRST_CAPACITY));
    uint64_t *pairs = bitops_allocate(capacity * sizeof *pairs);
    int32_t *distances = bitops_allocate(capacity * sizeof *distances);
    if (!pairs || !distances) {
        bitops_free(pairs);
        bitops_free(distances);
        return 0;
    }
    if (found->count) {
        memcpy(pairs, found->pairs, found->count * sizeof *pairs);
        memcpy(distances, found->distances, found->count * sizeof *distances);
    }
    bitops_free(found->pairs);
    bitops_free(found->distances);
    found->pairs = pairs;
    found->distances = distances;
    found->capacity = capacity;
    return 1;
}

void bitops_found_free(bitops_found *found) {
    bitops_free(found->pairs);
    bitops_free(found->distances);
    memset(found, 0, sizeof *found);
}

int bitops_compare_pairs(const bitops_isa *isa, const bitops_range_args *args,
                         const uint64_t *pairs, size_t n, int32_t *distances_out) {
    const size_t step = max_size(LOOK_WORDS / args->k_words, 1);
    for (size_t i = 0; i < n; i += step) {
        if (bitops_stopped(args->stop))
            return 0;
        isa->count_pairs(args->a, args->lda, args->b, args->ldb, args->k_words, pairs + i,
                         min_size(step, n - i), args->radius, distances_out + i);
    }
    return 1;
}
