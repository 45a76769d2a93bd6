# Bits that move within rows, or from rows to others, and what is made of those of several rows.

MAJORITY_ROWS = c.BITOPS_MAJORITY_ROWS  # that majority_columns counts at most
AND, OR, XOR = c.BITOPS_AND, c.BITOPS_OR, c.BITOPS_XOR
XNOR, NOT = c.BITOPS_XNOR, c.BITOPS_NOT


def mirror_bytes(const uint8_t[:, :] octets, uint8_t[:, :] octets_out):
    """Copy rows of bytes, with the bits of each byte in reverse order.

    Parameters
    ----------
    octets : IN, shape (rows, n), whose rows are contiguous
    octets_out : OUT, of the same shape, whose rows are contiguous
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("rows of octets_out", octets_out.shape[0], octets.shape[0])
    check_size("bytes of a row", octets_out.shape[1], octets.shape[1])
    if octets.shape[0] == 0 or octets.shape[1] == 0:
        return
    if octets.shape[1] > 1:
        check_size("stride of octets", octets.strides[1], 1)
        check_size("stride of octets_out", octets_out.strides[1], 1)
    with nogil:
        c.bitops_mirror_bytes(&octets[0, 0], octets.strides[0], octets.shape[0], octets.shape[1],
                              &octets_out[0, 0], octets_out.strides[0], &stop,
                              c.bitops_get_num_threads())
    check_stop(&stop)


def copy_bits(const uint64_t[:, ::1] words, size_t first, size_t n, uint64_t[:, ::1] words_out,
              size_t to):
    """Copy the bits [first, first + n) of each row to bits [to, to + n) of another row.

    Parameters
    ----------
    words : IN, shape (rows, words of at least first + n bits)
    words_out : IN and OUT, shape (rows, words of at least to + n bits), whose other bits stay
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("rows of words_out", words_out.shape[0], words.shape[0])
    if n == 0 or words.shape[0] == 0:
        return
    if (c.bitops_words(first + n) > <size_t>words.shape[1]
            or c.bitops_words(to + n) > <size_t>words_out.shape[1]):
        raise ValueError(f"[_core] rows must hold the bits that are copied, got {n} bits")
    with nogil:
        c.bitops_copy_bits(c.bitops_isa_active(), &words[0, 0], words.shape[1], first,
                           words.shape[0], n, &words_out[0, 0], words_out.shape[1], to, &stop,
                           c.bitops_get_num_threads())
    check_stop(&stop)


def take_rows(const uint64_t[:, ::1] words, const int64_t[::1] indices, uint64_t[:, ::1] words_out):
    """Copy the rows of these indices, of which negative ones count from the end.

    Returns whether all are in [-n, n); in the place of other rows nothing is written.

    Parameters
    ----------
    words : IN, shape (n, k_words)
    indices : IN, shape (count,)
    words_out : OUT, shape (count, k_words)
    """
    cdef c.bitops_stop stop = at_signals()
    cdef bint all_there
    check_size("rows of words_out", words_out.shape[0], indices.shape[0])
    check_size("words of a row of words_out", words_out.shape[1], words.shape[1])
    if indices.shape[0] == 0:
        return True
    if words.shape[0] == 0 or words.shape[1] == 0:
        raise ValueError("[_core] there must be rows and words")
    with nogil:
        all_there = c.bitops_take_rows(&words[0, 0], words.shape[0], words.shape[1], &indices[0],
                                       indices.shape[0], &words_out[0, 0], &stop,
                                       c.bitops_get_num_threads())
    check_stop(&stop)
    return all_there


