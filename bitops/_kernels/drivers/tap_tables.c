/* tap_tables.c: convolutions of small numbers by lookup. All windows that see a pixel share its
 * tables, which patches would make anew for each of them.
 *
 *   order the bits of the filters into panels
 *   for each band of lines of outputs                      shared out to threads
 *     for each line
 *       make the tables of the lines of pixels that it is the first to see
 *       for each 4 positions
 *         for each run of taps side by side
 *           for each panel: lookup
 *         scale
 *
 * Tables of the lines that a line of outputs sees stay in the second-level cache, those of 4
 * positions in the first-level cache. Sums are integers, so their order does not matter. */
#include "bitops.h"
#include "drivers/mixed.h"
#include "drivers/scale.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    COLUMNS = BITOPS_LOOKUP_COLUMNS,
    ROWS = BITOPS_LOOKUP_ROWS,
    HALF_BITS = 32,
    RUN_HALVES = 64,        /* that lookup_small takes at once */
    MOST_BYTES = 1 << 20,   /* of the tables of a thread */
    BANDS = 4,              /* for each thread, at least */
    LEAST_COLUMNS = COLUMNS /* fewer leave lanes of lookups empty */
};

/* A convolution: what its tables and panels take. */
typedef struct conv {
    const bitops_isa *isa;
    const bitops_mixed_args *args;
    const bitops_image *im;
    size_t channels, k_words;
    size_t slots, pixels; /* lines of pixels whose tables are kept; pixels of a line */
    size_t pixel_bytes;   /* of the tables of a pixel */
    size_t run_taps;      /* taps side by side that are looked up at once */
    const uint32_t *panels;
    const uint8_t *outside; /* codes of a pixel there */
} conv;

/* Tables of lines, slot after slot, and the sum of magnitudes of each pixel. */
typedef struct lines {
    char *tables;
    int32_t *less;
} lines;

static conv conv_of(const bitops_isa *isa, const bitops_mixed_args *args, const bitops_image *im) {
    conv c = {.isa = isa, .args = args, .im = im, .k_words = bitops_words(args->k)};
    c.channels = args->k / (im->kernel_height * im->kernel_width);
    c.slots = (im->kernel_height - 1) * im->dilation_y + 1;
    c.pixels = (im->out_width - 1) * im->stride_x + (im->kernel_width - 1) * im->dilation_x + 1;
    c.pixel_bytes = c.channels / HALF_BITS * BITOPS_SMALL_BYTES;
    const size_t together = im->dilation_x == 1 ? im->kernel_width : 1;
    c.run_taps = min_size(together, RUN_HALVES * HALF_BITS / max_size(c.channels, 1));
    return c;
}

static size_t lines_size(const conv *c) {
    return c->slots * c->pixels * c->pixel_bytes +
           round_up(c->slots * c->pixels * sizeof(int32_t), 64);
}

static lines lines_at(const conv *c, char *start) {
    return (lines){start, (int32_t *)(start + c->slots * c->pixels * c->pixel_bytes)};
}

static size_t panels_size(const conv *c) {
    return bitops_lookup_panels_size(c->args->n, c->k_words) * sizeof(uint32_t);
}

int bitops_taps_share_tables(const bitops_isa *isa, const bitops_mixed_args *args,
                             const bitops_image *im, int n_threads) {
    const size_t taps = im->kernel_height * im->kernel_width;
    if (args->bits <= FEW_PLANES || !bitops_numbers_are_small(isa, args) ||
        args->n < LEAST_COLUMNS || taps <= im->stride_y * im->stride_x ||
        args->m / im->out_width < (size_t)bitops_mixed_threads(args, n_threads))
        return 0;
    const conv c = conv_of(isa, args, im);
    /* Padding may make a side of 2**31, so that the size of the tables would wrap. */
    return c.channels % HALF_BITS == 0 && c.run_taps > 0 && c.slots <= MOST_BYTES &&
           c.pixels <= MOST_BYTES && lines_size(&c) <= MOST_BYTES;
}

size_t bitops_conv_by_taps_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                          const bitops_image *im, int n_threads) {
    const conv c = conv_of(isa, args, im);
    return panels_size(&c) + round_up(c.channels, 64) + (size_t)n_threads * lines_size(&c);
}

static void make_panel(const conv *c, size_t panel, uint32_t *panels_out) {
    const bitops_mixed_args *args = c->args;
    bitops_lookup_panel_fn *const make =
        c->isa->lookup_panel_small ? c->isa->lookup_panel_small : c->isa->lookup_panel;
    const size_t j = panel * COLUMNS;
    make(args->w + j * args->ldw, args->ldw, min_size(COLUMNS, args->n - j), c->k_words,
         panels_out + 2 * j * c->k_words);
}

