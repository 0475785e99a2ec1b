"""Which run was made of which, as a tree of text and as a drawing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import run_folders

from compress import budgets, cli, report, runs
from compress.config import ReportConfig
from reports import lineage, tables
from reports.records import Entry, Origin, Record


def made_of(folder: Path, parent: Path | None = None, teachers: tuple[Path, ...] = ()) -> Path:
    """Give a fabricated run its weights, and references to what it was made of."""
    (folder / runs.WEIGHTS).write_text(f"weights of {folder.name}")
    manifest = json.loads((folder / runs.MANIFEST).read_text())
    digest = runs.sha256_file(folder / runs.WEIGHTS)
    manifest["artefacts"] = {runs.WEIGHTS: digest}
    manifest["parent"] = parent and _reference(parent)
    manifest["teachers"] = [_reference(teacher) for teacher in teachers]
    (folder / runs.MANIFEST).write_text(json.dumps(manifest))
    return folder


def _reference(folder: Path) -> dict[str, str]:
    name = json.loads((folder / runs.MANIFEST).read_text())["name"]
    return {
        "folder": str(folder),
        "name": name,
        "weights_sha256": runs.sha256_file(folder / runs.WEIGHTS),
    }


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Two teachers, a student of both, pruned under one of them; a twin without any."""
    root = tmp_path / "runs"
    make = run_folders.make
    first = made_of(make(root, "t1", name="resnet18", stage="teach", accuracy=0.95))
    second = made_of(make(root, "t2", name="resnet34", stage="teach", accuracy=0.96))
    student = made_of(make(root, "s", name="dsc50"), None, (first, second))
    made_of(make(root, "p", name="dsc50", stage="prune", accuracy=0.9), student, (first,))
    made_of(make(root, "w", name="twin", stage="train", accuracy=0.9))
    return root


def tree(root: Path) -> list[str]:
    entries, _ = report.gather(root, budgets.Budgets())
    return lineage.text_tree(entries)


def test_a_run_stands_below_what_it_was_made_of(family: Path) -> None:
    lines = [line.partition(":")[0] for line in tree(family)]
    assert lines == [
        "teach resnet18",
        "└─ distill dsc50",
        "   └─ prune dsc50",
        "teach resnet34",
        "train twin",
    ]
    assert "taught by resnet34" in tree(family)[1] and "taught by" not in tree(family)[2]


def test_an_ensemble_stands_below_its_first_member_and_its_folds_are_one_row(tmp_path) -> None:
    """Of two folds: the same networks, trained and combined in each."""
    for fold in (1, 2):
        made = {"fold": fold, "accuracy": 0.9}
        members = [
            made_of(run_folders.make(tmp_path, f"{name}{fold}", name=name, stage="train", **made))
            for name in ("dsc50", "tfnet50")
        ]
        hashes = {"members": [runs.sha256_file(member / runs.WEIGHTS) for member in members]}
        both = {"stage": "ensemble", "settings": hashes, **made}
        made_of(run_folders.make(tmp_path, f"both{fold}", name="both", **both))
        file = tmp_path / f"both{fold}" / runs.MANIFEST
        references = {"members": [_reference(member) for member in members]}
        file.write_text(json.dumps(json.loads(file.read_text()) | references))
    entries, _ = report.gather(tmp_path, budgets.Budgets())
    ensembles = [entry for entry in entries if entry.record.stage == "ensemble"]
    assert len({entry.group for entry in ensembles}) == 1
    assert {entry.variant for entry in ensembles} == {"fold 1", "fold 2"}
    lines = lineage.text_tree(entries)
    at = next(i for i, line in enumerate(lines) if line.startswith("└─ ensemble both (fold 1)"))
    assert lines[at - 1].startswith("train dsc50 (fold 1)")
    assert lines[at].endswith("together with tfnet50 (fold 1)")
    for fold in (1, 2):
        shutil.rmtree(tmp_path / f"dsc50{fold}")
    entries, _ = report.gather(tmp_path, budgets.Budgets())
    left = [entry for entry in entries if entry.record.stage == "ensemble"]
    assert len({entry.group for entry in left}) == 2, "nothing says that their members are alike"


def test_an_outside_file_has_no_parent_and_an_ensemble_is_known_by_its_file(family: Path) -> None:
    for folder, stage, parent in (
        ("baseline", "baseline", None),
        ("q", "quantize", {"folder": None, "file": "/elsewhere/foreign.onnx", "name": "foreign"}),
        ("ensemble", "ensemble", None),
    ):
        made = run_folders.make(family, folder, name=folder, stage=stage)
        manifest = json.loads((made / runs.MANIFEST).read_text())
        manifest["artefacts"] = {runs.ONNX: runs.sha256_file(made / runs.ONNX)}
        manifest["parent"] = parent
        (made / runs.MANIFEST).write_text(json.dumps(manifest))
    student = made_of(run_folders.make(family, "of", name="dsc500"))
    manifest = json.loads((student / runs.MANIFEST).read_text())
    manifest["teachers"] = [runs.open_run(family / "ensemble").reference()]
    (student / runs.MANIFEST).write_text(json.dumps(manifest))
    entries, _ = report.gather(family, budgets.Budgets())
    origins = {
        Path(entry.run).name: [Path(origin.run).name for origin in entry.origins]
        for entry in entries
    }
    assert origins["q"] == [""], "not that of a run without weights"
    assert origins["of"] == ["ensemble"]


