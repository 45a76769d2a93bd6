/* narrow.h: the loops of conv_narrow, for ISAs that count in bytes.
 *
 * With 8, 16 or 32 channels, what an output sees is so short that ordering it into rows takes as
 * long as the product. So lines of pixels without gaps are read as they lie: the taps of a row of
 * the kernel are one run of bytes there, and that of the next output begins a stride later. This is
 * included within the target region of an ISA, below
 *
 *   NARROW_OUTPUTS                  outputs at a time
 *   narrow_columns                  what is made of a panel, once for all outputs
 *   void narrow_order(channels, wide, panel, narrow_columns *columns_out)
 *   void narrow_count(channels, wide, pixels, tap_step, columns, mismatches_out)
 *
 * where narrow_count counts the mismatches of all outputs with 32 columns if `wide`, or else 16, in
 * rows of 32 numbers; outputs that are not there repeat the last one. */
#ifndef BITOPS_NARROW_KERNEL_H
#define BITOPS_NARROW_KERNEL_H

#include "operations.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"

enum { NARROW_COLUMNS = 32 };

/* n dot products of a row; n is a constant at calls that matter. */
BITOPS_INLINE void narrow_dots(const int32_t *mismatches, const int32_t *offset, size_t n,
                               int32_t k, int32_t *c) {
    if (offset)
        BITOPS_INDEPENDENT
    for (size_t j = 0; j < n; j++)
        c[j] = bitops_dot(k, mismatches[j]) + offset[j];
    else BITOPS_INDEPENDENT for (size_t j = 0; j < n; j++) c[j] = bitops_dot(k, mismatches[j]);
}

/* Stores rows of n outputs, from mismatches in rows of 32. */
BITOPS_NOINLINE void narrow_store(const int32_t *mismatches, size_t rows, size_t n, size_t row,
                                  size_t col, const bitops_store *store) {
    if (store->kind != BITOPS_STORE_DOT) {
        store_block(mismatches, NARROW_COLUMNS, rows, n, row, col, store);
        return;
    }
    for (size_t i = 0; i < rows; i++, mismatches += NARROW_COLUMNS) {
        const int32_t *own = store_offset(store, row + i), *offset = own ? own + col : NULL;
        int32_t *c = (int32_t *)store->c + (row + i) * store->ldc + col;
        if (n == 16)
            narrow_dots(mismatches, offset, 16, store->k, c);
        else if (n == 32)
            narrow_dots(mismatches, offset, 32, store->k, c);
        else
            narrow_dots(mismatches, offset, n, store->k, c);
    }
}

/* Channels and wide are constants at every call. */
BITOPS_INLINE void narrow_outputs(const size_t channels, const int wide,
                                  const bitops_narrow_lines *image, const uint64_t *panel, size_t n,
                                  size_t row, size_t col, const bitops_store *store) {
    narrow_columns columns;
    narrow_order(channels, wide, panel, &columns);
    for (size_t y = 0; y < image->lines; y++) {
        const uint8_t *line = image->bytes + y * image->line_step;
        size_t outputs;
        for (size_t x = 0; x < image->outputs; x += outputs, row += outputs) {
            const size_t left = image->outputs - x;
            const uint8_t *pixels[NARROW_OUTPUTS];
            int32_t mismatches[NARROW_OUTPUTS * NARROW_COLUMNS];
            outputs = left < NARROW_OUTPUTS ? left : NARROW_OUTPUTS;
            for (size_t i = 0; i < NARROW_OUTPUTS; i++)
                pixels[i] = line + (x + (i < outputs ? i : outputs - 1)) * image->output_step;
            narrow_count(channels, wide, pixels, image->tap_step, &columns, mismatches);
            narrow_store(mismatches, outputs, n, row, col, store);
        }
    }
}

BITOPS_INLINE void conv_narrow(const bitops_narrow_lines *image, const uint64_t *panel, size_t n,
                               size_t row, size_t col, const bitops_store *store) {
    BITOPS_ASSUME(n > 0 && n <= NARROW_COLUMNS && col % 8 == 0);
    const int wide = n > 16;
    if (image->channels == 8 && !wide)
        narrow_outputs(8, 0, image, panel, n, row, col, store);
    else if (image->channels == 8)
        narrow_outputs(8, 1, image, panel, n, row, col, store);
    else if (image->channels == 16 && !wide)
        narrow_outputs(16, 0, image, panel, n, row, col, store);
    else if (image->channels == 16)
        narrow_outputs(16, 1, image, panel, n, row, col, store);
    else if (!wide)
        narrow_outputs(32, 0, image, panel, n, row, col, store);
    else
        narrow_outputs(32, 1, image, panel, n, row, col, store);
}

#endif
