/* max_gradient.c: the places of the largest number of each window, and the gradient by them, for
 * windows that lie inside and do not overlap.
 *
 *   for each line of outputs                                shared out to threads
 *     for each window, each SPAN channels of it
 *       places: for each tap, from the last: where x is the maximum, the tap
 *       gradient: for each tap: dx = dy where the tap is the place, else 0
 *
 * A place takes a byte, so that a training step keeps a sixteenth of what the images of 2 x 2
 * windows would take. Every number is read and written once. Compilers vectorise the loops over
 * channels, and the baseline instructions keep up with the memory. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "isa/shared/target.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    SPAN = 128, /* channels at a time: what is searched for stays in the first-level cache */
    THREAD_WORK = 1 << 15, /* numbers below which one thread is faster */
};

/* Some channels of a window: its first number, counted in the images, and its output. */
typedef struct span {
    size_t in, out, channels;
    size_t row_step, pixel_step; /* numbers from a tap to the next one, down and to the right */
} span;

/* What a pass does to some channels of a window. */
typedef struct pass {
    const float *x, *y;  /* of places */
    uint8_t *places_out; /* of places */
    const uint8_t *places;
    const float *dy;
    float *dx_out; /* NULL of places */
} pass;

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

/* From the last tap to the first, so that the first maximum stays. */
static void find_places(const bitops_image *im, const pass *pass, const span *s) {
    uint32_t place[SPAN];
    for (size_t j = 0; j < s->channels; j++)
        place[j] = BITOPS_NO_PLACE;
    for (size_t tap = im->kernel_height * im->kernel_width; tap-- > 0;) {
        const size_t ky = tap / im->kernel_width, kx = tap % im->kernel_width;
        find_tap(pass->x + s->in + ky * s->row_step + kx * s->pixel_step, pass->y + s->out,
                 s->channels, (uint32_t)tap, place);
    }
    narrow(place, s->channels, pass->places_out + s->out);
}

static void take_tap(const uint32_t *restrict place, const float *restrict dy, size_t n,
                     uint32_t tap, float *restrict dx_out) {
    for (size_t j = 0; j < n; j++) {
        const float g = 0.0f + dy[j]; /* never -0 */
        uint32_t bits;
        memcpy(&bits, &g, sizeof bits);
        bits &= place[j] == tap ? 0xffffffff : 0;
        memcpy(dx_out + j, &bits, sizeof bits);
    }
}

static void take_places(const bitops_image *im, const pass *pass, const span *s) {
    uint32_t place[SPAN], tap = 0;
    for (size_t j = 0; j < s->channels; j++)
        place[j] = pass->places[s->out + j];
    for (size_t ky = 0; ky < im->kernel_height; ky++)
        for (size_t kx = 0; kx < im->kernel_width; kx++, tap++)
            take_tap(place, pass->dy + s->out, s->channels, tap,
                     pass->dx_out + s->in + ky * s->row_step + kx * s->pixel_step);
}

/* Line `row` of the outputs, counted over all images, and the lines of x down to its next. */
static void take_line(const bitops_image *im, const pass *pass, size_t channels, size_t row) {
    const size_t image = row / im->out_height, line = row % im->out_height;
    const size_t first = line * im->stride_y, row_step = im->width * channels;
    const size_t end = line + 1 == im->out_height ? im->height : first + im->stride_y;
    const size_t start = (image * im->height + first) * row_step;
    const int is_sparse =
        end - first > im->kernel_height || im->out_width * im->kernel_width < im->width;
    if (pass->dx_out && is_sparse) /* some pixels are in no window */
        memset(pass->dx_out + start, 0, (end - first) * row_step * sizeof *pass->dx_out);
    for (size_t column = 0; column < im->out_width; column++)
        for (size_t channel = 0; channel < channels; channel += SPAN) {
            const span s = {.in = start + column * im->stride_x * channels + channel,
                            .out = (row * im->out_width + column) * channels + channel,
                            .channels = min_size(SPAN, channels - channel),
                            .row_step = row_step,
                            .pixel_step = channels};
            if (pass->dx_out)
                take_places(im, pass, &s);
            else
                find_places(im, pass, &s);
        }
}

static void take_lines(const bitops_image *im, const pass *pass, size_t images, size_t channels,
                       bitops_stop *stop, int n_threads) {
    const size_t lines = images * im->out_height;
    const double work = (double)images * (double)(im->height * im->width * channels);
    BITOPS_PARALLEL_FOR(bitops_share(work, THREAD_WORK, n_threads), schedule(static))
    for (ptrdiff_t row = 0; row < (ptrdiff_t)lines; row++)
        if (!bitops_stopped(stop))
            take_line(im, pass, channels, (size_t)row);
}

void bitops_max_places(const bitops_image *windows, const float *x, const float *y, size_t images,
                       size_t channels, uint8_t *places_out, bitops_stop *stop, int n_threads) {
    const pass places = {.x = x, .y = y, .places_out = places_out};
    take_lines(windows, &places, images, channels, stop, n_threads);
}

void bitops_max_gradient(const bitops_image *windows, const uint8_t *places, const float *dy,
                         size_t images, size_t channels, float *dx_out, bitops_stop *stop,
                         int n_threads) {
    const pass gradient = {.places = places, .dy = dy, .dx_out = dx_out};
    take_lines(windows, &gradient, images, channels, stop, n_threads);
}
