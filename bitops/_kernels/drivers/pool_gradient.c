/* pool_gradient.c: what the images of a pool receive from the gradient dy of its outputs: that of a
 * maximum goes to one number of its window, that of a mean to all of them in equal shares.
 *
 *   places: for each line of outputs                        shared out to threads
 *     for each window, each SPAN channels of it
 *       for each tap that lies inside, from the last: where x is the maximum, the tap
 *   gradients: for each image, or line of windows side by side        shared out to threads
 *     for each window, from the last, each SPAN channels of it
 *       for each tap that lies inside: dx += dy; of maxima where the tap is the place
 *
 * Windows are taken from the last, so that a number of dx is the sum of what its taps receive in
 * row-major order, starting from 0. Where each number is in one window, dx is written instead.
 *
 * A place takes a byte, so that a training step keeps a sixteenth of what the images of 2 x 2
 * windows would take. Compilers vectorise the loops over channels, and the baseline instructions
 * keep up with the memory where windows lie side by side. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "drivers/taps.h"
#include "isa/shared/target.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    SPAN = 128, /* channels at a time: what is searched for stays in the first-level cache */
    THREAD_WORK = 1 << 15, /* numbers below which one thread is faster */
};

/* Not inlined, since GCC would forget then that these arrays do not overlap. */
BITOPS_NOINLINE void find_tap(const float *restrict x, const float *restrict y, size_t n,
                              uint32_t tap, uint32_t *restrict place) {
    for (size_t j = 0; j < n; j++) {
        const uint32_t hit = x[j] == y[j] ? 0xffffffff : 0;
        place[j] ^= (place[j] ^ tap) & hit;
    }
}

BITOPS_NOINLINE void narrow(const uint32_t *restrict place, size_t n,
                            uint8_t *restrict places_out) {
    for (size_t j = 0; j < n; j++)
        places_out[j] = (uint8_t)place[j];
}

/* Some channels of a window: the taps of it that lie inside, and its numbers, of which `x` is the
 * first inside. */
typedef struct window_span {
    tap_range down, across;
    const float *x, *y;
    size_t channels;
    uint8_t *places_out;
} window_span;

/* From the last tap to the first, so that the first maximum stays. */
static void find_places(const bitops_image *im, size_t row_step, size_t pixel_step,
                        const window_span *s) {
    uint32_t place[SPAN];
    for (size_t j = 0; j < s->channels; j++)
        place[j] = BITOPS_NO_PLACE;
    for (size_t ky = s->down.end; ky-- > s->down.begin;)
        for (size_t kx = s->across.end; kx-- > s->across.begin;) {
            const size_t below = (ky - s->down.begin) * row_step;
            const size_t beside = (kx - s->across.begin) * pixel_step;
            find_tap(s->x + below + beside, s->y, s->channels,
                     (uint32_t)(ky * im->kernel_width + kx), place);
        }
    narrow(place, s->channels, s->places_out);
}

void bitops_max_places(const bitops_image *windows, const float *x, const float *y, size_t images,
                       size_t channels, uint8_t *places_out, bitops_stop *stop, int n_threads) {
    const bitops_image *im = windows;
    const taps_axis vertical = vertical_taps(im), horizontal = horizontal_taps(im);
    const size_t lines = images * im->out_height, line_size = im->out_width * channels;
    const double work = (double)lines * (double)line_size;
    BITOPS_PARALLEL_FOR(bitops_share(work, THREAD_WORK, n_threads), schedule(static))
    for (ptrdiff_t line = 0; line < (ptrdiff_t)lines; line++) {
        if (bitops_stopped(stop))
            continue;
        const size_t image = (size_t)line / im->out_height, row = (size_t)line % im->out_height;
        window_span s = {.down = taps_inside(&vertical, row)};
        const size_t top = row * im->stride_y + s.down.begin * im->dilation_y - im->pad_top;
        for (size_t column = 0; column < im->out_width; column++) {
            s.across = taps_inside(&horizontal, column);
            const size_t left =
                column * im->stride_x + s.across.begin * im->dilation_x - im->pad_left;
            const float *pixel = x + ((image * im->height + top) * im->width + left) * channels;
            for (size_t channel = 0; channel < channels; channel += SPAN) {
                const size_t out = (size_t)line * line_size + column * channels + channel;
                s.channels = min_size(SPAN, channels - channel);
                s.x = pixel + channel, s.y = y + out, s.places_out = places_out + out;
                find_places(im, im->dilation_y * im->width * channels, im->dilation_x * channels,
                            &s);
            }
        }
    }
}

BITOPS_NOINLINE void widen(const uint8_t *restrict places, size_t n, uint32_t *restrict place) {
    for (size_t j = 0; j < n; j++)
        place[j] = places[j];
}

/* dx = g where the tap is the place, else 0; with `adds` that is added. dx is never -0. */
BITOPS_INLINE void give_places(const uint32_t *restrict place, const float *restrict dy, size_t n,
                               uint32_t tap, const int adds, float *restrict dx) {
    for (size_t j = 0; j < n; j++) {
        uint32_t bits;
        float g;
        memcpy(&bits, dy + j, sizeof bits);
        bits &= place[j] == tap ? 0xffffffff : 0;
        memcpy(&g, &bits, sizeof g);
        dx[j] = (adds ? dx[j] : 0.0f) + g;
    }
}

BITOPS_NOINLINE void add_places(const uint32_t *restrict place, const float *restrict dy, size_t n,
                                uint32_t tap, float *restrict dx) {
    give_places(place, dy, n, tap, 1, dx);
}

