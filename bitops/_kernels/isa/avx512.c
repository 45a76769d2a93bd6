/* avx512.c: panels and products of bits; AVX-512 F, BW, VL, VPOPCNTDQ.
 *
 * Carry-save popcount with the XOR inside. Each output has a bit plane `ones` and a counter; k is
 * taken in pairs (a1, w1), (a2, w2) of vectors. With x1 = a1 ^ w1 and x2 = a2 ^ w2,
 *     next  = ones ^ x1 ^ x2              carry = majority(ones, x1, x2)
 *     count += popcnt(carry)              ones  = next
 * At the end, mismatches = 2 count + popcnt(ones), with half as many popcounts as vectors.
 *
 * Panels hold w12 = w1 ^ w2 in place of w2, and a12 = a1 ^ a2 is made once per row. Then
 *     next  = ones ^ a12 ^ w12            one operation on three inputs
 *     x1    = a1 ^ w1                     one on two inputs
 *     carry = ones != next ? ones : x1    one on three inputs
 * are, with popcnt and add, five vector operations per pair. There are also five without a12 and
 * w12,
 *     u = ones ^ a1 ^ w1,  next = u ^ a2 ^ w2,  carry = u ? ~next : ones
 * but all three have three inputs: a Zen 4 core took 3.0 cycles for a pair of zmm instead of 2.5,
 * as if it read at most four vectors a cycle.
 *
 *   intrinsic                     instruction   Ice Lake and later    Zen 4 (zmm)
 *   _mm512_ternarylogic_epi32     vpternlogd    latency 1, p05        1, two per cycle
 *   _mm512_popcnt_epi32           vpopcntd      latency 3, p5         2, one per cycle
 *   _mm512_add_epi32              vpaddd        latency 1, p05        1, two per cycle
 *   _mm512_set1_epi32 (memory)    vpbroadcastd  load ports only       load ports only
 * Bottleneck: 2.5 cycles per pair of zmm on the two vector ports, 410 bits per cycle.
 *
 * Panel of 32 columns: four zmm for every 64-bit word of k. A zmm holds the same 32 bits of 16
 * columns, so counts come out in column order, without horizontal sums:
 *
 *   | columns 0-15: low | columns 0-15: low ^ high | columns 16-31: low | 16-31: low ^ high |
 *            w1                     w12                      w1                  w12
 *
 * Tails: columns are masked in the store, k by masked loads (rows) or not at all (panels are made
 * of whole words). Overflow: each counter lane counts at most one per bit of k, and k < 2^31. */
#include "bitops.h"
#include "isa/shared/avx512.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vpopcntdq,prfchw")

enum { MR = 4, NR = 32 };

/* Truth tables of vpternlog: bit 4 a + 2 b + c is the result for (a, b, c). CARRY takes x1, ones
 * and next: where next differs from ones, one of x1 and x2 is set and the majority is ones; where
 * it does not, x1 and x2 are equal and the majority is x1. */
enum {
    XOR3 = 0x96,  /* a ^ b ^ c */
    CARRY = 0xd4, /* b != c ? b : a */
};

/* ---- primitives ---------------------------------------------------------------------------- */

BITOPS_INLINE __m512i xor3(__m512i a_b512, __m512i b_b512, __m512i c_b512) {
    return _mm512_ternarylogic_epi32(a_b512, b_b512, c_b512, XOR3);
}

BITOPS_INLINE __m512i broadcast32(const char *x) {
    int32_t v;
    memcpy(&v, x, sizeof v);
    return _mm512_set1_epi32(v);
}

/* The counters of one vector of outputs, in 32-bit lanes (panels), or those of one output, in
 * 64-bit lanes (plain rows). */
typedef struct tally {
    __m512i ones_b512, count_b512;
} tally;

BITOPS_INLINE tally tally_zero(void) {
    return (tally){_mm512_setzero_si512(), _mm512_setzero_si512()};
}

BITOPS_INLINE __m512i tally_total(tally t) {
    return _mm512_add_epi32(_mm512_add_epi32(t.count_b512, t.count_b512),
                            _mm512_popcnt_epi32(t.ones_b512));
}

/* Adds the bits of a1 ^ w1 and a2 ^ w2, given a12 = a1 ^ a2 and w12 = w1 ^ w2. Returns the carry,
 * which the caller counts. */
