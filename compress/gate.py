"""Check files against the limits of budgets.toml.

    python -m compress.gate                     every registered student, every file under runs/
    python -m compress.gate model.onnx folder   these files, and all models in these folders
    python -m compress.gate --base base.json    and what changed since that report.json was made

Sizes are counted in the file itself (.onnx, .tflite, .safetensors, .ckpt), never read from a
manifest.
Latency ratio and accuracy come from the run's metrics.json, only while the file has the hash that
they were measured on. Budgets have a warn and a fail level for each figure.

Exit code 0: nothing over a fail level (warnings alone end with 0); 1: a fail level is broken, or
not known to hold: the file should tell the figure and does not, or is not the one that its run
measured; 2: a file, the limits or the base are unreadable. A file without a run passes the limits
that only a run can tell, and the gate says that they were not measured.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from compress import artefacts, budgets, cli, registry, runs, verdicts
from compress.budgets import FIGURES
from compress.chip.figures import exports_below, subjects_of
from compress.config import GateConfig
from compress.errors import InputError
from compress.subjects import Subject, Value, find_base, open_subject, read_base, record_of
from compress.verdicts import Change, Check, Verdict
from reports.records import Record

_COMPARED = (
    "params", "file_params", "macs", "file_bytes", "peak_activation_bytes", "flash_bytes",
    "accuracy", "latency_ratio",
)  # fmt: skip


def run(config: GateConfig) -> int:
    if config.out is not None and config.format not in ("junit", "json"):
        raise InputError("--out: is for --format junit and --format json")
    limits = budgets.load(config.budgets)
    base = read_base(config.base) if config.base is not None else None
    if config.paths:
        found = [judge_file(path, limits, base) for path in files_of(config.paths)]
        exports = [place for path in config.paths for place in exports_below(path)]
    else:
        found = [
            *judge_students(limits, base),
            *(
                Verdict(str(path), path, skipped=reason)
                if (reason := why_not_shipped(path, config.runs))
                else judge_file(path, limits, base)
                for path in models_below(config.runs)
            ),
        ]
        exports = exports_below(config.runs)
        if not config.runs.is_dir():
            skipped = "no such folder yet, only the registered students are checked"
            found.append(Verdict(str(config.runs), None, skipped=skipped))
    for folder in dict.fromkeys(exports):
        found += judge_export(folder, limits, base)
    _print(found, limits, config, base)
    return verdicts.exit_code(found)


def _print(
    found: Sequence[Verdict],
    limits: budgets.Budgets,
    config: GateConfig,
    base: Sequence[Record] | None,
) -> None:
    """The chosen form, alone on standard output unless it goes into a file."""
    if config.format in ("junit", "json"):
        text = (
            verdicts.junit(found) if config.format == "junit" else verdicts.to_json(found, limits)
        )
        if config.out is None:
            cli.say(text.rstrip("\n"))
            return
        runs.write_text(config.out, text)
    write = verdicts.github_lines if config.format == "github" else verdicts.text_lines
    for verdict in found:
        for line in write(verdict, config.why):
            cli.say(line)
    for record in _gone(found, base or (), config.paths or (config.runs,)):
        cli.say(f"-      {verdicts.printable(str(record.artifact))}: in --base, not here")
    if config.out is not None:
        cli.say(f"The {config.format} form lies in {config.out}.")
    cli.say(verdicts.closing(found, limits))


# --- what is judged ------------------------------------------------------------------------------


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Files as given, folders as the models in them; each once. Raises InputError for nothing."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = models_below(path)
            if not below and not exports_below(path):
                endings = ", ".join(artefacts.SHIPPED_ENDINGS)
                raise InputError(f"{path}: no model files ({endings}) in this folder")
            found |= dict.fromkeys(below)
        else:
            found[path] = None
    return list(found)


def models_below(folder: Path) -> list[Path]:
    """Every model file in a folder and its subfolders, linked ones too, sorted; none where there
    is no folder."""
    found, seen = [], set()
    for where, below, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(where)
        if place in seen:  # a link to a folder above it, or a second one to the same
            below.clear()
            continue
        seen.add(place)
        found += [
            path
            for name in names
            if not name.startswith(".")
            and (path := Path(where, name)).suffix.lower() in artefacts.SHIPPED_ENDINGS
            and path.is_file()
        ]
    return sorted(found)


def why_not_shipped(path: Path, runs: Path) -> str:
    """Why the run folder around a file is for no chip, by its manifest; '' where it may be."""
    for folder in path.parents:
        manifest = folder / "manifest.json"
        if manifest.is_file():
            try:
                content = json.loads(manifest.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                return ""  # what cannot be told apart is gated
            made = content if isinstance(content, dict) else {}
            if made.get("stage") == "teach":
                return "a teacher; teachers are not shipped"
            if (made.get("stage"), made.get("format")) == ("export", "onnx"):
                return "takes sound, for runtimes with memory to spare; its network is gated"
            return ""
        if folder == runs:
            break
    return ""


def judge_file(
    path: Path, limits: budgets.Budgets, base: Sequence[Record] | None = None
) -> Verdict:
    """Count a file and compare; an unreadable one gets a verdict that says why."""
    try:
        return judge(open_subject(path), limits, base)
    except InputError as error:
        return Verdict(str(path), path, error=str(error).removeprefix(f"{path}: "))
    except Exception as error:  # one file that no reader foresaw does not hide the others
        return Verdict(str(path), path, error=f"cannot be read ({type(error).__name__}: {error})")


def judge_export(
    folder: Path, limits: budgets.Budgets, base: Sequence[Record] | None = None
) -> list[Verdict]:
    """C code by its accuracy, then on each processor that it was emulated on."""
    try:
        subjects = subjects_of(folder)
    except InputError as error:
        return [Verdict(str(folder), folder, error=str(error))]
    found = [judge(subjects[0][1], limits, base)]
    for target, subject in subjects[1:]:
        verdict = judge(subject, limits.on(target))
        found.append(dataclasses.replace(verdict, record=None))  # the C code has one record
    return found


def judge_students(
    limits: budgets.Budgets, base: Sequence[Record] | None = None
) -> Iterator[Verdict]:
    """Build every registered student as trained, for the default classes, and compare."""
    try:
        from compress import measure
    except ImportError as error:
        raise InputError(
            f"registered students need torch to be built ({error}); give files to gate without it"
        ) from None
    for name in registry.STUDENTS:
        subject = f"student {name}"
        try:
            model = registry.build_student(name)
        except InputError as error:
            yield Verdict(subject, None, error=str(error))
            continue
        yield judge(Subject(subject, counted=measure.counted(model)), limits, base)


def judge(
    subject: Subject, limits: budgets.Budgets, base: Sequence[Record] | None = None
) -> Verdict:
    """Every limited figure of a subject, and what changed since ``base``."""
    record = record_of(subject, subject.counted)
    changes, compared, before = None, "", None
    if base is not None:
        before, compared = find_base(record, list(base))
        if before is not None:
            changes = _changes(before, record)
            same = record.sha256 is not None and before.sha256 == record.sha256
            compared = "the same file" if same else f"against {before.artifact or before.name}"
        subject = Subject(**(vars(subject) | {"base": before, "no_base": compared}))
    checks = tuple(
        _check(figure, subject.counted.get(figure) or FIGURES[figure].load()(subject), limits)
        for figure in limits.figures
    )
    return Verdict(subject.name, subject.path, checks, "", "", record, changes, compared)


def _check(figure: str, found: Value, limits: budgets.Budgets) -> Check:
    if found.value is not None:
        level = limits.level(figure, found.value)
    else:
        level = "fail" if found.owed and figure in limits.fail else "unknown"
    return Check(figure, found, limits.fail.get(figure), limits.warn.get(figure), level)


def _changes(before: Record, now: Record) -> tuple[Change, ...]:
    pairs = ((name, getattr(before, name), getattr(now, name)) for name in _COMPARED)
    return tuple(
        Change(name, old, new)
        for name, old, new in pairs
        if isinstance(old, (int, float)) and isinstance(new, (int, float)) and old != new
    )


def _gone(
    found: Sequence[Verdict], base: Sequence[Record], places: Sequence[Path]
) -> list[Record]:
    """Records of ``base`` in the folders that were searched, with which nothing was compared."""
    met = {id(find_base(v.record, list(base))[0]) for v in found if v.record is not None}
    return [
        record
        for record in base
        if id(record) not in met
        and record.stage != "teach"
        and isinstance(record.artifact, str)
        and any(Path(record.artifact).is_relative_to(place) for place in places)
    ]


if __name__ == "__main__":
    raise SystemExit(cli.main(GateConfig, run, __doc__))
