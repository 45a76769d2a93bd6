/* parallel.h: loops whose iterations OpenMP threads share, with one floating-point environment. */
#ifndef BITOPS_PARALLEL_H
#define BITOPS_PARALLEL_H

#include "bitops.h"
#include "runtime/float_env.h"

#include <stddef.h>

/* Up to `threads` OpenMP threads, numbered from 0, share the iterations of the loop that follows;
 * without OpenMP it just runs. Further arguments are clauses of `omp for`. Every thread computes in
 * the default floating-point environment, and has its own again afterwards:
 *
 *   parallel region      each thread: default environment
 *       loop             its share of the iterations
 *                        each thread: its own environment
 */
#if defined(_OPENMP)
#include <omp.h>

/* How many of these threads the next team of this thread has: all, unless the system cannot make
 * them. */
int bitops_team(int threads);

#define BITOPS_OMP(text) _Pragma(#text)
#define bitops_thread_number() omp_get_thread_num()
#define BITOPS_PARALLEL_FOR(threads, ...)                                                          \
    BITOPS_OMP(omp parallel num_threads(bitops_team(threads)))                                     \
    BITOPS_WITH_DEFAULT_FLOATS                                                                     \
    BITOPS_OMP(omp for nowait __VA_ARGS__)
#else
#define bitops_thread_number() 0
#define BITOPS_PARALLEL_FOR(threads, ...)                                                          \
    (void)(threads);                                                                               \
    BITOPS_WITH_DEFAULT_FLOATS
#endif

/* Whether a step of a loop is left out: all are, once the call is stopped. The clock is read at
 * every `every`-th step; those should take some milliseconds. */
static inline int bitops_stopped_at(size_t step, size_t every, bitops_stop *stop) {
    if (stop == NULL)
        return 0;
    if (step % every == every - 1)
        return bitops_stopped(stop);
    return atomic_load_explicit(&stop->stopped, memory_order_relaxed);
}

/* The same for tasks of some 20 us. */
enum { BITOPS_STOP_TASKS = 256 };

#endif
