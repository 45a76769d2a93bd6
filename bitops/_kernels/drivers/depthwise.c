/* depthwise.c: convolutions whose filters see one channel each.
 *
 * The pixels of a line, their channels side by side without gaps, are one run of bits, and so are
 * its outputs. A tap meets each output with a bit of the same run, further on:
 *
 *   pixels      | pixel 0 | pixel 1 | pixel 2 | pixel 3 | ...     kernel width 3, stride 1
 *   tap 0       |-- output 0, output 1, ... ---
 *   tap 1                 |-- output 0, output 1, ... ---
 *   weights     | tap 0   | tap 0   | tap 0   | ...               repeated for each output
 *
 * So count_taps counts the mismatches of all channels of several outputs at once, whatever their
 * number is, and store_counts writes them once; dot_taps does both where int32 results of a span
 * lie side by side, and offsets are added afterwards. With a stride, each tap has a run of its own,
 * as it has where pixels do not end at a byte.
 *
 * A span is some outputs of one line, at most BITOPS_COUNTS counts; more channels than that are cut
 * into spans too. A task is a span of several lines below each other, whose runs it keeps for the
 * lines of outputs that see them again. More taps than fit a byte are counted in parts and summed
 * as int32. */
#include "drivers/depthwise.h"

#include "drivers/bits.h"
#include "drivers/sizes.h"
#include "isa/shared/store.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    THREAD_COUNTS = 1 << 16, /* of all outputs and taps: below, one thread is faster */
    TASK_COUNTS = 1 << 19,   /* of a task, for which it pays to gather some lines once more */
    TASKS_A_THREAD = 4,      /* so that no thread waits long for the last one */
};

/* Sizes are in words. */
typedef struct depthwise_plan {
    const bitops_conv_args *args;
    size_t per_channel;  /* filters */
    size_t taps, part;   /* taps of a filter, and those that are counted together */
    size_t channels;     /* of a span, */
    size_t outputs;      /* and its outputs */
    size_t lines;        /* of a task */
    int shares_runs;     /* the taps of a line of the kernel share a run */
    size_t weight_words; /* of one tap and span */
    size_t run_words;
    size_t weights_words, runs_words, counts_words, sums_words, rows_words;
} depthwise_plan;

static depthwise_plan make_plan(const bitops_conv_args *args) {
    const bitops_image *im = &args->image;
    depthwise_plan p = {.args = args,
                        .per_channel = args->filters / args->groups,
                        .taps = im->kernel_height * im->kernel_width};
    const size_t cut = BITOPS_COUNTS / p.per_channel / BITOPS_WORD_BITS * BITOPS_WORD_BITS;
    p.part = min_size(p.taps, BITOPS_COUNT_TAPS);
    p.channels = min_size(args->groups, cut);
    p.outputs = min_size(max_size(BITOPS_COUNTS / (p.channels * p.per_channel), 1), im->out_width);
    const size_t shift = (im->kernel_width - 1) * im->dilation_x; /* of the last tap, in pixels */
    p.shares_runs = im->stride_x == 1 && args->groups % 8 == 0 && shift <= p.outputs;
    const size_t counts = p.outputs * p.channels;
    p.weight_words = round_up(bitops_words(counts), BITOPS_COUNT_BLOCK);
    p.run_words = p.weight_words + bitops_words(p.shares_runs ? shift * p.channels : 0);
    p.run_words = round_up(p.run_words + 1, LINE_WORDS); /* bitops_gather_line writes a word more */
    const size_t lines = p.part < p.taps ? p.part / im->kernel_width + 2 : im->kernel_height;
    const size_t runs = p.shares_runs ? lines : p.part;
    p.weights_words = p.per_channel * p.taps * p.weight_words;
    p.runs_words = runs * p.run_words;
    p.counts_words = p.weight_words * LINE_WORDS; /* a byte for each bit */
    if (p.per_channel > 1)
        p.counts_words *= 2 * p.per_channel;
    if (p.taps > BITOPS_COUNT_TAPS)
        p.sums_words = round_up(counts * p.per_channel / 2 + 1, LINE_WORDS);
    p.rows_words = round_up(p.outputs / 2 + 1, LINE_WORDS);
    return p;
}

/* Lines of a task: as many as it may count, and less where threads would wait for one another. */
static void set_lines(depthwise_plan *p, int threads) {
    const bitops_image *im = &p->args->image;
    const size_t line = p->outputs * p->channels * p->per_channel * p->taps;
    const size_t all = p->args->images * im->out_height;
    p->lines = min_size(max_size(TASK_COUNTS / line, 1), im->out_height);
    if (threads > 1)
        p->lines = min_size(p->lines, ceil_div(all, (size_t)threads * TASKS_A_THREAD));
}

