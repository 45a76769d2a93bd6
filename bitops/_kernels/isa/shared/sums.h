/* sums.h: sums of the columns of a matrix of float32 numbers, in float64.
 *
 * The order of the additions is part of the result: from the first row to the last, starting from
 * 0. The sums of some columns stay in vector registers, eight at a time, because an addition waits
 * for the one before it. This is included within the target region of an ISA, below
 *
 *   typedef ... sum_vector;
 *   sum_vector widen(const float *x)        as many numbers as it has lanes
 */
#ifndef BITOPS_SUMS_H
#define BITOPS_SUMS_H

#include "isa/shared/target.h"

#include <string.h>

enum { SUM_LANES = sizeof(sum_vector) / sizeof(double), SUM_VECTORS = 8 };

/* Sums `vectors` vectors of columns, a constant. */
BITOPS_INLINE void sum_block(const float *x, size_t ld, size_t rows, int vectors, double *sum_out) {
    sum_vector sums[SUM_VECTORS];
    memset(sums, 0, sizeof sums);
    for (size_t i = 0; i < rows; i++, x += ld) {
        BITOPS_UNROLL
        for (int v = 0; v < vectors; v++) {
            sums[v] += widen(x + v * SUM_LANES);
        }
    }
    memcpy(sum_out, sums, (size_t)vectors * sizeof *sums);
}

BITOPS_INLINE void sum_columns(const float *x, size_t ld, size_t rows, size_t n, double *sum_out) {
    size_t j = 0;
    for (; j + SUM_VECTORS * SUM_LANES <= n; j += SUM_VECTORS * SUM_LANES)
        sum_block(x + j, ld, rows, SUM_VECTORS, sum_out + j);
    for (; j + SUM_LANES <= n; j += SUM_LANES)
        sum_block(x + j, ld, rows, 1, sum_out + j);
    for (; j < n; j++) {
        double sum = 0;
        for (size_t i = 0; i < rows; i++)
            sum += (double)x[i * ld + j];
        sum_out[j] = sum;
    }
}

#endif
