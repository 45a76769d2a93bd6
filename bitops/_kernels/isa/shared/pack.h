/* pack.h: the loops of pack and compare over the words of a row, for the ISA that includes this.
 *
 * The includer says how its vectors tell of a NaN,
 *   nan_flags             what one word after the other adds to,
 *   nan_none()            the flags before the first word,
 *   nan_met(flags)        whether a NaN was met,
 * and makes one word, of which it reads and sets no more than the first n of 64 elements:
 *   signs(x, n, &flags)             bits x >= 0
 *   above(x, threshold, n, &flags)  bits x > threshold
 * n is the constant 64 but for the last word. Tails are masked, or copied to memory of 64 elements
 * (DEFINE_PADDED_SIGNS). */
#ifndef BITOPS_PACK_H
#define BITOPS_PACK_H

#include "operations.h"
#include "isa/shared/target.h"

#include <string.h>

/* The bits of infinity; those of a NaN, without the sign, are larger. */
enum { INFINITY_F16 = 0x7c00, INFINITY_BF16 = 0x7f80 };

#define DEFINE_PACK(isa, op, type, signs)                                                          \
    void bitops_##op##_##isa(const type *x, size_t n, uint64_t *words_out, int *nan) {             \
        nan_flags flags = nan_none();                                                              \
        for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, x += BITOPS_WORD_BITS)                \
            *words_out++ = signs(x, BITOPS_WORD_BITS, &flags);                                     \
        if (n)                                                                                     \
            *words_out = signs(x, n, &flags);                                                      \
        if (nan_met(flags))                                                                        \
            *nan = 1;                                                                              \
    }

#define DEFINE_COMPARE(isa, op, type, above)                                                       \
    void bitops_##op##_##isa(const type *x, const float *threshold, size_t n, uint64_t *words_out, \
                             int *nan) {                                                           \
        nan_flags flags = nan_none();                                                              \
        for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS) {                                     \
            *words_out++ = above(x, threshold, BITOPS_WORD_BITS, &flags);                          \
            x += BITOPS_WORD_BITS;                                                                 \
            threshold += BITOPS_WORD_BITS;                                                         \
        }                                                                                          \
        if (n)                                                                                     \
            *words_out = above(x, threshold, n, &flags);                                           \
        if (nan_met(flags))                                                                        \
            *nan = 1;                                                                              \
    }

/* `name`(x, n, &flags) for ISAs without masked loads, from whole(x, &flags), the signs of 64
 * elements. */
#define DEFINE_PADDED_SIGNS(name, type, whole)                                                     \
    BITOPS_INLINE uint64_t name(const type *x, size_t n, nan_flags *flags) {                       \
        if (n == BITOPS_WORD_BITS)                                                                 \
            return whole(x, flags);                                                                \
        type padded[BITOPS_WORD_BITS] = {0};                                                       \
        memcpy(padded, x, n * sizeof *x);                                                          \
        return whole(padded, flags) & (((uint64_t)1 << n) - 1);                                    \
    }

#endif
