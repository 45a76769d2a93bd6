/* topk.c: finds the nearest rows of w for every row of a, without a matrix of distances.
 *
 *   for each block of rows x span of columns                        shared out to threads
 *     heaps of the block and span := empty
 *     for each panel of the span      ordered into the worker's scratch just before its use
 *       gemm_panel, whose store pushes distances below the row's limit into the row's heap
 *   for each row                                                    shared out to threads
 *     heaps of all spans -> one, sorted -> distances, indices
 *
 * A row meets the columns of its span in increasing order and on one thread, so results do not
 * depend on the number of threads. The heaps of the first span are the array of indices itself.
 * Further spans cost memory, so there are several only as long as their heaps are small; otherwise
 * threads share the rows. A panel is made again for every block of rows, which costs about as much
 * as one row. Long rows go through bitops_gemm, which cuts k, in blocks of distances. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "isa/shared/heap.h"
#include "isa/shared/store.h"
#include "runtime/parallel.h"

enum {
    LONG_WORDS = 256,      /* rows with more go through bitops_gemm */
    BLOCK_WORDS = 1 << 15, /* rows of a block of a: 256 KiB, for the second-level cache, */
    ROWS_WORDS = 1 << 18,  /* and at most 2 MiB for all threads */
    MAX_THREADS = 64,      /* so that a block has rows */
    PANEL_WORDS = 1 << 19, /* panels of all threads: 4 MiB */
    HEAP_KEYS = 1 << 18,   /* keys of the spans after the first: 2 MiB */
    SPAN_COLUMNS = 1024,   /* columns below which a span is not worth a thread */
    PLAIN_ROWS = 8,        /* up to here w is read as it lies, */
    PLAIN_WORDS = 16,      /* if its rows are not shorter: measured, see README.md */
    ROW_COLUMNS = 64,      /* columns taken at a time then */
    LONG_ROWS = 256,       /* rows and columns of a block of distances: 1 MiB */
    LONG_COLUMNS = 1024,
    THREAD_WORK = 1 << 17, /* word products below which one thread is faster, as in gemm.c */
    STOP_STEPS = 32,       /* panels between two looks at the clock */
};

static int reads_plain_rows(const bitops_gemm_args *args) {
    return !args->panels && args->m <= PLAIN_ROWS && args->k_words >= PLAIN_WORDS;
}

static int is_long(const bitops_gemm_args *args) {
    return args->k_words > LONG_WORDS && !reads_plain_rows(args);
}

/* How the work is cut: blocks of `rows` rows times spans of `columns` columns. */
typedef struct topk_plan {
    size_t workers;
    size_t blocks, rows;
    size_t spans, columns;
    /* Scratch of each worker, in words: a panel, then a block of rows, in whole cache lines, since
     * the panel of the next worker follows. */
    size_t panel_words, rows_words;
    size_t heap_keys; /* heaps of the spans after the first */
} topk_plan;

static topk_plan make_plan(const bitops_isa *isa, const bitops_gemm_args *args, size_t count,
                           int n_threads) {
    const double work = (double)args->m * (double)args->n * (double)args->k_words;
    const size_t keys = args->m * count;
    const int plain = reads_plain_rows(args);
    topk_plan plan;
    plan.panel_words = plain || args->panels ? 0 : isa->nr * args->k_words;
    const size_t fit_panels = max_size(PANEL_WORDS / max_size(plan.panel_words, 1), 1);
    const size_t most = min_size(MAX_THREADS, fit_panels);
    const size_t threads = work < THREAD_WORK ? 1 : min_size((size_t)n_threads, most);
    plan.spans = min_size(min_size(threads, 1 + HEAP_KEYS / keys), ceil_div(args->n, SPAN_COLUMNS));
    const size_t step = max_size(isa->nr, ROW_COLUMNS);
    plan.columns = round_up(ceil_div(args->n, plan.spans), step);
    plan.spans = ceil_div(args->n, plan.columns);
    const size_t depth = max_size(isa->row_words ? isa->row_words : args->k_words, 1);
    const size_t fit = min_size(BLOCK_WORDS, ROWS_WORDS / threads) / depth;
    plan.rows = min_size(fit, ceil_div(args->m * plan.spans, threads));
    plan.rows = round_up(max_size(plan.rows, 1), isa->mr);
    plan.blocks = ceil_div(args->m, plan.rows);
    plan.workers = min_size(threads, plan.blocks * plan.spans);
    const size_t row_words = isa->prepack_rows ? args->k_words : isa->row_words;
    plan.rows_words = plain ? 0 : round_up(plan.rows * row_words, LINE_WORDS);
    plan.heap_keys = (plan.spans - 1) * keys;
    return plan;
}

/* The product that makes a block of distances of long rows. */
static bitops_gemm_args long_block(const bitops_gemm_args *args, size_t i, size_t j,
                                   int32_t *distances) {
    bitops_gemm_args block = *args;
    block.a += i * args->lda;
    block.m = min_size(LONG_ROWS, args->m - i);
    block.n = min_size(LONG_COLUMNS, args->n - j);
    if (args->panels)
        block.panels += j * args->k_words;
    else
        block.w += j * args->ldw;
    block.store.kind = BITOPS_STORE_HAMMING;
    block.store.c = distances;
    block.store.ldc = block.n;
    return block;
}

