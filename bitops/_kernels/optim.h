/* optim.h: the contract of the updates of training, which only work on float32 arrays. */
#ifndef BITOPS_OPTIM_H
#define BITOPS_OPTIM_H

#include <stddef.h>
#include <stdint.h>

/* One step of Adam on a matrix of rows x n weights, contiguous as g, m and v are. Every element
 * goes through these steps, each rounded to float32:
 *   m = m + beta1_rest * (g - m)
 *   v = v + beta2_rest * (g * g - v)
 *   w = w * keep - rate * (m / (sqrt(v) + eps))
 *   w = min(max(w, -clip), clip)
 * Results do not depend on n_threads. */
typedef struct bitops_adam_args {
    size_t rows, n;
    const float *g;               /* IN */
    float *w;                     /* IN, OUT */
    float *m, *v;                 /* IN, OUT */
    uint64_t *words;              /* OUT signs of w, rows x bitops_words(n), or NULL */
    float beta1_rest, beta2_rest; /* 1 - beta1, 1 - beta2 */
    float eps;
    float rate; /* of the step, its bias correction included */
    float keep; /* 1 - weight decay of the step */
    float clip; /* infinity for none */
} bitops_adam_args;

/* Returns 1 if words were wanted and a weight became NaN, whose bit is 0. */
int bitops_adam(const bitops_adam_args *args, int n_threads);

#endif
