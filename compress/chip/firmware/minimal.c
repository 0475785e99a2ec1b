/* The least firmware around the network: its image tells what flash and RAM the network takes.
   The window belongs to whoever makes spectrograms; only its address is here. */

#include "model.h"

extern const int16_t application_window[SCENE_INPUT_SIZE];
volatile int decision;

int main(void)
{
    int8_t logits[SCENE_CLASSES];
    for (;;) {
        decision = scene_classify(application_window, logits);
    }
}
