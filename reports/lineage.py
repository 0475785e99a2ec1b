"""Which run was made of which: a tree of runs as text, and the same as a drawing.

A run stands below the run that it was made of, a distilled one below its first teacher, an ensemble
below its first member. Every other teacher or member is named in the text and drawn as a dashed
line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports import svg, tables
from reports.records import Entry, plain

MOST_ROWS = 60  # of the drawing and of the terminal's tree
_FONT = 13.5
_ROW, _BOX, _INDENT, _WIDTH = 50.0, 40.0, 20.0, 320.0


@dataclass(frozen=True)
class Branch:
    """One line of the tree. ``missing``: what it was made of is not among the runs."""

    entry: Entry
    depth: int
    last: tuple[bool, ...]  # at each depth, whether it is the last one below its parent
    others: tuple[str, ...] = ()  # runs of further teachers or members that are no ancestors
    missing: tuple[str, ...] = ()


def branches(entries: Sequence[Entry]) -> list[Branch]:
    """The runs in the order of the tree: each below what it was made of."""
    by_run = {entry.run: entry for entry in entries if entry.run}
    above: dict[str, str] = {}
    for entry in by_run.values():
        present = [origin for origin in entry.origins if origin.run in by_run]
        chosen = next((o for o in present if o.kind == "parent"), present[0] if present else None)
        if chosen is not None and not _leads_to(chosen.run, entry.run, above):
            above[entry.run] = chosen.run
    below: dict[str, list[Entry]] = {}
    for run, parent in above.items():
        below.setdefault(parent, []).append(by_run[run])
    roots = [entry for entry in by_run.values() if entry.run not in above]
    roots.sort(key=lambda entry: (entry.run not in below, entry.data_set))
    found: list[Branch] = []

    def walk(entry: Entry, last: tuple[bool, ...], ancestors: tuple[str, ...]) -> Iterator[Branch]:
        others = [o for o in entry.origins if o.run in by_run and o.run not in ancestors]
        lost = [o for o in entry.origins if o.run not in by_run]
        yield Branch(
            entry,
            len(last),
            last,
            tuple(origin.run for origin in others),
            tuple(f"{origin.kind} {origin.name}" for origin in lost),
        )
        children = sorted(below.get(entry.run, []), key=lambda e: e.finished)
        for number, child in enumerate(children, 1):
            yield from walk(child, (*last, number == len(children)), (*ancestors, entry.run))

    for root in roots:
        found += walk(root, (), ())
    return found


def _leads_to(start: str, run: str, above: dict[str, str]) -> bool:
    """Whether going up from ``start`` meets ``run``: damaged manifests may name each other."""
    seen = set()
    while start and start not in seen:
        if start == run:
            return True
        seen.add(start)
        start = above.get(start, "")
    return False


# --- text ----------------------------------------------------------------------------------------


def text_tree(entries: Sequence[Entry], most: int = MOST_ROWS) -> list[str]:
    """One line per run: ``├─ distill dsc500: 88.2 %, 494,557 parameters``.

    Empty where no run was made of another.
    """
    if not any(entry.origins for entry in entries):
        return []
    rows = branches(entries)
    names = {row.entry.run: row.entry.label for row in rows}
    lines = []
    for row in rows[:most]:
        lead = "".join("   " if last else "│  " for last in row.last[:-1])
        lead += ("└─ " if row.last[-1] else "├─ ") if row.last else ""
        lines.append(lead + plain(_words(row, names)))
    if len(rows) > most:
        lines.append(f"... and {len(rows) - most:,} more runs")
    return lines


def _words(row: Branch, names: dict[str, str]) -> str:
    entry = row.entry
    record = entry.record
    words = [tables.accuracy(record), f"{tables.count(record.params)} parameters"]
    words.append(tables.size(record.file_bytes))
    if row.others:
        how = "together with" if record.stage == "ensemble" else "taught by"
        words.append(f"{how} " + ", ".join(names.get(run, run) for run in row.others))
    if row.missing:
        words.append("made of what is not here: " + ", ".join(row.missing))
    return f"{record.stage} {entry.label}: {', '.join(words)}"


# --- drawing -------------------------------------------------------------------------------------


def drawing(entries: Sequence[Entry], most: int = MOST_ROWS) -> str:
    """The tree as ``<svg>``: a box per run, a line from what it was made of; '' without any."""
    rows = branches(entries)[:most]
    if not rows:
        return ""
    place = {row.entry.run: (6 + _INDENT * row.depth, 6 + _ROW * i) for i, row in enumerate(rows)}
    deepest = max(row.depth for row in rows)
    edge = 6 + _INDENT * deepest + _WIDTH
    lines: list[str] = []
    boxes: list[str] = []
    lanes = list(dict.fromkeys(run for row in rows for run in row.others if run in place))
    parents: list[Branch] = []
    for row in rows:
        parents = [*parents[: row.depth], row]
        x, y = place[row.entry.run]
        middle = y + _BOX / 2
        if row.depth:
            px, py = place[parents[row.depth - 1].entry.run]
            taught = not any(
                o.kind == "parent" and o.run == parents[row.depth - 1].entry.run
                for o in row.entry.origins
            )
            kind = "lineage taught" if taught else "lineage"
            corner = px + _INDENT / 2
            lines.append(svg.polyline([(corner, py + _BOX), (corner, middle), (x, middle)], kind))
        for run in row.others:
            if run in place:
                lane = edge + 10 + 9 * lanes.index(run)
                tx, ty = place[run]
                start = (tx + _WIDTH, ty + _BOX / 2)
                turn = [(lane, start[1]), (lane, middle + 6)]
                lines.append(
                    svg.polyline([start, *turn, (x + _WIDTH, middle + 6)], "lineage taught")
                )
        boxes += _box(row, x, y)
    width = edge + 14 + 9 * len(lanes)
    height = 6 + _ROW * len(rows)
    return svg.drawing(width, height, "runs and what they were made of", [*lines, *boxes])


def _box(row: Branch, x: float, y: float) -> list[str]:
    entry = row.entry
    record = entry.record
    stage = record.stage if record.stage in _STAGES else "other"
    name = svg.shortened(entry.label.removeprefix("timm/"), 30)
    facts = [tables.percent(record.accuracy)] if record.accuracy is not None else []
    facts += [f"{tables.count(record.params)} params"] if record.params is not None else []
    facts += [tables.size(record.file_bytes)] if record.file_bytes is not None else []
    if row.missing:
        facts = [f"of a missing {row.missing[0]}", *facts]
    title = f"{entry.run}: {', '.join(facts)}"
    return [
        svg.rectangle(x, y, _WIDTH, _BOX, "run", title),
        svg.rectangle(x, y, 5, _BOX, f"s-{stage}"),
        svg.text(x + 14, y + 17, name, "run-name"),
        svg.text(x + _WIDTH - 9, y + 17, record.stage, "tick", "end"),
        svg.text(x + 14, y + 33, svg.shortened(", ".join(facts), 48), "tick"),
    ]


_STAGES = ("teach", "train", "distill", "prune", "quantize")
