/* Runs the golden windows through the network and compares every output code. */

#include "golden.h"
#include "model.h"

#include <stdio.h>
#include <string.h>

int main(void)
{
    int right = 0, labelled = 0;
    for (size_t i = 0; i < SCENE_GOLDEN; i++) {
        int8_t logits[SCENE_CLASSES];
        const int found = scene_classify(scene_golden_decibels + i * SCENE_INPUT_SIZE, logits);
        const int8_t *const wanted = scene_golden_logits + i * SCENE_CLASSES;
        const int equal = memcmp(logits, wanted, SCENE_CLASSES) == 0;
        right += equal;
        labelled += found == scene_golden_labels[i];
        printf("window %u: %s (label: %s)%s\n", (unsigned)i, scene_class_names[found],
               scene_class_names[scene_golden_labels[i]], equal ? "" : ": other codes");
    }
    printf("%d of %d windows give the golden codes bit for bit; %d decide as labelled\n", right,
           SCENE_GOLDEN, labelled);
    return right == SCENE_GOLDEN ? 0 : 1;
}
