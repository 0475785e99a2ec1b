"""Gather every run into one report: a table, Markdown, CSV, JSON and a page with figures.

    python -m compress.report                 runs/ -> runs/report/report.{html,md,csv,json}
    python -m compress.report --results       and results.{md,json}, pareto-DATA.{png,svg}: every
                                              network over its seeds, against twin and baseline
    python -m compress.report --readme FILE   the same between the two marks of a README

Figures of a run are believed only while its file has the hash that they were measured on. Before
any run exists, every registered student is listed with its parameters and MACs.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from compress import (
    artefacts,
    budgets,
    cli,
    costs,
    frontend_file,
    registry,
    results,
    runs,
    toml_text,
)
from compress.chip import figures as chip_figures
from compress.config import DistillConfig, GateConfig, ReportConfig
from compress.errors import InputError
from compress.next_command import next_command
from compress.subjects import recorded_latency_ratio
from compress.tflite.recorded import npu_records
from reports import chip, html, lineage, npu, records, tables
from reports import results as results_shown
from reports.records import Entry, Origin, Record, Report, Summary

_MOST_CURVE_BYTES = 16 * 2**20
_HASHING_THREADS = 4
_FIGURES_OF_README = "docs"  # folder beside the README
_LONGEST_NAME = 255  # bytes that a name of a file may have
_LARGEST_FIGURE = 1e18  # no count, byte or millisecond of a network is more


def run(config: ReportConfig) -> int:
    limits = budgets.load(config.budgets)
    out = config.out or config.runs / "report"
    _refuse_if_no_folder(out)
    if config.runs.exists() and not config.runs.is_dir():
        raise InputError(f"{config.runs}: not a folder; give the folder that holds the runs")
    prices = costs.load(config.costs)
    entries, notes = gather(config.runs, limits, prices)
    if not entries:
        entries = registered_students(limits)
        notes.append(f"{config.runs}: no finished run yet; these are the registered students")
    chips, chip_notes = on_chips(config.runs, limits)
    notes += chip_notes
    npus, npu_notes = npu_records(config.runs)
    notes += npu_notes
    detailed, choice = choose_details(entries, config.details)
    report = Report(
        entries=entries,
        summaries=summaries(entries),
        notes=notes,
        limits=limits.limits,
        tree=lineage.text_tree(entries),
        detailed=[with_curves(entry) for entry in detailed],
        detail_choice=choice,
        made=time.strftime("%Y-%m-%d %H:%M"),
        chips=chips,
        npus=npus,
        costs=_in_words(prices, entries),
    )
    runs.write_text(out / "report.json", records.to_json(e.record for e in report.entries))
    runs.write_text(out / "report.csv", tables.comma_separated(report))
    if report.chips:
        runs.write_text(out / "chip.json", chip.to_json(report.chips))
        runs.write_text(out / "chip.csv", chip.comma_separated(report.chips, tables.escape_csv))
    if report.npus:
        runs.write_text(out / "npu.json", npu.to_json(report.npus))
        runs.write_text(out / "npu.csv", npu.comma_separated(report.npus, tables.escape_csv))
    runs.write_text(out / "report.md", tables.markdown(report))
    runs.write_text(out / "report.html", html.page(report))
    told = write_results(entries, config, out)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    cli.say(tables.terminal(report, width))
    cli.say()
    for line in told:
        cli.say(line)
    given = toml_text.changed(config)
    own = {"runs": given.get("runs"), "budgets": given.get("budgets")}
    following = (
        next_command("gate", GateConfig, config, **own)
        if report.measured
        else next_command("distill", DistillConfig, config, student="dsc500")
    )
    place = out / "report.html"
    cli.say(f"The report lies in {place} (.md, .csv, .json). Next: {following}")
    return 0


def _refuse_if_no_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give another folder with --out")


# --- results over seeds --------------------------------------------------------------------------


def write_results(entries: Sequence[Entry], config: ReportConfig, out: Path) -> list[str]:
    """results.md, results.json and a Pareto figure per data set; the same into ``--readme``.

    Returns the lines that say where they lie; none where they were not asked for.
    """
    if not (config.results or config.readme or config.baseline or config.earlier):
        return []
    readme = _readme(config.readme) if config.readme else ""
    found, baseline = results.build(entries, config.baseline)
    found = results.with_earlier(found, config.earlier)
    if not found:
        raise InputError(f"{config.runs}: no measured run yet, so there are no results to show")
    runs.write_text(out / "results.json", results_shown.to_json(found))
    drawn = _draw_pareto(found, out, ("png", "svg"))
    runs.write_text(out / "results.md", results_shown.markdown(found, baseline, drawn))
    beside_it = ", ".join([".json", *(name for _, name in drawn)])
    told = [f"Results over seeds: {out / 'results.md'} ({beside_it})"]
    if config.readme:
        drawn = _draw_pareto(found, config.readme.parent / _FIGURES_OF_README, ("png",))
        beside = [(data, f"{_FIGURES_OF_README}/{name}") for data, name in drawn]
        table = results_shown.markdown(found, baseline, beside)
        runs.write_text(config.readme, results_shown.with_results(readme, table))
        told.append(f"The same stands in {config.readme}")
    return told


def _readme(path: Path) -> str:
    """Its text; raises InputError where it cannot be read or has no place for the results."""
    try:
        text = path.read_text(encoding="utf-8")
        results_shown.with_results(text, "")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--readme {path}: cannot be read ({error})") from None
    except ValueError as error:
        raise InputError(f"--readme {path}: {error}") from None
    return text


def _draw_pareto(
    found: Sequence[results_shown.Result], folder: Path, endings: Sequence[str]
) -> list[tuple[str, str]]:
    """(data set, file name) of a figure for every data set with at least two networks."""
    by_data: dict[str, list[results_shown.Result]] = {}
    for result in found:
        by_data.setdefault(result.data, []).append(result)
    drawn: dict[str, str] = {}
    for data, of_data in by_data.items():
        if len({r.params for r in of_data if r.params}) < 2:
            continue
        name = f"pareto-{runs.slug(Path(data).name.removesuffix(' (synthetic)'))}"
        if name in drawn.values():
            name += f"-{len(drawn)}"
        for ending in endings:
            with runs.atomic_path(folder / f"{name}.{ending}") as path:
                results_shown.save_pareto(of_data, path, ending)
        drawn[data] = name
    return [(data, f"{name}.{endings[0]}") for data, name in drawn.items()]


# --- from run folders to entries -----------------------------------------------------------------


def gather(
    root: Path, limits: budgets.Budgets, prices: costs.Costs | None = None
) -> tuple[list[Entry], list[str]]:
    """(an entry per artefact, why runs were left out).

    By data set, most accurate first, runs that differ by seed or fold alone together.
    """
    folders = runs.find_runs(root)
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:  # hashing lets other threads run
        read = list(pool.map(lambda folder: _read_run(folder, limits, prices), folders))
    found = [(entry, manifest) for entry, manifest, _ in read if entry]
    notes = [note for _, _, note in read if note]
    groups: dict[str, list[int]] = {}
    entries = with_origins(found)
    manifests = [manifest for _, manifest in found]
    for index, group in enumerate(_groups(entries, manifests)):
        groups.setdefault(group, []).append(index)
    for group, members in groups.items():
        several = [(entries[i], manifests[i]) for i in members]
        for i, entry in zip(members, _told_apart(several, group), strict=True):
            entries[i] = entry
    means = {id(e): s.accuracy for s in records.standings(entries) for e in s.members}
    entries.sort(key=lambda e: (e.data_set, -means.get(id(e), 0.0), e.group, e.variant, e.run))
    return entries, notes


def with_origins(found: Sequence[tuple[Entry, dict[str, Any]]]) -> list[Entry]:
    """The entries, each with the parent, the teachers and the members that its manifest records.

    A reference holds only for a run whose weights have the recorded hash; of several with the same
    weights it means the one in the recorded folder.
    """
    by_hash: dict[str, list[str]] = {}
    for entry, manifest in found:
        artefacts_of = _table(manifest, "artefacts")
        held = artefacts_of.get(runs.model_file(str(manifest.get("stage"))))
        if isinstance(held, str):
            by_hash.setdefault(held, []).append(entry.run)

    def origin(kind: str, reference: Any) -> Origin | None:
        if not isinstance(reference, dict):
            return None
        wanted = reference.get("weights_sha256")
        alike = by_hash.get(wanted, []) if isinstance(wanted, str) else []
        folder = str(reference.get("folder"))
        run = folder if folder in alike else alike[0] if alike else ""
        return Origin(kind, str(reference.get("name")), run)

    entries = []
    for entry, manifest in found:
        listed = [("parent", manifest.get("parent"))]
        listed += [("teacher", reference) for reference in _references(manifest, "teachers")]
        listed += [("member", reference) for reference in _references(manifest, "members")]
        origins = tuple(o for kind, ref in listed if (o := origin(kind, ref)) is not None)
        entries.append(dataclasses.replace(entry, origins=origins))
    return entries


def _references(manifest: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The runs that a manifest lists under ``name``."""
    listed = manifest.get(name)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _read_run(
    folder: Path, limits: budgets.Budgets, prices: costs.Costs | None
) -> tuple[Entry | None, dict[str, Any], str]:
    """(entry, manifest, note); no entry where the run is unfinished or damaged."""
    try:
        opened = runs.open_run(folder)
        if opened.manifest["status"] == "running":
            return None, {}, f"{folder}: running or interrupted, not in the table"
        opened.check_complete()
        entry = _entry(opened, opened.metrics(), limits)
        if prices is not None and not entry.warning and prices.fits(entry.classes):
            entry = _with_costs(entry, opened, prices)
        return entry, opened.manifest, ""
    except InputError as error:
        return None, {}, str(error)


