/* avx512_floats.c: float32 images times float32 filters; AVX-512 F.
 *
 * A tile of 14 outputs x 32 columns stays in registers. For each number that an output sees, the
 * weights of the columns are two vectors, and the numbers of the outputs are broadcast one by one,
 * from where they lie in the image. Four pointers, each to every fourth output, with three
 * distances from there, leave all addresses of a step in registers.
 *
 *   intrinsic          instruction          latency   ports
 *   _mm512_set1_ps     vbroadcastss m32     7         2, 3 (a load)
 *   _mm512_fmadd_ps    vfmadd231ps          4         0, 5
 *   a step: 28 of these for 16 loads, 14 cycles
 * Bottleneck: the two ports for vectors. Tails: tiles of 7, 2 and 1 outputs, columns masked in the
 * store, half the columns where 16 are enough. Each output is one sum, whatever its tile. */
#include "operations.h"
#include "isa/shared/avx512.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vpopcntdq,prfchw")

enum { OUTPUTS = 14, VECTORS = BITOPS_FLOAT_COLUMNS / LANES, POINTERS = 4 };

/* How far every fourth output's three successors lie behind it, in bytes; none of them is computed
 * anew at each step. */
typedef struct distances {
    size_t one, two, three;
} distances;

BITOPS_INLINE __m512 broadcast_output(const char *const *x, const distances *d, int p) {
    const size_t behind[POINTERS] = {0, d->one, d->two, d->three};
    return _mm512_set1_ps(*(const float *)(x[p / POINTERS] + behind[p % POINTERS]));
}

/* The sums of `outputs` outputs, from `first` on, with 16 * vectors columns; both are constants. */
BITOPS_INLINE void tile(const int outputs, const int vectors, const bitops_runs *runs, size_t first,
                        const float *panel, size_t n, float *y, size_t ldy) {
    __m512 sum_f32x16[OUTPUTS][VECTORS];
    BITOPS_UNROLL
    for (int p = 0; p < outputs; p++)
        BITOPS_UNROLL
    for (int v = 0; v < vectors; v++)
        sum_f32x16[p][v] = _mm512_setzero_ps();

    const size_t step = runs->step * sizeof(float);
    distances d = {step, 2 * step, 3 * step};
    BITOPS_IN_POINTER(d.two);
    BITOPS_IN_POINTER(d.three);
    for (size_t row = 0; row < runs->rows; row++)
        for (size_t column = 0; column < runs->columns; column++) {
            const float *run = runs->x + row * runs->row_step + column * runs->column_step;
            const char *x[POINTERS];
            BITOPS_UNROLL
            for (int q = 0; q < POINTERS; q++)
                x[q] = (const char *)run +
                       (first + (size_t)(q * POINTERS < outputs ? q * POINTERS : 0)) * step;
            for (size_t i = 0; i < runs->count; i++, panel += BITOPS_FLOAT_COLUMNS) {
                __m512 w_f32x16[VECTORS];
                BITOPS_UNROLL
                for (int v = 0; v < vectors; v++)
                    w_f32x16[v] = _mm512_loadu_ps(panel + v * LANES);
                BITOPS_UNROLL
                for (int p = 0; p < outputs; p++) {
                    const __m512 x_f32x16 = broadcast_output(x, &d, p);
                    BITOPS_UNROLL
                    for (int v = 0; v < vectors; v++)
                        sum_f32x16[p][v] = _mm512_fmadd_ps(x_f32x16, w_f32x16[v], sum_f32x16[p][v]);
                }
                BITOPS_UNROLL
                for (int q = 0; q < POINTERS; q++)
                    x[q] += sizeof(float);
            }
        }

    BITOPS_UNROLL
    for (int p = 0; p < outputs; p++)
        BITOPS_UNROLL
    for (int v = 0; v < vectors; v++)
        _mm512_mask_storeu_ps(y + (first + (size_t)p) * ldy + v * LANES,
                              low_bits16(n - (size_t)v * LANES), sum_f32x16[p][v]);
}

BITOPS_INLINE void tiles(const int vectors, const bitops_runs *runs, size_t outputs,
                         const float *panel, size_t n, float *y, size_t ldy) {
    size_t p = 0;
    for (; p + OUTPUTS <= outputs; p += OUTPUTS)
        tile(OUTPUTS, vectors, runs, p, panel, n, y, ldy);
    for (; p + 7 <= outputs; p += 7)
        tile(7, vectors, runs, p, panel, n, y, ldy);
    for (; p + 2 <= outputs; p += 2)
        tile(2, vectors, runs, p, panel, n, y, ldy);
    for (; p < outputs; p++)
        tile(1, vectors, runs, p, panel, n, y, ldy);
}

void bitops_conv_f32_avx512(const bitops_runs *runs, size_t outputs, const float *panel, size_t n,
                            float *y, size_t ldy) {
    BITOPS_ASSUME(n >= 1 && n <= BITOPS_FLOAT_COLUMNS);
    if (n > LANES)
        tiles(2, runs, outputs, panel, n, y, ldy);
    else
        tiles(1, runs, outputs, panel, n, y, ldy);
}

BITOPS_TARGET_END

#endif
