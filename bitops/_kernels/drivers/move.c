/* move.c: bits and bytes that move within rows, or from rows to others.
 *
 * These loops are bound by memory. Large outputs go past the caches, as those of a copy do: the
 * kernels write whole lines there, and rows that do not consist of such are put together first. */
#include "bitops.h"
#include "drivers/bits.h"
#include "drivers/sizes.h"
#include "drivers/stream.h"
#include "isa/shared/mirror.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    TASK_WORDS = 1 << 14,   /* 128 KiB: rows that are shorter make a task together */
    THREAD_WORDS = 1 << 15, /* below this many, one thread is as fast */
    SHORT_WORDS = 1 << 6,   /* of rows that are put together on the stack, about so many words */
    STAGE_WORDS = LINE_WORDS * SHORT_WORDS, /* whole lines of such rows, at most */
    STAGE_AHEAD = 1 << 10,                  /* words before they are read, they are asked for */
    ROWS_AHEAD = 16,                        /* and rows in any order, so many rows before */
    OUTPUT_AHEAD = 1 << 7,                  /* words before they are written, lines of the output */
    ASKED_WORDS = 16, /* of a row: the processor asks for the rest of longer ones */
};

static int streams(size_t words) {
    return words >= STREAM_BYTES / sizeof(uint64_t);
}

static int team(size_t words, int n_threads) {
    return bitops_share((double)words, THREAD_WORDS, n_threads);
}

