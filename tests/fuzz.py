"""Every reader against hostile files: a result or an InputError, and nothing else.

    python -m tests.fuzz --reader all --inputs 2000 --seed 0
    python -m tests.fuzz --reader onnx --inputs 20000 --engine atheris    # guided by coverage

A finding is a traceback, a crash, an input that takes over --seconds, more than --memory MiB of
address space beyond the loaded program, a file touched outside the scratch folder, a process or a
connection. Inputs run in a child process; one that it dies of is a finding like any other. Each
input is a function of (reader, seed, number): --only NUMBER runs one again and shows its traceback.

Every reader has a corpus of whole files, mutated by bytes and by what the format is made of (JSON
values, digits, zip entries), so that mutants get behind the first check.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import io
import json
import multiprocessing
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import forking  # noqa: E402

Mutate = Callable[[random.Random, bytes, list[bytes]], bytes]


@dataclass(frozen=True)
class Reader:
    """seeds: whole files by ending. read: what a command does with such a file.

    mutate: how a seed becomes an input. per_all: share of the inputs where all readers are run.
    """

    seeds: Callable[[Path], list[tuple[str, bytes]]]
    read: Callable[[Path, Path], Any]
    mutate: Mutate
    name: str = "input"
    share: float = 1.0


# --- mutation ------------------------------------------------------------------------------------

_NUMBERS = (b"0", b"1", b"-1", b"2147483648", b"-9223372036854775809", b"1e999", b"999999999999",
            b"NaN", b"0.5", b"65536", b"9" * 400)  # fmt: skip
_BYTES = (0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x0A, 0x2C, 0x22)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 1e308, 0.5, -0.0, float("nan"),
    float("inf"), "", "a" * 5000, "../../../../etc/passwd", "/dev/zero", "\x00", "\ud800",
    "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "|`]*_", [], {}, [[]], [None], [[0, 10**12]],
    {"a": {}}, [0] * 2000, "1e5", "\u202etxt",
)  # fmt: skip


def mutate_bytes(draw: random.Random, seed: bytes, seeds: list[bytes]) -> bytes:
    """A few of: bits, bytes, cuts, copies, numbers, splices with another seed."""
    content = bytearray(seed)
    for _ in range(draw.choice((1, 1, 2, 3, 6))):
        size = len(content)
        kind = draw.randrange(10)
        at = draw.randrange(size) if size else 0
        if kind == 0 and size:
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and size:
            content[at] = draw.choice(_BYTES)
        elif kind == 2 and size:
            content[at] = draw.randrange(256)
        elif kind == 3:
            del content[at : at + draw.choice((1, 2, 8, 100, size))]
        elif kind == 4:
            content[at:at] = bytes(draw.choices(_BYTES, k=draw.choice((1, 2, 8, 64))))
        elif kind == 5:
            to = draw.randrange(size) if size else 0
            content[to:to] = content[at : at + draw.choice((1, 4, 16, 200))]
        elif kind == 6:
            digits = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?", bytes(content[:20_000])))
            if digits:
                found = draw.choice(digits)
                content[found.start() : found.end()] = draw.choice(_NUMBERS)
        elif kind == 7 and size >= 8:
            value = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, size, size * 2))
            content[at : at + 8] = struct.pack("<Q", value)
        elif kind == 8 and size >= 4:
            value = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, size, size + 1))
            content[at : at + 4] = struct.pack(draw.choice(("<I", ">I")), value)
        elif kind == 9:
            other = draw.choice(seeds)
            if other:
                start = draw.randrange(len(other))
                content[at : at + draw.choice((0, 8, 64, size))] = other[start : start + 400]
    return bytes(content[:4_000_000])


def mutate_value(draw: random.Random, value: Any) -> Any:
    """A JSON value with one part replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        changed = dict(value)
        kind = draw.randrange(12)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[str(draw.choice(_VALUES))[:60]] = changed.pop(key)
        else:
            changed[key] = mutate_value(draw, value[key])
        return changed
    if isinstance(value, list) and value and draw.random() < 0.75:
        at = draw.randrange(len(value))
        kind = draw.randrange(6)
        if kind == 0:
            return value[:at] + value[at + 1 :]
        if kind == 1:
            return value * 2
        return [*value[:at], mutate_value(draw, value[at]), *value[at + 1 :]]
    return draw.choice(_VALUES)


