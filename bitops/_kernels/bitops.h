/* bitops.h: what the Cython module calls: the choice of an ISA, memory, threads, and the drivers.
 *
 * operations.h states the encoding, names and units. Drivers (bitops_pack_rows and below) cut the
 * work into blocks that fit the caches, and divide it among OpenMP threads.
 */
#ifndef BITOPS_H
#define BITOPS_H

#include <stdatomic.h>

#include "operations.h"

/* ---- dispatch ----------------------------------------------------------------------------- */

typedef struct bitops_isa {
    const char *name;
    uint32_t features; /* bits of cpu.h that the CPU must have */
    size_t mr, nr;     /* register tile of gemm_panel */
    size_t row_words;  /* scratch of gemm_panel, words for each row of a */
    int plane_bits;    /* numbers of at most this many bits are faster as planes than by lookup */
    /* Rows of a up to which making panels of w costs more than they save, for long rows of w and
     * for those of at most BITOPS_MEDIUM_WORDS. */
    size_t few_rows, medium_rows;
    /* The same for rows of w so long that panels are made of short pieces of many of them; 0 if
     * that is no slower. */
    size_t long_rows;
    /* The same for rows of w of at most BITOPS_SHORT_WORDS, where gemm_rows is as fast as
     * gemm_panel is for few rows of a; or 0. */
    size_t short_rows;
    /* Columns up to which panels, mostly empty, take longer than rows of w as they lie, if these
     * are long; half as many if they are not. */
    size_t few_columns;
    /* In lanes, which take as long empty as full, numbers are faster than by lookup from
     * lanes_bits of k on and for more than lanes_rows rows, if columns are many: making their
     * tables takes as long as lanes_columns of these. */
    size_t lanes_bits, lanes_rows_f32, lanes_rows_u8, lanes_columns;
    int small_most; /* largest magnitude of the numbers for lookup_small; 0 if there is none */
    bitops_pack_bool8_fn *pack_bool8;
    bitops_pack_i8_fn *pack_i8;
    bitops_pack_i16_fn *pack_i16;
    bitops_pack_i32_fn *pack_i32;
    bitops_pack_i64_fn *pack_i64;
    bitops_pack_f16_fn *pack_f16;
    bitops_pack_bf16_fn *pack_bf16;
    bitops_pack_f32_fn *pack_f32;
    bitops_pack_f64_fn *pack_f64;
    bitops_compare_i32_fn *compare_i32;
    bitops_compare_f32_fn *compare_f32;
    bitops_unpack_i8_fn *unpack_i8;
    bitops_unpack_f32_fn *unpack_f32;
    bitops_popcount_fn *popcount;
    bitops_popcount_columns_fn *popcount_columns;
    bitops_majority_columns_fn *majority_columns;
    bitops_mirror_words_fn *mirror_words;
    bitops_shift_words_fn *shift_words;
    bitops_roll_rows_fn *roll_rows;
    bitops_turn_bits_fn *turn_bits;
    bitops_count_taps_fn *count_taps;
    bitops_dot_taps_fn *dot_taps;
    bitops_store_counts_fn *store_counts;
    bitops_sum_columns_fn *sum_columns;
    bitops_mean_windows_fn *mean_windows;
    bitops_prepack_fn *prepack;
    bitops_prepack_rows_fn *prepack_rows; /* or NULL */
    bitops_gemm_panel_fn *gemm_panel;
    bitops_gemm_rows_fn *gemm_rows;
    bitops_gemm_short_fn *gemm_short;   /* or NULL */
    bitops_conv_narrow_fn *conv_narrow; /* or NULL */
    bitops_count_pairs_fn *count_pairs;
    bitops_sieve_fn *sieve; /* or NULL */
    bitops_lookup_panel_fn *lookup_panel;
    bitops_lookup_panel_small_fn *lookup_panel_small;
    bitops_lookup_tables_f32_fn *lookup_tables_f32;
    bitops_lookup_tables_u8_fn *lookup_tables_u8;
    bitops_lookup_tables_small_fn *lookup_tables_small;
    bitops_lookup_f32_fn *lookup_f32;
    bitops_lookup_u8_fn *lookup_u8;
    bitops_lookup_small_fn *lookup_small;
    bitops_lanes_tables_f32_fn *lanes_tables_f32;
    bitops_lanes_tables_u8_fn *lanes_tables_u8;
    bitops_lanes_f32_fn *lanes_f32;
    bitops_lanes_u8_fn *lanes_u8;
    bitops_tiles_u8_fn *tiles_u8;   /* or NULL */
    bitops_tile_rows_fn *tile_rows; /* or NULL */
    bitops_turn_32_fn *turn_32;
    bitops_adam_fn *adam;
    bitops_norm_sums_fn *norm_sums;
    bitops_norm_values_fn *norm_values;
    bitops_norm_products_fn *norm_products;
    bitops_norm_gradient_fn *norm_gradient;
    bitops_within_f32_fn *within_f32;
    bitops_prelu_values_fn *prelu_values;
    bitops_prelu_gradient_fn *prelu_gradient;
    bitops_peak_f32_fn *peak_f32;
    bitops_quantize_f32_fn *quantize_f32;
    bitops_byte_products_fn *byte_products;
    bitops_affine_f32_fn *affine_f32;
    bitops_scale_i32_fn *scale_i32;
    bitops_larger_f32_fn *larger_f32;
    bitops_conv_f32_fn *conv_f32;     /* or NULL */
    bitops_port_bound_fn *port_bound; /* or NULL */
} bitops_isa;