static size_t thread_words(const depthwise_plan *p) {
    return p->runs_words + p->counts_words + p->sums_words + p->rows_words;
}

size_t bitops_depthwise_workspace_size(const bitops_conv_args *args, int n_threads) {
    const depthwise_plan p = make_plan(args);
    return (p.weights_words + (size_t)n_threads * thread_words(&p)) * sizeof(uint64_t);
}

/* ---- weights ------------------------------------------------------------------------------- */

/* Repeats `size` bytes, the first of which are there, up to `total`. */
static void repeat_bytes(size_t size, size_t total, char *bytes) {
    for (size_t done = size; done < total;) {
        const size_t part = min_size(done, total - done);
        memcpy(bytes + done, bytes, part);
        done += part;
    }
}

/* Repeats the bits of n channels from a word's first on for each output. */
static void repeat_weights(const uint64_t *w, size_t n, size_t outputs, uint64_t *words_out) {
    bit_writer out = {.out = words_out};
    if (n % 8 == 0) {
        memcpy(words_out, w, n / 8);
        repeat_bytes(n / 8, outputs * n / 8, (char *)words_out);
        return;
    }
    for (; outputs; outputs--)
        for (size_t c = 0; c < n; c += BITOPS_WORD_BITS) {
            const size_t bits = min_size(BITOPS_WORD_BITS, n - c);
            write_bits(&out, read_bits(w, c, bits), bits);
        }
    flush_bits(&out);
}

static void fill_weights(const depthwise_plan *p, size_t first, size_t channels,
                         uint64_t *weights_out) {
    const size_t pixel_words = p->args->image.pixel_words;
    for (size_t i = 0; i < p->per_channel * p->taps; i++)
        repeat_weights(p->args->w + i * pixel_words + first / BITOPS_WORD_BITS, channels,
                       p->outputs, weights_out + i * p->weight_words);
}

/* ---- runs ---------------------------------------------------------------------------------- */

/* `outputs` outputs from (y, x) on, and `channels` channels from `first` on. */
typedef struct span {
    size_t number, y, x; /* of the image, and in it */
    size_t outputs;
    size_t first, channels;
} span;

/* Writes the bits that tap (ky, kx) meets, or those of all taps from it to the end of its line. */
static void gather_run(const depthwise_plan *p, const span *s, size_t ky, size_t kx,
                       uint64_t *run_out) {
    const bitops_image *im = &p->args->image;
    const size_t y = s->y * im->stride_y + ky * im->dilation_y;
    const size_t pixels =
        s->outputs + (p->shares_runs ? (im->kernel_width - 1) * im->dilation_x : 0);
    const uint64_t *line = NULL;
    if (y >= im->pad_top && y - im->pad_top < im->height)
        line = im->x + (s->number * im->height + y - im->pad_top) * im->width * im->pixel_words;
    bitops_image own = *im;
    own.first_channel = s->first;
    own.channels = s->channels;
    bitops_gather_line(&own, line, s->x * im->stride_x + kx * im->dilation_x, im->stride_x, pixels,
                       run_out);
}

/* Which line of the image the runs of each slot hold, and of which lines the offsets are held. */
typedef struct held_lines {
    size_t line[BITOPS_COUNT_TAPS];
    size_t offsets;
} held_lines;

static void hold_nothing(const depthwise_plan *p, held_lines *held) {
    for (size_t i = 0; i < min_size(p->args->image.kernel_height, BITOPS_COUNT_TAPS); i++)
        held->line[i] = SIZE_MAX;
    held->offsets = SIZE_MAX;
}

/* The runs that taps of row ky of the kernel meet, gathered unless they are held. Lines of the
 * image take turns, so that those of the last line of outputs are found again. */
static const uint64_t *line_runs(const depthwise_plan *p, const span *s, size_t ky,
                                 held_lines *held, uint64_t *runs) {
    const bitops_image *im = &p->args->image;
    const size_t line = s->y * im->stride_y + ky * im->dilation_y;
    const size_t slot = im->dilation_y == 1 ? line % im->kernel_height : ky;
    const size_t count = p->shares_runs ? 1 : im->kernel_width;
    runs += slot * count * p->run_words;
    if (held->line[slot] != line)
        for (size_t kx = 0; kx < count; kx++)
            gather_run(p, s, ky, kx, runs + kx * p->run_words);
    held->line[slot] = line;
    return runs;
}

