/* Sound to log-mel spectrogram, one frame after the other, in integers.

       int16 samples -> ring of one analysis window -> raised to full scale -> Hann window
                     -> real FFT, 46 bits -> power -> mel bands -> decibels in Q9.22

   Frame k is made of samples k * hop .. k * hop + window - 1, however the samples were cut into
   calls. Nothing is padded: the first frame is there after one window, each further one after one
   hop, as in the front end that the network was trained with. No heap, no floating point. */

#ifndef SCENE_FRONTEND_H
#define SCENE_FRONTEND_H

#include <stddef.h>
#include <stdint.h>

#include "frontend_settings.h"

/* One bin of the spectrum. */
typedef struct {
    int64_t re;
    int64_t im;
} scene_bin;

/* Belongs to the caller; fill it with scene_frontend_reset. */
typedef struct {
    scene_bin bins[SCENE_FFT_SIZE / 2 + 1];
    int16_t ring[SCENE_WINDOW_SAMPLES];
    size_t head;   /* where the next sample goes, and the oldest one lies */
    size_t wanted; /* samples until the next frame is complete */
} scene_frontend;

void scene_frontend_reset(scene_frontend *frontend);

/* Takes samples until a frame is complete or none is left; gives how many it took. *ready says
   whether levels_q22 was written: the frame's bands in 2^-22 dB, saturated at both ends.

   SCENE_REFERENCE_FIXED 1: levels are under the fixed reference and floored at -80 dB. 0: levels are
   over mel power 1, and the window's loudest one has still to be subtracted. Either way scene.c
   rounds them to the 1/256 dB of the network, once, at the end. */
size_t scene_frontend_push(scene_frontend *frontend, const int16_t *samples, size_t count,
                           int32_t levels_q22[SCENE_FRONTEND_MELS], int *ready);

/* 10 log10(value) in 2^-30, value at least 1; the error is below 40 steps (0.00000004 dB). */
int64_t scene_decibels_q30(uint64_t value);

#endif
