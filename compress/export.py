"""Write a trained model in the form that a device takes, measured as what was written.

    python -m compress.export --run RUN --format FORMAT
"""

from __future__ import annotations

from compress import cli, registry
from compress.config import ExportConfig
from compress.errors import InputError

_FORMATS = "\n".join(f"  {name:<8} {row.sentence}" for name, row in registry.EXPORTS.items())


def run(config: ExportConfig) -> int:
    row = check_options(config)
    assert config.run is not None

    from compress import runs

    parent = runs.open_run(config.run)
    parent.check_unchanged()
    written, lines = row.load()(parent, config)
    for line in lines:
        cli.say(line)
    cli.say(f"The export lies in {written.folder}. Next: python -m compress.report")
    return 0


def check_options(config: ExportConfig) -> registry.Row:
    """The format, before any run is read."""
    if config.run is None:
        raise InputError("--run must be given: the run folder of the model to export")
    if config.vela and config.format != "tflite":
        raise InputError("--vela: is for --format tflite")
    return registry.lookup(registry.EXPORTS, "format", config.format)


if __name__ == "__main__":
    raise SystemExit(cli.main(ExportConfig, run, f"{__doc__}\nformats:\n{_FORMATS}"))