def mutate_json(draw: random.Random, seed: bytes, seeds: list[bytes]) -> bytes:
    if draw.random() < 0.2:
        return mutate_bytes(draw, seed, seeds)
    try:
        value = json.loads(seed)
    except (ValueError, RecursionError):
        return mutate_bytes(draw, seed, seeds)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        value = mutate_value(draw, value)
    return json.dumps(value).encode()


def mutate_safetensors(draw: random.Random, seed: bytes, seeds: list[bytes]) -> bytes:
    """The header as JSON, its length made to fit again."""
    if draw.random() < 0.3 or len(seed) < 8:
        return mutate_bytes(draw, seed, seeds)
    (length,) = struct.unpack("<Q", seed[:8])
    header = mutate_json(draw, seed[8 : 8 + length], [seed[8 : 8 + length]])
    return struct.pack("<Q", len(header)) + header + seed[8 + length :]


def mutate_zip(draw: random.Random, seed: bytes, seeds: list[bytes]) -> bytes:
    """The content of an entry, its name or its presence; the archive is written whole again."""
    if draw.random() < 0.3:
        return mutate_bytes(draw, seed, seeds)
    try:
        with zipfile.ZipFile(io.BytesIO(seed)) as archive:
            entries = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:
        return mutate_bytes(draw, seed, seeds)
    small = [name for name in entries if len(entries[name]) < 200_000]
    chosen = draw.choice(small)
    program = next((name for name in entries if name.endswith("data.pkl")), chosen)
    target = program if draw.random() < 0.6 else chosen
    kind = draw.randrange(12)
    if kind == 0:
        del entries[chosen]
    elif kind == 1:
        entries[draw.choice(("../../escaped", "a/data.pkl", "data/0"))] = entries.pop(chosen)
    else:
        entries[target] = mutate_bytes(draw, entries[target], [entries[target]])
    written = io.BytesIO()
    method = zipfile.ZIP_STORED if draw.random() < 0.95 else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(written, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return written.getvalue()


# --- seeds and readers ---------------------------------------------------------------------------


class _Canary:
    """Unpickled, it makes a folder: what an attacker's pickle could do."""

    def __init__(self, scratch: Path) -> None:
        self.path = str(scratch.parent / f"{scratch.name}-canary")

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def _npy(array: Any) -> bytes:
    import numpy as np

    written = io.BytesIO()
    np.save(written, array, allow_pickle=True)
    return written.getvalue()


def _npy_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    import numpy as np
    from conftest import band_spectrograms

    spectrograms, labels = band_spectrograms(3)
    arrays = [spectrograms, spectrograms.astype(np.float16), labels, labels[:, None].astype(float),
              np.array([_Canary(scratch)], dtype=object), np.zeros((0, 32, 96), np.float32),
              np.asfortranarray(spectrograms), np.zeros(3, [("a", "<f4")])]  # fmt: skip
    return [(".npy", _npy(array)) for array in arrays]


def _read_npy(path: Path, scratch: Path) -> None:
    from compress.data import npy_pair
    from compress.errors import InputError

    try:
        labels = npy_pair._column(path, 3, "labels")
        npy_pair._check_labels(path, labels, ("a", "b", "c", "d", "e"))
    except InputError:
        pass
    rows = len(npy_pair.load_spectrograms(path))
    npy_pair.encode_rows(path, 0, min(rows, 64))


def _audio_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    import sounds

    found = []
    for ending, rate, options in (
        ("wav", 16_000, {}), ("wav", 44_100, {"subtype": "FLOAT"}), ("flac", 16_000, {}),
        ("ogg", 16_000, {}), ("mp3", 16_000, {}),
    ):  # fmt: skip
        path = sounds.write(
            scratch / f"seed.{ending}", sounds.tone(440, 0.3, rate), rate, **options
        )
        found.append((f".{ending}", path.read_bytes()))
        path.unlink()
    return found


def _read_audio(path: Path, scratch: Path) -> None:
    from compress.data.clips import Clip, plan, read_clips
    from compress.data.files import find_file
    from compress.frontend import FrontEnd

    found = find_file(path.parent, path.name)
    assert found is not None
    (clips, *_) = plan(path.parent, [Clip(found, 0, 0, 0)])
    read_clips(clips, root=path.parent, frontend=FrontEnd(), seconds=None, strict=True,
               with_folds=False)  # fmt: skip


def _esc50_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    rows += [f"{i}.wav,{1 + i % 5},{i % 2},{'dog' if i % 2 else 'rain'},True,{i},A"
             for i in range(6)]  # fmt: skip
    return [("", "\n".join(rows).encode()), ("", ("\ufeff" + "\r\n".join(rows)).encode())]


def _layout(scratch: Path, folder: str, *places: str) -> Path:
    """A folder with sound files by name, so that listed clips are found."""
    root = scratch / folder
    for place in places:
        if not (root / place).is_dir():
            (root / place).mkdir(parents=True)
            for i in range(6):
                (root / place / f"{i}.wav").write_bytes(b"RIFF")
    return root


def _planned(read: Callable[..., Any], root: Path, **options: Any) -> None:
    """Read a layout as far as the plan of its clips, which become columns of the set."""
    import numpy as np

    from compress.data.clips import plan
    from compress.frontend import FrontEnd

    def planned(**given: Any) -> None:
        plan(given["root"], given["clips"])
        for clip in given["clips"]:
            assert (given["root"] / clip.file.name).resolve().is_relative_to(root.resolve())
        columns = [(clip.label, clip.recording, clip.clip, clip.fold) for clip in given["clips"]]
        np.asarray(columns, dtype=np.int64)

    read(root, name="x", frontend=FrontEnd(), build=planned, **options)


def _read_esc50(path: Path, scratch: Path) -> None:
    from compress.data import esc50
    from compress.errors import InputError

    root = _layout(scratch, "esc50", "audio", "meta")
    shutil.copyfile(path, root / "meta" / "esc50.csv")
    with contextlib.suppress(InputError):
        _planned(esc50.read_esc50, root, five=True)
    _planned(esc50.read_esc50, root)


def _fsd50k_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    rows = ["fname,labels,mids", '0,"Music","/m/04rlf"', '1,"Speech","/m/09x0r"',
            '2,"Engine","/m/02mk9"', '3,"Alarm,Siren","/m/07pp_mv,/m/03kmc9"']  # fmt: skip
    return [("", "\n".join(rows).encode())]


def _read_fsd50k(path: Path, scratch: Path) -> None:
    from compress.data import fsd50k

    root = _layout(scratch, "fsd50k", "FSD50K.dev_audio", "FSD50K.eval_audio",
                   "FSD50K.ground_truth")  # fmt: skip
    for side in ("dev", "eval"):
        shutil.copyfile(path, root / "FSD50K.ground_truth" / f"{side}.csv")
    _planned(fsd50k.read_fsd50k, root)


def _recordings_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    return [("", b'file,recording\nlow/0.wav,tape\nlow/1.wav,tape\nhigh/2.wav,"a,b"\n')]


def _read_recordings(path: Path, scratch: Path) -> None:
    from compress.data import audio_folder

    root = _layout(scratch, "folders", "low", "high")
    shutil.copyfile(path, root / "recordings.csv")
    _planned(audio_folder.read_audio_folder, root)


def _names_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    return [(".json", b'["other", "music", "human voice"]'), (".txt", b"other\nmusic\nvoice\n")]


def _read_names(path: Path, scratch: Path) -> None:
    from compress.data.npy_pair import read_class_names
    from compress.runs import slug

    for name in ("classes.json", "class_names.txt"):
        (scratch / name).unlink(missing_ok=True)
    copy = scratch / ("classes.json" if path.suffix == ".json" else "class_names.txt")
    shutil.copyfile(path, copy)
    for name in read_class_names(scratch):
        assert "/" not in slug(name) and slug(name) not in (".", "..")


def _toml_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    recipes = Path(__file__).resolve().parents[1] / "compress" / "recipes"
    found = [(".toml", path.read_bytes()) for path in sorted(recipes.glob("*.toml"))]
    found.append((".toml", b"[limits]\nparams = 500_000\nmacs = 17_600_000\n"))
    found.append((".toml", b'student = "dsc50"\nepochs = 3\nteacher = ["a", "b"]\nseed = 1\n'))
    return found


def _read_toml(path: Path, scratch: Path) -> None:
    from compress import budgets, config, costs, recipe, search_space
    from compress.errors import InputError

    for read in (
        lambda: budgets.load(path),
        lambda: costs.load(path),
        lambda: search_space.load(str(path)),
        lambda: recipe.load(str(path)),
        lambda: config.parse(config.DistillConfig, ["--config", str(path)], "x", "x"),
    ):
        try:
            read()
        except InputError as error:
            assert len(str(error)) < 100_000


@functools.cache
def _run_folder(scratch: Path) -> Path:
    import run_folders

    folder = run_folders.make(scratch / "runs", "one", epochs=3)
    run_folders.make(scratch / "runs", "two", epochs=2, seed=1)
    return Path(folder)


def _file_of_run(name: str, scratch: Path) -> list[tuple[str, bytes]]:
    folder = _run_folder(scratch)
    return [("", (folder / name).read_bytes()), ("", (folder.parent / "two" / name).read_bytes())]


def _read_run_file(name: str, path: Path, scratch: Path) -> None:
    """A run folder with this file in it, as report, gate, verify and predict read it."""
    from compress import gate, predict, runs
    from compress.budgets import Budgets
    from compress.errors import InputError
    from compress.report import gather, with_curves
    from compress.verification import verify_run
    from compress.verify import VerifyConfig, lines_of
    from reports import html, tables
    from reports.records import Report, to_json

    folder = _run_folder(scratch)
    kept = (folder / name).read_bytes()
    shutil.copyfile(path, folder / name)
    try:
        entries, notes = gather(folder.parent, Budgets())
        report = Report([with_curves(e) for e in entries], notes=notes, detailed=entries)
        tables.terminal(report, 100)
        to_json(e.record for e in entries)
        for text in (html.page(report), tables.markdown(report)):
            assert "<script>alert" not in text
        for row in csv.reader(io.StringIO(tables.comma_separated(report))):
            assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in row)
        gate.why_not_shipped(folder / "model.onnx", folder.parent)
        run = runs.open_run(folder)
        runs.missing(folder, run.manifest)
        for step in (
            lambda: lines_of(verify_run(folder, VerifyConfig(files_only=True))),
            lambda: predict._frontend(run, [1, 1, 32, 96], "run"),
            run.check_unchanged,
            run.reference,
        ):
            try:
                step()
            except InputError:
                continue
    finally:
        (folder / name).write_bytes(kept)