def roll_bits(const uint64_t[:, ::1] words, size_t n, size_t cut, uint64_t[:, ::1] words_out):
    """Write the n bits of each row from bit ``cut`` on, and then those before it.

    Parameters
    ----------
    words : IN, shape (rows, ceil(n / 64))
    cut : 0 < cut < n
    words_out : OUT, of the same shape
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("rows of words_out", words_out.shape[0], words.shape[0])
    check_size("words of a row", words.shape[1], c.bitops_words(n))
    check_size("words of a row of words_out", words_out.shape[1], c.bitops_words(n))
    if not 0 < cut < n:
        raise ValueError(f"[_core] cut must be in [1, {n}), got {cut}")
    if words.shape[0] == 0:
        return
    with nogil:
        c.bitops_roll_bits(c.bitops_isa_active(), &words[0, 0], words.shape[0], n, cut,
                           &words_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


def majority_rows(const uint64_t[:, ::1] words, int64_t least, uint64_t[::1] words_out):
    """Tell of each row whether at least `least` of its bits are 1.

    Parameters
    ----------
    words : IN, shape (rows, k_words)
    words_out : OUT, shape (ceil(rows / 64),)
    """
    cdef c.bitops_stop stop = at_signals()
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    check_size("words_out", words_out.shape[0], c.bitops_words(words.shape[0]))
    if words.shape[0] == 0 or words.shape[1] == 0:
        raise ValueError("[_core] there must be rows and words")
    with nogil:
        c.bitops_majority_rows(isa, &words[0, 0], words.shape[0], words.shape[1], least,
                               &words_out[0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)


def majority_columns(const uint64_t[:, :, :] words, uint64_t least, uint64_t[:, ::1] words_out):
    """Tell of each position whether at least `least` of the rows have a 1 there.

    Parameters
    ----------
    words : IN, shape (outer, rows, n_words), 1 to MAJORITY_ROWS rows, whose words are contiguous;
        no stride is negative
    words_out : OUT, shape (outer, n_words)
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("rows of words_out", words_out.shape[0], words.shape[0])
    check_size("words of a row of words_out", words_out.shape[1], words.shape[2])
    if not 0 < words.shape[1] <= MAJORITY_ROWS:
        raise ValueError(f"[_core] there must be 1 to {MAJORITY_ROWS} rows, got {words.shape[1]}")
    if words_out.shape[0] == 0 or words_out.shape[1] == 0:
        return
    if words.shape[2] > 1:
        check_size("stride of words", words.strides[2], sizeof(uint64_t))
    if words.strides[0] < 0 or words.strides[1] < 0:
        raise ValueError("[_core] strides must not be negative")
    with nogil:
        c.bitops_majority_columns(c.bitops_isa_active(), &words[0, 0, 0],
                                  words.strides[0] // <ptrdiff_t>sizeof(uint64_t),
                                  words.strides[1] // <ptrdiff_t>sizeof(uint64_t), words.shape[0],
                                  words.shape[1], words.shape[2], least, &words_out[0, 0], &stop,
                                  c.bitops_get_num_threads())
    check_stop(&stop)


def flip_bits(const uint64_t[:, ::1] words, size_t n, uint64_t[:, ::1] words_out):
    """Write the n bits of each row in reverse order.

    Parameters
    ----------
    words : IN, shape (rows, ceil(n / 64))
    words_out : OUT, of the same shape
    """
    cdef c.bitops_stop stop = at_signals()
    cdef const c.bitops_isa *isa = c.bitops_isa_active()
    check_size("rows of words_out", words_out.shape[0], words.shape[0])
    check_size("words of a row", words.shape[1], c.bitops_words(n))
    check_size("words of a row of words_out", words_out.shape[1], c.bitops_words(n))
    if n == 0 or words.shape[0] == 0:
        return
    with nogil:
        c.bitops_flip_bits(isa, &words[0, 0], words.shape[0], n, &words_out[0, 0], &stop,
                           c.bitops_get_num_threads())
    check_stop(&stop)


def combine(int logic, const uint64_t[:, ::1] a, const uint64_t[:, ::1] b, size_t n,
            uint64_t[:, ::1] words_out):
    """Write AND, OR, XOR or XNOR of rows of n bits, or NOT of those of a, past the caches.

    Parameters
    ----------
    a, b : IN, shape (rows, ceil(n / 64)); of NOT b is not read
    words_out : OUT, of the same shape
    """
    cdef c.bitops_stop stop = at_signals()
    check_size("rows of a", a.shape[0], words_out.shape[0])
    check_size("words of a row of a", a.shape[1], words_out.shape[1])
    check_size("rows of b", b.shape[0], words_out.shape[0])
    check_size("words of a row of b", b.shape[1], words_out.shape[1])
    check_size("words of a row of words_out", words_out.shape[1], c.bitops_words(n))
    if not AND <= logic <= NOT:
        raise ValueError(f"[_core] logic must be one of AND to NOT, got {logic}")
    if n == 0 or words_out.shape[0] == 0:
        return
    with nogil:
        c.bitops_combine(<c.bitops_logic>logic, &a[0, 0], &b[0, 0], words_out.shape[0], n,
                         &words_out[0, 0], &stop, c.bitops_get_num_threads())
    check_stop(&stop)
