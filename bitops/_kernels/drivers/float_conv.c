/* float_conv.c: convolutions of float32 images with float32 filters.
 *
 * What an output sees lies in few runs of the image: the taps of a line of the kernel side by side,
 * or single taps where these are apart. So no rows of patches are made. Where windows leave the
 * image, the lines that a task needs are copied with zeros around them.
 *
 *   for each block of lines of outputs                   shared out to threads
 *     copy the lines that they see                       with padding only
 *     for each panel of columns                          in the first- or second-level cache
 *       for each line of the block: conv_f32
 *     scales, bias, ReLU
 *
 * A kernel of one pixel without a stride sees the pixels of all images as one line, which is cut
 * into lines of a size of its own. */
#include "drivers/float_conv.h"

#include "drivers/sizes.h"
#include "drivers/taps.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    LINE = 64,                /* bytes */
    COPIED_BYTES = 256 << 10, /* of a block, so that it stays in the second-level cache */
    OUTPUT_BYTES = 512 << 10,
    FLAT_OUTPUTS = 448,    /* of a line where pixels lie in one */
    TASKS_A_THREAD = 4,    /* so that no thread waits long for the last one */
    THREAD_WORK = 1 << 20, /* products below which one thread is faster */
};

size_t bitops_float_panels_size(size_t n, size_t k) {
    return ceil_div(n, BITOPS_FLOAT_COLUMNS) * k * BITOPS_FLOAT_COLUMNS;
}

/* Numbers below the normal ones, for which cores take a hundred times as long, count as 0. */
static float normal_or_0(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & UINT32_C(0xff) << 23 ? x : 0; /* the exponent */
}

/* A line of a row of w at a time, so that what it is turned to stays in the cache. */
void bitops_float_panels(const float *w, size_t n, size_t k, float *panels_out) {
    enum { PART = LINE / sizeof(float) };
    if (n % BITOPS_FLOAT_COLUMNS)
        memset(panels_out + n / BITOPS_FLOAT_COLUMNS * k * BITOPS_FLOAT_COLUMNS, 0,
               k * BITOPS_FLOAT_COLUMNS * sizeof *panels_out);
    for (size_t j = 0; j < n; j += BITOPS_FLOAT_COLUMNS)
        for (size_t i = 0; i < k; i += PART) {
            const size_t columns = min_size(BITOPS_FLOAT_COLUMNS, n - j);
            const size_t part = min_size(PART, k - i);
            float *out = panels_out + j * k + i * BITOPS_FLOAT_COLUMNS;
            for (size_t column = 0; column < columns; column++)
                for (size_t t = 0; t < part; t++)
                    out[t * BITOPS_FLOAT_COLUMNS + column] =
                        normal_or_0(w[(j + column) * k + i + t]);
        }
}

/* ---- the plan ------------------------------------------------------------------------------ */

/* Sizes are in numbers, unless said otherwise. */
typedef struct conv_plan {
    const bitops_float_conv_args *args;
    int is_flat;                   /* all pixels are one line */
    size_t images, lines, outputs; /* lines of an image, outputs of a line */
    size_t all_outputs;            /* of all images */
    size_t k;
    size_t stride_y, stride_x; /* of outputs, in lines and in numbers */
    int is_copied;             /* some windows leave the image */
    size_t line;               /* from a line that outputs see to the next one */
    size_t block, blocks;      /* lines of a block, blocks of an image */
    size_t copied;             /* of a block */
    int threads;
} conv_plan;

/* How far the windows of so many outputs reach. */
static size_t reach(const taps_axis *a, size_t outputs) {
    return (outputs - 1) * a->stride + (a->taps - 1) * a->dilation + 1;
}

static void set_blocks(conv_plan *p) {
    const taps_axis down = vertical_taps(&p->args->image);
    const size_t line_bytes = p->outputs * p->args->n * sizeof(float);
    const size_t copied_bytes = p->is_copied ? p->stride_y * p->line * sizeof(float) : 1;
    p->block = min_size(OUTPUT_BYTES / line_bytes, COPIED_BYTES / copied_bytes);
    if (p->threads > 1)
        p->block =
            min_size(p->block, ceil_div(p->images * p->lines, (size_t)p->threads * TASKS_A_THREAD));
    p->block = min_size(max_size(p->block, 1), p->lines);
    p->blocks = ceil_div(p->lines, p->block);
    if (p->is_copied)
        p->copied = reach(&down, p->block) * p->line;
}

