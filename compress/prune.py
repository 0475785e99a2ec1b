"""Prune a trained student: whole channels until a target is met, trained in between.

Give one of --params, --macs, --latency-ratio, or --sparsity for single weights. The result is a run
folder of an ordinary student with smaller widths: it trains on, exports, is quantised and pruned
again. Fine-tuning listens to the teachers that the run was distilled from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress import cli
from compress.config import PruneConfig, QuantizeConfig
from compress.errors import Faults, InputError
from compress.next_command import next_command

if TYPE_CHECKING:
    from compress.runs import Run

_TARGETS = ("params", "macs", "latency_ratio", "sparsity")
_SHOWN_LAYERS = 6


def run(config: PruneConfig) -> int:
    kind = check_options(config)

    from compress import checkpoint, continuing, runs
    from compress import recipe as recipes
    from compress.parents import open_parent
    from compress.pruned_runs import pruned_run
    from compress.pruning.steps import Pruning, check_target
    from compress.pruning.structure import Subject
    from compress.teaching import check_teacher

    assert config.run is not None
    recipe = recipes.chosen(config.recipe, "", config)
    parent = open_parent(config.run, config)
    if parent.run is None:
        raise InputError(f"{config.run}: is a file; channels are pruned from a run folder")
    pruning = Pruning(
        kind=kind,
        value=getattr(config, kind),
        importance=config.importance,
        round_to=config.round_to,
        steps=config.steps,
        step_epochs=config.step_epochs,
        sparsity_scope=config.sparsity_scope,
    )
    teachers = continuing.teachers_of(parent.run, config.teacher, config.without_teacher)
    model, _ = checkpoint.load(parent.run)
    family = str(runs.read_json(parent.run.file(runs.MODEL))["family"])
    if family == "ensemble":
        raise InputError(f"{config.run}: is an ensemble; prune its members, or a student of it")
    data = parent.data
    subject = Subject(family, parent.run.name, model, data.mels, data.frames)
    unsupported = check_target(subject, pruning)
    seed = parent.seed if config.seed is None else config.seed
    session = continuing.open_session_of(parent, parent.run, config, seed)
    for teacher in teachers:
        check_teacher(session, teacher)
    for reason in unsupported:
        session.say(f"note      left alone: {reason}")
    if not teachers:
        session.say("note      no teacher: fine-tuning on labels alone")
    transfer = continuing.transfer_of(parent.run, config.cache) if teachers else []
    result = pruned_run(
        session,
        parent,
        parent.run,
        family,
        model,
        pruning,
        continuing.distillation_of(parent.run, teachers, transfer, config.cache),
        recipe,
        unsupported,
        config.out,
        config.force,
    )
    for line in lines_of(parent.run, result):
        session.say(line)
    following = next_command("quantize", QuantizeConfig, config, run=result.folder)
    session.say(
        f"Before is {parent.run.folder}; the pruned run lies in {result.folder}. Next: {following}"
    )
    return 0


def check_options(config: PruneConfig) -> str:
    """The one target that is given; raises InputError before any run is read."""
    from compress import recipe as recipes

    faults = Faults()
    faults.add(config.run is None, "--run must be given: the run folder of the student to prune")
    given = [name for name in _TARGETS if getattr(config, name) is not None]
    flags = ", ".join("--" + name.replace("_", "-") for name in _TARGETS)
    faults.add(len(given) != 1, f"give one target of {flags}; given were {len(given)}")
    faults.add(
        config.teacher and config.without_teacher,
        "--teacher and --without-teacher exclude each other; give one",
    )
    faults.of(recipes.chosen, config.recipe, "", config)
    faults.check()
    return given[0]


def lines_of(parent: Run, result: Run) -> list[str]:
    """Before and after, and what has to be said plainly, from what was measured."""
    from compress import evaluate
    from compress.metrics import paired_difference
    from compress.session import DECISIONS
    from compress.summary import aligned, describe_difference

    figures, old = result.metrics(), parent.metrics()
    pruning = figures["pruning"]
    before, latency = pruning["before"], pruning["latency"]
    rows: list[tuple[str, ...]] = [("", "before", "after", "ratio")]
    for words, key in (("parameters", "params"), ("weights in the file", "file_params"),
                       ("MACs", "macs"), ("file bytes", "file_bytes")):  # fmt: skip
        rows.append(
            (words, f"{before[key]:,}", f"{figures[key]:,}", f"{figures[key] / before[key]:.2f}")
        )
    rows.append(
        (
            "latency",
            f"{latency['base_median_ms']:.3f} ms",
            f"{latency['median_ms']:.3f} ms",
            f"{latency['ratio']:.2f}",
        )
    )
    accuracies = [found["splits"]["test"]["accuracy"] for found in (old, figures)]
    rows.append(("test accuracy", *(f"{100 * accuracy:.1f} %" for accuracy in accuracies), ""))
    pruned, whole = (evaluate.load_decisions(r.file(DECISIONS)) for r in (result, parent))
    return [
        aligned(rows, right=(1, 2, 3)),
        f"Latency: median of {latency['runs']} runs of each file in turns, one thread; ratio "
        f"between quartiles {latency['low']:.2f} and {latency['high']:.2f}.",
        describe_difference("pruned", "parent", paired_difference(pruned, whole)),
        *_plain_words(result, figures, pruning),
    ]


def _plain_words(result: Run, figures: dict[str, Any], pruning: dict[str, Any]) -> list[str]:
    """What a reader must not have to find out alone."""
    from compress.pruned_runs import latency_stands, slow_layers

    lines = []
    ratio = pruning["latency"]["ratio"]
    macs = (pruning["before"]["macs"], figures["macs"])
    share = macs[1] / macs[0]
    slow = slow_layers(pruning["layers"])
    if latency_stands(*macs, ratio):
        lines.append(f"MACs fell to {share:.2f}, latency did not ({ratio:.2f}).")
    elif share < ratio and slow:
        lines.append(f"MACs fell to {share:.2f}, latency only to {ratio:.2f}.")
    if lines and slow:
        shown = "; ".join(
            f"{layer['name']} (MACs {layer['macs'][1] / layer['macs'][0]:.2f}, "
            f"{layer['microseconds'][0]:.0f} to {layer['microseconds'][1]:.0f} us)"
            for layer in slow[:_SHOWN_LAYERS]
        )
        more = f"; and {len(slow) - _SHOWN_LAYERS} more" if len(slow) > _SHOWN_LAYERS else ""
        lines.append(f"Layers with fewer MACs that take as long: {shown}{more}.")
    elif lines:
        largest = sorted(pruning["layers"], key=lambda layer: -layer["macs"][1])[:3]
        names = ", ".join(layer["name"] for layer in largest)
        lines.append(f"Their times cannot be told apart; the most MACs are left in {names}.")
    wanted = result.manifest["settings"]["pruning"]
    if wanted["kind"] == "latency_ratio" and ratio > wanted["value"]:
        lines.append(
            f"Asked for was a latency ratio of {wanted['value']:g}; this measurement gives "
            f"{ratio:.2f}."
        )
    lines += [f"Note: {note}." for note in pruning["notes"]]
    return lines


if __name__ == "__main__":
    raise SystemExit(cli.main(PruneConfig, run, __doc__))
