/* bitops_api.h: packed-bit products and convolutions for C, C++ and Cython programs.
 *
 * The functions are in the extension module of the Python package, and are reached by a table:
 *
 *     #include <Python.h>
 *     #include <bitops_api.h>
 *
 *     const bitops_api *bo = bitops_import();  (NULL with a Python exception set, if it fails)
 *     bitops_matrix a = {a_words, bo->words(k), m, k, NULL};
 *     bitops_matrix w = {w_words, bo->words(k), n, k, NULL};
 *     int status = bo->gemm(&a, &w, c, n);
 *
 * `bitops.get_include()` names the folder of this file. Only bitops_import needs Python and the
 * GIL; without Python.h included before, this file declares the types alone. The functions of the
 * table need no GIL, may be called from any thread, use as many threads as
 * `bitops.set_num_threads` allows, and cannot be interrupted.
 *
 * Encoding
 *   A bit 1 is the value +1, a bit 0 is -1. Element i of a row is bit i % 64 of word i / 64, as in
 *   np.packbits with bitorder="little". A row of k elements takes words(k) = ceil(k / 64) words,
 *   whose bits after the last element must be 0. A number x is packed as +1 if x >= 0.
 *   Images are (height, width, channels), packed along the channels; filters are (filters,
 *   kernel_height, kernel_width, channels of a group), packed likewise.
 *
 * All results are exact; scales are applied in float32 in the order shown, each step rounded.
 */
#ifndef BITOPS_API_H
#define BITOPS_API_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of the table. Later versions of the same number only add members at its end; `size` says which
 * are there. */
#define BITOPS_API_VERSION 1

/* What functions return. Outputs are undefined unless it is BITOPS_OK or BITOPS_NAN. */
typedef enum bitops_status {
    BITOPS_OK = 0,
    BITOPS_NAN = 1,          /* packed, but a number was NaN, which has no sign */
    BITOPS_NO_MEMORY = 2,    /* there was none for a workspace */
    BITOPS_BAD_ARGUMENT = 3, /* sizes do not fit each other, or a pointer is NULL */
} bitops_status;

/* Weights in the order that the instruction set in force reads; opaque. */
typedef struct bitops_panels bitops_panels;

/* Rows of k bits, ld words apart; k < 2^31. The panels, if not NULL, are those of the same rows,
 * and only of the second operand of a product are they read. */
typedef struct bitops_matrix {
    const uint64_t *words;
    size_t ld;
    size_t rows;
    size_t k;
    const bitops_panels *panels;
} bitops_matrix;

/* Scales of float32 outputs, c = float32(dot) [* alpha[column]] [* k_map[row]] [+ bias[column]];
 * NULL means absent. Columns are rows of w, or filters; the rows of a convolution are its output
 * positions. */
typedef struct bitops_scales {
    const float *alpha;
    const float *k_map;
    const float *bias;
} bitops_scales;

/* Images, filters and windows of a convolution; all but pads at least 1, all below 2^31. */
typedef struct bitops_conv2d_shape {
    size_t height, width, channels; /* of the images; channels of all groups */
    size_t filters;                 /* of all groups */
    size_t kernel_height, kernel_width;
    size_t stride_y, stride_x;
    size_t dilation_y, dilation_x;
    size_t pad_top, pad_bottom, pad_left, pad_right;
    size_t groups; /* divides channels and filters */
    int pad_value; /* of positions outside: 0 (they add nothing), 1 or -1 */
} bitops_conv2d_shape;

/* A convolution made ready: its filters are copied. Opaque; several threads may use one. */
typedef struct bitops_conv2d bitops_conv2d;

