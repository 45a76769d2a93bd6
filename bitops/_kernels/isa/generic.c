/* generic.c: portable C without intrinsics, the specification of every kernel and the fallback.
 *
 * popcount64 sums ever wider fields, since a plain x86-64 has no popcnt instruction. Panel: for
 * every word of k, that word of each of the nr columns. */
#include "operations.h"
#include "isa/shared/adam_step.h"
#include "isa/shared/floats.h"
#include "isa/shared/norm.h"
#include "isa/shared/prelu.h"
#include "isa/shared/lanes.h"
#include "isa/shared/lookup.h"
#include "isa/shared/mirror.h"
#include "isa/shared/store.h"
#include "isa/shared/target.h"
#include "isa/shared/turn.h"

#include <string.h>

enum { BLOCK_WORDS = 2 }; /* of 128 bits */

#include "isa/shared/columns.h"
#include "isa/shared/roll.h"

enum { NR = 8 };

BITOPS_INLINE uint64_t popcount64(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return x * 0x0101010101010101u >> 56;
}

/* ---- pack, unpack, popcount ---------------------------------------------------------------- */

#define DEFINE_PACK(op, type, is_plus, is_nan)                                                     \
    void bitops_##op##_generic(const type *x, size_t n, uint64_t *words_out, int *nan) {           \
        int found = 0;                                                                             \
        for (size_t first = 0; first < n; first += BITOPS_WORD_BITS) {                             \
            const size_t left = n - first;                                                         \
            const size_t bits = left < BITOPS_WORD_BITS ? left : BITOPS_WORD_BITS;                 \
            uint64_t word = 0;                                                                     \
            for (size_t i = 0; i < bits; i++) {                                                    \
                const type v = x[first + i];                                                       \
                word |= (uint64_t)(is_plus) << i;                                                  \
                found |= (is_nan);                                                                 \
            }                                                                                      \
            words_out[first / BITOPS_WORD_BITS] = word;                                            \
        }                                                                                          \
        if (found)                                                                                 \
            *nan = 1;                                                                              \
    }

DEFINE_PACK(pack_bool8, uint8_t, v != 0, 0)
DEFINE_PACK(pack_i8, int8_t, v >= 0, 0)
DEFINE_PACK(pack_i16, int16_t, v >= 0, 0)
DEFINE_PACK(pack_i32, int32_t, v >= 0, 0)
DEFINE_PACK(pack_i64, int64_t, v >= 0, 0)
/* Bits of halves: only a sign with a magnitude is negative. */
DEFINE_PACK(pack_f16, uint16_t, v <= 0x8000, (v & 0x7fff) > 0x7c00)
DEFINE_PACK(pack_bf16, uint16_t, v <= 0x8000, (v & 0x7fff) > 0x7f80)
DEFINE_PACK(pack_f32, float, v >= 0, v != v)
DEFINE_PACK(pack_f64, double, v >= 0, v != v)

#define DEFINE_COMPARE(op, type, is_nan)                                                           \
    void bitops_##op##_generic(const type *x, const float *threshold, size_t n,                    \
                               uint64_t *words_out, int *nan) {                                    \
        for (size_t i = 0; i < n; i++) {                                                           \
            const size_t bit = i % BITOPS_WORD_BITS;                                               \
            uint64_t *word = words_out + i / BITOPS_WORD_BITS;                                     \
            *word = (bit ? *word : 0) | (uint64_t)((float)x[i] > threshold[i]) << bit;             \
            *nan |= (is_nan);                                                                      \
        }                                                                                          \
    }

DEFINE_COMPARE(compare_i32, int32_t, 0)
DEFINE_COMPARE(compare_f32, float, x[i] != x[i])

void bitops_unpack_i8_generic(const uint64_t *words, size_t n, int8_t *x_out) {
    for (size_t i = 0; i < n; i++)
        x_out[i] = (int8_t)(2 * (int)(words[i / BITOPS_WORD_BITS] >> i % BITOPS_WORD_BITS & 1) - 1);
}

void bitops_unpack_f32_generic(const uint64_t *words, size_t n, float *x_out) {
    for (size_t i = 0; i < n; i++)
        x_out[i] = words[i / BITOPS_WORD_BITS] >> i % BITOPS_WORD_BITS & 1 ? 1.0f : -1.0f;
}

void bitops_popcount_generic(const uint64_t *words, size_t rows, size_t n_words,
                             int64_t *count_out) {
    for (size_t row = 0; row < rows; row++, words += n_words) {
        uint64_t count = 0;
        for (size_t i = 0; i < n_words; i++)
            count += popcount64(words[i]);
        count_out[row] = (int64_t)count;
    }
}

