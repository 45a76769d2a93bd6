/* narrow.c: convolutions of images with few channels, or few in a group, whose lines the kernel
 * reads as they are, without gaps between pixels:
 *
 *   for each image x block of lines of outputs           shared out to threads
 *     for each word of the pixels
 *       copy the lines that they see, for each group     to the first-level cache
 *       for each group in the word
 *         conv_narrow: all outputs of the group
 *
 * All memory is on the stack, so there is no workspace. */
#include "drivers/narrow.h"

#include "drivers/sizes.h"
#include "isa/shared/target.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    PIXEL_WORDS = 1 << 11, /* lines of pixels of all groups in a word: 16 KiB */
    MAX_ROWS = 1 << 11,    /* outputs of a block, each with the number of its offsets: 8 KiB */
    MAX_COLUMNS = 32,      /* of the kernel */
    MAX_NR = 128,          /* of a panel */
    MAX_WORDS = 5,         /* of a filter */
    TASKS_A_THREAD = 4,    /* so that no thread waits long for the last one */
    THREAD_WORK = 1 << 17, /* words of filters times outputs: below, one thread is faster */
};

/* Words of a line of pixels with its borders, and one to spare, since the kernel reads past it. */
static size_t line_words(const bitops_image *im) {
    const size_t pixels = (im->out_width - 1) * im->stride_x + im->kernel_width;
    return bitops_words(pixels * im->channels) + 1;
}

/* Lines of pixels that `lines` lines of outputs see. */
static size_t seen_lines(const bitops_image *im, size_t lines) {
    return (lines - 1) * im->stride_y + (im->kernel_height - 1) * im->dilation_y + 1;
}

/* Groups in a word of a pixel. */
static size_t word_groups(const bitops_image *im, size_t groups) {
    return min_size(BITOPS_WORD_BITS / im->channels, groups);
}

/* Lines of outputs of a block, 0 if not even one has room. */
static size_t block_lines(const bitops_image *im, size_t groups) {
    const size_t room = PIXEL_WORDS / (line_words(im) * word_groups(im, groups));
    const size_t one = seen_lines(im, 1);
    if (room < one || im->out_width > MAX_ROWS)
        return 0;
    return min_size(min_size((room - one) / im->stride_y + 1, MAX_ROWS / im->out_width),
                    im->out_height);
}

int bitops_is_narrow_conv(const bitops_isa *isa, const bitops_conv_args *args) {
    const bitops_image *im = &args->image;
    const size_t c = im->channels, n = args->filters / args->groups;
    /* Signs of a group must begin at a byte. */
    const int can_store = args->groups == 1 || n % 8 == 0 || args->store.kind != BITOPS_STORE_SIGN;
    return isa->conv_narrow && (c == 8 || c == 16 || c == 32) &&
           im->kernel_height == BITOPS_NARROW_TAPS && im->kernel_width == BITOPS_NARROW_TAPS &&
           im->dilation_x == 1 && n <= MAX_COLUMNS && can_store && im->out_width > 0 &&
           block_lines(im, args->groups) > 0;
}

/* `lines` lines of outputs of an image, from line y on. */
typedef struct narrow_block {
    const bitops_isa *isa;
    const bitops_conv_args *args;
    size_t number, y, lines;
} narrow_block;

/* Copies n pixels of each of so many groups in a word, whose lines are a step of bytes apart. */
BITOPS_INLINE void copy_pixels(const size_t bytes, const size_t groups, const uint64_t *words,
                               size_t pixel_words, size_t n, size_t step, uint8_t *lines_out) {
    for (size_t x = 0; x < n; x++)
        for (size_t g = 0; g < groups; g++) {
            const uint64_t bits = words[x * pixel_words] >> g * bytes * 8;
            memcpy(lines_out + g * step + x * bytes, &bits, bytes);
        }
}

static void copy_word(size_t channels, size_t groups, const uint64_t *words, size_t pixel_words,
                      size_t n, size_t step, uint8_t *lines_out) {
    if (channels == 8 && groups == 8)
        copy_pixels(1, 8, words, pixel_words, n, step, lines_out);
    else if (channels == 8)
        copy_pixels(1, groups, words, pixel_words, n, step, lines_out);
    else if (channels == 16 && groups == 4)
        copy_pixels(2, 4, words, pixel_words, n, step, lines_out);
    else if (channels == 16)
        copy_pixels(2, groups, words, pixel_words, n, step, lines_out);
    else if (groups == 2)
        copy_pixels(4, 2, words, pixel_words, n, step, lines_out);
    else
        copy_pixels(4, 1, words, pixel_words, n, step, lines_out);
}

/* Copies all lines of pixels that a block sees, of so many groups in a word; a group has its lines
 * side by side. */
