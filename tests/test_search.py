"""The search for a student: candidates keep the budget, the better go on, a break costs nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compress import candidates, cli, registry, runs, search, train
from compress.candidates import FAMILIES, Budget, Candidate, Size
from compress.config import SearchConfig, TrainConfig
from compress.errors import InputError

TINY = ["--params", "3000", "--macs", "2e5", "--family", "time-frequency", "--candidates", "3",
        "--finalists", "1", "--seeds", "2", "--epochs", "2", "--windows", "40",
        "--batch-size", "20", "--workers", "1", "--threads", "1"]  # fmt: skip


def searched(*arguments: object) -> int:
    return cli.main(SearchConfig, search.run, "", [*TINY, *map(str, arguments)])


# --- candidates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_keep_the_budget_use_it_and_repeat(family: str) -> None:
    budget, size = Budget(20_000, 1_500_000), Size(classes=3)
    found = list(candidates.draw([family], 2, budget, size, seed=1))
    assert [c.number for c in found] == [0, 1]
    for candidate in found:
        model = registry.build_student(candidate.name, classes=3, **candidate.arguments)
        assert sum(p.numel() for p in model.parameters()) == candidate.params
        shares = budget.shares(candidate.params, candidate.macs)
        assert 0.9 <= max(shares) <= 1 and min(shares) >= 0.5
    # a function of seed and place: drawing fewer gives the same ones
    assert list(candidates.draw([family], 1, budget, size, seed=1)) == found[:1]


def test_registered_students_within_the_budget_take_part() -> None:
    budget = Budget(50_000, 3_800_000)
    found = list(candidates.draw(tuple(FAMILIES), 3, budget, Size(), seed=0))
    assert [c.name for c in found] == ["audiobot50", "dsc50", "tfnet50"]
    assert all(c.arguments == {} for c in found)


def test_a_budget_that_nothing_meets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_MOST_DRAWS", 3)
    with pytest.raises(InputError, match="--params or --macs"):
        list(candidates.draw(["plain"], 1, Budget(2_000, 500_000_000), Size(), seed=0))


def test_widths_fit_integer_kernels() -> None:
    for value in np.linspace(1, 300, 400):
        width = candidates._width(value)
        assert abs(width - value) <= 2 and (width % 4 == 0 or width < 16)


# --- rounds --------------------------------------------------------------------------------------


def test_rounds_of_successive_halving() -> None:
    plan = search.rounds(24, finalists=3, epochs=9, seeds=3)
    assert [(r.candidates, r.epochs, r.seeds) for r in plan] == [(24, 1, 1), (9, 3, 1), (3, 9, 3)]
    assert search.rounds(2, 3, 9, 3) == [search.Round(2, 9, 3)]


class Oracle:
    """Loss is the candidate's number; candidate 0 flatters itself in short trainings."""

    class session:
        seed = 5

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []

    def __call__(self, candidate: Candidate, epochs: int, seed: int) -> dict[str, object]:
        self.calls.append((candidate.number, epochs, seed))
        if candidate.number == 1:
            return {"validation_loss": None, "validation_accuracy": None, "fault": "diverged"}
        loss = 99.0 if candidate.number == 0 and epochs == 9 else float(candidate.number)
        return {"validation_loss": loss + seed, "validation_accuracy": 0.5, "seconds": 1.0}


def test_the_better_third_goes_on_and_seeds_are_averaged(tmp_path: Path) -> None:
    found = [Candidate(i, "plain", "audiobot50", {}, 1, 1) for i in range(9)]
    train_one = Oracle()
    rows = search._search(found, search.rounds(9, 2, 9, 2), tmp_path, train_one)
    # 9 candidates, then 6 by rank, then 2: number 1 diverged and is never seen again
    assert [c[0] for c in train_one.calls[:9]] == list(range(9))
    assert [c[0] for c in train_one.calls[9:15]] == [0, 2, 3, 4, 5, 6]
    assert train_one.calls[15:] == [(0, 9, 5), (0, 9, 6), (2, 9, 5), (2, 9, 6)]
    last = rows[-2:]
    assert [row["validation_loss"] for row in last] == [99 + 5.5, 2 + 5.5]
    assert rows[1]["fault"] == "diverged" and rows[1]["validation_loss"] is None


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(npy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "whole"
    assert searched("--data", npy_data, "--out", folder) == 0
    return folder


def test_the_winner_is_a_student_that_train_takes(
    whole: Path, npy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((whole / search.RESULT).read_text())
    finalist = result["rows"][-1]
    assert result["best"] == finalist and finalist["seeds"] == 2 and finalist["epochs"] == 2
    assert finalist["params"] <= 3000 and finalist["macs"] <= 200_000
    assert (whole / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert finalist["candidate"] in (whole / "search.md").read_text()
    best = whole / search.BEST
    given = ["--student", best, "--data", npy_data, "--epochs", 1, "--batch-size", 64,
             "--workers", 1, "--out", tmp_path / "run"]  # fmt: skip
    assert cli.main(TrainConfig, train.run, "", list(map(str, given))) == 0
    trained = json.loads((tmp_path / "run" / "model.json").read_text())
    assert (trained["name"], trained["arguments"]) == (
        "tfnet50",
        json.loads(best.read_text())["arguments"],
    )
    capsys.readouterr()
    assert searched("--data", npy_data, "--out", whole) == 0  # given again
    out = capsys.readouterr().out
    assert "finished before" in out and str(best) in out.splitlines()[-1]


def test_a_break_costs_nothing_and_ends_alike(
    whole: Path, npy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    honest = search._Trainer._train

    def dies_at_third(self, candidate, epochs, seed, checkpoint):  # type: ignore[no-untyped-def]
        if len(trained) == 2:
            trained.append("broken")
            raise KeyboardInterrupt
        trained.append(candidate.label)
        return honest(self, candidate, epochs, seed, checkpoint)

    monkeypatch.setattr(search._Trainer, "_train", dies_at_third)
    arguments = ["--data", npy_data, "--out", tmp_path / "s"]
    assert searched(*arguments) == 130
    assert not (tmp_path / "s" / search.BEST).exists()
    assert searched(*arguments) == 0
    assert len(trained) == 1 + 3 + 2, "each training once, and the one that was broken again"
    ours, theirs = (json.loads((f / search.RESULT).read_text()) for f in (tmp_path / "s", whole))
    for result in (ours, theirs):
        for row in [*result["rows"], result["best"]]:
            row.pop("seconds")
    assert ours == theirs
    assert (tmp_path / "s" / search.BEST).read_text() == (whole / search.BEST).read_text()


def test_what_cannot_be_searched_is_refused(
    whole: Path, npy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert searched("--family", "separabel") == 2
    assert "did you mean separable" in capsys.readouterr().err
    assert searched("--data", npy_data, "--out", whole, "--seed", 7) == 2
    assert "choose another folder with --out" in capsys.readouterr().err
    with runs.held(tmp_path / "held", "searches here"):
        assert searched("--data", npy_data, "--out", tmp_path / "held") == 2
    assert "held: another process searches here" in capsys.readouterr().err
    (tmp_path / "odd.json").write_text('{"family": "teacher", "arguments": {}}')
    for name in ("odd.json", "gone.json"):
        given = ["--student", tmp_path / name, "--data", npy_data]
        assert cli.main(TrainConfig, train.run, "", list(map(str, given))) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "describes no student" in errors[0]
