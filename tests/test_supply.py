"""The lock and the page of licences against pyproject.toml and one another; the audit."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8")
LOCKED = dict(re.findall(r"^(\S+)==(\S+) \\$", LOCK, flags=re.MULTILINE))


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit, licences = script("audit"), script("licences")


def direct(entries: list[str]) -> list[Requirement]:
    """With what an extra of the project's own stands for."""
    found = []
    for requirement in map(Requirement, entries):
        if requirement.name == PROJECT["name"]:
            found += [r for extra in sorted(requirement.extras) for r in direct(EXTRAS[extra])]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize(
    "requirement", direct([*PROJECT["dependencies"], *EXTRAS["test"]]), ids=lambda r: r.name
)
def test_the_lock_keeps_the_bounds(requirement):
    version = LOCKED.get(canonicalize_name(requirement.name))
    assert version is not None, "not locked: make lock"
    assert requirement.specifier.contains(version), "locked outside the bounds: make lock"


def test_every_locked_file_has_a_hash():
    head, *entries = re.split(r"^(?=[^\s#])", LOCK, flags=re.MULTILINE)
    assert re.match(r"# Python 3\.\d+, \w+ \w+\.\n", head)
    hashes = r"( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+" + hashes, entry), entry
    names = [entry.partition("==")[0] for entry in entries]
    assert len(names) == len(LOCKED) and names == sorted(names)


def rows_of_the_page() -> dict[str, tuple[str, str, str]]:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.*) \| (.*) \|$", text, flags=re.MULTILINE)
    return {name: (version, licence, need) for name, version, licence, need in rows
            if name not in ("package", "---")}  # fmt: skip


def test_every_locked_package_is_on_the_page_and_allowed():
    rows = rows_of_the_page()
    assert {name: row[0] for name, row in rows.items()} == LOCKED, "make licences LOCKED=1"
    faults = [fault for name, row in rows.items() if (fault := licences.refused(name, row[1]))]
    assert not faults
    assert set(licences.EXCEPTIONS) <= set(rows), "an exception that nothing needs any more"
    for requirement in direct(PROJECT["dependencies"]):
        assert rows[canonicalize_name(requirement.name)][2] == licences.RUN_TIME
    # What the page says of itself holds for what is installed here, where the version is the same.
    same = [name for name, row in rows.items() if licences.installed(name) == row[0]]
    assert len(same) > len(rows) // 2
    assert {name: licences.licence_of(name) for name in same} == {n: rows[n][1] for n in same}


@pytest.mark.parametrize(
    ("licence", "fine"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND Apache-2.0 WITH LLVM-exception", True),
        ("", False),
        ("Proprietary", False),
    ],
)
def test_what_a_licence_has_to_be(licence, fine):
    assert (licences.refused("somebody", licence) == "") is fine


def test_an_exception_holds_for_its_licence_alone():
    assert licences.refused("tqdm", "MPL-2.0 AND MIT") == ""
    assert "tqdm is under GPL-3.0-only" in licences.refused("tqdm", "GPL-3.0-only")
    assert licences.refused("somebody", "MPL-2.0 AND MIT")


def osv(name: str, *events: dict[str, str], versions: tuple[str, ...] = (), **more: str) -> dict:
    package = {"ecosystem": "PyPI", "name": name}
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
    return {"id": "PYSEC-1", **more,
            "affected": [{"package": package, "ranges": ranges, "versions": versions}]}  # fmt: skip


FROM_0 = {"introduced": "0"}


