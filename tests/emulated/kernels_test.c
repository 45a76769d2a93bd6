/* kernels_test.c: every kernel of the ISAs that this CPU can run against generic.c, and the drivers
 * on top of them.
 *
 *   kernels_test [best [ISA [part of a name ...]]]
 *
 * `best` is the name of the ISA that dispatch must have chosen. An ISA confines the tests to its
 * kernels, and parts of names to those operations and drivers.
 *
 * Sizes are 0, 1, those around words, vectors, tiles and blocks, and primes; inputs are random, all
 * ones, all zeros, or opposite (every bit a mismatch); arrays begin at every offset within a cache
 * line. Inputs end at a page that must not be read, outputs lie between bytes that must not change.
 * The first difference ends the program with status 1. */
#include "kernels_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const bitops_isa *generic;
static char **parts; /* of names, up to NULL; none: all tests */
static unsigned tests_run;

static int is_wanted(const char *name) {
    int wanted = !*parts;
    for (char **part = parts; *part; part++)
        wanted |= strstr(name, *part) != NULL;
    return wanted;
}

static const named_test *find_test(const named_test *tests, const char *name) {
    while (tests->name && strcmp(tests->name, name) != 0)
        tests++;
    return tests->name ? tests : NULL;
}

/* Returns 1, or 0 for a test that is not wanted. */
static unsigned run_test(const bitops_isa *isa, const named_test *test) {
    if (!is_wanted(test->name))
        return 0;
    current_op = test->name;
    test->run(isa);
    tests_run++;
    return 1;
}

static unsigned run_op(const bitops_isa *isa, const char *op) {
    const named_test *test = find_test(pack_tests, op);
    if (!test)
        test = find_test(training_tests, op);
    if (!test)
        test = find_test(product_tests, op);
    if (!test)
        test = find_test(tile_tests, op);
    if (!test) {
        printf("%s %s: there is no test\n", isa->name, op);
        exit(1);
    }
    return run_test(isa, test);
}

/* Returns how many of the tests are wanted. */
static unsigned run_all(const bitops_isa *isa, const named_test *tests) {
    unsigned count = 0;
    for (; tests->name; tests++)
        count += run_test(isa, tests);
    return count;
}

static void test_isa(const bitops_isa *isa) {
    const char *op, *name;
    unsigned kernels = 0, drivers;
    comparisons = 0;
    current_isa = isa->name;
    for (size_t i = 0; bitops_kernel_name(i, &op, &name); i++)
        if (strcmp(name, isa->name) == 0)
            kernels += run_op(isa, op);
    drivers = run_all(isa, driver_tests) + run_all(isa, search_tests);
    run_all(isa, stop_tests);
    printf("%s: %u kernels and %u drivers equal generic in %lu comparisons\n", isa->name, kernels,
           drivers, comparisons);
}

int main(int argc, char **argv) {
    const char *best = bitops_isa_active()->name;
    if (argc > 1 && strcmp(argv[1], best) != 0) {
        printf("dispatch chose %s, not %s\n", best, argv[1]);
        return 1;
    }
    generic = bitops_isa_find("generic");
    make_inputs();
    parts = argc > 3 ? argv + 3 : argv + argc;
    for (size_t i = 0; i < bitops_isa_count(); i++) {
        const bitops_isa *isa = bitops_isa_get(i);
        if (argc > 2 && strcmp(argv[2], isa->name) != 0)
            continue;
        if (bitops_isa_runs(isa))
            test_isa(isa);
        else
            printf("%s: not on this CPU\n", isa->name);
    }
    if (!tests_run)
        puts("nothing was tested");
    return !tests_run;
}
