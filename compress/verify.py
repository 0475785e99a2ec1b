"""Verify finished runs: recompute what they recorded, from their files and their data.

    python -m compress.verify runs/NAME [runs/OTHER ...]     none given: every run under --runs

The folder of a cross-validation, a sweep or a pipeline is verified as a whole.

Hashes, parameters, MACs, bytes, peak activation bytes, decisions and accuracy of every artefact
are found again and compared with manifest.json and metrics.json. Latency is not: it is the
machine's. Exit code 0: all the same; 1: something differs; 2: a run or its data cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compress import cli, runs
from compress.config import VerifyConfig
from compress.errors import InputError
from reports.records import plain

if TYPE_CHECKING:
    from pathlib import Path

    from compress.verification import Verdict

SAME, DIFFERS, UNREADABLE = 0, 1, 2


def run(config: VerifyConfig) -> int:
    from compress.verified_groups import find_groups, verify_folder

    folders = list(config.folders)
    if not folders:
        folders = [f for f in runs.find_runs(config.runs) if not _unfinished(f)]
        folders += find_groups(config.runs)
        if not folders:
            raise InputError(f"{config.runs}: no finished run; give the run folders to verify")

    from compress.verification import Verdict

    verdicts = []
    for folder in folders:
        try:
            verdict = verify_folder(folder, config)
        except InputError as error:
            verdict = Verdict(folder, error=str(error))
        verdicts.append(verdict)
        for line in lines_of(verdict):
            cli.say(line)
    cli.say(_closing(verdicts, config.runs))
    return exit_code(verdicts)


def _unfinished(folder: Path) -> bool:
    """Whether a run is still under way; one that cannot be read gets its verdict."""
    try:
        return not runs.open_run(folder).complete
    except InputError:
        return False


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """2 where a run cannot be read, else 1 where something differs, else 0."""
    codes = [
        UNREADABLE if verdict.error else DIFFERS if verdict.differences else SAME
        for verdict in verdicts
    ]
    return max(codes, default=SAME)


def lines_of(verdict: Verdict) -> list[str]:
    """One line per run, one per difference, one per note."""
    folder = plain(verdict.folder)
    if verdict.error:
        return [f"ERROR    {plain(verdict.error)}"]
    state = "differs" if verdict.differences else "same   "
    lines = [
        f"{state}  {folder}: {len(verdict.differences)} of {verdict.checked} "
        "hashes and figures differ"
        if verdict.differences
        else f"{state}  {folder}: {verdict.checked} hashes and figures"
    ]
    lines += [
        f"         {plain(d.what)}: recorded {_shown(d.recorded)}, found {_shown(d.found)}"
        for d in verdict.differences
    ]
    return lines + [f"         not recomputed: {plain(note)}" for note in verdict.notes]


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = plain(f"{value:,}" if isinstance(value, int) else value)
    return text if len(text) <= 64 else f"{text[:61]}..."


def _closing(verdicts: Sequence[Verdict], root: Path) -> str:
    from compress.summary import report_command

    differ = sum(bool(verdict.differences) for verdict in verdicts)
    unreadable = sum(bool(verdict.error) for verdict in verdicts)
    same = len(verdicts) - differ - unreadable
    left_out = "" if same == len(verdicts) else ", which leaves out what changed"
    return (
        f"{same} of {len(verdicts)} runs the same, {differ} differ, {unreadable} unreadable. "
        f"Next: {report_command(root, root)}{left_out}"
    )


if __name__ == "__main__":
    raise SystemExit(cli.main(VerifyConfig, run, __doc__))
