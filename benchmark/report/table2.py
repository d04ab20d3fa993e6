"""Table 2: test error of every row on every data set, beside the paper's numbers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmark.config import PaperCell, PaperTable
from benchmark.errors import UserError
from benchmark.methods import METHODS
from benchmark.network import weight_count
from benchmark.results import Store, atomic_file
from benchmark.sweep import Plan

NOTE = (
    "Test error in % after the last epoch: mean ± standard deviation (n - 1) over the seeds, and how many "
    "seeds are behind it. Bold: best, underlined: second best, among the target propagation rows, as in "
    "the paper. #params counts one decoder an encoder, as the paper does; trained is the number of weights "
    "that learning changes (no decoder leads to the input). Rows and columns in [brackets] are not in the "
    "paper."
)
NOT_COMPARABLE = "NOT COMPARABLE WITH THE PAPER: another data set, network or protocol."


@dataclass(frozen=True)
class Cell:
    """One row on one data set."""

    planned: bool
    command: str
    """What would train it."""
    key: str | None = None
    errors: tuple[float, ...] = ()
    """The final test error of every seed, in per cent; empty where nothing is stored."""
    diverged: int = 0
    """Seeds whose numbers ended up not finite; they count like the others."""
    paper: PaperCell | None = None

    @property
    def mean(self) -> float:
        return float(pd.Series(self.errors).mean())

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1); NaN for one seed."""
        return float(pd.Series(self.errors).std(ddof=1))

    @property
    def value(self) -> str:
        """`2.81 ± 0.07`, or `-`."""
        if not self.errors:
            return "-" if self.planned else "·"
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if len(self.errors) > 1 else "")

    @property
    def seeds(self) -> str:
        """`n=5`, and how many of them diverged."""
        return f"n={len(self.errors)}" + (f", {self.diverged} diverged" if self.diverged else "")

    @property
    def comparison(self) -> str:
        """The paper's value and our difference to it."""
        if self.paper is None:
            return ""
        printed = f"paper {self.paper.mean:.2f} ± {self.paper.std:.2f}"
        return printed + (f", {self.mean - self.paper.mean:+.2f}" if self.errors else "")


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
        """The plan's title and protocol."""
        protocol = self.plan.config.protocol
        seeds = ", ".join(map(str, sorted(protocol.seeds)))
        return f"{self.plan.config.title}: {protocol.epochs} epochs, seeds {seeds}"

    @property
    def warning(self) -> str | None:
        """Why the numbers may not stand beside the paper's, if so."""
        if not self.plan.config.comparable:
            return NOT_COMPARABLE
        if self.plan.changes:
            return f"NOT THE PAPER'S PROTOCOL: {shlex.join(self.plan.changes)}"
        return None

    def title(self, column: str) -> str:
        name = self.plan.datasets[column].title
        return f"[{name}]" if self.plan.config.columns[column].addition else name

    def label(self, row: str) -> str:
        return f"[{row}]" if self.plan.config.rows[row].addition else row

    def heads_group(self, column: str) -> bool:
        """Whether the column is the first of its network, where the parameter counts stand."""
        config = self.plan.config.columns
        same = [name for name in config if config[name].network == config[column].network]
        return same[0] == column

    def rank(self, row: str, column: str) -> int:
        """1 for the best, 2 for the second best of the target propagation rows, else 0."""
        ranked = sorted(
            {
                round(cell.mean, 2)
                for (other, where), cell in self.cells.items()
                if where == column and cell.errors and self._is_ranked(other)
            }
        )[:2]
        cell = self.cells[row, column]
        if not cell.errors or not self._is_ranked(row) or round(cell.mean, 2) not in ranked:
            return 0
        return ranked.index(round(cell.mean, 2)) + 1

    def _is_ranked(self, row: str) -> bool:
        config = self.plan.config.rows[row]
        return METHODS[config.method].feedback == "decoders" and not config.addition

    def missing(self) -> Iterator[tuple[str, str, Cell]]:
        for (row, column), cell in self.cells.items():
            if cell.planned and not cell.errors:
                yield row, column, cell


def build(plan: Plan, store: Store, paper: PaperTable) -> Table2:
    """Read every cell's run from the store; `UserError` for a damaged one or mixed data."""
    cells, params = {}, {}
    contents: dict[str, dict[str, str]] = {}
    for row, config in plan.config.rows.items():
        for column in plan.config.columns:
            dims = plan.config.dims(row, column, plan.datasets[column])
            method = METHODS[config.method]
            encoders = weight_count(dims)
            decoders = weight_count(dims[1:]) if method.learns_feedback else 0
            counted = encoders * (2 if method.learns_feedback else 1)
            params[row, column] = (counted, encoders + decoders)
            run = plan.run(row, column)
            printed = paper.cells.get(row, {}).get(column) if plan.config.comparable else None
            stored = store.load(run.key) if run is not None else None
            command = _command(plan, row, column)
            if run is None or stored is None:
                cells[row, column] = Cell(run is not None, command, paper=printed)
                continue
            contents.setdefault(column, {})[stored.record["data"]["checksum"]] = row
            cells[row, column] = Cell(
                planned=True,
                command=command,
                key=run.key,
                errors=tuple(stored.final["test_error"]),
                diverged=int(stored.final["diverged"].sum()),
                paper=printed,
            )
    for column, checksums in contents.items():
        if len(checksums) > 1:
            raise UserError(
                f"{column}: the stored runs were trained on different data: "
                + ", ".join(f"{row} on {digest[:12]}..." for digest, row in checksums.items())
            )
    return Table2(plan, cells, params)