/* Gathers the runs of all taps. */
static void gather_runs(const depthwise_plan *p, const span *s, held_lines *held, uint64_t *runs,
                        const uint8_t **taps_out) {
    const bitops_image *im = &p->args->image;
    for (size_t ky = 0; ky < im->kernel_height; ky++) {
        const uint8_t *run = (const uint8_t *)line_runs(p, s, ky, held, runs);
        for (size_t kx = 0; kx < im->kernel_width; kx++)
            *taps_out++ = run + kx * (p->shares_runs ? im->dilation_x * s->channels / 8
                                                     : p->run_words * sizeof(uint64_t));
    }
}

/* The same for taps [begin, end), where they are too many to be counted together. */
static void gather_part(const depthwise_plan *p, const span *s, size_t begin, size_t end,
                        uint64_t *runs, const uint8_t **taps_out) {
    const bitops_image *im = &p->args->image;
    const uint8_t *run = NULL;
    for (size_t t = begin; t < end; t++) {
        const size_t ky = t / im->kernel_width, kx = t % im->kernel_width;
        if (!p->shares_runs || !run || kx == 0) {
            gather_run(p, s, ky, p->shares_runs ? 0 : kx, runs);
            run = (const uint8_t *)runs;
            runs += p->run_words;
        }
        const size_t shift = p->shares_runs ? kx * im->dilation_x * s->channels : 0;
        *taps_out++ = run + shift / 8;
    }
}

/* ---- counts -------------------------------------------------------------------------------- */

/* What a thread works on. */
typedef struct thread_memory {
    uint64_t *runs;
    uint8_t *counts; /* in the order of the outputs, */
    uint8_t *own;    /* and filter by filter */
    int32_t *sums;
    uint32_t *offset_row;
} thread_memory;

static thread_memory place_memory(const depthwise_plan *p, uint64_t *memory) {
    thread_memory m = {.runs = memory};
    m.own = m.counts = (uint8_t *)(memory + p->runs_words);
    if (p->per_channel > 1)
        m.counts += p->per_channel * p->weight_words * BITOPS_WORD_BITS;
    m.sums = (int32_t *)(memory + p->runs_words + p->counts_words);
    m.offset_row = (uint32_t *)(memory + p->runs_words + p->counts_words + p->sums_words);
    return m;
}

/* Brings the counts of n channels from filter by filter, ld apart, to channel by channel. */
BITOPS_INLINE void interleave(const uint8_t *own, size_t ld, size_t n, size_t filters,
                              uint8_t *counts_out) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < filters; j++)
            counts_out[i * filters + j] = own[j * ld + i];
}

/* Counts the mismatches of a span at taps [begin, end), which are at `taps`. */
static void count_span(const bitops_isa *isa, const depthwise_plan *p, const span *s, size_t begin,
                       size_t end, const uint8_t *const *taps, const uint64_t *weights,
                       const thread_memory *m) {
    const size_t n = s->outputs * s->channels;
    const size_t ld = p->weight_words * BITOPS_WORD_BITS;
    for (size_t j = 0; j < p->per_channel; j++)
        isa->count_taps(taps, weights + (j * p->taps + begin) * p->weight_words, p->weight_words,
                        end - begin, bitops_words(n), m->own + j * ld);
    if (p->per_channel == 2) /* a constant, so that the loop is vectorised */
        interleave(m->own, ld, n, 2, m->counts);
    else if (p->per_channel == 4)
        interleave(m->own, ld, n, 4, m->counts);
    else if (p->per_channel > 1)
        interleave(m->own, ld, n, p->per_channel, m->counts);
}

/* Stores sums where counts do not fit a byte. */
static void store_sums(const bitops_store *store, const int32_t *sums, size_t rows, size_t n,
                       size_t row, size_t col) {
    if (store->kind == BITOPS_STORE_SIGN)
        for (size_t i = 0; i < rows; i++)
            ((uint64_t *)store->c)[(row + i) * store->ldc + (col + n - 1) / BITOPS_WORD_BITS] = 0;
    store_block(sums, n, rows, n, row, col, store);
}

static void add_offset(const int32_t *offset, size_t n, int32_t *restrict dots) {
    for (size_t j = 0; j < n; j++)
        dots[j] += offset[j];
}

/* Adds what positions outside add to the dot products of a span, which lie side by side. Outputs
 * without offsets, whose taps all lie inside, follow each other. */
