/* roll.h: rows of bits that begin with a later one of their bits.
 *
 * A row of n bits, seen as a number, becomes (row >> cut) | (row << (n - cut)), of which the first
 * n bits stay. With cut = 64 q + s and n - cut = 64 p + t its word i is
 *
 *   row[i + q] >> s | row[i + q + 1] << (64 - s) | row[i - p] << t | row[i - p - 1] >> (64 - t)
 *
 * where words that the row does not have are 0. Blocks of words read them from the rows before and
 * after, and clear them by masks that recur with each row. To be included inside the
 * target region. */
#ifndef BITOPS_ROLL_H
#define BITOPS_ROLL_H

#include "operations.h"
#include "isa/shared/blocks.h"
#include "isa/shared/target.h"

enum { ROLL_BLOCKS = BITOPS_ROLL_WORDS / BLOCK_WORDS };

/* How rows are rolled, and which of the words above the lanes of each block have. Blocks before
 * `mixed` have the former two alone, those from `earlier_alone` on the latter. */
typedef struct roll {
    size_t n_words, q, s, p, t, blocks, mixed, earlier_alone;
    uint64_t last; /* bits of the last word that a row has */
    word_block later[ROLL_BLOCKS], latest[ROLL_BLOCKS], earlier[ROLL_BLOCKS], earliest[ROLL_BLOCKS],
        kept[ROLL_BLOCKS];
} roll;

/* Words before and after a cut by `shift` bits. Two shifts, since one may be by 64. */
BITOPS_INLINE uint64_t low_part(uint64_t word, size_t shift) {
    return word << 1 << (BITOPS_WORD_BITS - 1 - shift);
}

BITOPS_INLINE uint64_t high_part(uint64_t word, size_t shift) {
    return word >> 1 >> (BITOPS_WORD_BITS - 1 - shift);
}

/* `index` may have passed 0 */
BITOPS_INLINE uint64_t word_of_row(const uint64_t *row, size_t n_words, size_t index) {
    return index < n_words ? row[index] : 0;
}

BITOPS_INLINE void roll_word_by_word(const roll *r, const uint64_t *row, uint64_t *row_out) {
    const size_t n = r->n_words;
    for (size_t i = 0; i < n; i++) {
        BITOPS_IN_POINTER(row); /* no vectors: their masked loads would fault in qemu 7.2 */
        row_out[i] = word_of_row(row, n, i + r->q) >> r->s |
                     low_part(word_of_row(row, n, i + r->q + 1), r->s) |
                     word_of_row(row, n, i - r->p) << r->t |
                     high_part(word_of_row(row, n, i - r->p - 1), r->t);
    }
    row_out[n - 1] &= r->last;
}

BITOPS_INLINE void mask_lane(roll *r, size_t block, size_t lane) {
    const size_t n = r->n_words, i = (block * BLOCK_WORDS + lane) % n;
    const int later = i + r->q < n, earlier = i >= r->p;
    r->later[block][lane] = -(uint64_t)later;
    r->latest[block][lane] = -(uint64_t)(i + r->q + 1 < n);
    r->earlier[block][lane] = -(uint64_t)earlier;
    r->earliest[block][lane] = -(uint64_t)(i > r->p);
    r->kept[block][lane] = i + 1 < n ? UINT64_MAX : r->last;
    if (earlier && block < r->mixed)
        r->mixed = block;
    if (later)
        r->earlier_alone = block + 1;
}

BITOPS_INLINE void later_block(const roll *r, const uint64_t *words, word_block *block_out) {
    word_block later, latest;
    read_block(words + r->q, &later);
    read_block(words + r->q + 1, &latest);
    *block_out = later >> r->s | latest << 1 << (BITOPS_WORD_BITS - 1 - r->s);
}

BITOPS_INLINE void earlier_block(const roll *r, const uint64_t *words, word_block *block_out) {
    word_block earlier, earliest;
    read_block(words - r->p, &earlier);
    read_block(words - r->p - 1, &earliest);
    *block_out = earlier << r->t | earliest >> 1 >> (BITOPS_WORD_BITS - 1 - r->t);
}

