"""The counted multiply-adds are those of the formulas."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.engine.flops import multiply_adds
from benchmark.methods import METHODS, Noise
from benchmark.methods.bp import BP
from benchmark.methods.sizes import weight_count

DEEP, SHALLOW = [11, 8, 7, 6, 5], [11, 8, 5]
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("BP", {"as_released": True}),
    ("FA", {"as_released": True}),
    *((name, {"feedback_updates": n}) for name in ("TP", "DTP", "DRL", "L-DRL") for n in (1, 3)),
    ("DTP", {"batch_norm": True}),
    ("FW-DTP", {"batch_norm": False}),
]


def formula(name: str, dims: Sequence[int], updates: int) -> int:
    """Products of a step: activations, targets or errors, weight gradients, feedback."""
    all_layers, above = weight_count(dims), weight_count(dims[1:])
    step = 2 * all_layers + above
    sweeps = sum(2 * weight_count(dims[l - 1 :]) for l in range(2, len(dims)))
    return {
        "BP": step,
        "FA": step,
        "Shallow": all_layers + weight_count(dims[-2:]),
        "TP": step + 3 * updates * above,
        "DTP": step + (3 * updates + 1) * above,
        "DRL": step + updates * sweeps + (2 * updates + 1) * above,
        "L-DRL": step + (6 * updates + 1) * above,
        "FW-DTP": step + above,
    }[name]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
@pytest.mark.parametrize("dims", [DEEP, SHALLOW], ids=["deep", "one hidden layer"])
def test_counts_are_those_of_the_formulas(name: str, options: dict[str, Any], dims: list[int]) -> None:
    given = {**METHODS[name].options, **options}
    assert multiply_adds(METHODS[name], dims, given) == formula(name, dims, given.get("feedback_updates", 0))


def test_a_rule_that_needs_numbers_cannot_be_counted() -> None:
    class Waiting(BP):
        def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
            logits = super().train_step(x, y, noise)
            return logits * logits.sum().item()

    assert multiply_adds(Waiting, DEEP, Waiting.options) is None
    assert multiply_adds(BP, DEEP, BP.options)


def test_counting_draws_nothing() -> None:
    before = torch.get_rng_state()
    multiply_adds(METHODS["DTP"], [7, 6, 5], METHODS["DTP"].options)
    assert torch.equal(before, torch.get_rng_state())
