"""Classes over time of sound files, by the model of a finished run.

    file -> mono at the model's sample rate -> log-mel windows every --hop seconds -> model.onnx
         -> probabilities -> a decision over several windows (compress.decisions) -> segments

A window (1.94 s by default) stands for the time around its centre: decisions begin and end half a
hop before and after it, the first at the start of the file and the last at its end. Every decision
looks back only, as on a device, so a change shows about --smoothing seconds after it happened.
Files are read piece by piece, so that their length is not limited by memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli
from compress.config import PredictConfig
from compress.costs import decide
from compress.costs import load as load_costs
from compress.data.audio import (
    AudioError,
    pad_to_window,
    read_blocks,
    read_info,
    step_frames,
    stream_mel_power,
    stream_windows,
)
from compress.decisions import HMM, Rule
from compress.errors import InputError
from compress.evaluate import Predictor, onnx_predictor, onnx_session
from compress.frontend import FrontEnd, power_to_db
from compress.frontend_file import DEFAULT, named_front_end
from compress.runs import MANIFEST, ONNX, Run, open_run, sha256_file

_BATCH = 128


@dataclass(frozen=True)
class Model:
    """A model file ready to run. ``predict``: (B, 1, mels, frames) dB -> logits (B, classes).

    prior: (classes,) shares of the classes in the run's data, or None where it has no figures.
    """

    path: Path
    sha256: str
    class_names: tuple[str, ...]
    frontend: FrontEnd
    predict: Predictor
    prior: np.ndarray | None = None

    def probabilities(self, decibels: np.ndarray) -> np.ndarray:
        """(B, mels, frames) dB -> (B, classes)."""
        parts = []
        for at in range(0, len(decibels), _BATCH):
            batch = np.ascontiguousarray(decibels[at : at + _BATCH, None], dtype=np.float32)
            logits = self.predict(batch).astype(np.float64)  # (B, classes)
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            parts.append(powers / powers.sum(axis=1, keepdims=True))
        return np.concatenate(parts)


@dataclass(frozen=True)
class Timeline:
    """Decisions over one file. Rows are windows; times in seconds.

    start, end: (n,) the time that each window stands for, without gaps.
    probabilities, smoothed: (n, classes). decisions: (n,) class numbers of ``smoothed``: the most
    probable, or those of least expected cost where there are ``costs`` (classes, classes).
    """

    file: Path
    seconds: float
    sample_rate_hz: int
    channels: int
    start: np.ndarray
    end: np.ndarray
    probabilities: np.ndarray
    smoothed: np.ndarray
    costs: np.ndarray | None = None

    @property
    def decisions(self) -> np.ndarray:
        if self.costs is not None:
            return decide(self.smoothed, self.costs)
        return self.smoothed.argmax(axis=1)


def run(config: PredictConfig) -> int:
    """Print the classes over time of every file."""
    if not config.files:
        raise InputError(
            "give at least one sound file: python -m compress.predict FILE --model RUN"
        )
    if config.model is None:
        raise InputError("--model must be given: a run folder with model.onnx")
    for file in config.files:
        try:
            read_info(file)  # every file is looked at before the first result is printed
        except AudioError as error:
            raise InputError(f"{file}: {error}") from None
    model = load_model(config.model, config.frontend)
    rule = Rule(config.decision, config.dwell if config.decision == HMM else config.smoothing)
    prices = load_costs(config.costs) if config.costs else None
    matrix = prices.matrix(model.class_names) if prices else None
    results = []
    for file in config.files:
        timeline = classify(file, model, config.hop, rule)
        timeline = replace(timeline, costs=matrix)
        if config.json:
            results.append(to_json(timeline, model.class_names))
        else:
            for line in lines_of(timeline, model.class_names):
                cli.say(line)
    if config.json:
        described = {
            "model": str(model.path),
            "sha256": model.sha256,
            "classes": list(model.class_names),
            "hop_seconds": config.hop
            or step_frames(model.frontend) * model.frontend.hop_seconds,
            "decision": rule.name,
            "smoothing_seconds" if rule.name != HMM else "dwell_seconds": rule.seconds,
            "frontend": model.frontend.to_dict(),
            "costs": prices.describe() if prices else None,
            "files": results,
        }
        cli.say(json.dumps(described, indent=1, ensure_ascii=False))
    return 0


def load_model(path: Path, frontend_choice: str = "run") -> Model:
    """The model of a run folder, or an .onnx file inside one; raises InputError.

    ``frontend_choice``, "default", a TOML file or another run, stands in where the run recorded
    no front end.
    """
    is_file = path.is_file() and path.suffix == ".onnx"
    folder = path.parent if is_file else path
    if is_file and not (folder / MANIFEST).is_file():
        raise InputError(
            f"{path}: no {MANIFEST} beside this file, so its classes and front end are unknown; "
            "give an .onnx file inside a run folder"
        )
    record = open_run(folder)
    file = path if is_file else record.file(ONNX)
    session = onnx_session(file)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    if len(shape) != 4 or shape[1] != 1 or not all(isinstance(n, int) for n in shape[2:]):
        raise InputError(f"{file}: takes {shape}, not one input (batch, 1, mels, frames)")
    classes = outputs[0].shape[-1]
    if isinstance(classes, int) and classes != len(record.class_names):
        raise InputError(
            f"{file}: gives {classes} classes, but {folder / MANIFEST} names "
            f"{len(record.class_names)}; the two do not belong together"
        )
    frontend = _frontend(record, shape, frontend_choice)
    digest, predict = sha256_file(file), onnx_predictor(file)
    return Model(file, digest, record.class_names, frontend, predict, _prior(record))


def _prior(record: Run) -> np.ndarray | None:
    """Shares of the classes, as the clips of the measured splits have them."""
    try:
        splits = record.metrics()["splits"]
        clips = sum(np.asarray(splits[side]["confusion"], dtype=float).sum(1) for side in splits)
    except (InputError, KeyError, TypeError, ValueError):
        return None
    fits = np.shape(clips) == (len(record.class_names),)
    return (clips + 1) / (clips + 1).sum() if fits else None


def _frontend(record: Run, shape: list[Any], choice: str) -> FrontEnd:
    folder, recorded = record.folder, record.frontend
    if choice == "run":
        named = None
    elif choice == DEFAULT:
        named = FrontEnd(mels=shape[2], frames=shape[3])
    else:
        named = named_front_end(choice)
    if recorded is not None and named not in (None, recorded):
        raise InputError(
            f"{folder}: records its own front end, which --frontend {choice} is not; leave it out"
        )
    frontend = recorded or named
    if frontend is None:
        raise InputError(
            f"{folder}: its training data came as spectrograms, so how they were made from sound "
            "is unknown; if it was with this project's defaults (16 kHz, 40 ms windows, 20 ms hop, "
            "0 dB = loudest value), say so with --frontend default, else describe it in a TOML file"
        )
    if [frontend.mels, frontend.frames] != shape[2:]:
        raise InputError(
            f"{folder / MANIFEST if recorded else choice}: front end of {frontend.mels} x "
            f"{frontend.frames}, but the model takes {shape[2]} x {shape[3]}; the two do not "
            "belong together"
        )
    return frontend


def classify(file: Path, model: Model, hop_seconds: float | None, rule: Rule) -> Timeline:
    """Classes over time of one file; raises InputError where it is no usable sound."""
    frontend = model.frontend
    step = step_frames(frontend, hop_seconds)
    samples = 0

    def counted(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            bar.update(len(block) / frontend.sample_rate_hz)
            yield block

    starts: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    try:
        info = read_info(file)
        with cli.progress(round(info.seconds), file.name, "s") as bar:
            blocks = counted(read_blocks(file, frontend.sample_rate_hz))
            pieces = stream_mel_power(pad_to_window(blocks, frontend), frontend)
            for first, power in stream_windows(pieces, frontend, step):
                parts.append(model.probabilities(power_to_db(power, frontend)))
                starts.append(first + step * np.arange(len(power)))
    except AudioError as error:
        raise InputError(f"{file}: {error}") from None
    probabilities = np.concatenate(parts)  # (n, classes)
    seconds = samples / frontend.sample_rate_hz
    centres = np.concatenate(starts) * frontend.hop_seconds + frontend.clip_seconds / 2
    borders = (centres[:-1] + centres[1:]) / 2
    return Timeline(
        file=file,
        seconds=seconds,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        start=np.concatenate([[0.0], borders]),
        end=np.concatenate([borders, [seconds]]),
        probabilities=probabilities,
        smoothed=rule(probabilities, centres, model.prior, frontend.clip_seconds),
    )


def segments_of(timeline: Timeline) -> list[tuple[float, float, int, float]]:
    """Neighbouring equal decisions joined: (start s, end s, class, mean smoothed probability)."""
    decisions = timeline.decisions
    edges = [0, *(np.flatnonzero(np.diff(decisions)) + 1).tolist(), len(decisions)]
    return [
        (
            float(timeline.start[first]),
            float(timeline.end[last - 1]),
            int(decisions[first]),
            float(timeline.smoothed[first:last, decisions[first]].mean()),
        )
        for first, last in zip(edges[:-1], edges[1:], strict=True)
    ]


def shares_of(timeline: Timeline, classes: int) -> np.ndarray:
    """Share of the file's time that each class was decided, (classes,)."""
    lengths = timeline.end - timeline.start
    return np.bincount(timeline.decisions, weights=lengths, minlength=classes) / lengths.sum()