BITOPS_INLINE __m512i tally_add(tally *t, __m512i a1_b512, __m512i a12_b512, __m512i w1_b512,
                                __m512i w12_b512) {
    const __m512i next_b512 = xor3(t->ones_b512, w12_b512, a12_b512);
    const __m512i x1_b512 = _mm512_xor_si512(w1_b512, a1_b512);
    const __m512i carry_b512 = _mm512_ternarylogic_epi32(x1_b512, t->ones_b512, next_b512, CARRY);
    t->ones_b512 = next_b512;
    return carry_b512;
}

/* ---- the output transform, 16 columns at a time -------------------------------------------- */

/* Puts the columns that hits selects into the heap of their row, unless one before them has lowered
 * the limit. This is rare, and not inlined, since it would take registers from every tile. */
BITOPS_NOINLINE void store_hits(__m512i mismatches_i32x16, unsigned hits, size_t col,
                                uint64_t *heap, size_t count) {
    uint32_t distances[LANES];
    _mm512_storeu_si512(distances, mismatches_i32x16);
    for (; hits; hits &= hits - 1) {
        const unsigned j = (unsigned)__builtin_ctz(hits);
        if (distances[j] < heap_limit(heap))
            heap_replace_root(heap, count, heap_key(distances[j], col + j));
    }
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
    uint64_t *heap = (uint64_t *)store->c + row * store->ldc;
    const __m512i limit_u32x16 = _mm512_set1_epi32((int32_t)heap_limit(heap));
    const __mmask16 hits = _mm512_mask_cmplt_epu32_mask(mask, mismatches_i32x16, limit_u32x16);
    if (hits)
        store_hits(mismatches_i32x16, hits, col, heap, store->ldc);
}

/* store_block of store.h for one row and those of the columns [col, col + 16) that mask selects,
 * whose counts are in a register; a new kind of store needs a case in both. offset is what is added
 * to the dot products of the row, or NULL. */
BITOPS_INLINE void store_lanes(__m512i mismatches_i32x16, __mmask16 mask, size_t row, size_t col,
                               const int32_t *offset, const bitops_store *store) {
    const size_t first = row * store->ldc + col;
    const __m512i dot_i32x16 = dot_lanes(mismatches_i32x16, mask, col, offset, store);
    switch (store->kind) {
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
    }
}

/* Prefetches the cache lines that store_lanes will write, while the sums are still being made. */
BITOPS_INLINE void prefetch_lanes(size_t row, size_t col, int vecs, const bitops_store *store) {
    if (store->kind == BITOPS_STORE_SIGN || store->kind == BITOPS_STORE_TOPK)
        return;
    const char *c = (const char *)store->c + (row * store->ldc + col) * sizeof(int32_t);
    for (int v = 0; v < vecs; v++)
        __builtin_prefetch(c + 64 * v, 1, 3);
}

/* ---- gemm on panels ------------------------------------------------------------------------ */

/* Transposes 8 x 8 words: afterwards word i of v[p] is word p of the former v[i]. */
BITOPS_INLINE void transpose_words(__m512i v_u64x8[8]) {
    __m512i pairs_u64x8[8], quads_u64x8[8];
    BITOPS_UNROLL
    for (int i = 0; i < 8; i += 2) {
        pairs_u64x8[i] = _mm512_unpacklo_epi64(v_u64x8[i], v_u64x8[i + 1]);
        pairs_u64x8[i + 1] = _mm512_unpackhi_epi64(v_u64x8[i], v_u64x8[i + 1]);
    }
    BITOPS_UNROLL
    for (int i = 0; i < 8; i++) { /* 128-bit parts 0, 2 (i / 2 even) or 1, 3 of rows 0-3 and 4-7 */
        const int from = i % 2 + i / 4 * 4, odd = i / 2 % 2;
        quads_u64x8[i] = odd ? _mm512_shuffle_i64x2(pairs_u64x8[from], pairs_u64x8[from + 2], 0xdd)
                             : _mm512_shuffle_i64x2(pairs_u64x8[from], pairs_u64x8[from + 2], 0x88);
    }
    BITOPS_UNROLL
    for (int p = 0; p < 8; p++) {
        const int from = p % 2 + p / 2 % 2 * 2;
        v_u64x8[p] = p < 4 ? _mm512_shuffle_i64x2(quads_u64x8[from], quads_u64x8[from + 4], 0x88)
                           : _mm512_shuffle_i64x2(quads_u64x8[from], quads_u64x8[from + 4], 0xdd);
    }
}