BITOPS_INLINE void mixed_block(const roll *r, const uint64_t *words, size_t block,
                               word_block *block_out) {
    word_block later, latest, earlier, earliest;
    read_block(words + r->q, &later);
    read_block(words + r->q + 1, &latest);
    read_block(words - r->p, &earlier);
    read_block(words - r->p - 1, &earliest);
    later = (later & r->later[block]) >> r->s;
    latest = (latest & r->latest[block]) << 1 << (BITOPS_WORD_BITS - 1 - r->s);
    earlier = (earlier & r->earlier[block]) << r->t;
    earliest = (earliest & r->earliest[block]) >> 1 >> (BITOPS_WORD_BITS - 1 - r->t);
    *block_out = later | latest | earlier | earliest;
}

/* A row, or several side by side. */
BITOPS_INLINE void roll_blocks(const roll *r, const uint64_t *words, int past_caches,
                               uint64_t *words_out) {
    for (size_t block = 0; block < r->blocks; block++) {
        const uint64_t *own = words + block * BLOCK_WORDS;
        word_block rolled;
        if (block < r->mixed)
            later_block(r, own, &rolled);
        else if (block < r->earlier_alone)
            mixed_block(r, own, block, &rolled);
        else
            earlier_block(r, own, &rolled);
        rolled &= r->kept[block];
        BITOPS_PREFETCH(own + BLOCK_AHEAD);
        if (past_caches)
            write_past_caches(&rolled, words_out + block * BLOCK_WORDS);
        else
            write_block(&rolled, words_out + block * BLOCK_WORDS);
    }
}

/* Rows of one word, 0 < cut < n <= 64. */
BITOPS_INLINE void roll_words(const uint64_t *words, size_t rows, size_t n, size_t cut,
                              int past_caches, uint64_t *words_out) {
    const size_t head = past_caches ? words_to_line(words_out, rows) : 0;
    const uint64_t last = UINT64_MAX >> (BITOPS_WORD_BITS - n);
    size_t i = 0;
    for (; i < head; i++)
        words_out[i] = (words[i] >> cut | words[i] << (n - cut)) & last;
    for (; i + BLOCK_WORDS <= rows; i += BLOCK_WORDS) {
        word_block v;
        read_block(words + i, &v);
        v = (v >> cut | v << (n - cut)) & last;
        if (past_caches) {
            BITOPS_PREFETCH(words + i + BLOCK_AHEAD);
            write_past_caches(&v, words_out + i);
        } else
            write_block(&v, words_out + i);
    }
    for (; i < rows; i++)
        words_out[i] = (words[i] >> cut | words[i] << (n - cut)) & last;
}

BITOPS_INLINE void shift_word_by_word(const uint64_t *words, size_t n, size_t shift,
                                      uint64_t *words_out) {
    if (shift == 0)
        memcpy(words_out, words, n * sizeof *words);
    else
        for (size_t i = 0; i < n; i++)
            words_out[i] = words[i] >> shift | words[i + 1] << (BITOPS_WORD_BITS - shift);
}

/* Rows of whole words that move by less than one: they are shifted as if they were one row, some at
 * a time, and those of their words that got bits of other rows are written again. */
BITOPS_INLINE void roll_within_words(const uint64_t *words, size_t rows, size_t n_words, size_t cut,
                                     uint64_t *words_out) {
    enum { SOME_WORDS = 1 << 9 };
    const size_t shift = cut % BITOPS_WORD_BITS, some = (SOME_WORDS + n_words - 1) / n_words;
    const int back = cut > BITOPS_WORD_BITS;
    for (size_t row = 0; row < rows; row += some) {
        const size_t now = rows - row < some ? rows - row : some;
        const uint64_t *own = words + row * n_words;
        uint64_t *own_out = words_out + row * n_words;
        shift_word_by_word(own, now * n_words - 1, shift, own_out + back);
        for (size_t i = 0; i < now * n_words; i += n_words)
            own_out[back ? i : i + n_words - 1] =
                own[i + n_words - 1] >> shift | own[i] << (BITOPS_WORD_BITS - shift);
    }
}

