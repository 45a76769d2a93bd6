/* avx512_store.h: the output transform of bitops_store, 16 columns at a time; store.h is its
 * portable form. */
#ifndef BITOPS_AVX512_STORE_H
#define BITOPS_AVX512_STORE_H

#include "operations.h"
#include "isa/shared/avx512.h"
#include "isa/shared/nearest.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vpopcntdq,prfchw")

/* Keeps the columns that hits selects. This is rare, and not inlined, since it would take registers
 * from every tile. */
BITOPS_NOINLINE void store_hits(__m512i mismatches_i32x16, unsigned hits, size_t row, size_t col,
                                const bitops_store *store) {
    int32_t mismatches[LANES];
    if (store->allowed) { /* whole words: col is a multiple of 8 */
        uint16_t allowed = 0;
        memcpy(&allowed, (const uint8_t *)store->allowed + col / 8, hits > 0xff ? 2 : 1);
        hits &= allowed;
    }
    _mm512_storeu_si512(mismatches, mismatches_i32x16);
    nearest_offer_hits(mismatches, hits, row, col, store);
}

/* bitops_dot of 16 columns, plus offset from column col on, unless offset is NULL. */
BITOPS_INLINE __m512i dot_lanes(__m512i mismatches_i32x16, __mmask16 mask, size_t col,
                                const int32_t *offset, const bitops_store *store) {
    const __m512i k_i32x16 = _mm512_set1_epi32(store->k);
    __m512i dot_i32x16 =
        _mm512_sub_epi32(_mm512_sub_epi32(k_i32x16, mismatches_i32x16), mismatches_i32x16);
    if (offset)
        dot_i32x16 = _mm512_add_epi32(dot_i32x16, _mm512_maskz_loadu_epi32(mask, offset + col));
    return dot_i32x16;
}

BITOPS_INLINE void store_scaled_lanes(__m512i dot_i32x16, __mmask16 mask, size_t row, size_t col,
                                      const bitops_store *store, float *c_out) {
    __m512 c_f32x16 = _mm512_cvtepi32_ps(dot_i32x16);
    if (store->alpha)
        c_f32x16 = _mm512_mul_ps(c_f32x16, _mm512_maskz_loadu_ps(mask, store->alpha + col));
    if (store->k_map)
        c_f32x16 = _mm512_mul_ps(c_f32x16, _mm512_set1_ps(store->k_map[row]));
    if (store->bias)
        c_f32x16 = _mm512_add_ps(c_f32x16, _mm512_maskz_loadu_ps(mask, store->bias + col));
    _mm512_mask_storeu_ps(c_out, mask, c_f32x16);
}

BITOPS_INLINE void store_sign_lanes(__m512i dot_i32x16, __mmask16 mask, size_t row, size_t col,
                                    const bitops_store *store) {
    const __m512i threshold_i32x16 = _mm512_maskz_loadu_epi32(mask, store->threshold + col);
    unsigned bits = _mm512_mask_cmpgt_epi32_mask(mask, dot_i32x16, threshold_i32x16);
    /* Only the bytes of these columns: the next byte may belong to another thread. */
    const size_t bytes = mask > 0xff ? 2 : 1;
    uint8_t *c = (uint8_t *)((uint64_t *)store->c + row * store->ldc) + col / 8;
    if (store->flip) {
        uint16_t flip = 0;
        memcpy(&flip, (const uint8_t *)store->flip + col / 8, bytes);
        bits ^= flip;
    }
    c[0] = (uint8_t)bits;
    if (bytes == 2)
        c[1] = (uint8_t)(bits >> 8);
}

BITOPS_INLINE void store_topk_lanes(__m512i mismatches_i32x16, __mmask16 mask, size_t row,
                                    size_t col, const bitops_store *store) {
    const uint64_t *nearest = (const uint64_t *)store->c + row * store->ldc;
    const __m512i limit_u32x16 = _mm512_set1_epi32((int32_t)heap_limit(nearest));
    const __mmask16 hits = _mm512_mask_cmplt_epu32_mask(mask, mismatches_i32x16, limit_u32x16);
    if (hits)
        store_hits(mismatches_i32x16, hits, row, col, store);
}