/* Writes up to 8 words of 16 columns, which are n <= 16 rows of w, to half a panel. */
BITOPS_INLINE void prepack_half(const uint64_t *w, size_t ldw, size_t n, size_t words,
                                uint64_t *panel_out) {
    const __m512i even_u32x16 =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd_u32x16 =
        _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    __m512i v_u64x8[LANES];
    for (size_t j = 0; j < LANES; j++)
        v_u64x8[j] = j < n ? _mm512_maskz_loadu_epi64(low_bits8(words), w + j * ldw)
                           : _mm512_setzero_si512();
    transpose_words(v_u64x8);
    transpose_words(v_u64x8 + 8);
    for (size_t p = 0; p < words; p++) {
        const __m512i w1_u32x16 =
            _mm512_permutex2var_epi32(v_u64x8[p], even_u32x16, v_u64x8[8 + p]);
        const __m512i w2_u32x16 = _mm512_permutex2var_epi32(v_u64x8[p], odd_u32x16, v_u64x8[8 + p]);
        _mm512_storeu_si512(panel_out + p * NR, w1_u32x16);
        _mm512_storeu_si512(panel_out + p * NR + ZMM_WORDS, _mm512_xor_si512(w1_u32x16, w2_u32x16));
    }
}

void bitops_prepack_avx512(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                           uint64_t *panel_out) {
    BITOPS_ASSUME(n <= NR);
    for (size_t half = 0; half < NR; half += LANES)
        for (size_t p = 0; p < k_words; p += ZMM_WORDS) {
            const size_t rows = n < half ? 0 : n - half < LANES ? n - half : LANES;
            const size_t words = k_words - p < ZMM_WORDS ? k_words - p : ZMM_WORDS;
            prepack_half(rows ? w + half * ldw + p : w, ldw, rows, words,
                         panel_out + p * NR + half);
        }
}

/* Makes low, low ^ high of the words of one row, k_words >= 1; `last` masks the last vector. */
BITOPS_INLINE void fold_row(const uint64_t *a, size_t k_words, __mmask8 last, uint64_t *out) {
    size_t p = 0;
    for (; p + ZMM_WORDS < k_words; p += ZMM_WORDS) {
        const __m512i v_u64x8 = _mm512_loadu_si512(a + p);
        _mm512_storeu_si512(out + p, _mm512_xor_si512(v_u64x8, _mm512_slli_epi64(v_u64x8, 32)));
    }
    const __m512i v_u64x8 = _mm512_maskz_loadu_epi64(last, a + p);
    _mm512_mask_storeu_epi64(out + p, last,
                             _mm512_xor_si512(v_u64x8, _mm512_slli_epi64(v_u64x8, 32)));
}

void bitops_prepack_rows_avx512(const uint64_t *a, size_t lda, size_t m, size_t k_words,
                                uint64_t *rows_out, size_t ld_out) {
    if (k_words == 0)
        return;
    if (lda == k_words && ld_out == k_words) { /* rows without gaps are one long row */
        k_words *= m;
        m = m != 0;
    }
    const __mmask8 last = low_bits8((k_words - 1) % ZMM_WORDS + 1);
    for (size_t i = 0; i < m; i++, a += lda, rows_out += ld_out)
        fold_row(a, k_words, last, rows_out);
}

/* Adds one folded word (a1, a12) of a row to the tally of 16 columns. */
BITOPS_INLINE void tally_word(tally *t, const uint64_t *word, __m512i w1_u32x16,
                              __m512i w12_u32x16) {
    const __m512i a1_u32x16 = broadcast32((const char *)word);
    const __m512i a12_u32x16 = broadcast32((const char *)word + 4);
    t->count_b512 = _mm512_add_epi32(
        t->count_b512,
        _mm512_popcnt_epi32(tally_add(t, a1_u32x16, a12_u32x16, w1_u32x16, w12_u32x16)));
}

