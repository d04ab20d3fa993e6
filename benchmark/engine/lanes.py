"""Replicas that share their matrix products, minibatch by minibatch; lanes on the cores of a CPU."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.common.errors import UserError
from benchmark.engine.execution import Compiled, CompiledStep, Graphs, Step
from benchmark.engine.samples import Split
from benchmark.methods import Method, seeding

EVALUATION_BATCH = 256
"""Batch norm at evaluation uses the statistics of such a minibatch, samples in order."""


class Lane:
    """The replicas of one `Method` on one data set, minibatch by minibatch.

    `seeds` has one entry a replica. Data order and noise are drawn per seed and epoch (see `streams`).
    Nothing waits for the device: what is measured is summed up there.
    """

    def __init__(
        self,
        method: Method,
        seeds: Sequence[int],
        train: Split,
        test: Split,
        batch_size: int,
        *,
        compiled: Compiled | None = None,
        graphed: bool = False,
    ) -> None:
        self.method = method
        self.train = train
        self.test = test
        self.batch_size = batch_size
        device = train.x.device
        replicas = len(seeds)
        shared = list(dict.fromkeys(seeds))
        group = replicas // len(shared)
        grouped = [seed for seed in shared for _ in range(group)] == list(seeds)
        # One minibatch a seed where replicas come in equal groups of a seed, else one a replica.
        self.streams = shared if grouped else list(seeds)
        self.generators = [torch.Generator(device) for _ in self.streams]
        self.one_hot = torch.eye(method.network.dims[-1], dtype=train.x.dtype, device=device)
        self.loss = torch.zeros(replicas, device=device)
        """Summed cross-entropy of the minibatches trained on since it was set to zero."""
        self.wrong = torch.zeros(replicas, dtype=torch.int64, device=device)
        """Errors of the last `evaluation`."""
        self.finite = torch.ones(replicas, dtype=torch.bool, device=device)
        """Whether all its logits were finite."""
        self.train_step: Step = method.train_step if compiled is None else CompiledStep(method, compiled)
        self.graphs = Graphs(self.generators) if graphed else None

    def pretraining(self, completed: int) -> Iterator[None]:
        """Feedback pre-training through one epoch, after so many."""
        for picked in self._minibatches("pretraining order", "pretraining noise", completed):
            self._run(self._pretrain_on, picked)
            yield

    def iterations(self, completed: int) -> Iterator[None]:
        """Training through one epoch, after so many, pre-training included; adds to `loss`."""
        if isinstance(self.train_step, CompiledStep):
            self.train_step.restart()
        for picked in self._minibatches("order", "noise", completed):
            self._run(self._train_on, picked)
            yield

    def evaluation(self) -> Iterator[None]:
        """Through `test`; leaves `wrong` and `finite`."""
        self.wrong.zero_()
        self.finite.fill_(True)
        for picked in torch.split(torch.arange(len(self.test), device=self.test.x.device), EVALUATION_BATCH):
            self._run(self._evaluate_on, picked)
            yield

    def _run(self, work: Callable[[Tensor], None], picked: Tensor) -> None:
        if self.graphs is None:
            work(picked)
        else:
            self.graphs(work, picked)

    def _minibatches(self, order: str, noise: str, completed: int) -> Iterator[Tensor]:
        """The indices (S, n) of an epoch's minibatches, the last one with what is left.

        The order is drawn on the CPU, so that every device sees the same.
        """
        for seed, generator in zip(self.streams, self.generators, strict=True):
            seeding.restart(generator, seed, noise, completed)
        drawn = (seeding.generator(seed, order, completed) for seed in self.streams)
        orders = [torch.randperm(len(self.train), generator=generator) for generator in drawn]
        yield from torch.split(torch.stack(orders).to(self.train.x.device), self.batch_size, dim=1)

    def _pretrain_on(self, picked: Tensor) -> None:
        """One step of feedback pre-training on the samples `picked` (S, n)."""
        self.method.pretrain_step(self.train.x[picked].transpose(1, 2), self._noise)

    def _train_on(self, picked: Tensor) -> None:
        """One iteration on the samples `picked` (S, n)."""
        x = self.train.x[picked].transpose(1, 2)
        y = self._per_replica(self.one_hot[self.train.y[picked]].transpose(1, 2))
        logits = self.train_step(x, y, self._noise)
        if (shape := getattr(logits, "shape", None)) != y.shape:
            found = type(logits).__name__ if shape is None else f"{type(logits).__name__} {tuple(shape)}"
            rule = type(self.method).__name__
            raise UserError(f"{rule}.train_step returns {found}; the logits {tuple(y.shape)} are expected")
        self.loss -= (functional.log_softmax(logits, dim=1) * y).sum((1, 2))

    def _evaluate_on(self, picked: Tensor) -> None:
        """Count the errors on the samples `picked` (n,)."""
        logits = self.method.network(self.test.x[picked].T[None])
        self.wrong += (logits.argmax(1) != self.test.y[picked]).sum(1)
        self.finite &= logits.isfinite().flatten(1).all(1)

    def _noise(self, like: Tensor) -> Tensor:
        if not hasattr(self.method, "noise_std"):
            raise UserError(
                f"{type(self.method).__name__} asks for noise, but has no hyperparameter noise_std"
            )
        drawn = like.new_empty(len(self.generators), *like.shape[1:])
        for replica, generator in zip(drawn, self.generators, strict=True):
            replica.normal_(generator=generator)
        return self._per_replica(drawn).mul_(self.method.noise_std)

    def _per_replica(self, shared: Tensor) -> Tensor:
        """(S, features, n) -> (R, features, n)."""
        group = self.method.network.replicas // len(self.streams)
        return shared if group == 1 else shared.repeat_interleave(group, dim=0)


_END = object()


class Cores:
    """The threads that torch may use now, shared out among several tasks.

    As many tasks as there are threads are worked on at a time, each by a worker with an equal share of
    the threads (what does not share out evenly is left idle). A worker takes one step of a task, then
    turns to the one that has waited longest, so that with more tasks than workers all are busy until the
    last steps.
    """

    def __init__(self, tasks: int) -> None:
        self._available = torch.get_num_threads()
        self.workers = min(self._available, tasks)
        """Tasks worked on at a time."""
        self.threads = self._available // self.workers
        """Of every worker."""

    def advance(self, tasks: Sequence[Iterator[None]], steps: float = math.inf) -> bool:
        """Take up to so many steps of every task; whether there were any to take.

        An error in one task ends the others after the steps under way, and so does an interrupt.
        """
        waiting = deque((task, 0) for task in tasks)
        moved = stopping = False

        def work() -> None:
            nonlocal moved, stopping
            try:
                while not stopping:
                    try:
                        task, taken = waiting.popleft()
                    except IndexError:
                        return  # the rest is in other workers' hands
                    if taken < steps and next(task, _END) is not _END:
                        moved = True
                        waiting.append((task, taken + 1))
            except BaseException:
                stopping = True
                raise

        if self.workers == 1:
            work()
            return moved
        pool = ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(self.threads,))
        try:
            with pool:
                try:
                    for worker in [pool.submit(work) for _ in range(self.workers)]:
                        worker.result()
                finally:
                    stopping = True
        finally:
            torch.set_num_threads(self._available)
        return moved
