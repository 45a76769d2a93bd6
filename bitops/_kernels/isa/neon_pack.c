/* neon_pack.c: what passes over arrays once: pack, compare, unpack, popcount and Adam; AArch64
 * Advanced SIMD.
 *
 * A compare makes masks as wide as its elements, which are narrowed to bytes. Of each byte the bit
 * of its place is kept, and pairwise additions make words of them.
 *
 *   intrinsic                 instruction   for each word
 *   vcgezq_s8, _s16, _s32     cmge          4 (int8), 8 (int16), 16 (int32); _s64: 32
 *   vcgezq_f32, _f64          fcmge         16 (float32), 32 (float64)
 *   vceqq_f32, _f64           fcmeq         as many: each vector with itself, for NaN
 *   vuzp1q_u8, _u16, _u32     uzp1          4 (int16), 12 (int32, float32), 28 (int64), 44 (double)
 *   vandq_u8                  and           4, and 16 of what fcmeq found
 *   vpaddq_u8                 addp          4
 *   vqtbl1q_u8                tbl           4 (unpack to int8)
 *   vcntq_u8                  cnt           1 for two words (popcount)
 * The counts are those of the source; nothing was timed. README.md has the bottleneck on x86-64:
 * memory.
 *
 * Overflow of popcount: see neon.h. Tails: pack and compare copy them to a whole word of values,
 * unpack leaves them to generic. */
#include "operations.h"
#include "isa/shared/adam_step.h"
#include "isa/shared/floats.h"
#include "isa/shared/norm.h"
#include "isa/shared/mirror.h"
#include "isa/shared/neon.h"
#include "isa/shared/pack.h"
#include "isa/shared/prelu.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"
#include "isa/shared/turn.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>

enum { BLOCK_WORDS = 2 }; /* of 128 bits */

#include "isa/shared/columns.h"
#include "isa/shared/roll.h"

/* ---- pack ---------------------------------------------------------------------------------- */

/* Packs 4 x 16 masks, 0 or -1, into 64 bits. Each byte keeps the bit of its place among eight, and
 * pairs are added until eight bytes have become one. */
BITOPS_INLINE uint64_t mask_bits(const uint8x16_t masks_u8x16[4]) {
    const uint8x16_t place_u8x16 = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t bits_u8x16[4];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++)
        bits_u8x16[i] = vandq_u8(masks_u8x16[i], place_u8x16);
    const uint8x16_t quads_u8x16 =
        vpaddq_u8(vpaddq_u8(bits_u8x16[0], bits_u8x16[1]), vpaddq_u8(bits_u8x16[2], bits_u8x16[3]));
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(quads_u8x16, quads_u8x16)), 0);
}

/* Make masks of half as many bits: the lower half of each lane. */

BITOPS_INLINE uint8x16_t narrow16(uint16x8_t a_u16x8, uint16x8_t b_u16x8) {
    return vuzp1q_u8(vreinterpretq_u8_u16(a_u16x8), vreinterpretq_u8_u16(b_u16x8));
}

BITOPS_INLINE uint16x8_t narrow32(uint32x4_t a_u32x4, uint32x4_t b_u32x4) {
    return vuzp1q_u16(vreinterpretq_u16_u32(a_u32x4), vreinterpretq_u16_u32(b_u32x4));
}

BITOPS_INLINE uint32x4_t narrow64(uint64x2_t a_u64x2, uint64x2_t b_u64x2) {
    return vuzp1q_u32(vreinterpretq_u32_u64(a_u64x2), vreinterpretq_u32_u64(b_u64x2));
}

typedef uint32x4_t nan_flags; /* "ordered": ones in a lane that has not met a NaN */

BITOPS_INLINE nan_flags nan_none(void) {
    return vdupq_n_u32(UINT32_MAX);
}

BITOPS_INLINE int nan_met(nan_flags ordered) {
    return vminvq_u32(ordered) == 0;
}

/* Signs of 64 elements. */

