/* kernels_test_search.c: tests of the drivers that search rows, and of the passes over lines. */
#include "drivers/lines.h"
#include "kernels_test.h"

#include <string.h>

/* ---- nearest rows -------------------------------------------------------------------------- */

static void count_ones(const uint64_t *words, size_t rows, size_t k_words, int32_t *counts_out) {
    for (size_t i = 0; i < rows; i++) {
        int64_t count;
        generic->popcount(words + i * k_words, 1, k_words, &count);
        counts_out[i] = (int32_t)count;
    }
}

/* Both ISAs search; what they find must be the same. The values take value_bytes. */
static void topk_case(const bitops_isa *isa, bitops_gemm_args args, size_t count,
                      size_t value_bytes, const uint64_t *lines) {
    const size_t found = args.m * count;
    const outputs out = make_outputs(found * (8 + value_bytes), 0);
    for (int b = 0; b < 2; b++) {
        const bitops_isa *own = b ? generic : isa;
        char *c = b ? out.want : out.got;
        args.lines = b ? NULL : lines;
        void *workspace = workspace_of(bitops_topk_workspace_size(own, &args, count, 1));
        args.store.c = c + found * 8;
        bitops_topk(own, &args, count, (int64_t *)c, workspace, 1);
        free_workspace(workspace);
    }
    check_outputs(args.m, args.n, count);
}

static void test_topk_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 300, 17}, {9, 129, 4}, {60, 257, 16}, {20, 70, 258}};
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t count = 1; count <= 69; count += count < 21 ? 10 : 48) {
            const size_t m = shapes[s][0], n = shapes[s][1], k_words = shapes[s][2];
            bitops_gemm_args args = {.lda = k_words, .ldw = k_words, .m = m, .n = n};
            args.a = input_words(0, m * k_words, RANDOM);
            args.w = input_words(1, n * k_words, RANDOM);
            args.k_words = k_words;
            args.store.k = (int32_t)(k_words * 64);
            args.store.kind = BITOPS_STORE_HAMMING;
            topk_case(isa, args, count, sizeof(int32_t), NULL);
        }
}

/* Rows with few 1 bits, by all metrics of sets, with lines and without them. */
static void test_sets_driver(const bitops_isa *isa) {
    static const bitops_store_kind kinds[] = {BITOPS_STORE_INTERSECTION, BITOPS_STORE_JACCARD,
                                              BITOPS_STORE_DICE};
    static const size_t shapes[][3] = {{1, 300, 8}, {9, 129, 33}, {70, 600, 2}, {5, 1100, 16}};
    static int32_t a_counts[100], w_counts[1100];
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t kind = 0; kind < COUNT(kinds); kind++)
            for (int sparse = 0; sparse < 2; sparse++) {
                const size_t m = shapes[s][0], n = shapes[s][1], k_words = shapes[s][2];
                uint64_t *a = input_words(0, m * k_words, RANDOM);
                uint64_t *w = input_words(1, n * k_words, RANDOM);
                for (size_t i = 0; sparse && i < m * k_words; i++)
                    a[i] &= random64() & random64() & random64() & random64();
                count_ones(a, m, k_words, a_counts);
                count_ones(w, n, k_words, w_counts);
                bitops_gemm_args args = {.a = a, .w = w, .lda = k_words, .ldw = k_words};
                args.m = m;
                args.n = n;
                args.k_words = k_words;
                args.store.k = (int32_t)(k_words * 64);
                args.store.kind = kinds[kind];
                args.store.a_counts = a_counts;
                args.store.w_counts = w_counts;
                uint64_t *lines = workspace_of(bitops_lines_size(n, k_words) * sizeof *lines);
                bitops_make_lines(isa, w, k_words, n, k_words, lines, NULL);
                topk_case(isa, args, 11, kind ? sizeof(double) : sizeof(int32_t), lines);
                topk_case(isa, args, 11, kind ? sizeof(double) : sizeof(int32_t), NULL);
                free_workspace(lines);
            }
}

