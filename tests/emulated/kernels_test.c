/* kernels_test.c: every kernel of the ISAs that this CPU can run against generic.c, and the drivers
 * on top of them.
 *
 *   kernels_test [best]      `best` is the name of the ISA that dispatch must have chosen
 *
 * Sizes are 0, 1, those around words, vectors, tiles and blocks, and primes; inputs are random, all
 * ones, all zeros, or opposite (every bit a mismatch); arrays begin at every offset within a cache
 * line. Inputs end at a page that must not be read, outputs lie between bytes that must not change.
 * The first difference ends the program with status 1. */
#define _DEFAULT_SOURCE
#include "bitops.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *current_isa = "", *current_op = "";
static unsigned long comparisons;

static void fail(const char *what, size_t a, size_t b, size_t c) {
    printf("%s %s: %s differ at sizes %zu %zu %zu\n", current_isa, current_op, what, a, b, c);
    exit(1);
}

static void check(int equal, const char *what, size_t a, size_t b, size_t c) {
    comparisons++;
    if (!equal)
        fail(what, a, b, c);
}

/* ---- memory and data ----------------------------------------------------------------------- */

enum { INPUTS = 8, INPUT_BYTES = 1 << 21, MARGIN = 64, OUTPUT_BYTES = 1 << 20, UNTOUCHED = 0xa5 };

static char *inputs[INPUTS];

/* INPUT_BYTES bytes before a page that faults, or NULL. */
static char *fenced_memory(void) {
    enum { FENCE = 1 << 16 }; /* a multiple of every page size */
#if defined(_WIN32)
    DWORD before;
    char *memory =
        VirtualAlloc(NULL, INPUT_BYTES + FENCE, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!memory || !VirtualProtect(memory + INPUT_BYTES, FENCE, PAGE_NOACCESS, &before))
        return NULL;
#else
    char *memory =
        mmap(NULL, INPUT_BYTES + FENCE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + INPUT_BYTES, FENCE, PROT_NONE))
        return NULL;
#endif
    return memory;
}

static void make_inputs(void) {
    for (int i = 0; i < INPUTS; i++) {
        inputs[i] = fenced_memory();
        if (!inputs[i]) {
            puts("kernels_test: no memory with a fence behind it");
            exit(2);
        }
    }
}

/* The last `bytes` bytes before the fence. */
static void *input(int i, size_t bytes) {
    if (bytes > INPUT_BYTES)
        fail("memory of the test", bytes, 0, 0);
    return inputs[i] + INPUT_BYTES - bytes;
}

/* What a kernel wrote, and what generic wrote. */
static _Alignas(64) char got_memory[OUTPUT_BYTES], want_memory[OUTPUT_BYTES];
static size_t output_bytes;

typedef struct outputs {
    void *got, *want;
} outputs;

static outputs make_outputs(size_t bytes, size_t offset) {
    output_bytes = MARGIN + offset + bytes + MARGIN;
    if (output_bytes > OUTPUT_BYTES)
        fail("memory of the test", bytes, offset, 0);
    memset(got_memory, UNTOUCHED, output_bytes);
    memset(want_memory, UNTOUCHED, output_bytes);
    return (outputs){got_memory + MARGIN + offset, want_memory + MARGIN + offset};
}

static void check_outputs(size_t a, size_t b, size_t c) {
    check(memcmp(got_memory, want_memory, output_bytes) == 0, "outputs", a, b, c);
}

static uint64_t random_state = 20160316;

static uint64_t random64(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1du;
}

static float random_float(void) {
    return (float)((double)(random64() >> 11) / (double)((uint64_t)1 << 53) * 4 - 2);
}

enum { RANDOM, ONES, ZEROS, OPPOSITE, PATTERNS };

/* second: the other operand of a product. */
static void fill_words(uint64_t *words, size_t n, int pattern, int second) {
    for (size_t i = 0; i < n; i++)
        words[i] = pattern == RANDOM                                    ? random64()
                   : pattern == ONES || (pattern == OPPOSITE && second) ? UINT64_MAX
                                                                        : 0;
}

static uint64_t *input_words(int i, size_t n, int pattern) {
    uint64_t *words = input(i, n * sizeof *words);
    fill_words(words, n, pattern, i % 2);
    return words;
}

static const bitops_isa *generic;

/* ---- pack, unpack, popcount ---------------------------------------------------------------- */

static const size_t bit_sizes[] = {0,   1,   2,   3,   7,   8,   9,   15,   16,   17,   31,  32,
                                   33,  61,  63,  64,  65,  97,  127, 128,  129,  191,  192, 193,
                                   255, 256, 257, 511, 512, 513, 769, 1009, 1023, 1024, 1025};
enum { OFFSETS = 17 };

/* Value i of a type; every third is one of the edge cases. */
static double edge_value(size_t i) {
    static const double edges[] = {0.0, -0.0, 1, -1, 127, -128, 5e-324, -5e-324, 1e-40, -1e-40};
    return i % 3 ? (double)random_float() * 60 : edges[i / 3 % COUNT(edges)];
}

