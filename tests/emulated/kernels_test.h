/* kernels_test.h: comparisons, memory and data for the tests of kernels, and lists of the tests. */
#ifndef KERNELS_TEST_H
#define KERNELS_TEST_H

#include "bitops.h"

#include <stddef.h>
#include <stdint.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

extern const bitops_isa *generic; /* the ISA that others are compared with */

/* ---- comparisons --------------------------------------------------------------------------- */

extern const char *current_isa, *current_op; /* what is being tested, for messages */
extern unsigned long comparisons;

void fail(const char *what, size_t a, size_t b, size_t c);
void check(int equal, const char *what, size_t a, size_t b, size_t c);

/* ---- memory -------------------------------------------------------------------------------- */

enum { INPUTS = 8, UNTOUCHED = 0xa5 };

void make_inputs(void); /* before the first test */

/* The last `bytes` bytes of input i, before a page that faults. */
void *input(int i, size_t bytes);

/* Memory that is aligned to 64 bytes, for workspaces. */
void *workspace_of(size_t bytes);
void free_workspace(void *p);

/* What a kernel writes, and what generic writes: at `offset` from the start of a cache line,
 * between bytes that must not change. */
typedef struct outputs {
    void *got, *want;
} outputs;

outputs make_outputs(size_t bytes, size_t offset);

/* Compares them; a, b and c are the sizes for the message. */
void check_outputs(size_t a, size_t b, size_t c);

/* ---- data ---------------------------------------------------------------------------------- */

enum { RANDOM, ONES, ZEROS, OPPOSITE, PATTERNS };

enum { BIT_SIZES = 35, OFFSETS = 17 };

/* Sizes 0 and 1, and around each word, vector and block of bits. */
extern const size_t bit_sizes[BIT_SIZES];

uint64_t random64(void);
float random_float(void);

/* Value i of a type; every third is one of the edge cases. */
double edge_value(size_t i);

uint64_t *input_words(int i, size_t n, int pattern);

/* ---- stores -------------------------------------------------------------------------------- */

enum { STORES = 15, MAX_M = 600, MAX_N = 520 };

extern float alpha[MAX_N], bias[MAX_N];

/* Fills alpha, bias and the other arrays that stores read, for n columns of k bits. */
void fill_store_arrays(size_t n, size_t k);

/* Store number i, 0 to STORES - 1, of columns [0, n) of k bits; its c is to be set. */
bitops_store make_store(int i, size_t n, size_t k);

size_t store_bytes(const bitops_store *store, size_t m);

/* What stores add to: counts, or empty heaps. */
void start_outputs(const bitops_store *store, size_t m, void *c);

/* ---- tests --------------------------------------------------------------------------------- */

/* The test of a kernel, by the name of its operation, or of a driver. */
typedef struct named_test {
    const char *name;
    void (*run)(const bitops_isa *isa);
} named_test;

/* Each list ends with a name that is NULL. Operations that others cannot do without are tested with
 * those. */
extern const named_test pack_tests[], training_tests[], product_tests[], tile_tests[];
extern const named_test driver_tests[], search_tests[], stop_tests[];
void test_code_conv_driver(const bitops_isa *isa); /* of driver_tests */
void test_byte_gemm_driver(const bitops_isa *isa);

#endif
