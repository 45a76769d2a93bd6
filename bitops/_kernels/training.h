/* training.h: the drivers of training alone: Adam, rounding to bytes, their products, batch
 * normalisation, PReLU; part of bitops.h. */
#ifndef BITOPS_TRAINING_H
#define BITOPS_TRAINING_H

#include "bitops.h"

/* One step of Adam; the result does not depend on n_threads. Returns 1 if a weight became NaN that
 * is int16, or whose words were asked for; the bit of a NaN is 0. */
int bitops_adam(const bitops_isa *isa, const bitops_adam_args *args, int n_threads);

/* The same with a product as gradient, of which no matrix is made: rows x n, float32, or uint8 with
 * scales. Neither c of the product nor g of the step is read, and there is no `stop`: a step is
 * taken to its end. The workspace is aligned to 64. */
size_t bitops_adam_product_workspace_size(const bitops_mixed_args *product, int n_threads);
int bitops_adam_product(const bitops_isa *isa, const bitops_adam_args *step,
                        const bitops_mixed_args *product, void *workspace, int n_threads);

/* n numbers in rows of `columns`, each times the factor of its column unless alpha is NULL. The
 * products, rounded to float32, are never in memory all at once. */
typedef struct bitops_scaled {
    const float *x; /* IN */
    size_t n;
    const float *alpha; /* IN, or NULL */
    size_t columns;
} bitops_scaled;
/* The largest magnitude, 0 for n = 0; NaN if there is one. */
float bitops_peak(const bitops_isa *isa, const bitops_scaled *numbers, bitops_stop *stop,
                  int n_threads);
/* codes_out = number * scale + zero, rounded up or down at random so that the mean is kept; 0 gives
 * zero. The sums must lie in 0..255. The same seed gives the same result. */
void bitops_quantize(const bitops_isa *isa, const bitops_scaled *numbers, float scale,
                     uint32_t seed, int zero, uint8_t *codes_out, bitops_stop *stop, int n_threads);

/* Products of codes of two matrices that lie along k: sums[i][j] += sum over k of
 * (x[k][i] - x_zero) y[k][j], in int32, which must hold them. */
typedef struct bitops_byte_args {
    const uint8_t *x; /* k x m */
    const uint8_t *y; /* k x n, up to BITOPS_BYTE_MOST */
    size_t m, n, k;
    int x_zero;
    int32_t *sums; /* IN, OUT  m x n, as whole blocks; what lies beyond m and n is any number */
    bitops_stop *stop;
} bitops_byte_args;
/* The workspace is aligned to 64. */
size_t bitops_byte_gemm_workspace_size(const bitops_byte_args *args, int n_threads);
void bitops_byte_gemm(const bitops_isa *isa, const bitops_byte_args *args, void *workspace,
                      int n_threads);

/* Sums over the rows of a matrix that batch normalisation needs. Up to BITOPS_NORM_FEW rows are
 * added in float32, from the first to the last; of more rows, blocks of BITOPS_NORM_BLOCK are, and
 * their sums are added in float64, also in order. */
enum { BITOPS_NORM_FEW = 512, BITOPS_NORM_BLOCK = 64 };

/* Numbers of workspace that each of the sums below needs. */
size_t bitops_norm_workspace_size(size_t rows, size_t n);
/* As the pass norm_sums. */
void bitops_norm_sums(const bitops_isa *isa, const bitops_norm *norm, const float *x, size_t rows,
                      size_t n, float *workspace, double *sum_out, bitops_stop *stop,
                      int n_threads);
/* What was normalised, as it is kept for the gradient: float32, or int16 with the same values. */
typedef struct bitops_norm_kept {
    const float *x;     /* rows x n, or NULL */
    const int16_t *x16; /* rows x n where x is NULL */
} bitops_norm_kept;

/* Writes float32 as int16, and returns 1, if all numbers are integers below 2^15 in magnitude, and
 * none is -0; of others some are written. */
int bitops_norm_narrow(const float *x, size_t count, int16_t *x16_out, int n_threads);

/* Sums of dy * xhat, then of dy. within is NULL, or has a bit for each number. */
void bitops_norm_products(const bitops_isa *isa, const bitops_norm *norm, bitops_norm_kept x,
                          const float *dy, const uint64_t *within, size_t rows, size_t n,
                          float *workspace, double *sums_out, bitops_stop *stop, int n_threads);

void bitops_norm_values(const bitops_isa *isa, const bitops_norm *norm, const float *x, size_t rows,
                        size_t n, float *y_out, bitops_stop *stop, int n_threads);
/* Writes the signs of y, or of x if norm is NULL, and where its magnitude is at most limit; returns
 * 1 if there is a NaN, whose bits are 0. */
int bitops_norm_signs(const bitops_isa *isa, const bitops_norm *norm, const float *x, size_t rows,
                      size_t n, float limit, uint64_t *signs_out, uint64_t *within_out,
                      bitops_stop *stop, int n_threads);
/* Writes max(y, 0), or max(x, 0) if norm is NULL, and the bits of the numbers above 0. */
void bitops_norm_positives(const bitops_isa *isa, const bitops_norm *norm, const float *x,
                           size_t rows, size_t n, float *y_out, uint64_t *positive_out,
                           bitops_stop *stop, int n_threads);
/* Writes dx. */
void bitops_norm_gradient(const bitops_isa *isa, const bitops_norm *norm, bitops_norm_kept x,
                          const float *dy, const uint64_t *within, size_t rows, size_t n,
                          float *dx_out, bitops_stop *stop, int n_threads);

/* Writes x where the bits of within are 1, and 0 elsewhere. */
void bitops_keep_within(const bitops_isa *isa, const float *x, const uint64_t *within, size_t rows,
                        size_t n, float *y_out, bitops_stop *stop, int n_threads);

/* As the pass prelu_values. */
void bitops_prelu_values(const bitops_isa *isa, const bitops_prelu *prelu, const float *x,
                         size_t rows, size_t n, float *y_out, bitops_stop *stop, int n_threads);
/* Numbers of workspace. */
size_t bitops_prelu_workspace_size(size_t rows, size_t n);
/* Writes dx, and sums over the rows, n of each: dx; with a slope also dy * z where z < 0, and dy.
 * They are added as those of batch normalisation. */
void bitops_prelu_gradient(const bitops_isa *isa, const bitops_prelu *prelu, const float *x,
                           const float *dy, size_t rows, size_t n, float *dx_out, float *workspace,
                           double *sums_out, bitops_stop *stop, int n_threads);

#endif
