/* neon_narrow.c: convolutions of images with few channels, or few in a group; AArch64 Advanced
 * SIMD.
 *
 * narrow.h has the loops. A byte of an output, loaded to all lanes, meets the same byte of 16
 * columns.
 *
 *   intrinsic            instruction   for an output and 16 columns, 16 channels
 *   vld1q_dup_u8         ld1r          18, for all its columns
 *   veorq_u8             eor           18
 *   vcntq_u8             cnt           18
 *   vaddq_u8             add           18
 * Bottleneck: the vector pipes; counted, not timed. Tails: columns in the store. Overflow: bytes of
 * two rows of the kernel count at most 192, those of the third row are added as 16 bits. */
#include "operations.h"
#include "isa/shared/neon.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <string.h>

enum {
    NR = 128,
    LANES = 16,
    TAPS = BITOPS_NARROW_TAPS, /* of a row of the kernel, and rows of it */
    NARROW_OUTPUTS = 1,
};

/* The panel has the bytes of 128 columns, one after the other. */
typedef struct narrow_columns {
    const uint8_t *bytes;
} narrow_columns;

BITOPS_INLINE void narrow_order(size_t channels, int wide, const uint64_t *panel,
                                narrow_columns *columns_out) {
    (void)channels, (void)wide;
    columns_out->bytes = (const uint8_t *)panel;
}

BITOPS_INLINE void narrow_count(const size_t channels, const int wide, const uint8_t *const *pixels,
                                size_t tap_step, const narrow_columns *columns,
                                int32_t *mismatches_out) {
    const size_t run = TAPS * channels / 8;
    const int vectors = wide ? 2 : 1;
    const uint8_t *w = columns->bytes;
    uint8x16_t counts_u8x16[2][2]; /* of the first two rows of the kernel, of the third */
    for (int v = 0; v < vectors; v++)
        counts_u8x16[0][v] = counts_u8x16[1][v] = vdupq_n_u8(0);
    BITOPS_UNROLL
    for (size_t ky = 0; ky < TAPS; ky++) {
        BITOPS_UNROLL
        for (size_t byte = 0; byte < run; byte++, w += NR) {
            const uint8x16_t a_u8x16 = vld1q_dup_u8(pixels[0] + ky * tap_step + byte);
            for (int v = 0; v < vectors; v++)
                counts_u8x16[ky / 2][v] = vaddq_u8(
                    counts_u8x16[ky / 2][v], vcntq_u8(veorq_u8(a_u8x16, vld1q_u8(w + v * LANES))));
        }
    }
    for (int v = 0; v < vectors; v++) {
        const uint16x8_t sums_u16x8[2] = {
            vaddl_u8(vget_low_u8(counts_u8x16[0][v]), vget_low_u8(counts_u8x16[1][v])),
            vaddl_u8(vget_high_u8(counts_u8x16[0][v]), vget_high_u8(counts_u8x16[1][v]))};
        for (int h = 0; h < 2; h++) {
            int32_t *out = mismatches_out + v * LANES + h * 8;
            vst1q_s32(out, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(sums_u16x8[h]))));
            vst1q_s32(out + 4, vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(sums_u16x8[h]))));
        }
    }
}

#include "isa/shared/narrow.h"

void bitops_conv_narrow_neon(const bitops_narrow_lines *image, const uint64_t *panel, size_t n,
                             size_t row, size_t col, const bitops_store *store) {
    conv_narrow(image, panel, n, row, col, store);
}

#endif
