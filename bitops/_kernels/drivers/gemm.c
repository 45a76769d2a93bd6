/* gemm.c: the driver of every product with bits on both sides: cache blocks, panels, threads.
 *
 *   for jc in n by columns            as many panels as the workspace holds (all, if prepacked)
 *     for ic in m                     all of m at once, unless k is cut
 *       for pc in k by KC_WORDS       usually one slice
 *         order the slice of w into panels
 *         for each block of rows x group of panels: gemm_panel        shared out to threads
 *       mismatches of all slices -> c
 *
 * A panel of one slice stays in the first-level cache while the rows of a block pass over it; the
 * rows of a block, in the form the kernel reads, stay in the second-level cache. The rows of images
 * are gathered there block by block, so their im2col matrix never exists. If k is cut, mismatches
 * are summed in a block of int32, which is transformed after the last slice.
 *
 * The workspace, and in it the scratch of one thread; a part that is not needed is empty:
 *
 *   | panels | sums | thread 0 | thread 1 | ...
 *                     | rows | counters | offsets | whole row | counts |
 */
#include "bitops.h"
#include "drivers/choice.h"
#include "drivers/few_rows.h"
#include "drivers/short_rows.h"
#include "drivers/sizes.h"
#include "drivers/stream.h"
#include "isa/shared/store.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    /* 16384 bits: a panel of 32 columns takes 64 KiB. Short enough for the 16-bit counters of
     * avx2.c (1023 words). */
    KC_WORDS = 256,
    PANEL_WORDS = 1 << 19, /* workspace for panels: 4 MiB */
    SLICED_COLUMNS = 1024, /* columns and rows of the int32 block of a product cut along k: */
    SLICED_ROWS = 512,     /* 2 MiB, beside panels of 2 MiB */
    BLOCK_WORDS = 1 << 15, /* rows of a block of a: 256 KiB a thread, */
    IMAGE_WORDS = 1 << 12, /* of images, gathered: 32 KiB, */
    ROWS_WORDS = 1 << 18,  /* and at most 2 MiB for all threads */
    /* Of a product that keeps counts: words of k whose counts fit bytes, rows from which on the
     * tables of panels pay, and the largest block: 256 KiB of counts. */
    COUNTED_WORDS = 3,
    COUNTED_LEAST = 48,
    COUNTED_BLOCK_WORDS = 2 * BLOCK_WORDS,
    COUNTED_ROWS = 256,
    COUNTED_COLUMNS = 1024,
    MAX_THREADS = ROWS_WORDS / (4 * KC_WORDS), /* at least 4 rows for each */
    TASKS_A_THREAD = 4,                        /* so that no thread waits long for the last one */
    /* Word products below which one thread is as fast. Measured on two Zen 4 cores with threads
     * awake: 64x128x1024 (2^17) takes 12.1 us with one thread and 10.0 with two, 64x64x512 (2^15)
     * 7.4 and 6.9, the plain rows of 1x4096x4096 (2^18) 46 and 27. */
    THREAD_WORK = 1 << 17,
    STOP_STEPS = 32, /* panels between two looks at the clock */
};

static double word_products(size_t m, size_t n, size_t k_words) {
    return (double)m * (double)n * (double)k_words;
}

static int team(const bitops_gemm_args *args, int n_threads) {
    if (word_products(args->m, args->n, args->k_words) < THREAD_WORK)
        return 1;
    return n_threads < MAX_THREADS ? n_threads : MAX_THREADS;
}

/* ---- the plan ------------------------------------------------------------------------------ */

