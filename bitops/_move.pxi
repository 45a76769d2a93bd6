# Bits that move within rows, or from rows to others.


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
        c.bitops_copy_bits(&words[0, 0], words.shape[1], first, words.shape[0], n,
                           &words_out[0, 0], words_out.shape[1], to, &stop,
                           c.bitops_get_num_threads())
    check_stop(&stop)


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
        c.bitops_roll_bits(&words[0, 0], words.shape[0], n, cut, &words_out[0, 0], &stop,
                           c.bitops_get_num_threads())
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