/* Smallest and largest numbers of integers are made of bits, those of floats of infinities. */
#define DEFINE_TEST_PACK(op, type, random_value)                                                   \
    static void test_##op(const bitops_isa *isa) {                                                 \
        for (size_t s = 0; s < COUNT(bit_sizes); s++)                                              \
            for (size_t offset = 0; offset < OFFSETS; offset++) {                                  \
                const size_t n = bit_sizes[s];                                                     \
                /* n elements from any offset, and the last ones before the fence */               \
                type *memory = input(0, (n + OFFSETS) * sizeof *memory);                           \
                type *x = memory + (offset + 1 < OFFSETS ? offset : OFFSETS);                      \
                for (size_t i = 0; i < n; i++)                                                     \
                    x[i] = (random_value);                                                         \
                const outputs out = make_outputs(bitops_words(n) * 8, offset % 8 * 8);             \
                int got_nan = 0, want_nan = 0;                                                     \
                isa->op(x, n, out.got, &got_nan);                                                  \
                generic->op(x, n, out.want, &want_nan);                                            \
                check(got_nan == want_nan, "NaN flags", n, offset, 0);                             \
                check_outputs(n, offset, 0);                                                       \
            }                                                                                      \
    }

DEFINE_TEST_PACK(pack_bool8, uint8_t, (uint8_t)(random64() % 3 ? random64() : 0))
DEFINE_TEST_PACK(pack_i8, int8_t, (int8_t)random64())
DEFINE_TEST_PACK(pack_i16, int16_t, (int16_t)(i % 3 ? (int64_t)random64() : INT16_MIN + (int)i % 2))
DEFINE_TEST_PACK(pack_i32, int32_t, (int32_t)(i % 3 ? (int64_t)random64() : -(int64_t)(i % 2)))
DEFINE_TEST_PACK(pack_i64, int64_t, (int64_t)(i % 3 ? random64() : i % 2 ? UINT32_MAX : 0))
DEFINE_TEST_PACK(pack_f32, float, (float)edge_value(i + n))
DEFINE_TEST_PACK(pack_f64, double, edge_value(i + n))

/* One NaN at each place, of either sign, and infinities elsewhere. */
#define DEFINE_TEST_NAN(op, type)                                                                  \
    static void test_##op##_nan(const bitops_isa *isa) {                                           \
        for (size_t n = 1; n <= 130; n += 43)                                                      \
            for (size_t place = 0; place <= n; place++) {                                          \
                type *x = input(0, n * sizeof *x);                                                 \
                for (size_t i = 0; i < n; i++)                                                     \
                    x[i] = (type)(i == place ? (i % 2 ? (double)NAN : -(double)NAN)                \
                                             : (i % 3 ? HUGE_VAL : -HUGE_VAL));                    \
                const outputs out = make_outputs(bitops_words(n) * 8, 0);                          \
                int got_nan = 0, want_nan = 0;                                                     \
                isa->op(x, n, out.got, &got_nan);                                                  \
                generic->op(x, n, out.want, &want_nan);                                            \
                check(want_nan == (place < n) && got_nan == want_nan, "NaN flags", n, place, 0);   \
                check_outputs(n, place, 0);                                                        \
            }                                                                                      \
    }

DEFINE_TEST_NAN(pack_f32, float)
DEFINE_TEST_NAN(pack_f64, double)

static void test_pack_f32_all(const bitops_isa *isa) {
    test_pack_f32(isa);
    test_pack_f32_nan(isa);
}

static void test_pack_f64_all(const bitops_isa *isa) {
    test_pack_f64(isa);
    test_pack_f64_nan(isa);
}

/* Equal numbers every fifth, NaN in one of eight runs, also as a threshold. */
#define DEFINE_TEST_COMPARE(op, type, random_value, nan_value)                                     \
    static void test_##op(const bitops_isa *isa) {                                                 \
        for (size_t s = 0; s < COUNT(bit_sizes); s++)                                              \
            for (size_t offset = 0; offset < OFFSETS; offset++) {                                  \
                const size_t n = bit_sizes[s], at = offset + 1 < OFFSETS ? offset : OFFSETS;       \
                type *x = (type *)input(0, (n + OFFSETS) * sizeof *x) + at;                        \
                float *threshold = (float *)input(1, (n + OFFSETS) * sizeof *threshold) + at;      \
                for (size_t i = 0; i < n; i++) {                                                   \
                    x[i] = (random_value);                                                         \
                    threshold[i] = i % 5 ? random_float() * 1e6f : (float)x[i];                    \
                }                                                                                  \
                if (n && offset % 8 == 3) {                                                        \
                    x[random64() % n] = (nan_value);                                               \
                    threshold[random64() % n] = NAN;                                               \
                }                                                                                  \
                const outputs out = make_outputs(bitops_words(n) * 8, offset % 8 * 8);             \
                int got_nan = 0, want_nan = 0;                                                     \
                isa->op(x, threshold, n, out.got, &got_nan);                                       \
                generic->op(x, threshold, n, out.want, &want_nan);                                 \
                check(got_nan == want_nan, "NaN flags", n, offset, 0);                             \
                check_outputs(n, offset, 0);                                                       \
            }                                                                                      \
    }

