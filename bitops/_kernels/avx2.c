/* avx2.c: AVX2, BMI2, POPCNT.
 *
 * Product: there is no vector popcount, so mismatches are looked up. A nibble of a row selects one
 * of 16 tables with 16 entries of a byte, popcount(row nibble ^ entry), and pshufb looks the same
 * nibble of 32 columns up in it at once.
 *
 *   intrinsic                        instruction     Skylake and later   Zen 3, 4
 *   _mm256_shuffle_epi8              vpshufb         latency 1, p5       1, two per cycle
 *   _mm256_add_epi8                  vpaddb          latency 1, p015     1, four per cycle
 *   _mm256_broadcastsi128 (memory)   vbroadcasti128  load ports only     load ports only
 * Bottleneck: the shuffle, two for 8 bits of 32 columns.
 *
 * Panel of 32 columns: for every byte of k (least significant first), that byte of each column, so
 * that one ymm is one byte of all the columns.
 *
 * Overflow: 8-bit counters grow by at most 64 a word and are emptied into 16-bit counters every
 * 3 words (192 <= 255); those hold 64 * 1023 = 65472 <= 65535, so k_words <= 1023. The driver cuts
 * k into much shorter slices. Tails: portable code for pack; k is made of whole words. */
#include "bitops.h"
#include "columns.h"
#include "store.h"
#include "target.h"

#if defined(__x86_64__) || defined(_M_X64)

#include <immintrin.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt")

enum { MR = 4, NR = 32, YMM_WORDS = 4, FLUSH_WORDS = 3, MAX_WORDS = 1023 };

/* ---- pack, unpack, popcount ---------------------------------------------------------------- */

BITOPS_INLINE uint32_t negative8(__m256i v) {
    return (uint32_t)_mm256_movemask_epi8(v);
}

BITOPS_INLINE __m256i load(const void *x) {
    return _mm256_loadu_si256((const __m256i *)x);
}

/* Signs of 64 elements. */

BITOPS_INLINE uint64_t signs_bool8(const uint8_t *x, int *nan) {
    (void)nan;
    const __m256i zero = _mm256_setzero_si256();
    const uint64_t low = negative8(_mm256_cmpeq_epi8(load(x), zero));
    const uint64_t high = negative8(_mm256_cmpeq_epi8(load(x + 32), zero));
    return ~(low | high << 32);
}

BITOPS_INLINE uint64_t signs_i8(const int8_t *x, int *nan) {
    (void)nan;
    return ~(negative8(load(x)) | (uint64_t)negative8(load(x + 32)) << 32);
}

BITOPS_INLINE uint64_t signs_i16(const int16_t *x, int *nan) {
    (void)nan;
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        /* Saturation keeps the sign; the permutation undoes the interleaving of 128-bit halves. */
        const __m256i v = _mm256_packs_epi16(load(x + 32 * i), load(x + 32 * i + 16));
        negative |= (uint64_t)negative8(_mm256_permute4x64_epi64(v, 0xd8)) << 32 * i;
    }
    return ~negative;
}

BITOPS_INLINE uint64_t signs_i32(const int32_t *x, int *nan) {
    (void)nan;
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 8; i++)
        negative |= (uint64_t)_mm256_movemask_ps(_mm256_castsi256_ps(load(x + 8 * i))) << 8 * i;
    return ~negative;
}

BITOPS_INLINE uint64_t signs_i64(const int64_t *x, int *nan) {
    (void)nan;
    uint64_t negative = 0;
    BITOPS_UNROLL
    for (int i = 0; i < 16; i++)
        negative |= (uint64_t)_mm256_movemask_pd(_mm256_castsi256_pd(load(x + 4 * i))) << 4 * i;
    return ~negative;
}

/* A compare, not a move of sign bits: -0.0 is +1. */
BITOPS_INLINE uint64_t signs_f32(const float *x, int *nan) {
    uint64_t plus = 0;
    __m256 unordered = _mm256_setzero_ps();
    BITOPS_UNROLL
    for (int i = 0; i < 8; i++) {
        const __m256 v = _mm256_loadu_ps(x + 8 * i);
        const __m256 ge = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GE_OQ);
        plus |= (uint64_t)_mm256_movemask_ps(ge) << 8 * i;
        unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    }
    *nan |= _mm256_movemask_ps(unordered);
    return plus;
}

