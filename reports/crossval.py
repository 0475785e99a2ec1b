"""A cross-validation as text, Markdown and a picture, from the numbers of crossval.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.confusion import draw_confusion
from reports.literal import literal_text
from reports.records import plain
from reports.tables import count, escape_markdown, millions

Summary = Mapping[str, Any]


def text(summary: Summary) -> str:
    """Accuracy, loss and recalls over the folds for the terminal."""
    test, validation = summary["test"], summary["validation"]
    lines = [
        f"{plain(summary['student'])}, {len(summary['folds'])} folds, mean +- standard deviation",
        f"  test accuracy        {percent(test['accuracy'])}",
        f"  test loss            {number(test['loss'])}",
        f"  validation accuracy  {percent(validation['accuracy'])}",
        f"  validation loss      {number(validation['loss'])}",
    ]
    width = max(len(plain(name)) for name in summary["class_names"])
    lines += [
        f"  recall {plain(name):<{width}}  {percent(recall)}"
        for name, recall in summary["recall"].items()
    ]
    return "\n".join(lines)


def markdown(summary: Summary) -> str:
    """crossval.md: the report's Table 2, every fold, recalls, and the confusion matrix."""
    esc = escape_markdown
    data = f"{summary['data']}{' (synthetic)' if _say_synthetic(summary) else ''}"
    how = (
        "Official folds, each the test once."
        if summary["official_folds"]
        else "10 % of the recordings are the test, held out once; the rest 9:1 over the folds."
    )
    lines = [
        f"# {esc(summary['student'])}, {esc(summary['stage'])}: {len(summary['folds'])} folds of "
        f"{esc(data)}",
        "",
        f"{how} Seed {summary['seed']}; mean ± sample standard deviation over folds; accuracy per "
        "clip of the ONNX file in onnxruntime.",
        "",
        "| network | parameters | MACs | test accuracy | test loss | validation accuracy | "
        "validation loss |",
        "|---|---:|---:|---:|---:|---:|---:|",
        f"| {esc(summary['student'])} | {count(summary['params'])} | {millions(summary['macs'])} | "
        f"{percent(summary['test']['accuracy'])} | {number(summary['test']['loss'])} | "
        f"{percent(summary['validation']['accuracy'])} | "
        f"{number(summary['validation']['loss'])} |",
        "",
        "| class | recall |",
        "|---|---:|",
        *(f"| {esc(name)} | {percent(r)} |" for name, r in summary["recall"].items()),
        "",
        "Confusion in % (rows actual, columns decided), clips of all folds together:",
        "",
        "| | " + " | ".join(esc(name) for name in summary["class_names"]) + " |",
        "|---|" + "---:|" * len(summary["class_names"]),
    ]
    for name, row in zip(summary["class_names"], summary["confusion"]["percent"], strict=True):
        lines.append(f"| **{esc(name)}** | " + " | ".join(f"{cell:.2f}" for cell in row) + " |")
    lines += [
        "",
        "| fold | test accuracy | test loss | validation accuracy | epochs | file (SHA-256) |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for fold in summary["folds"]:
        lines.append(
            f"| {fold['fold']} | {100 * fold['test']['accuracy']:.1f} % | "
            f"{fold['test']['loss']:.3f} | {100 * fold['validation']['accuracy']:.1f} % | "
            f"{fold['epochs']} | {esc(fold['run'])} ({fold['sha256'][:12]}) |"
        )
    return "\n".join([*lines, ""])


@literal_text
def save_figure(summary: Summary, picture: Path) -> None:
    """Confusion matrix (rows actual, % per row), accuracy of every fold, and recalls, as PNG."""
    from matplotlib.figure import Figure

    names = [plain(name) for name in summary["class_names"]]
    percents = summary["confusion"]["percent"]
    n = len(names)
    side = max(4.6, 0.62 * n + 1.9)
    figure = Figure(figsize=(side + 5.0, side), dpi=120, layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(side, 4.4), height_ratios=(1, 1.15))
    matrix = figure.add_subplot(grid[:, 0])
    draw_confusion(matrix, names, percents)
    matrix.set_title("Confusion, % of each row", fontsize=11, loc="left")

    folds = figure.add_subplot(grid[0, 1])
    numbers = [fold["fold"] for fold in summary["folds"]]
    accuracies = [100 * fold["test"]["accuracy"] for fold in summary["folds"]]
    mean, deviation = (summary["test"]["accuracy"][key] for key in ("mean", "deviation"))
    if deviation is not None:
        folds.axhspan(100 * (mean - deviation), 100 * (mean + deviation), color="#dbe8f7")
    folds.axhline(100 * mean, color="#0b62c4", lw=1)
    folds.plot(numbers, accuracies, "o", color="#0b62c4")
    folds.set_xticks(numbers)
    folds.set_xlabel("fold")
    folds.set_ylabel("test accuracy (%)")
    folds.set_title(
        f"{summary['student']}: {percent(summary['test']['accuracy'])}, "
        f"loss {number(summary['test']['loss'])}",
        fontsize=11,
        loc="left",
    )
    folds.grid(axis="y", color="#d9dce1", lw=0.6)
    folds.spines[["top", "right"]].set_visible(False)

    bars = figure.add_subplot(grid[1, 1])
    found = [summary["recall"][name] for name in summary["class_names"]]
    recalls = [100 * (recall["mean"] or 0.0) for recall in found]
    errors = [100 * (recall["deviation"] or 0.0) for recall in found]
    bars.barh(range(n), recalls, xerr=errors, color="#0b62c4", ecolor="#5c646f", height=0.6)
    bars.set_yticks(range(n), names)
    bars.invert_yaxis()
    bars.set_xlim(0, 105)
    bars.set_xlabel("recall (%), mean and standard deviation over folds")
    bars.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, format="png")


def percent(value: Mapping[str, Any]) -> str:
    """95.3 ± 0.2 %"""
    if value["mean"] is None:
        return "–"
    spread = "" if value["deviation"] is None else f" ± {100 * value['deviation']:.1f}"
    return f"{100 * value['mean']:.1f}{spread} %"


def number(value: Mapping[str, Any]) -> str:
    """0.153 ± 0.003"""
    if value["mean"] is None:
        return "–"
    spread = "" if value["deviation"] is None else f" ± {value['deviation']:.3f}"
    return f"{value['mean']:.3f}{spread}"


def _say_synthetic(summary: Summary) -> bool:
    return bool(summary["synthetic"]) and "synthetic" not in str(summary["data"])
