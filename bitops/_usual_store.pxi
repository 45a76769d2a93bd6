# What the usual product or convolution stores: scales, thresholds, bits. See _usual.pxi.

cdef tuple NUMBERS = (int, float, numpy.float32, numpy.float64, numpy.int32, numpy.int64)
cdef tuple INTEGERS = (int, numpy.int32, numpy.int64)

cdef enum:
    MOST_NUMBERS = 1 << 16  # that are converted or repeated on the way

# Integers that may be beyond those that float64 holds.
cdef tuple WHOLE = (int, numpy.int64)
cdef object EXACT = 1 << 53


cdef object new_numbers(PyArray_Descr *dtype, tuple shape, size_t *count):
    """Return an uninitialised array and the count of its elements; None if that is large."""
    cdef double size = 1
    for item in shape:
        size *= <size_t>item
    if size > MOST_NUMBERS:
        return None
    count[0] = <size_t>size
    return empty(shape, <object>dtype)


cdef object ready_numbers(object given, tuple shape):
    """Return float32 numbers for one number, or for float64 ones; else what is given."""
    cdef float *out
    cdef const double *numbers
    cdef double value
    cdef size_t i, count
    cdef memory found
    cdef bint converts = is_array(given, FLOAT64)
    if given is None or is_array(given, FLOAT32) or not (converts or type(given) in NUMBERS):
        return given
    if converts and not find_memory(<PyObject *>given, shape, False, &found):
        return given
    if type(given) in WHOLE and not -EXACT <= given <= EXACT:
        return given
    array = new_numbers(FLOAT32, shape, &count)
    if array is None:
        return given
    out = <float *>PyArray_DATA(<PyArrayObject *><PyObject *>array)
    if converts:
        numbers = <const double *>found.start
        for i in range(count):
            out[i] = <float>numbers[i]
    else:
        value = given
        for i in range(count):
            out[i] = <float>value
    return array


cdef object ready_threshold(object threshold, tuple shape):
    """Return int32 for one integer or for int64 ones, each the nearest; else what is given."""
    cdef int32_t *out
    cdef const int64_t *numbers = NULL
    cdef int64_t value = 0
    cdef size_t i, count
    cdef memory found
    cdef bint converts = is_array(threshold, INT64)
    if not (converts or type(threshold) in INTEGERS):
        return threshold
    if converts and not find_memory(<PyObject *>threshold, shape, False, &found):
        return threshold
    if not converts and not -EXACT <= threshold <= EXACT:
        return threshold
    array = new_numbers(INT32, shape, &count)
    if array is None:
        return threshold
    out = <int32_t *>PyArray_DATA(<PyArrayObject *><PyObject *>array)
    if converts:
        numbers = <const int64_t *>found.start
    else:
        value = threshold
    for i in range(count):
        out[i] = <int32_t>min(max(numbers[i] if converts else value, -MAX_BITS - 1), MAX_BITS)
    return array


cdef object ready_flip(object flip):
    """Return packed bits for bools; else what is given."""
    if not is_array(flip, BOOL):
        return flip
    bits = usual_pack(flip, -1)
    return flip if bits is None else bits


cdef tuple ready_factors(int kind, tuple factors, tuple shape):
    """Return the factors of find_store with numbers converted to the types that kernels read."""
    cdef Py_ssize_t last = len(shape) - 1
    if kind == c.BITOPS_STORE_SIGN:
        threshold, flip = factors
        return ready_threshold(threshold, shape[last:]), ready_flip(flip)
    if kind != c.BITOPS_STORE_DOT:
        return factors
    alpha, k_map, bias = factors
    if alpha is None and k_map is None and bias is None:
        return factors
    return (ready_numbers(alpha, shape[last:]), ready_numbers(k_map, shape[:last]),
            ready_numbers(bias, shape[last:]))


cdef bint find_scale(usual_call *call, object scale, tuple shape, const float **out) except -1:
    """Fill in one scale, which may be None; returns whether it can be read as it lies."""
    if scale is None:
        return True
    out[0] = <const float *>find_read(call, scale, FLOAT32, shape)
    return out[0] != NULL


cdef bint find_scales(usual_call *call, tuple factors, tuple shape) except -1:
    """Fill in (alpha, k_map, bias); returns whether they can be read as they lie."""
    cdef Py_ssize_t last = len(shape) - 1
    alpha, k_map, bias = factors
    if alpha is None and k_map is None and bias is None:
        return True
    call.store.kind = c.BITOPS_STORE_SCALED
    return (find_scale(call, alpha, shape[last:], &call.store.alpha)
            and find_scale(call, k_map, shape[:last], &call.store.k_map)
            and find_scale(call, bias, shape[last:], &call.store.bias))


cdef bint find_thresholds(usual_call *call, tuple factors, tuple shape) except -1:
    """Fill in (threshold, flip); returns whether they can be read as they lie."""
    cdef tuple columns = shape[len(shape) - 1:]
    threshold, flip = factors
    call.store.threshold = <const int32_t *>find_read(call, threshold, INT32, columns)
    if call.store.threshold == NULL or flip is None:
        return call.store.threshold != NULL
    if not isinstance(flip, Bits) or (<Bits>flip).shape != columns:
        return False
    call.store.flip = find_bits(call, flip, 1)
    return call.store.flip != NULL


cdef object find_store(usual_call *call, int kind, tuple factors, tuple shape, object out):
    """Fill in the store for a result of this shape; returns the array to fill, or None."""
    cdef Py_ssize_t last = len(shape) - 1
    cdef object n = shape[last]
    call.store.kind = <c.bitops_store_kind>kind
    call.store.ldc = n
    if kind == c.BITOPS_STORE_SIGN:
        call.store.ldc = c.bitops_words(n)
        if not find_thresholds(call, factors, shape):
            return None
        return find_result(call, None, UINT64, (*shape[:last], call.store.ldc))
    if kind == c.BITOPS_STORE_HAMMING16:
        return None if call.store.k > 65535 else find_result(call, out, UINT16, shape)
    if kind == c.BITOPS_STORE_HAMMING:
        return find_result(call, out, INT32, shape)
    if not find_scales(call, factors, shape):
        return None
    return find_result(call, out, INT32 if call.store.kind == c.BITOPS_STORE_DOT else FLOAT32,
                       shape)


cdef object deliver(usual_call *call, object array, tuple shape):
    """What a function returns: the array, or the bits that it holds."""
    if call.store.kind != c.BITOPS_STORE_SIGN:
        return array
    return make_bits(bits_class, array, shape, len(shape) - 1)
