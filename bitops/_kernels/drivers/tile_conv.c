/* tile_conv.c: convolutions of codes by tiles, without patches.
 *
 * A tile of x has rows a constant distance apart, and the pixels that side by side positions see at
 * one tap are such rows. So lines of pixels are copied once for each column of taps, shifted and
 * without borders; then the pixels that all positions of a band of lines see at a tap are side by
 * side, across the ends of lines too:
 *
 *   kx = 0    | - a b | - d e | ...        pixels of the lines a b c, d e f, ...
 *   kx = 1    | a b c | d e f | ...        -: outside
 *   kx = 2    | b c - | e f - | ...        the next ky begins a line later
 *
 *   for each image x band of lines of outputs            shared out to threads
 *     copy the lines that it sees
 *     for each 64 positions x group of columns
 *       for each 8 words of k: tiles
 *       scale and copy the outputs
 *
 * Sums are integers, so their order does not matter. */
#include "bitops.h"
#include "drivers/mixed.h"
#include "drivers/scale.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    GROUP_COLUMNS = 1024, /* whose sums take 256 KiB */
    BAND_BYTES = 1 << 17, /* of the lines of a band, if several fit */
    MOST_BYTES = 1 << 20, /* of those that a line of outputs sees, and of any line */
    BANDS = 4,            /* for each thread, at least */
    SPARE_ROWS = BITOPS_TILE_MULTIPLE - 1, /* that are read behind the last one */
};

typedef struct conv {
    const bitops_isa *isa;
    const bitops_mixed_args *args;
    const bitops_image *im;
    size_t channels, k_words;
    size_t line_bytes; /* of the pixels that a line of outputs sees at a tap */
    size_t halo;       /* lines that a band sees beyond its own number */
    size_t lines;      /* of outputs, of a band */
    uint8_t outside;
    const uint64_t *w; /* word p of column j at w[p * n + j] */
    ptrdiff_t *places; /* of each word of k, for bands of this height */
} conv;

/* Scratch memory of a thread. */
typedef struct scratch {
    uint8_t *pixels, *line;
    int32_t *sums;
} scratch;

static conv conv_of(const bitops_isa *isa, const bitops_mixed_args *args, const bitops_image *im) {
    conv c = {.isa = isa, .args = args, .im = im, .k_words = bitops_words(args->k)};
    c.channels = args->k / (im->kernel_height * im->kernel_width);
    c.line_bytes = im->out_width * c.channels;
    c.halo = (im->kernel_height - 1) * im->dilation_y;
    const size_t fit = BAND_BYTES / max_size(c.line_bytes * im->kernel_width, 1);
    c.lines = min_size(im->out_height, fit > c.halo ? fit - c.halo : 1);
    return c;
}

/* Padding may make a side of 2**31, so that sizes would wrap. */
int bitops_tiles_convolve(const bitops_isa *isa, const bitops_mixed_args *args,
                          const bitops_image *im, int n_threads) {
    const size_t taps = im->kernel_height * im->kernel_width;
    if (!isa->tiles_u8 || args->bits <= FEW_PLANES || args->n < LEAST_TILE_COLUMNS ||
        im->stride_y != 1 || taps <= im->stride_x || im->out_width > MOST_BYTES ||
        args->m / im->out_width < (size_t)bitops_mixed_threads(args, n_threads))
        return 0;
    const conv c = conv_of(isa, args, im);
    return c.channels > 0 && c.channels % BITOPS_TILE_BITS == 0 &&
           SPARE_ROWS * c.channels <= MOST_BYTES && im->width * c.channels <= MOST_BYTES &&
           c.halo < MOST_BYTES && c.line_bytes <= MOST_BYTES &&
           c.line_bytes * im->kernel_width * (c.halo + 1) <= MOST_BYTES;
}

static size_t group_columns(const conv *c) {
    return min_size(c->args->n, GROUP_COLUMNS);
}