def _manifest_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    from compress.frontend import FrontEnd

    found = _file_of_run("manifest.json", scratch)
    manifest = json.loads(found[0][1])
    manifest["data"]["frontend"] = FrontEnd().to_dict()
    manifest["artefacts"] = {"model.onnx": "0", "metrics.json": "1"}
    manifest["parent"] = {"folder": str(_run_folder(scratch)), "name": "x", "weights_sha256": "0"}
    return [*found, ("", json.dumps(manifest).encode())]


def _split_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    import numpy as np

    from compress.data.splits import Split

    split = Split(np.arange(80), np.arange(80, 90), np.arange(90, 100), "by hand", 2)
    return [("", json.dumps(split.to_json()).encode())]


def _read_split(path: Path, scratch: Path) -> None:
    from compress.data.splits import Split
    from compress.runs import read_json

    Split.from_json(read_json(path)).digest()


@functools.cache
def _network_folder(scratch: Path) -> Path:
    """A run folder with model.json and weights of a small student."""
    import numpy as np

    from compress import checkpoint, registry
    from compress.material import Normalisation

    folder = _run_folder(scratch).parent / "two"
    model = registry.build_student("audiobot50", classes=5)
    ones = np.ones(32, np.float32)
    checkpoint.save(folder, "student", "audiobot50", model, Normalisation(-ones, ones))
    return folder