BITOPS_INLINE uint64_t signs_f64(const double *x, int *nan) {
    uint64_t plus = 0;
    __m256d unordered = _mm256_setzero_pd();
    BITOPS_UNROLL
    for (int i = 0; i < 16; i++) {
        const __m256d v = _mm256_loadu_pd(x + 4 * i);
        const __m256d ge = _mm256_cmp_pd(v, _mm256_setzero_pd(), _CMP_GE_OQ);
        plus |= (uint64_t)_mm256_movemask_pd(ge) << 4 * i;
        unordered = _mm256_or_pd(unordered, _mm256_cmp_pd(v, v, _CMP_UNORD_Q));
    }
    *nan |= _mm256_movemask_pd(unordered);
    return plus;
}

#define DEFINE_PACK(op, type, signs)                                                               \
    void bitops_##op##_avx2(const type *x, size_t n, uint64_t *words_out, int *nan) {              \
        int found = 0;                                                                             \
        for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, x += BITOPS_WORD_BITS)                \
            *words_out++ = signs(x, &found);                                                       \
        if (n)                                                                                     \
            bitops_##op##_generic(x, n, words_out, &found);                                        \
        if (found)                                                                                 \
            *nan = 1;                                                                              \
    }

DEFINE_PACK(pack_bool8, uint8_t, signs_bool8)
DEFINE_PACK(pack_i8, int8_t, signs_i8)
DEFINE_PACK(pack_i16, int16_t, signs_i16)
DEFINE_PACK(pack_i32, int32_t, signs_i32)
DEFINE_PACK(pack_i64, int64_t, signs_i64)
DEFINE_PACK(pack_f32, float, signs_f32)
DEFINE_PACK(pack_f64, double, signs_f64)

void bitops_unpack_i8_avx2(const uint64_t *words, size_t n, int8_t *x_out) {
    /* Byte i takes byte i / 8 of the 32 bits, then bit i % 8 of that. */
    const __m256i byte_of = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2,
                                             2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit_of = _mm256_set1_epi64x((long long)0x8040201008040201u);
    for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, words++, x_out += BITOPS_WORD_BITS)
        BITOPS_UNROLL
    for (int i = 0; i < 2; i++) {
        const __m256i bits = _mm256_set1_epi32((int)(uint32_t)(*words >> 32 * i));
        const __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(bits, byte_of), bit_of);
        const __m256i zero = _mm256_cmpeq_epi8(bytes, _mm256_setzero_si256()); /* 0 or -1 */
        const __m256i v = _mm256_or_si256(zero, _mm256_set1_epi8(1));
        _mm256_storeu_si256((__m256i *)(x_out + 32 * i), v);
    }
    bitops_unpack_i8_generic(words, n, x_out);
}

void bitops_unpack_f32_avx2(const uint64_t *words, size_t n, float *x_out) {
    const __m256i bit_of = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i one = _mm256_castps_si256(_mm256_set1_ps(1.0f));
    const __m256i sign = _mm256_castps_si256(_mm256_set1_ps(-0.0f));
    for (; n >= BITOPS_WORD_BITS; n -= BITOPS_WORD_BITS, words++, x_out += BITOPS_WORD_BITS)
        BITOPS_UNROLL
    for (int i = 0; i < 8; i++) {
        const __m256i bits = _mm256_set1_epi32((int)(*words >> 8 * i & 0xff));
        const __m256i zero =
            _mm256_cmpeq_epi32(_mm256_and_si256(bits, bit_of), _mm256_setzero_si256());
        const __m256i v = _mm256_or_si256(one, _mm256_and_si256(zero, sign));
        _mm256_storeu_ps(x_out + 8 * i, _mm256_castsi256_ps(v));
    }
    bitops_unpack_f32_generic(words, n, x_out);
}

