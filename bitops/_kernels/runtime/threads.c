/* threads.c: how many threads a call may use. */
#include "bitops.h"

#if defined(_OPENMP)

#include <omp.h>

static volatile int requested = 0; /* 0: whatever OpenMP allows */
static volatile int limited = 0;   /* while a training leaves the threads to BLAS */

#if defined(_WIN32)
#define forked 0

/* Nothing is known about threads here: OpenMP is trusted. */
static int prove(int n) {
    return n;
}
#else
#include <pthread.h>

static volatile int forked = 0;

/* GNU OpenMP keeps its threads from call to call. In a forked child they do not exist, and a
 * parallel region would wait for them forever. */
static void in_child(void) {
    forked = 1;
}

__attribute__((constructor)) static void watch_fork(void) {
    pthread_atfork(NULL, NULL, in_child);
}

/* GNU OpenMP ends the process if it cannot make a thread: in a container with few process
 * identifiers, or where memory for stacks is limited. So before the first call with a number of
 * threads, as many are made here, all alive at a time; if that fails, fewer are used. */
typedef struct gate {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    int open;
} gate;

static void *wait_at(void *memory) {
    gate *g = memory;
    pthread_mutex_lock(&g->lock);
    while (!g->open)
        pthread_cond_wait(&g->opened, &g->lock);
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

static int make_thread(pthread_t *thread, gate *g) {
    return !bitops_fails(BITOPS_THREAD) && pthread_create(thread, NULL, wait_at, g) == 0;
}

/* The threads, with the calling one, that a team of n may have. If not all of them can be made,
 * half of those that can: OpenMP and the program need memory too. */
static int count_threads(int n) {
    gate g = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    pthread_t *threads = bitops_allocate((size_t)n * sizeof *threads);
    int made = 0;
    while (threads && made < n - 1 && make_thread(&threads[made], &g))
        made++;
    pthread_mutex_lock(&g.lock);
    g.open = 1;
    pthread_cond_broadcast(&g.opened);
    pthread_mutex_unlock(&g.lock);
    for (int i = 0; i < made; i++)
        pthread_join(threads[i], NULL);
    bitops_free(threads);
    return 1 + (made == n - 1 ? made : made / 2);
}

static int prove(int n) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static volatile int proven = 1, tried = 1; /* proven < tried if threads could not be made */
    if (n > tried) {
        pthread_mutex_lock(&lock);
        if (n > tried) {
            proven = count_threads(n);
            tried = n;
        }
        pthread_mutex_unlock(&lock);
    }
    return n < proven ? n : proven;
}
#endif

int bitops_has_openmp(void) {
    return 1;
}

int bitops_get_num_threads(void) {
    int n = omp_get_max_threads();
    if (forked || limited)
        return 1;
    if (requested && requested < n)
        n = requested;
    if (n > BITOPS_MAX_THREADS)
        n = BITOPS_MAX_THREADS;
    if (n < 1) /* OMP_NUM_THREADS of 2^31 or more overflows */
        n = omp_get_num_procs();
    return n < 2 ? 1 : prove(n);
}

void bitops_set_num_threads(int n) {
    requested = n;
    omp_set_num_threads(n);
}

void bitops_limit_to_one_thread(int limit) {
    limited = limit;
}

#else

int bitops_has_openmp(void) {
    return 0;
}

int bitops_get_num_threads(void) {
    return 1;
}

void bitops_set_num_threads(int n) {
    (void)n;
}

void bitops_limit_to_one_thread(int limit) {
    (void)limit;
}

#endif
