/* pack.c: drivers of pack, unpack, popcount and prepack, whose rows threads share. */
#include "bitops.h"
#include "drivers/bit_tile.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

/* Below this many words one thread is as fast. Measured on two Zen 4 cores with threads awake: 512
 * words of float32 are packed in 3.7 us by one thread and 3.1 by two, 1024 in 6.3 and 4.2; 32768
 * words are counted in 4.0 and 4.1 us, 65536 in 10 and 5.6. */
enum {
    THREAD_WORDS = 1024,
    READ_WORDS = 32, /* words that are read, to be counted or ordered, in the time of packing one */
};

static int team(size_t words, int n_threads) {
    return bitops_share((double)words, THREAD_WORDS, n_threads);
}

/* A row is cut into spans of this many words, so that threads can share one long row. */
enum { SPAN_WORDS = 1024, SPAN_BITS = SPAN_WORDS * BITOPS_WORD_BITS };

static size_t element_size(bitops_dtype dtype) {
    static const size_t sizes[] = {
        [BITOPS_BOOL8] = 1, [BITOPS_I8] = 1,   [BITOPS_I16] = 2, [BITOPS_I32] = 4, [BITOPS_I64] = 8,
        [BITOPS_F16] = 2,   [BITOPS_BF16] = 2, [BITOPS_F32] = 4, [BITOPS_F64] = 8};
    return sizes[dtype];
}

static void pack_span(const bitops_isa *isa, bitops_dtype dtype, const void *x, size_t n,
                      uint64_t *words_out, int *nan) {
    switch (dtype) {
    case BITOPS_BOOL8:
        isa->pack_bool8(x, n, words_out, nan);
        break;
    case BITOPS_I8:
        isa->pack_i8(x, n, words_out, nan);
        break;
    case BITOPS_I16:
        isa->pack_i16(x, n, words_out, nan);
        break;
    case BITOPS_I32:
        isa->pack_i32(x, n, words_out, nan);
        break;
    case BITOPS_I64:
        isa->pack_i64(x, n, words_out, nan);
        break;
    case BITOPS_F16:
        isa->pack_f16(x, n, words_out, nan);
        break;
    case BITOPS_BF16:
        isa->pack_bf16(x, n, words_out, nan);
        break;
    case BITOPS_F32:
        isa->pack_f32(x, n, words_out, nan);
        break;
    case BITOPS_F64:
        isa->pack_f64(x, n, words_out, nan);
        break;
    }
}

static void unpack_span(const bitops_isa *isa, bitops_dtype dtype, const uint64_t *words, size_t n,
                        void *x_out) {
    if (dtype == BITOPS_I8)
        isa->unpack_i8(words, n, x_out);
    else
        isa->unpack_f32(words, n, x_out);
}

int bitops_pack_rows(const bitops_isa *isa, bitops_dtype dtype, const void *x, size_t rows,
                     size_t n, uint64_t *words_out, bitops_stop *stop, int n_threads) {
    const size_t k_words = bitops_words(n), size = element_size(dtype);
    const size_t spans = ceil_div(k_words, SPAN_WORDS);
    int any_nan = 0;
    BITOPS_PARALLEL_FOR(team(rows * k_words, n_threads), schedule(static) reduction(| : any_nan))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(rows * spans); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t row = (size_t)task / spans, word = (size_t)task % spans * SPAN_WORDS;
        const size_t first = word * BITOPS_WORD_BITS;
        int nan = 0;
        pack_span(isa, dtype, (const char *)x + (row * n + first) * size,
                  min_size(n - first, SPAN_BITS), words_out + row * k_words + word, &nan);
        any_nan |= nan;
    }
    return any_nan;
}

static void compare_span(const bitops_isa *isa, bitops_dtype dtype, const void *x,
                         const float *threshold, size_t n, const uint64_t *flip,
                         uint64_t *words_out, int *nan) {
    if (dtype == BITOPS_I32)
        isa->compare_i32(x, threshold, n, words_out, nan);
    else
        isa->compare_f32(x, threshold, n, words_out, nan);
    for (size_t p = 0; flip && p < bitops_words(n); p++)
        words_out[p] ^= flip[p];
}