/* ---- pairs within a range ------------------------------------------------------------------ */

/* Writes the distances of the pairs found where they stand in the matrix, and empties the list. */
static void take_found(bitops_found *found, size_t n, int32_t *c_out) {
    for (size_t i = 0; i < found->count; i++)
        c_out[(found->pairs[i] >> 32) * n + (found->pairs[i] & UINT32_MAX)] = found->distances[i];
    bitops_found_free(found);
}

static void run_scan(const bitops_isa *isa, const bitops_range_args *args, size_t first_words,
                     int32_t *c_out) {
    bitops_found found = {0};
    void *workspace = workspace_of(bitops_scan_workspace_size(isa, args, args->m, first_words, 1));
    check(bitops_scan(isa, args, 0, args->m, first_words, &found, workspace, 1), "memory", args->m,
          args->n, args->k_words);
    take_found(&found, args->n, c_out);
    free_workspace(workspace);
}

static bitops_range_args random_range(size_t m, size_t n, size_t k_words) {
    return (bitops_range_args){.a = input_words(0, m * k_words, RANDOM),
                               .lda = k_words,
                               .m = m,
                               .b = input_words(1, n * k_words, RANDOM),
                               .ldb = k_words,
                               .n = n,
                               .k_words = k_words};
}

static void test_scan_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 300, 17}, {9, 129, 4}, {60, 257, 1}, {70, 2100, 9}};
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t words = 1; words <= shapes[s][2]; words += 3)
            for (int32_t radius = 8; radius <= 32 * (int32_t)words; radius += 1 + radius / 2) {
                const size_t m = shapes[s][0], n = shapes[s][1], k_words = shapes[s][2];
                bitops_range_args args = random_range(m, n, k_words);
                args.radius = radius;
                const outputs out = make_outputs(m * n * sizeof(int32_t), 0);
                run_scan(isa, &args, words, out.got);
                run_scan(generic, &args, k_words, out.want);
                check_outputs(m, n, k_words);
            }
}

/* Bounds that differ from row to row. */
static void test_bounds_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 300, 17}, {9, 129, 4}, {60, 257, 1}, {70, 1100, 9}};
    static bitops_bound bounds[70];
    static int32_t b_counts[1100];
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (size_t words = 1; words <= shapes[s][2]; words += 3) {
            const size_t m = shapes[s][0], n = shapes[s][1], k_words = shapes[s][2];
            bitops_range_args args = random_range(m, n, k_words);
            count_ones(args.b, n, k_words, b_counts);
            for (size_t i = 0; i < m; i++) /* exact in float32, whatever is rounded when */
                bounds[i] = (bitops_bound){0.5f, (float)(random64() % (32 * k_words)) + 0.25f};
            args.bounds = bounds;
            args.b_counts = b_counts;
            args.radius = (int32_t)(64 * k_words);
            const outputs out = make_outputs(m * n * sizeof(int32_t), 0);
            run_scan(isa, &args, words, out.got);
            run_scan(generic, &args, k_words, out.want);
            check_outputs(m, n, k_words);
        }
}