/* Rows of the table that were compiled in, best first. */
size_t bitops_isa_count(void);
const bitops_isa *bitops_isa_get(size_t index);
/* 1 if this CPU and operating system can run the row, which also asks the system for what it must
 * be asked for: no other row may be used. */
int bitops_isa_runs(const bitops_isa *isa);
/* NULL if no row has that name. */
const bitops_isa *bitops_isa_find(const char *name);
/* The row in force: the best one that runs, until bitops_isa_use chooses another that runs. */
const bitops_isa *bitops_isa_active(void);
void bitops_isa_use(const bitops_isa *isa);

/* The operation and the ISA of entry `index` of kernels.inc; returns 0 past the end. */
int bitops_kernel_name(size_t index, const char **op, const char **isa);

/* Name and version of the C compiler. */
const char *bitops_compiler(void);

/* ---- memory ------------------------------------------------------------------------------- */

/* `size` bytes, aligned to a cache line, since vectors must not straddle two; NULL if the system
 * has none left. All memory of the library and of the module comes from here. */
void *bitops_allocate(size_t size);
void bitops_free(void *block); /* NULL too */
/* Blocks that were allocated and not freed. */
long bitops_live_blocks(void);

/* Lets the C library keep all memory that is freed, for calls from the main thread, or, if it is 0
 * again, hand back blocks of 32 MiB and what is free above 64 MiB at the end of the heap: the
 * thresholds that it would reach by itself with large blocks, and does not lower again. Of glibc
 * alone, and of the whole process. */
void bitops_keep_freed(int keep);

/* What the system may refuse. */
typedef enum bitops_request {
    BITOPS_MEMORY, /* a block */
    BITOPS_THREAD, /* one of those that a parallel loop makes to see whether it can */
    BITOPS_REQUESTS,
} bitops_request;

/* For tests: of the requests of a kind that the process makes from now on, those number first, ...,
 * first + count - 1 fail, counted from 1; first = 0 ends that, and the counting. */
void bitops_fail(bitops_request kind, long first, long count);
/* Requests since then. */
long bitops_requests(bitops_request kind);
/* For those who ask the system: whether the request must fail. */
int bitops_fails(bitops_request kind);

/* ---- threads ------------------------------------------------------------------------------ */

/* 1 if compiled with OpenMP. */
int bitops_has_openmp(void);
enum { BITOPS_MAX_THREADS = 4096 };
/* Threads that the next call may use: the number that was set, within OpenMP's own limit and
 * BITOPS_MAX_THREADS. If the system could not make as many, it is what it could make then, until a
 * number is set again. It is 1 in a process forked after this library was loaded, where OpenMP's
 * threads do not exist, and where OMP_STACKSIZE leaves threads less than 64 KiB. */
int bitops_get_num_threads(void);
/* n >= 1. Also sets OpenMP's limit for the calling thread. */
void bitops_set_num_threads(int n);
/* Whether calls of all threads use one thread, whatever number is set. */
void bitops_limit_to_one_thread(int limit);

