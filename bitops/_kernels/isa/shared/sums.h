/* sums.h: sums of the columns of a matrix of float32 numbers, in float64.
 *
 * The order of the additions is part of the result: from the first row to the last, starting from
 * 0. The sums of some columns stay in vector registers, eight at a time, because an addition waits
 * for the one before it. Wide rows are taken a few at a time, so that they are read as they lie,
 * and those that follow are asked for meanwhile. This is included within the target region of an
 * ISA, below
 *
 *   typedef ... sum_vector;
 *   sum_vector widen(const float *x)        as many numbers as it has lanes
 */
#ifndef BITOPS_SUMS_H
#define BITOPS_SUMS_H

#include "isa/shared/target.h"

#include <string.h>

enum {
    SUM_LANES = sizeof(sum_vector) / sizeof(double),
    SUM_VECTORS = 8,
    SUM_ROWS = 8, /* of a block of wide rows */
    SUM_LINE = 64 / sizeof(float)
};

/* Adds `vectors` vectors of columns, a constant; those `ahead` are asked for, if that is not 0. */
BITOPS_INLINE void sum_block(const float *x, size_t ld, size_t rows, const int vectors,
                             const size_t ahead, double *sums_inout) {
    sum_vector sums[SUM_VECTORS];
    BITOPS_UNROLL
    for (int v = 0; v < vectors; v++)
        memcpy(&sums[v], sums_inout + v * SUM_LANES, sizeof *sums);
    for (size_t i = 0; i < rows; i++, x += ld) {
        BITOPS_UNROLL
        for (int v = 0; v < vectors; v++) {
            if (ahead && v * SUM_LANES % SUM_LINE == 0)
                __builtin_prefetch(x + v * SUM_LANES + ahead);
            sums[v] += widen(x + v * SUM_LANES);
        }
    }
    BITOPS_UNROLL
    for (int v = 0; v < vectors; v++)
        memcpy(sums_inout + v * SUM_LANES, &sums[v], sizeof *sums);
}

BITOPS_INLINE void add_rows(const float *x, size_t ld, size_t rows, size_t n, double *sums_inout) {
    size_t j = 0;
    for (; j + SUM_VECTORS * SUM_LANES <= n; j += SUM_VECTORS * SUM_LANES)
        sum_block(x + j, ld, rows, SUM_VECTORS, ld * SUM_ROWS, sums_inout + j);
    for (; j + SUM_LANES <= n; j += SUM_LANES)
        sum_block(x + j, ld, rows, 1, 0, sums_inout + j);
    for (; j < n; j++) {
        double sum = sums_inout[j];
        for (size_t i = 0; i < rows; i++)
            sum += (double)x[i * ld + j];
        sums_inout[j] = sum;
    }
}

BITOPS_INLINE void sum_columns(const float *x, size_t ld, size_t rows, size_t n, double *sum_out) {
    const size_t block = n > SUM_VECTORS * SUM_LANES ? SUM_ROWS : rows;
    memset(sum_out, 0, n * sizeof *sum_out);
    for (size_t i = 0; i < rows; i += block)
        add_rows(x + i * ld, ld, rows - i < block ? rows - i : block, n, sum_out);
}

#endif
