"""A sweep as pictures and a page, from the numbers of sweep.json: the report's figures 2, 8, 9."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from reports.records import plain
from reports.style import STYLE

Result = Mapping[str, Any]
_MOST_ROWS = 15
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def save_parallel(result: Result, picture: Path, ending: str = "png") -> None:
    """Parallel coordinates: a line per trial through its values to its least validation loss.

    Trials that ended are drawn in the colour of their loss, those that were stopped in grey.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names = list(result["space"])
    rows = [row for row in result["trials"] if row["validation_loss"] is not None]
    ended = [row for row in rows if row["state"] == "complete"]
    losses = [row["validation_loss"] for row in ended]
    worst = sorted(losses)[int(0.9 * (len(losses) - 1))]  # a few that failed would hide the rest
    low, high = min(losses), max(worst, min(losses) + 1e-9)
    figure = Figure(figsize=(2.2 + 1.9 * len(names), 4.6), dpi=120, layout="constrained")
    axis = figure.subplots()
    ticks = {name: _axis(result["space"][name]) for name in names}

    def height(row: Mapping[str, Any]) -> list[float]:
        at = [ticks[name][0](row["values"][name]) for name in names]
        return [*at, min(1.0, max(0.0, (row["validation_loss"] - low) / (high - low)))]

    colours = colormaps["viridis"]
    for row in sorted(rows, key=lambda row: (row["state"] == "complete", -row["validation_loss"])):
        done = row["state"] == "complete"
        best = row["number"] == result["best"]["number"]
        at = height(row)
        colour = "#b3541e" if best else colours(at[-1] * 0.9) if done else "#c9ccd1"
        axis.plot(range(len(at)), at, color=colour, lw=3 if best else 1.3 if done else 0.8,
                  alpha=1 if best else 0.85 if done else 0.6, zorder=3 if best else 2)  # fmt: skip
    for index, name in enumerate(names):
        axis.axvline(index, color="#1d2127", lw=0.9, zorder=4)
        for place, words in ticks[name][1]:
            axis.text(index - 0.03, place, words, ha="right", va="center", fontsize=8.5, zorder=5,
                      bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.6})  # fmt: skip
    last = len(names)
    axis.axvline(last, color="#1d2127", lw=0.9, zorder=4)
    for share in (0, 0.25, 0.5, 0.75, 1):
        words = f"{low + share * (high - low):.3f}" + (" or more" if share == 1 else "")
        axis.text(last + 0.04, share, words, va="center", fontsize=8.5)
    axis.set_xticks(range(last + 1), [*(n.replace("_", " ") for n in names), "validation loss"])
    axis.tick_params(axis="x", length=0, labeltop=True, labelbottom=False)
    axis.set_yticks([])
    axis.set_xlim(-0.65, last + 0.6)
    axis.set_ylim(-0.06, 1.06)
    axis.spines[:].set_visible(False)
    stopped = len(rows) - len(ended)
    axis.set_xlabel(
        f"{result['student']} on {result['data']}: {len(ended)} trials that ended, in the colour "
        f"of their loss; the best in orange; {stopped} stopped early in grey",
        fontsize=9,
    )
    _save(figure, picture, ending)


def _axis(part: Mapping[str, Any]) -> tuple[Any, list[tuple[float, str]]]:
    """(value -> height 0..1, [(height, words)]) of one value of the space."""
    if "values" in part:
        values = list(part["values"])
        span: float = max(1, len(values) - 1)
        places = {value: (i / span if len(values) > 1 else 0.5) for i, value in enumerate(values)}
        return places.__getitem__, [(at, str(value)) for value, at in places.items()]
    low, high = part["low"], part["high"]
    if part["log"]:
        span = math.log(high / low) or 1.0

        def place(value: float) -> float:
            return math.log(value / low) / span

        shown = [low * (high / low) ** share for share in (0, 0.25, 0.5, 0.75, 1)]
    else:
        span = (high - low) or 1.0

        def place(value: float) -> float:
            return (value - low) / span

        shown = [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]
    return place, [(place(value), f"{value:.2g}") for value in shown]


