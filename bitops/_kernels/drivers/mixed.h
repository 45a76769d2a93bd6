/* mixed.h: the ways to multiply numbers by +-1 weights, between which mixed.c chooses. */
#ifndef BITOPS_MIXED_H
#define BITOPS_MIXED_H

#include "bitops.h"
#include "runtime/parallel.h"

enum {
    FEW_PLANES = 1,         /* bits up to which planes are faster than lookups of small numbers */
    LEAST_TILE_COLUMNS = 8, /* fewer do not pay for tiles; measured, as the next two: README.md */
    LEAST_TILE_ROWS = 8,
    LEAST_SMALL_ROWS = 12, /* where lookups of small numbers are the other way */
    MIXED_WORK = 1 << 19,  /* products below which one thread is faster */
};

/* Threads that share the work out. It changes with the load of the machine: what is decided by it
 * is decided once. */
static inline int bitops_mixed_threads(const bitops_mixed_args *args, int n_threads) {
    const double work = (double)args->m * (double)args->n * (double)args->k;
    return bitops_share(work, MIXED_WORK, n_threads);
}

/* planes.c: for uint8 of few bits. The workspace, in bytes, is aligned to 64. */
int bitops_planes_are_faster(const bitops_isa *isa, const bitops_mixed_args *args);
size_t bitops_planes_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                    int n_threads);
void bitops_mixed_by_planes(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                            int n_threads);

/* lanes.c: for all but a few rows, and a turned x; k > 0. With tiles, where the ISA has them. The
 * workspace is aligned to 64. */
int bitops_lanes_are_faster(const bitops_isa *isa, const bitops_mixed_args *args);
int bitops_tiles_are_faster(const bitops_isa *isa, const bitops_mixed_args *args);
size_t bitops_lanes_workspace_size(const bitops_mixed_args *args, int n_threads);
void bitops_mixed_by_lanes(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                           int n_threads);

/* lookup.c: for everything else; k > 0. Whether numbers are so small that sums of four fit a byte,
 * and the ISA looks up bytes. */
int bitops_numbers_are_small(const bitops_isa *isa, const bitops_mixed_args *args);
int bitops_largest_number(const bitops_mixed_args *args); /* in magnitude, that x - zero can have */
void bitops_mixed_by_lookup(const bitops_isa *isa, const bitops_mixed_args *args, int n_threads);

/* tap_tables.c and tile_conv.c: as bitops_conv_codes, which chooses between them. */
int bitops_taps_share_tables(const bitops_isa *isa, const bitops_mixed_args *args,
                             const bitops_image *windows, int n_threads);
size_t bitops_conv_by_taps_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                          const bitops_image *windows, int n_threads);
void bitops_conv_by_taps(const bitops_isa *isa, const bitops_mixed_args *args,
                         const bitops_image *windows, uint8_t outside, void *workspace,
                         int n_threads);
int bitops_tiles_convolve(const bitops_isa *isa, const bitops_mixed_args *args,
                          const bitops_image *windows, int n_threads);
size_t bitops_conv_by_tiles_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                           const bitops_image *windows, int n_threads);
void bitops_conv_by_tiles(const bitops_isa *isa, const bitops_mixed_args *args,
                          const bitops_image *windows, uint8_t outside, void *workspace,
                          int n_threads);

/* mixed.c: what codes of numbers add to the sums of each column, in a workspace aligned to 64. */
size_t bitops_surplus_size(const bitops_mixed_args *args);
void bitops_find_surplus(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                         bitops_mixed_args *own);

/* lanes.c: out[j][i] = in[i][j]. */
void bitops_turn_u8(const uint8_t *in, size_t ld_in, size_t rows, size_t columns, uint8_t *out,
                    size_t ld_out);

#endif