/* ---- interrupts --------------------------------------------------------------------------- */

/* Lets a long call end early. A driver that is given one calls `ask` every tenth of a second, on
 * the thread that called the driver. Once `ask` returns nonzero, `stopped` is 1, the driver returns
 * soon, and its outputs are undefined. The caller sets `ask` and zeroes the rest. */
typedef struct bitops_stop {
    int (*ask)(void);
    atomic_int stopped; /* read by all threads of the driver */
    double asked;       /* time of the last call, in seconds */
} bitops_stop;

/* For drivers, on any of their threads: whether to stop. Reads the clock, which takes 25 ns. */
int bitops_stopped(bitops_stop *stop);

/* ---- drivers ------------------------------------------------------------------------------ */

/* A driver that calls kernels takes their ISA as its first argument; the others are portable C.
 * None looks up the ISA in force. Where a `stop` is taken it may be NULL. */

typedef enum bitops_dtype {
    BITOPS_BOOL8,
    BITOPS_I8,
    BITOPS_I16,
    BITOPS_I32,
    BITOPS_I64,
    BITOPS_F16,
    BITOPS_BF16,
    BITOPS_F32,
    BITOPS_F64,
} bitops_dtype;

/* Packs rows x n contiguous values into rows x bitops_words(n) words; returns 1 if a NaN was met.
 */
int bitops_pack_rows(const bitops_isa *isa, bitops_dtype dtype, const void *x, size_t rows,
                     size_t n, uint64_t *words_out, bitops_stop *stop, int n_threads);
/* Makes the bits (x > threshold[column]) ^ flip[column] of rows x n contiguous int32 or float32;
 * flip has n packed bits, or is NULL. Returns 1 if an x was NaN. */
int bitops_compare_rows(const bitops_isa *isa, bitops_dtype dtype, const void *x, size_t rows,
                        size_t n, const float *threshold, const uint64_t *flip, uint64_t *words_out,
                        bitops_stop *stop, int n_threads);
/* Transposes `outer` matrices of bits: rows x bitops_words(columns) words of each become columns x
 * bitops_words(rows). The workspace is aligned to 64 bytes. */
size_t bitops_transpose_workspace_size(int n_threads);
void bitops_transpose(const bitops_isa *isa, const uint64_t *words, size_t outer, size_t rows,
                      size_t columns, uint64_t *words_out, void *workspace, bitops_stop *stop,
                      int n_threads);
/* Writes +1 or -1 for each bit; dtype is BITOPS_I8 or BITOPS_F32. */
void bitops_unpack_rows(const bitops_isa *isa, bitops_dtype dtype, const uint64_t *words,
                        size_t rows, size_t n, void *x_out, bitops_stop *stop, int n_threads);
/* The mean magnitude of each row of n numbers, 0 for n = 0. magnitude.c states the order of the
 * additions. */
void bitops_mean_magnitude(const float *x, size_t rows, size_t n, float *mean_out,
                           bitops_stop *stop, int n_threads);
/* The sum of the magnitudes of each row, in float64, in the order of np.sum over a contiguous axis.
 */
void bitops_sum_magnitude(const float *x, size_t rows, size_t n, double *sum_out, bitops_stop *stop,
                          int n_threads);
/* Counts the 1 bits of each row of k_words words. */
void bitops_popcount_rows(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t k_words,
                          int64_t *count_out, bitops_stop *stop, int n_threads);
/* A bit for each row: whether at least `least` of its bits are 1. */
void bitops_majority_rows(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t k_words,
                          int64_t least, uint64_t *words_out, bitops_stop *stop, int n_threads);
/* Counts the 1 bits at each position over the middle axis of outer x rows x n_words words; there
 * are outer x 64 n_words counts. */
void bitops_popcount_columns(const bitops_isa *isa, const uint64_t *words, size_t outer,
                             size_t rows, size_t n_words, int64_t *count_out, bitops_stop *stop,
                             int n_threads);
/* A bit for each position of outer x n_words words: whether at least `least` of the rows, the
 * middle axis, have a 1 there; there are 1 to BITOPS_MAJORITY_ROWS rows. Blocks lie ld_outer words
 * apart and their rows ld. */
