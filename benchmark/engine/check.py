"""Check what a learning rule must keep to, as scikit-learn's `check_estimator` does for estimators."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.engine.build import build
from benchmark.engine.samples import Split
from benchmark.engine.settings import Execution
from benchmark.engine.training import Training
from benchmark.methods import Method, seeding

DIMS = (10, 8, 7, 4)
SAMPLES, BATCH = 75, 32
SEEDS = (1, 2, 3)
RATES = {"lr": (0.1, 0.3, 0.2), "stepsize": (0.04, 0.02, 0.08)}
OTHERS = (0.05, 0.1, 0.02)
"""The values of other hyperparameters, one for each replica."""
NO_GPU = "no CUDA device"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check: a problem, the reason to skip it, or neither if it passed."""

    check: str
    problem: str = ""
    skipped: str = ""


def check_method(method: type[Method], **options: Any) -> None:
    """Raise `AssertionError` with one line for each problem of a rule, trained with these options."""
    found = [f"{method.__name__}: {one.problem}" for one in outcomes(method, options) if one.problem]
    if found:
        raise AssertionError("\n".join(found))


def outcomes(method: type[Method], options: Mapping[str, Any] | None = None) -> Iterator[Outcome]:
    """Run all checks. After a problem with shapes no other check can run."""
    rule = _Rule(method, options or {})
    for name, check in _CHECKS.items():
        if check is _graphed and not torch.cuda.is_available():
            yield Outcome(name, skipped=NO_GPU)
            continue
        try:
            problem = check(rule)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            problem = f"{name}: {type(error).__name__}: {reason}"
        yield Outcome(name, problem or "")
        if problem and check is _shapes:
            return


class _Rule:
    """A rule with its options, and how the checks train it: on 75 random samples, two epochs."""

    def __init__(self, method: type[Method], options: Mapping[str, Any]) -> None:
        self.method = method
        self.options = {**method.options, **options}
        self.epochs = method.pretraining_epochs(self.options) + 2

    def training(
        self,
        seeds: Sequence[int] = SEEDS,
        replicas: Sequence[int] = (0, 1, 2),
        dtype: torch.dtype = torch.float32,
        execution: Execution = Execution.EAGER,
        device: str = "cpu",
    ) -> Training:
        """A training of these seeds with the hyperparameters of these replicas."""
        draw = torch.Generator().manual_seed(1)
        x, y = torch.randn(SAMPLES, DIMS[0], generator=draw), torch.arange(SAMPLES) % DIMS[-1]
        data = Split(x.to(device, dtype), y.to(device))
        rates = {n: [RATES.get(n, OTHERS)[r] for r in replicas] for n in self.method.hyperparameters}
        rule = build(self.method, DIMS, seeds, rates, self.options, device=device, dtype=dtype)
        return Training(rule, seeds, data, data, batch_size=BATCH, execution=execution)

    def trained(self, *given: Any, **more: Any) -> dict[str, Tensor]:
        """Weights and state after all epochs."""
        return self.run(self.training(*given, **more))

    def run(self, training: Training) -> dict[str, Tensor]:
        while training.completed < self.epochs:
            training.run_epoch()
        return {name: tensor.clone() for name, tensor in training.method.state_dict().items()}


def _shapes(rule: _Rule) -> str | None:
    """`initial_state` gives tensors of two dimensions or more; `train_step` returns the logits."""
    method = rule.method
    state = method.initial_state(DIMS, rule.options, seeding.generator(1, "state"))
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        return f"initial_state returns {type(state).__name__}; return a dictionary of tensors"
    for name, tensor in state.items():
        if tensor.dim() < 2:
            return (
                f"initial_state: {name!r} has the shape {[*tensor.shape]}; give it two dimensions or more, "
                "[1, 1] for a number, [units, 1] for one a unit"
            )
    x, y = torch.randn(3, DIMS[0], 5), torch.eye(DIMS[-1])[:, [0, 1, 2, 3, 0]].expand(3, -1, -1)
    logits: Any = rule.training().method.train_step(x, y, torch.randn_like)
    if not isinstance(logits, Tensor):
        return f"train_step returns {type(logits).__name__}; return the logits, (R, classes, n)"
    if logits.shape != y.shape:
        return f"train_step returns the shape {[*logits.shape]}; return the logits, {[*y.shape]} here"
    return None


