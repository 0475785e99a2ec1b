"""Find a student for a budget: name parameters and MACs, get the file of a student.

Candidates of several families are drawn and scaled to the budget without training, then trained
shortly on a part of the training windows; the better third of each round is trained three times as
long (successive halving, Jamieson and Talwalkar 2016). The figure that counts is the validation
loss, of the finalists its mean over seeds; the test split is not looked at. The same command
continues. The best becomes SEARCH/best.json, which --student of train, distill and others takes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import DistillConfig, SearchConfig
from compress.errors import InputError
from compress.next_command import next_command

if TYPE_CHECKING:
    from compress.candidates import Candidate
    from compress.recipe import Recipe
    from compress.session import Session

BEST = "best.json"
RESULT = "search.json"
_TRIALS = "trials"
_KEEP = 3  # one of so many goes on to the next round


@dataclass(frozen=True)
class Round:
    """candidates: how many are trained; epochs and seeds of each."""

    candidates: int
    epochs: int
    seeds: int


def run(config: SearchConfig) -> int:
    from compress import candidates as drawn
    from compress import recipe as recipes

    families = drawn.check_families(config.family)
    recipe = recipes.chosen(config.recipe, "", config)
    recipes.check_judges(recipe, "compress.search")
    budget = drawn.Budget(config.params, int(config.macs))
    if config.devices * config.nodes > 1:
        raise InputError("--devices, --nodes: a candidate is trained in one process")

    from compress import runs, study
    from compress.session import open_session

    session = open_session(config, config)
    recipe.check_classes(len(session.data.class_names))
    size = drawn.Size(len(session.data.class_names), session.data.mels, session.data.frames)
    identity = _identity(config, session, recipe, families)
    name = f"search-{config.params}-{budget.macs}-{session.data_name()}-s{config.seed}"
    folder = config.out or config.runs / f"{name}-{runs.digest(identity)[:6]}"
    with runs.held(folder, "searches here"):
        if config.force:
            _forget(folder)
        for place in (folder, folder / _TRIALS):
            runs.forget_temporaries(place)
        study.claim(folder, identity)
        if (folder / BEST).is_file():  # written last
            cli.say(f"search    finished before, {folder}")
            return _tell(config, folder, runs.read_json(folder / RESULT))
        found = _candidates(config, families, budget, size)
        plan = rounds(len(found), config.finalists, recipe.epochs, config.seeds)
        results = _search(found, plan, folder, _Trainer(session, recipe, config.windows, folder))
        return _finish(config, folder, session, found, plan, results)


def _forget(folder: Path) -> None:
    """Remove what an earlier search left in the folder."""
    import shutil

    from compress import study

    shutil.rmtree(folder / _TRIALS, ignore_errors=True)
    for name in (BEST, RESULT, study.IDENTITY):
        (folder / name).unlink(missing_ok=True)


def _candidates(
    config: SearchConfig, families: Sequence[str], budget: Any, size: Any
) -> list[Candidate]:
    from compress import candidates as drawn

    found = []
    with cli.progress(config.candidates, "candidates", "candidate") as bar:
        for candidate in drawn.draw(families, config.candidates, budget, size, config.seed):
            found.append(candidate)
            bar.update()
    cli.say(
        f"search    {len(found)} candidates of {', '.join(families)} within {budget.params:,} "
        f"parameters and {budget.macs:,} MACs"
    )
    return found


def rounds(candidates: int, finalists: int, epochs: int, seeds: int) -> list[Round]:
    """Rounds of successive halving, the last with the finalists, all epochs and all seeds."""
    finalists = min(finalists, candidates)
    plan = [Round(finalists, epochs, seeds)]
    while plan[0].candidates < candidates:
        more = min(candidates, plan[0].candidates * _KEEP)
        plan.insert(0, Round(more, math.ceil(plan[0].epochs / _KEEP), 1))
    return plan


def _identity(
    config: SearchConfig, session: Session, recipe: Recipe, families: Sequence[str]
) -> dict[str, Any]:
    """What makes two searches one; a folder that holds another is refused."""
    import json

    found = {
        "student": f"{config.params:,} parameters, {config.macs:,.0f} MACs",
        "data": session.data_name(),
        "content": session.data.content_hash,
        "split": session.split.digest(),
        "seed": config.seed,
        "recipe": recipe.to_settings(),
        "families": list(families),
        **{key: getattr(config, key) for key in ("candidates", "windows", "finalists", "seeds")},
    }
    return json.loads(json.dumps(found, default=str))


# --- training ------------------------------------------------------------------------------------


class _Trainer:
    """Trains a candidate for some epochs; what was trained before is read from its file."""

    def __init__(self, session: Session, recipe: Recipe, windows: int, folder: Path) -> None:
        import numpy as np

        self.recipe, self.folder = recipe, folder / _TRIALS
        train = session.split.train
        if len(train) > windows:
            chosen = np.random.default_rng(session.seed).permutation(train)[:windows]
            train = np.sort(chosen)
        split = dataclasses.replace(session.split, train=train)
        self.session = dataclasses.replace(session, split=split)

    def __call__(self, candidate: Candidate, epochs: int, seed: int) -> dict[str, Any]:
        from compress import runs

        path = self.folder / f"{candidate.label}-e{epochs}-s{seed}.json"
        if path.is_file():
            return runs.read_json(path)
        found = self._train(candidate, epochs, seed, path.with_suffix(".pt"))
        runs.write_json(path, found)
        path.with_suffix(".pt").unlink(missing_ok=True)
        return found

    def _train(
        self, candidate: Candidate, epochs: int, seed: int, checkpoint: Path
    ) -> dict[str, Any]:
        import torch

        from compress import fit, registry
        from compress.session import build_material
        from compress.tasks import LabelTask

        self.folder.mkdir(parents=True, exist_ok=True)
        session = dataclasses.replace(self.session, seed=seed)
        recipe = dataclasses.replace(self.recipe, epochs=epochs, patience=epochs)
        data = session.data
        torch.manual_seed(seed)
        size = {"classes": len(data.class_names), "mels": data.mels, "frames": data.frames}
        model = registry.build_student(candidate.name, **(dict(candidate.arguments) | size))
        material = build_material(session, recipe)
        try:
            progress = fit.train_network(
                model,
                LabelTask(recipe, material.class_counts),
                material,
                (data, session.split.validation, session.normalisation),
                recipe,
                seed,
                checkpoint,
                session.fabric,
                f"{candidate.label}, {epochs} epochs",
            )
        except InputError as error:
            return {"validation_loss": None, "validation_accuracy": None, "fault": str(error)}
        kept = progress.kept(recipe)
        return {
            "validation_loss": kept["validation_loss"],
            "validation_accuracy": kept["validation_accuracy"],
            "seconds": round(progress.seconds, 3),
        }


def _search(
    found: Sequence[Candidate],
    plan: Sequence[Round],
    folder: Path,
    train: Callable[[Candidate, int, int], dict[str, Any]],
) -> list[dict[str, Any]]:
    """One row per candidate and round, with the means over its seeds."""
    rows: list[dict[str, Any]] = []
    left = list(found)
    seed = train.session.seed  # type: ignore[attr-defined]
    total = sum(r.candidates * r.seeds for r in plan)
    with cli.progress(total, "trainings", "training") as bar:
        for number, stage in enumerate(plan):
            ranked = []
            for candidate in left[: stage.candidates]:
                trained = []
                for more in range(stage.seeds):
                    trained.append(train(candidate, stage.epochs, seed + more))
                    bar.update()
                row = _row(candidate, number, stage, trained)
                rows.append(row)
                ranked.append((row["validation_loss"], candidate.number, candidate))
                cli.say(f"round {number + 1}   {_told(row)}")
            ranked.sort(key=lambda item: (item[0] is None, item[0], item[1]))
            left = [candidate for _, _, candidate in ranked]
    return rows


def _row(
    candidate: Candidate, number: int, stage: Round, trained: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    import statistics

    losses = [one["validation_loss"] for one in trained]
    ended = None not in losses
    accuracies = [one["validation_accuracy"] for one in trained]
    several = ended and len(losses) > 1
    return {
        "candidate": candidate.label,
        "round": number,
        "epochs": stage.epochs,
        "seeds": len(trained),
        "params": candidate.params,
        "macs": candidate.macs,
        "validation_loss": statistics.fmean(losses) if ended else None,
        "loss_deviation": statistics.stdev(losses) if several else None,
        "validation_accuracy": statistics.fmean(accuracies) if ended else None,
        "accuracy_deviation": statistics.stdev(accuracies) if several else None,
        "seconds": round(sum(one.get("seconds", 0.0) for one in trained), 3),
        "fault": next((one["fault"] for one in trained if "fault" in one), None),
    }


def _told(row: dict[str, Any]) -> str:
    if row["validation_loss"] is None:
        return f"{row['candidate']:<18} {row['fault']}"
    return (
        f"{row['candidate']:<18} {row['epochs']:>3} epochs: validation loss "
        f"{row['validation_loss']:.4f}, accuracy {100 * row['validation_accuracy']:.1f} %"
    )


# --- what is left --------------------------------------------------------------------------------


def _finish(
    config: SearchConfig,
    folder: Path,
    session: Session,
    found: Sequence[Candidate],
    plan: Sequence[Round],
    rows: list[dict[str, Any]],
) -> int:
    from compress import registry, runs
    from reports import search as shown

    last = [r for r in rows if r["round"] == len(plan) - 1 and r["validation_loss"] is not None]
    if not last:
        fault = next((r["fault"] for r in rows if r["fault"]), "")
        raise InputError(f"{folder}: no finalist could be trained ({fault}); change the recipe")
    best = min(last, key=lambda row: row["validation_loss"])
    winner = next(c for c in found if c.label == best["candidate"])
    data = session.data
    size = {"classes": len(data.class_names), "mels": data.mels, "frames": data.frames}
    arguments = registry.build_student(winner.name, **(dict(winner.arguments) | size)).arguments
    result = {
        "params": config.params,
        "macs": int(config.macs),
        "data": session.data_name(),
        "synthetic": data.synthetic,
        "windows": min(config.windows, len(session.split.train)),
        "validation_windows": len(session.split.validation),
        "seed": config.seed,
        "rounds": [dataclasses.asdict(stage) for stage in plan],
        "best": best,
        "candidates": [
            {**dataclasses.asdict(c), "label": c.label, "registered": not c.arguments}
            for c in found
        ],
        "rows": rows,
    }
    runs.write_json(folder / RESULT, result)
    described = {"family": "student", "name": winner.name, "arguments": arguments}
    runs.write_text(folder / "search.md", shown.markdown(result))
    for ending in ("png", "svg"):
        with runs.atomic_path(folder / f"pareto.{ending}") as path:
            shown.save_pareto(result, path, ending)
    runs.write_json(folder / BEST, described | {"params": winner.params, "macs": winner.macs})
    return _tell(config, folder, result)


def _tell(config: SearchConfig, folder: Path, result: dict[str, Any]) -> int:
    """The table, the best, and what to run next."""
    from reports import search as shown

    best = result["best"]
    cli.say()
    cli.say(shown.text(result))
    cli.say()
    cli.say(
        f"best      {best['candidate']}: {best['params']:,} parameters, {best['macs']:,} MACs, "
        f"validation loss {best['validation_loss']:.4f}, accuracy "
        f"{100 * best['validation_accuracy']:.1f} %"
    )
    cli.say(
        f"The search lies in {folder} (search.md, {RESULT}, pareto.png). Next: "
        + next_command("distill", DistillConfig, config, student=folder / BEST)
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.main(SearchConfig, run, __doc__))
