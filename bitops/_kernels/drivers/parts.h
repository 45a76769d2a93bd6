/* parts.h: passes over rows of float32 for training, and sums over the rows.
 *
 * A task takes some rows of some columns, so that what is made of a row, its bits and the numbers
 * between, stays in the first-level cache. Sums of blocks of rows go into a workspace and are added
 * afterwards, always in the same order, whichever thread made them. */
#ifndef BITOPS_PARTS_H
#define BITOPS_PARTS_H

#include "bitops.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

enum {
    SPAN = 1024,              /* columns of a task, whole words */
    ROWS = BITOPS_NORM_BLOCK, /* rows of a task that makes no sums */
    THREAD_WORK = 1 << 16,    /* numbers below which one thread is faster */
};

static inline size_t rows_of_block(size_t rows) {
    return rows <= BITOPS_NORM_FEW ? rows : BITOPS_NORM_BLOCK;
}

/* Some rows of some columns. */
typedef struct part {
    size_t block, first, rows; /* rows */
    size_t column, n;
} part;

static inline part part_of(size_t task, size_t step, size_t rows, size_t n) {
    const size_t spans = ceil_div(n, SPAN), block = task / spans, column = task % spans * SPAN;
    return (part){.block = block,
                  .first = block * step,
                  .rows = min_size(rows - block * step, step),
                  .column = column,
                  .n = min_size(n - column, SPAN)};
}

static inline size_t count_parts(size_t step, size_t rows, size_t n) {
    return ceil_div(rows, step) * ceil_div(n, SPAN);
}

#define FOR_PARTS(rows, n, step, ...)                                                              \
    BITOPS_PARALLEL_FOR(bitops_share((double)(rows) * (double)(n), THREAD_WORK, n_threads),        \
                        schedule(static) __VA_ARGS__)                                              \
    for (ptrdiff_t task = 0; task < (ptrdiff_t)count_parts(step, rows, n); task++)

/* Adds the sums of blocks, each n numbers. */
static inline void add_blocks(const float *sums, size_t blocks, size_t n, double *sum_out) {
    for (size_t j = 0; j < n; j++)
        sum_out[j] = 0;
    for (size_t b = 0; b < blocks; b++)
        for (size_t j = 0; j < n; j++)
            sum_out[j] += (double)sums[b * n + j];
}

#endif
