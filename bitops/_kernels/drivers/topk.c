/* topk.c: finds the nearest rows of w for every row of a, without a matrix of distances.
 *
 *   for each block of rows x span of columns                        shared out to threads
 *     heaps of the block and span := empty
 *     for each step of the span       its panels are made in the worker's scratch
 *                                     just before their use, or rows are read as they lie
 *       gemm_panel, whose store keeps ranks below the row's limit, in its heap or list
 *   for each row                                                    shared out to threads
 *     heaps of all spans -> one, sorted -> values, indices
 *
 * A rank is 32 bits that order rows as the metric does (isa/shared/nearest.h). Where only some
 * columns are allowed, a step takes the next allowed ones, whose rows are copied to scratch; or
 * all, and the store leaves out those that are not allowed, if they cost less than copies.
 *
 * Sets whose sizes differ cannot be nearer than that. So where columns are sorted by their counts,
 * a block first looks at some that are like its rows, for a limit, and then leaves out those that
 * no row can find within it.
 *
 * A row meets the columns of its span in increasing order and on one thread, so results do not
 * depend on the number of threads. The heaps of the first span are the array of indices itself.
 * Further spans cost memory, so there are several only as long as their heaps are small; otherwise
 * threads share the rows. A panel is made again for every block of rows, which costs about as much
 * as one row. Long rows go through bitops_gemm, which cuts k, in blocks of distances. */
#include "bitops.h"
#include "drivers/choice.h"
#include "drivers/short_rows.h"
#include "drivers/sizes.h"
#include "drivers/sparse_rows.h"
#include "isa/shared/heap.h"
#include "isa/shared/nearest.h"
#include "isa/shared/store.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    LONG_WORDS = 256,      /* rows with more go through bitops_gemm */
    BLOCK_WORDS = 1 << 15, /* rows of a block of a: 256 KiB, for the second-level cache, */
    ROWS_WORDS = 1 << 18,  /* and at most 2 MiB for all threads */
    MAX_THREADS = 64,      /* so that a block has rows */
    PANEL_WORDS = 1 << 18, /* panels of all threads: 2 MiB */
    HEAP_KEYS = 1 << 18,   /* keys of the spans after the first: 2 MiB */
    LIST_WORDS = 1 << 18,  /* lists of all threads: 2 MiB; */
    LIST_COUNT = 64,       /* lists are faster than heaps from this count on: measured, */
    LIST_ROWS = 8,         /* unless blocks would have fewer rows, since panels are made for each */
    SPAN_COLUMNS = 1024,   /* columns below which a span is not worth a thread */
    PLAIN_WORDS = 1 << 11, /* words of w that are taken at a time as they lie: 16 KiB, */
    PLAIN_COLUMNS = 64,    /* but whole lines of columns */
    FEW_ALLOWED = 10,      /* below a share of 1 / 10 a single pass over w costs more than copies */
    COPY_AHEAD = 16,       /* rows that are prefetched, since they are far apart */
    SEED_ROWS = 8,         /* rows that look for a limit together, */
    SEED_SHARE = 64,       /* in this part of the columns */
    LONG_ROWS = 256,       /* rows and columns of a block of distances: 1 MiB */
    LONG_COLUMNS = 1024,
    THREAD_WORK = 1 << 17, /* word products below which one thread is faster, as in gemm.c */
    THREAD_KEYS = 1 << 8,  /* keys to be sorted below which one thread is faster */
    STOP_STEPS = 32,       /* panels between two looks at the clock */
};

static int is_long(const bitops_isa *isa, const bitops_gemm_args *args) {
    return args->k_words > LONG_WORDS && choose_search_way(isa, args) != BITOPS_PLAIN_ROWS;
}

/* Columns that the kernel takes at a time. */
static size_t step_columns(const bitops_isa *isa, const bitops_gemm_args *args, bitops_way way) {
    switch (way) {
    case BITOPS_PLAIN_ROWS:
        return max_size(PLAIN_WORDS / max_size(args->k_words, 1) / PLAIN_COLUMNS, 1) *
               PLAIN_COLUMNS;
    case BITOPS_SHORT_ROWS:
        return short_columns(isa, args->k_words);
    case BITOPS_SPARSE_ROWS:
        return BITOPS_LINE_COLUMNS;
    default:
        return isa->nr;
    }
}

