"""What finished runs are worth on another data set: other rooms, another microphone, the field.

    python -m compress.score runs/NAME [runs/OTHER ...] --data PATH

Every clip is decided by the file that ships, model.onnx, in onnxruntime, after the front end that
the run recorded. Classes are matched by name; the data set may lack some. Of the data set that the
run was made of only the test split counts. Several runs are compared pair by pair with the first.
Writes score.json and score.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import ScoreConfig
from compress.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from compress.data.sets import SpectrogramSet
    from compress.frontend import FrontEnd
    from compress.metrics import Decisions
    from compress.runs import Run

RESULT, PICTURE = "score.json", "score.png"


def run(config: ScoreConfig) -> int:
    if not config.folders:
        raise InputError("give a run folder: python -m compress.score runs/NAME --data PATH")
    if config.data is None:
        raise InputError("--data must be given: the data set to measure on")

    from compress import runs
    from reports.score import save_figure, text

    records = [runs.open_run(folder) for folder in config.folders]
    for record in records:
        record.check_unchanged()
        record.file(runs.ONNX)
    data = _open(records, config)
    windows = _windows(records, data)
    result = measure(records, data, windows)
    out = config.out or records[0].folder.parent / (
        f"score-{runs.slug(Path(data.name).name)}-{runs.digest(_identity(result))[:6]}"
    )
    out.mkdir(parents=True, exist_ok=True)
    with runs.atomic_path(out / PICTURE) as path:
        save_figure(result, path)
    runs.write_json(out / RESULT, result)
    cli.say(text(result))
    cli.say(
        f"Measured on model.onnx in onnxruntime. The figures lie in {out / RESULT}, the confusion "
        f"in {PICTURE}. Next: python -m compress.explore --data {config.data}"
    )
    return 0


def _open(records: Sequence[Run], config: ScoreConfig) -> SpectrogramSet:
    """The data set behind the front end of the runs; raises InputError where they disagree."""
    from compress.data import open_data
    from compress.data.open import is_sound
    from compress.frontend import FrontEnd

    first = records[0]
    frontend = _frontend(first)
    for other in records[1:]:
        if set(other.class_names) != set(first.class_names):
            raise InputError(
                f"{other.folder}: decides between {', '.join(other.class_names)}, {first.folder} "
                f"between {', '.join(first.class_names)}; score them one by one"
            )
        if _frontend(other) != frontend:
            raise InputError(
                f"{other.folder}: hears through another front end than {first.folder}; "
                "score them one by one"
            )
    if frontend is None and is_sound(config.data or ""):
        raise InputError(
            f"{first.folder}: its training data came as spectrograms, so how they were made from "
            "sound is unknown; give --data a folder with training.npy"
        )
    data = open_data(
        config.data or "",
        frontend=frontend or FrontEnd(),
        seed=config.data_seed,
        classes=config.classes,
        strict=config.strict,
        cache=config.cache,
        workers=config.workers,
    )
    recorded = first.manifest["data"]
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


def _frontend(record: Run) -> FrontEnd | None:
    """What the run recorded of its front end; None where its data came as spectrograms."""
    from compress.frontend import FrontEnd

    recorded = record.manifest["data"].get("frontend")
    if not isinstance(recorded, dict):
        return None
    try:
        return FrontEnd.from_dict(recorded)
    except TypeError as error:
        raise InputError(f"{record.folder}: the recorded front end is damaged ({error})") from None


def _windows(records: Sequence[Run], data: SpectrogramSet) -> np.ndarray:
    """Numbers of the windows that no run was trained on; raises InputError where they differ."""
    import numpy as np

    from compress import runs
    from compress.data.splits import Split

    heard = []
    for record in records:
        theirs = record.manifest["data"]
        if theirs.get("content_hash") == data.content_hash:
            split = Split.from_json(runs.read_json(record.file(runs.SPLIT)))
            heard.append(np.sort(split.test))
        elif data.scene_seed is not None and theirs.get("scene_seed") == data.scene_seed:
            raise InputError(
                f"{record.folder}: was trained on {theirs.get('name')} of the same seed, which "
                f"shares clips with {data.name}; choose another --data-seed"
            )
        else:
            heard.append(np.arange(len(data)))
    for record, found in zip(records[1:], heard[1:], strict=True):
        if not np.array_equal(found, heard[0]):
            raise InputError(
                f"{record.folder}: has heard other clips of {data.name} than {records[0].folder}; "
                "score them one by one"
            )
    return heard[0]


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
        "part": "test split" if len(windows) < len(data) else "all clips",
        "class_names": list(names),
        "runs": rows,
    }


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
