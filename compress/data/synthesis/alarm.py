"""Alarms: beeps, sweeps, sirens, bells, ringtones."""

from __future__ import annotations

import numpy as np
import scipy.fft

from compress.data.synthesis.signal import (
    Canvas,
    Dice,
    Source,
    control_times,
    drift,
    gate,
    glide,
    harmonic_table,
    ring,
    to_audio,
)


def _timbre(dice: Dice, canvas: Canvas, highest_hz: float) -> np.ndarray:
    """A cycle of a loudspeaker, a piezo or a horn that has no harmonic above Nyquist."""
    count = max(1, min(24, int(0.95 * canvas.nyquist / highest_hz)))
    harmonics = np.arange(1, count + 1)
    amplitudes = harmonics ** -dice.between(0.7, 2.0)
    if dice.chance(0.45):
        amplitudes[1::2] *= 0.08  # square wave
    return harmonic_table(amplitudes, dice.unit() * np.arange(count))


def _draw_beeps(dice: Dice, canvas: Canvas) -> Source:
    name, low, high, on, off, burst = dice.pick(
        (
            ("reversing beeper", 900.0, 1600.0, (0.3, 0.6), (0.3, 0.6), (1, 1)),
            ("smoke detector", 2800.0, 3500.0, (0.1, 0.5), (0.05, 0.5), (1, 3)),
            ("smoke detector", 2800.0, 3500.0, (0.1, 0.5), (0.05, 0.5), (1, 3)),
            ("alarm clock", 1800.0, 3200.0, (0.04, 0.12), (0.04, 0.12), (2, 5)),
            ("alarm clock", 1800.0, 3200.0, (0.04, 0.12), (0.04, 0.12), (2, 5)),
            ("car alarm", 1200.0, 3000.0, (0.05, 0.3), (0.03, 0.2), (1, 4)),
        )
    )
    pitch = dice.log_between(low, high)
    length, rest = dice.between(*on), dice.between(*off)
    beeps = dice.whole(*burst)
    pause = dice.between(0.3, 0.7) if beeps > 1 else 0.0
    second = pitch * (
        dice.log_between(1.1, 1.6) if name == "car alarm" and dice.chance(0.3) else 1.0
    )
    table = _timbre(dice, canvas, 1.1 * second)
    edge = dice.log_between(0.002, 0.02)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        period = beeps * (length + rest) + pause
        pace = clip.log_between(0.88, 1.14)
        time = np.mod(points * pace + clip.unit() * period, period)
        number = np.floor(time / (length + rest))
        inside = time - number * (length + rest)
        level = gate(inside, 0.0, length, edge) * (number < beeps)
        course = np.where(number % 2 == 1, second, pitch) * clip.log_between(0.92, 1.06)
        course = course * (1 + 1e-4 * drift(clip, points, 2.0))
        sound = glide(canvas, course, table, clip.unit())
        return sound * to_audio(level.astype(np.float32), canvas)

    return Source(name, render)


def _draw_siren(dice: Dice, canvas: Canvas) -> Source:
    name = dice.pick(
        ("wail", "wail", "yelp", "yelp", "yelp", "sweep", "sweep", "warble", "warble", "hi-lo")
    )
    low = dice.between(500.0, 900.0)
    high = low * dice.log_between(1.5, 2.6)
    period = {
        "wail": dice.between(2.5, 6.0),
        "yelp": dice.between(0.2, 0.45),
        "hi-lo": dice.between(0.45, 0.9),
        "sweep": dice.between(0.3, 1.2),
        "warble": dice.between(0.05, 0.15),
    }[name]
    if name == "hi-lo":
        high = low * dice.between(1.2, 1.42)
    table = _timbre(dice, canvas, 1.15 * high)
    passing = dice.chance(0.25)
    down = dice.chance(0.4)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        turn = np.mod(points / (period * clip.log_between(0.85, 1.18)) + clip.unit(), 1.0)
        if name == "hi-lo":
            course = np.where(turn < 0.5, low, high)
        elif name == "sweep":
            course = low * (high / low) ** (1 - turn if down else turn)
        else:
            course = low + (high - low) * (0.5 - 0.5 * np.cos(2 * np.pi * turn))
        course = course * clip.log_between(0.9, 1.06)
        level = np.ones(len(points))
        if passing:
            away = (points - clip.unit() * canvas.seconds) * clip.between(0.5, 2.0)
            distance = np.sqrt(1 + away * away)
            course = course * (1 - 0.05 * away / distance)
            level = level / distance
        sound = glide(canvas, course, table, clip.unit())
        return sound * to_audio(level.astype(np.float32), canvas)

    return Source(f"siren {name}", render)


