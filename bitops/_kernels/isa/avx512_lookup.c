/* avx512_lookup.c: numbers times +-1 weights by lookup; AVX-512 F, BW, VL, VBMI, VNNI.
 *
 * Four elements of a row of x have 16 sums +-x0 +-x1 +-x2 +-x3, which fill one zmm of float32, or
 * half a zmm of int16, or a quarter of a zmm of bytes. Four bits of a row of weights select one of
 * them: a permutation looks up 16 (32, 64) at once, and an addition does the rest.
 *
 *   intrinsic                       instruction   Ice Lake and later    Zen 4 (zmm)
 *   _mm512_permutexvar_ps           vpermps       latency 3, p5         4, one per cycle
 *   _mm512_permutexvar_epi16        vpermw        latency 3 to 7, p5    4, one per cycle
 *   _mm512_permutexvar_epi8         vpermb        latency 3, p5         4, one per cycle
 *   _mm512_dpbusd_epi32             vpdpbusd      latency 5, p0         4, one per cycle
 *   _mm512_fmadd_ps                 vfmadd231ps   latency 4, p05        4, one per cycle
 *   _mm512_add_epi16                vpaddw        latency 1, p05        1, two per cycle
 *   _mm512_srli_epi32               vpsrld        latency 1, p0         1, one per cycle
 * float32 is added by a fused multiplication by 1, which gives the same result: Zen 4 adds on the
 * ports that permutations and shifts need, but multiplies on others. Bottleneck: the permutation,
 * one for 4 elements of 16 columns (float32) or of 32 (uint8, where the low and the high half of
 * the 32 bits of a column look up in the two halves of a table; for 8 elements of 32 columns of
 * small numbers, of which the four bytes of a column look up in four tables).
 *
 * Overflow: a sum of 4 numbers is at most 1020, and 32 of them at most 32640 <= 32767, so 16-bit
 * sums are widened after 256 elements. Tails: masked loads and stores; x is padded with zeros. */
#include "operations.h"
#include "isa/shared/lanes.h"
#include "isa/shared/lookup.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")

enum {
    LANES = 16,
    VECS = COLUMNS / LANES,
    FLUSH_HALVES = 8, /* 256 elements */
};

/* ---- panels -------------------------------------------------------------------------------- */

/* Rows i and i + 4 of w, 256 bits each, in one vector. */
BITOPS_INLINE __m512i row_pair(const uint64_t *const rows[LANES], size_t i, size_t p,
                               __mmask8 words) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi64(words, rows[i] + p)),
                              _mm256_maskz_loadu_epi64(words, rows[i + 4] + p), 1);
}

/* Turns 16 rows of 256 bits into 8 vectors with the same 32 bits of 16 columns, COLUMNS lanes
 * apart. */
BITOPS_INLINE void transpose(const uint64_t *const rows[LANES], size_t p, size_t k_words,
                             uint32_t *panel) {
    /* bzhi reads 8 bits of its index. */
    const __mmask8 words = k_words - p < 4 ? (__mmask8)_bzhi_u32(15, (uint32_t)(k_words - p)) : 15;
    __m512i r_u32x16[8], t_u32x16[8], u_u32x16[8];
    BITOPS_UNROLL
    for (size_t i = 0; i < 4; i++) {
        r_u32x16[i] = row_pair(rows, i, p, words);
        r_u32x16[i + 4] = row_pair(rows, i + 8, p, words);
    }
    BITOPS_UNROLL
    for (int i = 0; i < 8; i += 2) {
        t_u32x16[i] = _mm512_unpacklo_epi32(r_u32x16[i], r_u32x16[i + 1]);
        t_u32x16[i + 1] = _mm512_unpackhi_epi32(r_u32x16[i], r_u32x16[i + 1]);
    }
    BITOPS_UNROLL
    for (int i = 0; i < 8; i += 4) {
        u_u32x16[i] = _mm512_unpacklo_epi64(t_u32x16[i], t_u32x16[i + 2]);
        u_u32x16[i + 1] = _mm512_unpackhi_epi64(t_u32x16[i], t_u32x16[i + 2]);
        u_u32x16[i + 2] = _mm512_unpacklo_epi64(t_u32x16[i + 1], t_u32x16[i + 3]);
        u_u32x16[i + 3] = _mm512_unpackhi_epi64(t_u32x16[i + 1], t_u32x16[i + 3]);
    }
    /* u[i]: 128-bit lanes i and i + 4 of rows 0-3, then of rows 4-7; u[i + 4]: of 8-11, 12-15. */
    const size_t halves = 2 * (k_words - p);
    BITOPS_UNROLL
    for (size_t i = 0; i < 4; i++) {
        if (i < halves)
            _mm512_storeu_si512(panel + i * COLUMNS,
                                _mm512_shuffle_i64x2(u_u32x16[i], u_u32x16[i + 4], 0x88));
        if (i + 4 < halves)
            _mm512_storeu_si512(panel + (i + 4) * COLUMNS,
                                _mm512_shuffle_i64x2(u_u32x16[i], u_u32x16[i + 4], 0xdd));
    }
}

