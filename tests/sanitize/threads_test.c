/* threads_test.c: every driver with several threads, called by several threads at once, for
 * ThreadSanitizer.
 *
 *   threads_test [race]    `race` makes mistakes on purpose, to show that they are reported:
 *                          "loop", tasks of a parallel loop that add to one number,
 *                          "callers", two calls that write to one array
 *
 * Callers share inputs and panels. All the while the main thread changes the number of threads and
 * the ISA in force. Results are those of one thread. */
#define _XOPEN_SOURCE 600
#include "bitops.h"
#include "runtime/parallel.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CALLERS = 3,
    TEAM = 4,
    ROWS = 130,
    COLUMNS = 160,
    K_WORDS = 300, /* cut along k */
    K = K_WORDS * 64,
    LONG = 1 << 16,
    SIDE = 16,
    CHANNELS = 64,
    FILTERS = 64,
    NEAREST = 5,
};

static uint64_t *a_words, *w_words, *panels;
static float *numbers, *scales;
static uint8_t *bytes, *small_bytes;
static int32_t *tap_sums;

static void fail(const char *what) {
    printf("threads_test: %s\n", what);
    exit(1);
}

static void *allocate(size_t size) {
    void *memory = bitops_allocate(size);
    if (!memory)
        fail("no memory");
    return memset(memory, 0, size);
}

static uint64_t random64(void) {
    static uint64_t state = 20160316;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1du;
}

static void make_inputs(void) {
    a_words = allocate(COLUMNS * K_WORDS * 8);
    w_words = allocate(COLUMNS * K_WORDS * 8);
    numbers = allocate(COLUMNS * K_WORDS * 8);
    scales = allocate(K * sizeof *scales);
    bytes = allocate(COLUMNS * K_WORDS * 8);
    small_bytes = allocate(COLUMNS * K_WORDS * 8);
    tap_sums = allocate(9 * FILTERS * sizeof *tap_sums);
    for (size_t i = 0; i < COLUMNS * K_WORDS; i++) {
        a_words[i] = random64();
        w_words[i] = random64();
        numbers[2 * i] = (float)(int32_t)random64() * 0x1p-31f;
        numbers[2 * i + 1] = (float)(int32_t)random64() * 0x1p-31f;
        for (size_t j = 0; j < 8; j++)
            small_bytes[8 * i + j] = (bytes[8 * i + j] = (uint8_t)(random64() >> 32)) / 2;
    }
    for (size_t i = 0; i < K; i++)
        scales[i] = (float)(int32_t)random64() * 0x1p-31f;
    for (size_t i = 0; i < 9 * FILTERS; i++)
        tap_sums[i] = (int32_t)(random64() % 129) - 64;
}

/* ---- the drivers --------------------------------------------------------------------------- */

/* One call: it writes its result to `out`. */
typedef struct call {
    const bitops_isa *isa;
    void *out;
    bitops_stop *stop;
    int threads;
} call;

static void pack(const call *c) {
    bitops_pack_rows(c->isa, BITOPS_F32, numbers, 2, LONG / 2, c->out, c->stop, c->threads);
}

static void compare(const call *c) {
    bitops_compare_rows(c->isa, BITOPS_F32, numbers, LONG / 16, 16, scales, NULL, c->out, c->stop,
                        c->threads);
}

static void transpose(const call *c) {
    void *workspace = allocate(bitops_transpose_workspace_size(c->threads));
    bitops_transpose(c->isa, a_words, 1, 1100, 1100, c->out, workspace, c->stop, c->threads);
    bitops_free(workspace);
}

static void unpack(const call *c) {
    bitops_unpack_rows(c->isa, BITOPS_I8, a_words, 2, LONG, c->out, c->stop, c->threads);
}

static void quantize(const call *c) {
    const bitops_scaled scaled = {.x = numbers, .n = LONG, .alpha = scales, .columns = 16};
    bitops_quantize(c->isa, &scaled, 100, 7, 128, c->out, c->stop, c->threads);
}

static void magnitude(const call *c) {
    bitops_mean_magnitude(numbers, 64, LONG / 64, c->out, c->stop, c->threads);
}

static void popcount(const call *c) {
    bitops_popcount_rows(c->isa, a_words, COLUMNS, K_WORDS, c->out, c->stop, c->threads);
}

static void popcount_long(const call *c) {
    bitops_popcount_rows(c->isa, a_words, 1, COLUMNS * K_WORDS, c->out, c->stop, c->threads);
}

