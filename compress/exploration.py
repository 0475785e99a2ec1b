"""Figures of a data set, for its page: tables, histograms, means, examples, duplicates.

Everything is read in blocks, so that a set may be larger than the memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from compress import cli
from compress.data.sets import CODES_PER_DB, SpectrogramSet, decode_db
from compress.data.splits import Split
from compress.duplicates import Duplicates
from compress.frontend import FLOOR_DB, mel_band_centres_hz
from compress.recipe import Augmentation
from reports.exploration import Axes, Panel

SIDES = ("train", "validation", "test")
_BLOCK = 4_096
_MOST_LISTED = 200


def axes_of(data: SpectrogramSet) -> Axes:
    """Hz and seconds of bands and frames; without them where the set came as spectrograms."""
    frontend = data.frontend
    if frontend is None:
        return Axes(data.mels, data.frames)
    centres = mel_band_centres_hz(frontend)
    return Axes(data.mels, data.frames, tuple(map(float, centres)), frontend.hop_seconds)


def class_figures(data: SpectrogramSet) -> dict[str, Any]:
    """Clips, windows, floor and level of each class; a histogram of values; mean spectrograms.

    ``histogram``: values per dB from ``lowest_db`` on, by class (classes, bins); what lies at
    the -80 dB floor is counted apart, ``at_floor`` (classes,). ``means``: (classes, mels, frames).
    """
    classes = len(data.class_names)
    floor = round(FLOOR_DB * CODES_PER_DB)
    bins = int(-FLOOR_DB) + 1  # one per dB, the last for 0 dB and above
    histogram = np.zeros((classes, bins), dtype=np.int64)
    at_floor = np.zeros(classes, dtype=np.int64)
    sums = np.zeros((classes, data.mels, data.frames))
    silent = np.zeros(len(data), dtype=bool)
    with cli.progress(len(data), "reading values", "window") as bar:
        for at in range(0, len(data), _BLOCK):
            codes = data.read(slice(at, at + _BLOCK))
            labels = data.labels[at : at + _BLOCK]
            lowest = codes <= floor
            silent[at : at + len(codes)] = lowest.all(axis=(1, 2))
            places = np.clip((codes.astype(np.int32) - floor) // CODES_PER_DB, 0, bins - 1)
            for label in np.unique(labels[labels >= 0]):
                rows = labels == label
                sums[label] += codes[rows].sum(axis=0, dtype=np.int64)
                found = lowest[rows]
                at_floor[label] += found.sum()
                histogram[label] += np.bincount(places[rows][~found], minlength=bins)
            bar.update(len(codes))
    windows = np.bincount(data.labels[data.labels >= 0], minlength=classes)
    _, first = np.unique(data.clip_ids, return_index=True)
    known = first[data.labels[first] >= 0]
    clips = np.bincount(data.labels[known], minlength=classes)
    values = windows * data.mels * data.frames
    means = sums / np.maximum(windows, 1)[:, None, None] / CODES_PER_DB
    rows = [
        {
            "name": name,
            "clips": int(clips[i]),
            "share": float(clips[i] / max(1, clips.sum())),
            "windows": int(windows[i]),
            "recordings": len(np.unique(data.recording_ids[data.labels == i])),
            "silent_windows": int(silent[data.labels == i].sum()),
            "share_at_floor": float(at_floor[i] / values[i]) if values[i] else None,
            "mean_db": float(means[i].mean()) if windows[i] else None,
        }
        for i, name in enumerate(data.class_names)
    ]
    return {
        "classes": rows,
        "clips": int(clips.sum()),
        "windows": len(data),
        "share_at_floor": float(at_floor.sum() / max(1, values.sum())),
        "histogram": {
            "lowest_db": FLOOR_DB,
            "counts": histogram.tolist(),
            "at_floor": at_floor.tolist(),
        },
        "mean_spectrograms_db": means,
    }


def examples(data: SpectrogramSet, count: int, seed: int) -> list[list[Panel]]:
    """``count`` windows of each class that are not silent, drawn by ``seed``."""
    generator = np.random.default_rng([seed, 0xE7])
    rows = []
    for label, name in enumerate(data.class_names):
        windows = generator.permutation(np.flatnonzero(data.labels == label))[: 20 * count]
        loud = [w for w in windows if data.codes[w].max() > (FLOOR_DB + 1) * CODES_PER_DB][:count]
        rows.append([Panel(f"{name}, window {w:,}", decode_db(data.codes[w])) for w in loud])
    return [row for row in rows if row]


def describe_duplicates(
    data: SpectrogramSet, found: Duplicates, split: Split | None
) -> dict[str, Any]:
    """Counts within and across the sides of the split, and the closest pairs, across ones first."""
    side = np.full(len(data), -1)
    if split is not None:
        for number, name in enumerate(SIDES):
            side[getattr(split, name)] = number
    exact = found.exact_pairs()

    def across(pairs: np.ndarray) -> np.ndarray:
        sides = side[pairs]
        return (sides[:, 0] != sides[:, 1]) & (sides >= 0).all(axis=1)

    def listed(pairs: np.ndarray, distances: np.ndarray) -> list[dict[str, Any]]:
        order = np.argsort(~across(pairs), kind="stable")[:_MOST_LISTED]
        return [
            {
                "windows": pairs[i].tolist(),
                "classes": [_class_of(data, w) for w in pairs[i]],
                "recordings": data.recording_ids[pairs[i]].tolist(),
                "sides": [SIDES[s] if s >= 0 else None for s in side[pairs[i]]],
                "distance_db": round(float(distances[i]), 3),
            }
            for i in order
        ]

    labels = data.labels[np.concatenate([exact, found.near])]
    return {
        "distance": "root mean square of dB over bins in which either window is audible",
        "threshold_db": found.threshold_db,
        "quiet_windows": len(found.quiet),
        "exact_pairs": len(exact),
        "exact_across_sides": int(across(exact).sum()) if split else None,
        "near_pairs": found.found,
        "near_across_sides": int(across(found.near).sum()) if split else None,
        "near_kept": len(found.near),
        "other_label": int((labels[:, 0] != labels[:, 1]).sum()),
        "exact": listed(exact, np.zeros(len(exact))),
        "near": listed(found.near, found.distances),
    }


def _class_of(data: SpectrogramSet, window: int) -> str | None:
    label = int(data.labels[window])
    return data.class_names[label] if label >= 0 else None


def augmented(data: SpectrogramSet, split: Split, seed: int) -> list[tuple[str, str, list[Panel]]]:
    """(name, sentence, a window of each of three classes) as they are, then under every change.

    Each change is drawn with probability 1, as training draws it, and shown in dB again.
    """
    import torch

    from compress.material import Material, measure_normalisation

    normalisation = measure_normalisation(data, split.train)
    generator = np.random.default_rng([seed, 0xA6])
    _, next_ones = np.unique(data.clip_ids[split.train], return_inverse=True)
    follows = np.append(next_ones[1:] == next_ones[:-1], False)  # the clip goes on: crop shows
    chosen: list[int] = []
    for label in generator.permutation(np.unique(data.labels[split.train]))[:3]:
        of_class = data.labels[split.train] == label
        places = np.flatnonzero(of_class & follows)
        places = places if len(places) else np.flatnonzero(of_class)
        chosen.append(int(generator.choice(places)))
    positions = torch.tensor(sorted(chosen))
    titles = [data.class_names[data.labels[split.train[p]]] for p in positions.tolist()]
    rows = []
    changes = [spec for spec in dataclasses.fields(Augmentation) if "probability" in spec.name]
    for spec in (None, *changes):
        settings = Augmentation(**({spec.name: 1.0} if spec else {}))
        material = Material(
            [(data, split.train)], len(data.class_names), normalisation, settings, seed
        )
        x, targets = material.view(positions, 0)
        decibels = normalisation.invert(x[:, 0]).numpy()
        panels = [
            Panel(_told(title, target, data.class_names), window)
            for title, target, window in zip(titles, targets, decibels, strict=True)
        ]
        name = spec.name.removesuffix("_probability").replace("_", " ") if spec else "as recorded"
        sentence = spec.metadata["help"] if spec else "no change"
        if spec and spec.name == "time_crop_probability" and not material.croppable:
            sentence += " (nothing here: no clip of this set has a second window)"
        rows.append((name, sentence, panels))
    return rows


def _told(title: str, target: Any, names: tuple[str, ...]) -> str:
    """The class, or the shares of a mixed label."""
    shares = [(float(share), names[i]) for i, share in enumerate(target) if share > 0.005]
    if len(shares) < 2:
        return title
    return ", ".join(f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True))

