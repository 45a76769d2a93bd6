/* operations.h: the contract of the kernels, one function type for each operation.
 *
 * Encoding, stated once
 *   A bit 1 is the value +1, a bit 0 is -1. Element i of the packed axis is bit i % 64 of word
 *   i / 64. The bits after the last element ("padding bits") are 0 in every array, so that they
 *   cancel in a ^ w. A row of k elements takes k_words = ceil(k / 64) words.
 *   Two rows have d = popcount(a ^ w) mismatches, and their dot product is k - 2 d.
 *
 * Names and units
 *   k counts bits, k_words counts 64-bit words. lda, ldw and ldc are distances between rows, in
 *   elements of the array (words, int32, float, ...). gemm is C[m,n] = A[m,k] W[n,k]^T, row-major.
 *   mr x nr is the register tile of an ISA; a "panel" holds nr rows of W in the order that the ISA
 *   reads.
 *
 * Kernels (kernels.inc) run on the calling thread and never allocate, print or abort. There is no
 * C = alpha A W + beta C as in BLAS: an int32 result is read once, by whatever follows, and the
 * scales of binary networks are per row and per column.
 */
#ifndef BITOPS_OPERATIONS_H
#define BITOPS_OPERATIONS_H

/* Comes before the system's headers, which may be missing for such a machine. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bitops packs little-endian words and does not support big-endian machines"
#endif

#include <stddef.h>
#include <stdint.h>

enum { BITOPS_WORD_BITS = 64 };

static inline size_t bitops_words(size_t bits) {
    return bits / BITOPS_WORD_BITS + (bits % BITOPS_WORD_BITS != 0);
}

/* Where mismatches become the product of two +-1 rows: here, and for a vector of mismatches in
 * dot_lanes of avx512_store.h. Subtracted twice, because 2 * mismatches would overflow where k does
 * not.
 */
static inline int32_t bitops_dot(int32_t k, int32_t mismatches) {
    return k - mismatches - mismatches;
}

/* ---- what a GEMM does with its mismatch counts ------------------------------------------- */

typedef enum bitops_store_kind {
    BITOPS_STORE_DOT,        /* int32   c = dot */
    BITOPS_STORE_SCALED,     /* float   c = dot [* alpha[col]] [* k_map[row]] [+ bias[col]] */
    BITOPS_STORE_HAMMING,    /* int32   c = mismatches */
    BITOPS_STORE_HAMMING16,  /* uint16  c = mismatches, k <= 65535 */
    BITOPS_STORE_HAMMING8,   /* uint8   c = mismatches, k <= 255 */
    BITOPS_STORE_SIGN,       /* bits    c = (dot > threshold[col]) ^ flip[col], packed along n */
    BITOPS_STORE_ACCUMULATE, /* int32   c += mismatches, for products cut along k */
    BITOPS_STORE_TOPK,       /* uint64  row of c = its nearest columns */
    BITOPS_STORE_WITHIN,     /* bitops_found  c += pairs with mismatches <= most and in bounds */
    /* Of rows as sets of their 1 bits, with |a| + |w| = a_counts[row] + w_counts[col]: */
    BITOPS_STORE_INTERSECTION, /* int32   c = |a & w| = (|a| + |w| - mismatches) / 2 */
    BITOPS_STORE_JACCARD,      /* double  c = mismatches / |a | w|, 0 for two empty rows */
    BITOPS_STORE_DICE,         /* double  c = mismatches / (|a| + |w|), 0 for two empty rows */
} bitops_store_kind;

/* Below which a row is kept as one of the nearest, or as one within a range: mismatches <
 * factor w_counts[col] + term. Pairs that pass are tested exactly. */
typedef struct bitops_bound {
    float factor, term;
} bitops_bound;

/* Scales are applied in the order shown, each step rounded to float32, never fused. NULL means
 * absent. threshold has n entries, flip n bits; both are NULL unless the kind is SIGN.
 *
 * For TOPK, the ldc elements of a row of c are one heap of keys, or, unless keep is 0, a list from
 * which the `keep` smallest are selected now and then (isa/shared/nearest.h); the row must
 * meet its columns in increasing order. `metric` is the kind of store whose
 * numbers are compared: HAMMING, INTERSECTION (the largest are the nearest), or JACCARD, which
 * orders rows as DICE does, for k <= BITOPS_RANKED_BITS. The last two have a bound for each row.
 *
 * Offsets are added to the dot products of DOT, SCALED and SIGN. `offset` is a table, and row i of
 * c takes its row offset_row[i - first_row]; row 0 stands for "no offsets" and is not read. This is
 * how a convolution takes back what positions outside the image have added. */