void bitops_majority_columns(const bitops_isa *isa, const uint64_t *words, size_t ld_outer,
                             size_t ld, size_t outer, size_t rows, size_t n_words, uint64_t least,
                             uint64_t *words_out, bitops_stop *stop, int n_threads);

/* Copies rows of n bytes, with the bits of each byte in reverse order: from packed bits in big bit
 * order to little, and back. The rows lie ld and ld_out bytes apart, which may be negative. */
void bitops_mirror_bytes(const uint8_t *bytes, ptrdiff_t ld, size_t rows, size_t n,
                         uint8_t *bytes_out, ptrdiff_t ld_out, bitops_stop *stop, int n_threads);
/* Copies bits [from, from + n) of rows of ld words to bits [to, to + n) of rows of ld_out words,
 * whose other bits stay. The two must not overlap. */
void bitops_copy_bits(const bitops_isa *isa, const uint64_t *words, size_t ld, size_t from,
                      size_t rows, size_t n, uint64_t *words_out, size_t ld_out, size_t to,
                      bitops_stop *stop, int n_threads);
/* Copies row indices[i] of n rows to row i, for each i < count; a negative index counts from the
 * end. Returns whether all rows are there; in the place of others nothing is written. */
int bitops_take_rows(const uint64_t *words, size_t n, size_t k_words, const int64_t *indices,
                     size_t count, uint64_t *words_out, bitops_stop *stop, int n_threads);
/* Writes rows of n bits that begin with their bit `cut`, 0 < cut < n, and end with those before it;
 * the padding bits are 0. */
void bitops_roll_bits(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t n,
                      size_t cut, uint64_t *words_out, bitops_stop *stop, int n_threads);
/* Combines the words of rows of n bits, past the caches: for outputs that none can hold. The
 * padding bits are 0. Of NOT b is not read. */
typedef enum bitops_logic {
    BITOPS_AND,
    BITOPS_OR,
    BITOPS_XOR,
    BITOPS_XNOR,
    BITOPS_NOT
} bitops_logic;
void bitops_combine(bitops_logic logic, const uint64_t *a, const uint64_t *b, size_t rows, size_t n,
                    uint64_t *words_out, bitops_stop *stop, int n_threads);
/* Writes rows of n bits in reverse order; the padding bits are 0. */
void bitops_flip_bits(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t n,
                      uint64_t *words_out, bitops_stop *stop, int n_threads);

/* Words that the panels of an n x k_words matrix take, and the panels themselves. */
size_t bitops_prepack_size(const bitops_isa *isa, size_t n, size_t k_words);
void bitops_prepack_all(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                        size_t k_words, uint64_t *panels_out, bitops_stop *stop, int n_threads);

/* Packed images and the windows that a convolution puts over them. Rows of their im2col matrix are
 * output positions in the order (image, y, x). A row holds `channels` bits of each tap, from
 * first_channel on, tap after tap without gaps: kernel_height * kernel_width * channels bits. All
 * lengths are below 2^31. */
typedef struct bitops_image {
    const uint64_t *x;  /* IN  images x height x width pixels */
    size_t pixel_words; /* of a pixel, all its channels */
    size_t height, width;
    size_t first_channel, channels;
    size_t kernel_height, kernel_width;
    size_t stride_y, stride_x;
    size_t pad_top, pad_left;
    size_t dilation_y, dilation_x;
    size_t out_height, out_width;
    uint64_t outside; /* 64 bits of a position outside, all 0 or all 1 */
    /* Output (y, x) takes row offset_y[y] * offsets_x + offset_x[x] of store.offset; NULL if there
     * are no offsets. */
    const uint32_t *offset_y, *offset_x;
    size_t offsets_x;
} bitops_image;

/* Writes rows [first, first + rows) of the im2col matrix, ld_out words apart, with padding bits 0,
 * in the form that prepack_rows makes of them; plain if that is NULL. Runs on the calling thread.
 */
void bitops_gather(const bitops_image *image, size_t first, size_t rows,
                   bitops_prepack_rows_fn *prepack_rows, uint64_t *rows_out, size_t ld_out,
                   bitops_stop *stop);
/* Writes the channels of n pixels of a line without gaps, and up to a word more; pixels is NULL for
 * a line outside. The first is pixel x - pad_left, the next ones are `step` pixels apart. */