/* The tables of line `line` of an image, counted from the first line of padding. */
static void make_line(const conv *c, size_t image, size_t line, const lines *l) {
    const bitops_image *im = c->im;
    const size_t y = line - im->pad_top, first = line % c->slots * c->pixels; /* wraps above */
    const uint8_t *row =
        (const uint8_t *)c->args->x + (image * im->height + y) * im->width * c->channels;
    for (size_t pixel = 0; pixel < c->pixels; pixel++) {
        const size_t x = pixel - im->pad_left;
        const int is_inside = y < im->height && x < im->width;
        l->less[first + pixel] = c->isa->lookup_tables_small(
            is_inside ? row + x * c->channels : c->outside, c->channels, c->args->zero,
            l->tables + (first + pixel) * c->pixel_bytes);
    }
}

/* Adds taps (ky, kx) .. (ky, kx + taps - 1) to the sums of a tile from column x of outputs on. */
static void add_run(const conv *c, bitops_lookup *tile, size_t line, size_t x, size_t ky, size_t kx,
                    size_t taps, const lines *l, int32_t *sums) {
    const bitops_image *im = c->im;
    const size_t pixel = line % c->slots * c->pixels + x * im->stride_x + kx * im->dilation_x;
    const size_t tap = ky * im->kernel_width + kx, half = tap * c->channels / HALF_BITS;
    tile->tables = l->tables + pixel * c->pixel_bytes;
    tile->halves = taps * c->channels / HALF_BITS;
    tile->first = tap == 0;
    for (size_t r = 0; r < tile->rows; r++) {
        tile->less[r] = 0;
        for (size_t t = 0; t < taps; t++)
            tile->less[r] += l->less[pixel + r * im->stride_x + t];
    }
    for (size_t j = 0; j < c->args->n; j += COLUMNS) {
        tile->n = min_size(COLUMNS, c->args->n - j);
        tile->c = sums + j;
        tile->panel = c->panels + 2 * j * c->k_words + half * COLUMNS;
        c->isa->lookup_small(tile);
    }
}

/* Line y of the outputs of an image. */
static void run_line(const conv *c, size_t image, size_t y, const lines *l) {
    const bitops_image *im = c->im;
    const size_t n = c->args->n;
    int32_t *sums = (int32_t *)c->args->c + (image * im->out_height + y) * im->out_width * n;
    bitops_lookup tile = {.table_stride = im->stride_x * c->pixel_bytes, .ldc = n};
    tile.most = bitops_largest_number(c->args);
    for (size_t x = 0; x < im->out_width; x += ROWS, sums += ROWS * n) {
        tile.rows = min_size(ROWS, im->out_width - x);
        for (size_t ky = 0; ky < im->kernel_height; ky++)
            for (size_t kx = 0; kx < im->kernel_width; kx += c->run_taps)
                add_run(c, &tile, y * im->stride_y + ky * im->dilation_y, x, ky, kx,
                        min_size(c->run_taps, im->kernel_width - kx), l, sums);
        for (size_t r = 0; r < tile.rows; r++)
            scale_sums(c->isa, c->args, sums + r * n, 0, n);
    }
}

/* Lines [first, first + count) of the outputs of an image. */
static void run_band(const conv *c, size_t image, size_t first, size_t count, const lines *l) {
    const size_t stride = c->im->stride_y;
    size_t made = first * stride; /* lines before have tables, or none need them */
    for (size_t y = first; y < first + count && !bitops_stopped(c->args->stop); y++) {
        for (size_t line = max_size(made, y * stride); line < y * stride + c->slots; line++)
            make_line(c, image, line, l);
        made = y * stride + c->slots;
        run_line(c, image, y, l);
    }
}

void bitops_conv_by_taps(const bitops_isa *isa, const bitops_mixed_args *args,
                         const bitops_image *im, uint8_t outside, void *workspace, int n_threads) {
    conv c = conv_of(isa, args, im);
    char *start = (char *)workspace + panels_size(&c);
    memset(start, outside, c.channels);
    const int threads = bitops_mixed_threads(args, n_threads);
    BITOPS_FOR_TASKS(threads, ceil_div(args->n, COLUMNS), make_panel(&c, (size_t)task, workspace));
    c.panels = workspace;
    c.outside = (const uint8_t *)start;
    start += round_up(c.channels, 64);
    const size_t images = args->m / (im->out_height * im->out_width);
    const size_t wanted = threads == 1 ? 1 : ceil_div(BANDS * (size_t)threads, images);
    const size_t height = ceil_div(im->out_height, wanted);
    const size_t bands = ceil_div(im->out_height, height);
    BITOPS_PARALLEL_FOR(threads, schedule(dynamic))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(images * bands); task++) {
        /* One thread is perhaps of a team, whose number is not that of its scratch memory. */
        const size_t thread = threads == 1 ? 0 : (size_t)bitops_thread_number();
        const lines l = lines_at(&c, start + thread * lines_size(&c));
        const size_t image = (size_t)task / bands, first = (size_t)task % bands * height;
        run_band(&c, image, first, min_size(height, im->out_height - first), &l);
    }
}
