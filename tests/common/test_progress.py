"""What a training says of itself where there is no terminal."""

import io
import re

import pytest
from rich.console import Console

from benchmark.common import progress


def said(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> list[str]:
    """The lines of three epochs that end at the last three of these seconds."""
    file, now = io.StringIO(), iter(clock)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress_bar(Console(file=file), "[DTP]", 3) as update:
        update(1, "")
        update(2, "test error 3.00 %")
        update(3, "")
    return file.getvalue().splitlines()


def test_a_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    every = progress.LINE_SECONDS
    lines = said(monkeypatch, [0, every / 2, every + 1, every + 1, 2 * every])
    assert len(lines) == 1
    assert re.fullmatch(r"  \d\d:\d\d \[DTP\]: epoch 2/3  test error 3\.00 %", lines[0])


def test_a_short_training_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, [0, 1, 2, 3]) == []


def test_a_terminal_gets_a_bar() -> None:
    file = io.StringIO()
    with progress.progress_bar(Console(file=file, force_terminal=True), "DTP", 3) as update:
        update(3, "done")
    assert "epoch 3/3  done" in file.getvalue()
