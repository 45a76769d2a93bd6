/* plan.c: runs the steps of a plan.
 *
 *   memory of a call   | arena: activations | workspace of the step that runs |
 *
 * Most steps are calls of other drivers. MIXED cuts its rows into blocks, so that the int32 sums of
 * a block are compared with their thresholds while they are in the cache, and rows of images are
 * never all in memory:
 *
 *   for each block of rows                               shared out to threads
 *     copy what the output positions see to rows of numbers       images only
 *     multiply them by the weights                                (mixed.c)
 *     compare the sums with thresholds                            thresholds only
 *
 * A single block is left to the threads of mixed.c.
 *
 * FLOATS does the same with float32 weights: BLAS, which has threads of its own, multiplies one
 * block after the other, and the scales are applied to its products while they are in the cache. */
#include "drivers/plan.h"
#include "drivers/lines.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <math.h>
#include <string.h>

enum {
    LINE = 64,               /* bytes */
    BLOCK_BYTES = 128 << 10, /* of the rows of a block, and of their sums */
    BLOCK_ROWS = 32,         /* at least, as lookup.c takes them */
    GATHER_ROWS = 64,        /* that a thread copies at a time */
    SHARE = 1 << 12,         /* numbers that a thread scales at a time */
    THREAD_WORK = 1 << 16,   /* numbers or words below which one thread is faster */
};

static int team(size_t work, int n_threads) {
    return bitops_share((double)work, THREAD_WORK, n_threads);
}

/* ---- numbers times weights ------------------------------------------------------------------- */

/* The blocks of a MIXED step, and where the parts of the scratch of a thread lie, in bytes. */
typedef struct mixed_plan {
    size_t rows; /* all of them */
    size_t row_bytes;
    size_t block_rows;
    size_t blocks;
    int outer, inner; /* threads that share the blocks, and threads of a product */
    size_t sums_at, work_at;
    size_t thread_bytes;
} mixed_plan;

static size_t item_size(const bitops_step *step) {
    return step->mixed.is_float ? sizeof(float) : sizeof(uint8_t);
}

static bitops_mixed_args block_args(const bitops_step *step, size_t rows) {
    bitops_mixed_args args = step->mixed;
    args.m = rows;
    return args;
}

static mixed_plan make_mixed_plan(const bitops_isa *isa, const bitops_step *step, int n_threads) {
    const bitops_image *im = &step->image;
    mixed_plan plan = {.row_bytes = step->mixed.k * item_size(step), .outer = 1};
    plan.rows = step->images ? step->images * im->out_height * im->out_width : step->rows;
    const size_t most = max_size(plan.row_bytes, step->mixed.n * sizeof(int32_t));
    plan.block_rows = plan.rows;
    if (step->images || step->threshold)
        plan.block_rows =
            min_size(plan.rows, round_up(max_size(BLOCK_BYTES / most, 1), BLOCK_ROWS));
    plan.blocks = ceil_div(plan.rows, plan.block_rows);
    plan.inner = n_threads;
    if (plan.blocks > 1) {
        plan.outer = n_threads;
        plan.inner = 1;
    }
    plan.sums_at = step->images ? round_up(plan.block_rows * plan.row_bytes, LINE) : 0;
    const size_t sums = step->threshold ? plan.block_rows * step->mixed.n * sizeof(int32_t) : 0;
    plan.work_at = plan.sums_at + round_up(sums, LINE);
    const bitops_mixed_args args = block_args(step, plan.block_rows);
    plan.thread_bytes =
        round_up(plan.work_at + bitops_mixed_workspace_size(isa, &args, plan.inner), LINE);
    return plan;
}

/* A MIXED step that runs. */
typedef struct mixed_run {
    const bitops_isa *isa;
    const bitops_step *step;
    mixed_plan plan;
    const char *x;
    char *y, *workspace;
    bitops_stop *stop;
    atomic_int nan; /* whether a sum was NaN */
} mixed_run;

