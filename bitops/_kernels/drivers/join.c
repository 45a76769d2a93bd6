/* join.c: finds pairs of rows within a distance among those that agree in some chunks of bits.
 *
 *   for each group of choices
 *     keys of all rows for each of them, with the number of the row   one pass over the rows
 *     for each choice of the group                                    shared out to threads
 *       leave out most keys that occur once
 *       sort the others by their highest digit
 *       for each part of equal highest digits                         in the cache
 *         sort by the other digits, from the lowest to the highest
 *         for each run of equal keys: count its pairs, and compare them
 *         keep those within the radius that agree in no chunk before the last of the choice, but
 *         for its own
 *
 * A sort that begins with the highest digit cuts the rows into parts that fit the second-level
 * cache; the digits after it are sorted from the lowest to the highest, which takes time linear in
 * the rows whatever the keys are. Rows keep their order within a run. Rows of b are numbered after
 * those of a. */
#include "bitops.h"
#include "drivers/bits.h"
#include "drivers/sizes.h"
#include "runtime/parallel.h"

#include <string.h>

enum {
    GROUP = 8,             /* choices whose keys are made in one pass over the rows, */
    GROUP_BYTES = 1 << 27, /* unless their keys need more memory */
    KEY_ROWS = 1 << 12,    /* rows of a task of this pass */
    TOP_BITS = 8,          /* of a key: its highest digit */
    DIGIT_BITS = 9,        /* of the others at most: 512 counters */
    FEW = 24,              /* keys that are sorted by insertion */
    SLOTS_A_KEY = 4,
    MOST_SLOTS = 1 << 23, /* 2 MiB: of more, each would be a miss of the second-level cache */
    BATCH = 1 << 10,      /* pairs that are compared at a time */
};

/* A key above the number of a row. */
typedef uint64_t entry;

static inline uint32_t key_of(entry e) {
    return (uint32_t)(e >> 32);
}

static inline size_t range_rows(const bitops_range_args *range) {
    return range->m + (range->upper ? 0 : range->n);
}

/* How many choices share a pass over the rows. */
static size_t group_size(const bitops_join_args *args, int n_threads) {
    const size_t bytes = max_size(range_rows(&args->range), 1) * sizeof(entry);
    const size_t most = max_size(GROUP, (size_t)n_threads);
    return min_size(max_size(min_size(GROUP_BYTES / bytes, most), 1), args->count);
}

size_t bitops_join_workspace_size(const bitops_join_args *args, int n_threads) {
    const size_t group = group_size(args, n_threads);
    const size_t workers = min_size((size_t)n_threads, group);
    return (group + workers) * range_rows(&args->range) * sizeof(entry);
}

/* ---- keys ---------------------------------------------------------------------------------- */

static int choice_bits(const bitops_join_args *args, size_t choice) {
    uint32_t bits = 0;
    for (size_t s = 0; s < args->together; s++)
        bits += args->chunks[args->choices[choice * args->together + s]].bits;
    return (int)bits;
}

/* The entries of rows that are numbered from `number` on. */
static void make_keys(const bitops_join_args *args, size_t choice, const uint64_t *rows, size_t ld,
                      size_t n, size_t number, entry *entries_out) {
    for (size_t i = 0; i < n; i++)
        entries_out[i] = number + i;
    uint32_t shift = 32;
    for (size_t s = 0; s < args->together; s++) {
        const bitops_chunk chunk = args->chunks[args->choices[choice * args->together + s]];
        for (size_t i = 0; i < n; i++)
            entries_out[i] |= read_bits(rows + i * ld, chunk.first, chunk.bits) << shift;
        shift += chunk.bits;
    }
}

/* Rows are numbered through a and then b; a task may lie in both. */
static void make_keys_of_task(const bitops_join_args *args, size_t choice, size_t begin, size_t end,
                              entry *entries_out) {
    const bitops_range_args *range = &args->range;
    const size_t middle = min_size(max_size(range->m, begin), end);
    make_keys(args, choice, range->a + begin * range->lda, range->lda, middle - begin, begin,
              entries_out + begin);
    if (middle < end)
        make_keys(args, choice, range->b + (middle - range->m) * range->ldb, range->ldb,
                  end - middle, middle, entries_out + middle);
}

/* ---- sorting ------------------------------------------------------------------------------- */

/* Turns counts into the places where runs begin. */
static void count_to_places(uint32_t *bins, size_t n) {
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t count = bins[i];
        bins[i] = sum;
        sum += count;
    }
}

