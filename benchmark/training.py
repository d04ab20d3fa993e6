"""Epochs, evaluation and the state that a checkpoint needs; knows nothing of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmark import streams
from benchmark.compilation import CompiledStep, Execution, Step
from benchmark.datasets import Split
from benchmark.graphs import Graphs
from benchmark.methods import Method

SEMANTICS = 1
"""Part of every run's key: raise it when a change to the code changes numbers beyond rounding."""

EVALUATION_BATCH = 256
"""Batch norm at evaluation uses the statistics of such a minibatch, samples in order."""


@dataclass
class EpochResult:
    """What one epoch measured, one entry a replica."""

    epoch: int
    train_loss: list[float]
    """Mean cross-entropy over the epoch's minibatches, each before its own update."""
    test_error: list[float]
    """Per cent of the evaluation samples."""
    diverged: list[bool]
    """Whether loss or logits are no longer finite."""


class Training:
    """A method's `R` replicas on one data set, epoch by epoch.

    `seeds` has one entry a replica. Data order, initial weights and noise are drawn per seed and epoch
    (see `streams`), so the state between epochs is the weights and a counter. Within an epoch nothing
    waits for the device: what it measures is summed up there.
    """

    def __init__(
        self,
        method: Method,
        seeds: Sequence[int],
        train: Split,
        test: Split,
        *,
        batch_size: int = 256,
        execution: Execution = Execution.EAGER,
    ) -> None:
        self.method = method
        self.train = train
        self.test = test
        self.batch_size = batch_size
        self.device = train.x.device
        self.completed = 0
        """Epochs done, pre-training included."""
        replicas = len(seeds)
        shared = list(dict.fromkeys(seeds))
        group = replicas // len(shared)
        grouped = [seed for seed in shared for _ in range(group)] == list(seeds)
        # One minibatch a seed where replicas come in equal groups of a seed, else one a replica.
        self.streams = shared if grouped else list(seeds)
        self.generators = [torch.Generator(self.device) for _ in self.streams]
        self.one_hot = torch.eye(method.network.dims[-1], dtype=train.x.dtype, device=self.device)
        self.loss = torch.zeros(replicas, device=self.device)
        """Summed cross-entropy of the minibatches that `iterations` trained on."""
        self._wrong = torch.zeros(replicas, dtype=torch.int64, device=self.device)
        self._finite = torch.ones(replicas, dtype=torch.bool, device=self.device)

        self._execution = execution
        compiled = execution is Execution.COMPILED
        self.train_step: Step = CompiledStep(method.train_step) if compiled else method.train_step
        self._graphs = Graphs(self.generators) if execution is Execution.GRAPHED else None

    @property
    def epoch(self) -> int:
        """Epochs of training proper done; zero or less during pre-training."""
        return self.completed - self.method.pretraining

    @property
    def execution(self) -> Execution:
        """How iterations run: as asked for, unless compiling failed."""
        failed = isinstance(self.train_step, CompiledStep) and self.train_step.failed
        return Execution.EAGER if failed else self._execution

    def run_epoch(self) -> EpochResult | None:
        """Train for one epoch and evaluate; None for an epoch of pre-training."""
        if self.completed < self.method.pretraining:
            for picked in self._minibatches("pretraining order", "pretraining noise"):
                self._run(self._pretrain_on, picked)
            self.completed += 1
            return None
        self.loss.zero_()
        for _ in self.iterations():
            pass
        self.completed += 1
        error, finite = self.evaluate()
        loss = self.loss / len(self.train)
        return EpochResult(
            epoch=self.epoch,
            train_loss=loss.tolist(),
            test_error=error.tolist(),
            diverged=(~(finite & loss.isfinite())).tolist(),
        )

    def iterations(self) -> Iterator[None]:
        """Train through one epoch, minibatch by minibatch, adding up `loss`."""
        if isinstance(self.train_step, CompiledStep):
            self.train_step.restart()
        for picked in self._minibatches("order", "noise"):
            self._run(self._train_on, picked)
            yield

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Error on `test` in per cent and whether all logits are finite, both (R,)."""
        self._wrong.zero_()
        self._finite.fill_(True)
        for picked in torch.split(torch.arange(len(self.test), device=self.device), EVALUATION_BATCH):
            self._run(self._evaluate_on, picked)
        return 100.0 * self._wrong.to(torch.float64) / len(self.test), self._finite.clone()

    def _run(self, work: Callable[[Tensor], None], picked: Tensor) -> None:
        if self._graphs is None:
            work(picked)
        else:
            self._graphs(work, picked)

    def _minibatches(self, order: str, noise: str) -> Iterator[Tensor]:
        """The indices (S, n) of an epoch's minibatches, the last one with what is left.

        The order is drawn on the CPU, so that every device sees the same.
        """
        for seed, generator in zip(self.streams, self.generators, strict=True):
            streams.restart(generator, seed, noise, self.completed)
        drawn = (streams.generator(seed, order, self.completed) for seed in self.streams)
        orders = [torch.randperm(len(self.train), generator=generator) for generator in drawn]
        yield from torch.split(torch.stack(orders).to(self.device), self.batch_size, dim=1)

    def _pretrain_on(self, picked: Tensor) -> None:
        """One step of feedback pre-training on the samples `picked` (S, n)."""
        self.method.pretrain_step(self.train.x[picked].transpose(1, 2), self._noise)

    def _train_on(self, picked: Tensor) -> None:
        """One iteration on the samples `picked` (S, n)."""
        x = self.train.x[picked].transpose(1, 2)
        y = self._per_replica(self.one_hot[self.train.y[picked]].transpose(1, 2))
        logits = self.train_step(x, y, self._noise)
        self.loss -= (functional.log_softmax(logits, dim=1) * y).sum((1, 2))

    def _evaluate_on(self, picked: Tensor) -> None:
        """Count the errors on the samples `picked` (n,)."""
        logits = self.method.network(self.test.x[picked].T[None])
        self._wrong += (logits.argmax(1) != self.test.y[picked]).sum(1)
        self._finite &= logits.isfinite().flatten(1).all(1)

    def _noise(self, like: Tensor) -> Tensor:
        drawn = like.new_empty(len(self.generators), *like.shape[1:])
        for replica, generator in zip(drawn, self.generators, strict=True):
            replica.normal_(generator=generator)
        return self._per_replica(drawn).mul_(self.method.noise_std)  # type: ignore[attr-defined]

    def _per_replica(self, shared: Tensor) -> Tensor:
        """(S, features, n) -> (R, features, n)."""
        group = self.method.network.replicas // len(self.streams)
        return shared if group == 1 else shared.repeat_interleave(group, dim=0)

    def evaluation_minibatches(self) -> Iterator[Tensor]:
        """The evaluation inputs (1, in, n) in order, in the minibatches that batch norm sees."""
        return (x.T[None] for x in torch.split(self.test.x, EVALUATION_BATCH))

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on bit for bit."""
        return {"completed": self.completed, "network": self.method.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.network.load_state_dict(state["network"])
        self.completed = state["completed"]