/* Integers beyond 2^24 are compared as the float32 that they round to. */
DEFINE_TEST_COMPARE(compare_i32, int32_t,
                    (int32_t)(i % 2 ? random64() : random64() % 2000000 - 1000000), 0)
DEFINE_TEST_COMPARE(compare_f32, float, (float)edge_value(i) * (i % 2 ? 1e4f : 1), NAN)

#define DEFINE_TEST_UNPACK(op, type)                                                               \
    static void test_##op(const bitops_isa *isa) {                                                 \
        for (size_t s = 0; s < COUNT(bit_sizes); s++)                                              \
            for (size_t offset = 0; offset < OFFSETS; offset++) {                                  \
                const size_t n = bit_sizes[s];                                                     \
                const uint64_t *words = input_words(0, bitops_words(n), (int)offset % PATTERNS);   \
                const outputs out = make_outputs(n * sizeof(type), offset * sizeof(type));         \
                isa->op(words, n, out.got);                                                        \
                generic->op(words, n, out.want);                                                   \
                check_outputs(n, offset, 0);                                                       \
            }                                                                                      \
    }

DEFINE_TEST_UNPACK(unpack_i8, int8_t)
DEFINE_TEST_UNPACK(unpack_f32, float)

static void popcount_case(const bitops_isa *isa, size_t rows, size_t n_words, int pattern) {
    const uint64_t *words = input_words(0, rows * n_words, pattern);
    const outputs out = make_outputs(rows * sizeof(int64_t), 0);
    isa->popcount(words, rows, n_words, out.got);
    generic->popcount(words, rows, n_words, out.want);
    check_outputs(rows, n_words, (size_t)pattern);
}

static void test_popcount(const bitops_isa *isa) {
    /* Around the intervals in which narrow counters are emptied. */
    static const size_t sizes[] = {61,   63,   64,   65,   123,  124,  125,  127,  128,   129,
                                   1009, 1023, 1024, 1025, 8183, 8184, 8185, 8192, 16367, 16369};
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        for (size_t n_words = 0; n_words <= 40; n_words++)
            for (size_t rows = 0; rows <= 5; rows++)
                popcount_case(isa, rows, n_words, pattern);
        for (size_t s = 0; s < COUNT(sizes); s++)
            popcount_case(isa, 1 + s % 2, sizes[s], pattern);
    }
}

static void test_popcount_columns(const bitops_isa *isa) {
    static const size_t row_counts[] = {1, 2, 3, 31, 63, 64, 65, 127, 128, 129, 257};
    static const size_t widths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64};
    for (size_t r = 0; r < COUNT(row_counts); r++)
        for (size_t s = 0; s < COUNT(widths); s++)
            for (int pattern = 0; pattern < PATTERNS; pattern++) {
                const size_t rows = row_counts[r], n_words = widths[s];
                const size_t ld = n_words + (pattern ? 0 : 3);
                const uint64_t *words = input_words(0, (rows - 1) * ld + n_words, pattern);
                const outputs out = make_outputs(n_words * 64 * sizeof(int64_t), 0);
                isa->popcount_columns(words, ld, rows, n_words, out.got);
                generic->popcount_columns(words, ld, rows, n_words, out.want);
                check_outputs(rows, n_words, (size_t)pattern);
            }
}

/* ---- products of bits ---------------------------------------------------------------------- */

enum { STORES = 11, MAX_M = 130, MAX_N = 520, TOPK = 5, OFFSET_ROWS = 3 };

static float alpha[MAX_N], bias[MAX_N], k_map[MAX_M];
static int32_t threshold[MAX_N], offset_table[OFFSET_ROWS * MAX_N];
static uint64_t flip[MAX_N / 64 + 1];
static uint32_t offset_row[MAX_M];

static void fill_store_arrays(size_t n, size_t k) {
    for (size_t j = 0; j < MAX_N; j++) {
        alpha[j] = random_float();
        bias[j] = random_float();
        threshold[j] = (int32_t)(random64() % (k / 4 + 3)) - (int32_t)(k / 8 + 1);
    }
    for (size_t j = 0; j < COUNT(offset_table); j++)
        offset_table[j] = (int32_t)(random64() % 50) - 25;
    for (size_t i = 0; i < MAX_M; i++) {
        k_map[i] = random_float();
        offset_row[i] = (uint32_t)(random64() % OFFSET_ROWS);
    }
    memset(flip, 0, sizeof flip); /* packed bits: those from n on are 0 */
    for (size_t j = 0; j < n; j++)
        flip[j / 64] |= (random64() & 1) << j % 64;
}

