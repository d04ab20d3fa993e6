"""Table 2: test error of every row on every data set, beside the paper's numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmark.common.statistics import ALPHA, Verdict
from benchmark.comparison.cells import Cell, judged, read_cells
from benchmark.config import PaperTable
from benchmark.methods import METHODS
from benchmark.methods.sizes import weight_count
from benchmark.report import latex, markdown
from benchmark.report.files import write_texts
from benchmark.store.store import Store
from benchmark.sweep.plan import Plan

NOTE = (
    "Test error in % after the last epoch: mean ± standard deviation (n - 1) over the seeds, and how many "
    "seeds are behind it. Bold: best, underlined: second best, among the plan's target propagation rows, as "
    "in the paper, once all of them are there. #params counts one decoder an encoder, as the paper does; "
    "trained is the number of weights that learning changes (no decoder leads to the input). Rows and "
    "columns in [brackets] are not in the paper."
)
COMPARISON_COLUMNS = (
    *("margin", "p_difference", "p_equivalence"),
    *("corrected_p_difference", "corrected_p_equivalence"),
)


@dataclass(frozen=True)
class Table2:
    """The table as data."""

    plan: Plan
    cells: dict[tuple[str, str], Cell]
    params: dict[tuple[str, str], tuple[int, int]]
    """(as the paper counts, really trained) by row and column."""

    @property
    def rows(self) -> list[str]:
        return list(self.plan.config.rows)

    @property
    def columns(self) -> list[str]:
        return list(self.plan.config.columns)

    @property
    def heading(self) -> str:
        return self.plan.heading

    @property
    def warning(self) -> str | None:
        """Why the numbers may not stand beside the paper's, if so."""
        return self.plan.warning

    @property
    def verdicts(self) -> str | None:
        """What the verdicts mean, and how many there are of each; None where there are none."""
        config = self.plan.config
        listed = [self.listed(addition=addition) for addition in (False, True)]
        if not any(listed):
            return None
        said = f"Verdicts: {listed[0] or 'none'}"
        said += f"; in brackets, of what is not in the paper: {listed[1]}" if listed[1] else ""
        declared = [column for column in config.columns if column in config.margins]
        used = [c for c in declared if any(self.cells[row, c].comparison for row in self.rows)]
        margins = ", ".join(f"{self.plan.title(c)} {config.margins[c]:g}" for c in used or declared)
        return (
            f"{said}. In square brackets Welch's {1 - ALPHA:.0%} interval of our mean minus the paper's, "
            "from summary statistics; the paper does not say whether its ± divides by n or n - 1, n - 1 is "
            "assumed. EQUIVALENT: two one-sided tests (TOST) put the difference within the margin that the "
            f"plan declares ({margins}). DIFFERENT: it is not zero. DIFFERENT WITHIN MARGIN: both. "
            "INCONCLUSIVE: neither can be said, which is no reproduction. INCOMPLETE: seeds are missing or "
            f"diverged. Both tests use a level of {ALPHA:g} and Holm's correction over all cells of the "
            "table, trained or not; rows in brackets are a family of their own. Intervals are not corrected."
        )

    def listed(self, *, addition: bool) -> str:
        """`4 EQUIVALENT, 1 DIFFERENT`: the verdicts on the paper's cells, or on those in brackets."""
        cells = self._cells(addition)
        counts = Counter(cell.verdict for cell in cells if cell.verdict is not None)
        return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])

    def _cells(self, addition: bool) -> list[Cell]:
        is_addition = self.plan.config.is_addition
        return [cell for place, cell in self.cells.items() if is_addition(*place) is addition]

    def heads_group(self, column: str) -> bool:
        """Whether the column is the first of its network, where the parameter counts stand."""
        config = self.plan.config.columns
        same = [name for name in config if config[name].network == config[column].network]
        return same[0] == column

    def rank(self, row: str, column: str) -> int:
        """1 for the best, 2 for the second best target propagation row, once all are there, two or more."""
        places = [(other, column) for other in self.rows if self._is_ranked(other)]
        cells = [self.cells[place] for place in places if self.cells[place].planned]
        if (row, column) not in places or len(cells) < 2 or not all(cell.errors for cell in cells):
            return 0
        ranked = sorted({round(cell.mean, 2) for cell in cells})[:2]
        mean = round(self.cells[row, column].mean, 2)
        return ranked.index(mean) + 1 if mean in ranked else 0

    def _is_ranked(self, row: str) -> bool:
        config = self.plan.config.rows[row]
        return METHODS[config.method].feedback == "decoders" and not config.addition

    def missing(self) -> Iterator[tuple[str, str, Cell]]:
        for (row, column), cell in self.cells.items():
            if cell.planned and not cell.errors:
                yield row, column, cell


def build(plan: Plan, store: Store, paper: PaperTable) -> Table2:
    """The table of a plan from the store; `UserError` for a damaged run or mixed data."""
    params = {}
    for row, config in plan.config.rows.items():
        method = METHODS[config.method]
        for column in plan.config.columns:
            dims = plan.config.dims(row, column, plan.datasets[column])
            counted = weight_count(dims) * (2 if method.learns_feedback else 1)
            params[row, column] = (counted, method.trained_weights(dims))
    return Table2(plan, judged(read_cells(plan, store, paper), plan, paper.n), params)


