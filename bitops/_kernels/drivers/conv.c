/* conv.c: the driver of convolutions with bits on both sides.
 *
 * A convolution is the product of the im2col matrix of the images with the filters. bitops_gemm
 * gathers the rows of that matrix block by block, so that it is never in memory.
 *
 * Positions outside that add nothing: they are gathered as zeros, that is -1, and each output gets
 * back the sum of the weights that met them. Which taps lie outside depends on the line and on the
 * column of the output alone, and few cases occur, so there is a table of offsets with a row for
 * each pair of cases: bitops_store.offset. Row 0 is for outputs with all taps inside.
 *
 * Groups: the mismatches of a block of rows with the filters of all groups go to a block of int32,
 * which is transformed as a whole, since the columns of a group need not begin at a byte of the
 * output. Depthwise, with one channel a group, all channels of a tap are compared at once. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "drivers/taps.h"
#include "isa/shared/store.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    SUMS = 1 << 18,        /* int32 of a block of all groups: 1 MiB */
    SUMS_ROWS = 2048,      /* at most */
    DEPTHWISE_TAPS = 64,   /* compared and counted together: 16 KiB of bits, */
    DEPTHWISE_WORDS = 32,  /* and as much of counts */
    THREAD_WORK = 1 << 14, /* sums to be transformed below which one thread is faster */
};

static int is_depthwise(const bitops_conv_args *args) {
    return args->groups > 1 && args->image.channels == 1;
}

static size_t count_taps(const bitops_image *im) {
    return im->kernel_height * im->kernel_width;
}

static size_t count_rows(const bitops_conv_args *args) {
    return args->images * args->image.out_height * args->image.out_width;
}

/* ---- offsets of positions outside ---------------------------------------------------------- */

/* Numbers the cases of one direction: 0 for all taps inside, then one after the other; equal ranges
 * are neighbours, because both ends of a range fall from output to output. number_out has an entry
 * for each output, ranges_out one for each case; either may be NULL. Returns how many there are. */
static size_t number_cases(const taps_axis *a, uint32_t *number_out, tap_range *ranges_out) {
    tap_range last = {0, a->taps};
    size_t count = 1, number = 0;
    if (ranges_out)
        ranges_out[0] = last;
    for (size_t output = 0; output < a->outputs; output++) {
        const tap_range r = taps_inside(a, output);
        if (r.begin == 0 && r.end == a->taps) {
            number = 0;
        } else if (r.begin != last.begin || r.end != last.end) {
            number = count++;
            if (ranges_out)
                ranges_out[number] = r;
        }
        last = r;
        if (number_out)
            number_out[output] = (uint32_t)number;
    }
    return count;
}

/* The row of the table for two cases: the sums of the taps that lie outside in either direction. */
static void add_outside(const bitops_conv_args *args, const int32_t *tap_sums, tap_range y,
                        tap_range x, int32_t *row) {
    const bitops_image *im = &args->image;
    memset(row, 0, args->filters * sizeof *row);
    for (size_t ky = 0; ky < im->kernel_height; ky++)
        for (size_t kx = 0; kx < im->kernel_width; kx++) {
            if (ky >= y.begin && ky < y.end && kx >= x.begin && kx < x.end)
                continue;
            const int32_t *sums = tap_sums + (ky * im->kernel_width + kx) * args->filters;
            for (size_t j = 0; j < args->filters; j++)
                row[j] += sums[j];
        }
}

/* Where the parts of the offsets lie, one after the other from a cache line on. */
typedef struct offsets {
    size_t cases_x, words;
    int32_t *table;
    uint32_t *number_y, *number_x;
    tap_range *ranges_y, *ranges_x;
} offsets;

static size_t words_of_int32(size_t n) {
    return round_up(n, 2 * LINE_WORDS) / 2;
}

static offsets place_offsets(const bitops_conv_args *args, uint64_t *memory) {
    const taps_axis v = vertical_taps(&args->image), h = horizontal_taps(&args->image);
    const size_t cases_y = number_cases(&v, NULL, NULL), cases_x = number_cases(&h, NULL, NULL);
    const size_t number_y = words_of_int32(cases_y * cases_x * args->filters);
    const size_t number_x = number_y + words_of_int32(v.outputs);
    const size_t ranges_y = number_x + words_of_int32(h.outputs);
    const size_t ranges_x = ranges_y + cases_y * sizeof(tap_range) / sizeof(uint64_t);
    offsets o = {.cases_x = cases_x,
                 .words = ranges_x + cases_x * sizeof(tap_range) / sizeof(uint64_t)};
    if (memory) {
        o.table = (int32_t *)memory;
        o.number_y = (uint32_t *)(memory + number_y);
        o.number_x = (uint32_t *)(memory + number_x);
        o.ranges_y = (tap_range *)(memory + ranges_y);
        o.ranges_x = (tap_range *)(memory + ranges_x);
    }
    return o;
}

size_t bitops_conv_offsets_size(const bitops_conv_args *args) {
    return place_offsets(args, NULL).words * sizeof(uint64_t);
}

