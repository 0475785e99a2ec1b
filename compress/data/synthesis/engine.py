"""Engines: firing pulses over the engine's cycle, noise that fires with them, rotors, motors."""

from __future__ import annotations

import numpy as np

from compress.data.synthesis.signal import (
    Canvas,
    Dice,
    Source,
    coloured,
    control_times,
    cycles,
    drift,
    filtered,
    glide,
    harmonic_table,
    noise_bins,
    read_table,
    resonances,
    sine_table,
    tilt_gain,
    to_audio,
    white,
)


def _firing_table(dice: Dice, cylinders: int, sharpness: float, unevenness: float) -> np.ndarray:
    """Pressure over one engine cycle (two turns): one pulse per cylinder, not quite alike."""
    orders = np.arange(1, 1200)
    spectrum = np.zeros(len(orders), dtype=np.complex128)
    for cylinder in range(cylinders):
        place = (cylinder + unevenness * 0.5 * (dice.unit() - 0.5)) / cylinders
        size = 1 + unevenness * (dice.unit() - 0.5) * 2
        spectrum += size * np.exp(-2j * np.pi * orders * place)
    spectrum /= (1 + orders / (cylinders * sharpness)) ** 1.5
    return harmonic_table(np.abs(spectrum), np.angle(spectrum) / (2 * np.pi))


