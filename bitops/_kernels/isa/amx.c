/* amx.c: codes times +-1 weights by tiles; AMX-TILE, AMX-INT8, GFNI, and the AVX-512 of avx512.c.
 *
 * A tile register holds 16 rows of 64 bytes. TDPBUSD multiplies 16 rows of 64 unsigned bytes of x
 * by a tile of signed bytes, of which a row holds 4 elements of k of each of 16 columns. Bits
 * become such bytes, +1 or -1, by GF2P8AFFINEQB, which makes a function of one bit of each of 64
 * bytes: of 32 bits of 16 columns, one of every 8. So elements of k are taken in this order, in x
 * too:
 *
 *   row of the tile of w    0             1             ...   7              8 ...
 *   bits of a column        0, 8, 16, 24  1, 9, 17, 25  ...   7, 15, 23, 31  32, 40, 48, 56 ...
 *
 *   intrinsic                       instruction      Sapphire Rapids
 *   _tile_dpbusd                    tdpbusd          latency 52, one in 16 cycles
 *   _tile_loadd                     tileloadd        8 cycles from the first-level cache
 *   _mm512_gf2p8affine_epi64_epi8   vgf2p8affineqb   latency 5, p05
 * Four products in a row, of two tiles of x and two of w, use each tile twice. A tile that has been
 * loaded is used at once: with all four loaded before the first product, they took 1.8 times as
 * long. While tiles are multiplied, the signs of the next 32 columns are made.
 *
 * Overflow: sums are int32, as the caller's k allows. Tails: columns are masked where they are
 * read, and sums of columns and rows that do not exist are written; the caller has room for them.
 */
#include "operations.h"
#include "isa/shared/avx512.h"
#include "isa/shared/target.h"

#if defined(__x86_64__) && defined(__linux__)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni,amx-tile,amx-int8")

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

/* Reads a word of up to 16 columns: their low halves, or their high ones. */
BITOPS_INLINE __m512i halves_of_words(const uint64_t *w, size_t n, int upper) {
    static const uint32_t places[2][LANES] = {
        {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30},
        {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31},
    };
    const __m512i first_u64x8 = _mm512_maskz_loadu_epi64(low_bits8(n), w);
    const __m512i second_u64x8 =
        _mm512_maskz_loadu_epi64(n > ZMM_WORDS ? low_bits8(n - ZMM_WORDS) : 0, w + ZMM_WORDS);
    return _mm512_permutex2var_epi32(first_u64x8, _mm512_loadu_si512(places[upper]), second_u64x8);
}

/* A word of up to 16 columns as a tile of signs. */
BITOPS_INLINE void make_signs(const uint64_t *w, size_t n, int8_t *signs_out) {
    /* Of a byte's bits all but the lowest are the inverse of bit b: 1 or 255. The row of the matrix
     * for bit j of a result is byte 7 - j. */
    const uint64_t all_but_lowest = UINT64_C(0x0001010101010101);
    BITOPS_UNROLL
    for (int half = 0; half < 2; half++) {
        const __m512i bits_u8x64 = halves_of_words(w, n, half);
        BITOPS_UNROLL
        for (int b = 0; b < 8; b++)
            _mm512_store_si512(
                signs_out + (half * 8 + b) * 64,
                _mm512_gf2p8affine_epi64_epi8(
                    bits_u8x64, _mm512_set1_epi64((int64_t)(all_but_lowest << b)), 0xff));
    }
}

/* The same for 32 columns, one tile after the other. */
BITOPS_INLINE void make_two_signs(const uint64_t *w, size_t n, int8_t *signs_out) {
    make_signs(w, n, signs_out);
    if (n > SIDE)
        make_signs(w + SIDE, n - SIDE, signs_out + SIGN_BYTES);
}

/* Tiles: 0 to 3 are sums, 4 and 5 are of x, 6 and 7 of w. Their numbers must be constants. */

#define LOAD_SUMS(tile, row, col) _tile_loadd(tile, sums + (row)*SUM_STEP + (col)*4, SUM_STEP)
#define STORE_SUMS(tile, row, col) _tile_stored(tile, sums + (row)*SUM_STEP + (col)*4, SUM_STEP)

/* Columns of w, and where their signs go. */
typedef struct tile_columns {
    const uint64_t *w;
    size_t n;
    int8_t *signs;
} tile_columns;

/* 32 rows x 32 columns, or 16 of either, at `sums`; makes the signs of other columns if there are
 * any. */
BITOPS_INLINE void add_products(const int two_rows, const int two_columns, const bitops_tiles *t,
                                const uint8_t *x, const int8_t *signs, char *sums,
                                const tile_columns *others) {
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
        if (others)
            make_two_signs(others->w + p * t->stride, others->n,
                           others->signs + p * 2 * SIGN_BYTES);
    }
    STORE_SUMS(0, 0, 0);
    if (two_columns)
        STORE_SUMS(1, 0, SIDE);
    if (two_rows)
        STORE_SUMS(2, SIDE, 0);
    if (two_rows && two_columns)
        STORE_SUMS(3, SIDE, SIDE);
}

