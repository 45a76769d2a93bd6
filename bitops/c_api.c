/* c_api.c: the table of bitops_api.h over the drivers. It checks what can be checked without
 * reading the operands, finds workspaces and calls. */
#include "c_api.h"

#include "bitops.h"

#include <string.h>

/* Sizes whose product no memory could hold. */
static int too_large(size_t a, size_t b) {
    return b && a > (size_t)PTRDIFF_MAX / sizeof(uint64_t) / b;
}

/* ---- pack, unpack, popcount --------------------------------------------------------------- */

static int pack(bitops_dtype dtype, const void *x, size_t rows, size_t k, uint64_t *words_out) {
    if (rows == 0 || k == 0)
        return BITOPS_OK;
    if (!x || !words_out || too_large(rows, k))
        return BITOPS_BAD_ARGUMENT;
    return bitops_pack_rows(bitops_isa_active(), dtype, x, rows, k, words_out, NULL,
                            bitops_get_num_threads())
               ? BITOPS_NAN
               : BITOPS_OK;
}

static int pack_bool8(const uint8_t *x, size_t rows, size_t k, uint64_t *words_out) {
    return pack(BITOPS_BOOL8, x, rows, k, words_out);
}

static int pack_i8(const int8_t *x, size_t rows, size_t k, uint64_t *words_out) {
    return pack(BITOPS_I8, x, rows, k, words_out);
}

static int pack_i32(const int32_t *x, size_t rows, size_t k, uint64_t *words_out) {
    return pack(BITOPS_I32, x, rows, k, words_out);
}

static int pack_f32(const float *x, size_t rows, size_t k, uint64_t *words_out) {
    return pack(BITOPS_F32, x, rows, k, words_out);
}

static int pack_f64(const double *x, size_t rows, size_t k, uint64_t *words_out) {
    return pack(BITOPS_F64, x, rows, k, words_out);
}

static int unpack(bitops_dtype dtype, const uint64_t *words, size_t rows, size_t k, void *x_out) {
    if (rows == 0 || k == 0)
        return BITOPS_OK;
    if (!words || !x_out || too_large(rows, k))
        return BITOPS_BAD_ARGUMENT;
    bitops_unpack_rows(bitops_isa_active(), dtype, words, rows, k, x_out, NULL,
                       bitops_get_num_threads());
    return BITOPS_OK;
}

static int unpack_i8(const uint64_t *words, size_t rows, size_t k, int8_t *x_out) {
    return unpack(BITOPS_I8, words, rows, k, x_out);
}

static int unpack_f32(const uint64_t *words, size_t rows, size_t k, float *x_out) {
    return unpack(BITOPS_F32, words, rows, k, x_out);
}

static int popcount(const uint64_t *words, size_t rows, size_t n_words, int64_t *count_out) {
    if (rows == 0)
        return BITOPS_OK;
    if (!count_out || (!words && n_words) || too_large(rows, n_words))
        return BITOPS_BAD_ARGUMENT;
    if (n_words == 0)
        memset(count_out, 0, rows * sizeof *count_out);
    else
        bitops_popcount_rows(bitops_isa_active(), words, rows, n_words, count_out, NULL,
                             bitops_get_num_threads());
    return BITOPS_OK;
}

/* ---- products ----------------------------------------------------------------------------- */

struct bitops_panels {
    const bitops_isa *isa;
    size_t rows, k;
    uint64_t *words;
};

static int is_matrix(const bitops_matrix *x) {
    return x && x->k <= INT32_MAX && x->ld >= bitops_words(x->k) && !too_large(x->rows, x->ld) &&
           (x->words || x->rows == 0 || x->k == 0);
}

static void free_panels(bitops_panels *panels) {
    if (panels)
        bitops_free(panels->words);
    bitops_free(panels);
}

static int prepack(const bitops_matrix *w, bitops_panels **panels_out) {
    if (!is_matrix(w) || !panels_out)
        return BITOPS_BAD_ARGUMENT;
    const bitops_isa *isa = bitops_isa_active();
    const size_t k_words = bitops_words(w->k);
    bitops_panels *panels = bitops_allocate(sizeof *panels);
    if (!panels)
        return BITOPS_NO_MEMORY;
    *panels = (bitops_panels){.isa = isa, .rows = w->rows, .k = w->k};
    panels->words = bitops_allocate(bitops_prepack_size(isa, w->rows, k_words) * sizeof(uint64_t));
    if (!panels->words) {
        free_panels(panels);
        return BITOPS_NO_MEMORY;
    }
    if (w->rows && k_words)
        bitops_prepack_all(isa, w->words, w->ld, w->rows, k_words, panels->words, NULL,
                           bitops_get_num_threads());
    *panels_out = panels;
    return BITOPS_OK;
}