void bitops_popcount_columns_generic(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                     int64_t *count_out) {
    count_columns(words, ld, rows, n_words, count_out);
}

void bitops_majority_columns_generic(const uint64_t *words, size_t ld, size_t rows, size_t n_words,
                                     uint64_t least, uint64_t *words_out) {
    reach_columns(words, ld, rows, n_words, least, words_out);
}

/* ---- moves --------------------------------------------------------------------------------- */

void bitops_mirror_words_generic(const uint64_t *words, size_t n, size_t shift, int reversed,
                                 int past_caches, uint64_t *words_out) {
    (void)past_caches;
    mirror_words(words, n, shift, reversed, words_out);
}

void bitops_shift_words_generic(const uint64_t *words, size_t n, size_t shift, int past_caches,
                                uint64_t *words_out) {
    shift_row(words, n, shift, past_caches, words_out);
}

void bitops_roll_rows_generic(const uint64_t *words, size_t rows, size_t n, size_t cut,
                              int past_caches, uint64_t *words_out) {
    roll_short_rows(words, rows, n, cut, past_caches, words_out);
}

/* ---- gemm ---------------------------------------------------------------------------------- */

void bitops_prepack_generic(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                            uint64_t *panel_out) {
    for (size_t p = 0; p < k_words; p++)
        for (size_t j = 0; j < NR; j++)
            panel_out[p * NR + j] = j < n ? w[j * ldw + p] : 0;
}

void bitops_gemm_panel_generic(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel,
                               size_t n, size_t k_words, size_t row, size_t col,
                               const bitops_store *store, uint64_t *scratch) {
    (void)scratch;
    BITOPS_ASSUME(n <= NR && col % NR == 0);
    for (size_t i = 0; i < m; i++) {
        int32_t mismatches[NR] = {0};
        for (size_t p = 0; p < k_words; p++)
            for (size_t j = 0; j < NR; j++)
                mismatches[j] += (int32_t)popcount64(a[i * lda + p] ^ panel[p * NR + j]);
        store_block(mismatches, NR, 1, n, row + i, col, store);
    }
}

void bitops_gemm_rows_generic(const uint64_t *a, size_t lda, size_t m, const uint64_t *w,
                              size_t ldw, size_t n, size_t k_words, size_t row, size_t col,
                              const bitops_store *store) {
    BITOPS_ASSUME(col % NR == 0);
    for (size_t first = 0; first < n; first += NR) {
        const size_t columns = n - first < NR ? n - first : NR;
        for (size_t i = 0; i < m; i++) {
            int32_t mismatches[NR] = {0};
            for (size_t j = 0; j < columns; j++)
                for (size_t p = 0; p < k_words; p++)
                    mismatches[j] += (int32_t)popcount64(a[i * lda + p] ^ w[(first + j) * ldw + p]);
            store_block(mismatches, NR, 1, columns, row + i, col + first, store);
        }
    }
}

/* ---- numbers times weights ----------------------------------------------------------------- */

void bitops_lookup_panel_generic(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                                 uint32_t *panel_out) {
    BITOPS_ASSUME(n > 0 && n <= COLUMNS);
    for (size_t j = 0; j < COLUMNS; j++) {
        const uint64_t *row = w + (j < n ? j : n - 1) * ldw; /* absent rows repeat the last one */
        for (size_t p = 0; p < k_words; p++) {
            panel_out[2 * p * COLUMNS + j] = (uint32_t)row[p];
            panel_out[(2 * p + 1) * COLUMNS + j] = (uint32_t)(row[p] >> HALF_BITS);
        }
    }
}

/* Bit i of the number of an entry is the sign of element i: 1 for +. */
#define DEFINE_LOOKUP(type, number, sum)                                                           \
    void bitops_lookup_tables_##type##_generic(const void *x_in, size_t k, void *tables_out) {     \
        const number *x = x_in;                                                                    \
        sum *table = tables_out;                                                                   \
        for (size_t group = 0; group < (k + HALF_BITS - 1) / HALF_BITS * GROUPS; group++)          \
            for (size_t entry = 0; entry < ENTRIES; entry++, table++)                              \
                for (size_t i = 0; i < 4; i++) {                                                   \
                    const sum v = 4 * group + i < k ? (sum)x[4 * group + i] : 0;                   \
                    const sum term = entry >> i & 1 ? v : -v;                                      \
                    *table = i ? *table + term : term;                                             \
                }                                                                                  \
    }                                                                                              \
    void bitops_lookup_##type##_generic(const bitops_lookup *t) {                                  \
        for (size_t row = 0; row < t->rows; row++) {                                               \
            const sum *table = (const void *)((const char *)t->tables + row * t->table_stride);    \
            sum *c = (sum *)t->c + row * t->ldc;                                                   \
            if (t->first)                                                                          \
                for (size_t j = 0; j < t->n; j++)                                                  \
                    c[j] = 0;                                                                      \
            for (size_t group = 0; group < t->halves * GROUPS; group++, table += ENTRIES) {        \
                const uint32_t *bits = t->panel + group / GROUPS * COLUMNS;                        \
                const size_t shift = 4 * (group % GROUPS);                                         \
                for (size_t j = 0; j < t->n; j++)                                                  \
                    c[j] += table[bits[j] >> shift & 15];                                          \
            }                                                                                      \
        }                                                                                          \
    }

