/* scan.c: finds all pairs of rows within a distance, or bounds, by comparing every two.
 *
 *   rows of a in the form that the kernel reads
 *   for each step of columns                                        shared out to threads
 *     its panels, of the first words only                           in the worker's scratch
 *     for each block of rows
 *       product, whose store keeps the pairs within the radius
 *       pairs that the other words part are dropped
 *
 * Where few pairs of rows are near, a part of the words parts nearly all of them, and what passes
 * is compared in full, pair by pair. */
#include "bitops.h"
#include "drivers/choice.h"
#include "drivers/short_rows.h"
#include "drivers/sizes.h"
#include "isa/shared/store.h"
#include "runtime/parallel.h"

enum {
    ROOM = 1 << 17,      /* outputs of one product: the list grows by as many, 1.5 MiB */
    BLOCK_ROWS = 1 << 9, /* of one product: with their counters in the second-level cache */
    PLAIN_COLUMNS = 1 << 10,
};

/* What all steps of a call share. */
typedef struct scan_plan {
    const bitops_isa *isa;
    const bitops_range_args *args;
    size_t first, rows, words; /* of a, and words that are compared at first */
    bitops_way way;
    size_t step, block;                /* columns and rows of one product */
    size_t rows_words;                 /* of a in the form of prepack_rows */
    size_t panel_words, scratch_words; /* of each worker, in whole lines */
    size_t first_step, steps;
    size_t workers;
    const uint64_t *a; /* row `first` */
    size_t lda;
} scan_plan;

static scan_plan make_plan(const bitops_isa *isa, const bitops_range_args *args, size_t first,
                           size_t rows, size_t words, int n_threads) {
    const bitops_gemm_args gemm = {
        .a = args->a, .m = rows, .w = args->b, .ldw = args->ldb, .n = args->n, .k_words = words};
    scan_plan plan = {.isa = isa,
                      .args = args,
                      .first = first,
                      .rows = rows,
                      .words = words,
                      .way = choose_search_way(isa, &gemm),
                      .a = args->a + first * args->lda,
                      .lda = args->lda};
    plan.step = plan.way == BITOPS_SHORT_ROWS   ? short_columns(isa, words)
                : plan.way == BITOPS_PLAIN_ROWS ? PLAIN_COLUMNS
                                                : isa->nr;
    plan.block = min_size(min_size(max_size(ROOM / plan.step, 1), BLOCK_ROWS), rows);
    if (plan.way != BITOPS_PLAIN_ROWS) {
        plan.rows_words = isa->prepack_rows ? round_up(rows * words, LINE_WORDS) : 0;
        plan.panel_words = round_up(plan.step * words, LINE_WORDS);
        plan.scratch_words = round_up(plan.block * isa->row_words, LINE_WORDS);
    }
    plan.first_step = args->upper ? min_size(first + 1, args->n) / plan.step : 0;
    plan.steps = ceil_div(args->n, plan.step) - plan.first_step;
    plan.workers = max_size(min_size((size_t)n_threads, plan.steps), 1);
    return plan;
}

size_t bitops_scan_workspace_size(const bitops_isa *isa, const bitops_range_args *args, size_t rows,
                                  size_t first_words, int n_threads) {
    const scan_plan plan = make_plan(isa, args, 0, rows, first_words, n_threads);
    return (plan.rows_words + plan.workers * (plan.panel_words + plan.scratch_words)) *
           sizeof(uint64_t);
}

static int is_wanted(const bitops_range_args *args, size_t i, size_t j, int32_t mismatches) {
    return mismatches <= args->radius && (!args->upper || i < j) &&
           (!args->bounds || is_below(args->bounds[i], mismatches, args->b_counts[j]));
}

