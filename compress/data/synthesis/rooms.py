"""Rooms as decaying noise, and microphones as colouration, on one common FFT grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from compress.data.synthesis.signal import (
    Canvas,
    Dice,
    decibels,
    frame_frequencies,
    frame_noise,
    frame_times,
    tilt_gain,
)

LONGEST_TAIL_SECONDS = 0.6

# name, weight, reverberation time (s), distance blur (reverberant to direct energy, dB)
_ROOMS = (
    (0.28, ("outdoors", (0.04, 0.15), (-24.0, -12.0))),
    (0.14, ("car", (0.03, 0.08), (-10.0, -2.0))),
    (0.26, ("room", (0.2, 0.6), (-12.0, 6.0))),
    (0.14, ("office", (0.3, 0.9), (-12.0, 4.0))),
    (0.10, ("hall", (0.8, 2.5), (-10.0, 6.0))),
    (0.08, ("stairwell", (1.2, 3.5), (-6.0, 8.0))),
)


@dataclass(frozen=True)
class Space:
    """A room and a microphone: transfer functions (bins,) complex64 on ``fft_size`` points."""

    name: str
    fft_size: int
    near: np.ndarray  # from a foreground source
    far: np.ndarray  # from background sources: later, more reverberant, duller
    self_noise_db: float  # level of the microphone's noise, dB of full scale
    silent_above_hz: float  # exact band limit, or infinity


def space_fft_size(canvas: Canvas) -> int:
    """FFT length that keeps the tail from wrapping into the clip."""
    tail = round(LONGEST_TAIL_SECONDS * canvas.rate)
    return scipy.fft.next_fast_len(canvas.samples + tail, real=True)


def _response(dice: Dice, canvas: Canvas, reverberation: float, blur_db: float) -> np.ndarray:
    tail_canvas = Canvas(canvas.rate, round(LONGEST_TAIL_SECONDS * canvas.rate))
    times = frame_times(tail_canvas)[:, None].astype(np.float32)
    frequencies = frame_frequencies(tail_canvas)
    # High frequencies die sooner, through air and soft walls.
    seconds = reverberation / (1.0 + frequencies / dice.log_between(3000.0, 12000.0))
    tail = frame_noise(dice, tail_canvas, np.exp(-6.9078 * times / seconds))
    tail *= decibels(blur_db) / max(float(np.sqrt(np.sum(tail * tail))), 1e-12)
    tail[0] += 1.0
    for _ in range(dice.whole(0, 5)):
        delay = dice.log_between(0.001, 0.04)
        tail[round(delay * canvas.rate)] += dice.between(-0.5, 0.5) * np.exp(-delay / 0.03)
    return scipy.fft.rfft(tail, space_fft_size(canvas))


def draw_space(dice: Dice, canvas: Canvas, dry: bool = False) -> Space:
    """Draw a room and a microphone; ``dry`` leaves out halls and stairwells."""
    size = space_fft_size(canvas)
    bins = size // 2 + 1
    name, times, blurs = dice.weighted(_ROOMS[:4] if dry else _ROOMS)
    reverberation = dice.log_between(*times)
    blur = dice.between(*blurs)

    tilt = dice.between(-1.2, 1.0)  # dB per octave
    low_cut = dice.log_between(30.0, 150.0)
    high_cut = canvas.nyquist * (
        dice.between(0.5, 0.8) if dice.chance(0.15) else dice.between(0.85, 1.0)
    )
    if dice.chance(0.03):  # telephone
        low_cut, high_cut = 300.0, min(3400.0, 0.9 * canvas.nyquist)
    knots = [(20.0, -12.0 * np.log2(max(low_cut / 20.0, 1.0)))]
    for centre in (125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0):
        level = tilt * np.log2(centre / 1000.0) + dice.between(-2.0, 2.0)
        level -= 12.0 * np.log2(max(low_cut / centre, 1.0))
        level -= 24.0 * np.log2(max(centre / high_cut, 1.0))
        knots.append((centre, level))
    microphone = tilt_gain(canvas, bins, knots)

    silent_above = float("inf")
    if dice.chance(0.16):  # lossy coding or resampling leaves nothing above its limit
        silent_above = canvas.nyquist * dice.between(0.45, 0.95)
        microphone[int(silent_above / canvas.nyquist * (bins - 1)) :] = 0.0
    dull = tilt_gain(
        canvas, bins, [(200.0, 0.0), (1000.0, -dice.between(0, 3)), (8000.0, -dice.between(2, 12))]
    )
    near = _response(dice, canvas, reverberation, blur) * microphone
    far = _response(dice, canvas, reverberation, min(blur + 10.0, 12.0)) * (microphone * dull)
    return Space(
        name=name,
        fft_size=size,
        near=near.astype(np.complex64),
        far=far.astype(np.complex64),
        self_noise_db=dice.between(-88.0, -58.0),
        silent_above_hz=silent_above,
    )
