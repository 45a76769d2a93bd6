# Products of numbers with +-1 weights, of which few are kept. Included by _core.pyx.


cdef c.bitops_mixed_args score_product(size_t m, size_t k, const void *x,
                                       const uint64_t[:, :] w) except *:
    """The product of rows of x with all rows of w, without outputs."""
    cdef c.bitops_mixed_args args = make_mixed(m, k, x, NULL)
    check_size("words of a row of w", w.shape[1], c.bitops_words(k))
    if w.shape[0] >= <size_t>1 << 32:
        raise ValueError(f"[_core] w must have fewer than 2**32 rows, got {w.shape[0]}")
    args.n = w.shape[0]
    args.ldw = row_distance(w)
    if w.shape[0] and w.shape[1]:
        args.w = &w[0, 0]
    return args


cdef int run_score_topk(c.bitops_score_args *args, const float[::1] alpha, const float[::1] bias,
                        float[:, ::1] scores_out, int64_t[:, ::1] indices_out) except -1:
    """Check sizes, find scratch memory and search."""
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()
    cdef size_t count = scores_out.shape[1]
    cdef Scratch workspace
    check_size("rows of scores_out", scores_out.shape[0], args.product.m)
    check_size("rows of indices_out", indices_out.shape[0], args.product.m)
    check_size("columns of indices_out", indices_out.shape[1], count)
    if not 1 <= count <= args.product.n:
        raise ValueError(f"[_core] count must be in [1, {args.product.n}], got {count}")
    if args.product.m == 0:
        return 0
    args.alpha = scales("alpha", alpha, args.product.m)
    args.bias = scales("bias", bias, args.product.m)
    args.product.stop = &stop
    workspace = make_scratch(c.bitops_score_topk_workspace_size(isa, args, count, n_threads))
    with nogil:
        c.bitops_score_topk(isa, args, count, &scores_out[0, 0], &indices_out[0, 0],
                            workspace.start, n_threads)
    return check_stop(&stop)


def score_topk(const float[:, ::1] x, const uint64_t[:, :] w, const float[::1] alpha,
               const float[::1] bias, float[:, ::1] scores_out, int64_t[:, ::1] indices_out):
    """Find the rows of w with the largest (x times the signs of w) * alpha[row] + bias[row].

    Parameters
    ----------
    x : IN, shape (m, k), without NaN in any sum
    w : IN, shape (n, ceil(k / 64))
    alpha, bias : IN, shape (m,), or None
    scores_out, indices_out : OUT, shape (m, count), 1 <= count <= n
    """
    cdef c.bitops_score_args args
    memset(&args, 0, sizeof(args))
    args.product = score_product(x.shape[0], x.shape[1], first(x), w)
    args.product.is_float = 1
    run_score_topk(&args, alpha, bias, scores_out, indices_out)


def score_topk_codes(const uint8_t[:, ::1] x, int32_t zero, const uint64_t[:, :] w, int bits,
                     const float[::1] alpha, const float[::1] bias, float[:, ::1] scores_out,
                     int64_t[:, ::1] indices_out):
    """Do what score_topk does for the numbers x - zero.

    Parameters
    ----------
    x : IN, shape (m, k), 255 * k < 2**31
    bits : int
        Numbers in x are below 2**bits.
    """
    cdef c.bitops_score_args args
    memset(&args, 0, sizeof(args))
    args.product = score_product(x.shape[0], x.shape[1], first(x), w)
    check_code_sums(args.product.k)
    if not 1 <= bits <= 8 or not 0 <= zero < 256:
        raise ValueError(f"[_core] bits must be in 1..8 and zero a code, got {bits} and {zero}")
    args.product.bits = bits
    args.product.zero = zero
    run_score_topk(&args, alpha, bias, scores_out, indices_out)


def rescore(const float[:, ::1] x, const uint64_t[:, :] w, const int64_t[:, ::1] indices,
            float[:, ::1] sums_out):
    """Multiply each row of x with rows of w of its own.

    Parameters
    ----------
    x : IN, shape (m, k), k > 0
    w : IN, shape (n, ceil(k / 64))
    indices : IN, shape (m, count), in [-1, n): -1 stands for none
    sums_out : OUT, shape (m, count); sums of -1 stay
    """
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()
    cdef c.bitops_mixed_args args = score_product(x.shape[0], x.shape[1], first(x), w)
    cdef size_t count = indices.shape[1]
    cdef Scratch workspace
    check_size("rows of indices", indices.shape[0], args.m)
    check_size("rows of sums_out", sums_out.shape[0], args.m)
    check_size("columns of sums_out", sums_out.shape[1], count)
    if args.m == 0 or count == 0 or args.k == 0 or args.n == 0:
        return
    args.is_float = 1
    args.stop = &stop
    workspace = make_scratch(c.bitops_rescore_workspace_size(&args, n_threads))
    with nogil:
        c.bitops_rescore(c.bitops_isa_active(), &args, &indices[0, 0], count, &sums_out[0, 0],
                         workspace.start, n_threads)
    check_stop(&stop)