/* Adds the columns that hits selects to the pairs found; not inlined, as store_hits. */
BITOPS_NOINLINE void store_found(__m512i mismatches_i32x16, unsigned hits, size_t row, size_t col,
                                 bitops_found *found) {
    int32_t distances[LANES];
    _mm512_storeu_si512(distances, mismatches_i32x16);
    for (; hits; hits &= hits - 1) {
        const unsigned j = (unsigned)__builtin_ctz(hits);
        found->pairs[found->count] = (uint64_t)row << 32 | (col + j);
        found->distances[found->count++] = distances[j];
    }
}

BITOPS_INLINE void store_within_lanes(__m512i mismatches_i32x16, __mmask16 mask, size_t row,
                                      size_t col, const bitops_store *store) {
    const __mmask16 hits =
        _mm512_mask_cmple_epi32_mask(mask, mismatches_i32x16, _mm512_set1_epi32(store->most));
    if (hits)
        store_found(mismatches_i32x16, hits, row, col, (bitops_found *)store->c);
}

/* store_block of store.h for one row and those of the columns [col, col + 16) that mask selects,
 * whose counts are in a register; a new kind of store needs a case in both. offset is what is added
 * to the dot products of the row, or NULL. kind is store->kind: a loop that has it as a constant
 * has no switch. */
BITOPS_INLINE void store_lanes(bitops_store_kind kind, __m512i mismatches_i32x16, __mmask16 mask,
                               size_t row, size_t col, const int32_t *offset,
                               const bitops_store *store) {
    const size_t first = row * store->ldc + col;
    const __m512i dot_i32x16 = dot_lanes(mismatches_i32x16, mask, col, offset, store);
    switch (kind) {
    case BITOPS_STORE_DOT:
        _mm512_mask_storeu_epi32((int32_t *)store->c + first, mask, dot_i32x16);
        break;
    case BITOPS_STORE_SCALED:
        store_scaled_lanes(dot_i32x16, mask, row, col, store, (float *)store->c + first);
        break;
    case BITOPS_STORE_HAMMING:
        _mm512_mask_storeu_epi32((int32_t *)store->c + first, mask, mismatches_i32x16);
        break;
    case BITOPS_STORE_HAMMING16:
        _mm512_mask_cvtepi32_storeu_epi16((uint16_t *)store->c + first, mask, mismatches_i32x16);
        break;
    case BITOPS_STORE_HAMMING8:
        _mm512_mask_cvtepi32_storeu_epi8((uint8_t *)store->c + first, mask, mismatches_i32x16);
        break;
    case BITOPS_STORE_SIGN:
        store_sign_lanes(dot_i32x16, mask, row, col, store);
        break;
    case BITOPS_STORE_ACCUMULATE: {
        int32_t *c = (int32_t *)store->c + first;
        const __m512i sum_i32x16 =
            _mm512_add_epi32(_mm512_maskz_loadu_epi32(mask, c), mismatches_i32x16);
        _mm512_mask_storeu_epi32(c, mask, sum_i32x16);
        break;
    }
    case BITOPS_STORE_TOPK:
        store_topk_lanes(mismatches_i32x16, mask, row, col, store);
        break;
    case BITOPS_STORE_WITHIN:
        store_within_lanes(mismatches_i32x16, mask, row, col, store);
        break;
    default: /* those of store_set_lanes */
        break;
    }
}

/* ---- sets ---------------------------------------------------------------------------------- */

/* TOPK and WITHIN with bounds. */
BITOPS_INLINE void store_bounded_lanes(__m512i mismatches_i32x16, __mmask16 mask, size_t row,
                                       size_t col, const bitops_store *store) {
    const bitops_bound bound = store->bounds[row];
    const __m512i w_i32x16 = _mm512_maskz_loadu_epi32(mask, store->w_counts + col);
    const __m512 limit_f32x16 = _mm512_fmadd_ps(
        _mm512_set1_ps(bound.factor), _mm512_cvtepi32_ps(w_i32x16), _mm512_set1_ps(bound.term));
    const __mmask16 hits = _mm512_mask_cmp_ps_mask(mask, _mm512_cvtepi32_ps(mismatches_i32x16),
                                                   limit_f32x16, _CMP_LT_OQ);
    if (!hits)
        return;
    if (store->kind == BITOPS_STORE_WITHIN)
        store_found(mismatches_i32x16, hits, row, col, (bitops_found *)store->c);
    else
        store_hits(mismatches_i32x16, hits, row, col, store);
}

