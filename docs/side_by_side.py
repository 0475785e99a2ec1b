"""The measured figures of docs/report-side-by-side.md, from finished runs.

    python docs/side_by_side.py --runs runs

finds the runs that the commands of the page made, checks each against its recorded hashes, writes
what stands between <!-- NAME --> and <!-- /NAME --> of the page, and the pictures of docs/figures.
Numbers of the report come from REPORT alone. A part whose runs are not there is left as it is, and
named.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from compress import costs, evaluate, metrics, runs  # noqa: E402
from compress.errors import InputError  # noqa: E402
from compress.fold_summary import spread  # noqa: E402
from compress.runs import Run  # noqa: E402
from reports.crossval import number, percent  # noqa: E402

PAGE = ROOT / "docs" / "report-side-by-side.md"
FIGURES = ROOT / "docs" / "figures"
FULL, SMALL = "scenes:52890", "scenes:6000"
NETWORKS = ("audiobot500", "audiobot50")
SHORT_EPOCHS = 12
"""Most epochs of the short trainings on SMALL."""

REPORT: dict[str, Any] = {
    "classes": {
        "other": (14_530, 27.47), "music": (27_340, 51.69), "human voice": (4_823, 9.12),
        "engine sounds": (4_412, 8.34), "alarm": (1_785, 3.37),
    },
    "accuracy": {"audiobot500": "95.3 ± 0.2 %", "audiobot50": "91.9 ± 0.3 %"},
    "loss": {"audiobot500": "0.153 ± 0.003", "audiobot50": "0.228 ± 0.007"},
    "errors": {"audiobot500": 4.7, "audiobot50": 8.1},
    "params": {"audiobot500": 499_853, "audiobot50": 49_733},
    "macs": {"audiobot500": 17.6e6, "audiobot50": 3.8e6},
    "confusion": [
        [91.82, 1.26, 2.52, 3.70, 0.70], [0.76, 98.59, 0.29, 0.11, 0.25],
        [5.26, 1.47, 92.63, 0.21, 0.42], [7.53, 0.00, 1.14, 91.32, 0.00],
        [1.16, 1.16, 0.00, 0.58, 97.09],
    ],
}  # fmt: skip
"""AudioBots, Oticon Audio Explorers 2023; ``confusion`` of AudioBot500, % of each actual class."""

# Two-sided 95 % points of Student's t by degrees of freedom.
_T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


# --- which runs ----------------------------------------------------------------------------------


class Found:
    """The finished runs below some folders, each unchanged since it was finished."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.runs: list[Run] = []
        for folder in folders:
            for place in runs.find_runs(folder):
                run = runs.open_run(place)
                if run.complete:
                    run.check_unchanged()
                    self.runs.append(run)
        self.used: dict[str, Run] = {}

    def pick(self, data: str, stage: str, **wanted: Any) -> list[Run]:
        """Runs of a data set and stage by seed. wanted: name, epochs, normalise ("band")."""
        found = [
            run
            for run in self.runs
            if run.manifest["data"].get("name") == data
            and run.manifest["stage"] == stage
            and run.manifest.get("fold") is None
            and all(_value(run, key) == value for key, value in wanted.items())
        ]
        return self.use(sorted(found, key=lambda run: (run.manifest["seed"], str(run.folder))))

    def use(self, found: list[Run]) -> list[Run]:
        self.used |= {str(run.folder): run for run in found}
        return found

    def file(self, pattern: str) -> Path | None:
        """The one file of this pattern below the folders, or None."""
        places = [path for folder in self.folders for path in sorted(folder.glob(pattern))]
        return places[0] if places else None


def _value(run: Run, key: str) -> Any:
    recipe = run.manifest.get("settings", {}).get("recipe", {})
    if key == "epochs":
        return recipe.get("epochs")
    return run.manifest.get(key, "band" if key == "normalise" else None)


def full(found: Found, name: str) -> list[Run]:
    """The recipe `audiobots` to its end at full size, over seeds."""
    return found.pick(FULL, "train", name=name, epochs=150)


def short(found: Found, name: str, normalise: str = "band") -> list[Run]:
    """The recipe `distill` on labels alone, shortened, over seeds."""
    return found.pick(SMALL, "train", name=name, epochs=SHORT_EPOCHS, normalise=normalise)


# --- gains and intervals -------------------------------------------------------------------------


