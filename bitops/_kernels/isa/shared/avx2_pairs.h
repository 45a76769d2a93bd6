/* avx2_pairs.h: the tables in which pshufb looks up the mismatches of two rows at once. */
#ifndef BITOPS_AVX2_PAIRS_H
#define BITOPS_AVX2_PAIRS_H

#include "isa/shared/avx2.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdint.h>

BITOPS_TARGET_BEGIN("avx2,bmi2")

/* The table of a pair of nibbles, b = low | high << 4: entry e counts the bits of low ^ e in its
 * low nibble, those of high ^ e in its high nibble. */
#define COUNT(x) (((x)&1) + ((x) >> 1 & 1) + ((x) >> 2 & 1) + ((x) >> 3 & 1))
#define ENTRY(b, e) (COUNT(((b)&15) ^ (e)) | COUNT((b) >> 4 ^ (e)) << 4)
#define ENTRIES4(b, e) ENTRY(b, e), ENTRY(b, (e) + 1), ENTRY(b, (e) + 2), ENTRY(b, (e) + 3)
#define TABLE(b)                                                                                   \
    { ENTRIES4(b, 0), ENTRIES4(b, 4), ENTRIES4(b, 8), ENTRIES4(b, 12) }
#define TABLES4(b) TABLE(b), TABLE((b) + 1), TABLE((b) + 2), TABLE((b) + 3)
#define TABLES16(b) TABLES4(b), TABLES4((b) + 4), TABLES4((b) + 8), TABLES4((b) + 12)

static const _Alignas(64) uint8_t pair_tables[256][16] = {
    TABLES16(0),   TABLES16(16),  TABLES16(32),  TABLES16(48),  TABLES16(64),  TABLES16(80),
    TABLES16(96),  TABLES16(112), TABLES16(128), TABLES16(144), TABLES16(160), TABLES16(176),
    TABLES16(192), TABLES16(208), TABLES16(224), TABLES16(240)};

/* The even nibbles of two words, paired in bytes, then their odd nibbles. */
BITOPS_INLINE void pair_nibbles(uint64_t low, uint64_t high, uint64_t pairs[2]) {
    const uint64_t even = 0x0f0f0f0f0f0f0f0fu;
    pairs[0] = (low & even) | (high & even) << 4;
    pairs[1] = (low >> 4 & even) | (high & ~even);
}

BITOPS_INLINE __m256i pair_table(const uint8_t *tables, uint64_t pairs, unsigned byte) {
    const size_t offset = rotate_right(pairs, 8 * byte - 4) & 0xff0;
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(tables + offset)));
}

BITOPS_TARGET_END

#endif

#endif
