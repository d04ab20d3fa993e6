"""The console and the progress bar of the commands."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# A pipe or a file has no width.
console = Console(soft_wrap=True, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)

LINE_SECONDS = 60
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


@contextmanager
def progress_bar(console: Console, label: str, epochs: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar of so many epochs. Yields a function of the number of epochs done and a remark."""
    if not console.is_terminal:
        yield _lines(console, label, epochs)
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("epoch {task.completed}/{task.total}  {task.fields[remark]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        speed_estimate_period=86_400,  # an epoch may take longer than rich's 30 s
    ) as bar:
        task = bar.add_task(label, total=epochs, remark="")
        yield lambda done, remark: bar.update(task, completed=done, remark=remark)


def _lines(console: Console, label: str, epochs: int) -> Callable[[int, str], None]:
    """Progress as lines of text, at most one in `LINE_SECONDS`."""
    said = time.monotonic()

    def say(done: int, remark: str) -> None:
        nonlocal said
        if time.monotonic() >= said + LINE_SECONDS:
            said = time.monotonic()
            line = f"  {time.strftime('%H:%M')} {label}: epoch {done}/{epochs}  {remark}"
            console.print(line.rstrip(), markup=False)

    return say
