"""How surely and how soon a run follows scenes that change, by each way to decide over snippets.

    test windows -> hours of scenes with drawn dwell times -> model.onnx -> majority of the last
    windows | exponential mean | hidden Markov model -> error against delay, false alarms per hour

The time of each rule is chosen on scenes of the validation split, and measured on those of the
test. Scenes are spliced from recordings, so changes are hard cuts. Writes stream.json and
stream.png into the run folder; compress.predict takes the rule with --decision.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import StreamConfig
from compress.errors import InputError

if TYPE_CHECKING:

    from compress.runs import Run

RESULT, PICTURE = "stream.json", "stream.png"
TIMES = {
    "majority": (0.0, 4.0, 6.0, 10.0, 14.0, 20.0, 30.0),
    "mean": (0.0, 1.0, 2.0, 4.0, 8.0, 16.0),
    "hmm": (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0),
}
"""Seconds that each rule is tried with: length of the vote, time constant, dwell time."""


def run(config: StreamConfig) -> int:
    if config.run is None:
        raise InputError("--run must be given: the run folder of a trained model")

    from compress import runs
    from compress.parents import recorded_data
    from reports.stream import save_figure

    record = runs.open_run(config.run)
    record.check_unchanged()
    data = recorded_data(record, config)
    out = config.out or record.folder
    result = measure(record, data, config)
    runs.write_json(out / RESULT, result)
    with runs.atomic_path(out / PICTURE) as path:
        save_figure(result, path)
    for line in lines_of(result):
        cli.say(line)
    best = min(result["chosen"], key=lambda rule: rule["test"]["error"])
    time = "--dwell" if best["rule"] == "hmm" else "--smoothing"
    cli.say(
        f"The curves lie in {out / PICTURE} and {RESULT}. Next: python -m compress.predict FILE "
        f"--model {shlex.quote(str(record.folder))} --decision {best['rule']} {time} "
        f"{best['seconds']:g}"
    )
    return 0


def measure(record: Run, data: Any, config: StreamConfig) -> dict[str, Any]:
    """stream.json: every rule and time on validation and test, and the time chosen for each."""
    import numpy as np

    from compress import evaluate, runs
    from compress.data.splits import Split
    from compress.decisions import Rule
    from compress.frontend import FrontEnd
    from compress.metrics import softmax
    from compress.scene_streams import draw_stream, follow

    split = Split.from_json(runs.read_json(record.file(runs.SPLIT)))
    frontend = data.frontend or FrontEnd(mels=data.mels, frames=data.frames)
    step = frontend.clip_seconds
    file = record.file(runs.ONNX)
    predict = evaluate.onnx_predictor(file)
    prior = np.bincount(data.labels[split.train], minlength=len(data.class_names))
    tried: dict[tuple[str, float], dict[str, Any]] = {}
    hours = {}
    for side, seed in (("validation", 2 * config.seed), ("test", 2 * config.seed + 1)):
        windows = getattr(split, side)
        probabilities = softmax(evaluate.logits_of(predict, data, windows))
        stream = draw_stream(data, windows, step, config.hours, config.dwell, seed)
        heard = probabilities[stream.windows]
        hours[side] = {"hours": stream.hours, "scenes": len(stream.starts)}
        for name, times in TIMES.items():
            for seconds in times:
                rule = Rule(name, seconds)
                decided = rule(heard, stream.times, prior / prior.sum(), step).argmax(axis=1)
                tried.setdefault((name, seconds), {})[side] = follow(stream, decided)
    rows = [{"rule": name, "seconds": seconds, **sides} for (name, seconds), sides in tried.items()]
    chosen = [
        min(
            (row for row in rows if row["rule"] == name and row["seconds"]),
            key=lambda row: row["validation"]["error"],
        )
        for name in TIMES
    ]
    return {
        "run": str(record.folder),
        "name": record.name,
        "artifact": file.name,
        "sha256": runs.sha256_file(file),
        "data": data.name,
        "synthetic": data.synthetic,
        "seed": config.seed,
        "step_seconds": step,
        "dwell_seconds": config.dwell,
        "streams": hours,
        "single": next(row for row in rows if row["rule"] == "mean" and row["seconds"] == 0),
        "chosen": chosen,
        "tried": rows,
    }


def lines_of(result: dict[str, Any]) -> list[str]:
    """A table of single windows and of each rule with its chosen time, on the test stream."""
    from compress.summary import aligned

    rows = [("decision", "time", "error", "first right after", "missed", "false alarms")]
    single = result["single"]
    listed = [("one window", "", single)]
    listed += [(row["rule"], f"{row['seconds']:g} s", row) for row in result["chosen"]]
    for name, seconds, row in listed:
        test = row["test"]
        mean = test["delay"]["mean"]
        rows.append(
            (
                name,
                seconds,
                f"{100 * test['error']:.1f} %",
                "never" if mean is None else f"{mean:.1f} s",
                f"{100 * test['missed_scenes']:.1f} %",
                f"{test['false_alarms_per_hour']:.0f} per hour",
            )
        )
    stream = result["streams"]["test"]
    synthetic = " (synthetic)" if result["synthetic"] and "synthetic" not in result["data"] else ""
    return [
        f"{result['name']} on {stream['hours']:.1f} hours of {result['data']}{synthetic}: "
        f"{stream['scenes']:,} scenes of {result['dwell_seconds']:g} s in the mean, a window every "
        f"{result['step_seconds']:.2f} s",
        aligned(rows, right=(1, 2, 3, 4, 5)),
    ]


if __name__ == "__main__":
    raise SystemExit(cli.main(StreamConfig, run, __doc__))
