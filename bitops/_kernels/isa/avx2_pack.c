/* avx2_pack.c: what passes over arrays once: pack, compare, unpack, popcount and Adam; AVX2,
 * POPCNT.
 *
 * A word is made of the sign bits of 64 integers, or of compares where zeros and NaN decide: of
 * floats, of bool8. There is no vector popcount: pshufb looks up the bits of nibbles (avx2.h).
 *
 *   intrinsic              instruction   for each word
 *   _mm256_cmp_ps          vcmpps        16 (float32): 8 with 0, 8 with themselves, for NaN
 *   _mm256_movemask_ps     vmovmskps     8 (int32, float32)
 *   _mm256_movemask_pd     vmovmskpd     16 (int64, float64)
 *   _mm256_movemask_epi8   vpmovmskb     2 (bool8, int8, and int16 after vpacksswb)
 *   _mm256_shuffle_epi8    vpshufb       2 (unpack to int8); 2 for four words (popcount)
 *   _mm256_sad_epu8        vpsadbw       1 for four words (popcount)
 * Bottleneck: memory; README.md has the shares of its speed.
 *
 * Overflow: bytes count at most 8 and are summed at once, in 64-bit lanes. Tails: pack copies them
 * to a whole word of values, compare and popcount take them one by one, unpack leaves them to
 * generic. */
#include "operations.h"
#include "isa/shared/adam_step.h"
#include "isa/shared/floats.h"
#include "isa/shared/norm.h"
#include "isa/shared/avx2.h"
#include "isa/shared/mirror.h"
#include "isa/shared/pack.h"
#include "isa/shared/prelu.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"
#include "isa/shared/turn.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,prfchw")

enum { BLOCK_WORDS = YMM_WORDS };

#include "isa/shared/columns.h"
#include "isa/shared/roll.h"

/* ---- pack ---------------------------------------------------------------------------------- */

BITOPS_INLINE uint32_t negative8(__m256i v_i8x32) {
    return (uint32_t)_mm256_movemask_epi8(v_i8x32);
}

typedef __m256 nan_flags; /* ones in a lane that was NaN in some vector */

BITOPS_INLINE nan_flags nan_none(void) {
    return _mm256_setzero_ps();
}

BITOPS_INLINE int nan_met(nan_flags flags) {
    return _mm256_movemask_ps(flags) != 0;
}

/* Signs of 64 elements. */

BITOPS_INLINE uint64_t signs_bool8(const uint8_t *x, nan_flags *flags) {
    (void)flags;
    const __m256i zero_u8x32 = _mm256_setzero_si256();
    const uint64_t low = negative8(_mm256_cmpeq_epi8(load(x), zero_u8x32));
    const uint64_t high = negative8(_mm256_cmpeq_epi8(load(x + 32), zero_u8x32));
    return ~(low | high << 32);
}

BITOPS_INLINE uint64_t signs_i8(const int8_t *x, nan_flags *flags) {
    (void)flags;
    return ~(negative8(load(x)) | (uint64_t)negative8(load(x + 32)) << 32);
}

BITOPS_INLINE uint64_t signs_i16(const int16_t *x, nan_flags *flags) {
    (void)flags;
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        /* Saturation keeps the sign; the permutation undoes the interleaving of 128-bit halves. */
        const __m256i v_i8x32 = _mm256_packs_epi16(load(x + 32 * i), load(x + 32 * i + 16));
        negative |= (uint64_t)negative8(_mm256_permute4x64_epi64(v_i8x32, 0xd8)) << 32 * i;
    }
    return ~negative;
}

BITOPS_INLINE uint64_t signs_i32(const int32_t *x, nan_flags *flags) {
    (void)flags;
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 8; i++)
        negative |= (uint64_t)_mm256_movemask_ps(_mm256_castsi256_ps(load(x + 8 * i))) << 8 * i;
    return ~negative;
}

BITOPS_INLINE uint64_t signs_i64(const int64_t *x, nan_flags *flags) {
    (void)flags;
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 16; i++)
        negative |= (uint64_t)_mm256_movemask_pd(_mm256_castsi256_pd(load(x + 4 * i))) << 4 * i;
    return ~negative;
}

