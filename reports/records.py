"""What a report is made of: one record per artefact, and what its figures are drawn from.

``report.json`` is a list of :class:`Record`, each an object with exactly these keys. ``None``
(JSON ``null``) stands for what has not been measured, or does not hold for the file any more.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.chip import ChipRecord
    from reports.npu import NpuRecord


MOST = 10**18  # far beyond any count or time; a float holds what is under it


@dataclass(frozen=True)
class Record:
    """One artefact, as written to report.json."""

    name: str  # the network, for example dsc500
    stage: str  # teach, train, distill, prune, quantize, export ...; registered: not trained yet
    data: str | None = None  # data set that it was measured on, with the fold
    params: int | None = None  # learnable parameters as trained
    file_params: int | None = None  # weights in the file, batch norm folded where it can be
    macs: int | None = None  # multiply-accumulates of convolutions and linear layers, one window
    file_bytes: int | None = None  # the file with its external data
    peak_activation_bytes: int | None = None  # activations alive at once, one window
    accuracy: float | None = None  # on the test split, of this file, 0..1, per clip
    accuracy_low: float | None = None  # lower end of its 95 % interval
    accuracy_high: float | None = None  # upper end of its 95 % interval
    seeds: int | None = None  # runs that differ from this one by seed or fold alone, with this one
    recall: Mapping[str, float | None] | None = None  # class -> recall on the test split, 0..1
    latency_ms: float | None = None  # median of one window, one thread
    within_budget: bool | None = None  # None: a limited figure has not been measured
    artifact: str | None = None  # path of the file
    sha256: str | None = None  # of the file as it is now
    seed: int | None = None
    peak_layer: str | None = None  # operator at which the peak of the activations stands
    flash_bytes: int | None = None  # of an int8 file: all numbers stored in it
    latency_ratio: float | None = None  # to the file that it was made of, measured in turns
    expected_cost: float | None = None  # mean cost of a test clip, most probable class decided
    expected_cost_by_costs: float | None = None  # decided for the least expected cost


@dataclass(frozen=True)
class Origin:
    """What a run was made of. kind: parent or teacher; run: its folder, '' where it is not here."""

    kind: str
    name: str
    run: str = ""


@dataclass(frozen=True)
class Entry:
    """A record and what stands behind it."""

    record: Record
    run: str = ""  # run folder
    variant: str = ""  # "seed 1", "fold 2": what tells it from runs that are else the same
    group: str = ""  # equal for runs that differ by seed or fold alone
    varied: str = ""  # "seeds", "folds" or "seeds and folds": how the runs of its group differ
    data_set: str = ""  # without the fold: what accuracies may be compared on
    synthetic: bool = False  # the data set is made by a synthesiser
    over: Mapping[str, float] = field(default_factory=dict)  # figure -> how far beyond its limit
    warning: str = ""  # why figures are missing: file changed or lost
    classes: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] = ()  # rows actual, columns decided
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)  # column -> per epoch
    clips: int | None = None  # on the test split
    loss: float | None = None
    calibration_error: float | None = None
    origins: Sequence[Origin] = ()  # its parent, then its teachers and its members
    finished: float = 0.0  # seconds since 1970, for the order of runs

    @property
    def label(self) -> str:
        return f"{self.record.name} ({self.variant})" if self.variant else self.record.name


@dataclass(frozen=True)
class Summary:
    """Runs that differ by seed or fold alone. Spread is the sample standard deviation."""

    name: str
    stage: str
    data: str
    varied: str  # "seeds", "folds" or "seeds and folds"
    runs: int
    accuracy_mean: float
    accuracy_deviation: float
    accuracy_least: float
    accuracy_most: float
    params: int | None
    macs: int | None


@dataclass(frozen=True)
class Report:
    """Everything that the tables and the page show."""

    entries: Sequence[Entry]
    summaries: Sequence[Summary] = ()
    notes: Sequence[str] = ()  # runs left out, and why
    limits: Mapping[str, float] = field(default_factory=dict)  # figure -> its level
    tree: Sequence[str] = ()  # which run was made of which, as text; none where none was
    detailed: Sequence[Entry] = ()  # entries shown with confusion, recall and curves
    detail_choice: str = ""  # how they were chosen, in words
    made: str = ""  # when
    chips: Sequence[ChipRecord] = ()  # exports on emulated processors
    npus: Sequence[NpuRecord] = ()  # .tflite exports on Arm NPUs
    costs: str = ""  # what a wrong decision costs, in words

    @property
    def measured(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.record.accuracy is not None]


@dataclass(frozen=True)
class Standing:
    """One entry, or all runs of a network that differ by seed or fold alone, taken together."""

    members: Sequence[Entry]

    @property
    def first(self) -> Entry:
        return self.members[0]

    @property
    def accuracy(self) -> float:
        return statistics.fmean(entry.record.accuracy or 0.0 for entry in self.members)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the runs; None for a single one."""
        if len(self.members) < 2:
            return None
        return statistics.stdev(entry.record.accuracy or 0.0 for entry in self.members)

    @property
    def label(self) -> str:
        if len(self.members) == 1:
            return self.first.label
        return f"{self.first.record.name}, {len(self.members)} {self.first.varied}"


