/* avx512_pack.c: what passes over arrays once: pack, compare, unpack, popcount and Adam; AVX-512 F,
 * BW, VL, VPOPCNTDQ.
 *
 * A compare writes the bits of 8 to 64 elements to a mask register; up to eight masks make a word.
 *
 *   intrinsic                 instruction   for each word
 *   _mm512_test_epi8_mask     vptestmb      1 (bool8)
 *   _mm512_movepi8_mask       vpmovb2m      1 (int8)
 *   _mm512_movepi16_mask      vpmovw2m      2 (int16)
 *   _mm512_cmplt_epi32_mask   vpcmpd        4 (int32)
 *   _mm512_cmplt_epi64_mask   vpcmpq        8 (int64)
 *   _mm512_cmp_ps_mask        vcmpps        8 (float32): 4 with 0, 4 with themselves, for NaN
 *   _mm512_cmp_pd_mask        vcmppd        16 (float64)
 *   _mm512_mask_blend_epi8    vpblendmb     1 (unpack to int8)
 *   _mm512_mask_blend_ps      vblendmps     4 (unpack to float32)
 *   _mm512_popcnt_epi64       vpopcntq      1 for eight words (popcount)
 * Bottleneck: memory; README.md has the shares of its speed.
 *
 * Overflow: counts are sums of 64-bit lanes. Tails: masked loads and stores. */
#include "operations.h"
#include "isa/shared/adam_step.h"
#include "isa/shared/floats.h"
#include "isa/shared/norm.h"
#include "isa/shared/avx512.h"
#include "isa/shared/avx512_store.h"
#include "isa/shared/pack.h"
#include "isa/shared/prelu.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"
#include "isa/shared/turn.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vpopcntdq,prfchw")

enum { BLOCK_WORDS = ZMM_WORDS };

#include "isa/shared/columns.h"
#include "isa/shared/roll.h"

/* ---- pack ---------------------------------------------------------------------------------- */

typedef __mmask16 nan_flags; /* bit i: lane i of some vector was NaN */

BITOPS_INLINE nan_flags nan_none(void) {
    return 0;
}

BITOPS_INLINE int nan_met(nan_flags flags) {
    return flags != 0;
}

/* Signs of the first n elements of x, which are all that is read. */

BITOPS_INLINE uint64_t signs_bool8(const uint8_t *x, size_t n, nan_flags *flags) {
    (void)flags;
    const uint64_t mask = low_bits64(n);
    const __m512i v_u8x64 = _mm512_maskz_loadu_epi8(mask, x);
    return _mm512_test_epi8_mask(v_u8x64, v_u8x64);
}

BITOPS_INLINE uint64_t signs_i8(const int8_t *x, size_t n, nan_flags *flags) {
    (void)flags;
    const uint64_t mask = low_bits64(n);
    return mask & ~_mm512_movepi8_mask(_mm512_maskz_loadu_epi8(mask, x));
}

BITOPS_INLINE uint64_t signs_i16(const int16_t *x, size_t n, nan_flags *flags) {
    (void)flags;
    const uint64_t mask = low_bits64(n);
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m512i v_i16x32 = _mm512_maskz_loadu_epi16((__mmask32)(mask >> 32 * i), x + 32 * i);
        negative |= (uint64_t)_mm512_movepi16_mask(v_i16x32) << 32 * i;
    }
    return mask & ~negative;
}

BITOPS_INLINE uint64_t signs_i32(const int32_t *x, size_t n, nan_flags *flags) {
    (void)flags;
    const uint64_t mask = low_bits64(n);
    const __m512i zero_i32x16 = _mm512_setzero_si512();
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m512i v_i32x16 = _mm512_maskz_loadu_epi32((__mmask16)(mask >> 16 * i), x + 16 * i);
        negative |= (uint64_t)_mm512_cmplt_epi32_mask(v_i32x16, zero_i32x16) << 16 * i;
    }
    return mask & ~negative;
}

