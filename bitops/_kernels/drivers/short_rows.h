/* short_rows.h: the product of short rows, for gemm.c and topk.c. */
#ifndef BITOPS_SHORT_ROWS_H
#define BITOPS_SHORT_ROWS_H

#include "bitops.h"
#include "drivers/sizes.h"

enum { SHORT_PANEL_WORDS = 1 << 11 }; /* panels of 16 KiB, for the first-level cache */

/* Columns whose panels fit. */
static inline size_t short_columns(const bitops_isa *isa, size_t k_words) {
    return max_size(SHORT_PANEL_WORDS / k_words / isa->nr, 1) * isa->nr;
}

/* The product of args, which has no image; needs no workspace. */
void bitops_short_rows(const bitops_isa *isa, const bitops_gemm_args *args, int threads);

#endif
