"""Sound files to mel power, in bounded memory.

    file -> blocks (soundfile) -> mono (mean of channels) -> resampled (soxr, HQ)
         -> mel power, frame by frame -> windows of ``frames`` frames every ``window_step``

A file is read in blocks of at most a minute, whatever its header claims, so memory does not grow
with its length. Every fault of a file is an :class:`AudioError` that says what is wrong with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.errors import InputError
from compress.frontend import FrontEnd, mel_power

if TYPE_CHECKING:
    import soundfile

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
WINDOW_STEP_SECONDS = 0.62

_BLOCK_SECONDS = 60
_BLOCK_VALUES = 2**24  # samples of all channels together in one block
_LARGEST_POWER = float(np.finfo(np.float32).max)
_FRAMES_AT_ONCE = 384  # what is computed on them stays in the processor's cache
_SLOWEST_RATE_HZ = 1_000
_FASTEST_RATE_HZ = 1_000_000


class AudioError(InputError):
    """One sound file cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a sound file says."""

    sample_rate_hz: int
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate_hz


def is_audio(path: Path) -> bool:
    """True for a name that ends like a sound file."""
    return path.suffix.lower() in SUFFIXES


def window_step(frontend: FrontEnd) -> int:
    """Frames from one window to the next: 0.62 s (31 frames by default), but two thirds of a window
    at most, so that windows always overlap."""
    step = round(WINDOW_STEP_SECONDS / frontend.hop_seconds)
    return max(1, min(step, 2 * frontend.frames // 3))


def step_frames(frontend: FrontEnd, hop_seconds: float | None = None) -> int:
    """Frames from one decision on a stream to the next; None: as windows are cut for training."""
    if hop_seconds is None:
        return window_step(frontend)
    return max(1, round(hop_seconds / frontend.hop_seconds))


def window_starts(frames: int, frontend: FrontEnd) -> list[int]:
    """First frames of the windows of a clip; the last window ends with the clip."""
    last = frames - frontend.frames
    starts = list(range(0, last + 1, window_step(frontend)))
    if starts and starts[-1] != last:
        starts.append(last)
    return starts


def read_info(path: Path) -> AudioInfo:
    """Header of a sound file; raises AudioError where it is none."""
    with _opened(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    import soundfile

    try:
        size = path.stat().st_size
        if size == 0:
            raise AudioError("the file is empty (0 bytes)")
        with path.open("rb") as raw:
            _check_container(raw.read(4096), raw, size)
        with soundfile.SoundFile(str(path)) as file:
            if not _SLOWEST_RATE_HZ <= file.samplerate <= _FASTEST_RATE_HZ:
                raise AudioError(f"has a sample rate of {file.samplerate} Hz")
            yield file
    except soundfile.LibsndfileError as error:
        raise AudioError(f"is not readable as sound ({error.error_string.rstrip('.')})") from None
    except (FileNotFoundError, PermissionError) as error:
        raise AudioError(f"cannot be opened ({error.strerror})") from None


def _check_container(head: bytes, raw, size: int) -> None:  # type: ignore[no-untyped-def]
    """Refuse WAV and Ogg files that end before their container says; the decoder would not."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        at = 12
        while at + 8 <= size:
            raw.seek(at)
            header = raw.read(8)
            length = int.from_bytes(header[4:8], "little")
            if header[:4] == b"data":
                # Writers to a pipe leave 0 or the largest number there, meaning "until the end".
                if 0 < length < 0xFFFF_FF00 and at + 8 + length > size:
                    raise AudioError(
                        f"is truncated ({size - at - 8} of {length} bytes of sound are there)"
                    )
                return
            at += 8 + length + length % 2
        raise AudioError("is truncated (it ends before its sound data)")
    if head[:4] == b"OggS":
        tail_bytes = min(size, 2**17)  # a page is at most 65,307 bytes
        raw.seek(size - tail_bytes)
        tail = raw.read(tail_bytes)
        page = tail.rfind(b"OggS")
        segments = tail[page + 27 : page + 27 + tail[page + 26]] if page + 27 <= len(tail) else b""
        complete = page + 27 <= len(tail) and len(segments) == tail[page + 26]
        if page < 0 or not complete or page + 27 + len(segments) + sum(segments) > len(tail):
            raise AudioError("is truncated (its last Ogg page is not whole)")


