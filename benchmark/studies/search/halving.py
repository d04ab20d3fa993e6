"""Successive halving: configurations train side by side, and the best of them continue.

Optuna's pruners do not serve: they stop one asynchronous trial at a time; here a wave is thinned out at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from benchmark.common.errors import UserError
from benchmark.config import SearchSpace
from benchmark.engine.execution import computing
from benchmark.engine.memory import keep_freed_memory, replicas_per_pass
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import Compile
from benchmark.engine.training import Training
from benchmark.methods import METHODS
from benchmark.store.record import key_of
from benchmark.store.store import Store
from benchmark.sweep.execute import Progress
from benchmark.sweep.run import Run

Configuration = Mapping[str, Any]

DIVERGED = 100.0
"""The error, in %, of a configuration whose numbers are no longer finite: it answers nothing."""
CHECKPOINT_SECONDS = 300.0
"""A checkpoint younger than this is not replaced; the networks of a wave can be hundreds of megabytes."""


@dataclass
class _Reached:
    """How far a wave has come."""

    fitting: int
    """Replicas side by side."""
    errors: dict[int, dict[int, float]] = field(default_factory=dict)
    """In %, by rung and configuration."""
    networks: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    """Weights at the last rung, by configuration; on the CPU, as a checkpoint's are."""
    under_way: dict[str, Any] | None = None
    """The training from a rung to the next, its errors epoch by epoch, and who has diverged."""
    saved: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        names = "fitting", "errors", "networks", "under_way"
        return {name: getattr(self, name) for name in names}


@dataclass
class Wave:
    """Configurations of a run's row, thinned out as they train; all with the run's first seed.

    Goes on from its checkpoint in the store, bit for bit, until it is forgotten.
    """

    run: Run
    space: SearchSpace
    configurations: Sequence[Configuration]
    data: Dataset
    """Errors are of its test samples."""
    device: torch.device
    store: Store

    @property
    def key(self) -> str:
        """Hash of everything that decides the result."""
        own = {
            "hyperparameters": [dict(configuration) for configuration in self.configurations],
            "epochs": self.space.rungs,
            "reduction": self.space.reduction,
            "data": [self.data.checksum, len(self.data.train), len(self.data.test)],
        }
        return key_of({**self.run.unmeasured.spec, **own})

    def forget(self) -> None:
        """Remove the checkpoint."""
        self.store.discard(self.key)

    def rungs(self, progress: Progress) -> Iterator[tuple[int, dict[int, float]]]:
        """After each rung its epoch and the error in % of every configuration still there, averaged over the
        last epochs (`SearchSpace.judged`); for rungs of the checkpoint at once.

        The best 1 / `reduction`, at least one, go on to the next rung from where they are. `progress` hears
        of those that train side by side, and of the epochs done as a mean over all.
        """
        keep_freed_memory()
        with self.store.claim(self.key, f"a search for {self.run.row} on {self.run.column}"):
            reached = self._reached()
            alive, before = list(range(len(self.configurations))), 0
            for rung in self.space.rungs:
                errors = reached.errors.setdefault(rung, {})
                parts = [alive[i : i + reached.fitting] for i in range(0, len(alive), reached.fitting)]
                for number, side_by_side in enumerate(parts):
                    if side_by_side[0] in errors:
                        continue
                    heard = self._overall(progress, before, rung, number, len(parts))
                    late = self._train(side_by_side, before, rung, reached, heard)
                    errors |= dict(zip(side_by_side, late, strict=True))
                yield rung, errors
                before = rung
                count = -(-len(alive) // self.space.reduction)
                alive = sorted(sorted(alive, key=errors.__getitem__)[:count])
                reached.networks = {i: reached.networks[i] for i in alive if i in reached.networks}

    def _overall(self, progress: Progress, before: int, rung: int, part: int, parts: int) -> Progress:
        """Of the epochs that one of several parts has done between two rungs, the mean over the parts."""
        pretraining = self.run.total_epochs - self.run.epochs
        start = pretraining + before if before else 0
        span = pretraining + rung - start
        return lambda done, result: progress(start + (part * span + done - start) // parts, result)

    def _reached(self) -> _Reached:
        """From the checkpoint, or nothing yet."""
        begun = self.store.checkpoint(self.key)
        if begun is not None:
            try:
                return _Reached(**begun)
            except TypeError:
                where = self.store.partial(self.key)
                raise UserError(f"{where}: not the checkpoint of a search; delete it to train anew") from None
        run = self.run
        return _Reached(replicas_per_pass(METHODS[run.method], run.dims, run.batch_size, self.device))

    def _train(
        self, side_by_side: Sequence[int], before: int, rung: int, reached: _Reached, progress: Progress
    ) -> list[float]:
        """Train configurations from one rung to the next; returns their errors and keeps their networks.

        Of one whose numbers are no longer finite it is `DIVERGED`.
        """
        training = self._training(side_by_side, rung - before)
        by_epoch: list[list[float]] = []
        diverged = [False] * len(side_by_side)
        if reached.under_way is not None:
            training.load_state_dict(reached.under_way["training"])
            by_epoch = reached.under_way["errors"]
            diverged = reached.under_way["diverged"]
        elif before:
            network = _stacked([reached.networks[i] for i in side_by_side])
            training.load_state_dict({"completed": training.method.pretraining + before, "network": network})
        progress(training.completed, None)
        with computing(self.run.precision, self.device):
            while training.epoch < rung:
                result = training.run_epoch()
                if result is not None:
                    by_epoch.append(result.test_error)
                    diverged = result.diverged
                if time.monotonic() - reached.saved >= CHECKPOINT_SECONDS:
                    state = training.state_dict()
                    reached.under_way = {"training": state, "errors": by_epoch, "diverged": diverged}
                    self.store.save_checkpoint(self.key, reached.state)
                    reached.saved = time.monotonic()
                progress(training.completed, result)
        reached.under_way = None
        weights = training.state_dict()["network"]
        for replica, i in enumerate(side_by_side):
            reached.networks[i] = {name: weight[replica].cpu().clone() for name, weight in weights.items()}
        # Of one epoch alone a low error may be luck: some configurations go up and down by points.
        late: list[float] = np.mean(by_epoch[-self.space.judged(rung) :], 0).tolist()
        return [DIVERGED if lost else error for lost, error in zip(diverged, late, strict=True)]

    def _training(self, side_by_side: Sequence[int], epochs: int) -> Training:
        """Of configurations, for so many epochs."""
        configurations = [self.configurations[i] for i in side_by_side]
        run = replace(
            self.run,
            hyperparameters={name: [c[name] for c in configurations] for name in self.space.names},
            seeds=self.run.seeds[:1] * len(configurations),
            epochs=epochs,
        )
        train, test = self.data.train, self.data.test
        how = run.execution(Compile.AUTO, len(train), self.device)
        return Training(
            run.build(self.device), run.seeds, train, test, batch_size=run.batch_size, execution=how
        )


def _stacked(networks: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The weights of replicas trained side by side, from those of each."""
    return {name: torch.stack([network[name] for network in networks]) for name in networks[0]}
