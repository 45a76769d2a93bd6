/* kernels_test_pack.c: tests of the kernels that pass over arrays once. */
#include "kernels_test.h"

#include <math.h>
#include <string.h>

/* ---- pack, unpack, popcount ---------------------------------------------------------------- */

/* Smallest and largest numbers of integers are made of bits, those of floats of infinities. */
#define DEFINE_TEST_PACK(op, type, random_value)                                                   \
    static void test_##op(const bitops_isa *isa) {                                                 \
        for (size_t s = 0; s < BIT_SIZES; s++)                                                     \
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
/* NaN in one of eight runs; the ends of all ranges, of both halves. */
static uint16_t edge_half(size_t i, int nan) {
    static const uint16_t edges[] = {0, 1, 0x7bff, 0x7c00, 0x7f80, 0x8000, 0x8001, 0xfc00};
    return nan ? (uint16_t)random64() : edges[i % COUNT(edges)] & (i % 2 ? 0xffff : 0xfc00);
}
DEFINE_TEST_PACK(pack_f16, uint16_t, edge_half(i + n, n % 8 == 0))
DEFINE_TEST_PACK(pack_bf16, uint16_t, edge_half(i + n, n % 8 == 0))
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
        for (size_t s = 0; s < BIT_SIZES; s++)                                                     \
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
        for (size_t s = 0; s < BIT_SIZES; s++)                                                     \
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

/* Rows around groups of 8 and 64, words around blocks of 8. */
static const size_t row_counts[] = {1, 2, 3, 7, 8, 9, 31, 63, 64, 65, 127, 128, 129, 257};
static const size_t widths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64};

