"""`paper_values.yaml`: the paper's own numbers, only ever the comparison."""

from __future__ import annotations

from pathlib import Path

from benchmark.config.files import CONFIGS, Strict, load_each


class PaperCell(Strict):
    """A number of the paper: mean and the +- printed behind it."""

    mean: float
    std: float


class PaperTable(Strict):
    """One table of the paper."""

    n: int
    spread: str
    unit: str
    cells: dict[str, dict[str, PaperCell]]


def load_paper_values(file: Path = CONFIGS / "paper_values.yaml") -> dict[str, PaperTable]:
    """The paper's own numbers, table by table: only ever the comparison."""
    return load_each(PaperTable, file)
