"""What a learning rule may not keep, and what it may."""

import copy
import enum
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.common.errors import UserError
from benchmark.engine.execution import Execution
from benchmark.methods import Noise, build
from tests.helpers.rules import DIMS, DirectFeedback, keeping, put, training

LOST = "which a checkpoint would lose; put what changes into its `initial_state` and use self.state"
UNSEEN = "which a checkpoint would lose; allowed: numbers, strings, functions and collections of these"
AT_START = "in its `__init__`, where only weights may change, in place"
IN_PLACE = "change tensors in place (`copy_`, `mul_`)"


ZERO = torch.zeros(1)


def nothing(rule: Any) -> None:
    pass


def with_scale(rule: Any) -> object:
    scale = 0.5
    return lambda u: scale * u


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (lambda _: [torch.zeros(3)], "keeps a tensor in self.mine[0]"),
        (
            lambda rule: torch.optim.Adam(list(rule.network.parameters())),
            "keeps an object (Adam) in self.mine",
        ),
        (lambda _: {"m": np.zeros(3)}, "keeps an object (ndarray) in self.mine['m']"),
        (lambda rule: rule.train_step, "keeps an object (method) in self.mine"),
        (lambda rule: lambda: rule.state, "keeps an object (Keeping) in self.mine(rule)"),
        (lambda rule: rule.network.f(1), "keeps an object (Layer) in self.mine"),
        (lambda _: (n for n in (1, 2)), "keeps an object (generator) in self.mine"),
        (lambda _: [].append, "keeps an object (builtin_function_or_method) in self.mine"),
        (lambda _: lambda m=ZERO: m, "keeps a tensor in self.mine(defaults)[0][0]"),
    ],
)
def test_what_no_checkpoint_would_have_is_refused(kept: Callable[[Any], object], said: str) -> None:
    keep = put("mine", kept)
    with pytest.raises(UserError, match=re.escape(f"Keeping {said}, {UNSEEN}")):
        training([1], rule=keeping(nothing, keep))
    trained = training([1], rule=keeping(keep))
    with pytest.raises(UserError, match=re.escape(f"Keeping {said}, {UNSEEN}")):
        trained.run_epoch()


def replace_weight(rule: Any) -> None:
    layer = rule.network.f(2)
    layer.weight = nn.Parameter(layer.weight.clone(), requires_grad=False)


def replace_data(rule: Any) -> None:
    rule.network.f(2).weight.data = rule.network.f(2).weight * 0.9


def add_buffer(rule: Any) -> None:
    rule.network.f(2).register_buffer("velocity", torch.zeros(1))


def forget(rule: Any) -> None:
    vars(rule).pop("mine", None)


def count(rule: Any) -> None:
    rule.t += 1


def velocity(rule: Any) -> None:
    rule.network.f(2).velocity = torch.zeros(1)


def counting() -> Callable[[], None]:
    def function() -> None:
        pass

    return function


def count_in_function(rule: Any) -> None:
    rule.function.calls = getattr(rule.function, "calls", 0) + 1


CHANGES = [
    (put("t", lambda _: 0), count, f"changes self.t in training, {LOST}"),
    (put("t", lambda _: ()), put("t", lambda _: []), f"changes self.t in training, {LOST}"),
    (nothing, put("t", lambda _: ()), f"keeps something new in self.t in training, {LOST}"),
    (put("t", lambda _: [1]), put("t", lambda rule: [rule.t]), f"changes self.t[0] in training, {LOST}"),
    (
        put("t", lambda _: {"a": 1, "b": 2}),
        put("t", lambda _: {"b": 2, "a": 1}),
        f"changes self.t in training, {LOST}",
    ),
    (
        put("function", lambda _: counting()),
        count_in_function,
        f"keeps something new in self.function.calls in training, {LOST}",
    ),
    (
        nothing,
        lambda rule: setattr(rule.lr, "steps", 1),
        f"changes self.lr (attributes) in training, {LOST}",
    ),
    (nothing, put("t", lambda rule: 1), f"keeps something new in self.t in training, {LOST}"),
    (put("mine", lambda _: 1), forget, f"changes self.mine in training, {LOST}"),
    (
        put("rates", lambda _: [0.1]),
        lambda rule: rule.rates.append(0.2),
        f"changes self.rates in training, {LOST}",
    ),
    (
        put("phi", lambda _: torch.tanh),
        put("phi", lambda _: torch.sin),
        f"changes self.phi in training, {LOST}",
    ),
    (
        nothing,
        velocity,
        f"keeps something new in self.network.f(2).velocity in training, {LOST}",
    ),
    (nothing, add_buffer, f"keeps something new in self.network.f(2).velocity in training, {LOST}"),
    (
        nothing,
        lambda rule: setattr(rule.network.f(2).weight, "velocity", 1),
        f"keeps something new in self.network.f(2).weight.velocity in training, {LOST}",
    ),
    (
        nothing,
        lambda rule: setattr(rule.network, "steps", 1),
        f"keeps something new in self.network.steps in training, {LOST}",
    ),
    (
        nothing,
        lambda rule: setattr(rule.network.f(2), "tanh", False),
        f"changes self.network.f(2).tanh in training, {LOST}",
    ),
    (nothing, replace_weight, f"replaces self.network.f(2).weight; {IN_PLACE}"),
    (nothing, replace_data, f"replaces self.network.f(2).weight; {IN_PLACE}"),
    (nothing, lambda rule: rule.lr.mul_(0.9), f"changes self.lr in training, {LOST}"),
    (nothing, put("lr", lambda rule: rule.lr * 0.9), f"changes self.lr in training, {LOST}"),
    (nothing, put("lr", lambda rule: rule.lr.double()), f"changes self.lr in training, {LOST}"),
    (nothing, put("lr", lambda rule: 0.05), f"changes self.lr in training, {LOST}"),
    (
        nothing,
        put("state", lambda rule: {name: tensor.clone() for name, tensor in rule.state.items()}),
        f"replaces self.state['B1']; {IN_PLACE}",
    ),
    (
        nothing,
        put("network", lambda rule: copy.deepcopy(rule.network)),
        f"changes self.network in training, {LOST}",
    ),
]


