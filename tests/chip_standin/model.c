#include "model.h"
#include "kernels.h"
#include <string.h>

static const int8_t hidden_weights[4 * SCENE_INPUT_SIZE] = {
    31,  -17, 5,   88, -90, 12, 44, -3,  7,  61, -28, 19, -76, 33,  2,   -51, 64, 8, -9, 27,
    101, -44, 15,  -6, 70,  -2, 39, -83, 54, 11, -35, 92, 23,  -60, 47,  1,   -14, 80, -5, 36,
    -99, 66,  -21, 3,  58,  -7, 13, 29};
static const int32_t hidden_biases[4] = {300, -500, 900, 0};
static const int8_t weights[3 * 4] = {45, -60, 22, 90, -31, 77, 5, -88, 64, 12, -95, 40};
static const int32_t biases[3] = {-200, 100, 50};

const char *const scene_class_names[SCENE_CLASSES] = {"a", "b", "c"};
const char *const scene_layer_names[SCENE_LAYERS] = {"hidden", "linear"};
const uint32_t scene_layer_macs[SCENE_LAYERS] = {48, 12};

static int8_t arena[SCENE_ARENA_BYTES];

void scene_encode(const int16_t decibels_q8[SCENE_INPUT_SIZE], int8_t codes[SCENE_INPUT_SIZE])
{
    for (size_t i = 0; i < SCENE_INPUT_SIZE; ++i) {
        codes[i] = (int8_t)(decibels_q8[i] / 160 + 64);
    }
}

int8_t *scene_input(void)
{
    return arena;
}

void scene_run_layer(size_t layer)
{
    if (layer == 0) {
        standin_linear(arena, SCENE_INPUT_SIZE, hidden_weights, hidden_biases, 4, arena + 12);
    } else {
        standin_linear(arena + 12, 4, weights, biases, SCENE_CLASSES, arena + 16);
    }
}

const int8_t *scene_run(void)
{
    for (size_t layer = 0; layer < SCENE_LAYERS; ++layer) {
        scene_run_layer(layer);
    }
    return arena + 16;
}

int scene_classify(const int16_t decibels_q8[SCENE_INPUT_SIZE], int8_t logits[SCENE_CLASSES])
{
    scene_encode(decibels_q8, arena);
    memcpy(logits, scene_run(), SCENE_CLASSES);
    int best = 0;
    for (int i = 1; i < SCENE_CLASSES; ++i) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}