def decisions(run: Run) -> metrics.Decisions:
    return evaluate.load_decisions(run.file(runs.DECISIONS))


def test(run: Run) -> Mapping[str, Any]:
    return run.metrics()["splits"]["test"]


def over_clips(per_clip: Sequence[np.ndarray], recordings: np.ndarray) -> tuple[float, float]:
    """(mean, half of its 95 % interval) of a gain per clip, averaged over runs, by recording."""
    mean = np.mean(per_clip, axis=0)
    half = metrics.Z_95 * math.sqrt(metrics.cluster_variance(mean, recordings))
    return float(mean.mean()), half


def over_seeds(gains: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean over seeds (Student's t); None for fewer than two."""
    if len(gains) < 2:
        return None
    return _T_95[len(gains) - 1] * statistics.stdev(gains) / math.sqrt(len(gains))


def gain(ours: Sequence[Run], theirs: Sequence[Run]) -> str:
    """Accuracy of ours minus theirs in points, with intervals over recordings and over seeds.

    As many of both: paired in their order. Otherwise the means over each are compared, and the
    interval over seeds is Welch's.
    """
    a, b = ([decisions(run) for run in group] for group in (ours, theirs))
    if any(not np.array_equal(one.clip_ids, a[0].clip_ids) for one in (*a, *b)):
        raise InputError("two groups of runs decided different clips; they are of other splits")
    right_a, right_b = (np.array([one.correct for one in group], float) for group in (a, b))
    mean, half = over_clips([right_a.mean(0) - right_b.mean(0)], a[0].recording_ids)
    words = f"{100 * mean:+.2f} (over recordings {_ends(mean, half)}"
    if len(a) == len(b) and len(a) > 1:
        seeds = over_seeds((right_a - right_b).mean(1).tolist())
    else:
        seeds = _welch(right_a.mean(1).tolist(), right_b.mean(1).tolist())
    return words + (f"; over seeds {_ends(mean, seeds)})" if seeds is not None else ")")


def _welch(a: Sequence[float], b: Sequence[float]) -> float | None:
    if min(len(a), len(b)) < 2:
        return None
    parts = [statistics.variance(group) / len(group) for group in (a, b)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(group) - 1) for part, group in zip(parts, (a, b), strict=True)
    ) if sum(parts) else 1  # fmt: skip
    return _T_95[max(1, min(9, math.floor(freedom)))] * math.sqrt(sum(parts))


def _ends(mean: float, half: float) -> str:
    return f"{100 * (mean - half):+.2f} to {100 * (mean + half):+.2f}"


def _over(values: Sequence[float]) -> Mapping[str, Any]:
    return spread(list(values))


def accuracy(group: Sequence[Run]) -> str:
    return percent(_over([test(run)["accuracy"] for run in group]))


def loss(group: Sequence[Run]) -> str:
    return number(_over([test(run)["loss"] for run in group]))


def seeds(group: Sequence[Run]) -> str:
    return ", ".join(str(run.manifest["seed"]) for run in group)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table: the first columns are words, the others numbers."""
    rule = ["---" if i < words else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


# --- the parts of the page -----------------------------------------------------------------------


def classes(found: Found) -> str | None:
    """Table 1, and the pictures of Figs 1, 5 and 6."""
    file = found.file("explore/scenes-52890/explore.json")
    if file is None:
        return None
    for name in ("spectrograms", "values", "means"):
        copy(file.parent / f"{name}.png", f"{name}.png")
    told = runs.read_json(file)
    rows = []
    for row in told["classes"]:
        clips, share = REPORT["classes"][row["name"]]
        rows.append(
            (row["name"], f"{clips:,}", f"{share:.2f} %", f"{row['clips']:,}",
             f"{100 * row['share']:.2f} %", f"{row['recordings']:,}",
             f"{100 * row['share_at_floor']:.2f} %")
        )  # fmt: skip
    head = ("class", "report: clips", "share", "here: clips", "share", "recordings", "at -80 dB")
    near = told["duplicates"]
    return (
        table(head, rows)
        + f"\n\nHere {100 * told['share_at_floor']:.2f} % of all values lie at -80 dB. Duplicates: "
        f"{near['exact_pairs']:,} pairs of windows are the same, {near['near_pairs']:,} differ by "
        f"at most {near['threshold_db']:g} dB; across sides of the split "
        f"{near['exact_across_sides']:,} and {near['near_across_sides']:,}."
    )


def results(found: Found) -> str | None:
    """Table 2: accuracy and loss of the recipe to its end, over seeds."""
    rows = []
    for name in NETWORKS:
        group = full(found, name)
        if not group:
            return None
        figures = group[0].metrics()
        epochs = ", ".join(str(run.metrics()["epochs"]) for run in group)
        rows.append(
            (name, f"{REPORT['params'][name]:,}", f"{figures['params']:,}",
             f"{REPORT['macs'][name] / 1e6:.1f} M", f"{figures['macs'] / 1e6:.1f} M",
             REPORT["accuracy"][name], accuracy(group), REPORT["loss"][name], loss(group), epochs)
        )  # fmt: skip
    head = ("network", "report: parameters", "here", "report: MACs", "here",
            "report: test accuracy", "here", "report: test loss", "here",
            "epochs here")  # fmt: skip
    groups = [full(found, name) for name in NETWORKS]
    wrong = [1 - statistics.fmean(test(run)["accuracy"] for run in group) for group in groups]
    theirs = REPORT["errors"]
    apart = [f"{name}: seeds {seeds(group)}" for name, group in zip(NETWORKS, groups, strict=True)]
    return (
        table(head, rows)
        + f"\n\n{'; '.join(apart)}. audiobot50 makes {wrong[1] / wrong[0]:.2f} times the errors of "
        f"audiobot500 here, {theirs['audiobot50'] / theirs['audiobot500']:.2f} times in the "
        f"report. audiobot500 minus audiobot50, points: {gain(*groups)}."
    )


def confusion(found: Found) -> str | None:
    """Fig. 4, and the recall of every class over seeds."""
    groups = {name: full(found, name) for name in NETWORKS}
    if not all(groups.values()):
        return None
    names = groups["audiobot500"][0].class_names
    tables = {
        name: sum(np.array(test(run)["confusion"]) for run in group)
        for name, group in groups.items()
    }
    shares = {name: 100 * clips / clips.sum(1, keepdims=True) for name, clips in tables.items()}
    draw_confusions(names, shares)
    rows = [
        (f"**{name}**", *(f"{REPORT['confusion'][i][j]:.2f} / {shares['audiobot500'][i][j]:.2f}"
                          for j in range(len(names))))
        for i, name in enumerate(names)
    ]  # fmt: skip
    recalls = [
        (name, f"{REPORT['confusion'][i][i]:.1f} %",
         *(percent(_over([test(run)["recall"][name] for run in groups[one]])) for one in NETWORKS))
        for i, name in enumerate(names)
    ]  # fmt: skip
    return (
        "AudioBot500, % of each actual class (rows actual, columns decided), report / here:\n\n"
        + table(("", *names), rows)
        + "\n\nRecall, mean ± standard deviation over seeds:\n\n"
        + table(("class", "report: AudioBot500", "here: audiobot500", "here: audiobot50"), recalls)
    )


def draw_confusions(names: Sequence[str], shares: Mapping[str, np.ndarray]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.4, 4.4), dpi=90, layout="constrained")
    panels = (
        ("AudioBot500, report", np.array(REPORT["confusion"])),
        ("audiobot500, here", shares["audiobot500"]),
        ("audiobot50, here", shares["audiobot50"]),
    )
    for place, (axis, (title, percents)) in enumerate(
        zip(figure.subplots(1, 3, sharey=True), panels, strict=True)
    ):
        axis.imshow(np.sqrt(percents / 100), cmap="Blues", vmin=0, vmax=1.15)
        for (i, j), cell in np.ndenumerate(percents):
            colour = "white" if cell > 45 else "#1d2127" if cell else "#8a919b"
            axis.text(j, i, f"{cell:.1f}", ha="center", va="center", color=colour, fontsize=9.5)
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("decided")
        if not place:
            axis.set_ylabel("actual")
        axis.set_title(f"{title} (% of each row)", fontsize=10.5, loc="left")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    save(figure, "confusion.png")


def folds(found: Found) -> str | None:
    """Table 2 in the report's form: test held out once, the rest over folds."""
    parts = []
    for name in NETWORKS:
        file = found.file(f"{name}-crossval-scenes-*/crossval.json")
        if file is None:
            continue
        told = runs.read_json(file)
        epochs = ", ".join(str(fold["epochs"]) for fold in told["folds"])
        recall = [percent(told["recall"][one]) for one in told["class_names"]]
        parts.append(
            (name, str(len(told["folds"])), percent(told["test"]["accuracy"]),
             number(told["test"]["loss"]), percent(told["validation"]["accuracy"]), epochs, *recall)
        )  # fmt: skip
        found.use([runs.open_run(file.parent / fold["run"]) for fold in told["folds"]])
    if not parts:
        return None
    head = ("network", "folds", "test accuracy", "test loss", "validation accuracy", "epochs")
    names = told["class_names"]
    return table((*head, *(f"recall {name}" for name in names)), parts)


def sweeps(found: Found) -> str | None:
    """Figs 2, 8 and 9: what each study found."""
    rows = []
    for kind in ("random", "gp"):
        file = found.file(f"audiobot50-sweep-{kind}/sweep.json")
        if file is None:
            continue
        told = runs.read_json(file)
        copy(file.parent / "parallel.png", f"sweep-{kind}.png")
        if kind == "random":
            copy(file.parent / "importance.png", "sweep-importance.png")
        ended = sum(trial["state"] == "complete" for trial in told["trials"])
        best = told["best"]
        rows.append(
            (kind, str(len(told["trials"])), str(ended), f"{best['validation_loss']:.3f}",
             f"{100 * best['validation_accuracy']:.1f} %",
             ", ".join(f"{key} {_shown(value)}" for key, value in best["values"].items()),
             ", ".join(f"{key} {100 * share:.0f} %" for key, share in told["importances"].items())
             or "–")
        )  # fmt: skip
    if not rows:
        return None
    head = ("sampler", "trials", "to their end", "least validation loss", "accuracy there",
            "best values", "share of the variance of the loss")  # fmt: skip
    return table(head, rows)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ensembles(found: Found) -> str | None:
    """Idea 7: several small networks against one large, and what an ensemble teaches."""
    large = short(found, "dsc500")
    if not large:
        return None
    rows = [("dsc500", f"{large[0].metrics()['params']:,}", seeds(large), accuracy(large),
             loss(large), "", "")]  # fmt: skip
    groups: dict[str, list[Run]] = {}
    for run in found.pick(SMALL, "ensemble"):
        groups.setdefault(run.name, []).append(run)
    kinds = {member["name"] for group in groups.values() for member in group[0].manifest["members"]}
    for name in sorted(kinds):
        alone = short(found, name)
        if alone:
            rows.append((name, f"{alone[0].metrics()['params']:,}", seeds(alone), accuracy(alone),
                         loss(alone), "", gain(alone, large)))  # fmt: skip
    for name in sorted(groups, key=lambda name: (name.split()[1], int(name.split("x")[0]))):
        group = groups[name]
        rows.append((f"**{name}**", f"{group[0].metrics()['params']:,}",
                     f"from {seeds(group)}",
                     accuracy(group), loss(group), gain(group, short(found, name.split()[1])),
                     gain(group, large)))  # fmt: skip
    head = ("network", "parameters", "seeds", "test accuracy", "test loss",
            "minus one such network, points", "minus dsc500, points")  # fmt: skip
    text = table(head, rows)
    taught = found.pick(SMALL, "distill", name="dsc50", epochs=SHORT_EPOCHS)
    twins = {run.manifest["seed"]: run for run in short(found, "dsc50")}
    pairs = [(run, twins[run.manifest["seed"]]) for run in taught if run.manifest["seed"] in twins]
    if pairs:
        ours, theirs = (list(group) for group in zip(*pairs, strict=True))
        teachers = ", ".join(sorted({run.manifest["teachers"][0]["name"] for run in ours}))
        text += (
            f"\n\ndsc50 distilled from {teachers} (seeds {seeds(ours)}): {accuracy(ours)}, its "
            f"twin on labels alone {accuracy(theirs)}; distilled minus twin, points: "
            f"{gain(ours, theirs)}."
        )
    return text


def mixture(found: Found) -> str | None:
    """Idea 8: silence apart from sound."""
    band = {run.manifest["seed"]: run for run in short(found, "audiobot50")}
    apart = {run.manifest["seed"]: run for run in short(found, "audiobot50", "mixture")}
    both = sorted(band.keys() & apart.keys())
    if not both:
        return None
    groups = [[kind[seed] for seed in both] for kind in (band, apart)]
    found.use([run for group in groups for run in group])
    right = [[100 * test(run)["accuracy"] for run in group] for group in groups]
    rows = [
        (name, *(f"{value:.2f}" for value in values), accuracy(group), loss(group))
        for name, values, group in zip(("band", "mixture"), right, groups, strict=True)
    ]
    head = ("`--normalise`", *(f"seed {seed}" for seed in both), "mean", "loss")
    return table(head, rows) + f"\n\nmixture minus band, points: {gain(groups[1], groups[0])}."


def stream(found: Found) -> str | None:
    """Idea 9: a decision over several snippets."""
    parts = []
    for name in NETWORKS:
        group = [run for run in full(found, name) if (run.folder / "stream.json").is_file()]
        if not group:
            continue
        told = [runs.read_json(run.folder / "stream.json") for run in group]
        for run, one in zip(group, told, strict=True):
            if one["sha256"] != run.metrics()["sha256"]:
                raise InputError(f"{run.folder}: stream.json is of another file; measure it again")
        if name == "audiobot500":
            copy(group[0].folder / "stream.png", "stream.png")
        rules = {"one window": [one["single"] for one in told]}
        for row in told[0]["chosen"]:
            rules[row["rule"]] = [
                next(r for r in one["chosen"] if r["rule"] == row["rule"]) for one in told
            ]
        for rule, rows in rules.items():
            times = ", ".join(dict.fromkeys(f"{row['seconds']:g}" for row in rows))
            tests = [row["test"] for row in rows]
            wrong = [t["error"] for t in tests]
            single = [row["test"]["error"] for row in rules["one window"]]
            fewer = [ours - theirs for ours, theirs in zip(wrong, single, strict=True)]
            half = over_seeds(fewer)
            parts.append(
                (name, rule, "" if rule == "one window" else f"{times} s",
                 percent(_over(wrong)),
                 "" if rule == "one window" else f"{100 * statistics.fmean(fewer):+.2f}"
                 + (f" ({_ends(statistics.fmean(fewer), half)})" if half is not None else ""),
                 f"{statistics.fmean(t['delay']['mean'] for t in tests):.1f} s",
                 percent(_over([t["missed_scenes"] for t in tests])),
                 f"{statistics.fmean(t['false_alarms_per_hour'] for t in tests):.0f}")
            )  # fmt: skip
    if not parts:
        return None
    head = ("network", "rule", "time", "wrong decisions", "minus one window, points (over seeds)",
            "first right after", "scenes never right", "false alarms per hour")  # fmt: skip
    return table(head, parts, 2)


def prices(found: Found) -> str | None:
    """Idea 10: the importance of the classes, by the shipped costs."""
    rows = []
    shipped = costs.load(costs.SHIPPED)
    for name in NETWORKS:
        group = full(found, name)
        if not group:
            return None
        matrix = shipped.matrix(group[0].class_names)
        by_class, by_cost, saved, recall = [], [], [], {"argmax": [], "cost": []}
        lost = []
        for run in group:
            told = decisions(run)
            plain = told.probabilities.argmax(axis=1)
            priced = costs.decide(told.probabilities, matrix)
            by_class.append(costs.mean_cost(told.labels, plain, matrix))
            by_cost.append(costs.mean_cost(told.labels, priced, matrix))
            saved.append(matrix[told.labels, priced] - matrix[told.labels, plain])
            lost.append(float((priced == told.labels).mean() - (plain == told.labels).mean()))
            voice = told.labels == group[0].class_names.index("human voice")
            for key, decided in (("argmax", plain), ("cost", priced)):
                recall[key].append(float((decided == told.labels)[voice].mean()))
        mean, half = over_clips(saved, told.recording_ids)
        apart = over_seeds([float(one.mean()) for one in saved])
        between = f"{mean - half:+.4f} to {mean + half:+.4f}"
        if apart is not None:
            between += f"; over seeds {mean - apart:+.4f} to {mean + apart:+.4f}"
        rows.append(
            (name, f"{statistics.fmean(by_class):.4f}", f"{statistics.fmean(by_cost):.4f}",
             f"{mean:+.4f} (over recordings {between})",
             f"{100 * mean / statistics.fmean(by_class):+.1f} %",
             f"{100 * statistics.fmean(lost):+.2f}",
             f"{100 * statistics.fmean(recall['argmax']):.1f} to "
             f"{100 * statistics.fmean(recall['cost']):.1f} %",
             number(_over([test(run)["calibration_error"] for run in group])))
        )  # fmt: skip
    head = ("network", "cost per clip, most probable class", "least expected cost", "difference",
            "share", "accuracy, points", "recall of voice", "calibration error")  # fmt: skip
    return table(head, rows)


def baselines(found: Found) -> str | None:
    """Classifiers without a network beside the recipe's networks."""
    group = found.pick(FULL, "baseline")
    if not group:
        return None
    rows = [
        (run.name, f"{run.metrics()['params']:,}", f"{100 * test(run)['accuracy']:.1f} % "
         f"({100 * test(run)['accuracy_low']:.1f} to {100 * test(run)['accuracy_high']:.1f})",
         f"{test(run)['loss']:.3f}")
        for run in sorted(group, key=lambda run: test(run)["accuracy"])
    ]  # fmt: skip
    for name in NETWORKS[::-1]:
        networks = full(found, name)
        if networks:
            rows.append((name, f"{networks[0].metrics()['params']:,}",
                         f"{accuracy(networks)} over seeds", loss(networks)))  # fmt: skip
    return table(("classifier", "numbers in the file", "test accuracy (95 % interval)",
                  "test loss"), rows)  # fmt: skip


def files(found: Found) -> str | None:
    """Every file that a figure above was measured on."""
    if not found.used:
        return None
    rows = [
        (f"{run.name}, {run.manifest['stage']}, seed {run.manifest['seed']}"
         + (f", fold {run.manifest['fold']}" if run.manifest.get("fold") else "")
         + ("" if _value(run, "normalise") == "band" else ", mixture"),
         str(run.manifest["data"]["name"]), f"`{run.metrics()['sha256'][:16]}`",
         f"{100 * test(run)['accuracy']:.2f} %", str(run.manifest.get("device", "")))
        for run in found.used.values()
    ]  # fmt: skip
    rows.sort(key=lambda row: (row[1] != FULL, row[0]))
    return table(("run", "data", "SHA-256 of the file", "test accuracy", "trained on"), rows, 3)


PARTS: dict[str, Callable[[Found], str | None]] = {
    "classes": classes, "results": results, "confusion": confusion, "folds": folds,
    "sweeps": sweeps, "ensembles": ensembles, "mixture": mixture, "stream": stream,
    "costs": prices, "baselines": baselines, "files": files,
}  # fmt: skip


# --- writing -------------------------------------------------------------------------------------


def copy(picture: Path, name: str) -> None:
    """A picture of a command into docs/figures, of few colours to be small."""
    from PIL import Image

    if not picture.is_file():
        raise InputError(f"{picture}: is missing; give the command of the page again")
    FIGURES.mkdir(exist_ok=True)
    with runs.atomic_path(FIGURES / name) as path, Image.open(picture) as image:
        if image.mode == "P":  # of few colours already
            shutil.copyfile(picture, path)
        else:
            image.convert("RGB").quantize(192).save(path, format="png", optimize=True)


def save(figure: Any, name: str) -> None:
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    FIGURES.mkdir(exist_ok=True)
    with runs.atomic_path(FIGURES / name) as path:
        Image.open(drawn).convert("RGB").quantize(192).save(path, format="png", optimize=True)


def put(page: str, name: str, text: str) -> str:
    """The page with this part between its marks; raises InputError where it has none."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if len(pattern.findall(page)) != 1:
        raise InputError(f"{PAGE}: has no marks <!-- {name} --> and <!-- /{name} -->")
    return pattern.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, action="append", metavar="FOLDER",
                        help="folder that holds the run folders; may be given several times "
                        "(default: runs)")  # fmt: skip
    parser.add_argument("--part", choices=sorted(PARTS), action="append",
                        help="only this part; may be given several times")  # fmt: skip
    given = parser.parse_args()
    try:
        found = Found(given.runs or [Path("runs")])
        page = PAGE.read_text(encoding="utf-8")
        lacking = []
        for name, part in PARTS.items():
            text = part(found)
            if given.part and name not in given.part:
                continue
            if text is None:
                lacking.append(name)
            else:
                page = put(page, name, text)
        runs.write_text(PAGE, page)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if lacking:
        print(f"left as they are, their runs are not there: {', '.join(lacking)}")
    print(f"The page lies in {PAGE.relative_to(ROOT)}, its pictures in docs/figures.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