def read_blocks(
    path: Path, sample_rate_hz: int, start: int = 0, stop: int | None = None
) -> Iterator[np.ndarray]:
    """Mono blocks (samples,) float32 at ``sample_rate_hz``, of at most about a minute each.

    ``start`` and ``stop`` are samples of the file itself. Raises AudioError where the file is
    truncated, is not sound, holds no sound, or holds NaN or infinite samples.
    """
    import soxr

    with _opened(path) as file:
        rate, expected = file.samplerate, file.frames
        stop = expected if stop is None else min(stop, expected)
        if start:
            file.seek(start)
        resampler = None
        if rate != sample_rate_hz:
            resampler = soxr.ResampleStream(rate, sample_rate_hz, 1, dtype="float32", quality="HQ")
        block_samples = max(1, min(_BLOCK_SECONDS * rate, _BLOCK_VALUES // file.channels))
        at = start
        while at < stop:
            block = file.read(min(block_samples, stop - at), dtype="float32", always_2d=True)
            if not len(block):
                break
            at += len(block)
            mono = block.mean(axis=1) if file.channels > 1 else block[:, 0]  # (samples,)
            if not np.isfinite(mono).all():
                raise AudioError("holds NaN or infinite samples")
            yield resampler.resample_chunk(mono, last=False) if resampler else mono
        if at == start:
            raise AudioError("holds no sound (0 samples)")
        if at < stop:
            raise AudioError(f"is truncated ({at - start} of {stop - start} samples are there)")
        if resampler:
            rest = resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            if len(rest):
                yield rest


def cut_or_pad(blocks: Iterator[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The first ``samples`` samples of a stream of blocks, zeros behind its end."""
    left = samples
    for block in blocks:
        if left > 0:
            yield block[:left]
            left -= min(left, len(block))
    if left > 0:
        yield np.zeros(left, dtype=np.float32)


def pad_to_window(blocks: Iterator[np.ndarray], frontend: FrontEnd) -> Iterator[np.ndarray]:
    """A stream of blocks, with zeros behind a sound that is shorter than one window.

    Raises AudioError for less than one analysis window of sound (40 ms by default).
    """
    total = 0
    for block in blocks:
        total += len(block)
        yield block
    if total < frontend.window_samples:
        raise AudioError(f"is too short ({total / frontend.sample_rate_hz * 1000:.0f} ms of sound)")
    if total < frontend.clip_samples:
        yield np.zeros(frontend.clip_samples - total, dtype=np.float32)


def stream_mel_power(blocks: Iterator[np.ndarray], frontend: FrontEnd) -> Iterator[np.ndarray]:
    """Mel power of a stream of mono blocks, as pieces (mels, frames') float64 without gaps."""
    samples = (_FRAMES_AT_ONCE - 1) * frontend.hop_samples + frontend.window_samples
    kept = np.zeros(0, dtype=np.float32)
    at = 0  # start of the next frame, past the end of a block where the hop is the longer
    for block in blocks:
        kept = np.concatenate([kept, block]) if len(kept) else block
        while len(kept) - at >= frontend.window_samples:
            power = mel_power(kept[None, at : at + samples], frontend)[0]  # (mels, frames')
            if not (power < _LARGEST_POWER).all():  # or not a number
                raise AudioError("holds samples too large for a 32-bit power")
            yield power
            at += power.shape[1] * frontend.hop_samples
        kept, at = kept[at:], max(0, at - len(kept))


def stream_windows(
    pieces: Iterator[np.ndarray], frontend: FrontEnd, step: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Windows of a stream of mel power: (first frame of the first, (n, mels, frames)) in order.

    Windows start every ``step`` frames (default: ``window_step``); the last one ends with the
    sound. Memory is bounded by one piece and one window.
    """
    step = step or window_step(frontend)
    size = frontend.frames
    kept = np.zeros((frontend.mels, 0))
    kept_from = following = 0  # frame index of kept[:, 0]; start of the next window
    for piece in pieces:
        kept = np.concatenate([kept, piece], axis=1)
        count = (kept_from + kept.shape[1] - size - following) // step + 1
        if count > 0:
            offset = following - kept_from
            every = np.lib.stride_tricks.sliding_window_view(kept, size, axis=1)
            yield following, every[:, offset::step][:, :count].transpose(1, 0, 2)
            following += count * step
        keep = min(following, kept_from + kept.shape[1] - size) - kept_from
        if keep > 0:
            kept, kept_from = kept[:, keep:].copy(), kept_from + keep
    last = kept_from + kept.shape[1] - size
    if last >= 0 and last != following - step:
        yield last, kept[None, :, last - kept_from :]
