/* sizes.h: sizes that several drivers must agree on, and the arithmetic of sizes. */
#ifndef BITOPS_SIZES_H
#define BITOPS_SIZES_H

#include <stddef.h>

enum { LINE_WORDS = 8 }; /* 64-bit words of a cache line */

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
