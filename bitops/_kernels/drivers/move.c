/* move.c: bits and bytes that move within rows, or from rows to others.
 *
 * These loops are bound by memory: as compiled for any processor they take about as long as a copy,
 * so but for flips no instruction set has kernels of its own. Large outputs go past the caches, as
 * those of a copy do, by way of a few lines on the stack. */
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
    STAGE_WORDS = 1 << 6,   /* that are written together, so that reads and writes overlap, */
    STAGE_AHEAD = 1 << 10,  /* and how many words before they are asked for */
};

/* Words on the stack that stand for a part of a large output. */
typedef struct stage {
    int streams;
    _Alignas(LINE_BYTES) uint64_t words[STAGE_WORDS];
} stage;

static int streams(size_t words) {
    return words >= STREAM_BYTES / sizeof(uint64_t);
}

/* Where up to STAGE_WORDS words for words_out are to be written, which are made from `words`, */
static inline uint64_t *stage_for(stage *s, const uint64_t *words, uint64_t *words_out) {
    if (!s->streams)
        return words_out;
    for (size_t p = 0; p < STAGE_WORDS; p += LINE_WORDS)
        BITOPS_PREFETCH((const char *)words + (STAGE_AHEAD + p) * sizeof *words);
    return s->words;
}

/* and what brings them there. */
static inline void deliver(const stage *s, size_t n, uint64_t *words_out) {
    if (s->streams)
        stream(words_out, s->words, n * sizeof *words_out);
}

static int team(size_t words, int n_threads) {
    return bitops_share((double)words, THREAD_WORDS, n_threads);
}

static size_t rows_of_task(size_t row_words) {
    return max_size(TASK_WORDS / max_size(row_words, 1), 1);
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

/* Writes n words that begin `shift` bits after a word. */
BITOPS_INLINE void shift_words(const uint64_t *words, size_t n, size_t shift, uint64_t *words_out) {
    if (shift == 0)
        memcpy(words_out, words, n * sizeof *words);
    else
        for (size_t i = 0; i < n; i++)
            words_out[i] = words[i] >> shift | words[i + 1] << (BITOPS_WORD_BITS - shift);
}

BITOPS_INLINE void copy_row(const uint64_t *words, size_t from, size_t n, uint64_t *words_out,
                            size_t to, stage *s) {
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
    for (size_t i = 0; i < whole; i += STAGE_WORDS) {
        const size_t some = min_size(STAGE_WORDS, whole - i);
        shift_words(words + i, some, shift, stage_for(s, words + i, words_out + i));
        deliver(s, some, words_out + i);
    }
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
        stage plain = {.streams = 0};
        for (size_t row = first; row < end; row++)
            copy_row(words + row * ld, from, n, words_out + row * ld_out, to, &plain);
    }
}

/* ---- rolls and flips: each row of n bits becomes another one --------------------------------- */

/* Rows of one word, 0 < cut < n <= 64. */
static void roll_short(const uint64_t *words, size_t rows, size_t n, size_t cut,
                       uint64_t *words_out) {
    const uint64_t mask = UINT64_MAX >> (BITOPS_WORD_BITS - n);
    for (size_t row = 0; row < rows; row++)
        words_out[row] = (words[row] >> cut | words[row] << (n - cut)) & mask;
}

/* Rows of whole words that take the next word, or the one before, at their ends alone: all of them
 * are shifted as one row, and then the ends are mended. */
static int rolls_by_a_word(size_t n, size_t cut) {
    const size_t words = n / BITOPS_WORD_BITS, at = cut / BITOPS_WORD_BITS;
    return n % BITOPS_WORD_BITS == 0 && words > 1 && (at == 0 || at == words - 1) &&
           cut % BITOPS_WORD_BITS;
}

static void roll_by_a_word(const uint64_t *words, size_t rows, size_t n_words, size_t cut,
                           uint64_t *words_out) {
    const size_t shift = cut % BITOPS_WORD_BITS, all = rows * n_words;
    const int later = cut < BITOPS_WORD_BITS; /* word i takes bits of word i + 1, else of i - 1 */
    shift_words(words, all - 1, shift, words_out + !later);
    for (size_t row = 0; row < rows; row++) {
        const uint64_t *own = words + row * n_words;
        words_out[row * n_words + (later ? n_words - 1 : 0)] =
            own[n_words - 1] >> shift | own[0] << (BITOPS_WORD_BITS - shift);
    }
}

