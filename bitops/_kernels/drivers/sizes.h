/* sizes.h: sizes that several drivers must agree on, and the arithmetic of sizes. */
#ifndef BITOPS_SIZES_H
#define BITOPS_SIZES_H

#include <stddef.h>

enum {
    LINE_WORDS = 8, /* 64-bit words of a cache line */
    /* Up to this many rows of a, gemm.c reads w as it lies and needs no workspace. planes.c asks
     * the same question for each of its blocks: it sizes the workspace of gemm for a full block
     * with prepacked panels, and hands over plain w instead for a block that is no larger than
     * this. With a smaller threshold in gemm.c, such a block would order w into a workspace that
     * has no room for it. */
    FEW_ROWS = 16,
};

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
