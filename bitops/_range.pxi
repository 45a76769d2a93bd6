# Pairs of rows within a distance. Included by _core.pyx.

SCAN_WORDS = c.BITOPS_SCAN_WORDS


cdef class Found:
    """Pairs of rows that a search has found, in no particular order."""

    cdef Scratch memory
    cdef c.bitops_found *lists  # of the threads
    cdef size_t count  # of lists

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.count):
            c.bitops_found_free(&self.lists[i])

    def __len__(self):
        cdef size_t i, sum = 0
        for i in range(self.count):
            sum += self.lists[i].count
        return sum

    def copy(self, uint64_t[::1] pairs_out, int32_t[::1] distances_out):
        """Copy all pairs, as row of a << 32 | row of b, and their distances.

        Parameters
        ----------
        pairs_out, distances_out : OUT, shape (len(self),)
        """
        cdef size_t i, done = 0
        cdef c.bitops_found *own
        check_size("pairs_out", pairs_out.shape[0], len(self))
        check_size("distances_out", distances_out.shape[0], len(self))
        for i in range(self.count):
            own = &self.lists[i]
            if own.count:
                memcpy(&pairs_out[done], own.pairs, own.count * sizeof(uint64_t))
                memcpy(&distances_out[done], own.distances, own.count * sizeof(int32_t))
            done += own.count


cdef Found make_found(size_t count):
    """Empty lists for so many threads."""
    cdef Found found = Found.__new__(Found)
    found.memory = make_scratch(count * sizeof(c.bitops_found))
    memset(found.memory.start, 0, found.memory.size)
    found.lists = <c.bitops_found *>found.memory.start
    found.count = count
    return found


cdef int check_found(bint complete, const c.bitops_stop *stop) except -1:
    """Raise if the search was stopped or had no memory for what it found."""
    check_stop(stop)
    if not complete:
        raise MemoryError("[_core] memory for the pairs that were found is not available")
    return 0


cdef size_t row_distance(const uint64_t[:, :] words) except? 0:
    """The distance between rows, whose words must lie side by side, in words."""
    if words.shape[1] > 1:
        check_size("stride of words", words.strides[1], sizeof(uint64_t))
    if words.shape[0] < 2:
        return words.shape[1]
    if words.strides[0] < 0 or words.strides[0] % sizeof(uint64_t):
        raise ValueError(f"[_core] rows must ascend in whole words, got {words.strides[0]} bytes")
    return words.strides[0] // sizeof(uint64_t)


cdef c.bitops_range_args range_args(const uint64_t[:, :] a, const uint64_t[:, :] b,
                                    int32_t radius, bint upper) except *:
    """Check two matrices of words, without empty ones, whose rows are compared."""
    cdef c.bitops_range_args args
    memset(&args, 0, sizeof(args))
    check_size("words of a row", b.shape[1], a.shape[1])
    if a.shape[0] + b.shape[0] >= <size_t>1 << 32 or radius < 0 or a.shape[1] == 0:
        raise ValueError("[_core] rows, words and the radius must be in range")
    args.k_words = a.shape[1]
    args.lda, args.ldb = row_distance(a), row_distance(b)
    args.m, args.n = a.shape[0], b.shape[0]
    args.radius, args.upper = radius, upper
    if args.m and args.n:
        args.a, args.b = &a[0, 0], &b[0, 0]
    return args