static void popcount_columns(const call *c) {
    bitops_popcount_columns(c->isa, a_words, 1, COLUMNS, K_WORDS, c->out, c->stop, c->threads);
}

static void prepack(const call *c) {
    bitops_prepack_all(c->isa, w_words, K_WORDS, COLUMNS, K_WORDS, c->out, c->stop, c->threads);
}

static bitops_gemm_args product(const call *c, size_t m, size_t k_words, int prepacked) {
    bitops_gemm_args args = {.a = a_words,
                             .lda = k_words,
                             .m = m,
                             .w = prepacked ? NULL : w_words,
                             .ldw = k_words,
                             .n = COLUMNS,
                             .panels = prepacked ? panels : NULL,
                             .k_words = k_words,
                             .stop = c->stop};
    args.store = (bitops_store){.k = (int32_t)k_words * 64, .c = c->out, .ldc = COLUMNS};
    return args;
}

static void run_gemm(const call *c, const bitops_gemm_args *args) {
    void *workspace = allocate(bitops_gemm_workspace_size(c->isa, args, c->threads));
    bitops_gemm(c->isa, args, workspace, c->threads);
    bitops_free(workspace);
}

static void gemm(const call *c) {
    const bitops_gemm_args args = product(c, ROWS, 40, 0);
    run_gemm(c, &args);
}

static void gemm_sliced(const call *c) {
    const bitops_gemm_args args = product(c, ROWS, K_WORDS, 1);
    run_gemm(c, &args);
}

static void gemm_few_rows(const call *c) {
    const bitops_gemm_args args = product(c, 3, K_WORDS, 0);
    run_gemm(c, &args);
}

static void topk(const call *c) {
    bitops_gemm_args args = product(c, ROWS, 40, 0);
    void *workspace = allocate(bitops_topk_workspace_size(c->isa, &args, NEAREST, c->threads));
    int64_t *indices = c->out;
    args.store.kind = BITOPS_STORE_HAMMING;
    args.store.c = indices + ROWS * NEAREST;
    bitops_topk(c->isa, &args, NEAREST, indices, workspace, c->threads);
    bitops_free(workspace);
}

static bitops_conv_args convolution(const call *c, size_t channels, size_t groups) {
    bitops_conv_args args = {.image = {.x = a_words,
                                       .pixel_words = bitops_words(channels * groups),
                                       .height = SIDE,
                                       .width = SIDE,
                                       .channels = channels,
                                       .kernel_height = 3,
                                       .kernel_width = 3,
                                       .stride_y = 1,
                                       .stride_x = 1,
                                       .pad_top = 1,
                                       .pad_left = 1,
                                       .dilation_y = 1,
                                       .dilation_x = 1,
                                       .out_height = SIDE,
                                       .out_width = SIDE},
                             .images = 2,
                             .w = w_words,
                             .filters = FILTERS,
                             .groups = groups,
                             .stop = c->stop};
    args.store = (bitops_store){.k = (int32_t)(9 * channels), .c = c->out, .ldc = FILTERS};
    return args;
}

/* Zeros outside, for which there is a table. */
static void run_conv(const call *c, bitops_conv_args args) {
    void *offsets = allocate(bitops_conv_offsets_size(&args));
    void *areas = allocate(bitops_conv_areas_size(&args));
    bitops_conv_fill_offsets(&args, tap_sums, offsets, areas, c->stop);
    bitops_free(areas);
    void *workspace = allocate(bitops_conv_workspace_size(c->isa, &args, c->threads));
    bitops_conv(c->isa, &args, workspace, c->threads);
    bitops_free(workspace);
    bitops_free(offsets);
}

static void conv(const call *c) {
    run_conv(c, convolution(c, CHANNELS, 1));
}

static void conv_groups(const call *c) {
    bitops_conv_args args = convolution(c, CHANNELS / 2, 2);
    args.images = 4; /* each group by itself is worth several threads */
    run_conv(c, args);
}

static void conv_depthwise(const call *c) {
    run_conv(c, convolution(c, 1, FILTERS));
}

static void im2col(const call *c) {
    const bitops_conv_args args = convolution(c, CHANNELS, 1);
    bitops_im2col(&args.image, 2, c->out, c->stop, c->threads);
}

