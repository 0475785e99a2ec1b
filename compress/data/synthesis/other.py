"""Everything else that is heard: weather, water, blows, animals, steps, machines without engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.fft

from compress.data.synthesis.lookalikes import draw_lookalike
from compress.data.synthesis.signal import (
    Canvas,
    Dice,
    Source,
    add,
    analyse,
    coloured,
    control_times,
    cycles,
    drift,
    frame_frequencies,
    frame_noise,
    frame_times,
    glide,
    harmonic_table,
    noise_bins,
    peaks,
    read_table,
    ring,
    sine_table,
    synthesise,
    tilt_gain,
    to_audio,
    white,
)

# Calibrated with the constants of compress.data.scenes: how far small and large networks differ.
LOOKALIKE_SHARE = 0.5

Maker = Callable[[Dice, Canvas], Source]


def _moments(clip: Dice, canvas: Canvas, rate: float, regularity: float) -> np.ndarray:
    """Sample indices of events, about ``rate`` a second, at least one; 1 = like a clock."""
    count = int(canvas.seconds * rate) + 2
    gaps = regularity + (1 - regularity) * clip.rng.exponential(size=count)
    times = (np.cumsum(gaps) - clip.unit()) / rate
    index = (times * canvas.rate).astype(int)
    index = index[(index >= 0) & (index < canvas.samples - 64)]
    if not len(index):
        index = np.array([int(clip.between(0.0, 0.6) * canvas.samples)])
    return index


def _strewn(
    clip: Dice,
    canvas: Canvas,
    grains: list[np.ndarray],
    rate: float,
    regularity: float,
    spread: float,
) -> np.ndarray:
    """Grains at events, of sizes that spread over ``spread`` nepers."""
    out = np.zeros(canvas.samples, dtype=np.float32)
    for start in _moments(clip, canvas, rate * clip.log_between(0.7, 1.4), regularity):
        grain = grains[clip.whole(0, len(grains) - 1)]
        add(out, grain, int(start), float(np.exp(-spread * clip.unit())))
    return out


def _dense(clip: Dice, canvas: Canvas, grain: np.ndarray, rate: float, spread: float) -> np.ndarray:
    """Very many copies of one grain, by convolution with random impulses."""
    size = scipy.fft.next_fast_len(canvas.samples + len(grain), real=True)
    impulses = np.zeros(canvas.samples, dtype=np.float32)
    count = max(1, int(rate * canvas.seconds))
    place = clip.rng.integers(0, canvas.samples, count)
    impulses[place] = np.exp(spread * clip.normals(count)) * np.sign(clip.normals(count))
    spectrum = scipy.fft.rfft(impulses, size) * scipy.fft.rfft(grain, size)
    return scipy.fft.irfft(spectrum, size)[: canvas.samples]


def _burst(
    dice: Dice, rate: int, seconds: float, knots: list[tuple[float, float]], attack: float = 0.0
) -> np.ndarray:
    """A decaying burst of coloured noise."""
    part = Canvas(rate, max(64, round(seconds * rate)))
    times = np.arange(part.samples) / rate
    level = np.exp(-5.0 * times / seconds)
    if attack:
        level *= np.minimum(times / attack, 1.0)
    return coloured(dice, part, tilt_gain(part, noise_bins(part), knots)) * level.astype(np.float32)


def _struck_object(dice: Dice, canvas: Canvas, low: float, high: float, decay: float) -> np.ndarray:
    """A blow on a thing: some modes and a click."""
    count = dice.whole(4, 16)
    frequencies = low * (high / low) ** np.sort(dice.rng.random(count))
    decays = decay * (frequencies / low) ** -dice.between(0.1, 0.8) * (0.4 + dice.rng.random(count))
    seconds = min(1.2 * decay, 1.0)
    sound = ring(
        canvas.rate,
        max(256, round(seconds * canvas.rate)),
        frequencies,
        decays,
        0.2 + dice.rng.random(count),
        dice.rng.random(count),
    )
    click = _burst(dice, canvas.rate, 0.02, [(100, -20), (low, -6), (min(high, 7000), 0)])
    add(sound, click, 0, dice.log_between(0.1, 3.0))
    return sound


# --- steady noises: these also serve as backgrounds ---------------------------------------------


def _draw_wind(dice: Dice, canvas: Canvas) -> Source:
    corner = dice.log_between(80.0, 500.0)
    slope = dice.between(9.0, 18.0)
    gusts = dice.log_between(0.7, 4.0)
    whistle = dice.chance(0.25)
    pitch = dice.log_between(300.0, 1500.0)
    leaves = dice.log_between(0.003, 0.2) if dice.chance(0.4) else 0.0

    def render(clip: Dice) -> np.ndarray:
        times = frame_times(canvas)
        frequencies = np.maximum(frame_frequencies(canvas), 20.0)
        strength = drift(clip, times, gusts)
        cut = corner * np.exp(0.5 * strength)
        ratio = frequencies / cut[:, None]
        gains = np.exp(0.7 * strength)[:, None] / (1 + ratio ** np.float32(slope / 6.0))
        if whistle:
            moving = pitch * np.exp(0.25 * strength)
            gains += 0.3 * np.exp(strength)[:, None] * peaks(frequencies, moving, 0.03 * moving)
        if leaves:
            gains += leaves * np.exp(strength)[:, None] * (frequencies > 1500)
        return frame_noise(clip, canvas, gains.astype(np.float32))

    return Source("wind", render)


def _draw_rain(dice: Dice, canvas: Canvas) -> Source:
    gain = tilt_gain(
        canvas,
        noise_bins(canvas),
        [
            (100, dice.between(-30, -8)),
            (700, dice.between(-14, -2)),
            (3000, 0),
            (8000, dice.between(-10, 4)),
        ],
    )
    drop_rate = dice.log_between(15.0, 400.0)
    drop_level = dice.log_between(0.05, 2.0)
    drop = _burst(dice, canvas.rate, dice.log_between(0.004, 0.03), [(200, -12), (2500, 0)])
    if dice.chance(0.4):  # on something that sounds
        add(drop, _struck_object(dice, canvas, 300.0, 4000.0, 0.04), 0)

    def render(clip: Dice) -> np.ndarray:
        sound = coloured(clip, canvas, gain)
        sound = sound / np.float32(np.std(sound))
        return sound + np.float32(drop_level) * _dense(clip, canvas, drop, drop_rate, 0.9)

    return Source("rain", render)


def _draw_waves(dice: Dice, canvas: Canvas) -> Source:
    period = dice.between(2.5, 7.0)
    bright = dice.between(0.2, 1.0)
    depth = dice.between(0.8, 2.2)

    def render(clip: Dice) -> np.ndarray:
        times = frame_times(canvas)
        frequencies = np.maximum(frame_frequencies(canvas), 20.0)
        swell = np.sin(2 * np.pi * (times / period + clip.unit())) + 0.3 * drift(clip, times, 4.0)
        cut = (300.0 + 2500.0 * bright) * np.exp(0.7 * swell)
        gains = np.exp(depth * swell)[:, None] / (1 + frequencies / cut[:, None])
        return frame_noise(clip, canvas, gains.astype(np.float32))

    return Source("sea waves", render)


def _draw_stream(dice: Dice, canvas: Canvas) -> Source:
    """Running water: bubbles, each a short rising tone, over a hiss."""
    rate = dice.log_between(20.0, 250.0)
    low, high = dice.between(300.0, 700.0), dice.between(1200.0, 3500.0)
    hiss = dice.log_between(0.02, 0.5)
    gain = tilt_gain(canvas, noise_bins(canvas), [(200, -20), (800, -3), (3000, 0), (8000, -8)])
    bubbles = []
    for _ in range(8):
        length = round(dice.log_between(0.01, 0.06) * canvas.rate)
        times = np.arange(length) / canvas.rate
        pitch = dice.log_between(low, high)
        phase = pitch * times * (1 + dice.between(0.5, 4.0) * times)
        bubbles.append(
            (np.sin(2 * np.pi * phase) * np.exp(-5 * times * canvas.rate / length)).astype("f4")
        )

    def render(clip: Dice) -> np.ndarray:
        sound = np.float32(hiss) * coloured(clip, canvas, gain)
        for number in range(3):
            bubble = bubbles[(number + clip.whole(0, 7)) % 8]
            sound += _dense(clip, canvas, bubble, rate / 3, 0.8)
        return sound

    return Source("running water", render)


def _draw_fan(dice: Dice, canvas: Canvas) -> Source:
    """A fan, an air duct, a cooker hood: broadband air and a faint hum of the mains."""
    bumps = [(40.0, dice.between(-10, 4))]
    for centre in (120.0, 300.0, 700.0, 1600.0, 3500.0, 8000.0):
        bumps.append((centre, bumps[-1][1] + dice.between(-9.0, 3.0)))
    gain = tilt_gain(canvas, noise_bins(canvas), bumps)
    mains = dice.pick((100.0, 120.0, 50.0, 60.0))
    hum = harmonic_table(np.arange(1, 9) ** -dice.between(0.5, 2.0) * dice.rng.random(8))
    hum_level = dice.log_between(0.01, 0.7)
    flutter = dice.log_between(3.0, 25.0)
    depth = dice.between(0.0, 0.25)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        sound = coloured(clip, canvas, gain)
        sound /= np.float32(np.std(sound))
        sound += np.float32(hum_level) * glide(
            canvas, np.full(len(points), mains), hum, clip.unit()
        )
        level = 1 + depth * np.sin(2 * np.pi * (flutter * points + clip.unit()))
        return sound * to_audio(level.astype(np.float32), canvas)

    return Source("fan", render)


def _draw_vacuum(dice: Dice, canvas: Canvas) -> Source:
    """Vacuum cleaner, hair dryer, compressed air: bright air noise with a thin tone."""
    gain = tilt_gain(
        canvas,
        noise_bins(canvas),
        [
            (60, -25),
            (dice.between(250, 600), -6),
            (dice.between(900, 2500), 0),
            (8000, dice.between(-18, -2)),
        ],
    )
    tone = dice.log_between(400.0, 2500.0)
    table = harmonic_table(np.array([1.0, 0.4, 0.2]))
    level = dice.log_between(0.03, 0.5)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        sound = coloured(clip, canvas, gain)
        sound /= np.float32(np.std(sound))
        pitch = tone * (1 + 0.003 * drift(clip, points, 4.0))
        sound += np.float32(level) * glide(canvas, pitch, table, clip.unit())
        breath = np.exp(0.15 * drift(clip, points, 2.0))
        return sound * to_audio(breath, canvas)

    return Source("vacuum cleaner", render)


def _draw_traffic(dice: Dice, canvas: Canvas) -> Source:
    """The roar of a far road: tyres and air, no single engine."""
    gain = tilt_gain(
        canvas,
        noise_bins(canvas),
        [(40, dice.between(-12, 0)), (150, 0), (dice.between(600, 1300), dice.between(-8, 2)),
         (3000, dice.between(-25, -12)), (8000, -45)],
    )  # fmt: skip

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        swell = np.exp(0.35 * drift(clip, points, 0.8))
        return coloured(clip, canvas, gain) * to_audio(swell, canvas)

    return Source("far road", render)


def _draw_room_tone(dice: Dice, canvas: Canvas) -> Source:
    slope = dice.pick((0.0, -3.0, -4.5, -6.0))
    knots = [(hz, slope * np.log2(hz / 1000) + dice.between(-2, 2)) for hz in (50, 300, 2000, 8000)]
    gain = tilt_gain(canvas, noise_bins(canvas), knots)

    def render(clip: Dice) -> np.ndarray:
        level = 1 + 0.05 * drift(clip, control_times(canvas), 2.0)
        return coloured(clip, canvas, gain) * to_audio(level, canvas)

    return Source("room tone", render)


def _draw_hum(dice: Dice, canvas: Canvas) -> Source:
    """A transformer or a refrigerator: mains harmonics, steady."""
    count = dice.whole(4, 20)
    table = harmonic_table(
        dice.rng.random(count) * np.arange(1, count + 1) ** -dice.between(0.3, 1.5),
        dice.rng.random(count),
    )
    mains = dice.pick((50.0, 60.0, 100.0, 120.0)) * dice.between(0.998, 1.002)
    noise = dice.log_between(0.03, 0.6)
    gain = tilt_gain(canvas, noise_bins(canvas), [(50, 0), (500, -8), (8000, -30)])
    rattle = dice.between(0.0, 0.1)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        sound = glide(canvas, np.full(len(points), mains), table, clip.unit())
        air = coloured(clip, canvas, gain)
        sound += np.float32(noise / np.std(air)) * air
        return sound * to_audio(1 + np.float32(rattle) * drift(clip, points, 15.0), canvas)

    return Source("mains hum", render)


def _draw_crackle(dice: Dice, canvas: Canvas) -> Source:
    """Fire, frying, a record's scratches: many tiny clicks over a soft roar."""
    rate = dice.log_between(8.0, 500.0)
    roar = dice.log_between(0.02, 0.6)
    gain = tilt_gain(
        canvas, noise_bins(canvas), [(50, 0), (400, -8), (2000, dice.between(-20, 0)), (8000, -20)]
    )
    grain = _burst(
        dice,
        canvas.rate,
        dice.log_between(0.002, 0.02),
        [(300, -15), (dice.between(1500, 5000), 0)],
    )

    def render(clip: Dice) -> np.ndarray:
        clicks = _dense(clip, canvas, grain, rate, 1.3)
        air = coloured(clip, canvas, gain)
        return clicks + np.float32(roar * np.std(clicks) / np.std(air)) * air

    return Source("crackling", render)


