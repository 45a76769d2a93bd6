/* kernels_test_products.c: tests of the kernels of products: of bits, and of numbers with weights.
 */
#include "kernels_test.h"

#include <math.h>
#include <string.h>

/* ---- products of bits ---------------------------------------------------------------------- */

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
    /* Short rows, so many of them that their tables fit in the scratch of counters. */
    for (size_t words = 1; words <= BITOPS_SHORT_WORDS; words++)
        for (int i = 0; i < STORES; i++)
            for (size_t n = 64; n <= 129; n += i % 2 ? 65 : 64)
                product_case(isa, 1, 73 * words, n, words, i % PATTERNS, i);
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
    static const size_t longs[] = {123,  124,  125,  127,  128,  159,  160,
                                   1023, 1024, 1025, 8183, 8184, 8185, 16369};
    for (size_t p = 0; p < COUNT(longs); p++)
        for (int pattern = 0; pattern < PATTERNS; pattern++)
            product_case(isa, 0, 2, 9, longs[p], pattern, 0);
}

/* m rows times n columns by gemm_short, whose panels lie one after the other. */
static void short_case(const bitops_isa *isa, size_t m, size_t n, size_t k_words, int pattern,
                       int i) {
    const size_t nr = isa->nr, lda = k_words + m % 3, ldw = k_words + n % 2, k = k_words * 64;
    const uint64_t *a = input_words(0, (m - 1) * lda + k_words, pattern);
    const uint64_t *w = input_words(1, (n - 1) * ldw + k_words, pattern);
    uint64_t *panels = input(2, bitops_prepack_size(isa, n, k_words) * sizeof *panels);
    bitops_store store = make_store(i, n, k);
    if (store.kind == BITOPS_STORE_ACCUMULATE)
        return; /* for long rows */
    fill_store_arrays(n, k);
    const outputs out = make_outputs(store_bytes(&store, m), 0);
    start_outputs(&store, m, out.got);
    start_outputs(&store, m, out.want);
    store.c = out.want;
    for (size_t j = 0; j < n; j += generic->nr) {
        uint64_t panel[16 * BITOPS_SHORT_WORDS];
        const size_t columns = n - j < generic->nr ? n - j : generic->nr;
        generic->prepack(w + j * ldw, ldw, columns, k_words, panel);
        generic->gemm_panel(a, lda, m, panel, columns, k_words, 0, j, &store, NULL);
    }
    store.c = out.got;
    for (size_t j = 0; j < n; j += nr)
        isa->prepack(w + j * ldw, ldw, n - j < nr ? n - j : nr, k_words, panels + j * k_words);
    if (isa->prepack_rows) {
        uint64_t *rows = input(3, m * k_words * sizeof *rows);
        isa->prepack_rows(a, lda, m, k_words, rows, k_words);
        isa->gemm_short(rows, k_words, m, panels, n, k_words, 0, 0, &store);
    } else {
        isa->gemm_short(a, lda, m, panels, n, k_words, 0, 0, &store);
    }
    check_outputs(m, n, k_words);
}

static void test_gemm_short(const bitops_isa *isa) {
    int turn = 0;
    for (size_t m = 1; m <= 40; m += 1 + m / 4)
        for (size_t s = 0; s < COUNT(column_sizes); s++)
            for (size_t words = 1; words <= BITOPS_SHORT_WORDS; words++, turn++)
                short_case(isa, m, column_sizes[s], words, turn / STORES % PATTERNS, turn % STORES);
    for (size_t words = 1; words <= BITOPS_SHORT_WORDS; words++)
        for (int i = 0; i < STORES; i++)
            for (int pattern = 0; pattern < PATTERNS; pattern++)
                short_case(isa, 3, 3 * isa->nr + 21, words, pattern, i);
}

