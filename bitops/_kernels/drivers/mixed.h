/* mixed.h: what the two ways to multiply numbers by weights, mixed.c and planes.c, share. */
#ifndef BITOPS_MIXED_H
#define BITOPS_MIXED_H

#include "bitops.h"
#include "drivers/sizes.h"

/* Scales n sums of one row at column col by alpha and bias, in place; nothing if both are NULL. */
void bitops_mixed_scale(const bitops_mixed_args *args, void *c, size_t col, size_t n);

/* Whether planes are faster than the lookup; scratch memory in bytes, aligned to 64; the product.
 */
int bitops_planes_are_faster(const bitops_isa *isa, const bitops_mixed_args *args);
size_t bitops_planes_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                    int n_threads);
void bitops_planes(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                   int n_threads);

#endif