BITOPS_INLINE uint64_t signs_bool8(const uint8_t *x, nan_flags *ordered) {
    (void)ordered;
    uint8x16_t masks_u8x16[4];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++) {
        const uint8x16_t v_u8x16 = vld1q_u8(x + 16 * i);
        masks_u8x16[i] = vtstq_u8(v_u8x16, v_u8x16);
    }
    return mask_bits(masks_u8x16);
}

BITOPS_INLINE uint64_t signs_i8(const int8_t *x, nan_flags *ordered) {
    (void)ordered;
    uint8x16_t masks_u8x16[4];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++)
        masks_u8x16[i] = vcgezq_s8(vld1q_s8(x + 16 * i));
    return mask_bits(masks_u8x16);
}

BITOPS_INLINE uint64_t signs_i16(const int16_t *x, nan_flags *ordered) {
    (void)ordered;
    uint8x16_t masks_u8x16[4];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++, x += 16)
        masks_u8x16[i] = narrow16(vcgezq_s16(vld1q_s16(x)), vcgezq_s16(vld1q_s16(x + 8)));
    return mask_bits(masks_u8x16);
}

/* Halves as integers: +1 up to 0x8000, which is -0.0. */
BITOPS_INLINE uint16x8_t plus8_half(const uint16_t *x, uint16_t infinity, nan_flags *ordered) {
    const uint16x8_t v_u16x8 = vld1q_u16(x);
    const uint16x8_t ordered_u16x8 =
        vcleq_u16(vandq_u16(v_u16x8, vdupq_n_u16(0x7fff)), vdupq_n_u16(infinity));
    /* both halves of a lane of the flags must be ordered */
    const uint32x4_t both_u32x4 =
        vreinterpretq_u32_u16(vandq_u16(ordered_u16x8, vrev32q_u16(ordered_u16x8)));
    *ordered = vandq_u32(*ordered, both_u32x4);
    return vcleq_u16(v_u16x8, vdupq_n_u16(0x8000));
}

BITOPS_INLINE uint64_t signs_half(const uint16_t *x, uint16_t infinity, nan_flags *ordered) {
    uint8x16_t masks_u8x16[4];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++, x += 16)
        masks_u8x16[i] =
            narrow16(plus8_half(x, infinity, ordered), plus8_half(x + 8, infinity, ordered));
    return mask_bits(masks_u8x16);
}

BITOPS_INLINE uint64_t signs_f16(const uint16_t *x, nan_flags *ordered) {
    return signs_half(x, INFINITY_F16, ordered);
}

BITOPS_INLINE uint64_t signs_bf16(const uint16_t *x, nan_flags *ordered) {
    return signs_half(x, INFINITY_BF16, ordered);
}

/* Masks x >= 0 of 4 elements: compares, not moves of sign bits, since -0.0 is +1. */

BITOPS_INLINE uint32x4_t plus4_i32(const int32_t *x, nan_flags *ordered) {
    (void)ordered;
    return vcgezq_s32(vld1q_s32(x));
}

BITOPS_INLINE uint32x4_t plus4_i64(const int64_t *x, nan_flags *ordered) {
    (void)ordered;
    return narrow64(vcgezq_s64(vld1q_s64(x)), vcgezq_s64(vld1q_s64(x + 2)));
}

BITOPS_INLINE uint32x4_t plus4_f32(const float *x, nan_flags *ordered) {
    const float32x4_t v_f32x4 = vld1q_f32(x);
    *ordered = vandq_u32(*ordered, vceqq_f32(v_f32x4, v_f32x4));
    return vcgezq_f32(v_f32x4);
}

BITOPS_INLINE uint32x4_t plus4_f64(const double *x, nan_flags *ordered) {
    const float64x2_t a_f64x2 = vld1q_f64(x), b_f64x2 = vld1q_f64(x + 2);
    *ordered =
        vandq_u32(*ordered, narrow64(vceqq_f64(a_f64x2, a_f64x2), vceqq_f64(b_f64x2, b_f64x2)));
    return narrow64(vcgezq_f64(a_f64x2), vcgezq_f64(b_f64x2));
}

