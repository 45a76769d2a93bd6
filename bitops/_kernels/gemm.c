/* gemm.c: the driver of every product with bits on both sides: cache blocks, panels, threads.
 *
 *   for jc in n by nc                 as many panels as the workspace holds (all, if prepacked)
 *     for ic in m by mc               all of m, unless k is cut
 *       for pc in k by KC_WORDS       usually one slice
 *         order the slice of w into panels
 *         for each block of rows x group of panels: gemm_panel        shared out to threads
 *       mismatches of all slices -> c
 *
 * A panel of one slice stays in the first-level cache while the rows of a block pass over it; the
 * rows of a block stay in the second-level cache. If k is cut, mismatches are summed in a block of
 * int32 and transformed after the last slice. */
#include "bitops.h"
#include "store.h"
#include "target.h"

enum {
    /* 16384 bits: a panel of 32 columns takes 64 KiB. Short enough for the 16-bit counters of
     * avx2.c (1023 words). */
    KC_WORDS = 256,
    PANEL_WORDS = 1 << 19, /* workspace for panels: 4 MiB */
    SLICED_COLUMNS = 1024, /* columns and rows of the int32 block of a product cut along k: */
    SLICED_ROWS = 512,     /* 2 MiB, beside panels of 2 MiB */
    BLOCK_WORDS = 1 << 15, /* rows of a block of a: 256 KiB */
    GROUP_PANELS = 4,      /* panels a task takes its rows over */
    FEW_ROWS = 16,         /* up to here w is read as it lies */
    THREAD_WORK = 1 << 19, /* word products below which one thread is faster */
};

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}

/* Columns whose panels are made at a time. */
static size_t column_block(const bitops_isa *isa, const bitops_gemm_args *args) {
    const size_t all = ceil_div(args->n, isa->nr) * isa->nr;
    if (args->k_words > KC_WORDS)
        return min_size(all, SLICED_COLUMNS);
    if (args->panels || args->k_words == 0)
        return all;
    const size_t fit = PANEL_WORDS / args->k_words / isa->nr * isa->nr;
    return min_size(all, fit);
}

static int reads_plain_rows(const bitops_gemm_args *args) {
    return !args->panels && args->m <= FEW_ROWS;
}

static int is_sliced(const bitops_gemm_args *args) {
    return args->k_words > KC_WORDS;
}

static size_t panel_words(const bitops_isa *isa, const bitops_gemm_args *args) {
    if (args->panels)
        return 0;
    return column_block(isa, args) * min_size(args->k_words, KC_WORDS);
}

size_t bitops_gemm_workspace_size(const bitops_isa *isa, const bitops_gemm_args *args) {
    if (reads_plain_rows(args))
        return 0;
    size_t bytes = panel_words(isa, args) * sizeof(uint64_t);
    if (is_sliced(args))
        bytes += min_size(args->m, SLICED_ROWS) * column_block(isa, args) * sizeof(int32_t);
    return bytes;
}

static int team(const bitops_gemm_args *args, int n_threads) {
    const double work = (double)args->m * (double)args->n * (double)args->k_words;
    return work < THREAD_WORK ? 1 : n_threads;
}

/* Kernels write the bytes of their columns; the rest of the last word is ours. */
static void clear_last_words(const bitops_gemm_args *args) {
    const size_t last = bitops_words(args->n) - 1;
    for (size_t i = 0; i < args->m; i++)
        ((uint64_t *)args->store.c)[i * args->store.ldc + last] = 0;
}

static void gemm_plain_rows(const bitops_isa *isa, const bitops_gemm_args *args, int n_threads) {
    /* Spans of 64 columns: whole words of bits, whole cache lines of numbers. */
    const size_t span = 64;
    BITOPS_PARALLEL_FOR(n_threads, schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(args->n, span); task++) {
        const size_t col = (size_t)task * span;
        isa->gemm_rows(args->a, args->lda, args->m, args->w + col * args->ldw, args->ldw,
                       min_size(span, args->n - col), args->k_words, 0, col, &args->store);
    }
}

/* One slice of k: rows [ic, ic + m) of a times the columns [jc, jc + n), whose panels lie
 * panel_stride words apart. Mismatches go to (row, col) of store. */
typedef struct slice {
    const uint64_t *a;
    size_t lda, m;
    const uint64_t *panels;
    size_t panel_stride, n, k_words;
    size_t row, col;
    const bitops_store *store;
} slice;

