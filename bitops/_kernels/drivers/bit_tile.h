/* bit_tile.h: 512 x 512 bits, to be transposed by turn_bits of an ISA. */
#ifndef BITOPS_BIT_TILE_H
#define BITOPS_BIT_TILE_H

#include "bitops.h"
#include "drivers/sizes.h"

#include <string.h>

enum { TILE_BITS = BITOPS_TURN_BITS };

/* Rows of a cache line. They are copied in and out line by line, because rows whose length is a
 * power of two share few sets of the caches, which would lose a line before its last word is
 * used. */
typedef struct bit_tile {
    uint64_t rows[TILE_BITS][LINE_WORDS];
} bit_tile;

_Static_assert(TILE_BITS == LINE_WORDS * BITOPS_WORD_BITS, "a row is a line");

/* Copies n words of each of `height` rows, ld words apart; the rest is 0. */
static inline void fill_tile(const uint64_t *words, size_t ld, size_t height, size_t n,
                             bit_tile *tile) {
    for (size_t row = 0; row < height; row++, words += ld) {
        if (n == LINE_WORDS) {
            memcpy(tile->rows[row], words, sizeof tile->rows[row]);
            continue;
        }
        for (size_t q = 0; q < LINE_WORDS; q++)
            tile->rows[row][q] = q < n ? words[q] : 0;
    }
    memset(tile->rows[height], 0, (TILE_BITS - height) * sizeof tile->rows[0]);
}

#endif
