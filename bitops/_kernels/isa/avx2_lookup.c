/* avx2_lookup.c: numbers times +-1 weights by lookup; AVX2.
 *
 * Four elements of a row of x have 16 sums +-x0 +-x1 +-x2 +-x3, float32 or int32, in two vectors:
 * those with -x3, then those with +x3. Three bits of each of 8 columns select from both vectors by
 * a permutation; the fourth bit, moved to the sign, selects one of the two results.
 *
 *   intrinsic                          instruction   Skylake and later   Zen 3, 4
 *   _mm256_permutevar8x32_epi32        vpermd        latency 3, p5       4, two per cycle
 *   _mm256_blendv_ps                   vblendvps     latency 2, 2 p015   1, two per cycle
 *   _mm256_add_ps                      vaddps        latency 4, p01      3, two per cycle
 * Bottleneck: the permutation, two for 4 elements of 8 columns.
 *
 * Sums of four small numbers are bytes (operations.h), a table is half a vector, and vpshufb looks
 * up 32 columns at once. Bytes are added to others as long as 255 holds their sum, then to 16 bits:
 * as they are, and the odd ones beside them, which are subtracted at the end.
 *
 *   _mm256_shuffle_epi8                vpshufb       latency 1, p15      1, two per cycle
 *   _mm256_add_epi8, _epi16            vpaddb        latency 1, p015     1, four per cycle
 *   _mm256_srli_epi16                  vpsrlw        latency 1, p01      1, two per cycle
 * Bottleneck: the ports of vectors, 6 operations for 8 elements of 32 columns.
 *
 * Overflow: int32 sums of 255 * k < 2^31. Tails: x is padded with zeros; a block of outputs whose
 * columns do not fill vectors goes through memory of its own. */
#include "operations.h"
#include "isa/shared/avx2.h"
#include "isa/shared/lanes.h"
#include "isa/shared/lookup.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2")

enum {
    LANES = 8,
    VECS = 2, /* of a tile: 4 rows x 2 vectors of sums leave registers for the lookup */
    SMALL_COLUMNS = 32,
    QUARTER = 15, /* of small numbers of this magnitude, four bytes fit one; of others two */
};

BITOPS_INLINE void store(void *x, __m256i v_b256) {
    _mm256_storeu_si256((__m256i *)x, v_b256);
}

/* ---- panels -------------------------------------------------------------------------------- */

/* Turns 8 rows of 256 bits into 8 vectors with the same 32 bits of 8 columns, COLUMNS lanes apart.
 */
BITOPS_INLINE void transpose(const uint64_t *const rows[LANES], size_t p, uint32_t *panel) {
    __m256i t_u32x8[8], u_u32x8[8];
    BITOPS_UNROLL
    for (int i = 0; i < 8; i += 2) {
        const __m256i even_u32x8 = load(rows[i] + p), odd_u32x8 = load(rows[i + 1] + p);
        t_u32x8[i] = _mm256_unpacklo_epi32(even_u32x8, odd_u32x8);
        t_u32x8[i + 1] = _mm256_unpackhi_epi32(even_u32x8, odd_u32x8);
    }
    BITOPS_UNROLL
    for (int i = 0; i < 8; i += 4) {
        u_u32x8[i] = _mm256_unpacklo_epi64(t_u32x8[i], t_u32x8[i + 2]);
        u_u32x8[i + 1] = _mm256_unpackhi_epi64(t_u32x8[i], t_u32x8[i + 2]);
        u_u32x8[i + 2] = _mm256_unpacklo_epi64(t_u32x8[i + 1], t_u32x8[i + 3]);
        u_u32x8[i + 3] = _mm256_unpackhi_epi64(t_u32x8[i + 1], t_u32x8[i + 3]);
    }
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++) {
        store(panel + i * COLUMNS, _mm256_permute2x128_si256(u_u32x8[i], u_u32x8[i + 4], 0x20));
        store(panel + (i + 4) * COLUMNS,
              _mm256_permute2x128_si256(u_u32x8[i], u_u32x8[i + 4], 0x31));
    }
}

