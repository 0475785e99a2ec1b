"""What a data set holds: layout, classes, shares, recordings, durations, silence."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli
from compress.config import DataConfig, DistillConfig
from compress.data.audio import AudioError, read_info
from compress.data.files import counted, list_audio
from compress.data.open import LAYOUTS, find_layout, open_chosen
from compress.data.sets import CODES_PER_DB, ROUNDING_ERROR_DB, SpectrogramSet
from compress.data.splits import make_split
from compress.errors import InputError
from compress.frontend import FLOOR_DB
from compress.next_command import next_command

SILENCE_DB = 0.5
"""A window is silent where no value lies more than this above the -80 dB floor, or above its own
lowest value (some tools write digital silence as 0 dB throughout)."""

_BLOCK_WINDOWS = 4_096


@dataclass(frozen=True)
class Values:
    """What the spectrograms themselves say. ``silent``: (N,) bool, one per window."""

    lowest_db: float
    mean_db: float
    highest_db: float
    floor_share: float
    silent: np.ndarray


@dataclass(frozen=True)
class Durations:
    """Seconds of the sound files, from their headers."""

    files: int
    total: float
    shortest: float
    median: float
    longest: float


def show(config: DataConfig) -> int:
    """Print what ``config.data`` holds."""
    found = inspect(config)
    if config.json:
        cli.say(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for line in lines_of(found):
            cli.say(line)
    return 0


def inspect(config: DataConfig) -> dict[str, Any]:
    """All that is to be said about a data set, as a JSON-able dictionary.

    A set that cannot be split is described all the same, but raises InputError where an option says
    how to split it.
    """
    layout = find_layout(config.data)
    data = open_chosen(config)
    division = _division(config, data)
    values = look_at_values(data)
    has_sound = any(known.sound for known in LAYOUTS if known.name == layout)
    durations = read_durations(Path(config.data)) if has_sound else None
    _, first, of_window = np.unique(data.clip_ids, return_index=True, return_inverse=True)
    windows_per_clip = np.bincount(of_window)
    silent_per_clip = np.bincount(of_window, weights=values.silent)
    silent_clips = silent_per_clip == windows_per_clip
    return {
        "layout": layout,
        "name": data.name,
        "data": config.data,
        "synthetic": data.synthetic,
        "clips": len(first),
        "windows": len(data),
        "recordings": len(np.unique(data.recording_ids)),
        "folds": _folds(data, first),
        "mels": data.mels,
        "frames": data.frames,
        "frontend": data.frontend.to_dict() if data.frontend else None,
        "clip_seconds": data.frontend.clip_seconds if data.frontend else None,
        "classes": _classes(data, first, silent_clips),
        "silent_clips": int(silent_clips.sum()),
        "silent_windows": int(values.silent.sum()),
        "silent_windows_of_others": int(silent_per_clip[~silent_clips].sum()),
        "drop_quiet_db": data.drop_quiet_db,
        "values_db": {
            "lowest": values.lowest_db,
            "mean": values.mean_db,
            "highest": values.highest_db,
            "share_at_lowest": values.floor_share,
            "rounding_error": ROUNDING_ERROR_DB,
        },
        "durations_seconds": vars(durations) if durations else None,
        "split": division,
        "notes": list(data.notes),
        "content_hash": data.content_hash,
        "next": _next(config, division),
    }


def _division(config: DataConfig, data: SpectrogramSet) -> dict[str, Any]:
    """The split that training would take, or why there is none."""
    try:
        split = make_split(
            data, config.data_seed, config.fold, config.folds, config.validation_fold
        )
    except InputError as error:
        if (config.fold, config.folds, config.validation_fold) != (None, None, None):
            raise
        return {"error": str(error)}
    sides = {side: getattr(split, side) for side in _SIDES}
    return {
        "description": split.description,
        **{
            side: {"windows": len(windows), "clips": len(np.unique(data.clip_ids[windows]))}
            for side, windows in sides.items()
        },
    }


def look_at_values(data: SpectrogramSet) -> Values:
    """Range, mean and silence of all spectrograms, block by block."""
    silent = np.zeros(len(data), dtype=bool)
    lowest, highest, total = 32767, -32768, 0
    threshold = round((FLOOR_DB + SILENCE_DB) * CODES_PER_DB)
    at_lowest = 0
    with cli.progress(len(data), "looking at values", "window") as bar:
        for at in range(0, len(data), _BLOCK_WINDOWS):
            block = data.read(slice(at, at + _BLOCK_WINDOWS))
            quietest, loudest = block.min(axis=(1, 2)), block.max(axis=(1, 2))
            silent[at : at + len(block)] = (loudest <= threshold) | (
                loudest.astype(np.int32) - quietest <= SILENCE_DB * CODES_PER_DB
            )
            if quietest.min() < lowest:
                lowest, at_lowest = int(quietest.min()), 0
            at_lowest += int((block == lowest).sum())
            highest = max(highest, int(loudest.max()))
            total += int(block.sum(dtype=np.int64))
            bar.update(len(block))
    return Values(
        lowest_db=lowest / CODES_PER_DB,
        mean_db=total / data.codes.size / CODES_PER_DB,
        highest_db=highest / CODES_PER_DB,
        floor_share=at_lowest / data.codes.size,
        silent=silent,
    )


def read_durations(root: Path) -> Durations | None:
    """Durations of all readable sound files below ``root``, from their headers."""
    files = list_audio(root).audio
    seconds = []
    with cli.progress(len(files), "reading headers", "file") as bar:
        for file in files:
            with contextlib.suppress(AudioError):  # the set's notes name it
                seconds.append(read_info(root / file.name).seconds)
            bar.update()
    if not seconds:
        return None
    return Durations(
        files=len(seconds),
        total=float(np.sum(seconds)),
        shortest=float(np.min(seconds)),
        median=float(np.median(seconds)),
        longest=float(np.max(seconds)),
    )


def _folds(data: SpectrogramSet, first: np.ndarray) -> dict[str, int] | None:
    if data.folds is None:
        return None
    folds, counts = np.unique(data.folds[first], return_counts=True)
    return {str(fold): int(count) for fold, count in zip(folds, counts, strict=True)}


def _classes(
    data: SpectrogramSet, first: np.ndarray, silent_clips: np.ndarray
) -> list[dict[str, Any]]:
    clip_labels = data.labels[first]
    size = len(data.class_names)
    clips = np.bincount(clip_labels, minlength=size)
    windows = np.bincount(data.labels, minlength=size)
    silent = np.bincount(clip_labels, weights=silent_clips, minlength=size)
    recordings = [
        len(np.unique(data.recording_ids[first][clip_labels == label])) for label in range(size)
    ]
    return [
        {
            "name": name,
            "clips": int(clips[i]),
            "share": float(clips[i] / clips.sum()),
            "windows": int(windows[i]),
            "recordings": recordings[i],
            "silent_clips": int(silent[i]),
        }
        for i, name in enumerate(data.class_names)
    ]


def _remedy(found: dict[str, Any]) -> str:
    """What to do about windows of silence in clips that sound elsewhere."""
    if found["drop_quiet_db"] is not None or not found["silent_windows_of_others"]:
        return ""
    return "; --drop-quiet 20 leaves out what lies between the sounds"


def _next(config: DataConfig, division: dict[str, Any]) -> str:
    if "error" in division:
        return "add recordings of the classes named above, then run this again"
    return next_command("distill", DistillConfig, config, student="dsc500", data=config.data)


def lines_of(found: dict[str, Any]) -> list[str]:
    """The dictionary of :func:`inspect` as lines of text."""
    synthetic = " (synthetic)" if found["synthetic"] else ""
    values = found["values_db"]
    lines = [
        f"{found['name']}: layout {found['layout']}{synthetic}",
        f"  clips         {found['clips']:,} in {len(found['classes'])} classes",
        f"  windows       {found['windows']:,} of {found['mels']} bands x {found['frames']} frames",
        f"  recordings    {found['recordings']:,}",
    ]
    if found["folds"]:
        listed = ", ".join(f"{fold}: {count:,}" for fold, count in found["folds"].items())
        lines.append(f"  folds         {listed} clips")
    lines.append(f"  durations     {_durations_line(found)}")
    frontend = found["frontend"]
    if frontend:
        level = (
            "each window's loudest value"
            if frontend["reference"] == "clip"
            else f"{frontend['fixed_reference_db']:g} dB of mel power"
        )
        rate = frontend["sample_rate_hz"]
        lines.append(
            f"  front end     {rate} Hz, {1000 * frontend['window_samples'] / rate:g} ms every "
            f"{1000 * frontend['hop_samples'] / rate:g} ms, {frontend['lowest_hz']:g} to "
            f"{frontend['highest_hz']:g} Hz; 0 dB is {level}"
        )
    else:
        lines.append("  front end     not recorded: the set came as spectrograms")
    lines += [
        f"  values        {values['lowest']:.1f} to {values['highest']:.1f} dB, "
        f"mean {values['mean']:.1f}; {values['share_at_lowest']:.1%} at the lowest",
        f"  rounding      at most {values['rounding_error']:.4f} dB (16-bit fixed point)",
        f"  silent        {counted(found['silent_clips'], 'clip')}, "
        f"{counted(found['silent_windows'], 'window')}{_remedy(found)}",
        "",
    ]
    width = max(5, *(len(row["name"]) for row in found["classes"]))
    lines.append(
        f"  {'class':<{width}} {'clips':>9} {'share':>8} {'windows':>10} "
        f"{'recordings':>10} {'silent':>7}"
    )
    lines += [
        f"  {row['name']:<{width}} {row['clips']:>9,} {row['share']:>8.2%} {row['windows']:>10,} "
        f"{row['recordings']:>10,} {row['silent_clips']:>7,}"
        for row in found["classes"]
    ]
    lines.append("")
    split = found["split"]
    if "error" in split:
        lines.append(f"  split         not possible: {split['error']}")
    else:
        sides = ", ".join(f"{side} {split[side]['clips']:,}" for side in _SIDES)
        lines.append(f"  split         clips: {sides} ({split['description']})")
    lines += [f"  note          {note}" for note in found["notes"]]
    lines += [f"  content hash  {found['content_hash']}", f"Next: {found['next']}"]
    return lines


_SIDES = ("train", "validation", "test")


def _durations_line(found: dict[str, Any]) -> str:
    durations = found["durations_seconds"]
    if durations:
        return (
            f"{durations['total']:,.1f} s in {durations['files']:,} sound files; shortest "
            f"{durations['shortest']:.3f} s, median {durations['median']:.3f} s, "
            f"longest {durations['longest']:.3f} s"
        )
    if found["clip_seconds"]:
        total = found["clip_seconds"] * found["windows"]
        return f"{total:,.1f} s; every clip {found['clip_seconds']:.2f} s"
    return "not recorded: the set came as spectrograms"
