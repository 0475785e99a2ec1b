"""From run folders to results over seeds: what is grouped, paired and compared.

    runs of one network, seeds and folds -> accuracy with its interval, spread
    their int8 files                     -> bytes, accuracy against float
    twins without a teacher              -> gain of the teacher, paired by seed and clip
    the baseline of the same data        -> ratio of errors, on the same clips
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import runs
from compress.config import nearest
from compress.errors import InputError
from reports.records import Entry
from reports.results import Interval, Result, from_json

if TYPE_CHECKING:
    from compress.replicates import Estimate, Outcome

DEFAULT_BASELINE = "audiobot500"
_SHOWN = ("teach", "train", "distill", "prune", "ensemble", "baseline")
_ORDER = {stage: place for place, stage in enumerate(_SHOWN)}
_IN_EPOCHS = ("epochs", "patience", "plateau_patience")
_SAME_BUDGET = 0.02  # relative difference in windows seen, where half an epoch is less
_SEED_AND_KEY = re.compile(r"-s[0-9]+-[0-9a-f]{6}$")  # at the end of a run folder's name
_NOT_HOW = ("seed", "split", "teachers", "parent", "processes", "data", "arguments", "model")


@dataclass(frozen=True)
class Member:
    """A run whose figures hold, with its manifest and metrics."""

    entry: Entry
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    outcome: Outcome | None

    @property
    def settings(self) -> Mapping[str, Any]:
        found = self.manifest.get("settings")
        return found if isinstance(found, dict) else {}

    @property
    def place(self) -> tuple[Any, Any, Any]:
        """Seed, fold and split: what has to be equal in a pair."""
        return self.manifest.get("seed"), self.manifest.get("fold"), self.settings.get("split")


def build(entries: Sequence[Entry], baseline: str | None = None) -> tuple[list[Result], str]:
    """(a result per group of runs that differ by seed or fold alone, name of the baseline).

    baseline: a network's name or a run folder; None: audiobot500 where there is one. By data set;
    within it the teachers first, then by parameters. Raises InputError for a baseline not there.
    """
    members = [found for entry in entries if (found := _member(entry)) is not None]
    groups = _grouped([m for m in members if m.entry.record.stage in _SHOWN])
    int8 = _int8_files(members)
    bases, name = _baselines(groups, baseline)
    results = [_result(group, groups, int8, bases.get(_data_of(group[0]))) for group in groups]
    results = _told_apart(results, groups)
    return _ordered(results), name


def _ordered(results: Sequence[Result]) -> list[Result]:
    return sorted(results, key=lambda r: (r.data, r.stage != "teach", r.params or 0, r.name,
                                          _ORDER.get(r.stage, 9), -r.accuracy.mean))  # fmt: skip


def with_earlier(results: Sequence[Result], files: Sequence[Path]) -> list[Result]:
    """The rows of some results.json among these, where none of these is the same row already: of
    the same data, network and making. Of two files the later one counts."""
    rows = {(r.data, r.name, r.made): r for file in files for r in read(file)}
    for result in results:
        rows[result.data, result.name, result.made] = result
    return _ordered(list(rows.values()))


def read(file: Path) -> list[Result]:
    """A results.json; raises InputError for anything else."""
    found = []
    for number, row in enumerate(runs.read_json_list(file), 1):
        try:
            found.append(from_json(row))
        except ValueError as error:
            raise InputError(f"{file}: row {number} is no result ({error})") from None
    return found


def _member(entry: Entry) -> Member | None:
    if entry.record.accuracy is None or entry.warning or not entry.run:
        return None
    try:
        opened = runs.open_run(Path(entry.run))
        return Member(entry, opened.manifest, opened.metrics(), _outcome(opened))
    except InputError:
        return None


def _outcome(run: runs.Run) -> Outcome | None:
    """Right and wrong clips of the test, where the run recorded them and they are unchanged."""
    from compress import evaluate, replicates

    recorded = run.manifest.get("artefacts", {}).get(runs.DECISIONS)
    path = run.folder / runs.DECISIONS
    seed = run.manifest.get("seed")
    if recorded is None or not isinstance(seed, int) or not path.is_file():
        return None
    if runs.sha256_file(path) != recorded:
        return None
    return replicates.outcome(evaluate.load_decisions(path), seed)


def _grouped(members: Sequence[Member]) -> list[list[Member]]:
    groups: dict[str, list[Member]] = {}
    for member in members:
        entry = member.entry
        groups.setdefault(entry.group if entry.varied else entry.run, []).append(member)
    return list(groups.values())


def _data_of(member: Member) -> tuple[str, str]:
    """What accuracies may be compared on: the set's name and content."""
    data = member.manifest.get("data", {})
    return member.entry.data_set, str(data.get("content_hash"))