def _entry(run: runs.Run, metrics: dict[str, Any], limits: budgets.Budgets) -> Entry:
    """The entry of a finished run, with figures only as far as they hold for the file."""
    test = _table(_table(metrics, "splits"), "test")
    data = run.manifest["data"]
    classes = run.class_names
    record = Record(
        name=run.name,
        stage=_stage(run.manifest),
        data=_data_name(run.manifest),
        params=_whole(metrics.get("params")),
        file_params=_whole(metrics.get("file_params")),
        macs=_whole(metrics.get("macs")),
        file_bytes=_whole(metrics.get("file_bytes")),
        peak_activation_bytes=_whole(metrics.get("peak_activation_bytes")),
        peak_layer=_words(metrics.get("peak_layer")),
        flash_bytes=_whole(metrics.get("flash_bytes")),
        accuracy=_share(test.get("accuracy")),
        accuracy_low=_share(test.get("accuracy_low")),
        accuracy_high=_share(test.get("accuracy_high")),
        recall={str(k): _share(v) for k, v in _table(test, "recall").items()} or None,
        latency_ms=_number(metrics.get("latency_ms")),
        latency_ratio=_number(recorded_latency_ratio(metrics)),
        seed=_whole(run.manifest.get("seed")),
        seeds=1,
    )
    record, warning = _verified(run, metrics, record)
    over, within = compare(record, limits)
    valid = not warning
    return Entry(
        record=dataclasses.replace(record, within_budget=within),
        run=str(run.folder),
        data_set=_data_set(run.manifest),
        synthetic=data.get("synthetic") is True,
        over=over,
        warning=warning,
        classes=classes if valid else (),
        confusion=_confusion(test.get("confusion"), len(classes)) if valid else (),
        clips=_whole(test.get("clips")) if valid else None,
        loss=_number(test.get("loss")) if valid else None,
        calibration_error=_number(test.get("calibration_error")) if valid else None,
        finished=(run.folder / runs.METRICS).stat().st_mtime,
    )


