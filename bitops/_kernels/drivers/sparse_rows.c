/* sparse_rows.c: what rows with few 1 bits have in common with many columns.
 *
 * |a & w| is the number of 1 bits of a whose bit of w is 1. With the bits of 512 columns turned, so
 * that a line has one bit of each column, this is a sum of as many lines as a has 1 bits:
 *
 *   bit    of 512 columns
 *   3      0 1 1 0 ...  \
 *   70     0 0 1 0 ...   |  added in planes of bits by count_taps, which spreads them to bytes
 *   2041   1 1 1 0 ...  /
 *
 * With 3 % of the bits set this takes a quarter of the time of a product. Turning the columns takes
 * as much as the product of 70 rows, so lines are made once for many searches. */
#include "drivers/sparse_rows.h"
#include "drivers/bit_tile.h"
#include "drivers/sizes.h"

enum {
    MAX_WORDS = 64,  /* of a row: lines of 256 KiB, for the second-level cache */
    DENSE_SHARE = 8, /* from 1 / 8 of the bits on, a product is faster */
};

_Static_assert((int)BITOPS_LINE_COLUMNS == (int)TILE_BITS, "a line holds a bit of each");
_Static_assert((int)BITOPS_COUNT_TAPS < (int)SPARSE_LIST, "a list holds all 1 bits");

int bitops_lines_pay(const bitops_gemm_args *args) {
    const int32_t *counts = args->store.a_counts;
    if (!counts || args->k_words > MAX_WORDS)
        return 0;
    double sum = 0;
    for (size_t i = 0; i < args->m; i++) {
        if (counts[i] > BITOPS_COUNT_TAPS)
            return 0;
        sum += counts[i];
    }
    return sum * DENSE_SHARE < (double)args->m * args->store.k;
}

size_t bitops_lines_size(size_t n, size_t k_words) {
    return round_up(n, TILE_BITS) * k_words;
}

void bitops_list_ones(const uint64_t *a, size_t lda, size_t m, size_t k_words,
                      uint16_t *lists_out) {
    for (size_t i = 0; i < m; i++, a += lda, lists_out += SPARSE_LIST) {
        uint16_t n = 0;
        for (size_t p = 0; p < k_words; p++)
            for (uint64_t word = a[p]; word && n < BITOPS_COUNT_TAPS; word &= word - 1)
                lists_out[++n] = (uint16_t)(p * BITOPS_WORD_BITS + (size_t)__builtin_ctzll(word));
        lists_out[0] = n;
    }
}

void bitops_make_lines(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                       size_t k_words, uint64_t *lines_out, bitops_stop *stop) {
    bit_tile in;
    for (size_t first = 0; first < n && !bitops_stopped(stop); first += TILE_BITS)
        for (size_t p = 0; p < k_words; p += LINE_WORDS) {
            const size_t words = min_size(k_words - p, LINE_WORDS);
            fill_tile(w + first * ldw + p, ldw, min_size(n - first, TILE_BITS), words, &in);
            isa->turn_bits(in.rows[0], words * BITOPS_WORD_BITS,
                           lines_out + first * k_words + p * TILE_BITS);
        }
}

void bitops_multiply_lines(const bitops_isa *isa, const uint16_t *lists, size_t m,
                           const uint64_t *lines, size_t n, size_t row, size_t col,
                           const bitops_store *store) {
    static const uint64_t none[LINE_WORDS] = {0}; /* what differs from 0 is 1 */
    uint8_t common[BITOPS_LINE_COLUMNS];
    for (size_t i = 0; i < m; i++, lists += SPARSE_LIST) {
        const uint8_t *taps[BITOPS_COUNT_TAPS];
        const size_t ones = lists[0];
        for (size_t t = 0; t < ones; t++)
            taps[t] = (const uint8_t *)(lines + lists[1 + t] * (size_t)LINE_WORDS);
        isa->count_taps(taps, none, 0, ones, LINE_WORDS, common);
        isa->store_counts(common, 1, n, row + i, col, store);
    }
}