/* A convolution with n filters of lines of pixels, against the product of rows copied from them. */
static void narrow_case(const bitops_isa *isa, size_t channels, size_t width, size_t stride,
                        size_t n, int pattern, int i) {
    enum { LINES = 3, TAPS = BITOPS_NARROW_TAPS };
    static uint64_t panel[1 << 10];
    const size_t pixel = channels / 8, run = TAPS * pixel, k = TAPS * TAPS * channels;
    const size_t line = ((width - 1) * stride + TAPS) * pixel, m = LINES * width;
    const size_t bytes = ((LINES - 1) * stride + TAPS) * line, k_words = bitops_words(k);
    const uint8_t *pixels = (const uint8_t *)input_words(0, bytes / 8 + 2, pattern);
    uint64_t *w = input_words(1, n * k_words, pattern), *rows = input(2, m * k_words * sizeof *w);
    bitops_store store = make_store(i, n, k);
    if (store.kind != BITOPS_STORE_DOT && store.kind != BITOPS_STORE_SCALED &&
        store.kind != BITOPS_STORE_SIGN)
        return;
    for (size_t j = 0; j < n && k % 64; j++)
        w[(j + 1) * k_words - 1] &= ((uint64_t)1 << k % 64) - 1;
    memset(rows, 0, m * k_words * sizeof *rows);
    for (size_t row = 0; row < m; row++)
        for (size_t ky = 0; ky < TAPS; ky++)
            memcpy((uint8_t *)(rows + row * k_words) + ky * run,
                   pixels + (row / width * stride + ky) * line + row % width * stride * pixel, run);
    fill_store_arrays(n, k);
    const outputs out = make_outputs(store_bytes(&store, m), 0);
    start_outputs(&store, m, out.got);
    start_outputs(&store, m, out.want);
    store.c = out.want;
    for (size_t j = 0; j < n; j += generic->nr) {
        const size_t columns = n - j < generic->nr ? n - j : generic->nr;
        generic->prepack(w + j * k_words, k_words, columns, k_words, panel);
        generic->gemm_panel(rows, k_words, m, panel, columns, k_words, 0, j, &store, NULL);
    }
    store.c = out.got;
    isa->prepack(w, k_words, n, k_words, panel);
    const bitops_narrow_lines lines = {.bytes = pixels,
                                       .channels = channels,
                                       .lines = LINES,
                                       .outputs = width,
                                       .line_step = stride * line,
                                       .output_step = stride * pixel,
                                       .tap_step = line};
    isa->conv_narrow(&lines, panel, n, 0, 0, &store);
    check_outputs(channels, width, n);
}

static void test_conv_narrow(const bitops_isa *isa) {
    static const size_t filters[] = {1, 7, 8, 15, 16, 17, 24, 31, 32};
    for (size_t channels = 8; channels <= 32; channels *= 2)
        for (size_t s = 0; s < COUNT(filters); s++)
            for (int i = 0; i < STORES; i++)
                narrow_case(isa, channels, 1 + (s + (size_t)i) % 9, 1 + s % 2, filters[s],
                            (int)(s + (size_t)i) % PATTERNS, i);
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
    int zero, most; /* of small numbers */
} lookup_shape;

typedef enum numbers { F32, U8, SMALL } numbers;

static void run_lookup(const bitops_isa *isa, numbers kind, const lookup_shape *s, const void *x,
                       const uint64_t *w, size_t ldw, void *c, size_t ldc) {
    static _Alignas(64) uint64_t tables[TABLE_WORDS];
    static uint32_t panel[MAX_HALVES * BITOPS_LOOKUP_COLUMNS];
    const size_t size = kind == F32 ? sizeof(float) : 1, halves = (s->k + 31) / 32;
    bitops_lookup t = {.tables = tables,
                       .table_stride =
                           halves * (kind == SMALL ? BITOPS_SMALL_BYTES : BITOPS_LOOKUP_BYTES),
                       .panel = panel,
                       .halves = halves,
                       .rows = s->rows,
                       .n = s->n,
                       .c = c,
                       .ldc = ldc,
                       .first = s->first};
    t.most = kind == SMALL ? s->most : 0;
    (kind == SMALL && isa->lookup_panel_small ? isa->lookup_panel_small : isa->lookup_panel)(
        w, ldw, s->n, bitops_words(s->k), panel);
    for (size_t i = 0; i < s->rows; i++) {
        const void *row = (const char *)x + i * s->k * size;
        void *own = (char *)tables + i * t.table_stride;
        if (kind == SMALL)
            t.less[i] = isa->lookup_tables_small(row, s->k, s->zero, own);
        else
            (kind == F32 ? isa->lookup_tables_f32 : isa->lookup_tables_u8)(row, s->k, own);
    }
    (kind == F32 ? isa->lookup_f32 : kind == U8 ? isa->lookup_u8 : isa->lookup_small)(&t);
}

