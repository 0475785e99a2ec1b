"""Sounds that resemble a named class at a glance and differ from it only over a longer stretch.

    rattle   strokes like those of a slow engine, but without a clock behind them
    crank    a gliding hum like that of an engine, but its speed swings to and fro in a beat
    calls    a throat like a speaker's that says the same one or two syllables over and over
    chimes   notes like those of an instrument, but of no scale and no beat

A glance of a third of a second does not tell them from an engine, a voice or music; the regularity
of the time between events does. They belong to "other".
"""

from __future__ import annotations

import numpy as np

from compress.data.synthesis.signal import (
    Canvas,
    Dice,
    Source,
    add,
    coloured,
    control_times,
    drift,
    filtered,
    glide,
    harmonic_table,
    noise_bins,
    resonances,
    ring,
    tilt_gain,
    to_audio,
    white,
)
from compress.data.synthesis.voice import Speaker, call, draw_speaker


def _irregular(clip: Dice, seconds: float, rate: float, order: float) -> np.ndarray:
    """Times of events, about ``rate`` a second; gaps are gamma distributed, the larger ``order``
    the more alike. The first lies before 0 or shortly after it."""
    count = int(1.5 * seconds * rate) + 8
    gaps = clip.rng.gamma(order, 1.0 / order, count) / rate
    times = np.cumsum(gaps) - clip.unit() * gaps[0]
    return times[times < seconds]