def lines_of(timeline: Timeline, class_names: tuple[str, ...]) -> list[str]:
    """The timeline as text: one line per segment, and a summary."""
    channels = {1: "mono", 2: "stereo"}.get(timeline.channels, f"{timeline.channels} channels")
    lines = [f"{timeline.file}: {timeline.seconds:.1f} s, {timeline.sample_rate_hz} Hz, {channels}"]
    width = max(len(name) for name in class_names)
    digits = len(f"{timeline.seconds:.1f}")
    lines += [
        f"  {start:{digits}.1f}-{end:{digits}.1f} s  {class_names[label]:<{width}}  {mean:.2f}"
        for start, end, label, mean in segments_of(timeline)
    ]
    shares = shares_of(timeline, len(class_names))
    listed = [
        f"{class_names[i]} {shares[i]:.0%}"
        for i in np.argsort(-shares, kind="stable")
        if shares[i] > 0
    ]
    lines.append(f"  in all: {', '.join(listed)}")
    return lines


def to_json(timeline: Timeline, class_names: tuple[str, ...]) -> dict[str, Any]:
    """The timeline as a JSON-able dictionary."""
    shares = shares_of(timeline, len(class_names))
    return {
        "file": str(timeline.file),
        "seconds": round(timeline.seconds, 3),
        "sample_rate_hz": timeline.sample_rate_hz,
        "channels": timeline.channels,
        "shares": {name: round(float(shares[i]), 4) for i, name in enumerate(class_names)},
        "segments": [
            {
                "start": round(start, 3),
                "end": round(end, 3),
                "class": class_names[label],
                "probability": round(mean, 4),
            }
            for start, end, label, mean in segments_of(timeline)
        ],
        "windows": [
            {
                "start": round(float(timeline.start[i]), 3),
                "end": round(float(timeline.end[i]), 3),
                "probabilities": [round(float(p), 4) for p in timeline.probabilities[i]],
                "smoothed": [round(float(p), 4) for p in timeline.smoothed[i]],
                "decision": class_names[timeline.decisions[i]],
            }
            for i in range(len(timeline.start))
        ],
    }


if __name__ == "__main__":
    raise SystemExit(cli.main(PredictConfig, run, __doc__))
