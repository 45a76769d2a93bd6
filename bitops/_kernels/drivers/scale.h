/* scale.h: the scales of a product of numbers with +-1 weights, applied to its sums in place. */
#ifndef BITOPS_SCALE_H
#define BITOPS_SCALE_H

#include "bitops.h"
#include "drivers/sizes.h"

#include <string.h>

enum { SCALE_COLUMNS = 64 }; /* of a chunk, small enough to stay in registers and the cache */

static inline void scale_chunk(const bitops_mixed_args *args, void *c, size_t col, size_t n) {
    float t[SCALE_COLUMNS];
    if (args->is_float)
        for (size_t j = 0; j < n; j++)
            t[j] = ((const float *)c)[j];
    else
        for (size_t j = 0; j < n; j++)
            t[j] = (float)((const int32_t *)c)[j];
    if (args->alpha)
        for (size_t j = 0; j < n; j++)
            t[j] *= args->alpha[col + j];
    if (args->bias)
        for (size_t j = 0; j < n; j++)
            t[j] += args->bias[col + j];
    memcpy(c, t, n * sizeof *t);
}

/* n sums of one row, from column col on, times alpha, plus bias, each step rounded to float32;
 * nothing if both are NULL. int32 sums become float32. */
static inline void scale_sums(const bitops_mixed_args *args, void *c, size_t col, size_t n) {
    if (args->alpha || args->bias)
        for (size_t j = 0; j < n; j += SCALE_COLUMNS)
            scale_chunk(args, (char *)c + j * sizeof(float), col + j,
                        min_size(SCALE_COLUMNS, n - j));
}

#endif
