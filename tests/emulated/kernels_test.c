/* kernels_test.c: every kernel of the ISAs that this CPU can run against generic.c, and the drivers
 * on top of them.
 *
 *   kernels_test [best]      `best` is the name of the ISA that dispatch must have chosen
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

static const named_test *find_test(const named_test *tests, const char *name) {
    while (tests->name && strcmp(tests->name, name) != 0)
        tests++;
    return tests->name ? tests : NULL;
}

static void run_op(const bitops_isa *isa, const char *op) {
    const named_test *test = find_test(pack_tests, op);
    if (!test)
        test = find_test(product_tests, op);
    if (!test) {
        printf("%s %s: there is no test\n", isa->name, op);
        exit(1);
    }
    current_op = op;
    test->run(isa);
}

/* Returns how many tests there are. */
static unsigned run_all(const bitops_isa *isa, const named_test *tests) {
    unsigned count = 0;
    for (; tests[count].name; count++) {
        current_op = tests[count].name;
        tests[count].run(isa);
    }
    return count;
}

static void test_isa(const bitops_isa *isa) {
    const char *op, *name;
    unsigned kernels = 0, drivers;
    comparisons = 0;
    current_isa = isa->name;
    for (size_t i = 0; bitops_kernel_name(i, &op, &name); i++)
        if (strcmp(name, isa->name) == 0) {
            run_op(isa, op);
            kernels++;
        }
    drivers = run_all(isa, driver_tests) + run_all(isa, search_tests);
    current_op = stop_tests->name;
    stop_tests->run(isa);
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
    for (size_t i = 0; i < bitops_isa_count(); i++) {
        if (bitops_isa_runs(bitops_isa_get(i)))
            test_isa(bitops_isa_get(i));
        else
            printf("%s: not on this CPU\n", bitops_isa_get(i)->name);
    }
    return 0;
}