static void test_popcount_columns(const bitops_isa *isa) {
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

static void test_majority_columns(const bitops_isa *isa) {
    for (size_t r = 0; r < COUNT(row_counts); r++)
        for (size_t s = 0; s < COUNT(widths); s++)
            for (int pattern = 0; pattern < PATTERNS; pattern++) {
                const size_t rows = row_counts[r], n_words = widths[s];
                const size_t ld = n_words + (pattern ? 0 : 3);
                const uint64_t *words = input_words(0, (rows - 1) * ld + n_words, pattern);
                const uint64_t least[] = {0, 1, rows / 2, (rows + 1) / 2, rows, rows + 1};
                int64_t counts[BITOPS_SPAN_WORDS * 64];
                generic->popcount_columns(words, ld, rows, n_words, counts);
                for (size_t l = 0; l < COUNT(least); l++) {
                    const outputs out = make_outputs(n_words * sizeof(uint64_t), 0);
                    isa->majority_columns(words, ld, rows, n_words, least[l], out.got);
                    uint64_t *want = out.want;
                    for (size_t i = 0; i < n_words * 64; i++)
                        want[i / 64] = (i % 64 ? want[i / 64] : 0) |
                                       (uint64_t)((uint64_t)counts[i] >= least[l]) << i % 64;
                    check_outputs(rows, n_words, (size_t)pattern);
                }
            }
}

/* ---- depthwise ----------------------------------------------------------------------------- */

static void test_count_taps(const bitops_isa *isa) {
    static const size_t tap_counts[] = {1, 2, 3, 4, 9, 15, 16, 25, 49, 63, 64, 127, 128, 253, 254};
    static const size_t widths[] = {1, 7, 8, 9, 16, 24};
    for (size_t t = 0; t < COUNT(tap_counts); t++)
        for (size_t s = 0; s < COUNT(widths); s++)
            for (int pattern = 0; pattern < PATTERNS; pattern++) {
                const size_t n_taps = tap_counts[t], n_words = widths[s];
                const size_t all = (n_words + 7) / 8 * 8, ld = all + s;
                /* Taps of one run, at every offset; the last one ends before the fence. */
                const size_t run_words = all + (n_taps + 7) / 8;
                const uint8_t *run =
                    (const uint8_t *)(input_words(0, run_words, pattern) + run_words);
                const uint64_t *w = input_words(1, (n_taps - 1) * ld + all, pattern);
                const uint8_t *taps[BITOPS_COUNT_TAPS];
                for (size_t i = 0; i < n_taps; i++)
                    taps[i] = run - 8 * all - i;
                const outputs out = make_outputs(all * 64, n_taps % 64);
                isa->count_taps(taps, w, ld, n_taps, n_words, out.got);
                generic->count_taps(taps, w, ld, n_taps, n_words, out.want);
                const size_t whole = n_words * 64; /* how much is written behind it may differ */
                memcpy((char *)out.got + whole, (char *)out.want + whole, all * 64 - whole);
                check_outputs(n_taps, n_words, (size_t)pattern);
                /* generic against the bits, one by one */
                for (size_t i = 0; i < n_words * 64; i++) {
                    unsigned count = 0;
                    for (size_t tap = 0; tap < n_taps; tap++)
                        count += (taps[tap][i / 8] >> i % 8 ^ w[tap * ld + i / 64] >> i % 64) & 1;
                    check(((uint8_t *)out.want)[i] == count, "counts", n_taps, n_words, i);
                }
            }
}

static void test_dot_taps(const bitops_isa *isa) {
    static const size_t tap_counts[] = {1, 2, 4, 9, 15, 16, 25, 49, 63, 64, 127, 254};
    static const size_t sizes[] = {1, 15, 16, 17, 64, 127, 256, 260, 511, 512, 513, 1040};
    for (size_t t = 0; t < COUNT(tap_counts); t++)
        for (size_t s = 0; s < COUNT(sizes); s++)
            for (int pattern = 0; pattern < PATTERNS; pattern++) {
                const size_t n_taps = tap_counts[t], n = sizes[s], ld = (n + 511) / 512 * 8;
                /* The first tap ends before the fence. */
                const uint8_t *run =
                    (const uint8_t *)(input_words(0, ld + (n_taps + 7) / 8, pattern) + ld +
                                      (n_taps + 7) / 8);
                const uint64_t *w = input_words(1, n_taps * ld, pattern);
                const uint8_t *taps[BITOPS_COUNT_TAPS];
                for (size_t i = 0; i < n_taps; i++)
                    taps[i] = run - 8 * ld - i;
                const outputs out = make_outputs(n * sizeof(int32_t), 4 * (n_taps % 16));
                isa->dot_taps(taps, w, ld, n_taps, n, (int32_t)n_taps, out.got);
                for (size_t i = 0; i < n; i++) {
                    int32_t dot = 0;
                    for (size_t tap = 0; tap < n_taps; tap++)
                        dot += (taps[tap][i / 8] >> i % 8 ^ w[tap * ld + i / 64] >> i % 64) & 1 ? -1
                                                                                                : 1;
                    ((int32_t *)out.want)[i] = dot;
                }
                check_outputs(n_taps, n, (size_t)pattern);
            }
}

static void test_store_counts(const bitops_isa *isa) {
    static const int stores[] = {0, 1, 2, 3, 4, 7, 8, 9, 10};
    static const size_t columns[] = {1, 2, 7, 8, 31, 32, 33, 63, 64, 65, 128, 130, 257, 512, 513};
    static const size_t bits[] = {1, 9, 49, 127, 128, 254};
    for (size_t s = 0; s < COUNT(stores); s++)
        for (size_t j = 0; j < COUNT(columns); j++)
            for (size_t b = 0; b < COUNT(bits); b++) {
                const size_t n = columns[j], k = bits[b], rows = 1 + (s + j + b) % 7;
                bitops_store store = make_store(stores[s], n, k);
                uint8_t *count = input(0, rows * n + 64); /* read in whole words */
                for (size_t i = 0; i < rows * n; i++)
                    count[i] = (uint8_t)(i % 5 ? random64() % (k + 1) : i % 2 * k);
                fill_store_arrays(n, k);
                const outputs out = make_outputs(store_bytes(&store, rows), 0);
                store.c = out.got;
                isa->store_counts(count, rows, n, 0, 0, &store);
                store.c = out.want;
                generic->store_counts(count, rows, n, 0, 0, &store);
                check_outputs(n, k, (size_t)stores[s]);
            }
}

/* ---- sums ---------------------------------------------------------------------------------- */

static void test_sum_columns(const bitops_isa *isa) {
    static const size_t row_counts[] = {0, 1, 2, 3, 49, 100};
    for (size_t r = 0; r < COUNT(row_counts); r++)
        for (size_t n = 1; n <= 200; n += 1 + n / 20) {
            const size_t rows = row_counts[r], ld = n + r % 2 * 3;
            float *x = input(0, (rows ? (rows - 1) * ld + n : 0) * sizeof *x);
            for (size_t i = 0; rows && i < (rows - 1) * ld + n; i++)
                x[i] = (float)edge_value(i) * (i % 7 ? 1 : 1e30f);
            const outputs out = make_outputs(n * sizeof(double), n % 8 * 8);
            isa->sum_columns(x, ld, rows, n, out.got);
            for (size_t j = 0; j < n; j++) {
                double sum = 0;
                for (size_t i = 0; i < rows; i++)
                    sum += (double)x[i * ld + j];
                ((double *)out.want)[j] = sum;
            }
            check_outputs(rows, n, ld);
        }
}

static void test_mean_windows(const bitops_isa *isa) {
    static const size_t widths[] = {1, 3, 15, 16, 17, 33, 64, 100, 130};
    for (size_t c = 0; c < COUNT(widths); c++)
        for (size_t turn = 0; turn < 24; turn++) {
            const size_t n = widths[c], rows = turn % 3, columns = turn % 4, runs = 1 + turn % 5;
            const size_t stride = 1 + turn % 2, width = (runs - 1) * stride + columns;
            const size_t numbers = rows * width * n;
            const int exact = turn % 2;
            float *x = input(0, numbers * sizeof *x);
            for (size_t i = 0; i < numbers; i++)
                x[i] = (float)edge_value(i) * (i % 7 ? 1 : 1e30f);
            const bitops_windows windows = {.x = x,
                                            .rows = rows,
                                            .row_step = width * n,
                                            .columns = columns,
                                            .column_step = n,
                                            .outputs = runs,
                                            .output_step = stride * n,
                                            .channels = n,
                                            .divisor = exact ? 8 : 9,
                                            .factor = exact ? 0.125f : 0};
            const outputs out = make_outputs(runs * n * sizeof(float), turn % 4 * 4);
            isa->mean_windows(&windows, out.got);
            for (size_t i = 0; i < runs * n; i++) {
                float sum = 0;
                for (size_t tap = 0; tap < rows * columns; tap++)
                    sum += x[(tap / columns * width + i / n * stride + tap % columns) * n + i % n];
                ((float *)out.want)[i] = sum / windows.divisor;
            }
            check_outputs(n, turn, runs);
        }
}

/* ---- numbers ------------------------------------------------------------------------------- */

/* Numbers with NaN, infinities and both zeros among them. */
static void fill_numbers(float *x, size_t n, size_t from) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)edge_value(from + i);
    for (size_t i = from % 5; i < n; i += 11)
        x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? -0.0f : -HUGE_VALF;
}

