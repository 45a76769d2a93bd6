# Rows as sets of their 1 bits: values of a metric for all pairs of rows, and the nearest rows.

RANKED_BITS = c.BITOPS_RANKED_BITS  # of rows that topk can order by JACCARD and DICE

ctypedef fused value:
    int32_t
    double


cdef c.bitops_store metric_store(int kind, int32_t k, value[:, ::1] c_out,
                                 const int32_t[::1] a_counts,
                                 const int32_t[::1] w_counts) except *:
    """The store of a metric, whose numbers must be those of c_out."""
    cdef c.bitops_store store = make_store(<c.bitops_store_kind>kind, k, c_out)
    cdef bint is_float = kind == c.BITOPS_STORE_JACCARD or kind == c.BITOPS_STORE_DICE
    if not is_float and kind != c.BITOPS_STORE_HAMMING and kind != c.BITOPS_STORE_INTERSECTION:
        raise ValueError(f"[_core] kind must be a metric, got {kind}")
    if is_float != (sizeof(value) == sizeof(double)):
        raise TypeError("[_core] the output must be float64 for JACCARD and DICE, else int32")
    if kind != c.BITOPS_STORE_HAMMING:
        store.a_counts = &a_counts[0] if a_counts.shape[0] else NULL
        store.w_counts = &w_counts[0] if w_counts.shape[0] else NULL
    return store


cdef int check_counts(const c.bitops_store *store, const int32_t[::1] a_counts,
                      const int32_t[::1] w_counts, Py_ssize_t m, Py_ssize_t n) except -1:
    if store.kind != c.BITOPS_STORE_HAMMING:
        check_size("a_counts", a_counts.shape[0], m)
        check_size("w_counts", w_counts.shape[0], n)
    return 0


def metric(int kind, const uint64_t[:, ::1] a, object w, int32_t k, tuple batch,
           const int32_t[::1] a_counts, const int32_t[::1] w_counts, value[:, ::1] c_out):
    """Compare all pairs of rows; see gemm.

    Parameters
    ----------
    kind : int
        HAMMING, INTERSECTION, JACCARD or DICE.
    a_counts, w_counts : IN
        The 1 bits of each row of a and of w; not read for HAMMING.
    c_out : OUT, shape (m, n), float64 for JACCARD and DICE, else int32
    """
    cdef c.bitops_store store = metric_store(kind, k, c_out, a_counts, w_counts)
    cdef Py_ssize_t n = (<Panels>w).n if isinstance(w, Panels) else len(w)
    check_counts(&store, a_counts, w_counts, a.shape[0], n)
    run_gemm(a, w, batch, c_out.shape[0], c_out.shape[1], &store)


cdef class Lines:
    """The bits of a packed matrix, turned for searches by queries with few 1 bits.

    Parameters
    ----------
    w : IN, shape (n, k_words)
    """

    cdef Scratch memory
    cdef const uint64_t *words
    cdef size_t n
    cdef size_t k_words

    def __cinit__(self, const uint64_t[:, ::1] w):
        cdef c.bitops_stop stop = at_signals()
        self.n = w.shape[0]
        self.k_words = w.shape[1]
        self.memory = make_scratch(c.bitops_lines_size(self.n, self.k_words) * sizeof(uint64_t))
        self.words = <const uint64_t *>self.memory.start
        if self.n and self.k_words:
            with nogil:
                c.bitops_make_lines(c.bitops_isa_active(), &w[0, 0], self.k_words, self.n,
                                    self.k_words, <uint64_t *>self.words, &stop)
        check_stop(&stop)

    def __reduce__(self):
        raise TypeError("[_core] lines cannot be pickled, but Prepacked can")


def lines_pay(int32_t k, const int32_t[::1] a_counts):
    """Tell whether queries of k bits with so many 1 bits are searched faster by lines."""
    cdef c.bitops_gemm_args args
    memset(&args, 0, sizeof(args))
    if a_counts.shape[0] == 0:
        return False
    args.m = a_counts.shape[0]
    args.k_words = c.bitops_words(k)
    args.store.k = k
    args.store.a_counts = &a_counts[0]
    return bool(c.bitops_lines_pay(&args))


def topk(int kind, const uint64_t[:, ::1] a, object w, int32_t k, const int32_t[::1] a_counts,
         const int32_t[::1] w_counts, const uint64_t[::1] allowed, value[:, ::1] values_out,
         int64_t[:, ::1] indices_out, Lines lines=None):
    """Find the nearest rows of w for every row of a, by value and then by index.

    Parameters
    ----------
    kind, a, w, k, a_counts, w_counts
        As for metric; w has at most 2**32 rows, and k is at most RANKED_BITS for JACCARD and DICE.
    allowed : IN, shape (ceil(n / 64),), or None
        A bit for each row of w that may be found.
    values_out : OUT, shape (m, count), count >= 1, of the type of metric's c_out
    indices_out : OUT, shape (m, count)
        Both are -1 where there are not as many rows.
    lines : Lines of w, or None
    """
    cdef c.bitops_gemm_args args
    cdef c.bitops_store store = metric_store(kind, k, values_out, a_counts, w_counts)
    cdef const c.bitops_isa *isa = set_operands(a, w, &store, &args)
    cdef Py_ssize_t count = values_out.shape[1]
    check_counts(&store, a_counts, w_counts, args.m, args.n)
    check_size("rows of values_out", values_out.shape[0], args.m)
    check_size("rows of indices_out", indices_out.shape[0], args.m)
    check_size("columns of indices_out", indices_out.shape[1], count)
    if count < 1:
        raise ValueError("[_core] count must be at least 1, got 0")
    if args.n < 1 or args.n > <size_t>1 << 32:
        raise ValueError(f"[_core] rows of w must be in [1, 2**32], got {args.n}")
    if sizeof(value) == sizeof(double) and k > c.BITOPS_RANKED_BITS:
        raise ValueError(f"[_core] k must be at most {c.BITOPS_RANKED_BITS}, got {k}")
    if allowed is not None:
        check_size("allowed", allowed.shape[0], c.bitops_words(args.n))
        args.store.allowed = &allowed[0]
    if lines is not None:
        check_size("rows of lines", lines.n, args.n)
        check_size("words of lines", lines.k_words, args.k_words)
        args.lines = lines.words
    if args.m:
        call_topk(isa, &args, count, &indices_out[0, 0])


cdef int call_topk(const c.bitops_isa *isa, c.bitops_gemm_args *args, size_t count,
                   int64_t *indices_out) except -1:
    """Find scratch memory and search; the values go to the store."""
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()
    cdef Scratch workspace
    args.stop = &stop
    workspace = make_scratch(c.bitops_topk_workspace_size(isa, args, count, n_threads))
    with nogil:
        c.bitops_topk(isa, args, count, indices_out, workspace.start, n_threads)
    return check_stop(&stop)