/* How one product is cut, and where the parts of the workspace lie, in words. */
typedef struct gemm_plan {
    const bitops_isa *isa;
    const bitops_gemm_args *args;
    int threads;
    bitops_way way; /* nothing below is used but for BITOPS_PANELS */
    int sliced;     /* k is cut */
    size_t depth;   /* words of k in a slice */
    size_t columns; /* columns whose panels exist at a time */
    size_t rows;    /* rows of a block of a */
    size_t counted; /* columns whose counts are kept until rows of them are stored, or 0 */
    /* In the workspace. The panels that are made here lie at 0. */
    size_t sums_at;    /* block of int32 */
    size_t threads_at; /* scratch of the threads, thread_words each */
    size_t thread_words;
    /* In the scratch of a thread. The rows of a block, as the kernel reads them, lie at 0. */
    size_t counters_at; /* scratch of the kernel */
    size_t offsets_at;  /* numbers of the rows of offsets, for the store */
    size_t whole_at;    /* a row of images with all of k */
    size_t counts_at;   /* bytes, rows x counted */
} gemm_plan;

/* Short rows take less time to multiply than their outputs take to write, and a column of panels is
 * too short a piece of a row to write well. Where the kernel needs many rows for each panel, counts
 * are kept as bytes until a longer piece of each row is stored at once. */
static int keeps_counts(const bitops_isa *isa, const bitops_gemm_args *args) {
    switch (args->store.kind) {
    case BITOPS_STORE_DOT:
    case BITOPS_STORE_SCALED:
    case BITOPS_STORE_HAMMING:
    case BITOPS_STORE_HAMMING16:
    case BITOPS_STORE_SIGN:
        return isa->row_words && args->m >= COUNTED_LEAST && args->n > isa->nr &&
               args->k_words > 0 && args->k_words <= COUNTED_WORDS;
    default:
        return 0;
    }
}

/* The share of a thread in the rows. */
static size_t share_of_rows(const gemm_plan *plan) {
    return round_up(ceil_div(plan->args->m, (size_t)plan->threads), plan->isa->mr);
}

/* As many rows as fit in the cache, but no more than the share of a thread. */
static size_t most_rows(const gemm_plan *plan) {
    const bitops_isa *isa = plan->isa;
    const bitops_gemm_args *args = plan->args;
    const size_t threads = (size_t)plan->threads, depth = max_size(plan->depth, 1);
    const size_t share = share_of_rows(plan);
    const size_t most = plan->counted                    ? COUNTED_BLOCK_WORDS
                        : args->image && !isa->row_words ? IMAGE_WORDS
                                                         : BLOCK_WORDS;
    const size_t block_words = min_size(most, ROWS_WORDS / threads);
    if (!isa->row_words)
        return min_size(share, max_size(block_words / depth / isa->mr, 1) * isa->mr);
    /* The kernel's scratch, not a, fills the cache. */
    const size_t row_words =
        isa->row_words + (args->image ? plan->depth : 0) + plan->counted / sizeof(uint64_t);
    size_t fit = max_size(block_words / row_words / isa->mr, 1) * isa->mr;
    if (plan->counted)
        fit = min_size(fit, COUNTED_ROWS);
    return min_size(share, fit);
}

/* Rows of a block: where the kernel has scratch, blocks are as equal as can be. */
static size_t block_rows(const gemm_plan *plan) {
    const size_t most = most_rows(plan), share = share_of_rows(plan);
    return plan->isa->row_words && most
               ? round_up(ceil_div(share, ceil_div(share, most)), plan->isa->mr)
               : most;
}

/* Each part takes whole cache lines, so that what follows stays aligned. */
static void place_parts(gemm_plan *plan) {
    const bitops_isa *isa = plan->isa;
    const bitops_gemm_args *args = plan->args;
    size_t at = args->panels ? 0 : plan->columns * plan->depth; /* columns is a multiple of 8 */
    plan->sums_at = at;
    if (plan->sliced) /* two int32 to a word */
        at += round_up(min_size(args->m, SLICED_ROWS) * plan->columns / 2, LINE_WORDS);
    plan->threads_at = at;

    at = args->image || isa->prepack_rows ? round_up(plan->rows * plan->depth, LINE_WORDS) : 0;
    plan->counters_at = at;
    at += round_up(plan->rows * isa->row_words, LINE_WORDS);
    plan->offsets_at = at;
    if (args->store.offset)
        at += round_up(plan->sliced ? SLICED_ROWS : plan->rows, 2 * LINE_WORDS) / 2;
    plan->whole_at = at;
    if (plan->sliced && args->image)
        at += round_up(args->k_words, LINE_WORDS);
    plan->counts_at = at;
    if (plan->counted) /* signs are made of whole words of counts */
        at += round_up(plan->rows * plan->counted / sizeof(uint64_t), LINE_WORDS) + LINE_WORDS;
    plan->thread_words = at;
}

