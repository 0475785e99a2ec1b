"""What each kind of artefact says and counts, found again from the file: for compress.verify.

    .onnx           onnxruntime on spectrograms
    .onnx of sound  the front end inside it and onnxruntime, on the sound of the data
    .npz            a baseline's arrays in numpy
    .c              compiled on this machine; its codes against numpy and onnxruntime
    .tflite         LiteRT's reference and fast kernels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress import artefacts, evaluate, runs
from compress.config import VerifyConfig
from compress.data.sets import SpectrogramSet, is_synthetic
from compress.data.splits import Split
from compress.errors import InputError
from compress.runs import Run


@dataclass(frozen=True)
class Counts:
    """Figures of metrics.json that need no data, and what cannot be counted here, in words."""

    figures: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answers:
    """Logits (windows, classes) of each side; further figures of metrics.json; what is missing."""

    logits: Mapping[str, np.ndarray]
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Unavailable(Exception):
    """Why something cannot be recomputed here; the message completes "not recomputed: ..."."""


@dataclass(frozen=True)
class Recipe:
    """How one kind of artefact is counted and asked. ``answer`` raises Unavailable."""

    count: Callable[[Run, Path], Counts]
    answer: Callable[[Run, Path, SpectrogramSet, Split, VerifyConfig], Answers]


def recipe_of(run: Run, artefact: Path, figures: Mapping[str, Any]) -> Recipe | None:
    """The recipe of an artefact; None where nothing here runs such files."""
    ending = artefact.suffix.lower()
    if ending == ".onnx" and "input_samples" in figures:
        return _SOUND
    return _RECIPES.get(ending)


def _sides(split: Split) -> dict[str, np.ndarray]:
    return {side: getattr(split, side) for side in evaluate.SIDES}


def _parent_file(run: Run) -> Path:
    """The int8 or float ONNX file that an export was made of, unchanged; raises Unavailable."""
    parent = run.manifest.get("parent")
    folder = parent.get("folder") if isinstance(parent, dict) else None
    file = Path(str(folder)) / runs.ONNX
    settings = run.manifest.get("settings")
    wanted = settings.get("parent") if isinstance(settings, dict) else None
    if folder is None or not file.is_file() or runs.sha256_file(file) != wanted:
        raise Unavailable("the ONNX file that it was made of is not there any more, or was changed")
    return file


# --- ONNX ----------------------------------------------------------------------------------------

_OF_FILES = ("file_params", "macs", "file_bytes", "peak_activation_bytes")


def _count_file(run: Run, artefact: Path) -> Counts:
    summary = artefacts.read(artefact)
    return Counts({name: getattr(summary, name) for name in _OF_FILES})


def _ask_predictor(make: Callable[[Path], evaluate.Predictor]) -> Any:
    def ask(
        run: Run, artefact: Path, data: SpectrogramSet, split: Split, config: VerifyConfig
    ) -> Answers:
        predict = make(artefact)
        sides = _sides(split).items()
        return Answers({side: evaluate.logits_of(predict, data, rows) for side, rows in sides})

    return ask


def _ask_sound(
    run: Run, artefact: Path, data: SpectrogramSet, split: Split, config: VerifyConfig
) -> Answers:
    from compress.wave_runs import ask_with_sound, changed_decisions

    spec = config.data
    if spec is None and data.synthetic and is_synthetic(data.name):
        spec = data.name
    if spec is None or data.frontend is None:
        raise Unavailable(
            f"accuracy of {artefact.name}: it takes sound; say with --data where the files of "
            f"{data.name!r} lie"
        )
    try:
        logits, found = ask_with_sound(artefact, data.frontend, data, split, spec)
    except InputError as error:  # scenes are made anew, which another version does otherwise
        raise Unavailable(f"accuracy of {artefact.name}: {error}") from None
    notes: tuple[str, ...] = ()
    try:
        stored = evaluate.logits_of(evaluate.onnx_predictor(_parent_file(run)), data, split.test)
        found["changed_decisions"] = changed_decisions(logits["test"], stored)
    except Unavailable as error:
        notes = (f"front_end.changed_decisions: {error}",)
    return Answers(logits, {"front_end": found}, notes)


# --- baselines -----------------------------------------------------------------------------------


def _count_baseline(run: Run, artefact: Path) -> Counts:
    from compress import baselines

    numbers = baselines.count_numbers(baselines.load(artefact)[1])
    size = artefact.stat().st_size
    return Counts({"params": numbers, "file_params": numbers, "file_bytes": size})


def _baseline_predictor(artefact: Path) -> evaluate.Predictor:
    from compress import baselines

    return baselines.predictor(artefact)


# --- C -------------------------------------------------------------------------------------------


def _count_c(run: Run, artefact: Path) -> Counts:
    from compress.chip import arena
    from compress.chip.counting import count_constants
    from compress.chip.layers import read_network

    found: dict[str, Any] = {"constants": count_constants(artefact.read_text(encoding="utf-8"))}
    notes = []
    if (run.folder / "chip").is_dir():
        notes.append("chip/: instructions, which python -m compress.export --target counts")
    try:
        source = _parent_file(run)
    except Unavailable as error:
        return Counts(found, (*notes, f"MACs and arena of {artefact.name}: {error}"))
    network = read_network(source)
    plan = arena.plan(network.buffers)
    found |= {
        "file_params": artefacts.read(source).file_params,
        "macs": sum(layer.macs for layer in network.layers),
        "peak_activation_bytes": plan.size,
        "peak_activation_bound": plan.bound,
    }
    return Counts(found, tuple(notes))


def _ask_c(
    run: Run, artefact: Path, data: SpectrogramSet, split: Split, config: VerifyConfig
) -> Answers:
    from compress.chip import export, host
    from compress.chip.layers import read_network

    changed = runs.missing(run.folder, run.manifest)
    if changed:  # code that is not what was written here is not run
        raise Unavailable(
            f"accuracy of {artefact.name}: {changed[0]} is not what was exported, so the code is "
            "not compiled and run"
        )
    try:
        host.compiler()
        source = _parent_file(run)
    except (InputError, Unavailable) as error:
        raise Unavailable(f"accuracy of {artefact.name}: {error}") from None
    network = read_network(source)
    with host.HostNetwork(run.folder, network.classes) as compiled:
        codes = {side: export.codes_of(compiled, data, r) for side, r in _sides(split).items()}
    exact = export.compare_exactly(source, network, codes["test"], data, split.test)
    notes = []
    if "front_end" in run.metrics():
        notes.append("front_end: levels and decisions of frontend.c, which the export measures")
    logits = {side: network.interface.decode(found) for side, found in codes.items()}
    return Answers(logits, {"bit_exact": exact}, tuple(notes))


# --- TFLite --------------------------------------------------------------------------------------


def _count_tflite(run: Run, artefact: Path) -> Counts:
    notes = ("vela: estimates of its compiler",) if run.metrics().get("vela") else ()
    return Counts(_count_file(run, artefact).figures, notes)


def _ask_tflite(
    run: Run, artefact: Path, data: SpectrogramSet, split: Split, config: VerifyConfig
) -> Answers:
    from compress.int8.coded import signed_codes
    from compress.tflite import export
    from compress.tflite.interpreter import CodesNetwork, available

    if not available():
        raise Unavailable(
            f"accuracy of {artefact.name}: LiteRT is not installed; pip install '.[tflite]'"
        )
    try:
        source = _parent_file(run)
    except Unavailable as error:
        raise Unavailable(f"accuracy of {artefact.name}: {error}") from None
    interface = signed_codes(source)[1]
    reference, fast = CodesNetwork(artefact), CodesNetwork(artefact, reference=False)
    codes = {
        side: export.codes_of(reference, interface, data, rows)
        for side, rows in _sides(split).items()
    }
    in_onnx = evaluate.logits_of(evaluate.onnx_predictor(source), data, split.test)
    expected = export.expected_codes(in_onnx, interface)
    fast_codes = export.codes_of(fast, interface, data, split.test)
    figures = {
        "agreement": export.agreement(codes["test"], expected),
        "fast_kernels": {"agreement": export.agreement(fast_codes, expected)},
    }
    return Answers({side: interface.decode(found) for side, found in codes.items()}, figures)


_SOUND = Recipe(_count_file, _ask_sound)
_RECIPES = {
    ".onnx": Recipe(_count_file, _ask_predictor(evaluate.onnx_predictor)),
    ".npz": Recipe(_count_baseline, _ask_predictor(_baseline_predictor)),
    ".c": Recipe(_count_c, _ask_c),
    ".tflite": Recipe(_count_tflite, _ask_tflite),
}
