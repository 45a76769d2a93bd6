/* norm.c: batch normalisation for training: its sums, its outputs as numbers, as bits or behind a
 * ReLU, and the gradient. */
#include "drivers/parts.h"

#include <string.h>

enum { SPAN_WORDS = SPAN / BITOPS_WORD_BITS };

/* A row of a part, in the words of a matrix. */
static size_t words_at(const part *p, size_t row, size_t n) {
    return row * bitops_words(n) + p->column / BITOPS_WORD_BITS;
}

size_t bitops_norm_workspace_size(size_t rows, size_t n) {
    return ceil_div(rows, rows_of_block(rows)) * n * 2;
}

void bitops_norm_sums(const bitops_isa *isa, const bitops_norm *norm, const float *x, size_t rows,
                      size_t n, float *workspace, double *sum_out, bitops_stop *stop,
                      int n_threads) {
    const size_t step = rows_of_block(rows);
    FOR_PARTS(rows, n, step) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, step, rows, n);
        isa->norm_sums(norm, x + p.first * n + p.column, n, p.rows, p.column, p.n,
                       workspace + p.block * n + p.column);
    }
    add_blocks(workspace, ceil_div(rows, step), n, sum_out);
}

/* 1 and -1 for the bits of a row of a part, in whole words, or NULL if there are none. */
static const float *passes_of(const bitops_isa *isa, const uint64_t *within, const part *p,
                              size_t row, size_t n, float *passes) {
    if (within == NULL)
        return NULL;
    isa->unpack_f32(within + words_at(p, row, n), round_up(p->n, BITOPS_WORD_BITS), passes);
    return passes;
}

/* The bits of a float. */
typedef union float_bits {
    float number;
    uint32_t bits;
} float_bits;

/* Returns 1 if all numbers stay the same. Bits are compared, as GCC makes branches of comparisons
 * of floats, and since -0 would become 0. */
static int narrow(const float *restrict x, size_t n, int16_t *restrict x16_out) {
    const uint32_t sign = UINT32_C(1) << 31;
    const float_bits limit = {32768};
    uint32_t differ = 0;
    for (size_t j = 0; j < n; j++) {
        const float_bits before = {x[j]};
        const uint32_t kept = (before.bits & ~sign) < limit.bits ? UINT32_MAX : 0;
        const float_bits within = {.bits = before.bits & kept};
        const int32_t whole = (int32_t)within.number;
        const float_bits after = {(float)whole};
        x16_out[j] = (int16_t)whole;
        differ |= before.bits ^ after.bits;
    }
    return differ == 0;
}

int bitops_norm_narrow(const float *x, size_t count, int16_t *x16_out, int n_threads) {
    atomic_int other = 0;
    FOR_PARTS(1, count, 1) {
        if (atomic_load_explicit(&other, memory_order_relaxed))
            continue;
        const part p = part_of((size_t)task, 1, 1, count);
        if (!narrow(x + p.column, p.n, x16_out + p.column))
            atomic_store_explicit(&other, 1, memory_order_relaxed);
    }
    return atomic_load_explicit(&other, memory_order_relaxed) == 0;
}

/* Numbers of a row of a part, which a buffer holds if they were not float32. */
static const float *kept_at(bitops_norm_kept x, size_t at, size_t n, float *restrict buffer) {
    if (x.x)
        return x.x + at;
    for (size_t j = 0; j < n; j++)
        buffer[j] = x.x16[at + j];
    return buffer;
}

void bitops_norm_products(const bitops_isa *isa, const bitops_norm *norm, bitops_norm_kept x,
                          const float *dy, const uint64_t *within, size_t rows, size_t n,
                          float *workspace, double *sums_out, bitops_stop *stop, int n_threads) {
    const size_t step = rows_of_block(rows), blocks = ceil_div(rows, step);
    float *dy_sums = workspace + blocks * n;
    FOR_PARTS(rows, n, step) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, step, rows, n);
        const size_t to = p.block * n + p.column;
        float passes[SPAN], numbers[SPAN];
        memset(workspace + to, 0, p.n * sizeof(float));
        memset(dy_sums + to, 0, p.n * sizeof(float));
        for (size_t row = p.first; row < p.first + p.rows; row++) {
            const size_t at = row * n + p.column;
            isa->norm_products(norm, kept_at(x, at, p.n, numbers), dy + at,
                               passes_of(isa, within, &p, row, n, passes), p.column, p.n,
                               workspace + to, dy_sums + to);
        }
    }
    add_blocks(workspace, blocks, n, sums_out);
    add_blocks(dy_sums, blocks, n, sums_out + n);
}