/* Drops the pairs from number `start` on that are too far apart or not wanted. */
static void drop_far(const scan_plan *plan, bitops_found *found, size_t start) {
    const bitops_range_args *args = plan->args;
    const int partial = plan->words < args->k_words;
    if (!partial && !args->upper)
        return;
    if (partial)
        plan->isa->count_pairs(args->a, args->lda, args->b, args->ldb, args->k_words,
                               found->pairs + start, found->count - start, args->radius,
                               found->distances + start);
    size_t kept = start;
    for (size_t i = start; i < found->count; i++) {
        const uint64_t pair = found->pairs[i];
        found->pairs[kept] = pair;
        found->distances[kept] = found->distances[i];
        kept += is_wanted(args, pair >> 32, pair & UINT32_MAX, found->distances[i]);
    }
    found->count = kept;
}

/* Rows [i, i + m) of the call times columns [j, j + n), whose panels are made. */
static void multiply(const scan_plan *plan, size_t i, size_t m, size_t j, size_t n,
                     const uint64_t *panels, uint64_t *scratch, const bitops_store *store) {
    const uint64_t *a = plan->a + i * plan->lda;
    const size_t row = plan->first + i;
    switch (plan->way) {
    case BITOPS_PLAIN_ROWS:
        plan->isa->gemm_rows(a, plan->lda, m, plan->args->b + j * plan->args->ldb, plan->args->ldb,
                             n, plan->words, row, j, store);
        break;
    case BITOPS_SHORT_ROWS:
        plan->isa->gemm_short(a, plan->lda, m, panels, n, plan->words, row, j, store);
        break;
    default: /* BITOPS_PANELS */
        plan->isa->gemm_panel(a, plan->lda, m, panels, n, plan->words, row, j, store, scratch);
        break;
    }
}

/* Returns 0 if memory for the pairs was missing. */
static int scan_step(const scan_plan *plan, size_t step, bitops_found *found, uint64_t *scratch) {
    const bitops_range_args *args = plan->args;
    const size_t j = step * plan->step, n = min_size(plan->step, args->n - j), nr = plan->isa->nr;
    const bitops_store store = {.kind = BITOPS_STORE_WITHIN,
                                .c = found,
                                .w_counts = args->b_counts,
                                .bounds = (bitops_bound *)args->bounds,
                                .most = args->radius};
    for (size_t p = 0; p < n && plan->panel_words; p += nr)
        plan->isa->prepack(args->b + (j + p) * args->ldb, args->ldb, min_size(nr, n - p),
                           plan->words, scratch + p * plan->words);
    for (size_t i = 0; i < plan->rows; i += plan->block) {
        if (args->upper && plan->first + i + 1 >= j + n)
            break; /* no column is larger than one of the rows from here on */
        if (bitops_stopped(args->stop))
            return 1;
        const size_t m = min_size(plan->block, plan->rows - i), start = found->count;
        if (!bitops_found_reserve(found, m * n))
            return 0;
        multiply(plan, i, m, j, n, scratch, scratch + plan->panel_words, &store);
        drop_far(plan, found, start);
    }
    return 1;
}

int bitops_scan(const bitops_isa *isa, const bitops_range_args *args, size_t first, size_t rows,
                size_t first_words, bitops_found *found_out, void *workspace, int n_threads) {
    scan_plan plan = make_plan(isa, args, first, rows, first_words, n_threads);
    uint64_t *const scratch = (uint64_t *)workspace + plan.rows_words;
    int missing = 0;
    if (plan.rows_words) {
        isa->prepack_rows(plan.a, plan.lda, rows, first_words, workspace, first_words);
        plan.a = workspace;
        plan.lda = first_words;
    }
    BITOPS_PARALLEL_FOR((int)plan.workers, schedule(dynamic) reduction(| : missing))
    for (ptrdiff_t step = 0; step < (ptrdiff_t)plan.steps; step++) {
        const size_t worker = (size_t)bitops_thread_number();
        if (missing || bitops_stopped(args->stop))
            continue;
        missing |= !scan_step(&plan, plan.first_step + (size_t)step, found_out + worker,
                              scratch + worker * (plan.panel_words + plan.scratch_words));
    }
    return !missing;
}
