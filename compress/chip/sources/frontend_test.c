/* The front end in C against the workbench's own, on one stretch of sound: the largest difference
   above -70 dB, and that frames do not depend on how the samples were cut. Exit code 1: too far. */

#include "frontend.h"

#include <stdio.h>
#include <string.h>

#include "frontend_golden.h"

#define LARGEST_DIFFERENCE_Q22 4096 /* 0.001 dB */

static scene_frontend frontend;
static int32_t levels[SCENE_GOLDEN_FRAMES][SCENE_FRONTEND_MELS];

static size_t frames_of(size_t chunk)
{
    size_t at = 0, frames = 0;
    scene_frontend_reset(&frontend);
    while (at < SCENE_GOLDEN_SAMPLES) {
        const size_t left = SCENE_GOLDEN_SAMPLES - at;
        const int16_t *samples = golden_samples + at;
        size_t count = chunk < left ? chunk : left;
        at += count;
        while (count > 0) {
            int ready;
            int32_t frame[SCENE_FRONTEND_MELS];
            const size_t taken = scene_frontend_push(&frontend, samples, count, frame, &ready);
            samples += taken;
            count -= taken;
            if (ready && frames < SCENE_GOLDEN_FRAMES) {
                memcpy(levels[frames], frame, sizeof frame);
            }
            frames += ready ? 1 : 0;
        }
    }
    return frames;
}

int main(void)
{
    static const size_t chunks[] = {SCENE_GOLDEN_SAMPLES, 1, 7, 160, SCENE_HOP_SAMPLES + 1};
    static int32_t first[SCENE_GOLDEN_FRAMES][SCENE_FRONTEND_MELS];
    int64_t worst = 0;
    int compared = 0, faults = 0;
    size_t c, frame, band;
    for (c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
        const size_t found = frames_of(chunks[c]);
        if (found != SCENE_GOLDEN_FRAMES) {
            printf("front end: %lu frames, %d wanted\n", (unsigned long)found, SCENE_GOLDEN_FRAMES);
            faults++;
        }
        if (c == 0) {
            memcpy(first, levels, sizeof levels);
        } else if (memcmp(first, levels, sizeof levels) != 0) {
            printf("front end: chunks of %lu give other frames\n", (unsigned long)chunks[c]);
            faults++;
        }
    }
    for (frame = 0; frame < SCENE_GOLDEN_FRAMES; frame++) {
        for (band = 0; band < SCENE_FRONTEND_MELS; band++) {
            if (golden_levels[frame][band] > SCENE_GOLDEN_ABOVE_Q22) {
                const int64_t apart = (int64_t)first[frame][band] - golden_levels[frame][band];
                worst = apart > worst ? apart : -apart > worst ? -apart : worst;
                compared++;
            }
        }
    }
    printf("front end: largest difference %ld millionths of a dB over %d levels\n",
           (long)((worst * 1000000) >> 22), compared);
    return faults > 0 || compared == 0 || worst > LARGEST_DIFFERENCE_Q22;
}
