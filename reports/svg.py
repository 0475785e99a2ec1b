"""Pieces of inline SVG: text, lines, scales, axes. Colours are CSS classes of the page.

A drawing is laid out near the size at which a phone shows it, so that its text stays legible there,
and grows with the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from reports.records import plain

CHARACTER = 0.66  # mean width of a character in units of the font size


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    words = escape(plain(words))
    placed = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {placed} class="{kind}" text-anchor="{anchor}">{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def rectangle(
    x: float, y: float, width: float, height: float, kind: str, title: str = "", style: str = ""
) -> str:
    inner = f"<title>{escape(plain(title))}</title>" if title else ""
    styled = f' style="{style}"' if style else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" '
        f'class="{kind}"{styled}>{inner}</rect>'
    )


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{placed}" class="{kind}"/>'


def drawing(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """An <svg> that scales with the page down to three quarters of its width, then scrolls."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(plain(label), quote=True)}" '
        f'style="max-width:{width * 1.2:.0f}px;min-width:{width * 0.72:.0f}px">'
        + "".join(parts)
        + "</svg>"
    )


def text_width(words: str, font: float) -> float:
    return len(words) * font * CHARACTER


def shortened(words: str, most: int) -> str:
    words = plain(words)
    return words if len(words) <= most else words[: most - 1] + "…"


@dataclass(frozen=True)
class Scale:
    """Values onto pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        value, low, high = (
            (math.log10(max(v, 1e-12)) for v in (value, self.low, self.high))
            if self.logarithmic
            else (value, self.low, self.high)
        )
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        if self.logarithmic:
            return log_ticks(self.low, self.high, most)
        return linear_ticks(self.low, self.high, most)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values between low and high, at most ``most`` of them."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    step = 10 ** math.floor(math.log10(span / max(most, 1)))
    while span / step > most:
        step *= 2 if span / (2 * step) <= most else 2.5 if span / (2.5 * step) <= most else 5
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """1-2-5 values, thinned to decades where there are too many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(found) <= most:
            return found
    every = math.ceil(len(found) / most)
    return found[::every]


def axes(
    x: Scale,
    y: Scale,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_label: str = "",
    y_label: str = "",
) -> list[str]:
    """Grid, tick labels and axis names; y.start is the bottom."""
    parts = []
    for value, words in y_ticks:
        parts.append(line(x.start, y(value), x.end, y(value), "grid"))
        parts.append(text(x.start - 8, y(value) + 4.5, words, "tick", "end"))
    for value, words in x_ticks:
        parts.append(line(x(value), y.start, x(value), y.start + 5, "axis"))
        parts.append(text(x(value), y.start + 20, words, "tick", "middle"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    if x_label:
        parts.append(text((x.start + x.end) / 2, y.start + 40, x_label, "label", "middle"))
    if y_label:
        parts.append(text(x.start - 8, y.end - 10, y_label, "label", "start"))
    return parts


@dataclass
class Places:
    """Boxes already taken by labels and points, for putting the next label where it is free."""

    boxes: list[tuple[float, float, float, float]]

    def free(self, box: tuple[float, float, float, float]) -> bool:
        return all(
            box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
            for other in self.boxes
        )

    def put(
        self,
        x: float,
        y: float,
        words: str,
        font: float,
        inside: tuple[float, float, float, float],
    ) -> tuple[float, float, str] | None:
        """(x, y, anchor) of a label beside the point (x, y), or None where there is no room."""
        width = text_width(words, font)
        candidates: list[Callable[[], tuple[float, float, str]]] = [
            lambda: (x + 10, y + 4.5, "start"),
            lambda: (x - 10, y + 4.5, "end"),
            lambda: (x + 6, y - 10, "start"),
            lambda: (x + 6, y + 19, "start"),
            lambda: (x - 6, y - 10, "end"),
            lambda: (x - 6, y + 19, "end"),
        ]
        for candidate in candidates:
            left, base, anchor = candidate()
            start = left if anchor == "start" else left - width
            box = (start, base - font * 0.8, start + width, base + font * 0.25)
            within = (
                box[0] >= inside[0]
                and box[1] >= inside[1]
                and box[2] <= inside[2]
                and box[3] <= inside[3]
            )
            if within and self.free(box):
                self.boxes.append(box)
                return left, base, anchor
        return None
