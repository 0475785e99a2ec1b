/* Integer kernels of a sound-scene classifier: C99, no heap, no float, no state.

   Activations are int8, channels last: index (row * width + column) * channels + channel. A code
   stands for (code - zero point) * scale; weights have zero point 0 and one scale per output
   channel. Accumulators are int32 and exact. Rounding happens in one place only:

       code = saturate(zero point + floor(accumulator * multiplier / 2^(32 + shift) + 1/2))

   Each kernel has a portable form, one for the DSP extension (SMLAD: Cortex-M4, M7, M33) and one
   for Helium (MVE: Cortex-M55, M85), chosen by the compiler's target. All give the same bits. */

#ifndef SCENE_KERNELS_H
#define SCENE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* From accumulators to codes, one entry per output channel. shifts: 1 to 22, where the factor is
   under 1/4; 0 or less where it is larger, which takes a slower path. */
typedef struct {
    const int32_t *multipliers;
    const int8_t *shifts;
    int32_t zero_point;
} scene_scaling;

/* A map of codes: its size in values. */
typedef struct {
    uint16_t height, width, channels;
} scene_shape;

/* A window that moves over a map. */
typedef struct {
    uint8_t height, width, down, across, top, left; /* size, strides, padding before the map */
} scene_window;

/* Weights (outputs, inputs) in rows of `inputs` bytes; biases hold the input's zero point:
   bias - zero point * sum of the row. Also a linear layer, as one place. */
typedef struct {
    const int8_t *weights;
    const int32_t *biases;
    scene_scaling scaling;
    uint32_t places;
    uint16_t inputs, outputs;
} scene_pointwise_layer;

/* Weights (outputs, rows, columns, inputs); biases as they are: padding adds nothing. */
typedef struct {
    const int8_t *weights;
    const int32_t *biases;
    scene_scaling scaling;
    scene_shape in, out;
    scene_window window;
    int32_t zero_point; /* of the input */
} scene_convolution_layer;

/* One input of one channel: weights (outputs, rows * columns padded with 0 to a multiple of 4),
   at most SCENE_MOST_PATCH values; biases hold the input's zero point. */
#define SCENE_MOST_PATCH 64

/* output = saturate((a * multiplier_a + b * multiplier_b + constant) >> shift) */
typedef struct {
    int32_t multiplier_a, multiplier_b, constant;
    int32_t shift;
} scene_sum_layer;

/* Product of two maps; where b has one place, it scales the channels of a. */
typedef struct {
    scene_scaling scaling;
    int32_t zero_point_a, zero_point_b;
    uint32_t places, places_b;
    uint16_t channels;
} scene_product_layer;

/* Mean over the whole map. */
typedef struct {
    scene_scaling scaling; /* one entry */
    int32_t zero_point;
    uint32_t places;
    uint16_t channels;
} scene_global_mean_layer;

/* Mean or maximum under a moving window. scaling: of the mean, one entry per number of values
   that are counted, from 0; NULL for the maximum. padding_counts: 1 where padding is counted. */
typedef struct {
    scene_scaling scaling;
    scene_shape in, out;
    scene_window window;
    int32_t zero_point;
    uint8_t padding_counts;
} scene_pool_layer;

void scene_pointwise(const scene_pointwise_layer *layer, const int8_t *in, int8_t *out);
void scene_convolution(const scene_convolution_layer *layer, const int8_t *in, int8_t *out);
void scene_first_convolution(const scene_convolution_layer *layer, const int8_t *in, int8_t *out);
void scene_depthwise(const scene_convolution_layer *layer, const int8_t *in, int8_t *out);
void scene_sum(const scene_sum_layer *layer, const int8_t *a, const int8_t *b, int8_t *out,
               size_t count);
void scene_product(const scene_product_layer *layer, const int8_t *a, const int8_t *b,
                   int8_t *out);
void scene_global_mean(const scene_global_mean_layer *layer, const int8_t *in, int8_t *out);
void scene_mean_pool(const scene_pool_layer *layer, const int8_t *in, int8_t *out);
void scene_max_pool(const scene_pool_layer *layer, const int8_t *in, int8_t *out);
/* out = table[in + 128]; in and out may be one buffer. */
void scene_lookup(const int8_t table[256], const int8_t *in, int8_t *out, size_t count);
/* codes = saturate(decibels * gain / 2^(16 + shift) + offset), decibels in 1/256 dB; one gain and
   one offset (which holds the rounding) per mel band, `frames` values each. */
void scene_encode_bands(const int32_t *gains, const int32_t *offsets, int32_t shift, size_t mels,
                        size_t frames, const int16_t *decibels_q8, int8_t *codes);

#endif
