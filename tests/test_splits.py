"""Splits: by recording, stratified, official folds, stored as lists."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from compress.data import Split, make_split, splits
from compress.data.sets import SpectrogramSet
from compress.errors import InputError

SIDES = ("train", "validation", "test")


def set_of(
    labels: np.ndarray,
    recordings: np.ndarray,
    clips: np.ndarray | None = None,
    folds: np.ndarray | None = None,
    classes: int | None = None,
) -> SpectrogramSet:
    classes = classes or int(max(labels)) + 1
    return SpectrogramSet(
        name="made",
        codes=np.zeros((len(labels), 1, 1), dtype=np.int16),
        labels=np.asarray(labels, dtype=np.int64),
        class_names=tuple("abcdefgh"[:classes]),
        recording_ids=np.asarray(recordings, dtype=np.int64),
        clip_ids=np.arange(len(labels)) if clips is None else clips,
        folds=folds,
        frontend=None,
        synthetic=True,
        content_hash="",
    )


def drawn(windows: int, recordings: int, seed: int = 0) -> SpectrogramSet:
    """Five classes in the report's shares, recordings of unequal sizes, one class each."""
    generator = np.random.default_rng(seed)
    weights = generator.pareto(2.0, recordings) + 0.2
    owners = generator.choice(recordings, windows, p=weights / weights.sum())
    of_recording = generator.choice(5, recordings, p=[0.275, 0.517, 0.091, 0.083, 0.034])
    return set_of(of_recording[owners], 7 * owners + 3)


def check(split: Split, data: SpectrogramSet) -> None:
    """Every side ascending and distinct; clips and recordings on one side; every class on each."""
    together = np.concatenate([getattr(split, side) for side in SIDES])
    assert len(np.unique(together)) == len(together)
    present = set(data.labels.tolist())
    for one in SIDES:
        indices = getattr(split, one)
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()
        assert set(data.labels[indices].tolist()) == present
        for other in SIDES:
            if one != other:
                for ids in (data.recording_ids, data.clip_ids):
                    assert not set(ids[indices]) & set(ids[getattr(split, other)])


@pytest.mark.parametrize("seed", range(5))
def test_shares_and_strata(seed: int) -> None:
    data = drawn(20_000, 3_000, seed)
    split = make_split(data, seed)
    check(split, data)
    assert sum(len(getattr(split, side)) for side in SIDES) == len(data)
    for side, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        indices = getattr(split, side)
        assert len(indices) / len(data) == pytest.approx(share, abs=0.01)
        for label in range(5):
            whole = (data.labels == label).sum()
            assert (data.labels[indices] == label).sum() / whole == pytest.approx(share, abs=0.03)


def test_single_clip_recordings_are_split_exactly() -> None:
    data = set_of(np.arange(1000) % 5, np.arange(1000))
    split = make_split(data, 0)
    for label in range(5):
        assert [int((data.labels[getattr(split, s)] == label).sum()) for s in SIDES] == [
            160,
            20,
            20,
        ]


def test_seed_decides_and_nothing_else() -> None:
    data = drawn(2_000, 400)
    assert np.array_equal(make_split(data, 1).test, make_split(data, 1).test)
    assert not np.array_equal(make_split(data, 1).test, make_split(data, 2).test)


def test_three_recordings_per_class_are_just_enough() -> None:
    data = set_of(np.repeat([0, 0, 0, 1, 1, 1], 5), np.repeat(np.arange(6), 5))
    check(make_split(data, 0), data)


def test_fewer_recordings_than_sides_are_refused() -> None:
    data = set_of(np.repeat([0, 0, 0, 1, 1], 5), np.repeat(np.arange(5), 5))
    with pytest.raises(InputError) as refusal:
        make_split(data, 0)
    assert "fewer recordings than splits need: 'b' has 2" in str(refusal.value)
    assert "at least 3" in str(refusal.value)


def test_recordings_of_several_classes() -> None:
    generator = np.random.default_rng(0)
    recordings = np.repeat(np.arange(60), 10)
    labels = generator.choice(3, 600, p=[0.7, 0.25, 0.05])
    data = set_of(labels, recordings)
    split = make_split(data, 0)
    check(split, data)
    assert len(split.test) / 600 == pytest.approx(0.1, abs=0.05)


def test_small_mixed_sets_are_repaired_or_refused() -> None:
    # Class b occurs in three recordings, all of which also hold class a: one goes to each side.
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 0, 0, 0])
    recordings = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, 6])
    data = set_of(labels, recordings)
    for seed in range(10):
        check(make_split(data, seed), data)


