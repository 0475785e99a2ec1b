"""Small data for tests: sets that a network can learn in seconds, and one run made from them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")

CLASSES = ("other", "music", "human voice", "engine sounds", "alarm")


def band_spectrograms(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count, 32, 96) float32 dB and labels: each class is loud in bands of its own."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 5
    spectrograms = generator.normal(-55, 8, (count, 32, 96)).astype(np.float32)
    for row, label in enumerate(labels):
        spectrograms[row, 6 * label : 6 * label + 4] += 25
    return np.clip(spectrograms, -80, 0), labels


def write_npy_pair(folder: Path, count: int = 200, seed: int = 0) -> Path:
    """A data set in the report's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    spectrograms, labels = band_spectrograms(count, seed)
    np.save(folder / "training.npy", spectrograms)
    np.save(folder / "training_labels.npy", labels)
    return folder


def command_that_comes_next(printed: str, module: str, options: type) -> Any:
    """What the last line gives the command ``module``, read as a shell and its parser would."""
    from compress.config import parse

    words = shlex.split(printed.rstrip().rpartition("Next: ")[2])
    assert words[:3] == ["python", "-m", f"compress.{module}"]
    return parse(options, words[3:], "", "")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's cache."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def npy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npy_pair(tmp_path_factory.mktemp("npy") / "bands")


@pytest.fixture(scope="session")
def finished_run(npy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of audiobot50, trained for two epochs on the small set."""
    from compress import cli, train
    from compress.config import TrainConfig

    root = tmp_path_factory.mktemp("finished")
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    out = root / "audiobot50"
    arguments = ["--student", "audiobot50", "--data", str(npy_data), "--epochs", "2"]
    arguments += ["--batch-size", "32", "--out", str(out), "--workers", "1"]
    assert cli.main(TrainConfig, train.run, "", arguments) == 0
    return out