#define DEFINE_SIGNS(name, type, plus4)                                                            \
    BITOPS_INLINE uint64_t name(const type *x, nan_flags *ordered) {                               \
        uint8x16_t masks_u8x16[4];                                                                 \
        BITOPS_UNROLL                                                                              \
        for (int i = 0; i < 4; i++, x += 16)                                                       \
            masks_u8x16[i] = narrow16(narrow32(plus4(x, ordered), plus4(x + 4, ordered)),          \
                                      narrow32(plus4(x + 8, ordered), plus4(x + 12, ordered)));    \
        return mask_bits(masks_u8x16);                                                             \
    }

DEFINE_SIGNS(signs_i32, int32_t, plus4_i32)
DEFINE_SIGNS(signs_i64, int64_t, plus4_i64)
DEFINE_SIGNS(signs_f32, float, plus4_f32)
DEFINE_SIGNS(signs_f64, double, plus4_f64)

DEFINE_PADDED_SIGNS(padded_bool8, uint8_t, signs_bool8)
DEFINE_PADDED_SIGNS(padded_i8, int8_t, signs_i8)
DEFINE_PADDED_SIGNS(padded_i16, int16_t, signs_i16)
DEFINE_PADDED_SIGNS(padded_i32, int32_t, signs_i32)
DEFINE_PADDED_SIGNS(padded_i64, int64_t, signs_i64)
DEFINE_PADDED_SIGNS(padded_f16, uint16_t, signs_f16)
DEFINE_PADDED_SIGNS(padded_bf16, uint16_t, signs_bf16)
DEFINE_PADDED_SIGNS(padded_f32, float, signs_f32)
DEFINE_PADDED_SIGNS(padded_f64, double, signs_f64)

DEFINE_PACK(neon, pack_bool8, uint8_t, padded_bool8)
DEFINE_PACK(neon, pack_i8, int8_t, padded_i8)
DEFINE_PACK(neon, pack_i16, int16_t, padded_i16)
DEFINE_PACK(neon, pack_i32, int32_t, padded_i32)
DEFINE_PACK(neon, pack_i64, int64_t, padded_i64)
DEFINE_PACK(neon, pack_f16, uint16_t, padded_f16)
DEFINE_PACK(neon, pack_bf16, uint16_t, padded_bf16)
DEFINE_PACK(neon, pack_f32, float, padded_f32)
DEFINE_PACK(neon, pack_f64, double, padded_f64)

/* ---- compare ------------------------------------------------------------------------------- */

/* Masks x > threshold of 4 elements. */

BITOPS_INLINE uint32x4_t above4_i32(const int32_t *x, const float *threshold, nan_flags *ordered) {
    (void)ordered;
    return vcgtq_f32(vcvtq_f32_s32(vld1q_s32(x)), vld1q_f32(threshold));
}

BITOPS_INLINE uint32x4_t above4_f32(const float *x, const float *threshold, nan_flags *ordered) {
    const float32x4_t v_f32x4 = vld1q_f32(x);
    *ordered = vandq_u32(*ordered, vceqq_f32(v_f32x4, v_f32x4));
    return vcgtq_f32(v_f32x4, vld1q_f32(threshold));
}

/* Bits x > threshold of the first n elements; the last ones are copied, with zeros behind them,
 * since 0 > 0 is false. */
