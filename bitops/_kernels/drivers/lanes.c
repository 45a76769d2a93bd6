/* lanes.c: numbers times +-1 weights with rows of x in lanes, for all but a few rows: blocks,
 * tables, threads; and of uint8 by tiles, where the ISA has them.
 *
 *   for each 32 or 64 rows x group of columns               shared out to threads
 *     for each 64 elements of k
 *       turn them, so that the rows are side by side, and make their tables
 *       for each column: add the entries that its bits select to its line of sums
 *     turn the sums into outputs, a chunk of columns at a time, scale and copy them
 *
 * Tables stay in the first-level cache while the columns pass, sums in the second-level cache. The
 * words of w that the columns need next are copied side by side, 8 words of each row of w at a
 * time: read in place, from rows whose distance is a power of two, they would displace the tables.
 * An output of float32 is summed in the order of k, as in lookup.c, to the same bits.
 *
 * Tiles take 512 elements of k at a time, without tables, and leave sums as rows. */
#include "drivers/lane_sums.h"
#include "bitops.h"
#include "drivers/deal.h"
#include "drivers/mixed.h"
#include "drivers/scale.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    BITS = BITOPS_LANES_BITS,
    TILE_BITS = BITOPS_TILE_WORDS * BITOPS_TILE_BITS, /* of k, summed by tiles at once */
    GROUP_WORDS = LINE_WORDS,                         /* of each row of w, copied at once */
    LEAST_COLUMNS = 64,                               /* of a task: fewer make tables too often */
    FEW_ROW_COLUMNS = 256,                            /* the same, where lanes are empty */
    WIDE_BLOCKS = 2,                                  /* blocks of k whose sums fit int16 */
    OUTPUT_BYTES = LANE_OUTPUTS * BITOPS_LANES_U8 * 4,
    SQUARE = 16,                             /* bytes a side that are turned at once */
    AHEAD = 4,                               /* rows of outputs that are asked for */
    BLOCK_BYTES = BITS * BITOPS_LANES_BYTES, /* of x: 64 lines */
};

_Static_assert(BITOPS_TILE_ROWS *TILE_BITS <= BITOPS_LANES_TABLE_BYTES, "rows lie in tables");
_Static_assert((int)BITOPS_TILE_ROWS == (int)BITOPS_LANES_U8, "a part has the rows of a tile");
_Static_assert((int)BITOPS_TILE_COLUMNS == (int)LANE_OUTPUTS, "outputs are scaled where they lie");

static int uses_tiles(const bitops_isa *isa, const bitops_mixed_args *args) {
    return isa->tiles_u8 && !args->is_float;
}

int bitops_lanes_are_faster(const bitops_isa *isa, const bitops_mixed_args *args) {
    const size_t least = args->is_float ? isa->lanes_rows_f32 : isa->lanes_rows_u8;
    const size_t looked_up = round_up(args->n, args->is_float ? 16 : 32); /* whole tiles */
    const size_t rows = min_size(args->m, lanes_of(args));
    return args->x_turned || (args->k >= isa->lanes_bits &&
                              rows * looked_up > least * (args->n + isa->lanes_columns));
}

int bitops_tiles_are_faster(const bitops_isa *isa, const bitops_mixed_args *args) {
    const size_t least = bitops_numbers_are_small(isa, args) ? LEAST_SMALL_ROWS : LEAST_TILE_ROWS;
    return uses_tiles(isa, args) && args->bits > FEW_PLANES && args->m >= least &&
           args->n >= LEAST_TILE_COLUMNS && args->k > 2 * BITOPS_TILE_BITS;
}

/* Columns of a task: few enough for every thread to have work, but enough to pay for the tables. */
static size_t group_columns(const bitops_mixed_args *args, int threads) {
    const size_t blocks = ceil_div(args->m, lanes_of(args));
    const size_t share = ceil_div(args->n * blocks, 4 * (size_t)threads);
    const size_t most = min_size(args->n, LANE_COLUMNS);
    const size_t least = args->m < lanes_of(args) ? FEW_ROW_COLUMNS : LEAST_COLUMNS;
    return threads == 1 ? most : min_size(most, max_size(share, least));
}

/* Tiles write whole blocks of sums, and outputs of whole blocks take their place. */
static size_t scratch_columns(const bitops_mixed_args *args) {
    return round_up(min_size(args->n, LANE_COLUMNS), LANE_OUTPUTS);
}

/* Distance of the copied words of a column: not a power of two. */
static size_t words_stride(const bitops_mixed_args *args) {
    return scratch_columns(args) + LINE_WORDS;
}

