/* neon_lookup.c: numbers times +-1 weights by lookup; AArch64 Advanced SIMD.
 *
 * Four elements of a row of x have 16 sums +-x0 +-x1 +-x2 +-x3. As float32 they fill four vectors,
 * in which tbl looks up the bytes of 4 columns; as int16, which has room for 4 * 255, they fill
 * two, and tbl looks up 8 columns. The indices of the bytes are made once for all rows of a tile.
 *
 *   intrinsic            instruction       per 4 elements of a row and 16 columns
 *   vld1q_u8_x4, _x2     ld1 {4}, ld1 {2}  1
 *   vqtbl4q_u8           tbl {4}           4 (float32)
 *   vaddq_f32            fadd              4
 *   vqtbl2q_u8           tbl {2}           2 (uint8)
 *   vaddq_s16            add               2
 * Bottleneck: of float32, tbl on four vectors, which is slow on most cores; of uint8, the vector
 * pipes.
 *
 * Overflow: int16 counters grow by at most 1020 for 4 elements and are emptied every 4 halves (128
 * elements, 32640 <= 32767) into int32, which hold 255 * k < 2^31. Tails: x is padded with zeros; a
 * block of outputs whose columns do not fill a tile goes through memory of its own. */
#include "operations.h"
#include "isa/shared/lanes.h"
#include "isa/shared/lookup.h"
#include "isa/shared/target.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>

enum {
    ROWS = BITOPS_LOOKUP_ROWS,
    WIDTH = 16, /* columns of a tile */
    VECS = 4,   /* vectors of its sums, for each row */
    FLUSH_HALVES = 4,
};

/* ---- panels -------------------------------------------------------------------------------- */

/* Turns two words of 4 rows into 4 vectors with the same 32 bits of 4 columns, COLUMNS lanes apart.
 */
BITOPS_INLINE void transpose(const uint64_t *const rows[4], size_t p, uint32_t *panel) {
    uint32x4_t v_u32x4[4], t_u32x4[4];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++)
        v_u32x4[i] = vreinterpretq_u32_u64(vld1q_u64(rows[i] + p));
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        t_u32x4[2 * i] = vzip1q_u32(v_u32x4[i], v_u32x4[i + 2]);
        t_u32x4[2 * i + 1] = vzip2q_u32(v_u32x4[i], v_u32x4[i + 2]);
    }
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        vst1q_u32(panel + 2 * i * COLUMNS, vzip1q_u32(t_u32x4[i], t_u32x4[i + 2]));
        vst1q_u32(panel + (2 * i + 1) * COLUMNS, vzip2q_u32(t_u32x4[i], t_u32x4[i + 2]));
    }
}

void bitops_lookup_panel_neon(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                              uint32_t *panel_out) {
    BITOPS_ASSUME(n > 0 && n <= COLUMNS);
    const size_t whole = k_words / 2 * 2;
    for (size_t j = 0; j < COLUMNS; j += 4) {
        const uint64_t *rows[4]; /* absent rows repeat the last one */
        for (size_t i = 0; i < 4; i++)
            rows[i] = w + (j + i < n ? j + i : n - 1) * ldw;
        for (size_t p = 0; p < whole; p += 2)
            transpose(rows, p, panel_out + j + 2 * p * COLUMNS);
    }
    if (whole < k_words)
        bitops_lookup_panel_generic(w + whole, ldw, n, 1, panel_out + 2 * whole * COLUMNS);
}

/* ---- tables -------------------------------------------------------------------------------- */

/* Entries 4 i .. 4 i + 3 are vector i: bits 0 and 1 of their number differ within it, bit 2 and 3
 * are those of i. */
