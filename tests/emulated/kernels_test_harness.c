/* kernels_test_harness.c: comparisons, memory with fences, and data for the tests. */
#define _DEFAULT_SOURCE
#include "kernels_test.h"
#include "isa/shared/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#endif

const char *current_isa = "", *current_op = "";
unsigned long comparisons;

void fail(const char *what, size_t a, size_t b, size_t c) {
    printf("%s %s: %s differ at sizes %zu %zu %zu\n", current_isa, current_op, what, a, b, c);
    exit(1);
}

void check(int equal, const char *what, size_t a, size_t b, size_t c) {
    comparisons++;
    if (!equal)
        fail(what, a, b, c);
}

/* ---- memory and data ----------------------------------------------------------------------- */

enum { INPUT_BYTES = 1 << 21, MARGIN = 64, OUTPUT_BYTES = 1 << 20 };

static char *inputs[INPUTS];

/* INPUT_BYTES bytes before a page that faults, or NULL. */
static char *fenced_memory(void) {
    enum { FENCE = 1 << 16 }; /* a multiple of every page size */
#if defined(_WIN32)
    DWORD before;
    char *memory =
        VirtualAlloc(NULL, INPUT_BYTES + FENCE, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!memory || !VirtualProtect(memory + INPUT_BYTES, FENCE, PAGE_NOACCESS, &before))
        return NULL;
#else
    char *memory =
        mmap(NULL, INPUT_BYTES + FENCE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + INPUT_BYTES, FENCE, PROT_NONE))
        return NULL;
#endif
    return memory;
}

void make_inputs(void) {
    for (int i = 0; i < INPUTS; i++) {
        inputs[i] = fenced_memory();
        if (!inputs[i]) {
            puts("kernels_test: no memory with a fence behind it");
            exit(2);
        }
    }
}

void *input(int i, size_t bytes) {
    if (bytes > INPUT_BYTES)
        fail("memory of the test", bytes, 0, 0);
    return inputs[i] + INPUT_BYTES - bytes;
}

void *workspace_of(size_t bytes) {
    const size_t size = bytes ? (bytes + 63) / 64 * 64 : 64;
#if defined(_WIN32)
    void *p = _aligned_malloc(size, 64);
#else
    void *p = aligned_alloc(64, size);
#endif
    if (!p)
        exit(2);
    memset(p, UNTOUCHED, size);
    return p;
}

void free_workspace(void *p) {
#if defined(_WIN32)
    _aligned_free(p);
#else
    free(p);
#endif
}

static _Alignas(64) char got_memory[OUTPUT_BYTES], want_memory[OUTPUT_BYTES];
static size_t output_bytes;

outputs make_outputs(size_t bytes, size_t offset) {
    output_bytes = MARGIN + offset + bytes + MARGIN;
    if (output_bytes > OUTPUT_BYTES)
        fail("memory of the test", bytes, offset, 0);
    memset(got_memory, UNTOUCHED, output_bytes);
    memset(want_memory, UNTOUCHED, output_bytes);
    return (outputs){got_memory + MARGIN + offset, want_memory + MARGIN + offset};
}

void check_outputs(size_t a, size_t b, size_t c) {
    check(memcmp(got_memory, want_memory, output_bytes) == 0, "outputs", a, b, c);
}

static uint64_t random_state = 20160316;

const size_t bit_sizes[BIT_SIZES] = {0,   1,   2,   3,   7,   8,   9,   15,   16,   17,   31,  32,
                                     33,  61,  63,  64,  65,  97,  127, 128,  129,  191,  192, 193,
                                     255, 256, 257, 511, 512, 513, 769, 1009, 1023, 1024, 1025};

uint64_t random64(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1du;
}

float random_float(void) {
    return (float)((double)(random64() >> 11) / (double)((uint64_t)1 << 53) * 4 - 2);
}

/* second: the other operand of a product. */
static void fill_words(uint64_t *words, size_t n, int pattern, int second) {
    for (size_t i = 0; i < n; i++)
        words[i] = pattern == RANDOM                                    ? random64()
                   : pattern == ONES || (pattern == OPPOSITE && second) ? UINT64_MAX
                                                                        : 0;
}

