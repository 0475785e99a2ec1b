"""Steps of a pipeline as processes, those at the same time that do not wait for each other.

    teach s0 -> distill s0 -> quantize s0 -> report
    teach s1 -> distill s1 -> quantize s1 ->

A step waits for the steps whose run folders its options name, the report for all. What a step
prints comes when it has ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from compress import children, cli, runs, toml_text
from compress.errors import InputError
from compress.pipeline_recipe import STAGES, Step


def run_steps(steps: Sequence[Step], jobs: int) -> None:
    """All steps, at most ``jobs`` at a time, which share the cores. Raises InputError with the line
    of a step that was refused; those that still run are ended then, and continue another time."""
    waiting = dict(enumerate(steps, 1))
    needed = {number: _needed(number, steps) for number in waiting}
    running: dict[Future[int], int] = {}
    processes: dict[int, Any] = {}
    done: set[int] = set()
    with (
        ThreadPoolExecutor(jobs) as pool,
        _ended_at_last(processes),
        cli.progress(len(steps), "steps", "step") as bar,
    ):
        while waiting or running:
            ready = [number for number in waiting if needed[number] <= done]
            for number in ready[: jobs - len(running)]:
                step = _with_threads(waiting.pop(number), jobs)
                cli.say(f"--- {number}/{len(steps)} {step.title} starts")
                processes[number] = _start(step)
                running[pool.submit(processes[number].wait)] = number
            for end in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(end)
                processes.pop(number).stdin.close()
                _tell(steps[number - 1], number, len(steps), end.result())
                done.add(number)
                bar.update()


def _needed(number: int, steps: Sequence[Step]) -> set[int]:
    """Numbers of the steps that must have ended before this one."""
    step, earlier = steps[number - 1], list(enumerate(steps[: number - 1], 1))
    if step.stage == "report":
        return {other for other, _ in earlier}
    named = set(_paths(step.config))
    return {other for other, before in earlier if before.folder in named}


def _paths(config: Any) -> Iterator[Path]:
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(entry, (str, Path)):
                yield Path(entry)


def _with_threads(step: Step, jobs: int) -> Step:
    """The step on its share of the cores, where neither recipe nor command line says another."""
    if getattr(step.config, "threads", None) != 0:
        return step
    from compress.session import usable_cores

    share = max(1, usable_cores() // jobs)
    return dataclasses.replace(step, config=dataclasses.replace(step.config, threads=share))


def log_file(step: Step) -> Path:
    return step.folder.parent / "jobs" / f"{step.folder.name}.log"


def _start(step: Step) -> Any:
    options = log_file(step).with_suffix(".toml")
    options.parent.mkdir(parents=True, exist_ok=True)
    runs.write_text(options, toml_text.dumps(toml_text.changed(step.config)))
    module, given = STAGES[step.stage].module, ["--config", str(options)]
    with log_file(step).open("w") as out:
        return children.start(module, given, out, Path.cwd())


def _tell(step: Step, number: int, count: int, code: int) -> None:
    """What the step printed; raises InputError where it did not end well."""
    log = log_file(step)
    if code == 0:
        cli.say(f"--- {number}/{count} {step.title}: {STAGES[step.stage].sentence}")
        cli.say(log.read_text(errors="replace").rstrip())
        cli.say()
        return
    if code < 0 or code > 128:
        raise InputError(
            f"stage {step.title}: its process was killed (see {log}); the same command continues"
        )
    last = children.last_line(log).removeprefix("error: ")
    raise InputError(f"stage {step.title}: {last} (see {log})")


@contextlib.contextmanager
def _ended_at_last(processes: dict[int, Any]) -> Iterator[None]:
    """End what still runs when the block is left, so that no thread waits for it."""
    try:
        yield
    finally:
        for process in processes.values():
            process.terminate()
