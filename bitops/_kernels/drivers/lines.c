/* lines.c: passes over lines of images: what windows see of numbers, pools, scales. */
#include "drivers/lines.h"
#include "drivers/sizes.h"
#include "drivers/taps.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 16 }; /* bytes copied at a time */

/* ---- rows of numbers ------------------------------------------------------------------------- */

/* Copies a run in whole chunks, past its end, where the source has that many bytes. */
static inline void copy_run(char *to, const char *from, size_t bytes, const char *end) {
    if ((size_t)(end - from) < round_up(bytes, CHUNK)) {
        memcpy(to, from, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i += CHUNK)
        memcpy(to + i, from + i, CHUNK);
}

/* One line of the kernel at one output position. */
static void gather_taps(const bitops_image *im, const taps_axis *across, size_t pixel_bytes,
                        const char *line, const char *end, size_t out_x, char *to) {
    const tap_range seen = taps_inside(across, out_x);
    memset(to, 0, seen.begin * pixel_bytes);
    /* The first tap that lies inside; no tap does if the range is empty. */
    const size_t column = out_x * im->stride_x + seen.begin * im->dilation_x - im->pad_left;
    if (im->dilation_x == 1 && seen.begin < seen.end) {
        copy_run(to + seen.begin * pixel_bytes, line + column * pixel_bytes,
                 (seen.end - seen.begin) * pixel_bytes, end);
    } else {
        for (size_t tap = seen.begin; tap < seen.end; tap++)
            copy_run(to + tap * pixel_bytes,
                     line + (column + (tap - seen.begin) * im->dilation_x) * pixel_bytes,
                     pixel_bytes, end);
    }
    memset(to + seen.end * pixel_bytes, 0, (im->kernel_width - seen.end) * pixel_bytes);
}

/* Output positions of a line that see all taps of a line of the kernel: [begin, end). */
static tap_range full_outputs(const taps_axis *a) {
    const size_t reach = (a->taps - 1) * a->dilation;
    tap_range r = {min_size(ceil_div(a->pad, a->stride), a->outputs), 0};
    if (a->size + a->pad > reach)
        r.end = min_size((a->size + a->pad - reach - 1) / a->stride + 1, a->outputs);
    r.end = max_size(r.begin, r.end);
    return r;
}

void bitops_gather_numbers(const bitops_image *im, size_t images, size_t pixel_bytes, const char *x,
                           size_t first, size_t rows, char *rows_out) {
    const taps_axis down = vertical_taps(im), across = horizontal_taps(im);
    const size_t line_bytes = im->width * pixel_bytes, run = im->kernel_width * pixel_bytes;
    const char *end = x + images * im->height * line_bytes;
    const tap_range full = full_outputs(&across);
    char *to = rows_out;
    for (size_t row = first; row < first + rows; row++) {
        const size_t out_x = row % im->out_width, line = row / im->out_width;
        const size_t out_y = line % im->out_height, image = line / im->out_height;
        const tap_range seen = taps_inside(&down, out_y);
        const int whole = im->dilation_x == 1 && out_x >= full.begin && out_x < full.end;
        const char *from = x + image * im->height * line_bytes;
        memset(to, 0, seen.begin * run);
        to += seen.begin * run;
        for (size_t ky = seen.begin; ky < seen.end; ky++, to += run) {
            const size_t y = out_y * im->stride_y + ky * im->dilation_y - im->pad_top;
            if (whole)
                copy_run(
                    to, from + y * line_bytes + (out_x * im->stride_x - im->pad_left) * pixel_bytes,
                    run, end);
            else
                gather_taps(im, &across, pixel_bytes, from + y * line_bytes, end, out_x, to);
        }
        memset(to, 0, (im->kernel_height - seen.end) * run);
        to += (im->kernel_height - seen.end) * run;
    }
}

/* ---- scales ---------------------------------------------------------------------------------- */

void bitops_affine_line(float *y, size_t n, size_t channels, const float *alpha, const float *bias,
                        int relu) {
    for (size_t i = 0; i < n; i += channels, y += channels) {
        if (alpha)
            for (size_t j = 0; j < channels; j++)
                y[j] *= alpha[j];
        if (bias)
            for (size_t j = 0; j < channels; j++)
                y[j] += bias[j];
        if (relu)
            for (size_t j = 0; j < channels; j++)
                y[j] = y[j] <= 0 ? 0 : y[j];
    }
}

/* ---- pools ----------------------------------------------------------------------------------- */

/* The larger number, the second of equal ones; NaN if one is NaN. */
static inline void take_larger(float *a, const float *b, size_t n) {
    for (size_t j = 0; j < n; j++)
        a[j] = a[j] > b[j] || a[j] != a[j] ? a[j] : b[j];
}

/* Which image, and which of its lines, a line of the outputs sees. */
typedef struct seen_lines {
    size_t first; /* line of all images that tap `taps.begin` sees */
    tap_range taps;
} seen_lines;

static seen_lines lines_of(const bitops_image *im, size_t line) {
    const taps_axis down = vertical_taps(im);
    const size_t out_y = line % im->out_height, image = line / im->out_height;
    seen_lines s = {.taps = taps_inside(&down, out_y)};
    s.first = image * im->height + out_y * im->stride_y + s.taps.begin - im->pad_top;
    return s;
}

/* Order of the taps: without padding the first, the last, and those between, as ops/pool.py. It
 * decides which of two zeros a window gives. */
static size_t tap_at(tap_range taps, int padded, size_t i) {
    if (padded || i == 0)
        return taps.begin + i;
    return i == 1 ? taps.end - 1 : taps.begin + i - 1;
}

void bitops_pool_floats(const bitops_image *im, size_t channels, const float *x, const float *alpha,
                        const float *bias, int relu, size_t line, float *lines, float *y) {
    const taps_axis across = horizontal_taps(im);
    const size_t n = im->width * channels;
    const seen_lines seen = lines_of(im, line);
    float *column = lines, *next = lines + n;
    for (size_t i = 0; i < seen.taps.end - seen.taps.begin; i++) {
        const size_t tap = tap_at(seen.taps, im->pad_top != 0, i) - seen.taps.begin;
        float *to = i == 0 ? column : next;
        memcpy(to, x + (seen.first + tap) * n, n * sizeof *to);
        bitops_affine_line(to, n, channels, alpha, bias, relu);
        if (i > 0)
            take_larger(column, next, n);
    }
    for (size_t out_x = 0; out_x < im->out_width; out_x++, y += channels) {
        const tap_range taps = taps_inside(&across, out_x);
        const float *from = column + (out_x * im->stride_x - im->pad_left) * channels;
        for (size_t i = 0; i < taps.end - taps.begin; i++) {
            const float *pixel = from + tap_at(taps, im->pad_left != 0, i) * channels;
            if (i == 0)
                memcpy(y, pixel, channels * sizeof *y);
            else
                take_larger(y, pixel, channels);
        }
    }
}

static void combine_words(uint64_t *y, const uint64_t *x, const uint64_t *minimum, size_t words) {
    if (minimum)
        for (size_t j = 0; j < words; j++)
            y[j] |= x[j] ^ minimum[j];
    else
        for (size_t j = 0; j < words; j++)
            y[j] |= x[j];
}

void bitops_pool_bits(const bitops_image *im, size_t words, const uint64_t *x,
                      const uint64_t *minimum, size_t line, uint64_t *y) {
    const taps_axis across = horizontal_taps(im);
    const seen_lines seen = lines_of(im, line);
    memset(y, 0, im->out_width * words * sizeof *y);
    for (size_t out_x = 0; out_x < im->out_width; out_x++, y += words) {
        const tap_range taps = taps_inside(&across, out_x);
        for (size_t i = 0; i < seen.taps.end - seen.taps.begin; i++) {
            const uint64_t *pixel = x + ((seen.first + i) * im->width + out_x * im->stride_x +
                                         taps.begin - im->pad_left) *
                                            words;
            for (size_t tap = taps.begin; tap < taps.end; tap++, pixel += words)
                combine_words(y, pixel, minimum, words);
        }
        if (minimum)
            for (size_t j = 0; j < words; j++)
                y[j] ^= minimum[j];
    }
}