#define DEFINE_ABOVE(name, type, above4)                                                           \
    BITOPS_INLINE uint64_t whole_##name(const type *x, const float *t, nan_flags *ordered) {       \
        uint8x16_t masks_u8x16[4];                                                                 \
        BITOPS_UNROLL                                                                              \
        for (int i = 0; i < 4; i++, x += 16, t += 16)                                              \
            masks_u8x16[i] = narrow16(                                                             \
                narrow32(above4(x, t, ordered), above4(x + 4, t + 4, ordered)),                    \
                narrow32(above4(x + 8, t + 8, ordered), above4(x + 12, t + 12, ordered)));         \
        return mask_bits(masks_u8x16);                                                             \
    }                                                                                              \
    BITOPS_INLINE uint64_t name(const type *x, const float *threshold, size_t n,                   \
                                nan_flags *ordered) {                                              \
        if (n == BITOPS_WORD_BITS)                                                                 \
            return whole_##name(x, threshold, ordered);                                            \
        type padded[BITOPS_WORD_BITS] = {0};                                                       \
        float thresholds[BITOPS_WORD_BITS] = {0};                                                  \
        memcpy(padded, x, n * sizeof *x);                                                          \
        memcpy(thresholds, threshold, n * sizeof *threshold);                                      \
        return whole_##name(padded, thresholds, ordered);                                          \
    }

DEFINE_ABOVE(above_i32, int32_t, above4_i32)
DEFINE_ABOVE(above_f32, float, above4_f32)

DEFINE_COMPARE(neon, compare_i32, int32_t, above_i32)
DEFINE_COMPARE(neon, compare_f32, float, above_f32)

/* ---- unpack -------------------------------------------------------------------------------- */

/* For each of bits 16 i to 16 i + 15 a byte, -1 where the bit is set, else 0: byte j takes byte j /
 * 8 of these bits, then bit j % 8 of that. */
BITOPS_INLINE uint8x16_t set_bits(uint8x16_t bits_u8x16, int i) {
    const uint8x16_t byte_of_u8x16 = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    const uint8x16_t bit_of_u8x16 = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t at_u8x16 = vaddq_u8(byte_of_u8x16, vdupq_n_u8((uint8_t)(2 * i)));
    return vtstq_u8(vqtbl1q_u8(bits_u8x16, at_u8x16), bit_of_u8x16);
}

void bitops_unpack_i8_neon(const uint64_t *words, size_t n, int8_t *x_out) {
    for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, words++, x_out += BITOPS_WORD_BITS) {
        const uint8x16_t word_u8x16 = vreinterpretq_u8_u64(vdupq_n_u64(*words));
        BITOPS_UNROLL
        for (int i = 0; i < 4; i++) {
            /* 1 where set, else -1 */
            const uint8x16_t v_u8x16 = vornq_u8(vdupq_n_u8(1), set_bits(word_u8x16, i));
            vst1q_s8(x_out + 16 * i, vreinterpretq_s8_u8(v_u8x16));
        }
    }
    bitops_unpack_i8_generic(words, n, x_out);
}

void bitops_unpack_f32_neon(const uint64_t *words, size_t n, float *x_out) {
    const uint32x4_t bit_of_u32x4 = {1, 2, 4, 8};
    for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, words++, x_out += BITOPS_WORD_BITS) {
        BITOPS_UNROLL
        for (int i = 0; i < 16; i++) {
            const uint32x4_t set_u32x4 =
                vtstq_u32(vdupq_n_u32((uint32_t)(*words >> 4 * i)), bit_of_u32x4);
            vst1q_f32(x_out + 4 * i, vbslq_f32(set_u32x4, vdupq_n_f32(1), vdupq_n_f32(-1)));
        }
    }
    bitops_unpack_f32_generic(words, n, x_out);
}

/* ---- popcount ------------------------------------------------------------------------------ */

void bitops_popcount_neon(const uint64_t *words, size_t rows, size_t n_words, int64_t *count_out) {
    for (size_t row = 0; row < rows; row++, words += n_words)
        count_out[row] = (int64_t)count_words(0, words, words, n_words);
}

void bitops_popcount_columns_neon(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                  int64_t *count_out) {
    count_columns(words, ld, rows, n_words, count_out);
}

void bitops_majority_columns_neon(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                  uint64_t least, uint64_t *words_out) {
    reach_columns(words, ld, rows, n_words, least, words_out);
}