/* Store number i of m rows and columns [0, n) of k bits, and its bytes. */
static bitops_store make_store(int i, size_t n, size_t k) {
    bitops_store store = {.k = (int32_t)k, .ldc = n + (size_t)i % 3};
    static const bitops_store_kind kinds[STORES] = {
        BITOPS_STORE_DOT,  BITOPS_STORE_SCALED,     BITOPS_STORE_HAMMING, BITOPS_STORE_HAMMING16,
        BITOPS_STORE_SIGN, BITOPS_STORE_ACCUMULATE, BITOPS_STORE_TOPK,    BITOPS_STORE_SCALED,
        BITOPS_STORE_DOT,  BITOPS_STORE_SIGN,       BITOPS_STORE_SCALED};
    store.kind = kinds[i];
    if (store.kind == BITOPS_STORE_TOPK)
        store.ldc = TOPK;
    if (store.kind == BITOPS_STORE_SIGN) {
        store.ldc = bitops_words(n) + (size_t)i % 3;
        store.threshold = threshold;
    }
    if (i >= 7 && i != 10) { /* with offsets */
        store.offset = offset_table;
        store.ld_offset = MAX_N;
        store.offset_row = offset_row;
        store.first_row = 0;
    }
    if (i == 1 || i == 7)
        store.alpha = alpha;
    if (i == 7 || i == 10)
        store.k_map = k_map;
    if (i == 1 || i == 10)
        store.bias = bias;
    if (i == 9)
        store.flip = flip;
    return store;
}

static size_t store_bytes(const bitops_store *store, size_t m) {
    const int words = store->kind == BITOPS_STORE_SIGN || store->kind == BITOPS_STORE_TOPK;
    return m * store->ldc * (words ? 8 : store->kind == BITOPS_STORE_HAMMING16 ? 2 : 4);
}

/* What stores add to: counts, or empty heaps. */
static void start_outputs(const bitops_store *store, size_t m, void *c) {
    if (store->kind == BITOPS_STORE_TOPK)
        memset(c, 0xff, store_bytes(store, m));
    if (store->kind == BITOPS_STORE_ACCUMULATE)
        for (size_t i = 0; i < m * store->ldc; i++)
            ((int32_t *)c)[i] = (int32_t)i;
}

/* The mismatches of m rows with n rows by gemm_rows of generic, and what isa makes of it: by
 * panels, or by rows as they lie. */
static void product_case(const bitops_isa *isa, int panels, size_t m, size_t n, size_t k_words,
                         int pattern, int i) {
    static _Alignas(64) uint64_t scratch[MAX_M * 64], panel[1 << 17];
    const size_t lda = k_words + (m + n) % 3, ldw = k_words + m % 2;
    uint64_t *a = input_words(0, (m - 1) * lda + k_words, pattern);
    uint64_t *w = input_words(1, (n - 1) * ldw + k_words, pattern);
    const size_t k = k_words * 64;
    bitops_store store = make_store(i, n, k);
    if (!panels)
        store.offset = NULL;
    fill_store_arrays(n, k);
    const outputs out = make_outputs(store_bytes(&store, m), 0);
    start_outputs(&store, m, out.got);
    start_outputs(&store, m, out.want);
    store.c = out.want;
    generic->gemm_rows(a, lda, m, w, ldw, n, k_words, 0, 0, &store);
    store.c = out.got;
    if (panels && isa->prepack_rows) {
        uint64_t *rows = input(2, m * k_words * sizeof *rows);
        isa->prepack_rows(a, lda, m, k_words, rows, k_words);
        for (size_t j = 0; j < n; j += isa->nr) {
            const size_t columns = n - j < isa->nr ? n - j : isa->nr;
            isa->prepack(w + j * ldw, ldw, columns, k_words, panel);
            isa->gemm_panel(rows, k_words, m, panel, columns, k_words, 0, j, &store, scratch);
        }
    } else if (panels) {
        for (size_t j = 0; j < n; j += isa->nr) {
            const size_t columns = n - j < isa->nr ? n - j : isa->nr;
            isa->prepack(w + j * ldw, ldw, columns, k_words, panel);
            isa->gemm_panel(a, lda, m, panel, columns, k_words, 0, j, &store, scratch);
        }
    } else {
        isa->gemm_rows(a, lda, m, w, ldw, n, k_words, 0, 0, &store);
    }
    check_outputs(m, n, k_words);
}

static const size_t row_sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 47, 48, 49, 61, 97};
static const size_t column_sizes[] = {1,  2,  3,  7,  8,  9,  15, 16,  17,  31,  32,  33, 47,
                                      48, 49, 63, 64, 65, 80, 97, 113, 127, 128, 129, 257};
static const size_t word_sizes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33};

static void test_gemm_panel(const bitops_isa *isa) {
    int turn = 0; /* each size meets another store and pattern */
    for (size_t r = 0; r < COUNT(row_sizes); r++)
        for (size_t s = 0; s < COUNT(column_sizes); s++)
            for (size_t p = 0; p < COUNT(word_sizes); p++, turn++)
                product_case(isa, 1, row_sizes[r], column_sizes[s], word_sizes[p],
                             turn / STORES % PATTERNS, turn % STORES);
    /* Every store, with few and with many rows, and tiles that are not full. */
    for (int i = 0; i < STORES; i++)
        for (int pattern = 0; pattern < PATTERNS; pattern++)
            for (size_t n = isa->nr - 1; n <= isa->nr + 1; n++) {
                product_case(isa, 1, 5, n, 7, pattern, i);
                product_case(isa, 1, 50, n, 7, pattern, i);
            }
    /* Long rows, up to where 16-bit counters are full. */
    static const size_t longs[] = {61, 127, 128, 255, 256, 257, 1022, 1023};
    for (size_t p = 0; p < COUNT(longs); p++)
        for (int pattern = 0; pattern < PATTERNS; pattern++) {
            product_case(isa, 1, 3, isa->nr, longs[p], pattern, 3);
            product_case(isa, 1, 49, isa->nr, longs[p], pattern, 0);
        }
}

