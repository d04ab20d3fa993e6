"""What a rule keeps beside the weights: its own for every replica, and in every checkpoint."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.compilation import Execution
from benchmark.errors import UserError
from benchmark.methods import Method, Noise, build
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
    seeds: list[int], execution: Execution = Execution.EAGER, rule: type[Method] = DirectFeedback
) -> Training:
    device = torch.device("cuda" if execution is Execution.GRAPHED else "cpu")
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(96, DIMS[0], generator=draw), torch.randint(DIMS[-1], (96,), generator=draw)
    data = Split(x.to(device), y.to(device))
    rates = {name: {"lr": 0.05, "momentum": 0.9}[name] for name in rule.hyperparameters}
    method = build(rule, DIMS, seeds, rates, device=device)
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


def test_tensors_that_no_checkpoint_would_have_are_refused() -> None:
    class FromTheStart(DirectFeedback):
        name = "From the start"

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.velocities = [torch.zeros(3)]

    class Later(DirectFeedback):
        name = "Later"

        def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
            self.last = {"logits": super().train_step(x, y, noise)}
            return self.last["logits"]

    said = r"keeps tensors in self\.{}, which a checkpoint would lose; put them into its `initial_state`"
    with pytest.raises(UserError, match=f"FromTheStart {said.format('velocities')}"):
        training([1], rule=FromTheStart)
    trained = training([1], rule=Later)
    with pytest.raises(UserError, match=f"Later {said.format('last')}"):
        trained.run_epoch()


@pytest.mark.parametrize("returned", [None, [1], {"B": 3}, {"B": None}])
def test_a_state_that_is_none_is_refused(returned: Any) -> None:
    class Mine(DirectFeedback):
        name = "Mine"

        @classmethod
        def initial_state(cls, dims: Any, options: Any, draw: Any) -> Any:
            return returned

    with pytest.raises(UserError, match=r"Mine\.initial_state returns .*; tensors by name expected"):
        training([1], rule=Mine)
