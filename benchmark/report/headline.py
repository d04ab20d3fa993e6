"""The README's results: the stored cells of Table 2, between two marks."""

from __future__ import annotations

from pathlib import Path

from benchmark.config import PROJECT
from benchmark.report.table2 import Table2
from benchmark.results import atomic_file

README = PROJECT / "README.md"
BEGIN, END = "<!-- stored results -->\n", "<!-- end of stored results -->"


def text(table: Table2) -> str:
    """A Markdown table of what is stored, and how much of Table 2 that is."""
    lines = ["| method | data set | test error (%) | paper | difference, 95 % interval | verdict |"]
    lines.append("|---" * 6 + "|")
    stored = 0
    for (row, column), cell in table.cells.items():
        if not cell.errors:
            continue
        stored += cell.paper is not None
        paper = f"{cell.paper.mean:.2f} ± {cell.paper.std:.2f}" if cell.paper else ""
        found = cell.comparison
        apart = "" if found is None else f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        verdict = "" if cell.verdict is None else cell.beside[-1]
        cells = (table.label(row), table.title(column), f"{cell.value} ({cell.seeds})", paper, apart, verdict)
        lines.append("| " + " | ".join(cells) + " |")
    printed = sum(cell.paper is not None for cell in table.cells.values())
    return "\n".join([*lines, "", f"{stored} of the {printed} cells of the paper's Table 2.", ""])


def write(table: Table2, readme: Path = README) -> list[Path]:
    """Put `text` between the marks of a README; nothing where it has none."""
    if not readme.is_file():
        return []
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return []
    with atomic_file(readme) as stream:
        stream.write((before + begin + text(table) + end + after).encode())
    return [readme]
