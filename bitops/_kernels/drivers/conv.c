/* conv.c: the driver of convolutions with bits on both sides.
 *
 * A convolution is the product of the im2col matrix of the images with the filters. bitops_gemm
 * gathers the rows of that matrix block by block, so that it is never in memory.
 *
 * Positions outside that add nothing ("true zeros") have no bit. They are gathered as zeros, that
 * is as -1, and each output is given back the sum of the weights that met them. Which taps lie
 * outside depends only on the line and on the column of the output. Each direction has few cases;
 * case 0 is "all taps inside". For a kernel of 3 x 3 with padding 1:
 *
 *                    column 0   1 .. w-2   w-1
 *                     case 1     case 0   case 2
 *   line 0   case 1      4          3        5
 *   1 .. h-2 case 0      1          0        2        row of the table = 3 case_y + case_x
 *   line h-1 case 2      7          6        8
 *
 * The table of offsets (bitops_store.offset) has a row for each pair of cases, with one sum for
 * each filter. Row 0 is all zeros, and the store skips it.
 *
 * Groups: a block of rows is multiplied by the filters of one group after the other. If the signs
 * of a group do not begin at a word of the output, the dot products of all groups go to a block of
 * int32, whose signs are packed. Filters of one channel each are left to depthwise.c, those of few
 * channels to narrow.c. */
#include "bitops.h"
#include "drivers/depthwise.h"
#include "drivers/narrow.h"
#include "drivers/sizes.h"
#include "drivers/taps.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    DOTS = 1 << 18,        /* int32 of a block of all groups: 1 MiB */
    DOTS_ROWS = 2048,      /* rows of it, at most */
    SIGNS = 1 << 10,       /* packed at a time, a multiple of 64 */
    THREAD_WORK = 1 << 14, /* sums to be transformed: below, one thread is faster */
};

static int is_depthwise(const bitops_conv_args *args) {
    return bitops_is_depthwise(args->image.channels, args->groups, args->filters);
}

static size_t count_rows(const bitops_conv_args *args) {
    return args->images * args->image.out_height * args->image.out_width;
}

/* Each output sees the pixel of its place. */
static int is_product(const bitops_conv_args *args) {
    const bitops_image *im = &args->image;
    return args->groups == 1 && im->kernel_height == 1 && im->kernel_width == 1 &&
           im->stride_y == 1 && im->stride_x == 1 && im->out_height == im->height &&
           im->out_width == im->width;
}

/* ---- offsets of positions outside ---------------------------------------------------------- */

/* Numbers the cases of one direction: 0 for all taps inside, the others as they come. Outputs with
 * equal ranges are neighbours, because both ends of a range fall from output to output. number_out
 * has an entry for each output, ranges_out one for each case; either may be NULL. Returns the
 * number of cases. */
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

/* Sums over all taps above and left of a corner, for each of the (taps + 1) x (taps + 1) corners
 * and each filter. With them the sum over a rectangle of taps takes four numbers, however large it
 * is:
 *
 *     a-----b
 *     |     |     inside = d - b - c + a
 *     c-----d
 */
static void fill_areas(const bitops_conv_args *args, const int32_t *tap_sums, int32_t *areas,
                       bitops_stop *stop) {
    const size_t n = args->filters, width = args->image.kernel_width;
    const size_t line = (width + 1) * n;
    memset(areas, 0, line * sizeof *areas);
    for (size_t ky = 0; ky < args->image.kernel_height && !bitops_stopped(stop); ky++) {
        int32_t *area = areas + (ky + 1) * line;
        memset(area, 0, n * sizeof *area);
        for (size_t i = 0; i < width * n; i++) /* left of the corner, in its own line of taps */
            area[n + i] = area[i] + tap_sums[ky * width * n + i];
        for (size_t i = n; i < line; i++)
            area[i] += area[i - line];
    }
}

/* Fills the row of the table for two cases: sums of the taps that lie outside in either direction.
 */