typedef struct bitops_store {
    bitops_store_kind kind;
    int32_t k;             /* bits */
    void *c;               /* OUT, first element of row 0 */
    size_t ldc;            /* elements of c; words for SIGN, keys for TOPK */
    const int32_t *offset; /* rows of ld_offset, or NULL */
    size_t ld_offset;
    const uint32_t *offset_row;
    size_t first_row;
    const float *alpha;
    const float *k_map;
    const float *bias;
    const int32_t *threshold;
    const uint64_t *flip;
    const int32_t *a_counts, *w_counts; /* 1 bits of each row and column, or NULL; WITHIN reads
                                           the second */
    bitops_bound *bounds; /* IN, OUT  for TOPK, unless the metric is HAMMING; for WITHIN, or NULL */
    /* For TOPK: */
    bitops_store_kind metric;
    int inclusive; /* bounds let equal ranks pass: a heap may hold limits in place of columns */
    size_t keep;   /* 0, or the length that lists are cut to */
    const uint64_t *allowed; /* a bit for each column that may be kept, or NULL */
    const uint32_t *ids;     /* the index of each column, or NULL where it is col itself */
    int32_t most;            /* for WITHIN: mismatches of the pairs that are kept, at least 0 */
} bitops_store;

/* Pairs of rows that a search has found, a list that grows. For WITHIN, c is one that has room for
 * all outputs of the call. */
typedef struct bitops_found {
    uint64_t *pairs; /* row << 32 | column */
    int32_t *distances;
    size_t count, capacity;
} bitops_found;

enum { BITOPS_RANKED_BITS = 65535 };

/* ---- kernels: one function type per operation --------------------------------------------- */

/* Packs n elements of x into bitops_words(n) words; padding bits are 0. Sets *nan to 1 if a NaN was
 * met, and leaves it alone otherwise. bool8: non-zero is +1; integers and floats: x >= 0 is +1. Of
 * f16 and bf16, the halves of IEEE 754 and of float32, x has the bits. */
typedef void bitops_pack_bool8_fn(const uint8_t *x, size_t n, uint64_t *words_out, int *nan);
typedef void bitops_pack_i8_fn(const int8_t *x, size_t n, uint64_t *words_out, int *nan);
typedef void bitops_pack_i16_fn(const int16_t *x, size_t n, uint64_t *words_out, int *nan);
typedef void bitops_pack_i32_fn(const int32_t *x, size_t n, uint64_t *words_out, int *nan);
typedef void bitops_pack_i64_fn(const int64_t *x, size_t n, uint64_t *words_out, int *nan);
typedef void bitops_pack_f16_fn(const uint16_t *x, size_t n, uint64_t *words_out, int *nan);
typedef void bitops_pack_bf16_fn(const uint16_t *x, size_t n, uint64_t *words_out, int *nan);
typedef void bitops_pack_f32_fn(const float *x, size_t n, uint64_t *words_out, int *nan);
typedef void bitops_pack_f64_fn(const double *x, size_t n, uint64_t *words_out, int *nan);

/* The same with the bits x > threshold; an int32 is compared as the nearest float32. */
typedef void bitops_compare_i32_fn(const int32_t *x, const float *threshold, size_t n,
                                   uint64_t *words_out, int *nan);
typedef void bitops_compare_f32_fn(const float *x, const float *threshold, size_t n,
                                   uint64_t *words_out, int *nan);

/* Writes +1 or -1 for each of n bits. */
typedef void bitops_unpack_i8_fn(const uint64_t *words, size_t n, int8_t *x_out);
typedef void bitops_unpack_f32_fn(const uint64_t *words, size_t n, float *x_out);

/* Counts the 1 bits of each of `rows` rows of n_words words, which lie one after the other. */
typedef void bitops_popcount_fn(const uint64_t *words, size_t rows, size_t n_words,
                                int64_t *count_out);

/* Counts, for each of the 64 n_words positions, the rows with a 1 there. Rows are ld words apart.
 */
