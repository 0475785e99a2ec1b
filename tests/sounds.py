"""Sound files for tests: tones and noise, written with soundfile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000


def tone(hz: float, seconds: float, rate_hz: int = RATE_HZ, amplitude: float = 0.3) -> np.ndarray:
    """A sine with a little noise, (samples,) float32."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(int(hz)).normal(0, 1e-3, len(times))
    return (amplitude * np.sin(2 * np.pi * hz * times) + noise).astype(np.float32)


def write(path: Path, waveform: np.ndarray, rate_hz: int = RATE_HZ, **options: str) -> Path:
    """Write a file whose format follows its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate_hz, **options)
    return path


def truncate(path: Path, share: float = 0.5) -> Path:
    """Keep only the first part of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    return path


def class_folders(root: Path, per_class: int = 4, seconds: float = 2.2) -> Path:
    """Two classes in all the formats: low and high tones."""
    for label, hz in (("low", 300), ("high", 3000)):
        for i in range(per_class):
            ending = ("wav", "flac", "ogg")[i % 3]
            write(root / label / f"{i}.{ending}", tone(hz + 10 * i, seconds))
    return root


def esc50_layout(root: Path, categories: tuple[str, ...] = ("dog", "rain"), folds: int = 5) -> Path:
    """Two clips per category and fold, of 4.5 s and 5.5 s."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for target, category in enumerate(categories):
        for fold in range(1, folds + 1):
            for take, seconds in (("A", 4.5), ("B", 5.5)):
                source = 1000 * target + fold
                name = f"{fold}-{source}-{take}-{target * 3}.wav"
                write(root / "audio" / name, tone(200 + 400 * target + 20 * fold, seconds))
                rows.append(f"{name},{fold},{target * 3},{category},True,{source},{take}")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root