void bitops_lookup_panel_avx512(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                                uint32_t *panel_out) {
    BITOPS_ASSUME(n > 0 && n <= COLUMNS);
    for (size_t j = 0; j < (n > LANES ? COLUMNS : LANES); j += LANES) {
        const uint64_t *rows[LANES]; /* absent rows repeat the last one */
        for (size_t i = 0; i < LANES; i++)
            rows[i] = w + (j + i < n ? j + i : n - 1) * ldw;
        for (size_t p = 0; p < k_words; p += 4)
            transpose(rows, p, k_words, panel_out + j + 2 * p * COLUMNS);
    }
}

/* ---- tables -------------------------------------------------------------------------------- */

BITOPS_INLINE void tables_f32(const float *x, float *out) {
    /* Bit i of the number of a lane is the sign of x[i]. Multiplying by +-1 is exact, so each fused
     * step rounds once, like an addition. */
    const __m512 plus_f32x16 = _mm512_set1_ps(1), minus_f32x16 = _mm512_set1_ps(-1);
    BITOPS_UNROLL
    for (int group = 0; group < GROUPS; group++, x += 4, out += LANES) {
        __m512 t_f32x16 = _mm512_mul_ps(_mm512_set1_ps(x[0]),
                                        _mm512_mask_mov_ps(minus_f32x16, 0xaaaa, plus_f32x16));
        t_f32x16 = _mm512_fmadd_ps(_mm512_set1_ps(x[1]),
                                   _mm512_mask_mov_ps(minus_f32x16, 0xcccc, plus_f32x16), t_f32x16);
        t_f32x16 = _mm512_fmadd_ps(_mm512_set1_ps(x[2]),
                                   _mm512_mask_mov_ps(minus_f32x16, 0xf0f0, plus_f32x16), t_f32x16);
        t_f32x16 = _mm512_fmadd_ps(_mm512_set1_ps(x[3]),
                                   _mm512_mask_mov_ps(minus_f32x16, 0xff00, plus_f32x16), t_f32x16);
        _mm512_storeu_ps(out, t_f32x16);
    }
}

DEFINE_LOOKUP_TABLES(avx512, f32, float, float, tables_f32)

BITOPS_INLINE void tables_u8(const uint8_t *x, int16_t *out) {
    /* Table i: in its low half the sums of x[4i] .. x[4i + 3], in its high half those of
     * x[16 + 4i] .. x[16 + 4i + 3]. Bytes of a 16-bit lane are two numbers, or their signs. */
    const __m512i plus_i8x64 = _mm512_set1_epi8(1), minus_i8x64 = _mm512_set1_epi8(-1);
    const __m512i signs01_i8x64 =
        _mm512_mask_mov_epi8(minus_i8x64, 0xe4e4e4e4e4e4e4e4u, plus_i8x64);
    const __m512i signs23_i8x64 =
        _mm512_mask_mov_epi8(minus_i8x64, 0xffaa5500ffaa5500u, plus_i8x64);
    const __m512i start_u16x32 =
        _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(8), 1);
    const __m512i all_u8x64 = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)x));
    BITOPS_UNROLL
    for (short i = 0; i < GROUPS / 2; i++, out += 2 * LANES) {
        const __m512i at01_u16x32 =
            _mm512_add_epi16(start_u16x32, _mm512_set1_epi16((short)(2 * i)));
        const __m512i at23_u16x32 =
            _mm512_add_epi16(start_u16x32, _mm512_set1_epi16((short)(2 * i + 1)));
        const __m512i t01_i16x32 =
            _mm512_maddubs_epi16(_mm512_permutexvar_epi16(at01_u16x32, all_u8x64), signs01_i8x64);
        const __m512i t23_i16x32 =
            _mm512_maddubs_epi16(_mm512_permutexvar_epi16(at23_u16x32, all_u8x64), signs23_i8x64);
        _mm512_storeu_si512(out, _mm512_add_epi16(t01_i16x32, t23_i16x32));
    }
}

