"""Save and load a network: rebuilt by name and recorded arguments, loaded strictly.

weights.safetensors holds the network's state and, beside it, the normalisation of its input, so
that weights never meet another normalisation than the one that they were trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compress import registry
from compress.errors import InputError
from compress.material import Normalisation
from compress.runs import MODEL, WEIGHTS, Run, atomic_path, read_json, write_json

_MEAN, _DEVIATION = "normalise.mean", "normalise.deviation"
_SILENCE = "normalise.silence"  # of the mixture alone
_NETWORK = "network."


def build(family: str, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A student or a teacher by name and recorded arguments; raises InputError for an unknown."""
    if family == "ensemble":
        from compress.ensembles import rebuild

        return rebuild(arguments)
    of = registry.build_teacher if family == "teacher" else registry.build_student
    return of(name, **{key: value for key, value in arguments.items() if key != "name"})


def save(
    folder: Path, family: str, name: str, model: nn.Module, normalisation: Normalisation
) -> None:
    """Write model.json and weights.safetensors."""
    from safetensors.torch import save_file

    described = {"family": family, "name": name, "arguments": dict(model.arguments)}
    write_json(folder / MODEL, described | {"normalise": normalisation.kind})
    tensors = {
        _NETWORK + key: value.detach().cpu().contiguous().clone()
        for key, value in model.state_dict().items()
    }
    tensors[_MEAN] = torch.from_numpy(normalisation.mean.copy())
    tensors[_DEVIATION] = torch.from_numpy(normalisation.deviation.copy())
    if normalisation.silence is not None:
        tensors[_SILENCE] = torch.from_numpy(normalisation.silence.copy())
    with atomic_path(folder / WEIGHTS) as path:
        save_file(tensors, path)


def load(run: Run) -> tuple[nn.Module, Normalisation]:
    """The network of a run, in eval mode, with its normalisation; raises InputError."""
    described = read_json(run.file(MODEL))
    try:
        family, name, arguments = (described[key] for key in ("family", "name", "arguments"))
    except KeyError as error:
        raise InputError(f"{run.folder / MODEL}: has no {error}; the file is damaged") from None
    model = build(family, name, arguments)
    tensors = read_tensors(run.file(WEIGHTS))
    try:
        mean, deviation = tensors.pop(_MEAN), tensors.pop(_DEVIATION)
    except KeyError as error:
        raise InputError(f"{run.folder / WEIGHTS}: has no {error}; not a run's weights") from None
    silence = tensors.pop(_SILENCE, None)
    load_strictly(
        model,
        {key.removeprefix(_NETWORK): value for key, value in tensors.items()},
        run.folder / WEIGHTS,
    )
    return model.eval(), Normalisation(
        np.asarray(mean), np.asarray(deviation), None if silence is None else np.asarray(silence)
    )


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file; raises InputError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None


def load_strictly(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: weights do not fit the network ({reason})") from None
