/* float_env.h: the floating-point environment in which kernels compute.
 *
 * A thread may have another one: a library compiled with -ffast-math, or PyTorch's
 * set_flush_denormal, sets flush-to-zero in the thread that asks for it and in those made later,
 * and a program may set a rounding mode. Results would then depend on which thread computed them.
 * So loops run in the default environment: round to nearest, denormal numbers kept, no traps. */
#ifndef BITOPS_FLOAT_ENV_H
#define BITOPS_FLOAT_ENV_H

#include <stdint.h>

#if defined(__x86_64__)
#define BITOPS_FLOATS_DEFAULT 0x1f80u /* MXCSR: all exceptions masked */
#define BITOPS_FLOATS_CONTROL 0xffc0u /* without the sticky flags */

static inline uint64_t bitops_floats_get(void) {
    return __builtin_ia32_stmxcsr();
}

static inline void bitops_floats_set(uint64_t control) {
    __builtin_ia32_ldmxcsr((uint32_t)control);
}
#elif defined(__aarch64__)
#define BITOPS_FLOATS_DEFAULT 0u /* FPCR */
#define BITOPS_FLOATS_CONTROL UINT64_MAX

static inline uint64_t bitops_floats_get(void) {
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return control;
}

static inline void bitops_floats_set(uint64_t control) {
    __asm__ volatile("msr fpcr, %0" : : "r"(control) : "memory");
}
#else
#define BITOPS_FLOATS_DEFAULT 0u
#define BITOPS_FLOATS_CONTROL 0u

static inline uint64_t bitops_floats_get(void) {
    return 0;
}

static inline void bitops_floats_set(uint64_t control) {
    (void)control;
}
#endif

static inline int bitops_floats_are_default(uint64_t control) {
    return (control & BITOPS_FLOATS_CONTROL) == BITOPS_FLOATS_DEFAULT;
}

/* Enters the default environment; returns the one before. */
static inline uint64_t bitops_floats_begin(void) {
    const uint64_t before = bitops_floats_get();
    if (!bitops_floats_are_default(before))
        bitops_floats_set(BITOPS_FLOATS_DEFAULT);
    return before;
}

/* Returns to the environment before. */
static inline void bitops_floats_end(uint64_t before) {
    if (!bitops_floats_are_default(before))
        bitops_floats_set(before);
}

/* Runs the statement that follows once, in the default environment. */
#define BITOPS_WITH_DEFAULT_FLOATS                                                                 \
    for (uint64_t floats_before = bitops_floats_begin(), floats_once = 1; floats_once;             \
         bitops_floats_end(floats_before), floats_once = 0)

#endif
