/* kinds.h: switches whose cases are calls with a constant, so that the loops within have no switch.
 */
#ifndef BITOPS_KINDS_H
#define BITOPS_KINDS_H

#include "operations.h"

/* f(constant, ...) */
#define BITOPS_CASE(constant, f, ...)                                                              \
    case constant:                                                                                 \
        f(constant, __VA_ARGS__);                                                                  \
        break

/* The kinds of stores that each have a loop of their own over short rows. */
#define BITOPS_STORE_CASES(f, ...)                                                                 \
    BITOPS_CASE(BITOPS_STORE_DOT, f, __VA_ARGS__);                                                 \
    BITOPS_CASE(BITOPS_STORE_SCALED, f, __VA_ARGS__);                                              \
    BITOPS_CASE(BITOPS_STORE_HAMMING, f, __VA_ARGS__);                                             \
    BITOPS_CASE(BITOPS_STORE_HAMMING16, f, __VA_ARGS__);                                           \
    BITOPS_CASE(BITOPS_STORE_HAMMING8, f, __VA_ARGS__);                                            \
    BITOPS_CASE(BITOPS_STORE_SIGN, f, __VA_ARGS__);                                                \
    BITOPS_CASE(BITOPS_STORE_TOPK, f, __VA_ARGS__)

#endif
