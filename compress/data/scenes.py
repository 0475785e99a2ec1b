"""The built-in synthetic sound scenes: five classes in the shares of the AudioBots report.

A clip is a foreground source (voice, music, engine, alarm or other) in a room, over a background
at a drawn signal-to-noise ratio, through a microphone. Scenes labelled "other" may hold faint
fragments of the four named classes, and voices or engines may be deep in noise: that overlap limits
networks of any size. Half of the "other" sounds are lookalikes, which a large network tells apart
better than a small one. Everything here is synthetic.

Clip ``index`` depends on (seed, index) alone. Clips come in recordings of 1 to 3 consecutive clips
that share source, background, room and microphone.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy.fft

from compress.data.synthesis.alarm import draw_alarm
from compress.data.synthesis.engine import draw_engine
from compress.data.synthesis.music import draw_music
from compress.data.synthesis.other import draw_ambience, draw_other
from compress.data.synthesis.rooms import Space, draw_space
from compress.data.synthesis.signal import (
    Canvas,
    Dice,
    Source,
    active_level,
    decibels,
    tilt_gain,
    white,
)
from compress.data.synthesis.voice import draw_voice
from compress.frontend import FrontEnd, log_mel

CLASS_NAMES = ("other", "music", "human voice", "engine sounds", "alarm")
CLASS_COUNTS = (14530, 27340, 4823, 4412, 1785)  # of the report's 52,890 clips
CLASS_SHARES = tuple(count / sum(CLASS_COUNTS) for count in CLASS_COUNTS)
OTHER, MUSIC, VOICE, ENGINE, ALARM = range(5)

# --- calibration ----------------------------------------------------------------------------------
# Chosen such that, at the report's 52,890 clips and with its recipe, its two networks reach about
# its accuracies, with errors between the same classes. All ratios are dB between active levels.

# (share, lowest, highest) of the foreground over its background, per class.
FOREGROUND_DB: dict[int, tuple[tuple[float, float, float], ...]] = {
    OTHER: ((0.40, 0.0, 15.0), (0.60, 15.0, 40.0)),
    MUSIC: ((0.05, 8.0, 12.0), (0.95, 12.0, 40.0)),
    VOICE: ((0.13, -3.0, 4.0), (0.36, 4.0, 15.0), (0.51, 15.0, 40.0)),
    ENGINE: ((0.08, 2.0, 8.0), (0.31, 8.0, 15.0), (0.61, 15.0, 40.0)),
    ALARM: ((1.0, 20.0, 40.0),),
}
# Share of "other" recordings with a fragment of another class, and its level below the rest.
OTHER_WITH_FRAGMENT = 0.44
FRAGMENT_SHARES = ((0.43, VOICE), (0.47, ENGINE), (0.07, MUSIC), (0.03, ALARM))
FRAGMENT_DB: dict[int, tuple[float, float]] = {
    VOICE: (-28.0, -6.0),
    ENGINE: (-28.0, -7.0),
    MUSIC: (-36.0, -22.0),
    ALARM: (-36.0, -22.0),
}
CLIP_RATIO_SPREAD_DB = 2.5  # standard deviation between clips of one recording
CLIP_COLOUR_DB = 4.0  # largest change of a band between clips: the source turns and moves
SECOND_BACKGROUND = 0.2  # share of recordings with two backgrounds
SILENT_TAIL = 0.06  # share of clips that end in digital silence
NEAR_SILENCE = 0.03  # share of "other" recordings in which next to nothing is heard
NO_SELF_NOISE = 0.25  # share of recordings whose pauses are digitally silent

_MOST_RETRIES = 16
_FRONTEND_BATCH = 4  # small batches stay in the processor's cache
_GROUP_SIZES = (1, 2, 2, 3)
_GROUP_CLIPS = sum(_GROUP_SIZES)
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_KIND_SEED, _KIND_GROUP, _KIND_RECORDING, _KIND_CLIP = 1, 2, 3, 4

_DRAWERS = {
    OTHER: draw_other,
    MUSIC: draw_music,
    VOICE: draw_voice,
    ENGINE: draw_engine,
    ALARM: draw_alarm,
}


@dataclass(frozen=True)
class SceneClip:
    """One synthetic clip: ``waveform`` (clip_samples,) float32 in -1..1."""

    waveform: np.ndarray
    label: int
    recording_id: int
    description: str


@dataclass(frozen=True)
class _Recording:
    """What the clips of one recording share."""

    label: int
    sources: tuple[Source, ...]  # foreground first
    ratios_db: tuple[float, ...]  # of the foreground over each further source
    space: Space
    level_db: float  # peak, dB of full scale
    self_noise: bool
    description: str


def recording_of(seed: int, index: int) -> int:
    """The recording that clip ``index`` belongs to."""
    group, place = divmod(index, _GROUP_CLIPS)
    sizes = Dice(seed, _KIND_GROUP, group).rng.permutation(_GROUP_SIZES)
    return group * len(_GROUP_SIZES) + int(np.searchsorted(np.cumsum(sizes), place, side="right"))


def label_of(seed: int, recording: int) -> int:
    """Class of a recording; multiples of the golden ratio keep the shares in every prefix."""
    start = Dice(seed, _KIND_SEED, 0).unit()
    mark = (start + recording * _GOLDEN) % 1.0
    return min(int(np.searchsorted(np.cumsum(CLASS_SHARES), mark, side="right")), ALARM)


def foreground_of(seed: int, recording: int, frontend: FrontEnd) -> str:
    """What sounds in front in a recording, as its source is named: "gull", "solo of harp"."""
    canvas = Canvas(frontend.sample_rate_hz, frontend.clip_samples)
    return _recording(seed, recording, canvas).sources[0].name


def _draw_ratio(dice: Dice, label: int) -> float:
    low, high = dice.weighted([(share, (a, b)) for share, a, b in FOREGROUND_DB[label]])
    return dice.between(low, high)


# Clips are asked for in order, so the last recordings suffice.
@functools.lru_cache(maxsize=8)
def _recording(seed: int, recording: int, canvas: Canvas) -> _Recording:
    dice = Dice(seed, _KIND_RECORDING, recording)
    label = label_of(seed, recording)
    space = draw_space(dice, canvas, dry=label == ALARM)
    foreground = _DRAWERS[label](dice, canvas)
    sources, ratios = [foreground], []
    if label == OTHER:
        if dice.chance(OTHER_WITH_FRAGMENT):
            fragment = dice.weighted(FRAGMENT_SHARES)
            sources.append(_DRAWERS[fragment](dice, canvas))
            ratios.append(-dice.between(*FRAGMENT_DB[fragment]))
        if dice.chance(0.5):
            sources.append(draw_ambience(dice, canvas))
            ratios.append(_draw_ratio(dice, label))
    else:
        ratio = _draw_ratio(dice, label)
        # Deep in noise, the noise is anything that "other" may be.
        draw = draw_other if ratio < 10.0 and dice.chance(0.6) else draw_ambience
        sources.append(draw(dice, canvas))
        ratios.append(ratio)
        if dice.chance(SECOND_BACKGROUND):
            sources.append(draw_ambience(dice, canvas))
            ratios.append(ratio + dice.between(0.0, 12.0))
    faint = label == OTHER and dice.chance(NEAR_SILENCE)
    behind = ", ".join(
        f"{ratio:.0f} dB over {source.name}"
        for source, ratio in zip(sources[1:], ratios, strict=True)
    )
    return _Recording(
        label=label,
        sources=tuple(sources),
        ratios_db=tuple(ratios),
        space=space,
        level_db=dice.between(*((-85.0, -55.0) if faint else (-36.0, -1.0))),
        self_noise=not dice.chance(NO_SELF_NOISE),
        description=f"{CLASS_NAMES[label]}: {foreground.name}, {space.name}"
        + (f", {behind}" if behind else ""),
    )


def _colour(dice: Dice, canvas: Canvas, bins: int) -> np.ndarray:
    knots = [
        (hz, dice.between(-CLIP_COLOUR_DB, CLIP_COLOUR_DB))
        for hz in (60.0, 250.0, 700.0, 1800.0, 4000.0, 8000.0)
    ]
    return tilt_gain(canvas, bins, knots)


def scene_clip(seed: int, index: int, frontend: FrontEnd) -> SceneClip:
    """Clip ``index`` of the endless set of ``seed``, for the rate and length of ``frontend``."""
    canvas = Canvas(frontend.sample_rate_hz, frontend.clip_samples)
    number = recording_of(seed, index)
    recording = _recording(seed, number, canvas)
    space = recording.space
    dice = Dice(seed, _KIND_CLIP, index)

    sounds = np.stack([source.render(dice) for source in recording.sources])
    reference = active_level(sounds[0])
    for _ in range(_MOST_RETRIES):  # now and then a piece of music rests for the whole clip
        if reference > 0:
            break
        sounds[0] = recording.sources[0].render(dice)
        reference = active_level(sounds[0])
    for sound, ratio in zip(sounds[1:], recording.ratios_db, strict=True):
        ratio += CLIP_RATIO_SPREAD_DB * float(dice.normals(1)[0])
        sound *= reference / max(active_level(sound), 1e-12) * decibels(-ratio)
    # The sources behind share one room response.
    dry = np.stack([sounds[0], sounds[1:].sum(axis=0)]) if len(sounds) > 1 else sounds
    spectra = scipy.fft.rfft(dry, space.fft_size, axis=1)
    # The source turns and moves between the clips of a recording.
    distance = np.float32(dice.between(0.0, 0.4))
    spectrum = spectra[0] * ((1 - distance) * space.near + distance * space.far)
    spectrum *= _colour(dice, canvas, len(spectrum))
    if len(spectra) > 1:
        spectrum += spectra[1] * space.far
    waveform = scipy.fft.irfft(spectrum, space.fft_size)[: canvas.samples]

    level = recording.level_db + dice.between(-3.0, 3.0)
    peak = max(float(np.abs(waveform).max()), 1e-12)
    waveform = waveform * np.float32(min(decibels(level), 1.0) / peak)
    if recording.self_noise:
        waveform += np.float32(decibels(space.self_noise_db)) * white(dice, canvas.samples)
    if dice.chance(SILENT_TAIL):
        waveform[int(dice.between(0.35, 0.95) * canvas.samples) :] = 0.0
    # 16-bit samples, as files have them.
    waveform = np.clip(np.round(waveform * np.float32(32767.0)), -32768, 32767)
    waveform *= np.float32(1.0 / 32768.0)
    return SceneClip(waveform, recording.label, number, recording.description)


def scene_block(seed: int, start: int, stop: int, frontend: FrontEnd) -> dict[str, np.ndarray]:
    """Clips ``start`` to ``stop`` through the front end.

    Returns ``db`` (n, mels, frames) float64, ``labels`` and ``recording_ids`` (n,) int64.
    """
    count = max(0, stop - start)
    db = np.empty((count, frontend.mels, frontend.frames))
    labels = np.empty(count, dtype=np.int64)
    recording_ids = np.empty(count, dtype=np.int64)
    for first in range(0, count, _FRONTEND_BATCH):
        last = min(first + _FRONTEND_BATCH, count)
        clips = [scene_clip(seed, start + place, frontend) for place in range(first, last)]
        db[first:last] = log_mel(np.stack([clip.waveform for clip in clips]), frontend)
        labels[first:last] = [clip.label for clip in clips]
        recording_ids[first:last] = [clip.recording_id for clip in clips]
    return {"db": db, "labels": labels, "recording_ids": recording_ids}
