"""Cores shared out among lanes, and what replicas that train apart have in common."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.compilation import Execution
from benchmark.datasets import Split
from benchmark.lanes import Cores
from benchmark.methods import METHODS, build
from benchmark.training import Training


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def steps(count: int, done: list[int], task: int) -> Iterator[None]:
    for _ in range(count):
        done.append(task)
        yield


@settings(deadline=None, max_examples=60)
@given(
    threads=st.integers(1, 4),
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    at_once=st.one_of(st.just(float("inf")), st.integers(1, 4)),
)
def test_every_step_of_every_task_is_taken_once(threads: int, counts: list[int], at_once: float) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        done: list[int] = []
        cores = Cores(len(counts))
        tasks = [steps(count, done, task) for task, count in enumerate(counts)]
        seen = [0] * len(counts)
        while cores.advance(tasks, at_once):
            now = [done.count(task) for task in range(len(counts))]
            assert now == [min(count, old + at_once) for count, old in zip(counts, seen, strict=True)]
            seen = now
        assert seen == counts
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("tasks", "threads"), [(1, 2), (2, 1), (5, 1)])
def test_workers_share_the_threads(tasks: int, threads: int) -> None:
    cores, seen = Cores(tasks), []

    def task() -> Iterator[None]:
        seen.append(torch.get_num_threads())
        yield

    assert cores.threads == threads
    cores.advance([task() for _ in range(tasks)])
    assert seen == [threads] * tasks


@pytest.mark.usefixtures("two_threads")
def test_two_tasks_are_worked_on_at_a_time_and_none_by_two_workers() -> None:
    meeting = threading.Barrier(2, timeout=30)  # broken, and an error, where one worker does it all

    def task() -> Iterator[None]:
        for _ in range(20):
            meeting.wait()
            yield  # a generator entered twice raises

    Cores(2).advance([task(), task()])


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_task_ends_the_others_and_is_raised() -> None:
    taken = []

    def endless() -> Iterator[None]:
        while True:
            taken.append(None)
            time.sleep(0.001)
            yield

    def broken() -> Iterator[None]:
        yield
        raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        Cores(3).advance([endless(), broken(), endless()])
    assert torch.get_num_threads() == 2
    after = len(taken)
    time.sleep(0.05)
    assert len(taken) == after


@pytest.mark.parametrize("name", METHODS)
def test_a_part_of_a_method_is_the_same_rule_on_the_same_weights(name: str) -> None:
    method = METHODS[name]
    rates = {rate: [0.1, 0.2, 0.3] for rate in method.hyperparameters}
    options = {"feedback_updates": 2} if "feedback_updates" in method.options else {}
    whole = build(method, [6, 5, 5, 3], [1, 2, 3], rates, options)
    part = whole.part(slice(1, 2))
    assert type(part) is type(whole)
    assert part.network.replicas == 1
    for rate in method.hyperparameters:
        assert getattr(part, rate).tolist() == [[[pytest.approx(0.2)]]]
    for option in method.options:
        assert getattr(part, option) == getattr(whole, option)
    for ours, theirs in zip(part.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours[0], theirs[1])
        ours.data.add_(1.0)
        assert torch.equal(ours[0], theirs[1])
    x = torch.randn(1, 6, 4)
    torch.testing.assert_close(part.network(x)[0], whole.network(x)[1])


def test_compiled_numbers_do_not_depend_on_the_number_of_threads() -> None:
    """Of two replicas or more on two threads at most; and a replica's not on its neighbours."""
    draw = torch.Generator().manual_seed(1)
    data = Split(torch.randn(300, 12, generator=draw), torch.randint(4, (300,), generator=draw))

    def trained(threads: int, seeds: list[int]) -> list[torch.Tensor]:
        # Built before: orthogonal initial weights are rounded otherwise by other numbers of threads.
        method = build(METHODS["FW-DTP"], [12, 64, 64, 4], seeds, {"lr": 0.3, "stepsize": 0.05})
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            training = Training(method, seeds, data, data, batch_size=64, execution=Execution.COMPILED)
            training.run_epoch()
            return [weight.detach() for weight in method.network.parameters()]
        finally:
            torch.set_num_threads(before)

    one, two, alone = trained(1, [1, 2, 3]), trained(2, [1, 2, 3]), trained(1, [2])
    assert all(map(torch.equal, one, two))
    assert all(torch.equal(ours[1], theirs[0]) for ours, theirs in zip(one, alone, strict=True))
