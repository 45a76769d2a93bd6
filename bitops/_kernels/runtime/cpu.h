/* cpu.h: what the CPU and the operating system can run, one bit per exact feature set. */
#ifndef BITOPS_CPU_H
#define BITOPS_CPU_H

#include <stdint.h>

enum {
    BITOPS_CPU_AVX2 = 1 << 0,   /* AVX2, BMI2, POPCNT, and ymm state saved by the system */
    BITOPS_CPU_AVX512 = 1 << 1, /* AVX-512 F, BW, VL, VBMI, VNNI, VPOPCNTDQ, and zmm state saved */
    BITOPS_CPU_NEON = 1 << 2,   /* AArch64 Advanced SIMD */
    BITOPS_CPU_AMX = 1 << 3,    /* AMX-TILE, AMX-INT8, GFNI, and tiles saved for the process */
};

/* Feature bits of this machine, read once. */
uint32_t bitops_cpu_features(void);

#endif
