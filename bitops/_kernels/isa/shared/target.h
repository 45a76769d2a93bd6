/* target.h: target regions, forced inlining and assumptions, for gcc and clang.
 *
 * A region enables an instruction set for the functions between its two macros, whatever flags the
 * file is compiled with. System headers must be included above it. */
#ifndef BITOPS_TARGET_H
#define BITOPS_TARGET_H

#include <assert.h>

#if defined(_WIN32) && !defined(__clang__)
#error "for Windows, bitops needs Clang: GCC spills 32-byte vectors to unaligned addresses there"
#endif

#define BITOPS_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define BITOPS_TARGET_BEGIN(features)                                                              \
    BITOPS_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define BITOPS_TARGET_END BITOPS_PRAGMA(clang attribute pop)
#else
#define BITOPS_TARGET_BEGIN(features)                                                              \
    BITOPS_PRAGMA(GCC push_options) BITOPS_PRAGMA(GCC target(features))
#define BITOPS_TARGET_END BITOPS_PRAGMA(GCC pop_options)
#endif

#define BITOPS_INLINE static inline __attribute__((always_inline))
#define BITOPS_NOINLINE static __attribute__((noinline))
#if defined(__clang__) /* which reads past pragmas of GCC */
#define BITOPS_UNROLL BITOPS_PRAGMA(clang loop unroll(full))
#define BITOPS_NO_UNROLL BITOPS_PRAGMA(clang loop unroll(disable))
#define BITOPS_INDEPENDENT BITOPS_PRAGMA(clang loop vectorize(assume_safety))
#else
#define BITOPS_UNROLL BITOPS_PRAGMA(GCC unroll 16)
#define BITOPS_NO_UNROLL BITOPS_PRAGMA(GCC unroll 1)
#define BITOPS_INDEPENDENT BITOPS_PRAGMA(GCC ivdep) /* no iteration reads what another writes */
#endif
#define BITOPS_PREFETCH(address) __builtin_prefetch(address)
#define BITOPS_PREFETCH_WRITE(address) __builtin_prefetch(address, 1)
/* Empty statements that make the compiler keep a vector in a register, a number in memory or a
 * pointer in a register, where it would load again or move between kinds of registers. They change
 * no value. */
#define BITOPS_IN_REGISTER(vector) __asm__("" : "+v"(vector))
#define BITOPS_IN_MEMORY(number) __asm__("" : "+m"(number))
#define BITOPS_IN_POINTER(pointer) __asm__("" : "+r"(pointer))
/* The same for a pointer that is made, and memory that is read through it, before what follows. */
#define BITOPS_IN_ORDER(pointer) __asm__ volatile("" : "+r"(pointer)::"memory")

/* A precondition: checked in debug builds, told to the optimiser in release builds. */
#if defined(NDEBUG)
#define BITOPS_ASSUME(condition)                                                                   \
    do {                                                                                           \
        if (!(condition))                                                                          \
            __builtin_unreachable();                                                               \
    } while (0)
#else
#define BITOPS_ASSUME(condition) assert(condition)
#endif

#endif
