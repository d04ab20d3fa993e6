"""Memory: how much is left, what a training is going to take, and what it took."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.methods import METHODS
from benchmark.network import weight_count
from benchmark.sweep import Run


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be had on the device; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    kib = _kib(Path("/proc/meminfo"), "MemAvailable")
    return None if kib is None else 1024 * kib


_OVERHEAD = 16 * 2**20
_ARRAYS = {"decoders": 11, "alignment": 6, "none": 6}


def expected_bytes(run: Run) -> int:
    """What building and training a run takes at most, all its replicas together.

    Weights, and for every sample of a minibatch the input and so many arrays as wide as all layers together
    as each kind of feedback was seen to need.
    """
    feedback = METHODS[run.method].feedback
    weights = weight_count(run.dims) + (weight_count(run.dims[1:]) if feedback != "none" else 0)
    activations = run.dims[0] + _ARRAYS[feedback] * sum(run.dims[1:])
    return _OVERHEAD + 4 * len(run.seeds) * (weights + activations * run.batch_size)


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
