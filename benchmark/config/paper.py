"""`paper_values.yaml`: the paper's own numbers, only ever the comparison."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from benchmark.config.files import CONFIGS, Strict, load_each


class PaperCell(Strict):
    """A number of the paper: mean and the +- printed behind it."""

    mean: float = Field(ge=0, allow_inf_nan=False)
    std: float = Field(ge=0, allow_inf_nan=False)

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f}"


class PaperTable(Strict):
    """One table of the paper."""

    n: int = Field(gt=1)
    spread: str
    unit: str
    cells: dict[str, dict[str, PaperCell]]

    @model_validator(mode="after")
    def _shares(self) -> PaperTable:
        for row, cells in self.cells.items():
            for column, cell in cells.items():
                if "%" in self.unit and cell.mean > 100:
                    raise ValueError(f"{row} on {column}: {cell.mean:g} found, at most 100 expected")
        return self


def load_paper_values(file: Path = CONFIGS / "paper_values.yaml") -> dict[str, PaperTable]:
    """The paper's own numbers, table by table: only ever the comparison."""
    return load_each(PaperTable, file)
