# The usual call of numbers with packed weights: weight_gemm, bitplane_gemm. See _usual.pxi.

cdef object find_weights(usual_call *call, object w, c.bitops_mixed_args *args):
    """Fill in a matrix of weights, packed along its last axis.

    Returns what holds their memory, also if another thread replaces it; None if they are unusual.
    """
    cdef Bits rows = bits_of(w)
    cdef Panels panels
    if (rows is None or len(rows.shape) != 2 or rows.axis != 1 or not 0 < rows.k <= MAX_BITS
            or rows.shape[0] == 0):
        return None
    args.n, args.k, args.ldw = rows.shape[0], rows.k, c.bitops_words(rows.k)
    args.w = find_bits(call, rows, args.n)
    if args.w == NULL:
        return None
    if isinstance(w, Weights) and not args.is_float:
        panels = fitting_panels(call, w, args.n, args.ldw)
        if panels is None:
            return None
        args.panels = panels.words
        return rows._words, panels
    return rows._words


cdef bint find_codes(const uint8_t *codes, size_t count, c.bitops_mixed_args *args) noexcept nogil:
    """Find the largest of the codes; returns whether they have the bits that they should."""
    cdef uint8_t most = 0
    cdef size_t i
    if args.bits < 8:  # as check_sums, which does not look at those of 8 bits
        for i in range(count):
            most = max(most, codes[i])
    args.most = most
    return most >> args.bits == 0


def usual_mixed(int bits, object x, object w, object alpha, object bias, object out):
    """Multiply numbers with weights, or return None if something is unusual.

    Parameters
    ----------
    bits : int
        0 for float32, else that of uint8 numbers, in 1..8.
    x : IN, ndarray of shape (..., m, k); float64 if they are few, which are converted
    w : IN, BitArray or Prepacked of shape (n, k), packed along k
    alpha, bias : IN, shape (n,), or one number, or None
    out : OUT, ndarray of shape (..., m, n); or None

    Returns
    -------
    ndarray of shape (..., m, n), or None
    """
    cdef usual_call call
    cdef c.bitops_mixed_args args
    cdef memory numbers
    cdef tuple shape
    cdef Py_ssize_t last
    cdef bint fit
    memset(&call, 0, sizeof(call))
    memset(&args, 0, sizeof(args))
    call.isa = c.bitops_isa_active()
    args.is_float, args.bits = bits == 0, bits
    if not bits and is_array(x, FLOAT64):
        x = ready_numbers(x, x.shape)
    if not is_array(x, UINT8 if bits else FLOAT32):
        return None
    held = find_weights(&call, w, &args)
    if held is None:
        return None
    args.x = find_read(&call, x, UINT8 if bits else FLOAT32, None)
    shape = x.shape
    last = len(shape) - 1
    if args.x == NULL or last < 1 or <size_t>shape[last] != args.k:
        return None
    numbers = call.reads[call.n_reads - 1]
    if numbers.nbytes == 0 or (bits and args.k > MAX_BITS // 255):
        return None
    args.m = numbers.nbytes // (args.k * (1 if bits else sizeof(float)))
    if bits:
        with nogil:
            fit = find_codes(<const uint8_t *>numbers.start, numbers.nbytes, &args)
        if not fit:
            return None
    alpha, bias = ready_numbers(alpha, (args.n,)), ready_numbers(bias, (args.n,))
    if not (find_scale(&call, alpha, (args.n,), &args.alpha)
            and find_scale(&call, bias, (args.n,), &args.bias)):
        return None
    is_exact = bits and alpha is None and bias is None
    array = find_result(&call, out, INT32 if is_exact else FLOAT32, with_last(shape, args.n))
    if array is None:
        return None
    args.c = call.store.c
    call_mixed(call.isa, &args)
    return array
