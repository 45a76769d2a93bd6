/* kernels_test_drivers.c: tests of the drivers, which cut products into blocks. */
#include "kernels_test.h"

#include <string.h>

static void run_gemm(const bitops_isa *isa, bitops_gemm_args args, int prepacked) {
    uint64_t *panels = NULL;
    if (prepacked) {
        panels = workspace_of(bitops_prepack_size(isa, args.n, args.k_words) * 8);
        bitops_prepack_all(isa, args.w, args.ldw, args.n, args.k_words, panels, NULL, 1);
        args.panels = panels;
        args.w = NULL;
    }
    void *workspace = workspace_of(bitops_gemm_workspace_size(isa, &args, 1));
    bitops_gemm(isa, &args, workspace, 1);
    free_workspace(workspace);
    free_workspace(panels);
}

static void test_gemm_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 1, 1},    {17, 33, 3},   {16, 130, 9},  {48, 128, 8},
                                       {97, 257, 5}, {130, 65, 13}, {18, 40, 257}, {50, 129, 600},
                                       {3, 7, 515},  {270, 390, 1}, {48, 129, 2},  {60, 513, 3}};
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
    const int depthwise = bitops_is_depthwise(own, groups, filters);
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
        void *areas = workspace_of(bitops_conv_areas_size(&args));
        bitops_conv_fill_offsets(&args, sums, offsets, areas, NULL);
        free_workspace(areas);
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
                conv_case(isa, 64, 128, 64, stride, zeros, stores[s]);
                conv_case(isa, 40, 400, 40, stride, zeros, stores[s]); /* not depthwise */
                conv_case(isa, 2048, 9, 1, stride, zeros, stores[s]);  /* k is cut */
            }
}

static void test_mixed_driver(const bitops_isa *isa) {
    static const size_t shapes[][3] = {{1, 70, 100}, {5, 33, 1000},  {40, 129, 320},
                                       {60, 65, 64}, {12, 400, 257}, {36, 200, 300},
                                       {65, 8, 129}, {76, 130, 320}, {103, 17, 300}};
    for (size_t s = 0; s < COUNT(shapes); s++)
        for (int turn = 0; turn <= 16; turn++) { /* bits 0: float32 */
            const int bits = turn % 9;
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
            args.zero = bits && turn > 8 ? 1 << (bits - 1) : 0;
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

/* Whoever cuts a product has the workspace of its largest block. */
static void test_workspaces(const bitops_isa *isa) {
    static const int teams[] = {1, 2, 6, 8, 32};
    static const uint64_t word;
    for (int turn = 0; turn < 20000; turn++) {
        const size_t m = 1 + random64() % (turn % 5 ? 200 : 5000), few = 1 + random64() % m;
        const size_t n = 1 + random64() % (turn % 2 ? 24 : 1100), fewer = 1 + random64() % n;
        const size_t k = 1 + random64() % (turn % 3 ? 700 : 40000);
        const int threads = teams[random64() % COUNT(teams)], bits = (int)(random64() % 9);
        bitops_mixed_args mixed = {.is_float = bits == 0, .bits = bits, .m = m, .n = n, .k = k};
        mixed.w = &word;
        mixed.zero = bits && random64() % 2 ? 1 << (bits - 1) : 0;
        const size_t size = bitops_mixed_workspace_size(isa, &mixed, threads);
        mixed.m = few;
        check(bitops_mixed_workspace_size(isa, &mixed, threads) <= size, "workspace", m, few, n);

        bitops_gemm_args gemm = {.m = m, .n = n, .k_words = bitops_words(k), .w = &word};
        gemm.panels = random64() % 2 ? &word : NULL;
        gemm.store = make_store((int)(random64() % STORES), MAX_N, k);
        const size_t gemm_size = bitops_gemm_workspace_size(isa, &gemm, threads);
        gemm.m = few;
        gemm.n = fewer;
        check(bitops_gemm_workspace_size(isa, &gemm, threads) <= gemm_size, "workspace", m, few, n);
    }
}

const named_test driver_tests[] = {
    {"gemm driver", test_gemm_driver},
    {"conv driver", test_conv_driver},
    {"mixed driver", test_mixed_driver},
    {"workspaces", test_workspaces},
    {"code conv driver", test_code_conv_driver},
    {"byte gemm driver", test_byte_gemm_driver},
    {NULL, NULL},
};
