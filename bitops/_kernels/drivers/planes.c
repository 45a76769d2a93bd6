/* planes.c: multiplies small integers by +-1 weights, one bit plane after the other, with gemm.
 *
 * An integer is x = sum over b of 2^b x_b, with bits x_b. For a row w of bits,
 *     sum over k of x_b times +-1 = popcount(w) - popcount(x_b ^ w),
 * and with d_b = popcount(x_b ^ w), the mismatches of plane b,
 *     dot = (2^bits - 1) popcount(w) - sum over b of 2^b d_b.
 * A row of ones has k - popcount(w) mismatches with w, so a block of rows of x becomes
 *
 *     plane 0 of all rows | plane 1 of all rows | ... | a row of ones
 *
 * gemm counts the mismatches of a block, which are then summed while they are in the cache.
 *
 * No overflow: both terms are at most 255 k < 2^31. */
#include "bitops.h"
#include "drivers/mixed.h"
#include "drivers/scale.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    PLANE_ROWS = 256, /* of a block, the row of ones included */
    PLANE_COLUMNS = 1024,
    PLANE_WORDS = 1 << 17, /* 1 MiB of words, and 1 MiB of mismatches */
    MAX_WORDS = 4096,      /* of a row: at least 31 planes in a block */
    CHUNK = 512,           /* elements of a plane packed at a time */
    THREAD_WORK = 1 << 16, /* numbers to be split, or sums: below, one thread is faster */
};

/* Measured: the time of gemm grows with the number of bits, that of the lookup does not; see
 * README.md. */
int bitops_planes_are_faster(const bitops_isa *isa, const bitops_mixed_args *args) {
    return !args->is_float && !args->x_turned && args->bits <= isa->plane_bits && args->k > 0 &&
           bitops_words(args->k) <= MAX_WORDS;
}

/* The blocks of one product. */
typedef struct planes_plan {
    size_t k_words, planes;
    size_t rows; /* of x in a block */
    size_t columns;
} planes_plan;

static planes_plan make_plan(const bitops_mixed_args *args) {
    planes_plan plan = {.k_words = bitops_words(args->k), .planes = (size_t)args->bits};
    const size_t most = min_size(PLANE_ROWS, PLANE_WORDS / plan.k_words) - 1;
    plan.rows = min_size(args->m, most / plan.planes);
    plan.columns = min_size(args->n, PLANE_COLUMNS);
    return plan;
}

static size_t block_rows(const planes_plan *plan, size_t rows) {
    return plan->planes * rows + 1;
}

/* The product of the planes of `rows` rows with columns [j, j + n). */
static bitops_gemm_args block_args(const planes_plan *plan, const bitops_mixed_args *args,
                                   size_t rows, size_t j, size_t n) {
    const size_t m = block_rows(plan, rows);
    bitops_gemm_args gemm = {
        .lda = plan->k_words, .m = m, .ldw = args->ldw, .n = n, .k_words = plan->k_words};
    gemm.w = args->w + j * args->ldw;
    if (args->panels)
        gemm.panels = args->panels + j * plan->k_words;
    gemm.stop = args->stop;
    gemm.store.kind = BITOPS_STORE_HAMMING;
    gemm.store.k = (int32_t)args->k;
    gemm.store.ldc = n;
    return gemm;
}

/* Where the parts of the workspace begin, in words. */
static size_t counts_at(const planes_plan *plan) {
    return round_up(block_rows(plan, plan->rows) * plan->k_words, LINE_WORDS);
}

static size_t gemm_at(const planes_plan *plan) {
    return counts_at(plan) +
           round_up(block_rows(plan, plan->rows) * plan->columns, 2 * LINE_WORDS) / 2;
}

size_t bitops_planes_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                    int n_threads) {
    const planes_plan plan = make_plan(args);
    /* Other blocks have fewer rows or columns. */
    const bitops_gemm_args gemm = block_args(&plan, args, plan.rows, 0, plan.columns);
    return gemm_at(&plan) * sizeof(uint64_t) + bitops_gemm_workspace_size(isa, &gemm, n_threads);
}