BITOPS_INLINE void roll_short_rows(const uint64_t *words, size_t rows, size_t n, size_t cut,
                                   int past_caches, uint64_t *words_out) {
    if (n <= BITOPS_WORD_BITS) {
        roll_words(words, rows, n, cut, past_caches, words_out);
        return;
    }
    const size_t least = cut < n - cut ? cut : n - cut; /* to move by, forwards or back */
    if (!past_caches && n % BITOPS_WORD_BITS == 0 && least < BITOPS_WORD_BITS) {
        roll_within_words(words, rows, bitops_words(n), cut, words_out);
        return;
    }
    roll r = {.n_words = bitops_words(n),
              .q = cut / BITOPS_WORD_BITS,
              .s = cut % BITOPS_WORD_BITS,
              .p = (n - cut) / BITOPS_WORD_BITS,
              .t = (n - cut) % BITOPS_WORD_BITS,
              .last = UINT64_MAX >> (-n % BITOPS_WORD_BITS)};
    BITOPS_ASSUME(0 < cut && cut < n && r.n_words <= BITOPS_ROLL_WORDS);
    /* Rows side by side make whole blocks if they are short; the last block of others ends in the
     * next row, which is written later. */
    const size_t lowest = r.n_words & -r.n_words; /* power of two that divides it */
    const size_t several = lowest < BLOCK_WORDS ? BLOCK_WORDS / lowest : 1;
    const int whole = several * r.n_words <= BITOPS_ROLL_WORDS;
    const size_t together = whole ? several : 1;
    const size_t edge = whole ? together : 2; /* rows at the end, whose blocks would pass it */
    const int streams = past_caches && whole && words_to_line(words_out, 1) == 0;
    r.blocks = r.mixed = (together * r.n_words + BLOCK_WORDS - 1) / BLOCK_WORDS;
    for (size_t i = 0; i < r.blocks * BLOCK_WORDS; i++)
        mask_lane(&r, i / BLOCK_WORDS, i % BLOCK_WORDS);
    size_t row = 0;
    for (; row < rows && row < together; row++)
        roll_word_by_word(&r, words + row * r.n_words, words_out + row * r.n_words);
    if (streams)
        for (; row + together + edge <= rows; row += together)
            roll_blocks(&r, words + row * r.n_words, 1, words_out + row * r.n_words);
    else
        for (; row + together + edge <= rows; row += together)
            roll_blocks(&r, words + row * r.n_words, 0, words_out + row * r.n_words);
    for (; row < rows; row++)
        roll_word_by_word(&r, words + row * r.n_words, words_out + row * r.n_words);
}

/* Writes n words that begin `shift` bits after words, of which n + 1 are read, or n if shift is 0.
 */
BITOPS_INLINE void shift_row(const uint64_t *words, size_t n, size_t shift, int past_caches,
                             uint64_t *words_out) {
    if (!past_caches) {
        shift_word_by_word(words, n, shift, words_out);
        return;
    }
    const size_t head = words_to_line(words_out, n), rest = BITOPS_WORD_BITS - shift;
    shift_word_by_word(words, head, shift, words_out);
    size_t i = head;
    for (; i + BLOCK_WORDS <= n; i += BLOCK_WORDS) {
        word_block first, next;
        read_block(words + i, &first);
        if (shift) {
            read_block(words + i + 1, &next);
            first = first >> shift | next << rest;
        }
        BITOPS_PREFETCH(words + i + BLOCK_AHEAD);
        write_past_caches(&first, words_out + i);
    }
    shift_word_by_word(words + i, n - i, shift, words_out + i);
}

#endif
