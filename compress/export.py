"""Write a trained model in the form that a device takes, measured as what was written.

    python -m compress.export --run RUN --format FORMAT
    python -m compress.export --run RUN --format c --target cortex-m4     and run it in an emulator
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
    from compress.chip import figures
    from compress.summary import report_command

    parent = runs.open_run(config.run)
    parent.check_unchanged()
    if config.target and figures.is_c_export(parent.manifest):
        written, lines = parent, []
    else:
        written, lines = row.load()(parent, config)
    if config.target:
        from compress.chip.emulated_runs import emulate_targets

        lines = [*lines, *emulate_targets(written, config)]
    for line in lines:
        cli.say(line)
    cli.say(
        f"The export lies in {written.folder}. Next: {report_command(written.folder, config.runs)}"
    )
    return 0


def check_options(config: ExportConfig) -> registry.Row:
    """The format, and what --target needs, before any run is read."""
    if config.run is None:
        raise InputError("--run must be given: the run folder of the model to export")
    if config.target:
        from compress.chip import toolchain

        if config.format != "c":
            raise InputError("--target: is for --format c")
        toolchain.check()
    if config.vela and config.format != "tflite":
        raise InputError("--vela: is for --format tflite")
    return registry.lookup(registry.EXPORTS, "format", config.format)


if __name__ == "__main__":
    raise SystemExit(cli.main(ExportConfig, run, f"{__doc__}\nformats:\n{_FORMATS}"))
