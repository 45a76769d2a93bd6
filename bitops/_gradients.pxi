# Gradients of images: of products with +-1 filters, and of pools. Included by _core.pyx.


def conv_codes(object x, const uint64_t[:, ::1] w, object window, int bits,
               const float[::1] alpha, const float[::1] bias, float[:, :, :, ::1] c_out, int zero,
               int outside, int most):
    """Convolve images of codes as bitplane_gemm_scaled multiplies patches, if that is faster.

    Parameters
    ----------
    x : ndarray of shape (n, h, w, c), uint8
        If the convolution is done, it is copied unless it is contiguous.
    w : IN, shape (o, ceil(kh * kw * c / 64)), 255 * kh * kw * c < 2**31
    window : tuple
        A Window of geometry.py.
    alpha, bias : IN, shape (o,), or None
    c_out : OUT, shape (n, oh, ow, o); the bits of int32 without alpha and bias
    outside : int, in 0..255
        The code of positions outside.
    bits, zero, most
        As in bitplane_gemm, for positions outside too.

    Returns
    -------
    bool
        Whether it has been done. If not, patches are to be multiplied.
    """
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef c.bitops_image windows
    cdef c.bitops_stop stop = at_signals()
    cdef Scratch workspace
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_mixed_args args
    cdef const uint8_t[:, :, :, ::1] images
    cdef c.bitops_code_way way
    cdef size_t n, height, width, channels
    n, height, width, channels = x.shape
    if not (n and height and width and channels and w.shape[0]):
        return False
    if not (1 <= bits <= 8 and 0 <= zero <= 255 and 0 <= outside <= 255 and 0 <= most <= 255):
        raise ValueError(f"[_core] codes must fit a byte, got {bits}, {zero}, {outside}, {most}")
    set_window(window, channels, False, &windows)
    check_size("height", height, windows.height)
    check_size("width", width, windows.width)
    args = make_mixed(output_rows(n, &windows),
                      windows.kernel_height * windows.kernel_width * channels,
                      NULL, <void *>first_number(c_out))
    check_code_sums(args.k)
    args.n, args.ldw, args.stop = w.shape[0], w.shape[1], &stop
    args.bits, args.zero, args.most = bits, zero, most
    check_size("words of a row of w", w.shape[1], c.bitops_words(args.k))
    for axis, size in enumerate((n, windows.out_height, windows.out_width, w.shape[0])):
        check_size("c_out", c_out.shape[axis], size)
    args.alpha = scales("alpha", alpha, args.n)
    args.bias = scales("bias", bias, args.n)
    args.w = <const uint64_t *>first(w)
    if args.m == 0:
        return False
    way = c.bitops_choose_code_way(isa, &args, &windows, n_threads)
    if way == c.BITOPS_CODE_PATCHES:
        return False
    images = numpy.ascontiguousarray(x)
    args.x = &images[0, 0, 0, 0]
    workspace = make_scratch(
        c.bitops_conv_codes_workspace_size(way, isa, &args, &windows, n_threads))
    with nogil:
        c.bitops_conv_codes(way, isa, &args, &windows, outside, workspace.start, n_threads)
    check_stop(&stop)
    return True


cdef int run_to_images(c.bitops_mixed_args *args, const uint64_t[:, ::1] w, object window,
                       const float[::1] alpha, const float[::1] bias,
                       float[:, :, :, ::1] images_out) except -1:
    """Fill in weights and scales, check all sizes, find scratch memory and call."""
    cdef c.bitops_image windows
    cdef c.bitops_stop stop = at_signals()
    cdef Scratch workspace
    cdef int n_threads = c.bitops_get_num_threads()
    set_window(window, 1, False, &windows)
    args.n, args.ldw, args.stop = w.shape[0], w.shape[1], &stop
    check_size("words of a row of w", w.shape[1], c.bitops_words(args.k))
    check_size("rows of w", w.shape[0],
               windows.kernel_height * windows.kernel_width * <size_t>images_out.shape[3])
    check_size("rows of x", args.m, output_rows(images_out.shape[0], &windows))
    check_size("height", images_out.shape[1], windows.height)
    check_size("width", images_out.shape[2], windows.width)
    args.alpha = scales("alpha", alpha, args.n)
    args.bias = scales("bias", bias, args.n)
    if args.m == 0 or args.n == 0 or args.k == 0:
        images_out[:, :, :, :] = 0
        return 0
    args.w = <const uint64_t *>first(w)
    args.c = <float *>first_number(images_out)
    workspace = make_scratch(c.bitops_mixed_to_images_workspace_size(args, n_threads))
    with nogil:
        c.bitops_mixed_to_images(c.bitops_isa_active(), args, &windows, workspace.start, n_threads)
    return check_stop(&stop)


def weights_to_images(const float[:, ::1] x, const uint64_t[:, ::1] w, object window,
                      float[:, :, :, ::1] images_out):
    """Add the rows of x times the signs of w to the pixels that each position sees.

    Parameters
    ----------
    x : IN, shape (n * oh * ow, k), a row for each output position
    w : IN, shape (kh * kw * c, ceil(k / 64))
    window : tuple
        A Window of geometry.py.
    images_out : OUT, shape (n, h, w, c)
    """
    cdef c.bitops_mixed_args args = make_mixed(x.shape[0], x.shape[1], first(x), NULL)
    args.is_float = 1
    run_to_images(&args, w, window, None, None, images_out)


