"""Names of classes and data come from files; no page, table, picture or path is changed by them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import write_npy_pair
from test_report import EVIL

from compress import cli, explore, score
from compress.config import ExploreConfig
from reports import crossval, stream
from reports.score import save_figure as save_score

FORMULA = r"$\frac{$ \x1b[31m"
NAMES = [EVIL, FORMULA, "../../escaped", "=cmd|' /C calc'!A0", "</style><img src=x onerror=y>"]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))


def assert_inert(page: str) -> None:
    """No tag and no attribute that a name brought in, nothing that runs or loads from elsewhere."""
    parser = _Tags()
    parser.feed(page)
    assert len(parser.seen) > 20
    for tag, attributes in parser.seen:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base", "link")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            address = attributes.get(name) or "data:"
            assert address.startswith(("data:", "#")), address


def test_explore(tmp_path):
    folder = write_npy_pair(tmp_path / "data")
    (folder / "classes.json").write_text(json.dumps(NAMES))
    given = ["--data", str(folder), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert cli.main(ExploreConfig, explore.run, "", given) == 0
    assert_inert((tmp_path / "out" / "explore.html").read_text())
    assert not list(tmp_path.rglob("*escaped*"))


def summary() -> dict:
    found = {"mean": 0.5, "deviation": 0.1, "folds": 2}
    side = {"accuracy": 0.5, "loss": 1.0}
    fold = {"run": f"../{EVIL}", "sha256": "0" * 64, "epochs": 1, "test": side, "validation": side}
    return {
        "student": EVIL, "stage": EVIL, "data": FORMULA, "synthetic": True, "seed": 0,
        "class_names": NAMES, "official_folds": False, "params": 1, "macs": 1,
        "folds": [fold | {"fold": number} for number in (1, 2)],
        "test": {"accuracy": found, "loss": found},
        "validation": {"accuracy": found, "loss": found},
        "recall": dict.fromkeys(NAMES, found),
        "confusion": {"percent": [[20.0] * 5] * 5},
    }  # fmt: skip


def test_crossval(tmp_path: Path):
    page = crossval.markdown(summary())
    assert not re.search(r"(?<!\\)<", page), "no tag"
    rows = [line for line in page.splitlines() if line.startswith("|")]
    cells = {len(re.split(r"(?<!\\)\|", row)) for row in rows if row.startswith("| **")}
    assert cells == {len(NAMES) + 3}, "no name ends a cell"
    assert not any(line.startswith("::") for line in page.splitlines())
    text = crossval.text(summary())
    assert text.isprintable() or set(text) - {"\n"} <= set(filter(str.isprintable, text))
    assert len(text.splitlines()) == 5 + len(NAMES)
    crossval.save_figure(summary(), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [EVIL, FORMULA])
def test_stream(name, tmp_path):
    test = {"delay_seconds": [1.0], "error_at_delay": [0.5], "delay": {"mean": 1.0},
            "false_alarms_per_hour": 1.0}  # fmt: skip
    row = {"rule": "mean", "seconds": 2.0, "test": test}
    result = {"single": row, "chosen": [row], "tried": [row, row], "synthetic": False,
              "name": name, "data": name, "dwell_seconds": 3.0}  # fmt: skip
    stream.save_figure(result, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [EVIL, FORMULA])
def test_score(name, tmp_path):
    figures = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
    row = figures | {"run": f"runs/{name}", "own_test": figures | {"data": name}, "loss": 1.0,
                     "clips": 2, "recordings": 2, "recall": {name: 0.5, "none": None},
                     "confusion": [[1, 1], [0, 0]]}  # fmt: skip
    second = row | {"minus_first": {"difference": 0.0, "low": 0.0, "high": 0.0, "only_a": 0,
                                    "only_b": 0, "p_value": 1.0}}  # fmt: skip
    result = {"data": name, "synthetic": True, "clips_of_data": 3, "class_names": [name, "none"],
              "notes": [f"{name}: left out"], "runs": [row, second]}  # fmt: skip
    text = "".join(score.lines_of(result))
    assert set(text) - {"\n"} <= set(filter(str.isprintable, text))
    save_score(result, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