def _with_costs(entry: Entry, run: runs.Run, prices: costs.Costs) -> Entry:
    """The entry with the mean cost of the run's recorded decisions on the test split.

    Without it where the run recorded none, or the file is not the one that it recorded.
    """
    from compress import evaluate

    recorded = run.manifest.get("artefacts", {}).get(runs.DECISIONS)
    path = run.folder / runs.DECISIONS
    if recorded is None or not path.is_file() or runs.sha256_file(path) != recorded:
        return entry
    decisions = evaluate.load_decisions(path)
    shown, least = costs.of_decisions(decisions, prices.matrix(run.class_names))
    record = dataclasses.replace(entry.record, expected_cost=shown, expected_cost_by_costs=least)
    return dataclasses.replace(entry, record=record)


def _in_words(prices: costs.Costs, entries: Sequence[Entry]) -> str:
    """Where the costs of the table come from and what they are; '' where none are shown."""
    if all(entry.record.expected_cost is None for entry in entries):
        return ""
    rows = []
    for actual, row in prices.rows.items():
        single = [f"{c:g} as {name}" for name, c in row.items() if name not in ("any", actual)]
        whole = [f"{row['any']:g}"] if "any" in row else []
        rows.append(f"{actual} {', '.join(whole + single)}")
    source = "the shipped costs" if prices.source == costs.SHIPPED else str(prices.source)
    return f"A wrong decision costs, by {source}: {'; '.join(rows)}."