enum { BITOPS_SPAN_WORDS = 64 }; /* n_words is at most this */
typedef void bitops_popcount_columns_fn(const uint64_t *words, size_t ld, size_t rows,
                                        size_t n_words, int64_t *count_out);

/* Tells of each of the positions whether at least `least` of the rows have a 1 there. */
enum { BITOPS_MAJORITY_ROWS = 1 << 24 }; /* rows are at most this */
typedef void bitops_majority_columns_fn(const uint64_t *words, size_t ld, size_t rows,
                                        size_t n_words, uint64_t least, uint64_t *words_out);

/* Outputs that are larger than the caches may go past them (`past_caches`). */

/* Writes n words with the bits of each in reverse order, and if `reversed` the words too. Unless
 * shift is 0, of words[i] the bits from `shift` on count, and those of words[i + 1] before it. */
typedef void bitops_mirror_words_fn(const uint64_t *words, size_t n, size_t shift, int reversed,
                                    int past_caches, uint64_t *words_out);

/* Writes n words that begin `shift` < 64 bits after words, of which one more is read unless shift
 * is 0. */
typedef void bitops_shift_words_fn(const uint64_t *words, size_t n, size_t shift, int past_caches,
                                   uint64_t *words_out);

/* Bit j of row i of 512 rows of 512 bits becomes bit i of row j, of which the first `columns` are
 * written, in multiples of 64. */
enum { BITOPS_TURN_BITS = 512 };
typedef void bitops_turn_bits_fn(const uint64_t *in, size_t columns, uint64_t *out);

/* Writes rows of n bits that begin with their bit `cut`, 0 < cut < n, and end with those before it;
 * the padding bits are 0. */
enum { BITOPS_ROLL_WORDS = 64 }; /* of a row, at most */
typedef void bitops_roll_rows_fn(const uint64_t *words, size_t rows, size_t n, size_t cut,
                                 int past_caches, uint64_t *words_out);

/* Counts, for each of 64 n_words positions, the taps whose bit differs from that of the weights.
 * The bits of tap t begin at byte taps[t], its weights at w + t * ldw. All of these and count_out
 * are read and written up to a multiple of COUNT_BLOCK words. */
enum { BITOPS_COUNT_TAPS = 254, BITOPS_COUNT_BLOCK = 8 }; /* n_taps is at most this */
typedef void bitops_count_taps_fn(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                                  size_t n_taps, size_t n_words, uint8_t *count_out);

/* Writes k - 2 count for each of the first n of these positions. */
typedef void bitops_dot_taps_fn(const uint8_t *const *taps, const uint64_t *w, size_t ldw,
                                size_t n_taps, size_t n, int32_t k, int32_t *dot_out);

/* Stores rows x n mismatch counts, n <= BITOPS_COUNTS, which lie one after the other, at (row,
 * col). The kind is DOT, SCALED, HAMMING, HAMMING16 or SIGN; for SIGN, col is a multiple of 64,
 * words are written whole, and counts are read up to a word of them past the last. store.k is at
 * most BITOPS_COUNT_TAPS. For TOPK by a metric that depends on counts, what is counted is |a & w|.
 */
enum { BITOPS_COUNTS = 1 << 12 };
typedef void bitops_store_counts_fn(const uint8_t *count, size_t rows, size_t n, size_t row,
                                    size_t col, const bitops_store *store);

/* Sums the n columns of rows of float32 numbers, ld apart, in float64, from the first row to the
 * last. */
typedef void bitops_sum_columns_fn(const float *x, size_t ld, size_t rows, size_t n,
                                   double *sum_out);

/* Windows on a line of a float32 image, of which the same taps lie inside; steps are in numbers. */
typedef struct bitops_windows {
    const float *x; /* IN  the first tap that lies inside, of the first window */
    size_t rows, row_step;
    size_t columns, column_step;
    size_t outputs, output_step;
    size_t channels;
    float divisor; /* taps of a window, with those outside */
    float factor;  /* its inverse if that is exact, or 0 */
} bitops_windows;

/* Takes the means of the channels of each window. */
typedef void bitops_mean_windows_fn(const bitops_windows *windows, float *mean_out);

/* Orders n <= nr rows of w into one panel of nr * k_words words; columns n..nr-1 are zero. */
typedef void bitops_prepack_fn(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                               uint64_t *panel_out);