BITOPS_INLINE uint64_t signs_i64(const int64_t *x, size_t n, nan_flags *flags) {
    (void)flags;
    const uint64_t mask = low_bits64(n);
    const __m512i zero_i64x8 = _mm512_setzero_si512();
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 8; i++) {
        const __m512i v_i64x8 = _mm512_maskz_loadu_epi64((__mmask8)(mask >> 8 * i), x + 8 * i);
        negative |= (uint64_t)_mm512_cmplt_epi64_mask(v_i64x8, zero_i64x8) << 8 * i;
    }
    return mask & ~negative;
}

/* A compare, not a move of sign bits: -0.0 is +1. */
/* Halves as integers: +1 up to 0x8000, which is -0.0. */
BITOPS_INLINE uint64_t signs_half(const uint16_t *x, size_t n, uint16_t infinity,
                                  nan_flags *flags) {
    const uint64_t mask = low_bits64(n);
    const __m512i minus_zero_u16x32 = _mm512_set1_epi16((short)0x8000);
    const __m512i infinity_u16x32 = _mm512_set1_epi16((short)(infinity << 1));
    uint64_t plus = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m512i v_u16x32 = _mm512_maskz_loadu_epi16((__mmask32)(mask >> 32 * i), x + 32 * i);
        const __mmask32 nans =
            _mm512_cmpgt_epu16_mask(_mm512_add_epi16(v_u16x32, v_u16x32), infinity_u16x32);
        plus |= (uint64_t)_mm512_cmple_epu16_mask(v_u16x32, minus_zero_u16x32) << 32 * i;
        *flags |= (nan_flags)(nans | nans >> 16);
    }
    return mask & plus;
}

BITOPS_INLINE uint64_t signs_f16(const uint16_t *x, size_t n, nan_flags *flags) {
    return signs_half(x, n, INFINITY_F16, flags);
}

BITOPS_INLINE uint64_t signs_bf16(const uint16_t *x, size_t n, nan_flags *flags) {
    return signs_half(x, n, INFINITY_BF16, flags);
}

BITOPS_INLINE uint64_t signs_f32(const float *x, size_t n, nan_flags *flags) {
    const uint64_t mask = low_bits64(n);
    uint64_t plus = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m512 v_f32x16 = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16 * i), x + 16 * i);
        plus |= (uint64_t)_mm512_cmp_ps_mask(v_f32x16, _mm512_setzero_ps(), _CMP_GE_OQ) << 16 * i;
        *flags |= _mm512_cmp_ps_mask(v_f32x16, v_f32x16, _CMP_UNORD_Q);
    }
    return mask & plus;
}

BITOPS_INLINE uint64_t signs_f64(const double *x, size_t n, nan_flags *flags) {
    const uint64_t mask = low_bits64(n);
    uint64_t plus = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 8; i++) {
        const __m512d v_f64x8 = _mm512_maskz_loadu_pd((__mmask8)(mask >> 8 * i), x + 8 * i);
        plus |= (uint64_t)_mm512_cmp_pd_mask(v_f64x8, _mm512_setzero_pd(), _CMP_GE_OQ) << 8 * i;
        *flags |= _mm512_cmp_pd_mask(v_f64x8, v_f64x8, _CMP_UNORD_Q);
    }
    return mask & plus;
}

DEFINE_PACK(avx512, pack_bool8, uint8_t, signs_bool8)
DEFINE_PACK(avx512, pack_i8, int8_t, signs_i8)
DEFINE_PACK(avx512, pack_i16, int16_t, signs_i16)
DEFINE_PACK(avx512, pack_i32, int32_t, signs_i32)
DEFINE_PACK(avx512, pack_i64, int64_t, signs_i64)
DEFINE_PACK(avx512, pack_f16, uint16_t, signs_f16)
DEFINE_PACK(avx512, pack_bf16, uint16_t, signs_bf16)
DEFINE_PACK(avx512, pack_f32, float, signs_f32)
DEFINE_PACK(avx512, pack_f64, double, signs_f64)

/* ---- compare ------------------------------------------------------------------------------- */

/* Bits x > threshold of the first n elements. */

BITOPS_INLINE uint64_t above_i32(const int32_t *x, const float *threshold, size_t n,
                                 nan_flags *flags) {
    (void)flags;
    uint64_t word = 0;
    for (size_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = low_bits16(n - i);
        const __m512 v_f32x16 = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(mask, x + i));
        const __m512 t_f32x16 = _mm512_maskz_loadu_ps(mask, threshold + i);
        word |= (uint64_t)_mm512_mask_cmp_ps_mask(mask, v_f32x16, t_f32x16, _CMP_GT_OQ) << i;
    }
    return word;
}

