# _adam.pxi: steps of Adam, on a gradient in memory or on one that is made meanwhile.

cdef void *weights(object array, bint are_short) except? NULL:
    """Check w: a matrix of float32, or of int16."""
    cdef float[:, ::1] numbers
    cdef int16_t[:, ::1] shorts
    if are_short:
        shorts = array
        return first(shorts)
    numbers = array
    return first(numbers)


cdef void *moment(str name, object array, c.bitops_adam_args *args) except? NULL:
    """Check m or v against w; both are float32, or both bfloat16."""
    cdef float[:, ::1] numbers
    cdef uint16_t[:, ::1] halves
    cdef void *start
    if args.bfloat16:
        halves = array
        start = first(halves)
    else:
        numbers = array
        start = first(numbers)
    check_size(f"rows of {name}", array.shape[0], args.rows)
    check_size(f"columns of {name}", array.shape[1], args.n)
    return start


cdef c.bitops_adam_args make_adam(float rate, float beta1_rest, float beta2_rest, float eps,
                                  float keep, float clip, uint32_t seed, object w, object m,
                                  object v, uint64_t[:, ::1] words_out) except *:
    """Check the arrays against each other."""
    cdef c.bitops_adam_args args
    memset(&args, 0, sizeof(args))
    args.short_weights = w.dtype == numpy.int16
    args.bfloat16 = m.dtype == numpy.uint16
    args.w = weights(w, args.short_weights)
    args.rows, args.n = w.shape
    if args.short_weights and clip != c.BITOPS_SHORT_MOST:
        raise ValueError(f"[_core] clip must be {c.BITOPS_SHORT_MOST} for int16, got {clip}")
    if words_out is not None:
        check_size("rows of words_out", words_out.shape[0], args.rows)
        check_size("words of a row", words_out.shape[1], c.bitops_words(args.n))
        args.words = <uint64_t *>first(words_out)
    args.m, args.v = moment("m", m, &args), moment("v", v, &args)
    args.rate, args.beta1_rest, args.beta2_rest = rate, beta1_rest, beta2_rest
    args.eps, args.keep, args.clip, args.seed = eps, keep, clip, seed
    return args


def adam(const float[:, ::1] g, float rate, float beta1_rest, float beta2_rest, float eps,
         float keep, float clip, uint32_t seed, w, m, v,
         uint64_t[:, ::1] words_out=None):
    """Take one step of Adam in place; returns whether a weight that is packed or int16 is NaN.

    operations.h states the step.

    Parameters
    ----------
    g : IN, gradient, shape (rows, n)
    rate, beta1_rest, beta2_rest, eps, keep, clip : float
        w = clip(w * keep - rate * (m / (sqrt(v) + eps))), the rests being 1 - beta.
    seed : int
        Of the rounding of bfloat16 and int16.
    w : IN, OUT, shape (rows, n), float32, or int16 in a unit that rate and clip have, too; then
        clip is 32767, and -32768 stands for NaN
    m, v : IN, OUT, shape (rows, n), float32, or uint16 with bfloat16
    words_out : OUT, signs of w, shape (rows, ceil(n / 64)), or None
    """
    cdef c.bitops_adam_args args = make_adam(rate, beta1_rest, beta2_rest, eps, keep, clip, seed, w,
                                             m, v, words_out)
    cdef int nan
    check_size("rows of g", g.shape[0], args.rows)
    check_size("columns of g", g.shape[1], args.n)
    if args.rows == 0 or args.n == 0:
        return False
    args.g = &g[0, 0]
    with nogil:
        nan = c.bitops_adam(c.bitops_isa_active(), &args, c.bitops_get_num_threads())
    return nan != 0


cdef bint take_product(c.bitops_mixed_args *product, const uint64_t[:, ::1] bits,
                       const float[::1] alpha, const float[::1] bias,
                       const c.bitops_adam_args *step) except -1:
    """Take a step with a product as gradient."""
    cdef Scratch workspace
    cdef int nan, n_threads = c.bitops_get_num_threads()
    product.n = bits.shape[0]
    product.ldw = bits.shape[1]
    check_size("words of a row of bits", bits.shape[1], c.bitops_words(product.k))
    check_size("rows of the product", product.m, step.rows)
    check_size("columns of the product", product.n, step.n)
    product.alpha = scales("alpha", alpha, bits.shape[0])
    product.bias = scales("bias", bias, bits.shape[0])
    product.w = <const uint64_t *>first(bits)
    if product.k == 0:
        raise ValueError("[_core] x must have at least one row, got 0")
    if step.rows == 0 or step.n == 0:
        return False
    workspace = make_scratch(c.bitops_adam_product_workspace_size(product, n_threads))
    with nogil:
        nan = c.bitops_adam_product(c.bitops_isa_active(), step, product, workspace.start,
                                    n_threads)
    return nan != 0


def adam_product(x, const uint64_t[:, ::1] bits, int zero, const float[::1] alpha,
                 const float[::1] bias, float rate, float beta1_rest, float beta2_rest, float eps,
                 float keep, float clip, uint32_t seed, w, m, v,
                 uint64_t[:, ::1] words_out=None):
    """Take one step of `adam` whose gradient is a product with bits, never in memory.

    Parameters
    ----------
    x : IN, shape (k, rows)
        float32, for the gradient of `weight_gemm`, without zero, alpha and bias; or uint8, for that
        of `bitplane_gemm_scaled` with numbers of 8 bits, 255 * k < 2**31.
    bits : IN, shape (n, ceil(k / 64))
    zero : int, in 0..255
        The code of 0 in x.
    alpha, bias : IN, shape (n,); bias may be None
    The others are those of `adam`.
    """
    cdef c.bitops_adam_args step = make_adam(rate, beta1_rest, beta2_rest, eps, keep, clip, seed, w,
                                             m, v, words_out)
    cdef c.bitops_mixed_args product
    cdef const float[:, ::1] numbers
    cdef const uint8_t[:, ::1] codes
    if x.dtype == numpy.float32:
        numbers = x
        product = make_mixed(x.shape[0], x.shape[1], first(numbers), NULL, True)
        product.is_float = 1
    elif x.dtype == numpy.uint8:
        codes = x
        product = make_mixed(x.shape[0], x.shape[1], first(codes), NULL, True)
        check_code_sums(product.k)
        if not 0 <= zero <= 255:
            raise ValueError(f"[_core] zero must be in 0..255, got {zero}")
        product.bits, product.zero = 8, zero
    else:
        raise ValueError(f"[_core] x must be float32 or uint8, got {x.dtype}")
    if (alpha is None) != (product.is_float != 0):
        raise ValueError("[_core] uint8 must have an alpha, and float32 none")
    if product.is_float and (zero or bias is not None):
        raise ValueError("[_core] float32 must have neither zero nor bias")
    return take_product(&product, bits, alpha, bias, &step)
