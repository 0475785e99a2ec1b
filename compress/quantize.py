"""Quantise a trained student: an int8 ONNX file, every figure of it measured on that file.

--run takes a run folder of any student, or a float .onnx file from elsewhere with --data. The
result is a run folder of its own. Calibration uses the run's training windows, by its split.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import QuantizeConfig
from compress.errors import Faults, InputError

if TYPE_CHECKING:
    from compress.parents import Parent
    from compress.runs import Run


def run(config: QuantizeConfig) -> int:
    given = check_options(config)
    if not given.exists():
        raise InputError(f"{given}: no such run folder or file")

    from compress.parents import open_parent
    from compress.quantized_runs import Quantisation, quantised_run

    parent = open_parent(given, config)
    seed = parent.seed if config.seed is None else config.seed
    wanted = Quantisation(
        calibration=config.calibration,
        samples=config.samples,
        activations=config.activations,
        coded_ends=config.int8_io,
        weight_bits=int(config.weight_bits),
        keep_float=config.keep_float,
        tuning="always" if config.qat else "auto" if config.auto else "never",
        tolerance=config.tolerance,
        seed=seed,
        clusters=config.clusters,
    )
    plan = None
    if wanted.tuning != "never":
        from compress.int8.tuning import plan_tuning

        plan = plan_tuning(parent, config, seed)
    result = quantised_run(
        parent,
        wanted,
        config.runs,
        out=config.out,
        force=config.force,
        show_costs=config.sensitivity,
        plan=plan,
    )
    for line in lines_of(parent, result, config.runs):
        cli.say(line)
    return 0


def check_options(config: QuantizeConfig) -> Path:
    """What to quantise; raises InputError for contradictions before anything is read."""
    faults = Faults()
    faults.add(
        config.run is None, "--run must be given: a run folder, or a float .onnx file with --data"
    )
    faults.add(
        config.qat and config.auto,
        "--qat and --auto exclude each other; --auto turns to --qat where needed",
    )
    faults.add(
        config.teacher and not (config.qat or config.auto),
        "--teacher: is used by --qat and --auto only",
    )
    faults.add(
        config.teacher and config.without_teacher,
        "--teacher and --without-teacher exclude each other; give one",
    )
    faults.add(
        config.clusters is not None and config.weight_bits != "8",
        "--clusters and --weight-bits 4 exclude each other; give one",
    )
    faults.add(
        config.devices * config.nodes > 1, "--devices, --nodes: quantising runs in one process"
    )
    faults.check()
    assert config.run is not None  # else there was a fault
    return config.run


def lines_of(parent: Parent, result: Run, root: Path) -> list[str]:
    """The closing table and what has to be said plainly, from what was measured; root: of runs."""
    from compress import runs
    from compress.metrics import PairedDifference
    from compress.quantized_runs import DETAILS
    from compress.summary import aligned, describe_difference, report_command

    found, details = result.metrics(), runs.read_json(result.file(DETAILS))
    base = found["parent"]
    timing = found["latency_ratio"]
    rows = [
        ("", "bytes", "", "peak activation bytes", "test accuracy (95 % interval)", "latency", ""),
        _row("float", base, base["test"], 1.0, timing["base_median_ms"], 1.0),
        _row("int8", found, found["splits"]["test"], found["file_bytes_ratio"],
             timing["median_ms"], timing["ratio"]),
    ]  # fmt: skip
    difference = PairedDifference(**found["differences"]["test"])
    agreement = found["agreement"]
    lines = [
        aligned(rows, right=(1, 2, 3, 5, 6)),
        describe_difference("int8", "float", difference),
        f"int8 decides as float on {100 * agreement['top1']:.2f} % of {agreement['windows']:,} "
        "test windows.",
        *_tuning_lines(details),
        *_plain_words(found, details),
        *_chip_line(found, result),
        f"Float is {parent.file}; both files were measured in onnxruntime, latency on one thread "
        "in turns.",
        f"The int8 run lies in {result.folder}. Next: {report_command(result.folder, root)}",
    ]
    return lines


def _chip_line(found: dict[str, Any], result: Run) -> list[str]:
    """What the int8 file asks of a chip; a run that was made before it was counted says nothing."""
    if found.get("flash_bytes") is None or found["peak_activation_bytes"] is None:
        return []
    settings = result.manifest["settings"]
    if settings.get("clusters") or settings.get("weight_bits", 8) != 8:
        return [
            f"The ONNX file holds {found['flash_bytes']:,} bytes of constants. On a chip it gains "
            "nothing yet: C code stores 4 bits as 8 and takes no clusters, .tflite takes neither."
        ]
    return [
        f"On a chip: {found['flash_bytes']:,} bytes of constants in flash, "
        f"{found['peak_activation_bytes']:,} bytes of activations at most, at "
        f"{found['peak_layer']}."
    ]


def _row(
    name: str,
    figures: dict[str, Any],
    test: dict[str, Any],
    bytes_ratio: float,
    latency_ms: float,
    latency_ratio: float,
) -> tuple[str, ...]:
    peak = figures["peak_activation_bytes"]
    return (
        name,
        f"{figures['file_bytes']:,}",
        f"{bytes_ratio:.3f}",
        "not known" if peak is None else f"{peak:,}",
        f"{100 * test['accuracy']:.1f} %  ({100 * test['accuracy_low']:.1f} to "
        f"{100 * test['accuracy_high']:.1f})",
        f"{latency_ms:.3f} ms",
        f"{latency_ratio:.2f}",
    )


def _tuning_lines(details: dict[str, Any]) -> list[str]:
    tuned = details.get("fine_tuned")
    if not tuned:
        return []
    before = 100 * details["calibrated"]["difference"]
    after = 100 * tuned["difference"]
    lines = [
        f"On validation: calibrated {before:+.2f} points to float, fine-tuned {after:+.2f}; "
        f"the {details['chosen']} one ships."
    ]
    agreement = tuned["simulated_agreement"]
    lines.append(
        f"The simulation decides as the file on {100 * agreement['top1']:.2f} % of "
        f"{agreement['windows']:,} test windows."
    )
    return lines


def _plain_words(found: dict[str, Any], details: dict[str, Any]) -> list[str]:
    """What a reader must not have to find out alone."""
    lines = []
    timing, bytes_ratio = found["latency_ratio"], found["file_bytes_ratio"]
    if timing["ratio"] >= 1:
        lines.append(
            f"Not faster on this CPU: int8 takes {timing['ratio']:.2f} of the float file's time "
            f"(quartiles {timing['low']:.2f} to {timing['high']:.2f})."
        )
        if found["activations"] == "int8":
            lines.append("x86 has fast kernels for --activations uint8, the same model.")
    if bytes_ratio >= 1:
        lines.append(f"Not smaller: the int8 file has {bytes_ratio:.2f} of the float file's bytes.")
    elif bytes_ratio > 0.3:
        lines.append(
            f"The int8 file has {bytes_ratio:.3f} of the float file's bytes: scales, biases and "
            "the graph take the rest."
        )
    floats = [f"{entry['operator']} {entry['name']}" for entry in details["float_operators"]]
    if floats:
        shown = ", ".join(floats[:6]) + (f" and {len(floats) - 6} more" if len(floats) > 6 else "")
        lines.append(f"In float: {shown}.")
    return lines


if __name__ == "__main__":
    raise SystemExit(cli.main(QuantizeConfig, run, __doc__))
