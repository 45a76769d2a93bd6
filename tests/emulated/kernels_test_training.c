/* kernels_test_training.c: tests of the kernels of training, which pass over arrays once. */
#include "kernels_test.h"

#include <math.h>
#include <string.h>

static void test_adam(const bitops_isa *isa) {
    enum { ARRAYS = 4 };
    for (size_t s = 0; s < BIT_SIZES; s++)
        for (size_t turn = 0; turn < 4 * OFFSETS; turn++) {
            const size_t offset = turn / 4, n = bit_sizes[s], all = offset + n;
            const int is_short = turn / 2 % 2; /* weights, which then fill half their memory */
            const float clip = offset % 3 ? 1 : HUGE_VALF;
            int nan[2];
            float *x[2][ARRAYS]; /* g, w, m, v of isa and of generic */
            for (int a = 0; a < ARRAYS; a++) {
                x[0][a] = input(a, all * sizeof(float));
                x[1][a] = input(ARRAYS + a, all * sizeof(float));
                for (size_t i = 0; i < all; i++) {
                    const float v = (float)edge_value(i + (size_t)a);
                    x[0][a][i] = x[1][a][i] = a == 3 ? fabsf(v) : v;
                }
            }
            for (size_t i = 0; is_short && i < all; i++)
                ((int16_t *)x[0][1])[i] = ((int16_t *)x[1][1])[i] =
                    (int16_t)((int)(i * 8191 % 65535) - BITOPS_SHORT_MOST);
            for (int b = 0; b < 2; b++) {
                const bitops_adam_args args = {
                    .rows = 1,
                    .n = all,
                    .w = x[b][1],
                    .m = x[b][2],
                    .v = x[b][3],
                    .beta1_rest = 0.1f,
                    .beta2_rest = 0.001f,
                    .eps = 1e-8f,
                    .rate = is_short ? 300 : 0.01f,
                    .short_weights = is_short,
                    .bfloat16 = turn % 2, /* m and v then fill half their memory */
                    .seed = (uint32_t)n,
                    .keep = offset % 2 ? 1 : 0.99f,
                    .clip = is_short ? BITOPS_SHORT_MOST : clip};
                nan[b] = (b ? generic : isa)->adam(&args, x[b][0] + offset, offset, n);
            }
            check(nan[0] == nan[1], "NaN", n, offset, turn);
            for (int a = 0; a < ARRAYS; a++)
                check(memcmp(x[0][a], x[1][a], all * sizeof(float)) == 0, "arrays", n, offset,
                      (size_t)a);
        }
}

/* Writes what the passes of batch normalisation of an ISA make, one after the other. */
static void run_norm(const bitops_isa *isa, const bitops_norm *norm, const float *x,
                     const float *dy, const float *passes, size_t column, size_t n, float *out) {
    enum { ROWS = 3 };
    isa->norm_sums(norm, x, n + 1, ROWS, column, n, out);
    if (norm->mean == NULL)
        return;
    isa->norm_values(norm, x, column, n, out + n);
    isa->norm_gradient(norm, x, dy, passes, column, n, out + 2 * n);
    for (size_t j = 0; j < 2 * n; j++)
        out[3 * n + j] = 0.25f;
    for (size_t i = 0; i < ROWS; i++)
        isa->norm_products(norm, x + i * (n + 1), dy + i, passes, column, n, out + 3 * n,
                           out + 4 * n);
    isa->within_f32(x, n, 0.5f, out + 5 * n);
}

static void test_norm(const bitops_isa *isa) {
    enum { ARRAYS = 7, COLUMN = 2 };
    for (size_t s = 0; s < BIT_SIZES; s++)
        for (unsigned options = 0; options < 16; options++) {
            const size_t n = bit_sizes[s], ld = COLUMN + n;
            float *arrays = input(0, ARRAYS * ld * sizeof(float));
            float *numbers = input(1, 7 * (n + 2) * sizeof(float));
            for (size_t i = 0; i < ARRAYS * ld; i++)
                arrays[i] = (float)(i % 13) * 0.25f - 1.3f;
            for (size_t i = 0; i < 6 * (n + 2); i++)
                numbers[i] = (float)(i * i % 31) * 0.125f - 1.9f;
            const float *dy = numbers + 3 * (n + 2);
            float *passes = numbers + 6 * (n + 2);
            for (size_t i = 0; i < n; i++)
                passes[i] = i % 3 ? 1 : -1;
            const bitops_norm norm = {.relu = options & 1,
                                      .powers = options >> 3,
                                      .mean = options & 2 ? arrays : NULL,
                                      .inv_std = arrays + ld,
                                      .gamma = arrays + 2 * ld,
                                      .beta = arrays + 3 * ld,
                                      .by_xhat = arrays + 4 * ld,
                                      .less = arrays + 5 * ld,
                                      .factor = arrays + 6 * ld};
            const outputs out = make_outputs(6 * n * sizeof(float), n % 16 * sizeof(float));
            memset(out.got, 0, 6 * n * sizeof(float));
            memset(out.want, 0, 6 * n * sizeof(float));
            const float *passed = options & 4 ? passes : NULL;
            run_norm(isa, &norm, numbers, dy, passed, COLUMN, n, out.got);
            run_norm(generic, &norm, numbers, dy, passed, COLUMN, n, out.want);
            check_outputs(n, options, s);
        }
}