def _draw_insects(dice: Dice, canvas: Canvas) -> Source:
    """Crickets and cicadas: a high tone in quick pulses."""
    tone = dice.log_between(2500.0, 6500.0)
    pulses = dice.log_between(15.0, 120.0)
    chirps = dice.log_between(0.8, 5.0)
    share = dice.between(0.3, 1.0)
    blur = dice.between(0.0, 0.03)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        level = (0.5 + 0.5 * np.sin(2 * np.pi * (pulses * points + clip.unit()))) * (
            np.mod(points * chirps + clip.unit(), 1.0) < share
        )
        pitch = tone * (1 + blur * drift(clip, points, 120.0))
        return glide(canvas, pitch, sine_table(), 0.0) * to_audio(level.astype(np.float32), canvas)

    return Source("insects", render)


# --- events -------------------------------------------------------------------------------------


def _draw_impacts(dice: Dice, canvas: Canvas) -> Source:
    name, low, high, decay, rate, regularity = dice.pick(
        (
            ("door", (60, 150), (600, 2500), (0.05, 0.25), (0.5, 2.0), 0.2),
            ("dishes", (1200, 2500), (4000, 7800), (0.05, 0.6), (2.0, 10.0), 0.1),
            ("hammering", (200, 900), (2000, 6000), (0.03, 0.3), (1.0, 5.0), 0.9),
            ("knocking", (120, 400), (900, 2500), (0.02, 0.1), (2.0, 6.0), 0.8),
            ("glass", (1800, 3500), (5000, 7800), (0.1, 0.8), (1.0, 15.0), 0.1),
            ("keys", (2500, 4500), (6000, 7900), (0.03, 0.2), (8.0, 25.0), 0.2),
            ("boxes", (80, 250), (800, 2000), (0.05, 0.2), (1.0, 4.0), 0.1),
            ("coins", (3000, 5000), (6000, 7900), (0.05, 0.4), (3.0, 12.0), 0.2),
            ("ball", (80, 300), (500, 1500), (0.04, 0.12), (1.0, 3.0), 0.9),
            ("metal", (200, 900), (3000, 7000), (0.2, 1.5), (0.5, 3.0), 0.3),
            ("ticking", (1500, 3000), (4000, 7500), (0.005, 0.03), (1.0, 6.0), 1.0),
            ("bottle crate", (600, 1500), (3000, 6000), (0.05, 0.3), (4.0, 14.0), 0.2),
        )
    )
    lowest, highest = dice.between(*low), dice.between(*high)
    length = dice.log_between(*decay)
    grains = [
        _struck_object(dice, canvas, lowest * dice.between(0.8, 1.25), highest, length)
        for _ in range(1 if regularity > 0.75 else 4)
    ]
    pace = dice.log_between(*rate)
    spread = 2.5 - 2.0 * regularity  # irregular blows differ more in strength
    return Source(name, lambda clip: _strewn(clip, canvas, grains, pace, regularity, spread))


