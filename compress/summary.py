"""The short table that a training command ends with, from what the runs' files measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from compress.metrics import PairedDifference
from compress.runs import Run

_HEAD = ("", "network", "parameters", "MACs", "test accuracy (95 % interval)", "run")


def table(rows: Sequence[tuple[str, Run]]) -> str:
    """One line per run: what it is, its size, its measured accuracy on the test split; on that of
    other data than the last run's, as a teacher's may be, with the name of the data."""
    lines = [_HEAD]
    own = rows[-1][1].manifest["data"]["content_hash"]
    for role, run in rows:
        data = run.manifest["data"]
        elsewhere = f" of {data['name']}" if data["content_hash"] != own else ""
        figures = run.metrics()
        test = figures["splits"]["test"]
        lines.append(
            (
                role,
                run.name,
                f"{figures['params']:,}",
                "unknown" if figures["macs"] is None else f"{figures['macs'] / 1e6:.1f} M",
                f"{100 * test['accuracy']:.1f} %  ({100 * test['accuracy_low']:.1f} to "
                f"{100 * test['accuracy_high']:.1f}){elsewhere}",
                str(run.folder),
            )
        )
    return aligned(lines, right=(2, 3))


def report_command(folder: Path, root: Path) -> str:
    """The command that reports the run in ``folder`` with the others of ``root``, or alone where
    --out put it elsewhere."""
    place = root if folder.parent == root else folder
    default = place == Path("runs")
    return "python -m compress.report" + ("" if default else f" --runs {shlex.quote(str(place))}")


def aligned(lines: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """Cells in columns; those of the columns ``right`` are flush right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def describe_difference(name_a: str, name_b: str, difference: PairedDifference) -> str:
    """'A - B: +0.8 points (95 % interval ...)', with the discordant clips and McNemar's p."""
    d = difference
    return (
        f"{name_a} minus {name_b}: {100 * d.difference:+.2f} points "
        f"(95 % interval {100 * d.low:+.2f} to {100 * d.high:+.2f}; "
        f"{d.only_a} against {d.only_b} clips, McNemar p = {d.p_value:.3f})"
    )
