/* avx512_narrow.c: convolutions of images with few channels, or few in a group; AVX-512 F, BW, VL,
 * VPOPCNTDQ.
 *
 * With 8, 16 or 32 channels, what an output sees is so short that ordering it into rows takes as
 * long as the product. So lines of pixels without gaps are read as they lie: the taps of a row of
 * the kernel are one run of bytes there, and that of the next output begins a stride later. A
 * `part` is 32 bits of a run, broadcast to 16 columns by a load that begins at any byte:
 *
 *   line of pixels, 16 channels   | x - 1 | x     | x + 1 | x + 2 | ...
 *   row of a 3 x 3 kernel         |-- part 0 -----|-- half a part --|
 *
 * The third taps of two rows share a part; what lies behind the end of a run is masked. Weights are
 * cut in the same way from the panel of avx512.c, once for all outputs of a call, and stay in
 * registers. Parts are taken in pairs, carry-save as in avx512.c but without a12 and w12, which
 * would have to be made for each output:
 *     u = ones ^ a1 ^ w1,  next = u ^ a2 ^ w2,  carry = u != 0 ? ~next : ones
 *
 *   vector operations for 16 outputs: 12 for 8 channels, 18 for 16, 26 for 32
 * Bottleneck: the two vector ports. Tails: columns are masked in the store; the last load of a line
 * reads up to 3 bytes behind its last pixel. Overflow: counters count at most 288. */
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

enum {
    NR = 32,
    TAPS = BITOPS_NARROW_TAPS, /* of a row of the kernel, and rows of it */
    MAX_PARTS = 9,
    UPPER = (int)0xffff0000,
};

/* Truth tables of vpternlog. */
enum {
    XOR_AND = 0x28, /* (a ^ b) & c */
    SELECT = 0xca,  /* a ? b : c */
    CARRY_OF = 0x3a /* u ? ~next : ones, of (u, next, ones) */
};

/* Parts that an output sees. */
BITOPS_INLINE int count_parts(const int channels) {
    return channels == 8 ? 3 : channels == 16 ? 5 : 9;
}

/* The bits of the last part of a run that belong to it. */
BITOPS_INLINE int last_mask(const int channels) {
    return channels == 8 ? 0x00ffffff : channels == 16 ? 0x0000ffff : -1;
}

/* Whether a part has bits that do not count. */
BITOPS_INLINE int is_masked(const int channels, int part) {
    return channels == 8 || (channels == 16 && part == 4);
}

/* ---- weights ------------------------------------------------------------------------------- */

/* 32 bits of the rows of 16 columns, from `bit` on. `halves` are the halves of their words. */
BITOPS_INLINE __m512i cut_bits(const __m512i *halves_b512, int bit) {
    const __m512i low_b512 = halves_b512[bit / 32];
    if (bit % 32 == 0)
        return low_b512;
    return _mm512_or_si512(_mm512_srli_epi32(low_b512, (unsigned)(bit % 32)),
                           _mm512_slli_epi32(halves_b512[bit / 32 + 1], (unsigned)(32 - bit % 32)));
}

/* Cuts the weights of 16 columns, which are half a panel, into parts. */
BITOPS_INLINE void cut_weights(const int channels, const uint64_t *panel, __m512i *parts_b512) {
    __m512i halves_b512[2 * BITOPS_SHORT_WORDS] = {0};
    const int words = (TAPS * TAPS * channels + BITOPS_WORD_BITS - 1) / BITOPS_WORD_BITS;
    BITOPS_UNROLL
    for (int p = 0; p < words; p++) {
        halves_b512[2 * p] = _mm512_loadu_si512(panel + p * NR);
        halves_b512[2 * p + 1] =
            _mm512_xor_si512(halves_b512[2 * p], _mm512_loadu_si512(panel + p * NR + ZMM_WORDS));
    }
    if (channels == 16) {
        BITOPS_UNROLL
        for (int ky = 0; ky < TAPS; ky++)
            parts_b512[ky] = cut_bits(halves_b512, ky * 48);
        parts_b512[3] = _mm512_ternarylogic_epi32(
            _mm512_set1_epi32(UPPER), cut_bits(halves_b512, 16), cut_bits(halves_b512, 80), SELECT);
        parts_b512[4] = cut_bits(halves_b512, 128);
        return;
    }
    BITOPS_UNROLL
    for (int part = 0; part < count_parts(channels); part++)
        parts_b512[part] = cut_bits(halves_b512, channels == 8 ? part * 24 : part * 32);
}

/* ---- outputs ------------------------------------------------------------------------------- */

BITOPS_INLINE __m512i broadcast(const uint8_t *bytes) {
    int32_t v;
    memcpy(&v, bytes, sizeof v);
    return _mm512_set1_epi32(v);
}

/* A part of what an output sees; lines are tap_step apart. */
BITOPS_INLINE __m512i load_part(const int channels, const uint8_t *pixels, size_t tap_step,
                                int part) {
    if (channels == 8)
        return broadcast(pixels + (size_t)part * tap_step);
    if (channels == 32)
        return broadcast(pixels + (size_t)(part / TAPS) * tap_step + part % TAPS * 4);
    if (part < TAPS)
        return broadcast(pixels + (size_t)part * tap_step);
    if (part == TAPS + 1)
        return broadcast(pixels + 2 * tap_step + 4);
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(UPPER), broadcast(pixels + 2),
                                     broadcast(pixels + tap_step + 4), SELECT);
}

