"""Write .ci/requirements.lock: what `.[test]` resolves to on this machine, every file by its hash.

    python .ci/lock.py                  write it
    python .ci/lock.py --applies LOCK   exit 1, and say so, on another Python or platform

pip resolves; nothing is installed. The hash is that of the file for this Python and platform (the
head of the lock names them). A machine's pip may prefer files of its own, as a CPU build of torch
(2.13.0+cpu): the index's file of the same version is then allowed beside it, so that the lock holds
on both kinds of machine. What only torch's CUDA build needs is left out: it comes by torch's own
exact pins where that build is taken.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / ".ci" / "requirements.lock"
CUDA_ONLY = re.compile(r"(nvidia|cuda|triton)\b")

Hashes = dict[tuple[str, str], set[str]]  # (name, version without local label) -> SHA-256


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def target() -> str:
    """Python and platform that the hashes are for, as the head of the lock states them."""
    version = ".".join(platform.python_version_tuple()[:2])
    return f"Python {version}, {sys.platform} {platform.machine()}"


def resolved(requirements: list[str], plain: bool = False) -> Hashes:
    """What pip would install; `plain` leaves the machine's settings of pip aside."""
    environment = dict(os.environ)
    if plain:
        environment.pop("PIP_FIND_LINKS", None)
        environment.pop("PIP_EXTRA_INDEX_URL", None)
        environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed",
                   "--quiet", "--quiet", "--report", str(report)]
        if plain:
            command.append("--no-deps")
        subprocess.run([*command, *requirements], cwd=ROOT, env=environment, check=True)
        entries = json.loads(report.read_text(encoding="utf-8"))["install"]
    found: Hashes = {}
    for entry in entries:
        if "archive_info" not in entry["download_info"]:
            continue  # the project itself
        name = canonical(entry["metadata"]["name"])
        version = entry["metadata"]["version"].partition("+")[0]
        found[name, version] = {entry["download_info"]["archive_info"]["hashes"]["sha256"]}
    return found


def lock_text() -> str:
    found = {k: v for k, v in resolved([".[test]"]).items() if not CUDA_ONLY.match(k[0])}
    for key, hashes in resolved([f"{name}=={v}" for name, v in found], plain=True).items():
        found[key] |= hashes
    lines = [
        f"# {target()}.",
        "# Made by `make lock`; do not edit. `make setup LOCKED=1` installs it by its hashes.",
    ]
    for (name, version), hashes in sorted(found.items()):
        lines.append(f"{name}=={version} \\")
        lines.append(" \\\n".join(f"    --hash=sha256:{value}" for value in sorted(hashes)))
    return "\n".join(lines) + "\n"


def applies(lock: Path) -> bool:
    made_for = lock.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").rstrip(".")
    if made_for == target():
        return True
    print(f"{lock} is for {made_for}, this is {target()}: pyproject.toml's bounds hold instead")
    return False


if __name__ == "__main__":
    if sys.argv[1:2] == ["--applies"]:
        sys.exit(not applies(Path(sys.argv[2])))
    print("resolving, some minutes", flush=True)
    text = lock_text()
    LOCK.write_text(text, encoding="utf-8")
    print(f"{LOCK}: {text.count('==')} packages for {target()}")
