"""The front end against values by hand and against librosa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sounds import tone

from compress.errors import InputError
from compress.frontend import (
    FLOOR_DB,
    FrontEnd,
    hz_to_mel,
    log_mel,
    mel_band_centres_hz,
    mel_filters,
    mel_power,
    mel_to_hz,
    power_to_db,
)

ESC10 = Path(__file__).parents[2] / "shared" / "data" / "esc10"
FRONTEND = FrontEnd()


def test_defaults_give_the_shape_of_the_report() -> None:
    assert FRONTEND.clip_samples == 95 * 320 + 640 == 31_040
    assert FRONTEND.clip_seconds == pytest.approx(1.94)
    waveforms = np.stack([tone(440, 1.94), tone(880, 1.94)])
    assert log_mel(waveforms, FRONTEND).shape == (2, 32, 96)
    assert log_mel(waveforms, FRONTEND).dtype == np.float64


def test_mel_scale_by_hand() -> None:
    # Slaney: 3 mel per 200 Hz up to 1 kHz = 15 mel, then 27 mel for each factor of 6.4.
    assert hz_to_mel(np.array([0.0, 200.0, 1000.0, 6400.0])) == pytest.approx([0, 3, 15, 42])
    hertz = np.array([0.0, 50.0, 999.0, 1001.0, 8000.0])
    assert mel_to_hz(hz_to_mel(hertz)) == pytest.approx(hertz)


def test_every_filter_has_the_same_area() -> None:
    # A triangle of height 2 / width has area 1 Hz * 1/Hz; sampled at 15.6 Hz per bin.
    areas = mel_filters(FRONTEND).sum(axis=1) * 16_000 / 1024
    assert areas == pytest.approx(np.ones(32), abs=0.05)


@pytest.mark.parametrize("band", [3, 12, 20, 30])
def test_a_tone_is_loudest_in_its_band(band: int) -> None:
    hz = float(mel_band_centres_hz(FRONTEND)[band])
    spectrogram = log_mel(tone(hz, 1.94)[None], FRONTEND)[0]
    assert (spectrogram.argmax(axis=0) == band).all()


def test_power_to_db_by_hand() -> None:
    power = np.array([[[1.0, 0.1], [1e-3, 1e-20]]])
    assert power_to_db(power, FRONTEND)[0] == pytest.approx(
        np.array([[0.0, -10.0], [-30.0, -80.0]])
    )
    fixed = FrontEnd(reference="fixed", fixed_reference_db=20.0)
    assert power_to_db(power, fixed)[0] == pytest.approx(np.array([[-20.0, -30.0], [-50.0, -80.0]]))


def test_silence_stays_at_the_floor() -> None:
    silence = np.zeros((1, FRONTEND.clip_samples), dtype=np.float32)
    assert (log_mel(silence, FRONTEND) == FLOOR_DB).all()


def test_reference_clip_ignores_the_level_and_fixed_does_not() -> None:
    waveform = tone(700, 1.94)[None]
    fixed = FrontEnd(reference="fixed")
    assert log_mel(waveform, FRONTEND) == pytest.approx(log_mel(waveform / 4, FRONTEND), abs=1e-3)
    loud, soft = log_mel(waveform, fixed), log_mel(waveform / 4, fixed)
    above = soft > FLOOR_DB + 1
    assert (loud - soft)[above] == pytest.approx(20 * np.log10(4), abs=1e-3)


def test_frames_do_not_depend_on_the_future() -> None:
    waveform = tone(500, 3.0)[None]
    whole = mel_power(waveform, FRONTEND)
    begun = mel_power(waveform[:, : FRONTEND.clip_samples], FRONTEND)
    assert np.array_equal(whole[:, :, :96], begun)


def test_the_same_input_gives_the_same_bits() -> None:
    waveforms = np.random.default_rng(0).normal(0, 0.1, (3, 31_040)).astype(np.float32)
    assert np.array_equal(log_mel(waveforms, FRONTEND), log_mel(waveforms.copy(), FRONTEND))


def test_settings_survive_a_round_trip_and_refuse_unknown_ones() -> None:
    chosen = FrontEnd(reference="fixed", mels=40)
    assert FrontEnd.from_dict(chosen.to_dict()) == chosen
    with pytest.raises(InputError, match="unknown settings colour"):
        FrontEnd.from_dict({"colour": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "loud"}, "choose 'clip' or 'fixed'"),
        ({"highest_hz": 9000.0}, "do not fit a sample rate"),
        ({"window_samples": 2048}, "does not fit an FFT"),
        ({"mels": 0}, "at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrontEnd(**settings)  # type: ignore[arg-type]


def test_too_little_sound_is_refused() -> None:
    with pytest.raises(InputError, match="at least 640 samples"):
        mel_power(np.zeros((1, 639), dtype=np.float32), FRONTEND)


def _librosa_power(waveform: np.ndarray) -> np.ndarray:
    """librosa centres the 640-sample window in its 1024-sample frame: 192 zeros on either side."""
    librosa = pytest.importorskip("librosa")
    edge = np.zeros((FRONTEND.fft_size - FRONTEND.window_samples) // 2, dtype=np.float32)
    return librosa.feature.melspectrogram(
        y=np.concatenate([edge, waveform, edge]),
        sr=16_000,
        n_fft=1024,
        win_length=640,
        hop_length=320,
        center=False,
        n_mels=32,
        fmin=0,
        fmax=8000,
        htk=False,
        norm="slaney",
    )


def test_filters_equal_librosas() -> None:
    librosa = pytest.importorskip("librosa")
    theirs = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=32, fmin=0, fmax=8000)
    assert np.abs(mel_filters(FRONTEND) - theirs).max() < 1e-8


def test_equals_librosa_on_noise_and_tones() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 40_000).astype(np.float32)
    for waveform in (noise, tone(440, 2.5), tone(5000, 2.5)):
        ours = mel_power(waveform[None], FRONTEND)[0]
        theirs = _librosa_power(waveform)
        assert ours.shape == theirs.shape
        difference = np.abs(power_to_db(ours, FRONTEND) - power_to_db(theirs, FRONTEND))
        assert difference.max() < 1e-3


@pytest.mark.skipif(not ESC10.is_dir(), reason="ESC-10 is not beside the repository")
def test_equals_librosa_on_real_clips() -> None:
    """Measured over every eighth clip: at most 0.0004 dB, above the floor of -80 dB."""
    from compress.data.audio import read_blocks

    for path in sorted((ESC10 / "audio").glob("*.ogg"))[::40]:
        waveform = np.concatenate(list(read_blocks(path, 16_000)))
        ours, theirs = mel_power(waveform[None], FRONTEND)[0], _librosa_power(waveform)
        difference = np.abs(power_to_db(ours, FRONTEND) - power_to_db(theirs, FRONTEND))
        assert difference.max() < 1e-3, path.name
