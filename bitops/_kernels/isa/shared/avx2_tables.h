/* avx2_tables.h: counters of mismatches in nibbles, and tables of them (tables.h), for avx2.c. */
#ifndef BITOPS_AVX2_TABLES_H
#define BITOPS_AVX2_TABLES_H

#include "isa/shared/avx2.h"
#include "isa/shared/tables.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdint.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,prfchw")

enum { NR = 128, HALF = NR / 2, TABLES_BYTES = GROUPS * TABLE_STRIDE };

/* A byte holds two counts, one in each nibble, as long as they are at most 15. One 16-bit lane:
 *
 *   bit            15     12 11    8 7     4 3     0
 *   sums           |    d   |   c   |   b   |   a   |
 *   sums & 0x0f0f  |    0   |   c   |   0   |   a   |  added to low_u8x32:    256 C + A
 *   sums >> 4      |    0   |   d   |   c   |   b   |  added to high_u16x16:  256 D + 16 C + B
 *
 * A to D are the totals of a to d. The shift is not masked, which saves an operation for each sum;
 * split_counts takes the 16 C away again, since low_u8x32 has C, and gets 256 D + B. Lanes of
 * high_u16x16 may wrap around in between; the result is exact while A to D are at most 255. */
typedef struct nibble_counts {
    __m256i low_u8x32, high_u16x16;
} nibble_counts;

BITOPS_INLINE void add_nibbles(nibble_counts *counts, __m256i sums_u8x32) {
    const __m256i low_u8x32 = _mm256_and_si256(sums_u8x32, _mm256_set1_epi8(15));
    counts->low_u8x32 = _mm256_add_epi8(counts->low_u8x32, low_u8x32);
    counts->high_u16x16 = _mm256_add_epi16(counts->high_u16x16, _mm256_srli_epi16(sums_u8x32, 4));
}

/* Counts of 16 bits: A, C, B, D, that is low nibbles of even bytes, of odd bytes, then the high
 * nibbles of both. */
BITOPS_INLINE void split_counts(nibble_counts counts, __m256i split_u16x16[4]) {
    const __m256i byte_u16x16 = _mm256_set1_epi16(0xff);
    const __m256i c16_u16x16 =
        _mm256_and_si256(_mm256_srli_epi16(counts.low_u8x32, 4), _mm256_set1_epi16(0xff0));
    const __m256i high_u16x16 = _mm256_sub_epi16(counts.high_u16x16, c16_u16x16);
    split_u16x16[0] = _mm256_and_si256(counts.low_u8x32, byte_u16x16);
    split_u16x16[1] = _mm256_srli_epi16(counts.low_u8x32, 8);
    split_u16x16[2] = _mm256_and_si256(high_u16x16, byte_u16x16);
    split_u16x16[3] = _mm256_srli_epi16(high_u16x16, 8);
}

/* Bit `bit` of 64 columns, each in a nibble. */
BITOPS_INLINE __m256i bit_plane(const __m256i *panel, int bit) {
    const __m256i nibbles_u8x32 = _mm256_loadu_si256(panel + bit / 4);
    return _mm256_and_si256(_mm256_srli_epi16(nibbles_u8x32, bit % 4), _mm256_set1_epi8(0x11));
}

/* Makes the table of bits [first, first + bits). Flipping a bit of the row adds +1 or -1 to each
 * nibble. Adding bytes does that in spite of the borrows between nibbles, because every result lies
 * in 0..5. */
BITOPS_INLINE void make_table(const __m256i *panel, int first, int bits, uint8_t *table) {
    const __m256i one_u8x32 = _mm256_set1_epi8(0x11);
    __m256i flip_u8x32[GROUP_BITS], entries_u8x32[8];
    entries_u8x32[0] = _mm256_setzero_si256();
    for (int i = 0; i < bits; i++) {
        const __m256i plane_u8x32 = bit_plane(panel, first + i);
        entries_u8x32[0] = _mm256_add_epi8(entries_u8x32[0], plane_u8x32);
        flip_u8x32[i] = _mm256_sub_epi8(one_u8x32, _mm256_add_epi8(plane_u8x32, plane_u8x32));
    }
    for (int i = 1; i < 8; i++) { /* the entry with the lowest bit of i cleared, then that bit */
        const int lowest = i & 1 ? 0 : i & 2 ? 1 : 2;
        entries_u8x32[i] = _mm256_add_epi8(entries_u8x32[i & (i - 1)], flip_u8x32[lowest]);
    }
    for (int high = 0; high < 1 << bits >> 3; high++) {
        for (int i = 0; i < 8; i++) {
            __m256i entry_u8x32 =
                high & 1 ? _mm256_add_epi8(entries_u8x32[i], flip_u8x32[3]) : entries_u8x32[i];
            if (high & 2)
                entry_u8x32 = _mm256_add_epi8(entry_u8x32, flip_u8x32[4]);
            _mm256_store_si256((__m256i *)(table + (8 * high + i) * ENTRY_BYTES), entry_u8x32);
        }
    }
}

static void make_tables(const uint64_t *panel, uint8_t *tables) {
    for (int h = 0; h < 2; h++) {
        const __m256i *half = (const __m256i *)(panel + HALF * h);
        uint8_t *out = tables + 32 * h;
        for (int g = 0; g < GROUPS - 1; g++)
            make_table(half, GROUP_BITS * g, GROUP_BITS, out + g * TABLE_STRIDE);
        make_table(half, 60, 4, out + (GROUPS - 1) * TABLE_STRIDE);
    }
}

/* Where the entry for group g of a word lies. */
BITOPS_INLINE const uint8_t *entry_of(const uint8_t *tables, uint64_t word, unsigned g) {
    const size_t mask = (g == GROUPS - 1 ? 15 : 31) * ENTRY_BYTES;
    return tables + g * TABLE_STRIDE + (rotate_right(word, GROUP_BITS * g - 6) & mask);
}

/* Adds the entries of groups [begin, end), at most 3, so that their sums are at most 15. halves is
 * a constant at every call. */
BITOPS_INLINE void add_groups(const int halves, unsigned begin, unsigned end, const uint8_t *tables,
                              uint64_t word, nibble_counts *counts) {
    __m256i sums_u8x32[2];
    for (unsigned g = begin; g < end; g++) {
        const __m256i *entry = (const __m256i *)entry_of(tables, word, g);
        for (int h = 0; h < halves; h++) {
            const __m256i found_u8x32 = _mm256_load_si256(entry + h);
            sums_u8x32[h] = g == begin ? found_u8x32 : _mm256_add_epi8(sums_u8x32[h], found_u8x32);
        }
    }
    for (int h = 0; h < halves; h++) {
        add_nibbles(&counts[h], sums_u8x32[h]);
        /* Without these, gcc sums all groups first, and spills. */
        BITOPS_IN_REGISTER(counts[h].low_u8x32);
        BITOPS_IN_REGISTER(counts[h].high_u16x16);
    }
}

BITOPS_INLINE void add_word(const int halves, const uint8_t *tables, uint64_t word,
                            nibble_counts *counts) {
    add_groups(halves, 0, 3, tables, word, counts);
    add_groups(halves, 3, 6, tables, word, counts);
    add_groups(halves, 6, 9, tables, word, counts);
    add_groups(halves, 9, 12, tables, word, counts);
    add_groups(halves, 12, 13, tables, word, counts);
}

BITOPS_TARGET_END

#endif

#endif