/* Brings m rows of a into the form that gemm_panel reads, ld_out words apart. Each word depends
 * only on the same word of a, and rows_out may be a itself. Absent where gemm_panel reads plain
 * rows. */
typedef void bitops_prepack_rows_fn(const uint64_t *a, size_t lda, size_t m, size_t k_words,
                                    uint64_t *rows_out, size_t ld_out);

/* Multiplies rows [0, m) of a, in the form of prepack_rows, by the n <= nr columns of one panel,
 * and stores the result at (row, col). col is a multiple of nr. scratch has row_words words for
 * each row and is aligned to 64 bytes; it is not used if the ISA asks for none. */
typedef void bitops_gemm_panel_fn(const uint64_t *a, size_t lda, size_t m, const uint64_t *panel,
                                  size_t n, size_t k_words, size_t row, size_t col,
                                  const bitops_store *store, uint64_t *scratch);

/* Multiplies rows [0, m) of a, in the form of prepack_rows, by n columns, whose panels lie one
 * after the other, and stores each row of outputs from its first column to its last. For k_words <=
 * BITOPS_SHORT_WORDS, where tiles spend their time on the store. col is a multiple of nr. */
enum { BITOPS_SHORT_WORDS = 8 };
typedef void bitops_gemm_short_fn(const uint64_t *a, size_t lda, size_t m, const uint64_t *panels,
                                  size_t n, size_t k_words, size_t row, size_t col,
                                  const bitops_store *store);

/* Multiplies rows [0, m) of a by rows [0, n) of w as they lie in memory. This is for few rows,
 * where ordering w into panels would cost more than the product. col is a multiple of 8. The store
 * has no offsets. */
typedef void bitops_gemm_rows_fn(const uint64_t *a, size_t lda, size_t m, const uint64_t *w,
                                 size_t ldw, size_t n, size_t k_words, size_t row, size_t col,
                                 const bitops_store *store);

/* Lines of pixels of 8, 16 or 32 channels, without gaps between pixels, borders included; up to a
 * word behind each may be read. The kernel is square, and its columns are not dilated. */
enum { BITOPS_NARROW_TAPS = 3 };
typedef struct bitops_narrow_lines {
    const uint8_t *bytes;  /* the first pixel that the first output sees */
    size_t channels;       /* of a pixel */
    size_t lines, outputs; /* lines of outputs, and outputs of each */
    size_t line_step;      /* bytes from what a line of outputs sees to what the next one does, */
    size_t output_step;    /* from an output to the next, */
    size_t tap_step;       /* and from one row of the kernel to the next */
} bitops_narrow_lines;

/* Multiplies all that the outputs see by the n <= nr columns of one panel, and stores the result
 * from (row, col) on, a row for each output. The kind is DOT, SCALED or SIGN, and col is a multiple
 * of 8. Absent where rows are gathered instead. */
typedef void bitops_conv_narrow_fn(const bitops_narrow_lines *image, const uint64_t *panel,
                                   size_t n, size_t row, size_t col, const bitops_store *store);

/* Counts the mismatches of n pairs of rows, given as (row of a) << 32 | row of b. Of pairs that
 * have more than `most`, any number above it may be written. */
typedef void bitops_count_pairs_fn(const uint64_t *a, size_t lda, const uint64_t *b, size_t ldb,
                                   size_t k_words, const uint64_t *pairs, size_t n, int32_t most,
                                   int32_t *count_out);

/* Finds rows and columns that may have at most `most` mismatches: all that do, and few others. Row
 * i, from row `row` of the call on, has word p at a[p lda + i]; column j of n <=
 * BITOPS_SIEVE_COLUMNS, from `col` on, at b[p BITOPS_SIEVE_COLUMNS + j], 0 if it is missing. What
 * is found has no distances, and there is room for it. For words <= BITOPS_SIEVE_WORDS and most <=
 * bitops_sieve_most(words). scratch has BITOPS_SIEVE_ROW_WORDS words for each row, if there are
 * several. */
enum {
    BITOPS_SIEVE_COLUMNS = 128,
    BITOPS_SIEVE_WORDS = 12,
    BITOPS_SIEVE_SMALL = 6,
    BITOPS_SIEVE_GROUPS = 13, /* of a word */
    BITOPS_SIEVE_ROW_WORDS = 16,
};
typedef void bitops_sieve_fn(const uint64_t *a, size_t lda, size_t m, const uint64_t *b, size_t n,
                             size_t words, int32_t most, size_t row, size_t col,
                             bitops_found *found, uint64_t *scratch);