static void test_affine_f32(const bitops_isa *isa) {
    enum { ROWS = 3 };
    for (size_t s = 0; s < BIT_SIZES; s++)
        for (unsigned options = 0; options < 16; options++) {
            const size_t n = bit_sizes[s], all = ROWS * n;
            float *x[2], *scales = input(2, 2 * n * sizeof(float));
            fill_numbers(scales, 2 * n, 3);
            const float *factor = options & 1 ? scales : NULL;
            const float *term = options & 2 ? scales + n : NULL;
            for (int b = 0; b < 2; b++)
                x[b] = input(b, all * sizeof(float));
            fill_numbers(x[0], all, s);
            memcpy(x[1], x[0], all * sizeof(float));
            const outputs out = make_outputs(all * sizeof(float), n % 16 * sizeof(float));
            const int relu = options >> 2 & 1, in_place = options >> 3;
            isa->affine_f32(x[0], ROWS, n, factor, term, relu, in_place ? x[0] : out.got);
            generic->affine_f32(x[1], ROWS, n, factor, term, relu, in_place ? x[1] : out.want);
            if (in_place) {
                memcpy(out.got, x[0], all * sizeof(float));
                memcpy(out.want, x[1], all * sizeof(float));
            }
            check_outputs(n, options, s);
        }
}

