"""Speakers: a glottal pulse train and noise through moving formants, in syllables and phrases."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from compress.data.synthesis.signal import (
    Canvas,
    Dice,
    Source,
    analyse,
    control_times,
    cycles,
    drift,
    frame_frequencies,
    frame_times,
    harmonic_table,
    noise_frames,
    peaks,
    read_table,
    resampled,
    synthesise,
    to_audio,
)

# Formants of ten American English vowels, means of men (Peterson and Barney, 1952), Hz.
_VOWELS = np.array(
    [
        (270, 2290, 3010),
        (390, 1990, 2550),
        (530, 1840, 2480),
        (660, 1720, 2410),
        (730, 1090, 2440),
        (570, 840, 2410),
        (440, 1020, 2240),
        (300, 870, 2240),
        (640, 1190, 2390),
        (490, 1350, 1690),
    ],
    dtype=np.float64,
)
_FORMANT_GAINS = (1.0, 0.55, 0.3, 0.15)
_FORMANT_WIDTHS = (80.0, 110.0, 160.0, 260.0)
# centre and width (Hz) of the noise of s, sh, f, x and of the bursts of t, k, p
_FRICATIVES = ((6000, 1400), (3300, 1000), (5000, 3500), (1700, 700))
_BURSTS = ((4500, 2500), (2000, 800), (900, 900))


@dataclass(frozen=True)
class Speaker:
    """A voice. ``tract`` scales the formants (1 = man); ``tilt`` is the roll-off of the source."""

    pitch_hz: float
    tract: float
    tilt: float
    breath: float  # aspiration noise against voicing
    jitter: float
    shimmer: float
    rate: float  # syllables per second
    melody: float  # spread of the pitch in octaves
    pause: float  # chance of a pause after a syllable
    consonants: float  # level of fricatives and bursts
    vowels: tuple[int, ...]
    whisper: bool = False
    laugh: bool = False


def draw_speaker(dice: Dice) -> tuple[str, Speaker]:
    """Draw kind and parameters of a voice."""
    kind, low, high, tract = dice.weighted(
        (
            (0.40, ("man", 80.0, 160.0, 1.0)),
            (0.38, ("woman", 155.0, 260.0, 1.16)),
            (0.14, ("child", 230.0, 400.0, 1.38)),
            (0.08, ("small child", 320.0, 520.0, 1.55)),
        )
    )
    speaker = Speaker(
        pitch_hz=dice.log_between(low, high),
        tract=tract * dice.log_between(0.9, 1.1),
        tilt=dice.between(0.8, 1.7),
        breath=dice.log_between(0.02, 0.4),
        jitter=dice.log_between(0.002, 0.02),
        shimmer=dice.between(0.02, 0.15),
        rate=dice.between(2.5, 7.0),
        melody=dice.between(0.06, 0.35),
        pause=dice.between(0.04, 0.2),
        consonants=dice.log_between(0.15, 1.0),
        vowels=tuple(dice.whole(0, 9) for _ in range(dice.whole(4, 9))),
    )
    manner = dice.weighted(
        ((0.76, "talking"), (0.08, "whispering"), (0.08, "shouting"), (0.06, "laughing"),
         (0.02, "crying"))
    )  # fmt: skip
    if manner == "whispering":
        speaker = replace(speaker, whisper=True, consonants=max(speaker.consonants, 0.5))
    elif manner == "shouting":
        speaker = replace(
            speaker,
            pitch_hz=speaker.pitch_hz * dice.between(1.4, 2.0),
            tilt=dice.between(0.5, 0.9),
            rate=dice.between(1.2, 4.0),
            breath=speaker.breath * 0.5,
        )
    elif manner == "laughing":
        speaker = replace(
            speaker, laugh=True, pitch_hz=speaker.pitch_hz * 1.5, rate=dice.between(4.0, 6.0)
        )
    elif manner == "crying":
        speaker = replace(
            speaker,
            pitch_hz=dice.between(300.0, 550.0),
            rate=dice.between(1.2, 2.2),
            tract=dice.between(1.3, 1.6),
            tilt=dice.between(0.6, 1.1),
            vowels=(3, 4, 8),
            consonants=0.1,
        )
    return f"{kind} {manner}", speaker


def _knots(dice: Dice, speaker: Speaker, seconds: float) -> np.ndarray:
    """Course of the speech, (knots, 10): time, voicing, aspiration, noise, noise centre and
    width, three formants, pitch in octaves about the speaker's."""
    rows: list[tuple[float, ...]] = []
    row: tuple[float, ...]
    time = -dice.between(0.05, 0.5)
    phrase_start, accent = time, 0.0
    syllables_left = dice.whole(2, 9)
    centre, width = _FRICATIVES[0]
    breath = 1.0 if speaker.whisper else speaker.breath
    voiced = 0.0 if speaker.whisper else 1.0
    while time < seconds:
        length = dice.log_between(0.6, 1.6) / speaker.rate
        vowel = _VOWELS[speaker.vowels[dice.whole(0, len(speaker.vowels) - 1)]] * speaker.tract
        first, second, third = vowel * (1 + 0.06 * (dice.unit() - 0.5))
        loud = dice.between(0.4, 1.0)
        if dice.chance(0.4):
            accent = dice.between(-0.3, 1.0)
        octave = speaker.melody * (accent - 0.5 * (time - phrase_start))
        onset = min(dice.between(0.04, 0.12), 0.45 * length)
        manner = 4 if speaker.laugh else dice.whole(0, 5)
        if manner == 0:  # fricative
            centre, width = dice.pick(_FRICATIVES)
            noise = speaker.consonants * dice.between(0.4, 1.0)
            rows.append((time + 0.012, 0, 0, noise, centre, width, first, second, third, octave))
            rows.append((time + onset, 0, 0, noise, centre, width, first, second, third, octave))
        elif manner == 1:  # stop: closure, burst, a breath
            centre, width = dice.pick(_BURSTS)
            noise = speaker.consonants * dice.between(0.5, 1.2)
            rows.append((time + 0.01, 0, 0, 0, centre, width, 300, second, third, octave))
            rows.append((time + onset - 0.01, 0, 0, 0, centre, width, 300, second, third, octave))
            rows.append((time + onset, 0, 0.3, noise, centre, width, 350, second, third, octave))
            onset += 0.015
        elif manner == 2:  # nasal or voiced stop: low first formant
            level = loud * dice.between(0.15, 0.5)
            row = (level * voiced, breath * level, 0, centre, width, 260 * speaker.tract)
            rows.append((time + 0.01, *row, second * 0.8, third, octave))
            rows.append((time + onset, *row, second * 0.8, third, octave))
        elif manner == 3:  # liquid: a quick slide
            level = 0.6 * loud
            row = (level * voiced, breath * level, 0, centre, width, 0.7 * first)
            rows.append((time + 0.01, *row, 0.7 * second, 0.8 * third, octave))
        elif manner == 4:  # h
            rows.append((time, 0, 0.3 * loud, 0, centre, width, first, second, third, octave))
            rows.append(
                (time + onset, 0, 0.4 * loud, 0, centre, width, first, second, third, octave)
            )
        steady = time + onset + 0.02
        end = max(time + length - 0.02, steady + 0.03)
        row = (loud * voiced, breath * loud, 0, centre, width)
        bend = octave + speaker.melody * dice.between(-0.3, 0.3)
        slide = dice.between(0.85, 1.15) if dice.chance(0.3) else 1.0
        rows.append((steady, *row, first, second, third, octave))
        tail = (0.7 * loud * voiced, 0.7 * breath * loud, 0, centre, width)
        rows.append((end, *tail, first, second * slide, third, bend))
        time += length
        syllables_left -= 1
        if syllables_left <= 0 or dice.chance(speaker.pause):
            row = (0, 0, 0, centre, width, first, second, third, bend)
            rows.append((end + 0.04, *row))
            time = end + 0.04 + dice.log_between(0.08, 0.6)
            rows.append((time, *row))
            phrase_start = time
            accent = dice.between(0.0, 1.0)
            syllables_left = dice.whole(2, 9)
    table = np.array(rows)
    table[:, 0] = np.maximum.accumulate(table[:, 0] + 1e-6 * np.arange(len(table)))
    return table