def test_windows_of_a_clip_stay_together() -> None:
    clips = np.repeat(np.arange(200), 6)
    data = set_of(np.repeat(np.arange(200) % 4, 6), np.repeat(np.arange(200) // 4, 6), clips)
    # Each recording holds one clip of each class.
    split = make_split(data, 0)
    check(split, data)
    assert len(split.train) == 960


def test_a_class_without_any_clip_is_no_fault() -> None:
    data = set_of(np.arange(100) % 2, np.arange(100), classes=5)
    check(make_split(data, 0), data)


def test_one_class_and_unlabelled_clips_are_refused() -> None:
    with pytest.raises(InputError, match="only one class"):
        make_split(set_of(np.zeros(30, dtype=int), np.arange(30), classes=2), 0)
    with pytest.raises(InputError, match="unlabelled"):
        make_split(set_of(np.full(30, -1), np.arange(30), classes=2), 0)


def folded() -> SpectrogramSet:
    """As ESC-10: five folds, 8 clips per class and fold, two clips per recording."""
    labels = np.repeat(np.arange(400) % 5, 6)
    folds = np.repeat(np.arange(400) // 80 + 1, 6)
    recordings = np.repeat((np.arange(400) // 80) * 100 + np.arange(400) % 40, 6)
    return set_of(labels, recordings, np.repeat(np.arange(400), 6), folds)


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
def test_official_fold_is_the_test_set_and_nothing_else(fold: int) -> None:
    data = folded()
    split = make_split(data, 0, fold)
    check(split, data)
    assert np.array_equal(split.test, np.flatnonzero(data.folds == fold))
    assert fold not in data.folds[split.train] and fold not in data.folds[split.validation]
    assert len(split.validation) == pytest.approx(0.1 * 1920, rel=0.35)
    assert split.fold == fold


def test_first_fold_is_the_default_and_the_description_says_so() -> None:
    split = make_split(folded(), 0)
    assert split.fold == 1
    assert "official fold 1 is the test set (the first; choose with --fold)" in split.description


def test_recordings_that_reach_into_the_test_fold_are_left_out() -> None:
    data = folded()
    recordings = data.recording_ids.copy()
    recordings[data.clip_ids == 100] = recordings[0]  # a clip of fold 2 from a source of fold 1
    data = set_of(data.labels, recordings, data.clip_ids, data.folds)
    split = make_split(data, 0, 1)
    check(split, data)
    assert "1 clip left out for sharing a recording with the test" in split.description
    assert not np.isin(np.flatnonzero(data.clip_ids == 100), split.train).any()


def with_copies(data: SpectrogramSet, *pairs: tuple[int, int]) -> SpectrogramSet:
    """Windows that all differ, but for the second of each pair, which is the first."""
    random = np.random.default_rng(0)
    codes = random.integers(-20_000, 0, (len(data), 2, 3)).astype(np.int16)
    for first, second in pairs:
        codes[second] = codes[first]
    codes[-2:] = -20_480  # silence is no copy of silence
    return replace(data, codes=codes, synthetic=False)


def test_the_same_sound_in_two_folds_is_one_recording() -> None:
    plain = make_split(with_copies(folded()), 0, 1)
    check(plain, folded())
    assert plain.digest() == make_split(folded(), 0, 1).digest()
    of_second = plain.train[0]  # its whole clip, and what else is of its recording, is left out
    split = make_split(with_copies(folded(), (plain.test[0], of_second)), 0, 1)
    assert np.array_equal(split.test, plain.test)
    assert of_second not in np.concatenate([split.train, split.validation])
    assert "left out for sharing a recording with the test" in split.description
    assert "counted with another that holds the same sound" in split.description


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("folds", [None, 4])
def test_the_same_sound_lies_on_one_side(seed: int, folds: int | None) -> None:
    pairs = [(i, 300 + i) for i in range(100)] + [(300, 450)]
    plain = set_of(np.arange(600) % 5, np.arange(600))
    split = make_split(with_copies(plain, *pairs), seed, folds and 2, folds)
    for side in (split.train, split.validation, split.test):
        held = np.isin(pairs, side)
        assert np.array_equal(held[:, 0], held[:, 1])
    assert "; 101 recordings counted with another" in split.description
    assert split.digest() != make_split(plain, seed, folds and 2, folds).digest()


@pytest.mark.parametrize("seed", range(5))
def test_chains_of_copies_are_counted_as_by_going_through_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    recordings = random.permutation(np.repeat(np.arange(60), 4))
    pairs = [tuple(pair) for pair in random.integers(0, 238, (40, 2)).tolist()]
    data = with_copies(set_of(np.zeros(240, dtype=int), recordings), *pairs)
    numbers, holder = np.arange(60), {}
    for window, recording in enumerate(recordings):
        if data.codes[window].min() < data.codes[window].max():
            other = holder.setdefault(data.codes[window].tobytes(), recording)
            numbers[numbers == numbers[recording]] = numbers[other]
    expected = np.unique(numbers[recordings], return_inverse=True)[1]
    found = splits._with_copies(data, recordings, np.arange(240))
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) < 60


def test_folds_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="no fold 6; the official folds are 1, 2, 3, 4, 5"):
        make_split(folded(), 0, 6)
    with pytest.raises(InputError, match="has no official folds, so fold 2"):
        make_split(drawn(1000, 200), 0, 2)


@pytest.mark.parametrize(("fold", "judging"), [(1, 2), (2, 1), (5, 3)])
def test_a_whole_official_fold_can_be_validation(fold: int, judging: int) -> None:
    data = folded()
    split = make_split(data, 0, fold, validation_fold=judging)
    check(split, data)
    assert np.array_equal(split.test, np.flatnonzero(data.folds == fold))
    assert np.array_equal(split.validation, np.flatnonzero(data.folds == judging))
    rest = ~np.isin(data.folds, (fold, judging))
    assert np.array_equal(split.train, np.flatnonzero(rest))
    assert f"fold {judging} is validation" in split.description
    again = Split.from_json(json.loads(json.dumps(split.to_json())))
    assert again.validation_fold == judging and again.digest() == split.digest()
    other_way = make_split(data, 0, judging, validation_fold=fold)
    assert np.array_equal(other_way.train, split.train)


def test_recordings_that_reach_into_the_validation_fold_are_left_out() -> None:
    data = folded()
    recordings = data.recording_ids.copy()
    recordings[data.clip_ids == 200] = recordings[data.clip_ids == 80][0]  # fold 3, of fold 2
    data = set_of(data.labels, recordings, data.clip_ids, data.folds)
    split = make_split(data, 0, 1, validation_fold=2)
    check(split, data)
    assert "1 clip left out for sharing a recording with the test or validation" in (
        split.description
    )
    assert not np.isin(np.flatnonzero(data.clip_ids == 200), split.train).any()


@pytest.mark.parametrize(
    ("folds", "fold", "judging", "words"),
    [
        (5, 2, 2, "fold 2 is the test, which must not choose"),
        (5, None, 1, "fold 1 is the test"),
        (5, 1, 7, "there is no fold 7"),
        (0, None, 1, "has no official folds, so --validation-fold 1"),
        (2, 1, 2, "no clip is left to train beside test fold 1 and validation fold 2"),
    ],
)
def test_validation_folds_that_cannot_be_are_refused(folds, fold, judging, words) -> None:
    data = folded() if folds else drawn(1000, 200)
    if folds == 2:
        data = set_of(data.labels, data.recording_ids, data.clip_ids, 1 + data.folds % 2)
    with pytest.raises(InputError, match=words):
        make_split(data, 0, fold, validation_fold=judging)


def test_json_round_trip() -> None:
    split = make_split(folded(), 0, 2)
    stored = json.loads(json.dumps(split.to_json()))
    again = Split.from_json(stored)
    for side in SIDES:
        assert np.array_equal(getattr(split, side), getattr(again, side))
    assert again.description == split.description
    assert again.fold == 2
    assert again.digest() == split.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"test": [[5, 1]]},
        {"test": [["a", 2]]},
        {"train": []},
        {"test": [[0, 2399]]},
        {"windows": {}},
        {"validation": None},
    ],
)
def test_damaged_json_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"split.json"):
        Split.from_json(make_split(folded(), 0, 2).to_json() | change)


def test_hundreds_of_thousands_of_clips_take_seconds() -> None:
    data = drawn(300_000, 60_000)
    began = time.perf_counter()
    split = make_split(data, 0)
    Split.from_json(split.to_json())
    assert time.perf_counter() - began < 10  # measured: 0.5 s; 2 million clips: 8 s
    assert sum(len(getattr(split, side)) for side in SIDES) == 300_000
