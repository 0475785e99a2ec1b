"""The report as text: for the terminal, as Markdown and as CSV.

Names come from files. None of them may end a cell, start a formula, a link or a tag.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence

from reports import chip, npu
from reports.records import Entry, Record, Report, Standing, Summary, plain

HEAD = (
    "network",
    "stage",
    "data",
    "parameters",
    "in file",
    "MACs",
    "file",
    "peak RAM",
    "accuracy (95 % interval)",
    "seeds",
    "latency",
    "within budget",
    "expected cost",
)
NUMERIC = frozenset({3, 4, 5, 6, 7, 8, 9, 10, 12})  # columns that are set flush right
_LEAVE_OUT_FIRST = (4, 6, 7, 10, 12, 9, 5)  # in a narrow terminal
SUMMARY_HEAD = (
    "network",
    "stage",
    "data",
    "runs",
    "accuracy, mean ± standard deviation",
    "least",
    "most",
    "parameters",
    "MACs",
)
SUMMARY_NUMERIC = frozenset({3, 4, 5, 6, 7, 8})
FIGURE_NAMES = {
    "params": "parameters",
    "macs": "MACs",
    "file_bytes": "file bytes",
    "peak_activation_bytes": "peak activation bytes",
    "flash_bytes": "flash bytes (int8)",
    "ram_bytes": "RAM bytes on a chip",
    "instructions": "instructions on a chip",
    "chip_accuracy": "accuracy of the C code",
    "latency_ratio": "of the time of the file that it was made of",
    "accuracy": "accuracy (lower end of its interval)",
    "accuracy_drop": "accuracy lost against a base",
}
_LEAST = ("accuracy", "chip_accuracy")
_SHARES = ("accuracy", "accuracy_drop", "chip_accuracy")
MISSING = "–"


# --- one value -----------------------------------------------------------------------------------


def count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def millions(value: int | None) -> str:
    """Multiply-accumulates: 17.6 M, 850 K."""
    if value is None:
        return MISSING
    if value >= 999_950_000:
        return f"{value / 1e9:.2f} G"
    return f"{value / 1e6:.1f} M" if value >= 999_500 else f"{value / 1e3:.0f} K"


def size(value: int | None) -> str:
    """Bytes: 512 B, 96.0 KiB, 1.91 MiB."""
    if value is None:
        return MISSING
    if value < 1024:
        return f"{value} B"
    return f"{value / 1024:.1f} KiB" if value < 1024**2 else f"{value / 1024**2:.2f} MiB"


def percent(value: float | None, digits: int = 1) -> str:
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def accuracy(record: Record) -> str:
    if record.accuracy is None:
        return MISSING
    text = percent(record.accuracy)
    if record.accuracy_low is None or record.accuracy_high is None:
        return text
    return f"{text} ({100 * record.accuracy_low:.1f} to {100 * record.accuracy_high:.1f})"


def standing(value: Standing) -> str:
    """Accuracy of a run with its interval, or of several as mean and standard deviation."""
    if value.deviation is None:
        return accuracy(value.first.record)
    return f"{100 * value.accuracy:.1f} ± {100 * value.deviation:.1f} %"


def cost(record: Record) -> str:
    """Mean cost of the most probable class and, in brackets, of the least expected cost."""
    if record.expected_cost is None:
        return MISSING
    text = f"{record.expected_cost:.3f}"
    least = record.expected_cost_by_costs
    return text if least is None else f"{text} ({least:.3f})"


def milliseconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g} ms"


def budget(within: bool | None, over: Mapping[str, float]) -> str:
    """'yes', or by how much not."""
    if within:
        return "yes"
    if within is None and not over:
        return MISSING
    return "no: " + ", ".join(_excess(figure, amount) for figure, amount in over.items())


def _excess(figure: str, amount: float) -> str:
    if figure in _SHARES:
        side = "under the least" if figure in _LEAST else "over"
        return f"{figure.replace('_', ' ')} {100 * amount:.1f} points {side}"
    if figure == "latency_ratio":
        return f"latency ratio {amount:.2f} over"
    return f"{amount:,} {FIGURE_NAMES.get(figure, figure)} over"


def cells(entry: Entry) -> tuple[str, ...]:
    """The row of an artefact under HEAD."""
    record = entry.record
    return (
        plain(entry.label) + (" (!)" if entry.warning else ""),
        plain(record.stage),
        plain(record.data or MISSING) + (" (synthetic)" if _say_synthetic(entry) else ""),
        count(record.params),
        count(record.file_params),
        millions(record.macs),
        size(record.file_bytes),
        size(record.peak_activation_bytes),
        accuracy(record),
        MISSING if record.seeds is None else str(record.seeds),
        milliseconds(record.latency_ms),
        budget(record.within_budget, entry.over),
        cost(record),
    )


def summary_cells(summary: Summary) -> tuple[str, ...]:
    """The row of a group of runs under SUMMARY_HEAD."""
    mean, deviation = 100 * summary.accuracy_mean, 100 * summary.accuracy_deviation
    return (
        plain(summary.name),
        plain(summary.stage),
        plain(summary.data),
        f"{summary.runs} {summary.varied}",
        f"{mean:.1f} ± {deviation:.1f} %",
        percent(summary.accuracy_least),
        percent(summary.accuracy_most),
        count(summary.params),
        millions(summary.macs),
    )


def warnings_of(report: Report) -> list[str]:
    """Everything that a reader has to know before believing the table, one sentence each."""
    flagged = [f"{entry.run}: {entry.warning}" for entry in report.entries if entry.warning]
    fallen = npu.warnings_of(report.npus)
    return [plain(line) for line in (*flagged, *fallen, *report.notes)]


def _say_synthetic(entry: Entry) -> bool:
    return entry.synthetic and "synthetic" not in (entry.record.data or "")


# --- whole tables --------------------------------------------------------------------------------


def terminal(
    report: Report, width: int | None = None, most_rows: int = 40, most_notes: int = 10
) -> str:
    """The tables and notes for a terminal; what does not fit is left out, and that is said.

    width: columns of the terminal; None: as wide as the table.
    """
    every_row = [cells(entry) for entry in report.entries]
    rows = [tuple(map(_shortened, row)) for row in every_row[:most_rows]]
    used = used_columns(every_row)
    kept = list(used)
    for column in _LEAVE_OUT_FIRST:
        table = _aligned(HEAD, rows, NUMERIC, kept)
        if width is None or len(table.partition("\n")[0]) <= width:
            break
        kept = [index for index in kept if index != column]
    parts = [_aligned(HEAD, rows, NUMERIC, kept)]
    if len(kept) < len(used):
        lost = ", ".join(HEAD[index] for index in used if index not in kept)
        parts.append(f"(left out for want of room, see report.md: {lost})")
    if len(report.entries) > most_rows:
        parts.append(f"... and {len(report.entries) - most_rows:,} more rows in report.md")
    if report.summaries:
        grouped = [
            tuple(map(_shortened, summary_cells(summary)))
            for summary in report.summaries[:most_rows]
        ]
        every = list(range(len(SUMMARY_HEAD)))
        parts += ["", _aligned(SUMMARY_HEAD, grouped, SUMMARY_NUMERIC, every)]
        if len(report.summaries) > most_rows:
            parts.append(f"... and {len(report.summaries) - most_rows:,} more in report.md")
    if report.chips:
        on_chips = [tuple(map(_shortened, map(plain, row))) for row in chip.rows(report.chips)]
        every = list(range(len(chip.HEAD)))
        parts += ["", "On a chip, emulated; estimates (est.) are not measured", ""]
        parts.append(_aligned(chip.HEAD, on_chips[:most_rows], chip.NUMERIC, every))
        if len(report.chips) > most_rows:
            parts.append(f"... and {len(report.chips) - most_rows:,} more in report.md")
    memory = memory_lines(report)
    parts += ["", *memory] if memory else []
    if report.tree:
        parts += ["", *(line if width is None else line[:width] for line in report.tree)]
    if report.npus:
        rows = [tuple(map(_shortened, npu.cells(record))) for record in report.npus[:most_rows]]
        parts += ["", _aligned(npu.HEAD, rows, npu.NUMERIC, list(range(len(npu.HEAD))))]
    notes = warnings_of(report)
    parts += ["", *(f"note: {note}" for note in notes[:most_notes])] if notes else []
    if len(notes) > most_notes:
        parts.append(f"note: and {len(notes) - most_notes:,} more notes in report.md")
    return "\n".join(parts)


def markdown(report: Report) -> str:
    """report.md, fit for a job summary on GitHub."""
    used = used_columns([cells(entry) for entry in report.entries])
    lines = ["# Compression report", ""]
    if report.made:
        lines += [f"Made {escape_markdown(report.made)}. {limits_sentence(report.limits)}", ""]
    rows = [cells(entry) for entry in report.entries]
    lines += _markdown_table(HEAD, rows, NUMERIC, used)
    if report.summaries:
        every = list(range(len(SUMMARY_HEAD)))
        lines += ["", "## Over seeds and folds", ""]
        grouped = [summary_cells(summary) for summary in report.summaries]
        lines += _markdown_table(SUMMARY_HEAD, grouped, SUMMARY_NUMERIC, every)
    if report.chips:
        lines += ["", "## On a chip", ""]
        on_chips = chip.rows(report.chips)
        lines += _markdown_table(chip.HEAD, on_chips, chip.NUMERIC, list(range(len(chip.HEAD))))
        told = [*chip.DEFINITIONS, *chip.sources(report.chips)]
        lines += ["", *(f"{escape_markdown(sentence)}  " for sentence in told)]
    memory = memory_lines(report)
    if memory:
        lines += ["", "## Memory that the int8 files take on a chip", ""]
        lines += [f"- {escape_markdown(line)}" for line in memory]
    if report.tree:
        lines += ["", "## What was made of what", "", *(f"    {line}" for line in report.tree)]
    if report.npus:
        every = list(range(len(npu.HEAD)))
        lines += ["", f"## {npu.TITLE}", ""]
        lines += _markdown_table(
            npu.HEAD, [npu.cells(record) for record in report.npus], npu.NUMERIC, every
        )
        told = [*npu.DEFINITIONS, *npu.sources(report.npus)]
        lines += ["", *(f"{escape_markdown(sentence)}  " for sentence in told)]
    notes = warnings_of(report)
    if notes:
        lines += ["", "## Notes", ""] + [f"- {escape_markdown(note)}" for note in notes]
    lines += ["", *(f"{escape_markdown(sentence)}  " for sentence in definitions(report)), ""]
    return "\n".join(lines)


def memory_lines(report: Report, most: int = 40) -> list[str]:
    """Flash and peak RAM of every int8 file, with the layer at which the peak stands."""
    lines = []
    for entry in report.entries:
        record = entry.record
        if record.flash_bytes is None:
            continue
        at = f" at {record.peak_layer}" if record.peak_layer else ""
        lines.append(
            plain(
                f"int8 {entry.label}: flash {size(record.flash_bytes)}, "
                f"peak RAM {size(record.peak_activation_bytes)}{at}"
            )
        )
    more = len(lines) - most
    return lines[:most] + ([f"... and {more:,} more in report.json"] if more > 0 else [])


def comma_separated(report: Report) -> str:
    """report.csv: the keys of report.json as columns, safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out)
    keys = [spec.name for spec in dataclasses.fields(Record)]
    writer.writerow(keys)
    for entry in report.entries:
        values = {
            spec.name: getattr(entry.record, spec.name) for spec in dataclasses.fields(Record)
        }
        if entry.record.recall is not None:
            values["recall"] = json.dumps(dict(entry.record.recall), ensure_ascii=False)
        values["within_budget"] = budget(entry.record.within_budget, entry.over)
        if values["within_budget"] == MISSING:
            values["within_budget"] = None
        writer.writerow([escape_csv(value) for value in values.values()])
    return out.getvalue()


