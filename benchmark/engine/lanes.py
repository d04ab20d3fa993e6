"""Replicas that share their matrix products, minibatch by minibatch; lanes on the cores of a CPU."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.engine.execution import Compiled, CompiledStep, Graphs, Step
from benchmark.engine.samples import Split
from benchmark.methods import Method, seeding

EVALUATION_BATCH = 256
"""Batch norm at evaluation uses the statistics of such a minibatch, samples in order."""


class Lane:
    """The replicas of one `Method` on one data set, minibatch by minibatch.

    `seeds` has one entry for each replica. Data order and noise are drawn for each seed and epoch (see
    `seeding`). Sums stay on the device, so that nothing waits for it.
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
        self.streams = list(seeds[:1] if len(set(seeds)) == 1 else seeds)
        """The seeds that draw minibatches and noise: one if all replicas share it, else one a replica."""
        self.generators = [torch.Generator(device) for _ in self.streams]
        self.one_hot = torch.eye(method.network.dims[-1], dtype=train.x.dtype, device=device)
        self.loss = torch.zeros(replicas, device=device)
        """Summed cross-entropy of the minibatches trained on since it was set to zero."""
        self.wrong = torch.zeros(replicas, dtype=torch.int64, device=device)
        """Number of errors in the last `evaluation`."""
        self.finite = torch.ones(replicas, dtype=torch.bool, device=device)
        """Whether all logits of the last `evaluation` were finite."""
        self.train_step: Step = method.train_step if compiled is None else CompiledStep(method, compiled)
        self.graphs = Graphs(self.generators) if graphed else None

    def pretraining(self, completed: int) -> Iterator[None]:
        """Run one epoch of feedback pre-training, after `completed` epochs."""
        for picked in self._minibatches("pretraining order", "pretraining noise", completed):
            self._run(self._pretrain_on, picked)
            yield

    def iterations(self, completed: int) -> Iterator[None]:
        """Train for one epoch, after `completed` epochs (pre-training included), and add to `loss`."""
        if isinstance(self.train_step, CompiledStep):
            self.train_step.restart()
        for picked in self._minibatches("order", "noise", completed):
            self._run(self._train_on, picked)
            yield

    def evaluation(self) -> Iterator[None]:
        """Run through `test` and set `wrong` and `finite`."""
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
        """The indices (streams, n) of an epoch's minibatches. The last one has the samples that are left.

        The order is drawn on the CPU, so that every device sees the same.
        """
        for seed, generator in zip(self.streams, self.generators, strict=True):
            seeding.restart(generator, seed, noise, completed)
        drawn = (seeding.generator(seed, order, completed) for seed in self.streams)
        orders = [torch.randperm(len(self.train), generator=generator) for generator in drawn]
        yield from torch.split(torch.stack(orders).to(self.train.x.device), self.batch_size, dim=1)

    def _pretrain_on(self, picked: Tensor) -> None:
        """One step of feedback pre-training on the samples `picked` (streams, n)."""
        self.method.pretrain_step(self._samples(picked), self._noise)

    def _train_on(self, picked: Tensor) -> None:
        """One iteration on the samples `picked` (streams, n)."""
        y = self._per_replica(self.one_hot[self.train.y[picked]].transpose(1, 2))
        logits = self.train_step(self._samples(picked), y, self._noise)
        self.loss -= (functional.log_softmax(logits, dim=1) * y).sum((1, 2))

    def _evaluate_on(self, picked: Tensor) -> None:
        """Count the errors on the samples `picked` (n,)."""
        logits = self.method.network(self.test.x[picked].T[None])
        self.wrong += (logits.argmax(1) != self.test.y[picked]).sum(1)
        self.finite &= logits.isfinite().flatten(1).all(1)

    def _samples(self, picked: Tensor) -> Tensor:
        """The minibatch (R, in, n) of the samples `picked` (streams, n)."""
        return self._per_replica(self.train.x[picked].transpose(1, 2))

    def _noise(self, like: Tensor) -> Tensor:
        drawn = like.new_empty(len(self.generators), *like.shape[1:])
        for replica, generator in zip(drawn, self.generators, strict=True):
            replica.normal_(generator=generator)
        return self._per_replica(drawn)

    def _per_replica(self, drawn: Tensor) -> Tensor:
        """A view (R, features, n) of what every stream has drawn, (streams, features, n)."""
        return drawn.expand(self.method.network.replicas, -1, -1)


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