static gemm_plan make_plan(const bitops_isa *isa, const bitops_gemm_args *args, int n_threads) {
    gemm_plan plan = {.isa = isa, .args = args, .threads = team(args, n_threads)};
    plan.way = choose_way(isa, args);
    if (plan.way != BITOPS_PANELS)
        return plan;
    plan.sliced = args->k_words > KC_WORDS;
    plan.depth = min_size(args->k_words, KC_WORDS);
    plan.columns = round_up(args->n, isa->nr);
    if (plan.sliced)
        plan.columns = min_size(plan.columns, SLICED_COLUMNS);
    else if (!args->panels)
        plan.columns =
            min_size(plan.columns, PANEL_WORDS / max_size(plan.depth, 1) / isa->nr * isa->nr);
    if (keeps_counts(isa, args))
        plan.counted = min_size(plan.columns, COUNTED_COLUMNS);
    plan.rows = block_rows(&plan);
    if (plan.counted && plan.rows < COUNTED_LEAST) { /* the share of a thread */
        plan.counted = 0;
        plan.rows = block_rows(&plan);
    }
    place_parts(&plan);
    return plan;
}

/* Words for this many rows and columns, or fewer of them, which blocks may fill better. */
static size_t words_for(gemm_plan plan) {
    const bitops_isa *isa = plan.isa;
    const size_t most = keeps_counts(isa, plan.args) ? min_size(plan.columns, COUNTED_COLUMNS) : 0;
    size_t words = 0;
    for (plan.counted = 0; plan.counted <= most; plan.counted += isa->nr) {
        plan.rows = most_rows(&plan);
        place_parts(&plan);
        words = max_size(words, plan.threads_at + plan.thread_words * (size_t)plan.threads);
    }
    return words;
}

size_t bitops_gemm_workspace_size(const bitops_isa *isa, const bitops_gemm_args *args,
                                  int n_threads) {
    const gemm_plan plan = make_plan(isa, args, n_threads);
    if (plan.way != BITOPS_PANELS)
        return 0;
    size_t words = words_for(plan);
    if (plan.threads > 1) /* a smaller product may have but one thread */
        words = max_size(words, words_for(make_plan(isa, args, 1)));
    return words * sizeof(uint64_t);
}

/* ---- one slice of k ------------------------------------------------------------------------ */

/* Rows [a_row, a_row + m) of a times n columns, over words [word, word + k_words) of k. The panels
 * of the columns lie panel_stride words apart. Mismatches go to (row, col) of store. */
typedef struct slice {
    size_t a_row, m;
    size_t word;
    const uint64_t *panels;
    size_t panel_stride, n, k_words;
    size_t row, col;
    const bitops_store *store;
} slice;

/* Rows [first, first + rows) of a slice of images: each is gathered whole, then cut. */
static void gather_slice(const gemm_plan *plan, const slice *s, size_t first, size_t rows,
                         uint64_t *scratch) {
    const bitops_gemm_args *args = plan->args;
    uint64_t *whole_row = scratch + plan->whole_at;
    for (size_t i = 0; i < rows; i++) {
        bitops_gather(args->image, args->image_row + first + i, 1, plan->isa->prepack_rows,
                      whole_row, args->k_words, args->stop);
        memcpy(scratch + i * s->k_words, whole_row + s->word, s->k_words * sizeof *whole_row);
    }
}

