"""Work shared out among the cores of a CPU."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

_END = object()


class Cores:
    """The threads that torch may use now, shared out among several tasks.

    As many tasks as there are threads are worked on at a time, each by a worker with an equal share of
    the threads (what does not share out evenly is left idle). A worker takes one step of a task, then
    turns to the one that has waited longest, so that with more tasks than workers all are busy until the
    last steps.
    """

    def __init__(self, tasks: int) -> None:
        self._available = torch.get_num_threads()
        self.workers = min(self._available, tasks)
        """Tasks worked on at a time."""
        self.threads = self._available // self.workers
        """Of every worker."""

    def advance(self, tasks: Sequence[Iterator[None]], steps: float = math.inf) -> bool:
        """Take up to so many steps of every task; whether there were any to take.

        An error in one task ends the others after the steps under way, and so does an interrupt.
        """
        waiting = deque((task, 0) for task in tasks)
        moved = stopping = False

        def work() -> None:
            nonlocal moved, stopping
            try:
                while not stopping:
                    try:
                        task, taken = waiting.popleft()
                    except IndexError:
                        return  # the rest is in other workers' hands
                    if taken < steps and next(task, _END) is not _END:
                        moved = True
                        waiting.append((task, taken + 1))
            except BaseException:
                stopping = True
                raise

        if self.workers == 1:
            work()
            return moved
        pool = ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(self.threads,))
        try:
            with pool:
                try:
                    for worker in [pool.submit(work) for _ in range(self.workers)]:
                        worker.result()
                finally:
                    stopping = True
        finally:
            torch.set_num_threads(self._available)
        return moved
