/* means.h: means of windows of float32 images, channel by channel.
 *
 * The order of the additions is part of the result: the taps of a window, row by row, starting from
 * 0. Some channels stay in vector registers over all taps, so that a mean is written once. This is
 * included within the target region of an ISA, below
 *
 *   typedef ... float_vector;
 */
#ifndef BITOPS_MEANS_H
#define BITOPS_MEANS_H

#include "operations.h"
#include "isa/shared/target.h"

#include <string.h>

enum { MEAN_LANES = sizeof(float_vector) / sizeof(float), MEAN_VECTORS = 4 };

/* Means of `vectors` vectors of channels of one window; a constant. */
BITOPS_INLINE void mean_vectors(const bitops_windows *w, const float *x, const int vectors,
                                float *mean_out) {
    float_vector sums[MEAN_VECTORS];
    BITOPS_UNROLL
    for (int v = 0; v < vectors; v++)
        sums[v] = (float_vector){0};
    for (size_t row = 0; row < w->rows; row++)
        for (size_t column = 0; column < w->columns; column++) {
            const float *tap = x + row * w->row_step + column * w->column_step;
            BITOPS_UNROLL
            for (int v = 0; v < vectors; v++) {
                float_vector numbers;
                memcpy(&numbers, tap + v * MEAN_LANES, sizeof numbers);
                sums[v] += numbers;
            }
        }
    /* A division takes as long as several taps. By a power of two it may be a product. */
    BITOPS_UNROLL
    for (int v = 0; v < vectors; v++) {
        const float_vector means = w->factor != 0 ? sums[v] * w->factor : sums[v] / w->divisor;
        memcpy(mean_out + v * MEAN_LANES, &means, sizeof means);
    }
}

/* Means of n channels of one window, fewer than a vector. */
BITOPS_INLINE void mean_few(const bitops_windows *w, const float *x, size_t n, float *mean_out) {
    float sums[MEAN_LANES] = {0};
    for (size_t row = 0; row < w->rows; row++)
        for (size_t column = 0; column < w->columns; column++) {
            const float *tap = x + row * w->row_step + column * w->column_step;
            for (size_t j = 0; j < n; j++)
                sums[j] += tap[j];
        }
    for (size_t j = 0; j < n; j++)
        mean_out[j] = sums[j] / w->divisor;
}

BITOPS_INLINE void mean_windows(const bitops_windows *windows, float *mean_out) {
    const bitops_windows w = *windows; /* means cannot change it */
    const float *x = w.x;
    for (size_t i = 0; i < w.outputs; i++, x += w.output_step, mean_out += w.channels) {
        size_t j = 0;
        for (; j + MEAN_VECTORS * MEAN_LANES <= w.channels; j += MEAN_VECTORS * MEAN_LANES)
            mean_vectors(&w, x + j, MEAN_VECTORS, mean_out + j);
        for (; j + MEAN_LANES <= w.channels; j += MEAN_LANES)
            mean_vectors(&w, x + j, 1, mean_out + j);
        if (j == w.channels)
            continue;
        if (j) /* some channels are taken twice */
            mean_vectors(&w, x + w.channels - MEAN_LANES, 1, mean_out + w.channels - MEAN_LANES);
        else
            mean_few(&w, x, w.channels, mean_out);
    }
}

#endif
