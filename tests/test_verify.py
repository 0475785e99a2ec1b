"""What a run recorded is found again, and everything that was changed is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress import baseline, cli, export, quantize, runs, verify
from compress.config import (
    BaselineConfig,
    ExportConfig,
    QuantizeConfig,
    VerifyConfig,
)


def verified(*arguments: object) -> int:
    return cli.main(VerifyConfig, verify.run, "", [str(argument) for argument in arguments])


def change_json(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def hide(folder: Path, name: str) -> None:
    """Give the manifest the hash of a changed file, as somebody who covers it up would."""
    digest = runs.sha256_file(folder / name)
    change_json(folder / runs.MANIFEST, lambda m: m["artefacts"].update({name: digest}))


@pytest.fixture
def copied(finished_run, tmp_path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))


@pytest.fixture(scope="module")
def int8_run(finished_run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "run"
    given = ["--run", str(finished_run), "--out", str(out), "--samples", "32"]
    assert cli.main(QuantizeConfig, quantize.run, "", given) == 0
    return out


def test_finished_runs_are_the_same(finished_run, int8_run, capsys):
    assert verified(finished_run, int8_run) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["same", "same", "2"]
    counted = int(printed[0].split(": ")[1].split()[0])
    classes = 5
    # Per side: accuracy with its interval, loss, a recall per class, confusion, calibration error,
    # clips, recordings. That these are all is what makes "same" worth something.
    assert counted > 2 * (8 + classes) + 7


def figures(path: tuple[str, ...], value: object):
    def change(metrics: dict) -> None:
        for key in path[:-1]:
            metrics = metrics[key]
        metrics[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "path",
    [
        ("params",),
        ("file_params",),
        ("macs",),
        ("file_bytes",),
        ("peak_activation_bytes",),
        ("sha256",),
        ("splits", "test", "accuracy"),
        ("splits", "validation", "loss"),
        ("splits", "test", "recall", "alarm"),
        ("splits", "test", "confusion"),
        ("splits", "test", "accuracy_low"),
        ("agreement", "top1"),
    ],
)
def test_a_changed_figure_is_named_even_where_its_hash_was_made_to_fit(path, copied, capsys):
    change_json(copied / runs.METRICS, figures(path, 0.125))
    hide(copied, runs.METRICS)
    assert verified(copied, *(["--files-only"] if len(path) == 1 else [])) == 1
    (named,) = [line for line in capsys.readouterr().out.splitlines() if ": recorded" in line]
    assert named.strip().startswith(
        f"metrics.{path[0]}: " if len(path) == 1 else f"{'.'.join(path)}: "
    )
    assert "0.125" in named


def test_changed_weights_in_the_file_are_named(copied, capsys):
    model = onnx.load(copied / runs.ONNX)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 2 and len(values) == 5 or values.ndim == 2 and values.shape[1] == 5:
            tensor.CopyFrom(numpy_helper.from_array(np.roll(values, 1, 0).copy(), tensor.name))
    onnx.save(model, copied / runs.ONNX)
    assert verified(copied) == 1
    printed = capsys.readouterr().out
    for what in ("model.onnx sha256", "metrics.sha256", "splits.test.loss", "test_decisions.npz"):
        assert what in printed


def test_another_file_under_the_name_of_an_artefact_is_named(copied, capsys):
    (copied / runs.CURVES).write_text("epoch\n1\n")
    (copied / runs.SPLIT).unlink()
    assert verified(copied, "--files-only") == 1
    printed = capsys.readouterr().out
    assert "curves.csv sha256" in printed and "split.json sha256" in printed
    assert "found nothing" in printed


def test_no_name_in_a_manifest_leads_out_of_the_folder(copied, tmp_path, capsys):
    (tmp_path / "secret").write_text("x")
    names = {"../secret": runs.sha256_file(tmp_path / "secret"), "/dev/zero": "0", "": "0"}
    (copied / "link").symlink_to(tmp_path / "secret")
    names["link"] = names["../secret"]
    change_json(copied / runs.MANIFEST, lambda m: m["artefacts"].update(names))
    assert verified(copied, "--files-only") == 1
    assert f"4 of {4 + 7 + 6} hashes" in capsys.readouterr().out
    assert sorted(runs.missing(copied, runs.open_run(copied).manifest)) == sorted(names)


def test_changed_data_in_the_cache_is_named(copied, tmp_path, own_cache, capsys):
    cache = Path(shutil.copytree(own_cache, tmp_path / "cache"))
    wanted = runs.open_run(copied).manifest["data"]["content_hash"]
    for file in cache.glob("sets/*/set.json"):
        if json.loads(file.read_text())["content_hash"] == wanted:
            codes = np.load(file.parent / "spectrograms.npy", mmap_mode="r+")
            codes[0, 0, 0] += 1
            codes.flush()
    assert verified(copied, "--cache", cache) == 1
    assert "data content: recorded" in capsys.readouterr().out


def test_data_that_is_gone_is_said_in_one_line_and_can_be_given(copied, npy_data, tmp_path, capsys):
    assert verified(copied, "--cache", tmp_path / "empty") == 2
    assert "is not in the cache any more" in capsys.readouterr().out
    assert verified(copied, "--cache", tmp_path / "other", "--data", npy_data) == 0


def test_a_lost_parent_is_noted_and_a_changed_one_is_named(
    int8_run, finished_run, tmp_path, capsys
):
    out = Path(shutil.copytree(int8_run, tmp_path / "int8"))
    parent = Path(shutil.copytree(finished_run, tmp_path / "parent"))
    change_json(out / runs.MANIFEST, lambda m: m["parent"].update(folder=str(parent)))
    assert verified(out, "--files-only") == 0
    assert "not recomputed: data" in capsys.readouterr().out
    content = bytearray((parent / runs.WEIGHTS).read_bytes())
    content[-1] ^= 1
    (parent / runs.WEIGHTS).write_bytes(content)
    assert verified(out, "--files-only") == 1
    assert "parent audiobot50 weights: recorded" in capsys.readouterr().out
    shutil.rmtree(parent)
    assert verified(out) == 0
    printed = capsys.readouterr().out
    assert "not there any more" in printed and "agreement with the file it was made of" in printed


def test_a_foreign_manifest_among_the_runs_is_one_verdict(copied, tmp_path, capsys):
    root = tmp_path / "all"
    shutil.copytree(copied, root / "run")
    (root / "foreign").mkdir()
    (root / "foreign" / runs.MANIFEST).write_text('{"name": "of another program"}')
    assert verified("--runs", root) == 2
    printed = capsys.readouterr().out
    assert "foreign" in printed and "the same" in printed, "the others are verified"


def test_what_cannot_be_read_exits_2_and_the_others_are_verified(copied, tmp_path, capsys):
    assert verified(tmp_path / "none", copied, "--files-only") == 2
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("ERROR") and "no such run folder" in printed[0]
    assert printed[1].startswith("same")
    change_json(copied / runs.MANIFEST, lambda m: m.update(status="running"))
    assert verified(copied) == 2
    assert verified("--runs", tmp_path / "none") == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- every kind of run ---------------------------------------------------------------------------


def _exported(form: str, int8_run: Path, out: Path) -> int:
    given = ["--run", str(int8_run), "--format", form, "--out", str(out)]
    return cli.main(ExportConfig, export.run, "", given)


@pytest.fixture(scope="module")
def c_run(int8_run, tmp_path_factory) -> Path:
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("no C compiler")
    out = tmp_path_factory.mktemp("c") / "run"
    assert _exported("c", int8_run, out) == 0
    return out


def test_c_is_compiled_and_asked_again_but_never_code_that_was_changed(c_run, tmp_path, capsys):
    assert verified(c_run) == 0
    assert "accuracy of model.c" not in capsys.readouterr().out
    changed = Path(shutil.copytree(c_run, tmp_path / "c"))
    change_json(changed / runs.METRICS, figures(("bit_exact", "unequal"), 3))
    hide(changed, runs.METRICS)
    assert verified(changed) == 1
    assert "bit_exact.unequal: recorded 3, found 0" in capsys.readouterr().out
    with (changed / "kernels.c").open("a") as file:
        file.write("#error is not compiled\n")
    assert verified(changed) == 1
    printed = capsys.readouterr().out
    assert "kernels.c sha256: recorded" in printed
    assert "kernels.c is not what was exported, so the code is not compiled and run" in printed


def test_tflite_is_asked_again(int8_run, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    assert _exported("tflite", int8_run, tmp_path / "run") == 0
    assert verified(tmp_path / "run") == 0
    change_json(
        tmp_path / "run" / runs.METRICS, figures(("agreement", "largest_code_difference"), 99)
    )
    hide(tmp_path / "run", runs.METRICS)
    capsys.readouterr()
    assert verified(tmp_path / "run") == 1
    assert "agreement.largest_code_difference: recorded 99" in capsys.readouterr().out


def test_a_baseline_is_asked_again_and_its_arrays_are_counted(npy_data, tmp_path, capsys):
    pytest.importorskip("sklearn")
    out = tmp_path / "run"
    given = ["--baseline", "naive-bayes", "--data", str(npy_data), "--out", str(out)]
    assert cli.main(BaselineConfig, baseline.run, "", given) == 0
    assert verified(out) == 0
    assert "not recomputed" not in capsys.readouterr().out
    for path in (("params",), ("splits", "test", "accuracy")):
        change_json(out / runs.METRICS, figures(path, 0.125))
    hide(out, runs.METRICS)
    assert verified(out) == 1
    printed = capsys.readouterr().out
    assert "metrics.params: recorded" in printed and "splits.test.accuracy: recorded" in printed


def test_a_pipeline_names_stages_that_are_other_files_now(copied, tmp_path, capsys):
    digest = runs.open_run(copied).metrics()["sha256"]
    stages = [
        {"stage": "distill", "folder": str(copied), "sha256": digest},
        {"stage": "report", "folder": str(tmp_path / "report"), "sha256": None},
    ]
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "pipeline.json").write_text(json.dumps({"stages": stages}))
    assert verified(tmp_path / "quick") == 0
    (copied / runs.ONNX).write_bytes(b"x")
    assert verified(tmp_path / "quick") == 1
    assert "distill copy sha256: recorded" in capsys.readouterr().out
    shutil.rmtree(copied)
    assert verified(tmp_path / "quick") == 1
    (tmp_path / "quick" / "pipeline.json").write_text('{"stages": 3}')
    assert verified(tmp_path / "quick") == 2
