"""How much memory something took."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Peak:
    """Filled when the block it watched ends."""

    gib: float | None = None


@contextmanager
def watched(device: torch.device) -> Iterator[Peak]:
    """The most memory taken inside the block above what was taken before it.

    On CUDA, of torch's allocator; on a CPU, resident memory of this process, which Linux tells.
    """
    peak = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.gib = (torch.cuda.max_memory_allocated(device) - before) / 2**30
        return
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that this process holds would hide the growth
    kib = None
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        kib = _kib(Path("/proc/self/status"), "VmRSS")
    yield peak
    highest = _kib(Path("/proc/self/status"), "VmHWM")
    if kib is not None and highest is not None:
        peak.gib = (highest - kib) / 2**20


def _kib(file: Path, field: str) -> int | None:
    """A field of one of Linux's status files, in KiB."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