/* How the work is cut: blocks of `rows` rows times spans of `columns` columns. */
typedef struct topk_plan {
    bitops_way way;
    size_t step; /* columns that the kernel takes at a time */
    size_t workers;
    size_t blocks, rows;
    size_t spans, columns;
    /* Scratch of each worker, in words: the panels of a step, then a block of rows, in whole cache
     * lines, since the panel of the next worker follows. */
    size_t panel_words, rows_words, lists_words, bounds_words, copies_words;
    int copies;       /* the allowed columns are copied, else the store leaves out the others */
    int sorted;       /* columns have ascending counts, which end the search of a row */
    int lists;        /* a block has lists (isa/shared/nearest.h) in place of heaps */
    size_t heap_keys; /* heaps of the spans after the first */
} topk_plan;

/* Panels cost as much as a row of a. If they are made anyway, only those of allowed columns are. */
static int copies_pay(const bitops_isa *isa, const bitops_gemm_args *args, bitops_way way) {
    const uint64_t *allowed = args->store.allowed;
    if (!allowed || way == BITOPS_SPARSE_ROWS)
        return 0;
    int64_t count;
    isa->popcount(allowed, 1, bitops_words(args->n), &count);
    if (way == BITOPS_PLAIN_ROWS)
        return (size_t)count * FEW_ALLOWED < args->n;
    return !args->panels || 2 * (size_t)count < args->n;
}

/* Whether there are counts that bound distances, ascending and not all alike. */
static int are_sorted(const bitops_gemm_args *args) {
    const int32_t *counts = args->store.w_counts;
    if (args->store.kind != BITOPS_STORE_JACCARD && args->store.kind != BITOPS_STORE_DICE)
        return 0;
    for (size_t j = 1; j < args->n; j++)
        if (counts[j - 1] > counts[j])
            return 0;
    return counts[0] < counts[args->n - 1];
}

static topk_plan make_plan(const bitops_isa *isa, const bitops_gemm_args *args, size_t count,
                           int n_threads) {
    const double work = (double)args->m * (double)args->n * (double)args->k_words;
    const size_t keys = args->m * count;
    topk_plan plan = {.way = choose_search_way(isa, args)};
    if (args->lines && bitops_lines_pay(args))
        plan.way = BITOPS_SPARSE_ROWS;
    const int plain = plan.way == BITOPS_PLAIN_ROWS, sparse = plan.way == BITOPS_SPARSE_ROWS;
    plan.step = step_columns(isa, args, plan.way);
    plan.copies = copies_pay(isa, args, plan.way);
    const int ready = (args->panels && !plan.copies) || sparse;
    plan.panel_words = plain || ready ? 0 : plan.step * args->k_words;
    const size_t fit_panels = max_size(PANEL_WORDS / max_size(plan.panel_words, 1), 1);
    const size_t most = min_size(MAX_THREADS, fit_panels);
    const size_t threads = work < THREAD_WORK ? 1 : min_size((size_t)n_threads, most);
    plan.spans = min_size(min_size(threads, 1 + HEAP_KEYS / keys), ceil_div(args->n, SPAN_COLUMNS));
    plan.columns = round_up(ceil_div(args->n, plan.spans),
                            max_size(max_size(isa->nr, PLAIN_COLUMNS), sparse ? plan.step : 1));
    plan.spans = ceil_div(args->n, plan.columns);
    const size_t row_words = sparse              ? SPARSE_LIST * sizeof(uint16_t) / sizeof(uint64_t)
                             : isa->prepack_rows ? args->k_words
                                                 : isa->row_words;
    const size_t depth = max_size(row_words ? row_words : args->k_words, 1);
    const size_t fit = min_size(BLOCK_WORDS, ROWS_WORDS / threads) / depth;
    plan.rows = min_size(fit, ceil_div(args->m * plan.spans, threads));
    const size_t fit_lists = LIST_WORDS / threads / list_words(count);
    plan.lists = count >= LIST_COUNT && fit_lists >= min_size(LIST_ROWS, args->m);
    if (plan.lists)
        plan.rows = min_size(plan.rows, fit_lists / isa->mr * isa->mr);
    plan.sorted = !plan.lists && !plan.copies && are_sorted(args);
    plan.rows = round_up(max_size(plan.rows, 1), isa->mr);
    plan.blocks = ceil_div(args->m, plan.rows);
    plan.workers = min_size(threads, plan.blocks * plan.spans);
    plan.rows_words = plain ? 0 : round_up(plan.rows * row_words, LINE_WORDS);
    plan.lists_words =
        plan.lists ? round_up(min_size(plan.rows, args->m) * list_words(count), LINE_WORDS) : 0;
    plan.bounds_words = round_up(min_size(plan.rows, args->m), LINE_WORDS);
    /* Rows, then ids and counts, two to a word. */
    plan.copies_words = plan.copies ? round_up(plan.step * (args->k_words + 1), LINE_WORDS) : 0;
    plan.heap_keys = (plan.spans - 1) * keys;
    return plan;
}

