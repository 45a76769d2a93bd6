/* stop.c: tells drivers whether a long call should end before its work is done. */
#include "bitops.h"
#include "runtime/parallel.h"

#include <stddef.h>
#include <time.h>

#define INTERVAL 0.1 /* seconds from one call of `ask` to the next; it may wait for a lock */

static double seconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int bitops_stopped(bitops_stop *stop) {
    if (stop == NULL)
        return 0;
    const int stopped = atomic_load_explicit(&stop->stopped, memory_order_relaxed);
    if (stopped || bitops_thread_number() != 0)
        return stopped;
    const double now = seconds(), passed = now - stop->asked;
    if (stop->asked == 0) {
        stop->asked = now;
    } else if (passed >= INTERVAL || passed < 0) { /* the clock may be set back */
        atomic_store_explicit(&stop->stopped, stop->ask() != 0, memory_order_relaxed);
        stop->asked = seconds();
    }
    return atomic_load_explicit(&stop->stopped, memory_order_relaxed);
}