DEFINE_LOOKUP(f32, float, float)
DEFINE_LOOKUP(u8, uint8_t, int32_t)

/* ---- rows in lanes -------------------------------------------------------------------------- */

/* Vectors of the compiler, 16 bytes long, which any CPU's compiler knows how to add. */
typedef float floats __attribute__((vector_size(16)));
typedef int16_t shorts __attribute__((vector_size(16)));

#define DEFINE_VECTOR(vec, number)                                                                 \
    BITOPS_INLINE vec read_##vec(const number *x) {                                                \
        vec v;                                                                                     \
        for (size_t i = 0; i < sizeof v / sizeof v[0]; i++)                                        \
            v[i] = x[i];                                                                           \
        return v;                                                                                  \
    }                                                                                              \
    BITOPS_INLINE vec load_##vec(const void *x) {                                                  \
        vec v;                                                                                     \
        memcpy(&v, x, sizeof v);                                                                   \
        return v;                                                                                  \
    }                                                                                              \
    BITOPS_INLINE void store_##vec(void *x, vec v) {                                               \
        memcpy(x, &v, sizeof v);                                                                   \
    }                                                                                              \
    BITOPS_INLINE vec add_##vec(vec a, vec b) {                                                    \
        return a + b;                                                                              \
    }                                                                                              \
    BITOPS_INLINE vec sub_##vec(vec a, vec b) {                                                    \
        return a - b;                                                                              \
    }

DEFINE_VECTOR(floats, float)
DEFINE_VECTOR(shorts, uint8_t)

BITOPS_INLINE void widen_shorts(shorts v, int32_t *wide, int first) {
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++)
        wide[i] = (first ? 0 : wide[i]) + v[i];
}

DEFINE_LANES(generic, f32, float, BITOPS_LANES_F32, floats, 8, 1, (floats){0}, read_floats,
             load_floats, store_floats, add_floats, sub_floats, LANES_KEEP)
DEFINE_LANES(generic, u8, uint8_t, BITOPS_LANES_U8, shorts, 8, 1, (shorts){0}, read_shorts,
             load_shorts, store_shorts, add_shorts, sub_shorts, widen_shorts)

BITOPS_INLINE void turn_square(const uint32_t *in, size_t ld_in, uint32_t *out, size_t ld_out) {
    BITOPS_UNROLL
    for (size_t i = 0; i < 4; i++) {
        BITOPS_UNROLL
        for (size_t j = 0; j < 4; j++)
            out[j * ld_out + i] = in[i * ld_in + j];
    }
}

void bitops_turn_32_generic(const void *in, size_t ld_in, size_t rows, size_t columns,
                            void *turned_out, size_t ld_out) {
    TURN_SQUARES(4, turn_square)
}

/* ---- depthwise ----------------------------------------------------------------------------- */

typedef uint64_t bit_vector;

