"""What the gate judges, and the functions that read one figure off it each.

    file -> FileSummary, counted in the file
    run folder around it -> metrics.json, believed only while the file has the hash it was
                            measured on
    --base -> the Record of the same artefact, as it was

A function of the table compress.budgets.FIGURES takes a Subject and gives a Value. None of them
imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress import artefacts, runs
from compress.errors import InputError
from reports.records import MOST, Record, is_number

MANIFEST, METRICS = "manifest.json", "metrics.json"
_WEIGHTS_ONLY = ("safetensors", "checkpoint")  # kinds of files that hold no graph
_MOST_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Contribution:
    """A part of a figure: a layer, or an activation alive at the peak."""

    name: str
    value: int


@dataclass(frozen=True)
class Value:
    """One figure of one subject. ``value`` None: ``reason`` says why it is not known.

    applies: False where this kind of subject has no such figure, so that nothing is amiss.
    owed: True where the subject itself should tell it, so that a fail level does not hold.
    parts: what the figure is made of, largest first. where: the layer at which it stands.
    """

    value: float | None
    reason: str = ""
    applies: bool = True
    parts: tuple[Contribution, ...] = ()
    where: str = ""
    owed: bool = False


@dataclass(frozen=True)
class Subject:
    """A file, or a registered student as built (then ``counted`` holds what is known of it)."""

    name: str  # as printed
    path: Path | None = None
    summary: artefacts.FileSummary | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)  # of the run folder around it
    metrics: Mapping[str, Any] = field(default_factory=dict)  # measured on just this content
    unmeasured: str = ""  # why there are no metrics
    changed: bool = False  # since it was measured
    counted: Mapping[str, Value] = field(default_factory=dict)
    base: Record | None = None
    no_base: str = ""  # why there is no base record, where --base was given

    @property
    def network(self) -> str:
        return str(self.manifest.get("name", self.name.removeprefix("student ")))

    @property
    def stage(self) -> str:
        if self.path is None:
            return "registered"
        form = self.manifest.get("format")  # of an export
        stage = str(self.manifest.get("stage", "file"))
        return f"{stage} {form}" if isinstance(form, str) else stage

    @property
    def data(self) -> str | None:
        """The data set with its fold, as a report names it."""
        data = self.manifest.get("data")
        if not isinstance(data, Mapping):
            return None
        fold = self.manifest.get("fold")
        return str(data.get("name", "")) + (f", fold {fold}" if fold is not None else "")

    @property
    def seed(self) -> int | None:
        seed = self.manifest.get("seed")
        return seed if type(seed) is int else None


def open_subject(path: Path) -> Subject:
    """A file with what its run folder measured on it; raises InputError where it is unreadable."""
    summary = artefacts.read(path)
    manifest = _object(path.parent / MANIFEST)
    metrics = _metrics(path.parent / METRICS)
    if not metrics or metrics.get("artifact") != path.name:
        return Subject(str(path), path, summary, manifest, unmeasured="no metrics.json tells of it")
    if metrics.get("sha256") != summary.sha256:
        reason = "the file is not the one that was measured; measure again"
        return Subject(str(path), path, summary, manifest, unmeasured=reason, changed=True)
    for name, value, most in _claims(metrics):
        if value is not None and not is_number(value, most):
            raise InputError(
                f"{path.parent / METRICS}: {name} is {str(value)[:40]!r}, not a number from 0 to "
                f"{most:,.0f}; measure again"
            )
    return Subject(str(path), path, summary, manifest, metrics)


def _metrics(path: Path) -> dict[str, Any]:
    """As _object, but what is there has to be JSON: a damaged file hides what was measured."""
    if not path.is_file():
        return {}
    try:
        found = runs.read_json_value(path)
    except InputError as error:
        raise InputError(f"{error}; measure again") from None
    return found if isinstance(found, dict) else {}


def _claims(metrics: Mapping[str, Any]) -> list[tuple[str, Any, float]]:
    """(name, value, most) of every number in a metrics.json that the gate believes."""
    test = _of_split(metrics)
    shares = ("accuracy", "accuracy_low", "accuracy_high")
    return [
        *((f"test {key}", test.get(key), 1) for key in shares),
        ("latency_ms", metrics.get("latency_ms"), MOST),
        ("latency_ratio", recorded_latency_ratio(metrics), MOST),
    ]


def _of_split(metrics: Mapping[str, Any], name: str = "test") -> Mapping[str, Any]:
    splits = metrics.get("splits")
    found = splits.get(name) if isinstance(splits, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, since a file may be gated without a run."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


# --- figures of the file -------------------------------------------------------------------------


def params(subject: Subject) -> Value:
    return _of_file(subject, "file_params", _layers(subject, "params"))


def macs(subject: Subject) -> Value:
    return _of_file(subject, "macs", _layers(subject, "macs"))


def file_bytes(subject: Subject) -> Value:
    return _of_file(subject, "file_bytes", _layers(subject, "params"))


def peak_activation_bytes(subject: Subject) -> Value:
    summary = subject.summary
    if summary is None:
        return _of_file(subject, "peak_activation_bytes", ())
    alive = tuple(Contribution(summary.known_as(name), size) for name, size in summary.at_peak)
    where = summary.known_as(summary.peak_layer) if summary.peak_layer else ""
    return _of_file(subject, "peak_activation_bytes", alive, where)


def flash_bytes(subject: Subject) -> Value:
    summary = subject.summary
    if summary is not None and summary.flash_bytes is not None and not summary.quantised:
        return Value(None, "a float file; its int8 file goes into flash", applies=False)
    return _of_file(subject, "flash_bytes", _layers(subject, "flash_bytes"))


def _of_file(
    subject: Subject, figure: str, parts: tuple[Contribution, ...], where: str = ""
) -> Value:
    summary = subject.summary
    if summary is None:
        return Value(None, "measured on its exported file", applies=False)
    value = getattr(summary, figure)
    if value is not None:
        return Value(value, parts=parts, where=where)
    if summary.kind in _WEIGHTS_ONLY:
        reason = f"a {summary.kind} file holds weights only; gate the ONNX file"
        return Value(None, reason, applies=not _has_onnx_beside(subject))
    return Value(None, "; ".join(summary.notes), owed=True)


def _is_beside_what_ships(subject: Subject) -> bool:
    """Whether these are the weights of a run whose ONNX file is the one that was measured."""
    kind = subject.summary.kind if subject.summary else ""
    return kind in _WEIGHTS_ONLY and _has_onnx_beside(subject)


def _has_onnx_beside(subject: Subject) -> bool:
    """Whether the run folder holds the file that ships, which is gated by itself."""
    listed = subject.manifest.get("artefacts", {})
    return isinstance(listed, Mapping) and any(str(name).endswith(".onnx") for name in listed)


def _layers(subject: Subject, figure: str) -> tuple[Contribution, ...]:
    if subject.summary is None:
        return ()
    ranked = subject.summary.largest_layers(len(subject.summary.layers), figure)
    return tuple(Contribution(layer.title, getattr(layer, figure)) for layer in ranked)


# --- figures of the run --------------------------------------------------------------------------


def latency_ratio(subject: Subject) -> Value:
    if subject.path is None:
        return Value(None, "measured on its exported file", applies=False)
    if not subject.metrics:
        return _not_measured(subject)
    found = _number(recorded_latency_ratio(subject.metrics))
    if found is None:
        return Value(None, "it was made of no other file", applies=False)
    return Value(found)


def recorded_latency_ratio(metrics: Mapping[str, Any]) -> Any:
    """Time over that of the file it was made of, as quantize and prune write it; else None."""
    pruning = metrics.get("pruning")
    timing = metrics.get("latency_ratio") or (
        pruning.get("latency") if isinstance(pruning, Mapping) else None
    )
    return timing.get("ratio") if isinstance(timing, Mapping) else None


def accuracy(subject: Subject) -> Value:
    return _of_test(subject, "accuracy_low")


def accuracy_drop(subject: Subject) -> Value:
    if subject.base is None:
        reason = subject.no_base or "no --base was given"
        return Value(None, reason, applies=bool(subject.no_base))
    now, before = _of_test(subject, "accuracy"), subject.base.accuracy
    if now.value is None:
        return now
    if before is None:
        return Value(None, "its record in --base has no accuracy")
    return Value(before - now.value)


def _of_test(subject: Subject, key: str) -> Value:
    """A share measured on the test split."""
    if subject.path is None:
        return Value(None, "measured on its exported file", applies=False)
    if not subject.metrics:
        return _not_measured(subject)
    found = _number(_of_split(subject.metrics).get(key))
    return Value(found, "" if found is not None else f"metrics.json has no test {key}")


def _not_measured(subject: Subject) -> Value:
    """A figure that only a run can tell: no run owes nothing, one of another file does."""
    applies = subject.changed or not _is_beside_what_ships(subject)
    return Value(None, subject.unmeasured, applies=applies, owed=subject.changed)


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


# --- what it was ---------------------------------------------------------------------------------


def record_of(subject: Subject, values: Mapping[str, Value]) -> Record:
    """The subject as a record of a report, so that its verdict can serve as --base."""
    summary = subject.summary

    def known(figure: str) -> Any:
        found = values.get(figure)
        return found.value if found is not None else None

    return Record(
        name=subject.network,
        stage=subject.stage,
        data=subject.data,
        seed=subject.seed,
        params=known("params") if summary is None else None,
        file_params=summary.file_params if summary else None,
        macs=summary.macs if summary else known("macs"),
        file_bytes=summary.file_bytes if summary else None,
        peak_activation_bytes=summary.peak_activation_bytes if summary else None,
        flash_bytes=summary.flash_bytes if summary and summary.quantised else None,
        accuracy=_of_test(subject, "accuracy").value,
        accuracy_low=_of_test(subject, "accuracy_low").value,
        accuracy_high=_of_test(subject, "accuracy_high").value,
        latency_ms=_number(subject.metrics.get("latency_ms")),
        latency_ratio=latency_ratio(subject).value,
        artifact=str(subject.path) if subject.path else None,
        sha256=summary.sha256 if summary else None,
    )


def find_base(record: Record, base: list[Record]) -> tuple[Record | None, str]:
    """The record of the same artefact in ``base``, or the reason why there is none.

    The same content is the same artefact; else the same path; else the same network, stage, data
    set and seed, where just one record has them.
    """
    tests = (
        lambda r: record.sha256 is not None and r.sha256 == record.sha256,
        lambda r: record.artifact is not None and r.artifact == record.artifact,
    )
    for test in tests:
        for candidate in base:
            if test(candidate):
                return candidate, ""
    wanted = (record.name, record.stage, record.data)
    alike = [r for r in base if (r.name, r.stage, r.data) == wanted]
    if len(alike) > 1:
        alike = [r for r in alike if r.seed == record.seed]
    if len(alike) == 1 and record.stage != "file":
        return alike[0], ""
    return None, "several records of --base are alike" if alike else "new, not in --base"


def read_base(path: Path) -> list[Record]:
    """Records of a report.json, or of what ``--format json`` wrote; raises InputError."""
    from reports.records import from_json

    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise InputError(f"{path}: too large to be a report.json")
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("artefacts"), list):
            content = [
                entry.get("record") if isinstance(entry, dict) else None
                for entry in content["artefacts"]
                if not (isinstance(entry, dict) and entry.get("record") is None)
            ]
        return from_json(json.dumps(content))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; give a report.json of the state to compare with"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: neither a report.json nor what the gate's --format json wrote ({error})"
        ) from None