def _draw_steps(dice: Dice, canvas: Canvas) -> Source:
    heel = _burst(
        dice,
        canvas.rate,
        dice.log_between(0.03, 0.15),
        [(60, dice.between(-15, 0)), (300, 0), (2000, dice.between(-25, 0)), (8000, -30)],
    )
    gravel = dice.chance(0.4)
    scrape = _burst(
        dice, canvas.rate, dice.between(0.08, 0.25), [(300, -20), (3000, 0), (8000, -6)], 0.03
    )
    share = dice.log_between(0.2, 2.0) if gravel else dice.between(0.0, 0.15)
    pace = dice.between(1.4, 3.5)

    def render(clip: Dice) -> np.ndarray:
        out = np.zeros(canvas.samples, dtype=np.float32)
        for start in _moments(clip, canvas, pace, 0.93):
            strength = clip.between(0.5, 1.0)
            add(out, heel, int(start), strength)
            add(out, scrape, int(start) + round(0.04 * canvas.rate), share * strength)
        return out

    return Source("footsteps on gravel" if gravel else "footsteps", render)


def _draw_rustle(dice: Dice, canvas: Canvas) -> Source:
    """Paper, plastic, leaves, clothes."""
    grains = [
        _burst(
            dice,
            canvas.rate,
            dice.log_between(0.005, 0.06),
            [(200, -25), (dice.log_between(800, 5000), 0), (8000, dice.between(-20, 0))],
        )
        for _ in range(5)
    ]
    rate = dice.log_between(15.0, 90.0)
    strokes = dice.log_between(0.8, 5.0)

    def render(clip: Dice) -> np.ndarray:
        sound = _strewn(clip, canvas, grains, rate, 0.1, 3.0)
        level = np.exp(1.2 * drift(clip, control_times(canvas), strokes))
        return sound * to_audio(level, canvas)

    return Source("rustling", render)


