/* avx2_store.h: the output transform of bitops_store, 8 columns at a time; store.h is its portable
 * form. */
#ifndef BITOPS_AVX2_STORE_H
#define BITOPS_AVX2_STORE_H

#include "operations.h"
#include "isa/shared/avx2.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt")

enum { LANES = 8 };

/* ---- the first n of 8 numbers, in parts: AMD's masked stores take a dozen cycles ------------ */

BITOPS_INLINE __m256i load_numbers(const void *numbers, size_t n) {
    const int32_t *x = numbers;
    if (n == LANES)
        return load(x);
    __m128i last_i32x4 = _mm_setzero_si128();
    if (n & 1)
        last_i32x4 = _mm_cvtsi32_si128(x[n - 1]);
    if (n & 2)
        last_i32x4 =
            _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)(x + (n & 4))), last_i32x4);
    if (n & 4)
        return _mm256_set_m128i(last_i32x4, _mm_loadu_si128((const __m128i *)x));
    return _mm256_set_m128i(_mm_setzero_si128(), last_i32x4);
}

/* The first `bytes` of 16, at most 15. */
BITOPS_INLINE void store_bytes(__m128i v_u8x16, size_t bytes, char *c) {
    if (bytes & 8) {
        _mm_storel_epi64((__m128i *)c, v_u8x16);
        v_u8x16 = _mm_unpackhi_epi64(v_u8x16, v_u8x16);
        c += 8;
    }
    uint64_t left = (uint64_t)_mm_cvtsi128_si64(v_u8x16);
    if (bytes & 4) {
        memcpy(c, &left, 4);
        left >>= 32;
        c += 4;
    }
    if (bytes & 2) {
        memcpy(c, &left, 2);
        left >>= 16;
        c += 2;
    }
    if (bytes & 1)
        *c = (char)left;
}

BITOPS_INLINE void store_numbers(__m256i v_i32x8, size_t n, void *c) {
    int32_t *out = c;
    __m128i v_i32x4 = _mm256_castsi256_si128(v_i32x8);
    if (n == LANES) {
        _mm256_storeu_si256((__m256i *)out, v_i32x8);
        return;
    }
    if (n & 4) {
        _mm_storeu_si128((__m128i *)out, v_i32x4);
        v_i32x4 = _mm256_extracti128_si256(v_i32x8, 1);
        out += 4;
    }
    store_bytes(v_i32x4, n % 4 * sizeof *out, (char *)out);
}

/* ---- the transform -------------------------------------------------------------------------- */

/* bitops_dot of 8 columns, plus offset from the first of them on, unless offset is NULL. */
BITOPS_INLINE __m256i dot_lanes(__m256i mismatches_i32x8, size_t n, const int32_t *offset,
                                const bitops_store *store) {
    const __m256i k_i32x8 = _mm256_set1_epi32(store->k);
    const __m256i dot_i32x8 =
        _mm256_sub_epi32(_mm256_sub_epi32(k_i32x8, mismatches_i32x8), mismatches_i32x8);
    return offset ? _mm256_add_epi32(dot_i32x8, load_numbers(offset, n)) : dot_i32x8;
}

BITOPS_INLINE __m256 load_floats(const float *x, size_t n) {
    return _mm256_castsi256_ps(load_numbers(x, n));
}

BITOPS_INLINE void store_scaled_lanes(__m256i dot_i32x8, size_t n, size_t row, size_t col,
                                      const bitops_store *store, float *c_out) {
    __m256 c_f32x8 = _mm256_cvtepi32_ps(dot_i32x8);
    if (store->alpha)
        c_f32x8 = _mm256_mul_ps(c_f32x8, load_floats(store->alpha + col, n));
    if (store->k_map)
        c_f32x8 = _mm256_mul_ps(c_f32x8, _mm256_set1_ps(store->k_map[row]));
    if (store->bias)
        c_f32x8 = _mm256_add_ps(c_f32x8, load_floats(store->bias + col, n));
    store_numbers(_mm256_castps_si256(c_f32x8), n, c_out);
}

BITOPS_INLINE void store_sign_lanes(__m256i dot_i32x8, size_t n, size_t row, size_t col,
                                    const bitops_store *store) {
    const __m256i threshold_i32x8 = load_numbers(store->threshold + col, n);
    const __m256i above_b256 = _mm256_cmpgt_epi32(dot_i32x8, threshold_i32x8);
    unsigned bits = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(above_b256));
    bits &= (1u << n) - 1;
    if (store->flip)
        bits ^= ((const uint8_t *)store->flip)[col / 8];
    ((uint8_t *)((uint64_t *)store->c + row * store->ldc))[col / 8] = (uint8_t)bits;
}