@pytest.mark.parametrize(("start", "step", "said"), CHANGES)
def test_what_changes_in_training_belongs_to_the_state(
    start: Callable[[Any], object], step: Callable[[Any], object], said: str
) -> None:
    trained = training([1, 2], rule=keeping(step, start))
    with pytest.raises(UserError, match=re.escape(f"Keeping {said}")):
        trained.run_epoch()


@pytest.mark.parametrize(
    ("start", "step", "said"),
    [change for change in CHANGES if change[1] in (count, velocity, replace_data)],
)
def test_it_does_where_replicas_are_compiled_apart(
    start: Callable[[Any], object], step: Callable[[Any], object], said: str
) -> None:
    trained = training([1, 2], Execution.COMPILED, keeping(step, start))
    with pytest.raises(UserError, match=re.escape(f"Keeping {said}")):
        trained.run_epoch()


def test_what_changes_in_pretraining_does_too() -> None:
    class Before(DirectFeedback):
        name = "Before"
        steps = 0

        @classmethod
        def pretraining_epochs(cls, options: Mapping[str, Any]) -> int:
            return 1

        def pretrain_step(self, x: Tensor, noise: Noise) -> None:
            self.steps += 1

    trained = training([1], rule=Before)
    with pytest.raises(UserError, match=r"Before keeps something new in self\.steps"):
        trained.run_epoch()


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (replace_weight, f"replaces self.network.f(2).weight; {IN_PLACE}"),
        (replace_data, f"replaces self.network.f(2).weight; {IN_PLACE}"),
        (add_buffer, f"keeps something new in self.network.f(2).velocity {AT_START}"),
        (
            lambda rule: setattr(rule.network.f(2), "velocity", torch.zeros(1)),
            f"keeps something new in self.network.f(2).velocity {AT_START}",
        ),
        (
            lambda rule: setattr(rule.network.f(2), "tanh", False),
            f"changes self.network.f(2).tanh {AT_START}",
        ),
        (lambda rule: setattr(rule, "lr", 0.05), f"changes self.lr {AT_START}"),
        (lambda rule: rule.lr.mul_(0.5), f"changes self.lr {AT_START}"),
        (
            lambda rule: rule.network.f(1).weight.mul_(torch.rand(1)),
            "draws from torch's global generator, so that no seed repeats; use `initial_state`",
        ),
    ],
)
def test_nothing_hides_from_the_start(start: Callable[[Any], object], said: str) -> None:
    with pytest.raises(UserError, match=rf"Keeping(\.__init__)? {re.escape(said)}"):
        training([1], rule=keeping(nothing, start))


@pytest.mark.parametrize("execution", [Execution.EAGER, Execution.COMPILED])
def test_a_rule_may_scale_its_initial_weights(execution: Execution) -> None:
    """Once, however many parts it trains in."""

    def scale(rule: Any) -> None:
        rule.network.f(1).weight.mul_(2)

    plain, scaled = training([1, 2]), training([1, 2], execution, keeping(nothing, scale))
    assert torch.equal(scaled.method.network.f(1).weight, 2 * plain.method.network.f(1).weight)
    scaled.run_epoch()


def test_what_it_derives_from_hyperparameters_is_each_replicas_own() -> None:
    class Fast(DirectFeedback):
        name = "Fast"

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.fast = [rate > 0.1 for rate in self.lr.flatten().tolist()]

    rates = {"lr": [0.01, 0.4], "momentum": 0.9}
    method = build(Fast, DIMS, [1, 2], rates)
    assert [method.part(slice(r, r + 1)).fast for r in (0, 1)] == [[False], [True]]


def entwined(rule: Any) -> object:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    return even


class Mode(enum.Enum):
    ON = "on"


@pytest.mark.parametrize("execution", [Execution.EAGER, Execution.COMPILED])
def test_constants_of_a_rule_are_its_own_business(execution: Execution) -> None:
    def keep(rule: Any) -> None:
        rule.activations, rule.widths, rule.scale = {"hidden": torch.tanh}, [8, 7], 0.5
        rule.lost, rule.kind, rule.place = float("nan"), torch.float32, torch.device("cpu")
        rule.layers, rule.names, rule.mode = range(3), {"a", "b"}, Mode.ON
        rule.parity, rule.steep = entwined(rule), partial(torch.mul, 2)
        rule.rate, rule.method, rule.scaled = np.float64(0.1), Tensor.tanh, with_scale(rule)

    training([1, 2], execution, keeping(nothing, keep)).run_epoch()