def _draw_strokes(dice: Dice, canvas: Canvas) -> Source:
    """Sawing, brushing, sweeping, scrubbing: noise in a to-and-fro."""
    gain = tilt_gain(
        canvas,
        noise_bins(canvas),
        [(100, -25), (dice.log_between(500, 4000), 0), (8000, dice.between(-18, 0))],
    )
    pace = dice.log_between(0.8, 5.0)
    sharp = dice.between(0.5, 3.0)
    teeth = dice.log_between(60.0, 300.0) if dice.chance(0.4) else 0.0

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        turn = pace * points * (1 + 0.03 * drift(clip, points, 1.0)) + clip.unit()
        level = np.abs(np.sin(np.pi * turn)) ** sharp * (0.7 + 0.3 * np.sign(np.sin(np.pi * turn)))
        sound = coloured(clip, canvas, gain)
        if teeth:
            phase = cycles(teeth * (0.3 + level), canvas, clip.unit())
            sound = sound * (1 + read_table(sine_table(), phase))
        return sound * to_audio(level.astype(np.float32), canvas)

    return Source("sawing" if teeth else "brushing", render)


def _draw_machine(dice: Dice, canvas: Canvas) -> Source:
    """Washing machine, sewing machine, printer, loom: a rhythm of clatter over noise."""
    name, rate, low, high = dice.pick(
        (
            ("washing machine", (0.8, 12.0), 60.0, 500.0),
            ("sewing machine", (6.0, 18.0), 300.0, 3500.0),
            ("printer", (4.0, 25.0), 500.0, 6000.0),
            ("typing", (3.0, 9.0), 700.0, 6000.0),
            ("conveyor", (2.0, 9.0), 150.0, 3000.0),
        )
    )
    pace = dice.log_between(*rate)
    strokes = [
        _struck_object(dice, canvas, low * dice.between(0.8, 1.4), high, dice.between(0.015, 0.08))
        for _ in range(dice.whole(1, 4))
    ]
    bed = dice.log_between(0.02, 0.8) if name != "typing" else 0.0
    gain = tilt_gain(
        canvas,
        noise_bins(canvas),
        [(50, -3), (250, 0), (1500, dice.between(-14, -3)), (8000, dice.between(-30, -10))],
    )
    regular = 0.3 if name == "typing" else 0.985
    buzz = dice.between(90.0, 350.0) if name != "typing" and dice.chance(0.5) else 0.0
    table = harmonic_table(np.arange(1, 12) ** -1.2 * (0.2 + dice.rng.random(11)))
    buzz_level = dice.log_between(0.05, 0.6)

    def render(clip: Dice) -> np.ndarray:
        sound = np.zeros(canvas.samples, dtype=np.float32)
        moments = _moments(clip, canvas, pace, regular)
        for number, start in enumerate(moments):
            stroke = strokes[(number if regular > 0.5 else clip.whole(0, 3)) % len(strokes)]
            add(sound, stroke, int(start), clip.between(0.6, 1.0))
        level = np.float32(np.std(sound))
        if bed:
            air = coloured(clip, canvas, gain)
            sound += air * (np.float32(bed) * level / np.float32(np.std(air)))
        if buzz:
            points = control_times(canvas)
            pitch = buzz * (1 + 0.01 * drift(clip, points, 3.0))
            sound += np.float32(buzz_level) * level * glide(canvas, pitch, table, clip.unit())
        return sound

    return Source(name, render)


