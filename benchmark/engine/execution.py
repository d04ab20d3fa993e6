"""How an iteration runs: eagerly, by `torch.compile`, or as a CUDA graph; and in which precision."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Size, Tensor

from benchmark.common.errors import UserError
from benchmark.engine.settings import Compile, Execution, Precision
from benchmark.methods import Method, Noise

Step = Callable[[Tensor, Tensor, Noise], Tensor]
"""`Method.train_step`."""

OnTensors = Callable[..., Tensor]
"""`on_tensors`, or what computes the same."""

WORTHWHILE = 5e12
"""Multiply-adds from which on a run is compiled: minutes on a few cores, and compiling takes half of one."""


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


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise `UserError` if the device does not support this precision."""
    if precision is Precision.TF32 and device.type != "cuda":
        raise UserError(f"--precision: tf32 found, which needs a CUDA device, not {device}")


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute the matrix products in this block in this precision; see `check_precision`."""
    check_precision(precision, device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision is Precision.TF32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
