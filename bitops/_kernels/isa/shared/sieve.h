/* sieve.h: the rows of a block that may be near columns, for the ISA that includes this.
 *
 * Tables ("four Russians", tables.h) whose entries are capped: of the mismatches in 5 bits at most
 * `cap` count. The sums are smaller than the mismatches, hardly ever small enough for unlike rows,
 * and cost less: a nibble holds the sums of 15 / cap groups. An entry has a nibble for each column:
 *
 *   byte         0          1          ...   63
 *   low nibble   column 0   column 1         column 63
 *   high nibble  column 64  column 65        column 127
 *
 * One word, most <= BITOPS_SIEVE_SMALL: 5 to 7 groups that all fit a nibble, which starts so that
 * its highest bit is set if there are more than `most`. One test for 128 columns.
 *
 * Else all groups of all words. Sums of nibbles are added to 8-bit counters, which grow by at most
 * 39 a word: those of SIEVE_NEVER_FULL words (234 <= 255) as nibble_counts of avx2_tables.h; of
 * more words, as bytes that saturate.
 *
 * The includer has set SIEVE_BYTES, the size of a vector, before, and defines for vectors
 *   sieve_min(a, b)           the smaller bytes
 *   sieve_add(a, b)           the sums of bytes, at most 255
 *   sieve_lacks(v)            whether the highest bit of any nibble is 0
 *   sieve_any(v, most)        whether any byte is at most `most`
 *   sieve_mask(bytes, most)   a bit for each of 64 bytes in memory that is
 *   SIEVE_KEEP(v)             BITOPS_IN_REGISTER, or nothing */
#ifndef BITOPS_SIEVE_H
#define BITOPS_SIEVE_H

#include "operations.h"
#include "isa/shared/tables.h"
#include "isa/shared/target.h"

#include <string.h>

enum {
    SIEVE_PARTS = ENTRY_BYTES / SIEVE_BYTES,
    SIEVE_HALF = BITOPS_SIEVE_COLUMNS / 2,
    SIEVE_TABLES = GROUPS * TABLE_STRIDE,
    SIEVE_NEVER_FULL = 6, /* words whose counters cannot be full */
    SIEVE_FULL = 4,       /* beside a cap: counters may be */
    SIEVE_LOW = 12,       /* mismatches of a word, up to which caps of 2 tell enough */
};

_Static_assert(GROUPS == (int)BITOPS_SIEVE_GROUPS, "a sieve may look at all groups of a word");

/* Where a sieve is, and where it puts what passes. */
typedef struct sieve_place {
    size_t n, row, col;
    uint8_t most;
    bitops_found *found;
} sieve_place;

BITOPS_INLINE sieve_u8 sieve_load(const uint8_t *bytes) {
    sieve_u8 v;
    memcpy(&v, bytes, sizeof v);
    return v;
}

BITOPS_INLINE void sieve_store(sieve_u8 v, uint8_t *bytes_out) {
    memcpy(bytes_out, &v, sizeof v);
}

BITOPS_INLINE sieve_u8 shift_right(sieve_u8 v, int bits) {
    return (sieve_u8)((sieve_u16)v >> bits); /* of two bytes; who calls masks what came from one */
}

/* ---- tables -------------------------------------------------------------------------------- */

/* Puts byte y of the words of all columns side by side, 8 x 8 bytes at a time. */
BITOPS_INLINE void turn_bytes(const uint64_t *words, uint8_t (*bytes_out)[BITOPS_SIEVE_COLUMNS]) {
    static const uint64_t masks[3] = {0xffffffff, 0x0000ffff0000ffff, 0x00ff00ff00ff00ff};
    for (size_t j = 0; j < BITOPS_SIEVE_COLUMNS; j += 8) {
        uint64_t x[8];
        memcpy(x, words + j, sizeof x);
        BITOPS_UNROLL
        for (int round = 0; round < 3; round++) {
            const int step = 4 >> round;
            BITOPS_UNROLL
            for (int i = 0; i < 8; i++) {
                if (i & step)
                    continue;
                const uint64_t turned = (x[i] >> 8 * step ^ x[i + step]) & masks[round];
                x[i + step] ^= turned;
                x[i] ^= turned << 8 * step;
            }
        }
        for (size_t y = 0; y < 8; y++)
            memcpy(bytes_out[y] + j, x + y, sizeof *x);
    }
}