def test_a_moved_folder_is_found_by_its_hash_and_a_changed_one_is_not(family: Path) -> None:
    (family / "s").rename(family / "moved")
    assert [line.partition(":")[0] for line in tree(family)][2] == "   └─ prune dsc50"
    made_of(family / "moved", None, ())
    manifest = json.loads((family / "moved" / runs.MANIFEST).read_text())
    manifest["artefacts"][runs.WEIGHTS] = "0" * 64
    (family / "moved" / runs.MANIFEST).write_text(json.dumps(manifest))
    (pruned,) = [line for line in tree(family) if "prune" in line]
    assert "made of what is not here: parent dsc50" in pruned


def test_the_page_draws_a_box_for_each_run_and_a_line_for_each_origin(
    family: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(family)]) == 0
    assert "└─ distill dsc50: 92.0 %" in capsys.readouterr().out
    assert "    └─ distill dsc50" in (family / "report" / "report.md").read_text()
    page = (family / "report" / "report.html").read_text()
    start = page.index("<svg", page.index("What was made of what"))
    svg = ElementTree.fromstring(page[start : page.index("</svg>", start) + 6])
    kinds = [part.get("class") for part in svg]
    assert kinds.count("run") == 5
    # the first teacher's line, the second one's, and the solid one to the pruned run
    assert kinds.count("lineage taught") == 2 and kinds.count("lineage") == 1


def test_without_origins_there_is_no_tree(tmp_path: Path) -> None:
    run_folders.make(tmp_path, "a")
    assert tree(tmp_path) == []


def test_manifests_that_name_each_other_end_somewhere() -> None:
    def entry(run: str, parent: str) -> Entry:
        return Entry(Record(run, "prune"), run=run, origins=(Origin("parent", parent, parent),))

    rows = lineage.branches([entry("a", "b"), entry("b", "a"), entry("c", "c")])
    assert sorted(row.entry.run for row in rows) == ["a", "b", "c"]
    assert lineage.drawing([entry("a", "b"), entry("b", "a")])


def test_memory_on_the_chip_stands_on_the_page(tmp_path: Path) -> None:
    """A run that was measured before flash was counted gets it from its file."""
    import model_files

    folder = run_folders.make(tmp_path, "q", stage="quantize")
    path = model_files.quantised(folder / "model.onnx", 8)
    metrics = json.loads((folder / runs.METRICS).read_text())
    metrics["sha256"] = runs.sha256_file(path)
    (folder / runs.METRICS).write_text(json.dumps(metrics))
    assert cli.main(ReportConfig, report.run, "", ["--runs", str(tmp_path)]) == 0
    (record,) = json.loads((tmp_path / "report" / "report.json").read_text())
    assert record["flash_bytes"] == 329 and record["peak_layer"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "int8 dsc500: flash 329 B, peak RAM" in (tmp_path / "report" / "report.md").read_text()
    assert "flash 329 B" in page and tables.size(record["peak_activation_bytes"]) in page


def test_files_of_a_student_and_of_the_same_pruned_are_no_seeds_of_one(tmp_path: Path) -> None:
    """Two seeds: student, pruned one, and an int8 file of each with equal settings."""
    make = run_folders.make
    for seed in (0, 1):
        whole = made_of(make(tmp_path, f"s{seed}", seed=seed, settings={"recipe": "a"}))
        pruned = made_of(make(tmp_path, f"p{seed}", seed=seed, stage="prune"), whole)
        for kind, parent in (("of-s", whole), ("of-p", pruned)):
            made_of(make(tmp_path, f"{kind}{seed}", seed=seed, stage="quantize"), parent)
    longer = made_of(make(tmp_path, "longer", seed=2, settings={"recipe": "b"}))
    made_of(make(tmp_path, "of-longer", seed=2, stage="quantize"), longer)
    entries, _ = report.gather(tmp_path, budgets.Budgets())
    groups: dict[str, set[str]] = {}
    for entry in entries:
        groups.setdefault(entry.group, set()).add(Path(entry.run).name)
    wanted = [{f"{kind}{seed}" for seed in (0, 1)} for kind in ("s", "p", "of-s", "of-p")]
    wanted += [{"longer"}, {"of-longer"}]
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, wanted))
    assert {entry.record.seeds for entry in entries} == {1, 2}
