"""Folds as processes of their own: started here or by the workers of a cluster, watched, repeated.

    engine (joblib) -> run_fold, in a worker -> python -m compress.crossval --fold-index K
                                             -> folds/fold-KK.json, folds/fold-KK.log

A fold that was killed with its process, its worker or its machine is started again and continues
from its checkpoint. A fold whose input is wrong is not: its one line is handed on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import children, cli, runs
from compress.errors import InputError

_HELD = "another process is writing to this run folder"
_LONGEST_PAUSE = 30.0  # seconds between looks whether a fold is still held


@dataclass(frozen=True)
class FoldEnd:
    """How the process of a fold ended. ``lost``: what happened to earlier ones of it, in words.

    waited: seconds that another process, of an earlier command perhaps, still held the fold.
    """

    fold: int
    code: int
    message: str
    lost: tuple[str, ...] = ()
    waited: float = 0.0


def record_file(folder: Path, fold: int) -> Path:
    return folder / "folds" / f"fold-{fold:02d}.json"


def log_file(folder: Path, fold: int) -> Path:
    return folder / "folds" / f"fold-{fold:02d}.log"


def started_file(folder: Path, fold: int) -> Path:
    """Names the host and process of a fold while it trains; what is left of it tells of a loss."""
    return folder / "folds" / f"fold-{fold:02d}.started.json"


def run_fold(folder: Path, options: Path, fold: int, working_folder: Path) -> FoldEnd:
    """Train one fold in a process of its own that ends when this one does.

    Where another process trains it, as on a cluster whose driver was killed, wait for that one.
    """
    lost = _lost_before(folder, fold)
    given = ["--config", str(options), "--fold-index", str(fold)]
    held_since, pause, waited = None, 1.0, 0.0
    log = log_file(folder, fold)
    log.parent.mkdir(parents=True, exist_ok=True)
    while True:
        log.unlink(missing_ok=True)  # a process about to end may still write to the earlier one
        with log.open("w") as out:
            process = children.start("compress.crossval", given, out, working_folder)
            described = {"host": socket.gethostname(), "process": process.pid}
            runs.write_json(started_file(folder, fold), described)
            try:
                code = process.wait()
            finally:
                if process.stdin is not None:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()
        if code != 2 or _HELD not in children.last_line(log):
            break
        if held_since is None:
            held_since = time.monotonic()
            cli.say(f"fold {fold:<4} is held by another process; waiting for it")
        time.sleep(pause)  # that of a lost worker is about to notice
        pause = min(2 * pause, _LONGEST_PAUSE)
        waited = time.monotonic() - held_since
    if code >= 0 and code < 128:
        started_file(folder, fold).unlink(missing_ok=True)
    return FoldEnd(fold, code, children.last_line(log), lost, waited)


def _lost_before(folder: Path, fold: int) -> tuple[str, ...]:
    path = started_file(folder, fold)
    if not path.is_file():
        return ()
    try:
        found = runs.read_json(path)
    except InputError:
        return ("an earlier process of it",)
    return (f"process {found.get('process')} on {found.get('host')}",)


def run_folds(
    folder: Path,
    options: Path,
    folds: Sequence[int],
    *,
    jobs: int,
    engine: str,
    scheduler: str | None,
    attempts: int,
) -> None:
    """Train ``folds``; a lost one is reported and started again, at most ``attempts`` times.

    Raises InputError with the line of a fold that was refused, or that was lost too often.
    """
    left, tries = list(folds), 0
    with cli.progress(len(folds), "folds", "fold") as bar:
        while left:
            tries += 1
            again = []
            try:
                for end in _ends(folder, options, left, jobs, engine, scheduler):
                    for what in end.lost:
                        cli.say(f"fold {end.fold:<4} lost {what}; it was run again")
                    if end.waited:
                        cli.say(f"fold {end.fold:<4} waited {end.waited:.0f} s for another process")
                    if end.code == 0:
                        cli.say(f"fold {end.fold:<4} {end.message}")
                        bar.update()
                    elif end.code < 0 or end.code > 128:
                        again.append(end.fold)
                        if tries < attempts:
                            cli.say(f"fold {end.fold:<4} its process was killed; runs again")
                    else:
                        log = log_file(folder, end.fold)
                        raise InputError(
                            f"fold {end.fold}: {end.message.removeprefix('error: ')} (see {log})"
                        )
            except _lost_engine() as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                cli.say(f"note      workers were lost ({reason}); their folds are run again")
                again = [fold for fold in left if not record_file(folder, fold).is_file()]
            if again and tries >= attempts:
                listed = ", ".join(map(str, again))
                raise InputError(
                    f"fold {listed}: lost {tries} times; see {log_file(folder, again[0])}, then "
                    "give the same command again"
                )
            left = again


def _lost_engine() -> tuple[type[Exception], ...]:
    """What a cluster raises where workers die again and again."""
    found: list[type[Exception]] = []
    if "distributed" in sys.modules:
        from distributed import KilledWorker

        found.append(KilledWorker)
    if "ray" in sys.modules:
        from ray.exceptions import RayError

        found.append(RayError)
    return tuple(found)


def _ends(
    folder: Path,
    options: Path,
    folds: Sequence[int],
    jobs: int,
    engine: str,
    scheduler: str | None,
) -> Iterator[FoldEnd]:
    """Ends of folds as they come. Each fold is a process, so here threads are enough to wait."""
    import joblib

    work = [joblib.delayed(run_fold)(folder, options, fold, Path.cwd()) for fold in folds]
    with _engine(engine, scheduler):
        backend: dict[str, Any] = {"n_jobs": -1}
        if engine == "local":
            backend = {"backend": "threading", "n_jobs": jobs}
        # ray's backend gives all ends at once, the others each as it comes
        backend["return_as"] = "list" if engine == "ray" else "generator_unordered"
        yield from joblib.Parallel(**backend, batch_size=1, pre_dispatch="all")(work)


def check_engine(engine: str) -> None:
    """Refuse an engine whose package is missing, before any data is read."""
    package, extra = {"dask": ("distributed", "cluster"), "ray": ("ray", "ray")}.get(
        engine, (None, "")
    )
    if package and importlib.util.find_spec(package) is None:
        raise InputError(
            f"--engine {engine}: the package is not installed; pip install '.[{extra}]'"
        )


@contextlib.contextmanager
def _engine(engine: str, scheduler: str | None) -> Iterator[Any]:
    """joblib on a cluster that is up; raises InputError where it is not."""
    if engine == "local":
        yield
        return
    import joblib

    with contextlib.ExitStack() as stack:
        try:
            if engine == "dask":
                from distributed import Client

                client = stack.enter_context(Client(scheduler, timeout="10s"))
                if not client.scheduler_info()["workers"]:
                    cli.say(f"note      {scheduler} has no workers yet; waiting for some")
            else:
                import ray
                from ray.util.joblib import register_ray

                ray.init(address=scheduler, ignore_reinit_error=True, log_to_driver=False)
                stack.callback(ray.shutdown)
                register_ray()
        except (OSError, TimeoutError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            start = "dask scheduler, dask worker ADDRESS" if engine == "dask" else "ray start"
            raise InputError(
                f"--scheduler {scheduler}: no {engine} scheduler answers there ({reason}); start "
                f"one ({start}) and give its address"
            ) from None
        stack.enter_context(joblib.parallel_config(engine))
        yield
