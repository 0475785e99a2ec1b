"""Building blocks of the synthesiser: random draws, control curves, oscillators, noise, ringing.

Slow quantities (pitch, level) are computed on a coarse grid of control points, 4 ms apart, and
brought to audio rate by straight lines. Filters that change over time and coloured noise are made
in overlapping frames of 25 ms; decaying tones by one matrix product per note. All audio is
float32, all frequencies are in Hz, all times in seconds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import scipy.fft

_NOISE_BANK_SAMPLES = 1 << 20
_NOISE_BANK_KEY = (0x5CE2E5, 0)
_TABLE_SIZE = 8192
_KEY_MASK = (1 << 64) - 1
T = TypeVar("T")


@dataclass(frozen=True)
class Canvas:
    """The grid that sources draw on: ``samples`` at ``rate`` Hz."""

    rate: int
    samples: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    @property
    def nyquist(self) -> float:
        return self.rate / 2

    @property
    def control_step(self) -> int:
        """Samples between control points (4 ms)."""
        return max(1, round(self.rate * 0.004))

    @property
    def hop(self) -> int:
        """Samples between frames (12.5 ms, half a frame)."""
        return max(8, round(self.rate * 0.0125))

    @property
    def frames(self) -> int:
        return math.ceil(self.samples / self.hop) + 1

    @property
    def fft_size(self) -> int:
        return scipy.fft.next_fast_len(self.samples, real=True)


@functools.lru_cache(maxsize=64)
def control_times(canvas: Canvas) -> np.ndarray:
    """Times of the control points, (points,)."""
    points = math.ceil(canvas.samples / canvas.control_step) + 1
    return np.arange(points) * (canvas.control_step / canvas.rate)


@functools.lru_cache(maxsize=64)
def frame_times(canvas: Canvas) -> np.ndarray:
    """Times of the centres of the frames, (frames,)."""
    return np.arange(canvas.frames) * (canvas.hop / canvas.rate)


@functools.lru_cache(maxsize=64)
def frame_frequencies(canvas: Canvas) -> np.ndarray:
    """Frequencies of the bins of a frame, (hop + 1,) float32."""
    return np.linspace(0, canvas.nyquist, canvas.hop + 1, dtype=np.float32)


@functools.lru_cache(maxsize=64)
def _log_frequencies(bins: int, nyquist: float) -> np.ndarray:
    return np.log(np.maximum(np.linspace(0, nyquist, bins), 1.0)).astype(np.float32)


class Dice:
    """Random draws that depend on (seed, kind, number) alone, cheap for single values."""

    def __init__(self, seed: int, kind: int, number: int) -> None:
        key = np.array([seed & _KEY_MASK, ((kind << 56) ^ number) & _KEY_MASK], dtype=np.uint64)
        self.rng = np.random.Generator(np.random.Philox(key=key))
        self._pool: list[float] = []

    def unit(self) -> float:
        """Uniform in 0..1."""
        if not self._pool:
            self._pool = self.rng.random(128).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def log_between(self, low: float, high: float) -> float:
        return low * (high / low) ** self.unit()

    def whole(self, low: int, high: int) -> int:
        """Integer in low..high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.unit() * len(options))]

    def weighted(self, options: Sequence[tuple[float, T]]) -> T:
        """One of the (weight, option) pairs."""
        mark = self.unit() * sum(weight for weight, _ in options)
        for weight, option in options:
            mark -= weight
            if mark < 0:
                return option
        return options[-1][1]

    def normals(self, count: int) -> np.ndarray:
        return self.rng.standard_normal(count, dtype=np.float32)


@dataclass(frozen=True)
class Source:
    """A drawn source: its parameters are fixed, each ``render(dice)`` is another stretch of it.

    ``render`` returns (samples,) float32 of arbitrary level that is not silent.
    """

    name: str
    render: Callable[[Dice], np.ndarray]


def seconds_to_samples(canvas: Canvas, seconds: float) -> int:
    return max(1, round(seconds * canvas.rate))


def decibels(value: float) -> float:
    """dB of amplitude -> factor."""
    return 10.0 ** (value / 20.0)


# --- slow curves --------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def _steps(count: int, dtype: str) -> np.ndarray:
    return (np.arange(count) / count).astype(dtype)


