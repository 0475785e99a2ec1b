#include "kernels.h"

#include <string.h>

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define SCENE_MVE 1
#include <arm_mve.h>
#elif defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
#define SCENE_DSP 1
#include <arm_acle.h>
#endif

/* >> of a negative number has to keep its sign, as every known compiler does it. */
typedef char scene_needs_arithmetic_shift[(-1 >> 1) == -1 ? 1 : -1];

/* --- rounding --- */

static inline int32_t saturate(int32_t value)
{
#if defined(SCENE_DSP) || defined(SCENE_MVE)
    int32_t held;
    __asm__("ssat %0, #8, %1" : "=r"(held) : "r"(value) : "cc");
    return held;
#else
    return value < -128 ? -128 : value > 127 ? 127 : value;
#endif
}

/* The upper half of the 64-bit product, rounded down: one instruction (SMMUL). */
static inline int32_t high_product(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b) >> 32);
}

/* What is added before the last shift: the output's zero point and one half. */
static inline int32_t rounding(int32_t zero_point, int32_t shift)
{
    const int32_t by = shift > 0 ? shift : 1;
    return zero_point * ((int32_t)1 << by) + ((int32_t)1 << (by - 1));
}

/* A factor of 1/4 or more. An accumulator of 2^19 then saturates in any case. */
static int32_t requantise_large(int32_t sum, int32_t multiplier, int32_t shift, int32_t offset)
{
    const int32_t most = (int32_t)1 << 19;
    const int32_t held = sum < -most ? -most : sum > most ? most : sum;
    return saturate((high_product(held * ((int32_t)1 << (1 - shift)), multiplier) + offset) >> 1);
}

static inline int32_t requantise(int32_t sum, int32_t multiplier, int32_t shift, int32_t offset)
{
    if (shift < 1) {
        return requantise_large(sum, multiplier, shift, offset);
    }
    return saturate((high_product(sum, multiplier) + offset) >> shift);
}

/* --- products of rows: two rows of the input with two rows of weights --- */

typedef struct {
    int32_t of[4]; /* in 0 weights 0, in 0 weights 1, in 1 weights 0, in 1 weights 1 */
} sums;

#ifdef SCENE_DSP
static inline uint32_t four(const int8_t *from)
{
    uint32_t word; /* one load; -ffreestanding would make a call of plain memcpy */
    __builtin_memcpy(&word, from, sizeof word);
    return word;
}