static size_t worker_words(const topk_plan *plan) {
    return plan->panel_words + plan->rows_words + plan->lists_words + plan->bounds_words +
           plan->copies_words;
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
    if (args->w)
        block.w += j * args->ldw;
    block.store = (bitops_store){
        .kind = BITOPS_STORE_HAMMING, .k = args->store.k, .c = distances, .ldc = block.n};
    return block;
}

/* Bytes of the bounds of all rows. */
static size_t long_bounds(const bitops_gemm_args *args) {
    return round_up(args->m, LINE_WORDS) * sizeof(bitops_bound);
}

size_t bitops_topk_workspace_size(const bitops_isa *isa, const bitops_gemm_args *args, size_t count,
                                  int n_threads) {
    if (args->m == 0)
        return 0;
    if (is_long(isa, args)) {
        const bitops_gemm_args block = long_block(args, 0, 0, NULL);
        return LONG_ROWS * LONG_COLUMNS * sizeof(int32_t) + long_bounds(args) +
               bitops_gemm_workspace_size(isa, &block, n_threads);
    }
    const topk_plan plan = make_plan(isa, args, count, n_threads);
    return (plan.workers * worker_words(&plan) + plan.heap_keys) * sizeof(uint64_t);
}

static void clear_heaps(uint64_t *heaps, size_t keys) {
    for (size_t i = 0; i < keys; i++)
        heaps[i] = HEAP_NONE;
}

/* The bounds of m rows, from a_counts on, of which nothing has been kept. */
static void clear_bounds(bitops_store *store, size_t m, void *memory) {
    if (store->metric == BITOPS_STORE_HAMMING)
        return;
    store->bounds = memory;
    for (size_t i = 0; i < m; i++)
        store->bounds[i] = nearest_bound(UINT32_MAX, store->a_counts[i], store);
}

static void topk_long(const bitops_isa *isa, const bitops_gemm_args *args, bitops_store store,
                      void *workspace, int n_threads) {
    int32_t *distances = workspace;
    char *bounds = (char *)workspace + LONG_ROWS * LONG_COLUMNS * sizeof(int32_t);
    char *rest = bounds + long_bounds(args);
    clear_heaps(store.c, args->m * store.ldc);
    clear_bounds(&store, args->m, bounds);
    for (size_t i = 0; i < args->m; i += LONG_ROWS)
        for (size_t j = 0; j < args->n && !bitops_stopped(args->stop); j += LONG_COLUMNS) {
            const bitops_gemm_args block = long_block(args, i, j, distances);
            bitops_gemm(isa, &block, rest, n_threads);
            store_block(distances, block.n, block.m, block.n, i, j, &store);
        }
}

/* ---- steps of columns ---------------------------------------------------------------------- */

/* What a kernel takes: n columns, which are the rows w or ordered into panels. The store sees the
 * first of them at `col`. */