def scan(const uint64_t[:, :] a, const uint64_t[:, :] b, int32_t radius, bint upper,
         size_t first, size_t rows, size_t first_words, const float[:, ::1] bounds=None,
         const int32_t[::1] b_counts=None):
    """Compare rows [first, first + rows) of a with all rows of b; return Found.

    Parameters
    ----------
    a, b : IN, shapes (m, k_words) and (n, k_words), m + n < 2**32, k_words > 0
        Words of a row lie side by side.
    radius : at least 0
    upper : whether b is a, and only pairs i < j are wanted
    first_words : in [1, min(k_words, SCAN_WORDS)]
        The words of the folds that are compared at first.
    bounds : IN, shape (m, 2), or None
        A factor and a term for each row of a: pairs have fewer than factor b_count + term
        mismatches.
    b_counts : IN, shape (n,), or None
        1 bits of the rows of b, with bounds.
    """
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()
    cdef c.bitops_range_args args = range_args(a, b, radius, upper)
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef Found found = make_found(n_threads)
    cdef Scratch workspace
    cdef bint complete
    args.stop = &stop
    if bounds is not None:
        check_size("rows of bounds", bounds.shape[0], args.m)
        check_size("columns of bounds", bounds.shape[1], 2)
        check_size("b_counts", b_counts.shape[0], args.n)
        if args.a != NULL:
            args.bounds, args.b_counts = <const c.bitops_bound *>&bounds[0, 0], &b_counts[0]
    if first + rows > args.m or not 1 <= first_words <= min(args.k_words, c.BITOPS_SCAN_WORDS):
        raise ValueError("[_core] rows and words must be those of a, and the words not too many")
    if args.a == NULL or rows == 0:
        return found
    workspace = make_scratch(c.bitops_scan_workspace_size(isa, &args, rows, first_words,
                                                          n_threads))
    with nogil:
        complete = c.bitops_scan(isa, &args, first, rows, first_words, found.lists,
                                 workspace.start, n_threads)
    check_found(complete, &stop)
    return found


def join(const uint64_t[:, :] a, const uint64_t[:, :] b, int32_t radius, bint upper,
         const uint32_t[:, ::1] chunks, const uint32_t[:, ::1] choices, uint64_t most_compared,
         uint64_t[::1] compared_out):
    """Compare the rows that agree in some chunks; return Found.

    Parameters
    ----------
    a, b, radius, upper
        As for scan.
    chunks : IN, shape (chunks, 2)
        The first bit of each, and how many bits it has.
    choices : IN, shape (choices, together)
        Ascending numbers of chunks, which have at most 32 bits in all.
    most_compared : pairs that a choice may compare before it ends early
    compared_out : OUT, shape (choices,)
    """
    cdef int n_threads = c.bitops_get_num_threads()
    cdef c.bitops_stop stop = at_signals()
    cdef c.bitops_join_args args
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    cdef Found found = make_found(n_threads)
    cdef Scratch workspace
    cdef bint complete
    args.range = range_args(a, b, radius, upper)
    args.range.stop = &stop
    check_size("columns of chunks", chunks.shape[1], 2)
    check_size("compared_out", compared_out.shape[0], choices.shape[0])
    check_choices(chunks, choices, args.range.k_words)
    if args.range.a == NULL or choices.shape[0] == 0:
        compared_out[:] = 0
        return found
    args.chunks = <const c.bitops_chunk *>&chunks[0, 0]
    args.choices = &choices[0, 0]
    args.together, args.count = choices.shape[1], choices.shape[0]
    workspace = make_scratch(c.bitops_join_workspace_size(&args, n_threads))
    with nogil:
        complete = c.bitops_join(isa, &args, most_compared, &compared_out[0], found.lists,
                                 workspace.start, n_threads)
    check_found(complete, &stop)
    return found


cdef int check_choices(const uint32_t[:, ::1] chunks, const uint32_t[:, ::1] choices,
                       size_t k_words) except -1:
    """Check that chunks lie within rows, and that the choices are ascending and fit a key."""
    cdef size_t i, s, bits
    for i in range(chunks.shape[0]):
        if not 1 <= chunks[i, 1] <= 32 or <size_t>chunks[i, 0] + <size_t>chunks[i, 1] > 64 * k_words:
            raise ValueError("[_core] a chunk must lie within a row and have 1 to 32 bits")
    for i in range(choices.shape[0]):
        bits = 0
        for s in range(choices.shape[1]):
            if choices[i, s] >= chunks.shape[0] or (s > 0 and choices[i, s] <= choices[i, s - 1]):
                raise ValueError("[_core] choices must be ascending numbers of chunks")
            bits += chunks[choices[i, s], 1]
        if not 1 <= bits <= 32:
            raise ValueError(f"[_core] a choice must have 1 to 32 bits, got {bits}")
    return 0
