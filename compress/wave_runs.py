"""A run's file with the front end inside, as a run of its own, measured on sound."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli, evaluate, metrics, runs
from compress.artefacts import onnx_file
from compress.config import ExportConfig
from compress.data.open import is_sound
from compress.data.sets import SpectrogramSet, decode_db, encode_db, find_recorded, is_synthetic
from compress.data.splits import Split
from compress.data.waves import scene_seed, window_waveforms
from compress.errors import InputError
from compress.exported_runs import export_writer
from compress.frontend import FLOOR_DB, FrontEnd, log_mel
from compress.parents import lost_data
from compress.runs import ONNX, Run, RunWriter, atomic_path
from compress.session import DECISIONS
from compress.wave_graph import WAVEFORM, with_decibels, with_front_end

COMPARED_ABOVE_DB = FLOOR_DB + 10.0
_LATENCY_RUNS = 100


def export_onnx(parent: Run, config: ExportConfig) -> tuple[Run, list[str]]:
    """The run's model.onnx behind the front end that its data was made with.

    Raises InputError without ``--from-wave``, where the front end is unknown, or where the sound
    of the test windows cannot be had.
    """
    if not config.from_wave:
        raise InputError(
            f"{parent.folder}: its {ONNX} is that file already (dB spectrograms in, logits out); "
            "give --from-wave for one that takes sound"
        )
    data = _data(parent, config)
    frontend = data.frontend
    if frontend is None:
        raise InputError(
            f"{parent.folder}: its training data came as spectrograms, so how they were made from "
            "sound is unknown; --from-wave needs a run that was trained on sound or scenes"
        )
    split = Split.from_json(runs.read_json(parent.file(runs.SPLIT)))
    spec = _sound(parent, data, config)
    kind = "int8-wave" if parent.manifest["stage"] == "quantize" else "wave"
    settings = {"from_wave": True, "frontend": frontend.to_dict()}
    writer = export_writer(parent, "onnx", data, split, settings, config, kind)
    with writer.locked():
        if writer.begin(config.force):
            cli.say(f"onnx      {parent.name}: finished before, {writer.folder}")
        else:
            _make(parent, data, frontend, split, spec, writer)
    run = runs.open_run(writer.folder)
    return run, lines_of(run)


def lines_of(run: Run) -> list[str]:
    """What was measured, in words."""
    found = run.metrics()
    test, sound = found["splits"]["test"], found["front_end"]
    return [
        f"onnx      {run.name}: sound ({found['input_samples']:,} samples) to logits, "
        f"{found['file_bytes'] / 2**20:.2f} MiB, test accuracy {100 * test['accuracy']:.1f} % "
        f"({100 * test['accuracy_low']:.1f} to {100 * test['accuracy_high']:.1f}), from sound",
        f"{sound['changed_decisions']} of {found['agreement']['windows']} test windows are decided "
        f"otherwise than from stored spectrograms; largest difference to the front end in Python "
        f"{sound['largest_difference_db']:.4f} dB above {sound['compared_above_db']:.0f} dB",
    ]


def _data(parent: Run, config: ExportConfig) -> SpectrogramSet:
    data = find_recorded(parent.manifest["data"], config.cache)
    if data is None:
        raise lost_data(parent, "python -m compress.data --data")
    return data


def _sound(parent: Run, data: SpectrogramSet, config: ExportConfig) -> str:
    """Where the sound of the run's data is: what ``--data`` says, or the synthesiser."""
    if config.data is not None:
        if not is_sound(config.data):
            raise InputError(
                f"{config.data}: holds spectrograms; a file that takes sound is measured on sound, "
                "so --from-wave needs the files that they were made of"
            )
        return config.data
    if data.synthetic and is_synthetic(data.name):
        return data.name
    raise InputError(
        f"{parent.folder}: a file that takes sound is measured on sound; say with --data where "
        f"the files of {data.name!r} lie"
    )


