/* mixed.c: chooses how numbers are multiplied by +-1 weights: by planes.c, lanes.c or lookup.c. */
#include "drivers/mixed.h"
#include "bitops.h"
#include "drivers/scale.h"

#include <string.h>

/* The outputs of an empty k. */
static void store_zeros(const bitops_mixed_args *args) {
    memset(args->c, 0, args->m * args->n * sizeof(float));
    for (size_t i = 0; i < args->m; i++)
        scale_sums(args, (float *)args->c + i * args->n, 0, args->n);
}

size_t bitops_mixed_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                   int n_threads) {
    if (args->m == 0 || args->n == 0 || args->k == 0)
        return 0;
    if (bitops_planes_are_faster(isa, args))
        return bitops_planes_workspace_size(isa, args, n_threads);
    return bitops_lanes_are_faster(isa, args) ? bitops_lanes_workspace_size(args, n_threads) : 0;
}

void bitops_mixed(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                  int n_threads) {
    if (args->m == 0 || args->n == 0)
        return;
    if (args->k == 0)
        store_zeros(args);
    else if (bitops_planes_are_faster(isa, args))
        bitops_mixed_by_planes(isa, args, workspace, n_threads);
    else if (bitops_lanes_are_faster(isa, args))
        bitops_mixed_by_lanes(isa, args, workspace, n_threads);
    else
        bitops_mixed_by_lookup(isa, args, n_threads);
}
