/* sizes.h: arithmetic of sizes that the drivers share. */
#ifndef BITOPS_SIZES_H
#define BITOPS_SIZES_H

#include <stddef.h>

static inline size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b) {
    return a > b ? a : b;
}

static inline size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}

static inline size_t round_up(size_t a, size_t b) {
    return ceil_div(a, b) * b;
}

#endif
