/* move.c: bits and bytes that move within rows, or from rows to others.
 *
 * These loops are bound by memory: as compiled for any processor they take about as long as a copy,
 * so no instruction set has kernels of its own. */
#include "bitops.h"
#include "drivers/bits.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    TASK_WORDS = 1 << 14,   /* 128 KiB: rows that are shorter make a task together */
    THREAD_WORDS = 1 << 15, /* below this many, one thread is as fast */
};

static int team(size_t words, int n_threads) {
    return bitops_share((double)words, THREAD_WORDS, n_threads);
}

static size_t rows_of_task(size_t row_words) {
    return max_size(TASK_WORDS / max_size(row_words, 1), 1);
}

/* The bits of each byte in reverse order. */
BITOPS_INLINE uint64_t mirror_bytes(uint64_t v) {
    v = (v >> 1 & UINT64_C(0x5555555555555555)) | (v & UINT64_C(0x5555555555555555)) << 1;
    v = (v >> 2 & UINT64_C(0x3333333333333333)) | (v & UINT64_C(0x3333333333333333)) << 2;
    return (v >> 4 & UINT64_C(0x0F0F0F0F0F0F0F0F)) | (v & UINT64_C(0x0F0F0F0F0F0F0F0F)) << 4;
}

BITOPS_INLINE uint64_t mirror_word(uint64_t v) {
    return __builtin_bswap64(mirror_bytes(v));
}

static void mirror_row(const uint8_t *bytes, size_t n, uint8_t *bytes_out) {
    const size_t words = n / sizeof(uint64_t), rest = n % sizeof(uint64_t);
    uint64_t v;
    for (size_t i = 0; i < words; i++) {
        memcpy(&v, bytes + i * sizeof v, sizeof v); /* rows may begin at any byte */
        v = mirror_bytes(v);
        memcpy(bytes_out + i * sizeof v, &v, sizeof v);
    }
    if (rest) {
        v = 0;
        memcpy(&v, bytes + n - rest, rest);
        v = mirror_bytes(v);
        memcpy(bytes_out + n - rest, &v, rest);
    }
}

