# Plans: chains of layers that run without Python between them. Included by _core.pyx.


cdef extern from "drivers/plan.h" nogil:
    ptrdiff_t BITOPS_PLAN_INPUT, BITOPS_PLAN_OUTPUT

    ctypedef enum bitops_step_kind:
        BITOPS_STEP_GEMM
        BITOPS_STEP_CONV
        BITOPS_STEP_MIXED
        BITOPS_STEP_FLOATS
        BITOPS_STEP_FILTERS
        BITOPS_STEP_COMPARE
        BITOPS_STEP_AFFINE
        BITOPS_STEP_ADD
        BITOPS_STEP_UNPACK
        BITOPS_STEP_POOL
        BITOPS_STEP_FLATTEN
        BITOPS_STEP_MEAN
        BITOPS_STEP_CLIP
        BITOPS_STEP_PRELU
        BITOPS_STEP_CONCAT
        BITOPS_STEP_ROUND
        BITOPS_STEP_COUNT
        BITOPS_STEP_SCALE
        BITOPS_STEP_TIMES
        BITOPS_STEP_PAD
        BITOPS_STEP_SUM
        BITOPS_STEP_K_MAP

    ctypedef struct bitops_step:
        bitops_step_kind kind
        ptrdiff_t x, other, y
        c.bitops_dtype dtype
        size_t rows, n
        c.bitops_gemm_args gemm
        c.bitops_conv_args conv
        int has_k_map
        c.bitops_mixed_args mixed
        bitops_float_conv_args float_conv
        c.bitops_image image
        size_t images
        size_t pixel_bytes
        const float *threshold
        const uint64_t *flip
        const uint64_t *minimum
        const float *alpha
        const float *bias
        int relu
        float low
        float high
        int32_t factors[2]
        const void *levels
        int (*multiply)(void *matrix, const float *rows, size_t m, size_t k, size_t n,
                        float *products_out) except -1 nogil
        void *matrix
        size_t k
        const int64_t *block_ends
        size_t blocks

    ctypedef struct bitops_plan:
        const c.bitops_isa *isa
        const bitops_step *steps
        size_t count
        size_t arena_bytes

    size_t bitops_plan_memory_size(const bitops_plan *plan, int n_threads) noexcept
    int bitops_plan_run(const bitops_plan *plan, const void *x, void *y, void *memory,
                        c.bitops_stop *stop, int n_threads) noexcept

cdef extern from "Python.h":
    int PyBUF_SIMPLE, PyBUF_WRITABLE, PyBUF_READ, PyBUF_WRITE
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)
    int PyObject_GetBuffer(object x, Py_buffer *view, int flags) except -1
    void PyBuffer_Release(Py_buffer *view) noexcept

cdef enum:
    MOST_SPARE = 16 << 20  # bytes

PLAN_INPUT = BITOPS_PLAN_INPUT
PLAN_OUTPUT = BITOPS_PLAN_OUTPUT


cdef int multiply_in_python(void *matrix, const float *rows, size_t m, size_t k, size_t n,
                            float *products_out) except -1 nogil:
    """Let a Python object multiply; an exception is set if it raises one."""
    with gil:
        (<object>matrix)(PyMemoryView_FromMemory(<char *>rows, m * k * sizeof(float), PyBUF_READ),
                         PyMemoryView_FromMemory(<char *>products_out, m * n * sizeof(float),
                                                 PyBUF_WRITE))
    return 0


cdef class LookupPanels:
    """The rows of a packed matrix in the order of lookups of the ISA in force.

    Parameters
    ----------
    w : IN, shape (n, k_words)
    """

    cdef const c.bitops_isa *isa
    cdef Scratch memory
    cdef readonly size_t n
    cdef readonly size_t k_words

    def __cinit__(self, const uint64_t[:, ::1] w):
        cdef size_t size
        self.isa = c.bitops_isa_active()
        self.n, self.k_words = w.shape[0], w.shape[1]
        size = c.bitops_lookup_panels_size(self.n, self.k_words) * sizeof(uint32_t)
        self.memory = make_scratch(size)
        memset(self.memory.start, 0, size)
        if self.n and self.k_words:
            c.bitops_lookup_panels_all(self.isa, &w[0, 0], self.k_words, self.n, self.k_words,
                                       <uint32_t *>self.memory.start)


