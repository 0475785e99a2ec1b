"""Long sounds whose scene changes, made of a split's windows, and how well a rule follows them.

    scenes of drawn classes and dwell times -> windows of recordings of that class, in their order
    -> decisions of a rule -> error at each delay after a change, delay, false alarms per hour
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.data.sets import SpectrogramSet
from compress.errors import InputError


@dataclass(frozen=True)
class Stream:
    """windows: (n,) positions in the given windows; truth: (n,) classes; starts: (scenes,) first
    window of each scene; step_seconds: time from one window to the next, which do not overlap."""

    windows: np.ndarray
    truth: np.ndarray
    starts: np.ndarray
    step_seconds: float

    @property
    def times(self) -> np.ndarray:
        """End of each window, (n,) seconds."""
        return (np.arange(len(self.windows)) + 1) * self.step_seconds

    @property
    def hours(self) -> float:
        return len(self.windows) * self.step_seconds / 3600


def draw_stream(
    data: SpectrogramSet,
    windows: np.ndarray,
    step_seconds: float,
    hours: float,
    dwell_seconds: float,
    seed: int,
) -> Stream:
    """A stream of about ``hours``. Scenes last an exponential time of mean ``dwell_seconds``, at
    least one window; each is of another class than the last, drawn by the classes' shares.

    A scene takes recordings of its class in a drawn order, the windows of each in theirs, until it
    is over. Raises InputError where fewer than two classes have windows.
    """
    labels = data.labels[windows]
    classes = np.unique(labels)
    if len(classes) < 2:
        raise InputError(f"{data.name}: scenes can only change between two or more classes")
    shares = np.bincount(labels, minlength=len(data.class_names)) / len(labels)
    random = np.random.default_rng([seed, 0x57E4])
    recordings = {
        label: [
            np.flatnonzero((labels == label) & (data.recording_ids[windows] == recording))
            for recording in np.unique(data.recording_ids[windows][labels == label])
        ]
        for label in classes
    }
    wanted = max(2, round(hours * 3600 / step_seconds))
    taken: list[np.ndarray] = []
    truth: list[np.ndarray] = []
    starts = [0]
    label = int(random.choice(classes, p=shares[classes] / shares[classes].sum()))
    while starts[-1] < wanted:
        length = max(1, round(random.exponential(dwell_seconds) / step_seconds))
        order = random.permutation(len(recordings[label]))
        pool = np.concatenate([recordings[label][i] for i in order])
        scene = np.resize(pool, length)
        taken.append(scene)
        truth.append(np.full(length, label))
        starts.append(starts[-1] + length)
        others = classes[classes != label]
        label = int(random.choice(others, p=shares[others] / shares[others].sum()))
    return Stream(np.concatenate(taken), np.concatenate(truth), np.array(starts[:-1]), step_seconds)


def follow(stream: Stream, decided: np.ndarray, longest_seconds: float = 30.0) -> dict[str, Any]:
    """What a sequence of decisions (n,) is worth.

    error: share of windows decided wrongly. error_at_delay: the same among the k-th windows of
    scenes, k = 1, 2, ..., with delay_seconds k x step: what was heard of the scene by then.
    delay: seconds heard of a scene until it is first decided rightly, mean and median over scenes
    that are; missed_scenes: share of those that never are. A false alarm begins where a decision
    turns wrong within a scene that was decided rightly before; false_alarms_per_hour counts them.
    """
    wrong = decided != stream.truth
    ends = np.append(stream.starts[1:], len(wrong))
    first_right, alarms = [], 0
    for start, end in zip(stream.starts, ends, strict=True):
        scene = wrong[start:end]
        right = np.flatnonzero(~scene)
        if len(right):
            first_right.append(int(right[0]) + 1)
            settled = scene[right[0] :]
            alarms += int((settled[1:] & ~settled[:-1]).sum())
    lengths = ends - stream.starts
    most = max(1, min(int(longest_seconds / stream.step_seconds), int(lengths.max())))
    at_delay, scenes = [], []
    for k in range(most):
        long_enough = stream.starts[lengths > k]
        at_delay.append(float(wrong[long_enough + k].mean()))
        scenes.append(len(long_enough))
    delays = np.array(first_right) * stream.step_seconds
    return {
        "error": float(wrong.mean()),
        "delay_seconds": [(k + 1) * stream.step_seconds for k in range(most)],
        "error_at_delay": at_delay,
        "scenes_at_delay": scenes,
        "delay": {
            "mean": float(delays.mean()) if len(delays) else None,
            "median": float(np.median(delays)) if len(delays) else None,
        },
        "missed_scenes": 1 - len(first_right) / len(stream.starts),
        "false_alarms_per_hour": alarms / stream.hours,
    }
