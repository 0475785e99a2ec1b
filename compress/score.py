"""What finished runs are worth on another data set: other rooms, another microphone, the field.

    python -m compress.score runs/NAME [runs/OTHER ...] --data PATH

Every clip is decided by the file that ships, model.onnx, in onnxruntime, after the front end that
the run recorded. Classes are matched by name; the data set may lack some. Clips that the run was
trained or chosen on are left out: of its own data only the test split counts. So are those that its
teachers heard, the runs that it was made of, and their teachers; sound without labels, which
--transfer gave them, is not looked at. Several runs are compared clip by clip with the first.
Writes score.json and score.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import ExploreConfig, ScoreConfig
from compress.errors import InputError
from compress.next_command import next_command

if TYPE_CHECKING:
    import numpy as np

    from compress.data.sets import SpectrogramSet
    from compress.metrics import Decisions
    from compress.runs import Run

RESULT, PICTURE = "score.json", "score.png"


def run(config: ScoreConfig) -> int:
    if not config.folders:
        raise InputError("give a run folder: python -m compress.score runs/NAME --data PATH")
    if config.data is None:
        raise InputError("--data must be given: the data set to measure on")

    from compress import runs
    from reports.score import save_figure

    records = [runs.open_run(folder) for folder in config.folders]
    for record in records:
        record.check_unchanged()
        record.file(runs.ONNX)
    data = _open(records, config)
    windows, notes = _windows(records, data, config.cache)
    result = measure(records, data, windows) | {"notes": [*data.notes, *notes]}
    out = config.out or records[0].folder.parent / (
        f"score-{runs.slug(Path(data.name).name)}-{runs.digest(_identity(result))[:6]}"
    )
    out.mkdir(parents=True, exist_ok=True)
    with runs.atomic_path(out / PICTURE) as path:
        save_figure(result, path)
    runs.write_json(out / RESULT, result)
    for line in lines_of(result):
        cli.say(line)
    cli.say(
        f"Measured on model.onnx in onnxruntime. The figures lie in {out / RESULT}, the confusion "
        f"in {PICTURE}. Next: {_following(config, data, records[0])}"
    )
    return 0


def _following(config: ScoreConfig, data: SpectrogramSet, run: Run) -> str:
    """The command that shows the data as the runs heard it."""
    from compress.frontend_file import options_to_hear_as

    heard = ExploreConfig(
        data_seed=config.data_seed,
        classes=config.classes,
        drop_quiet=data.drop_quiet_db,
        strict=config.strict,
        cache=config.cache,
    )
    through = options_to_hear_as(run.folder, data.frontend)
    return next_command("explore", ExploreConfig, heard, data=config.data, **through)


def _open(records: Sequence[Run], config: ScoreConfig) -> SpectrogramSet:
    """The data set behind the front end of the runs; raises InputError where they disagree."""
    from compress.data import open_data
    from compress.data.open import is_sound
    from compress.frontend import FrontEnd

    first = records[0]
    frontend = first.frontend
    for other in records[1:]:
        if set(other.class_names) != set(first.class_names):
            raise InputError(
                f"{other.folder}: decides between {', '.join(other.class_names)}, {first.folder} "
                f"between {', '.join(first.class_names)}; score them one by one"
            )
        if other.frontend != frontend:
            raise InputError(
                f"{other.folder}: hears through another front end than {first.folder}; "
                "score them one by one"
            )
    if frontend is None and is_sound(config.data or ""):
        raise InputError(
            f"{first.folder}: its training data came as spectrograms, so how they were made from "
            "sound is unknown; give --data a folder with training.npy"
        )
    recorded = first.manifest["data"]
    data = open_data(
        config.data or "",
        frontend=frontend or FrontEnd(),
        stated=frontend is not None,
        seed=config.data_seed,
        classes=config.classes,
        strict=config.strict,
        cache=config.cache,
        workers=config.workers,
        drop_quiet_db=_quiet(records) if config.drop_quiet is None else config.drop_quiet,
    )
    shape = [recorded.get("mels"), recorded.get("frames")]
    if [data.mels, data.frames] != shape:
        raise InputError(
            f"{data.name}: spectrograms of {data.mels} x {data.frames}, but {first.folder} takes "
            f"{shape[0]} x {shape[1]}"
        )
    unknown = [name for name in data.class_names if name not in first.class_names]
    if unknown:
        raise InputError(
            f"{data.name}: {first.folder} knows no class {unknown[0]!r}, only "
            f"{', '.join(first.class_names)}; rename the folders of the classes, or try "
            "--classes five"
        )
    return data


def _quiet(records: Sequence[Run]) -> float | None:
    """Which windows the runs left out as quiet; raises InputError where they disagree."""
    first, *others = [record.manifest["data"].get("drop_quiet_db") for record in records]
    for record, other in zip(records[1:], others, strict=True):
        if other != first:
            raise InputError(
                f"{record.folder}: leaves out other quiet windows than {records[0].folder}; say "
                "with --drop-quiet which, or score them one by one"
            )
    return first


def _windows(
    records: Sequence[Run], data: SpectrogramSet, cache: Path | None
) -> tuple[np.ndarray, list[str]]:
    """(numbers of the windows that no run was trained or chosen on, notes); raises InputError
    where there are none."""
    import numpy as np

    from compress import runs

    left = np.arange(len(data))
    notes: list[str] = []
    looked_at: set[Path] = set()  # runs often share a teacher
    for record in records:
        behind, missing = runs.behind(record)
        notes += [
            f"{record.folder}: learnt from {folder}, which is missing, so whether that heard some "
            "of these clips is not known"
            for folder in missing
        ]
        for run in (record, *behind):
            if run.folder in looked_at:
                continue
            looked_at.add(run.folder)
            windows, told = _unheard(run, data, cache)
            left, notes = np.intersect1d(left, windows), notes + told
        if not len(left):
            these = "these runs were" if record is not records[0] else f"{record.folder} was"
            raise InputError(f"{data.name}: {these} trained on every clip; give other data")
    return left, list(dict.fromkeys(notes))


def _unheard(
    record: Run, data: SpectrogramSet, cache: Path | None
) -> tuple[np.ndarray, list[str]]:
    """Windows of the clips of which nothing is, to the bit, among those that the run was trained
    or chosen on; and what is to be said of it."""
    import numpy as np

    from compress import runs
    from compress.data.sets import find_recorded
    from compress.data.splits import Split
    from compress.duplicates import sounding_digests

    theirs, every = record.manifest["data"], np.arange(len(data))
    split = Split.from_json(runs.read_json(record.file(runs.SPLIT)))
    if theirs.get("content_hash") == data.content_hash:
        return np.sort(split.test), [f"{record.folder}: made of this data; its test split counts"]
    if data.shares_scenes(theirs):
        raise InputError(
            f"{record.folder}: was trained on {theirs.get('name')} of the same seed, which "
            f"shares clips with {data.name}; choose another --data-seed"
        )
    own = find_recorded(theirs, cache)
    if own is None:
        return every, [
            f"{record.folder}: its own data is not in the cache, so whether it heard some of these "
            "clips is not known"
        ]
    if (own.mels, own.frames) != (data.mels, data.frames):
        return every, []
    trained = sounding_digests(own, np.concatenate([split.train, split.validation]))
    heard = np.isin(sounding_digests(data, every), trained[trained != 0])
    clips = np.unique(data.clip_ids[heard])
    if not len(clips):
        return every, []
    told = f"{record.folder}: {len(clips):,} clips left out, on which it was trained or chosen"
    return every[~np.isin(data.clip_ids, clips)], [told]


def measure(records: Sequence[Run], data: SpectrogramSet, windows: np.ndarray) -> dict[str, Any]:
    """score.json: figures of each run on these windows, and differences to the first run."""
    import numpy as np

    from compress import evaluate, metrics, runs
    from compress.metrics import paired_difference

    names = records[0].class_names
    of_data = np.array([names.index(name) for name in data.class_names])
    decided: list[Decisions] = []
    rows = []
    for record in records:
        file = record.file(runs.ONNX)
        logits = evaluate.logits_of(evaluate.onnx_predictor(file), data, windows)
        order = [record.class_names.index(name) for name in names]
        decided.append(
            metrics.decide(
                logits[:, order],
                of_data[data.labels[windows]],
                data.clip_ids[windows],
                data.recording_ids[windows],
            )
        )
        rows.append(
            {
                "run": str(record.folder),
                "name": record.name,
                "artifact": file.name,
                "sha256": runs.sha256_file(file),
                "own_test": _own_test(record),
                **metrics.summarise(decided[-1], names),
            }
        )
    for row, decisions in zip(rows[1:], decided[1:], strict=True):
        row["minus_first"] = vars(paired_difference(decisions, decided[0]))
    return {
        "data": data.name,
        "content_hash": data.content_hash,
        "synthetic": data.synthetic,
        "clips_of_data": len(np.unique(data.clip_ids)),
        "class_names": list(names),
        "runs": rows,
    }


def lines_of(result: dict[str, Any]) -> list[str]:
    """Accuracy of every run here and on its own test split, recalls, differences to the first."""
    from compress.metrics import PairedDifference
    from compress.summary import aligned, describe_difference
    from reports.records import plain

    rows = result["runs"]
    names = [plain(Path(row["run"]).name) for row in rows]
    synthetic = " (synthetic)" if result["synthetic"] and "synthetic" not in result["data"] else ""
    lines = [
        f"data      {plain(result['data'])}{synthetic}: {rows[0]['clips']:,} of "
        f"{result['clips_of_data']:,} clips, of {rows[0]['recordings']:,} recordings",
        *(f"note      {plain(note)}" for note in result["notes"]),
    ]
    table = [("run", "accuracy here (95 % interval)", "on its own test", "loss")]
    for name, row in zip(names, rows, strict=True):
        own = row["own_test"]
        there = f"{_interval(own)}, {plain(own['data'])}" if own else "unknown"
        table.append((name, _interval(row), there, f"{row['loss']:.3f}"))
    heads = [f"recall of run {i + 1}" for i in range(len(rows))] if len(rows) > 1 else ["recall"]
    recalls = [("class", "clips", *heads)]
    for index, name in enumerate(result["class_names"]):
        clips = sum(rows[0]["confusion"][index])
        if clips:
            shares = (f"{100 * row['recall'][name]:.1f} %" for row in rows)
            recalls.append((plain(name), f"{clips:,}", *shares))
    lines += ["", aligned(table, right=(3,)), "", aligned(recalls, right=range(1, len(rows) + 2))]
    for name, row in zip(names[1:], rows[1:], strict=True):
        lines.append(describe_difference(name, names[0], PairedDifference(**row["minus_first"])))
    return lines


def _interval(figures: dict[str, Any]) -> str:
    low, high = (100 * figures[key] for key in ("accuracy_low", "accuracy_high"))
    return f"{100 * figures['accuracy']:.1f} %  ({low:.1f} to {high:.1f})"


def _own_test(record: Run) -> dict[str, Any] | None:
    """Data and accuracy that the run recorded of its own test split."""
    try:
        test = record.metrics()["splits"]["test"]
        keys = ("accuracy", "accuracy_low", "accuracy_high", "clips")
        return {"data": record.manifest["data"].get("name")} | {key: test[key] for key in keys}
    except (InputError, KeyError, TypeError):
        return None


def _identity(result: dict[str, Any]) -> list[Any]:
    return [result["content_hash"], *(row["sha256"] for row in result["runs"])]


if __name__ == "__main__":
    raise SystemExit(cli.main(ScoreConfig, run, __doc__))
