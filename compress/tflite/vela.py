"""A .tflite file compiled for Arm's Ethos-U by Vela: memory, cycles and rate that it estimates.

Vela is a compiler with a performance model: bytes are those of the compiled network, cycles and
inferences per second are its estimates for a stated clock and memory, not measurements.

Vela leaves operators that an NPU cannot compute to the CPU, and says so with exit code 0, even
where that is all of them. So the compiled file is read, and what is left in it is named.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from compress.artefacts import tflite_file
from compress.errors import InputError

_NPU_OPERATOR = "ethos-u"
_SECONDS = 600
_KIB = 1024
# Clock and memory that Vela assumes (its own Arm/vela.ini): weights in external flash, activations
# in SRAM that is shared with the CPU.
_MEMORY = "Shared_Sram"
_SYSTEMS = {"ethos-u55": "Ethos_U55_High_End_Embedded", "ethos-u85": "Ethos_U85_SYS_Flash_High"}


def check() -> None:
    """Raise InputError where Vela is not installed."""
    try:
        metadata.version("ethos-u-vela")
    except metadata.PackageNotFoundError:
        raise InputError("--vela needs Arm's Vela; install it with: pip install '.[tflite]'") from (
            None
        )


def options(accelerator: str, optimise: str) -> list[str]:
    """Vela's command line behind the file's name. optimise: "performance" or "size" (of SRAM)."""
    family = accelerator.rpartition("-")[0]
    return [
        "--accelerator-config", accelerator, "--config", "Arm/vela.ini",
        "--system-config", _SYSTEMS[family], "--memory-mode", _MEMORY,
        "--optimise", optimise.capitalize(),
    ]  # fmt: skip


def compile_for(path: Path, accelerator: str, optimise: str = "performance") -> dict[str, Any]:
    """What Vela says of a file on an accelerator such as ethos-u55-128.

    sram_bytes, flash_bytes, cycles, inferences_per_second, clock_hz; operators of the file, and
    those that are left to the CPU by name. Raises InputError where Vela is missing or fails.
    """
    check()
    arguments = options(accelerator, optimise)
    with tempfile.TemporaryDirectory(prefix="vela-") as place:
        folder = Path(place)
        source = folder / "model.tflite"
        source.write_bytes(path.read_bytes())
        command = [sys.executable, "-m", "ethosu.vela", source.name, *arguments,
                   "--output-dir", "compiled"]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{path}: Vela did not end within {_SECONDS} s") from None
        compiled = folder / "compiled" / "model_vela.tflite"
        summaries = list((folder / "compiled").glob("*summary*.csv"))
        if done.returncode or not compiled.is_file() or len(summaries) != 1:
            said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
            raise InputError(f"{path}: Vela failed for {accelerator} ({said[-1][:200]})")
        row = _row(summaries[0])
        before, after = tflite_file.operators(path), tflite_file.operators(compiled)
    left = [f"{kind} {name}" for kind, name in after if kind != _NPU_OPERATOR]
    return {
        "accelerator": accelerator,
        "system": row["system_config"],
        "memory_mode": row["memory_mode"],
        "optimise": optimise,
        "clock_hz": round(float(row["core_clock"])),
        "sram_bytes": round(_KIB * float(row["sram_memory_used"])),
        "flash_bytes": round(
            _KIB
            * sum(float(row[f"{place}_flash_memory_used"]) for place in ("on_chip", "off_chip"))
        ),
        "cycles": round(float(row["cycles_total"])),
        "inferences_per_second": float(row["inferences_per_second"]),
        "operators": len(before),
        "cpu_operators": left,
        "all_on_cpu": all(kind != _NPU_OPERATOR for kind, _ in after),
        "vela": metadata.version("ethos-u-vela"),
        "command": " ".join(["vela", path.name, *arguments]),
    }


def _row(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if len(rows) != 1:
        raise InputError(f"Vela's summary has {len(rows)} rows, expected one")
    return rows[0]


def lines(found: dict[str, Any]) -> list[str]:
    """What is printed of one accelerator, with what fell back to the CPU."""
    kib = [f"{found[key] / _KIB:.1f} KiB" for key in ("sram_bytes", "flash_bytes")]
    told = [
        f"{found['accelerator']}: {kib[0]} SRAM, {kib[1]} flash, {found['cycles']:,} cycles, "
        f"{found['inferences_per_second']:,.0f} inferences/s at {found['clock_hz'] / 1e6:.0f} MHz "
        f"(estimated by Vela {found['vela']}, {found['system']})"
    ]
    left = found["cpu_operators"]
    if found["all_on_cpu"]:
        told.append(
            f"WARNING: {found['accelerator']} computes NOTHING of it: all "
            f"{len(left)} operators fall back to the CPU, so the figures above say nothing."
        )
    elif left:
        shown = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        told.append(
            f"WARNING: {len(left)} operators fall back to the CPU and are not in the cycles of "
            f"{found['accelerator']}: {shown}"
        )
    return told
