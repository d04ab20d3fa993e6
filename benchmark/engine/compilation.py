"""How iterations are executed; `torch.compile` where a run is long enough to pay for it."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
from torch import Size, Tensor

from benchmark.methods import Method, Noise

Step = Callable[[Tensor, Tensor, Noise], Tensor]
"""`Method.train_step`."""
OnTensors = Callable[..., Tensor]
"""`on_tensors`, or what computes the same."""

WORTHWHILE = 5e12
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


def on_tensors(method: Method, x: Tensor, y: Tensor, *eps: Tensor) -> Tensor:
    """An iteration of `method` whose noise was drawn before, in the order in which it asks for it."""
    drawn = iter(eps)
    return method.train_step(x, y, lambda like: next(drawn))


class Compiled:
    """`on_tensors` by `torch.compile`, once for all methods and tensors that look alike.

    On a CPU its loops run on `threads` threads, and without Python's lock, so that other threads can
    run it at the same time. Where compiling fails, for want of a C++ compiler, say, a warning tells so
    and every iteration runs eagerly.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        with _undisturbed():
            # Dynamo counts what it compiled per function, not per object; at the eighth it silently gives up.
            torch.compiler.reset()
        options: dict[str, Any] | None = None
        if device.type == "cpu":
            options = {"cpp_wrapper": True, "cpp.threads": threads}
            logging.getLogger("torch.utils.cpp_extension").addFilter(_matters)
        self._compiled: OnTensors = torch.compile(on_tensors, dynamic=False, options=options)
        self._compiling = threading.Lock()
        self._ready = False
        self.failed = False

    def __call__(self, method: Method, x: Tensor, y: Tensor, *eps: Tensor) -> Tensor:
        if self._ready:
            return self._run(method, x, y, *eps)
        with self._compiling:
            logits = self._run(method, x, y, *eps)
            self._ready = True
            return logits

    def _run(self, method: Method, *tensors: Tensor) -> Tensor:
        if not self.failed:
            try:
                return self._compiled(method, *tensors)
            except Exception as error:
                # There by now; imported before anything is compiled it takes a second.
                from torch._dynamo.exc import BackendCompilerFailed

                if not isinstance(error, BackendCompilerFailed):
                    raise
                self.failed = True  # before anything ran
                reason = str(error).strip().splitlines()[0]
                warnings.warn(f"not compiled, training goes on without: {reason}", stacklevel=2)
        return on_tensors(method, *tensors)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C, or a batch system's signal, waits until the block has ended.

    Dynamo loads triton, whose C++ aborts the process where Python raises an exception inside it.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone is interrupted
        yield
        return
    waiting: list[int] = []
    stops = signal.SIGINT, signal.SIGTERM
    before = {stop: signal.getsignal(stop) for stop in stops}
    try:
        for stop in stops:
            signal.signal(stop, lambda number, _: waiting.append(number))
        yield
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler or signal.SIG_DFL)
        for number in dict.fromkeys(waiting):  # the first that is not ignored ends the loop
            signal.raise_signal(number)


def _matters(record: logging.LogRecord) -> bool:
    """Not that nvcc is installed where there is no GPU, in the middle of a line of progress."""
    return "No CUDA runtime is found" not in record.getMessage()


class CompiledStep:
    """`method.train_step` by `compiled`, for minibatches of the first one's shape; others run eagerly.

    Random generators cannot be compiled, so an iteration's noise is drawn before it, in the order in
    which an eager iteration asks for it: the first one after `restart`.
    """

    def __init__(self, method: Method, compiled: OnTensors) -> None:
        self.method = method
        self.compiled = compiled
        self.restart()

    def restart(self) -> None:
        """Run the next iteration eagerly: at the start of every epoch, so that a process which goes on from
        a checkpoint computes what the interrupted one would have."""
        self.shape: Size | None = None
        self.like: list[Tensor] = []

    def __call__(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        if self.shape is None:
            self.shape = x.shape
            return self.method.train_step(x, y, self._recorded(noise))
        if x.shape != self.shape:
            return self.method.train_step(x, y, noise)
        return self.compiled(self.method, x, y, *map(noise, self.like))

    def _recorded(self, noise: Noise) -> Noise:
        def record(like: Tensor) -> Tensor:
            self.like.append(like.new_empty(1).expand(like.shape))  # its look, no memory behind it
            return noise(like)

        return record