BITOPS_INLINE uint64_t above_f32(const float *x, const float *threshold, size_t n,
                                 nan_flags *flags) {
    uint64_t word = 0;
    for (size_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = low_bits16(n - i);
        const __m512 v_f32x16 = _mm512_maskz_loadu_ps(mask, x + i);
        const __m512 t_f32x16 = _mm512_maskz_loadu_ps(mask, threshold + i);
        word |= (uint64_t)_mm512_mask_cmp_ps_mask(mask, v_f32x16, t_f32x16, _CMP_GT_OQ) << i;
        *flags |= _mm512_cmp_ps_mask(v_f32x16, v_f32x16, _CMP_UNORD_Q);
    }
    return word;
}

DEFINE_COMPARE(avx512, compare_i32, int32_t, above_i32)
DEFINE_COMPARE(avx512, compare_f32, float, above_f32)

/* ---- unpack -------------------------------------------------------------------------------- */

void bitops_unpack_i8_avx512(const uint64_t *words, size_t n, int8_t *x_out) {
    const __m512i minus_i8x64 = _mm512_set1_epi8(-1), plus_i8x64 = _mm512_set1_epi8(1);
    for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, x_out += BITOPS_WORD_BITS)
        _mm512_storeu_si512(x_out, _mm512_mask_blend_epi8(*words++, minus_i8x64, plus_i8x64));
    if (n)
        _mm512_mask_storeu_epi8(x_out, low_bits64(n),
                                _mm512_mask_blend_epi8(*words, minus_i8x64, plus_i8x64));
}

void bitops_unpack_f32_avx512(const uint64_t *words, size_t n, float *x_out) {
    const __m512 minus_f32x16 = _mm512_set1_ps(-1), plus_f32x16 = _mm512_set1_ps(1);
    for (size_t i = 0; i < n; i += LANES) {
        const __mmask16 bits = (__mmask16)(words[i / BITOPS_WORD_BITS] >> i % BITOPS_WORD_BITS);
        _mm512_mask_storeu_ps(x_out + i, low_bits16(n - i),
                              _mm512_mask_blend_ps(bits, minus_f32x16, plus_f32x16));
    }
}

/* ---- popcount ------------------------------------------------------------------------------ */

BITOPS_INLINE int64_t count_words(const uint64_t *words, size_t n_words) {
    /* Four sums, because an addition to a single one would wait for the one before it. */
    __m512i sums_u64x8[4];
    for (int i = 0; i < 4; i++)
        sums_u64x8[i] = _mm512_setzero_si512();
    for (; n_words >= 4 * ZMM_WORDS; n_words -= 4 * ZMM_WORDS, words += 4 * ZMM_WORDS) {
        BITOPS_UNROLL
        for (int i = 0; i < 4; i++) {
            const __m512i v_u64x8 = _mm512_loadu_si512(words + i * ZMM_WORDS);
            sums_u64x8[i] = _mm512_add_epi64(sums_u64x8[i], _mm512_popcnt_epi64(v_u64x8));
        }
    }
    for (size_t i = 0; i < n_words; i += ZMM_WORDS) {
        const __m512i v_u64x8 = _mm512_maskz_loadu_epi64(low_bits8(n_words - i), words + i);
        sums_u64x8[0] = _mm512_add_epi64(sums_u64x8[0], _mm512_popcnt_epi64(v_u64x8));
    }
    const __m512i sum_u64x8 = _mm512_add_epi64(_mm512_add_epi64(sums_u64x8[0], sums_u64x8[1]),
                                               _mm512_add_epi64(sums_u64x8[2], sums_u64x8[3]));
    return _mm512_reduce_add_epi64(sum_u64x8);
}