/* Halves as integers, negative where the number is: 0x8000, which is -0.0, becomes 0. */
BITOPS_INLINE __m256i negative_half(__m256i v_u16x16, uint16_t infinity, nan_flags *flags) {
    const __m256i magnitude_i16x16 = _mm256_and_si256(v_u16x16, _mm256_set1_epi16(0x7fff));
    const __m256i nan_i16x16 =
        _mm256_cmpgt_epi16(magnitude_i16x16, _mm256_set1_epi16((short)infinity));
    /* the flags are read from the upper halves of 32-bit lanes */
    *flags = _mm256_or_ps(*flags, _mm256_castsi256_ps(_mm256_or_si256(
                                      nan_i16x16, _mm256_slli_epi32(nan_i16x16, 16))));
    return _mm256_and_si256(v_u16x16, _mm256_cmpgt_epi16(magnitude_i16x16, _mm256_setzero_si256()));
}

BITOPS_INLINE uint64_t signs_half(const uint16_t *x, uint16_t infinity, nan_flags *flags) {
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m256i v_i8x32 =
            _mm256_packs_epi16(negative_half(load(x + 32 * i), infinity, flags),
                               negative_half(load(x + 32 * i + 16), infinity, flags));
        negative |= (uint64_t)negative8(_mm256_permute4x64_epi64(v_i8x32, 0xd8)) << 32 * i;
    }
    return ~negative;
}

BITOPS_INLINE uint64_t signs_f16(const uint16_t *x, nan_flags *flags) {
    return signs_half(x, INFINITY_F16, flags);
}

BITOPS_INLINE uint64_t signs_bf16(const uint16_t *x, nan_flags *flags) {
    return signs_half(x, INFINITY_BF16, flags);
}

/* A compare, not a move of sign bits: -0.0 is +1. */
BITOPS_INLINE uint64_t signs_f32(const float *x, nan_flags *flags) {
    uint64_t plus = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 8; i++) {
        const __m256 v_f32x8 = _mm256_loadu_ps(x + 8 * i);
        const __m256 ge_f32x8 = _mm256_cmp_ps(v_f32x8, _mm256_setzero_ps(), _CMP_GE_OQ);
        plus |= (uint64_t)_mm256_movemask_ps(ge_f32x8) << 8 * i;
        *flags = _mm256_or_ps(*flags, _mm256_cmp_ps(v_f32x8, v_f32x8, _CMP_UNORD_Q));
    }
    return plus;
}

BITOPS_INLINE uint64_t signs_f64(const double *x, nan_flags *flags) {
    uint64_t plus = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 16; i++) {
        const __m256d v_f64x4 = _mm256_loadu_pd(x + 4 * i);
        const __m256d ge_f64x4 = _mm256_cmp_pd(v_f64x4, _mm256_setzero_pd(), _CMP_GE_OQ);
        plus |= (uint64_t)_mm256_movemask_pd(ge_f64x4) << 4 * i;
        const __m256d unordered_f64x4 = _mm256_cmp_pd(v_f64x4, v_f64x4, _CMP_UNORD_Q);
        *flags = _mm256_or_ps(*flags, _mm256_castpd_ps(unordered_f64x4));
    }
    return plus;
}

DEFINE_PADDED_SIGNS(padded_bool8, uint8_t, signs_bool8)
DEFINE_PADDED_SIGNS(padded_i8, int8_t, signs_i8)
DEFINE_PADDED_SIGNS(padded_i16, int16_t, signs_i16)
DEFINE_PADDED_SIGNS(padded_i32, int32_t, signs_i32)
DEFINE_PADDED_SIGNS(padded_i64, int64_t, signs_i64)
DEFINE_PADDED_SIGNS(padded_f16, uint16_t, signs_f16)
DEFINE_PADDED_SIGNS(padded_bf16, uint16_t, signs_bf16)
DEFINE_PADDED_SIGNS(padded_f32, float, signs_f32)
DEFINE_PADDED_SIGNS(padded_f64, double, signs_f64)

DEFINE_PACK(avx2, pack_bool8, uint8_t, padded_bool8)
DEFINE_PACK(avx2, pack_i8, int8_t, padded_i8)
DEFINE_PACK(avx2, pack_i16, int16_t, padded_i16)
DEFINE_PACK(avx2, pack_i32, int32_t, padded_i32)
DEFINE_PACK(avx2, pack_i64, int64_t, padded_i64)
DEFINE_PACK(avx2, pack_f16, uint16_t, padded_f16)
DEFINE_PACK(avx2, pack_bf16, uint16_t, padded_bf16)
DEFINE_PACK(avx2, pack_f32, float, padded_f32)
DEFINE_PACK(avx2, pack_f64, double, padded_f64)