typedef struct topk_step {
    const uint64_t *w, *panels;
    size_t ldw, n, col;
} topk_step;

/* Ids of the allowed columns from *next on, in increasing order, up to `most` of them. */
static size_t take_allowed(const uint64_t *allowed, size_t *next, size_t end, size_t most,
                           uint32_t *ids_out) {
    size_t n = 0, j = *next;
    while (j < end && n < most) {
        const uint64_t word = allowed[j / BITOPS_WORD_BITS] >> j % BITOPS_WORD_BITS;
        if (!word) {
            j = (j / BITOPS_WORD_BITS + 1) * BITOPS_WORD_BITS;
            continue;
        }
        j += (size_t)__builtin_ctzll(word);
        if (j < end)
            ids_out[n++] = (uint32_t)j++;
    }
    *next = j;
    return n;
}

static void copy_rows(const uint64_t *w, size_t ldw, const uint32_t *ids, size_t n, size_t k_words,
                      uint64_t *rows_out) {
    for (size_t i = 0; i < n; i++) {
        const uint64_t *row = w + ids[i] * ldw;
        if (i + COPY_AHEAD < n)
            BITOPS_PREFETCH(w + ids[i + COPY_AHEAD] * ldw);
        for (size_t p = 0; p < k_words; p++) {
            BITOPS_IN_POINTER(row); /* no call of memcpy for a few words */
            *rows_out++ = row[p];
        }
    }
}

/* The next allowed columns from *next on, copied to scratch; ids and counts go to store. */
static topk_step copied_step(const bitops_gemm_args *args, const topk_plan *plan, size_t *next,
                             size_t end, bitops_store *store, uint64_t *scratch) {
    uint32_t *ids = (uint32_t *)(scratch + plan->step * args->k_words);
    int32_t *counts = (int32_t *)(ids + plan->step);
    const size_t n = take_allowed(args->store.allowed, next, end, plan->step, ids);
    copy_rows(args->w, args->ldw, ids, n, args->k_words, scratch);
    store->ids = ids;
    if (store->bounds) {
        for (size_t j = 0; j < n; j++)
            counts[j] = args->store.w_counts[ids[j]];
        store->w_counts = counts;
    }
    return (topk_step){.w = scratch, .ldw = args->k_words, .n = n};
}

/* Whether any of n columns from j on is allowed; j is a multiple of 8. */
static int any_allowed(const uint64_t *allowed, size_t j, size_t n) {
    const uint8_t *bytes = (const uint8_t *)allowed + j / 8;
    uint8_t any = 0;
    for (size_t i = 0; i < ceil_div(n, 8); i++)
        any |= bytes[i];
    return any;
}

/* Columns [*next, *next + step) as they lie; none of them if none is allowed. */
static topk_step plain_step(const bitops_gemm_args *args, const topk_plan *plan, size_t *next,
                            size_t end) {
    const size_t j = *next, n = min_size(plan->step, end - j);
    *next = j + n;
    if (args->store.allowed && !any_allowed(args->store.allowed, j, n))
        return (topk_step){.n = 0};
    return (topk_step){.w = args->w + j * args->ldw,
                       .panels = args->panels ? args->panels + j * args->k_words : NULL,
                       .ldw = args->ldw,
                       .n = n,
                       .col = j};
}