static size_t scratch_size(const bitops_mixed_args *args) {
    const size_t wide = args->is_float ? 0 : BITOPS_LANES_U8 * sizeof(int32_t);
    return BITOPS_LANES_TABLE_BYTES + BLOCK_BYTES + OUTPUT_BYTES +
           GROUP_WORDS * words_stride(args) * sizeof(uint64_t) +
           scratch_columns(args) * (BITOPS_LANES_BYTES + wide);
}

lane_scratch bitops_lane_scratch(const bitops_mixed_args *args, void *workspace, size_t thread) {
    char *start = (char *)workspace + thread * scratch_size(args);
    lane_scratch s = {.tables = start, .block = start + BITOPS_LANES_TABLE_BYTES};
    s.outputs = s.block + BLOCK_BYTES;
    s.words = (uint64_t *)(s.outputs + OUTPUT_BYTES);
    s.sums = (char *)(s.words + GROUP_WORDS * words_stride(args));
    s.wide = (int32_t *)(s.sums + scratch_columns(args) * BITOPS_LANES_BYTES);
    return s;
}

size_t bitops_lanes_workspace_size(const bitops_mixed_args *args, int n_threads) {
    return (size_t)n_threads * scratch_size(args);
}

/* Turns 16 x 16 bytes: each time that they are dealt out, the bits of a place, 4 of its row and 4
 * of its column, move up by one; after four times, rows and columns have changed places. */
static void turn_square(const uint8_t *in, size_t ld_in, uint8_t *out, size_t ld_out) {
    uint8_t a[SQUARE * SQUARE], b[SQUARE * SQUARE];
    for (size_t r = 0; r < SQUARE; r++)
        memcpy(a + r * SQUARE, in + r * ld_in, SQUARE);
    deal(SQUARE * SQUARE, a, b);
    deal(SQUARE * SQUARE, b, a);
    deal(SQUARE * SQUARE, a, b);
    deal(SQUARE * SQUARE, b, a);
    for (size_t r = 0; r < SQUARE; r++)
        memcpy(out + r * ld_out, a + r * SQUARE, SQUARE);
}

void bitops_turn_u8(const uint8_t *in, size_t ld_in, size_t rows, size_t columns, uint8_t *out,
                    size_t ld_out) {
    const size_t whole_rows = rows / SQUARE * SQUARE, whole_columns = columns / SQUARE * SQUARE;
    for (size_t i = 0; i < whole_rows; i += SQUARE)
        for (size_t j = 0; j < whole_columns; j += SQUARE)
            turn_square(in + i * ld_in + j, ld_in, out + j * ld_out + i, ld_out);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = i < whole_rows ? whole_columns : 0; j < columns; j++)
            out[j * ld_out + i] = in[i * ld_in + j];
}

/* Elements [first, first + bits) of k of the rows of a part, a line for each, zeros for those that
 * do not exist. Where x has such lines, they are read in place. */
static const void *lines_of(const bitops_isa *isa, const bitops_mixed_args *args,
                            const lane_part *p, size_t first, size_t bits, char *block,
                            size_t *ld) {
    const size_t size = args->is_float ? sizeof(float) : 1;
    const char *x = args->x;
    *ld = lanes_of(args);
    if (args->x_turned) {
        x += (first * args->m + p->i) * size;
        if (bits == BITS && p->m == lanes_of(args)) {
            *ld = args->m;
            return x;
        }
    }
    if (bits < BITS || p->m < lanes_of(args))
        memset(block, 0, BITS * lanes_of(args) * size);
    if (args->x_turned)
        for (size_t k = 0; k < bits; k++)
            memcpy(block + k * lanes_of(args) * size, x + k * args->m * size, p->m * size);
    else if (args->is_float)
        isa->turn_32((const float *)args->x + p->i * args->k + first, args->k, p->m, bits, block,
                     lanes_of(args));
    else
        bitops_turn_u8((const uint8_t *)args->x + p->i * args->k + first, args->k, p->m, bits,
                       (uint8_t *)block, lanes_of(args));
    return block;
}

/* Copies GROUP_WORDS words of each row of w, from word `first` on, to a line for each word. */
static void copy_words(const bitops_mixed_args *args, const lane_part *p, size_t first,
                       uint64_t *words) {
    const size_t stride = words_stride(args);
    const size_t n = min_size(GROUP_WORDS, bitops_words(args->k) - first);
    const uint64_t *row = args->w + p->j * args->ldw + first;
    for (size_t j = 0; j < p->n; j++, row += args->ldw)
        for (size_t i = 0; i < n; i++)
            words[i * stride + j] = row[i];
}

