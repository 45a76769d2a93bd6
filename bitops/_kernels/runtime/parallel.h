/* parallel.h: loops whose iterations OpenMP threads share, with one floating-point environment. */
#ifndef BITOPS_PARALLEL_H
#define BITOPS_PARALLEL_H

#include "runtime/float_env.h"

/* `threads` OpenMP threads, numbered from 0, share the iterations of the loop that follows; without
 * OpenMP it just runs. Further arguments are clauses of `omp for`. Every thread computes in the
 * default floating-point environment, and has its own again afterwards:
 *
 *   parallel region      each thread: default environment
 *       loop             its share of the iterations
 *                        each thread: its own environment
 */
#if defined(_OPENMP)
#include <omp.h>
#define BITOPS_OMP(text) _Pragma(#text)
#define bitops_thread_number() omp_get_thread_num()
#define BITOPS_PARALLEL_FOR(threads, ...)                                                          \
    BITOPS_OMP(omp parallel num_threads(threads))                                                  \
    BITOPS_WITH_DEFAULT_FLOATS                                                                     \
    BITOPS_OMP(omp for nowait __VA_ARGS__)
#else
#define bitops_thread_number() 0
#define BITOPS_PARALLEL_FOR(threads, ...)                                                          \
    (void)(threads);                                                                               \
    BITOPS_WITH_DEFAULT_FLOATS
#endif

#endif
