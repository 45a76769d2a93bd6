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
    HALF_BITS = 32,
    TABLE_BYTES = ROW_BITS / HALF_BITS * BITOPS_LOOKUP_BYTES,
    PANEL_SPACE = GROUP_PANELS * COLUMNS * (ROW_BITS / ROWS / HALF_BITS), /* 32 KiB */
    THREAD_WORK = 1 << 19, /* products below which one thread is faster */
};

/* One task: rows [i, i + m), columns [j, j + n). */
typedef struct block {
    size_t i, m, j, n;
} block;

/* Whether sums of 4 numbers fit a byte, and the ISA looks up bytes. */
static int are_small(const bitops_isa *isa, const bitops_mixed_args *args) {
    return !args->is_float && args->bits <= BITOPS_SMALL_BITS && isa->lookup_u5;
}

static void make_tables(const bitops_isa *isa, const bitops_mixed_args *args, size_t row,
                        size_t rows, size_t first, size_t bits, size_t stride, char *tables) {
    for (size_t r = 0; r < rows; r++) {
        const size_t at = (row + r) * args->k + first;
        if (args->is_float)
            isa->lookup_tables_f32((const float *)args->x + at, bits, tables + r * stride);
        else if (are_small(isa, args))
            isa->lookup_tables_u5((const uint8_t *)args->x + at, bits, tables + r * stride);
        else
            isa->lookup_tables_u8((const uint8_t *)args->x + at, bits, tables + r * stride);
    }
}

static void run_tile(const bitops_isa *isa, const bitops_mixed_args *args, bitops_lookup *tile,
                     size_t row, size_t col, int last) {
    char *c = (char *)args->c + (row * args->n + col) * sizeof(float);
    tile->c = c;
    if (args->is_float)
        isa->lookup_f32(tile);
    else if (are_small(isa, args))
        isa->lookup_u5(tile);
    else
        isa->lookup_u8(tile);
    if (last)
        for (size_t r = 0; r < tile->rows; r++)
            scale_sums(args, c + r * args->n * sizeof(float), col, tile->n);
}

/* The panel of the columns from col on, from word p of k on, among those of all of w. */
static const uint32_t *prepared_panel(const bitops_mixed_args *args, size_t col, size_t p) {
    return args->lookup_panels + 2 * (col * bitops_words(args->k) + p * COLUMNS);
}

/* One block of k: words [p, p + k_words) of a task. */
static void run_slice(const bitops_isa *isa, const bitops_mixed_args *args, const block *b,
                      size_t p, size_t k_words, char *tables, uint32_t *panels) {
    const size_t first = p * BITOPS_WORD_BITS;
    const size_t bits = min_size(k_words * BITOPS_WORD_BITS, args->k - first);
    /* With a single tile of rows, each panel is used once, and the next one can take its place. */
    const size_t panel_size = b->m > ROWS ? 2 * k_words * COLUMNS : 0;
    bitops_lookup tile = {.tables = tables, .ldc = args->n, .first = p == 0};
    tile.halves = ceil_div(bits, HALF_BITS);
    tile.table_stride =
        tile.halves * (are_small(isa, args) ? BITOPS_SMALL_BYTES : BITOPS_LOOKUP_BYTES);
    for (size_t i = 0; i < b->m; i += ROWS) {
        tile.rows = min_size(ROWS, b->m - i);
        make_tables(isa, args, b->i + i, tile.rows, first, bits, tile.table_stride, tables);
        uint32_t *panel = panels;
        for (size_t j = 0; j < b->n; j += COLUMNS, panel += panel_size) {
            tile.n = min_size(COLUMNS, b->n - j);
            tile.panel = args->lookup_panels ? prepared_panel(args, b->j + j, p) : panel;
            if (i == 0 && !args->lookup_panels)
                isa->lookup_panel(args->w + (b->j + j) * args->ldw + p, args->ldw, tile.n, k_words,
                                  panel);
            run_tile(isa, args, &tile, b->i + i, b->j + j, first + bits == args->k);
        }
    }
}

static void run_block(const bitops_isa *isa, const bitops_mixed_args *args, const block *b) {
    _Alignas(64) char tables[TABLE_BYTES];
    _Alignas(64) uint32_t panels[PANEL_SPACE];
    const size_t rows = b->m == 1 ? 1 : b->m == 2 ? 2 : ROWS;
    const size_t all = bitops_words(args->k), step = ROW_BITS / BITOPS_WORD_BITS / rows;
    for (size_t p = 0; p < all && !bitops_stopped(args->stop); p += step)
        run_slice(isa, args, b, p, min_size(step, all - p), tables, panels);
}

/* Panels of a task: up to GROUP_PANELS, but few enough for every thread to have work. */
static size_t group_panels(const bitops_mixed_args *args, int threads) {
    const size_t panels = ceil_div(args->n, COLUMNS), row_blocks = ceil_div(args->m, BLOCK_ROWS);
    const size_t share = panels * row_blocks / (4 * (size_t)threads);
    return share < 1 ? 1 : min_size(share, GROUP_PANELS);
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
    const double work = (double)args->m * (double)args->n * (double)args->k;
    const int threads = bitops_share(work, THREAD_WORK, n_threads);
    const size_t span = group_panels(args, threads) * COLUMNS;
    const size_t tasks = ceil_div(args->m, BLOCK_ROWS) * ceil_div(args->n, span);
    BITOPS_FOR_TASKS(threads, tasks, run_task(isa, args, span, (size_t)task));
}