cdef class SpareMemory:
    """Memory that one call of a plan leaves for the next: new pages cost more than many a step."""

    cdef Scratch memory

    cdef Scratch take(self, size_t size):
        """Return the memory, or new memory: calls of other threads find none until `leave`."""
        cdef Scratch memory
        with critical_section(self):  # where there is no GIL
            memory = self.memory
            self.memory = None
        return make_scratch(size) if memory is None or memory.size < size else memory

    cdef int leave(self, Scratch memory) except -1:
        if memory.size <= MOST_SPARE:
            with critical_section(self):
                self.memory = memory
        return 0


class OtherIsa(ValueError):
    """Weights are not in the order of a plan's ISA: the one in force was changed in between."""


cdef class Plan:
    """Steps that run one after the other, for inputs of one size and the ISA in force.

    The methods add steps. `x`, `other` and `y` are places of operands: PLAN_INPUT, PLAN_OUTPUT, or
    an offset in bytes into the memory for activations, a multiple of 64. All sizes are at least 1.
    The caller answers for places and for the sizes that the steps have in common; weights, scales
    and thresholds are checked.

    Parameters
    ----------
    x_bytes, y_bytes : int
        Of input and output.
    arena_bytes : int
        Of the activations between the steps.
    spare : SpareMemory
        Of all plans of a model.
    """

    cdef Scratch steps
    cdef bitops_plan plan
    cdef Py_ssize_t x_bytes, y_bytes
    cdef list kept  # whose memory the steps point to
    cdef SpareMemory spare

    def __cinit__(self, size_t x_bytes, size_t y_bytes, size_t arena_bytes,
                  SpareMemory spare not None):
        self.kept, self.spare = [], spare
        self.x_bytes, self.y_bytes = x_bytes, y_bytes
        self.plan.isa = c.bitops_isa_active()
        self.plan.arena_bytes = arena_bytes

    cdef bitops_step *add_step(self, bitops_step_kind kind, ptrdiff_t x, ptrdiff_t y) except NULL:
        cdef size_t size = self.plan.count * sizeof(bitops_step)
        cdef Scratch steps = make_scratch(size + sizeof(bitops_step))
        cdef bitops_step *step = <bitops_step *>steps.start + self.plan.count
        if size:
            memcpy(steps.start, self.plan.steps, size)
        memset(step, 0, sizeof(bitops_step))
        step.kind, step.x, step.y = kind, x, y
        self.steps = steps
        self.plan.steps = <bitops_step *>steps.start
        self.plan.count += 1
        return step

    cdef int check_isa(self, const c.bitops_isa *isa) except -1:
        """Refuse weights in the order of another ISA: the one in force may change at any time."""
        if isa != self.plan.isa:
            raise OtherIsa(f"[_core] weights must be in the order of the ISA of the plan, "
                           f"{self.plan.isa.name.decode()}, got {isa.name.decode()}")
        return 0

    cdef int set_outputs(self, c.bitops_store *store, size_t n, const float[::1] alpha,
                         const float[::1] bias, const int32_t[::1] threshold,
                         const uint64_t[::1] flip) except -1:
        """Say what becomes of dot products: bits, scaled numbers, or the numbers themselves."""
        store.ldc = n
        if threshold is not None:
            check_size("threshold", threshold.shape[0], n)
            store.kind = c.BITOPS_STORE_SIGN
            store.ldc = c.bitops_words(n)
            store.threshold = &threshold[0]
            store.flip = self.words("flip", flip, n)
        elif alpha is None and bias is None:
            store.kind = c.BITOPS_STORE_DOT
        else:
            store.kind = c.BITOPS_STORE_SCALED
            store.alpha = scales("alpha", alpha, n)
            store.bias = scales("bias", bias, n)
        self.kept += [alpha, bias, threshold, flip]
        return 0

    cdef const uint64_t *words(self, str name, const uint64_t[::1] bits, size_t n) except? NULL:
        """The words of n bits; NULL for None."""
        if bits is None:
            return NULL
        check_size(name, bits.shape[0], c.bitops_words(n))
        self.kept.append(bits)
        return &bits[0]

    cdef const float *floats(self, str name, const float[::1] values, size_t n) except? NULL:
        """n numbers; NULL for None."""
        self.kept.append(values)
        return scales(name, values, n)

    def gemm(self, ptrdiff_t x, ptrdiff_t y, size_t m, Panels w not None,
             const uint64_t[:, ::1] rows, int32_t k, alpha, bias, threshold, flip):
        """Rows of bits times weights: dot products, scaled numbers, or bits.

        Parameters
        ----------
        m, k : int
            Rows of x, and bits of a row.
        w : Panels
        rows : IN, the rows of w as they lie, shape (n, ceil(k / 64))
        alpha, bias : IN, float32 of shape (n,), or None
        threshold : IN, int32 of shape (n,), or None
        flip : IN, packed bits of shape (ceil(n / 64),), or None
        """
        check_size("words of a row of w", w.k_words, c.bitops_words(k))
        check_size("groups of panels", w.groups, 1)
        check_size("rows", rows.shape[0], w.n)
        check_size("words of a row of rows", rows.shape[1], w.k_words)
        self.check_isa(w.isa)
        cdef bitops_step *step = self.add_step(BITOPS_STEP_GEMM, x, y)
        step.gemm.m, step.gemm.n, step.gemm.k_words = m, w.n, w.k_words
        step.gemm.lda = step.gemm.ldw = w.k_words
        step.gemm.panels = w.words
        step.gemm.w = <const uint64_t *>first(rows)
        step.gemm.store.k = k
        self.kept += [w, rows]
        self.set_outputs(&step.gemm.store, w.n, alpha, bias, threshold, flip)

    def conv(self, ptrdiff_t x, ptrdiff_t y, size_t images, Convolution convolution not None, alpha,
             bias, threshold, flip):
        """Images of bits convolved with filters; outputs as those of `gemm`."""
        self.check_isa(convolution.isa)
        cdef bitops_step *step = self.add_step(BITOPS_STEP_CONV, x, y)
        step.conv = convolution.args
        step.conv.images = images
        self.kept.append(convolution)
        self.set_outputs(&step.conv.store, convolution.args.filters, alpha, bias, threshold, flip)

    def scaled_conv(self, ptrdiff_t x, ptrdiff_t k_map, ptrdiff_t y, size_t images,
                    Convolution convolution not None, alpha, bias):
        """The same with a scale of each output position, float32, between alpha and bias."""
        self.conv(x, y, images, convolution, alpha, bias, None, None)
        cdef bitops_step *step = <bitops_step *>self.steps.start + self.plan.count - 1
        step.conv.store.kind = c.BITOPS_STORE_SCALED
        step.other, step.has_k_map = k_map, True

    cdef bitops_step *add_mixed(self, ptrdiff_t x, ptrdiff_t y, int dtype, int bits, size_t k,
                                const uint64_t[:, ::1] w, Panels panels,
                                LookupPanels lookup) except NULL:
        cdef bitops_step *step
        if dtype != c.BITOPS_BOOL8 and dtype != c.BITOPS_F32:
            raise ValueError(f"[_core] numbers must be uint8 or float32, got dtype code {dtype}")
        check_size("words of a row of w", w.shape[1], c.bitops_words(k))
        check_size("n of lookup panels", lookup.n, w.shape[0])
        check_size("words of lookup panels", lookup.k_words, w.shape[1])
        self.check_isa(lookup.isa)
        step = self.add_step(BITOPS_STEP_MIXED, x, y)
        step.mixed.is_float = dtype == c.BITOPS_F32
        step.mixed.bits = bits
        step.mixed.k, step.mixed.n, step.mixed.ldw = k, w.shape[0], w.shape[1]
        step.mixed.w = &w[0, 0]
        step.mixed.lookup_panels = <uint32_t *>lookup.memory.start
        if panels is not None:
            check_size("n of panels", panels.n, w.shape[0])
            check_size("words of panels", panels.k_words, w.shape[1])
            self.check_isa(panels.isa)
            step.mixed.panels = panels.words
        self.kept += [w, panels, lookup]
        return step

    def mixed(self, ptrdiff_t x, ptrdiff_t y, int dtype, int bits, size_t rows, size_t k, w, panels,
              lookup, alpha, bias, threshold, flip, images=None):
        """Numbers times weights: sums, scaled numbers, or bits sum > threshold.

        Parameters
        ----------
        dtype : int
            F32, or BOOL8 for uint8.
        bits : int
            uint8 is below 2**bits.
        rows, k : int
            Rows of x, and numbers of a row; for images, what an output position sees.
        w : IN, shape (n, ceil(k / 64))
        panels, lookup : Panels or None, LookupPanels
            Of w.
        alpha, bias, threshold : IN, float32 of shape (n,), or None
        flip : IN, packed bits of shape (ceil(n / 64),), or None
        images : tuple, optional
            For a convolution: number of images, Window, channels.
        """
        cdef bitops_step *step = self.add_mixed(x, y, dtype, bits, k, w, panels, lookup)
        cdef size_t n = step.mixed.n, size = 4 if step.mixed.is_float else 1
        step.rows = rows
        step.mixed.alpha = self.floats("alpha", alpha, n)
        step.mixed.bias = self.floats("bias", bias, n)
        step.threshold = self.floats("threshold", threshold, n)
        step.flip = self.words("flip", flip, n)
        if images is not None:
            count, window, channels = images
            self.set_images(step, count, window, channels, channels * size)
            check_size("numbers of a row", k,
                       step.image.kernel_height * step.image.kernel_width * channels)

    cdef int set_images(self, bitops_step *step, size_t images, object window, size_t channels,
                        size_t pixel_bytes) except -1:
        set_window(window, channels, False, &step.image)
        step.images, step.pixel_bytes = images, pixel_bytes
        step.image.pixel_words = c.bitops_words(channels)
        return 0

    def floats_product(self, ptrdiff_t x, ptrdiff_t y, object multiply,
                       const int64_t[::1] block_ends, size_t k, size_t n, alpha, bias, bint relu,
                       images=None):
        """Rows of numbers times float32 weights, then as `affine`.

        Parameters
        ----------
        multiply : callable
            Takes the bytes of rows of k float32, and of as many rows of n to be written.
        block_ends : IN, the row after each block
            The products are made block by block.
        alpha, bias : IN, float32 of shape (n,), or None
        images : tuple, optional
            For a convolution: number of images, Window, channels. The rows are what the output
            positions see, copied to memory.
        """
        cdef bitops_step *step = self.add_step(BITOPS_STEP_FLOATS, x, y)
        step.multiply = multiply_in_python
        step.matrix = <void *>multiply
        step.block_ends, step.blocks = &block_ends[0], block_ends.shape[0]
        step.k, step.n = k, n
        step.alpha = self.floats("alpha", alpha, n)
        step.bias = self.floats("bias", bias, n)
        step.relu = relu
        self.kept += [multiply, block_ends]
        if images is not None:
            count, window, channels = images
            self.set_images(step, count, window, channels, channels * sizeof(float))
            check_size("numbers of a row", k,
                       step.image.kernel_height * step.image.kernel_width * channels)

    def float_conv(self, ptrdiff_t x, ptrdiff_t y, size_t images, window, size_t channels,
                   FloatPanels panels not None, alpha, bias, bint relu):
        """Images of float32 convolved with float32 filters, then as `affine`.

        Parameters
        ----------
        alpha, bias : IN, float32 of shape (filters,), or None
        """
        cdef bitops_step *step = self.add_step(BITOPS_STEP_FILTERS, x, y)
        if self.plan.isa.conv_f32 == NULL:
            raise OtherIsa("[_core] the ISA of the plan has no kernel for float_conv")
        set_float_conv(images, window, channels, panels, &step.float_conv)
        step.float_conv.alpha = self.floats("alpha", alpha, panels.n)
        step.float_conv.bias = self.floats("bias", bias, panels.n)
        step.float_conv.relu = relu
        self.kept.append(panels)

    def compare(self, ptrdiff_t x, ptrdiff_t y, int dtype, size_t rows, size_t n, threshold, flip):
        """Bits (x > threshold) ^ flip of rows of n numbers; x >= 0 without thresholds.

        Parameters
        ----------
        dtype : int
            I32 or F32.
        threshold : IN, float32 of shape (n,), or None
        flip : IN, packed bits of shape (ceil(n / 64),), or None
        """
        cdef bitops_step *step = self.add_step(BITOPS_STEP_COMPARE, x, y)
        step.dtype, step.rows, step.n = <c.bitops_dtype>dtype, rows, n
        step.threshold = self.floats("threshold", threshold, n)
        step.flip = self.words("flip", flip, n)

    def affine(self, ptrdiff_t x, ptrdiff_t y, int dtype, size_t rows, size_t n, alpha, bias,
               bint relu):
        """float32 x * alpha + bias, then max(0, that) if asked, for rows of n numbers I32 or F32.

        Parameters
        ----------
        alpha, bias : IN, shape (n,), or None
        """
        cdef bitops_step *step = self.add_step(BITOPS_STEP_AFFINE, x, y)
        step.dtype, step.rows, step.n = <c.bitops_dtype>dtype, rows, n
        step.alpha = self.floats("alpha", alpha, n)
        step.bias = self.floats("bias", bias, n)
        step.relu = relu

    def add(self, ptrdiff_t x, ptrdiff_t other, ptrdiff_t y, size_t n):
        """Sums of n float32."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_ADD, x, y)
        step.other, step.rows, step.n = other, 1, n

    def unpack(self, ptrdiff_t x, ptrdiff_t y, size_t rows, size_t n):
        """+1 and -1 in float32 for rows of n bits."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_UNPACK, x, y)
        step.rows, step.n = rows, n

    def pool_bits(self, ptrdiff_t x, ptrdiff_t y, size_t images, window, size_t channels, minimum):
        """The OR of each window, or the AND of the channels in `minimum`, packed bits or None."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_POOL, x, y)
        step.dtype = c.BITOPS_BOOL8
        self.set_images(step, images, window, channels, c.bitops_words(channels) * 8)
        step.minimum = self.words("minimum", minimum, channels)

    def pool_floats(self, ptrdiff_t x, ptrdiff_t y, size_t images, window, size_t channels):
        """The largest float32 of each window."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_POOL, x, y)
        step.dtype = c.BITOPS_F32
        self.set_images(step, images, window, channels, channels * sizeof(float))

    def flatten(self, ptrdiff_t x, ptrdiff_t y, size_t images, window, size_t channels):
        """Bits of images as rows without gaps; the window is as large as an image."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_FLATTEN, x, y)
        self.set_images(step, images, window, channels, c.bitops_words(channels) * 8)

    def mean_windows(self, ptrdiff_t x, ptrdiff_t y, size_t images, window, size_t channels):
        """The mean of each window of float32."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_MEAN, x, y)
        self.set_images(step, images, window, channels, channels * sizeof(float))
        step.n = channels

    def mean_images(self, ptrdiff_t x, ptrdiff_t y, size_t images, size_t positions,
                    size_t channels):
        """The means of the channels over whole images of float32; sums are made in float64."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_MEAN, x, y)
        step.images, step.rows, step.n = images, positions, channels

    def clip(self, ptrdiff_t x, ptrdiff_t y, size_t rows, size_t n, float low, float high):
        """Rows of n float32, limited to low..high."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_CLIP, x, y)
        step.rows, step.n, step.low, step.high = rows, n, low, high

    def prelu(self, ptrdiff_t x, ptrdiff_t y, size_t rows, size_t n, slope, shift, offset):
        """Rows of n float32 z = x - shift, times slope where z is negative, plus offset.

        Parameters
        ----------
        slope, shift, offset : IN, float32 of shape (n,); but for slope, or None
        """
        cdef bitops_step *step = self.add_step(BITOPS_STEP_PRELU, x, y)
        step.rows, step.n = rows, n
        step.alpha = self.floats("slope", slope, n)
        step.threshold = self.floats("shift", shift, n)
        step.bias = self.floats("offset", offset, n)

    def concat(self, ptrdiff_t x, ptrdiff_t other, ptrdiff_t y, size_t rows, size_t n, size_t k):
        """Rows of n float32, each followed by a row of k."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_CONCAT, x, y)
        step.other, step.rows, step.n, step.k = other, rows, n, k

    def round(self, ptrdiff_t x, ptrdiff_t y, size_t rows, size_t n, float largest, float codes):
        """Codes 0..codes of rows of n float32: x / largest, limited to 0..1, times codes."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_ROUND, x, y)
        step.rows, step.n, step.low, step.high = rows, n, largest, codes

    def count(self, ptrdiff_t x, ptrdiff_t y, int dtype, size_t rows, size_t n, levels):
        """How many levels of its column each number reaches, for rows of n numbers, I32 or F32.

        Parameters
        ----------
        levels : IN, shape (levels, n), of the type of x; at most 255 levels
        """
        cdef bitops_step *step
        cdef const int32_t[:, ::1] integers
        cdef const float[:, ::1] floats
        cdef const void *start
        if dtype == c.BITOPS_I32:
            integers = levels
            check_size("columns of levels", integers.shape[1], n)
            start = &integers[0, 0]
        else:
            floats = levels
            check_size("columns of levels", floats.shape[1], n)
            start = &floats[0, 0]
        step = self.add_step(BITOPS_STEP_COUNT, x, y)
        step.dtype, step.rows, step.n, step.k = <c.bitops_dtype>dtype, rows, n, levels.shape[0]
        step.levels = start
        self.kept.append(levels)

    def scale(self, ptrdiff_t x, ptrdiff_t y, size_t rows, size_t n, float value):
        """Rows of n uint8 times a number, float32."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_SCALE, x, y)
        step.rows, step.n, step.low = rows, n, value

    def times(self, ptrdiff_t x, ptrdiff_t other, ptrdiff_t y, size_t rows, size_t n, size_t k):
        """Rows of n float32 times float32, of which each row is for k rows."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_TIMES, x, y)
        step.other, step.rows, step.n, step.k = other, rows, n, k

    def sum(self, ptrdiff_t x, ptrdiff_t other, ptrdiff_t y, int dtype, size_t rows, size_t n,
            int32_t x_factor, int32_t other_factor):
        """Rows of n numbers I32 or F32 times a factor, plus others times another."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_SUM, x, y)
        step.dtype, step.other, step.rows, step.n = <c.bitops_dtype>dtype, other, rows, n
        step.factors[0], step.factors[1] = x_factor, other_factor

    def k_map(self, ptrdiff_t x, ptrdiff_t y, size_t images, window, size_t channels):
        """The scale of each output position of a convolution of float32 images, as `k_map`."""
        cdef bitops_step *step = self.add_step(BITOPS_STEP_K_MAP, x, y)
        self.set_images(step, images, window, 1, sizeof(float))
        step.n = channels

    def pad(self, ptrdiff_t x, ptrdiff_t y, size_t images, size_t height, size_t width, sides,
            const uint8_t[::1] pixel):
        """Images of pixels, and around them pixels like the one whose bytes are given.

        Parameters
        ----------
        sides : tuple
            ((top, bottom), (left, right)), in pixels.
        """
        cdef bitops_step *step = self.add_step(BITOPS_STEP_PAD, x, y)
        cdef size_t bottom, right
        (step.image.pad_top, bottom), (step.image.pad_left, right) = sides
        step.image.height, step.image.width = height, width
        step.image.out_height = step.image.pad_top + height + bottom
        step.image.out_width = step.image.pad_left + width + right
        step.pixel_bytes, step.levels = pixel.shape[0], &pixel[0]
        step.rows = images * step.image.out_height
        step.n = step.image.out_width * step.pixel_bytes
        self.kept.append(pixel)

    @property
    def is_current(self):
        """Whether the ISA in force is that of the plan."""
        return self.plan.isa == c.bitops_isa_active()

    @property
    def arena_bytes(self):
        return self.plan.arena_bytes

    def run(self, x, y_out):
        """Run all steps; returns whether a number that needs a sign was NaN.

        Parameters
        ----------
        x, y_out : IN, OUT, contiguous arrays of x_bytes and y_bytes
        """
        cdef Py_buffer x_view, y_view
        PyObject_GetBuffer(x, &x_view, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(y_out, &y_view, PyBUF_WRITABLE)
            try:
                check_size("x", x_view.len, self.x_bytes)
                check_size("y_out", y_view.len, self.y_bytes)
                return self.run_on(x_view.buf, y_view.buf)
            finally:
                PyBuffer_Release(&y_view)
        finally:
            PyBuffer_Release(&x_view)

    cdef bint run_on(self, const void *x, void *y) except -1:
        cdef int n_threads = c.bitops_get_num_threads(), nan
        cdef c.bitops_stop stop = at_signals()
        cdef size_t size = bitops_plan_memory_size(&self.plan, n_threads)
        cdef Scratch memory = self.spare.take(size)
        with nogil:
            nan = bitops_plan_run(&self.plan, x, y, memory.start, &stop, n_threads)
        self.spare.leave(memory)
        check_stop(&stop)
        return nan != 0