/* Block `number` of k. */
static void add_block(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                      size_t number, const lane_scratch *s) {
    const size_t first = number * BITS, bits = min_size(BITS, args->k - first);
    const int last = first + bits == args->k;
    bitops_lanes task = {.tables = s->tables, .n = p->n, .sums = s->sums};
    size_t ld;
    const void *lines = lines_of(isa, args, p, first, bits, s->block, &ld);
    const size_t word = first / BITOPS_WORD_BITS;
    if (first % (GROUP_WORDS * BITOPS_WORD_BITS) == 0 && !p->has_words)
        copy_words(args, p, word, s->words);
    task.w = s->words + word % GROUP_WORDS * words_stride(args);
    task.steps = ceil_div(bits, BITOPS_LANES_STEP_BITS);
    if (args->is_float) {
        task.first = number == 0;
        isa->lanes_tables_f32(lines, ld, s->tables);
        isa->lanes_f32(&task);
    } else {
        task.first = number % WIDE_BLOCKS == 0;
        task.first_wide = number < WIDE_BLOCKS;
        task.wide = last || number % WIDE_BLOCKS == WIDE_BLOCKS - 1 ? s->wide : NULL;
        isa->lanes_tables_u8(lines, ld, s->tables);
        isa->lanes_u8(&task);
    }
}

static void ask_for(const float *c, size_t n) {
    for (size_t j = 0; j < n; j += LINE_WORDS * 2)
        __builtin_prefetch(c + j, 1);
}

/* Orders elements [first, first + bits) of k of the rows of a part for tiles. */
static void order_rows(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                       size_t first, size_t bits, uint8_t *rows_out) {
    const uint8_t *x = args->x;
    if (args->x_turned) {
        bitops_turn_u8(x + first * args->m + p->i, args->m, bits, p->m, rows_out, TILE_BITS);
        isa->tile_rows(rows_out, TILE_BITS, p->m, bits, rows_out, TILE_BITS);
    } else
        isa->tile_rows(x + p->i * args->k + first, args->k, p->m, bits, rows_out, TILE_BITS);
}

/* Brings block `number` of k, of 8 words, into the scratch memory. */
static void prepare_tiles(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                          size_t number, const lane_scratch *s) {
    const size_t first = number * TILE_BITS, bits = min_size(TILE_BITS, args->k - first);
    order_rows(isa, args, p, first, bits, (uint8_t *)s->tables);
    if (!p->has_words)
        copy_words(args, p, first / BITOPS_WORD_BITS, s->words);
}

/* Adds the block to the sums of columns [col, col + n). */
static void add_tiles(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                      size_t number, size_t col, size_t n, int32_t *sums, const lane_scratch *s) {
    static const ptrdiff_t places[BITOPS_TILE_WORDS] = {0, 64, 128, 192, 256, 320, 384, 448};
    const size_t bits = min_size(TILE_BITS, args->k - number * TILE_BITS);
    const bitops_tiles task = {.x = (const uint8_t *)s->tables,
                               .ldx = TILE_BITS,
                               .rows = p->m,
                               .places = places,
                               .w = s->words + col,
                               .stride = words_stride(args),
                               .words = bitops_words(bits),
                               .n = n,
                               .sums = sums,
                               .first = number == 0};
    isa->tiles_u8(&task);
}

/* The last block is only prepared, and added as outputs are made: their sums are in the first-level
 * cache then, and those of a single block never leave it. */
static void sum_tiles(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                      const lane_scratch *s) {
    const size_t last = ceil_div(args->k, TILE_BITS) - 1;
    for (size_t b = 0; b <= last && !bitops_stopped(args->stop); b++) {
        prepare_tiles(isa, args, p, b, s);
        if (b < last)
            add_tiles(isa, args, p, b, 0, p->n, s->wide, s);
    }
}

/* Makes them in `rows`, which has the sums of the blocks before, if there are any. */
static float *tile_outputs(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                           size_t col, size_t n, int32_t *rows, const lane_scratch *s) {
    add_tiles(isa, args, p, ceil_div(args->k, TILE_BITS) - 1, col, n, rows, s);
    for (size_t r = 0; r < p->m; r++)
        scale_sums(isa, args, rows + r * LANE_OUTPUTS, p->j + col, n);
    return (float *)rows;
}