void bitops_lookup_panel_avx2(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                              uint32_t *panel_out) {
    BITOPS_ASSUME(n > 0 && n <= COLUMNS);
    const size_t whole = k_words / 4 * 4;
    for (size_t j = 0; j < COLUMNS; j += LANES) {
        const uint64_t *rows[LANES]; /* absent rows repeat the last one */
        for (size_t i = 0; i < LANES; i++)
            rows[i] = w + (j + i < n ? j + i : n - 1) * ldw;
        for (size_t p = 0; p < whole; p += 4)
            transpose(rows, p, panel_out + j + 2 * p * COLUMNS);
    }
    if (whole < k_words)
        bitops_lookup_panel_generic(w + whole, ldw, n, k_words - whole,
                                    panel_out + 2 * whole * COLUMNS);
}

/* Turns the same 32 bits of 32 columns into 4 vectors with the same byte of all. */
BITOPS_INLINE void split_bytes(uint32_t *columns) {
    const __m256i split_u8x32 =
        _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9,
                         13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m256i r_u32x8[4], t_u32x8[4];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m128i *from = (const __m128i *)columns + i;
        r_u32x8[i] = _mm256_shuffle_epi8(
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(from)),
                                    _mm_loadu_si128(from + 4), 1),
            split_u8x32);
    }
    t_u32x8[0] = _mm256_unpacklo_epi32(r_u32x8[0], r_u32x8[1]);
    t_u32x8[1] = _mm256_unpackhi_epi32(r_u32x8[0], r_u32x8[1]);
    t_u32x8[2] = _mm256_unpacklo_epi32(r_u32x8[2], r_u32x8[3]);
    t_u32x8[3] = _mm256_unpackhi_epi32(r_u32x8[2], r_u32x8[3]);
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        store(columns + 16 * i, _mm256_unpacklo_epi64(t_u32x8[i], t_u32x8[i + 2]));
        store(columns + 16 * i + 8, _mm256_unpackhi_epi64(t_u32x8[i], t_u32x8[i + 2]));
    }
}

void bitops_lookup_panel_small_avx2(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                                    uint32_t *panel_out) {
    bitops_lookup_panel_avx2(w, ldw, n, k_words, panel_out);
    for (size_t j = 0; j < 2 * k_words * COLUMNS; j += SMALL_COLUMNS)
        split_bytes(panel_out + j);
}

/* ---- tables -------------------------------------------------------------------------------- */

/* -1 in the lanes whose number has a 0 at the bit. */
BITOPS_INLINE __m256i minus_lanes(int bit) {
    const __m256i lanes_i32x8 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpeq_epi32(_mm256_and_si256(lanes_i32x8, _mm256_set1_epi32(1 << bit)),
                              _mm256_setzero_si256());
}

BITOPS_INLINE __m256 signed_f32(float x, int bit) {
    const __m256i sign_u32x8 = _mm256_slli_epi32(minus_lanes(bit), 31);
    return _mm256_xor_ps(_mm256_set1_ps(x), _mm256_castsi256_ps(sign_u32x8));
}

BITOPS_INLINE void tables_f32(const float *x, float *out) {
    for (int group = 0; group < GROUPS; group++, x += 4, out += ENTRIES) {
        const __m256 two_f32x8 = _mm256_add_ps(signed_f32(x[0], 0), signed_f32(x[1], 1));
        const __m256 three_f32x8 = _mm256_add_ps(two_f32x8, signed_f32(x[2], 2));
        _mm256_storeu_ps(out, _mm256_sub_ps(three_f32x8, _mm256_set1_ps(x[3])));
        _mm256_storeu_ps(out + LANES, _mm256_add_ps(three_f32x8, _mm256_set1_ps(x[3])));
    }
}

BITOPS_INLINE __m256i signed_i32(int32_t x, int bit) {
    return _mm256_sign_epi32(_mm256_set1_epi32(x),
                             _mm256_or_si256(minus_lanes(bit), _mm256_set1_epi32(1)));
}

BITOPS_INLINE void tables_u8(const uint8_t *x, int32_t *out) {
    for (int group = 0; group < GROUPS; group++, x += 4, out += ENTRIES) {
        const __m256i two_i32x8 = _mm256_add_epi32(signed_i32(x[0], 0), signed_i32(x[1], 1));
        const __m256i three_i32x8 = _mm256_add_epi32(two_i32x8, signed_i32(x[2], 2));
        store(out, _mm256_sub_epi32(three_i32x8, _mm256_set1_epi32(x[3])));
        store(out + LANES, _mm256_add_epi32(three_i32x8, _mm256_set1_epi32(x[3])));
    }
}