BITOPS_INLINE void tables_f32(const float *x, float *out) {
    const uint32x4_t bit0_u32x4 = {1u << 31, 0, 1u << 31, 0},
                     bit1_u32x4 = {1u << 31, 1u << 31, 0, 0};
    for (int group = 0; group < GROUPS; group++, x += 4, out += ENTRIES) {
        const uint32x4_t x0_u32x4 = vreinterpretq_u32_f32(vdupq_n_f32(x[0]));
        const uint32x4_t x1_u32x4 = vreinterpretq_u32_f32(vdupq_n_f32(x[1]));
        const float32x4_t x2_f32x4 = vdupq_n_f32(x[2]), x3_f32x4 = vdupq_n_f32(x[3]);
        const float32x4_t two_f32x4 =
            vaddq_f32(vreinterpretq_f32_u32(veorq_u32(x0_u32x4, bit0_u32x4)),
                      vreinterpretq_f32_u32(veorq_u32(x1_u32x4, bit1_u32x4)));
        const float32x4_t three_f32x4[2] = {vsubq_f32(two_f32x4, x2_f32x4),
                                            vaddq_f32(two_f32x4, x2_f32x4)};
        BITOPS_UNROLL
        for (int i = 0; i < 2; i++) {
            vst1q_f32(out + 4 * i, vsubq_f32(three_f32x4[i], x3_f32x4));
            vst1q_f32(out + 4 * i + 8, vaddq_f32(three_f32x4[i], x3_f32x4));
        }
    }
}

/* Entries 8 i .. 8 i + 7 are vector i, bit 3 of whose number is i. */
BITOPS_INLINE void tables_u8(const uint8_t *x, int16_t *out) {
    const int16x8_t bit0_i16x8 = {-1, 1, -1, 1, -1, 1, -1, 1},
                    bit1_i16x8 = {-1, -1, 1, 1, -1, -1, 1, 1};
    const int16x8_t bit2_i16x8 = {-1, -1, -1, -1, 1, 1, 1, 1};
    for (int group = 0; group < GROUPS; group++, x += 4, out += ENTRIES) {
        int16x8_t three_i16x8 = vmulq_n_s16(bit0_i16x8, x[0]);
        three_i16x8 = vmlaq_n_s16(three_i16x8, bit1_i16x8, x[1]);
        three_i16x8 = vmlaq_n_s16(three_i16x8, bit2_i16x8, x[2]);
        vst1q_s16(out, vsubq_s16(three_i16x8, vdupq_n_s16(x[3])));
        vst1q_s16(out + 8, vaddq_s16(three_i16x8, vdupq_n_s16(x[3])));
    }
}

DEFINE_LOOKUP_TABLES(neon, f32, float, float, tables_f32)
DEFINE_LOOKUP_TABLES(neon, u8, uint8_t, int16_t, tables_u8)

/* ---- products ------------------------------------------------------------------------------ */

/* Columns [col, col + 16) of the panel. rows is a constant at every call, so that loops over rows
 * unroll. */
BITOPS_INLINE void tile_f32(const int rows, const bitops_lookup *t, size_t col, float *c,
                            size_t ldc) {
    const uint32x4_t first_byte_u32x4 = vdupq_n_u32(0x03020100),
                     bytes_u32x4 = vdupq_n_u32(0x04040404);
    float32x4_t sums_f32x4[ROWS][VECS];
    BITOPS_UNROLL
    for (int i = 0; i < rows; i++) {
        BITOPS_UNROLL
        for (int v = 0; v < VECS; v++)
            sums_f32x4[i][v] = t->first ? vdupq_n_f32(0) : vld1q_f32(c + (size_t)i * ldc + 4 * v);
    }
    const uint8_t *tables = t->tables;
    const uint32_t *panel = t->panel + col;
    for (size_t p = 0; p < t->halves; p++, panel += COLUMNS)
        for (int group = 0; group < GROUPS; group++, tables += ENTRIES * sizeof(float)) {
            uint8x16_t at_u8x16[VECS];
            BITOPS_UNROLL
            for (int v = 0; v < VECS; v++) {
                const uint32x4_t down_u32x4 =
                    vshlq_u32(vld1q_u32(panel + 4 * v), vdupq_n_s32(-4 * group));
                const uint32x4_t entry_u8x16 = vandq_u32(down_u32x4, vdupq_n_u32(15));
                at_u8x16[v] =
                    vreinterpretq_u8_u32(vmlaq_u32(first_byte_u32x4, entry_u8x16, bytes_u32x4));
            }
            BITOPS_UNROLL
            for (int i = 0; i < rows; i++) {
                const uint8x16x4_t table_u8x16x4 =
                    vld1q_u8_x4(tables + (size_t)i * t->table_stride);
                BITOPS_UNROLL
                for (int v = 0; v < VECS; v++) {
                    const uint8x16_t entry_u8x16 = vqtbl4q_u8(table_u8x16x4, at_u8x16[v]);
                    sums_f32x4[i][v] =
                        vaddq_f32(sums_f32x4[i][v], vreinterpretq_f32_u8(entry_u8x16));
                }
            }
        }
    BITOPS_UNROLL
    for (int i = 0; i < rows; i++) {
        BITOPS_UNROLL
        for (int v = 0; v < VECS; v++)
            vst1q_f32(c + (size_t)i * ldc + 4 * v, sums_f32x4[i][v]);
    }
}

