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

/* Rows [first, first + rows) of a product. */
static bitops_mixed_args rows_of_product(const bitops_mixed_args *args, size_t first, size_t rows) {
    bitops_mixed_args part = *args;
    part.x = (const char *)args->x + first * args->k * (args->is_float ? sizeof(float) : 1);
    part.c = (float *)args->c + first * args->n; /* or int32_t */
    part.m = rows;
    return part;
}

/* The first rows, those that fill lanes, if these take them and another way the rest; else all. */
static size_t first_rows(const bitops_isa *isa, const bitops_mixed_args *args) {
    const size_t rest = args->m % lanes_of(args), whole = args->m - rest;
    if (args->x_turned || rest == 0 || whole == 0)
        return args->m;
    const bitops_mixed_args first = rows_of_product(args, 0, whole);
    const bitops_mixed_args last = rows_of_product(args, whole, rest);
    const int apart = choose(isa, &first) == LANES && choose(isa, &last) != LANES;
    return apart ? whole : args->m;
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

/* Lookups of small numbers subtract the code of 0 from the numbers, all others from the sums. */
static size_t surplus_size(const bitops_isa *isa, const bitops_mixed_args *args) {
    const int own = choose(isa, args) == LOOKUP && bitops_numbers_are_small(isa, args);
    return own ? 0 : bitops_surplus_size(args);
}

static size_t way_size(const bitops_isa *isa, const bitops_mixed_args *args, int n_threads) {
    const way way = choose(isa, args);
    return way == PLANES  ? bitops_planes_workspace_size(isa, args, n_threads)
           : way == LANES ? bitops_lanes_workspace_size(args, n_threads)
                          : 0;
}

static size_t workspace_size(const bitops_isa *isa, const bitops_mixed_args *args, int n_threads) {
    const size_t whole = first_rows(isa, args);
    const bitops_mixed_args first = rows_of_product(args, 0, whole);
    size_t size = way_size(isa, &first, n_threads);
    if (whole < args->m) {
        const bitops_mixed_args last = rows_of_product(args, whole, args->m - whole);
        size = max_size(size, way_size(isa, &last, n_threads));
    }
    return surplus_size(isa, args) + size;
}

/* Whoever cuts a product has it for fewer rows too, which may go another way: below half of the
 * lanes, or below the least rows of tiles. */
size_t bitops_mixed_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                   int n_threads) {
    if (args->m == 0 || args->n == 0 || args->k == 0)
        return 0;
    size_t size = workspace_size(isa, args, n_threads);
    for (size_t rows = BITOPS_LANES_U8 / 2; rows >= LEAST_TILE_ROWS; rows /= 2) {
        bitops_mixed_args few = *args;
        few.m = min_size(args->m, rows - 1);
        size = max_size(size, workspace_size(isa, &few, n_threads));
    }
    return size;
}

static void multiply(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                     int n_threads) {
    const way way = choose(isa, args);
    if (way == PLANES)
        bitops_mixed_by_planes(isa, args, workspace, n_threads);
    else if (way == LANES)
        bitops_mixed_by_lanes(isa, args, workspace, n_threads);
    else
        bitops_mixed_by_lookup(isa, args, n_threads);
}

void bitops_mixed(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                  int n_threads) {
    if (args->m == 0 || args->n == 0)
        return;
    if (args->k == 0) {
        store_zeros(isa, args);
        return;
    }
    const size_t surplus = surplus_size(isa, args);
    bitops_mixed_args own = *args;
    if (surplus)
        bitops_find_surplus(isa, args, workspace, &own);
    workspace = (char *)workspace + surplus;
    const size_t whole = first_rows(isa, &own);
    const bitops_mixed_args first = rows_of_product(&own, 0, whole);
    multiply(isa, &first, workspace, n_threads);
    if (whole < args->m) {
        const bitops_mixed_args last = rows_of_product(&own, whole, args->m - whole);
        multiply(isa, &last, workspace, n_threads);
    }
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