/* A row of several spans, between which interrupts are asked for. */
static void compare_long_row(const bitops_isa *isa, bitops_dtype dtype, const char *x,
                             const float *threshold, size_t n, const uint64_t *flip,
                             uint64_t *words_out, bitops_stop *stop, int *nan) {
    for (size_t i = 0, p = 0; i < n && !bitops_stopped(stop); i += SPAN_BITS, p += SPAN_WORDS)
        compare_span(isa, dtype, x + i * sizeof(float), threshold + i, min_size(n - i, SPAN_BITS),
                     flip ? flip + p : NULL, words_out + p, nan);
}

/* Rows [begin, end). */
static int compare_share(const bitops_isa *isa, bitops_dtype dtype, const void *x, size_t begin,
                         size_t end, size_t n, const float *threshold, const uint64_t *flip,
                         uint64_t *words_out, bitops_stop *stop) {
    const size_t k_words = bitops_words(n);
    int nan = 0;
    for (size_t row = begin; row < end; row++) {
        const char *from = (const char *)x + row * n * sizeof(float);
        uint64_t *words = words_out + row * k_words;
        if (k_words <= SPAN_WORDS)
            compare_span(isa, dtype, from, threshold, n, flip, words, &nan);
        else
            compare_long_row(isa, dtype, from, threshold, n, flip, words, stop, &nan);
    }
    return nan;
}

int bitops_compare_rows(const bitops_isa *isa, bitops_dtype dtype, const void *x, size_t rows,
                        size_t n, const float *threshold, const uint64_t *flip, uint64_t *words_out,
                        bitops_stop *stop, int n_threads) {
    const size_t k_words = bitops_words(n);
    const size_t share = max_size(SPAN_WORDS / max_size(k_words, 1), 1); /* rows of a task */
    int any_nan = 0;
    if (rows <= share) {
        BITOPS_WITH_DEFAULT_FLOATS
        any_nan = compare_share(isa, dtype, x, 0, rows, n, threshold, flip, words_out, stop);
        return any_nan;
    }
    BITOPS_PARALLEL_FOR(team(rows * k_words, n_threads), schedule(static) reduction(| : any_nan))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t begin = (size_t)task * share, end = min_size(begin + share, rows);
        any_nan |= compare_share(isa, dtype, x, begin, end, n, threshold, flip, words_out, stop);
    }
    return any_nan;
}

/* Two tiles for each thread: the stacks of threads may be as small. */
size_t bitops_transpose_workspace_size(int n_threads) {
    return (size_t)n_threads * 2 * sizeof(bit_tile);
}

