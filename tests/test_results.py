"""Results over seeds: intervals by hand and by simulation, pairs, the baseline, the README."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import run_folders
from scipy import stats

from compress import budgets, cli, evaluate, metrics, replicates, report, results, runs
from compress.config import ReportConfig
from compress.metrics import Decisions
from compress.replicates import Outcome
from reports import results as shown

CLIPS = np.arange(8)
RECORDINGS = np.repeat(np.arange(4), 2)


def outcome(seed: int, *values: float, clips: np.ndarray = CLIPS) -> Outcome:
    return Outcome(seed, np.array(values, float), clips, RECORDINGS)


# --- intervals -----------------------------------------------------------------------------------


def test_one_seed_has_the_interval_of_a_single_run() -> None:
    one = outcome(0, 1, 1, 1, 0, 1, 1, 0, 0)
    found = replicates.accuracy([one])
    assert found.mean == 5 / 8 and (found.seeds, found.clips) == (1, 8)
    assert (found.low, found.high) == pytest.approx(
        metrics.accuracy_interval(one.values, RECORDINGS)
    )


def test_gain_of_three_seeds_by_hand() -> None:
    """Each seed adds (0, 1/4, 1/2): mean 1/4, deviation 1/4, t = 4.303 with two degrees."""
    pairs = []
    for seed, more in enumerate((0, 2, 4)):
        twin = outcome(seed, *([0] * 8))
        taught = outcome(seed, *([1] * more + [0] * (8 - more)))
        pairs.append((taught, twin))
    found = replicates.gain(pairs)
    over_seeds = stats.t.ppf(0.975, 2) * 0.25 / math.sqrt(3)
    # clip means 2/3 2/3 1/3 1/3 0 0 0 0 in recordings of two: their sums about the mean 1/4 are
    # 5/6, 1/6, -1/2, -1/2, so the variance of the mean is 4/3 * 44/36 / 64
    over_clips = metrics.Z_95 * math.sqrt(4 / 3 * (44 / 36) / 64)
    half = math.hypot(over_seeds, over_clips)
    assert found.mean == pytest.approx(0.25)
    assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half))
    one = replicates.gain(pairs[1:2])
    assert one.seeds == 1 and one.high - one.low < found.high - found.low


def test_folds_of_a_seed_are_pooled() -> None:
    left = Outcome(0, np.ones(4), np.arange(4), np.arange(4))
    right = Outcome(0, np.zeros(4), np.arange(4, 8), np.arange(4, 8))
    found = replicates.accuracy([left, right])
    assert (found.mean, found.clips, found.seeds) == (0.5, 8, 1)


def test_pairs_of_other_clips_are_refused() -> None:
    here = outcome(0, *([1] * 8))
    with pytest.raises(ValueError, match="different clips"):
        replicates.gain([(here, outcome(0, *([1] * 8), clips=CLIPS + 1))])
    assert replicates.error_ratio([here], [outcome(0, *([0] * 8), clips=CLIPS + 1)]) is None


def test_ratio_of_errors_by_hand() -> None:
    """2 errors over 4: half as many; the influence of every clip as the delta method has it."""
    ours, base = outcome(0, 0, 0, 1, 1, 1, 1, 1, 1), outcome(0, 0, 0, 0, 1, 0, 1, 1, 1)
    found = replicates.error_ratio([ours], [base])
    assert found is not None and found.mean == pytest.approx(0.5)
    influence = np.array([4, 4, 0, 0, 0, 0, 0, 0]) - np.array([2, 2, 2, 0, 2, 0, 0, 0])
    half = metrics.Z_95 * math.sqrt(metrics.cluster_variance(influence, RECORDINGS))
    assert math.log(found.high / 0.5) == pytest.approx(half) == math.log(0.5 / found.low)
    same = replicates.error_ratio([ours], [ours])
    assert same is not None and (same.low, same.mean, same.high) == pytest.approx((1, 1, 1))
    assert replicates.error_ratio([ours], [outcome(0, *([1] * 8))]) is None


def test_intervals_hold_as_often_as_they_say() -> None:
    """Clips of unlike difficulty, seeds of unlike luck: at least 95 % of 400 intervals hold."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        difficulty = generator.normal(0, 1, 300)  # of the clips that came into the test
        seeds = []
        for seed in range(3):
            luck = generator.normal(0, 0.12)
            right = generator.normal(0, 1, 300) + difficulty + luck + 1.5 > 0
            seeds.append(Outcome(seed, right.astype(float), np.arange(300), np.arange(300)))
        truth = stats.norm.cdf(1.5 / math.sqrt(2 + 0.12**2))
        found = replicates.accuracy(seeds)
        held += found.low <= truth <= found.high
    assert held >= 0.94 * 400


