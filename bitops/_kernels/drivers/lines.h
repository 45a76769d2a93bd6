/* lines.h: passes over lines of images: what windows see of numbers, pools, scales. One thread. */
#ifndef BITOPS_LINES_H
#define BITOPS_LINES_H

#include "bitops.h"

/* Copies what output positions [first, first + rows) of a convolution see to rows of numbers, tap
 * after tap, with zeros outside. Pixels take pixel_bytes, and x is not that of the image. Up to 64
 * bytes behind the last row are overwritten. */
void bitops_gather_numbers(const bitops_image *image, size_t images, size_t pixel_bytes,
                           const char *x, size_t first, size_t rows, char *rows_out);

/* y = y [* alpha] [+ bias], then max(y, 0) if asked, for n / channels pixels; each step is rounded
 * to float32, and NaN stays. */
void bitops_affine_line(float *y, size_t n, size_t channels, const float *alpha, const float *bias,
                        int relu);

/* Pools: line `line` of the outputs of all images. Taps are combined down the columns, then along
 * the line; positions outside do not count. */

/* The largest of each window; NaN if one is in it. `lines` has room for 2 x width x channels. */
void bitops_pool_floats(const bitops_image *image, size_t channels, const float *x,
                        const float *alpha, const float *bias, int relu, size_t line, float *lines,
                        float *y);
/* The OR of each window, or the AND of the channels in `minimum`. */
void bitops_pool_bits(const bitops_image *image, size_t words, const uint64_t *x,
                      const uint64_t *minimum, size_t line, uint64_t *y);

#endif