void bitops_transpose(const bitops_isa *isa, const uint64_t *words, size_t outer, size_t rows,
                      size_t columns, uint64_t *words_out, void *workspace, bitops_stop *stop,
                      int n_threads) {
    const size_t ld = bitops_words(columns), ld_out = bitops_words(rows);
    const size_t across = ceil_div(ld, LINE_WORDS), down = ceil_div(ld_out, LINE_WORDS);
    BITOPS_PARALLEL_FOR(team(outer * rows * ld, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(outer * across * down); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        bit_tile *in = (bit_tile *)workspace + 2 * bitops_thread_number(), *out = in + 1;
        const size_t block = (size_t)task / (across * down);
        const size_t c = (size_t)task / down % across * LINE_WORDS;
        const size_t p = (size_t)task % down * LINE_WORDS;
        const size_t i = p * BITOPS_WORD_BITS, j = c * BITOPS_WORD_BITS;
        const size_t height = min_size(rows - i, TILE_BITS);
        const size_t width = min_size(columns - j, TILE_BITS);
        fill_tile(words + (block * rows + i) * ld + c, ld, height, min_size(ld - c, LINE_WORDS),
                  in);
        isa->turn_bits(in->rows[0], width, out->rows[0]);
        uint64_t *to = words_out + (block * columns + j) * ld_out + p;
        const size_t bytes = min_size(ld_out - p, LINE_WORDS) * sizeof *to;
        for (size_t row = 0; row < width; row++, to += ld_out)
            memcpy(to, out->rows[row], bytes);
    }
}

void bitops_unpack_rows(const bitops_isa *isa, bitops_dtype dtype, const uint64_t *words,
                        size_t rows, size_t n, void *x_out, bitops_stop *stop, int n_threads) {
    const size_t k_words = bitops_words(n), size = element_size(dtype);
    const size_t spans = ceil_div(k_words, SPAN_WORDS);
    BITOPS_PARALLEL_FOR(team(rows * k_words, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(rows * spans); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t row = (size_t)task / spans, word = (size_t)task % spans * SPAN_WORDS;
        const size_t first = word * BITOPS_WORD_BITS;
        unpack_span(isa, dtype, words + row * k_words + word, min_size(n - first, SPAN_BITS),
                    (char *)x_out + (row * n + first) * size);
    }
}

enum {
    COUNT_SPAN = 1 << 14, /* words, 128 KiB: threads share a row that is longer */
    COUNT_ROWS = 1 << 16, /* rows that are counted by column before interrupts are asked for */
};

/* Few long rows: threads share the spans of each row, whose counts are added. */
static void popcount_long_rows(const bitops_isa *isa, const uint64_t *words, size_t rows,
                               size_t k_words, int64_t *count_out, bitops_stop *stop, int threads) {
    const size_t spans = ceil_div(k_words, COUNT_SPAN);
    for (size_t row = 0; row < rows && !bitops_stopped(stop); row++) {
        int64_t total = 0;
        BITOPS_PARALLEL_FOR(threads, schedule(static) reduction(+ : total))
        for (ptrdiff_t span = 0; span < (ptrdiff_t)spans; span++) {
            if (bitops_stopped_at((size_t)span, BITOPS_STOP_TASKS, stop))
                continue;
            const size_t first = (size_t)span * COUNT_SPAN;
            int64_t count;
            isa->popcount(words + row * k_words + first, 1, min_size(k_words - first, COUNT_SPAN),
                          &count);
            total += count;
        }
        count_out[row] = total;
    }
}

/* The 1 bits of n words; a long row asks for interrupts. */
static int64_t count_words(const bitops_isa *isa, const uint64_t *words, size_t n,
                           bitops_stop *stop) {
    int64_t total = 0;
    for (size_t first = 0; first < n; first += COUNT_SPAN) {
        if (first && bitops_stopped(stop))
            break;
        int64_t count;
        isa->popcount(words + first, 1, min_size(n - first, COUNT_SPAN), &count);
        total += count;
    }
    return total;
}

void bitops_popcount_rows(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t k_words,
                          int64_t *count_out, bitops_stop *stop, int n_threads) {
    const int threads = team(rows * k_words / READ_WORDS, n_threads);
    if (threads > 1 && k_words > COUNT_SPAN && rows < 16 * (size_t)threads) {
        popcount_long_rows(isa, words, rows, k_words, count_out, stop, threads);
        return;
    }
    const size_t share = max_size(COUNT_SPAN / max_size(k_words, 1), 1); /* rows of a task */
    BITOPS_PARALLEL_FOR(threads, schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t row = (size_t)task * share;
        const uint64_t *first = words + row * k_words;
        if (k_words > COUNT_SPAN)
            count_out[row] = count_words(isa, first, k_words, stop);
        else
            isa->popcount(first, min_size(rows - row, share), k_words, count_out + row);
    }
}

void bitops_majority_rows(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t k_words,
                          int64_t least, uint64_t *words_out, bitops_stop *stop, int n_threads) {
    enum { ROWS = 8 * BITOPS_WORD_BITS }; /* of a task, with their counts in the cache */
    BITOPS_PARALLEL_FOR(team(rows * k_words / READ_WORDS, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, ROWS); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t row = (size_t)task * ROWS, some = min_size(ROWS, rows - row);
        int64_t counts[ROWS];
        int nan;
        isa->popcount(words + row * k_words, some, k_words, counts);
        for (size_t i = 0; i < some; i++)
            counts[i] -= least;
        isa->pack_i64(counts, some, words_out + row / BITOPS_WORD_BITS, &nan);
    }
}

/* Adds the counts of n_words columns of rows that follow others, between which interrupts are asked
 * for. */
static void add_columns(const bitops_isa *isa, const uint64_t *words, size_t ld, size_t rows,
                        size_t n_words, int64_t *count_out, bitops_stop *stop) {
    int64_t counts[BITOPS_SPAN_WORDS * BITOPS_WORD_BITS];
    for (size_t row = 0; row < rows && !bitops_stopped(stop); row += COUNT_ROWS) {
        isa->popcount_columns(words + row * ld, ld, min_size(rows - row, COUNT_ROWS), n_words,
                              counts);
        for (size_t i = 0; i < n_words * BITOPS_WORD_BITS; i++)
            count_out[i] += counts[i];
    }
}

void bitops_popcount_columns(const bitops_isa *isa, const uint64_t *words, size_t outer,
                             size_t rows, size_t n_words, int64_t *count_out, bitops_stop *stop,
                             int n_threads) {
    const size_t spans = ceil_div(n_words, BITOPS_SPAN_WORDS);
    BITOPS_PARALLEL_FOR(team(outer * rows * n_words / READ_WORDS, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(outer * spans); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t block = (size_t)task / spans;
        const size_t first = (size_t)task % spans * BITOPS_SPAN_WORDS;
        const size_t n = min_size(n_words - first, BITOPS_SPAN_WORDS);
        const uint64_t *from = words + block * rows * n_words + first;
        int64_t *counts = count_out + (block * n_words + first) * BITOPS_WORD_BITS;
        isa->popcount_columns(from, n_words, min_size(rows, COUNT_ROWS), n, counts);
        if (rows > COUNT_ROWS)
            add_columns(isa, from + COUNT_ROWS * n_words, n_words, rows - COUNT_ROWS, n, counts,
                        stop);
    }
}

void bitops_majority_columns(const bitops_isa *isa, const uint64_t *words, size_t ld_outer,
                             size_t ld, size_t outer, size_t rows, size_t n_words, uint64_t least,
                             uint64_t *words_out, bitops_stop *stop, int n_threads) {
    const size_t spans = ceil_div(n_words, BITOPS_SPAN_WORDS);
    BITOPS_PARALLEL_FOR(team(outer * rows * n_words / READ_WORDS, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(outer * spans); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t block = (size_t)task / spans;
        const size_t first = (size_t)task % spans * BITOPS_SPAN_WORDS;
        isa->majority_columns(words + block * ld_outer + first, ld, rows,
                              min_size(n_words - first, BITOPS_SPAN_WORDS), least,
                              words_out + block * n_words + first);
    }
}

size_t bitops_prepack_size(const bitops_isa *isa, size_t n, size_t k_words) {
    return round_up(n, isa->nr) * k_words;
}

void bitops_prepack_all(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                        size_t k_words, uint64_t *panels_out, bitops_stop *stop, int n_threads) {
    const size_t nr = isa->nr;
    BITOPS_PARALLEL_FOR(team(n * k_words / READ_WORDS, n_threads), schedule(static))
    for (ptrdiff_t panel = 0; panel < (ptrdiff_t)ceil_div(n, nr); panel++) {
        if (bitops_stopped_at((size_t)panel, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)panel * nr, rows = min_size(n - first, nr);
        uint64_t *out = panels_out + first * k_words;
        for (size_t p = 0; p < k_words && !(p && bitops_stopped(stop)); p += SPAN_WORDS)
            isa->prepack(w + first * ldw + p, ldw, rows, min_size(k_words - p, SPAN_WORDS),
                         out + p * nr);
    }
}