/* Adds the entries for 32 elements; each vector has the sums of 8 columns. */
BITOPS_INLINE void half_u8(const int rows, const uint32_t *panel, const uint8_t *tables,
                           size_t stride, int16x8_t (*sums_i16x8)[2]) {
    const uint16x8_t first_byte_u16x8 = vdupq_n_u16(0x0100), bytes_u16x8 = vdupq_n_u16(0x0202);
    uint16x8_t bits_u16x8[2][2]; /* bits 0-15 of 8 columns, bits 16-31 */
    BITOPS_UNROLL
    for (int v = 0; v < 2; v++) {
        const uint16x8_t low_u16x8 = vreinterpretq_u16_u32(vld1q_u32(panel + 8 * v));
        const uint16x8_t high_u16x8 = vreinterpretq_u16_u32(vld1q_u32(panel + 8 * v + 4));
        bits_u16x8[0][v] = vuzp1q_u16(low_u16x8, high_u16x8);
        bits_u16x8[1][v] = vuzp2q_u16(low_u16x8, high_u16x8);
    }
    BITOPS_UNROLL
    for (int group = 0; group < GROUPS; group++, tables += ENTRIES * sizeof(int16_t)) {
        const int16x8_t down_i16x8 = vdupq_n_s16((int16_t)(-4 * (group % 4)));
        uint8x16_t at_u8x16[2];
        BITOPS_UNROLL
        for (int v = 0; v < 2; v++) {
            const uint16x8_t entry_u16x8 =
                vandq_u16(vshlq_u16(bits_u16x8[group / 4][v], down_i16x8), vdupq_n_u16(15));
            at_u8x16[v] =
                vreinterpretq_u8_u16(vmlaq_u16(first_byte_u16x8, entry_u16x8, bytes_u16x8));
        }
        BITOPS_UNROLL
        for (int i = 0; i < rows; i++) {
            const uint8x16x2_t table_u8x16x2 = vld1q_u8_x2(tables + (size_t)i * stride);
            BITOPS_UNROLL
            for (int v = 0; v < 2; v++)
                sums_i16x8[i][v] = vaddq_s16(
                    sums_i16x8[i][v], vreinterpretq_s16_u8(vqtbl2q_u8(table_u8x16x2, at_u8x16[v])));
        }
    }
}

/* Adds 8 sums to c, or to 0 if `first`. */
BITOPS_INLINE void widen_sums(int16x8_t sums_i16x8, int first, int32_t *c) {
    const int32x4_t zero_i32x4 = vdupq_n_s32(0);
    vst1q_s32(c, vaddw_s16(first ? zero_i32x4 : vld1q_s32(c), vget_low_s16(sums_i16x8)));
    vst1q_s32(c + 4, vaddw_high_s16(first ? zero_i32x4 : vld1q_s32(c + 4), sums_i16x8));
}

BITOPS_INLINE void tile_u8(const int rows, const bitops_lookup *t, size_t col, int32_t *c,
                           size_t ldc) {
    const uint8_t *tables = t->tables;
    const uint32_t *panel = t->panel + col;
    for (size_t p = 0; p < t->halves; p += FLUSH_HALVES) {
        const size_t left = t->halves - p, halves = left < FLUSH_HALVES ? left : FLUSH_HALVES;
        int16x8_t sums_i16x8[ROWS][2];
        BITOPS_UNROLL
        for (int i = 0; i < rows; i++)
            sums_i16x8[i][0] = sums_i16x8[i][1] = vdupq_n_s16(0);
        for (size_t h = 0; h < halves; h++, panel += COLUMNS) {
            half_u8(rows, panel, tables, t->table_stride, sums_i16x8);
            tables += GROUPS * ENTRIES * sizeof(int16_t);
        }
        BITOPS_UNROLL
        for (int i = 0; i < rows; i++) {
            widen_sums(sums_i16x8[i][0], t->first && p == 0, c + (size_t)i * ldc);
            widen_sums(sums_i16x8[i][1], t->first && p == 0, c + (size_t)i * ldc + 8);
        }
    }
}

