"""Epochs, evaluation and the state that a checkpoint needs; knows nothing of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmark import streams
from benchmark.compilation import CompiledStep, Step
from benchmark.datasets import Split
from benchmark.methods import Method
from benchmark.network import Network

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
    (see `streams`), so the state between epochs is the weights and a counter.
    """

    def __init__(
        self,
        method: Method,
        seeds: Sequence[int],
        train: Split,
        test: Split,
        *,
        batch_size: int = 256,
        compiled: bool = False,
    ) -> None:
        self.method = method
        self.train_step: Step = CompiledStep(method.train_step) if compiled else method.train_step
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
        self.one_hot = torch.eye(method.network.dims[-1], dtype=train.x.dtype, device=self.device)

    @property
    def epoch(self) -> int:
        """Epochs of training proper done; zero or less during pre-training."""
        return self.completed - self.method.pretraining

    @property
    def compiled(self) -> bool:
        """Whether iterations run compiled: as asked for, unless compiling failed."""
        return isinstance(self.train_step, CompiledStep) and not self.train_step.failed

    def run_epoch(self) -> EpochResult | None:
        """Train for one epoch and evaluate; None for an epoch of pre-training."""
        if self.completed < self.method.pretraining:
            order, noise = self._order("pretraining order"), self._noise("pretraining noise")
            for x, _ in self._minibatches(order):
                self.method.pretrain_step(x, noise)
            self.completed += 1
            return None
        loss = torch.zeros(self.method.network.replicas, device=self.device)
        for minibatch_loss in self.iterations():
            loss += minibatch_loss
        self.completed += 1
        error, finite = evaluate(self.method.network, self.test)
        loss /= len(self.train)
        return EpochResult(
            epoch=self.epoch,
            train_loss=loss.tolist(),
            test_error=error.tolist(),
            diverged=(~(finite & loss.isfinite())).tolist(),
        )

    def iterations(self) -> Iterator[Tensor]:
        """Train through one epoch, minibatch by minibatch; yields each one's summed loss (R,)."""
        order, noise = self._order("order"), self._noise("noise")
        if isinstance(self.train_step, CompiledStep):
            self.train_step.restart()
        for x, y in self._minibatches(order):
            logits = self.train_step(x, y, noise)
            yield -(functional.log_softmax(logits, dim=1) * y).sum((1, 2))

    def _minibatches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (S, in, n) and one-hot classes (R, classes, n), the last one with what is left."""
        for first in range(0, len(self.train), self.batch_size):
            picked = order[:, first : first + self.batch_size]
            classes = self.one_hot[self.train.y[picked]].transpose(1, 2)
            yield self.train.x[picked].transpose(1, 2), self._per_replica(classes)

    def evaluation_minibatches(self) -> Iterator[Tensor]:
        """The evaluation inputs (1, in, n) in order, in the minibatches that batch norm sees."""
        return (x for x, _ in _evaluation_minibatches(self.test))

    def _order(self, purpose: str) -> Tensor:
        """The epoch's sample order (S, samples), drawn on the CPU so that every device sees the same."""
        orders = [
            torch.randperm(len(self.train), generator=streams.generator(seed, purpose, self.completed))
            for seed in self.streams
        ]
        return torch.stack(orders).to(self.device)

    def _noise(self, purpose: str) -> Any:
        generators = [streams.generator(seed, purpose, self.completed, self.device) for seed in self.streams]

        def noise(like: Tensor) -> Tensor:
            drawn = like.new_empty(len(generators), *like.shape[1:])
            for replica, generator in zip(drawn, generators, strict=True):
                replica.normal_(generator=generator)
            return self._per_replica(drawn).mul_(self.method.noise_std)  # type: ignore[attr-defined]

        return noise

    def _per_replica(self, shared: Tensor) -> Tensor:
        """(S, features, n) -> (R, features, n)."""
        group = self.method.network.replicas // len(self.streams)
        return shared if group == 1 else shared.repeat_interleave(group, dim=0)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on bit for bit."""
        return {"completed": self.completed, "network": self.method.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.network.load_state_dict(state["network"])
        self.completed = state["completed"]


def evaluate(network: Network, split: Split) -> tuple[Tensor, Tensor]:
    """Error in per cent and whether all logits are finite, both (R,)."""
    wrong = torch.zeros(network.replicas, dtype=torch.int64, device=split.x.device)
    finite = torch.ones(network.replicas, dtype=torch.bool, device=split.x.device)
    for x, y in _evaluation_minibatches(split):
        logits = network(x)
        wrong += (logits.argmax(1) != y).sum(1)
        finite &= logits.isfinite().flatten(1).all(1)
    return 100.0 * wrong.to(torch.float64) / len(split), finite


def _evaluation_minibatches(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs (1, in, n) and class numbers (n,), samples in order."""
    for first in range(0, len(split), EVALUATION_BATCH):
        window = slice(first, first + EVALUATION_BATCH)
        yield split.x[window].T[None], split.y[window]
