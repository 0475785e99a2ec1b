"""The report over fabricated runs: what is believed, what is flagged, what cannot break out."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import model_files
import pytest
import run_folders

from compress import cli, report
from compress.budgets import Budgets
from compress.config import ReportConfig
from reports import figures, html, records, svg, tables
from reports.records import Entry, Record, Report

ROOT = Path(__file__).parents[1]
KEYS = [
    "name", "stage", "data", "params", "file_params", "macs", "file_bytes",
    "peak_activation_bytes", "accuracy", "accuracy_low", "accuracy_high", "seeds", "recall",
    "latency_ms", "within_budget", "artifact", "sha256", "seed", "peak_layer", "flash_bytes",
    "latency_ratio", "expected_cost", "expected_cost_by_costs",
]  # fmt: skip


def reported(runs: Path, *more: object) -> int:
    return cli.main(ReportConfig, report.run, "", ["--runs", str(runs), *map(str, more)])


def written(runs: Path) -> list[dict[str, object]]:
    return json.loads((runs / "report" / "report.json").read_text())


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A teacher, two students, three seeds of one and two folds of real sound."""
    runs = tmp_path / "runs"
    make = run_folders.make
    make(runs, "t", name="resnet18", stage="teach", accuracy=0.95, params=11_000_000)
    make(runs, "small", name="dsc50", accuracy=0.90, params=49_000, macs=3_700_000)
    for seed, accuracy in enumerate((0.91, 0.93, 0.95)):
        make(runs, f"s{seed}", accuracy=accuracy, seed=seed)
    for fold, accuracy in ((1, 0.8), (2, 0.9)):
        make(runs, f"f{fold}", data="esc10", synthetic=False, accuracy=accuracy, fold=fold,
             classes=run_folders.TEN)  # fmt: skip
    return runs