# --- one row -------------------------------------------------------------------------------------


def _result(
    group: Sequence[Member],
    groups: Sequence[Sequence[Member]],
    int8: Mapping[str, Member],
    base: Sequence[Member] | None,
) -> Result:
    first = group[0]
    record = first.entry.record
    params = [m.entry.record.params for m in group if m.entry.record.params is not None]
    macs = [m.entry.record.macs for m in group if m.entry.record.macs is not None]
    integers = [int8[m.entry.run] for m in group if m.entry.run in int8]
    sizes = [m.entry.record.file_bytes for m in integers if m.entry.record.file_bytes]
    seconds = [s for m in group if (s := m.metrics.get("seconds")) is not None]
    seeds = sorted({s for m in group if (s := m.manifest.get("seed")) is not None})
    folds = sorted({f for m in group if (f := m.manifest.get("fold")) is not None})
    return Result(
        name=record.name,
        stage=record.stage,
        data=first.entry.data_set,
        synthetic=first.entry.synthetic,
        made=_made(first),
        seeds=seeds,
        folds=folds,
        params=max(params, default=None),
        macs=max(macs, default=None),
        params_least=min(params) if len(set(params)) > 1 else None,
        macs_least=min(macs) if len(set(macs)) > 1 else None,
        accuracy=_accuracy(group),
        deviation=_deviation(group),
        int8_bytes=max(sizes, default=None),
        int8_gain=_paired([(int8[m.entry.run], m) for m in group if m.entry.run in int8]),
        error_ratio=_error_ratio(group, base),
        teacher_gain=_teacher_gain(group, groups),
        device=_device(group),
        seconds=statistics.median(seconds) if seconds else None,
        runs=[m.entry.run for m in group],
        sha256=[m.entry.record.sha256 or "" for m in group],
    )


def _made(member: Member) -> str:
    """'trained', 'distilled from resnet10t', with the epochs that the recipe allows and the run
    whose weights it started from."""
    teachers = member.manifest.get("teachers")
    names = " + ".join(str(t.get("name")) for t in teachers or () if isinstance(t, dict))
    stage, parent = member.entry.record.stage, member.manifest.get("parent")
    start = parent if isinstance(parent, dict) else {}
    words = {"teach": "teacher", "train": "trained", "distill": "distilled", "prune": "pruned"}
    text = words.get(stage, stage)
    if stage == "prune":
        text += f" from {start['name']}" if start.get("name") else ""
        text += f" under {names}" if names else ""
    else:
        text += f" from {names}" if names else ""
    text += " with unlabelled sound" if member.settings.get("transfer") else ""
    recipe = member.settings.get("recipe")
    epochs = recipe.get("epochs") if isinstance(recipe, dict) else None
    text += f", {epochs} epoch{'s' * (epochs != 1)}" if epochs else ""
    if isinstance(recipe, dict) and recipe.get("train_on_validation"):
        text += ", on the validation clips too"
    if stage in ("train", "distill") and start.get("folder"):
        text += f", started from {_start(member, Path(str(start['folder'])))}"
    return text


def _start(member: Member, folder: Path) -> str:
    """The run whose weights were the start: what sound it had heard where that was other sound,
    else its name without seed and key."""
    try:
        heard = runs.read_json(folder / runs.MANIFEST)["data"]["name"]
    except (InputError, KeyError, TypeError):
        heard = None
    own = member.manifest.get("data", {}).get("name")
    return str(heard) if heard and heard != own else _SEED_AND_KEY.sub("", folder.name)