def standings(entries: Iterable[Entry]) -> list[Standing]:
    """Measured entries, those of one group together, in the order of their first member."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.record.accuracy is not None:
            key = f"group {entry.group}" if entry.varied else f"run {entry.run}"
            groups.setdefault(key, []).append(entry)
    return [Standing(members) for members in groups.values()]


def to_json(records: Iterable[Record]) -> str:
    """The text of report.json."""
    listed = [dataclasses.asdict(record) for record in records]
    return json.dumps(listed, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> list[Record]:
    """Records of a report.json; raises ValueError that says what is wrong with it."""
    try:
        listed = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(listed, list):
        raise ValueError("not a list of records")
    known = {spec.name for spec in dataclasses.fields(Record)}
    records = []
    for number, values in enumerate(listed):
        if not isinstance(values, dict) or not {"name", "stage"} <= set(values) <= known:
            raise ValueError(f"record {number} has other keys than a record")
        for spec in dataclasses.fields(Record):
            if not _fits(spec, values.get(spec.name)):
                shown = str(values[spec.name])[:40]
                raise ValueError(f"record {number} has an impossible {spec.name}: {shown!r}")
        records.append(Record(**values))
    return records


def is_number(value: Any, most: float = MOST) -> bool:
    """Whether a value from a file is a number from 0 to ``most``; NaN is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


def _fits(spec: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a value is what the annotation of a record's field allows."""
    if value is None:
        return "None" in str(spec.type)
    kind = str(spec.type).partition(" ")[0]
    if kind in ("int", "float") and spec.name != "seed":
        share = spec.name.startswith("accuracy")
        return is_number(value, 1 if share else MOST) and (kind == "float" or value == int(value))
    plain = {"str": str, "int": int, "bool": bool}.get(kind)
    return isinstance(value, plain or Mapping)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of (cost, gain) points that no cheaper or equally cheap point reaches; by cost."""
    front: list[int] = []
    best = -math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front


def read_curves(text: str, most_rows: int = 100_000) -> dict[str, list[float]]:
    """Columns of curves.csv, those that are numbers throughout; empty where there is no epoch."""
    try:
        rows = list(itertools.islice(csv.reader(io.StringIO(text)), most_rows + 1))
    except csv.Error:
        return {}
    if len(rows) < 2:
        return {}
    columns: dict[str, list[float]] = {}
    for index, name in enumerate(rows[0]):
        try:
            columns[name] = [float(row[index]) for row in rows[1:] if row]
        except (ValueError, IndexError):
            continue
    return columns if "epoch" in columns else {}


def plain(value: Any) -> str:
    """Text on one line without control or direction characters, which can hide what is written."""
    text = " ".join(str(value).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