void bitops_gather_line(const bitops_image *image, const uint64_t *pixels, size_t x, size_t step,
                        size_t n, uint64_t *bits_out);
/* Which rows of store.offset they take. */
void bitops_gather_offsets(const bitops_image *image, size_t first, size_t rows,
                           uint32_t *offset_row_out);
/* Writes all rows, one after the other. */
void bitops_im2col(const bitops_image *image, size_t images, uint64_t *rows_out, bitops_stop *stop,
                   int n_threads);

/* Takes the mean of each window of float32 images, channel by channel, with zeros outside. Of
 * `windows` only the lengths are read. pool.c states the order of the additions. */
void bitops_mean_windows(const bitops_isa *isa, const bitops_image *windows, const float *x,
                         size_t images, size_t channels, float *mean_out, bitops_stop *stop,
                         int n_threads);

/* Takes the largest of each window, channel by channel: of float32 (BITOPS_F32), which is NaN if
 * one is in it, or of bits (BITOPS_BOOL8), the OR, or the AND of the channels in `minimum`, which
 * may be NULL. Every window sees some of its image. A pixel takes pixel_bytes. */
size_t bitops_max_windows_workspace_size(const bitops_image *windows, size_t pixel_bytes,
                                         int n_threads);
void bitops_max_windows(const bitops_isa *isa, const bitops_image *windows, bitops_dtype dtype,
                        size_t pixel_bytes, const void *x, size_t images, const uint64_t *minimum,
                        void *max_out, void *workspace, bitops_stop *stop, int n_threads);

/* The first of the float32 numbers x of each window, counted by lines of all its taps, that equals
 * their maximum y; BITOPS_NO_PLACE if none does, since y is NaN. Every window sees some of its
 * image, and has at most BITOPS_NO_PLACE taps. */
enum { BITOPS_NO_PLACE = 255 };
void bitops_max_places(const bitops_image *windows, const float *x, const float *y, size_t images,
                       size_t channels, uint8_t *places_out, bitops_stop *stop, int n_threads);

/* Gives each number of the images the sum of dy over the windows whose place it is, in the order of
 * their taps. */
void bitops_max_gradient(const bitops_image *windows, const uint8_t *places, const float *dy,
                         size_t images, size_t channels, float *dx_out, bitops_stop *stop,
                         int n_threads);
/* The same for means: of each window that sees it, dy / (height * width of the kernel). */
void bitops_mean_gradient(const bitops_image *windows, const float *dy, size_t images,
                          size_t channels, float *dx_out, bitops_stop *stop, int n_threads);

/* Takes the means of the columns of each of `outer` matrices of rows x n float32 numbers. Sums are
 * made in float64, from the first row to the last. */
void bitops_mean_columns(const bitops_isa *isa, const float *x, size_t outer, size_t rows, size_t n,
                         float *mean_out, bitops_stop *stop, int n_threads);

/* One product, or a batch of products of equal m, n and k. */
typedef struct bitops_gemm_args {
    const bitops_image *image; /* IN  if not NULL, a is its im2col matrix from row image_row on */
    size_t image_row;
    const uint64_t *a; /* IN  m x k_words, rows lda words apart; NULL if there is an image */
    size_t lda;
    size_t m;
    const uint64_t *w; /* IN  n x k_words, rows ldw words apart; may be NULL if panels are given */
    size_t ldw;
    size_t n;
    const uint64_t
        *panels; /* IN  all of w in the panel order of isa, or NULL; w is the same then */
    size_t k_words;
    bitops_store store;
    bitops_stop *stop;     /* or NULL */
    const uint64_t *lines; /* IN  for searches: all of w turned (bitops_make_lines), or NULL */
} bitops_gemm_args;

/* Bytes of workspace that bitops_gemm needs for m rows and n columns, or fewer of them, with the
 * same n_threads, aligned to 64: at most 8 MiB, 0 for few rows. */
size_t bitops_gemm_workspace_size(const bitops_isa *isa, const bitops_gemm_args *args,
                                  int n_threads);
void bitops_gemm(const bitops_isa *isa, const bitops_gemm_args *args, void *workspace,
                 int n_threads);