/* Rows of 1, 2 or 4 words, eight at a time: the counts of words are added in pairs. */
BITOPS_INLINE void count_short(const uint64_t *words, size_t rows, const size_t n_words,
                               int64_t *count_out) {
    const __m512i even_u64x8 = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i odd_u64x8 = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    for (size_t row = 0; row < rows; row += ZMM_WORDS) {
        const size_t some = rows - row < ZMM_WORDS ? rows - row : ZMM_WORDS;
        __m512i counts_u64x8[4];
        BITOPS_UNROLL
        for (size_t i = 0; i < n_words; i++) {
            const size_t first = i * ZMM_WORDS, all = some * n_words;
            const __mmask8 mask = low_bits8(all > first ? all - first : 0);
            const uint64_t *from = words + row * n_words + first;
            counts_u64x8[i] = _mm512_popcnt_epi64(_mm512_maskz_loadu_epi64(mask, from));
        }
        BITOPS_UNROLL
        for (size_t n = n_words; n > 1; n /= 2)
            BITOPS_UNROLL
        for (size_t i = 0; i < n / 2; i++) {
            const __m512i a = counts_u64x8[2 * i], b = counts_u64x8[2 * i + 1];
            counts_u64x8[i] = _mm512_add_epi64(_mm512_permutex2var_epi64(a, even_u64x8, b),
                                               _mm512_permutex2var_epi64(a, odd_u64x8, b));
        }
        _mm512_mask_storeu_epi64(count_out + row, low_bits8(some), counts_u64x8[0]);
    }
}

void bitops_popcount_avx512(const uint64_t *words, size_t rows, size_t n_words,
                            int64_t *count_out) {
    if (n_words == 1)
        count_short(words, rows, 1, count_out);
    else if (n_words == 2)
        count_short(words, rows, 2, count_out);
    else if (n_words == 4)
        count_short(words, rows, 4, count_out);
    else if (n_words <= ZMM_WORDS) {
        const __mmask8 mask = low_bits8(n_words);
        for (size_t row = 0; row < rows; row++) {
            const __m512i v_u64x8 = _mm512_maskz_loadu_epi64(mask, words + row * n_words);
            count_out[row] = _mm512_reduce_add_epi64(_mm512_popcnt_epi64(v_u64x8));
        }
    } else
        for (size_t row = 0; row < rows; row++)
            count_out[row] = count_words(words + row * n_words, n_words);
}

void bitops_popcount_columns_avx512(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                    int64_t *count_out) {
    count_columns(words, ld, rows, n_words, count_out);
}

void bitops_majority_columns_avx512(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                    uint64_t least, uint64_t *words_out) {
    reach_columns(words, ld, rows, n_words, least, words_out);
}

/* ---- moves --------------------------------------------------------------------------------- */

/* Bytes with their bits in reverse order: their halves are looked up. */
BITOPS_INLINE __m512i mirror_octets(__m512i v_u8x64) {
    const __m512i low_u8x64 = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0x00, (char)0x80, 0x40, (char)0xc0, 0x20, (char)0xa0, 0x60, (char)0xe0, 0x10,
                      (char)0x90, 0x50, (char)0xd0, 0x30, (char)0xb0, 0x70, (char)0xf0));
    const __m512i high_u8x64 =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15));
    const __m512i half_u8x64 = _mm512_set1_epi8(15);
    return _mm512_or_si512(
        _mm512_shuffle_epi8(low_u8x64, _mm512_and_si512(v_u8x64, half_u8x64)),
        _mm512_shuffle_epi8(high_u8x64,
                            _mm512_and_si512(_mm512_srli_epi16(v_u8x64, 4), half_u8x64)));
}

/* mirror_words for up to eight words, those that mask has; `reversed` is a constant. */
BITOPS_INLINE __m512i mirror_block(const uint64_t *words, __mmask8 mask, size_t shift,
                                   const int reversed) {
    const __m512i bytes_u8x64 =
        _mm512_broadcast_i32x4(_mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8));
    const __m512i order_u64x8 = _mm512_setr_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    __m512i v_u64x8 = _mm512_maskz_loadu_epi64(mask, words);
    if (shift) {
        const __m128i right = _mm_cvtsi32_si128((int)shift),
                      left = _mm_cvtsi32_si128(64 - (int)shift);
        v_u64x8 =
            _mm512_or_si512(_mm512_srl_epi64(v_u64x8, right),
                            _mm512_sll_epi64(_mm512_maskz_loadu_epi64(mask, words + 1), left));
    }
    v_u64x8 = mirror_octets(_mm512_shuffle_epi8(v_u64x8, bytes_u8x64));
    return reversed ? _mm512_permutexvar_epi64(order_u64x8, v_u64x8) : v_u64x8;
}

