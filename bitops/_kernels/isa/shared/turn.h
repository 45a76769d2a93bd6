/* turn.h: 512 x 512 bits transposed, in loops that compilers vectorise for the ISA that includes
 * this. */
#ifndef BITOPS_TURN_H
#define BITOPS_TURN_H

#include "operations.h"
#include "isa/shared/target.h"

enum { TURN_WORDS = BITOPS_TURN_BITS / BITOPS_WORD_BITS };

/* Bits of *upper that mask has, half a square further up, change places with those of *lower. */
BITOPS_INLINE void swap_bits(uint64_t *upper, uint64_t *lower, const int half,
                             const uint64_t mask) {
    const uint64_t moved = (*upper >> half ^ *lower) & mask;
    *upper ^= moved << half;
    *lower ^= moved;
}

/* The upper right and the lower left quarter of squares of 4 * step rows change places, then those
 * of each quarter: four rows at a time, so that they are read and written once. */
BITOPS_INLINE void turn_twice(uint64_t (*restrict rows)[TURN_WORDS], const int step,
                              const uint64_t wide, const uint64_t narrow) {
    for (int block = 0; block < BITOPS_WORD_BITS; block += 4 * step)
        for (int i = block; i < block + step; i++)
            for (size_t p = 0; p < TURN_WORDS; p++) {
                uint64_t a = rows[i][p], b = rows[i + step][p];
                uint64_t c = rows[i + 2 * step][p], d = rows[i + 3 * step][p];
                swap_bits(&a, &c, 2 * step, wide);
                swap_bits(&b, &d, 2 * step, wide);
                swap_bits(&a, &b, step, narrow);
                swap_bits(&c, &d, step, narrow);
                rows[i][p] = a;
                rows[i + step][p] = b;
                rows[i + 2 * step][p] = c;
                rows[i + 3 * step][p] = d;
            }
}

/* Squares of 64 x 64 bits, 8 side by side: a word of each column of words of `in`, and then bit j
 * of row i becomes bit i of row j. */
BITOPS_INLINE void turn_bits(const uint64_t *restrict in, size_t columns, uint64_t *restrict out) {
    for (size_t c = 0; c * BITOPS_WORD_BITS < columns; c++) {
        uint64_t(*rows)[TURN_WORDS] = (uint64_t(*)[TURN_WORDS])out + c * BITOPS_WORD_BITS;
        for (size_t i = 0; i < BITOPS_WORD_BITS; i++)
            for (size_t p = 0; p < TURN_WORDS; p++)
                rows[i][p] = in[(p * BITOPS_WORD_BITS + i) * TURN_WORDS + c];
        turn_twice(rows, 16, UINT64_C(0x00000000ffffffff), UINT64_C(0x0000ffff0000ffff));
        turn_twice(rows, 4, UINT64_C(0x00ff00ff00ff00ff), UINT64_C(0x0f0f0f0f0f0f0f0f));
        turn_twice(rows, 1, UINT64_C(0x3333333333333333), UINT64_C(0x5555555555555555));
    }
}

/* The kernel of an ISA. */
#define DEFINE_TURN(isa)                                                                           \
    void bitops_turn_bits_##isa(const uint64_t *in, size_t columns, uint64_t *out) {               \
        turn_bits(in, columns, out);                                                               \
    }

#endif
