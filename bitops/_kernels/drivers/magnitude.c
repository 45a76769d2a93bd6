/* magnitude.c: magnitudes of rows of float32 numbers: their mean, XNOR-Net's A, and their sum, for
 * its alpha.
 *
 * The order of the additions is part of the result. Element i goes to sum i % 16; then sums j and
 * j + 8 are added, then j and j + 4, j + 2, j + 1. The baseline instructions keep up
 * with the memory. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "isa/shared/target.h"
#include "runtime/parallel.h"

#include <math.h>
#include <string.h>

enum {
    LANES = 16,
    THREAD_WORK = 1 << 16, /* elements below which one thread is faster */
    TASK_WORK = 1 << 12,   /* elements of a task, at least */
    PART = 1 << 16,        /* elements after which a long row asks for interrupts; whole LANES */
    BLOCK = 128,           /* elements that np.sum adds in turns */
};

/* Adds the first n <= LANES sums; the others would be 0. */
static float sum_lanes(float sums[LANES], size_t n) {
    for (size_t half = LANES / 2; half; half /= 2) {
        for (size_t j = 0; j + half < n; j++)
            sums[j] += sums[j + half];
        n = min_size(n, half);
    }
    return sums[0];
}

/* Four sums in a vector, which compilers do not make of the arrays here by themselves. */
typedef float quad __attribute__((vector_size(16)));
typedef uint32_t quad_bits __attribute__((vector_size(16)));
enum { QUADS = 4 };

BITOPS_INLINE quad load_magnitudes(const float *x) {
    quad v;
    memcpy(&v, x, sizeof v);
    return (quad)((quad_bits)v & 0x7fffffff);
}

static float sum_row(const float *x, size_t n, bitops_stop *stop) {
    float sums[LANES];
    if (n < LANES) {
        for (size_t j = 0; j < n; j++)
            sums[j] = fabsf(x[j]);
        return sum_lanes(sums, n);
    }
    quad s[QUADS];
    size_t i = LANES;
    BITOPS_UNROLL
    for (int q = 0; q < QUADS; q++)
        s[q] = load_magnitudes(x + 4 * q);
    while (i + LANES <= n && !(i > PART && bitops_stopped(stop))) {
        const size_t end = min_size(n, i + PART);
        for (; i + LANES <= end; i += LANES) {
            BITOPS_UNROLL
            for (int q = 0; q < QUADS; q++)
                s[q] += load_magnitudes(x + i + 4 * q);
        }
    }
    if (i == n) {
        const quad sum = (s[0] + s[2]) + (s[1] + s[3]);
        return (sum[0] + sum[2]) + (sum[1] + sum[3]);
    }
    memcpy(sums, s, sizeof sums);
    for (size_t j = 0; j < LANES && i + j < n; j++) /* a stopped call leaves the rest */
        sums[j] += fabsf(x[i + j]);
    return sum_lanes(sums, LANES);
}

void bitops_mean_magnitude(const float *x, size_t rows, size_t n, float *mean_out,
                           bitops_stop *stop, int n_threads) {
    const size_t share = max_size(TASK_WORK / max_size(n, 1), 1);
    BITOPS_PARALLEL_FOR(bitops_share((double)rows * (double)n, THREAD_WORK, n_threads),
                        schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t begin = (size_t)task * share, end = min_size(begin + share, rows);
        for (size_t row = begin; row < end; row++)
            mean_out[row] = n ? sum_row(x + row * n, n, stop) / (float)n : 0;
    }
}

/* Adds as np.sum does: eight sums in turns, and longer rows in halves. */
static double sum_pairwise(const float *x, size_t n) {
    if (n > BLOCK) {
        const size_t half = n / 2 - n / 2 % 8;
        return sum_pairwise(x, half) + sum_pairwise(x + half, n - half);
    }
    double sums[8] = {0}, sum;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += (double)fabsf(x[i + j]);
    sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < n; i++)
        sum += (double)fabsf(x[i]);
    return sum;
}

void bitops_sum_magnitude(const float *x, size_t rows, size_t n, double *sum_out, bitops_stop *stop,
                          int n_threads) {
    BITOPS_PARALLEL_FOR(bitops_share((double)rows * (double)n, THREAD_WORK, n_threads),
                        schedule(static))
    for (ptrdiff_t row = 0; row < (ptrdiff_t)rows; row++) {
        if (bitops_stopped_at((size_t)row, BITOPS_STOP_TASKS, stop))
            continue;
        sum_out[row] = sum_pairwise(x + (size_t)row * n, n);
    }
}
