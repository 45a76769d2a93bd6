/* narrow.h: the part of conv.c for images with few channels, or few in a group. */
#ifndef BITOPS_DRIVERS_NARROW_H
#define BITOPS_DRIVERS_NARROW_H

#include "bitops.h"

/* Whether the ISA has a kernel for the convolution. It needs no workspace. */
int bitops_is_narrow_conv(const bitops_isa *isa, const bitops_conv_args *args);
/* args->store is complete, offsets included. */
void bitops_narrow_conv(const bitops_isa *isa, const bitops_conv_args *args, int n_threads);

#endif