def _verified(run: runs.Run, metrics: dict[str, Any], record: Record) -> tuple[Record, str]:
    """The record with path and hash of the file; without measured figures where it changed."""
    name = metrics.get("artifact")
    measured = Record(name=record.name, stage=record.stage, data=record.data, seeds=record.seeds)
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        return measured, "metrics.json names no file of this run folder; measure the run again"
    path = run.folder / name
    if not _could_be_a_file(name) or not path.is_file():
        return measured, f"{name} is missing; its figures are left out"
    digest = artefacts.sha256_of(path)
    if digest == metrics.get("sha256"):
        return dataclasses.replace(_on_chip(record, path), artifact=str(path), sha256=digest), ""
    counted = dataclasses.replace(measured, artifact=str(path), sha256=digest)
    reason = f"{name} changed since it was measured; sizes are counted anew, the rest is left out"
    try:
        summary = artefacts.read(path)
    except InputError as error:
        return counted, f"{name} changed since it was measured and cannot be read ({error})"
    counted = dataclasses.replace(
        counted,
        file_params=summary.file_params,
        macs=summary.macs,
        file_bytes=summary.file_bytes,
        peak_activation_bytes=summary.peak_activation_bytes,
        peak_layer=summary.known_as(summary.peak_layer) if summary.peak_layer else None,
        flash_bytes=summary.flash_bytes if summary.quantised else None,
    )
    return counted, reason


def _on_chip(record: Record, path: Path) -> Record:
    """The record with flash and the layer at the peak, of runs that were measured without."""
    flash_known = record.flash_bytes is not None or record.stage != "quantize"
    if (record.peak_layer is not None and flash_known) or record.peak_activation_bytes is None:
        return record
    try:
        summary = artefacts.read(path)
    except InputError:
        return record
    return dataclasses.replace(
        record,
        peak_layer=summary.known_as(summary.peak_layer) if summary.peak_layer else None,
        flash_bytes=summary.flash_bytes if summary.quantised else None,
    )


def _could_be_a_file(name: str) -> bool:
    try:
        return len(name.encode()) <= _LONGEST_NAME and "\0" not in name
    except UnicodeEncodeError:
        return False


# Where a limit's figure stands in a record; what no record can tell is the gate's alone.
_RECORDED = {
    "params": ("params", "file_params"),  # as trained and in the file: both have to keep it
    "macs": ("macs",),
    "file_bytes": ("file_bytes",),
    "peak_activation_bytes": ("peak_activation_bytes",),
    "flash_bytes": ("flash_bytes",),
    "latency_ratio": ("latency_ratio",),
    "accuracy": ("accuracy_low",),
}
_OF_ANY_FILE = ("params", "macs", "file_bytes", "peak_activation_bytes")


def compare(
    record: Record, limits: budgets.Budgets
) -> tuple[dict[str, float], bool | None]:
    """(figure -> how far beyond its limit, whether all limits are kept; None: not all measured).

    A registered student has no file, so it is held to parameters and MACs alone.
    """
    over: dict[str, float] = {}
    unknown = False
    for figure, limit in limits.limits.items():
        if record.stage == "registered" and figure not in ("params", "macs"):
            continue
        values = (getattr(record, name) for name in _RECORDED.get(figure, ()))
        known = [value for value in values if value is not None]
        if not known:
            unknown = unknown or figure in _OF_ANY_FILE
        elif any(budgets.FIGURES[figure].breaks(value, limit) for value in known):
            over[figure] = max(abs(value - limit) for value in known)
    return over, False if over else None if unknown else True


def _stage(manifest: dict[str, Any]) -> str:
    """The stage, of an export with its format: one network may be exported in several."""
    form = manifest.get("format")
    return f"{manifest['stage']} {form}" if isinstance(form, str) else str(manifest["stage"])


def _data_set(manifest: dict[str, Any]) -> str:
    """The data set, what of its front end is not the usual one, what 0 dB means in it where that is
    not each window's loudest bin, and whether quiet windows were left out."""
    data = manifest["data"]
    frontend = _table(data, "frontend")
    reference = frontend.get("reference", "clip")
    special = frontend_file.words(frontend)
    within = data.get("drop_quiet_db")
    return (
        str(data.get("name", ""))
        + (f", {special}" if special else "")
        + (f", 0 dB {reference}" if reference != "clip" else "")
        + (f", pauses out ({within:g} dB)" if isinstance(within, int | float) else "")
    )


def _data_name(manifest: dict[str, Any]) -> str:
    fold = manifest.get("fold")
    return _data_set(manifest) + (f", fold {fold}" if fold is not None else "")


