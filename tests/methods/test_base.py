"""A rule's own state: one for every replica, and in every checkpoint."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.common.errors import UserError
from benchmark.engine import memory
from benchmark.engine.build import state_count
from benchmark.engine.jacobian import conditions
from benchmark.engine.settings import Execution
from benchmark.methods import METHODS, Method, Noise
from tests.helpers.rules import DIMS, DirectFeedback, training

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
    """A tensor put in its place would reach neither a checkpoint nor a CUDA graph."""
    with pytest.raises(TypeError, match="does not support item assignment"):
        training([1]).method.state["B1"] = torch.zeros(1)  # type: ignore[index]


def with_state(initial: Callable[[Sequence[int]], Any]) -> type[Method]:
    class Mine(DirectFeedback):
        name = "Mine"

        @classmethod
        def initial_state(cls, dims: Any, options: Any, draw: Any) -> Any:
            return super().initial_state(dims, options, draw) | initial(dims)

    return Mine


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


def test_memory_counts_the_state() -> None:
    cpu = torch.device("cpu")
    more = 4 * 3 * state_count(DirectFeedback, DIMS)
    assert state_count(DirectFeedback, DIMS) == (8 + 7) * 4 + 8 * 10 + 7 * 8 + 4 * 7
    plain = memory.bytes_per_replica(METHODS["BP"], DIMS, 32, cpu)
    assert memory.bytes_per_replica(DirectFeedback, DIMS, 32, cpu) == plain + more


def test_a_state_beyond_memory_is_told_before_training() -> None:
    rule = with_state(lambda dims: {"m": torch.zeros(dims[0], 10**14)})
    with pytest.raises(UserError, match=r"Mine\.initial_state: memory ran out, .* GiB are free"):
        memory.replicas_per_pass(rule, DIMS, 32, torch.device("cpu"))


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
