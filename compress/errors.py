"""The one exception that stands for a mistake in what the user handed in, and several as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

Value = TypeVar("Value")
Takes = ParamSpec("Takes")


class InputError(Exception):
    """The input is wrong. The message is one line: what was read, what is wrong, what to do.

    Every command turns it into ``error: ...`` on standard error and exit code 2.
    """


class Faults:
    """What several checks find wrong, to be said together: who mends one wants to know of all."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def add(self, wrong: object, text: str) -> None:
        """Note ``text`` where ``wrong`` is true."""
        if wrong:
            self._told.append(text)

    def of(
        self, check: Callable[Takes, Value], *given: Takes.args, **named: Takes.kwargs
    ) -> Value | None:
        """What the check gives; None where it raises InputError, which is noted."""
        try:
            return check(*given, **named)
        except InputError as error:
            self._told.append(str(error))
            return None

    def check(self) -> None:
        """Raise InputError with all that was noted, each once."""
        if self._told:
            raise InputError("; ".join(dict.fromkeys(self._told)))
