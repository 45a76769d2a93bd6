/* taps.h: which taps of a kernel lie inside the image, in one direction. */
#ifndef BITOPS_TAPS_H
#define BITOPS_TAPS_H

#include "bitops.h"
#include "drivers/sizes.h"

/* One direction of a convolution. */
typedef struct taps_axis {
    size_t outputs, taps, stride, dilation, pad, size;
} taps_axis;

static inline taps_axis vertical_taps(const bitops_image *im) {
    const taps_axis a = {im->out_height, im->kernel_height, im->stride_y,
                         im->dilation_y, im->pad_top,       im->height};
    return a;
}

static inline taps_axis horizontal_taps(const bitops_image *im) {
    const taps_axis a = {im->out_width,  im->kernel_width, im->stride_x,
                         im->dilation_x, im->pad_left,     im->width};
    return a;
}

/* The taps that lie inside: [begin, end). */
typedef struct tap_range {
    size_t begin, end;
} tap_range;

static inline tap_range taps_inside(const taps_axis *a, size_t output) {
    const size_t first = output * a->stride, end = a->size + a->pad;
    tap_range r = {0, a->taps};
    if (first < a->pad)
        r.begin = min_size(ceil_div(a->pad - first, a->dilation), a->taps);
    if (first + (a->taps - 1) * a->dilation >= end)
        r.end = end > first ? ceil_div(end - first, a->dilation) : 0;
    r.end = max_size(r.begin, r.end);
    return r;
}

#endif