static void test_prelu(const bitops_isa *isa) {
    enum { ARRAYS = 3, COLUMN = 2, OUTPUTS = 5 };
    for (size_t s = 0; s < BIT_SIZES; s++)
        for (unsigned options = 0; options < 8; options++) {
            const size_t n = bit_sizes[s], ld = COLUMN + n;
            float *arrays = input(0, ARRAYS * ld * sizeof(float));
            float *x = input(1, n * sizeof(float)), *dy = input(2, n * sizeof(float));
            for (size_t i = 0; i < ARRAYS * ld; i++)
                arrays[i] = (float)(i % 13) * 0.25f - 1.3f;
            for (size_t i = 0; i < n; i++) {
                x[i] = i % 7 ? (float)(i * i % 31) * 0.125f - 1.9f : arrays[COLUMN + i];
                dy[i] = (float)(i * 3 % 29) * 0.125f - 1.7f;
            }
            const outputs out = make_outputs(OUTPUTS * n * sizeof(float), n % 16 * sizeof(float));
            for (int b = 0; b < 2; b++) {
                const bitops_isa *by = b ? generic : isa;
                float *y = b ? out.want : out.got, *dx = y + n;
                const bitops_prelu outputs = {.shift = options & 1 ? arrays : NULL,
                                              .slope = arrays + ld,
                                              .offset = options & 2 ? arrays + 2 * ld : NULL};
                const bitops_prelu gradient = {.shift = arrays,
                                               .slope = options & 4 ? arrays + ld : NULL};
                for (size_t j = 0; j < OUTPUTS * n; j++)
                    y[j] = 0.25f;
                by->prelu_values(&outputs, x, COLUMN, n, y);
                by->prelu_gradient(&gradient, x, dy, COLUMN, n, dx, dx + n, dx + 2 * n, dx + 3 * n);
            }
            check_outputs(n, options, s);
        }
}

static void test_quantize(const bitops_isa *isa) {
    for (size_t s = 0; s < BIT_SIZES; s++) {
        const size_t n = bit_sizes[s];
        float *x = input(0, n * sizeof(float));
        for (size_t i = 0; i < n; i++)
            x[i] = (float)(i * 37 % 127) / 63 - 1;
        for (int zero = 2; zero <= 128; zero *= 2) {
            const outputs out = make_outputs(n, 0);
            isa->quantize_f32(x, n, (float)(zero - 1), 77, zero, out.got);
            generic->quantize_f32(x, n, (float)(zero - 1), 77, zero, out.want);
            check_outputs(n, (size_t)zero, s);
        }
        const outputs out = make_outputs(n, 0);
        float *positive = input(1, n * sizeof(float));
        for (size_t i = 0; i < n; i++)
            positive[i] = fabsf(x[i]);
        isa->quantize_f32(positive, n, 127, 77, 0, out.got);
        generic->quantize_f32(positive, n, 127, 77, 0, out.want);
        check_outputs(n, 0, s);
        float most = 0;
        for (size_t i = 0; i < n; i++)
            most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
        check(isa->peak_f32(x, n) == most, "peak", n, s, 0);
        if (n == 0)
            continue;
        x[n / 2] = -HUGE_VALF;
        check(isa->peak_f32(x, n) == HUGE_VALF, "infinite peak", n, s, 0);
        x[n - 1] = NAN;
        check(isnan(isa->peak_f32(x, n)), "peak of NaN", n, s, 0);
    }
}

