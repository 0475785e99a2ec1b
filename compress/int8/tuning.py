"""Fine-tuning with fake quantisation, under the teacher that the run was distilled from.

The recipe is the run's own with a small learning rate: the same augmented views, so that the
teacher's stored logits serve again. A run without teachers is fine-tuned on labels alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress import cli, evaluate, fit, runs, tracking
from compress import recipe as recipes
from compress.config import QuantizeConfig, build
from compress.continuing import (
    distillation_of,
    losses_of,
    open_session_of,
    task_of,
    teachers_of,
    transfer_of,
)
from compress.errors import InputError
from compress.int8.clustered import tables
from compress.int8.layers import logits_of_model
from compress.int8.narrow import narrow_weights
from compress.int8.prepare import Prepared
from compress.int8.simulated import SimulatedNetwork
from compress.material import Material, plain_batches
from compress.parents import Parent
from compress.quantized_runs import TuningPlan
from compress.recipe import Recipe
from compress.runs import Run
from compress.session import Session, build_material
from compress.teaching import check_teacher

_WARMUP_SHARE = 0.1


def plan_tuning(parent: Parent, config: QuantizeConfig, seed: int) -> TuningPlan:
    """Recipe, teachers and losses; raises InputError where the run cannot be fine-tuned."""
    run = parent.run
    if run is None:
        raise InputError(
            f"{parent.file}: fine-tuning needs a run folder, with the recipe and teacher of the "
            "training; an .onnx file from elsewhere can be calibrated only"
        )
    recipe = _recipe(run, config)
    teachers = teachers_of(run, config.teacher, config.without_teacher)
    transfer = transfer_of(run, config.cache)
    distillation = distillation_of(run, teachers, transfer, config.cache)
    settings = {
        "recipe": recipe.to_settings(),
        "transfer": [extra.content_hash for extra in transfer],
        **losses_of(distillation),
    }

    def tune(prepared: Prepared, model: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
        session = open_session_of(parent, run, config, seed)
        for teacher in teachers:
            check_teacher(session, teacher)
        if not teachers:
            cli.say("note      no teacher: fine-tuning on labels alone")
        material = build_material(session, recipe, transfer)
        task = task_of(session, distillation, recipe, material)
        narrow = narrow_weights(prepared, model) if config.weight_bits == "4" else ()
        shared = {}
        if config.clusters:
            shared = tables(model, narrow_weights(prepared, model), config.clusters)
        steps = recipe.epochs * material.steps(recipe.batch_size_at(0))
        network = SimulatedNetwork(prepared, model, steps // 2, narrow, shared)
        return _fine_tune(session, recipe, task, material, network, folder, run.name)

    return TuningPlan(settings, teachers, tune)


def _fine_tune(
    session: Session,
    recipe: Recipe,
    task: fit.Task,
    material: Material,
    network: SimulatedNetwork,
    folder: Path,
    name: str,
) -> tuple[Any, dict[str, Any]]:
    """The fine-tuned QDQ model, and how its simulation agrees with it on the test split."""
    data, split, normalisation = session.data, session.split, session.normalisation
    described = {"name": name, "stage": "quantize", "settings": {"recipe": dict(vars(recipe))}}
    with tracking.opened(session.loggers, folder, described) as logs:
        progress = fit.train_network(
            network,
            task,
            material,
            (data, split.validation, normalisation),
            recipe,
            session.seed,
            folder / runs.CHECKPOINT,
            session.fabric,
            f"fine-tune {name}",
            logs.both(session.after_epoch),
            graphs=False,  # ranges are followed step by step in Python
        )
    fit.write_curves(folder / runs.CURVES, progress.history)
    network = network.cpu().eval()
    tuned = network.to_onnx()
    with torch.inference_mode():
        simulated = np.concatenate(
            [network(x).numpy() for x, _ in plain_batches(data, split.test, normalisation)]
        )
    shipped = logits_of_model(tuned, data, split.test)
    return tuned, {
        "simulated_agreement": evaluate.agreement(shipped, simulated),
        "epochs": len(progress.history),
        "best_epoch": progress.best_epoch + 1,
        "seconds": round(progress.seconds, 3),
    }


def _recipe(run: Run, config: QuantizeConfig) -> Recipe:
    """The recipe of the run with the fine-tuning's length, rate and batches."""
    recorded = run.manifest.get("settings", {}).get("recipe")
    values = dict(recorded) if isinstance(recorded, dict) else vars(recipes.load("distill"))
    changed = {
        "epochs": config.epochs,
        "patience": config.epochs,
        "learning_rate": config.learning_rate,
        "batch_size": [str(config.batch_size)],
        "optimiser": "adam",
        "weight_decay": 0.0,
        "schedule": "cosine",
        "warmup_share": _WARMUP_SHARE,
    }
    return build(Recipe, {**values, **changed}, source=f"{run.folder}/{runs.MANIFEST}: recipe")