BITOPS_INLINE void mirror_all(const uint64_t *words, size_t n, size_t shift, const int reversed,
                              int past_caches, uint64_t *words_out) {
    size_t some = past_caches ? words_to_line(words_out, n) : 0; /* before the first block */
    for (size_t i = 0; i < n; i += some, some = 0) {
        if (some == 0)
            some = n - i < ZMM_WORDS ? n - i : ZMM_WORDS;
        const size_t unused = ZMM_WORDS - some; /* lanes, of which those in front are reversed */
        const uint64_t *from = reversed ? words + n - i - ZMM_WORDS : words + i;
        const __mmask8 mask = low_bits8(some);
        const __m512i v_u64x8 =
            mirror_block(from, reversed ? (__mmask8)(mask << unused) : mask, shift, reversed);
        BITOPS_PREFETCH(reversed ? from - BLOCK_AHEAD : from + BLOCK_AHEAD);
        if (past_caches && some == ZMM_WORDS)
            _mm512_stream_si512((void *)(words_out + i), v_u64x8);
        else
            _mm512_mask_storeu_epi64(words_out + i, mask, v_u64x8);
    }
}

void bitops_mirror_words_avx512(const uint64_t *words, size_t n, size_t shift, int reversed,
                                int past_caches, uint64_t *words_out) {
    if (reversed)
        mirror_all(words, n, shift, 1, past_caches, words_out);
    else
        mirror_all(words, n, shift, 0, past_caches, words_out);
}

void bitops_shift_words_avx512(const uint64_t *words, size_t n, size_t shift, int past_caches,
                               uint64_t *words_out) {
    shift_row(words, n, shift, past_caches, words_out);
}

void bitops_roll_rows_avx512(const uint64_t *words, size_t rows, size_t n, size_t cut,
                             int past_caches, uint64_t *words_out) {
    roll_short_rows(words, rows, n, cut, past_caches, words_out);
}

/* ---- depthwise ----------------------------------------------------------------------------- */

typedef __m512i bit_vector;

/* A word of a plane is the mask of the 64 counts that it adds to. Masks are loaded from memory,
 * lest the compiler take vectors apart. */
BITOPS_INLINE void spread_planes(const bit_vector *planes, int levels, uint8_t *count_out) {
    const __m512i ones_u8x64 = _mm512_set1_epi8(1);
    uint64_t words[8][ZMM_WORDS];
    for (int level = 0; level < levels; level++)
        _mm512_storeu_si512(words[level], planes[level]);
    BITOPS_IN_MEMORY(words);
    BITOPS_UNROLL
    for (int j = 0; j < ZMM_WORDS; j++) {
        __m512i count_u8x64 = _mm512_maskz_mov_epi8(words[0][j], ones_u8x64);
        BITOPS_UNROLL
        for (int level = 1; level < levels; level++)
            count_u8x64 = _mm512_mask_add_epi8(count_u8x64, words[level][j], count_u8x64,
                                               _mm512_set1_epi8((char)(1 << level)));
        _mm512_storeu_si512(count_out + j * BITOPS_WORD_BITS, count_u8x64);
    }
}

BITOPS_INLINE bit_vector majority(bit_vector a, bit_vector b, bit_vector c) {
    enum { MAJORITY = 0xe8 };
    return _mm512_ternarylogic_epi64(a, b, c, MAJORITY);
}

BITOPS_INLINE uint64_t counts_below(const uint8_t *count, const uint8_t *limit) {
    return _mm512_cmplt_epu8_mask(_mm512_loadu_si512(count), _mm512_loadu_si512(limit));
}

#include "isa/shared/depthwise.h"

void bitops_count_taps_avx512(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                              size_t n_taps, size_t n_words, uint8_t *count_out) {
    count_taps(taps, w, ldw, n_taps, n_words, count_out);
}

void bitops_dot_taps_avx512(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                            size_t n_taps, size_t n, int32_t k, int32_t *dot_out) {
    dot_taps(taps, w, ldw, n_taps, n, k, dot_out);
}

