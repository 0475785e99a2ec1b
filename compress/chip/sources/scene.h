/* A stream of sound to a smoothed decision: frontend.h in front of model.h.

       samples -> frames -> window of SCENE_FRAMES frames, every SCENE_STEP_FRAMES -> network
               -> softmax by table -> exponential mean over time -> class

       scene_reset();
       while (count > 0) {
           scene_decision found;
           size_t taken = scene_push(samples, count, &found);
           if (found.ready) { ... scene_class_names[found.decision] ... }
           samples += taken;
           count -= taken;
       }

   One stream at a time: the state, like the network's arena, is static. */

#ifndef SCENE_H
#define SCENE_H

#include <stddef.h>
#include <stdint.h>

#include "model.h"
#include "scene_settings.h"

typedef struct {
    int ready;    /* 1: a window ended with these samples, and the rest is filled in */
    int decision; /* class of the largest smoothed probability, the first one on ties */
    int8_t codes[SCENE_CLASSES]; /* the network's output for this window */
    uint32_t probabilities_q30[SCENE_CLASSES]; /* of this window; 2^30 = 1 */
    uint32_t smoothed_q30[SCENE_CLASSES];      /* exponential mean up to this window */
} scene_decision;

/* Forget all sound. Call it once before the first scene_push. */
void scene_reset(void);

/* Takes samples (SCENE_SAMPLE_RATE_HZ) up to the end of the next window and no further; gives how
   many it took. The first window ends after SCENE_FRAMES frames. */
size_t scene_push(const int16_t *samples, size_t count, scene_decision *found);

#endif
