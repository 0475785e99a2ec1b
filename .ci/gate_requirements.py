"""Print what the gate needs of the package's dependencies, one a line, as pip reads them.

The bounds stand in pyproject.toml alone. Standard library only: nothing is installed yet.
"""

import re
import tomllib
from pathlib import Path

NEEDED = ("numpy", "onnx")


def requirements() -> list[str]:
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    listed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [entry for entry in listed if re.match(r"[A-Za-z0-9._-]+", entry).group() in NEEDED]


if __name__ == "__main__":
    print("\n".join(requirements()))
