/* A network of two layers with the interface of an exported one, for tests of the emulation. */
#ifndef MODEL_H
#define MODEL_H
#include <stddef.h>
#include <stdint.h>
#define SCENE_MELS 2
#define SCENE_FRAMES 6
#define SCENE_CLASSES 3
#define SCENE_INPUT_SIZE (SCENE_MELS * SCENE_FRAMES)
#define SCENE_ARENA_BYTES 24
#define SCENE_LAYERS 2
extern const char *const scene_class_names[SCENE_CLASSES];
extern const char *const scene_layer_names[SCENE_LAYERS];
extern const uint32_t scene_layer_macs[SCENE_LAYERS];
void scene_encode(const int16_t decibels_q8[SCENE_INPUT_SIZE], int8_t codes[SCENE_INPUT_SIZE]);
int8_t *scene_input(void);
void scene_run_layer(size_t layer);
const int8_t *scene_run(void);
int scene_classify(const int16_t decibels_q8[SCENE_INPUT_SIZE], int8_t logits[SCENE_CLASSES]);
#endif