def _load_network(name: str, path: Path, scratch: Path) -> None:
    from compress import checkpoint, runs

    folder = _network_folder(scratch)
    kept = (folder / name).read_bytes()
    shutil.copyfile(path, folder / name)
    try:
        checkpoint.load(runs.open_run(folder))
    finally:
        (folder / name).write_bytes(kept)


def _model_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    content = (_network_folder(scratch) / "model.json").read_bytes()
    teacher = {"family": "teacher", "name": "test_resnet", "arguments": {"classes": 5}}
    other = {"family": "student", "name": "dsc50", "arguments": {"classes": 5, "mels": 32}}
    return [("", content), ("", json.dumps(teacher).encode()), ("", json.dumps(other).encode())]


def _safetensors_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    import numpy as np
    from safetensors.numpy import save

    small = save({"a.weight": np.ones((2, 3), np.float32), "a.running_mean": np.ones(2, np.float16),
                  "b": np.zeros((0,), np.int64)}, metadata={"format": "pt"})  # fmt: skip
    whole = (_network_folder(scratch) / "weights.safetensors").read_bytes()
    return [(".safetensors", small), (".safetensors", whole)]


def _read_safetensors(path: Path, scratch: Path) -> None:
    from compress import artefacts, checkpoint
    from compress.errors import InputError

    with contextlib.suppress(InputError):
        artefacts.read(path).largest_layers()
    with contextlib.suppress(InputError):
        checkpoint.read_tensors(path)
    if path.stat().st_size > 100_000:  # the weights of a network, not the small file
        _load_network("weights.safetensors", path, scratch)