def save_importance(result: Result, picture: Path, ending: str = "png") -> None:
    """Share of the variance of the loss that each value explains (fANOVA), as bars."""
    from matplotlib.figure import Figure

    found = result["importances"]
    figure = Figure(figsize=(6.4, 1.5 + 0.42 * max(1, len(found))), dpi=120, layout="constrained")
    axis = figure.subplots()
    if found:
        names = list(found)
        axis.barh(range(len(names)), [100 * found[name] for name in names], color="#0b62c4",
                  height=0.6)  # fmt: skip
        for index, name in enumerate(names):
            axis.text(100 * found[name] + 1, index, f"{100 * found[name]:.0f} %", va="center",
                      fontsize=9)  # fmt: skip
        axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axis.invert_yaxis()
        axis.set_xlim(0, 108)
    else:
        axis.set_axis_off()
        axis.text(0, 0.5, "too few trials ended to say (at least four)", va="center")
    axis.set_xlabel("share of the variance of the validation loss (%)")
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, picture, ending)


def _save(figure: Any, picture: Path, ending: str) -> None:
    """The same numbers give the same bytes: no date, and names of parts that are not drawn."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "sweep"}):
        figure.savefig(picture, format=ending, metadata={"Date": None} if ending == "svg" else None)


def page(result: Result, pictures: Sequence[str]) -> str:
    """The text of sweep.html, which needs nothing else. pictures: SVG files as text."""
    best, names = result["best"], list(result["space"])
    ranked = sorted(
        (row for row in result["trials"] if row["validation_loss"] is not None),
        key=lambda row: (row["state"] != "complete", row["validation_loss"]),
    )
    head = ["trial", *names, "validation loss", "validation accuracy", "epochs", ""]
    rows = []
    for row in ranked[:_MOST_ROWS]:
        accuracy = row["validation_accuracy"]
        cells = [
            row["number"],
            *(_shown(row["values"][name]) for name in names),
            f"{row['validation_loss']:.4f}",
            "–" if accuracy is None else f"{100 * accuracy:.1f} %",
            row["epochs"],
            {"complete": "", "pruned": "stopped"}.get(row["state"], row["state"]),
        ]
        rows.append("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>")
    ended = sum(row["state"] == "complete" for row in result["trials"])
    captions = (
        "Every line is a trial. Grey ones were stopped: worse than the median at that epoch.",
        "How much of the spread of the loss each value explains, over the trials that ended "
        "(fANOVA). With few trials this is a hint, not a finding.",
    )
    drawn = "".join(
        f'<figure class="card" style="margin-top:16px"><div class="draw" style="background:#fff;'
        f'max-width:{width}px">{_embedded(svg)}</div><figcaption>{_text(caption)}</figcaption>'
        "</figure>"
        for svg, caption, width in zip(pictures, captions, (1180, 640), strict=True)
    )
    values = ", ".join(f"{name} {_shown(best['values'][name])}" for name in names)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>Sweep of {_text(result['student'])}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>Sweep of {_text(result['student'])}</h1>\n"
        f'<p class="lead">{len(result["trials"])} trials on {_text(result["data"])}, {ended} of '
        "them to their end. Losses are cross-entropy on the validation split; the test split was "
        f'not looked at.</p>\n<div class="tiles"><div class="tile"><span>Best: trial '
        f"{best['number']}</span><b>{best['validation_loss']:.4f}</b>"
        f'<span class="what">{_text(values)}</span><span>validation accuracy '
        f"{100 * best['validation_accuracy']:.1f} %, epoch {best['best_epoch']}; its recipe is "
        f"best.toml</span></div></div>\n{drawn}\n<h2>Best trials</h2>\n"
        f'<div class="scroll"><table><thead><tr>'
        + "".join(f"<th>{_text(name.replace('_', ' '))}</th>" for name in head)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>\n"
        "</main>\n</body>\n</html>\n"
    )


def _embedded(svg: str) -> str:
    """The picture without what stands before its first tag, its style as attributes allow it."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    return re.sub(r'<svg ([^>]*?)width="[^"]*" ?', r"<svg \1", text, count=1)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _text(words: object) -> str:
    return escape(plain(words), quote=True)
