/* neon_bytes.c: products of bytes with bytes; AArch64 Advanced SIMD.
 *
 * 2 rows x 32 columns stay in registers. SMULL multiplies 8 bytes to 16 bits, ADDP adds neighbours,
 * SADALP adds the sums of neighbours to 32 bits: 4 elements of k of 4 columns. As numbers of y are
 * at most 127, they are signed bytes, too.
 *
 *   intrinsic       instruction    per 4 elements of k of 32 columns of a row
 *   vmull_s8        smull, smull2  16
 *   vpaddq_s16      addp           8
 *   vpadalq_s16     sadalp         8
 * Bottleneck: the vector pipes. Overflow: 2 * 128 * 127 <= 32767; sums are int32, as the caller's k
 * allows. Tails: none, blocks are whole. */
#include "operations.h"
#include "isa/shared/target.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>

enum { ROWS = 2, LANES = 4, VECTORS = BITOPS_BYTE_COLUMNS / LANES };

BITOPS_INLINE int8x16_t broadcast_four(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

/* Rows [first, first + ROWS). */
BITOPS_INLINE void add_rows(const bitops_byte_block *block, size_t first) {
    int32x4_t sum_i32x4[ROWS][VECTORS];
    int32_t *sums = block->sums + first * block->ld_sums;
    BITOPS_UNROLL
    for (int r = 0; r < ROWS; r++)
        BITOPS_UNROLL
    for (int v = 0; v < VECTORS; v++)
        sum_i32x4[r][v] = vld1q_s32(sums + (size_t)r * block->ld_sums + v * LANES);
    const int8_t *x = block->x + first * block->ldx;
    for (size_t k = 0; k < block->k; k += 4) {
        const int8_t *y = (const int8_t *)block->y + k * BITOPS_BYTE_COLUMNS;
        int8x16_t x_i8x16[ROWS];
        BITOPS_UNROLL
        for (int r = 0; r < ROWS; r++)
            x_i8x16[r] = broadcast_four(x + (size_t)r * block->ldx + k);
        BITOPS_UNROLL
        for (int v = 0; v < VECTORS; v++) {
            const int8x16_t y_i8x16 = vld1q_s8(y + v * 16);
            BITOPS_UNROLL
            for (int r = 0; r < ROWS; r++) {
                const int16x8_t low_i16x8 = vmull_s8(vget_low_s8(y_i8x16), vget_low_s8(x_i8x16[r]));
                const int16x8_t high_i16x8 = vmull_high_s8(y_i8x16, x_i8x16[r]);
                sum_i32x4[r][v] = vpadalq_s16(sum_i32x4[r][v], vpaddq_s16(low_i16x8, high_i16x8));
            }
        }
    }
    BITOPS_UNROLL
    for (int r = 0; r < ROWS; r++)
        BITOPS_UNROLL
    for (int v = 0; v < VECTORS; v++)
        vst1q_s32(sums + (size_t)r * block->ld_sums + v * LANES, sum_i32x4[r][v]);
}

void bitops_byte_products_neon(const bitops_byte_block *block) {
    BITOPS_ASSUME(block->rows % BITOPS_BYTE_ROWS == 0 && block->k % BITOPS_BYTE_DEPTH == 0);
    for (size_t i = 0; i < block->rows; i += ROWS)
        add_rows(block, i);
}

#endif