uint64_t *input_words(int i, size_t n, int pattern) {
    uint64_t *words = input(i, n * sizeof *words);
    fill_words(words, n, pattern, i % 2);
    return words;
}

double edge_value(size_t i) {
    static const double edges[] = {0.0, -0.0, 1, -1, 127, -128, 5e-324, -5e-324, 1e-40, -1e-40};
    return i % 3 ? (double)random_float() * 60 : edges[i / 3 % COUNT(edges)];
}

/* ---- stores -------------------------------------------------------------------------------- */

enum { TOPK = 5, OFFSET_ROWS = 3 };

float alpha[MAX_N], bias[MAX_N];
static float k_map[MAX_M];
static int32_t threshold[MAX_N], offset_table[OFFSET_ROWS * MAX_N];
static uint64_t flip[MAX_N / 64 + 1];
static uint32_t offset_row[MAX_M];
static int32_t a_counts[MAX_M], w_counts[MAX_N];

void fill_store_arrays(size_t n, size_t k) {
    for (size_t j = 0; j < MAX_N; j++) {
        alpha[j] = random_float();
        bias[j] = random_float();
        w_counts[j] = (int32_t)(k - random64() % (k / 2 + 1)); /* two are at least k */
        threshold[j] = (int32_t)(random64() % (k / 4 + 3)) - (int32_t)(k / 8 + 1);
    }
    for (size_t j = 0; j < COUNT(offset_table); j++)
        offset_table[j] = (int32_t)(random64() % 50) - 25;
    for (size_t i = 0; i < MAX_M; i++) {
        k_map[i] = random_float();
        a_counts[i] = (int32_t)(k - random64() % (k / 2 + 1));
        offset_row[i] = (uint32_t)(random64() % OFFSET_ROWS);
    }
    memset(flip, 0, sizeof flip); /* packed bits: those from n on are 0 */
    for (size_t j = 0; j < n; j++)
        flip[j / 64] |= (random64() & 1) << j % 64;
}

bitops_store make_store(int i, size_t n, size_t k) {
    bitops_store store = {.k = (int32_t)k, .ldc = n + (size_t)i % 3};
    static const bitops_store_kind kinds[STORES] = {
        BITOPS_STORE_DOT,       BITOPS_STORE_SCALED, BITOPS_STORE_HAMMING,
        BITOPS_STORE_HAMMING16, BITOPS_STORE_SIGN,   BITOPS_STORE_ACCUMULATE,
        BITOPS_STORE_TOPK,      BITOPS_STORE_SCALED, BITOPS_STORE_DOT,
        BITOPS_STORE_SIGN,      BITOPS_STORE_SCALED, BITOPS_STORE_INTERSECTION,
        BITOPS_STORE_JACCARD,   BITOPS_STORE_DICE,   BITOPS_STORE_HAMMING8};
    store.kind = kinds[i];
    if (store.kind == BITOPS_STORE_TOPK) {
        store.ldc = TOPK;
        store.metric = BITOPS_STORE_HAMMING;
    }
    if (store.kind == BITOPS_STORE_SIGN) {
        store.ldc = bitops_words(n) + (size_t)i % 3;
        store.threshold = threshold;
    }
    if (i > 10 && i < 14) {
        store.a_counts = a_counts;
        store.w_counts = w_counts;
    } else if (i >= 7 && i != 10) { /* with offsets */
        store.offset = offset_table;
        store.ld_offset = MAX_N;
        store.offset_row = offset_row;
        store.first_row = 0;
    }
    if (i == 1 || i == 7)
        store.alpha = alpha;
    if (i == 7 || i == 10)
        store.k_map = k_map;
    if (i == 1 || i == 10)
        store.bias = bias;
    if (i == 9)
        store.flip = flip;
    return store;
}

size_t store_bytes(const bitops_store *store, size_t m) {
    const size_t number = store_number_size(store->kind);
    return m * store->ldc * (number ? number : 8);
}

void start_outputs(const bitops_store *store, size_t m, void *c) {
    if (store->kind == BITOPS_STORE_TOPK)
        memset(c, 0xff, store_bytes(store, m));
    if (store->kind == BITOPS_STORE_ACCUMULATE)
        for (size_t i = 0; i < m * store->ldc; i++)
            ((int32_t *)c)[i] = (int32_t)i;
}
