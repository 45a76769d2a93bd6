/* lines.h: passes over lines of images: what windows see of numbers, pools. One thread. */
#ifndef BITOPS_LINES_H
#define BITOPS_LINES_H

#include "bitops.h"

/* Copies what output positions [first, first + rows) of a convolution see to rows of numbers, tap
 * after tap, with zeros outside. Pixels take pixel_bytes, and x is not that of the image. */
void bitops_gather_numbers(const bitops_image *image, size_t images, size_t pixel_bytes,
                           const char *x, size_t first, size_t rows, char *rows_out);

/* Pools: line `line` of the outputs of all images. Taps are combined down the columns, then along
 * the line; positions outside do not count. `column` has room for width pixels. */

/* The largest of each window; NaN if one is in it. */
void bitops_pool_floats(const bitops_isa *isa, const bitops_image *image, size_t channels,
                        const float *x, size_t line, float *column, float *y);
/* The OR of each window, or the AND of the channels in `minimum`. */
void bitops_pool_bits(const bitops_image *image, size_t words, const uint64_t *x,
                      const uint64_t *minimum, size_t line, uint64_t *column, uint64_t *y);

#endif