/* Panels of a step: in place if they are prepacked, else made in scratch. */
static const uint64_t *panels_of(const bitops_isa *isa, const topk_step *step, size_t k_words,
                                 uint64_t *scratch) {
    if (step->panels)
        return step->panels;
    for (size_t i = 0; i < step->n; i += isa->nr)
        isa->prepack(step->w + i * step->ldw, step->ldw, min_size(isa->nr, step->n - i), k_words,
                     scratch + i * k_words);
    return scratch;
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* A block of rows [i, i + m) of a times a span of columns [j, end). The store begins with row i. */
typedef struct topk_task {
    size_t i, m, j, end;
} topk_task;

/* What all steps of a task share. */
typedef struct topk_rows {
    const bitops_isa *isa;
    const bitops_gemm_args *args;
    const topk_plan *plan;
    const uint64_t *a; /* in the form that the kernel reads */
    size_t lda;
    uint64_t *panels, *counters;
} topk_rows;

/* Rows [first, last) times the columns of a step. */
static void multiply_step(const topk_rows *rows, size_t first, size_t last, const topk_step *step,
                          const bitops_store *store) {
    const bitops_isa *isa = rows->isa;
    const size_t k_words = rows->args->k_words, lda = rows->lda, m = last - first;
    const uint64_t *a = rows->a + first * lda;
    switch (rows->plan->way) {
    case BITOPS_PLAIN_ROWS:
        isa->gemm_rows(a, lda, m, step->w, step->ldw, step->n, k_words, first, step->col, store);
        break;
    case BITOPS_SHORT_ROWS:
        isa->gemm_short(a, lda, m, panels_of(isa, step, k_words, rows->panels), step->n, k_words,
                        first, step->col, store);
        break;
    case BITOPS_SPARSE_ROWS:
        bitops_multiply_lines(isa, (const uint16_t *)rows->counters + first * SPARSE_LIST, m,
                              rows->args->lines + step->col * k_words, step->n, first, step->col,
                              store);
        break;
    case BITOPS_PANELS:
    case BITOPS_FRESH_PANELS: /* which is what searches make of all panels */
        isa->gemm_panel(a, lda, m, panels_of(isa, step, k_words, rows->panels), step->n, k_words,
                        first, step->col, store, rows->counters);
        break;
    }
}

/* Whether a row may find something near among columns with counts from low to high. The nearest
 * that they can be is a subset or superset of the row. */
static int may_be_near(const bitops_store *store, size_t row, int32_t low, int32_t high) {
    const int32_t a_count = store->a_counts[row];
    const int32_t like = a_count < low ? low : a_count > high ? high : a_count;
    const int32_t mismatches = like > a_count ? like - a_count : a_count - like;
    const bitops_bound bound = store->bounds[row];
    return (float)mismatches < bound.factor * (float)like + bound.term;
}

/* Columns [j, j + n), for the rows from the first to the last that may find something near. */
static void multiply_near(const topk_rows *rows, const topk_task *task, size_t j, size_t n,
                          const bitops_store *store) {
    const int32_t *counts = store->w_counts + j;
    size_t first = 0, last = task->m;
    while (first < last && !may_be_near(store, first, counts[0], counts[n - 1]))
        first++;
    while (last > first && !may_be_near(store, last - 1, counts[0], counts[n - 1]))
        last--;
    if (first == last)
        return;
    const topk_step step = plain_step(rows->args, rows->plan, &j, j + n);
    if (step.n)
        multiply_step(rows, first, last, &step, store);
}

/* The first column of the span, a whole number of steps from its start, near the given count. */
static size_t start_of(const topk_task *task, const topk_plan *plan, const int32_t *counts,
                       int32_t count) {
    size_t low = task->j, high = task->end;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (counts[middle] < count)
            low = middle + 1;
        else
            high = middle;
    }
    return task->j + (low - task->j) / plan->step * plan->step;
}

/* Finds limits for the heaps of a span, each from a part of the columns with counts like those of
 * its row. The heaps are left with as many keys of the limit, beyond the indices of all columns, so
 * that what has been found is found again. */
static void seed_heaps(const topk_rows *rows, const topk_task *task, const bitops_store *store) {
    const size_t step = rows->plan->step, count = store->ldc;
    const size_t width = round_up(ceil_div(task->end - task->j, SEED_SHARE), step);
    uint64_t *heaps = store->c;
    for (size_t first = 0; first < task->m; first += SEED_ROWS) {
        const size_t last = min_size(first + SEED_ROWS, task->m);
        const int32_t middle = store->a_counts[first + (last - first) / 2];
        size_t j = start_of(task, rows->plan, store->w_counts, middle);
        j -= min_size(j - task->j, width / 2 / step * step);
        for (const size_t end = min_size(j + width, task->end); j < end;) {
            const topk_step own = plain_step(rows->args, rows->plan, &j, end);
            if (own.n)
                multiply_step(rows, first, last, &own, store);
        }
    }
    for (size_t row = 0; row < task->m; row++, heaps += count) {
        const uint64_t limit = heaps[0] | UINT32_MAX;
        for (size_t i = 0; i < count; i++)
            heaps[i] = limit;
    }
}

