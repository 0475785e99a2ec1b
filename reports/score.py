"""What runs are worth on another data set, as text and a picture, from score.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.confusion import draw_confusion
from reports.literal import literal_text
from reports.records import plain

Result = Mapping[str, Any]
_MOST_DRAWN = 4


def text(result: Result) -> str:
    """Accuracy of every run here and on its own test split, recalls, differences to the first."""
    runs = result["runs"]
    synthetic = " (synthetic)" if result["synthetic"] and "synthetic" not in result["data"] else ""
    heads = ("run", "accuracy here (95 % interval)", "on its own test", "loss")
    rows = [heads]
    for row in runs:
        own = row["own_test"]
        rows.append(
            (
                plain(Path(row["run"]).name),
                _interval(row),
                "unknown" if own is None else f"{_interval(own)}, {plain(own['data'])}",
                f"{row['loss']:.3f}",
            )
        )
    clips = f"{runs[0]['clips']:,} clips of {runs[0]['recordings']:,} recordings"
    lines = [
        f"data      {plain(result['data'])}{synthetic}: {clips}, {result['part']}",
        "",
        *_columns(rows),
        "",
        *_columns(_recalls(result)),
    ]
    for row in runs[1:]:
        d = row["minus_first"]
        lines.append(
            f"{plain(Path(row['run']).name)} minus {plain(Path(runs[0]['run']).name)}: "
            f"{100 * d['difference']:+.2f} points (95 % interval {100 * d['low']:+.2f} to "
            f"{100 * d['high']:+.2f}; {d['only_a']} against {d['only_b']} clips, "
            f"McNemar p = {d['p_value']:.3f})"
        )
    return "\n".join(lines)


def _recalls(result: Result) -> list[tuple[str, ...]]:
    """Clips and recall of each class that the data set has, a column for each run."""
    runs = result["runs"]
    rows = [("class", "clips", *(f"recall of run {i + 1}" for i in range(len(runs))))]
    if len(runs) == 1:
        rows = [("class", "clips", "recall")]
    for index, name in enumerate(result["class_names"]):
        clips = sum(runs[0]["confusion"][index])
        if clips:
            shares = (f"{100 * row['recall'][name]:.1f} %" for row in runs)
            rows.append((plain(name), f"{clips:,}", *shares))
    return rows


def _interval(figures: Mapping[str, Any]) -> str:
    low, high = (100 * figures[key] for key in ("accuracy_low", "accuracy_high"))
    return f"{100 * figures['accuracy']:.1f} %  ({low:.1f} to {high:.1f})"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@literal_text
def save_figure(result: Result, picture: Path) -> None:
    """Confusion matrices (rows actual, % per row) of the first runs side by side, as PNG."""
    from matplotlib.figure import Figure

    names = [plain(name) for name in result["class_names"]]
    drawn = result["runs"][:_MOST_DRAWN]
    side = max(4.6, 0.62 * len(names) + 1.9)
    figure = Figure(figsize=(side * len(drawn), side + 0.5), dpi=120, layout="constrained")
    for at, row in enumerate(drawn):
        axes = figure.add_subplot(1, len(drawn), at + 1)
        draw_confusion(axes, names, [_percents(counts) for counts in row["confusion"]])
        own = row["own_test"]
        there = "" if own is None else f", {100 * own['accuracy']:.1f} % on its own test"
        axes.set_title(
            f"{plain(Path(row['run']).name)}\n{100 * row['accuracy']:.1f} % here{there}",
            fontsize=9,
            loc="left",
        )
    figure.suptitle(
        f"{plain(result['data'])}: confusion, % of each row", fontsize=11, x=0.02, ha="left"
    )
    figure.savefig(picture, format="png")


def _percents(counts: list[int]) -> list[float | None]:
    total = sum(counts)
    return [100 * count / total if total else None for count in counts]
