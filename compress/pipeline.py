"""Teach, distil, prune, fine-tune, quantise, export and report by one recipe.

    python -m compress.pipeline quick
    python -m compress.pipeline esc10 --data PATH --fold 1
    python -m compress.pipeline quick --from prune --until quantize
    python -m compress.pipeline quick --seeds 0,1,2 --jobs 2

Every stage is the command of that name with the recipe's options. What is finished is skipped, what
was killed continues, and --from enters in the middle. The recipe is checked as a whole before
anything is read.
"""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress import cli, pipeline_jobs, pipeline_recipe, runs
from compress.config import DataOptions, PipelineConfig, data_options
from compress.errors import InputError
from compress.pipeline_recipe import STAGES, Step
from reports import tables
from reports.records import Record

_RECORD = "pipeline.json"
_HEAD = ("stage", "network", "parameters", "MACs", "file", "test accuracy (95 % interval)",
         "latency", "run")  # fmt: skip


def run(config: PipelineConfig) -> int:
    recipe = pipeline_recipe.load(config)
    steps = pipeline_recipe.steps(recipe, config)
    wanted = _wanted(steps, config)
    _check_data(wanted)
    started = time.monotonic()
    if config.jobs > 1:
        pipeline_jobs.run_steps(wanted, config.jobs)
    else:
        _run_in_turn(wanted)
    artefacts = [step for step in steps if _is_finished(step)]
    _write_record(config, recipe.name, artefacts)
    for line in closing(artefacts, time.monotonic() - started):
        cli.say(line)
    return 0


def _wanted(steps: Sequence[Step], config: PipelineConfig) -> list[Step]:
    """The steps from --from until --until; those before must be finished and unchanged."""
    order = list(STAGES)
    first = order.index(config.from_stage) if config.from_stage else 0
    last = order.index(config.until) if config.until else len(order)
    for step in steps:
        if order.index(step.stage) < first:
            _check_finished(step, str(config.from_stage))
    return [step for step in steps if first <= order.index(step.stage) <= last]


def _check_data(steps: Sequence[Step]) -> None:
    """Say what is wrong with data or folds before a stage trains on other sound for long."""
    from compress.data import make_split, open_chosen
    from compress.data.sets import SpectrogramSet, is_synthetic

    opened: dict[DataOptions, SpectrogramSet] = {}
    first = None
    for step in steps:
        asked = step.config
        if not isinstance(asked, DataOptions) or asked.data is None or _is_finished(step):
            continue
        whole = data_options(asked, fold=None)
        first = first or whole
        if whole == first or (is_synthetic(asked.data) and asked.fold is None):
            continue  # the first step reads its data at once; scenes without folds have no faults
        try:
            if whole not in opened:
                opened[whole] = open_chosen(whole)
            data = opened[whole]
            if data.folds is None and asked.fold is not None and asked.folds is None:
                raise InputError(
                    f"{data.name}: has no official folds, and fold {asked.fold} is asked for; say "
                    "with --folds how many to deal, or leave out folds in the recipe and --fold"
                )
            make_split(data, asked.data_seed, asked.fold, asked.folds, asked.validation_fold)
        except InputError as error:
            raise InputError(f"stage {step.title}: {error}") from None


def _check_finished(step: Step, first: str) -> None:
    if not (step.folder / runs.MANIFEST).is_file():
        raise InputError(
            f"--from {first}: the stage {step.title} before it has not been run "
            f"({step.folder} is missing); leave out --from, or give --run RUN"
        )
    runs.open_run(step.folder).check_unchanged()


def _run_in_turn(wanted: Sequence[Step]) -> None:
    for number, step in enumerate(wanted, 1):
        cli.say(f"--- {number}/{len(wanted)} {step.title}: {STAGES[step.stage].sentence}")
        _run_step(step)
        cli.say()


def _run_step(step: Step) -> None:
    try:
        code = STAGES[step.stage].command().run(step.config)
    except InputError as error:
        raise InputError(f"stage {step.title}: {error}") from None
    if code:
        raise InputError(f"stage {step.title}: its command ended with {code}")


def _is_finished(step: Step) -> bool:
    manifest = step.folder / runs.MANIFEST
    return manifest.is_file() and runs.open_run(step.folder).complete


# --- the closing table ---------------------------------------------------------------------------