/* The step for four outputs: rows s and t times 2 x 16 columns. s0, s1, t0, t1 are their `ones`,
 * sc0 to tc1 their counters, s_a1 .. t_a12 the words of the rows, w1_0 .. w12_1 those of the
 * columns.
 *
 * Assembly, because the order decides: each operation is done for all four outputs before the next
 * one. In the order of compilers, or with each output finished before the next begins, Zen 4 loses
 * 7 % and compilers spill. Operands are strings, so that port_bound can run the same instructions
 * on registers alone. zmm16 to zmm19 hold x1, then the carry, then its popcounts; zmm20 to zmm23
 * hold `ones` from before the step. */
#define TALLY_QUAD(s0, s1, t0, t1, sc0, sc1, tc0, tc1, s_a1, s_a12, t_a1, t_a12, w1_0, w1_1,       \
                   w12_0, w12_1)                                                                   \
    "vmovdqa64 " s0 ", %%zmm20\n\t"                                                                \
    "vpternlogd %[xor3], " s_a12 ", " w12_0 ", " s0 "\n\t"                                         \
    "vmovdqa64 " s1 ", %%zmm21\n\t"                                                                \
    "vpternlogd %[xor3], " s_a12 ", " w12_1 ", " s1 "\n\t"                                         \
    "vmovdqa64 " t0 ", %%zmm22\n\t"                                                                \
    "vpternlogd %[xor3], " t_a12 ", " w12_0 ", " t0 "\n\t"                                         \
    "vmovdqa64 " t1 ", %%zmm23\n\t"                                                                \
    "vpternlogd %[xor3], " t_a12 ", " w12_1 ", " t1 "\n\t"                                         \
    "vpxord " s_a1 ", " w1_0 ", %%zmm16\n\t"                                                       \
    "vpxord " s_a1 ", " w1_1 ", %%zmm17\n\t"                                                       \
    "vpxord " t_a1 ", " w1_0 ", %%zmm18\n\t"                                                       \
    "vpxord " t_a1 ", " w1_1 ", %%zmm19\n\t"                                                       \
    "vpternlogd %[carry], " s0 ", %%zmm20, %%zmm16\n\t"                                            \
    "vpternlogd %[carry], " s1 ", %%zmm21, %%zmm17\n\t"                                            \
    "vpternlogd %[carry], " t0 ", %%zmm22, %%zmm18\n\t"                                            \
    "vpternlogd %[carry], " t1 ", %%zmm23, %%zmm19\n\t"                                            \
    "vpopcntd %%zmm16, %%zmm16\n\t"                                                                \
    "vpopcntd %%zmm17, %%zmm17\n\t"                                                                \
    "vpopcntd %%zmm18, %%zmm18\n\t"                                                                \
    "vpopcntd %%zmm19, %%zmm19\n\t"                                                                \
    "vpaddd %%zmm16, " sc0 ", " sc0 "\n\t"                                                         \
    "vpaddd %%zmm17, " sc1 ", " sc1 "\n\t"                                                         \
    "vpaddd %%zmm18, " tc0 ", " tc0 "\n\t"                                                         \
    "vpaddd %%zmm19, " tc1 ", " tc1 "\n\t"

/* tally_word for two rows and 2 x 16 columns; the operations themselves broadcast words from
 * memory. */