/* Of rows that share a task, so many that each task begins with a line of the output. */
static size_t rows_of_task(size_t row_words) {
    const size_t rows = TASK_WORDS / max_size(row_words, 1);
    return rows < LINE_WORDS ? max_size(rows, 1) : rows / LINE_WORDS * LINE_WORDS;
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

/* Bits [from, from + n) of a row become bits [to, to + n) of another one. */
static void copy_row(const bitops_isa *isa, const uint64_t *words, size_t from, size_t n,
                     uint64_t *words_out, size_t to, int past_caches) {
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
    isa->shift_words(words, whole, shift, past_caches, words_out);
    if (rest)
        set_bits(words_out + whole, 0, rest, read_bits(words + whole, shift, rest));
}

void bitops_copy_bits(const bitops_isa *isa, const uint64_t *words, size_t ld, size_t from,
                      size_t rows, size_t n, uint64_t *words_out, size_t ld_out, size_t to,
                      bitops_stop *stop, int n_threads) {
    if (n == 0)
        return;
    const size_t n_words = bitops_words(n), share = rows_of_task(n_words);
    BITOPS_PARALLEL_FOR(team(rows * n_words, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share, end = min_size(first + share, rows);
        for (size_t row = first; row < end; row++)
            copy_row(isa, words + row * ld, from, n, words_out + row * ld_out, to, 0);
    }
}

/* ---- rows in any order: bound by the time of a miss, so that several are on their way ----------
 */

typedef struct choice {
    const uint64_t *words;
    size_t n, k_words;
    const int64_t *indices;
} choice;

/* The row of an index that may count from the end, or NULL. */
static const uint64_t *row_at(const choice *c, int64_t index) {
    const size_t row = (size_t)(index < 0 ? index + (int64_t)c->n : index);
    return row < c->n ? c->words + row * c->k_words : NULL;
}

BITOPS_INLINE void ask_for_row(const choice *c, int64_t index) {
    const uint64_t *row = row_at(c, index);
    for (size_t p = 0; row && p < min_size(c->k_words, ASKED_WORDS); p += LINE_WORDS)
        BITOPS_PREFETCH(row + p);
}

/* The output is new memory, whose pages the system has just cleared: its lines are in a cache, so
 * that stores past the caches would be slower than those to lines that are asked for. */
static int take_some(const choice *c, size_t first, size_t end, uint64_t *words_out) {
    const size_t bytes = c->k_words * sizeof *words_out;
    int all = 1;
    for (size_t i = first; i < end; i++) {
        const uint64_t *row = row_at(c, c->indices[i]);
        uint64_t *row_out = words_out + i * c->k_words;
        if (i + ROWS_AHEAD < end)
            ask_for_row(c, c->indices[i + ROWS_AHEAD]);
        for (size_t p = 0; p < min_size(c->k_words, ASKED_WORDS); p += LINE_WORDS)
            BITOPS_PREFETCH_WRITE(row_out + OUTPUT_AHEAD + p);
        if (row)
            memcpy(row_out, row, bytes);
        else
            all = 0;
    }
    return all;
}

int bitops_take_rows(const uint64_t *words, size_t n, size_t k_words, const int64_t *indices,
                     size_t count, uint64_t *words_out, bitops_stop *stop, int n_threads) {
    const size_t share = rows_of_task(k_words);
    const choice c = {words, n, k_words, indices};
    int all = 1;
    BITOPS_PARALLEL_FOR(team(count * k_words, n_threads), schedule(static) reduction(& : all))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(count, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share;
        all &= take_some(&c, first, min_size(first + share, count), words_out);
    }
    return all;
}

/* ---- rolls and flips: each row of n bits becomes another one --------------------------------- */

/* What becomes of the rows: they are rolled, or flipped if `cut` is 0. */
typedef struct turn {
    const bitops_isa *isa;
    size_t n, cut, n_words;
    int past_caches;
} turn;

/* Both parts of a row at once, so that its words are read and written once. */
static void roll_row(const turn *t, const uint64_t *words, uint64_t *words_out) {
    words_out[(t->n - t->cut) / BITOPS_WORD_BITS] = 0; /* which are filled in parts */
    words_out[t->n_words - 1] = 0;
    copy_row(t->isa, words, t->cut, t->n - t->cut, words_out, 0, t->past_caches);
    copy_row(t->isa, words, 0, t->cut, words_out, t->n - t->cut, t->past_caches);
}

static void roll_rows(const turn *t, const uint64_t *words, size_t rows, uint64_t *words_out) {
    if (t->n_words <= BITOPS_ROLL_WORDS)
        t->isa->roll_rows(words, rows, t->n, t->cut, t->past_caches, words_out);
    else
        for (size_t row = 0; row < rows; row++)
            roll_row(t, words + row * t->n_words, words_out + row * t->n_words);
}

static void flip_row(const turn *t, const uint64_t *words, uint64_t *words_out) {
    const size_t whole = t->n / BITOPS_WORD_BITS, rest = t->n % BITOPS_WORD_BITS;
    t->isa->mirror_words(words, whole, rest, 1, t->past_caches, words_out);
    if (rest)
        words_out[whole] = mirror_word(read_bits(words, 0, rest)) >> (BITOPS_WORD_BITS - rest);
}

/* The words of rows in reverse order, which are flipped rows once their bits are mirrored. */
static void reverse_rows(const turn *t, const uint64_t *words, size_t rows, uint64_t *words_out) {
    const size_t n = t->n_words, padding = -t->n % BITOPS_WORD_BITS;
    if (n == 1)
        for (size_t row = 0; row < rows; row++)
            words_out[row] = words[row] << padding;
    else if (padding == 0)
        for (size_t row = 0; row < rows; row++, words += n, words_out += n)
            for (size_t i = 0; i < n; i++)
                words_out[i] = words[n - 1 - i];
    else
        for (size_t row = 0; row < rows; row++, words += n, words_out += n) {
            words_out[n - 1] = words[0] << padding;
            for (size_t i = 0; i + 1 < n; i++)
                words_out[i] =
                    words[n - 1 - i] << padding | words[n - 2 - i] >> (BITOPS_WORD_BITS - padding);
        }
}

/* Short rows, as many together as make whole lines, so that they may go past the caches. */
static void flip_short(const turn *t, const uint64_t *words, size_t rows, uint64_t *words_out) {
    _Alignas(LINE_BYTES) uint64_t stage[STAGE_WORDS];
    const size_t lines = max_size(SHORT_WORDS / t->n_words / LINE_WORDS, 1);
    const size_t together = t->n_words % LINE_WORDS ? lines * LINE_WORDS : SHORT_WORDS / t->n_words;
    for (size_t row = 0; row < rows; row += together) {
        const size_t some = min_size(together, rows - row), at = row * t->n_words;
        for (size_t p = 0; t->past_caches && p < some * t->n_words; p += LINE_WORDS)
            BITOPS_PREFETCH(words + at + STAGE_AHEAD + p);
        reverse_rows(t, words + at, some, stage);
        t->isa->mirror_words(stage, some * t->n_words, 0, 0, t->past_caches, words_out + at);
    }
}

static void flip_rows(const turn *t, const uint64_t *words, size_t rows, uint64_t *words_out) {
    if (t->n == BITOPS_WORD_BITS) /* as if they were one row */
        t->isa->mirror_words(words, rows, 0, 0, t->past_caches, words_out);
    else if (t->n_words <= SHORT_WORDS)
        flip_short(t, words, rows, words_out);
    else
        for (size_t row = 0; row < rows; row++)
            flip_row(t, words + row * t->n_words, words_out + row * t->n_words);
}

static void turn_all(const turn *t, const uint64_t *words, size_t rows, uint64_t *words_out,
                     bitops_stop *stop, int n_threads) {
    const size_t share = rows_of_task(t->n_words);
    BITOPS_PARALLEL_FOR(team(rows * t->n_words, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share, at = first * t->n_words;
        const size_t some = min_size(share, rows - first);
        if (t->cut)
            roll_rows(t, words + at, some, words_out + at);
        else
            flip_rows(t, words + at, some, words_out + at);
    }
}

static turn turn_of(const bitops_isa *isa, size_t rows, size_t n, size_t cut) {
    const size_t n_words = bitops_words(n);
    const turn t = {isa, n, cut, n_words, streams(rows * n_words)};
    return t;
}

void bitops_roll_bits(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t n,
                      size_t cut, uint64_t *words_out, bitops_stop *stop, int n_threads) {
    const turn t = turn_of(isa, rows, n, cut);
    turn_all(&t, words, rows, words_out, stop, n_threads);
}

void bitops_flip_bits(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t n,
                      uint64_t *words_out, bitops_stop *stop, int n_threads) {
    const turn t = turn_of(isa, rows, n, 0);
    turn_all(&t, words, rows, words_out, stop, n_threads);
}
