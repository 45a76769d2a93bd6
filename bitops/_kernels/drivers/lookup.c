/* lookup.c: numbers times +-1 weights by lookup: blocks, tables, threads.
 *
 *   for each block of rows x group of panels                 shared out to threads
 *     for each block of k
 *       order the columns' bits into panels, unless all of w came in this order
 *       for each 4 rows
 *         make their tables
 *         for each panel: lookup; after the last block of k: scale
 *
 * Tables of a block of k stay in the first-level cache while the panels pass over them, and the
 * outputs of a task in the second-level cache. The scratch memory of a task is on the stack of its
 * thread. Each output is summed in the order of k, so results depend neither on blocks nor on
 * threads. */
#include "bitops.h"
#include "drivers/mixed.h"
#include "drivers/scale.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

enum {
    ROWS = BITOPS_LOOKUP_ROWS,
    COLUMNS = BITOPS_LOOKUP_COLUMNS,
    ROW_BITS = 1024, /* bits of a block of k, divided by the rows of a tile: tables of 16 KiB */
    BLOCK_ROWS = 64,
    GROUP_PANELS = 16,
    SMALL_PANELS = 8, /* of small numbers, twice as long */
    HALF_BITS = 32,
    TABLE_BYTES = ROW_BITS / HALF_BITS * BITOPS_LOOKUP_BYTES,
    SMALL_BITS = 512, /* of small numbers, for a tile of ROWS: tables of 8 KiB */
    PANEL_SPACE = GROUP_PANELS * COLUMNS * (ROW_BITS / ROWS / HALF_BITS), /* 32 KiB */
    TURNED_ROWS = 16, /* of small numbers at a time, where x is turned: 8 KiB */
};

/* One task: rows [i, i + m), columns [j, j + n). */
typedef struct block {
    size_t i, m, j, n;
} block;

int bitops_largest_number(const bitops_mixed_args *args) {
    const int above = (1 << args->bits) - 1 - args->zero;
    return args->most ? args->most : above > args->zero ? above : args->zero;
}

/* Panels that were made beforehand have the order of the other lookups. */
int bitops_numbers_are_small(const bitops_isa *isa, const bitops_mixed_args *args) {
    return !args->is_float && isa->small_most && bitops_largest_number(args) <= isa->small_most &&
           !(args->lookup_panels && isa->lookup_panel_small);
}

/* Elements [first, first + bits) of some rows, ld elements apart. */
typedef struct part {
    const char *x;
    size_t ld, first, bits;
} part;

/* Makes the tables of the rows of a tile, from the i-th of a part on. */
static void make_tables(const bitops_isa *isa, const bitops_mixed_args *args, const part *p,
                        size_t i, bitops_lookup *tile, char *tables) {
    for (size_t r = 0; r < tile->rows; r++, tables += tile->table_stride) {
        const size_t at = (i + r) * p->ld;
        if (args->is_float)
            isa->lookup_tables_f32((const float *)p->x + at, p->bits, tables);
        else if (tile->most)
            tile->less[r] =
                isa->lookup_tables_small((const uint8_t *)p->x + at, p->bits, args->zero, tables);
        else
            isa->lookup_tables_u8(p->x + at, p->bits, tables);
    }
}

static void run_tile(const bitops_isa *isa, const bitops_mixed_args *args, bitops_lookup *tile,
                     size_t row, size_t col, int last) {
    char *c = (char *)args->c + (row * args->n + col) * sizeof(float);
    tile->c = c;
    if (args->is_float)
        isa->lookup_f32(tile);
    else if (tile->most)
        isa->lookup_small(tile);
    else
        isa->lookup_u8(tile);
    if (last)
        for (size_t r = 0; r < tile->rows; r++)
            scale_sums(isa, args, c + r * args->n * sizeof(float), col, tile->n);
}

/* The panel of the columns from col on, from word p of k on, among those of all of w. */
static const uint32_t *prepared_panel(const bitops_mixed_args *args, size_t col, size_t p) {
    return args->lookup_panels + 2 * (col * bitops_words(args->k) + p * COLUMNS);
}

/* The rows of a block from the i-th on: TURNED_ROWS in `rows` if x is turned, which is uint8 then,
 * or all. */
static const char *rows_of(const bitops_mixed_args *args, const block *b, size_t i, const part *p,
                           uint8_t *rows) {
    const size_t size = args->is_float ? sizeof(float) : 1;
    if (!args->x_turned)
        return (const char *)args->x + ((b->i + i) * args->k + p->first) * size;
    bitops_turn_u8((const uint8_t *)args->x + p->first * args->m + b->i + i, args->m, p->bits,
                   min_size(TURNED_ROWS, b->m - i), rows, p->ld);
    return (const char *)rows;
}

