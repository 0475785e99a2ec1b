"""A quantised run as C: written, compiled on this machine, measured as what was compiled.

    int8 file -> layers -> arena -> model.h, model.c, kernels.* -> compiler
              -> equal to the numpy integers bit for bit, compared with onnxruntime, accuracy
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli, evaluate, metrics, runs
from compress.artefacts import onnx_file
from compress.chip import arena, emit, frontend_c, frontend_host, host
from compress.chip.arena import Plan
from compress.chip.counting import count_constants
from compress.chip.fixed_point import FIXED_POINT
from compress.chip.layers import Network, read_network
from compress.config import DataOptions, ExportConfig
from compress.data.sets import SpectrogramSet
from compress.data.splits import Split
from compress.errors import InputError
from compress.exported_runs import export_writer, refuse_export
from compress.int8.reference import IntegerNetwork
from compress.parents import recorded_data
from compress.runs import Run, RunWriter
from compress.session import DECISIONS
from compress.summary import describe_difference

README = "README.md"
WANTED_AGREEMENT = 0.999  # of decisions with onnxruntime
_GOLDEN_WINDOWS = 8
_BATCH = 128
_MOST_LISTED = 5  # disagreements in a line; metrics.json has all


def c_run(parent: Run, config: ExportConfig) -> tuple[Run, list[str]]:
    """The export of a quantised run, and the lines that say what was measured.

    A finished one of the same settings is returned as it is. Raises InputError for a float run,
    an operator without kernel (with its layer), an arena over ``--arena-limit``, a folder that
    holds something else, and where there is no C compiler.
    """
    _check_stage(parent)
    source = parent.file(runs.ONNX)
    network = read_network(source)
    plan = arena.plan(network.buffers)
    _check_limit(network, plan, config.arena_limit)
    host.compiler()
    options = DataOptions(data=config.data, cache=config.cache, workers=config.workers)
    data = recorded_data(parent, options)
    split = Split.from_json(runs.read_json(parent.file(runs.SPLIT)))
    texts = {
        emit.HEADER: emit.header(network, plan, data.class_names),
        emit.SOURCE: emit.source(network, plan, data.class_names),
        **{name: emit.copied_file(name) for name in emit.COPIED},
    }
    if data.frontend is not None:
        texts |= frontend_c.frontend_texts(data.frontend)
        texts |= frontend_c.scene_texts(data.frontend, network.interface.output_scale)
    # Another version of the kernels is another export.
    settings = {"sources": runs.digest(texts)}
    writer = export_writer(parent, "c", data, split, settings, config)
    with writer.locked():
        if writer.begin(config.force):
            cli.say(f"c         {parent.name}: finished before, {writer.folder}")
        else:
            _make(parent, writer, network, plan, texts, data, split, config.data)
    written = runs.open_run(writer.folder)
    return written, lines_of(parent, written)


def _check_stage(parent: Run) -> None:
    refuse_export(parent)
    if parent.manifest["stage"] != "quantize":
        raise InputError(
            f"{parent.folder}: holds a float network, and C is made of an int8 file; make one with "
            f"python -m compress.quantize --run {parent.folder} --activations int8"
        )


def _check_limit(network: Network, plan: Plan, limit: int | None) -> None:
    if limit is None or plan.size <= limit:
        return
    if plan.size == plan.bound:
        reason = f"so many bytes of activations live at once in {_peak_layer(network)}"
    else:
        reason = f"no network of this shape can do with less than {plan.bound:,}"
    raise InputError(
        f"--arena-limit {limit}: this network needs {plan.size:,} bytes, the nearest that can be "
        f"reached ({reason}); raise the limit, or prune the run (python -m compress.prune)"
    )


def _peak_layer(network: Network) -> str:
    """The first layer while which most bytes are alive."""
    alive = {
        step: sum(b.size for b in network.buffers if b.born <= step <= b.dies)
        for step in {b.born for b in network.buffers}
    }
    peak = max(alive, key=lambda step: (alive[step], -step))
    born = {b.name for b in network.buffers if b.born == peak}
    names = [layer.name for layer in network.layers if network.home[layer.output] in born]
    return f"layer {names[0]!r}" if names else "the input"


def _make(
    parent: Run,
    writer: RunWriter,
    network: Network,
    plan: Plan,
    texts: dict[str, str],
    data: SpectrogramSet,
    split: Split,
    spec: str | None,
) -> None:
    started = time.monotonic()
    folder = writer.folder
    runs.write_json(folder / runs.SPLIT, split.to_json())
    for name, text in texts.items():
        runs.write_text(folder / name, text)
    with host.HostNetwork(folder, network.classes) as compiled:
        codes = {
            side: codes_of(compiled, data, getattr(split, side)) for side in evaluate.SIDES
        }
        sound = frontend_host.measure(folder, compiled, codes["test"], data, split, spec)
    golden = _golden(data, split.test, codes["test"])
    runs.write_text(folder / emit.GOLDEN, emit.golden_header(golden))
    _run_golden(folder)
    figures, decisions = _measure(parent, folder, network, plan, codes, data, split)
    if sound is not None:
        figures["front_end"] = sound
    evaluate.save_decisions(folder / DECISIONS, decisions)
    frontend = data.frontend.to_dict() if data.frontend else None
    text = emit.readme(network, plan, data.class_names, frontend)
    if data.frontend is not None:
        scale = network.interface.output_scale
        text += frontend_c.readme(data.frontend, figures["agreement"], scale)
    runs.write_text(folder / README, text)
    runs.write_json(folder / runs.METRICS, figures)
    made = [*texts, emit.GOLDEN, README, runs.SPLIT, runs.METRICS, DECISIONS]
    writer.finish(made, seconds=round(time.monotonic() - started, 3))


# --- measuring -----------------------------------------------------------------------------------


def codes_of(
    compiled: host.HostNetwork, data: SpectrogramSet, windows: np.ndarray
) -> np.ndarray:
    """Output codes of some windows in their order, (n, classes) int8."""
    parts = []
    with cli.progress(len(windows), "compiled C", "window") as bar:
        for start in range(0, len(windows), _BATCH):
            parts.append(compiled(data.codes[windows[start : start + _BATCH]]))
            bar.update(len(parts[-1]))
    return np.concatenate(parts)


def _golden(data: SpectrogramSet, windows: np.ndarray, codes: np.ndarray) -> emit.Golden:
    """A few test windows, each class in turn."""
    labels = data.labels[windows]
    queues = [np.flatnonzero(labels == label).tolist() for label in range(len(data.class_names))]
    chosen: list[int] = []
    while len(chosen) < _GOLDEN_WINDOWS and any(queues):
        chosen += [queue.pop(0) for queue in queues if queue]
    rows = np.asarray(chosen[:_GOLDEN_WINDOWS])
    return emit.Golden(data.codes[windows[rows]], codes[rows], labels[rows])


def _run_golden(folder: Path) -> None:
    """Build and run the host test that ships; raises InputError where it fails."""
    with host.built_test(folder) as program:
        done = subprocess.run([str(program)], capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stdout or done.stderr).strip().splitlines()[-1:] or ["no output"]
        raise InputError(f"{folder}: the host test of the golden windows fails ({last[0]})")


def _measure(
    parent: Run,
    folder: Path,
    network: Network,
    plan: Plan,
    codes: dict[str, np.ndarray],
    data: SpectrogramSet,
    split: Split,
) -> tuple[dict[str, Any], metrics.Decisions]:
    """metrics.json of model.c as compiled here, compared with the int8 file it was made of."""
    source, base = parent.file(runs.ONNX), parent.metrics()
    exact = compare_exactly(source, network, codes["test"], data, split.test)
    if exact["unequal"]:
        raise InputError(
            f"{host.compiler()}: its build of {emit.SOURCE} gives other codes than the integers in "
            f"numpy on {exact['unequal']:,} of {exact['windows']:,} test windows; try another "
            "compiler"
        )
    in_onnx = evaluate.logits_of(evaluate.onnx_predictor(source), data, split.test)
    logits = {side: network.interface.decode(found) for side, found in codes.items()}
    decisions = {
        side: evaluate.decisions_of(found, data, getattr(split, side))
        for side, found in logits.items()
    }
    recorded = evaluate.load_decisions(parent.file(DECISIONS))
    if not np.array_equal(recorded.clip_ids, decisions["test"].clip_ids):
        raise InputError(f"{parent.folder}/{DECISIONS}: decides other clips than the split has")
    summary = onnx_file.read(source)
    figures = {
        "artifact": emit.SOURCE,
        "sha256": runs.sha256_file(folder / emit.SOURCE),
        "params": base["params"],
        "file_params": summary.file_params,
        "macs": sum(layer.macs for layer in network.layers),
        "file_bytes": None,  # of a source text they say nothing; "constants" has those in flash
        "constants": count_constants((folder / emit.SOURCE).read_text(encoding="utf-8")),
        "peak_activation_bytes": plan.size,
        "peak_activation_bound": plan.bound,
        "peak_layer": _peak_layer(network),
        "latency_ms": None,  # of the portable kernels on this machine: no chip is like it
        "splits": {
            side: metrics.summarise(found, data.class_names) for side, found in decisions.items()
        },
        "compiler": host.compiler_version(),
        "bit_exact": exact,
        "agreement": evaluate.agreement(logits["test"], in_onnx)
        | {"disagreements": _disagreements(codes["test"], in_onnx, data, split.test)},
        "differences": {
            "test": asdict(metrics.paired_difference(decisions["test"], recorded)),
        },
        "parent": {key: base[key] for key in ("sha256", "file_bytes", "peak_activation_bytes")}
        | {"test": base["splits"]["test"]},
    }
    return figures, decisions["test"]


def compare_exactly(
    source: Path,
    network: Network,
    codes: np.ndarray,
    data: SpectrogramSet,
    windows: np.ndarray,
) -> dict[str, Any]:
    """Every output code against numpy's: {"windows": how many, "unequal": that differ}."""
    reference = IntegerNetwork(source, FIXED_POINT, network.model)
    unequal = 0
    with cli.progress(len(windows), "numpy integers", "window") as bar:
        for start in range(0, len(windows), _BATCH):
            chosen = windows[start : start + _BATCH]
            reference(data.decibels(chosen)[:, None])
            wanted = reference.codes[network.output].values
            found = codes[start : start + len(chosen)]
            unequal += int((wanted != found).any(axis=1).sum())
            bar.update(len(chosen))
    return {"windows": len(windows), "unequal": unequal}