def _lightning_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    import torch

    state = {"conv.0.weight": torch.ones(4, 1, 3, 3), "conv.0.bias": torch.ones(4),
             "bn.0.running_mean": torch.zeros(4), "tied": torch.ones(4)[::2]}  # fmt: skip
    contents: list[Any] = [
        {"state_dict": state, "hyper_parameters": {"dropout": 0.1, "activation_function": None}},
        {"state_dict": state, "epoch": 3, "optimizer_states": [{"state": {0: state}}]},
        {"state_dict": state, "hyper_parameters": _Canary(scratch)},
    ]
    from test_original_checkpoints import audiobot50_layout

    parameters = {"activation_function": torch.nn.LeakyReLU(), "dropout": 0.026}
    contents.append(
        {"state_dict": audiobot50_layout().state_dict(), "hyper_parameters": parameters}
    )
    found = []
    for content in contents:
        written = io.BytesIO()
        torch.save(content, written)
        found.append((".ckpt", written.getvalue()))
    bare = io.BytesIO()
    with zipfile.ZipFile(bare, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {}}, protocol=2))
    return [*found, (".ckpt", bare.getvalue())]


def _read_lightning(path: Path, scratch: Path) -> None:
    from pathlib import Path as P

    from compress import artefacts
    from compress.artefacts import open_checkpoint
    from compress.errors import InputError
    from compress.starting import original_student

    artefacts.read(path).largest_layers()
    found = open_checkpoint(path)
    found.aliases()
    for name in found.state_dict:
        try:
            found.array(name)
        except InputError:
            continue
    original_student("audiobot50", P(path), 5)


def _onnx_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    import model_files

    found = []
    for number, make in enumerate((model_files.student, model_files.quantised)):
        path = make(scratch / f"seed{number}.onnx")
        found.append((".onnx", path.read_bytes()))
        path.unlink()
    return found


def _read_onnx(path: Path, scratch: Path) -> None:
    from compress import artefacts, gate, verdicts
    from compress.budgets import Budgets

    limits = Budgets({"macs": 10, "file_bytes": 10, "peak_activation_bytes": 10})
    verdict = gate.judge_file(path, limits)
    for line in (*verdicts.text_lines(verdict), *verdicts.github_lines(verdict)):
        assert "\n" not in line
    artefacts.read(path)


def _run_onnx(path: Path, scratch: Path) -> None:
    """As quantize and predict do with a file from elsewhere: its ends, its graph, one window."""
    from compress.evaluate import onnx_session
    from compress.int8.prepare import prepare

    prepare(path)
    onnx_session(path, threads=1)


def _decisions_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    import numpy as np

    written = io.BytesIO()
    ids = np.arange(4)
    np.savez_compressed(written, probabilities=np.full((4, 5), 0.2), labels=ids, clip_ids=ids,
                        recording_ids=ids)  # fmt: skip
    hostile = io.BytesIO()
    np.savez(hostile, probabilities=np.array([_Canary(scratch)], dtype=object), labels=ids)
    return [(".npz", written.getvalue()), (".npz", hostile.getvalue())]


def _read_decisions(path: Path, scratch: Path) -> None:
    from compress.evaluate import load_decisions

    load_decisions(path)


def _tflite_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    return [(".tflite", (Path(__file__).parent / "files" / "tiny.tflite").read_bytes())]


def _baseline_seeds(scratch: Path) -> list[tuple[str, bytes]]:
    import numpy as np

    from compress import baselines

    bayes = {"log_prior": np.zeros(5), "mean": np.zeros((5, 20)), "variance": np.ones((5, 20))}
    svm = {"feature_mean": np.zeros(20), "feature_deviation": np.ones(20),
           "landmarks": np.ones((3, 20)), "weights": np.ones((5, 3)), "offsets": np.zeros(5),
           "gamma": np.float64(0.1), "sharpness": np.float64(1.0)}  # fmt: skip
    forest = {"roots": np.int32([0]), "feature": np.int16([0, 0, 0]), "threshold": np.zeros(3),
              "left": np.int32([1, 1, 2]), "right": np.int32([2, 1, 2]),
              "leaf": np.full((3, 5), 0.2), "depth": np.int64(1)}  # fmt: skip
    found, path = [], scratch / "seed.npz"
    for kind, arrays in (("naive-bayes", bayes), ("svm", svm), ("random-forest", forest)):
        baselines.save(path, kind, arrays)
        found.append((".npz", path.read_bytes()))
    path.unlink()
    hostile = io.BytesIO()
    np.savez(hostile, kind=np.array("svm"), weights=np.array([_Canary(scratch)], dtype=object))
    return [*found, (".npz", hostile.getvalue())]