def bitplanes_to_images(const uint8_t[:, ::1] x, const uint64_t[:, ::1] w, object window,
                        const float[::1] alpha not None, const float[::1] bias not None,
                        float[:, :, :, ::1] images_out, int zero=0):
    """Do the same for 8-bit numbers, whose products are times alpha[column], plus bias[column].

    Their code of 0 is `zero`.

    Parameters
    ----------
    x : IN, shape (n * oh * ow, k), 255 * k < 2**31
    alpha, bias : IN, shape (kh * kw * c,)
    """
    cdef c.bitops_mixed_args args = make_mixed(x.shape[0], x.shape[1], first(x), NULL)
    check_code_sums(args.k)
    args.bits, args.zero = 8, zero
    run_to_images(&args, w, window, alpha, bias, images_out)


def byte_gemm(const uint8_t[:, ::1] x, int x_zero, const uint8_t[:, ::1] y,
              int32_t[:, ::1] sums):
    """Add the products (x - x_zero)^T y to sums.

    Parameters
    ----------
    x : IN, shape (k, m)
    x_zero : int, in 0..128, at most 127 less than any number of x
    y : IN, shape (k, n), at most 127
    sums : IN, OUT, shape (m, n) rounded up to multiples of 16 and 32
        They must fit. What lies beyond m and n is any number afterwards.
    """
    cdef c.bitops_byte_args args
    cdef c.bitops_stop stop = at_signals()
    cdef Scratch workspace
    cdef int n_threads = c.bitops_get_num_threads()
    args.k, args.m, args.n, args.x_zero = x.shape[0], x.shape[1], y.shape[1], x_zero
    check_size("rows of y", y.shape[0], args.k)
    check_size("rows of sums", sums.shape[0], (args.m + 15) // 16 * 16)
    check_size("columns of sums", sums.shape[1], (args.n + 31) // 32 * 32)
    if args.k == 0 or args.m == 0 or args.n == 0:
        return
    args.x, args.y, args.sums, args.stop = &x[0, 0], &y[0, 0], &sums[0, 0], &stop
    workspace = make_scratch(c.bitops_byte_gemm_workspace_size(&args, n_threads))
    with nogil:
        c.bitops_byte_gemm(c.bitops_isa_active(), &args, workspace.start, n_threads)
    check_stop(&stop)


cdef int check_pooled(object window, object x, object y, c.bitops_image *windows) except -1:
    """Fill in the windows of images of shape x, and check them and the shape y of their outputs."""
    set_window(window, 1, False, windows)
    check_size("height", x.shape[1], windows.height)
    check_size("width", x.shape[2], windows.width)
    check_size("images of the outputs", y.shape[0], x.shape[0])
    check_size("height of the outputs", y.shape[1], windows.out_height)
    check_size("width of the outputs", y.shape[2], windows.out_width)
    check_size("channels of the outputs", y.shape[3], x.shape[3])
    return 0


cdef int check_places(const c.bitops_image *windows, object window) except -1:
    if windows.kernel_height * windows.kernel_width > c.BITOPS_NO_PLACE:
        raise ValueError(
            f"[_core] windows must have at most {c.BITOPS_NO_PLACE} taps, got {window}"
        )
    return 0


def max_places(const float[:, :, :, ::1] x, const float[:, :, :, ::1] y, object window,
               uint8_t[:, :, :, ::1] places_out):
    """Find the first number of each window that is their maximum.

    Parameters
    ----------
    x : IN, shape (n, h, w, c)
    y : IN, maxima of the windows, shape (n, oh, ow, c)
    window : tuple
        A Window of geometry.py, with at most BITOPS_NO_PLACE taps. It must see some of the image
        at each position.
    places_out : OUT, shape of y
        Counted by lines; BITOPS_NO_PLACE where y is NaN.
    """
    cdef c.bitops_image windows
    cdef c.bitops_stop stop = at_signals()
    check_pooled(window, x, y, &windows)
    check_places(&windows, window)
    for i in range(4):
        check_size("places_out", places_out.shape[i], y.shape[i])
    if first_number(x) == NULL:
        return
    with nogil:
        c.bitops_max_places(&windows, first_number(x), first_number(y), x.shape[0], x.shape[3],
                            &places_out[0, 0, 0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


def max_gradient(const uint8_t[:, :, :, ::1] places, const float[:, :, :, ::1] dy, object window,
                 float[:, :, :, ::1] dx_out):
    """Give each number the sum of dy over the windows whose place it is.

    Parameters
    ----------
    places : IN, of max_places, shape (n, oh, ow, c)
    dy : IN, shape of places
    window : tuple
        As in max_places.
    dx_out : OUT, shape (n, h, w, c)
    """
    cdef c.bitops_image windows
    cdef c.bitops_stop stop = at_signals()
    check_pooled(window, dx_out, dy, &windows)
    check_places(&windows, window)
    for i in range(4):
        check_size("places", places.shape[i], dy.shape[i])
    if first_number(dy) == NULL:
        return
    with nogil:
        c.bitops_max_gradient(&windows, &places[0, 0, 0, 0], first_number(dy), dx_out.shape[0],
                              dx_out.shape[3], &dx_out[0, 0, 0, 0], &stop,
                              c.bitops_get_num_threads())
    check_stop(&stop)


def mean_gradient(const float[:, :, :, ::1] dy, object window, float[:, :, :, ::1] dx_out):
    """Give each number dy / (kh * kw) of all windows that see it.

    Parameters
    ----------
    dy : IN, shape (n, oh, ow, c)
    window : tuple
        A Window of geometry.py.
    dx_out : OUT, shape (n, h, w, c)
    """
    cdef c.bitops_image windows
    cdef c.bitops_stop stop = at_signals()
    check_pooled(window, dx_out, dy, &windows)
    if first_number(dy) == NULL:
        return
    with nogil:
        c.bitops_mean_gradient(&windows, first_number(dy), dx_out.shape[0], dx_out.shape[3],
                               &dx_out[0, 0, 0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)
