/* mixed.h: the ways to multiply numbers by +-1 weights, between which mixed.c chooses. */
#ifndef BITOPS_MIXED_H
#define BITOPS_MIXED_H

#include "bitops.h"

/* planes.c: for uint8 of few bits. The workspace, in bytes, is aligned to 64. */
int bitops_planes_are_faster(const bitops_isa *isa, const bitops_mixed_args *args);
size_t bitops_planes_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                    int n_threads);
void bitops_mixed_by_planes(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                            int n_threads);

/* lanes.c: for many rows, and a turned x; k > 0. The workspace is aligned to 64. */
int bitops_lanes_are_faster(const bitops_isa *isa, const bitops_mixed_args *args);
size_t bitops_lanes_workspace_size(const bitops_mixed_args *args, int n_threads);
void bitops_mixed_by_lanes(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                           int n_threads);

/* lookup.c: for everything else; k > 0. */
void bitops_mixed_by_lookup(const bitops_isa *isa, const bitops_mixed_args *args, int n_threads);

#endif