/* Of unlike rows, one pair of a thousand passes up to so many mismatches, which are counted in
 * bytes. */
static inline int32_t bitops_sieve_most(size_t words) {
    const int32_t most = 26 * (int32_t)words - 6;
    return most < 254 ? most : 254;
}

/* How many groups of 5 bits a sieve looks at, the last of a word having 4 bits. So few tell unlike
 * rows apart with a probability of 0.9999, unless bits are left out of them: fold rows to these. */
static inline unsigned bitops_sieve_groups(size_t words, int32_t most) {
    if (words > 1 || most > BITOPS_SIEVE_SMALL)
        return BITOPS_SIEVE_GROUPS;
    return most <= 3 ? 5 : most <= 5 ? 6 : 7;
}

/* Numbers times weights by lookup. With all combinations of signs, 4 elements of a row of x have 16
 * sums; these are a table, from which 4 bits of a row of w select one. A panel holds n <=
 * BITOPS_LOOKUP_COLUMNS rows of w: for every 32 bits of k, those of each column. Tables are aligned
 * to 64 bytes and take BITOPS_LOOKUP_BYTES for every 32 elements, in an order private to the ISA.
 * Of small numbers these are bytes, in a quarter of the memory: halves of the sums that are made
 * positive, (+-x0 +-x1 +-x2 +-x3 + |x0| + |x1| + |x2| + |x3|) / 2. */
enum {
    BITOPS_LOOKUP_COLUMNS = 64,
    BITOPS_LOOKUP_ROWS = 4,
    BITOPS_LOOKUP_BYTES = 512,
    BITOPS_SMALL_BYTES = 128,
};

/* Orders n rows of w, k_words words long, into a panel of 2 * k_words * BITOPS_LOOKUP_COLUMNS
 * numbers. */
typedef void bitops_lookup_panel_fn(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                                    uint32_t *panel_out);

/* The same in the order that lookup_small wants; absent if that is no other one. */
typedef void bitops_lookup_panel_small_fn(const uint64_t *w, size_t ldw, size_t n, size_t k_words,
                                          uint32_t *panel_out);

/* Makes ceil(k / 32) groups of tables from k elements of a row, as if zeros followed. A sum of
 * float32 is ((x0 +- x1) +- x2) +- x3, each step rounded. */
typedef void bitops_lookup_tables_f32_fn(const void *x, size_t k, void *tables_out);
typedef void bitops_lookup_tables_u8_fn(const void *x, size_t k, void *tables_out);

/* The same for numbers x - zero, of which small_most of the ISA is the largest magnitude; returns
 * the sum of their magnitudes. */
typedef int32_t bitops_lookup_tables_small_fn(const uint8_t *x, size_t k, int zero,
                                              void *tables_out);

/* A block of rows x n outputs. Each is the sum of the entries that the bits of its column select
 * from the tables of its row, in the order of k, starting at 0 or at c. */
typedef struct bitops_lookup {
    const void *tables;
    size_t table_stride;   /* bytes from a row's tables to the next row's */
    const uint32_t *panel; /* `halves` groups of 32 bits of k */
    size_t halves;
    size_t rows; /* 1 .. BITOPS_LOOKUP_ROWS */
    size_t n;    /* 1 .. BITOPS_LOOKUP_COLUMNS */
    void *c;     /* IN unless first, OUT; float, or int32 for uint8 */
    size_t ldc;
    int first;
    /* Of small numbers: their largest magnitude, and the sum of magnitudes of each row. Up to 64
     * halves. */
    int most;
    int32_t less[BITOPS_LOOKUP_ROWS];
} bitops_lookup;
typedef void bitops_lookup_f32_fn(const bitops_lookup *task);
typedef void bitops_lookup_u8_fn(const bitops_lookup *task);
typedef void bitops_lookup_small_fn(const bitops_lookup *task); /* or absent, with its tables */

/* The same with rows of x in lanes, for all but a few: an entry of a table holds the sum of 32 rows
 * as float32, or of 64 rows of uint8 as int16, and 4 bits of a row of w select a whole entry. */
