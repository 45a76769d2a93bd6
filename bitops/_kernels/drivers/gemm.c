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
 * are gathered there block by block, so that their im2col matrix never exists. If k is cut,
 * mismatches are summed in a block of int32 and transformed after the last slice. */
#include "bitops.h"
#include "drivers/sizes.h"
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
    IMAGE_WORDS = 1 << 12, /* of images, gathered: 32 KiB */
    ROWS_WORDS = 1 << 18,  /* at most 2 MiB for all threads */
    MAX_THREADS = ROWS_WORDS / (4 * KC_WORDS), /* at least 4 rows for each */
    TASKS_A_THREAD = 4,                        /* so that no thread waits long for the last one */
    /* Word products below which one thread is as fast. Measured on two Zen 4 cores with threads
     * awake: 64x128x1024 (2^17) takes 12.1 us with one thread and 10.0 with two, 64x64x512 (2^15)
     * 7.4 and 6.9, the plain rows of 1x4096x4096 (2^18) 46 and 27. */
    THREAD_WORK = 1 << 17,
    STOP_STEPS = 32, /* panels, or spans of plain rows, between two looks at the clock */
};

static int team(const bitops_gemm_args *args, int n_threads) {
    const double work = (double)args->m * (double)args->n * (double)args->k_words;
    if (work < THREAD_WORK)
        return 1;
    return n_threads < MAX_THREADS ? n_threads : MAX_THREADS;
}

/* How one product is cut, and where in the workspace its parts lie. */
typedef struct plan {
    const bitops_isa *isa;
    const bitops_gemm_args *args;
    int threads;
    int plain_rows;                    /* w is read as it lies; nothing below is used */
    int sliced;                        /* k is cut */
    size_t depth;                      /* words of k in a slice */
    size_t columns;                    /* columns whose panels exist at a time */
    size_t rows;                       /* rows of a block of a */
    size_t panels_words, sums_words;   /* of workspace */
    size_t rows_words, counters_words; /* of a thread's scratch: the rows, prepared; */
    size_t offsets_words, whole_words; /* for the kernel; for the store; a row of all k */
    size_t thread_words;
} plan;

static plan make_plan(const bitops_isa *isa, const bitops_gemm_args *args, int n_threads) {
    plan p = {.isa = isa, .args = args, .threads = team(args, n_threads)};
    p.plain_rows = !args->panels && !args->image && args->m <= FEW_ROWS;
    p.sliced = args->k_words > KC_WORDS;
    p.depth = min_size(args->k_words, KC_WORDS);
    const size_t depth = p.depth ? p.depth : 1;

    p.columns = round_up(args->n, isa->nr);
    if (p.sliced)
        p.columns = min_size(p.columns, SLICED_COLUMNS);
    else if (!args->panels)
        p.columns = min_size(p.columns, PANEL_WORDS / depth / isa->nr * isa->nr);

    const int copied = args->image || isa->prepack_rows;
    const size_t share = round_up(ceil_div(args->m, (size_t)p.threads), isa->mr);
    const size_t block_words = min_size(args->image && !isa->row_words ? IMAGE_WORDS : BLOCK_WORDS,
                                        ROWS_WORDS / (size_t)p.threads);
    p.rows = min_size(share, max_size(block_words / depth / isa->mr, 1) * isa->mr);
    if (isa->row_words) { /* scratch, not a, fills the cache; blocks are as equal as can be */
        const size_t row_words = isa->row_words + (args->image ? p.depth : 0);
        const size_t fit = max_size(block_words / row_words / isa->mr, 1) * isa->mr;
        const size_t blocks = ceil_div(share ? share : 1, fit);
        p.rows = round_up(ceil_div(share, blocks), isa->mr);
    }

    p.panels_words = args->panels ? 0 : p.columns * p.depth; /* columns is a multiple of 8 */
    if (p.sliced)                                            /* two int32 to a word */
        p.sums_words = round_up(min_size(args->m, SLICED_ROWS) * p.columns / 2, LINE_WORDS);
    /* Whole cache lines, so that what follows stays aligned. */
    p.rows_words = copied ? round_up(p.rows * p.depth, LINE_WORDS) : 0;
    p.counters_words = round_up(p.rows * isa->row_words, LINE_WORDS);
    if (args->store.offset)
        p.offsets_words = round_up(p.sliced ? SLICED_ROWS : p.rows, 2 * LINE_WORDS) / 2;
    if (p.sliced && args->image)
        p.whole_words = round_up(args->k_words, LINE_WORDS);
    p.thread_words = p.rows_words + p.counters_words + p.offsets_words + p.whole_words;
    return p;
}

size_t bitops_gemm_workspace_size(const bitops_isa *isa, const bitops_gemm_args *args,
                                  int n_threads) {
    const plan p = make_plan(isa, args, n_threads);
    if (p.plain_rows)
        return 0;
    const size_t words = p.panels_words + p.sums_words + p.thread_words * (size_t)p.threads;
    return words * sizeof(uint64_t);
}

