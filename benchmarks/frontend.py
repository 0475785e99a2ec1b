"""Front end: hours of 16 kHz audio per minute on one core, ours against librosa, in one run.

    python benchmarks/frontend.py

Both compute 32-band log-mel spectrograms in dB of the same noise, one thread each, in turns; the
fastest of several rounds counts. Ours takes windows of 1.94 s in batches, as the readers do for
scenes, and whole files of 60 s, as they do for sound files; librosa takes the files.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import librosa  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from compress.data.audio import stream_mel_power  # noqa: E402
from compress.frontend import FrontEnd, log_mel, power_to_db  # noqa: E402

ROUNDS = 7
FILES, FILE_SECONDS = 10, 60


def by_readers(waveform: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    power = list(stream_mel_power(iter([waveform]), frontend))
    return power_to_db(np.concatenate(power, axis=1), frontend)


def by_librosa(waveform: np.ndarray, frontend: FrontEnd) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=frontend.sample_rate_hz,
        n_fft=frontend.fft_size,
        win_length=frontend.window_samples,
        hop_length=frontend.hop_samples,
        center=False,
        n_mels=frontend.mels,
        fmin=frontend.lowest_hz,
        fmax=frontend.highest_hz,
    )
    return librosa.power_to_db(power, ref=np.max, top_db=80.0)


def hours_per_minute(work: Callable[[], object], audio_seconds: float) -> float:
    began = time.perf_counter()
    work()
    return audio_seconds / (time.perf_counter() - began) / 60


def main() -> None:
    torch.set_num_threads(1)
    frontend = FrontEnd()
    noise = np.random.default_rng(0).normal(0, 0.1, (FILES, FILE_SECONDS * 16_000))
    files = noise.astype(np.float32)
    per_file = files.shape[1] // frontend.clip_samples
    windows = files[:, : per_file * frontend.clip_samples].reshape(-1, frontend.clip_samples)
    ways: dict[str, tuple[Callable[[], object], float]] = {
        "ours, files of 60 s": (
            lambda: [by_readers(file, frontend) for file in files],
            files.size / 16_000,
        ),
        "ours, windows of 1.94 s in fours": (
            lambda: [log_mel(windows[at : at + 4], frontend) for at in range(0, len(windows), 4)],
            windows.size / 16_000,
        ),
        "librosa, files of 60 s": (
            lambda: [by_librosa(file, frontend) for file in files],
            files.size / 16_000,
        ),
    }
    for work, _ in ways.values():
        work()  # first calls compile and plan
    best = dict.fromkeys(ways, 0.0)
    for _ in range(ROUNDS):
        for name, (work, seconds) in ways.items():
            best[name] = max(best[name], hours_per_minute(work, seconds))
    print(f"hours of 16 kHz audio per minute and core, best of {ROUNDS} rounds, one thread")
    for name, hours in best.items():
        print(f"  {name:<34} {hours:6.1f}")
    names = list(ways)
    for name in names[:2]:
        print(f"  {name} / librosa: {best[name] / best[names[2]]:.2f}")


if __name__ == "__main__":
    main()