def _read_baseline(path: Path, scratch: Path) -> None:
    """As verify does: count the arrays, and decide a window with them."""
    import numpy as np

    from compress import baselines

    baselines.count_numbers(baselines.load(path)[1])
    baselines.predictor(path)(np.full((2, 1, 4, 6), -40.0, np.float32))


READERS: dict[str, Reader] = {
    "npy": Reader(_npy_seeds, _read_npy, mutate_bytes, share=2.0),
    "audio": Reader(_audio_seeds, _read_audio, mutate_bytes, share=1.0),
    "esc50": Reader(_esc50_seeds, _read_esc50, mutate_bytes, share=2.0),
    "fsd50k": Reader(_fsd50k_seeds, _read_fsd50k, mutate_bytes, share=2.0),
    "recordings": Reader(_recordings_seeds, _read_recordings, mutate_bytes, share=2.0),
    "class-names": Reader(_names_seeds, _read_names, mutate_json, share=3.0),
    "toml": Reader(_toml_seeds, _read_toml, mutate_bytes, share=1.0),
    "manifest": Reader(
        _manifest_seeds, functools.partial(_read_run_file, "manifest.json"), mutate_json, share=0.4
    ),
    "metrics": Reader(
        functools.partial(_file_of_run, "metrics.json"),
        functools.partial(_read_run_file, "metrics.json"), mutate_json, share=0.5,
    ),
    "curves": Reader(
        functools.partial(_file_of_run, "curves.csv"),
        functools.partial(_read_run_file, "curves.csv"), mutate_bytes, share=0.4,
    ),
    "split": Reader(_split_seeds, _read_split, mutate_json, share=4.0),
    "model": Reader(
        _model_seeds, functools.partial(_load_network, "model.json"), mutate_json, share=0.2
    ),
    "decisions": Reader(_decisions_seeds, _read_decisions, mutate_zip, share=1.5),
    "safetensors": Reader(_safetensors_seeds, _read_safetensors, mutate_safetensors, share=1.0),
    "lightning": Reader(_lightning_seeds, _read_lightning, mutate_zip, share=0.7),
    "onnx": Reader(_onnx_seeds, _read_onnx, mutate_bytes, share=3.0),
    "tflite": Reader(_tflite_seeds, _read_onnx, mutate_bytes, share=2.0),
    "baseline": Reader(_baseline_seeds, _read_baseline, mutate_zip, share=1.5),
    "onnx-run": Reader(_onnx_seeds, _run_onnx, mutate_bytes, share=0.4),
}  # fmt: skip


# --- one input -----------------------------------------------------------------------------------


@dataclass
class Finding:
    reader: str
    number: int
    what: str
    count: int = 1


@dataclass
class Outcome:
    """What became of the inputs of one reader."""

    reader: str
    inputs: int = 0
    results: int = 0
    refusals: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    peak_mib: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, number: int, what: str) -> None:
        if what in self.findings:
            self.findings[what].count += 1
        else:
            self.findings[what] = Finding(self.reader, number, what)


def input_of(
    name: str, seed: int, number: int, seeds: list[tuple[str, bytes]], mutate: Mutate
) -> tuple[str, bytes]:
    """The ending and content of one input; number 0, 1 ... give the seeds themselves first."""
    if number < len(seeds):
        return seeds[number]
    draw = random.Random(f"{name} {seed} {number}")
    ending, content = draw.choice(seeds)
    same_kind = [other for kind, other in seeds if kind == ending]
    return ending, mutate(draw, content, same_kind)


def _where(error: BaseException) -> str:
    """Type of the error, and the last line of this project that it passed through."""
    ours = [
        frame for frame in traceback.extract_tb(error.__traceback__)
        if "/site-packages/" not in frame.filename and "/lib/python" not in frame.filename
    ]  # fmt: skip
    last = ours[-1] if ours else traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {str(error)[:80]}"
    return f"{text} at {Path(last.filename).name}:{last.lineno}"