static void run_mixed_block(mixed_run *run, size_t block) {
    const bitops_step *step = run->step;
    const mixed_plan *plan = &run->plan;
    const size_t first = block * plan->block_rows;
    const size_t rows = min_size(plan->block_rows, plan->rows - first);
    char *scratch = run->workspace + (size_t)bitops_thread_number() * plan->thread_bytes;
    bitops_mixed_args args = block_args(step, rows);
    if (bitops_stopped(run->stop))
        return;
    /* Among several threads only this loop asks whether to stop, on the one that called. */
    args.stop = plan->outer == 1 ? run->stop : NULL;
    args.x = run->x + first * plan->row_bytes;
    if (step->images) {
        bitops_gather_numbers(&step->image, step->images, step->pixel_bytes, run->x, first, rows,
                              scratch);
        args.x = scratch;
    }
    args.c = step->threshold ? scratch + plan->sums_at : run->y + first * args.n * sizeof(float);
    bitops_mixed(run->isa, &args, scratch + plan->work_at, plan->inner);
    if (step->threshold &&
        bitops_compare_rows(run->isa, args.is_float ? BITOPS_F32 : BITOPS_I32, args.c, rows, args.n,
                            step->threshold, step->flip,
                            (uint64_t *)run->y + first * bitops_words(args.n), NULL, plan->inner))
        run->nan = 1;
}

static int run_mixed(const bitops_isa *isa, const bitops_step *step, const char *x, char *y,
                     char *workspace, bitops_stop *stop, int n_threads) {
    mixed_run run = {
        .isa = isa, .step = step, .x = x, .y = y, .workspace = workspace, .stop = stop};
    run.plan = make_mixed_plan(isa, step, n_threads);
    BITOPS_FOR_TASKS(run.plan.outer, run.plan.blocks, run_mixed_block(&run, (size_t)task));
    return run.nan;
}

/* ---- pass over numbers ----------------------------------------------------------------------- */

/* Rows of at least this many numbers in all are a share of a thread. */
static size_t share_rows(size_t n) {
    return max_size(SHARE / n, 1);
}

static void run_affine(const bitops_isa *isa, const bitops_step *step, const void *x, float *y,
                       int n_threads) {
    const size_t rows = step->rows, n = step->n, share = share_rows(n);
    BITOPS_PARALLEL_FOR(team(rows * n, n_threads), schedule(static))
    for (ptrdiff_t first = 0; first < (ptrdiff_t)rows; first += (ptrdiff_t)share) {
        const size_t count = min_size(share, rows - (size_t)first), at = (size_t)first * n;
        const float *from = (const float *)x + at;
        if (step->dtype == BITOPS_I32) {
            for (size_t i = at; i < at + count * n; i++)
                y[i] = (float)((const int32_t *)x)[i];
            from = y + at;
        }
        isa->affine_f32(from, count, n, step->alpha, step->bias, step->relu, y + at);
    }
}

/* ---- numbers times numbers ------------------------------------------------------------------- */

static size_t longest_block(const bitops_step *step) {
    size_t most = 0;
    for (size_t i = 0; i < step->blocks; i++)
        most = max_size(most, (size_t)(step->block_ends[i] - (i ? step->block_ends[i - 1] : 0)));
    return most;
}

static size_t gathered_bytes(const bitops_step *step) {
    return step->images ? longest_block(step) * step->k * sizeof(float) : 0;
}

static void gather_block(const bitops_step *step, const char *x, size_t first, size_t rows,
                         float *rows_out, int n_threads) {
    BITOPS_PARALLEL_FOR(team(rows * step->k, n_threads), schedule(static))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)rows; i += GATHER_ROWS)
        bitops_gather_numbers(&step->image, step->images, step->pixel_bytes, x, first + (size_t)i,
                              min_size(GATHER_ROWS, rows - (size_t)i),
                              (char *)(rows_out + (size_t)i * step->k));
}