static void run_mixed(const call *c, int bits) {
    bitops_mixed_args args = {.is_float = bits == 0,
                              .bits = bits,
                              .x = bits ? (void *)bytes : (void *)numbers,
                              .m = ROWS,
                              .k = 640,
                              .w = w_words,
                              .ldw = 10,
                              .n = COLUMNS,
                              .alpha = scales,
                              .c = c->out,
                              .stop = c->stop};
    void *workspace = allocate(bitops_mixed_workspace_size(c->isa, &args, c->threads));
    bitops_mixed(c->isa, &args, workspace, c->threads);
    bitops_free(workspace);
}

static void lookup_floats(const call *c) {
    run_mixed(c, 0);
}

static void lookup_bytes(const call *c) {
    run_mixed(c, 8);
}

static void planes(const call *c) {
    run_mixed(c, 1);
}

static void byte_gemm(const call *c) {
    const bitops_byte_args args = {.x = bytes,
                                   .x_zero = 128,
                                   .y = small_bytes,
                                   .m = 70,
                                   .n = COLUMNS,
                                   .k = 1100,
                                   .sums = c->out,
                                   .stop = c->stop};
    void *workspace = allocate(bitops_byte_gemm_workspace_size(&args, c->threads));
    bitops_byte_gemm(c->isa, &args, workspace, c->threads);
    bitops_free(workspace);
}

/* A step on weights, moments and words that lie one after the other in the output. */
static bitops_adam_args make_step(const call *c, size_t rows, size_t n) {
    float *w = c->out, *m = w + rows * n, *v = m + rows * n;
    memcpy(w, numbers, rows * n * sizeof *w);
    return (bitops_adam_args){.g = numbers,
                              .w = w,
                              .m = m,
                              .v = v,
                              .words = (uint64_t *)(v + rows * n),
                              .rows = rows,
                              .n = n,
                              .rate = 0.01f,
                              .beta1_rest = 0.1f,
                              .beta2_rest = 0.01f,
                              .eps = 1e-8f,
                              .keep = 1,
                              .clip = 1};
}

static void adam(const call *c) {
    const bitops_adam_args args = make_step(c, 64, LONG / 64);
    bitops_adam(c->isa, &args, c->threads);
}

/* Two groups of columns, and of rows by 64. */
static void adam_product(const call *c) {
    const bitops_adam_args step = make_step(c, 70, 1100);
    const bitops_mixed_args product = {.bits = 8,
                                       .zero = 128,
                                       .x = bytes,
                                       .x_turned = 1,
                                       .m = step.rows,
                                       .k = 100,
                                       .w = w_words,
                                       .ldw = 2,
                                       .n = step.n,
                                       .alpha = scales};
    void *workspace = allocate(bitops_adam_product_workspace_size(&product, c->threads));
    bitops_adam_product(c->isa, &step, &product, workspace, c->threads);
    bitops_free(workspace);
}

static const struct driver {
    const char *name;
    void (*run)(const call *c);
} drivers[] = {{"pack", pack},
               {"compare", compare},
               {"transpose", transpose},
               {"unpack", unpack},
               {"quantize", quantize},
               {"mean magnitude", magnitude},
               {"popcount", popcount},
               {"popcount of a long row", popcount_long},
               {"popcount across rows", popcount_columns},
               {"prepack", prepack},
               {"gemm", gemm},
               {"gemm, cut along k", gemm_sliced},
               {"gemm of few rows", gemm_few_rows},
               {"topk", topk},
               {"conv", conv},
               {"conv in groups", conv_groups},
               {"conv, depthwise", conv_depthwise},
               {"im2col", im2col},
               {"floats by lookup", lookup_floats},
               {"bytes by lookup", lookup_bytes},
               {"bit planes", planes},
               {"bytes times bytes", byte_gemm},
               {"adam", adam},
               {"adam by a product", adam_product}};
enum { DRIVERS = sizeof drivers / sizeof drivers[0], OUT_BYTES = 1 << 20 };

static char *wanted[DRIVERS];

/* ---- callers ------------------------------------------------------------------------------- */

extern _Thread_local int widest_team; /* of openmp.c */

static const bitops_isa *tested;
static pthread_barrier_t together;

static int never(void) {
    return 0;
}

static int at_once(void) {
    return 1;
}

