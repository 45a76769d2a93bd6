/* adam.c: the driver of one step of Adam, which also clips and packs, in one pass through memory.
 *
 * An element costs 28 bytes of traffic (g is read; w, m and v are read and written), a square root
 * and a division. A span is packed while its new weights are still in the first-level cache. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

enum {
    SPAN_WORDS = 16, /* 4 arrays of 1024 elements, 16 KiB */
    SPAN = SPAN_WORDS * BITOPS_WORD_BITS,
    THREAD_ELEMENTS = 1 << 15, /* below, one thread is as fast */
};

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
        int nan = 0;
        isa->adam(args, first, count);
        if (args->words)
            isa->pack_f32(args->w + first, count, args->words + row * k_words + span * SPAN_WORDS,
                          &nan);
        any_nan |= nan;
    }
    return any_nan;
}