/* Product i multiplies block a_index[i] of m rows of a by block w_index[i] of n rows of w, and
 * stores to block i of m rows of c (and of k_map). */
void bitops_gemm_batch(const bitops_isa *isa, const bitops_gemm_args *args, size_t batch,
                       const int64_t *a_index, const int64_t *w_index, void *workspace,
                       int n_threads);

/* Convolution of packed images with packed filters. A row of w holds the bits of a filter in the
 * order of a row of the im2col matrix. The channels of the images and the filters are cut into
 * `groups` equal parts, each of which is a convolution of its own; image.channels is that of one
 * part, and image.first_channel is 0. If the convolution is depthwise (bitops_is_depthwise), w
 * holds instead, for each filter of a group and each tap, the bits of all groups: filters / groups
 * x taps x pixel_words. */
typedef struct bitops_conv_args {
    bitops_image image;
    size_t images;
    const uint64_t *w; /* IN  filters x bitops_words(store.k); NULL if panels are given */
    size_t filters;
    size_t groups;
    const uint64_t *panels; /* IN  those of all groups, one after the other, or NULL */
    const int32_t *offsets; /* set by bitops_conv_fill_offsets; if NULL, positions outside count as
                               image.outside */
    bitops_store store;     /* DOT, SCALED or SIGN; rows are output positions */
    bitops_stop *stop;      /* or NULL */
} bitops_conv_args;

/* Whether the filters see one channel each, so that many channels are counted at once. Where a
 * channel has many filters, these are a product of their own. */
enum { BITOPS_DEPTHWISE_FILTERS = 8 };
static inline int bitops_is_depthwise(size_t channels, size_t groups, size_t filters) {
    return channels == 1 && groups > 1 && filters / groups <= BITOPS_DEPTHWISE_FILTERS;
}

/* For positions outside that add nothing. The offsets are made once for all images of a size, in
 * memory of this many bytes, aligned to 64, that must outlive args. tap_sums is taps x filters, the
 * sums of the +-1 weights of each tap; image.outside is 0. Sets `offsets`, and the fields of image
 * that belong to it. The workspace takes the bytes of bitops_conv_areas_size, for this call only.
 */
size_t bitops_conv_offsets_size(const bitops_conv_args *args);
size_t bitops_conv_areas_size(const bitops_conv_args *args);
void bitops_conv_fill_offsets(bitops_conv_args *args, const int32_t *tap_sums, void *memory,
                              void *workspace, bitops_stop *stop);

/* Bytes of workspace that bitops_conv needs, aligned to 64. */
size_t bitops_conv_workspace_size(const bitops_isa *isa, const bitops_conv_args *args,
                                  int n_threads);
void bitops_conv(const bitops_isa *isa, const bitops_conv_args *args, void *workspace,
                 int n_threads);

/* Turns the bits of w, for searches whose rows of a have few 1 bits: for each BITOPS_LINE_COLUMNS
 * columns, 64 k_words lines of a bit of each. Runs on the calling thread. */
enum { BITOPS_LINE_COLUMNS = 512 };
size_t bitops_lines_size(size_t n, size_t k_words); /* words */
void bitops_make_lines(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                       size_t k_words, uint64_t *lines_out, bitops_stop *stop);
/* Whether a search takes less time with lines; of args, a, store.k and store.a_counts are read. */
int bitops_lines_pay(const bitops_gemm_args *args);

/* Finds the `count` >= 1 nearest rows of w for every row of a, by value and then by index. n is at
 * most 2^32. args->store.kind is HAMMING, INTERSECTION, JACCARD or DICE; of the store, k, counts,
 * `allowed` and c are read. c is OUT, as indices_out m x count; both are -1 where rows are lacking.
 * The workspace is aligned to 64 bytes and takes at most 8 MiB, 8 bytes for each row of a, and for
 * each thread a copy of 64 rows of w. */
size_t bitops_topk_workspace_size(const bitops_isa *isa, const bitops_gemm_args *args, size_t count,
                                  int n_threads);
void bitops_topk(const bitops_isa *isa, const bitops_gemm_args *args, size_t count,
                 int64_t *indices_out, void *workspace, int n_threads);