DEFINE_LOOKUP_TABLES(avx512, u8, uint8_t, int16_t, tables_u8)

/* The 32 elements of `parts` that are positive, then those that are negative, as magnitudes. In
 * byte 16 b + e of the table is the sum of those elements i + 8 b .. i + 8 b + 3 that have the sign
 * of their bit of e. */
BITOPS_INLINE __m512i small_table(__m512i parts_u8x64, char i) {
    const __m512i step_u8x64 = _mm512_set_epi32(
        0x18181818, 0x18181818, 0x18181818, 0x18181818, 0x10101010, 0x10101010, 0x10101010,
        0x10101010, 0x08080808, 0x08080808, 0x08080808, 0x08080808, 0, 0, 0, 0);
    static const uint64_t minus[4] = {0x5555555555555555u, 0x3333333333333333u, 0x0f0f0f0f0f0f0f0fu,
                                      0x00ff00ff00ff00ffu};
    __m512i sums_u8x64 = _mm512_setzero_si512();
    BITOPS_UNROLL
    for (char b = 0; b < 4; b++) {
        const __m512i plus_u8x64 = _mm512_add_epi8(step_u8x64, _mm512_set1_epi8((char)(i + b)));
        const __m512i at_u8x64 =
            _mm512_mask_add_epi8(plus_u8x64, minus[(int)b], plus_u8x64, _mm512_set1_epi8(32));
        sums_u8x64 = _mm512_add_epi8(sums_u8x64, _mm512_permutexvar_epi8(at_u8x64, parts_u8x64));
    }
    return sums_u8x64;
}

/* For each 32 elements, first the tables of the low halves of all bytes of a column, then those of
 * the high ones. */
int32_t bitops_lookup_tables_small_avx512(const uint8_t *x, size_t k, int zero, void *tables_out) {
    const __m512i zero_u8x64 = _mm512_set1_epi8((char)zero);
    __m512i sums_i64x8 = _mm512_setzero_si512();
    char *out = tables_out;
    for (size_t first = 0; first < k; first += HALF_BITS, out += BITOPS_SMALL_BYTES) {
        const __mmask64 low =
            _bzhi_u32(UINT32_MAX, k - first < HALF_BITS ? (uint32_t)(k - first) : HALF_BITS);
        const __m512i x_u8x64 =
            _mm512_broadcast_i64x4(_mm256_maskz_loadu_epi8((__mmask32)low, x + first));
        const __m512i parts_u8x64 = _mm512_mask_subs_epu8(
            _mm512_maskz_subs_epu8(low, x_u8x64, zero_u8x64), low << 32, zero_u8x64, x_u8x64);
        sums_i64x8 =
            _mm512_add_epi64(sums_i64x8, _mm512_sad_epu8(parts_u8x64, _mm512_setzero_si512()));
        _mm512_storeu_si512(out, small_table(parts_u8x64, 0));
        _mm512_storeu_si512(out + 64, small_table(parts_u8x64, 4));
    }
    return (int32_t)_mm512_reduce_add_epi64(sums_i64x8);
}

/* ---- products ------------------------------------------------------------------------------ */

BITOPS_INLINE __mmask16 lane_mask(size_t n, size_t first) {
    return (__mmask16)_bzhi_u32(0xffff, (uint32_t)(n > first ? n - first : 0));
}

