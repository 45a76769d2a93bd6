/* magnitude.c: mean magnitude of rows of float32 numbers, XNOR-Net's A.
 *
 * The order of the additions is part of the result. Element i goes to sum i % 16; then sums j and
 * j + 8 are added, then j and j + 4, j + 2, j + 1. Compilers vectorise sixteen independent sums,
 * and the baseline instructions keep up with the memory. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <math.h>

enum {
    LANES = 16,
    THREAD_WORK = 1 << 16, /* elements below which one thread is faster */
    TASK_WORK = 1 << 12,   /* elements of a task, at least */
    PART = 1 << 16,        /* elements after which a long row asks for interrupts; whole LANES */
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

/* Adds n magnitudes to the sums, from the first sum on. */
static void add_magnitudes(const float *x, size_t n, float sums[LANES]) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            sums[j] += fabsf(x[i + j]);
    for (size_t j = 0; i + j < n; j++)
        sums[j] += fabsf(x[i + j]);
}

static float sum_row(const float *x, size_t n, bitops_stop *stop) {
    float sums[LANES] = {0};
    for (size_t i = 0; i < n; i += PART) {
        if (i && bitops_stopped(stop))
            break;
        add_magnitudes(x + i, min_size(n - i, PART), sums);
    }
    return sum_lanes(sums, min_size(n, LANES));
}

void bitops_mean_magnitude(const float *x, size_t rows, size_t n, float *mean_out,
                           bitops_stop *stop, int n_threads) {
    const size_t share = max_size(TASK_WORK / max_size(n, 1), 1);
    BITOPS_PARALLEL_FOR(rows * n < THREAD_WORK ? 1 : n_threads, schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t begin = (size_t)task * share, end = min_size(begin + share, rows);
        for (size_t row = begin; row < end; row++)
            mean_out[row] = n ? sum_row(x + row * n, n, stop) / (float)n : 0;
    }
}