static void test_gemm_rows(const bitops_isa *isa) {
    int turn = 0;
    for (size_t m = 1; m <= 17; m += 1 + m / 5)
        for (size_t s = 0; s < COUNT(column_sizes); s++)
            for (size_t p = 0; p < COUNT(word_sizes); p++, turn++)
                product_case(isa, 0, m, column_sizes[s], word_sizes[p], turn / STORES % PATTERNS,
                             turn % STORES);
    static const size_t longs[] = {123, 124, 125, 1023, 1024, 1025, 8183, 8184, 8185, 16369};
    for (size_t p = 0; p < COUNT(longs); p++)
        for (int pattern = 0; pattern < PATTERNS; pattern++)
            product_case(isa, 0, 2, 9, longs[p], pattern, 0);
}

/* Both are tested by the products that read what they wrote. */
static void test_prepack(const bitops_isa *isa) {
    for (size_t n = 1; n <= isa->nr; n++)
        product_case(isa, 1, 3, n, 1 + n % 19, RANDOM, 2);
}

/* ---- numbers times weights ----------------------------------------------------------------- */

/* Equal, or both NaN, whose bits are not part of the contract. */
static int floats_equal(const float *got, const float *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i, want + i, sizeof *got) && !(isnan(got[i]) && isnan(want[i])))
            return 0;
    return 1;
}

enum { MAX_HALVES = 34, TABLE_WORDS = 4 * MAX_HALVES * BITOPS_LOOKUP_BYTES / 8 };

typedef struct lookup_shape {
    size_t rows, n, k;
    int first, pattern;
} lookup_shape;

static void run_lookup(const bitops_isa *isa, int real, const lookup_shape *s, const void *x,
                       const uint64_t *w, size_t ldw, void *c, size_t ldc) {
    static _Alignas(64) uint64_t tables[TABLE_WORDS];
    static uint32_t panel[MAX_HALVES * BITOPS_LOOKUP_COLUMNS];
    const size_t size = real ? sizeof(float) : 1, halves = (s->k + 31) / 32;
    bitops_lookup t = {.tables = tables,
                       .table_stride = halves * BITOPS_LOOKUP_BYTES,
                       .panel = panel,
                       .halves = halves,
                       .rows = s->rows,
                       .n = s->n,
                       .c = c,
                       .ldc = ldc,
                       .first = s->first};
    isa->lookup_panel(w, ldw, s->n, bitops_words(s->k), panel);
    for (size_t i = 0; i < s->rows; i++) {
        const void *row = (const char *)x + i * s->k * size;
        void *own = (char *)tables + i * t.table_stride;
        if (real)
            isa->lookup_tables_f32(row, s->k, own);
        else
            isa->lookup_tables_u8(row, s->k, own);
    }
    if (real)
        isa->lookup_f32(&t);
    else
        isa->lookup_u8(&t);
}

static void lookup_case(const bitops_isa *isa, int real, const lookup_shape *s) {
    const size_t elements = s->rows * s->k, ldc = s->n + s->k % 3, k_words = bitops_words(s->k);
    void *x = input(0, elements * (real ? sizeof(float) : 1));
    for (size_t i = 0; i < elements; i++) {
        if (real)
            ((float *)x)[i] = i % 7 ? random_float() : (float)edge_value(i);
        else
            ((uint8_t *)x)[i] = s->pattern == RANDOM ? (uint8_t)random64() : 255;
    }
    if (real && elements && s->pattern == OPPOSITE)
        ((float *)x)[random64() % elements] = HUGE_VALF;
    const uint64_t *w = input_words(1, s->n * k_words, s->pattern);
    const outputs out = make_outputs(s->rows * ldc * 4, 0);
    for (size_t i = 0; i < s->rows * ldc; i++) {
        const float start = random_float();
        ((float *)out.got)[i] = ((float *)out.want)[i] = start;
        if (!real)
            ((int32_t *)out.got)[i] = ((int32_t *)out.want)[i] = (int32_t)(start * 1000);
    }
    run_lookup(isa, real, s, x, w, k_words, out.got, ldc);
    run_lookup(generic, real, s, x, w, k_words, out.want, ldc);
    if (real)
        check(floats_equal(out.got, out.want, s->rows * ldc), "outputs", s->rows, s->n, s->k);
    else
        check_outputs(s->rows, s->n, s->k);
}