def _disagreements(
    codes: np.ndarray, in_onnx: np.ndarray, data: SpectrogramSet, windows: np.ndarray
) -> list[dict[str, Any]]:
    """Test windows that the C code and onnxruntime decide differently."""
    ours, theirs = codes.argmax(1), in_onnx.argmax(1)
    return [
        {
            "window": int(windows[row]),
            "clip": int(data.clip_ids[windows[row]]),
            "label": data.class_names[data.labels[windows[row]]],
            "c": data.class_names[ours[row]],
            "onnxruntime": data.class_names[theirs[row]],
        }
        for row in np.flatnonzero(ours != theirs)
    ]


# --- what is printed -----------------------------------------------------------------------------


def lines_of(parent: Run, written: Run) -> list[str]:
    """What was measured, in words."""
    found = written.metrics()
    test, before = found["splits"]["test"], found["parent"]["test"]
    constants, exact, agreement = found["constants"], found["bit_exact"], found["agreement"]
    size, bound = found["peak_activation_bytes"], found["peak_activation_bound"]
    reached = (
        "no plan can be smaller" if size == bound else f"the least thinkable is {bound:,} bytes"
    )
    return [
        f"accuracy  {100 * test['accuracy']:.1f} % on test "
        f"({100 * test['accuracy_low']:.1f} to {100 * test['accuracy_high']:.1f}), "
        f"compiled C; {100 * before['accuracy']:.1f} % the int8 file in onnxruntime",
        describe_difference("C", "onnxruntime", metrics.PairedDifference(
            **found["differences"]["test"])),
        f"memory    one arena of {size:,} bytes for all activations ({reached}); "
        f"{constants['bytes']:,} bytes of constants in flash",
        f"exact     every code of {exact['windows']:,} test windows equals the integers in numpy",
        *_agreement_lines(agreement),
        *frontend_host.lines_of(found.get("front_end")),
        "Time is not reported: this machine's says nothing of a chip's.",
    ]  # fmt: skip


def _agreement_lines(agreement: dict[str, Any]) -> list[str]:
    count, share = agreement["windows"], agreement["top1"]
    differing: Sequence[dict[str, Any]] = agreement["disagreements"]
    lines = [f"agrees    with onnxruntime on {100 * share:.2f} % of {count:,} test windows"]
    if share < WANTED_AGREEMENT:
        lines.append(
            f"note      {100 * WANTED_AGREEMENT:.1f} % are wanted: {len(differing)} of {count:,} "
            "windows are decided differently"
        )
    for entry in differing[:_MOST_LISTED]:
        lines.append(
            f"          window {entry['window']}: {entry['c']} in C, {entry['onnxruntime']} in "
            f"onnxruntime, labelled {entry['label']}"
        )
    if len(differing) > _MOST_LISTED:
        lines.append(f"          and {len(differing) - _MOST_LISTED} more, in {runs.METRICS}")
    return lines
