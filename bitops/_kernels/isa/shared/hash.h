/* hash.h: the random numbers of rounding, which depend on a seed and a place alone. */
#ifndef BITOPS_HASH_H
#define BITOPS_HASH_H

#include "isa/shared/target.h"

#include <stdint.h>

/* A hash of 32 bits: the finalizer of MurmurHash3. */
BITOPS_INLINE uint32_t hash32(uint32_t x) {
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ x >> 16;
}

/* The random bits of elements are hash32 of seed + place * NEXT_PLACE. Loops add NEXT_PLACE instead
 * of multiplying, for which AVX2 has a slow instruction alone. */
#define NEXT_PLACE 0x9e3779b9u

#endif