DEFINE_LOOKUP_TABLES(avx2, f32, float, float, tables_f32)
DEFINE_LOOKUP_TABLES(avx2, u8, uint8_t, int32_t, tables_u8)

/* The tables of elements 8 i .. 8 i + 7, whose positive parts and magnitudes of negative ones stand
 * side by side in both halves: entry e has the sum of those that have the sign of their bit of e.
 */
BITOPS_INLINE __m256i small_tables(__m256i parts_u8x32) {
    static const char at[4][16] = {{8, 0, 8, 0, 8, 0, 8, 0, 8, 0, 8, 0, 8, 0, 8, 0},
                                   {9, 9, 1, 1, 9, 9, 1, 1, 9, 9, 1, 1, 9, 9, 1, 1},
                                   {10, 10, 10, 10, 2, 2, 2, 2, 10, 10, 10, 10, 2, 2, 2, 2},
                                   {11, 11, 11, 11, 11, 11, 11, 11, 3, 3, 3, 3, 3, 3, 3, 3}};
    const __m256i second_u8x32 =
        _mm256_inserti128_si256(_mm256_setzero_si256(), _mm_set1_epi8(4), 1);
    __m256i sums_u8x32 = _mm256_setzero_si256();
    BITOPS_UNROLL
    for (int b = 0; b < 4; b++) {
        const __m256i at_u8x32 = _mm256_add_epi8(
            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)at[b])), second_u8x32);
        sums_u8x32 = _mm256_add_epi8(sums_u8x32, _mm256_shuffle_epi8(parts_u8x32, at_u8x32));
    }
    return sums_u8x32;
}

int32_t bitops_lookup_tables_small_avx2(const uint8_t *x, size_t k, int zero, void *tables_out) {
    const __m256i zero_u8x32 = _mm256_set1_epi8((char)zero);
    __m256i sums_i64x4 = _mm256_setzero_si256();
    char *out = tables_out;
    uint8_t padded[HALF_BITS];
    for (size_t first = 0; first < k; first += HALF_BITS, x += HALF_BITS) {
        if (k - first < HALF_BITS) {
            store(padded, zero_u8x32);
            memcpy(padded, x, k - first);
            x = padded;
        }
        const __m256i plus_u8x32 = _mm256_subs_epu8(load(x), zero_u8x32);
        const __m256i minus_u8x32 = _mm256_subs_epu8(zero_u8x32, load(x));
        sums_i64x4 =
            _mm256_add_epi64(sums_i64x4, sum_bytes(_mm256_or_si256(plus_u8x32, minus_u8x32)));
        const __m256i even_u8x32 = _mm256_unpacklo_epi64(plus_u8x32, minus_u8x32); /* bytes 0, 2 */
        const __m256i odd_u8x32 = _mm256_unpackhi_epi64(plus_u8x32, minus_u8x32);
        store(out, small_tables(_mm256_permute2x128_si256(even_u8x32, even_u8x32, 0x00)));
        store(out + 32, small_tables(_mm256_permute2x128_si256(odd_u8x32, odd_u8x32, 0x00)));
        store(out + 64, small_tables(_mm256_permute2x128_si256(even_u8x32, even_u8x32, 0x11)));
        store(out + 96, small_tables(_mm256_permute2x128_si256(odd_u8x32, odd_u8x32, 0x11)));
        out += BITOPS_SMALL_BYTES;
    }
    return (int32_t)sum_lanes(sums_i64x4);
}

/* ---- products ------------------------------------------------------------------------------ */

BITOPS_INLINE __m256i add(const int real, __m256i a_b256, __m256i b_b256) {
    if (real)
        return _mm256_castps_si256(
            _mm256_add_ps(_mm256_castsi256_ps(a_b256), _mm256_castsi256_ps(b_b256)));
    return _mm256_add_epi32(a_b256, b_b256);
}

/* Columns [col, col + 16) of the panel. rows and real (float32) are constants at every call, so the
 * loops over rows unroll. */
