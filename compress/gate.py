"""Check files against the limits of budgets.toml.

    python -m compress.gate                     every registered student, every file under runs/
    python -m compress.gate model.onnx folder   these files, and all models in these folders

Figures are counted in the file itself (.onnx, .tflite, .safetensors, .ckpt), not in a manifest.
Exit code 0: all within the limits; 1: a limit is broken; 2: a file or the limits are unreadable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compress import artefacts, budgets, cli, registry
from compress.config import GateConfig
from compress.errors import InputError

PASSED, BROKEN, UNREADABLE = 0, 1, 2


@dataclass(frozen=True)
class Check:
    """One figure of one subject against its limit; ``value`` None: cannot be measured on it."""

    figure: str
    value: int | None
    limit: int
    largest: tuple[str, ...] = ()  # the layers that the figure is made of, largest first
    reason: str = ""  # why there is no value

    @property
    def broken(self) -> bool:
        return self.value is not None and self.value > self.limit


@dataclass(frozen=True)
class Verdict:
    """What the gate found about a file or a registered student."""

    subject: str
    path: Path | None  # None for a student
    checks: tuple[Check, ...] = ()
    error: str = ""  # why it cannot be read
    skipped: str = ""  # why it is not gated


def run(config: GateConfig) -> int:
    limits = budgets.load(config.budgets)
    if config.paths:
        verdicts = [judge_file(path, limits) for path in files_of(config.paths)]
    else:
        verdicts = [
            *judge_students(limits),
            *(
                Verdict(str(path), path, skipped="a teacher; teachers are not shipped")
                if is_of_teacher(path, config.runs)
                else judge_file(path, limits)
                for path in models_below(config.runs)
            ),
        ]
        if not config.runs.is_dir():
            skipped = "no such folder yet, only the registered students are checked"
            verdicts.append(Verdict(str(config.runs), None, skipped=skipped))
    write = github_lines if config.format == "github" else text_lines
    for verdict in verdicts:
        for line in write(verdict):
            cli.say(line)
    cli.say(_closing(verdicts, limits))
    return exit_code(verdicts)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """2 where something could not be read, else 1 where a limit is broken, else 0."""
    codes = [
        UNREADABLE if verdict.error else BROKEN if any(c.broken for c in verdict.checks) else PASSED
        for verdict in verdicts
    ]
    return max(codes, default=PASSED)


# --- what is judged ------------------------------------------------------------------------------


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Files as given, folders as the models in them; each once. Raises InputError for nothing."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = models_below(path)
            if not below:
                endings = ", ".join(artefacts.SHIPPED_ENDINGS)
                raise InputError(f"{path}: no model files ({endings}) in this folder")
            found |= dict.fromkeys(below)
        else:
            found[path] = None
    return list(found)


def models_below(folder: Path) -> list[Path]:
    """Every model file in a folder and its subfolders, sorted; none where there is no folder."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in artefacts.SHIPPED_ENDINGS
        and not path.name.startswith(".")
        and path.is_file()
    )


