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
    from safetensors.torch import save as to_bytes

    described = {"family": family, "name": name, "arguments": registry.arguments_of(model)}
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
        path.write_bytes(to_bytes(tensors))


def load(run: Run) -> tuple[nn.Module, Normalisation]:
    """The network of a run, in eval mode, with its normalisation; raises InputError."""
    described = read_json(run.file(MODEL))
    try:
        family, name, arguments = (described[key] for key in ("family", "name", "arguments"))
    except KeyError as error:
        raise InputError(f"{run.folder / MODEL}: has no {error}; the file is damaged") from None
    if not (isinstance(family, str) and isinstance(name, str) and isinstance(arguments, dict)):
        raise InputError(f"{run.folder / MODEL}: is damaged; run the command that made it again")
    tensors = read_tensors(run.file(WEIGHTS))
    _check_size(run, family, name, arguments, tensors)
    model = build(family, name, arguments)
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


def _check_size(
    run: Run, family: str, name: str, arguments: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    """Refuse arguments of a network larger than its weights, before its memory is taken."""
    try:
        with torch.device("meta"):
            model = build(family, name, arguments)
        wanted = sum(value.numel() for value in model.state_dict().values())
    except InputError:
        raise
    except Exception as error:  # a builder may fail at any of its lines on what a file says
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{run.folder / MODEL}: no network can be built of it ({reason})"
        ) from None
    stored = sum(value.numel() for key, value in tensors.items() if key.startswith(_NETWORK))
    if wanted != stored:
        raise InputError(
            f"{run.folder / WEIGHTS}: weights do not fit the network ({stored:,} numbers are "
            f"stored, {run.folder / MODEL} describes {wanted:,})"
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
