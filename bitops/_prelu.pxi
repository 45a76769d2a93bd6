# Activations with learned shifts and slopes; operations.h states the steps. Included by _core.pyx.
#
# x and dy are matrices (rows, n); shift, slope and offset have n entries, or are None.


cdef int check_prelu(const float[:, ::1] x, const float[::1] shift, const float[::1] slope,
                     const float[::1] offset, c.bitops_prelu *prelu_out) except -1:
    """Check the arrays of an activation, and fill in their pointers."""
    memset(prelu_out, 0, sizeof(prelu_out[0]))
    for name, array in (("shift", shift), ("slope", slope), ("offset", offset)):
        if array is not None:
            check_size(name, array.shape[0], x.shape[1])
    if x.shape[1] == 0:
        return 0
    if shift is not None:
        prelu_out.shift = &shift[0]
    if slope is not None:
        prelu_out.slope = &slope[0]
    if offset is not None:
        prelu_out.offset = &offset[0]
    return 0


def prelu_values(const float[:, ::1] x, const float[::1] shift, const float[::1] slope not None,
                 const float[::1] offset, float[:, ::1] y_out):
    """Compute the outputs.

    Parameters
    ----------
    x : IN, shape (rows, n)
    shift, slope, offset : IN; but for slope, or None
    y_out : OUT, shape (rows, n)
    """
    cdef c.bitops_prelu prelu
    cdef c.bitops_stop stop = at_signals()
    check_prelu(x, shift, slope, offset, &prelu)
    check_same("y_out", x, y_out.shape[0], y_out.shape[1])
    if x.shape[0] == 0 or x.shape[1] == 0:
        return
    with nogil:
        c.bitops_prelu_values(c.bitops_isa_active(), &prelu, &x[0, 0], x.shape[0], x.shape[1],
                              &y_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


def prelu_gradient(const float[:, ::1] x, const float[:, ::1] dy, const float[::1] shift not None,
                   const float[::1] slope, float[:, ::1] dx_out, double[:, ::1] sums_out):
    """Compute the gradient of x, and sums over the rows.

    Parameters
    ----------
    x, dy : IN, shape (rows, n)
    shift, slope : IN; without a slope, the activation is a sign
    dx_out : OUT, shape (rows, n)
    sums_out : OUT, shape (3, n), or (1, n) without a slope
        Sums of dx; of dy * z where z < 0; of dy.
    """
    cdef c.bitops_prelu prelu
    cdef c.bitops_stop stop = at_signals()
    cdef Scratch workspace
    check_prelu(x, shift, slope, None, &prelu)
    check_same("dy", x, dy.shape[0], dy.shape[1])
    check_same("dx_out", x, dx_out.shape[0], dx_out.shape[1])
    check_size("rows of sums_out", sums_out.shape[0], 1 if slope is None else 3)
    check_size("columns of sums_out", sums_out.shape[1], x.shape[1])
    if x.shape[0] == 0 or x.shape[1] == 0:
        sums_out[:, :] = 0
        return
    workspace = make_scratch(c.bitops_prelu_workspace_size(x.shape[0], x.shape[1]) * sizeof(float))
    with nogil:
        c.bitops_prelu_gradient(c.bitops_isa_active(), &prelu, &x[0, 0], &dy[0, 0], x.shape[0],
                                x.shape[1], &dx_out[0, 0], <float *>workspace.start,
                                &sums_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)
