/* threads.c: how many threads a call may use. */
#include "bitops.h"

#if defined(_OPENMP)

#include <omp.h>

static volatile int requested = 0; /* 0: whatever OpenMP allows */
static volatile int limited = 0;
static volatile int forked = 0;

#if !defined(_WIN32)
#include <pthread.h>

/* GNU OpenMP keeps its threads from call to call. In a forked child they do not exist, and a
 * parallel region would wait for them forever. */
static void in_child(void) {
    forked = 1;
}

__attribute__((constructor)) static void watch_fork(void) {
    pthread_atfork(NULL, NULL, in_child);
}
#endif

int bitops_has_openmp(void) {
    return 1;
}

int bitops_get_num_threads(void) {
    const int limit = omp_get_max_threads();
    if (forked || limited)
        return 1;
    return requested && requested < limit ? requested : limit;
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
