# The usual call, checked and run at once: packed operands, and a result that is new or lies where the
# kernels can write it.
#
# Every public function asks a usual_* function first. This answers None if anything is unusual: a
# large operand to be packed, strides, memory that is shared, a wrong argument. Nothing has been
# written then, and the Python function goes on, which can do it all and makes the error messages.
# So what follows knows no rule of its own: it recognizes the cases in which the Python functions
# would find nothing to do, or just numbers to be packed, converted or repeated.
import numpy

from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from cpython.type cimport PyType_IsSubtype

cdef extern from *:
    """
    #define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
    #define NPY_TARGET_VERSION NPY_2_0_API_VERSION
    """

# What is read of ndarrays: a buffer of each would take 0.1 us.
cdef extern from "numpy/arrayobject.h" nogil:
    ctypedef struct PyArrayObject:
        pass

    ctypedef struct PyArray_Descr:
        pass

    enum:
        NPY_ARRAY_CARRAY  # contiguous, aligned, writable
        NPY_ARRAY_CARRAY_RO  # or perhaps not writable

    void *PyArray_DATA(PyArrayObject *)
    int PyArray_NDIM(PyArrayObject *)
    Py_ssize_t *PyArray_DIMS(PyArrayObject *)
    PyArray_Descr *PyArray_DESCR(PyArrayObject *)
    Py_ssize_t PyArray_ITEMSIZE(PyArrayObject *)
    Py_ssize_t PyDataType_ELSIZE(PyArray_Descr *)
    bint PyArray_CHKFLAGS(PyArrayObject *, int)

cdef enum:
    NEW_BYTES = 1 << 16  # of arrays that begin at a cache line
    CACHE_LINE = 64
    MAX_BITS = 0x7fffffff  # in a row, because dot products are int32
    MOST_PACKED = 1 << 18  # bytes of an operand that is packed on the way

cdef double MOST_BYTES = 1e18  # more is left to NumPy, whose error says so
LARGE = NEW_BYTES  # memory.py aligns larger arrays, and says why
LARGEST, LINE_BYTES = int(MOST_BYTES), CACHE_LINE

cdef type ndarray = numpy.ndarray
cdef object empty = numpy.empty

# Types are compared by their address, and references to them are not counted, see find_memory.
cdef tuple DTYPES = tuple(numpy.dtype(name) for name in ("i4", "i8", "u2", "u8", "f4", "f8", "?", "u1"))
cdef PyArray_Descr *INT32 = <PyArray_Descr *><PyObject *>DTYPES[0]
cdef PyArray_Descr *INT64 = <PyArray_Descr *><PyObject *>DTYPES[1]
cdef PyArray_Descr *UINT16 = <PyArray_Descr *><PyObject *>DTYPES[2]
cdef PyArray_Descr *UINT64 = <PyArray_Descr *><PyObject *>DTYPES[3]
cdef PyArray_Descr *FLOAT32 = <PyArray_Descr *><PyObject *>DTYPES[4]
cdef PyArray_Descr *FLOAT64 = <PyArray_Descr *><PyObject *>DTYPES[5]
cdef PyArray_Descr *BOOL = <PyArray_Descr *><PyObject *>DTYPES[6]
cdef PyArray_Descr *UINT8 = <PyArray_Descr *><PyObject *>DTYPES[7]

# The types that pack takes, with their codes.
PACK_CODES = {
    numpy.dtype(numpy.bool_): BOOL8,
    numpy.dtype(numpy.int8): I8,
    numpy.dtype(numpy.int16): I16,
    numpy.dtype(numpy.int32): I32,
    numpy.dtype(numpy.int64): I64,
    numpy.dtype(numpy.float16): F16,
    numpy.dtype(numpy.float32): F32,
    numpy.dtype(numpy.float64): F64,
}
cdef dict pack_codes = PACK_CODES

# What a product or convolution gives: numbers, scaled ones if there are scales, or bits.
DOT = c.BITOPS_STORE_DOT
HAMMING = c.BITOPS_STORE_HAMMING
HAMMING16 = c.BITOPS_STORE_HAMMING16
SIGN = c.BITOPS_STORE_SIGN
INTERSECTION = c.BITOPS_STORE_INTERSECTION
JACCARD = c.BITOPS_STORE_JACCARD
DICE = c.BITOPS_STORE_DICE


