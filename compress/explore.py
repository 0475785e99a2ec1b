"""Look at a data set before training on it: classes, spectrograms, values, duplicates.

Writes one page (explore.html, needs nothing else) and explore.json. --augmentations shows what each
change of a recipe does to clips of the set.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import cli, toml_text
from compress.config import DistillConfig, ExploreConfig
from compress.errors import InputError
from compress.next_command import next_command

if TYPE_CHECKING:
    from compress.data.sets import SpectrogramSet
    from compress.data.splits import Split


def run(config: ExploreConfig) -> int:
    from compress import exploration, runs
    from compress.data import open_chosen
    from compress.duplicates import find_duplicates
    from reports import exploration as pages

    if config.out is not None and config.out.exists() and not config.out.is_dir():
        raise InputError(f"{config.out}: is a file; give another folder with --out")
    data = open_chosen(config)
    split, notes = _split(config, data)
    if config.augmentations and split is None:
        raise InputError(f"--augmentations: shows training clips, and {notes[-1]}")
    figures = exploration.class_figures(data)
    means = figures.pop("mean_spectrograms_db")
    duplicates = exploration.describe_duplicates(data, find_duplicates(data, config.near), split)
    axes = exploration.axes_of(data)
    found = pages.Exploration(
        name=data.name,
        synthetic=data.synthetic,
        axes=axes,
        figures=figures,
        duplicates=duplicates,
        split=split.description if split else None,
        examples=exploration.examples(data, config.examples, config.seed),
        means=[
            pages.Panel(name, mean)
            for name, mean, row in zip(data.class_names, means, figures["classes"], strict=True)
            if row["windows"]
        ],
        augmentations=(
            exploration.augmented(data, split, config.seed)
            if config.augmentations and split is not None
            else ()
        ),
        notes=notes,
        made=time.strftime("%Y-%m-%d %H:%M"),
    )
    out = config.out or config.runs / "explore" / runs.slug(data.name)
    runs.write_text(out / "explore.html", pages.page(found))
    described = {
        "data": data.describe(),
        "split": {"description": split.description, "sha256": split.digest()} if split else None,
        **figures,
        "mean_spectrograms_db": means.round(3).tolist(),
        "duplicates": duplicates,
        "notes": notes,
    }
    runs.write_json(out / "explore.json", described)
    if config.pictures:
        _save_pictures(found, out)
    for line in lines_of(data, figures, duplicates, notes):
        cli.say(line)
    own = {"student": "dsc500", "data": config.data, "runs": toml_text.changed(config).get("runs")}
    following = next_command("distill", DistillConfig, config, **own)
    cli.say(f"The page lies in {out / 'explore.html'} (.json). Next: {following}")
    return 0


def _save_pictures(found: Any, folder: Path) -> None:
    """The figures of the page as PNG files."""
    from compress import runs
    from reports import exploration as pages
    from reports import exploration_pictures as pictures

    if found.examples:
        with runs.atomic_path(folder / "spectrograms.png") as path:
            pictures.save_spectrograms(found.examples, found.axes, path)
    if found.means:
        means = pages.in_rows(found.means, 3)
        with runs.atomic_path(folder / "means.png") as path:
            pictures.save_spectrograms(means, found.axes, path, own_scale=True)
    with runs.atomic_path(folder / "values.png") as path:
        pictures.save_values(found.figures, path)


def _split(config: ExploreConfig, data: SpectrogramSet) -> tuple[Split | None, list[str]]:
    """The split that training would take, or none; and notes, the reason last."""
    from compress.data import make_split

    try:
        split = make_split(
            data, config.data_seed, config.fold, config.folds, config.validation_fold
        )
        return split, list(data.notes)
    except InputError as error:
        if config.fold is not None or config.validation_fold is not None:
            raise
        return None, [*data.notes, f"no split is possible: {error}"]


def lines_of(
    data: SpectrogramSet, figures: dict[str, Any], duplicates: dict[str, Any], notes: list[str]
) -> list[str]:
    """The summary for a terminal."""
    from reports.exploration import CLASS_HEAD, class_cells
    from reports.tables import aligned

    synthetic = " (synthetic)" if data.synthetic and "synthetic" not in data.name else ""
    lines = [f"{data.name}{synthetic}: {figures['windows']:,} windows, {figures['clips']:,} clips"]
    rows = [class_cells(row) for row in figures["classes"]]
    lines += ["", aligned(CLASS_HEAD, rows), ""]
    lines.append(f"at -80 dB   {figures['share_at_floor']:.2%} of all values")
    crossing = ""
    if duplicates["near_across_sides"] is not None:
        crossing = (
            f"; across sides of the split: {duplicates['exact_across_sides']:,} exact, "
            f"{duplicates['near_across_sides']:,} near"
        )
    lines.append(
        f"duplicates  {duplicates['exact_pairs']:,} exact pairs, {duplicates['near_pairs']:,} near "
        f"(within {duplicates['threshold_db']:g} dB){crossing}; "
        f"{duplicates['quiet_windows']:,} nearly silent windows not compared"
    )
    if duplicates["other_label"]:
        lines.append(f"labels      {duplicates['other_label']:,} of these pairs have two labels")
    return lines + [f"note        {note}" for note in notes]


if __name__ == "__main__":
    raise SystemExit(cli.main(ExploreConfig, run, __doc__))
