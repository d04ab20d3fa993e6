"""The README's results: the stored cells of Table 2, between two marks."""

from __future__ import annotations

from pathlib import Path

from benchmark.config import PROJECT
from benchmark.report.table2 import LATE_EPOCHS, Table2
from benchmark.results import atomic_file

README = PROJECT / "README.md"
BEGIN, END = "<!-- stored results -->\n", "<!-- end of stored results -->"


def text(table: Table2) -> str:
    """A Markdown table of what is stored, and how much of Table 2 that is."""
    lines = ["| method | data set | test error (%) | paper | difference, 95 % interval | verdict |"]
    lines.append("|---" * 6 + "|")
    for (row, column), cell in table.cells.items():
        if not cell.errors:
            continue
        paper, apart = "", ""
        if cell.paper is not None:
            paper = f"{cell.paper.mean:.2f} ± {cell.paper.std:.2f}"
        if cell.comparison is not None:
            low, high = cell.comparison.interval
            apart = f"{cell.comparison.difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        ours = f"{cell.value} ({cell.seeds})"
        cells = (table.label(row), table.title(column), ours, paper, apart, cell.judged)
        lines.append("| " + " | ".join(cells) + " |")
    rows = table.plan.config.rows
    of_paper = [cell for (row, _), cell in table.cells.items() if cell.paper and not rows[row].addition]
    stored = sum(bool(cell.errors) for cell in of_paper)
    lines += [
        "",
        f"{stored} of the {len(of_paper)} cells of the paper's Table 2. (18 of {LATE_EPOCHS} epochs): had "
        f"training ended after any of the last {LATE_EPOCHS} epochs, 18 times the verdict would have been "
        "this one.",
        "",
    ]
    return "\n".join(lines)


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