BITOPS_INLINE void tally_quad(tally s[2], tally t[2], const uint64_t *word_s,
                              const uint64_t *word_t, const __m512i w1_u32x16[2],
                              const __m512i w12_u32x16[2]) {
    __asm__(
        TALLY_QUAD("%[s0]", "%[s1]", "%[t0]", "%[t1]", "%[sc0]", "%[sc1]", "%[tc0]", "%[tc1]",
                   "(%[ws])%{1to16%}", "4(%[ws])%{1to16%}", "(%[wt])%{1to16%}", "4(%[wt])%{1to16%}",
                   "%[w1_0]", "%[w1_1]", "%[w12_0]", "%[w12_1]")
        : [s0] "+&v"(s[0].ones_b512), [s1] "+&v"(s[1].ones_b512), [t0] "+&v"(t[0].ones_b512),
          [t1] "+&v"(t[1].ones_b512), [sc0] "+&v"(s[0].count_b512), [sc1] "+&v"(s[1].count_b512),
          [tc0] "+&v"(t[0].count_b512), [tc1] "+&v"(t[1].count_b512)
        : [w1_0] "v"(w1_u32x16[0]), [w1_1] "v"(w1_u32x16[1]), [w12_0] "v"(w12_u32x16[0]),
          [w12_1] "v"(w12_u32x16[1]), [ws] "r"(word_s), [wt] "r"(word_t), [xor3] "i"(XOR3),
          [carry] "i"(CARRY), "m"(*word_s), "m"(*word_t)
        : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23");
}

/* rows x vecs vectors of 16 columns; both are constants at every call, so the loops unroll. */
BITOPS_INLINE void tile(const int rows, const int vecs, const uint64_t *a, size_t lda,
                        const uint64_t *panel, size_t n, size_t k_words, size_t row, size_t col,
                        const bitops_store *store) {
    tally t[MR][2];
    for (int i = 0; i < rows; i++) {
        prefetch_lanes(row + (size_t)i, col, vecs, store);
        for (int v = 0; v < vecs; v++)
            t[i][v] = tally_zero();
    }

    for (size_t p = 0; p < k_words; p++, panel += NR) {
        __m512i w1_u32x16[2], w12_u32x16[2];
        BITOPS_UNROLL
        for (int v = 0; v < vecs; v++) {
            w1_u32x16[v] = _mm512_loadu_si512(panel + 2 * v * ZMM_WORDS);
            w12_u32x16[v] = _mm512_loadu_si512(panel + (2 * v + 1) * ZMM_WORDS);
        }
        const int paired = vecs == 2 ? rows / 2 * 2 : 0;
        BITOPS_UNROLL
        for (int i = 0; i < paired; i += 2)
            tally_quad(t[i], t[i + 1], a + (size_t)i * lda + p, a + (size_t)(i + 1) * lda + p,
                       w1_u32x16, w12_u32x16);
        BITOPS_UNROLL
        for (int i = paired; i < rows; i++) {
            BITOPS_UNROLL
            for (int v = 0; v < vecs; v++)
                tally_word(&t[i][v], a + (size_t)i * lda + p, w1_u32x16[v], w12_u32x16[v]);
        }
    }

    BITOPS_UNROLL
    for (int i = 0; i < rows; i++) {
        const int32_t *offset = store_offset(store, row + (size_t)i);
        BITOPS_UNROLL
        for (int v = 0; v < vecs; v++) {
            const size_t first = (size_t)v * LANES;
            store_lanes(tally_total(t[i][v]), low_bits16(n - first), row + (size_t)i, col + first,
                        offset, store);
        }
    }
}

BITOPS_INLINE void tile_edge(size_t rows, const int vecs, const uint64_t *a, size_t lda,
                             const uint64_t *panel, size_t n, size_t k_words, size_t row,
                             size_t col, const bitops_store *store) {
    switch (rows) {
    case 1:
        tile(1, vecs, a, lda, panel, n, k_words, row, col, store);
        break;
    case 2:
        tile(2, vecs, a, lda, panel, n, k_words, row, col, store);
        break;
    case 3:
        tile(3, vecs, a, lda, panel, n, k_words, row, col, store);
        break;
    }
}

void bitops_gemm_panel_avx512(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel,
                              size_t n, size_t k_words, size_t row, size_t col,
                              const bitops_store *store, uint64_t *scratch) {
    (void)scratch;
    BITOPS_ASSUME(n > 0 && n <= NR && col % NR == 0);
    size_t i = 0;
    if (n > LANES) {
        for (; i + MR <= m; i += MR)
            tile(MR, 2, a + i * lda, lda, panel, n, k_words, row + i, col, store);
        tile_edge(m - i, 2, a + i * lda, lda, panel, n, k_words, row + i, col, store);
    } else {
        for (; i + MR <= m; i += MR)
            tile(MR, 1, a + i * lda, lda, panel, n, k_words, row + i, col, store);
        tile_edge(m - i, 1, a + i * lda, lda, panel, n, k_words, row + i, col, store);
    }
}

/* ---- gemm on plain rows -------------------------------------------------------------------- */

enum { GROUP = 8 }; /* outputs made together: eight tallies, whose sums fill one vector */

/* Lane j of the result is the sum of the eight lanes of v[j]. */
BITOPS_INLINE __m512i sum_lanes(const __m512i v_u64x8[GROUP]) {
    __m512i pairs_u64x8[4], quads_u64x8[2];
    BITOPS_UNROLL
    for (int i = 0; i < 4; i++)
        pairs_u64x8[i] =
            _mm512_add_epi64(_mm512_unpacklo_epi64(v_u64x8[2 * i], v_u64x8[2 * i + 1]),
                             _mm512_unpackhi_epi64(v_u64x8[2 * i], v_u64x8[2 * i + 1]));
    /* pairs[i]: (2i, 2i+1) four times, once per 128 bits. */
    BITOPS_UNROLL
    for (int i = 0; i < 2; i++)
        quads_u64x8[i] = _mm512_add_epi64(
            _mm512_shuffle_i64x2(pairs_u64x8[2 * i], pairs_u64x8[2 * i + 1], 0x88),
            _mm512_shuffle_i64x2(pairs_u64x8[2 * i], pairs_u64x8[2 * i + 1], 0xdd));
    /* quads[i]: pairs 2i, 2i, 2i+1, 2i+1. */
    return _mm512_add_epi64(_mm512_shuffle_i64x2(quads_u64x8[0], quads_u64x8[1], 0x88),
                            _mm512_shuffle_i64x2(quads_u64x8[0], quads_u64x8[1], 0xdd));
}

/* Loads a vector of words of a row: all, or those that mask selects. */
BITOPS_INLINE __m512i load_words(const uint64_t *words, const int all, __mmask8 mask) {
    return all ? _mm512_loadu_si512(words) : _mm512_maskz_loadu_epi64(mask, words);
}

/* Adds 2 x 8 words at p of na rows of a and nw rows of w; na * nw = 8, and both are constants at
 * every call. If not `all`, only `left` words remain. Prefetches the same words of the next rows of
 * w, which lie `ahead`. */
BITOPS_INLINE void group_step(tally t[GROUP], const int na, const int nw, const uint64_t *const *a,
                              const uint64_t *const *w, size_t p, const int all, size_t left,
                              size_t ahead) {
    const __mmask8 m1 = low_bits8(left);
    const __mmask8 m2 = low_bits8(left > ZMM_WORDS ? left - ZMM_WORDS : 0);
    __m512i a1_u64x8[2], a12_u64x8[2];
    BITOPS_UNROLL
    for (int i = 0; i < na; i++) {
        a1_u64x8[i] = load_words(a[i] + p, all, m1);
        a12_u64x8[i] = _mm512_xor_si512(a1_u64x8[i], load_words(a[i] + p + ZMM_WORDS, all, m2));
    }
    BITOPS_UNROLL
    for (int j = 0; j < nw; j++) {
        const __m512i w1_u64x8 = load_words(w[j] + p, all, m1);
        const __m512i w12_u64x8 =
            _mm512_xor_si512(w1_u64x8, load_words(w[j] + p + ZMM_WORDS, all, m2));
        __builtin_prefetch(w[j] + p + ahead, 0, 3);
        __builtin_prefetch(w[j] + p + ahead + ZMM_WORDS, 0, 3);
        BITOPS_UNROLL
        for (int i = 0; i < na; i++) {
            tally *const s = &t[i * nw + j];
            const __m512i carry_u64x8 =
                tally_add(s, a1_u64x8[i], a12_u64x8[i], w1_u64x8, w12_u64x8);
            s->count_b512 = _mm512_add_epi64(s->count_b512, _mm512_popcnt_epi64(carry_u64x8));
        }
    }
}

/* Counts the mismatches of na rows of a with nw rows of w: eight int32, in the order of the rows of
 * a. Columns from `columns` on repeat the last one. */
BITOPS_INLINE __m256i group_mismatches(const int na, const int nw, const uint64_t *a, size_t lda,
                                       const uint64_t *w, size_t ldw, size_t columns,
                                       size_t k_words) {
    const uint64_t *a_rows[2], *w_rows[GROUP];
    tally t[GROUP];
    for (int i = 0; i < na; i++)
        a_rows[i] = a + (size_t)i * lda;
    for (int j = 0; j < nw; j++)
        w_rows[j] = w + ((size_t)j < columns ? (size_t)j : columns - 1) * ldw;
    for (int i = 0; i < GROUP; i++)
        t[i] = tally_zero();
    size_t p = 0;
    for (; p + 2 * ZMM_WORDS <= k_words; p += 2 * ZMM_WORDS)
        group_step(t, na, nw, a_rows, w_rows, p, 1, 2 * ZMM_WORDS, (size_t)nw * ldw);
    if (p < k_words)
        group_step(t, na, nw, a_rows, w_rows, p, 0, k_words - p, (size_t)nw * ldw);
    __m512i sums_u64x8[GROUP];
    BITOPS_UNROLL
    for (int i = 0; i < GROUP; i++)
        sums_u64x8[i] = _mm512_add_epi64(_mm512_add_epi64(t[i].count_b512, t[i].count_b512),
                                         _mm512_popcnt_epi64(t[i].ones_b512));
    return _mm512_cvtepi64_epi32(sum_lanes(sums_u64x8));
}

/* Counts the mismatches of na rows of a with `columns` <= 16 rows of w; na is a constant at every
 * call. */
BITOPS_INLINE void rows_mismatches(const int na, const uint64_t *a, size_t lda, const uint64_t *w,
                                   size_t ldw, size_t columns, size_t k_words,
                                   int32_t mismatches_out[2][LANES]) {
    const int nw = GROUP / na;
    for (size_t j = 0; j < columns; j += (size_t)nw) {
        const __m256i eight_i32x8 =
            group_mismatches(na, nw, a, lda, w + j * ldw, ldw, columns - j, k_words);
        if (na == 1) {
            _mm256_storeu_si256((__m256i *)&mismatches_out[0][j], eight_i32x8);
        } else {
            _mm_storeu_si128((__m128i *)&mismatches_out[0][j], _mm256_castsi256_si128(eight_i32x8));
            _mm_storeu_si128((__m128i *)&mismatches_out[1][j],
                             _mm256_extracti128_si256(eight_i32x8, 1));
        }
    }
}

void bitops_gemm_rows_avx512(const uint64_t *a, size_t lda, size_t m, const uint64_t *w, size_t ldw,
                             size_t n, size_t k_words, size_t row, size_t col,
                             const bitops_store *store) {
    BITOPS_ASSUME(col % GROUP == 0);
    for (size_t j = 0; j < n; j += LANES, w += LANES * ldw) {
        const size_t columns = n - j < LANES ? n - j : LANES;
        for (size_t i = 0; i < m; i += 2) {
            int32_t mismatches[2][LANES];
            const size_t rows = m - i < 2 ? 1 : 2;
            if (rows == 2)
                rows_mismatches(2, a + i * lda, lda, w, ldw, columns, k_words, mismatches);
            else
                rows_mismatches(1, a + i * lda, lda, w, ldw, columns, k_words, mismatches);
            for (size_t r = 0; r < rows; r++)
                store_lanes(_mm512_loadu_si512(mismatches[r]), low_bits16(columns), row + i + r,
                            col + j, NULL, store);
        }
    }
}

/* ---- the bound, for benchmarks ------------------------------------------------------------- */

/* Two quads with all operands in registers; their data is whatever the registers hold. */
void bitops_port_bound_avx512(size_t steps, uint64_t *macs_out) {
    enum { OUTPUTS = 8 };
    *macs_out = steps * OUTPUTS * 2 * sizeof(__m512i) * 8; /* two vectors of bits an output */
    if (steps)
        __asm__ volatile(
            "1:\n\t" TALLY_QUAD("%%zmm0", "%%zmm1", "%%zmm2", "%%zmm3", "%%zmm8", "%%zmm9",
                                "%%zmm10", "%%zmm11", "%%zmm24", "%%zmm28", "%%zmm25", "%%zmm29",
                                "%%zmm26", "%%zmm27", "%%zmm30", "%%zmm31")
                TALLY_QUAD("%%zmm4", "%%zmm5", "%%zmm6", "%%zmm7", "%%zmm12", "%%zmm13", "%%zmm14",
                           "%%zmm15", "%%zmm24", "%%zmm28", "%%zmm25", "%%zmm29", "%%zmm26",
                           "%%zmm27", "%%zmm30", "%%zmm31") "dec %[steps]\n\tjnz 1b"
            : [steps] "+r"(steps)
            : [xor3] "i"(XOR3), [carry] "i"(CARRY)
            : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
              "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18",
              "xmm19", "xmm20", "xmm21", "xmm22", "xmm23");
}

BITOPS_TARGET_END

#endif