static conv_plan make_plan(const bitops_float_conv_args *args, int n_threads) {
    const bitops_image *im = &args->image;
    const taps_axis down = vertical_taps(im), across = horizontal_taps(im);
    conv_plan p = {.args = args,
                   .images = args->images,
                   .lines = im->out_height,
                   .outputs = im->out_width,
                   .k = im->kernel_height * im->kernel_width * im->channels,
                   .stride_y = im->stride_y,
                   .stride_x = im->stride_x * im->channels,
                   .line = im->width * im->channels};
    p.all_outputs = p.images * p.lines * p.outputs;
    p.is_copied = im->pad_top || im->pad_left || reach(&down, p.lines) > im->height ||
                  reach(&across, p.outputs) > im->width;
    if (p.is_copied)
        p.line = reach(&across, p.outputs) * im->channels;
    p.is_flat = !p.is_copied && p.k == im->channels && im->stride_y == 1 && im->stride_x == 1 &&
                p.lines == im->height && p.outputs == im->width;
    if (p.is_flat) {
        p.images = 1;
        p.outputs = min_size(p.all_outputs, FLAT_OUTPUTS);
        p.lines = ceil_div(p.all_outputs, p.outputs);
        p.line = p.outputs * im->channels;
    }
    p.threads =
        bitops_share((double)p.all_outputs * (double)p.k * (double)args->n, THREAD_WORK, n_threads);
    set_blocks(&p);
    return p;
}

static size_t thread_bytes(const conv_plan *p) {
    return round_up(p->copied * sizeof(float), LINE);
}

size_t bitops_float_conv_workspace_size(const bitops_float_conv_args *args, int n_threads) {
    /* Of one thread, blocks are larger; so they are where a team is not worth its start. */
    const conv_plan alone = make_plan(args, 1), team = make_plan(args, n_threads);
    return max_size(thread_bytes(&alone), thread_bytes(&team) * (size_t)n_threads);
}

/* ---- a block ------------------------------------------------------------------------------- */

/* Copies `count` lines, from line `first` of the padded image on, with zeros where they leave it.
 */
static void copy_lines(const conv_plan *p, const float *image, size_t first, size_t count,
                       float *lines_out) {
    const bitops_image *im = &p->args->image;
    const size_t width = im->width * im->channels,
                 left = min_size(im->pad_left * im->channels, p->line);
    const size_t inside = min_size(width, p->line - left);
    for (size_t i = 0; i < count; i++, lines_out += p->line) {
        const size_t y = first + i;
        if (y < im->pad_top || y - im->pad_top >= im->height) {
            memset(lines_out, 0, p->line * sizeof(float));
            continue;
        }
        memset(lines_out, 0, left * sizeof(float));
        memcpy(lines_out + left, image + (y - im->pad_top) * width, inside * sizeof(float));
        memset(lines_out + left + inside, 0, (p->line - left - inside) * sizeof(float));
    }
}

/* What the first output of a line sees, `x` on. */
static bitops_runs runs_at(const conv_plan *p, const float *x) {
    const bitops_image *im = &p->args->image;
    const int together = im->dilation_x == 1;
    const bitops_runs runs = {.x = x,
                              .rows = im->kernel_height,
                              .row_step = im->dilation_y * p->line,
                              .columns = together ? 1 : im->kernel_width,
                              .column_step = im->dilation_x * im->channels,
                              .count = (together ? im->kernel_width : 1) * im->channels,
                              .step = p->stride_x};
    return runs;
}

static void run_block(const bitops_isa *isa, const conv_plan *p, const float *x, float *y,
                      size_t task, float *scratch, bitops_stop *stop) {
    const bitops_float_conv_args *args = p->args;
    const bitops_image *im = &args->image;
    const size_t number = task / p->blocks, first = task % p->blocks * p->block;
    const size_t lines = min_size(p->block, p->lines - first);
    const size_t done = (number * p->lines + first) * p->outputs; /* outputs before the block */
    const size_t outputs = min_size(lines * p->outputs, p->all_outputs - done);
    const taps_axis down = vertical_taps(im);
    const float *seen = x + number * im->height * im->width * im->channels;
    if (p->is_copied) {
        copy_lines(p, seen, first * p->stride_y, reach(&down, lines), scratch);
        seen = scratch;
    } else {
        seen += first * p->stride_y * p->line;
    }
    y += done * args->n;
    for (size_t j = 0; j < args->n && !bitops_stopped(stop); j += BITOPS_FLOAT_COLUMNS)
        for (size_t i = 0; i < lines; i++) {
            const bitops_runs runs = runs_at(p, seen + i * p->stride_y * p->line);
            isa->conv_f32(&runs, min_size(p->outputs, outputs - i * p->outputs),
                          args->panels + j * p->k, min_size(BITOPS_FLOAT_COLUMNS, args->n - j),
                          y + i * p->outputs * args->n + j, args->n);
        }
    if (args->alpha || args->bias || args->relu)
        isa->affine_f32(y, outputs, args->n, args->alpha, args->bias, args->relu, y);
}

void bitops_float_conv(const bitops_isa *isa, const bitops_float_conv_args *args, const float *x,
                       float *y, void *workspace, bitops_stop *stop, int n_threads) {
    const conv_plan p = make_plan(args, n_threads);
    const size_t each = thread_bytes(&p) / sizeof(float);
    BITOPS_FOR_TASKS(p.threads, p.images * p.blocks,
                     run_block(isa, &p, x, y, (size_t)task,
                               (float *)workspace + (size_t)bitops_thread_number() * each, stop));
}