/* Bytes of the result count the bits of the bytes of v. */
BITOPS_INLINE __m256i popcount_bytes(__m256i v) {
    const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                            2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i low = _mm256_and_si256(v, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
    return _mm256_add_epi8(_mm256_shuffle_epi8(counts, low), _mm256_shuffle_epi8(counts, high));
}

/* Sums of eight bytes each, in four 64-bit lanes. */
BITOPS_INLINE __m256i sum_bytes(__m256i v) {
    return _mm256_sad_epu8(v, _mm256_setzero_si256());
}

BITOPS_INLINE uint64_t sum_lanes(__m256i v) {
    const __m128i pair = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return (uint64_t)_mm_extract_epi64(pair, 0) + (uint64_t)_mm_extract_epi64(pair, 1);
}

BITOPS_INLINE int64_t count_words(const uint64_t *words, size_t n_words) {
    __m256i sum = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + YMM_WORDS <= n_words; i += YMM_WORDS)
        sum = _mm256_add_epi64(sum, sum_bytes(popcount_bytes(load(words + i))));
    uint64_t count = sum_lanes(sum);
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

/* ---- gemm on panels ------------------------------------------------------------------------ */

void bitops_prepack_avx2(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                         uint64_t *panel_out) {
    BITOPS_ASSUME(n <= NR);
    uint8_t *panel = (uint8_t *)panel_out;
    for (size_t p = 0; p < k_words; p++, panel += 8 * NR)
        for (size_t j = 0; j < NR; j++) {
            const uint64_t word = j < n ? w[j * ldw + p] : 0;
            for (size_t byte = 0; byte < 8; byte++)
                panel[byte * NR + j] = (uint8_t)(word >> 8 * byte);
        }
}

/* mismatch_tables[b]: the table of the low nibble of b, then that of its high nibble. */
#define COUNT(x) (((x)&1) + ((x) >> 1 & 1) + ((x) >> 2 & 1) + ((x) >> 3 & 1))
#define COUNTS4(v, e)                                                                              \
    COUNT((v) ^ (e)), COUNT((v) ^ (e + 1)), COUNT((v) ^ (e + 2)), COUNT((v) ^ (e + 3))
#define TABLE(v) COUNTS4(v, 0), COUNTS4(v, 4), COUNTS4(v, 8), COUNTS4(v, 12)
#define TABLES(low, high)                                                                          \
    { TABLE(low), TABLE(high) }
#define TABLES16(high)                                                                             \
    TABLES(0, high), TABLES(1, high), TABLES(2, high), TABLES(3, high), TABLES(4, high),           \
        TABLES(5, high), TABLES(6, high), TABLES(7, high), TABLES(8, high), TABLES(9, high),       \
        TABLES(10, high), TABLES(11, high), TABLES(12, high), TABLES(13, high), TABLES(14, high),  \
        TABLES(15, high)

static const _Alignas(64) uint8_t mismatch_tables[256][32] = {
    TABLES16(0),  TABLES16(1),  TABLES16(2),  TABLES16(3), TABLES16(4),  TABLES16(5),
    TABLES16(6),  TABLES16(7),  TABLES16(8),  TABLES16(9), TABLES16(10), TABLES16(11),
    TABLES16(12), TABLES16(13), TABLES16(14), TABLES16(15)};

BITOPS_INLINE __m256i table(const uint8_t *entries) {
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)entries));
}

/* Writes the 32 counts of 16-bit lanes (even columns, odd columns) in column order. */
BITOPS_INLINE void write_counts(__m256i even, __m256i odd, int32_t *out) {
    const __m256i low = _mm256_unpacklo_epi16(even, odd);  /* columns 0-7, 16-23 */
    const __m256i high = _mm256_unpackhi_epi16(even, odd); /* columns 8-15, 24-31 */
    const __m128i parts[4] = {_mm256_castsi256_si128(low), _mm256_castsi256_si128(high),
                              _mm256_extracti128_si256(low, 1), _mm256_extracti128_si256(high, 1)};
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++)
        _mm256_storeu_si256((__m256i *)(out + 8 * i), _mm256_cvtepu16_epi32(parts[i]));
}

