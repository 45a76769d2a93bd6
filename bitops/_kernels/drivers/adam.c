/* adam.c: the driver of one step of Adam, which also clips and packs, in one pass through memory.
 *
 * An element costs 28 bytes of traffic (g is read; w, m and v are read and written; 8 less with
 * moments in bfloat16, 4 less with weights in int16), a square root and a division. A span is
 * packed while its new weights are still in the first-level cache.
 *
 * A gradient that is a product comes in parts, 32 or 64 rows of 1024 columns, summed with rows in
 * lanes (lanes.c), and never leaves the second-level cache: 24 bytes of traffic, or 12 if all is in
 * 16 bits. With a matrix of the gradient between the two it would be 36. */
#include "bitops.h"
#include "drivers/lane_sums.h"
#include "drivers/mixed.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

enum {
    SPAN_WORDS = 16, /* 4 arrays of 1024 elements, 16 KiB */
    SPAN = SPAN_WORDS * BITOPS_WORD_BITS,
    THREAD_ELEMENTS = 1 << 15, /* below, one thread is as fast */
    AHEAD = 2,                 /* pieces of a product whose numbers are asked for */
    LINE = 64 / sizeof(float),
};

/* Takes steps on elements [first, first + n), and packs them if there are words, of which the first
 * is theirs alone. Returns 1 if one that is int16 or packed became NaN. */
static int take_span(const bitops_isa *isa, const bitops_adam_args *args, const float *g,
                     size_t first, size_t n, uint64_t *words_out) {
    int nan = isa->adam(args, g, first, n);
    if (words_out == NULL)
        return nan;
    if (args->short_weights)
        isa->pack_i16((const int16_t *)args->w + first, n, words_out, &nan);
    else
        isa->pack_f32((const float *)args->w + first, n, words_out, &nan);
    return nan;
}

int bitops_adam(const bitops_isa *isa, const bitops_adam_args *args, int n_threads) {
    /* Only packing cares for rows, each of which begins a new word. */
    const size_t rows = args->words ? args->rows : 1;
    const size_t n = args->words ? args->n : args->rows * args->n;
    const size_t spans = ceil_div(n, SPAN), k_words = bitops_words(n);
    const int threads = bitops_share((double)rows * (double)n, THREAD_ELEMENTS, n_threads);
    int any_nan = 0;
    BITOPS_PARALLEL_FOR(threads, schedule(static) reduction(| : any_nan))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(rows * spans); task++) {
        const size_t row = (size_t)task / spans, span = (size_t)task % spans;
        const size_t first = row * n + span * SPAN, count = min_size(n - span * SPAN, SPAN);
        uint64_t *words = args->words ? args->words + row * k_words + span * SPAN_WORDS : NULL;
        any_nan |= take_span(isa, args, args->g + first, first, count, words);
    }
    return any_nan;
}

/* Asks for what the step changes of n elements. */
static void ask_for(const bitops_adam_args *step, size_t first, size_t n) {
    const size_t size = step->bfloat16 ? sizeof(uint16_t) : sizeof(float); /* of a moment */
    const size_t w_size = step->short_weights ? sizeof(int16_t) : sizeof(float);
    for (size_t i = first; i < first + n; i += LINE) {
        __builtin_prefetch((char *)step->w + i * w_size, 1);
        __builtin_prefetch((char *)step->m + i * size, 1);
        __builtin_prefetch((char *)step->v + i * size, 1);
    }
}

/* Where a piece of a part begins, LANE_OUTPUTS columns of a row, or fewer at its end. */
typedef struct piece {
    size_t row, col;
} piece;

static void go_on(const lane_part *p, piece *at) {
    at->col += LANE_OUTPUTS;
    if (at->col >= p->n)
        *at = (piece){.row = at->row + 1};
}

/* Rows of a group one after the other: lines of memory in their order are found ahead. Returns 1 as
 * adam does. */
static int take_rows(const bitops_isa *isa, const bitops_adam_args *step, const lane_part *p,
                     size_t lanes, const float *outputs) {
    const size_t k_words = bitops_words(step->n), first = p->i * step->n + p->j;
    piece next = {0};
    int any_nan = 0;
    for (int i = 0; i < AHEAD; i++)
        go_on(p, &next);
    for (piece at = {0}; at.row < p->m; go_on(p, &at), go_on(p, &next)) {
        const float *g = outputs + lanes * at.col + LANE_OUTPUTS * at.row;
        uint64_t *words = step->words;
        if (words)
            words += (p->i + at.row) * k_words + (p->j + at.col) / BITOPS_WORD_BITS;
        if (next.row < p->m)
            ask_for(step, first + next.row * step->n + next.col,
                    min_size(LANE_OUTPUTS, p->n - next.col));
        any_nan |= take_span(isa, step, g, first + at.row * step->n + at.col,
                             min_size(LANE_OUTPUTS, p->n - at.col), words);
    }
    return any_nan;
}

/* A group of rows x a group of columns, whose first one begins a word. */
static int take_part(const bitops_isa *isa, const bitops_adam_args *step,
                     const bitops_mixed_args *args, const lane_part *p, const lane_scratch *s) {
    bitops_lane_sums(isa, args, p, s);
    return take_rows(isa, step, p, lanes_of(args), bitops_lane_rows(isa, args, p, s));
}

size_t bitops_adam_product_workspace_size(const bitops_mixed_args *product, int n_threads) {
    return bitops_surplus_size(product) + bitops_lanes_workspace_size(product, n_threads);
}

int bitops_adam_product(const bitops_isa *isa, const bitops_adam_args *step,
                        const bitops_mixed_args *product, void *workspace, int n_threads) {
    const size_t lanes = lanes_of(product), groups = ceil_div(step->n, LANE_COLUMNS);
    const double elements = (double)step->rows * (double)step->n;
    const int threads = bitops_share(elements, THREAD_ELEMENTS, n_threads);
    bitops_mixed_args own = *product;
    int any_nan = 0;
    if (product->zero)
        bitops_find_surplus(isa, product, workspace, &own);
    workspace = (char *)workspace + bitops_surplus_size(product);
    BITOPS_PARALLEL_FOR(threads, schedule(dynamic) reduction(| : any_nan))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(ceil_div(step->rows, lanes) * groups); task++) {
        const lane_scratch s = bitops_lane_scratch(&own, workspace, (size_t)bitops_thread_number());
        lane_part p = {.i = (size_t)task / groups * lanes,
                       .j = (size_t)task % groups * LANE_COLUMNS};
        p.m = min_size(lanes, step->rows - p.i);
        p.n = min_size(LANE_COLUMNS, step->n - p.j);
        any_nan |= take_part(isa, step, &own, &p, &s);
    }
    return any_nan;
}