/* Bit `bit` of the columns of one part, each in a nibble. */
BITOPS_INLINE sieve_u8 sieve_plane(uint8_t (*bytes)[BITOPS_SIEVE_COLUMNS], size_t part,
                                   unsigned bit) {
    const uint8_t *low = bytes[bit / 8] + part * SIEVE_BYTES;
    const sieve_u8 low_u8 = shift_right(sieve_load(low), (int)bit % 8) & 1;
    const sieve_u8 high_u8 = shift_right(sieve_load(low + SIEVE_HALF), (int)bit % 8) & 1;
    return low_u8 | (sieve_u8)((sieve_u16)high_u8 << 4);
}

/* The smaller of cap and each nibble, which is at most 5. */
BITOPS_INLINE sieve_u8 capped(const int cap, sieve_u8 c) {
    const sieve_u8 twos = shift_right(c, 1), fours = shift_right(c, 2);
    if (cap == 1)
        return (c | twos | fours) & 0x11;
    if (cap == 2) {
        const sieve_u8 two = (twos | fours) & 0x11;
        return two + two + (c & ~two & 0x11);
    }
    const sieve_u8 four = fours & 0x11;
    return (c | four | (four + four)) & 0x33;
}

/* Makes the table of bits [first, first + bits), as make_table of avx2_tables.h; `bias` is added to
 * all entries. */
BITOPS_INLINE void make_part(const int cap, const int bits, uint8_t (*bytes)[BITOPS_SIEVE_COLUMNS],
                             size_t part, unsigned first, uint8_t bias, uint8_t *table) {
    sieve_u8 flips[GROUP_BITS], entries[8];
    entries[0] = (sieve_u8){0};
    BITOPS_UNROLL
    for (int i = 0; i < bits; i++) {
        const sieve_u8 plane = sieve_plane(bytes, part, first + (unsigned)i);
        entries[0] += plane;
        flips[i] = 0x11 - (plane + plane);
    }
    BITOPS_UNROLL
    for (int i = 1; i < 8; i++)
        entries[i] = entries[i & (i - 1)] + flips[i & 1 ? 0 : i & 2 ? 1 : 2];
    for (int high = 0; high < 1 << bits >> 3; high++) {
        BITOPS_UNROLL
        for (int i = 0; i < 8; i++) {
            sieve_u8 entry = high & 1 ? entries[i] + flips[3] : entries[i];
            if (bits == GROUP_BITS && high & 2)
                entry += flips[4];
            sieve_store(capped(cap, entry) + bias,
                        table + (8 * high + i) * ENTRY_BYTES + part * SIEVE_BYTES);
        }
    }
}

/* Makes the tables of the first groups of a word of all columns; `bias` is added to the first. */
BITOPS_INLINE void make_sieve(const int cap, const unsigned groups, const uint64_t *b, uint8_t bias,
                              uint8_t *tables) {
    uint8_t bytes[8][BITOPS_SIEVE_COLUMNS];
    turn_bytes(b, bytes);
    for (size_t part = 0; part < SIEVE_PARTS; part++)
        for (unsigned g = 0; g < groups; g++) {
            uint8_t *table = tables + g * TABLE_STRIDE;
            if (g < GROUPS - 1)
                make_part(cap, GROUP_BITS, bytes, part, GROUP_BITS * g, g ? 0 : bias, table);
            else
                make_part(cap, 64 % GROUP_BITS, bytes, part, GROUP_BITS * g, 0, table);
        }
}