@pytest.mark.parametrize(
    ("record", "hit"),
    [
        (osv("NumPy", FROM_0), True),
        (osv("other", FROM_0), False),
        (osv("numpy", FROM_0, {"fixed": "2.4.6"}), False),
        (osv("numpy", FROM_0, {"fixed": "2.4.7"}), True),
        (osv("numpy", FROM_0, {"fixed": "2.4.10"}), True),
        (osv("numpy", FROM_0, {"last_affected": "2.4.6"}), True),
        (osv("numpy", FROM_0, {"last_affected": "2.4.5"}), False),
        (osv("numpy", {"introduced": "2.4.7"}), False),
        (osv("numpy", FROM_0, {"fixed": "1"}, {"introduced": "2.4"}, {"fixed": "2.5"}), True),
        (osv("numpy", {"fixed": "2.4"}, FROM_0), False),
        (osv("numpy", versions=("2.4.5", "2.4.6")), True),
        (osv("numpy", versions=("2.4.5",)), False),
        (osv("numpy", FROM_0, withdrawn="2026-01-01T00:00:00Z"), False),
    ],
)
def test_an_advisory_concerns_its_versions_alone(record, hit):
    assert bool(audit.hits([record], {"numpy": "2.4.6"})) is hit


def test_audit_of_a_file(tmp_path, capsys):
    file = tmp_path / "osv.json"
    file.write_text(json.dumps([osv("numpy", FROM_0, summary="a hole"), osv("other", FROM_0)]))
    assert audit.from_file(file) == audit.FOUND
    assert f"numpy {LOCKED['numpy']}: PYSEC-1 a hole\n1 known in" in capsys.readouterr().out
    file.write_text(json.dumps(osv("other", FROM_0)))
    assert audit.from_file(file) == 0
    for text in ("", "[]", "{}", '["x"]', "3", '{"id": "x", "affected": 3}'):
        file.write_text(text)
        assert audit.from_file(file) == audit.UNREADABLE, text
        assert "not a file of OSV records" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("", 3),
        ({"dependencies": []}, 3),
        ({"dependencies": [{"name": n, "version": v, "vulns": []} for n, v in LOCKED.items()]}, 0),
        ({"dependencies": [{"name": n, "version": v, "vulns": [{"id": "P", "fix_versions": []}]}
                           for n, v in LOCKED.items()]}, 1),
        ({"dependencies": [{"name": n, "skip_reason": "unknown"} for n in LOCKED]}, 3),
        ({"dependencies": [{"name": "numpy", "vulns": []}]}, 3),
        ({"dependencies": [{"name": "numpy", "version": "1", "vulns": [
            {"id": "P", "fix_versions": ["2"]}]}]}, 1),
    ],
)  # fmt: skip
def test_audit_by_the_service_says_what_it_did_not_check(answer, code, monkeypatch, capsys):
    def pip_audit(command, **_):
        if answer:
            Path(command[-1]).write_text(json.dumps(answer), encoding="utf-8")
        return subprocess.CompletedProcess(command, 1, "", "no connection")

    monkeypatch.setattr(audit.subprocess, "run", pip_audit)
    assert audit.from_service() == code
    complete = answer and len(answer["dependencies"]) == len(LOCKED) and code != 3
    assert ("CHECKED: " in capsys.readouterr().err) is not bool(complete)


@pytest.mark.parametrize(
    ("said", "code", "word"),
    [
        ("", 0, "every file by its hash"),
        ("ERROR: No matching distribution found for torch==2.13.0", 0, "WITHOUT hashes"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", 1, "error: "),
        ("ERROR: Could not install: No space left on device", 1, "error: "),
    ],
)
def test_the_lock_gives_way_to_a_smaller_index_but_not_to_other_files(said, code, word, tmp_path):
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
[ "$2" != pip ] && exec "{sys.executable}" "$@"
echo "{said}" >&2; [ -z "{said}" ]
"""
    )
    python.chmod(0o755)
    lock = tmp_path / "lock"
    lock.write_text(f"# {script('lock').target()}.\n")
    command = [str(ROOT / ".ci" / "install_locked"), str(python), str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code and word in done.stdout + done.stderr
    lock.write_text("# Python 2.7, plan9 vax.\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "pyproject.toml's bounds hold instead" in done.stdout