def test_one_record_per_artefact_with_the_documented_keys(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reported(several) == 0
    found = written(several)
    assert len(found) == 7
    assert all(list(record) == KEYS for record in found)
    teacher = next(r for r in found if r["name"] == "resnet18")
    assert teacher["within_budget"] is False and teacher["seeds"] == 1
    student = next(r for r in found if r["accuracy"] == 0.93)
    assert student["seeds"] == 3 and student["within_budget"] is True
    assert student["artifact"] == str(several / "s1" / "model.onnx")
    assert set(student["recall"]) == set(run_folders.FIVE)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert "no: 10,500,000 parameters over" in out
    assert "93.0 ± 2.0 %" in out and "3 seeds" in out
    assert "85.0 ± 7.1 %" in out and "2 folds" in out
    last = out.splitlines()[-1]
    assert str(several / "report" / "report.html") in last and "Next: python -m" in last


def test_records_are_read_back_and_others_refused(several: Path) -> None:
    assert reported(several) == 0
    text = (several / "report" / "report.json").read_text()
    assert records.to_json(records.from_json(text)) == text
    for wrong in ("{}", "[1]", '[{"name": "x"}]', '[{"name": "x", "stage": "y", "z": 1}]', "["):
        with pytest.raises(ValueError):
            records.from_json(wrong)


def test_a_file_that_changed_loses_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    run_folders.make(runs, "kept", accuracy=0.9)
    changed = run_folders.make(runs, "changed", name="dsc50", accuracy=0.99)
    model_files.student(changed / "model.onnx", 9)
    lost = run_folders.make(runs, "lost", name="audiobot50", accuracy=0.98)
    (lost / "model.onnx").unlink()
    broken = run_folders.make(runs, "broken", name="audiobot500", accuracy=0.97)
    (broken / "model.onnx").write_bytes(b"nothing")
    outside = run_folders.make(runs, "outside", accuracy=0.96)
    metrics = json.loads((outside / "metrics.json").read_text())
    metrics["artifact"] = "../kept/model.onnx"
    (outside / "metrics.json").write_text(json.dumps(metrics))

    assert reported(runs) == 0
    found = {str(r["name"]) + str(r["artifact"]): r for r in written(runs)}
    assert sum(r["accuracy"] is not None for r in found.values()) == 1
    anew = found[f"dsc50{changed / 'model.onnx'}"]
    assert anew["file_params"] == 27 * 9 + 5  # counted in the file that is there now
    assert anew["params"] is None and anew["latency_ms"] is None and anew["recall"] is None
    out = capsys.readouterr().out
    assert f"{changed}: model.onnx changed" in out
    assert f"{lost}: model.onnx is missing" in out
    assert f"{broken}: model.onnx changed since it was measured and cannot be read" in out
    assert f"{outside}: metrics.json names no file" in out
    page = (runs / "report" / "report.html").read_text()
    assert page.count("not valid</i>") == 4
    assert "99.0 %" not in page and "99.0 %" not in (runs / "report" / "report.md").read_text()


def test_unfinished_and_damaged_runs_are_listed_in_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    run_folders.make(runs, "good")
    run_folders.make(runs, "busy", status="running")
    run_folders.make(runs, "lost", status="failed")
    (run_folders.make(runs, "torn") / "metrics.json").write_text("{")
    (run_folders.make(runs, "none") / "metrics.json").unlink()
    (run_folders.make(runs, "bad") / "manifest.json").write_text("[]")
    (run_folders.make(runs, "curveless") / "curves.csv").write_bytes(b"\xff\xfe\x00,\n" * 3)
    odd = run_folders.make(runs, "odd", name="odd")
    metrics = json.loads((odd / "metrics.json").read_text())
    metrics |= {"params": "many", "macs": -1, "latency_ms": float("nan"), "file_bytes": 1e400}
    metrics["splits"]["test"] |= {"accuracy_low": None, "confusion": [[1]], "recall": [1]}
    (odd / "metrics.json").write_text(json.dumps(metrics))
    assert reported(runs) == 0
    found = written(runs)
    assert len(found) == 3
    strange = next(r for r in found if r["name"] == "odd")
    assert all(strange[key] is None for key in ("params", "macs", "latency_ms", "file_bytes"))
    out = capsys.readouterr().out
    for words in ("busy: running or interrupted", "lost: this run failed", "torn", "none", "bad"):
        assert words in out


def test_the_tile_of_the_best_student_says_that_it_leaves_out_teachers(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_folders.make(runs, "t", name="tfnet500", stage="teach", accuracy=0.97)
    run_folders.make(runs, "s", name="dsc50", accuracy=0.91)
    assert reported(runs) == 0
    page = (runs / "report" / "report.html").read_text()
    (tile,) = re.findall('<div class="tile">(.*?)</div>', page)
    assert "Best student within budget on scenes:6000" in tile and "91.0 %" in tile
    assert all(record["within_budget"] for record in written(runs))


def test_before_any_run_the_students_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from compress import registry

    assert reported(tmp_path / "runs") == 0
    found = {r["name"]: r for r in written(tmp_path / "runs")}
    assert list(found) == list(registry.STUDENTS)
    assert found["audiobot500"]["params"] == 499_853
    assert found["audiobot500"]["macs"] == pytest.approx(17.6e6, rel=0.01)
    assert all(r["accuracy"] is None and r["within_budget"] is True for r in found.values())
    out = capsys.readouterr().out
    assert "499,853" in out and out.splitlines()[-1].endswith("distill --student dsc500")
    assert "none trained yet" in (tmp_path / "runs" / "report" / "report.html").read_text()


def test_folders_that_cannot_be_used_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert reported(tmp_path / "file") == 2
    run_folders.make(tmp_path / "runs", "good")
    assert reported(tmp_path / "runs", "--out", tmp_path / "file") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(line.startswith("error: ") for line in errors)


def test_details_are_capped_and_that_is_said(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for index in range(6):
        run_folders.make(runs, f"r{index}", accuracy=0.8 + index / 100, settings={"i": index})
    assert reported(runs, "--details", 2) == 0
    page = (runs / "report" / "report.html").read_text()
    assert page.count("<article") == 2 and "2 of 6 runs" in page
    assert reported(runs, "--details", 0) == 0
    assert "<article" not in (runs / "report" / "report.html").read_text()


# --- what names from files can do ----------------------------------------------------------------

EVIL = '=1+1|`x`</td></svg><script>alert("1")</script>\n::error::\u202ex[a](http://x.y)@me'


class Tags(HTMLParser):
    """Tags and attributes of a page; raises where they are not nested."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [v or "" for name, v in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_names_cannot_break_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    classes = (EVIL, "b", "c")
    run_folders.make(runs, "evil", name=EVIL, data=EVIL, stage=EVIL, classes=classes)
    run_folders.make(runs, "other", name="-2+3", classes=classes)
    assert reported(runs) == 0
    folder = runs / "report"
    page = (folder / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert not tags.open and "script" not in tags.seen and tags.links == []
    assert not any(name.startswith("on") for name in tags.attributes)
    assert "\u202e" not in page

    lines = (folder / "report.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4 and "<script" not in "".join(lines)
    shown = len(tables.HEAD) - 1  # no costs: these runs recorded no decisions
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {shown + 1}
    assert not any("http://" in line or "@me" in line for line in lines)

    cells = list(csv.reader(io.StringIO((folder / "report.csv").read_text())))
    assert len(cells) == 3 and cells[0] == KEYS
    assert {row[0][:2] for row in cells[1:]} == {"'=", "'-"}
    out = capsys.readouterr().out
    assert not any(line.startswith("::") for line in out.splitlines()) and "\u202e" not in out


def test_the_page_needs_nothing_else(several: Path) -> None:
    assert reported(several) == 0
    page = (several / "report" / "report.html").read_text()
    assert "http" not in page.replace('http-equiv="', "")
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page and 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    for words in ("Confusion matrix", "Recall per class", "Training curves", "Pareto front"):
        assert words in page
    assert "These sounds are <b>synthetic</b>" in page


# --- pieces --------------------------------------------------------------------------------------


def test_pareto_front_by_hand() -> None:
    points = [(10, 0.9), (5, 0.8), (20, 0.9), (7, 0.7), (5, 0.85), (40, 0.95)]
    assert records.pareto_front(points) == [4, 0, 5]
    assert records.pareto_front([]) == []


def test_budget_in_words() -> None:
    limits = Budgets({"params": 100, "macs": 10})
    assert report.compare(Record("a", "b", params=101, macs=10), limits) == ({"params": 1}, False)
    # the file may hold more than was trained, then it counts
    over, within = report.compare(Record("a", "b", params=90, file_params=130, macs=1), limits)
    assert (over, within) == ({"params": 30}, False)
    assert report.compare(Record("a", "b", params=90), limits) == ({}, None)
    assert report.compare(Record("a", "b", params=90, macs=9), limits) == ({}, True)
    # figures that only some files have are no gap in the others; a least one is kept from above
    more = Budgets({"params": 100, "flash_bytes": 50, "accuracy": 0.9})
    assert report.compare(Record("a", "b", params=90), more) == ({}, True)
    small = Record("a", "b", params=90, flash_bytes=60, accuracy_low=0.88)
    over, within = report.compare(small, more)
    assert within is False and over == {"flash_bytes": 10, "accuracy": pytest.approx(0.02)}
    assert tables.budget(within, over).endswith("accuracy 2.0 points under the least")
    assert tables.budget(True, {}) == "yes"
    assert tables.budget(None, {}) == tables.MISSING
    assert tables.budget(False, {"params": 1234}) == "no: 1,234 parameters over"


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (850_000, "850 K"), (999_999, "1.0 M"), (17_600_000, "17.6 M"), (2e9, "2.00 G")],
)
def test_multiply_accumulates_in_words(value: int | None, words: str) -> None:
    assert tables.millions(value) == words


@pytest.mark.parametrize(("low", "high"), [(0.7, 0.71), (0, 1), (3, 3), (1e-9, 2e-9), (-5, 900)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = svg.linear_ticks(low, high, 5)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-6 <= tick <= high + 1e-6 for tick in found)


def test_logarithmic_ticks_and_scale() -> None:
    assert svg.log_ticks(40_000, 1_100_000, 6) == [50e3, 100e3, 200e3, 500e3, 1e6]
    scale = svg.Scale(1e3, 1e5, 0, 100, logarithmic=True)
    assert scale(1e4) == pytest.approx(50)


def test_figures_of_odd_entries() -> None:
    bare = Entry(Record("a", "train"))
    assert figures.confusion(bare) == figures.recalls(bare) == figures.training_curves(bare) == ""
    assert figures.accuracy_against([bare], lambda e: e.record.params, "parameters") == ""
    one = dataclasses.replace(
        bare,
        record=Record("a", "train", params=5, accuracy=1.0, recall={"x": None, "y": 1.0}),
        classes=("x", "y"),
        confusion=[[0, 0], [0, 3]],
        curves={"epoch": [1, 2], "train_loss": [1, float("nan")], "validation_loss": [1, 1]},
    )
    for drawn in (
        figures.confusion(one),
        figures.recalls(one),
        figures.training_curves(one),
        figures.accuracy_against([one], lambda e: e.record.params, "parameters", 5, "budget 5"),
    ):
        assert drawn.startswith("<svg") and "nan" not in drawn


def test_a_narrow_terminal_keeps_what_matters(several: Path) -> None:
    entries, _ = report.gather(several, Budgets())
    wide = tables.terminal(Report(entries))
    narrow = tables.terminal(Report(entries), width=120)
    assert "peak RAM" in wide.splitlines()[0]
    assert "peak RAM" not in narrow.splitlines()[0]
    for word in ("parameters", "accuracy", "within budget"):
        assert word in narrow.splitlines()[0]
    assert "left out for want of room" in narrow


def test_curves_as_a_picture(tmp_path: Path) -> None:
    folder = run_folders.make(tmp_path, "run")
    picture = tmp_path / ".curves.png.123.tmp"
    figures.save_training_curves(folder / "curves.csv", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "empty.csv").write_text("epoch\n")
    figures.save_training_curves(tmp_path / "empty.csv", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_reports_import_no_torch_and_no_matplotlib() -> None:
    program = (
        "import sys; import compress.report, reports.html; "
        "assert not {'torch', 'matplotlib', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_page_of_a_bare_report() -> None:
    page = html.page(Report([Entry(Record("x", "registered", params=3))]))
    assert "1 registered student" in page


def test_runs_that_differ_in_what_0_db_means_are_told_apart(tmp_path):
    from compress.frontend import FrontEnd

    for reference in ("clip", "fixed"):
        folder = run_folders.make(tmp_path, reference, accuracy=0.9)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["data"]["frontend"] = FrontEnd(reference=reference).to_dict()
        (folder / "manifest.json").write_text(json.dumps(manifest))
    entries, _ = report.gather(tmp_path, Budgets())
    assert {entry.record.data for entry in entries} == {"scenes:6000", "scenes:6000, 0 dB fixed"}
    manifest["data"]["drop_quiet_db"] = 20.0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    entries, _ = report.gather(tmp_path, Budgets())
    assert "scenes:6000, 0 dB fixed, pauses out (20 dB)" in {e.data_set for e in entries}
    manifest["data"].pop("drop_quiet_db")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    entries, _ = report.gather(tmp_path, Budgets())
    assert {entry.data_set for entry in entries} == {"scenes:6000", "scenes:6000, 0 dB fixed"}
