"""The README's results: the stored cells of Table 2, between two marks."""

from __future__ import annotations

from pathlib import Path

from benchmark.common.errors import UserError
from benchmark.common.files import atomic_file
from benchmark.config import PROJECT
from benchmark.report import markdown
from benchmark.report.table2 import Table2

README = PROJECT / "README.md"
BEGIN, END = "<!-- stored results -->\n", "<!-- end of stored results -->"


def text(table: Table2) -> str:
    """How much of Table 2 is stored, and as a Markdown table what."""
    rows = table.plan.config.rows
    of_paper = {
        place: cell for place, cell in table.cells.items() if cell.paper and not rows[place[0]].addition
    }
    there = [place for place, cell in of_paper.items() if cell.errors]
    no_row = dict.fromkeys(row for row, _ in of_paper if row not in {row for row, _ in there})
    no_column = dict.fromkeys(c for _, c in of_paper if c not in {column for _, column in there})
    absent = [f"none yet of the row{'s' * (len(no_row) > 1)} {', '.join(no_row)}"] if no_row else []
    absent += [f"none on {', '.join(map(table.plan.title, no_column))}"] if no_column else []
    said = f"{len(there)} of the {len(of_paper)} cells of the paper's Table 2"
    counted = f" Verdicts on all: {verdicts}." if (verdicts := table.listed(addition=False)) else ""
    lines = [
        "; ".join([said, *absent]) + "." + counted,
        "",
        "Rows in brackets are not in the paper. Details: `results/tables/table2.md`.",
        "",
    ]
    body = []
    for (row, column), cell in table.cells.items():
        if not cell.errors:
            continue
        paper = "" if cell.paper is None else str(cell.paper)
        apart = "" if cell.comparison is None else str(cell.comparison)
        ours = f"{cell.value} ({cell.seeds})"
        body.append(
            (table.plan.label(row), table.plan.title(column), ours, paper, apart, str(cell.verdict or ""))
        )
    heads = ("method", "data set", "test error (%)", "paper", "difference, 95 % interval", "verdict")
    return "\n".join([*lines, *markdown.table(heads, body), ""])


def write(table: Table2, readme: Path = README) -> list[Path]:
    """Put `text` between the marks of a README; nothing where it has none, `UserError` where it has one."""
    if not readme.is_file():
        return []
    whole = readme.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end and whole.count(BEGIN) == whole.count(END) == 1):
        if BEGIN in whole or END in whole:
            raise UserError(f"{readme}: the results stand between {BEGIN.strip()} and {END}, each once")
        return []
    with atomic_file(readme) as stream:
        stream.write((before + begin + text(table) + end + after).encode())
    return [readme]
