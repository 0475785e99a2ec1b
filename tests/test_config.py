"""Options: derived from dataclasses, all faults at once, the same over all commands."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress import recipe as recipes
from compress.__main__ import COMMANDS
from compress.config import DistillConfig, TeachConfig, TrainConfig, build, option, parse
from compress.errors import InputError
from compress.next_command import next_command


@dataclasses.dataclass(frozen=True)
class Small:
    count: int = option(3, "how many", least=1, most=9)
    rate: float = option(0.5, "how fast")
    mode: str = option("plain", "which", choices=("plain", "fancy"))
    names: tuple[str, ...] = option((), "several")
    where: Path | None = option(None, "a path")
    loud: bool = option(False, "a switch")


def test_defaults_flags_and_repeats():
    found = parse(Small, ["--count", "7", "--names", "a", "--names", "b", "--loud"], "x", "")
    assert found == Small(count=7, names=("a", "b"), loud=True)


def test_a_toml_file_sets_options_and_the_command_line_wins(tmp_path):
    file = tmp_path / "o.toml"
    file.write_text("count = 5\nmode = 'fancy'\nnames = ['q']\n")
    found = parse(Small, ["--config", str(file), "--count", "6"], "x", "")
    assert (found.count, found.mode, found.names) == (6, "fancy", ("q",))


def test_all_faults_in_one_message():
    with pytest.raises(InputError) as caught:
        build(Small, {"count": 99, "rate": "fast", "mode": "fancyy", "colour": 1}, "test")
    message = str(caught.value)
    for part in ("over the most allowed, 9", "'fast' is not a number", "fancy", "colour"):
        assert part in message


def test_the_next_command_says_data_and_machine_again_but_nothing_of_one_run():
    given = TeachConfig(
        data="my sounds", fold=2, drop_quiet=20.0, strict=True, cache=Path("a b"), seed=3,
        logger=("csv", "wandb"), normalise="mixture", runs=Path("it's here"),
        out=Path("o"), force=True, epochs=9, recipe="few", pretrained=True, weights=Path("w"),
    )  # fmt: skip
    line = next_command("distill", DistillConfig, given, student="dsc50", teacher=Path("runs/t t"))
    assert line.startswith("python -m compress.distill --student dsc50 --teacher 'runs/t t' --")
    found = parse(DistillConfig, shlex.split(line)[3:], "", "")
    assert found == DistillConfig(
        student="dsc50", teacher=("runs/t t",), data="my sounds", fold=2, drop_quiet=20.0,
        strict=True, cache=Path("a b"), seed=3, logger=("csv", "wandb"), normalise="mixture",
        runs=Path("it's here"),
    )  # fmt: skip


def test_an_unknown_flag_names_the_nearest():
    with pytest.raises(InputError, match=r"--cont; did you mean --count"):
        parse(Small, ["--cont", "3"], "x", "")


@pytest.mark.parametrize("text", ["nonsense = = 1", "count = 'x'", "count = 1.5"])
def test_a_bad_toml_file_is_one_clear_line(tmp_path, text):
    file = tmp_path / "o.toml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        parse(Small, ["--config", str(file)], "x", "")
    assert "o.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_shared_options_mean_the_same():
    for name in ("seed", "device", "out"):
        fields = [
            next(f for f in dataclasses.fields(c) if f.name == name)
            for c in (TrainConfig, DistillConfig)
        ]
        assert len({field.metadata["help"] for field in fields}) == 1


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_loads(name):
    assert recipes.load(name).batch_sizes()


def test_the_reports_recipe_is_the_reports():
    recipe = recipes.load("audiobots")
    sizes = [recipe.batch_size_at(e) for e in (0, 3, 4, 8, 14, 20, 28, 36, 48, 149)]
    assert sizes == [8, 8, 16, 24, 32, 48, 64, 96, 128, 128]
    assert (recipe.learning_rate, recipe.epochs, recipe.patience) == (6.5e-4, 150, 30)
    assert recipes.load("audiobots", "audiobot50").learning_rate == 2.1e-3


def test_overrides_win_and_none_keeps():
    recipe = recipes.load("distill", epochs=3, batch_size=16, patience=None)
    assert (recipe.epochs, recipe.batch_size_at(0)) == (3, 16)
    assert recipe.patience == recipes.load("distill").patience


def test_a_recipe_lists_all_its_faults(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("epochs = 0\nlearning_rat = 1.0\noptimiser = 'sgdd'\n")
    with pytest.raises(InputError) as caught:
        recipes.load(str(file))
    for part in ("epochs", "learning_rate", "optimiser"):
        assert part in str(caught.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="audiobots"):
        recipes.load("audiobot")


@pytest.mark.parametrize("sizes", [["x"], ["4:8"], ["0:0"], []])
def test_bad_batch_sizes(tmp_path, sizes):
    file = tmp_path / "r.toml"
    file.write_text(f"batch_size = {sizes!r}\n")
    with pytest.raises(InputError, match="batch_size"):
        recipes.load(str(file))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_is_quick_and_imports_nothing_heavy(command):
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['x', '--help']\n"
        "try:\n"
        f"    runpy.run_module('compress.{command}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = [m for m in ('torch', 'timm', 'onnx', 'onnxruntime', 'matplotlib', 'scipy')\n"
        "         if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout or "usage" in done.stdout
    assert time.monotonic() - started < 10


def test_a_recipe_lists_contradictions_with_its_other_faults(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        "epochs = 0\nlearning_rat = 1.0\nschedule = 'cosine'\nplateau_patience = 3\n"
        "noise_least = 0.5\nnoise_most = 0.1\nbatch_size = ['4:8']\nlabel_loss = 'focall'\n"
        "class_weights = [1, -1]\nbase = 3\nstudents = 4\n"
    )
    with pytest.raises(InputError) as caught:
        recipes.load(str(file))
    message = str(caught.value)
    for part in (
        "epochs", "learning_rat", "plateau_patience: says nothing while schedule is 'cosine'",
        "noise_least: 0.5 is over noise_most", "batch_size needs a size", "focal", "class_weights",
        "base is 3", "'students' must hold",
    ):  # fmt: skip
        assert part in message, part
    assert "\n" not in message


def test_validation_clips_that_are_trained_on_choose_nothing(tmp_path, capsys):
    from compress import cli, crossval, search, sweep

    with pytest.raises(InputError, match="no clips are left to see a plateau by"):
        recipes.load("audiobots", train_on_validation=True)
    file = tmp_path / "mine.toml"
    file.write_text('base = "patient"\ntrain_on_validation = true\n')
    assert recipes.load(str(file)).keeps_last
    assert recipes.load(str(file), train_on_validation=False).train_on_validation, "not given"
    given = ["--recipe", str(file), "--data", "scenes:60", "--runs", str(tmp_path / "runs")]
    for command, config in (
        (sweep, "SweepConfig"), (search, "SearchConfig"), (crossval, "CrossvalConfig"),
    ):  # fmt: skip
        assert cli.main(getattr(command, config), command.run, "", given) == 2
        assert "chooses by the validation clips" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_every_part_of_the_reports_recipe_is_an_option():
    given = ["--activation", "elu", "--label-loss", "focal", "--class-weights", "balanced",
             "--dropout", "0.1", "--batch-size", "0:8,4:16", "--plateau-factor", "0.3",
             "--plateau-patience", "2", "--patience", "9", "--epochs", "50",
             "--learning-rate", "1e-3"]  # fmt: skip
    config = parse(TrainConfig, given, "x", "")
    recipe = recipes.chosen(config.recipe, config.student, config)
    assert (config.activation, config.dropout) == ("elu", 0.1)
    assert recipe.batch_sizes() == [(0, 8), (4, 16)]
    assert (recipe.label_loss, recipe.class_weighting()) == ("focal", "balanced")
    assert (recipe.plateau_factor, recipe.plateau_patience, recipe.patience) == (0.3, 2, 9)
    assert (recipe.epochs, recipe.learning_rate) == (50, 1e-3)


def test_another_schedule_leaves_out_what_belongs_to_the_recipes_own():
    recipe = recipes.load("audiobots", schedule="cosine", warmup_share=0.2)
    assert (recipe.schedule, recipe.warmup_share) == ("cosine", 0.2)
    with pytest.raises(InputError, match="plateau_factor: says nothing"):
        recipes.load("distill", plateau_factor=0.5)


@pytest.mark.parametrize(
    ("weights", "found"), [("none", "none"), ("balanced", "balanced"), ([1, 2.5], (1.0, 2.5))]
)
def test_class_weights_of_a_recipe(tmp_path, weights, found):
    file = tmp_path / "r.toml"
    file.write_text(f"class_weights = {weights!r}\n")
    assert recipes.load(str(file)).class_weighting() == found


def test_batch_size_may_be_a_number_in_a_file(tmp_path):
    file = tmp_path / "options.toml"
    for text, expected in (("32", ("32",)), ('["0:8", 64]', ("0:8", "64")), ('"16"', ("16",))):
        file.write_text(f"batch_size = {text}\n")
        assert parse(TrainConfig, ["--config", str(file)], "p", "").batch_size == expected
    file.write_text("batch_size = true\n")
    with pytest.raises(InputError, match="not text"):
        parse(TrainConfig, ["--config", str(file)], "p", "")


def test_a_recipe_takes_from_its_base_what_it_does_not_give(tmp_path):
    few, levels = recipes.load("few"), recipes.load("few-levels")
    assert (levels.gain_probability, levels.gain_most) == (0.5, 6.0)
    assert dataclasses.replace(levels, gain_probability=few.gain_probability) == few
    (tmp_path / "mine.toml").write_text('base = "few"\nepochs = 3\n[students.dsc50]\nepochs = 4\n')
    (tmp_path / "again.toml").write_text('base = "mine.toml"\nschedule = "plateau"\n')
    assert recipes.load(str(tmp_path / "mine.toml")).epochs == 3
    again = recipes.load(str(tmp_path / "again.toml"), "dsc50")
    assert (again.epochs, again.schedule, again.time_crop_probability) == (4, "plateau", 0.8)


@pytest.mark.parametrize(
    ("base", "found"),
    [('"fwe"', "did you mean few.*base"), ("3", "base is 3"), ('"mine.toml"', "leads back")],
)
def test_a_bad_base_is_one_clear_line(tmp_path, base, found):
    (tmp_path / "mine.toml").write_text(f"base = {base}\n")
    with pytest.raises(InputError, match=found) as caught:
        recipes.load(str(tmp_path / "mine.toml"))
    assert "mine.toml" in str(caught.value) and "\n" not in str(caught.value)
