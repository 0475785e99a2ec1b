"""How a decision follows changing scenes, as a picture, from the numbers of stream.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.literal import literal_text
from reports.records import plain

_COLOURS = {"majority": "#b3541e", "mean": "#0b62c4", "hmm": "#1c7c45"}
_NAMES = {"majority": "majority", "mean": "exponential mean", "hmm": "hidden Markov model"}


@literal_text
def save_figure(result: Mapping[str, Any], picture: Path) -> None:
    """Error against what was heard of a scene, and false alarms against delay, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    curve, trade = figure.subplots(1, 2)
    single = result["single"]["test"]
    curve.plot(single["delay_seconds"], [100 * e for e in single["error_at_delay"]],
               color="#8a8f98", lw=1.4, label="one window alone")  # fmt: skip
    for row in result["chosen"]:
        test = row["test"]
        curve.plot(test["delay_seconds"], [100 * e for e in test["error_at_delay"]],
                   color=_COLOURS[row["rule"]], lw=1.9, marker="o", ms=3,
                   label=f"{_NAMES[row['rule']]}, {row['seconds']:g} s")  # fmt: skip
    curve.set_xlabel("heard of the scene since the change (s)")
    curve.set_ylabel("wrong decisions (%)")
    curve.set_ylim(bottom=0)
    curve.legend(frameon=False)
    for rule, colour in _COLOURS.items():
        points = [
            (row["test"]["delay"]["mean"], row["test"]["false_alarms_per_hour"], row["seconds"])
            for row in result["tried"]
            if row["rule"] == rule and row["test"]["delay"]["mean"] is not None
        ]
        points.sort(key=lambda point: point[2])
        trade.plot([p[0] for p in points], [p[1] for p in points], color=colour, marker="o", ms=4,
                   lw=1.4, label=_NAMES[rule])  # fmt: skip
        for at, alarms, seconds in points[1 :: max(1, len(points) - 2)]:
            trade.annotate(f"{seconds:g} s", (at, alarms), xytext=(5, 5), color=colour,
                           textcoords="offset points", fontsize=8.5)  # fmt: skip
    trade.set_xlabel("mean delay until first decided rightly (s)")
    trade.set_ylabel("false alarms per hour")
    trade.set_ylim(bottom=0)
    trade.legend(frameon=False)
    for axis in (curve, trade):
        axis.grid(color="#d9dce1", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    synthetic = " (synthetic)" if result["synthetic"] else ""
    figure.suptitle(
        f"{plain(result['name'])} on scenes of {result['dwell_seconds']:g} s in the mean, spliced "
        f"from the test windows of {plain(result['data']).removesuffix(' (synthetic)')}{synthetic}",
        fontsize=11,
    )
    figure.savefig(picture, format="png")