/* Kernels write the bytes of their columns; the rest of the last word is ours. */
static void clear_last_words(const bitops_gemm_args *args) {
    const size_t last = bitops_words(args->n) - 1;
    for (size_t i = 0; i < args->m; i++)
        ((uint64_t *)args->store.c)[i * args->store.ldc + last] = 0;
}

static void gemm_plain_rows(const plan *p) {
    const bitops_gemm_args *args = p->args;
    /* Spans of 64 columns: whole words of bits, whole cache lines of numbers. */
    const size_t span = 64;
    BITOPS_PARALLEL_FOR(p->threads, schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(args->n, span); task++) {
        const size_t col = (size_t)task * span;
        if (task % STOP_STEPS == STOP_STEPS - 1 && bitops_stopped(args->stop))
            continue;
        p->isa->gemm_rows(args->a, args->lda, args->m, args->w + col * args->ldw, args->ldw,
                          min_size(span, args->n - col), args->k_words, 0, col, &args->store);
    }
}

/* One slice of k: rows [ic, ic + m) of a times the columns [jc, jc + n), whose panels lie
 * panel_stride words apart. Mismatches go to (row, col) of store. */
typedef struct slice {
    size_t a_row, m; /* the rows of a */
    size_t word;     /* where the slice of k begins */
    const uint64_t *panels;
    size_t panel_stride, n, k_words;
    size_t row, col;
    const bitops_store *store;
} slice;

/* Rows [first, first + rows) of a slice of images' rows: gathered whole, one by one, then cut. */
static void gather_slice(const plan *p, const slice *s, size_t first, size_t rows,
                         uint64_t *whole_row, uint64_t *rows_out) {
    const bitops_gemm_args *args = p->args;
    for (size_t i = 0; i < rows; i++) {
        bitops_gather(args->image, args->image_row + first + i, 1, p->isa->prepack_rows, whole_row,
                      args->k_words);
        memcpy(rows_out + i * s->k_words, whole_row + s->word, s->k_words * sizeof *whole_row);
    }
}

/* Rows [first, first + rows) of a slice, in the form the kernel reads; lda_out is the distance
 * between them. */
static const uint64_t *load_rows(const plan *p, const slice *s, size_t first, size_t rows,
                                 uint64_t *scratch, size_t *lda_out) {
    const bitops_gemm_args *args = p->args;
    *lda_out = s->k_words;
    if (args->image && p->sliced) {
        gather_slice(p, s, first, rows,
                     scratch + p->rows_words + p->counters_words + p->offsets_words, scratch);
        return scratch;
    }
    if (args->image) {
        bitops_gather(args->image, args->image_row + first, rows, p->isa->prepack_rows, scratch,
                      s->k_words);
        return scratch;
    }
    const uint64_t *a = args->a + first * args->lda + s->word;
    if (p->isa->prepack_rows) {
        p->isa->prepack_rows(a, args->lda, rows, s->k_words, scratch, s->k_words);
        return scratch;
    }
    *lda_out = args->lda;
    return a;
}

/* The store for rows [row, row + rows), which knows their offsets. */
static bitops_store store_for_rows(const plan *p, const bitops_store *store, size_t row,
                                   size_t rows, uint32_t *offset_row) {
    bitops_store own = *store;
    if (store->offset) {
        bitops_gather_offsets(p->args->image, p->args->image_row + row, rows, offset_row);
        own.offset_row = offset_row;
        own.first_row = row;
    }
    return own;
}

/* A block of rows against the panels [first, last), one panel at a time. */
static void gemm_block(const plan *p, const slice *s, size_t i, size_t rows, size_t first,
                       size_t last, uint64_t *scratch) {
    uint64_t *counters = scratch + p->rows_words;
    size_t lda;
    const uint64_t *a = load_rows(p, s, s->a_row + i, rows, scratch, &lda);
    const bitops_store store =
        store_for_rows(p, s->store, s->row + i, rows, (uint32_t *)(counters + p->counters_words));
    for (size_t panel = first; panel < last; panel++) {
        const size_t j = panel * p->isa->nr;
        if ((panel - first) % STOP_STEPS == STOP_STEPS - 1 && bitops_stopped(p->args->stop))
            return;
        p->isa->gemm_panel(a, lda, rows, s->panels + panel * s->panel_stride,
                           min_size(p->isa->nr, s->n - j), s->k_words, s->row + i, s->col + j,
                           &store, counters);
    }
}

