"""A pipeline as a TOML file: which stages in which order, and the options of each.

    stages = ["teach", "distill", "prune", "finetune", "quantize", "report"]
    seeds = [0]
    data = "scenes:1500"            any data option of the commands

    [distill]                       any option of that command
    student = "dsc50"

    [teach]                         teachers may hear other sound of the same classes
    data = "scenes:6000"
    data_seed = 1

    [pretrain]                      where a teacher or student of that name starts from
    student = ["tfnet500", "tfnet50"]
    data = "scenes:105780"          other sound, of any classes
    classes = "sources"

    [pretrain.tfnet500]             options of one of several networks (or formats) alone
    precision = "bfloat16"

:func:`load` checks the file as a whole, :func:`steps` gives the commands to run: each with its
options and the folder that it writes. A folder's name carries a digest of everything before it, so
that a changed recipe makes new runs and leaves the others alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress import runs
from compress.config import (
    DataOptions,
    DistillConfig,
    ExportConfig,
    PipelineConfig,
    PruneConfig,
    QuantizeConfig,
    ReportConfig,
    TeachConfig,
    TrainConfig,
    nearest,
    read_toml,
    sound_values,
)
from compress.data.sets import is_synthetic
from compress.errors import InputError
from compress.frontend_file import named_front_end
from compress.registry import teacher_and_seed
from compress.runs import Run

FOLDER = Path(__file__).parent / "recipes" / "pipelines"
_DATA_KEYS = (
    "data", "data_seed", "classes", "frontend", "reference", "drop_quiet", "strict",
)  # fmt: skip
_KEYS = ("stages", "seeds", "folds", *_DATA_KEYS)
_SET_ALWAYS = (  # by the pipeline, for every stage
    *(spec.name for spec in dataclasses.fields(DataOptions)),
    "runs", "out", "force", "device", "devices", "nodes", "threads", "run", "weights",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One stage: the command that it runs, with the dataclass of its options.

    several: an option that may list several values, for each of which the command runs once.
    defaults: what differs from the command's own.
    """

    module: str
    options: type
    sentence: str
    several: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def command(self) -> Any:
        """The command's module, with ``run`` and perhaps ``check_options``."""
        return importlib.import_module(self.module)


# In the only order in which they make sense.
STAGES: dict[str, Stage] = {
    "pretrain": Stage(
        "compress.train",
        TrainConfig,
        "give networks a start on other sound",
        several="student",
        defaults={"recipe": "patient"},
    ),
    "teach": Stage("compress.teach", TeachConfig, "train the teachers", several="teacher"),
    "distill": Stage("compress.distill", DistillConfig, "train a student under them"),
    "prune": Stage("compress.prune", PruneConfig, "take channels out of it"),
    "finetune": Stage(
        "compress.distill",
        DistillConfig,
        "train what is left of it on",
        defaults={"recipe": "finetune"},
    ),
    "quantize": Stage("compress.quantize", QuantizeConfig, "make an int8 file of it"),
    "export": Stage(
        "compress.export", ExportConfig, "write it for a device", several="format"
    ),
    "report": Stage("compress.report", ReportConfig, "tabulate and draw all of them"),
}


