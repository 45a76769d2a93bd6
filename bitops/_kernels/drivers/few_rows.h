/* few_rows.h: the parts of gemm.c for few rows of a. */
#ifndef BITOPS_DRIVERS_FEW_ROWS_H
#define BITOPS_DRIVERS_FEW_ROWS_H

#include "bitops.h"

/* BITOPS_PLAIN_ROWS and BITOPS_FRESH_PANELS of choice.h; no workspace. */
void bitops_plain_rows(const bitops_isa *isa, const bitops_gemm_args *args, int threads);
void bitops_fresh_panels(const bitops_isa *isa, const bitops_gemm_args *args, int threads);

#endif