/* Rows [first, first + rows) of a slice, in the form the kernel reads; lda_out is the distance
 * between them. */
static const uint64_t *load_rows(const gemm_plan *plan, const slice *s, size_t first, size_t rows,
                                 uint64_t *scratch, size_t *lda_out) {
    const bitops_gemm_args *args = plan->args;
    *lda_out = s->k_words;
    if (args->image && plan->sliced) {
        gather_slice(plan, s, first, rows, scratch);
        return scratch;
    }
    if (args->image) {
        bitops_gather(args->image, args->image_row + first, rows, plan->isa->prepack_rows, scratch,
                      s->k_words, args->stop);
        return scratch;
    }
    const uint64_t *a = args->a + first * args->lda + s->word;
    if (plan->isa->prepack_rows) {
        plan->isa->prepack_rows(a, args->lda, rows, s->k_words, scratch, s->k_words);
        return scratch;
    }
    *lda_out = args->lda;
    return a;
}

/* The store for rows [row, row + rows), which knows their offsets. */
static bitops_store store_for_rows(const gemm_plan *plan, const bitops_store *store, size_t row,
                                   size_t rows, uint64_t *scratch) {
    bitops_store own = *store;
    if (store->offset) {
        uint32_t *offset_row = (uint32_t *)(scratch + plan->offsets_at);
        bitops_gather_offsets(plan->args->image, plan->args->image_row + row, rows, offset_row);
        own.offset_row = offset_row;
        own.first_row = row;
    }
    return own;
}

/* Stores the counts of rows [row, row + rows) and n columns from col on. */
static void store_kept(const gemm_plan *plan, const uint8_t *counts, size_t rows, size_t n,
                       size_t row, size_t col, const bitops_store *store) {
    const bitops_isa *isa = plan->isa;
    if (!is_streamed(plan->args) || store->offset) {
        isa->store_counts(counts, rows, n, row, col, store);
        return;
    }
    for (size_t i = row; i < row + rows; i++, counts += n) {
        _Alignas(LINE_BYTES) int32_t line[COUNTED_COLUMNS];
        const bitops_store own = store_to_line(store, i, col, line);
        isa->store_counts(counts, 1, n, 0, 0, &own);
        stream_line(store, i, col, line, n);
    }
}

/* Rows [i, i + rows) of a slice times its panels [first, last), stored by way of their counts. */
static void count_block(const gemm_plan *plan, const slice *s, const uint64_t *a, size_t lda,
                        size_t i, size_t rows, size_t first, size_t last, const bitops_store *store,
                        uint64_t *scratch) {
    const bitops_isa *isa = plan->isa;
    const size_t nr = isa->nr, end = min_size(last * nr, s->n);
    uint8_t *counts = (uint8_t *)(scratch + plan->counts_at);
    for (size_t j = first * nr; j < end; j += plan->counted) {
        const size_t n = min_size(plan->counted, end - j);
        const bitops_store bytes = {.kind = BITOPS_STORE_HAMMING8, .c = counts, .ldc = n};
        if (bitops_stopped(plan->args->stop))
            return;
        for (size_t own = 0; own < n; own += nr)
            isa->gemm_panel(a, lda, rows, s->panels + (j + own) / nr * s->panel_stride,
                            min_size(nr, n - own), s->k_words, 0, own, &bytes,
                            scratch + plan->counters_at);
        store_kept(plan, counts, rows, n, s->row + i, s->col + j, store);
    }
}

/* Rows [i, i + rows) of a slice times its panels [first, last): one panel at a time, or as many as
 * the first-level cache holds if rows are short. */