/* Copies entries in the order of `bits` bits from bit `shift` on; bins become the ends of runs. */
static void sort_digit(const entry *entries, size_t n, int shift, int bits, uint32_t *bins,
                       entry *entries_out) {
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    memset(bins, 0, ((size_t)mask + 1) * sizeof *bins);
    for (size_t i = 0; i < n; i++)
        bins[entries[i] >> shift & mask]++;
    count_to_places(bins, (size_t)mask + 1);
    for (size_t i = 0; i < n; i++)
        entries_out[bins[entries[i] >> shift & mask]++] = entries[i];
}

/* Sorts by whole entries, which leaves rows in order too. */
static void sort_few(entry *entries, size_t n) {
    for (size_t i = 1; i < n; i++) {
        const entry own = entries[i];
        size_t j = i;
        for (; j > 0 && entries[j - 1] > own; j--)
            entries[j] = entries[j - 1];
        entries[j] = own;
    }
}

/* Slots by which keys that occur once are told from others; 0 if they cost more than they save, or
 * where keys are so short that most occur again. */
static size_t slots_of(size_t n, int bits) {
    size_t slots = BITOPS_WORD_BITS;
    while (slots < SLOTS_A_KEY * n)
        slots *= 2;
    return n > FEW && slots <= MOST_SLOTS && slots < (uint64_t)1 << bits ? slots : 0;
}

/* Leaves out entries that have a slot of their own, which the lowest bits of a key choose: most
 * that agree with no other, in less time than sorting takes. A slot has two bits of the words:
 * whether a key has come, and whether two have. There are fewer words than entries. Returns how
 * many entries are left. */
static size_t drop_single(entry *entries, size_t n, size_t slots, uint64_t *words) {
    memset(words, 0, slots / 4);
    for (size_t i = 0; i < n; i++) {
        const size_t at = 2 * (key_of(entries[i]) & (slots - 1)), shift = at % BITOPS_WORD_BITS;
        const uint64_t word = words[at / BITOPS_WORD_BITS];
        words[at / BITOPS_WORD_BITS] = word | ((word >> shift & 1) << 1 | 1) << shift;
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const entry own = entries[i];
        const size_t at = 2 * (key_of(own) & (slots - 1));
        entries[kept] = own;
        kept += words[at / BITOPS_WORD_BITS] >> (at % BITOPS_WORD_BITS + 1) & 1;
    }
    return kept;
}

/* Sorts by the lowest `bits` bits of the keys; returns whichever of the two then has them. */
static entry *sort_part(entry *entries, entry *spare, size_t n, int bits) {
    uint32_t bins[1 << DIGIT_BITS];
    if (n <= FEW) {
        sort_few(entries, n);
        return entries;
    }
    for (int digits = (bits + DIGIT_BITS - 1) / DIGIT_BITS, shift = 32; digits > 0; digits--) {
        const int own = (bits + digits - 1) / digits;
        sort_digit(entries, n, shift, own, bins, spare);
        entry *sorted = spare;
        spare = entries;
        entries = sorted;
        shift += own;
        bits -= own;
    }
    return entries;
}

/* ---- pairs --------------------------------------------------------------------------------- */

/* One choice: its pairs that agree, a batch at a time. */
typedef struct join_task {
    const bitops_isa *isa;
    const bitops_join_args *args;
    const uint32_t *choice;
    uint64_t most;     /* pairs that may agree */
    uint64_t compared; /* that agreed so far */
    bitops_found *found;
    int missing; /* whether memory was */
    size_t batched;
    uint64_t batch[BATCH];
} join_task;

/* Whether two rows agree in a chunk before the last of the choice that is not one of the choice. */
static int agrees_before(const join_task *task, uint64_t pair) {
    const bitops_range_args *range = &task->args->range;
    const uint64_t *a = range->a + (size_t)(pair >> 32) * range->lda;
    const uint64_t *b = range->b + (size_t)(pair & UINT32_MAX) * range->ldb;
    size_t s = 0;
    for (uint32_t p = 0; s < task->args->together; p++) {
        const bitops_chunk chunk = task->args->chunks[p];
        if (p == task->choice[s])
            s++;
        else if (read_bits(a, chunk.first, chunk.bits) == read_bits(b, chunk.first, chunk.bits))
            return 1;
    }
    return 0;
}

static void compare_batch(join_task *task) {
    const bitops_range_args *range = &task->args->range;
    bitops_found *found = task->found;
    int32_t distances[BATCH];
    if (!bitops_found_reserve(found, task->batched)) {
        task->missing = 1;
        return;
    }
    if (!bitops_compare_pairs(task->isa, range, task->batch, task->batched, distances))
        return;
    for (size_t i = 0; i < task->batched; i++)
        if (distances[i] <= range->radius && !agrees_before(task, task->batch[i])) {
            found->pairs[found->count] = task->batch[i];
            found->distances[found->count++] = distances[i];
        }
    task->batched = 0;
}

