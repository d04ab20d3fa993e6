"""Epochs, evaluation and the state that a checkpoint needs; knows nothing of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmark.engine.execution import Compiled
from benchmark.engine.lanes import EVALUATION_BATCH, Cores, Lane
from benchmark.engine.samples import Split
from benchmark.engine.settings import Execution
from benchmark.methods import Method


@dataclass
class EpochResult:
    """The measurements of one epoch, with one entry for each replica."""

    epoch: int
    train_loss: list[float]
    """Mean cross-entropy over the epoch's minibatches, each before its own update."""
    test_error: list[float]
    """In per cent of the evaluation samples."""
    diverged: list[bool]
    """Whether the loss or a logit is not finite."""


class Training:
    """A method's `R` replicas on one data set, epoch by epoch.

    `seeds` has one entry for each replica. Data order, initial weights and noise are drawn for each seed
    and epoch (see `seeding`). So the state between epochs is weights, the rule's own state, and a counter.

    All replicas share their matrix products, except compiled ones on a CPU: there each replica trains on a
    core of its own. Caches hold one replica and not five, and five replicas keep two cores busy unevenly.
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
        """Epochs done without pre-training: zero or less during pre-training."""
        return self.completed - self.method.pretraining

    @property
    def execution(self) -> Execution:
        """How iterations run. If compiling failed, they run eagerly."""
        failed = self._compiled is not None and self._compiled.failed
        return Execution.EAGER if failed else self._execution

    @property
    def loss(self) -> Tensor:
        """Summed cross-entropy (R,) of this epoch's minibatches so far."""
        return torch.cat([lane.loss for lane in self.lanes])

    def run_epoch(self) -> EpochResult | None:
        """Train for one epoch and evaluate. The result of an epoch of pre-training is None."""
        pretraining = self.completed < self.method.pretraining
        self._cores.advance(
            [lane.pretraining(self.completed) for lane in self.lanes] if pretraining else self._iterations()
        )
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
        """Train for one epoch, `at_once` minibatches of every replica at a time."""
        running = self._iterations()
        while self._cores.advance(running, at_once):
            yield

    def _iterations(self) -> list[Iterator[None]]:
        for lane in self.lanes:
            lane.loss.zero_()
        return [lane.iterations(self.completed) for lane in self.lanes]

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """The error on `test` in per cent, and whether all logits are finite, both (R,)."""
        self._cores.advance([lane.evaluation() for lane in self.lanes])
        wrong = torch.cat([lane.wrong for lane in self.lanes])
        return 100.0 * wrong.to(torch.float64) / len(self.test), torch.cat([l.finite for l in self.lanes])

    def evaluation_minibatches(self) -> Iterator[Tensor]:
        """The evaluation inputs (1, in, n) in order, in the minibatches that batch norm sees."""
        return (x.T[None] for x in torch.split(self.test.x, EVALUATION_BATCH))

    def state_dict(self) -> dict[str, Any]:
        """Everything that another process needs to resume bit for bit."""
        return {"completed": self.completed, "network": self.method.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["network"])
        self.completed = state["completed"]