/* ---- compare ------------------------------------------------------------------------------- */

/* Bits x > threshold of 8 elements. */
BITOPS_INLINE uint64_t above8(__m256 x_f32x8, __m256 threshold_f32x8) {
    return (uint64_t)_mm256_movemask_ps(_mm256_cmp_ps(x_f32x8, threshold_f32x8, _CMP_GT_OQ));
}

/* The last elements, fewer than 8, one by one. */

BITOPS_INLINE uint64_t above_i32(const int32_t *x, const float *threshold, size_t n,
                                 nan_flags *flags) {
    (void)flags;
    uint64_t word = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        word |= above8(_mm256_cvtepi32_ps(load(x + i)), _mm256_loadu_ps(threshold + i)) << i;
    for (; i < n; i++)
        word |= (uint64_t)((float)x[i] > threshold[i]) << i;
    return word;
}

BITOPS_INLINE uint64_t above_f32(const float *x, const float *threshold, size_t n,
                                 nan_flags *flags) {
    uint64_t word = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v_f32x8 = _mm256_loadu_ps(x + i);
        word |= above8(v_f32x8, _mm256_loadu_ps(threshold + i)) << i;
        *flags = _mm256_or_ps(*flags, _mm256_cmp_ps(v_f32x8, v_f32x8, _CMP_UNORD_Q));
    }
    for (; i < n; i++) {
        const __m256 v_f32x8 = _mm256_set1_ps(x[i]);
        word |= (uint64_t)(x[i] > threshold[i]) << i;
        *flags = _mm256_or_ps(*flags, _mm256_cmp_ps(v_f32x8, v_f32x8, _CMP_UNORD_Q));
    }
    return word;
}

DEFINE_COMPARE(avx2, compare_i32, int32_t, above_i32)
DEFINE_COMPARE(avx2, compare_f32, float, above_f32)

/* ---- unpack -------------------------------------------------------------------------------- */

/* For each of the lowest 32 bits a byte, 0 where the bit is set, else -1: byte i takes byte i / 8
 * of the bits, then bit i % 8 of that. */
BITOPS_INLINE __m256i zero_bits(uint64_t bits) {
    const __m256i byte_of_u8x32 = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                                   2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit_of_u8x32 = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const __m256i bits_u8x32 = _mm256_set1_epi32((int)(uint32_t)bits);
    const __m256i own_u8x32 =
        _mm256_and_si256(_mm256_shuffle_epi8(bits_u8x32, byte_of_u8x32), bit_of_u8x32);
    return _mm256_cmpeq_epi8(own_u8x32, _mm256_setzero_si256());
}

void bitops_unpack_i8_avx2(const uint64_t *words, size_t n, int8_t *x_out) {
    for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, words++, x_out += BITOPS_WORD_BITS) {
        BITOPS_UNROLL
        for (int i = 0; i < 2; i++) {
            const __m256i v_i8x32 =
                _mm256_or_si256(zero_bits(*words >> 32 * i), _mm256_set1_epi8(1));
            _mm256_storeu_si256((__m256i *)(x_out + 32 * i), v_i8x32);
        }
    }
    bitops_unpack_i8_generic(words, n, x_out);
}

void bitops_unpack_f32_avx2(const uint64_t *words, size_t n, float *x_out) {
    const __m256i bit_of_u32x8 = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i one_u32x8 = _mm256_castps_si256(_mm256_set1_ps(1.0f));
    const __m256i sign_u32x8 = _mm256_castps_si256(_mm256_set1_ps(-0.0f));
    for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, words++, x_out += BITOPS_WORD_BITS) {
        BITOPS_UNROLL
        for (int i = 0; i < 8; i++) {
            const __m256i bits_u32x8 = _mm256_set1_epi32((int)(*words >> 8 * i & 0xff));
            const __m256i zero_u32x8 = _mm256_cmpeq_epi32(
                _mm256_and_si256(bits_u32x8, bit_of_u32x8), _mm256_setzero_si256());
            const __m256i v_u32x8 =
                _mm256_or_si256(one_u32x8, _mm256_and_si256(zero_u32x8, sign_u32x8));
            _mm256_storeu_ps(x_out + 8 * i, _mm256_castsi256_ps(v_u32x8));
        }
    }
    bitops_unpack_f32_generic(words, n, x_out);
}