# ---- memory ----------------------------------------------------------------------------------

cdef struct memory:
    char *start
    size_t nbytes


cdef bint find_memory(PyObject *array, tuple shape, bint write, memory *found) except -1:
    """Find the memory of an ndarray; returns whether it is contiguous, aligned and of this shape.

    None is any shape. Whoever calls holds the array: references to what threads share are not
    counted, because threads would contend for the counter.
    """
    cdef PyArrayObject *own = <PyArrayObject *>array
    cdef Py_ssize_t i
    if not PyObject_TypeCheck(<object>array, <PyTypeObject *>ndarray):
        return False
    if not PyArray_CHKFLAGS(own, NPY_ARRAY_CARRAY if write else NPY_ARRAY_CARRAY_RO):
        return False
    if shape is not None and PyArray_NDIM(own) != len(shape):
        return False
    found.start = <char *>PyArray_DATA(own)
    found.nbytes = PyArray_ITEMSIZE(own)
    for i in range(PyArray_NDIM(own)):
        if shape is not None and <Py_ssize_t>shape[i] != PyArray_DIMS(own)[i]:
            return False
        found.nbytes *= <size_t>PyArray_DIMS(own)[i]
    return True


cdef bint is_array(object array, PyArray_Descr *dtype) noexcept:
    """Whether an object is an ndarray, of no subclass, with this very dtype."""
    return (type(array) is ndarray
            and PyArray_DESCR(<PyArrayObject *><PyObject *>array) == dtype)


# ---- packed arrays ---------------------------------------------------------------------------

cdef class Bits:
    """What a BitArray holds.

    Attributes
    ----------
    _words : ndarray, uint64
        Aligned, in native byte order.
    shape : tuple of int
    axis : int
    """

    cdef readonly object _words
    cdef readonly tuple shape
    cdef readonly int axis
    cdef Py_ssize_t k  # elements of the packed axis; -1 if they are too many

    def __cinit__(self):
        self._words = NO_WORDS
        self.shape = (0,)

    @classmethod
    def _make(cls, words, tuple shape not None, int axis):
        """Adopt words that are known to fit, without checks."""
        return make_bits(cls, words, shape, axis)

    @property
    def words(self):
        return self._words.view()  # whose shape may be set, and which cannot be resized

    @property
    def ndim(self):
        """Number of logical axes."""
        return len(self.shape)

    def _usual_item(self, index):
        """Return the part at integers and slices of axes before the packed one, or None."""
        cdef tuple items = index if type(index) is tuple else (index,)
        cdef int axis = self.axis  # of the part
        if len(items) > self.axis:
            return None
        for item in items:
            if type(item) is int:
                axis -= 1
            elif type(item) is not slice:
                return None
        try:
            words = self._words[index]
        except (IndexError, TypeError):
            return None
        return make_bits(type(self), words, (*words.shape[:axis], *self.shape[self.axis:]), axis)

    def _usual_reshape(self, tuple shape not None):
        """Return the array with other axes before the packed one, which is the last, or None."""
        cdef Py_ssize_t last
        if len(shape) == 1 and type(shape[0]) is tuple:
            shape = shape[0]
        last = len(shape) - 1
        if last < 0 or self.axis != len(self.shape) - 1 or self.k <= 0:
            return None
        for size in shape:
            if type(size) is not int or size < -1:
                return None
        if shape[last] != self.k:
            return None
        try:
            words = self._words.reshape((*shape[:last], c.bitops_words(self.k)))
        except (OverflowError, ValueError):
            return None
        shape = (*words.shape[:last], shape[last])  # where NumPy has resolved a -1
        return make_bits(type(self), words, shape, last)


cdef object NO_WORDS = empty(0, numpy.uint64)
cdef tuple NO_ARGUMENTS = ()
cdef object bits_class = Bits


def set_bits_class(type cls):
    """Let functions that return bits return instances of ``cls``, a subclass of Bits."""
    global bits_class
    check_class(cls)
    bits_class = cls


cdef int check_class(object cls) except -1:
    if not PyType_IsSubtype(<type>cls, <type>Bits):
        raise TypeError(f"[_core] cls must be a subclass of Bits, got {cls.__name__}")
    return 0


