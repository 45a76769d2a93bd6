/* pack.c: drivers of pack, unpack, popcount and prepack: rows shared out to threads. */
#include "bitops.h"
#include "target.h"

/* Below this many words a second thread costs more than it saves (measured: about 10 us of packing
 * float32 against 5 us to wake a team). */
enum { THREAD_WORDS = 4096 };

static int team(size_t words, int n_threads) {
    return words < THREAD_WORDS ? 1 : n_threads;
}

/* A row is cut into spans of this many words, so that one long row is shared out too. */
enum { SPAN_WORDS = 1024 };

static size_t element_size(bitops_dtype dtype) {
    static const size_t sizes[] = {
        [BITOPS_BOOL8] = 1, [BITOPS_I8] = 1,  [BITOPS_I16] = 2, [BITOPS_I32] = 4,
        [BITOPS_I64] = 8,   [BITOPS_F32] = 4, [BITOPS_F64] = 8};
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

int bitops_pack_rows(bitops_dtype dtype, const void *x, size_t rows, size_t n, uint64_t *words_out,
                     int n_threads) {
    const bitops_isa *isa = bitops_isa_active();
    const size_t k_words = bitops_words(n), size = element_size(dtype);
    const ptrdiff_t spans = (ptrdiff_t)((k_words + SPAN_WORDS - 1) / SPAN_WORDS);
    const ptrdiff_t tasks = (ptrdiff_t)rows * spans;
    int any_nan = 0;
    BITOPS_PARALLEL_FOR(team(rows * k_words, n_threads), schedule(static) reduction(| : any_nan))
    for (ptrdiff_t task = 0; task < tasks; task++) {
        const size_t row = (size_t)(task / spans), word = (size_t)(task % spans) * SPAN_WORDS;
        const size_t first = word * BITOPS_WORD_BITS, left = n - first;
        const size_t span = (size_t)SPAN_WORDS * BITOPS_WORD_BITS;
        int nan = 0;
        pack_span(isa, dtype, (const char *)x + (row * n + first) * size, left < span ? left : span,
                  words_out + row * k_words + word, &nan);
        any_nan |= nan;
    }
    return any_nan;
}

void bitops_unpack_rows(bitops_dtype dtype, const uint64_t *words, size_t rows, size_t n,
                        void *x_out, int n_threads) {
    const bitops_isa *isa = bitops_isa_active();
    const size_t k_words = bitops_words(n), size = element_size(dtype);
    const ptrdiff_t spans = (ptrdiff_t)((k_words + SPAN_WORDS - 1) / SPAN_WORDS);
    const ptrdiff_t tasks = (ptrdiff_t)rows * spans;
    BITOPS_PARALLEL_FOR(team(rows * k_words, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < tasks; task++) {
        const size_t row = (size_t)(task / spans), word = (size_t)(task % spans) * SPAN_WORDS;
        const size_t first = word * BITOPS_WORD_BITS, left = n - first;
        const size_t span = (size_t)SPAN_WORDS * BITOPS_WORD_BITS;
        unpack_span(isa, dtype, words + row * k_words + word, left < span ? left : span,
                    (char *)x_out + (row * n + first) * size);
    }
}

void bitops_popcount_rows(const uint64_t *words, size_t rows, size_t k_words, int64_t *count_out,
                          int n_threads) {
    const bitops_isa *isa = bitops_isa_active();
    BITOPS_PARALLEL_FOR(team(rows * k_words / 8, n_threads), schedule(static))
    for (ptrdiff_t row = 0; row < (ptrdiff_t)rows; row++) {
        uint64_t count;
        isa->popcount(words + (size_t)row * k_words, k_words, &count);
        count_out[row] = (int64_t)count;
    }
}

size_t bitops_prepack_size(const bitops_isa *isa, size_t n, size_t k_words) {
    return (n + isa->nr - 1) / isa->nr * isa->nr * k_words;
}

void bitops_prepack_all(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                        size_t k_words, uint64_t *panels_out, int n_threads) {
    const size_t nr = isa->nr;
    BITOPS_PARALLEL_FOR(team(n * k_words, n_threads), schedule(static))
    for (ptrdiff_t panel = 0; panel < (ptrdiff_t)((n + nr - 1) / nr); panel++) {
        const size_t first = (size_t)panel * nr;
        isa->prepack(w + first * ldw, ldw, n - first < nr ? n - first : nr, k_words,
                     panels_out + first * k_words);
    }
}
