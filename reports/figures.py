"""Figures of the report: SVG for the page, and the training curves as a picture file.

Each function of the page returns one ``<svg>``, or '' where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from reports import svg, tables
from reports.records import Entry, Standing, pareto_front, plain, read_curves, standings

FONT = 13.5
MOST_POINTS_WITH_INTERVAL = 60  # intervals of more would hide the points
_MOST_LABELS = 14
_MOST_CLASSES_WITH_NUMBERS = 16
_MOST_CLASSES = 64
_MOST_POINTS = 240  # of one curve; longer ones are thinned
STAGES = (
    "teach",
    "train",
    "distill",
    "prune",
    "quantize",
    "ensemble",
    "baseline",
)  # with a colour and a shape of their own


def accuracy_against(
    entries: Sequence[Entry],
    cost_of: Callable[[Entry], float | None],
    axis: str,
    limit: float | None = None,
    limit_words: str = "",
) -> str:
    """Test accuracy against a cost on a logarithmic axis.

    A single run has its 95 % interval; runs that differ by seed or fold alone are small points
    around their mean, which has one standard deviation either way. Draws the Pareto front, the
    limit as a line, and names as many points as there is room for, those of the front first.
    """
    points = [(cost, s) for s in standings(entries) if (cost := cost_of(s.first))]
    if not points:
        return ""
    many = len(points) > MOST_POINTS_WITH_INTERVAL
    ranges = [(s.accuracy, s.accuracy) if many else _range(s) for _, s in points]
    width, height = 440.0, 330.0
    costs = [cost for cost, _ in points] + ([limit] if limit else [])
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    pad = max(0.01, 0.08 * (high - low))
    middle = math.sqrt(min(costs) * max(costs))
    stretch = max(1.7 * math.sqrt(max(costs) / min(costs)), math.sqrt(30))  # 1.5 decades at least
    x = svg.Scale(middle / stretch, middle * stretch, 52, width - 12, logarithmic=True)
    y = svg.Scale(max(0.0, low - pad), min(1.0, high + pad), height - 48, 30)
    parts = svg.axes(
        x,
        y,
        [(tick, _short(tick)) for tick in x.ticks(6)],
        [(tick, f"{100 * tick:.4g} %") for tick in y.ticks(6)],
        axis,
        "test accuracy",
    )
    places = svg.Places([])
    if limit:
        parts.append(svg.line(x(limit), y.start, x(limit), y.end, "limit"))
        span = svg.text_width(limit_words, FONT)
        left = x(limit) - 6 - span
        left = left if left > x.start else x(limit) + 6
        parts.append(svg.text(left, y.start - 8, limit_words, "limit-words"))
        places.boxes.append((left, y.start - 8 - FONT, left + span, y.start))
    front = pareto_front([(cost, s.accuracy) for cost, s in points])
    if len(front) > 1:
        steps: list[tuple[float, float]] = []
        for index in front:
            cost, standing = points[index]
            if steps:
                steps.append((x(cost), steps[-1][1]))
            steps.append((x(cost), y(standing.accuracy)))
        parts.append(svg.polyline(steps, "front"))
    for (cost, standing), (low, high) in zip(points, ranges, strict=True):
        kind = _stage(standing.first)
        if high > low:
            parts.append(svg.line(x(cost), y(low), x(cost), y(high), f"interval {kind}"))
        for entry in standing.members if len(standing.members) > 1 and not many else ():
            at = y(entry.record.accuracy or 0.0)
            title = f"{entry.label}, {entry.record.stage}: {tables.accuracy(entry.record)}"
            parts.append(_shape(x(cost), at, entry.record.stage, f"{kind} faint", title, 3.0))
    for cost, standing in points:
        stage, centre = standing.first.record.stage, (x(cost), y(standing.accuracy))
        title = f"{standing.label}, {stage}: {tables.standing(standing)}, {cost:,.0f} {axis}"
        size = 3.2 if many else 5.5
        parts.append(_shape(*centre, stage, _stage(standing.first), title, size))
        places.boxes.append((centre[0] - 6, centre[1] - 6, centre[0] + 6, centre[1] + 6))
    inside = (x.start, y.end, x.end, y.start)
    on_front = set(front)
    ranked = [*front, *(i for i in range(len(points)) if i not in on_front)]
    for index in ranked[:_MOST_LABELS]:
        cost, standing = points[index]
        for most in (24, 14):
            words = svg.shortened(standing.label.removeprefix("timm/"), most)
            place = places.put(x(cost), y(standing.accuracy), words, FONT, inside)
            if place:
                parts.append(svg.text(place[0], place[1], words, "name", place[2]))
                break
    return svg.drawing(width, height, f"test accuracy against {axis}", parts)


def _range(standing: Standing) -> tuple[float, float]:
    """Ends of the bar through a point: an interval, or one standard deviation either way."""
    if standing.deviation is not None:
        accuracies = [entry.record.accuracy or 0.0 for entry in standing.members]
        low, high = standing.accuracy - standing.deviation, standing.accuracy + standing.deviation
        return min(low, *accuracies), max(high, *accuracies)
    record = standing.first.record
    least, most = record.accuracy_low, record.accuracy_high
    return (
        standing.accuracy if least is None else least,
        standing.accuracy if most is None else most,
    )


def _short(value: float) -> str:
    """A round number for a tick: 50 K, 1 M, 20 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if value >= unit * 0.999:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def stage_key(entries: Sequence[Entry]) -> str:
    """The legend of the points as HTML: stages that occur, each with its shape."""
    kinds = {_stage(entry) for entry in entries}
    parts = []
    for stage in (*STAGES, "other"):
        if f"s-{stage}" in kinds:
            mark = _shape(8, 8, stage, f"s-{stage}", "", 5.5)
            picture = f'<svg viewBox="0 0 16 16" aria-hidden="true">{mark}</svg>'
            parts.append(f"<span>{picture}{stage}</span>")
    return f'<p class="key">{"".join(parts)}</p>'


