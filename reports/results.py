"""Results over seeds: one row per network, as Markdown, JSON and Pareto figures.

``results.json`` is a list of :class:`Result`, each an object with exactly these keys.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.records import pareto_front
from reports.tables import MISSING, count, escape_markdown, millions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
"""Between these lines of a README the results stand."""

HEAD = (
    "data",
    "network",
    "made",
    "parameters",
    "MACs",
    "int8 bytes (accuracy against float)",
    "test accuracy (95 % interval)",
    "spread",
    "runs",
    "errors over {baseline}'s",
    "gain of the teacher",
    "device",
    "training",
)
_NUMERIC = frozenset(range(3, 11))
_COLOURS = {  # those of the page
    "teach": "#7a8089", "train": "#b3541e", "distill": "#0b62c4", "prune": "#1c7c45",
    "ensemble": "#b0861a", "baseline": "#6b7a1f",
}  # fmt: skip
_OTHER_COLOUR = "#7b3fa0"
_LARGEST = 1e18  # no count, byte or second of a network is more


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95 % interval; over seeds and recordings where seeds > 1."""

    mean: float
    low: float
    high: float
    seeds: int = 1


@dataclass(frozen=True)
class Result:
    """All runs of one network that differ by seed or fold alone."""

    name: str
    stage: str
    data: str  # without the fold
    synthetic: bool
    made: str  # of what and how, in words
    seeds: Sequence[int]
    folds: Sequence[int]
    params: int | None  # the most of these runs: pruned ones differ by seed
    macs: int | None  # likewise
    accuracy: Interval  # per clip of the test, 0..1
    deviation: float | None  # sample standard deviation over seeds, or over folds of one seed
    int8_bytes: int | None = None  # largest of the int8 files of these runs
    int8_gain: Interval | None = None  # accuracy of the int8 files minus that of the float ones
    error_ratio: Interval | None = None  # to the baseline of the same data
    teacher_gain: Interval | None = None  # accuracy over the twins without a teacher
    device: str = ""
    seconds: float | None = None  # of one training, median
    runs: Sequence[str] = ()  # run folders
    sha256: Sequence[str] = ()  # of their files, in the same order
    params_least: int | None = None  # where these runs differ
    macs_least: int | None = None  # likewise

    @property
    def label(self) -> str:
        return f"{self.name}, {self.made}"


def to_json(results: Iterable[Result]) -> str:
    listed = [dataclasses.asdict(result) for result in results]
    return json.dumps(listed, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(row: Any) -> Result:
    """Inverse of :func:`to_json` for one row; raises ValueError for anything else."""
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}")
    names = {spec.name: spec for spec in dataclasses.fields(Result)}
    unknown = [key for key in row if key not in names]
    required = [n for n, spec in names.items() if spec.default is dataclasses.MISSING]
    lacking = [name for name in required if name not in row]
    if unknown or lacking:
        raise ValueError(f"{'unknown' if unknown else 'no'} {(unknown or lacking)[0]!r}")
    for name, value in row.items():
        kind = str(names[name].type)
        if not _fits(value, kind):
            raise ValueError(f"{name} is {value!r:.60}")
    for name in (
        "params", "macs", "params_least", "macs_least", "int8_bytes", "deviation", "seconds",
    ):  # fmt: skip
        if not 0 <= (row.get(name) or 0) <= _LARGEST:
            raise ValueError(f"{name} is {row[name]!r:.60}")
    values: dict[str, Any] = {
        key: Interval(**value) if isinstance(value, dict) else value for key, value in row.items()
    }
    return Result(**values)


def _fits(value: Any, kind: str) -> bool:
    """Whether a JSON value may stand in a field of this type, as it is written in Result."""
    if value is None:
        return kind.endswith("| None")
    if kind.startswith("Sequence"):
        return isinstance(value, list) and all(_fits(v, kind[9:-1]) for v in value)
    kind = kind.removesuffix(" | None")
    if kind == "Interval":
        ends = ("mean", "low", "high", "seeds")
        return (
            isinstance(value, dict)
            and sorted(value) == sorted(ends)
            and all(_fits(value[end], "float") for end in ends[:3])
            and _fits(value["seeds"], "int")
            and value["low"] <= value["mean"] <= value["high"]
        )
    if kind in ("int", "float"):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (kind == "float" and isinstance(value, float) and math.isfinite(value))
    return isinstance(value, {"str": str, "bool": bool}[kind])