static void test_lookup(const bitops_isa *isa, int real) {
    static const size_t sizes[] = {1,  2,   3,   4,   5,   31,  32,  33,  63,  64,  65,   95,  96,
                                   97, 127, 128, 129, 160, 191, 193, 255, 256, 257, 1023, 1024};
    int turn = 0;
    for (size_t rows = 1; rows <= BITOPS_LOOKUP_ROWS; rows++)
        for (size_t s = 0; s < COUNT(sizes); s++)
            for (size_t n = 1; n <= BITOPS_LOOKUP_COLUMNS; n += n % 16 > 1 && n % 16 < 14 ? 5 : 1) {
                const lookup_shape shape = {rows, n, sizes[s], turn % 2, turn / 2 % PATTERNS};
                lookup_case(isa, real, &shape);
                turn++;
            }
}

static void test_lookup_f32(const bitops_isa *isa) {
    test_lookup(isa, 1);
}

static void test_lookup_u8(const bitops_isa *isa) {
    test_lookup(isa, 0);
}

/* ---- training ------------------------------------------------------------------------------ */

static void test_adam(const bitops_isa *isa) {
    enum { ARRAYS = 4 };
    for (size_t s = 0; s < COUNT(bit_sizes); s++)
        for (size_t offset = 0; offset < OFFSETS; offset++) {
            const size_t n = bit_sizes[s], all = offset + n;
            float *x[2][ARRAYS]; /* g, w, m, v of isa and of generic */
            for (int a = 0; a < ARRAYS; a++) {
                x[0][a] = input(a, all * sizeof(float));
                x[1][a] = input(ARRAYS + a, all * sizeof(float));
                for (size_t i = 0; i < all; i++) {
                    const float v = (float)edge_value(i + (size_t)a);
                    x[0][a][i] = x[1][a][i] = a == 3 ? fabsf(v) : v;
                }
            }
            for (int b = 0; b < 2; b++) {
                const bitops_adam_args args = {.rows = 1,
                                               .n = all,
                                               .g = x[b][0],
                                               .w = x[b][1],
                                               .m = x[b][2],
                                               .v = x[b][3],
                                               .beta1_rest = 0.1f,
                                               .beta2_rest = 0.001f,
                                               .eps = 1e-8f,
                                               .rate = 0.01f,
                                               .keep = offset % 2 ? 1 : 0.99f,
                                               .clip = offset % 3 ? 1 : HUGE_VALF};
                (b ? generic : isa)->adam(&args, offset, n);
            }
            for (int a = 0; a < ARRAYS; a++)
                check(memcmp(x[0][a], x[1][a], all * sizeof(float)) == 0, "arrays", n, offset,
                      (size_t)a);
        }
}

/* It has no result to compare: it runs, and says what it did. */
static void test_port_bound(const bitops_isa *isa) {
    uint64_t macs = 0;
    isa->port_bound(100, &macs);
    check(macs > 0, "steps", 100, 0, 0);
}

/* ---- drivers ------------------------------------------------------------------------------- */

/* Aligned memory, for workspaces. */
static void *workspace_of(size_t bytes) {
    const size_t size = bytes ? (bytes + 63) / 64 * 64 : 64;
#if defined(_WIN32)
    void *p = _aligned_malloc(size, 64);
#else
    void *p = aligned_alloc(64, size);
#endif
    if (!p)
        exit(2);
    memset(p, UNTOUCHED, size);
    return p;
}

static void free_workspace(void *p) {
#if defined(_WIN32)
    _aligned_free(p);
#else
    free(p);
#endif
}

static void run_gemm(const bitops_isa *isa, bitops_gemm_args args, int prepacked) {
    uint64_t *panels = NULL;
    if (prepacked) {
        panels = workspace_of(bitops_prepack_size(isa, args.n, args.k_words) * 8);
        bitops_prepack_all(isa, args.w, args.ldw, args.n, args.k_words, panels, 1);
        args.panels = panels;
        args.w = NULL;
    }
    void *workspace = workspace_of(bitops_gemm_workspace_size(isa, &args, 1));
    bitops_gemm(isa, &args, workspace, 1);
    free_workspace(workspace);
    free_workspace(panels);
}

static void test_gemm_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 1, 1},     {17, 33, 3},    {16, 130, 9},
                                       {48, 128, 8},  {97, 257, 5},   {130, 65, 13},
                                       {18, 40, 257}, {50, 129, 600}, {3, 7, 515}};
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int turn = 0; turn < 2 * STORES; turn++) {
            const size_t m = shapes[s][0], n = shapes[s][1], k_words = shapes[s][2];
            const int i = turn / 2;
            bitops_gemm_args args = {.lda = k_words, .ldw = k_words, .m = m, .n = n};
            args.a = input_words(0, m * k_words, turn % 3 ? RANDOM : OPPOSITE);
            args.w = input_words(1, n * k_words, turn % 3 ? RANDOM : OPPOSITE);
            args.k_words = k_words;
            args.store = make_store(i, n, k_words * 64);
            if (args.store.offset || args.store.kind == BITOPS_STORE_TOPK)
                continue; /* of convolutions and of searches, below */
            fill_store_arrays(n, k_words * 64);
            const outputs out = make_outputs(store_bytes(&args.store, m), 0);
            args.store.c = out.got;
            start_outputs(&args.store, m, out.got);
            run_gemm(isa, args, turn % 2);
            args.store.c = out.want;
            start_outputs(&args.store, m, out.want);
            run_gemm(generic, args, 0);
            check_outputs(m, n, k_words);
        }
}