static size_t pixels_size(const conv *c) {
    const size_t lines = c->lines + c->halo;
    return round_up(c->im->kernel_width * lines * c->line_bytes + SPARE_ROWS * c->channels, 64);
}

static size_t line_size(const conv *c) {
    return round_up(c->im->width * c->channels, 64);
}

static size_t scratch_size(const conv *c) {
    const size_t columns = round_up(group_columns(c), BITOPS_TILE_COLUMNS);
    return pixels_size(c) + line_size(c) + BITOPS_TILE_ROWS * columns * sizeof(int32_t);
}

static scratch scratch_at(const conv *c, char *start) {
    scratch s = {.pixels = (uint8_t *)start};
    s.line = s.pixels + pixels_size(c);
    s.sums = (int32_t *)(s.line + line_size(c));
    return s;
}

static size_t words_size(const conv *c) {
    return round_up(c->k_words * c->args->n * sizeof(uint64_t), 64);
}

static size_t places_size(const conv *c) {
    return round_up(c->k_words * sizeof(ptrdiff_t), 64);
}

size_t bitops_conv_by_tiles_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                           const bitops_image *im, int n_threads) {
    const conv c = conv_of(isa, args, im);
    return bitops_surplus_size(args) + words_size(&c) + places_size(&c) +
           (size_t)n_threads * scratch_size(&c);
}

/* Writes the pixels that a line of outputs sees at taps of column kx, of a line in the order of
 * tiles, or of none. */
static void shift_line(const conv *c, const uint8_t *line, size_t kx, uint8_t *pixels_out) {
    const bitops_image *im = c->im;
    memset(pixels_out, c->outside, c->line_bytes);
    if (!line)
        return;
    const size_t first = kx * im->dilation_x; /* counted from the left border on */
    if (im->stride_x == 1) {
        const size_t skipped = im->pad_left > first ? im->pad_left - first : 0;
        const size_t from = first + skipped - im->pad_left;
        if (skipped < im->out_width && from < im->width)
            memcpy(pixels_out + skipped * c->channels, line + from * c->channels,
                   min_size(im->out_width - skipped, im->width - from) * c->channels);
        return;
    }
    for (size_t i = 0; i < im->out_width; i++) {
        const size_t x = first + i * im->stride_x - im->pad_left; /* wraps on the left */
        if (x < im->width)
            memcpy(pixels_out + i * c->channels, line + x * c->channels, c->channels);
    }
}

/* Copies the lines that a band of `lines` lines of outputs sees, from line y on. */
static void copy_lines(const conv *c, size_t image, size_t y, size_t lines, const scratch *s) {
    const bitops_image *im = c->im;
    const size_t bytes = im->width * c->channels, all = c->lines + c->halo;
    const uint8_t *images = c->args->x;
    for (size_t i = 0; i < lines + c->halo; i++) {
        const size_t at = y + i - im->pad_top; /* wraps above */
        const uint8_t *line = at < im->height ? s->line : NULL;
        if (line)
            c->isa->tile_rows(images + (image * im->height + at) * bytes, bytes, 1, bytes, s->line,
                              bytes);
        for (size_t kx = 0; kx < im->kernel_width; kx++)
            shift_line(c, line, kx, s->pixels + (kx * all + i) * c->line_bytes);
    }
}

static void find_places(const conv *c) {
    const bitops_image *im = c->im;
    const size_t tap_words = c->channels / BITOPS_TILE_BITS, all = c->lines + c->halo;
    for (size_t p = 0; p < c->k_words; p++) {
        const size_t tap = p / tap_words;
        const size_t ky = tap / im->kernel_width, kx = tap % im->kernel_width;
        c->places[p] = (ptrdiff_t)((kx * all + ky * im->dilation_y) * c->line_bytes +
                                   p % tap_words * BITOPS_TILE_BITS);
    }
}

