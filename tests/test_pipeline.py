"""python -m compress.pipeline on small data: the whole chain, its middle, and bad recipes."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
import run_folders
import sounds
from conftest import write_npy_pair

from compress import cli, fit, pipeline, pipeline_jobs, pipeline_recipe, runs
from compress.config import PipelineConfig
from compress.errors import InputError

TOY = """
stages = ["teach", "distill", "prune", "finetune", "quantize", "report"]

[teach]
teacher = "test_resnet"
epochs = 1
[distill]
student = "audiobot50"
epochs = 2
batch_size = 32
[prune]
params = 30_000
steps = 1
epochs = 1
[finetune]
epochs = 1
[quantize]
samples = 32
"""


def piped(*arguments: object) -> int:
    given = [*map(str, arguments), "--workers", "1", "--threads", "1"]
    return cli.main(PipelineConfig, pipeline.run, "", given)


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def whole(npy_data, tmp_path_factory):
    """(recipe file, folder of runs) after one pass without interruption."""
    root = tmp_path_factory.mktemp("pipeline")
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    recipe = root / "toy.toml"
    recipe.write_text(TOY)
    assert piped(recipe, "--data", npy_data, "--runs", root / "runs") == 0
    return recipe, root / "runs"


def final(root: Path) -> str:
    (folder,) = (root / "toy").glob("quantize-*")
    return runs.sha256_file(folder / runs.ONNX)


def test_every_stage_leaves_a_run_that_names_its_parent(whole):
    _, root = whole
    folders = {p.name.partition("-")[0]: p for p in (root / "toy").iterdir() if p.is_dir()}
    assert set(folders) == {"teach", "distill", "prune", "finetune", "quantize", "report"}
    parents = {"prune": "distill", "finetune": "prune", "quantize": "finetune"}
    for stage, parent in parents.items():
        manifest = runs.open_run(folders[stage]).manifest
        assert manifest["parent"]["folder"] == str(folders[parent])
    tuned = runs.open_run(folders["finetune"])
    assert tuned.manifest["teachers"][0]["folder"] == str(folders["teach"])
    assert tuned.metrics()["params"] <= 30_000
    recorded = json.loads((root / "toy" / "pipeline.json").read_text())["stages"]
    assert recorded[-1]["sha256"] == final(root)
    page = (folders["report"] / "report.html").read_text()
    assert "What was made of what" in page and page.count('class="run"') == 5


def test_the_same_command_skips_all_and_the_middle_can_be_entered(whole, npy_data, capsys):
    recipe, root = whole
    before = final(root)
    options = (recipe, "--data", npy_data, "--runs", root)
    assert piped(*options, "--until", "distill") == 0
    out = capsys.readouterr().out
    assert out.count("finished before") == 2 and "--- 2/2 distill" in out
    assert piped(*options, "--from", "quantize", "--until", "quantize") == 0
    out = capsys.readouterr().out
    assert "finished before" in out and "teach (seed 0):" not in out
    lines = out.splitlines()
    rows = [line for line in lines if "(seed 0)" in line and not line.startswith("---")]
    assert [row.split()[0] for row in rows] == [*pipeline_recipe.STAGES][1:6]
    assert "The final artefact lies in" in lines[-1] and before[:12] in lines[-1]
    assert final(root) == before


def test_a_killed_pipeline_ends_with_the_same_artefact(
    whole, npy_data, tmp_path, monkeypatch, capsys
):
    recipe, root = whole
    save, saved = fit._save, []

    def save_then_die(path, *arguments):
        save(path, *arguments)
        saved.append(path)
        if "distill-" in str(path):
            raise Killed

    monkeypatch.setattr(fit, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(fit, "_save", save_then_die)
    options = (recipe, "--data", npy_data, "--runs", tmp_path)
    with pytest.raises(Killed):
        piped(*options)
    monkeypatch.undo()
    assert not runs.open_run(saved[-1].parent).complete
    monkeypatch.setenv("COMPRESS_CACHE", str(root.parents[1] / "cache"))
    assert piped(*options) == 0
    assert "teacher   test_resnet: finished before" in capsys.readouterr().out
    assert final(tmp_path) == final(root)


SEEDS = """
stages = ["teach", "distill", "report"]
seeds = [0, 1]