# --- from run folders ----------------------------------------------------------------------------


def decided(folder: Path, seed: int, right: np.ndarray) -> None:
    """Test decisions of a fabricated run, five to a recording, and its accuracy."""
    count = len(right)
    labels = np.arange(count) % 5
    decisions = np.where(right, labels, (labels + 1) % 5)
    found = Decisions(np.eye(5)[decisions], labels, np.arange(count), np.arange(count) // 5)
    evaluate.save_decisions(folder / runs.DECISIONS, found)
    manifest = runs.read_json(folder / runs.MANIFEST)
    digest = runs.sha256_file(folder / runs.DECISIONS)
    manifest["artefacts"] = manifest.get("artefacts", {}) | {runs.DECISIONS: digest}
    manifest["device"] = "cpu, 1 threads"
    runs.write_json(folder / runs.MANIFEST, manifest)
    measured = runs.read_json(folder / runs.METRICS)
    measured["splits"]["test"]["accuracy"] = float(right.mean())
    runs.write_json(folder / runs.METRICS, measured | {"seconds": 100.0 + seed})


def change(folder: Path, **values: object) -> None:
    runs.write_json(folder / runs.MANIFEST, runs.read_json(folder / runs.MANIFEST) | values)


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Three seeds of a student with teacher and without, their int8 files, and audiobot500."""
    root = tmp_path / "runs"
    recipe = {"recipe": {"epochs": 24}, "arguments": {"widths": [8]}}
    generator = np.random.default_rng(1)
    luck = generator.random(200)
    for seed in range(3):
        for stage, share in (("train", 0.80), ("distill", 0.90)):
            folder = run_folders.make(root, f"{stage}{seed}", name="dsc50", stage=stage, seed=seed,
                                      params=49_000, macs=3_700_000, settings=recipe)  # fmt: skip
            decided(folder, seed, luck + generator.normal(0, 0.02, 200) < share)
            weights = f"weights of {stage}{seed}"
            change(folder, artefacts=runs.read_json(folder / runs.MANIFEST)["artefacts"]
                   | {runs.WEIGHTS: weights})  # fmt: skip
            if stage == "distill":
                change(folder, teachers=[{"name": "resnet10t", "folder": "gone"}])
                small = run_folders.make(root, f"int8-{seed}", name="dsc50", stage="quantize",
                                         seed=seed, params=49_000, macs=3_700_000)  # fmt: skip
                decided(small, seed, luck < share - 0.01)
                change(small, parent={"name": "dsc50", "weights_sha256": weights,
                                      "folder": str(folder)})  # fmt: skip
        base = run_folders.make(root, f"base{seed}", name="audiobot500", stage="train", seed=seed,
                                settings={"recipe": {"epochs": 150}})  # fmt: skip
        decided(base, seed, luck + generator.normal(0, 0.02, 200) < 0.85)
    return root


def reported(root: Path, *more: object) -> int:
    return cli.main(ReportConfig, report.run, "", ["--runs", str(root), *map(str, more)])


def test_seeds_make_one_row_with_gain_ratio_and_int8(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reported(several, "--results") == 0
    rows = {(r["name"], r["stage"]): r for r in
            json.loads((several / "report" / "results.json").read_text())}  # fmt: skip
    assert set(rows) == {("dsc50", "train"), ("dsc50", "distill"), ("audiobot500", "train")}
    taught, twin = rows["dsc50", "distill"], rows["dsc50", "train"]
    assert taught["seeds"] == [0, 1, 2] and len(taught["runs"]) == len(taught["sha256"]) == 3
    assert taught["made"] == "distilled from resnet10t, 24 epochs"
    assert taught["seconds"] == 101.0 and taught["device"] == "cpu, 1 thread"
    gain = taught["teacher_gain"]
    difference = taught["accuracy"]["mean"] - twin["accuracy"]["mean"]
    assert gain["mean"] == pytest.approx(difference) and gain["seeds"] == 3
    assert 0 < gain["low"] < gain["mean"] < gain["high"]
    assert twin["teacher_gain"] is None
    base = rows["audiobot500", "train"]
    ratio = taught["error_ratio"]
    wanted = (1 - taught["accuracy"]["mean"]) / (1 - base["accuracy"]["mean"])
    assert ratio["mean"] == pytest.approx(wanted) and ratio["low"] < ratio["mean"] < 1
    assert base["error_ratio"] is None
    assert taught["int8_bytes"] == 4 * 49_000 + 20_000
    assert -0.03 < taught["int8_gain"]["mean"] < 0.01 and twin["int8_bytes"] is None
    text = (several / "report" / "results.md").read_text()
    assert "errors over audiobot500's" in text and "3 seeds" in text
    assert (several / "report" / "pareto-scenes-6000.png").read_bytes().startswith(b"\x89PNG")
    assert "results.md" in capsys.readouterr().out


def test_where_weights_came_from_is_told(several: Path) -> None:
    for seed in range(3):
        start = {"folder": f"runs/dsc50-trained-sounds-s{seed}-0a1b2c"}
        change(several / f"train{seed}", parent=start)
        pruned = {"name": "dsc500", "folder": "gone"}
        change(several / f"distill{seed}", stage="prune", parent=pruned)
    assert reported(several, "--results") == 0
    made = [row["made"] for row in json.loads((several / "report" / "results.json").read_text())]
    assert "trained, 24 epochs, started from dsc50-trained-sounds" in made
    elsewhere = several / "start"
    elsewhere.mkdir()
    runs.write_json(elsewhere / runs.MANIFEST, {"data": {"name": "scenes:90 by source"}})
    for seed in range(3):
        change(several / f"train{seed}", parent={"folder": str(elsewhere)})
        settings = runs.read_json(several / f"distill{seed}" / runs.MANIFEST)["settings"]
        change(several / f"distill{seed}", stage="distill", parent=None,
               settings=settings | {"transfer": ["a hash"]})  # fmt: skip
    assert reported(several, "--results") == 0
    text = (several / "report" / "results.md").read_text()
    assert "trained, 24 epochs, started from scenes:90 by source" in text
    assert "distilled from resnet10t with unlabelled sound, 24 epochs" in text
    assert "pruned from dsc500 under resnet10t, 24 epochs" in made


def test_a_twin_of_another_recipe_is_none(several: Path) -> None:
    for seed in range(3):
        manifest = runs.read_json(several / f"train{seed}" / runs.MANIFEST)
        manifest["settings"]["recipe"] = {"epochs": 12}
        change(several / f"train{seed}", settings=manifest["settings"])
    assert reported(several, "--results") == 0
    rows = json.loads((several / "report" / "results.json").read_text())
    assert all(row["teacher_gain"] is None for row in rows)


def test_a_twin_without_transfer_sound_has_as_many_windows(several: Path) -> None:
    """24 epochs of 1,000 windows and 3,000 unlabelled ones against 96 of 1,000."""

    def gain(epochs: int, taught: int = 24, heard: int = 4000, **recipe: object) -> object:
        for seed in range(3):
            for stage in ("train", "distill"):
                folder = several / f"{stage}{seed}"
                manifest = runs.read_json(folder / runs.MANIFEST)
                own = {"epochs": epochs, **recipe}
                told = own if stage == "train" else {"epochs": taught}
                more = {"recipe": told, "transfer": ["hash"] if stage == "distill" else []}
                change(folder, settings=manifest["settings"] | more)
                windows = {"windows_per_epoch": 1000 if stage == "train" else heard}
                measured = runs.read_json(folder / runs.METRICS)
                runs.write_json(folder / runs.METRICS, measured | windows)
        assert reported(several, "--results") == 0
        rows = json.loads((several / "report" / "results.json").read_text())
        return next(row["teacher_gain"] for row in rows if row["stage"] == "distill")

    found = gain(96)
    assert isinstance(found, dict) and found["seeds"] == 3
    assert gain(24) is None
    assert gain(96, learning_rate=0.1) is None
    assert gain(3, taught=2, heard=1333) is not None, "2.7 epochs are three"
    assert gain(4, taught=2, heard=1333) is None
    gain(96)
    former = several / "train0" / runs.METRICS
    measured = runs.read_json(former)
    del measured["windows_per_epoch"]  # a run of a former version among the twins
    runs.write_json(former, measured)
    assert reported(several, "--results") == 0
    rows = json.loads((several / "report" / "results.json").read_text())
    found = next(row["teacher_gain"] for row in rows if row["stage"] == "distill")
    assert found["seeds"] == 3


def test_any_network_or_run_may_be_the_baseline(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked in ("dsc50", several / "train1"):
        assert reported(several, "--results", "--baseline", asked) == 0
        rows = json.loads((several / "report" / "results.json").read_text())
        without = [(r["name"], r["stage"]) for r in rows if r["error_ratio"] is None]
        assert without == [("dsc50", "train")]
    capsys.readouterr()
    assert reported(several, "--baseline", "audiobot5000") == 2
    assert "did you mean audiobot500" in capsys.readouterr().err
    assert reported(several, "--baseline", several / "gone") == 2


def test_rows_that_would_read_alike_say_how_they_differ(several: Path) -> None:
    manifest = runs.read_json(several / "base2" / runs.MANIFEST)
    manifest["settings"]["recipe"] |= {"views": 6}
    change(several / "base2", settings=manifest["settings"])
    assert reported(several, "--results") == 0
    rows = json.loads((several / "report" / "results.json").read_text())
    made = {row["made"] for row in rows if row["name"] == "audiobot500"}
    assert made == {"trained, 150 epochs, views none", "trained, 150 epochs, views 6"}


def test_decisions_that_changed_are_not_used(several: Path) -> None:
    (several / "distill0" / runs.DECISIONS).write_bytes(b"other")
    assert reported(several, "--results") == 0
    rows = json.loads((several / "report" / "results.json").read_text())
    taught = next(row for row in rows if row["stage"] == "distill")
    assert taught["error_ratio"] is None and taught["teacher_gain"]["seeds"] == 2


def test_the_readme_gets_the_table_and_keeps_the_rest(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Name\n\n{shown.BEGIN}\nstale words\n{shown.END}\n\nrest\n")
    assert reported(several, "--readme", readme) == 0
    text = readme.read_text()
    assert text.startswith("# Name\n\n") and text.endswith(f"{shown.END}\n\nrest\n")
    assert "stale words" not in text and "| dsc50 |" in text
    assert "](docs/pareto-scenes-6000.png)" in text
    assert (tmp_path / "docs" / "pareto-scenes-6000.png").is_file()
    assert reported(several, "--readme", readme) == 0
    assert readme.read_text() == text  # given again, the same
    readme.write_text("no marks\n")
    assert reported(several, "--readme", readme) == 2
    assert reported(several, "--readme", tmp_path / "gone.md") == 2
    assert reported(tmp_path / "none", "--results") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "results: begin" in errors[0]


def test_results_of_runs_that_are_gone_stand_beside_those_that_are_there(
    several: Path, tmp_path: Path
) -> None:
    assert reported(several, "--results") == 0
    made_here = json.loads((several / "report" / "results.json").read_text())
    assert [shown.from_json(row) for row in made_here] == results.read(
        several / "report" / "results.json"
    )
    gone = made_here[0] | {"name": "tfnet50", "params": 49_031, "runs": [], "sha256": []}
    changed = made_here[1] | {"accuracy": made_here[1]["accuracy"] | {"mean": 0.5, "low": 0.4}}
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps([gone, changed]))
    assert reported(several, "--results", "--earlier", earlier) == 0
    rows = json.loads((several / "report" / "results.json").read_text())
    assert len(rows) == len(made_here) + 1 and gone in rows  # what is here counts
    assert all(row in rows for row in made_here)
    assert "tfnet50" in (several / "report" / "results.md").read_text()
    assert reported(tmp_path / "none", "--earlier", earlier) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accuracy": 0.9}, "accuracy is 0.9"),
        ({"accuracy": {"mean": 0.9}}, "accuracy is"),
        ({"accuracy": {"mean": 0.9, "low": 0.91, "high": 0.95, "seeds": 3}}, "accuracy is"),
        ({"params": "many"}, "params is 'many'"),
        ({"params": -5}, "params is -5"),
        ({"macs": 10**40}, "macs is 1000"),
        ({"seeds": [0, None]}, "seeds is"),
        ({"synthetic": 1}, "synthetic is 1"),
        ({"more": 1}, "unknown 'more'"),
        ({"made": None}, "made is None"),
    ],
)
def test_a_file_that_holds_no_results_is_refused(
    several: Path, tmp_path: Path, change: dict, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reported(several, "--results") == 0
    row = json.loads((several / "report" / "results.json").read_text())[0]
    file = tmp_path / "earlier.json"
    file.write_text(json.dumps([row, row | change]))
    assert reported(several, "--earlier", file) == 2
    error = capsys.readouterr().err
    assert f"earlier.json: row 2 is no result ({words}" in error and error.count("\n") == 1
    for text in ("{}", "[", "[1]", json.dumps([{k: v for k, v in row.items() if k != "name"}])):
        file.write_text(text)
        assert reported(several, "--earlier", file) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_words_of_a_row() -> None:
    assert shown.points(shown.Interval(0.009, 0.002, 0.016, 3)) == "+0.9 (+0.2 to +1.6)"
    assert shown.points(shown.Interval(0.009, 0.002, 0.016)).endswith(", one seed")
    assert [shown.duration(s) for s in (12.4, 185, 3_900)] == ["12 s", "3 min", "1 h 05 min"]


# --- what is one row, and what are two -----------------------------------------------------------


def made_by(folder: Path, parent: Path | None = None, *teachers: Path, **settings: object) -> Path:
    """Give a fabricated run weights, what it was made of, and settings."""
    (folder / runs.WEIGHTS).write_text(f"weights of {folder.name}")
    manifest = runs.read_json(folder / runs.MANIFEST)
    manifest["artefacts"] = {runs.WEIGHTS: runs.sha256_file(folder / runs.WEIGHTS)}
    manifest["settings"] |= settings
    manifest["parent"] = runs.open_run(parent).reference() if parent else None
    manifest["teachers"] = [runs.open_run(teacher).reference() for teacher in teachers]
    runs.write_json(folder / runs.MANIFEST, manifest)
    return folder


def rows_of(root: Path) -> list[shown.Result]:
    entries, _ = report.gather(root, budgets.Budgets())
    return results.with_earlier(results.build(entries)[0], [])


def test_students_of_other_teachers_of_one_name_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    """And neither hides the other, nor runs that differ in a fourth setting or by their sound."""
    root = tmp_path / "runs"
    make = run_folders.make
    short = [made_by(make(root, f"t{seed}", name="resnet18", stage="teach", seed=seed),
                     recipe={"epochs": 2}) for seed in (0, 1)]  # fmt: skip
    long = made_by(make(root, "long", name="resnet18", stage="teach"), recipe={"epochs": 6})
    for seed, teacher in enumerate(short):
        made_by(make(root, f"s{seed}", name="dsc50", seed=seed), None, teacher)
    made_by(make(root, "other", name="dsc50"), None, long)
    students = [row for row in rows_of(root) if row.name == "dsc50"]
    assert sorted(len(row.runs) for row in students) == [1, 2]
    assert len({row.made for row in students}) == 2
    for row in students:
        assert ("teacher long" in row.made) == (len(row.runs) == 1)


@pytest.mark.parametrize("differ", ["fourth setting", "sound"])
def test_runs_that_read_alike_are_told_apart_and_none_is_lost(differ: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for number in range(3):
        recipe = {"patience": number > 1, "batch_size": number > 1, "optimiser": number > 1,
                  "label_loss": "focal" if number == 1 else "cross_entropy"}  # fmt: skip
        run = run_folders.make(root, f"r{number}", name="dsc50", stage="train")
        made_by(run, recipe=recipe if differ == "fourth setting" else {})
        if differ == "sound":
            manifest = runs.read_json(run / runs.MANIFEST)
            manifest["data"] |= {"scene_seed": number, "content_hash": f"of seed {number}"}
            runs.write_json(run / runs.MANIFEST, manifest)
    found = rows_of(root)
    assert len(found) == 3 == len({row.made for row in found})
    words = "label loss focal" if differ == "fourth setting" else "data seed 2"
    assert sum(words in row.made for row in found) == 1


def test_seeds_whose_widths_pruning_chose_are_seeds_and_their_sizes_a_range(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for seed in (0, 1):
        sizes = {"params": 40_000 + seed, "macs": 3_000_000 + 200_000 * seed, "seed": seed}
        widths = {"arguments": {"widths": [8, 8 + seed]}}
        make = functools.partial(run_folders.make, root, name="dsc50")
        student = made_by(make(folder=f"s{seed}", stage="train", seed=seed))
        pruned = made_by(make(folder=f"p{seed}", stage="prune", **sizes), student)
        made_by(make(folder=f"f{seed}", **sizes), pruned, **widths)
    pruned_row, tuned = (row for row in rows_of(root) if row.params == 40_001)
    for row in (pruned_row, tuned):
        assert len(row.seeds) == 2 and (row.params_least, row.macs_least) == (40_000, 3_000_000)
        assert shown.cells(row)[3:5] == ("40,000 to 40,001", "3.0 M to 3.2 M")
    assert shown.from_json(json.loads(shown.to_json([tuned]))[0]) == tuned