void bitops_lane_sums(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                      const lane_scratch *s) {
    if (uses_tiles(isa, args)) {
        sum_tiles(isa, args, p, s);
        return;
    }
    for (size_t b = 0; b < ceil_div(args->k, BITS) && !bitops_stopped(args->stop); b++)
        add_block(isa, args, p, b, s);
}

int bitops_lanes_keep_words(const bitops_mixed_args *args) {
    return bitops_words(args->k) <= GROUP_WORDS;
}

/* The sums of columns from col on, the rows of each side by side, or tiles. */
static void *sums_from(const bitops_mixed_args *args, size_t col, const lane_scratch *s) {
    const size_t at = lanes_of(args) * col;
    return args->is_float ? (void *)((float *)s->sums + at) : s->wide + at;
}

const float *bitops_lane_outputs(const bitops_isa *isa, const bitops_mixed_args *args,
                                 const lane_part *p, size_t col, size_t n, const lane_scratch *s) {
    if (uses_tiles(isa, args)) {
        const size_t place = args->k > TILE_BITS ? col : 0; /* a single block stays in the cache */
        return tile_outputs(isa, args, p, col, n, sums_from(args, place, s), s);
    }
    isa->turn_32(sums_from(args, col, s), lanes_of(args), n, p->m, s->outputs, LANE_OUTPUTS);
    for (size_t r = 0; r < p->m; r++)
        scale_sums(isa, args, (float *)s->outputs + r * LANE_OUTPUTS, p->j + col, n);
    return (const float *)s->outputs;
}

const float *bitops_lane_rows(const bitops_isa *isa, const bitops_mixed_args *args,
                              const lane_part *p, const lane_scratch *s) {
    for (size_t col = 0; col < p->n; col += LANE_OUTPUTS) {
        const size_t n = min_size(LANE_OUTPUTS, p->n - col);
        void *sums = sums_from(args, col, s);
        if (uses_tiles(isa, args))
            tile_outputs(isa, args, p, col, n, sums, s);
        else
            memcpy(sums, bitops_lane_outputs(isa, args, p, col, n, s),
                   p->m * LANE_OUTPUTS * sizeof(float));
    }
    return sums_from(args, 0, s);
}

/* Columns [col, col + n) of the sums of a part become outputs. */
static void store_outputs(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                          size_t col, size_t n, const lane_scratch *s) {
    const float *row = bitops_lane_outputs(isa, args, p, col, n, s);
    float *c = (float *)args->c + p->i * args->n + p->j + col;
    for (size_t r = 0; r < min_size(AHEAD, p->m); r++)
        ask_for(c + r * args->n, n);
    for (size_t r = 0; r < p->m; r++, c += args->n, row += LANE_OUTPUTS) {
        if (r + AHEAD < p->m)
            ask_for(c + AHEAD * args->n, n);
        memcpy(c, row, n * sizeof *c);
    }
}

static void run_part(const bitops_isa *isa, const bitops_mixed_args *args, const lane_part *p,
                     const lane_scratch *s) {
    bitops_lane_sums(isa, args, p, s);
    for (size_t col = 0; col < p->n; col += LANE_OUTPUTS)
        store_outputs(isa, args, p, col, min_size(LANE_OUTPUTS, p->n - col), s);
}

static void run_task(const bitops_isa *isa, const bitops_mixed_args *args, size_t span, size_t task,
                     const lane_scratch *s) {
    const size_t groups = ceil_div(args->n, span);
    lane_part p = {.i = task / groups * lanes_of(args), .j = task % groups * span};
    p.m = min_size(lanes_of(args), args->m - p.i);
    p.n = min_size(span, args->n - p.j);
    run_part(isa, args, &p, s);
}

void bitops_mixed_by_lanes(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                           int n_threads) {
    const int threads = bitops_mixed_threads(args, n_threads);
    const size_t span = group_columns(args, threads);
    const size_t tasks = ceil_div(args->m, lanes_of(args)) * ceil_div(args->n, span);
    if (threads == 1) { /* perhaps one of a team, whose number is not that of its scratch memory */
        const lane_scratch s = bitops_lane_scratch(args, workspace, 0);
        BITOPS_FOR_TASKS(1, tasks, run_task(isa, args, span, (size_t)task, &s));
        return;
    }
    BITOPS_PARALLEL_FOR(threads, schedule(dynamic))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)tasks; task++) {
        const lane_scratch s = bitops_lane_scratch(args, workspace, (size_t)bitops_thread_number());
        run_task(isa, args, span, (size_t)task, &s);
    }
}
