# Batch normalisation for training; operations.h states the steps. Included by _core.pyx.
#
# Rows of `norm` are mean, inv_std, gamma and beta of every column; for a gradient, by_xhat, less and
# factor follow. x and dy are matrices (rows, n), bits have ceil(n / 64) words for each row. For a
# gradient, x is float32, or int16 of the same values.


cdef int check_norm(const float[:, ::1] x, const float[:, ::1] norm, bint relu,
                    c.bitops_norm *norm_out, bint powers=False) except -1:
    """Check the arrays of `norm`, and fill in their pointers."""
    cdef Py_ssize_t count = norm.shape[0]
    memset(norm_out, 0, sizeof(norm_out[0]))
    check_size("columns of norm", norm.shape[1], x.shape[1])
    norm_out.relu, norm_out.powers = relu, powers
    if x.shape[1] == 0:
        return 0
    if count < 4:
        raise ValueError(f"[_core] norm must have four rows, or seven for a gradient, got {count}")
    norm_out.mean, norm_out.inv_std = &norm[0, 0], &norm[1, 0]
    norm_out.gamma, norm_out.beta = &norm[2, 0], &norm[3, 0]
    if count >= 7:
        norm_out.by_xhat, norm_out.less, norm_out.factor = &norm[4, 0], &norm[5, 0], &norm[6, 0]
    return 0


cdef const uint64_t *words_of(str name, const float[:, ::1] x,
                              const uint64_t[:, ::1] words) except? NULL:
    """Check the words of a matrix of bits of the shape of x."""
    check_size(f"rows of {name}", words.shape[0], x.shape[0])
    check_size(f"words of a row of {name}", words.shape[1], c.bitops_words(x.shape[1]))
    return &words[0, 0] if x.shape[0] and x.shape[1] else NULL


cdef int check_same(str name, const float[:, ::1] x, Py_ssize_t rows, Py_ssize_t n) except -1:
    check_size(f"rows of {name}", rows, x.shape[0])
    check_size(f"columns of {name}", n, x.shape[1])
    return 0


cdef c.bitops_norm_kept kept_of(object x, const float[:, ::1] dy) except *:
    """Check what was kept for a gradient against it."""
    cdef const float[:, ::1] numbers
    cdef const int16_t[:, ::1] halves
    cdef c.bitops_norm_kept kept
    memset(&kept, 0, sizeof(kept))
    check_same("x", dy, x.shape[0], x.shape[1])
    if x.dtype == numpy.int16:
        halves = x
        kept.x16 = <const int16_t *>first(halves)
    else:
        numbers = x
        kept.x = <const float *>first(numbers)
    return kept


def norm_narrow(const float[:, ::1] x, int16_t[:, ::1] x16_out):
    """Write x as int16; returns whether all numbers stay the same, else some are not written.

    Parameters
    ----------
    x : IN, shape (rows, n)
    x16_out : OUT, shape (rows, n)
    """
    cdef int same
    check_same("x16_out", x, x16_out.shape[0], x16_out.shape[1])
    if x.shape[0] == 0 or x.shape[1] == 0:
        return True
    with nogil:
        same = c.bitops_norm_narrow(&x[0, 0], x.shape[0] * x.shape[1], &x16_out[0, 0],
                                    c.bitops_get_num_threads())
    return same != 0


def norm_sums(const float[:, ::1] x, bint relu, double[::1] sum_out, const float[::1] mean=None,
              bint powers=False):
    """Sum x, or max(x, 0), of every column, or the squares of the differences c to a mean.

    Parameters
    ----------
    x : IN, shape (rows, n)
    relu : bool
    sum_out : OUT, shape (n,)
    mean : IN, shape (n,), or None
    powers : bool
        Whether c * AP2(c) takes the place of squares.
    """
    cdef c.bitops_norm norm
    cdef c.bitops_stop stop = at_signals()
    cdef Scratch workspace
    memset(&norm, 0, sizeof(norm))
    norm.relu, norm.powers = relu, powers
    check_size("sum_out", sum_out.shape[0], x.shape[1])
    if mean is not None:
        check_size("mean", mean.shape[0], x.shape[1])
    if x.shape[0] == 0 or x.shape[1] == 0:
        sum_out[:] = 0
        return
    if mean is not None:
        norm.mean = &mean[0]
    workspace = make_scratch(c.bitops_norm_workspace_size(x.shape[0], x.shape[1]) * sizeof(float))
    with nogil:
        c.bitops_norm_sums(c.bitops_isa_active(), &norm, &x[0, 0], x.shape[0], x.shape[1],
                           <float *>workspace.start, &sum_out[0], &stop,
                           c.bitops_get_num_threads())
    check_stop(&stop)


def norm_products(x, const float[:, ::1] dy, const float[:, ::1] norm, bint relu,
                  double[:, ::1] sums_out, const uint64_t[:, ::1] within=None, bint powers=False):
    """Sum dy * xhat and dy of every column.

    Parameters
    ----------
    x, dy : IN, shape (rows, n)
    norm : IN
    relu : bool
    sums_out : OUT, shape (2, n)
    within : IN, bits of the dy that count, or None
    powers : bool
        Whether AP2(xhat) takes the place of xhat.
    """
    cdef c.bitops_norm args
    cdef c.bitops_stop stop = at_signals()
    cdef const uint64_t *bits = NULL
    cdef Scratch workspace
    cdef c.bitops_norm_kept kept = kept_of(x, dy)
    check_norm(dy, norm, relu, &args, powers)
    check_size("rows of sums_out", sums_out.shape[0], 2)
    check_size("columns of sums_out", sums_out.shape[1], dy.shape[1])
    if within is not None:
        bits = words_of("within", dy, within)
    if dy.shape[0] == 0 or dy.shape[1] == 0:
        sums_out[:, :] = 0
        return
    workspace = make_scratch(c.bitops_norm_workspace_size(dy.shape[0], dy.shape[1])
                             * sizeof(float))
    with nogil:
        c.bitops_norm_products(c.bitops_isa_active(), &args, kept, &dy[0, 0], bits, dy.shape[0],
                               dy.shape[1], <float *>workspace.start, &sums_out[0, 0], &stop,
                               c.bitops_get_num_threads())
    check_stop(&stop)


