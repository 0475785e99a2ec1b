"""What a run recorded, found again from its files and its data.

    manifest.json  artefact hashes, data hash, split, parent and teachers  -> hashed again
    metrics.json   counts and bytes   -> read off the artefact
                   accuracy, recalls, confusion, loss, decisions -> compress.recomputing
                   agreement, differences -> from the network in torch, or from the parent's file

Counts have to be equal. Measured shares and losses have to agree to ``TOLERANCE``: another
processor may round a logit in another way, but one clip decided otherwise is far more than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress import artefacts, checkpoint, evaluate, measure, metrics, runs
from compress.config import VerifyConfig
from compress.data.sets import SpectrogramSet, check_content
from compress.data.splits import Split
from compress.errors import InputError
from compress.onnx_export import Deployed
from compress.parents import recorded_data
from compress.recomputing import Unavailable, recipe_of
from compress.runs import Run
from compress.session import DECISIONS

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Difference:
    """One figure or file that is not what was recorded; None: not there."""

    what: str
    recorded: Any
    found: Any


@dataclass(frozen=True)
class Verdict:
    """What was found about one run. ``checked`` counts the hashes and figures compared."""

    folder: Path
    checked: int = 0
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()  # what could not be recomputed here, and why
    error: str = ""  # why the run cannot be verified at all


class Findings:
    """Recorded against found, counted."""

    def __init__(self) -> None:
        self.checked = 0
        self.differences: list[Difference] = []
        self.notes: list[str] = []

    def compare(self, what: str, recorded: Any, found: Any) -> None:
        """Compare all that ``found`` holds; numbers that were measured within the tolerance."""
        if isinstance(found, Mapping):
            table = recorded if isinstance(recorded, Mapping) else {}
            for key, value in found.items():
                self.compare(f"{what}.{key}" if what else str(key), table.get(key), value)
            return
        self.checked += 1
        if not _same(recorded, found):
            self.differences.append(Difference(what, recorded, found))


    def include(self, what: str, verdict: Verdict) -> None:
        """Take over what was found about a part."""
        self.checked += verdict.checked
        self.differences += [
            Difference(f"{what} {d.what}", d.recorded, d.found) for d in verdict.differences
        ]
        self.notes += [f"{what} {note}" for note in verdict.notes]

    def verdict(self, folder: Path) -> Verdict:
        return Verdict(folder, self.checked, tuple(self.differences), tuple(self.notes))


def _same(recorded: Any, found: Any) -> bool:
    numbers = [v for v in (recorded, found) if isinstance(v, (int, float)) and v is not True]
    if len(numbers) == 2 and isinstance(found, float):
        return math.isclose(recorded, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(recorded == found)


def verify_run(folder: Path, config: VerifyConfig) -> Verdict:
    """Everything recomputed; raises InputError where the run or its data cannot be read."""
    run = runs.open_run(folder)
    run.check_complete()
    findings = Findings()
    _compare_hashes(run, findings)
    figures = run.metrics()
    artefact = _artefact(run, figures)
    findings.compare("metrics.sha256", figures.get("sha256"), artefacts.sha256_of(artefact))
    _compare_counts(run, artefact, figures, findings)
    _compare_relatives(run, findings)
    if config.files_only:
        findings.notes.append("data, split and accuracy, as --files-only asks")
    else:
        _compare_accuracy(run, artefact, figures, config, findings)
    return findings.verdict(folder)


def _artefact(run: Run, figures: Mapping[str, Any]) -> Path:
    name = figures.get("artifact")
    if not isinstance(name, str) or not runs.inside(run.folder, name):
        raise InputError(f"{run.folder}/{runs.METRICS}: names no file of this run folder")
    return run.file(name)


def _compare_hashes(run: Run, findings: Findings) -> None:
    recorded = run.manifest.get("artefacts")
    if not isinstance(recorded, dict) or not recorded:
        raise InputError(f"{run.folder}/{runs.MANIFEST}: records no artefacts; it is damaged")
    for name, expected in recorded.items():
        path = run.folder / name
        there = runs.inside(run.folder, name) and path.is_file()
        findings.compare(f"{name} sha256", expected, runs.sha256_file(path) if there else None)


def _compare_counts(
    run: Run, artefact: Path, figures: Mapping[str, Any], findings: Findings
) -> None:
    """Parameters, MACs, bytes and activations, from the artefact and from the stored network."""
    recipe = recipe_of(run, artefact, figures)
    if recipe is None:
        findings.notes.append(f"all of {artefact.name}: nothing here reads such files")
        return
    counts = recipe.count(run, artefact)
    findings.compare("metrics", figures, counts.figures)
    findings.notes.extend(counts.notes)
    if "params" in counts.figures:
        return
    of = _network_run(run)
    if of is None:
        findings.notes.append("params as trained: the run that this was made of is not there")
        return
    network, _ = checkpoint.load(of)
    findings.compare("metrics.params", figures.get("params"), measure.count_params(network))


def _network_run(run: Run) -> Run | None:
    """The run that holds the trained network: this one, or the nearest ancestor that is there."""
    at, seen = run, set()
    while not (at.folder / runs.WEIGHTS).is_file():
        parent = at.manifest.get("parent")
        folder = parent.get("folder") if isinstance(parent, dict) else None
        if not isinstance(folder, str) or folder in seen or not Path(folder).is_dir():
            return None
        seen.add(folder)
        at = runs.open_run(Path(folder))
    return at


def _compare_relatives(run: Run, findings: Findings) -> None:
    """Parent, teachers and members: still there, and with the weights that the run recorded."""
    relatives = [("parent", run.manifest.get("parent"))]
    for role in ("teacher", "member"):
        listed = run.manifest.get(f"{role}s")
        relatives += [(role, entry) for entry in (listed if isinstance(listed, list) else [])]
    for role, entry in relatives:
        if not isinstance(entry, dict):
            continue
        folder = entry.get("folder")
        if not isinstance(folder, str) or not (Path(folder) / runs.MANIFEST).is_file():
            findings.notes.append(f"{role} {entry.get('name')!r}: not there any more ({folder})")
            continue
        found = runs.open_run(Path(folder)).model_hash()
        findings.compare(f"{role} {entry.get('name')} weights", entry.get("weights_sha256"), found)


def _compare_accuracy(
    run: Run,
    artefact: Path,
    figures: Mapping[str, Any],
    config: VerifyConfig,
    findings: Findings,
) -> None:
    data = recorded_data(run, config)
    findings.compare("data content", run.manifest["data"].get("content_hash"), check_content(data))
    split = Split.from_json(runs.read_json(run.file(runs.SPLIT)))
    sides = {side: getattr(split, side) for side in evaluate.SIDES}
    if any(len(windows) == 0 or windows.max() >= len(data) for windows in sides.values()):
        raise InputError(f"{run.folder}/{runs.SPLIT}: names windows that the data does not have")
    settings = run.manifest.get("settings")
    if isinstance(settings, dict) and "split" in settings:
        findings.compare("split", settings["split"], split.digest())
    recipe = recipe_of(run, artefact, figures)
    if recipe is None:
        return
    try:
        answers = recipe.answer(run, artefact, data, split, config)
    except Unavailable as error:
        findings.notes.append(str(error))
        return
    logits = answers.logits
    if logits["test"].shape[1:] != (len(data.class_names),):
        raise InputError(f"{artefact}: does not decide the classes of its data")
    decisions = {side: evaluate.decisions_of(logits[side], data, sides[side]) for side in sides}
    findings.compare("", figures, answers.figures)
    findings.notes.extend(answers.notes)
    recorded = figures.get("splits")
    found = {side: metrics.summarise(decisions[side], data.class_names) for side in sides}
    findings.compare("splits", recorded, found)
    if (run.folder / DECISIONS).is_file():
        _compare_decisions(evaluate.load_decisions(run.folder / DECISIONS), decisions, findings)
    _compare_agreement(
        run, artefact, figures, logits["test"], decisions["test"], data, split, findings
    )


def _compare_decisions(
    recorded: metrics.Decisions, found: Mapping[str, metrics.Decisions], findings: Findings
) -> None:
    """test_decisions.npz, clip by clip."""
    test = found["test"]
    same_clips = np.array_equal(recorded.clip_ids, test.clip_ids)
    findings.compare(f"{DECISIONS} clips", len(recorded.clip_ids), len(test.clip_ids))
    if not same_clips or recorded.probabilities.shape != test.probabilities.shape:
        findings.compare(f"{DECISIONS} clips are those of the split", same_clips, True)
        return
    findings.compare(f"{DECISIONS} labels", bool((recorded.labels == test.labels).all()), True)
    largest = float(np.abs(recorded.probabilities - test.probabilities).max())
    findings.compare(f"{DECISIONS} largest difference of a probability", 0.0, largest)


def _compare_agreement(
    run: Run,
    artefact: Path,
    figures: Mapping[str, Any],
    logits: np.ndarray,
    decisions: metrics.Decisions,
    data: SpectrogramSet,
    split: Split,
    findings: Findings,
) -> None:
    """Agreement with the network in torch, or of an int8 file with the float file of its parent."""
    if (run.folder / runs.WEIGHTS).is_file():
        other = _logits_in_torch(run, data, split.test)
    elif "agreement" in figures or "differences" in figures:
        parent = run.manifest.get("parent")
        folder = parent.get("folder") if isinstance(parent, dict) else None
        file = Path(str(folder)) / runs.ONNX
        if folder is None or not file.is_file():
            findings.notes.append("agreement with the file it was made of: not there any more")
            return
        other = evaluate.logits_of(evaluate.onnx_predictor(file), data, split.test)
        base = evaluate.decisions_of(other, data, split.test)
        difference = asdict(metrics.paired_difference(decisions, base))
        recorded = figures.get("differences")
        if isinstance(recorded, dict) and "test" in recorded:
            findings.compare("differences.test", recorded["test"], difference)
    else:
        return
    if "agreement" in figures and artefact.suffix != ".tflite":  # that is compared code by code
        found = evaluate.agreement(logits, other)
        del found["largest_logit_difference"]  # float noise, which is the machine's
        findings.compare("agreement", figures["agreement"], found)


def _logits_in_torch(run: Run, data: SpectrogramSet, windows: np.ndarray) -> np.ndarray:
    import torch

    network = Deployed(*checkpoint.load(run)).eval()

    @torch.inference_mode()
    def predict(decibels: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(decibels)).numpy()

    return evaluate.logits_of(predict, data, windows)
