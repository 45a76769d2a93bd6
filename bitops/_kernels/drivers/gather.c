/* gather.c: writes rows of the im2col matrix of packed images where the product reads them.
 *
 * If channels fill whole words, the taps of one row of the kernel lie side by side in the image
 * (unless dilated), and those of the next output lie a stride further on:
 *
 *   image    | pixel 0 | pixel 1 | pixel 2 | pixel 3 | ...     kernel_width 3, stride_x 1
 *   output 0 |-- tap 0 --- tap 1 --- tap 2 -|
 *   output 1           |-- tap 0 --- tap 1 --- tap 2 -|
 *
 * so one call of prepack_rows copies and prepares them for a line of outputs. Outputs at the border
 * have runs of taps inside and outside. Any other number of channels is appended to each row, a
 * word at a time. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "drivers/taps.h"
#include "isa/shared/target.h"
#include "runtime/parallel.h"

enum {
    TASK_WORDS = 1 << 12, /* of im2col: 32 KiB */
    STOP_BITS = 1 << 16,  /* of an output, after which interrupts are asked for */
};

static void copy_rows(const uint64_t *a, size_t lda, size_t m, size_t k_words, uint64_t *rows_out,
                      size_t ld_out) {
    for (size_t i = 0; i < m; i++, a += lda, rows_out += ld_out)
        for (size_t p = 0; p < k_words; p++)
            rows_out[p] = a[p];
}

static void fill_rows(uint64_t word, size_t m, size_t k_words, uint64_t *rows_out, size_t ld_out) {
    for (size_t i = 0; i < m; i++, rows_out += ld_out)
        for (size_t p = 0; p < k_words; p++)
            rows_out[p] = word;
}

/* Outputs (y, x) to (y, x + n - 1) of one image. */
typedef struct line {
    const uint64_t *image; /* its first pixel */
    size_t y, x, n;
} line;

static line line_at(const bitops_image *im, size_t row, size_t rows) {
    const size_t outputs = im->out_height * im->out_width, at = row % outputs;
    const line l = {.image = im->x + row / outputs * im->height * im->width * im->pixel_words,
                    .y = at / im->out_width,
                    .x = at % im->out_width,
                    .n = min_size(rows, im->out_width - at % im->out_width)};
    return l;
}

/* The line of pixels that row ky of the kernel meets; NULL if it lies outside. */
static const uint64_t *pixels(const bitops_image *im, const line *l, size_t ky) {
    const size_t y = l->y * im->stride_y + ky * im->dilation_y;
    if (y < im->pad_top || y - im->pad_top >= im->height)
        return NULL;
    return l->image + (y - im->pad_top) * im->width * im->pixel_words;
}

/* Rows of the kernel, for n outputs, between two looks at the clock; those of a small kernel are
 * left to the loops over blocks of outputs. */
static size_t stop_lines(const bitops_image *im, size_t n) {
    return max_size(STOP_BITS / max_size(n * im->kernel_width * im->channels, 1), 1);
}

/* ---- whole words --------------------------------------------------------------------------- */

/* What all lines of one call share. */
typedef struct words_plan {
    const bitops_image *im;
    bitops_prepack_rows_fn *prepack_rows;
    taps_axis horizontal;
    size_t tap_words;
    size_t inner_begin, inner_end; /* outputs of a line whose taps all lie inside, horizontally */
    uint64_t outside;              /* prepared */
    size_t ld_out;
} words_plan;

static words_plan plan_words(const bitops_image *im, bitops_prepack_rows_fn *prepack_rows,
                             size_t ld_out) {
    words_plan p = {.im = im,
                    .prepack_rows = prepack_rows ? prepack_rows : copy_rows,
                    .horizontal = horizontal_taps(im),
                    .tap_words = im->channels / BITOPS_WORD_BITS,
                    .inner_begin = ceil_div(im->pad_left, im->stride_x),
                    .outside = im->outside,
                    .ld_out = ld_out};
    const size_t span = (im->kernel_width - 1) * im->dilation_x + 1;
    if (im->width + im->pad_left >= span)
        p.inner_end = (im->width + im->pad_left - span) / im->stride_x + 1;
    p.inner_end = max_size(p.inner_end, p.inner_begin);
    p.prepack_rows(&im->outside, 1, 1, 1, &p.outside, 1);
    return p;
}

