"""The progress bar of everything that trains."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(console: Console, label: str, epochs: int) -> Iterator[Callable[[int, str], None]]:
    """A bar of so many epochs; call what it yields with the epochs done and a remark."""
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