static void gemm_block(const gemm_plan *plan, const slice *s, size_t i, size_t rows, size_t first,
                       size_t last, uint64_t *scratch) {
    size_t lda;
    const bitops_isa *isa = plan->isa;
    const uint64_t *a = load_rows(plan, s, s->a_row + i, rows, scratch, &lda);
    const bitops_store store = store_for_rows(plan, s->store, s->row + i, rows, scratch);
    if (plan->counted) {
        count_block(plan, s, a, lda, i, rows, first, last, &store, scratch);
        return;
    }
    const int is_short = !plan->sliced && rows_are_short(isa, s->k_words);
    const size_t step = is_short ? short_columns(isa, s->k_words) / isa->nr : 1;
    for (size_t panel = first; panel < last; panel += step) {
        const size_t j = panel * isa->nr,
                     n = min_size(min_size(step, last - panel) * isa->nr, s->n - j);
        const uint64_t *panels = s->panels + panel * s->panel_stride;
        if (bitops_stopped_at((panel - first) / step, STOP_STEPS, plan->args->stop))
            return;
        if (is_short)
            isa->gemm_short(a, lda, rows, panels, n, s->k_words, s->row + i, s->col + j, &store);
        else
            isa->gemm_panel(a, lda, rows, panels, n, s->k_words, s->row + i, s->col + j, &store,
                            scratch + plan->counters_at);
    }
}

/* Task `task`: a block of rows times one of the groups of panels. */
static void gemm_task(const gemm_plan *plan, const slice *s, size_t panels, size_t groups,
                      size_t task, uint64_t *workspace) {
    /* One thread may be any of a team that shares more than this product. */
    const size_t thread = plan->threads == 1 ? 0 : (size_t)bitops_thread_number();
    const size_t i = task / groups * plan->rows, group = ceil_div(panels, groups);
    const size_t first = min_size(task % groups * group, panels);
    if (!bitops_stopped(plan->args->stop))
        gemm_block(plan, s, i, min_size(plan->rows, s->m - i), first,
                   min_size(first + group, panels),
                   workspace + plan->threads_at + plan->thread_words * thread);
}

static void gemm_slice(const gemm_plan *plan, const slice *s, uint64_t *workspace) {
    const size_t panels = ceil_div(s->n, plan->isa->nr), blocks = ceil_div(s->m, plan->rows);
    const double work = word_products(s->m, s->n, s->k_words);
    const int threads = bitops_share(work, THREAD_WORK, plan->threads);
    size_t groups = 1;
    if (threads > 1)
        groups = min_size(panels, ceil_div((size_t)threads * TASKS_A_THREAD, blocks));
    BITOPS_FOR_TASKS(threads, blocks * groups,
                     gemm_task(plan, s, panels, groups, (size_t)task, workspace));
}

/* The panels of the columns [jc, jc + n) of a slice, from its first word on: in place if they are
 * prepacked, else made in the workspace. */
static void set_panels(const gemm_plan *plan, slice *s, size_t jc, uint64_t *workspace) {
    const bitops_gemm_args *args = plan->args;
    const size_t nr = plan->isa->nr;
    if (args->panels) {
        s->panel_stride = nr * args->k_words;
        s->panels = args->panels + jc * args->k_words + s->word * nr;
        return;
    }
    s->panel_stride = nr * s->k_words;
    s->panels = workspace;
    bitops_prepack_all(plan->isa, args->w + jc * args->ldw + s->word, args->ldw, s->n, s->k_words,
                       workspace, NULL, plan->threads);
}

/* ---- the product --------------------------------------------------------------------------- */

/* The sums of all slices of k for the block (ic, jc) of m x n outputs, then their transform. */
static void gemm_sliced_block(const gemm_plan *plan, size_t ic, size_t m, size_t jc, size_t n,
                              uint64_t *workspace) {
    const bitops_gemm_args *args = plan->args;
    int32_t *sums = (int32_t *)(workspace + plan->sums_at);
    const bitops_store accumulate = {.kind = BITOPS_STORE_ACCUMULATE, .c = sums, .ldc = n};
    for (size_t i = 0; i < m * n; i++)
        sums[i] = 0;
    for (size_t pc = 0; pc < args->k_words && !bitops_stopped(args->stop); pc += KC_WORDS) {
        slice s = {.a_row = ic,
                   .m = m,
                   .word = pc,
                   .n = n,
                   .k_words = min_size(KC_WORDS, args->k_words - pc),
                   .store = &accumulate};
        set_panels(plan, &s, jc, workspace);
        gemm_slice(plan, &s, workspace);
    }
    const bitops_store store =
        store_for_rows(plan, &args->store, ic, m, workspace + plan->threads_at);
    store_block(sums, n, m, n, ic, jc, &store);
}

