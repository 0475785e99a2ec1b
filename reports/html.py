"""The report as one HTML page that needs nothing else: no script, no font, no address.

Everything that comes from a file is escaped; a content policy forbids what would slip through.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from html import escape

from reports import chip, figures, lineage, npu, tables
from reports.records import Entry, Record, Report, plain, standings
from reports.style import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


_IN_FILE = 4  # column that stands below the parameters on the page
_HEAD = {8: "accuracy", 12: "cost"}


def page(report: Report) -> str:
    """The text of report.html."""
    body = [
        "<h1>Compression report</h1>",
        f'<p class="lead">{_lead(report)}</p>',
        _tiles(report),
        _notes(report),
        _table(report),
        _summaries(report),
        _chips(report),
        _npus(report),
        *(_scatter(report, data, entries) for data, entries in _by_data(report.measured)),
        _lineage(report),
        _details(report),
        _footer(report),
    ]
    return document("Compression report", body)


def document(title: str, body: Sequence[str]) -> str:
    """A whole page of the workbench's style around parts that are escaped already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(words: object) -> str:
    return escape(plain(words), quote=True)


def _lead(report: Report) -> str:
    measured = report.measured
    sets = {entry.data_set for entry in measured}
    if measured:
        what = (
            f"{_many(len(report.entries), 'artefact')}, measured on {_many(len(sets), 'data set')}."
        )
    else:
        what = (
            f"{_many(len(report.entries), 'registered student')}, none trained yet: "
            "sizes only, no accuracy."
        )
    made = f" Made {_text(report.made)}." if report.made else ""
    return f"{what} {_text(tables.limits_sentence(report.limits))}{made}"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _by_data(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Entries by data set, the set with most of them first: accuracies compare within one only."""
    grouped: dict[str, list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(entry.data_set, []).append(entry)
    return sorted(grouped.items(), key=lambda item: -len(item[1]))


def _synthetic(entries: Sequence[Entry]) -> str:
    if any(entry.synthetic for entry in entries):
        return " These sounds are <b>synthetic</b>, made by the built-in synthesiser."
    return ""


def _tiles(report: Report) -> str:
    """Per data set: the most accurate student within the budget, seeds and folds averaged."""
    tiles = []
    for data, entries in _by_data(report.measured)[:4]:
        within = [e for e in entries if e.record.within_budget and e.record.stage != "teach"]
        if not within:
            continue
        best = max(standings(within), key=lambda standing: standing.accuracy)
        record = best.first.record
        many = len(best.members) > 1
        spread = f"mean of {len(best.members)} {best.first.varied}" if many else "95 % interval "
        spread += "" if many else _interval(record)
        size = f"{tables.count(record.params)} parameters, {tables.millions(record.macs)} MACs"
        shown = tables.standing(best) if many else tables.percent(record.accuracy)
        tiles.append(
            f'<div class="tile"><span>Best student within budget on {_text(data)}'
            f"{_mark(best.first)}</span>"
            f"<b>{_text(shown)}</b>"
            f'<span class="what">{_text(record.name)}, {_text(record.stage)}</span>'
            f"<span>{_text(spread)}</span><span>{_text(size)}</span></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _interval(record: Record) -> str:
    if record.accuracy_low is None or record.accuracy_high is None:
        return "not known"
    return f"{100 * record.accuracy_low:.1f} to {100 * record.accuracy_high:.1f}"


def _mark(entry: Entry) -> str:
    return '<i class="tag">synthetic</i>' if entry.synthetic else ""


def _notes(report: Report) -> str:
    notes = tables.warnings_of(report)
    if not notes:
        return ""
    listed = "".join(f"<li>{_text(note)}</li>" for note in notes[:200])
    if len(notes) > 200:
        listed += f"<li>and {len(notes) - 200:,} more, in report.md</li>"
    flagged = any(entry.warning for entry in report.entries)
    shown = " open" if flagged or len(notes) <= 5 else ""
    return (
        f'<details class="notes"{shown}><summary>{_many(len(notes), "note")}: '
        f"what this report leaves out or does not vouch for</summary><ul>{listed}</ul></details>"
    )


def _table(report: Report) -> str:
    rows = [tables.cells(entry) for entry in report.entries]
    used = [i for i in tables.used_columns(rows) if i != _IN_FILE]
    head = "".join(
        f"<th{' class=n' if i in tables.NUMERIC else ''}>{_text(_HEAD.get(i, tables.HEAD[i]))}</th>"
        for i in used
    )
    body = []
    for entry, row in zip(report.entries, rows, strict=True):
        columns = "".join(_cell(entry, i, row[i]) for i in used)
        body.append(f'<tr title="{_text(entry.record.artifact or "")}">{columns}</tr>')
    title = "Artefacts" if report.measured else "Registered students"
    return (
        f'<h2>{title}</h2><div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(entry: Entry, column: int, words: str) -> str:
    """One cell of the artefacts' table; what is second in importance stands below in small."""
    record = entry.record
    shown, below, kind = _text(words), "", "n" if column in tables.NUMERIC else ""
    if column == 0:
        shown, below = _text(record.name), _text(entry.variant)
        if entry.warning:
            below += f' <i class="tag no" title="{_text(entry.warning)}">not valid</i>'
    elif column == 2:
        told = "fold" in entry.variant  # then the fold stands below the name
        shown = _text((entry.data_set if told else record.data) or tables.MISSING)
        below = _mark(entry)
    elif column == 3 and record.file_params is not None:
        below = f"{tables.count(record.file_params)} in file"
    elif column == 6 and record.flash_bytes is not None:
        below = f"flash {tables.size(record.flash_bytes)}"
    elif column == 7 and record.peak_layer:
        below = f'<span title="{_text(record.peak_layer)}">at {_text(_layer(record))}</span>'
    elif column == 8 and record.accuracy is not None:
        shown, below = _text(tables.percent(record.accuracy)), _text(_interval(record))
    elif column == 11:
        within = record.within_budget
        kind = "wrap yes" if within else "wrap no" if within is False else ""
    elif column == 12 and record.expected_cost_by_costs is not None:
        shown = _text(f"{record.expected_cost:.3f}")
        below = f"by cost {record.expected_cost_by_costs:.3f}"
    below = f"<small>{below}</small>" if below else ""
    return f'<td class="{kind}">{shown}{below}</td>' if kind else f"<td>{shown}{below}</td>"


def _layer(record: Record, most: int = 18) -> str:
    """The layer as the network's author knows it: by its weight, where it has one.

    ``node_conv2d_3 (network.blocks.1.0.weight)`` -> ``blocks.1.0``
    """
    name = record.peak_layer or ""
    _, bracket, weight = name.partition(" (")
    if bracket:
        name = weight.removesuffix(")").removeprefix("network.").rpartition(".")[0] or name
    return name if len(name) <= most else "…" + name[1 - most :]


def _summaries(report: Report) -> str:
    if not report.summaries:
        return ""
    head = "".join(
        f"<th{' class=n' if i in tables.SUMMARY_NUMERIC else ''}>{_text(name)}</th>"
        for i, name in enumerate(tables.SUMMARY_HEAD)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if i in tables.SUMMARY_NUMERIC else ''}>{_text(cell)}</td>"
            for i, cell in enumerate(tables.summary_cells(summary))
        )
        + "</tr>"
        for summary in report.summaries
    )
    return (
        "<h2>Over seeds and folds</h2><p>Runs that differ by seed or fold alone; the spread is the "
        'sample standard deviation.</p><div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _chips(report: Report) -> str:
    """Exports on emulated processors, and where each one's instructions go."""
    if not report.chips:
        return ""
    told = "".join(f"<li>{_text(line)}</li>" for line in chip.sources(report.chips))
    defined = "".join(f"<li>{_text(line)}</li>" for line in chip.DEFINITIONS)
    layers = "".join(
        f"<details><summary>{_text(record.name)} on {_text(record.target)}: instructions per layer"
        f"</summary>{_plain_table(chip.LAYER_HEAD, chip.layer_rows(record), chip.LAYER_NUMERIC)}"
        "</details>"
        for record in report.chips
        if record.layers
    )
    return (
        "<h2>On a chip</h2><p>C code of int8 networks, run in an emulator. Instructions and bytes "
        "are measured; cycles, time and energy are <b>estimates</b>.</p>"
        + _plain_table(chip.HEAD, chip.rows(report.chips), chip.NUMERIC)
        + f"{layers}<details><summary>What the figures are, and what the estimates are made from"
        f"</summary><ul>{defined}{told}</ul></details>"
    )


def _plain_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Set[int]
) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(
            f"<{tag}{' class=n' if i in numeric else ''}>{_text(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        ) + "</tr>"  # fmt: skip

    return (
        f'<div class="scroll" tabindex="0"><table><thead>{row("th", head)}</thead>'
        f"<tbody>{''.join(row('td', cells) for cells in rows)}</tbody></table></div>"
    )


def _npus(report: Report) -> str:
    """.tflite exports on Arm NPUs, as Vela compiled them; what falls back to the CPU is marked."""
    if not report.npus:
        return ""
    head = "".join(
        f"<th{' class=n' if i in npu.NUMERIC else ''}>{_text(name)}</th>"
        for i, name in enumerate(npu.HEAD)
    )
    body = []
    for record in report.npus:
        row = []
        for i, cell in enumerate(npu.cells(record)):
            last = i == len(npu.HEAD) - 1
            kind = "n" if i in npu.NUMERIC else "wrap no" if last and record.cpu_operators else ""
            opened = f'<td class="{kind}">' if kind else "<td>"
            row.append(f"{opened}{_text(cell)}</td>")
        body.append(f'<tr title="{_text(record.run)}">{"".join(row)}</tr>')
    told = "".join(
        f"<li>{_text(line)}</li>" for line in (*npu.DEFINITIONS, *npu.sources(report.npus))
    )
    return (
        f"<h2>{npu.TITLE}</h2><p>.tflite files compiled for Arm Ethos-U by Vela. Bytes are "
        "those of the compiled network; cycles and rate are Vela's <b>estimates</b>.</p>"
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f"<details><summary>What the figures are</summary><ul>{told}</ul></details>"
    )


def _scatter(report: Report, data: str, entries: list[Entry]) -> str:
    """Accuracy against parameters and against MACs on one data set."""
    drawn = []
    for figure, cost_of, axis in (
        ("params", lambda e: e.record.params or e.record.file_params, "parameters"),
        ("macs", lambda e: e.record.macs, "MACs"),
    ):
        limit = report.limits.get(figure)
        words = f"budget {limit:,}" if limit else ""
        drawing = figures.accuracy_against(entries, cost_of, axis, limit, words)
        if drawing:
            line = f", dashed line: the budget of {limit:,}" if limit else ""
            caption = (
                f"<b>Accuracy against {axis}</b> on {_text(data)}: test accuracy of each "
                f"file. {_bars(entries)} Steps: the Pareto front{line}."
                f"{_synthetic(entries)}"
            )
            drawn.append(
                f'<figure class="card"><div class="draw">{drawing}</div>'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    if not drawn:
        return ""
    return (
        f"<h2>Accuracy against size: {_text(data)}</h2>{figures.stage_key(entries)}"
        f'<div class="pair">{"".join(drawn)}</div>'
    )


def _bars(entries: Sequence[Entry]) -> str:
    """What the bars through the points are."""
    shown = standings(entries)
    if len(shown) > figures.MOST_POINTS_WITH_INTERVAL:
        return f"Intervals of {len(shown)} points are left out."
    several = any(len(standing.members) > 1 for standing in shown)
    single = any(len(standing.members) == 1 for standing in shown)
    words = "Bars: its 95 % interval." if single else ""
    if several:
        words += (
            f" Runs that differ by {shown[0].first.varied or 'seeds'} alone are small points, the "
            "large one their mean, the bar their spread."
        )
    return words.strip()


def _lineage(report: Report) -> str:
    """The runs and what they were made of, as a tree."""
    if not report.tree:
        return ""
    more = len([entry for entry in report.entries if entry.run]) - lineage.MOST_ROWS
    left = f" {more:,} further runs are left out." if more > 0 else ""
    return (
        "<h2>What was made of what</h2>"
        f'<figure class="card lineage-card"><div class="draw">{lineage.drawing(report.entries)}'
        "</div><figcaption>Each run stands below the one that it was made of: solid lines lead "
        "from the parent whose weights it took, dashed ones from a teacher to whom it listened. "
        f"From the hashes in the manifests.{left}</figcaption></figure>"
    )


def _details(report: Report) -> str:
    cards = [card for entry in report.detailed if (card := _card(entry))]
    if not cards:
        return ""
    chosen = f"<p>{_text(report.detail_choice)}</p>" if report.detail_choice else ""
    return f"<h2>Runs in detail</h2>{chosen}{''.join(cards)}"


def _card(entry: Entry) -> str:
    clips = f" of the test split ({entry.clips:,} clips)" if entry.clips else " of the test split"
    drawn = (
        (
            figures.confusion(entry),
            "<b>Confusion matrix</b>: rows actual, columns decided, per cent of the row and clips; "
            f"decisions of the file on the clips{clips}.",
        ),
        (
            figures.recalls(entry),
            "<b>Recall per class</b>: share of the class's clips that were decided rightly, from "
            "the same decisions.",
        ),
        (
            figures.training_curves(entry),
            "<b>Training curves</b>, from curves.csv of the run; the dashed line marks the epoch "
            "of least validation loss, whose weights were kept.",
        ),
    )
    shown = [
        f'<figure><div class="draw">{drawing}</div><figcaption>{caption}</figcaption></figure>'
        for drawing, caption in drawn
        if drawing
    ]
    if not shown:
        return ""
    record = entry.record
    name = record.name if "fold" in entry.variant else entry.label  # the fold stands with the data
    facts = [tables.accuracy(record), f"{tables.count(record.params)} parameters"]
    if entry.loss is not None:
        facts.append(f"loss {entry.loss:.3f}")
    if record.peak_activation_bytes is not None and record.peak_layer:
        facts.append(f"peak RAM {tables.size(record.peak_activation_bytes)} at {record.peak_layer}")
    if record.flash_bytes is not None:
        facts.append(f"flash {tables.size(record.flash_bytes)}")
    if entry.calibration_error is not None:
        facts.append(f"calibration error {100 * entry.calibration_error:.1f} %")
    return (
        f'<article class="card"><header><h3>{_text(name)}, {_text(record.stage)}, '
        f"{_text(record.data or '')}{_mark(entry)}</h3>"
        f'<p class="more">{_text("; ".join(facts))}</p>'
        f'<p class="more"><code>{_text(record.artifact or entry.run)}</code></p></header>'
        f'<div class="parts">{shown[0]}<div>{"".join(shown[1:])}</div></div></article>'
    )


def _footer(report: Report) -> str:
    listed = "".join(f"<li>{_text(sentence)}</li>" for sentence in tables.definitions(report))
    hashes = ""
    if report.measured:
        hashes = (
            "<p>Every figure was measured on the file that its row names; the file's SHA-256 was "
            "compared with the recorded one when this page was made, and stands in report.json.</p>"
        )
    return f"<footer>{hashes}<ul>{listed}</ul></footer>"
