/* bit_tile.h: transposes 512 x 512 bits. */
#ifndef BITOPS_BIT_TILE_H
#define BITOPS_BIT_TILE_H

#include "bitops.h"
#include "drivers/sizes.h"

enum { TILE_BITS = LINE_WORDS * BITOPS_WORD_BITS };

/* Transposes 8 squares of 64 x 64 bits side by side: bit j of row i becomes bit i of row j. The
 * upper right and the lower left quarter of each square change places, then those of each quarter,
 * and so on down to single bits. */
static inline void transpose_squares(uint64_t rows[BITOPS_WORD_BITS][LINE_WORDS]) {
    uint64_t mask = 0xffffffffu;
    for (size_t half = 32; half; half >>= 1, mask ^= mask << half)
        for (size_t block = 0; block < BITOPS_WORD_BITS; block += 2 * half)
            for (size_t i = block; i < block + half; i++)
                for (size_t p = 0; p < LINE_WORDS; p++) {
                    const uint64_t moved = (rows[i][p] >> half ^ rows[i + half][p]) & mask;
                    rows[i][p] ^= moved << half;
                    rows[i + half][p] ^= moved;
                }
}

/* 512 x 512 bits with rows of a cache line. They are copied in and out line by line, because rows
 * whose length is a power of two share few sets of the caches, which would lose a line before its
 * last word is used. */
typedef struct bit_tile {
    uint64_t rows[TILE_BITS][LINE_WORDS];
} bit_tile;

static inline void transpose_tile(const bit_tile *in, size_t columns, bit_tile *out) {
    for (size_t c = 0; c * BITOPS_WORD_BITS < columns; c++) {
        uint64_t(*squares)[LINE_WORDS] = out->rows + c * BITOPS_WORD_BITS;
        for (size_t p = 0; p < LINE_WORDS; p++)
            for (size_t i = 0; i < BITOPS_WORD_BITS; i++)
                squares[i][p] = in->rows[p * BITOPS_WORD_BITS + i][c];
        transpose_squares(squares);
    }
}

#endif
