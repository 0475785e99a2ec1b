"""What an export's run folder says of its chips, believed only as far as files bear it out.

    chip/TARGET.elf    the network with start-up code; flash and RAM are read from its headers
    chip/TARGET.json   instructions and estimates, with hashes of the image and of the C code

Reads small files only and imports nothing heavy: the gate and the report ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import runs
from compress.budgets import FIGURES, OF_PROCESSOR
from compress.chip import elf
from compress.chip.targets import TARGETS
from compress.errors import InputError
from compress.subjects import Contribution, Subject, Value

FOLDER = "chip"
SOURCES = ("model.c", "model.h", "kernels.c", "kernels.h")  # what decides the network's image
_COUNTS = ("instructions", "instructions_least", "vector_instructions", "macs", "windows",
           "windows_equal")  # fmt: skip
_OF_A_LAYER: dict[str, Any] = {
    "name": str, "macs": int, "instructions": int, "vector_instructions": int
}  # fmt: skip
_OF_SOUND: dict[str, Any] = {
    "decisions": int, "hop_seconds": (int, float), "instructions": int,
    "front_end_instructions": int, "stream_instructions": int, "network_instructions": int,
    "flash_bytes": int, "ram_bytes": int, "stack_bytes": int,
}  # fmt: skip
_OF_AN_ESTIMATE: dict[str, Any] = {
    "core": str, "cycles": int, "cycles_source": str, "clock_mhz": (int, float),
    "milliseconds": (int, float), "part": str,
}  # fmt: skip


@dataclass(frozen=True)
class ChipFigures:
    """One target of one export. ``values`` is the record; sizes in it are those of the image."""

    folder: Path
    target: str
    values: Mapping[str, Any]


def image_name(target: str) -> str:
    return f"{FOLDER}/{target}.elf"


def record_name(target: str) -> str:
    return f"{FOLDER}/{target}.json"


def is_c_export(manifest: Mapping[str, Any]) -> bool:
    """Whether a run folder holds the C code of a network."""
    artefacts = manifest.get("artefacts")
    return manifest.get("stage") == "export" and isinstance(artefacts, dict) and (
        set(SOURCES) <= set(artefacts)
    )  # fmt: skip


def targets_of(manifest: Mapping[str, Any]) -> list[str]:
    """Targets that an export was emulated on, in the order of the table."""
    artefacts = manifest.get("artefacts")
    known = artefacts if isinstance(artefacts, dict) else {}
    return [target for target in TARGETS if record_name(target) in known]


def read(folder: Path, manifest: Mapping[str, Any], target: str) -> ChipFigures:
    """Figures of one target; raises InputError where a file is not the one that was measured."""
    again = "emulate it again: python -m compress.export"
    recorded = manifest.get("artefacts", {})
    changed = _changed(folder, manifest, (record_name(target), image_name(target), *SOURCES))
    if changed:
        raise InputError(f"{', '.join(changed)} changed since {target} was measured; {again}")
    values = runs.read_json(folder / record_name(target))
    hashes = values.get("sources")
    if not isinstance(hashes, dict) or any(
        hashes.get(name) != recorded[name] for name in SOURCES
    ) or values.get("image_sha256") != recorded[image_name(target)]:  # fmt: skip
        raise InputError(f"{record_name(target)} was measured on other C code; {again}")
    for name in _COUNTS:
        if type(values.get(name)) is not int or values[name] < 0:
            raise InputError(f"{record_name(target)}: has no valid {name}; {again}")
    for name, shape in (("layers", _OF_A_LAYER), ("estimates", _OF_AN_ESTIMATE)):
        listed = values.get(name)
        if not isinstance(listed, list) or not all(
            isinstance(entry, dict) and all(isinstance(entry.get(k), kind)
                                            for k, kind in shape.items())
            for entry in listed
        ):  # fmt: skip
            raise InputError(f"{record_name(target)}: has no valid {name}; {again}")
    sound = values.get("sound")
    if sound is not None and not (
        isinstance(sound, dict)
        and all(isinstance(sound.get(name), kind) for name, kind in _OF_SOUND.items())
    ):
        raise InputError(f"{record_name(target)}: has no valid sound; {again} --from-wave")
    image = elf.read(folder / image_name(target))
    return ChipFigures(folder, target, values | sizes(image))


def sizes(image: elf.Image) -> dict[str, int]:
    """Bytes of flash and RAM of a linked image, and what they are made of."""
    return {
        "flash_bytes": image.flash_bytes,
        "weights_bytes": image.weights_bytes,
        "code_bytes": image.code_bytes,
        "startup_bytes": image.startup_bytes,
        "ram_bytes": image.ram_bytes,
        "arena_bytes": image.arena_bytes,
        "stack_bytes": image.stack_bytes,
    }


def accuracy(folder: Path, manifest: Mapping[str, Any]) -> float:
    """Test accuracy of the C code, 0..1; raises InputError where it was measured on other code."""
    found: Any = metrics(folder, manifest)
    for key in ("splits", "test", "accuracy"):
        found = found.get(key) if isinstance(found, dict) else None
    if type(found) not in (int, float) or not 0 <= found <= 1:
        raise InputError(f"{runs.METRICS}: has no accuracy on the test split")
    return float(found)


def metrics(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json of an export; raises InputError where it was measured on other code."""
    changed = _changed(folder, manifest, (runs.METRICS, *SOURCES))
    if changed:
        raise InputError(f"{', '.join(changed)} changed since the C code was measured")
    return runs.read_json(folder / runs.METRICS)