@dataclass(frozen=True)
class PipelineRecipe:
    """A checked recipe. tables: stage -> its options as written.

    heard_through: the front end that the data options name, with its settings; else nothing.
    """

    name: str
    stages: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: tuple[int | None, ...]
    data: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]]
    heard_through: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One run of one command. ``folder``: the run folder (or the report's) that it writes."""

    stage: str
    config: Any
    folder: Path
    seed: int
    fold: int | None

    @property
    def title(self) -> str:
        fold = f", fold {self.fold}" if self.fold is not None else ""
        return f"{self.stage} (seed {self.seed}{fold})"


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(options: PipelineConfig) -> PipelineRecipe:
    """The recipe with what the command line changes; raises InputError with every fault at once."""
    path = _path(options.recipe)
    content = {key.replace("-", "_"): value for key, value in read_toml(path).items()}
    faults: list[str] = []
    tables = {
        key: value for key, value in content.items() if isinstance(value, dict) or key in STAGES
    }
    stages = _stages(content.get("stages"), options, faults)
    for key in content:
        if key not in tables and key not in _KEYS:
            faults.append(f"unknown key {key!r}{nearest(key, [*_KEYS, *STAGES])}")
    tables = _tables(tables, content.get("stages"), faults)
    data = {key: content[key] for key in _DATA_KEYS if key in content}
    given = {key: getattr(options, key) for key in (*_DATA_KEYS, "folds")}
    data |= {key: value for key, value in given.items() if value is not None and value is not False}
    data = _check_data(data, faults)
    heard_through = _front_end(data, faults)
    seeds = _numbers("seeds", options.seeds or content.get("seeds", [0]), 0, faults)
    folds = _numbers("folds", options.fold or content.get("folds", []), 1, faults)
    if options.run is None and options.from_stage is not None and options.from_stage not in stages:
        faults.append(
            f"--from {options.from_stage}: no stage of this recipe"
            f"{nearest(options.from_stage, stages)} (its stages: {', '.join(stages)})"
        )
    recipe = PipelineRecipe(
        path.stem, stages, seeds, tuple(folds) or (None,), data, tables, heard_through
    )
    faults += _command_faults(recipe, options)
    if faults:
        raise InputError(f"{path}: " + "; ".join(dict.fromkeys(faults)))
    return recipe


def _path(name: str) -> Path:
    """A TOML file as given, else the shipped recipe of that name."""
    if name.endswith(".toml"):
        return Path(name)
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"unknown pipeline {name!r}{nearest(name, names())} "
            f"(known: {', '.join(names())}; or a path to a .toml file)"
        )
    return path


# --- faults --------------------------------------------------------------------------------------


def _stages(value: Any, options: PipelineConfig, faults: list[str]) -> tuple[str, ...]:
    """The stages to plan; names, order and what each needs are checked."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        faults.append(f"stages must list the stages in order, of {', '.join(STAGES)}")
        return ()
    for name in value:
        if name not in STAGES:
            faults.append(
                f"unknown stage {name!r}{nearest(name, STAGES)} (known: {', '.join(STAGES)})"
            )
    known = [name for name in value if name in STAGES]
    order = list(STAGES)
    for earlier, later in itertools.pairwise(known):
        if earlier == later:
            faults.append(f"stage {earlier!r} stands twice")
        elif order.index(later) < order.index(earlier):
            faults.append(f"contradictory order: {later!r} stands behind {earlier!r}")
    if "pretrain" in known and not {"teach", "distill"} & set(known):
        faults.append("'pretrain' gives teachers and students a start: add 'teach' or 'distill'")
    start = options.run is not None
    first = next((n for n in known if n in ("prune", "finetune", "quantize", "export")), None)
    if first and "distill" not in known and not start:
        faults.append(f"{first!r} needs a student: add 'distill' before it, or give --run RUN")
    if "finetune" in known and "prune" not in known and not start:
        faults.append("'finetune' trains what pruning left: add 'prune' before it")
    if options.until is not None and options.until not in known:
        faults.append(f"--until {options.until}: no stage of this recipe"
                      f"{nearest(options.until, known)}")  # fmt: skip
    if start and options.from_stage is None:
        faults.append("--run: say with --from which stage starts from it")
    if start and options.from_stage in ("pretrain", "teach", "distill", "report"):
        faults.append(f"--run: the stage {options.from_stage!r} starts from no student")
    begin, end = options.from_stage, options.until
    if begin in order and end in order and order.index(begin) > order.index(end):
        faults.append(f"--from {begin} stands behind --until {end}")
    return tuple(dict.fromkeys(known))


def _tables(
    tables: Mapping[str, Any], stages: Any, faults: list[str]
) -> dict[str, Mapping[str, Any]]:
    """Stage -> options; unknown options are found when the commands' own classes are built."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, table in tables.items():
        if name not in STAGES:
            faults.append(f"unknown stage [{name}]{nearest(name, STAGES)}")
        elif not isinstance(table, dict):
            faults.append(f"{name} must be a table; write [{name}]")
        else:
            if isinstance(stages, list) and name not in stages:
                faults.append(f"[{name}] has options, but {name!r} is not in stages")
            found[name] = _options(table)
    return found