/* All drivers, from one on: with a stop that never comes, then with one that does. */
static void *call_all(void *memory) {
    const size_t first = (size_t)(uintptr_t)memory;
    char *out = allocate(OUT_BYTES);
    pthread_barrier_wait(&together);
    for (size_t i = 0; i < DRIVERS; i++) {
        const struct driver *d = &drivers[(first + i) % DRIVERS];
        bitops_stop stop = {.ask = never, .asked = 1e-9};
        memset(out, 0, OUT_BYTES);
        const int most = bitops_get_num_threads();
        if (most < 1 || most > TEAM || !bitops_isa_runs(bitops_isa_active()))
            fail("settings");
        widest_team = 1;
        d->run(&(call){tested, out, &stop, TEAM});
        if (memcmp(out, wanted[d - drivers], OUT_BYTES) != 0)
            fail(d->name);
        if (widest_team < 2) {
            printf("%s had one thread\n", d->name);
            exit(1);
        }
        stop = (bitops_stop){.ask = at_once, .asked = 1e-9};
        d->run(&(call){tested, out, &stop, TEAM});
    }
    bitops_free(out);
    return NULL;
}

static void test_isa(const bitops_isa *isa) {
    tested = isa;
    panels = allocate(bitops_prepack_size(isa, COLUMNS, K_WORDS) * 8);
    bitops_prepack_all(isa, w_words, K_WORDS, COLUMNS, K_WORDS, panels, NULL, 1);
    for (size_t i = 0; i < DRIVERS; i++) {
        wanted[i] = allocate(OUT_BYTES);
        drivers[i].run(&(call){isa, wanted[i], NULL, 1});
    }
    pthread_t callers[CALLERS];
    pthread_barrier_init(&together, NULL, CALLERS + 1);
    for (uintptr_t i = 0; i < CALLERS; i++)
        if (pthread_create(&callers[i], NULL, call_all, (void *)(i * 7)))
            fail("no thread");
    pthread_barrier_wait(&together);
    for (int i = 0; i < 1000; i++) {
        bitops_set_num_threads(1 + i % TEAM);
        bitops_limit_to_one_thread(i % 3 == 0);
        bitops_isa_use(i % 2 ? isa : bitops_isa_find("generic"));
    }
    bitops_limit_to_one_thread(0);
    for (size_t i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    pthread_barrier_destroy(&together);
    for (size_t i = 0; i < DRIVERS; i++)
        bitops_free(wanted[i]);
    bitops_free(panels);
    printf("%s: %d drivers, %d threads each, called by %d threads at once\n", isa->name,
           (int)DRIVERS, (int)TEAM, (int)CALLERS);
}

/* The first call of the process, made by several threads. */
static void *first_call(void *memory) {
    (void)memory;
    pthread_barrier_wait(&together);
    return (void *)(uintptr_t)bitops_isa_active();
}

static void test_first_calls(void) {
    pthread_t callers[CALLERS];
    void *found[CALLERS];
    pthread_barrier_init(&together, NULL, CALLERS);
    for (size_t i = 0; i < CALLERS; i++)
        if (pthread_create(&callers[i], NULL, first_call, NULL))
            fail("no thread");
    for (size_t i = 0; i < CALLERS; i++)
        pthread_join(callers[i], &found[i]);
    pthread_barrier_destroy(&together);
    if (found[0] != found[1] || found[1] != found[2])
        fail("the ISA in force");
}

/* ---- mistakes ------------------------------------------------------------------------------ */

static void race_in_loop(void) {
    static long sum;
    BITOPS_PARALLEL_FOR(TEAM, schedule(static))
    for (ptrdiff_t i = 0; i < 1000; i++)
        sum += i;
    printf("the sum is %ld\n", sum);
}

static void *pack_to(void *out) {
    pack(&(call){bitops_isa_active(), out, NULL, 1});
    return NULL;
}

static void race_of_callers(void) {
    pthread_t other;
    char *out = allocate(OUT_BYTES);
    if (pthread_create(&other, NULL, pack_to, out))
        fail("no thread");
    pack_to(out);
    pthread_join(other, NULL);
    bitops_free(out);
}

int main(int argc, char **argv) {
    test_first_calls();
    make_inputs();
    if (argc > 1) {
        if (strcmp(argv[1], "loop") == 0)
            race_in_loop();
        else
            race_of_callers();
        return 0;
    }
    for (size_t i = 0; i < bitops_isa_count(); i++)
        if (bitops_isa_runs(bitops_isa_get(i)))
            test_isa(bitops_isa_get(i));
    return 0;
}
