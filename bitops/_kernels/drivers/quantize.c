/* quantize.c: rounds float32 numbers to bytes, at random, so that the mean is kept.
 *
 * The random number of an element is a hash of the seed and of its position, so results depend
 * neither on threads nor on the ISA. */
#include "bitops.h"
#include "drivers/sizes.h"
#include "isa/shared/quantize.h"
#include "runtime/parallel.h"

#include <math.h>

enum {
    BLOCK = 1 << 13,       /* elements of a task */
    THREAD_WORK = 1 << 16, /* elements below which one thread is faster */
};

float bitops_peak(const bitops_isa *isa, const float *x, size_t n, bitops_stop *stop,
                  int n_threads) {
    float most = 0;
    int any_nan = 0;
    BITOPS_PARALLEL_FOR(bitops_share((double)n, THREAD_WORK, n_threads),
                        schedule(static) reduction(max
                                                   : most) reduction(|
                                                                     : any_nan))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(n, BLOCK); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * BLOCK;
        const float peak = isa->peak_f32(x + first, min_size(BLOCK, n - first));
        any_nan |= peak != peak;
        most = peak > most ? peak : most;
    }
    return any_nan ? NAN : most;
}

void bitops_quantize(const bitops_isa *isa, const float *x, size_t n, float scale, uint32_t seed,
                     int zero, uint8_t *codes_out, bitops_stop *stop, int n_threads) {
    BITOPS_PARALLEL_FOR(bitops_share((double)n, THREAD_WORK, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(n, BLOCK); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * BLOCK;
        isa->quantize_f32(x + first, min_size(BLOCK, n - first), scale,
                          hash32(seed + (uint32_t)task), zero, codes_out + first);
    }
}
