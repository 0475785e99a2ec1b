"""Processor cores: how code for them is built and run, and what is estimated about them.

Counts of instructions and bytes are measured. Cycles, time and energy are ESTIMATES: an emulator
knows none of them. Each estimate names its sources by title; "from memory" marks a figure whose
source was not at hand when it was written down. "At least" stands where no chip can take less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MLPERF = 'MACs per cycle derived from "MLPerf Tiny Inference" results (MLCommons, int8)'


@dataclass(frozen=True)
class Core:
    """What is assumed of a core. Rates are multiply-accumulates per cycle; None: not known."""

    name: str
    separable_rate: float | None  # networks with depthwise convolutions
    plain_rate: float | None
    scalar_cycles: float  # of an instruction, at the core's peak and without waiting for memory
    vector_cycles: float  # of one of 128 bits
    pace: str  # where these two are from
    least: bool  # whether instructions can never take less
    clock_mhz: float  # of ``part``
    part: str  # where clock and power are from
    microwatts_per_mhz: float | None


@dataclass(frozen=True)
class Target:
    """A core that is emulated. ``like``: cores that run the same image, estimated beside it."""

    core: Core
    machine: str  # of qemu-system-arm
    flags: tuple[str, ...]  # of arm-none-eabi-gcc
    like: tuple[Core, ...] = ()


_M33 = Core("cortex-m33", 0.57, 0.70, 1.0, 1.0,
            '"Cortex-M33 Technical Reference Manual", Arm 100230, from memory: some pairs of short '
            "instructions take one cycle together", False, 160.0,
            'STM32U585: 160 MHz, 19.5 uA/MHz at 3.3 V ("STM32U585xx datasheet", ST DS13086, from '
            "memory)", 64.0)  # fmt: skip
_M85 = Core("cortex-m85", 1.6, 3.1, 0.5, 1.0,
            '"Cortex-M85 Technical Reference Manual", Arm 101924, from memory: two instructions a '
            "cycle, one of them a vector", True, 480.0,
            'RA8M1: 480 MHz ("RA8M1 Group Datasheet", Renesas, from memory), power not known',
            None)  # fmt: skip

TARGETS: Mapping[str, Target] = {
    "cortex-m4": Target(
        Core("cortex-m4", 0.51, 0.63, 1.0, 1.0,
             '"Cortex-M4 Technical Reference Manual", Arm DDI 0439: one cycle or more, but '
             "for a folded IT", True, 120.0,
             'STM32L4R5: 120 MHz ("STM32L4 and STM32L4+ ultra-low-power features overview", ST '
             'AN4621), 110 uA/MHz at 3.3 V without SMPS ("STM32L4R5xx datasheet", ST DS12023, from '
             "memory)", 363.0),
        machine="mps2-an386",
        flags=("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"),
        like=(_M33,),
    ),
    "cortex-m7": Target(
        Core("cortex-m7", 0.84, 1.09, 0.5, 0.5,
             '"Cortex-M7 instruction cycle counts, timings, and dual-issue combinations", '
             "quinapalus.com: at most two a cycle", True, 480.0,
             'STM32H743: 480 MHz ("STM32H7x3 smart power management", ST AN5014), 275 uA/MHz at '
             '3.3 V ("STM32H743xI datasheet", ST DS12110, from memory)', 908.0),
        machine="mps2-an500",
        flags=("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=soft"),
    ),
    "cortex-m55": Target(
        Core("cortex-m55", None, None, 1.0, 2.0,
             '"Cortex-M55 Technical Reference Manual", Arm 101051, from memory: half a vector a '
             "cycle; vectors that overlap take less, waiting takes more", False, 160.0,
             "Alif Ensemble E3, high-efficiency core: 160 MHz, 22 uA/MHz at 3.3 V (\"Ensemble E3 "
             'Datasheet", Alif Semiconductor, from memory)', 73.0),
        machine="mps3-an547",
        flags=("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
        like=(_M85,),
    ),
}  # fmt: skip


def estimates(
    core: Core,
    macs: int,
    instructions: int,
    vector_instructions: int,
    *,
    separable: bool,
    clock_mhz: float | None = None,
    microwatts_per_mhz: float | None = None,
) -> dict[str, Any]:
    """Cycles, milliseconds and microjoules of one window, with where they come from.

    Cycles are the larger of two figures: MACs at the rate that MLPerf Tiny's submissions reach on
    the core, and the counted instructions at the core's peak, memory without wait states;
    "at_least" says whether no chip with the core can take less than that. One microwatt per
    megahertz is one picojoule per cycle.
    """
    rate = core.separable_rate if separable else core.plain_rate
    by_rate = macs / rate if rate else 0.0
    scalar = instructions - vector_instructions
    by_instructions = scalar * core.scalar_cycles + vector_instructions * core.vector_cycles
    cycles = round(max(by_rate, by_instructions))
    clock = clock_mhz or core.clock_mhz
    power = microwatts_per_mhz or core.microwatts_per_mhz
    kind = "depthwise-separable" if separable else "plain"
    from_rate = bool(rate) and by_rate >= by_instructions
    sources = (
        f"{_MLPERF}: {rate} for {kind} networks"
        if from_rate
        else f"counted instructions at {core.scalar_cycles:g}"
        + (f" (vector ones {core.vector_cycles:g})" if vector_instructions else "")
        + f" cycles per instruction, by {core.pace}"
    )
    stated = [
        name
        for name, value in (("clock", clock_mhz), ("power", microwatts_per_mhz))
        if value is not None
    ]
    return {
        "core": core.name,
        "cycles": cycles,
        "cycles_source": sources,
        "at_least": core.least and not from_rate,
        "clock_mhz": clock,
        "milliseconds": cycles / (1000 * clock),
        "microwatts_per_mhz": power,
        "microjoules": None if power is None else cycles * power / 1e6,
        "part": f"{' and '.join(stated)} as given; else {core.part}" if stated else core.part,
    }
