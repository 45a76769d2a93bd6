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
#include "operations.h"
#include "isa/shared/avx512.h"
#include "isa/shared/avx512_store.h"
#include "isa/shared/avx512_tally.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

BITOPS_TARGET_BEGIN("avx2,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vpopcntdq,prfchw")

enum { MR = 4, NR = 32 };

/* ---- primitives ---------------------------------------------------------------------------- */

BITOPS_INLINE __m512i broadcast32(const char *x) {
    int32_t v;
    memcpy(&v, x, sizeof v);
    return _mm512_set1_epi32(v);
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

/* Writes the words of 16 columns to half a panel: low, low ^ high. Lane j of even and odd holds the
 * word of column 2 j or 2 j + 1 if paired, else that of column j or 8 + j. */
BITOPS_INLINE void write_word(const int paired, __m512i even_u64x8, __m512i odd_u64x8,
                              uint64_t *panel_out) {
    const __m512i low_u32x16 =
        paired ? _mm512_set_epi32(30, 14, 28, 12, 26, 10, 24, 8, 22, 6, 20, 4, 18, 2, 16, 0)
               : _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i high_u32x16 = _mm512_add_epi32(low_u32x16, _mm512_set1_epi32(1));
    const __m512i w1_u32x16 = _mm512_permutex2var_epi32(even_u64x8, low_u32x16, odd_u64x8);
    const __m512i w2_u32x16 = _mm512_permutex2var_epi32(even_u64x8, high_u32x16, odd_u64x8);
    _mm512_storeu_si512(panel_out, w1_u32x16);
    _mm512_storeu_si512(panel_out + ZMM_WORDS, _mm512_xor_si512(w1_u32x16, w2_u32x16));
}

/* Writes up to 8 words of 16 columns, which are n <= 16 rows of w, to half a panel. */
BITOPS_INLINE void prepack_half(const uint64_t *w, size_t ldw, size_t n, size_t words,
                                uint64_t *panel_out) {
    __m512i v_u64x8[LANES];
    for (size_t j = 0; j < LANES; j++)
        v_u64x8[j] = j < n ? _mm512_maskz_loadu_epi64(low_bits8(words), w + j * ldw)
                           : _mm512_setzero_si512();
    transpose_words(v_u64x8);
    transpose_words(v_u64x8 + 8);
    for (size_t p = 0; p < words; p++)
        write_word(0, v_u64x8[p], v_u64x8[8 + p], panel_out + p * NR);
}

/* The same for 16 rows of 1, 2 or 4 words without gaps, of which a vector holds several. */
BITOPS_INLINE void prepack_half_1(const uint64_t *w, uint64_t *panel_out) {
    write_word(0, _mm512_loadu_si512(w), _mm512_loadu_si512(w + ZMM_WORDS), panel_out);
}

BITOPS_INLINE void prepack_half_2(const uint64_t *w, uint64_t *panel_out) {
    for (size_t p = 0; p < 2; p++) {
        const __m512i word_u64x8 = _mm512_add_epi64(_mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0),
                                                    _mm512_set1_epi64((int64_t)p));
        const __m512i first_u64x8 = _mm512_permutex2var_epi64(_mm512_loadu_si512(w), word_u64x8,
                                                              _mm512_loadu_si512(w + ZMM_WORDS));
        const __m512i last_u64x8 =
            _mm512_permutex2var_epi64(_mm512_loadu_si512(w + 2 * ZMM_WORDS), word_u64x8,
                                      _mm512_loadu_si512(w + 3 * ZMM_WORDS));
        write_word(0, first_u64x8, last_u64x8, panel_out + p * NR);
    }
}

BITOPS_INLINE void prepack_half_4(const uint64_t *w, uint64_t *panel_out) {
    __m512i v_u64x8[8]; /* two columns each */
    for (size_t i = 0; i < 8; i++)
        v_u64x8[i] = _mm512_loadu_si512(w + i * ZMM_WORDS);
    transpose_words(v_u64x8);
    for (size_t p = 0; p < 4; p++)
        write_word(1, v_u64x8[p], v_u64x8[4 + p], panel_out + p * NR);
}

/* Whether it was such rows. */
BITOPS_INLINE int prepack_dense(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                                uint64_t *panel_out) {
    if (n != NR || ldw != k_words)
        return 0;
    for (size_t half = 0; half < NR; half += LANES)
        switch (k_words) {
        case 1:
            prepack_half_1(w + half, panel_out + half);
            break;
        case 2:
            prepack_half_2(w + 2 * half, panel_out + half);
            break;
        case 4:
            prepack_half_4(w + 4 * half, panel_out + half);
            break;
        default:
            return 0;
        }
    return 1;
}

void bitops_prepack_avx512(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                           uint64_t *panel_out) {
    BITOPS_ASSUME(n <= NR);
    if (prepack_dense(w, ldw, n, k_words, panel_out))
        return;
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

/* A tile of these by way of memory, since code that is inlined there takes registers from all
 * tiles. */
BITOPS_NOINLINE void store_set_tile(const int32_t *mismatches, size_t ld, size_t rows, size_t n,
                                    size_t row, size_t col, const bitops_store *store) {
    for (size_t i = 0; i < rows; i++, mismatches += ld)
        for (size_t j = 0; j < n; j += LANES)
            store_set_lanes(_mm512_loadu_si512(mismatches + j), low_bits16(n - j), row + i, col + j,
                            store);
}

/* rows x vecs vectors of 16 columns; both are constants at every call, so the loops unroll. */
BITOPS_INLINE void tile(const int rows, const int vecs, const uint64_t *a, size_t lda,
                        const uint64_t *panel, size_t n, size_t k_words, size_t row, size_t col,
                        const bitops_store *store) {
    tally t[MR][2];
    BITOPS_UNROLL /* or t is in memory */
    for (int i = 0; i < rows; i++) {
        prefetch_lanes(row + (size_t)i, col, vecs, store);
        BITOPS_UNROLL
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

    if (store->w_counts) {
        int32_t mismatches[MR][NR];
        BITOPS_UNROLL
        for (int i = 0; i < rows; i++) {
            BITOPS_UNROLL
            for (int v = 0; v < vecs; v++)
                _mm512_storeu_si512(mismatches[i] + v * LANES, tally_total(t[i][v]));
        }
        store_set_tile(mismatches[0], NR, (size_t)rows, n, row, col, store);
        return;
    }
    BITOPS_UNROLL
    for (int i = 0; i < rows; i++) {
        const int32_t *offset = store_offset(store, row + (size_t)i);
        BITOPS_UNROLL
        for (int v = 0; v < vecs; v++) {
            const size_t first = (size_t)v * LANES;
            store_lanes(store->kind, tally_total(t[i][v]), low_bits16(n - first), row + (size_t)i,
                        col + first, offset, store);
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