def _accuracy(group: Sequence[Member]) -> Interval:
    from compress import replicates

    outcomes = [m.outcome for m in group if m.outcome is not None]
    if len(outcomes) == len(group):
        return _interval(replicates.accuracy(outcomes))
    records = [m.entry.record for m in group]  # runs without decisions: the widest they recorded
    mean = statistics.fmean(r.accuracy or 0.0 for r in records)
    lows = [r.accuracy_low if r.accuracy_low is not None else mean for r in records]
    highs = [r.accuracy_high if r.accuracy_high is not None else mean for r in records]
    return Interval(mean, min(lows), max(highs), len(group))


def _deviation(group: Sequence[Member]) -> float | None:
    """Over the means of the seeds; of a single seed, over its folds."""
    by_seed: dict[Any, list[float]] = {}
    for member in group:
        accuracy = member.entry.record.accuracy or 0.0
        by_seed.setdefault(member.manifest.get("seed"), []).append(accuracy)
    values = [statistics.fmean(found) for found in by_seed.values()]
    if len(values) == 1:
        (values,) = by_seed.values()
    return statistics.stdev(values) if len(values) > 1 else None


def _device(group: Sequence[Member]) -> str:
    found = dict.fromkeys(str(m.manifest.get("device") or "") for m in group)
    return "; ".join(name.replace("1 threads", "1 thread") for name in found if name)


def _interval(estimate: Estimate) -> Interval:
    return Interval(estimate.mean, estimate.low, estimate.high, estimate.seeds)


# --- pairs ---------------------------------------------------------------------------------------


def _paired(pairs: Sequence[tuple[Member, Member]]) -> Interval | None:
    """Accuracy of the first of each pair over the second, on the same clips."""
    from compress import replicates

    outcomes = [(a.outcome, b.outcome) for a, b in pairs if a.outcome and b.outcome]
    if not outcomes:
        return None
    try:
        return _interval(replicates.gain(outcomes))
    except ValueError:  # other clips
        return None


def _int8_files(members: Sequence[Member]) -> dict[str, Member]:
    """Run folder of a float network -> its int8 run; the plain 8-bit one where there are more."""
    found: dict[str, Member] = {}
    for member in members:
        parents = [o.run for o in member.entry.origins if o.kind == "parent" and o.run]
        if member.manifest.get("stage") != "quantize" or not parents:
            continue
        best = found.get(parents[0])
        if best is None or _plainness(member) > _plainness(best):
            found[parents[0]] = member
    return found


def _plainness(member: Member) -> tuple[bool, bool, bool]:
    """Ranks int8 runs: 8-bit weights without a codebook, all layers in int8, not fine-tuned."""
    settings = member.settings
    narrow = settings.get("weight_bits", 8) != 8 or bool(settings.get("clusters"))
    return not narrow, not settings.get("keep_float"), settings.get("fine_tuning") is None


def _teacher_gain(group: Sequence[Member], groups: Sequence[Sequence[Member]]) -> Interval | None:
    """Over the runs of the same network, recipe, seed and split that were trained on labels.

    Runs of a group are alike, so one pair says it for all: runs of former versions do not record
    how many windows an epoch has.
    """
    if group[0].entry.record.stage != "distill":
        return None
    for others in groups:
        if others[0].entry.record.stage != "train":
            continue
        if any(_twins(a, b) for a in group for b in others):
            by_place = {other.place: other for other in others}
            return _paired([(m, by_place[m.place]) for m in group if m.place in by_place])
    return None


def _twins(distilled: Member, trained: Member) -> bool:
    """Whether they differ by the teacher and its transfer material alone, at the same budget of
    training: as many windows seen, so that a twin without transfer material has more epochs."""
    same = ("arguments", "normalise", "weights", "parent")
    ours, theirs = distilled.settings, trained.settings
    if (
        distilled.entry.record.name != trained.entry.record.name
        or _data_of(distilled) != _data_of(trained)
        or any(ours.get(key) != theirs.get(key) for key in same)
    ):
        return False
    a, b = ours.get("recipe"), theirs.get("recipe")
    if not isinstance(a, dict) or not isinstance(b, dict):
        return False
    if not ours.get("transfer"):
        return a == b
    seen, wanted = _windows_seen(distilled, a), _windows_seen(trained, b)
    if seen is None or wanted is None:
        return False
    rounding = wanted / b["epochs"] / 2  # a twin has whole epochs
    if abs(seen - wanted) > max(_SAME_BUDGET * wanted, rounding):
        return False
    return {**a, **dict.fromkeys(_IN_EPOCHS)} == {**b, **dict.fromkeys(_IN_EPOCHS)}


