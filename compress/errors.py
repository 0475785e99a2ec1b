"""The one exception that stands for a mistake in what the user handed in."""


class InputError(Exception):
    """The input is wrong. The message is one line: what was read, what is wrong, what to do.

    Every command turns it into ``error: ...`` on standard error and exit code 2.
    """