/* Fills in the operands of a product whose outputs have `columns` elements of c in a row. */
static int set_operands(const bitops_matrix *a, const bitops_matrix *w, size_t columns,
                        bitops_gemm_args *args, const bitops_isa **isa) {
    const bitops_store *store = &args->store;
    if (!is_matrix(a) || !is_matrix(w) || a->k != w->k)
        return BITOPS_BAD_ARGUMENT;
    if ((!store->c && a->rows && w->rows) || store->ldc < columns || too_large(a->rows, store->ldc))
        return BITOPS_BAD_ARGUMENT;
    if (w->panels && (w->panels->rows != w->rows || w->panels->k != w->k))
        return BITOPS_BAD_ARGUMENT;
    *isa = w->panels ? w->panels->isa : bitops_isa_active();
    args->a = a->words;
    args->lda = a->ld;
    args->m = a->rows;
    args->w = w->words;
    args->ldw = w->ld;
    args->n = w->rows;
    args->panels = w->panels ? w->panels->words : NULL;
    args->k_words = bitops_words(a->k);
    args->store.k = (int32_t)a->k;
    return BITOPS_OK;
}

static int multiply(const bitops_matrix *a, const bitops_matrix *w, bitops_store store,
                    size_t columns) {
    bitops_gemm_args args = {.store = store};
    const bitops_isa *isa = NULL;
    const int status = set_operands(a, w, columns, &args, &isa);
    if (status != BITOPS_OK || a->rows == 0 || w->rows == 0)
        return status;
    const int n_threads = bitops_get_num_threads();
    void *workspace = bitops_allocate(bitops_gemm_workspace_size(isa, &args, n_threads));
    if (!workspace)
        return BITOPS_NO_MEMORY;
    bitops_gemm(isa, &args, workspace, n_threads);
    bitops_free(workspace);
    return BITOPS_OK;
}

static size_t rows_of(const bitops_matrix *w) {
    return w ? w->rows : 0;
}

static int gemm(const bitops_matrix *a, const bitops_matrix *w, int32_t *c_out, size_t ldc) {
    return multiply(a, w, (bitops_store){.kind = BITOPS_STORE_DOT, .c = c_out, .ldc = ldc},
                    rows_of(w));
}

static bitops_store scaled_store(const bitops_scales *scales, float *c_out, size_t ldc) {
    return (bitops_store){.kind = BITOPS_STORE_SCALED,
                          .c = c_out,
                          .ldc = ldc,
                          .alpha = scales->alpha,
                          .k_map = scales->k_map,
                          .bias = scales->bias};
}

static int gemm_scaled(const bitops_matrix *a, const bitops_matrix *w, const bitops_scales *scales,
                       float *c_out, size_t ldc) {
    if (!scales)
        return BITOPS_BAD_ARGUMENT;
    return multiply(a, w, scaled_store(scales, c_out, ldc), rows_of(w));
}

static bitops_store sign_store(const int32_t *threshold, const uint64_t *flip, uint64_t *c_out,
                               size_t ldc) {
    return (bitops_store){
        .kind = BITOPS_STORE_SIGN, .c = c_out, .ldc = ldc, .threshold = threshold, .flip = flip};
}

static int gemm_sign(const bitops_matrix *a, const bitops_matrix *w, const int32_t *threshold,
                     const uint64_t *flip, uint64_t *c_out, size_t ldc) {
    if (!threshold && rows_of(w))
        return BITOPS_BAD_ARGUMENT;
    return multiply(a, w, sign_store(threshold, flip, c_out, ldc), bitops_words(rows_of(w)));
}

static int hamming(const bitops_matrix *a, const bitops_matrix *b, int32_t *c_out, size_t ldc) {
    return multiply(a, b, (bitops_store){.kind = BITOPS_STORE_HAMMING, .c = c_out, .ldc = ldc},
                    rows_of(b));
}

