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
 * have runs of taps inside and outside.
 *
 * With any other number of channels, the lines that an output sees are first copied without the
 * gaps between pixels, borders included. In such a dense line the taps of one row of the kernel lie
 * side by side again, and are appended to each row as one run of bits, or of bytes. Lines stay in
 * memory for the next line of outputs. */
#include "bitops.h"
#include "drivers/bits.h"
#include "drivers/sizes.h"
#include "drivers/taps.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    TASK_WORDS = 1 << 12,  /* of im2col: 32 KiB */
    STOP_BITS = 1 << 16,   /* of an output, after which interrupts are asked for */
    DENSE_WORDS = 1 << 11, /* of all dense lines: 16 KiB of the stack */
    DENSE_LINES = 16,      /* at most */
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

/* Rows of the kernel, for n outputs, between two looks at the clock. */
static size_t stop_lines(const bitops_image *im, size_t n) {
    return max_size(STOP_BITS / max_size(n * im->kernel_width * im->channels, 1), 1);
}

/* Outputs of a small kernel are left to the loops over blocks of outputs. */
static bitops_stop *stop_of_large(const bitops_image *im, bitops_stop *stop) {
    return im->kernel_height * im->kernel_width * im->channels > STOP_BITS ? stop : NULL;
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
    const size_t every = stop ? stop_lines(im, l->n) : 1;
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

/* ---- lines without gaps -------------------------------------------------------------------- */

BITOPS_INLINE void write_outside(bit_writer *w, const bitops_image *im, size_t bits) {
    for (; bits >= BITOPS_WORD_BITS; bits -= BITOPS_WORD_BITS)
        write_bits(w, im->outside, BITOPS_WORD_BITS);
    if (bits)
        write_bits(w, read_bits(&im->outside, 0, bits), bits);
}

/* Appends n pixels, `step` words apart, whose channels lie in one word: as many as fill one. */
BITOPS_INLINE void write_parts(bit_writer *w, size_t shift, size_t bits, const uint64_t *pixel,
                               size_t step, size_t n) {
    const uint64_t mask = UINT64_MAX >> (BITOPS_WORD_BITS - bits);
    const size_t most = BITOPS_WORD_BITS / bits;
    while (n) {
        const size_t count = min_size(n, most);
        uint64_t v = 0;
        for (size_t i = count; i--;)
            v = v << bits | (pixel[i * step] >> shift & mask);
        write_bits(w, v, count * bits);
        pixel += count * step;
        n -= count;
    }
}

/* Appends n pixels, `step` words apart. */
BITOPS_INLINE void write_pixels(bit_writer *w, const bitops_image *im, const uint64_t *pixel,
                                size_t step, size_t n) {
    const size_t shift = im->first_channel % BITOPS_WORD_BITS;
    if (shift + im->channels < BITOPS_WORD_BITS) {
        write_parts(w, shift, im->channels, pixel + im->first_channel / BITOPS_WORD_BITS, step, n);
        return;
    }
    for (; n; n--, pixel += step)
        for (size_t c = 0; c < im->channels; c += BITOPS_WORD_BITS) {
            const size_t bits = min_size(BITOPS_WORD_BITS, im->channels - c);
            write_bits(w, read_bits(pixel, im->first_channel + c, bits), bits);
        }
}

/* Copies n parts of pixels, of a constant number of bytes, where they do not pass a word's end. */
BITOPS_INLINE void copy_parts(const size_t bytes, const uint8_t *part, size_t step, size_t n,
                              uint8_t *bytes_out) {
    if (step == 1) /* a constant, so that the loop is vectorised */
        for (size_t i = 0; i < n; i++)
            memcpy(bytes_out + i * bytes, part + i * sizeof(uint64_t), bytes);
    else
        for (size_t i = 0; i < n; i++)
            memcpy(bytes_out + i * bytes, part + i * step * sizeof(uint64_t), bytes);
}

/* The same for whole bytes: each word overwrites the end of the one before it, which is 0. */
BITOPS_INLINE void copy_pixels(const bitops_image *im, const uint64_t *pixel, size_t step, size_t n,
                               uint8_t *bytes_out) {
    const size_t bytes = im->channels / 8;
    const uint8_t *part = (const uint8_t *)pixel + im->first_channel / 8;
    const int whole = im->first_channel % 8 == 0;
    if (whole && bytes == 1) {
        copy_parts(1, part, step, n, bytes_out);
    } else if (whole && bytes == 2) {
        copy_parts(2, part, step, n, bytes_out);
    } else if (whole && bytes == 4) {
        copy_parts(4, part, step, n, bytes_out);
    } else if (whole && bytes == 8) {
        copy_parts(8, part, step, n, bytes_out);
    } else if (im->first_channel == 0 && bytes <= sizeof *pixel) {
        const uint64_t mask = read_bits(&(uint64_t){UINT64_MAX}, 0, im->channels);
        for (; n; n--, pixel += step, bytes_out += bytes) {
            const uint64_t v = *pixel & mask;
            memcpy(bytes_out, &v, sizeof v);
        }
    } else {
        for (; n; n--, pixel += step, bytes_out += bytes)
            for (size_t c = 0; c < im->channels; c += BITOPS_WORD_BITS) {
                const size_t bits = min_size(BITOPS_WORD_BITS, im->channels - c);
                const uint64_t v = read_bits(pixel, im->first_channel + c, bits);
                memcpy(bytes_out + c / 8, &v, sizeof v);
            }
    }
}

void bitops_gather_line(const bitops_image *im, const uint64_t *pixels, size_t x, size_t step,
                        size_t n, uint64_t *bits_out) {
    size_t a = n, b = n; /* the pixels from a to b lie inside */
    if (pixels) {
        const size_t end = im->pad_left + im->width;
        a = min_size(x < im->pad_left ? ceil_div(im->pad_left - x, step) : 0, n);
        b = max_size(a, min_size(x < end ? ceil_div(end - x, step) : 0, n));
        pixels += a < b ? (x + a * step - im->pad_left) * im->pixel_words : 0;
    }
    step *= im->pixel_words;
    if (im->channels % 8) {
        bit_writer w = {.out = bits_out};
        write_outside(&w, im, a * im->channels);
        write_pixels(&w, im, pixels, step, b - a);
        write_outside(&w, im, (n - b) * im->channels);
        flush_bits(&w);
        return;
    }
    const size_t bytes = im->channels / 8;
    uint8_t *out = (uint8_t *)bits_out;
    memset(out, (int)(im->outside & 0xff), a * bytes);
    if (a < b && im->channels == BITOPS_WORD_BITS * step)
        memcpy(out + a * bytes, pixels, (b - a) * bytes);
    else
        copy_pixels(im, pixels, step, b - a, out + a * bytes);
    memset(out + b * bytes, (int)(im->outside & 0xff), (n - b) * bytes);
}

/* Lines of pixels from output x on, as they were gathered last. */
typedef struct dense_lines {
    size_t outputs;    /* that they hold */
    size_t line_words; /* between lines */
    size_t pixels;
    const uint64_t *from[DENSE_LINES]; /* the lines of the image */
    size_t x[DENSE_LINES];
    uint64_t words[DENSE_WORDS];
} dense_lines;

/* Whether a row is worth the copy of lines, and these have room. */
static int plan_dense(const bitops_image *im, dense_lines *d) {
    const size_t span = (im->kernel_width - 1) * im->dilation_x + 1;
    if (im->kernel_width == 1 || im->kernel_height > DENSE_LINES || im->channels == 0)
        return 0;
    d->line_words = DENSE_WORDS / im->kernel_height;
    const size_t room = (d->line_words - 1) * BITOPS_WORD_BITS / im->channels; /* a word to spare */
    if (room < span)
        return 0;
    d->outputs = min_size((room - span) / im->stride_x + 1, im->out_width);
    d->pixels = (d->outputs - 1) * im->stride_x + span;
    for (size_t i = 0; i < im->kernel_height; i++)
        d->from[i] = d->words; /* no line of the image */
    return 1;
}

/* The dense line that row ky of the kernel meets. Lines of the image take turns, so that those of
 * the last line of outputs are found again. */
static const uint64_t *dense_line(const bitops_image *im, dense_lines *d, const line *l,
                                  size_t ky) {
    const uint64_t *from = pixels(im, l, ky);
    const size_t at = l->y * im->stride_y + ky;
    const size_t slot = im->dilation_y == 1 ? at % im->kernel_height : ky;
    uint64_t *words = d->words + slot * d->line_words;
    if (d->from[slot] != from || d->x[slot] != l->x) {
        bitops_gather_line(im, from, l->x * im->stride_x, 1, d->pixels, words);
        d->from[slot] = from;
        d->x[slot] = l->x;
    }
    return words;
}

/* What the rows of a line of outputs take from each of its dense lines. */
typedef struct dense_runs {
    const uint64_t *lines[DENSE_LINES];
    size_t runs, bits; /* of a line */
    size_t step;       /* bits from one run to the next, */
    size_t stride;     /* and from one row to the next */
} dense_runs;

/* Writes rows whose lines of the kernel have `runs` runs of `bits` bits. Runs are read in pieces of
 * `piece` bits, each by 8 bytes from its first byte on, past the end of a run too: 56 bits, or 64
 * if all begin at a byte. */
BITOPS_INLINE void write_rows(const dense_runs *r, const size_t n_lines, const size_t runs,
                              const size_t bits, const size_t piece, size_t rows,
                              uint64_t *rows_out, size_t ld_out) {
    for (size_t i = 0; i < rows; i++, rows_out += ld_out) {
        const size_t first = i * r->stride;
        bit_writer w = {.out = rows_out};
        BITOPS_UNROLL
        for (size_t ky = 0; ky < n_lines; ky++)
            for (size_t run = 0; run < runs; run++) {
                const size_t from = first + run * r->step, shift = from % 8;
                const uint8_t *bytes = (const uint8_t *)r->lines[ky] + from / 8;
                BITOPS_UNROLL
                for (size_t at = 0; at < bits; at += piece) {
                    const size_t n = bits - at < piece ? bits - at : piece;
                    uint64_t v;
                    memcpy(&v, bytes + at / 8, sizeof v);
                    v >>= piece == BITOPS_WORD_BITS ? 0 : shift;
                    write_bits(&w, v & UINT64_MAX >> (BITOPS_WORD_BITS - n), n);
                }
            }
        flush_bits(&w);
    }
}

/* For usual kernels and numbers of channels the loops are unrolled, with known shifts. */
static void gather_rows(const dense_runs *r, size_t n_lines, size_t rows, uint64_t *rows_out,
                        size_t ld_out) {
    const int bytes = r->bits % 8 == 0 && r->step % 8 == 0 && r->stride % 8 == 0;
#define ROWS_OF(height, width, channels)                                                           \
    if (r->runs == 1 && n_lines == (height) && r->bits == (width) * (channels)) {                  \
        write_rows(r, height, 1, (width) * (channels), (channels) % 8 ? 56 : 64, rows, rows_out,   \
                   ld_out);                                                                        \
        return;                                                                                    \
    }
    ROWS_OF(3, 3, 3)
    ROWS_OF(3, 3, 8)
    ROWS_OF(3, 3, 16)
    ROWS_OF(3, 3, 32)
    ROWS_OF(3, 3, 48)
    ROWS_OF(5, 5, 32)
    ROWS_OF(7, 7, 3)
#undef ROWS_OF
    write_rows(r, n_lines, r->runs, r->bits, bytes ? 64 : 56, rows, rows_out, ld_out);
}

static void gather_dense(const bitops_image *im, dense_lines *d, const line *l, uint64_t *rows_out,
                         size_t ld_out) {
    const size_t c = im->channels, kw = im->kernel_width;
    const int whole = im->dilation_x == 1; /* the taps of a line are one run */
    dense_runs r = {.runs = whole ? 1 : kw,
                    .bits = whole ? kw * c : c,
                    .step = im->dilation_x * c,
                    .stride = im->stride_x * c};
    for (size_t ky = 0; ky < im->kernel_height; ky++)
        r.lines[ky] = dense_line(im, d, l, ky);
    gather_rows(&r, im->kernel_height, l->n, rows_out, ld_out);
}

/* ---- any number of bits, tap by tap -------------------------------------------------------- */

/* Appends the channels of one tap; pixel is NULL outside. */
BITOPS_INLINE void write_tap(bit_writer *w, const bitops_image *im, const uint64_t *pixel) {
    for (size_t c = 0; c < im->channels; c += BITOPS_WORD_BITS) {
        const size_t n = min_size(BITOPS_WORD_BITS, im->channels - c);
        write_bits(w, read_bits(pixel ? pixel : &im->outside, pixel ? im->first_channel + c : 0, n),
                   n);
    }
}

/* Appends the taps of output x in rows [begin, end) of the kernel. */
BITOPS_INLINE void write_lines(bit_writer *w, const bitops_image *im, const line *l, size_t x,
                               size_t begin, size_t end) {
    for (size_t ky = begin; ky < end; ky++) {
        const uint64_t *row = pixels(im, l, ky);
        for (size_t kx = 0; kx < im->kernel_width; kx++) {
            const size_t at = x * im->stride_x + kx * im->dilation_x;
            const int inside = row && at >= im->pad_left && at - im->pad_left < im->width;
            write_tap(w, im, inside ? row + (at - im->pad_left) * im->pixel_words : NULL);
        }
    }
}

static void gather_bits(const bitops_image *im, const line *l, uint64_t *rows_out, size_t ld_out) {
    for (size_t i = 0; i < l->n; i++, rows_out += ld_out) {
        bit_writer w = {.out = rows_out};
        write_lines(&w, im, l, l->x + i, 0, im->kernel_height);
        flush_bits(&w);
    }
}

/* The same for a large kernel. In one function with the other, that would be a tenth slower. */
static void gather_many_bits(const bitops_image *im, const line *l, uint64_t *rows_out,
                             size_t ld_out, bitops_stop *stop) {
    const size_t every = stop_lines(im, 1);
    for (size_t i = 0; i < l->n; i++, rows_out += ld_out) {
        bit_writer w = {.out = rows_out};
        for (size_t ky = 0; ky < im->kernel_height && !bitops_stopped(stop); ky += every)
            write_lines(&w, im, l, l->x + i, ky, min_size(ky + every, im->kernel_height));
        flush_bits(&w);
    }
}

void bitops_gather(const bitops_image *image, size_t first, size_t rows,
                   bitops_prepack_rows_fn *prepack_rows, uint64_t *rows_out, size_t ld_out,
                   bitops_stop *stop) {
    const int whole =
        image->channels % BITOPS_WORD_BITS == 0 && image->first_channel % BITOPS_WORD_BITS == 0;
    const words_plan plan = plan_words(image, prepack_rows, ld_out);
    dense_lines lines;
    const int dense = !whole && plan_dense(image, &lines);
    stop = stop_of_large(image, stop);
    for (size_t i = 0; i < rows;) {
        line l = line_at(image, first + i, rows - i);
        if (dense)
            l.n = min_size(l.n, lines.outputs);
        if (whole)
            gather_words(&plan, &l, rows_out + i * ld_out, stop);
        else if (dense)
            gather_dense(image, &lines, &l, rows_out + i * ld_out, ld_out);
        else if (stop)
            gather_many_bits(image, &l, rows_out + i * ld_out, ld_out, stop);
        else
            gather_bits(image, &l, rows_out + i * ld_out, ld_out);
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
    BITOPS_PARALLEL_FOR(bitops_share((double)tasks, 2, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)tasks; task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * share;
        bitops_gather(image, first, min_size(share, rows - first), NULL, rows_out + first * k_words,
                      k_words, stop);
    }
}
