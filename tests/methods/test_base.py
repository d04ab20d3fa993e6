"""What a rule keeps beside the weights: its own for every replica, and in every checkpoint."""

import copy
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark import memory
from benchmark.compilation import Execution
from benchmark.errors import UserError
from benchmark.jacobian import conditions
from benchmark.methods import METHODS, Method, Noise, build
from benchmark.methods.base import cross_entropy_gradient
from benchmark.samples import Split
from benchmark.training import Training

DIMS = [10, 8, 7, 4]


class DirectFeedback(Method):
    """Direct feedback alignment (Nokland 2016) with momentum: something drawn and something that changes."""

    name = "DFA with momentum"
    hyperparameters = ("lr", "momentum")

    lr: Tensor
    momentum: Tensor

    @classmethod
    def initial_state(
        cls, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
    ) -> dict[str, Tensor]:
        hidden = range(1, len(dims) - 1)
        feedback = {f"B{l}": torch.randn(dims[l], dims[-1], generator=draw) for l in hidden}
        return feedback | {f"velocity{l}": torch.zeros(dims[l], dims[l - 1]) for l in range(1, len(dims))}

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        h = self.network.pass_forward(x)
        depth = self.network.depth
        error = cross_entropy_gradient(h[depth], y)
        for l in range(1, depth + 1):
            f = self.network.f(l)
            delta = f.backward(h.trace(l), error if l == depth else self.state[f"B{l}"] @ error)
            velocity = self.state[f"velocity{l}"]
            velocity.mul_(self.momentum).add_(delta @ h[l - 1].transpose(1, 2) / x.shape[-1])
            f.weight.sub_(self.lr * velocity)
        return h[depth]


def training(
    seeds: list[int],
    execution: Execution = Execution.EAGER,
    rule: type[Method] = DirectFeedback,
    dtype: torch.dtype = torch.float32,
) -> Training:
    device = torch.device("cuda" if execution is Execution.GRAPHED else "cpu")
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(96, DIMS[0], generator=draw), torch.randint(DIMS[-1], (96,), generator=draw)
    data = Split(x.to(device, dtype), y.to(device))
    values = {"lr": 0.05, "momentum": 0.9, "stepsize": 0.04}
    rates = {name: values[name] for name in rule.hyperparameters}
    method = build(rule, DIMS, seeds, rates, device=device, dtype=dtype)
    return Training(method, seeds, data, data, batch_size=32, execution=execution)


executed = pytest.mark.parametrize(
    "execution",
    [
        Execution.EAGER,
        Execution.COMPILED,
        pytest.param(
            Execution.GRAPHED,
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ),
    ],
)


def test_every_seed_draws_its_own_and_the_same_again() -> None:
    first, again = (training([1, 2, 1]).method.state for _ in range(2))
    assert {name: tuple(tensor.shape) for name, tensor in first.items()} == {
        "B1": (3, 8, 4), "B2": (3, 7, 4),
        "velocity1": (3, 8, 10), "velocity2": (3, 7, 8), "velocity3": (3, 4, 7),
    }  # fmt: skip
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(first["B1"][0], first["B1"][2])
    assert not torch.equal(first["B1"][0], first["B1"][1])


@executed
def test_a_replica_has_a_state_of_its_own(execution: Execution) -> None:
    """Compiled, replicas train apart, each on its part of the state; graphs record its addresses."""
    together, alone = training([1, 2], execution), training([2], execution)
    for trained in (together, alone):
        for _ in range(2):
            trained.run_epoch()
        assert trained.execution is execution
    for name, tensor in alone.method.state_dict().items():
        torch.testing.assert_close(together.method.state_dict()[name][1], tensor[0], rtol=0, atol=1e-5)
    assert together.method.state["velocity1"].abs().amin((1, 2)).gt(0).all()