BITOPS_INLINE void tile(const int rows, const int real, const bitops_lookup *t, size_t col,
                        int32_t *c, size_t ldc) {
    __m256i sums_b256[BITOPS_LOOKUP_ROWS][VECS];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < VECS; v++)
            sums_b256[i][v] =
                t->first ? _mm256_setzero_si256() : load(c + (size_t)i * ldc + v * LANES);
    const char *tables = t->tables;
    const uint32_t *panel = t->panel + col;
    for (size_t p = 0; p < t->halves; p++, panel += COLUMNS)
        for (int group = 0; group < GROUPS; group++, tables += ENTRIES * sizeof(int32_t)) {
            __m256i at_u32x8[VECS];
            __m256 plus_f32x8[VECS]; /* the fourth bit, in the sign */
            BITOPS_UNROLL
            for (int v = 0; v < VECS; v++) {
                const __m256i bits_u32x8 = load(panel + v * LANES);
                at_u32x8[v] = _mm256_srli_epi32(bits_u32x8, 4 * group);
                plus_f32x8[v] = _mm256_castsi256_ps(_mm256_slli_epi32(bits_u32x8, 28 - 4 * group));
            }
            BITOPS_UNROLL
            for (int i = 0; i < rows; i++) {
                const char *table = tables + (size_t)i * t->table_stride;
                const __m256i low_b256 = load(table), high_b256 = load(table + sizeof low_b256);
                BITOPS_UNROLL
                for (int v = 0; v < VECS; v++) {
                    const __m256i entry_b256 = _mm256_castps_si256(_mm256_blendv_ps(
                        _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(low_b256, at_u32x8[v])),
                        _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(high_b256, at_u32x8[v])),
                        plus_f32x8[v]));
                    sums_b256[i][v] = add(real, sums_b256[i][v], entry_b256);
                }
            }
        }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < VECS; v++)
            store(c + (size_t)i * ldc + v * LANES, sums_b256[i][v]);
}

BITOPS_INLINE void lookup(const int real, const bitops_lookup *t) {
    BITOPS_ASSUME(t->n > 0 && t->n <= COLUMNS);
    const size_t width = VECS * LANES, whole = t->n / width * width, rest = t->n - whole;
    int32_t *c = t->c; /* float or int32, moved as bits */
    for (size_t col = 0; col < whole; col += width)
        CALL_WITH_ROWS(tile, t->rows, real, t, col, c + col, t->ldc)
    if (rest) {
        int32_t edge[BITOPS_LOOKUP_ROWS * VECS * LANES] = {0};
        for (size_t i = 0; i < t->rows && !t->first; i++)
            memcpy(edge + i * width, c + i * t->ldc + whole, rest * sizeof *c);
        CALL_WITH_ROWS(tile, t->rows, real, t, whole, edge, width)
        for (size_t i = 0; i < t->rows; i++)
            memcpy(c + i * t->ldc + whole, edge + i * width, rest * sizeof *c);
    }
}

void bitops_lookup_f32_avx2(const bitops_lookup *t) {
    lookup(1, t);
}

void bitops_lookup_u8_avx2(const bitops_lookup *t) {
    lookup(0, t);
}

/* Sums of bytes: all, read as 16 bits and modulo 2^16, and those of odd columns alone. */
typedef struct byte_sums {
    __m256i all_u16x16, odd_u16x16;
} byte_sums;

BITOPS_INLINE void add_bytes(byte_sums *sums, __m256i v_u8x32) {
    sums->all_u16x16 = _mm256_add_epi16(sums->all_u16x16, v_u8x32);
    sums->odd_u16x16 = _mm256_add_epi16(sums->odd_u16x16, _mm256_srli_epi16(v_u8x32, 8));
    BITOPS_IN_REGISTER(sums->all_u16x16); /* or the compiler adds bytes in another order */
    BITOPS_IN_REGISTER(sums->odd_u16x16);
}

BITOPS_INLINE void store_small(__m128i v_u16x8, int32_t less, int first, int32_t *c) {
    const __m256i v_i32x8 = _mm256_cvtepu16_epi32(v_u16x8);
    const __m256i sums_i32x8 =
        _mm256_sub_epi32(_mm256_add_epi32(v_i32x8, v_i32x8), _mm256_set1_epi32(less));
    store(c, first ? sums_i32x8 : _mm256_add_epi32(sums_i32x8, load(c)));
}