static void fill_outside(const bitops_conv_args *args, const int32_t *areas, tap_range y,
                         tap_range x, int32_t *row) {
    const size_t n = args->filters, width = args->image.kernel_width + 1;
    const int32_t *a = areas + (y.begin * width + x.begin) * n;
    const int32_t *b = areas + (y.begin * width + x.end) * n;
    const int32_t *c = areas + (y.end * width + x.begin) * n;
    const int32_t *d = areas + (y.end * width + x.end) * n;
    const int32_t *all = areas + (args->image.kernel_height * width + width - 1) * n;
    for (size_t j = 0; j < n; j++)
        row[j] = all[j] - (d[j] - b[j] - c[j] + a[j]);
}

/* The parts of the offsets, one after the other. */
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

size_t bitops_conv_areas_size(const bitops_conv_args *args) {
    const bitops_image *im = &args->image;
    return (im->kernel_height + 1) * (im->kernel_width + 1) * args->filters * sizeof(int32_t);
}

void bitops_conv_fill_offsets(bitops_conv_args *args, const int32_t *tap_sums, void *memory,
                              void *workspace, bitops_stop *stop) {
    const offsets o = place_offsets(args, memory);
    const taps_axis v = vertical_taps(&args->image), h = horizontal_taps(&args->image);
    const size_t cases_y = number_cases(&v, o.number_y, o.ranges_y);
    number_cases(&h, o.number_x, o.ranges_x);
    fill_areas(args, tap_sums, workspace, stop);
    for (size_t y = 0; y < cases_y && !bitops_stopped(stop); y++)
        for (size_t x = 0; x < o.cases_x; x++)
            fill_outside(args, workspace, o.ranges_y[y], o.ranges_x[x],
                         o.table + (y * o.cases_x + x) * args->filters);
    args->image.offset_y = o.number_y;
    args->image.offset_x = o.number_x;
    args->image.offsets_x = o.cases_x;
    args->offsets = o.table;
}

/* ---- the plan ------------------------------------------------------------------------------ */

/* A block of all groups; sizes are in words of the workspace. */
typedef struct conv_plan {
    size_t rows;
    size_t dots_words;
} conv_plan;

static conv_plan make_plan(const bitops_conv_args *args) {
    conv_plan plan = {0};
    if (args->groups > 1) {
        plan.rows =
            min_size(max_size(DOTS / args->filters, 1), min_size(DOTS_ROWS, count_rows(args)));
        plan.dots_words = words_of_int32(plan.rows * args->filters);
    }
    return plan;
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
    if (is_product(args)) { /* rows of the im2col matrix are pixels */
        product.image = NULL;
        product.a = args->image.x;
        product.lda = k_words;
    }
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
    product.store.offset = args->offsets; /* if not NULL, there must be room for offset_row */
    return bitops_gemm_workspace_size(isa, &product, n_threads) / sizeof(uint64_t);
}

size_t bitops_conv_workspace_size(const bitops_isa *isa, const bitops_conv_args *args,
                                  int n_threads) {
    const conv_plan plan = make_plan(args);
    const size_t rows = count_rows(args);
    if (args->filters == 0 || rows == 0)
        return 0;
    if (is_depthwise(args))
        return bitops_depthwise_workspace_size(args, n_threads);
    if (bitops_is_narrow_conv(isa, args))
        return 0;
    const size_t most = args->groups == 1 ? rows : plan.rows; /* of a product */
    return (product_words(isa, args, most, n_threads) + plan.dots_words) * sizeof(uint64_t);
}

/* ---- the convolution ----------------------------------------------------------------------- */

/* Whether the columns of a group begin where a store can: anywhere, or at a word of signs. */
static int stores_groups(const bitops_conv_args *args) {
    return args->store.kind != BITOPS_STORE_SIGN ||
           args->filters / args->groups % BITOPS_WORD_BITS == 0;
}

