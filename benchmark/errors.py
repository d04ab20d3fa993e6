"""What users see as a line of text instead of a traceback."""


class UserError(Exception):
    """Bad input: the message says what was found, where, and what is allowed."""


class DataNotFound(UserError):
    """A data set that is nowhere to be had."""


INTERRUPTED = "interrupted; what was stored is kept"
"""What Ctrl-C answers, whatever the command was doing."""
