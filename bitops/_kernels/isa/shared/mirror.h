/* mirror.h: words with their bits in reverse order, in loops that compilers vectorise for the ISA
 * that includes this. */
#ifndef BITOPS_MIRROR_H
#define BITOPS_MIRROR_H

#include "operations.h"
#include "isa/shared/target.h"

/* The bits of each byte in reverse order. */
BITOPS_INLINE uint64_t mirror_bytes(uint64_t v) {
    v = (v >> 1 & UINT64_C(0x5555555555555555)) | (v & UINT64_C(0x5555555555555555)) << 1;
    v = (v >> 2 & UINT64_C(0x3333333333333333)) | (v & UINT64_C(0x3333333333333333)) << 2;
    return (v >> 4 & UINT64_C(0x0F0F0F0F0F0F0F0F)) | (v & UINT64_C(0x0F0F0F0F0F0F0F0F)) << 4;
}

enum { MIRROR_WORDS = 64 }; /* that are mirrored before their order is reversed */

BITOPS_INLINE void mirror_words(const uint64_t *words, size_t n, size_t shift, int reversed,
                                uint64_t *words_out) {
    uint64_t mirrored[MIRROR_WORDS];
    for (size_t i = 0; i < n; i += MIRROR_WORDS) {
        const size_t some = n - i < MIRROR_WORDS ? n - i : MIRROR_WORDS;
        if (shift == 0)
            for (size_t j = 0; j < some; j++)
                mirrored[j] = mirror_bytes(words[i + j]);
        else
            for (size_t j = 0; j < some; j++)
                mirrored[j] = mirror_bytes(words[i + j] >> shift |
                                           words[i + j + 1] << (BITOPS_WORD_BITS - shift));
        if (reversed)
            for (size_t j = 0; j < some; j++)
                words_out[n - 1 - i - j] = __builtin_bswap64(mirrored[j]);
        else
            for (size_t j = 0; j < some; j++)
                words_out[i + j] = __builtin_bswap64(mirrored[j]);
    }
}

#endif