def _windows_seen(member: Member, recipe: Mapping[str, Any]) -> float | None:
    """Windows of a training of all the recipe's epochs."""
    epochs, windows = recipe.get("epochs"), member.metrics.get("windows_per_epoch")
    return epochs * windows if epochs and windows else None


# --- the baseline --------------------------------------------------------------------------------


def _baselines(
    groups: Sequence[Sequence[Member]], asked: str | None
) -> tuple[dict[tuple[str, str], Sequence[Member]], str]:
    """(data set -> the baseline's runs, its name). Of several, that trained on labels alone."""
    name = asked or DEFAULT_BASELINE
    if runs.is_folder(name):
        folder = Path(name).resolve()
        chosen = [g for g in groups if any(Path(m.entry.run).resolve() == folder for m in g)]
        if not chosen:
            raise InputError(f"--baseline {name}: no measured run of this report; see --runs")
        name = chosen[0][0].entry.record.name
    else:
        chosen = [g for g in groups if g[0].entry.record.name == name]
        if not chosen and asked:
            known = {g[0].entry.record.name for g in groups}
            raise InputError(
                f"--baseline {name}: no measured run of it{nearest(name, known)} "
                f"(measured: {', '.join(sorted(known)) or 'none'})"
            )
    found: dict[tuple[str, str], Sequence[Member]] = {}
    for group in sorted(chosen, key=lambda g: (g[0].entry.record.stage != "train", -len(g))):
        found.setdefault(_data_of(group[0]), group)
    return found, name if found else ""


def _error_ratio(group: Sequence[Member], base: Sequence[Member] | None) -> Interval | None:
    from compress import replicates

    if base is None or group is base:
        return None
    ours, theirs = ([m.outcome for m in side if m.outcome] for side in (group, base))
    if len(ours) < len(group) or len(theirs) < len(base):
        return None
    found = replicates.error_ratio(ours, theirs)
    return None if found is None else _interval(found)


# --- rows that would read alike ------------------------------------------------------------------


def _told_apart(results: Sequence[Result], groups: Sequence[Sequence[Member]]) -> list[Result]:
    """The results with the first settings in which those of one name and making differ: three, or
    as much more as tells all of them apart."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, result in enumerate(results):
        alike.setdefault((result.data, result.name, result.made), []).append(index)
    told = list(results)
    for indices in alike.values():
        if len(indices) == 1:
            continue
        settings = [_flat(groups[i][0]) for i in indices]
        behind = [_behind(groups[i][0]) for i in indices]
        differing = _differing(settings)
        shown = differing[:3]
        table = [one | more for one, more in zip(settings, behind, strict=True)]
        for key in [*differing[3:], *_differing(behind)]:
            if len({tuple(str(one.get(k)) for k in shown) for one in table}) == len(table):
                break
            shown.append(key)
        for index, one in zip(indices, table, strict=True):
            words = [f"{k.replace('_', ' ')} {_word(one.get(k))}" for k in shown]
            made = ", ".join([results[index].made, *words])
            told[index] = dataclasses.replace(results[index], made=made)
    return told


def _differing(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if len({str(table.get(key)) for table in tables}) > 1]


def _flat(member: Member) -> dict[str, Any]:
    """Widths, recipe, other settings and front end of a run in one table."""
    settings = member.settings
    data = member.manifest.get("data", {})
    parts = (settings.get("arguments"), settings.get("recipe"), data.get("frontend"))
    found = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
    return found | {k: v for k, v in settings.items() if k not in (*_NOT_HOW, "recipe")}


def _behind(member: Member) -> dict[str, Any]:
    """Where a run's sound and weights came from, and last the run, which tells any two apart."""
    origins = member.entry.origins
    return {
        "data seed": member.manifest.get("data", {}).get("scene_seed"),
        **{
            kind: [Path(o.run).name for o in origins if o.kind == kind and o.run]
            for kind in ("teacher", "parent", "member")
        },
        "run": Path(member.entry.run).name,
    }


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
