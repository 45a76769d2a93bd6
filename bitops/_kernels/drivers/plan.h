/* plan.h: a chain of layers as a list of steps, which run without Python between them.
 *
 * The activations between two steps lie in one block of memory, the "arena" of a call. A step names
 * its operands by their places: an offset into the arena in bytes, a multiple of 64, or the input
 * or output of the whole plan. */
#ifndef BITOPS_PLAN_H
#define BITOPS_PLAN_H

#include "bitops.h"
#include "drivers/float_conv.h"

enum { BITOPS_PLAN_INPUT = -1, BITOPS_PLAN_OUTPUT = -2 }; /* places outside the arena */

typedef enum bitops_step_kind {
    BITOPS_STEP_GEMM,    /* bits x bits: rows times weights */
    BITOPS_STEP_CONV,    /* bits x bits: images */
    BITOPS_STEP_MIXED,   /* numbers x bits: rows or images; sums, or bits sum > threshold */
    BITOPS_STEP_FLOATS,  /* numbers x numbers: rows or images, in BLAS, then as AFFINE */
    BITOPS_STEP_FILTERS, /* numbers x numbers: images, by conv_f32, then as AFFINE */
    BITOPS_STEP_COMPARE, /* bits (x > threshold) ^ flip; x >= 0 without thresholds */
    BITOPS_STEP_AFFINE,  /* float y = x [* alpha] [+ bias], then max(y, 0) if asked */
    BITOPS_STEP_ADD,     /* float y = x + other */
    BITOPS_STEP_UNPACK,  /* float +-1 of bits */
    BITOPS_STEP_POOL,    /* largest of a window: of bits (their OR, or their AND), of floats */
    BITOPS_STEP_FLATTEN, /* bits of images (h, w, c) without gaps between the pixels */
    BITOPS_STEP_MEAN,    /* means of windows of floats; of whole images without windows */
    BITOPS_STEP_CLIP,    /* float y = min(max(x, low), high) */
    BITOPS_STEP_PRELU,   /* float y = x [- threshold], times alpha where negative [+ bias] */
    BITOPS_STEP_CONCAT,  /* float rows of x (n numbers), each followed by that of other (k) */
    BITOPS_STEP_ROUND,   /* uint8 y = round(high * min(max(x / low, 0), 1)) */
    BITOPS_STEP_COUNT,   /* uint8 y = how many of the k levels of its column x reaches */
    BITOPS_STEP_SCALE,   /* float y = low * x, for x uint8 */
    BITOPS_STEP_TIMES,   /* float y = x * other, a row of which is for k rows of x */
    BITOPS_STEP_PAD,     /* images, among pixels like the one in `levels` */
    BITOPS_STEP_SUM,     /* int32 or float y = factors[0] x + factors[1] other */
    BITOPS_STEP_K_MAP,   /* float y = means of windows of the mean magnitudes of n channels */
} bitops_step_kind;

/* products_out[m,n] = rows[m,k] times the matrix. */
typedef int bitops_multiply_fn(void *matrix, const float *rows, size_t m, size_t k, size_t n,
                               float *products_out);

typedef struct bitops_step {
    bitops_step_kind kind;
    ptrdiff_t x, other, y; /* places */
    bitops_dtype dtype;    /* of the numbers x, where several are possible */
    size_t rows, n;        /* of x, for steps without windows; MEAN: rows of an image, channels */
    /* GEMM, CONV and MIXED take these with operands, outputs and stop left open. The store of a
     * GEMM or CONV says what becomes of the products. */
    bitops_gemm_args gemm;
    bitops_conv_args conv;
    int has_k_map; /* CONV: `other` is the scale of each output position */
    bitops_mixed_args mixed;
    bitops_float_conv_args float_conv; /* whole */
    /* MIXED over images, POOL, FLATTEN and PAD; pixel_words and x are not used. */
    bitops_image image;
    size_t images;      /* 0 for MIXED over rows */
    size_t pixel_bytes; /* of a pixel of numbers, or of its words */
    /* COMPARE and MIXED. MIXED with a threshold gives bits. */
    const float *threshold;
    const uint64_t *flip;
    const uint64_t *minimum;   /* POOL of bits: channels that take the AND, or NULL */
    const float *alpha, *bias; /* AFFINE and FLOATS */
    int relu;
    float low, high;    /* CLIP and ROUND; SCALE has `low` */
    int32_t factors[2]; /* SUM */
    const void *levels; /* COUNT: k rows of n numbers of the type of x; PAD: a pixel */
    /* FLOATS: BLAS is called through this function, block by block; it returns nonzero to end the
     * plan. Rows of k numbers give n outputs each. Rows of images are copied to memory unless the
     * images are these rows already (images = 0). */
    bitops_multiply_fn *multiply;
    void *matrix; /* for multiply */
    size_t k;
    const int64_t *block_ends; /* the row after each block; the last is `rows` */
    size_t blocks;
} bitops_step;

typedef struct bitops_plan {
    const bitops_isa *isa;
    const bitops_step *steps;
    size_t count;
    size_t arena_bytes;
} bitops_plan;

/* Bytes of memory for one call, aligned to 64. */
size_t bitops_plan_memory_size(const bitops_plan *plan, int n_threads);
/* Returns 1 if a number that must have a sign was NaN; the output is then undefined. */
int bitops_plan_run(const bitops_plan *plan, const void *x, void *y, void *memory,
                    bitops_stop *stop, int n_threads);

#endif