DEFINITIONS = (
    "Accuracy is that of the file (a .tflite file in LiteRT, a baseline in numpy, others in "
    "onnxruntime), per clip of the test split; in brackets its 95 % interval.",
    "Parameters are learnable ones as trained; in file: weights in the file, batch norm folded.",
    "MACs: multiply-accumulates of convolutions and linear layers, for one window.",
    "Peak RAM: activations alive at once in the order of execution, for one window; below it the "
    "layer at which the peak stands.",
    "Flash: of an int8 file, every number stored in it (weights, biases, scales, zero points, "
    "codebooks), each tensor once, in the type in which it is stored.",
    "Latency: one window, one thread, median, on the machine that made the run.",
    "Seeds: runs that differ by seed or fold alone.",
)
COST_DEFINITION = (
    "Expected cost: mean cost of a test clip; in brackets with the class of least expected cost "
    "decided instead of the most probable one. "
)


def definitions(report: Report) -> tuple[str, ...]:
    """What the columns mean; costs where any are shown."""
    if not report.costs:
        return DEFINITIONS
    return (*DEFINITIONS, plain(COST_DEFINITION + report.costs))


def limits_sentence(limits: Mapping[str, float]) -> str:
    listed = ", ".join(
        f"{'at least' if figure in _LEAST else 'at most'} "
        f"{f'{100 * limit:g} %' if figure in _SHARES else f'{limit:,}'} "
        f"{FIGURE_NAMES.get(figure, figure)}"
        for figure, limit in limits.items()
    )
    return f"Budget: {listed}." if listed else "No budget."