size_t bitops_hamming_topk_workspace_size(const bitops_isa *isa, const bitops_gemm_args *args,
                                          size_t count, int n_threads) {
    if (args->m == 0)
        return 0;
    if (is_long(args)) {
        const bitops_gemm_args block = long_block(args, 0, 0, NULL);
        return LONG_ROWS * LONG_COLUMNS * sizeof(int32_t) +
               bitops_gemm_workspace_size(isa, &block, n_threads);
    }
    const topk_plan plan = make_plan(isa, args, count, n_threads);
    return (plan.workers * (plan.panel_words + plan.rows_words) + plan.heap_keys) *
           sizeof(uint64_t);
}

static void clear_heaps(uint64_t *heaps, size_t keys) {
    for (size_t i = 0; i < keys; i++)
        heaps[i] = HEAP_NONE;
}

static void topk_long(const bitops_isa *isa, const bitops_gemm_args *args,
                      const bitops_store *store, void *workspace, int n_threads) {
    int32_t *distances = workspace;
    char *rest = (char *)workspace + LONG_ROWS * LONG_COLUMNS * sizeof(int32_t);
    clear_heaps(store->c, args->m * store->ldc);
    for (size_t i = 0; i < args->m; i += LONG_ROWS)
        for (size_t j = 0; j < args->n && !bitops_stopped(args->stop); j += LONG_COLUMNS) {
            const bitops_gemm_args block = long_block(args, i, j, distances);
            bitops_gemm(isa, &block, rest, n_threads);
            store_block(distances, block.n, block.m, block.n, i, j, store);
        }
}

/* One block of rows and span of columns. */
static void topk_block(const bitops_isa *isa, const bitops_gemm_args *args, const topk_plan *plan,
                       size_t block, size_t span, const bitops_store *store, uint64_t *scratch) {
    const size_t i = block * plan->rows, m = min_size(plan->rows, args->m - i);
    const size_t end = min_size((span + 1) * plan->columns, args->n);
    const size_t step = reads_plain_rows(args) ? ROW_COLUMNS : isa->nr;
    const uint64_t *a = args->a + i * args->lda;
    size_t lda = args->lda;
    clear_heaps((uint64_t *)store->c + i * store->ldc, m * store->ldc);
    if (plan->rows_words && isa->prepack_rows) {
        isa->prepack_rows(a, lda, m, args->k_words, scratch + plan->panel_words, args->k_words);
        a = scratch + plan->panel_words;
        lda = args->k_words;
    }
    for (size_t j = span * plan->columns; j < end; j += step) {
        const uint64_t *w = args->w + j * args->ldw, *panel = scratch;
        const size_t n = min_size(step, end - j);
        if (bitops_stopped_at(j / step, STOP_STEPS, args->stop))
            return;
        if (reads_plain_rows(args)) {
            isa->gemm_rows(a, lda, m, w, args->ldw, n, args->k_words, i, j, store);
            continue;
        }
        if (args->panels)
            panel = args->panels + j * args->k_words;
        else
            isa->prepack(w, args->ldw, n, args->k_words, scratch);
        isa->gemm_panel(a, lda, m, panel, n, args->k_words, i, j, store,
                        scratch + plan->panel_words);
    }
}

static void topk_fused(const bitops_isa *isa, const bitops_gemm_args *args, const topk_plan *plan,
                       const bitops_store *store, uint64_t *heaps, uint64_t *scratch) {
    BITOPS_PARALLEL_FOR((int)plan->workers, schedule(static))
    for (ptrdiff_t worker = 0; worker < (ptrdiff_t)plan->workers; worker++)
        for (size_t task = (size_t)worker; task < plan->blocks * plan->spans;
             task += plan->workers) {
            if (bitops_stopped(args->stop))
                break;
            const size_t span = task % plan->spans;
            bitops_store own = *store;
            if (span > 0)
                own.c = heaps + (span - 1) * args->m * store->ldc;
            topk_block(isa, args, plan, task / plan->spans, span, &own,
                       scratch + (size_t)worker * (plan->panel_words + plan->rows_words));
        }
}

/* Sorts the keys of a heap in increasing order. */
static void sort_heap(uint64_t *heap, size_t count) {
    for (size_t last = count; last-- > 1;) {
        const uint64_t key = heap[last];
        heap[last] = heap[0];
        heap_replace_root(heap, last, key);
    }
}

void bitops_hamming_topk(const bitops_isa *isa, const bitops_gemm_args *args, size_t count,
                         int32_t *distances_out, int64_t *indices_out, void *workspace,
                         int n_threads) {
    if (args->m == 0)
        return;
    uint64_t *const heaps = (uint64_t *)indices_out, *more = NULL;
    const bitops_store store = {
        .kind = BITOPS_STORE_TOPK, .k = args->store.k, .c = heaps, .ldc = count};
    const topk_plan plan = make_plan(isa, args, count, n_threads);
    const size_t extra = is_long(args) ? 0 : plan.spans - 1;
    if (is_long(args)) {
        topk_long(isa, args, &store, workspace, n_threads);
    } else {
        more = (uint64_t *)workspace + plan.workers * (plan.panel_words + plan.rows_words);
        topk_fused(isa, args, &plan, &store, more, workspace);
    }
    if (bitops_stopped(args->stop))
        return;
    BITOPS_PARALLEL_FOR((int)min_size(plan.workers, args->m), schedule(static))
    for (ptrdiff_t row = 0; row < (ptrdiff_t)args->m; row++) {
        uint64_t *heap = heaps + (size_t)row * count;
        for (size_t span = 0; span < extra; span++)
            for (size_t i = 0; i < count; i++)
                heap_push(heap, count, more[(span * args->m + (size_t)row) * count + i]);
        sort_heap(heap, count);
        for (size_t i = 0; i < count; i++) {
            distances_out[(size_t)row * count + i] = (int32_t)(heap[i] >> 32);
            heap[i] &= UINT32_MAX;
        }
    }
}