static void copy_lines(const narrow_block *block, size_t word, size_t groups, uint8_t *lines_out) {
    const bitops_image *im = &block->args->image;
    const size_t image_words = im->height * im->width * im->pixel_words;
    const size_t bytes = im->channels / 8, line_bytes = line_words(im) * sizeof(uint64_t);
    const size_t pixels = (im->out_width - 1) * im->stride_x + im->kernel_width;
    const size_t seen = seen_lines(im, block->lines), step = seen * line_bytes;
    const size_t left = min_size(im->pad_left, pixels);
    const size_t inside = min_size(im->width, pixels - left), right = pixels - left - inside;
    for (size_t i = 0; i < seen; i++, lines_out += line_bytes) {
        const size_t y = block->y * im->stride_y + i; /* counted from the top border on */
        const int is_inside = y >= im->pad_top && y - im->pad_top < im->height;
        const size_t before = is_inside ? left : pixels, after = is_inside ? right : 0;
        for (size_t g = 0; g < groups; g++) {
            uint8_t *line = lines_out + g * step;
            memset(line, (int)(im->outside & 0xff), before * bytes);
            memset(line + (pixels - after) * bytes, (int)(im->outside & 0xff), after * bytes);
        }
        if (is_inside)
            copy_word(im->channels, groups,
                      im->x + block->number * image_words +
                          (y - im->pad_top) * im->width * im->pixel_words + word,
                      im->pixel_words, inside, step, lines_out + left * bytes);
    }
}

static void run_block(const narrow_block *block) {
    const bitops_conv_args *args = block->args;
    const bitops_image *im = &args->image;
    const size_t n = args->filters / args->groups, k_words = bitops_words((size_t)args->store.k);
    const size_t row = (block->number * im->out_height + block->y) * im->out_width;
    const size_t line_bytes = line_words(im) * sizeof(uint64_t);
    const size_t most = word_groups(im, args->groups);
    uint64_t pixels[PIXEL_WORDS];
    uint32_t offset_row[MAX_ROWS];
    _Alignas(LINE_WORDS * sizeof(uint64_t)) uint64_t made[MAX_NR * MAX_WORDS];
    bitops_narrow_lines lines = {.channels = im->channels,
                                 .lines = block->lines,
                                 .outputs = im->out_width,
                                 .line_step = im->stride_y * line_bytes,
                                 .output_step = im->stride_x * im->channels / 8,
                                 .tap_step = im->dilation_y * line_bytes};
    bitops_store store = args->store;
    if (store.offset) {
        bitops_gather_offsets(im, row, block->lines * im->out_width, offset_row);
        store.offset_row = offset_row;
        store.first_row = row;
    }
    for (size_t group = 0; group < args->groups; group++) {
        const uint64_t *panel = made;
        if (args->panels)
            panel = args->panels + group * bitops_prepack_size(block->isa, n, k_words);
        else
            block->isa->prepack(args->w + group * n * k_words, k_words, n, k_words, made);
        if (group % most == 0) {
            lines.bytes = (const uint8_t *)pixels;
            copy_lines(block, group / most, min_size(args->groups - group, most),
                       (uint8_t *)pixels);
        }
        block->isa->conv_narrow(&lines, panel, n, row, group * n, &store);
        lines.bytes += seen_lines(im, block->lines) * line_bytes;
    }
}

/* Kernels write the bytes of their columns; the rest of the last word is cleared here. */
static void clear_last_words(const bitops_conv_args *args, size_t row, size_t rows) {
    uint64_t *c = (uint64_t *)args->store.c + bitops_words(args->filters) - 1;
    for (size_t i = row; i < row + rows; i++)
        c[i * args->store.ldc] = 0;
}

void bitops_narrow_conv(const bitops_isa *isa, const bitops_conv_args *args, int n_threads) {
    const bitops_image *im = &args->image;
    const size_t all = args->images * im->out_height;
    const double work = (double)all * (double)im->out_width * (double)args->filters *
                        (double)bitops_words((size_t)args->store.k);
    const int threads = bitops_share(work, THREAD_WORK, n_threads);
    size_t lines = block_lines(im, args->groups);
    if (threads > 1)
        lines = min_size(lines, ceil_div(all, (size_t)threads * TASKS_A_THREAD));
    const size_t blocks = ceil_div(im->out_height, lines);
    BITOPS_PARALLEL_FOR(threads, schedule(dynamic))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)(args->images * blocks); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, args->stop))
            continue;
        const size_t y = (size_t)task % blocks * lines;
        const narrow_block block = {.isa = isa,
                                    .args = args,
                                    .number = (size_t)task / blocks,
                                    .y = y,
                                    .lines = min_size(lines, im->out_height - y)};
        if (args->store.kind == BITOPS_STORE_SIGN)
            clear_last_words(args, (block.number * im->out_height + y) * im->out_width,
                             block.lines * im->out_width);
        run_block(&block);
    }
}
