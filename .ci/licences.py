"""Write docs/licences.md: every locked package, its licence, and what needs it.

    make licences        from the metadata of the packages that the lock installed

The licence is what the package states of itself: the expression of its metadata, else its short
licence field, else its classifier. Exit code 1 where one is not allowed, or none is stated; 2 where
the installed packages are not those of the lock.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / ".ci" / "requirements.lock"
PAGE = ROOT / "docs" / "licences.md"
PROJECT = "compress-workbench"
RUN_TIME = "run time"
EXTRAS = ("sweep", "tensorboard", "tflite", "test")  # in the lock, by `.[test]`

# Permissive: they ask for their notice to be kept and for no more.
ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib",
}  # fmt: skip

# Others, one by one: (licence, why it may be used).
EXCEPTIONS = {
    "certifi": ("MPL-2.0", "a list of certificates, used unchanged; nothing made here contains it"),
    "hypothesis": ("MPL-2.0", "tests only, used unchanged"),
    "pathspec": ("MPL-2.0", "tests only (mypy), used unchanged"),
    "soxr": (
        "LGPL-2.1-or-later",
        "resamples while data is read, as a module that can be exchanged; nothing made here "
        "contains it",
    ),
    "tqdm": ("MPL-2.0 AND MIT", "progress bars, used unchanged; nothing made here contains it"),
}

# What metadata says in other words than SPDX.
_FIELDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "MIT License": "MIT",
    "MIT licensed, as found in the LICENSE file": "MIT",
}
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def locked() -> dict[str, str]:
    """Name to version, as the lock has them."""
    text = LOCK.read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, flags=re.MULTILINE))


def installed(name: str) -> str:
    """Version without a local label (2.13.0 of 2.13.0+cpu); 'none' where it is not here."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return "none"


def licence_of(name: str) -> str:
    """SPDX expression of an installed package; '' where it states none that can be read."""
    stated = metadata.metadata(name)
    if expression := stated.get("License-Expression"):
        return expression
    field = (stated.get("License") or "").strip()
    field = _FIELDS.get(field, field)
    if allowed(field) or field in {licence for licence, _ in EXCEPTIONS.values()}:
        return field
    kinds = [c.split("::")[-1].strip() for c in stated.get_all("Classifier") or ()
             if c.startswith("License ::")]  # fmt: skip
    return " AND ".join(sorted({_CLASSIFIERS.get(kind, kind) for kind in kinds}))


def allowed(expression: str) -> bool:
    """One side of an OR is enough, every side of an AND is needed."""
    return any(
        all(term.strip() in ALLOWED for term in side.split(" AND "))
        for side in expression.split(" OR ")
    )


def refused(name: str, licence: str) -> str:
    """What is wrong with a package of this licence; '' if nothing is."""
    if not licence:
        return f"{name} states no licence"
    if allowed(licence) or (name in EXCEPTIONS and EXCEPTIONS[name][0] == licence):
        return ""
    return f"{name} is under {licence}, which is neither allowed nor an exception"


def needed_by(extras: tuple[str, ...]) -> set[str]:
    """Canonical names of what the project needs, with these of its extras and all that follows."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(PROJECT, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found.add(name)
        for text in metadata.requires(name) or ():
            need = Requirement(text)
            if need.marker is not None and not need.marker.evaluate({"extra": extra}):
                continue
            other = canonicalize_name(need.name)
            if other in LOCKED or other == PROJECT:
                waiting += [(other, wanted) for wanted in ("", *need.extras)]
    return found - {PROJECT}


def page() -> str:
    run_time = needed_by(())
    by_extra = {extra: needed_by((extra,)) - run_time for extra in EXTRAS}
    lines = [
        "# Licences",
        "",
        "Made by `make licences` from what the locked packages state of themselves; do not edit.",
        "What is here for an extra, or for the tests, is not needed to run the other commands.",
        "A CUDA build of torch brings NVIDIA's libraries beside it, under NVIDIA's own terms; they",
        "are no part of the lock. *BSD* stands where a package does not say which.",
        "",
        "| package | version | licence | needed for |",
        "| --- | --- | --- | --- |",
    ]
    for name, version in sorted(LOCKED.items()):
        if name in run_time:
            need = RUN_TIME
        else:
            extras = [extra for extra in EXTRAS if name in by_extra[extra]]
            # The test extra includes the others.
            need = ", ".join([extra for extra in extras if extra != "test"] or extras)
        lines.append(f"| {name} | {version} | {licence_of(name)} | {need} |")
    lines += ["", "Not permissive, and why each may be used:", ""]
    lines += [
        f"- {name} ({licence}): {why}." for name, (licence, why) in sorted(EXCEPTIONS.items())
    ]
    return "\n".join(lines) + "\n"


LOCKED = locked()


def main() -> int:
    for name, version in LOCKED.items():
        have = installed(name)
        if have != version:
            print(f"error: {name} {version} is locked, {have} is installed: make setup LOCKED=1",
                  file=sys.stderr)  # fmt: skip
            return 2
    faults = [fault for name in LOCKED if (fault := refused(name, licence_of(name)))]
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(LOCKED)} packages, {len(EXCEPTIONS)} by exception")
    return 0


if __name__ == "__main__":
    sys.exit(main())
