/* kernels_test_tiles.c: tests of codes times weights by tiles, and of convolutions of codes. */
#include "kernels_test.h"

#include <string.h>

/* Tiles of x that lie anywhere, added to sums twice. */
static void tiles_case(const bitops_isa *isa, size_t rows, size_t words, size_t n, int pattern) {
    enum { BITS = BITOPS_TILE_BITS, BLOCK = BITOPS_TILE_ROWS * BITOPS_TILE_COLUMNS };
    const size_t ldx = words * BITS + n % 5, stride = n + words % 3;
    const size_t whole = (rows + BITOPS_TILE_MULTIPLE - 1) / BITOPS_TILE_MULTIPLE;
    uint8_t *x = input(0, whole * BITOPS_TILE_MULTIPLE * ldx);
    uint8_t *ordered = input(3, whole * BITOPS_TILE_MULTIPLE * ldx);
    for (size_t i = 0; i < rows * ldx; i++)
        x[i] = pattern == RANDOM ? (uint8_t)random64() : 255;
    isa->tile_rows(x, ldx, rows, words * BITS, ordered, ldx);
    const uint64_t *w = input_words(1, (words - 1) * stride + n, pattern);
    ptrdiff_t places[BITOPS_TILE_WORDS];
    for (size_t p = 0; p < words; p++)
        places[p] = (ptrdiff_t)((words - 1 - p) * BITS);
    const size_t numbers = (n + BITOPS_TILE_COLUMNS - 1) / BITOPS_TILE_COLUMNS * BLOCK;
    const outputs out = make_outputs(numbers * sizeof(int32_t), 0);
    int32_t *got = (int32_t *)out.got, *want = (int32_t *)out.want;
    bitops_tiles t = {ordered, ldx, rows, places, w, stride, words, n, got, 1};
    isa->tiles_u8(&t);
    t.first = 0;
    isa->tiles_u8(&t);
    for (size_t i = 0; i < numbers; i++) {
        const size_t r = i % BLOCK / BITOPS_TILE_COLUMNS;
        const size_t j = i / BLOCK * BITOPS_TILE_COLUMNS + i % BITOPS_TILE_COLUMNS;
        want[i] = got[i]; /* anything where there is no row or column */
        if (r >= rows || j >= n)
            continue;
        want[i] = 0;
        for (size_t k = 0; k < words * BITS; k++) {
            const int code = x[r * ldx + (size_t)places[k / BITS] + k % BITS];
            want[i] += w[k / BITS * stride + j] >> k % BITS & 1 ? 2 * code : -2 * code;
        }
    }
    check_outputs(rows, words, n);
}

static void test_tiles_u8(const bitops_isa *isa) {
    static const size_t columns[] = {1, 15, 16, 17, 31, 32, 33, 48, 127, 128, 129, 150, 260};
    int turn = 0;
    for (size_t rows = 1; rows <= BITOPS_TILE_ROWS; rows += 1 + rows % 15 / 3)
        for (size_t i = 0; i < COUNT(columns); i++, turn++)
            tiles_case(isa, rows, 1 + (size_t)turn % BITOPS_TILE_WORDS, columns[i],
                       turn % PATTERNS);
}

/* Of each 32 bytes, the first of every 8, then the second ones and so on; also in place. */
static void test_tile_rows(const bitops_isa *isa) {
    enum { BYTES = BITOPS_TILE_BITS, HALF = BYTES / 2 };
    for (size_t bytes = 1; bytes <= 5 * BYTES; bytes += 1 + bytes / 5)
        for (size_t rows = 1; rows <= 3; rows++) {
            const size_t whole = (bytes + BYTES - 1) / BYTES * BYTES;
            const size_t ldx = whole + rows % 2, ld_out = bytes % 2 ? ldx : whole;
            uint8_t *x = input(0, rows * ldx);
            for (size_t i = 0; i < rows * ldx; i++)
                x[i] = (uint8_t)random64();
            const outputs out = make_outputs(rows * ld_out, 0);
            memset(out.got, 0, rows * ld_out); /* also between the rows */
            memset(out.want, 0, rows * ld_out);
            for (size_t r = 0; r < rows; r++)
                for (size_t i = 0; i < bytes; i++) {
                    const size_t place = i % HALF;
                    ((uint8_t *)out.want)[r * ld_out + i - place + place % 8 * 4 + place / 8] =
                        x[r * ldx + i];
                }
            isa->tile_rows(x, ldx, rows, bytes, out.got, ld_out);
            check_outputs(bytes, rows, ldx);
            if (ld_out == ldx) {
                memcpy(out.got, x, rows * ldx);
                isa->tile_rows(out.got, ldx, rows, bytes, out.got, ldx);
                for (size_t r = 0; r < rows; r++) /* what was between the rows is there still */
                    memset((uint8_t *)out.got + r * ldx + whole, 0, ldx - whole);
                check_outputs(bytes, rows, ldx);
            }
        }
}

