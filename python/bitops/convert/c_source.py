"""The functions of generated C, each with those that it calls, and tables of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from .c_numbers import NUMBERS

WINDOW = """\
/* Windows over an image, and the filters that are applied to them; rows are images of one pixel.
   Bits of a pixel are packed: channel i is bit i % 32 of word i / 32, and unused bits are 0. */
struct window {
    int32_t height, width, channels;
    int32_t out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width;
    int32_t stride_y, stride_x, dilation_y, dilation_x;
    int32_t top, left;
    int32_t outside; /* value around the image; 0 counts nothing */
    int32_t planes;  /* of the filters, which are sums of so many times +-1 */
    int32_t groups;
};
"""

_PRODUCTS = {
    "words_of": """\
static int32_t words_of(int32_t bits)
{
    return (bits + 31) / 32;
}
""",
    "as_float": """\
/* The workspace holds numbers as the words that have the same bits. */
static float as_float(uint32_t word)
{
    union {
        uint32_t word;
        float number;
    } both;

    both.word = word;
    return both.number;
}
""",
    "as_word": """\
static uint32_t as_word(float number)
{
    union {
        uint32_t word;
        float number;
    } both;

    both.number = number;
    return both.word;
}
""",
    "bits_at": """\
/* Up to 32 of `count` bits, from some bit on; further bits are 0. */
static uint32_t bits_at(const uint32_t *words, int32_t bit, int32_t count)
{
    const int32_t shift = bit % 32;
    uint32_t word = words[bit / 32] >> shift;

    if (shift > 0 && count > 32 - shift) {
        word |= words[bit / 32 + 1] << (32 - shift);
    }
    return count < 32 ? word & ((UINT32_C(1) << count) - 1u) : word;
}
""",
    "ones": """\
static int32_t ones(uint32_t x)
{
    x -= (x >> 1) & 0x55555555u;
    x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0fu;
    return (int32_t)((uint32_t)(x * 0x01010101u) >> 24);
}
""",
    "place": """\
/* Where position k of a window begins that is at output y, x: a pixel, or -1 outside the image. */
static int32_t place(const struct window *s, int32_t y, int32_t x, int32_t k)
{
    const int32_t row = y * s->stride_y - s->top + k / s->kernel_width * s->dilation_y;
    const int32_t column = x * s->stride_x - s->left + k % s->kernel_width * s->dilation_x;

    if (row < 0 || row >= s->height || column < 0 || column >= s->width) {
        return -1;
    }
    return row * s->width + column;
}
""",
    "sum_of_bits": """\
/* Products of one filter with one window of +-1 bits, from channel `first` on. */
static int32_t sum_of_bits(const struct window *s, const void *image, const uint32_t *filter,
                           int32_t y, int32_t x, int32_t first)
{
    const uint32_t *const pixels = (const uint32_t *)image;
    const int32_t count = s->channels / s->groups, words = words_of(count);
    const int32_t step = words_of(s->channels), taps = s->kernel_height * s->kernel_width;
    int32_t sum = 0;

    for (int32_t k = 0; k < taps; k++, filter += words) {
        const int32_t at = place(s, y, x, k);
        int32_t differ = 0;

        if (at >= 0) {
            for (int32_t i = 0; i < words; i++) {
                const uint32_t bits = bits_at(pixels + at * step, first + 32 * i, count - 32 * i);

                differ += ones(filter[i] ^ bits);
            }
            sum += count - 2 * differ;
        } else if (s->outside != 0) {
            for (int32_t i = 0; i < words; i++) {
                differ += ones(filter[i]);
            }
            sum -= s->outside * (count - 2 * differ);
        }
    }
    return sum;
}
""",
    "sum_of_bytes": """\
/* Products of one filter with one window of 8-bit numbers, from channel `first` on. */
static int32_t sum_of_bytes(const struct window *s, const void *image, const uint32_t *filter,
                            int32_t y, int32_t x, int32_t first)
{
    const uint8_t *const pixels = (const uint8_t *)image + first;
    const int32_t count = s->channels / s->groups, words = words_of(count);
    const int32_t taps = s->kernel_height * s->kernel_width;
    int32_t sum = 0;

    for (int32_t k = 0; k < taps; k++, filter += words) {
        const int32_t at = place(s, y, x, k);

        for (int32_t c = 0; at >= 0 && c < count; c++) {
            const int32_t pixel = pixels[at * s->channels + c];

            sum += (filter[c / 32] >> (c % 32) & 1u) ? pixel : -pixel;
        }
    }
    return sum;
}
""",
    "total": """\
typedef int32_t sum_function(const struct window *, const void *, const uint32_t *, int32_t,
                             int32_t, int32_t);

/* Products of all planes of filter o, each times its coefficient; a single one may have none. */
static int32_t total(sum_function *sum, const struct window *s, const void *image,
                     const uint32_t *weights, const int32_t *coefficients, int32_t y, int32_t x,
                     int32_t o)
{
    const int32_t count = s->channels / s->groups;
    const int32_t words = s->kernel_height * s->kernel_width * words_of(count);
    const int32_t first = o / (s->out_channels / s->groups) * count;
    int32_t result = 0;

    for (int32_t i = 0; i < s->planes; i++) {
        const uint32_t *const filter = weights + (i * s->out_channels + o) * words;

        result += (coefficients ? coefficients[i] : 1) * sum(s, image, filter, y, x, first);
    }
    return result;
}
""",
    "threshold": """\
