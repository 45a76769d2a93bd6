/* tables.h: what products by tables ("four Russians") share, for the ISA that includes this.
 *
 * A word of a row is cut into 12 groups of 5 bits and one of 4. Each group selects an entry of its
 * own table, a vector of counters, and the entries are added:
 *
 *   word   ...  01101  00011  11000
 *                 |      |      |
 *                 |      |      +--->  table 0, entry 24
 *                 |      +---------->  table 1, entry 3
 *                 +----------------->  table 2, entry 13
 *
 * Entry e holds the mismatches of pattern e with the bits of 128 columns, in nibbles. The tables of
 * one word take 27 KiB. TABLE_STRIDE is a line more than a table, so that equal bits in all groups,
 * as in rows of zeros, look up lines of different cache sets: loads from a single set took twice as
 * long.
 *
 * Each row has 8-bit counters, which grow by at most 64 a word and are full after FLUSH_WORDS (192
 * <= 255), and 16-bit ones, into which they are emptied. */
#ifndef BITOPS_TABLES_H
#define BITOPS_TABLES_H

enum {
    GROUP_BITS = 5,
    GROUPS = 13,      /* 12 of 5 bits and one of 4 */
    ENTRY_BYTES = 64, /* 128 columns */
    TABLE_STRIDE = (ENTRY_BYTES << GROUP_BITS) + 64,
    FLUSH_WORDS = 3,
};

/* add(parts, first, last, ...) with constants, 0 or 1, in the place of `first` (8-bit counters
 * start at 0) and `last` (they are emptied). */
#define CALL_WITH_ENDS(add, parts, first, last, ...)                                               \
    do {                                                                                           \
        if ((first) && (last))                                                                     \
            add(parts, 1, 1, __VA_ARGS__);                                                         \
        else if (first)                                                                            \
            add(parts, 1, 0, __VA_ARGS__);                                                         \
        else if (last)                                                                             \
            add(parts, 0, 1, __VA_ARGS__);                                                         \
        else                                                                                       \
            add(parts, 0, 0, __VA_ARGS__);                                                         \
    } while (0)

#endif
