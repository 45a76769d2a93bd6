# The usual call of what has one operand: packed, counted, or made of words. See _usual.pxi.

cdef object pack_last(usual_call *call, c.bitops_dtype dtype, const memory *source, tuple shape,
                      const float *limits, const uint64_t *flips):
    """Pack numbers along their last axis, by their signs or where they exceed limits.

    Returns a BitArray, or None if one of them is NaN or the result would be unusual.
    """
    cdef Py_ssize_t last = len(shape) - 1
    cdef size_t n = shape[last], rows = source.nbytes // (n * item_size(dtype))
    cdef int nan, n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef uint64_t *to
    words = find_result(call, None, UINT64, (*shape[:last], c.bitops_words(n)))
    if words is None:
        return None
    to = <uint64_t *>call.store.c
    with nogil:
        if limits == NULL:
            nan = c.bitops_pack_rows(isa, dtype, source.start, rows, n, to, &stop, n_threads)
        else:
            nan = c.bitops_compare_rows(isa, dtype, source.start, rows, n, limits, flips, to, &stop,
                                        n_threads)
    check_stop(&stop)
    return None if nan else make_bits(bits_class, words, shape, last)


def usual_pack(object x, object axis):
    """Pack an ndarray without NaN along its last axis, or return None if something is unusual."""
    cdef usual_call call
    cdef memory source
    cdef tuple shape
    cdef Py_ssize_t last
    code = pack_codes.get(x.dtype) if type(x) is ndarray else None
    if code is None or type(axis) is not int or not find_memory(<PyObject *>x, None, False, &source):
        return None
    shape = x.shape
    last = len(shape) - 1
    if source.nbytes == 0 or last < 0 or not (axis == -1 or axis == last):
        return None
    memset(&call, 0, sizeof(call))
    return pack_last(&call, code, &source, shape, NULL, NULL)


cdef object ready_limits(object threshold, tuple shape):
    """Return float32 limits, repeated if they are one number that float32 holds; otherwise None.

    What they are compared with is float32, too: a number between two of these is left to NumPy.
    """
    cdef float *limits
    cdef memory found
    cdef size_t i, n = shape[0]
    if not is_array(threshold, FLOAT32):
        if type(threshold) is not int and type(threshold) is not float:
            return None
        repeated = ready_numbers(threshold, shape)
        if not is_array(repeated, FLOAT32):
            return None
        limits = <float *>PyArray_DATA(<PyArrayObject *><PyObject *>repeated)
        return repeated if <double>limits[0] == threshold else None
    if not find_memory(<PyObject *>threshold, shape, False, &found):
        return None
    limits = <float *>found.start
    for i in range(n):
        if limits[i] != limits[i]:
            return None
    return threshold


def usual_above(object x, object threshold, object flip):
    """Pack where float32 numbers exceed limits, or return None if something is unusual."""
    cdef usual_call call
    cdef memory source
    cdef tuple shape
    cdef Py_ssize_t last
    cdef const uint64_t *flips = NULL
    cdef const float *bounds
    if not is_array(x, FLOAT32) or not find_memory(<PyObject *>x, None, False, &source):
        return None
    shape = x.shape
    last = len(shape) - 1
    if source.nbytes == 0 or last < 0:
        return None
    limits = ready_limits(threshold, shape[last:])
    if limits is None:
        return None
    memset(&call, 0, sizeof(call))
    flip = ready_flip(flip)
    if flip is not None:
        if not isinstance(flip, Bits) or (<Bits>flip).shape != shape[last:]:
            return None
        flips = find_bits(&call, flip, 1)
        if flips == NULL:
            return None
    bounds = <const float *>PyArray_DATA(<PyArrayObject *><PyObject *>limits)
    return pack_last(&call, c.BITOPS_F32, &source, shape, bounds, flips)


def usual_popcount(object x, object axis):
    """Count the 1 bits of all, or along the packed axis, or return None if something is unusual."""
    cdef usual_call call
    cdef Bits bits
    cdef const uint64_t *words
    cdef int64_t total = 0
    cdef size_t rows = 1, row_words
    cdef c.bitops_stop stop = at_signals()
    if not (isinstance(x, Bits) and (axis is None or type(axis) is int)):
        return None
    bits = x
    if axis is not None and axis != bits.axis and axis != bits.axis - len(bits.shape):
        return None
    for size in bits.shape[:bits.axis] + bits.shape[bits.axis + 1:]:
        rows *= <size_t>size
    if rows == 0 or bits.k <= 0:
        return None
    memset(&call, 0, sizeof(call))
    words, row_words = find_bits(&call, bits, rows), c.bitops_words(bits.k)
    if words == NULL:
        return None
    if axis is None:
        rows, row_words = 1, rows * row_words  # padding bits are 0
        counts, call.store.c = None, &total
    else:
        counts = find_result(&call, None, INT64,
                             bits.shape[:bits.axis] + bits.shape[bits.axis + 1:])
        if counts is None:
            return None
    with nogil:
        c.bitops_popcount_rows(c.bitops_isa_active(), words, rows, row_words,
                               <int64_t *>call.store.c, &stop, c.bitops_get_num_threads())
    check_stop(&stop)
    return total if axis is None else counts


cdef bint has_padding_bits(const uint64_t *words, size_t rows, size_t k) noexcept:
    """Whether a bit is set after the k bits of a row."""
    cdef size_t k_words = c.bitops_words(k), row
    cdef uint64_t last = 0
    for row in range(rows if k % 64 else 0):
        last |= words[(row + 1) * k_words - 1]
    return k % 64 != 0 and last >> (k % 64) != 0


def usual_words(type cls, object words, object shape):
    """Adopt contiguous words without padding bits, or return None if something is unusual."""
    cdef memory found
    cdef tuple sizes
    cdef size_t k, k_words
    cdef Py_ssize_t last
    if not is_array(words, UINT64) or type(shape) is not tuple:
        return None
    sizes = shape
    last = len(sizes) - 1
    for size in sizes:
        if type(size) is not int or not 0 < size <= MAX_BITS:
            return None
    if last < 0:
        return None
    k = sizes[last]
    k_words = c.bitops_words(k)
    if not find_memory(<PyObject *>words, (*sizes[:last], k_words), False, &found):
        return None
    if has_padding_bits(<const uint64_t *>found.start, found.nbytes // (8 * k_words), k):
        return None
    # An array object of our own, so that nobody else can set its shape.
    return make_bits(cls, words.view(), sizes, last)