/* Both parts of a row at once, so that its words are read and written once. */
static void roll_row(const uint64_t *words, size_t n, size_t cut, uint64_t *words_out, stage *s) {
    words_out[(n - cut) / BITOPS_WORD_BITS] = 0; /* which are filled in parts */
    words_out[bitops_words(n) - 1] = 0;
    copy_row(words, cut, n - cut, words_out, 0, s);
    copy_row(words, 0, cut, words_out, n - cut, s);
}

static void flip_short(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t n,
                       uint64_t *words_out) {
    isa->mirror_words(words, rows, 0, 0, words_out);
    for (size_t i = 0; i < rows && n < BITOPS_WORD_BITS; i++)
        words_out[i] >>= BITOPS_WORD_BITS - n;
}

static void flip_row(const bitops_isa *isa, const uint64_t *words, size_t n, uint64_t *words_out,
                     stage *s) {
    const size_t whole = n / BITOPS_WORD_BITS, rest = n % BITOPS_WORD_BITS;
    for (size_t i = 0; i < whole; i += STAGE_WORDS) {
        const size_t some = min_size(STAGE_WORDS, whole - i);
        uint64_t *to = words_out + whole - i - some;
        isa->mirror_words(words + i, some, rest, 1, stage_for(s, words + i, to));
        deliver(s, some, to);
    }
    if (rest)
        words_out[whole] = mirror_word(read_bits(words, 0, rest)) >> (BITOPS_WORD_BITS - rest);
}

/* What becomes of the rows: they are rolled, or flipped if `cut` is 0. */
typedef struct turn {
    const bitops_isa *isa;
    size_t n, cut, n_words;
} turn;

static void turn_row(const turn *t, const uint64_t *words, uint64_t *words_out, stage *s) {
    if (t->cut)
        roll_row(words, t->n, t->cut, words_out, s);
    else
        flip_row(t->isa, words, t->n, words_out, s);
}

/* Rows that fit a stage together. */
static void turn_short_rows(const turn *t, const uint64_t *words, size_t rows,
                            uint64_t *words_out) {
    stage plain; /* not cleared, which takes as long as the rows do */
    plain.streams = 0;
    if (t->cut && rolls_by_a_word(t->n, t->cut))
        roll_by_a_word(words, rows, t->n_words, t->cut, words_out);
    else if (t->n_words > 1)
        for (size_t row = 0; row < rows; row++)
            turn_row(t, words + row * t->n_words, words_out + row * t->n_words, &plain);
    else if (t->cut)
        roll_short(words, rows, t->n, t->cut, words_out);
    else
        flip_short(t->isa, words, rows, t->n, words_out);
}

static void turn_rows(const turn *t, const uint64_t *words, size_t rows, uint64_t *words_out,
                      int past_caches) {
    const size_t together = STAGE_WORDS / t->n_words;
    stage s = {.streams = past_caches};
    for (size_t row = 0; row < rows; row += max_size(together, 1)) {
        const uint64_t *from = words + row * t->n_words;
        uint64_t *to = words_out + row * t->n_words;
        if (together == 0) {
            turn_row(t, from, to, &s);
            continue;
        }
        const size_t some = min_size(together, rows - row);
        turn_short_rows(t, from, some, stage_for(&s, from, to));
        deliver(&s, some * t->n_words, to);
    }
}

static void turn_all(const turn *t, const uint64_t *words, size_t rows, uint64_t *words_out,
                     bitops_stop *stop, int n_threads) {
    const size_t share = rows_of_task(t->n_words), all = rows * t->n_words;
    BITOPS_PARALLEL_FOR(team(all, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(rows, share); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share;
        turn_rows(t, words + first * t->n_words, min_size(share, rows - first),
                  words_out + first * t->n_words, streams(all));
    }
}

void bitops_roll_bits(const uint64_t *words, size_t rows, size_t n, size_t cut, uint64_t *words_out,
                      bitops_stop *stop, int n_threads) {
    const turn t = {.n = n, .cut = cut, .n_words = bitops_words(n)};
    turn_all(&t, words, rows, words_out, stop, n_threads);
}

void bitops_flip_bits(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t n,
                      uint64_t *words_out, bitops_stop *stop, int n_threads) {
    const turn t = {.isa = isa, .n = n, .n_words = bitops_words(n)};
    turn_all(&t, words, rows, words_out, stop, n_threads);
}