def _global_generator(rule: _Rule) -> str | None:
    """No draw from the generators of torch, numpy or Python."""
    torch.manual_seed(1)
    before = _global_state()
    rule.trained()
    for name, state in _global_state().items():
        if state != before[name]:
            return (
                f"draws from {name}'s global generator, which no seed sets; use `noise(h)` in a step and "
                "`draw` in `initial_state`"
            )
    return None


def _global_state() -> dict[str, Any]:
    numpy = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy],
        "Python": random.getstate(),
    }


def _same_seed(rule: _Rule) -> str | None:
    """The same seed gives the same numbers."""
    if not _equal(rule.trained(), rule.trained()):
        return (
            "the same seed gives other numbers the second time; draw from `noise` and `draw` alone, and let "
            "nothing outside of `self.state` change"
        )
    return None


def _alone(rule: _Rule) -> str | None:
    """A replica trains alone as it does among others, with minibatches of its own or shared ones."""
    for seeds in (SEEDS, (2, 2, 2)):
        together = rule.trained(seeds, dtype=torch.float64)
        alone = rule.trained(seeds[1:2], [1], dtype=torch.float64)
        for name, tensor in alone.items():
            if not torch.allclose(together[name][1], tensor[0], rtol=0, atol=1e-9, equal_nan=True):
                return (
                    f"`{name}` of a replica is another one among others than alone; the first dimension is "
                    "the replicas': no sum, mean or norm may run over it"
                )
    return None


def _resumed(rule: _Rule) -> str | None:
    """A run that is stopped after any epoch and resumed ends with the same bits."""
    through = rule.trained()
    for stop in range(1, rule.epochs):
        first, second = rule.training(), rule.training()
        while first.completed < stop:
            first.run_epoch()
        second.load_state_dict(first.state_dict())
        if not _equal(rule.run(second), through):
            return (
                f"resumed after epoch {stop}, training ends with other numbers; what changes in steps "
                "must be in `self.state` (see `initial_state`), changed in place"
            )
    return None


def _neighbour(rule: _Rule) -> str | None:
    """A replica that is not finite leaves the others as they are."""
    healthy, poisoned = rule.training(), rule.training()
    poisoned.method.network.f(1).weight.data[1] = torch.nan
    expected, found = rule.run(healthy), rule.run(poisoned)
    if not _equal(*({n: t[[0, 2]] for n, t in state.items()} for state in (expected, found))):
        return (
            "a replica whose weights are not finite changes the others; no number may depend on all, "
            "such as a test for finite values"
        )
    return None


def _graphed(rule: _Rule) -> str | None:
    """As a CUDA graph a step computes what it computes eagerly."""
    eager, graphed = (
        rule.trained(execution=how, device="cuda") for how in (Execution.EAGER, Execution.GRAPHED)
    )
    for name, tensor in eager.items():
        if not torch.allclose(graphed[name], tensor, rtol=0, atol=1e-4, equal_nan=True):
            return (
                f"`{name}` is another one as a CUDA graph; a step may depend on tensors alone, which are "
                "changed in place"
            )
    return None


def _equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor.nan_to_num(), theirs[name].nan_to_num()) for name, tensor in ours.items())


_CHECKS: dict[str, Callable[[_Rule], str | None]] = {
    "shapes": _shapes,
    "global generators untouched": _global_generator,
    "same seed, same numbers": _same_seed,
    "alone or among others": _alone,
    "stopped and resumed": _resumed,
    "a diverging neighbour": _neighbour,
    "as a CUDA graph": _graphed,
}
