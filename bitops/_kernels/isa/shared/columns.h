/* columns.h: counts how many rows of words have a 1 at each position, or compares these counts.
 *
 * Rows are added as in a binary counter, with blocks of positions in the place of bits. Two
 * blocks of equal weight and the plane of that weight go through a full adder, whose carry has
 * twice the weight:
 *
 *   row 0, row 1, plane 1      -> carry of weight 2 --+
 *   row 2, row 3, plane 1      -> carry of weight 2 --+-- plane 2 -> carry of weight 4 -- ...
 *
 * So 64 rows take 63 full adders, and a single carry, worth 64, is added to the counts, or to
 * planes of greater weights. Eight rows at a time stay in registers. To be included inside the
 * target region. */
#ifndef BITOPS_COLUMNS_H
#define BITOPS_COLUMNS_H

#include "bitops.h"
#include "isa/shared/blocks.h"
#include "isa/shared/target.h"

#include <string.h>

enum {
    COLUMN_LEVELS = 6,
    COLUMN_GROUP = 1 << COLUMN_LEVELS,
    COLUMN_PLANES = 25, /* for counts up to BITOPS_MAJORITY_ROWS */
};

/* Adds a and b to a plane, which keeps the sum; the carry replaces a. */
BITOPS_INLINE void column_add(word_block *plane, word_block *a, const word_block *b) {
    const word_block differ = *plane ^ *a;
    const word_block carry = (*plane & *a) | (differ & *b);
    *plane = differ ^ *b;
    *a = carry;
}

/* Adds 8 rows of n words, ld apart, to the planes of weights 1, 2 and 4; the carry has weight 8. */
BITOPS_INLINE void column_eight(const uint64_t *words, size_t ld, size_t n, word_block planes[3],
                                word_block *carry_out) {
    word_block rows[8] = {{0}};
    BITOPS_UNROLL
    for (size_t i = 0; i < 8; i++)
        memcpy(&rows[i], words + i * ld, n * sizeof *words);
    BITOPS_UNROLL
    for (int i = 0; i < 8; i += 2)
        column_add(&planes[0], &rows[i], &rows[i + 1]);
    column_add(&planes[1], &rows[0], &rows[2]);
    column_add(&planes[1], &rows[4], &rows[6]);
    column_add(&planes[2], &rows[0], &rows[4]);
    *carry_out = rows[0];
}

/* Adds up to 64 rows of n words, ld apart, to the planes of weights 1 to 32; the carry has weight
 * 64. Lines of the rows after these are asked for if they begin here. */
BITOPS_INLINE void column_group(const uint64_t *words, size_t ld, size_t rows, size_t n, int asks,
                                word_block planes[COLUMN_LEVELS], word_block *carry_out) {
    word_block pending[COLUMN_LEVELS], low[3] = {planes[0], planes[1], planes[2]};
    BITOPS_UNROLL
    for (size_t i = 0; i < COLUMN_GROUP; i += 8) {
        word_block carry = {0};
        for (size_t next = i; asks && next < i + 8 && next + COLUMN_GROUP < rows; next++)
            BITOPS_PREFETCH(words + (next + COLUMN_GROUP) * ld); /* long rows lie pages apart, too
                                                                    far for the prefetcher */
        if (i + 8 <= rows)
            column_eight(words + i * ld, ld, n, low, &carry);
        else if (i < rows) {
            uint64_t last[8 * BLOCK_WORDS] = {0};
            for (size_t row = i; row < rows; row++)
                memcpy(last + (row - i) * BLOCK_WORDS, words + row * ld, n * sizeof *words);
            column_eight(last, BLOCK_WORDS, BLOCK_WORDS, low, &carry);
        }
        int level = 3;
        for (; i >> level & 1; level++)
            column_add(&planes[level], &carry, &pending[level]);
        if (level < COLUMN_LEVELS)
            pending[level] = carry;
        else
            *carry_out = carry;
    }
    BITOPS_UNROLL
    for (int level = 0; level < 3; level++)
        planes[level] = low[level];
}

/* Adds words from j on, of n, to planes: a constant number of words makes vectors of them. */
BITOPS_INLINE void column_group_of(const uint64_t *words, size_t ld, size_t rows, size_t j,
                                   size_t n, word_block *planes, word_block *carry_out) {
    const int asks = j % (BLOCK_LINE / sizeof *words) == 0;
    if (n - j >= BLOCK_WORDS)
        column_group(words + j, ld, rows, BLOCK_WORDS, asks, planes, carry_out);
    else
        column_group(words + j, ld, rows, n - j, asks, planes, carry_out);
}