/* Twice the sums of 32 columns. */
BITOPS_INLINE void store_byte_sums(const byte_sums *sums, int32_t less, int first, int32_t *c) {
    const __m256i odd_u16x16 = sums->odd_u16x16;
    const __m256i even_u16x16 =
        _mm256_sub_epi16(sums->all_u16x16, _mm256_slli_epi16(odd_u16x16, 8));
    const __m256i low_u16x16 = _mm256_unpacklo_epi16(even_u16x16, odd_u16x16);
    const __m256i high_u16x16 = _mm256_unpackhi_epi16(even_u16x16, odd_u16x16);
    store_small(_mm256_castsi256_si128(low_u16x16), less, first, c);
    store_small(_mm256_castsi256_si128(high_u16x16), less, first, c + 8);
    store_small(_mm256_extracti128_si256(low_u16x16, 1), less, first, c + 16);
    store_small(_mm256_extracti128_si256(high_u16x16, 1), less, first, c + 24);
}

BITOPS_INLINE __m256i look_up(const char *table, __m256i at_u8x32) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)),
                               at_u8x32);
}

/* Columns [col, col + 32) of the panel. `bytes` of each column, 1 or 2, are looked up and added
 * before they are widened. */
BITOPS_INLINE void tile_small(const int rows, const int bytes, const bitops_lookup *t, size_t col,
                              int32_t *c, size_t ldc) {
    const __m256i nibble_u8x32 = _mm256_set1_epi8(15);
    byte_sums sums[BITOPS_LOOKUP_ROWS];
    for (int i = 0; i < rows; i++)
        sums[i].all_u16x16 = sums[i].odd_u16x16 = _mm256_setzero_si256();
    const char *tables = t->tables;
    const uint32_t *panel = t->panel + col;
    for (size_t p = 0; p < t->halves; p++, panel += COLUMNS) {
        BITOPS_UNROLL
        for (int byte = 0; byte < 4; byte += bytes, tables += bytes * 2 * ENTRIES) {
            __m256i at_u8x32[4];
            BITOPS_UNROLL
            for (int b = 0; b < bytes; b++) {
                const __m256i bits_u8x32 = load(panel + (byte + b) * LANES);
                at_u8x32[2 * b] = _mm256_and_si256(bits_u8x32, nibble_u8x32);
                at_u8x32[2 * b + 1] =
                    _mm256_and_si256(_mm256_srli_epi16(bits_u8x32, 4), nibble_u8x32);
            }
            BITOPS_UNROLL
            for (int i = 0; i < rows; i++) {
                const char *table = tables + (size_t)i * t->table_stride;
                __m256i v_u8x32 = look_up(table, at_u8x32[0]);
                BITOPS_UNROLL
                for (int g = 1; g < 2 * bytes; g++)
                    v_u8x32 = _mm256_add_epi8(v_u8x32, look_up(table + g * ENTRIES, at_u8x32[g]));
                add_bytes(&sums[i], v_u8x32);
            }
        }
    }
    for (int i = 0; i < rows; i++)
        store_byte_sums(&sums[i], t->less[i], t->first, c + (size_t)i * ldc);
}

BITOPS_INLINE void lookup_small(const int bytes, const bitops_lookup *t) {
    BITOPS_ASSUME(t->n > 0 && t->n <= COLUMNS);
    BITOPS_ASSUME(t->halves <= 64); /* 256 bytes fit 16 bits */
    const size_t whole = t->n / SMALL_COLUMNS * SMALL_COLUMNS, rest = t->n - whole;
    int32_t *c = t->c;
    for (size_t col = 0; col < whole; col += SMALL_COLUMNS)
        CALL_WITH_ROWS(tile_small, t->rows, bytes, t, col, c + col, t->ldc)
    if (rest) {
        int32_t edge[BITOPS_LOOKUP_ROWS * SMALL_COLUMNS] = {0};
        for (size_t i = 0; i < t->rows && !t->first; i++)
            memcpy(edge + i * SMALL_COLUMNS, c + i * t->ldc + whole, rest * sizeof *c);
        CALL_WITH_ROWS(tile_small, t->rows, bytes, t, whole, edge, SMALL_COLUMNS)
        for (size_t i = 0; i < t->rows; i++)
            memcpy(c + i * t->ldc + whole, edge + i * SMALL_COLUMNS, rest * sizeof *c);
    }
}

