"""The look at a data set: figures by hand, planted copies found, the page whole and harmless."""

from __future__ import annotations

import itertools
import json
import xml.dom.minidom
from dataclasses import replace

import numpy as np
import pytest
from conftest import band_spectrograms, command_that_comes_next, write_npy_pair

from compress import cli, duplicates, exploration, explore
from compress.config import DataOptions, DistillConfig, ExploreConfig
from compress.data.open import open_chosen
from compress.data.sets import SpectrogramSet, encode_db
from compress.data.splits import Split
from compress.duplicates import distance_db, find_duplicates, sounding_digests
from compress.frontend import FrontEnd, log_mel
from reports import exploration as pages


def set_of(decibels: np.ndarray, labels: np.ndarray | None = None) -> SpectrogramSet:
    numbers = np.arange(len(decibels))
    return SpectrogramSet(
        name="made up",
        codes=encode_db(decibels),
        labels=numbers % 2 if labels is None else np.asarray(labels),
        class_names=("low", "high"),
        recording_ids=numbers // 2,
        clip_ids=numbers,
        folds=None,
        frontend=FrontEnd(mels=decibels.shape[1], frames=decibels.shape[2]),
        synthetic=True,
        content_hash="made up",
    )


def test_figures_by_hand():
    decibels = np.full((3, 2, 4), -80.0)
    decibels[0] = -20.5
    decibels[1, 0] = 0.0
    found = exploration.class_figures(set_of(decibels, [0, 1, 1]))
    low, high = found["classes"]
    assert (low["clips"], low["share"], low["recordings"]) == (1, 1 / 3, 1)
    assert (high["windows"], high["silent_windows"], high["share_at_floor"]) == (2, 1, 0.75)
    assert low["mean_db"] == -20.5 and high["mean_db"] == -60
    assert found["share_at_floor"] == 0.5
    counts = found["histogram"]["counts"]
    assert counts[0][59] == 8 and sum(counts[0]) == 8  # -21 to -20 dB
    assert counts[1][80] == 4 and sum(counts[1]) == 4
    assert found["histogram"]["at_floor"] == [0, 12]
    assert found["mean_spectrograms_db"][1, 0].tolist() == [-40] * 4


def test_distance_by_hand():
    a, b = np.full((1, 2, 2), -80.0), np.full((1, 2, 2), -80.0)
    a[0, 0] = -20
    b[0, 0] = (-23, -24)
    assert distance_db(a, b)[0] == pytest.approx(np.sqrt((9 + 16) / 2))  # the silent half is out
    assert distance_db(b, a) == distance_db(a, b) and distance_db(a, a)[0] == 0


def with_copies() -> np.ndarray:
    """Sixty windows: 10 is copied to 50, 11 to 51 with a little noise, 3 windows are silent."""
    decibels, _ = band_spectrograms(60)
    generator = np.random.default_rng(1)
    decibels[50] = decibels[10]
    decibels[51] = np.clip(decibels[11] + generator.normal(0, 0.5, (32, 96)), -80, 0)
    decibels[52:55] = -80
    decibels[54, 3, 5] = -40  # all but silent
    return decibels


def test_planted_copies_are_found_and_silence_is_apart():
    labels = np.arange(60) % 2
    labels[51] = 0  # the copy has another label than its original
    data = set_of(with_copies(), labels)
    found = find_duplicates(data)
    assert [group.tolist() for group in found.exact] == [[10, 50]]
    assert found.near.tolist() == [[11, 51]] and found.found == 1
    assert found.distances[0] == pytest.approx(0.5, abs=0.05)
    assert found.quiet.tolist() == [52, 53, 54]
    split = Split(np.arange(40), np.arange(40, 51), np.arange(51, 60), "by hand")
    told = exploration.describe_duplicates(data, found, split)
    assert (told["exact_across_sides"], told["near_across_sides"]) == (1, 1)
    assert told["near"][0]["sides"] == ["train", "test"]
    assert told["exact"][0]["classes"] == ["low", "low"] and told["other_label"] == 1
    assert exploration.describe_duplicates(data, found, None)["near_across_sides"] is None


def test_no_pair_within_the_distance_is_missed(monkeypatch):
    """Against every pair, with blocks that do not divide the sizes, and several blocks of rows."""
    monkeypatch.setattr("compress.duplicates._WINDOWS_AT_ONCE", 16)
    generator = np.random.default_rng(4)
    base = generator.uniform(-80, 0, (9, 10, 21))
    decibels = np.repeat(base, 8, axis=0) + generator.normal(0, 1, (72, 10, 21))
    decibels = np.clip(decibels, -80, 0)
    data = set_of(decibels)
    rounded = data.decibels(np.arange(72))
    for threshold in (1.3, 1.42, 30.0):
        pairs = list(itertools.combinations(range(72), 2))
        a, b = (rounded[[pair[side] for pair in pairs]] for side in (0, 1))
        close = distance_db(a, b) <= threshold
        expected = {pair for pair, is_close in zip(pairs, close, strict=True) if is_close}
        found = find_duplicates(data, threshold)
        assert {tuple(pair) for pair in found.near.tolist()} == expected


def test_steady_noise_is_no_duplicate_and_a_noisy_copy_is():
    frontend = FrontEnd()
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.1, (3, frontend.clip_samples)).astype(np.float32)
    noise[2] = noise[0] + noise[2] * 0.1  # a copy with noise 20 dB below it
    found = find_duplicates(set_of(log_mel(noise, frontend)))
    assert found.near.tolist() == [[0, 2]]


