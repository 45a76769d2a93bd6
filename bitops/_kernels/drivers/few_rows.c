/* few_rows.c: products of few rows of a with rows of w that were not ordered into panels before.
 *
 * Either gemm_rows reads w as it lies, or each panel is made on the stack just before its use:
 *
 *   for each panel of w                            shared out to threads
 *     for pc in k by parts                         so that a panel stays in the first-level cache
 *       order the part into a panel, bring a into the form that the kernel reads
 *       gemm_panel, to sums if there are several parts
 *     mismatches of all parts -> c
 *
 * In gemm.c panels go to the workspace for all of w, which costs about as much again as to make
 * them, and pays only if many blocks of a meet each. */
#include "drivers/few_rows.h"
#include "drivers/choice.h"
#include "drivers/sizes.h"
#include "isa/shared/store.h"
#include "runtime/parallel.h"

#include <assert.h>
#include <string.h>

enum {
    /* Of a task on plain rows: columns in whole words of bits and whole lines of numbers, and words
     * of w: 16 KiB, to stay in the first-level cache. */
    PLAIN_COLUMNS = 64,
    PLAIN_WORDS = 1 << 11,
    /* and rows of a, of so many words in all. */
    PLAIN_ROWS = 16,
    PLAIN_BLOCK_WORDS = 1 << 16,
    /* On the stack, of which a thread may have 64 KiB: a panel of 16 KiB, 8 KiB for a block of
     * rows, and 16 KiB of sums. */
    PANEL_WORDS = 1 << 11,
    MOST_COLUMNS = 128, /* nr of every ISA lies between these */
    LEAST_COLUMNS = 32,
    ROW_WORDS = 48,  /* row_words of every ISA, at most */
    BLOCK_ROWS = 16, /* rows of a at a time */
    BLOCK_WORDS = BLOCK_ROWS * PANEL_WORDS / LEAST_COLUMNS,
    STOP_STEPS = 32, /* tasks between two looks at the clock */
};

_Static_assert((int)BLOCK_WORDS >= BLOCK_ROWS * ROW_WORDS, "a block has room for the counters");

/* ---- rows as they lie ---------------------------------------------------------------------- */

/* Task `task`: a block of `rows` rows of a times one of `groups` groups of columns. */
static void multiply_plain(const bitops_isa *isa, const bitops_gemm_args *args, size_t rows,
                           size_t columns, size_t groups, size_t task) {
    const size_t col = task % groups * columns, i = task / groups * rows;
    if (!bitops_stopped_at(task, STOP_STEPS, args->stop))
        isa->gemm_rows(args->a + i * args->lda, args->lda, min_size(rows, args->m - i),
                       args->w + col * args->ldw, args->ldw, min_size(columns, args->n - col),
                       args->k_words, i, col, &args->store);
}

void bitops_plain_rows(const bitops_isa *isa, const bitops_gemm_args *args, int threads) {
    const size_t fit = PLAIN_WORDS / max_size(args->k_words, 1) / PLAIN_COLUMNS;
    const size_t columns = max_size(fit, 1) * PLAIN_COLUMNS, groups = ceil_div(args->n, columns);
    /* Rows of a are shared out too where columns are few, and in blocks between looks at the clock.
     */
    const size_t share = groups < (size_t)threads ? ceil_div(args->m, (size_t)threads) : args->m;
    const size_t block = PLAIN_BLOCK_WORDS / max_size(args->k_words, 1);
    const size_t rows = min_size(share, max_size(block, PLAIN_ROWS));
    BITOPS_FOR_SCHEDULED(threads, schedule(static), groups * ceil_div(args->m, rows),
                         multiply_plain(isa, args, rows, columns, groups, (size_t)task));
}

/* ---- fresh panels -------------------------------------------------------------------------- */

/* Multiplies all rows by words [p, p + words) of the n columns from `col` on, and stores from
 * column store_col on. */
static void multiply_part(const bitops_isa *isa, const bitops_gemm_args *args, size_t col, size_t n,
                          size_t p, size_t words, size_t store_col, const bitops_store *store) {
    _Alignas(64) uint64_t panel[PANEL_WORDS];
    /* Rows in the form that the kernel reads, or its counters: no ISA has both. */
    _Alignas(64) uint64_t block[BLOCK_WORDS];
    isa->prepack(args->w + col * args->ldw + p, args->ldw, n, words, panel);
    for (size_t i = 0; i < args->m; i += BLOCK_ROWS) {
        const uint64_t *a = args->a + i * args->lda + p;
        const size_t m = min_size(BLOCK_ROWS, args->m - i);
        size_t lda = args->lda;
        if (isa->prepack_rows) {
            isa->prepack_rows(a, lda, m, words, block, words);
            a = block;
            lda = words;
        }
        isa->gemm_panel(a, lda, m, panel, n, words, i, store_col, store, block);
    }
}

/* Task `task`: a panel. */
static void multiply_panel(const bitops_isa *isa, const bitops_gemm_args *args, size_t task) {
    if (bitops_stopped_at(task, STOP_STEPS, args->stop))
        return;
    const size_t col = task * isa->nr;
    const size_t n = min_size(isa->nr, args->n - col), k_words = args->k_words;
    const size_t part = PANEL_WORDS / max_size(isa->nr, LEAST_COLUMNS);
    if (k_words <= part) {
        multiply_part(isa, args, col, n, 0, k_words, col, &args->store);
        return;
    }
    int32_t sums[BITOPS_FRESH_ROWS * MOST_COLUMNS];
    const bitops_store accumulate = {.kind = BITOPS_STORE_ACCUMULATE, .c = sums, .ldc = n};
    memset(sums, 0, args->m * n * sizeof *sums);
    for (size_t p = 0; p < k_words; p += part)
        multiply_part(isa, args, col, n, p, min_size(part, k_words - p), 0, &accumulate);
    store_block(sums, n, args->m, n, 0, col, &args->store);
}

void bitops_fresh_panels(const bitops_isa *isa, const bitops_gemm_args *args, int threads) {
    assert(args->m <= BITOPS_FRESH_ROWS && isa->nr <= MOST_COLUMNS && isa->row_words <= ROW_WORDS);
    assert(isa->prepack_rows == NULL || isa->row_words == 0);
    BITOPS_FOR_SCHEDULED(threads, schedule(static), ceil_div(args->n, isa->nr),
                         multiply_panel(isa, args, (size_t)task));
}