static void run_floats(const bitops_isa *isa, const bitops_step *step, const char *x, float *y,
                       float *workspace, bitops_stop *stop, int n_threads) {
    size_t first = 0;
    for (size_t i = 0; i < step->blocks && !bitops_stopped(stop); i++) {
        const size_t end = (size_t)step->block_ends[i], rows = end - first;
        const float *block = (const float *)x + first * step->k;
        float *products = y + first * step->n;
        if (step->images) {
            gather_block(step, x, first, rows, workspace, n_threads);
            block = workspace;
        }
        if (step->multiply(step->matrix, block, rows, step->k, step->n, products)) {
            stop->stopped = 1;
            return;
        }
        if (step->alpha || step->bias || step->relu) {
            const bitops_step scale = {.rows = rows,
                                       .n = step->n,
                                       .dtype = BITOPS_F32,
                                       .alpha = step->alpha,
                                       .bias = step->bias,
                                       .relu = step->relu};
            run_affine(isa, &scale, products, products, n_threads);
        }
        first = end;
    }
}

static void run_add(const bitops_step *step, const float *x, const float *other, float *y,
                    int n_threads) {
    const ptrdiff_t n = (ptrdiff_t)(step->rows * step->n);
    BITOPS_PARALLEL_FOR(team((size_t)n, n_threads), schedule(static))
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = x[i] + other[i];
}

static int run_compare(const bitops_isa *isa, const bitops_step *step, const void *x, uint64_t *y,
                       bitops_stop *stop, int n_threads) {
    if (!step->threshold)
        return bitops_pack_rows(isa, step->dtype, x, step->rows, step->n, y, stop, n_threads);
    return bitops_compare_rows(isa, step->dtype, x, step->rows, step->n, step->threshold,
                               step->flip, y, stop, n_threads);
}

/* What `call`, which reads `begin` and `end`, does with the shares [begin, end) of the rows. */
#define FOR_SHARES(step, n_threads, call)                                                          \
    do {                                                                                           \
        const size_t share_ = share_rows((step)->n);                                               \
        BITOPS_PARALLEL_FOR(team((step)->rows *(step)->n, n_threads), schedule(static))            \
        for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div((step)->rows, share_); task++) {       \
            const size_t begin = (size_t)task * share_;                                            \
            const size_t end = min_size(begin + share_, (step)->rows);                             \
            call;                                                                                  \
        }                                                                                          \
    } while (0)

/* As NumPy's clip: NaN stays, and so does a zero at a limit of the other sign. */
static inline float limited(float x, float low, float high) {
    return x < low ? low : x > high ? high : x;
}

static void clip_rows(const bitops_step *step, const float *x, float *y, size_t begin, size_t end) {
    for (size_t i = begin * step->n; i < end * step->n; i++)
        y[i] = limited(x[i], step->low, step->high);
}

static void prelu_rows(const bitops_isa *isa, const bitops_step *step, const float *x, float *y,
                       size_t begin, size_t end) {
    const bitops_prelu prelu = {
        .shift = step->threshold, .slope = step->alpha, .offset = step->bias};
    for (size_t i = begin * step->n; i < end * step->n; i += step->n)
        isa->prelu_values(&prelu, x + i, 0, step->n, y + i);
}

static void concat_rows(const bitops_step *step, const float *x, const float *other, float *y,
                        size_t begin, size_t end) {
    const size_t n = step->n, k = step->k;
    for (size_t i = begin; i < end; i++) {
        memcpy(y + i * (n + k), x + i * n, n * sizeof(float));
        memcpy(y + i * (n + k) + n, other + i * k, k * sizeof(float));
    }
}

static void times_rows(const bitops_step *step, const float *x, const float *other, float *y,
                       size_t begin, size_t end) {
    const size_t n = step->n;
    for (size_t i = begin; i < end; i++) {
        const float *factors = other + i / step->k * n;
        for (size_t j = 0; j < n; j++)
            y[i * n + j] = x[i * n + j] * factors[j];
    }
}

/* Each copy doubles what is there. Returns where the n pixels end. */
static char *fill_pixels(const bitops_step *step, size_t n, char *y) {
    const size_t bytes = n * step->pixel_bytes;
    if (n)
        memcpy(y, step->levels, step->pixel_bytes);
    for (size_t done = step->pixel_bytes; done < bytes; done *= 2)
        memcpy(y + done, y, min_size(done, bytes - done));
    return y + bytes;
}

