"""Every report as sections of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.comparison.cells import missing
from benchmark.comparison.claims import ClaimVerdict, Ledger
from benchmark.report import (
    claims,
    curves,
    differences,
    figure2,
    figure3,
    runs,
    table1,
    table2,
    table3,
)
from benchmark.report.html import (
    NOTHING,
    Cell,
    Column,
    Exhibit,
    Figure,
    Line,
    Row,
    RunsHref,
    Table,
    run_anchor,
)
from benchmark.store.record import slug

MINUS = "−"  # as wide as a plus


def of_table1(table: table1.Table1) -> Exhibit:
    heads = ["", *map(table.head, table.measured.rows)]
    lines = [
        Row((Cell(head), *(replace(_text(text), rank=int(bold)) for text, bold in cells)))
        for head, cells in table1.body(table)
    ]
    return Exhibit(
        "table-1",
        "Table 1",
        table.heading,
        (table1.NOTE,),
        table.warning,
        Table(_columns(heads), tuple(lines)),
        missing=tuple(table.measured.missing.values()),
    )


def of_table2(table: table2.Table2, runs_href: RunsHref) -> Exhibit:
    """Every value leads to its run, every number of seeds to the run's provenance."""
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
    return Cell(
        cell.value if cell.errors else "missing" if cell.planned else "not planned",
        href=None if cell.key is None else runs_href(cell.key),
        details=tuple(details),
        verdict=cell.verdict,
        rank=table.rank(row, column),
        absent=not cell.errors,
        aside=table.plan.config.is_addition(row, column),
    )


def of_differences(found: differences.Differences) -> list[Exhibit]:
    """One a data set."""
    return [_differences_on(column, found) for column, pairs in found.pairs.items() if pairs]


def _differences_on(column: str, found: differences.Differences) -> Exhibit:
    """Every row against every other."""
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


def of_curves(found: curves.Curves, files: Sequence[Path], page: Path) -> list[Exhibit]:
    """One a data set."""
    shown = []
    for column in found.columns:
        title = found.plan.title(column)
        drawn = [file for file in files if file.stem == found.file_name(column)]
        exhibit = Exhibit(
            f"curves-{column}",
            f"Learning curves: {title}",
            f"Test error in % on {title}: {found.plan.protocol}",
            (found.note,),
            found.warning,
            _table(found.heads, [found.texts(row, column) for row in found.rows(column)]),
            _figures(drawn, f"Test error over the epochs on {title}", page),
            tuple(missing(found.cells, column).values()),
        )
        shown.append(exhibit)
    return shown


def of_table3(table: table3.Table3) -> Exhibit:
    heads = ["device", *table3.heads(table)]
    body = [
        [device, *cells] for device, lines in table.devices.items() for cells in table3.body(table, lines)
    ]
    notes = [table.note]
    for device in table.devices:
        notes += [f"{device}: {table.provenance(device)}", *(f"Skipped: {s}" for s in table.skipped(device))]
    return Exhibit(
        "table-3",
        "Table 3",
        table.heading,
        tuple(notes),
        table.warning,
        _table(heads, body),
        missing=_commands(table.missing()),
    )


def of_figure2(figure: figure2.Figure2, files: Sequence[Path], page: Path) -> Exhibit:
    alt = "Trace and share of non-negative eigenvalues over the epochs"
    return Exhibit(
        "figure-2",
        "Figure 2",
        figure.measured.heading,
        (figure2.NOTE,),
        figure.measured.plan.warning,
        figures=_figures(files, alt, page),
        missing=tuple(figure.measured.missing.values()),
    )


def of_figure3(figure: figure3.Figure3, notes: Sequence[str], files: Sequence[Path], page: Path) -> Exhibit:
    lines = figure3.cells(figure)
    alt = "Test accuracies of random hyperparameter configurations"
    return Exhibit(
        slug(figure.title),
        figure.title,
        figure.heading,
        (figure3.NOTE, *notes),
        figure.warning,
        _table(list(lines[0]), [list(line.values()) for line in lines]),
        _figures(files, alt, page),
        tuple(figure.missing()),
    )


def of_claims(ledger: Ledger) -> Exhibit:
    columns = (
        Column("claim"),
        Column("verdict"),
        Column("what the paper says", wide=True),
        Column("numbers", wide=True),
    )
    rows = []
    for judgement in ledger.judgements:
        there = [part for part in judgement.parts if part.verdict is not ClaimVerdict.NO_DATA]
        numbers = (f"{part.where}: {ledger.judged(part)}. {part.numbers}" for part in there)
        cells = (
            Cell(judgement.name),
            Cell("", verdict=ledger.shown(judgement.verdict)),
            Cell(judgement.claim.quote, details=(Line(judgement.claim.section),)),
            Cell(ledger.summary(judgement), details=tuple(map(Line, numbers))),
        )
        rows.append(Row(cells))
    return Exhibit(
        "claims",
        "Claims",
        "What the paper says, judged",
        (claims.note(ledger),),
        ledger.warning,
        Table(columns, tuple(rows)),
        missing=tuple(ledger.commands),
    )


def _table(heads: Sequence[str], body: Iterable[Sequence[str]]) -> Table:
    return Table(_columns(heads), tuple(Row(tuple(map(_text, cells))) for cells in body))


def _columns(heads: Sequence[str]) -> tuple[Column, ...]:
    """A column of heads, and columns of numbers."""
    return tuple(Column(head, numeric=number > 0) for number, head in enumerate(heads))


def _commands(gaps: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What fills all that is missing, each once."""
    return tuple(dict.fromkeys(command for _, command in gaps))


def _text(value: str) -> Cell:
    return Cell(NOTHING, absent=True) if value in ("", "-") else Cell(value)


def _figures(files: Sequence[Path], alt: str, page: Path) -> tuple[Figure, ...]:
    drawn = [file for file in files if file.suffix == ".png"]
    return tuple(Figure.read(file, f"{alt} ({file.stem})", page) for file in drawn)