enum {
    BITOPS_LANES_BYTES = 128, /* of an entry */
    BITOPS_LANES_F32 = 32,
    BITOPS_LANES_U8 = 64,
    BITOPS_LANES_BITS = 64, /* of k, whose tables are made at once */
    BITOPS_LANES_STEP_BITS = 16,
    BITOPS_LANES_TABLE_BYTES = BITOPS_LANES_BITS / 4 * 16 * BITOPS_LANES_BYTES,
};

/* Makes the tables of 64 elements of k, each a line of x, lines ldx apart, with a row in each lane.
 * Sums are rounded as those of lookup_tables_f32. */
typedef void bitops_lanes_tables_f32_fn(const void *x, size_t ldx, void *tables_out);
typedef void bitops_lanes_tables_u8_fn(const void *x, size_t ldx, void *tables_out);

/* Adds the entries that the bits of n rows of w select, in the order of k: n lines of sums, float32
 * or int16. Sums of uint8 may instead be added to int32, or start them: 128 elements fit int16,
 * 4 * 8 * 1020 <= 32767. */
typedef struct bitops_lanes {
    const void *tables;
    const uint64_t *w; /* a word of each row */
    size_t steps;      /* of 16 bits: 1 to 4 */
    size_t n;
    void *sums;    /* n x BITOPS_LANES_BYTES; IN unless first, OUT if there is no `wide` */
    int32_t *wide; /* n x BITOPS_LANES_U8, or NULL; IN unless first_wide, OUT */
    int first, first_wide;
} bitops_lanes;
typedef void bitops_lanes_f32_fn(const bitops_lanes *task);
typedef void bitops_lanes_u8_fn(const bitops_lanes *task);

/* The same for uint8 by products of tiles, with rows and columns as they lie: adds x[m, k] times
 * the signs of w to int32 sums, or starts them. Optional. */
enum {
    BITOPS_TILE_ROWS = 64,
    BITOPS_TILE_BITS = 64,     /* of k, a word of w */
    BITOPS_TILE_WORDS = 8,     /* at once */
    BITOPS_TILE_COLUMNS = 128, /* of a block of sums */
    BITOPS_TILE_MULTIPLE = 16, /* of rows that are read, and of those and columns of sums */
};
typedef struct bitops_tiles {
    const uint8_t *x;
    size_t ldx, rows;        /* bytes from a row to the next; up to BITOPS_TILE_ROWS */
    const ptrdiff_t *places; /* of the 64 elements of each word of k, bytes from the first of x */
    const uint64_t *w;       /* word p of column j at w[p * stride + j] */
    size_t stride, words, n;
    /* IN unless first, OUT: blocks of columns, each with its columns of all rows, BITOPS_TILE_ROWS
     * x BITOPS_TILE_COLUMNS */
    int32_t *sums;
    int first;
} bitops_tiles;
typedef void bitops_tiles_u8_fn(const bitops_tiles *task);

/* Orders rows of uint8 as tiles_u8 takes them, each 64 bytes for themselves, with zeros up to a
 * whole 64; rows_out may be x. */
typedef void bitops_tile_rows_fn(const uint8_t *x, size_t ldx, size_t rows, size_t bytes,
                                 uint8_t *rows_out, size_t ld_out);

/* out[j][i] = in[i][j], 32-bit numbers of any kind. */
typedef void bitops_turn_32_fn(const void *in, size_t ld_in, size_t rows, size_t columns,
                               void *turned_out, size_t ld_out);

/* One step of Adam on a matrix of rows x n weights, contiguous as m and v are. Every element goes
 * through these steps, each rounded to float32:
 *   m = m + beta1_rest * (g - m)
 *   v = v + beta2_rest * (g * g - v)
 *   w = w * keep - rate * (m / (sqrt(v) + eps))
 *   w = min(max(w, -clip), clip)
 * m and v may lie in memory as bfloat16, the upper halves of float32. Then they are rounded after
 * the step, away from 0 if their lower half exceeds 65,535 minus a random number of 16 bits: for m
 * the lower half, for v the upper half of hash32(seed + place * 0x9e3779b9), so that the mean is
 * kept. Rounded to the nearest, v would never fall: a step changes it by less than its last bit.
 * w may lie in memory as int16: weights in a unit that rate and clip have, too. They get a shift at
 * random before the clip, and after it become the whole numbers next to them, ties to even:
 *   w = w + ((random + 0.5) / 65536 - 0.5)
 * `random`, also of 16 bits, is the sum of both halves of that hash without its carry, which is
 * independent of either half alone. */