/* bit = (sum > limit) ^ flip for every output; no flips if they are null. */
static void threshold(sum_function *sum, const struct window *s, const void *image,
                      const uint32_t *weights, const int32_t *coefficients,
                      const int32_t *limits, const uint32_t *flips, uint32_t *out)
{
    const int32_t words = words_of(s->out_channels);

    for (int32_t y = 0; y < s->out_height; y++) {
        for (int32_t x = 0; x < s->out_width; x++, out += words) {
            for (int32_t i = 0; i < words; i++) {
                out[i] = flips ? flips[i] : 0u;
            }
            for (int32_t o = 0; o < s->out_channels; o++) {
                const int32_t z = total(sum, s, image, weights, coefficients, y, x, o);
                const uint32_t bit = z > limits[o];

                out[o / 32] ^= bit << (o % 32);
            }
        }
    }
}
""",
    "products": """\
static void products(sum_function *sum, const struct window *s, const void *image,
                     const uint32_t *weights, const int32_t *coefficients, int32_t *out)
{
    for (int32_t y = 0; y < s->out_height; y++) {
        for (int32_t x = 0; x < s->out_width; x++) {
            for (int32_t o = 0; o < s->out_channels; o++) {
                *out++ = total(sum, s, image, weights, coefficients, y, x, o);
            }
        }
    }
}
""",
    "units": """\
/* Sums for bits that stand for 0 and 1, of those for +-1 and of the sums of the filters. */
static void units(int32_t pixels, int32_t channels, const int32_t *filters, const int32_t *in,
                  int32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        out[i] = (in[i] + filters[i % channels]) / 2; /* always even */
    }
}
""",
    "surround": """\
/* An image with pixels around it that are all `outside`; a pixel has `size` bytes. */
static void surround(int32_t height, int32_t width, int32_t size, int32_t top, int32_t left,
                     int32_t rows, int32_t columns, const void *outside, const void *in, void *out)
{
    unsigned char *to = (unsigned char *)out;

    for (int32_t y = -top; y < rows - top; y++) {
        for (int32_t x = -left; x < columns - left; x++) {
            const int32_t is_inside = y >= 0 && y < height && x >= 0 && x < width;
            const unsigned char *from = (const unsigned char *)(is_inside ? in : outside);

            from += is_inside ? (y * width + x) * size : 0;
            for (int32_t i = 0; i < size; i++) {
                *to++ = *from++;
            }
        }
    }
}
""",
    "give_integers": """\
static void give_integers(int32_t count, const int32_t *in, int32_t *out)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = in[i];
    }
}
""",
    "pool": """\
/* The OR of every window, or the AND in the channels of `minimum`, which may be null. */
static void pool(const struct window *s, const uint32_t *image, const uint32_t *minimum,
                 uint32_t *out)
{
    const int32_t words = words_of(s->channels), taps = s->kernel_height * s->kernel_width;

    for (int32_t y = 0; y < s->out_height; y++) {
        for (int32_t x = 0; x < s->out_width; x++) {
            for (int32_t i = 0; i < words; i++) {
                uint32_t any = 0u, all = 0xffffffffu;

                for (int32_t k = 0; k < taps; k++) {
                    const int32_t at = place(s, y, x, k);

                    if (at >= 0) {
                        any |= image[at * words + i];
                        all &= image[at * words + i];
                    }
                }
                *out++ = minimum ? (any & ~minimum[i]) | (all & minimum[i]) : any;
            }
        }
    }
}
""",
    "flatten": """\
/* The bits of all pixels without gaps between them. */
static void flatten(int32_t pixels, int32_t channels, const uint32_t *image, uint32_t *out)
{
    const int32_t features = pixels * channels, words = words_of(channels);

    for (int32_t i = 0; i < words_of(features); i++) {
        out[i] = 0u;
    }
    for (int32_t i = 0; i < features; i++) {
        const int32_t c = i % channels;

        out[i / 32] |= (image[i / channels * words + c / 32] >> (c % 32) & 1u) << (i % 32);
    }
}
""",
}

# In the order in which they are written; a function stands behind those that it calls.
FUNCTIONS = {**_PRODUCTS, **NUMBERS}


def functions(used: Iterable[str]) -> str:
    """Return the definitions of functions, and of those that they call."""
    needed = set[str]()
    left = set(used)
    while left:
        needed |= left
        words = {word for name in left for word in _WORD.findall(FUNCTIONS[name])}
        left = (words & set(FUNCTIONS)) - needed
    code = "\n".join(text for name, text in FUNCTIONS.items() if name in needed)
    return f"{WINDOW}\n{code}" if "struct window" in code else code


_ELEMENTS = {"uint8": "uint8_t", "uint32": "uint32_t", "int32": "int32_t", "float32": "float"}
_A_LINE = 8
_WORD = re.compile(r"\w+(?=\()")  # what is called


def table(name: str, values: np.ndarray) -> str:
    """Return the definition of a constant array of uint8, uint32, int32 or float32."""
    texts = [_literal(value) for value in values.ravel()]
    rows = (texts[i : i + _A_LINE] for i in range(0, len(texts), _A_LINE))
    lines = ",\n".join("    " + ", ".join(row) for row in rows)
    kind = _ELEMENTS[values.dtype.name]
    return f"static const {kind} {name}[{len(texts)}] = {{\n{lines}\n}};\n"


def _literal(value: np.generic) -> str:
    if isinstance(value, np.uint32):
        return f"0x{int(value):08x}u"
    if isinstance(value, np.float32):
        return f"{float(value).hex()}f"
    # the least number has no literal: C reads -2147483648 as the negative of a larger type
    return "(-2147483647 - 1)" if value == np.iinfo(np.int32).min else str(int(value))