BITOPS_NOINLINE void take_places(const uint32_t *restrict place, const float *restrict dy, size_t n,
                                 uint32_t tap, float *restrict dx) {
    give_places(place, dy, n, tap, 0, dx);
}

BITOPS_NOINLINE void divide(const float *restrict dy, size_t n, float divisor,
                            float *restrict share) {
    for (size_t j = 0; j < n; j++)
        share[j] = dy[j] / divisor;
}

BITOPS_NOINLINE void add_shares(const float *restrict share, size_t n, float *restrict dx) {
    for (size_t j = 0; j < n; j++)
        dx[j] += share[j];
}

BITOPS_NOINLINE void take_shares(const float *restrict share, size_t n, float *restrict dx) {
    for (size_t j = 0; j < n; j++)
        dx[j] = 0.0f + share[j];
}

/* The gradient of a pool. */
typedef struct gradient {
    const bitops_image *im;
    size_t channels;
    taps_axis vertical, horizontal;
    int are_tiles;
    const uint8_t *places; /* NULL for means */
    const float *dy;
    float *dx_out;
} gradient;

/* Whether each number of the images is in one window. */
static int are_tiles(const bitops_image *im) {
    const int is_plain = im->pad_top + im->pad_left == 0 && im->dilation_y * im->dilation_x == 1;
    return is_plain && im->kernel_height == im->stride_y && im->kernel_width == im->stride_x &&
           im->out_height * im->stride_y == im->height && im->out_width * im->stride_x == im->width;
}

/* Gives dx, the number of some channels of the image at its first pixel, what it receives from the
 * gradients of window (line, column), which start at `out`. */
static void give_window(const gradient *g, size_t line, size_t column, size_t out, size_t channels,
                        float *dx) {
    const bitops_image *im = g->im;
    const tap_range down = taps_inside(&g->vertical, line);
    const tap_range across = taps_inside(&g->horizontal, column);
    uint32_t place[SPAN];
    float share[SPAN];
    if (g->places)
        widen(g->places + out, channels, place);
    else
        divide(g->dy + out, channels, (float)(im->kernel_height * im->kernel_width), share);
    for (size_t ky = down.begin; ky < down.end; ky++)
        for (size_t kx = across.begin; kx < across.end; kx++) {
            const size_t y = line * im->stride_y + ky * im->dilation_y - im->pad_top;
            const size_t x = column * im->stride_x + kx * im->dilation_x - im->pad_left;
            const uint32_t tap = (uint32_t)(ky * im->kernel_width + kx);
            float *pixel = dx + (y * im->width + x) * g->channels;
            if (g->places && g->are_tiles)
                take_places(place, g->dy + out, channels, tap, pixel);
            else if (g->places)
                add_places(place, g->dy + out, channels, tap, pixel);
            else if (g->are_tiles)
                take_shares(share, channels, pixel);
            else
                add_shares(share, channels, pixel);
        }
}

/* Gives images what they receive from line `row` of the windows, counted over all of them. */
static void give_line(const gradient *g, size_t row) {
    const bitops_image *im = g->im;
    const size_t image = row / im->out_height, line = row % im->out_height;
    float *dx = g->dx_out + image * im->height * im->width * g->channels;
    for (size_t column = im->out_width; column-- > 0;) {
        const size_t out = (row * im->out_width + column) * g->channels;
        for (size_t channel = 0; channel < g->channels; channel += SPAN)
            give_window(g, line, column, out + channel, min_size(SPAN, g->channels - channel),
                        dx + channel);
    }
}

static void give_image(const gradient *g, size_t image, bitops_stop *stop) {
    const bitops_image *im = g->im;
    const size_t line_size = im->width * g->channels;
    float *dx = g->dx_out + image * im->height * line_size;
    size_t begun = im->height; /* the first line that holds what it received so far */
    for (size_t line = im->out_height; line-- > 0 && !bitops_stopped(stop);) {
        const size_t top = line * im->stride_y;
        const size_t first = top > im->pad_top ? top - im->pad_top : 0;
        if (first < begun) {
            memset(dx + first * line_size, 0, (begun - first) * line_size * sizeof *dx);
            begun = first;
        }
        give_line(g, image * im->out_height + line);
    }
}

static void give_images(const bitops_image *im, const uint8_t *places, const float *dy,
                        size_t images, size_t channels, float *dx_out, bitops_stop *stop,
                        int n_threads) {
    const gradient g = {.im = im,
                        .channels = channels,
                        .vertical = vertical_taps(im),
                        .horizontal = horizontal_taps(im),
                        .are_tiles = are_tiles(im),
                        .places = places,
                        .dy = dy,
                        .dx_out = dx_out};
    const size_t tasks = g.are_tiles ? images * im->out_height : images;
    const double work = (double)images * (double)(im->height * im->width * channels);
    const int most = (int)min_size(tasks, (size_t)n_threads);
    BITOPS_PARALLEL_FOR(bitops_share(work, THREAD_WORK, most), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)tasks; task++) {
        if (bitops_stopped(stop))
            continue;
        if (g.are_tiles)
            give_line(&g, (size_t)task);
        else
            give_image(&g, (size_t)task, stop);
    }
}

void bitops_max_gradient(const bitops_image *windows, const uint8_t *places, const float *dy,
                         size_t images, size_t channels, float *dx_out, bitops_stop *stop,
                         int n_threads) {
    give_images(windows, places, dy, images, channels, dx_out, stop, n_threads);
}

void bitops_mean_gradient(const bitops_image *windows, const float *dy, size_t images,
                          size_t channels, float *dx_out, bitops_stop *stop, int n_threads) {
    give_images(windows, NULL, dy, images, channels, dx_out, stop, n_threads);
}
