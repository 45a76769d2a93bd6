# Declarations of bitops.h, nothing else.
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "bitops.h" nogil:
    ctypedef enum bitops_store_kind:
        BITOPS_STORE_DOT
        BITOPS_STORE_SCALED
        BITOPS_STORE_HAMMING
        BITOPS_STORE_HAMMING16
        BITOPS_STORE_SIGN
        BITOPS_STORE_INTERSECTION
        BITOPS_STORE_JACCARD
        BITOPS_STORE_DICE

    ctypedef struct bitops_bound:
        float factor, term

    ctypedef struct bitops_store:
        bitops_store_kind kind
        int32_t k
        void *c
        size_t ldc
        const float *alpha
        const float *k_map
        const float *bias
        const int32_t *threshold
        const uint64_t *flip
        const int32_t *a_counts
        const int32_t *w_counts
        const uint64_t *allowed

    ctypedef struct bitops_isa:
        const char *name
        uint32_t features
        size_t mr
        size_t nr
        void *conv_f32
        void (*port_bound)(size_t steps, uint64_t *macs_out) noexcept nogil

    ctypedef enum bitops_dtype:
        BITOPS_BOOL8
        BITOPS_I8
        BITOPS_I16
        BITOPS_I32
        BITOPS_I64
        BITOPS_F16
        BITOPS_BF16
        BITOPS_F32
        BITOPS_F64

    ctypedef struct bitops_stop:
        int (*ask)() noexcept nogil
        int stopped

    ctypedef struct bitops_image:
        const uint64_t *x
        size_t pixel_words
        size_t height, width
        size_t first_channel, channels
        size_t kernel_height, kernel_width
        size_t stride_y, stride_x
        size_t pad_top, pad_left
        size_t dilation_y, dilation_x
        size_t out_height, out_width
        uint64_t outside

    ctypedef struct bitops_gemm_args:
        const bitops_image *image
        const uint64_t *a
        size_t lda
        size_t m
        const uint64_t *w
        size_t ldw
        size_t n
        const uint64_t *panels
        size_t k_words
        bitops_store store
        bitops_stop *stop
        const uint64_t *lines

    size_t bitops_words(size_t bits) noexcept

    size_t bitops_isa_count() noexcept
    const bitops_isa *bitops_isa_get(size_t index) noexcept
    int bitops_isa_runs(const bitops_isa *isa) noexcept
    const bitops_isa *bitops_isa_find(const char *name) noexcept
    const bitops_isa *bitops_isa_active() noexcept
    void bitops_isa_use(const bitops_isa *isa) noexcept
    int bitops_kernel_name(size_t index, const char **op, const char **isa) noexcept

    const char *bitops_compiler() noexcept
    void *bitops_allocate(size_t size) noexcept
    void bitops_free(void *block) noexcept
    long bitops_live_blocks() noexcept
    void bitops_keep_freed(int keep) noexcept
    ctypedef enum bitops_request:
        BITOPS_MEMORY
        BITOPS_THREAD
    void bitops_fail(bitops_request kind, long first, long count) noexcept
    long bitops_requests(bitops_request kind) noexcept

    int bitops_has_openmp() noexcept
    int bitops_get_num_threads() noexcept
    void bitops_set_num_threads(int n) noexcept
    void bitops_limit_to_one_thread(int limit) noexcept

    int bitops_pack_rows(const bitops_isa *isa, bitops_dtype dtype, const void *x, size_t rows,
                         size_t n, uint64_t *words_out, bitops_stop *stop, int n_threads) noexcept
    int bitops_compare_rows(const bitops_isa *isa, bitops_dtype dtype, const void *x, size_t rows,
                            size_t n, const float *threshold, const uint64_t *flip,
                            uint64_t *words_out, bitops_stop *stop, int n_threads) noexcept
    size_t bitops_transpose_workspace_size(int n_threads) noexcept
    void bitops_transpose(const bitops_isa *isa, const uint64_t *words, size_t outer, size_t rows,
                          size_t columns, uint64_t *words_out, void *workspace, bitops_stop *stop,
                          int n_threads) noexcept
    void bitops_unpack_rows(const bitops_isa *isa, bitops_dtype dtype, const uint64_t *words,
                            size_t rows, size_t n, void *x_out, bitops_stop *stop,
                            int n_threads) noexcept
    ctypedef struct bitops_scaled:
        const float *x
        size_t n
        const float *alpha
        size_t columns
    float bitops_peak(const bitops_isa *isa, const bitops_scaled *numbers, bitops_stop *stop,
                      int n_threads) noexcept
    void bitops_quantize(const bitops_isa *isa, const bitops_scaled *numbers, float scale,
                         uint32_t seed, int zero, uint8_t *codes_out, bitops_stop *stop,
                         int n_threads) noexcept
    ctypedef struct bitops_byte_args:
        const uint8_t *x
        const uint8_t *y
        size_t m, n, k
        int x_zero
        int32_t *sums
        bitops_stop *stop
    size_t bitops_byte_gemm_workspace_size(const bitops_byte_args *args, int n_threads) noexcept
    void bitops_byte_gemm(const bitops_isa *isa, const bitops_byte_args *args, void *workspace,
                          int n_threads) noexcept
    void bitops_mean_magnitude(const float *x, size_t rows, size_t n, float *mean_out,
                               bitops_stop *stop, int n_threads) noexcept
    void bitops_sum_magnitude(const float *x, size_t rows, size_t n, double *sum_out,
                              bitops_stop *stop, int n_threads) noexcept
    void bitops_popcount_rows(const bitops_isa *isa, const uint64_t *words, size_t rows,
                              size_t k_words, int64_t *count_out, bitops_stop *stop,
                              int n_threads) noexcept
    void bitops_popcount_columns(const bitops_isa *isa, const uint64_t *words, size_t outer,
                                 size_t rows, size_t n_words, int64_t *count_out,
                                 bitops_stop *stop, int n_threads) noexcept

    void bitops_mirror_bytes(const uint8_t *bytes, ptrdiff_t ld, size_t rows, size_t n,
                             uint8_t *bytes_out, ptrdiff_t ld_out, bitops_stop *stop,
                             int n_threads) noexcept
    void bitops_copy_bits(const bitops_isa *isa, const uint64_t *words, size_t ld, size_t first,
                          size_t rows, size_t n, uint64_t *words_out, size_t ld_out, size_t to,
                          bitops_stop *stop, int n_threads) noexcept
    bint bitops_take_rows(const uint64_t *words, size_t n, size_t k_words, const int64_t *indices,
                          size_t count, uint64_t *words_out, bitops_stop *stop,
                          int n_threads) noexcept
    void bitops_roll_bits(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t n,
                          size_t cut, uint64_t *words_out, bitops_stop *stop,
                          int n_threads) noexcept
    ctypedef enum bitops_logic:
        BITOPS_AND
        BITOPS_OR
        BITOPS_XOR
        BITOPS_XNOR
        BITOPS_NOT
    void bitops_combine(bitops_logic logic, const uint64_t *a, const uint64_t *b, size_t rows,
                        size_t n, uint64_t *words_out, bitops_stop *stop,
                        int n_threads) noexcept
    void bitops_flip_bits(const bitops_isa *isa, const uint64_t *words, size_t rows, size_t n,
                          uint64_t *words_out, bitops_stop *stop, int n_threads) noexcept
    void bitops_majority_columns(const bitops_isa *isa, const uint64_t *words, size_t ld_outer,
                                 size_t ld, size_t outer, size_t rows, size_t n_words,
                                 uint64_t least, uint64_t *words_out, bitops_stop *stop,
                                 int n_threads) noexcept
    void bitops_majority_rows(const bitops_isa *isa, const uint64_t *words, size_t rows,
                              size_t k_words, int64_t least, uint64_t *words_out,
                              bitops_stop *stop, int n_threads) noexcept

    size_t bitops_prepack_size(const bitops_isa *isa, size_t n, size_t k_words) noexcept
    void bitops_prepack_all(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                            size_t k_words, uint64_t *panels_out, bitops_stop *stop,
                            int n_threads) noexcept

    size_t bitops_gemm_workspace_size(const bitops_isa *isa,
                                      const bitops_gemm_args *args,
                                      int n_threads) noexcept
    void bitops_gemm(const bitops_isa *isa, const bitops_gemm_args *args, void *workspace,
                     int n_threads) noexcept
    void bitops_gemm_batch(const bitops_isa *isa, const bitops_gemm_args *args, size_t batch,
                           const int64_t *a_index, const int64_t *w_index, void *workspace,
                           int n_threads) noexcept

    void bitops_im2col(const bitops_image *image, size_t images, uint64_t *rows_out,
                       bitops_stop *stop, int n_threads) noexcept

    ctypedef struct bitops_conv_args:
        bitops_image image
        size_t images
        const uint64_t *w
        size_t filters
        size_t groups
        const uint64_t *panels
        const int32_t *offsets
        bitops_store store
        bitops_stop *stop

    size_t bitops_conv_offsets_size(const bitops_conv_args *args) noexcept
    size_t bitops_conv_areas_size(const bitops_conv_args *args) noexcept
    void bitops_conv_fill_offsets(bitops_conv_args *args, const int32_t *tap_sums,
                                  void *memory, void *workspace, bitops_stop *stop) noexcept

    size_t bitops_max_windows_workspace_size(const bitops_image *windows, size_t pixel_bytes,
                                             int n_threads) noexcept
    void bitops_max_windows(const bitops_isa *isa, const bitops_image *windows,
                            bitops_dtype dtype, size_t pixel_bytes, const void *x, size_t images,
                            const uint64_t *minimum, void *max_out, void *workspace,
                            bitops_stop *stop, int n_threads) noexcept
    size_t BITOPS_NO_PLACE
    void bitops_max_places(const bitops_image *windows, const float *x, const float *y,
                           size_t images, size_t channels, uint8_t *places_out,
                           bitops_stop *stop, int n_threads) noexcept
    void bitops_max_gradient(const bitops_image *windows, const uint8_t *places, const float *dy,
                             size_t images, size_t channels, float *dx_out,
                             bitops_stop *stop, int n_threads) noexcept
    void bitops_mean_gradient(const bitops_image *windows, const float *dy, size_t images,
                              size_t channels, float *dx_out, bitops_stop *stop,
                              int n_threads) noexcept
    void bitops_mean_windows(const bitops_isa *isa, const bitops_image *windows, const float *x,
                             size_t images, size_t channels, float *mean_out, bitops_stop *stop,
                             int n_threads) noexcept
    void bitops_mean_columns(const bitops_isa *isa, const float *x, size_t outer, size_t rows,
                             size_t n, float *mean_out, bitops_stop *stop, int n_threads) noexcept
    bint bitops_is_depthwise(size_t channels, size_t groups, size_t filters) noexcept
    size_t bitops_conv_workspace_size(const bitops_isa *isa, const bitops_conv_args *args,
                                      int n_threads) noexcept
    void bitops_conv(const bitops_isa *isa, const bitops_conv_args *args, void *workspace,
                     int n_threads) noexcept

    enum: BITOPS_RANKED_BITS
    enum: BITOPS_MAJORITY_ROWS
    size_t bitops_lines_size(size_t n, size_t k_words) noexcept
    void bitops_make_lines(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                           size_t k_words, uint64_t *lines_out, bitops_stop *stop) noexcept
    int bitops_lines_pay(const bitops_gemm_args *args) noexcept
    size_t bitops_topk_workspace_size(const bitops_isa *isa, const bitops_gemm_args *args,
                                      size_t count, int n_threads) noexcept
    void bitops_topk(const bitops_isa *isa, const bitops_gemm_args *args, size_t count,
                     int64_t *indices_out, void *workspace, int n_threads) noexcept

    ctypedef struct bitops_found:
        uint64_t *pairs
        int32_t *distances
        size_t count, capacity

    enum:
        BITOPS_SCAN_WORDS

    void bitops_found_free(bitops_found *found) noexcept

    ctypedef struct bitops_range_args:
        const uint64_t *a
        size_t lda, m
        const uint64_t *b
        size_t ldb, n
        size_t k_words
        int32_t radius
        const bitops_bound *bounds
        const int32_t *b_counts
        bint upper
        bitops_stop *stop

    ctypedef struct bitops_chunk:
        uint32_t first, bits

    ctypedef struct bitops_join_args:
        bitops_range_args range
        const bitops_chunk *chunks
        size_t together
        const uint32_t *choices
        size_t count

    size_t bitops_scan_workspace_size(const bitops_isa *isa, const bitops_range_args *args,
                                      size_t rows, size_t first_words, int n_threads) noexcept
    bint bitops_scan(const bitops_isa *isa, const bitops_range_args *args, size_t first,
                     size_t rows, size_t first_words, bitops_found *found_out, void *workspace,
                     int n_threads) noexcept
    size_t bitops_join_workspace_size(const bitops_join_args *args, int n_threads) noexcept
    bint bitops_join(const bitops_isa *isa, const bitops_join_args *args, uint64_t most_compared,
                     uint64_t *compared_out, bitops_found *found_out, void *workspace,
                     int n_threads) noexcept

    ctypedef struct bitops_mixed_args:
        int is_float
        int bits
        int zero, most
        const void *x
        int x_turned
        size_t m, k
        const uint64_t *w
        size_t ldw
        size_t n
        const uint64_t *panels
        const uint32_t *lookup_panels
        const float *alpha
        const float *bias
        void *c
        bitops_stop *stop

    size_t bitops_lookup_panels_size(size_t n, size_t k_words) noexcept
    void bitops_lookup_panels_all(const bitops_isa *isa, const uint64_t *w, size_t ldw, size_t n,
                                  size_t k_words, uint32_t *panels_out) noexcept

    size_t bitops_mixed_workspace_size(const bitops_isa *isa, const bitops_mixed_args *args,
                                       int n_threads) noexcept
    void bitops_mixed(const bitops_isa *isa, const bitops_mixed_args *args, void *workspace,
                      int n_threads) noexcept

    ctypedef enum bitops_code_way:
        BITOPS_CODE_PATCHES
    bitops_code_way bitops_choose_code_way(const bitops_isa *isa, const bitops_mixed_args *args,
                                           const bitops_image *windows, int n_threads) noexcept
    size_t bitops_conv_codes_workspace_size(bitops_code_way way, const bitops_isa *isa,
                                            const bitops_mixed_args *args,
                                            const bitops_image *windows,
                                            int n_threads) noexcept
    void bitops_conv_codes(bitops_code_way way, const bitops_isa *isa,
                           const bitops_mixed_args *args, const bitops_image *windows,
                           uint8_t outside, void *workspace, int n_threads) noexcept

    size_t bitops_mixed_to_images_workspace_size(const bitops_mixed_args *args,
                                                 int n_threads) noexcept
    void bitops_mixed_to_images(const bitops_isa *isa, const bitops_mixed_args *args,
                                const bitops_image *windows, void *workspace,
                                int n_threads) noexcept

    ctypedef struct bitops_score_args:
        bitops_mixed_args product
        const float *alpha
        const float *bias

    size_t bitops_score_topk_workspace_size(const bitops_isa *isa, const bitops_score_args *args,
                                            size_t count, int n_threads) noexcept
    void bitops_score_topk(const bitops_isa *isa, const bitops_score_args *args, size_t count,
                           float *scores_out, int64_t *indices_out, void *workspace,
                           int n_threads) noexcept
    size_t bitops_rescore_workspace_size(const bitops_mixed_args *args, int n_threads) noexcept
    void bitops_rescore(const bitops_isa *isa, const bitops_mixed_args *args,
                        const int64_t *indices, size_t count, float *sums_out, void *workspace,
                        int n_threads) noexcept

    enum: BITOPS_SHORT_MOST
    ctypedef struct bitops_adam_args:
        size_t rows, n
        const float *g
        void *w
        void *m
        void *v
        int short_weights
        int bfloat16
        uint32_t seed
        uint64_t *words
        float beta1_rest, beta2_rest
        float eps
        float rate
        float keep
        float clip

    int bitops_adam(const bitops_isa *isa, const bitops_adam_args *args, int n_threads) noexcept
    size_t bitops_adam_product_workspace_size(const bitops_mixed_args *product,
                                              int n_threads) noexcept
    int bitops_adam_product(const bitops_isa *isa, const bitops_adam_args *step,
                            const bitops_mixed_args *product, void *workspace,
                            int n_threads) noexcept

    ctypedef struct bitops_norm:
        int relu
        int powers
        const float *mean
        const float *inv_std
        const float *gamma
        const float *beta
        const float *by_xhat
        const float *less
        const float *factor

    size_t bitops_norm_workspace_size(size_t rows, size_t n) noexcept
    void bitops_norm_sums(const bitops_isa *isa, const bitops_norm *norm, const float *x,
                          size_t rows, size_t n, float *workspace, double *sum_out,
                          bitops_stop *stop, int n_threads) noexcept

    ctypedef struct bitops_norm_kept:
        const float *x
        const int16_t *x16

    int bitops_norm_narrow(const float *x, size_t count, int16_t *x16_out, int n_threads) noexcept
    void bitops_norm_products(const bitops_isa *isa, const bitops_norm *norm, bitops_norm_kept x,
                              const float *dy, const uint64_t *within, size_t rows, size_t n,
                              float *workspace, double *sums_out, bitops_stop *stop,
                              int n_threads) noexcept
    void bitops_norm_values(const bitops_isa *isa, const bitops_norm *norm, const float *x,
                            size_t rows, size_t n, float *y_out, bitops_stop *stop,
                            int n_threads) noexcept
    int bitops_norm_signs(const bitops_isa *isa, const bitops_norm *norm, const float *x,
                          size_t rows, size_t n, float limit, uint64_t *signs_out,
                          uint64_t *within_out, bitops_stop *stop, int n_threads) noexcept
    void bitops_norm_positives(const bitops_isa *isa, const bitops_norm *norm, const float *x,
                               size_t rows, size_t n, float *y_out, uint64_t *positive_out,
                               bitops_stop *stop, int n_threads) noexcept
    void bitops_norm_gradient(const bitops_isa *isa, const bitops_norm *norm, bitops_norm_kept x,
                              const float *dy, const uint64_t *within, size_t rows, size_t n,
                              float *dx_out, bitops_stop *stop, int n_threads) noexcept
    void bitops_keep_within(const bitops_isa *isa, const float *x, const uint64_t *within,
                            size_t rows, size_t n, float *y_out, bitops_stop *stop,
                            int n_threads) noexcept

    ctypedef struct bitops_prelu:
        const float *shift
        const float *slope
        const float *offset

    void bitops_prelu_values(const bitops_isa *isa, const bitops_prelu *prelu, const float *x,
                             size_t rows, size_t n, float *y_out, bitops_stop *stop,
                             int n_threads) noexcept
    size_t bitops_prelu_workspace_size(size_t rows, size_t n) noexcept
    void bitops_prelu_gradient(const bitops_isa *isa, const bitops_prelu *prelu, const float *x,
                               const float *dy, size_t rows, size_t n, float *dx_out,
                               float *workspace, double *sums_out, bitops_stop *stop,
                               int n_threads) noexcept
