"""Whole iterations as CUDA graphs: recorded once for each shape, then launched at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor

Work = Callable[..., Any]
"""Takes tensors, and leaves what is to last in tensors that were there before."""


class Graphs:
    """Runs functions of tensors as CUDA graphs, one for each function and set of shapes.

    The first call with such a set runs the function as it is, so that CUDA's libraries set themselves up;
    the second records it; this one and all later ones copy the arguments and launch what was recorded. It
    draws from `generators` where they stand at the launch, so that restarting one restarts its stream.
    All graphs take turns in the same memory, so that what a call returns holds until the next launch.
    A function is known by its name, and not kept: graphs may belong to an object whose methods they run.
    """

    def __init__(self, generators: Sequence[torch.Generator] = ()) -> None:
        self.generators = generators
        self.pool = torch.cuda.graph_pool_handle()
        self.seen: set[tuple[str, tuple[Size, ...]]] = set()
        self.recorded: dict[tuple[str, tuple[Size, ...]], tuple[list[Tensor], torch.cuda.CUDAGraph, Any]] = {}

    def __call__(self, work: Work, *given: Tensor) -> Any:
        key = (work.__name__, tuple(tensor.shape for tensor in given))
        if key not in self.seen:
            self.seen.add(key)
            return work(*given)
        if key not in self.recorded:
            held = [tensor.clone() for tensor in given]
            self.recorded[key] = held, *record(lambda: work(*held), self.generators, self.pool)
        held, graph, result = self.recorded[key]
        for buffer, tensor in zip(held, given, strict=True):
            buffer.copy_(tensor)
        graph.replay()
        return result


def record(
    work: Callable[[], Any], generators: Sequence[torch.Generator], pool: Any
) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The graph of what `work` does on the current CUDA device, and what it returns once launched."""
    graph = torch.cuda.CUDAGraph()
    if hasattr(graph, "register_generator_state"):  # a no-op in torch 2.15, which is to lose it
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"CUDAGraph\.register_generator_state\(\) is deprecated")
            for generator in generators:
                graph.register_generator_state(generator)
    with torch.cuda.graph(graph, pool=pool):
        result = work()
    # Before torch 2.13 recording sets the generators' offsets to zero on a stream of its own, for which the
    # first launch would not wait: on a busy GPU it could draw the beginning of their streams once more.
    torch.cuda.synchronize()
    return graph, result
