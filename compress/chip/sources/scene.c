#include "scene.h"

#include <string.h>

#include "frontend.h"
#include "scene_tables.h"

typedef char scene_frontend_fits_model[SCENE_FRONTEND_MELS == SCENE_MELS ? 1 : -1];

#if SCENE_REFERENCE_FIXED
typedef int16_t stored_level; /* 1/256 dB */
#else
typedef int32_t stored_level; /* 2^-22 dB: rounded when the window's reference is known */
#endif

static struct {
    scene_frontend frontend;
    stored_level window[SCENE_INPUT_SIZE]; /* (mels, frames) */
#if !SCENE_REFERENCE_FIXED
    int16_t decibels_q8[SCENE_INPUT_SIZE];
#endif
    size_t filled; /* columns of the window that hold a frame */
    size_t skip;   /* frames between two windows, where they do not meet */
    int started;   /* a window was decided before */
    uint32_t smoothed_q30[SCENE_CLASSES];
} state;

void scene_reset(void)
{
    memset(&state, 0, sizeof state);
    scene_frontend_reset(&state.frontend);
}

/* 2^-22 dB to 1/256 dB, not below -80 dB. */
static int16_t rounded_q8(int64_t level_q22)
{
    const int64_t level_q8 = (level_q22 + (1 << 13)) >> 14;
    if (level_q8 < SCENE_FLOOR_Q8) {
        return SCENE_FLOOR_Q8;
    }
    return level_q8 > INT16_MAX ? INT16_MAX : (int16_t)level_q8;
}

static void encode_window(void)
{
#if SCENE_REFERENCE_FIXED
    scene_encode(state.window, scene_input());
#else
    /* 0 dB is the loudest level of the window, as in training; a quiet window has a fixed one. */
    const int32_t *level = state.window;
    int32_t reference = SCENE_QUIETEST_REFERENCE_Q22;
    size_t i;
    for (i = 0; i < SCENE_INPUT_SIZE; i++) {
        reference = level[i] > reference ? level[i] : reference;
    }
    for (i = 0; i < SCENE_INPUT_SIZE; i++) {
        state.decibels_q8[i] = rounded_q8((int64_t)level[i] - reference);
    }
    scene_encode(state.decibels_q8, scene_input());
#endif
}

/* Room for the next frames: the windows overlap, or frames between them are skipped. */
static void advance(void)
{
#if SCENE_STEP_FRAMES < SCENE_FRAMES
    size_t band;
    for (band = 0; band < SCENE_MELS; band++) {
        stored_level *row = state.window + band * SCENE_FRAMES;
        memmove(row, row + SCENE_STEP_FRAMES,
                (SCENE_FRAMES - SCENE_STEP_FRAMES) * sizeof row[0]);
    }
    state.filled = SCENE_FRAMES - SCENE_STEP_FRAMES;
#else
    state.filled = 0;
    state.skip = SCENE_STEP_FRAMES - SCENE_FRAMES;
#endif
}

static void decide(scene_decision *found)
{
    const int8_t *codes;
    int32_t largest;
    uint32_t powers[SCENE_CLASSES];
    uint64_t total = 0;
    size_t i;

    encode_window();
    codes = scene_run();
    memcpy(found->codes, codes, SCENE_CLASSES);
    largest = found->codes[0];
    for (i = 1; i < SCENE_CLASSES; i++) {
        largest = found->codes[i] > largest ? found->codes[i] : largest;
    }
    for (i = 0; i < SCENE_CLASSES; i++) {
        powers[i] = exp_q16[largest - found->codes[i]];
        total += powers[i];
    }
    found->decision = 0;
    for (i = 0; i < SCENE_CLASSES; i++) {
        const uint32_t now = (uint32_t)((((uint64_t)powers[i] << 30) + total / 2) / total);
        const uint32_t before = state.started ? state.smoothed_q30[i] : now;
        const int64_t change = ((int64_t)now - before) * (int64_t)SCENE_PRESENT_Q31;
        const int64_t rounded = (change + ((int64_t)1 << 30)) >> 31;
        state.smoothed_q30[i] = (uint32_t)((int64_t)before + rounded);
        found->probabilities_q30[i] = now;
        found->smoothed_q30[i] = state.smoothed_q30[i];
        if (found->smoothed_q30[i] > found->smoothed_q30[found->decision]) {
            found->decision = (int)i;
        }
    }
    state.started = 1;
    found->ready = 1;
}

size_t scene_push(const int16_t *samples, size_t count, scene_decision *found)
{
    size_t taken = 0, band;
    found->ready = 0;
    while (taken < count && !found->ready) {
        int32_t levels_q22[SCENE_FRONTEND_MELS];
        int frame;
        taken += scene_frontend_push(&state.frontend, samples + taken, count - taken, levels_q22,
                                     &frame);
        if (!frame) {
            break;
        }
        if (state.skip > 0) {
            state.skip--;
            continue;
        }
        for (band = 0; band < SCENE_MELS; band++) {
            stored_level *stored = &state.window[band * SCENE_FRAMES + state.filled];
#if SCENE_REFERENCE_FIXED
            *stored = rounded_q8(levels_q22[band]);
#else
            *stored = levels_q22[band];
#endif
        }
        state.filled++;
        if (state.filled == SCENE_FRAMES) {
            decide(found);
            advance();
        }
    }
    return taken;
}
