"""The figures of a data set as PNG files, for documents; the page has them as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.exploration import HIGHEST_DB, LOWEST_DB, Axes, Panel, span_of

_DPI = 100
_COLOURS = "magma"
_LEVELS = 192
"""Colours of the scale, 0.4 dB each over 80 dB."""


def save_spectrograms(
    rows: Sequence[Sequence[Panel]], axes: Axes, picture: Path, own_scale: bool = False
) -> None:
    """Spectrograms in rows, with Hz and seconds where they are known. own_scale: that of the
    values, as for means; else -80 to 0 dB."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows)
    colours = colormaps[_COLOURS].resampled(_LEVELS)
    low, high = span_of(rows) if own_scale else (LOWEST_DB, HIGHEST_DB)
    figure = Figure(figsize=(2.7 * columns + 0.9, 1.62 * len(rows) + 0.5), dpi=_DPI,
                    layout="constrained")  # fmt: skip
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for i in range(len(rows)):
        for j in range(columns):
            axis = grid[i][j]
            if j >= len(rows[i]):
                axis.set_visible(False)
                continue
            shown = axis.imshow(
                rows[i][j].values, vmin=low, vmax=high, cmap=colours, origin="lower",
                aspect="auto", interpolation="nearest",
            )  # fmt: skip
            axis.set_title(rows[i][j].title, fontsize=8.5, loc="left", pad=3)
            axis.set_xticks(*zip(*axes.frame_ticks(), strict=True))
            axis.set_yticks(*zip(*axes.band_ticks(), strict=True))
            axis.tick_params(labelsize=7.5, length=2.5)
            below = i + 1 == len(rows) or j >= len(rows[i + 1])
            axis.tick_params(labelbottom=below)
            if below:
                axis.set_xlabel(axes.frame_label, fontsize=8)
            if j == 0:
                axis.set_ylabel(axes.band_label, fontsize=8)
    scale = figure.colorbar(shown, ax=grid, aspect=45, pad=0.015)
    scale.set_label("dB", fontsize=8)
    scale.ax.tick_params(labelsize=7.5)
    _save(figure, picture)


def save_values(figures: Mapping[str, Any], picture: Path) -> None:
    """Values per dB over all classes, the floor as a bar of its own; floor shares by class."""
    from matplotlib.figure import Figure

    counts = figures["histogram"]
    low = counts["lowest_db"]
    bars = [sum(row[i] for row in counts["counts"]) for i in range(len(counts["counts"][0]))]
    at_floor = sum(counts["at_floor"])
    total = max(1, sum(bars) + at_floor)
    figure = Figure(figsize=(9.2, 3.2), dpi=_DPI, layout="constrained")
    values, floors = figure.subplots(1, 2, width_ratios=(1.7, 1))
    places = [low + i + 0.5 for i in range(len(bars))]
    values.bar(places, [100 * bar / total for bar in bars], width=1.0, color="#0b62c4")
    values.bar([low - 1], [100 * at_floor / total], width=0.9, color="#b3541e")
    values.annotate(
        f"{100 * at_floor / total:.1f} % at {low:g} dB", (low - 1, 100 * at_floor / total),
        xytext=(6, -4), textcoords="offset points", color="#b3541e", fontsize=9, va="top",
    )  # fmt: skip
    values.set_xlabel("dB")
    values.set_ylabel("share of all values (%)")
    known = [row for row in figures["classes"] if row["share_at_floor"] is not None]
    names = [row["name"] for row in known]
    shares = [100 * row["share_at_floor"] for row in known]
    drawn = floors.barh(range(len(names)), shares, color="#b3541e", height=0.6)
    floors.bar_label(drawn, [f"{share:.2f}" for share in shares], padding=3, fontsize=8.5)
    floors.set_yticks(range(len(names)), names)
    floors.invert_yaxis()
    floors.set_xlim(0, 1.2 * max([*shares, 1e-9]))
    floors.set_xlabel(f"bins at {low:g} dB (%)")
    for axis in (values, floors):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, format="png")


def _save(figure: Any, picture: Path) -> None:
    """As PNG with the colours of the scale and greys for the words: half the bytes."""
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    scale = colormaps[_COLOURS].resampled(_LEVELS)(np.arange(_LEVELS), bytes=True)[:, :3]
    greys = np.linspace(0, 255, 256 - _LEVELS).astype(np.uint8)[:, None].repeat(3, axis=1)
    palette = np.concatenate([scale, greys])
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    pixels = np.asarray(Image.open(drawn).convert("RGB"))
    found, which = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    distances = np.square(found[:, None].astype(int) - palette.astype(int)).sum(-1)
    nearest = distances.argmin(1).astype(np.uint8)[which.reshape(pixels.shape[:2])]
    image = Image.fromarray(nearest)
    image.putpalette(palette.ravel().tolist())
    image.save(picture, format="png", optimize=True)
