"""What users see as a line of text instead of a traceback."""

import sys
from typing import NoReturn


class UserError(Exception):
    """Bad input: a line a problem, which says what was found, where, and what is allowed."""

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


class Unreadable(UserError):
    """A file that may be well, but that this user may not read."""


class DataNotFound(UserError):
    """A data set that is nowhere to be had."""


INTERRUPTED = "interrupted; what was stored is kept"
"""What Ctrl-C answers, whatever the command was doing."""


def interrupted(status: int) -> NoReturn:
    """Say so, and end with an exit status."""
    print(INTERRUPTED, file=sys.stderr)
    # An interrupt that leaves an `exec` of text, as where a dataclass is made, CPython marks as unhandled: it
    # would end by the signal. The next `exec` takes the mark back.
    exec("")
    sys.exit(status)
