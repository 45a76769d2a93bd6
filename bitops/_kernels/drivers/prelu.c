/* prelu.c: activations with learned shifts and slopes in training: outputs, and gradients with the
 * sums over the rows that are those of the shifts and slopes. */
#include "drivers/parts.h"

#include <string.h>

enum { MOST_SUMS = 3 };

void bitops_prelu_values(const bitops_isa *isa, const bitops_prelu *prelu, const float *x,
                         size_t rows, size_t n, float *y_out, bitops_stop *stop, int n_threads) {
    FOR_PARTS(rows, n, ROWS) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, ROWS, rows, n);
        for (size_t row = p.first; row < p.first + p.rows; row++)
            isa->prelu_values(prelu, x + row * n + p.column, p.column, p.n,
                              y_out + row * n + p.column);
    }
}

size_t bitops_prelu_workspace_size(size_t rows, size_t n) {
    return ceil_div(rows, rows_of_block(rows)) * n * MOST_SUMS;
}

void bitops_prelu_gradient(const bitops_isa *isa, const bitops_prelu *prelu, const float *x,
                           const float *dy, size_t rows, size_t n, float *dx_out, float *workspace,
                           double *sums_out, bitops_stop *stop, int n_threads) {
    const size_t step = rows_of_block(rows), blocks = ceil_div(rows, step);
    const size_t sums = prelu->slope ? MOST_SUMS : 1, size = blocks * n;
    FOR_PARTS(rows, n, step) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const part p = part_of((size_t)task, step, rows, n);
        float *of_block = workspace + p.block * n + p.column;
        for (size_t s = 0; s < sums; s++)
            memset(of_block + s * size, 0, p.n * sizeof(float));
        for (size_t row = p.first; row < p.first + p.rows; row++) {
            const size_t at = row * n + p.column;
            isa->prelu_gradient(prelu, x + at, dy + at, p.column, p.n, dx_out + at, of_block,
                                of_block + size, of_block + 2 * size);
        }
    }
    for (size_t s = 0; s < sums; s++)
        add_blocks(workspace + s * size, blocks, n, sums_out + s * n);
}