/* Rows of which many are near to others, against a scan. */
static void join_case(const bitops_isa *isa, size_t m, size_t n, size_t k_words, uint32_t radius) {
    enum { MOST = 40 };
    bitops_range_args range = random_range(m, n, k_words);
    uint64_t *b = (uint64_t *)range.b;
    for (size_t j = 0; j < n; j += 2) {
        memcpy(b + j * k_words, range.a + random64() % m * k_words, k_words * sizeof *b);
        for (uint64_t bit = random64() % (radius + 2); bit; bit--)
            b[j * k_words + random64() % k_words] ^= (uint64_t)1 << random64() % 64;
    }
    range.radius = (int32_t)radius;
    bitops_chunk chunks[MOST];
    uint32_t choices[MOST];
    const uint32_t count = radius + 1, bits = (uint32_t)(64 * k_words);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t first = bits * i / count, size = bits * (i + 1) / count - first;
        chunks[i] = (bitops_chunk){first, size < 32 ? size : 32};
        choices[i] = i;
    }
    const bitops_join_args args = {
        .range = range, .chunks = chunks, .together = 1, .choices = choices, .count = count};
    const outputs out = make_outputs(m * n * sizeof(int32_t), 0);
    uint64_t compared[MOST];
    bitops_found found = {0};
    void *workspace = workspace_of(bitops_join_workspace_size(&args, 1));
    check(bitops_join(isa, &args, UINT64_MAX, compared, &found, workspace, 1), "memory", m, n,
          k_words);
    free_workspace(workspace);
    take_found(&found, n, out.got);
    run_scan(generic, &range, k_words, out.want);
    check_outputs(m, n, k_words);
}

static void test_join_driver(const bitops_isa *isa) {
    for (size_t k_words = 1; k_words < 20; k_words += 1 + k_words / 3)
        for (uint32_t radius = 0; radius < 7; radius += 2) {
            join_case(isa, 1, 50, k_words, radius);
            join_case(isa, 90, 800, k_words, radius);
        }
}

/* ---- scores -------------------------------------------------------------------------------- */

static bitops_mixed_args random_product(size_t m, size_t n, size_t k, int bits) {
    void *x = input(0, m * k * (bits ? 1 : sizeof(float)));
    for (size_t i = 0; i < m * k; i++) {
        if (bits)
            ((uint8_t *)x)[i] = (uint8_t)(random64() % (1u << bits));
        else
            ((float *)x)[i] = random_float();
    }
    uint64_t *w = input_words(1, n * bitops_words(k), RANDOM);
    for (size_t j = 0; j < n && k % 64; j++)
        w[j * bitops_words(k) + k / 64] &= ((uint64_t)1 << k % 64) - 1;
    return (bitops_mixed_args){.is_float = bits == 0,
                               .bits = bits,
                               .x = x,
                               .m = m,
                               .k = k,
                               .w = w,
                               .ldw = bitops_words(k),
                               .n = n};
}

static void test_score_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 70, 100}, {5, 1300, 500}, {70, 1029, 64}, {3, 65, 1500}};
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int bits = 0; bits <= 8; bits += 4)
            for (size_t count = 1; count < 70; count += 63) {
                const size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
                bitops_score_args args = {.product = random_product(m, n, k, bits)};
                args.product.zero = bits ? 1 << (bits - 1) : 0;
                fill_store_arrays(MAX_N, k);
                args.alpha = bits ? alpha : NULL;
                args.bias = count > 1 ? bias : NULL;
                const outputs out = make_outputs(m * count * 12, 0);
                for (int b = 0; b < 2; b++) {
                    const bitops_isa *own = b ? generic : isa;
                    char *c = b ? out.want : out.got;
                    void *workspace =
                        workspace_of(bitops_score_topk_workspace_size(own, &args, count, 1));
                    bitops_score_topk(own, &args, count, (float *)(c + 8 * m * count), (int64_t *)c,
                                      workspace, 1);
                    free_workspace(workspace);
                }
                check_outputs(m, n, k);
            }
}

static void test_rescore_driver(const bitops_isa *isa) {
    for (size_t k = 1; k < 1500; k += 1 + k * 2 / 3)
        for (size_t count = 1; count < 200; count += count) {
            enum { M = 3, N = 77 };
            const bitops_mixed_args args = random_product(M, N, k, 0);
            int64_t *indices = input(2, M * count * sizeof *indices);
            for (size_t i = 0; i < M * count; i++)
                indices[i] = (int64_t)(random64() % (N + 1)) - 1;
            const outputs out = make_outputs(M * count * sizeof(float), 0);
            for (int b = 0; b < 2; b++) {
                void *workspace = workspace_of(bitops_rescore_workspace_size(&args, 1));
                bitops_rescore(b ? generic : isa, &args, indices, count, b ? out.want : out.got,
                               workspace, 1);
                free_workspace(workspace);
            }
            check_outputs(M, count, k);
        }
}