def confusion(entry: Entry) -> str:
    """Confusion matrix: rows actual, columns decided, per cent of the row, and clips below it."""
    classes, counts = list(entry.classes), [list(row) for row in entry.confusion]
    n = len(classes)
    if not 2 <= n <= _MOST_CLASSES or len(counts) != n or any(len(row) != n for row in counts):
        return ""
    numbers = n <= _MOST_CLASSES_WITH_NUMBERS
    cell = 54.0 if n <= 6 else 44.0 if numbers else 14.0
    names = [svg.shortened(name, 14) for name in classes]
    left = 26 + max(svg.text_width(name, FONT) for name in names)
    slanted = n > 6 or any(svg.text_width(name, FONT) > cell for name in names)
    longest = max(svg.text_width(name, FONT) for name in names)
    top = 30 + (longest * 0.62 if slanted else 14)
    right = longest * 0.62 * (1 if slanted else 0)
    width, height = left + n * cell + 8 + right, top + n * cell + 8
    parts = [
        svg.text(left, 14, "decided", "label"),
        f'<text transform="translate(12 {top + n * cell / 2:.1f}) rotate(-90)" class="label" '
        'text-anchor="middle">actual</text>',
    ]
    for i, name in enumerate(names):
        middle = left + (i + 0.5) * cell
        if slanted:
            parts.append(
                f'<g transform="translate({middle - 2:.1f} {top - 7:.1f}) rotate(-38)">'
                + svg.text(0, 0, name, "tick")
                + "</g>"
            )
        else:
            parts.append(svg.text(middle, top - 8, name, "tick", "middle"))
        parts.append(svg.text(left - 8, top + (i + 0.5) * cell + 4.5, name, "tick", "end"))
    for i, row in enumerate(counts):
        total = sum(row)
        for j, clips in enumerate(row):
            share = clips / total if total else 0.0
            at_x, at_y = left + j * cell, top + i * cell
            title = f"{classes[i]} decided as {classes[j]}: {clips:,} of {total:,} clips"
            kind = "cell right" if i == j else "cell wrong"
            # the eye should see small confusions too, so the shade grows with the root of the share
            style = f"--share:{100 * math.sqrt(share):.0f}%"
            parts.append(svg.rectangle(at_x, at_y, cell - 2, cell - 2, kind, title, style))
            if numbers and total:
                strong = " strong" if share > 0.45 else "" if clips else " none"
                middle = at_x + cell / 2 - 1
                words = f"{100 * share:.1f}" if share < 0.9995 else "100"
                parts.append(
                    svg.text(middle, at_y + cell / 2 - 1, words, f"share{strong}", "middle")
                )
                clips_at = at_y + cell / 2 + 14
                parts.append(svg.text(middle, clips_at, f"{clips:,}", f"clips{strong}", "middle"))
    return svg.drawing(width, height, f"confusion matrix of {entry.label}", parts)