/* One that a row may hold: up to its ends if the pattern is not random. */
static uint8_t number(const lookup_shape *s, numbers kind) {
    const uint64_t random = random64();
    if (kind == U8)
        return s->pattern == RANDOM ? (uint8_t)random : 255;
    const int least = s->zero < s->most ? 0 : s->zero - s->most, largest = s->zero + s->most;
    if (s->pattern != RANDOM)
        return (uint8_t)(s->pattern == OPPOSITE && random & 1 ? least : largest);
    return (uint8_t)(least + (int)(random % (uint64_t)(largest - least + 1)));
}

static int32_t sum_of_signs(const uint64_t *w, size_t k) {
    int32_t sum = 0;
    for (size_t i = 0; i < k; i++)
        sum += w[i / BITOPS_WORD_BITS] >> i % BITOPS_WORD_BITS & 1 ? 1 : -1;
    return sum;
}

static void lookup_case(const bitops_isa *isa, numbers kind, const lookup_shape *s) {
    const int real = kind == F32;
    const size_t elements = s->rows * s->k, ldc = s->n + s->k % 3, k_words = bitops_words(s->k);
    void *x = input(0, elements * (real ? sizeof(float) : 1));
    for (size_t i = 0; i < elements; i++) {
        if (real)
            ((float *)x)[i] = i % 7 ? random_float() : (float)edge_value(i);
        else
            ((uint8_t *)x)[i] = number(s, kind);
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
    run_lookup(isa, kind, s, x, w, k_words, out.got, ldc);
    run_lookup(generic, real ? F32 : U8, s, x, w, k_words, out.want, ldc);
    for (size_t i = 0; i < s->rows && kind == SMALL; i++) /* which has codes for numbers */
        for (size_t j = 0; j < s->n; j++)
            ((int32_t *)out.want)[i * ldc + j] -= s->zero * sum_of_signs(w + j * k_words, s->k);
    if (real)
        check(floats_equal(out.got, out.want, s->rows * ldc), "outputs", s->rows, s->n, s->k);
    else
        check_outputs(s->rows, s->n, s->k);
}

static void test_lookup(const bitops_isa *isa, numbers kind) {
    static const size_t sizes[] = {1,  2,   3,   4,   5,   31,  32,  33,  63,  64,  65,   95,  96,
                                   97, 127, 128, 129, 160, 191, 193, 255, 256, 257, 1023, 1024};
    int turn = 0;
    for (size_t rows = 1; rows <= BITOPS_LOOKUP_ROWS; rows++)
        for (size_t s = 0; s < COUNT(sizes); s++)
            for (size_t n = 1; n <= BITOPS_LOOKUP_COLUMNS; n += n % 16 > 1 && n % 16 < 14 ? 5 : 1) {
                const int most = turn / 3 % 2 ? isa->small_most : 15;
                const int zeros[] = {0, most, 128, 255 - most};
                const lookup_shape shape = {
                    rows, n, sizes[s], turn % 2, turn / 2 % PATTERNS, zeros[turn % 4], most};
                lookup_case(isa, kind, &shape);
                turn++;
            }
}

static void test_lookup_f32(const bitops_isa *isa) {
    test_lookup(isa, F32);
}

static void test_lookup_u8(const bitops_isa *isa) {
    test_lookup(isa, U8);
}

static void test_lookup_small(const bitops_isa *isa) {
    test_lookup(isa, SMALL);
}

/* ---- float32 with float32 ------------------------------------------------------------------ */

/* In the order that operations.h states. */
static void sum_runs(const bitops_runs *runs, size_t outputs, const float *panel, size_t n,
                     float *y, size_t ldy) {
    for (size_t i = 0; i < outputs; i++)
        for (size_t j = 0; j < n; j++) {
            const float *w = panel + j;
            float sum = 0;
            for (size_t r = 0; r < runs->rows; r++)
                for (size_t c = 0; c < runs->columns; c++)
                    for (size_t t = 0; t < runs->count; t++, w += BITOPS_FLOAT_COLUMNS)
                        sum = fmaf(runs->x[r * runs->row_step + c * runs->column_step + t +
                                           i * runs->step],
                                   *w, sum);
            y[i * ldy + j] = sum;
        }
}

static void test_conv_f32(const bitops_isa *isa) {
    enum { MOST_OUTPUTS = 45, ROWS = 3, COLUMNS = 2 };
    static const size_t counts[] = {1, 2, 7, 21};
    int turn = 0;
    for (size_t count = 1; count <= MOST_OUTPUTS; count++)
        for (size_t n = 1; n <= BITOPS_FLOAT_COLUMNS; n += 1 + n / 3, turn++) {
            bitops_runs runs = {.rows = 1 + (size_t)turn % ROWS,
                                .columns = 1 + (size_t)turn / 2 % COLUMNS,
                                .count = counts[turn % (int)COUNT(counts)],
                                .step = 1 + (size_t)turn % 5,
                                .column_step = 5};
            runs.row_step = (count - 1) * runs.step + runs.column_step + runs.count;
            const size_t k = runs.rows * runs.columns * runs.count, ldy = n + (size_t)turn % 3;
            float *x = input(0, runs.rows * runs.row_step * sizeof *x);
            float *panel = input(1, k * BITOPS_FLOAT_COLUMNS * sizeof *panel);
            for (size_t i = 0; i < runs.rows * runs.row_step; i++)
                x[i] = (float)edge_value(i);
            for (size_t i = 0; i < k * BITOPS_FLOAT_COLUMNS; i++)
                panel[i] = random_float();
            runs.x = x;
            const size_t bytes = ((count - 1) * ldy + n) * sizeof(float);
            const outputs out = make_outputs(bytes, n % 16 * sizeof(float));
            memset(out.got, 0, bytes); /* also between the rows */
            memset(out.want, 0, bytes);
            isa->conv_f32(&runs, count, panel, n, out.got, ldy);
            sum_runs(&runs, count, panel, n, out.want, ldy);
            check_outputs(count, n, k);
        }
}

/* Tables of 64 lines of numbers, then the entries that n words select, in two blocks. */
static void run_lanes(const bitops_isa *isa, int real, size_t n, size_t steps, const void *x,
                      size_t ldx, const uint64_t *w, void *sums, int32_t *wide) {
    static _Alignas(64) char tables[BITOPS_LANES_TABLE_BYTES];
    bitops_lanes t = {.tables = tables, .w = w, .n = n, .sums = sums};
    for (int block = 0; block < 4; block++) {
        t.steps = block % 2 ? steps : 4;
        t.first = block == 0 || (!real && block == 2);
        t.wide = !real && block % 2 ? wide : NULL;
        t.first_wide = block == 1;
        if (real) {
            isa->lanes_tables_f32(x, ldx, tables);
            isa->lanes_f32(&t);
        } else {
            isa->lanes_tables_u8(x, ldx, tables);
            isa->lanes_u8(&t);
        }
    }
}

static void lanes_case(const bitops_isa *isa, int real, size_t n, int pattern) {
    const size_t lanes = real ? BITOPS_LANES_F32 : BITOPS_LANES_U8;
    const size_t ldx = lanes + n % 5, steps = 1 + n % 4;
    const size_t elements = (BITOPS_LANES_BITS - 1) * ldx + lanes;
    void *x = input(0, elements * (real ? sizeof(float) : 1));
    for (size_t i = 0; i < elements; i++) {
        if (real)
            ((float *)x)[i] = i % 7 ? random_float() : (float)edge_value(i);
        else
            ((uint8_t *)x)[i] = pattern == RANDOM ? (uint8_t)random64() : 255;
    }
    const uint64_t *w = input_words(1, n, pattern);
    void *sums = input(2, n * BITOPS_LANES_BYTES);
    const outputs out = make_outputs(n * lanes * 4, 0);
    run_lanes(isa, real, n, steps, x, ldx, w, real ? out.got : sums, out.got);
    run_lanes(generic, real, n, steps, x, ldx, w, real ? out.want : sums, out.want);
    if (real)
        check(floats_equal(out.got, out.want, n * lanes), "sums", n, steps, ldx);
    else
        check_outputs(n, steps, ldx);
}

static void test_lanes_f32(const bitops_isa *isa) {
    for (size_t n = 1; n <= 40; n++)
        lanes_case(isa, 1, n, (int)(n % PATTERNS));
}

static void test_lanes_u8(const bitops_isa *isa) {
    for (size_t n = 1; n <= 40; n++)
        lanes_case(isa, 0, n, (int)(n % PATTERNS));
}

static void test_turn_32(const bitops_isa *isa) {
    for (size_t rows = 1; rows <= 35; rows++)
        for (size_t columns = 1; columns <= 35; columns += 1 + rows % 3) {
            const size_t ld_in = columns + rows % 2, ld_out = rows + columns % 2;
            uint32_t *in = input(0, ((rows - 1) * ld_in + columns) * sizeof *in);
            for (size_t i = 0; i < (rows - 1) * ld_in + columns; i++)
                in[i] = (uint32_t)random64();
            const outputs out = make_outputs(((columns - 1) * ld_out + rows) * sizeof *in, 0);
            isa->turn_32(in, ld_in, rows, columns, out.got, ld_out);
            for (size_t i = 0; i < rows; i++)
                for (size_t j = 0; j < columns; j++)
                    ((uint32_t *)out.want)[j * ld_out + i] = in[i * ld_in + j];
            check_outputs(rows, columns, ld_out);
        }
}

/* ---- pairs --------------------------------------------------------------------------------- */

static void test_count_pairs(const bitops_isa *isa) {
    enum { ROWS = 40, MOST_PAIRS = 100 };
    for (size_t k_words = 1; k_words < 40; k_words += 1 + k_words / 4)
        for (size_t n = 1; n <= MOST_PAIRS; n += 1 + n / 3) {
            const uint64_t *a = input_words(0, ROWS * k_words, RANDOM);
            const uint64_t *b = input_words(1, ROWS * (k_words + 1), RANDOM);
            uint64_t *pairs = input(2, n * sizeof *pairs);
            for (size_t i = 0; i < n; i++)
                pairs[i] = (random64() % ROWS) << 32 | random64() % ROWS;
            const outputs out = make_outputs(n * sizeof(int32_t), 0);
            int32_t *got = (int32_t *)out.got, *want = (int32_t *)out.want;
            const int32_t most = n % 2 ? INT32_MAX : (int32_t)(32 * k_words);
            isa->count_pairs(a, k_words, b, k_words + 1, k_words, pairs, n, most, got);
            for (size_t i = 0; i < n; i++) {
                bitops_store store = {.kind = BITOPS_STORE_HAMMING, .c = want + i};
                generic->gemm_rows(a + (pairs[i] >> 32) * k_words, k_words, 1,
                                   b + (pairs[i] & UINT32_MAX) * (k_words + 1), k_words + 1, 1,
                                   k_words, 0, 0, &store);
                if (want[i] > most && got[i] > most)
                    got[i] = want[i]; /* any number above it may be written */
            }
            check_outputs(n, 1, k_words);
        }
}

/* Pairs that may be near: all that are, each once, and of unlike rows hardly any. Every third
 * column is a row of a with up to `most` bits inverted, or one more. */
static void sieve_case(const bitops_isa *isa, size_t m, size_t n, size_t words, int32_t most) {
    enum { ROW = 5, COL = 1000, COLUMNS = BITOPS_SIEVE_COLUMNS };
    uint64_t *a = input(0, m * words * sizeof *a), *b = input(1, COLUMNS * words * sizeof *b);
    uint64_t *pairs = input(2, m * n * sizeof *pairs);
    uint64_t *scratch = workspace_of(m * BITOPS_SIEVE_ROW_WORDS * sizeof *scratch);
    bitops_found found = {.pairs = pairs, .capacity = m * n};
    for (size_t i = 0; i < m * words; i++)
        a[i] = random64();
    for (size_t j = 0; j < COLUMNS; j++) {
        for (size_t p = 0; p < words; p++)
            b[p * COLUMNS + j] = j >= n ? 0 : j % 3 ? random64() : a[p * m + j % m];
        for (int32_t i = 0; j < n && i < most + (int32_t)(j % 2); i++) {
            const size_t bit = random64() % (64 * words);
            b[bit / 64 * COLUMNS + j] ^= (uint64_t)1 << bit % 64;
        }
    }
    isa->sieve(a, m, m, b, n, words, most, ROW, COL, &found, scratch);
    size_t next = 0, unlike = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            int32_t mismatches = 0;
            for (size_t p = 0; p < words; p++)
                mismatches += __builtin_popcountll(a[p * m + i] ^ b[p * COLUMNS + j]);
            const int kept =
                next < found.count && pairs[next] == ((uint64_t)(ROW + i) << 32 | (COL + j));
            check(kept || mismatches > most, "near pair", i, j, (size_t)most);
            next += (size_t)kept;
            unlike += kept && mismatches > most;
        }
    check(next == found.count, "pairs in order", m, n, words);
    check(unlike <= 3 + n / 3 + m * n / 20, "unlike pairs", m, n, (size_t)most);
    free_workspace(scratch);
}

