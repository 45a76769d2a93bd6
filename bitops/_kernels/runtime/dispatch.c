/* dispatch.c: the const table of ISAs made from kernels.inc, and the row in force. */
#include "bitops.h"
#include "runtime/cpu.h"

#include <string.h>

static const bitops_isa table[] = {
#define BITOPS_ISA_BEGIN(isa, features_, mr_, nr_, row_words_, plane_bits_, few_rows_,             \
                         medium_rows_, long_rows_, short_rows_, few_columns_, lanes_bits_,         \
                         lanes_rows_f32_, lanes_rows_u8_, lanes_columns_, small_most_)             \
    {                                                                                              \
        .name = #isa, .features = (features_), .mr = (mr_), .nr = (nr_),                           \
        .row_words = (row_words_), .plane_bits = (plane_bits_), .few_rows = (few_rows_),           \
        .medium_rows = (medium_rows_), .long_rows = (long_rows_), .short_rows = (short_rows_),     \
        .few_columns = (few_columns_), .lanes_bits = (lanes_bits_),                                \
        .lanes_rows_f32 = (lanes_rows_f32_), .lanes_rows_u8 = (lanes_rows_u8_),                    \
        .lanes_columns = (lanes_columns_), .small_most = (small_most_),
#define BITOPS_KERNEL(op, isa) .op = bitops_##op##_##isa,
#define BITOPS_SHARED(op, other, isa) .op = bitops_##op##_##other,
#define BITOPS_ISA_END(isa)                                                                        \
    }                                                                                              \
    ,
#include "kernels.inc"
#undef BITOPS_ISA_BEGIN
#undef BITOPS_KERNEL
#undef BITOPS_SHARED
#undef BITOPS_ISA_END
};

static const char *const names[][2] = {
#define BITOPS_ISA_BEGIN(isa, ...)
#define BITOPS_KERNEL(op, isa) {#op, #isa},
#define BITOPS_SHARED(op, other, isa) {#op, #isa},
#define BITOPS_ISA_END(isa)
#include "kernels.inc"
#undef BITOPS_ISA_BEGIN
#undef BITOPS_KERNEL
#undef BITOPS_SHARED
#undef BITOPS_ISA_END
};

static _Atomic(const bitops_isa *) active = NULL; /* calls read it while others set it */

size_t bitops_isa_count(void) {
    return sizeof table / sizeof table[0];
}

const bitops_isa *bitops_isa_get(size_t index) {
    return &table[index];
}

int bitops_isa_runs(const bitops_isa *isa) {
    return (bitops_cpu_features() & isa->features) == isa->features;
}

const bitops_isa *bitops_isa_find(const char *name) {
    for (size_t i = 0; i < bitops_isa_count(); i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

const bitops_isa *bitops_isa_active(void) {
    const bitops_isa *isa = atomic_load_explicit(&active, memory_order_relaxed);
    if (isa)
        return isa;
    size_t i = 0;
    while (!bitops_isa_runs(&table[i])) /* the last row, generic, always runs */
        i++;
    /* Unless another thread has chosen one in the meantime. */
    return atomic_compare_exchange_strong(&active, &isa, &table[i]) ? &table[i] : isa;
}

void bitops_isa_use(const bitops_isa *isa) {
    active = isa;
}

int bitops_kernel_name(size_t index, const char **op, const char **isa) {
    if (index >= sizeof names / sizeof names[0])
        return 0;
    *op = names[index][0];
    *isa = names[index][1];
    return 1;
}

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

const char *bitops_compiler(void) {
#if defined(__clang__)
    return "clang " TEXT(__clang_major__) "." TEXT(__clang_minor__) "." TEXT(__clang_patchlevel__);
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}
