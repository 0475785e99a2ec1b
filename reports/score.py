"""What runs are worth on another data set, as a picture, from the numbers of score.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.confusion import draw_confusion
from reports.literal import literal_text
from reports.records import plain

Result = Mapping[str, Any]
_MOST_DRAWN = 4


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