cdef Bits make_bits(object cls, object words, tuple shape, int axis):
    """Make an instance of a subclass of Bits, without its own ``__new__`` and ``__init__``."""
    cdef Bits bits
    cdef Py_ssize_t ndim = len(shape)
    check_class(cls)
    if not 0 <= axis < ndim:
        raise ValueError(f"[_core] axis must be one of {ndim}, got {axis}")
    bits = (<PyTypeObject *>Bits).tp_new(<type>cls, <PyObject *>NO_ARGUMENTS, NULL)
    bits._words = words
    bits.shape = shape
    bits.axis = axis
    try:
        bits.k = shape[axis]
    except OverflowError:
        bits.k = -1
    return bits


cdef class Derived:
    """What was computed from weights while an ISA was in force. Never changed: threads share it."""

    cdef object value
    cdef const c.bitops_isa *isa


cdef class Weights:
    """What Prepacked weights hold: their bits, and what was computed from them for one ISA.

    Attributes
    ----------
    bits : BitArray
        The weights before they were laid out in panels; their words are read-only.
    """

    cdef readonly Bits bits
    cdef dict values  # of Derived; always the same dict, in which several threads may look at once

    def __cinit__(self, *args, **kwargs):
        self.bits = Bits()
        self.values = {}

    def __init__(self, Bits bits not None):
        self.bits = bits
        self.values.clear()

    cdef object find(self, object key):
        """What was computed for the key and the ISA in force; None if nothing was."""
        cdef Derived known
        try:
            known = self.values[key]  # not get, which Cython lets race with who removes the value
        except KeyError:
            return None
        return known.value if known.isa == c.bitops_isa_active() else None

    def derived(self, key, make, *arguments):
        """Return ``make(*arguments)``, computed once for each key and active ISA.

        Threads that ask for it at the same time may compute it each.
        """
        cdef Derived made
        value = self.find(key)
        if value is None:
            # values of another ISA go when one of them is made anew
            if key in self.values or len(self.values) > MAX_DERIVED:
                self.values.clear()
            made = Derived()
            made.isa = c.bitops_isa_active()
            value = made.value = make(*arguments)
            if made.isa == c.bitops_isa_active():  # else it may be that of either
                self.values[key] = made
        return value


cdef enum:
    MAX_DERIVED = 256  # values, since each new image size adds one

cdef tuple ONE_GROUP = ("panels", 1)  # the key of the panels of a matrix


# ---- what a call reads and writes ------------------------------------------------------------

cdef enum:
    MAX_READS = 5  # arrays that a call reads: two operands and three scales


cdef struct usual_call:
    const c.bitops_isa *isa
    c.bitops_store store
    memory reads[MAX_READS]
    int n_reads


cdef const void *find_read(usual_call *call, object array, PyArray_Descr *dtype,
                           tuple shape) except? NULL:
    """Note an ndarray that a call reads; returns its memory, NULL if it cannot be read as it lies."""
    cdef memory *found = &call.reads[call.n_reads]
    if not (is_array(array, dtype) and find_memory(<PyObject *>array, shape, False, found)):
        return NULL
    call.n_reads += 1
    return found.start


cdef const uint64_t *find_bits(usual_call *call, Bits bits, size_t rows) except? NULL:
    """Note bits that a call reads, in so many rows of at least one bit; see find_read."""
    cdef memory *found = &call.reads[call.n_reads]
    if not find_memory(<PyObject *>bits._words, None, False, found):
        return NULL
    # nobody but us should change the words' shape; if someone did, nothing is read beside them
    if found.nbytes != rows * c.bitops_words(bits.k) * sizeof(uint64_t):
        return NULL
    call.n_reads += 1
    return <const uint64_t *>found.start


cpdef object empty_lines(tuple shape, object dtype, Py_ssize_t nbytes):
    """Return an uninitialised array of so many bytes that begins at a cache line."""
    try:
        memory = empty(nbytes + CACHE_LINE, "u1")
    except MemoryError:
        return empty(shape, dtype)  # or its error, which names the shape
    start = -<size_t>PyArray_DATA(<PyArrayObject *><PyObject *>memory) % CACHE_LINE
    return ndarray(shape, dtype, memory, start)


