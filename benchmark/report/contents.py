"""Everything that is rebuilt from the store, by name: printed, written to files, and put on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmark import claims
from benchmark.cells import missing
from benchmark.config import load_paper_values
from benchmark.options import RESULTS, Selection
from benchmark.report import claims as ledger_files
from benchmark.report import (
    curves,
    differences,
    exhibits,
    figure2,
    figure3,
    headline,
    html,
    runs,
    scaling,
    table1,
    table2,
    table3,
)
from benchmark.report.html import Cell, Column, Exhibit, Figure, Row, Table
from benchmark.sensitivity_design import default_column, default_rows, default_storage, stored
from benchmark.stored_run import slug
from benchmark.timing_points import PROFILES

Report = Callable[[Selection, Console], tuple[list[Path], list[Exhibit]]]
"""Builds from the store, writes, and prints (last, since who reads may close the pipe: `| head`); returns the
files and what the page shows."""

TITLE = "FW-DTP benchmark"
INTRO = (
    "Fixed-Weight Difference Target Propagation (Shibuya, Inoue, Kawakami, and Sato, AAAI 2023), trained "
    "anew: what was measured, beside what the paper printed. Every number is rebuilt from stored results."
)


def page_file(chosen: Selection) -> Path:
    return chosen.figures / f"{chosen.plan.file_name('report')}.html"


def report_table1(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    table = table1.build(chosen.plan, chosen.store)
    files = table1.write(table, chosen.root / "tables")
    table1.show(table, console)
    heads = ["", *map(table.head, table.measured.rows)]
    lines = [
        Row((Cell(head), *(replace(_text(text), rank=int(bold)) for text, bold in cells)))
        for head, cells in table1.body(table)
    ]
    exhibit = Exhibit(
        "table-1",
        "Table 1",
        table.heading,
        (table1.NOTE,),
        table.warning,
        Table(_columns(heads), tuple(lines)),
        missing=tuple(table.measured.missing.values()),
    )
    return files, [exhibit]


def report_table2(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    table = table2.build(chosen.plan, chosen.store, load_paper_values()["table2"])
    files = table2.write(table, chosen.root / "tables")
    if chosen.root == RESULTS and chosen.plan.source == "table2" and not chosen.plan.changes:
        files += headline.write(table)
    table2.show(table, console, chosen.rows, chosen.columns)
    return files, [exhibits.table2_exhibit(table, html.links_to(chosen.store, page_file(chosen)))]


def report_differences(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    """Of the page, one exhibit a data set."""
    found = differences.build(chosen.plan, chosen.store, load_paper_values()["table2"])
    files = differences.write(found, chosen.root / "tables")
    differences.show(found, console, chosen.rows, chosen.columns)
    return files, [
        exhibits.differences_exhibit(found, column) for column, pairs in found.pairs.items() if pairs
    ]


def report_curves(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    """Of the page, one exhibit a data set."""
    found = curves.build(chosen.plan, chosen.store, load_paper_values()["table2"])
    files = curves.write(found, chosen.root / "tables", chosen.figures)
    curves.show(found, console, chosen.rows, chosen.columns)
    shown = []
    for column in found.columns:
        title = chosen.plan.title(column)
        drawn = [file for file in files if file.stem == found.file_name(column)]
        exhibit = Exhibit(
            f"curves-{column}",
            f"Learning curves: {title}",
            f"Test error in % on {title}: {chosen.plan.protocol}",
            (found.note,),
            found.warning,
            _table(found.heads, [found.texts(row, column) for row in found.rows(column)]),
            _figures(drawn, f"Test error over the epochs on {title}", page_file(chosen)),
            tuple(missing(found.cells, column).values()),
        )
        shown.append(exhibit)
    return files, shown


def report_table3(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    table = table3.build(chosen.plan, chosen.store, load_paper_values())
    files = table3.write(table, chosen.root / "tables")
    table3.show(table, console)
    heads = ["device", *table3.heads(table)]
    body = [
        [device, *cells] for device, lines in table.devices.items() for cells in table3.body(table, lines)
    ]
    notes = [table.note]
    for device in table.devices:
        notes += [f"{device}: {table.provenance(device)}", *(f"Skipped: {s}" for s in table.skipped(device))]
    exhibit = Exhibit(
        "table-3",
        "Table 3",
        table.heading,
        tuple(notes),
        table.warning,
        _table(heads, body),
        missing=_commands(table.missing()),
    )
    return files, [exhibit]


def report_figure2(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    figure = figure2.build(chosen.plan, chosen.store)
    files = figure2.write(figure, chosen.figures)
    figure2.show(figure, console)
    alt = "Trace and share of non-negative eigenvalues over the epochs"
    exhibit = Exhibit(
        "figure-2",
        "Figure 2",
        figure.measured.heading,
        (figure2.NOTE,),
        chosen.plan.warning,
        figures=_figures(files, alt, page_file(chosen)),
        missing=tuple(figure.measured.missing.values()),
    )
    return files, [exhibit]


def report_figure3(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    """The plan's own figure, and the same of the other studies that the store has."""
    figures, left_out = figure3.build_others(chosen.plan, chosen.store)
    if _has_own_figure3(chosen):
        figures.insert(0, figure3.build(chosen.plan, chosen.store))
    notes = [f"Left out: {reason}." for reason in left_out]
    files = [figure3.write(figure, chosen.figures, chosen.root / "tables") for figure in figures]
    shown = []
    for figure, written in zip(figures, files, strict=True):
        figure3.show(figure, console)
        lines = figure3.cells(figure)
        alt = "Test accuracies of random hyperparameter configurations"
        exhibit = Exhibit(
            slug(figure.title),
            figure.title,
            figure.heading,
            (figure3.NOTE, *notes),
            figure.warning,
            _table(list(lines[0]), [list(line.values()) for line in lines]),
            _figures(written, alt, page_file(chosen)),
            tuple(figure.missing()),
        )
        shown.append(exhibit)
    for note in notes:
        console.print(note, markup=False)
    return [file for written in files for file in written], shown