/* Spreads 8 bits to 8 bytes of 0 or 1. */
BITOPS_INLINE uint64_t spread_bits(uint64_t bits) {
    const uint64_t own = bits * 0x0101010101010101u & 0x8040201008040201u; /* one in each byte */
    return (own + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
}

BITOPS_INLINE void spread_planes(const bit_vector *planes, int levels, uint8_t *count_out) {
    for (int shift = 0; shift < BITOPS_WORD_BITS; shift += 8, count_out += 8) {
        uint64_t count_u8x8 = 0;
        BITOPS_UNROLL
        for (int level = 0; level < levels; level++)
            count_u8x8 |= spread_bits(planes[level] >> shift & 0xff) << level;
        memcpy(count_out, &count_u8x8, sizeof count_u8x8);
    }
}

BITOPS_INLINE bit_vector majority(bit_vector a, bit_vector b, bit_vector c) {
    return (a & b) | ((a | b) & c);
}

/* Eight bytes at a time: the highest bit of each tells whether the difference of the others has
 * borrowed. */
BITOPS_INLINE uint64_t counts_below(const uint8_t *count, const uint8_t *limit) {
    const uint64_t highest = 0x8080808080808080, gather_bits = 0x0102040810204080;
    uint64_t word = 0;
    for (int j = 0; j < BITOPS_WORD_BITS; j += 8) {
        uint64_t c, l;
        memcpy(&c, count + j, sizeof c);
        memcpy(&l, limit + j, sizeof l);
        const uint64_t rest = (c | highest) - (l & ~highest); /* highest bit: no borrow */
        const uint64_t below = ((~c & l) | (~(c ^ l) & ~rest)) & highest;
        word |= ((below >> 7) * gather_bits >> 56) << j;
    }
    return word;
}

#include "isa/shared/depthwise.h"

void bitops_count_taps_generic(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                               size_t n_taps, size_t n_words, uint8_t *count_out) {
    count_taps(taps, w, ldw, n_taps, n_words, count_out);
}

void bitops_dot_taps_generic(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                             size_t n_taps, size_t n, int32_t k, int32_t *dot_out) {
    dot_taps(taps, w, ldw, n_taps, n, k, dot_out);
}

void bitops_store_counts_generic(const uint8_t *count, size_t rows, size_t n, size_t row,
                                 size_t col, const bitops_store *store) {
    store_counts(count, rows, n, row, col, store);
}

/* ---- pairs --------------------------------------------------------------------------------- */

#include "isa/shared/pairs.h"

void bitops_count_pairs_generic(const uint64_t *a, size_t lda, const uint64_t *b, size_t ldb,
                                size_t k_words, const uint64_t *pairs, size_t n, int32_t most,
                                int32_t *count_out) {
    count_pairs(a, lda, b, ldb, k_words, pairs, n, most, count_out);
}

/* ---- sums and means ------------------------------------------------------------------------ */

typedef double sum_vector __attribute__((vector_size(16)));

BITOPS_INLINE sum_vector widen(const float *x) {
    return (sum_vector){x[0], x[1]};
}

#include "isa/shared/sums.h"

void bitops_sum_columns_generic(const float *x, size_t ld, size_t rows, size_t n, double *sum_out) {
    sum_columns(x, ld, rows, n, sum_out);
}

typedef float float_vector __attribute__((vector_size(16)));

#include "isa/shared/means.h"
#include "isa/shared/quantize.h"

void bitops_mean_windows_generic(const bitops_windows *windows, float *mean_out) {
    mean_windows(windows, mean_out);
}

/* ---- training ------------------------------------------------------------------------------ */

int bitops_adam_generic(const bitops_adam_args *args, const float *g, size_t first, size_t n) {
    return adam_update(args, g, first, n);
}

DEFINE_NORM(generic)
DEFINE_PRELU(generic)
DEFINE_QUANTIZE(generic)

typedef uint16_t byte_pairs __attribute__((vector_size(16)));
typedef int16_t pair_sums __attribute__((vector_size(16)));
typedef uint32_t unsigned_lanes __attribute__((vector_size(16)));
typedef int32_t lane_sums __attribute__((vector_size(16)));

/* Products of bytes fit 16 bits, and so do sums of two. 4 columns at a time, whose elements 0 and 2
 * are the lower bytes, and 1 and 3 the upper ones. */
void bitops_byte_products_generic(const bitops_byte_block *block) {
    enum { VECTORS = BITOPS_BYTE_COLUMNS / 4 };
    for (size_t i = 0; i < block->rows; i++) {
        lane_sums sum_i32x4[VECTORS];
        int32_t *sums = block->sums + i * block->ld_sums;
        memcpy(sum_i32x4, sums, sizeof sum_i32x4);
        for (size_t k = 0; k < block->k; k += 4) {
            const int8_t *x = block->x + i * block->ldx + k;
            const pair_sums lower = {x[0], x[2], x[0], x[2], x[0], x[2], x[0], x[2]};
            const pair_sums upper = {x[1], x[3], x[1], x[3], x[1], x[3], x[1], x[3]};
            for (size_t v = 0; v < VECTORS; v++) {
                byte_pairs y;
                memcpy(&y, block->y + k * BITOPS_BYTE_COLUMNS + v * sizeof y, sizeof y);
                const pair_sums two = (pair_sums)(y & 255) * lower + (pair_sums)(y >> 8) * upper;
                sum_i32x4[v] +=
                    ((lane_sums)two >> 16) + ((lane_sums)((unsigned_lanes)two << 16) >> 16);
            }
        }
        memcpy(sums, sum_i32x4, sizeof sum_i32x4);
    }
}

/* ---- numbers --------------------------------------------------------------------------------- */

DEFINE_FLOATS(generic)
DEFINE_TURN(generic)
