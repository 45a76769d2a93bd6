/* scan.c: finds all pairs of rows within a distance, or bounds, by comparing every two.
 *
 *   folds of the rows of a, in the form that the kernel reads
 *   for each step of columns                                        shared out to threads
 *     their folds, and the panels of these                          in the worker's scratch
 *     for each block of rows
 *       sieve, or product whose store keeps the pairs within the radius
 *       pairs that are not within it are dropped
 *
 * A fold is the XOR of words that lie `words` apart. Two folds differ in no more bits than the
 * rows: each of their bits differs only if some bit of the rows that went into it does. Where few
 * pairs of rows are near, short folds part nearly all of them, and what passes is compared in
 * full, pair by pair. */
#include "bitops.h"
#include "drivers/choice.h"
#include "drivers/short_rows.h"
#include "drivers/sizes.h"
#include "isa/shared/store.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    ROOM = 1 << 17,      /* outputs of one product; those of a sieve are 4 times as many */
    BLOCK_ROWS = 1 << 9, /* of one product: with their counters in the second-level cache */
    PLAIN_COLUMNS = 1 << 10,
    SIEVE_ROWS = 1 << 12,         /* of a sieve, which makes tables for each block, */
    SIEVE_COUNTED_ROWS = 1 << 11, /* with their counters in the second-level cache, */
    SIEVE_LEAST = 48,             /* and at least */
    LOOK_WORDS = 1 << 20,         /* folded between two looks at the clock */
};

/* What all steps of a call share. */
typedef struct scan_plan {
    const bitops_isa *isa;
    const bitops_range_args *args;
    size_t first, rows, words; /* of a, and words of a fold */
    int sieved, folded;
    bitops_way way;                                /* if not sieved */
    size_t step, block;                            /* columns and rows of one product */
    size_t rows_words;                             /* of a, folded, in the form of the kernel */
    size_t fold_words, panel_words, scratch_words; /* of each worker, in whole lines */
    size_t first_step, steps;
    size_t workers;
    const uint64_t *a; /* row `first` */
    size_t lda;
} scan_plan;

/* Whether few unlike rows pass a sieve. It knows no bounds. */
static int is_sieved(const bitops_isa *isa, const bitops_range_args *args, size_t rows,
                     size_t words) {
    return isa->sieve && !args->bounds && rows >= SIEVE_LEAST && words <= BITOPS_SIEVE_WORDS &&
           args->radius <= bitops_sieve_most(words);
}

static void plan_sieve(scan_plan *plan) {
    const size_t most = plan->words == 1 ? SIEVE_ROWS : SIEVE_COUNTED_ROWS;
    plan->step = BITOPS_SIEVE_COLUMNS;
    plan->block = ceil_div(plan->rows, ceil_div(plan->rows, most)); /* as equal as can be */
    plan->rows_words = round_up(plan->rows * plan->words, LINE_WORDS);
    plan->fold_words = round_up(plan->step * plan->words, LINE_WORDS);
    if (plan->words > 1)
        plan->scratch_words = plan->block * BITOPS_SIEVE_ROW_WORDS;
}

static void plan_product(scan_plan *plan) {
    const bitops_isa *isa = plan->isa;
    plan->step = plan->way == BITOPS_SHORT_ROWS   ? short_columns(isa, plan->words)
                 : plan->way == BITOPS_PLAIN_ROWS ? PLAIN_COLUMNS
                                                  : isa->nr;
    plan->block = min_size(min_size(max_size(ROOM / plan->step, 1), BLOCK_ROWS), plan->rows);
    if (plan->folded || (isa->prepack_rows && plan->way != BITOPS_PLAIN_ROWS))
        plan->rows_words = round_up(plan->rows * plan->words, LINE_WORDS);
    if (plan->folded)
        plan->fold_words = round_up(plan->step * plan->words, LINE_WORDS);
    if (plan->way != BITOPS_PLAIN_ROWS) {
        plan->panel_words = round_up(plan->step * plan->words, LINE_WORDS);
        plan->scratch_words = round_up(plan->block * isa->row_words, LINE_WORDS);
    }
}

static scan_plan make_plan(const bitops_isa *isa, const bitops_range_args *args, size_t first,
                           size_t rows, size_t words, int n_threads) {
    const bitops_gemm_args gemm = {
        .a = args->a, .m = rows, .w = args->b, .ldw = args->ldb, .n = args->n, .k_words = words};
    scan_plan plan = {.isa = isa,
                      .args = args,
                      .first = first,
                      .rows = rows,
                      .words = words,
                      .sieved = is_sieved(isa, args, rows, words),
                      .folded = words < args->k_words,
                      .way = choose_search_way(isa, &gemm),
                      .a = args->a + first * args->lda,
                      .lda = args->lda};
    if (plan.sieved)
        plan_sieve(&plan);
    else
        plan_product(&plan);
    plan.first_step = args->upper ? min_size(first + 1, args->n) / plan.step : 0;
    plan.steps = ceil_div(args->n, plan.step) - plan.first_step;
    plan.workers = max_size(min_size((size_t)n_threads, plan.steps), 1);
    return plan;
}

