/* lane_sums.h: sums with rows of x in lanes (lanes.c), for drivers that do more than store them. */
#ifndef BITOPS_LANE_SUMS_H
#define BITOPS_LANE_SUMS_H

#include "bitops.h"

enum {
    LANE_COLUMNS = 1024, /* whose sums take 128 KiB; of uint8 with int32 beside them 384 KiB */
    LANE_OUTPUTS = 128,  /* outputs turned at once */
};

/* The scratch memory of a thread. */
typedef struct lane_scratch {
    char *tables, *block, *outputs, *sums;
    uint64_t *words;
    int32_t *wide; /* uint8 only */
} lane_scratch;

/* Rows [i, i + m), as many as there are lanes, or fewer; columns [j, j + n), up to LANE_COLUMNS. */
typedef struct lane_part {
    size_t i, m, j, n;
    int has_words; /* the scratch memory has the words of these columns already */
} lane_part;

static inline size_t lanes_of(const bitops_mixed_args *args) {
    return args->is_float ? BITOPS_LANES_F32 : BITOPS_LANES_U8;
}

/* That of a thread in the workspace of bitops_lanes_workspace_size. */
lane_scratch bitops_lane_scratch(const bitops_mixed_args *args, void *workspace, size_t thread);

/* Whether the words of all k of some columns stay in the scratch memory. */
int bitops_lanes_keep_words(const bitops_mixed_args *args);

/* Sums the rows of x over all k, for the columns of a part. */
void bitops_lane_sums(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *part,
                      const lane_scratch *scratch);

/* Turns the sums of columns [col, col + n) of a part, up to LANE_OUTPUTS, into scaled outputs; its
 * rows are LANE_OUTPUTS apart. */
const float *bitops_lane_outputs(const bitops_isa *isa, const bitops_mixed_args *args,
                                 const lane_part *part, size_t col, size_t n,
                                 const lane_scratch *scratch);

/* The same for all columns of a part, once, in the place of their sums: output (row, col) is entry
 * lanes_of(args) * c + LANE_OUTPUTS * row + col - c, c being col rounded down to LANE_OUTPUTS. */
const float *bitops_lane_rows(const bitops_isa *isa, const bitops_mixed_args *args,
                              const lane_part *part, const lane_scratch *scratch);

#endif