/* Bytes whose products are the largest, or random ones. */
static void fill_bytes(uint8_t *bytes, size_t n, int most, int pattern) {
    for (size_t i = 0; i < n; i++)
        bytes[i] = pattern == RANDOM ? (uint8_t)(random64() % (unsigned)(most + 1))
                                     : (uint8_t)(pattern == ZEROS ? 0 : most);
}

static void test_byte_products(const bitops_isa *isa) {
    enum { ROWS = BITOPS_BYTE_ROWS, DEPTH = BITOPS_BYTE_DEPTH, COLUMNS = BITOPS_BYTE_COLUMNS };
    for (size_t rows = ROWS; rows <= 5 * ROWS; rows += ROWS)
        for (size_t k = DEPTH; k <= 4 * DEPTH; k += DEPTH)
            for (int pattern = 0; pattern < PATTERNS; pattern++) {
                const size_t ldx = k + (size_t)pattern % 2 * 64, ld_sums = COLUMNS * (1 + k / 128);
                uint8_t *x = input(0, (rows - 1) * ldx + k), *y = input(1, k * COLUMNS);
                fill_bytes(x, (rows - 1) * ldx + k, 255, pattern);
                if (pattern == OPPOSITE) /* -128, of which a sum of two products is the least */
                    memset(x, 128, (rows - 1) * ldx + k);
                fill_bytes(y, k * COLUMNS, BITOPS_BYTE_MOST, pattern);
                const size_t numbers = (rows - 1) * ld_sums + COLUMNS;
                const outputs out = make_outputs(numbers * sizeof(int32_t), 0);
                for (size_t i = 0; i < numbers; i++)
                    ((int32_t *)out.got)[i] = ((int32_t *)out.want)[i] = (int32_t)i - 100;
                bitops_byte_block block = {(const int8_t *)x, ldx, rows, y, k, out.got, ld_sums};
                isa->byte_products(&block);
                block.sums = out.want;
                generic->byte_products(&block);
                check_outputs(rows, k, (size_t)pattern);
            }
}

/* The driver, against the sums that it stands for. */
static void byte_gemm_case(const bitops_isa *isa, size_t m, size_t n, size_t k, int zero) {
    enum { ROWS = BITOPS_BYTE_ROWS, COLUMNS = BITOPS_BYTE_COLUMNS };
    const size_t whole = (m + ROWS - 1) / ROWS * ROWS;
    const size_t ld = (n + COLUMNS - 1) / COLUMNS * COLUMNS;
    uint8_t *x = input(0, k * m), *y = input(1, k * n);
    fill_bytes(x, k * m, 2 * zero - 1, RANDOM);
    fill_bytes(y, k * n, BITOPS_BYTE_MOST, RANDOM);
    const outputs out = make_outputs(whole * ld * sizeof(int32_t), 0);
    int32_t *got = out.got, *want = out.want;
    memset(got, 0, whole * ld * sizeof(int32_t));
    const bitops_byte_args args = {
        .x = x, .y = y, .m = m, .n = n, .k = k, .x_zero = zero, .sums = got};
    void *workspace = workspace_of(bitops_byte_gemm_workspace_size(&args, 1));
    bitops_byte_gemm(isa, &args, workspace, 1);
    bitops_byte_gemm(isa, &args, workspace, 1); /* which adds them again */
    free_workspace(workspace);
    for (size_t i = 0; i < whole; i++)
        for (size_t j = 0; j < ld; j++) {
            want[i * ld + j] = i < m && j < n ? 0 : got[i * ld + j];
            for (size_t p = 0; p < k && i < m && j < n; p++)
                want[i * ld + j] += 2 * (x[p * m + i] - zero) * y[p * n + j];
        }
    check_outputs(m, n, k);
}

void test_byte_gemm_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 1, 1},     {16, 32, 64},   {17, 33, 65},  {70, 27, 130},
                                       {130, 70, 63}, {5, 100, 1030}, {64, 31, 2500}};
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int zero = 8; zero <= 128; zero *= 4)
            byte_gemm_case(isa, shapes[s][0], shapes[s][1], shapes[s][2], zero);
}

const named_test training_tests[] = {
    {"adam", test_adam},
    {"norm_sums", test_norm},
    {"norm_values", test_norm},
    {"norm_products", test_norm},
    {"norm_gradient", test_norm},
    {"within_f32", test_norm},
    {"prelu_values", test_prelu},
    {"prelu_gradient", test_prelu},
    {"peak_f32", test_quantize},
    {"quantize_f32", test_quantize},
    {"byte_products", test_byte_products},
    {NULL, NULL},
};