/* Lines [begin, end) of the padded images. */
static void pad_lines(const bitops_step *step, const char *x, char *y, size_t begin, size_t end) {
    const bitops_image *im = &step->image;
    const size_t line_bytes = im->width * step->pixel_bytes;
    y += begin * im->out_width * step->pixel_bytes;
    for (size_t line = begin; line < end; line++) {
        const size_t above = line % im->out_height, image = line / im->out_height;
        if (above < im->pad_top || above >= im->pad_top + im->height) {
            y = fill_pixels(step, im->out_width, y);
            continue;
        }
        y = fill_pixels(step, im->pad_left, y);
        memcpy(y, x + (image * im->height + above - im->pad_top) * line_bytes, line_bytes);
        y = fill_pixels(step, im->out_width - im->width - im->pad_left, y + line_bytes);
    }
}

/* Returns whether a number is NaN. */
static int round_rows(const bitops_step *step, const float *x, uint8_t *codes, size_t begin,
                      size_t end) {
    int nan = 0;
    for (size_t i = begin * step->n; i < end * step->n; i++) {
        const float code = rintf(limited(x[i] / step->low, 0, 1) * step->high);
        nan |= code != code;
        codes[i] = (uint8_t)(code == code ? code : 0);
    }
    return nan;
}

#define DEFINE_COUNT_ROWS(name, type)                                                              \
    static int name(const bitops_step *step, const type *x, uint8_t *codes, size_t begin,          \
                    size_t end) {                                                                  \
        const size_t n = step->n;                                                                  \
        const type *levels = step->levels;                                                         \
        int nan = 0;                                                                               \
        for (size_t i = begin * n; i < end * n; i += n) {                                          \
            memset(codes + i, 0, n);                                                               \
            for (size_t j = 0; j < n; j++)                                                         \
                nan |= x[i + j] != x[i + j];                                                       \
            for (size_t level = 0; level < step->k; level++)                                       \
                for (size_t j = 0; j < n; j++)                                                     \
                    codes[i + j] += (uint8_t)(x[i + j] >= levels[level * n + j]);                  \
        }                                                                                          \
        return nan;                                                                                \
    }
DEFINE_COUNT_ROWS(count_floats, float)
DEFINE_COUNT_ROWS(count_integers, int32_t)

static void scale_rows(const bitops_step *step, const uint8_t *x, float *y, size_t begin,
                       size_t end) {
    for (size_t i = begin * step->n; i < end * step->n; i++)
        y[i] = (float)x[i] * step->low;
}

/* Floats are multiplied by their factors and added, each step rounded. */
#define DEFINE_SUM_ROWS(name, type)                                                                \
    static void name(const bitops_step *step, const type *x, const type *other, type *y,           \
                     size_t begin, size_t end) {                                                   \
        const type a = (type)step->factors[0], b = (type)step->factors[1];                         \
        for (size_t i = begin * step->n; i < end * step->n; i++)                                   \
            y[i] = x[i] * a + other[i] * b;                                                        \
    }
DEFINE_SUM_ROWS(sum_floats, float)
DEFINE_SUM_ROWS(sum_integers, int32_t)

static void run_sum(const bitops_step *step, const void *x, const void *other, void *y,
                    int n_threads) {
    if (step->dtype == BITOPS_I32)
        FOR_SHARES(step, n_threads, sum_integers(step, x, other, y, begin, end));
    else
        FOR_SHARES(step, n_threads, sum_floats(step, x, other, y, begin, end));
}

/* Returns whether a number was NaN. */
static int run_codes(const bitops_step *step, const void *x, uint8_t *codes, int n_threads) {
    atomic_int nan = 0;
    if (step->kind == BITOPS_STEP_ROUND)
        FOR_SHARES(step, n_threads, if (round_rows(step, x, codes, begin, end)) nan = 1);
    else if (step->dtype == BITOPS_I32)
        FOR_SHARES(step, n_threads, if (count_integers(step, x, codes, begin, end)) nan = 1);
    else
        FOR_SHARES(step, n_threads, if (count_floats(step, x, codes, begin, end)) nan = 1);
    return nan;
}