static size_t worker_words(const scan_plan *plan) {
    return plan->fold_words + plan->panel_words + plan->scratch_words;
}

size_t bitops_scan_workspace_size(const bitops_isa *isa, const bitops_range_args *args, size_t rows,
                                  size_t first_words, int n_threads) {
    const scan_plan plan = make_plan(isa, args, 0, rows, first_words, n_threads);
    return (plan.rows_words + plan.workers * worker_words(&plan)) * sizeof(uint64_t);
}

/* ---- folds --------------------------------------------------------------------------------- */

/* Word p of the fold of a row. */
static uint64_t fold_word(const uint64_t *row, size_t k_words, size_t words, size_t p) {
    uint64_t folded = 0;
    for (; p < k_words; p += words)
        folded ^= row[p];
    return folded;
}

/* Writes the folds of m rows, word p of row i to out[i ld_row + p ld_word]. */
static void fold_rows(const scan_plan *plan, const uint64_t *rows, size_t ld, size_t m,
                      uint64_t *out, size_t ld_row, size_t ld_word) {
    const bitops_range_args *args = plan->args;
    const size_t every = max_size(LOOK_WORDS / args->k_words, 1);
    for (size_t i = 0; i < m && !bitops_stopped_at(i, every, args->stop); i++, rows += ld)
        for (size_t p = 0; p < plan->words; p++)
            out[i * ld_row + p * ld_word] = fold_word(rows, args->k_words, plan->words, p);
}

/* The same for a sieve: word p of all rows side by side, in as many bits as it looks at. */
static void fold_for_sieve(const scan_plan *plan, const uint64_t *rows, size_t ld, size_t m,
                           uint64_t *out, size_t ld_word) {
    const unsigned groups = bitops_sieve_groups(plan->words, plan->args->radius);
    const unsigned bits = min_size(5 * groups, 64);
    fold_rows(plan, rows, ld, m, out, 1, ld_word);
    if (bits == 64)
        return;
    for (size_t i = 0; i < m; i++)
        out[i] = (out[i] ^ out[i] >> bits ^ (2 * bits < 64 ? out[i] >> 2 * bits : 0)) &
                 (((uint64_t)1 << bits) - 1);
}

static int is_wanted(const bitops_range_args *args, size_t i, size_t j, int32_t mismatches) {
    return mismatches <= args->radius && (!args->upper || i < j) &&
           (!args->bounds || is_below(args->bounds[i], mismatches, args->b_counts[j]));
}

/* Drops the pairs from number `start` on that are too far apart or not wanted. */
static void drop_far(const scan_plan *plan, bitops_found *found, size_t start) {
    const bitops_range_args *args = plan->args;
    const int partial = plan->folded || plan->sieved;
    if (!partial && !args->upper)
        return;
    if (partial && !bitops_compare_pairs(plan->isa, args, found->pairs + start,
                                         found->count - start, found->distances + start)) {
        found->count = start;
        return;
    }
    size_t kept = start;
    for (size_t i = start; i < found->count; i++) {
        const uint64_t pair = found->pairs[i];
        found->pairs[kept] = pair;
        found->distances[kept] = found->distances[i];
        kept += is_wanted(args, pair >> 32, pair & UINT32_MAX, found->distances[i]);
    }
    found->count = kept;
}

/* n columns, folded if the plan says so, with their panels. */
typedef struct scan_columns {
    const uint64_t *b;
    size_t ldb, j, n;
    const uint64_t *panels;
    uint64_t *scratch;
} scan_columns;