/* The columns with fewer mismatches than limit, a bit each. */
BITOPS_INLINE unsigned lanes_below(__m256i mismatches_u32x8, uint32_t limit) {
    const __m256i limit_u32x8 = _mm256_set1_epi32((int32_t)limit);
    const __m256i far_b256 =
        _mm256_cmpeq_epi32(_mm256_min_epu32(mismatches_u32x8, limit_u32x8), limit_u32x8);
    return ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(far_b256)) & 0xff;
}

/* Keeps the columns that hits selects, for TOPK; this and the next are not inlined, since they
 * would take registers from every loop. No word of allowed columns ends among these. */
BITOPS_NOINLINE void store_hits(__m256i mismatches_i32x8, unsigned hits, size_t row, size_t col,
                                const bitops_store *store) {
    int32_t mismatches[LANES];
    if (store->allowed)
        hits &= (unsigned)(store->allowed[col / BITOPS_WORD_BITS] >> col % BITOPS_WORD_BITS);
    _mm256_storeu_si256((__m256i *)mismatches, mismatches_i32x8);
    nearest_offer_hits(mismatches, hits, row, col, store);
}

BITOPS_INLINE void store_topk_lanes(__m256i mismatches_i32x8, size_t n, size_t row, size_t col,
                                    const bitops_store *store) {
    const uint32_t limit = heap_limit((const uint64_t *)store->c + row * store->ldc);
    const unsigned hits = lanes_below(mismatches_i32x8, limit) & ((1u << n) - 1);
    if (hits)
        store_hits(mismatches_i32x8, hits, row, col, store);
}

BITOPS_NOINLINE void store_other_lanes(__m256i mismatches_i32x8, size_t n, size_t row, size_t col,
                                       const bitops_store *store) {
    int32_t mismatches[LANES];
    _mm256_storeu_si256((__m256i *)mismatches, mismatches_i32x8);
    store_block(mismatches, LANES, 1, n, row, col, store);
}

/* store_block of store.h for one row and n <= 8 columns from col on, whose counts are in a
 * register. offset is what is added to the dot products of these columns, or NULL. kind is
 * store->kind: a loop that has it as a constant has no switch. */
BITOPS_INLINE void store_lanes(bitops_store_kind kind, __m256i mismatches_i32x8, size_t n,
                               size_t row, size_t col, const int32_t *offset,
                               const bitops_store *store) {
    const size_t first = row * store->ldc + col;
    switch (kind) {
    case BITOPS_STORE_DOT:
        store_numbers(dot_lanes(mismatches_i32x8, n, offset, store), n,
                      (int32_t *)store->c + first);
        break;
    case BITOPS_STORE_SCALED:
        store_scaled_lanes(dot_lanes(mismatches_i32x8, n, offset, store), n, row, col, store,
                           (float *)store->c + first);
        break;
    case BITOPS_STORE_HAMMING:
        store_numbers(mismatches_i32x8, n, (int32_t *)store->c + first);
        break;
    case BITOPS_STORE_HAMMING16:
    case BITOPS_STORE_HAMMING8: {
        const size_t size = store_number_size(kind);
        char *c = (char *)store->c + first * size;
        /* Not saturated: the low byte, as store.h has it. */
        const __m256i v_i32x8 = size == 1
                                    ? _mm256_and_si256(mismatches_i32x8, _mm256_set1_epi32(0xff))
                                    : mismatches_i32x8;
        __m128i v_u16x8 =
            _mm_packus_epi32(_mm256_castsi256_si128(v_i32x8), _mm256_extracti128_si256(v_i32x8, 1));
        if (size == 1)
            v_u16x8 = _mm_packus_epi16(v_u16x8, v_u16x8);
        if (n * size == sizeof v_u16x8)
            _mm_storeu_si128((__m128i *)c, v_u16x8);
        else
            store_bytes(v_u16x8, n * size, c);
        break;
    }
    case BITOPS_STORE_SIGN:
        store_sign_lanes(dot_lanes(mismatches_i32x8, n, offset, store), n, row, col, store);
        break;
    case BITOPS_STORE_TOPK:
        if (store->bounds)
            store_other_lanes(mismatches_i32x8, n, row, col, store);
        else
            store_topk_lanes(mismatches_i32x8, n, row, col, store);
        break;
    case BITOPS_STORE_WITHIN:
        if (store->bounds || lanes_below(mismatches_i32x8, (uint32_t)store->most + 1))
            store_other_lanes(mismatches_i32x8, n, row, col, store);
        break;
    default:
        store_other_lanes(mismatches_i32x8, n, row, col, store);
    }
}

BITOPS_TARGET_END

#endif

#endif