def _command(plan: Plan, row: str, column: str) -> str:
    words = [plan.source, "--method", row, "--dataset", column, *plan.changes, *plan.options]
    return "python -m benchmark run " + shlex.join(words)


def millions(weights: int) -> str:
    """`0.53 M`."""
    return f"{weights / 1e6:.2f} M"


def show(table: Table2, console: Console, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Print the chosen part of the table, and what would fill its empty cells."""
    grid = Grid(title=escape(table.heading), show_lines=True)
    grid.add_column("method")
    for column in columns:
        grid.add_column("#params\ntrained", justify="right")
        grid.add_column(escape(table.title(column)), justify="right")
    for row in rows:
        line = [escape(table.label(row))]
        for column in columns:
            cell = table.cells[row, column]
            line.append("\n".join(millions(n) for n in table.params[row, column]))
            value = {0: "{}", 1: "[bold]{}[/bold]", 2: "[underline]{}[/underline]"}[
                table.rank(row, column)
            ].format(cell.value)
            seeds = f" ({cell.seeds})" if cell.errors else ""
            line.append(f"{value}{seeds}" + (f"\n{cell.comparison}" if cell.paper else ""))
        grid.add_row(*line)
    console.print(grid)
    if table.warning:
        console.print(table.warning, style="bold", markup=False)
    console.print(NOTE, markup=False)
    empty = [cell.command for row, column, cell in table.missing() if row in rows and column in columns]
    if empty:
        console.print("Empty cells (-) are filled by:", markup=False)
        for command in empty:
            console.print(f"  {command}", markup=False)


def write(table: Table2, folder: Path) -> list[Path]:
    """The whole table as Markdown, CSV and LaTeX; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for suffix, text in (
        ("md", _markdown(table)),
        ("csv", _frame(table).to_csv(index=False, lineterminator="\n")),
        ("tex", _latex(table)),
    ):
        file = folder / f"{table.plan.name}.{suffix}"
        with atomic_file(file) as stream:
            stream.write(text.encode())
        files.append(file)
    return files


def _markdown(table: Table2) -> str:
    heads = ["method"]
    for column in table.columns:
        heads += ["#params", "trained"] if table.heads_group(column) else []
        heads.append(table.title(column))
    lines = [f"# {table.heading}", ""]
    if table.warning:
        lines += [f"**{table.warning}**", ""]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in table.rows:
        line = [table.label(row)]
        for column in table.columns:
            if table.heads_group(column):
                line += [millions(n) for n in table.params[row, column]]
            cell = table.cells[row, column]
            marked = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}[table.rank(row, column)]
            text = marked.format(cell.value) + (f" ({cell.seeds})" if cell.errors else "")
            line.append(text + (f"<br>{cell.comparison}" if cell.paper else ""))
        lines.append("| " + " | ".join(line) + " |")
    lines += ["", NOTE]
    empty = list(table.missing())
    if empty:
        lines += ["", "Empty cells (-) and what fills them:", ""]
        lines += [f"- {row} on {table.title(column)}: `{c.command}`" for row, column, c in empty]
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
                "difference": round(cell.mean - cell.paper.mean, 4) if stored and cell.paper else None,
                "run": cell.key,
                "command": "" if stored else cell.command,
            }
        )
    return pd.DataFrame(lines)


def _latex(table: Table2) -> str:
    heads = ["Method"]
    for column in table.columns:
        heads += [r"\#Params"] if table.heads_group(column) else []
        heads.append(tex(table.title(column)))
    lines = [
        f"% {table.heading}. {NOTE}",
        r"% needs \usepackage{booktabs}; paper's values in parentheses",
    ]
    if table.warning:
        lines.append(f"% {table.warning}")
    lines += [
        r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        line = [tex(table.label(row))]
        for column in table.columns:
            if table.heads_group(column):
                line.append(tex(millions(table.params[row, column][0])))
            cell = table.cells[row, column]
            marked = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
            text = marked[table.rank(row, column)].format(tex(cell.value))
            if cell.errors and (cell.diverged or len(cell.errors) != len(_seeds(table))):
                text += f" [{tex(cell.seeds)}]"
            if cell.paper:
                text += tex(f" ({cell.paper.mean:.2f} ± {cell.paper.std:.2f})")
            line.append(text)
        lines.append(" & ".join(line) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _seeds(table: Table2) -> list[int]:
    return table.plan.config.protocol.seeds


def tex(text: str) -> str:
    """Plain text for LaTeX."""
    # After the \\ of the line above, a bare bracket would be its optional argument.
    for plain, escaped in (("&", r"\&"), ("%", r"\%"), ("#", r"\#"), ("_", r"\_"), ("[", "{[}")):
        text = text.replace(plain, escaped)
    return text.replace("±", r"$\pm$").replace("·", r"$\cdot$")
