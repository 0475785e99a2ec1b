"""Checkpoints of torch.save, read without torch; hostile ones must not run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from compress import artefacts
from compress.artefacts import open_checkpoint
from compress.artefacts.summary import RUNNING_STATISTICS
from compress.errors import InputError


class Settings(dict):
    """Stands for Lightning's AttributeDict: a dictionary by inheritance."""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5)
    )


def save(path: Path, **more: Any) -> nn.Module:
    """A checkpoint as the original project's: every layer under two names, optimizer state too."""
    model = network()
    state = model.state_dict()
    aliases = {f"conv1.{key.split('.')[1]}": value for key, value in state.items() if key[0] == "0"}
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 1, 4, 4)).sum().backward()
    optimizer.step()
    torch.save(
        {
            "epoch": 3,
            "pytorch-lightning_version": "1.9.0",
            "state_dict": state | aliases,
            "optimizer_states": [optimizer.state_dict()],
            "hyper_parameters": {"activation": nn.LeakyReLU(0.2), "kind": nn.ReLU, "dropout": 0.08},
        }
        | more,
        path,
    )
    return model


def test_values_shapes_and_aliases(tmp_path: Path) -> None:
    model = save(tmp_path / "m.ckpt")
    found = open_checkpoint(tmp_path / "m.ckpt")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(found.array(name), value.numpy())
        assert found.array(name).dtype == value.numpy().dtype
    assert ("0.weight", "conv1.weight") in found.aliases()
    np.testing.assert_array_equal(found.array("conv1.bias"), model[0].bias.detach().numpy())


def test_only_the_state_dict_counts_and_every_weight_once(tmp_path: Path) -> None:
    model = save(tmp_path / "m.ckpt")
    found = artefacts.read(tmp_path / "m.ckpt")
    assert found.file_params == sum(p.numel() for p in model.parameters())
    assert found.apart == {RUNNING_STATISTICS: 4 + 4 + 1}
    assert {layer.name: layer.params for layer in found.layers} == {"0": 40, "2": 8, "4": 85}


def test_weights_named_as_statistics_count(tmp_path: Path) -> None:
    state = {"x.running_var": torch.zeros(30, 30), "y.running_mean": torch.zeros(5)}
    torch.save({"state_dict": state | {"y.weight": torch.zeros(4)}}, tmp_path / "m.ckpt")
    found = artefacts.read(tmp_path / "m.ckpt")
    assert (found.file_params, found.apart) == (900 + 5 + 4, {})


def test_hyper_parameters_are_plain_values(tmp_path: Path) -> None:
    save(tmp_path / "m.ckpt")
    found = open_checkpoint(tmp_path / "m.ckpt").hyper_parameters
    assert found == {"activation": "LeakyReLU", "kind": "ReLU", "dropout": 0.08}
    assert found["activation"].attributes["negative_slope"] == 0.2
    assert found["kind"].module == "torch.nn.modules.activation"


def test_hyper_parameters_of_odd_kinds(tmp_path: Path) -> None:
    odd = Settings(
        path=Path("x"), device=torch.device("cpu"), dtype=torch.float16, size=torch.Size([1, 2]),
        names={"a"}, tensor=torch.zeros(2), nested={"list": [1, (2, None)]}, data=b"abc",
    )  # fmt: skip
    save(tmp_path / "m.ckpt", hyper_parameters=odd)
    found = open_checkpoint(tmp_path / "m.ckpt").hyper_parameters
    assert found["nested"] == {"list": [1, (2, None)]}
    assert found["dtype"] == "float16" and found["device"] == "device"
    assert found["names"] == ["a"] and found["size"] == (1, 2)
    assert found["tensor"] == "Tensor" and found["tensor"].attributes == {"shape": (2,)}


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float16", "bfloat16", "int8", "int64", "bool", "uint16"],
)
def test_element_types(tmp_path: Path, dtype: str) -> None:
    value = torch.tensor([[0, 1, 3], [2, 1, 0]]).to(getattr(torch, dtype))
    torch.save({"w": value}, tmp_path / "m.ckpt")
    found = open_checkpoint(tmp_path / "m.ckpt").array("w")
    wanted = value.float() if dtype == "bfloat16" else value
    np.testing.assert_array_equal(found, wanted.numpy())


