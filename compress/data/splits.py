"""Training, validation and test: by recording, stratified by class, or an official fold.

All windows of a clip and all clips of a recording lie on one side. Recordings that hold the same
window, to the bit, count as one. A split is made once, stored in the run folder as lists, and never
computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.data.files import counted
from compress.data.sets import SpectrogramSet
from compress.errors import InputError

SHARE = 0.1
"""Share of the clips that validation gets, and that test gets where no fold is official."""

_MOST_WINDOWS = 50_000_000  # the lists of a hostile split.json would fill the memory
_TRAIN, _VALIDATION, _TEST = 0, 1, 2
_SIDES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of windows (int64, ascending) of each side, and how they were chosen."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    description: str
    fold: int | None = None
    folds: int | None = None  # how many, where they were dealt here and are not official
    validation_fold: int | None = None  # the official fold that is validation, where one is

    def digest(self) -> str:
        """Hexadecimal SHA-256 of the three sides."""
        hasher = hashlib.sha256()
        for side in _SIDES:
            hasher.update(side.encode() + getattr(self, side).astype("<i8").tobytes())
        return hasher.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What split.json holds. Runs of neighbours are stored as [first, last] pairs."""
        return {
            "description": self.description,
            "fold": self.fold,
            "folds": self.folds,
            **({} if self.validation_fold is None else {"validation_fold": self.validation_fold}),
            "windows": {side: len(getattr(self, side)) for side in _SIDES},
            **{side: _to_ranges(getattr(self, side)) for side in _SIDES},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Split:
        """Inverse of :meth:`to_json`; raises InputError for anything else."""
        try:
            sides = {side: _from_ranges(value[side]) for side in _SIDES}
            counts = {side: int(value["windows"][side]) for side in _SIDES}
            description = str(value["description"])
            fold = None if value["fold"] is None else int(value["fold"])
            folds = None if value.get("folds") is None else int(value["folds"])
            judging = value.get("validation_fold")
            validation_fold = None if judging is None else int(judging)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError("split.json: damaged; run the command that made it again") from None
        together = np.concatenate(list(sides.values()))
        if any(len(sides[side]) != counts[side] for side in _SIDES) or len(
            np.unique(together)
        ) != len(together):
            raise InputError("split.json: its lists are incomplete or overlap; make the run again")
        return cls(
            **sides,
            description=description,
            fold=fold,
            folds=folds,
            validation_fold=validation_fold,
        )


def _to_ranges(indices: np.ndarray) -> list[list[int]]:
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    firsts = indices[np.concatenate([[0], breaks])] if len(indices) else indices
    lasts = indices[np.concatenate([breaks - 1, [-1]])] if len(indices) else indices
    return np.stack([firsts, lasts], axis=1).tolist()


def _from_ranges(ranges: list[list[int]]) -> np.ndarray:
    pairs = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    lengths = pairs[:, 1] - pairs[:, 0] + 1
    if (lengths < 1).any() or (pairs < 0).any() or pairs.max(initial=0) > _MOST_WINDOWS:
        raise ValueError("not a range")
    if lengths.sum() > _MOST_WINDOWS:
        raise ValueError("more windows than any set has")
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(pairs[:, 0], lengths) + offsets


def make_split(
    data: SpectrogramSet,
    seed: int,
    fold: int | None = None,
    folds: int | None = None,
    validation_fold: int | None = None,
) -> Split:
    """Choose the sides of ``data``.

    Without official folds: 80 % of the clips for training, 10 % for validation, 10 % for test.
    With ``folds`` the same clips are the test, the rest is dealt into so many folds, and ``fold``
    is the one for validation.
    With official folds: ``fold`` (fold 1 where none is given) is the test set and serves nothing
    else; validation is ``validation_fold``, or 10 % of the rest where that is None. Raises
    InputError where a class has fewer recordings than there are sides, or where a fold does not
    exist.
    """
    clips = _clips(data)
    if data.folds is None:
        if validation_fold is not None:
            raise InputError(
                f"{data.name}: has no official folds, so --validation-fold {validation_fold} "
                "cannot be chosen; leave it out"
            )
        if folds is not None:
            return _dealt_fold(clips, data, seed, fold, folds)
        if fold is not None:
            raise InputError(
                f"{data.name}: has no official folds, so fold {fold} cannot be chosen; "
                "leave out --fold, or say with --folds how many to deal"
            )
        sides = _assign(clips, data, seed, (_TRAIN, _VALIDATION, _TEST))
        return _split_of(clips, sides, f"80/10/10 by recording, seed {seed}")
    known = np.unique(data.folds)
    if folds is not None:
        raise InputError(
            f"{data.name}: has {len(known)} official folds; leave out --folds {folds}"
        )
    chosen = int(known[0]) if fold is None else fold
    for number in (chosen, validation_fold):
        if number is not None and number not in known:
            listed = ", ".join(map(str, known))
            raise InputError(
                f"{data.name}: there is no fold {number}; the official folds are {listed}: choose "
                "among them"
            )
    if chosen == validation_fold:
        raise InputError(
            f"--validation-fold {validation_fold}: fold {chosen} is the test, which must not "
            "choose anything; give another"
        )
    in_test = data.folds == chosen
    if in_test.all():
        raise InputError(f"{data.name}: every clip is in fold {chosen}; nothing is left to train")
    test_clips = _holding(clips, in_test)
    shared = _sharing_a_recording(clips, test_clips)
    rest = ~test_clips & ~shared
    sides = np.full(len(clips.labels), -1)
    sides[test_clips] = _TEST
    description = (
        f"official fold {chosen} is the test set"
        f"{' (the first; choose with --fold)' if fold is None else ''}, "
    )
    if validation_fold is None:
        sides[rest] = _assign(clips.where(rest), data, seed, (_TRAIN, _VALIDATION))
        description += f"10 % of the rest by recording is validation, seed {seed}"
    else:
        judging = _holding(clips, data.folds == validation_fold) & rest
        shared_with_it = _sharing_a_recording(clips, judging) & rest
        sides[rest] = _TRAIN
        sides[judging] = _VALIDATION
        sides[shared_with_it] = -1
        shared |= shared_with_it
        description += f"fold {validation_fold} is validation"
        for side, what in ((_TRAIN, "to train"), (_VALIDATION, "for validation")):
            if not (sides == side).any():
                raise InputError(
                    f"{data.name}: no clip is left {what} beside test fold {chosen} and "
                    f"validation fold {validation_fold}"
                )
    if shared.any():
        description += (
            f"; {counted(int(shared.sum()), 'clip')} left out for sharing a recording with the test"
            f"{'' if validation_fold is None else ' or validation'}"
        )
    return _split_of(clips, sides, description, chosen, validation_fold=validation_fold)


def _holding(clips: _Clips, windows: np.ndarray) -> np.ndarray:
    """Which clips hold some of these windows, (clips,) bool."""
    found = np.zeros(len(clips.labels), dtype=bool)
    found[clips.of_window[windows]] = True
    return found


def _sharing_a_recording(clips: _Clips, chosen: np.ndarray) -> np.ndarray:
    """Which other clips are of the same recordings, and so must not be on another side."""
    return np.isin(clips.recordings, np.unique(clips.recordings[chosen])) & ~chosen


def _dealt_fold(
    clips: _Clips, data: SpectrogramSet, seed: int, fold: int | None, folds: int
) -> Split:
    """One of ``folds`` folds for validation; the test is that of the split without folds."""
    if fold is None:
        raise InputError(f"--folds {folds}: say which is for validation with --fold 1 to {folds}")
    if not folds >= 2 or not 1 <= fold <= folds:
        raise InputError(f"--fold {fold}: give 1 to {folds}, and at least two --folds")
    sides = _assign(clips, data, seed, (_TRAIN, _VALIDATION, _TEST))
    rest = sides != _TEST
    dealt = np.full(len(sides), 0)
    dealt[rest] = _deal_folds(clips.where(rest), data, seed, folds)
    sides[rest] = np.where(dealt[rest] == fold, _VALIDATION, _TRAIN)
    description = (
        f"10 % test by recording, the rest in {folds} folds by recording, fold {fold} is "
        f"validation, seed {seed}"
    )
    return _split_of(clips, sides, description, fold, folds)


def _deal_folds(clips: _Clips, data: SpectrogramSet, seed: int, folds: int) -> np.ndarray:
    """The fold 1..folds of each clip, one per recording, stratified by class.

    As for the sides, a recording belongs to the stratum of its rarest class. Shuffled recordings,
    the largest first, each go to the fold that has the fewest clips of the stratum, and of all.
    """
    count = int(clips.recordings.max()) + 1
    classes = len(data.class_names)
    table = np.zeros((count, classes), dtype=np.int64)  # clips of each recording and class
    np.add.at(table, (clips.recordings, clips.labels), 1)
    lacking = [i for i in np.flatnonzero(table.sum(0)) if (table[:, i] > 0).sum() < folds]
    if lacking:
        listed = ", ".join(
            f"{data.class_names[i]!r} has {int((table[:, i] > 0).sum())}" for i in lacking[:5]
        )
        raise InputError(
            f"{data.name}: fewer recordings outside the test than folds: {listed}; "
            f"give --folds of at most the least"
        )
    by_rarity = np.argsort(table.sum(0), kind="stable")
    held = table[:, by_rarity] > 0
    stratum = by_rarity[held.argmax(axis=1)]
    sizes = table.sum(1)
    random = np.random.default_rng([seed, 0xF01D])
    fold_of = np.zeros(count, dtype=np.int64)
    total = np.zeros(folds, dtype=np.int64)
    for label in by_rarity:
        members = random.permutation(np.flatnonzero(stratum == label))
        in_stratum = np.zeros(folds, dtype=np.int64)
        for recording in members[np.argsort(-sizes[members], kind="stable")]:
            chosen = np.lexsort((total, in_stratum))[0]
            fold_of[recording] = chosen + 1
            in_stratum[chosen] += sizes[recording]
            total[chosen] += sizes[recording]
    return fold_of[clips.recordings]


@dataclass(frozen=True)
class _Clips:
    """One row per clip. ``of_window`` gives the row of each window of the set."""

    labels: np.ndarray
    recordings: np.ndarray  # 0..R-1
    of_window: np.ndarray
    copies: int = 0  # recordings that count with another

    def where(self, kept: np.ndarray) -> _Clips:
        _, recordings = np.unique(self.recordings[kept], return_inverse=True)
        return _Clips(self.labels[kept], recordings, self.of_window)


def _clips(data: SpectrogramSet) -> _Clips:
    _, first, of_window = np.unique(data.clip_ids, return_index=True, return_inverse=True)
    _, recordings = np.unique(data.recording_ids[first], return_inverse=True)
    labels = data.labels[first]
    if len(labels) == 0 or labels.min() < 0:
        raise InputError(f"{data.name}: holds unlabelled clips; a split needs labels")
    count = int(recordings.max()) + 1
    if not data.synthetic:  # no two synthetic recordings are alike, and they may be very many
        recordings = _with_copies(data, recordings, of_window)
    return _Clips(labels, recordings, of_window, count - int(recordings.max()) - 1)


def _with_copies(
    data: SpectrogramSet, recordings: np.ndarray, of_window: np.ndarray
) -> np.ndarray:
    """The recording of each clip, with one number for recordings that hold the same window."""
    from compress.duplicates import sounding_digests

    digests = sounding_digests(data, np.arange(len(data)))
    own = recordings[of_window]
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    holders = own[first][which]
    copied = (digests != 0) & (holders != own)
    numbers = np.arange(recordings.max() + 1)

    def number_of(recording: int) -> int:
        while numbers[recording] != recording:
            numbers[recording] = numbers[numbers[recording]]
            recording = int(numbers[recording])
        return recording

    for holder, recording in zip(holders[copied].tolist(), own[copied].tolist(), strict=True):
        numbers[number_of(recording)] = number_of(holder)
    merged = np.array([number_of(one) for one in range(len(numbers))]) if copied.any() else numbers
    return np.unique(merged[recordings], return_inverse=True)[1]


def _assign(clips: _Clips, data: SpectrogramSet, seed: int, sides: tuple[int, ...]) -> np.ndarray:
    """The side of each clip, one per recording, stratified by class.

    A recording belongs to the stratum of its rarest class. Within a stratum, recordings of one
    size are shuffled and dealt out in the shares of the sides, from the largest size to the
    smallest; what rounding leaves over is carried to the next size, so that a stratum misses its
    shares by no more than about its smallest recordings.
    """
    count = int(clips.recordings.max()) + 1 if len(clips.recordings) else 0
    per_class = np.bincount(clips.labels, minlength=len(data.class_names))
    present = np.flatnonzero(per_class)
    pairs = np.unique(clips.recordings * len(per_class) + clips.labels)
    holders, held = np.divmod(pairs, len(per_class))  # which recording holds which class
    _check_enough(data, np.bincount(held, minlength=len(per_class)), present, len(sides))
    rarity = np.empty(len(per_class), dtype=np.int64)
    rarity[np.lexsort((np.arange(len(per_class)), per_class))] = np.arange(len(per_class))
    rarest = np.full(count, len(per_class))
    np.minimum.at(rarest, holders, rarity[held])
    sizes = np.bincount(clips.recordings, minlength=count)
    random = np.random.default_rng([seed, 0x5917])
    side_of = np.full(count, _TRAIN)
    for stratum in np.unique(rarest):
        members = random.permutation(np.flatnonzero(rarest == stratum))
        side_of[members] = _deal(sizes[members], sides)
    _repair(side_of, sizes, holders, held, present, sides)
    for label in present:
        for side in sides:
            if not (side_of[holders[held == label]] == side).any():
                raise InputError(
                    f"{data.name}: recordings hold several classes in a way that leaves no "
                    f"{data.class_names[label]!r} for {_SIDES[side]}; more recordings are needed"
                )
    return side_of[clips.recordings]


def _check_enough(
    data: SpectrogramSet, recordings: np.ndarray, present: np.ndarray, needed: int
) -> None:
    if len(present) < 2:
        raise InputError(
            f"{data.name}: only one class is there to train on "
            f"({', '.join(data.class_names[i] for i in present)}); at least two are needed"
        )
    lacking = [i for i in present if recordings[i] < needed]
    if lacking:
        listed = ", ".join(f"{data.class_names[i]!r} has {recordings[i]}" for i in lacking[:5])
        raise InputError(
            f"{data.name}: fewer recordings than splits need: {listed}; each class needs at least "
            f"{needed}, one per side, because clips of one recording, or with the same sound, stay "
            "together"
        )


def _deal(sizes: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    """Sides for shuffled recordings of one stratum."""
    dealt = np.full(len(sizes), _TRAIN)
    owed = {side: 0.0 for side in sides if side != _TRAIN}
    for size in np.unique(sizes)[::-1]:
        group = np.flatnonzero(sizes == size)
        at = 0
        for side in owed:
            owed[side] += SHARE * len(group) * size
            taken = min(max(0, round(owed[side] / size)), len(group) - at)
            dealt[group[at : at + taken]] = side
            owed[side] -= taken * size
            at += taken
    return dealt


def _repair(
    side_of: np.ndarray,
    sizes: np.ndarray,
    holders: np.ndarray,
    held: np.ndarray,
    present: np.ndarray,
    sides: tuple[int, ...],
) -> None:
    """Give every side a recording of every class, taking small ones from sides that can spare it.

    Changes ``side_of`` in place. A recording is moved only where its side keeps another recording
    of each of its classes.
    """
    counts = np.zeros((max(sides) + 1, int(held.max()) + 1), dtype=np.int64)
    np.add.at(counts, (side_of[holders], held), 1)
    for label in present[np.argsort(np.bincount(held)[present], kind="stable")]:
        members = holders[held == label]
        for side in sides:
            if counts[side, label]:
                continue
            for recording in members[np.argsort(sizes[members], kind="stable")]:
                own = held[np.searchsorted(holders, recording) :][
                    : np.searchsorted(holders, recording, "right")
                    - np.searchsorted(holders, recording)
                ]
                giver = side_of[recording]
                if (counts[giver, own] > 1).all():
                    side_of[recording] = side
                    counts[giver, own] -= 1
                    counts[side, own] += 1
                    break


def _split_of(
    clips: _Clips,
    sides: np.ndarray,
    description: str,
    fold: int | None = None,
    folds: int | None = None,
    validation_fold: int | None = None,
) -> Split:
    """The split of the side of each clip, -1 for none."""
    if clips.copies:
        description += (
            f"; {counted(clips.copies, 'recording')} counted with another that holds the same sound"
        )
    train, validation, test = (
        np.flatnonzero(sides[clips.of_window] == side).astype(np.int64)
        for side in (_TRAIN, _VALIDATION, _TEST)
    )
    return Split(train, validation, test, description, fold, folds, validation_fold)