[teach]
teacher = ["test_resnet", "audiobot50:7"]
epochs = 1
[distill]
student = "audiobot50"
epochs = 1
batch_size = 32
"""


def test_a_step_waits_for_the_runs_that_it_starts_from(tmp_path):
    (tmp_path / "seeds.toml").write_text(SEEDS)
    config = PipelineConfig(recipe=str(tmp_path / "seeds.toml"), data="scenes:50", jobs=2)
    steps = pipeline_recipe.steps(pipeline_recipe.load(config), config)
    titles = [f"{step.stage} {step.seed}" for step in steps]
    assert titles == [
        "teach 0", "teach 7", "distill 0", "teach 1", "distill 1", "report 0",
    ]  # fmt: skip
    needed = [pipeline_jobs._needed(number, steps) for number in range(1, 7)]
    assert needed == [set(), set(), {1, 2}, set(), {2, 4}, {1, 2, 3, 4, 5}]


def test_steps_at_the_same_time_leave_the_same_artefacts(npy_data, tmp_path, capsys):
    recipe = tmp_path / "seeds.toml"
    recipe.write_text(SEEDS)
    found = []
    for jobs in (1, 2):
        root = tmp_path / f"jobs{jobs}"
        assert piped(recipe, "--data", npy_data, "--runs", root, "--jobs", jobs) == 0
        made = {
            f.name: runs.sha256_file(f / runs.ONNX) for f in (root / "seeds").glob("[td]*-s*")
        }
        found.append((made, capsys.readouterr().out))
    assert found[0][0] == found[1][0] and len(found[0][0]) == 5
    printed = found[1][1]
    assert printed.count(" starts\n") == 6
    assert "distilled audiobot50: 1 epoch" in printed
    assert printed.index("distill (seed 1): train") < printed.index("6/6 report (seed 0) starts")
    assert printed.splitlines()[-1].startswith("The last final artefact lies in")


def test_a_step_that_is_refused_ends_the_others(npy_data, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "seeds.toml"
    recipe.write_text(SEEDS)
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the cache should be")
    options = ("--runs", tmp_path / "runs", "--cache", blocked, "--jobs", 2)
    assert piped(recipe, "--data", npy_data, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: stage teach (seed ") and ".log)" in line


def test_stages_before_from_must_be_finished(whole, npy_data, tmp_path, capsys):
    recipe, _ = whole
    assert piped(recipe, "--data", npy_data, "--runs", tmp_path, "--from", "prune") == 2
    error = capsys.readouterr().err
    assert "teach (seed 0)" in error and "has not been run" in error and "--run RUN" in error


def test_a_run_from_elsewhere_is_a_start(whole, npy_data, finished_run, tmp_path, capsys):
    recipe, _ = whole
    options = (recipe, "--data", npy_data, "--runs", tmp_path, "--run", finished_run)
    assert piped(*options, "--from", "quantize", "--until", "quantize") == 0
    (folder,) = (tmp_path / "toy").glob("quantize-*")
    assert runs.open_run(folder).manifest["parent"]["folder"] == str(finished_run)
    assert piped(*options) == 2
    assert "--from" in capsys.readouterr().err


def test_every_fault_of_a_recipe_is_said_at_once(tmp_path, capsys):
    recipe = tmp_path / "bad.toml"
    recipe.write_text(
        'stages = ["teach", "quantise", "prune", "distill", "distill"]\nseed = 3\n'
        "[export]\n[distil]\nepochs = 3\n[prune]\nparms = 3\n"
    )
    assert piped(recipe, "--runs", tmp_path / "runs", "--until", "exprot") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(recipe) in error
    for words in (
        "unknown stage 'quantise'; did you mean quantize?",
        "contradictory order: 'distill' stands behind 'prune'",
        "'distill' stands twice",
        "unknown key 'seed'; did you mean seeds",
        "unknown stage [distil]; did you mean distill",
        "[export] has options, but 'export' is not in stages",
        "give --data PATH",
        "--until exprot",
    ):
        assert words in error
    assert not (tmp_path / "runs").exists()


def test_the_commands_own_faults_are_said_at_once_too(tmp_path, capsys):
    recipe = tmp_path / "bad.toml"
    recipe.write_text(
        'stages = ["teach", "distill", "prune", "quantize"]\ndata = "scenes:100"\n'
        '[teach]\nteacher = "resnet19"\n[distill]\nstudent = "dsc5000"\nepochz = 2\n'
        "[prune]\nsteps = 2\n[quantize]\nqat = true\nauto = true\n"
    )
    assert piped(recipe, "--runs", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    for words in ("resnet18", "unknown option 'epochz'; did you mean",
                  "[prune] give one target", "--qat and --auto exclude"):  # fmt: skip
        assert words in error
    recipe.write_text('stages = ["distill"]\ndata = "scenes:100"\n[distill]\nfold = 2\nseed = 1\n')
    assert piped(recipe, "--runs", tmp_path / "runs") == 2
    assert "[distill] fold: the pipeline sets this itself" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_faults_of_every_kind_are_said_in_one_round(tmp_path, capsys):
    recipe = tmp_path / "bad.toml"
    recipe.write_text(
        'stages = ["teach", "distill"]\ndata = "scenes:100"\ndata_seed = -1\ncolour = 3\n'
        'seeds = ["x"]\n[teach]\nteacher = ["dsc50", "resnet19"]\nepochs = 0\n[distill]\n'
        'fold = 1\nstuden = "dsc50"\ntemperature = "hot"\n'
    )
    assert piped(recipe, "--runs", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for words in ("unknown key 'colour'", "data-seed: -1 is under", "seeds: 'x' is not",
                  "[distill] fold: the pipeline sets this itself", "[teach]: epochs: 0 is under",
                  "no model 'resnet19'", "unknown option 'studen'",
                  "'hot' is not a number"):  # fmt: skip
        assert error.count(words) == 1, words


def test_teachers_may_hear_other_sound_than_the_student(tmp_path, capsys):
    recipe = tmp_path / "more.toml"
    text = (
        'stages = ["teach", "distill"]\ndata = "scenes:100"\nseeds = [0, 1]\n'
        '[teach]\nteacher = "tfnet50:0"\ndata = "scenes:300"\ndata_seed = SEED\n'
        '[distill]\nstudent = "tfnet50"\n'
    )
    recipe.write_text(text.replace("SEED", "1"))
    config = PipelineConfig(recipe=str(recipe), runs=tmp_path / "runs")
    teacher, *students = pipeline_recipe.steps(pipeline_recipe.load(config), config)
    assert (teacher.config.data, teacher.config.data_seed) == ("scenes:300", 1)
    assert len(students) == 2
    for student in students:
        assert (student.config.data, student.config.data_seed) == ("scenes:100", 0)
        assert student.config.teacher == (str(teacher.folder),)
    config = PipelineConfig(recipe=str(recipe), runs=tmp_path / "runs", reference="fixed")
    teacher, student, _ = pipeline_recipe.steps(pipeline_recipe.load(config), config)
    assert teacher.config.reference == student.config.reference == "fixed"
    recipe.write_text(text.replace('data = "scenes:300"\n', "").replace("SEED", "1"))
    assert piped(recipe, "--runs", tmp_path / "runs") == 2
    assert "[teach] data_seed: the pipeline sets this itself" in capsys.readouterr().err
    recipe.write_text(text.replace("SEED", "0"))
    assert piped(recipe, "--runs", tmp_path / "runs") == 2
    assert "scenes:300 shares clips with scenes:100" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


PRETRAIN = """
stages = ["pretrain", "teach", "distill"]
data = "scenes:60"
reference = "fixed"
seeds = [3, 4]
[pretrain]
student = ["audiobot50", "audiobot500"]
data = "scenes:300"
data_seed = 1
classes = "sources"
recipe = "audiobots"
epochs = 1
[teach]
teacher = ["audiobot500:0", "test_resnet:0"]
epochs = 1
[distill]
student = "audiobot50"
epochs = 1
"""


def test_teachers_and_students_start_from_the_pretrained_of_their_name(tmp_path):
    recipe = tmp_path / "start.toml"
    recipe.write_text(PRETRAIN)
    config = PipelineConfig(recipe=str(recipe), runs=tmp_path / "runs", drop_quiet=20.0)
    small, large, audiobot, resnet, *students = pipeline_recipe.steps(
        pipeline_recipe.load(config), config
    )
    for start, name in ((small, "audiobot50"), (large, "audiobot500")):
        options = start.config
        assert (options.student, options.data, options.data_seed) == (name, "scenes:300", 1)
        # seeds given later find the same start
        assert (options.classes, options.reference, start.seed) == ("sources", "fixed", 0)
    assert (audiobot.config.weights, resnet.config.weights) == (large.folder, None)
    assert [step.config.weights for step in students] == [small.folder] * 2
    assert [step.config.classes for step in students] == ["own"] * 2
    assert {step.config.drop_quiet for step in students} == {20.0}
    # another start is another student; the same start serves all seeds, so that one is planned
    recipe.write_text(PRETRAIN.replace('"audiobots"\nepochs = 1', '"audiobots"\nepochs = 2'))
    changed = pipeline_recipe.steps(pipeline_recipe.load(config), config)
    assert not {step.folder for step in changed} & {step.folder for step in students}


def test_one_of_several_networks_may_have_options_of_its_own(tmp_path, capsys):
    recipe = tmp_path / "start.toml"
    special = "[pretrain.audiobot500]\nepochs = 7\n[teach.test_resnet]\nprecision = 'bfloat16'\n"
    recipe.write_text(PRETRAIN + special)
    config = PipelineConfig(recipe=str(recipe), runs=tmp_path / "runs")
    small, large, audiobot, resnet, *_ = pipeline_recipe.steps(pipeline_recipe.load(config), config)
    assert (small.config.epochs, large.config.epochs) == (1, 7)
    assert (audiobot.config.precision, resnet.config.precision) == (None, "bfloat16")
    hyphen = PRETRAIN.replace('"audiobot500"]', '"audiobot50-dsc"]')
    recipe.write_text(hyphen + "[pretrain.audiobot50-dsc]\nbatch-size = 32\n")
    _, named, *_ = pipeline_recipe.steps(pipeline_recipe.load(config), config)
    assert named.config.batch_size == ("32",)
    for key, value in (("threads", "1"), ("student", '"dsc50"'), ("data", '"scenes:400"')):
        recipe.write_text(PRETRAIN + f"[pretrain.audiobot500]\n{key} = {value}\n")
        assert piped(recipe, "--runs", tmp_path / "runs") == 2
        assert f"[pretrain] {key}: the pipeline sets this itself" in capsys.readouterr().err
    seeds = "[pretrain.audiobot500]\nseed = 5\n[teach.audiobot500]\nseed = 6\n"
    recipe.write_text(PRETRAIN + seeds)
    small, large, audiobot, resnet, *_ = pipeline_recipe.steps(pipeline_recipe.load(config), config)
    assert [step.config.seed for step in (small, large)] == [0, 5]
    assert [step.config.seed for step in (audiobot, resnet)] == [0, 0]  # NAME:SEED goes before
    for stage, name in (("pretrain", "audiobot5"), ("distill", "audiobot50")):
        recipe.write_text(PRETRAIN + f"[{stage}.{name}]\nepochs = 7\n")
        assert piped(recipe, "--runs", tmp_path / "runs") == 2
        error = capsys.readouterr().err
        assert f"[{stage}.{name}]: is none of several" in error and error.count("\n") == 1


def test_a_pretrained_start_is_the_parent_of_what_it_began(npy_data, tmp_path):
    other = write_npy_pair(tmp_path / "other", count=60, seed=5)
    recipe = tmp_path / "start.toml"
    recipe.write_text(
        'stages = ["pretrain", "distill"]\n[pretrain]\nstudent = "audiobot50"\n'
        f'data = "{other}"\nepochs = 1\n'
        '[distill]\nstudent = "audiobot50"\nwithout_teacher = true\nepochs = 1\n'
    )
    options = (recipe, "--data", npy_data, "--runs", tmp_path / "runs", "--seeds", "0,1")
    assert piped(*options, "--jobs", 2) == 0
    (start,) = (tmp_path / "runs" / "start").glob("pretrain-s0-*")
    students = sorted((tmp_path / "runs" / "start").glob("distill-s*-*"))
    assert len(students) == 2
    assert runs.open_run(start).manifest["data"]["name"] == "other"
    for student in students:
        manifest = runs.open_run(student).manifest
        assert manifest["parent"]["folder"] == str(start)
        assert manifest["data"]["name"] == npy_data.name


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('data = "scenes:300"\n', "", "[pretrain] data"),
        ("data_seed = 1", "data_seed = 0", "scenes:300 shares clips with scenes:60"),
        ('"teach", "distill"]', "]", "'pretrain' gives teachers and students a start"),
        ('"audiobot500"]', '"audiobot5"]', "audiobot5"),
    ],
)
def test_faults_of_a_pretrain_stage_are_said(old, new, words, tmp_path, capsys):
    recipe = tmp_path / "start.toml"
    recipe.write_text(PRETRAIN.replace(old, new))
    assert piped(recipe, "--runs", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quik"], ["unknown pipeline 'quik'", "quick"]),
        (["none.toml"], ["no such file"]),
        (["quick", "--from", "prune", "--until", "teach"], ["stands behind"]),
        (["quick", "--seeds", "0,x"], ["'x' is not a whole number"]),
        (["esc10"], ["give --data PATH"]),
        (["quick", "--run", "x", "--from", "distill"], ["starts from no student"]),
    ],
)
def test_bad_options_get_one_line(arguments, words, tmp_path, capsys):
    assert piped(*arguments, "--runs", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    for word in words:
        assert word in error


@pytest.mark.parametrize("name", pipeline_recipe.names())
def test_shipped_recipes_are_sound(name, tmp_path):
    own = "data" in tomllib.loads((pipeline_recipe.FOLDER / f"{name}.toml").read_text())
    options = PipelineConfig(recipe=name, data=None if own else "PATH", runs=tmp_path)
    recipe = pipeline_recipe.load(options)
    planned = pipeline_recipe.steps(recipe, options)
    several = {"pretrain": "student", "teach": "teacher", "export": "format"}
    starts = [step for step in planned if step.stage == "pretrain"]
    expected = 0
    for stage in recipe.stages[:-1]:
        listed = recipe.tables.get(stage, {}).get(several.get(stage, ""))
        each = len(listed) if isinstance(listed, list) else 1
        expected += each * (1 if stage == "pretrain" else len(recipe.folds) * len(recipe.seeds))
    assert len(planned) == expected + 1 and len(starts) <= 2
    assert len({step.folder for step in planned}) == len(planned)
    assert planned[-1].stage == "report"


def test_seeds_and_teachers_make_runs_of_their_own(tmp_path):
    """A teacher with a seed of its own serves all seeds; several teachers are an ensemble."""
    path = tmp_path / "p.toml"
    path.write_text(
        'stages = ["teach", "distill"]\ndata = "scenes:100"\n'
        '[teach]\nteacher = ["test_resnet", "resnet10t"]\nseed = 7\n[distill]\nstudent = "dsc50"\n'
    )
    options = PipelineConfig(recipe=str(path), seeds="0,1,2", runs=tmp_path / "runs")
    planned = pipeline_recipe.steps(pipeline_recipe.load(options), options)
    assert [step.stage for step in planned] == ["teach", "teach", *["distill"] * 3]
    teachers = tuple(str(step.folder) for step in planned[:2])
    assert all(step.config.teacher == teachers for step in planned[2:])
    assert [step.config.seed for step in planned] == [7, 7, 0, 1, 2]
    # another option of the teacher is another chain
    path.write_text(path.read_text().replace("seed = 7", "seed = 7\nepochs = 3"))
    changed = pipeline_recipe.steps(pipeline_recipe.load(options), options)
    assert not {s.folder for s in changed} & {s.folder for s in planned}


@pytest.mark.parametrize(("artifact", "gated"), [("model.c", ""), ("model.onnx", "/model.onnx")])
def test_the_command_at_the_end_is_one_that_the_gate_takes(artifact, gated, tmp_path):
    """Of C code that is the folder."""
    folder = run_folders.make(tmp_path / "toy", "last", name="dsc50", stage="export")
    (folder / artifact).touch()
    figures = runs.read_json(folder / runs.METRICS)
    runs.write_json(folder / runs.METRICS, figures | {"artifact": artifact})
    step = pipeline_recipe.Step("export", None, folder, 0, None)
    assert pipeline.closing([step], 1.0)[-1].endswith(f"compress.gate {folder}{gated}")


def test_a_missing_data_folder_is_said_before_anything_is_trained(tmp_path, capsys):
    given = ["few-recordings", "--data", str(tmp_path / "nope"), "--runs", str(tmp_path / "runs")]
    assert cli.main(PipelineConfig, pipeline.run, "", given) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'nope'}: no such folder" in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_folds_that_a_set_lacks_are_said_before_anything_is_trained(tmp_path, capsys):
    root = sounds.class_folders(tmp_path / "my set", per_class=12)
    recipe = tmp_path / "start.toml"
    recipe.write_text(PRETRAIN.replace('data = "scenes:60"', "folds = [1, 2]"))
    given = (recipe, "--data", root, "--runs", tmp_path / "runs")
    assert piped(*given) == 2
    error = capsys.readouterr().err
    assert "my set: has no official folds, and fold 1 is asked for; say with --folds" in error
    assert error.count("\n") == 1 and not (tmp_path / "runs").exists()
    assert piped(*given, "--folds", 2, "--fold", 3) == 2
    assert "--fold 3: give 1 to 2" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    config = PipelineConfig(recipe=str(recipe), data=str(root), folds=2)
    planned = pipeline_recipe.steps(pipeline_recipe.load(config), config)
    asked = {(step.stage, step.config.fold, step.config.folds) for step in planned}
    assert asked == {("pretrain", None, None), *((stage, fold, 2) for stage in ("teach", "distill")
                                                for fold in (1, 2))}  # fmt: skip


def test_one_start_serves_every_data_set(tmp_path):
    recipe = tmp_path / "start.toml"
    recipe.write_text(PRETRAIN)

    def planned(**changes):
        config = PipelineConfig(recipe=str(recipe), runs=tmp_path / "runs", **changes)
        return [step.folder for step in pipeline_recipe.steps(pipeline_recipe.load(config), config)]

    one, other = planned(data="scenes:60"), planned(data="scenes:70")
    assert one[:2] == other[:2], "the pre-trained, which hear other sound"
    assert not set(one[2:]) & set(other[2:])
    assert not set(one) & set(planned(data="scenes:60", reference="clip", drop_quiet=9.0))
    # one whose name tells the student's data, as names did once, is found
    former = tmp_path / "runs" / "start" / "pretrain-audiobot50-s0-3a1b7a"
    former.mkdir(parents=True)
    assert planned(data="scenes:60")[0] == former and planned(data="scenes:70")[0] == one[0]


def test_a_recipe_file_that_changed_makes_new_runs_from_its_stage_on(tmp_path):
    path, mine = tmp_path / "p.toml", tmp_path / "mine.toml"
    path.write_text(
        'stages = ["teach", "distill", "quantize"]\ndata = "scenes:100"\n'
        f'[teach]\nteacher = "test_resnet"\n[distill]\nstudent = "dsc50"\nrecipe = "{mine}"\n'
    )
    options = PipelineConfig(recipe=str(path), runs=tmp_path / "runs")
    planned = []
    for rate in ("1e-3", "2e-3"):
        mine.write_text(f'base = "distill"\nlearning_rate = {rate}\n')
        planned.append(pipeline_recipe.steps(pipeline_recipe.load(options), options))
    before, after = ([step.folder for step in steps] for steps in planned)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_a_front_end_that_changed_makes_new_runs(tmp_path, capsys):
    path, mine = tmp_path / "p.toml", tmp_path / "frontend.toml"
    path.write_text(
        'stages = ["pretrain", "teach", "distill", "report"]\ndata = "scenes:100"\n'
        f'frontend = "{mine}"\n[teach]\nteacher = "test_resnet"\n[distill]\nstudent = "dsc50"\n'
        '[pretrain]\nstudent = "dsc50"\ndata = "scenes:120"\ndata_seed = 1\n'
    )

    def folders(**changes):
        options = PipelineConfig(recipe=str(path), runs=tmp_path / "runs", **changes)
        steps = pipeline_recipe.steps(pipeline_recipe.load(options), options)
        return [step.folder for step in steps if step.stage != "report"]

    mine.write_text("sample_rate_hz = 24_000\n")
    before = folders()
    mine.write_text("sample_rate_hz = 24_000  # as said\n")
    assert folders() == before
    mine.write_text("sample_rate_hz = 32_000\n")
    assert not set(before) & set(folders())
    mine.unlink()
    assert len(folders(frontend="default")) == 3
    assert piped(path) == 2
    assert "no such" in (said := capsys.readouterr()).err and "1/4" not in said.out


def test_teachers_of_one_student_keep_their_seeds(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        'stages = ["teach", "distill"]\ndata = "scenes:100"\n'
        '[teach]\nteacher = ["audiobot50:0", "audiobot50:1"]\nrecipe = "audiobots"\n'
        '[distill]\nstudent = "dsc50"\n'
    )
    options = PipelineConfig(recipe=str(path), seeds="0,1", runs=tmp_path / "runs")
    planned = pipeline_recipe.steps(pipeline_recipe.load(options), options)
    assert [(step.stage, step.config.seed) for step in planned] == [
        ("teach", 0), ("teach", 1), ("distill", 0), ("distill", 1)
    ]  # fmt: skip
    assert [step.config.teacher for step in planned[:2]] == ["audiobot50"] * 2
    teachers = tuple(str(step.folder) for step in planned[:2])
    assert all(step.config.teacher == teachers for step in planned[2:])


def test_the_command_line_goes_before_the_recipe(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text('stages = ["distill"]\ndata = "scenes:100"\ndata_seed = 3\nfolds = [1, 2]\n')
    options = PipelineConfig(recipe=str(path), data="elsewhere", data_seed=0, fold=2, seeds="4")
    (step,) = pipeline_recipe.steps(pipeline_recipe.load(options), options)
    config = step.config
    assert (config.data, config.data_seed, config.fold, config.seed) == ("elsewhere", 0, 2, 4)


def test_an_export_stage_takes_what_the_registry_lists(tmp_path, monkeypatch):
    from compress import registry

    path = tmp_path / "p.toml"
    text = 'stages = ["distill", "quantize", "export"]\ndata = "scenes:100"\n'
    path.write_text(text + '[distill]\nstudent = "dsc50"\n[export]\nformat = "made-up"\n')
    options = PipelineConfig(recipe=str(path), runs=tmp_path / "runs")
    with pytest.raises(InputError, match="unknown format 'made-up'"):
        pipeline_recipe.load(options)
    row = registry.Row("nowhere:none", "", "")
    monkeypatch.setitem(registry.EXPORTS, "made-up", row)
    planned = pipeline_recipe.steps(pipeline_recipe.load(options), options)
    assert planned[-1].config.format == "made-up"
    assert planned[-1].config.run == planned[-2].folder
