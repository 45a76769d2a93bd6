/* lines.c: passes over lines of images: what windows see of numbers, and pools. */
#include "drivers/lines.h"
#include "drivers/sizes.h"
#include "drivers/taps.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    CHUNK = 32,            /* bytes copied at a time */
    THREAD_WORK = 1 << 16, /* numbers of a pool below which one thread is faster */
};

/* ---- rows of numbers ------------------------------------------------------------------------- */

/* Where the images and the rows end. */
typedef struct ends {
    const char *images;
    char *rows;
} ends;

/* Copies a run in whole chunks, past its end, where there is memory: what follows in the rows is
 * written later. */
static inline void copy_run(char *to, const char *from, size_t bytes, const ends *end) {
    const size_t whole = round_up(bytes, CHUNK);
    if ((size_t)(end->images - from) < whole || (size_t)(end->rows - to) < whole) {
        memcpy(to, from, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i += CHUNK)
        memcpy(to + i, from + i, CHUNK);
}

/* One line of the kernel at one output position, whose taps [seen.begin, seen.end) lie inside. */
static void gather_taps(const bitops_image *im, tap_range seen, size_t pixel_bytes,
                        const char *line, size_t out_x, char *to, const ends *end) {
    const size_t column = out_x * im->stride_x - im->pad_left; /* of tap 0, perhaps outside */
    const size_t step = im->dilation_x * pixel_bytes;
    const char *first = line + column * pixel_bytes;
    if (seen.begin)
        memset(to, 0, seen.begin * pixel_bytes);
    if (im->dilation_x == 1 && seen.begin < seen.end)
        copy_run(to + seen.begin * pixel_bytes, first + seen.begin * step,
                 (seen.end - seen.begin) * pixel_bytes, end);
    else
        for (size_t tap = seen.begin; tap < seen.end; tap++)
            copy_run(to + tap * pixel_bytes, first + tap * step, pixel_bytes, end);
    if (seen.end < im->kernel_width)
        memset(to + seen.end * pixel_bytes, 0, (im->kernel_width - seen.end) * pixel_bytes);
}

/* Rows of output positions [out_x, out_x + count) of one line. */
static void gather_line(const bitops_image *im, size_t pixel_bytes, const char *x, size_t line,
                        size_t out_x, size_t count, char *rows_out, const ends *end) {
    const taps_axis down = vertical_taps(im), across = horizontal_taps(im);
    const size_t line_bytes = im->width * pixel_bytes, run = im->kernel_width * pixel_bytes;
    const size_t row_bytes = im->kernel_height * run;
    const size_t out_y = line % im->out_height, image = line / im->out_height;
    const tap_range lines = taps_inside(&down, out_y);
    const size_t top = image * im->height + out_y * im->stride_y - im->pad_top; /* of tap 0 */
    for (size_t i = 0; i < count; i++, rows_out += row_bytes) {
        const tap_range seen = taps_inside(&across, out_x + i);
        if (lines.begin)
            memset(rows_out, 0, lines.begin * run);
        for (size_t ky = lines.begin; ky < lines.end; ky++)
            gather_taps(im, seen, pixel_bytes, x + (top + ky * im->dilation_y) * line_bytes,
                        out_x + i, rows_out + ky * run, end);
        if (lines.end < im->kernel_height)
            memset(rows_out + lines.end * run, 0, (im->kernel_height - lines.end) * run);
    }
}

void bitops_gather_numbers(const bitops_image *im, size_t images, size_t pixel_bytes, const char *x,
                           size_t first, size_t rows, char *rows_out) {
    const size_t row_bytes = im->kernel_height * im->kernel_width * pixel_bytes;
    const ends end = {x + images * im->height * im->width * pixel_bytes,
                      rows_out + rows * row_bytes};
    for (size_t row = first, count; row < first + rows; row += count) {
        const size_t out_x = row % im->out_width;
        count = min_size(im->out_width - out_x, first + rows - row);
        gather_line(im, pixel_bytes, x, row / im->out_width, out_x, count,
                    rows_out + (row - first) * row_bytes, &end);
    }
}

/* ---- pools ----------------------------------------------------------------------------------- */

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

void bitops_pool_floats(const bitops_isa *isa, const bitops_image *im, size_t channels,
                        const float *x, size_t line, float *column, float *y) {
    const taps_axis across = horizontal_taps(im);
    const size_t n = im->width * channels;
    const seen_lines seen = lines_of(im, line);
    for (size_t i = 0; i < seen.taps.end - seen.taps.begin; i++) {
        const size_t tap = tap_at(seen.taps, im->pad_top != 0, i) - seen.taps.begin;
        const float *from = x + (seen.first + tap) * n;
        if (i == 0)
            memcpy(column, from, n * sizeof *column);
        else
            isa->larger_f32(from, n, column);
    }
    for (size_t out_x = 0; out_x < im->out_width; out_x++, y += channels) {
        const tap_range taps = taps_inside(&across, out_x);
        const float *from = column + (out_x * im->stride_x - im->pad_left) * channels;
        for (size_t i = 0; i < taps.end - taps.begin; i++) {
            const float *pixel = from + tap_at(taps, im->pad_left != 0, i) * channels;
            if (i == 0)
                memcpy(y, pixel, channels * sizeof *y);
            else
                isa->larger_f32(pixel, channels, y);
        }
    }
}

/* ORs so many pixels into `column`; with a minimum, what its channels lack. */
static void combine_bits(const uint64_t *x, const uint64_t *minimum, size_t words, size_t pixels,
                         uint64_t *column) {
    if (!minimum) {
        for (size_t j = 0; j < pixels * words; j++)
            column[j] |= x[j];
        return;
    }
    for (size_t i = 0; i < pixels; i++, x += words, column += words)
        for (size_t j = 0; j < words; j++)
            column[j] |= x[j] ^ minimum[j];
}

/* The OR of the pixels of each window of a line, one word each, if all windows lie inside. */
static void combine_words(const bitops_image *im, const uint64_t *column, uint64_t *y) {
    for (size_t out_x = 0; out_x < im->out_width; out_x++, column += im->stride_x) {
        uint64_t any = column[0];
        for (size_t tap = 1; tap < im->kernel_width; tap++)
            any |= column[tap];
        y[out_x] = any;
    }
}

void bitops_pool_bits(const bitops_image *im, size_t words, const uint64_t *x,
                      const uint64_t *minimum, size_t line, uint64_t *column, uint64_t *y) {
    const taps_axis across = horizontal_taps(im);
    const size_t n = im->width * words;
    const seen_lines seen = lines_of(im, line);
    memset(column, 0, n * sizeof *column);
    for (size_t i = 0; i < seen.taps.end - seen.taps.begin; i++)
        combine_bits(x + (seen.first + i) * n, minimum, words, im->width, column);
    const size_t end_x = (im->out_width - 1) * im->stride_x + im->kernel_width;
    if (words == 1 && !minimum && im->pad_left == 0 && end_x <= im->width) {
        combine_words(im, column, y);
        return;
    }
    for (size_t out_x = 0; out_x < im->out_width; out_x++, y += words) {
        const tap_range taps = taps_inside(&across, out_x);
        const uint64_t *pixel = column + (out_x * im->stride_x + taps.begin - im->pad_left) * words;
        const size_t end = (taps.end - taps.begin) * words;
        for (size_t j = 0; j < words; j++) {
            uint64_t any = pixel[j];
            for (size_t tap = words; tap < end; tap += words)
                any |= pixel[tap + j];
            y[j] = minimum ? any ^ minimum[j] : any;
        }
    }
}

static size_t column_bytes(const bitops_image *im, size_t pixel_bytes) {
    return round_up(im->width * pixel_bytes, 64);
}

size_t bitops_max_windows_workspace_size(const bitops_image *windows, size_t pixel_bytes,
                                         int n_threads) {
    return column_bytes(windows, pixel_bytes) * (size_t)n_threads;
}

void bitops_max_windows(const bitops_isa *isa, const bitops_image *windows, bitops_dtype dtype,
                        size_t pixel_bytes, const void *x, size_t images, const uint64_t *minimum,
                        void *max_out, void *workspace, bitops_stop *stop, int n_threads) {
    const bitops_image *im = windows;
    const size_t lines = images * im->out_height, scratch = column_bytes(im, pixel_bytes);
    const size_t out_bytes = im->out_width * pixel_bytes;
    const size_t work = lines * out_bytes / sizeof(float);
    BITOPS_PARALLEL_FOR(bitops_share((double)work, THREAD_WORK, n_threads), schedule(static))
    for (ptrdiff_t line = 0; line < (ptrdiff_t)lines; line++) {
        if (bitops_stopped_at((size_t)line, BITOPS_STOP_TASKS, stop))
            continue;
        void *column = (char *)workspace + (size_t)bitops_thread_number() * scratch;
        void *out = (char *)max_out + (size_t)line * out_bytes;
        if (dtype == BITOPS_F32)
            bitops_pool_floats(isa, im, pixel_bytes / sizeof(float), x, (size_t)line, column, out);
        else
            bitops_pool_bits(im, pixel_bytes / sizeof(uint64_t), x, minimum, (size_t)line, column,
                             out);
    }
}