static void test_scale_i32(const bitops_isa *isa) {
    for (size_t s = 0; s < BIT_SIZES; s++)
        for (unsigned options = 0; options < 8; options++) {
            const size_t n = bit_sizes[s];
            float *scales = input(0, 2 * n * sizeof(float));
            int32_t *surplus = input(1, n * sizeof *surplus);
            fill_numbers(scales, 2 * n, s);
            const outputs out = make_outputs(n * sizeof(float), n % 16 * sizeof(float));
            for (size_t i = 0; i < n; i++) {
                surplus[i] = (int32_t)(i * 7919) - 4000;
                const int32_t sum = (int32_t)(i * i * 104729 % 2147480000) - 1073740000;
                memcpy((char *)out.got + i * sizeof sum, &sum, sizeof sum);
                memcpy((char *)out.want + i * sizeof sum, &sum, sizeof sum);
            }
            for (int b = 0; b < 2; b++)
                (b ? generic : isa)
                    ->scale_i32(b ? out.want : out.got, n, options & 1 ? surplus : NULL,
                                options & 2 ? scales : NULL, options & 4 ? scales + n : NULL);
            check_outputs(n, options, s);
        }
}

static void test_larger_f32(const bitops_isa *isa) {
    for (size_t s = 0; s < BIT_SIZES; s++) {
        const size_t n = bit_sizes[s];
        float *x = input(0, n * sizeof(float));
        fill_numbers(x, n, s);
        const outputs out = make_outputs(n * sizeof(float), n % 16 * sizeof(float));
        fill_numbers(out.got, n, s + 2);
        memcpy(out.want, out.got, n * sizeof(float));
        isa->larger_f32(x, n, out.got);
        generic->larger_f32(x, n, out.want);
        check_outputs(n, s, 0);
    }
}

static uint64_t bit_of(const uint64_t *words, size_t i) {
    return words[i / 64] >> i % 64 & 1;
}

static void set_bit(uint64_t *words, size_t i, uint64_t bit) {
    words[i / 64] = (words[i / 64] & ~((uint64_t)1 << i % 64)) | bit << i % 64;
}

static void test_mirror_words(const bitops_isa *isa) {
    for (size_t n = 1; n < 200; n += 1 + n / 9)
        for (size_t shift = 0; shift < 64; shift += 1 + shift / 2)
            for (int way = 0; way < 4; way++) {
                const int reversed = way % 2;
                const uint64_t *words = input_words(0, n + (shift > 0), RANDOM);
                const outputs out = make_outputs(n * sizeof *words, 8 * (n % 8));
                isa->mirror_words(words, n, shift, reversed, way / 2, out.got);
                for (size_t i = 0; i < 64 * n; i++) { /* bit by bit */
                    const size_t to = reversed ? 64 * n - 1 - i : 64 * (i / 64) + 63 - i % 64;
                    set_bit(out.want, to, bit_of(words, i + shift));
                }
                check_outputs(n, shift, (size_t)way);
            }
}

static void test_shift_words(const bitops_isa *isa) {
    for (size_t n = 1; n < 200; n += 1 + n / 9)
        for (size_t shift = 0; shift < 64; shift += 1 + shift / 2)
            for (int past_caches = 0; past_caches < 2; past_caches++) {
                const uint64_t *words = input_words(0, n + (shift > 0), RANDOM);
                const outputs out = make_outputs(n * sizeof *words, 8 * (n % 8));
                isa->shift_words(words, n, shift, past_caches, out.got);
                for (size_t i = 0; i < 64 * n; i++)
                    set_bit(out.want, i, bit_of(words, i + shift));
                check_outputs(n, shift, (size_t)past_caches);
            }
}