static int hamming_topk(const bitops_matrix *a, const bitops_matrix *b, size_t count,
                        int32_t *distances_out, int64_t *indices_out) {
    bitops_gemm_args args = {
        .store = {.kind = BITOPS_STORE_HAMMING, .c = distances_out, .ldc = count}};
    const bitops_isa *isa = NULL;
    const int status = set_operands(a, b, count, &args, &isa);
    if (status != BITOPS_OK)
        return status;
    if (count == 0 || count > b->rows || b->rows > UINT32_MAX || (!indices_out && a->rows))
        return BITOPS_BAD_ARGUMENT;
    if (a->rows == 0)
        return BITOPS_OK;
    const int n_threads = bitops_get_num_threads();
    void *workspace = bitops_allocate(bitops_topk_workspace_size(isa, &args, count, n_threads));
    if (!workspace)
        return BITOPS_NO_MEMORY;
    bitops_topk(isa, &args, count, indices_out, workspace, n_threads);
    bitops_free(workspace);
    return BITOPS_OK;
}

/* ---- convolutions ------------------------------------------------------------------------- */

struct bitops_conv2d {
    bitops_conv_args args;
    const bitops_isa *isa;
    uint64_t *w;   /* filters in the order of the driver: panels, but for depthwise ones */
    void *offsets; /* of positions outside that add nothing, or NULL */
};

/* Writes the output positions of one direction; returns 0 if the windows are wrong. */
static int count_windows(size_t size, size_t before, size_t after, size_t kernel, size_t dilation,
                         size_t stride, size_t *output) {
    const size_t most = INT32_MAX;
    if (size > most || before > most || after > most || kernel > most || dilation > most ||
        stride > most || !size || !kernel || !dilation || !stride)
        return 0;
    const size_t padded = size + before + after;
    if (kernel - 1 > (SIZE_MAX - 1) / dilation)
        return 0;
    const size_t span = (kernel - 1) * dilation + 1;
    if (span > padded)
        return 0;
    *output = (padded - span) / stride + 1;
    return *output <= most;
}

static int set_image(const bitops_conv2d_shape *s, bitops_conv_args *args) {
    bitops_image *im = &args->image;
    const size_t most = INT32_MAX;
    if (s->channels == 0 || s->channels > most || s->filters == 0 || s->filters > most ||
        s->groups == 0 || s->channels % s->groups || s->filters % s->groups || s->pad_value < -1 ||
        s->pad_value > 1)
        return 0;
    *im = (bitops_image){.pixel_words = bitops_words(s->channels),
                         .height = s->height,
                         .width = s->width,
                         .channels = s->channels / s->groups,
                         .kernel_height = s->kernel_height,
                         .kernel_width = s->kernel_width,
                         .stride_y = s->stride_y,
                         .stride_x = s->stride_x,
                         .pad_top = s->pad_top,
                         .pad_left = s->pad_left,
                         .dilation_y = s->dilation_y,
                         .dilation_x = s->dilation_x,
                         .outside = s->pad_value == 1 ? ~(uint64_t)0 : 0};
    if (!count_windows(s->height, s->pad_top, s->pad_bottom, s->kernel_height, s->dilation_y,
                       s->stride_y, &im->out_height) ||
        !count_windows(s->width, s->pad_left, s->pad_right, s->kernel_width, s->dilation_x,
                       s->stride_x, &im->out_width))
        return 0;
    const size_t taps = s->kernel_height * s->kernel_width; /* each below 2^31 */
    if (taps > most || taps * im->channels > most || too_large(s->filters, taps * im->channels) ||
        too_large(im->out_height, im->out_width) ||
        too_large(im->out_height * im->out_width, s->filters))
        return 0;
    args->filters = s->filters;
    args->groups = s->groups;
    args->store.k = (int32_t)(taps * im->channels);
    return 1;
}

static size_t tap_count(const bitops_conv_args *args) {
    return args->image.kernel_height * args->image.kernel_width;
}