static void gemm_slice(const plan *p, const slice *s, uint64_t *scratch) {
    const size_t panels = ceil_div(s->n, p->isa->nr), blocks = ceil_div(s->m, p->rows);
    size_t groups = 1;
    if (p->threads > 1)
        groups = min_size(panels, ceil_div((size_t)p->threads * TASKS_A_THREAD, blocks));
    const size_t group = ceil_div(panels, groups);
    BITOPS_PARALLEL_FOR(p->threads, schedule(dynamic))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(blocks * groups); task++) {
        const size_t i = (size_t)task / groups * p->rows;
        const size_t first = min_size((size_t)task % groups * group, panels);
        if (bitops_stopped(p->args->stop))
            continue;
        gemm_block(p, s, i, min_size(p->rows, s->m - i), first, min_size(first + group, panels),
                   scratch + p->thread_words * (size_t)bitops_thread_number());
    }
}

/* Words [pc, pc + depth) of the panels of the columns [jc, jc + n) of a slice: in place if
 * prepacked, else made in the workspace. */
static void set_panels(const plan *p, slice *s, size_t jc, size_t pc, uint64_t *scratch) {
    const bitops_gemm_args *args = p->args;
    const size_t nr = p->isa->nr;
    if (args->panels) {
        s->panel_stride = nr * args->k_words;
        s->panels = args->panels + jc * args->k_words + pc * nr;
        return;
    }
    s->panel_stride = nr * s->k_words;
    s->panels = scratch;
    bitops_prepack_all(p->isa, args->w + jc * args->ldw + pc, args->ldw, s->n, s->k_words, scratch,
                       p->threads);
}

/* The sums of all slices of k for the block (ic, jc) of m x n outputs, then their transform. */
static void gemm_sliced_block(const plan *p, size_t ic, size_t m, size_t jc, size_t n,
                              uint64_t *workspace) {
    const bitops_gemm_args *args = p->args;
    int32_t *sums = (int32_t *)(workspace + p->panels_words);
    uint64_t *scratch = workspace + p->panels_words + p->sums_words;
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
        set_panels(p, &s, jc, pc, workspace);
        gemm_slice(p, &s, scratch);
    }
    uint64_t *offset_row = scratch + p->rows_words + p->counters_words;
    const bitops_store store = store_for_rows(p, &args->store, ic, m, (uint32_t *)offset_row);
    store_block(sums, n, m, n, ic, jc, &store);
}

static void gemm_sliced(const plan *p, uint64_t *workspace) {
    const bitops_gemm_args *args = p->args;
    for (size_t jc = 0; jc < args->n; jc += p->columns)
        for (size_t ic = 0; ic < args->m && !bitops_stopped(args->stop); ic += SLICED_ROWS)
            gemm_sliced_block(p, ic, min_size(SLICED_ROWS, args->m - ic), jc,
                              min_size(p->columns, args->n - jc), workspace);
}

static void gemm_whole(const plan *p, uint64_t *workspace) {
    const bitops_gemm_args *args = p->args;
    for (size_t jc = 0; jc < args->n && !bitops_stopped(args->stop); jc += p->columns) {
        slice s = {.m = args->m,
                   .n = min_size(p->columns, args->n - jc),
                   .k_words = args->k_words,
                   .col = jc,
                   .store = &args->store};
        set_panels(p, &s, jc, 0, workspace);
        gemm_slice(p, &s, workspace + p->panels_words);
    }
}

void bitops_gemm(const bitops_isa *isa, const bitops_gemm_args *args, void *workspace,
                 int n_threads) {
    if (args->m == 0 || args->n == 0)
        return;
    const plan p = make_plan(isa, args, n_threads);
    if (args->store.kind == BITOPS_STORE_SIGN)
        clear_last_words(args);
    if (p.plain_rows)
        gemm_plain_rows(&p);
    else if (p.sliced)
        gemm_sliced(&p, (uint64_t *)workspace);
    else
        gemm_whole(&p, (uint64_t *)workspace);
}

static size_t element_size(bitops_store_kind kind) {
    switch (kind) {
    case BITOPS_STORE_HAMMING16:
        return sizeof(uint16_t);
    case BITOPS_STORE_SIGN:
        return sizeof(uint64_t);
    default:
        return sizeof(int32_t);
    }
}

void bitops_gemm_batch(const bitops_isa *isa, const bitops_gemm_args *args, size_t batch,
                       const int64_t *a_index, const int64_t *w_index, void *workspace,
                       int n_threads) {
    const size_t c_block = args->m * args->store.ldc * element_size(args->store.kind);
    for (size_t i = 0; i < batch && !bitops_stopped(args->stop); i++) {
        bitops_gemm_args one = *args;
        one.a += (size_t)a_index[i] * args->m * args->lda;
        one.w += (size_t)w_index[i] * args->n * args->ldw;
        one.store.c = (char *)args->store.c + i * c_block;
        if (args->store.k_map)
            one.store.k_map = args->store.k_map + i * args->m;
        bitops_gemm(isa, &one, workspace, n_threads);
    }
}