# --- runs that differ by seed or fold alone ------------------------------------------------------

_VARYING = ("seed", "split", "teachers", "parent", "processes")


def _groups(entries: Sequence[Entry], manifests: Sequence[dict[str, Any]]) -> list[str]:
    """Of each entry what is equal for runs that differ by seed or fold alone.

    So do the runs that they were made of, and their teachers: int8 files of a student and of the
    same one pruned have equal settings and are two things. The widths of a run that started from
    another are that run's; after pruning they differ by seed. Members that are not among the
    entries cannot be compared but by their hashes.
    """
    at = {entry.run: index for index, entry in enumerate(entries)}

    def group(index: int, above: tuple[int, ...] = ()) -> str:
        origins = [(o.kind, at[o.run]) for o in entries[index].origins if o.run in at]
        # Hashes allow no circle, damaged manifests do.
        behind = [(kind, place) for kind, place in origins if place not in (*above, index)]
        told_by_origins = ["arguments"] if any(kind == "parent" for kind, _ in behind) else []
        members = [o.run in at for o in entries[index].origins if o.kind == "member"]
        told_by_origins += ["members"] if members and all(members) else []
        own = _group(manifests[index], told_by_origins)
        if not behind:
            return own
        return runs.digest([own, *([kind, group(at_, (*above, index))] for kind, at_ in behind)])

    return [group(index) for index in range(len(entries))]


def _group(manifest: dict[str, Any], told_by_origins: Sequence[str]) -> str:
    """The same, of what one manifest says. Teachers and members are compared by their names."""
    settings = manifest.get("settings")
    left_out = (*_VARYING, *told_by_origins)
    fixed = (
        {key: value for key, value in settings.items() if key not in left_out}
        if isinstance(settings, dict)
        else manifest.get("key")
    )
    listed = [*_references(manifest, "teachers"), *_references(manifest, "members")]
    names = [reference.get("name") for reference in listed]
    parent = manifest.get("parent")
    return runs.digest(
        [
            manifest.get("name"),
            manifest.get("stage"),
            manifest["data"].get("content_hash"),
            manifest.get("folds"),
            fixed,
            names,
            parent.get("name") if isinstance(parent, dict) else None,
        ]
    )


def _told_apart(members: Sequence[tuple[Entry, dict[str, Any]]], group: str) -> list[Entry]:
    """Entries of one group with their number, and with what tells each from the others."""
    seeds = {str(manifest.get("seed")) for _, manifest in members}
    folds = {str(manifest.get("fold")) for _, manifest in members}
    distinct = len({f"{m.get('seed')} {m.get('fold')}" for _, m in members})
    told = []
    for entry, manifest in members:
        parts = [f"seed {manifest.get('seed')}"] if len(seeds) > 1 else []
        parts += [f"fold {manifest.get('fold')}"] if len(folds) > 1 else []
        told.append(
            dataclasses.replace(
                entry,
                variant=", ".join(parts),
                group=group,
                varied=" and ".join(
                    word for word, values in (("seeds", seeds), ("folds", folds)) if len(values) > 1
                ),
                record=dataclasses.replace(entry.record, seeds=distinct),
            )
        )
    return told


def summaries(entries: Iterable[Entry]) -> list[Summary]:
    """Mean and spread of every group of at least two runs whose accuracies hold."""
    found = []
    for standing in records.standings(entries):
        members = standing.members
        if standing.deviation is None:
            continue
        first = members[0]
        accuracies = [entry.record.accuracy or 0.0 for entry in members]
        found.append(
            Summary(
                name=first.record.name,
                stage=first.record.stage,
                data=first.data_set,
                varied=first.varied,
                runs=len(members),
                accuracy_mean=standing.accuracy,
                accuracy_deviation=standing.deviation,
                accuracy_least=min(accuracies),
                accuracy_most=max(accuracies),
                params=_same(entry.record.params for entry in members),
                macs=_same(entry.record.macs for entry in members),
            )
        )
    return sorted(found, key=lambda s: (s.data, -s.accuracy_mean, s.name))


def _same(values: Iterable[int | None]) -> int | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None


# --- exports on emulated processors --------------------------------------------------------------


def on_chips(root: Path, limits: budgets.Budgets) -> tuple[list[chip.ChipRecord], list[str]]:
    """(a record per C export and processor, why figures were left out)."""
    found: list[chip.ChipRecord] = []
    notes: list[str] = []
    for folder in runs.find_runs(root):
        try:
            opened = runs.open_run(folder)
        except InputError:
            continue  # gather() says so
        for target in chip_figures.targets_of(opened.manifest) if opened.complete else ():
            try:
                found.append(_chip_record(opened, target, limits))
            except InputError as error:
                notes.append(f"{folder}: {error}")
    return found, notes


