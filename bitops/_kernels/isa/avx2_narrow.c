/* avx2_narrow.c: convolutions of images with few channels, or few in a group; AVX2, BMI2.
 *
 * narrow.h has the loops. A nibble of each of two outputs selects a table of avx2_pairs.h, in which
 * pshufb looks up the same nibble of 32 columns, for both outputs. Of up to 16 columns, the halves
 * of a vector belong to two pairs of outputs.
 *
 *   operations for 4 outputs and 16 columns, or 2 and 32, for each nibble: a shuffle, 2 or 1 loads
 *   of tables, 2 additions, and 5 for every third nibble
 * Bottleneck: instructions. Tails: columns in the store; a line is read up to 5 bytes behind its
 * last pixel. Overflow: three nibbles count at most 12; bytes of two rows of the kernel at most
 * 192, those of the third row are added as 32 bits. */
#include "operations.h"
#include "isa/shared/avx2.h"
#include "isa/shared/avx2_pairs.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2")

enum {
    NR = 128,
    TAPS = BITOPS_NARROW_TAPS, /* of a row of the kernel, and rows of it */
    NIBBLES = 16,              /* of a word */
    MAX_NIBBLES = TAPS * TAPS * 8,
    NARROW_OUTPUTS = 4,
};

/* Nibbles of 32 columns; or of 16, twice. */
typedef struct narrow_columns {
    __m256i nibbles_u8x32[MAX_NIBBLES];
} narrow_columns;

BITOPS_INLINE void narrow_order(const size_t channels, const int wide, const uint64_t *panel,
                                narrow_columns *columns_out) {
    for (size_t i = 0; i < TAPS * TAPS * channels / 4; i++) {
        /* The low nibbles belong to the first 32 columns. */
        const uint64_t *nibbles = panel + i / NIBBLES * NR + i % NIBBLES * YMM_WORDS;
        const __m256i w_u8x32 =
            wide ? load(nibbles)
                 : _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)nibbles));
        columns_out->nibbles_u8x32[i] = _mm256_and_si256(w_u8x32, _mm256_set1_epi8(15));
    }
}

/* Counts of the first output of pairs, and of the second one. */
typedef struct pair_counts {
    __m256i low_u8x32, high_u8x32;
} pair_counts;

/* The mismatches of the outputs with nibbles [0, n) of a word; pairs are those of the first two
 * outputs, then of the others. n and wide are constants. */
BITOPS_INLINE void add_nibbles(const size_t n, const int wide, const uint8_t *tables,
                               uint64_t (*pairs)[2], const __m256i *columns, pair_counts *counts) {
    const __m256i nibble_u8x32 = _mm256_set1_epi8(15);
    __m256i sums_u8x32 = _mm256_setzero_si256();
    BITOPS_UNROLL
    for (unsigned i = 0; i < n; i++) {
        __m256i table_u8x32 = pair_table(tables, pairs[0][i % 2], i / 2);
        if (!wide)
            table_u8x32 =
                _mm256_blend_epi32(table_u8x32, pair_table(tables, pairs[1][i % 2], i / 2), 0xf0);
        const __m256i found_u8x32 = _mm256_shuffle_epi8(table_u8x32, columns[i]);
        sums_u8x32 = i % 3 == 0 ? found_u8x32 : _mm256_add_epi8(sums_u8x32, found_u8x32);
        if (i % 3 == 2 || i + 1 == n) {
            counts->low_u8x32 =
                _mm256_add_epi8(counts->low_u8x32, _mm256_and_si256(sums_u8x32, nibble_u8x32));
            counts->high_u8x32 =
                _mm256_add_epi8(counts->high_u8x32,
                                _mm256_and_si256(_mm256_srli_epi16(sums_u8x32, 4), nibble_u8x32));
        }
    }
}

BITOPS_INLINE uint64_t load_word(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* Writes 16 sums of bytes. */
BITOPS_INLINE void write_half(__m128i a_u8x16, __m128i b_u8x16, int32_t *out) {
    const __m256i sums_u16x16 =
        _mm256_add_epi16(_mm256_cvtepu8_epi16(a_u8x16), _mm256_cvtepu8_epi16(b_u8x16));
    _mm256_storeu_si256((__m256i *)out, _mm256_cvtepu16_epi32(_mm256_castsi256_si128(sums_u16x16)));
    _mm256_storeu_si256((__m256i *)(out + 8),
                        _mm256_cvtepu16_epi32(_mm256_extracti128_si256(sums_u16x16, 1)));
}

/* Writes what the low halves count for output i, and the high halves, for its other columns or for
 * output i + 2. */
BITOPS_INLINE void write_sums(const int wide, __m256i a_u8x32, __m256i b_u8x32, int i,
                              int32_t *mismatches_out) {
    int32_t *out = mismatches_out + i * 32;
    write_half(_mm256_castsi256_si128(a_u8x32), _mm256_castsi256_si128(b_u8x32), out);
    write_half(_mm256_extracti128_si256(a_u8x32, 1), _mm256_extracti128_si256(b_u8x32, 1),
               out + (wide ? 16 : 64));
}

/* The pair of pairs of outputs from `first` on. */
BITOPS_INLINE void count_pairs(const size_t channels, const int wide, const uint8_t *const *pixels,
                               size_t tap_step, const narrow_columns *columns, int first,
                               int32_t *mismatches_out) {
    const size_t run = TAPS * channels / 8, begin = run < 8 ? run : 8;
    const uint8_t *tables = &pair_tables[0][0];
    const __m256i *nibbles = columns->nibbles_u8x32;
    BITOPS_IN_POINTER(tables);
    pair_counts counts[2]; /* of the first two rows of the kernel, of the third */
    for (int i = 0; i < 2; i++)
        counts[i].low_u8x32 = counts[i].high_u8x32 = _mm256_setzero_si256();
    BITOPS_UNROLL
    for (size_t ky = 0; ky < TAPS; ky++) {
        BITOPS_UNROLL
        for (size_t byte = 0; byte < run; byte += 8) {
            uint64_t pairs[2][2];
            for (int i = 0; i < (wide ? 1 : 2); i++)
                pair_nibbles(load_word(pixels[first + 2 * i] + ky * tap_step + byte),
                             load_word(pixels[first + 2 * i + 1] + ky * tap_step + byte), pairs[i]);
            if (byte == 0)
                add_nibbles(2 * begin, wide, tables, pairs, nibbles, &counts[ky / 2]);
            else
                add_nibbles(8, wide, tables, pairs, nibbles, &counts[ky / 2]);
            nibbles += byte == 0 ? 2 * begin : 8;
        }
    }
    write_sums(wide, counts[0].low_u8x32, counts[1].low_u8x32, first, mismatches_out);
    write_sums(wide, counts[0].high_u8x32, counts[1].high_u8x32, first + 1, mismatches_out);
}

BITOPS_INLINE void narrow_count(const size_t channels, const int wide, const uint8_t *const *pixels,
                                size_t tap_step, const narrow_columns *columns,
                                int32_t *mismatches_out) {
    count_pairs(channels, wide, pixels, tap_step, columns, 0, mismatches_out);
    if (wide)
        count_pairs(channels, wide, pixels, tap_step, columns, 2, mismatches_out);
}

#include "isa/shared/narrow.h"

void bitops_conv_narrow_avx2(const bitops_narrow_lines *image, const uint64_t *panel, size_t n,
                             size_t row, size_t col, const bitops_store *store) {
    conv_narrow(image, panel, n, row, col, store);
}

BITOPS_TARGET_END

#endif