/* ---- lines of images ----------------------------------------------------------------------- */

static bitops_image small_image(size_t channels, size_t stride) {
    enum { H = 9, W = 7, KERNEL = 3 };
    return (bitops_image){.pixel_words = bitops_words(channels),
                          .height = H,
                          .width = W,
                          .channels = channels,
                          .kernel_height = KERNEL,
                          .kernel_width = KERNEL,
                          .stride_y = stride,
                          .stride_x = stride,
                          .pad_top = 1,
                          .pad_left = 1,
                          .dilation_y = 1,
                          .dilation_x = 1,
                          .out_height = (H + 2 - KERNEL) / stride + 1,
                          .out_width = (W + 2 - KERNEL) / stride + 1};
}

/* The largest number of each window, and the OR of its bits, one tap after the other. */
static void plain_pool(const bitops_image *im, size_t channels, const float *x, size_t y_out,
                       float *y) {
    for (size_t x_out = 0; x_out < im->out_width; x_out++)
        for (size_t ch = 0; ch < channels; ch++) {
            float most = -3e38f;
            for (size_t tap = 0; tap < 9; tap++) {
                const size_t i = y_out * im->stride_y + tap / 3 - 1;
                const size_t j = x_out * im->stride_x + tap % 3 - 1;
                if (i < im->height && j < im->width &&
                    x[(i * im->width + j) * channels + ch] > most)
                    most = x[(i * im->width + j) * channels + ch];
            }
            y[x_out * channels + ch] = most;
        }
}

static void test_lines_driver(const bitops_isa *isa) {
    for (size_t channels = 1; channels < 80; channels += 1 + channels / 3)
        for (size_t stride = 1; stride <= 2; stride++) {
            const bitops_image im = small_image(channels, stride);
            const size_t pixels = im.height * im.width, width = im.out_width * channels;
            float *x = input(0, pixels * channels * sizeof *x);
            for (size_t i = 0; i < pixels * channels; i++)
                x[i] = random_float();
            float *column = input(1, im.width * channels * sizeof *column);
            for (size_t y = 0; y < im.out_height; y++) {
                const outputs out = make_outputs(width * sizeof(float), 0);
                bitops_pool_floats(isa, &im, channels, x, y, column, out.got);
                plain_pool(&im, channels, x, y, out.want);
                check_outputs(channels, stride, y);
            }
            const size_t rows = im.out_height * im.out_width, pixel = channels * sizeof(float);
            const outputs out = make_outputs(rows * 9 * pixel, 0);
            bitops_gather_numbers(&im, 1, pixel, (const char *)x, 0, rows, out.got);
            for (size_t i = 0; i < 9 * rows; i++) {
                const size_t row = i / 9 / im.out_width * stride + i % 9 / 3 - 1;
                const size_t col = i / 9 % im.out_width * stride + i % 3 - 1;
                char *to = (char *)out.want + i * pixel;
                if (row < im.height && col < im.width)
                    memcpy(to, x + (row * im.width + col) * channels, pixel);
                else
                    memset(to, 0, pixel);
            }
            check_outputs(channels, stride, rows);
        }
}

const named_test search_tests[] = {
    {"topk driver", test_topk_driver},
    {"sets driver", test_sets_driver},
    {"scan driver", test_scan_driver},
    {"bounds driver", test_bounds_driver},
    {"join driver", test_join_driver},
    {"score driver", test_score_driver},
    {"rescore driver", test_rescore_driver},
    {"lines driver", test_lines_driver},
    {NULL, NULL},
};