/* ---- popcount ------------------------------------------------------------------------------ */

BITOPS_INLINE int64_t count_words(const uint64_t *words, size_t n_words) {
    __m256i sum_u64x4 = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + YMM_WORDS <= n_words; i += YMM_WORDS)
        sum_u64x4 = _mm256_add_epi64(sum_u64x4, sum_bytes(popcount_bytes(load(words + i))));
    uint64_t count = sum_lanes(sum_u64x4);
    for (; i < n_words; i++)
        count += (uint64_t)_mm_popcnt_u64(words[i]);
    return (int64_t)count;
}

void bitops_popcount_avx2(const uint64_t *words, size_t rows, size_t n_words, int64_t *count_out) {
    for (size_t row = 0; row < rows; row++)
        count_out[row] = count_words(words + row * n_words, n_words);
}

void bitops_popcount_columns_avx2(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                  int64_t *count_out) {
    count_columns(words, ld, rows, n_words, count_out);
}

void bitops_majority_columns_avx2(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                  uint64_t least, uint64_t *words_out) {
    reach_columns(words, ld, rows, n_words, least, words_out);
}

/* ---- moves --------------------------------------------------------------------------------- */

/* Bytes with their bits in reverse order: their halves are looked up. */
BITOPS_INLINE __m256i mirror_octets(__m256i v_u8x32) {
    const __m256i low_u8x32 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0x00, (char)0x80, 0x40, (char)0xc0, 0x20, (char)0xa0, 0x60, (char)0xe0, 0x10,
                      (char)0x90, 0x50, (char)0xd0, 0x30, (char)0xb0, 0x70, (char)0xf0));
    const __m256i high_u8x32 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15));
    const __m256i half_u8x32 = _mm256_set1_epi8(15);
    return _mm256_or_si256(
        _mm256_shuffle_epi8(low_u8x32, _mm256_and_si256(v_u8x32, half_u8x32)),
        _mm256_shuffle_epi8(high_u8x32,
                            _mm256_and_si256(_mm256_srli_epi16(v_u8x32, 4), half_u8x32)));
}

/* mirror_words for four words; `reversed` is a constant. */
BITOPS_INLINE __m256i mirror_four(const uint64_t *words, size_t shift, const int reversed) {
    const __m256i bytes_u8x32 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8));
    __m256i v_u64x4 = load(words);
    if (shift) {
        const __m128i right = _mm_cvtsi32_si128((int)shift),
                      left = _mm_cvtsi32_si128(64 - (int)shift);
        v_u64x4 = _mm256_or_si256(_mm256_srl_epi64(v_u64x4, right),
                                  _mm256_sll_epi64(load(words + 1), left));
    }
    v_u64x4 = mirror_octets(_mm256_shuffle_epi8(v_u64x4, bytes_u8x32));
    enum { LAST_FIRST = 0x1b };
    return reversed ? _mm256_permute4x64_epi64(v_u64x4, LAST_FIRST) : v_u64x4;
}

BITOPS_INLINE void mirror_all(const uint64_t *words, size_t n, size_t shift, const int reversed,
                              int past_caches, uint64_t *words_out) {
    const size_t head = past_caches ? words_to_line(words_out, n) : 0; /* before whole lines */
    const size_t whole = (n - head) / BLOCK_WORDS * BLOCK_WORDS, rest = n - head - whole;
    const uint64_t *from = reversed ? words + rest : words + head; /* of what whole lines take */
    mirror_words(reversed ? words + n - head : words, head, shift, reversed, words_out);
    for (size_t i = 0; i < whole; i += YMM_WORDS) {
        const uint64_t *own = reversed ? from + whole - i - YMM_WORDS : from + i;
        const __m256i v_u64x4 = mirror_four(own, shift, reversed);
        BITOPS_PREFETCH(reversed ? own - BLOCK_AHEAD : own + BLOCK_AHEAD);
        if (past_caches)
            _mm256_stream_si256((__m256i *)(words_out + head + i), v_u64x4);
        else
            _mm256_storeu_si256((__m256i *)(words_out + head + i), v_u64x4);
    }
    mirror_words(reversed ? words : words + head + whole, rest, shift, reversed,
                 words_out + head + whole);
}

