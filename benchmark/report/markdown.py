"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def title(heading: str, warning: str | None) -> list[str]:
    """The lines above a table: what it is, and why it is no comparison with the paper, if so."""
    return [f"# {heading}", "", *([f"**{warning}**", ""] if warning else [])]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table with a row of heads; no text ends a cell or a row."""
    return [_line(heads), "|---" * len(heads) + "|", *(_line(cells) for cells in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", r"\|").splitlines()) for cell in cells) + " |"
