"""Shows what a data set holds: layout found, classes, shares, recordings, durations, silence."""

from __future__ import annotations

from compress import cli
from compress.config import DataConfig


def run(config: DataConfig) -> int:
    from compress.data.inspect import show

    return show(config)


if __name__ == "__main__":
    raise SystemExit(cli.main(DataConfig, run, __doc__))