def _chip_record(run: runs.Run, target: str, limits: budgets.Budgets) -> chip.ChipRecord:
    values = chip_figures.read(run.folder, run.manifest, target).values
    try:
        accuracy = chip_figures.accuracy(run.folder, run.manifest)
    except InputError:
        accuracy = None
    known = {spec.name for spec in dataclasses.fields(chip.ChipRecord)}
    held = limits.on(target)
    measured = {name: values[name] for name in ("flash_bytes", "ram_bytes", "instructions")}
    if accuracy is not None:
        measured["chip_accuracy"] = accuracy
    limited = {name: held.fail[name] for name in measured if name in held.fail}
    over = {
        name: abs(measured[name] - limit)
        for name, limit in limited.items()
        if budgets.FIGURES[name].breaks(measured[name], limit)
    }
    return chip.ChipRecord(
        name=run.name,
        data=_data_name(run.manifest),
        run=str(run.folder),
        accuracy=accuracy,
        within_budget=not over if limited else None,
        over=over,
        **{key: value for key, value in values.items() if key in known},
    )


# --- what is shown in detail ---------------------------------------------------------------------


def choose_details(entries: Sequence[Entry], most: int) -> tuple[list[Entry], str]:
    """The best and the latest runs in turn, and a sentence that says so where others are left."""
    measured = [entry for entry in entries if entry.record.accuracy is not None]
    if len(measured) <= most:
        return measured, ""
    groups = records.standings(measured)
    firsts = [standing.first for standing in groups]  # one of each before a second seed or fold
    others = [entry for standing in groups for entry in standing.members[1:]]
    chosen: dict[str, Entry] = {}
    for candidates in (firsts, others):
        best = sorted(candidates, key=lambda e: -(e.record.accuracy or 0.0))
        latest = sorted(candidates, key=lambda e: -e.finished)
        for entry in itertools.chain.from_iterable(zip(latest, best, strict=True)):
            if len(chosen) < most:
                chosen[entry.run] = entry
    kept = [entry for entry in entries if entry.run in chosen]
    return kept, (
        f"{most} of {len(measured):,} runs, chosen from the latest and the most accurate in turn, "
        "one of each before further seeds or folds; more with --details."
    )


def with_curves(entry: Entry) -> Entry:
    """The entry with the columns of its curves.csv; without them where there are none."""
    path = Path(entry.run) / runs.CURVES
    try:
        if path.stat().st_size > _MOST_CURVE_BYTES:
            return entry
        return dataclasses.replace(
            entry, curves=records.read_curves(path.read_text(encoding="utf-8"))
        )
    except (OSError, UnicodeDecodeError):
        return entry


def registered_students(limits: budgets.Budgets) -> list[Entry]:
    """Every registered student as built for the default classes: parameters and MACs only."""
    try:
        from compress import measure
    except ImportError as error:
        raise InputError(
            f"no finished run, and torch is needed to list the students ({error})"
        ) from None
    entries = []
    for name in registry.STUDENTS:
        model = registry.build_student(name)
        size = {"mels": 32, "frames": 96} | registry.arguments_of(model)
        record = Record(
            name=name,
            stage="registered",
            params=measure.count_params(model),
            macs=measure.count_macs(model, size["mels"], size["frames"]),
        )
        over, within = compare(record, limits)
        entries.append(Entry(dataclasses.replace(record, within_budget=within), over=over))
    return entries


# --- values from files ---------------------------------------------------------------------------


def _table(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    """A number of at least 0 that a figure can be, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if 0 <= value <= _LARGEST_FIGURE else None
    except OverflowError:
        return None


def _share(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number <= 1 else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(value) if number is not None and number == int(number) else None


def _words(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _confusion(value: Any, classes: int) -> Sequence[Sequence[int]]:
    """A square table of counts, or nothing."""
    if not isinstance(value, list) or len(value) != classes:
        return ()
    rows = []
    for row in value:
        counts = [_whole(cell) for cell in row] if isinstance(row, list) else []
        if len(counts) != classes or None in counts:
            return ()
        rows.append([count or 0 for count in counts])
    return rows


if __name__ == "__main__":
    raise SystemExit(cli.main(ReportConfig, run, __doc__))