void bitops_lookup_small_avx2(const bitops_lookup *t) {
    if (t->most <= QUARTER)
        lookup_small(2, t);
    else
        lookup_small(1, t);
}

/* ---- rows in lanes -------------------------------------------------------------------------- */

BITOPS_INLINE __m256i read_u8(const uint8_t *x) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)x));
}

BITOPS_INLINE __m256 load_f32(const void *x) {
    return _mm256_loadu_ps(x);
}

BITOPS_INLINE void store_f32(void *x, __m256 v_f32x8) {
    _mm256_storeu_ps(x, v_f32x8);
}

BITOPS_INLINE void widen_i16(__m256i v_i16x16, int32_t *wide, int first) {
    __m256i low_i32x8 = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v_i16x16));
    __m256i high_i32x8 = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v_i16x16, 1));
    if (!first) {
        low_i32x8 = _mm256_add_epi32(low_i32x8, load(wide));
        high_i32x8 = _mm256_add_epi32(high_i32x8, load(wide + LANES));
    }
    store(wide, low_i32x8);
    store(wide + LANES, high_i32x8);
}

/* One after the other: GCC would first add up entries, and move sums to memory for want of
 * registers. */
BITOPS_INLINE __m256i add_i16(__m256i a_i16x16, __m256i b_i16x16) {
    __m256i sums_i16x16 = _mm256_add_epi16(a_i16x16, b_i16x16);
    BITOPS_IN_REGISTER(sums_i16x16);
    return sums_i16x16;
}

DEFINE_LANES(avx2, f32, float, BITOPS_LANES_F32, __m256, 4, 2, _mm256_setzero_ps(), load_f32,
             load_f32, store_f32, _mm256_add_ps, _mm256_sub_ps, LANES_KEEP)
DEFINE_LANES(avx2, u8, uint8_t, BITOPS_LANES_U8, __m256i, 4, 2, _mm256_setzero_si256(), read_u8,
             load, store, add_i16, _mm256_sub_epi16, widen_i16)

BITOPS_INLINE void turn_square(const uint32_t *in, size_t ld_in, uint32_t *out, size_t ld_out) {
    __m256i r_u32x8[LANES], t_u32x8[LANES];
    BITOPS_UNROLL
    for (int i = 0; i < LANES; i += 2) {
        const __m256i even_u32x8 = load(in + (size_t)i * ld_in);
        const __m256i odd_u32x8 = load(in + (size_t)(i + 1) * ld_in);
        t_u32x8[i] = _mm256_unpacklo_epi32(even_u32x8, odd_u32x8);
        t_u32x8[i + 1] = _mm256_unpackhi_epi32(even_u32x8, odd_u32x8);
    }
    BITOPS_UNROLL
    for (int i = 0; i < LANES; i += 4) {
        r_u32x8[i] = _mm256_unpacklo_epi64(t_u32x8[i], t_u32x8[i + 2]);
        r_u32x8[i + 1] = _mm256_unpackhi_epi64(t_u32x8[i], t_u32x8[i + 2]);
        r_u32x8[i + 2] = _mm256_unpacklo_epi64(t_u32x8[i + 1], t_u32x8[i + 3]);
        r_u32x8[i + 3] = _mm256_unpackhi_epi64(t_u32x8[i + 1], t_u32x8[i + 3]);
    }
    BITOPS_UNROLL
    for (size_t i = 0; i < 4; i++) {
        store(out + i * ld_out, _mm256_permute2x128_si256(r_u32x8[i], r_u32x8[i + 4], 0x20));
        store(out + (i + 4) * ld_out, _mm256_permute2x128_si256(r_u32x8[i], r_u32x8[i + 4], 0x31));
    }
}

void bitops_turn_32_avx2(const void *in, size_t ld_in, size_t rows, size_t columns,
                         void *turned_out, size_t ld_out){TURN_SQUARES(LANES, turn_square)}

BITOPS_TARGET_END

#endif