def to_audio(control: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Control curve (points,) -> (samples,), straight lines between points, same dtype."""
    steps = _steps(canvas.control_step, control.dtype.name)
    lines = control[:-1, None] + np.diff(control)[:, None] * steps
    return lines.reshape(-1)[: canvas.samples]


def drift(dice: Dice, times: np.ndarray, rate_hz: float) -> np.ndarray:
    """Wandering curve over ``times`` with about unit deviation, changing ``rate_hz`` times a s."""
    knots = max(2, math.ceil(float(times[-1]) * rate_hz) + 2)
    values = dice.normals(knots)
    positions = (np.arange(knots) - dice.unit()) / rate_hz
    return np.interp(times, positions, values).astype(np.float32)


def gate(times: np.ndarray, start: float, end: float, edge: float) -> np.ndarray:
    """1 between ``start`` and ``end``, edges of ``edge`` seconds inside."""
    return np.clip(np.minimum((times - start) / edge, (end - times) / edge), 0.0, 1.0)


# --- oscillators --------------------------------------------------------------------------------


def cycles(frequency: np.ndarray, canvas: Canvas, start: float = 0.0) -> np.ndarray:
    """Phase in cycles (samples,) float64 of a frequency given at the control points."""
    increments = frequency[:-1] * (canvas.control_step / canvas.rate)
    phase = np.empty(len(frequency))
    phase[0] = start
    np.cumsum(increments, out=phase[1:])
    phase[1:] += start
    return to_audio(phase, canvas)


def harmonic_table(amplitudes: np.ndarray, phases: np.ndarray | float = 0.0) -> np.ndarray:
    """One cycle of a sum of harmonics (from the first), unit RMS, for :func:`read_table`."""
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex64)
    count = min(len(amplitudes), _TABLE_SIZE // 2 - 1)
    spectrum[1 : count + 1] = (amplitudes * np.exp(2j * np.pi * np.asarray(phases)))[:count]
    table = scipy.fft.irfft(spectrum, _TABLE_SIZE)
    return table / max(float(np.sqrt(np.mean(table * table))), 1e-20)


def read_table(table: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Values of a one-cycle table at phases in cycles."""
    index = (phase * _TABLE_SIZE).astype(np.int64)
    index &= _TABLE_SIZE - 1
    return table.take(index)


@functools.lru_cache(maxsize=1)
def sine_table() -> np.ndarray:
    return harmonic_table(np.ones(1), -0.25)


def rolled_off(canvas: Canvas, highest_hz: float, power: float, most: int = 400) -> np.ndarray:
    """Amplitudes harmonic^-power of as many harmonics as fit under the Nyquist frequency."""
    count = min(most, max(1, int(0.97 * canvas.nyquist / max(highest_hz, 1.0))))
    return np.arange(1, count + 1) ** -power


def glide(canvas: Canvas, frequency: np.ndarray, table: np.ndarray, start: float) -> np.ndarray:
    """Table played at a frequency given at the control points."""
    return read_table(table, cycles(frequency, canvas, start))


def ring(
    rate: int,
    samples: int,
    frequencies: np.ndarray,
    decays: np.ndarray,
    amplitudes: np.ndarray,
    phases: np.ndarray,
) -> np.ndarray:
    """Sum of decaying cosines, (samples,) float32.

    ``decays`` are times to -60 dB; ``phases`` in cycles. exp(s (a B + b)) splits into a product of
    a coarse and a fine exponential, so the sum over modes is one matrix product.
    """
    keep = frequencies < 0.49 * rate
    if not keep.any():
        return np.zeros(samples, dtype=np.float32)
    frequencies, decays = frequencies[keep], decays[keep]
    block = max(16, math.isqrt(samples))
    blocks = -(-samples // block)
    turn = 2 * np.pi * frequencies / rate
    fall = -6.9078 / (np.maximum(decays, 1e-3) * rate)
    coarse = np.arange(blocks)[:, None] * block
    fine = np.arange(block)[None, :]
    coarse_size = (amplitudes[keep] * np.exp(fall * coarse)).astype(np.float32)
    coarse_angle = np.mod((turn * coarse) / (2 * np.pi) + phases[keep], 1.0).astype(np.float32)
    coarse_angle *= np.float32(2 * np.pi)
    fine_size = np.exp((fall[:, None] * fine).astype(np.float32))
    fine_angle = (turn[:, None] * fine).astype(np.float32)
    left = np.concatenate(
        [coarse_size * np.cos(coarse_angle), -coarse_size * np.sin(coarse_angle)], axis=1
    )
    right = np.concatenate([fine_size * np.cos(fine_angle), fine_size * np.sin(fine_angle)])
    with _one_blas_thread():
        product = left @ right
    return product.reshape(-1)[:samples]


def _one_blas_thread() -> Any:
    """A matrix product on several threads sums in another order: a scene in the last bits, which
    the microphone's 16 bits make half a dB of in quiet bands. One is not slower at these sizes."""
    return _blas().limit(limits=1, user_api="blas")


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def add(target: np.ndarray, sound: np.ndarray, start: int, gain: float = 1.0) -> None:
    """Add ``sound`` to ``target`` from sample ``start`` (may lie outside)."""
    first, last = max(start, 0), min(start + len(sound), len(target))
    if first < last:
        target[first:last] += np.float32(gain) * sound[first - start : last - start]


# --- noise --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    key = np.array(_NOISE_BANK_KEY, dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(
        _NOISE_BANK_SAMPLES, dtype=np.float32
    )


def white(dice: Dice, count: int) -> np.ndarray:
    """(count,) unit white noise, a read-only stretch of a bank that is made once per process."""
    bank = _noise_bank()
    if count >= len(bank):
        return dice.normals(count)
    start = dice.whole(0, len(bank) - count)
    return bank[start : start + count]


def _noise_spectrum(dice: Dice, count: int) -> np.ndarray:
    return white(dice, 2 * count).view(np.complex64)


def tilt_gain(canvas: Canvas, bins: int, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Gains at ``bins`` frequencies from 0 to Nyquist through (Hz, dB) knots, log frequency."""
    hz, db = zip(*knots, strict=True)
    curve = np.interp(_log_frequencies(bins, canvas.nyquist), np.log(hz), db)
    return np.exp(curve.astype(np.float32) * np.float32(math.log(10) / 20))


def resonances(dice: Dice, canvas: Canvas, tilt: float) -> np.ndarray:
    """Gain of a body or casing at the noise bins: bumps on a slope of ``tilt`` dB per octave."""
    knots = []
    for centre in (30.0, 60.0, 110.0, 200.0, 360.0, 650.0, 1200.0, 2200.0, 4000.0, 8000.0):
        knots.append((centre, tilt * np.log2(centre / 200.0) + dice.between(-7.0, 7.0)))
    return tilt_gain(canvas, noise_bins(canvas), knots)


def coloured(dice: Dice, canvas: Canvas, gain: np.ndarray) -> np.ndarray:
    """Steady noise, (samples,), whose spectrum is ``gain`` at the bins of ``canvas.fft_size``."""
    spectrum = _noise_spectrum(dice, len(gain)) * gain
    return scipy.fft.irfft(spectrum, canvas.fft_size)[: canvas.samples] * np.float32(
        math.sqrt(canvas.fft_size / 2)
    )


def noise_bins(canvas: Canvas) -> int:
    """Bins that a gain for :func:`coloured` needs."""
    return canvas.fft_size // 2 + 1


def filtered(sound: np.ndarray, canvas: Canvas, gain: np.ndarray) -> np.ndarray:
    """Zero-phase, circular filter with ``gain`` at the bins of ``canvas.fft_size``."""
    spectrum = scipy.fft.rfft(sound.astype(np.float32, copy=False), canvas.fft_size)
    return scipy.fft.irfft(spectrum * gain, canvas.fft_size)[: len(sound)]


# --- frames -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def _frame_window(length: int) -> np.ndarray:
    return np.sin(np.pi * (np.arange(length) + 0.5) / length).astype(np.float32)


def analyse(sound: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Spectra of overlapping frames, (frames, hop + 1) complex64."""
    hop, frames = canvas.hop, canvas.frames
    padded = np.zeros((frames + 1) * hop, dtype=np.float32)
    padded[hop : hop + len(sound)] = sound
    halves = padded.reshape(frames + 1, hop)
    window = _frame_window(2 * hop)
    return scipy.fft.rfft(np.concatenate([halves[:-1], halves[1:]], axis=1) * window, axis=1)


def synthesise(spectra: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Inverse of :func:`analyse` by overlap-add, (samples,) float32."""
    hop = canvas.hop
    pieces = scipy.fft.irfft(spectra, 2 * hop, axis=1) * _frame_window(2 * hop)
    return (pieces[:-1, hop:] + pieces[1:, :hop]).reshape(-1)[: canvas.samples]


def frame_noise(dice: Dice, canvas: Canvas, gains: np.ndarray) -> np.ndarray:
    """Noise whose spectrum follows ``gains`` (frames, hop + 1)."""
    return synthesise(noise_frames(dice, canvas) * gains, canvas)


def noise_frames(dice: Dice, canvas: Canvas) -> np.ndarray:
    """Spectra from which :func:`synthesise` makes unit white noise, (frames, hop + 1) complex64."""
    spectra = _noise_spectrum(dice, canvas.frames * (canvas.hop + 1))
    return spectra.reshape(canvas.frames, canvas.hop + 1) * np.float32(math.sqrt(canvas.hop))


def peaks(frequencies: np.ndarray, centres: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Resonance curves 1 / (1 + ((f - centre) / width)^2), (..., bins)."""
    distance = (frequencies - centres[..., None]) / widths[..., None]
    distance *= distance
    distance += 1.0
    return np.reciprocal(distance, out=distance)


def resampled(sound: np.ndarray, ratio: float, start: float) -> np.ndarray:
    """The sound played round and round at ``ratio`` times its speed, same length."""
    position = (np.arange(len(sound)) * ratio + start * len(sound)) % len(sound)
    index = position.astype(np.int64)
    part = (position - index).astype(np.float32)
    following = index + 1
    following[following == len(sound)] = 0
    return sound[index] * (1 - part) + sound[following] * part


def active_level(sound: np.ndarray) -> float:
    """RMS of the louder parts (20 ms pieces within 15 dB of the loudest), lightly pre-emphasised.

    Signal-to-noise ratios are stated between such levels, so pauses do not count and rumble
    counts less, as in listening.
    """
    emphasised = sound[1:] - np.float32(0.7) * sound[:-1]
    usable = len(emphasised) // 96 * 96
    power = np.mean(np.square(emphasised[:usable].reshape(96, -1)), axis=1)
    loudest = float(power.max())
    return math.sqrt(float(power[power >= 0.03 * loudest].mean())) if loudest > 0 else 0.0
