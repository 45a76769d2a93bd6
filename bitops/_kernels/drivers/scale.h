/* scale.h: the scales of a product of numbers with +-1 weights, applied to its sums in place. */
#ifndef BITOPS_SCALE_H
#define BITOPS_SCALE_H

#include "bitops.h"
#include "drivers/sizes.h"
#include "isa/shared/target.h"

#include <string.h>

enum { SCALE_COLUMNS = 64 }; /* of a chunk, small enough to stay in registers and the cache */

/* Inlined with a constant n for whole chunks, whose loops then have no rests. */
BITOPS_INLINE void scale_chunk(const bitops_mixed_args *args, void *c, size_t col, size_t n) {
    float t[SCALE_COLUMNS];
    if (args->is_float)
        for (size_t j = 0; j < n; j++)
            t[j] = ((const float *)c)[j];
    else if (args->alpha)
        for (size_t j = 0; j < n; j++)
            t[j] = (float)((const int32_t *)c)[j] * args->alpha[col + j];
    else
        for (size_t j = 0; j < n; j++)
            t[j] = (float)((const int32_t *)c)[j];
    if (args->alpha && args->is_float)
        for (size_t j = 0; j < n; j++)
            t[j] *= args->alpha[col + j];
    if (args->bias)
        for (size_t j = 0; j < n; j++)
            t[j] += args->bias[col + j];
    memcpy(c, t, n * sizeof *t);
}

/* n sums of one row, from column col on, times alpha, plus bias, each step rounded to float32;
 * nothing if both are NULL. The surplus is subtracted first. int32 sums become float32. */
static inline void scale_sums(const bitops_mixed_args *args, void *c, size_t col, size_t n) {
    if (args->surplus)
        for (size_t j = 0; j < n; j++)
            ((int32_t *)c)[j] -= args->surplus[col + j];
    if (!args->alpha && !args->bias)
        return;
    char *chunk = c;
    size_t j = 0;
    for (; j + SCALE_COLUMNS <= n; j += SCALE_COLUMNS, chunk += SCALE_COLUMNS * sizeof(float))
        scale_chunk(args, chunk, col + j, SCALE_COLUMNS);
    if (j < n)
        scale_chunk(args, chunk, col + j, n - j);
}

#endif
