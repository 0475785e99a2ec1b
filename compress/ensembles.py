"""Several networks as one: its logits from theirs, its file from their weights.

    log_mel_db -> normalisation -> member 1 ... member n -> logits of each (B, classes)
                                -> mean of probabilities, or of logits -> logits (B, classes)
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress import checkpoint, cli, evaluate, onnx_export, runs
from compress.data.sets import SpectrogramSet
from compress.data.splits import Split
from compress.errors import InputError
from compress.runs import Run, RunWriter

FAMILY = "ensemble"
PROBABILITIES, LOGITS = "probabilities", "logits"
COMBINATIONS = (PROBABILITIES, LOGITS)


class Ensemble(nn.Module):
    """(B, 1, mels, frames) -> (B, classes) of all members.

    combine: "probabilities" gives log(mean_m softmax(logits_m)), whose softmax is the mean of the
    members' probabilities; "logits" gives the mean of their logits, the normalised geometric mean
    of the probabilities. described: family, name and arguments of each member, to rebuild it.
    """

    def __init__(
        self, members: Sequence[nn.Module], combine: str, described: Sequence[Mapping[str, Any]]
    ) -> None:
        super().__init__()
        if combine not in COMBINATIONS or len(members) < 2:
            raise ValueError(f"an ensemble is of two or more, by one of {', '.join(COMBINATIONS)}")
        self.members = nn.ModuleList(members)
        self.combine = combine
        self.arguments = {"combine": combine, "members": [dict(one) for one in described]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.stack([member(x) for member in self.members])  # (members, B, classes)
        if self.combine == LOGITS:
            return logits.mean(0)
        return torch.logsumexp(logits.log_softmax(-1), 0) - math.log(len(self.members))


def rebuild(arguments: Mapping[str, Any]) -> Ensemble:
    """An ensemble of the recorded structure; raises InputError for anything else."""
    try:
        described = list(arguments["members"])
        members = [checkpoint.build(m["family"], m["name"], m["arguments"]) for m in described]
        return Ensemble(members, arguments["combine"], described)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"model.json: no ensemble can be made of it ({error})") from None


def check_members(members: Sequence[Run]) -> None:
    """Raise InputError where members do not decide the same classes of the same split."""
    if len(members) < 2:
        raise InputError("an ensemble is of two or more: give --member RUN several times, or "
                         "--student NAME --seeds 3")  # fmt: skip
    first = members[0]
    for run in members:
        run.check_unchanged()
        run.file(runs.WEIGHTS)
        if run.class_names != first.class_names:
            raise InputError(f"{run.folder}: decides other classes than {first.folder}")
        if run.manifest["data"].get("content_hash") != first.manifest["data"].get("content_hash"):
            raise InputError(f"{run.folder}: was trained on other data than {first.folder}")
        theirs, ours = (r.manifest.get("settings", {}).get("split") for r in (run, first))
        if theirs != ours and _split(run).digest() != _split(first).digest():
            raise InputError(
                f"{run.folder}: was trained on another split than {first.folder}, so one may have "
                "seen the test clips of the other; take runs of one --fold and --data-seed"
            )
    hashes = [run.model_hash() for run in members]
    if len(set(hashes)) < len(hashes):
        raise InputError("a member is given twice; an ensemble is of different networks")


def _split(run: Run) -> Split:
    return Split.from_json(runs.read_json(run.file(runs.SPLIT)))


def combine(members: Sequence[Run], how: str) -> tuple[Ensemble, Any]:
    """(ensemble in eval mode, the members' normalisation); raises InputError where it differs."""
    networks, described, common = [], [], None
    for run in members:
        network, normalisation = checkpoint.load(run)
        common = common or normalisation
        if common.to_dict() != normalisation.to_dict():
            raise InputError(
                f"{run.folder}: was trained with another normalisation than {members[0].folder}"
            )
        networks.append(network)
        described.append(runs.read_json(run.file(runs.MODEL)))
    return Ensemble(networks, how, described).eval(), common


def ensemble_run(
    members: Sequence[Run],
    how: str,
    data: SpectrogramSet,
    root: Path,
    out: Path | None = None,
    force: bool = False,
) -> Run:
    """The run of an ensemble: one file, measured as such. A finished one is returned as it is."""
    from compress.session import DECISIONS, data_name, measure_file

    check_members(members)
    first = members[0]
    split = _split(first)
    names = list(dict.fromkeys(run.name for run in members))
    if len(names) == 1:
        name = f"{len(members)}x {names[0]}"
    else:
        name = " + ".join(names) if len(members) < 4 else f"{len(members)} networks"
    settings = {
        "stage": "ensemble",
        "combine": how,
        "members": [run.model_hash() for run in members],
        "data": data.content_hash,
        "split": split.digest(),
    }
    key = runs.digest(settings)
    seed = first.manifest.get("seed")
    folder = out or root / "-".join(
        [runs.slug(name), "ensemble", data_name(data, split), f"s{seed}", key[:6]]
    )
    manifest = {
        "name": name,
        "stage": "ensemble",
        "model": name,
        "key": key,
        "settings": settings,
        "seed": seed,
        "fold": split.fold,
        "folds": split.folds,
        "data": data.describe(),
        "parent": None,
        "teachers": [],
        "members": [run.reference() for run in members],
    }
    writer = RunWriter(folder, manifest)
    with writer.locked():
        if writer.begin(force):
            cli.say(f"ensemble  {name}: finished before, {folder}")
            return runs.open_run(folder)
        started = time.monotonic()
        model, normalisation = combine(members, how)
        checkpoint.save(folder, FAMILY, name, model, normalisation)
        runs.write_json(folder / runs.SPLIT, split.to_json())
        file = folder / runs.ONNX
        onnx_export.to_onnx(model, normalisation, data.mels, data.frames, file)
        measured, decisions = measure_file(file, data, split, model, normalisation)
        evaluate.save_decisions(folder / DECISIONS, decisions)
        measured["ensemble"] = {
            "combine": how,
            "members": [
                {**run.reference(), "params": found.get("params"),
                 "file_params": found.get("file_params"), "test": found["splits"]["test"]}
                for run, found in ((run, run.metrics()) for run in members)
            ],
        }  # fmt: skip
        runs.write_json(folder / runs.METRICS, measured)
        writer.finish(
            [runs.MODEL, runs.WEIGHTS, runs.ONNX, runs.SPLIT, runs.METRICS, DECISIONS],
            seconds=round(time.monotonic() - started, 3),
        )
    return runs.open_run(folder)