/* rows and vecs are constants at every call, so the loops over them unroll. */
BITOPS_INLINE void tile_f32(const int rows, const int vecs, const bitops_lookup *t) {
    __m512 sums_f32x16[BITOPS_LOOKUP_ROWS][VECS];
    BITOPS_UNROLL
    for (int i = 0; i < rows; i++) {
        BITOPS_UNROLL
        for (int v = 0; v < vecs; v++)
            sums_f32x16[i][v] =
                t->first ? _mm512_setzero_ps()
                         : _mm512_maskz_loadu_ps(lane_mask(t->n, (size_t)v * LANES),
                                                 (float *)t->c + (size_t)i * t->ldc + v * LANES);
    }
    __m512 one_f32x16 = _mm512_set1_ps(1);
    BITOPS_IN_REGISTER(one_f32x16); /* or the compiler turns it into an addition */
    const float *tables = t->tables;
    const uint32_t *panel = t->panel;
    for (size_t p = 0; p < t->halves; p++, panel += COLUMNS) {
        __m512i bits_u32x16[VECS];
        BITOPS_UNROLL
        for (int v = 0; v < vecs; v++)
            bits_u32x16[v] = _mm512_loadu_si512(panel + v * LANES);
        BITOPS_NO_UNROLL /* or vectors are moved to memory and back */
            for (int group = 0; group < GROUPS; group++, tables += LANES) {
            BITOPS_UNROLL
            for (int i = 0; i < rows; i++) {
                const __m512 table_f32x16 =
                    _mm512_loadu_ps(tables + (size_t)i * t->table_stride / 4);
                BITOPS_UNROLL
                for (int v = 0; v < vecs; v++)
                    sums_f32x16[i][v] =
                        _mm512_fmadd_ps(_mm512_permutexvar_ps(bits_u32x16[v], table_f32x16),
                                        one_f32x16, sums_f32x16[i][v]);
            }
            BITOPS_UNROLL
            for (int v = 0; v < vecs; v++)
                bits_u32x16[v] = _mm512_srli_epi32(bits_u32x16[v], 4);
        }
    }
    BITOPS_UNROLL
    for (int i = 0; i < rows; i++) {
        BITOPS_UNROLL
        for (int v = 0; v < vecs; v++)
            _mm512_mask_storeu_ps((float *)t->c + (size_t)i * t->ldc + v * LANES,
                                  lane_mask(t->n, (size_t)v * LANES), sums_f32x16[i][v]);
    }
}

BITOPS_INLINE void tile_u8(const int rows, const int vecs, const bitops_lookup *t) {
    const __m512i nibbles_u32x16 = _mm512_set1_epi32(0x000f000f),
                  halves_u32x16 = _mm512_set1_epi32(0x00100000);
    const int16_t *tables = t->tables;
    const uint32_t *panel = t->panel;
    for (size_t p = 0; p < t->halves;) {
        const int first = t->first && p == 0;
        const size_t end = p + FLUSH_HALVES < t->halves ? p + FLUSH_HALVES : t->halves;
        __m512i sums_i16x32[BITOPS_LOOKUP_ROWS][VECS];
        BITOPS_UNROLL
        for (int i = 0; i < rows; i++) {
            BITOPS_UNROLL
            for (int v = 0; v < vecs; v++)
                sums_i16x32[i][v] = _mm512_setzero_si512();
        }
        for (; p < end; p++, panel += COLUMNS) {
            __m512i bits_u32x16[VECS], at_u16x32[VECS];
            BITOPS_UNROLL
            for (int v = 0; v < vecs; v++)
                bits_u32x16[v] = _mm512_loadu_si512(panel + v * LANES);
            BITOPS_NO_UNROLL
            for (int group = 0; group < GROUPS / 2; group++, tables += 2 * LANES) {
                BITOPS_UNROLL
                for (int v = 0; v < vecs; v++) {
                    at_u16x32[v] = _mm512_ternarylogic_epi32(bits_u32x16[v], nibbles_u32x16,
                                                             halves_u32x16, 0xea);
                    bits_u32x16[v] = _mm512_srli_epi32(bits_u32x16[v], 4);
                }
                BITOPS_UNROLL
                for (int i = 0; i < rows; i++) {
                    const __m512i table_i16x32 =
                        _mm512_loadu_si512(tables + (size_t)i * t->table_stride / 2);
                    BITOPS_UNROLL
                    for (int v = 0; v < vecs; v++)
                        sums_i16x32[i][v] =
                            _mm512_add_epi16(sums_i16x32[i][v],
                                             _mm512_permutexvar_epi16(at_u16x32[v], table_i16x32));
                }
            }
        }
        BITOPS_UNROLL
        for (int i = 0; i < rows; i++) {
            BITOPS_UNROLL
            for (int v = 0; v < vecs; v++) {
                const __mmask16 mask = lane_mask(t->n, (size_t)v * LANES);
                int32_t *c = (int32_t *)t->c + (size_t)i * t->ldc + v * LANES;
                const __m512i before_i32x16 =
                    first ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(mask, c);
                const __m512i wide_i32x16 =
                    _mm512_madd_epi16(sums_i16x32[i][v], _mm512_set1_epi16(1));
                _mm512_mask_storeu_epi32(c, mask, _mm512_add_epi32(before_i32x16, wide_i32x16));
            }
        }
    }
}

