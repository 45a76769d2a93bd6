/* bits.h: runs of bits that begin and end anywhere in words. */
#ifndef BITOPS_BITS_H
#define BITOPS_BITS_H

#include "bitops.h"
#include "isa/shared/target.h"

/* Collects bits in `word`, of which the lowest `fill` are set so far, until it is full. */
typedef struct bit_writer {
    uint64_t word;
    size_t fill;
    uint64_t *out;
} bit_writer;

/* Appends the lowest n <= 64 bits of v; the others must be 0. */
BITOPS_INLINE void write_bits(bit_writer *w, uint64_t v, size_t n) {
    w->word |= v << w->fill;
    w->fill += n;
    if (w->fill < BITOPS_WORD_BITS)
        return;
    *w->out++ = w->word;
    w->fill -= BITOPS_WORD_BITS;
    w->word = w->fill ? v >> (n - w->fill) : 0;
}

/* Writes the last word, if it is not full. */
BITOPS_INLINE void flush_bits(bit_writer *w) {
    if (w->fill)
        *w->out = w->word;
}

/* Bits [first, first + n) of the words, 1 <= n <= 64; only words that hold some of them are read.
 */
BITOPS_INLINE uint64_t read_bits(const uint64_t *words, size_t first, size_t n) {
    const size_t shift = first % BITOPS_WORD_BITS;
    words += first / BITOPS_WORD_BITS;
    uint64_t v = words[0] >> shift;
    if (shift + n > BITOPS_WORD_BITS)
        v |= words[1] << (BITOPS_WORD_BITS - shift);
    return n < BITOPS_WORD_BITS ? v & (((uint64_t)1 << n) - 1) : v;
}

#endif
