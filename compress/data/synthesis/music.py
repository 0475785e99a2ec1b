"""Pieces of music: instruments playing chords, bass lines, melodies and rhythms in a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from compress.data.synthesis.signal import (
    Canvas,
    Dice,
    Source,
    add,
    coloured,
    control_times,
    cycles,
    harmonic_table,
    noise_bins,
    read_table,
    ring,
    seconds_to_samples,
    tilt_gain,
    to_audio,
    white,
)
from compress.data.synthesis.voice import draw_speaker, speak

_SCALES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 3, 5, 7, 9, 10),
    (0, 2, 4, 5, 7, 9, 10),
    (0, 2, 4, 7, 9),
    (0, 3, 5, 7, 10),
    (0, 1, 4, 5, 7, 8, 11),
)
_PROGRESSIONS = ((0, 4, 5, 3), (0, 3, 4, 0), (5, 3, 0, 4), (0, 5, 1, 4), (0, 0, 3, 4), (0, 6, 5, 4))

# Note: (start s, length s, Hz, loudness)
Note = tuple[float, float, float, float]
Player = Callable[[Dice, list[Note]], np.ndarray]


@dataclass(frozen=True)
class Instrument:
    """``play(dice, notes)`` returns (samples,) float32."""

    name: str
    play: Player


# --- instruments ----------------------------------------------------------------------------------


def _struck(
    canvas: Canvas,
    name: str,
    *,
    ratios: np.ndarray,
    amplitudes: np.ndarray,
    decay_at_440: float,
    damping: float,
    release: float,
    click: float,
) -> Instrument:
    """Strings, bars and bells that ring after a pluck or a blow.

    ``damping`` is the power of frequency with which decay times fall; ``release`` the time to
    -60 dB after the note ends; ``click`` the level of the attack's noise.
    """
    phases = np.mod(0.37 * np.arange(len(ratios)) ** 2, 1.0)

    def play(dice: Dice, notes: list[Note]) -> np.ndarray:
        out = np.zeros(canvas.samples, dtype=np.float32)
        for start, length, pitch, loudness in notes:
            first = round(start * canvas.rate)
            held = seconds_to_samples(canvas, length)
            count = min(held + round(release * canvas.rate), canvas.samples - first)
            if count < 32:
                continue
            frequencies = pitch * ratios
            decays = decay_at_440 * (440.0 / pitch) ** 0.5 * (frequencies / pitch) ** -damping
            bright = amplitudes * ratios ** (0.8 * (loudness - 0.7))
            sound = ring(canvas.rate, count, frequencies, decays, bright, phases)
            if count > held:
                fade = np.exp(-6.9 * np.arange(count - held) / (release * canvas.rate))
                sound[held:] *= fade.astype(np.float32)
            if click > 0:
                burst = min(count, round(0.006 * canvas.rate))
                sound[:burst] += (click * white(dice, burst)) * np.linspace(
                    1, 0, burst, dtype=np.float32
                )
            add(out, sound, first, loudness)
        return out

    return Instrument(name, play)


def _plucked(dice: Dice, canvas: Canvas) -> Instrument:
    count = dice.whole(12, 28)
    harmonics = np.arange(1, count + 1, dtype=np.float64)
    place = dice.between(0.08, 0.4)
    comb = np.abs(np.sin(np.pi * harmonics * place)) + 0.02
    return _struck(
        canvas,
        dice.pick(("guitar", "harp", "banjo", "lute")),
        ratios=harmonics * np.sqrt(1 + dice.log_between(1e-5, 4e-4) * harmonics**2),
        amplitudes=comb * harmonics ** -dice.between(0.7, 1.8),
        decay_at_440=dice.log_between(0.5, 5.0),
        damping=dice.between(0.3, 1.1),
        release=dice.log_between(0.05, 0.5),
        click=dice.between(0.0, 0.3),
    )


def _piano(dice: Dice, canvas: Canvas) -> Instrument:
    count = dice.whole(10, 20)
    harmonics = np.arange(1, count + 1, dtype=np.float64)
    stretched = harmonics * np.sqrt(1 + dice.log_between(1e-4, 1e-3) * harmonics**2)
    detune = 1 + dice.between(2e-4, 1.2e-3)
    return _struck(
        canvas,
        dice.pick(("piano", "electric piano", "harpsichord")),
        ratios=np.concatenate([stretched, stretched[:8] * detune]),
        amplitudes=np.concatenate([harmonics, harmonics[:8]]) ** -dice.between(0.8, 1.9),
        decay_at_440=dice.log_between(2.0, 8.0),
        damping=dice.between(0.3, 0.9),
        release=dice.log_between(0.08, 0.4),
        click=dice.between(0.0, 0.15),
    )


def _bars(dice: Dice, canvas: Canvas) -> Instrument:
    name, ratios = dice.pick(
        (
            ("marimba", (1.0, 3.9, 9.2)),
            ("vibraphone", (1.0, 4.0, 10.0)),
            ("glockenspiel", (1.0, 2.76, 5.4, 8.93)),
            ("steel drum", (1.0, 2.0, 3.0, 4.1, 5.3)),
            ("music box", (1.0, 2.0, 5.9, 6.3)),
            ("celesta", (1.0, 3.0, 4.2, 6.8)),
        )
    )
    array = np.array(ratios) * (1 + 0.01 * dice.normals(len(ratios)))
    return _struck(
        canvas,
        name,
        ratios=array,
        amplitudes=array ** -dice.between(0.6, 1.6),
        decay_at_440=dice.log_between(0.3, 5.0),
        damping=dice.between(0.6, 1.4),
        release=0.5,
        click=dice.between(0.0, 0.3),
    )


def _held(
    canvas: Canvas,
    name: str,
    amplitudes: np.ndarray,
    *,
    attack: float,
    release: float,
    vibrato: float,
    breath: float,
    scoop: float,
    detune: float,
) -> Instrument:
    """Bowed, blown and electronic tones: a cycle read at a wavering pitch.

    ``vibrato`` in parts of the pitch, ``breath`` noise against tone, ``scoop`` octaves below the
    pitch where a note begins, ``detune`` parts between two players.
    """
    points = control_times(canvas)
    phases = np.mod(0.61 * np.arange(len(amplitudes)) ** 2, 1.0)
    tables: dict[int, np.ndarray] = {}

    def table_for(pitch: float) -> np.ndarray:
        # As many harmonics as fit, in steps of a few so that tables are shared.
        fitting = max(1, int(0.95 * canvas.nyquist / (pitch * 1.05)))
        fitting = min(len(amplitudes), fitting if fitting < 8 else fitting // 4 * 4)
        if fitting not in tables:
            tables[fitting] = harmonic_table(amplitudes[:fitting], phases[:fitting])
        return tables[fitting]

    def play(dice: Dice, notes: list[Note]) -> np.ndarray:
        out = np.zeros(canvas.samples, dtype=np.float32)
        pace = dice.between(4.5, 6.5)
        step = canvas.control_step
        for start, length, pitch, loudness in notes:
            first = max(0, int(start * canvas.rate) // step)
            last = min(len(points) - 1, int((start + length + release) * canvas.rate) // step + 1)
            if last - first < 2:
                continue
            part = replace(canvas, samples=(last - first) * step)
            times = points[first : last + 1] - start
            wave = vibrato * np.minimum(times / 0.4, 1.0)
            bend = pitch * (1.0 + wave * np.sin(2 * np.pi * (pace * times + dice.unit())))
            if scoop:
                bend *= np.exp2(-scoop * np.exp(-times / 0.04))
            level = np.minimum(np.maximum(times, 0) / attack, 1.0)
            level *= np.clip((length + release - times) / release, 0.0, 1.0)
            level *= loudness
            table = table_for(pitch)
            tone = read_table(table, cycles(bend, part, dice.unit()))
            if detune:
                tone = tone + read_table(table, cycles(bend * (1 + detune), part, dice.unit()))
            if breath:
                tone = tone + np.float32(breath) * white(dice, len(tone))
            add(out, tone * to_audio(level.astype(np.float32), part), first * step)
        return out

    return Instrument(name, play)


def _bowed(dice: Dice, canvas: Canvas) -> Instrument:
    harmonics = np.arange(1, 41)
    body = 1 + 0.8 * np.abs(dice.normals(40))
    return _held(
        canvas,
        dice.pick(("violin", "cello", "strings", "viola")),
        body * harmonics ** -dice.between(0.9, 1.6),
        attack=dice.log_between(0.03, 0.2),
        release=dice.log_between(0.05, 0.3),
        vibrato=dice.between(0.0, 0.012),
        breath=dice.between(0.0, 0.06),
        scoop=0.0,
        detune=dice.between(0.002, 0.006) if dice.chance(0.4) else 0.0,
    )


def _wind(dice: Dice, canvas: Canvas) -> Instrument:
    name, roll, even = dice.pick(
        (
            ("flute", 2.2, 1.0),
            ("recorder", 2.6, 0.4),
            ("clarinet", 1.2, 0.12),
            ("oboe", 0.7, 1.0),
            ("trumpet", 0.8, 1.0),
            ("trombone", 1.0, 1.0),
            ("horn", 1.7, 1.0),
            ("saxophone", 1.0, 0.8),
            ("mouth organ", 0.6, 0.7),
        )
    )
    harmonics = np.arange(1, 31)
    amplitudes = harmonics ** -(roll * dice.between(0.8, 1.2))
    amplitudes[1::2] *= even
    amplitudes *= 1 + 0.5 * np.abs(dice.normals(30))
    return _held(
        canvas,
        name,
        amplitudes,
        attack=dice.log_between(0.02, 0.08),
        release=dice.log_between(0.03, 0.1),
        vibrato=dice.between(0.0, 0.008),
        breath=dice.log_between(0.01, 0.2) if roll > 1.5 else dice.between(0, 0.04),
        scoop=dice.between(0.0, 0.12) if dice.chance(0.4) else 0.0,
        detune=0.0,
    )


def _organ(dice: Dice, canvas: Canvas) -> Instrument:
    amplitudes = np.zeros(16)
    for harmonic in (1, 2, 3, 4, 6, 8, 10, 12, 16):
        amplitudes[harmonic - 1] = dice.unit() if dice.chance(0.6) else 0.02
    amplitudes[0] += 0.3
    return _held(
        canvas,
        dice.pick(("organ", "church organ", "accordion")),
        amplitudes,
        attack=0.015,
        release=0.04,
        vibrato=dice.between(0.0, 0.004),
        breath=dice.between(0.0, 0.03),
        scoop=0.0,
        detune=dice.between(0.002, 0.008) if dice.chance(0.5) else 0.0,
    )


def _electronic(dice: Dice, canvas: Canvas) -> Instrument:
    harmonics = np.arange(1, 61)
    cutoff = dice.log_between(2.0, 40.0)
    amplitudes = harmonics ** -dice.between(0.6, 1.2) / (1 + (harmonics / cutoff) ** 4)
    if dice.chance(0.3):
        amplitudes[1::2] *= 0.05
    return _held(
        canvas,
        dice.pick(("synthesiser", "pad", "distorted guitar")),
        amplitudes,
        attack=dice.log_between(0.004, 0.3),
        release=dice.log_between(0.03, 0.5),
        vibrato=dice.between(0.0, 0.01) if dice.chance(0.3) else 0.0,
        breath=0.0,
        scoop=0.0,
        detune=dice.between(0.003, 0.015),
    )


def _bass(dice: Dice, canvas: Canvas) -> Instrument:
    if dice.chance(0.6):
        harmonics = np.arange(1, 15, dtype=np.float64)
        return _struck(
            canvas,
            "bass",
            ratios=harmonics,
            amplitudes=harmonics ** -dice.between(1.0, 2.2),
            decay_at_440=dice.log_between(0.6, 3.0),
            damping=dice.between(0.3, 1.0),
            release=0.06,
            click=dice.between(0.0, 0.1),
        )
    return _held(
        canvas,
        "synth bass",
        np.arange(1, 25) ** -dice.between(1.0, 2.2),
        attack=0.01,
        release=0.05,
        vibrato=0.0,
        breath=0.0,
        scoop=0.0,
        detune=0.0,
    )


def _singer(dice: Dice, canvas: Canvas) -> Instrument:
    _, speaker = draw_speaker(dice)
    speaker = replace(speaker, whisper=False, laugh=False, breath=min(speaker.breath, 0.1))

    def play(clip: Dice, notes: list[Note]) -> np.ndarray:
        octave = float(np.round(np.log2(speaker.pitch_hz * 1.5 / notes[0][2])))
        sung = [(start, start + length, pitch * 2**octave) for start, length, pitch, _ in notes]
        return speak(clip, canvas, speaker, sung)

    return Instrument("singer", play)


_LEADS = (
    (0.22, _plucked),
    (0.18, _piano),
    (0.09, _bars),
    (0.16, _bowed),
    (0.17, _wind),
    (0.06, _organ),
    (0.12, _electronic),
)
_CHORDS = (
    (0.3, _plucked),
    (0.28, _piano),
    (0.04, _bars),
    (0.14, _bowed),
    (0.04, _wind),
    (0.1, _organ),
    (0.1, _electronic),
)


# --- rhythm -------------------------------------------------------------------------------------


def _drum_kit(dice: Dice, canvas: Canvas) -> dict[str, np.ndarray]:
    """Samples of one kit: kick, snare, hat, tom, shaker."""
    rate = canvas.rate

    def swept(low: float, high: float, fall: float, length: float) -> np.ndarray:
        times = np.arange(round(length * rate)) / rate
        phase = low * times + high * fall * (1 - np.exp(-times / fall))
        return (np.sin(2 * np.pi * phase) * np.exp(-times * 5.0 / length)).astype(np.float32)

    def hiss(length: float, cut: float) -> np.ndarray:
        part = Canvas(rate, round(length * rate))
        gain = tilt_gain(part, noise_bins(part), [(20.0, -50.0), (cut / 2, -25.0), (cut, 0.0)])
        times = np.arange(part.samples) / rate
        return coloured(dice, part, gain) * np.exp(-times * 5.0 / length).astype(np.float32)

    kick = swept(dice.between(38, 65), dice.between(60, 250), dice.between(0.01, 0.04),
                 dice.between(0.12, 0.4))  # fmt: skip
    snare = 0.5 * hiss(dice.between(0.08, 0.3), dice.between(900, 2500))
    body = swept(dice.between(150, 240), 60.0, 0.02, 0.12)
    add(snare, body, 0, dice.between(0.2, 1.0))
    return {
        "kick": kick,
        "snare": snare,
        "hat": hiss(dice.log_between(0.03, 0.2), min(6000.0, 0.8 * canvas.nyquist)),
        "tom": swept(dice.between(70, 140), 60.0, 0.04, dice.between(0.2, 0.4)),
        "shaker": hiss(dice.between(0.05, 0.1), min(4000.0, 0.6 * canvas.nyquist)),
        "hand": swept(dice.between(180, 400), 100.0, 0.02, 0.12),
    }


def _draw_pattern(dice: Dice) -> dict[str, np.ndarray]:
    """Chance of a stroke on each of 16 steps of a bar, for each drum in use."""
    steps = np.arange(16)
    style = dice.pick(("rock", "four", "swing", "latin", "sparse", "brush"))
    pattern: dict[str, np.ndarray] = {}
    if style in ("rock", "four"):
        kicks = steps % 4 == 0 if style == "four" else np.isin(steps, (0, 8, dice.whole(5, 15)))
        pattern["kick"] = kicks * 1.0
        pattern["snare"] = np.isin(steps, (4, 12)) * 1.0
        pattern["hat"] = (steps % dice.pick((1, 2, 2, 4)) == 0) * 0.95
    elif style == "swing":
        pattern["hat"] = np.isin(steps, (0, 4, 7, 8, 12, 15)) * 0.95
        pattern["kick"] = np.isin(steps, (0, 8)) * 0.6
        pattern["snare"] = np.full(16, 0.1)
    elif style == "latin":
        pattern["hand"] = np.isin(steps, (0, 3, 6, 8, 10, 14)) * 0.9
        pattern["shaker"] = np.full(16, 0.9)
        pattern["tom"] = np.isin(steps, (12, 14, 15)) * 0.6
    elif style == "sparse":
        pattern["tom"] = np.isin(steps, (0, 6, 12)) * 0.8
        pattern["hand"] = np.isin(steps, (4, 10)) * 0.6
    else:
        pattern["snare"] = np.full(16, 0.35)
        pattern["hat"] = (steps % 4 == 2) * 0.8
    return pattern


# --- pieces -------------------------------------------------------------------------------------


def draw_music(dice: Dice, canvas: Canvas) -> Source:
    """A piece: key, tempo, chords, players."""
    tonic = dice.whole(0, 11)
    scale = dice.pick(_SCALES)
    progression = dice.pick(_PROGRESSIONS)
    beat = 60.0 / dice.log_between(60.0, 180.0)
    tuning = dice.between(0.97, 1.03)

    def pitch(degree: int, octave: float) -> float:
        turns, position = divmod(degree, len(scale))
        semitones = tonic + scale[position] + 12 * turns
        return tuning * 16.3516 * 2 ** (octave + semitones / 12)  # from C0

    setting = dice.weighted(
        (
            (0.15, "solo"),
            (0.24, "duo"),
            (0.16, "trio"),
            (0.24, "band"),
            (0.07, "song"),
            (0.04, "drums"),
            (0.10, "pads"),
        )
    )
    lead = chords = bass = None
    drums: dict[str, np.ndarray] | None = None
    if setting in ("solo", "duo", "trio", "band"):
        lead = dice.weighted(_LEADS)(dice, canvas)
    if setting == "song":
        lead = _singer(dice, canvas)
    if setting in ("duo", "band", "song", "pads"):
        chords = dice.weighted(_CHORDS)(dice, canvas)
    if setting in ("trio", "band") or (setting in ("song", "pads") and dice.chance(0.5)):
        bass = _bass(dice, canvas)
    pattern: dict[str, np.ndarray] = {}
    if setting == "drums" or (setting in ("band", "song") and dice.chance(0.8)):
        drums = _drum_kit(dice, canvas)
        pattern = _draw_pattern(dice)
    if setting == "trio" and chords is None:
        chords = dice.weighted(_CHORDS)(dice, canvas)
    lead_octave = dice.whole(4, 5) - (1 if setting == "solo" and dice.chance(0.35) else 0)
    density = dice.between(0.35, 0.95)
    subdivision = dice.pick((1, 2, 2, 2, 4)) if beat > 0.42 else dice.pick((1, 2))
    lead_chords = setting == "solo" and dice.chance(0.5)
    strum = dice.pick((1.0, 2.0, 4.0)) * (1 if setting != "pads" else 2)
    balance = {part: dice.log_between(0.4, 1.4) for part in ("lead", "chords", "bass", "drums")}
    compression = dice.chance(0.3)
    legato = dice.between(0.5, 1.1)

    players = {"lead": lead, "chords": chords, "bass": bass, "drums": drums}
    parts = [part for part, player in players.items() if player is not None]

    def render(clip: Dice) -> np.ndarray:
        start = -clip.between(0, 16) * beat  # the clip begins anywhere in the piece
        degree_shift = clip.whole(0, 3)
        # In each passage some players may rest, and the melody changes its range and pace.
        playing = [part for part in parts if not clip.chance(0.25)] or [clip.pick(parts)]
        octave = lead_octave + clip.weighted(((0.78, 0), (0.04, 1), (0.18, -1)))
        busy = min(0.98, density * clip.between(0.7, 1.3))
        steps = int((canvas.seconds - start) / beat) + 1
        first = int(-start / beat)
        out = np.zeros(canvas.samples, dtype=np.float32)

        def chord_root(step: int) -> int:
            return progression[(step // 4 + degree_shift) % len(progression)]

        if lead is not None and "lead" in playing:
            notes: list[Note] = []
            degree = clip.whole(-2, 5)
            length = beat / subdivision
            slot = first * subdivision
            while start + slot * length < canvas.seconds and len(notes) < 14:
                time = start + slot * length
                if time >= -0.2 and (clip.chance(busy) or not notes):
                    hold = clip.pick((1, 1, 2, 3))
                    degree = int(np.clip(degree + clip.whole(-2, 2), -4, 9))
                    tone = degree if clip.chance(0.6) else chord_root(slot // subdivision)
                    loudness = clip.between(0.5, 1.0)
                    span = hold * length * legato
                    notes.append((max(time, 0.0), span, pitch(tone, octave), loudness))
                    if lead_chords and clip.chance(0.5):
                        notes.append((max(time, 0.0), span, pitch(tone - 3, octave), loudness))
                    slot += hold
                else:
                    slot += 1
            out += _balanced(lead.play(clip, notes), balance["lead"])
        if chords is not None and "chords" in playing:
            notes = []
            step = float(int(first / strum) * strum)
            while start + step * beat < canvas.seconds and len(notes) < 15:
                time = start + step * beat
                root = chord_root(int(step))
                late = 0.0
                if time > -0.7 * strum * beat:
                    for offset in (0, 2, 4):
                        notes.append(
                            (
                                max(time, 0.0) + late,
                                strum * beat * min(legato, 0.98) + min(time, 0.0),
                                pitch(root + offset, 3 if root > 3 else 4),
                                0.8,
                            )
                        )
                        late += 0.008
                step += strum
            out += _balanced(chords.play(clip, notes), balance["chords"])
        if bass is not None and "bass" in playing:
            notes = []
            for step in range(max(first, 0), steps):
                time = start + step * beat
                if time > -0.3 * beat and clip.chance(0.85):
                    tone = chord_root(step) + (4 if clip.chance(0.2) else 0)
                    notes.append((max(time, 0.0), beat * 0.9, pitch(tone, 2), 1.0))
            if notes:
                out += _balanced(bass.play(clip, notes), balance["bass"])
        if drums is not None and "drums" in playing:
            rhythm = np.zeros(canvas.samples, dtype=np.float32)
            step_length = beat / 4
            for drum, chances in pattern.items():
                for slot in range(first * 4 - 2, steps * 4):
                    if clip.chance(chances[slot % 16]):
                        time = start + slot * step_length + clip.between(-0.006, 0.006)
                        weight = clip.between(0.5, 1.0) * (0.5 if drum in ("hat", "shaker") else 1)
                        add(rhythm, drums[drum], round(time * canvas.rate), weight)
            out += _balanced(rhythm, balance["drums"])
        if compression:
            out = np.tanh(out * np.float32(2.0 / max(float(np.abs(out).max()), 1e-9)))
        return out

    names = [part.name for part in (lead, chords, bass) if part is not None]
    if drums is not None:
        names.append("drums")
    return Source("drums" if setting == "drums" else f"{setting} of {', '.join(names)}", render)


def _balanced(sound: np.ndarray, gain: float) -> np.ndarray:
    level = float(np.sqrt(np.mean(sound * sound)))
    return sound * np.float32(gain / level) if level > 0 else sound
