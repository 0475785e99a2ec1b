"""The C code of a network, cross-compiled and run in an emulator on test windows.

    sources -> image with the test harness -> emulator -> codes, instructions per layer, stack
            -> image with nothing but the network and start-up code -> flash, RAM

The emulator executes the same instructions as the chip, so outputs and counts of instructions are
exact and repeatable. It knows no cycles: time and energy are estimates (compress.chip.targets).
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.chip import counts, elf, toolchain
from compress.chip.figures import SOURCES, sizes
from compress.chip.targets import Target
from compress.errors import InputError

_STACK_WHILE_MEASURING = 32 * 1024  # bytes
_STACK_ALIGNMENT = 8  # bytes, by Arm's procedure call standard


@dataclass(frozen=True)
class Layer:
    """One layer of the network on the first window."""

    name: str
    macs: int
    instructions: int
    vector_instructions: int


@dataclass(frozen=True)
class Emulation:
    """What was seen of one target. ``codes`` (N, classes) int8, ``decisions`` (N,)."""

    codes: np.ndarray
    decisions: np.ndarray
    windows: list[counts.Count]  # of scene_classify, one per window
    encoding: counts.Count
    layers: list[Layer]
    stack_bytes: int


def run(target: Target, sources: Path, windows: np.ndarray) -> Emulation:
    """Run the C code in ``sources`` on windows, (N, mels, frames) int16 in 1/256 dB.

    Raises InputError where it does not compile or does not end by itself.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        windows.astype("<i2").tofile(folder / "clips.bin")
        image_file = folder / "harness.elf"
        _build(target, sources, "harness.c", image_file, _STACK_WHILE_MEASURING)
        image = elf.read(image_file)
        plugin = toolchain.build_plugin(folder)
        mark = image.symbols["measurement_mark"] & ~1  # the lowest bit says Thumb
        toolchain.emulate(target, image_file, plugin, mark, folder / "counts.txt")
        found = counts.read(folder / "counts.txt", image)
        named = _layers(folder / "layers.bin")
        records = np.fromfile(folder / "outputs.bin", np.int8)
        (stack,) = struct.unpack("<I", (folder / "stack.bin").read_bytes())
    # start, encoding, one per layer, stack, then per window: scene_classify and reading
    first = 3 + len(named)
    if len(found) != first + 2 * len(windows) or len(records) % len(windows):
        raise InputError(f"{target.core.name}: the emulated run ended early")
    records = records.reshape(len(windows), -1)
    return Emulation(
        codes=records[:, 1:],
        decisions=records[:, 0],
        windows=found[first::2],
        encoding=found[1],
        layers=[
            Layer(name, macs, count.instructions, count.vector)
            for (name, macs), count in zip(named, found[2:], strict=False)
        ],
        stack_bytes=stack,
    )


@dataclass(frozen=True)
class SoundEmulation:
    """The stream on sound, between decisions. ``codes`` (decisions, classes) int8.

    Lists hold instructions per hop; those of the C library are counted with the network.
    """

    codes: np.ndarray
    front_end: list[int]
    stream: list[int]
    network: list[int]
    sound_flash_bytes: int
    sound_ram_bytes: int
    stack_bytes: int


def run_sound(target: Target, sources: Path, samples: np.ndarray) -> SoundEmulation:
    """Run front end, network and smoothing on samples, (n,) int16; InputError as for ``run``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples.astype("<i2").tofile(folder / "sound.bin")
        image_file, written = folder / "sound.elf", folder / "counts.txt"
        files = (*SOURCES, "frontend.c", "scene.c")
        _build(target, sources, "sound.c", image_file, _STACK_WHILE_MEASURING, files)
        image = elf.read(image_file)
        mark = image.symbols["measurement_mark"] & ~1
        toolchain.emulate(target, image_file, toolchain.build_plugin(folder), mark, written)
        parts = {
            part: [count.instructions for count in counts.read(written, image, part)][1:-1]
            for part in (elf.SOUND + "front_end", elf.SOUND + "stream", elf.NETWORK + "code")
        }
        codes = np.fromfile(folder / "codes.bin", np.int8)
        (stack,) = struct.unpack("<I", (folder / "stack.bin").read_bytes())
    front_end, stream, network = parts.values()
    hops = len(front_end)
    if hops < 1 or len(codes) % (hops + 1):
        raise InputError(f"{target.core.name}: the emulated run on sound ended early")
    sizes_of_sound = [s for s in image.sections if s.name.startswith(elf.SOUND)]
    return SoundEmulation(
        codes.reshape(hops + 1, -1),
        front_end,
        stream,
        network,
        sound_flash_bytes=sum(s.size for s in sizes_of_sound if s.in_flash),
        sound_ram_bytes=sum(s.size for s in sizes_of_sound if s.in_ram),
        stack_bytes=stack,
    )


def link_minimal(target: Target, sources: Path, image_file: Path, stack_bytes: int) -> None:
    """Write the image of the network, start-up code and a stack of the size that was measured."""
    with tempfile.TemporaryDirectory() as name:
        linked = Path(name) / "minimal.elf"
        stack = -(-stack_bytes // _STACK_ALIGNMENT) * _STACK_ALIGNMENT
        _build(target, sources, "minimal.c", linked, stack)
        image_file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(linked, image_file)


def compare(target: Target, seen: Emulation, expected: np.ndarray) -> None:
    """Raise InputError unless every window has the ``expected`` codes, (N, classes)."""
    same = (seen.codes == expected).all(axis=1) & (seen.decisions == expected.argmax(axis=1))
    if not same.all():
        raise InputError(
            f"{target.core.name}: {int((~same).sum())} of {len(same)} windows have other outputs "
            f"in the emulator than in the reference (first: window {int(same.argmin())}); this is "
            "a fault of the C code"
        )


def figures(seen: Emulation, image: elf.Image) -> dict[str, Any]:
    """What is recorded of a target, as measured: instructions and bytes, no estimate."""
    macs = sum(layer.macs for layer in seen.layers)
    largest = max(seen.windows, key=lambda count: count.instructions)
    return {
        "macs": macs,
        "instructions": largest.instructions,
        "instructions_least": min(count.instructions for count in seen.windows),
        "vector_instructions": largest.vector,
        "instructions_per_mac": largest.instructions / macs if macs else None,
        "encoding_instructions": seen.encoding.instructions,
        "layers": [
            {"name": layer.name, "macs": layer.macs, "instructions": layer.instructions,
             "vector_instructions": layer.vector_instructions}
            for layer in seen.layers
        ],
        **sizes(image),
    }  # fmt: skip


def _build(
    target: Target,
    sources: Path,
    program: str,
    image: Path,
    stack_bytes: int,
    names: Sequence[str] = SOURCES,
) -> None:
    files = [sources / name for name in names if name.endswith(".c")]
    own = [toolchain.FIRMWARE / "startup.c", toolchain.FIRMWARE / program]
    toolchain.build(target, [*files, *own], sources, image, stack_bytes)


def _layers(path: Path) -> list[tuple[str, int]]:
    data, found, place = path.read_bytes(), [], 0
    while place < len(data):
        (macs,) = struct.unpack_from("<I", data, place)
        end = data.index(b"\0", place + 4)
        found.append((data[place + 4 : end].decode("utf-8", "replace"), macs))
        place = end + 1
    return found
