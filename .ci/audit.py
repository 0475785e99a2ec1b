"""Known holes in the locked versions.

    python .ci/audit.py                      ask the advisory service, by pip-audit
    python .ci/audit.py --advisories FILE    a file of OSV records instead, without a network

FILE is JSON: one record of the OSV schema, or a list of them, as osv.dev and the advisory database
of the Python Packaging Authority publish them.

Exit code 0: nothing known; 1: something is; 2: the file cannot be read; 3: nothing was
checked, or not all, which it says.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCK = Path(__file__).resolve().parent / "requirements.lock"
FOUND, UNREADABLE, UNCHECKED = 1, 2, 3


def locked() -> dict[str, str]:
    text = LOCK.read_text(encoding="utf-8")
    return dict(re.findall(r"^(\S+)==(\S+)", text, flags=re.MULTILINE))


def within(version: Version, events: list[dict[str, str]]) -> bool:
    """OSV's evaluation of a range: sorted events switch it on and off."""
    order = {"introduced": 0, "fixed": 1, "last_affected": 2}
    steps = [
        (Version("0.dev0" if text == "0" else text), order[kind], kind)
        for event in events
        for kind, text in event.items()
        if kind in order
    ]
    inside = False
    for at, _, kind in sorted(steps):
        if kind == "introduced" and version >= at:
            inside = True
        elif kind == "fixed" and version >= at or kind == "last_affected" and version > at:
            inside = False
    return inside


def hits(records: list[dict[str, Any]], packages: dict[str, str]) -> list[str]:
    """One line for each record that concerns a package at its version."""
    found = []
    for record in records:
        if record.get("withdrawn"):
            continue
        for affected in record.get("affected", ()):
            package = affected.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            if package.get("ecosystem") != "PyPI" or name not in packages:
                continue
            version = Version(packages[name])
            ranges = [r for r in affected.get("ranges", ()) if r["type"] == "ECOSYSTEM"]
            listed = [Version(text) for text in affected.get("versions", ())]
            if version in listed or any(within(version, r["events"]) for r in ranges):
                summary = record.get("summary") or record.get("details", "").partition("\n")[0]
                found.append(f"{name} {version}: {record['id']} {summary}".rstrip())
    return sorted(set(found))


def from_file(path: Path) -> int:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        records = given if isinstance(given, list) else [given]
        if not records or not all(record["id"] for record in records):
            raise ValueError("no record in it")
        found = hits(records, locked())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidVersion) as error:
        print(f"error: {path}: not a file of OSV records ({type(error).__name__}: {error})",
              file=sys.stderr)  # fmt: skip
        return UNREADABLE
    return tell(found, len(locked()), f"{len(records)} records of {path}")


def from_service() -> int:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "audit.json"
        command = ["-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes",
                   "--disable-pip", "--progress-spinner", "off", "--timeout", "15",
                   "--format", "json", "--output", str(answer)]  # fmt: skip
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        # Its exit code is 1 for a hole as for a service that does not answer.
        if not answer.is_file() or not answer.read_text(encoding="utf-8").strip():
            last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            missing = "No module named pip_audit" in done.stderr
            advice = "pip install '.[audit]'" if missing else "or give --advisories FILE"
            print(f"NOTHING WAS CHECKED: {last}; {advice}", file=sys.stderr)
            return UNCHECKED
        packages = json.loads(answer.read_text(encoding="utf-8"))["dependencies"]
    # An index that is a mirror may know the packages without their advisories.
    checked = {canonicalize_name(p["name"]): p for p in packages if "skip_reason" not in p}
    unchecked = sorted(set(locked()) - set(checked))
    if not checked:
        reasons = [package["skip_reason"] for package in packages] or ["an empty answer"]
        print(f"NOTHING WAS CHECKED: {reasons[0]}; or give --advisories FILE", file=sys.stderr)
        return UNCHECKED
    found = [
        f"{package['name']} {package['version']}: {hole['id']}, "
        f"fixed in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for package in checked.values()
        for hole in package["vulns"]
    ]
    code = tell(found, len(checked), "the advisory service")
    if unchecked:
        print(f"NOT CHECKED: {', '.join(unchecked)}", file=sys.stderr)
    return code or (UNCHECKED if unchecked else 0)


def tell(found: list[str], checked: int, source: str) -> int:
    for line in found:
        print(line)
    print(f"{len(found)} known in {checked} of {len(locked())} locked packages, by {source}")
    return FOUND if found else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--advisories", type=Path, metavar="FILE", help="JSON of OSV records")
    given = parser.parse_args()
    sys.exit(from_file(given.advisories) if given.advisories else from_service())