void bitops_mirror_words_avx2(const uint64_t *words, size_t n, size_t shift, int reversed,
                              int past_caches, uint64_t *words_out) {
    if (reversed)
        mirror_all(words, n, shift, 1, past_caches, words_out);
    else
        mirror_all(words, n, shift, 0, past_caches, words_out);
}

void bitops_shift_words_avx2(const uint64_t *words, size_t n, size_t shift, int past_caches,
                             uint64_t *words_out) {
    shift_row(words, n, shift, past_caches, words_out);
}

void bitops_roll_rows_avx2(const uint64_t *words, size_t rows, size_t n, size_t cut,
                           int past_caches, uint64_t *words_out) {
    roll_short_rows(words, rows, n, cut, past_caches, words_out);
}

/* ---- depthwise ----------------------------------------------------------------------------- */

typedef __m256i bit_vector;

BITOPS_INLINE void spread_planes(const bit_vector *planes, int levels, uint8_t *count_out) {
    uint32_t halves[8][2 * YMM_WORDS];
    for (int level = 0; level < levels; level++)
        _mm256_storeu_si256((__m256i *)halves[level], planes[level]);
    for (int j = 0; j < 2 * YMM_WORDS; j++) {
        __m256i count_u8x32 = _mm256_setzero_si256();
        BITOPS_UNROLL
        for (int level = 0; level < levels; level++) {
            const __m256i weight_u8x32 = _mm256_set1_epi8((char)(1 << level));
            count_u8x32 = _mm256_or_si256(
                count_u8x32, _mm256_andnot_si256(zero_bits(halves[level][j]), weight_u8x32));
        }
        _mm256_storeu_si256((__m256i *)(count_out + 32 * j), count_u8x32);
    }
}

BITOPS_INLINE bit_vector majority(bit_vector a, bit_vector b, bit_vector c) {
    return (a & b) | ((a | b) & c);
}

BITOPS_INLINE uint64_t counts_below(const uint8_t *count, const uint8_t *limit) {
    uint64_t word = 0;
    BITOPS_UNROLL
    for (int j = 0; j < 64; j += 32) {
        const __m256i c_u8x32 = _mm256_loadu_si256((const __m256i *)(count + j));
        const __m256i l_u8x32 = _mm256_loadu_si256((const __m256i *)(limit + j));
        const __m256i not_u8x32 = _mm256_cmpeq_epi8(_mm256_max_epu8(c_u8x32, l_u8x32), c_u8x32);
        word |= (uint64_t) ~(uint32_t)_mm256_movemask_epi8(not_u8x32) << j;
    }
    return word;
}

#include "isa/shared/depthwise.h"

void bitops_count_taps_avx2(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                            size_t n_taps, size_t n_words, uint8_t *count_out) {
    count_taps(taps, w, ldw, n_taps, n_words, count_out);
}

void bitops_dot_taps_avx2(const uint8_t *const *taps, const uint64_t *w, size_t ldw, size_t n_taps,
                          size_t n, int32_t k, int32_t *dot_out) {
    dot_taps(taps, w, ldw, n_taps, n, k, dot_out);
}

void bitops_store_counts_avx2(const uint8_t *count, size_t rows, size_t n, size_t row, size_t col,
                              const bitops_store *store) {
    store_counts(count, rows, n, row, col, store);
}

/* ---- sums and means ------------------------------------------------------------------------ */

typedef __m256d sum_vector;

BITOPS_INLINE sum_vector widen(const float *x) {
    return _mm256_cvtps_pd(_mm_loadu_ps(x));
}

#include "isa/shared/sums.h"

void bitops_sum_columns_avx2(const float *x, size_t ld, size_t rows, size_t n, double *sum_out) {
    sum_columns(x, ld, rows, n, sum_out);
}

typedef __m256 float_vector;

#include "isa/shared/means.h"
#include "isa/shared/quantize.h"

void bitops_mean_windows_avx2(const bitops_windows *windows, float *mean_out) {
    mean_windows(windows, mean_out);
}

/* ---- training ------------------------------------------------------------------------------ */

int bitops_adam_avx2(const bitops_adam_args *args, const float *g, size_t first, size_t n) {
    return adam_update(args, g, first, n);
}

DEFINE_NORM(avx2)
DEFINE_PRELU(avx2)
DEFINE_QUANTIZE(avx2)

/* ---- numbers --------------------------------------------------------------------------------- */

DEFINE_FLOATS(avx2)
DEFINE_TURN(avx2)

BITOPS_TARGET_END

#endif