void bitops_norm_values(const bitops_isa *isa, const bitops_norm *norm, const float *x, size_t rows,
                        size_t n, float *y_out, bitops_stop *stop, int n_threads) {
    FOR_PARTS(rows, n, ROWS) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, ROWS, rows, n);
        for (size_t row = p.first; row < p.first + p.rows; row++)
            isa->norm_values(norm, x + row * n + p.column, p.column, p.n,
                             y_out + row * n + p.column);
    }
}

int bitops_norm_signs(const bitops_isa *isa, const bitops_norm *norm, const float *x, size_t rows,
                      size_t n, float limit, uint64_t *signs_out, uint64_t *within_out,
                      bitops_stop *stop, int n_threads) {
    int any_nan = 0;
    FOR_PARTS(rows, n, ROWS, reduction(| : any_nan)) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, ROWS, rows, n);
        const size_t whole = round_up(p.n, BITOPS_WORD_BITS);
        float values[SPAN], within[SPAN];
        int nan = 0;
        for (size_t j = p.n; j < whole; j++) /* padding bits are 0 */
            values[j] = within[j] = -1;
        for (size_t row = p.first; row < p.first + p.rows; row++) {
            const float *y = x + row * n + p.column;
            if (norm)
                isa->norm_values(norm, y, p.column, p.n, values);
            else if (p.n < whole)
                memcpy(values, y, p.n * sizeof(float));
            if (norm || p.n < whole)
                y = values;
            isa->pack_f32(y, whole, signs_out + words_at(&p, row, n), &nan);
            isa->within_f32(y, p.n, limit, within);
            isa->pack_f32(within, whole, within_out + words_at(&p, row, n), &nan);
        }
        any_nan |= nan;
    }
    return any_nan;
}

/* What packs to 1 for the numbers above 0, and to 0 for all others and NaN. */
static void tell_positives(const float *restrict y, size_t n, float *restrict signs_out) {
    for (size_t j = 0; j < n; j++)
        signs_out[j] = y[j] > 0 ? 0.0f : -1.0f;
}

void bitops_norm_positives(const bitops_isa *isa, const bitops_norm *norm, const float *x,
                           size_t rows, size_t n, float *y_out, uint64_t *positive_out,
                           bitops_stop *stop, int n_threads) {
    FOR_PARTS(rows, n, ROWS) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, ROWS, rows, n);
        const size_t whole = round_up(p.n, BITOPS_WORD_BITS);
        float signs[SPAN];
        int nan = 0;                         /* never set */
        for (size_t j = p.n; j < whole; j++) /* padding bits are 0 */
            signs[j] = -1;
        for (size_t row = p.first; row < p.first + p.rows; row++) {
            const float *numbers = x + row * n + p.column;
            float *y = y_out + row * n + p.column;
            if (norm) {
                isa->norm_values(norm, numbers, p.column, p.n, y);
                numbers = y;
            }
            isa->affine_f32(numbers, 1, p.n, NULL, NULL, 1, y);
            tell_positives(y, p.n, signs);
            isa->pack_f32(signs, whole, positive_out + words_at(&p, row, n), &nan);
        }
    }
}

void bitops_norm_gradient(const bitops_isa *isa, const bitops_norm *norm, bitops_norm_kept x,
                          const float *dy, const uint64_t *within, size_t rows, size_t n,
                          float *dx_out, bitops_stop *stop, int n_threads) {
    FOR_PARTS(rows, n, ROWS) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, ROWS, rows, n);
        float memory[SPAN], numbers[SPAN];
        for (size_t row = p.first; row < p.first + p.rows; row++) {
            const size_t at = row * n + p.column;
            isa->norm_gradient(norm, kept_at(x, at, p.n, numbers), dy + at,
                               passes_of(isa, within, &p, row, n, memory), p.column, p.n,
                               dx_out + at);
        }
    }
}

/* Of 1 and -1, halves and a half make 1 and 0, without a branch. */
static void keep_passed(const float *restrict x, const float *restrict passes, size_t n,
                        float *restrict y_out) {
    for (size_t j = 0; j < n; j++)
        y_out[j] = x[j] * (passes[j] * 0.5f + 0.5f);
}

void bitops_keep_within(const bitops_isa *isa, const float *x, const uint64_t *within, size_t rows,
                        size_t n, float *y_out, bitops_stop *stop, int n_threads) {
    FOR_PARTS(rows, n, ROWS) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, ROWS, rows, n);
        float passes[SPAN];
        for (size_t row = p.first; row < p.first + p.rows; row++) {
            const size_t at = row * n + p.column;
            keep_passed(x + at, passes_of(isa, within, &p, row, n, passes), p.n, y_out + at);
        }
    }
}