void bitops_mirror_bytes(const uint8_t *bytes, ptrdiff_t ld, size_t rows, size_t n,
                         uint8_t *bytes_out, ptrdiff_t ld_out, bitops_stop *stop, int n_threads) {
    const size_t words = ceil_div(n, sizeof(uint64_t)), share = rows_of_task(words);
    BITOPS_PARALLEL_FOR(team(rows * words, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share, end = min_size(first + share, rows);
        if (ld == (ptrdiff_t)n && ld_out == ld) /* then they are one row */
            mirror_row(bytes + first * n, (end - first) * n, bytes_out + first * n);
        else
            for (size_t row = first; row < end; row++)
                mirror_row(bytes + (ptrdiff_t)row * ld, n, bytes_out + (ptrdiff_t)row * ld_out);
    }
}

/* Bits [first, first + n) of a word become v; the others of v must be 0. */
BITOPS_INLINE void set_bits(uint64_t *word, size_t first, size_t n, uint64_t v) {
    const uint64_t mask = n < BITOPS_WORD_BITS ? ((UINT64_C(1) << n) - 1) << first : UINT64_MAX;
    *word = (*word & ~mask) | v << first;
}

BITOPS_INLINE void copy_row(const uint64_t *words, size_t from, size_t n, uint64_t *words_out,
                            size_t to) {
    words_out += to / BITOPS_WORD_BITS;
    to %= BITOPS_WORD_BITS;
    if (to) { /* up to the end of the first word */
        const size_t head = min_size(BITOPS_WORD_BITS - to, n);
        set_bits(words_out++, to, head, read_bits(words, from, head));
        from += head;
        n -= head;
    }
    const size_t whole = n / BITOPS_WORD_BITS, rest = n % BITOPS_WORD_BITS;
    const size_t shift = from % BITOPS_WORD_BITS;
    words += from / BITOPS_WORD_BITS;
    if (shift == 0)
        memcpy(words_out, words, whole * sizeof *words);
    else
        for (size_t i = 0; i < whole; i++)
            words_out[i] = words[i] >> shift | words[i + 1] << (BITOPS_WORD_BITS - shift);
    if (rest)
        set_bits(words_out + whole, 0, rest, read_bits(words + whole, shift, rest));
}

void bitops_copy_bits(const uint64_t *words, size_t ld, size_t from, size_t rows, size_t n,
                      uint64_t *words_out, size_t ld_out, size_t to, bitops_stop *stop,
                      int n_threads) {
    if (n == 0)
        return;
    const size_t n_words = bitops_words(n), share = rows_of_task(n_words);
    BITOPS_PARALLEL_FOR(team(rows * n_words, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share, end = min_size(first + share, rows);
        for (size_t row = first; row < end; row++)
            copy_row(words + row * ld, from, n, words_out + row * ld_out, to);
    }
}

/* Rows of one word, 0 < cut < n <= 64. */
static void roll_words(const uint64_t *words, size_t rows, size_t n, size_t cut,
                       uint64_t *words_out) {
    const uint64_t mask = UINT64_MAX >> (BITOPS_WORD_BITS - n);
    for (size_t row = 0; row < rows; row++)
        words_out[row] = (words[row] >> cut | words[row] << (n - cut)) & mask;
}

/* Both parts of a row at once, so that its words are read and written once. */
void bitops_roll_bits(const uint64_t *words, size_t rows, size_t n, size_t cut, uint64_t *words_out,
                      bitops_stop *stop, int n_threads) {
    const size_t n_words = bitops_words(n), share = rows_of_task(n_words);
    BITOPS_PARALLEL_FOR(team(rows * n_words, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share, end = min_size(first + share, rows);
        if (n_words == 1) {
            roll_words(words + first, end - first, n, cut, words_out + first);
            continue;
        }
        for (size_t row = first; row < end; row++) {
            const uint64_t *from = words + row * n_words;
            uint64_t *to = words_out + row * n_words;
            to[(n - cut) / BITOPS_WORD_BITS] = to[n_words - 1] = 0; /* which are filled in parts */
            copy_row(from, cut, n - cut, to, 0);
            copy_row(from, 0, cut, to, n - cut);
        }
    }
}

enum { FLIP_WORDS = 64 }; /* that are mirrored in vectors before their order is reversed */

/* Writes n words in reverse order, with the bits of each in reverse order; of words[i] only the
 * bits from `shift` on count, and those of words[i + 1] before it. */
BITOPS_INLINE void flip_words(const uint64_t *words, size_t n, size_t shift, uint64_t *words_out) {
    uint64_t mirrored[FLIP_WORDS];
    for (size_t i = 0; i < n; i += FLIP_WORDS) {
        const size_t some = min_size(n - i, FLIP_WORDS);
        if (shift == 0)
            for (size_t j = 0; j < some; j++)
                mirrored[j] = mirror_bytes(words[i + j]);
        else
            for (size_t j = 0; j < some; j++)
                mirrored[j] = mirror_bytes(words[i + j] >> shift |
                                           words[i + j + 1] << (BITOPS_WORD_BITS - shift));
        for (size_t j = 0; j < some; j++)
            words_out[n - 1 - i - j] = __builtin_bswap64(mirrored[j]);
    }
}

/* Rows of one word of n bits. */
static void flip_short(const uint64_t *words, size_t rows, size_t n, uint64_t *words_out) {
    uint64_t mirrored[FLIP_WORDS];
    for (size_t i = 0; i < rows; i += FLIP_WORDS) {
        const size_t some = min_size(rows - i, FLIP_WORDS);
        for (size_t j = 0; j < some; j++)
            mirrored[j] = mirror_bytes(words[i + j]);
        for (size_t j = 0; j < some; j++)
            words_out[i + j] = __builtin_bswap64(mirrored[j]) >> (BITOPS_WORD_BITS - n);
    }
}

static void flip_row(const uint64_t *words, size_t n, uint64_t *words_out) {
    const size_t whole = n / BITOPS_WORD_BITS, rest = n % BITOPS_WORD_BITS;
    flip_words(words, whole, rest, words_out);
    if (rest)
        words_out[whole] = mirror_word(read_bits(words, 0, rest)) >> (BITOPS_WORD_BITS - rest);
}

void bitops_flip_bits(const uint64_t *words, size_t rows, size_t n, uint64_t *words_out,
                      bitops_stop *stop, int n_threads) {
    const size_t n_words = bitops_words(n), share = rows_of_task(n_words);
    BITOPS_PARALLEL_FOR(team(rows * n_words, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share, end = min_size(first + share, rows);
        if (n_words == 1)
            flip_short(words + first, end - first, n, words_out + first);
        for (size_t row = first; row < end && n_words > 1; row++)
            flip_row(words + row * n_words, n, words_out + row * n_words);
    }
}
