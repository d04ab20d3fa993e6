"""What bounds an iteration: the machine's measured rates, and the traffic that matrix products need."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.engine.build import build
from benchmark.methods import METHODS
from benchmark.sweep.run import Run

WARM_UP = 3
"""Calls before the first block: of a CUDA graph one runs eagerly, one is recorded. The last sets the pace."""
LEAST = 3
"""Blocks timed in any case."""
PLANNED = 10
"""Blocks that share the time given."""


def block_times(
    action: Callable[[], Any], device: torch.device, seconds: float, longest: int = 1000
) -> tuple[list[float], int]:
    """Seconds a call, one entry a block, and how many calls a block has.

    `WARM_UP` calls come first. The device is synchronised before and after each block of consecutive calls. A
    block has as many calls, up to `longest`, as make `PLANNED` blocks take about `seconds` seconds, and
    there are at least `LEAST` blocks.
    """

    def block(calls: int) -> float:
        _synchronise(device)
        start = time.perf_counter()
        for _ in range(calls):
            action()
        _synchronise(device)
        return (time.perf_counter() - start) / calls

    pace = [block(1) for _ in range(WARM_UP)][-1]
    calls = max(1, min(longest, int(seconds / PLANNED / pace)))
    times: list[float] = []
    while len(times) < LEAST or calls * sum(times) < seconds:
        times.append(block(calls))
    return times, calls


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, replicas: int, width: int, batch: int) -> float:
    """Multiply-adds per second: the best of a 2048-square product and the network's own batched one.

    The first is measured once in the life of a process.
    """
    return max(_square_rate(device), _product_rate(device, replicas, width, width, batch, 0.15))


@cache
def _square_rate(device: torch.device) -> float:
    return _product_rate(device, 1, 2048, 2048, 2048, 0.5)


def _product_rate(device: torch.device, r: int, m: int, k: int, n: int, seconds: float) -> float:
    a, b = torch.randn(r, m, k, device=device), torch.randn(r, k, n, device=device)
    times, _ = block_times(lambda: torch.bmm(a, b), device, seconds)
    return r * m * k * n / statistics.median(times)


def bandwidth(device: torch.device, replicas: int, width: int, batch: int) -> float:
    """Bytes read or written per second: the best of copying 256 MiB and one layer's activations.

    The second is the rate of the caches, where the activations fit into those. The first is measured once
    in the life of a process.
    """
    return max(_memory_rate(device), _copy_rate(device, replicas * width * batch, 0.05))


@cache
def _memory_rate(device: torch.device) -> float:
    return _copy_rate(device, 1 << 26, 0.5)


def _copy_rate(device: torch.device, numbers: int, seconds: float) -> float:
    source, target = torch.zeros(numbers, device=device), torch.zeros(numbers, device=device)
    times, _ = block_times(lambda: target.copy_(source), device, seconds)
    return 2 * source.nbytes / statistics.median(times)


class _ProductBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the tensors that every matrix product reads and writes."""

    PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in self.PRODUCTS:
            self.total += sum(tensor.nbytes for tensor in (*args, result) if isinstance(tensor, Tensor))
        return result


def product_bytes(run: Run) -> int:
    """Bytes of the factors and results of one iteration's matrix products, one replica.

    Each counted once a product: nothing kept in caches between products, and all that is done element by
    element for free.
    """
    method = METHODS[run.method]
    rates = dict.fromkeys(method.hyperparameters, 1.0)
    learner = build(method, run.dims, [0], rates, run.options, device="meta")
    x = torch.empty(1, run.dims[0], run.batch_size, device="meta")
    y = torch.empty(1, run.dims[-1], run.batch_size, device="meta")
    with _ProductBytes() as counted:
        learner.train_step(x, y, torch.empty_like)
    return counted.total
