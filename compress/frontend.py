"""Waveform to log-mel spectrogram: the settings that travel with set and model, and the maths.

    waveform (B, samples) -> frames (no padding) -> |STFT|^2 -> mel bands -> dB -> (B, mels, frames)

Frames start at multiples of the hop and are never padded at the edges, because a device that
listens has no future samples to pad with. The mel filter bank is Slaney's (Auditory Toolbox, 1998)
with area normalisation, the default of librosa, against which the tests compare.

All of it is computed in 64-bit floats. What is stored are steps of 1/256 dB, and with 32 bits about
one level in a thousand falls on the other side of a step, which one depending on the machine; with
64 bits the stored codes are those of exact arithmetic but for ties, on every machine and in C.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.errors import InputError

if TYPE_CHECKING:
    import torch

FLOOR_DB = -80.0
_SMALLEST_POWER = 1e-20


@dataclass(frozen=True)
class FrontEnd:
    """Settings of the log-mel front end.

    ``reference`` says what 0 dB means. ``"clip"``: the loudest bin of the window, as in the
    AudioBots report; windows whose loudest bin lies under ``quietest_reference_db`` are taken
    relative to that level instead, so that silence stays at the floor. ``"fixed"``: always
    ``fixed_reference_db``, the only choice that a live device can make. Levels are in dB of mel
    power with full scale = amplitude 1 (a full-scale tone lies near +20 dB). All values are
    floored at -80 dB.
    """

    sample_rate_hz: int = 16_000
    window_samples: int = 640
    hop_samples: int = 320
    fft_size: int = 1024
    mels: int = 32
    frames: int = 96
    lowest_hz: float = 0.0
    highest_hz: float = 8_000.0
    reference: str = "clip"
    fixed_reference_db: float = 20.0
    quietest_reference_db: float = -50.0

    def __post_init__(self) -> None:
        if self.reference not in ("clip", "fixed"):
            raise InputError(
                f"front end: reference is {self.reference!r}; choose 'clip' or 'fixed'"
            )
        if not 0 <= self.lowest_hz < self.highest_hz <= self.sample_rate_hz / 2:
            raise InputError(
                f"front end: bands from {self.lowest_hz} to {self.highest_hz} Hz do not fit "
                f"a sample rate of {self.sample_rate_hz} Hz (at most half of it)"
            )
        if not 0 < self.window_samples <= self.fft_size:
            raise InputError(
                f"front end: a window of {self.window_samples} samples does not fit "
                f"an FFT of {self.fft_size}"
            )
        if min(self.hop_samples, self.mels, self.frames) < 1:
            raise InputError("front end: hop, mel bands and frames must be at least 1")

    @property
    def clip_samples(self) -> int:
        """Samples that give exactly ``frames`` frames."""
        return (self.frames - 1) * self.hop_samples + self.window_samples

    @property
    def clip_seconds(self) -> float:
        return self.clip_samples / self.sample_rate_hz

    @property
    def hop_seconds(self) -> float:
        return self.hop_samples / self.sample_rate_hz

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FrontEnd:
        """Rebuild from ``to_dict``; raises InputError on an unknown key."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"front end: unknown settings {', '.join(unknown)}")
        return cls(**values)


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """Slaney's mel scale: linear to 1 kHz (15 mel), logarithmic above (27 mel per factor 6.4)."""
    hz = np.asarray(hz, dtype=np.float64)
    linear = hz * 3.0 / 200.0
    log = 15.0 + 27.0 * np.log(np.maximum(hz, 1e-9) / 1000.0) / np.log(6.4)
    return np.where(hz < 1000.0, linear, log)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Inverse of :func:`hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27))


def mel_edges_hz(frontend: FrontEnd) -> np.ndarray:
    """Where bands begin, are centred and end, (mels + 2,) Hz: band m lies over edges m to m + 2."""
    lowest, highest = hz_to_mel(frontend.lowest_hz), hz_to_mel(frontend.highest_hz)
    return mel_to_hz(np.linspace(lowest, highest, frontend.mels + 2))


def mel_filters(frontend: FrontEnd) -> np.ndarray:
    """Triangular filters of equal area, (mels, fft_size // 2 + 1) float64."""
    edges = mel_edges_hz(frontend)
    bins = np.arange(frontend.fft_size // 2 + 1) * frontend.sample_rate_hz / frontend.fft_size
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (upper - lower)


def mel_band_centres_hz(frontend: FrontEnd) -> np.ndarray:
    """Centre frequency of each band, (mels,) Hz."""
    return mel_edges_hz(frontend)[1:-1]


def hann_window(frontend: FrontEnd) -> np.ndarray:
    """The periodic Hann window, (window_samples,) float64."""
    samples = np.arange(frontend.window_samples)
    return 0.5 - 0.5 * np.cos(2 * np.pi * samples / frontend.window_samples)


@functools.lru_cache(maxsize=8)
def _constants(frontend: FrontEnd) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    return torch.from_numpy(hann_window(frontend)), torch.from_numpy(mel_filters(frontend))


def mel_power(waveforms: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    """Mel power of waveforms in -1..1: (B, samples) float32 -> (B, mels, frames') float64.

    frames' = 1 + (samples - window) // hop. Raises InputError where less than one window is given.
    """
    import torch

    waveforms = np.ascontiguousarray(waveforms, dtype=np.float32)
    if waveforms.ndim != 2 or waveforms.shape[1] < frontend.window_samples:
        raise InputError(
            f"front end: waveforms of shape {waveforms.shape}; "
            f"at least {frontend.window_samples} samples each are needed"
        )
    window, filters = _constants(frontend)
    with torch.inference_mode():
        frames = torch.from_numpy(waveforms).unfold(
            1, frontend.window_samples, frontend.hop_samples
        )  # (B, frames', window)
        spectrum = torch.fft.rfft(frames * window, n=frontend.fft_size)  # (B, frames', bins)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ filters.T).transpose(1, 2).contiguous().numpy()  # (B, mels, frames')


def power_to_db(power: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    """Mel power (..., mels, frames) -> dB (float64) under the reference of ``frontend``."""
    decibels = 10.0 * np.log10(np.maximum(power, _SMALLEST_POWER, dtype=np.float64))
    if frontend.reference == "clip":
        loudest = decibels.max(axis=(-2, -1), keepdims=True)
        reference = np.maximum(loudest, frontend.quietest_reference_db)
    else:
        reference = frontend.fixed_reference_db
    return np.maximum(decibels - reference, FLOOR_DB)


def log_mel(waveforms: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    """Log-mel spectrograms in dB: (B, samples) in -1..1 -> (B, mels, frames') float64."""
    return power_to_db(mel_power(waveforms, frontend), frontend)