/* Adds weight to count[i] where bit i of word is set. */
BITOPS_INLINE void column_count(uint64_t word, int64_t weight, int64_t *count) {
    for (uint64_t i = 0; i < BITOPS_WORD_BITS; i++)
        count[i] += weight & -(int64_t)(word >> i & 1);
}

/* Counts 64 n_words positions, n_words <= BITOPS_SPAN_WORDS. */
BITOPS_INLINE void count_columns(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                 int64_t *count_out) {
    word_block planes[BITOPS_SPAN_WORDS / BLOCK_WORDS][COLUMN_LEVELS] = {{{0}}};
    BITOPS_ASSUME(n_words <= BITOPS_SPAN_WORDS);
    for (size_t i = 0; i < n_words * BITOPS_WORD_BITS; i++)
        count_out[i] = 0;
    for (size_t i = 0; i < rows; i += COLUMN_GROUP)
        for (size_t j = 0; j < n_words; j += BLOCK_WORDS) {
            const size_t n = n_words - j < BLOCK_WORDS ? n_words - j : BLOCK_WORDS;
            word_block carry;
            column_group_of(words + i * ld, ld, rows - i, j, n_words, planes[j / BLOCK_WORDS],
                            &carry);
            for (size_t p = 0; p < n; p++)
                column_count(carry[p], COLUMN_GROUP, count_out + (j + p) * BITOPS_WORD_BITS);
        }
    for (size_t j = 0; j < n_words; j++)
        for (int level = 0; level < COLUMN_LEVELS; level++)
            column_count(planes[j / BLOCK_WORDS][level][j % BLOCK_WORDS], (int64_t)1 << level,
                         count_out + j * BITOPS_WORD_BITS);
}

/* Adds a carry of weight 64, which is lost, to the planes of that weight and greater ones. */
BITOPS_INLINE void column_carry(word_block *carry, int n_planes, word_block *planes) {
    for (int level = COLUMN_LEVELS; level < n_planes; level++) {
        const word_block both = planes[level] & *carry;
        planes[level] ^= *carry;
        *carry = both;
    }
}

/* Writes where counts are at least `least`, compared bit by bit from the lowest on. */
BITOPS_INLINE void column_reaches(const word_block *planes, int n_planes, uint64_t least, size_t n,
                                  uint64_t *words_out) {
    word_block reaches = ~(word_block){0}; /* equal counts do */
    for (int level = 0; level < n_planes; level++)
        if (least >> level & 1)
            reaches &= planes[level];
        else
            reaches |= planes[level];
    memcpy(words_out, &reaches, n * sizeof *words_out);
}

/* Tells of each of 64 n_words positions whether at least `least` of the rows have a 1 there. */
BITOPS_INLINE void reach_columns(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                 uint64_t least, uint64_t *words_out) {
    word_block planes[BITOPS_SPAN_WORDS / BLOCK_WORDS][COLUMN_PLANES];
    int n_planes = COLUMN_LEVELS;
    BITOPS_ASSUME(n_words <= BITOPS_SPAN_WORDS && rows <= BITOPS_MAJORITY_ROWS &&
                  least <= rows + 1);
    while ((rows | least) >> n_planes)
        n_planes++;
    for (size_t j = 0; j < n_words; j += BLOCK_WORDS)
        memset(planes[j / BLOCK_WORDS], 0, (size_t)n_planes * sizeof(word_block));
    for (size_t i = 0; i < rows; i += COLUMN_GROUP)
        for (size_t j = 0; j < n_words; j += BLOCK_WORDS) {
            word_block *own = planes[j / BLOCK_WORDS], carry;
            column_group_of(words + i * ld, ld, rows - i, j, n_words, own, &carry);
            column_carry(&carry, n_planes, own);
        }
    for (size_t j = 0; j < n_words; j += BLOCK_WORDS)
        column_reaches(planes[j / BLOCK_WORDS], n_planes, least,
                       n_words - j < BLOCK_WORDS ? n_words - j : BLOCK_WORDS, words_out + j);
}

#endif
