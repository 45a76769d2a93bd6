/* kernels_test_stops.c: a driver that is told to stop leaves the rest of its work undone.
 *
 * The clock of these stops was read long ago, so that the first look at it asks, and the answer is
 * to stop. Each driver has far more work than lies before that look; what it would write last must
 * be as it was. */
#include "kernels_test.h"

#include <stdlib.h>
#include <string.h>

static int asked;

static int yes(void) {
    asked++;
    return 1;
}

static bitops_stop stop_at_once(void) {
    return (bitops_stop){.ask = yes, .asked = 1e-9};
}

static void *filled(size_t bytes, int byte) {
    void *memory = bitops_allocate(bytes);
    if (!memory)
        exit(2);
    return memset(memory, byte, bytes);
}

/* One call of a driver: `bytes` that it would write, of which the last must stay. */
typedef struct stopped_call {
    const char *name;
    bitops_stop stop;
    unsigned char *out;
    size_t bytes;
} stopped_call;

static stopped_call begin(const char *name, size_t bytes) {
    asked = 0;
    return (stopped_call){name, stop_at_once(), filled(bytes, UNTOUCHED), bytes};
}

static void end(stopped_call *call) {
    check(asked == 1 && call->stop.stopped, call->name, (size_t)asked, 0, 0);
    check(call->out[call->bytes - 1] == UNTOUCHED, call->name, call->bytes, 0, 0);
    bitops_free(call->out);
}

enum { TASKS = 600, LONG = 9 << 16 };

static void stop_passes(const bitops_isa *isa) {
    stopped_call c = begin("pack", TASKS * 8);
    float *x = filled(TASKS * 8192 * sizeof *x, 0);
    bitops_pack_rows(isa, BITOPS_F32, x, TASKS, 1, (uint64_t *)c.out, &c.stop, 1);
    end(&c);
    c = begin("compare of a long row", LONG / 8);
    bitops_compare_rows(isa, BITOPS_F32, x, 1, LONG, x, NULL, (uint64_t *)c.out, &c.stop, 1);
    end(&c);
    c = begin("quantize", TASKS * 8192);
    const bitops_scaled numbers = {.x = x, .n = TASKS * 8192};
    bitops_quantize(isa, &numbers, 1, 0, 128, c.out, &c.stop, 1);
    end(&c);
    bitops_free(x);

    uint64_t *words = filled(LONG * sizeof *words, 0xff);
    c = begin("unpack", TASKS);
    bitops_unpack_rows(isa, BITOPS_I8, words, TASKS, 1, c.out, &c.stop, 1);
    end(&c);
    c = begin("transpose", TASKS * 8);
    void *workspace = filled(bitops_transpose_workspace_size(1), 0);
    bitops_transpose(isa, words, TASKS, 1, 1, (uint64_t *)c.out, workspace, &c.stop, 1);
    end(&c);
    bitops_free(workspace);
    c = begin("prepack of long rows", bitops_prepack_size(isa, 1, LONG) * 8);
    bitops_prepack_all(isa, words, LONG, 1, LONG, (uint64_t *)c.out, &c.stop, 1);
    end(&c);
    bitops_free(words);
}

/* Sums are written whole; that they are too small shows that the work ended. */
static void stop_sums(const bitops_isa *isa) {
    uint64_t *words = filled(LONG * sizeof *words, 0xff);
    int64_t counts[BITOPS_WORD_BITS];
    bitops_stop stop = stop_at_once();
    bitops_popcount_rows(isa, words, 1, LONG, counts, &stop, 1);
    check(stop.stopped && counts[0] < (int64_t)LONG * 64, "popcount of a long row", LONG, 0, 0);
    stop = stop_at_once();
    bitops_popcount_columns(isa, words, 1, LONG, 1, counts, &stop, 1);
    check(stop.stopped && counts[63] < LONG, "popcount across rows", LONG, 0, 0);
    bitops_free(words);
    float *ones = filled(LONG * sizeof *ones, 0), mean = 2;
    for (size_t i = 0; i < LONG; i++)
        ones[i] = 1;
    stop = stop_at_once();
    bitops_mean_magnitude(ones, 1, LONG, &mean, &stop, 1);
    check(stop.stopped && mean < 1, "mean magnitude of a long row", LONG, 0, 0);
    bitops_free(ones);
}

static void stop_products(const bitops_isa *isa) {
    enum { N = 64 * 600, K_WORDS = 4 };
    uint64_t *w = filled(N * K_WORDS * sizeof *w, 0);
    for (size_t m = 1; m <= 20; m += 19) {
        bitops_gemm_args args = {.a = w,
                                 .lda = K_WORDS,
                                 .m = m,
                                 .w = w,
                                 .ldw = K_WORDS,
                                 .n = N,
                                 .k_words = K_WORDS,
                                 .store = {.k = K_WORDS * 64, .ldc = N}};
        stopped_call c = begin("gemm", m * N * sizeof(int32_t));
        void *workspace = filled(bitops_gemm_workspace_size(isa, &args, 1), 0);
        args.store.c = c.out;
        args.stop = &c.stop;
        bitops_gemm(isa, &args, workspace, 1);
        end(&c);
        bitops_free(workspace);
    }
    bitops_mixed_args args = {
        .is_float = 1, .m = 1, .k = K_WORDS * 64, .w = w, .ldw = K_WORDS, .n = N};
    float *x = filled(args.k * sizeof *x, 0);
    stopped_call c = begin("numbers times weights", N * sizeof(float));
    args.x = x;
    args.c = c.out;
    args.stop = &c.stop;
    void *workspace = filled(bitops_mixed_workspace_size(isa, &args, 1), 0);
    bitops_mixed(isa, &args, workspace, 1);
    end(&c);
    bitops_free(workspace);
    bitops_free(x);
    bitops_free(w);
}