/* The columns of a span that any row may find near. */
static void multiply_sorted(const topk_rows *rows, const topk_task *task,
                            const bitops_store *store) {
    seed_heaps(rows, task, store);
    for (size_t j = task->j, steps = 0; j < task->end; j += rows->plan->step, steps++) {
        if (bitops_stopped_at(steps, STOP_STEPS, rows->args->stop))
            return;
        multiply_near(rows, task, j, min_size(rows->plan->step, task->end - j), store);
    }
}

static void multiply(const bitops_isa *isa, const bitops_gemm_args *args, const topk_plan *plan,
                     const topk_task *task, bitops_store *store, uint64_t *scratch) {
    uint64_t *form = scratch + plan->panel_words, *copies = form + plan->rows_words;
    topk_rows rows = {.isa = isa,
                      .args = args,
                      .plan = plan,
                      .a = args->a + task->i * args->lda,
                      .lda = args->lda,
                      .panels = scratch,
                      .counters = form};
    if (plan->way == BITOPS_SPARSE_ROWS) {
        bitops_list_ones(rows.a, rows.lda, task->m, args->k_words, (uint16_t *)form);
    } else if (plan->rows_words && isa->prepack_rows) {
        isa->prepack_rows(rows.a, rows.lda, task->m, args->k_words, form, args->k_words);
        rows.a = form;
        rows.lda = args->k_words;
    }
    if (plan->sorted) {
        multiply_sorted(&rows, task, store);
        return;
    }
    for (size_t j = task->j, steps = 0; j < task->end; steps++) {
        if (bitops_stopped_at(steps, STOP_STEPS, args->stop))
            return;
        const topk_step step = plan->copies ? copied_step(args, plan, &j, task->end, store, copies)
                                            : plain_step(args, plan, &j, task->end);
        if (step.n)
            multiply_step(&rows, 0, task->m, &step, store);
    }
}

/* The keys that a list keeps, as a heap. */
static void list_to_heap(uint64_t *list, uint64_t *heap_out, size_t count) {
    if (list[1] > count)
        list_select(list, count);
    memcpy(heap_out, list + LIST_HEAD, list[1] * sizeof *list);
    clear_heaps(heap_out + list[1], count - list[1]);
    heap_make(heap_out, count);
}

/* The heaps of one block of rows and span of columns, which are those of store. */
static void topk_block(const bitops_isa *isa, const bitops_gemm_args *args, const topk_plan *plan,
                       size_t block, size_t span, const bitops_store *store, uint64_t *scratch) {
    const size_t i = block * plan->rows, count = store->ldc, words = list_words(count);
    const topk_task task = {.i = i,
                            .m = min_size(plan->rows, args->m - i),
                            .j = span * plan->columns,
                            .end = min_size((span + 1) * plan->columns, args->n)};
    uint64_t *heaps = (uint64_t *)store->c + i * count;
    uint64_t *lists = scratch + plan->panel_words + plan->rows_words + plan->copies_words;
    bitops_store own = *store;
    if (plan->copies)
        own.allowed = NULL; /* all copies are */
    if (own.a_counts)
        own.a_counts += i;
    clear_bounds(&own, task.m, lists + plan->lists_words);
    if (!plan->lists) {
        own.c = heaps;
        clear_heaps(heaps, task.m * count);
        multiply(isa, args, plan, &task, &own, scratch);
        return;
    }
    own.c = lists;
    own.ldc = words;
    own.keep = count;
    for (size_t row = 0; row < task.m; row++)
        list_clear(lists + row * words);
    multiply(isa, args, plan, &task, &own, scratch);
    for (size_t row = 0; row < task.m; row++)
        list_to_heap(lists + row * words, heaps + row * count, count);
}

