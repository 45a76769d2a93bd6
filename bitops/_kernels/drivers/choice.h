/* choice.h: which of its ways a product takes. All thresholds are measured, see README.md. */
#ifndef BITOPS_CHOICE_H
#define BITOPS_CHOICE_H

#include "bitops.h"

typedef enum bitops_way {
    BITOPS_PLAIN_ROWS,   /* gemm_rows on w as it lies */
    BITOPS_SHORT_ROWS,   /* gemm_short on panels, which are made in the first-level cache */
    BITOPS_SPARSE_ROWS,  /* lines of turned columns, for searches (sparse_rows.c) */
    BITOPS_PANELS,       /* gemm_panel, or gemm_short for images */
    BITOPS_FRESH_PANELS, /* gemm_panel on panels, each made on the stack just before */
} bitops_way;

enum {
    BITOPS_FRESH_ROWS = 32,   /* rows of a for which panels are made on the stack, at most */
    BITOPS_MEDIUM_WORDS = 32, /* rows of w that are ordered for fewer rows of a: up to so long */
    FRESH_WORDS = 1 << 16,    /* panels longer than this would be cut into too many parts */
    LONG_ROW_WORDS = 1 << 8,  /* rows of w longer than this have long_rows */
    SEARCH_ROWS = 8,          /* searches read w as it lies for up to so many rows of a, */
    SEARCH_WORDS = 16,        /* if rows are not shorter */
    SOME_COLUMNS = 16, /* of long rows, for which twice as many rows of a read w as it lies */
    DENSE_ROWS = 4,    /* short rows of a that are multiplied with w as it lies, at most; twice as
                          many of one or two words */
};

/* Whether so few columns would waste most of a panel, which is multiplied in whole vectors. */
static inline int is_narrow(const bitops_isa *isa, size_t n) {
    return n <= isa->few_columns;
}

/* Whether w is read as it lies for any number of rows of a: panels would be mostly empty. Shorter
 * rows, of half as many columns, only where they have no kernel of their own. */
static inline int is_always_plain(const bitops_isa *isa, const bitops_gemm_args *args) {
    return is_narrow(isa, args->n) && (args->k_words > BITOPS_MEDIUM_WORDS ||
                                       (!isa->gemm_short && is_narrow(isa, 2 * args->n)));
}

/* Whether rows of so many words have a kernel of their own. */
static inline int rows_are_short(const bitops_isa *isa, size_t k_words) {
    return isa->gemm_short && k_words > 0 && k_words <= BITOPS_SHORT_WORDS;
}

/* Whether w of short rows is read as it lies, where gemm_panel needs many rows of a to be faster:
 * twice as many if panels are yet to be made, and more columns than half a panel, or a whole one
 * of one or two words. */
static inline int are_short_plain(const bitops_isa *isa, const bitops_gemm_args *args) {
    if (!isa->short_rows || args->k_words == 0 || args->k_words > BITOPS_SHORT_WORDS)
        return 0;
    return args->m <= (args->panels ? isa->short_rows : 2 * isa->short_rows) ||
           args->n <= (args->k_words <= 2 ? isa->nr : isa->nr / 2);
}

/* Whether they fill vectors, so that gemm_rows reads them as one stream. */
static inline int rows_are_dense(const bitops_gemm_args *args) {
    return args->ldw == args->k_words && (args->k_words & (args->k_words - 1)) == 0;
}

/* How many short rows of a read w as it lies sooner than as panels, which are yet to be made if w
 * is not prepacked. */
static inline size_t most_dense_rows(const bitops_gemm_args *args) {
    if (!rows_are_dense(args))
        return 0;
    if (!args->panels)
        return args->k_words <= 2 ? 2 * DENSE_ROWS : DENSE_ROWS;
    return args->k_words == 1 ? 2 * DENSE_ROWS : args->k_words == 2 ? 2 : 1;
}

/* For plain rows that gemm_short does not take. */
static inline bitops_way choose_for_plain(const bitops_isa *isa, const bitops_gemm_args *args) {
    const size_t k_words = args->k_words;
    const int is_medium =
        k_words > BITOPS_SHORT_WORDS && k_words <= BITOPS_MEDIUM_WORDS && !is_narrow(isa, args->n);
    const int is_long = k_words > BITOPS_MEDIUM_WORDS;
    const size_t few = is_long && args->n <= SOME_COLUMNS ? 2 * isa->few_rows : isa->few_rows;
    if (is_always_plain(isa, args) || args->m <= (is_medium ? isa->medium_rows : few) ||
        (k_words > LONG_ROW_WORDS && args->m <= isa->long_rows))
        return BITOPS_PLAIN_ROWS;
    return args->m <= BITOPS_FRESH_ROWS && k_words * isa->nr <= FRESH_WORDS ? BITOPS_FRESH_PANELS
                                                                            : BITOPS_PANELS;
}

/* For products. */
static inline bitops_way choose_way(const bitops_isa *isa, const bitops_gemm_args *args) {
    if (args->image || !args->w)
        return !args->image && rows_are_short(isa, args->k_words) ? BITOPS_SHORT_ROWS
                                                                  : BITOPS_PANELS;
    if (rows_are_short(isa, args->k_words))
        return args->m <= most_dense_rows(args) ? BITOPS_PLAIN_ROWS : BITOPS_SHORT_ROWS;
    if (are_short_plain(isa, args))
        return BITOPS_PLAIN_ROWS;
    if (!args->panels)
        return choose_for_plain(isa, args);
    const int is_plain = args->m == 1 || is_always_plain(isa, args) ||
                         (args->m <= isa->few_rows && is_narrow(isa, args->n));
    return is_plain ? BITOPS_PLAIN_ROWS : BITOPS_PANELS;
}

/* For searches, which make a panel again for each block of rows but write no outputs. */
static inline bitops_way choose_search_way(const bitops_isa *isa, const bitops_gemm_args *args) {
    const bitops_way way = choose_way(isa, args);
    if (way == BITOPS_FRESH_PANELS)
        return BITOPS_PANELS;
    if (way != BITOPS_PLAIN_ROWS || args->m == 1 || are_short_plain(isa, args))
        return way;
    if (rows_are_short(isa, args->k_words))
        return BITOPS_SHORT_ROWS;
    return args->m <= SEARCH_ROWS && args->k_words >= SEARCH_WORDS ? way : BITOPS_PANELS;
}

#endif
