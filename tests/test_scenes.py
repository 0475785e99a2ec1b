"""The built-in scenes: the contract of clips and recordings, and the physics of the sources."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from compress.data import scenes
from compress.data.scene_sources import SOURCE_NAMES, source_label
from compress.data.synthesis import rooms, signal, voice
from compress.data.synthesis.alarm import draw_alarm
from compress.data.synthesis.engine import draw_engine
from compress.data.synthesis.lookalikes import draw_lookalike
from compress.data.synthesis.music import draw_music
from compress.data.synthesis.other import draw_ambience, draw_other
from compress.data.synthesis.signal import Canvas, Dice
from compress.data.synthesis.voice import draw_voice
from compress.frontend import FLOOR_DB, FrontEnd, log_mel, mel_band_centres_hz

FRONTEND = FrontEnd()
CANVAS = Canvas(FRONTEND.sample_rate_hz, FRONTEND.clip_samples)


@pytest.fixture(scope="module")
def clips() -> list[scenes.SceneClip]:
    return [scenes.scene_clip(3, index, FRONTEND) for index in range(300)]


def _labels(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    recordings = np.array([scenes.recording_of(seed, index) for index in range(count)])
    known = {number: scenes.label_of(seed, number) for number in np.unique(recordings).tolist()}
    return np.array([known[number] for number in recordings.tolist()]), recordings


def _spectrum(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    return np.fft.rfftfreq(len(sound), 1 / CANVAS.rate), power


# --- the contract -------------------------------------------------------------------------------


def test_clips_are_finite_in_range_and_of_the_front_ends_length(clips):
    for clip in clips:
        assert clip.waveform.shape == (FRONTEND.clip_samples,)
        assert clip.waveform.dtype == np.float32
        assert np.isfinite(clip.waveform).all()
        assert 0 < np.abs(clip.waveform).max() <= 1, clip.description
        assert clip.description.startswith(scenes.CLASS_NAMES[clip.label] + ": ")


def test_a_clip_depends_on_seed_and_index_alone(clips):
    for index in (250, 7, 41, 6):
        scenes._recording.cache_clear()
        again = scenes.scene_clip(3, index, FRONTEND)
        assert np.array_equal(again.waveform, clips[index].waveform)
        assert (again.label, again.recording_id) == (clips[index].label, clips[index].recording_id)
    assert not np.array_equal(scenes.scene_clip(4, 7, FRONTEND).waveform, clips[7].waveform)


def test_a_clip_is_the_same_in_another_process(clips):
    program = (
        "import zlib; from compress.data.scenes import scene_clip; "
        "from compress.frontend import FrontEnd; "
        "print(zlib.crc32(scene_clip(3, 123, FrontEnd()).waveform.tobytes()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(answer.stdout) == zlib.crc32(clips[123].waveform.tobytes())


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_sound_does_not_depend_on_the_threads_of_the_process():
    numbers = np.arange(1, 161)
    drawn = (numbers * 49.0, np.full(160, 0.8), 1.0 / numbers, (numbers * 0.37) % 1.0)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(signal.ring(16000, 31040, *drawn))
    np.testing.assert_array_equal(*found)


def test_large_and_negative_seeds_and_far_indices_work():
    for seed, index in ((-1, 0), (2**63, 5), (2**70 + 3, 1), (0, 1_999_999)):
        assert np.abs(scenes.scene_clip(seed, index, FRONTEND).waveform).max() > 0


@pytest.mark.parametrize("rests", [1, 3])
def test_a_clip_in_which_all_players_rest_is_drawn_again(rests, monkeypatch):
    asked = []

    def render(clip: Dice) -> np.ndarray:
        asked.append(clip)
        silent = len(asked) <= rests
        return np.zeros(CANVAS.samples, "f4") if silent else clip.normals(CANVAS.samples)

    source = signal.Source("resting", render)
    monkeypatch.setitem(scenes._DRAWERS, scenes.MUSIC, lambda dice, canvas: source)
    scenes._recording.cache_clear()
    index = next(i for i in range(99) if scenes.label_of(0, scenes.recording_of(0, i)) == 1)
    clip = scenes.scene_clip(0, index, FRONTEND)
    scenes._recording.cache_clear()
    assert len(asked) == rests + 1
    assert np.abs(clip.waveform).max() > 1e-3


def test_clips_of_a_recording_share_label_and_source_but_differ(clips):
    by_recording: dict[int, list[scenes.SceneClip]] = {}
    for clip in clips:
        by_recording.setdefault(clip.recording_id, []).append(clip)
    for members in by_recording.values():
        assert len({(clip.label, clip.description) for clip in members}) == 1
        for first, second in zip(members[:-1], members[1:], strict=True):
            assert not np.array_equal(first.waveform, second.waveform)


@pytest.mark.parametrize("count", [1000, 2000, 5000])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_shares_hold_in_every_prefix(seed, count):
    labels, _ = _labels(seed, count)
    shares = np.bincount(labels, minlength=5) / count
    assert np.abs(shares - scenes.CLASS_SHARES).max() < (0.02 if count == 1000 else 0.015)
    assert shares.min() > 0.02


def test_scenes_by_source_keep_class_and_name():
    assert len(set(SOURCE_NAMES)) == len(SOURCE_NAMES)
    names = [
        (scenes.label_of(5, number), scenes.foreground_of(5, number, FRONTEND))
        for number in range(300)
    ]
    found = [SOURCE_NAMES[source_label(label, name)] for label, name in names]
    for (label, _), source in zip(names, found, strict=True):
        assert source.startswith(f"{scenes.CLASS_NAMES[label]}: ")
    assert sum(source.endswith(": further") for source in found) <= 6
    assert len(set(found)) > 60
    assert SOURCE_NAMES[source_label(1, "solo of harp, bass")] == "music: harp"
    assert SOURCE_NAMES[source_label(2, "babble of 8")] == "human voice: babble"
    assert SOURCE_NAMES[source_label(2, "man talking and woman talking")].endswith(": man talking")
    assert SOURCE_NAMES[source_label(4, "a new siren")] == "alarm: further"


def test_shares_are_the_reports():
    expected = (0.2747, 0.5169, 0.0912, 0.0834, 0.0337)
    assert pytest.approx(expected, abs=5e-5) == scenes.CLASS_SHARES


def test_recordings_suffice_for_stratified_splits():
    labels, recordings = _labels(0, 2000)
    sizes = np.unique(recordings, return_counts=True)[1]
    assert sizes.min() >= 1
    assert sizes.max() == 3
    assert 1.9 < sizes.mean() < 2.1
    assert (np.diff(recordings) >= 0).all()
    for label in range(5):
        assert len(np.unique(recordings[labels == label])) >= 10


def test_blocks_equal_single_clips(clips):
    block = scenes.scene_block(3, 5, 16, FRONTEND)
    waveforms = np.stack([clip.waveform for clip in clips[5:16]])
    assert block["db"].dtype == np.float64
    assert block["db"].shape == (11, FRONTEND.mels, FRONTEND.frames)
    np.testing.assert_allclose(block["db"], log_mel(waveforms, FRONTEND), atol=1e-3)
    assert block["labels"].tolist() == [clip.label for clip in clips[5:16]]
    assert block["recording_ids"].tolist() == [clip.recording_id for clip in clips[5:16]]
    assert len(scenes.scene_block(3, 5, 5, FRONTEND)["labels"]) == 0


def test_some_bins_are_silent_as_in_the_report(clips):
    db = log_mel(np.stack([clip.waveform for clip in clips]), FRONTEND)
    at_floor = db <= FLOOR_DB
    assert 0.005 < at_floor.mean() < 0.15
    assert any(clip.waveform[-100:].any() == 0 for clip in clips)  # padded with exact zeros
    assert (~at_floor.any(axis=(1, 2))).mean() > 0.3  # but many clips have none


def test_another_front_end_is_followed():
    half = FrontEnd(
        sample_rate_hz=8000, window_samples=320, hop_samples=160, fft_size=512, highest_hz=4000
    )
    for index in range(0, 60, 2):
        clip = scenes.scene_clip(0, index, half)
        assert clip.waveform.shape == (half.clip_samples,)
        assert np.isfinite(clip.waveform).all()
        assert np.abs(clip.waveform).max() > 0
        assert clip.label == scenes.scene_clip(0, index, FRONTEND).label


# --- the sources --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [draw_voice, draw_music, draw_engine, draw_alarm, draw_other, draw_ambience, draw_lookalike],
)
def test_every_source_sounds(draw):
    names = set()
    for number in range(60):
        source = draw(Dice(11, 5, number), CANVAS)
        sound = source.render(Dice(11, 6, number))
        assert sound.shape == (CANVAS.samples,), source.name
        assert np.isfinite(sound).all(), source.name
        assert signal.active_level(sound) > 1e-9, source.name
        names.add(source.name)
    assert len(names) > 8


def _steady_speaker(**changes) -> voice.Speaker:
    settings = {
        "pitch_hz": 125.0,
        "tract": 1.0,
        "tilt": 1.0,
        "breath": 0.02,
        "jitter": 0.0,
        "shimmer": 0.0,
        "rate": 2.0,
        "melody": 0.0,
        "pause": 0.0,
        "consonants": 0.1,
        "vowels": (4,),
    }
    return voice.Speaker(**{**settings, **changes})


def test_a_held_vowel_has_harmonics_of_its_pitch_under_its_formants():
    speaker = _steady_speaker()
    sound = voice.speak(Dice(0, 5, 0), CANVAS, speaker, [(0.0, 1.94, 125.0)])
    hz, power = _spectrum(sound[4000:-4000])
    on = sum(power[np.abs(hz - 125.0 * k).argmin() + np.arange(-4, 5)].sum() for k in range(2, 12))
    between = sum(
        power[np.abs(hz - 125.0 * (k + 0.5)).argmin() + np.arange(-4, 5)].sum()
        for k in range(2, 12)
    )
    assert on > 10 * between
    near_formant = power[(hz > 600) & (hz < 1250)].sum()
    assert near_formant > 10 * power[(hz > 1700) & (hz < 2350)].sum()


def test_a_whisper_has_no_pitch():
    def periodicity(sound: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(sound, 2 * len(sound))) ** 2
        correlation = np.fft.irfft(spectrum)
        lags = slice(CANVAS.rate // 140, CANVAS.rate // 110)
        return float(correlation[lags].max() / correlation[0])

    voiced, whispered = (
        voice.speak(Dice(0, 5, 1), CANVAS, _steady_speaker(whisper=whisper), [(0.0, 1.94, 125.0)])
        for whisper in (False, True)
    )
    assert periodicity(voiced) > 0.6
    assert periodicity(whispered) < 0.4


def _named(draw, name: str, count: int = 1) -> list[np.ndarray]:
    """Renderings of the first sources whose name holds ``name``."""
    found = []
    for number in range(3000):
        source = draw(Dice(2, 5, number), CANVAS)
        if name in source.name:
            found.append(source.render(Dice(2, 6, number)))
            if len(found) == count:
                return found
    raise AssertionError(name)


def _ridge_hz(sound: np.ndarray) -> np.ndarray:
    """Loudest band over time, Hz."""
    return mel_band_centres_hz(FRONTEND)[log_mel(sound[None], FRONTEND)[0].argmax(axis=0)]


def test_a_siren_sweeps_and_a_smoke_detector_does_not():
    for sound in _named(draw_alarm, "siren yelp", 3):
        ridge = _ridge_hz(sound)
        assert ridge.max() > 1.3 * ridge.min()
        assert np.count_nonzero(np.diff(np.sign(np.diff(ridge)[np.diff(ridge) != 0]))) >= 3
    for sound in _named(draw_alarm, "smoke detector", 3):
        db = log_mel(sound[None], FRONTEND)[0]
        ridge = _ridge_hz(sound)[db.max(axis=0) > -15]
        assert 2500 < np.median(ridge) < 3900


def test_a_reversing_beeper_goes_on_and_off():
    for sound in _named(draw_alarm, "reversing beeper", 3):
        level = np.abs(sound[: CANVAS.samples // 160 * 160]).reshape(-1, 160).max(axis=1)
        share_on = float(np.mean(level > 0.3 * level.max()))
        assert 0.25 < share_on < 0.8


def test_an_engine_fires_periodically_and_its_energy_lies_low():
    for sound in _named(draw_engine, "lorry", 3):
        hz, power = _spectrum(sound)
        assert power[hz < 500].sum() > power[hz > 2000].sum()
        # Peaks stand out of the spectrum below 300 Hz: it is made of lines.
        low = power[(hz > 20) & (hz < 300)]
        assert low.max() > 30 * np.median(low)


def test_wind_lies_lower_than_rain():
    def centroid(sound: np.ndarray) -> float:
        hz, power = _spectrum(sound)
        return float((hz * power).sum() / power.sum())

    wind = [centroid(sound) for sound in _named(draw_other, "wind", 4)]
    rain = [centroid(sound) for sound in _named(draw_ambience, "rain", 4)]
    assert np.median(wind) < 0.5 * np.median(rain)


def _bursts(sound: np.ndarray) -> np.ndarray:
    """Times at which the level rises above a fifth of its largest, s; pieces of 10 ms."""
    level = np.abs(sound[: len(sound) // 160 * 160]).reshape(-1, 160).max(axis=1)
    loud = level > 0.2 * level.max()
    return np.flatnonzero(loud[1:] & ~loud[:-1]) * 0.01


@pytest.mark.parametrize("number", range(6))
def test_a_call_is_repeated_in_time_and_alike(number):
    """Every call is of the same length and its spectrum that of the first, silence between."""
    caller = _steady_speaker(vowels=(number,), breath=0.0)
    calls = [(0.1 + 0.4 * place, 0.3 + 0.4 * place) for place in range(4)]
    sound = voice.call(Dice(0, 5, number), CANVAS, caller, calls, 0.0, 1.0)
    rate = CANVAS.rate
    pieces = [sound[round(start * rate) : round(end * rate)] for start, end in calls]
    silence = [sound[round((end + 0.05) * rate) : round((end + 0.15) * rate)] for _, end in calls]
    assert max(np.abs(gap).max() for gap in silence) < 0.02 * np.abs(sound).max()
    bands = [np.abs(np.fft.rfft(piece)) for piece in pieces]
    for other in bands[1:]:
        assert np.corrcoef(bands[0], other)[0, 1] > 0.95


def test_calls_rise_by_their_bend():
    caller = _steady_speaker(breath=0.0, pitch_hz=200.0)
    sound = voice.call(Dice(0, 5, 1), CANVAS, caller, [(0.2, 1.6)], 1.0, 1.0)
    early, late = (sound[round(t * CANVAS.rate) :][:4096] for t in (0.45, 1.25))

    def pitch(piece: np.ndarray) -> float:
        correlation = np.fft.irfft(np.abs(np.fft.rfft(piece, 8192)) ** 2)
        lags = np.arange(CANVAS.rate // 320, CANVAS.rate // 130)
        return CANVAS.rate / float(lags[correlation[lags].argmax()])

    assert 1.2 < pitch(late) / pitch(early) < 1.8  # about 0.6 octaves between the two moments


def test_strokes_of_a_rattle_keep_no_time_and_those_of_a_clock_do():
    """Spread of the gaps between strokes, as a share of their mean."""

    def spread(sounds: list[np.ndarray]) -> float:
        gaps = [np.diff(_bursts(sound)) for sound in sounds]
        return float(np.median([np.std(g) / np.mean(g) for g in gaps if len(g) > 2]))

    rattles = _named(draw_lookalike, "loose shutter", 12)
    ticks = _named(draw_other, "ticking", 6)
    assert spread(rattles) > 0.35
    assert spread(ticks) < 0.2


def test_a_crank_swings_in_a_beat():
    """The level goes up and down one to two times a second, each time as far."""
    for sound in _named(draw_lookalike, "hand crank", 4):
        level = np.log(np.square(sound[: CANVAS.samples // 800 * 800]).reshape(-1, 800).mean(1))
        spectrum = np.abs(np.fft.rfft(level - level.mean()))
        beats = np.fft.rfftfreq(len(level), 0.05)
        assert 0.5 <= beats[spectrum.argmax()] <= 2.7


# --- the building blocks --------------------------------------------------------------------------


def test_ringing_equals_the_direct_sum_of_decaying_cosines():
    frequencies, decays = np.array([220.0, 1000.0, 9000.0]), np.array([0.5, 0.2, 1.0])
    amplitudes, phases = np.array([1.0, 0.5, 1.0]), np.array([0.0, 0.3, 0.0])
    sound = signal.ring(16000, 5000, frequencies, decays, amplitudes, phases)
    time = np.arange(5000) / 16000
    expected = sum(
        a * np.exp(-6.9078 * time / d) * np.cos(2 * np.pi * (f * time + p))
        for f, d, a, p in list(zip(frequencies, decays, amplitudes, phases, strict=True))[:2]
    )  # the third lies above the Nyquist frequency
    np.testing.assert_allclose(sound, expected, atol=2e-4)


def test_frames_analyse_and_synthesise_back():
    sound = Dice(0, 5, 2).normals(CANVAS.samples)
    back = signal.synthesise(signal.analyse(sound, CANVAS), CANVAS)
    np.testing.assert_allclose(back, sound, atol=1e-4)


def test_coloured_and_framed_noise_have_unit_level_at_unit_gain():
    flat = signal.coloured(Dice(0, 5, 3), CANVAS, np.ones(signal.noise_bins(CANVAS), "f4"))
    framed = signal.frame_noise(Dice(0, 5, 4), CANVAS, np.ones((CANVAS.frames, CANVAS.hop + 1)))
    assert np.std(flat) == pytest.approx(1.0, rel=0.05)
    assert np.std(framed) == pytest.approx(1.0, rel=0.05)


def test_oscillators_follow_the_frequency():
    frequency = np.linspace(400.0, 800.0, len(signal.control_times(CANVAS)))
    phase = signal.cycles(frequency, CANVAS)
    expected = 600.0 * CANVAS.seconds
    assert phase[-1] == pytest.approx(expected, rel=0.01)
    tone = signal.glide(CANVAS, np.full(len(frequency), 1000.0), signal.sine_table(), 0.0)
    hz, power = _spectrum(tone)
    assert hz[power.argmax()] == pytest.approx(1000.0, abs=1.0)


def test_active_level_ignores_pauses():
    sound = Dice(0, 5, 5).normals(CANVAS.samples)
    gated = sound.copy()
    gated[: CANVAS.samples // 2] = 0
    assert signal.active_level(gated) == pytest.approx(signal.active_level(sound), rel=0.1)
    assert signal.active_level(np.zeros(CANVAS.samples, "f4")) == 0.0


def test_rooms_reverberate_more_behind_than_in_front():
    def late_share(response: np.ndarray, size: int) -> float:
        impulse = np.fft.irfft(response, size) ** 2
        start = round(0.05 * CANVAS.rate)
        return float(impulse[start : size // 4].sum() / impulse.sum())

    spaces = [rooms.draw_space(Dice(0, 5, number), CANVAS) for number in range(40)]
    near = np.mean([late_share(space.near, space.fft_size) for space in spaces])
    far = np.mean([late_share(space.far, space.fft_size) for space in spaces])
    assert far > near
    assert {space.name for space in spaces} >= {"outdoors", "room", "office"}


def test_dice_repeat_and_differ():
    assert Dice(1, 2, 3).unit() == Dice(1, 2, 3).unit()
    draws = {Dice(1, 2, 3).unit(), Dice(2, 2, 3).unit(), Dice(1, 3, 3).unit(), Dice(1, 2, 4).unit()}
    assert len(draws) == 4
    dice = Dice(0, 0, 0)
    assert all(2 <= dice.whole(2, 5) <= 5 for _ in range(300))
    with pytest.raises(IndexError):
        dice.pick(())