# --- escapes -------------------------------------------------------------------------------------


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no cell, tag, link, mention or emphasis of its own."""
    text = re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", plain(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = text.replace("@", "&#64;").replace("://", ":&#47;&#47;")
    return re.sub(r"(?i)\bwww\.", "www&#46;", text)


def escape_csv(value: object) -> object:
    """A value for a CSV cell; text that a spreadsheet would run as a formula gets an apostrophe."""
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "|", "%") else text


# --- layout --------------------------------------------------------------------------------------


def used_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns that hold anything: before a run exists most are empty."""
    return [
        index
        for index in range(len(HEAD))
        if index < 2 or any(row[index] != MISSING for row in rows)
    ]


def _shortened(cell: str, most: int = 60) -> str:
    return cell if len(cell) <= most else cell[: most - 1] + "…"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A table for a terminal: the first columns are words, the others numbers."""
    every = list(range(len(head)))
    return _aligned(head, rows, frozenset(every[text_columns:]), every)


def _aligned(
    head: Sequence[str], rows: Sequence[Sequence[str]], numeric: frozenset[int], used: list[int]
) -> str:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def written(line: Sequence[str]) -> str:
        parts = [
            line[i].rjust(widths[i]) if i in numeric else line[i].ljust(widths[i]) for i in used
        ]
        return "  ".join(parts).rstrip()

    rule = "  ".join("─" * widths[i] for i in used)
    return "\n".join([written(head), rule, *(written(row) for row in rows)])


def _markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numeric: frozenset[int], used: list[int]
) -> list[str]:
    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(escape_markdown(values[i]) for i in used) + " |"

    rule = "|" + "|".join("---:" if i in numeric else "---" for i in used) + "|"
    return [line(head), rule, *(line(row) for row in rows)]