/* Adds the entries of groups [begin, end), which a word selects. */
BITOPS_INLINE void add_entries(const unsigned begin, const unsigned end, const uint8_t *tables,
                               uint64_t word, sieve_u8 *sums_out) {
    BITOPS_UNROLL
    for (unsigned g = begin; g < end; g++) {
        const unsigned turn = (GROUP_BITS * g - 6) & 63; /* so that an entry's number is its byte */
        const uint64_t turned = word >> turn | word << (-turn & 63);
        const uint8_t *entry = tables + g * TABLE_STRIDE +
                               (turned & (g == GROUPS - 1 ? 15 : 31) * (uint64_t)ENTRY_BYTES);
        BITOPS_UNROLL
        for (size_t part = 0; part < SIEVE_PARTS; part++) {
            const sieve_u8 found = sieve_load(entry + part * SIEVE_BYTES);
            sums_out[part] = g == begin ? found : sums_out[part] + found;
        }
    }
}

/* ---- what passes --------------------------------------------------------------------------- */

/* Adds the columns with at most `most` to the pairs; their distances are yet to be counted. */
BITOPS_NOINLINE void keep_columns(const uint8_t *counts, uint8_t most, size_t row,
                                  const sieve_place *place) {
    bitops_found *found = place->found;
    for (size_t half = 0; half < place->n; half += SIEVE_HALF) {
        uint64_t passed = sieve_mask(counts + half, most);
        if (place->n - half < SIEVE_HALF)
            passed &= ((uint64_t)1 << (place->n - half)) - 1;
        for (; passed; passed &= passed - 1)
            found->pairs[found->count++] =
                (uint64_t)row << 32 |
                (place->col + half + (unsigned)__builtin_ctzll((unsigned long long)passed));
    }
}

/* ---- few groups, in nibbles ---------------------------------------------------------------- */

BITOPS_INLINE void sieve_few(const unsigned groups, const uint64_t *a, size_t m,
                             const uint8_t *tables, const sieve_place *place) {
    BITOPS_IN_POINTER(tables);
    for (size_t i = 0; i < m; i++) {
        sieve_u8 sums[SIEVE_PARTS];
        add_entries(0, groups, tables, a[i], sums);
        sieve_u8 all = sums[0];
        BITOPS_UNROLL
        for (size_t part = 1; part < SIEVE_PARTS; part++)
            all &= sums[part];
        if (!sieve_lacks(all))
            continue;
        uint8_t counts[BITOPS_SIEVE_COLUMNS];
        for (size_t part = 0; part < SIEVE_PARTS; part++) {
            sieve_store(sums[part] & 15, counts + part * SIEVE_BYTES);
            sieve_store(shift_right(sums[part], 4) & 15, counts + SIEVE_HALF + part * SIEVE_BYTES);
        }
        keep_columns(counts, 7, place->row + i, place);
    }
}

/* ---- all groups, in bytes ------------------------------------------------------------------ */

/* The counters of a row between two words; if `full`, high ones are bytes too. */
typedef struct sieve_counts {
    sieve_u8 low[SIEVE_PARTS];
    sieve_u16 high[SIEVE_PARTS];
} sieve_counts;

_Static_assert(sizeof(sieve_counts) == BITOPS_SIEVE_ROW_WORDS * sizeof(uint64_t), "of a row");

/* Adds the sums of some groups. */
BITOPS_INLINE void add_to_counts(const int full, sieve_u8 sums, sieve_u8 *low, sieve_u16 *high) {
    if (full) {
        *low = sieve_add(*low, sums & 15);
        *high = (sieve_u16)sieve_add((sieve_u8)*high, shift_right(sums, 4) & 15);
    } else {
        *low += sums & 15;
        *high += (sieve_u16)sums >> 4;
    }
    SIEVE_KEEP(*low);
    SIEVE_KEEP(*high);
}