/* Makes room for `more` pairs; returns 0, with the list as it was, if memory is missing. */
int bitops_found_reserve(bitops_found *found, size_t more);
void bitops_found_free(bitops_found *found);

/* Rows of two sets that are searched for pairs at a Hamming distance of at most `radius`, and, with
 * a bound for each row of a, below that. */
typedef struct bitops_range_args {
    const uint64_t *a; /* IN  m x k_words, rows lda words apart */
    size_t lda;
    size_t m;
    const uint64_t *b; /* IN  n x k_words, rows ldb words apart */
    size_t ldb;
    size_t n;
    size_t k_words;
    int32_t radius;             /* at least 0 */
    const bitops_bound *bounds; /* IN  m, or NULL */
    const int32_t *b_counts;    /* IN  n, 1 bits of the rows of b, with bounds */
    int upper;                  /* whether b is a, and only pairs i < j are wanted */
    bitops_stop *stop;          /* or NULL */
} bitops_range_args;

/* Counts the mismatches of n pairs of rows, which may be long, as count_pairs; returns 0 if the
 * call was stopped before. */
int bitops_compare_pairs(const bitops_isa *isa, const bitops_range_args *args,
                         const uint64_t *pairs, size_t n, int32_t *distances_out);

/* Both searches below add to the lists found_out[0 .. n_threads - 1], each pair to one of them, and
 * return 0 if memory for these was missing. Workspaces are aligned to 64 bytes. */

/* Compares rows [first, first + rows) of a with all of b: first folds of them to `first_words`
 * words, and then each pair that passes. first_words is at least 1, and at most k_words and
 * BITOPS_SCAN_WORDS, so that panels fit the second-level cache. */
enum { BITOPS_SCAN_WORDS = 512 };
size_t bitops_scan_workspace_size(const bitops_isa *isa, const bitops_range_args *args, size_t rows,
                                  size_t first_words, int n_threads);
int bitops_scan(const bitops_isa *isa, const bitops_range_args *args, size_t first, size_t rows,
                size_t first_words, bitops_found *found_out, void *workspace, int n_threads);

/* Compares the pairs whose rows agree in some chunks, for each of several choices of them. A pair
 * that is found by one choice and agrees in other chunks too is kept if the chosen ones are the
 * first of these. join.c says how. */
typedef struct bitops_chunk {
    uint32_t first, bits; /* bits [first, first + bits) of a row */
} bitops_chunk;
typedef struct bitops_join_args {
    bitops_range_args range; /* m + n is below 2^32 */
    const bitops_chunk *chunks;
    size_t together;         /* chunks of a choice; they have at most 32 bits in all */
    const uint32_t *choices; /* IN  rows of `together` ascending numbers of chunks */
    size_t count;            /* of choices */
} bitops_join_args;

/* compared_out has the number of pairs that agreed for each choice; a choice ends early once there
 * are more than most_compared, and its pairs are incomplete. */
size_t bitops_join_workspace_size(const bitops_join_args *args, int n_threads);
int bitops_join(const bitops_isa *isa, const bitops_join_args *args, uint64_t most_compared,
                uint64_t *compared_out, bitops_found *found_out, void *workspace, int n_threads);

/* Numbers times +-1 weights: c = x[m,k] w[n,k]^T [* alpha[col]] [+ bias[col]], each step rounded to
 * float32. x is float32, or uint8 with 255 * k < 2^31. c is float32, but int32 for uint8 without
 * alpha and bias. Of uint8, `zero` is subtracted from every number first. Results depend neither on
 * n_threads, nor on the ISA, nor on the other rows. */
typedef struct bitops_mixed_args {
    int is_float;  /* x is float32, else uint8 */
    int bits;      /* of the numbers in x, 1 to 8, for uint8 */
    int zero;      /* the code of 0, for uint8; 0 to 255 */
    int most;      /* largest magnitude of x - zero, or 0: what bits and zero allow */
    const void *x; /* IN  m rows of k elements, contiguous */
    int x_turned;  /* x is its transpose: k rows of m elements, contiguous */
    size_t m, k;
    const uint64_t *w; /* IN  n x bitops_words(k), rows ldw words apart */
    size_t ldw;
    size_t n;
    const uint64_t *panels;        /* IN  all of w in the panel order of isa, or NULL; beside w */
    const uint32_t *lookup_panels; /* IN  all of w in the panel order of lookups, or NULL */
    const float *alpha;            /* IN  n, or NULL */
    const float *bias;             /* IN  n, or NULL */
    const int32_t *surplus;        /* NULL; drivers subtract these n numbers from sums of codes */
    void *c;                       /* OUT m x n */
    bitops_stop *stop;             /* or NULL */
} bitops_mixed_args;

