/* memory.c: memory for workspaces and panels, and the switch by which tests let requests fail. */
#include "bitops.h"

#include <stdatomic.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { LINE = 64 };

/* What tests have set. While `armed` is 0, nothing else is read here. */
typedef struct failures {
    atomic_int armed;
    atomic_long made, first, end; /* requests [first, end) fail, counted from 1 */
} failures;

static failures failing[BITOPS_REQUESTS];
static atomic_long live;

/* A block of no bytes, as few rows ask for: malloc and free would take a tenth of such a call. */
static _Alignas(LINE) char nothing[LINE];

void bitops_fail(bitops_request kind, long first, long count) {
    failures *f = &failing[kind];
    atomic_store(&f->made, 0);
    atomic_store(&f->first, first);
    atomic_store(&f->end, first + count);
    atomic_store(&f->armed, first > 0);
}

long bitops_requests(bitops_request kind) {
    return atomic_load(&failing[kind].made);
}

int bitops_fails(bitops_request kind) {
    failures *f = &failing[kind];
    if (!atomic_load_explicit(&f->armed, memory_order_relaxed))
        return 0;
    const long number = atomic_fetch_add(&f->made, 1) + 1;
    return number >= atomic_load(&f->first) && number < atomic_load(&f->end);
}

long bitops_live_blocks(void) {
    return atomic_load(&live);
}

/* What malloc returned is kept in front of the block: malloc aligns to 8 bytes at least, so there
 * is room for a pointer. */
void *bitops_allocate(size_t size) {
    if (size > SIZE_MAX - LINE || bitops_fails(BITOPS_MEMORY))
        return NULL;
    if (size == 0)
        return nothing;
    char *memory = malloc(size + LINE);
    if (!memory)
        return NULL;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    void **block = (void **)(memory + LINE - (uintptr_t)memory % LINE);
    block[-1] = memory;
    return block;
}

void bitops_free(void *block) {
    if (!block || block == nothing)
        return;
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(((void **)block)[-1]);
}

#ifdef __GLIBC__
/* glibc maps blocks from a size on that follows the largest one freed, but is never above 32 MiB,
 * and trims the heap from twice that size on. To set either ends that, so the highest is set. */
enum { MIB = 1 << 20, MOST_MAPPED = 1 << 16, LEAST_MAPPED = 32 * MIB, LEAST_TRIMMED = 64 * MIB };

void bitops_keep_freed(int keep) {
    mallopt(M_MMAP_MAX, keep ? 0 : MOST_MAPPED);
    mallopt(M_TRIM_THRESHOLD, keep ? -1 : LEAST_TRIMMED);
    mallopt(M_MMAP_THRESHOLD, LEAST_MAPPED);
    if (!keep)
        malloc_trim(0);
}
#else
void bitops_keep_freed(int keep) {
    (void)keep;
}
#endif
