/* openmp.c: the part of GNU OpenMP's interface that the kernels use, for ThreadSanitizer.
 *
 * ThreadSanitizer must see how threads wait for each other. libgomp does that with instructions of
 * its own, which are not instrumented: every parallel loop would be reported, and to suppress those
 * reports would hide true ones. Here a parallel region makes its threads and joins them, which
 * orders no more than OpenMP promises: what came before the region, the region, what comes after.
 * The threads of a team have nothing in common but the counter of a dynamic loop, which is relaxed
 * and so orders nothing. */
#define _XOPEN_SOURCE 600
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { CPUS = 4 };

typedef struct team {
    void (*work)(void *);
    void *data;
    int threads;
    pthread_barrier_t start; /* so that all have a share of a dynamic loop */
    atomic_long done;        /* iterations of its dynamic loop that were handed out */
} team;

typedef struct member {
    team *own;
    int number;
} member;

static team alone = {.threads = 1};
static _Thread_local member self = {&alone, 0};
static _Thread_local long loop_start, loop_end, loop_step;
static _Thread_local int most = CPUS;

_Thread_local int widest_team = 1; /* that this thread has led; threads_test sets it back */

int omp_get_thread_num(void) {
    return self.number;
}

int omp_get_num_threads(void) {
    return self.own->threads;
}

int omp_get_max_threads(void) {
    return most;
}

int omp_get_num_procs(void) {
    return CPUS;
}

/* Threads that are made for each region come late, which would leave all work to one thread. */
double omp_get_wtime(void) {
    return 0;
}

void omp_set_num_threads(int n) {
    most = n;
}

static void *run(void *memory) {
    self = *(member *)memory;
    pthread_barrier_wait(&self.own->start);
    self.own->work(self.own->data);
    return NULL;
}

void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags) {
    team own = {.work = work, .data = data, .threads = (int)threads};
    const member before = self;
    if ((int)threads > widest_team)
        widest_team = (int)threads;
    pthread_t *handles = malloc(threads * sizeof *handles);
    member *members = malloc(threads * sizeof *members);
    (void)flags;
    pthread_barrier_init(&own.start, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        members[i] = (member){&own, (int)i};
        if (i && pthread_create(&handles[i], NULL, run, &members[i]))
            abort();
    }
    run(&members[0]);
    for (unsigned i = 1; i < threads; i++)
        pthread_join(handles[i], NULL);
    self = before;
    pthread_barrier_destroy(&own.start);
    free(members);
    free(handles);
}

_Bool GOMP_loop_nonmonotonic_dynamic_next(long *first, long *end) {
    const long i =
        loop_start + atomic_fetch_add_explicit(&self.own->done, loop_step, memory_order_relaxed);
    *first = i;
    *end = i + loop_step < loop_end ? i + loop_step : loop_end;
    return i < loop_end;
}

/* Loops count upwards by one, as those of the kernels do. */
_Bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long increment, long chunk,
                                           long *first, long *last) {
    if (increment != 1)
        abort();
    loop_start = start;
    loop_end = end;
    loop_step = chunk;
    return GOMP_loop_nonmonotonic_dynamic_next(first, last);
}

void GOMP_loop_end_nowait(void) {}