/* store_counts for numbers; kind is a constant at every call. */
BITOPS_INLINE void store_numbers(const bitops_store_kind kind, const uint8_t *count, size_t rows,
                                 size_t n, size_t row, size_t col, const bitops_store *store) {
    const bitops_store own = *store; /* stores to c cannot change it */
    const __mmask16 last = low_bits16((n - 1) % LANES + 1);
    const size_t ahead = own.ldc == n ? AHEAD : own.ldc * sizeof(int32_t);
    for (size_t i = row; i < row + rows; i++, count += n) {
        const int32_t *offset = store_offset(&own, i);
        const char *next = (const char *)((int32_t *)own.c + i * own.ldc + col) + ahead;
        size_t j = 0;
        for (; j + LANES < n; j += LANES) {
            __builtin_prefetch(next + j * sizeof(int32_t), 1, 3);
            const __m128i count_u8x16 = _mm_loadu_si128((const __m128i *)(count + j));
            store_lanes(kind, _mm512_cvtepu8_epi32(count_u8x16), 0xffff, i, col + j, offset, &own);
        }
        __builtin_prefetch(next + j * sizeof(int32_t), 1, 3);
        const __m128i count_u8x16 = _mm_maskz_loadu_epi8(last, count + j);
        store_lanes(kind, _mm512_cvtepu8_epi32(count_u8x16), last, i, col + j, offset, &own);
    }
}

/* store_common_counts of depthwise.h, in vectors. */
BITOPS_INLINE void store_common_lanes(const uint8_t *common, size_t n, size_t row, size_t col,
                                      const bitops_store *store) {
    const __m512i a_i32x16 = _mm512_set1_epi32(store->a_counts[row]);
    for (size_t j = 0; j < n; j += LANES) {
        const __mmask16 mask = low_bits16(n - j);
        const __m512i common_i32x16 = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, common + j));
        const __m512i sum_i32x16 =
            _mm512_add_epi32(a_i32x16, _mm512_maskz_loadu_epi32(mask, store->w_counts + col + j));
        const __m512i mismatches_i32x16 =
            _mm512_sub_epi32(_mm512_sub_epi32(sum_i32x16, common_i32x16), common_i32x16);
        store_set_lanes(mismatches_i32x16, mask, row, col + j, store);
    }
}

void bitops_store_counts_avx512(const uint8_t *count, size_t rows, size_t n, size_t row, size_t col,
                                const bitops_store *store) {
    BITOPS_ASSUME(n > 0);
    if (store->kind == BITOPS_STORE_DOT)
        store_numbers(BITOPS_STORE_DOT, count, rows, n, row, col, store);
    else if (store->kind == BITOPS_STORE_SCALED)
        store_numbers(BITOPS_STORE_SCALED, count, rows, n, row, col, store);
    else if (store->kind == BITOPS_STORE_TOPK)
        for (size_t i = 0; i < rows; i++)
            store_common_lanes(count + i * n, n, row + i, col, store);
    else
        store_counts(count, rows, n, row, col, store);
}

/* ---- sums and means ------------------------------------------------------------------------ */

typedef __m512d sum_vector;

BITOPS_INLINE sum_vector widen(const float *x) {
    return _mm512_cvtps_pd(_mm256_loadu_ps(x));
}

#include "isa/shared/sums.h"

void bitops_sum_columns_avx512(const float *x, size_t ld, size_t rows, size_t n, double *sum_out) {
    sum_columns(x, ld, rows, n, sum_out);
}

typedef __m512 float_vector;

#include "isa/shared/means.h"
#include "isa/shared/quantize.h"

void bitops_mean_windows_avx512(const bitops_windows *windows, float *mean_out) {
    mean_windows(windows, mean_out);
}

/* ---- training ------------------------------------------------------------------------------ */

int bitops_adam_avx512(const bitops_adam_args *args, const float *g, size_t first, size_t n) {
    return adam_update(args, g, first, n);
}

DEFINE_NORM(avx512)
DEFINE_PRELU(avx512)
DEFINE_QUANTIZE(avx512)

/* ---- numbers --------------------------------------------------------------------------------- */

DEFINE_FLOATS(avx512)
DEFINE_TURN(avx512)

BITOPS_TARGET_END

#endif