/* Copies taps [begin, end) of n outputs of a line, which lie inside; tap 0 goes to taps_out. */
static void gather_taps(const words_plan *p, const uint64_t *pixels, size_t x, size_t n,
                        size_t begin, size_t end, uint64_t *taps_out) {
    const bitops_image *im = p->im;
    const size_t step = im->stride_x * im->pixel_words;
    const size_t first = x * im->stride_x + begin * im->dilation_x - im->pad_left;
    const uint64_t *from = pixels + first * im->pixel_words;
    uint64_t *out = taps_out + begin * p->tap_words;
    if (im->dilation_x == 1 && p->tap_words == im->pixel_words) {
        p->prepack_rows(from, step, n, (end - begin) * p->tap_words, out, p->ld_out);
        return;
    }
    for (; begin < end; begin++, out += p->tap_words, from += im->dilation_x * im->pixel_words)
        p->prepack_rows(from, step, n, p->tap_words, out, p->ld_out);
}

/* Copies n outputs of a line that may have taps outside. */
static void gather_border(const words_plan *p, const uint64_t *pixels, size_t x, size_t n,
                          uint64_t *rows_out) {
    const bitops_image *im = p->im;
    for (; n; n--, x++, rows_out += p->ld_out) {
        const tap_range inside = taps_inside(&p->horizontal, x);
        fill_rows(p->outside, 1, inside.begin * p->tap_words, rows_out, 0);
        if (inside.begin < inside.end)
            gather_taps(p, pixels, x, 1, inside.begin, inside.end, rows_out);
        fill_rows(p->outside, 1, (im->kernel_width - inside.end) * p->tap_words,
                  rows_out + inside.end * p->tap_words, 0);
    }
}

static void gather_words(const words_plan *p, const line *l, uint64_t *rows_out,
                         bitops_stop *stop) {
    const bitops_image *im = p->im;
    const size_t end = l->x + l->n;
    const size_t a = min_size(max_size(p->inner_begin, l->x), end);
    const size_t b = min_size(max_size(p->inner_end, a), end);
    const size_t every = stop_lines(im, l->n);
    for (size_t ky = 0; ky < im->kernel_height && !bitops_stopped_at(ky, every, stop); ky++) {
        const uint64_t *row = pixels(im, l, ky);
        uint64_t *out = rows_out + ky * im->kernel_width * p->tap_words;
        if (!row) {
            fill_rows(p->outside, l->n, im->kernel_width * p->tap_words, out, p->ld_out);
            continue;
        }
        row += im->first_channel / BITOPS_WORD_BITS;
        gather_border(p, row, l->x, a - l->x, out);
        if (a < b)
            gather_taps(p, row, a, b - a, 0, im->kernel_width, out + (a - l->x) * p->ld_out);
        gather_border(p, row, b, end - b, out + (b - l->x) * p->ld_out);
    }
}

/* ---- any number of bits -------------------------------------------------------------------- */

/* Collects bits in `word`, of which the lowest `fill` are set so far, until it is full. */
typedef struct bit_writer {
    uint64_t word;
    size_t fill;
    uint64_t *out;
} bit_writer;

/* Appends the lowest n <= 64 bits of v; the others must be 0. */
BITOPS_INLINE void write_bits(bit_writer *w, uint64_t v, size_t n) {
    w->word |= v << w->fill;
    w->fill += n;
    if (w->fill < BITOPS_WORD_BITS)
        return;
    *w->out++ = w->word;
    w->fill -= BITOPS_WORD_BITS;
    w->word = w->fill ? v >> (n - w->fill) : 0;
}

/* Bits [first, first + n) of the words, 1 <= n <= 64; only words that hold some of them are read.
 */