typedef struct bitops_api {
    uint32_t version;
    uint32_t size; /* bytes of this table */

    /* Words that a row of k bits takes. */
    size_t (*words)(size_t k);
    /* Name of the instruction set in force. */
    const char *(*isa)(void);
    int (*get_num_threads)(void);
    /* n >= 1 */
    void (*set_num_threads)(int n);

    /* Pack rows of k contiguous numbers into rows of words(k) words. Of bool8, what is not 0 is
     * +1. A NaN makes the status BITOPS_NAN. */
    int (*pack_bool8)(const uint8_t *x, size_t rows, size_t k, uint64_t *words_out);
    int (*pack_i8)(const int8_t *x, size_t rows, size_t k, uint64_t *words_out);
    int (*pack_i32)(const int32_t *x, size_t rows, size_t k, uint64_t *words_out);
    int (*pack_f32)(const float *x, size_t rows, size_t k, uint64_t *words_out);
    int (*pack_f64)(const double *x, size_t rows, size_t k, uint64_t *words_out);
    /* Write +1 or -1 for each bit of rows of words(k) words. */
    int (*unpack_i8)(const uint64_t *words, size_t rows, size_t k, int8_t *x_out);
    int (*unpack_f32)(const uint64_t *words, size_t rows, size_t k, float *x_out);
    /* Counts the 1 bits of each of so many rows of n_words words. */
    int (*popcount)(const uint64_t *words, size_t rows, size_t n_words, int64_t *count_out);

    /* Orders w for many products, into panels that `free_panels` frees. Panels of an instruction
     * set that is no longer in force stay right. w.words must stay as it is. */
    int (*prepack)(const bitops_matrix *w, bitops_panels **panels_out);
    void (*free_panels)(bitops_panels *panels);

    /* Products of all pairs of rows, c[i, j] at c_out[i * ldc + j]:
     * c = k - 2 popcount(a[i] ^ w[j]), the dot product of the +-1 values. */
    int (*gemm)(const bitops_matrix *a, const bitops_matrix *w, int32_t *c_out, size_t ldc);
    int (*gemm_scaled)(const bitops_matrix *a, const bitops_matrix *w, const bitops_scales *scales,
                       float *c_out, size_t ldc);
    /* Bits (dot > threshold[j]) ^ flip[j], packed along j; ldc counts words. `flip` has w.rows
     * packed bits, or is NULL. */
    int (*gemm_sign)(const bitops_matrix *a, const bitops_matrix *w, const int32_t *threshold,
                     const uint64_t *flip, uint64_t *c_out, size_t ldc);
    /* c = popcount(a[i] ^ b[j]). */
    int (*hamming)(const bitops_matrix *a, const bitops_matrix *b, int32_t *c_out, size_t ldc);
    /* The `count` nearest rows of b for every row of a, by distance and then by index; both outputs
     * are a.rows x count. 1 <= count <= b.rows < 2^32. */
    int (*hamming_topk)(const bitops_matrix *a, const bitops_matrix *b, size_t count,
                        int32_t *distances_out, int64_t *indices_out);

    /* Makes a convolution ready, to be freed by `free_conv2d`. w holds the packed filters. */
    int (*make_conv2d)(const bitops_conv2d_shape *shape, const uint64_t *w,
                       bitops_conv2d **conv_out);
    void (*free_conv2d)(bitops_conv2d *conv);
    void (*conv2d_output)(const bitops_conv2d *conv, size_t *height_out, size_t *width_out);
    /* Convolve `images` packed images. Outputs are (images, output height, output width, filters),
     * contiguous; of conv2d_sign, packed along the filters. */
    int (*conv2d)(const bitops_conv2d *conv, const uint64_t *x, size_t images, int32_t *c_out);
    int (*conv2d_scaled)(const bitops_conv2d *conv, const uint64_t *x, size_t images,
                         const bitops_scales *scales, float *c_out);
    int (*conv2d_sign)(const bitops_conv2d *conv, const uint64_t *x, size_t images,
                       const int32_t *threshold, const uint64_t *flip, uint64_t *c_out);
} bitops_api;

#define BITOPS_API_CAPSULE "bitops._core._C_API"

#ifdef Py_PYTHON_H
/* Imports bitops and returns its table; NULL, with an ImportError set, if there is no bitops or it
 * is older than this file. */
static inline const bitops_api *bitops_import(void) {
    PyObject *module = PyImport_ImportModule("bitops._core");
    if (!module)
        return NULL;
    Py_DECREF(module); /* the interpreter keeps it */
    const bitops_api *api = (const bitops_api *)PyCapsule_Import(BITOPS_API_CAPSULE, 0);
    if (api && (api->version != BITOPS_API_VERSION || api->size < sizeof(bitops_api))) {
        PyErr_Format(PyExc_ImportError,
                     "[bitops_import] bitops must have version %d of the C interface and %d bytes "
                     "of functions, got version %d and %d bytes",
                     BITOPS_API_VERSION, (int)sizeof(bitops_api), (int)api->version,
                     (int)api->size);
        return NULL;
    }
    return api;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
