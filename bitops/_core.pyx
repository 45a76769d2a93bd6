# cython: embedsignature=True
"""The native module: checks shapes, releases the GIL, calls the drivers of bitops.h.

Array arguments are C-contiguous words or numbers, prepared by the public functions, which also own
the error messages that users see; the checks here keep memory safe. Outputs come last and are named
``*_out``. Every call uses ``get_num_threads()`` threads.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

cimport bitops._kernels as c
from cython cimport critical_section, freelist

BOOL8 = c.BITOPS_BOOL8
I8 = c.BITOPS_I8
I16 = c.BITOPS_I16
I32 = c.BITOPS_I32
I64 = c.BITOPS_I64
F16 = c.BITOPS_F16
BF16 = c.BITOPS_BF16
F32 = c.BITOPS_F32
F64 = c.BITOPS_F64

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX


# ---- configuration ---------------------------------------------------------------------------

def isa_names():
    """Names of the ISAs compiled in, best first."""
    return [c.bitops_isa_get(i).name.decode() for i in range(c.bitops_isa_count())]


def isa_runs(str name):
    """Whether this machine can run the ISA ``name``."""
    cdef const c.bitops_isa *isa = c.bitops_isa_find(name.encode())
    return isa != NULL and bool(c.bitops_isa_runs(isa))


def isa_active():
    """Name of the ISA in force."""
    return c.bitops_isa_active().name.decode()


def isa_use(str name):
    """Make ``name``, which must run here, the ISA in force."""
    if not isa_runs(name):
        raise ValueError(f"[isa.use] the ISA must run on this machine, got {name!r}")
    c.bitops_isa_use(c.bitops_isa_find(name.encode()))


def kernels():
    """All kernels compiled in, as a list of (operation, ISA)."""
    cdef const char *op = NULL
    cdef const char *isa = NULL
    cdef size_t i = 0
    found = []
    while c.bitops_kernel_name(i, &op, &isa):
        found.append((op.decode(), isa.decode()))
        i += 1
    return found


def port_bound(size_t steps):
    """Run the step of the product on registers alone, ``steps`` times, for benchmarks.

    Returns
    -------
    int or None
        The multiply-accumulates that the steps stand for; None if the ISA in force has no such
        loop.
    """
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef uint64_t macs
    if isa.port_bound == NULL:
        return None
    with nogil:
        isa.port_bound(steps, &macs)
    return macs


def has_openmp():
    """Whether the module was compiled with OpenMP."""
    return bool(c.bitops_has_openmp())


def compiler():
    """Name and version of the C compiler."""
    return c.bitops_compiler().decode()


def get_num_threads():
    """Threads that the next call may use."""
    return c.bitops_get_num_threads()


def set_num_threads(int n):
    """Let calls use at most ``n`` >= 1 threads."""
    c.bitops_set_num_threads(n)


def limit_to_one_thread(bint limit):
    """Let all calls use one thread, or again as many as are set."""
    c.bitops_limit_to_one_thread(limit)


# ---- checks and memory -----------------------------------------------------------------------

cdef size_t item_size(int dtype) except 0:
    if dtype == c.BITOPS_BOOL8 or dtype == c.BITOPS_I8:
        return 1
    if dtype == c.BITOPS_I16 or dtype == c.BITOPS_F16 or dtype == c.BITOPS_BF16:
        return 2
    if dtype == c.BITOPS_I32 or dtype == c.BITOPS_F32:
        return 4
    if dtype == c.BITOPS_I64 or dtype == c.BITOPS_F64:
        return 8
    raise ValueError(f"[_core] unknown dtype code, got {dtype}")


cdef size_t times(size_t a, size_t b) except? 0:
    """The product of two sizes; an error if no array could be as large."""
    if b and a > <size_t>PY_SSIZE_T_MAX // b:
        raise ValueError(f"[_core] sizes must fit memory, got {a} x {b}")
    return a * b


cdef int check_size(str name, Py_ssize_t got, Py_ssize_t wanted) except -1:
    if got != wanted:
        raise ValueError(f"[_core] {name} must have size {wanted}, got {got}")
    return 0


ctypedef fused element:
    uint8_t
    int16_t
    uint16_t
    int32_t
    uint64_t
    float
    double


cdef inline void *first(const element[:, ::1] x) noexcept:
    """The first element; NULL if there is none."""
    return <void *>&x[0, 0] if x.shape[0] and x.shape[1] else NULL


cdef const float *scales(str name, const float[::1] x, Py_ssize_t n) except? NULL:
    """The first of n scales; NULL for None, and if there is none."""
    if x is None:
        return NULL
    check_size(name, x.shape[0], n)
    return &x[0] if n else NULL


@freelist(4)
cdef class Scratch:
    """Memory for C, aligned to a cache line and freed with the object."""

    cdef void *start  # what C is given
    cdef size_t size

    def __dealloc__(self):
        c.bitops_free(self.start)


cdef Scratch make_scratch(size_t size):
    cdef Scratch scratch = Scratch.__new__(Scratch)
    scratch.size = size
    scratch.start = c.bitops_allocate(size)
    if scratch.start == NULL:
        raise MemoryError(f"[_core] {size} bytes of memory are needed and not available")
    return scratch


MEMORY = c.BITOPS_MEMORY
THREAD = c.BITOPS_THREAD


def fail(int kind, long first, long count=1):
    """Let requests to the system fail, for tests.

    Parameters
    ----------
    kind : int
        MEMORY (blocks of this module) or THREAD (those made to see whether they can be).
    first, count : int
        Of the requests from now on, in all threads, number ``first`` (the next is 1) and those that
        follow, ``count`` in all, fail. 0 ends it.
    """
    check_kind(kind)
    c.bitops_fail(<c.bitops_request>kind, first, count)


def requests(int kind):
    """Requests of a kind since `fail` was called for it."""
    check_kind(kind)
    return c.bitops_requests(<c.bitops_request>kind)


def live_blocks():
    """Blocks of memory that this module holds."""
    return c.bitops_live_blocks()


def keep_freed(bint keep):
    """Let the C library keep freed memory or not, in the whole process; glibc only."""
    with nogil:  # all that is free is handed back, which takes some ms for each 100 MiB
        c.bitops_keep_freed(keep)


cdef int check_kind(int kind) except -1:
    if kind != c.BITOPS_MEMORY and kind != c.BITOPS_THREAD:
        raise ValueError(f"[_core] kind must be MEMORY or THREAD, got {kind}")
    return 0


# ---- interrupts ------------------------------------------------------------------------------

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept


cdef int handle_signals() noexcept nogil:
    """Run pending signal handlers; returns nonzero, with the exception set, if one raised."""
    with gil:
        return PyErr_CheckSignals()


cdef c.bitops_stop at_signals() noexcept:
    """Stops a call when a signal handler raises, such as that of Ctrl-C."""
    cdef c.bitops_stop stop
    memset(&stop, 0, sizeof(stop))
    stop.ask = handle_signals
    return stop


cdef int check_stop(const c.bitops_stop *stop) except -1:
    """Pass on the exception that handle_signals left."""
    return -1 if stop.stopped else 0


# ---- pack, unpack, popcount ------------------------------------------------------------------

def pack(int dtype, const uint8_t[::1] x, size_t rows, size_t n, uint64_t[:, ::1] words_out):
    """Pack the signs of rows of values; returns whether a NaN was met.

    Parameters
    ----------
    dtype : int
        One of the codes BOOL8 .. F64.
    x : IN, bytes of rows * n values
    words_out : OUT, shape (rows, ceil(n / 64))
    """
    cdef int nan
    cdef c.bitops_stop stop = at_signals()
    check_size("x", x.shape[0], times(times(rows, n), item_size(dtype)))
    check_size("rows of words_out", words_out.shape[0], rows)
    check_size("words of a row", words_out.shape[1], c.bitops_words(n))
    if rows == 0 or n == 0:
        return False
    with nogil:
        nan = c.bitops_pack_rows(c.bitops_isa_active(), <c.bitops_dtype>dtype, &x[0], rows, n,
                                 &words_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)
    return nan != 0


def compare(int dtype, const uint8_t[::1] x, size_t rows, const float[::1] threshold,
            const uint64_t[::1] flip, uint64_t[:, ::1] words_out):
    """Pack the bits (x > threshold[column]) ^ flip[column]; returns whether an x was NaN.

    Parameters
    ----------
    dtype : int
        I32 or F32.
    x : IN, bytes of rows * n values
    threshold : IN, shape (n,)
    flip : IN, shape (ceil(n / 64),) of packed bits, or None
    words_out : OUT, shape (rows, ceil(n / 64))
    """
    cdef const uint64_t *flips = NULL
    cdef size_t n = threshold.shape[0]
    cdef int nan
    cdef c.bitops_stop stop = at_signals()
    if dtype != c.BITOPS_I32 and dtype != c.BITOPS_F32:
        raise ValueError(f"[_core] compare takes I32 or F32, got {dtype}")
    check_size("x", x.shape[0], times(times(rows, n), item_size(dtype)))
    check_size("rows of words_out", words_out.shape[0], rows)
    check_size("words of a row", words_out.shape[1], c.bitops_words(n))
    if rows == 0 or n == 0:
        return False
    if flip is not None:
        check_size("flip", flip.shape[0], words_out.shape[1])
        flips = &flip[0]
    with nogil:
        nan = c.bitops_compare_rows(c.bitops_isa_active(), <c.bitops_dtype>dtype, &x[0], rows, n,
                                    &threshold[0], flips, &words_out[0, 0], &stop,
                                    c.bitops_get_num_threads())
    check_stop(&stop)
    return nan != 0


def transpose(const uint64_t[:, :, ::1] words, uint64_t[:, :, ::1] words_out):
    """Transpose matrices of bits.

    Parameters
    ----------
    words : IN, shape (outer, rows, ceil(columns / 64))
    words_out : OUT, shape (outer, columns, ceil(rows / 64))
    """
    cdef size_t rows = words.shape[1], columns = words_out.shape[1]
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()
    cdef Scratch workspace
    check_size("matrices of words_out", words_out.shape[0], words.shape[0])
    check_size("words of a row", words.shape[2], c.bitops_words(columns))
    check_size("words of a column", words_out.shape[2], c.bitops_words(rows))
    if words.shape[0] == 0 or rows == 0 or columns == 0:
        return
    workspace = make_scratch(c.bitops_transpose_workspace_size(n_threads))
    with nogil:
        c.bitops_transpose(c.bitops_isa_active(), &words[0, 0, 0], words.shape[0], rows, columns,
                           &words_out[0, 0, 0], workspace.start, &stop, n_threads)
    check_stop(&stop)


def unpack(int dtype, const uint64_t[:, ::1] words, size_t n, uint8_t[::1] x_out):
    """Write +1 and -1 for the bits of rows of n bits.

    Parameters
    ----------
    dtype : int
        I8 or F32.
    words : IN, shape (rows, ceil(n / 64))
    x_out : OUT, bytes of rows * n values
    """
    if dtype != c.BITOPS_I8 and dtype != c.BITOPS_F32:
        raise ValueError(f"[_core] unpack writes I8 or F32, got {dtype}")
    cdef c.bitops_stop stop = at_signals()
    check_size("x_out", x_out.shape[0], times(times(words.shape[0], n), item_size(dtype)))
    check_size("words of a row", words.shape[1], c.bitops_words(n))
    if x_out.shape[0] == 0:
        return
    with nogil:
        c.bitops_unpack_rows(c.bitops_isa_active(), <c.bitops_dtype>dtype, &words[0, 0],
                             words.shape[0], n, &x_out[0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


def popcount(const uint64_t[:, ::1] words, int64_t[::1] count_out):
    """Count the 1 bits of every row of words.

    Parameters
    ----------
    words : IN, shape (rows, k_words)
    count_out : OUT, shape (rows,)
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("count_out", count_out.shape[0], words.shape[0])
    if words.shape[0] == 0:
        return
    if words.shape[1] == 0:
        count_out[:] = 0
        return
    with nogil:
        c.bitops_popcount_rows(c.bitops_isa_active(), &words[0, 0], words.shape[0], words.shape[1],
                               &count_out[0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


cdef c.bitops_scaled scaled_numbers(const float[::1] x, const float[::1] alpha) except *:
    """x in rows of as many numbers as alpha has, times these; alpha may be None."""
    cdef c.bitops_scaled numbers
    numbers.x = &x[0] if x.shape[0] else NULL
    numbers.n = x.shape[0]
    numbers.alpha = NULL
    numbers.columns = 0
    if alpha is not None and x.shape[0]:
        if alpha.shape[0] == 0 or x.shape[0] % alpha.shape[0]:
            raise ValueError("[_core] x must have whole rows of as many numbers as alpha")
        numbers.alpha = &alpha[0]
        numbers.columns = alpha.shape[0]
    return numbers


def peak(const float[::1] x, const float[::1] alpha=None):
    """Return the largest magnitude, 0 if there is none, NaN if one is NaN.

    Parameters
    ----------
    x : IN, shape (n,)
    alpha : IN, shape (columns,), or None
        Factors of the columns of x.
    """
    cdef c.bitops_stop stop = at_signals()
    cdef c.bitops_scaled numbers = scaled_numbers(x, alpha)
    cdef float most
    with nogil:
        most = c.bitops_peak(c.bitops_isa_active(), &numbers, &stop, c.bitops_get_num_threads())
    check_stop(&stop)
    return most


def quantize(const float[::1] x, float scale, uint32_t seed, int zero, uint8_t[::1] codes_out,
             const float[::1] alpha=None):
    """Round x * alpha * scale + zero up or down at random.

    Parameters
    ----------
    x : IN, shape (n,)
    scale : float
        Brings x * alpha into 1 - zero..255 - zero.
    seed, zero : int
    codes_out : OUT, shape (n,)
    alpha : IN, shape (columns,), or None
        Factors of the columns of x.
    """
    cdef c.bitops_stop stop = at_signals()
    cdef c.bitops_scaled numbers = scaled_numbers(x, alpha)
    check_size("codes_out", codes_out.shape[0], x.shape[0])
    if x.shape[0] == 0:
        return
    with nogil:
        c.bitops_quantize(c.bitops_isa_active(), &numbers, scale, seed, zero, &codes_out[0], &stop,
                          c.bitops_get_num_threads())
    check_stop(&stop)


def mean_magnitude(const float[:, ::1] x, float[::1] mean_out):
    """Take the mean of the absolute values of every row.

    Parameters
    ----------
    x : IN, shape (rows, n)
    mean_out : OUT, shape (rows,)
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("mean_out", mean_out.shape[0], x.shape[0])
    if x.shape[0] == 0:
        return
    if x.shape[1] == 0:
        mean_out[:] = 0
        return
    with nogil:
        c.bitops_mean_magnitude(&x[0, 0], x.shape[0], x.shape[1], &mean_out[0], &stop,
                                c.bitops_get_num_threads())
    check_stop(&stop)


def sum_magnitude(const float[:, ::1] x, double[::1] sum_out):
    """Sum the absolute values of every row in float64, as np.sum does.

    Parameters
    ----------
    x : IN, shape (rows, n)
    sum_out : OUT, shape (rows,)
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("sum_out", sum_out.shape[0], x.shape[0])
    if x.shape[0] == 0:
        return
    if x.shape[1] == 0:
        sum_out[:] = 0
        return
    with nogil:
        c.bitops_sum_magnitude(&x[0, 0], x.shape[0], x.shape[1], &sum_out[0], &stop,
                               c.bitops_get_num_threads())
    check_stop(&stop)


def popcount_columns(const uint64_t[:, :, ::1] words, int64_t[:, ::1] count_out):
    """Count the 1 bits at each position over the middle axis.

    Parameters
    ----------
    words : IN, shape (outer, rows, n_words)
    count_out : OUT, shape (outer, 64 * n_words)
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("rows of count_out", count_out.shape[0], words.shape[0])
    check_size("columns of count_out", count_out.shape[1], words.shape[2] * 64)
    if count_out.shape[0] == 0 or count_out.shape[1] == 0:
        return
    if words.shape[1] == 0:
        count_out[:, :] = 0
        return
    with nogil:
        c.bitops_popcount_columns(c.bitops_isa_active(), &words[0, 0, 0], words.shape[0],
                                  words.shape[1], words.shape[2], &count_out[0, 0], &stop,
                                  c.bitops_get_num_threads())
    check_stop(&stop)


# ---- products --------------------------------------------------------------------------------

cdef class Panels:
    """The rows of a packed matrix in the register panels of the ISA in force when it was made.

    Parameters
    ----------
    w : IN, shape (n, k_words)
    groups : int
        The rows are cut into this many equal parts; the panels of each part follow those of the
        one before.
    """

    cdef const c.bitops_isa *isa
    cdef const uint64_t[:, ::1] rows  # w, which few rows of the other operand read as it lies
    cdef Scratch memory
    cdef uint64_t *words
    cdef readonly size_t n
    cdef readonly size_t k_words
    cdef readonly size_t groups
    cdef readonly size_t nbytes

    def __cinit__(self, const uint64_t[:, ::1] w, size_t groups=1):
        cdef size_t group, share, group_words
        cdef c.bitops_stop stop = at_signals()
        if groups == 0 or w.shape[0] % groups:
            raise ValueError(f"[_core] groups must divide {w.shape[0]} rows, got {groups}")
        self.isa = c.bitops_isa_active()
        self.rows = w
        self.n = w.shape[0]
        self.k_words = w.shape[1]
        self.groups = groups
        share = self.n // groups
        group_words = c.bitops_prepack_size(self.isa, share, self.k_words)
        self.nbytes = groups * group_words * sizeof(uint64_t)
        self.memory = make_scratch(self.nbytes)
        self.words = <uint64_t *>self.memory.start
        if self.n == 0 or self.k_words == 0:
            return
        with nogil:
            for group in range(groups):
                c.bitops_prepack_all(self.isa, &w[group * share, 0], self.k_words, share,
                                     self.k_words, self.words + group * group_words, &stop,
                                     c.bitops_get_num_threads())
        check_stop(&stop)

    @property
    def isa_name(self):
        return self.isa.name.decode()

    def __reduce__(self):
        raise TypeError("[_core] panels are those of one ISA and cannot be pickled, but Prepacked can")


cdef const c.bitops_isa *set_operands(const uint64_t[:, ::1] a, object w, c.bitops_store *store,
                                      c.bitops_gemm_args *args) except NULL:
    """Fill in the operands, checked against each other; returns the ISA to run."""
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef const uint64_t[:, ::1] rows
    memset(args, 0, sizeof(args[0]))
    args.store = store[0]
    args.m = a.shape[0]
    args.k_words = a.shape[1]
    args.lda = args.k_words
    args.ldw = args.k_words
    args.a = <const uint64_t *>first(a)
    check_size("words of a row of a", a.shape[1], c.bitops_words(store.k))
    if isinstance(w, Panels):
        isa = (<Panels>w).isa
        check_size("groups of panels", (<Panels>w).groups, 1)
        args.n = (<Panels>w).n
        args.panels = (<Panels>w).words
        args.w = <const uint64_t *>first((<Panels>w).rows)
        check_size("words of a row of w", (<Panels>w).k_words, a.shape[1])
    else:
        rows = w
        args.n = rows.shape[0]
        check_size("words of a row of w", rows.shape[1], a.shape[1])
        args.w = <const uint64_t *>first(rows)
    return isa


cdef int check_blocks(str name, const int64_t[::1] index, size_t block, size_t rows) except -1:
    """Check that blocks of so many rows lie within the rows that there are."""
    cdef Py_ssize_t i
    cdef size_t blocks = rows // block if block else 0
    for i in range(index.shape[0]):
        if block and <uint64_t>index[i] >= blocks:
            raise ValueError(f"[_core] {name} must be in 0..{<Py_ssize_t>blocks - 1}, got {index[i]}")
    return 0


cdef enum:
    # Word products, a few microseconds of which: to release the lock and to ask for signals would
    # take a good part of that. One thread is as fast as several.
    BRIEF_WORK = 1 << 14


cdef int call_gemm(const c.bitops_isa *isa, c.bitops_gemm_args *args) except -1:
    """Find scratch memory and multiply."""
    cdef bint is_brief = <double>args.m * args.n * args.k_words <= BRIEF_WORK
    cdef int n_threads = 1 if is_brief else c.bitops_get_num_threads()
    cdef size_t size = c.bitops_gemm_workspace_size(isa, args, n_threads)
    cdef c.bitops_stop stop
    cdef Scratch workspace
    cdef void *start = NULL
    if size or not is_brief:
        workspace = make_scratch(size)
        start = workspace.start
    if is_brief:
        c.bitops_gemm(isa, args, start, 1)
        return 0
    stop = at_signals()
    args.stop = &stop
    with nogil:
        c.bitops_gemm(isa, args, start, n_threads)
    return check_stop(&stop)


cdef int run_gemm(const uint64_t[:, ::1] a, object w, tuple batch, Py_ssize_t c_rows,
                  Py_ssize_t c_columns, c.bitops_store *store) except -1:
    """Fill in the operands, check the output's shape, find scratch memory and call.

    The columns of the output are counted in elements, also where they are packed.
    """
    cdef c.bitops_gemm_args args
    cdef const c.bitops_isa *isa = set_operands(a, w, store, &args)
    cdef const int64_t[::1] a_index, w_index
    cdef Py_ssize_t count = 1
    cdef size_t w_rows
    cdef Scratch workspace
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()

    args.stop = &stop
    if batch is not None:
        if args.panels != NULL:
            raise ValueError("[_core] w must not be Panels with a batch")
        w_rows = args.n
        args.m, args.n, a_index, w_index = batch
        count = a_index.shape[0]
        check_size("w_index", w_index.shape[0], count)
        check_blocks("a_index", a_index, args.m, a.shape[0])
        check_blocks("w_index", w_index, args.n, w_rows)
    check_size("rows of the output", c_rows, times(count, args.m))
    check_size("columns of the output", c_columns, args.n)
    if c_rows == 0 or c_columns == 0:
        return 0
    if batch is None:
        return call_gemm(isa, &args)
    workspace = make_scratch(c.bitops_gemm_workspace_size(isa, &args, n_threads))
    with nogil:
        c.bitops_gemm_batch(isa, &args, count, &a_index[0], &w_index[0], workspace.start,
                            n_threads)
    return check_stop(&stop)


cdef c.bitops_store make_store(c.bitops_store_kind kind, int32_t k,
                               element[:, ::1] c_out) noexcept:
    cdef c.bitops_store store
    memset(&store, 0, sizeof(store))
    store.kind = kind
    store.k = k
    store.c = first(c_out)
    store.ldc = c_out.shape[1]
    return store


cdef int set_scales(c.bitops_store *store, const float[::1] alpha, const float[::1] k_map,
                    const float[::1] bias, float[:, ::1] c_out) except -1:
    store.alpha = scales("alpha", alpha, c_out.shape[1])
    store.k_map = scales("k_map", k_map, c_out.shape[0])
    store.bias = scales("bias", bias, c_out.shape[1])
    return 0


cdef int set_thresholds(c.bitops_store *store, const int32_t[::1] threshold,
                        const uint64_t[::1] flip, uint64_t[:, ::1] c_out) except -1:
    check_size("words of threshold", c.bitops_words(threshold.shape[0]), c_out.shape[1])
    if c_out.shape[0] == 0 or c_out.shape[1] == 0:
        return 0
    store.threshold = &threshold[0]
    if flip is not None:
        check_size("flip", flip.shape[0], c_out.shape[1])
        store.flip = &flip[0]
    return 0


def gemm(const uint64_t[:, ::1] a, object w, int32_t k, tuple batch, int32_t[:, ::1] c_out):
    """c = k - 2 popcount(a ^ w), for all pairs of rows.

    Parameters
    ----------
    a : IN, shape (m, k_words)
    w : IN, shape (n, k_words), or Panels
    k : int
        Bits of a row.
    batch : tuple, or None for one product
        (m, n, a_index, w_index): product i multiplies block a_index[i] of m rows of a by block
        w_index[i] of n rows of w into block i of m rows of c_out. w is not Panels then.
    c_out : OUT, shape (m, n)
    """
    cdef c.bitops_store store = make_store(c.BITOPS_STORE_DOT, k, c_out)
    run_gemm(a, w, batch, c_out.shape[0], c_out.shape[1], &store)


def gemm_scaled(const uint64_t[:, ::1] a, object w, int32_t k, tuple batch,
                const float[::1] alpha, const float[::1] k_map, const float[::1] bias,
                float[:, ::1] c_out):
    """c = float32(dot) * alpha[column] * k_map[row] + bias[column]; see gemm.

    Parameters
    ----------
    alpha, bias : IN, shape (n,), or None
    k_map : IN, shape (rows of c_out,), or None
    """
    cdef c.bitops_store store = make_store(c.BITOPS_STORE_SCALED, k, c_out)
    set_scales(&store, alpha, k_map, bias, c_out)
    run_gemm(a, w, batch, c_out.shape[0], c_out.shape[1], &store)


def gemm_sign(const uint64_t[:, ::1] a, object w, int32_t k, tuple batch,
              const int32_t[::1] threshold, const uint64_t[::1] flip, uint64_t[:, ::1] c_out):
    """Bits (dot > threshold[column]) ^ flip[column], packed along the columns; see gemm.

    Parameters
    ----------
    threshold : IN, shape (n,)
    flip : IN, shape (ceil(n / 64),) of packed bits, or None
    c_out : OUT, shape (m, ceil(n / 64))
    """
    cdef c.bitops_store store = make_store(c.BITOPS_STORE_SIGN, k, c_out)
    set_thresholds(&store, threshold, flip, c_out)
    run_gemm(a, w, batch, c_out.shape[0], threshold.shape[0], &store)


def hamming(const uint64_t[:, ::1] a, object w, int32_t k, tuple batch, int32_t[:, ::1] c_out):
    """c = popcount(a ^ w), for all pairs of rows; see gemm."""
    cdef c.bitops_store store = make_store(c.BITOPS_STORE_HAMMING, k, c_out)
    run_gemm(a, w, batch, c_out.shape[0], c_out.shape[1], &store)


def hamming16(const uint64_t[:, ::1] a, object w, int32_t k, tuple batch,
              uint16_t[:, ::1] c_out):
    """c = popcount(a ^ w) as uint16, k <= 65535; see gemm."""
    cdef c.bitops_store store = make_store(c.BITOPS_STORE_HAMMING16, k, c_out)
    run_gemm(a, w, batch, c_out.shape[0], c_out.shape[1], &store)


include "_search.pxi"


# ---- convolutions ----------------------------------------------------------------------------

cdef int check_axis(str name, size_t size, size_t pad, size_t pad_after, size_t kernel,
                    size_t dilation, size_t stride, size_t output) except -1:
    """Check the windows of one direction, whose lengths must be below 2**31."""
    cdef size_t most = (<size_t>1 << 31) - 1, padded, span
    if max(size, pad, pad_after, kernel, dilation, stride) > most:
        raise ValueError(f"[_core] lengths of the {name} must be at most {most}")
    if not (kernel and stride and dilation):
        raise ValueError(f"[_core] kernel, stride and dilation of the {name} must be at least 1")
    padded = size + pad + pad_after
    span = (kernel - 1) * dilation + 1
    if span > padded:
        raise ValueError(f"[_core] the kernel must fit the {name}, got {span} in {padded}")
    return check_size(f"{name} of the output", output, (padded - span) // stride + 1)


cdef int set_window(object window, size_t channels, bint outside, c.bitops_image *im) except -1:
    """Fill in all but the images; channels is the number of bits of a tap."""
    cdef size_t pad_bottom, pad_right
    memset(im, 0, sizeof(im[0]))
    ((im.height, im.width), (im.kernel_height, im.kernel_width), (im.stride_y, im.stride_x),
     ((im.pad_top, pad_bottom), (im.pad_left, pad_right)), (im.dilation_y, im.dilation_x),
     (im.out_height, im.out_width)) = window
    check_axis("height", im.height, im.pad_top, pad_bottom, im.kernel_height, im.dilation_y,
               im.stride_y, im.out_height)
    check_axis("width", im.width, im.pad_left, pad_right, im.kernel_width, im.dilation_x,
               im.stride_x, im.out_width)
    times(times(im.kernel_height, im.kernel_width), max(channels, 1))
    im.channels = channels
    im.outside = ~<uint64_t>0 if outside else 0
    return 0


cdef size_t output_rows(size_t images, const c.bitops_image *im) except? 0:
    """The output positions of so many images."""
    return times(images, times(im.out_height, im.out_width))


cdef const uint64_t *first_word(const uint64_t[:, :, :, ::1] x) noexcept:
    if x.shape[0] and x.shape[1] and x.shape[2] and x.shape[3]:
        return &x[0, 0, 0, 0]
    return NULL


def im2col(const uint64_t[:, :, :, ::1] x, object window, size_t channels, bint outside,
           uint64_t[:, ::1] rows_out):
    """Write what every output position of a convolution sees, as rows of bits.

    Parameters
    ----------
    x : IN, shape (n, h, w, ceil(channels / 64))
    window : tuple
        A Window of geometry.py.
    channels : int
        Bits of a pixel.
    outside : bool
        The bit of positions outside.
    rows_out : OUT, shape (n * oh * ow, ceil(kh * kw * channels / 64))
    """
    cdef c.bitops_image im
    cdef c.bitops_stop stop = at_signals()
    set_window(window, channels, outside, &im)
    im.pixel_words = c.bitops_words(channels)
    check_size("height", x.shape[1], im.height)
    check_size("width", x.shape[2], im.width)
    check_size("words of a pixel", x.shape[3], im.pixel_words)
    check_size("rows", rows_out.shape[0], output_rows(x.shape[0], &im))
    check_size("words of a row", rows_out.shape[1],
               c.bitops_words(im.kernel_height * im.kernel_width * channels))
    if rows_out.shape[0] == 0 or rows_out.shape[1] == 0:
        return
    im.x = first_word(x)
    with nogil:
        c.bitops_im2col(&im, x.shape[0], &rows_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


cdef const float *first_number(const float[:, :, :, ::1] x) noexcept nogil:
    if x.shape[0] and x.shape[1] and x.shape[2] and x.shape[3]:
        return &x[0, 0, 0, 0]
    return NULL


def max_windows(object x, bint bits, object window, object max_out):
    """Take the largest of each window of bits or float32, channel by channel.

    Parameters
    ----------
    x : IN, ndarray of shape (n, h, w, c), words of bits or numbers
    bits : bool
    window : tuple
        A Window of geometry.py; each sees some of its image.
    max_out : OUT, ndarray of shape (n, oh, ow, c) and the type of x, contiguous, elsewhere; or None
        for a new one, if that is small

    Returns
    -------
    ndarray or None
        max_out. None, and nothing is done, for other numbers than float32, if x is not contiguous,
        and if a new array would be large.
    """
    cdef c.bitops_image windows
    cdef c.bitops_stop stop = at_signals()
    cdef c.bitops_dtype dtype = c.BITOPS_BOOL8 if bits else c.BITOPS_F32
    cdef PyArray_Descr *dtype_of_x = UINT64 if bits else FLOAT32
    cdef memory source, result
    cdef Scratch workspace
    cdef int n_threads = c.bitops_get_num_threads()
    cdef size_t images, pixel_bytes
    if not is_array(x, dtype_of_x):
        return None
    set_window(window, 1, False, &windows)
    n, height, width, channels = x.shape
    check_size("height", height, windows.height)
    check_size("width", width, windows.width)
    if not find_memory(<PyObject *>x, None, False, &source) or source.nbytes == 0:
        return None
    images, pixel_bytes = n, channels * (sizeof(uint64_t) if bits else sizeof(float))
    shape = (n, windows.out_height, windows.out_width, channels)
    if max_out is None:
        if times(output_rows(images, &windows), pixel_bytes) >= NEW_BYTES:
            return None
        max_out = empty(shape, <object>dtype_of_x)
    check_size("max_out", find_memory(<PyObject *>max_out, shape, True, &result), True)
    workspace = make_scratch(c.bitops_max_windows_workspace_size(&windows, pixel_bytes, n_threads))
    with nogil:
        c.bitops_max_windows(c.bitops_isa_active(), &windows, dtype, pixel_bytes, source.start,
                             images, NULL, result.start, workspace.start, &stop, n_threads)
    check_stop(&stop)
    return max_out


def mean_windows(const float[:, :, :, ::1] x, object window, float[:, :, :, ::1] mean_out):
    """Take the mean of each window, channel by channel, with zeros outside.

    Parameters
    ----------
    x : IN, shape (n, h, w, c)
    window : tuple
        A Window of geometry.py.
    mean_out : OUT, shape (n, oh, ow, c)
    """
    cdef c.bitops_image windows
    cdef c.bitops_stop stop = at_signals()
    set_window(window, 1, False, &windows)
    check_size("height", x.shape[1], windows.height)
    check_size("width", x.shape[2], windows.width)
    check_size("images of mean_out", mean_out.shape[0], x.shape[0])
    check_size("height of mean_out", mean_out.shape[1], windows.out_height)
    check_size("width of mean_out", mean_out.shape[2], windows.out_width)
    check_size("channels of mean_out", mean_out.shape[3], x.shape[3])
    if first_number(mean_out) == NULL:
        return
    with nogil:
        c.bitops_mean_windows(c.bitops_isa_active(), &windows, first_number(x), x.shape[0],
                              x.shape[3], <float *>first_number(mean_out), &stop,
                              c.bitops_get_num_threads())
    check_stop(&stop)


def mean_images(const float[:, :, :, ::1] x, float[:, ::1] mean_out):
    """Take the mean of each channel of each image; sums are made in float64, in their order.

    Parameters
    ----------
    x : IN, shape (n, h, w, c), images with positions
    mean_out : OUT, shape (n, c)
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("images of mean_out", mean_out.shape[0], x.shape[0])
    check_size("channels of mean_out", mean_out.shape[1], x.shape[3])
    if first_number(x) == NULL:
        return
    with nogil:
        c.bitops_mean_columns(c.bitops_isa_active(), first_number(x), x.shape[0],
                              x.shape[1] * x.shape[2], x.shape[3], &mean_out[0, 0], &stop,
                              c.bitops_get_num_threads())
    check_stop(&stop)


def is_depthwise(size_t channels, size_t groups, size_t filters):
    """Whether filters of ``channels`` channels are taken packed across their groups."""
    return groups > 0 and bool(c.bitops_is_depthwise(channels, groups, filters))


def sum_taps(const uint64_t[:, :, :, ::1] w, size_t channels, int32_t[:, ::1] sum_out):
    """Sum the weights of each tap of each filter.

    Parameters
    ----------
    w : IN, shape (filters, kh, kw, ceil(channels / 64))
    channels : int
    sum_out : OUT, shape (kh * kw, filters)
    """
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef c.bitops_stop stop = at_signals()
    cdef size_t filters = w.shape[0], taps = w.shape[1] * w.shape[2], words = w.shape[3]
    cdef size_t block = max(<size_t>4096 // max(taps, 1), 1), i = 0, n, f, tap  # filters at a time
    cdef const uint64_t *start = first_word(w)
    cdef Scratch counts = make_scratch(min(block, filters) * taps * sizeof(int64_t))
    cdef int64_t *count = <int64_t *>counts.start
    check_size("words of a tap", words, c.bitops_words(channels))
    check_size("taps of sum_out", sum_out.shape[0], taps)
    check_size("filters of sum_out", sum_out.shape[1], filters)
    if start == NULL:
        sum_out[:, :] = 0
        return
    with nogil:
        while i < filters:
            n = min(block, filters - i)
            c.bitops_popcount_rows(isa, start + i * taps * words, n * taps, words, count, &stop, 1)
            for tap in range(taps):
                for f in range(n):
                    sum_out[tap, i + f] = <int32_t>(2 * count[f * taps + tap] - <int64_t>channels)
            i += n
    check_stop(&stop)


cdef class Convolution:
    """Filters, windows and settings of a convolution, checked once for many batches of images.

    Parameters
    ----------
    window : tuple
        A Window of geometry.py.
    channels : int
        Of a group.
    groups : int
    filters : int
    w : IN, shape (filters, ceil(k / 64)), or Panels of as many groups
        k = taps * channels bits each. If is_depthwise, shape (filters / groups * taps, words of a
        pixel): for each filter of a group and each tap, the bits of all groups.
    tap_sums : IN, shape (taps, filters), or None
        Sums of the weights of each tap; positions outside then add nothing.
    outside : bool
        The bit of positions outside, if they add something.
    """

    cdef c.bitops_conv_args args
    cdef const c.bitops_isa *isa
    cdef object w  # keeps the memory of args alive, as do the offsets
    cdef Scratch offsets

    def __cinit__(self, object window, size_t channels, size_t groups, size_t filters, object w,
                  const int32_t[:, ::1] tap_sums, bint outside):
        cdef const uint64_t[:, ::1] rows
        cdef size_t taps, w_rows = filters, w_words
        cdef Scratch areas
        cdef c.bitops_stop stop = at_signals()
        memset(&self.args, 0, sizeof(self.args))
        self.isa = c.bitops_isa_active()
        self.w = w
        set_window(window, channels, outside, &self.args.image)
        self.args.image.pixel_words = c.bitops_words(times(channels, groups))
        self.args.filters = filters
        self.args.groups = groups
        taps = self.args.image.kernel_height * self.args.image.kernel_width
        w_words = c.bitops_words(taps * channels)
        check_size("groups of filters", 0 if groups == 0 else filters % groups, 0)
        if taps * channels >= <size_t>1 << 31:
            raise ValueError(f"[_core] k must be below 2**31, got {taps * channels}")
        self.args.store.k = taps * channels
        if tap_sums is not None and taps and filters:
            check_size("taps of tap_sums", tap_sums.shape[0], taps)
            check_size("filters of tap_sums", tap_sums.shape[1], filters)
            self.offsets = make_scratch(c.bitops_conv_offsets_size(&self.args))
            areas = make_scratch(c.bitops_conv_areas_size(&self.args))
            with nogil:
                c.bitops_conv_fill_offsets(&self.args, &tap_sums[0, 0], self.offsets.start,
                                           areas.start, &stop)
            check_stop(&stop)
        if isinstance(w, Panels):
            if is_depthwise(channels, groups, filters):
                raise ValueError("[_core] w must not be Panels with one channel a group")
            self.isa = (<Panels>w).isa
            check_size("filters of panels", (<Panels>w).n, filters)
            check_size("groups of panels", (<Panels>w).groups, groups)
            check_size("words of a filter", (<Panels>w).k_words, w_words)
            self.args.panels = (<Panels>w).words
            return
        rows = w
        if is_depthwise(channels, groups, filters):
            w_rows = filters // groups * taps
            w_words = self.args.image.pixel_words
        check_size("rows of w", rows.shape[0], w_rows)
        check_size("words of a row of w", rows.shape[1], w_words)
        self.args.w = <const uint64_t *>first(rows)

    def __reduce__(self):
        raise TypeError("[_core] a Convolution is made for one ISA and cannot be pickled")

    cdef int run(self, const uint64_t[:, :, :, ::1] x, Py_ssize_t c_rows, Py_ssize_t filters,
                 c.bitops_store *store) except -1:
        """Check images and output, and call."""
        check_size("height", x.shape[1], self.args.image.height)
        check_size("width", x.shape[2], self.args.image.width)
        check_size("words of a pixel", x.shape[3], self.args.image.pixel_words)
        check_size("filters of the output", filters, self.args.filters)
        check_size("rows of the output", c_rows, output_rows(x.shape[0], &self.args.image))
        if c_rows == 0 or filters == 0:
            return 0
        return self.call(first_word(x), x.shape[0], store)

    cdef int call(self, const uint64_t *x, size_t images, c.bitops_store *store) except -1:
        """Find scratch memory and convolve."""
        cdef c.bitops_conv_args args = self.args
        cdef int n_threads = c.bitops_get_num_threads()
        cdef c.bitops_stop stop = at_signals()
        cdef Scratch workspace
        args.image.x = x
        args.images = images
        args.store = store[0]
        args.store.k = self.args.store.k
        args.stop = &stop
        workspace = make_scratch(c.bitops_conv_workspace_size(self.isa, &args, n_threads))
        with nogil:
            c.bitops_conv(self.isa, &args, workspace.start, n_threads)
        return check_stop(&stop)

    def dot(self, const uint64_t[:, :, :, ::1] x, int32_t[:, ::1] c_out):
        """Dot products of all windows of the images with the filters of their group.

        Parameters
        ----------
        x : IN, shape (n, h, w, ceil(channels * groups / 64))
        c_out : OUT, shape (n * oh * ow, filters)
        """
        cdef c.bitops_store store = make_store(c.BITOPS_STORE_DOT, 0, c_out)
        self.run(x, c_out.shape[0], c_out.shape[1], &store)

    def scaled(self, const uint64_t[:, :, :, ::1] x, const float[::1] alpha,
               const float[::1] k_map, const float[::1] bias, float[:, ::1] c_out):
        """c = float32(dot) * alpha[filter] * k_map[row] + bias[filter]; see dot."""
        cdef c.bitops_store store = make_store(c.BITOPS_STORE_SCALED, 0, c_out)
        set_scales(&store, alpha, k_map, bias, c_out)
        self.run(x, c_out.shape[0], c_out.shape[1], &store)

    def sign(self, const uint64_t[:, :, :, ::1] x, const int32_t[::1] threshold,
             const uint64_t[::1] flip, uint64_t[:, ::1] c_out):
        """Bits (dot > threshold[filter]) ^ flip[filter], packed along the filters; see dot."""
        cdef c.bitops_store store = make_store(c.BITOPS_STORE_SIGN, 0, c_out)
        set_thresholds(&store, threshold, flip, c_out)
        self.run(x, c_out.shape[0], threshold.shape[0], &store)


include "_move.pxi"
include "_range.pxi"
include "_usual.pxi"
include "_usual_store.pxi"
include "_usual_bits.pxi"
include "_usual_mixed.pxi"


# ---- numbers times weights -------------------------------------------------------------------

cdef c.bitops_mixed_args make_mixed(size_t m, size_t k, const void *x, void *c_out,
                                    bint turned=False) noexcept:
    """With turned, x has k rows of m numbers."""
    cdef c.bitops_mixed_args args
    memset(&args, 0, sizeof(args))
    args.m = k if turned else m
    args.k = m if turned else k
    args.x_turned = turned
    args.x = x
    args.c = c_out
    return args


cdef int check_code_sums(size_t k) except -1:
    """Check that sums of k codes, which may be 255 each, fit int32."""
    if k > MAX_BITS // 255:
        raise ValueError(f"[_core] 255 * k must be below 2**31, got k={k}")
    return 0


cdef int call_mixed(const c.bitops_isa *isa, c.bitops_mixed_args *args) except -1:
    """Find scratch memory and call."""
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()
    cdef Scratch workspace
    args.stop = &stop
    workspace = make_scratch(c.bitops_mixed_workspace_size(isa, args, n_threads))
    with nogil:
        c.bitops_mixed(isa, args, workspace.start, n_threads)
    return check_stop(&stop)


cdef int run_mixed(c.bitops_mixed_args *args, const uint64_t[:, ::1] w, Panels panels,
                   const float[::1] alpha, const float[::1] bias, Py_ssize_t c_rows,
                   Py_ssize_t c_columns) except -1:
    """Fill in weights and scales, check all sizes, and call."""
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    if not args.is_float:
        check_code_sums(args.k)
        if not 1 <= args.bits <= 8:
            raise ValueError(f"[_core] bits must be in 1..8, got {args.bits}")
    if not 0 <= args.zero <= 255 or not 0 <= args.most <= 255:
        raise ValueError(f"[_core] zero and most must be in 0..255, got {args.zero}, {args.most}")
    args.n = w.shape[0]
    args.ldw = w.shape[1]
    check_size("words of a row of w", w.shape[1], c.bitops_words(args.k))
    check_size("rows of the output", c_rows, args.m)
    check_size("columns of the output", c_columns, args.n)
    if c_rows == 0 or c_columns == 0:
        return 0
    if panels is not None:
        check_size("n of panels", panels.n, args.n)
        check_size("words of panels", panels.k_words, w.shape[1])
        if panels.isa == isa:
            args.panels = panels.words
    args.alpha = scales("alpha", alpha, c_columns)
    args.bias = scales("bias", bias, c_columns)
    args.w = <const uint64_t *>first(w)
    return call_mixed(isa, args)


def weight_gemm(const float[:, ::1] x, const uint64_t[:, ::1] w, const float[::1] alpha,
                const float[::1] bias, float[:, ::1] c_out, bint turned=False):
    """c = (x times the signs of w) * alpha[column] + bias[column] in float32.

    Parameters
    ----------
    x : IN, shape (m, k), or (k, m) if turned
    w : IN, shape (n, ceil(k / 64))
    alpha, bias : IN, shape (n,), or None
    c_out : OUT, shape (m, n)
    """
    cdef c.bitops_mixed_args args = make_mixed(x.shape[0], x.shape[1], first(x), first(c_out),
                                                turned)
    args.is_float = 1
    run_mixed(&args, w, None, alpha, bias, c_out.shape[0], c_out.shape[1])


def bitplane_gemm(const uint8_t[:, ::1] x, const uint64_t[:, ::1] w, Panels panels, int bits,
                  int32_t[:, ::1] c_out, bint turned=False, int zero=0, int most=0):
    """c = (x - zero) times the signs of w, exact.

    Parameters
    ----------
    x : IN, shape (m, k), or (k, m) if turned, 255 * k < 2**31
    w : IN, shape (n, ceil(k / 64))
    panels : IN, of w, or None
    bits : int
        Numbers in x are below 2**bits.
    c_out : OUT, shape (m, n)
    zero, most : int, in 0..255
        The code of 0, and the largest magnitude of x - zero; 0 if only bits is known.
    """
    cdef c.bitops_mixed_args args = make_mixed(x.shape[0], x.shape[1], first(x), first(c_out),
                                                turned)
    args.bits, args.zero, args.most = bits, zero, most
    run_mixed(&args, w, panels, None, None, c_out.shape[0], c_out.shape[1])


def bitplane_gemm_scaled(const uint8_t[:, ::1] x, const uint64_t[:, ::1] w, Panels panels,
                         int bits, const float[::1] alpha, const float[::1] bias,
                         float[:, ::1] c_out, bint turned=False, int zero=0, int most=0):
    """c = float32((x - zero) times the signs of w) * alpha[column] + bias[column]; see bitplane_gemm.

    Parameters
    ----------
    alpha, bias : IN, shape (n,), at most one of them None
    c_out : OUT, shape (m, n)
    """
    if alpha is None and bias is None:
        raise ValueError("[_core] alpha or bias must be given, got None for both")
    cdef c.bitops_mixed_args args = make_mixed(x.shape[0], x.shape[1], first(x), first(c_out),
                                                turned)
    args.bits, args.zero, args.most = bits, zero, most
    run_mixed(&args, w, panels, alpha, bias, c_out.shape[0], c_out.shape[1])


include "_score.pxi"
include "_floats.pxi"
include "_gradients.pxi"


# ---- plans -----------------------------------------------------------------------------------

include "_plan.pxi"


# ---- training --------------------------------------------------------------------------------

include "_adam.pxi"
include "_norm.pxi"
include "_prelu.pxi"


# ---- the C interface -------------------------------------------------------------------------

from cpython.pycapsule cimport PyCapsule_New


cdef extern from "c_api.h":
    const void *bitops_c_api() noexcept


_C_API = PyCapsule_New(<void *>bitops_c_api(), "bitops._core._C_API", NULL)


# ---- threads without a GIL -------------------------------------------------------------------

cdef extern from *:
    """
    /* Let threads that use an object at once not count their references in it. */
    static void share_object(PyObject *object) {
    #ifndef Py_GIL_DISABLED
        (void)object;
    #elif PY_VERSION_HEX >= 0x030e0000
        PyUnstable_Object_EnableDeferredRefcount(object);
    #else
        Py_SET_REFCNT(object, PY_SSIZE_T_MAX); /* so it is immortal, as functions of Python are */
    #endif
    }
    """
    void share_object(object)


cdef void share_functions():
    """Let threads call the functions of this module without contending for their counters.

    They are looked up in each call. With two threads that took a tenth of a product of 1 x 64 x 64.
    """
    for function in globals().values():
        if type(function) is type(adam):
            share_object(function)


share_functions()
