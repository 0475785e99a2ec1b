"""The MACs at which the exported file takes a wanted share of its parent's time, by measuring."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from compress import evaluate, onnx_export
from compress.errors import InputError
from compress.material import Normalisation
from compress.pruning.planning import MACS
from compress.pruning.structure import Measure, Subject, least, prune_to

_HALVINGS = 5


def measured_ratio(subject: Subject, normalisation: Normalisation, base: Path) -> float:
    """Time of the network's file over that of ``base``, in turns in one process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "probe.onnx"
        onnx_export.to_onnx(subject.model, normalisation, subject.mels, subject.frames, file)
        found = evaluate.latency_ratio(file, base, subject.mels, subject.frames)
    return found["ratio"]


def macs_for_ratio(
    subject: Subject, normalisation: Normalisation, base: Path, wanted: float, how: Measure
) -> int:
    """The most MACs, between the least and the present ones, whose file was fast enough.

    Widths decide the time and weights do not, so probes are chosen by magnitude and not trained.
    Raises InputError where even the smallest network is not.
    """
    floor, _ = least(subject, MACS, how.round_to)
    by_magnitude = Measure("magnitude", how.round_to, how.seed)

    def ratio_at(macs: float) -> float:
        return measured_ratio(prune_to(subject, MACS, macs, by_magnitude), normalisation, base)

    smallest = ratio_at(floor)
    if smallest > wanted:
        raise InputError(
            f"--latency-ratio {wanted:g}: cannot be reached; with every width at its least "
            f"(--round-to {how.round_to}) the file takes {smallest:.2f} of the time; "
            f"give --latency-ratio {math.ceil(smallest * 100 + 1) / 100:g} or more"
        )
    low, high = float(floor), float(subject.count(MACS))
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        if ratio_at(middle) <= wanted:
            low = middle
        else:
            high = middle
    return int(low)