def _options(table: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names in Python; tables of one network keep theirs, as "audiobot50-dsc"."""
    return {
        (name if isinstance(value, dict) else name.replace("-", "_")): (
            _options(value) if isinstance(value, dict) else value
        )
        for name, value in table.items()
    }


def _check_data(data: dict[str, Any], faults: list[str]) -> dict[str, Any]:
    """The data options that are right."""
    if "data" not in data:
        faults.append("data: which data set is not said; give --data PATH")
    fitting, wrong = sound_values(DataOptions, data)
    if wrong:
        faults.append(f"data: {'; '.join(wrong)}")
    return {name: value for name, value in data.items() if name in fitting}


def _front_end(data: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """What --frontend names: a file or a run may change and keep its name."""
    if "frontend" not in data:
        return {}
    try:
        return {"frontend": named_front_end(data["frontend"]).to_dict()}
    except InputError as error:
        faults.append(f"frontend: {error}")
        return {}


def _numbers(name: str, value: Any, least: int, faults: list[str]) -> tuple[int, ...]:
    """Whole numbers from a list, one number, or text such as '0,1,2'; each once."""
    entries = value.split(",") if isinstance(value, str) else value
    entries = entries if isinstance(entries, list) else [entries]
    numbers = []
    for entry in entries:
        text = str(entry).strip()
        if isinstance(entry, bool) or not text.isdecimal() or int(text) < least:
            faults.append(f"{name}: {entry!r} is not a whole number of at least {least}")
        else:
            numbers.append(int(text))
    if name == "seeds" and not entries:
        faults.append("seeds: the list is empty")
    return tuple(dict.fromkeys(numbers))


def _command_faults(recipe: PipelineRecipe, options: PipelineConfig) -> list[str]:
    """What the commands themselves say of their options, before any of them reads anything."""
    faults: list[str] = []
    stages = recipe.stages or tuple(name for name in STAGES if name in recipe.tables)
    tables = {stage: _without_ours(recipe, stage, faults) for stage in stages}
    faults += _shared_clips(recipe)
    if "pretrain" in stages and "data" not in tables["pretrain"]:
        faults.append("[pretrain] data: say which other sound, for example scenes:105780")
    recipe = dataclasses.replace(recipe, tables=tables)
    first = (recipe.seeds or (0,))[0], recipe.folds[0]
    for stage in stages:
        check = getattr(STAGES[stage].command(), "check_options", None)
        for step in _steps_of(recipe, stage, options, *first, _no_chain(), faults):
            try:
                if check is not None:
                    check(step.config)
            except InputError as error:
                faults.append(f"[{stage}] {error}")
    return faults


def _without_ours(recipe: PipelineRecipe, stage: str, faults: list[str]) -> dict[str, Any]:
    """A stage's options but for those that the pipeline sets, which are faults."""
    ours, found = [], {}
    for key, value in recipe.tables.get(stage, {}).items():
        always = key in _SET_ALWAYS and key not in _other_sound(recipe, stage)
        if always or _is_ours(recipe, stage, key):
            ours.append(key)
        elif isinstance(value, Mapping):
            inner = [name for name in value if name in (*_SET_ALWAYS, STAGES[stage].several)]
            ours += inner
            found[key] = {name: value[name] for name in value if name not in inner}
        else:
            found[key] = value
    if ours:
        faults.append(f"[{stage}] {', '.join(ours)}: the pipeline sets this itself")
    return found


def _other_sound(recipe: PipelineRecipe, stage: str) -> Mapping[str, Any]:
    """The data options of a stage that hears other sound than the student; else none."""
    table = recipe.tables.get(stage, {})
    if stage not in ("pretrain", "teach") or "data" not in table:
        return {}
    own = {"data": table["data"], "data_seed": table.get("data_seed", 0)}
    return own | ({"classes": table.get("classes", "own")} if stage == "pretrain" else {})


def _shared_clips(recipe: PipelineRecipe) -> list[str]:
    """A longer synthetic set of the same seed holds the test clips, which none may have heard."""
    faults = []
    for stage in ("pretrain", "teach"):
        own = _other_sound(recipe, stage)
        sets = str(recipe.data.get("data", "")), str(own.get("data", ""))
        if all(map(is_synthetic, sets)) and own["data_seed"] == recipe.data.get("data_seed", 0):
            faults.append(
                f"[{stage}] data: {sets[1]} shares clips with {sets[0]}, those of the test too; "
                f"give [{stage}] another data_seed"
            )
    return faults


def _is_ours(recipe: PipelineRecipe, stage: str, key: str) -> bool:
    if key == "teacher":
        return stage in ("distill", "finetune") and "teach" in recipe.stages
    return key == "student" and stage == "finetune"


# --- the plan ------------------------------------------------------------------------------------


@dataclass
class _Chain:
    """What a stage starts from: folders of the stages before it, and their digests."""

    digest: str = ""
    starts: Mapping[str, Path] = field(default_factory=dict)  # network -> its run of pretrain
    teachers: tuple[str, ...] = ()
    student: str = ""
    run: Path | None = None


def _no_chain() -> _Chain:
    """Stands for finished stages while options are checked."""
    return _Chain(run=Path("run"), student="dsc500", teachers=("./teacher",))


def steps(recipe: PipelineRecipe, options: PipelineConfig) -> list[Step]:
    """Every command of the recipe, seed by seed and fold by fold; the report once, at the end."""
    start = _start(options.run) if options.run is not None else None
    planned: list[Step] = []
    faults: list[str] = []
    for fold, seed in itertools.product(recipe.folds, recipe.seeds):
        chain = dataclasses.replace(start) if start else _Chain()
        for stage in recipe.stages:
            if stage == "report" or (start and _before(stage, options.from_stage)):
                continue
            made = _steps_of(recipe, stage, options, seed, fold, chain, faults)
            planned += [step for step in made if step.folder not in {s.folder for s in planned}]
            _follow(recipe, chain, stage, made)
    if "report" in recipe.stages:
        planned += _steps_of(recipe, "report", options, recipe.seeds[0], None, _Chain(), faults)
    if faults:
        raise InputError("; ".join(dict.fromkeys(faults)))
    return planned


def _before(stage: str, first: str | None) -> bool:
    order = list(STAGES)
    return first in STAGES and order.index(stage) < order.index(str(first))


def _start(folder: Path) -> _Chain:
    """A chain that begins with a run folder from elsewhere, under that run's own teachers."""
    run: Run = runs.open_run(folder)
    run.check_unchanged()
    teachers = tuple(str(entry["folder"]) for entry in run.manifest.get("teachers") or [])
    return _Chain(run.model_hash(), teachers=teachers, student=run.name, run=folder)


def _files_named(options: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the recipe files and student files that options name: a changed one is a changed
    option."""
    return {
        name: runs.sha256_file(Path(value))
        for name, value in options.items()
        if isinstance(value, str) and value.endswith((".toml", ".json")) and Path(value).is_file()
    }


def _steps_of(
    recipe: PipelineRecipe,
    stage: str,
    options: PipelineConfig,
    seed: int,
    fold: int | None,
    chain: _Chain,
    faults: list[str],
) -> list[Step]:
    """The commands of a stage; one with a fault has the defaults in the place of what is wrong."""
    row = STAGES[stage]
    table = {**row.defaults, **recipe.tables.get(stage, {})}
    if stage == "pretrain":
        seed, fold = 0, None  # one start, whatever the seeds and folds
    variants: Sequence[Any] = [None]
    if row.several and isinstance(table.get(row.several), list):
        variants = table.pop(row.several)
        if not variants:
            faults.append(f"[{stage}] {row.several}: the list is empty")
    special = {name: table.pop(name) for name in list(table) if isinstance(table[name], Mapping)}
    listed = [teacher_and_seed(str(variant))[0] for variant in variants if variant is not None]
    for name in special:
        if name not in listed:
            faults.append(
                f"[{stage}.{name}]: is none of several that this stage lists{nearest(name, listed)}"
            )
    found = []
    common_seed = seed
    for variant in variants:
        own = table if variant is None else table | {row.several: variant}
        own = own | special.get(teacher_and_seed(str(variant))[0], {})
        seed = own.pop("seed", common_seed)
        if stage == "teach" and isinstance(own.get("teacher"), str):
            teacher, own_seed = teacher_and_seed(own["teacher"])
            own, seed = own | {"teacher": teacher}, seed if own_seed is None else own_seed
            variant = None if variant is None else teacher
        parts = [stage, *([runs.slug(str(variant))] if len(variants) > 1 else []), f"s{seed}"]
        parts += [f"fold{fold}"] if fold is not None else []
        root = options.runs / recipe.name
        asked = [stage, own, seed, fold]
        behind = [chain.digest, *([named] if (named := _files_named(own)) else [])]
        data = {**recipe.data, **recipe.heard_through}
        heard = {**data, **_other_sound(recipe, stage)}
        keys = [runs.digest([*asked, of, *behind]) for of in (data, heard)]
        former, folder = (root / "-".join([*parts, key[:6]]) for key in keys)
        if stage == "report":
            folder = root / "report"
        elif former.is_dir():  # of the time when names told the student's data here too
            folder = former
        values = {**own, **_ours(recipe, stage, options, seed, fold, chain), "out": folder}
        values["runs"] = root
        if stage in ("teach", "distill"):
            network = str(values.get("teacher" if stage == "teach" else "student"))
            values |= {"weights": chain.starts[network]} if network in chain.starts else {}
        fields = {spec.name for spec in dataclasses.fields(row.options)}
        values = {key: value for key, value in values.items() if key in fields or key in own}
        fitting, wrong = sound_values(row.options, values)
        if wrong:
            faults.append(f"[{stage}]: {'; '.join(wrong)}")
        found.append(Step(stage, row.options(**fitting), folder, seed, fold))
    return found


def _ours(
    recipe: PipelineRecipe,
    stage: str,
    options: PipelineConfig,
    seed: int,
    fold: int | None,
    chain: _Chain,
) -> dict[str, Any]:
    """The options that the pipeline sets, as far as the stage's command has them."""
    values: dict[str, Any] = {
        "seed": seed,
        "device": options.device,
        "threads": options.threads,
        "force": options.force,
        "cache": options.cache,
        "workers": options.workers,
    }
    if stage in ("pretrain", "teach", "distill", "finetune"):
        values |= {**recipe.data, "fold": fold}
        if other := _other_sound(recipe, stage):
            values |= {**other, "fold": None, "folds": None}
    if stage in ("prune", "quantize", "export"):
        values["run"] = chain.run
    if stage == "distill" and "teach" in recipe.stages:
        values["teacher"] = list(chain.teachers)
    if stage == "finetune":
        values |= {"student": chain.student, "weights": chain.run}
        if chain.teachers:
            values["teacher"] = list(chain.teachers)
        else:
            values["without_teacher"] = True
    return values


def _follow(recipe: PipelineRecipe, chain: _Chain, stage: str, made: Iterable[Step]) -> None:
    """Move the chain behind a stage."""
    made = list(made)
    chain.digest = runs.digest([chain.digest, [step.folder.name for step in made]])
    if stage == "pretrain":
        chain.starts = {step.config.student: step.folder for step in made}
        return
    if stage == "teach":
        chain.teachers = tuple(_as_folder(step.folder) for step in made)
        return
    if stage == "export":
        return
    config = made[0].config
    chain.run = made[0].folder
    if stage == "distill":
        chain.student = config.student
        chain.teachers = () if config.without_teacher else tuple(config.teacher)


def _as_folder(path: Path) -> str:
    """A path that no command takes for the name of a network."""
    text = str(path)
    return text if "/" in text else f"./{text}"
