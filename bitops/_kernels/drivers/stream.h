/* stream.h: outputs that no cache can hold go past the caches: otherwise each line would be read
 * before it is written. */
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

/* Copies bytes to memory that is not read soon; whole lines do not pass through the caches. */
static inline void stream(void *out, const void *from, size_t n) {
    char *c_out = out;
    const char *bytes = from;
#if defined(__x86_64__)
    const size_t head = min_size((size_t)(-(uintptr_t)c_out % LINE_BYTES), n);
    memcpy(c_out, bytes, head);
    size_t i = head;
    for (; i + LINE_BYTES <= n; i += LINE_BYTES)
        for (size_t part = 0; part < LINE_BYTES; part += sizeof(__m128i))
            _mm_stream_si128((__m128i *)(c_out + i + part),
                             _mm_loadu_si128((const __m128i *)(bytes + i + part)));
    memcpy(c_out + i, bytes + i, n - i);
#else
    memcpy(c_out, bytes, n);
#endif
}

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

/* Copies the n numbers of a line to row i, from column j on. */
static inline void stream_line(const bitops_store *store, size_t i, size_t j, const void *line,
                               size_t n) {
    const size_t size = store_number_size(store->kind);
    stream((char *)store->c + (i * store->ldc + j) * size, line, n * size);
}

#endif