/* The store of rows from `first` on and columns from `col` on. */
static bitops_store store_at(const bitops_store *all, size_t first, size_t col) {
    const int signs = all->kind == BITOPS_STORE_SIGN;
    const size_t at = first * all->ldc + (signs ? col / BITOPS_WORD_BITS : col);
    bitops_store store = *all;
    store.c = (char *)all->c + at * (signs ? sizeof(uint64_t) : sizeof(int32_t));
    if (store.offset)
        store.offset += col;
    if (store.alpha)
        store.alpha += col;
    if (store.k_map)
        store.k_map += first;
    if (store.bias)
        store.bias += col;
    if (store.threshold)
        store.threshold += col;
    if (store.flip)
        store.flip += col / BITOPS_WORD_BITS;
    return store;
}

/* Multiplies rows [first, first + m) by the filters of all groups. Stores the results, or, if dots
 * is not NULL, the dot products there. */
static void multiply_groups(const bitops_isa *isa, const bitops_conv_args *args, size_t first,
                            size_t m, int32_t *dots, void *workspace, int n_threads) {
    for (size_t group = 0; group < args->groups; group++) {
        bitops_image image = args->image;
        image.first_channel = group * image.channels;
        bitops_gemm_args product = group_product(isa, args, group, first, m);
        product.image = &image;
        product.store = store_at(&args->store, first, group * product.n);
        if (dots) {
            product.store.kind = BITOPS_STORE_DOT;
            product.store.c = dots + group * product.n;
            product.store.ldc = args->filters;
            product.store.threshold = NULL;
            product.store.flip = NULL;
        }
        bitops_gemm(isa, &product, workspace, n_threads);
    }
}

/* Packs the signs of one row of dot products. */
static void pack_signs(const bitops_isa *isa, const bitops_conv_args *args, const int32_t *dots,
                       uint64_t *words_out) {
    const bitops_store *store = &args->store;
    uint8_t above[SIGNS];
    for (size_t j = 0; j < args->filters; j += SIGNS) {
        const size_t n = min_size(SIGNS, args->filters - j);
        int nan;
        for (size_t i = 0; i < n; i++)
            above[i] = dots[j + i] > store->threshold[j + i];
        isa->pack_bool8(above, n, words_out + j / BITOPS_WORD_BITS, &nan);
    }
    if (store->flip)
        for (size_t i = 0; i < bitops_words(args->filters); i++)
            words_out[i] ^= store->flip[i];
}

static void conv_groups(const bitops_isa *isa, const bitops_conv_args *args, const conv_plan *plan,
                        uint64_t *workspace, int n_threads) {
    int32_t *dots = stores_groups(args) ? NULL : (int32_t *)workspace;
    void *scratch = workspace + plan->dots_words;
    const size_t rows = count_rows(args), n = args->filters;
    for (size_t first = 0; first < rows && !bitops_stopped(args->stop); first += plan->rows) {
        const size_t m = min_size(plan->rows, rows - first);
        multiply_groups(isa, args, first, m, dots, scratch, n_threads);
        if (!dots)
            continue;
        uint64_t *c = (uint64_t *)args->store.c + first * args->store.ldc;
        BITOPS_PARALLEL_FOR(bitops_share((double)m * (double)n, THREAD_WORK, n_threads),
                            schedule(static))
        for (ptrdiff_t i = 0; i < (ptrdiff_t)m; i++)
            pack_signs(isa, args, dots + (size_t)i * n, c + (size_t)i * args->store.ldc);
    }
}

void bitops_conv(const bitops_isa *isa, const bitops_conv_args *args, void *workspace,
                 int n_threads) {
    if (args->filters == 0 || count_rows(args) == 0)
        return;
    const conv_plan plan = make_plan(args);
    bitops_conv_args own = *args;
    own.store.offset = args->offsets;
    own.store.ld_offset = args->filters;
    if (is_depthwise(args)) {
        bitops_depthwise(isa, &own, workspace, n_threads);
    } else if (bitops_is_narrow_conv(isa, args)) {
        bitops_narrow_conv(isa, &own, n_threads);
    } else if (args->groups > 1) {
        conv_groups(isa, &own, &plan, workspace, n_threads);
    } else {
        const bitops_gemm_args product = group_product(isa, &own, 0, 0, count_rows(args));
        bitops_gemm(isa, &product, workspace, n_threads);
    }
}