def _held_notes(
    dice: Dice, speaker: Speaker, notes: list[tuple[float, float, float]]
) -> np.ndarray:
    """Like :func:`_knots` for (start, end, Hz) notes that are sung."""
    rows: list[tuple[float, ...]] = []
    for start, end, pitch in notes:
        first, second, third = (
            _VOWELS[speaker.vowels[dice.whole(0, len(speaker.vowels) - 1)]] * speaker.tract
        )
        octave = np.log2(pitch / speaker.pitch_hz)
        loud = dice.between(0.6, 1.0)
        noise = 0.5 * speaker.consonants if dice.chance(0.4) else 0.0
        centre, width = dice.pick(_FRICATIVES)
        rest = (centre, width, first, second, third, octave)
        rows.append((start, 0.1, 0.05, noise, *rest))
        rows.append((start + 0.06, loud, speaker.breath * loud, 0, *rest))
        rows.append((max(end - 0.06, start + 0.07), 0.8 * loud, speaker.breath * loud, 0, *rest))
    return np.array(rows)


def speak(
    dice: Dice,
    canvas: Canvas,
    speaker: Speaker,
    notes: list[tuple[float, float, float]] | None = None,
) -> np.ndarray:
    """A stretch of speech, or the notes (start s, end s, Hz) sung, (samples,) float32."""
    if not notes:  # nobody speaks alike from sentence to sentence
        speaker = replace(
            speaker,
            pitch_hz=speaker.pitch_hz * dice.log_between(0.85, 1.2),
            rate=speaker.rate * dice.log_between(0.8, 1.25),
            tilt=speaker.tilt + dice.between(-0.2, 0.2),
        )
    knots = _held_notes(dice, speaker, notes) if notes else _knots(dice, speaker, canvas.seconds)
    return _uttered(dice, canvas, speaker, knots, vibrato=bool(notes))