def _draw_applause(dice: Dice, canvas: Canvas) -> Source:
    centre = dice.log_between(700.0, 2200.0)
    clap = _burst(
        dice, canvas.rate, dice.between(0.01, 0.05), [(200, -18), (centre, 0), (8000, -14)]
    )
    rate = dice.log_between(8.0, 600.0)
    return Source("applause", lambda clip: _dense(clip, canvas, clap, rate, 0.5))


def _draw_thunder(dice: Dice, canvas: Canvas) -> Source:
    corner = dice.log_between(60.0, 250.0)
    crack = dice.log_between(0.02, 1.0)

    def render(clip: Dice) -> np.ndarray:
        times = frame_times(canvas)
        frequencies = np.maximum(frame_frequencies(canvas), 20.0)
        start = clip.between(-0.6, 0.5) * canvas.seconds
        level = np.exp(-np.abs(times - start) * np.where(times < start, 12.0, 1.2))
        level = level * np.exp(0.7 * drift(clip, times, 8.0))
        cut = corner * (1 + 12.0 * crack * np.exp(-np.maximum(times - start, 0) / 0.15))
        gains = level[:, None] / (1 + (frequencies / cut[:, None]) ** 2)
        return frame_noise(clip, canvas, (gains + 1e-4).astype(np.float32))

    return Source("thunder", render)


