"""Tables in LaTeX, with booktabs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Plain text for LaTeX."""
    return text.translate(_ESCAPED)


def preamble(heading: str, warning: str | None, *, needs: str = "") -> list[str]:
    """Comments above a table: what it is, what it needs, why it is no comparison with the paper, if so."""
    warned = [f"% {warning}"] if warning else []
    return [f"% {heading}", rf"% needs \usepackage{{booktabs}}{needs}", *warned]


def table(heads: Sequence[Sequence[str]], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table with lines of heads, its cells LaTeX already; the first column is of text."""
    return [
        r"\begin{tabular}{l" + "r" * (len(heads[0]) - 1) + "}",
        r"\toprule",
        *map(_line, heads),
        r"\midrule",
        *map(_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


_ESCAPED = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%#_$}{"},
        "[": "{[}",  # after the \\ of the line above it would be its optional argument
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "·": r"$\cdot$",
    }
)
