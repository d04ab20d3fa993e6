"""Errors that users see as a line of text instead of a traceback."""

import sys
from typing import NoReturn


class UserError(Exception):
    """Bad input. Each argument is one line: what was found, where, and what is allowed."""

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


class Unreadable(UserError):
    """A file without read permission. It may be intact."""


class DataNotFound(UserError):
    """A data set that is neither on disk nor downloadable."""


INTERRUPTED = "interrupted; what was stored is kept"
"""The line that every command prints after Ctrl-C."""


def interrupted(status: int) -> NoReturn:
    """Print `INTERRUPTED` and exit with this status."""
    print(INTERRUPTED, file=sys.stderr)
    # CPython marks an interrupt that leaves an `exec` (a dataclass uses one) as unhandled, and would end by
    # the signal. Another `exec` removes the mark.
    exec("")
    sys.exit(status)
