"""A search in a storage that several processes and machines share, and that outlives them.

    STUDY/study.json     what is searched: student, data, split, recipe, space
          study.log      Optuna's journal: every trial, its values, its loss after each epoch
          trials/        a lock per trial that runs

A trial belongs to the process that holds its lock. The lock goes with the process, so a trial whose
lock is free while the journal says "running" was lost: it is closed and its values are tried again,
under its number. What a process that is alone tries next does not depend on what was lost before.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
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


def held(folder: Path) -> Any:
    """A context in which no other process of the study writes its files or draws a trial."""
    from filelock import FileLock

    return FileLock(folder / ".study.lock")


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write what the study searches, or refuse a folder that searches something else, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
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

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.space = folder, space
        self._sampler, self._seed = sampler, seed
        log = folder / JOURNAL
        pruner = (
            optuna.pruners.NopPruner()
            if warmup is None
            else optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup + 1)
        )
        self.optuna = optuna.create_study(
            storage=_storage(log),
            study_name="sweep",
            direction="minimize",
            load_if_exists=True,
            pruner=pruner,
        )
        self._distributions = {key: _distribution(part) for key, part in space.items()}

    @classmethod
    def recorded(cls, folder: Path, seed: int) -> Study:
        """A study to be read alone; raises InputError where its journal cannot be."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        journal = folder / JOURNAL
        if not journal.is_file():
            raise InputError(f"{folder}: this study has no {JOURNAL}, so its trials are not known")
        found = cls.__new__(cls)
        found.folder, found._seed = folder, seed
        try:
            found.optuna = optuna.load_study(study_name="sweep", storage=_storage(journal))
            found.trials()
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError,
                ValueError) as error:  # fmt: skip
            raise InputError(f"{journal}: is no journal of a study ({error!r})") from None
        return found

    def trials(self) -> list[Any]:
        return self.optuna.get_trials(deepcopy=False)

    def finished(self) -> list[Any]:
        """Trials that ended with a loss, were stopped as hopeless, or were refused; not lost."""
        return [t for t in self.trials() if t.state.is_finished() and LOST not in t.user_attrs]

    def numbers(self) -> dict[int, int]:
        """Optuna's number of a trial -> the one that users see: a repeat has that of the lost."""
        trials = self.trials()
        repeated = {t.user_attrs.get(REPEATS) for t in trials}
        found: dict[int, int] = {}
        following = 0
        for trial in trials:
            if REPEATS in trial.user_attrs:
                found[trial.number] = found[trial.user_attrs[REPEATS]]
                continue
            found[trial.number] = following
            # One that was lost before it had values leaves its number to the next.
            following += LOST not in trial.user_attrs or trial.number in repeated
        return found

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
            self._give_up(trial)
            raise
        else:
            if math.isfinite(value):
                self.optuna.tell(trial, value)
            else:
                self.optuna.tell(trial, state=TrialState.FAIL)

    @contextlib.contextmanager
    def _next(self, count: int) -> Iterator[Any]:
        """A trial that is ours while its lock is held, or None where all are given out."""
        from optuna.trial import TrialState

        with held(self.folder):
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
                number = self.numbers()[trial.number]
                cli.say(f"trial {number:<3} was lost with its process; its values run again")
                self._give_up(trial)
            finally:
                lock.release()

    def _give_up(self, trial: Any) -> None:
        """Killed between any two of these steps, the next process does what is left of them."""
        from optuna.trial import TrialState

        storage, values = self.optuna._storage, dict(trial.params)
        if len(values) < len(self._distributions):  # lost before its values were written down
            values = dict(trial.system_attrs.get("fixed_params", {}))
        storage.set_trial_user_attr(trial._trial_id, LOST, True)
        repeated = any(t.user_attrs.get(REPEATS) == trial.number for t in self.trials())
        if len(values) == len(self._distributions) and not repeated:
            self.optuna.enqueue_trial(values, user_attrs={REPEATS: trial.number})
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _fresh_sampler(self) -> Any:
        """Seeded by how many trials there are beside the lost ones, each of which is there again.

        So no two processes draw the same values, and a kill does not change what is drawn next.
        """
        from optuna import samplers

        given = sum(LOST not in trial.user_attrs for trial in self.trials())
        seed = (self._seed * 1_000_003 + given) % 2**31
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


def rows_of(study: Study) -> list[dict[str, Any]]:
    """One row per trial that was not lost: number, state, values, least loss and where it was.

    lost: how often the process of a trial went before the one that ended it.
    """
    numbers = study.numbers()
    finished = study.finished()
    before = Counter(numbers[t.number] for t in study.trials())
    rows = [
        {
            "number": numbers[trial.number],
            "state": trial.state.name.lower(),
            "values": dict(trial.params),
            "validation_loss": trial.value
            if trial.state.name == "COMPLETE"
            else min(trial.intermediate_values.values(), default=None),
            "epochs": len(trial.intermediate_values),
            **{
                key: trial.user_attrs.get(key)
                for key in ("validation_accuracy", "best_epoch", "seconds", "fault")
            },
            "lost": before[numbers[trial.number]] - 1,
        }
        for trial in finished
    ]
    return sorted(rows, key=lambda row: row["number"])


def _storage(journal: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock: Any = _JournalLock(journal)  # by its methods, not by its type, one of Optuna's
    return JournalStorage(JournalFileBackend(str(journal), lock))


class _JournalLock:
    """Held to append to the journal. It goes with its process, where Optuna's own locks stay."""

    def __init__(self, journal: Path) -> None:
        from filelock import FileLock

        self._journal = journal
        self._lock = FileLock(journal.with_name(f".{journal.name}.lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        _cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        self._lock.release()


def _cut_torn_line(journal: Path) -> None:
    """Remove the last line where a full disk left only its beginning, before another follows it."""
    if not journal.is_file():
        return
    with journal.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


def _distribution(part: Any) -> Any:
    from optuna import distributions

    if isinstance(part, Choices):
        return distributions.CategoricalDistribution(part.values)
    kind = distributions.IntDistribution if part.whole else distributions.FloatDistribution
    return kind(part.low, part.high, log=part.log)
