/* parallel.h: loops whose iterations OpenMP threads share. */
#ifndef BITOPS_PARALLEL_H
#define BITOPS_PARALLEL_H

/* `threads` OpenMP threads, numbered from 0, share the iterations of the loop that follows; without
 * OpenMP it just runs. */
#if defined(_OPENMP)
#include <omp.h>
#define BITOPS_OMP(text) _Pragma(#text)
#define bitops_thread_number() omp_get_thread_num()
#define BITOPS_PARALLEL_FOR(threads, ...)                                                          \
    BITOPS_OMP(omp parallel for num_threads(threads) __VA_ARGS__)
#else
#define bitops_thread_number() 0
#define BITOPS_PARALLEL_FOR(threads, ...) (void)(threads);
#endif

#endif