def closing(artefacts: Sequence[Step], seconds: float) -> list[str]:
    """What each stage left, from what was measured on its file; and where the last one lies."""
    if not artefacts:
        return ["No stage has left an artefact yet."]
    from compress import artefacts as artefacts_read
    from compress.summary import aligned

    rows = [_HEAD, *(_row(step) for step in artefacts)]
    lines = [aligned(rows, right=(2, 3, 4, 6)), *_means(artefacts)]
    last = artefacts[-1]
    metrics = _metrics(last)
    name = str(metrics.get("artifact") or runs.ONNX)
    final = last.folder / name if (last.folder / name).is_file() else last.folder
    digest = f" (SHA-256 {str(metrics['sha256'])[:12]}…)" if metrics.get("sha256") else ""
    report = last.folder.parent / "report" / "report.html"
    lines.append(f"All of it took {cli.duration(seconds)}.")
    if report.is_file():
        lines.append(f"The report lies in {report}.")
    ends = [step for step in artefacts if step.stage == last.stage]
    if len(ends) > 1:
        lines.append(f"There are {len(ends)} final artefacts; each row of {last.stage} is one.")
    what = "last final artefact" if len(ends) > 1 else "final artefact"
    gated = final if final.suffix in artefacts_read.SHIPPED_ENDINGS else last.folder  # C: a folder
    following = f"python -m compress.gate {shlex.quote(str(gated))}"
    lines.append(f"The {what} lies in {final}{digest}. Next: {following}")
    return lines


def _metrics(step: Step) -> dict[str, Any]:
    path = step.folder / runs.METRICS
    return runs.read_json(path) if path.is_file() else {}


def _row(step: Step) -> tuple[str, ...]:
    run, found = runs.open_run(step.folder), _metrics(step)
    test = found.get("splits", {}).get("test", {})
    measured = {name: test.get(name) for name in ("accuracy", "accuracy_low", "accuracy_high")}
    return (
        step.title,
        run.name,
        tables.count(found.get("params")),
        tables.millions(found.get("macs")),
        tables.size(found.get("file_bytes")),
        tables.accuracy(Record(run.name, step.stage, **measured)),
        tables.milliseconds(found.get("latency_ms")),
        str(step.folder),
    )


def _means(artefacts: Sequence[Step]) -> list[str]:
    """Mean and spread of each stage's network over seeds and folds, where there are several."""
    accuracies: dict[tuple[str, str], list[float]] = {}
    for step in artefacts:
        test = _metrics(step).get("splits", {}).get("test")
        if test and test.get("accuracy") is not None:
            key = (step.stage, runs.open_run(step.folder).name)
            accuracies.setdefault(key, []).append(test["accuracy"])
    return [
        f"{stage} {name}: {100 * statistics.fmean(found):.1f} ± {100 * statistics.stdev(found):.1f}"
        f" % (mean ± standard deviation of {len(found)} runs)"
        for (stage, name), found in accuracies.items()
        if len(found) > 1
    ]


def _write_record(config: PipelineConfig, name: str, artefacts: Sequence[Step]) -> None:
    """Which folder each stage left, beside the run folders."""
    root: Path = config.runs / name
    listed = [
        {
            "stage": step.stage,
            "seed": step.seed,
            "fold": step.fold,
            "folder": str(step.folder),
            "sha256": _metrics(step).get("sha256"),
        }
        for step in artefacts
    ]
    if listed:
        runs.write_json(root / _RECORD, {"recipe": config.recipe, "stages": listed})


def _help() -> str:
    listed = "\n".join(f"  {name:<15} {sentence}" for name, sentence in _recipes())
    stages = "\n".join(f"  {name:<9} {row.sentence}" for name, row in STAGES.items())
    return f"{__doc__}\nrecipes:\n{listed}\n\nstages:\n{stages}"


def _recipes() -> list[tuple[str, str]]:
    """Name and first comment line of each shipped recipe."""
    found = []
    for name in pipeline_recipe.names():
        text = (pipeline_recipe.FOLDER / f"{name}.toml").read_text(encoding="utf-8")
        found.append((name, text.partition("\n")[0].lstrip("# ")))
    return found


if __name__ == "__main__":
    raise SystemExit(cli.main(PipelineConfig, run, _help()))
