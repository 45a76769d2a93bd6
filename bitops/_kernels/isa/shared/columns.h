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
 * planes of greater weights. Eight rows at a time, whose words are read from the first to the last,
 * stay in registers. To be included inside the target region. */
#ifndef BITOPS_COLUMNS_H
#define BITOPS_COLUMNS_H

#include "operations.h"
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

/* The counters of the positions of a block. A carry waits for another one of its weight. */
typedef struct column_block {
    word_block planes[COLUMN_PLANES], pending[COLUMN_LEVELS];
} column_block;

/* Adds up to 8 rows of n words, ld apart, which are number `eight` of a group of 64 rows. Whether
 * there is a carry of weight 64, which the last ones have. */
BITOPS_INLINE int column_rows(const uint64_t *words, size_t ld, size_t rows, size_t n, size_t eight,
                              column_block *block, word_block *carry_out) {
    word_block carry = {0};
    if (rows >= 8)
        column_eight(words, ld, n, block->planes, &carry);
    else if (rows > 0) {
        uint64_t last[8 * BLOCK_WORDS] = {0};
        for (size_t row = 0; row < rows; row++)
            memcpy(last + row * BLOCK_WORDS, words + row * ld, n * sizeof *words);
        column_eight(last, BLOCK_WORDS, BLOCK_WORDS, block->planes, &carry);
    }
    int level = 3;
    for (; eight & 1; eight >>= 1, level++)
        column_add(&block->planes[level], &carry, &block->pending[level]);
    if (level < COLUMN_LEVELS)
        block->pending[level] = carry;
    *carry_out = carry;
    return level == COLUMN_LEVELS;
}

/* Adds rows from i on, at words from j on, of `rows` rows of n_words, which may end before i. A
 * constant number of words makes vectors of them. */
BITOPS_INLINE int column_step(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                              size_t i, size_t j, column_block *block, word_block *carry_out) {
    /* Long rows lie pages apart, too far for the prefetcher: lines 4 KiB further on, or those of
     * the next 8 rows, are asked for. */
    const size_t ahead = n_words < BITOPS_SPAN_WORDS ? 8 * (BITOPS_SPAN_WORDS / n_words) : 8;
    const size_t line = BLOCK_LINE / sizeof *words, left = i < rows ? rows - i : 0;
    words += i * ld + j;
    for (size_t next = ahead; ld >= line && j % line == 0 && next < ahead + 8 && next < left;
         next++)
        BITOPS_PREFETCH(words + next * ld);
    if (n_words - j >= BLOCK_WORDS)
        return column_rows(words, ld, left, BLOCK_WORDS, i / 8 % 8, block, carry_out);
    return column_rows(words, ld, left, n_words - j, i / 8 % 8, block, carry_out);
}

/* Rows with those of zeros that make groups of them. */
BITOPS_INLINE size_t column_groups(size_t rows) {
    return (rows + COLUMN_GROUP - 1) / COLUMN_GROUP * COLUMN_GROUP;
}

/* Adds weight to count[i] where bit i of word is set. */
BITOPS_INLINE void column_count(uint64_t word, int64_t weight, int64_t *count) {
    for (uint64_t i = 0; i < BITOPS_WORD_BITS; i++)
        count[i] += weight & -(int64_t)(word >> i & 1);
}

/* Counts 64 n_words positions, n_words <= BITOPS_SPAN_WORDS. */
BITOPS_INLINE void count_columns(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                 int64_t *count_out) {
    column_block blocks[BITOPS_SPAN_WORDS / BLOCK_WORDS];
    BITOPS_ASSUME(n_words <= BITOPS_SPAN_WORDS);
    for (size_t i = 0; i < n_words * BITOPS_WORD_BITS; i++)
        count_out[i] = 0;
    for (size_t j = 0; j < n_words; j += BLOCK_WORDS)
        memset(blocks[j / BLOCK_WORDS].planes, 0, COLUMN_LEVELS * sizeof(word_block));
    for (size_t i = 0; i < column_groups(rows); i += 8)
        for (size_t j = 0; j < n_words; j += BLOCK_WORDS) {
            const size_t n = n_words - j < BLOCK_WORDS ? n_words - j : BLOCK_WORDS;
            word_block carry;
            if (column_step(words, ld, rows, n_words, i, j, &blocks[j / BLOCK_WORDS], &carry))
                for (size_t p = 0; p < n; p++)
                    column_count(carry[p], COLUMN_GROUP, count_out + (j + p) * BITOPS_WORD_BITS);
        }
    for (size_t j = 0; j < n_words; j++)
        for (int level = 0; level < COLUMN_LEVELS; level++)
            column_count(blocks[j / BLOCK_WORDS].planes[level][j % BLOCK_WORDS],
                         (int64_t)1 << level, count_out + j * BITOPS_WORD_BITS);
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
    column_block blocks[BITOPS_SPAN_WORDS / BLOCK_WORDS];
    int n_planes = COLUMN_LEVELS;
    BITOPS_ASSUME(n_words <= BITOPS_SPAN_WORDS && rows <= BITOPS_MAJORITY_ROWS &&
                  least <= rows + 1);
    while ((rows | least) >> n_planes)
        n_planes++;
    for (size_t j = 0; j < n_words; j += BLOCK_WORDS)
        memset(blocks[j / BLOCK_WORDS].planes, 0, (size_t)n_planes * sizeof(word_block));
    for (size_t i = 0; i < column_groups(rows); i += 8)
        for (size_t j = 0; j < n_words; j += BLOCK_WORDS) {
            column_block *block = &blocks[j / BLOCK_WORDS];
            word_block carry;
            if (column_step(words, ld, rows, n_words, i, j, block, &carry))
                column_carry(&carry, n_planes, block->planes);
        }
    for (size_t j = 0; j < n_words; j += BLOCK_WORDS)
        column_reaches(blocks[j / BLOCK_WORDS].planes, n_planes, least,
                       n_words - j < BLOCK_WORDS ? n_words - j : BLOCK_WORDS, words_out + j);
}

#endif
