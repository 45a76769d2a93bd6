/* choice.h: which of its ways a product takes. All thresholds are measured, see README.md. */
#ifndef BITOPS_CHOICE_H
#define BITOPS_CHOICE_H

#include "bitops.h"
#include "drivers/sizes.h"

typedef enum bitops_way {
    BITOPS_PLAIN_ROWS, /* gemm_rows on w as it lies */
    BITOPS_SHORT_ROWS, /* gemm_short on panels, which are made in the first-level cache */
    BITOPS_PANELS,     /* gemm_panel, or gemm_short for images */
} bitops_way;

enum {
    FEW_ROWS = 16,       /* up to here, making panels of w costs more than they save */
    VECTOR_COLUMNS = 16, /* of a panel, which is always multiplied in whole vectors; two rows of w
                          * as they lie cost as much as four of a panel */
};

/* Whether rows of so many words have a kernel of their own. */
static inline int rows_are_short(const bitops_isa *isa, size_t k_words) {
    return isa->gemm_short && k_words > 0 && k_words <= BITOPS_SHORT_WORDS;
}

/* Whether they fill vectors, so that gemm_rows reads them as one stream. */
static inline int rows_are_dense(const bitops_gemm_args *args) {
    return args->ldw == args->k_words && (args->k_words & (args->k_words - 1)) == 0;
}

static inline bitops_way choose_way(const bitops_isa *isa, const bitops_gemm_args *args) {
    if (args->image)
        return BITOPS_PANELS;
    if (rows_are_short(isa, args->k_words))
        return args->w && args->m == 1 && rows_are_dense(args) ? BITOPS_PLAIN_ROWS
                                                               : BITOPS_SHORT_ROWS;
    if (!args->w)
        return BITOPS_PANELS;
    if (!args->panels)
        return args->m <= FEW_ROWS ? BITOPS_PLAIN_ROWS : BITOPS_PANELS;
    return args->m == 1 || (args->m <= FEW_ROWS && 2 * args->n <= VECTOR_COLUMNS)
               ? BITOPS_PLAIN_ROWS
               : BITOPS_PANELS;
}

#endif
