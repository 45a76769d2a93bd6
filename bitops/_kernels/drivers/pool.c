/* pool.c: means of windows and of columns of float32 numbers.
 *
 * The order of the additions is part of the result: the taps of a window that lie inside, row by
 * row, starting from 0. Kernels sum some channels over all taps of a window. Images of few
 * channels, with windows one position apart, are summed a line of outputs at a time instead, tap by
 * tap, in loops that compilers vectorise. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "drivers/taps.h"
#include "runtime/parallel.h"

enum {
    FEW_CHANNELS = 15,     /* at most so many are few */
    SPAN = 512,            /* columns that are summed at a time */
    THREAD_WORK = 1 << 16, /* additions below which one thread is faster */
};

/* A line of outputs. */
typedef struct pool_line {
    const bitops_isa *isa;
    const bitops_image *im;
    const float *image;
    size_t channels, y;
    tap_range inside; /* vertically */
    float *mean_out;
} pool_line;

static float count_taps(const bitops_image *im) {
    return (float)(im->kernel_height * im->kernel_width);
}

static const float *line_of_tap(const pool_line *l, size_t ky) {
    const size_t y = l->y * l->im->stride_y + ky * l->im->dilation_y - l->im->pad_top;
    return l->image + y * l->im->width * l->channels;
}

/* Outputs from x on that see the same taps as output x, which sees `inside`. */
static size_t count_alike(const taps_axis *across, size_t x, tap_range inside) {
    if (inside.end - inside.begin < across->taps)
        return 1;
    const size_t room = across->size + across->pad - (across->taps - 1) * across->dilation;
    return min_size(ceil_div(room, across->stride), across->outputs) - x;
}

static void mean_windows(const pool_line *l) {
    const bitops_image *im = l->im;
    const taps_axis across = horizontal_taps(im);
    const size_t taps = im->kernel_height * im->kernel_width;
    bitops_windows w = {.rows = l->inside.end - l->inside.begin,
                        .row_step = im->dilation_y * im->width * l->channels,
                        .column_step = im->dilation_x * l->channels,
                        .output_step = im->stride_x * l->channels,
                        .channels = l->channels,
                        .divisor = count_taps(im)};
    if ((taps & (taps - 1)) == 0)
        w.factor = 1 / w.divisor;
    for (size_t x = 0; x < im->out_width; x += w.outputs) {
        const tap_range inside = taps_inside(&across, x);
        w.columns = inside.end - inside.begin;
        w.outputs = count_alike(&across, x, inside);
        w.x = l->image;
        if (w.rows && w.columns)
            w.x = line_of_tap(l, l->inside.begin) +
                  (x * im->stride_x + inside.begin * im->dilation_x - im->pad_left) * l->channels;
        l->isa->mean_windows(&w, l->mean_out + x * l->channels);
    }
}

/* The same for windows one position apart. */
static void mean_runs(const pool_line *l) {
    const bitops_image *im = l->im;
    const size_t c = l->channels, n = im->out_width * c, end = im->width + im->pad_left;
    /* Of a kernel that is far larger than the image, few taps see it. */
    const size_t before = im->pad_left < im->out_width ? 0 : im->pad_left - (im->out_width - 1);
    const size_t first = ceil_div(before, im->dilation_x);
    const size_t last = min_size(ceil_div(end, im->dilation_x), im->kernel_width);
    for (size_t i = 0; i < n; i++)
        l->mean_out[i] = 0;
    for (size_t ky = l->inside.begin; ky < l->inside.end; ky++)
        for (size_t kx = first; kx < last; kx++) {
            /* Outputs [a, b) see the image at this tap. */
            const size_t shift = kx * im->dilation_x;
            const size_t a = shift < im->pad_left ? im->pad_left - shift : 0;
            const size_t b = min_size(shift < end ? end - shift : 0, im->out_width);
            if (a >= b)
                continue;
            const float *x = line_of_tap(l, ky) + (a + shift - im->pad_left) * c;
            float *sum = l->mean_out + a * c;
            for (size_t i = 0; i < (b - a) * c; i++)
                sum[i] += x[i];
        }
    for (size_t i = 0; i < n; i++)
        l->mean_out[i] /= count_taps(im);
}

void bitops_mean_windows(const bitops_isa *isa, const bitops_image *windows, const float *x,
                         size_t images, size_t channels, float *mean_out, bitops_stop *stop,
                         int n_threads) {
    const bitops_image *im = windows;
    const taps_axis vertical = vertical_taps(im);
    const size_t lines = images * im->out_height, taps = im->kernel_height * im->kernel_width;
    const int runs = im->stride_x == 1 && channels <= FEW_CHANNELS;
    const size_t work = lines * im->out_width * channels * taps;
    BITOPS_PARALLEL_FOR(bitops_share((double)work, THREAD_WORK, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)lines; task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t number = (size_t)task / im->out_height, y = (size_t)task % im->out_height;
        const pool_line l = {.isa = isa,
                             .im = im,
                             .image = x + number * im->height * im->width * channels,
                             .channels = channels,
                             .y = y,
                             .inside = taps_inside(&vertical, y),
                             .mean_out = mean_out + (size_t)task * im->out_width * channels};
        if (runs)
            mean_runs(&l);
        else
            mean_windows(&l);
    }
}

void bitops_mean_columns(const bitops_isa *isa, const float *x, size_t outer, size_t rows, size_t n,
                         float *mean_out, bitops_stop *stop, int n_threads) {
    const size_t spans = ceil_div(n, SPAN);
    BITOPS_PARALLEL_FOR(bitops_share((double)(outer * rows) * (double)n, THREAD_WORK, n_threads),
                        schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(outer * spans); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t i = (size_t)task / spans, first = (size_t)task % spans * SPAN;
        const size_t columns = min_size(n - first, SPAN);
        double sums[SPAN];
        isa->sum_columns(x + i * rows * n + first, n, rows, columns, sums);
        for (size_t j = 0; j < columns; j++)
            mean_out[i * n + first + j] = (float)(sums[j] / (double)rows);
    }
}