/* Columns [col, col + n) of `rows` positions whose outputs begin at c_out. */
static void store_outputs(const conv *c, size_t rows, size_t col, size_t n, const scratch *s,
                          float *c_out) {
    for (size_t j = 0; j < n; j += BITOPS_TILE_COLUMNS) {
        int32_t *sums = s->sums + j * BITOPS_TILE_ROWS;
        const size_t count = min_size(BITOPS_TILE_COLUMNS, n - j);
        for (size_t r = 0; r < rows; r++, sums += BITOPS_TILE_COLUMNS) {
            scale_sums(c->isa, c->args, sums, col + j, count);
            memcpy(c_out + r * c->args->n + col + j, sums, count * sizeof *sums);
        }
    }
}

/* Positions [first, first + rows) of a band. */
static void run_positions(const conv *c, size_t first, size_t rows, const scratch *s,
                          float *c_out) {
    bitops_tiles task = {.x = s->pixels + first * c->channels,
                         .ldx = c->channels,
                         .rows = rows,
                         .stride = c->args->n,
                         .sums = s->sums};
    for (size_t col = 0; col < c->args->n; col += GROUP_COLUMNS) {
        task.n = min_size(GROUP_COLUMNS, c->args->n - col);
        for (size_t p = 0; p < c->k_words; p += BITOPS_TILE_WORDS) {
            task.places = c->places + p;
            task.w = c->w + p * task.stride + col;
            task.words = min_size(BITOPS_TILE_WORDS, c->k_words - p);
            task.first = p == 0;
            c->isa->tiles_u8(&task);
        }
        store_outputs(c, rows, col, task.n, s, c_out);
    }
}

/* Lines [y, y + lines) of the outputs of an image. */
static void run_band(const conv *c, size_t image, size_t y, size_t lines, const scratch *s) {
    const size_t positions = lines * c->im->out_width;
    float *out =
        (float *)c->args->c + (image * c->im->out_height + y) * c->im->out_width * c->args->n;
    copy_lines(c, image, y, lines, s);
    for (size_t i = 0; i < positions && !bitops_stopped(c->args->stop); i += BITOPS_TILE_ROWS)
        run_positions(c, i, min_size(BITOPS_TILE_ROWS, positions - i), s, out + i * c->args->n);
}

void bitops_conv_by_tiles(const bitops_isa *isa, const bitops_mixed_args *args,
                          const bitops_image *im, uint8_t outside, void *workspace, int n_threads) {
    bitops_mixed_args own = *args;
    if (args->zero)
        bitops_find_surplus(isa, args, workspace, &own);
    char *start = (char *)workspace + bitops_surplus_size(args);
    conv c = conv_of(isa, &own, im);
    uint64_t *w = (uint64_t *)start;
    for (size_t j = 0; j < args->n; j++)
        for (size_t p = 0; p < c.k_words; p++)
            w[p * args->n + j] = args->w[j * args->ldw + p];
    c.w = w;
    c.outside = outside;
    c.places = (ptrdiff_t *)(start + words_size(&c));
    start += words_size(&c) + places_size(&c);
    const int threads = bitops_mixed_threads(args, n_threads);
    const size_t images = args->m / (im->out_height * im->out_width);
    const size_t wanted = threads == 1 ? 1 : ceil_div(BANDS * (size_t)threads, images);
    c.lines = min_size(c.lines, ceil_div(im->out_height, wanted));
    find_places(&c);
    const size_t bands = ceil_div(im->out_height, c.lines);
    BITOPS_PARALLEL_FOR(threads, schedule(dynamic))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(images * bands); task++) {
        /* One thread is perhaps of a team, whose number is not that of its scratch memory. */
        const size_t thread = threads == 1 ? 0 : (size_t)bitops_thread_number();
        const scratch s = scratch_at(&c, start + thread * scratch_size(&c));
        const size_t y = (size_t)task % bands * c.lines;
        run_band(&c, (size_t)task / bands, y, min_size(c.lines, im->out_height - y), &s);
    }
}