/* ---- windows --------------------------------------------------------------------------------- */

static void run_mean(const bitops_isa *isa, const bitops_step *step, const float *x, float *y,
                     bitops_stop *stop, int n_threads) {
    if (step->image.kernel_width)
        bitops_mean_windows(isa, &step->image, x, step->images, step->n, y, stop, n_threads);
    else
        bitops_mean_columns(isa, x, step->images, step->rows, step->n, y, stop, n_threads);
}

/* `means` has a number for each position of the images. */
static void run_k_map(const bitops_isa *isa, const bitops_step *step, const float *x, float *y,
                      float *means, bitops_stop *stop, int n_threads) {
    const size_t positions = step->images * step->image.height * step->image.width;
    bitops_mean_magnitude(x, positions, step->n, means, stop, n_threads);
    bitops_mean_windows(isa, &step->image, means, step->images, 1, y, stop, n_threads);
}

static void run_flatten(const bitops_step *step, const uint64_t *x, uint64_t *y, bitops_stop *stop,
                        int n_threads) {
    bitops_image image = step->image;
    image.x = x;
    bitops_im2col(&image, step->images, y, stop, n_threads);
}

/* ---- bits times bits ------------------------------------------------------------------------- */

static void run_gemm(const bitops_isa *isa, const bitops_step *step, const uint64_t *x, void *y,
                     void *workspace, bitops_stop *stop, int n_threads) {
    bitops_gemm_args args = step->gemm;
    args.a = x;
    args.store.c = y;
    args.stop = stop;
    bitops_gemm(isa, &args, workspace, n_threads);
}

static void run_conv(const bitops_isa *isa, const bitops_step *step, const uint64_t *x,
                     const float *k_map, void *y, void *workspace, bitops_stop *stop,
                     int n_threads) {
    bitops_conv_args args = step->conv;
    args.store.k_map = step->has_k_map ? k_map : NULL;
    args.image.x = x;
    args.store.c = y;
    args.stop = stop;
    bitops_conv(isa, &args, workspace, n_threads);
}

/* ---- the plan -------------------------------------------------------------------------------- */

static size_t workspace_size(const bitops_isa *isa, const bitops_step *step, int n_threads) {
    switch (step->kind) {
    case BITOPS_STEP_GEMM:
        return bitops_gemm_workspace_size(isa, &step->gemm, n_threads);
    case BITOPS_STEP_CONV:
        return bitops_conv_workspace_size(isa, &step->conv, n_threads);
    case BITOPS_STEP_MIXED: {
        const mixed_plan plan = make_mixed_plan(isa, step, n_threads);
        return plan.thread_bytes * (size_t)plan.outer;
    }
    case BITOPS_STEP_FLOATS:
        return gathered_bytes(step);
    case BITOPS_STEP_FILTERS:
        return bitops_float_conv_workspace_size(&step->float_conv, n_threads);
    case BITOPS_STEP_POOL:
        return bitops_max_windows_workspace_size(&step->image, step->pixel_bytes, n_threads);
    case BITOPS_STEP_K_MAP:
        return step->images * step->image.height * step->image.width * sizeof(float);
    default:
        return 0;
    }
}

size_t bitops_plan_memory_size(const bitops_plan *plan, int n_threads) {
    size_t most = 0;
    for (size_t i = 0; i < plan->count; i++)
        most = max_size(most, workspace_size(plan->isa, &plan->steps[i], n_threads));
    return round_up(plan->arena_bytes, LINE) + most;
}

