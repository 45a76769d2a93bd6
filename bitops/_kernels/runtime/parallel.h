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

/* A parallel region of a team of `threads`: when it began, and how late its last thread came. */
typedef struct bitops_region {
    int threads, open;
    double start;      /* seconds */
    atomic_int latest; /* microseconds */
} bitops_region;

/* Of `threads` threads, as many as the system can make are in the region's team. */
bitops_region bitops_region_begin(int threads);
void bitops_region_end(bitops_region *region);

/* A thread of the team begins its share. */
void bitops_region_arrive(bitops_region *region);

/* How many of `threads` share `work`: one if it is below `least`, the work for which one thread is
 * as fast as a team, and one for work of some milliseconds too while the threads of a team come
 * late, because others keep their processors busy. A BLAS does: after a product its threads wait
 * for the next one for some 20 ms in a loop. */
int bitops_share(double work, double least, int threads);

#define BITOPS_OMP(text) _Pragma(#text)
#define bitops_thread_number() omp_get_thread_num()
#define BITOPS_PARALLEL_FOR(wanted, ...)                                                           \
    for (bitops_region region_ = bitops_region_begin(wanted); region_.open;                        \
         bitops_region_end(&region_))                                                              \
        BITOPS_OMP(omp parallel num_threads(region_.threads))                                      \
    for (int once_ = (bitops_region_arrive(&region_), 1); once_; once_ = 0)                        \
        BITOPS_WITH_DEFAULT_FLOATS                                                                 \
    BITOPS_OMP(omp for nowait __VA_ARGS__)
#else
#define bitops_thread_number() 0
static inline int bitops_share(double work, double least, int threads) {
    return work < least ? 1 : threads;
}

#define BITOPS_PARALLEL_FOR(wanted, ...)                                                           \
    (void)(wanted);                                                                                \
    BITOPS_WITH_DEFAULT_FLOATS
#endif

/* `call`, which reads `task`, for each of the tasks 0 .. tasks - 1, which threads share by a clause
 * of `omp for`. One thread makes no parallel region, which would take 0.2 us. */
#define BITOPS_FOR_SCHEDULED(threads, clause, tasks, call)                                         \
    do {                                                                                           \
        if ((threads) == 1) {                                                                      \
            BITOPS_WITH_DEFAULT_FLOATS                                                             \
            for (ptrdiff_t task = 0; task < (ptrdiff_t)(tasks); task++)                            \
                call;                                                                              \
        } else {                                                                                   \
            BITOPS_PARALLEL_FOR(threads, clause)                                                   \
            for (ptrdiff_t task = 0; task < (ptrdiff_t)(tasks); task++)                            \
                call;                                                                              \
        }                                                                                          \
    } while (0)

/* The same, each task handed out to a thread as it becomes free. */
#define BITOPS_FOR_TASKS(threads, tasks, call)                                                     \
    BITOPS_FOR_SCHEDULED(threads, schedule(dynamic), tasks, call)

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