static void topk_fused(const bitops_isa *isa, const bitops_gemm_args *args, const topk_plan *plan,
                       const bitops_store *store, uint64_t *heaps, uint64_t *scratch) {
    const double work = (double)args->m * (double)args->n * (double)args->k_words;
    const int threads = bitops_share(work, THREAD_WORK, (int)plan->workers);
    BITOPS_PARALLEL_FOR(threads, schedule(static))
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
                       scratch + (size_t)worker * worker_words(plan));
        }
}

/* ---- results ------------------------------------------------------------------------------- */

/* Sorts the keys of a heap in increasing order. */
static void sort_heap(uint64_t *heap, size_t count) {
    for (size_t last = count; last-- > 1;) {
        const uint64_t key = heap[last];
        heap[last] = heap[0];
        heap_replace_root(heap, last, key);
    }
}

/* Writes value i of the results, whose rank and column are those of a key, or -1. */
static void write_value(const bitops_store *store, uint64_t key, size_t row, size_t i) {
    const int is_float = store_number_size(store->kind) == sizeof(double);
    const uint32_t rank = (uint32_t)(key >> 32);
    double value = rank;
    if (store->kind == BITOPS_STORE_INTERSECTION)
        value = RANK_MOST - rank;
    if (is_float && key != HEAP_NONE) { /* a fraction again: the integer next to it is h */
        const double sum = (double)store->a_counts[row] + (double)store->w_counts[key & UINT32_MAX];
        const double h = (double)(int64_t)(sum * rank / (2.0 * RANK_MOST - rank) + 0.5);
        const double size = store->kind == BITOPS_STORE_JACCARD ? (sum + h) / 2 : sum;
        value = h / (size > 1 ? size : 1);
    }
    if (key == HEAP_NONE)
        value = -1;
    if (is_float)
        ((double *)store->c)[i] = value;
    else
        ((int32_t *)store->c)[i] = (int32_t)value;
}

void bitops_topk(const bitops_isa *isa, const bitops_gemm_args *args, size_t count,
                 int64_t *indices_out, void *workspace, int n_threads) {
    if (args->m == 0)
        return;
    uint64_t *const heaps = (uint64_t *)indices_out, *more = NULL;
    bitops_store store = args->store;
    store.kind = BITOPS_STORE_TOPK;
    store.metric = args->store.kind == BITOPS_STORE_DICE ? BITOPS_STORE_JACCARD : args->store.kind;
    store.c = heaps;
    store.ldc = count;
    const topk_plan plan = make_plan(isa, args, count, n_threads);
    store.inclusive = plan.sorted && !is_long(isa, args);
    const size_t extra = is_long(isa, args) ? 0 : plan.spans - 1;
    if (is_long(isa, args)) {
        topk_long(isa, args, store, workspace, n_threads);
    } else {
        more = (uint64_t *)workspace + plan.workers * worker_words(&plan);
        topk_fused(isa, args, &plan, &store, more, workspace);
    }
    if (bitops_stopped(args->stop))
        return;
    const double keys = (double)args->m * (double)count * (double)(1 + extra);
    const int threads = bitops_share(keys, THREAD_KEYS, (int)min_size(plan.workers, args->m));
    BITOPS_PARALLEL_FOR(threads, schedule(static))
    for (ptrdiff_t row = 0; row < (ptrdiff_t)args->m; row++) {
        uint64_t *heap = heaps + (size_t)row * count;
        for (size_t span = 0; span < extra; span++)
            for (size_t i = 0; i < count; i++)
                heap_push(heap, count, more[(span * args->m + (size_t)row) * count + i]);
        sort_heap(heap, count);
        for (size_t i = 0; i < count; i++) {
            const uint64_t key = heap[i];
            write_value(&args->store, key, (size_t)row, (size_t)row * count + i);
            indices_out[(size_t)row * count + i] =
                key == HEAP_NONE ? -1 : (int64_t)(key & UINT32_MAX);
        }
    }
}