# --- words ---------------------------------------------------------------------------------------


def cells(result: Result) -> tuple[str, ...]:
    """The row of a result under HEAD."""
    accuracy = result.accuracy
    int8 = MISSING if result.int8_bytes is None else f"{result.int8_bytes:,}"
    if result.int8_gain:
        int8 += f" ({100 * result.int8_gain.mean:+.1f})"
    said = result.synthetic and "synthetic" not in result.data
    return (
        result.data + (" (synthetic)" if said else ""),
        result.name,
        result.made,
        _range(count(result.params_least), count(result.params)),
        _range(millions(result.macs_least), millions(result.macs)),
        int8,
        f"{100 * accuracy.mean:.1f} % ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})",
        MISSING if result.deviation is None else f"± {100 * result.deviation:.1f}",
        runs_in_words(result),
        MISSING if result.error_ratio is None else _ratio(result.error_ratio),
        MISSING if result.teacher_gain is None else points(result.teacher_gain),
        result.device or MISSING,
        MISSING if result.seconds is None else duration(result.seconds),
    )


def _range(least: str, most: str) -> str:
    return most if least in (MISSING, most) else f"{least} to {most}"


def runs_in_words(result: Result) -> str:
    """3 seeds; 5 folds; 3 seeds x 5 folds."""
    seeds, folds = len(result.seeds), len(result.folds)
    parts = [f"{seeds} seed{'s' * (seeds > 1)}"]
    if folds > 1:
        parts.append(f"{folds} folds")
    return " × ".join(parts)


def points(value: Interval) -> str:
    """+0.9 (+0.2 to +1.6): a difference of accuracies in points, with its interval."""
    text = f"{100 * value.mean:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"
    return text + (", one seed" if value.seeds < 2 else "")


def _ratio(value: Interval) -> str:
    text = f"{value.mean:.2f} ({value.low:.2f} to {value.high:.2f})"
    return text + (", one seed" if value.seeds < 2 else "")


