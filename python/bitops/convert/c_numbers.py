"""The functions of generated C that work on float numbers; `c_source` has the others."""

NUMBERS = {
    "sum_of_signs": """\
/* Numbers of one window, from channel `first` on, times +-1. They are added in groups of four,
   ((x0 + x1) + x2) + x3, and the groups one behind the other. */
static float sum_of_signs(const struct window *s, const uint32_t *image, const void *weights,
                          int32_t filter, int32_t y, int32_t x, int32_t first)
{
    const int32_t count = s->channels / s->groups, words = words_of(count);
    const int32_t taps = s->kernel_height * s->kernel_width;
    const uint32_t *signs = (const uint32_t *)weights + filter * taps * words;
    float sum = 0.0f, four = 0.0f;
    int32_t terms = 0;

    for (int32_t k = 0; k < taps; k++, signs += words) {
        const int32_t at = place(s, y, x, k);

        for (int32_t c = 0; c < count; c++, terms++) {
            const float number = at < 0 ? 0.0f : as_float(image[at * s->channels + first + c]);
            const float term = (signs[c / 32] >> (c % 32) & 1u) ? number : -number;

            if (terms % 4 == 0) {
                sum += four;
                four = term;
            } else {
                four += term;
            }
        }
    }
    return sum + four;
}
""",
    "sum_of_floats": """\
/* Numbers of one window, from channel `first` on, times float weights, one after the other. */
static float sum_of_floats(const struct window *s, const uint32_t *image, const void *weights,
                           int32_t filter, int32_t y, int32_t x, int32_t first)
{
    const int32_t count = s->channels / s->groups, taps = s->kernel_height * s->kernel_width;
    const float *factors = (const float *)weights + filter * taps * count;
    float sum = 0.0f;

    for (int32_t k = 0; k < taps; k++, factors += count) {
        const int32_t at = place(s, y, x, k);

        for (int32_t c = 0; at >= 0 && c < count; c++) {
            sum += as_float(image[at * s->channels + first + c]) * factors[c];
        }
    }
    return sum;
}
""",
    "real_total": """\
typedef float real_function(const struct window *, const uint32_t *, const void *, int32_t,
                            int32_t, int32_t, int32_t);

/* As `total`, for numbers. */
static float real_total(real_function *sum, const struct window *s, const uint32_t *image,
                        const void *weights, const int32_t *coefficients, int32_t y, int32_t x,
                        int32_t o)
{
    const int32_t first = o / (s->out_channels / s->groups) * (s->channels / s->groups);
    float result = 0.0f;

    for (int32_t i = 0; i < s->planes; i++) {
        const float part = sum(s, image, weights, i * s->out_channels + o, y, x, first);

        result += coefficients ? part * (float)coefficients[i] : part;
    }
    return result;
}
""",
    "real_threshold": """\
static void real_threshold(real_function *sum, const struct window *s, const uint32_t *image,
                           const void *weights, const int32_t *coefficients,
                           const float *limits, const uint32_t *flips, uint32_t *out)
{
    const int32_t words = words_of(s->out_channels);

    for (int32_t y = 0; y < s->out_height; y++) {
        for (int32_t x = 0; x < s->out_width; x++, out += words) {
            for (int32_t i = 0; i < words; i++) {
                out[i] = flips ? flips[i] : 0u;
            }
            for (int32_t o = 0; o < s->out_channels; o++) {
                const float z = real_total(sum, s, image, weights, coefficients, y, x, o);
                const uint32_t bit = z > limits[o];

                out[o / 32] ^= bit << (o % 32);
            }
        }
    }
}
""",
    "real_products": """\
static void real_products(real_function *sum, const struct window *s, const uint32_t *image,
                          const void *weights, const int32_t *coefficients, uint32_t *out)
{
    for (int32_t y = 0; y < s->out_height; y++) {
        for (int32_t x = 0; x < s->out_width; x++) {
            for (int32_t o = 0; o < s->out_channels; o++) {
                *out++ = as_word(real_total(sum, s, image, weights, coefficients, y, x, o));
            }
        }
    }
}
""",
    "take_floats": """\
static void take_floats(int32_t count, const float *in, uint32_t *out)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = as_word(in[i]);
    }
}
""",
    "affine": """\
/* number * alpha + bias; either may be null. */
static void affine(int32_t pixels, int32_t channels, const float *alpha,
                   const float *bias, const uint32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        float number = as_float(in[i]);

        if (alpha) {
            number *= alpha[i % channels];
        }
        if (bias) {
            number += bias[i % channels];
        }
        out[i] = as_word(number);
    }
}
""",
    "clip": """\
/* The nearest number in low..high. */
static void clip(int32_t pixels, int32_t channels, float low, float high,
                 const uint32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        float number = as_float(in[i]);

        number = number < low ? low : number;
        number = number > high ? high : number;
        out[i] = as_word(number);
    }
}
""",
    "prelu": """\
/* Negative numbers times a slope. */
static void prelu(int32_t pixels, int32_t channels, const float *slopes,
                  const uint32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        float number = as_float(in[i]);

        number = number < 0 ? number * slopes[i % channels] : number;
        out[i] = as_word(number);
    }
}
""",
    "rprelu": """\
/* PReLU with shifts before and behind it. */
static void rprelu(int32_t pixels, int32_t channels, const float *shifts, const float *slopes,
                   const float *offsets, const uint32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        float number = as_float(in[i]) - shifts[i % channels];

        number = number < 0 ? number * slopes[i % channels] : number;
        out[i] = as_word(number + offsets[i % channels]);
    }
}
""",
    "scale": """\
/* number * step. */
static void scale(int32_t pixels, int32_t channels, float step,
                  const uint32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        float number = as_float(in[i]);

        number *= step;
        out[i] = as_word(number);
    }
}
""",
    "floats_of_ints": """\
static void floats_of_ints(int32_t count, const int32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = as_word((float)in[i]);
    }
}
""",
    "floats_of_bytes": """\
static void floats_of_bytes(int32_t count, const void *in, uint32_t *out)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = as_word((float)((const uint8_t *)in)[i]);
    }
}
""",
    "floats_of_bits": """\
/* The numbers that the bits 0 and 1 stand for. */
static void floats_of_bits(int32_t pixels, int32_t channels, float zero, float one,
                           const uint32_t *in, uint32_t *out)
{
    for (int32_t p = 0; p < pixels; p++, in += words_of(channels)) {
        for (int32_t c = 0; c < channels; c++) {
            *out++ = as_word((in[c / 32] >> (c % 32) & 1u) ? one : zero);
        }
    }
}
""",
    "signs": """\
/* bit = (number > limit) ^ flip; without limits it is number >= 0. */
static void signs(int32_t pixels, int32_t channels, const float *limits, const uint32_t *flips,
                  const uint32_t *in, uint32_t *out)
{
    const int32_t words = words_of(channels);

    for (int32_t p = 0; p < pixels; p++, out += words) {
        for (int32_t i = 0; i < words; i++) {
            out[i] = flips ? flips[i] : 0u;
        }
        for (int32_t c = 0; c < channels; c++) {
            const float number = as_float(*in++);
            const uint32_t bit = limits ? number > limits[c] : number >= 0;

            out[c / 32] ^= bit << (c % 32);
        }
    }
}
""",
    "codes": """\
/* How many thresholds of its channel each number reaches; one row may serve all channels. */
static void codes(int32_t count, int32_t rows, int32_t levels, const float *thresholds,
                  const uint32_t *in, uint8_t *out)
{
    for (int32_t i = 0; i < count; i++) {
        const float *const row = thresholds + i % rows * levels;
        uint8_t code = 0;

        while (code < levels && as_float(in[i]) >= row[code]) {
            code++;
        }
        out[i] = code;
    }
}
""",
    "maxima": """\
/* The largest number of every window, or the least in the channels of `minimum`, or null. */
static void maxima(const struct window *s, const uint32_t *image, const uint32_t *minimum,
                   uint32_t *out)
{
    const int32_t taps = s->kernel_height * s->kernel_width;

    for (int32_t y = 0; y < s->out_height; y++) {
        for (int32_t x = 0; x < s->out_width; x++) {
            for (int32_t c = 0; c < s->channels; c++) {
                const uint32_t is_least = minimum ? minimum[c / 32] >> (c % 32) & 1u : 0u;
                float most = 0.0f;
                int32_t found = 0;

                for (int32_t k = 0; k < taps; k++) {
                    const int32_t at = place(s, y, x, k);

                    if (at >= 0) {
                        const float number = as_float(image[at * s->channels + c]);

                        most = found && (is_least ? most < number : most > number) ? most : number;
                        found = 1;
                    }
                }
                *out++ = as_word(most);
            }
        }
    }
}
""",
    "means": """\
/* The mean of every window; positions outside the image count as zeros. */
static void means(const struct window *s, const uint32_t *image, uint32_t *out)
{
    const int32_t taps = s->kernel_height * s->kernel_width;

    for (int32_t y = 0; y < s->out_height; y++) {
        for (int32_t x = 0; x < s->out_width; x++) {
            for (int32_t c = 0; c < s->channels; c++) {
                float sum = 0.0f;

                for (int32_t k = 0; k < taps; k++) {
                    const int32_t at = place(s, y, x, k);

                    sum += at < 0 ? 0.0f : as_float(image[at * s->channels + c]);
                }
                *out++ = as_word(sum / (float)taps);
            }
        }
    }
}
""",
    "mean_of_pixels": """\
static void mean_of_pixels(int32_t pixels, int32_t channels, const uint32_t *in, uint32_t *out)
{
    for (int32_t c = 0; c < channels; c++) {
        double sum = 0.0;

        for (int32_t p = 0; p < pixels; p++) {
            sum += (double)as_float(in[p * channels + c]);
        }
        out[c] = as_word((float)(sum / pixels));
    }
}
""",
    "magnitudes": """\
/* The mean magnitude of every pixel: channels in 16 sums, and these in pairs. */
static void magnitudes(int32_t pixels, int32_t channels, const uint32_t *in, uint32_t *out)
{
    for (int32_t p = 0; p < pixels; p++) {
        float sums[16] = {0.0f};

        for (int32_t c = 0; c < channels; c++) {
            const float number = as_float(*in++);

            sums[c % 16] += number < 0 ? -number : number;
        }
        for (int32_t half = 8; half > 0; half /= 2) {
            for (int32_t i = 0; i < half; i++) {
                sums[i] += sums[i + half];
            }
        }
        *out++ = as_word(sums[0] / (float)channels);
    }
}
""",
    "exponential": """\
/* e^x up to the last two bits: 2^n times a series for what is left of x. */
static float exponential(float x)
{
    static const float terms[7] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                   1.0f / 6,    1.0f / 2,   1.0f};
    float rest, y = terms[0];
    int32_t n;

    if (x > 88.8f) {
        return as_float(0x7f800000u);
    }
    if (!(x > -104.0f)) {
        return x < 0 ? 0.0f : x; /* x may be no number */
    }
    n = (int32_t)(x * 1.442695041f + (x < 0 ? -0.5f : 0.5f));
    rest = x - (float)n * 0.693359375f + (float)n * 2.12194440e-4f;
    for (int32_t i = 1; i < 7; i++) {
        y = y * rest + terms[i];
    }
    y = y * rest + 1.0f;
    /* in two factors, as 2^n may be no float where the product is one */
    y *= as_float((uint32_t)(n / 2 + 127) << 23);
    return y * as_float((uint32_t)(n - n / 2 + 127) << 23);
}
""",
    "sigmoid": """\
static void sigmoid(int32_t pixels, int32_t channels, const uint32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        out[i] = as_word(1.0f / (1.0f + exponential(-as_float(in[i]))));
    }
}
""",
    "tanh_of": """\
/* The hyperbolic tangent: a series near 0, where the quotient would lose bits. */
static void tanh_of(int32_t pixels, int32_t channels, const uint32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        const float x = as_float(in[i]), square = x * x;
        float y = -5.70498873e-3f;

        if (square < 0.390625f) {
            y = y * square + 2.06390888e-2f;
            y = y * square - 5.37397155e-2f;
            y = y * square + 1.33314422e-1f;
            y = y * square - 3.33332819e-1f;
            y = y * square * x + x;
        } else {
            y = 1.0f - 2.0f / (exponential(x < 0 ? -2.0f * x : 2.0f * x) + 1.0f);
            y = x < 0 ? -y : y;
        }
        out[i] = as_word(y);
    }
}
""",
    "softmax": """\
static void softmax(int32_t pixels, int32_t channels, const uint32_t *in, uint32_t *out)
{
    for (int32_t p = 0; p < pixels; p++, in += channels, out += channels) {
        float most = as_float(in[0]), sum = 0.0f;

        for (int32_t c = 1; c < channels; c++) {
            most = most > as_float(in[c]) ? most : as_float(in[c]);
        }
        for (int32_t c = 0; c < channels; c++) {
            const float y = exponential(as_float(in[c]) - most);

            out[c] = as_word(y);
            sum += y;
        }
        for (int32_t c = 0; c < channels; c++) {
            out[c] = as_word(as_float(out[c]) / sum);
        }
    }
}
""",
    "add": """\
static void add(int32_t count, const uint32_t *one, const uint32_t *two, uint32_t *out)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = as_word(as_float(one[i]) + as_float(two[i]));
    }
}
""",
    "times": """\
/* Products of numbers with factors, of which there may be fewer; then they repeat. */
static void times(int32_t count, int32_t factors, const uint32_t *one, const uint32_t *two,
                  uint32_t *out)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = as_word(as_float(one[i]) * as_float(two[i % factors]));
    }
}
""",
    "times_of_pixels": """\
/* The numbers of each pixel times the factor of the pixel. */
static void times_of_pixels(int32_t pixels, int32_t channels, const uint32_t *factors,
                            const uint32_t *in, uint32_t *out)
{
    for (int32_t i = 0; i < pixels * channels; i++) {
        out[i] = as_word(as_float(in[i]) * as_float(factors[i / channels]));
    }
}
""",
    "pad_features": """\
/* Zeros before and behind the numbers of each pixel. */
static void pad_features(int32_t pixels, int32_t channels, int32_t before, int32_t after,
                         const uint32_t *in, uint32_t *out)
{
    for (int32_t p = 0; p < pixels; p++) {
        for (int32_t c = -before; c < channels + after; c++) {
            *out++ = c < 0 || c >= channels ? 0u : *in++;
        }
    }
}
""",
    "beside": """\
/* The channels of two images side by side. */
static void beside(int32_t pixels, int32_t channels, int32_t more, const uint32_t *one,
                   const uint32_t *two, uint32_t *out)
{
    for (int32_t p = 0; p < pixels; p++) {
        for (int32_t c = 0; c < channels; c++) {
            *out++ = *one++;
        }
        for (int32_t c = 0; c < more; c++) {
            *out++ = *two++;
        }
    }
}
""",
    "give_floats": """\
static void give_floats(int32_t count, const uint32_t *in, float *out)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = as_float(in[i]);
    }
}
""",
}