/* All rows, up to 32 columns, and the signs of the next ones. */
BITOPS_INLINE void add_columns(const int two_columns, const bitops_tiles *t, const int8_t *signs,
                               char *sums, const tile_columns *next) {
    const uint8_t *x = t->x;
    size_t i = t->rows > SIDE ? PAIR : SIDE;
    if (t->rows > SIDE && next)
        add_products(1, two_columns, t, x, signs, sums, next);
    else if (t->rows > SIDE)
        add_products(1, two_columns, t, x, signs, sums, NULL);
    else if (next)
        add_products(0, two_columns, t, x, signs, sums, next);
    else
        add_products(0, two_columns, t, x, signs, sums, NULL);
    for (; i + SIDE < t->rows; i += PAIR)
        add_products(1, two_columns, t, x + i * t->ldx, signs, sums + i * SUM_STEP, NULL);
    if (i < t->rows)
        add_products(0, two_columns, t, x + i * t->ldx, signs, sums + i * SUM_STEP, NULL);
}

void bitops_tiles_u8_amx(const bitops_tiles *t) {
    _Alignas(64) int8_t signs[2][BITOPS_TILE_WORDS * 2 * SIGN_BYTES];
    BITOPS_ASSUME(t->words <= BITOPS_TILE_WORDS && t->rows > 0 && t->rows <= BITOPS_TILE_ROWS);
    _tile_loadconfig(&all_full);
    for (size_t p = 0; p < t->words; p++)
        make_two_signs(t->w + p * t->stride, t->n, signs[0] + p * 2 * SIGN_BYTES);
    for (size_t j = 0; j < t->n; j += PAIR) {
        const size_t n = t->n - j, block = j / BITOPS_TILE_COLUMNS * BITOPS_TILE_COLUMNS;
        const int8_t *own = signs[j / PAIR % 2];
        char *sums = (char *)(t->sums + block * BITOPS_TILE_ROWS + (j - block));
        const tile_columns next = {t->w + j + PAIR, n - PAIR, signs[(j / PAIR + 1) % 2]};
        __asm__ volatile("" ::: "memory"); /* GCC does not know that tiles are loaded from memory */
        if (n > PAIR)
            add_columns(1, t, own, sums, &next);
        else if (n > SIDE)
            add_columns(1, t, own, sums, NULL);
        else
            add_columns(0, t, own, sums, NULL);
    }
    _tile_release();
}

void bitops_tile_rows_amx(const uint8_t *x, size_t ldx, size_t rows, size_t bytes,
                          uint8_t *rows_out, size_t ld_out) {
    static const uint8_t order[64] = {
#define OF_BIT(b) b, b + 8, b + 16, b + 24
        OF_BIT(0),  OF_BIT(1),  OF_BIT(2),  OF_BIT(3),  OF_BIT(4),  OF_BIT(5),
        OF_BIT(6),  OF_BIT(7),  OF_BIT(32), OF_BIT(33), OF_BIT(34), OF_BIT(35),
        OF_BIT(36), OF_BIT(37), OF_BIT(38), OF_BIT(39),
#undef OF_BIT
    };
    const __m512i order_u8x64 = _mm512_loadu_si512(order);
    for (size_t r = 0; r < rows; r++, x += ldx, rows_out += ld_out)
        for (size_t k = 0; k < bytes; k += 64) {
            const __m512i x_u8x64 = _mm512_maskz_loadu_epi8(low_bits64(bytes - k), x + k);
            _mm512_storeu_si512(rows_out + k, _mm512_permutexvar_epi8(order_u8x64, x_u8x64));
        }
}

/* ---- bytes times bytes ----------------------------------------------------------------------- */

/* 16 or 32 rows x 32 columns. A row of a tile of y has 4 elements of k of each of 16 columns. */
BITOPS_INLINE void add_byte_rows(const int two_rows, const bitops_byte_block *block, size_t first) {
    enum { LINE = 4 * BITOPS_BYTE_COLUMNS };
    const size_t step = block->ld_sums * sizeof(int32_t), ldx = block->ldx;
    char *sums = (char *)(block->sums + first * block->ld_sums);
    const int8_t *x = block->x + first * ldx;
    const uint8_t *y = block->y;
    _tile_loadd(0, sums, step);
    _tile_loadd(1, sums + 4 * SIDE, step);
    if (two_rows) {
        _tile_loadd(2, sums + SIDE * step, step);
        _tile_loadd(3, sums + SIDE * step + 4 * SIDE, step);
    }
    for (size_t k = 0; k < block->k; k += BITOPS_BYTE_DEPTH, y += SIDE * LINE) {
        _tile_loadd(6, y, LINE);
        _tile_loadd(4, x + k, ldx);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, y + 4 * SIDE, LINE);
        _tile_dpbsud(1, 4, 7);
        if (two_rows) {
            _tile_loadd(5, x + SIDE * ldx + k, ldx);
            _tile_dpbsud(2, 5, 6);
            _tile_dpbsud(3, 5, 7);
        }
    }
    _tile_stored(0, sums, step);
    _tile_stored(1, sums + 4 * SIDE, step);
    if (two_rows) {
        _tile_stored(2, sums + SIDE * step, step);
        _tile_stored(3, sums + SIDE * step + 4 * SIDE, step);
    }
}

void bitops_byte_products_amx(const bitops_byte_block *block) {
    size_t i = 0;
    _tile_loadconfig(&all_full);
    __asm__ volatile("" ::: "memory"); /* as above */
    for (; i + PAIR <= block->rows; i += PAIR)
        add_byte_rows(1, block, i);
    if (i < block->rows)
        add_byte_rows(0, block, i);
    _tile_release();
}

BITOPS_TARGET_END

#endif