cdef object find_result(usual_call *call, object out, PyArray_Descr *dtype, tuple shape):
    """Return the array to fill, a new one if out is None; None if it would be unusual.

    call.store.c is its memory.
    """
    cdef memory found
    cdef int i
    cdef double nbytes
    if out is None:
        nbytes = PyDataType_ELSIZE(dtype)
        for size in shape:
            nbytes *= <size_t>size
        if nbytes > MOST_BYTES:
            return None
        if nbytes < NEW_BYTES:
            out = empty(shape, <object>dtype)
        else:
            out = empty_lines(shape, <object>dtype, <Py_ssize_t>nbytes)
    elif not is_array(out, dtype):
        return None
    if not find_memory(<PyObject *>out, shape, True, &found):
        return None
    for i in range(call.n_reads):
        if (found.start < call.reads[i].start + call.reads[i].nbytes
                and call.reads[i].start < found.start + found.nbytes):
            return None
    call.store.c = found.start
    return out


# ---- products --------------------------------------------------------------------------------

cdef Bits bits_of(object w):
    """The bits of a matrix, whether it is prepacked or not; None if it is neither."""
    if isinstance(w, Weights):
        return (<Weights>w).bits
    return w if isinstance(w, Bits) else None


cdef Panels fitting_panels(usual_call *call, Weights w, size_t n, size_t k_words):
    """The panels of a matrix for the ISA in force, by which the call then goes; None without them.

    The caller holds them until its kernel ends: another thread may make others for another ISA.
    """
    cdef Panels panels = w.find(ONE_GROUP)
    if panels is None or panels.n != n or panels.k_words != k_words:
        return None
    call.isa = panels.isa
    return panels


cdef object find_operands(usual_call *call, object a, object w, int w_axis,
                          c.bitops_gemm_args *args):
    """Fill in the operands; returns what holds the memory of w, None if something is unusual.

    The rows of the matrix w are its vectors along w_axis.
    """
    cdef Bits rows, columns = bits_of(w)
    cdef Panels panels
    cdef Py_ssize_t i
    if columns is None or not isinstance(a, Bits):
        return None
    rows = a
    if (rows.axis == 0 or rows.axis != len(rows.shape) - 1 or len(columns.shape) != 2
            or columns.axis != w_axis or rows.k != columns.k or not 0 < rows.k <= MAX_BITS):
        return None
    args.m = 1
    for i in range(rows.axis):
        args.m *= <size_t>rows.shape[i]
    args.n = columns.shape[1 - w_axis]
    args.k_words = args.lda = args.ldw = c.bitops_words(rows.k)
    call.store.k = rows.k
    call.isa = c.bitops_isa_active()
    if args.m == 0 or args.n == 0:
        return None
    args.a = find_bits(call, rows, args.m)
    if args.a == NULL:
        return None
    if isinstance(w, Weights):
        panels = fitting_panels(call, w, args.n, args.k_words)
        if panels is None:
            return None
        args.panels = panels.words
        args.w = <const uint64_t *>first(panels.rows)  # few rows read w as it lies
        return panels
    args.w = find_bits(call, columns, args.n)
    return None if args.w == NULL else columns


cdef object packed_if_small(object x):
    """Pack an ndarray of few numbers along its last axis; anything else comes back as it is.

    Should the call be unusual, they are packed again, which is nothing beside its other costs.
    """
    cdef memory found
    if (type(x) is not ndarray or PyArray_NDIM(<PyArrayObject *><PyObject *>x) < 2
            or not find_memory(<PyObject *>x, None, False, &found) or found.nbytes > MOST_PACKED):
        return x
    bits = usual_pack(x, -1)
    return x if bits is None else bits


cdef tuple with_last(tuple shape, size_t n):
    """A shape with another last axis."""
    if len(shape) == 2:  # the usual one, without a slice
        return (shape[0], n)
    return (*shape[:len(shape) - 1], n)