static void roll_case(const bitops_isa *isa, size_t rows, size_t n, size_t cut, int past_caches) {
    const size_t n_words = bitops_words(n);
    uint64_t *words = input_words(0, rows * n_words, RANDOM);
    const outputs out = make_outputs(rows * n_words * sizeof *words, past_caches ? 0 : 8);
    memset(out.want, 0, rows * n_words * sizeof *words);
    for (size_t row = 0; row < rows; row++)
        words[(row + 1) * n_words - 1] &= UINT64_MAX >> (-n % 64);
    isa->roll_rows(words, rows, n, cut, past_caches, out.got);
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < n; i++)
            set_bit((uint64_t *)out.want + row * n_words, i,
                    bit_of(words + row * n_words, (i + cut) % n));
    check_outputs(rows, n, cut);
}

static void test_roll_rows(const bitops_isa *isa) {
    static const size_t sizes[] = {2,   3,   63,  64,  65,  127, 128,  129,  190,  256,  300,
                                   320, 448, 500, 512, 577, 700, 1024, 1088, 2048, 4000, 4096};
    for (size_t s = 0; s < COUNT(sizes); s++) {
        const size_t n = sizes[s], cuts[] = {1, n / 3, n / 2, n - 1, 64, 128, n - 64};
        for (size_t c = 0; c < COUNT(cuts); c++)
            for (size_t rows = 1; rows < 40; rows += 1 + rows / 3)
                if (0 < cuts[c] && cuts[c] < n)
                    roll_case(isa, rows, n, cuts[c], (int)(rows % 2));
    }
}

static void test_turn_bits(const bitops_isa *isa) {
    enum { SIDE = BITOPS_TURN_BITS, ROW_WORDS = SIDE / BITOPS_WORD_BITS };
    static const size_t sizes[] = {1, 63, 64, 65, 276, 448, 500, SIDE};
    for (size_t s = 0; s < COUNT(sizes); s++) {
        const size_t columns = sizes[s];
        const uint64_t *in = input(0, SIDE * ROW_WORDS * sizeof *in);
        const size_t written = (columns + 63) / 64 * 64;
        const outputs out = make_outputs(written * ROW_WORDS * sizeof *in, 0);
        isa->turn_bits(in, columns, out.got);
        for (size_t j = 0; j < written; j++)
            for (size_t i = 0; i < SIDE; i++)
                set_bit((uint64_t *)out.want + j * ROW_WORDS, i, bit_of(in + i * ROW_WORDS, j));
        check_outputs(columns, 0, 0);
    }
}

const named_test pack_tests[] = {
    {"pack_bool8", test_pack_bool8},
    {"pack_i8", test_pack_i8},
    {"pack_i16", test_pack_i16},
    {"pack_i32", test_pack_i32},
    {"pack_i64", test_pack_i64},
    {"pack_f16", test_pack_f16},
    {"pack_bf16", test_pack_bf16},
    {"pack_f32", test_pack_f32_all},
    {"pack_f64", test_pack_f64_all},
    {"compare_i32", test_compare_i32},
    {"compare_f32", test_compare_f32},
    {"unpack_i8", test_unpack_i8},
    {"unpack_f32", test_unpack_f32},
    {"popcount", test_popcount},
    {"mirror_words", test_mirror_words},
    {"shift_words", test_shift_words},
    {"roll_rows", test_roll_rows},
    {"turn_bits", test_turn_bits},
    {"popcount_columns", test_popcount_columns},
    {"majority_columns", test_majority_columns},
    {"count_taps", test_count_taps},
    {"dot_taps", test_dot_taps},
    {"store_counts", test_store_counts},
    {"sum_columns", test_sum_columns},
    {"mean_windows", test_mean_windows},
    {"affine_f32", test_affine_f32},
    {"scale_i32", test_scale_i32},
    {"larger_f32", test_larger_f32},
    {NULL, NULL},
};
