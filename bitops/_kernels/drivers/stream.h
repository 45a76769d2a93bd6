/* stream.h: outputs that no cache can hold go past the caches, one row of a block at a time:
 * otherwise each line would be read before it is written. */
#ifndef BITOPS_STREAM_H
#define BITOPS_STREAM_H

#include "bitops.h"
#include "drivers/sizes.h"
#include "isa/shared/store.h"

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

enum {
    LINE_BYTES = LINE_WORDS * sizeof(uint64_t),
    STREAM_BYTES = 1 << 27, /* outputs this large: measured, see README.md */
};

static inline int is_streamed(const bitops_gemm_args *args) {
    const double rows = (double)args->m, columns = (double)args->n;
    return rows * columns * (double)store_number_size(args->store.kind) >= STREAM_BYTES;
}

/* The store of row i, from column j on, to a line in its place: as row 0, from column 0 on. */
static inline bitops_store store_to_line(const bitops_store *store, size_t i, size_t j,
                                         void *line) {
    bitops_store own = *store;
    own.c = line;
    own.ldc = 0; /* there is no next row */
    own.alpha = own.alpha ? own.alpha + j : NULL;
    own.bias = own.bias ? own.bias + j : NULL;
    own.k_map = own.k_map ? own.k_map + i : NULL;
    own.a_counts = own.a_counts ? own.a_counts + i : NULL;
    own.w_counts = own.w_counts ? own.w_counts + j : NULL;
    return own;
}

/* Copies the n numbers of a line to row i, from column j on; whole lines of the cache do not pass
 * through it. */
static inline void stream_line(const bitops_store *store, size_t i, size_t j, const void *line,
                               size_t n) {
    const size_t size = store_number_size(store->kind);
    char *c_out = (char *)store->c + (i * store->ldc + j) * size;
    const char *bytes = (const char *)line;
    n *= size;
#if defined(__x86_64__)
    const size_t head = min_size((size_t)(-(uintptr_t)c_out % LINE_BYTES), n);
    memcpy(c_out, bytes, head);
    size_t b = head;
    for (; b + LINE_BYTES <= n; b += LINE_BYTES)
        for (size_t part = 0; part < LINE_BYTES; part += sizeof(__m128i))
            _mm_stream_si128((__m128i *)(c_out + b + part),
                             _mm_loadu_si128((const __m128i *)(bytes + b + part)));
    memcpy(c_out + b, bytes + b, n - b);
#else
    memcpy(c_out, bytes, n);
#endif
}

#endif