def usual_product(int kind, object a, object w, tuple factors not None, object out,
                  int w_axis=1):
    """Multiply packed rows, or return None if something is unusual.

    Parameters
    ----------
    kind : int
        DOT, HAMMING, HAMMING16 or SIGN.
    a : IN, BitArray of shape (..., m, k), packed along k; or an ndarray of few numbers
    w : IN, BitArray or Prepacked matrix with n vectors of k bits along w_axis, packed along it
    factors : tuple
        (alpha, k_map, bias) of DOT, (threshold, flip) of SIGN, otherwise empty.
    out : OUT, ndarray of shape (..., m, n) and the type of the result; or None

    Returns
    -------
    ndarray of shape (..., m, n), BitArray for SIGN, or None
    """
    cdef c.bitops_gemm_args args
    cdef usual_call call
    memset(&args, 0, sizeof(args))
    memset(&call, 0, sizeof(call))
    a = packed_if_small(a)
    held = find_operands(&call, a, w, w_axis, &args)
    if held is None:
        return None
    shape = with_last((<Bits>a).shape, args.n)
    factors = ready_factors(kind, factors, shape)
    array = find_store(&call, kind, factors, shape, out)
    if array is None:
        return None
    args.store = call.store
    call_gemm(call.isa, &args)
    return deliver(&call, array, shape)


def usual_topk(object a, object w, object count):
    """Find the nearest rows of w for every row of a, or return None if something is unusual.

    Returns
    -------
    distances : ndarray of shape (m, count), int32
    indices : ndarray of shape (m, count), int64
        Both as one tuple, or None.
    """
    cdef c.bitops_gemm_args args
    cdef usual_call call
    cdef int64_t *indices
    memset(&args, 0, sizeof(args))
    memset(&call, 0, sizeof(call))
    a = packed_if_small(a)
    held = find_operands(&call, a, w, 1, &args)
    if (held is None or len((<Bits>a).shape) != 2 or type(count) is not int
            or not 1 <= count <= args.n or args.n > <size_t>1 << 32):
        return None
    call.store.kind = c.BITOPS_STORE_HAMMING
    call.store.ldc = count
    indices_out = find_result(&call, None, INT64, (args.m, count))
    if indices_out is None:
        return None
    indices = <int64_t *>call.store.c
    distances_out = find_result(&call, None, INT32, (args.m, count))
    args.store = call.store
    call_topk(call.isa, &args, count, indices)
    return distances_out, indices_out


# ---- convolutions ----------------------------------------------------------------------------

cpdef bint is_plain(object settings):
    """Tell whether settings are int, str or None, or tuples of these, as the usual ones are.

    Only such settings are looked up in a cache: True and 1.0 equal 1 there, in tuples too.
    """
    if type(settings) is not tuple:
        return type(settings) is int or type(settings) is str or settings is None
    for item in <tuple>settings:
        if not is_plain(item):
            return False
    return True


def usual_convolution(int kind, str where, object x, object w, tuple settings not None,
                      tuple factors not None, object out):
    """Convolve images with prepacked filters as before, or return None if something is unusual.

    Parameters
    ----------
    kind : int
        DOT or SIGN.
    where, settings
        With the size of an image, they are the key of the Convolution among what was computed from
        the filters.
    x : IN, BitArray of shape (n, h, w, channels), packed along its channels; or few numbers
    w : IN, Prepacked
    factors, out
        As for usual_product, with the shape (n, oh, ow, o).
    """
    cdef usual_call call
    cdef Bits images
    cdef Convolution convolution
    cdef c.bitops_image *image
    cdef const uint64_t *start
    x = packed_if_small(x)
    if not (isinstance(x, Bits) and isinstance(w, Weights) and is_plain(settings)):
        return None
    images = x
    if len(images.shape) != 4 or images.axis != 3 or images.k <= 0:
        return None
    entry = (<Weights>w).find((where, images.shape[1:], settings))
    if entry is None:
        return None
    convolution = entry[0]
    image = &convolution.args.image
    n, height, width = images.shape[:3]
    if (n == 0 or height != image.height or width != image.width
            or c.bitops_words(images.k) != image.pixel_words):
        return None
    memset(&call, 0, sizeof(call))
    call.store.k = convolution.args.store.k
    shape = (n, image.out_height, image.out_width, convolution.args.filters)
    start = find_bits(&call, images, n * height * width)
    if start == NULL or 0 in shape:
        return None
    factors = ready_factors(kind, factors, shape)
    array = find_store(&call, kind, factors, shape, out)
    if array is None:
        return None
    convolution.call(start, n, &call.store)
    return deliver(&call, array, shape)
