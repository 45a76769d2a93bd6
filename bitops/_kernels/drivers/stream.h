/* stream.h: writes of large outputs, past the caches. */
#ifndef BITOPS_STREAM_H
#define BITOPS_STREAM_H

#include "drivers/sizes.h"

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

enum {
    LINE_BYTES = 64,        /* of a cache line */
    STREAM_BYTES = 1 << 27, /* outputs this large go past the caches: measured, see README.md */
};

/* Copies bytes to memory that is not read soon; whole lines do not pass through the caches. */
static inline void stream(void *out, const void *from, size_t n) {
    char *c_out = out;
    const char *bytes = from;
#if defined(__x86_64__)
    size_t head = (size_t)(-(uintptr_t)c_out % LINE_BYTES);
    head = min_size(head, n);
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

#endif
