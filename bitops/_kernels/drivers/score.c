/* score.c: products of numbers with +-1 weights of which few are kept: the largest of each row, or
 * those of rows of w that a search has found.
 *
 *   for each span of columns                                        shared out to threads
 *     for each step of columns
 *       for each block of rows
 *         product, into a block that stays in the second-level cache
 *         scores above the row's limit enter its heap
 *   for each row: heaps of all spans -> one, sorted
 *
 * A key is the score, turned into an integer that falls while the score rises, above the index: so
 * the smallest keys are kept, and equal scores go by index. */
#include "bitops.h"
#include "drivers/mixed.h"
#include "drivers/sizes.h"
#include "isa/shared/heap.h"
#include "runtime/parallel.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    STEP_COLUMNS = 1024,
    STEP_ROWS = 64,      /* with STEP_COLUMNS, 256 KiB of products */
    HEAP_KEYS = 1 << 20, /* of all spans, for the rows that are taken together: 8 MiB */
    TEST_COLUMNS = 64,   /* that are compared with the limit at a time */
    GATHERED = 64,       /* rows of w that are multiplied at a time */
};

/* ---- the largest scores -------------------------------------------------------------------- */

static uint64_t score_key(float score, size_t index) {
    int32_t bits;
    score += 0.0f; /* -0.0 is 0.0 */
    memcpy(&bits, &score, sizeof bits);
    const uint32_t rising = (uint32_t)bits ^ (bits < 0 ? UINT32_MAX : (uint32_t)1 << 31);
    return (uint64_t)~rising << 32 | index;
}

