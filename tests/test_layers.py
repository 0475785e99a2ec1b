"""Who may import whom, read off the syntax trees; and what must stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("compress", "students", "teachers", "reports")
MAY_IMPORT = {
    "compress": set(PACKAGES),
    "students": {"students"},
    "teachers": {"teachers"},
    "reports": {"reports"},
}
COMMANDS = {"teach", "train", "distill", "prune", "quantize", "predict", "report", "gate",
            "export", "pipeline", "crossval", "sweep", "search", "ensemble", "stream",
            "explore", "baseline", "verify", "score"}  # fmt: skip
LIGHT = (
    "compress", "compress.cli", "compress.config", "compress.registry", "compress.runs",
    "compress.recipe", "compress.artefacts", "compress.gate", "compress.report", "compress.data",
    "compress.pipeline", "compress.pipeline_recipe", "compress.verify",
    "compress.search_space", "compress.toml_text", "compress.decisions", "compress.fold_jobs",
    "students", "teachers", "reports", "reports.records", "reports.tables", "reports.crossval",
    "reports.sweep", "reports.stream", "reports.results", "reports.search", "reports.score",
    "compress.results", "compress.search", "compress.candidates", "compress.score",
)  # fmt: skip
HEAVY = ("torch", "timm", "onnx", "onnxruntime", "matplotlib", "scipy")


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imported(path)} & set(PACKAGES)
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_imports_no_other_command(command):
    path = ROOT / "compress" / f"{command}.py"
    others = {f"compress.{name}" for name in COMMANDS - {command}}
    assert not imported(path) & others


def test_light_modules_stay_light():
    script = (
        f"import importlib, sys\n"
        f"for name in {LIGHT!r}:\n"
        f"    importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_no_module_acts_when_imported():
    """But for the shim that must stand before timm is imported."""
    acting = {
        f"{path.name}: {ast.unparse(node)}"
        for path in modules()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    }
    assert acting == {"timm_teacher.py: torchvision_shim.install()"}
