"""docs/api: the examples of every page run, and all names and arguments that it lists exist."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "api"
INDEX = FOLDER / "README.md"
PAGES = [page for page in sorted(FOLDER.glob("*.md")) if page != INDEX]
EXAMPLE = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+(?:\.\w+)+)(?:\((.*?)\))?`", re.MULTILINE)
NEEDS_COMPILER = "<!-- needs a C compiler -->"


def run_examples(page: Path) -> int:
    """Shell lines and Python prompts of a page in order; returns how many there were."""
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    count = 0
    for found in EXAMPLE.finditer(text):
        language, code = found.groups()
        number = text[: found.start(2)].count("\n")
        if language == "sh":
            for line in code.splitlines():
                run_command(shlex.split(line, comments=True))
                count += 1
        elif ">>>" in code:
            count += run_prompts(code, names, page, number)
    return count


def run_command(words: list[str]) -> None:
    assert words[:2] == ["python", "-m"], words
    before = sys.argv
    sys.argv = words[2:]
    try:
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, words
    finally:
        sys.argv = before


def run_prompts(code: str, names: dict[str, Any], page: Path, number: int) -> int:
    test = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), number)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    result = runner.run(test, out=said.append, clear_globs=False)
    names.update(test.globs)
    assert not result.failed, "".join(said)
    return result.attempted


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the index makes: a data set and a run."""
    folder = tmp_path_factory.mktemp("pages")
    os.environ["COMPRESS_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run_examples(INDEX)
    finally:
        os.chdir(before)
    yield folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples(page, place, monkeypatch):
    if NEEDS_COMPILER in page.read_text(encoding="utf-8") and not shutil.which("cc"):
        pytest.skip("no C compiler here")
    monkeypatch.chdir(place)
    assert run_examples(page) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_listed_names_and_arguments_exist(page):
    rows = ROW.findall(page.read_text(encoding="utf-8"))
    assert rows
    for name, arguments in rows:
        found = named(name)
        taken = inspect.signature(found).parameters if arguments else {}
        for argument in filter(None, re.split(r"[,\s]+", re.sub(r"=[^,]*", "", arguments))):
            assert argument in ("…", "*") or argument in taken, f"{name}: {argument}"


def test_the_index_lists_every_page():
    listed = re.findall(r"\]\((\w[\w-]*\.md)\)", INDEX.read_text(encoding="utf-8"))
    assert sorted(listed) == [page.name for page in PAGES]


def named(path: str) -> Any:
    """``package.module.Class.method``, found by importing as much of it as can be."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"{path}: no such module")