def call(
    dice: Dice,
    canvas: Canvas,
    speaker: Speaker,
    calls: list[tuple[float, float]],
    bend: float,
    opening: float,
) -> np.ndarray:
    """The speaker's vowels in turn at each (start, end), silence between, (samples,) float32.

    bend: octaves that the pitch rises in a call; opening: factor on the first formant in it.
    """
    centre, width = _FRICATIVES[0]
    breath = speaker.breath
    rows: list[tuple[float, ...]] = []
    for number, (start, end) in enumerate(calls):
        vowel = speaker.vowels[number % len(speaker.vowels)]
        first, second, third = _VOWELS[vowel] * speaker.tract
        edge = 0.15 * (end - start)
        head, tail = (0, centre, width, first), (0, centre, width, first * opening)
        rows.append((start, 0, 0, *head, second, third, -0.5 * bend))
        rows.append((start + edge, 1, breath, *head, second, third, -0.3 * bend))
        rows.append((end - edge, 0.8, breath, *tail, second, third, 0.3 * bend))
        rows.append((end, 0, 0, *tail, second, third, 0.5 * bend))
    return _uttered(dice, canvas, speaker, np.array(rows), vibrato=False)


def _uttered(
    dice: Dice, canvas: Canvas, speaker: Speaker, knots: np.ndarray, vibrato: bool
) -> np.ndarray:
    """The sound of a course of speech as :func:`_knots` gives it."""
    times, points = frame_times(canvas), control_times(canvas)
    tracks = [np.interp(times, knots[:, 0], column) for column in knots.T[1:9]]
    voicing, breath, noise, centre, width = (track.astype(np.float32) for track in tracks[:5])
    formants = np.stack(tracks[5:8], axis=1).astype(np.float32)

    frequencies = frame_frequencies(canvas)
    fourth = np.full((len(times), 1), 3500.0 * speaker.tract, dtype=np.float32)
    centres = np.concatenate([formants, fourth], axis=1)
    tract = np.full((len(times), len(frequencies)), 0.004, dtype=np.float32)
    for number, (gain, spread) in enumerate(zip(_FORMANT_GAINS, _FORMANT_WIDTHS, strict=True)):
        widths = np.full(len(times), spread, dtype=np.float32)
        tract += np.float32(gain) * peaks(frequencies, centres[:, number], widths)
    spectra = (0.5 * breath)[:, None] * tract
    hiss = np.flatnonzero(noise > 0.003)
    if len(hiss):
        spectra[hiss] += (0.12 * noise[hiss])[:, None] * peaks(
            frequencies, centre[hiss], width[hiss]
        )
    spectra = spectra * noise_frames(dice, canvas)

    if not speaker.whisper:
        octaves = np.interp(points, knots[:, 0], knots[:, 9])
        wobble = speaker.jitter * drift(dice, points, 60.0)
        if vibrato:
            wobble = wobble + 0.012 * np.sin(2 * np.pi * (5.5 * points + dice.unit()))
        pitch = speaker.pitch_hz * np.exp2(octaves) * (1.0 + wobble)
        highest = int(0.97 * canvas.nyquist / float(pitch.max()))
        table = harmonic_table(np.arange(1, max(2, highest + 1)) ** -speaker.tilt)
        pulses = read_table(table, cycles(pitch, canvas, dice.unit()))
        level = (1.0 + speaker.shimmer * drift(dice, points, 40.0)).astype(np.float32)
        spectra += analyse(pulses * to_audio(level, canvas), canvas) * tract * voicing[:, None]
    return synthesise(spectra, canvas)


def draw_voice(dice: Dice, canvas: Canvas) -> Source:
    """A speaker, a dialogue, or a babble of several."""
    name, speaker = draw_speaker(dice)
    setting = dice.weighted(((0.72, "alone"), (0.12, "dialogue"), (0.16, "babble")))
    if setting == "alone":
        return Source(name, lambda clip: speak(clip, canvas, speaker))
    other_name, other = draw_speaker(dice)
    if setting == "dialogue":

        def dialogue(clip: Dice) -> np.ndarray:
            sound = speak(clip, canvas, speaker)
            turn = clip.whole(0, canvas.samples)
            answer = speak(clip, canvas, other)
            if clip.chance(0.5):
                sound, answer = answer, sound
            return np.concatenate([sound[:turn], answer[turn:]])

        return Source(f"{name} and {other_name}", dialogue)
    talkers = dice.whole(4, 10)
    return Source(
        f"babble of {talkers}", lambda clip: babble(clip, canvas, (speaker, other), talkers)
    )


def babble(
    dice: Dice, canvas: Canvas, speakers: tuple[Speaker, Speaker], talkers: int
) -> np.ndarray:
    """Many talkers from two, by other speeds and starts."""
    sounds = [speak(dice, canvas, speaker) for speaker in speakers]
    mix = sounds[0] + sounds[1]
    for number in range(talkers - 2):
        copy = resampled(sounds[number % 2], dice.log_between(0.75, 1.35), dice.unit())
        mix += np.float32(dice.log_between(0.3, 1.0)) * copy
    return mix