/* Returns 1 if a number was NaN. */
static int run_step(const bitops_isa *isa, const bitops_step *step, const char *x,
                    const char *other, char *y, char *workspace, bitops_stop *stop, int n_threads) {
    switch (step->kind) {
    case BITOPS_STEP_GEMM:
        run_gemm(isa, step, (const uint64_t *)x, y, workspace, stop, n_threads);
        return 0;
    case BITOPS_STEP_CONV:
        run_conv(isa, step, (const uint64_t *)x, (const float *)other, y, workspace, stop,
                 n_threads);
        return 0;
    case BITOPS_STEP_MIXED:
        return run_mixed(isa, step, x, y, workspace, stop, n_threads);
    case BITOPS_STEP_FLOATS:
        run_floats(isa, step, x, (float *)y, (float *)workspace, stop, n_threads);
        return 0;
    case BITOPS_STEP_FILTERS:
        bitops_float_conv(isa, &step->float_conv, (const float *)x, (float *)y, workspace, stop,
                          n_threads);
        return 0;
    case BITOPS_STEP_COMPARE:
        return run_compare(isa, step, x, (uint64_t *)y, stop, n_threads);
    case BITOPS_STEP_AFFINE:
        run_affine(isa, step, x, (float *)y, n_threads);
        return 0;
    case BITOPS_STEP_ADD:
        run_add(step, (const float *)x, (const float *)other, (float *)y, n_threads);
        return 0;
    case BITOPS_STEP_UNPACK:
        bitops_unpack_rows(isa, BITOPS_F32, (const uint64_t *)x, step->rows, step->n, y, stop,
                           n_threads);
        return 0;
    case BITOPS_STEP_POOL:
        bitops_max_windows(isa, &step->image, step->dtype, step->pixel_bytes, x, step->images,
                           step->minimum, y, workspace, stop, n_threads);
        return 0;
    case BITOPS_STEP_FLATTEN:
        run_flatten(step, (const uint64_t *)x, (uint64_t *)y, stop, n_threads);
        return 0;
    case BITOPS_STEP_MEAN:
        run_mean(isa, step, (const float *)x, (float *)y, stop, n_threads);
        return 0;
    case BITOPS_STEP_CLIP:
        FOR_SHARES(step, n_threads, clip_rows(step, (const float *)x, (float *)y, begin, end));
        return 0;
    case BITOPS_STEP_PRELU:
        FOR_SHARES(step, n_threads,
                   prelu_rows(isa, step, (const float *)x, (float *)y, begin, end));
        return 0;
    case BITOPS_STEP_CONCAT:
        FOR_SHARES(
            step, n_threads,
            concat_rows(step, (const float *)x, (const float *)other, (float *)y, begin, end));
        return 0;
    case BITOPS_STEP_ROUND:
    case BITOPS_STEP_COUNT:
        return run_codes(step, x, (uint8_t *)y, n_threads);
    case BITOPS_STEP_SCALE:
        FOR_SHARES(step, n_threads, scale_rows(step, (const uint8_t *)x, (float *)y, begin, end));
        return 0;
    case BITOPS_STEP_TIMES:
        FOR_SHARES(
            step, n_threads,
            times_rows(step, (const float *)x, (const float *)other, (float *)y, begin, end));
        return 0;
    case BITOPS_STEP_PAD:
        FOR_SHARES(step, n_threads, pad_lines(step, x, y, begin, end));
        return 0;
    case BITOPS_STEP_SUM:
        run_sum(step, x, other, y, n_threads);
        return 0;
    case BITOPS_STEP_K_MAP:
        run_k_map(isa, step, (const float *)x, (float *)y, (float *)workspace, stop, n_threads);
        return 0;
    }
    return 0;
}

/* What lies at a place. */
static char *at(ptrdiff_t place, const void *x, void *y, char *arena) {
    if (place == BITOPS_PLAN_INPUT)
        return (char *)x; /* which no step names as its output */
    return place == BITOPS_PLAN_OUTPUT ? y : arena + place;
}

int bitops_plan_run(const bitops_plan *plan, const void *x, void *y, void *memory,
                    bitops_stop *stop, int n_threads) {
    char *arena = memory, *workspace = arena + round_up(plan->arena_bytes, LINE);
    for (size_t i = 0; i < plan->count && !stop->stopped; i++) {
        const bitops_step *step = &plan->steps[i];
        if (run_step(plan->isa, step, at(step->x, x, y, arena), at(step->other, x, y, arena),
                     at(step->y, x, y, arena), workspace, stop, n_threads))
            return 1;
    }
    return 0;
}