# --- animals ------------------------------------------------------------------------------------


def _draw_birds(dice: Dice, canvas: Canvas) -> Source:
    """Calls of one to three birds, each a repeated figure of chirps."""
    figures = []
    for _ in range(dice.whole(1, 3)):
        centre = dice.log_between(1500.0, 5500.0)
        chirps = []
        for _ in range(dice.whole(1, 6)):
            length = dice.log_between(0.02, 0.25)
            bend = dice.between(-0.6, 0.6)
            trill = dice.log_between(15.0, 60.0) if dice.chance(0.3) else 0.0
            chirps.append((length, dice.between(0.01, 0.12), centre * 2 ** dice.between(-0.4, 0.4),
                           bend, trill, dice.between(0.0, 0.25)))  # fmt: skip
        figures.append((chirps, dice.between(0.2, 1.5), dice.log_between(0.3, 1.0)))
    table = harmonic_table(np.array([1.0, dice.log_between(0.01, 0.3), 0.02]))

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        out = np.zeros(canvas.samples, dtype=np.float32)
        for chirps, rest, loudness in figures:
            pitch = np.full(len(points), 2000.0)
            level = np.zeros(len(points))
            whole = sum(chirp[0] + chirp[1] for chirp in chirps)
            time = clip.between(-1.0, 0.5) * whole
            while time < canvas.seconds:
                for length, pause, centre, bend, trill, depth in chirps:
                    first, last = np.searchsorted(points, (time, time + length))
                    if last > first:
                        part = (points[first:last] - time) / length
                        swing = depth * np.sin(2 * np.pi * trill * points[first:last])
                        pitch[first:last] = centre * np.exp2(bend * (part - 0.5) + swing)
                        level[first:last] = np.sin(np.pi * np.clip(part, 0, 1)) * loudness
                    time += length + pause
                time += rest * clip.between(0.5, 1.5)
            pitch = np.minimum(pitch, 0.45 * canvas.rate)
            out += glide(canvas, pitch, table, clip.unit()) * to_audio(level.astype("f4"), canvas)
        return out + np.float32(1e-5) * white(clip, canvas.samples)

    return Source("birds", render)


