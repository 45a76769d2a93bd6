/* short_rows.c: products of short rows (up to 512 bits), whose time goes into writing the outputs.
 *
 *   for each block of rows of a x group of columns                  shared out to threads
 *     order the rows of w into panels in the first-level cache      unless they are prepacked
 *     gemm_short: each row of outputs from its first column to its last
 *
 * All memory is on the stack, so there is no workspace. Outputs that no cache can hold are streamed
 * (stream.h). */
#include "drivers/short_rows.h"
#include "bitops.h"
#include "drivers/sizes.h"
#include "drivers/stream.h"
#include "runtime/parallel.h"

enum {
    ROWS_WORDS = 1 << 9, /* rows of a in the form that the kernel reads: 4 KiB */
    TASK_ROWS = 256,     /* rows for which it pays to make panels once more */
    TASKS_A_THREAD = 4,  /* so that no thread waits long for the last one */
};

/* One task: rows [i, i + m) of a times columns [j, j + n). */
typedef struct short_block {
    const bitops_isa *isa;
    const bitops_gemm_args *args;
    size_t i, m, j, n;
    const uint64_t *panels;
    int streams;
} short_block;

/* Row i of the outputs by way of a line on the stack. */
static void stream_row(const short_block *block, const uint64_t *row, size_t i) {
    const bitops_gemm_args *args = block->args;
    _Alignas(LINE_BYTES) double line[SHORT_PANEL_WORDS];
    const bitops_store own = store_to_line(&args->store, i, block->j, line);
    block->isa->gemm_short(row, args->k_words, 1, block->panels, block->n, args->k_words, 0, 0,
                           &own);
    stream_line(&args->store, i, block->j, line, block->n);
}

static void multiply(const short_block *block) {
    const bitops_gemm_args *args = block->args;
    uint64_t rows[ROWS_WORDS];
    const size_t step = ROWS_WORDS / args->k_words;
    for (size_t first = 0; first < block->m; first += step) {
        const size_t i = block->i + first, m = min_size(step, block->m - first);
        const uint64_t *a = args->a + i * args->lda;
        size_t lda = args->lda;
        if (bitops_stopped(args->stop))
            return;
        if (block->isa->prepack_rows) {
            block->isa->prepack_rows(a, lda, m, args->k_words, rows, args->k_words);
            a = rows;
            lda = args->k_words;
        }
        if (!block->streams)
            block->isa->gemm_short(a, lda, m, block->panels, block->n, args->k_words, i, block->j,
                                   &args->store);
        for (size_t row = 0; block->streams && row < m; row++)
            stream_row(block, a + row * lda, i + row);
    }
}

/* Panels of this thread, if they are not prepacked, then the product. */
static void run_block(short_block block) {
    const bitops_gemm_args *args = block.args;
    const size_t k_words = args->k_words, nr = block.isa->nr;
    if (args->panels) {
        block.panels = args->panels + block.j * k_words;
        multiply(&block);
        return;
    }
    _Alignas(LINE_BYTES) uint64_t panels[SHORT_PANEL_WORDS];
    for (size_t j = 0; j < block.n; j += nr)
        block.isa->prepack(args->w + (block.j + j) * args->ldw, args->ldw,
                           min_size(nr, block.n - j), k_words, panels + j * k_words);
    block.panels = panels;
    multiply(&block);
}

/* The block of a task, from one of the largest size. */
static short_block cut_block(short_block block, size_t groups, size_t task) {
    const bitops_gemm_args *args = block.args;
    block.i = min_size(task / groups * block.m, args->m);
    block.j = task % groups * block.n;
    block.m = min_size(block.m, args->m - block.i);
    block.n = min_size(block.n, args->n - block.j);
    return block;
}

void bitops_short_rows(const bitops_isa *isa, const bitops_gemm_args *args, int threads) {
    const size_t columns = short_columns(isa, args->k_words), groups = ceil_div(args->n, columns);
    size_t blocks = 1;
    if (threads > 1)
        blocks = min_size(ceil_div(args->m, TASK_ROWS),
                          ceil_div((size_t)threads * TASKS_A_THREAD, groups));
    const short_block whole = {.isa = isa,
                               .args = args,
                               .m = ceil_div(args->m, blocks),
                               .n = columns,
                               .streams = is_streamed(args)};
    BITOPS_FOR_TASKS(threads, blocks * groups, run_block(cut_block(whole, groups, (size_t)task)));
}
