"""Names from files in pictures: drawn as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def literal_text(draw: Callable[..., None]) -> Callable[..., None]:
    """A drawing in which dollar signs are dollar signs; matplotlib would read formulae in them,
    and fail at a name that is none."""

    @functools.wraps(draw)
    def drawn(*given: Any, **named: Any) -> None:
        from matplotlib import rc_context

        with rc_context({"text.parse_math": False}):
            draw(*given, **named)

    return drawn