static int is_over(const join_task *task) {
    bitops_stop *stop = task->args->range.stop;
    return task->missing || task->compared > task->most || bitops_stopped_at(0, 2, stop);
}

/* One entry and those that agree with it. */
static void pair_up(join_task *task, entry own, const entry *others, size_t n, size_t first_b) {
    for (size_t j = 0; j < n; j++) {
        task->batch[task->batched++] = own << 32 | ((others[j] & UINT32_MAX) - first_b);
        if (task->batched < BATCH)
            continue;
        compare_batch(task);
        if (is_over(task) || bitops_stopped(task->args->range.stop))
            return;
    }
}

/* A run of entries with equal keys, in the order of rows. */
static void join_run(join_task *task, const entry *run, size_t n) {
    const bitops_range_args *range = &task->args->range;
    size_t rows_a = n;
    if (!range->upper)
        for (rows_a = 0; rows_a < n && (run[rows_a] & UINT32_MAX) < range->m;)
            rows_a++;
    task->compared += range->upper ? (uint64_t)n * (n - 1) / 2 : (uint64_t)rows_a * (n - rows_a);
    for (size_t i = 0; i < rows_a && !is_over(task); i++) {
        const size_t first = range->upper ? i + 1 : rows_a;
        pair_up(task, run[i], run + first, n - first, range->upper ? 0 : range->m);
    }
}

static void join_runs(join_task *task, const entry *entries, size_t n) {
    for (size_t i = 0, end; i < n && !is_over(task); i = end) {
        for (end = i + 1; end < n && key_of(entries[end]) == key_of(entries[i]);)
            end++;
        if (end - i > 1)
            join_run(task, entries + i, end - i);
    }
}

/* Sorts the entries of a choice, and joins each part while it lies in the cache. */
static void join_choice(join_task *task, entry *entries, entry *spare, int bits) {
    size_t n = range_rows(&task->args->range);
    const size_t slots = slots_of(n, bits);
    if (slots)
        n = drop_single(entries, n, slots, spare);
    const int top = bits < TOP_BITS ? bits : TOP_BITS, rest = bits - top;
    uint32_t ends[1 << TOP_BITS];
    sort_digit(entries, n, 32 + rest, top, ends, spare);
    for (size_t part = 0, start = 0; part < (size_t)1 << top; start = ends[part++]) {
        const size_t size = ends[part] - start;
        if (is_over(task) || bitops_stopped(task->args->range.stop))
            return;
        if (size > 1)
            join_runs(task, sort_part(spare + start, entries + start, size, rest), size);
    }
    if (!is_over(task))
        compare_batch(task);
}

int bitops_join(const bitops_isa *isa, const bitops_join_args *args, uint64_t most_compared,
                uint64_t *compared_out, bitops_found *found_out, void *workspace, int n_threads) {
    const size_t n = range_rows(&args->range), group = group_size(args, n_threads);
    entry *const entries = workspace, *const spare = entries + group * n;
    int missing = 0;
    for (size_t first = 0; first < args->count; first += group) {
        const size_t count = min_size(group, args->count - first);
        BITOPS_PARALLEL_FOR(n_threads, schedule(dynamic))
        for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(n, KEY_ROWS); task++) {
            const size_t begin = (size_t)task * KEY_ROWS, end = min_size(begin + KEY_ROWS, n);
            if (!bitops_stopped(args->range.stop))
                for (size_t c = 0; c < count; c++)
                    make_keys_of_task(args, first + c, begin, end, entries + c * n);
        }
        const int workers = (int)min_size((size_t)n_threads, group);
        BITOPS_PARALLEL_FOR(workers, schedule(dynamic) reduction(| : missing))
        for (ptrdiff_t c = 0; c < (ptrdiff_t)count; c++) {
            const size_t worker = (size_t)bitops_thread_number(), choice = first + (size_t)c;
            join_task task = {.isa = isa,
                              .args = args,
                              .choice = args->choices + choice * args->together,
                              .most = most_compared,
                              .found = found_out + worker};
            if (!bitops_stopped(args->range.stop))
                join_choice(&task, entries + (size_t)c * n, spare + worker * n,
                            choice_bits(args, choice));
            compared_out[choice] = task.compared;
            missing |= task.missing;
        }
    }
    return !missing;
}