_watched: dict[str, Any] = {"scratch": None, "bad": []}
_FORBIDDEN = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen",
    "socket.connect", "socket.getaddrinfo", "os.chmod", "os.chown", "os.symlink", "os.link",
    "os.truncate", "ctypes.dlopen", "pty.spawn", "webbrowser.open",
}  # fmt: skip
_WRITING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    scratch = _watched["scratch"]
    if scratch is None:
        return
    if event in _FORBIDDEN:
        _watched["bad"].append(f"{event} {str(arguments)[:80]}")
    elif event == "open":
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        if writes and isinstance(path, (str, bytes)) and not os.fsdecode(path).startswith(scratch):
            _watched["bad"].append(f"writes {os.fsdecode(path)[:80]}")
    elif event in _WRITING and not str(arguments[0]).startswith(scratch):
        _watched["bad"].append(f"{event} {str(arguments[0])[:80]}")


def _try(reader: Reader, ending: str, content: bytes, scratch: Path, show: bool = False) -> str:
    """ "result", "refusal", or what is wrong."""
    from compress.errors import InputError

    path = scratch / f"input{ending}"
    path.write_bytes(content)
    _watched["bad"].clear()
    try:
        reader.read(path, scratch)
        outcome = "result"
    except InputError as error:
        outcome = "refusal" if str(error).strip() else "an InputError without a word"
    except BaseException as error:
        if show:
            traceback.print_exc()
        outcome = _where(error)
    if _watched["bad"]:
        outcome = str(_watched["bad"][0])
    canary = scratch.parent / f"{scratch.name}-canary"
    if canary.exists():
        canary.rmdir()
        outcome = "code from the file was run"
    return outcome


# --- many inputs ---------------------------------------------------------------------------------


def _worker(
    name: str, reader: Reader, seed: int, numbers: range, scratch: Path, memory_mib: int, pipe: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    seeds = reader.seeds(scratch)
    for ending, content in seeds:  # what loads later must not count as memory of an input
        _try(reader, ending, content, scratch)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_mib * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 2**20,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _watched["scratch"] = str(scratch)
    sys.addaudithook(_watch)
    for number in numbers:
        ending, content = input_of(name, seed, number, seeds, reader.mutate)
        started = time.monotonic()
        outcome = _try(reader, ending, content, scratch)
        taken = time.monotonic() - started
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        pipe.send((number, outcome, taken, peak))
    pipe.send(None)


def fuzz(
    name: str, inputs: int, seed: int = 0, seconds: float = 10.0, memory_mib: int = 2048
) -> Outcome:
    """Run ``inputs`` inputs of a reader in child processes."""
    outcome = Outcome(name)
    started = time.monotonic()
    first = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_fast_folder()) as folder:
        scratch = Path(folder) / name
        while first < inputs:
            scratch.mkdir(exist_ok=True)
            ours, theirs = forking.context.Pipe(duplex=False)
            work = (name, READERS[name], seed, range(first, inputs), scratch, memory_mib, theirs)
            child = forking.context.Process(target=_worker, args=work)
            child.start()
            theirs.close()
            done = _collect(ours, outcome, seconds)
            if done:
                child.join()
                break
            child.kill()
            child.join()
            number = max(first, outcome.inputs)  # each input is told of before the next begins
            outcome.inputs = number + 1
            hung = child.exitcode == -signal.SIGKILL
            what = f"took over {seconds} s" if hung else f"ended with {child.exitcode}"
            outcome.add(number, what)
            first = number + 1
            shutil.rmtree(scratch, ignore_errors=True)
    outcome.seconds = time.monotonic() - started
    return outcome