enum {
    BITOPS_SHORT_MOST = 32767, /* of int16 */
    BITOPS_SHORT_NAN = -32768, /* stands for a NaN among them */
};
typedef struct bitops_adam_args {
    size_t rows, n;
    const float *g;               /* IN, where the driver does not make it */
    void *w;                      /* IN, OUT, float32, or int16 with a clip of BITOPS_SHORT_MOST */
    void *m, *v;                  /* IN, OUT, float32, or bfloat16 in uint16_t */
    int short_weights, bfloat16;  /* whether w is int16; whether m and v are bfloat16 */
    uint32_t seed;                /* of the rounding of either */
    uint64_t *words;              /* OUT signs of w, rows x bitops_words(n), or NULL */
    float beta1_rest, beta2_rest; /* 1 - beta1, 1 - beta2 */
    float eps;
    float rate; /* of the step, its bias correction included */
    float keep; /* 1 - weight decay of the step */
    float clip; /* infinity for none */
} bitops_adam_args;

/* These steps on elements [first, first + n) of the matrix, by their gradients g[0], ..., g[n - 1];
 * no words are written, and g of args is not read. Returns 1 if one of the weights is int16 and
 * became NaN; packing finds that of float32. */
typedef int bitops_adam_fn(const bitops_adam_args *args, const float *g, size_t first, size_t n);

/* Batch normalisation of rows of n float32 numbers. Every step is rounded to float32:
 *   t = x, or max(x, 0) if relu is set
 *   xhat = (t - mean) * inv_std
 *   y = xhat * gamma + beta
 * and backward, with dy replaced by 0 where a bit of `within` is 0:
 *   dx = ((xhat * by_xhat + dy) - less) * factor, times 0 where relu is set and x > 0 is false
 * Where `powers` is set, AP2(xhat) takes the place of xhat backward, and
 * AP2(z) = sign(z) * 2^round(log2(abs(z))), 0 or 2^-126 with its sign below 2^-126; y is as
 * before.
 * Arrays have n entries; a pass reads those that it needs. NaN stays NaN. */
typedef struct bitops_norm {
    int relu, powers;
    const float *mean, *inv_std;
    const float *gamma, *beta;
    const float *by_xhat, *less, *factor;
} bitops_norm;

/* Passes over columns [column, column + n). x points to the first of them, as do all rows. */

/* Sums of t, or, if there is a mean, of c * c or c * AP2(c), c = t - mean, from the first of some
 * rows, ld apart, to the last. */
typedef void bitops_norm_sums_fn(const bitops_norm *norm, const float *x, size_t ld, size_t rows,
                                 size_t column, size_t n, float *sum_out);

/* A row of y. */
typedef void bitops_norm_values_fn(const bitops_norm *norm, const float *x, size_t column, size_t n,
                                   float *y_out);

/* Adds a row of dy * xhat and of dy to sums. passes is NULL, or 1 where dy counts and -1 where it
 * does not. */
typedef void bitops_norm_products_fn(const bitops_norm *norm, const float *x, const float *dy,
                                     const float *passes, size_t column, size_t n,
                                     float *product_sums, float *dy_sums);

/* A row of dx. */
typedef void bitops_norm_gradient_fn(const bitops_norm *norm, const float *x, const float *dy,
                                     const float *passes, size_t column, size_t n, float *dx_out);

/* 1 where the magnitude of x is at most `limit`, else -1. */
typedef void bitops_within_f32_fn(const float *x, size_t n, float limit, float *within_out);

/* PReLU with a shift before and behind it, or the pseudo-gradient of a sign with a threshold, for
 * rows of n float32 numbers. Every step is rounded to float32:
 *   z = x - shift
 *   y = max(z, 0) + slope * min(z, 0) + 0 + offset
 *   dx = dy * slope where z < 0, else dy
 * and without a slope
 *   dx = dy * (2 * max(1 - abs(z), 0))
 * Arrays have n entries; shift and offset of y may be NULL. NaN stays NaN. */
typedef struct bitops_prelu {
    const float *shift, *slope, *offset;
} bitops_prelu;

/* A row of y, for columns [column, column + n). x and y_out point to the first of them; they may be
 * the same. */
typedef void bitops_prelu_values_fn(const bitops_prelu *prelu, const float *x, size_t column,
                                    size_t n, float *y_out);

