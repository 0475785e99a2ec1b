/* All windows of a split in one call: for the measurement on the host. */

#include "model.h"

void scene_batch(const int16_t *decibels_q8, size_t windows, int8_t *logits);

void scene_batch(const int16_t *decibels_q8, size_t windows, int8_t *logits)
{
    for (size_t i = 0; i < windows; i++) {
        scene_classify(decibels_q8 + i * SCENE_INPUT_SIZE, logits + i * SCENE_CLASSES);
    }
}