def recalls(entry: Entry) -> str:
    """Recall of every class as bars, with the number of clips behind it."""
    recall = entry.record.recall or {}
    if not recall or len(recall) > _MOST_CLASSES:
        return ""
    clips = {
        name: sum(row) for name, row in zip(entry.classes, entry.confusion, strict=False)
    }  # of that class
    names = {name: svg.shortened(name, 18) for name in recall}
    left = 10 + max(svg.text_width(name, FONT) for name in names.values())
    width, step = 400.0, 25.0
    x = svg.Scale(0, 1, left, width - 104)
    parts = []
    for i, (name, value) in enumerate(recall.items()):
        at = 4 + i * step
        parts.append(svg.text(left - 8, at + 15, names[name], "tick", "end"))
        parts.append(svg.rectangle(left, at + 2, x.end - left, step - 7, "track"))
        if value is not None:
            title = f"{name}: {tables.percent(value)}"
            parts.append(svg.rectangle(left, at + 2, x(value) - left, step - 7, "bar", title))
        words = tables.percent(value)
        behind = f" of {clips[name]:,}" if clips.get(name) is not None else ""
        parts.append(svg.text(x.end + 8, at + 15, words + behind, "tick"))
    return svg.drawing(width, 8 + len(recall) * step, f"recall per class of {entry.label}", parts)


def training_curves(entry: Entry) -> str:
    """Losses above, validation accuracy below, over epochs; a line at the least validation loss."""
    curves = entry.curves
    epochs = list(curves.get("epoch", ()))
    if len(epochs) < 2:
        return ""
    width, left, right = 400.0, 52.0, 10.0
    panels = [
        (
            "loss",
            [
                (c, k)
                for c, k in (("train_loss", "train"), ("validation_loss", "check"))
                if c in curves
            ],
            28.0,
            150.0,
            "{:.3g}",
        ),
        ("validation accuracy", [("validation_accuracy", "check")], 196.0, 290.0, "{:.0%}"),
    ]
    x = svg.Scale(epochs[0], epochs[-1], left, width - right)
    parts: list[str] = []
    least = _least_loss(curves)
    for number, (title, columns, top, bottom, form) in enumerate(panels):
        values = [v for column, _ in columns for v in curves.get(column, ()) if math.isfinite(v)]
        if not values:
            continue
        pad = 0.06 * (max(values) - min(values)) or 0.01
        high = max(values) + pad if number == 0 else min(1.0, max(values) + pad)
        y = svg.Scale(max(0.0, min(values) - pad), high, bottom, top)
        ticks = y.ticks(4)
        if number == 1 and len(ticks) > 1 and ticks[1] - ticks[0] < 0.01:
            form = "{:.1%}"
        x_ticks = [(tick, f"{tick:g}") for tick in x.ticks(6) if tick == round(tick)]
        y_ticks = [(tick, form.format(tick).replace("%", " %")) for tick in ticks]
        parts += svg.axes(x, y, x_ticks if number else [], y_ticks, "epoch" if number else "")
        parts.append(svg.text(left, top - 12, title, "label"))
        if least is not None:
            parts.append(svg.line(x(least), bottom, x(least), top, "kept"))
        for column, kind in columns:
            points = [
                (x(epoch), y(value))
                for epoch, value in zip(epochs, curves.get(column, ()), strict=False)
                if math.isfinite(value)
            ]
            if not points:
                continue
            every = max(1, math.ceil(len(points) / _MOST_POINTS))
            parts.append(svg.polyline([*points[:-1:every], *points[-1:]], f"curve {kind}"))
    at = width - right
    for kind, words in (("check", "validation"), ("train", "training")):
        at -= svg.text_width(words, FONT)
        parts.append(svg.text(at, 16.5, words, "tick"))
        parts.append(svg.line(at - 21, 12, at - 5, 12, f"curve {kind}"))
        at -= 36
    return svg.drawing(width, 334, f"training curves of {entry.label}", parts)


