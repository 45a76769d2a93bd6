/* deal.h: two halves of an array of bytes dealt out in turn, a loop that compilers vectorise. */
#ifndef BITOPS_DEAL_H
#define BITOPS_DEAL_H

#include "isa/shared/target.h"

#include <stdint.h>

/* n is a constant, and even; `out` is no part of `in`. */
BITOPS_INLINE void deal(const int n, const uint8_t *restrict in, uint8_t *restrict out) {
    for (int i = 0; i < n / 2; i++) {
        out[2 * i] = in[i];
        out[2 * i + 1] = in[n / 2 + i];
    }
}

#endif