static void gemm_sliced(const gemm_plan *plan, uint64_t *workspace) {
    const bitops_gemm_args *args = plan->args;
    for (size_t jc = 0; jc < args->n; jc += plan->columns)
        for (size_t ic = 0; ic < args->m && !bitops_stopped(args->stop); ic += SLICED_ROWS)
            gemm_sliced_block(plan, ic, min_size(SLICED_ROWS, args->m - ic), jc,
                              min_size(plan->columns, args->n - jc), workspace);
}

static void gemm_whole(const gemm_plan *plan, uint64_t *workspace) {
    const bitops_gemm_args *args = plan->args;
    for (size_t jc = 0; jc < args->n && !bitops_stopped(args->stop); jc += plan->columns) {
        slice s = {.m = args->m,
                   .n = min_size(plan->columns, args->n - jc),
                   .k_words = args->k_words,
                   .col = jc,
                   .store = &args->store};
        set_panels(plan, &s, jc, workspace);
        gemm_slice(plan, &s, workspace);
    }
}

/* Kernels write the bytes of their columns; the rest of the last word is cleared here. */
static void clear_last_words(const bitops_gemm_args *args) {
    const size_t last = bitops_words(args->n) - 1;
    for (size_t i = 0; i < args->m; i++)
        ((uint64_t *)args->store.c)[i * args->store.ldc + last] = 0;
}

void bitops_gemm(const bitops_isa *isa, const bitops_gemm_args *args, void *workspace,
                 int n_threads) {
    if (args->m == 0 || args->n == 0)
        return;
    const gemm_plan plan = make_plan(isa, args, n_threads);
    const double work = word_products(args->m, args->n, args->k_words);
    const int threads = bitops_share(work, THREAD_WORK, plan.threads);
    if (args->store.kind == BITOPS_STORE_SIGN)
        clear_last_words(args);
    if (plan.way == BITOPS_SHORT_ROWS)
        bitops_short_rows(isa, args, threads);
    else if (plan.way == BITOPS_PLAIN_ROWS)
        bitops_plain_rows(isa, args, threads);
    else if (plan.way == BITOPS_FRESH_PANELS)
        bitops_fresh_panels(isa, args, threads);
    else if (plan.sliced)
        gemm_sliced(&plan, workspace);
    else
        gemm_whole(&plan, workspace);
}

void bitops_gemm_batch(const bitops_isa *isa, const bitops_gemm_args *args, size_t batch,
                       const int64_t *a_index, const int64_t *w_index, void *workspace,
                       int n_threads) {
    const size_t number = store_number_size(args->store.kind);
    const size_t c_block = args->m * args->store.ldc * (number ? number : sizeof(uint64_t));
    for (size_t i = 0; i < batch && !bitops_stopped(args->stop); i++) {
        bitops_gemm_args one = *args;
        one.a += (size_t)a_index[i] * args->m * args->lda;
        one.w += (size_t)w_index[i] * args->n * args->ldw;
        one.store.c = (char *)args->store.c + i * c_block;
        if (args->store.k_map)
            one.store.k_map = args->store.k_map + i * args->m;
        if (args->store.a_counts) {
            one.store.a_counts += (size_t)a_index[i] * args->m;
            one.store.w_counts += (size_t)w_index[i] * args->n;
        }
        bitops_gemm(isa, &one, workspace, n_threads);
    }
}