def _collect(pipe: Any, outcome: Outcome, seconds: float) -> bool:
    """Take what the child says; False where it says nothing more before its end."""
    patience = 120.0  # until the first answer: it loads libraries
    while True:
        if not pipe.poll(patience):
            return False
        try:
            said = pipe.recv()
        except EOFError:
            return False
        if said is None:
            return True
        number, what, taken, peak = said
        patience = seconds
        outcome.inputs = number + 1
        outcome.slowest = max(outcome.slowest, taken)
        outcome.peak_mib = max(outcome.peak_mib, peak)
        if what == "result":
            outcome.results += 1
        elif what == "refusal":
            outcome.refusals += 1
        else:
            outcome.add(number, what)


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def fuzz_guided(name: str, inputs: int, seed: int, folder: Path) -> Outcome:
    """The same with atheris: inputs that reach new lines of our code are kept and mutated on.

    Ends this process, as libFuzzer does; what it found lies in ``folder``/findings.json.
    """
    import atheris

    with atheris.instrument_imports(include=["compress", "students", "reports", "teachers"]):
        import compress.report
        import compress.student_runs
        import compress.verification  # noqa: F401
    scratch = folder / name
    scratch.mkdir(parents=True, exist_ok=True)
    reader = READERS[name]
    seeds = reader.seeds(scratch)
    kinds = sorted({ending for ending, _ in seeds})
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, (ending, content) in enumerate(seeds):
        (corpus / f"{number}").write_bytes(bytes([kinds.index(ending)]) + content)
    outcome = Outcome(name)
    _watched["scratch"] = str(folder)
    sys.addaudithook(_watch)

    def one(data: bytes) -> None:
        ending = kinds[data[0] % len(kinds)] if data else kinds[0]
        what = _try(reader, ending, data[1:], scratch)
        outcome.inputs += 1
        if what == "result":
            outcome.results += 1
        elif what == "refusal":
            outcome.refusals += 1
        else:
            if what not in outcome.findings:
                (folder / f"finding-{len(outcome.findings)}").write_bytes(data)
            outcome.add(outcome.inputs, what)
        if outcome.inputs >= inputs:
            said = vars(outcome) | {"findings": [vars(f) for f in outcome.findings.values()]}
            (folder / "findings.json").write_text(json.dumps(said))
            os._exit(0)

    def mutate(data: bytes, most: int, draw_seed: int) -> bytes:
        draw = random.Random(draw_seed)
        kind = data[:1] or b"\x00"
        content = reader.mutate(draw, data[1:], [content for _, content in seeds])
        return (kind + content)[:most]

    arguments = [sys.argv[0], f"-seed={seed + 1}", "-max_len=400000", "-timeout=20",
                 "-rss_limit_mb=6000", "-verbosity=0", str(corpus)]  # fmt: skip
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--reader", choices=["all", *READERS], default="all")
    parser.add_argument("--inputs", type=int, default=2000, help="inputs per reader (times share)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="most per input")
    parser.add_argument("--memory", type=int, default=2048, help="most address space [MiB]")
    parser.add_argument("--only", type=int, help="run this one input, here, with its traceback")
    parser.add_argument("--engine", choices=["mutation", "atheris"], default="mutation")
    given = parser.parse_args()
    names = list(READERS) if given.reader == "all" else [given.reader]
    if given.only is not None:
        return _show(names[0], given.seed, given.only)
    if given.engine == "atheris":
        return _guided(names, given.inputs, given.seed)
    total = found = 0
    for name in names:
        inputs = max(1, round(given.inputs * READERS[name].share))
        outcome = fuzz(name, inputs, given.seed, given.seconds, given.memory)
        total += outcome.inputs
        found += len(outcome.findings)
        _print(outcome)
    print(f"{total:,} inputs, {found} findings")
    return 1 if found else 0


def _print(outcome: Outcome) -> None:
    print(
        f"{outcome.reader:<12} {outcome.inputs:>7,} inputs: {outcome.results:,} read, "
        f"{outcome.refusals:,} refused; {outcome.seconds:.0f} s, slowest {outcome.slowest:.2f} s, "
        f"peak +{outcome.peak_mib:.0f} MiB",
        flush=True,
    )
    for finding in outcome.findings.values():
        print(f"  FINDING x{finding.count}, first --only {finding.number}: {finding.what}",
              flush=True)  # fmt: skip


def _show(name: str, seed: int, number: int) -> int:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        scratch = Path(folder) / name
        scratch.mkdir()
        reader = READERS[name]
        ending, content = input_of(name, seed, number, reader.seeds(scratch), reader.mutate)
        print(repr(content[:2000]))
        outcome = _try(reader, ending, content, scratch, show=True)
        print(outcome)
        return int(outcome not in ("result", "refusal"))


def _guided(names: list[str], inputs: int, seed: int) -> int:
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("error: atheris is not installed; pip install '.[fuzz]', or leave out --engine",
              file=sys.stderr)  # fmt: skip
        return 2
    found = total = 0
    context = multiprocessing.get_context("spawn")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_fast_folder()) as folder:
            wanted = max(1, round(inputs * READERS[name].share))
            started = time.monotonic()
            child = context.Process(target=fuzz_guided, args=(name, wanted, seed, Path(folder)))
            child.start()
            child.join()
            file = Path(folder) / "findings.json"
            said = json.loads(file.read_text()) if file.is_file() else {"inputs": 0, "findings": []}
            outcome = Outcome(name, said["inputs"], said.get("results", 0), said.get("refusals", 0),
                              time.monotonic() - started)  # fmt: skip
            for finding in said["findings"]:
                outcome.findings[finding["what"]] = Finding(**finding)
            if not file.is_file():
                outcome.add(0, f"the process ended with {child.exitcode}")
            _print(outcome)
            total += outcome.inputs
            found += len(outcome.findings)
    print(f"{total:,} inputs, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
