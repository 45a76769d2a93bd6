/* columns.h: counts how many rows of words have a 1 at each position.
 *
 * Rows are added as in a binary counter, with blocks of 512 positions in the place of bits. Two
 * blocks of equal weight and the plane of that weight go through a full adder, whose carry has
 * twice the weight:
 *
 *   row 0, row 1, plane 1      -> carry of weight 2 --+
 *   row 2, row 3, plane 1      -> carry of weight 2 --+-- plane 2 -> carry of weight 4 -- ...
 *
 * So 64 rows take 63 full adders, and a single carry, worth 64, is added to the counts. Compilers
 * vectorise the loops over words, with the instructions of the ISA that includes this. */
#ifndef BITOPS_COLUMNS_H
#define BITOPS_COLUMNS_H

#include "bitops.h"
#include "isa/shared/target.h"

enum { COLUMN_WORDS = 8, COLUMN_LEVELS = 6, COLUMN_GROUP = 1 << COLUMN_LEVELS };

typedef struct column_block {
    uint64_t words[COLUMN_WORDS];
} column_block;

/* Adds a and b to a plane, which keeps the sum; the carry replaces a. The copies tell compilers
 * that the three do not overlap, without which they do not vectorise. */
BITOPS_INLINE void column_add(column_block *plane, column_block *a, const column_block *b) {
    const column_block x = *plane, y = *a, z = *b;
    column_block sum, carry;
    for (int j = 0; j < COLUMN_WORDS; j++) {
        const uint64_t u = x.words[j] ^ y.words[j];
        carry.words[j] = (x.words[j] & y.words[j]) | (u & z.words[j]);
        sum.words[j] = u ^ z.words[j];
    }
    *plane = sum;
    *a = carry;
}

/* Adds weight to count[i] where bit i of word is set. */
BITOPS_INLINE void column_count(uint64_t word, int64_t weight, int64_t *count) {
    for (uint64_t i = 0; i < BITOPS_WORD_BITS; i++)
        count[i] += weight & -(int64_t)(word >> i & 1);
}

/* Adds up to 64 rows of n <= 8 words, ld apart, to the planes of weights 1 to 32 and the counts. */
BITOPS_INLINE void column_group(const uint64_t *words, size_t ld, size_t rows, size_t n,
                                column_block planes[COLUMN_LEVELS], int64_t *count) {
    column_block pending[COLUMN_LEVELS + 1];
    for (size_t i = 0; i < COLUMN_GROUP; i++) {
        column_block carry = {{0}};
        if (i < rows)
            for (size_t j = 0; j < n; j++)
                carry.words[j] = words[i * ld + j];
        if (i + COLUMN_GROUP < rows) /* long rows lie pages apart, too far for the prefetcher */
            BITOPS_PREFETCH(words + (i + COLUMN_GROUP) * ld);
        int level = 0;
        for (; i >> level & 1; level++)
            column_add(&planes[level], &carry, &pending[level]);
        pending[level] = carry;
    }
    for (size_t j = 0; j < n; j++)
        column_count(pending[COLUMN_LEVELS].words[j], COLUMN_GROUP, count + j * BITOPS_WORD_BITS);
}

/* Counts 64 n_words positions, n_words <= BITOPS_SPAN_WORDS. */
BITOPS_INLINE void count_columns(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                 int64_t *count_out) {
    column_block planes[BITOPS_SPAN_WORDS / COLUMN_WORDS][COLUMN_LEVELS] = {{{{0}}}};
    BITOPS_ASSUME(n_words <= BITOPS_SPAN_WORDS);
    for (size_t i = 0; i < n_words * BITOPS_WORD_BITS; i++)
        count_out[i] = 0;
    for (size_t i = 0; i < rows; i += COLUMN_GROUP)
        for (size_t j = 0; j < n_words; j += COLUMN_WORDS) {
            const size_t left = rows - i, n = n_words - j;
            int64_t *count = count_out + j * BITOPS_WORD_BITS;
            column_block *own = planes[j / COLUMN_WORDS];
            if (n >= COLUMN_WORDS) /* a constant, so that the loops over words unroll */
                column_group(words + i * ld + j, ld, left, COLUMN_WORDS, own, count);
            else
                column_group(words + i * ld + j, ld, left, n, own, count);
        }
    for (size_t j = 0; j < n_words; j++)
        for (int level = 0; level < COLUMN_LEVELS; level++)
            column_count(planes[j / COLUMN_WORDS][level].words[j % COLUMN_WORDS],
                         (int64_t)1 << level, count_out + j * BITOPS_WORD_BITS);
}

#endif
