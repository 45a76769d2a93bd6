# Convolutions of float32 with float32. Included by _core.pyx.


cdef extern from "drivers/float_conv.h" nogil:
    ctypedef struct bitops_float_conv_args:
        c.bitops_image image
        size_t images
        size_t n
        const float *panels
        const float *alpha
        const float *bias
        int relu

    size_t bitops_float_panels_size(size_t n, size_t k) noexcept
    void bitops_float_panels(const float *w, size_t n, size_t k, float *panels_out) noexcept
    size_t bitops_float_conv_workspace_size(const bitops_float_conv_args *args,
                                            int n_threads) noexcept
    void bitops_float_conv(const c.bitops_isa *isa, const bitops_float_conv_args *args,
                           const float *x, float *y, void *workspace, c.bitops_stop *stop,
                           int n_threads) noexcept


cdef class FloatPanels:
    """The filters of a float32 convolution in the order in which `float_conv` reads them.

    Parameters
    ----------
    w : IN, shape (n, k)
        A row for each filter, of at least one number, in the order (kh, kw, c).
    """

    cdef const c.bitops_isa *isa  # whose kernel reads them
    cdef Scratch memory
    cdef readonly size_t n
    cdef readonly size_t k

    def __cinit__(self, const float[:, ::1] w):
        self.isa = c.bitops_isa_active()
        self.n, self.k = w.shape[0], w.shape[1]
        if self.n == 0 or self.k == 0:
            raise ValueError(f"[_core] filters must not be empty, got {self.n} of {self.k} numbers")
        self.memory = make_scratch(bitops_float_panels_size(self.n, self.k) * sizeof(float))
        bitops_float_panels(&w[0, 0], self.n, self.k, <float *>self.memory.start)


def float_panels(const float[:, ::1] w):
    """Return FloatPanels; None if the ISA in force has no kernel that would read them."""
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef FloatPanels panels
    if isa.conv_f32 == NULL:
        return None
    panels = FloatPanels(w)
    panels.isa = isa
    return panels


cdef int set_float_conv(size_t images, object window, size_t channels, FloatPanels panels,
                        bitops_float_conv_args *args) except -1:
    """Fill in all but what becomes of the sums."""
    memset(args, 0, sizeof(args[0]))
    set_window(window, channels, False, &args.image)
    check_size("numbers of a filter", panels.k,
               args.image.kernel_height * args.image.kernel_width * channels)
    args.images, args.n = images, panels.n
    args.panels = <float *>panels.memory.start
    return 0


def float_conv(const float[:, :, :, ::1] x, object window, FloatPanels panels not None,
               float[:, :, :, ::1] y_out):
    """Convolve images with filters, with zeros outside; their ISA must have a kernel.

    Parameters
    ----------
    x : IN, shape (n, h, w, c), no size 0
    window : tuple
        A Window of geometry.py.
    panels : FloatPanels
    y_out : OUT, shape (n, oh, ow, filters)
    """
    cdef bitops_float_conv_args args
    cdef const c.bitops_isa *isa = panels.isa
    cdef c.bitops_stop stop = at_signals()
    cdef int n_threads = c.bitops_get_num_threads()
    cdef Scratch workspace
    if isa.conv_f32 == NULL:
        raise ValueError(f"[_core] {isa.name.decode()} has no kernel for float_conv")
    set_float_conv(x.shape[0], window, x.shape[3], panels, &args)
    check_size("height", x.shape[1], args.image.height)
    check_size("width", x.shape[2], args.image.width)
    check_size("images of y_out", y_out.shape[0], x.shape[0])
    check_size("height of y_out", y_out.shape[1], args.image.out_height)
    check_size("width of y_out", y_out.shape[2], args.image.out_width)
    check_size("filters of y_out", y_out.shape[3], panels.n)
    if x.shape[0] == 0:
        return
    workspace = make_scratch(bitops_float_conv_workspace_size(&args, n_threads))
    with nogil:
        bitops_float_conv(isa, &args, &x[0, 0, 0, 0], &y_out[0, 0, 0, 0], workspace.start, &stop,
                          n_threads)
    check_stop(&stop)