@executed
def test_a_checkpoint_has_it(execution: Execution) -> None:
    through = training([1, 2], execution)
    expected = [through.run_epoch() for _ in range(4)]
    first = training([1, 2], execution)
    results = [first.run_epoch() for _ in range(2)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = training([1, 2], execution)
    second.load_state_dict(torch.load(file, weights_only=True))
    results += [second.run_epoch() for _ in range(2)]
    assert results == expected
    for name, tensor in through.method.state_dict().items():
        assert torch.equal(second.method.state_dict()[name], tensor)


def test_state_is_changed_in_place() -> None:
    """What is put in its place would reach neither a checkpoint of replicas apart nor a CUDA graph."""
    with pytest.raises(TypeError, match="does not support item assignment"):
        training([1]).method.state["B1"] = torch.zeros(1)  # type: ignore[index]


def keeping(
    step: Callable[[Any], object], start: Callable[[Any], object] = lambda rule: None
) -> type[Method]:
    """A rule that does something of its own at the start and in every step."""

    class Keeping(DirectFeedback):
        name = "Keeping"

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            start(self)

        def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
            logits = super().train_step(x, y, noise)
            step(self)
            return logits

    return Keeping


def put(name: str, value: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda rule: setattr(rule, name, value(rule))


LOST = "which a checkpoint would lose; put what changes into its `initial_state` and use self.state"


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (lambda _: [torch.zeros(3)], "keeps tensors in self.mine"),
        (
            lambda rule: torch.optim.Adam(list(rule.network.parameters())),
            "keeps an object (Adam) in self.mine",
        ),
        (lambda _: np.zeros(3), "keeps an object (ndarray) in self.mine"),
        (lambda _: {1, 2}, "keeps an object (set) in self.mine"),
    ],
)
def test_what_no_checkpoint_would_have_is_refused(kept: Callable[[Any], object], said: str) -> None:
    keep = put("mine", kept)
    with pytest.raises(UserError, match=re.escape(f"Keeping {said}, {LOST}")):
        training([1], rule=keeping(lambda _: None, keep))
    trained = training([1], rule=keeping(keep))
    with pytest.raises(UserError, match=re.escape(f"Keeping {said}, {LOST}")):
        trained.run_epoch()


@pytest.mark.parametrize("execution", [Execution.EAGER, Execution.COMPILED])
@pytest.mark.parametrize(
    ("start", "step", "said"),
    [
        (put("t", lambda _: 0), put("t", lambda rule: rule.t + 1), f"changes self.t in training, {LOST}"),
        (
            put("rates", lambda _: [0.1]),
            lambda rule: rule.rates.append(0.2),
            f"changes self.rates in training, {LOST}",
        ),
        (
            lambda _: None,
            lambda rule: setattr(rule.network.f(2), "velocity", torch.zeros(1)),
            f"keeps something in self.network._encoders.1.velocity, {LOST}",
        ),
        (
            lambda _: None,
            lambda rule: setattr(rule.network, "steps", 1),
            f"keeps something in self.network.steps, {LOST}",
        ),
        (
            lambda _: None,
            lambda rule: rule.lr.mul_(0.9),
            f"changes the hyperparameter self.lr in training, {LOST}",
        ),
        (
            lambda _: None,
            put("lr", lambda rule: rule.lr * 0.9),
            f"changes the hyperparameter self.lr in training, {LOST}",
        ),
        (
            lambda _: None,
            put("state", lambda rule: {name: tensor.clone() for name, tensor in rule.state.items()}),
            "replaces self.state in training; change its tensors in place (`copy_`, `mul_`)",
        ),
        (
            lambda _: None,
            put("network", lambda rule: copy.deepcopy(rule.network)),
            "replaces self.network in training; change its tensors in place (`copy_`, `mul_`)",
        ),
    ],
)
def test_what_changes_in_training_belongs_to_the_state(
    start: Callable[[Any], object], step: Callable[[Any], object], said: str, execution: Execution
) -> None:
    if execution is Execution.COMPILED and "self.network" in said:
        pytest.skip("torch.compile copies no modules")
    trained = training([1, 2], execution, keeping(step, start))
    with pytest.raises(UserError, match=re.escape(f"Keeping {said}")):
        trained.run_epoch()


def test_constants_of_a_rule_are_its_own_business() -> None:
    def keep(rule: Any) -> None:
        rule.activations, rule.widths, rule.scale = {"hidden": torch.tanh}, [8, 7], 0.5

    training([1, 2], rule=keeping(lambda _: None, keep)).run_epoch()


def test_randomness_that_knows_of_no_seed_is_refused() -> None:
    class Forgetful(DirectFeedback):
        name = "Forgetful"

        @classmethod
        def initial_state(
            cls, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
        ) -> dict[str, Tensor]:
            return {"B": torch.randn(dims[1], dims[-1])}

    said = "draws from torch's global generator, so that no seed repeats; use"
    with pytest.raises(UserError, match=f"Forgetful.initial_state {said} `draw`"):
        training([1], rule=Forgetful)
    trained = training([1], rule=keeping(lambda _: torch.rand(1)))
    with pytest.raises(UserError, match=f"Keeping {said} `noise`"):
        trained.run_epoch()

    class Before(DirectFeedback):
        name = "Before"

        @classmethod
        def pretraining_epochs(cls, options: Mapping[str, Any]) -> int:
            return 1

        def pretrain_step(self, x: Tensor, noise: Noise) -> None:
            torch.rand(1)

    trained = training([1], rule=Before)
    with pytest.raises(UserError, match=f"Before {said} `noise`"):
        trained.run_epoch()


