/* mixed.c: chooses how numbers are multiplied by +-1 weights: by planes.c, lanes.c or lookup.c; and
 * how images of codes are convolved with them: by tile_conv.c or tap_tables.c. */
#include "drivers/mixed.h"
#include "bitops.h"
#include "drivers/lane_sums.h"
#include "drivers/scale.h"
#include "drivers/sizes.h"

#include <string.h>

/* Bits up to which planes are faster than rows in lanes that these fill by half; measured:
 * README.md. */
enum { LANE_PLANES = 4 };

typedef enum way { PLANES, LOOKUP, LANES } way;

static way choose(const bitops_isa *isa, const bitops_mixed_args *args) {
    if (bitops_tiles_are_faster(isa, args))
        return LANES;
    const int small = bitops_numbers_are_small(isa, args);
    const int lanes = !small && bitops_lanes_are_faster(isa, args);
    const int full = lanes && (args->x_turned || 2 * args->m >= BITOPS_LANES_U8);
    const int most = small ? FEW_PLANES : full ? LANE_PLANES : 8;
    if (bitops_planes_are_faster(isa, args) && args->bits <= most)
        return PLANES;
    return lanes ? LANES : LOOKUP;
}

/* The outputs of an empty k. */
static void store_zeros(const bitops_isa *isa, const bitops_mixed_args *args) {
    memset(args->c, 0, args->m * args->n * sizeof(float));
    for (size_t i = 0; i < args->m; i++)
        scale_sums(isa, args, (float *)args->c + i * args->n, 0, args->n);
}

size_t bitops_surplus_size(const bitops_mixed_args *args) {
    if (args->zero == 0 || args->is_float)
        return 0;
    return round_up(args->n * (sizeof(int64_t) + sizeof(int32_t)), 64);
}

void bitops_find_surplus(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                         bitops_mixed_args *own) {
    const size_t k_words = bitops_words(args->k);
    const size_t together = args->ldw == k_words ? args->n : 1; /* rows that lie side by side */
    int64_t *counts = workspace;
    int32_t *surplus = (int32_t *)(counts + args->n);
    for (size_t j = 0; j < args->n; j += together)
        isa->popcount(args->w + j * args->ldw, together, k_words, counts + j);
    for (size_t j = 0; j < args->n; j++)
        surplus[j] = args->zero * (int32_t)(2 * counts[j] - (int64_t)args->k);
    own->surplus = surplus;
}

/* Lookups of small numbers subtract the code of 0 from the numbers, all other ways from sums. */
static int needs_surplus(const bitops_isa *isa, const bitops_mixed_args *args, way way) {
    return way != LOOKUP || !bitops_numbers_are_small(isa, args);
}

/* Planes are the way of few rows, lanes that of many, which needs as much for any number. */
size_t bitops_mixed_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                   int n_threads) {
    if (args->m == 0 || args->n == 0 || args->k == 0)
        return 0;
    const way way = choose(isa, args);
    bitops_mixed_args few = *args;
    size_t size = 0;
    if (way == LANES) {
        size = bitops_lanes_workspace_size(args, n_threads);
        few.m = min_size(args->m, BITOPS_LANES_U8 - 1);
    }
    if (way != LOOKUP && bitops_planes_are_faster(isa, args))
        size = max_size(size, bitops_planes_workspace_size(isa, &few, n_threads));
    return size + (needs_surplus(isa, args, way) ? bitops_surplus_size(args) : 0);
}

/* Rows [first, first + rows) of a product. */
static void multiply(const bitops_isa *isa, const bitops_mixed_args *args, way way, size_t first,
                     size_t rows, void *workspace, int n_threads) {
    bitops_mixed_args own = *args;
    own.x = (const char *)args->x + first * args->k * (args->is_float ? sizeof(float) : 1);
    own.c = (float *)args->c + first * args->n; /* or int32_t */
    own.m = rows;
    if (!needs_surplus(isa, args, way))
        own.surplus = NULL;
    if (way == PLANES)
        bitops_mixed_by_planes(isa, &own, workspace, n_threads);
    else if (way == LANES)
        bitops_mixed_by_lanes(isa, &own, workspace, n_threads);
    else
        bitops_mixed_by_lookup(isa, &own, n_threads);
}

void bitops_mixed(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                  int n_threads) {
    if (args->m == 0 || args->n == 0)
        return;
    if (args->k == 0) {
        store_zeros(isa, args);
        return;
    }
    const way way = choose(isa, args);
    const size_t surplus = needs_surplus(isa, args, way) ? bitops_surplus_size(args) : 0;
    bitops_mixed_args own = *args, last = *args;
    if (surplus)
        bitops_find_surplus(isa, args, workspace, &own);
    workspace = (char *)workspace + surplus;
    /* The last rows may be too few for lanes. */
    last.m = way == LANES && !args->x_turned ? args->m % lanes_of(args) : 0;
    const enum way way_of_last = last.m && last.m < args->m ? choose(isa, &last) : way;
    const size_t others = way_of_last == way ? args->m : args->m - last.m;
    multiply(isa, &own, way, 0, others, workspace, n_threads);
    if (others < args->m)
        multiply(isa, &own, way_of_last, others, last.m, workspace, n_threads);
}

bitops_code_way bitops_choose_code_way(const bitops_isa *isa, const bitops_mixed_args *args,
                                       const bitops_image *windows, int n_threads) {
    if (bitops_tiles_convolve(isa, args, windows, n_threads))
        return BITOPS_CODE_TILES;
    return bitops_taps_share_tables(isa, args, windows, n_threads) ? BITOPS_CODE_TAPS
                                                                   : BITOPS_CODE_PATCHES;
}

size_t bitops_conv_codes_workspace_size(bitops_code_way way, const bitops_isa *isa,
                                        const bitops_mixed_args *args, const bitops_image *windows,
                                        int n_threads) {
    return way == BITOPS_CODE_TILES
               ? bitops_conv_by_tiles_workspace_size(isa, args, windows, n_threads)
               : bitops_conv_by_taps_workspace_size(isa, args, windows, n_threads);
}

void bitops_conv_codes(bitops_code_way way, const bitops_isa *isa, const bitops_mixed_args *args,
                       const bitops_image *windows, uint8_t outside, void *workspace,
                       int n_threads) {
    if (way == BITOPS_CODE_TILES)
        bitops_conv_by_tiles(isa, args, windows, outside, workspace, n_threads);
    else
        bitops_conv_by_taps(isa, args, windows, outside, workspace, n_threads);
}