def is_of_teacher(path: Path, runs: Path) -> bool:
    """True where the run folder around a file says that it was made by the stage ``teach``."""
    for folder in path.parents:
        manifest = folder / "manifest.json"
        if manifest.is_file():
            try:
                content = json.loads(manifest.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                return False  # what cannot be told apart is gated
            return isinstance(content, dict) and content.get("stage") == "teach"
        if folder == runs:
            break
    return False


def judge_file(path: Path, limits: budgets.Budgets) -> Verdict:
    """Count a file and compare; an unreadable one gets a verdict that says why."""
    try:
        summary = artefacts.read(path)
    except InputError as error:
        return Verdict(str(path), path, error=str(error).removeprefix(f"{path}: "))
    checks = []
    for figure, limit in limits.limits.items():
        value = summary.file_params if figure == "params" else getattr(summary, figure)
        checks.append(
            Check(figure, value, limit, _largest(summary, figure), _reason(summary, value))
        )
    return Verdict(str(path), path, tuple(checks))


def judge_students(limits: budgets.Budgets) -> Iterator[Verdict]:
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
        params = {key: value.numel() for key, value in model.named_parameters()}
        checks = []
        for figure, limit in limits.limits.items():
            if figure == "params":
                ranked = sorted(params.items(), key=lambda item: item[1], reverse=True)
                largest = tuple(f"{key} {count:,}" for key, count in ranked[:3])
                checks.append(Check(figure, measure.count_params(model), limit, largest))
            elif figure == "macs":
                mels, frames = (
                    model.arguments.get(k, d) for k, d in (("mels", 32), ("frames", 96))
                )
                checks.append(Check(figure, measure.count_macs(model, mels, frames), limit))
            else:
                checks.append(Check(figure, None, limit, reason="measured on its exported file"))
        yield Verdict(subject, None, tuple(checks))


def _largest(summary: artefacts.FileSummary, figure: str) -> tuple[str, ...]:
    if figure in ("params", "file_bytes"):
        return tuple(
            f"{_layer_name(layer)} {layer.params:,}" for layer in summary.largest_layers(3)
        )
    if figure == "macs":
        layers = summary.largest_layers(3, "macs")
        return tuple(f"{_layer_name(layer)} {layer.macs or 0:,}" for layer in layers)
    return (f"{summary.peak_layer} at the peak",) if summary.peak_layer else ()


def _layer_name(layer: artefacts.Layer) -> str:
    """The operator with the first of its weights, by which its author knows it."""
    named = [name for name in layer.weights if name != layer.name]
    return f"{layer.name} ({named[0]})" if named and layer.kind != "tensors" else layer.name


def _reason(summary: artefacts.FileSummary, value: int | None) -> str:
    if value is not None:
        return ""
    if summary.kind not in ("onnx", "tflite"):
        return f"a {summary.kind} file holds weights only; gate the ONNX file"
    return "; ".join(summary.notes)


# --- what is printed -----------------------------------------------------------------------------


def text_lines(verdict: Verdict) -> Iterator[str]:
    """One line per subject, and one per broken limit."""
    subject = printable(verdict.subject)
    if verdict.error:
        yield f"ERROR  {subject}: {printable(verdict.error)}"
    elif verdict.skipped:
        yield f"-      {subject}: not gated ({printable(verdict.skipped)})"
    else:
        broken = [check for check in verdict.checks if check.broken]
        for check in broken:
            yield f"FAIL   {subject}: {printable(message(check))}"
        if broken:
            unmeasured = [check for check in verdict.checks if check.value is None]
            yield from (f"?      {subject}: {_kept(check)}" for check in unmeasured)
        else:
            yield f"ok     {subject}: " + ", ".join(_kept(check) for check in verdict.checks)


def github_lines(verdict: Verdict) -> Iterator[str]:
    """Workflow commands that GitHub shows at the file; what passes stays plain text."""
    place = f"file={_property(str(verdict.path))}," if verdict.path else ""
    subject = verdict.subject
    if verdict.error:
        title = _property("Unreadable model file")
        yield f"::error {place}title={title}::{_data(f'{subject}: {verdict.error}')}"
        return
    for check in verdict.checks:
        if check.broken:
            title = _property(f"Over budget: {check.figure}")
            yield f"::error {place}title={title}::{_data(f'{subject}: {message(check)}')}"
        elif check.value is None:
            title = _property(f"Not measured: {check.figure}")
            yield f"::warning {place}title={title}::{_data(f'{subject}: {_kept(check)}')}"
    if not any(check.broken for check in verdict.checks):
        yield from text_lines(verdict)


def message(check: Check) -> str:
    """A broken limit in words: figure, limit, excess, largest layers."""
    value = check.value or 0
    text = (
        f"{check.figure} {value:,} is over the limit of {check.limit:,} "
        f"by {value - check.limit:,} {budgets.UNITS[check.figure]}"
    )
    return f"{text}; largest layers: {', '.join(check.largest)}" if check.largest else text


def _kept(check: Check) -> str:
    if check.value is None:
        return f"{check.figure} not measured ({printable(check.reason)})"
    return f"{check.figure} {check.value:,} of {check.limit:,}"


def printable(text: str) -> str:
    """Text from a file on one line, without control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _closing(verdicts: list[Verdict], limits: budgets.Budgets) -> str:
    gated = [verdict for verdict in verdicts if not verdict.skipped]
    broken = sum(any(check.broken for check in verdict.checks) for verdict in gated)
    unreadable = sum(bool(verdict.error) for verdict in gated)
    unmeasured = sum(check.value is None for verdict in gated for check in verdict.checks)
    parts = [f"{len(gated)} checked", f"{broken} over budget", f"{unreadable} unreadable"]
    if unmeasured:
        parts.append(f"{unmeasured} figures not measured")
    listed = ", ".join(f"{figure} <= {limit:,}" for figure, limit in limits.limits.items())
    return f"{', '.join(parts)} (limits: {listed}; {printable(limits.source)})"


if __name__ == "__main__":
    raise SystemExit(cli.main(GateConfig, run, __doc__))
