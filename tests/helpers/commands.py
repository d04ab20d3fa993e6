"""Command lines that run in a test's own process, and a plan of two rows for them."""

from collections.abc import Callable
from pathlib import Path

MINI = "fashion-mnist-mini"
PLAN = f"""
title: Tiny
comparable: false
protocol: {{epochs: 1, batch_size: 512, seeds: [1, 2], source: guess}}
networks:
  1x8: {{hidden_layers: 1, width: 8, source: guess}}
columns:
  {MINI}: {{network: 1x8}}
rows:
  BP:
    method: BP
    hyperparameters: {{{MINI}: {{lr: 0.1, source: guess}}}}
  FA:
    method: FA
    hyperparameters: {{{MINI}: {{lr: 0.1, source: guess}}}}
"""
RUN = ("run", "tiny.yaml", "--device", "cpu", "--results", "results")
Command = Callable[..., tuple[int, str, str]]
"""Given arguments: exit status, stdout, stderr. A traceback raises."""


def fails(result: tuple[int, str, str]) -> str:
    """Asserts one line on stderr and a nonzero status; returns the line."""
    code, _, err = result
    assert code != 0
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    return err


def files(folder: Path) -> dict[str, bytes]:
    """What every file below a folder holds."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
