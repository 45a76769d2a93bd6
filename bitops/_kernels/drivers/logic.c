/* logic.c: logic on words of large arrays, bound by memory.
 *
 * A few lines at a time are combined on the stack, masked there, and go past the caches. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "drivers/stream.h"
#include "runtime/parallel.h"

enum {
    TASK_WORDS = 1 << 14,
    THREAD_WORDS = 1 << 15, /* below this many, one thread is as fast */
    STAGE_WORDS = 1 << 6,
};

static void combine(bitops_logic logic, const uint64_t *a, const uint64_t *b, size_t n,
                    uint64_t *words_out) {
    switch (logic) {
    case BITOPS_AND:
        for (size_t i = 0; i < n; i++)
            words_out[i] = a[i] & b[i];
        break;
    case BITOPS_OR:
        for (size_t i = 0; i < n; i++)
            words_out[i] = a[i] | b[i];
        break;
    case BITOPS_XOR:
        for (size_t i = 0; i < n; i++)
            words_out[i] = a[i] ^ b[i];
        break;
    case BITOPS_XNOR:
        for (size_t i = 0; i < n; i++)
            words_out[i] = ~(a[i] ^ b[i]);
        break;
    case BITOPS_NOT:
        for (size_t i = 0; i < n; i++)
            words_out[i] = ~a[i];
    }
}

void bitops_combine(bitops_logic logic, const uint64_t *a, const uint64_t *b, size_t rows, size_t n,
                    uint64_t *words_out, bitops_stop *stop, int n_threads) {
    const size_t k_words = bitops_words(n), words = rows * k_words;
    const uint64_t last = UINT64_MAX >> (-n % BITOPS_WORD_BITS); /* bits of the last words */
    BITOPS_PARALLEL_FOR(bitops_share((double)words, THREAD_WORDS, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(words, TASK_WORDS); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * TASK_WORDS, end = min_size(first + TASK_WORDS, words);
        size_t row_end = (first / k_words + 1) * k_words - 1;
        for (size_t i = first; i < end; i += STAGE_WORDS) {
            _Alignas(LINE_BYTES) uint64_t stage[STAGE_WORDS];
            const size_t some = min_size(STAGE_WORDS, end - i);
            combine(logic, a + i, logic == BITOPS_NOT ? NULL : b + i, some, stage);
            for (; last != UINT64_MAX && row_end < i + some; row_end += k_words)
                stage[row_end - i] &= last;
            stream(words_out + i, stage, some * sizeof *stage);
        }
    }
}