/* Packs bit `plane` of k numbers. */
static void pack_plane(const bitops_isa *isa, const uint8_t *x, size_t k, size_t plane,
                       uint64_t *words_out) {
    uint8_t bits[CHUNK];
    int nan = 0;
    for (size_t first = 0; first < k; first += CHUNK) {
        const size_t n = min_size(CHUNK, k - first);
        for (size_t i = 0; i < n; i++)
            bits[i] = (uint8_t)(x[first + i] & 1u << plane);
        isa->pack_bool8(bits, n, words_out + first / BITOPS_WORD_BITS, &nan);
    }
}

static void pack_block(const bitops_isa *isa, const planes_plan *plan,
                       const bitops_mixed_args *args, size_t first, size_t rows, uint64_t *words,
                       int n_threads) {
    const int threads = bitops_share((double)rows * (double)args->k, THREAD_WORK, n_threads);
    BITOPS_PARALLEL_FOR(threads, schedule(static))
    for (ptrdiff_t row = 0; row < (ptrdiff_t)(plan->planes * rows); row++) {
        const size_t plane = (size_t)row / rows, i = first + (size_t)row % rows;
        pack_plane(isa, (const uint8_t *)args->x + i * args->k, args->k, plane,
                   words + (size_t)row * plan->k_words);
    }
    uint64_t *ones = words + plan->planes * rows * plan->k_words;
    memset(ones, 0xff, plan->k_words * sizeof *ones);
    ones[plan->k_words - 1] >>= plan->k_words * BITOPS_WORD_BITS - args->k;
}

/* Sums the mismatches, n to a row, of row i of a block; its outputs begin at (row, col). */
static void combine_row(const bitops_isa *isa, const planes_plan *plan,
                        const bitops_mixed_args *args, const int32_t *counts, size_t rows, size_t i,
                        size_t n, size_t row, size_t col) {
    const int32_t top = (int32_t)((1u << plan->planes) - 1), k = (int32_t)args->k;
    int32_t *c = (int32_t *)args->c + row * args->n + col;
    const int32_t *ones = counts + plan->planes * rows * n;
    for (size_t j = 0; j < n; j++)
        c[j] = top * (k - ones[j]);
    for (size_t b = 0; b < plan->planes; b++) {
        const int32_t *d = counts + (b * rows + i) * n;
        for (size_t j = 0; j < n; j++)
            c[j] -= d[j] << b;
    }
    scale_sums(isa, args, c, col, n);
}

static void combine_block(const bitops_isa *isa, const planes_plan *plan,
                          const bitops_mixed_args *args, const int32_t *counts, size_t first,
                          size_t rows, size_t j, size_t n, int n_threads) {
    const int threads = bitops_share((double)rows * (double)n, THREAD_WORK, n_threads);
    BITOPS_PARALLEL_FOR(threads, schedule(static))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)rows; i++)
        combine_row(isa, plan, args, counts, rows, (size_t)i, n, first + (size_t)i, j);
}

void bitops_mixed_by_planes(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                            int n_threads) {
    const planes_plan plan = make_plan(args);
    uint64_t *words = workspace;
    int32_t *counts = (int32_t *)(words + counts_at(&plan));
    for (size_t i = 0; i < args->m && !bitops_stopped(args->stop); i += plan.rows) {
        const size_t rows = min_size(plan.rows, args->m - i);
        pack_block(isa, &plan, args, i, rows, words, n_threads);
        for (size_t j = 0; j < args->n && !bitops_stopped(args->stop); j += plan.columns) {
            const size_t n = min_size(plan.columns, args->n - j);
            bitops_gemm_args gemm = block_args(&plan, args, rows, j, n);
            gemm.a = words;
            gemm.store.c = counts;
            bitops_gemm(isa, &gemm, words + gemm_at(&plan), n_threads);
            combine_block(isa, &plan, args, counts, i, rows, j, n, n_threads);
        }
    }
}