static void test_topk_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 300, 17}, {9, 129, 4}, {60, 257, 16}, {20, 70, 258}};
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t count = 1; count <= 21; count += 10) {
            const size_t m = shapes[s][0], n = shapes[s][1], k_words = shapes[s][2];
            bitops_gemm_args args = {.lda = k_words, .ldw = k_words, .m = m, .n = n};
            args.a = input_words(0, m * k_words, RANDOM);
            args.w = input_words(1, n * k_words, RANDOM);
            args.k_words = k_words;
            args.store.k = (int32_t)(k_words * 64);
            const outputs out = make_outputs(m * count * 12, 0);
            for (int b = 0; b < 2; b++) {
                const bitops_isa *own = b ? generic : isa;
                char *c = b ? out.want : out.got;
                void *workspace =
                    workspace_of(bitops_hamming_topk_workspace_size(own, &args, count, 1));
                bitops_hamming_topk(own, &args, count, (int32_t *)(c + m * count * 8), (int64_t *)c,
                                    workspace, 1);
                free_workspace(workspace);
            }
            check_outputs(m, n, count);
        }
}

static void run_conv(const bitops_isa *isa, const bitops_conv_args *args) {
    void *workspace = workspace_of(bitops_conv_workspace_size(isa, args, 1));
    bitops_conv(isa, args, workspace, 1);
    free_workspace(workspace);
}

/* A kernel of 3 x 3 over 2 images of 9 x 7; zeros outside where the sums of taps say so. */
static void conv_case(const bitops_isa *isa, size_t channels, size_t filters, size_t groups,
                      size_t stride, int zeros, int i) {
    enum { H = 9, W = 7, KERNEL = 3, TAPS = 9, IMAGES = 2 };
    const size_t own = channels / groups, k = TAPS * own, pixel = bitops_words(channels);
    const int depthwise = own == 1 && groups > 1;
    const size_t filter_words = depthwise ? TAPS * pixel : bitops_words(k);
    const size_t rows = depthwise ? filters / groups : filters;
    uint64_t *x = input_words(0, IMAGES * H * W * pixel, RANDOM);
    uint64_t *w = input_words(1, rows * filter_words, RANDOM);
    const uint64_t last = channels % 64 ? ((uint64_t)1 << channels % 64) - 1 : UINT64_MAX;
    for (size_t p = 0; p < IMAGES * H * W; p++)
        x[p * pixel + pixel - 1] &= last;
    if (depthwise)
        for (size_t p = 0; p < rows * TAPS; p++)
            w[p * pixel + pixel - 1] &= last;
    else if (k % 64)
        for (size_t j = 0; j < rows; j++)
            w[j * filter_words + filter_words - 1] &= ((uint64_t)1 << k % 64) - 1;
    int32_t *sums = input(2, TAPS * filters * sizeof *sums);
    for (size_t j = 0; j < TAPS * filters; j++) /* any numbers: both ISAs add the same */
        sums[j] = (int32_t)(random64() % (2 * own + 1)) - (int32_t)own;
    bitops_conv_args args = {
        .image = {.x = x, .pixel_words = pixel, .height = H, .width = W, .channels = own},
        .images = IMAGES,
        .w = w,
        .filters = filters,
        .groups = groups};
    args.image.kernel_height = args.image.kernel_width = KERNEL;
    args.image.stride_y = args.image.stride_x = stride;
    args.image.pad_top = args.image.pad_left = 1;
    args.image.dilation_y = args.image.dilation_x = 1;
    args.image.out_height = (H + 2 - KERNEL) / stride + 1;
    args.image.out_width = (W + 2 - KERNEL) / stride + 1;
    args.image.outside = zeros ? 0 : UINT64_MAX;
    void *offsets = NULL;
    if (zeros) {
        offsets = workspace_of(bitops_conv_offsets_size(&args));
        bitops_conv_fill_offsets(&args, sums, offsets, workspace_of(bitops_conv_areas_size(&args)));
    }
    const size_t m = IMAGES * args.image.out_height * args.image.out_width;
    args.store = make_store(i, filters, k);
    args.store.offset = NULL; /* the driver's */
    args.store.k_map = NULL;
    fill_store_arrays(filters, k);
    const outputs out = make_outputs(store_bytes(&args.store, m), 0);
    args.store.c = out.got;
    run_conv(isa, &args);
    args.store.c = out.want;
    run_conv(generic, &args);
    check_outputs(channels, filters, (size_t)i);
    free_workspace(offsets);
}

static void test_conv_driver(const bitops_isa *isa) {
    static const int stores[] = {0, 1, 9};
    for (size_t s = 0; s < COUNT(stores); s++)
        for (size_t stride = 1; stride <= 2; stride++)
            for (int zeros = 0; zeros < 2; zeros++) {
                conv_case(isa, 64, 130, 1, stride, zeros, stores[s]);
                conv_case(isa, 128, 64, 1, stride, zeros, stores[s]);
                conv_case(isa, 3, 17, 1, stride, zeros, stores[s]);
                conv_case(isa, 96, 40, 2, stride, zeros, stores[s]);
                conv_case(isa, 70, 70, 70, stride, zeros, stores[s]);
                conv_case(isa, 2048, 9, 1, stride, zeros, stores[s]); /* k is cut */
            }
}

