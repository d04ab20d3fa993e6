"""Keeps the C library from giving every freed activation back to the kernel."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30


def keep_freed_memory() -> None:
    """Let glibc reuse freed blocks below 1 GiB; elsewhere nothing happens.

    Activations of a few megabytes are allocated and freed in every iteration. By default each one
    is mapped afresh, and its page faults cost more than the arithmetic on it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _KEEP)
    mallopt(_M_TRIM_THRESHOLD, _KEEP)
