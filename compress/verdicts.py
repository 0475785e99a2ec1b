"""What the gate found, and its forms: text, GitHub annotations, JUnit, JSON.

Names and layers come from files. None of them may start an annotation, a tag or a line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from compress.budgets import FIGURES, Budgets, Figure
from compress.subjects import Contribution, Value
from reports.records import Record

PASSED, BROKEN, UNREADABLE = 0, 1, 2
MOST_PARTS = 3  # named at a breach; --why names more
_MOST_PARTS_WHY = 8
JSON_SCHEMA = 1


@dataclass(frozen=True)
class Check:
    """One figure of one subject against its levels."""

    figure: str
    found: Value
    fail: float | None = None
    warn: float | None = None
    level: str = "ok"  # "fail" (also of a figure that is owed), "warn", "ok", "unknown"

    @property
    def value(self) -> float | None:
        return self.found.value

    @property
    def broken(self) -> bool:
        return self.level == "fail"

    @property
    def row(self) -> Figure:
        return FIGURES[self.figure]

    @property
    def limit(self) -> float | None:
        """The level that counts: the broken one, else the one that is met next."""
        if self.level == "warn" or self.fail is None:
            return self.warn
        return self.fail


@dataclass(frozen=True)
class Change:
    """One figure in --base and now; equal ones are no change."""

    figure: str
    before: float
    now: float


@dataclass(frozen=True)
class Verdict:
    """What the gate found about a file or a registered student."""

    subject: str
    path: Path | None  # None for a student
    checks: tuple[Check, ...] = ()
    error: str = ""  # why it cannot be read
    skipped: str = ""  # why it is not gated
    record: Record | None = None  # its figures, for --format json
    changes: tuple[Change, ...] | None = None  # None: nothing to compare with
    compared: str = ""  # with which record, or why with none

    @property
    def level(self) -> str:
        if self.error:
            return "error"
        if self.skipped:
            return "skipped"
        levels = {check.level for check in self.checks}
        return next((level for level in ("fail", "warn") if level in levels), "ok")


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """2 where something could not be read, else 1 where a fail level is not kept, else 0."""
    codes = {"error": UNREADABLE, "fail": BROKEN}
    return max((codes.get(verdict.level, PASSED) for verdict in verdicts), default=PASSED)


# --- text ----------------------------------------------------------------------------------------

_MARKS = {"fail": "FAIL ", "warn": "WARN ", "ok": "ok   "}


def text_lines(verdict: Verdict, why: bool = False) -> Iterator[str]:
    """One line per subject, one per level that it breaks, and what else was asked for."""
    subject = printable(verdict.subject)
    if verdict.error:
        yield f"ERROR  {subject}: {printable(verdict.error)}"
        return
    if verdict.skipped:
        yield f"-      {subject}: not gated ({printable(verdict.skipped)})"
        return
    amiss = [check for check in verdict.checks if check.level in ("fail", "warn")]
    for check in sorted(amiss, key=lambda check: check.level):
        yield f"{_MARKS[check.level]}  {subject}: {printable(message(check))}"
    kept = [c for c in verdict.checks if c.level == "ok" and c.value is not None]
    unknown = [c for c in verdict.checks if c.level == "unknown" and c.found.applies]
    if not amiss:
        yield f"ok     {subject}: " + ", ".join(map(_kept, [*kept, *unknown]))
    else:
        yield from (f"?      {subject}: {_kept(check)}" for check in unknown)
    yield from (f"       {printable(line)}" for line in change_lines(verdict))
    if why:
        yield from (f"       {printable(line)}" for line in why_lines(verdict))


def message(check: Check) -> str:
    """A broken level in words: figure, limit, excess, largest layers; or why it cannot be told."""
    if check.value is None:
        bound = _against(check)
        return f"{check.figure} cannot be told, {bound} is not known to hold: {check.found.reason}"
    value, limit, row = check.value or 0, check.limit or 0, check.row
    side, bound = ("under", "least") if row.least else ("over", "limit")
    difference = abs(value - limit)
    by = f"{100 * difference:.2f} points" if row.share else f"{row.show(difference)} {row.unit}"
    named = "limit" if check.level == "fail" else "warning level"
    named = bound if row.least and check.level == "fail" else named
    text = f"{check.figure} {row.show(value)} is {side} the {named} of {row.show(limit)} by {by}"
    text = text.rstrip()
    if check.found.where:
        text += f"; it stands at {check.found.where}"
    parts = _listed(check.found.parts[:MOST_PARTS])
    words = "alive there" if check.found.where else "largest layers"
    return f"{text}; {words}: {parts}" if parts else text


def _kept(check: Check) -> str:
    if check.value is None:
        return f"{check.figure} not measured ({printable(check.found.reason)})"
    word = "at least" if check.row.least else "of"
    return (
        f"{check.figure} {check.row.show(check.value)} {word} {check.row.show(check.limit or 0)}"
    )


def _against(check: Check) -> str:
    return f"the {'least' if check.row.least else 'limit'} of {check.row.show(check.limit or 0)}"


def change_lines(verdict: Verdict) -> Iterator[str]:
    """What changed against --base, on one line; what reads the same as before is left out."""
    if verdict.changes is None:
        if verdict.compared:
            yield f"base: {verdict.compared}"
        return
    shown = [words for change in verdict.changes if (words := _change(change))]
    yield f"base: {verdict.compared}" + (f"; {', '.join(shown)}" if shown else ", nothing changed")


def _change(change: Change) -> str:
    """'macs 110 -> 99 (-10.0 %)', or '' where both read the same."""
    row = FIGURES.get(change.figure)
    if change.figure.startswith("accuracy"):
        points = 100 * (change.now - change.before)
        before, now = (f"{100 * value:.2f}" for value in (change.before, change.now))
        more = f" % ({points:+.2f} points)"
    else:
        whole = row is None or row.whole
        before, now = (
            f"{value:,.0f}" if whole and value == int(value) else f"{value:.3g}"
            for value in (change.before, change.now)
        )
        more = f" ({100 * (change.now / change.before - 1):+.1f} %)" if change.before else ""
    return "" if before == now else f"{change.figure} {before} -> {now}{more}"


def why_lines(verdict: Verdict) -> Iterator[str]:
    """The largest contributors of each figure, with their share of it."""
    for check in verdict.checks:
        total = check.value
        if not total or not check.found.parts:
            continue
        at = f" at {check.found.where}" if check.found.where else ""
        yield f"{check.figure} {check.row.show(total)}{at}, of which"
        for part in check.found.parts[:_MOST_PARTS_WHY]:
            # File bytes are made of weights of several types: a count, no share.
            share = "" if check.figure == "file_bytes" else f"{100 * part.value / total:5.1f} %  "
            yield f"  {part.value:>12,}  {share}{part.name}"
        left = len(check.found.parts) - _MOST_PARTS_WHY
        if left > 0:
            yield f"  and {left} smaller"


def _listed(parts: Sequence[Contribution]) -> str:
    return ", ".join(f"{part.name} {part.value:,}" for part in parts)


def closing(verdicts: Sequence[Verdict], limits: Budgets) -> str:
    """How many of what, and against which limits."""
    gated = [verdict for verdict in verdicts if not verdict.skipped]
    levels = [verdict.level for verdict in gated]
    unmeasured = sum(
        check.level == "unknown" and check.found.applies
        for verdict in gated
        for check in verdict.checks
    )
    parts = [f"{len(gated)} checked", f"{levels.count('fail')} over budget"]
    if limits.warn:
        parts.append(f"{levels.count('warn')} warned")
    parts.append(f"{levels.count('error')} unreadable")
    if unmeasured:
        parts.append(f"{unmeasured} figures not measured")
    return f"{', '.join(parts)} (limits: {_limits(limits)}; {printable(limits.source)})"


def _limits(limits: Budgets) -> str:
    shown = _levels(limits)
    for target, own in limits.targets.items():
        there = Budgets(own.get("fail", {}), own.get("warn", {}))
        shown += [f"{target} {words}" for words in _levels(there)]
    return ", ".join(shown)


def _levels(limits: Budgets) -> list[str]:
    shown = []
    for name in limits.figures:
        row = FIGURES[name]
        sign = ">=" if row.least else "<="
        if name in limits.fail:
            shown.append(f"{name} {sign} {row.show(limits.fail[name])}")
        else:
            shown.append(f"{name} {sign} {row.show(limits.warn[name])} to warn")
    return shown


# --- GitHub --------------------------------------------------------------------------------------


def github_lines(verdict: Verdict, why: bool = False) -> Iterator[str]:
    """Workflow commands that GitHub shows at the file; what passes stays plain text.

    The runner finds an older form of its commands, ``##[name]``, anywhere in a line: in names it is
    broken up.
    """
    for line in _github_lines(verdict, why):
        yield line.replace("##[", "## [")


def _github_lines(verdict: Verdict, why: bool) -> Iterator[str]:
    place = f"file={_property(str(verdict.path))}," if verdict.path else ""
    subject = verdict.subject
    if verdict.error:
        title = _property("Unreadable model file")
        yield f"::error {place}title={title}::{_data(f'{subject}: {verdict.error}')}"
        return
    commands = {"fail": ("error", "Over budget"), "warn": ("warning", "Over a warning level")}
    for check in verdict.checks:
        if check.level in commands:
            command, words = commands[check.level]
            words = words if check.value is not None else "Cannot be told"
            title = _property(f"{words}: {check.figure}")
            yield f"::{command} {place}title={title}::{_data(f'{subject}: {message(check)}')}"
        elif check.level == "unknown" and check.found.applies:
            title = _property(f"Not measured: {check.figure}")
            yield f"::warning {place}title={title}::{_data(f'{subject}: {_kept(check)}')}"
    if verdict.level in ("ok", "skipped"):
        yield from text_lines(verdict, why)
    else:
        yield from (f"       {printable(line)}" for line in change_lines(verdict))
        if why:
            yield from (f"       {printable(line)}" for line in why_lines(verdict))


# --- JUnit ---------------------------------------------------------------------------------------


def junit(verdicts: Sequence[Verdict]) -> str:
    """One test case per subject and figure, for systems that show test results."""
    cases: list[str] = []
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}

    def case(subject: str, name: str, inner: str = "", outcome: str = "") -> None:
        counts["tests"] += 1
        if outcome:
            counts[outcome] += 1
        head = f"  <testcase classname={_attribute(subject)} name={_attribute(name)}"
        cases.append(f"{head}>{inner}</testcase>" if inner else f"{head}/>")

    for verdict in verdicts:
        if verdict.error:
            inner = f"<error message={_attribute(verdict.error)}/>"
            case(verdict.subject, "readable", inner, "errors")
        elif verdict.skipped:
            inner = f"<skipped message={_attribute(verdict.skipped)}/>"
            case(verdict.subject, "gated", inner, "skipped")
        for check in verdict.checks:
            if check.level == "fail":
                inner = f"<failure message={_attribute(message(check))}/>"
                case(verdict.subject, check.figure, inner, "failures")
            elif check.level == "unknown":
                inner = f"<skipped message={_attribute(check.found.reason)}/>"
                case(verdict.subject, check.figure, inner, "skipped")
            else:
                words = f"warning: {message(check)}" if check.level == "warn" else _kept(check)
                inner = f"<system-out>{escape(printable(words))}</system-out>"
                case(verdict.subject, check.figure, inner)
    totals = " ".join(f'{name}="{number}"' for name, number in counts.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<testsuites>\n<testsuite name="compress.gate" {totals}>\n'
        + "\n".join(cases)
        + "\n</testsuite>\n</testsuites>\n"
    )


def _attribute(text: str) -> str:
    return quoteattr(printable(text))


# --- JSON ----------------------------------------------------------------------------------------


def to_json(verdicts: Sequence[Verdict], limits: Budgets) -> str:
    """Everything that was found; ``--base`` of a later gate reads it too."""
    code = exit_code(verdicts)
    content = {
        "schema": JSON_SCHEMA,
        "exit_code": code,
        "limits": {"source": limits.source, "fail": dict(limits.fail), "warn": dict(limits.warn)},
        "artefacts": [_as_json(verdict) for verdict in verdicts],
    }
    # File names need not be UTF-8; what is none of it stands as an escape, which JSON has too.
    return _utf8(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "subject": verdict.subject,
        "artifact": str(verdict.path) if verdict.path else None,
        "level": verdict.level,
        "error": verdict.error or None,
        "skipped": verdict.skipped or None,
        "record": dataclasses.asdict(verdict.record) if verdict.record else None,
        "base": verdict.compared or None,
        "changes": None
        if verdict.changes is None
        else {c.figure: {"before": c.before, "now": c.now} for c in verdict.changes},
        "figures": {
            check.figure: {
                "value": check.value,
                "level": check.level,
                "warn": check.warn,
                "fail": check.fail,
                "reason": check.found.reason or None,
                "at": check.found.where or None,
                "largest": [dataclasses.asdict(p) for p in check.found.parts[:_MOST_PARTS_WHY]],
            }
            for check in verdict.checks
        },
    }


# --- escapes -------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Text from a file on one line, without control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _data(text: str) -> str:
    return _utf8(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
