"""The cross-compiler, the emulator and its counting plugin; all of them Debian packages."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compress import runs
from compress.chip.targets import Target
from compress.errors import InputError

FIRMWARE = Path(__file__).parent / "firmware"
CROSS_COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
_PACKAGES = {CROSS_COMPILER: "gcc-arm-none-eabi", EMULATOR: "qemu-system-arm"}
_HOST_COMPILERS = ("cc", "gcc", "clang")
_HINT = "install with: make chip-tools"
_SECONDS = 300
OPTIMISATION = ("-O2",)
_LANGUAGE = ("-std=gnu99", "-ffreestanding", "-ffunction-sections", "-fdata-sections")


def check() -> None:
    """Raise InputError that names every missing package in one line."""
    missing = [
        f"{tool} (Debian package {package})"
        for tool, package in _PACKAGES.items()
        if not shutil.which(tool)
    ]
    if shutil.which(CROSS_COMPILER) and not _has_library():
        missing.append("newlib (Debian package libnewlib-arm-none-eabi)")
    if not _host_compiler():
        missing.append("a C compiler for this machine (Debian package gcc)")
    if missing:
        raise InputError(f"--target needs what is not installed: {', '.join(missing)}; {_HINT}")


def versions() -> dict[str, str]:
    """First lines of what compiler and emulator say of themselves."""
    return {
        tool: _run([tool, "--version"], f"asking {tool} for its version").partition("\n")[0]
        for tool in (CROSS_COMPILER, EMULATOR)
    }


def build(
    target: Target, sources: Sequence[Path], include: Path, image: Path, stack_bytes: int
) -> None:
    """Compile C files beside ``image`` and link them; raises InputError with the first error."""
    objects = [image.parent / f"{source.stem}.o" for source in sources]
    for source, compiled in zip(sources, objects, strict=True):
        compiled.write_bytes(_compiled(target, source, include))
    _run(
        [CROSS_COMPILER, *target.flags, "-nostartfiles", "-nodefaultlibs", "-Wl,--gc-sections",
         f"-Wl,--defsym=STACK_BYTES={stack_bytes}", f"-L{FIRMWARE}",
         f"-T{FIRMWARE / target.core.name}.ld", *map(str, objects), "-lc", "-lgcc",
         "-o", str(image)],
        f"linking {image.name} for {target.core.name}",
    )  # fmt: skip


_objects: dict[str, bytes] = {}  # by what decides them; arm_mve.h alone takes seconds to read


def _compiled(target: Target, source: Path, include: Path) -> bytes:
    """The object file of a source, made once in a process."""
    command = [CROSS_COMPILER, *target.flags, *OPTIMISATION, *_LANGUAGE, "-Wall"]
    key = runs.digest([command, _texts(source, include)])
    if key not in _objects:
        with tempfile.TemporaryDirectory() as folder:
            compiled = Path(folder) / f"{source.stem}.o"
            _run([*command, f"-I{include}", "-c", str(source), "-o", str(compiled)],
                 f"{source.name} for {target.core.name}")  # fmt: skip
            _objects[key] = compiled.read_bytes()
    return _objects[key]


def _texts(source: Path, include: Path) -> dict[str, str]:
    """A source and all that it includes by name, from beside it or from ``include``."""
    found, wanted = {}, [source]
    while wanted:
        path = wanted.pop()
        found[path.name] = text = path.read_text(encoding="utf-8")
        names = re.findall(r'^ *#include "(.+)"', text, re.MULTILINE)
        homes = [path.parent / name for name in names if name not in found]
        wanted += [home if home.is_file() else include / home.name for home in homes]
    return found


def build_plugin(folder: Path) -> Path:
    """The counting plugin, compiled for this machine."""
    plugin = folder / "count.so"
    plugin.write_bytes(_plugin())
    return plugin


@functools.cache
def _plugin() -> bytes:
    found = re.search(r"version (\d+)", versions()[EMULATOR])
    interface = 1 if found is None or int(found[1]) < 9 else 2
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder) / "count.so"
        _run(
            [str(_host_compiler()), "-O2", "-shared", "-fPIC", "-fvisibility=hidden",
             f"-DPLUGIN_INTERFACE={interface}", str(FIRMWARE / "count.c"), "-o", str(plugin)],
            "the counting plugin of the emulator",
        )  # fmt: skip
        return plugin.read_bytes()


def emulate(target: Target, image: Path, plugin: Path, mark_address: int, counts: Path) -> None:
    """Run an image until it leaves by itself, in its own folder; raises InputError if it fails."""
    _run(
        [EMULATOR, "-M", target.machine, "-display", "none", "-monitor", "none",
         "-serial", "none", "-semihosting-config", "enable=on,target=native",
         "-kernel", str(image), "-plugin", f"{plugin},mark={mark_address:#x},counts={counts}"],
        f"{image.name} in the emulator ({target.machine})",
        folder=image.parent,
    )  # fmt: skip


def _has_library() -> bool:
    """gcc answers with a path where it has the file, else with the bare name."""
    told = _run([CROSS_COMPILER, "-print-file-name=libc.a"], "looking for newlib")
    return Path(told.strip()).is_absolute()


def _host_compiler() -> str | None:
    return next((path for name in _HOST_COMPILERS if (path := shutil.which(name))), None)


def _run(command: list[str], what: str, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise InputError(f"{command[0]} is not installed; {_HINT}") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{what}: not done after {_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
        raise InputError(f"{what}: failed with code {done.returncode}: {told}")
    return done.stdout
