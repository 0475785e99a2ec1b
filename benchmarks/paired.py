"""Accuracy of some runs against others on the same test clips, pair by pair and over all pairs.

    python benchmarks/paired.py RUN [RUN ...] [--against RUN [RUN ...]]

Pairs are formed in order, for example by seed. Without --against each run is held to the parent
that it was made of. Read are the decisions that the runs recorded of their files on the test split.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from compress import evaluate, runs
from compress.errors import InputError
from compress.metrics import paired_difference, pooled_difference
from compress.session import DECISIONS
from compress.summary import aligned


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--against", nargs="+", type=Path, default=[])
    options = parser.parse_args()
    try:
        compare(options.runs, options.against)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(folders: list[Path], against: list[Path]) -> None:
    if against and len(against) != len(folders):
        raise InputError(f"{len(folders)} runs and {len(against)} to hold them against")
    firsts = [runs.open_run(folder) for folder in folders]
    seconds = [runs.open_run(folder) for folder in against] or [parent_of(run) for run in firsts]
    lines = [("", "A", "B", "A minus B (95 % interval)", "only A, only B")]
    pairs = []
    for a, b in zip(firsts, seconds, strict=True):
        pair = tuple(evaluate.load_decisions(run.file(DECISIONS)) for run in (a, b))
        try:
            found = paired_difference(*pair)
        except ValueError as error:
            raise InputError(f"{a.folder}, {b.folder}: {error}") from None
        pairs.append(pair)
        lines.append(
            (
                f"{a.folder.name} - {b.folder.name}",
                *(f"{100 * decided.correct.mean():.2f}" for decided in pair),
                points(found.difference, found.low, found.high),
                f"{found.only_a}, {found.only_b}",
            )
        )
    means = [[pair[i].correct.mean() for pair in pairs] for i in (0, 1)]
    lines.append(
        (
            f"all {len(pairs)}",
            *(f"{100 * statistics.mean(found):.2f}" for found in means),
            points(*pooled_difference(pairs)),
            "",
        )
    )
    print(aligned(lines, right=(1, 2)))


def parent_of(run: runs.Run) -> runs.Run:
    folder = (run.manifest.get("parent") or {}).get("folder")
    if folder is None:
        raise InputError(f"{run.folder}: was made of no run; give one with --against")
    return runs.open_run(Path(folder))


def points(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
