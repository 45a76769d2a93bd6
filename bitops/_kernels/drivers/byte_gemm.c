/* byte_gemm.c: products of bytes with bytes, both of which lie along k, as the gradient of weights
 * needs them: dW = dy^T x.
 *
 *   for each 1024 elements of k
 *     turn those of x, so that each row has its own side by side
 *     for each 32 columns of y                              shared out to threads
 *       put 4 elements of k of each column side by side, and multiply all rows by them
 *
 * The rows of x stay in the second-level cache, the columns of y in the first-level cache. */
#include "bitops.h"
#include "drivers/deal.h"
#include "drivers/mixed.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    DEPTH = 1024,      /* of k, at once */
    LINE = DEPTH + 64, /* bytes from a row of x to the next: not a power of two */
    GROUP = 64,        /* columns of x that are turned at once */
    QUAD = 4,
    COLUMNS = BITOPS_BYTE_COLUMNS,
    PANEL_BYTES = DEPTH * COLUMNS,
    STOP_PANELS = 8, /* after which the clock is read */
};

static size_t whole_rows(const bitops_byte_args *args) {
    return round_up(args->m, BITOPS_BYTE_ROWS);
}

size_t bitops_byte_gemm_workspace_size(const bitops_byte_args *args, int n_threads) {
    return whole_rows(args) * LINE + (size_t)n_threads * PANEL_BYTES;
}

/* Elements [first, first + depth) of k of a group of columns of x become rows of signed bytes. */
static void turn_group(const bitops_byte_args *args, size_t first, size_t depth, size_t group,
                       uint8_t *rows) {
    const size_t col = group * GROUP, columns = min_size(GROUP, args->m - col);
    uint8_t *out = rows + col * LINE;
    bitops_turn_u8(args->x + first * args->m + col, args->m, depth, columns, out, LINE);
    for (size_t i = 0; i < columns * LINE; i++)
        out[i] = (uint8_t)(out[i] - args->x_zero);
}

/* Four lines of k, dealt out twice, give the four elements of each column; zeros for those that do
 * not exist. */
static void fill_panel(const bitops_byte_args *args, size_t first, size_t depth, size_t col,
                       uint8_t *panel) {
    const size_t columns = min_size(COLUMNS, args->n - col);
    uint8_t lines[QUAD * COLUMNS] = {0}, dealt[QUAD * COLUMNS];
    const uint8_t *y = args->y + first * args->n + col;
    for (size_t k = 0; k < round_up(depth, BITOPS_BYTE_DEPTH); k += QUAD) {
        for (size_t i = 0; i < QUAD; i++)
            if (k + i < depth)
                memcpy(lines + i * COLUMNS, y + (k + i) * args->n, columns);
            else
                memset(lines + i * COLUMNS, 0, columns);
        deal(QUAD * COLUMNS, lines, dealt);
        deal(QUAD * COLUMNS, dealt, panel + k * COLUMNS);
    }
}

static void multiply_panel(const bitops_isa *isa, const bitops_byte_args *args, const void *rows,
                           size_t first, size_t depth, size_t number, uint8_t *panel) {
    if (bitops_stopped_at(number, STOP_PANELS, args->stop))
        return;
    const size_t col = number * COLUMNS;
    fill_panel(args, first, depth, col, panel);
    const bitops_byte_block block = {.x = rows,
                                     .ldx = LINE,
                                     .rows = whole_rows(args),
                                     .y = panel,
                                     .k = round_up(depth, BITOPS_BYTE_DEPTH),
                                     .sums = args->sums + col,
                                     .ld_sums = round_up(args->n, COLUMNS)};
    isa->byte_products(&block);
}

/* A single thread may be one of a team, whose number is not that of its panel. */
static uint8_t *panel_of(uint8_t *panels, int threads) {
    return panels + (threads == 1 ? 0 : (size_t)bitops_thread_number() * PANEL_BYTES);
}

void bitops_byte_gemm(const bitops_isa *isa, const bitops_byte_args *args, void *workspace,
                      int n_threads) {
    const double work = (double)args->m * (double)args->n * (double)args->k;
    const int threads = bitops_share(work, MIXED_WORK, n_threads);
    const size_t bytes = whole_rows(args) * LINE;
    uint8_t *rows = workspace, *panels = rows + bytes;
    memset(rows, 0, bytes); /* also what no element of x ever comes to */
    for (size_t first = 0; first < args->k && !bitops_stopped(args->stop); first += DEPTH) {
        const size_t depth = min_size(DEPTH, args->k - first);
        BITOPS_FOR_TASKS(threads, ceil_div(args->m, GROUP),
                         turn_group(args, first, depth, (size_t)task, rows));
        BITOPS_FOR_TASKS(
            threads, ceil_div(args->n, COLUMNS),
            multiply_panel(isa, args, rows, first, depth, (size_t)task, panel_of(panels, threads)));
    }
}