def save_training_curves(table: Path, picture: Path) -> None:
    """Draw curves.csv as a PNG picture; nothing is written where it holds no epoch.

    Columns drawn: train_loss and validation_loss above, validation_accuracy below, over epoch.
    Raises OSError where a file cannot be read or written.
    """
    from matplotlib.figure import Figure

    curves = read_curves(table.read_text(encoding="utf-8"))
    epochs = curves.get("epoch", [])
    if not epochs:
        return
    figure = Figure(figsize=(7, 5.6), dpi=120, layout="constrained")
    losses, share = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    marker = "o" if len(epochs) < 3 else None
    for column, words, colour in (
        ("train_loss", "training", "#8a8f98"),
        ("validation_loss", "validation", "#0b62c4"),
    ):
        if column in curves:
            losses.plot(epochs, curves[column], color=colour, label=words, lw=1.8, marker=marker)
    if "validation_accuracy" in curves:
        percent = [100 * value for value in curves["validation_accuracy"]]
        share.plot(epochs, percent, color="#0b62c4", lw=1.8, marker=marker)
    least = _least_loss(curves)
    for axis in (losses, share):
        axis.grid(color="#d9dce1", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        if least is not None:
            axis.axvline(least, color="#b3541e", lw=1, ls="--")
    if least is not None:
        label = f"least validation loss: epoch {least:g}"
        losses.plot([], [], color="#b3541e", lw=1, ls="--", label=label)
    losses.set_ylabel("loss")
    losses.legend(frameon=False)
    share.set_ylabel("validation accuracy (%)")
    share.set_xlabel("epoch")
    figure.savefig(picture, format="png")


def _least_loss(curves: Mapping[str, Sequence[float]]) -> float | None:
    """The epoch of the least validation loss."""
    epochs, losses = curves.get("epoch", ()), curves.get("validation_loss", ())
    pairs = [(loss, epoch) for epoch, loss in zip(epochs, losses, strict=False) if loss == loss]
    return min(pairs)[1] if pairs else None


def _stage(entry: Entry) -> str:
    return f"s-{entry.record.stage if entry.record.stage in STAGES else 'other'}"


def _shape(x: float, y: float, stage: str, kind: str, title: str, r: float) -> str:
    """Stages differ by shape as well as by colour."""
    inner = f"<title>{escape(plain(title))}</title>" if title else ""
    if stage == "distill":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" class="point {kind}">{inner}</circle>'
    corners = {
        "teach": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "train": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "prune": [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
        "quantize": [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        "baseline": [(-1.2, -0.45), (1.2, -0.45), (1.2, 0.45), (-1.2, 0.45)],
    }.get(stage, [(-0.6, -1), (0.6, -1), (1, 0), (0.6, 1), (-0.6, 1), (-1, 0)])
    placed = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{placed}" class="point {kind}">{inner}</polygon>'