/* One block of k: words [p, p + k_words) of a task. */
static void run_slice(const bitops_isa *isa, const bitops_mixed_args *args, const block *b,
                      size_t p, size_t k_words, char *tables, uint32_t *panels, uint8_t *rows) {
    const size_t first = p * BITOPS_WORD_BITS;
    const size_t bits = min_size(k_words * BITOPS_WORD_BITS, args->k - first);
    /* With a single tile of rows, each panel is used once, and the next one can take its place. */
    const size_t panel_size = b->m > ROWS ? 2 * k_words * COLUMNS : 0;
    bitops_lookup tile = {.tables = tables, .ldc = args->n, .first = p == 0};
    tile.halves = ceil_div(bits, HALF_BITS);
    tile.most = bitops_numbers_are_small(isa, args) ? bitops_largest_number(args) : 0;
    tile.table_stride = tile.halves * (tile.most ? BITOPS_SMALL_BYTES : BITOPS_LOOKUP_BYTES);
    bitops_lookup_panel_fn *const make_panel =
        tile.most && isa->lookup_panel_small ? isa->lookup_panel_small : isa->lookup_panel;
    part x = {.ld = args->x_turned ? bits : args->k, .first = first, .bits = bits};
    for (size_t i = 0; i < b->m; i += ROWS) {
        tile.rows = min_size(ROWS, b->m - i);
        if (i % TURNED_ROWS == 0)
            x.x = rows_of(args, b, i, &x, rows);
        make_tables(isa, args, &x, i % TURNED_ROWS, &tile, tables);
        uint32_t *panel = panels;
        for (size_t j = 0; j < b->n; j += COLUMNS, panel += panel_size) {
            tile.n = min_size(COLUMNS, b->n - j);
            tile.panel = args->lookup_panels ? prepared_panel(args, b->j + j, p) : panel;
            if (i == 0 && !args->lookup_panels)
                make_panel(args->w + (b->j + j) * args->ldw + p, args->ldw, tile.n, k_words, panel);
            run_tile(isa, args, &tile, b->i + i, b->j + j, first + bits == args->k);
        }
    }
}

static void run_block(const bitops_isa *isa, const bitops_mixed_args *args, const block *b) {
    _Alignas(64) char tables[TABLE_BYTES];
    _Alignas(64) uint32_t panels[PANEL_SPACE];
    /* Tables of small numbers, which alone are turned, take half of the space. */
    uint8_t *rows_turned = (uint8_t *)tables + TABLE_BYTES / 2;
    const size_t rows = b->m == 1 ? 1 : b->m == 2 ? 2 : ROWS;
    const size_t bits =
        rows == ROWS && bitops_numbers_are_small(isa, args) ? SMALL_BITS : ROW_BITS / rows;
    const size_t all = bitops_words(args->k), step = bits / BITOPS_WORD_BITS;
    for (size_t p = 0; p < all && !bitops_stopped(args->stop); p += step)
        run_slice(isa, args, b, p, min_size(step, all - p), tables, panels, rows_turned);
}

/* Panels of a task: up to GROUP_PANELS, but few enough for every thread to have work. */
static size_t group_panels(const bitops_isa *isa, const bitops_mixed_args *args, int threads) {
    const size_t panels = ceil_div(args->n, COLUMNS), row_blocks = ceil_div(args->m, BLOCK_ROWS);
    const size_t share = panels * row_blocks / (4 * (size_t)threads);
    const size_t most = bitops_numbers_are_small(isa, args) ? SMALL_PANELS : GROUP_PANELS;
    return share < 1 ? 1 : min_size(share, most);
}

size_t bitops_lookup_panels_size(size_t n, size_t k_words) {
    return 2 * round_up(n, COLUMNS) * k_words;
}

void bitops_lookup_panels_all(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                              size_t k_words, uint32_t *panels_out) {
    const size_t step = ROW_BITS / BITOPS_WORD_BITS; /* words of a block of k, as in run_block */
    for (size_t j = 0; j < n; j += COLUMNS)
        for (size_t p = 0; p < k_words; p += step)
            isa->lookup_panel(w + j * ldw + p, ldw, min_size(COLUMNS, n - j),
                              min_size(step, k_words - p),
                              panels_out + 2 * (j * k_words + p * COLUMNS));
}

/* Task `task`: a block of rows, and a group of panels of `span` columns. */
static void run_task(const bitops_isa *isa, const bitops_mixed_args *args, size_t span,
                     size_t task) {
    const size_t groups = ceil_div(args->n, span);
    block b = {.i = task / groups * BLOCK_ROWS, .j = task % groups * span};
    b.m = min_size(BLOCK_ROWS, args->m - b.i);
    b.n = min_size(span, args->n - b.j);
    run_block(isa, args, &b);
}

void bitops_mixed_by_lookup(const bitops_isa *isa, const bitops_mixed_args *args, int n_threads) {
    const int threads = bitops_mixed_threads(args, n_threads);
    const size_t span = group_panels(isa, args, threads) * COLUMNS;
    const size_t tasks = ceil_div(args->m, BLOCK_ROWS) * ceil_div(args->n, span);
    BITOPS_FOR_TASKS(threads, tasks, run_task(isa, args, span, (size_t)task));
}