def _changed(folder: Path, manifest: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    recorded = manifest.get("artefacts", {})
    return [
        name
        for name in names
        if not (folder / name).is_file() or runs.sha256_file(folder / name) != recorded.get(name)
    ]


# --- for the gate --------------------------------------------------------------------------------


def exports_below(folder: Path) -> list[Path]:
    """Run folders that hold C code, in a folder and its subfolders, sorted."""
    found = []
    for place in runs.find_runs(folder):
        try:
            manifest = runs.read_json(place / runs.MANIFEST)
        except InputError:
            continue  # the gate does not judge unfinished or damaged runs of other kinds either
        if is_c_export(manifest):
            found.append(place)
    return found


def subjects_of(folder: Path) -> list[tuple[str, Subject]]:
    """(processor, subject) to be judged: the C code itself (processor ""), then on each processor.

    Raises InputError where a file is not the one that was measured.
    """
    manifest = runs.read_json(folder / runs.MANIFEST)
    measured = metrics(folder, manifest)
    code = folder / SOURCES[0]
    targets = targets_of(manifest)
    reason = "not emulated yet: python -m compress.export --target"
    values = dict.fromkeys(OF_PROCESSOR, Value(None, reason, applies=not targets))
    values["chip_accuracy"] = Value(accuracy(folder, manifest))
    found = [("", Subject(str(folder), code, None, manifest, measured, counted=values))]
    for target in targets:
        of_target = read(folder, manifest, target).values
        values = dict.fromkeys(FIGURES, Value(None, "of the C code", applies=False))
        values |= {
            "flash_bytes": Value(of_target["flash_bytes"], parts=_parts(of_target, _FLASH)),
            "ram_bytes": Value(of_target["ram_bytes"], parts=_parts(of_target, _RAM)),
            "instructions": Value(of_target["instructions"], parts=_layers(of_target)),
        }
        found.append(
            (target, Subject(f"{folder} on {target}", code, None, manifest, counted=values))
        )
    return found


def of_no_processor(subject: Subject) -> Value:
    """Figures of C code, asked of something else."""
    return Value(None, "measured on C code (python -m compress.export)", applies=False)


_FLASH = {"weights_bytes": "weights", "code_bytes": "code", "startup_bytes": "start-up"}
_RAM = {"arena_bytes": "arena", "stack_bytes": "stack"}


def _parts(values: Mapping[str, Any], names: Mapping[str, str]) -> tuple[Contribution, ...]:
    parts = [Contribution(word, values[name]) for name, word in names.items()]
    return tuple(sorted(parts, key=lambda part: -part.value))


def _layers(values: Mapping[str, Any]) -> tuple[Contribution, ...]:
    parts = [Contribution(layer["name"], layer["instructions"]) for layer in values["layers"]]
    return tuple(sorted(parts, key=lambda part: -part.value))