static void test_mixed_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 70, 100}, {5, 33, 1000}, {40, 129, 320}, {60, 65, 64}};
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int bits = 0; bits <= 8; bits++) { /* 0: float32 */
            const size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
            bitops_mixed_args args = {.is_float = bits == 0, .bits = bits, .m = m, .k = k, .n = n};
            void *x = input(0, m * k * (bits ? 1 : sizeof(float)));
            for (size_t j = 0; j < m * k; j++) {
                if (bits)
                    ((uint8_t *)x)[j] = (uint8_t)(random64() % (1u << bits));
                else
                    ((float *)x)[j] = random_float();
            }
            uint64_t *w = input_words(1, n * bitops_words(k), RANDOM);
            for (size_t j = 0; j < n && k % 64; j++)
                w[j * bitops_words(k) + k / 64] &= ((uint64_t)1 << k % 64) - 1;
            args.x = x;
            args.w = w;
            args.ldw = bitops_words(k);
            fill_store_arrays(n, k);
            args.alpha = bits % 2 ? alpha : NULL;
            args.bias = bits % 3 ? NULL : bias;
            const outputs out = make_outputs(m * n * 4, 0);
            for (int b = 0; b < 2; b++) {
                const bitops_isa *own = b ? generic : isa;
                void *workspace = workspace_of(bitops_mixed_workspace_size(own, &args, 1));
                args.c = b ? out.want : out.got;
                bitops_mixed(own, &args, workspace, 1);
                free_workspace(workspace);
            }
            check_outputs(m, n, (size_t)bits);
        }
}

/* ---- all of them --------------------------------------------------------------------------- */

typedef void test_fn(const bitops_isa *isa);

/* Operations that others cannot do without are tested with those. */
static const struct {
    const char *op;
    test_fn *run;
} tests[] = {
    {"pack_bool8", test_pack_bool8},
    {"pack_i8", test_pack_i8},
    {"pack_i16", test_pack_i16},
    {"pack_i32", test_pack_i32},
    {"pack_i64", test_pack_i64},
    {"pack_f32", test_pack_f32_all},
    {"pack_f64", test_pack_f64_all},
    {"compare_i32", test_compare_i32},
    {"compare_f32", test_compare_f32},
    {"unpack_i8", test_unpack_i8},
    {"unpack_f32", test_unpack_f32},
    {"popcount", test_popcount},
    {"popcount_columns", test_popcount_columns},
    {"prepack", test_prepack},
    {"prepack_rows", test_prepack},
    {"gemm_panel", test_gemm_panel},
    {"gemm_rows", test_gemm_rows},
    {"lookup_panel", test_lookup_u8},
    {"lookup_tables_f32", test_lookup_f32},
    {"lookup_tables_u8", test_lookup_u8},
    {"lookup_f32", test_lookup_f32},
    {"lookup_u8", test_lookup_u8},
    {"adam", test_adam},
    {"port_bound", test_port_bound},
};

static const struct {
    const char *name;
    test_fn *run;
} driver_tests[] = {
    {"gemm driver", test_gemm_driver},
    {"conv driver", test_conv_driver},
    {"topk driver", test_topk_driver},
    {"mixed driver", test_mixed_driver},
};

static void run_op(const bitops_isa *isa, const char *op) {
    for (size_t i = 0; i < COUNT(tests); i++)
        if (strcmp(tests[i].op, op) == 0) {
            current_op = op;
            tests[i].run(isa);
            return;
        }
    printf("%s %s: there is no test\n", isa->name, op);
    exit(1);
}

static void test_isa(const bitops_isa *isa) {
    const char *op, *name;
    unsigned kernels = 0;
    comparisons = 0;
    current_isa = isa->name;
    for (size_t i = 0; bitops_kernel_name(i, &op, &name); i++)
        if (strcmp(name, isa->name) == 0) {
            run_op(isa, op);
            kernels++;
        }
    for (size_t i = 0; i < COUNT(driver_tests); i++) {
        current_op = driver_tests[i].name;
        driver_tests[i].run(isa);
    }
    printf("%s: %u kernels and %zu drivers equal generic in %lu comparisons\n", isa->name, kernels,
           COUNT(driver_tests), comparisons);
}

int main(int argc, char **argv) {
    const char *best = bitops_isa_active()->name;
    if (argc > 1 && strcmp(argv[1], best) != 0) {
        printf("dispatch chose %s, not %s\n", best, argv[1]);
        return 1;
    }
    generic = bitops_isa_find("generic");
    make_inputs();
    for (size_t i = 0; i < bitops_isa_count(); i++) {
        if (bitops_isa_runs(bitops_isa_get(i)))
            test_isa(bitops_isa_get(i));
        else
            printf("%s: not on this CPU\n", bitops_isa_get(i)->name);
    }
    return 0;
}
