/* blocks.h: BLOCK_WORDS words as a vector. Who includes this has set them before, inside the target
 * region, to what a vector of the ISA holds: GCC keeps wider ones in memory. */
#ifndef BITOPS_BLOCKS_H
#define BITOPS_BLOCKS_H

#include "operations.h"
#include "isa/shared/target.h"

#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

enum {
    BLOCK_BYTES = BLOCK_WORDS * 8,
    BLOCK_LINE = 64,       /* bytes: outputs past the caches are written in whole lines */
    BLOCK_AHEAD = 1 << 10, /* words before they are read, lines are asked for */
};

typedef uint64_t word_block __attribute__((vector_size(BLOCK_BYTES)));

BITOPS_INLINE void read_block(const uint64_t *words, word_block *block) {
    memcpy(block, words, sizeof *block); /* at any address */
}

BITOPS_INLINE void write_block(const word_block *block, uint64_t *words_out) {
    memcpy(words_out, block, sizeof *block);
}

/* The same past the caches, for memory that is not read soon; words_out is aligned to a block. */
BITOPS_INLINE void write_past_caches(const word_block *block, uint64_t *words_out) {
#if defined(__x86_64__)
    typedef __m128i parts __attribute__((may_alias));
    const parts *from = (const parts *)block;
    BITOPS_UNROLL
    for (size_t i = 0; i < BLOCK_BYTES / sizeof *from; i++)
        _mm_stream_si128((__m128i *)words_out + i, from[i]);
#else
    write_block(block, words_out);
#endif
}

/* How many of n words lie before the first whole line. */
BITOPS_INLINE size_t words_to_line(const uint64_t *words, size_t n) {
    const size_t head = -(uintptr_t)words % BLOCK_LINE / sizeof *words;
    return head < n ? head : n;
}

#endif
