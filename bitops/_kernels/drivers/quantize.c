/* quantize.c: rounds float32 numbers to bytes, at random, so that the mean is kept; numbers that
 * are to be scaled by columns are so in the first-level cache.
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
    CHUNK = 1 << 11,       /* elements that are scaled at once, 8 KiB */
    REPEATED = 512,        /* factors, if there are fewer: rows of a few numbers are slow */
    THREAD_WORK = 1 << 16, /* elements below which one thread is faster */
};

/* Elements [first, first + n), up to CHUNK, scaled in `space` if there are factors. */
static const float *scaled_chunk(const bitops_isa *isa, const bitops_scaled *numbers, size_t first,
                                 size_t n, float space[CHUNK]) {
    const float *x = numbers->x + first, *alpha = numbers->alpha;
    if (!alpha)
        return x;
    for (size_t i = 0, col = first % numbers->columns, count; i < n; i += count, col = 0) {
        count = min_size(numbers->columns - col, n - i);
        isa->affine_f32(x + i, 1, count, alpha + col, NULL, 0, space + i);
    }
    return space;
}

/* The same numbers, as rows of at least half of REPEATED. */
static bitops_scaled in_long_rows(const bitops_scaled *numbers, float space[REPEATED]) {
    bitops_scaled same = *numbers;
    if (!numbers->alpha || numbers->columns > REPEATED / 2)
        return same;
    same.alpha = space;
    same.columns = REPEATED / numbers->columns * numbers->columns;
    for (size_t i = 0; i < same.columns; i++)
        space[i] = numbers->alpha[i % numbers->columns];
    return same;
}

static float peak_of_block(const bitops_isa *isa, const bitops_scaled *numbers, size_t first,
                           size_t n) {
    float most = 0, space[CHUNK];
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t count = min_size(CHUNK, n - i);
        const float peak =
            isa->peak_f32(scaled_chunk(isa, numbers, first + i, count, space), count);
        if (peak != peak)
            return peak;
        most = peak > most ? peak : most;
    }
    return most;
}

float bitops_peak(const bitops_isa *isa, const bitops_scaled *numbers, bitops_stop *stop,
                  int n_threads) {
    const size_t n = numbers->n;
    float most = 0, space[REPEATED];
    int any_nan = 0;
    const bitops_scaled rows = in_long_rows(numbers, space);
    BITOPS_PARALLEL_FOR(bitops_share((double)n, THREAD_WORK, n_threads),
                        schedule(static) reduction(max
                                                   : most) reduction(|
                                                                     : any_nan))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(n, BLOCK); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * BLOCK;
        const float peak = peak_of_block(isa, &rows, first, min_size(BLOCK, n - first));
        any_nan |= peak != peak;
        most = peak > most ? peak : most;
    }
    return any_nan ? NAN : most;
}

static void quantize_block(const bitops_isa *isa, const bitops_scaled *numbers, size_t first,
                           size_t n, float scale, uint32_t seed, int zero, uint8_t *codes_out) {
    float space[CHUNK];
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t count = min_size(CHUNK, n - i);
        isa->quantize_f32(scaled_chunk(isa, numbers, first + i, count, space), count, scale,
                          seed + (uint32_t)i * NEXT_PLACE, zero, codes_out + i);
    }
}

void bitops_quantize(const bitops_isa *isa, const bitops_scaled *numbers, float scale,
                     uint32_t seed, int zero, uint8_t *codes_out, bitops_stop *stop,
                     int n_threads) {
    const size_t n = numbers->n;
    float space[REPEATED];
    const bitops_scaled rows = in_long_rows(numbers, space);
    BITOPS_PARALLEL_FOR(bitops_share((double)n, THREAD_WORK, n_threads), schedule(static))
    for (ptrdiff_t task = 0; task < (ptrdiff_t)ceil_div(n, BLOCK); task++) {
        if (bitops_stopped_at((size_t)task, BITOPS_STOP_TASKS, stop))
            continue;
        const size_t first = (size_t)task * BLOCK;
        quantize_block(isa, &rows, first, min_size(BLOCK, n - first), scale,
                       hash32(seed + (uint32_t)task), zero, codes_out + first);
    }
}
