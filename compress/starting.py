"""Weights that a training starts from: those of a finished run, or of a file from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress import checkpoint, registry, runs
from compress.errors import InputError
from compress.registry import arguments_of
from compress.runs import Run
from compress.session import Session, check_heard_no_test


def continued(
    session: Session, name: str, folder: Path, asked: Mapping[str, Any] | None = None
) -> tuple[nn.Module, Run]:
    """The network of a run folder, with a new head where the session's classes are others.

    name: of the network that is asked for, as in the run's manifest. asked: arguments of its
    builder that the network must have. Raises InputError where the run holds another one, or heard
    clips that are the session's test.
    """
    parent = runs.open_run(folder)
    check_heard_no_test(session, parent)
    if parent.name != name:
        raise InputError(f"{folder}: holds {parent.name}; asked for is {name}")
    model, _ = checkpoint.load(parent)
    _check_as_asked(model, folder, asked or {})
    classes = len(session.data.class_names)
    if arguments_of(model).get("classes") != classes:
        family = str(runs.read_json(parent.file(runs.MODEL))["family"])
        model = with_new_head(model, family, name, classes)
    return model, parent


def _check_as_asked(model: nn.Module, place: Path, asked: Mapping[str, Any]) -> None:
    held = arguments_of(model)
    for key, value in asked.items():
        if held.get(key) != value:
            raise InputError(
                f"{place}: its network has {key} {held.get(key)}, asked for is {value}; leave that "
                "out, or start without --weights"
            )


def with_new_head(model: nn.Module, family: str, name: str, classes: int) -> nn.Module:
    """The network with the same weights but for those that depend on the number of classes, which
    are new (transfer learning: all layers before the head know sound of another data set)."""
    arguments = arguments_of(model) | {"classes": classes}
    if family == "teacher":
        new = registry.build_teacher(**arguments)
    else:
        new = registry.build_student(name, **arguments)
    fresh = new.state_dict()
    known = {k: v for k, v in model.state_dict().items() if v.shape == fresh[k].shape}
    new.load_state_dict(fresh | known)
    return new


def file_hash(weights: Path | None) -> str | None:
    """What a run records of a file of weights; of a run folder, its hash as the parent tells."""
    return runs.sha256_file(weights) if weights is not None and weights.is_file() else None


def original_student(
    name: str, file: Path, classes: int, asked: Mapping[str, Any] | None = None
) -> nn.Module:
    """A student with the weights of a Lightning checkpoint of the original AudioBots project.

    asked: arguments of its builder that it must have; raises InputError where it has others.
    """
    from compress.artefacts import lightning_file
    from students.audiobot_original import convert_original

    found = lightning_file.open_checkpoint(file)
    state = {key: torch.from_numpy(found.array(key).copy()) for key in found.state_dict}
    try:
        original = convert_original(state, found.hyper_parameters)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    if original.student != name:
        raise InputError(f"{file}: holds {original.student}, asked for is {name}")
    model = original.build()
    _check_as_asked(model, file, asked or {})
    if arguments_of(model).get("classes") != classes:
        raise InputError(
            f"{file}: decides {arguments_of(model).get('classes')} classes, the data has {classes}"
        )
    return model
