/* avx2_bytes.c: products of bytes with bytes; AVX2.
 *
 * 2 rows x 32 columns stay in registers. VPMADDUBSW multiplies bytes and adds neighbours to 16
 * bits, VPMADDWD with ones adds those to 32 bits: 4 elements of k of 8 columns.
 *
 *   intrinsic               instruction         Skylake and later   Zen 3, 4
 *   _mm256_maddubs_epi16    vpmaddubsw          p01                 2 a cycle
 *   _mm256_madd_epi16       vpmaddwd            p01                 2 a cycle
 *   _mm256_add_epi32        vpaddd              p015                3 a cycle
 *   a step: 8 of each for 6 loads, 8 cycles
 * Bottleneck: the two ports that multiply. Overflow: 2 * 128 * 127 <= 32767; sums are int32, as the
 * caller's k allows. Tails: none, blocks are whole. */
#include "operations.h"
#include "isa/shared/avx2.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2")

enum { ROWS = 2, LANES = 8, VECTORS = BITOPS_BYTE_COLUMNS / LANES };

BITOPS_INLINE __m256i broadcast_four(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

/* Rows [first, first + ROWS). */
BITOPS_INLINE void add_rows(const bitops_byte_block *block, size_t first) {
    const __m256i ones_i16x16 = _mm256_set1_epi16(1);
    __m256i sum_i32x8[ROWS][VECTORS];
    int32_t *sums = block->sums + first * block->ld_sums;
    BITOPS_UNROLL
    for (int r = 0; r < ROWS; r++)
        BITOPS_UNROLL
    for (int v = 0; v < VECTORS; v++)
        sum_i32x8[r][v] = load(sums + (size_t)r * block->ld_sums + v * LANES);
    const int8_t *x = block->x + first * block->ldx;
    for (size_t k = 0; k < block->k; k += 4) {
        const uint8_t *y = block->y + k * BITOPS_BYTE_COLUMNS;
        __m256i x_i8x32[ROWS];
        BITOPS_UNROLL
        for (int r = 0; r < ROWS; r++)
            x_i8x32[r] = broadcast_four(x + (size_t)r * block->ldx + k);
        BITOPS_UNROLL
        for (int v = 0; v < VECTORS; v++) {
            const __m256i y_u8x32 = load(y + v * 32);
            BITOPS_UNROLL
            for (int r = 0; r < ROWS; r++) {
                const __m256i pairs_i16x16 = _mm256_maddubs_epi16(y_u8x32, x_i8x32[r]);
                sum_i32x8[r][v] =
                    _mm256_add_epi32(sum_i32x8[r][v], _mm256_madd_epi16(pairs_i16x16, ones_i16x16));
            }
        }
    }
    BITOPS_UNROLL
    for (int r = 0; r < ROWS; r++)
        BITOPS_UNROLL
    for (int v = 0; v < VECTORS; v++)
        _mm256_storeu_si256((__m256i *)(sums + (size_t)r * block->ld_sums + v * LANES),
                            sum_i32x8[r][v]);
}

void bitops_byte_products_avx2(const bitops_byte_block *block) {
    BITOPS_ASSUME(block->rows % BITOPS_BYTE_ROWS == 0 && block->k % BITOPS_BYTE_DEPTH == 0);
    for (size_t i = 0; i < block->rows; i += ROWS)
        add_rows(block, i);
}

BITOPS_TARGET_END

#endif