def _speed_course(
    dice: Dice, times: np.ndarray, course: str, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turns per second and load (0..1) over time for a way of running."""
    seconds = float(times[-1])
    wander = 1 + 0.01 * drift(dice, times, 3.0)
    base = dice.log_between(low, high)
    if course == "idle":
        return low * dice.between(0.9, 1.2) * wander, np.full(len(times), 0.25)
    if course == "rev":
        start = dice.between(0.0, 0.6 * seconds)
        rise = np.clip((times - start) / dice.between(0.15, 0.5), 0, 1)
        fall = np.exp(-np.maximum(times - start - dice.between(0.3, 0.8), 0) / 0.6)
        blip = rise * fall
        return (low + (high - low) * dice.between(0.4, 0.9) * blip) * wander, 0.25 + 0.7 * blip
    if course == "accelerate":
        climb = dice.between(0.15, 0.6)
        speed = base * np.exp2(climb * (times - seconds * dice.unit()))
        load = np.full(len(times), 0.85)
        if dice.chance(0.4):  # a gear change
            change = dice.between(0.2, 0.9) * seconds
            speed = np.where(times > change, speed * 0.68, speed)
            load = np.where(np.abs(times - change) < 0.12, 0.15, load)
        return np.clip(speed, low, 1.2 * high) * wander, load
    if course == "slow down":
        fall = base * np.exp2(-dice.between(0.1, 0.6) * times)
        return np.maximum(fall, low) * wander, np.full(len(times), 0.2)
    return base * wander, np.full(len(times), dice.between(0.4, 0.8))


_KINDS = (
    # weight, name, cylinders, turns/s low..high, sharpness, unevenness, tilt dB/octave,
    # combustion noise, clatter
    (0.22, ("petrol car", (4, 4, 4, 6), 12.0, 65.0, (1.0, 3.0), 0.15, (-7, -3), 0.5, 0.1)),
    (0.14, ("diesel car", (4, 4, 6), 12.0, 50.0, (2.0, 6.0), 0.25, (-6, -2), 0.7, 1.0)),
    (0.14, ("lorry", (6, 6, 8), 8.0, 32.0, (1.5, 5.0), 0.25, (-7, -3), 0.9, 0.9)),
    (0.07, ("tractor", (2, 3, 4), 7.0, 30.0, (2.0, 6.0), 0.35, (-6, -2), 0.7, 0.8)),
    (0.13, ("motorcycle", (1, 2, 2, 4), 15.0, 120.0, (2.0, 8.0), 0.3, (-5, -1), 0.5, 0.2)),
    (0.09, ("lawn mower", (1, 1), 35.0, 60.0, (4.0, 12.0), 0.2, (-4, 0), 0.6, 0.5)),
    (0.08, ("chain saw", (1, 2), 80.0, 190.0, (3.0, 8.0), 0.3, (-3, 1), 0.6, 0.2)),
    (0.07, ("motor boat", (2, 4, 6), 12.0, 70.0, (1.0, 3.0), 0.25, (-7, -3), 0.8, 0.2)),
    (0.05, ("one-cylinder diesel", (1, 1, 2), 7.0, 24.0, (3.0, 10.0), 0.2, (-6, -2), 0.8, 0.6)),
    (0.06, ("generator", (1, 2, 4), 22.0, 30.0, (2.0, 7.0), 0.15, (-6, -2), 0.5, 0.5)),
)


def _draw_piston(dice: Dice, canvas: Canvas) -> Source:
    name, counts, low, high, sharp, uneven, tilts, rush, clatter = dice.weighted(_KINDS)
    cylinders = dice.pick(counts)
    table = _firing_table(dice, cylinders, dice.log_between(*sharp), uneven * dice.between(0.5, 2))
    # The noise of combustion and of the valves follows the cycle as well.
    noise_table = np.square(_firing_table(dice, cylinders, 6.0, uneven))
    noise_table = np.minimum(noise_table / float(noise_table.mean()), 6.0)
    body = resonances(dice, canvas, dice.between(*tilts))
    ways = (
        (0.3, "idle"),
        (0.28, "steady"),
        (0.2, "accelerate"),
        (0.12, "rev"),
        (0.1, "slow down"),
    )
    courses = [dice.weighted(ways) for _ in range(3)]
    rush *= dice.log_between(0.25, 1.6)
    depth = dice.between(0.2, 0.9)
    clatter *= dice.log_between(0.15, 1.2)
    whine = dice.between(8.0, 24.0) if dice.chance(0.25) else 0.0
    whine_level = dice.log_between(0.01, 0.08)
    roadside = dice.chance(0.35)
    road = dice.log_between(0.05, 0.8)
    road_gain = tilt_gain(
        canvas,
        noise_bins(canvas),
        [(60, -6), (250, -3), (dice.between(600, 1200), 0), (3000, -14), (8000, -30)],
    )

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        course = clip.pick(courses)
        passing = roadside and course != "idle" and clip.chance(0.7)
        speed, load = _speed_course(clip, points, course, low, high)
        level = 0.4 + 0.8 * load
        if passing:
            closest = clip.between(-0.2, 1.2) * canvas.seconds
            pace = clip.log_between(0.6, 3.0)  # 1/s: speed over distance
            away = (points - closest) * pace
            distance = np.sqrt(1 + away * away)
            speed = speed * (1 - 0.06 * away / distance)
            level = level / distance
        phase = cycles(0.5 * speed, canvas, clip.unit())
        rough = 1 + 0.12 * drift(clip, points, 25.0)
        firing = read_table(table, phase) * to_audio(
            (level * rough * (0.5 + 0.5 * load)).astype(np.float32), canvas
        )
        pulses = read_table(noise_table, phase)
        sound_level = to_audio(level.astype(np.float32), canvas)
        noise = white(clip, canvas.samples) * sound_level
        firing += np.float32(0.35 * rush) * noise * (1 - depth + np.float32(depth) * pulses)
        sound = filtered(firing, canvas, body)
        if clatter > 0.05:
            knock = white(clip, canvas.samples) * pulses * np.sqrt(pulses)
            knock[1:] -= 0.9 * knock[:-1]
            sound += np.float32(0.03 * clatter) * knock * sound_level
        if course in ("steady", "slow down", "accelerate"):
            sound += np.float32(0.3 * road) * coloured(clip, canvas, road_gain) * sound_level
        if whine:
            tone = glide(canvas, whine * speed, sine_table(), clip.unit())
            sound += np.float32(whine_level) * tone * sound_level
        return sound

    return Source(name, render)


def _draw_rotor(dice: Dice, canvas: Canvas) -> Source:
    helicopter = dice.chance(0.55)
    if helicopter:
        name, rate, blade_width, tilt = "helicopter", dice.between(9.0, 28.0), 0.25, (-6, -1)
    else:
        name, rate, blade_width, tilt = "propeller", dice.between(45.0, 130.0), 0.5, (-6, -2)
    table = _firing_table(dice, 1, dice.log_between(2.0, 9.0), 0.0)
    cycle = np.linspace(0, 1, len(table), endpoint=False)
    swish = np.exp(-(((cycle - 0.5) / (blade_width * dice.between(0.3, 0.8))) ** 2))
    swish = (swish / swish.mean()).astype(np.float32)
    body = resonances(dice, canvas, dice.between(*tilt))
    rush = dice.log_between(0.3, 1.8)
    whine = dice.between(1200.0, 4500.0) if helicopter and dice.chance(0.5) else 0.0
    whine_level = dice.log_between(0.01, 0.1)
    tail = dice.between(4.0, 7.0) if helicopter else 2.0
    tail_level = dice.log_between(0.05, 0.4)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        speed = (
            rate
            * (1 + 0.01 * drift(clip, points, 1.5))
            * np.exp2(clip.between(-0.06, 0.06) * points)
        )
        phase = cycles(speed, canvas, clip.unit())
        sound = read_table(table, phase) + np.float32(tail_level) * read_table(table, phase * tail)
        sound += np.float32(0.4 * rush) * white(clip, canvas.samples) * read_table(swish, phase)
        sound = filtered(sound, canvas, body)
        if whine:
            wander = whine * (1 + 0.004 * drift(clip, points, 2.0))
            sound += np.float32(whine_level) * glide(canvas, wander, sine_table(), clip.unit())
        level = np.exp(0.25 * drift(clip, points, 1.0))
        return sound * to_audio(level.astype(np.float32), canvas)

    return Source(name, render)


def _draw_jet(dice: Dice, canvas: Canvas) -> Source:
    gain = tilt_gain(
        canvas,
        noise_bins(canvas),
        [
            (40, dice.between(-12, 0)),
            (dice.between(120, 400), 0),
            (1500, dice.between(-14, -3)),
            (8000, dice.between(-34, -14)),
        ],
    )
    tone = dice.log_between(600.0, 3500.0)
    table = harmonic_table(np.array([1.0, 0.5, 0.2, 0.15]))
    tone_level = dice.log_between(0.25, 0.9)

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        level = np.exp(0.2 * drift(clip, points, 3.0) + clip.between(-0.6, 0.6) * points)
        speed = tone * np.exp2(clip.between(-0.15, 0.15) * points)
        sound = coloured(clip, canvas, gain)
        sound += np.float32(tone_level) * glide(canvas, speed, table, clip.unit())
        return sound * to_audio(level.astype(np.float32), canvas)

    return Source("jet", render)


def _draw_electric(dice: Dice, canvas: Canvas) -> Source:
    name, low, high, changing = dice.pick(
        (
            ("tram", 60.0, 500.0, True),
            ("train", 40.0, 400.0, True),
            ("electric car", 200.0, 1200.0, True),
            ("drill", 150.0, 500.0, True),
            ("servo", 300.0, 900.0, True),
            ("pump motor", 48.0, 200.0, False),
        )
    )
    slots = dice.pick((3, 6, 9, 12))
    amplitudes = np.arange(1, 60) ** -dice.between(0.9, 2.0) * (0.2 + dice.rng.random(59))
    amplitudes[slots - 1 :: slots] *= 4
    base = dice.log_between(low, high)
    fitting = max(2, min(59, int(0.9 * canvas.nyquist / (base * 2))))
    table = harmonic_table(amplitudes[:fitting], dice.rng.random(fitting))
    carrier = dice.between(800.0, 4000.0) if dice.chance(0.4) else 0.0
    carrier_level = dice.log_between(0.03, 0.3)
    rush = dice.log_between(0.1, 1.0)
    body = resonances(dice, canvas, dice.between(-5, -1))

    def render(clip: Dice) -> np.ndarray:
        points = control_times(canvas)
        slope = clip.between(-0.6, 0.6) if changing and clip.chance(0.7) else 0.0
        speed = base * np.exp2(np.clip(slope * points, -0.9, 0.9))
        speed = speed * (1 + 0.005 * drift(clip, points, 5.0))
        sound = glide(canvas, speed, table, clip.unit())
        sound += np.float32(0.4 * rush) * white(clip, canvas.samples)
        sound = filtered(sound, canvas, body)
        if carrier:
            tone = glide(canvas, np.full(len(points), carrier), sine_table(), clip.unit())
            buzz = glide(canvas, carrier + 2 * np.minimum(speed, 300.0), sine_table(), clip.unit())
            sound += np.float32(carrier_level) * (tone + 0.6 * buzz)
        return sound

    return Source(name, render)


def draw_engine(dice: Dice, canvas: Canvas) -> Source:
    """A piston engine, a rotor, a jet or an electric machine."""
    make = dice.weighted(
        ((0.71, _draw_piston), (0.14, _draw_rotor), (0.03, _draw_jet), (0.12, _draw_electric))
    )
    return make(dice, canvas)
