/* depthwise.h: the part of conv.c for filters that see one channel each. */
#ifndef BITOPS_DRIVERS_DEPTHWISE_H
#define BITOPS_DRIVERS_DEPTHWISE_H

#include "bitops.h"

/* args->store is complete, offsets included. */
size_t bitops_depthwise_workspace_size(const bitops_conv_args *args, int n_threads);
void bitops_depthwise(const bitops_isa *isa, const bitops_conv_args *args, void *workspace,
                      int n_threads);

#endif