def _has_own_figure3(chosen: Selection) -> bool:
    column = default_column(chosen.plan)
    return all(chosen.plan.run(row, column) is not None for row in default_rows(chosen.plan))


def report_scaling(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    figure = scaling.build(chosen.plan, chosen.store)
    files = scaling.write(figure, chosen.figures)
    scaling.show(figure, console)
    notes = [scaling.NOTE]
    for device in figure.devices:
        notes += [f"{device}: {gain}." for gain in figure.gains(device)]
        notes += [f"{device}: skipped: {reason}." for reason in figure.skipped(device)]
    exhibit = Exhibit(
        "scaling",
        "Scaling",
        figure.heading,
        tuple(notes),
        figure.warning,
        figures=_figures(
            files, "Cost against replicas, width, depth and feedback updates", page_file(chosen)
        ),
        missing=_commands(figure.missing()),
    )
    return files, [exhibit]


def report_claims(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    ledger = claims.verify(chosen.plan, chosen.store, load_paper_values()["table2"])
    files = ledger_files.write(ledger, chosen.root / "tables")
    ledger_files.show(ledger, console)
    columns = (
        Column("claim"),
        Column("verdict"),
        Column("what the paper says", wide=True),
        Column("numbers", wide=True),
    )
    rows = []
    for judgement in ledger.judgements:
        parts = (
            f"{p.where}: {ledger.judged(p)}. {p.numbers}"
            for p in judgement.parts
            if p.verdict is not claims.ClaimVerdict.NO_DATA
        )
        cells = (
            Cell(judgement.name),
            Cell("", verdict=ledger.shown(judgement.verdict)),
            Cell(judgement.claim.quote, details=(html.Line(judgement.claim.section),)),
            Cell(ledger.summary(judgement), details=tuple(map(html.Line, parts))),
        )
        rows.append(Row(cells))
    exhibit = Exhibit(
        "claims",
        "Claims",
        "What the paper says, judged",
        (ledger_files.note(ledger),),
        ledger.warning,
        Table(columns, tuple(rows)),
        missing=tuple(ledger.commands),
    )
    return files, [exhibit]


def report_runs(chosen: Selection, console: Console) -> tuple[list[Path], list[Exhibit]]:
    """No exhibit: the page has the runs at its end, under Provenance."""
    found = runs.build(chosen.plan, chosen.store)
    files = runs.write(found, chosen.root / "tables")
    runs.show(found, console)
    return files, []


REPORTS: dict[str, Report] = {
    "table2": report_table2,
    "figure2": report_figure2,
    "table1": report_table1,
    "figure3": report_figure3,
    "table3": report_table3,
    "claims": report_claims,
    "differences": report_differences,
    "curves": report_curves,
    "scaling": report_scaling,
    "runs": report_runs,
}
"""In the order of the page."""

MEASURED = {"table1": "conditions", "figure2": "jacobian"}
"""What a plan measures during training for the reports that rest on it."""
WHATEVER = ("figure3", "table3", "scaling")
"""Those that other seeds, epochs or precisions of the plan do not change."""


def available(chosen: Selection) -> list[str]:
    """The reports that the selection's plan has anything to say to."""
    return [name for name in REPORTS if is_available(name, chosen)]


def is_available(name: str, chosen: Selection) -> bool:
    """Whether the selection's plan has anything to say to a report."""
    if name in MEASURED:
        return MEASURED[name] in chosen.plan.config.measure
    if name in WHATEVER and chosen.plan.changes:
        return False
    if name == "differences":
        return len(chosen.plan.config.protocol.seeds) > 1
    if name == "curves":
        return chosen.plan.config.protocol.epochs > 1
    if name == "figure3":
        return _has_own_figure3(chosen) or bool(stored(chosen.plan, default_storage(chosen.store)))
    if name in ("table3", "scaling"):
        return any(profile.plan == chosen.plan.source for profile in PROFILES.values())
    return True


def report_all(chosen: Selection, console: Console) -> list[Path]:
    """Every report of the plan, and the page."""
    files: list[Path] = []
    sections: list[Exhibit] = []
    for name in available(chosen):
        written, shown = REPORTS[name](chosen, console)
        files += written
        sections += shown
    file = page_file(chosen)
    title = TITLE if chosen.plan.source == "table2" else f"{TITLE}: {chosen.plan.config.title}"
    text = html.page(title, INTRO, sections, html.provenance(chosen.store, file))
    return [*files, html.write(text, file)]


def _table(heads: Sequence[str], body: Iterable[Sequence[str]]) -> Table:
    return Table(_columns(heads), tuple(Row(tuple(map(_text, cells))) for cells in body))


def _columns(heads: Sequence[str]) -> tuple[Column, ...]:
    """A column of heads, and columns of numbers."""
    return tuple(Column(head, numeric=number > 0) for number, head in enumerate(heads))


def _commands(missing: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What fills all that is missing, each once."""
    return tuple(dict.fromkeys(command for _, command in missing))


def _text(value: str) -> Cell:
    return Cell(html.NOTHING, absent=True) if value in ("", "-") else Cell(value)


def _figures(files: Sequence[Path], alt: str, page: Path) -> tuple[Figure, ...]:
    drawn = [file for file in files if file.suffix == ".png"]
    return tuple(Figure.read(file, f"{alt} ({file.stem})", page) for file in drawn)
