"""A float model as an int8 run: calibrated, fine-tuned where asked for, measured on its file.

parent -> prepare -> calibrate -> QDQ model -> [fine-tuned QDQ model] -> 8-bit ends -> small file
       -> measure
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli, evaluate, metrics, runs
from compress.artefacts import onnx_file
from compress.errors import InputError
from compress.evaluate import Measured
from compress.int8 import clustered, static
from compress.int8 import layers as int8_layers
from compress.int8.narrow import narrow_weights, pack
from compress.int8.prepare import Prepared, prepare
from compress.int8.simulated import SimulatedNetwork
from compress.int8.small_file import small
from compress.parents import Parent
from compress.runs import Run, RunWriter
from compress.session import DECISIONS, data_name

DETAILS = "quantisation.json"
_MEASURED_FLOAT = "parent"


@dataclass(frozen=True)
class Quantisation:
    """How a model is quantised: everything that decides the file.

    clusters: values that the weights of a layer may take; None: all that 8 bits give.
    tuning: "never", "always", or "auto": where validation accuracy falls by more than
    ``tolerance`` points. keep_float: names of layers, or one number for the costliest.
    """

    calibration: str = "minmax"
    samples: int = 256
    activations: str = "uint8"
    coded_ends: bool = False
    weight_bits: int = 8
    keep_float: tuple[str, ...] = ()
    tuning: str = "never"
    tolerance: float = 0.3
    seed: int = 0
    clusters: int | None = None

    def settings(self) -> dict[str, Any]:
        """What a run records. An option that came later is left out while it is not used."""
        values = asdict(self)
        return values if self.clusters else {k: v for k, v in values.items() if k != "clusters"}


@dataclass(frozen=True)
class Candidate:
    """A QDQ model with uint8 activations and float ends, and how it does on validation."""

    how: str  # "calibrated" or "fine-tuned"
    model: Any
    difference: metrics.PairedDifference  # to the float file, on validation
    details: dict[str, Any]


@dataclass(frozen=True)
class TuningPlan:
    """How the model may be fine-tuned. ``settings``: everything that decides the result.

    tune: prepared model, calibrated QDQ model, run folder -> fine-tuned QDQ model and its record.
    """

    settings: dict[str, Any]
    teachers: tuple[Run, ...]
    tune: Callable[[Prepared, Any, Path], tuple[Any, dict[str, Any]]]


def quantised_run(
    parent: Parent,
    wanted: Quantisation,
    root: Path,
    *,
    out: Path | None = None,
    force: bool = False,
    show_costs: bool = False,
    plan: TuningPlan | None = None,
) -> Run:
    """The int8 run of ``parent``; a finished one of the same settings is returned as it is."""
    prepared = prepare(parent.file)
    _check_kept(prepared, wanted)
    teachers = plan.teachers if plan else ()
    settings = {
        "stage": "quantize",
        "parent": parent.reference()["sha256"],
        "data": parent.data.content_hash,
        "split": parent.split.digest(),
        **wanted.settings(),
        "fine_tuning": plan.settings if plan else None,
        "teachers": [teacher.model_hash() for teacher in teachers],
    }
    key = runs.digest(settings)
    kind = "int8" if wanted.weight_bits == 8 else f"int8-{wanted.weight_bits}-bit-weights"
    kind += f"-{wanted.clusters}-clusters" if wanted.clusters else ""
    place = data_name(parent.data, parent.split)
    parts = [runs.slug(parent.name), kind, place, f"s{wanted.seed}", key[:6]]
    manifest = {
        "name": parent.name,
        "stage": "quantize",
        "model": parent.name,
        "key": key,
        "settings": settings,
        "seed": wanted.seed,
        "fold": parent.split.fold,
        "folds": parent.split.folds,
        "device": "cpu",
        "processes": 1,
        "data": parent.data.describe(),
        "parent": parent.reference(),
        "teachers": [teacher.reference() for teacher in teachers],
    }
    writer = RunWriter(out or root / "-".join(parts), manifest)
    with writer.locked():
        if writer.begin(force):
            cli.say(f"int8      {parent.name}: finished before, {writer.folder}")
            if show_costs:
                _show_recorded_costs(writer.folder)
        else:
            _make(parent, prepared, wanted, writer, show_costs, plan)
    return runs.open_run(writer.folder)


def _check_kept(prepared: Prepared, wanted: Quantisation) -> None:
    """Refuse what ``--keep-float`` cannot mean, before anything is written."""
    count = len(prepared.layers)
    number = int8_layers.wanted_number(wanted.keep_float)
    if number is not None:
        if number >= count:
            raise InputError(
                f"--keep-float {number}: the file has {count} layers, so at most {count - 1} can "
                "stay in float"
            )
        return
    kept = int8_layers.named_layers(prepared, wanted.keep_float)
    if len(kept) == count:
        raise InputError("--keep-float: names every layer, so nothing is left to quantise")
    for which, layer in (("first", prepared.layers[0]), ("last", prepared.layers[-1])):
        if wanted.coded_ends and layer.name in kept:
            raise InputError(
                f"--int8-io: the {which} layer {layer.name!r} is kept in float, so there are no "
                "codes to take or give; quantise it, or leave out --int8-io"
            )


def _make(
    parent: Parent,
    prepared: Prepared,
    wanted: Quantisation,
    writer: RunWriter,
    show_costs: bool,
    plan: TuningPlan | None,
) -> None:
    started = time.monotonic()
    folder, data, split = writer.folder, parent.data, parent.split
    runs.write_json(folder / runs.SPLIT, split.to_json())
    base = evaluate.measure_onnx(parent.file, data, split)
    windows = calibration_windows(parent, wanted)
    details: dict[str, Any] = {"calibration_windows": len(windows)}
    with static.StaticQuantiser(prepared, windows, wanted.calibration) as quantiser:
        keep_float = _kept(prepared, quantiser, wanted, parent, base, show_costs, details)
        model = quantiser.quantise(keep_float)
    narrow: tuple[str, ...] = ()
    if wanted.weight_bits == 4:
        narrow = narrow_weights(prepared, model)
        model = SimulatedNetwork(prepared, model, narrow=narrow).eval().to_onnx()
    details["four_bit_weights"] = list(narrow)
    shared = narrow_weights(prepared, model) if wanted.clusters else ()

    full = model
    if wanted.clusters:
        model = clustered.cluster(full, shared, wanted.clusters)
    chosen = _candidate(parent, base, "calibrated", model, {})
    details["calibrated"] = asdict(chosen.difference)
    fell = -100 * chosen.difference.difference
    if plan is not None and (wanted.tuning == "always" or fell > wanted.tolerance):
        cli.say(f"int8      {parent.name}: calibrated, {_change(chosen)}; fine-tuning")
        tuned = _candidate(parent, base, "fine-tuned", *plan.tune(prepared, full, folder))
        details["fine_tuned"] = asdict(tuned.difference) | tuned.details
        better = tuned.difference.difference >= chosen.difference.difference
        if wanted.tuning == "always" or better:
            chosen = tuned
    details["chosen"] = chosen.how
    model = chosen.model
    details["clusters"] = dict(clustered.entries_of(model, shared))
    details["float_operators"] = [
        {"operator": operator, "name": name}
        for operator, name in static.float_operators(model, prepared)
    ]
    if wanted.activations == "int8":
        model = static.with_signed_activations(model)
    if wanted.coded_ends:
        model = static.with_coded_ends(model, prepared)
    if narrow:
        model = pack(model, narrow)
    if shared:
        model = clustered.pack(model, shared)
    static.save(small(model), folder / runs.ONNX)
    figures, decisions = _measure(parent, base, folder / runs.ONNX)
    figures |= {
        "activations": wanted.activations,
        "weight_bits": wanted.weight_bits,
        "clusters": wanted.clusters,
    }
    evaluate.save_decisions(folder / DECISIONS, decisions)
    runs.write_json(folder / DETAILS, details)
    runs.write_json(folder / runs.METRICS, figures)
    made = [runs.ONNX, runs.SPLIT, runs.METRICS, DECISIONS, DETAILS]
    if (folder / runs.CURVES).is_file():
        made.append(runs.CURVES)
    writer.finish(made, seconds=round(time.monotonic() - started, 3))
    cli.say(f"int8      {parent.name}: {chosen.how}, {_change(chosen)}")


def _show_recorded_costs(folder: Path) -> None:
    recorded = runs.read_json(folder / DETAILS).get("layers")
    if recorded is None:
        cli.say("note      it was made without --sensitivity; --force makes it again with it")
        return
    cli.say(int8_layers.table([int8_layers.LayerCost.from_dict(entry) for entry in recorded]))
    cli.say()


def calibration_windows(parent: Parent, wanted: Quantisation) -> np.ndarray:
    """Some training windows, (n, 1, mels, frames) dB, drawn without regard to class."""
    train = parent.split.train
    generator = np.random.default_rng([wanted.seed, 0xCA11])
    count = min(wanted.samples, len(train))
    chosen = np.sort(generator.choice(train, count, replace=False))
    return parent.data.decibels(chosen)[:, None]


def _kept(
    prepared: Prepared,
    quantiser: static.StaticQuantiser,
    wanted: Quantisation,
    parent: Parent,
    base: Measured,
    show_costs: bool,
    details: dict[str, Any],
) -> tuple[str, ...]:
    """Names of the layers that stay in float; measures what each costs where that is needed."""
    number = int8_layers.wanted_number(wanted.keep_float)
    costs = []
    if show_costs or number:
        costs = int8_layers.measure_costs(
            quantiser, parent.data, parent.split.validation, base.logits["validation"]
        )
        details["layers"] = [asdict(cost) for cost in costs]
    if show_costs:
        cli.say(int8_layers.table(costs))
        cli.say()
    kept = (
        int8_layers.named_layers(prepared, wanted.keep_float)
        if number is None
        else tuple(cost.name for cost in costs[:number])
    )
    details["keep_float"] = list(kept)
    return kept


def _candidate(
    parent: Parent, base: Measured, how: str, model: Any, details: dict[str, Any]
) -> Candidate:
    windows = parent.split.validation
    logits = int8_layers.logits_of_model(model, parent.data, windows)
    decisions = evaluate.decisions_of(logits, parent.data, windows)
    difference = metrics.paired_difference(decisions, base.decisions["validation"])
    return Candidate(how, model, difference, details)


def _change(candidate: Candidate) -> str:
    return f"validation accuracy {100 * candidate.difference.difference:+.2f} points to float"


def _measure(
    parent: Parent, base: Measured, path: Path
) -> tuple[dict[str, Any], metrics.Decisions]:
    """metrics.json of the int8 file, compared with the float file that it was made of."""
    data = parent.data
    measured = evaluate.measure_onnx(path, data, parent.split)
    recorded = _recorded_decisions(parent, base)
    differences = {
        "validation": metrics.paired_difference(
            measured.decisions["validation"], base.decisions["validation"]
        ),
        "test": metrics.paired_difference(measured.decisions["test"], recorded),
    }
    figures = measured.figures | {
        "params": _params(parent),
        "agreement": evaluate.agreement(measured.logits["test"], base.logits["test"]),
        "differences": {side: asdict(found) for side, found in differences.items()},
        _MEASURED_FLOAT: {
            key: base.figures[key]
            for key in ("sha256", "file_bytes", "peak_activation_bytes", "latency_ms")
        }
        | {"test": base.figures["splits"]["test"]},
        "file_bytes_ratio": measured.figures["file_bytes"] / base.figures["file_bytes"],
        "latency_ratio": evaluate.latency_ratio(path, parent.file, data.mels, data.frames),
    }
    return figures, measured.decisions["test"]


def _recorded_decisions(parent: Parent, base: Measured) -> metrics.Decisions:
    """The float file's decisions on the test split: as its run recorded them, where it has one."""
    if parent.run is None:
        return base.decisions["test"]
    recorded = evaluate.load_decisions(parent.run.file(DECISIONS))
    if not np.array_equal(recorded.clip_ids, base.decisions["test"].clip_ids):
        raise InputError(f"{parent.run.folder}/{DECISIONS}: decides other clips than the split has")
    return recorded


def _params(parent: Parent) -> int:
    """Learnable parameters as trained; of a file from elsewhere, the weights in it."""
    if parent.run is not None:
        return int(parent.run.metrics()["params"])
    return onnx_file.read(parent.file).file_params
