"""A search for a student as text, Markdown and Pareto figures, from the numbers of search.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.records import pareto_front
from reports.tables import MISSING, aligned, escape_markdown, millions

Result = Mapping[str, Any]
HEAD = (
    "candidate", "parameters", "MACs", "rounds", "epochs", "seeds", "validation loss",
    "validation accuracy",
)  # fmt: skip
_COLOURS = ("#0b62c4", "#b3541e", "#2d7d46", "#7b3fa0", "#8a6d1d")


def rows(result: Result) -> list[tuple[str, ...]]:
    """One row per candidate at its last round; the longest trained first, then by loss."""
    last = {row["candidate"]: row for row in result["rows"]}
    order = sorted(
        last.values(),
        key=lambda r: (-r["round"], r["validation_loss"] is None, r["validation_loss"] or 0.0),
    )
    registered = {c["label"]: c["name"] for c in result["candidates"] if c["registered"]}
    return [
        (
            registered.get(row["candidate"], row["candidate"]),
            f"{row['params']:,}",
            millions(row["macs"]),
            str(row["round"] + 1),
            str(row["epochs"]),
            str(row["seeds"]),
            _spread(row["validation_loss"], row["loss_deviation"], 1, 4),
            _spread(row["validation_accuracy"], row["accuracy_deviation"], 100, 1, " %"),
        )
        for row in order
    ]


def _spread(
    mean: float | None, deviation: float | None, unit: float, digits: int, end: str = ""
) -> str:
    if mean is None:
        return MISSING
    more = "" if deviation is None else f" ± {unit * deviation:.{digits}f}"
    return f"{unit * mean:.{digits}f}{more}{end}"


def text(result: Result, most: int = 30) -> str:
    """The table for a terminal."""
    found = rows(result)
    more = [f"... and {len(found) - most} more in search.md"] if len(found) > most else []
    return "\n".join([aligned(HEAD, found[:most]), *more])


def markdown(result: Result) -> str:
    """search.md: how it was searched, every candidate, the figure."""
    esc = escape_markdown
    lines = [
        f"# A student within {result['params']:,} parameters and {result['macs']:,} MACs",
        "",
        f"{esc(result['data'])}{' (synthetic)' if result['synthetic'] else ''}, "
        f"{result['windows']:,} training windows, {result['validation_windows']:,} of validation, "
        f"seed {result['seed']}. Every candidate at its last round; ± is the standard deviation "
        "over seeds. Compare within a round only: later rounds train longer. The validation "
        "figures chose the winner, so its own are a little too good.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|" + "---:|" * (len(HEAD) - 1),
        *("| " + " | ".join(map(esc, row)) + " |" for row in rows(result)),
        "",
        "![Validation accuracy against parameters and MACs](pareto.png)",
        "",
    ]
    return "\n".join(lines)


def save_pareto(result: Result, path: Path, form: str = "png") -> None:
    """Validation accuracy against both budgets: all candidates after round 1, finalists filled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    families = list(dict.fromkeys(c["family"] for c in result["candidates"]))
    colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(families)}
    of = {c["label"]: c for c in result["candidates"]}
    measured = [row for row in result["rows"] if row["validation_accuracy"] is not None]
    final = len(result["rounds"]) - 1
    for axis, key, words in ((axes[0], "params", "parameters"), (axes[1], "macs", "MACs")):
        for number, filled in dict.fromkeys(((0, final == 0), (final, True))):
            points = [row for row in measured if row["round"] == number]
            for row in points:
                shade = colour[of[row["candidate"]]["family"]]
                axis.errorbar(row[key], 100 * row["validation_accuracy"],
                              100 * (row["accuracy_deviation"] or 0), fmt="o", color=shade, ms=6,
                              mfc=shade if filled else "white", elinewidth=1)  # fmt: skip
            _front(axis, points, key)
        best = result["best"]
        axis.annotate(best["candidate"], (best[key], 100 * best["validation_accuracy"]), (-7, 6),
                      textcoords="offset points", fontsize=9, ha="right")  # fmt: skip
        axis.axvline(result[key], color="#b9bfc9", lw=1, ls=":")
        axis.set_xlabel(f"{words} (budget dotted)")
        axis.locator_params(axis="x", nbins=5)
        axis.xaxis.set_major_formatter("{x:,.0f}" if key == "params" else _macs_of_tick)
        axis.grid(color="#e4e7ec", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("validation accuracy (%)")
    handles = [axes[1].plot([], [], "o", color=colour[n], label=n)[0] for n in families]
    stages = result["rounds"]
    axes[1].legend(handles=handles, frameon=False, fontsize=9, loc="center right")
    hollow = f"open: after round 1 (epochs: {stages[0]['epochs']}); " if final else ""
    figure.suptitle(
        f"{hollow}filled: finalists (epochs: {stages[-1]['epochs']}), mean and deviation over "
        f"seeds; {result['data']}",
        fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    figure.savefig(path, format=form, metadata={"Date": None} if form == "svg" else None)


def _macs_of_tick(value: float, _: int) -> str:
    return millions(int(value)) if value > 0 else ""


def _front(axis: Any, points: Sequence[Mapping[str, Any]], key: str) -> None:
    front = pareto_front([(row[key], row["validation_accuracy"]) for row in points])
    if len(front) > 1:
        xs = [points[i][key] for i in front]
        ys = [100 * points[i]["validation_accuracy"] for i in front]
        axis.step(xs, ys, where="post", color="#b9bfc9", lw=1.1, zorder=0)