def _draw_rattle(dice: Dice, canvas: Canvas) -> Source:
    """A flapping sail, a loose shutter, a lid on a boiling pot."""
    name, low, high = dice.pick(
        (
            ("flapping sail", 4.0, 14.0),
            ("loose shutter", 2.0, 8.0),
            ("boiling pot", 6.0, 18.0),
        )
    )
    rate = dice.log_between(low, high)
    order = dice.log_between(0.8, 1.8)
    body = resonances(dice, canvas, dice.between(-7.0, -1.0))
    length = dice.log_between(0.02, 0.12)
    thump = dice.log_between(0.3, 3.0)
    air = dice.log_between(0.02, 0.5)
    samples = max(64, round(1.2 * length * canvas.rate))
    fall = np.exp(-5.0 * np.arange(samples) / (length * canvas.rate)).astype(np.float32)

    def render(clip: Dice) -> np.ndarray:
        sound = np.zeros(canvas.samples, dtype=np.float32)
        pace = rate * clip.log_between(0.8, 1.25)
        times = _irregular(clip, canvas.seconds, pace, order)
        for time in times if len(times) else [clip.between(0.0, 0.5) * canvas.seconds]:
            stroke = white(clip, samples) * fall
            stroke[: max(2, samples // 16)] += np.float32(thump)
            add(sound, stroke, round(time * canvas.rate), clip.between(0.4, 1.0))
        level = float(np.std(sound))
        sound += np.float32(air * level) * white(clip, canvas.samples)
        return filtered(sound, canvas, body)

    return Source(name, render)


def _draw_crank(dice: Dice, canvas: Canvas) -> Source:
    """A crank, a grindstone, a spinning wheel, a pulley: turned by hand, so its speed swings."""
    name, low, high = dice.pick(
        (
            ("hand crank", 40.0, 160.0),
            ("grindstone", 60.0, 300.0),
            ("spinning wheel", 30.0, 120.0),
            ("pulley", 80.0, 400.0),
        )
    )
    base = dice.log_between(low, high)
    pace = dice.between(1.0, 2.2)  # strokes a second
    width = dice.between(0.08, 0.35)  # octaves to either side
    swell = dice.between(0.1, 0.9)  # nepers to either side
    count = max(2, min(60, int(0.9 * canvas.nyquist / (base * 1.5))))
    amplitudes = np.arange(1, count + 1) ** -dice.between(0.5, 1.6) * (0.2 + dice.rng.random(count))
    table = harmonic_table(amplitudes, dice.rng.random(count))
    body = resonances(dice, canvas, dice.between(-6.0, -1.0))
    rush = dice.log_between(0.1, 1.2)
    rough = dice.between(0.0, 0.2)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        turn = pace * points * (1 + 0.03 * drift(clip, points, 1.0)) + clip.unit()
        swing = np.sin(2 * np.pi * turn)
        speed = base * np.exp2(width * swing + 0.02 * drift(clip, points, 5.0))
        sound = glide(canvas, speed, table, clip.unit())
        sound += np.float32(0.4 * rush) * white(clip, canvas.samples)
        level = np.exp(swell * swing + rough * drift(clip, points, 25.0))
        return filtered(sound * to_audio(level.astype(np.float32), canvas), canvas, body)

    return Source(name, render)


def _draw_calls(dice: Dice, canvas: Canvas) -> Source:
    """A parrot, a goat, a gull, a monkey, a seal: a human-like throat, one or two syllables."""
    name = dice.pick(("parrot", "goat", "gull", "monkey", "seal"))
    _, voice = draw_speaker(dice)
    caller = Speaker(
        pitch_hz=dice.log_between(110.0, 500.0),
        tract=dice.between(0.95, 1.6),
        tilt=voice.tilt,
        breath=voice.breath,
        jitter=voice.jitter * dice.log_between(1.0, 3.0),
        shimmer=voice.shimmer,
        rate=voice.rate,
        melody=voice.melody,
        pause=0.0,
        consonants=0.0,
        vowels=tuple(dice.whole(0, 9) for _ in range(dice.whole(1, 2))),
    )
    length = dice.log_between(0.12, 0.35)
    gap = dice.log_between(0.06, 0.3)
    bend = dice.between(-0.5, 0.5)  # octaves from start to end
    opening = dice.between(0.7, 1.3)  # of the first formant from start to end
    unrest = dice.between(0.0, 0.12)

    def render(clip: Dice) -> np.ndarray:
        pace = clip.log_between(0.9, 1.1)
        time = -clip.unit() * (length + gap)
        calls = []
        while time < canvas.seconds:
            calls.append((time, time + pace * length))
            time += pace * (length + gap * (1 + unrest * clip.between(-1.0, 1.0)))
        return call(clip, canvas, caller, calls, bend, opening)

    return Source(name, render)


def _draw_chimes(dice: Dice, canvas: Canvas) -> Source:
    """Wind chimes, bottles, pipes, dripping into tins, a playpen: tones at no pitch and no time."""
    name, low, high, rate, decay, ratios = dice.pick(
        (
            ("wind chimes", 600.0, 2400.0, (1.5, 6.0), (0.5, 3.0), (1.0, 2.76, 5.4)),
            ("bottles", 300.0, 1500.0, (1.0, 5.0), (0.08, 0.5), (1.0, 2.3, 3.9)),
            ("pipes", 150.0, 900.0, (1.0, 4.0), (0.2, 1.2), (1.0, 2.0, 3.0, 4.1)),
            ("dripping", 400.0, 2500.0, (2.0, 8.0), (0.05, 0.3), (1.0, 2.0)),
            ("playpen", 250.0, 1200.0, (1.5, 6.0), (0.15, 0.8), (1.0, 2.0, 5.9)),
        )
    )
    pitches = [dice.log_between(low, high) for _ in range(dice.whole(4, 9))]
    pace, order = dice.log_between(*rate), dice.log_between(0.8, 2.0)
    fall = dice.log_between(*decay)
    modes = np.array(ratios) * (1 + 0.01 * dice.normals(len(ratios)))
    sizes = modes ** -dice.between(0.4, 1.6)
    samples = min(canvas.samples, round(1.1 * fall * canvas.rate) + 64)
    tones = [
        ring(canvas.rate, samples, pitch * modes, fall * modes**-0.7, sizes,
             np.linspace(0.0, 0.4, len(modes)))
        for pitch in pitches
    ]  # fmt: skip
    click = dice.between(0.0, 0.3)
    air = dice.log_between(0.002, 0.05)
    gain = tilt_gain(canvas, noise_bins(canvas), [(100, -12), (1000, 0), (8000, -10)])

    def render(clip: Dice) -> np.ndarray:
        sound = np.float32(air) * coloured(clip, canvas, gain)
        times = _irregular(clip, canvas.seconds, pace, order)
        for time in times if len(times) else [clip.between(0.0, 0.5) * canvas.seconds]:
            start, loudness = round(time * canvas.rate), clip.between(0.3, 1.0)
            add(sound, clip.pick(tones), start, loudness)
            add(sound, white(clip, 96) * np.linspace(1, 0, 96, dtype=np.float32), start,
                click * loudness)  # fmt: skip
        return sound

    return Source(name, render)


LOOKALIKES = (
    (0.15, _draw_rattle),
    (0.25, _draw_crank),
    (0.53, _draw_calls),
    (0.07, _draw_chimes),
)


def draw_lookalike(dice: Dice, canvas: Canvas) -> Source:
    return dice.weighted(LOOKALIKES)(dice, canvas)
