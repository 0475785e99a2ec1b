"""A confusion matrix as a part of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def draw_confusion(
    axes: Any, names: Sequence[str], percents: Sequence[Sequence[float | None]]
) -> None:
    """Shares in % of each row, rows actual, columns decided; None: no clips of that class."""
    n = len(names)
    # the eye should see small confusions too, so the shade grows with the root of the share
    shades = [[((cell or 0.0) / 100) ** 0.5 for cell in row] for row in percents]
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1.15)
    for i, row in enumerate(percents):
        for j, cell in enumerate(row):
            if cell is None:
                continue
            colour = "white" if cell > 45 else "#1d2127" if cell else "#8a919b"
            axes.text(j, i, f"{cell:.2f}" if n <= 6 else f"{cell:.0f}", ha="center",
                      va="center", color=colour, fontsize=10 if n <= 10 else 7)  # fmt: skip
    axes.set_xticks(range(n), names, rotation=35, ha="right")
    axes.set_yticks(range(n), names)
    axes.set_xlabel("decided")
    axes.set_ylabel("actual")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
