/* amx.c: codes times +-1 weights by tiles; AMX-TILE, AMX-INT8, and the AVX-512 of avx512.c.
 *
 * A tile register holds 16 rows of 64 bytes. TDPBUSD multiplies 16 rows of 64 unsigned bytes of x
 * by a tile of signed bytes, of which a row holds 4 elements of k of each of 16 columns:
 *
 *   row e of the tile of w    | w0[4e..4e+3] | w1[4e..4e+3] | ... | w15[4e..4e+3] |
 *
 * A bit of w becomes such a byte, +1 or -1, by a mask of 64 bits for each row: the nibbles of 16
 * columns side by side, so that 16 words of w are turned as 16 x 16 nibbles first.
 *
 *   intrinsic                       instruction   Sapphire Rapids
 *   _tile_dpbusd                    tdpbusd       latency 52, one in 16 cycles
 *   _tile_loadd                     tileloadd     8 cycles from the first-level cache
 *   _mm512_permutex2var_epi8        vpermi2b      latency 5 to 6, p15 and p5
 *   _mm512_mask_blend_epi8          vpblendmb     latency 1, p05
 * Four products in a row, of two tiles of x and two of w, use each tile twice. A tile that has been
 * loaded is used at once: with all four loaded before the first product, they took 1.8 times as
 * long. The signs of 32 columns stay in the first-level cache for all rows.
 *
 * Overflow: sums are int32, as the caller's k allows. Tails: columns are masked where they are
 * read, and sums of columns and rows that do not exist are written; the caller has room for them.
 */
#include "operations.h"
#include "isa/shared/avx512.h"
#include "isa/shared/target.h"

#if defined(__x86_64__) && defined(__linux__)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,amx-tile,amx-int8")

enum {
    SIDE = 16,                            /* rows of a tile; columns of a product */
    SIGN_BYTES = BITOPS_TILE_BITS * SIDE, /* signs of a word of 16 columns */
    SUM_STEP = BITOPS_TILE_COLUMNS * 4,   /* bytes from a row of sums to the next */
    PAIR = 2 * SIDE,
};

/* The operand of LDTILECFG. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static const tile_config all_full = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE},
};

/* Byte 16 b + i of the result is byte b + 4 * `upper` of word i, of 8 words in each vector. */
BITOPS_INLINE __m512i bytes_of_words(__m512i low_u64x8, __m512i high_u64x8, int upper) {
    static const uint8_t places[2][64] = {
#define PLACES(b)                                                                                  \
    b, b + 8, b + 16, b + 24, b + 32, b + 40, b + 48, b + 56, b + 64, b + 72, b + 80, b + 88,      \
        b + 96, b + 104, b + 112, b + 120
        {PLACES(0), PLACES(1), PLACES(2), PLACES(3)},
        {PLACES(4), PLACES(5), PLACES(6), PLACES(7)},
#undef PLACES
    };
    return _mm512_permutex2var_epi8(low_u64x8, _mm512_loadu_si512(places[upper]), high_u64x8);
}

/* Turns a word of each of up to 16 columns: bits 4 i to 4 i + 3 of mask e are bits 4 e to 4 e + 3
 * of column i. */
BITOPS_INLINE void turn_nibbles(const uint64_t *w, size_t n, uint64_t masks_out[SIDE]) {
    enum { TAKE = 0xe4 }; /* c ? a : b */
    const __m512i low_u64x8 = _mm512_maskz_loadu_epi64(low_bits8(n), w);
    const __m512i high_u64x8 =
        _mm512_maskz_loadu_epi64(n > ZMM_WORDS ? low_bits8(n - ZMM_WORDS) : 0, w + ZMM_WORDS);
    const __m512i first_u16x32 = _mm512_set1_epi16(0x0f);
    BITOPS_UNROLL
    for (int upper = 0; upper < 2; upper++) {
        const __m512i pairs_u16x32 = bytes_of_words(low_u64x8, high_u64x8, upper);
        const __m512i by4_u16x32 = _mm512_srli_epi16(pairs_u16x32, 4);
        const __m512i by8_u16x32 = _mm512_srli_epi16(pairs_u16x32, 8);
        const __m256i even_u8x32 = _mm512_cvtepi16_epi8(
            _mm512_ternarylogic_epi32(pairs_u16x32, by4_u16x32, first_u16x32, TAKE));
        const __m256i odd_u8x32 = _mm512_cvtepi16_epi8(
            _mm512_ternarylogic_epi32(by4_u16x32, by8_u16x32, first_u16x32, TAKE));
        /* even: masks 8 upper, + 2, + 4, + 6; odd: those between */
        const __m256i low_u64x4 = _mm256_unpacklo_epi64(even_u8x32, odd_u8x32);
        const __m256i high_u64x4 = _mm256_unpackhi_epi64(even_u8x32, odd_u8x32);
        uint64_t *out = masks_out + 8 * upper;
        _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(low_u64x4));
        _mm_storeu_si128((__m128i *)(out + 2), _mm256_castsi256_si128(high_u64x4));
        _mm_storeu_si128((__m128i *)(out + 4), _mm256_extracti128_si256(low_u64x4, 1));
        _mm_storeu_si128((__m128i *)(out + 6), _mm256_extracti128_si256(high_u64x4, 1));
    }
}

