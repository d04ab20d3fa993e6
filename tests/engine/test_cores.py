"""Cores shared out among tasks."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.engine.lanes import Cores


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


@pytest.mark.usefixtures("two_threads")
def test_an_interrupt_ends_all_tasks_after_their_steps() -> None:
    taken = []

    def endless() -> Iterator[None]:
        while True:
            taken.append(None)
            if len(taken) == 10:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.001)
            yield

    with pytest.raises(KeyboardInterrupt):
        Cores(2).advance([endless(), endless()])
    assert torch.get_num_threads() == 2
    after = len(taken)
    time.sleep(0.05)
    assert len(taken) == after
