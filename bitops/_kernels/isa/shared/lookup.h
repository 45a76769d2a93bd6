/* lookup.h: what the kernels of numbers times weights share, for the ISA that includes this. */
#ifndef BITOPS_LOOKUP_H
#define BITOPS_LOOKUP_H

#include "operations.h"
#include "isa/shared/target.h"

#include <string.h>

enum {
    COLUMNS = BITOPS_LOOKUP_COLUMNS,
    HALF_BITS = 32,         /* bits of a column side by side in a panel */
    GROUPS = HALF_BITS / 4, /* of 4 elements, with a table each */
    ENTRIES = 16,           /* of a table */
};

/* bitops_lookup_tables_<type>_<isa> from tables(x, out), which makes the tables of 32 elements; the
 * last ones are copied, with zeros behind them. */
#define DEFINE_LOOKUP_TABLES(isa, type, number, sum, tables)                                       \
    void bitops_lookup_tables_##type##_##isa(const void *x_in, size_t k, void *tables_out) {       \
        const number *x = x_in;                                                                    \
        sum *out = tables_out;                                                                     \
        for (; k >= HALF_BITS; k -= HALF_BITS, x += HALF_BITS, out += GROUPS * ENTRIES)            \
            tables(x, out);                                                                        \
        if (k) {                                                                                   \
            number padded[HALF_BITS] = {0};                                                        \
            memcpy(padded, x, k * sizeof *x);                                                      \
            tables(padded, out);                                                                   \
        }                                                                                          \
    }

/* tile(rows, ...) with a constant, 1 .. BITOPS_LOOKUP_ROWS, in the place of rows, so that its loops
 * over rows unroll. */
#define CALL_WITH_ROWS(tile, rows, ...)                                                            \
    switch (rows) {                                                                                \
    case 1:                                                                                        \
        tile(1, __VA_ARGS__);                                                                      \
        break;                                                                                     \
    case 2:                                                                                        \
        tile(2, __VA_ARGS__);                                                                      \
        break;                                                                                     \
    case 3:                                                                                        \
        tile(3, __VA_ARGS__);                                                                      \
        break;                                                                                     \
    case 4:                                                                                        \
        tile(4, __VA_ARGS__);                                                                      \
        break;                                                                                     \
    }

#endif