/* A word of up to 16 columns as a tile of signs. */
BITOPS_INLINE void make_signs(const uint64_t *w, size_t n, int8_t *signs_out) {
    const __m512i minus_i8x64 = _mm512_set1_epi8(-1), plus_i8x64 = _mm512_set1_epi8(1);
    uint64_t masks[SIDE];
    turn_nibbles(w, n, masks);
    BITOPS_UNROLL
    for (int e = 0; e < SIDE; e++)
        _mm512_store_si512(signs_out + e * 64,
                           _mm512_mask_blend_epi8(masks[e], minus_i8x64, plus_i8x64));
}

/* Tiles: 0 to 3 are sums, 4 and 5 are of x, 6 and 7 of w. Their numbers must be constants. */

#define LOAD_SUMS(tile, row, col) _tile_loadd(tile, sums + (row)*SUM_STEP + (col)*4, SUM_STEP)
#define STORE_SUMS(tile, row, col) _tile_stored(tile, sums + (row)*SUM_STEP + (col)*4, SUM_STEP)

/* 32 rows x 32 columns, or 16 of either, at `sums`. */
BITOPS_INLINE void add_products(const int two_rows, const int two_columns, const bitops_tiles *t,
                                const uint8_t *x, const int8_t *signs, char *sums) {
    if (t->first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        LOAD_SUMS(0, 0, 0);
        if (two_columns)
            LOAD_SUMS(1, 0, SIDE);
        if (two_rows)
            LOAD_SUMS(2, SIDE, 0);
        if (two_rows && two_columns)
            LOAD_SUMS(3, SIDE, SIDE);
    }
    for (size_t p = 0; p < t->words; p++, signs += 2 * SIGN_BYTES) {
        const uint8_t *at = x + t->places[p];
        _tile_loadd(6, signs, 64);
        _tile_loadd(4, at, t->ldx);
        _tile_dpbusd(0, 4, 6);
        if (two_columns) {
            _tile_loadd(7, signs + SIGN_BYTES, 64);
            _tile_dpbusd(1, 4, 7);
        }
        if (two_rows) {
            _tile_loadd(5, at + SIDE * t->ldx, t->ldx);
            _tile_dpbusd(2, 5, 6);
        }
        if (two_rows && two_columns)
            _tile_dpbusd(3, 5, 7);
    }
    STORE_SUMS(0, 0, 0);
    if (two_columns)
        STORE_SUMS(1, 0, SIDE);
    if (two_rows)
        STORE_SUMS(2, SIDE, 0);
    if (two_rows && two_columns)
        STORE_SUMS(3, SIDE, SIDE);
}

/* All rows, up to 32 columns. */
BITOPS_INLINE void add_columns(const int two_columns, const bitops_tiles *t, const int8_t *signs,
                               char *sums) {
    size_t i = 0;
    for (; i + SIDE < t->rows; i += PAIR)
        add_products(1, two_columns, t, t->x + i * t->ldx, signs, sums + i * SUM_STEP);
    if (i < t->rows)
        add_products(0, two_columns, t, t->x + i * t->ldx, signs, sums + i * SUM_STEP);
}

void bitops_tiles_u8_amx(const bitops_tiles *t) {
    _Alignas(64) int8_t signs[BITOPS_TILE_WORDS * 2 * SIGN_BYTES];
    BITOPS_ASSUME(t->words <= BITOPS_TILE_WORDS && t->rows > 0 && t->rows <= BITOPS_TILE_ROWS);
    _tile_loadconfig(&all_full);
    for (size_t j = 0; j < t->n; j += PAIR) {
        const size_t n = t->n - j;
        const size_t block = j / BITOPS_TILE_COLUMNS * BITOPS_TILE_COLUMNS;
        char *sums = (char *)(t->sums + block * BITOPS_TILE_ROWS + (j - block));
        for (size_t p = 0; p < t->words; p++) {
            const uint64_t *w = t->w + p * t->stride + j;
            make_signs(w, n, signs + p * 2 * SIGN_BYTES);
            if (n > SIDE)
                make_signs(w + SIDE, n - SIDE, signs + (2 * p + 1) * SIGN_BYTES);
        }
        __asm__ volatile("" ::: "memory"); /* GCC does not know that tiles are loaded from memory */
        if (n > SIDE)
            add_columns(1, t, signs, sums);
        else
            add_columns(0, t, signs, sums);
    }
    _tile_release();
}

BITOPS_TARGET_END

#endif