BITOPS_INLINE uint64_t read_bits(const uint64_t *words, size_t first, size_t n) {
    const size_t shift = first % BITOPS_WORD_BITS;
    words += first / BITOPS_WORD_BITS;
    uint64_t v = words[0] >> shift;
    if (shift + n > BITOPS_WORD_BITS)
        v |= words[1] << (BITOPS_WORD_BITS - shift);
    return n < BITOPS_WORD_BITS ? v & (((uint64_t)1 << n) - 1) : v;
}

/* Appends the channels of one tap; pixel is NULL outside. */
BITOPS_INLINE void write_tap(bit_writer *w, const bitops_image *im, const uint64_t *pixel) {
    for (size_t c = 0; c < im->channels; c += BITOPS_WORD_BITS) {
        const size_t n = min_size(BITOPS_WORD_BITS, im->channels - c);
        write_bits(w, read_bits(pixel ? pixel : &im->outside, pixel ? im->first_channel + c : 0, n),
                   n);
    }
}

static void gather_bits(const bitops_image *im, const line *l, uint64_t *rows_out, size_t ld_out,
                        bitops_stop *stop) {
    const size_t every = stop_lines(im, 1);
    for (size_t i = 0; i < l->n; i++, rows_out += ld_out) {
        bit_writer w = {.out = rows_out};
        for (size_t ky = 0; ky < im->kernel_height && !bitops_stopped_at(ky, every, stop); ky++) {
            const uint64_t *row = pixels(im, l, ky);
            for (size_t kx = 0; kx < im->kernel_width; kx++) {
                const size_t at = (l->x + i) * im->stride_x + kx * im->dilation_x;
                const int inside = row && at >= im->pad_left && at - im->pad_left < im->width;
                write_tap(&w, im, inside ? row + (at - im->pad_left) * im->pixel_words : NULL);
            }
        }
        if (w.fill)
            *w.out = w.word;
    }
}

void bitops_gather(const bitops_image *image, size_t first, size_t rows,
                   bitops_prepack_rows_fn *prepack_rows, uint64_t *rows_out, size_t ld_out,
                   bitops_stop *stop) {
    const int whole =
        image->channels % BITOPS_WORD_BITS == 0 && image->first_channel % BITOPS_WORD_BITS == 0;
    const words_plan plan = plan_words(image, prepack_rows, ld_out);
    for (size_t i = 0; i < rows;) {
        const line l = line_at(image, first + i, rows - i);
        if (whole)
            gather_words(&plan, &l, rows_out + i * ld_out, stop);
        else
            gather_bits(image, &l, rows_out + i * ld_out, ld_out, stop);
        i += l.n;
    }
    if (!whole && prepack_rows) {
        const size_t bits = image->kernel_height * image->kernel_width * image->channels;
        prepack_rows(rows_out, ld_out, rows, bitops_words(bits), rows_out, ld_out);
    }
}

void bitops_gather_offsets(const bitops_image *image, size_t first, size_t rows,
                           uint32_t *offset_row_out) {
    for (size_t i = 0; i < rows;) {
        const line l = line_at(image, first + i, rows - i);
        const uint32_t begin = image->offset_y[l.y] * (uint32_t)image->offsets_x;
        for (size_t x = 0; x < l.n; x++)
            offset_row_out[i + x] = begin + image->offset_x[l.x + x];
        i += l.n;
    }
}

void bitops_im2col(const bitops_image *image, size_t images, uint64_t *rows_out, bitops_stop *stop,
                   int n_threads) {
    const size_t rows = images * image->out_height * image->out_width;
    const size_t k_words =
        bitops_words(image->kernel_height * image->kernel_width * image->channels);
    const size_t share = max_size(TASK_WORDS / max_size(k_words, 1), 1);
    const size_t tasks = ceil_div(rows, share);
    BITOPS_PARALLEL_FOR(tasks < 2 ? 1 : n_threads, schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)tasks; task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share;
        bitops_gather(image, first, min_size(share, rows - first), NULL, rows_out + first * k_words,
                      k_words, stop);
    }
}