def millions(weights: int) -> str:
    """`0.53 M`; `0.0026 M` where two digits would say nothing."""
    return f"{weights / 1e6:.{2 if weights >= 5000 else 4}f} M"


def show(table: Table2, console: Console, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Print the chosen part of the table, and what would fill its empty cells."""
    grid = Grid(title=escape(table.heading), show_lines=True)
    grid.add_column("method")
    for column in columns:
        grid.add_column("#params\ntrained", justify="right")
        grid.add_column(escape(table.plan.title(column)), justify="right")
    for row in rows:
        line = [escape(table.plan.label(row))]
        for column in columns:
            cell = table.cells[row, column]
            line.append("\n".join(millions(n) for n in table.params[row, column]))
            value = {0: "{}", 1: "[bold]{}[/bold]", 2: "[underline]{}[/underline]"}[
                table.rank(row, column)
            ].format(cell.value)
            seeds = f" ({cell.seeds})" if cell.errors else ""
            line.append("\n".join([f"{value}{seeds}", *cell.beside]))
        grid.add_row(*line)
    console.print(grid)
    if table.warning:
        console.print(table.warning, style="bold", markup=False)
    console.print(NOTE, markup=False)
    if table.verdicts:
        console.print(table.verdicts, markup=False)
    empty = [cell.command for row, column, cell in table.missing() if row in rows and column in columns]
    if empty:
        console.print("Empty cells (-) are filled by (·: not in the plan):", markup=False)
        for command in empty:
            console.print(f"  {command}", markup=False)


def write(table: Table2, folder: Path) -> list[Path]:
    """The whole table as Markdown, CSV and LaTeX; returns the files."""
    csv = _frame(table).to_csv(index=False, lineterminator="\n")
    return write_texts(folder, table.plan.name, {"md": _markdown(table), "csv": csv, "tex": _latex(table)})


def _markdown(table: Table2) -> str:
    heads = ["method"]
    for column in table.columns:
        heads += ["#params", "trained"] if table.heads_group(column) else []
        heads.append(table.plan.title(column))
    lines = markdown.title(table.heading, table.warning)
    body = []
    for row in table.rows:
        line = [table.plan.label(row)]
        for column in table.columns:
            if table.heads_group(column):
                line += [millions(n) for n in table.params[row, column]]
            cell = table.cells[row, column]
            marked = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}[table.rank(row, column)]
            text = marked.format(cell.value) + (f" ({cell.seeds})" if cell.errors else "")
            line.append("<br>".join([text, *cell.beside]))
        body.append(line)
    lines += [*markdown.table(heads, body), "", NOTE]
    lines += ["", table.verdicts] if table.verdicts else []
    empty = list(table.missing())
    if empty:
        lines += ["", "Empty cells (-; ·: not in the plan) and what fills them:", ""]
        lines += [f"- {row} on {table.plan.title(column)}: `{c.command}`" for row, column, c in empty]
    return "\n".join(lines) + "\n"


def _frame(table: Table2) -> pd.DataFrame:
    lines = []
    for (row, column), cell in table.cells.items():
        if not cell.planned and cell.paper is None:
            continue
        counted, trained = table.params[row, column]
        stored = bool(cell.errors)
        lines.append(
            {
                "method": row,
                "dataset": column,
                "params": counted,
                "trained": trained,
                "n": len(cell.errors),
                "diverged": cell.diverged,
                "mean": round(cell.mean, 4) if stored else None,
                "std": round(cell.std, 4) if len(cell.errors) > 1 else None,
                "paper_mean": cell.paper.mean if cell.paper else None,
                "paper_std": cell.paper.std if cell.paper else None,
                "late_mean": round(cell.late_mean, 4) if stored else None,
                "difference": round(cell.mean - cell.paper.mean, 4) if stored and cell.paper else None,
                "low": _digits(cell.comparison.interval[0]) if cell.comparison else None,
                "high": _digits(cell.comparison.interval[1]) if cell.comparison else None,
                **{
                    name: _digits(getattr(cell.comparison, name)) if cell.comparison else None
                    for name in COMPARISON_COLUMNS
                },
                "verdict": cell.verdict,
                "kept": cell.kept if cell.comparison else None,
                "run": cell.key,
                "command": "" if stored else cell.command,
            }
        )
    return pd.DataFrame(lines).astype({"kept": "Int64"})


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def _latex(table: Table2) -> str:
    heads = ["Method"]
    for column in table.columns:
        heads += [r"\#Params"] if table.heads_group(column) else []
        heads.append(latex.escaped(table.plan.title(column)))
    rows = []
    for row in table.rows:
        line = [latex.escaped(table.plan.label(row))]
        for column in table.columns:
            if table.heads_group(column):
                line.append(latex.escaped(millions(table.params[row, column][0])))
            cell = table.cells[row, column]
            marked = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
            text = marked[table.rank(row, column)].format(latex.escaped(cell.value))
            if cell.errors and (cell.diverged or len(cell.errors) != len(_seeds(table))):
                text += f" [{latex.escaped(cell.seeds)}]"
            if cell.paper:
                text += latex.escaped(f" ({cell.paper})")
            line.append(text)
        rows.append(line)
    above = latex.preamble(f"{table.heading}. {NOTE}", table.warning, needs="; paper's values in parentheses")
    return "\n".join([*above, *latex.table([heads], rows), ""])


def _seeds(table: Table2) -> list[int]:
    return table.plan.config.protocol.seeds
