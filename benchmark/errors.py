"""What users see as a line of text instead of a traceback."""


class UserError(Exception):
    """Bad input: a line a problem, which says what was found, where, and what is allowed."""

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


class DataNotFound(UserError):
    """A data set that is nowhere to be had."""


INTERRUPTED = "interrupted; what was stored is kept"
"""What Ctrl-C answers, whatever the command was doing."""
