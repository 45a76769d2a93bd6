/* threads.c: how many threads a call may use. */
#include "bitops.h"

#if defined(_OPENMP)

#include "runtime/parallel.h"

#include <omp.h>
#include <stdatomic.h>

static atomic_int requested = 0; /* 0: whatever OpenMP allows */
static atomic_int limited = 0;   /* while a training leaves the threads to BLAS */
static atomic_int possible = BITOPS_MAX_THREADS;

/* Of the threads of a team that came late: */
static const double late = 3e-4;     /* seconds; threads that slept come within 1e-4 */
static const double shortest = 0.02; /* seconds for which small work is then done by one thread, */
static const double longest = 0.64;  /* twice as many each time that they are late again */
static const double small_work = 2048; /* times the least work for a team: 10 to 40 ms */
static _Atomic double crowded_until = 0, crowded_for = 0;

static int read_int(atomic_int *value) {
    return atomic_load_explicit(value, memory_order_relaxed);
}

#if defined(_WIN32)
static atomic_int forked = 0;
static const int small_stacks = 0;

/* Nothing is known about threads here: OpenMP is trusted. */
static int team(int threads) {
    return threads;
}
#else
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static atomic_int forked = 0;

enum { LEAST_STACK = 1 << 16 }; /* what the loops need */
static size_t stack_size = 0;   /* of OpenMP's threads; 0 for that of any thread */
static int small_stacks = 0;    /* too small for our loops: the calling thread works alone */

/* The bytes that a variable such as OMP_STACKSIZE stands for, 0 if it is not set or wrong: a
 * number, of KiB unless a letter B, K, M or G follows. */
static size_t read_size(const char *variable) {
    const char *text = getenv(variable);
    if (!text)
        return 0;
    char *end;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    if (end == text || errno)
        return 0;
    while (*end == ' ')
        end++;
    static const char units[] = "bkmg";
    unsigned shift = 10;
    for (unsigned i = 0; *end && units[i]; i++)
        if ((*end | 0x20) == units[i])
            shift = 10 * i;
    return number > SIZE_MAX >> shift ? 0 : (size_t)number << shift;
}

/* GNU OpenMP keeps its threads from call to call. In a forked child they do not exist, and a
 * parallel region would wait for them forever. */
static void in_child(void) {
    forked = 1;
}

__attribute__((constructor)) static void at_load(void) {
    pthread_atfork(NULL, NULL, in_child);
    stack_size = read_size("OMP_STACKSIZE");
    if (!stack_size)
        stack_size = read_size("GOMP_STACKSIZE");
    pthread_attr_t attributes; /* which OpenMP, too, does without if they are refused */
    pthread_attr_init(&attributes);
    if (stack_size && pthread_attr_setstacksize(&attributes, stack_size))
        stack_size = 0;
    pthread_attr_destroy(&attributes);
    small_stacks = stack_size && stack_size < LEAST_STACK;
}

/* GNU OpenMP ends the process if it cannot make a thread: in a container with few process
 * identifiers, or where memory for stacks is limited. It makes those of a team for the thread that
 * calls, keeps them for this thread's next team, and ends those that a smaller team leaves over. So
 * before a team that is larger than the last one of its thread, as many threads are made here, all
 * alive at a time; if that fails, the team is smaller. */
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

static int make_thread(pthread_t *thread, const pthread_attr_t *attributes, gate *g) {
    return !bitops_fails(BITOPS_THREAD) && pthread_create(thread, attributes, wait_at, g) == 0;
}

/* The threads, with the calling one, that a team of n may have. If not all of them can be made,
 * half of those that can: OpenMP and the program need memory too. For one caller at a time. */
static int count_threads(int n) {
    gate g = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    static pthread_t threads[BITOPS_MAX_THREADS]; /* not on a stack that may have 64 KiB */
    int made = 0;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (stack_size)
        pthread_attr_setstacksize(&attributes, stack_size);
    while (made < n - 1 && make_thread(&threads[made], &attributes, &g))
        made++;
    pthread_attr_destroy(&attributes);
    pthread_mutex_lock(&g.lock);
    g.open = 1;
    pthread_cond_broadcast(&g.opened);
    pthread_mutex_unlock(&g.lock);
    for (int i = 0; i < made; i++)
        pthread_join(threads[i], NULL);
    return 1 + (made == n - 1 ? made : made / 2);
}

/* How many of these threads the next team of this thread has: all, unless the system cannot make
 * them. */
static int team(int threads) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static _Thread_local int kept = 1; /* with the calling thread */
    if (threads < 2 || small_stacks)
        return 1;
    if (threads > BITOPS_MAX_THREADS)
        threads = BITOPS_MAX_THREADS;
    if (threads > kept) {
        pthread_mutex_lock(&lock);
        const int made = count_threads(threads);
        if (made < threads && made < read_int(&possible))
            possible = made;
        pthread_mutex_unlock(&lock);
        threads = made;
    }
    if (threads > 1)
        kept = threads;
    return threads;
}
#endif

bitops_region bitops_region_begin(int threads) {
    bitops_region region = {.threads = team(threads), .open = 1};
    if (region.threads > 1)
        region.start = omp_get_wtime();
    return region;
}

void bitops_region_arrive(bitops_region *region) {
    if (region->threads < 2 || omp_get_thread_num() == 0)
        return;
    const int after = (int)(1e6 * (omp_get_wtime() - region->start));
    if (after > read_int(&region->latest))
        region->latest = after;
}

/* Lateness is held against a team where it cost a good part of the time. One that comes in time
 * proves little: now and then the others leave a processor. */
void bitops_region_end(bitops_region *region) {
    region->open = 0;
    const double lateness = 1e-6 * read_int(&region->latest);
    if (lateness < late)
        return;
    const double now = omp_get_wtime();
    if (4 * lateness < now - region->start)
        return;
    double wait = atomic_load_explicit(&crowded_for, memory_order_relaxed);
    const double until = atomic_load_explicit(&crowded_until, memory_order_relaxed);
    const int again = now < until + 4 * wait;
    wait = !again ? shortest : 2 * wait < longest ? 2 * wait : longest;
    atomic_store_explicit(&crowded_for, wait, memory_order_relaxed);
    atomic_store_explicit(&crowded_until, now + wait, memory_order_relaxed);
}

int bitops_share(double work, double least, int threads) {
    if (threads < 2 || work < least)
        return 1;
    const double until = atomic_load_explicit(&crowded_until, memory_order_relaxed);
    if (until > 0 && work < small_work * least && omp_get_wtime() < until)
        return 1;
    return threads;
}

int bitops_has_openmp(void) {
    return 1;
}

int bitops_get_num_threads(void) {
    int n = omp_get_max_threads();
    const int wanted = read_int(&requested), most = read_int(&possible);
    if (read_int(&forked) || read_int(&limited) || small_stacks)
        return 1;
    if (wanted && wanted < n)
        n = wanted;
    if (n < 1) /* OMP_NUM_THREADS of 2^31 or more overflows */
        n = omp_get_num_procs();
    return n < most ? n : most;
}

void bitops_set_num_threads(int n) {
    possible = BITOPS_MAX_THREADS;
    crowded_until = crowded_for = 0;
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