/* Rows of the bits of a filter without gaps: each is the one window of an image of its size. */
static uint64_t *order_filters(const bitops_conv_args *args, const uint64_t *w) {
    const size_t row_words = bitops_words((size_t)args->store.k);
    uint64_t *rows = bitops_allocate(args->filters * row_words * sizeof *rows);
    if (!rows)
        return NULL;
    const bitops_image filter = {.x = w,
                                 .pixel_words = bitops_words(args->image.channels),
                                 .height = args->image.kernel_height,
                                 .width = args->image.kernel_width,
                                 .channels = args->image.channels,
                                 .kernel_height = args->image.kernel_height,
                                 .kernel_width = args->image.kernel_width,
                                 .stride_y = 1,
                                 .stride_x = 1,
                                 .dilation_y = 1,
                                 .dilation_x = 1,
                                 .out_height = 1,
                                 .out_width = 1};
    bitops_im2col(&filter, args->filters, rows, NULL, bitops_get_num_threads());
    return rows;
}

/* The panels of each group, one after the other. */
static uint64_t *make_panels(const bitops_conv_args *args, const uint64_t *w,
                             const bitops_isa *isa) {
    const size_t n = args->filters / args->groups, k_words = bitops_words((size_t)args->store.k);
    const size_t size = bitops_prepack_size(isa, n, k_words);
    uint64_t *rows = order_filters(args, w);
    uint64_t *panels = rows ? bitops_allocate(args->groups * size * sizeof *panels) : NULL;
    for (size_t group = 0; panels && group < args->groups; group++)
        bitops_prepack_all(isa, rows + group * n * k_words, k_words, n, k_words,
                           panels + group * size, NULL, bitops_get_num_threads());
    bitops_free(rows);
    return panels;
}

/* For each filter of a group and each tap, the bits of all groups. */
static uint64_t *order_depthwise(const bitops_conv_args *args, const uint64_t *w) {
    const size_t taps = tap_count(args), each = args->filters / args->groups;
    const size_t bytes = each * taps * args->image.pixel_words * sizeof(uint64_t);
    uint64_t *rows = bitops_allocate(bytes);
    if (!rows)
        return NULL;
    memset(rows, 0, bytes);
    for (size_t group = 0; group < args->groups; group++)
        for (size_t i = 0; i < each * taps; i++) /* a weight is a word with one bit */
            rows[i * args->image.pixel_words + group / 64] |= (w[group * each * taps + i] & 1)
                                                              << group % 64;
    return rows;
}

/* Sums of the +-1 weights of each tap, taps x filters. */
static int32_t *sum_taps(const bitops_conv_args *args, const uint64_t *w) {
    const size_t taps = tap_count(args), tap_words = bitops_words(args->image.channels);
    int32_t *sums = bitops_allocate(taps * args->filters * sizeof *sums);
    if (!sums)
        return NULL;
    for (size_t filter = 0; filter < args->filters; filter++)
        for (size_t tap = 0; tap < taps; tap++) {
            int64_t ones;
            bitops_popcount_rows(bitops_isa_active(), w + (filter * taps + tap) * tap_words, 1,
                                 tap_words, &ones, NULL, 1);
            sums[tap * args->filters + filter] =
                (int32_t)(2 * ones - (int64_t)args->image.channels);
        }
    return sums;
}

static int fill_offsets(bitops_conv2d *conv, const uint64_t *w) {
    int32_t *sums = sum_taps(&conv->args, w);
    void *areas = bitops_allocate(bitops_conv_areas_size(&conv->args));
    conv->offsets = bitops_allocate(bitops_conv_offsets_size(&conv->args));
    const int status = sums && areas && conv->offsets ? BITOPS_OK : BITOPS_NO_MEMORY;
    if (status == BITOPS_OK)
        bitops_conv_fill_offsets(&conv->args, sums, conv->offsets, areas, NULL);
    bitops_free(sums);
    bitops_free(areas);
    return status;
}

static void free_conv2d(bitops_conv2d *conv) {
    if (conv) {
        bitops_free(conv->w);
        bitops_free(conv->offsets);
    }
    bitops_free(conv);
}

