/* max_gradient.c: the gradient of the largest number of each window, for windows that lie inside
 * and do not overlap.
 *
 *   for each line of outputs                                shared out to threads
 *     for each window, each SPAN channels of it
 *       for each tap, from the first: where x is the maximum for the first time, dx = dy, else 0
 *
 * Every number is read and written once. Compilers vectorise the loop over channels, and the
 * baseline instructions keep up with the memory. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    SPAN = 128, /* channels at a time: what is searched for stays in the first-level cache */
    THREAD_WORK = 1 << 15, /* numbers below which one thread is faster */
};

/* A window, from one of its channels on. Steps are in numbers. */
typedef struct window {
    const float *x, *y, *dy;
    float *dx;
    size_t row_step, pixel_step;
} window;

static void take_tap(const float *restrict x, const float *restrict y, const float *restrict dy,
                     size_t n, float *restrict dx, uint32_t *restrict searching) {
    for (size_t j = 0; j < n; j++) {
        const uint32_t hit = (x[j] == y[j] ? 0xffffffff : 0) & searching[j];
        const float g = 0.0f + dy[j]; /* never -0 */
        uint32_t bits;
        memcpy(&bits, &g, sizeof bits);
        bits &= hit;
        memcpy(dx + j, &bits, sizeof bits);
        searching[j] ^= hit;
    }
}

static void take_window(const bitops_image *im, const window *w, size_t n) {
    uint32_t searching[SPAN];
    memset(searching, 0xff, n * sizeof *searching);
    for (size_t ky = 0; ky < im->kernel_height; ky++)
        for (size_t kx = 0; kx < im->kernel_width; kx++) {
            const size_t at = ky * w->row_step + kx * w->pixel_step;
            take_tap(w->x + at, w->y, w->dy, n, w->dx + at, searching);
        }
}

/* Line `row` of the outputs, counted over all images, and the lines of dx down to its next. */
static void take_line(const bitops_image *im, const float *x, const float *y, const float *dy,
                      size_t channels, size_t row, float *dx) {
    const size_t image = row / im->out_height, line = row % im->out_height;
    const size_t first = line * im->stride_y, row_step = im->width * channels;
    const size_t end = line + 1 == im->out_height ? im->height : first + im->stride_y;
    const size_t start = (image * im->height + first) * row_step;
    if (end - first > im->kernel_height || im->out_width * im->kernel_width < im->width)
        memset(dx + start, 0, (end - first) * row_step * sizeof *dx); /* some are in no window */
    for (size_t column = 0; column < im->out_width; column++)
        for (size_t channel = 0; channel < channels; channel += SPAN) {
            const size_t in = start + column * im->stride_x * channels + channel;
            const size_t out = (row * im->out_width + column) * channels + channel;
            const window w = {x + in, y + out, dy + out, dx + in, row_step, channels};
            take_window(im, &w, min_size(SPAN, channels - channel));
        }
}

void bitops_max_gradient(const bitops_image *windows, const float *x, const float *y,
                         const float *dy, size_t images, size_t channels, float *dx_out,
                         bitops_stop *stop, int n_threads) {
    const size_t lines = images * windows->out_height;
    const double work = (double)images * (double)(windows->height * windows->width * channels);
    BITOPS_PARALLEL_FOR(bitops_share(work, THREAD_WORK, n_threads), schedule(static))
    for (ptrdiff_t row = 0; row < (ptrdiff_t)lines; row++)
        if (!bitops_stopped(stop))
            take_line(windows, x, y, dy, channels, (size_t)row, dx_out);
}
