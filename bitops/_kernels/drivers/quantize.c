/* quantize.c: rounds float32 numbers to bytes, at random, so that the mean is kept.
 *
 * The random number of an element is a hash of the seed and of its position (the finalizer of
 * MurmurHash3, twice), so results depend neither on threads nor on the ISA. Compilers vectorise the
 * plain loops with the baseline instructions. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "isa/shared/target.h"
#include "runtime/parallel.h"

enum {
    BLOCK = 1 << 13,       /* elements of a task */
    THREAD_WORK = 1 << 16, /* elements below which one thread is faster */
};

BITOPS_INLINE uint32_t hash32(uint32_t x) {
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ x >> 16;
}

/* scale * x must lie in 1 - zero .. 255 - zero. With 16 random bits, zero + random is exact and 0
 * always gives zero. */
static void quantize_block(const float *x, size_t n, float scale, uint32_t seed, int zero,
                           uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        const int32_t random = (int32_t)(hash32(seed + (uint32_t)i * 0x9e3779b9u) >> 16);
        const float offset = (float)zero + (float)random * 0x1p-16f;
        out[i] = (uint8_t)(int32_t)(x[i] * scale + offset); /* positive, so rounded down */
    }
}

void bitops_quantize(const float *x, size_t n, float scale, uint32_t seed, int zero,
                     uint8_t *codes_out, bitops_stop *stop, int n_threads) {
    BITOPS_PARALLEL_FOR(bitops_share((double)n, THREAD_WORK, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(n, BLOCK); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * BLOCK;
        quantize_block(x + first, min_size(BLOCK, n - first), scale, hash32(seed + (uint32_t)task),
                       zero, codes_out + first);
    }
}