/* rows is a constant at every call, so the loops over it unroll. */
BITOPS_INLINE void tile(const int rows, const uint64_t *a, size_t lda, const uint64_t *panel,
                        size_t n, size_t k_words, size_t row, size_t col,
                        const bitops_store *store) {
    const __m256i nibble = _mm256_set1_epi8(15), low_byte = _mm256_set1_epi16(0xff);
    __m256i even[MR], odd[MR];
    for (int i = 0; i < rows; i++)
        even[i] = odd[i] = _mm256_setzero_si256();

    for (size_t p = 0; p < k_words;) {
        const size_t end = k_words - p < FLUSH_WORDS ? k_words : p + FLUSH_WORDS;
        __m256i counts[MR];
        for (int i = 0; i < rows; i++)
            counts[i] = _mm256_setzero_si256();
        for (; p < end; p++)
            for (size_t byte = 0; byte < 8; byte++) {
                const __m256i w = load((const uint8_t *)(panel + p * NR) + byte * NR);
                const __m256i low = _mm256_and_si256(w, nibble);
                const __m256i high = _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble);
                BITOPS_UNROLL
                for (int i = 0; i < rows; i++) {
                    const uint8_t *tables =
                        mismatch_tables[((const uint8_t *)(a + (size_t)i * lda + p))[byte]];
                    counts[i] = _mm256_add_epi8(counts[i], _mm256_shuffle_epi8(table(tables), low));
                    counts[i] =
                        _mm256_add_epi8(counts[i], _mm256_shuffle_epi8(table(tables + 16), high));
                }
            }
        for (int i = 0; i < rows; i++) {
            even[i] = _mm256_add_epi16(even[i], _mm256_and_si256(counts[i], low_byte));
            odd[i] = _mm256_add_epi16(odd[i], _mm256_srli_epi16(counts[i], 8));
        }
    }

    int32_t mismatches[MR * NR];
    for (int i = 0; i < rows; i++)
        write_counts(even[i], odd[i], mismatches + i * NR);
    store_block(mismatches, NR, (size_t)rows, n, row, col, store);
}

void bitops_gemm_panel_avx2(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel,
                            size_t n, size_t k_words, size_t row, size_t col,
                            const bitops_store *store) {
    BITOPS_ASSUME(n <= NR && k_words <= MAX_WORDS && col % NR == 0);
    size_t i = 0;
    for (; i + MR <= m; i += MR)
        tile(MR, a + i * lda, lda, panel, n, k_words, row + i, col, store);
    for (; i < m; i++)
        tile(1, a + i * lda, lda, panel, n, k_words, row + i, col, store);
}

/* ---- gemm on plain rows -------------------------------------------------------------------- */

enum { GROUP = 8 }; /* rows of w whose results are stored together */

BITOPS_INLINE int32_t row_mismatches(const uint64_t *a, const uint64_t *w, size_t k_words) {
    __m256i sum = _mm256_setzero_si256();
    size_t p = 0;
    for (; p + YMM_WORDS <= k_words; p += YMM_WORDS)
        sum = _mm256_add_epi64(
            sum, sum_bytes(popcount_bytes(_mm256_xor_si256(load(a + p), load(w + p)))));
    uint64_t count = sum_lanes(sum);
    for (; p < k_words; p++)
        count += (uint64_t)_mm_popcnt_u64(a[p] ^ w[p]);
    return (int32_t)count;
}

void bitops_gemm_rows_avx2(const uint64_t *a, size_t lda, size_t m, const uint64_t *w, size_t ldw,
                           size_t n, size_t k_words, size_t row, size_t col,
                           const bitops_store *store) {
    BITOPS_ASSUME(col % GROUP == 0);
    for (size_t j = 0; j < n; j += GROUP) {
        const size_t columns = n - j < GROUP ? n - j : GROUP;
        for (size_t i = 0; i < m; i++) {
            int32_t mismatches[GROUP];
            for (size_t l = 0; l < columns; l++)
                mismatches[l] = row_mismatches(a + i * lda, w + (j + l) * ldw, k_words);
            store_block(mismatches, GROUP, 1, columns, row + i, col + j, store);
        }
    }
}

BITOPS_TARGET_END

#endif
