/* avx512_bytes.c: products of bytes with bytes; AVX-512 VNNI.
 *
 * 8 rows x 32 columns stay in registers. VPDPBUSD multiplies 4 elements of k of 16 columns by those
 * of a row, and adds the four products to a sum.
 *
 *   intrinsic               instruction         latency   ports
 *   _mm512_set1_epi32       vpbroadcastd m32    7         2, 3 (a load)
 *   _mm512_dpbusd_epi32     vpdpbusd            5         0, 5
 *   a step: 16 of these for 10 loads, 8 cycles
 * Bottleneck: the two ports for vectors. Overflow: sums are int32, as the caller's k allows. Tails:
 * none, blocks are whole. */
#include "operations.h"
#include "isa/shared/avx512.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,avx512f,avx512bw,avx512vl,avx512vnni")

enum { ROWS = 8, VECTORS = BITOPS_BYTE_COLUMNS / LANES, POINTERS = 4 };

BITOPS_INLINE __m512i broadcast_four(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Rows [first, first + ROWS). */
BITOPS_INLINE void add_rows(const bitops_byte_block *block, size_t first) {
    __m512i sum_i32x16[ROWS][VECTORS];
    int32_t *sums = block->sums + first * block->ld_sums;
    BITOPS_UNROLL
    for (int r = 0; r < ROWS; r++)
        BITOPS_UNROLL
    for (int v = 0; v < VECTORS; v++)
        sum_i32x16[r][v] = _mm512_loadu_si512(sums + (size_t)r * block->ld_sums + v * LANES);
    /* Two pointers, each to a row and its three successors, leave all addresses in registers. */
    const size_t ldx = block->ldx, behind[POINTERS] = {0, ldx, 2 * ldx, 3 * ldx};
    const int8_t *x = block->x + first * ldx, *second = x + POINTERS * ldx;
    for (size_t k = 0; k < block->k; k += 4, x += 4, second += 4) {
        const uint8_t *y = block->y + k * BITOPS_BYTE_COLUMNS;
        __m512i y_u8x64[VECTORS];
        BITOPS_UNROLL
        for (int v = 0; v < VECTORS; v++)
            y_u8x64[v] = _mm512_loadu_si512(y + v * 64);
        BITOPS_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const __m512i x_i8x64 =
                broadcast_four((r < POINTERS ? x : second) + behind[r % POINTERS]);
            BITOPS_UNROLL
            for (int v = 0; v < VECTORS; v++)
                sum_i32x16[r][v] = _mm512_dpbusd_epi32(sum_i32x16[r][v], y_u8x64[v], x_i8x64);
        }
    }
    BITOPS_UNROLL
    for (int r = 0; r < ROWS; r++)
        BITOPS_UNROLL
    for (int v = 0; v < VECTORS; v++)
        _mm512_storeu_si512(sums + (size_t)r * block->ld_sums + v * LANES, sum_i32x16[r][v]);
}

void bitops_byte_products_avx512(const bitops_byte_block *block) {
    BITOPS_ASSUME(block->rows % BITOPS_BYTE_ROWS == 0 && block->k % BITOPS_BYTE_DEPTH == 0);
    for (size_t i = 0; i < block->rows; i += ROWS)
        add_rows(block, i);
}

BITOPS_TARGET_END

#endif