/* Tiles with a constant number of rows; an edge of fewer than WIDTH columns has memory of its own.
 */
#define DEFINE_LOOKUP(type, sum)                                                                   \
    static void rows_##type(const bitops_lookup *t, size_t col, sum *c, size_t ldc) {              \
        CALL_WITH_ROWS(tile_##type, t->rows, t, col, c, ldc)                                       \
    }                                                                                              \
    void bitops_lookup_##type##_neon(const bitops_lookup *t) {                                     \
        BITOPS_ASSUME(t->n > 0 && t->n <= COLUMNS);                                                \
        const size_t whole = t->n / WIDTH * WIDTH, rest = t->n - whole;                            \
        sum *c = t->c;                                                                             \
        for (size_t col = 0; col < whole; col += WIDTH)                                            \
            rows_##type(t, col, c + col, t->ldc);                                                  \
        if (rest) {                                                                                \
            sum edge[ROWS * WIDTH] = {0};                                                          \
            for (size_t i = 0; i < t->rows && !t->first; i++)                                      \
                memcpy(edge + i * WIDTH, c + i * t->ldc + whole, rest * sizeof *c);                \
            rows_##type(t, whole, edge, WIDTH);                                                    \
            for (size_t i = 0; i < t->rows; i++)                                                   \
                memcpy(c + i * t->ldc + whole, edge + i * WIDTH, rest * sizeof *c);                \
        }                                                                                          \
    }

DEFINE_LOOKUP(f32, float)
DEFINE_LOOKUP(u8, int32_t)

/* ---- rows in lanes -------------------------------------------------------------------------- */

BITOPS_INLINE float32x4_t load_f32(const void *x) {
    return vld1q_f32(x);
}

BITOPS_INLINE void store_f32(void *x, float32x4_t v_f32x4) {
    vst1q_f32(x, v_f32x4);
}

BITOPS_INLINE int16x8_t read_u8(const uint8_t *x) {
    return vreinterpretq_s16_u16(vmovl_u8(vld1_u8(x)));
}

BITOPS_INLINE int16x8_t load_i16(const void *x) {
    return vld1q_s16(x);
}

BITOPS_INLINE void store_i16(void *x, int16x8_t v_i16x8) {
    vst1q_s16(x, v_i16x8);
}

BITOPS_INLINE void widen_i16(int16x8_t v_i16x8, int32_t *wide, int first) {
    const int32x4_t zero_i32x4 = vdupq_n_s32(0);
    vst1q_s32(wide, vaddw_s16(first ? zero_i32x4 : vld1q_s32(wide), vget_low_s16(v_i16x8)));
    wide += 4;
    vst1q_s32(wide, vaddw_s16(first ? zero_i32x4 : vld1q_s32(wide), vget_high_s16(v_i16x8)));
}

DEFINE_LANES(neon, f32, float, BITOPS_LANES_F32, float32x4_t, 8, 2, vdupq_n_f32(0), load_f32,
             load_f32, store_f32, vaddq_f32, vsubq_f32, LANES_KEEP)
DEFINE_LANES(neon, u8, uint8_t, BITOPS_LANES_U8, int16x8_t, 8, 2, vdupq_n_s16(0), read_u8, load_i16,
             store_i16, vaddq_s16, vsubq_s16, widen_i16)

BITOPS_INLINE void turn_square(const uint32_t *in, size_t ld_in, uint32_t *out, size_t ld_out) {
    const uint32x4x2_t low = vtrnq_u32(vld1q_u32(in), vld1q_u32(in + ld_in));
    const uint32x4x2_t high = vtrnq_u32(vld1q_u32(in + 2 * ld_in), vld1q_u32(in + 3 * ld_in));
    BITOPS_UNROLL
    for (size_t i = 0; i < 2; i++) {
        vst1q_u32(out + i * ld_out,
                  vcombine_u32(vget_low_u32(low.val[i]), vget_low_u32(high.val[i])));
        vst1q_u32(out + (i + 2) * ld_out,
                  vcombine_u32(vget_high_u32(low.val[i]), vget_high_u32(high.val[i])));
    }
}

void bitops_turn_32_neon(const void *in, size_t ld_in, size_t rows, size_t columns,
                         void *turned_out, size_t ld_out) {
    TURN_SQUARES(4, turn_square)
}

#endif