void bitops_conv_fill_offsets(bitops_conv_args *args, const int32_t *tap_sums, void *memory) {
    const offsets o = place_offsets(args, memory);
    const taps_axis v = vertical_taps(&args->image), h = horizontal_taps(&args->image);
    const size_t cases_y = number_cases(&v, o.number_y, o.ranges_y);
    number_cases(&h, o.number_x, o.ranges_x);
    for (size_t y = 0; y < cases_y; y++)
        for (size_t x = 0; x < o.cases_x; x++)
            add_outside(args, tap_sums, o.ranges_y[y], o.ranges_x[x],
                        o.table + (y * o.cases_x + x) * args->filters);
    args->image.offset_y = o.number_y;
    args->image.offset_x = o.number_x;
    args->image.offsets_x = o.cases_x;
    args->offsets = o.table;
}

/* ---- the plan ------------------------------------------------------------------------------ */

/* A block of all groups; sizes are in words of the workspace. */
typedef struct plan {
    size_t rows;
    size_t sums_words, rows_words;
} plan;

static plan make_plan(const bitops_conv_args *args) {
    plan p = {0};
    if (args->groups > 1) {
        p.rows = min_size(max_size(SUMS / args->filters, 1), min_size(SUMS_ROWS, count_rows(args)));
        p.sums_words = words_of_int32(p.rows * args->filters);
        p.rows_words = words_of_int32(p.rows);
    }
    return p;
}

/* The product of rows [first, first + m) with the filters of one group. */
static bitops_gemm_args group_product(const bitops_isa *isa, const bitops_conv_args *args,
                                      size_t group, size_t first, size_t m) {
    const size_t n = args->filters / args->groups, k_words = bitops_words((size_t)args->store.k);
    bitops_gemm_args product = {.image = &args->image,
                                .image_row = first,
                                .m = m,
                                .ldw = k_words,
                                .n = n,
                                .k_words = k_words,
                                .store = args->store,
                                .stop = args->stop};
    if (args->panels)
        product.panels = args->panels + group * bitops_prepack_size(isa, n, k_words);
    else
        product.w = args->w + group * n * k_words;
    return product;
}

/* Scratch of the product of m rows, in words. */
static size_t product_words(const bitops_isa *isa, const bitops_conv_args *args, size_t m,
                            int n_threads) {
    bitops_gemm_args product = group_product(isa, args, 0, 0, m);
    product.store.offset = args->offsets; /* if not NULL, room for offset_row */
    return bitops_gemm_workspace_size(isa, &product, n_threads) / sizeof(uint64_t);
}

size_t bitops_conv_workspace_size(const bitops_isa *isa, const bitops_conv_args *args,
                                  int n_threads) {
    const plan p = make_plan(args);
    const size_t rows = count_rows(args);
    size_t words = 0;
    if (args->filters && rows && args->groups == 1)
        words = product_words(isa, args, rows, n_threads);
    else if (args->filters && rows && !is_depthwise(args)) /* fewer rows may be cut less evenly */
        words = max_size(product_words(isa, args, p.rows, n_threads),
                         product_words(isa, args, rows % p.rows, n_threads));
    return (words + p.sums_words + p.rows_words) * sizeof(uint64_t);
}

/* ---- depthwise ----------------------------------------------------------------------------- */

/* n <= DEPTHWISE_WORDS words of all groups from `word` on: bits that differ from filter j of each
 * group at taps [tap, tap + taps) of one output, a row of words for each tap. */
static void compare_taps(const bitops_conv_args *args, const uint64_t *image, size_t y, size_t x,
                         size_t j, size_t tap, size_t taps, size_t word, size_t n,
                         uint64_t (*differ)[DEPTHWISE_WORDS]) {
    const bitops_image *im = &args->image;
    for (size_t t = 0; t < taps; t++) {
        const size_t ky = (tap + t) / im->kernel_width, kx = (tap + t) % im->kernel_width;
        const size_t iy = y * im->stride_y + ky * im->dilation_y;
        const size_t ix = x * im->stride_x + kx * im->dilation_x;
        const uint64_t *w = args->w + (j * count_taps(im) + tap + t) * im->pixel_words + word;
        if (iy < im->pad_top || iy - im->pad_top >= im->height || ix < im->pad_left ||
            ix - im->pad_left >= im->width) {
            for (size_t i = 0; i < n; i++)
                differ[t][i] = im->outside ^ w[i];
            continue;
        }
        const size_t pixel = (iy - im->pad_top) * im->width + ix - im->pad_left;
        const uint64_t *v = image + pixel * im->pixel_words + word;
        for (size_t i = 0; i < n; i++)
            differ[t][i] = v[i] ^ w[i];
    }
}