def _draw_animal(dice: Dice, canvas: Canvas) -> Source:
    """Barks, caws, bleats, meows, croaks: a throat without words."""
    name, low, high, lengths, rate, rough, formant, arch = dice.pick(
        (
            ("dog", 250.0, 700.0, (0.08, 0.25), (1.0, 3.5), 0.5, (700, 1600), 0.5),
            ("big dog", 120.0, 300.0, (0.12, 0.35), (0.8, 2.5), 0.7, (450, 1100), 0.4),
            ("crow", 350.0, 700.0, (0.2, 0.45), (0.8, 2.0), 0.8, (1200, 2200), 0.15),
            ("sheep", 180.0, 450.0, (0.4, 1.0), (0.5, 1.0), 0.3, (800, 1700), 0.1),
            ("cat", 400.0, 900.0, (0.4, 1.1), (0.4, 1.0), 0.15, (900, 2400), 0.5),
            ("frog", 60.0, 300.0, (0.1, 0.4), (1.0, 4.0), 0.4, (500, 1500), 0.1),
            ("cow", 90.0, 200.0, (0.8, 1.6), (0.3, 0.8), 0.3, (400, 1000), 0.3),
            ("hen", 350.0, 800.0, (0.05, 0.2), (2.0, 6.0), 0.4, (1000, 2600), 0.3),
            ("duck", 200.0, 400.0, (0.1, 0.25), (2.0, 5.0), 0.6, (1200, 2400), 0.15),
        )
    )
    pitch = dice.log_between(low, high)
    length, pace = dice.between(*lengths), dice.log_between(*rate)
    roughness = rough * dice.between(0.5, 1.3)
    centres = np.array(formant) * dice.between(0.8, 1.25)
    tilt = dice.between(0.4, 1.1)
    tremor = dice.between(6.0, 12.0) if name == "sheep" else 0.0
    count = max(2, min(80, int(0.9 * canvas.nyquist / (pitch * 2**arch * 1.3))))
    table = harmonic_table(np.arange(1, count + 1) ** -tilt)

    def render(clip: Dice) -> np.ndarray:
        points, times = control_times(canvas), frame_times(canvas)
        course = np.full(len(points), pitch)
        level = np.zeros(len(points))
        for start in _moments(clip, canvas, pace, 0.7):
            time, span = start / canvas.rate, length * clip.between(0.8, 1.25)
            first, last = np.searchsorted(points, (time, time + span))
            part = (points[first:last] - time) / span
            shape = np.sin(np.pi * np.clip(part, 0, 1))
            course[first:last] = pitch * clip.between(0.9, 1.1) * np.exp2(arch * (shape - 0.5))
            level[first:last] = np.sqrt(shape) * clip.between(0.6, 1.0)
        if tremor:
            level = level * (1 + 0.5 * np.sin(2 * np.pi * tremor * points))
            course = course * (1 + 0.03 * np.sin(2 * np.pi * tremor * points))
        course = course * (1 + 0.06 * roughness * drift(clip, points, 100.0))
        sound = glide(canvas, course, table, clip.unit())
        sound = sound * (1 + np.float32(roughness) * white(clip, canvas.samples))
        sound = sound * to_audio(level.astype(np.float32), canvas)
        opening = np.interp(times, points, 0.75 + 0.35 * level).astype(np.float32)
        frequencies = frame_frequencies(canvas)
        gains = np.full((len(times), len(frequencies)), 0.02, dtype=np.float32)
        for number, centre in enumerate(centres):
            moving = np.float32(centre) * opening
            gains += np.float32(1.0 - 0.4 * number) * peaks(
                frequencies, moving, np.full(len(times), 0.15 * centre, dtype=np.float32)
            )
        return synthesise(analyse(sound, canvas) * gains, canvas)

    return Source(name, render)