static void gemm_slice(const bitops_isa *isa, const slice *s, int n_threads) {
    const size_t rows = BLOCK_WORDS / (s->k_words ? s->k_words : 1) / isa->mr * isa->mr;
    const size_t panels = ceil_div(s->n, isa->nr), groups = ceil_div(panels, GROUP_PANELS);
    const ptrdiff_t tasks = (ptrdiff_t)(ceil_div(s->m, rows) * groups);
    BITOPS_PARALLEL_FOR(n_threads, schedule(dynamic))
    for (ptrdiff_t task = 0; task < tasks; task++) {
        const size_t i = (size_t)task / groups * rows;
        const size_t first = (size_t)task % groups * GROUP_PANELS;
        for (size_t panel = first; panel < min_size(first + GROUP_PANELS, panels); panel++) {
            const size_t j = panel * isa->nr;
            isa->gemm_panel(s->a + i * s->lda, s->lda, min_size(rows, s->m - i),
                            s->panels + panel * s->panel_stride, min_size(isa->nr, s->n - j),
                            s->k_words, s->row + i, s->col + j, s->store);
        }
    }
}

/* The panels of columns [jc, jc + n) and words [pc, pc + k_words): in place if prepacked, else
 * made in the workspace. */
static const uint64_t *slice_panels(const bitops_isa *isa, const bitops_gemm_args *args, size_t jc,
                                    size_t n, size_t pc, size_t k_words, uint64_t *workspace,
                                    size_t *panel_stride, int n_threads) {
    if (args->panels) {
        *panel_stride = isa->nr * args->k_words;
        return args->panels + jc * args->k_words + pc * isa->nr;
    }
    *panel_stride = isa->nr * k_words;
    bitops_prepack_all(isa, args->w + jc * args->ldw + pc, args->ldw, n, k_words, workspace,
                       n_threads);
    return workspace;
}

/* The sums of all slices of k for the block (ic, jc) of m x n outputs, then their transform. */
static void gemm_sliced_block(const bitops_isa *isa, const bitops_gemm_args *args, size_t ic,
                              size_t m, size_t jc, size_t n, uint64_t *workspace, int n_threads) {
    int32_t *sums = (int32_t *)(workspace + panel_words(isa, args));
    const bitops_store accumulate = {.kind = BITOPS_STORE_ACCUMULATE, .c = sums, .ldc = n};
    for (size_t i = 0; i < m * n; i++)
        sums[i] = 0;
    for (size_t pc = 0; pc < args->k_words; pc += KC_WORDS) {
        slice s = {.a = args->a + ic * args->lda + pc,
                   .lda = args->lda,
                   .m = m,
                   .n = n,
                   .k_words = min_size(KC_WORDS, args->k_words - pc),
                   .store = &accumulate};
        s.panels =
            slice_panels(isa, args, jc, n, pc, s.k_words, workspace, &s.panel_stride, n_threads);
        gemm_slice(isa, &s, n_threads);
    }
    store_block(sums, n, m, n, ic, jc, &args->store);
}

static void gemm_sliced(const bitops_isa *isa, const bitops_gemm_args *args, uint64_t *workspace,
                        int n_threads) {
    const size_t nc = column_block(isa, args);
    for (size_t jc = 0; jc < args->n; jc += nc)
        for (size_t ic = 0; ic < args->m; ic += SLICED_ROWS)
            gemm_sliced_block(isa, args, ic, min_size(SLICED_ROWS, args->m - ic), jc,
                              min_size(nc, args->n - jc), workspace, n_threads);
}

static void gemm_whole(const bitops_isa *isa, const bitops_gemm_args *args, uint64_t *workspace,
                       int n_threads) {
    const size_t nc = column_block(isa, args);
    for (size_t jc = 0; jc < args->n; jc += nc) {
        slice s = {.a = args->a,
                   .lda = args->lda,
                   .m = args->m,
                   .n = min_size(nc, args->n - jc),
                   .k_words = args->k_words,
                   .col = jc,
                   .store = &args->store};
        s.panels =
            slice_panels(isa, args, jc, s.n, 0, s.k_words, workspace, &s.panel_stride, n_threads);
        gemm_slice(isa, &s, n_threads);
    }
}

void bitops_gemm(const bitops_isa *isa, const bitops_gemm_args *args, void *workspace,
                 int n_threads) {
    if (args->m == 0 || args->n == 0)
        return;
    const int threads = team(args, n_threads);
    if (args->store.kind == BITOPS_STORE_SIGN)
        clear_last_words(args);
    if (reads_plain_rows(args))
        gemm_plain_rows(isa, args, threads);
    else if (is_sliced(args))
        gemm_sliced(isa, args, (uint64_t *)workspace, threads);
    else
        gemm_whole(isa, args, (uint64_t *)workspace, threads);
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
    for (size_t i = 0; i < batch; i++) {
        bitops_gemm_args one = *args;
        one.a += (size_t)a_index[i] * args->m * args->lda;
        one.w += (size_t)w_index[i] * args->n * args->ldw;
        one.store.c = (char *)args->store.c + i * c_block;
        if (args->store.k_map)
            one.store.k_map = args->store.k_map + i * args->m;
        bitops_gemm(isa, &one, workspace, n_threads);
    }
}