/* store_metric_row of store.h for 16 columns. */
BITOPS_INLINE void store_metric_lanes(bitops_store_kind kind, __m512i mismatches_i32x16,
                                      __mmask16 mask, size_t row, size_t col,
                                      const bitops_store *store) {
    const size_t first = row * store->ldc + col;
    const int32_t a_count = store->a_counts[row];
    const __m512i w_i32x16 = _mm512_maskz_loadu_epi32(mask, store->w_counts + col);
    const __m512i sum_u32x16 = _mm512_add_epi32(_mm512_set1_epi32(a_count), w_i32x16);
    const __m512i common_i32x16 =
        _mm512_srli_epi32(_mm512_sub_epi32(sum_u32x16, mismatches_i32x16), 1);
    if (kind == BITOPS_STORE_INTERSECTION) {
        _mm512_mask_storeu_epi32((int32_t *)store->c + first, mask, common_i32x16);
        return;
    }
    __m512i size_u32x16 = sum_u32x16;
    if (kind == BITOPS_STORE_JACCARD)
        size_u32x16 = _mm512_add_epi32(common_i32x16, mismatches_i32x16);
    size_u32x16 = _mm512_max_epu32(size_u32x16, _mm512_set1_epi32(1));
    double *c = (double *)store->c + first;
    BITOPS_UNROLL
    for (int half = 0; half < 2; half++) {
        const __m256i h_u32x8 = half ? _mm512_extracti64x4_epi64(mismatches_i32x16, 1)
                                     : _mm512_castsi512_si256(mismatches_i32x16);
        const __m256i n_u32x8 =
            half ? _mm512_extracti64x4_epi64(size_u32x16, 1) : _mm512_castsi512_si256(size_u32x16);
        const __m512d value_f64x8 =
            _mm512_div_pd(_mm512_cvtepu32_pd(h_u32x8), _mm512_cvtepu32_pd(n_u32x8));
        _mm512_mask_storeu_pd(c + 8 * half, (__mmask8)(mask >> 8 * half), value_f64x8);
    }
}

/* store_lanes for the kinds that read counts. */
BITOPS_INLINE void store_set_lanes(__m512i mismatches_i32x16, __mmask16 mask, size_t row,
                                   size_t col, const bitops_store *store) {
    if (store->bounds)
        store_bounded_lanes(mismatches_i32x16, mask, row, col, store);
    else
        store_metric_lanes(store->kind, mismatches_i32x16, mask, row, col, store);
}

/* Any kind, where a few registers more do not matter. */
BITOPS_INLINE void store_any_lanes(bitops_store_kind kind, __m512i mismatches_i32x16,
                                   __mmask16 mask, size_t row, size_t col, const int32_t *offset,
                                   const bitops_store *store) {
    if (store->w_counts)
        store_set_lanes(mismatches_i32x16, mask, row, col, store);
    else
        store_lanes(kind, mismatches_i32x16, mask, row, col, offset, store);
}

/* Prefetches the cache lines that store_lanes will write, while the sums are still being made. */
BITOPS_INLINE void prefetch_lanes(size_t row, size_t col, int vecs, const bitops_store *store) {
    const size_t size = store_number_size(store->kind);
    const char *c = (const char *)store->c + (row * store->ldc + col) * size;
    if (size == 0)
        return;
    BITOPS_UNROLL
    for (int v = 0; v < vecs; v++) {
        __builtin_prefetch(c + v * LANES * size, 1, 3);
        if (size == sizeof(double))
            __builtin_prefetch(c + v * LANES * size + 64, 1, 3);
    }
}

BITOPS_TARGET_END

#endif

#endif
