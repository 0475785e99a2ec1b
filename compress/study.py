"""A search in a storage that several processes and machines share, and that outlives them.

    STUDY/study.json     what is searched: student, data, split, recipe, space
          study.log      Optuna's journal: every trial, its values, its loss after each epoch
          trials/        a lock per trial that runs

A trial belongs to the process that holds its lock. The lock goes with the process, so a trial whose
lock is free while the journal says "running" was lost: it is closed and its values are tried again.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from compress import cli, runs
from compress.errors import InputError
from compress.search_space import Choices, Space

JOURNAL = "study.log"
IDENTITY = "study.json"
LOST = "lost"
REPEATS = "repeats"
FAULT = "fault"
_SECONDS_BETWEEN_LOOKS = 1.0


def check_installed() -> None:
    """Refuse before any data is read."""
    import importlib.util

    if importlib.util.find_spec("optuna") is None:
        raise InputError("the package optuna is not installed; pip install '.[sweep]'")


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write what the study searches, or refuse a folder that searches something else, by name."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".study.lock"):
        path = folder / IDENTITY
        if not path.is_file():
            runs.write_json(path, dict(identity))
            return
        found = runs.read_json(path)
    keys = dict.fromkeys([*identity, *found])
    differing = [key for key in keys if found.get(key) != identity.get(key)]
    if differing:
        first = [f"{key} {_short(found.get(key))}, not {_short(identity.get(key))}"
                 for key in differing[:3]]  # fmt: skip
        raise InputError(
            f"{folder}: is a study of {found.get('student')} on {found.get('data')}; asked for is "
            f"{identity['student']} on {identity['data']} ({'; '.join(first)}); choose another "
            "folder with --out"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


class Study:
    """Trials of one folder. ``space`` decides what is tried, sampler and seed in which order."""

    def __init__(self, folder: Path, space: Space, sampler: str, seed: int, warmup: int | None):
        """warmup: epochs before a trial may be stopped as hopeless; None: it never is."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.space = folder, space
        self._sampler, self._seed = sampler, seed
        log = str(folder / JOURNAL)
        pruner = (
            optuna.pruners.NopPruner()
            if warmup is None
            else optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup + 1)
        )
        self.optuna = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(log, JournalFileOpenLock(log))),
            study_name="sweep",
            direction="minimize",
            load_if_exists=True,
            pruner=pruner,
        )
        self._distributions = {key: _distribution(part) for key, part in space.items()}

    def trials(self) -> list[Any]:
        return self.optuna.get_trials(deepcopy=False)

    def finished(self) -> list[Any]:
        """Trials that ended with a loss, were stopped as hopeless, or were refused; not lost."""
        return [t for t in self.trials() if t.state.is_finished() and LOST not in t.user_attrs]

    def run(self, count: int, objective: Callable[[Any], float]) -> None:
        """Try until ``count`` trials are finished over all processes; then return in each."""
        while True:
            with self._next(count) as trial:
                if trial is None:
                    if len(self.finished()) >= count:
                        return
                    time.sleep(_SECONDS_BETWEEN_LOOKS)  # others run the last ones
                    continue
                self._try(trial, objective)

    def _try(self, trial: Any, objective: Callable[[Any], float]) -> None:
        from optuna import TrialPruned
        from optuna.trial import TrialState

        try:
            value = objective(trial)
        except TrialPruned:
            self.optuna.tell(trial, state=TrialState.PRUNED)
        except InputError as error:
            trial.set_user_attr(FAULT, str(error))
            self.optuna.tell(trial, state=TrialState.FAIL)
        except KeyboardInterrupt:
            self._give_up(trial._trial_id, trial.number, trial.params)
            raise
        else:
            if math.isfinite(value):
                self.optuna.tell(trial, value)
            else:
                self.optuna.tell(trial, state=TrialState.FAIL)

    @contextlib.contextmanager
    def _next(self, count: int) -> Iterator[Any]:
        """A trial that is ours while its lock is held, or None where all are given out."""
        from filelock import FileLock
        from optuna.trial import TrialState

        with FileLock(self.folder / ".study.lock"):
            self._reclaim()
            states = [t.state for t in self.trials() if LOST not in t.user_attrs]
            given = sum(state != TrialState.WAITING for state in states)
            if given >= count:
                trial, lock = None, None
            else:
                self.optuna.sampler = self._fresh_sampler()
                trial = self.optuna.ask(self._distributions)
                lock = self._lock(trial.number)
                lock.acquire(timeout=0)
        try:
            yield trial
        finally:
            if lock is not None:
                lock.release()

    def _lock(self, number: int) -> Any:
        from filelock import FileLock

        (self.folder / "trials").mkdir(exist_ok=True)
        return FileLock(self.folder / "trials" / f"trial-{number:04d}.lock")

    def _reclaim(self) -> None:
        """Close running trials that no process holds, and line their values up again."""
        from filelock import Timeout
        from optuna.trial import TrialState

        for trial in self.trials():
            if trial.state != TrialState.RUNNING:
                continue
            lock = self._lock(trial.number)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                cli.say(f"trial {trial.number:<3} was lost with its process; its values run again")
                self._give_up(trial._trial_id, trial.number, trial.params)
            finally:
                lock.release()

    def _give_up(self, identity: int, number: int, params: Mapping[str, Any]) -> None:
        from optuna.trial import TrialState

        storage = self.optuna._storage
        storage.set_trial_user_attr(identity, LOST, True)
        if len(params) == len(self._distributions):  # else it was lost before it had values
            self.optuna.enqueue_trial(dict(params), user_attrs={REPEATS: number})
        storage.set_trial_state_values(identity, TrialState.FAIL)

    def _fresh_sampler(self) -> Any:
        """Seeded by the number of the trial, so that no two processes draw the same values."""
        from optuna import samplers

        seed = (self._seed * 1_000_003 + len(self.trials())) % 2**31
        if self._sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self._sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True)
        return samplers.GPSampler(seed=seed)

    def importances(self) -> dict[str, float]:
        """Share of the variance of the loss that each value explains (fANOVA), largest first.

        Empty where fewer than four trials ended, or all with one loss.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances
        from optuna.trial import TrialState

        complete = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        if len(complete) < 4 or len({t.value for t in complete}) < 2:
            return {}
        try:
            return dict(
                get_param_importances(
                    self.optuna, evaluator=FanovaImportanceEvaluator(seed=self._seed)
                )
            )
        except ImportError:
            raise InputError("scikit-learn is not installed; pip install '.[sweep]'") from None


def _distribution(part: Any) -> Any:
    from optuna import distributions

    if isinstance(part, Choices):
        return distributions.CategoricalDistribution(part.values)
    kind = distributions.IntDistribution if part.whole else distributions.FloatDistribution
    return kind(part.low, part.high, log=part.log)