def norm_values(const float[:, ::1] x, const float[:, ::1] norm, bint relu,
                float[:, ::1] y_out):
    """Normalise x.

    Parameters
    ----------
    x : IN, shape (rows, n)
    norm : IN
    relu : bool
    y_out : OUT, shape (rows, n)
    """
    cdef c.bitops_norm args
    cdef c.bitops_stop stop = at_signals()
    check_norm(x, norm, relu, &args)
    check_same("y_out", x, y_out.shape[0], y_out.shape[1])
    if x.shape[0] == 0 or x.shape[1] == 0:
        return
    with nogil:
        c.bitops_norm_values(c.bitops_isa_active(), &args, &x[0, 0], x.shape[0], x.shape[1],
                             &y_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


def norm_signs(const float[:, ::1] x, float limit, uint64_t[:, ::1] signs_out,
               uint64_t[:, ::1] within_out, const float[:, ::1] norm=None, bint relu=False):
    """Pack the signs of x, or of what it is normalised to; returns whether there is a NaN.

    Parameters
    ----------
    x : IN, shape (rows, n)
    limit : float
    signs_out : OUT, bits
    within_out : OUT, bits of the numbers whose magnitude is at most limit
    norm : IN, or None
    relu : bool
    """
    cdef c.bitops_norm args
    cdef const c.bitops_norm *given = NULL
    cdef c.bitops_stop stop = at_signals()
    cdef int nan
    if norm is not None:
        check_norm(x, norm, relu, &args)
        given = &args
    words_of("signs_out", x, signs_out)
    words_of("within_out", x, within_out)
    if x.shape[0] == 0 or x.shape[1] == 0:
        return False
    with nogil:
        nan = c.bitops_norm_signs(c.bitops_isa_active(), given, &x[0, 0], x.shape[0], x.shape[1],
                                  limit, &signs_out[0, 0], &within_out[0, 0], &stop,
                                  c.bitops_get_num_threads())
    check_stop(&stop)
    return nan != 0


def norm_positives(const float[:, ::1] x, float[:, ::1] y_out, uint64_t[:, ::1] positive_out,
                   const float[:, ::1] norm=None, bint relu=False):
    """Compute max(x, 0), or that of what x is normalised to.

    Parameters
    ----------
    x : IN, shape (rows, n)
    y_out : OUT, shape (rows, n)
    positive_out : OUT, bits of the numbers above 0
    norm : IN, or None
    relu : bool
        Whether max(x, 0) is normalised.
    """
    cdef c.bitops_norm args
    cdef const c.bitops_norm *given = NULL
    cdef c.bitops_stop stop = at_signals()
    if norm is not None:
        check_norm(x, norm, relu, &args)
        given = &args
    check_same("y_out", x, y_out.shape[0], y_out.shape[1])
    words_of("positive_out", x, positive_out)
    if x.shape[0] == 0 or x.shape[1] == 0:
        return
    with nogil:
        c.bitops_norm_positives(c.bitops_isa_active(), given, &x[0, 0], x.shape[0], x.shape[1],
                                &y_out[0, 0], &positive_out[0, 0], &stop,
                                c.bitops_get_num_threads())
    check_stop(&stop)


def norm_gradient(x, const float[:, ::1] dy, const float[:, ::1] norm, bint relu,
                  float[:, ::1] dx_out, const uint64_t[:, ::1] within=None, bint powers=False):
    """Compute the gradient of x.

    Parameters
    ----------
    x, dy : IN, shape (rows, n)
    norm : IN, of seven rows
    relu : bool
    dx_out : OUT, shape (rows, n)
    within : IN, bits of the dy that count, or None
    powers : bool
        Whether AP2(xhat) takes the place of xhat.
    """
    cdef c.bitops_norm args
    cdef c.bitops_stop stop = at_signals()
    cdef const uint64_t *bits = NULL
    cdef c.bitops_norm_kept kept = kept_of(x, dy)
    check_norm(dy, norm, relu, &args, powers)
    check_size("rows of norm", norm.shape[0], 7)
    check_same("dx_out", dy, dx_out.shape[0], dx_out.shape[1])
    if within is not None:
        bits = words_of("within", dy, within)
    if dy.shape[0] == 0 or dy.shape[1] == 0:
        return
    with nogil:
        c.bitops_norm_gradient(c.bitops_isa_active(), &args, kept, &dy[0, 0], bits, dy.shape[0],
                               dy.shape[1], &dx_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


def keep_within(const float[:, ::1] x, const uint64_t[:, ::1] within, float[:, ::1] y_out):
    """Multiply x by bits that stand for 0 and 1.

    Parameters
    ----------
    x : IN, shape (rows, n)
    within : IN, bits
    y_out : OUT, shape (rows, n)
    """
    cdef c.bitops_stop stop = at_signals()
    cdef const uint64_t *bits = words_of("within", x, within)
    check_same("y_out", x, y_out.shape[0], y_out.shape[1])
    if x.shape[0] == 0 or x.shape[1] == 0:
        return
    with nogil:
        c.bitops_keep_within(c.bitops_isa_active(), &x[0, 0], bits, x.shape[0], x.shape[1],
                             &y_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)
