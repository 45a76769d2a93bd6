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
    if (stop == NULL || stop->stopped || bitops_thread_number() != 0)
        return stop != NULL && stop->stopped;
    const double now = seconds(), passed = now - stop->asked;
    if (stop->asked == 0) {
        stop->asked = now;
    } else if (passed >= INTERVAL || passed < 0) { /* the clock may be set back */
        stop->stopped = stop->ask() != 0;
        stop->asked = seconds();
    }
    return stop->stopped;
}
