"""What a group of runs recorded, found again: cross-validations, sweeps and pipelines.

    crossval.json   every fold verified as the run that it is; means, spreads, confusion from these
    sweep.json      trials, best and importances from the journal; best.toml from the best
    pipeline.json   the hash of every stage's artefact
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compress import artefacts, runs
from compress.config import VerifyConfig
from compress.errors import InputError
from compress.verification import Difference, Findings, Verdict, verify_run

CROSSVAL, SWEEP, PIPELINE = "crossval.json", "sweep.json", "pipeline.json"


def find_groups(root: Path) -> list[Path]:
    """Folders below ``root`` that hold the summary of a group, sorted."""
    if not root.is_dir():
        return []
    return sorted({path.parent for name in _KINDS for path in root.rglob(name)})


def verify_folder(folder: Path, config: VerifyConfig) -> Verdict:
    """A run folder or the folder of a group; raises InputError where it cannot be read."""
    if not (folder / runs.MANIFEST).is_file():
        for name, verify in _KINDS.items():
            if (folder / name).is_file():
                findings = Findings()
                verify(folder, runs.read_json(folder / name), config, findings)
                return findings.verdict(folder)
    return verify_run(folder, config)


def _entries(folder: Path, name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{folder}/{name}: is damaged; run the command that made it again")
    return value


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _verify_crossval(
    folder: Path, recorded: Mapping[str, Any], config: VerifyConfig, findings: Findings
) -> None:
    from compress import fold_summary
    from reports import crossval as shown

    found: dict[int, runs.Run] = {}
    for entry in _entries(folder, CROSSVAL, recorded.get("folds")):
        number, place = entry.get("fold"), entry.get("run")
        if not isinstance(number, int) or not isinstance(place, str):
            raise InputError(f"{folder}/{CROSSVAL}: is damaged; give the command again")
        at = Path(os.path.normpath(folder / place))
        findings.include(f"fold {number}", verify_run(at, config))
        found[number] = runs.open_run(at)
    if not found:
        raise InputError(f"{folder}/{CROSSVAL}: lists no folds; give the command again")
    try:
        summary = _as_json(fold_summary.summarise(found, folder))
    except (InputError, KeyError, TypeError) as error:
        findings.differences.append(Difference(CROSSVAL, "figures of its folds", str(error)))
        return
    for then, now in zip(recorded["folds"], summary.pop("folds"), strict=True):
        findings.compare(f"fold {now['fold']}", then, now)
    findings.compare("", recorded, summary)
    page = folder / "crossval.md"
    if page.is_file():
        text = shown.markdown(dict(recorded))
        same = page.read_text(encoding="utf-8", errors="replace") == text
        findings.compare("crossval.md says what crossval.json holds", True, same)


def _verify_sweep(
    folder: Path, recorded: Mapping[str, Any], config: VerifyConfig, findings: Findings
) -> None:
    from compress import recipe, study

    study.check_installed()
    identity = runs.read_json(folder / study.IDENTITY)
    seed = recorded.get("seed")
    if not isinstance(seed, int):
        raise InputError(f"{folder}/{SWEEP}: is damaged; give the command again")
    journal = study.Study.recorded(folder, seed)
    rows = _as_json(study.rows_of(journal))
    then = {row.get("number"): row for row in _entries(folder, SWEEP, recorded.get("trials"))}
    findings.compare("trials", len(then), len(rows))
    for row in rows:
        findings.compare(f"trial {row['number']}", then.get(row["number"]), row)
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        raise InputError(f"{folder}/{study.JOURNAL}: no trial ended; give the command again")
    best = min(complete, key=lambda row: (row["validation_loss"], row["number"]))
    findings.compare("best", recorded.get("best"), best)
    findings.compare("importances", recorded.get("importances"), journal.importances())
    for key in ("student", "data", "space"):
        findings.compare(key, recorded.get(key), identity.get(key))
    findings.compare("seed", identity.get("seed"), seed)
    file = folder / "best.toml"
    made = _as_json(recipe.load(str(file)).to_settings()) if file.is_file() else {}
    wanted = identity.get("recipe")
    wanted = (wanted if isinstance(wanted, dict) else {}) | best["values"]
    other = recipe.unused_by(str(wanted.get("schedule")))
    for key, value in wanted.items():
        if key not in other:
            findings.compare(f"best.toml {key}", value, made.get(key))
    findings.notes.append(
        "losses of the trials, which training gives: python -m compress.train --student "
        f"{recorded.get('student')} --recipe {file} trains the best one again"
    )


def _verify_pipeline(
    folder: Path, recorded: Mapping[str, Any], config: VerifyConfig, findings: Findings
) -> None:
    for entry in _entries(folder, PIPELINE, recorded.get("stages")):
        if entry.get("sha256") is None:
            continue  # a stage that leaves no artefact of its own
        at = Path(str(entry.get("folder")))
        what = f"{entry.get('stage')} {at.name} sha256"
        if not (at / runs.MANIFEST).is_file():
            findings.compare(what, entry["sha256"], None)
            continue
        run = runs.open_run(at)
        name = str(run.metrics().get("artifact"))
        there = runs.inside(at, name) and (at / name).is_file()
        found = artefacts.sha256_of(at / name) if there else None
        findings.compare(what, entry["sha256"], found)


_KINDS: dict[str, Callable[[Path, Mapping[str, Any], VerifyConfig, Findings], None]] = {
    CROSSVAL: _verify_crossval,
    SWEEP: _verify_sweep,
    PIPELINE: _verify_pipeline,
}
