"""The sound behind windows of a set: made or read again, and checked against the spectrograms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.audio import cut_or_pad, pad_to_window, read_blocks, window_starts
from compress.data.clips import Clip, loud_enough, plan
from compress.data.open import LAYOUTS, find_layout
from compress.data.sets import SpectrogramSet, encode_db, is_synthetic
from compress.data.splits import Split
from compress.errors import InputError
from compress.frontend import FrontEnd, log_mel, mel_power

# One step of Q8.8 is 0.004 dB; sums in another order move a level by less.
_MOST_STEPS_APART = 16
_SCENE_BATCH = 16


class OtherSynthesis(InputError):
    """The synthesiser has changed since the spectrograms of a set were made."""


def window_waveforms(
    data: SpectrogramSet, windows: np.ndarray, spec: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(some of ``windows``, their sound (n, clip_samples) float32 in -1..1), all of them in order.

    spec: what ``--data`` would be. seed: of synthetic scenes. windows must ascend. Raises
    InputError where the sound does not give the spectrograms of ``data``.
    """
    frontend = data.frontend
    if frontend is None:
        raise InputError(f"{data.name}: came as spectrograms, so there is no sound behind it")
    if is_synthetic(spec):
        pieces = _scenes(data, windows, frontend, seed)
    else:
        pieces = _files(data, windows, frontend, Path(spec).expanduser())
    for rows, waveforms in pieces:
        _check(data, rows, waveforms, frontend, spec)
        yield rows, waveforms


def scene_seed(split: Split) -> int:
    """``--data-seed``, with which the split was drawn too; the sound tells where it is wrong."""
    found = re.search(r"\bseed (\d+)", split.description)
    return int(found[1]) if found else 0


def _check(
    data: SpectrogramSet, rows: np.ndarray, waveforms: np.ndarray, frontend: FrontEnd, spec: str
) -> None:
    codes = encode_db(log_mel(waveforms, frontend)).astype(np.int32)
    if np.abs(codes - data.read(rows)).max() > _MOST_STEPS_APART:
        if data.synthetic and is_synthetic(spec):
            raise OtherSynthesis(
                f"{spec}: the synthesiser makes other sound today than that of the spectrograms in "
                "the cache, which the run was made on; train again, or use the version of the "
                "workbench that made the run"
            )
        raise InputError(
            f"{spec}: its sound is not that of the spectrograms in the cache, which the run was "
            "made on; give the data set of the run with --data"
        )


def _scenes(
    data: SpectrogramSet, windows: np.ndarray, frontend: FrontEnd, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from compress.data.scenes import scene_clip

    for at in range(0, len(windows), _SCENE_BATCH):
        rows = windows[at : at + _SCENE_BATCH]
        clips = [scene_clip(seed, int(data.clip_ids[row]), frontend) for row in rows]
        yield rows, np.stack([clip.waveform for clip in clips])


def _files(
    data: SpectrogramSet, windows: np.ndarray, frontend: FrontEnd, root: Path
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    found = _clips(data, frontend, root)
    pieces: dict[int, list[Clip]] = {}
    for job in plan(root, found["clips"]):
        for clip in job:
            pieces.setdefault(clip.clip, []).append(clip)
    for clip_id in dict.fromkeys(data.clip_ids[windows].tolist()):
        of_clip = np.flatnonzero(data.clip_ids == clip_id)
        sound = _windows(
            pieces.get(clip_id, []), root, frontend, found.get("seconds"), data.drop_quiet_db
        )
        if len(sound) != len(of_clip):
            raise InputError(
                f"{root}: clip {clip_id} gives {len(sound)} windows, the set has {len(of_clip)}; "
                "give the data set of the run with --data"
            )
        wanted = np.isin(of_clip, windows)
        yield of_clip[wanted], sound[wanted]


def _clips(data: SpectrogramSet, frontend: FrontEnd, root: Path) -> dict[str, Any]:
    """The clips that the set was read from, with what its reader says of them."""
    layout = find_layout(str(root))
    readers = {known.name: known.read for known in LAYOUTS if known.sound}
    if layout not in readers:
        raise InputError(f"{root}: holds no sound ({layout})")
    for five in (False, True):
        found = readers[layout](root, name=data.name, frontend=frontend, build=dict, five=five)
        if tuple(found["class_names"]) == data.class_names:
            return found
    raise InputError(
        f"{root}: has other classes than the run ({', '.join(data.class_names[:5])}); "
        "give the data set of the run with --data"
    )


def _windows(
    pieces: list[Clip],
    root: Path,
    frontend: FrontEnd,
    seconds: float | None,
    drop_quiet_db: float | None,
) -> np.ndarray:
    """Sound of every window of one clip that the set holds, (n, clip_samples)."""
    found = []
    for clip in pieces:
        path = root / clip.file.name
        blocks = read_blocks(path, frontend.sample_rate_hz, clip.start, clip.stop or None)
        if seconds is not None:
            blocks = cut_or_pad(blocks, round(seconds * frontend.sample_rate_hz))
        wave = np.concatenate(list(pad_to_window(blocks, frontend)))
        frames = 1 + (len(wave) - frontend.window_samples) // frontend.hop_samples
        starts = np.array(window_starts(frames, frontend)) * frontend.hop_samples
        if drop_quiet_db is not None:
            power = mel_power(wave[None], frontend)[0]
            every = np.lib.stride_tricks.sliding_window_view(power, frontend.frames, axis=1)
            of_windows = every[:, starts // frontend.hop_samples].transpose(1, 0, 2)
            starts = starts[loud_enough(of_windows.mean(axis=(1, 2)), drop_quiet_db)]
        found += [wave[at : at + frontend.clip_samples] for at in starts.tolist()]
    return np.stack(found) if found else np.zeros((0, frontend.clip_samples), dtype=np.float32)