/* vpdpbusd adds twice the four bytes of a column, which are looked up in four tables side by side.
 */
BITOPS_INLINE void tile_small(const int rows, const int vecs, const bitops_lookup *t) {
    const __m512i nibbles_u32x16 = _mm512_set1_epi32(0x0f0f0f0f),
                  bytes_u32x16 = _mm512_set1_epi32(0x30201000), twice_i8x64 = _mm512_set1_epi8(2);
    const char *tables = t->tables;
    const uint32_t *panel = t->panel;
    __m512i sums_i32x16[BITOPS_LOOKUP_ROWS][VECS];
    BITOPS_UNROLL
    for (int i = 0; i < rows; i++) {
        BITOPS_UNROLL
        for (int v = 0; v < vecs; v++) {
            const __mmask16 before = t->first ? 0 : lane_mask(t->n, (size_t)v * LANES);
            sums_i32x16[i][v] = _mm512_sub_epi32(
                _mm512_maskz_loadu_epi32(before, (int32_t *)t->c + (size_t)i * t->ldc + v * LANES),
                _mm512_set1_epi32(t->less[i]));
        }
    }
    for (size_t p = 0; p < t->halves; p++, panel += COLUMNS) {
        BITOPS_UNROLL
        for (int half = 0; half < 2; half++, tables += 64) {
            __m512i at_u8x64[VECS];
            BITOPS_UNROLL
            for (int v = 0; v < vecs; v++) {
                const __m512i bits_u32x16 = _mm512_loadu_si512(panel + v * LANES);
                at_u8x64[v] = _mm512_ternarylogic_epi32(half ? _mm512_srli_epi32(bits_u32x16, 4)
                                                             : bits_u32x16,
                                                        nibbles_u32x16, bytes_u32x16, 0xea);
            }
            BITOPS_UNROLL
            for (int i = 0; i < rows; i++) {
                const __m512i table_u8x64 =
                    _mm512_loadu_si512(tables + (size_t)i * t->table_stride);
                BITOPS_UNROLL
                for (int v = 0; v < vecs; v++)
                    sums_i32x16[i][v] = _mm512_dpbusd_epi32(
                        sums_i32x16[i][v], _mm512_permutexvar_epi8(at_u8x64[v], table_u8x64),
                        twice_i8x64);
            }
        }
    }
    BITOPS_UNROLL
    for (int i = 0; i < rows; i++) {
        BITOPS_UNROLL
        for (int v = 0; v < vecs; v++)
            _mm512_mask_storeu_epi32((int32_t *)t->c + (size_t)i * t->ldc + v * LANES,
                                     lane_mask(t->n, (size_t)v * LANES), sums_i32x16[i][v]);
    }
}

#define DEFINE_LOOKUP(type)                                                                        \
    void bitops_lookup_##type##_avx512(const bitops_lookup *t) {                                   \
        BITOPS_ASSUME(t->n > 0 && t->n <= COLUMNS);                                                \
        if (t->n > LANES)                                                                          \
            CALL_WITH_ROWS(tile_##type, t->rows, VECS, t)                                          \
        else                                                                                       \
            CALL_WITH_ROWS(tile_##type, t->rows, 1, t)                                             \
    }

DEFINE_LOOKUP(f32)
DEFINE_LOOKUP(u8)
DEFINE_LOOKUP(small)

/* ---- rows in lanes -------------------------------------------------------------------------- */

BITOPS_INLINE __m512i read_u8(const uint8_t *x) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)x));
}

BITOPS_INLINE void widen_i16(__m512i v_i16x32, int32_t *wide, int first) {
    __m512i low_i32x16 = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(v_i16x32));
    __m512i high_i32x16 = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v_i16x32, 1));
    if (!first) {
        low_i32x16 = _mm512_add_epi32(low_i32x16, _mm512_loadu_si512(wide));
        high_i32x16 = _mm512_add_epi32(high_i32x16, _mm512_loadu_si512(wide + LANES));
    }
    _mm512_storeu_si512(wide, low_i32x16);
    _mm512_storeu_si512(wide + LANES, high_i32x16);
}