def with_state(initial: Callable[[Sequence[int]], Any]) -> type[Method]:
    class Mine(DirectFeedback):
        name = "Mine"

        @classmethod
        def initial_state(cls, dims: Any, options: Any, draw: Any) -> Any:
            state = initial(dims)
            return (
                state if not isinstance(state, dict) else super().initial_state(dims, options, draw) | state
            )

    return Mine


def test_a_state_has_the_same_names_and_shapes_for_every_seed() -> None:
    sizes = iter([1, 2])
    with pytest.raises(
        UserError, match=r"Mine\.initial_state returns .*'m': \[2, 1\].* for seed 2; .*'m': \[1, 1\]"
    ):
        training([1, 2], rule=with_state(lambda _: {"m": torch.zeros(next(sizes), 1)}))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_state_that_would_mix_replicas_is_refused(shape: tuple[int, ...]) -> None:
    said = rf"'t' has the shape \[{', '.join(map(str, shape))}\]; two dimensions or more expected"
    with pytest.raises(UserError, match=said):
        training([1], rule=with_state(lambda _: {"t": torch.zeros(shape)}))


def test_a_state_has_no_gradients() -> None:
    trained = training([1], rule=with_state(lambda _: {"m": torch.nn.Parameter(torch.zeros(1, 1))}))
    trained.run_epoch()
    assert not trained.method.state["m"].requires_grad


@pytest.mark.parametrize("then", [{}, {"m": torch.zeros(1, 1)}, {"m": torch.zeros(1, 2)}])
def test_a_checkpoint_of_another_state_is_refused(then: dict[str, Tensor]) -> None:
    now = {"m": torch.zeros(1, 3)} if then else {"m": torch.zeros(1, 1)}
    saved = training([1], rule=with_state(lambda _: then)).state_dict()
    with pytest.raises(UserError, match="its `initial_state` has changed since; raise its `version`"):
        training([1], rule=with_state(lambda _: now)).load_state_dict(saved)


def test_an_initial_state_is_a_class_method() -> None:
    with pytest.raises(
        TypeError, match=r"Mine\.initial_state\(self, .* found, \(dims.*, a class method, expected"
    ):

        class Mine(DirectFeedback):
            name = "Mine"

            def initial_state(  # type: ignore[override]
                self, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
            ) -> dict[str, Tensor]:
                return {}


def test_memory_counts_the_state() -> None:
    cpu = torch.device("cpu")
    more = 4 * 3 * DirectFeedback.state_count(DIMS)
    assert DirectFeedback.state_count(DIMS) == (8 + 7) * 4 + 8 * 10 + 7 * 8 + 4 * 7
    plain = memory.bytes_per_replica(METHODS["BP"], DIMS, 32, cpu)
    assert memory.bytes_per_replica(DirectFeedback, DIMS, 32, cpu) == plain + more


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_measuring_leaves_the_state_alone(dtype: torch.dtype) -> None:
    class Moving(METHODS["FW-DTP"]):  # type: ignore[name-defined,misc]
        """With something drawn that a product takes, and a count of its steps."""

        name = "Moving"

        @classmethod
        def initial_state(
            cls, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
        ) -> dict[str, Tensor]:
            return {"B": torch.randn(dims[1], dims[-1], generator=draw), "steps": torch.zeros(1, 1)}

        def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
            logits: Tensor = super().train_step(x, y, noise)
            self.state["steps"].add_(1)
            self.state["B"].mul_((self.state["B"] @ logits).isfinite().all() * 0.9)
            return logits

    trained = training([1, 2], rule=Moving, dtype=dtype)
    trained.run_epoch()
    before = {name: tensor.clone() for name, tensor in trained.method.state.items()}
    assert before["steps"].flatten().tolist() == [3, 3]
    conditions(trained)
    for name, tensor in trained.method.state.items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("returned", [None, [1], {"B": 3}, {"B": None}])
def test_a_state_that_is_none_is_refused(returned: Any) -> None:
    class Mine(DirectFeedback):
        name = "Mine"

        @classmethod
        def initial_state(cls, dims: Any, options: Any, draw: Any) -> Any:
            return returned

    with pytest.raises(UserError, match=r"Mine\.initial_state returns .*; tensors by name expected"):
        training([1], rule=Mine)