def _draw_bell(dice: Dice, canvas: Canvas) -> Source:
    """Strokes on a bell: a mechanical alarm, a telephone, a clock."""
    name, low, high, rate_low, rate_high, decay_low, decay_high = dice.pick(
        (
            ("fire bell", 600.0, 2200.0, 8.0, 20.0, 0.3, 1.5),
            ("telephone bell", 1000.0, 2600.0, 16.0, 28.0, 0.2, 0.8),
            ("clock bell", 1500.0, 3500.0, 10.0, 25.0, 0.1, 0.5),
        )
    )
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 4.1, 5.4])
    ratios = ratios * (1 + 0.03 * dice.normals(len(ratios)))
    pitch = dice.log_between(low, high)
    decays = dice.log_between(decay_low, decay_high) * ratios**-0.7
    amplitudes = (0.2 + dice.rng.random(len(ratios))) * ratios ** -dice.between(0.2, 1.2)
    tone = ring(
        canvas.rate, canvas.samples, pitch * ratios, decays, amplitudes, dice.rng.random(10)
    )
    size = scipy.fft.next_fast_len(2 * canvas.samples, real=True)
    spectrum = scipy.fft.rfft(tone, size)
    rate = dice.log_between(rate_low, rate_high)
    cadence = dice.between(0.5, 1.2) if name == "telephone bell" and dice.chance(0.5) else 0.0

    def render(clip: Dice) -> np.ndarray:
        strokes = np.zeros(canvas.samples, dtype=np.float32)
        times = np.arange(-1, int(canvas.seconds * rate) + 2) / rate + clip.unit() / rate
        times = times + clip.normals(len(times)) * 0.03 / rate
        index = np.round(times * canvas.rate).astype(int)
        if cadence:
            index = index[np.mod(times + clip.unit(), 2 * cadence) < cadence]
        index = index[(index >= 0) & (index < canvas.samples)]
        if not len(index):
            index = np.array([int(0.3 * clip.unit() * canvas.samples)])
        strokes[index] = 0.7 + 0.3 * clip.rng.random(len(index))
        return scipy.fft.irfft(scipy.fft.rfft(strokes, size) * spectrum, size)[: canvas.samples]

    return Source(name, render)


def _draw_ringtone(dice: Dice, canvas: Canvas) -> Source:
    """An electronic telephone: a quick trill or a chime of two or three tones."""
    count = dice.whole(2, 4)
    pitches = [dice.log_between(800.0, 2200.0)]
    for _ in range(count - 1):
        pitches.append(pitches[-1] * dice.pick((1.25, 1.33, 1.12, 0.8, 0.75, 1.5)))
    tones = np.clip(np.array(pitches), 300.0, 0.3 * canvas.rate)
    step = dice.log_between(0.03, 0.09)
    on, off = dice.between(0.5, 1.5), dice.between(0.0, 0.5)
    decay = dice.chance(0.4)
    table = _timbre(dice, canvas, float(tones.max()))

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        time = points + clip.unit() * (on + off)
        number = np.floor(time / step).astype(int)
        level = (np.mod(time, on + off) < on) * 1.0
        if decay:
            level = level * np.exp(-np.mod(time, step) / (0.5 * step))
        level[1:] = 0.5 * (level[1:] + level[:-1])
        sound = glide(canvas, tones[number % count], table, clip.unit())
        return sound * to_audio(level.astype(np.float32), canvas)

    return Source("ringtone", render)


def draw_alarm(dice: Dice, canvas: Canvas) -> Source:
    """A beeper, siren, bell or telephone."""
    make = dice.weighted(
        (
            (0.52, _draw_beeps),
            (0.38, _draw_siren),
            (0.06, _draw_bell),
            (0.04, _draw_ringtone),
        )
    )
    return make(dice, canvas)