_STEADY: tuple[tuple[float, Maker], ...] = (
    (0.17, _draw_wind),
    (0.12, _draw_rain),
    (0.06, _draw_waves),
    (0.09, _draw_stream),
    (0.13, _draw_fan),
    (0.08, _draw_vacuum),
    (0.13, _draw_traffic),
    (0.11, _draw_room_tone),
    (0.03, _draw_hum),
    (0.04, _draw_crackle),
    (0.04, _draw_insects),
)
_EVENTS: tuple[tuple[float, Maker], ...] = (
    (0.24, _draw_impacts),
    (0.10, _draw_steps),
    (0.08, _draw_rustle),
    (0.09, _draw_strokes),
    (0.15, _draw_machine),
    (0.05, _draw_applause),
    (0.04, _draw_thunder),
    (0.08, _draw_birds),
    (0.21, _draw_animal),
)


def draw_ambience(dice: Dice, canvas: Canvas) -> Source:
    """A steady noise, as behind other sounds."""
    return dice.weighted(_STEADY)(dice, canvas)


def draw_other(dice: Dice, canvas: Canvas) -> Source:
    """A lookalike, a steady noise or a train of events, the latter two sometimes at once."""
    if dice.chance(LOOKALIKE_SHARE):
        return draw_lookalike(dice, canvas)
    families = ((0.42, _STEADY), (0.58, _EVENTS))
    first = dice.weighted(dice.weighted(families))(dice, canvas)
    if not dice.chance(0.3):
        return first
    second = dice.weighted(dice.weighted(families))(dice, canvas)
    balance = dice.log_between(0.2, 2.0)

    def render(clip: Dice) -> np.ndarray:
        sounds = [first.render(clip), second.render(clip)]
        levels = [max(float(np.std(sound)), 1e-12) for sound in sounds]
        share = balance * clip.log_between(0.5, 2.0) / levels[1]
        return sounds[0] / np.float32(levels[0]) + sounds[1] * np.float32(share)

    return Source(f"{first.name} and {second.name}", render)
