/* sparse_rows.h: searches for rows of a with few 1 bits, for topk.c. */
#ifndef BITOPS_SPARSE_ROWS_H
#define BITOPS_SPARSE_ROWS_H

#include "bitops.h"

enum { SPARSE_LIST = 256 }; /* numbers that list a row: how many 1 bits, and which */

/* Lists the 1 bits of m rows. */
void bitops_list_ones(const uint64_t *a, size_t lda, size_t m, size_t k_words, uint16_t *lists_out);

/* Counts what m rows have in common with n <= BITOPS_LINE_COLUMNS columns, and stores at (row,
 * col). The kind is TOPK, and the metric depends on counts. */
void bitops_multiply_lines(const bitops_isa *isa, const uint16_t *lists, size_t m,
                           const uint64_t *lines, size_t n, size_t row, size_t col,
                           const bitops_store *store);

#endif
