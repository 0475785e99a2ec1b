"""The page of a data set: what lies in it, as tables, spectrograms and figures with their axes.

Spectrograms are pictures within the page; axes, scales and words around them are SVG.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from reports import svg, tables
from reports.html import document
from reports.records import plain

LOWEST_DB, HIGHEST_DB = -80.0, 0.0
_COLOURS = "magma"
_MOST_ROWS = 20
_TICKS_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True)
class Axes:
    """Bands and frames of a spectrogram; centres (Hz) and hop (s) where they are known."""

    mels: int
    frames: int
    centres_hz: tuple[float, ...] | None = None
    hop_seconds: float | None = None

    @property
    def known(self) -> bool:
        return self.centres_hz is not None and self.hop_seconds is not None

    def band_ticks(self) -> list[tuple[float, str]]:
        """(band, words) of the vertical axis; a band may lie between two."""
        if self.centres_hz is None:
            return [(tick, f"{tick:g}") for tick in svg.linear_ticks(0, self.mels - 1, 4)]
        ticks = []
        for hz in _TICKS_HZ:
            if self.centres_hz[0] <= hz <= self.centres_hz[-1]:
                words = f"{hz / 1000:g} k" if hz >= 1000 else f"{hz}"
                ticks.append((_place(self.centres_hz, hz), words))
        kept: list[tuple[float, str]] = []
        for tick in reversed(ticks):  # from the top, where bands are wide, with room for words
            if not kept or kept[-1][0] - tick[0] >= self.mels / 8:
                kept.append(tick)
        return kept[::-1]

    def frame_ticks(self) -> list[tuple[float, str]]:
        """(frame, words) of the horizontal axis."""
        if self.hop_seconds is None:
            return [(tick, f"{tick:g}") for tick in svg.linear_ticks(0, self.frames, 4)]
        seconds = self.frames * self.hop_seconds
        return [(t / self.hop_seconds, f"{t:g}") for t in svg.linear_ticks(0, seconds, 4)]

    @property
    def band_label(self) -> str:
        return "Hz" if self.known else "mel band"

    @property
    def frame_label(self) -> str:
        return "s" if self.known else "frame"


def _place(centres: Sequence[float], hz: float) -> float:
    """Where a frequency lies between the centres of bands, as a band number."""
    for band in range(len(centres) - 1):
        low, high = centres[band], centres[band + 1]
        if low <= hz <= high:
            return band + (hz - low) / (high - low)
    return float(len(centres) - 1)


@dataclass(frozen=True)
class Panel:
    """One spectrogram: values (mels, frames) in dB."""

    title: str
    values: Any


@dataclass(frozen=True)
class Exploration:
    """Everything that the page shows. figures, duplicates: as in explore.json."""

    name: str
    synthetic: bool
    axes: Axes
    figures: Mapping[str, Any]
    duplicates: Mapping[str, Any]
    split: str | None
    examples: Sequence[Sequence[Panel]]
    means: Sequence[Panel]
    augmentations: Sequence[tuple[str, str, Sequence[Panel]]] = ()
    notes: Sequence[str] = ()
    made: str = ""


# --- the page ------------------------------------------------------------------------------------


def page(found: Exploration) -> str:
    """The text of explore.html."""
    body = [
        f"<h1>{_text(found.name)}</h1>",
        f'<p class="lead">{_lead(found)}</p>',
        _tiles(found),
        _notes(found.notes),
        "<h2>Classes</h2>",
        _class_table(found.figures["classes"]),
        "<h2>Spectrograms</h2>",
        _figure(
            grid(found.examples, found.axes, "spectrograms of each class"),
            "<b>Spectrograms of each class</b>, drawn at random among windows that are not silent. "
            f"{_axis_words(found.axes)} All pictures have one scale.",
        ),
        "<h2>Values</h2>",
        '<div class="pair">'
        + _figure(
            histogram(found.figures["histogram"]),
            "<b>Values of all windows</b>, in steps of 1 dB. What lies at the -80 dB floor is the "
            "bar of its own on the left: "
            f"{tables.percent(found.figures['share_at_floor'])} of all values.",
        )
        + _figure(
            floor_shares(found.figures["classes"]),
            "<b>Share of bins at the -80 dB floor</b>, by class.",
        )
        + "</div>",
        "<h2>Mean spectrograms</h2>",
        _figure(
            grid(in_rows(found.means, 3), found.axes, "mean spectrogram of each class", span_of),
            "<b>Mean of all windows of a class</b>, in dB. The scale is that of the means, which "
            "span less than single windows.",
        ),
        _duplicates(found),
        _augmentations(found),
        _footer(),
    ]
    return document(f"{found.name}: a look at the data", body)


def _text(words: object) -> str:
    return escape(plain(words), quote=True)


def _lead(found: Exploration) -> str:
    axes = found.axes
    made = f" Made {_text(found.made)}." if found.made else ""
    kind = " These sounds are <b>synthetic</b>." if found.synthetic else ""
    size = f"{found.figures['windows']:,} windows of {axes.mels} mel bands x {axes.frames} frames"
    if axes.hop_seconds is not None:
        size += f" ({axes.frames * axes.hop_seconds:.2f} s)"
    return f"{size}. Split: {_text(found.split or 'not possible')}.{kind}{made}"


def _axis_words(axes: Axes) -> str:
    if axes.known:
        return "Vertical: centre of the mel band in Hz. Horizontal: seconds."
    return (
        "The set came as spectrograms, so Hz and seconds are not known: bands and frames are "
        "numbered (--frontend FILE says how they were made)."
    )


def _tiles(found: Exploration) -> str:
    near = found.duplicates
    crossing = (
        "no split"
        if near["near_across_sides"] is None
        else f"{near['exact_across_sides'] + near['near_across_sides']:,} across sides of the split"
    )
    tiles = (
        ("clips", f"{found.figures['clips']:,}", f"{len(found.figures['classes'])} classes"),
        (
            "values at the -80 dB floor",
            tables.percent(found.figures["share_at_floor"]),
            f"{near['quiet_windows']:,} windows are nearly silent",
        ),
        ("pairs of duplicates", f"{near['exact_pairs'] + near['near_pairs']:,}", crossing),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span>{_text(what)}</span><b>{_text(number)}</b>'
            f"<span>{_text(more)}</span></div>"
            for what, number, more in tiles
        )
        + "</div>"
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    listed = "".join(f"<li>{_text(note)}</li>" for note in notes[:200])
    return f'<details class="notes" open><summary>Notes</summary><ul>{listed}</ul></details>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A table of the page: the first columns are words, the others numbers."""

    def kind(column: int) -> str:
        return "" if column < text_columns else ' class="n"'

    heads = "".join(f"<th{kind(i)}>{_text(cell)}</th>" for i, cell in enumerate(head))
    lines = "".join(
        "<tr>" + "".join(f"<td{kind(i)}>{_text(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


CLASS_HEAD = (
    "class",
    "clips",
    "share",
    "windows",
    "recordings",
    "silent windows",
    "at -80 dB",
    "mean",
)


def class_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A class under CLASS_HEAD."""
    level = row["mean_db"]
    return (
        plain(row["name"]),
        f"{row['clips']:,}",
        tables.percent(row["share"], 2),
        f"{row['windows']:,}",
        f"{row['recordings']:,}",
        f"{row['silent_windows']:,}",
        tables.percent(row["share_at_floor"]),
        tables.MISSING if level is None else f"{level:.1f} dB",
    )


def _class_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(CLASS_HEAD, [class_cells(row) for row in rows])


def _figure(drawing: str, caption: str) -> str:
    if not drawing:
        return ""
    return (
        f'<figure class="card"><div class="draw">{drawing}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _duplicates(found: Exploration) -> str:
    near = found.duplicates
    sides = (
        f" {near['exact_across_sides']:,} exact and {near['near_across_sides']:,} near pairs have "
        "their windows on different sides of the split."
        if near["near_across_sides"] is not None
        else ""
    )
    words = (
        f"{near['exact_pairs']:,} pairs of windows are the same and {near['near_pairs']:,} more "
        f"nearly: within {near['threshold_db']:g} dB, {_text(near['distance'])}.{sides} "
        f"{near['quiet_windows']:,} windows are so nearly silent that all of them are alike; they "
        "are left out. Copies that start some frames later are not found this way."
    )
    rows = [
        (
            " and ".join(f"{w:,}" for w in pair["windows"]),
            _both(pair["classes"]),
            _both(pair["sides"]),
            _both(pair["recordings"]),
            "same" if kind == "exact" else f"{pair['distance_db']:.2f} dB",
        )
        for kind in ("exact", "near")
        for pair in near[kind]
    ]
    left = len(rows) - _MOST_ROWS
    head = ("windows", "class", "side", "recording", "distance")
    shown = table(head, rows[:_MOST_ROWS], 4) if rows else ""
    if left > 0:
        shown += f'<p class="more">Further pairs in explore.json ({left:,} more listed there).</p>'
    return f"<h2>Duplicates</h2><p>{words}</p>{shown}"


def _both(values: Sequence[Any]) -> str:
    words = [tables.MISSING if value is None else str(value) for value in values]
    return words[0] if words[0] == words[1] else " and ".join(words)


def _augmentations(found: Exploration) -> str:
    if not found.augmentations:
        return ""
    rows = [panels for _, _, panels in found.augmentations]
    labels = [name for name, _, _ in found.augmentations]
    listed = "".join(
        f"<li><b>{_text(name)}</b>: {_text(sentence)}</li>"
        for name, sentence, _ in found.augmentations
    )
    return (
        "<h2>Augmentations</h2>"
        + _figure(
            grid(rows, found.axes, "each augmentation on clips of the set", labels=labels),
            "<b>Each augmentation on three training clips</b>, drawn with probability 1 and else "
            "as training draws it; mixed labels stand above the picture. Values that were changed "
            "in standardised units (noise, style, masks) are shown in dB again.",
        )
        + f"<ul>{listed}</ul>"
    )


def _footer() -> str:
    return (
        "<footer><ul><li>Clips are labelled units, windows single spectrograms, recordings what "
        "clips were cut from.</li><li>0 dB is what the set's front end says: each window's loudest "
        "bin, or a fixed level.</li><li>Numbers of this page, and every listed pair, stand in "
        "explore.json.</li></ul></footer>"
    )


# --- figures -------------------------------------------------------------------------------------


def picture(values: Any, low: float = LOWEST_DB, high: float = HIGHEST_DB) -> str:
    """A spectrogram (mels, frames) as a PNG data address, the lowest band at the bottom."""
    from matplotlib import image

    file = io.BytesIO()
    without: dict[str, Any] = {"Software": None}  # no version of matplotlib in the file
    image.imsave(
        file, values, vmin=low, vmax=high, cmap=_COLOURS, origin="lower", format="png",
        metadata=without,
    )  # fmt: skip
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _placed(address: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<image href="{address}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" preserveAspectRatio="none" style="image-rendering:pixelated"/>'
    )


def _whole(rows: Sequence[Sequence[Panel]]) -> tuple[float, float]:
    return LOWEST_DB, HIGHEST_DB


def span_of(rows: Sequence[Sequence[Panel]]) -> tuple[float, float]:
    """Round ends around all values."""
    low = min(float(panel.values.min()) for row in rows for panel in row)
    high = max(float(panel.values.max()) for row in rows for panel in row)
    return 5 * math.floor(low / 5), max(5 * math.ceil(high / 5), 5 * math.floor(low / 5) + 5)


def in_rows(panels: Sequence[Panel], columns: int) -> list[Sequence[Panel]]:
    return [panels[at : at + columns] for at in range(0, len(panels), columns)]


def grid(
    rows: Sequence[Sequence[Panel]],
    axes: Axes,
    label: str,
    scale: Any = _whole,
    labels: Sequence[str] = (),
) -> str:
    """Spectrograms in rows with axes, and the scale of colours below; '' where there is none."""
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        return ""
    width, height, gap, step = 250.0, 112.0, 16.0, 172.0
    left, top = 56.0, 36.0
    extra = 20.0 if labels else 0.0
    step += extra
    low, high = scale(rows)
    parts: list[str] = []
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            x0, y0 = left + j * (width + gap), top + i * step + extra
            words = svg.shortened(panel.title, 36)
            parts.append(svg.text(x0, y0 - 7, words, "tick"))
            parts.append(_placed(picture(panel.values, low, high), x0, y0, width, height))
            for frame, tick in axes.frame_ticks():
                at = x0 + width * frame / axes.frames
                parts.append(svg.line(at, y0 + height, at, y0 + height + 4, "axis"))
                parts.append(svg.text(at, y0 + height + 17, tick, "tick", "middle"))
            parts.append(
                svg.text(x0 + width, y0 + height + 31, axes.frame_label, "label", "end")
            )
            if j == 0:
                for band, tick in axes.band_ticks():
                    at = y0 + height * (1 - (band + 0.5) / axes.mels)
                    parts.append(svg.line(x0 - 4, at, x0, at, "axis"))
                    parts.append(svg.text(x0 - 7, at + 4.5, tick, "tick", "end"))
                parts.append(svg.text(x0 - 8, y0 - 7, axes.band_label, "label", "end"))
        if labels:
            parts.append(svg.text(left, top + i * step - 8, labels[i], "name"))
    bottom = top + len(rows) * step
    parts += _colour_scale(left, bottom - 4, low, high)
    total = left + columns * (width + gap)
    return svg.drawing(total, bottom + 34, label, parts)


def _colour_scale(x: float, y: float, low: float, high: float) -> list[str]:
    import numpy as np

    width, height = 250.0, 12.0
    parts = [_placed(picture(np.linspace(low, high, 128)[None], low, high), x, y, width, height)]
    for tick in svg.linear_ticks(low, high, 5):
        at = x + width * (tick - low) / (high - low)
        parts.append(svg.text(at, y + height + 15, f"{tick:g}", "tick", "middle"))
    parts.append(svg.text(x + width + 20, y + height, "dB", "label"))
    return parts


def histogram(counts: Mapping[str, Any]) -> str:
    """Values per dB over all classes, what lies at the floor as a bar of its own."""
    by_class = counts["counts"]
    bars = [sum(row[i] for row in by_class) for i in range(len(by_class[0]))]
    at_floor = sum(counts["at_floor"])
    total = sum(bars) + at_floor
    if not total:
        return ""
    width, height = 440.0, 320.0
    low = counts["lowest_db"]
    shares = [bar / total for bar in bars]
    while len(shares) > 80 and shares[-1] == 0:
        shares.pop()
    most = max(*shares, at_floor / total)
    x = svg.Scale(low - 2, low + len(shares), 56, width - 12)
    y = svg.Scale(0, 1.06 * most, height - 48, 30)
    ticks = [(tick, f"{tick:g}") for tick in svg.linear_ticks(low, low + len(shares), 5)]
    parts = svg.axes(
        x,
        y,
        ticks,
        [(tick, f"{100 * tick:.3g} %") for tick in y.ticks(5)],
        "dB",
        "share of all values",
    )
    one = x(low + 1) - x(low)
    for i, share in enumerate(shares):
        title = f"{low + i:g} to {low + i + 1:g} dB: {bars[i]:,} values"
        top = y(share)
        parts.append(
            svg.rectangle(x(low + i) + 0.3, top, one - 0.6, y.start - top, "fill", title)
        )
    top = y(at_floor / total)
    title = f"at {low:g} dB: {at_floor:,} values"
    parts.append(svg.rectangle(x(low - 1.5), top, one, y.start - top, "fill floor", title))
    words = f"{100 * at_floor / total:.1f} % at {low:g} dB"
    parts.append(svg.text(x(low) + 8, max(top + 4, y.end + 10), words, "tick"))
    return svg.drawing(width, height, "histogram of values in dB", parts)


def floor_shares(rows: Sequence[Mapping[str, Any]]) -> str:
    """Share of bins at the floor of every class, as bars."""
    known = [row for row in rows if row["share_at_floor"] is not None]
    if not known or len(known) > 64:
        return ""
    names = [svg.shortened(row["name"], 18) for row in known]
    left = 10 + max(svg.text_width(name, 13.5) for name in names)
    width, step = 440.0, 27.0
    most = max(row["share_at_floor"] for row in known) or 1.0
    x = svg.Scale(0, most, left, width - 70)
    parts = []
    for i, (name, row) in enumerate(zip(names, known, strict=True)):
        at = 6 + i * step
        share = row["share_at_floor"]
        parts.append(svg.text(left - 8, at + 15, name, "tick", "end"))
        parts.append(svg.rectangle(left, at + 2, x.end - left, step - 8, "track"))
        parts.append(svg.rectangle(left, at + 2, x(share) - left, step - 8, "bar"))
        parts.append(svg.text(x.end + 8, at + 15, tables.percent(share, 2), "tick"))
    return svg.drawing(width, 12 + len(known) * step, "share of bins at -80 dB by class", parts)
