/* lanes.h: numbers times +-1 weights with rows of x in lanes, for the ISA that includes this.
 *
 * Four elements of k have 16 sums +-x0 +-x1 +-x2 +-x3. An entry of a table holds one of them for as
 * many rows as BITOPS_LANES_BYTES have numbers, and 4 bits of a row of w select the entry. So a
 * step is an addition from memory whose address comes from the bits; there is nothing to permute.
 *
 *   word of w, turned     ... ssss.......   s: the bits in their place as offset of an entry
 *   and 15 * 128          ... ssss0000000
 *
 * The tables of 64 elements of k (32 KiB) stay in the first-level cache while all columns pass. */
#ifndef BITOPS_LANES_H
#define BITOPS_LANES_H

#include "operations.h"
#include "isa/shared/target.h"

enum {
    LANES_ENTRIES = 16,
    LANES_TABLE = LANES_ENTRIES * BITOPS_LANES_BYTES,
    LANES_OFFSET_BIT = 7,                           /* BITOPS_LANES_BYTES == 1 << 7 */
    LANES_TURN_GROUPS = BITOPS_LANES_STEP_BITS / 4, /* groups of 4 bits until a word is turned */
};

BITOPS_INLINE uint64_t turn_right(uint64_t word, unsigned bits) {
    return word >> (bits & 63) | word << (-bits & 63);
}

BITOPS_INLINE const char *lanes_entry(const char *table, uint64_t turned) {
    const char *entry = table + (turned & (LANES_ENTRIES - 1) << LANES_OFFSET_BIT);
    /* All offsets of a column at once would not fit the registers; one after the other do. */
    BITOPS_IN_ORDER(entry);
    return entry;
}

/* The kernels of one type of numbers.
 *   lanes, vecs, columns     numbers and vectors of an entry; columns whose sums stay in registers
 *   read(x)                  a vector of numbers, widened to the type of the sums
 *   widen(v, wide, first)    adds a vector of sums to int32, or stores it there; uint8 only */
#define DEFINE_LANES(isa, type, number, lanes, vec, vecs, columns, zero, read, load, store, add,   \
                     sub, widen)                                                                   \
    void bitops_lanes_tables_##type##_##isa(const void *x_in, size_t ldx, void *tables_out) {      \
        const size_t width = BITOPS_LANES_BYTES / vecs;                                            \
        const number *x = x_in;                                                                    \
        for (size_t group = 0; group < BITOPS_LANES_BITS / 4; group++, x += 4 * ldx)               \
            for (size_t v = 0; v < vecs; v++) {                                                    \
                const number *at = x + v * (lanes / vecs);                                         \
                char *out = (char *)tables_out + group * LANES_TABLE + v * width;                  \
                const vec x0 = read(at), x1 = read(at + ldx), x2 = read(at + 2 * ldx),             \
                          x3 = read(at + 3 * ldx), both = add(x0, x1);                             \
                const vec two[4] = {sub(zero, both), sub(x0, x1), sub(x1, x0), both};              \
                BITOPS_UNROLL                                                                      \
                for (size_t e = 0; e < 4; e++, out += BITOPS_LANES_BYTES) {                        \
                    const vec minus = sub(two[e], x2), plus = add(two[e], x2);                     \
                    store(out, sub(minus, x3));                                                    \
                    store(out + 4 * BITOPS_LANES_BYTES, sub(plus, x3));                            \
                    store(out + 8 * BITOPS_LANES_BYTES, add(minus, x3));                           \
                    store(out + 12 * BITOPS_LANES_BYTES, add(plus, x3));                           \
                }                                                                                  \
            }                                                                                      \
    }                                                                                              \
                                                                                                   \
    BITOPS_INLINE void lanes_block_##type(const size_t n, const bitops_lanes *t, size_t col) {     \
        const size_t width = BITOPS_LANES_BYTES / vecs;                                            \
        const uint64_t *w = t->w + col;                                                            \
        char *out = (char *)t->sums + col * BITOPS_LANES_BYTES;                                    \
        const char *tables = t->tables;                                                            \
        uint64_t bits[columns];                                                                    \
        vec sums[columns][vecs];                                                                   \
        BITOPS_UNROLL                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            bits[i] = turn_right(w[i], 64 - LANES_OFFSET_BIT);                                     \
            BITOPS_UNROLL                                                                          \
            for (size_t v = 0; v < vecs; v++)                                                      \
                sums[i][v] = t->first ? zero : load(out + i * BITOPS_LANES_BYTES + v * width);     \
        }                                                                                          \
        for (size_t steps = t->steps; steps > 0; steps--) {                                        \
            BITOPS_UNROLL                                                                          \
            for (unsigned group = 0; group < LANES_TURN_GROUPS; group++, tables += LANES_TABLE) {  \
                BITOPS_UNROLL                                                                      \
                for (size_t i = 0; i < n; i++) {                                                   \
                    const char *entry = lanes_entry(tables, turn_right(bits[i], 4 * group));       \
                    BITOPS_UNROLL                                                                  \
                    for (size_t v = 0; v < vecs; v++)                                              \
                        sums[i][v] = add(sums[i][v], load(entry + v * width));                     \
                }                                                                                  \
            }                                                                                      \
            BITOPS_UNROLL                                                                          \
            for (size_t i = 0; i < n; i++)                                                         \
                bits[i] = turn_right(bits[i], BITOPS_LANES_STEP_BITS);                             \
        }                                                                                          \
        BITOPS_UNROLL                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            BITOPS_UNROLL                                                                          \
            for (size_t v = 0; v < vecs; v++) {                                                    \
                if (t->wide)                                                                       \
                    widen(sums[i][v], t->wide + (col + i) * lanes + v * (lanes / vecs),            \
                          t->first_wide);                                                          \
                else                                                                               \
                    store(out + i * BITOPS_LANES_BYTES + v * width, sums[i][v]);                   \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    void bitops_lanes_##type##_##isa(const bitops_lanes *t) {                                      \
        size_t col = 0;                                                                            \
        for (; col + columns <= t->n; col += columns)                                              \
            lanes_block_##type(columns, t, col);                                                   \
        for (; col < t->n; col++)                                                                  \
            lanes_block_##type(1, t, col);                                                         \
    }

/* The body of turn_32: whole squares of `side` by turn(in, ld_in, out, ld_out), edges one by one.
 */
#define TURN_SQUARES(side, turn)                                                                   \
    const size_t whole_rows = rows / side * side, whole_columns = columns / side * side;           \
    const uint32_t *from = in;                                                                     \
    uint32_t *to = turned_out;                                                                     \
    for (size_t i = 0; i < whole_rows; i += side)                                                  \
        for (size_t j = 0; j < whole_columns; j += side)                                           \
            turn(from + i * ld_in + j, ld_in, to + j * ld_out + i, ld_out);                        \
    for (size_t i = 0; i < rows; i++)                                                              \
        for (size_t j = i < whole_rows ? whole_columns : 0; j < columns; j++)                      \
            to[j * ld_out + i] = from[i * ld_in + j];

/* float32 is never widened. */
#define LANES_KEEP(v, wide, first) (void)0

#endif
