/* mixed.c: chooses how numbers are multiplied by +-1 weights: by planes.c or by lookup.c. */
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
    if (args->m == 0 || args->n == 0 || !bitops_planes_are_faster(isa, args))
        return 0;
    return bitops_planes_workspace_size(isa, args, n_threads);
}

void bitops_mixed(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                  int n_threads) {
    if (args->m == 0 || args->n == 0)
        return;
    if (args->k == 0)
        store_zeros(args);
    else if (bitops_planes_are_faster(isa, args))
        bitops_mixed_by_planes(isa, args, workspace, n_threads);
    else
        bitops_mixed_by_lookup(isa, args, n_threads);
}