const named_test tile_tests[] = {
    {"tiles_u8", test_tiles_u8},
    {"tile_rows", test_tile_rows},
    {NULL, NULL},
};

/* ---- the driver ---------------------------------------------------------------------------- */

/* A convolution of codes by its patches. */
static void multiply_patches(const bitops_mixed_args *args, const bitops_image *im, uint8_t outside,
                             int32_t *c) {
    const size_t channels = args->k / (im->kernel_height * im->kernel_width);
    const size_t positions = im->out_height * im->out_width;
    const uint8_t *x = args->x;
    for (size_t i = 0; i < args->m; i++) {
        const size_t image = i / positions, y = i % positions / im->out_width * im->stride_y;
        const size_t left = i % im->out_width * im->stride_x;
        for (size_t j = 0; j < args->n; j++) {
            int32_t sum = 0;
            for (size_t k = 0; k < args->k; k++) {
                const size_t tap = k / channels;
                /* both wrap before the image */
                const size_t line = y + tap / im->kernel_width * im->dilation_y - im->pad_top;
                const size_t pixel = left + tap % im->kernel_width * im->dilation_x - im->pad_left;
                const int inside = line < im->height && pixel < im->width;
                const size_t place = ((image * im->height + line) * im->width + pixel) * channels;
                const int code = (inside ? x[place + k % channels] : outside) - args->zero;
                sum += args->w[j * args->ldw + k / 64] >> k % 64 & 1 ? code : -code;
            }
            c[i * args->n + j] = sum;
        }
    }
}

/* Two images, padded by a pixel more above and on the left than below and on the right. */
static void code_conv_case(const bitops_isa *isa, int bits, size_t channels, size_t n,
                           size_t stride_x, size_t dilation_y, size_t kernel_width) {
    enum { IMAGES = 2, H = 5, W = 9 };
    bitops_image im = {.height = H, .width = W, .kernel_height = 2, .kernel_width = kernel_width};
    im.stride_y = im.dilation_x = 1;
    im.stride_x = stride_x;
    im.dilation_y = dilation_y;
    im.pad_top = im.pad_left = 2;
    im.out_height = H + 3 - dilation_y;
    im.out_width = (W + 3 - kernel_width) / stride_x + 1;
    bitops_mixed_args args = {.bits = bits, .zero = 1 << (bits - 1), .n = n};
    args.m = IMAGES * im.out_height * im.out_width;
    args.k = 2 * kernel_width * channels;
    args.ldw = bitops_words(args.k);
    uint8_t *x = input(0, IMAGES * H * W * channels);
    for (size_t i = 0; i < IMAGES * H * W * channels; i++)
        x[i] = (uint8_t)(random64() % (1u << bits));
    args.x = x;
    args.w = input_words(1, n * args.ldw, RANDOM); /* channels fill words */
    const bitops_code_way way = bitops_choose_code_way(isa, &args, &im, 1);
    if (way == BITOPS_CODE_PATCHES)
        return;
    const outputs out = make_outputs(args.m * n * sizeof(int32_t), 0);
    args.c = out.got;
    void *workspace = workspace_of(bitops_conv_codes_workspace_size(way, isa, &args, &im, 1));
    bitops_conv_codes(way, isa, &args, &im, 3, workspace, 1);
    free_workspace(workspace);
    multiply_patches(&args, &im, 3, (int32_t *)out.want);
    check_outputs(args.m, n, args.k);
}

void test_code_conv_driver(const bitops_isa *isa) {
    for (int bits = 6; bits <= 8; bits += 2)
        for (size_t kernel_width = 1; kernel_width <= 4; kernel_width++) {
            code_conv_case(isa, bits, 64, 40, 1, 1, kernel_width);
            code_conv_case(isa, bits, 128, 130, 2, 1, kernel_width);
            code_conv_case(isa, bits, 576, 33, 1, 3, kernel_width);
            code_conv_case(isa, bits, 64, 1030, 3, 2, kernel_width);
        }
}
