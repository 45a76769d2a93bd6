/* images.c: products whose rows are added to the pixels of images, for the gradients of images that
 * were convolved with +-1 filters. The patches themselves, kernel_height * kernel_width times as
 * large as the images, are never in memory.
 *
 *   for each few images                                 shared out to threads
 *     for each group of columns, from the first
 *       for each 32 or 64 positions, from the last
 *         sum their products, with positions in lanes (lanes.c)
 *         for each chunk of columns, each tap in it, from the first
 *           add the outputs of every position to the pixel that it sees at this tap
 *
 * A later tap sees a pixel from an earlier position, so each number of a pixel is the sum, starting
 * from 0, over the taps that see it, from the first to the last. */
#include "bitops.h"
#include "drivers/lane_sums.h"
#include "drivers/mixed.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    TASK_POSITIONS = 128, /* at least so many in a task, if there are several images */
};

/* The pixel that each position of a part sees at tap (0, 0): its place, which may be outside. */
typedef struct corners {
    ptrdiff_t image[BITOPS_LANES_U8], y[BITOPS_LANES_U8], x[BITOPS_LANES_U8];
} corners;

static void find_corners(const bitops_image *im, const lane_part *p, corners *c) {
    const size_t positions = im->out_height * im->out_width;
    for (size_t r = 0; r < p->m; r++) {
        const size_t position = (p->i + r) % positions;
        c->image[r] = (ptrdiff_t)((p->i + r) / positions);
        c->y[r] = (ptrdiff_t)(position / im->out_width * im->stride_y) - (ptrdiff_t)im->pad_top;
        c->x[r] = (ptrdiff_t)(position % im->out_width * im->stride_x) - (ptrdiff_t)im->pad_left;
    }
}

/* Adds n channels, from `channel` on, of one tap; rows are LANE_OUTPUTS apart. */
static void add_tap(const bitops_isa *isa, const bitops_image *im, size_t channels,
                    const corners *c, size_t m, size_t tap, size_t channel, size_t n,
                    const float *rows, float *images) {
    const ptrdiff_t dy = (ptrdiff_t)(tap / im->kernel_width * im->dilation_y);
    const ptrdiff_t dx = (ptrdiff_t)(tap % im->kernel_width * im->dilation_x);
    const ptrdiff_t height = (ptrdiff_t)im->height, width = (ptrdiff_t)im->width;
    for (size_t r = 0; r < m; r++) {
        const ptrdiff_t y = c->y[r] + dy, x = c->x[r] + dx;
        if (y < 0 || y >= height || x < 0 || x >= width)
            continue;
        const size_t pixel = (size_t)((c->image[r] * height + y) * width + x);
        float *numbers = images + pixel * channels + channel;
        isa->affine_f32(numbers, 1, n, NULL, rows + r * LANE_OUTPUTS, 0, numbers); /* adds them */
    }
}

/* Adds columns [col, col + n) of a part. */
static void add_outputs(const bitops_isa *isa, const bitops_mixed_args *args,
                        const bitops_image *im, const lane_part *p, const corners *c, size_t col,
                        size_t n, const lane_scratch *s) {
    const size_t channels = args->n / (im->kernel_height * im->kernel_width);
    const float *rows = bitops_lane_outputs(isa, args, p, col, n, s);
    for (size_t begin = 0, count; begin < n; begin += count) {
        const size_t first = p->j + col + begin, channel = first % channels;
        count = min_size(channels - channel, n - begin); /* of this tap's channels */
        add_tap(isa, im, channels, c, p->m, first / channels, channel, count, rows + begin,
                args->c);
    }
}

/* Images [first, first + count). */
static void run_images(const bitops_isa *isa, const bitops_mixed_args *args, const bitops_image *im,
                       size_t first, size_t count, const lane_scratch *s) {
    const size_t positions = im->out_height * im->out_width;
    const size_t channels = args->n / (im->kernel_height * im->kernel_width);
    const size_t numbers = im->height * im->width * channels, lanes = lanes_of(args);
    memset((float *)args->c + first * numbers, 0, count * numbers * sizeof(float));
    for (size_t group = 0; group < ceil_div(args->n, LANE_COLUMNS); group++) {
        lane_part p = {.j = group * LANE_COLUMNS};
        p.n = min_size(args->n - p.j, LANE_COLUMNS);
        for (size_t part = ceil_div(count * positions, lanes); part-- > 0;) {
            if (bitops_stopped(args->stop))
                return;
            corners c;
            p.i = first * positions + part * lanes;
            p.m = min_size(count * positions - part * lanes, lanes);
            find_corners(im, &p, &c);
            bitops_lane_sums(isa, args, &p, s);
            p.has_words = bitops_lanes_keep_words(args);
            for (size_t col = 0; col < p.n; col += LANE_OUTPUTS)
                add_outputs(isa, args, im, &p, &c, col, min_size(LANE_OUTPUTS, p.n - col), s);
        }
    }
}

size_t bitops_mixed_to_images_workspace_size(const bitops_mixed_args *args, int n_threads) {
    return bitops_surplus_size(args) + bitops_lanes_workspace_size(args, n_threads);
}

void bitops_mixed_to_images(const bitops_isa *isa, const bitops_mixed_args *args,
                            const bitops_image *windows, void *workspace, int n_threads) {
    bitops_mixed_args own = *args;
    if (args->zero)
        bitops_find_surplus(isa, args, workspace, &own);
    workspace = (char *)workspace + bitops_surplus_size(args);
    const size_t positions = windows->out_height * windows->out_width;
    const size_t images = args->m / positions, step = ceil_div(TASK_POSITIONS, positions);
    BITOPS_PARALLEL_FOR(bitops_mixed_threads(args, n_threads), schedule(dynamic))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(images, step); task++) {
        const lane_scratch s = bitops_lane_scratch(&own, workspace, (size_t)bitops_thread_number());
        const size_t first = (size_t)task * step;
        run_images(isa, &own, windows, first, min_size(step, images - first), &s);
    }
}
