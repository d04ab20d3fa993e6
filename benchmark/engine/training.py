"""Epochs, evaluation and the state that a checkpoint needs; knows nothing of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.engine.execution import Compiled, Execution
from benchmark.engine.lanes import EVALUATION_BATCH, Cores, Lane
from benchmark.engine.samples import Split
from benchmark.methods import Method, seeding

SEMANTICS = 1
"""Part of every run's key: raise it when a change to the code changes numbers beyond rounding."""


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
    (see `streams`), so the state between epochs is the weights, what a rule keeps beside them, and a counter.

    All replicas share their matrix products, except where they are compiled for a CPU: there each of
    them trains by itself, on a core of its own, since caches hold one replica and not five, and five do
    not share out evenly between two cores.
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
        self.completed = 0
        """Epochs done, pre-training included."""
        self._execution = execution
        device = train.x.device
        apart = execution is Execution.COMPILED and device.type == "cpu"
        replicas = range(len(seeds))
        parts = [slice(r, r + 1) for r in replicas] if apart else [slice(None)]
        self._cores = Cores(len(parts))
        self._compiled = Compiled(device, self._cores.threads) if execution is Execution.COMPILED else None
        self.lanes = [
            Lane(
                method.part(part) if apart else method,
                seeds[part],
                train,
                test,
                batch_size,
                compiled=self._compiled,
                graphed=execution is Execution.GRAPHED,
            )
            for part in parts
        ]

    @property
    def epoch(self) -> int:
        """Epochs of training proper done; zero or less during pre-training."""
        return self.completed - self.method.pretraining

    @property
    def execution(self) -> Execution:
        """How iterations run: as asked for, unless compiling failed."""
        failed = self._compiled is not None and self._compiled.failed
        return Execution.EAGER if failed else self._execution

    @property
    def loss(self) -> Tensor:
        """Summed cross-entropy (R,) of the minibatches that `iterations` has trained on in this epoch."""
        return torch.cat([lane.loss for lane in self.lanes])

    def run_epoch(self) -> EpochResult | None:
        """Train for one epoch and evaluate; None for an epoch of pre-training."""
        pretraining = self.completed < self.method.pretraining
        with seeding.unused_global_generator(type(self.method).__name__, "`noise`"):
            self._cores.advance(
                [lane.pretraining(self.completed) for lane in self.lanes]
                if pretraining
                else self._iterations()
            )
        for lane in self.lanes:
            lane.method.refuse_hidden_state()
        self.completed += 1
        if pretraining:
            return None
        error, finite = self.evaluate()
        loss = self.loss / len(self.train)
        return EpochResult(
            epoch=self.epoch,
            train_loss=loss.tolist(),
            test_error=error.tolist(),
            diverged=(~(finite & loss.isfinite())).tolist(),
        )

    def iterations(self, at_once: int = 1) -> Iterator[None]:
        """Train through one epoch, so many minibatches of every replica at a time."""
        running = self._iterations()
        while self._cores.advance(running, at_once):
            yield

    def _iterations(self) -> list[Iterator[None]]:
        for lane in self.lanes:
            lane.loss.zero_()
        return [lane.iterations(self.completed) for lane in self.lanes]

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Error on `test` in per cent and whether all logits are finite, both (R,)."""
        self._cores.advance([lane.evaluation() for lane in self.lanes])
        wrong = torch.cat([lane.wrong for lane in self.lanes])
        return 100.0 * wrong.to(torch.float64) / len(self.test), torch.cat([l.finite for l in self.lanes])

    def evaluation_minibatches(self) -> Iterator[Tensor]:
        """The evaluation inputs (1, in, n) in order, in the minibatches that batch norm sees."""
        return (x.T[None] for x in torch.split(self.test.x, EVALUATION_BATCH))

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on bit for bit."""
        return {"completed": self.completed, "network": self.method.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["network"])
        self.completed = state["completed"]