def _make(
    parent: Run,
    data: SpectrogramSet,
    frontend: FrontEnd,
    split: Split,
    spec: str,
    writer: RunWriter,
) -> None:
    import onnx

    started = time.monotonic()
    folder, source = writer.folder, parent.file(ONNX)
    model = with_front_end(onnx.load(source), frontend, source)
    path = folder / ONNX
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    runs.write_json(folder / runs.SPLIT, split.to_json())

    logits, levels = ask_with_sound(path, frontend, data, split, spec)
    decisions = {
        side: evaluate.decisions_of(logits[side], data, getattr(split, side))
        for side in evaluate.SIDES
    }
    stored = evaluate.logits_of(evaluate.onnx_predictor(source), data, split.test)
    summary = onnx_file.read(path)
    of_network = onnx_file.read(source)
    latency = _latency(path, frontend)
    figures: dict[str, Any] = {
        "artifact": path.name,
        "sha256": summary.sha256,
        "params": parent.metrics().get("params"),
        "file_params": summary.file_params,
        "macs": summary.macs,
        "network_macs": of_network.macs,
        "file_bytes": summary.file_bytes,
        "peak_activation_bytes": summary.peak_activation_bytes,
        "peak_layer": summary.peak_layer,
        "latency_ms": latency["median"],
        "latency": latency,
        "input_samples": frontend.clip_samples,
        "splits": {s: metrics.summarise(decisions[s], data.class_names) for s in evaluate.SIDES},
        "agreement": evaluate.agreement(logits["test"], stored),
        "front_end": levels | {"changed_decisions": changed_decisions(logits["test"], stored)},
    }
    evaluate.save_decisions(folder / DECISIONS, decisions["test"])
    runs.write_json(folder / runs.METRICS, figures)
    made = [ONNX, runs.SPLIT, runs.METRICS, DECISIONS]
    writer.finish(made, seconds=round(time.monotonic() - started, 3))


def ask_with_sound(
    path: Path, frontend: FrontEnd, data: SpectrogramSet, split: Split, spec: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Logits (windows, classes) of each side, and how far the dB inside are from the stored ones.

    spec: where the sound of the data is. Raises InputError where it cannot be had.
    """
    import onnx

    session = evaluate.onnx_session(path)
    with tempfile.TemporaryDirectory() as folder:
        opened = Path(folder) / "with-decibels.onnx"
        onnx.save(with_decibels(onnx.load(path), frontend), opened)
        inside = evaluate.onnx_session(opened)
    seed = scene_seed(split)
    logits: dict[str, np.ndarray] = {}
    apart, compared = 0.0, 0
    for side in evaluate.SIDES:
        windows = getattr(split, side)
        rows_done, parts = [], []
        with cli.progress(len(windows), f"{side} from sound", "windows") as bar:
            for rows, waveforms in window_waveforms(data, windows, spec, seed):
                parts.append(session.run(None, {WAVEFORM: waveforms})[0])
                rows_done.append(rows)
                if side == "test":
                    decibels = inside.run(None, {WAVEFORM: waveforms})[1][:, 0]
                    expected = decode_db(encode_db(log_mel(waveforms, frontend)))
                    above = expected > COMPARED_ABOVE_DB
                    difference = np.abs(decibels - expected)[above]
                    apart = max(apart, float(difference.max(initial=0)))
                    compared += int(above.sum())
                bar.update(len(rows))
        order = np.argsort(np.concatenate(rows_done), kind="stable")
        logits[side] = np.concatenate(parts)[order]
    levels = {
        "largest_difference_db": apart,
        "compared_above_db": COMPARED_ABOVE_DB,
        "compared_levels": compared,
    }
    return logits, levels


def changed_decisions(from_sound: np.ndarray, stored: np.ndarray) -> int:
    """Windows that are decided otherwise than from their stored spectrograms."""
    return int((from_sound.argmax(1) != stored.argmax(1)).sum())


def _latency(path: Path, frontend: FrontEnd) -> dict[str, float]:
    """Median time of one window of sound on one thread, in milliseconds, after a warm-up."""
    session = evaluate.onnx_session(path, threads=1)
    generator = np.random.default_rng(0)
    given = {WAVEFORM: generator.normal(0, 0.1, (1, frontend.clip_samples)).astype(np.float32)}
    times = []
    for _ in range(_LATENCY_RUNS + 10):
        start = time.perf_counter()
        session.run(None, given)
        times.append((time.perf_counter() - start) * 1e3)
    times = times[10:]
    return {"median": statistics.median(times), "least": min(times), "runs": len(times)}