/* Mismatches of an output's parts with those of 16 columns. */
BITOPS_INLINE __m512i count_mismatches(const int channels, const __m512i *a_b512,
                                       const __m512i *w_b512) {
    const __m512i mask_b512 = _mm512_set1_epi32(last_mask(channels));
    __m512i ones_b512 = is_masked(channels, 0)
                            ? _mm512_ternarylogic_epi32(a_b512[0], w_b512[0], mask_b512, XOR_AND)
                            : _mm512_xor_si512(a_b512[0], w_b512[0]);
    __m512i count_i32x16 = _mm512_setzero_si512();
    BITOPS_UNROLL
    for (int p = 1; p < count_parts(channels); p += 2) {
        __m512i u_b512, next_b512;
        if (is_masked(channels, p))
            u_b512 = _mm512_xor_si512(
                ones_b512, _mm512_ternarylogic_epi32(a_b512[p], w_b512[p], mask_b512, XOR_AND));
        else
            u_b512 = xor3(a_b512[p], w_b512[p], ones_b512);
        if (is_masked(channels, p + 1))
            next_b512 =
                _mm512_xor_si512(u_b512, _mm512_ternarylogic_epi32(a_b512[p + 1], w_b512[p + 1],
                                                                   mask_b512, XOR_AND));
        else
            next_b512 = xor3(a_b512[p + 1], w_b512[p + 1], u_b512);
        const __m512i carry_b512 =
            _mm512_ternarylogic_epi32(u_b512, next_b512, ones_b512, CARRY_OF);
        const __m512i carries_i32x16 = _mm512_popcnt_epi32(carry_b512);
        count_i32x16 = p == 1 ? carries_i32x16 : _mm512_add_epi32(count_i32x16, carries_i32x16);
        ones_b512 = next_b512;
    }
    return tally_total((tally){ones_b512, count_i32x16});
}

/* Everything but image, n and store is a constant at every call. */
BITOPS_INLINE void narrow_outputs(const int channels, const int vectors,
                                  const bitops_store_kind kind, const bitops_narrow_lines *image,
                                  const uint64_t *panel, size_t n, size_t row, size_t col,
                                  const bitops_store *store) {
    enum { AHEAD = 1024 };           /* bytes, at least */
    const bitops_store own = *store; /* stores to c cannot change it */
    const size_t row_bytes = own.ldc * store_number_size(kind);
    const size_t ahead = row_bytes ? (AHEAD + row_bytes - 1) / row_bytes * row_bytes : 0;
    const __mmask16 last = low_bits16(n - (size_t)(vectors - 1) * LANES);
    __m512i w_b512[2][MAX_PARTS];
    BITOPS_UNROLL
    for (int v = 0; v < vectors; v++)
        cut_weights(channels, panel + v * LANES, w_b512[v]);
    for (size_t y = 0; y < image->lines; y++) {
        const uint8_t *pixels = image->bytes + y * image->line_step;
        for (size_t x = 0; x < image->outputs; x++, row++, pixels += image->output_step) {
            const int32_t *offset = store_offset(&own, row);
            __m512i a_b512[MAX_PARTS];
            BITOPS_UNROLL
            for (int part = 0; part < count_parts(channels); part++)
                a_b512[part] = load_part(channels, pixels, image->tap_step, part);
            BITOPS_UNROLL
            for (int v = 0; v < vectors; v++) {
                const size_t j = col + (size_t)v * LANES;
                if (row_bytes)
                    __builtin_prefetch((const char *)own.c + row * row_bytes + j * 4 + ahead, 1, 3);
                store_lanes(kind, count_mismatches(channels, a_b512, w_b512[v]),
                            v == vectors - 1 ? last : 0xffff, row, j, offset, &own);
            }
        }
    }
}

BITOPS_INLINE void narrow_kinds(const int channels, const int vectors,
                                const bitops_narrow_lines *image, const uint64_t *panel, size_t n,
                                size_t row, size_t col, const bitops_store *store) {
    switch (store->kind) {
    case BITOPS_STORE_DOT:
        narrow_outputs(channels, vectors, BITOPS_STORE_DOT, image, panel, n, row, col, store);
        break;
    case BITOPS_STORE_SCALED:
        narrow_outputs(channels, vectors, BITOPS_STORE_SCALED, image, panel, n, row, col, store);
        break;
    default:
        narrow_outputs(channels, vectors, BITOPS_STORE_SIGN, image, panel, n, row, col, store);
        break;
    }
}

void bitops_conv_narrow_avx512(const bitops_narrow_lines *image, const uint64_t *panel, size_t n,
                               size_t row, size_t col, const bitops_store *store) {
    BITOPS_ASSUME(n > 0 && n <= NR && col % 8 == 0);
    const int one = n <= LANES;
    if (image->channels == 8 && one)
        narrow_kinds(8, 1, image, panel, n, row, col, store);
    else if (image->channels == 8)
        narrow_kinds(8, 2, image, panel, n, row, col, store);
    else if (image->channels == 16 && one)
        narrow_kinds(16, 1, image, panel, n, row, col, store);
    else if (image->channels == 16)
        narrow_kinds(16, 2, image, panel, n, row, col, store);
    else if (one)
        narrow_kinds(32, 1, image, panel, n, row, col, store);
    else
        narrow_kinds(32, 2, image, panel, n, row, col, store);
}

BITOPS_TARGET_END

#endif