void bitops_mirror_words_neon(const uint64_t *words, size_t n, size_t shift, int reversed,
                              int past_caches, uint64_t *words_out) {
    (void)past_caches;
    mirror_words(words, n, shift, reversed, words_out);
}

void bitops_shift_words_neon(const uint64_t *words, size_t n, size_t shift, int past_caches,
                             uint64_t *words_out) {
    shift_row(words, n, shift, past_caches, words_out);
}

void bitops_roll_rows_neon(const uint64_t *words, size_t rows, size_t n, size_t cut,
                           int past_caches, uint64_t *words_out) {
    roll_short_rows(words, rows, n, cut, past_caches, words_out);
}

/* ---- depthwise ----------------------------------------------------------------------------- */

typedef uint64x2_t bit_vector;

BITOPS_INLINE void spread_planes(const bit_vector *planes, int levels, uint8_t *count_out) {
    for (int j = 0; j < 8; j++, count_out += 16) {
        uint8x16_t count_u8x16 = vdupq_n_u8(0);
        BITOPS_UNROLL
        for (int level = 0; level < levels; level++) {
            const uint8x16_t set_u8x16 = set_bits(vreinterpretq_u8_u64(planes[level]), j);
            const uint8x16_t weight_u8x16 = vdupq_n_u8((uint8_t)(1 << level));
            count_u8x16 = vorrq_u8(count_u8x16, vandq_u8(set_u8x16, weight_u8x16));
        }
        vst1q_u8(count_out, count_u8x16);
    }
}

BITOPS_INLINE bit_vector majority(bit_vector a, bit_vector b, bit_vector c) {
    return vbslq_u64(a ^ b, c, a);
}

BITOPS_INLINE uint64_t counts_below(const uint8_t *count, const uint8_t *limit) {
    uint8x16_t below_u8x16[4];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++)
        below_u8x16[i] = vcltq_u8(vld1q_u8(count + 16 * i), vld1q_u8(limit + 16 * i));
    return mask_bits(below_u8x16);
}

#include "isa/shared/depthwise.h"

void bitops_count_taps_neon(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                            size_t n_taps, size_t n_words, uint8_t *count_out) {
    count_taps(taps, w, ldw, n_taps, n_words, count_out);
}

void bitops_dot_taps_neon(const uint8_t *const *taps, const uint64_t *w, size_t ldw, size_t n_taps,
                          size_t n, int32_t k, int32_t *dot_out) {
    dot_taps(taps, w, ldw, n_taps, n, k, dot_out);
}

void bitops_store_counts_neon(const uint8_t *count, size_t rows, size_t n, size_t row, size_t col,
                              const bitops_store *store) {
    store_counts(count, rows, n, row, col, store);
}

/* ---- sums and means ------------------------------------------------------------------------ */

typedef float64x2_t sum_vector;

BITOPS_INLINE sum_vector widen(const float *x) {
    return vcvt_f64_f32(vld1_f32(x));
}

#include "isa/shared/sums.h"

void bitops_sum_columns_neon(const float *x, size_t ld, size_t rows, size_t n, double *sum_out) {
    sum_columns(x, ld, rows, n, sum_out);
}

typedef float32x4_t float_vector;

#include "isa/shared/means.h"
#include "isa/shared/quantize.h"

void bitops_mean_windows_neon(const bitops_windows *windows, float *mean_out) {
    mean_windows(windows, mean_out);
}

/* ---- training ------------------------------------------------------------------------------ */

int bitops_adam_neon(const bitops_adam_args *args, const float *g, size_t first, size_t n) {
    return adam_update(args, g, first, n);
}

DEFINE_NORM(neon)
DEFINE_PRELU(neon)
DEFINE_QUANTIZE(neon)

/* ---- numbers --------------------------------------------------------------------------------- */

DEFINE_FLOATS(neon)
DEFINE_TURN(neon)

#endif