static void stop_bytes(const bitops_isa *isa) {
    enum { M = BITOPS_BYTE_ROWS, N = 16 * BITOPS_BYTE_COLUMNS, K = 4096 };
    stopped_call c = begin("bytes times bytes", M * N * sizeof(int32_t));
    uint8_t *x = filled(K * M, 1), *y = filled(K * N, 1);
    const bitops_byte_args args = {
        .x = x, .y = y, .m = M, .n = N, .k = K, .sums = (int32_t *)c.out, .stop = &c.stop};
    void *workspace = filled(bitops_byte_gemm_workspace_size(&args, 1), 0);
    bitops_byte_gemm(isa, &args, workspace, 1);
    end(&c);
    bitops_free(workspace);
    bitops_free(x);
    bitops_free(y);
}

/* As many images as it takes, if the ISA convolves codes without patches. */
static void stop_code_conv(const bitops_isa *isa) {
    enum { SIDE = 32, CHANNELS = 64, IMAGES = 40, N = 64 };
    bitops_image im = {.kernel_height = 3, .kernel_width = 3, .pad_top = 1, .pad_left = 1};
    im.height = im.width = im.out_height = im.out_width = SIDE;
    im.stride_y = im.stride_x = im.dilation_y = im.dilation_x = 1;
    bitops_mixed_args args = {.bits = 6, .zero = 32, .m = IMAGES * SIDE * SIDE, .n = N};
    args.k = 9 * CHANNELS;
    args.ldw = bitops_words(args.k);
    const bitops_code_way way = bitops_choose_code_way(isa, &args, &im, 1);
    if (way == BITOPS_CODE_PATCHES)
        return;
    uint8_t *x = filled(IMAGES * SIDE * SIDE * CHANNELS, 0);
    uint64_t *w = filled(N * args.ldw * sizeof *w, 0);
    stopped_call c = begin("convolution of codes", args.m * N * sizeof(float));
    args.x = x;
    args.w = w;
    args.c = c.out;
    args.stop = &c.stop;
    void *workspace = filled(bitops_conv_codes_workspace_size(way, isa, &args, &im, 1), 0);
    bitops_conv_codes(way, isa, &args, &im, 0, workspace, 1);
    end(&c);
    bitops_free(workspace);
    bitops_free(x);
    bitops_free(w);
}

/* A kernel as large as the image: one output with a long row. */
static void stop_images(size_t channels) {
    enum { SIDE = 600 };
    bitops_image im = {.pixel_words = bitops_words(channels), .channels = channels};
    im.height = im.width = im.kernel_height = im.kernel_width = SIDE;
    im.stride_y = im.stride_x = im.dilation_y = im.dilation_x = im.out_height = im.out_width = 1;
    uint64_t *x = filled(SIDE * SIDE * im.pixel_words * sizeof *x, 0);
    im.x = x;
    stopped_call c = begin("im2col of a large kernel", bitops_words(SIDE * SIDE * channels) * 8);
    bitops_im2col(&im, 1, (uint64_t *)c.out, &c.stop, 1);
    end(&c);
    bitops_free(x);
}

static bitops_stop stop_later(void) {
    asked = 0;
    return (bitops_stop){.ask = yes}; /* a tenth of a second after the first look */
}

/* One long row, repeated: what takes longer than a tenth of a second is looked at in between. */
static void stop_pairs(const bitops_isa *isa) {
    enum { ROWS = 1100, SHORTER = 1 << 14, LONGEST = 4 * LONG };
    uint64_t *words = filled(LONGEST * sizeof *words, 0xff);
    bitops_range_args args = {.a = words, .b = words, .k_words = SHORTER};
    bitops_found found = {0};
    bitops_stop stop = stop_later();
    args.stop = &stop;
    args.m = args.n = ROWS;
    void *workspace = filled(bitops_scan_workspace_size(isa, &args, ROWS, 1, 1), 0);
    bitops_scan(isa, &args, 0, ROWS, 1, &found, workspace, 1);
    check(stop.stopped && asked == 1 && found.count < ROWS, "pairs of a scan", asked, 0, 0);
    bitops_free(workspace);

    args.k_words = LONGEST;
    args.n = 1;
    stop = stop_later();
    stopped_call c = begin("folds", bitops_scan_workspace_size(isa, &args, ROWS, 1, 1));
    bitops_scan(isa, &args, 0, ROWS, 1, &found, c.out, 1);
    check(stop.stopped && asked == 1, c.name, asked, 0, 0);
    check(((uint64_t *)c.out)[ROWS - 1] != 0, c.name, ROWS, 0, 0); /* which its fold is */
    bitops_free(c.out);

    const bitops_chunk chunk = {0, 20};
    const uint32_t choice = 0;
    uint64_t compared;
    args.n = ROWS;
    const bitops_join_args join = {args, &chunk, 1, &choice, 1};
    workspace = filled(bitops_join_workspace_size(&join, 1), 0);
    stop = stop_later();
    found.count = 0;
    bitops_join(isa, &join, UINT64_MAX, &compared, &found, workspace, 1);
    check(stop.stopped && asked == 1 && found.count == 0, "pairs of a join", asked, 0, 0);
    bitops_free(workspace);
    bitops_found_free(&found);
    bitops_free(words);
}

static void test_stops(const bitops_isa *isa) {
    stop_passes(isa);
    stop_sums(isa);
    stop_products(isa);
    stop_pairs(isa);
    stop_code_conv(isa);
    stop_bytes(isa);
    stop_images(1);
    stop_images(64);
    stop_images(70);
}

const named_test stop_tests[] = {{"stops", test_stops}, {NULL, NULL}};