def duration(seconds: float) -> str:
    """12 s, 3 min, 1 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


# --- tables --------------------------------------------------------------------------------------


def markdown(
    results: Sequence[Result], baseline: str, pictures: Sequence[tuple[str, str]] = ()
) -> str:
    """The table, what its columns mean, and the figures. pictures: (data set, path to link)."""
    rows = [cells(result) for result in results]
    head = [title.replace("{baseline}", baseline or "the baseline") for title in HEAD]
    used = [i for i in range(len(HEAD)) if i < 2 or any(row[i] != MISSING for row in rows)]
    before: tuple[str, ...] = ("",) * len(HEAD)
    lines = [
        "| " + " | ".join(escape_markdown(head[i]) for i in used) + " |",
        "|" + "|".join("---:" if i in _NUMERIC else "---" for i in used) + "|",
    ]
    for row in rows:
        shown = ["" if i == 0 and row[0] == before[0] else row[i] for i in used]
        lines.append("| " + " | ".join(escape_markdown(cell) for cell in shown) + " |")
        before = row
    lines += ["", f"{' '.join(definitions(head, used))}", ""]
    for data, link in pictures:
        lines += [f"![Test accuracy against cost on {escape_markdown(data)}]({link})", ""]
    return "\n".join(lines)


def definitions(head: Sequence[str], used: Sequence[int]) -> list[str]:
    """What the shown columns mean, one sentence each."""
    told = {
        5: "In brackets behind the bytes of the int8 file: its accuracy minus that of the float "
        "file, in points.",
        6: "Test accuracy: per clip, of the files themselves, mean over seeds; its interval is "
        "over recordings and, from two seeds on, over seeds as well.",
        7: "Spread: standard deviation in points over seeds, or over the folds of a single seed.",
        9: f"{head[9][:1].upper()}{head[9][1:]}: below 1 is fewer; interval over recordings and "
        "seeds.",
        10: "Gain of the teacher: accuracy over twins of the same recipe and seed that had none "
        "and saw as many windows, in points, on the same clips; interval over recordings and "
        "seeds.",
        12: "Training: time of one run, without its teacher's.",
    }
    return [told[i] for i in used if i in told]


def with_results(text: str, results: str) -> str:
    """A README with what stands between the two marks replaced; raises ValueError without them."""
    lines = text.splitlines(keepends=True)
    marks = [i for i, line in enumerate(lines) if line.strip() in (BEGIN, END)]
    found = [lines[i].strip() for i in marks]
    if found != [BEGIN, END]:
        raise ValueError(
            f"needs one line '{BEGIN}' and below it one line '{END}', where the results go"
        )
    first, last = marks
    return "".join(lines[: first + 1]) + f"\n{results.strip()}\n\n" + "".join(lines[last:])


# --- figures -------------------------------------------------------------------------------------


def save_pareto(results: Sequence[Result], path: Path, form: str = "png") -> None:
    """Test accuracy against parameters and MACs of the results of one data set, with fronts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, figure_of, words in (
        (axes[0], lambda r: r.params, "parameters"),
        (axes[1], lambda r: r.macs, "MACs of one window"),
    ):
        points_of = [(r, float(figure_of(r))) for r in results if figure_of(r)]
        for result, cost in points_of:
            colour = _COLOURS.get(result.stage, _OTHER_COLOUR)
            mean, low, high = (
                100 * v for v in (result.accuracy.mean, result.accuracy.low, result.accuracy.high)
            )
            axis.errorbar(cost, mean, [[mean - low], [high - mean]], fmt="o", color=colour,
                          ms=5.5, elinewidth=1, alpha=0.9)  # fmt: skip
        front = pareto_front([(cost, r.accuracy.mean) for r, cost in points_of])
        if len(front) > 1:
            xs = [points_of[i][1] for i in front]
            ys = [100 * points_of[i][0].accuracy.mean for i in front]
            axis.step(xs, ys, where="post", color="#b9bfc9", lw=1.2, zorder=0)
        axis.set_xscale("log")
        _name_points(axis, points_of)
        axis.set_xlabel(words)
        axis.grid(color="#e4e7ec", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        if points_of:
            costs = [cost for _, cost in points_of]
            pad = max(1.6, (max(costs) / min(costs)) ** 0.12)
            axis.set_xlim(min(costs) / pad, max(costs) * pad)
            _round_ticks(axis, min(costs) / pad, max(costs) * pad)
    axes[0].set_ylabel("test accuracy (%), 95 % interval")
    first = results[0]
    kind = " (synthetic)" if first.synthetic and "synthetic" not in first.data else ""
    figure.suptitle(f"{first.data}{kind}", fontsize=11, x=0.01, ha="left")
    stages = dict.fromkeys(r.stage for r in results)
    handles = [
        axes[1].plot([], [], "o", color=_COLOURS.get(stage, _OTHER_COLOUR), label=stage)[0]
        for stage in stages
    ]
    axes[1].legend(handles=handles, frameon=False, loc="lower right", fontsize=9)
    figure.savefig(path, format=form, metadata={"Date": None} if form == "svg" else None)


def _name_points(axis: Axes, points_of: Sequence[tuple[Result, float]]) -> None:
    """The name of each network beside its most accurate point."""
    best: dict[tuple[str, float], Result] = {}
    for result, cost in points_of:
        key = (result.name, cost)
        if key not in best or result.accuracy.mean > best[key].accuracy.mean:
            best[key] = result
    taken: list[tuple[float, float]] = []
    for (name, cost), result in sorted(best.items(), key=lambda item: -item[1].accuracy.mean):
        at = 100 * result.accuracy.mean
        near = [y for x, y in taken if abs(math.log(x / cost)) < 0.5 and abs(y - at) < 0.25]
        axis.annotate(name, (cost, at), (6, 5 - 12 * len(near)), textcoords="offset points",
                      fontsize=8.5)  # fmt: skip
        taken.append((cost, at))


def _round_ticks(axis: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import NullFormatter

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]
    axis.set_xticks(ticks, [_short(tick) for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if value >= unit * 0.999:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