static void add_offsets(const bitops_store *store, size_t rows, size_t row, size_t n,
                        int32_t *dots) {
    const int32_t *offset;
    size_t first = 0;
    for (; first < rows && (offset = store_offset(store, row + first)); first++)
        add_offset(offset, n, dots + first * n);
    for (; rows > first && (offset = store_offset(store, row + rows - 1)); rows--)
        add_offset(offset, n, dots + (rows - 1) * n);
}

static void convolve_span(const bitops_isa *isa, const depthwise_plan *p, const span *s,
                          const uint64_t *weights, held_lines *held, const thread_memory *m) {
    const bitops_image *im = &p->args->image;
    const uint8_t *taps[BITOPS_COUNT_TAPS];
    const size_t row = (s->number * im->out_height + s->y) * im->out_width + s->x;
    const size_t n = s->channels * p->per_channel, col = s->first * p->per_channel;
    bitops_store store = p->args->store;
    if (store.offset) {
        if (held->offsets != im->offset_y[s->y])
            bitops_gather_offsets(im, row, s->outputs, m->offset_row);
        held->offsets = im->offset_y[s->y];
        store.offset_row = m->offset_row;
        store.first_row = row;
    }
    if (p->part == p->taps) {
        gather_runs(p, s, held, m->runs, taps);
        if (store.kind == BITOPS_STORE_DOT && p->per_channel == 1 && store.ldc == n) {
            int32_t *dots = (int32_t *)store.c + row * n;
            isa->dot_taps(taps, weights, p->weight_words, p->taps, s->outputs * n, store.k, dots);
            if (store.offset)
                add_offsets(&store, s->outputs, row, n, dots);
            return;
        }
        count_span(isa, p, s, 0, p->taps, taps, weights, m);
        isa->store_counts(m->counts, s->outputs, n, row, col, &store);
        return;
    }
    memset(m->sums, 0, s->outputs * n * sizeof *m->sums);
    for (size_t t = 0; t < p->taps && !bitops_stopped(p->args->stop); t += p->part) {
        const size_t end = min_size(t + p->part, p->taps);
        gather_part(p, s, t, end, m->runs, taps);
        count_span(isa, p, s, t, end, taps, weights, m);
        for (size_t i = 0; i < s->outputs * n; i++)
            m->sums[i] += m->counts[i];
    }
    store_sums(&store, m->sums, s->outputs, n, row, col);
}

/* Task `task` of a pass over `channels` channels from `first` on: a span of some lines. */
static void convolve_task(const bitops_isa *isa, const depthwise_plan *p, size_t task, size_t first,
                          size_t channels, const uint64_t *weights, const thread_memory *m) {
    const bitops_image *im = &p->args->image;
    const size_t blocks = ceil_div(im->out_height, p->lines);
    const size_t spans = ceil_div(im->out_width, p->outputs);
    const size_t y = task % blocks * p->lines, x = task / blocks % spans * p->outputs;
    held_lines held;
    span s = {.number = task / blocks / spans,
              .x = x,
              .outputs = min_size(p->outputs, im->out_width - x),
              .first = first,
              .channels = channels};
    hold_nothing(p, &held);
    for (s.y = y; s.y < min_size(y + p->lines, im->out_height); s.y++)
        convolve_span(isa, p, &s, weights, &held, m);
}

void bitops_depthwise(const bitops_isa *isa, const bitops_conv_args *args, void *workspace,
                      int n_threads) {
    depthwise_plan p = make_plan(args);
    const bitops_image *im = &args->image;
    uint64_t *weights = workspace;
    const size_t spans = ceil_div(im->out_width, p.outputs);
    const size_t work = args->images * im->out_height * im->out_width * args->filters * p.taps;
    const int threads = work < THREAD_COUNTS ? 1 : n_threads;
    set_lines(&p, threads);
    const size_t tasks = args->images * ceil_div(im->out_height, p.lines) * spans;
    for (size_t first = 0; first < args->groups; first += p.channels) {
        const size_t channels = min_size(p.channels, args->groups - first);
        fill_weights(&p, first, channels, weights);
        BITOPS_PARALLEL_FOR(bitops_share((double)work, THREAD_COUNTS, threads), schedule(static))
        for (ptrdiff_t task = 0; task < (ptrdiff_t)tasks; task++) {
            if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, args->stop))
                continue;
            const thread_memory m = place_memory(
                &p, weights + p.weights_words + (size_t)bitops_thread_number() * thread_words(&p));
            convolve_task(isa, &p, (size_t)task, first, channels, weights, &m);
        }
    }
}