static void test_sieve(const bitops_isa *isa) {
    static const size_t sizes[] = {1, 64, 65, 127, 128}, words[] = {1, 2, 6, 7, 12};
    for (size_t p = 0; p < COUNT(words); p++)
        for (int32_t most = 0; most <= bitops_sieve_most(words[p]); most += 1 + most / 2)
            for (size_t s = 0; s < COUNT(sizes); s++)
                sieve_case(isa, sizes[(s + p) % COUNT(sizes)], sizes[s], words[p], most);
}

/* ---- the bound ----------------------------------------------------------------------------- */

/* It has no result to compare: it runs, and says what it did. */
static void test_port_bound(const bitops_isa *isa) {
    uint64_t macs = 0;
    isa->port_bound(100, &macs);
    check(macs > 0, "steps", 100, 0, 0);
}

const named_test product_tests[] = {
    {"prepack", test_prepack},
    {"prepack_rows", test_prepack},
    {"gemm_panel", test_gemm_panel},
    {"gemm_rows", test_gemm_rows},
    {"gemm_short", test_gemm_short},
    {"conv_narrow", test_conv_narrow},
    {"count_pairs", test_count_pairs},
    {"sieve", test_sieve},
    {"lookup_panel", test_lookup_u8},
    {"lookup_panel_small", test_lookup_small},
    {"lookup_tables_f32", test_lookup_f32},
    {"lookup_tables_u8", test_lookup_u8},
    {"lookup_tables_small", test_lookup_small},
    {"lookup_f32", test_lookup_f32},
    {"lookup_u8", test_lookup_u8},
    {"conv_f32", test_conv_f32},
    {"lookup_small", test_lookup_small},
    {"lanes_tables_f32", test_lanes_f32},
    {"lanes_tables_u8", test_lanes_u8},
    {"lanes_f32", test_lanes_f32},
    {"lanes_u8", test_lanes_u8},
    {"turn_32", test_turn_32},
    {"port_bound", test_port_bound},
    {NULL, NULL},
};