/* Adds one word of m rows. If `first`, counters start at 0; if `last`, they are tested. */
BITOPS_INLINE void sieve_column(const int form, const int first, const int last, const uint64_t *a,
                                size_t m, const uint8_t *tables, sieve_counts *rows,
                                const sieve_place *place) {
    const int cap = form & 3, full = form & SIEVE_FULL;
    const unsigned together = 15 / (unsigned)cap;
    BITOPS_IN_POINTER(tables);
    for (size_t i = 0; i < m; i++) {
        sieve_u8 low[SIEVE_PARTS];
        sieve_u16 high[SIEVE_PARTS];
        BITOPS_UNROLL
        for (size_t part = 0; part < SIEVE_PARTS; part++) {
            low[part] = first ? (sieve_u8){0} : rows[i].low[part];
            high[part] = first ? (sieve_u16){0} : rows[i].high[part];
        }
        BITOPS_UNROLL
        for (unsigned g = 0; g < GROUPS; g += together) {
            sieve_u8 sums[SIEVE_PARTS];
            add_entries(g, g + together < GROUPS ? g + together : GROUPS, tables, a[i], sums);
            BITOPS_UNROLL
            for (size_t part = 0; part < SIEVE_PARTS; part++)
                add_to_counts(full, sums[part], low + part, high + part);
        }
        if (!last) {
            BITOPS_UNROLL
            for (size_t part = 0; part < SIEVE_PARTS; part++) {
                rows[i].low[part] = low[part];
                rows[i].high[part] = high[part];
            }
            continue;
        }
        BITOPS_UNROLL
        for (size_t part = 0; part < SIEVE_PARTS && !full; part++)
            high[part] -= (sieve_u16)low[part] >> 4 & 0xff0;
        sieve_u8 least = sieve_min(low[0], (sieve_u8)high[0]);
        BITOPS_UNROLL
        for (size_t part = 1; part < SIEVE_PARTS; part++)
            least = sieve_min(least, sieve_min(low[part], (sieve_u8)high[part]));
        if (!sieve_any(least, place->most))
            continue;
        uint8_t counts[BITOPS_SIEVE_COLUMNS];
        for (size_t part = 0; part < SIEVE_PARTS; part++) {
            sieve_store(low[part], counts + part * SIEVE_BYTES);
            sieve_store((sieve_u8)high[part], counts + SIEVE_HALF + part * SIEVE_BYTES);
        }
        keep_columns(counts, place->most, place->row + i, place);
    }
}

/* form is the cap, and SIEVE_FULL if counters may be. */
BITOPS_INLINE void sieve_words(const int form, const uint64_t *a, size_t lda, size_t m,
                               const uint64_t *b, size_t words, uint8_t *tables, sieve_counts *rows,
                               const sieve_place *place) {
    for (size_t p = 0; p < words; p++, a += lda, b += BITOPS_SIEVE_COLUMNS) {
        const int first = p == 0, last = p + 1 == words;
        make_sieve(form & 3, GROUPS, b, 0, tables);
        CALL_WITH_ENDS(sieve_column, form, first, last, a, m, tables, rows, place);
    }
}

/* The body of the kernel. */
BITOPS_INLINE void sieve(const uint64_t *a, size_t lda, size_t m, const uint64_t *b, size_t n,
                         size_t words, int32_t most, size_t row, size_t col, bitops_found *found,
                         uint64_t *scratch) {
    _Alignas(64) uint8_t tables[SIEVE_TABLES];
    const sieve_place place = {n, row, col, (uint8_t)most, found};
    const unsigned groups = bitops_sieve_groups(words, most);
    const uint8_t bias = (uint8_t)(0x11 * (7 - most)); /* beyond `most`, a nibble is above 7 */
    sieve_counts *rows = (sieve_counts *)scratch;
    switch (groups) {
    case 5:
        if (most <= 1)
            make_sieve(1, 5, b, bias, tables);
        else
            make_sieve(2, 5, b, bias, tables);
        sieve_few(5, a, m, tables, &place);
        break;
    case 6:
        make_sieve(2, 6, b, bias, tables);
        sieve_few(6, a, m, tables, &place);
        break;
    case 7:
        make_sieve(2, 7, b, bias, tables);
        sieve_few(7, a, m, tables, &place);
        break;
    default:
        if (words > SIEVE_NEVER_FULL)
            sieve_words(3 | SIEVE_FULL, a, lda, m, b, words, tables, rows, &place);
        else if ((size_t)most <= words * SIEVE_LOW)
            sieve_words(2, a, lda, m, b, words, tables, rows, &place);
        else
            sieve_words(3, a, lda, m, b, words, tables, rows, &place);
    }
}

#endif