/* Mismatches of filter j of the groups in n words from `word` on, for one output. */
static void depthwise_span(const bitops_isa *isa, const bitops_conv_args *args,
                           const uint64_t *image, size_t y, size_t x, size_t j, size_t word,
                           size_t n, int32_t *sums) {
    uint64_t differ[DEPTHWISE_TAPS][DEPTHWISE_WORDS];
    int64_t counts[DEPTHWISE_WORDS * BITOPS_WORD_BITS];
    const size_t all = count_taps(&args->image), per_group = args->filters / args->groups;
    const size_t first = word * BITOPS_WORD_BITS;
    const size_t groups = min_size(n * BITOPS_WORD_BITS, args->groups - first);
    int32_t *out = sums + first * per_group + j;
    for (size_t tap = 0; tap < all; tap += DEPTHWISE_TAPS) {
        const size_t taps = min_size(DEPTHWISE_TAPS, all - tap);
        compare_taps(args, image, y, x, j, tap, taps, word, n, differ);
        isa->popcount_columns(differ[0], DEPTHWISE_WORDS, taps, n, counts);
        for (size_t g = 0; g < groups; g++)
            out[g * per_group] = (tap ? out[g * per_group] : 0) + (int32_t)counts[g];
    }
}

static void depthwise_row(const bitops_isa *isa, const bitops_conv_args *args, size_t row,
                          int32_t *sums) {
    const bitops_image *im = &args->image;
    const size_t x = row % im->out_width, y = row / im->out_width % im->out_height;
    const uint64_t *image =
        im->x + row / im->out_width / im->out_height * im->height * im->width * im->pixel_words;
    for (size_t j = 0; j < args->filters / args->groups; j++)
        for (size_t word = 0; word < im->pixel_words; word += DEPTHWISE_WORDS)
            depthwise_span(isa, args, image, y, x, j, word,
                           min_size(DEPTHWISE_WORDS, im->pixel_words - word), sums);
}

/* ---- the convolution ----------------------------------------------------------------------- */

/* Mismatches of rows [first, first + m) with the filters of all groups. */
static void sum_groups(const bitops_isa *isa, const bitops_conv_args *args, size_t first, size_t m,
                       int32_t *sums, void *workspace, int n_threads) {
    if (is_depthwise(args)) {
        BITOPS_PARALLEL_FOR(m * args->filters < THREAD_WORK ? 1 : n_threads, schedule(static))
        for (ptrdiff_t i = 0; i < (ptrdiff_t)m; i++)
            depthwise_row(isa, args, first + (size_t)i, sums + (size_t)i * args->filters);
        return;
    }
    for (size_t group = 0; group < args->groups; group++) {
        bitops_image image = args->image;
        image.first_channel = group * image.channels;
        bitops_gemm_args product = group_product(isa, args, group, first, m);
        product.image = &image;
        product.store = (bitops_store){.kind = BITOPS_STORE_HAMMING,
                                       .k = args->store.k,
                                       .c = sums + group * product.n,
                                       .ldc = args->filters};
        bitops_gemm(isa, &product, workspace, n_threads);
    }
}

/* Columns beyond the last filter, in the words that store_block leaves alone, are cleared here. */
static void store_sums(const bitops_conv_args *args, const int32_t *sums, size_t first, size_t m,
                       uint32_t *offset_row, int n_threads) {
    bitops_store store = args->store;
    if (store.offset) {
        bitops_gather_offsets(&args->image, first, m, offset_row);
        store.offset_row = offset_row;
        store.first_row = first;
    }
    BITOPS_PARALLEL_FOR(m * args->filters < THREAD_WORK ? 1 : n_threads, schedule(static))
    for (ptrdiff_t i = 0; i < (ptrdiff_t)m; i++) {
        const size_t row = first + (size_t)i;
        if (store.kind == BITOPS_STORE_SIGN)
            ((uint64_t *)store.c)[row * store.ldc + bitops_words(args->filters) - 1] = 0;
        store_block(sums + (size_t)i * args->filters, args->filters, 1, args->filters, row, 0,
                    &store);
    }
}

static void conv_groups(const bitops_isa *isa, const bitops_conv_args *args, const plan *p,
                        uint64_t *workspace, int n_threads) {
    int32_t *sums = (int32_t *)workspace;
    uint32_t *offset_row = (uint32_t *)(workspace + p->sums_words);
    void *scratch = workspace + p->sums_words + p->rows_words;
    const size_t rows = count_rows(args);
    for (size_t first = 0; first < rows && !bitops_stopped(args->stop); first += p->rows) {
        const size_t m = min_size(p->rows, rows - first);
        sum_groups(isa, args, first, m, sums, scratch, n_threads);
        store_sums(args, sums, first, m, offset_row, n_threads);
    }
}

void bitops_conv(const bitops_isa *isa, const bitops_conv_args *args, void *workspace,
                 int n_threads) {
    if (args->filters == 0 || count_rows(args) == 0)
        return;
    const plan p = make_plan(args);
    bitops_conv_args own = *args;
    own.store.offset = args->offsets;
    own.store.ld_offset = args->filters;
    if (args->groups > 1) {
        conv_groups(isa, &own, &p, workspace, n_threads);
    } else {
        const bitops_gemm_args product = group_product(isa, &own, 0, 0, count_rows(args));
        bitops_gemm(isa, &product, workspace, n_threads);
    }
}