DEFINE_LANES(avx512, f32, float, BITOPS_LANES_F32, __m512, 2, 4, _mm512_setzero_ps(),
             _mm512_loadu_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_sub_ps,
             LANES_KEEP)
DEFINE_LANES(avx512, u8, uint8_t, BITOPS_LANES_U8, __m512i, 2, 4, _mm512_setzero_si512(), read_u8,
             _mm512_loadu_si512, _mm512_storeu_si512, _mm512_add_epi16, _mm512_sub_epi16, widen_i16)

/* A square of 16 x 16, of which rows x columns exist. */
BITOPS_INLINE void turn_square(const uint32_t *in, size_t ld_in, size_t rows, size_t columns,
                               uint32_t *out, size_t ld_out) {
    const __mmask16 in_mask = lane_mask(columns, 0), out_mask = lane_mask(rows, 0);
    __m512i r_u32x16[LANES], t_u32x16[LANES];
    BITOPS_UNROLL
    for (size_t i = 0; i < LANES; i++)
        r_u32x16[i] = _mm512_maskz_loadu_epi32(i < rows ? in_mask : 0, in + i * ld_in);
    BITOPS_UNROLL
    for (int i = 0; i < LANES; i += 2) {
        t_u32x16[i] = _mm512_unpacklo_epi32(r_u32x16[i], r_u32x16[i + 1]);
        t_u32x16[i + 1] = _mm512_unpackhi_epi32(r_u32x16[i], r_u32x16[i + 1]);
    }
    BITOPS_UNROLL
    for (int i = 0; i < LANES; i += 4) {
        r_u32x16[i] = _mm512_unpacklo_epi64(t_u32x16[i], t_u32x16[i + 2]);
        r_u32x16[i + 1] = _mm512_unpackhi_epi64(t_u32x16[i], t_u32x16[i + 2]);
        r_u32x16[i + 2] = _mm512_unpacklo_epi64(t_u32x16[i + 1], t_u32x16[i + 3]);
        r_u32x16[i + 3] = _mm512_unpackhi_epi64(t_u32x16[i + 1], t_u32x16[i + 3]);
    }
    /* r[4 b + i]: columns i, i + 4, i + 8, i + 12 of rows 4 b .. 4 b + 3. */
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++) {
        t_u32x16[i] = _mm512_shuffle_i32x4(r_u32x16[i], r_u32x16[i + 4], 0x88);
        t_u32x16[i + 4] = _mm512_shuffle_i32x4(r_u32x16[i], r_u32x16[i + 4], 0xdd);
        t_u32x16[i + 8] = _mm512_shuffle_i32x4(r_u32x16[i + 8], r_u32x16[i + 12], 0x88);
        t_u32x16[i + 12] = _mm512_shuffle_i32x4(r_u32x16[i + 8], r_u32x16[i + 12], 0xdd);
    }
    BITOPS_UNROLL
    for (int i = 0; i < 8; i++) {
        r_u32x16[i] = _mm512_shuffle_i32x4(t_u32x16[i], t_u32x16[i + 8], 0x88);
        r_u32x16[i + 8] = _mm512_shuffle_i32x4(t_u32x16[i], t_u32x16[i + 8], 0xdd);
    }
    BITOPS_UNROLL
    for (size_t i = 0; i < LANES; i++)
        _mm512_mask_storeu_epi32(out + i * ld_out, i < columns ? out_mask : 0, r_u32x16[i]);
}

void bitops_turn_32_avx512(const void *in, size_t ld_in, size_t rows, size_t columns,
                           void *turned_out, size_t ld_out) {
    for (size_t i = 0; i < rows; i += LANES)
        for (size_t j = 0; j < columns; j += LANES)
            turn_square((const uint32_t *)in + i * ld_in + j, ld_in,
                        rows - i < LANES ? rows - i : LANES,
                        columns - j < LANES ? columns - j : LANES,
                        (uint32_t *)turned_out + j * ld_out + i, ld_out);
}

BITOPS_TARGET_END

#endif
