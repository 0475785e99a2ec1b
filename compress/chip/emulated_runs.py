"""A finished C export, emulated: adds chip/TARGET.elf and chip/TARGET.json to its run folder.

What was emulated before on the same code, windows and tools is not emulated again; estimates are
always made anew, since they are arithmetic on what was counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress import cli, runs
from compress.chip import elf, emulate, figures, frontend_c, toolchain
from compress.chip.fixed_point import FIXED_POINT
from compress.chip.frontend_host import HostFrontEnd
from compress.chip.layers import Weighted, read_network
from compress.chip.targets import TARGETS, Target, estimates
from compress.config import DataOptions, ExportConfig
from compress.data.audio import window_step
from compress.data.sets import decode_db
from compress.data.splits import Split
from compress.errors import InputError
from compress.frontend import FrontEnd
from compress.int8.reference import IntegerNetwork
from compress.parents import recorded_data
from compress.runs import Run, RunWriter
from compress.summary import aligned

_OF_SOUND = r"(frontend|scene)(_settings|_tables)?\.[ch]"
_HOPS = 2  # between decisions, that are counted
_SOUND_BLOCK = 256  # samples that firmware/sound.c reads at once


def emulate_targets(run: Run, config: ExportConfig) -> list[str]:
    """Run the C code of an export on ``config.target`` and record what was counted.

    Gives the table to print. Raises InputError where outputs differ from the reference.
    """
    if not figures.is_c_export(run.manifest):
        raise InputError(f"{run.folder}: holds no C code of a network; make it with --format c")
    with RunWriter(run.folder, run.manifest).locked():
        run = runs.open_run(run.folder)
        run.check_unchanged()
        reference = _reference(run, config)
        records = []
        bar = cli.progress(len(config.target), "emulate", "target")
        for name in dict.fromkeys(config.target):
            records.append(_emulate(run, TARGETS[name], reference, config))
            bar.update()
        bar.close()
        emulated = [record["target"] for record in records]
        made = [*map(figures.record_name, emulated), *map(figures.image_name, emulated)]
        RunWriter(run.folder, run.manifest).finish([*run.manifest["artefacts"], *made])
    return [table(records), *sound_table(records), *_words(records)]


@dataclass(frozen=True)
class Reference:
    """What the C code has to give, by numpy in integers.

    windows (N, mels, frames) int16 in 1/256 dB, evenly spread over the test split; codes
    (N, classes) int8. separable: whether depthwise convolutions are in the network.
    """

    windows: np.ndarray
    codes: np.ndarray
    separable: bool
    ask: Callable[[np.ndarray], np.ndarray]  # windows -> codes


def _reference(run: Run, config: ExportConfig) -> Reference:
    int8_file = Path(str((run.manifest.get("parent") or {}).get("folder"))) / runs.ONNX
    if not int8_file.is_file() or runs.sha256_file(int8_file) != run.manifest["settings"]["parent"]:
        raise InputError(
            f"{int8_file}: is not the int8 file any more that {run.folder} was made of, so there "
            "is nothing to compare with; quantise and export again"
        )
    options = DataOptions(data=config.data, cache=config.cache, workers=config.workers)
    data = recorded_data(run, options)
    test = Split.from_json(runs.read_json(run.file(runs.SPLIT))).test
    count = min(config.windows, len(test))
    chosen = test[np.linspace(0, len(test) - 1, count).round().astype(int)]
    network = read_network(int8_file)
    integers = IntegerNetwork(int8_file, FIXED_POINT, network.model)

    def ask(windows: np.ndarray) -> np.ndarray:
        integers(decode_db(windows)[:, None])
        return integers.codes[network.output].values.reshape(len(windows), -1).astype(np.int8)

    read = data.read(chosen)
    separable = any(
        isinstance(layer, Weighted)
        and layer.kernel == "depthwise"
        and layer.window is not None
        and layer.window.size != (1, 1)  # which is a batch norm that no convolution took in
        for layer in network.layers
    )
    return Reference(read, ask(read), separable, ask)


def _emulate(
    run: Run, target: Target, reference: Reference, config: ExportConfig
) -> dict[str, Any]:
    """The record of one target, written; what was counted is taken over where nothing changed."""
    name, windows = target.core.name, reference.windows
    basis = {
        "target": name,
        "windows": len(windows),
        "windows_hash": hashlib.sha256(windows.astype("<i2").tobytes()).hexdigest(),
        "sources": {source: runs.sha256_file(run.folder / source) for source in figures.SOURCES},
        "firmware": _firmware_hash(),
        "tools": toolchain.versions(),
        "machine": target.machine,
        "flags": [*target.flags, *toolchain.OPTIMISATION],
    }
    record = _recorded(run, name)
    if {key: record.get(key) for key in basis} != basis:
        seen = emulate.run(target, run.folder, windows)
        emulate.compare(target, seen, reference.codes)
        image_file = run.folder / figures.image_name(name)
        with runs.atomic_path(image_file) as linked:
            emulate.link_minimal(target, run.folder, linked, seen.stack_bytes)
        record = basis | {
            "windows_equal": len(windows),
            "image_sha256": runs.sha256_file(image_file),
            **emulate.figures(seen, elf.read(image_file)),
        }
    if config.from_wave:
        record["sound"] = _sound(run, target, reference, record)
    record["estimates"] = [
        estimates(
            core,
            record["macs"],
            record["instructions"],
            record["vector_instructions"],
            separable=reference.separable,
            clock_mhz=config.clock_mhz,
            microwatts_per_mhz=config.microwatts_per_mhz,
        )
        for core in (target.core, *target.like)
    ]
    runs.write_json(run.folder / figures.record_name(name), record)
    return record


def _sound(
    run: Run, target: Target, reference: Reference, record: dict[str, Any]
) -> dict[str, Any]:
    """Front end, stream and network on sound, per decision; taken over where nothing changed.

    Raises InputError where the export takes no sound, or decides otherwise than the reference.
    """
    described = run.manifest["data"].get("frontend")
    names = sorted(n for n in run.manifest["artefacts"] if re.fullmatch(_OF_SOUND, n))
    if "scene.c" not in names or described is None:
        raise InputError(
            f"--from-wave: {run.folder} has no front end in C, since its training data came as "
            "spectrograms"
        )
    frontend = FrontEnd.from_dict(described)
    step = window_step(frontend)
    hop = step * frontend.hop_samples
    length = -(-(frontend.clip_samples + _HOPS * hop) // _SOUND_BLOCK) * _SOUND_BLOCK
    samples = np.resize(frontend_c.golden_samples(frontend), length)
    basis = {
        "sources": {name: runs.sha256_file(run.folder / name) for name in names},
        "samples_hash": hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest(),
    }
    before = record.get("sound") or {}
    if {key: before.get(key) for key in basis} == basis:
        return before
    seen = emulate.run_sound(target, run.folder, samples)
    with HostFrontEnd(run.folder, frontend) as front:
        starts = [k * hop for k in range(len(seen.codes))]
        windows = [front.window(samples[at : at + frontend.clip_samples]) for at in starts]
    if not np.array_equal(seen.codes, reference.ask(np.stack(windows))):
        raise InputError(
            f"{target.core.name}: windows of sound have other outputs in the emulator than in the "
            "reference; this is a fault of the C code"
        )
    wholes = np.sum([seen.front_end, seen.stream, seen.network], axis=0)
    largest = int(wholes.argmax())
    return basis | {
        "decisions": len(seen.codes),
        "hop_seconds": step * frontend.hop_seconds,
        "instructions": int(wholes[largest]),
        "front_end_instructions": seen.front_end[largest],
        "stream_instructions": seen.stream[largest],
        "network_instructions": seen.network[largest],
        "flash_bytes": seen.sound_flash_bytes,
        "ram_bytes": seen.sound_ram_bytes,
        "stack_bytes": seen.stack_bytes,
    }


def _recorded(run: Run, target: str) -> dict[str, Any]:
    """What was recorded before, where its files are still those; else nothing."""
    try:
        figures.read(run.folder, run.manifest, target)
        return runs.read_json(run.folder / figures.record_name(target))
    except InputError:
        return {}


def _firmware_hash() -> str:
    """Of everything that is compiled beside the network."""
    files = sorted(path for path in toolchain.FIRMWARE.iterdir() if path.is_file())
    return runs.digest([(path.name, runs.sha256_file(path)) for path in files])


_HEAD = ("target", "instructions", "per MAC", "flash", "weights", "code", "RAM", "arena", "stack",
         "windows equal")  # fmt: skip


def table(records: Sequence[dict[str, Any]]) -> str:
    """What was measured, one line per target; sizes in bytes."""
    rows = [
        (
            record["target"],
            f"{record['instructions']:,}",
            f"{record['instructions_per_mac']:.2f}",
            *(
                f"{record[key]:,}"
                for key in ("flash_bytes", "weights_bytes", "code_bytes", "ram_bytes",
                            "arena_bytes", "stack_bytes")  # fmt: skip
            ),
            f"{record['windows_equal']} of {record['windows']}",
        )
        for record in records
    ]
    return aligned([_HEAD, *rows], right=tuple(range(1, len(_HEAD))))


_SOUND_HEAD = ("from sound, per decision", "instructions", "front end", "stream", "network",
               "per second", "flash", "RAM", "stack")  # fmt: skip


def sound_table(records: Sequence[dict[str, Any]]) -> list[str]:
    """What the stream takes, one line per target; flash and RAM of front end and stream alone."""
    rows = [
        (
            record["target"],
            *(f"{sound[f'{part}instructions']:,}" for part in ("", "front_end_", "stream_",
                                                               "network_")),
            f"{sound['instructions'] / sound['hop_seconds']:,.0f}",
            *(f"{sound[key]:,}" for key in ("flash_bytes", "ram_bytes", "stack_bytes")),
        )
        for record in records
        if (sound := record.get("sound"))
    ]  # fmt: skip
    if not rows:
        return []
    return [aligned([_SOUND_HEAD, *rows], right=tuple(range(1, len(_SOUND_HEAD))))]


def _words(records: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["Estimates, not measured (an emulator knows no cycles):"]
    for record in records:
        for guess in record["estimates"]:
            least = "at least " if guess["at_least"] else ""
            energy = (
                "energy not known"
                if guess["microjoules"] is None
                else f"{least}{guess['microjoules']:,.0f} uJ"
            )
            lines.append(
                f"  {guess['core']}: {least}{guess['milliseconds']:.1f} ms at "
                f"{guess['clock_mhz']:g} MHz, {energy} a window "
                f"({guess['cycles_source']}; {guess['part']})"
            )
    return lines
