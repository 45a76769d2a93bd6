/* float_conv.h: convolutions of float32 images with float32 filters, for ISAs with conv_f32. */
#ifndef BITOPS_FLOAT_CONV_H
#define BITOPS_FLOAT_CONV_H

#include "bitops.h"

/* Numbers that the panels of an n x k matrix take, and the panels themselves: for each
 * BITOPS_FLOAT_COLUMNS rows of w, those of each k. */
size_t bitops_float_panels_size(size_t n, size_t k);
void bitops_float_panels(const float *w, size_t n, size_t k, float *panels_out);

/* All sizes are at least 1; pixel_words and x of the image are not used. Outputs go through the
 * steps of affine_f32, if any is asked for. */
typedef struct bitops_float_conv_args {
    bitops_image image;
    size_t images;
    size_t n; /* filters */
    const float *panels;
    const float *alpha, *bias;
    int relu;
} bitops_float_conv_args;

size_t bitops_float_conv_workspace_size(const bitops_float_conv_args *args, int n_threads);
void bitops_float_conv(const bitops_isa *isa, const bitops_float_conv_args *args, const float *x,
                       float *y, void *workspace, bitops_stop *stop, int n_threads);

#endif