def test_views_share_and_are_read_with_their_strides(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    views = {"all": base, "turned": base.t(), "part": base[1:3, ::2], "row": base[3]}
    torch.save(views, tmp_path / "m.ckpt")
    found = open_checkpoint(tmp_path / "m.ckpt")
    for name, value in views.items():
        np.testing.assert_array_equal(found.array(name), value.numpy())
    assert artefacts.read(tmp_path / "m.ckpt").file_params == 24


def test_parts_of_one_storage_add_up(tmp_path: Path) -> None:
    base = torch.zeros(100)
    torch.save({"a": base[:10], "b": base[20:25], "c": base[22:30]}, tmp_path / "m.ckpt")
    assert artefacts.read(tmp_path / "m.ckpt").file_params == 10 + 10


def test_parameters_and_tensor_subclasses(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.note = "kept"  # type: ignore[attr-defined]
    torch.save({"a": nn.Parameter(torch.ones(2)), "b": parameter}, tmp_path / "m.ckpt")
    assert artefacts.read(tmp_path / "m.ckpt").file_params == 5


# --- hostile and damaged files -------------------------------------------------------------------


class RunsCommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_pickle_that_would_run_a_command_does_not(tmp_path: Path) -> None:
    trace = tmp_path / "was_here"
    hostile = RunsCommand(f"touch {trace}")
    torch.save({"state_dict": {"w": torch.ones(3)}, "hyper_parameters": {"x": hostile}},
               tmp_path / "m.ckpt")  # fmt: skip
    found = open_checkpoint(tmp_path / "m.ckpt")
    assert found.hyper_parameters["x"] == "system"
    assert artefacts.read(tmp_path / "m.ckpt").file_params == 3
    assert not trace.exists()
    # the same file does run the command where it is unpickled, so the test would notice
    torch.load(tmp_path / "m.ckpt", weights_only=False)
    assert trace.exists()


def with_pickle(path: Path, program: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", program)
        for key, data in storages.items():
            archive.writestr(f"m/data/{key}", data)
    return path


def pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


BYTEARRAY8 = b"\x96" + struct.pack("<Q", 2**62)
HOSTILE = {
    "no end": b"\x80\x02}",
    "stack runs empty": b"\x80\x02a.",
    "mark as value": b"\x80\x02(.",
    "huge memo index": b"\x80\x02}r\xff\xff\xff\xff.",
    "huge bytes": b"\x80\x05" + BYTEARRAY8 + b".",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.",
    "negative long": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "unknown opcode": b"\x80\x02\xff.",
    "extension": b"\x80\x02\x82\x01.",
    "old class": b"(ios\nsystem\n(tR.",
    "no dictionary": pickled([1, 2]),
    "no tensors": pickled({"state_dict": {"a": 1}}),
    "state that is no dictionary": pickled({"state_dict": 3}),
    "reference that is no storage": b"\x80\x02}X\x01\x00\x00\x00wK\x01Qs.",
    "empty": b"",
}


@pytest.mark.parametrize("program", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_pickles_are_refused(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(InputError, match="m.ckpt"):
        artefacts.read(with_pickle(tmp_path / "m.ckpt", program))


def test_nested_references_stay_bounded(tmp_path: Path) -> None:
    bomb: Any = ["x"]
    for _ in range(60):
        bomb = [bomb] * 10
    save(tmp_path / "m.ckpt", hyper_parameters={"bomb": bomb})
    assert artefacts.read(tmp_path / "m.ckpt").file_params == 133


def test_a_list_in_itself_ends(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    save(tmp_path / "m.ckpt", hyper_parameters={"loop": loop})
    assert open_checkpoint(tmp_path / "m.ckpt").hyper_parameters["loop"]


def rewritten(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    """The checkpoint with ``change(name, data) -> data or None`` applied to every entry."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            data = change(name, source.read(name))
            if data is not None:
                target.writestr(name, data)
    return path


def test_storages_of_another_size_or_missing_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "m.ckpt")
    path = rewritten(tmp_path / "m.ckpt", lambda n, d: d[:-4] if n.endswith("data/0") else d)
    with pytest.raises(InputError, match="another size"):
        artefacts.read(path)
    save(tmp_path / "m.ckpt")
    path = rewritten(tmp_path / "m.ckpt", lambda n, d: None if n.endswith("data/0") else d)
    with pytest.raises(InputError, match="missing"):
        artefacts.read(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "m.ckpt")
    path = rewritten(tmp_path / "m.ckpt", lambda n, d: d, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        artefacts.read(path)


def test_old_format_text_and_other_zips_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="not a zip checkpoint"):
        artefacts.read(tmp_path / "old.ckpt")
    (tmp_path / "text.ckpt").write_text("weights")
    with pytest.raises(InputError, match="not a zip checkpoint"):
        artefacts.read(tmp_path / "text.ckpt")
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(InputError, match="data.pkl"):
        artefacts.read(tmp_path / "other.ckpt")


def test_truncated_at_any_place_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "m.ckpt")
    whole = (tmp_path / "m.ckpt").read_bytes()
    path = tmp_path / "cut.ckpt"
    for end in range(0, len(whole), 499):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="cut.ckpt"):
            artefacts.read(path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """(a small checkpoint, its pickle)."""
    path = tmp_path_factory.mktemp("samples") / "m.ckpt"
    torch.save({"state_dict": {"w": torch.ones(3)}, "hyper_parameters": {"a": nn.ReLU()}}, path)
    archive = zipfile.ZipFile(path)
    return path.read_bytes(), archive.read("m/data.pkl")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    in_pickle=st.booleans(),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_mutated_checkpoints_are_read_or_refused(
    sample: tuple[bytes, bytes],
    tmp_path: Path,
    in_pickle: bool,
    changes: list[tuple[float, int]],
) -> None:
    content = bytearray(sample[1 if in_pickle else 0])
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path = tmp_path / "mutated.ckpt"
    if in_pickle:
        with_pickle(path, bytes(content), **{"0": np.ones(3, np.float32).tobytes()})
    else:
        path.write_bytes(content)
    try:
        checkpoint = open_checkpoint(path)
        for name in checkpoint.state_dict:
            checkpoint.array(name)
    except InputError as error:
        assert "mutated" in str(error)


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    save(tmp_path / "m.ckpt")
    program = (
        "import sys; from pathlib import Path; from compress.artefacts import open_checkpoint; "
        "c = open_checkpoint(Path(sys.argv[1])); c.array('0.weight'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m.ckpt")],
        check=True,
        cwd=Path(__file__).parents[1],
    )
