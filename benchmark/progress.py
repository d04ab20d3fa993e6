"""The progress bar of everything that trains."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(
    console: Console, label: str, total: int, *, unit: str = "epoch "
) -> Iterator[Callable[[int, str], None]]:
    """A bar of so many epochs, say; call what it yields with how many are done and a remark."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(f"{unit}{{task.completed}}/{{task.total}}  {{task.fields[remark]}}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        speed_estimate_period=86_400,  # an epoch may take longer than rich's 30 s
    ) as bar:
        task = bar.add_task(label, total=total, remark="")
        yield lambda done, remark: bar.update(task, completed=done, remark=remark)