/* Bytes 0 and 2 of a word as two int16. */
static inline int16x2_t even(uint32_t word)
{
    int16x2_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

/* Bytes 1 and 3 of a word as two int16. */
static inline int16x2_t odd(uint32_t word)
{
    int16x2_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* The same with a number added to both. */
static inline int16x2_t even_plus(uint32_t word, uint32_t added)
{
    int16x2_t pair;
    __asm__("sxtab16 %0, %1, %2" : "=r"(pair) : "r"(added), "r"(word));
    return pair;
}

static inline int16x2_t odd_plus(uint32_t word, uint32_t added)
{
    int16x2_t pair;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(pair) : "r"(added), "r"(word));
    return pair;
}

static inline uint32_t both_halves(int32_t value)
{
    return ((uint32_t)value & 0xFFFFu) * 0x10001u;
}
#endif

#ifdef SCENE_MVE
static inline int32_t mve_product(const int8_t *in, const int8_t *weights, size_t count)
{
    int32_t sum = 0;
    for (size_t i = 0; i < count; i += 16) {
        const mve_pred16_t tail = vctp8q((uint32_t)(count - i));
        sum = vmladavaq_p_s8(sum, vldrbq_z_s8(in + i, tail), vldrbq_z_s8(weights + i, tail), tail);
    }
    return sum;
}

static inline int32_t mve_sum(const int8_t *weights, size_t count)
{
    int32_t sum = 0;
    for (size_t i = 0; i < count; i += 16) {
        const mve_pred16_t tail = vctp8q((uint32_t)(count - i));
        sum = vaddvaq_p_s8(sum, vldrbq_z_s8(weights + i, tail), tail);
    }
    return sum;
}
#endif

/* sums += (in - zero_point) * weights over `count` values. */
static inline void products(const int8_t *in0, const int8_t *in1, const int8_t *weights0,
                            const int8_t *weights1, size_t count, int32_t zero_point,
                            sums *found)
{
#if defined(SCENE_MVE)
    int32_t s00 = found->of[0], s01 = found->of[1], s10 = found->of[2], s11 = found->of[3];
    for (size_t i = 0; i < count; i += 16) {
        const mve_pred16_t tail = vctp8q((uint32_t)(count - i));
        const int8x16_t a0 = vldrbq_z_s8(in0 + i, tail), a1 = vldrbq_z_s8(in1 + i, tail);
        const int8x16_t b0 = vldrbq_z_s8(weights0 + i, tail);
        const int8x16_t b1 = vldrbq_z_s8(weights1 + i, tail);
        s00 = vmladavaq_s8(s00, a0, b0);
        s01 = vmladavaq_s8(s01, a0, b1);
        s10 = vmladavaq_s8(s10, a1, b0);
        s11 = vmladavaq_s8(s11, a1, b1);
    }
    if (zero_point != 0) {
        const int32_t less0 = zero_point * mve_sum(weights0, count);
        const int32_t less1 = zero_point * mve_sum(weights1, count);
        s00 -= less0;
        s01 -= less1;
        s10 -= less0;
        s11 -= less1;
    }
#else
    int32_t s00 = found->of[0], s01 = found->of[1], s10 = found->of[2], s11 = found->of[3];
#ifdef SCENE_DSP
    const uint32_t less = both_halves(-zero_point);
    const int8_t *const end = weights0 + (count & ~(size_t)3);
    const ptrdiff_t apart = in1 - in0;
    while (weights0 != end) {
        const uint32_t w0 = four(weights0), w1 = four(weights1);
        const int16x2_t w0e = even(w0), w0o = odd(w0), w1e = even(w1), w1o = odd(w1);
        const uint32_t x1 = four(in0 + apart);
        const int16x2_t x1e = even_plus(x1, less);
        s10 = __smlad(x1e, w0e, s10);
        s11 = __smlad(x1e, w1e, s11);
        const int16x2_t x1o = odd_plus(x1, less);
        s10 = __smlad(x1o, w0o, s10);
        s11 = __smlad(x1o, w1o, s11);
        const uint32_t x0 = four(in0);
        const int16x2_t x0e = even_plus(x0, less);
        s00 = __smlad(x0e, w0e, s00);
        s01 = __smlad(x0e, w1e, s01);
        const int16x2_t x0o = odd_plus(x0, less);
        s00 = __smlad(x0o, w0o, s00);
        s01 = __smlad(x0o, w1o, s01);
        in0 += 4;
        weights0 += 4;
        weights1 += 4;
    }
    in1 = in0 + apart;
    count &= 3;
#endif
    for (size_t i = 0; i < count; i++) {
        const int32_t x0 = in0[i] - zero_point, x1 = in1[i] - zero_point;
        const int32_t w0 = weights0[i], w1 = weights1[i];
        s00 += x0 * w0;
        s01 += x0 * w1;
        s10 += x1 * w0;
        s11 += x1 * w1;
    }
#endif
    found->of[0] = s00;
    found->of[1] = s01;
    found->of[2] = s10;
    found->of[3] = s11;
}

/* Where two output channels' numbers lie; an odd last channel is computed twice. */
typedef struct {
    size_t first, second;
    int32_t bias[2], multiplier[2], shift[2], offset[2];
} channel_pair;

static inline channel_pair pair_at(const int32_t *biases, const scene_scaling *scaling,
                                   size_t first, size_t channels)
{
    channel_pair pair;
    pair.first = first;
    pair.second = first + 1 < channels ? first + 1 : first;
    const size_t of[2] = {pair.first, pair.second};
    for (size_t i = 0; i < 2; i++) {
        pair.bias[i] = biases[of[i]];
        pair.multiplier[i] = scaling->multipliers[of[i]];
        pair.shift[i] = scaling->shifts[of[i]];
        pair.offset[i] = rounding(scaling->zero_point, pair.shift[i]);
    }
    return pair;
}

static inline void store(const channel_pair *pair, const sums *found, int8_t *out0, int8_t *out1)
{
    const int32_t *const s = found->of, *const m = pair->multiplier;
    out0[pair->first] = (int8_t)requantise(s[0], m[0], pair->shift[0], pair->offset[0]);
    out0[pair->second] = (int8_t)requantise(s[1], m[1], pair->shift[1], pair->offset[1]);
    out1[pair->first] = (int8_t)requantise(s[2], m[0], pair->shift[0], pair->offset[0]);
    out1[pair->second] = (int8_t)requantise(s[3], m[1], pair->shift[1], pair->offset[1]);
}

static inline sums starting_at(const channel_pair *pair)
{
    const sums start = {{pair->bias[0], pair->bias[1], pair->bias[0], pair->bias[1]}};
    return start;
}

/* --- layers with weights --- */

void scene_pointwise(const scene_pointwise_layer *layer, const int8_t *in, int8_t *out)
{
    const size_t inputs = layer->inputs, outputs = layer->outputs, places = layer->places;
    for (size_t channel = 0; channel < outputs; channel += 2) {
        const channel_pair pair = pair_at(layer->biases, &layer->scaling, channel, outputs);
        const int8_t *const w0 = layer->weights + pair.first * inputs;
        const int8_t *const w1 = layer->weights + pair.second * inputs;
        for (size_t place = 0; place < places; place += 2) {
            const size_t next = place + 1 < places ? place + 1 : place;
            sums found = starting_at(&pair);
            products(in + place * inputs, in + next * inputs, w0, w1, inputs, 0, &found);
            store(&pair, &found, out + place * outputs, out + next * outputs);
        }
    }
}

/* The part of a window, along one axis, that lies inside the map. */
typedef struct {
    size_t from, to, start; /* of the window; `start`: where `from` lies in the map */
} span;

static inline span inside(size_t step, size_t stride, size_t padding, size_t kernel, size_t size)
{
    const size_t begin = step * stride; /* in the padded map */
    const size_t from = begin < padding ? padding - begin : 0;
    const size_t room = size + padding > begin ? size + padding - begin : 0;
    const size_t to = room < kernel ? room : kernel;
    const span found = {from < to ? from : to, to, begin + from - padding};
    return found;
}

void scene_convolution(const scene_convolution_layer *layer, const int8_t *in, int8_t *out)
{
    const scene_window window = layer->window;
    const size_t inputs = layer->in.channels, outputs = layer->out.channels;
    const size_t row_bytes = (size_t)layer->in.width * inputs;
    const size_t weight_row = (size_t)window.width * inputs;
    const size_t weight_bytes = (size_t)window.height * weight_row;
    for (size_t y = 0; y < layer->out.height; y++) {
        const span rows = inside(y, window.down, window.top, window.height, layer->in.height);
        size_t step; /* two places side by side where both windows lie alike, else one */
        for (size_t x = 0; x < layer->out.width; x += step) {
            const span columns =
                inside(x, window.across, window.left, window.width, layer->in.width);
            const span next =
                inside(x + 1, window.across, window.left, window.width, layer->in.width);
            const int alike = next.from == columns.from && next.to == columns.to;
            step = alike && x + 1 < layer->out.width ? 2 : 1;
            const size_t count = (columns.to - columns.from) * inputs;
            const int8_t *const corner = in + rows.start * row_bytes + columns.start * inputs;
            const size_t apart = (step - 1) * window.across * inputs;
            const size_t weight_corner = rows.from * weight_row + columns.from * inputs;
            int8_t *const place = out + (y * layer->out.width + x) * outputs;
            for (size_t channel = 0; channel < outputs; channel += 2) {
                const channel_pair pair =
                    pair_at(layer->biases, &layer->scaling, channel, outputs);
                const int8_t *w0 = layer->weights + pair.first * weight_bytes + weight_corner;
                const int8_t *w1 = layer->weights + pair.second * weight_bytes + weight_corner;
                const int8_t *row = corner;
                sums found = starting_at(&pair);
                for (size_t k = rows.from; k < rows.to; k++) {
                    products(row, row + apart, w0, w1, count, layer->zero_point, &found);
                    row += row_bytes;
                    w0 += weight_row;
                    w1 += weight_row;
                }
                store(&pair, &found, place, place + (step - 1) * outputs);
            }
        }
    }
}

void scene_first_convolution(const scene_convolution_layer *layer, const int8_t *in, int8_t *out)
{
    const scene_window window = layer->window;
    const size_t outputs = layer->out.channels;
    const size_t row_bytes = layer->in.width;
    const size_t size = ((size_t)window.height * window.width + 3) & ~(size_t)3;
    int8_t patch[2][SCENE_MOST_PATCH];
    const size_t places = (size_t)layer->out.height * layer->out.width;
    for (size_t place = 0; place < places; place += 2) {
        const size_t last = place + 1 < places ? place + 1 : place;
        for (size_t i = 0; i < 2; i++) {
            const size_t at = i == 0 ? place : last;
            const size_t y = at / layer->out.width, x = at % layer->out.width;
            const span rows = inside(y, window.down, window.top, window.height, layer->in.height);
            const span columns =
                inside(x, window.across, window.left, window.width, layer->in.width);
            const int8_t *row = in + rows.start * row_bytes + columns.start;
            const int whole = rows.to - rows.from == window.height &&
                              columns.to - columns.from == window.width;
            if (!whole || size != (size_t)window.height * window.width) {
                memset(patch[i], (int)layer->zero_point, size);
            }
            for (size_t k = rows.from; k < rows.to; k++) {
                int8_t *const to = patch[i] + k * window.width;
                for (size_t c = columns.from; c < columns.to; c++) {
                    to[c] = row[c - columns.from];
                }
                row += row_bytes;
            }
        }
        for (size_t channel = 0; channel < outputs; channel += 2) {
            const channel_pair pair = pair_at(layer->biases, &layer->scaling, channel, outputs);
            sums found = starting_at(&pair);
            products(patch[0], patch[1], layer->weights + pair.first * size,
                     layer->weights + pair.second * size, size, 0, &found);
            store(&pair, &found, out + place * outputs, out + last * outputs);
        }
    }
}

/* Four channels of one place under a depthwise window. */
static inline void depthwise_four(const int8_t *in, const int8_t *weights, size_t rows,
                                  size_t columns, size_t row_step, size_t weight_step,
                                  size_t channels, int32_t zero_point, int32_t sum[4])
{
#if defined(SCENE_MVE)
    int32x4_t total = vld1q_s32(sum);
    for (size_t r = 0; r < rows; r++) {
        const int8_t *x = in + r * row_step, *w = weights + r * weight_step;
        for (size_t c = 0; c < columns; c++) {
            const int32x4_t value = vsubq_n_s32(vldrbq_s32(x), zero_point);
            total = vaddq_s32(total, vmulq_s32(value, vldrbq_s32(w)));
            x += channels;
            w += channels;
        }
    }
    vst1q_s32(sum, total);
#elif defined(SCENE_DSP)
    const uint32_t less = both_halves(-zero_point);
    int32_t s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
    for (size_t r = 0; r < rows; r++) {
        const int8_t *x = in + r * row_step, *w = weights + r * weight_step;
        const int8_t *const end = x + columns * channels;
        do {
            const uint32_t codes = four(x), by = four(w);
            const int32_t xe = (int32_t)even_plus(codes, less), we = (int32_t)even(by);
            const int32_t xo = (int32_t)odd_plus(codes, less), wo = (int32_t)odd(by);
            x += channels;
            w += channels;
            s0 = __smlabb(xe, we, s0);
            s1 = __smlabb(xo, wo, s1);
            s2 = __smlatt(xe, we, s2);
            s3 = __smlatt(xo, wo, s3);
        } while (x != end);
    }
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
    sum[3] = s3;
#else
    for (size_t r = 0; r < rows; r++) {
        const int8_t *x = in + r * row_step, *w = weights + r * weight_step;
        for (size_t c = 0; c < columns; c++) {
            for (size_t i = 0; i < 4; i++) {
                sum[i] += (x[i] - zero_point) * w[i];
            }
            x += channels;
            w += channels;
        }
    }
#endif
}

/* A factor and a shift per channel: a depthwise window of one value. */
static void scale_channels(const scene_convolution_layer *layer, const int8_t *in, int8_t *out)
{
    const size_t channels = layer->in.channels;
    const size_t size = (size_t)layer->in.height * layer->in.width * channels;
    for (size_t channel = 0; channel < channels; channel++) {
        const int32_t weight = layer->weights[channel];
        const int32_t bias = layer->biases[channel] - layer->zero_point * weight;
        const int32_t multiplier = layer->scaling.multipliers[channel];
        const int32_t shift = layer->scaling.shifts[channel];
        const int32_t offset = rounding(layer->scaling.zero_point, shift);
        for (size_t at = channel; at < size; at += channels) {
            out[at] = (int8_t)requantise(bias + in[at] * weight, multiplier, shift, offset);
        }
    }
}

void scene_depthwise(const scene_convolution_layer *layer, const int8_t *in, int8_t *out)
{
    const scene_window window = layer->window;
    const size_t channels = layer->in.channels;
    if (window.height == 1 && window.width == 1 && layer->in.height == layer->out.height &&
        layer->in.width == layer->out.width) {
        scale_channels(layer, in, out);
        return;
    }
    const size_t row_bytes = (size_t)layer->in.width * channels;
    const size_t weight_row = (size_t)window.width * channels;
    for (size_t channel = 0; channel < channels; channel += 4) {
        const size_t several = channels - channel < 4 ? channels - channel : 4;
        int32_t bias[4] = {0}, multiplier[4] = {0}, shift[4] = {0}, offset[4] = {0};
        for (size_t i = 0; i < several; i++) {
            bias[i] = layer->biases[channel + i];
            multiplier[i] = layer->scaling.multipliers[channel + i];
            shift[i] = layer->scaling.shifts[channel + i];
            offset[i] = rounding(layer->scaling.zero_point, shift[i]);
        }
        int8_t *place = out + channel;
        for (size_t y = 0; y < layer->out.height; y++) {
            const span rows = inside(y, window.down, window.top, window.height, layer->in.height);
            for (size_t x = 0; x < layer->out.width; x++) {
                const span columns =
                    inside(x, window.across, window.left, window.width, layer->in.width);
                const int8_t *const corner =
                    in + rows.start * row_bytes + columns.start * channels + channel;
                const int8_t *const weights =
                    layer->weights + rows.from * weight_row + columns.from * channels + channel;
                const size_t high = rows.to - rows.from, wide = columns.to - columns.from;
                int32_t sum[4] = {bias[0], bias[1], bias[2], bias[3]};
                if (several == 4) {
                    if (wide != 0) {
                        depthwise_four(corner, weights, high, wide, row_bytes, weight_row,
                                       channels, layer->zero_point, sum);
                    }
                    place[0] = (int8_t)requantise(sum[0], multiplier[0], shift[0], offset[0]);
                    place[1] = (int8_t)requantise(sum[1], multiplier[1], shift[1], offset[1]);
                    place[2] = (int8_t)requantise(sum[2], multiplier[2], shift[2], offset[2]);
                    place[3] = (int8_t)requantise(sum[3], multiplier[3], shift[3], offset[3]);
                } else {
                    for (size_t r = 0; r < high; r++) {
                        for (size_t c = 0; c < wide; c++) {
                            const int8_t *const value = corner + r * row_bytes + c * channels;
                            const int8_t *const by = weights + r * weight_row + c * channels;
                            for (size_t i = 0; i < several; i++) {
                                sum[i] += (value[i] - layer->zero_point) * by[i];
                            }
                        }
                    }
                    for (size_t i = 0; i < several; i++) {
                        place[i] = (int8_t)requantise(sum[i], multiplier[i], shift[i], offset[i]);
                    }
                }
                place += channels;
            }
        }
    }
}

/* --- layers without weights --- */

void scene_sum(const scene_sum_layer *layer, const int8_t *a, const int8_t *b, int8_t *out,
               size_t count)
{
    const int32_t by_a = layer->multiplier_a, by_b = layer->multiplier_b;
    const int32_t constant = layer->constant, shift = layer->shift;
    for (size_t i = 0; i < count; i++) {
        out[i] = (int8_t)saturate((a[i] * by_a + b[i] * by_b + constant) >> shift);
    }
}

void scene_product(const scene_product_layer *layer, const int8_t *a, const int8_t *b,
                   int8_t *out)
{
    const int32_t multiplier = layer->scaling.multipliers[0], shift = layer->scaling.shifts[0];
    const int32_t offset = rounding(layer->scaling.zero_point, shift);
    const size_t channels = layer->channels;
    for (size_t place = 0; place < layer->places; place++) {
        const int8_t *const by = b + (layer->places_b > 1 ? place * channels : 0);
        for (size_t c = 0; c < channels; c++) {
            const size_t at = place * channels + c;
            const int32_t product = (a[at] - layer->zero_point_a) * (by[c] - layer->zero_point_b);
            out[at] = (int8_t)requantise(product, multiplier, shift, offset);
        }
    }
}

void scene_global_mean(const scene_global_mean_layer *layer, const int8_t *in, int8_t *out)
{
    const int32_t multiplier = layer->scaling.multipliers[0], shift = layer->scaling.shifts[0];
    const int32_t offset = rounding(layer->scaling.zero_point, shift);
    const int32_t start = -(int32_t)layer->places * layer->zero_point;
    for (size_t c = 0; c < layer->channels; c++) {
        int32_t sum = start;
        for (size_t place = 0; place < layer->places; place++) {
            sum += in[place * layer->channels + c];
        }
        out[c] = (int8_t)requantise(sum, multiplier, shift, offset);
    }
}

void scene_mean_pool(const scene_pool_layer *layer, const int8_t *in, int8_t *out)
{
    const scene_window window = layer->window;
    const size_t channels = layer->in.channels;
    for (size_t y = 0; y < layer->out.height; y++) {
        const span rows = inside(y, window.down, window.top, window.height, layer->in.height);
        for (size_t x = 0; x < layer->out.width; x++) {
            const span columns =
                inside(x, window.across, window.left, window.width, layer->in.width);
            const size_t inner = (rows.to - rows.from) * (columns.to - columns.from);
            const size_t counted =
                layer->padding_counts ? (size_t)window.height * window.width : inner;
            const int32_t multiplier = layer->scaling.multipliers[counted];
            const int32_t shift = layer->scaling.shifts[counted];
            const int32_t offset = rounding(layer->scaling.zero_point, shift);
            for (size_t c = 0; c < channels; c++) {
                int32_t sum = -(int32_t)inner * layer->zero_point;
                for (size_t r = 0; r < rows.to - rows.from; r++) {
                    const size_t row = (rows.start + r) * layer->in.width + columns.start;
                    for (size_t k = 0; k < columns.to - columns.from; k++) {
                        sum += in[(row + k) * channels + c];
                    }
                }
                *out++ = (int8_t)requantise(sum, multiplier, shift, offset);
            }
        }
    }
}

void scene_max_pool(const scene_pool_layer *layer, const int8_t *in, int8_t *out)
{
    const scene_window window = layer->window;
    const size_t channels = layer->in.channels;
    for (size_t y = 0; y < layer->out.height; y++) {
        const span rows = inside(y, window.down, window.top, window.height, layer->in.height);
        for (size_t x = 0; x < layer->out.width; x++) {
            const span columns =
                inside(x, window.across, window.left, window.width, layer->in.width);
            for (size_t c = 0; c < channels; c++) {
                int8_t most = -128;
                for (size_t r = 0; r < rows.to - rows.from; r++) {
                    const size_t row = (rows.start + r) * layer->in.width + columns.start;
                    for (size_t k = 0; k < columns.to - columns.from; k++) {
                        const int8_t value = in[(row + k) * channels + c];
                        most = value > most ? value : most;
                    }
                }
                *out++ = most;
            }
        }
    }
}

void scene_lookup(const int8_t table[256], const int8_t *in, int8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = table[in[i] + 128];
    }
}

void scene_encode_bands(const int32_t *gains, const int32_t *offsets, int32_t shift, size_t mels,
                        size_t frames, const int16_t *decibels_q8, int8_t *codes)
{
    for (size_t mel = 0; mel < mels; mel++) {
        const int32_t gain = gains[mel], offset = offsets[mel];
        for (size_t frame = 0; frame < frames; frame++) {
            const int32_t scaled = high_product(*decibels_q8++ * 65536, gain);
            *codes++ = (int8_t)saturate((scaled + offset) >> shift);
        }
    }
}
