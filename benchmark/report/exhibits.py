"""Table 2 and the differences between rows as sections of the page."""

from __future__ import annotations

from benchmark.cells import missing
from benchmark.report import differences, runs, table2
from benchmark.report.html import NOTHING, Cell, Column, Exhibit, Line, Row, RunsHref, Table, run_anchor

MINUS = "−"  # as wide as a plus


def table2_exhibit(table: table2.Table2, runs_href: RunsHref) -> Exhibit:
    """Table 2: every value leads to its run, every number of seeds to the run's provenance."""
    protocol = table.plan.config.protocol
    seeds = runs.spelled(sorted(protocol.seeds))
    columns = [Column("method")]
    for column in table.columns:
        if table.heads_group(column):
            columns.append(Column(f"#params, {table.plan.config.columns[column].network}", numeric=True))
        columns.append(Column(table.plan.title(column), numeric=True))
    rows = []
    for row in table.rows:
        cells = [Cell(table.plan.label(row))]
        for column in table.columns:
            if table.heads_group(column):
                counted, trained = map(table2.millions, table.params[row, column])
                cells.append(Cell(counted, details=(Line(f"{trained} trained"),)))
            cells.append(_table2_cell(table, row, column, runs_href))
        rows.append(Row(tuple(cells)))
    return Exhibit(
        anchor="table-2",
        title="Table 2",
        caption=f"Test error in % after {protocol.epochs} epochs, seeds {seeds}",
        notes=(table2.NOTE, table.verdicts) if table.verdicts else (table2.NOTE,),
        warning=table.warning,
        table=Table(tuple(columns), tuple(rows)),
        missing=tuple(cell.command for _, _, cell in table.missing()),
    )


def _table2_cell(table: table2.Table2, row: str, column: str, runs_href: RunsHref) -> Cell:
    cell = table.cells[row, column]
    details = []
    if cell.key is not None:
        details.append(Line(cell.seeds, f"#{run_anchor(cell.key)}"))
    if cell.paper is not None:
        details.append(Line(f"paper {cell.paper}"))
    if cell.apart:
        details.append(Line(_minus(cell.apart)))
    details += [Line(detail) for detail in (*cell.firmness, cell.power) if detail]
    return Cell(
        cell.value if cell.errors else "missing" if cell.planned else "not planned",
        href=None if cell.key is None else runs_href(cell.key),
        details=tuple(details),
        verdict=cell.verdict,
        rank=table.rank(row, column),
        absent=not cell.errors,
        aside=table.plan.config.is_addition(row, column),
    )


def differences_exhibit(found: differences.Differences, column: str) -> Exhibit:
    """The differences on one data set, every row against every other."""
    plan = found.plan
    pairs = {(p.row, p.other): p for pair in found.pairs[column] for p in (pair, pair.turned)}
    rows = [row for row in plan.config.rows if any(row in names for names in pairs)]
    body = []
    for row in rows:
        cells = [_difference_cell(pairs[row, other]) if other != row else Cell(NOTHING) for other in rows]
        body.append(Row((Cell(plan.label(row)), *cells)))
    columns = (Column("row minus column"), *(Column(plan.label(row), numeric=True) for row in rows))
    title = plan.title(column)
    return Exhibit(
        anchor=f"differences-{column}",
        title=f"Differences: {title}",
        caption=f"Test error on {title}, row minus column: {plan.protocol}",
        notes=(f"{differences.NOTE} Late: {found.late}.", " ".join(found.remarks(column))),
        warning=plan.warning,
        table=Table(columns, tuple(body)),
        missing=tuple(missing(found.cells, column).values()),
    )


def _difference_cell(pair: differences.Pair) -> Cell:
    below = _minus(pair.last.reach) if pair.untested is None else pair.untested
    details = Line(below), Line(f"late {_minus(pair.late.text)}")
    return Cell(_minus(pair.last.text), details=details, rank=int(pair.found))


def _minus(number: str) -> str:
    return number.replace("-", MINUS)