static int make_conv2d(const bitops_conv2d_shape *shape, const uint64_t *w,
                       bitops_conv2d **conv_out) {
    bitops_conv_args args = {0};
    if (!shape || !w || !conv_out || !set_image(shape, &args))
        return BITOPS_BAD_ARGUMENT;
    bitops_conv2d *conv = bitops_allocate(sizeof *conv);
    if (!conv)
        return BITOPS_NO_MEMORY;
    *conv = (bitops_conv2d){.args = args, .isa = bitops_isa_active()};
    if (bitops_is_depthwise(args.image.channels, args.groups, args.filters))
        conv->args.w = conv->w = order_depthwise(&args, w);
    else
        conv->args.panels = conv->w = make_panels(&args, w, conv->isa);
    int status = conv->w ? BITOPS_OK : BITOPS_NO_MEMORY;
    const int padded = shape->pad_top || shape->pad_bottom || shape->pad_left || shape->pad_right;
    if (status == BITOPS_OK && shape->pad_value == 0 && padded)
        status = fill_offsets(conv, w);
    if (status == BITOPS_OK)
        *conv_out = conv;
    else
        free_conv2d(conv);
    return status;
}

static void conv2d_output(const bitops_conv2d *conv, size_t *height_out, size_t *width_out) {
    *height_out = conv->args.image.out_height;
    *width_out = conv->args.image.out_width;
}

static int convolve(const bitops_conv2d *conv, const uint64_t *x, size_t images,
                    bitops_store store) {
    if (!conv)
        return BITOPS_BAD_ARGUMENT;
    const bitops_image *im = &conv->args.image;
    const size_t positions = im->out_height * im->out_width;
    if (images == 0)
        return BITOPS_OK;
    if (!x || !store.c || too_large(images, positions * conv->args.filters) ||
        too_large(images, im->height * im->width * im->pixel_words))
        return BITOPS_BAD_ARGUMENT;
    bitops_conv_args args = conv->args;
    store.k = args.store.k;
    args.store = store;
    args.image.x = x;
    args.images = images;
    const int n_threads = bitops_get_num_threads();
    void *workspace = bitops_allocate(bitops_conv_workspace_size(conv->isa, &args, n_threads));
    if (!workspace)
        return BITOPS_NO_MEMORY;
    bitops_conv(conv->isa, &args, workspace, n_threads);
    bitops_free(workspace);
    return BITOPS_OK;
}

static size_t filters_of(const bitops_conv2d *conv) {
    return conv ? conv->args.filters : 0;
}

static int conv2d(const bitops_conv2d *conv, const uint64_t *x, size_t images, int32_t *c_out) {
    const bitops_store store = {.kind = BITOPS_STORE_DOT, .c = c_out, .ldc = filters_of(conv)};
    return convolve(conv, x, images, store);
}

static int conv2d_scaled(const bitops_conv2d *conv, const uint64_t *x, size_t images,
                         const bitops_scales *scales, float *c_out) {
    if (!scales)
        return BITOPS_BAD_ARGUMENT;
    return convolve(conv, x, images, scaled_store(scales, c_out, filters_of(conv)));
}

static int conv2d_sign(const bitops_conv2d *conv, const uint64_t *x, size_t images,
                       const int32_t *threshold, const uint64_t *flip, uint64_t *c_out) {
    if (!threshold)
        return BITOPS_BAD_ARGUMENT;
    return convolve(conv, x, images,
                    sign_store(threshold, flip, c_out, bitops_words(filters_of(conv))));
}

/* ---- the table ---------------------------------------------------------------------------- */

static const char *isa_name(void) {
    return bitops_isa_active()->name;
}

static void set_threads(int n) {
    bitops_set_num_threads(n < 1 ? 1 : n);
}

const bitops_api *bitops_c_api(void) {
    static const bitops_api table = {
        .version = BITOPS_API_VERSION,
        .size = sizeof table,
        .words = bitops_words,
        .isa = isa_name,
        .get_num_threads = bitops_get_num_threads,
        .set_num_threads = set_threads,
        .pack_bool8 = pack_bool8,
        .pack_i8 = pack_i8,
        .pack_i32 = pack_i32,
        .pack_f32 = pack_f32,
        .pack_f64 = pack_f64,
        .unpack_i8 = unpack_i8,
        .unpack_f32 = unpack_f32,
        .popcount = popcount,
        .prepack = prepack,
        .free_panels = free_panels,
        .gemm = gemm,
        .gemm_scaled = gemm_scaled,
        .gemm_sign = gemm_sign,
        .hamming = hamming,
        .hamming_topk = hamming_topk,
        .make_conv2d = make_conv2d,
        .free_conv2d = free_conv2d,
        .conv2d_output = conv2d_output,
        .conv2d = conv2d,
        .conv2d_scaled = conv2d_scaled,
        .conv2d_sign = conv2d_sign,
    };
    return &table;
}
