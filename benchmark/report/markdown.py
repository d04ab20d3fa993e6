"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table with a row of heads; no text ends a cell or a row."""
    return [_line(heads), "|---" * len(heads) + "|", *(_line(cells) for cells in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", r"\|").splitlines()) for cell in cells) + " |"