static scan_columns make_columns(const scan_plan *plan, size_t step, uint64_t *scratch) {
    const bitops_range_args *args = plan->args;
    const size_t nr = plan->isa->nr, j = step * plan->step;
    uint64_t *const fold = scratch, *const panels = fold + plan->fold_words;
    scan_columns columns = {.b = args->b + j * args->ldb,
                            .ldb = args->ldb,
                            .j = j,
                            .n = min_size(plan->step, args->n - j),
                            .panels = panels,
                            .scratch = panels + plan->panel_words};
    if (plan->sieved) {
        if (columns.n < plan->step)
            memset(fold, 0, plan->fold_words * sizeof *fold);
        fold_for_sieve(plan, columns.b, args->ldb, columns.n, fold, plan->step);
    } else if (plan->folded) {
        fold_rows(plan, columns.b, args->ldb, columns.n, fold, plan->words, 1);
    }
    if (plan->fold_words) {
        columns.b = fold;
        columns.ldb = plan->words;
    }
    for (size_t p = 0; p < columns.n && plan->panel_words; p += nr)
        plan->isa->prepack(columns.b + p * columns.ldb, columns.ldb, min_size(nr, columns.n - p),
                           plan->words, panels + p * plan->words);
    return columns;
}

/* Rows [i, i + m) of the call, and what is found in them. */
static void multiply(const scan_plan *plan, size_t i, size_t m, const scan_columns *columns,
                     bitops_found *found) {
    const bitops_isa *isa = plan->isa;
    const bitops_range_args *args = plan->args;
    const size_t row = plan->first + i, j = columns->j, n = columns->n;
    const bitops_store store = {.kind = BITOPS_STORE_WITHIN,
                                .c = found,
                                .w_counts = args->b_counts,
                                .bounds = (bitops_bound *)args->bounds,
                                .most = args->radius};
    if (plan->sieved) {
        isa->sieve(plan->a + i, plan->lda, m, columns->b, n, plan->words, args->radius, row, j,
                   found, columns->scratch);
        return;
    }
    const uint64_t *a = plan->a + i * plan->lda;
    switch (plan->way) {
    case BITOPS_PLAIN_ROWS:
        isa->gemm_rows(a, plan->lda, m, columns->b, columns->ldb, n, plan->words, row, j, &store);
        break;
    case BITOPS_SHORT_ROWS:
        isa->gemm_short(a, plan->lda, m, columns->panels, n, plan->words, row, j, &store);
        break;
    default: /* BITOPS_PANELS */
        isa->gemm_panel(a, plan->lda, m, columns->panels, n, plan->words, row, j, &store,
                        columns->scratch);
        break;
    }
}

/* Returns 0 if memory for the pairs was missing. */
static int scan_step(const scan_plan *plan, size_t step, bitops_found *found, uint64_t *scratch) {
    const bitops_range_args *args = plan->args;
    const scan_columns columns = make_columns(plan, step, scratch);
    for (size_t i = 0; i < plan->rows; i += plan->block) {
        if (args->upper && plan->first + i + 1 >= columns.j + columns.n)
            break; /* no column is larger than one of the rows from here on */
        if (bitops_stopped(args->stop))
            return 1;
        const size_t m = min_size(plan->block, plan->rows - i), start = found->count;
        if (!bitops_found_reserve(found, m * columns.n))
            return 0;
        multiply(plan, i, m, &columns, found);
        drop_far(plan, found, start);
    }
    return 1;
}

/* Folds the rows of a, and orders them as the kernel reads them, in the workspace. */
static void order_rows(scan_plan *plan, uint64_t *workspace) {
    const bitops_isa *isa = plan->isa;
    if (plan->sieved) {
        fold_for_sieve(plan, plan->a, plan->lda, plan->rows, workspace, plan->rows);
        plan->lda = plan->rows;
    } else {
        if (plan->folded) {
            fold_rows(plan, plan->a, plan->lda, plan->rows, workspace, plan->words, 1);
            plan->a = workspace;
            plan->lda = plan->words;
        }
        if (isa->prepack_rows && plan->way != BITOPS_PLAIN_ROWS)
            isa->prepack_rows(plan->a, plan->lda, plan->rows, plan->words, workspace, plan->words);
        plan->lda = plan->words;
    }
    plan->a = workspace;
}

int bitops_scan(const bitops_isa *isa, const bitops_range_args *args, size_t first, size_t rows,
                size_t first_words, bitops_found *found_out, void *workspace, int n_threads) {
    scan_plan plan = make_plan(isa, args, first, rows, first_words, n_threads);
    uint64_t *const scratch = (uint64_t *)workspace + plan.rows_words;
    int missing = 0;
    if (plan.rows_words)
        order_rows(&plan, workspace);
    BITOPS_PARALLEL_FOR((int)plan.workers, schedule(dynamic) reduction(| : missing))
    for (ptrdiff_t step = 0; step < (ptrdiff_t)plan.steps; step++) {
        const size_t worker = (size_t)bitops_thread_number();
        if (missing || bitops_stopped(args->stop))
            continue;
        missing |= !scan_step(&plan, plan.first_step + (size_t)step, found_out + worker,
                              scratch + worker * worker_words(&plan));
    }
    return !missing;
}
