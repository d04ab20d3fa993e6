"""The checker finds nothing wrong with the shipped rules, and what is wrong with wrong ones."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import benchmark
from benchmark.engine.check import outcomes
from benchmark.methods import METHODS, Method, Noise
from benchmark.methods.bp import BP
from tests.helpers.rules import DirectFeedback

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("BP", {"as_released": True}),
    ("DTP", {"batch_norm": True}),
    ("DRL", {"as_released": False}),
    ("FW-DTP", {"batch_norm": False}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_the_rules_keep_to_the_contract(name: str, options: dict[str, Any]) -> None:
    benchmark.check_method(METHODS[name], **options)


def test_a_rule_with_a_state_keeps_to_it() -> None:
    benchmark.check_method(DirectFeedback)


class HiddenState(BP):
    """Its rate falls, and no checkpoint knows how far."""

    steps = 0

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        self.steps += 1
        self.lr = self.lr * 0.9
        return super().train_step(x, y, noise)


class ReplacedWeight(BP):
    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        logits = super().train_step(x, y, noise)
        type(self).kept += 1
        self.network.f(1).weight.mul_(1 - 0.01 * type(self).kept)
        return logits

    kept: ClassVar[int] = 0


class GlobalTorch(BP):
    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        return super().train_step(x + 0.01 * torch.randn_like(x), y, noise)


class GlobalNumpy(BP):
    @classmethod
    def initial_state(
        cls, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
    ) -> dict[str, Tensor]:
        return {"B": torch.from_numpy(np.random.normal(size=(dims[1], 2)))}


class MixedReplicas(BP):
    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        logits = super().train_step(x, y, noise)
        weight = self.network.f(1).weight
        weight.sub_(0.1 * weight.mean())
        return logits


class StopsForAll(BP):
    """No replica learns in a step in which one is not finite."""

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        logits = self.network.pass_forward(x)[self.network.depth]
        return super().train_step(x, y, noise) if logits.isfinite().all() else logits


class WrongShape(BP):
    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        return super().train_step(x, y, noise).transpose(1, 2)


class NoLogits(BP):
    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        super().train_step(x, y, noise)
        return None  # type: ignore[return-value]


class FlatState(BP):
    @classmethod
    def initial_state(
        cls, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
    ) -> dict[str, Tensor]:
        return {"steps": torch.zeros(1)}


class Raises(BP):
    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        return x[:, :, 100]


@pytest.mark.parametrize(
    ("rule", "check", "problem"),
    [
        (HiddenState, "stopped and resumed", "resumed after epoch 1, .* must be in `self.state`"),
        (ReplacedWeight, "same seed, same numbers", "the same seed gives other numbers"),
        (GlobalTorch, "global generators untouched", "draws from torch's global generator, .* use `noise"),
        (GlobalNumpy, "global generators untouched", "draws from numpy's global generator"),
        (MixedReplicas, "alone or among others", "among others than alone; .* no sum, mean or norm"),
        (StopsForAll, "a diverging neighbour", "weights are not finite changes the others"),
        (WrongShape, "shapes", r"train_step returns the shape \[3, 5, 4\]; return the logits, \[3, 4, 5\]"),
        (NoLogits, "shapes", "train_step returns NoneType; return the logits"),
        (FlatState, "shapes", r"initial_state: 'steps' has the shape \[1\]; give it two dimensions"),
        (Raises, "shapes", "IndexError: index 100 is out of bounds"),
    ],
)
def test_a_wrong_rule_is_told_what_to_change(rule: type[Method], check: str, problem: str) -> None:
    found = {outcome.check: outcome.problem for outcome in outcomes(rule)}
    with pytest.raises(AssertionError, match=rf"{rule.__name__}: .*{problem}"):
        benchmark.check_method(rule)
    assert found[check]
    assert "\n" not in found[check]
