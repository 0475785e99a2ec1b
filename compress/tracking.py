"""Where the curves of a training go while it runs: CSV, TensorBoard, Weights & Biases, MLflow.

    --logger NAME (several allowed) -> check -> opened(names, run folder, manifest) -> one call per
    epoch with the row of curves.csv -> finish with what was measured on the file

A training that continues sends its earlier epochs again, and each logger begins anew, so that a
record is whole whatever was killed. A logger that fails later is named and left out: no training
is lost for its curves.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from compress import cli, registry, runs
from compress.errors import InputError

_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
_PROJECT = "compress-workbench"
_KEY_TAG = "compress.run_key"


class Logger(Protocol):
    """Made with the run folder and its manifest."""

    def epoch(self, number: int, row: Mapping[str, float]) -> None:
        """The row of curves.csv of epoch ``number`` (from 1, over all steps of a run)."""

    def close(self, figures: Mapping[str, float]) -> None:
        """The end of the run, with what was measured on its file; nothing where it was ended."""


def check(names: Sequence[str]) -> None:
    """Refuse an unknown logger or a missing package, before any data is read."""
    for name in names:
        registry.lookup(registry.LOGGERS, "logger", name)
        package = _PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise InputError(
                f"--logger {name}: the package {package} is not installed; "
                f"pip install '.[{name}]'"
            )


class Loggers:
    """All loggers of one run; a call takes the row of an epoch."""

    def __init__(self, loggers: dict[str, Logger]) -> None:
        self._loggers = loggers
        self._epochs = 0
        self._figures: dict[str, float] = {}

    def __call__(self, row: Mapping[str, float]) -> None:
        self._epochs += 1
        number = self._epochs
        self._each(lambda logger: logger.epoch(number, row))

    def both(self, watch: Any) -> Any:
        """These loggers and then ``watch``, which may end the training."""

        def after_epoch(row: Mapping[str, float]) -> None:
            self(row)
            watch(row)

        return after_epoch

    def finish(self, folder: Path) -> None:
        """Take the figures of metrics.json along into the records."""
        found = runs.read_json(folder / runs.METRICS)
        test = found["splits"]["test"]
        self._figures = {
            "test_accuracy": test["accuracy"],
            "test_loss": test["loss"],
            **{key: found[key] for key in ("params", "file_bytes") if found.get(key) is not None},
            **({"macs": found["macs"]} if found.get("macs") is not None else {}),
        }

    def close(self) -> None:
        self._each(lambda logger: logger.close(self._figures))

    def _each(self, act: Any) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                act(logger)
            except Exception as error:
                del self._loggers[name]
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                cli.say(f"note      logger {name} stopped ({reason}); training goes on without it")


@contextlib.contextmanager
def opened(names: Sequence[str], folder: Path, manifest: Mapping[str, Any]) -> Iterator[Loggers]:
    """Loggers for a run folder, closed whatever happens; raises InputError where one is refused."""
    check(names)
    made: dict[str, Logger] = {}
    for name in dict.fromkeys(names):
        try:
            made[name] = registry.LOGGERS[name].load()(folder, manifest)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"--logger {name}: cannot be started ({reason})") from None
    loggers = Loggers(made)
    try:
        yield loggers
    finally:
        loggers.close()


class CsvLogger:
    """curves.csv, whole after every epoch; the end of a run writes the same file."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.path = folder / runs.CURVES
        self.rows: list[dict[str, float]] = []

    def epoch(self, number: int, row: Mapping[str, float]) -> None:
        from compress.fit import write_curves

        self.rows.append({**row, "epoch": number})
        write_curves(self.path, self.rows)

    def close(self, figures: Mapping[str, float]) -> None:
        pass


class TensorBoardLogger:
    """Event files below tensorboard/ in the run folder."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = folder / "tensorboard"
        shutil.rmtree(place, ignore_errors=True)
        self.writer = SummaryWriter(str(place))
        self.writer.add_text("manifest", f"```\n{_as_text(manifest)}\n```")

    def epoch(self, number: int, row: Mapping[str, float]) -> None:
        for name, value in _values(row).items():
            self.writer.add_scalar(name, value, number)
        self.writer.flush()

    def close(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, 0)
        self.writer.close()


class WandbLogger:
    """A run of Weights & Biases with the files in the run folder; WANDB_MODE decides where to."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=folder.name,
            dir=str(folder),
            config=dict(manifest.get("settings", {})),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def epoch(self, number: int, row: Mapping[str, float]) -> None:
        self.run.log(_values(row), step=number)

    def close(self, figures: Mapping[str, float]) -> None:
        self.run.summary.update(dict(figures))
        self.run.finish()


class MlflowLogger:
    """A run of MLflow; an earlier record of the same run is marked as deleted."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        place = os.environ.get("MLFLOW_TRACKING_URI")
        place = place or f"sqlite:///{(folder.parent / 'mlflow.db').absolute()}"
        self.client = MlflowClient(tracking_uri=place)
        found = self.client.get_experiment_by_name(_PROJECT)
        experiment = found.experiment_id if found else self._new_experiment(folder, place)
        key = str(manifest.get("key", folder.name))
        for earlier in self.client.search_runs([experiment], f"tags.`{_KEY_TAG}` = '{key}'"):
            self.client.delete_run(earlier.info.run_id)
        run = self.client.create_run(experiment, run_name=folder.name, tags={_KEY_TAG: key})
        self.run_id = run.info.run_id
        settings = manifest.get("settings", {})
        for name, value in {**settings, **settings.get("recipe", {})}.items():
            if not isinstance(value, (dict, list)):
                self.client.log_param(self.run_id, name, str(value)[:500])

    def _new_experiment(self, folder: Path, place: str) -> str:
        files = (folder.parent / "mlflow-files").absolute().as_uri()
        return self.client.create_experiment(
            _PROJECT, artifact_location=files if place.startswith("sqlite:") else None
        )

    def epoch(self, number: int, row: Mapping[str, float]) -> None:
        for name, value in _values(row).items():
            self.client.log_metric(self.run_id, name, value, step=number)

    def close(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.client.log_metric(self.run_id, name, value)
        self.client.set_terminated(self.run_id, "FINISHED" if figures else "KILLED")


def _values(row: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name not in ("epoch", "step")}


def _as_text(manifest: Mapping[str, Any]) -> str:
    import json

    return json.dumps(dict(manifest), indent=1, default=str)
