"""What memory holds: replicas a pass, running out of it, and freed activations kept for reuse."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from benchmark.common.errors import UserError
from benchmark.engine.build import state_count
from benchmark.methods.sizes import weight_count

if TYPE_CHECKING:
    from benchmark.methods import Method

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30

USABLE = 0.7
"""Share of the free memory that a pass may fill: the estimate is one, and others want memory too."""
CPU_REPLICAS = 25
"""A CPU gains nothing from more replicas a pass; its checkpoints only get rarer."""


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


def free_memory(device: torch.device) -> int:
    """Bytes that the device can still give."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return min([psutil.virtual_memory().available, *limits()])  # the page cache counts as free


def limits(own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that the limits of a batch job or container leave, one a limit: control groups, version 2."""
    with suppress(OSError, UnicodeDecodeError):
        (group,) = re.findall(r"^0::/(.*)$", own.read_text(), re.MULTILINE) or [""]
        below = [groups / group, *(groups / group).parents]
        return [left for folder in below if (left := _left_by_limit(folder)) is not None]
    return []


def _left_by_limit(group: Path) -> int | None:
    """None without a limit."""
    with suppress(OSError, ValueError):  # "max" is none
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        statistics = (group / "memory.stat").read_text()
        cached = re.findall(r"^(?:in)?active_file (\d+)$", statistics, re.MULTILINE)
        return max(0, limit - used + sum(map(int, cached)))
    return None


def bytes_per_replica(
    method: type[Method], dims: Sequence[int], batch_size: int, device: torch.device
) -> int:
    """Estimated peak memory of one replica in training, in bytes of float32; the data set not included.

    Weights of encoders and feedback and the rule's own state, once on the device; a CPU also holds the
    checkpoint while it is written, up to twice. Per sample of the minibatch and layer ten activations:
    what `Trace` keeps of it (preactivation, activation, output), its target and correction, and
    temporaries; six without targets. On a GPU twice, in the memory of the CUDA graphs and in that of what
    runs before they are recorded.
    """
    weights = weight_count(dims) + (weight_count(dims[1:]) if method.feedback != "none" else 0)
    weights += state_count(method, dims)
    copies, times = (1, 2) if device.type == "cuda" else (3, 1)
    arrays = times * (10 if method.feedback == "decoders" else 6)
    return 4 * (copies * weights + arrays * batch_size * sum(dims[1:]))


def replicas_per_pass(
    method: type[Method], dims: Sequence[int], batch_size: int, device: torch.device
) -> int:
    """How many replicas to train side by side on the device as it is now; `UserError` if one is too big."""
    free = free_memory(device)
    try:
        needed = bytes_per_replica(method, dims, batch_size, device)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise UserError(
            f"{method.__name__}.initial_state: memory ran out, {free / 2**30:.1f} GiB are free"
        ) from None
    if needed > 4 * free:  # far beyond what the estimate may be off by
        network = (
            "-".join(map(str, dims))
            if len(dims) < 10
            else f"{dims[0]}-...-{dims[-1]}, {len(dims) - 1} layers"
        )
        raise UserError(
            f"a network {network} in minibatches of {batch_size} takes about {needed / 2**30:.1f} GiB "
            f"to train, {free / 2**30:.1f} GiB are free"
        )
    fitting = int(USABLE * free / needed)
    return max(1, fitting if device.type == "cuda" else min(fitting, CPU_REPLICAS))


def give_back(device: torch.device) -> None:
    """Return to the device what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on either kind of device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()  # the CPU allocator raises a plain RuntimeError, and so does compiled code
    signs = ("allocate memory", "not enough memory", "aoti_torch_empty")
    return isinstance(error, RuntimeError) and any(sign in said for sign in signs)
