"""How iterations are executed; `torch.compile` where a run is long enough to pay for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Size, Tensor
from torch._dynamo.exc import BackendCompilerFailed

from benchmark.methods import Noise

Step = Callable[[Tensor, Tensor, Noise], Tensor]
"""`Method.train_step`."""
OnTensors = Callable[..., Tensor]

WORTHWHILE = 3e13
"""Multiply-adds from which on a run is compiled: minutes on a few cores, and compiling takes half of one."""


class Execution(StrEnum):
    """How a training runs its iterations; recorded with the run."""

    EAGER = "eager"
    COMPILED = "compiled"  # by torch.compile
    GRAPHED = "graphed"  # as CUDA graphs


class Compile(StrEnum):
    """What `--compile` allows."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def execution(setting: Compile, multiply_adds: float | None, device: torch.device) -> Execution:
    """How a run of so many multiply-adds is executed.

    Depends on no clock, so that an interrupted run goes on as it began.
    """
    if setting is Compile.AUTO and device.type == "cuda":
        return Execution.GRAPHED
    long = setting is Compile.AUTO and multiply_adds is not None and multiply_adds >= WORTHWHILE
    return Execution.COMPILED if long or setting is Compile.ON else Execution.EAGER


class CompiledStep:
    """`step` with its arithmetic compiled, for minibatches of the first one's shape; others run eagerly.

    Random generators cannot be compiled, so an iteration's noise is drawn before it, in the order in
    which an eager iteration asks for it: the first one after `restart`. Where compiling fails, for want
    of a C++ compiler, say, a warning tells so and every iteration runs eagerly.

    `compiler` makes the fast function, of an iteration's tensors (x, y, *eps), from the plain one.
    """

    def __init__(self, step: Step, compiler: Callable[[OnTensors], OnTensors] | None = None) -> None:
        self.step = step
        self.failed = False
        self.restart()
        self.compiled = (compiler or torch_compiled)(self._on_tensors)

    def restart(self) -> None:
        """Run the next iteration eagerly: at the start of every epoch, so that a process which goes on from
        a checkpoint computes what the interrupted one would have."""
        self.shape: Size | None = None
        self.like: list[Tensor] = []

    def __call__(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        if self.shape is None:
            self.shape = x.shape
            return self.step(x, y, self._recorded(noise))
        if x.shape != self.shape or self.failed:
            return self.step(x, y, noise)
        drawn = [noise(like) for like in self.like]
        try:
            return self.compiled(x, y, *drawn)
        except BackendCompilerFailed as error:  # before anything ran
            self.failed = True
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"not compiled, training goes on without: {reason}", stacklevel=2)
            return self._on_tensors(x, y, *drawn)

    def _recorded(self, noise: Noise) -> Noise:
        def record(like: Tensor) -> Tensor:
            self.like.append(like.new_empty(1).expand(like.shape))  # its look, no memory behind it
            return noise(like)

        return record

    def _on_tensors(self, x: Tensor, y: Tensor, *eps: Tensor) -> Tensor:
        drawn = iter(eps)
        return self.step(x, y, lambda like: next(drawn))


def torch_compiled(step: OnTensors) -> OnTensors:
    """`step` by `torch.compile`."""
    # Dynamo counts what it compiled per function, not per object, and gives up silently at the eighth.
    torch.compiler.reset()
    return torch.compile(step, dynamic=False)
