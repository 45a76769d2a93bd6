/* cpu.c: CPUID + XGETBV on x86-64; Advanced SIMD is part of every AArch64. */
#if defined(__linux__)
#define _GNU_SOURCE /* syscall */
#endif
#include "runtime/cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__)

#include <cpuid.h>
static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t regs[4]) {
    __cpuid_count(leaf, subleaf, regs[0], regs[1], regs[2], regs[3]);
}
static uint64_t xgetbv0(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

enum { EAX, EBX, ECX, EDX };

static int has(uint32_t reg, int bit) {
    return (int)(reg >> bit & 1);
}

#if defined(__linux__)

#include <sys/syscall.h>
#include <unistd.h>

/* Linux saves tiles only for a process that has asked for it, which also makes the frames of its
 * signals longer; it refuses if a stack for signals is too small for them. */
static int may_use_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILE_DATA) == 0;
}

#else

static int may_use_tiles(void) {
    return 0;
}

#endif

static uint32_t detect(void) {
    uint32_t leaf0[4], leaf1[4], leaf7[4];
    cpuid(0, 0, leaf0);
    if (leaf0[EAX] < 7)
        return 0;
    cpuid(1, 0, leaf1);
    cpuid(7, 0, leaf7);
    /* Even if the CPU has an instruction, it faults unless the system saves its registers: XCR0
     * bits 1-2 for ymm, 5-7 for the mask registers and both halves of zmm, 17-18 for tiles. */
    const int osxsave = has(leaf1[ECX], 27);
    const uint64_t xcr0 = osxsave ? xgetbv0() : 0;
    const int ymm = (xcr0 & 0x06) == 0x06;
    const int zmm = (xcr0 & 0xe6) == 0xe6;
    const int tiles = (xcr0 & 0x60000) == 0x60000;

    uint32_t features = 0;
    if (ymm && has(leaf1[ECX], 28) /* AVX */ && has(leaf1[ECX], 23) /* POPCNT */ &&
        has(leaf7[EBX], 5) /* AVX2 */ && has(leaf7[EBX], 8) /* BMI2 */)
        features |= BITOPS_CPU_AVX2;
    if (zmm && has(leaf7[EBX], 16) /* F */ && has(leaf7[EBX], 30) /* BW */ &&
        has(leaf7[EBX], 31) /* VL */ && has(leaf7[ECX], 1) /* VBMI */ &&
        has(leaf7[ECX], 11) /* VNNI */ && has(leaf7[ECX], 14) /* VPOPCNTDQ */)
        features |= BITOPS_CPU_AVX512;
    if (tiles && has(leaf7[EDX], 24) /* AMX-TILE */ && has(leaf7[EDX], 25) /* AMX-INT8 */ &&
        has(leaf7[ECX], 8) /* GFNI */ && may_use_tiles())
        features |= BITOPS_CPU_AMX;
    return features;
}

#elif defined(__aarch64__)

static uint32_t detect(void) {
    return BITOPS_CPU_NEON;
}

#else

static uint32_t detect(void) {
    return 0;
}

#endif

#define UNKNOWN (UINT32_C(1) << 31)

uint32_t bitops_cpu_features(void) {
    /* If several threads make the first call at once, they write the same value. */
    static _Atomic uint32_t known = UNKNOWN;
    uint32_t features = atomic_load_explicit(&known, memory_order_relaxed);
    if (features == UNKNOWN) {
        features = detect();
        atomic_store_explicit(&known, features, memory_order_relaxed);
    }
    return features;
}