def test_axes_in_hz_and_seconds():
    axes = exploration.axes_of(set_of(np.zeros((1, 32, 96))))
    assert axes.known and axes.band_label == "Hz"
    words = [word for _, word in axes.band_ticks()]
    assert words[-3:] == ["1 k", "2 k", "4 k"]
    band = {word: band for band, word in axes.band_ticks()}["1 k"]
    centres = axes.centres_hz
    assert centres[int(band)] <= 1000 <= centres[int(band) + 1]
    assert {word: frame for frame, word in axes.frame_ticks()}["1"] == pytest.approx(50)
    plain = pages.Axes(32, 96)
    assert plain.band_label == "mel band" and ("20", 20) in [(w, t) for t, w in plain.band_ticks()]


def explored(*arguments: str) -> int:
    return cli.main(ExploreConfig, explore.run, "", list(arguments))


def test_command_on_spectrograms(npy_data, tmp_path, capsys):
    out = tmp_path / "look"
    assert explored("--data", str(npy_data), "--out", str(out), "--augmentations") == 0
    printed = capsys.readouterr().out
    assert "human voice" in printed and "0 exact pairs" in printed
    assert printed.splitlines()[-1].startswith(f"The page lies in {out}/explore.html")
    found = json.loads((out / "explore.json").read_text())
    assert [row["clips"] for row in found["classes"]] == [40] * 5
    assert found["split"]["description"].startswith("80/10/10")
    page = (out / "explore.html").read_text()
    assert "<script" not in page and "mel band" in page and "time crop" in page
    assert page.count("data:image/png;base64,") == 3 * 5 + 5 + 13 * 3 + 3
    again = tmp_path / "again"
    assert explored("--data", str(npy_data), "--out", str(again), "--augmentations") == 0
    assert (again / "explore.json").read_text() == (out / "explore.json").read_text()
    assert not list(out.glob("*.png"))


def test_the_next_command_trains_on_what_was_looked_at(tmp_path, capsys):
    root = write_npy_pair(tmp_path / "my set", 100)
    options = ["--data-seed", "3", "--folds", "4", "--fold", "2", "--seed", "5"]
    assert explored("--data", str(root), *options, "--runs", str(tmp_path / "my runs")) == 0
    found = command_that_comes_next(capsys.readouterr().out, "distill", DistillConfig)
    wanted = {"data": str(root), "data_seed": 3, "folds": 4, "fold": 2}
    assert found == DistillConfig(**wanted, runs=tmp_path / "my runs")
    described = json.loads((tmp_path / "my runs/explore/my-set/explore.json").read_text())
    assert "in 4 folds by recording, fold 2 is validation" in described["split"]["description"]


def test_pictures_for_documents(npy_data, tmp_path):
    assert explored("--data", str(npy_data), "--out", str(tmp_path), "--pictures") == 0
    names = {file.name for file in tmp_path.glob("*.png")}
    assert names == {"spectrograms.png", "values.png", "means.png"}
    for name in names:
        file = (tmp_path / name).read_bytes()
        assert file.startswith(b"\x89PNG") and len(file) < 150_000


def test_drawings_are_well_formed_and_names_are_escaped():
    decibels = with_copies()
    panels = [[pages.Panel("<b>&", decibels[0])]]
    axes = exploration.axes_of(set_of(decibels))
    figures = exploration.class_figures(set_of(decibels))
    for drawing in (
        pages.grid(panels, axes, "a <label>"),
        pages.histogram(figures["histogram"]),
        pages.floor_shares(figures["classes"]),
    ):
        parsed = xml.dom.minidom.parseString(drawing)
        assert parsed.documentElement.tagName == "svg"
        assert not parsed.getElementsByTagName("b")
    assert pages.grid([], axes, "") == ""


def test_a_file_in_the_place_of_the_folder_is_refused(npy_data, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert explored("--data", str(npy_data), "--out", str(tmp_path / "taken")) == 2
    assert "is a file" in capsys.readouterr().err


def test_hashes_of_a_prepared_set_are_kept_beside_it(tmp_path, monkeypatch):
    root = write_npy_pair(tmp_path / "bands", count=60)
    levels = with_copies()
    np.save(root / "training.npy", levels)
    data = open_chosen(DataOptions(data=str(root), cache=tmp_path / "cache", workers=1))
    every = np.arange(60)
    in_memory = sounding_digests(replace(data, codes=np.array(data.codes)), every)
    assert in_memory[10] == in_memory[50] != in_memory[11]
    assert np.flatnonzero(in_memory == 0).tolist() == [52, 53]
    assert np.array_equal(sounding_digests(data, every[5:]), in_memory[5:])
    kept = data.folder / duplicates.DIGESTS
    assert np.array_equal(np.load(kept), in_memory)

    with monkeypatch.context() as nothing_is_hashed:
        nothing_is_hashed.setattr(duplicates, "_sounding_digests", None)
        assert np.array_equal(sounding_digests(data, every[::-1]), in_memory[::-1])
    for damage in (b"", kept.read_bytes()[:-8]):
        kept.write_bytes(damage)
        (data.folder / f".{duplicates.DIGESTS}.1.tmp").write_bytes(b"of a killed process")
        assert np.array_equal(sounding_digests(data, every), in_memory)
        assert np.array_equal(np.load(kept), in_memory)
        assert not list(data.folder.glob(".*"))
    part = replace(data, codes=data.codes[:7], labels=data.labels[:7])
    assert part.folder is None and np.array_equal(sounding_digests(part, every[:7]), in_memory[:7])
