"""Several trained networks as one ONNX file that is measured and gated as one.

    --member RUN --member RUN             finished runs of one split
    --student dsc50 --seeds 3             or members that are trained first, by their recipe

--combine probabilities (the default) gives the mean of the members' probabilities, --combine logits
the mean of their logits; the file says which in its run. Its parameters are the sum. It teaches a
student as any other run: python -m compress.distill --teacher ENSEMBLE_RUN.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import DistillConfig, EnsembleConfig
from compress.errors import InputError
from compress.next_command import next_command

if TYPE_CHECKING:
    from compress.runs import Run


def run(config: EnsembleConfig) -> int:
    _check(config)

    from compress import budgets, evaluate, runs
    from compress.data.sets import is_synthetic
    from compress.ensembles import check_members, ensemble_run
    from compress.frontend_file import options_to_hear_as
    from compress.metrics import paired_difference
    from compress.parents import recorded_data
    from compress.session import DECISIONS
    from compress.summary import describe_difference, table

    if config.member:
        members = [runs.open_run(folder) for folder in config.member]
    else:
        members = _trained(config, str(config.student))
    check_members(members)
    data = recorded_data(members[0], config)
    result = ensemble_run(
        members, config.combine, data, config.runs, out=config.out, force=config.force
    )
    cli.say()
    cli.say(table([*(("member", member) for member in members), ("ensemble", result)]))
    best = max(members, key=lambda m: m.metrics()["splits"]["validation"]["accuracy"])
    ours, theirs = (evaluate.load_decisions(r.file(DECISIONS)) for r in (result, best))
    cli.say(
        describe_difference(
            "ensemble",
            f"the member that validation likes best ({best.folder.name})",
            paired_difference(ours, theirs),
        )
    )
    own: dict[str, Any] = {"teacher": result.folder}
    if config.member and config.data is None:  # a folder's path is not recorded
        own["data"] = data.name if is_synthetic(data.name) else "PATH"
        own["data_seed"] = data.scene_seed
    if config.member:
        own |= {"drop_quiet": data.drop_quiet_db, "frontend": None, "reference": None}
        own |= options_to_hear_as(result.folder, data.frontend)
    following = next_command("distill", DistillConfig, config, **own)
    figures = result.metrics()
    limit = budgets.load().limits.get("params")
    if limit is not None and figures["params"] > limit:
        cli.say(
            f"Over the budget: {figures['params']:,} parameters, {limit:,} are allowed. It may "
            "teach a student within it."
        )
    cli.say(
        f"The mean of the members' {config.combine}; measured on {result.folder}/model.onnx. "
        f"The ensemble lies in {result.folder}. Next: {following}"
    )
    return 0


def _check(config: EnsembleConfig) -> None:
    from compress import recipe as recipes
    from compress import registry

    if bool(config.member) == bool(config.student):
        raise InputError(
            "give either --member RUN (several times), or --student NAME to train members first"
        )
    if config.student:
        registry.check_student(config.student)
        recipes.chosen(config.recipe, config.student, config)
    if config.devices * config.nodes > 1:
        raise InputError("--devices, --nodes: members are trained in one process")


def _trained(config: EnsembleConfig, student: str) -> list[Run]:
    """Members that differ by their seed alone; finished ones are taken as they are."""
    from compress import recipe as recipes
    from compress.session import open_session
    from compress.student_runs import twin_run

    recipe = recipes.chosen(config.recipe, student, config)
    options = config if config.data is not None else dataclasses.replace(config, data="scenes")
    session = open_session(options, options, config.normalise)
    members = []
    for seed in range(config.seed, config.seed + config.seeds):
        member = dataclasses.replace(session, seed=seed)
        members.append(twin_run(member, student, recipe, kind="trained"))
    return members


if __name__ == "__main__":
    raise SystemExit(cli.main(EnsembleConfig, run, __doc__))