/* Numbers that the panels for lookups of an n x k_words matrix take, and the panels themselves. */
size_t bitops_lookup_panels_size(size_t n, size_t k_words);
void bitops_lookup_panels_all(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                              size_t k_words, uint32_t *panels_out);

/* Bytes of workspace that bitops_mixed needs for m rows or fewer, but all n columns, aligned to 64:
 * at most 8 MiB, or 1 MiB a thread; and 12 bytes for each row of w if the code of 0 is not 0. */
size_t bitops_mixed_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                   int n_threads);
void bitops_mixed(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                  int n_threads);

/* The same, with rows added to the pixels of images that they come from: a row has an element for
 * each tap and channel of the window of an output position. c has m / (out_height * out_width)
 * images, float32; images.c states the order of the additions. Of `windows` only the lengths are
 * read. k > 0, n > 0, and x is not turned; with uint8 there is alpha or bias. */
size_t bitops_mixed_to_images_workspace_size(const bitops_mixed_args *args, int n_threads);
void bitops_mixed_to_images(const bitops_isa *isa, const bitops_mixed_args *args,
                            const bitops_image *windows, void *workspace, int n_threads);

/* Convolutions of images of codes, uint8, contiguous, without patches: the way that the numbers,
 * filters and windows allow and that is mostly faster than to multiply patches, if there is one. It
 * depends on the load of the machine too, so it is chosen once. m counts output positions, k is
 * that of patches, and `outside` is the code of positions there, whose magnitude is not above
 * `most` either. Of `windows` only the lengths are read; x is not turned. The workspace is aligned
 * to 64: up to 4 MiB a thread, and w in another order. */
typedef enum bitops_code_way {
    BITOPS_CODE_PATCHES,
    BITOPS_CODE_TAPS,  /* tap_tables.c */
    BITOPS_CODE_TILES, /* tile_conv.c */
} bitops_code_way;
bitops_code_way bitops_choose_code_way(const bitops_isa *isa, const bitops_mixed_args *args,
                                       const bitops_image *windows, int n_threads);
size_t bitops_conv_codes_workspace_size(bitops_code_way way, const bitops_isa *isa,
                                        const bitops_mixed_args *args, const bitops_image *windows,
                                        int n_threads);
void bitops_conv_codes(bitops_code_way way, const bitops_isa *isa, const bitops_mixed_args *args,
                       const bitops_image *windows, uint8_t outside, void *workspace,
                       int n_threads);

/* Products of numbers with +-1 weights, of which the largest are kept. */
typedef struct bitops_score_args {
    bitops_mixed_args product; /* alpha, bias and c are not read */
    const float *alpha;        /* IN  m, factors of the rows of x, or NULL */
    const float *bias;         /* IN  m, added to them, or NULL */
} bitops_score_args;

/* Finds, for every row of x, the `count` rows of w with the largest scores, by score and then by
 * index: float32(dot) [* alpha[row]] [+ bias[row]], each step rounded to float32. No score is NaN.
 * n is below 2^32, and 1 <= count <= n. scores_out and indices_out are m x count. */
size_t bitops_score_topk_workspace_size(const bitops_isa *isa, const bitops_score_args *args,
                                        size_t count, int n_threads);
void bitops_score_topk(const bitops_isa *isa, const bitops_score_args *args, size_t count,
                       float *scores_out, int64_t *indices_out, void *workspace, int n_threads);

/* Multiplies every row of x with `count` rows of w of its own, whose indices are m x count; -1
 * stands for none, whose sum is not written. Of args, x is float32, and n and c are not read. */
size_t bitops_rescore_workspace_size(const bitops_mixed_args *args, int n_threads);
void bitops_rescore(const bitops_isa *isa, const bitops_mixed_args *args, const int64_t *indices,
                    size_t count, float *sums_out, void *workspace, int n_threads);

#include "training.h"

#endif
