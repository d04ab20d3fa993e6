"""A whole iteration as a CUDA graph: recorded once for each shape, then launched at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor

Work = Callable[..., Any]
"""Takes tensors, and leaves what is to last in tensors that were there before."""


class Graphed:
    """`work` by CUDA graphs, one for each set of shapes of its arguments.

    The first call with such a set runs `work` as it is, so that CUDA's libraries set themselves up; the
    second records it; this one and all later ones copy the arguments and launch what was recorded. It
    draws from `generators` where they stand at the launch, so that restarting one restarts its stream.
    `pool` (of `torch.cuda.graph_pool_handle`) is the memory in which graphs take turns, so that what a
    call returns holds until the next launch.
    """

    def __init__(self, work: Work, generators: Sequence[torch.Generator], pool: Any) -> None:
        self.work = work
        self.generators = generators
        self.pool = pool
        self.seen: set[tuple[Size, ...]] = set()
        self.recorded: dict[tuple[Size, ...], tuple[list[Tensor], torch.cuda.CUDAGraph, Any]] = {}

    def __call__(self, *given: Tensor) -> Any:
        shapes = tuple(tensor.shape for tensor in given)
        if shapes not in self.seen:
            self.seen.add(shapes)
            return self.work(*given)
        if shapes not in self.recorded:
            held = [tensor.clone() for tensor in given]
            self.recorded[shapes] = held, *record(lambda: self.work(*held), self.generators, self.pool)
        held, graph, result = self.recorded[shapes]
        for buffer, tensor in zip(held, given, strict=True):
            buffer.copy_(tensor)
        graph.replay()
        return result


def record(
    work: Callable[[], Any], generators: Sequence[torch.Generator], pool: Any
) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The graph of what `work` does on the current CUDA device, and what it returns once launched."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, pool=pool):
        result = work()
    return graph, result