static float key_score(uint64_t key) {
    const uint32_t rising = ~(uint32_t)(key >> 32);
    const uint32_t bits = rising >> 31 ? rising ^ (uint32_t)1 << 31 : ~rising;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

/* What the scores of a row are made from. */
typedef struct row_scale {
    int scaled, moved;
    float alpha, bias;
} row_scale;

static row_scale scale_of(const bitops_score_args *args, size_t row) {
    return (row_scale){.scaled = args->alpha != NULL,
                       .moved = args->bias != NULL,
                       .alpha = args->alpha ? args->alpha[row] : 0,
                       .bias = args->bias ? args->bias[row] : 0};
}

/* Turns n products into scores. Each loop does one operation, so that compilers vectorise it. */
static void make_scores(const bitops_score_args *args, const void *products, const int32_t *surplus,
                        size_t n, row_scale scale, float *score_out) {
    if (args->product.is_float)
        memcpy(score_out, products, n * sizeof(float));
    else
        for (size_t j = 0; j < n; j++)
            score_out[j] = (float)(((const int32_t *)products)[j] - surplus[j]);
    for (size_t j = 0; scale.scaled && j < n; j++)
        score_out[j] *= scale.alpha;
    for (size_t j = 0; scale.moved && j < n; j++)
        score_out[j] += scale.bias;
}

/* The limit of a heap: a score must exceed it, since an equal one has a larger index. */
static float heap_score(const uint64_t *heap) {
    return heap[0] == HEAP_NONE ? -INFINITY : key_score(heap[0]);
}

static void keep_largest(const bitops_score_args *args, const void *products,
                         const int32_t *surplus, size_t n, size_t row, size_t col, uint64_t *heap,
                         size_t count) {
    const row_scale scale = scale_of(args, row);
    float scores[TEST_COLUMNS];
    for (size_t j = 0; j < n; j += TEST_COLUMNS) {
        const size_t width = min_size(TEST_COLUMNS, n - j);
        make_scores(args, (const char *)products + j * sizeof(float), surplus + j, width, scale,
                    scores);
        float limit = heap_score(heap);
        int any = heap[0] == HEAP_NONE;
        for (size_t i = 0; i < width; i++)
            any |= scores[i] > limit;
        for (size_t i = 0; any && i < width; i++)
            if (scores[i] > limit || heap[0] == HEAP_NONE) {
                heap_replace_root(heap, count, score_key(scores[i], col + j + i));
                limit = heap_score(heap);
            }
    }
}

/* Memory of a worker, after the heaps of all spans. */
typedef struct score_plan {
    size_t spans, columns; /* of a span */
    size_t rows;           /* of a block */
    size_t heap_keys;      /* of a span */
    size_t product_bytes, surplus_bytes, worker_bytes;
} score_plan;

/* Rows [i, i + m) of the arguments. */
static bitops_score_args some_rows(const bitops_score_args *args, size_t i, size_t m) {
    bitops_score_args some = *args;
    const size_t size = some.product.is_float ? sizeof(float) : 1;
    some.product.x = (const char *)some.product.x + i * some.product.k * size;
    some.product.m = m;
    some.alpha = some.alpha ? some.alpha + i : NULL;
    some.bias = some.bias ? some.bias + i : NULL;
    return some;
}

static bitops_mixed_args block_args(const bitops_score_args *args, size_t i, size_t m, size_t j,
                                    size_t n, void *c) {
    bitops_mixed_args block = some_rows(args, i, m).product;
    block.w += j * block.ldw;
    block.n = n;
    block.panels = NULL;
    block.lookup_panels = NULL;
    block.alpha = block.bias = NULL;
    block.zero = 0;
    block.stop = NULL; /* whoever calls asks between two blocks */
    block.c = c;
    return block;
}

/* How many rows are taken together: the rows of w are read again for the next ones. */
static size_t rows_together(const bitops_score_args *args, size_t count, int n_threads) {
    const size_t fit = HEAP_KEYS / max_size(count * (size_t)n_threads, 1);
    return min_size(args->product.m, max_size(fit, STEP_ROWS));
}

static size_t in_lines(size_t bytes) {
    return round_up(bytes, 64);
}

/* Bytes for the products of a block of rows with all steps of columns, of which the last may go
 * another way. */
static size_t workspace_of_block(const bitops_isa *isa, const bitops_score_args *args,
                                 size_t rows) {
    const size_t n = args->product.n, last = n % STEP_COLUMNS;
    const bitops_mixed_args full = block_args(args, 0, rows, 0, min_size(STEP_COLUMNS, n), NULL);
    const bitops_mixed_args rest = block_args(args, 0, rows, n - last, last, NULL);
    return max_size(bitops_mixed_workspace_size(isa, &full, 1),
                    bitops_mixed_workspace_size(isa, &rest, 1));
}

static score_plan make_plan(const bitops_isa *isa, const bitops_score_args *args, size_t count,
                            int n_threads) {
    const size_t m = args->product.m, n = args->product.n;
    score_plan plan = {.rows = min_size(STEP_ROWS, m)};
    plan.columns = round_up(ceil_div(n, (size_t)n_threads), STEP_COLUMNS);
    plan.spans = ceil_div(n, plan.columns);
    plan.heap_keys = round_up(m * count, LINE_WORDS);
    plan.product_bytes = in_lines(plan.rows * STEP_COLUMNS * sizeof(float));
    plan.surplus_bytes = in_lines(STEP_COLUMNS * (sizeof(int32_t) + sizeof(int64_t)));
    plan.worker_bytes = plan.product_bytes + plan.surplus_bytes +
                        in_lines(workspace_of_block(isa, args, plan.rows));
    return plan;
}

size_t bitops_score_topk_workspace_size(const bitops_isa *isa, const bitops_score_args *args,
                                        size_t count, int n_threads) {
    if (args->product.m == 0)
        return 0;
    const bitops_score_args some = some_rows(args, 0, rows_together(args, count, n_threads));
    const score_plan plan = make_plan(isa, &some, count, n_threads);
    return plan.spans * (plan.heap_keys * sizeof(uint64_t) + plan.worker_bytes);
}

/* What the codes of x exceed the numbers by, in the products of columns [j, j + n); found once for
 * all blocks of rows, whose products are those of the codes. */
static const int32_t *find_surplus(const bitops_isa *isa, const bitops_score_args *args, size_t j,
                                   size_t n, void *workspace) {
    bitops_mixed_args all = block_args(args, 0, args->product.m, j, n, NULL);
    if (all.is_float)
        return workspace; /* not read */
    all.zero = args->product.zero;
    bitops_find_surplus(isa, &all, workspace, &all);
    return all.surplus;
}

static void score_span(const bitops_isa *isa, const bitops_score_args *args, const score_plan *plan,
                       size_t span, size_t count, uint64_t *heaps, char *scratch) {
    const size_t end = min_size((span + 1) * plan->columns, args->product.n);
    char *workspace = scratch + plan->product_bytes + plan->surplus_bytes;
    for (size_t i = 0; i < args->product.m * count; i++)
        heaps[i] = HEAP_NONE;
    for (size_t j = span * plan->columns; j < end; j += STEP_COLUMNS) {
        const size_t n = min_size(STEP_COLUMNS, end - j);
        const int32_t *surplus = find_surplus(isa, args, j, n, scratch + plan->product_bytes);
        for (size_t i = 0; i < args->product.m; i += plan->rows) {
            if (bitops_stopped(args->product.stop))
                return;
            const size_t m = min_size(plan->rows, args->product.m - i);
            const bitops_mixed_args block = block_args(args, i, m, j, n, scratch);
            bitops_mixed(isa, &block, workspace, 1);
            for (size_t r = 0; r < m; r++)
                keep_largest(args, scratch + r * n * sizeof(float), surplus, n, i + r, j,
                             heaps + (i + r) * count, count);
        }
    }
}

/* The heaps of all spans of a row, as scores and indices. */
static void finish_row(const score_plan *plan, const uint64_t *heaps, size_t row, size_t count,
                       float *scores_out, int64_t *indices_out) {
    uint64_t *best = (uint64_t *)indices_out;
    memcpy(best, heaps + row * count, count * sizeof *best);
    for (size_t span = 1; span < plan->spans; span++)
        for (size_t i = 0; i < count; i++)
            heap_push(best, count, heaps[span * plan->heap_keys + row * count + i]);
    heap_sort(best, count);
    for (size_t i = 0; i < count; i++) {
        scores_out[i] = key_score(best[i]);
        indices_out[i] = (int64_t)(best[i] & UINT32_MAX);
    }
}

static void score_rows(const bitops_isa *isa, const bitops_score_args *args, size_t count,
                       float *scores_out, int64_t *indices_out, void *workspace, int n_threads) {
    const score_plan plan = make_plan(isa, args, count, n_threads);
    uint64_t *heaps = workspace;
    char *scratch = (char *)(heaps + plan.spans * plan.heap_keys);
    BITOPS_FOR_TASKS((int)plan.spans, plan.spans,
                     score_span(isa, args, &plan, (size_t)task, count,
                                heaps + (size_t)task * plan.heap_keys,
                                scratch + (size_t)task * plan.worker_bytes));
    if (bitops_stopped(args->product.stop))
        return;
    BITOPS_PARALLEL_FOR(bitops_share((double)args->product.m, 2, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)args->product.m; task++) {
        const size_t row = (size_t)task;
        if (!bitops_stopped(args->product.stop))
            finish_row(&plan, heaps, row, count, scores_out + row * count,
                       indices_out + row * count);
    }
}

void bitops_score_topk(const bitops_isa *isa, const bitops_score_args *args, size_t count,
                       float *scores_out, int64_t *indices_out, void *workspace, int n_threads) {
    if (args->product.m == 0)
        return;
    const size_t together = rows_together(args, count, n_threads);
    for (size_t i = 0; i < args->product.m && !bitops_stopped(args->product.stop); i += together) {
        const bitops_score_args some = some_rows(args, i, min_size(together, args->product.m - i));
        score_rows(isa, &some, count, scores_out + i * count, indices_out + i * count, workspace,
                   n_threads);
    }
}

/* ---- scores of given rows ------------------------------------------------------------------ */

size_t bitops_rescore_workspace_size(const bitops_mixed_args *args, int n_threads) {
    return (size_t)n_threads * GATHERED * bitops_words(args->k) * sizeof(uint64_t);
}

/* One row of x and up to GATHERED rows of w, which are brought into the cache next to each other.
 */
static void rescore_part(const bitops_isa *isa, const bitops_mixed_args *args, size_t row,
                         const int64_t *indices, size_t count, float *sums_out,
                         uint64_t *gathered) {
    const size_t k_words = bitops_words(args->k);
    float sums[GATHERED];
    bitops_mixed_args own = *args;
    own.x = (const float *)args->x + row * args->k;
    own.m = 1;
    own.n = 0;
    own.w = gathered;
    own.ldw = k_words;
    own.c = sums;
    for (size_t i = 0; i < count; i++)
        if (indices[i] >= 0)
            memcpy(gathered + own.n++ * k_words, args->w + (size_t)indices[i] * args->ldw,
                   k_words * sizeof *gathered);
    if (own.n)
        bitops_mixed_by_lookup(isa, &own, 1);
    for (size_t i = 0, found = 0; i < count; i++)
        if (indices[i] >= 0)
            sums_out[i] = sums[found++];
}

void bitops_rescore(const bitops_isa *isa, const bitops_mixed_args *args, const int64_t *indices,
                    size_t count, float *sums_out, void *workspace, int n_threads) {
    const size_t k_words = bitops_words(args->k), parts = ceil_div(count, GATHERED);
    BITOPS_PARALLEL_FOR(n_threads, schedule(dynamic))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(args->m * parts); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, args->stop))
            continue;
        const size_t row = (size_t)task / parts, first = (size_t)task % parts * GATHERED;
        const size_t at = row * count + first;
        rescore_part(isa, args, row, indices + at, min_size(GATHERED, count - first), sums_out + at,
                     (uint64_t *)workspace + (size_t)bitops_thread_number() * GATHERED * k_words);
    }
}