/* A row of dx, which is added to dx_sums; with a slope, dy * z where z < 0 and dy are added to the
 * other sums. */
typedef void bitops_prelu_gradient_fn(const bitops_prelu *prelu, const float *x, const float *dy,
                                      size_t column, size_t n, float *dx_out, float *dx_sums,
                                      float *slope_sums, float *dy_sums);

/* The largest magnitude of n numbers; NaN if one is NaN. */
typedef float bitops_peak_f32_fn(const float *x, size_t n);

/* x * scale + zero, plus the upper 16 bits of hash32(seed + place * 0x9e3779b9) as a fraction,
 * rounded down; the sum without the fraction must lie in 0..255. */
typedef void bitops_quantize_f32_fn(const float *x, size_t n, float scale, uint32_t seed, int zero,
                                    uint8_t *codes_out);

/* Adds products of bytes to int32 sums, in whole blocks: sums[i][j] += sum over k of x[i][k]
 * y[k][j]. Of y, 4 elements of k of a column lie side by side, [k / 4][columns][4]. They are at
 * most BITOPS_BYTE_MOST, so that a sum of two products fits 16 bits. */
enum {
    BITOPS_BYTE_ROWS = 16, /* of which the rows are a multiple */
    BITOPS_BYTE_COLUMNS = 32,
    BITOPS_BYTE_DEPTH = 64, /* of which k is a multiple */
    BITOPS_BYTE_MOST = 127,
};
typedef struct bitops_byte_block {
    const int8_t *x;
    size_t ldx, rows; /* bytes from a row to the next */
    const uint8_t *y;
    size_t k;
    int32_t *sums;
    size_t ld_sums;
} bitops_byte_block;
typedef void bitops_byte_products_fn(const bitops_byte_block *block);

/* y = x [* alpha] [+ bias], then max(y, 0) if asked, for rows of n numbers; each step is rounded to
 * float32, and NaN stays. alpha and bias have n entries, or are NULL. y may be x. */
typedef void bitops_affine_f32_fn(const float *x, size_t rows, size_t n, const float *alpha,
                                  const float *bias, int relu, float *y);

/* n sums, int32, become numbers, float32, in place: (sum [- surplus]) [* alpha] [+ bias], each step
 * rounded to float32. Arrays have n entries, or are NULL. */
typedef void bitops_scale_i32_fn(void *row, size_t n, const int32_t *surplus, const float *alpha,
                                 const float *bias);

/* y = the larger of y and x, x if they are equal (as zeros may be), NaN if one is NaN. */
typedef void bitops_larger_f32_fn(const float *x, size_t n, float *y);

/* The numbers that an output of a float32 convolution sees: `rows` x `columns` runs of `count`. */
typedef struct bitops_runs {
    const float *x;        /* what the first output sees */
    size_t rows, row_step; /* steps are in numbers */
    size_t columns, column_step;
    size_t count;
    size_t step; /* from an output to the next one */
} bitops_runs;

/* y[i][j], rows ldy apart, is the sum of the numbers that output i sees times those of column j,
 * for n <= BITOPS_FLOAT_COLUMNS columns. The panel has, for each number in the order of the runs,
 * those of BITOPS_FLOAT_COLUMNS columns. Products are added one after the other, each in a fused
 * step. Absent where BLAS is called instead. */
enum { BITOPS_FLOAT_COLUMNS = 32 };
typedef void bitops_conv_f32_fn(const bitops_runs *runs, size_t outputs, const float *panel,
                                size_t n, float *y, size_t ldy);

/* For benchmarks: repeats the step of the product on registers alone, which is the shortest time
 * that the core can take for it. macs_out is the number of multiply-accumulates that the steps
 * stand for. Absent where no such loop has been written. */
typedef void bitops_port_bound_fn(size_t steps, uint64_t *macs_out);

/* Prototypes bitops_<op>_<isa> of every line of the list. */
#define BITOPS_ISA_BEGIN(isa, ...)
#define BITOPS_KERNEL(op, isa) bitops_##op##_fn bitops_##op##_##isa;
#define BITOPS_SHARED(op, other, isa)
#define BITOPS_ISA_END(isa)
#include "kernels.inc"
#undef BITOPS_ISA_BEGIN
#undef BITOPS_KERNEL
#undef BITOPS_SHARED
#undef BITOPS_ISA_END

#endif
